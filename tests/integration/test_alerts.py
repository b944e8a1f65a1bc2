# SPDX-License-Identifier: MIT
"""Alerts on a real service, and the messages about them at a real receiver that misbehaves."""
import datetime
import hashlib
import hmac
import json
import os
import re
import socket
import socketserver
import threading
import time

import pytest

import images
from service import BUILD, wait_for

NEW = "2.0.0"
SECRET = "not to be guessed"
ALERTS = "/api/admin/alerts"
QUICK = {"OTA_WEBHOOK_RETRY_S": 1}


class Receiver:
    """An HTTP server of few words: it answers each request as `answer` says, and keeps it."""

    def __init__(self):
        self.answer = "200"
        self.got = []
        self.connections = 0
        self.over = threading.Event()
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                outer.connections += 1
                outer.handle(self)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:%d/hook" % self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.over.set()
        self.server.shutdown()
        self.server.server_close()

    def handle(self, at):
        line = at.rfile.readline().decode().split()
        if not line:
            return
        headers = {}
        while (text := at.rfile.readline().decode().strip()):
            name, value = text.split(":", 1)
            headers[name.lower()] = value.strip()
        body = at.rfile.read(int(headers["content-length"]))
        self.got.append({"method": line[0], "path": line[1], "headers": headers, "body": body,
                         "answer": self.answer})
        getattr(self, "answer_" + self.answer, self.plainly)(at)

    def plainly(self, at):
        at.wfile.write(b"HTTP/1.1 %s x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" %
                       self.answer.encode())

    def answer_302(self, at):
        at.wfile.write(b"HTTP/1.1 302 x\r\nLocation: %s/elsewhere\r\nContent-Length: 0\r\n"
                       b"Connection: close\r\n\r\n" % self.url.encode())

    def answer_hang(self, at):
        self.over.wait(60)

    def answer_stream(self, at):
        at.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while not self.over.is_set():
                at.wfile.write(b"for ever " * 1000)
        except OSError:
            pass

    def answer_drip(self, at):
        """Never 64 KiB, never at its end."""
        at.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        try:
            while not self.over.wait(0.2):
                at.wfile.write(b".")
        except OSError:
            pass

    def taken(self):
        return [g for g in self.got if g["answer"] == "200"]

    def events(self):
        return [(m["event"], m["alert"]["kind"], m["alert"]["subject"])
                for m in (json.loads(g["body"]) for g in self.taken())]


@pytest.fixture
def receivers():
    made = []

    def make():
        made.append(Receiver())
        return made[-1]
    yield make
    for r in made:
        r.close()


def started(services, *receivers, **env):
    service = services(env={"OTA_WEBHOOK_URL": " ".join(r.url for r in receivers), **QUICK, **env})
    service.release(images.esp32(NEW), NEW)
    return service


def approval(service, name="walk"):
    """A rollout that waits for approval at once."""
    return service.ok("POST", "/api/admin/rollout/create", json={
        "name": name, "firmware_version": NEW, "device_model": "esp32", "target_type": "all",
        "stages": [{"percent": 10, "min_proven": 0, "approve": True}, {"percent": 100}],
    })["rollout_id"]


def lead(service, number, verb):
    service.ok("POST", "/api/admin/rollout/%d/%s" % (number, verb), json={"reason": "a test"})


def alerts(service, **params):
    return service.ok("GET", ALERTS, params=params)["alerts"]


def raised(service, kind, subject):
    def there():
        return [a for a in alerts(service, open="true")
                if (a["kind"], a["subject"]) == (kind, subject)]
    found, = wait_for(there, "the alert %s of %s" % (kind, subject))
    return found


def cleared(service, number):
    def over():
        row, = [a for a in alerts(service) if a["id"] == number]
        return row["cleared_at"] and row
    return wait_for(over, "alert %d to be over" % number)


def update(service, name, word):
    offer = service.check(name)
    service.report(name, NEW, word, attempt_id=offer["attempt_id"])


