# SPDX-License-Identifier: MIT
"""Devices over MQTT as tests need them, and the service with its own broker."""
import json
import re
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
        assert self.ready.wait(10), "the broker does not answer"

    def _on_message(self, client, arg, message):
        with self.lock:
            self.received.append((message.topic, message.payload))

    def subscribe(self, topic):
        self.subscribed.clear()
        self.client.subscribe(topic, 1)
        assert self.subscribed.wait(10)
        return self

    def publish(self, topic, payload, retain=False):
        if not isinstance(payload, (bytes, str)):
            payload = json.dumps(payload)
        self.client.publish(topic, payload, 1, retain).wait_for_publish(10)

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

    def command(self, count=1, seconds=10):
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
