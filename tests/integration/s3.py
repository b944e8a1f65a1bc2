# SPDX-License-Identifier: MIT
"""A bucket on a real S3 server (s3_server.py), and a line to it that can be cut and bent.

Requests of the tests are signed here, by the published steps of Signature Version 4, not by the service's code.
"""
import email.utils
import hashlib
import hmac
import http.client
import http.server
import os
import subprocess
import sys
import threading
import time

import requests

KEY, SECRET, REGION = "test:tester", "testing", "us-east-1"


def signed(method, host, path, body=b""):
    now, digest = time.gmtime(), hashlib.sha256(body).hexdigest()
    day, at = time.strftime("%Y%m%d", now), time.strftime("%Y%m%dT%H%M%SZ", now)
    names = "host;x-amz-content-sha256;x-amz-date"
    request = "%s\n%s\n\nhost:%s\nx-amz-content-sha256:%s\nx-amz-date:%s\n\n%s\n%s" % (
        method, path, host, digest, at, names, digest)
    scope = "%s/%s/s3/aws4_request" % (day, REGION)
    text = "AWS4-HMAC-SHA256\n%s\n%s\n%s" % (at, scope, hashlib.sha256(request.encode()).hexdigest())
    key = ("AWS4" + SECRET).encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return {"x-amz-date": at, "x-amz-content-sha256": digest,
            "Authorization": "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s" % (
                KEY, scope, names, hmac.new(key, text.encode(), hashlib.sha256).hexdigest())}


class Server:
    def __init__(self, folder):
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "s3_server.py"), str(folder), "0"],
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline()
        assert line.startswith("ready "), "the S3 server does not start; is python3-swift installed?"
        self.port = int(line.split()[1])
        self.host = "127.0.0.1:%d" % self.port

    def request(self, method, path, body=b""):
        return requests.request(method, "http://%s%s" % (self.host, path), data=body, timeout=30,
                                headers=signed(method, self.host, path, body))

    def bucket(self, name):
        assert self.request("PUT", "/" + name).status_code == 200
        return Bucket(self, name)

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Bucket:
    """What a test sees of a bucket, past the line that the service uses."""

    def __init__(self, server, name):
        self.server, self.name = server, name

    def _path(self, image):
        return "/%s/%s.bin" % (self.name, hashlib.sha256(image).hexdigest())

    def has(self, image):
        """The bytes that are there under the image's name; None: there are none."""
        answer = self.server.request("GET", self._path(image))
        assert answer.status_code in (200, 404)
        return answer.content if answer.status_code == 200 else None

    def put(self, image, content):
        assert self.server.request("PUT", self._path(image), content).status_code == 200

    def remove(self, image):
        assert self.server.request("DELETE", self._path(image)).status_code in (200, 204)


class Line(http.server.ThreadingHTTPServer):
    """Passes requests on to the server as they are. `fault`: a status to answer instead, or a function of (method,
    path) that says whether to go on; `old`: objects seem to have been written long ago; `ahead_s`: of the bucket's clock."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, server):
        super().__init__(("127.0.0.1", 0), Handler)
        self.server_host = server.host
        self.fault, self.old, self.ahead_s, self.seen, self.answered = None, False, 0, [], []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def environment(self, bucket, **more):
        return {"OTA_S3_ENDPOINT": "http://127.0.0.1:%d" % self.server_port, "OTA_S3_BUCKET": bucket,
                "OTA_S3_ACCESS_KEY": KEY, "OTA_S3_SECRET_KEY": SECRET, **more}

    def count(self, method, image=None):
        name = hashlib.sha256(image).hexdigest() if image else ""
        return sum(m == method and name in path for m, path in list(self.seen))

    def stop(self):
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _answer(self, status, headers, body):
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = dict((n.lower(), v) for n, v in headers).get("content-length")
        self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        if self.command != "HEAD":
            self.wfile.write(body)

    def _pass(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault, old, ahead_s = self.server.fault, self.server.old, self.server.ahead_s
        self.server.seen.append((self.command, self.path))
        if callable(fault):
            fault = fault(self.command, self.path)
        if fault:
            self._answer(fault, [("Content-Type", "application/xml")],
                         b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate</Message></Error>")
            return
        there = http.client.HTTPConnection(self.server.server_host, timeout=30)
        there.request(self.command, self.path, body, {n: v for n, v in self.headers.items() if n.lower() != "expect"})
        answer = there.getresponse()
        headers = answer.getheaders()
        if old:
            headers = [(n, email.utils.formatdate(time.time() - 86400, usegmt=True) if n == "Last-Modified" else v)
                       for n, v in headers]
        if ahead_s:
            headers = [(n, email.utils.formatdate(time.time() + ahead_s, usegmt=True) if n == "Date" else v)
                       for n, v in headers]
        self._answer(answer.status, headers, answer.read())
        self.server.answered.append((self.command, self.path))
        there.close()

    def handle(self):
        try:
            super().handle()
        except OSError:
            pass  # the service hung up

    do_GET = do_PUT = do_HEAD = do_DELETE = _pass
