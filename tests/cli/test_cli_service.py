# SPDX-License-Identifier: MIT
"""Every command against the real service: a paku-otad of its own for each test."""

import json
import os
import signal
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib

import pytest
from cli_fake_service import KEY
from cli_program import BUILD, Cli

DAEMON = os.path.join(BUILD, "src", "paku-otad")
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Daemon:
    def __init__(self, folder):
        assert os.path.exists(DAEMON), "%s is not built" % DAEMON
        port = free_port()
        self.url = "http://127.0.0.1:%d" % port
        self.log = open(folder / "otad.log", "w+")
        self.env = {"PATH": os.environ["PATH"], "HOST": "127.0.0.1", "PORT": str(port),
                    "OTA_DATA_DIR": str(folder / "data"), "OTA_API_KEY": KEY, "OTA_MQTT": "off"}
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen([DAEMON], env=self.env, stdout=self.log, stderr=self.log)
        end = time.monotonic() + 60
        while True:
            assert self.process.poll() is None and time.monotonic() < end, self.text()
            try:
                OPENER.open(self.url + "/health", timeout=5).close()
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.02)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0, self.text()

    def text(self):
        self.log.flush()
        with open(self.log.name) as f:
            return f.read()


class Device:
    """A device as the field has them: checks in, downloads, reports."""

    def __init__(self, daemon, device_id, version="1.0.0", model="box"):
        self.daemon, self.id, self.version, self.model = daemon, device_id, version, model

    def check(self):
        query = urllib.parse.urlencode({"device_id": self.id, "device_model": self.model,
                                        "current_version": self.version})
        with OPENER.open("%s/api/firmware/check?%s" % (self.daemon.url, query), timeout=10) as r:
            return json.load(r)

    def report(self, version, status, **more):
        body = dict(device_id=self.id, firmware_version=version, status=status, **more)
        request = urllib.request.Request(
            "%s/api/device/%s/update-status" % (self.daemon.url, self.id),
            json.dumps(body).encode(), {"Content-Type": "application/json"})
        OPENER.open(request, timeout=10).close()

    def update(self, fail=None):
        offer = self.check()
        assert offer["update_available"], offer
        with OPENER.open(offer["download_url"], timeout=10) as r:
            assert len(r.read()) == offer["file_size"]
        version = offer["latest_version"]
        if fail:
            self.report(version, "failed", error_message=fail, attempt_id=offer["attempt_id"])
            return
        for status in ("downloading", "downloaded", "installing", "success"):
            self.report(version, status, attempt_id=offer["attempt_id"])
        self.version = version
        assert not self.check()["update_available"]


@pytest.fixture
def daemon(tmp_path):
    real = Daemon(tmp_path)
    yield real
    if real.process.poll() is None:
        real.stop()


@pytest.fixture
def ota(daemon, tmp_path):
    run = Cli(tmp_path, daemon.url)
    yield run
    for terminal in run.terminals:
        terminal.close()


def good(run):
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture
def bundle(tmp_path):
    path = tmp_path / "bundle.tar"
    path.write_bytes(zlib.compress(b"not firmware of any chip" * 100) + struct.pack(">I", 7) * 999)
    return str(path)


def upload(ota, path, version, model="box"):
    return good(ota("upload", path, "--version", version, "--model", model))


def test_status_and_login(ota, daemon):
    out = good(ota("status"))
    assert out.startswith("%s: healthy\n" % daemon.url)
    assert "devices       0" in out and "store         sqlite" in out
    clean = {"OTA_API_KEY": None, "OTA_SERVICE_URL": None}
    assert ota("login", daemon.url, env=clean, stdin="wrong").returncode == 4
    assert ota("devices", env={"OTA_API_KEY": None}).returncode == 4
    good(ota("login", daemon.url, env=clean, stdin=KEY))
    assert ota("devices", env=clean).stderr == "no devices\n"


def test_upload_and_releases(ota, bundle, tmp_path):
    out = upload(ota, bundle, "1.3.0+build.7")
    assert "1.3.0+build.7" in out and "sha256" in out
    upload(ota, bundle, "1.3.0+build.7")  # the same again
    other = tmp_path / "other"
    other.write_bytes(b"something else" * 50)
    run = ota("upload", str(other), "--version", "1.3.0+build.7", "--model", "box")
    assert run.returncode == 1 and "1.3.0+build.7" in run.stderr
    page = tmp_path / "page"
    page.write_bytes(b"<!DOCTYPE html><html><body>Not found</body></html>" * 9)
    assert ota("upload", str(page), "--version", "2", "--model", "box").returncode == 1
    assert ota("upload", bundle, "--version", "a b", "--model", "box").returncode == 1
    assert "1.3.0+build.7" in good(ota("releases", "--model", "box"))
    assert ota("releases", "--model", "none").stderr == "no releases\n"
    good(ota("releases", "delete", "1.3.0+build.7", "--model", "box"))
    assert ota("releases").stderr == "no releases\n"
    assert ota("releases", "delete", "1.3.0+build.7", "--model", "box").returncode == 1


