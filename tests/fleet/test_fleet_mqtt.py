# SPDX-License-Identifier: MIT
"""A fleet over MQTT against a stand-in that publishes commands."""
import json
import re
import subprocess

import pytest

from fleet_program import Broker
from mqtt import Client
from service import wait_for

class StandIn:
    """Hears all devices of a broker, and tells them what to install."""

    def __init__(self, broker, fake):
        self.fake = fake
        self.client = Client(broker.port).subscribe("paku/#")

    def command(self, device, version="1.2.0", form="edge", **changes):
        self.client.publish("paku/%s/%s/cmd/ota" % (form, device), {
            "url": self.fake.image_url(version, device[-13:].rjust(13, "a")),
            "checksum": self.fake.checksum(), "version": version, **changes})

    def said(self, device, tail):
        with self.client.lock:
            return [json.loads(p) for t, p in self.client.received
                    if t.split("/")[2:] == [device, *tail.split("/")]]

    def tails(self, device):
        with self.client.lock:
            return ["/".join(t.split("/")[3:]) for t, _ in self.client.received
                    if t.split("/")[2] == device and "cmd" not in t]

    def births(self, device):
        return [m for m in self.said(device, "status") if m.get("online")]

    def wait(self, device, count=1):
        return wait_for(lambda: len(self.births(device)) >= count and self.births(device),
                        "birth %d of %s" % (count, device))


@pytest.fixture
def stand_in(broker, fake):
    run = StandIn(broker, fake)
    yield run
    run.client.close()


@pytest.fixture
def start(fleet, broker, fake):
    """Starts a fleet on broker and stand-in that a signal ends."""
    def run(*args):
        return fleet.start("run", "--broker", broker.place, "--json", "--until", "time",
                           "--duration", 60, *args, service=fake)
    return run


def end(process):
    process.send_signal(2)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    return json.loads(out)


def test_a_device_does_what_the_contract_says(start, stand_in, broker):
    process = start("--devices", 3, "--seed", 5, "--model", "esp32", "--version", "1.0.0")
    first = stand_in.wait("fleet-5-1")[0]
    assert first["device_model"] == "esp32" and first["firmware_version"] == "1.0.0"
    stand_in.wait("fleet-5-0")
    stand_in.command("fleet-5-1")
    second = stand_in.wait("fleet-5-1", 2)[1]
    assert second["firmware_version"] == "1.2.0" and second["boot_id"] != first["boot_id"]
    accepted, = stand_in.said("fleet-5-1", "ota/status")
    assert accepted["status"] == "accepted" and accepted["version"] == "1.2.0"
    states = [m["state"] for m in stand_in.said("fleet-5-1", "ota/progress")]
    assert states == ["Downloading", "Verifying", "Installing", "Complete"]
    progress = stand_in.said("fleet-5-1", "ota/progress")[1]
    assert set(progress) == {"timestamp", "state", "percent", "downloaded", "total", "elapsed_ms"}
    assert progress["downloaded"] == progress["total"] == 102400
    result, = stand_in.said("fleet-5-1", "ota/result")
    assert result["success"] is True and result["result_code"] == 0 and result["version"] == "1.2.0"
    told = end(process)
    assert told["versions"] == {"1.0.0": 2, "1.2.0": 1} and told["attempts"]["success"] == 1
    assert told["mqtt"]["published"] == told["mqtt"]["acknowledged"]
    # The birth message is retained.
    late = Client(broker.port).subscribe("paku/edge/fleet-5-1/status")
    wait_for(lambda: late.received, "the retained status")
    assert json.loads(late.received[0][1])["firmware_version"] == "1.2.0"
    late.close()


def test_a_failure_gives_its_code(start, stand_in):
    process = start("--devices", 1, "--habits", "fail:8=100")
    stand_in.wait("fleet-1-0")
    stand_in.command("fleet-1-0")
    result = wait_for(lambda: stand_in.said("fleet-1-0", "ota/result"), "the result")[0]
    assert result["success"] is False and result["result_code"] == 8
    assert end(process)["attempts"]["failed"] == 1


