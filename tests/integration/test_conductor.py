# SPDX-License-Identifier: MIT
"""Rollouts that walk by themselves, on a real service and a real clock, in stages of a second."""
import datetime
import json
import os
import random
import threading

import pytest

import images
from mqtt import Device, MqttService
from service import BUILD, wait_for

CREATE = "/api/admin/rollout/create"
NEW = "2.0.0"


@pytest.fixture
def loaded(service):
    service.release(images.esp32(NEW), NEW)
    return service


class Crowd:
    """Devices that look in, take what they are offered, and say so."""

    def __init__(self, service, count=20, bad=()):
        self.service = service
        self.runs = {"dev-%02d" % i: "1.0.0" for i in range(count)}
        self.bad = set(bad)
        self.look_in()

    def look_in(self):
        for name, version in self.runs.items():
            answer = self.service.check(name, version)
            if not answer["update_available"]:
                continue
            to = answer["latest_version"]
            if name in self.bad:
                self.service.report(name, to, "failed", attempt_id=answer["attempt_id"])
                continue
            self.service.report(name, to, "success", attempt_id=answer["attempt_id"])
            self.runs[name] = to
            self.service.check(name, to)
        return self

    def updated(self):
        return {name for name, version in self.runs.items() if version == NEW}


def make(service, **fields):
    body = {"name": "walk", "firmware_version": NEW, "device_model": "esp32", "target_type": "all"}
    body.update(fields)
    return service.ok("POST", CREATE, json=body)["rollout_id"]


def show(service, number):
    return service.ok("GET", "/api/admin/rollouts/%d" % number)


def lead(service, number, verb, **body):
    return service.post("/api/admin/rollout/%d/%s" % (number, verb), json=body)


def waits_for(service, number, what):
    return wait_for(lambda: (r := show(service, number))["next"]["waits_for"] == what and r,
                    "the rollout to wait for " + what)


def in_state(service, number, state, stage=None):
    def there():
        r = show(service, number)
        return r["state"] == state and stage in (None, r["stage"]["index"]) and r
    return wait_for(there, "state %s, stage %s" % (state, stage))


def events(service, number):
    rows, cursor = [], None
    while True:
        page = service.ok("GET", "/api/admin/events", params={
            "rollout_id": number, "limit": 1000, **({"cursor": cursor} if cursor else {})})
        rows += page["events"]
        cursor = page["next_cursor"]
        if not cursor:
            return rows[::-1]


def explained(rows):
    """The state of a rollout by its events alone, and each of them follows from the one before."""
    state, since, stage_since = None, None, None
    for row in rows:
        data, at = row["event_data"], row["created_at"]
        if row["event_type"] == "rollout_created":
            state, since = {"state": data["state"], "stage": 1, "approved": False}, at
            stage_since = at if data["state"] == "running" else None
        elif "after" in (data or {}):
            assert data["before"] == state, row
            if data["after"]["state"] != state["state"]:
                since = at
            if data["after"]["stage"] != state["stage"] or \
                    (data["after"]["state"] == "running" and not stage_since):
                stage_since = at
            state = data["after"]
    return {**state, "since": since, "stage_since": stage_since}


def standing(r):
    return {"state": r["state"], "stage": r["stage"]["index"], "approved": r["stage"]["approved"],
            "since": r["since"], "stage_since": r["stage"]["since"]}


def same_as_explained(service, number):
    r, told = None, None
    while r is None or standing(r) != standing(show(service, number)):
        r = show(service, number)  # again, where it moved while the events were read
        told = explained(events(service, number))
    assert told == standing(r)
    assert r["is_active"] == (r["state"] in ("running", "completed"))
    return r


STAGES = [{"percent": 10, "min_duration_s": 1}, {"percent": 50, "min_duration_s": 1},
          {"percent": 100}]


