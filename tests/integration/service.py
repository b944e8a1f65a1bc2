# SPDX-License-Identifier: MIT
"""A real paku-otad on real sockets, owned by the test that started it.

`Service` starts the program on a free port with a data folder of its own and ends it again.  What
it printed is kept; a sanitizer's report or a crash fails the test that ends the service.
"""
import http.client
import os
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import time

import requests

import postgres

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("PAKU_BUILD", os.path.join(ROOT, "build"))
PROGRAM = os.path.join(BUILD, "src", "paku-otad")
KEY = "a-test-key"
START_S = 60
STORE = os.environ.get("PAKU_STORE", "sqlite")  # what services keep their rows in
REPORTS = ("AddressSanitizer", "LeakSanitizer", "ThreadSanitizer", "UndefinedBehaviorSanitizer",
           "runtime error:", "Assertion", "double free", "corrupted")


def wait_for(condition, what, timeout_s=60, every_s=0.02):
    """Until CONDITION answers something true, which is returned."""
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, "waited %s s for: %s" % (timeout_s, what)
        time.sleep(every_s)


class Service:
    def __init__(self, folder, env=None, key=KEY, args=(), program=PROGRAM, pass_fds=(),
                 store=STORE):
        assert os.path.exists(program), \
            "%s is not built; PAKU_BUILD names the build directory" % program
        self.folder = str(folder)
        self.data = os.path.join(self.folder, "data")
        self.program = program
        self.args = list(args)
        self.key = key
        self.pass_fds = pass_fds
        self.extra = dict(env or {})
        self.schema = None  # in PostgreSQL
        if store == "postgresql":
            self.schema = postgres.cluster().schema()
            self.extra = {**postgres.cluster().environment(self.schema), **self.extra}
        self.process = None
        self.port = None
        self.session = requests.Session()
        self.session.trust_env = False
        self.log_path = os.path.join(self.folder, "log")
        self.out_path = os.path.join(self.folder, "out")
        os.makedirs(self.folder, exist_ok=True)

    # --- the process ---

    def environment(self):
        env = {"PATH": os.environ["PATH"], "HOME": self.folder, "LANG": "C.UTF-8",
               "HOST": "127.0.0.1", "PORT": "0", "OTA_DATA_DIR": self.data, "OTA_MQTT": "off"}
        if self.key:
            env["OTA_API_KEY"] = self.key
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LSAN_OPTIONS"):
            if name in os.environ:
                env[name] = os.environ[name]
        env.update({k: str(v) for k, v in self.extra.items()})
        return env

    def spawn(self, *args, env=None):
        """Starts the program and does not wait for anything."""
        self.log_from = os.path.getsize(self.log_path) if os.path.exists(self.log_path) else 0
        self.out_from = os.path.getsize(self.out_path) if os.path.exists(self.out_path) else 0
        with open(self.log_path, "ab") as log, open(self.out_path, "ab") as out:
            self.process = subprocess.Popen([self.program, *self.args, *args], stdout=out,
                                            stderr=log, stdin=subprocess.DEVNULL, pass_fds=self.pass_fds,
                                            env={**self.environment(), **(env or {})})
        return self.process

    def run(self, *args, env=None, timeout=30):
        """The program run to its end: for starts that are refused, --help and --new-key."""
        return subprocess.run([self.program, *self.args, *args], capture_output=True, text=True,
                              env={**self.environment(), **(env or {})}, timeout=timeout)

    def start(self):
        self.spawn()
        self.port = int(wait_for(self._started, "the service to start", START_S).group(1))
        self.url = "http://127.0.0.1:%d" % self.port
        if not self.key:
            self.key = self.printed_key()
        wait_for(self._answers, "/health to answer")
        return self

    def _started(self):
        assert self.process.poll() is None, \
            "the service ended at its start (%s):\n%s" % (self.process.returncode, self.log())
        return re.search(r"started version \S+ on http://\S*:(\d+),", self.log(self.log_from))

    def _answers(self):
        try:
            return self.session.get(self.url + "/health", timeout=5)
        except requests.ConnectionError:
            return None

    def printed_key(self):
        with open(self.out_path) as out:
            out.seek(self.out_from)
            found = re.search(r"^API key: (\S+)$", out.read(), re.M)
        return found.group(1) if found else None

    def log(self, since=0):
        with open(self.log_path, "rb") as log:
            log.seek(since)
            return log.read().decode("utf-8", "replace")

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self, timeout=60):
        code = self.process.wait(timeout)
        self.process = None
        self.check_log()
        return code

    def stop(self):
        """Ends it as an operator does, and looks whether it ended well."""
        if self.process is None:
            return
        # A connection kept for the next request is idle: the service closes it.
        self.signal()
        try:
            code = self.wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the service did not end within 60 s of SIGTERM:\n" + self.log())
        assert code == 0, "the service ended with %d:\n%s" % (code, self.log())

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None
        self.check_log()

    def restart(self):
        self.stop()
        return self.start()

    def check_log(self):
        text = self.log()
        for word in REPORTS:
            assert word not in text, text

    def memory_kib(self, field="RssAnon"):
        with open("/proc/%d/status" % self.process.pid) as status:
            return int(re.search(r"^%s:\s+(\d+) kB" % field, status.read(), re.M).group(1))

    # --- the rows ---

    def sql(self, text):
        """Statements, while the service is stopped."""
        if self.schema:
            return postgres.cluster().psql(text, self.schema)
        db = sqlite3.connect(os.path.join(self.data, "paku-ota.db"))
        db.executescript(text)
        return db.close()

    def sql_bytes(self, data):
        return ("'\\x%s'" if self.schema else "x'%s'") % data.hex()

    # --- requests ---

    def request(self, method, path, headers=None, timeout=60, **more):
        return self.session.request(method, self.url + path, timeout=timeout,
                                    headers={"X-API-Key": self.key, **(headers or {})}, **more)

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def post(self, path, **more):
        return self.request("POST", path, **more)

    def put(self, path, **more):
        return self.request("PUT", path, **more)

    def delete(self, path, **more):
        return self.request("DELETE", path, **more)

    def ok(self, method, path, **more):
        answer = self.request(method, path, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def list(self, name, **params):
        path = {"updates": "update-status", "releases": "firmware/releases"}.get(name, name)
        return self.ok("GET", "/api/admin/" + path, params=params)[name]

    def upload(self, image, version, model="esp32", **params):
        return self.post("/api/admin/firmware/upload", files={"file": ("firmware.bin", image)},
                         params={"version": version, "device_model": model, **params})

    def release(self, image, version, model="esp32", **params):
        answer = self.upload(image, version, model, **params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def rollout(self, version, model="esp32", target_type="all", name=None, **fields):
        body = {"name": name or "%s-%s-%s" % (model, version, target_type), "device_model": model,
                "firmware_version": version, "target_type": target_type, **fields}
        return self.ok("POST", "/api/admin/rollout/create", json=body)["rollout_id"]

    def check(self, device_id, version="1.0.0", model="esp32", **params):
        answer = self.session.get(self.url + "/api/firmware/check", timeout=60, params={
            "device_id": device_id, "device_model": model, "current_version": version, **params})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def report(self, device_id, version, status, **fields):
        answer = self.session.post(
            self.url + "/api/device/%s/update-status" % device_id, timeout=60,
            json={"device_id": device_id, "firmware_version": version, "status": status, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def explain(self, device_id):
        return self.ok("GET", "/api/admin/devices/%s/explain" % device_id)

    def connect(self, timeout=30, source=None):
        s = socket.socket()
        s.settimeout(timeout)
        if source:
            s.bind((source, 0))
        s.connect(("127.0.0.1", self.port))
        return s

    def raw(self, data, method="GET", timeout=30):
        """Bytes as they are; the answer, read to its end, or None when there was none."""
        with self.connect(timeout) as s:
            try:
                s.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                pass
            return read_answer(s, method)

    def firmware_files(self):
        return sorted(os.listdir(os.path.join(self.data, "firmware")))


class Answer:
    def __init__(self, response, body):
        self.status = response.status
        self.version = response.version
        self.headers = response.headers
        self.body = body
        self.will_close = response.will_close

    def json(self):
        import json
        return json.loads(self.body)


def read_answer(sock, method="GET"):
    response = http.client.HTTPResponse(sock, method=method)
    try:
        response.begin()
        return Answer(response, response.read())
    except (http.client.BadStatusLine, ConnectionResetError):
        return None
    finally:
        response.close()


def raise_file_limit(wanted):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted and os.geteuid() == 0:
        hard = wanted
    soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft
