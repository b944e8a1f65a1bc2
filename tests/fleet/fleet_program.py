# SPDX-License-Identifier: MIT
"""paku-fleet as tests run it, a broker of their own, and a stand-in for the service."""
import hashlib
import http.server
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.parse

from cli_terminal import Terminal
from service import BUILD, wait_for

PROGRAM = os.path.join(BUILD, "fleet-sim", "paku-fleet")


class Fleet:
    """The program with a clean environment: no login, nothing of the caller's."""

    def __init__(self, home):
        assert os.path.exists(PROGRAM), "%s is not built; PAKU_BUILD names the folder" % PROGRAM
        self.home, self.running = home, []
        # Flashing and starting take no time here: what the tests are about is what is said.
        self.quick = home / "quick.json"
        self.quick.write_text('{"install_s": [0.05, 0.2], "reboot_s": [0.05, 0.2]}')

    def environment(self, service=None, **more):
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8",
               "TERM": "xterm"}
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS"):
            if name in os.environ:
                env[name] = os.environ[name]
        if service:
            env["OTA_SERVICE_URL"] = service.url
        if service and service.key:
            env["OTA_API_KEY"] = service.key
        return {**env, **more}

    def start(self, *args, service=None, **env):
        process = subprocess.Popen([PROGRAM, *self.arguments(args)], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
                                   env=self.environment(service, **env))
        self.running.append(process)
        return process

    def arguments(self, args):
        if args[:1] == ("run",) and "--scenario" not in args:
            args += ("--scenario", self.quick)
        return [str(a) for a in args]

    def __call__(self, *args, service=None, timeout=120, **env):
        process = self.start(*args, service=service, **env)
        process.out, process.err = process.communicate(timeout=timeout)
        return process

    def json(self, *args, status=0, **more):
        """Runs it with --json; the summary."""
        done = self(*args, "--json", **more)
        assert done.returncode == status, done.out + done.err
        return json.loads(done.out)

    def on_terminal(self, *args, service=None):
        return Terminal([PROGRAM, *self.arguments(args)], self.environment(service), 100, 30)

    def close(self):
        for process in self.running:
            if process.poll() is None:
                process.kill()
                process.wait()


class Broker:
    """A mosquitto of the test's own, on a free port of loopback."""

    def __init__(self, folder, lines=("allow_anonymous true",), listener=()):
        self.folder, self.process = folder, None
        folder.mkdir()
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.place = "127.0.0.1:%d" % self.port
        (folder / "conf").write_text("\n".join([
            "listener %d 127.0.0.1" % self.port, *listener, "max_inflight_messages 0",
            "max_queued_messages 0", *lines, ""]))

    def start(self):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                ["/usr/sbin/mosquitto", "-c", str(self.folder / "conf")], stdout=log, stderr=log)
        wait_for(self._answers, "the broker to listen")
        return self

    def _answers(self):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)
        self.process = None


class FakeService:
    """Answers as a test wants: `checks` are used up one by one, then there is no update."""

    key = None

    def __init__(self):
        self.checks, self.seen, self.reports = [], [], []
        self.image = bytes(range(256)) * 400
        self.lock = threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer._get(self)

            def do_HEAD(self):
                outer._get(self)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with outer.lock:
                    outer.reports.append(json.loads(body))
                outer.answer(self, 200, {"status": "ok"})

            def log_message(self, *a):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:%d" % self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def offer(self, version="1.2.0", checksum=None, attempt="aaaaaaaaaaaaa"):
        return {"update_available": True, "latest_version": version, "reason": "offered",
                "download_url": self.image_url(version, attempt), "file_size": len(self.image),
                "checksum_sha256": checksum or self.checksum()}

    def image_url(self, version="1.2.0", attempt="aaaaaaaaaaaaa"):
        return "%s/api/firmware/download/%s?attempt=%s" % (self.url, version, attempt)

    def checksum(self):
        return hashlib.sha256(self.image).hexdigest()

    def _get(self, handler):
        path = urllib.parse.urlparse(handler.path).path
        with self.lock:
            self.seen.append((time.monotonic(), handler.command, path,
                              handler.headers.get("Range")))
            checks = path.endswith("/check") and self.checks
            status, body, *headers = self.checks.pop(0) if checks else (
                200, {"update_available": False, "reason": "up_to_date"})
        if "/download/" in path:
            self._send_image(handler)
        else:
            self.answer(handler, status, body, *headers)

    def _send_image(self, handler):
        wanted = handler.headers.get("Range")
        first = int(wanted.split("=")[1].split("-")[0]) if wanted else 0
        handler.send_response(206 if wanted else 200)
        handler.send_header("Content-Length", str(len(self.image) - first))
        handler.end_headers()
        if handler.command == "GET":
            try:
                handler.wfile.write(self.image[first:])
            except (BrokenPipeError, ConnectionResetError):
                pass

    @staticmethod
    def answer(handler, status, body, headers=None):
        data = json.dumps(body).encode()
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def of(self, end):
        with self.lock:
            return [s for s in self.seen if s[2].endswith(end)]

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)