def test_it_walks_from_few_to_all(loaded):
    crowd = Crowd(loaded)
    number = make(loaded, stages=STAGES)
    r = show(loaded, number)
    assert r["state"] == "running" and r["rollout_percentage"] == 10
    assert r["stage"]["index"] == 1 and r["stage"]["of"] == 3 and r["stage"]["percent"] == 10
    assert r["next"]["waits_for"] in ("time", "proof") and r["next"]["sentence"]
    assert r["stages"][0] == {"percent": 10, "min_duration_s": 1}
    reached = {}

    def walked():
        crowd.look_in()
        r = show(loaded, number)
        reached[r["stage"]["index"]] = crowd.updated()
        return r["state"] == "completed" and r

    r = wait_for(walked, "the last stage to end")
    assert sorted(reached) == [1, 2, 3]
    assert 0 < len(reached[1]) < len(reached[2]) < len(reached[3]) == 20
    assert reached[1] < reached[2]
    assert r["is_active"] and r["stage"]["index"] == 3 and r["rollout_percentage"] == 100
    assert r["next"]["waits_for"] == "over"
    assert loaded.check("a-latecomer")["update_available"]
    rows = events(loaded, number)
    kinds = [e["event_type"] for e in rows if e["event_type"].startswith("rollout_")]
    assert kinds == ["rollout_created", "rollout_stage", "rollout_updated", "rollout_stage",
                     "rollout_updated", "rollout_completed"]
    for e in rows:
        if e["event_type"] == "rollout_stage":
            assert e["created_by"] == "conductor" and "run it well" in e["event_data"]["reason"]
    same_as_explained(loaded, number)


def test_a_stage_waits_for_proof(loaded):
    crowd = Crowd(loaded, count=10, bad=["dev-%02d" % i for i in range(10)])
    number = make(loaded, stages=[{"percent": 50}, {"percent": 100}], max_attempts=1)
    crowd.look_in()
    r = waits_for(loaded, number, "proof")
    assert r["progress"]["proven"] == 0 and r["progress"]["needed"] >= 1
    assert r["progress"]["seen"] == r["targeted"] > 0
    assert "0 of the" in r["next"]["sentence"] and r["next"]["then"] == "stage_done"
    # Then they do well after all.
    crowd.bad.clear()
    for name in crowd.runs:
        loaded.ok("POST", "/api/admin/devices/%s/retry" % name)
    crowd.look_in()
    in_state(loaded, number, "running", 2)


def test_a_number_of_its_own(loaded):
    Crowd(loaded, count=3)
    number = make(loaded, stages=[{"percent": 100, "min_proven": 0}])
    in_state(loaded, number, "completed")


def test_pause_keeps_what_is_done(loaded):
    crowd = Crowd(loaded)
    number = make(loaded, stages=[{"percent": 50}, {"percent": 100, "min_duration_s": 3600}])
    pending = next(n for n in crowd.runs if loaded.check(n)["update_available"])
    answer = lead(loaded, number, "pause", reason="lunch")
    assert answer.status_code == 200 and answer.json()["state"] == "paused"
    r = same_as_explained(loaded, number)
    assert r["state"] == "paused" and r["reason"] == "lunch" and not r["is_active"]
    assert r["next"]["waits_for"] == "resume"
    assert not loaded.check(pending)["update_available"]
    withdrawn, = loaded.list("updates", device_id=pending)
    assert withdrawn["closed"] == "withdrawn"
    loaded.restart()
    assert same_as_explained(loaded, number)["reason"] == "lunch"
    # Again is no error; neither is the older word for it.
    assert "already" in lead(loaded, number, "pause").json()["message"]
    assert loaded.ok("POST", "/api/admin/rollout/%d/deactivate" % number)
    assert lead(loaded, number, "resume", reason="back").json()["state"] == "running"
    crowd.look_in()
    in_state(loaded, number, "running", 2)
    # The older words: a pause that keeps the stage.
    loaded.ok("POST", "/api/admin/rollout/%d/deactivate" % number)
    assert same_as_explained(loaded, number)["state"] == "paused"
    loaded.ok("POST", "/api/admin/rollout/%d/activate" % number)
    assert same_as_explained(loaded, number)["stage"]["index"] == 2
    # What people and the conductor did, and nothing that devices did or that follows for them.
    done = loaded.list("events", operations="true", limit=1000)
    assert {e["event_type"] for e in done} == {
        "firmware_uploaded", "rollout_created", "rollout_updated", "rollout_paused",
        "rollout_resumed", "rollout_stage"}
    assert {e["created_by"] for e in done} == {"api", "conductor"}
    rest = [e for e in loaded.list("events", limit=1000) if e not in done]
    assert rest and {e["created_by"] for e in rest} == {None}
    assert "update_withdrawn" in {e["event_type"] for e in rest}
    assert loaded.get("/api/admin/events", params={"operations": "perhaps"}).status_code == 422
    by = {e["event_type"]: e for e in events(loaded, number)}
    assert by["rollout_paused"]["created_by"] == "api"
    reasons = [e["event_data"].get("reason") for e in events(loaded, number)
               if e["event_type"] in ("rollout_paused", "rollout_resumed")]
    assert reasons == ["lunch", "back", None, None]