def test_a_command_again_does_nothing_again(start, stand_in):
    process = start("--devices", 1)
    stand_in.wait("fleet-1-0")
    for _ in range(3):
        stand_in.command("fleet-1-0")
    stand_in.wait("fleet-1-0", 2)
    stand_in.command("fleet-1-0")
    wait_for(lambda: len(stand_in.said("fleet-1-0", "ota/status")) == 3, "three answers")
    told = end(process)
    assert told["offers"] == 1 and told["offers_again"] == 3
    assert told["attempts"]["success"] == 1 and told["http"]["images"] == 1


def test_a_command_that_cannot_be_read(start, stand_in):
    process = start("--devices", 1)
    stand_in.wait("fleet-1-0")
    stand_in.client.publish("paku/edge/fleet-1-0/cmd/ota", "{")
    stand_in.command("fleet-1-0", checksum="no hex")
    stand_in.command("fleet-1-0", url=stand_in.fake.image_url(attempt="bbbbbbbbbbbbb"))
    stand_in.wait("fleet-1-0", 2)
    assert end(process)["attempts"]["success"] == 1


def test_the_last_will_of_a_device_with_a_connection_of_its_own(start, stand_in):
    process = start("--devices", 4, "--connections", "each", "--habits", "brick=100")
    for i in range(4):
        stand_in.wait("fleet-1-%d" % i)
    stand_in.command("fleet-1-2")
    wait_for(lambda: {"online": False} in stand_in.said("fleet-1-2", "status"), "the last will")
    told = end(process)
    assert told["attempts"]["bricked"] == 1 and told["mqtt"]["connections"] == 3


def test_what_is_said_twice_is_the_same(start, stand_in):
    process = start("--devices", 1, "--habits", "twice=100,old_topics=100")
    stand_in.wait("fleet-1-0")
    stand_in.command("fleet-1-0", form="devices")
    stand_in.wait("fleet-1-0", 2)
    results = stand_in.said("fleet-1-0", "ota/result")
    assert len(results) == 2 and results[0] == results[1]
    with stand_in.client.lock:
        assert {t.split("/")[1] for t, _ in stand_in.client.received} == {"devices"}
    end(process)


def test_a_broker_that_goes_and_comes_back(start, stand_in, broker):
    process = start("--devices", 20, "--connections", 4)
    stand_in.wait("fleet-1-19")
    broker.stop()
    broker.start()
    late = Client(broker.port).subscribe("paku/#")
    wait_for(lambda: len({t for t, _ in late.received}) == 20, "all to say who they are again")
    late.close()
    told = end(process)
    assert told["mqtt"]["connections_lost"] >= 4
    assert told["mqtt"]["published"] == told["mqtt"]["acknowledged"]


def test_a_broker_that_refuses(fleet, fake, tmp_path):
    closed = Broker(tmp_path / "closed", ["allow_anonymous false"]).start()
    try:
        done = fleet("run", "--broker", closed.place, "--devices", 2, service=fake)
        assert done.returncode == 3
        assert re.search(r"^paku-fleet: the broker refused: ", done.err), done.err
    finally:
        closed.stop()


def test_user_and_password(fleet, fake, tmp_path):
    passwords = tmp_path / "passwords"
    passwords.touch()
    subprocess.run(["mosquitto_passwd", "-b", str(passwords), "fleet", "secret"], check=True)
    passwords.chmod(0o644)
    closed = Broker(tmp_path / "closed", ["password_file %s" % passwords, "user root"]).start()
    try:
        done = fleet("run", "--broker", closed.place, "--devices", 2, "--duration", 2, service=fake,
                     MQTT_USER="fleet", MQTT_PASSWORD="secret")
        assert done.returncode == 0, done.err
    finally:
        closed.stop()
