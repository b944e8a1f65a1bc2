# SPDX-License-Identifier: MIT
"""Devices, lists and the service as a whole: what each command asks, and how it shows the answer."""

import json
import re

import pytest
from cli_samples import device, event, release, rollout, update

OK = {"status": "ok", "message": "as you say"}


def test_devices_list_and_paging(cli, service):
    service.answer_list("/api/admin/devices", "devices", [device(n) for n in range(2500)])
    run = cli("devices")
    assert len(run.stdout.splitlines()) == 101
    assert run.stderr == "100 shown, there are more: --limit N or --all\n"
    run = cli("devices", "--limit", "1200")
    assert len(run.stdout.splitlines()) == 1201
    assert [r.query["limit"] for r in service.requests[1:]] == ["1000", "200"]
    run = cli("devices", "list", "--all", "--model", "a b", "--group", "g&h", "--json")
    rows = json.loads(run.stdout)
    assert [r["id"] for r in rows["devices"]] == list(range(2500))
    assert rows["next_cursor"] is None
    assert run.stderr == ""
    last = service.requests[-1].query
    assert (last["device_model"], last["group"], last["cursor"]) == ("a b", "g&h", "2000")
    rows = json.loads(cli("devices", "--limit", "5", "--json").stdout)
    assert (len(rows["devices"]), rows["next_cursor"]) == (5, "5")


@pytest.mark.parametrize("rows", [[], [device(1)]])
def test_pages_without_end(cli, service, rows):
    service.answer("GET", "/api/admin/devices", {"devices": rows, "next_cursor": "again"})
    run = cli("devices", "--all")
    assert run.returncode == 3
    assert "sends pages without end" in run.stderr


def test_empty_lists(cli, service):
    for path, key, args in (("devices", "devices", ["devices"]),
                            ("firmware/releases", "releases", ["releases"]),
                            ("rollouts", "rollouts", ["rollout", "list"]),
                            ("update-status", "updates", ["updates"]),
                            ("events", "events", ["events"]),
                            ("alerts", "alerts", ["alerts"]),
                            ("rejected", "rejected", ["rejected"])):
        service.answer_list("/api/admin/" + path, key, [])
        run = cli(*args)
        assert (run.returncode, run.stdout, run.stderr) == (
            0, "", "no %s\n" % {"rejected": "rejected messages"}.get(key, key))
        assert json.loads(cli(*args, "--json").stdout) == {key: [], "next_cursor": None}


def test_device_show(cli, service):
    row = device(1, label="kitchen", hw="rev3", notes="two\nlines", groups=["a", "b"],
                 attempts=[update(9, "dev-0001", "failed", error_message="download failed"),
                           update(8, "dev-0001", "pending", closed="lapsed")], current_attempt=None)
    service.answer("GET", "/api/admin/devices/dev-0001", row)
    out = cli("devices", "show", "dev-0001").stdout
    for text in ("dev-0001\n", "kitchen", "rev3", "a, b", "two\n                lines",
                 "2026-11-23 22:12:49 UTC (", "download failed", "pending (lapsed)"):
        assert text in out
    assert json.loads(cli("devices", "show", "dev-0001", "--json").stdout) == row
    run = cli("devices", "show", "other")
    assert run.returncode == 1
    assert "paku-ota devices    lists those" in run.stderr


def test_ids_are_escaped(cli, service):
    cli("devices", "show", "a b?c#d%2f/../e")
    assert service.requests[0].target == "/api/admin/devices/a%20b%3Fc%23d%252f%2F..%2Fe"
    cli("devices", "show", "..")
    assert service.requests[1].target == "/api/admin/devices/.."


def test_device_changes(cli, service):
    base = "/api/admin/devices/d:1"
    encoded = "/api/admin/devices/d%3A1"
    for method, path in (("DELETE", ""), ("PUT", "/groups/g1"), ("PUT", "/groups/g%202"),
                         ("DELETE", "/groups/g1"), ("PUT", "/label"), ("DELETE", "/label"),
                         ("PUT", "/notes"), ("POST", "/retry")):
        service.answer(method, encoded + path, OK)
    assert base != encoded
    assert cli("devices", "group", "d:1", "add", "g1", "g 2").stdout == "as you say\n" * 2
    assert cli("devices", "group", "d:1", "remove", "g1").returncode == 0
    assert cli("devices", "label", "d:1", "by", "the door").returncode == 0
    assert cli("devices", "label", "d:1", "--clear").returncode == 0
    assert cli("devices", "notes", "d:1", "--", "--odd").returncode == 0
    assert cli("retry", "d:1").returncode == 0
    assert cli("devices", "delete", "d:1", "--json").stdout == json.dumps(OK, separators=(",", ":")) + "\n"
    asked = [(r.method, r.raw_path[len(encoded):], r.body) for r in service.requests]
    assert asked == [("PUT", "/groups/g1", b""), ("PUT", "/groups/g%202", b""),
                     ("DELETE", "/groups/g1", b""), ("PUT", "/label", b'{"label":"by the door"}'),
                     ("DELETE", "/label", b""), ("PUT", "/notes", b'{"notes":"--odd"}'),
                     ("POST", "/retry", b""), ("DELETE", "", b"")]