def test_promote_and_approve(loaded):
    Crowd(loaded, count=4)
    number = make(loaded, stages=[{"percent": 25, "min_duration_s": 3600},
                                  {"percent": 50, "min_proven": 0, "approve": True},
                                  {"percent": 100, "min_duration_s": 3600}])
    wrong = lead(loaded, number, "approve")
    assert wrong.status_code == 409 and "asks nobody" in wrong.json()["detail"]
    answer = lead(loaded, number, "promote", reason="looks good", stage=1)
    assert answer.json() == {"status": "ok", "state": "running", "stage": 2,
                             "message": "rollout %d is running in stage 2" % number}
    r = waits_for(loaded, number, "approval")
    assert r["stage"]["approved"] is False
    assert lead(loaded, number, "approve", stage=2).status_code == 200
    in_state(loaded, number, "running", 3)
    # The same click twice: it is told that the stage is another one by now, and approves nothing.
    late = lead(loaded, number, "approve", stage=2)
    assert late.status_code == 409
    assert late.json()["stage"] == 3 and late.json()["state"] == "running"
    assert lead(loaded, number, "promote").json()["state"] == "completed"
    assert lead(loaded, number, "promote").status_code == 409
    same_as_explained(loaded, number)


def test_abort_is_for_good(loaded):
    Crowd(loaded)
    number = make(loaded, stages=STAGES)
    assert lead(loaded, number, "abort", reason="wrong branch").json()["state"] == "aborted"
    assert lead(loaded, number, "abort").status_code == 200
    for verb in ("resume", "pause", "promote", "approve"):
        answer = lead(loaded, number, verb)
        assert answer.status_code == 409 and "for good" in answer.json()["detail"], verb
        assert answer.json()["state"] == "aborted"
    assert loaded.post("/api/admin/rollout/%d/activate" % number).status_code == 409
    loaded.ok("POST", "/api/admin/rollout/%d/deactivate" % number)
    r = same_as_explained(loaded, number)
    assert r["reason"] == "wrong branch" and r["next"]["waits_for"] == "over"
    assert not any(loaded.check("dev-%02d" % i)["update_available"] for i in range(20))
    loaded.restart()
    same_as_explained(loaded, number)


def test_draft_and_its_time(loaded):
    Crowd(loaded, count=2)
    number = make(loaded, is_active=False)
    r = show(loaded, number)
    assert r["state"] == "draft" and r["next"]["waits_for"] == "activation"
    assert r["stage"]["since"] is None
    loaded.ok("POST", "/api/admin/rollout/%d/activate" % number)
    assert same_as_explained(loaded, number)["state"] == "running"
    soon = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=2))
    number = make(loaded, name="later", not_before=soon.isoformat(), priority=7,
                  stages=[{"percent": 100, "min_proven": 0, "min_duration_s": 3600}])
    r = show(loaded, number)
    assert r["state"] == "scheduled" and r["next"]["waits_for"] == "not_before"
    assert r["next"]["until"] == r["not_before"] and not r["is_active"]
    r = in_state(loaded, number, "running")
    assert r["stage"]["since"] >= r["not_before"]
    same_as_explained(loaded, number)
    # One whose time is far off starts when a person says so.
    number = make(loaded, name="far", not_before="2100-01-01T00:00:00Z", deadline="2100-01-02T00:00Z")
    assert lead(loaded, number, "resume").json()["state"] == "scheduled"
    assert lead(loaded, number, "promote").json()["state"] == "running"


