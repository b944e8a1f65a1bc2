# SPDX-License-Identifier: MIT
"""Rollouts with a gate, on a real service: what a bad release does, and what people are told."""
import json

import pytest

import images
from mqtt import Device, MqttService
from service import wait_for

CREATE = "/api/admin/rollout/create"
NEW = "2.0.0"


@pytest.fixture
def loaded(service):
    service.release(images.esp32(NEW), NEW)
    return service


def body(name="walk", **fields):
    return {"name": name, "firmware_version": NEW, "device_model": "esp32", "target_type": "all",
            **fields}


def make(service, **fields):
    return service.ok("POST", CREATE, json=body(**fields))["rollout_id"]


def show(service, number):
    return service.ok("GET", "/api/admin/rollouts/%d" % number)


def path_of(answer):
    return answer["download_url"].split("/", 3)[3].join(["/", ""])


def take(service, name, version="1.0.0"):
    """The device asks, and has the whole image of what it is offered; its answer, None: no offer."""
    answer = service.check(name, version)
    if not answer["update_available"]:
        return None
    image = service.get(path_of(answer))
    assert image.status_code == 200 and len(image.content) == answer["file_size"]
    return answer


def fails(service, name, answer, code=4):
    service.report(name, NEW, "failed", attempt_id=answer["attempt_id"], result_code=code)


def releases(service):
    return {r["version"]: r for r in service.ok("GET", "/api/admin/firmware/releases")["releases"]}


def kinds(service, number):
    rows = service.ok("GET", "/api/admin/events", params={"rollout_id": number, "limit": 1000})
    return [e["event_type"] for e in rows["events"]][::-1]


def test_a_bad_release_is_halted(loaded):
    number = make(loaded, stages=[{"percent": 100, "min_duration_s": 60}])
    r = show(loaded, number)
    assert r["guard"] is None and r["bounded"] is True
    assert r["evidence"]["failed"] == 0 and r["evidence"]["halts_at"] == 125
    assert r["exposure"] == {"bound": 2, "unresolved": 0}
    harmed = []
    for i in range(3):
        name = "dev-%d" % i
        answer = take(loaded, name)
        if answer is None:
            break
        fails(loaded, name, answer)
        harmed.append(name)
    r = show(loaded, number)
    assert 2 <= len(harmed) <= 3
    assert r["state"] == "halted" and not r["is_active"]
    assert "%d of the first %d failed" % (len(harmed), len(harmed)) in r["reason"]
    assert r["evidence"]["halted"] and r["evidence"]["sentence"] == r["reason"]
    assert r["evidence"]["e"] >= 125 and r["evidence"]["failed"] == len(harmed)
    assert [v["from_version"] for v in r["evidence"]["variants"]] == ["1.0.0"]
    # Nothing is offered to anybody, and explain says why.
    for name in ("dev-0", "dev-9"):
        answer = loaded.check(name)
        assert not answer["update_available"] and answer["reason"] == "halted"
    told = loaded.ok("GET", "/api/admin/devices/dev-9/explain")
    assert told["reason"] == "halted" and "times likelier" in told["sentence"]
    assert releases(loaded)[NEW]["suspect"] and releases(loaded)[NEW]["suspect_since"]
    order = kinds(loaded, number)
    assert "update_offered" not in order[order.index("rollout_halted"):]
    # After a restart all of it is as it was.
    loaded.stop()
    loaded.start()
    again = show(loaded, number)
    assert {k: again[k] for k in ("state", "reason", "evidence", "exposure")} == \
        {k: r[k] for k in ("state", "reason", "evidence", "exposure")}
    assert loaded.check("dev-9")["reason"] == "halted"
    # Another rollout of it: only by somebody who says so, and why.
    refused = loaded.post(CREATE, json=body("again"))
    assert refused.status_code == 409 and "override_suspect" in refused.json()["detail"]
    refused = loaded.post(CREATE, json=body("again", override_suspect=True))
    assert refused.status_code == 422 and "reason" in refused.text
    other = make(loaded, name="again", override_suspect=True, reason="it was the power supply",
                 stages=[{"percent": 100}])
    assert loaded.check("dev-9")["update_available"]
    assert not releases(loaded)[NEW]["suspect"]
    assert show(loaded, number)["state"] == "halted" and show(loaded, other)["state"] == "running"
    rows = loaded.ok("GET", "/api/admin/events", params={"rollout_id": other})["events"]
    told = [e for e in rows if e["event_type"] == "gate_overridden"]
    assert told[0]["event_data"]["reason"] == "it was the power supply"


def test_what_is_sent_whole_is_at_risk(loaded):
    """A failure without a code counts for as much as the device had of the image."""
    number = make(loaded, stages=[{"percent": 100}])
    answer = loaded.check("dev-1")
    part = loaded.get(path_of(answer), headers={"Range": "bytes=0-99"})
    assert part.status_code == 206
    loaded.report("dev-1", NEW, "failed", attempt_id=answer["attempt_id"])
    assert kinds(loaded, number)[-1] == "device_given_back"
    take(loaded, "dev-2")
    wait_for(lambda: "device_at_risk" in kinds(loaded, number), "the whole image to be had")
    r = show(loaded, number)
    assert r["evidence"]["at_risk"] == 1 and r["exposure"]["unresolved"] == 1