def test_import(cli, service, tmp_path):
    csv = tmp_path / "devices.csv"
    csv.write_text("device_id,groups\na,x;y\n")
    service.answer("POST", "/api/admin/devices/import", {"status": "ok", "updated": 1})
    run = cli("devices", "import", str(csv))
    assert (run.returncode, run.stdout) == (0, "updated: 1\n")
    assert service.requests[0].body == csv.read_bytes()
    assert service.requests[0].headers["Content-Type"] == "text/csv"
    mistakes = [{"loc": ["body"], "msg": "line %d: no" % n, "type": "value_error"} for n in range(60)]
    service.answer("POST", "/api/admin/devices/import", (422, {"detail": mistakes}))
    run = cli("devices", "import", "-", stdin=csv.read_text())
    assert run.returncode == 1
    assert run.stderr.splitlines() == ["paku-ota: line 0: no"] + ["  line %d: no" % n
                                                                  for n in range(1, 60)]
    assert service.requests[1].body == csv.read_bytes()


def test_releases(cli, service):
    service.answer_list("/api/admin/firmware/releases", "releases", [release(), release("1.2.0")])
    out = cli("releases", "--model", "esp32-c3").stdout
    assert "ab" * 32 in out  # whole where no terminal cuts it
    assert "853.9 KiB" in out and "fixes the pump" in out and "ESP32-C3" in out
    service.answer("DELETE", "/api/admin/firmware/releases/1.2.0", OK)
    assert cli("releases", "delete", "1.2.0", "--model", "esp32-c3").stdout == "as you say\n"
    assert service.requests[-1].query == {"device_model": "esp32-c3"}
    service.answer("DELETE", "/api/admin/firmware/releases/1.2.0",
                   (409, {"detail": "rollout 7 uses it"}))
    assert cli("releases", "delete", "1.2.0", "--model", "esp32-c3").returncode == 1


def test_updates_and_events(cli, service):
    service.answer_list("/api/admin/rollouts", "rollouts", [rollout()])
    service.answer_list("/api/admin/update-status", "updates",
                        [update(3, "dev-1", "downloading", progress_percent=40),
                         update(2, "dev-2", "failed", error_message="verification failed"),
                         update(1, "dev-3", "pending", closed="lapsed", why="unanswered")])
    service.answer_list("/api/admin/events", "events",
                        [event(9, "update_failed", "dev-2", attempt_id="a1", m=[1], x=None,
                               error_message="broken")])
    out = cli("updates", "--device", "d", "--version", "1.3.0", "--rollout", "esp32-c3-1.3.0-all",
              "--status", "failed").stdout
    assert service.requests[-1].query == {"device_id": "d", "firmware_version": "1.3.0",
                                          "rollout_id": "7", "status": "failed", "limit": "100"}
    assert "verification failed" in out and " 40 " in out
    assert "pending (lapsed)" in out and "unanswered" in out
    out = cli("events", "--type", "update_failed", "--rollout", "7").stdout
    assert service.requests[-1].query == {"rollout_id": "7", "event_type": "update_failed",
                                          "limit": "100"}
    assert out.endswith("  7  broken m=[1]\n")


def presence(online, since="2026-11-23T20:12:49.000000Z", **more):
    return dict(site="paku", online=online, presence_since=since, site_conflict=None, **more)


def test_devices_show_presence(cli, service):
    rows = [device(1, **presence(True)), device(2, **presence(False)),
            device(3, **presence(False, None)), device(4, **presence(None, None)), device(5)]
    service.answer_list("/api/admin/devices", "devices", rows)
    lines = cli("devices").stdout.splitlines()
    assert lines[0].split()[:6] == ["DEVICE", "MODEL", "VERSION", "LAST", "SEEN", "PRESENCE"]
    assert " online " in lines[1]
    assert " offline since 2026-11-23T20:12:49.000000Z " in lines[2]
    assert " offline " in lines[3] and "since" not in lines[3]
    for line in lines[4:]:
        assert "online" not in line and "offline" not in line
    terminal = cli.on_terminal("devices", cols=120)
    assert terminal.wait_exit() == 0
    assert re.search(r"offline since \d+ (d|h|min|s)\b", terminal.text())
    service.answer_list("/api/admin/devices", "devices", [device(5, last_seen=None)])
    terminal = cli.on_terminal("devices", cols=120)
    assert terminal.wait_exit() == 0
    assert "PRESENCE" not in terminal.text()  # nobody speaks MQTT


