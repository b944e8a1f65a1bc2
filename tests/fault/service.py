# SPDX-License-Identifier: MIT
"""A paku-otad that a test owns: started, asked, killed, started again on the same folder."""
import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time
import uuid

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("PAKU_BUILD", os.path.join(ROOT, "build"))
PROGRAM = os.path.join(BUILD, "src", "paku-otad")
SHIM = os.path.join(BUILD, "tests", "fault", "paku-fault-shim.so")
SANITIZED = bool(os.environ.get("PAKU_FAULT_SANITIZED"))
KEY = "fault-test-key"
START_TIMEOUT_S = 60
ANSWER_TIMEOUT_S = 30


class Answer:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return "<%d %s>" % (self.status, self.body[:300])


class Closed:
    """No answer: the connection ended."""
    status = 0

    def __repr__(self):
        return "<closed>"


class Service:
    def __init__(self, folder, faults=None, **env):
        self.data = folder / "data"
        self.log_path = folder / "log"
        self.data.mkdir(parents=True, exist_ok=True)
        self.faults = faults
        self.env = {
            "PATH": os.environ["PATH"],
            "PORT": "0",
            "HOST": "127.0.0.1",
            "OTA_API_KEY": KEY,
            "OTA_DATA_DIR": str(self.data),
            "OTA_MQTT": "off",
            "OTA_HTTP_THREADS": "2",
            "OTA_LOG_LEVEL": "info",
            "MALLOC_PERTURB_": "165",  # what is freed is not readable any more
        }
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"):
            if name in os.environ:
                self.env[name] = os.environ[name]
        if SANITIZED:
            # Whatever a sanitizer finds ends the process with a code of its own.
            for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS"):
                more = "exitcode=99:halt_on_error=1:verify_asan_link_order=0"
                self.env[name] = self.env[name] + ":" + more if name in self.env else more
        self.env.update({k: str(v) for k, v in env.items()})
        self.process = None
        self.port = None
        self.killed = threading.Event()  # set before, not after: nobody is surprised by the end

    @property
    def db(self):
        return self.data / "paku-ota.db"

    @property
    def firmware(self):
        return self.data / "firmware"

    # --- life ---

    def start(self):
        assert os.path.exists(PROGRAM), "%s is not built; PAKU_BUILD names the build" % PROGRAM
        self.killed.clear()
        env = dict(self.env)
        if self.faults:
            assert os.path.exists(SHIM), "%s is not built" % SHIM
            env.update(self.faults.environment(self.data))
        log = open(self.log_path, "ab")
        begin = log.tell()
        self.process = subprocess.Popen([PROGRAM], env=env, stdin=subprocess.DEVNULL, stdout=log,
                                        stderr=log)
        log.close()
        end = time.monotonic() + START_TIMEOUT_S
        while True:
            with open(self.log_path, "rb") as f:
                f.seek(begin)
                found = re.search(rb"started.*http://127\.0\.0\.1:(\d+)", f.read())
            if found:
                break
            assert self.process.poll() is None, "the service did not start:\n" + self.log()
            assert time.monotonic() < end, "the service takes too long to start:\n" + self.log()
            time.sleep(0.005)
        self.port = int(found.group(1))
        return self

    def kill(self):
        """As a power cut does, except that the kernel keeps what it was given."""
        assert self.process.poll() is None, "the service ended by itself:\n" + self.log()
        self.killed.set()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def restart(self):
        self.kill()
        self.start()

    def stop(self):
        """The ordinary end, which must be a clean one."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the service did not end on SIGTERM:\n" + self.log())
        assert code == 0, "the service ended with %d:\n%s" % (code, self.log())

    def check_alive(self):
        assert self.process.poll() is None, \
            "the service ended with %s:\n%s" % (self.process.returncode, self.log())

    def log(self, last=6000):
        with open(self.log_path, "rb") as f:
            return f.read()[-last:].decode("utf-8", "replace")

    def open_files(self):
        folder = "/proc/%d/fd" % self.process.pid
        found = []
        for name in os.listdir(folder):
            try:
                found.append(os.readlink(os.path.join(folder, name)))
            except FileNotFoundError:
                pass
        return found

    # --- requests, each on a connection of its own as ESP devices have it ---

    def ask(self, method, path, body=None, headers=None, timeout=ANSWER_TIMEOUT_S):
        """The answer, or Closed.  A service that keeps silent is an error of the test."""
        headers = dict(headers or {})
        if path.startswith("/api/admin/"):
            headers.setdefault("X-API-Key", KEY)
        if isinstance(body, dict):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        headers["Connection"] = "close"
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            c.request(method, path, body=body, headers=headers)
            r = c.getresponse()
            return Answer(r.status, r.headers, r.read())
        except TimeoutError:
            raise AssertionError("%s %s: no answer in %d s" % (method, path, timeout))
        except (http.client.HTTPException, OSError):
            return Closed()
        finally:
            c.close()

    def get(self, path, **kw):
        return self.ask("GET", path, **kw)

    def check(self, device, model, version, **kw):
        path = "/api/firmware/check?device_id=%s&device_model=%s&current_version=%s"
        return self.get(path % (device, model, version), **kw)

    def report(self, device, version, status, attempt=None, **fields):
        body = dict(fields, device_id=device, firmware_version=version, status=status)
        if attempt:
            body["attempt_id"] = attempt
        return self.ask("POST", "/api/device/%s/update-status" % device, body)

    def upload(self, model, version, image, image_type="raw"):
        edge = uuid.uuid4().hex
        head = ('--%s\r\nContent-Disposition: form-data; name="file"; filename="firmware.bin"\r\n'
                "Content-Type: application/octet-stream\r\n\r\n" % edge)
        path = "/api/admin/firmware/upload?version=%s&device_model=%s&image_type=%s"
        return self.ask("POST", path % (version, model, image_type),
                        head.encode() + image + ("\r\n--%s--\r\n" % edge).encode(),
                        {"Content-Type": "multipart/form-data; boundary=" + edge})

    def rollout(self, name, model, version, target_type="all", **fields):
        body = dict(fields, name=name, firmware_version=version, device_model=model,
                    target_type=target_type)
        return self.ask("POST", "/api/admin/rollout/create", body)

    def deactivate(self, rollout_id):
        return self.ask("POST", "/api/admin/rollout/%d/deactivate" % rollout_id)

    def download(self, model, version):
        return self.get("/api/firmware/download/%s?device_model=%s" % (version, model))

    def list(self, what, query=""):
        """All rows of a list, page by page."""
        path = {"releases": "firmware/releases"}.get(what, what)
        key = {"update-status": "updates"}.get(what, what)
        rows, cursor = [], None
        while True:
            a = self.get("/api/admin/%s?limit=1000%s%s"
                         % (path, query, "&cursor=%s" % cursor if cursor else ""))
            assert a.status == 200, a
            rows += a.json[key]
            cursor = a.json["next_cursor"]
            if cursor is None:
                return rows

    def metrics(self):
        a = self.get("/metrics")
        assert a.status == 200, a
        return a.json


class Crew:
    """Threads that work until told to end; the first error of any of them is the test's."""

    def __init__(self):
        self.ending = threading.Event()
        self.threads = []
        self.errors = []

    def add(self, work, *args):
        def run():
            try:
                work(*args)
            except BaseException as e:  # the test's thread raises it again
                self.errors.append(e)
                self.ending.set()

        self.threads.append(threading.Thread(target=run, daemon=True))

    def start(self):
        for t in self.threads:
            t.start()

    def end(self):
        self.ending.set()
        for t in self.threads:
            t.join(60)
            assert not t.is_alive(), "a client hangs"
        if self.errors:
            raise self.errors[0]
