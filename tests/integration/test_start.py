# SPDX-License-Identifier: MIT
"""How the service starts, refuses to, and ends."""
import os
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import tempfile
import threading
import time
from collections import Counter

import pytest
import requests

import images
from service import Service, wait_for

BAD = [
    ("PORT", "x"), ("PORT", "65536"), ("PORT", "-1"), ("PORT", "80 80"), ("PORT", "8080x"),
    ("HOST", "no such host"), ("HOST", "999.1.1.1"),
    ("OTA_PUBLIC_URL", "ota.example.org"), ("OTA_PUBLIC_URL", "ftp://x"),
    ("OTA_PUBLIC_URL", "http://" + "x" * 200), ("OTA_PUBLIC_URL", "http://a b"),
    ("OTA_POLL_INTERVAL_S", "0"), ("OTA_POLL_INTERVAL_S", "5m"),
    ("OTA_INSTALL_GRACE_S", "0"), ("OTA_MAX_FIRMWARE_BYTES", "many"),
    ("OTA_MAX_FIRMWARE_BYTES", "1"), ("OTA_IMAGE_CACHE_BYTES", "-1"),
    ("OTA_MAX_CONNECTIONS", "1"), ("OTA_MAX_CONNECTIONS_PER_ADDRESS", "-1"),
    ("OTA_NEW_DEVICES_PER_SECOND", "0"), ("OTA_MAX_DEVICES", "0"), ("OTA_MAX_QUEUE", "0"),
    ("OTA_LAST_SEEN_FLUSH_S", "0"), ("OTA_IDLE_TIMEOUT_S", "0"), ("OTA_REQUEST_TIMEOUT_S", "0"),
    ("OTA_DOWNLOAD_TIMEOUT_S", "1"), ("OTA_DRAIN_S", "-1"), ("OTA_DRAIN_S", "1e9"),
    ("OTA_HTTP_THREADS", "999"), ("OTA_LOG_LEVEL", "loud"), ("OTA_MQTT", "yes"),
    ("OTA_TRUSTED_PROXIES", "not an address"), ("OTA_TRUSTED_PROXIES", "10.0.0.1,x"),
    ("MQTT_PORT", "-1"), ("MQTT_USER", "without-a-broker"), ("OTA_MQTT_SITE", "a/b"),
    ("OTA_MQTT_CLIENT_ID", "a b"), ("OTA_COMMAND_TIMEOUT_S", "0"),
    ("OTA_DISPATCH_PER_SECOND", "0"), ("OTA_MAX_DOWNLOADS", "0"),
    ("PGHOST", "/nowhere"), ("PGPORT", "many"), ("PGSERVICE", "nobody knows it"),
    ("OTA_API_KEY", "key\n"), ("OTA_API_KEY", " key"), ("OTA_API_KEY", "key "),
    ("OTA_API_KEY", "a\tkey"), ("DATABASE_URL", "postgresql://[x"), ("DATABASE_URL", "postgresql://h/d?sslmode=perhaps"),
]


@pytest.mark.parametrize("name,value", BAD)
def test_a_bad_value_stops_the_start_and_is_named(services, name, value):
    done = services(start=False).run(env={name: value})
    assert done.returncode != 0
    assert name in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_a_setting_that_there_is_not_is_told(services):
    service = services(env={"OTA_MAX_DEVICE": "5", "OTA_SERVICE_URL": "http://x", "OTA_MAX_DEVICES": "5"})
    told = [line for line in service.log().splitlines() if "unknown_setting" in line]
    assert len(told) == 1 and "OTA_MAX_DEVICE " in told[0] and "--help" in told[0]


def test_a_wrong_size_says_how_sizes_are_written(services):
    done = services(start=False).run(env={"OTA_MAX_FIRMWARE_BYTES": "64MB"})
    assert "K, M or G" in done.stderr