def test_device_show_presence(cli, service):
    at = "/api/admin/devices/d"
    service.answer("GET", at, device(1, attempts=[], **presence(False)))
    out = cli("devices", "show", "d").stdout
    assert "  site          paku\n" in out
    assert "  presence      offline since 2026-11-23 20:12:49 UTC (" in out
    assert "conflict" not in out
    row = presence(True)
    row["site_conflict"] = {"other_site": "garage", "at": "2026-11-23T20:12:49.000000Z"}
    service.answer("GET", at, device(1, attempts=[], last_seen=None, **row))
    out = cli("devices", "show", "d").stdout
    assert "  presence      online since 2026-11-23 20:12:49 UTC (" in out
    assert "its id is live on site garage too, seen 2026-11-23 20:12:49 UTC (" in out
    assert "  last seen     never\n" in out


def test_rejected(cli, service):
    service.answer_list("/api/admin/rejected", "rejected", [
        {"id": 9, "device_id": "dev-1", "topic": "paku/edge/dev-1/ota/result", "reason": "not_json",
         "detail": "line 1: a quote is missing", "payload": "{\"x\n\x1b[31m\ufffd",
         "created_at": "2026-11-23T22:02:00.000000Z"},
        {"id": 8, "device_id": None, "topic": "a/b", "reason": "topic", "detail": "no device",
         "payload": "", "created_at": "2026-11-23T22:01:00.000000Z"}])
    run = cli("rejected", "--device", "dev-1", "--reason", "not_json", "--limit", "5")
    assert service.requests[0].query == {"device_id": "dev-1", "reason": "not_json", "limit": "5"}
    lines = run.stdout.splitlines()
    assert lines[0].split() == ["ID", "WHEN", "DEVICE", "REASON", "TOPIC", "DETAIL", "PAYLOAD"]
    assert len(lines) == 3 and "\x1b" not in run.stdout
    assert "line 1: a quote is missing" in lines[1] and "paku/edge/dev-1/ota/result" in lines[1]
    rows = json.loads(cli("rejected", "--json").stdout)
    assert [r["id"] for r in rows["rejected"]] == [9, 8]


def test_a_long_cell_makes_no_other_line_long(cli, service):
    row = {"id": 8, "device_id": None, "topic": "a/b", "reason": "topic", "detail": "no device", "payload": "",
           "created_at": "2026-11-23T22:01:00.000000Z"}
    service.answer_list("/api/admin/rejected", "rejected", [{**row, "id": 9, "topic": "x" * 3000, "payload": "{"}, row])
    head, long, short = cli("rejected").stdout.splitlines()
    assert "x" * 3000 in long and long.endswith("  no device  {")
    assert len(head) < 140 and len(short) < 140


def alert(n, **changes):
    row = {"id": n, "kind": "failure_rate", "subject": "release/4", "severity": "critical",
           "sentence": "12 of 180 failed.", "raised_at": "2026-11-23T22:12:49.000000Z",
           "acknowledged_at": None, "acknowledged_by": None, "acknowledged_reason": None,
           "cleared_at": None, "data": {}, "webhooks": {"waiting": 0, "given_up": 0, "last_error": None}}
    row.update(changes)
    return row


def test_alerts(cli, service):
    at = "2026-11-23T23:00:00.000000Z"
    service.answer_list("/api/admin/alerts", "alerts", [
        alert(9), alert(8, kind="rollout_stuck", subject="rollout/7", severity="warning",
                        acknowledged_at=at, sentence="no\nprogress\x1b[31m"), alert(7, cleared_at=at)])
    run = cli("alerts")
    assert service.requests[0].query == {"open": "true", "limit": "100"}
    lines = run.stdout.splitlines()
    assert lines[0].split() == ["ID", "RAISED", "SEVERITY", "ALERT", "SUBJECT", "STATE", "WHAT"]
    assert len(lines) == 4 and "\x1b" not in run.stdout
    assert [line.split()[5] for line in lines[1:]] == ["open", "seen", "over"]
    assert "12 of 180 failed." in lines[1] and "rollout/7" in lines[2]
    cli("alerts", "--past", "--kind", "rollout_stuck", "--limit", "5")
    assert service.requests[1].query == {"kind": "rollout_stuck", "limit": "5"}
    assert len(json.loads(cli("alerts", "--json").stdout)["alerts"]) == 3


