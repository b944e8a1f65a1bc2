# SPDX-License-Identifier: MIT
"""What a rollout would do before it is made, when it will be through, what it did, and what another
gate would have made of it."""
import xml.dom.minidom
from urllib.parse import quote

import pytest

import images
from service import wait_for

PLAN = "/api/admin/rollout/plan"
CREATE = "/api/admin/rollout/create"
NEW = "2.0.0"


@pytest.fixture
def loaded(service):
    service.release(images.esp32(NEW), NEW)
    return service


def body(name="walk", **fields):
    return {"name": name, "firmware_version": NEW, "device_model": "esp32", "target_type": "all",
            **fields}


def plan(service, **fields):
    return service.ok("POST", PLAN, json=body(**fields))


def test_a_plan_says_what_the_rollout_does(loaded):
    for i in range(40):
        loaded.check("dev-%d" % i, hw="r%d" % (i % 2))
    loaded.check("dev-there", NEW)
    loaded.check("dev-ahead", "3.0.0")
    stages = [{"percent": 10, "min_duration_s": 3600}, {"percent": 50}, {"percent": 100}]
    told = plan(loaded, stages=stages)
    assert told["devices"] == told["seen"] == 42 and told["to_update"] == told["reachable"] == 40
    assert told["on_version"] == 1 and told["refused"] == {"downgrade": 1}
    assert told["bytes"] == 40 * told["image_bytes"] > 0
    assert [v["to_update"] for v in told["variants"]] == [20, 20]
    assert sorted(told["ends"]) == ["earliest", "latest", "likely"]
    times = [told["ends"][k] for k in ("earliest", "likely", "latest")]
    assert times == sorted(times) and told["duration_s"]["likely"] > 3600
    assert told["pace"]["history"] == 0 and told["pace"]["prove_s"] == 600
    assert loaded.ok("GET", "/api/admin/rollouts")["rollouts"] == []
    # And that is what it does: each stage offers to as many.
    number = loaded.ok("POST", CREATE, json=body(stages=stages, guard={
        "initial_unproven": 100, "max_unproven": 100}))["rollout_id"]
    for stage in told["stages"]:
        shown = loaded.ok("GET", "/api/admin/rollouts/%d" % number)
        assert shown["targeted"] == stage["devices"]
        assert shown["progress"]["needed"] == stage["needed"]
        # Whose turn it is not is offered it the next time.
        offered = {i for _ in range(4) for i in range(40)
                   if loaded.check("dev-%d" % i, hw="r%d" % (i % 2))["update_available"]}
        assert len(offered) == stage["to_update"]
        loaded.ok("POST", "/api/admin/rollout/%d/promote" % number)


def test_what_stands_in_its_way(loaded):
    told = " ".join(plan(loaded)["warnings"])
    assert "selects no device" in told
    loaded.check("dev-1", "1.0.0")
    loaded.check("dev-2", "1.5.0")

    def warnings(**fields):
        return " ".join(plan(loaded, **fields)["warnings"])

    assert warnings(stages=[{"percent": 100}]) == ""
    assert "a day, or two" not in warnings()
    assert "1 devices run less than it needs (1.5.0)" in warnings(requires="1.5.0")
    assert "stage 1 (50 %) does not end by itself: 9" in warnings(
        stages=[{"percent": 50, "min_proven": 9}, {"percent": 100}])
    assert "somebody's approval" in warnings(stages=[{"percent": 50, "approve": True},
                                                     {"percent": 100}])
    assert "nothing watches it" in warnings(guard="off")
    assert "not likely to be through at its deadline" in warnings(
        deadline="2037-01-01T00:00:00Z", stages=[
            {"percent": p, "min_duration_s": 31622400} for p in range(50, 70)])
    loaded.ok("POST", "/api/admin/stop-all", json={"reason": "x"})
    assert "everything is stopped" in warnings()
    loaded.ok("POST", "/api/admin/resume-all")
    loaded.ok("POST", CREATE, json=body("walk", stages=[{"percent": 100}]))
    assert "is here already" in warnings()
    assert "watched by other parameters" in warnings(name="other", guard={"p0": 0.02})
    never = plan(loaded, stages=[{"percent": 100, "min_proven": 9}])
    assert never["ends"] == {"earliest": None, "likely": None, "latest": None}
    assert never["stages"][0]["waits_for"] == "never"
    assert "does not come to its end by itself" in never["sentence"]


