# SPDX-License-Identifier: MIT
"""One try of a device at a release, from the offer to its end, word for word as the contract has
it."""
import pytest

import images
from service import wait_for

VERSION = "1.2.0"


def make(services, **env):
    service = services(env={k: v for k, v in env.items()})
    service.release(images.esp32(VERSION), VERSION)
    service.number = service.rollout(VERSION)
    return service


@pytest.fixture
def loaded(services):
    return make(services)


def attempts(service, device="d1"):
    return service.list("updates", device_id=device)


def fetch(service, url, method="GET"):
    return service.session.request(method, url, timeout=30)


def test_from_offer_to_success(loaded):
    offer = loaded.check("d1")
    row, = attempts(loaded)
    assert row["attempt_id"] == offer["attempt_id"] and row["status"] == "pending"
    assert row["closed"] is None and row["started_at"] is None and row["completed_at"] is None
    assert row["rollout_id"] == loaded.number and row["release_id"] == offer["release_id"]
    assert row["unsolicited"] is False and row["reported_at"].endswith("Z")

    assert fetch(loaded, offer["download_url"]).status_code == 200
    row, = attempts(loaded)
    assert row["status"] == "downloading" and row["started_at"]
    loaded.report("d1", VERSION, "downloading", progress_percent=40)
    assert attempts(loaded)[0]["progress_percent"] == 40
    for word in ("downloaded", "installing"):
        loaded.report("d1", VERSION, word)
        assert attempts(loaded)[0]["status"] == word
    loaded.report("d1", VERSION, "success")
    row, = attempts(loaded)
    assert row["status"] == "success" and row["completed_at"] and row["progress_percent"] == 100
    assert not loaded.check("d1", VERSION)["update_available"]
    assert loaded.ok("GET", "/api/admin/devices/d1")["current_firmware_version"] == VERSION
    kinds = [e["event_type"] for e in reversed(loaded.list("events", device_id="d1"))]
    for kind in ("update_started", "update_completed"):
        assert kinds.count(kind) == 1


def test_a_failure_keeps_the_devices_words(loaded):
    loaded.check("d1")
    loaded.report("d1", VERSION, "downloading", progress_percent=30)
    loaded.report("d1", VERSION, "failed", error_message='flash: "write" failed\n\u00e4')
    row, = attempts(loaded)
    assert row["status"] == "failed" and row["completed_at"]
    assert row["error_message"] == 'flash: "write" failed\n\u00e4'
    assert row["progress_percent"] == 30
    assert [e for e in loaded.list("events") if e["event_type"] == "update_failed"]
    # The next check is a new attempt.
    second = loaded.check("d1")
    assert second["update_available"] and second["attempt_id"] != row["attempt_id"]


def test_late_and_repeated_reports_change_nothing(loaded):
    loaded.check("d1")
    loaded.report("d1", VERSION, "installing")
    for late in ("pending", "downloading", "downloaded", "installing"):
        loaded.report("d1", VERSION, late, progress_percent=10)
        assert attempts(loaded)[0]["status"] == "installing"
    loaded.report("d1", VERSION, "success")
    before = attempts(loaded)
    for late in ("downloading", "downloaded", "installing", "success", "failed"):
        loaded.report("d1", VERSION, late)
        assert attempts(loaded) == before
    loaded.report("d1", VERSION, "rolled_back", error_message="self-test failed")
    row, = attempts(loaded)
    assert row["status"] == "rolled_back" and row["error_message"] == "self-test failed"
    assert [e for e in loaded.list("events") if e["event_type"] == "rollback_initiated"]


def test_attempt_id_may_be_echoed(loaded):
    offer = loaded.check("d1")
    loaded.report("d1", VERSION, "failed", attempt_id=offer["attempt_id"])
    again = loaded.check("d1")
    # Late, and about the first.
    loaded.report("d1", VERSION, "installing", attempt_id=offer["attempt_id"])
    rows = attempts(loaded)
    assert [r["status"] for r in rows] == ["pending", "failed"]
    assert rows[0]["attempt_id"] == again["attempt_id"]


def test_from_nobody_about_nothing(service):
    service.report("stranger", "7.7.7", "success")
    row, = attempts(service, "stranger")
    assert row["unsolicited"] is True and row["status"] == "success"
    assert row["release_id"] is None and row["rollout_id"] is None
    device, = service.list("devices")
    assert device["device_id"] == "stranger" and device["device_model"] is None


