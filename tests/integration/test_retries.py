# SPDX-License-Identifier: MIT
"""What follows a failure, by its result code: over MQTT and over HTTP, through restarts."""
import pytest

import images
from mqtt import Device, MqttService
from service import wait_for

VERSION = "1.2.0"
CODES = {1: "wifi not connected", 2: "download failed", 3: "verification failed", 4: "install failed",
         5: "no partition", 6: "invalid url", 7: "timeout", 8: "insufficient space",
         9: "invalid firmware", 11: "rollback failed"}


def fail(service, device, code, reports=("failed",)):
    answer = service.check(device)
    assert answer["update_available"], answer
    for status in reports:
        service.report(device, VERSION, status, attempt_id=answer["attempt_id"],
                       **({"result_code": code} if status == "failed" else {}))
    return service.check(device)["reason"]


def says(service, device, words):
    sentence = service.explain(device)["sentence"]
    assert words in sentence, sentence


def test_over_http(services, clock):
    service = services(env={**clock.environment(), "OTA_POLL_INTERVAL_S": 60})
    service.release(images.esp32(VERSION), VERSION)
    service.rollout(VERSION, name="r", guard="off")  # it would end at the first failures
    for code in (5, 8, 9, 11):
        name = "d%d" % code
        assert fail(service, name, code) == "in_vain"
        says(service, name, "It failed with %d %s at 1.2.0 (rollout r): not tried again until you say retry"
             % (code, CODES[code]))
    for code in (1, 2, 6, 7):
        assert fail(service, "d%d" % code, code) == "retry_later"
        says(service, "d%d" % code, "It failed with %d %s" % (code, CODES[code]))
    assert fail(service, "d3", 3) == "retry_later"
    assert fail(service, "d4", 4) == "retry_later"
    assert fail(service, "d7w", 7, ("downloaded", "failed")) == "retry_later"
    # None told: it may try as often as it comes, three times.
    assert fail(service, "d0", 0) == "offered"

    service.restart()
    assert service.check("d8")["reason"] == "in_vain"
    assert service.check("d1")["reason"] == "retry_later"
    clock.go_on(70)  # a poll interval has passed
    assert service.check("d1")["reason"] == "retry_later"
    assert fail(service, "d3", 3) == "in_vain"  # once more, and no more
    assert fail(service, "d4", 4) == "retry_later"
    assert fail(service, "d7w", 7, ("downloading", "downloaded", "failed")) == "retry_later"
    clock.go_on(240)
    for again in (30 * 60, 2 * 3600, 4 * 3600):  # more often than max_attempts allows
        assert fail(service, "d1", 1) == "retry_later"
        says(service, "d1", "tried again in ")
        clock.go_on(again - 30)
        assert service.check("d1")["reason"] == "retry_later"
        clock.go_on(60)
        assert service.check("d1")["reason"] == "offered"
    assert fail(service, "d4", 4) == "too_many_failures"
    assert fail(service, "d7w", 7, ("installing", "failed")) == "too_many_failures"

    # Somebody says retry; and what failed at one release says nothing of the next.
    service.ok("POST", "/api/admin/devices/d8/retry")
    assert service.check("d8")["reason"] == "offered"
    service.release(images.esp32("1.3.0"), "1.3.0")
    service.rollout("1.3.0", name="next", guard="off")
    assert service.check("d9")["latest_version"] == "1.3.0"
    event = next(e for e in service.list("events", device_id="d9", event_type="update_failed"))
    assert event["event_data"]["result_code"] == 9


def test_over_mqtt(tmp_path, clock):
    service = MqttService(tmp_path / "service", env={**clock.environment(), "OTA_POLL_INTERVAL_S": 60})
    service.start()
    try:
        service.release(images.esp32(VERSION), VERSION)
        full, offline = Device(service, "full"), Device(service, "wifi")
        service.rollout(VERSION, guard="off")
        full.command()
        offline.command()
        full.result(VERSION, 8, "4 KB free")
        offline.result(VERSION, 1)
        wait_for(lambda: service.explain("full")["reason"] == "in_vain", "the result")
        wait_for(lambda: service.explain("wifi")["reason"] == "retry_later", "the result")
        says(service, "full", "It failed with 8 insufficient space")
        clock.go_on(305)
        offline.command(2)  # by then the dispatcher has looked at both
        assert len(full.commands()) == 1
        service.ok("POST", "/api/admin/devices/full/retry")
        assert full.command(2)["version"] == VERSION
    finally:
        service.stop()


@pytest.mark.parametrize("code", [-1, 12, "8", 1.5])
def test_codes_that_are_none(service, code):
    answer = service.post("/api/device/d1/update-status", json={
        "device_id": "d1", "firmware_version": VERSION, "status": "failed", "result_code": code})
    assert answer.status_code == 422 and "result_code" in answer.text
