# SPDX-License-Identifier: MIT
"""What each command asks, and how it shows the answer."""

import json
import re
import socket
import threading

import pytest
from cli_samples import device, event, progress, release, rollout, update, walk

OK = {"status": "ok", "message": "as you say"}


def test_upload(cli, service, tmp_path):
    image = tmp_path / "my firm;ware.bin"
    image.write_bytes(bytes(range(256)) * 8)
    service.answer("POST", "/api/admin/firmware/upload", {
        "status": "ok", "message": "uploaded", "version": "1.3.0+b", "device_model": "esp32-c3",
        "release_id": 4, "file_size": 2048, "checksum_sha256": "ab" * 32,
        "image": {"chip": "ESP32-C3", "project": "pump", "version": "1.3.0", "build_time": "today",
                  "idf_version": "v5.1"}, "warnings": ["the version inside is another"]})
    run = cli("upload", str(image), "--version", "1.3.0+b", "--model", "esp32-c3", "--min-version",
              "1.0", "--changelog", "a&b=c", "--release-notes", "ü #1", "--signed", "--image-type",
              "esp")
    assert run.returncode == 0, run.stderr
    request = service.requests[0]
    assert request.query == {"version": "1.3.0+b", "device_model": "esp32-c3", "min_version": "1.0",
                             "changelog": "a&b=c", "release_notes": "ü #1", "is_signed": "true",
                             "image_type": "esp"}
    assert b'name="file"' in request.body
    assert bytes(range(256)) * 8 in request.body
    assert int(request.headers["Content-Length"]) == len(request.body)
    for text in ("1.3.0+b", "2048 bytes", "ab" * 32, "ESP32-C3, pump 1.3.0, ESP-IDF v5.1",
                 "the version inside is another"):
        assert text in run.stdout
    assert run.stderr == ""  # no bar where there is no terminal


def test_upload_refused(cli, service, tmp_path):
    image = tmp_path / "f.bin"
    image.write_bytes(b"x" * 100)
    service.answer("POST", "/api/admin/firmware/upload",
                   (422, {"detail": "this is a bootloader, upload firmware.bin"}))
    run = cli("upload", str(image), "--version", "1", "--model", "m")
    assert run.returncode == 1
    assert run.stderr == "paku-ota: this is a bootloader, upload firmware.bin\n"
    image.write_bytes(b"")
    assert cli("upload", str(image), "--version", "1", "--model", "m").returncode == 2


def test_upload_takes_the_version_inside(cli, service, tmp_path):
    image = tmp_path / "f.bin"
    head = bytearray(288)
    head[0] = 0xE9
    head[32:36] = (0xABCD5432).to_bytes(4, "little")
    head[48:53] = b"2.0.1"
    image.write_bytes(head)
    service.answer("POST", "/api/admin/firmware/upload", OK)
    assert cli("upload", str(image), "--version", "auto", "--model", "m").returncode == 0
    assert service.requests[0].query["version"] == "2.0.1"
    for broken in (b"\xe9" + bytes(287), bytes(head[:60]), b"x" + bytes(head[1:])):
        image.write_bytes(broken)
        run = cli("upload", str(image), "--version", "auto", "--model", "m")
        assert run.returncode == 2
        assert "names no version inside; say --version V" in run.stderr
    head[48:60] = b"esp-idf: v4\x1b"
    image.write_bytes(head)
    run = cli("upload", str(image), "--version", "auto", "--model", "m")
    assert run.returncode == 2
    assert "is 'esp-idf: v4\\x1b', which is none; say --version V" in run.stderr
    assert len(service.requests) == 1


def test_upload_bar(cli, service, tmp_path):
    image = tmp_path / "f.bin"
    image.write_bytes(b"x" * 3_000_000)
    service.answer("POST", "/api/admin/firmware/upload", dict(OK, version="1", file_size=3000000))
    terminal = cli.on_terminal("upload", str(image), "--version", "1", "--model", "m")
    assert terminal.wait_exit() == 0
    assert "100 %  2.9 MiB of 2.9 MiB, being checked" in terminal.text()
    assert "█" in terminal.text()
    assert "next: paku-ota rollout create 1 --model m --percent 10 --watch" in terminal.text()
    for line in terminal.text().replace("\r", "\n").splitlines():
        assert len(line) <= 80


