# SPDX-License-Identifier: MIT
"""paku-device against a small service: updates, broken lines, kills, bad images, bad arguments."""
import pathlib
import random
import signal
import subprocess
import time

import pytest

BLOCK = 65536


def image(seed, size=10 * BLOCK + 1234):
    return random.Random(seed).randbytes(size)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_update(device, service):
    service.version, service.image = "1.1.0", image(1)
    assert device.run("--once") == 0
    assert device.slot(1)[:len(service.image)] == service.image
    assert service.statuses()[-3:] == ["downloaded", "installing", "success"]
    assert set(service.statuses()[:-3]) == {"downloading"}
    percents = [r["progress_percent"] for r in service.reports if r["status"] == "downloading"]
    assert percents == sorted(set(percents)) and percents[-1] == 100
    for r in service.reports:
        assert r["device_id"] == "dev:1" and r["firmware_version"] == "1.1.0"
        assert r["attempt_id"] == "0000000000000"
        assert r["path"] == "/api/device/dev%3A1/update-status"
    # What it says of itself: who, what, and since when; the new version once it is confirmed.
    first, last = service.checks[0], service.checks[-1]
    assert first["device_model"] == "m+1" and first["current_version"] == "1.0.0"
    assert "firmware_digest" not in first
    assert last["current_version"] == "1.1.0" and len(last["firmware_digest"]) == 64
    assert first["boot_id"] != last["boot_id"]


def test_nothing_to_do_then_next_update_uses_the_other_slot(device, service):
    service.version, service.image = "1.1.0", image(1)
    assert device.run("--once") == 0
    before = len(service.reports)
    assert device.run("--once") == 0
    assert len(service.reports) == before and device.names()[-1] == "checked"
    service.version, service.image = "1.2.0+b", image(2)
    assert device.run("--once") == 0
    assert device.slot(0)[:len(service.image)] == service.image
    assert device.slot(1)[:len(image(1))] == image(1)
    assert service.checks[-1]["current_version"] == "1.2.0+b"


def test_line_broken_in_the_middle_goes_on_by_range(device, service):
    service.version, service.image = "1.1.0", image(1)
    service.cut_after = [3 * BLOCK + 100]
    assert device.run("--once") == 0
    assert service.downloads[0] == (None, None)
    asked, if_range = service.downloads[1]
    assert asked == "bytes=%d-" % (3 * BLOCK + 100)
    assert if_range.startswith('"') and len(if_range) == 66
    assert service.sent == len(service.image)
    assert "cut" in device.names()


def test_image_changed_in_the_middle_is_never_mixed(device, service):
    service.version, service.image = "1.1.0", image(1)
    service.cut_after = [5 * BLOCK]

    def change():
        service.image = image(2)
    service.on_cut = change
    assert device.run("--once") == 0
    assert "changed" in device.names()
    assert device.slot(1)[:len(service.image)] == image(2)
    assert service.statuses()[-1] == "success" and "failed" not in service.statuses()


def test_service_without_ranges(device, service):
    service.version, service.image, service.ranges = "1.1.0", image(1), False
    service.cut_after = [4 * BLOCK]
    assert device.run("--once") == 0
    assert device.slot(1)[:len(service.image)] == service.image


def test_busy_service_is_waited_for(device, service):
    service.version, service.image = "1.1.0", image(1)
    service.status = {"/api/firmware/download": [503, 503], "/api/device": [500]}
    assert device.run("--once") == 0
    assert service.statuses()[-1] == "success"
    assert "report_kept" in device.names()


def test_withdrawn_is_no_failure(device, service):
    service.version, service.image = "1.1.0", image(1)
    service.status = {"/api/firmware/download": [410]}
    assert device.run("--once") == 0
    assert "withdrawn" in device.names() and "failed" not in service.statuses()


def test_absent_image_fails(device, service):
    service.version, service.image = "1.1.0", image(1)
    service.status = {"/api/firmware/download": [404]}
    assert device.run("--once") == 1
    assert service.statuses()[-1] == "failed"
    assert service.reports[-1]["error_message"].startswith("download failed")


def test_killed_in_the_middle_resumes_what_verifies(device, service):
    service.version, service.image = "1.1.0", image(1, 40 * BLOCK)
    agent = device.start("--speed", "2000000")
    for line in agent.stderr:
        if '"progress"' in line and "40 %" in line:
            break
    agent.kill()
    agent.wait()
    agent.stderr.close()
    assert device.run("--once") == 0
    resumed = [e for e in device.events if e["event"] == "resume"]
    # 40 % are 16 blocks, and the boot record notes every fourth.
    assert len(resumed) == 1 and resumed[0]["value"] >= 12 * BLOCK
    assert service.downloads[-1][0] == "bytes=%d-" % resumed[0]["value"]
    assert device.slot(1) == service.image


