# SPDX-License-Identifier: MIT
"""A service made of answers that the test gives, and a memory of what was asked."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

KEY = "k" * 32


class Request:
    def __init__(self, handler, body):
        split = urlsplit(handler.path)
        self.method = handler.command
        self.raw_path = split.path
        self.target = handler.path
        self.query = {k: v[0] for k, v in parse_qs(split.query, keep_blank_values=True).items()}
        self.headers = handler.headers
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)


class FakeService:
    """`answer(method, path, value)`: value is a JSON value, (status, value), or a function of the
    request giving one of these. bytes are sent as they are. /api/admin wants the key."""

    def __init__(self):
        self.requests = []
        self.routes = {}
        self.lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def handle_any(self):
                length = int(self.headers.get("Content-Length") or 0)
                if self.headers.get("Transfer-Encoding") == "chunked":
                    body = b""
                    while True:
                        size = int(self.rfile.readline(), 16)
                        body += self.rfile.read(size)
                        self.rfile.readline()
                        if size == 0:
                            break
                else:
                    body = self.rfile.read(length)
                status, value = service.respond(Request(self, body))
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_DELETE = handle_any

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:%d" % self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, method, path, value):
        with self.lock:
            self.routes[(method, path)] = value

    def answer_list(self, path, key, rows):
        """ROWS in pages, the cursor being the place of the next row; ROWS may be a function."""

        def page(request):
            every = rows(request) if callable(rows) else rows
            start = int(request.query.get("cursor", 0))
            limit = int(request.query.get("limit", 100))
            if not 1 <= limit <= 1000:
                return 422, {"detail": "limit is 1 to 1000"}
            end = start + limit
            return {key: every[start:end], "next_cursor": str(end) if end < len(every) else None}

        self.answer("GET", path, page)

    def respond(self, request):
        with self.lock:
            self.requests.append(request)
            value = self.routes.get((request.method, request.raw_path))
        if request.raw_path.startswith("/api/admin") and request.headers.get("X-API-Key") != KEY:
            return 401, {"detail": "Invalid API key"}
        if callable(value):
            value = value(request)
        if value is None:
            return 404, {"detail": "there is no %s %s" % (request.method, request.raw_path)}
        return value if isinstance(value, tuple) else (200, value)

    def asked(self, method, path):
        with self.lock:
            return [r for r in self.requests if (r.method, r.raw_path) == (method, path)]