@pytest.mark.parametrize("cols", [20, 36, 40, 52, 60])
def test_upload_bar_is_one_line(cli, service, tmp_path, cols):
    """Wrapped, the next one could not be drawn over it."""
    image = tmp_path / "f.bin"
    image.write_bytes(b"x" * 30_000_000)
    service.answer("POST", "/api/admin/firmware/upload", dict(OK, version="1", file_size=30000000))
    terminal = cli.on_terminal("upload", str(image), "--version", "1", "--model", "m", cols=cols)
    assert terminal.wait_exit() == 0
    bars = [line for line in terminal.text().split("\r") if "█" in line]
    assert bars and max(len(line) for line in bars) < cols
    assert any("100 %" in line for line in bars)


@pytest.mark.parametrize("args, body, name", [
    (["--all"], {"target_type": "all", "rollout_percentage": 100}, "m-1.3.0-all"),
    (["--percent", "10"], {"target_type": "canary", "rollout_percentage": 10}, "m-1.3.0-canary-10"),
    (["--group", "kitchen"], {"target_type": "group", "rollout_percentage": 100,
                              "target_filter": {"group": "kitchen"}}, "m-1.3.0-group-kitchen"),
    (["--group", "g", "--percent", "5"], {"target_type": "group", "rollout_percentage": 5,
                                          "target_filter": {"group": "g"}}, "m-1.3.0-group-g-5"),
    (["--devices", "a"], {"target_type": "specific", "rollout_percentage": 100,
                          "target_filter": {"device_ids": ["a"]}}, "m-1.3.0-a"),
    (["--all", "--name", "mine"], {"target_type": "all", "rollout_percentage": 100}, "mine"),
    (["--all", "--inactive"], {"target_type": "all", "rollout_percentage": 100, "is_active": False},
     "m-1.3.0-all"),
    (["--all", "--allow-downgrade", "--max-attempts", "5"],
     {"target_type": "all", "rollout_percentage": 100, "allow_downgrade": True, "max_attempts": 5},
     "m-1.3.0-all"),
    (["--all", "--max-parallel", "20"],
     {"target_type": "all", "rollout_percentage": 100, "max_parallel": 20}, "m-1.3.0-all"),
])
def test_rollout_create(cli, service, args, body, name):
    service.answer("POST", "/api/admin/rollout/create", dict(OK, rollout_id=7))
    run = cli("rollout", "create", "1.3.0", "--model", "m", *args)
    assert (run.returncode, run.stdout) == (0, "as you say\n  rollout 7, %s\n" % name)
    assert service.requests[0].json == {"name": name, "firmware_version": "1.3.0",
                                        "device_model": "m", "is_active": True, **body}


@pytest.mark.parametrize("args, body, name", [
    (["--stages", "10:24h,25:90m:approve,50:2d:proven=40,100"],
     {"target_type": "all", "stages": [
         {"percent": 10, "min_duration_s": 86400},
         {"percent": 25, "min_duration_s": 5400, "approve": True},
         {"percent": 50, "min_duration_s": 172800, "min_proven": 40}, {"percent": 100}]},
     r"m-1.3.0-all-stages-[0-9a-f]{6}"),
    (["--stages", "100:0:approve", "--group", "g"],
     {"target_type": "group", "target_filter": {"group": "g"},
      "stages": [{"percent": 100, "min_duration_s": 0, "approve": True}]},
     r"m-1.3.0-group-g-stages-[0-9a-f]{6}"),
    (["--all", "--no-guard", "--override-suspect", "--on-halt", "rollback",
      "--reason", "it was the cable"],
     {"target_type": "all", "rollout_percentage": 100, "guard": "off", "override_suspect": True,
      "on_halt": "rollback", "reason": "it was the cable"}, "m-1.3.0-all"),
    (["--strategy", "guarded"], {"target_type": "all", "strategy": "guarded"}, "m-1.3.0-all-guarded"),
    (["--strategy", "test", "--devices", "a"],
     {"target_type": "specific", "strategy": "test", "target_filter": {"device_ids": ["a"]}},
     "m-1.3.0-a-test"),
    (["--all", "--not-before", "2027-01-01T00:00Z", "--deadline", "2028-01-01T00:00Z",
      "--priority", "5", "--requires", "1.0.0", "--reason", "it is time",
      "--window", "daily 01:00-05:00 UTC"],
     {"target_type": "all", "rollout_percentage": 100, "not_before": "2027-01-01T00:00Z",
      "deadline": "2028-01-01T00:00Z", "priority": 5, "requires": "1.0.0", "reason": "it is time",
      "window": "daily 01:00-05:00 UTC"},
     "m-1.3.0-all"),
])
def test_rollout_create_in_stages(cli, service, args, body, name):
    service.answer("POST", "/api/admin/rollout/create", dict(OK, rollout_id=7))
    for _ in range(2):
        assert cli("rollout", "create", "1.3.0", "--model", "m", *args).returncode == 0
    sent, again = (r.json for r in service.requests)
    assert sent == again  # the same name: the service sees the same request
    assert re.fullmatch(name, sent.pop("name"))
    assert sent == {"firmware_version": "1.3.0", "device_model": "m", "is_active": True, **body}


