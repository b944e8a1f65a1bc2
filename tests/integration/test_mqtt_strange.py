# SPDX-License-Identifier: MIT
"""Brokers that do what no good one does, each on a real socket: the service loses nothing, sends nothing that it
should not, and says what is wrong."""
import fcntl
import json
import socket
import struct
import termios
import threading
import time

import pytest

import images
from mqtt import FarService, rows
from service import wait_for

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PING, PONG = (
    1, 2, 3, 4, 8, 9, 10, 11, 12, 13)


def text(s):
    return struct.pack("!H", len(s)) + s.encode()


def packet(kind, body, flags=0):
    size, n = b"", len(body)
    while True:
        size += bytes([n % 128 | (128 if n > 127 else 0)])
        n //= 128
        if not n:
            return bytes([kind << 4 | flags]) + size + body


class Line:
    """One connection of the service."""

    def __init__(self, broker, sock):
        self.broker, self.sock, self.name = broker, sock, None
        self.subscribed, self.unanswered, self.at = False, [], time.monotonic()

    def read(self, n):
        data = b""
        while len(data) < n:
            more = self.sock.recv(n - len(data))
            if not more:
                raise ConnectionError
            data += more
        return data

    def run(self):
        try:
            while True:
                head, size, shift = self.read(1)[0], 0, 0
                while True:
                    digit = self.read(1)[0]
                    size |= (digit & 127) << shift
                    shift += 7
                    if digit < 128:
                        break
                self.heard(head >> 4, self.read(size))
        except OSError:
            self.close()

    def heard(self, kind, body):
        if kind == CONNECT:  # name, level, flags, keepalive; properties; client id
            size = struct.unpack("!H", body[11 + body[10]:13 + body[10]])[0]
            self.name = body[13 + body[10]:13 + body[10] + size].decode()
        if self.broker.on_packet(self, kind):
            return
        if kind == CONNECT:
            self.send(CONNACK, b"\0\0\3" + b"\x21" + struct.pack("!H", self.broker.window))
        elif kind == SUBSCRIBE:
            self.send(SUBACK, body[:2] + b"\0" + b"\1" * 8)
            self.subscribed = True
        elif kind == UNSUBSCRIBE:
            self.send(UNSUBACK, body[:2] + b"\0" + b"\0" * 8)
        elif kind == PING:
            self.send(PONG, b"")
        elif kind == PUBACK:
            self.broker.acknowledged.add(struct.unpack("!H", body[:2])[0])
        elif kind == PUBLISH:
            end = 2 + struct.unpack("!H", body[:2])[0]
            self.broker.published.append((body[2:end].decode(), body[end + 3 + body[end + 2]:]))
            self.unanswered.append(body[end:end + 2])
            if self.broker.acknowledges:
                self.acknowledge()

    def acknowledge(self, count=None):
        ids, self.unanswered = self.unanswered[:count], self.unanswered[count or len(self.unanswered):]
        for one in ids:
            self.send(PUBACK, one)

    def send(self, kind, body, flags=0):
        try:
            self.sock.sendall(packet(kind, body, flags))
        except OSError:
            pass

    def say(self, number, topic, payload, again=False):
        if not isinstance(payload, bytes):
            payload = json.dumps(payload).encode()
        self.send(PUBLISH, text(topic) + struct.pack("!H", number) + b"\0" + payload, 2 | (8 if again else 0))

    def close(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()


class StrangeBroker:
    """Speaks MQTT 5 as far as the service does; tests say what it does wrong."""

    def __init__(self):
        self.window, self.acknowledges = 65535, True
        self.published, self.acknowledged, self.lines = [], set(), []
        self.on_packet = lambda line, kind: False  # True: that is all for it
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            line = Line(self, sock)
            self.lines.append(line)
            threading.Thread(target=line.run, daemon=True).start()

    def collecting(self):
        """The connection that takes what devices say; the newest."""
        return wait_for(lambda: next((l for l in reversed(self.lines) if l.subscribed and l.sock.fileno() >= 0), None),
                        "a subscription")

    def telling(self):
        return wait_for(lambda: next((l for l in reversed(self.lines)
                                      if l.name and l.name.endswith("-tell") and l.sock.fileno() >= 0), None),
                        "the other connection")

    def commands(self):
        return [t for t, _ in self.published if t.endswith("/cmd/ota")]

    def close(self):
        self.listener.close()
        for line in self.lines:
            line.close()


@pytest.fixture
def broker():
    broker = StrangeBroker()
    yield broker
    broker.close()


@pytest.fixture
def service(tmp_path, broker):
    service = FarService(tmp_path / "service", env={
        "MQTT_HOST": "127.0.0.1", "MQTT_PORT": broker.port, "OTA_DISPATCH_PER_SECOND": 1000})
    yield service
    service.stop()


def unread(sock):
    """Bytes that the other side's kernel did not take yet."""
    return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0\0\0\0"))[0]


def births(line, count, first=0):
    for n in range(first, count):
        line.say(n + 1, "paku/edge/d%02d/status" % n, {"device_model": "esp32", "firmware_version": "1.0.0"})


def test_a_broker_that_acknowledges_nothing(service, broker):
    """What it has no room for waits with us, and is not sent any more when its rollout ends."""
    broker.window, broker.acknowledges = 5, False
    service.start()
    births(broker.collecting(), 20)
    wait_for(lambda: len(service.list("devices")) == 20, "the devices")
    service.release(images.esp32("2.0.0"), "2.0.0")
    rollout = service.rollout("2.0.0")
    wait_for(lambda: len(broker.commands()) >= 4, "what fits")
    wait_for(lambda: len(service.list("updates")) == 20, "all attempts to be open")
    assert len(broker.commands()) <= 5
    service.ok("POST", "/api/admin/rollout/%d/deactivate" % rollout)
    before = len(broker.commands())
    broker.acknowledges = True
    broker.telling().acknowledge()
    births(broker.collecting(), 1)
    service.rollout("2.0.0", target_type="specific", name="one", target_filter={"device_ids": ["d00"]})
    wait_for(lambda: len(broker.commands()) > before, "the command of another rollout")
    assert broker.commands()[before:] == ["paku/edge/d00/cmd/ota"]


def test_who_does_not_answer_is_told_of(service, broker):
    """All of its windows have passed, and no last will came."""
    service.extra["OTA_COMMAND_TIMEOUT_S"] = 1
    service.start()
    births(broker.collecting(), 1)
    wait_for(lambda: service.list("devices"), "the device")
    service.release(images.esp32("2.0.0"), "2.0.0")
    service.rollout("2.0.0")
    wait_for(broker.commands, "the command")
    service.stop()
    service.sql("UPDATE device_update_status SET commands = 4")
    service.start()
    row = wait_for(lambda: (r := service.update_of("d00"))["completed_at"] and r, "the lapse")
    assert (row["status"], row["closed"], row["why"]) == ("pending", "lapsed", "unanswered")
    why = service.ok("GET", "/api/admin/devices/d00/explain")["sentence"]
    assert why.endswith(" Its commands were unanswered; it is told again when it is next seen."), why


def test_a_broker_that_gives_one_place_at_a_time(service, broker):
    """Each is taken, and none of them is a transaction of one command."""
    broker.window, broker.acknowledges = 5, False
    service.extra.update(OTA_DISPATCH_PER_SECOND="100000", OTA_MAX_DOWNLOADS="10000",
                       OTA_NEW_DEVICES_PER_SECOND="100000")
    service.start()
    births(broker.collecting(), 1500)
    wait_for(lambda: broker.acknowledged >= set(range(1, 1501)), "the devices")
    births(broker.collecting(), 3000, 1500)
    wait_for(lambda: broker.acknowledged >= set(range(1, 3001)), "all the devices")
    service.release(images.esp32("2.0.0"), "2.0.0")
    service.rollout("2.0.0")
    opened = "SELECT count(*), count(DISTINCT commanded_at) FROM device_update_status"
    wait_for(lambda: rows(service, opened)[0][0] >= 1000, "attempts to be open")
    wait_for(lambda: len(broker.commands()) >= 4, "what fits")
    (_, before), = rows(service, opened)
    for _ in range(60):
        told = len(broker.commands())
        broker.telling().acknowledge(1)
        wait_for(lambda: len(broker.commands()) > told, "the next")
    (_, after), = rows(service, opened)
    assert after - before < 30


def birth(version, boot):
    return "status", {"device_model": "esp32", "firmware_version": version, "boot_id": boot}


BEGUN = [("ota/status", {"timestamp": 1790000001, "status": "accepted", "version": "2.0.0"}),
         ("ota/progress", {"timestamp": 1790000002, "state": "Downloading", "percent": 40}),
         ("ota/progress", {"timestamp": 1790000003, "state": "Installing", "percent": 100})]
GOOD = ("ota/result", {"timestamp": 1790000004, "version": "2.0.0", "success": True, "result_code": 0})
BACK = ("ota/status", {"timestamp": 1790000005, "status": "rolled_back", "version": "2.0.0"})


@pytest.mark.parametrize("words,status,runs", [
    ([birth("1.0.0", 1), *BEGUN, GOOD, birth("2.0.0", 2)], "success", "2.0.0"),
    ([birth("1.0.0", 1), *BEGUN, GOOD], "success", "2.0.0"),  # not started anew yet
    ([birth("1.0.0", 1), *BEGUN, birth("2.0.0", 2), BACK], "rolled_back", "1.0.0"),
    ([birth("1.0.0", 1), *BEGUN, GOOD, birth("1.0.0", 2)], "rolled_back", "1.0.0"),
    ([birth("1.0.0", "1.0.0"), *BEGUN, birth("2.0.0", "2.0.0")], "success", "2.0.0")],
    ids=["success", "before the restart", "rolled back", "back unseen", "boots named like versions"])
def test_a_broker_that_redelivers_everything(service, broker, words, status, runs):
    """On each connection all that it ever had, acknowledged or not: nothing counts twice."""
    service.start()
    service.release(images.esp32("2.0.0"), "2.0.0")
    service.rollout("2.0.0")
    line = broker.collecting()
    line.say(1, "paku/edge/d00/" + words[0][0], words[0][1])
    wait_for(broker.commands, "the command")
    for number, (tail, payload) in enumerate(words[1:], 2):
        line.say(number, "paku/edge/d00/" + tail, payload)
    everything = set(range(1, len(words) + 1))
    wait_for(lambda: broker.acknowledged >= everything, "all to be acknowledged")

    def picture():
        return (service.list("updates"), [e["event_type"] for e in service.list("events", device_id="d00")],
                service.list("devices")[0]["current_firmware_version"])

    before = picture()
    assert [u["status"] for u in before[0]] == [status] and before[2] == runs, before
    for again in range(3):
        line.close()
        line = broker.collecting()
        broker.acknowledged.clear()
        for number, (tail, payload) in enumerate(words, 1):
            line.say(number, "paku/edge/d00/" + tail, payload, again=True)
        wait_for(lambda: broker.acknowledged >= everything, "all to be acknowledged")
        assert picture() == before
    assert len(broker.commands()) == 1


@pytest.mark.parametrize("at", [CONNECT, SUBSCRIBE, PUBACK])
def test_a_broker_that_closes(service, broker, at):
    """Whenever it does: HTTP works on, and what was not acknowledged counts once when it comes again."""
    closing = True

    def close(line, kind):
        if closing and kind == at:
            line.close()
        return closing and kind == at

    broker.on_packet = close
    service.connected = lambda: broker.lines
    service.start()
    had = len(broker.lines)
    result = {"version": "7.0.0", "success": True, "result_code": 0}
    for again in range(4):
        if at == PUBACK:
            broker.collecting().say(1, "paku/edge/d00/ota/result", result, again=again > 0)
        wait_for(lambda: len(broker.lines) > had + again, "another connection")
    assert service.check("by-http")["update_available"] is False
    closing = False
    broker.collecting().say(1, "paku/edge/d00/ota/result", result, again=True)
    wait_for(lambda: 1 in broker.acknowledged, "the acknowledgement", 40)
    assert [(u["firmware_version"], u["status"]) for u in service.list("updates")] == [("7.0.0", "success")]
    assert len(service.list("events", device_id="d00", event_type="update_completed")) == 1


def test_a_broker_that_lets_us_in_and_closes_is_asked_ever_more_rarely(service, broker):
    broker.on_packet = lambda line, kind: kind == SUBSCRIBE and not line.close()
    service.connected = lambda: broker.lines
    service.start()
    tries = wait_for(lambda: (t := [l.at for l in broker.lines if l.name and l.name.endswith("-collect")])[4:] and t,
                     "five connections")
    assert tries[4] - tries[3] > 0.9, tries


def test_a_packet_of_256_mib_announced(service, broker):
    """No memory is taken for what a broker only announces, and another connection is made when it breaks off."""
    service.start()
    line = broker.collecting()
    before = service.memory_kib("VmHWM")
    line.sock.sendall(bytes([PUBLISH << 4 | 2, 0xFF, 0xFF, 0xFF, 0x7F]) + text("paku/edge/d00/ota/result") +
                      bytes(100000))
    wait_for(lambda: unread(line.sock) == 0, "all to be read")
    line.close()
    births(broker.collecting(), 1)
    wait_for(lambda: service.list("devices"), "the next connection's device")
    # A sanitizer's shadow of what is allocated counts as ours.
    if "asan" not in service.program and "tsan" not in service.program:
        assert service.memory_kib("VmHWM") < before + 16 * 1024
