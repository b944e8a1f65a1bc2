# SPDX-License-Identifier: MIT
"""What a rollout gave is taken back: over HTTP, over MQTT, and after a restart."""
import images
from mqtt import Device, MqttService
from service import wait_for
from test_guard import fails, take

NEW = "2.0.0"


def rollouts(service):
    return {r["name"]: r for r in service.ok("GET", "/api/admin/rollouts")["rollouts"]}


def show(service, number):
    return service.ok("GET", "/api/admin/rollouts/%d" % number)


def succeeds(service, name, version, answer):
    service.report(name, version, "success", attempt_id=answer["attempt_id"])
    service.check(name, version)


def test_on_halt_its_devices_go_back(service):
    for version in ("1.0.0", NEW):
        service.release(images.esp32(version), version)
    number = service.rollout(NEW, name="walk", on_halt="rollback")
    for name in ("a", "b", "c"):
        succeeds(service, name, NEW, take(service, name))
    for i in range(9):
        answer = take(service, "bad-%d" % i)
        if not answer:
            break
        fails(service, "bad-%d" % i, answer)
    halted = show(service, number)
    assert halted["state"] == "halted" and halted["on_halt"] == "rollback"
    back, = halted["rolled_back_by"]
    assert "Rollout %d brings its devices back to 1.0.0." % back in halted["next"]["sentence"]
    # A person is told of the halt, whatever is done about it.
    wait_for(lambda: service.ok("GET", "/api/admin/alerts", params={
        "kind": "rollout_halted", "open": "true"})["alerts"], "the alert")
    service.restart()
    shown = show(service, back)
    assert shown["name"] == "walk-back-to-1.0.0" and shown["state"] == "running"
    assert shown["rolls_back"] == {"rollout_id": number, "firmware_version": NEW}
    assert shown["allow_downgrade"] and shown["bounded"] and shown["exposure"]["bound"] == 2
    assert shown["targeted"] == 3 and shown["created_by"] == "gate"
    answers = {name: service.check(name, NEW) for name in ("a", "b", "c")}
    assert [a["latest_version"] for a in answers.values() if a["update_available"]] == ["1.0.0"] * 2
    assert answers["c"]["reason"] == "waits_for_a_place"
    succeeds(service, "a", "1.0.0", answers["a"])
    assert service.check("a")["reason"] == "halted" and show(service, back)["on_version"] == 1
    assert service.explain("a")["sentence"].startswith("Release 2.0.0 was found bad")
    assert {r["firmware_version"] for r in rollouts(service).values()} == {"1.0.0", NEW}
    events = service.ok("GET", "/api/admin/events", params={"rollout_id": number})["events"]
    told, = [e for e in events if e["event_type"] == "rollout_taken_back"]
    assert told["created_by"] == "gate" and told["event_data"]["rollouts"] == [back]
    assert wait_for(lambda: service.ok("GET", "/api/admin/alerts", params={
        "kind": "rollout_halted", "open": "true"})["alerts"], "the alert")


def test_by_hand_over_mqtt(tmp_path):
    service = MqttService(tmp_path / "service").start()
    try:
        for version in ("1.0.0", NEW):
            service.release(images.esp32(version), version)
        device = Device(service, "d1", version="1.0.0")
        number = service.rollout(NEW, name="walk", stages=[{"percent": 100}])
        assert service.get(device.command()["url"].split(str(service.port))[1]).status_code == 200
        device.result(NEW)
        device.birth(NEW)
        wait_for(lambda: show(service, number)["on_version"] == 1, "the device to run it")
        done = service.ok("POST", "/api/admin/rollout/%d/rollback" % number,
                          json={"reason": "it smells"})
        assert done["state"] == "aborted" and "takes back what it gave" in done["message"]
        assert device.command(2)["version"] == "1.0.0"
        again = service.post("/api/admin/rollout/%d/rollback" % number)
        assert again.status_code == 409 and again.json()["state"] == "aborted"
    finally:
        service.stop()