def test_so_many_at_a_time(loaded):
    number = make(loaded, stages=[{"percent": 100}], guard={"initial_unproven": 3, "prove_s": 1})
    offered = [loaded.check("dev-%d" % i) for i in range(5)]
    assert [a["update_available"] for a in offered] == [True] * 3 + [False] * 2
    assert offered[4]["reason"] == "waits_for_a_place"
    told = loaded.ok("GET", "/api/admin/devices/dev-4/explain")
    assert told["reason"] == "waits_for_a_place" and "3 of the 3 devices" in told["sentence"]
    assert show(loaded, number)["exposure"] == {"bound": 3, "unresolved": 3}
    # One proves it: seen with it, and well a second later.
    loaded.report("dev-0", NEW, "success", attempt_id=offered[0]["attempt_id"])

    def proven():
        loaded.check("dev-0", NEW)
        return show(loaded, number)["evidence"]["proven"] == 1

    wait_for(proven, "one that proves it")
    assert loaded.check("dev-4")["update_available"]


def test_each_kind_in_its_turn(loaded):
    """Of two kinds of devices none takes the second place while the other waits for its first."""
    for name, hw in (("a1", "A"), ("a2", "A"), ("b1", "B"), ("b2", "B")):
        loaded.check(name, hw=hw)
    make(loaded, stages=[{"percent": 100}])
    assert loaded.check("a1", hw="A")["update_available"]
    answer = loaded.check("a2", hw="A")
    assert not answer["update_available"] and answer["reason"] == "waits_for_a_place"
    assert "of which fewer have tried it, go first" in loaded.explain("a2")["sentence"]
    loaded.restart()
    assert loaded.check("a2", hw="A")["reason"] == "waits_for_a_place"
    assert loaded.check("b2", hw="B")["update_available"]
    assert loaded.check("a2", hw="A")["reason"] == "waits_for_a_place"
    assert "2 of the 2 devices" in loaded.explain("a2")["sentence"]


def test_commands_go_round_the_kinds(tmp_path):
    """Over MQTT the first two commands go to the two versions that are there."""
    service = MqttService(tmp_path / "service").start()
    try:
        service.release(images.esp32(NEW), NEW)
        many = [Device(service, "many-%d" % i, version="1.0.0") for i in range(8)]
        one = Device(service, "one", version="1.1.0")
        wait_for(lambda: len(service.list("devices")) == 9, "the devices")
        make(service, stages=[{"percent": 100}])
        assert one.command()["version"] == NEW
        wait_for(lambda: sum(len(d.commands()) for d in many) == 1, "the other command")
        assert show(service, 1)["exposure"] == {"bound": 2, "unresolved": 2}
    finally:
        service.stop()


def test_the_higher_priority_is_told_first(tmp_path):
    """Where commands are paced, those of the higher priority do not take turns with the others."""
    service = MqttService(tmp_path / "service", env={"OTA_DISPATCH_PER_SECOND": 1}).start()
    try:
        for model in ("many", "few"):
            service.release(images.esp32(NEW), NEW, model)
        devices = [Device(service, "many-%d" % i, model="many") for i in range(12)]
        few = [Device(service, "few-%d" % i, model="few") for i in range(3)]
        wait_for(lambda: len(service.list("devices")) == 15, "the devices")
        service.rollout(NEW, "many", guard="off")
        wait_for(lambda: any(d.commands() for d in devices), "the first of the many")
        number = service.rollout(NEW, "few", priority=10, guard="off")
        for device in few:
            device.command(seconds=30)
        events = service.ok("GET", "/api/admin/events", params={"limit": 1000})["events"][::-1]
        made = next(e["id"] for e in events
                    if e["event_type"] == "rollout_created" and e["rollout_id"] == number)
        order = [e["rollout_id"] for e in events if e["event_type"] == "update_offered" and e["id"] > made]
        assert order[:4].count(number) == 3, order  # one may have been on its way
    finally:
        service.stop()


@pytest.mark.parametrize("guard, sentence", [
    ("on", "must be \"off\", or an object"),
    (5, "must be \"off\", or an object"),
    ({"p0": 0.9}, "p0 is 0.9"),
    ({"p0": "0.01"}, "must be a number"),
    ({"p0": 0.01, "halts_at": 5}, "halts_at is nothing that can be set"),
    ({"suspects": 0.5}, "suspects must be a list"),
    ({"suspects": [0.5, 0.2]}, "suspects[1] is 0.2"),
    ({"suspects": ["x"]}, "suspects must hold numbers"),
    ({"suspects": [0.5] * 9}, "suspects must be a list of 1 to 8"),
    ({"suspects": []}, "name 1 to 8"),
    ({"halt_at": 1}, "halt_at is 1"),
    ({"prove_s": 0}, "prove_s is 0"),
    ({"silence_s": 1.5}, "must be a whole number"),
    ({"initial_unproven": 0}, "initial_unproven is 0"),
    ({"initial_unproven": 9, "max_unproven": 8}, "below initial_unproven"),
])
def test_parameters_that_make_no_sense(loaded, guard, sentence):
    answer = loaded.post(CREATE, json=body(guard=guard))
    assert answer.status_code == 422, answer.text
    assert sentence in " ".join(e["msg"] for e in answer.json()["detail"]), answer.text


def test_parameters_are_shown(loaded):
    guard = {"p0": 0.02, "suspects": [0.1, 0.5], "halt_at": 100, "prove_s": 60, "silence_s": 120,
             "initial_unproven": 4, "max_unproven": 40}
    number = make(loaded, guard=guard, stages=[{"percent": 100}])
    r = show(loaded, number)
    assert r["guard"] == guard and r["exposure"]["bound"] == 4
    assert json.dumps(r["guard"]["p0"]) == "0.02"
    assert make(loaded, guard=guard, stages=[{"percent": 100}]) == number
    assert loaded.post(CREATE, json=body(guard="off")).status_code == 409
    off = show(loaded, make(loaded, name="off", guard="off"))
    assert off["guard"] == "off" and off["evidence"] is None and off["exposure"] is None
    plain = show(loaded, make(loaded, name="plain"))
    assert plain["bounded"] is False and plain["exposure"]["bound"] is None
