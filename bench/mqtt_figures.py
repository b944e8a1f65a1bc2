# SPDX-License-Identifier: MIT
"""The figures of the MQTT side: service and broker share a core, devices have the other."""
import os
import shutil
import sqlite3

from figures import DEVICES, Row
from machine import Beside, Failed, Mosquitto, MqttService, load, program, running
import machine

PUBLISHERS = 200
STEPS = 5  # messages of an update
# What piles up at the broker; above 100,000 it would drop.
MESSAGES_MAX = 90_000


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
            "SELECT count(*) FROM ota_events",
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


FIGURES = {"mqtt-messages": messages}
