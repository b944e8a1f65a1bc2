# SPDX-License-Identifier: MIT
"""./up as people type it, on a data folder and a port of its own. It uses build/ of this tree, which is built when
these tests run; installing packages and `--service` change the machine, and are tried on a bare system instead."""
import os
import pathlib
import re
import socket
import stat
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "fault"))
import faults


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Up:
    def __init__(self, folder):
        self.data = folder / "data"
        self.port, self.mqtt_port = free_port(), free_port()
        self.url = "http://127.0.0.1:%d" % self.port
        self.env = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8",
                    "HOST": "127.0.0.1", "PORT": str(self.port), "OTA_DATA_DIR": str(self.data),
                    "MQTT_PORT": str(self.mqtt_port)}

    def __call__(self, *args, timeout=90, **env):
        return subprocess.run([str(ROOT / "up"), *args], env={**self.env, **env}, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=timeout)

    def typed(self, line):
        """What a person would type after it."""
        return subprocess.run(["bash", "-c", line], cwd=ROOT, env=self.env, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60)


@pytest.fixture
def up(tmp_path):
    up = Up(tmp_path)
    yield up
    done = up("--stop")
    assert done.returncode == 0, done.stdout


def key_in(text):
    found = re.search(r"API key +(paku_\w+)", text)
    return found.group(1) if found else None


def test_the_key_is_shown_however_slow_the_disk_is(up, tmp_path):
    """The service answers before the key is kept, and says it after that."""
    shim = ROOT / "build" / "tests" / "fault" / "paku-fault-shim.so"
    assert shim.exists()
    up.data.mkdir(mode=0o700)
    disk = faults.Faults(tmp_path)
    with disk.slow_sync(0.3):
        done = up(LD_PRELOAD=str(shim), PAKU_FAULT_CONTROL=str(disk.path), PAKU_FAULT_DIR=str(up.data))
    disk.close()
    assert done.returncode == 0, done.stdout
    assert key_in(done.stdout), done.stdout


def test_start_again_and_stop(up):
    first = up()
    assert first.returncode == 0, first.stdout
    assert up.url in first.stdout
    key = key_in(first.stdout)
    assert key, first.stdout

    again = up()
    assert again.returncode == 0 and "runs already" in again.stdout, again.stdout
    assert key not in again.stdout
    assert up("--status").returncode == 0

    stopped = up("--stop")
    assert stopped.returncode == 0 and "Stopped" in stopped.stdout, stopped.stdout
    assert up("--status").returncode == 3

    # The same data and key, and nothing that shows the key again.
    restarted = up()
    assert restarted.returncode == 0 and "as before" in restarted.stdout, restarted.stdout
    assert key not in restarted.stdout
    asked = up.typed("build/cli/paku-ota status")
    assert asked.returncode == 0, asked.stdout
    assert up.typed("build/cli/paku-ota releases").returncode == 0
    for file in up.data.rglob("*"):
        assert not file.is_file() or key.encode() not in file.read_bytes(), file


def test_the_commands_to_type_next_work(up):
    first = up()
    lines = re.findall(r"^  (build/cli/paku-ota .*)$", first.stdout, re.M)
    assert [line.split()[1] for line in lines] == ["upload", "rollout", "watch"], first.stdout
    for line in lines[:2]:
        done = up.typed(line)
        assert done.returncode == 0, first.stdout + line + "\n" + done.stdout
    device = re.search(r"^  (build/device/paku-device .*\\\n.*)$", first.stdout, re.M).group(1)
    done = up.typed(device.replace("/tmp/dev-1", str(up.data.parent / "dev-1")) + " --once")
    assert done.returncode == 0, done.stdout
    done = up.typed(lines[2] + " --timeout 30")
    assert done.returncode == 0, done.stdout


def test_a_login_to_another_service_stays(up):
    config = pathlib.Path(up.env["HOME"]) / ".config"
    config.mkdir()
    login = config / "paku-ota"
    login.write_text("server = https://ota.example.org\nkey = k\n")
    login.chmod(0o600)
    first = up()
    assert first.returncode == 0, first.stdout
    assert "example.org" in login.read_text()
    assert "export OTA_SERVICE_URL=%s OTA_API_KEY=%s" % (up.url, key_in(first.stdout)) in first.stdout