def test_stepping_stones_and_windows(loaded):
    for i in range(6):
        loaded.check("dev-%d" % i, "1.0.0" if i < 4 else "1.5.0")
    loaded.release(images.esp32("1.5.0"), "1.5.0")
    stone = {"firmware_version": "1.5.0", "name": "stone", "target_type": "specific",
             "target_device_ids": ["dev-0", "dev-1", "dev-2"]}
    loaded.ok("POST", CREATE, json=body(**stone))
    told = plan(loaded, requires="1.5.0", stages=[{"percent": 100, "min_proven": 1}],
                window="daily 01:00-01:02 UTC")
    assert told["refused"] == {"below_required": 4} and told["to_update"] == 2
    assert told["bytes"] == 2 * told["image_bytes"]
    first, second = told["warnings"]
    assert first.startswith("4 devices run less than it needs (1.5.0): 3 of them are taken there")
    assert second.startswith("the window is open for 2 min at a time, and 2 of 2 devices")
    assert told["begins"] < told["ends"]["earliest"] and "T01:" in told["ends"]["earliest"]
    # Where another rollout of a higher priority decides, this one reaches nobody.
    loaded.ok("POST", CREATE, json=body("first", firmware_version="1.5.0", priority=1,
                                        allow_downgrade=True))
    told = plan(loaded)
    assert told["refused"] == {"newer_rollout_wins": 6}
    assert "decides for 6 devices" in " ".join(told["warnings"])


@pytest.mark.parametrize("fields, code", [
    ({"firmware_version": "9.9.9"}, 404),
    ({"stages": []}, 422),
    ({"window": "whenever"}, 422),
    ({"window": "daily 01:00-02:00 Mars/Olympus"}, 422),
    ({"deadline": "2001-01-01T00:00:00Z"}, 422),
    ({"guard": {"p0": 2}}, 422),
])
def test_a_plan_of_what_makes_no_sense(loaded, fields, code):
    answer = loaded.post(PLAN, json=body(**fields))
    assert answer.status_code == code and answer.json()["detail"], answer.text


def test_when_it_will_be_through(loaded):
    for i in range(10):
        loaded.check("dev-%d" % i)
    number = loaded.ok("POST", CREATE, json=body(
        stages=[{"percent": 50, "min_duration_s": 7200}, {"percent": 100}]))["rollout_id"]

    def eta():
        return loaded.ok("GET", "/api/admin/rollouts/%d" % number)["eta"]

    first = eta()
    assert first["earliest"] <= first["likely"] <= first["latest"]
    assert first["stage"]["likely"] < first["likely"] and "through in about" in first["sentence"]
    loaded.ok("POST", "/api/admin/rollout/%d/pause" % number)
    assert eta() is None
    loaded.ok("POST", "/api/admin/rollout/%d/resume" % number)
    assert eta() is not None
    loaded.ok("POST", "/api/admin/rollout/%d/abort" % number)
    assert eta() is None


# --- afterwards ---

BAD_NAME = 'a<b>|"&\'--`'


def walk_to_the_halt(service, harmed=3):
    """A release that fails on every device, given to some that failed, and then halted."""
    number = service.ok("POST", CREATE, json=body(
        "<script>alert(1)</script> & | more", stages=[{"percent": 100, "min_duration_s": 60}]))
    number = number["rollout_id"]
    for i in range(harmed + 3):
        name = "%s%d" % (BAD_NAME, i)
        answer = service.check(name)
        if not answer["update_available"]:
            break
        path = "/" + answer["download_url"].split("/", 3)[3]
        assert service.get(path).status_code == 200
        service.ok("POST", "/api/device/%s/update-status" % quote(name, safe=""), json={
            "device_id": name, "firmware_version": NEW, "status": "failed", "result_code": 4,
            "attempt_id": answer["attempt_id"], "error_message": "flash | <b>write</b>\n]"})
    shown = service.ok("GET", "/api/admin/rollouts/%d" % number)
    assert shown["state"] == "halted" and i <= harmed
    return number, i


def report(service, number, **how):
    answer = service.get("/api/admin/rollouts/%d/report" % number, **how)
    assert answer.status_code == 200, answer.text
    return answer