def test_the_deadline_pauses(loaded):
    Crowd(loaded, count=2)
    soon = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=2))
    number = make(loaded, deadline=soon.isoformat())
    r = in_state(loaded, number, "paused")
    assert "deadline" in r["reason"]
    answer = lead(loaded, number, "resume")
    assert answer.status_code == 409 and "deadline" in answer.json()["detail"]
    # The same request again finds it; as a new one it would come too late.
    assert make(loaded, deadline=r["deadline"]) == number
    answer = loaded.post(CREATE, json={"name": "x", "firmware_version": NEW, "target_type": "all",
                                       "device_model": "esp32", "deadline": "2020-01-01T00:00:00Z"})
    assert answer.status_code == 422


def test_a_wider_stage_is_told(services, tmp_path):
    """Over MQTT nobody asks: those whom the next stage reaches are told when it begins."""
    service = MqttService(tmp_path / "mqtt").start()
    devices = [Device(service, "dev-%02d" % i) for i in range(12)]
    try:
        service.release(images.esp32(NEW), NEW)
        number = make(service, stages=[{"percent": 25, "min_duration_s": 3600}, {"percent": 100}])

        def told():
            return {d.id for d in devices if d.commands()}

        first = wait_for(lambda: len(told()) == show(service, number)["targeted"] and told(),
                         "the first stage to be told")
        assert 0 < len(first) < 12
        assert lead(service, number, "promote").status_code == 200
        wait_for(lambda: len(told()) == 12, "all to be told")
        assert all(len(d.commands()) == 1 for d in devices)
    finally:
        for d in devices:
            d.close()
        service.stop()


def test_nothing_is_led_while_everything_is_stopped(loaded):
    Crowd(loaded, count=2)
    loaded.ok("POST", "/api/admin/stop-all", json={"reason": "x"})
    number = make(loaded, stages=[{"percent": 50, "min_proven": 0}, {"percent": 100}])
    assert show(loaded, number)["next"]["waits_for"] == "resume_all"
    loaded.ok("POST", "/api/admin/resume-all")
    in_state(loaded, number, "running", 2)
    first = [e for e in loaded.list("events") if e["event_type"] in ("all_resumed", "rollout_stage")]
    assert [e["event_type"] for e in first] == ["rollout_stage", "all_resumed"]


def test_stepping_stones(loaded):
    loaded.release(images.esp32("1.5.0"), "1.5.0")
    make(loaded, name="stone", firmware_version="1.5.0")
    make(loaded, requires="1.5.0")
    assert loaded.check("d", "1.0.0")["latest_version"] == "1.5.0"
    considered = {c["rollout_id"]: c for c in loaded.explain("d")["considered"]}
    assert considered[2]["reason"] == "below_required" and "1.5.0" in considered[2]["sentence"]
    assert loaded.check("d", "1.5.0")["latest_version"] == NEW


def test_a_strategy_is_a_list(loaded):
    for i, (strategy, percents) in enumerate({
            "canary-10": [10], "canary-25": [25], "canary-50": [50], "full": [100],
            "guarded": [1, 10, 25, 50, 100]}.items()):
        number = make(loaded, name="s%d" % i, strategy=strategy)
        assert [s["percent"] for s in show(loaded, number)["stages"]] == percents
        assert make(loaded, name="s%d" % i, strategy=strategy) == number
    number = make(loaded, name="t", strategy="test", target_type="specific", target_device_ids=["a"])
    assert [s["percent"] for s in show(loaded, number)["stages"]] == [100]
    # Another list under the same name is another rollout.
    body = {"name": "s0", "firmware_version": NEW, "device_model": "esp32", "target_type": "all"}
    assert loaded.post(CREATE, json={**body, "strategy": "canary-25"}).status_code == 409
    # The older way to say the first one is the same.
    assert loaded.ok("POST", CREATE, json={**body, "rollout_percentage": 10})["rollout_id"] == 1


def stages(*percents, **more):
    return {"stages": [{"percent": p, **more} for p in percents]}


