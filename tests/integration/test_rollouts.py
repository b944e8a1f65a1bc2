# SPDX-License-Identifier: MIT
"""Rollouts: made, stopped, listed; and whom they reach."""
import pytest

import images
from service import wait_for

CREATE = "/api/admin/rollout/create"
VERSION = "1.2.0"


@pytest.fixture
def loaded(service):
    service.release(images.esp32(VERSION), VERSION)
    return service


def body(**changes):
    made = {"name": "r", "firmware_version": VERSION, "device_model": "esp32", "target_type": "all"}
    made.update(changes)
    return {k: v for k, v in made.items() if v is not None}


def offered(service, ids, version="1.0.0", **more):
    return {i for i in ids if service.check(i, version, **more)["update_available"]}


def test_the_answer_and_the_lists(loaded):
    answer = loaded.ok("POST", CREATE, json=body(target_type="canary", rollout_percentage=10))
    assert answer["status"] == "ok" and isinstance(answer["message"], str)
    number = answer["rollout_id"]
    assert isinstance(number, int)
    row, = loaded.list("rollouts")
    assert row["id"] == number and row["name"] == "r" and row["firmware_version"] == VERSION
    assert row["device_model"] == "esp32" and row["target_type"] == "canary"
    assert row["rollout_percentage"] == 10 and row["is_active"] is True
    assert row["allow_downgrade"] is False and row["max_attempts"] == 3
    assert row["created_at"].endswith("Z") and row["updated_at"].endswith("Z")
    one = loaded.ok("GET", "/api/admin/rollouts/%d" % number)
    assert {k: one[k] for k in row} == row
    assert one["targeted"] == 0 and one["on_version"] == 0
    assert set(one["counts"]) >= {"pending", "downloading", "downloaded", "installing", "success",
                                  "failed", "rolled_back", "lapsed", "withdrawn"}
    event, = [e for e in loaded.list("events") if e["event_type"] == "rollout_created"]
    assert event["rollout_id"] == number and event["firmware_version"] == VERSION


def test_defaults(loaded):
    loaded.ok("POST", CREATE, json=body())
    row, = loaded.list("rollouts")
    assert row["rollout_percentage"] == 100 and row["is_active"] is True
    assert row["max_parallel"] == 0


def test_the_name_taken(loaded):
    first = loaded.ok("POST", CREATE, json=body())["rollout_id"]
    # A CI job run again.
    assert loaded.ok("POST", CREATE, json=body())["rollout_id"] == first
    assert loaded.ok("POST", CREATE, json=body(rollout_percentage=100))["rollout_id"] == first
    for change in ({"rollout_percentage": 50}, {"target_type": "canary"}, {"is_active": False},
                   {"allow_downgrade": True}, {"max_attempts": 5},
                   {"max_parallel": 1}):
        answer = loaded.post(CREATE, json=body(**change))
        assert answer.status_code == 409, change
        assert "r" in answer.json()["detail"]
    # Still the same request when the rollout was stopped since: it does not start it again.
    loaded.ok("POST", "/api/admin/rollout/%d/deactivate" % first)
    assert loaded.ok("POST", CREATE, json=body())["rollout_id"] == first
    assert loaded.list("rollouts")[0]["is_active"] is False
    loaded.restart()
    assert loaded.ok("POST", CREATE, json=body())["rollout_id"] == first


def test_the_same_devices_in_another_order_are_the_same(loaded):
    one = body(target_type="specific", target_filter={"device_ids": ["b", "a", "a"]})
    two = body(target_type="specific", target_device_ids=["a", "b"])
    assert loaded.ok("POST", CREATE, json=one) ["rollout_id"] == \
        loaded.ok("POST", CREATE, json=two)["rollout_id"]


def test_an_unknown_release_is_404(loaded):
    for change in ({"firmware_version": "9"}, {"device_model": "esp8266"}):
        answer = loaded.post(CREATE, json=body(**change))
        assert answer.status_code == 404 and isinstance(answer.json()["detail"], str)
    assert loaded.list("rollouts") == []


