# SPDX-License-Identifier: MIT
"""watch: what ends it and with which code, its lines, its screen, the terminal afterwards."""

import json
import re
import signal
import time

import pytest
from cli_samples import event, progress, rollout, update, walk

PATH = "/api/admin/rollouts/7"


def show(service, row, updates=(), events=()):
    service.answer("GET", PATH, row)
    service.answer_list("/api/admin/update-status", "updates", list(updates))
    service.answer_list("/api/admin/events", "events", list(events))


def failures(device_id, n, first=1, status="failed"):
    return [update(first + i, device_id, status) for i in range(n)]


def test_all_done(cli, service):
    show(service, progress(2, 2, success=2, failed=1),
         [update(1, "a", "success"), update(2, "b", "failed"), update(3, "b", "success")])
    run = cli("watch", "7")
    assert run.returncode == 0
    line, end = run.stdout.splitlines()
    assert line[20:] == "  done 2  running 0  failed 0  waiting 0  of 2  success 2, failed 1"
    assert end == "done: all 2 targeted devices run 1.3.0"


@pytest.mark.parametrize("status", ["failed", "rolled_back"])
def test_failed_for_good(cli, service, status):
    show(service, progress(2, 1, success=1, **{status: 3}),
         [update(9, "a", "success"), *failures("b", 3, status=status)])
    run = cli("watch", "7")
    assert run.returncode == 1
    assert "failed 1  waiting 0  of 2" in run.stdout
    assert "over: 1 of 2 targeted devices failed to install 1.3.0" in run.stdout
    assert "paku-ota updates --rollout 7" in run.stderr


@pytest.mark.parametrize("rows, why", [
    (failures("b", 2), "it may try a third time"),
    ([update(9, "b", "pending", closed="lapsed"), *failures("b", 2)], "a lapsed offer is no failure"),
    ([update(9, "b", "success"), *failures("b", 3)], "the row of failures is broken"),
])
def test_not_over_yet(cli, service, rows, why):
    show(service, progress(2, 1, success=1, failed=2), rows)
    run = cli("watch", "7", "--timeout", "1")
    assert run.returncode == 5, why
    assert "not over: 1 of 2 targeted devices do not run 1.3.0" in run.stdout
    assert "paku-ota explain DEVICE" in run.stderr


def test_failures_around_a_lapsed_offer_count(cli, service):
    show(service, progress(1, 0, failed=3),
         [*failures("b", 2, first=8), update(5, "b", "pending", closed="withdrawn"),
          *failures("b", 1, first=1)])
    assert cli("watch", "7").returncode == 1


def test_inactive(cli, service):
    show(service, dict(progress(5, 2, success=2, withdrawn=3), is_active=False, state="paused"))
    run = cli("watch", "7")
    assert run.returncode == 1
    assert "the rollout is paused: 3 of 5 targeted devices do not run 1.3.0" in run.stdout
    assert "paku-ota rollout resume 7" in run.stderr


@pytest.mark.parametrize("state", ["halted", "aborted"])
def test_ended_for_good(cli, service, state):
    show(service, dict(progress(5, 2, success=2), **walk(1, state, reason="it bricks")))
    run = cli("watch", "7")
    assert run.returncode == 1
    assert "the rollout is %s (it bricks): 3 of 5 targeted" % state in run.stdout
    assert run.stderr == ""


def test_a_stage_is_not_the_end(cli, service):
    for state, index in (("running", 1), ("running", 3), ("scheduled", 1)):
        show(service, dict(progress(2, 2, success=2), **walk(index, state)))
        run = cli("watch", "7", "--timeout", "1")
        assert run.returncode == 5
        assert "%s in stage %d of 4" % (state, index) in run.stdout
        assert "waits for proof" in run.stdout
    show(service, dict(progress(2, 2, success=2), **walk(4)))
    assert cli("watch", "7").returncode == 0


def test_the_screen_says_where_it_is(cli, service):
    show(service, dict(progress(4, 1, success=1), **walk(2, reason="its time has passed")))
    terminal = cli.on_terminal("watch", "7")
    terminal.wait_text("q leaves")
    screen = terminal.screen()
    assert screen[0].endswith("rollout 7, running")
    assert re.match(r"stage 2 of 4, 25 %, for .*: its time has passed$", screen[2])
    assert screen[3] == "Stage 2 waits for devices."
    terminal.send(b"q")
    assert terminal.wait_exit() == 130


