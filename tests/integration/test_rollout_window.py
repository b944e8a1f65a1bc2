# SPDX-License-Identifier: MIT
"""Rollouts that keep to a window, on a service whose clock the test sets."""
import datetime

import images
from mqtt import Device, MqttService
from service import wait_for

CREATE = "/api/admin/rollout/create"


def window(clock, begins_in_h=2, hours=2):
    """From two hours on for two hours, by the clocks of UTC: its text, begin and end."""
    begin = (clock.now() + datetime.timedelta(hours=begins_in_h)).replace(second=0, microsecond=0)
    end = begin + datetime.timedelta(hours=hours)
    return "daily %s-%s UTC" % (begin.strftime("%H:%M"), end.strftime("%H:%M")), begin, end


def offered(answer):
    assert answer["update_available"] == (answer["reason"] in ("offered", "in_progress"))
    return answer["update_available"]


def minutes(count):
    return datetime.timedelta(minutes=count)


def test_nothing_begins_outside_the_window(services, clock):
    service = services(env=clock.environment())
    service.release(images.esp32("2.0.0"), "2.0.0")
    text, begin, end = window(clock)
    number = service.rollout("2.0.0", name="nightly", window=text)
    answer = service.check("d1")
    assert not offered(answer) and answer["reason"] == "outside_window"
    assert answer["latest_version"] == "2.0.0" and answer["download_url"] is None
    assert 240 <= answer["retry_after_s"] <= 360  # as always: other rollouts may have no window
    why = service.explain("d1")
    assert why["reason"] == "outside_window" and why["rollout"] == "nightly"
    assert "inside its window, which opens " + begin.strftime("%a %H:%M UTC (in 1") in why["sentence"]
    assert why["sentence"].endswith(" min).")
    assert why["considered"][0]["reason"] == "outside_window"
    shown = service.ok("GET", "/api/admin/rollouts/%d" % number)
    assert shown["window"] == text and shown["state"] == "running"
    assert shown["window_now"]["open"] is False
    assert shown["window_now"]["until"] == begin.strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    assert "Its window opens " + begin.strftime("%a %H:%M UTC") in shown["next"]["sentence"]
    assert service.list("updates") == []
    assert service.ok("GET", "/api/admin/rollouts")["rollouts"][0]["window"] == text

    # A device that would come before the window and then long after is called into it.
    clock.set_to(begin - datetime.timedelta(seconds=20))
    waits = [service.check("d%d" % i)["retry_after_s"] for i in range(1, 30)]
    assert min(waits) >= 15 and max(waits) <= 360 and len(set(waits)) > 10

    clock.set_to(begin + minutes(1))
    answer = service.check("d1")
    assert offered(answer)
    begun = service.check("d2")
    assert offered(begun)
    assert service.get("/api/firmware/download/2.0.0?attempt=" + begun["attempt_id"]).status_code == 200
    shown = service.ok("GET", "/api/admin/rollouts/%d" % number)
    assert shown["window_now"]["open"] is True and "window" not in shown["next"]["sentence"]

    # It shuts: one that waits stays and is not told, one that has begun goes on.
    clock.set_to(end - datetime.timedelta(seconds=60))
    attempt = answer["attempt_id"]
    assert service.check("d1")["attempt_id"] == attempt
    assert service.check("d2")["attempt_id"] == begun["attempt_id"]
    clock.set_to(end + datetime.timedelta(seconds=60))
    answer = service.check("d1")
    assert not offered(answer) and answer["reason"] == "outside_window" and answer["attempt_id"] is None
    row = service.list("updates", device_id="d1")[0]
    assert row["attempt_id"] == attempt and row["status"] == "pending" and row["completed_at"] is None
    answer = service.check("d2")
    assert offered(answer) and answer["reason"] == "in_progress"
    service.report("d2", "2.0.0", "success", attempt_id=begun["attempt_id"])
    assert service.check("d2", "2.0.0")["reason"] == "up_to_date"

    # Durable, and open again the next day.
    service.restart()
    assert service.check("d1")["reason"] == "outside_window"
    clock.set_to(begin + datetime.timedelta(days=1, minutes=1))
    assert offered(service.check("d1"))