def test_devices(ota, daemon, tmp_path):
    for n in range(120):
        Device(daemon, "dev:%03d" % n).check()
    assert len(good(ota("devices", "--all")).splitlines()) == 121
    run = ota("devices")
    assert "100 shown, there are more" in run.stderr
    rows = json.loads(good(ota("devices", "--limit", "7", "--json")))
    assert len(rows["devices"]) == 7 and rows["next_cursor"]
    rows = json.loads(good(ota("devices", "--limit", "1000", "--json")))
    assert len({r["device_id"] for r in rows["devices"]}) == 120 and rows["next_cursor"] is None

    good(ota("devices", "group", "dev:001", "add", "kitchen", "beta-testers"))
    good(ota("devices", "label", "dev:001", "by the", "door"))
    good(ota("devices", "notes", "dev:001", "bought in 2024\nüber"))
    out = good(ota("devices", "show", "dev:001"))
    for text in ("kitchen", "beta-testers", "by the door", "bought in 2024", "über", "1.0.0"):
        assert text in out
    assert len(good(ota("devices", "--group", "kitchen")).splitlines()) == 2
    good(ota("devices", "group", "dev:001", "remove", "kitchen"))
    good(ota("devices", "label", "dev:001", "--clear"))
    out = good(ota("devices", "show", "dev:001"))
    assert "kitchen" not in out and "by the door" not in out

    csv = tmp_path / "devices.csv"
    csv.write_text("device_id,groups,label\ndev:002,a;b,two\ndev:003,a,three\n")
    assert good(ota("devices", "import", str(csv))).startswith("updated: 2")
    assert len(good(ota("devices", "--group", "a")).splitlines()) == 3
    csv.write_text("device_id,groups\ndev:002,b\nx/y,a\nnobody,a\n")
    run = ota("devices", "import", str(csv))
    assert run.returncode == 1
    assert "line 3: " in run.stderr and "  no device is called nobody" in run.stderr
    assert "  groups        a, b" in good(ota("devices", "show", "dev:002"))

    good(ota("devices", "delete", "dev:001"))
    run = ota("devices", "show", "dev:001")
    assert run.returncode == 1 and "dev:001" in run.stderr
    assert ota("retry", "dev:001").returncode == 1
    assert ota("explain", "dev:001").returncode == 1


def test_rollout_from_end_to_end(ota, daemon, bundle):
    devices = [Device(daemon, "dev-%d" % n) for n in range(3)]
    for device in devices:
        device.check()
    upload(ota, bundle, "1.1.0")
    run = ota("rollout", "create", "9.9.9", "--model", "box", "--all")
    assert run.returncode == 1 and "paku-ota releases --model box" in run.stderr
    for _ in range(2):  # the second one finds the first
        good(ota("rollout", "create", "1.1.0", "--model", "box", "--devices", "dev-0,dev-1"))
    rows = json.loads(good(ota("rollout", "list", "--json")))["rollouts"]
    assert len(rows) == 1
    name, number = rows[0]["name"], str(rows[0]["id"])
    assert "2 targeted, 0 run the version" in good(ota("rollout", "show", name))
    assert ota("releases", "delete", "1.1.0", "--model", "box").returncode == 1
    explained = json.loads(good(ota("explain", "dev-2", "--json")))
    assert not explained["update_available"]
    assert explained["sentence"] in good(ota("explain", "dev-2"))

    assert ota("watch", name, "--timeout", "1").returncode == 5
    devices[0].update()
    devices[1].update()
    run = ota("watch", number)
    assert run.returncode == 0
    assert "done: all 2 targeted devices run 1.1.0" in run.stdout
    assert "success" in good(ota("updates", "--rollout", name, "--status", "success"))
    assert "update_completed" in good(ota("events", "--device", "dev-0"))
    assert "rollout_created" in good(ota("events", "--rollout", number))
    good(ota("rollout", "deactivate", name))
    assert " paused " in good(ota("rollout", "list"))
    assert ota("rollout", "list", "--active").stderr == "no rollouts\n"
    good(ota("rollout", "activate", number))
    assert len(good(ota("rollout", "list", "--active")).splitlines()) == 2


