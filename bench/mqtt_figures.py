# SPDX-License-Identifier: MIT
"""The figures of the MQTT side: service and broker share a core, devices have the other."""
import json
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import time

from figures import DEVICES, Row, upload
from machine import (Beside, Failed, Mosquitto, MqttService, load, program, request, running,
                     wrk)
import machine

PUBLISHERS = 200
STEPS = 5  # messages of an update
# As many as the fleet has updates for, and less than the broker keeps.
MESSAGES_MAX = 90_000
COMMANDS = 10_000
FLEET = 10_000


def broker_conf(setting):
    """The configuration of a service's own broker, kept for the peer's."""
    kept = os.path.join(setting.folder, "broker-conf")
    if not os.path.exists(kept):
        folder = os.path.join(setting.folder, "broker-made")
        with running(MqttService(folder)):
            os.makedirs(kept)
            for name in Mosquitto.FILES:
                shutil.copyfile(os.path.join(folder, "mosquitto", name), os.path.join(kept, name))
    return kept


def peer_broker(setting):
    return running(Mosquitto(os.path.join(setting.folder, "broker"), broker_conf(setting)))


def publish(port, database, messages, rate, first, last):
    return program("bench-mqtt-load"), port, "publish", database, messages, rate, first, last


def database_of(folder):
    return f"{folder}/paku-ota.db"


def refuse_if_lost(folder, results):
    """Each message is one event, each update a success; nothing was refused or came twice."""
    want = [sum(r[key] for r in results) for key in ("messages", "accepted", "results", "results")]
    with sqlite3.connect(f"file:{database_of(folder)}?mode=ro", uri=True) as db:
        have = [db.execute(q).fetchone()[0] for q in (
            "SELECT count(*) FROM ota_events WHERE event_type GLOB 'update_*'",
            "SELECT count(*) FROM ota_events WHERE event_type = 'update_accepted'",
            "SELECT count(*) FROM ota_events WHERE event_type = 'update_completed'",
            "SELECT count(*) FROM device_update_status WHERE status = 'success'")]
        rejected = db.execute("SELECT count(*) FROM ota_rejected_messages").fetchone()[0]
    if have != want or rejected:
        raise Failed(f"of messages, accepted, results, successes {want} were sent and {have} are "
                     f"in the database; {rejected} were rejected")


def messages(setting):
    count = min(20_000 * setting.seconds, MESSAGES_MAX)

    def ours():
        folder = setting.fleets.folder_with("mqtt", DEVICES, "mqtt")
        with running(MqttService(folder)) as service:
            r = load(*publish(service.mqtt_port, database_of(folder), count, 0, 0, DEVICES))
            refuse_if_lost(folder, [r])
        return r["per_s"]

    def peer():
        with peer_broker(setting) as broker, running(Beside(
                machine.SERVER_CORE, program("bench-mqtt-loop"), broker.port, "collect",
                count)) as collector:
            collector.await_ready()
            r = load(*publish(broker.port, "-", count, 0, 0, DEVICES))
            return count / (collector.result()["ended"] - r["begun"])

    a, b = setting.pairs(ours, peer)
    yield Row("mqtt-messages", f"MQTT messages, {PUBLISHERS} devices publishing", "messages/s",
              a, b, 0.7, meaning="how near the service comes to what its connection can take at "
              "all; each is acknowledged after its fsync",
              notes=[f"{count:,} messages of whole updates, QoS 1, each a row changed and an "
                     "event; until the last is in the database; broker and service on one core; "
                     "peer: the same connection, discarding"])


def receiver(port):
    return running(Beside(machine.LOAD_CORE, program("bench-mqtt-load"), port, "receive",
                          COMMANDS))


def create_rollout(service, model="esp32", version="1.4.0"):
    """When it was answered."""
    body = {"name": "bench", "device_model": model, "firmware_version": version,
            "target_type": "all"}
    status, _, answer = request(service.port, "POST", "/api/admin/rollout/create",
                                json.dumps(body), {"Content-Type": "application/json"}, key=True)
    if status != 200:
        raise Failed(f"the rollout is answered {status}: {answer[:200]!r}")
    return time.monotonic()


def told_in(folder):
    with sqlite3.connect(f"file:{database_of(folder)}?mode=ro", uri=True) as db:
        return db.execute("SELECT count(*) FROM device_update_status"
                          " WHERE status = 'pending' AND commands = 1").fetchone()[0]


def commands(setting):
    size = []

    def ours():
        # A quarter is of the rollout's model.
        folder = setting.fleets.folder_with("commands", 4 * COMMANDS, "waiting")
        with running(MqttService(folder, OTA_DISPATCH_PER_SECOND=100_000,
                                 OTA_MAX_DOWNLOADS=1_000_000)) as service, \
                receiver(service.mqtt_port) as devices:
            devices.await_ready()
            begun = create_rollout(service)
            r = devices.result()
        written = told_in(folder)
        if r["again"] or written != COMMANDS:
            raise Failed(f"{r['told']} devices were told, {r['again']} of them again; {written} "
                         "attempts say so in the database")
        size.append(r["bytes"])
        return r["ended"] - begun

    def peer():
        with peer_broker(setting) as broker, receiver(broker.port) as devices:
            devices.await_ready()
            with running(Beside(machine.SERVER_CORE, program("bench-mqtt-loop"), broker.port,
                                "publish", COMMANDS, size[0])) as publisher:
                r = devices.result()
                return r["ended"] - publisher.result()["begun"]

    a, b = setting.pairs(ours, peer)
    yield Row("mqtt-commands", f"a rollout's creation to the last of {COMMANDS:,} commands", "s",
              a, b, 1.3, kind="ratio at most", meaning="how long the last device of a rollout "
              "waits when nothing paces it; each command is sent after its attempt is durable",
              notes=[f"commands of {size[0]} bytes, QoS 1, at one subscriber; a fleet of "
                     f"{4 * COMMANDS:,} online, a quarter of it meant; peer: the same connection "
                     "publishing as many of that size"])


