# SPDX-License-Identifier: MIT
"""The processes of a measurement: the service, its peers and the load, each on its core.

Servers run on core 0, load on core 1 (on a machine with one core: all on it, and the report says
so).  Every server listens on 127.0.0.1 only and is ended by the block that started it.
"""
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

BENCH = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(BENCH)
BUILD = os.path.join(ROOT, "build-bench")
KEY = "bench-key-0123456789"
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]


class Failed(Exception):
    """A measurement that cannot be trusted, with the reason."""


def pinned(core, *argv):
    return ["taskset", "-c", str(core), *map(str, argv)]


def program(name):
    folder = {"paku-otad": "src", "paku-fleet": "fleet-sim"}.get(name, "bench")
    return os.path.join(BUILD, folder, name)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def anonymous_mb(pid):
    """RssAnon: memory of its own, not the files it maps (MB are 10^6 bytes)."""
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        for line in f:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024 / 1e6
    raise Failed("/proc tells no RssAnon")


def load(*argv, timeout=600):
    """Runs a load or loop program, by default on the load's core; its JSON line."""
    run = subprocess.run(pinned(LOAD_CORE, *argv), capture_output=True, text=True, timeout=timeout)
    if run.returncode != 0:
        raise Failed(f"{os.path.basename(argv[0])}: {run.stderr.strip()}")
    return json.loads(run.stdout)


def bench_load(port, *argv, timeout=600):
    return load(program("bench-load"), port, *argv, timeout=timeout)


def wrk(port, path, script, seconds, connections, *args):
    out = subprocess.run(
        pinned(LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s",
               "-s", os.path.join(BENCH, script), f"http://127.0.0.1:{port}{path}", "--", *args),
        capture_output=True, text=True, timeout=seconds + 60)
    lines = [l for l in out.stdout.splitlines() if l.startswith("RESULT ")]
    if not lines:
        raise Failed(f"wrk: {out.stderr.strip() or out.stdout.strip()}")
    result = json.loads(lines[0][7:])
    if result["bad"] or result["broken"]:
        raise Failed(f"wrk: {result['bad']} answers that are not 2xx, "
                     f"{result['broken']} broken connections")
    return result["requests"] / result["seconds"]


def request(port, method, path, body=None, headers=None, key=False):
    """One request on a connection of its own: status, headers, body."""
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    h = dict(headers or {})
    if key:
        h["X-API-Key"] = KEY
    try:
        c.request(method, path, body, h)
        r = c.getresponse()
        return r.status, r.headers, r.read()
    finally:
        c.close()


class Process:
    def __init__(self, argv, env=None, log=None, cwd=None):
        self.log = open(log, "ab") if log else subprocess.DEVNULL
        self.process = subprocess.Popen(pinned(SERVER_CORE, *argv), env=env, stdout=self.log,
                                        stderr=self.log, cwd=cwd)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.log is not subprocess.DEVNULL:
            self.log.close()

    def anonymous_mb(self):
        return anonymous_mb(self.process.pid)


class Service(Process):
    """paku-otad on a data folder; ready when it has answered once."""

    def __init__(self, folder, **options):
        os.makedirs(folder, exist_ok=True)
        self.folder, self.port = folder, options.get("PORT") or free_port()
        self.log_path = os.path.join(folder, "log")
        env = {"PATH": os.environ["PATH"], "HOST": "127.0.0.1", "PORT": str(self.port),
               "OTA_API_KEY": KEY, "OTA_DATA_DIR": folder, "OTA_MQTT": "off",
               # No offer lapses in the middle of a measurement.
               "OTA_POLL_INTERVAL_S": "86400"}
        env.update({k: str(v) for k, v in options.items()})
        begun = time.monotonic()
        super().__init__([program("paku-otad")], env, self.log_path)
        self.start_s = self.wait_ready(begun)

    def wait_ready(self, begun):
        """Seconds until the first check-in was answered."""
        path = ("/api/firmware/check?device_id=bench-0000000&device_model=esp32"
                "&current_version=1.0.0")
        while time.monotonic() < begun + 60:
            if self.process.poll() is not None:
                break
            try:
                status, _, _ = request(self.port, "GET", path)
                if status == 200:
                    return time.monotonic() - begun
            except OSError:
                time.sleep(0.001)
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            tail = f.read()[-500:]
        self.stop()
        raise Failed(f"paku-otad does not answer: {tail}")