def test_a_login_to_a_service_below_the_same_address_stays(up):
    config = pathlib.Path(up.env["HOME"]) / ".config"
    config.mkdir()
    login = config / "paku-ota"
    login.write_text("server = %s/ota\nkey = k\n" % up.url)
    login.chmod(0o600)
    first = up()
    assert "export OTA_SERVICE_URL=%s " % up.url in first.stdout
    assert login.read_text() == "server = %s/ota\nkey = k\n" % up.url


def test_the_command_that_stops_it_does(up):
    for _ in range(2):
        told = up().stdout
        stop = re.search(r" Stop  (.*)$", told, re.M).group(1)
    del up.env["OTA_DATA_DIR"]
    try:
        done = up.typed(stop)
    finally:
        up.env["OTA_DATA_DIR"] = str(up.data)
    assert done.returncode == 0 and "Stopped" in done.stdout, done.stdout


def test_login_is_for_its_owner_alone(up):
    assert up().returncode == 0
    login = pathlib.Path(up.env["HOME"]) / ".config" / "paku-ota"
    assert stat.S_IMODE(login.stat().st_mode) == 0o600
    assert stat.S_IMODE(up.data.stat().st_mode) == 0o700


def test_a_port_that_is_taken(up):
    with socket.socket() as other:
        other.bind(("127.0.0.1", up.port))
        other.listen()
        done = up()
        assert done.returncode == 1
        assert "port %d is taken by" % up.port in done.stdout and "PORT=" in done.stdout
    assert not up.data.exists()


def test_a_broker_that_runs_already(up):
    with socket.socket() as other:
        other.bind(("127.0.0.1", up.mqtt_port))
        other.listen()
        done = up()
        assert done.returncode == 1
        assert "port %d is taken" % up.mqtt_port in done.stdout and "MQTT_HOST" in done.stdout
        done = up(OTA_MQTT="off")
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name,value", [("PORT", "http"), ("PORT", "0"), ("PORT", "70000"),
                                        ("OTA_POLL_INTERVAL_S", "soon"),
                                        ("OTA_DATA_DIR", "/proc/nowhere")])
def test_what_makes_no_sense_is_named(up, name, value):
    done = up(**{name: value})
    assert done.returncode == 1, done.stdout
    assert name in done.stdout and value in done.stdout


@pytest.mark.parametrize("args,wrong", [(["--bogus"], "'--bogus' is not understood"),
                                        (["--stop", "--demo"], "one option at a time")])
def test_an_option_that_is_not_understood_is_named(up, args, wrong):
    done = up(*args)
    assert done.returncode == 2 and wrong in done.stdout and "Usage" in done.stdout


def test_demonstration(up):
    for _ in range(2):  # the second finds what the first left
        done = up("--demo")
        assert done.returncode == 0, done.stdout
        assert "All five run 1.1.0" in done.stdout
        assert len(re.findall(r"success +1\.1\.0$", done.stdout, re.M)) == 5, done.stdout
        assert "No such file" not in done.stdout


def test_demonstration_needs_the_key(up):
    assert up().returncode == 0
    (pathlib.Path(up.env["HOME"]) / ".config" / "paku-ota").unlink()
    done = up("--demo")
    assert done.returncode == 1 and "needs the key" in done.stdout, done.stdout
    made = up.typed("OTA_DATA_DIR=%s build/src/paku-otad --new-key" % up.data)
    key = re.search(r"API key: (\S+)", made.stdout).group(1)
    up.env["OTA_API_KEY"] = key
    end = time.monotonic() + 60
    while up.typed("build/cli/paku-ota releases --server " + up.url).returncode != 0:
        assert time.monotonic() < end, "the running service does not take the new key"
        time.sleep(0.1)
    done = up("--demo")
    assert done.returncode == 0, done.stdout