@pytest.mark.parametrize("verb", ["pause", "resume", "promote", "approve", "abort", "rollback"])
def test_rollout_is_led(cli, service, verb):
    path = "/api/admin/rollout/7/" + verb
    service.answer("POST", path, dict(OK, state="paused", stage=2))
    assert cli("rollout", verb, "7").stdout == "as you say\n"
    assert cli("rollout", verb, "7", "--reason", "why \xe4", "--stage", "2").returncode == 0
    assert [r.json for r in service.requests] == [{}, {"reason": "why \xe4", "stage": 2}]
    service.answer("POST", path, (409, {"detail": "it is halted", "state": "halted", "stage": 2}))
    run = cli("rollout", verb, "7")
    assert (run.returncode, run.stderr) == (1, "paku-ota: it is halted\n")


def test_rollout_show_of_a_walk(cli, service):
    service.answer("GET", "/api/admin/rollouts/7",
                   dict(progress(50, 31, success=31), **walk(2, reason="the lab says yes",
                                                            requires="1.0.0", priority=-3)))
    out = cli("rollout", "show", "7").stdout
    for line in ("state         running", "why           the lab says yes", "requires      1.0.0",
                 "stage         10 %, at least 1 d 0 h", "stage         25 %, at least 1 d 0 h   <- here",
                 "stage         100 %, 4 proven, approved", "next          Stage 2 waits for devices.",
                 "priority      -3"):
        assert "  " + line in out, out


def test_log(cli, service):
    walked = {"before": {"state": "running", "stage": 1, "approved": True},
              "after": {"state": "running", "stage": 2, "approved": False}, "reason": "because"}
    service.answer_list("/api/admin/rollouts", "rollouts", [rollout()])
    service.answer_list("/api/admin/events", "events", [
        dict(event(9, "rollout_stage", None, **walked), created_by="conductor"),
        dict(event(8, "rollout_updated", None, is_active=True, rollout_percentage=25),
             created_by="api"),
        dict(event(7, "all_stopped", None, reason="smoke"), created_by="api", rollout_id=None),
        dict(event(6, "device_deleted", "dev-1"), created_by="api", event_data=None)])
    run = cli("log", "--rollout", "esp32-c3-1.3.0-all", "--type", "x")
    assert service.requests[-1].query == {"operations": "true", "event_type": "x",
                                          "rollout_id": "7", "limit": "100"}
    head, stage, updated, stop, gone = run.stdout.splitlines()
    assert head.split() == ["ID", "WHEN", "WHO", "EVENT", "ROLLOUT", "VERSION", "CHANGE", "REASON"]
    assert " conductor " in stage and " running 1 -> running 2 " in stage and "because" in stage
    assert " api " in updated and "active, 25 %" in updated
    assert "smoke" in stop and "dev-1" in gone
    service.answer_list("/api/admin/events", "events", [])
    assert cli("log").stderr == "nobody did anything\n"


def test_rollout_create_for_several_devices(cli, service):
    service.answer("POST", "/api/admin/rollout/create", dict(OK, rollout_id=7))
    for devices in ("a, b,,c", "a, b,,c", "a,b,d"):
        assert cli("rollout", "create", "1", "--model", "m", "--devices", devices).returncode == 0
    bodies = [r.json for r in service.requests]
    assert bodies[0]["target_filter"] == {"device_ids": ["a", "b", "c"]}
    assert bodies[0] == bodies[1]  # the same name: the service sees the same request again
    assert bodies[0]["name"] != bodies[2]["name"]


def test_rollout_create_unknown_release(cli, service):
    service.answer("POST", "/api/admin/rollout/create", (404, {"detail": "no release 9 of m"}))
    run = cli("rollout", "create", "9", "--model", "m", "--all")
    assert run.returncode == 1
    assert run.stderr == ("paku-ota: no release 9 of m\n"
                          "  paku-ota releases --model m    shows what there is\n")