def test_a_walk_from_end_to_end(ota, daemon, bundle):
    devices = [Device(daemon, "dev-%d" % n) for n in range(8)]
    for device in devices:
        device.check()
    upload(ota, bundle, "1.1.0")
    create = ["rollout", "create", "1.1.0", "--model", "box", "--stages", "25,50:0:approve,100",
              "--name", "walk", "--reason", "nightly", "--no-guard"]
    terminal = ota.on_terminal(*create, "--watch")
    terminal.wait_text("rollout 1, running")
    terminal.wait_text("stage 1 of 3, 25 %")

    def update():
        for device in devices:
            if device.check()["update_available"]:
                device.update()

    update()
    terminal.wait_text("stage 2 of 3, 50 %")
    update()
    terminal.wait_text("waits for somebody's approval")
    good(ota("rollout", "approve", "walk", "--stage", "2", "--reason", "seen"))
    terminal.wait_text("stage 3 of 3, 100 %")
    refused = ota("rollout", "approve", "walk", "--stage", "2")
    assert refused.returncode == 1 and "stage 3 of 3 by now" in refused.stderr
    update()
    assert terminal.wait_exit() == 0
    assert "done: all 8 targeted devices run 1.1.0" in terminal.text()
    end = time.monotonic() + 60
    while "completed" not in good(ota("rollout", "show", "walk")):
        assert time.monotonic() < end
    log = good(ota("log", "--rollout", "walk"))
    assert "running 3 -> completed 3" in log and "conductor" in log and "seen" in log
    assert "nightly" in log and "dev-0" not in log
    good(ota("rollout", "abort", "walk", "--reason", "enough"))
    assert ota("rollout", "resume", "walk").returncode == 1
    run = ota("watch", "walk")
    assert "all 8 targeted devices run" in run.stdout


def test_watch_of_failures_and_retry(ota, daemon, bundle):
    device = Device(daemon, "dev-0")
    device.check()
    upload(ota, bundle, "1.1.0")
    good(ota("rollout", "create", "1.1.0", "--model", "box", "--all", "--max-attempts", "2"))
    terminal = ota.on_terminal("watch", "box-1.1.0-all")
    terminal.wait_text("q leaves")
    device.update(fail="the flash is full")
    terminal.wait_text("1 of those waiting failed and will try again")
    device.update(fail="the flash is full")
    assert terminal.wait_exit() == 1
    assert "over: 1 of 1 targeted devices failed to install 1.1.0" in terminal.text()
    assert "the flash is full" in good(ota("updates", "--status", "failed"))
    assert not device.check()["update_available"]
    assert ota("watch", "box-1.1.0-all").returncode == 1
    good(ota("retry", "dev-0"))
    assert ota("watch", "box-1.1.0-all", "--timeout", "1").returncode == 5  # it may go on
    device.update()
    assert ota("watch", "box-1.1.0-all").returncode == 0


def test_watch_over_a_restart(ota, daemon, bundle):
    device = Device(daemon, "dev-0")
    device.check()
    upload(ota, bundle, "1.1.0")
    good(ota("rollout", "create", "1.1.0", "--model", "box", "--all"))
    terminal = ota.on_terminal("watch", "box-1.1.0-all")
    terminal.wait_text("q leaves")
    daemon.stop()
    terminal.wait_text("waiting for the service: ")
    daemon.start()
    device.update()
    assert terminal.wait_exit() == 0
    assert "done: all 1 targeted devices run 1.1.0" in terminal.text()


def test_stop_and_resume(ota, daemon, bundle):
    device = Device(daemon, "dev-0")
    device.check()
    upload(ota, bundle, "1.1.0")
    good(ota("rollout", "create", "1.1.0", "--model", "box", "--all", "--max-parallel", "1"))
    assert device.check()["update_available"]
    assert Device(daemon, "dev-1").check()["reason"] == "waits_its_turn"
    assert "everything is stopped; 1 waiting" in good(ota("stop-all", "--reason", "smoke"))
    out = good(ota("status"))
    assert "EVERYTHING IS STOPPED since " in out and "  reason        smoke\n" in out
    assert "everything is stopped" in good(ota("explain", "dev-0"))
    assert not device.check()["update_available"]
    assert "already" in good(ota("stop-all", "--reason", "again"))
    assert good(ota("resume-all")) == "everything goes on\n"
    assert "STOPPED" not in good(ota("status"))
    end = time.monotonic() + 60
    while not device.check()["update_available"]:  # its place is free within a second
        assert time.monotonic() < end
        time.sleep(0.1)
    device.update()
    assert "all_stopped" in good(ota("events")) and "reason=smoke" in good(ota("events"))
    assert ota("rejected").stderr == "no rejected messages\n"