WRONG = {
    "no name": body(name=None), "no version": body(firmware_version=None),
    "no model": body(device_model=None), "no type": body(target_type=None),
    "empty name": body(name=""), "name a number": body(name=5), "long name": body(name="x" * 5000),
    "type unknown": body(target_type="some"), "type a number": body(target_type=1),
    "percent 101": body(rollout_percentage=101), "percent -1": body(rollout_percentage=-1),
    "percent a string": body(rollout_percentage="10"), "percent 10.5": body(rollout_percentage=10.5),
    "percent a bool": body(rollout_percentage=True), "percent a list": body(rollout_percentage=[1]),
    "active a string": body(is_active="true"), "active a number": body(is_active=1),
    "specific of none": body(target_type="specific"),
    "specific of no ids": body(target_type="specific", target_filter={"device_ids": []}),
    "specific of a word": body(target_type="specific", target_filter={"device_ids": "a"}),
    "specific of numbers": body(target_type="specific", target_filter={"device_ids": [1, 2]}),
    "specific of a bad id": body(target_type="specific", target_device_ids=["a/b"]),
    "specific of a bad mac": body(target_type="specific", target_filter={"mac_addresses": ["zz"]}),
    "filter a word": body(target_filter="x"), "filter a list": body(target_filter=["x"]),
    "group of none": body(target_type="group"),
    "group of an empty name": body(target_type="group", target_filter={"group": ""}),
    "group of a list": body(target_type="group", target_filter={"group": ["a"]}),
    "all with a group": body(target_filter={"group": "lab"}),
    "canary with a group": body(target_type="canary", target_filter={"group": "lab"}),
    "canary with devices": body(target_type="canary", target_filter={"device_ids": ["a"]}),
    "all with devices": body(target_device_ids=["a"]),
    "group with macs": body(target_type="group", target_filter={
        "group": "lab", "mac_addresses": ["aa:bb:cc:dd:ee:ff"]}),
    "specific with a group": body(target_type="specific", target_filter={
        "group": "lab", "device_ids": ["a"]}),
    "version with a space": body(firmware_version="1 2"),
    "model with a slash": body(device_model="a/b"),
    "attempts 0": body(max_attempts=0), "attempts a word": body(max_attempts="3"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_fields_are_422(loaded, name):
    answer = loaded.post(CREATE, json=WRONG[name])
    assert answer.status_code == 422, answer.text
    for one in answer.json()["detail"]:
        assert one["loc"][0] == "body" and one["msg"] and one["type"]
    assert loaded.list("rollouts") == []


def test_an_empty_filter_says_nothing(loaded):
    for n, empty in enumerate(({}, None, {"device_ids": [], "mac_addresses": [], "group": ""})):
        assert loaded.ok("POST", CREATE, json=body(name="r%d" % n, target_filter=empty))
    assert loaded.ok("POST", CREATE, json=body(name="r", target_device_ids=[]))


def test_a_filter_that_is_not_looked_at_is_named(loaded):
    answer = loaded.post(CREATE, json=body(target_filter={"group": "lab"}))
    assert "group is for target_type group, but target_type is all" in answer.text


def test_unknown_fields_are_ignored(loaded):
    assert loaded.ok("POST", CREATE, json=body(description="x", nested={"a": [1]}))["rollout_id"]


def test_deactivate_and_activate(loaded):
    number = loaded.rollout(VERSION)
    path = "/api/admin/rollout/%d/" % number
    assert loaded.check("d1")["update_available"]
    for _ in range(2):
        assert loaded.ok("POST", path + "deactivate")["status"] == "ok"
    assert loaded.list("rollouts")[0]["is_active"] is False
    assert not loaded.check("d1")["update_available"]
    loaded.restart()
    assert not loaded.check("d1")["update_available"]
    for _ in range(2):
        assert loaded.ok("POST", path + "activate")["status"] == "ok"
    assert loaded.check("d1")["update_available"]
    kinds = [e["event_type"] for e in loaded.list("events") if e["rollout_id"] == number]
    assert kinds.count("rollout_updated") == 2
    # With a JSON body, as some clients send with every POST.
    assert loaded.post(path + "deactivate", json={}).status_code == 200


@pytest.mark.parametrize("number,status", [("999", 404), ("0", 422), ("x", 422), ("-1", 422),
                                           ("1e3", 422), ("99999999999999999999999", 422)])
def test_rollouts_that_are_not_there(service, number, status):
    for call in ("deactivate", "activate"):
        answer = service.post("/api/admin/rollout/%s/%s" % (number, call))
        assert answer.status_code == status, answer.text
        assert answer.json()["detail"]
    assert service.get("/api/admin/rollouts/" + number).status_code == status


def test_filters_of_the_list(loaded):
    loaded.release(images.esp32("1", chip="esp32-s3"), "1", "esp32-s3")
    one = loaded.rollout(VERSION)
    two = loaded.rollout("1", "esp32-s3", is_active=False)
    assert [r["id"] for r in loaded.list("rollouts")] == [two, one]
    assert [r["id"] for r in loaded.list("rollouts", device_model="esp32")] == [one]
    assert [r["id"] for r in loaded.list("rollouts", active="true")] == [one]
    assert [r["id"] for r in loaded.list("rollouts", active="false")] == [two]


def test_specific_by_id_and_by_mac(loaded):
    loaded.rollout(VERSION, target_type="specific",
                   target_filter={"device_ids": ["d1"], "mac_addresses": ["AA-BB-CC-00-11-22"]})
    assert offered(loaded, ["d1", "d2"]) == {"d1"}
    assert loaded.check("d3", mac="aa:bb:cc:00:11:22")["update_available"]
    assert not loaded.check("d4", mac="aa:bb:cc:00:11:23")["update_available"]


def test_target_device_ids_is_another_spelling(loaded):
    loaded.rollout(VERSION, target_type="specific", target_device_ids=["d1", "d2"])
    assert offered(loaded, ["d1", "d2", "d3"]) == {"d1", "d2"}
    assert loaded.list("rollouts")[0]["target_filter"] == {"device_ids": ["d1", "d2"]}


@pytest.mark.parametrize("kind", ["canary", "all"])
def test_a_percentage_is_inside_every_larger_one(loaded, kind):
    ids = ["dev-%03d" % i for i in range(100)]
    for i in ids:
        loaded.check(i)
    before = set()
    for percent in (10, 25, 100):
        number = loaded.rollout(VERSION, target_type=kind, rollout_percentage=percent,
                                name="p%d" % percent)
        assert loaded.ok("GET", "/api/admin/rollouts/%d" % number)["targeted"] == \
            pytest.approx(percent, abs=12)
        now = offered(loaded, ids)
        assert before <= now and abs(len(now) - percent) <= 12
        before = now
    assert before == set(ids)


def test_not_the_same_unlucky_ones_each_time(loaded):
    ids = ["dev-%03d" % i for i in range(100)]
    loaded.release(images.esp32("1.3.0"), "1.3.0")
    one = loaded.rollout(VERSION, target_type="canary", rollout_percentage=20)
    first = offered(loaded, ids)
    loaded.ok("POST", "/api/admin/rollout/%d/deactivate" % one)
    loaded.rollout("1.3.0", target_type="canary", rollout_percentage=20)
    second = offered(loaded, ids)
    assert first and second and first != second


def test_somebody_stands_in_when_nobody_falls_inside(loaded):
    ids = ["tiny-%d" % i for i in range(5)]
    for i in ids:
        loaded.check(i)
    loaded.rollout(VERSION, target_type="canary", rollout_percentage=1)
    chosen = offered(loaded, ids)
    assert len(chosen) == 1
    loaded.restart()
    assert offered(loaded, ids) == chosen


def test_groups(loaded):
    ids = ["g%02d" % i for i in range(20)]
    for i in ids:
        loaded.check(i)
    for i in ids[:10]:
        loaded.ok("PUT", "/api/admin/devices/%s/groups/vans" % i)
    loaded.ok("PUT", "/api/admin/devices/%s/groups" % ids[15], json={"groups": ["vans", "x"]})
    loaded.rollout(VERSION, target_type="group", target_filter={"group": "vans"})
    assert offered(loaded, ids) == set(ids[:10]) | {ids[15]}
    loaded.ok("DELETE", "/api/admin/devices/%s/groups/vans" % ids[0])
    assert not loaded.check(ids[0])["update_available"]
    assert loaded.explain(ids[0])["reason"] == "not_in_group"
    assert loaded.explain(ids[16])["reason"] == "not_in_group"


def test_a_percentage_inside_a_group(loaded):
    ids = ["g%03d" % i for i in range(100)]
    for i in ids:
        loaded.check(i)
        loaded.ok("PUT", "/api/admin/devices/%s/groups/vans" % i)
    loaded.check("outside")
    loaded.rollout(VERSION, target_type="group", target_filter={"group": "vans"},
                   rollout_percentage=30)
    assert 15 <= len(offered(loaded, ids)) <= 45
    assert offered(loaded, ["outside"]) == set()


def test_who_runs_it_is_never_offered_it(loaded):
    loaded.rollout(VERSION)
    for version in (VERSION, "v" + VERSION):
        answer = loaded.check("d-" + version, version)
        assert answer["update_available"] is False and answer["latest_version"] == VERSION
    assert loaded.explain("d-" + VERSION)["reason"] == "up_to_date"


def test_the_newest_active_rollout_wins(loaded):
    loaded.release(images.esp32("1.3.0"), "1.3.0")
    loaded.rollout("1.3.0")
    old = loaded.rollout(VERSION)
    assert loaded.check("d1")["latest_version"] == VERSION
    loaded.ok("POST", "/api/admin/rollout/%d/deactivate" % old)
    assert loaded.check("d2")["latest_version"] == "1.3.0"


def test_the_newest_whose_release_the_device_may_take(loaded):
    """A device too old for the newest release is offered the step before it."""
    loaded.release(images.esp32("2.0.0"), "2.0.0", min_version="1.2.0")
    loaded.rollout(VERSION)
    loaded.rollout("2.0.0")
    assert loaded.check("old", "1.0.0")["latest_version"] == VERSION
    assert loaded.check("new", "1.2.0")["latest_version"] == "2.0.0"


def test_an_upload_alone_changes_nothing(loaded):
    loaded.rollout(VERSION)
    loaded.release(images.esp32("1.3.0"), "1.3.0")
    assert loaded.check("d1")["latest_version"] == VERSION
    answer = loaded.check("d2", VERSION)
    assert not answer["update_available"] and answer["latest_version"] == "1.3.0"


def test_downgrades_only_when_said(loaded):
    loaded.rollout(VERSION)
    assert not loaded.check("d1", "1.3.0")["update_available"]
    assert loaded.explain("d1")["reason"] == "downgrade"
    loaded.rollout(VERSION, name="down", allow_downgrade=True)
    assert loaded.check("d1", "1.3.0")["update_available"]


def test_counts_follow_the_attempts(loaded):
    number = loaded.rollout(VERSION)
    for i in range(4):
        loaded.check("c%d" % i)
    loaded.report("c0", VERSION, "downloading")
    loaded.report("c1", VERSION, "success")
    loaded.report("c2", VERSION, "failed")
    one = loaded.ok("GET", "/api/admin/rollouts/%d" % number)
    assert {k: v for k, v in one["counts"].items() if v} == \
        {"pending": 1, "downloading": 1, "success": 1, "failed": 1}
    assert one["targeted"] == 4 and one["on_version"] == 1


def test_a_release_in_use_is_not_deleted(loaded):
    number = loaded.rollout(VERSION)
    path = "/api/admin/firmware/releases/" + VERSION
    answer = loaded.delete(path)
    assert answer.status_code == 409 and str(number) in answer.json()["detail"]
    loaded.check("d1")
    loaded.ok("POST", "/api/admin/rollout/%d/deactivate" % number)
    loaded.ok("DELETE", path)
    assert loaded.delete(path).status_code == 404
    assert loaded.list("releases") == [] and loaded.firmware_files() == []
    assert loaded.post("/api/admin/rollout/%d/activate" % number).status_code == 409
    assert loaded.post(CREATE, json=body(name="n")).status_code == 404
    assert loaded.session.get(loaded.url + "/api/firmware/download/" + VERSION).status_code == 404
    # The version means the bytes it meant: others are refused, the same come back.
    assert loaded.upload(images.esp32(VERSION, fill=3), VERSION).status_code == 409
    assert loaded.upload(images.esp32(VERSION), VERSION).status_code == 200
    loaded.restart()
    assert [r["version"] for r in loaded.list("releases")] == [VERSION]


def test_a_release_devices_are_taking_is_not_deleted(loaded):
    number = loaded.rollout(VERSION)
    offer = loaded.check("d1")
    assert loaded.session.get(offer["download_url"]).status_code == 200
    loaded.ok("POST", "/api/admin/rollout/%d/deactivate" % number)
    assert loaded.delete("/api/admin/firmware/releases/" + VERSION).status_code == 409
    loaded.report("d1", VERSION, "failed")
    loaded.ok("DELETE", "/api/admin/firmware/releases/" + VERSION)


# --- a few at a time ---

def waits_until_offered(service, device_id):
    return wait_for(lambda: service.check(device_id)["update_available"], "an offer", every_s=0.1)


def test_so_many_at_a_time(loaded):
    number = loaded.rollout(VERSION, max_parallel=2, name="r")
    assert loaded.ok("GET", "/api/admin/rollouts/%d" % number)["max_parallel"] == 2
    assert offered(loaded, ["a", "b", "c", "d"]) == {"a", "b"}
    assert loaded.check("c")["reason"] == "waits_its_turn"
    told = loaded.explain("c")
    assert told["reason"] == "waits_its_turn" and told["update_available"] is False
    assert told["sentence"] == \
        "It runs 1.0.0 and gets 1.2.0 by rollout r when one of those that download now is done."
    # The same answer again does not take a place, and an offer is kept.
    assert offered(loaded, ["a", "b", "c", "d"]) == {"a", "b"}
    loaded.report("a", VERSION, "success")
    waits_until_offered(loaded, "c")
    assert loaded.check("d")["reason"] == "waits_its_turn"
    loaded.report("b", VERSION, "failed")
    waits_until_offered(loaded, "d")
    # Places are kept over a restart.
    loaded.restart()
    assert loaded.check("e")["reason"] == "waits_its_turn"
    assert loaded.check("c")["update_available"] and loaded.check("d")["update_available"]
    assert loaded.check("e")["reason"] == "waits_its_turn"


def test_so_many_in_all(services):
    service = services(env={"OTA_MAX_DOWNLOADS": 2})
    service.release(images.esp32(VERSION), VERSION)
    service.release(b"a bundle" * 100, VERSION, "box", image_type="raw")
    service.rollout(VERSION)
    service.rollout(VERSION, "box")
    assert offered(service, ["a"]) == {"a"} and offered(service, ["b"], model="box") == {"b"}
    assert service.check("c")["reason"] == "waits_its_turn"
    # What installs leaves its place to the next.
    for status in ("downloading", "downloaded", "installing"):
        service.report("a", VERSION, status)
    waits_until_offered(service, "c")


@pytest.mark.parametrize("value", [-1, 1000001, "2", 1.5, True])
def test_max_parallel_of_the_wrong_shape(loaded, value):
    answer = loaded.post(CREATE, json=body(max_parallel=value))
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "max_parallel"]