def test_rollout_list(cli, service):
    rows = [rollout(), rollout(id=6, target_type="canary", rollout_percentage=10, is_active=False),
            rollout(id=5, target_type="group", target_filter={"group": "kitchen"},
                    rollout_percentage=25),
            rollout(id=4, target_type="specific", target_filter={"device_ids": ["a", "b"]})]
    service.answer_list("/api/admin/rollouts", "rollouts", rows)
    run = cli("rollout", "list", "--model", "esp32-c3", "--active")
    assert service.requests[0].query == {"device_model": "esp32-c3", "active": "true",
                                         "limit": "100"}
    lines = run.stdout.splitlines()
    assert lines[0].split() == ["ID", "NAME", "VERSION", "MODEL", "TARGET", "STATE", "CREATED"]
    assert " all " in lines[1] and " running " in lines[1]
    assert " 10 % " in lines[2] and " paused " in lines[2]
    assert " group kitchen, 25 % " in lines[3]
    assert " 2 devices " in lines[4]


def test_rollout_by_name_or_id(cli, service):
    row = dict(rollout(), targeted=50, on_version=31,
               counts={"pending": 2, "success": 31, "failed": 0})
    service.answer_list("/api/admin/rollouts", "rollouts",
                        [rollout(id=n, name="r%d" % n) for n in range(2000, 8, -1)] + [rollout()])
    service.answer("GET", "/api/admin/rollouts/7", row)
    service.answer("POST", "/api/admin/rollout/7/deactivate", OK)
    service.answer("POST", "/api/admin/rollout/7/activate", OK)
    by_id, by_name = cli("rollout", "show", "7"), cli("rollout", "show", row["name"])
    assert by_id.stdout == by_name.stdout
    assert "50 targeted, 31 run the version" in by_id.stdout
    assert "31 success" in by_id.stdout and "failed" not in by_id.stdout
    assert "max parallel" not in by_id.stdout
    service.answer("GET", "/api/admin/rollouts/7", dict(row, max_parallel=20))
    assert "  max parallel  20\n" in cli("rollout", "show", "7").stdout
    assert cli("rollout", "deactivate", "7").stdout == "as you say\n"
    assert cli("rollout", "activate", row["name"]).stdout == "as you say\n"
    run = cli("rollout", "show", "nobody")
    assert run.returncode == 1
    assert "no rollout is named 'nobody'" in run.stderr


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
                         update(2, "dev-2", "failed", error_message="verification failed")])
    service.answer_list("/api/admin/events", "events",
                        [event(9, "update_failed", "dev-2", attempt_id="a1", m=[1], x=None,
                               error_message="broken")])
    out = cli("updates", "--device", "d", "--version", "1.3.0", "--rollout", "esp32-c3-1.3.0-all",
              "--status", "failed").stdout
    assert service.requests[-1].query == {"device_id": "d", "firmware_version": "1.3.0",
                                          "rollout_id": "7", "status": "failed", "limit": "100"}
    assert "verification failed" in out and " 40 " in out
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


# Tables on a terminal

LONG = "a-name-that-is-far-longer-than-any-terminal-is-wide-" * 3


