# SPDX-License-Identifier: MIT
"""A mosquitto of the test's own, and a stand-in for the service that watches and commands."""
import hashlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import time

import paho.mqtt.client as paho

MOSQUITTO = "/usr/sbin/mosquitto"


def wait_for(condition, what, timeout_s=30):
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, "waited %s s for: %s" % (timeout_s, what)
        time.sleep(0.02)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Broker:
    def __init__(self, folder, password=None, more=()):
        assert pathlib.Path(MOSQUITTO).exists(), "mosquitto is missing: apt-get install mosquitto"
        self.port = free_port()
        self.config = folder / "mosquitto.conf"
        lines = ["listener %d 127.0.0.1" % self.port, *more, "persistence true",
                 "persistence_location %s/" % folder, "log_dest none",
                 "user %s" % ("root" if os.getuid() == 0 else "mosquitto")]
        if password:
            accounts = folder / "accounts"
            accounts.touch(mode=0o600)
            subprocess.run(["mosquitto_passwd", "-b", str(accounts), *password], check=True)
            lines += ["password_file %s" % accounts, "allow_anonymous false"]
        else:
            lines += ["allow_anonymous true"]
        self.config.write_text("\n".join(lines) + "\n")
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen([MOSQUITTO, "-c", str(self.config)])

        def answers():
            assert self.process.poll() is None, "mosquitto has ended"
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", self.port)) == 0
        wait_for(answers, "mosquitto on port %d" % self.port)

    def stop(self):
        """An orderly end: sessions and retained messages come back with start()."""
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=60)
            self.process = None


class Watcher:
    """Sees all that devices say, and tells them what to do."""

    def __init__(self, port, account=None, tls=None):
        self.said = []  # (topic, payload, retain), in order
        self.client = paho.Client("watcher", clean_session=True)
        if account:
            self.client.username_pw_set(*account)
        if tls:
            self.client.tls_set(**{k: str(v) for k, v in tls.items()})
        self.ready = False
        self.client.on_connect = lambda c, *_: c.subscribe("+/edge/#", qos=1)
        self.client.on_subscribe = lambda *_: setattr(self, "ready", True)
        self.client.on_message = self.note
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        wait_for(lambda: self.ready, "the watcher's subscription")

    def note(self, _client, _data, message):
        if not message.topic.endswith("/cmd/ota"):
            self.said.append((message.topic, json.loads(message.payload), message.retain))

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()

    def of(self, end):
        return [p for t, p, _ in self.said if t.endswith("/" + end) and
                (end != "status" or not t.endswith("/ota/status"))]

    def results(self):
        return self.of("ota/result")

    def births(self):
        return [p for p in self.of("status") if p["online"]]

    def states(self):
        """Of progress, each once for as long as it lasted."""
        states = [p["state"] for p in self.of("ota/progress")]
        return [s for i, s in enumerate(states) if i == 0 or states[i - 1] != s]

    def result(self, n=1, timeout_s=60):
        wait_for(lambda: len(self.results()) >= n, "result %d of %s" % (n, self.said), timeout_s)
        return self.results()[n - 1]

    def command(self, payload, device="dev:1", site="paku"):
        if not isinstance(payload, (str, bytes)):
            payload = json.dumps(payload, separators=(",", ":"))
        info = self.client.publish("%s/edge/%s/cmd/ota" % (site, device), payload, qos=1)
        info.wait_for_publish(20)


def command_for(service, version, image, attempt="ABCDEFGHIJKLM"):
    service.version, service.image = version, image
    return {"url": "%s/api/firmware/download/%s?attempt=%s" % (service.url, version, attempt),
            "checksum": hashlib.sha256(image).hexdigest(), "version": version}