def test_a_report(loaded):
    number, failed = walk_to_the_halt(loaded)
    told = report(loaded, number).json()
    assert told["state"] == "halted" and told["gate"]["failed"] == failed == told["gate"]["exposed"]
    assert told["attempts"]["failed"] == failed and told["failures"][0]["device_id"].startswith("a<b")
    assert [e["count"] for e in told["errors"]] == [failed]
    assert [h["event"] for h in told["history"]] == ["created", "halted"]
    assert told["steps"][-1]["failed"] == failed and len(told["steps"]) == 240
    assert told["gate"]["most"] >= 125 and told["stages"][0]["begins"]
    assert told["from"] <= told["history"][-1]["at"] <= told["to"]
    # The picture: well-formed, no scripts, names escaped, and it says what it shows.
    svg = report(loaded, number, params={"format": "svg"})
    assert svg.headers["Content-Type"] == "image/svg+xml"
    picture = xml.dom.minidom.parseString(svg.content)
    assert not picture.getElementsByTagName("script")
    titles = picture.getElementsByTagName("title")
    assert titles[0].firstChild.data == "Rollout <script>alert(1)</script> & | more: release " \
        "2.0.0 for esp32"
    assert any(t.firstChild.data.startswith(BAD_NAME) for t in titles)
    assert "Halted" in picture.getElementsByTagName("desc")[0].firstChild.data
    assert picture.documentElement.getAttribute("aria-labelledby") == "title desc"
    for word in ("href", "url(", "<script", "onload", "<image"):
        assert word not in svg.text
    # The page: nothing of it is markup of others.
    page = report(loaded, number, headers={"Accept": "text/markdown, */*;q=0.1"})
    assert page.headers["Content-Type"].startswith("text/markdown")
    assert page.text.startswith("# 2.0.0 for esp32\n\nHalted")
    assert "](report?format=svg)" in page.text and "<" not in page.text.replace("\\<", "")
    assert page.text.count("\\|") >= 2
    assert report(loaded, number, headers={"Accept": "image/svg+xml"}).text == svg.text
    wrong = loaded.get("/api/admin/rollouts/%d/report" % number, params={"format": "pdf"})
    assert wrong.status_code == 422 and "json, markdown or svg" in wrong.text
    assert loaded.get("/api/admin/rollouts/99/report").status_code == 404


def test_a_report_of_what_has_just_begun(loaded):
    for fields in ({}, {"guard": "off", "name": "off"}, {"is_active": False, "name": "draft"}):
        number = loaded.ok("POST", CREATE, json=body(**fields))["rollout_id"]
        told = report(loaded, number).json()
        assert told["failures"] == [] and told["attempts"]["success"] == 0
        assert (told["gate"] is None) == ("guard" in fields)
        xml.dom.minidom.parseString(report(loaded, number, params={"format": "svg"}).content)
        assert report(loaded, number, params={"format": "markdown"}).text


def test_another_gate(loaded):
    number, failed = walk_to_the_halt(loaded)

    def replay(guard, status=200):
        answer = loaded.post("/api/admin/rollouts/%d/replay" % number, json={"guard": guard})
        assert answer.status_code == status, answer.text
        return answer.json()

    same = replay({})
    assert same["was"] == same["would_be"] and same["was"]["failed"] == failed
    assert same["was"]["halted"] and same["was"]["halted_after"] == failed
    assert same["was"]["sentence"] == loaded.ok("GET", "/api/admin/rollouts/%d" % number)["reason"]
    assert same["spared"] == same["held_up"] == 0 and "as it was" in same["sentence"]
    assert replay(None) == same
    strict = replay({"halt_at": 2, "initial_unproven": 1})
    assert strict["would_be"]["halted_after"] < failed and strict["guard"]["halt_at"] == 2
    assert strict["spared"] == strict["spared_failed"] == failed - strict["would_be"]["failed"] > 0
    assert strict["guard"]["p0"] == 0.01
    lax = replay({"halt_at": 1e9})
    assert not lax["would_be"]["halted"] and "not known" in lax["sentence"]
    assert "p0 is 2" in str(replay({"p0": 2}, 422))
    assert "nothing that can be set" in str(replay({"p1": 2}, 422))
    assert "must be an object" in str(replay("off", 422))
    assert "was found bad" in " ".join(plan(loaded)["warnings"])
    off = loaded.ok("POST", CREATE, json=body("off", guard="off", override_suspect=True,
                                              reason="x"))["rollout_id"]
    for path, status in (("/api/admin/rollouts/%d/replay" % off, 409),
                         ("/api/admin/rollouts/99/replay", 404)):
        assert loaded.post(path, json={}).status_code == status


def test_all_rollouts_of_a_release_share_a_gate(loaded):
    """A second rollout's replay begins with what the first one saw."""
    first = loaded.ok("POST", CREATE, json=body("first", stages=[{"percent": 100}]))["rollout_id"]
    for i in range(2):
        answer = loaded.check("dev-%d" % i)
        loaded.report("dev-%d" % i, NEW, "failed", attempt_id=answer["attempt_id"], result_code=1)
    loaded.ok("POST", "/api/admin/rollout/%d/abort" % first)
    second = loaded.ok("POST", CREATE, json=body("second", stages=[{"percent": 100}]))["rollout_id"]
    assert loaded.check("dev-5")["update_available"]
    told = loaded.ok("POST", "/api/admin/rollouts/%d/replay" % second, json={"guard": {}})
    assert sorted(told["rollouts"]) == [first, second]
    assert told["was"]["exposed"] == 1 and told["was"] == told["would_be"]