class MqttService(Service):
    """With its own broker, on a free port: connected."""

    def __init__(self, folder, **options):
        # Nobody is told again in the middle of a measurement.
        super().__init__(folder, **{"OTA_MQTT": "on", "MQTT_PORT": 0,
                                    "OTA_COMMAND_TIMEOUT_S": 3600, **options})
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with open(self.log_path, encoding="utf-8", errors="replace") as f:
                found = re.search(r" broker [^:]*:(\d+), command URLs", f.read())
            if found and b'"connected since' in request(self.port, "GET", "/health")[2]:
                self.mqtt_port = int(found.group(1))
                return
            time.sleep(0.02)
        self.stop()
        raise Failed("paku-otad does not connect to its broker")


class Mosquitto(Process):
    """The peer's broker: with the configuration that a service wrote, on another port."""

    FILES = ("mosquitto.conf", "acl", "passwords")

    def __init__(self, folder, conf_folder):
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        self.port = free_port()
        for name in self.FILES:
            with open(os.path.join(conf_folder, name), encoding="utf-8") as f:
                text = re.sub(r"(?m)^listener \d+", f"listener {self.port}", f.read())
            with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
                f.write(text)
        if os.geteuid() == 0:  # it becomes another user, as the service's does
            for name in ("", *self.FILES):
                shutil.chown(os.path.join(folder, name), "mosquitto", "mosquitto")
        path = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        super().__init__([path, "-c", "mosquitto.conf"], log=os.path.join(folder, "log"),
                         cwd=folder)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                time.sleep(0.02)
        self.stop()
        raise Failed("mosquitto does not answer")


class Beside:
    """A program that runs beside what is measured, on CORE; its JSON line."""

    def __init__(self, core, *argv):
        self.name = os.path.basename(argv[0])
        self.process = subprocess.Popen(pinned(core, *argv), stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)

    def await_ready(self):
        if self.process.stdout.readline() != "ready\n":
            raise Failed(f"{self.name}: {self.process.stderr.read().strip()}")

    def result(self, timeout=120):
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as e:
            raise Failed(f"{self.name} does not end") from e
        if self.process.returncode != 0:
            raise Failed(f"{self.name}: {err.strip()}")
        return json.loads(out)

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            pipe.close()


NGINX_CONF = """
daemon off;
user root;
worker_processes 1;
pid {dir}/nginx.pid;
error_log {dir}/error.log error;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  keepalive_timeout 300;
  open_file_cache max=16;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location /api/ {{ default_type application/json; return 200 '{body}'; }}
    location /image/ {{ default_type application/octet-stream; root {dir}; }}
  }}
}}
"""


class Nginx(Process):
    """The peer: one worker on the same core, `return 200` with BODY, and files under /image/."""

    def __init__(self, folder, body=""):
        os.makedirs(os.path.join(folder, "image"), exist_ok=True)
        self.port = free_port()
        conf = os.path.join(folder, "nginx.conf")
        with open(conf, "w", encoding="ascii") as f:
            f.write(NGINX_CONF.format(dir=folder, port=self.port, body=body))
        path = shutil.which("nginx") or "/usr/sbin/nginx"
        super().__init__([path, "-c", conf, "-p", folder], log=os.path.join(folder, "log"))
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                request(self.port, "GET", "/api/")
                return
            except OSError:
                time.sleep(0.02)
        self.stop()
        raise Failed("nginx does not answer")


@contextlib.contextmanager
def running(process):
    try:
        yield process
    finally:
        process.stop()


# --- databases ---

class Fleets:
    """Databases with a fleet in them, made once and copied for each use."""

    def __init__(self, folder):
        self.folder = folder
        self.made = {}

    def folder_with(self, name, devices, plan):
        """A new data folder with a copy of the database."""
        source = self.made.get((devices, plan))
        if not source:
            source = os.path.join(self.folder, f"fleet-{devices}-{plan}.db")
            run = subprocess.run([program("bench-fill"), source, str(devices), plan],
                                 capture_output=True, text=True, check=False)
            if run.returncode != 0:
                raise Failed(run.stderr.strip())
            self.made[(devices, plan)] = source
        target = os.path.join(self.folder, name)
        shutil.rmtree(target, ignore_errors=True)
        os.makedirs(target)
        copy = os.path.join(target, "paku-ota.db")
        shutil.copyfile(source, copy)
        # On the disk before the measurement, so that nobody's fsync pays for it.
        fd = os.open(copy, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        return target
