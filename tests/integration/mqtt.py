# SPDX-License-Identifier: MIT
"""Devices over MQTT as tests need them, and the service with its own broker."""
import json
import os
import re
import socket
import sqlite3
import subprocess
import threading

import paho.mqtt.client as paho

from service import Service, wait_for


class MqttService(Service):
    """A service that starts its own broker on a free port."""

    def environment(self):
        env = super().environment()
        env.update({"OTA_MQTT": "on", "MQTT_PORT": "0"})
        env.update({k: str(v) for k, v in self.extra.items()})
        return env

    def start(self):
        super().start()
        self.mqtt_port = self.broker_port()
        wait_for(self.connected, "the service to be connected")
        return self

    def broker_port(self):
        found = wait_for(lambda: re.search(r"broker \S.*?:(\d+), command URLs",
                                           self.log(self.log_from)), "the broker's port")
        return int(found.group(1))

    def connected(self):
        return self.ok("GET", "/health")["mqtt"].startswith("connected")

    def update_of(self, device_id):
        rows = self.list("updates", device_id=device_id)
        return rows[0] if rows else None

    def events(self, device_id, event_type=None):
        rows = self.ok("GET", "/api/admin/events", params={
            "device_id": device_id, "limit": 1000,
            **({"event_type": event_type} if event_type else {})})["events"]
        return [row["event_type"] for row in rows]


class Client:
    """A connection to the broker that keeps what it receives."""

    def __init__(self, port, client_id="", will=None, **more):
        self.received, self.lock = [], threading.Lock()
        self.client = paho.Client(client_id=client_id, clean_session=True, **more)
        if will:
            self.client.will_set(*will, qos=1)
        self.client.on_message = self._on_message
        self.ready, self.subscribed = threading.Event(), threading.Event()
        self.client.on_connect = lambda *a: self.ready.set()
        self.client.on_subscribe = lambda *a: self.subscribed.set()
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self.ready.wait(60), "the broker does not answer"

    def _on_message(self, client, arg, message):
        with self.lock:
            self.received.append((message.topic, message.payload))

    def subscribe(self, topic):
        self.subscribed.clear()
        self.client.subscribe(topic, 1)
        assert self.subscribed.wait(60)
        return self

    def publish(self, topic, payload, retain=False):
        if not isinstance(payload, (bytes, str)):
            payload = json.dumps(payload)
        self.client.publish(topic, payload, 1, retain).wait_for_publish(60)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self):
        """Is cut off: the broker publishes its last will."""
        self.client._sock_close()
        self.client.loop_stop()


class Device(Client):
    """One device of the contract: it says who it is and waits for commands."""

    def __init__(self, service, device_id="esp32_001", version="1.0.0", model="esp32", site="paku",
                 form="edge", birth=True, **facts):
        self.id, self.version, self.model, self.facts = device_id, version, model, facts
        self.base = "%s/%s/%s" % (site, form, device_id)
        super().__init__(service.mqtt_port, will=(self.base + "/status", '{"online":false}'))
        self.subscribe(self.base + "/cmd/ota")
        if birth:
            self.birth()

    def birth(self, version=None, retain=False):
        self.version = version or self.version
        self.publish(self.base + "/status", {"device_model": self.model, "online": True,
                                             "firmware_version": self.version, **self.facts},
                     retain)

    def commands(self):
        with self.lock:
            return [json.loads(p) for t, p in self.received if t == self.base + "/cmd/ota"]

    def command(self, count=1, seconds=60):
        return wait_for(lambda: len(self.commands()) >= count and self.commands()[count - 1],
                        "command %d for %s" % (count, self.id), seconds)

    def accepted(self, version):
        self.publish(self.base + "/ota/status",
                     {"timestamp": 1, "status": "accepted", "version": version})

    def progress(self, state, percent):
        self.publish(self.base + "/ota/progress", {
            "timestamp": 2, "state": state, "percent": percent, "downloaded": percent,
            "total": 100, "elapsed_ms": 5})

    def result(self, version, code=0, message="", **more):
        self.publish(self.base + "/ota/result", {
            "timestamp": 3, "version": version, "success": code == 0, "result_code": code,
            "message": message, **more})


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Broker:
    """A mosquitto of the test's own, so that it lives on when the service does not."""

    def __init__(self, folder, settings="allow_anonymous true\n"):
        self.port = free_port()
        self.conf = folder / "broker.conf"
        self.conf.write_text("listener %d 127.0.0.1\nmax_inflight_messages 1000\n"
                             "max_queued_messages 100000\nuser root\n%s" % (self.port, settings))
        self.start()

    def start(self):
        self.process = subprocess.Popen(["/usr/sbin/mosquitto", "-c", str(self.conf)],
                                        stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        wait_for(self.answers, "the broker")

    def answers(self):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self):
        self.process.kill()
        self.process.wait(10)

    def close(self):
        self.process.terminate()
        self.process.wait(10)


class Proxy:
    """A line to the broker that can be cut in the middle of anything."""

    def __init__(self, to_port):
        self.to_port, self.pairs, self.lock = to_port, [], threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.to_port))
            except OSError:
                near.close()
                continue
            with self.lock:
                self.pairs.append((near, far))
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self.copy, args=(a, b), daemon=True).start()

    @staticmethod
    def copy(source, sink):
        try:
            while data := source.recv(4096):
                sink.sendall(data)
        except OSError:
            pass
        for s in (source, sink):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        with self.lock:
            pairs, self.pairs = self.pairs, []
        for pair in pairs:
            for s in pair:
                try:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def close(self):
        self.listener.close()
        self.cut()


class FarService(MqttService):
    """A service whose broker is elsewhere."""

    def broker_port(self):
        return int(self.extra["MQTT_PORT"])


def rows(service, sql):
    db = sqlite3.connect("file:%s?mode=ro" % os.path.join(service.data, "paku-ota.db"), uri=True)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()