def test_the_screen_says_when_it_is_through(cli, service):
    times = {"earliest": "2100-01-01T00:00:00.000000Z", "likely": "2100-01-02T00:00:00.000000Z",
             "latest": "2100-01-03T00:00:00.000000Z"}
    show(service, dict(progress(4, 1, success=1), **walk(2, eta=times)))
    terminal = cli.on_terminal("watch", "7")
    terminal.wait_text("q leaves")
    assert re.match(r"Through in about \d+ d .* \(\d+ d .* to \d+ d .*\), as things go\.$",
                    terminal.screen()[4])
    terminal.send(b"q")
    assert terminal.wait_exit() == 130


def test_inactive_but_under_way_goes_on(cli, service):
    show(service, dict(progress(5, 2, success=2, downloading=1), is_active=False, state="paused"))
    assert cli("watch", "7", "--timeout", "1").returncode == 5


def test_nobody_targeted_is_not_done(cli, service):
    show(service, progress(0, 0))
    assert cli("watch", "7", "--timeout", "1").returncode == 5


def test_unknown_and_unreachable_at_once(cli, service):
    assert cli("watch", "8").returncode == 1
    assert cli("watch", "7", "--server", "http://127.0.0.1:1").returncode == 3


def test_a_line_for_each_change(cli, service):
    """Snapshots are moved on by the program's own questions: no time is waited for."""
    snapshots = [progress(2, 0, pending=1), progress(2, 0, pending=1),
                 progress(2, 0, downloading=1, pending=1), progress(2, 1, success=1, installing=1),
                 progress(2, 2, success=2)]
    asked = []

    def now(request):
        asked.append(request)
        return snapshots[min(len(asked), len(snapshots)) - 1]

    show(service, now)
    service.answer("POST", "/api/admin/rollout/create",
                   {"status": "ok", "message": "created", "rollout_id": 7})
    run = cli("rollout", "create", "1.3.0", "--model", "esp32-c3", "--all", "--watch")
    assert run.returncode == 0, run.stderr
    assert [line[20:].split("  of")[0].strip() for line in run.stdout.splitlines()[2:-1]] == [
        "done 0  running 1  failed 0  waiting 1", "done 0  running 2  failed 0  waiting 0",
        "done 1  running 1  failed 0  waiting 0", "done 2  running 0  failed 0  waiting 0"]
    # The attempts are read again when counts change, not each second.
    assert len(service.asked("GET", "/api/admin/update-status")) < len(asked) + 1
    asked.clear()
    run = cli("watch", "7", "--json")
    assert [json.loads(line)["on_version"] for line in run.stdout.splitlines()] == [0, 0, 1, 2]


def test_a_restart_of_the_service_is_waited_for(cli, service):
    state = {"n": 0}

    def now(request):
        state["n"] += 1
        if state["n"] in (3, 4):
            return 503, {"detail": "shutting\x1b[2J down"}
        return progress(1, 0 if state["n"] < 5 else 1, pending=1)

    show(service, now)
    run = cli("watch", "7")
    assert run.returncode == 0
    assert run.stderr.count("waiting for the service: shutting\\x1b[2J down\n") == 1


def test_the_screen(cli, service):
    rows = [update(n, "dev-%04d" % n, "success",
                   completed_at="2026-11-23T22:0%d:%02d.000000Z" % (n % 3, n)) for n in range(31)]
    rows += failures("dev-0099", 3, first=100)
    events = [event(50 - n, "update_failed" if n == 1 else "update_progressed" if n == 2 else "update_completed", "dev-%04d" % n,
                    **({"error_message": "no \x1b[31mspace"} if n == 1 else
                       {"status": "installing"} if n == 2 else {})) for n in range(40)]
    show(service, progress(50, 31, success=31, downloading=3, installing=2, failed=3), rows, events)
    terminal = cli.on_terminal("watch", "7")
    terminal.wait_text("q leaves")
    screen = terminal.screen()
    assert len(screen) <= 24
    assert max(len(line) for line in screen) <= 80
    assert screen[0].startswith("esp32-c3-1.3.0-all") and screen[0].endswith("rollout 7, running")
    assert len(screen[0]) == 80
    assert screen[1].startswith("1.3.0 for esp32-c3")
    bar = screen[4]
    assert bar.endswith(" 62 %")
    assert [bar.count(c) for c in "█▒✗░"] == [45, 8, 1, 20]
    assert "done 31   running 5   failed 1   waiting 13   of 50 targeted" in screen[5]
    assert "attempts  downloading 3  installing 2  success 31  failed 3" in screen[7]
    assert screen[9].startswith("time line ") and "█" in screen[9]
    assert "at most" in screen[10]
    assert screen[12] == "last events (UTC)"
    assert screen[14] == "22:02:00  update_failed       dev-0001  no \\x1b[31mspace"
    assert screen[15] == "22:02:00  update_progressed   dev-0002  installing"
    assert screen[-1] == "q leaves; the rollout goes on"

    show(service, progress(50, 50, success=50), rows, events)
    assert terminal.wait_exit() == 0
    assert "done: all 50 targeted devices run 1.3.0" in terminal.text()
    assert b"\x1b[?1049l" in terminal.raw and b"\x1b[?25h" in terminal.raw
    assert terminal.settings() == terminal.before