def test_alerts(ota, daemon, bundle):
    upload(ota, bundle, "1.1.0")
    assert ota("alerts").stderr == "no alerts\n"
    good(ota("rollout", "create", "1.1.0", "--model", "box", "--all", "--name", "walk",
             "--stages", "10:proven=0:approve,100"))
    end = time.monotonic() + 60
    while "waiting_for_approval" not in (out := ota("alerts").stdout):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert out.splitlines()[1].split()[5] == "open" and "waits for somebody's approval" in out
    assert good(ota("alerts", "--ack", "1", "--reason", "soon")) == "alert 1 is acknowledged\n"
    assert ota("alerts").stdout.splitlines()[1].split()[5] == "seen"
    assert "soon" in good(ota("log", "--type", "alert_acknowledged"))
    assert "  alerts        1 open: paku-ota alerts\n" in good(ota("status"))
    good(ota("rollout", "abort", "walk"))
    while ota("alerts").stdout:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert good(ota("alerts", "--past")).splitlines()[1].split()[5] == "over"
    assert ota("alerts", "--ack", "2").returncode == 1


def test_foresight_and_hindsight(ota, daemon, bundle, tmp_path):
    devices = [Device(daemon, "dev-%d" % n) for n in range(4)]
    upload(ota, bundle, "1.1.0")
    for device in devices:
        device.check()
    stages = ("1.1.0", "--model", "box", "--stages", "50:1h,100:0:approve")
    run = ota("rollout", "plan", *stages)
    out = good(run)
    assert out.startswith("1.1.0\n  model         box\n  devices       4 inside the last stage, 4 seen")
    assert "STAGE  PERCENT" in out and "\nIt is through in about " in out
    assert "! 1 of its stages waits for somebody's approval" in out
    assert good(ota("rollout", "list")) == ""
    told = json.loads(good(ota("rollout", "plan", *stages, "--json")))
    assert told["to_update"] == 4 and len(told["stages"]) == 2
    never = ota("rollout", "plan", "1.1.0", "--model", "box", "--stages", "100:0:proven=9")
    assert "does not come to its end by itself" in good(never)
    assert ota("rollout", "plan", "1.1.0", "--model", "box").returncode == 2
    assert ota("rollout", "plan", "1.1.0", "--model", "box", "--all", "--watch").returncode == 2
    missing = ota("rollout", "plan", "9", "--model", "box", "--all")
    assert missing.returncode == 1 and "upload it first" in missing.stderr

    good(ota("rollout", "create", *stages, "--name", "walk"))
    assert "  eta           It is through in about " in good(ota("rollout", "show", "walk"))
    for device in devices:
        if device.check()["update_available"]:
            device.update(fail="flash | write")
    page = tmp_path / "report.md"
    assert "its picture in %s" % (tmp_path / "report.svg") in good(
        ota("rollout", "report", "walk", "--output", str(page)))
    assert "![Devices by state over time](<report.svg>)" in page.read_text()
    assert "flash \\| write" in page.read_text()
    assert (tmp_path / "report.svg").read_text().startswith("<svg ")
    assert good(ota("rollout", "report", "walk")).startswith("# 1.1.0 for box\n")
    assert json.loads(good(ota("rollout", "report", "walk", "--json")))["name"] == "walk"
    assert good(ota("rollout", "report", "walk", "--format", "svg")).startswith("<svg ")
    clash = ota("rollout", "report", "walk", "--output", str(tmp_path / "a.svg"))
    assert clash.returncode == 2 and "--format svg" in clash.stderr
    nowhere = ota("rollout", "report", "walk", "--output", str(tmp_path / "no" / "report.md"))
    assert nowhere.returncode == 2 and "cannot write" in nowhere.stderr
    assert ota("rollout", "report", "99").returncode == 1

    same = good(ota("policy", "replay", "walk"))
    assert "as soon as they did" in same and "  held up       0 devices" in same
    other = ota("policy", "replay", "--gate", "suspects=0.1,0.5,halt_at=2,max_unproven=9", "walk")
    assert "  this gate     " in good(other)
    told = json.loads(good(ota("policy", "replay", "--gate", "suspects=0.1,0.5", "walk", "--json")))
    assert told["guard"]["suspects"] == [0.1, 0.5]
    for gate, status in (("p0", 2), ("p0=x", 2), ("0.5", 2), ("=1", 2), ("p0=", 2),
                         ("p0=2", 1), ("p1=2", 1), ("suspects=0.5,0.1", 1)):
        assert ota("policy", "replay", "--gate", gate, "walk").returncode == status, gate