def test_raised_sent_signed_acknowledged_and_over(services, receivers):
    receiver = receivers()
    service = started(services, receiver, OTA_WEBHOOK_SECRET=SECRET)
    number = approval(service)
    alert = raised(service, "waiting_for_approval", "rollout/%d" % number)
    assert alert["severity"] == "info" and "approval" in alert["sentence"]
    assert alert["data"]["rollout"] == "walk" and alert["data"]["stage"] == 1
    assert not alert["acknowledged_at"] and not alert["cleared_at"]

    first = wait_for(receiver.taken, "the message")[0]
    assert first["method"] == "POST" and first["path"] == "/hook"
    headers, body = first["headers"], first["body"]
    assert headers["content-type"] == "application/json"
    stamp = headers["x-paku-timestamp"]
    told = hmac.new(SECRET.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["x-paku-signature"] == "sha256=" + told
    assert abs(time.time() - int(stamp)) < 60
    message = json.loads(body)
    assert message["event"] == headers["x-paku-event"] == "raised"
    assert str(message["delivery"]) == headers["x-paku-delivery"]
    assert message["alert"] == {k: alert[k] for k in (
        "id", "kind", "subject", "severity", "sentence", "raised_at", "cleared_at", "data")}

    # A person has seen it; twice is no mistake, and the first word stands.
    acknowledge = "%s/%d/acknowledge" % (ALERTS, alert["id"])
    assert "is acknowledged" in service.ok("POST", acknowledge, json={"reason": "I am on it"})["message"]
    assert "already" in service.ok("POST", acknowledge)["message"]
    assert service.post("%s/99/acknowledge" % ALERTS).status_code == 404
    assert service.post("%s/x/acknowledge" % ALERTS).status_code == 422
    seen, = alerts(service, open="true", kind="waiting_for_approval")
    assert seen["acknowledged_at"] and seen["acknowledged_by"] == "api"
    assert seen["acknowledged_reason"] == "I am on it" and not seen["cleared_at"]

    # Over when it is approved; a message tells that too.
    lead(service, number, "approve")
    gone = cleared(service, alert["id"])
    wait_for(lambda: len(receiver.taken()) == 2, "the second message")
    assert receiver.events() == [(e, alert["kind"], alert["subject"]) for e in ("raised", "cleared")]
    assert json.loads(receiver.got[1]["body"])["alert"]["cleared_at"] == gone["cleared_at"]
    wait_for(lambda: alerts(service)[0]["webhooks"] ==
             {"waiting": 0, "given_up": 0, "last_error": None}, "both to be noted")
    assert alerts(service, open="true") == []
    assert len(alerts(service, open="false")) == len(alerts(service)) == 1
    assert len(receiver.got) == 2
    kinds = [e["event_type"] for e in service.list("events") if e["event_type"].startswith("alert_")]
    assert kinds == ["alert_cleared", "alert_acknowledged", "alert_raised"]
    by = service.list("events", operations="true", event_type="alert_acknowledged")
    assert by[0]["created_by"] == "api" and by[0]["event_data"]["reason"] == "I am on it"
    assert by[0]["rollout_id"] == number


def test_once_while_it_holds_and_again_when_it_comes_again(services, receivers):
    receiver = receivers()
    service = started(services, receiver)
    number = approval(service)
    first = raised(service, "waiting_for_approval", "rollout/%d" % number)
    wait_for(lambda: len(receiver.taken()) == 1, "the message")
    service.restart()
    lead(service, number, "pause")
    cleared(service, first["id"])
    lead(service, number, "resume")
    second = raised(service, "waiting_for_approval", "rollout/%d" % number)
    assert second["id"] > first["id"]
    wait_for(lambda: len(receiver.taken()) == 3, "all messages")
    assert [e for e, _, _ in receiver.events()] == ["raised", "cleared", "raised"]


def test_failure_rate_of_a_release(services):
    service = services()
    service.release(images.esp32(NEW), NEW)
    service.rollout(NEW)
    for i in range(9):
        update(service, "good-%d" % i, "success")
    update(service, "bad-1", "failed")
    alert = raised(service, "failure_rate", "release/1")
    assert alert["severity"] == "critical" and alert["data"]["failed"] == 1
    assert alert["data"]["finished"] == 10 and "10.0 %" in alert["sentence"]
    figures = service.get("/metrics").json
    wait_for(lambda: figures()["alerts_open"]["failure_rate"] == 1, "the figure")
    text = service.get("/metrics", headers={"Accept": "text/plain"}).text
    assert 'paku_ota_alerts_open{kind="failure_rate"} 1\n' in text
    assert 'paku_ota_alerts_open{kind="rollout_stuck"} 0\n' in text
    # One of 25 is 4 %: over.
    for i in range(9, 24):
        update(service, "good-%d" % i, "success")
    cleared(service, alert["id"])
    wait_for(lambda: service.get("/metrics").json()["alerts_open"]["failure_rate"] == 0, "none")


def test_updates_that_break_off(services, clock):
    """Nothing is said of the image, and once is a hiccup: but somebody is to look at the network."""
    service = services(env=clock.environment())
    service.release(images.esp32(NEW), NEW)
    service.rollout(NEW, guard="off")
    for i in range(9):
        update(service, "good-%d" % i, "success")

    def breaks_off():
        answer = service.check("far")
        assert answer["update_available"]
        service.report("far", NEW, "failed", attempt_id=answer["attempt_id"], result_code=2)

    breaks_off()
    raised(service, "failure_rate", "release/1")  # it was counted by then
    assert service.ok("GET", "/api/admin/alerts", params={"kind": "updates_break_off"})["alerts"] == []
    assert service.check("far")["reason"] == "retry_later"
    clock.set_to(clock.now() + datetime.timedelta(minutes=6))
    breaks_off()
    alert = raised(service, "updates_break_off", "release/1")
    assert alert["severity"] == "warning" and "mostly with download failed" in alert["sentence"]
    assert (alert["data"]["tried"], alert["data"]["broken"], alert["data"]["result_code"]) == (10, 1, 2)
    clock.set_to(clock.now() + datetime.timedelta(minutes=40))
    update(service, "far", "success")
    cleared(service, alert["id"])


def test_a_deadline_that_cannot_be_met(services):
    service = services()
    service.release(images.esp32(NEW), NEW)
    number = service.ok("POST", "/api/admin/rollout/create", json={
        "name": "late", "firmware_version": NEW, "device_model": "esp32", "target_type": "all",
        "stages": [{"percent": 10, "min_duration_s": 86400}, {"percent": 100}],
        "deadline": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))})["rollout_id"]
    alert = raised(service, "deadline_at_risk", "rollout/%d" % number)
    assert "stages alone" in alert["sentence"] and alert["data"]["deadline"]
    lead(service, number, "abort")
    cleared(service, alert["id"])