def test_help_prints_every_option(services):
    done = services(start=False).run("--help")
    assert done.returncode == 0
    source = open(os.path.join(os.path.dirname(__file__), "../../src/config.c")).read()
    import re
    names = re.findall(r'^\t\{"([A-Z_]+)", (?:NULL|"([A-Z_]+)")', source, re.M)
    assert len(names) > 20
    for name, alias in names:
        assert name in done.stdout
        assert not alias or alias in done.stdout
    for word in ("OTA_API_KEY", "API_KEY", "PORT", "HOST", "FIRMWARE_STORAGE_PATH", "OTA_DATA_DIR",
                 "OTA_PUBLIC_URL", "OTA_MQTT", "--new-key", "--log-format"):
        assert word in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 100


@pytest.mark.parametrize("args,right", [
    (["--nonsense"], "--help"), (["extra"], "--help"), (["--log-format"], "--help"),
    (["--log-format", "xml"], "plain, json"), (["--log-format=xml"], "plain, json")])
def test_unknown_arguments(services, args, right):
    done = services(start=False).run(*args)
    assert done.returncode == 2 and right in done.stderr
    assert args[-1].replace("--log-format=", "") in done.stderr


def test_version(services):
    assert services(start=False).run("--version").stdout.startswith("paku-otad ")


def test_the_key_is_made_shown_once_and_kept(services):
    service = services(key=None)
    key = service.key
    assert len(key) >= 30
    assert service.get("/api/admin/devices").status_code == 200
    assert key not in service.log(), "the key stands in the log"
    for folder, _, names in os.walk(service.data):
        for name in names:
            with open(os.path.join(folder, name), "rb") as f:
                assert key.encode() not in f.read(), "the key stands in " + name
    service.restart()
    assert service.printed_key() is None
    assert service.get("/api/admin/devices").status_code == 200
    mode = os.stat(os.path.join(service.data, "api-key.sha256")).st_mode
    assert stat.S_IMODE(mode) & 0o077 == 0


def test_the_other_name_of_the_key(services):
    service = services(key=None, env={"API_KEY": "another-key"}, start=False)
    service.key = None
    service.extra["API_KEY"] = "another-key"
    service.spawn()
    wait_for(service._started, "the start")
    service.port = int(service._started().group(1))
    service.url = "http://127.0.0.1:%d" % service.port
    service.key = "another-key"
    assert service.get("/api/admin/devices").status_code == 200
    assert service.printed_key() is None
    service.stop()


def test_a_new_key_while_it_runs(services):
    service = services(key=None)
    old = service.key
    # The environment of a service whose key was made has none.
    service.key = None
    done = service.run("--new-key")
    assert done.returncode == 0
    new = done.stdout.split()[-1]
    service.key = new
    wait_for(lambda: service.get("/api/admin/devices").status_code == 200, "the new key")
    service.key = old
    assert service.get("/api/admin/devices").status_code == 401


def test_two_on_one_data_folder(service):
    done = service.run()
    assert done.returncode == 1
    assert service.data in done.stderr and str(service.process.pid) in done.stderr
    assert service.get("/health").status_code == 200


def test_a_port_that_is_taken(services):
    one = services("one")
    done = services("two", start=False).run(env={"PORT": str(one.port)})
    assert done.returncode == 1 and str(one.port) in done.stderr


def test_a_start_that_fails_makes_no_key_that_nobody_saw(services):
    one = services("one")
    two = services("two", key=None, start=False)
    done = two.run(env={"PORT": str(one.port)})
    assert done.returncode == 1 and "API key" not in done.stdout
    two.start()
    assert two.printed_key()
    assert two.get("/api/admin/devices").status_code == 200


def test_a_data_folder_that_cannot_be(services, tmp_path):
    (tmp_path / "file").write_text("")
    service = services(start=False)
    file = str(tmp_path / "file")
    for path, named in ((file, file), (file + "/below", file), ("/proc/no/here", "/proc/no")):
        done = service.run(env={"OTA_DATA_DIR": path})
        assert done.returncode == 1 and named in done.stderr, done.stderr