WRONG = {
    "fall": (stages(50, 10), "fewer"), "repeat": (stages(10, 10), "repeats"),
    "pass 100": (stages(10, 101), "between 1 and 100"), "zero": (stages(0, 100), "between 1 and"),
    "empty": ({"stages": []}, "at least one"), "a thousand": (stages(*range(1, 1001)), "at most 100"),
    "a word": ({"stages": "10,100"}, "list"), "numbers": ({"stages": [10, 100]}, "object"),
    "no percent": ({"stages": [{"min_duration_s": 5}]}, "required"),
    "negative time": (stages(10, min_duration_s=-1), "between 0 and"),
    "too long": (stages(10, min_duration_s=1e9), "whole number"),
    "ages": (stages(10, min_duration_s=10**9), "between 0 and"),
    "half a device": (stages(10, min_proven=0.5), "whole number"),
    "less than none proven": (stages(10, min_proven=-1), "between 0"),
    "approve a word": (stages(10, approve="yes"), "true or false"),
    "stages and strategy": ({**stages(10), "strategy": "full"}, "not both"),
    "stages and percentage": ({**stages(10), "rollout_percentage": 10}, "leave this out"),
    "unknown strategy": ({"strategy": "yolo"}, "one of"),
    "test of all": ({"strategy": "test"}, "specific"),
    "named in stages": ({**stages(10, 100), "target_type": "specific",
                         "target_device_ids": ["a"]}, "at once"),
    "time without a zone": ({"not_before": "2027-03-01T02:00:00"}, "such as"),
    "time of nonsense": ({"not_before": "tomorrow"}, "such as"),
    "no such day": ({"deadline": "2027-02-30T00:00:00Z"}, "such as"),
    "time a number": ({"deadline": 5}, "string"),
    "ends before it begins": ({"not_before": "2030-01-02T00:00:00Z",
                               "deadline": "2030-01-01T00:00:00Z"}, "later than"),
    "priority high": ({"priority": 1000}, "between"), "requires nothing": ({"requires": ""}, "empty"),
    "requires a phrase": ({"requires": "1 2"}, "spaces"), "parallel -1": ({"max_parallel": -1}, "between"),
    "no reason": ({"reason": ""}, "empty"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input(loaded, name):
    fields, word = WRONG[name]
    body = {"name": "walk", "firmware_version": NEW, "device_model": "esp32", "target_type": "all",
            **fields}
    answer = loaded.post(CREATE, json=body)
    assert answer.status_code == 422, answer.text
    assert word in json.dumps(answer.json()["detail"]), answer.text
    assert loaded.list("rollouts") == []


def test_wrong_commands(loaded):
    number = make(loaded)
    for body in ({"reason": 5}, {"reason": "x" * 501}, {"stage": 0}, {"stage": "1"},
                 {"state": "walking"}):
        assert lead(loaded, number, "pause", **body).status_code == 422, body
    assert loaded.post("/api/admin/rollout/%d/pause" % number, data="{").status_code == 422
    assert loaded.post("/api/admin/rollout/x/pause").status_code == 422
    assert loaded.post("/api/admin/rollout/99/pause").status_code == 404
    assert show(loaded, number)["is_active"]
    assert loaded.post("/api/admin/rollout/%d/pause" % number).status_code == 200
    # With its release gone it cannot go on, and says so.
    assert loaded.delete("/api/admin/firmware/releases/" + NEW,
                         params={"device_model": "esp32"}).status_code == 200
    answer = lead(loaded, number, "resume")
    assert answer.status_code == 409 and "deleted" in answer.json()["detail"]


def test_the_release_of_a_walk_stays(loaded):
    make(loaded, not_before="2100-01-01T00:00:00Z")
    answer = loaded.delete("/api/admin/firmware/releases/" + NEW, params={"device_model": "esp32"})
    assert answer.status_code == 409


def test_commands_that_cross(loaded):
    """Many at once, each for the stage it saw: one wins, the others are told."""
    number = make(loaded, stages=[{"percent": p, "min_duration_s": 3600} for p in (10, 20, 100)])
    answers = []

    def one(verb):
        import requests
        answers.append((verb, requests.post(
            loaded.url + "/api/admin/rollout/%d/%s" % (number, verb),
            headers={"X-API-Key": loaded.key}, json={"stage": 1, "state": "running"}, timeout=30)))

    threads = [threading.Thread(target=one, args=(v,)) for v in ("promote", "abort") * 6]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    won = [(v, a) for v, a in answers if a.status_code == 200]
    assert len(won) == 1 and len(answers) == 12
    r = same_as_explained(loaded, number)
    assert (r["state"], r["stage"]["index"]) == (
        ("running", 2) if won[0][0] == "promote" else ("aborted", 1))
    for _, a in answers:
        assert a.status_code in (200, 409)
        assert (a.json()["state"], a.json()["stage"]) == (r["state"], r["stage"]["index"])
    changes = [e for e in events(loaded, number) if "after" in (e["event_data"] or {})]
    assert len(changes) == 1


def test_the_clock_jumps(services, tmp_path):
    """Ahead, a stage's time passes, and its proof is waited for; back, nothing is led until the
    clock is right."""
    shim = os.path.join(BUILD, "tests", "integration", "libclockshift.so")
    shift = tmp_path / "shift"
    shift.write_text("0")
    preload = " ".join(filter(None, [os.environ.get("LD_PRELOAD"), shim]))
    asan = ":".join(filter(None, [os.environ.get("ASAN_OPTIONS"), "verify_asan_link_order=0"]))
    service = services(env={"LD_PRELOAD": preload, "CLOCK_SHIFT_FILE": str(shift),
                            "ASAN_OPTIONS": asan})
    service.release(images.esp32(NEW), NEW)
    crowd = Crowd(service, count=4)
    number = make(service, stages=[{"percent": 50, "min_duration_s": 3600},
                                   {"percent": 75, "min_duration_s": 3600, "min_proven": 0},
                                   {"percent": 100}])
    waits_for(service, number, "time")
    shift.write_text("86400")
    waits_for(service, number, "proof")
    crowd.look_in()
    in_state(service, number, "running", 2)
    # A day back: what was stored is ahead of the clock.
    shift.write_text("0")
    wait_for(lambda: "waits_for_the_clock" in service.log(), "the conductor to notice")
    # By the service's own time, which goes on, the stage lasts; by a person's word it does not.
    assert show(service, number)["next"]["waits_for"] == "time"
    assert lead(service, number, "promote").json()["stage"] == 3
    crowd.look_in()
    waits_for(service, number, "nothing")
    assert service.log().count("waits_for_the_clock") == 1
    shift.write_text(str(2 * 86400))
    in_state(service, number, "completed")
    assert "conductor goes_on" in service.log()
    same_as_explained(service, number)


def test_killed_in_the_middle_of_a_walk(loaded):
    """Whatever was seen stands, and the state is the one that the events tell."""
    rng = random.Random(5)
    crowd = Crowd(loaded, count=6)
    number = make(loaded, stages=[{"percent": p, "min_proven": 0, "min_duration_s": 1}
                                  for p in (10, 30, 60, 100)])
    seen, kills = {"stage": 1, "state": "running"}, 0
    while seen["state"] != "completed":
        for _ in range(rng.randrange(1, 60)):
            r = same_as_explained(loaded, number)
            assert r["stage"]["index"] >= seen["stage"]
            seen = {"stage": r["stage"]["index"], "state": r["state"]}
        if rng.random() < 0.5 and seen["state"] == "running":
            answer = lead(loaded, number, "pause", reason="r%d" % kills)
            loaded.kill()
            loaded.start()
            r = same_as_explained(loaded, number)
            if answer.json()["state"] == "paused":
                assert r["state"] == "paused" and r["reason"] == "r%d" % kills
                assert not any(loaded.check(d, v)["update_available"] for d, v in crowd.runs.items())
                assert lead(loaded, number, "resume").status_code == 200
        else:
            loaded.kill()
            loaded.start()
            assert same_as_explained(loaded, number)["stage"]["index"] >= seen["stage"]
        kills += 1
    assert kills > 2 and seen["stage"] == 4
    crowd.look_in()
    assert len(crowd.updated()) == 6
