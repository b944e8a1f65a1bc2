# SPDX-License-Identifier: MIT
"""Nothing that a broker was told is lost, and nothing counts twice: services killed, lines cut, a store that says no.

PAKU_FAULT_ROUNDS says how often a fleet goes through it (10); PAKU_SEED which dice are thrown (printed).
"""
import os
import random
import sqlite3
import subprocess
import threading
import time

import paho.mqtt.client as paho
import pytest

import certificates
import images
from mqtt import Broker, Client, Device, FarService, Proxy, rows
from service import wait_for

ROUNDS = int(os.environ.get("PAKU_FAULT_ROUNDS", "10"))
SEED = int(os.environ.get("PAKU_SEED", random.SystemRandom().randrange(1 << 30)))

# The window begins with the record, and the command leaves a commit later: on a busy machine that is longer once than
# the next time, by 0.2 s as it was seen. So long that a tenth of it is more.
WINDOW_S = 4


@pytest.fixture
def broker(tmp_path):
    broker = Broker(tmp_path)
    yield broker
    broker.close()


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
        self.client.reconnect_delay_set(1, 1)
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

    def births(self):
        for i in self.ids:
            self.birth(i, "1.0.0")

    def birth(self, device_id, version):
        # Its boot tells a birth message that the broker lost the acknowledgement of, and that comes twice, from a
        # restart after the installation.
        self.say(device_id, "status", '{"device_model":"esp32","firmware_version":"%s","boot_id":"%s"}'
                 % (version, version))

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
        for _ in range(self.dice.choice((1, 1, 2))):
            self.result(device_id)

    def result(self, device_id):
        good = self.ends[device_id] == "success"
        self.say(device_id, "ota/result",
                 '{"version":"2.0.0","success":%s,"result_code":%d,"message":"%s"}'
                 % (str(good).lower(), 0 if good else 4, device_id))

    def contact(self):
        """Each says how its update ended, if it did, and what it runs."""
        with self.lock:
            ends = dict(self.ends)
        for i in self.ids:
            if i in ends:
                self.result(i)
            self.birth(i, "2.0.0" if ends.get(i) == "success" else "1.0.0")

    def wait_until_heard(self, service):
        """Until the service is subscribed again: what is said before that goes nowhere, and half of a device's words
        may be heard without the other half."""
        def heard():
            self.client.publish("paku/edge/probe/ota/result", "no JSON", 1)
            return rows(service, "SELECT count(*) FROM ota_rejected_messages") != [(0,)]
        wait_for(heard, "the service to hear again", every_s=0.05)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


def check_against_store(service, fleet, lossy):
    """Each device, its attempts and their events are what the device says, once. LOSSY: what a device said before its
    end may have been lost, so that it is there once at most."""
    attempts, events = {}, {}
    for device_id, status, unsolicited in rows(
            service, "SELECT device_id, coalesce(closed, status), unsolicited FROM device_update_status"):
        attempts.setdefault(device_id, []).append(status)
        assert not unsolicited, device_id
    for device_id, kind in rows(service, "SELECT device_id, event_type FROM ota_events"):
        events.setdefault(device_id, []).append(kind)
    versions = dict(rows(service, "SELECT device_id, current_firmware_version FROM devices"))
    assert sorted(versions) == fleet.ids
    for device_id in fleet.ids:
        said = fleet.ends[device_id]
        mine = [s for s in attempts[device_id] if s != "lapsed"]
        assert mine == [said], (device_id, said, attempts[device_id])
        assert versions[device_id] == ("2.0.0" if said == "success" else "1.0.0")
        count = {kind: events[device_id].count(kind) for kind in events[device_id]}
        end = "update_completed" if said == "success" else "update_failed"
        assert count["device_registered"] == count[end] == 1, (device_id, count)
        assert count["update_offered"] == len(attempts[device_id]), (device_id, count)
        assert not {"update_completed", "update_failed", "rollback_initiated"} - {end} & set(count), count
        for once in ("update_accepted", "update_started", "update_progressed"):
            assert count.get(once, 0) == 1 or (lossy and once not in count), (device_id, once, count)


def ended(service):
    counts = service.ok("GET", "/api/admin/rollouts/1")["counts"]
    return counts["success"] + counts["failed"]