def test_a_clock_set_ahead_is_no_standstill(services, tmp_path):
    shim = os.path.join(BUILD, "tests", "integration", "libclockshift.so")
    assert os.path.exists(shim), shim
    shift = tmp_path / "shift"
    shift.write_text("0")
    preload = " ".join(filter(None, [os.environ.get("LD_PRELOAD"), shim]))
    asan = ":".join(filter(None, [os.environ.get("ASAN_OPTIONS"), "verify_asan_link_order=0"]))
    service = services(env={"LD_PRELOAD": preload, "CLOCK_SHIFT_FILE": str(shift),
                            "ASAN_OPTIONS": asan, "OTA_STUCK_H": 1})
    service.release(images.esp32(NEW), NEW)
    service.rollout(NEW)
    raised(service, "waiting_for_approval", "rollout/%d" % approval(service, "before"))
    shift.write_text("7300")
    # Each of these takes a round in which the first one is looked at, too.
    for name in ("a", "b", "c"):
        alert = raised(service, "waiting_for_approval", "rollout/%d" % approval(service, name))
    assert alert["raised_at"] > time.strftime("%Y-%m-%dT%H:%M", time.gmtime(time.time() + 7000))
    assert alerts(service, kind="rollout_stuck") == []


# --- receivers that misbehave ---