def test_firmware_storage_path(services, tmp_path):
    where = tmp_path / "images"
    service = services(env={"FIRMWARE_STORAGE_PATH": str(where)})
    service.release(images.esp32("1.0.0"), "1.0.0")
    assert len(os.listdir(where)) == 1
    assert not os.path.exists(service.data + "/firmware")


def test_host_ipv6(services):
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    service = services(env={"HOST": "::1"}, start=False)
    service.spawn()
    port = int(wait_for(lambda: __import__("re").search(r"http://\S*:(\d+),", service.log()),
                        "the start").group(1))
    assert service.session.get("http://[::1]:%d/health" % port).status_code == 200


def database(service):
    return os.path.join(service.data, "paku-ota.db")


def test_a_database_newer_than_the_program(service):
    service.stop()
    with sqlite3.connect(database(service)) as db:
        have, = db.execute("PRAGMA user_version").fetchone()
        db.execute("PRAGMA user_version = %d" % (have + 1 or 99))
    db.close()
    done = service.run()
    assert done.returncode == 1
    assert "newer" in done.stderr and database(service) in done.stderr


@pytest.mark.parametrize("damage", ["garbage", "head", "middle", "empty folder in its place"])
def test_a_corrupt_database_is_named_with_what_to_do(service, damage):
    for i in range(300):
        service.check("device-%d" % i, mac="aa:bb:cc:00:%02x:%02x" % (i >> 8, i & 255))
    service.stop()
    path = database(service)
    for end in ("-wal", "-shm"):
        if os.path.exists(path + end):
            os.remove(path + end)
    size = os.path.getsize(path)
    if damage == "garbage":
        with open(path, "wb") as f:
            f.write(os.urandom(8192))
    elif damage == "empty folder in its place":
        os.remove(path)
        os.mkdir(path)
    else:
        with open(path, "r+b") as f:
            f.seek(0 if damage == "head" else 4096)
            f.write(os.urandom(100 if damage == "head" else size - 4096))
    done = service.run()
    assert done.returncode == 1, done.stderr
    assert path in done.stderr
    if damage != "empty folder in its place":
        assert "backup" in done.stderr
    assert done.stderr.count("paku-otad:") == 1


def as_nobody():
    """Root may write everything; the service runs as somebody who may not."""
    os.setgid(65534)
    os.setuid(65534)


@pytest.mark.skipif(os.geteuid() != 0, reason="changing the user needs root")
def test_a_database_that_is_read_only():
    # Not in a folder of pytest's, whose parents it keeps for its own user.
    with tempfile.TemporaryDirectory() as folder:
        service = Service(folder).start()
        service.stop()
        os.chmod(folder, 0o755)
        os.chmod(service.data, 0o777)
        for name in os.listdir(service.data):
            path = os.path.join(service.data, name)
            os.chmod(path, 0o777 if os.path.isdir(path) else 0o666)
        os.chmod(database(service), 0o444)
        done = subprocess.run([service.program], capture_output=True, text=True, timeout=30,
                              env=service.environment(), preexec_fn=as_nobody)
    assert done.returncode == 1
    assert database(service) in done.stderr and "read-only" in done.stderr


def test_a_database_that_somebody_locks(service):
    service.stop()
    db = sqlite3.connect(database(service), isolation_level=None)
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("BEGIN EXCLUSIVE")
    db.execute("CREATE TABLE x (y)")
    done = service.run()
    db.execute("ROLLBACK")
    db.close()
    assert done.returncode == 1
    assert "locked" in done.stderr and database(service) in done.stderr
    assert "fuser" in done.stderr
    service.start()


