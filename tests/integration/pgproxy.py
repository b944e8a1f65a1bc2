# SPDX-License-Identifier: MIT
"""Between a service and its PostgreSQL: passes everything on, and cuts the line where told."""
import os
import selectors
import socket
import threading
import time

COMMIT = b"Q\0\0\0\x0bCOMMIT\0"


class Proxy:
    """`cut` is for the next COMMIT that comes by: "answer" loses the server's answer to it,
    "question" loses COMMIT itself, the server's end staying open as after a router's death."""

    def __init__(self, cluster):
        self.server = os.path.join(cluster.folder, ".s.PGSQL.5432")
        self.cut = None
        self.cuts = 0
        self.open = True  # else: new connections are refused
        self.kept = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def environment(self):
        return {"PGHOST": "127.0.0.1", "PGPORT": self.port, "PGSSLMODE": "disable"}

    def close(self):
        self.listener.close()
        for s in self.kept:
            s.close()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if not self.open:
                client.close()
                continue
            self._join(client)

    def _join(self, client):
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(self.server)
        except OSError:
            client.close()
            return
        threading.Thread(target=self._pass, args=(client, server), daemon=True).start()

    def _may_pass(self):
        """False holds back what came, for as long as it is asked again."""
        return True

    def _pass(self, client, server):
        watch = selectors.DefaultSelector()
        watch.register(client, selectors.EVENT_READ, server)
        watch.register(server, selectors.EVENT_READ, client)
        deaf = False
        while True:
            for key, _ in watch.select():
                try:
                    data = key.fileobj.recv(65536)
                except OSError:
                    data = b""
                while not self._may_pass():
                    time.sleep(0.02)
                if not data or (deaf and key.fileobj is server):
                    client.close()
                    server.close()
                    return
                if key.fileobj is client and self.cut and data.endswith(COMMIT):
                    cut, self.cut = self.cut, None
                    self.cuts += 1
                    if cut == "question":
                        self.kept.append(server)
                        client.close()
                        return
                    deaf = True
                try:
                    key.data.sendall(data)
                except OSError:
                    pass