def test_the_dispatcher_waits_for_the_window(tmp_path, clock):
    service = MqttService(tmp_path / "service", env={**clock.environment(), "OTA_COMMAND_TIMEOUT_S": 3600})
    service.start()
    try:
        service.release(images.esp32("2.0.0"), "2.0.0")
        text, begin, end = window(clock)
        device = Device(service)
        wait_for(lambda: service.list("devices"), "the device")
        service.rollout("2.0.0", window=text)
        # One without a window is told: by then the dispatcher has looked at both.
        service.release(images.esp32("2.0.0"), "2.0.0", "other")
        service.rollout("2.0.0", "other")
        second = Device(service, "second", model="other")
        second.command()
        assert device.commands() == [] and service.update_of(device.id) is None
        assert service.explain(device.id)["reason"] == "outside_window"
        clock.set_to(begin + minutes(1))
        assert device.command()["version"] == "2.0.0"
        # Told again when its time is over, but not outside the window.
        clock.set_to(begin + minutes(65))
        device.command(2)
        clock.set_to(end + minutes(600))
        service.rollout("2.0.0", "other", name="again")
        Device(service, "third", model="other").command()
        assert len(device.commands()) == 2
        row = service.update_of(device.id)
        assert row["status"] == "pending" and row["completed_at"] is None
        clock.set_to(begin + datetime.timedelta(days=1, minutes=1))
        device.command(3)
    finally:
        service.stop()


def test_the_hours_of_a_group(services, clock):
    """They hold whatever the rollout, and beside its own: both must be open."""
    service = services(env=clock.environment())
    service.release(images.esp32("2.0.0"), "2.0.0")
    for name in ("in", "out"):
        service.check(name)
    service.ok("PUT", "/api/admin/devices/in/groups/pumps")
    text, begin, end = window(clock)
    hours = "/api/admin/groups/pumps/window"
    service.ok("PUT", hours, json={"window": text, "reason": "they are noisy"})
    late, _, _ = window(clock, begins_in_h=3)
    number = service.rollout("2.0.0", name="nightly", target_type="group",
                             target_filter={"group": "pumps"})
    every = service.rollout("2.0.0", name="every")
    assert offered(service.check("out"))
    answer = service.check("in")
    assert not offered(answer) and answer["reason"] == "outside_window"
    assert "inside group pumps's window, which opens" in service.explain("in")["sentence"]
    shown = service.ok("GET", "/api/admin/rollouts/%d" % number)
    assert "The window of group pumps opens" in shown["next"]["sentence"]
    listed, = service.ok("GET", "/api/admin/windows")["windows"]
    assert (listed["group"], listed["window"]) == ("pumps", text) and not listed["window_now"]["open"]
    # Called into it, and durable.
    clock.set_to(begin - datetime.timedelta(seconds=20))
    assert 15 <= service.check("in")["retry_after_s"] <= 360
    service.restart()
    assert service.check("in")["reason"] == "outside_window"
    # Open, but the rollout's own is not: neither alone is enough.
    for one in (number, every):
        service.ok("POST", "/api/admin/rollout/%d/deactivate" % one)
    third = service.rollout("2.0.0", name="late", window=late)
    made, = service.ok("GET", "/api/admin/events", params={
        "rollout_id": third, "event_type": "rollout_created"})["events"]
    assert made["created_by"] == "api"
    clock.set_to(begin + minutes(10))
    why = service.explain("in")
    assert why["reason"] == "outside_window" and "inside its window" in why["sentence"]
    clock.set_to(begin + minutes(70))
    assert offered(service.check("in"))
    # Who did what, and why; and off again.
    service.ok("DELETE", hours, params={"reason": "not noisy any more"})
    assert service.ok("GET", "/api/admin/windows")["windows"] == []
    events = service.ok("GET", "/api/admin/events", params={"event_type": "group_window"})["events"]
    assert [e["event_data"] for e in events] == [
        {"group": "pumps", "before": text, "after": None, "reason": "not noisy any more"},
        {"group": "pumps", "before": None, "after": text, "reason": "they are noisy"}]
    assert {e["created_by"] for e in events} == {"api"}