def pass_by(seconds):
    """A moment that the dice choose."""
    end = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() > end, "the moment")


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_a_fleet_while_service_broker_and_line_break(far, broker, round_):
    dice = random.Random(SEED + round_)
    print("PAKU_SEED=%d round %d" % (SEED, round_))
    proxy = Proxy(broker.port)
    # What was lost between the record and the broker is told again when its window has passed.
    service = far(proxy.port, OTA_COMMAND_TIMEOUT_S=WINDOW_S, OTA_DISPATCH_PER_SECOND=100)
    service.release(images.esp32("2.0.0"), "2.0.0")
    fleet = Fleet(broker.port, 60, dice)
    fleet.births()
    service.rollout("2.0.0", max_attempts=1, guard="off")  # so many failures would halt it
    lossy = False
    for _ in range(dice.randrange(1, 4)):
        pass_by(dice.random() * 0.3)
        what = dice.choice(("line", "line", "service", "service", "broker"))
        if what == "line":
            proxy.cut()
        elif what == "service":
            service.kill()
            service.start()
        else:
            lossy = True  # what it had acknowledged and not passed on is lost to all
            broker.kill()
            broker.start()
            wait_for(service.connected, "the service to be back")
    if lossy:
        fleet.wait_until_heard(service)
    spoke = 0

    def all_ended():
        nonlocal spoke
        if lossy and time.monotonic() - spoke > 1:
            fleet.contact()
            spoke = time.monotonic()
        return len(fleet.ends) == len(fleet.ids) and ended(service) == len(fleet.ids)

    try:
        wait_for(all_ended, "every result", 60)
    except AssertionError as late:
        raise AssertionError("%s; %d told, and the store has %s" % (late, len(fleet.ends), rows(
            service, "SELECT status, closed, commands, count(*) FROM device_update_status GROUP BY 1, 2, 3")))
    if lossy:
        # What was said again has to be heard, and must change nothing.
        fleet.contact()
        seen = ("SELECT count(*) FROM device_update_status WHERE status = 'success' AND NOT settled")
        wait_for(lambda: rows(service, seen) == [(0,)], "the new versions to be seen")
    check_against_store(service, fleet, lossy)
    for times in fleet.told.values():
        assert all(b - a > WINDOW_S * 0.9 for a, b in zip(times, times[1:])), "told twice within its window"
    fleet.close()
    proxy.close()


def test_a_thousand_are_told_while_the_service_is_killed(far, broker):
    """Each at least once, none twice inside its window; three kills, at moments that the dice choose."""
    dice = random.Random(SEED)
    print("PAKU_SEED=%d" % SEED)
    service = far(broker.port, OTA_COMMAND_TIMEOUT_S=WINDOW_S, OTA_MAX_DOWNLOADS=1000)
    fleet = Fleet(broker.port, 1000, dice)
    fleet.client.on_message = lambda client, _, m: fleet.told[m.topic.split("/")[2]].append(time.monotonic())
    fleet.births()
    wait_for(lambda: rows(service, "SELECT count(*) FROM devices") == [(1000,)], "the fleet")
    service.release(images.esp32("2.0.0"), "2.0.0")
    service.rollout("2.0.0")

    def told():
        return sum(bool(times) for times in fleet.told.values())

    for part in range(3):
        enough = dice.randrange(part * 300 + 1, part * 300 + 300)
        wait_for(lambda: told() >= enough, "%d to be told" % enough)
        service.kill()
        service.start()
    wait_for(lambda: told() == 1000, "all to be told", 60)
    service.stop()
    # A window begins with the record, whenever a busy machine lets the command arrive.
    attempts = rows(service, "SELECT device_id, commands, (julianday(commanded_at) - julianday(opened_at)) * 86400"
                    " FROM device_update_status")
    assert len(attempts) == 1000
    for device_id, commands, seconds in attempts:
        assert len(fleet.told[device_id]) <= commands, (device_id, fleet.told[device_id], commands)
        assert seconds > WINDOW_S * sum((1, 5, 30)[:commands - 1]) - 0.001, (device_id, commands, seconds)
    fleet.close()


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
    assert time.monotonic() - released < 40  # three thousand names would take a minute
    wait_for(lambda: service.ok("GET", "/metrics")["mqtt_unregistered_total"] > 0, "the limit")
    assert service.get("/health").status_code == 200
    flood.close()
    device.close()


