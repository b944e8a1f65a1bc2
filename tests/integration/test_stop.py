# SPDX-License-Identifier: MIT
"""The great stop: nothing new is offered to anybody until it is taken back."""
import re

import pytest

import images
from service import wait_for

STOP, RESUME = "/api/admin/stop-all", "/api/admin/resume-all"
VERSION = "1.2.0"


@pytest.fixture
def offering(service):
    service.release(images.esp32(VERSION), VERSION)
    service.rollout(VERSION)
    return service


def stop(service, reason="a bad batch"):
    return service.ok("POST", STOP, json={"reason": reason})


def health(service):
    return service.ok("GET", "/health")


def test_nothing_new_is_offered(offering):
    stop(offering)
    answer = offering.check("dev-1")
    assert answer["update_available"] is False and answer["reason"] == "stopped"
    assert answer["download_url"] is None and answer["attempt_id"] is None
    told = offering.explain("dev-1")
    assert told["reason"] == "stopped" and told["update_available"] is False
    assert told["sentence"] == ("It runs 1.0.0 and would get 1.2.0 by rollout esp32-1.2.0-all, "
                                "but everything is stopped.")
    assert offering.list("updates") == []
    # What is up to date stays so.
    assert offering.check("dev-2", VERSION)["reason"] == "up_to_date"
    offering.ok("POST", RESUME)
    assert offering.check("dev-1")["update_available"]


def test_what_waits_is_withdrawn_and_what_has_begun_goes_on(offering):
    waiting = [offering.check("w%d" % i) for i in range(3)]
    begun = offering.check("begun")
    assert offering.session.get(begun["download_url"]).status_code == 200
    answer = stop(offering)
    assert answer["status"] == "ok" and answer["withdrawn"] == 3 and "3 waiting" in answer["message"]
    for offer in waiting:
        assert offering.session.get(offer["download_url"]).status_code == 410
    assert {u["closed"] for u in offering.list("updates") if u["device_id"] != "begun"} == \
        {"withdrawn"}
    assert offering.session.get(begun["download_url"]).status_code == 200
    again = offering.check("begun")
    assert again["update_available"] and again["attempt_id"] == begun["attempt_id"]
    assert offering.report("begun", VERSION, "success")["status"] == "ok"
    assert offering.check("begun", VERSION)["reason"] == "up_to_date"
    assert offering.check("w0")["reason"] == "stopped"
    offering.ok("POST", RESUME)
    fresh = offering.check("w0")
    assert fresh["update_available"] and fresh["attempt_id"] != waiting[0]["attempt_id"]


def test_rollouts_and_uploads_go_on_but_reach_nobody(service):
    stop(service)
    service.release(images.esp32(VERSION), VERSION)
    number = service.rollout(VERSION)
    assert service.check("dev-1")["reason"] == "stopped"
    service.ok("POST", "/api/admin/rollout/%d/deactivate" % number)
    assert service.check("dev-1")["reason"] != "stopped"
    service.ok("POST", "/api/admin/rollout/%d/activate" % number)
    assert service.check("dev-1")["reason"] == "stopped"


def test_health_shows_it_and_stays_healthy(service):
    assert health(service)["stopped"] is None
    stop(service, "Grüße: \"quoted\"\n2nd line")
    body = health(service)
    assert body["status"] == "healthy"
    assert body["stopped"]["reason"] == "Grüße: \"quoted\"\n2nd line"
    assert body["stopped"]["since"].endswith("Z")
    service.ok("POST", RESUME)
    assert health(service)["stopped"] is None


def test_it_survives_a_restart_and_a_kill(offering):
    stop(offering)
    before = health(offering)["stopped"]
    offering.restart()
    assert health(offering)["stopped"] == before
    assert offering.check("dev-1")["reason"] == "stopped"
    offering.kill()
    offering.start()
    assert health(offering)["stopped"] == before
    offering.ok("POST", RESUME)
    offering.kill()
    offering.start()
    assert health(offering)["stopped"] is None
    assert offering.check("dev-1")["update_available"]


def test_twice_is_no_error_and_changes_nothing(service):
    assert "nothing was stopped" in service.ok("POST", RESUME)["message"]
    stop(service, "the first")
    before = health(service)["stopped"]
    answer = stop(service, "the second")
    assert "already" in answer["message"] and answer["withdrawn"] == 0
    assert health(service)["stopped"] == before and before["reason"] == "the first"
    assert service.ok("POST", RESUME)["message"] == "everything goes on"
    events = [e for e in service.list("events")
              if e["event_type"] in ("all_stopped", "all_resumed")]
    assert [e["event_type"] for e in events] == ["all_resumed", "all_stopped"]
    assert events[1]["event_data"] == {"before": None, "after": "the first", "reason": "the first"}
    assert " fleet all_stopped " in service.log()


@pytest.mark.parametrize("body", [
    b"", b"{}", b"[]", b'{"reason":null}', b'{"reason":""}', b'{"reason":7}',
    b'{"reason":"' + b"x" * 501 + b'"}', b'{"reason":"a\\u0000b"}'])
def test_a_reason_is_wanted(service, body):
    answer = service.post(STOP, data=body)
    assert answer.status_code == 422, answer.text
    assert health(service)["stopped"] is None


def test_the_longest_reason(service):
    long = "€" * 500
    stop(service, long)
    assert health(service)["stopped"]["reason"] == long
    service.restart()
    assert health(service)["stopped"]["reason"] == long


def test_only_with_the_key(service):
    for path in (STOP, RESUME):
        answer = service.post(path, json={"reason": "x"}, headers={"X-API-Key": "wrong"})
        assert answer.status_code == 401
    assert health(service)["stopped"] is None


def test_figures(offering):
    def figures():
        text = offering.session.get(offering.url + "/metrics", headers={"Accept": "text/plain"}).text
        body = offering.ok("GET", "/metrics")
        for name in ("stopped", "devices_busy"):  # they may change between the two questions
            if "\npaku_ota_%s %d\n" % (name, body[name]) not in text:
                assert re.search(r"^paku_ota_%s \d+$" % name, text, re.M)
                return None
        return body["stopped"], body["devices_busy"]

    assert figures() == (0, 0)
    begun = offering.check("begun")
    offering.check("waiting")
    wait_for(lambda: figures() == (0, 2), "both to take a place")
    offering.session.get(begun["download_url"])
    stop(offering)
    wait_for(lambda: figures() == (1, 1), "the withdrawn one to leave its place")
    assert health(offering)["mqtt"] == "off"
    offering.report("begun", VERSION, "success")
    offering.ok("POST", RESUME)
    wait_for(lambda: figures() == (0, 0), "all places to be free")
