# SPDX-License-Identifier: MIT
"""How answers look, whatever the command: tables on a terminal, and what is no answer."""

import socket
import threading

import pytest
from cli_samples import device, rollout, update

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