class Devices:
    """Hands out devices of a fleet: each is updated once."""

    def __init__(self, first, last):
        self.next, self.last = first, last

    def take(self, count):
        """Enough for so many messages."""
        first = self.next
        self.next += count // STEPS + 2 * PUBLISHERS
        if self.next > self.last:
            raise Failed("the fleet is too small for so many rounds of so many seconds")
        return first, self.next


def latency(setting):
    rate = 2000
    count = rate * setting.seconds
    folder = setting.fleets.folder_with("mqtt", DEVICES, "mqtt")
    devices, results = Devices(0, DEVICES), []
    with running(MqttService(folder)) as service:
        for _ in range(setting.rounds):
            r = load(*publish(service.mqtt_port, database_of(folder), count, rate,
                              *devices.take(count)))
            if r["seen"] != r["results"]:
                raise Failed(f"of {r['results']} results {r['seen']} were seen")
            results.append(r)
        refuse_if_lost(folder, results)
    median = lambda key: statistics.median(r[key] for r in results)
    yield Row("mqtt-latency", f"p99 from a result published to its row, {rate:,} messages/s", "ms",
              [r["p99_ms"] for r in results], goal=50, kind="at most", meaning="how old what the "
              "operator sees is at most (but for one result in a hundred)",
              notes=[f"timed from when it was due until another connection to the database sees "
                     f"it, which looks every ms; {median('results'):.0f} results a round among "
                     f"the other messages; median {median('p50_ms'):.1f} ms, at worst "
                     f"{max(r['max_ms'] for r in results):.0f} ms"])


def checkins(setting):
    rate, half = 5000, DEVICES // 2
    count = rate * (setting.seconds + 2)
    folder = setting.fleets.folder_with("mqtt", DEVICES, "mqtt")
    devices, results = Devices(half, DEVICES), []
    with running(MqttService(folder)) as service:
        measure = lambda: wrk(service.port, "/", "checkins.lua", setting.seconds, 64, half)

        def ours():
            with running(Beside(machine.LOAD_CORE, *publish(
                    service.mqtt_port, database_of(folder), count, rate,
                    *devices.take(count)))) as publisher:
                time.sleep(1)
                per_s = measure()
                if publisher.process.poll() is not None:
                    raise Failed("the messages ended before the check-ins")
                results.append(publisher.result())
                return per_s

        measure()  # warm
        a, b = setting.pairs(ours, measure)
        refuse_if_lost(folder, results)
    stored = statistics.median(r["per_s"] for r in results)
    yield Row("mqtt-checkins", f"check-ins while {rate:,} MQTT messages/s come in", "check-ins/s",
              a, b, 0.7, meaning="how much of its answers a core keeps while a fleet reports over "
              "MQTT", notes=["64 connections, keep-alive; other devices than those that publish; "
                             f"until the last message was in the database {stored:,.0f} a second "
                             "were stored; the load's core publishes as well; peer: the same "
                             "without messages"])


def run_fleet(service, devices):
    """Simulated devices update; the summary, and the most memory of service and broker meanwhile."""
    command = machine.pinned(machine.LOAD_CORE, program("paku-fleet"), "run", "--json", "--server",
                             f"http://127.0.0.1:{service.port}", "--broker",
                             f"127.0.0.1:{service.mqtt_port}", "--devices", devices, "--model",
                             "bench-image", "--quiet", 5)
    with open(f"{service.folder}/mosquitto/pid", encoding="ascii") as f:
        broker = int(f.read().split()[0])
    most = [0, 0]
    with open(f"{service.folder}/fleet.json", "w+", encoding="utf-8") as out, subprocess.Popen(
            command, stdout=out, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OTA_API_KEY": machine.KEY}) as fleet:
        try:
            while fleet.poll() is None:
                now = service.anonymous_mb(), machine.anonymous_mb(broker)
                most = [max(a, b) for a, b in zip(most, now)]
                time.sleep(0.05)
        finally:
            fleet.kill()
        out.seek(0)
        text = out.read()
        if fleet.returncode not in (0, 1):
            raise Failed(f"paku-fleet: {fleet.stderr.read().strip()}")
    return json.loads(text), most


def fleet(setting):
    folder = os.path.join(setting.folder, "fleet")
    shutil.rmtree(folder, ignore_errors=True)
    image = random.Random(3).randbytes(200_000)
    with running(MqttService(folder, OTA_DISPATCH_PER_SECOND=1000)) as service:
        upload(service, "2.0.0", image)
        create_rollout(service, "bench-image", "2.0.0")
        summary, (ours, broker) = run_fleet(service, FLEET)
    done, differences = summary["attempts"].get("success", 0), summary["differences"]
    if not summary["consistent"] or done != FLEET:
        raise Failed(f"{done} of {FLEET} devices updated; {differences} differences "
                     "between what they saw and what is recorded")
    yield Row("mqtt-fleet", f"memory of its own while {FLEET:,} simulated devices update", "MB",
              [ours], goal=100, kind="at most", meaning="what the machine must have beside the file "
              "cache and the broker", notes=[
                  f"the most RssAnon, looked at each 50 ms; started at 2,000/s, each downloads "
                  f"{len(image):,} bytes; ended consistent after {summary['seconds']:.0f} s; the "
                  f"broker had {broker:.0f} MB"])


FIGURES = {"mqtt-messages": messages, "mqtt-commands": commands, "mqtt-latency": latency,
           "mqtt-checkins": checkins, "mqtt-fleet": fleet}