def test_what_was_damaged_while_it_was_off_is_not_trusted(device, service):
    service.version, service.image = "1.1.0", image(1, 40 * BLOCK)
    agent = device.start("--speed", "2000000")
    for line in agent.stderr:
        if '"progress"' in line and "30 %" in line:
            break
    agent.kill()
    agent.wait()
    agent.stderr.close()
    with open(device.directory / "slot1", "r+b") as f:
        f.seek(BLOCK)
        f.write(b"\0" * 16)
    assert device.run("--once") == 0
    assert "start_over" in device.names() and "resume" not in device.names()
    assert device.slot(1) == service.image


def test_killed_at_random_ends_updated(device, service):
    service.version, service.image = "1.1.0", image(1, 20 * BLOCK)
    rng = random.Random(5)
    for _ in range(8):
        agent = device.start("--speed", "4000000")
        for _ in range(rng.randrange(1, 12)):
            if not agent.stderr.readline():
                break
        agent.kill()
        agent.wait()
        agent.stderr.close()
    assert device.run("--once") == 0
    assert service.checks[-1]["current_version"] == "1.1.0"
    assert "success" in service.statuses()
    assert "failed" not in service.statuses() and "rolled_back" not in service.statuses()


@pytest.mark.parametrize("fail,status,why", [
    ("verify", "failed", "verification failed"),
    ("selftest", "rolled_back", "invalid firmware"),
    ("boot", "rolled_back", "invalid firmware"),
])
def test_bad_device_keeps_the_old_version(device, service, fail, status, why):
    service.version, service.image = "1.1.0", image(1)
    assert device.run("--once", "--fail", fail) == 1
    assert service.statuses()[-1] == status and "success" not in service.statuses()
    assert service.reports[-1]["error_message"].startswith(why)
    # The next attempt, on a device that is well again, goes through.
    assert device.run("--once") == 0
    assert service.reports[-1]["status"] == "success"
    assert service.reports[-1]["attempt_id"] == "0000000000001"


def test_selftest_command_decides(device, service):
    service.version, service.image = "1.1.0", image(1)
    assert device.run("--once", "--selftest", "false") == 1
    assert service.statuses()[-1] == "rolled_back"
    # The image is still there, verified: it is not loaded a second time.
    downloads = len(service.downloads)
    assert device.run("--once", "--selftest", "true") == 0
    assert len(service.downloads) == downloads


def test_selftest_command_is_told_what_it_judges(device, service):
    service.version, service.image = "1.1.0", image(1)
    seen = device.directory.parent / "seen"
    command = 'echo "$PAKU_VERSION" >%s; test -s "$PAKU_IMAGE"' % seen
    assert device.run("--once", "--selftest", command) == 0
    assert seen.read_text() == "1.1.0\n"


def gone(pid):
    """Ended, whether or not somebody has taken its exit code."""
    try:
        return pathlib.Path("/proc/%d/stat" % pid).read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def test_selftest_command_that_hangs_ends_with_the_trial(device, service):
    service.version, service.image = "1.1.0", image(1)
    pids = device.directory.parent / "pids"
    command = "sleep 300 & echo $! $$ >%s; wait" % pids
    assert device.run("--once", "--trial", "2", "--selftest", command, timeout=60) == 1
    assert service.statuses()[-1] == "rolled_back"
    assert "self-test of the new version did not end" in service.reports[-1]["error_message"]
    wait_for(lambda: all(gone(int(pid)) for pid in pids.read_text().split()))


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_selftest_ends_the_agent_not_the_trial(device, service, sig):
    service.version, service.image = "1.1.0", image(1)
    pids = device.directory.parent / "pids"
    agent = device.start("--once", "--selftest", "echo $$ >%s; exec sleep 300" % pids)
    try:
        wait_for(lambda: pids.exists() and pids.read_text().endswith("\n"))
        agent.send_signal(sig)
        agent.communicate(timeout=60)
    finally:
        agent.kill()
    wait_for(lambda: gone(int(pids.read_text())))
    assert "rolled_back" not in service.statuses()
    assert device.run("--once") == 0
    assert device.names().count("trial") == 1 and service.statuses()[-1] == "success"