def failing_then_well(service, receiver, how, error):
    """Tried in vain, service unmoved; then it arrives."""
    receiver.answer = how
    number = approval(service, name=how)
    alert = raised(service, "waiting_for_approval", "rollout/%d" % number)

    def told():
        row, = [a for a in alerts(service) if a["id"] == alert["id"]]
        return re.search(error, row["webhooks"]["last_error"] or "") and row
    row = wait_for(told, "the failure to be shown", 30)
    assert row["webhooks"]["waiting"] == 1 and row["webhooks"]["given_up"] == 0
    assert service.check("dev-1")["update_available"] in (True, False)
    receiver.answer = "200"
    wait_for(lambda: ("raised", alert["kind"], alert["subject"]) in receiver.events(),
             "the message to arrive", 30)
    wait_for(lambda: service.get("/metrics").json()["webhooks_waiting"] == 0, "nothing to be left")
    assert receiver.events().count(("raised", alert["kind"], alert["subject"])) == 1
    assert re.search(r"warning webhook/1 webhook_failed message \d+: .*" + error, service.log())


@pytest.mark.parametrize("how, error", [("500", "it answered 500"), ("404", "it answered 404"),
                                        ("302", "it answered 302 .* not followed"),
                                        ("stream", "longer than 65536")])
def test_it_fails_and_is_tried_again(services, receivers, how, error):
    receiver = receivers()
    failing_then_well(started(services, receiver), receiver, how, error)
    assert not [g for g in receiver.got if g["path"] != "/hook"]


def test_one_that_never_ends_keeps_nobody_else(services, receivers):
    """Ten seconds for a message: the other address has it meanwhile, and so has the service."""
    bad, good = receivers(), receivers()
    bad.answer = "drip"
    service = started(services, bad, good)
    number = approval(service)
    wait_for(lambda: bad.got, "the first try")
    for i in range(20):
        service.check("dev-%d" % i)
    wait_for(good.taken, "the message at the good one", 30)
    # The good one has it before that is noted.
    row = wait_for(lambda: (a := alerts(service)[0])["webhooks"]["last_error"]
                   and a["webhooks"]["waiting"] == 1 and a, "the failure, and the other's success")
    assert "imed out" in row["webhooks"]["last_error"]
    # It ends at once, even while a message is on its way to somebody who says nothing.
    bad.answer = "hang"
    wait_for(lambda: bad.got[-1]["answer"] == "hang", "the next try", 40)
    began = time.monotonic()
    service.stop()
    assert time.monotonic() - began < 9
    bad.answer = "200"
    service.start()
    lead(service, number, "abort")
    for receiver in (bad, good):
        wait_for(lambda: [e for e, _, _ in receiver.events()] == ["raised", "cleared"], "all", 30)


def test_nobody_there_and_then_somebody(services, receivers):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        url = "http://127.0.0.1:%d/" % s.getsockname()[1]
    good = receivers()
    service = services(env={"OTA_WEBHOOK_URL": url + "," + good.url, **QUICK})
    service.release(images.esp32(NEW), NEW)
    approval(service)
    wait_for(good.taken, "the message at the good one")
    wait_for(lambda: "webhook/1 webhook_failed" in service.log(), "the failure")
    assert len(good.got) == 1
    # The address is taken out: what was left for it is given up, and shown so.
    service.stop()
    service.extra["OTA_WEBHOOK_URL"] = good.url
    service.start()
    hooks = alerts(service)[0]["webhooks"]
    assert hooks == {"waiting": 0, "given_up": 1, "last_error": "its address is not set any more"}
    assert service.get("/metrics").json()["webhooks_given_up"] == 1
    assert "webhook_given_up" in service.log() and len(good.got) == 1


def test_killed_between_alert_and_delivery(services, receivers):
    receiver = receivers()
    receiver.answer = "hang"
    service = started(services, receiver)
    number = approval(service)
    raised(service, "waiting_for_approval", "rollout/%d" % number)
    wait_for(lambda: receiver.got, "it to be on its way")
    service.kill()
    receiver.answer = "200"
    service.start()
    wait_for(receiver.taken, "the message after the crash")
    wait_for(lambda: service.get("/metrics").json()["webhooks_waiting"] == 0, "nothing to be left")
    assert receiver.events() == [("raised", "waiting_for_approval", "rollout/%d" % number)]
    assert len(alerts(service)) == 1
    assert receiver.got[0]["headers"]["x-paku-delivery"] == receiver.got[1]["headers"]["x-paku-delivery"]


