# SPDX-License-Identifier: MIT
"""Nothing that a broker was told is lost, and nothing counts twice: services killed, lines cut, a store that says no.

PAKU_FAULT_ROUNDS says how often a fleet goes through it (10); PAKU_SEED which dice are thrown (printed).
"""
import os
import random
import socket
import sqlite3
import subprocess
import threading
import time

import paho.mqtt.client as paho
import pytest

import images
from mqtt import Client, Device, MqttService
from service import wait_for

ROUNDS = int(os.environ.get("PAKU_FAULT_ROUNDS", "10"))
SEED = int(os.environ.get("PAKU_SEED", random.SystemRandom().randrange(1 << 30)))


WINDOW_S = 4


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Broker:
    """A mosquitto of the test's own, so that it lives on when the service does not."""

    def __init__(self, folder, settings="allow_anonymous true\n"):
        self.port = free_port()
        conf = folder / "broker.conf"
        conf.write_text("listener %d 127.0.0.1\nmax_inflight_messages 1000\n"
                        "max_queued_messages 100000\nuser root\n%s" % (self.port, settings))
        self.process = subprocess.Popen(["/usr/sbin/mosquitto", "-c", str(conf)],
                                        stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        wait_for(self.answers, "the broker")

    def answers(self):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

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


@pytest.fixture
def broker(tmp_path):
    broker = Broker(tmp_path)
    yield broker
    broker.close()


class FarService(MqttService):
    """A service whose broker is elsewhere."""

    def broker_port(self):
        return int(self.extra["MQTT_PORT"])


@pytest.fixture
def far(tmp_path, broker):
    made = []

    def make(port, **env):
        service = FarService(tmp_path / "service",
                             env={"MQTT_HOST": "127.0.0.1", "MQTT_PORT": port,
                                  "OTA_DISPATCH_PER_SECOND": 1000, **env})
        made.append(service)
        return service.start()

    yield make
    for service in made:
        service.stop()


class Fleet:
    """Devices on one connection that do as they are told, each once, and keep what they said."""

    def __init__(self, port, count, dice):
        self.dice, self.lock = dice, threading.Lock()
        self.ids = ["f%03d" % n for n in range(count)]
        self.told, self.ends = {i: [] for i in self.ids}, {}
        self.connected = threading.Event()
        self.client = paho.Client(client_id="fleet", clean_session=False)
        self.client.max_inflight_messages_set(1000)
        self.client.on_connect = self.on_connect
        self.client.on_message = self.on_message
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self.connected.wait(10)

    def on_connect(self, client, *_):
        client.subscribe("paku/edge/+/cmd/ota", 1)
        self.connected.set()

    def say(self, device_id, topic, payload):
        return self.client.publish("paku/edge/%s/%s" % (device_id, topic), payload, 1)

    def birth(self, version):
        for i in self.ids:
            self.say(i, "status", '{"device_model":"esp32","firmware_version":"%s"}' % version)

    def on_message(self, client, _, message):
        device_id = message.topic.split("/")[2]
        with self.lock:
            self.told[device_id].append(time.monotonic())
            if device_id in self.ends:
                return
            good = self.dice.random() < 0.8
            self.ends[device_id] = "success" if good else "failed"
        self.say(device_id, "ota/status", '{"status":"accepted","version":"2.0.0"}')
        for percent in (5, 50, 100):
            self.say(device_id, "ota/progress", '{"state":"Downloading","percent":%d}' % percent)
        self.say(device_id, "ota/progress", '{"state":"Installing","percent":100}')
        code = 0 if good else 4
        for _ in range(self.dice.choice((1, 1, 2))):
            self.say(device_id, "ota/result",
                     '{"version":"2.0.0","success":%s,"result_code":%d,"message":"%s"}'
                     % (str(good).lower(), code, device_id))

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


def check_against_store(service, fleet):
    """Each device's one attempt ended as the device says, with each event once."""
    rows = {}
    cursor = None
    while True:
        page = service.ok("GET", "/api/admin/update-status",
                          params={"limit": 1000, **({"cursor": cursor} if cursor else {})})
        for row in page["updates"]:
            rows.setdefault(row["device_id"], []).append(row)
        cursor = page["next_cursor"]
        if not cursor:
            break
    for device_id in fleet.ids:
        said = fleet.ends[device_id]
        mine = [r for r in rows[device_id] if r["status"] in ("success", "failed")]
        assert [r["status"] for r in mine] == [said], (device_id, said, rows[device_id])
        events = service.events(device_id)
        end = "update_completed" if said == "success" else "update_failed"
        for once in ("device_registered", "update_accepted", end):
            assert events.count(once) == 1, (device_id, once, events)


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_a_fleet_while_the_service_is_killed_and_its_line_cut(far, broker, round_):
    dice = random.Random(SEED + round_)
    print("PAKU_SEED=%d round %d" % (SEED, round_))
    proxy = Proxy(broker.port)
    # What was lost between the record and the broker is told again when its window has passed.
    service = far(proxy.port, OTA_COMMAND_TIMEOUT_S=WINDOW_S)
    service.release(images.esp32("2.0.0"), "2.0.0")
    fleet = Fleet(broker.port, 40, dice)
    fleet.birth("1.0.0")
    service.rollout("2.0.0", max_attempts=1, guard="off")  # so many failures would halt it
    for _ in range(dice.randrange(1, 4)):
        wait_s = dice.random() * 0.3
        end = time.monotonic() + wait_s  # a moment that the dice choose
        wait_for(lambda: time.monotonic() > end, "the moment")
        if dice.random() < 0.5:
            proxy.cut()
        else:
            service.kill()
            service.start()
    wait_for(lambda: len(fleet.ends) == len(fleet.ids), "every device to be told", 60)
    wait_for(lambda: sum(service.ok("GET", "/api/admin/rollouts/1")["counts"][s]
                         for s in ("success", "failed")) == len(fleet.ids), "every result", 60)
    check_against_store(service, fleet)
    for times in fleet.told.values():
        assert all(b - a > WINDOW_S * 0.9 for a, b in zip(times, times[1:])), "told twice within its window"
    fleet.close()
    proxy.close()


def test_what_the_store_did_not_take_is_not_acknowledged(far, broker):
    """The database is locked by somebody: the broker still has the message when the service dies."""
    service = far(broker.port)
    device = Device(service)
    wait_for(lambda: service.list("devices"), "the device")
    other = sqlite3.connect(os.path.join(service.data, "paku-ota.db"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    device.result("7.7.7")
    wait_for(lambda: "the store did not take all of it" in service.log(), "the refusal", 60)
    assert service.get("/health").status_code == 503
    service.kill()
    other.execute("ROLLBACK")
    other.close()
    service.start()
    row = wait_for(lambda: service.update_of("esp32_001"), "the message to come again")
    assert (row["firmware_version"], row["status"]) == ("7.7.7", "success")
    assert service.events("esp32_001").count("update_completed") == 1
    device.close()


def test_it_goes_on_by_itself_when_the_store_does(far, broker):
    service = far(broker.port)
    device = Device(service)
    wait_for(lambda: service.list("devices"), "the device")
    other = sqlite3.connect(os.path.join(service.data, "paku-ota.db"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    device.result("7.7.7")
    wait_for(lambda: "the store did not take all of it" in service.log(), "the refusal", 60)
    other.execute("ROLLBACK")
    other.close()
    row = wait_for(lambda: service.update_of("esp32_001"), "the message to come again", 60)
    assert row["status"] == "success"
    device.close()


def test_while_the_broker_is_away_http_works_on(far, broker):
    service = far(broker.port)
    broker.close()
    wait_for(lambda: service.ok("GET", "/health")["mqtt"].startswith("connecting since"), "the loss")
    assert service.check("by-http")["update_available"] is False
    service.release(images.esp32("2.0.0"), "2.0.0")
    service.rollout("2.0.0")
    assert service.check("by-http")["update_available"] is True


def test_a_million_names_hold_nobody_up(far, broker):
    """Over the limit only registrations are dropped; who is known goes on."""
    service = far(broker.port, OTA_NEW_DEVICES_PER_SECOND=50)
    device = Device(service)
    wait_for(lambda: service.list("devices"), "the device")
    flood = Client(broker.port)
    for n in range(3000):
        flood.client.publish("paku/edge/x%d/status" % n,
                             '{"device_model":"esp32","firmware_version":"1"}', 1)
    released = time.monotonic()
    device.result("1.0.1")
    wait_for(lambda: service.update_of("esp32_001"), "the known device's word")
    assert time.monotonic() - released < 10
    wait_for(lambda: service.ok("GET", "/metrics")["mqtt_unregistered_total"] > 0, "the limit")
    assert service.get("/health").status_code == 200
    flood.close()
    device.close()


def openssl(folder, *args):
    subprocess.run(["openssl", *args], cwd=folder, check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


@pytest.fixture
def secure(tmp_path):
    """A broker with TLS and a password, as one on the Internet has."""
    openssl(tmp_path, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout",
            "key", "-out", "cert", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(tmp_path / "passwords"), "ota", "secret"],
                   check=True)
    broker = Broker(tmp_path, "allow_anonymous false\npassword_file %s/passwords\ncertfile %s/cert\n"
                    "keyfile %s/key\n" % (tmp_path, tmp_path, tmp_path))
    yield broker
    broker.close()


def test_tls_and_a_password(tmp_path, far, secure):
    env = {"OTA_MQTT_TLS": "on", "OTA_MQTT_CA": tmp_path / "cert", "MQTT_USER": "ota",
           "MQTT_PASSWORD": "secret"}
    service = far(secure.port, **env)
    tell = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(secure.port), "--cafile",
            str(tmp_path / "cert"), "-u", "ota", "-P", "secret", "-q", "1"]
    for n in range(50):
        subprocess.run([*tell, "-t", "paku/edge/t%d/status" % n, "-m",
                        '{"device_model":"esp32","firmware_version":"1"}'], check=True)
    wait_for(lambda: len(service.list("devices")) == 50, "the devices")


@pytest.mark.parametrize("env,why", [
    ({"MQTT_PASSWORD": "wrong"}, "refused"), ({"OTA_MQTT_CA": "/etc/hostname"}, ""),
    ({"OTA_MQTT_TLS": "off"}, "")])
def test_a_broker_that_refuses_is_told_of(tmp_path, broker, secure, env, why):
    service = FarService(tmp_path / "service", env={
        "MQTT_HOST": "127.0.0.1", "MQTT_PORT": secure.port, "OTA_MQTT_TLS": "on",
        "OTA_MQTT_CA": tmp_path / "cert", "MQTT_USER": "ota", "MQTT_PASSWORD": "secret", **env})
    service.connected = lambda: "not_connected" in service.log()
    service.start()
    health = service.ok("GET", "/health")
    assert health["status"] == "healthy" and health["mqtt"].startswith("connecting since"), health
    assert why in health["mqtt"]
    service.stop()