def test_who_did_what_and_why(service):
    """Each thing that a person changes is in the log: what was, what is, and why."""
    service.release(images.esp32("2.0.0"), "2.0.0")
    service.check("d1")
    device, why = "/api/admin/devices/d1", {"reason": "to see"}
    service.ok("PUT", device + "/groups", json={"groups": ["a", "b"]}, params=why)
    service.ok("DELETE", device + "/groups/a", params=why)
    service.ok("PUT", device + "/label", json={"label": "one"}, params=why)
    service.ok("PUT", device + "/label", json={"label": "two"}, params=why)
    service.ok("DELETE", device + "/notes", params=why)
    number = service.rollout("2.0.0", guard="off", max_attempts=1)
    answer = service.check("d1")
    service.report("d1", "2.0.0", "failed", attempt_id=answer["attempt_id"])
    service.ok("POST", device + "/retry", params=why)
    service.ok("POST", "/api/admin/stop-all", json={"reason": "stop"})
    service.ok("POST", "/api/admin/resume-all", params=why)
    service.ok("POST", "/api/admin/rollout/%d/abort" % number, json=why)
    service.ok("DELETE", "/api/admin/firmware/releases/2.0.0", params={"device_model": "esp32", **why})
    service.ok("DELETE", device, params=why)
    rows = service.ok("GET", "/api/admin/events", params={"operations": "true"})["events"][::-1]
    told = [(e["event_type"], e["event_data"]) for e in rows]
    edits = [d for t, d in told if t == "device_edited"]
    assert edits == [
        {"before": {"groups": []}, "after": {"groups": ["a", "b"]}, **why},
        {"before": {"groups": ["a", "b"]}, "after": {"groups": ["b"]}, **why},
        {"before": {"label": None}, "after": {"label": "one"}, **why},
        {"before": {"label": "one"}, "after": {"label": "two"}, **why},
        {"before": {"notes": None}, "after": {"notes": None}, **why}]
    data = dict(told)
    assert data["retry_allowed"] == {"before": {"failures": 1, "passing": 0}, **why}
    assert data["all_stopped"] == {"before": None, "after": "stop", "reason": "stop"}
    assert data["all_resumed"] == {"before": "stop", "after": None, **why}
    assert data["rollout_aborted"]["reason"] == "to see"
    assert data["rollout_aborted"]["before"]["state"] == "running"
    assert data["firmware_deleted"] == {"device_model": "esp32", "release_id": 1, **why}
    assert data["device_deleted"] == {"before": {"device_model": "esp32", "groups": ["b"]}, **why}
    assert {e["created_by"] for e in rows} == {"api"}


def test_windows_that_make_no_sense(service):
    service.release(images.esp32("2.0.0"), "2.0.0")
    body = {"name": "w", "firmware_version": "2.0.0", "device_model": "esp32", "target_type": "all"}

    def refused(words, **fields):
        answer = service.post(CREATE, json={**body, **fields})
        assert answer.status_code == 422, answer.text
        assert words in answer.text, answer.text
        return answer.json()["detail"]

    detail = refused("there is no time zone 'Europe/Helsinky'", window="Mon-Fri 01:00-05:00 Europe/Helsinky")
    assert detail[0]["loc"] == ["body", "window"]
    refused("never opens", window="Mon-Fri 05:00-05:00 UTC")
    refused("needs a time zone", window="Mon-Fri 01:00-05:00")
    refused("must begin with its days", window="1:00-5:00 UTC")
    refused("is no name of a time zone", window="daily 01:00-05:00 ../UTC")
    refused("window", window=7)
    refused("window", window="")
    refused("longer than 200", window="x" * 100000)
    # It opens, but not in its time: on 2027-03-28 no clock in Helsinki shows half past three.
    refused("the window does not open before the deadline", window="Sun 03:00-04:00 Europe/Helsinki",
            not_before="2027-03-27T22:00:00Z", deadline="2027-03-28T22:00:00Z")
    assert service.ok("GET", "/api/admin/rollouts")["rollouts"] == []
    good = {**body, "window": "Sun 03:00-05:00 Europe/Helsinki", "not_before": "2027-03-27T22:00:00Z",
            "deadline": "2027-03-28T22:00:00Z"}
    number = service.ok("POST", CREATE, json=good)["rollout_id"]
    # The same again finds it; another window is another rollout.
    assert service.ok("POST", CREATE, json=good)["rollout_id"] == number
    assert service.post(CREATE, json={**good, "window": "Sun 03:00-06:00 Europe/Helsinki"}).status_code == 409
    event = service.ok("GET", "/api/admin/events", params={"rollout_id": number})["events"][0]
    assert "Sun 03:00-05:00 Europe/Helsinki" in str(event)