def test_unsolicited_reports_steer_nothing(loaded):
    loaded.check("d1", VERSION)
    for _ in range(5):
        loaded.report("d1", "9.9.9", "failed")
    one = loaded.ok("GET", "/api/admin/rollouts/%d" % loaded.number)
    assert not any(one["counts"].values())
    assert not loaded.check("d1", VERSION)["update_available"]


WRONG = {
    "no status": {"status": None}, "no version": {"firmware_version": None},
    "no device": {"device_id": None}, "status unknown": {"status": "done"},
    "status a number": {"status": 3}, "percent 101": {"progress_percent": 101},
    "percent -1": {"progress_percent": -1}, "percent a string": {"progress_percent": "5"},
    "percent half": {"progress_percent": 50.5}, "another device": {"device_id": "d2"},
    "version empty": {"firmware_version": ""}, "version long": {"firmware_version": "x" * 129},
    "message a list": {"error_message": []}, "version a number": {"firmware_version": 12},
    "attempt a number": {"attempt_id": 1}, "attempt long": {"attempt_id": "x" * 65},
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_reports_are_422_and_recorded_nowhere(service, name):
    body = {"device_id": "d1", "firmware_version": VERSION, "status": "failed", **WRONG[name]}
    body = {k: v for k, v in body.items() if v is not None}
    answer = service.post("/api/device/d1/update-status", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"][0]["loc"][0] == "body"
    assert service.list("updates") == [] and service.list("devices") == []


def test_null_is_absent(service):
    service.report("d1", VERSION, "failed", error_message=None, progress_percent=None,
                   attempt_id=None)
    assert attempts(service)[0]["error_message"] is None


def test_a_very_long_message_is_cut_where_a_character_ends(service):
    service.report("d1", VERSION, "failed", error_message="\u00e4" * 100000)
    kept = attempts(service)[0]["error_message"]
    assert 100 < len(kept) < 3000 and set(kept) == {"\u00e4"}


def test_a_report_is_there_after_a_crash(loaded):
    loaded.check("d1")
    loaded.report("d1", VERSION, "installing")
    loaded.kill()
    loaded.start()
    assert attempts(loaded)[0]["status"] == "installing"
    loaded.report("d1", VERSION, "success")
    loaded.kill()
    loaded.start()
    assert attempts(loaded)[0]["status"] == "success"


def test_the_offer_survives_a_restart(loaded):
    offer = loaded.check("d1")["attempt_id"]
    loaded.kill()
    loaded.start()
    assert loaded.check("d1")["attempt_id"] == offer
    assert len(attempts(loaded)) == 1


def test_deactivation_withdraws_what_waits(loaded):
    waiting, running = loaded.check("d1"), loaded.check("d2")
    assert fetch(loaded, running["download_url"]).status_code == 200
    loaded.ok("POST", "/api/admin/rollout/%d/deactivate" % loaded.number)
    row, = attempts(loaded)
    assert row["status"] == "pending" and row["closed"] == "withdrawn" and row["completed_at"]
    assert [e for e in loaded.list("events", device_id="d1")
            if e["event_type"] == "update_withdrawn"]
    answer = fetch(loaded, waiting["download_url"])
    assert answer.status_code == 410 and isinstance(answer.json()["detail"], str)
    assert fetch(loaded, waiting["download_url"], "HEAD").status_code == 410
    # What has begun runs to its end and is recorded.
    assert fetch(loaded, running["download_url"]).status_code == 200
    loaded.report("d2", VERSION, "success")
    assert attempts(loaded, "d2")[0]["status"] == "success"
    counts = loaded.ok("GET", "/api/admin/rollouts/%d" % loaded.number)["counts"]
    assert counts["withdrawn"] == 1 and counts["success"] == 1 and counts["pending"] == 0
    loaded.restart()
    assert fetch(loaded, loaded.url + waiting["download_url"][len("http://127.0.0.1:"):][
        waiting["download_url"][len("http://127.0.0.1:"):].index("/"):]).status_code == 410


def test_head_begins_nothing(loaded):
    offer = loaded.check("d1")
    assert fetch(loaded, offer["download_url"], "HEAD").status_code == 200
    assert attempts(loaded)[0]["status"] == "pending"


def test_an_attempt_nobody_gave_out_is_no_obstacle(loaded):
    url = loaded.url + "/api/firmware/download/1.2.0?attempt=aaaaaaaaaaaaa"
    assert fetch(loaded, url).status_code == 200
    assert fetch(loaded, loaded.url + "/api/firmware/download/1.2.0?attempt=" + "x" * 500
                 ).status_code == 200


def test_an_offer_lapses_after_three_polls(services):
    service = make(services, OTA_POLL_INTERVAL_S=1)
    offer = service.check("d1")
    wait_for(lambda: attempts(service)[0]["closed"] == "lapsed", "the offer to lapse")
    row, = attempts(service)
    assert row["status"] == "pending" and row["completed_at"]
    assert service.ok("GET", "/api/admin/rollouts/%d" % service.number)["counts"]["lapsed"] == 1
    # It is nobody's failure: the device is offered it again, or goes on with what it has.
    assert fetch(service, offer["download_url"]).status_code == 200
    row, = attempts(service)
    assert row["status"] == "downloading" and row["closed"] is None
    assert row["completed_at"] is None


def test_a_device_that_asks_on_and_never_downloads_is_offered_it_anew(services):
    """It would else keep a place for ever in which another device could try the release."""
    service = make(services, OTA_POLL_INTERVAL_S=1)
    first = service.check("d1")
    assert service.check("d1")["attempt_id"] == first["attempt_id"]
    second = wait_for(lambda: (a := service.check("d1"))["attempt_id"] != first["attempt_id"] and a,
                      "another offer", every_s=0.2)
    assert second["update_available"]
    rows = attempts(service)
    assert [a["attempt_id"] for a in rows[-2:]] == [second["attempt_id"], first["attempt_id"]]
    assert rows[-1]["closed"] == "lapsed"


def test_a_lost_result_is_closed_by_the_next_check(loaded):
    loaded.check("d1")
    loaded.report("d1", VERSION, "installing")
    assert not loaded.check("d1", VERSION)["update_available"]
    assert attempts(loaded)[0]["status"] == "success"


def test_the_old_version_soon_after_installing_says_nothing(loaded):
    loaded.check("d1", boot_id="b1")
    loaded.report("d1", VERSION, "installing")
    answer = loaded.check("d1", boot_id="b1")
    assert not answer["update_available"]
    assert attempts(loaded)[0]["status"] == "installing"


@pytest.mark.parametrize("before,after", [({"boot_id": "b1"}, {"boot_id": "b2"}),
                                          ({"uptime_s": 5000}, {"uptime_s": 0})])
def test_the_old_version_after_a_boot_is_a_rollback(services, before, after):
    service = make(services, OTA_INSTALL_GRACE_S=600)
    service.check("d1", **before)
    service.report("d1", VERSION, "installing")
    if "uptime_s" in after:  # whole seconds: the boot must lie after the installation
        wait_for(lambda: service.check("d1", **after) and
                 attempts(service)[-1]["status"] == "rolled_back", "the evidence", every_s=0.3)
    else:
        service.check("d1", **after)
    assert attempts(service)[-1]["status"] == "rolled_back"


def test_the_old_version_for_long_is_a_rollback(services):
    service = make(services, OTA_INSTALL_GRACE_S=1)
    service.check("d1")
    service.report("d1", VERSION, "installing")
    wait_for(lambda: service.check("d1") and attempts(service)[-1]["status"] == "rolled_back",
             "the grace to pass", every_s=0.2)
    assert attempts(service)[-1]["error_message"]


def test_success_and_back_again_is_a_rollback(services):
    service = make(services, OTA_INSTALL_GRACE_S=1)
    service.check("d1", boot_id="a")
    service.report("d1", VERSION, "success")
    assert not service.check("d1", VERSION, boot_id="b")["update_available"]
    service.check("d1", "1.0.0", boot_id="c")
    assert attempts(service)[-1]["status"] == "rolled_back"


def test_a_device_that_calls_the_release_otherwise_is_learnt(loaded):
    loaded.check("d1")
    loaded.report("d1", VERSION, "success")
    answer = loaded.check("d1", "1.2.0-custom.7")
    assert not answer["update_available"], "a loop of offers"
    row, = loaded.list("releases")
    assert row["learnt_versions"] == ["1.2.0-custom.7"]
    # The next device that says so runs it; and that is known after a restart.
    loaded.restart()
    assert not loaded.check("d2", "1.2.0-custom.7")["update_available"]
    assert loaded.list("releases")[0]["learnt_versions"] == ["1.2.0-custom.7"]


def test_the_version_inside_the_image_counts(service):
    service.release(images.esp32("2.0RC3"), "2.0RC4")
    service.rollout("2.0RC4")
    assert service.check("d1", "1.0.0")["update_available"]
    assert not service.check("d1", "2.0RC3")["update_available"]
    # But not when two releases have it inside.
    service.release(images.esp32("2.0RC3", fill=7), "2.0RC5")
    service.rollout("2.0RC5")
    assert service.check("d2", "2.0RC3")["update_available"]


def test_digests_tell_what_runs(service):
    image = images.esp32("1.0.0", elf=0x5A)
    service.release(image, VERSION)
    service.rollout(VERSION)
    assert not service.check("d1", "x", firmware_digest=image[-32:].hex())["update_available"]
    assert not service.check("d2", "x", app_elf_sha256="5a" * 32)["update_available"]
    assert service.check("d3", "x", app_elf_sha256="00" * 32)["update_available"]
    assert service.check("d4", "x", firmware_digest="11" * 32)["update_available"]


def test_time_stamped_versions(service):
    older, newer = "a1b2c3d-20251208-153045", "0000000-20251209-080000"
    for version in (older, newer):
        service.release(images.esp32(version, fill=len(version)), version)
    service.rollout(older)
    assert not service.check("d1", newer)["update_available"]
    assert service.explain("d1")["reason"] == "downgrade"
    service.rollout(newer)
    assert service.check("d2", older)["latest_version"] == newer
    # Incomparable with semver: neither an upgrade nor a downgrade, and no reason to refuse.
    assert service.check("d3", "99.0.0")["update_available"]


def test_a_newer_rollout_takes_the_place_of_a_waiting_offer(loaded):
    first = loaded.check("d1")
    loaded.release(images.esp32("1.3.0"), "1.3.0")
    loaded.rollout("1.3.0")
    second = loaded.check("d1")
    assert second["latest_version"] == "1.3.0" and second["attempt_id"] != first["attempt_id"]
    rows = attempts(loaded)
    assert [(r["firmware_version"], r["closed"]) for r in rows] == \
        [("1.3.0", None), (VERSION, "withdrawn")]
    assert fetch(loaded, first["download_url"]).status_code == 410


def test_what_has_begun_is_not_interrupted(loaded):
    first = loaded.check("d1")
    fetch(loaded, first["download_url"])
    loaded.release(images.esp32("1.3.0"), "1.3.0")
    loaded.rollout("1.3.0")
    answer = loaded.check("d1")
    assert answer["attempt_id"] == first["attempt_id"] or not answer["update_available"]
    loaded.report("d1", VERSION, "success")
    assert loaded.check("d1", VERSION)["latest_version"] == "1.3.0"


def test_only_one_attempt_is_open_at_a_time(loaded):
    """Whatever a device does, in whatever order."""
    loaded.release(images.esp32("1.3.0"), "1.3.0")
    for i in range(30):
        loaded.check("d1", ("1.0.0", "1.1.0", VERSION)[i % 3])
        loaded.report("d1", (VERSION, "1.3.0", "5")[i % 3],
                      ("downloading", "failed", "installing", "success")[i % 4])
        if i == 15:
            loaded.rollout("1.3.0")
    rows = loaded.list("updates", device_id="d1", limit=1000)
    assert len([r for r in rows if not r["completed_at"] and not r["unsolicited"]]) <= 1


def test_a_late_download_is_of_the_model_that_was_offered(services):
    """The version exists for two models, and the offer has lapsed: its URL still means one of them."""
    service = services(env={"OTA_POLL_INTERVAL_S": 1})
    images_of = {"pi": images.big(4096), "box": images.big(8192)}
    for model, image in images_of.items():
        service.release(image, "3", model)
    service.rollout("3", "box")
    url = service.check("d1", "1", "box")["download_url"]
    wait_for(lambda: service.list("updates")[0]["closed"] == "lapsed", "the offer to lapse")
    assert service.session.get(url).content == images_of["box"]
    assert service.list("updates")[0]["status"] == "downloading"