def test_acknowledge_an_alert(cli, service):
    service.answer("POST", "/api/admin/alerts/9/acknowledge", OK)
    run = cli("alerts", "--ack", "9", "--reason", "on it: \"ü\"")
    assert (run.returncode, run.stdout, run.stderr) == (0, "as you say\n", "")
    assert service.requests[0].json == {"reason": "on it: \"ü\""}
    assert cli("alerts", "--ack", "9").stdout == "as you say\n"
    assert not service.requests[1].body
    for wrong, says in ((["--ack", "x"], "--ack"), (["--reason", "x"], "--reason goes with --ack"),
                        (["--kind", "odd"], "--kind")):
        run = cli("alerts", *wrong)
        assert run.returncode == 2 and says in run.stderr


def test_stop_and_resume(cli, service):
    service.answer("POST", "/api/admin/stop-all", dict(OK, withdrawn=3))
    service.answer("POST", "/api/admin/resume-all", OK)
    run = cli("stop-all", "--reason", "pumps do not come back: \"ü\"")
    assert (run.returncode, run.stdout, run.stderr) == (0, "as you say\n", "")
    assert service.requests[0].json == {"reason": "pumps do not come back: \"ü\""}
    assert json.loads(cli("stop-all", "--reason", "x", "--json").stdout) == dict(OK, withdrawn=3)
    assert cli("resume-all").stdout == "as you say\n"
    assert len(service.asked("POST", "/api/admin/resume-all")) == 1
    assert json.loads(cli("resume-all", "--json").stdout) == OK
    terminal = cli.on_terminal("stop-all", "--reason", "x")
    assert terminal.wait_exit() == 0
    assert "next, when it is mended: paku-ota resume-all" in terminal.text()
    service.answer("POST", "/api/admin/stop-all", (422, {"detail": [
        {"loc": ["body", "reason"], "msg": "too long", "type": "value_error"}]}))
    run = cli("stop-all", "--reason", "x" * 501)
    assert (run.returncode, run.stderr) == (1, "paku-ota: reason: too long\n")
    assert cli("resume-all", env={"OTA_API_KEY": "wrong"}).returncode == 4


def test_status_shows_a_stop(cli, service):
    service.answer("GET", "/health", {
        "status": "healthy", "version": "0.1.0", "store": "sqlite", "uptime_s": 60, "mqtt": "off",
        "stopped": {"reason": "a bad\nbatch", "since": "2026-11-23T20:12:49.000000Z"}})
    service.answer("GET", "/metrics", {"total_devices": 0, "recent_updates_24h": 0})
    run = cli("status")
    assert run.returncode == 0
    lines = run.stdout.splitlines()
    assert lines[0].endswith(": healthy")
    assert lines[1].startswith("EVERYTHING IS STOPPED since 2026-11-23 20:12:49 UTC (")
    assert lines[2:5] == ["  reason        a bad", "                batch",
                          "  to go on      paku-ota resume-all"]
    assert "  mqtt          off" in lines


def test_explain(cli, service):
    service.answer("GET", "/api/admin/devices/d/explain", {
        "device_id": "d", "reason": "outside_percent", "sentence": "It is outside the 10 %.",
        "update_available": False, "rollout_id": 7, "rollout": "r", "firmware_version": "1.3.0",
        "considered": [{"rollout_id": 7, "name": "r", "firmware_version": "1.3.0",
                        "reason": "outside_percent", "sentence": "Bucket 44 is outside."},
                       {"rollout_id": 6, "name": "q", "sentence": "It is not active."}]})
    out = cli("explain", "d").stdout
    assert out.startswith("It is outside the 10 %.\n")
    assert "outside_percent" in out and "Bucket 44 is outside." in out


def test_status(cli, service):
    service.answer("GET", "/health", {"status": "healthy", "version": "0.1.0", "store": "sqlite",
                                      "uptime_s": 11520})
    service.answer("GET", "/metrics", {"total_devices": 12, "active_rollouts": 2,
                                       "devices_by_model": {"esp32-c3": 8, "linux": 4},
                                       "recent_updates_24h": {"success": 30, "failed": 4, "x": 0}})
    run = cli("status", env={"OTA_API_KEY": None})
    assert run.stdout == """%s: healthy
  version       0.1.0
  store         sqlite
  up            3 h 12 min
  devices       12 (esp32-c3 8, linux 4)
  rollouts      2 active
  updates       34 in 24 h (30 success, 4 failed)
""" % service.url
    assert set(json.loads(cli("status", "--json").stdout)) == {"health", "metrics"}
    service.answer("GET", "/metrics", {"total_devices": 0, "recent_updates_24h": 5})
    assert "  updates       5 in 24 h\n" in cli("status").stdout
    service.answer("GET", "/metrics", {"total_devices": 0, "alerts_open": {"a": 1, "b": 0, "c": 2}})
    assert cli("status").stdout.endswith("  alerts        3 open: paku-ota alerts\n")
    service.answer("GET", "/health", (503, {"status": "unhealthy", "reason": "the disk is full"}))
    run = cli("status")
    assert run.returncode == 1
    assert "is not healthy: the disk is full" in run.stderr