def test_orphans_are_swept_at_the_start(service):
    service.release(images.esp32("1.0.0"), "1.0.0")
    kept = service.firmware_files()
    service.stop()
    folder = os.path.join(service.data, "firmware")
    for name in (".upload-0123456789abcdef", "0" * 64 + ".bin"):
        with open(os.path.join(folder, name), "wb") as f:
            f.write(b"half")
    with open(os.path.join(folder, "README"), "w") as f:
        f.write("not ours")
    service.start()
    assert service.firmware_files() == sorted(kept + ["README"])


def test_images_of_another_database_stay(services, tmp_path):
    """The folder is the right one and the database is not: started by hand without the settings, or
    moved away."""
    where = {"FIRMWARE_STORAGE_PATH": str(tmp_path / "images")}
    one = services("one", env=where)
    one.release(images.esp32("1.0.0"), "1.0.0")
    one.stop()
    kept = os.listdir(tmp_path / "images")
    other = services("other", env=where)
    assert "images_unknown" in other.log() and str(tmp_path / "images") in other.log()
    other.stop()
    assert os.listdir(tmp_path / "images") == kept
    one.start()
    assert one.get("/api/firmware/download/1.0.0").status_code == 200


def test_an_image_that_is_missing_is_told_at_the_start(service):
    kept = service.release(images.esp32("1.0.0"), "1.0.0")
    for version, damage in (("1.1.0", os.remove), ("1.2.0", lambda path: os.truncate(path, 9))):
        lost = service.release(images.esp32(version), version)
        damage(os.path.join(service.data, "firmware", lost["checksum_sha256"] + ".bin"))
    service.restart()
    told = [line for line in service.log().splitlines() if "image_missing" in line]
    assert [v for line in told for v in ("1.0.0", "1.1.0", "1.2.0") if "release/" + v in line] \
        == ["1.2.0", "1.1.0"]
    assert all("upload it again" in line for line in told)
    assert kept["checksum_sha256"] not in "".join(told)


class SlowDownload(threading.Thread):
    """Takes an image at the speed of a bad link: BYTES now and then, or none after the first."""

    def __init__(self, service, bytes_):
        super().__init__()
        self.service, self.bytes = service, bytes_
        self.got, self.begun, self.enough = 0, threading.Event(), threading.Event()
        self.start()
        assert self.begun.wait(10)

    def run(self):
        with self.service.connect() as s:
            s.sendall(b"GET /api/firmware/download/1 HTTP/1.1\r\nHost: x\r\n"
                      b"Connection: close\r\n\r\n")
            while chunk := s.recv(self.bytes or 1000):
                self.got += len(chunk)
                self.begun.set()
                if self.enough.wait(0.005 if self.bytes else 60):
                    return


@pytest.fixture
def draining(services):
    def make(drain_s, size):
        service = services(env={"OTA_DRAIN_S": drain_s})
        service.release(images.big(size), "1", "pi")
        return service
    return make


def test_sigterm_lets_downloads_end(draining):
    size = 24 << 20
    service = draining(30, size)
    slow = SlowDownload(service, 65536)
    service.signal()
    wait_for(lambda: "stopping" in service.log(), "the end to begin")
    wait_for(lambda: turned_away(service), "new requests to be turned away")
    assert slow.got < size
    assert service.wait() == 0
    slow.join()
    assert slow.got > size, "the download was cut"


def turned_away(service):
    answer = requests.get(service.url + "/health", timeout=10)
    if answer.status_code == 200:
        return False
    assert answer.status_code == 503
    assert "shutting down" in answer.json()["detail"]
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.headers["Connection"] == "close"
    return True


def test_a_request_on_a_connection_made_before_the_end_is_answered(draining):
    service = draining(60, 32 << 20)
    slow = SlowDownload(service, 0)
    before = service.ok("GET", "/metrics")["http_connections"]
    with service.connect() as s:
        wait_for(lambda: service.ok("GET", "/metrics")["http_connections"] == before + 1,
                 "the connection to be taken")
        service.signal()
        wait_for(lambda: turned_away(service), "new requests to be turned away")
        s.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert s.recv(4096).startswith(b"HTTP/1.1 503 ")
    service.signal()
    assert service.wait() == 0
    slow.enough.set()
    slow.join()