def test_killed_in_every_trial_boot_goes_back(device, service):
    service.version, service.image = "1.1.0", image(1)
    for boot in range(3):
        assert device.run("--once", "--selftest", "kill -9 $PPID") == -signal.SIGKILL
        assert [e["value"] for e in device.events if e["event"] == "trial"] == [boot + 1]
    assert device.run("--once", "--selftest", "kill -9 $PPID") == 1
    assert "trial" not in device.names() and "rolled_back" in device.names()
    assert service.statuses()[-1] == "rolled_back"
    assert device.events[-1]["version"] == "1.0.0"


def test_lines_for_people_begin_with_the_device(device, service):
    service.version, service.image = "1.1.0", image(1)
    command = [word for word in device.command("--once") if word != "--json"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert lines[0] == "dev:1: running 1.0.0 from slot 0"
    assert all(line.startswith("dev:1: ") for line in lines)
    assert "dev:1: 1.1.0: 100 % in flash" in lines and "dev:1: 1.1.0 is confirmed" in lines


def test_wrong_hash_is_refused(device, service):
    service.version, service.image, service.offer_sha = "1.1.0", image(1), "ab" * 32
    assert device.run("--once") == 1
    assert service.reports[-1]["error_message"].startswith("verification failed")
    assert service.reports[-1]["result_code"] == 3


def test_image_larger_than_a_slot(device, service):
    service.version, service.image = "1.1.0", image(1)
    assert device.run("--once", "--slot-size", str(4 * BLOCK)) == 1
    assert service.reports[-1]["error_message"].startswith("insufficient space")
    assert service.reports[-1]["result_code"] == 8
    assert service.downloads == []


def test_result_survives_until_the_service_takes_it(device, service):
    service.version, service.image = "1.1.0", image(1)
    service.status = {"/api/device": [503] * 100}
    assert device.run("--once") == 0
    assert service.reports == []
    service.status = {}
    assert device.run("--once") == 0
    assert service.statuses()[-1] == "success"
    assert service.reports[-1]["attempt_id"] == "0000000000000"


def test_service_gone(device, service):
    service.close()
    assert device.run("--once") == 3
    assert "check_failed" in device.names()
    service.close = lambda: None


def test_polls_are_counted_and_term_ends_it(device, service):
    assert device.run("--poll", "1", "--max-polls", "2") == 0
    assert len(service.checks) == 2
    agent = device.start()
    for line in agent.stderr:
        if '"checked"' in line:
            break
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(timeout=60) == 0
    agent.stderr.close()


def test_second_agent_on_one_directory_is_turned_away(device, service):
    first = device.start()
    for line in first.stderr:
        if '"checked"' in line:
            break
    second = subprocess.run(device.command("--once"), stderr=subprocess.PIPE, text=True, timeout=60)
    first.terminate()
    first.wait(timeout=60)
    first.stderr.close()
    assert second.returncode == 4 and "another agent" in second.stderr


@pytest.mark.parametrize("change,words", [
    (["--id", "a/b"], "--id"), (["--id", ""], "--id"), (["--model", "a b"], "--model"),
    (["--version", "1 0"], "--version"), (["--server", "ftp://x"], "--server"),
    (["--server", "http://"], "--server"), (["--poll", "0"], "--poll"),
    (["--poll", "x"], "--poll"), (["--speed", "-1"], "--speed"), (["--fail", "all"], "--fail"),
    (["--slot-size", "1"], "--slot-size"), (["--max-polls", "0"], "--max-polls"),
    (["stray"], "stray"), (["--nonsense"], "nonsense"), (["--poll"], "poll"),
])
def test_bad_arguments(device, change, words):
    done = subprocess.run(device.command(*change), stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 2 and words in done.stderr


def test_slash_behind_the_server_is_no_mistake(device, service):
    device.url += "/ota/"
    service.status = {"/ota/api/firmware/check?": [404]}
    assert device.run("--once") == 3
    assert service.status["/ota/api/firmware/check?"] == []


def test_help_and_missing_arguments(program):
    done = subprocess.run([program, "--help"], stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 0 and "--selftest" in done.stdout
    done = subprocess.run([program], stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 2 and "--server is missing" in done.stderr


def test_directory_of_no_use(device, tmp_path):
    (tmp_path / "state").write_text("a file")
    done = subprocess.run(device.command("--once"), stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 4 and "--dir" in done.stderr