@pytest.mark.parametrize("cols, lines, locale", [(120, 40, "C.UTF-8"), (80, 10, "C.UTF-8"),
                                                 (40, 12, "C.UTF-8"), (80, 24, "C")])
def test_the_screen_at_other_sizes(cli, service, cols, lines, locale):
    show(service, dict(progress(10000, 3, success=3, downloading=1), name="größe " * 30),
         [update(n, "d%d" % n, "success") for n in range(3)],
         [event(n, "update_completed", "d" * 128) for n in range(40)])
    terminal = cli.on_terminal("watch", "7", cols=cols, lines=lines, env={"LC_ALL": locale})
    terminal.wait_for(lambda t: t.raw.count(b"\x1b[H") >= 3, "draws")
    screen = terminal.screen()
    assert len(screen) <= lines
    if locale == "C":
        assert terminal.raw.isascii()
    if (cols, lines) == (120, 40):  # one of ten thousand is seen all the same
        assert [screen[4].count(c) for c in "█▒✗░"] == [1, 1, 0, 112]
    assert max(len(line) for line in screen) <= cols
    assert screen[0].endswith("rollout 7, running")
    assert "of 10000 targeted" in "\n".join(screen)
    terminal.send(b"q")
    assert terminal.wait_exit() == 130


@pytest.mark.parametrize("how", ["ctrl-c", "term", "q", "hup"])
def test_leaving_restores_the_terminal(cli, service, how):
    show(service, progress(2, 0, pending=1))
    terminal = cli.on_terminal("watch", "7", "--interval", "3600")
    terminal.wait_text("q leaves")
    assert terminal.settings() != terminal.before
    if how == "ctrl-c":
        terminal.send(b"\x03")
    elif how == "q":
        terminal.send(b"q")
    else:
        terminal.kill(signal.SIGTERM if how == "term" else signal.SIGHUP)
    assert terminal.wait_exit() == 130
    assert terminal.settings() == terminal.before
    assert terminal.raw.rstrip().endswith(b"\x1b[?1049l") or b"\x1b[?1049l" in terminal.raw


def test_leaving_while_the_service_is_silent(cli, service):
    """Ctrl-C is heard while an answer is waited for; a second one is not needed."""
    calls = []

    def slow(request):
        calls.append(1)
        if len(calls) > 2:
            time.sleep(30)
        return progress(2, 0, pending=1)

    show(service, slow)
    terminal = cli.on_terminal("watch", "7")
    terminal.wait_for(lambda t: len(calls) > 2, "asks again")
    terminal.send(b"\x03")
    assert terminal.wait_exit() == 130
    assert terminal.settings() == terminal.before


def test_stopped_and_continued(cli, service):
    show(service, progress(2, 0, pending=1))
    terminal = cli.on_terminal("watch", "7")
    terminal.wait_text("q leaves")
    terminal.kill(signal.SIGTSTP)
    terminal.wait_for(lambda t: b"\x1b[?1049l" in t.raw and t.is_stopped(), "leaves its screen")
    terminal.kill(signal.SIGCONT)
    terminal.wait_for(lambda t: t.raw.count(b"\x1b[?1049h") == 2, "takes it again")
    terminal.send(b"q")
    assert terminal.wait_exit() == 130
    assert terminal.settings() == terminal.before


def test_by_name(cli, service):
    show(service, progress(1, 1, success=1))
    service.answer_list("/api/admin/rollouts", "rollouts", [rollout()])
    assert cli("watch", "esp32-c3-1.3.0-all").returncode == 0