@pytest.mark.parametrize("cols", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_tables_fit(cli, service, cols, locale):
    service.answer_list("/api/admin/devices", "devices",
                        [device(1), device(2, device_id="dev-" + LONG, label="厨房の温度計" * 10)])
    terminal = cli.on_terminal("devices", cols=cols, env={"LC_ALL": locale})
    assert terminal.wait_exit() == 0
    lines = terminal.text().splitlines()
    assert len(lines) == 3
    for line in lines:
        wide = sum(2 if ord(c) > 0x2E80 else 1 for c in line)
        assert wide <= cols, line
    assert ("…" in lines[2]) == (locale == "C.UTF-8")
    assert ("~" in lines[2]) == (locale == "C")
    assert "\x1b[1m" in terminal.raw.decode()


def test_empty_columns_are_left_out_on_a_terminal(cli, service):
    service.answer_list("/api/admin/devices", "devices", [device(1), device(2)])
    terminal = cli.on_terminal("devices")
    assert terminal.wait_exit() == 0
    assert terminal.text().split("\n")[0].split() == ["DEVICE", "MODEL", "VERSION", "LAST", "SEEN", "MAC"]
    assert cli("devices").stdout.split("\n")[0].split()[5:] == ["PRESENCE", "LABEL", "MAC", "HW"]


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": None}])
def test_no_colour(cli, service, env):
    service.answer_list("/api/admin/rollouts", "rollouts", [rollout()])
    terminal = cli.on_terminal("rollout", "list", env=env)
    assert terminal.wait_exit() == 0
    assert "\x1b" not in terminal.raw.decode()
    service.answer_list("/api/admin/rollouts", "rollouts", [rollout()])
    assert "\x1b" not in cli("rollout", "list").stdout


EVIL = "\x1b]0;owned\x07\x9b31m\u202egnp.exe\x7f\r\n\x00end"


@pytest.mark.parametrize("args", [["devices"], ["devices", "show", "d"], ["explain", "d"],
                                  ["devices", "--json"], ["retry", "d"], ["status"],
                                  ["devices", "show", "gone"], ["devices", "import", "-"]])
def test_control_characters_stay_out(cli, service, args):
    evil = device(1, device_id=EVIL, label=EVIL, notes=EVIL, groups=[EVIL], hw=EVIL,
                  attempts=[update(1, EVIL, EVIL, error_message=EVIL)])
    service.answer_list("/api/admin/devices", "devices", [evil])
    service.answer("GET", "/api/admin/devices/d", evil)
    service.answer("GET", "/api/admin/devices/gone", (404, {"detail": EVIL}))
    service.answer("GET", "/api/admin/devices/d/explain",
                   {"sentence": EVIL, "reason": EVIL,
                    "considered": [{"name": EVIL, "rollout_id": 1, "sentence": EVIL}]})
    service.answer("POST", "/api/admin/devices/d/retry", {"message": EVIL})
    service.answer("POST", "/api/admin/devices/import",
                   (422, {"detail": [{"loc": ["body", EVIL], "msg": EVIL}] * 3}))
    service.answer("GET", "/health", {"status": EVIL, "version": EVIL})
    service.answer("GET", "/metrics", {"devices_by_model": {EVIL: 1}, "recent_updates_24h": {EVIL: 1}})
    run = cli(*args, stdin="x")
    shown = run.stdout + run.stderr
    for c in "\x1b\x07\x9b\x7f\x00\u202e\r":
        assert c not in shown, (c, shown)
    terminal = cli.on_terminal(*args, env={"NO_COLOR": "1"})
    if args[-1] == "-":
        terminal.send(b"x\n\x04")
    terminal.wait_exit()
    assert b"\x1b]" not in terminal.raw and b"\x9b" not in terminal.raw.replace(b"\xc2\x9b", b"!!\x9b")


def test_broken_utf8_is_replaced(cli, service):
    service.answer("GET", "/api/admin/devices/d/explain", (200, b'{"sentence": "a\xff\xc3(b"}'))
    assert cli("explain", "d").returncode == 3  # not JSON (RFC 8259: UTF-8)


def test_deep_json_is_refused(cli, service):
    service.answer("GET", "/api/admin/devices/d/explain", (200, b"[" * 100000))
    assert cli("explain", "d").returncode == 3


@pytest.mark.parametrize("size", [600_000, 5_000_000])
def test_upload_refused_before_it_is_sent(cli, tmp_path, size):
    """The service answers 413 as soon as it knows the length, and does not read the rest."""
    image = tmp_path / "f.bin"
    image.write_bytes(b"x" * size)
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse():
        peer = listener.accept()[0]
        head = b""
        while b"\r\n\r\n" not in head:
            head += peer.recv(4096)
        body = b'{"detail":"the image is larger than 500000 bytes"}'
        peer.sendall(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n"
                     b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(65536):  # a bounded discard, as the service does it
            pass
        peer.close()

    thread = threading.Thread(target=refuse, daemon=True)
    thread.start()
    run = cli("upload", str(image), "--version", "1", "--model", "m", "--server",
              "http://127.0.0.1:%d" % listener.getsockname()[1])
    listener.close()
    assert (run.returncode, run.stderr) == (1, "paku-ota: the image is larger than 500000 bytes\n")
    assert not thread.join(20) and not thread.is_alive()


def test_an_answer_that_is_cut_off(cli):
    listener = socket.create_server(("127.0.0.1", 0))

    def cut():
        peer = listener.accept()[0]
        peer.recv(4096)
        peer.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"devices":[')
        peer.close()

    thread = threading.Thread(target=cut, daemon=True)
    thread.start()
    run = cli("devices", "--server", "http://127.0.0.1:%d" % listener.getsockname()[1])
    thread.join(20)
    listener.close()
    assert run.returncode == 3
    assert "cannot reach" in run.stderr and run.stdout == ""