def test_who_was_over_the_limit_is_registered_without_another_word(far, broker):
    """Its birth message was acknowledged: that it is not lost is ours to see to."""
    service = far(broker.port, OTA_NEW_DEVICES_PER_SECOND=200)
    fleet = Client(broker.port)
    sent = [fleet.client.publish("paku/%s/n%d/status" % ("devices" if n % 5 == 0 else "edge", n),
                                 '{"device_model":"esp32","firmware_version":"1"}', 1, True)
            for n in range(600)]
    for one in sent:
        one.wait_for_publish(10)
    fleet.close()
    wait_for(lambda: service.ok("GET", "/metrics")["mqtt_unregistered_total"] > 0, "the limit")
    wait_for(lambda: service.ok("GET", "/metrics")["total_devices"] == 600, "all of them", 60)


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


def test_a_broker_that_does_not_let_us_command_is_told_of(tmp_path, far):
    (tmp_path / "acl").write_text("topic readwrite +/edge/+/status\ntopic readwrite +/ota-service/status\n"
                                  "topic read #\n")
    broker = Broker(tmp_path, "allow_anonymous true\nacl_file %s\n" % (tmp_path / "acl"))
    service = far(broker.port)
    service.mqtt_port = broker.port
    device = Device(service)
    service.release(images.esp32("2.0.0"), "2.0.0")
    service.rollout("2.0.0")
    health = wait_for(lambda: "refuses" in (h := service.ok("GET", "/health")["mqtt"]) and h, "the reason")
    assert health.startswith("connected since") and "Not authorized" in health, health
    assert "mqtt not_taken" in service.log()
    device.close()
    broker.close()


@pytest.fixture
def choosy(tmp_path):
    """A broker that takes only whom its authority knows."""
    certificates.make_all(tmp_path)
    broker = Broker(tmp_path, "\n".join(["allow_anonymous true", *certificates.broker_lines(tmp_path)]) + "\n")
    yield broker
    broker.close()


def certified(folder, name, **env):
    return {"OTA_MQTT_TLS": "on", "OTA_MQTT_CA": folder / "ca.pem",
            "OTA_MQTT_CERT": folder / (name + ".pem"), "OTA_MQTT_KEY": folder / (name + ".key"), **env}


def test_a_broker_is_shown_a_certificate(tmp_path, far, choosy):
    service = far(choosy.port, **certified(tmp_path, "client"))
    assert service.ok("GET", "/health")["mqtt"].startswith("connected since")


@pytest.mark.parametrize("name,env,why", [
    ("client", {"OTA_MQTT_CA": "other.pem"}, "certificate verify failed"),
    ("stranger", {}, "unknown ca"),
    ("client", {"OTA_MQTT_CERT": "", "OTA_MQTT_KEY": ""}, "certificate required"),
    ("client", {"OTA_MQTT_CERT": "nowhere.pem"}, "the file of OTA_MQTT_CERT cannot be read")])
def test_the_reason_why_tls_failed_is_told(tmp_path, choosy, name, env, why):
    paths = {key: tmp_path / value if value else "" for key, value in env.items()}
    service = FarService(tmp_path / "service", env={
        "MQTT_HOST": "127.0.0.1", "MQTT_PORT": choosy.port, **certified(tmp_path, name, **paths)})
    service.connected = lambda: "not_connected" in service.log()
    service.start()
    try:
        wait_for(lambda: why in service.ok("GET", "/health")["mqtt"], "the reason")
    finally:
        service.stop()


@pytest.mark.parametrize("env,why", [
    ({"MQTT_PASSWORD": "wrong"}, "refused"), ({"OTA_MQTT_CA": "/etc/hostname"}, ""),
    ({"OTA_MQTT_TLS": "off"}, "")])
def test_a_broker_that_refuses_is_told_of(tmp_path, broker, secure, env, why):
    service = FarService(tmp_path / "service", env={
        "MQTT_HOST": "127.0.0.1", "MQTT_PORT": secure.port, "OTA_MQTT_TLS": "on",
        "OTA_MQTT_CA": tmp_path / "cert", "MQTT_USER": "ota", "MQTT_PASSWORD": "secret", **env})
    service.connected = lambda: "not_connected" in service.log()
    service.start()
    try:
        # The log says it a moment before what /health reads.
        health = wait_for(lambda: (h := service.ok("GET", "/health")) and why in h["mqtt"] and h, "the reason")
        assert health["status"] == "healthy" and health["mqtt"].startswith("connecting since"), health
    finally:
        service.stop()
