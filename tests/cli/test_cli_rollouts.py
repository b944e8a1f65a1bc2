# SPDX-License-Identifier: MIT
"""A release and its way to the devices: upload, rollout, log."""

import re
import socket
import threading

import pytest
from cli_samples import event, progress, rollout, walk

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