def test_sigterm_ends_within_the_drain_time(draining):
    service = draining(1, 32 << 20)
    slow = SlowDownload(service, 0)
    begun = time.monotonic()
    service.signal()
    assert service.wait() == 0
    assert time.monotonic() - begun < 30
    assert "downloads_cut 1 had not ended" in service.log()
    slow.enough.set()
    slow.join()


def test_a_second_signal_ends_at_once(draining):
    service = draining(60, 32 << 20)
    slow = SlowDownload(service, 0)
    service.signal(signal.SIGINT)
    wait_for(lambda: turned_away(service), "the end to begin")
    begun = time.monotonic()
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert time.monotonic() - begun < 30
    slow.enough.set()
    slow.join()


def test_sigterm_without_requests_is_quick(service):
    with service.connect():
        begun = time.monotonic()
        service.signal()
        assert service.wait() == 0
        assert time.monotonic() - begun < 10


def test_it_ends_well_while_devices_go_on_asking(service):
    """Each of them has a whole answer, or none at all: told to come again, or let go."""
    over, answers = threading.Event(), Counter()

    def ask(number):
        while not over.is_set():
            try:
                answer = requests.get(service.url + "/api/firmware/check", timeout=30, params={
                    "device_id": "d%d" % number, "device_model": "pi", "current_version": "1"})
                answers[answer.status_code] += 1
                answer.json()
            except requests.ConnectionError:
                answers["none"] += 1

    for _ in range(5):
        over.clear()
        askers = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
        for asker in askers:
            asker.start()
        before = answers[200]
        wait_for(lambda: answers[200] > before + 20, "devices to be answered")
        service.signal()
        try:
            assert service.wait() == 0
        finally:
            over.set()
            for asker in askers:
                asker.join()
        assert set(answers) <= {200, 503, "none"}, answers
        service.start()


def test_a_body_that_never_ends_does_not_hold_the_end(service):
    """Its last byte comes when the service is past waiting for it."""
    with service.connect() as s:
        s.sendall(b"POST /api/device/d1/update-status HTTP/1.1\r\nHost: x\r\n"
                  b"Content-Length: 100\r\n\r\n{")
        wait_for(lambda: service.ok("GET", "/metrics")["http_requests_total"] >= 2, "the request")
        service.signal()
        assert service.wait() == 0
    service.start()
    assert service.list("updates") == []


def test_a_request_under_way_is_answered(service):
    """The body is still on its way when the service is told to end."""
    body = b'{"device_id":"d1","firmware_version":"1","status":"failed"}'
    with service.connect() as s:
        s.sendall(b"POST /api/device/d1/update-status HTTP/1.1\r\nHost: x\r\n"
                  b"Content-Length: %d\r\n\r\n" % len(body) + body[:10])
        wait_for(lambda: service.ok("GET", "/metrics")["http_requests_total"] >= 2, "the request")
        service.signal()
        wait_for(lambda: "stopping" in service.log(), "the end to begin")
        s.sendall(body[10:])
        assert s.recv(1000).startswith(b"HTTP/1.1 200")
    assert service.wait() == 0
    service.start()
    assert service.list("updates")[0]["status"] == "failed"


def test_the_data_folder_can_be_copied_when_it_stands(service, services, tmp_path):
    service.release(images.esp32("1.0.0"), "1.0.0")
    service.check("d1")
    service.stop()
    other = services("other", start=False)
    shutil.copytree(service.data, other.data)
    other.start()
    assert [d["device_id"] for d in other.list("devices")] == ["d1"]
    assert other.session.get(other.url + "/api/firmware/download/1.0.0").status_code == 200