def test_an_answer_that_a_crash_forgot_is_asked_for_again(services, receivers):
    """At least once: killed while it says 200, it may send again, by the same number."""
    receiver = receivers()
    service = started(services, receiver)
    number = approval(service)
    wait_for(lambda: receiver.got, "it to arrive")
    service.kill()
    service.start()
    wait_for(lambda: service.get("/metrics").json()["webhooks_waiting"] == 0, "nothing to be left")
    lead(service, number, "abort")
    wait_for(lambda: receiver.events()[-1][0] == "cleared", "the end")
    raised_ids = {g["headers"]["x-paku-delivery"] for g in receiver.got[:-1]}
    assert len(raised_ids) == 1


@pytest.mark.parametrize("form", ["slack", "discord", "alertmanager"])
def test_other_readers(services, receivers, form):
    receiver = receivers()
    url = receiver.url[:-len("/hook")] if form == "alertmanager" else receiver.url
    service = services(env={"OTA_WEBHOOK_URL": url, "OTA_WEBHOOK_FORMAT": form, **QUICK})
    service.release(images.esp32(NEW), NEW)
    number = approval(service)
    wait_for(lambda: receiver.got, "the message")
    lead(service, number, "abort")
    wait_for(lambda: len(receiver.got) == 2, "the end of it")
    raised_, over = (json.loads(g["body"]) for g in receiver.got)
    sentence = alerts(service)[0]["sentence"]
    if form == "alertmanager":
        assert {g["path"] for g in receiver.got} == {"/api/v2/alerts"}
        assert raised_[0]["labels"] == over[0]["labels"] == {
            "alertname": "paku_ota_alert", "kind": "waiting_for_approval",
            "subject": "rollout/%d" % number, "severity": "info"}
        assert raised_[0]["annotations"] == {"summary": sentence}
        assert raised_[0]["startsAt"] == over[0]["startsAt"] < over[0]["endsAt"] < raised_[0]["endsAt"]
        return
    field = {"slack": "text", "discord": "content"}[form]
    assert raised_[field] == "[info] " + sentence and over[field] == "Over: [info] " + sentence
    assert form != "discord" or raised_["allowed_mentions"] == {"parse": []}


# --- settings ---

@pytest.mark.parametrize("value", [
    "nonsense", "ftp://example.org/x", "http://", "https://example.org:port/", "file:///etc/passwd",
    "https://ok.example.org/a b", " ".join("http://h%d/" % i for i in range(9)), "http://h/" + "x" * 3000])
def test_an_address_that_is_none_stops_the_start(services, value):
    service = services(start=False, env={"OTA_WEBHOOK_URL": value})
    done = service.run()
    assert done.returncode == 2 and "OTA_WEBHOOK_URL" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name, value", [
    ("OTA_WEBHOOK_FORMAT", "teams"), ("OTA_WEBHOOK_SECRET", "x"), ("OTA_WEBHOOK_RETRY_S", "0"),
    ("OTA_STUCK_H", "0")])
def test_other_settings_that_make_no_sense(services, name, value):
    done = services(start=False, env={name: value}).run()
    assert done.returncode == 2 and name in done.stderr


def test_pages_of_the_list(services):
    service = services()
    service.release(images.esp32(NEW), NEW)
    for i in range(3):
        approval(service, "walk-%d" % i)
    wait_for(lambda: len(alerts(service, open="true")) == 3, "three alerts")
    page = service.ok("GET", ALERTS, params={"limit": 2})
    rest = service.ok("GET", ALERTS, params={"limit": 2, "cursor": page["next_cursor"]})
    ids = [a["id"] for a in page["alerts"] + rest["alerts"]]
    assert ids == [3, 2, 1] and rest["next_cursor"] is None
    for wrong in ({"open": "maybe"}, {"kind": "odd"}, {"limit": 0}, {"cursor": "x"}):
        assert service.get(ALERTS, params=wrong).status_code == 422
    assert service.get(ALERTS, headers={"X-API-Key": "no"}).status_code == 401
