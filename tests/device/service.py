# SPDX-License-Identifier: MIT
"""A small OTA service for the agent's tests: one image, ranges, and a line that breaks on demand.

It speaks the device-facing part of the contract and nothing else, so that the agent is tested on
its own; faults are attributes that a test sets.
"""
import hashlib
import http.server
import json
import re
import threading
import urllib.parse


class Service:
    def __init__(self, version=None, image=b""):
        self.lock = threading.Lock()
        self.version, self.image = version, image
        self.attempt = 0
        self.max_attempts = 3
        self.retry_after_s = 3600
        self.cut_after = []  # body bytes after which a download's connection is closed, one by one
        self.on_cut = None  # called once at the next cut: the image may change
        self.ranges = True
        self.status = {}  # path prefix -> list of statuses to answer instead
        self.offer_sha = None
        self.checks, self.reports, self.downloads = [], [], []
        self.sent = 0
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.server.daemon_threads = True
        self.url = "http://127.0.0.1:%d" % self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def statuses(self):
        return [r["status"] for r in self.reports]

    def check_answer(self, query):
        offered = self.version and query["current_version"] != self.version
        offered = offered and self.attempt < self.max_attempts
        url = "%s/api/firmware/download/%s?device_model=m&attempt=%013d" % (
            self.url, urllib.parse.quote(self.version or "", safe=""), self.attempt)
        sha = self.offer_sha or hashlib.sha256(self.image).hexdigest()
        return {"update_available": bool(offered), "current_version": query["current_version"],
                "latest_version": self.version, "download_url": url if offered else None,
                "file_size": len(self.image) if offered else None,
                "checksum_sha256": sha if offered else None, "release_notes": None,
                "image": {"nested": [1, {"deep": "\"}"}]}, "retry_after_s": self.retry_after_s}

    def handler(service):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def answer(self, status, body, headers=()):
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def planned(self):
                for prefix, statuses in service.status.items():
                    if self.path.startswith(prefix) and statuses:
                        self.answer(statuses.pop(0), b'{"detail":"as the test wants it"}',
                                    [("Retry-After", "1")])
                        return True
                return False

            def do_GET(self):
                with service.lock:
                    if self.planned():
                        return
                    url = urllib.parse.urlsplit(self.path)
                    query = dict(urllib.parse.parse_qsl(url.query))
                    if url.path == "/api/firmware/check":
                        service.checks.append(query)
                        self.answer(200, json.dumps(service.check_answer(query)).encode())
                        return
                    if url.path == "/health":
                        self.answer(200, b"{}")
                        return
                    image = service.image
                    cut = service.cut_after.pop(0) if service.cut_after else None
                self.download(image, cut)

            def download(self, image, cut):
                etag = '"%s"' % hashlib.sha256(image).hexdigest()
                asked = self.headers.get("Range")
                service.downloads.append((asked, self.headers.get("If-Range")))
                start = 0
                if asked and service.ranges and self.headers.get("If-Range") == etag:
                    start = int(re.fullmatch(r"bytes=(\d+)-", asked).group(1))
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range",
                                     "bytes %d-%d/%d" % (start, len(image) - 1, len(image)))
                self.send_header("ETag", etag)
                self.send_header("Content-Length", str(len(image) - start))
                self.end_headers()
                body = image[start:] if cut is None else image[start:start + cut]
                service.sent += len(body)
                try:
                    self.wfile.write(body)
                except OSError:
                    pass  # the agent was killed or hung up
                if cut is not None:
                    self.close_connection = True
                    with service.lock:
                        if service.on_cut:
                            service.on_cut()
                            service.on_cut = None

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with service.lock:
                    if self.planned():
                        return
                    report = json.loads(body)
                    report["path"] = self.path
                    service.reports.append(report)
                    if report["status"] in ("failed", "rolled_back"):
                        service.attempt += 1
                self.answer(200, b'{"status":"ok","message":"recorded"}')

        return Handler
