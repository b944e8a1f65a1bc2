# SPDX-License-Identifier: MIT
"""A recorded trace, sent to a broker again."""
import json
import os
import subprocess
import time

import pytest

import certificates
from fleet_program import Broker

from mqtt import Client
from service import wait_for


@pytest.fixture
def trace(tmp_path):
    def write(*lines, name="trace"):
        path = tmp_path / name
        path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines) + "\n")
        return path
    return write


def message(at, n=0, payload="x", **more):
    return {"time": at, "topic": "paku/edge/dev-%d/ota/progress" % n, "payload": payload, **more}


def test_what_was_recorded_arrives_in_its_order(fleet, broker, trace):
    heard = Client(broker.port).subscribe("paku/#")
    lines = [message(100 + i / 1000, i % 10, {"n": i}) for i in range(500)]
    told = fleet.json("replay", trace(*lines), "--broker", broker.place, "--speed", "max")
    assert told["lines"] == told["sent"] == 500 and told["not_acknowledged"] == 0
    wait_for(lambda: len(heard.received) == 500, "all messages")
    for n in range(10):
        mine = [json.loads(p)["n"] for t, p in heard.received if t.split("/")[2] == "dev-%d" % n]
        assert mine == list(range(n, 500, 10))
    heard.close()


def test_payloads_go_out_as_they_are(fleet, broker, trace):
    heard = Client(broker.port).subscribe("paku/#")
    fleet.json("replay", trace(message(0, payload="no { JSON"), "", message(0, payload={"a": [1, "é"]}),
                               message(0, payload=""), message(0, payload="nul \x00 inside"),
                               message(0, payload=7)), "--broker", broker.place)
    wait_for(lambda: len(heard.received) == 5, "all messages")
    assert [p for _, p in heard.received] == [b"no { JSON", '{"a":[1,"é"]}'.encode(), b"",
                                              b"nul \x00 inside", b"7"]
    heard.close()


def test_retained_messages_stay(fleet, broker, trace):
    path = trace({"time": 0, "topic": "paku/edge/d/status", "payload": {}, "retain": True, "qos": 0})
    fleet.json("replay", path, "--broker", broker.place)
    late = Client(broker.port).subscribe("paku/#")
    wait_for(lambda: late.received, "the retained message")
    late.close()


def test_what_mosquitto_sub_has_written(fleet, broker, trace):
    listener = subprocess.Popen(["mosquitto_sub", "-p", str(broker.port), "-t", "paku/#", "-F", "%j",
                                 "-C", "2"], stdout=subprocess.PIPE, text=True,
                                env={**os.environ, "TZ": "America/New_York"})
    # It does not say when it listens.
    wait_for(lambda: [subprocess.run(["mosquitto_pub", "-p", str(broker.port), "-t", "paku/edge/d/status",
                                      "-r", "-m", '{"a":"\u00e9"}'], check=True)] and
             listener.poll() is not None, "two messages", every_s=0.3)
    path = trace(*listener.stdout.read().splitlines())
    heard = Client(broker.port).subscribe("paku/#")
    told = fleet.json("replay", path, "--broker", broker.place)
    assert told["sent"] == 2 and told["seconds"] < 60
    wait_for(lambda: len(heard.received) >= 3, "the messages")
    assert {p for _, p in heard.received} == {'{"a":"\u00e9"}'.encode()}
    heard.close()


def test_times_of_another_zone(fleet, broker, trace):
    told = fleet.json("replay", trace(
        {"tst": "2026-11-24T20:33:20.000000Z-0500", "topic": "a/b/c", "payload": "1", "retain": 0},
        {"tst": "2026-11-25T01:33:20.500000Z+0000", "topic": "a/b/c", "payload": "2", "retain": 1}),
        "--broker", broker.place)
    assert 0.4 < told["seconds"] < 60


@pytest.mark.parametrize("speed, least", [("20", 2.0), ("100", 0.4)])
def test_time_goes_as_fast_as_is_asked(fleet, broker, trace, speed, least):
    told = fleet.json("replay", trace(message("2026-11-25T00:00:00.000000Z"),
                                      message("2026-11-25T00:00:40.000000Z")),
                      "--broker", broker.place, "--speed", speed)
    assert least <= told["seconds"] < 30


def test_a_mistake_stops_it_before_anything_is_sent(fleet, broker, trace):
    heard = Client(broker.port).subscribe("paku/#")
    for line, words in [("{", "line 2: "), ("[]", "line 2: no JSON object"),
                        (message(-1), 'line 2: "time" must be'),
                        (message("yesterday"), 'line 2: "time" must be'),
                        (message("2026-11-25T00:00:00.000000Z+1"), 'line 2: "time" must be'),
                        (message(0), 'line 2: "time" goes back'),
                        ({"time": 2, "topic": "a/+/b", "payload": ""}, 'line 2: "topic" must be'),
                        ({"time": 2, "payload": ""}, 'line 2: "topic" must be'),
                        (message(2, qos=3), 'line 2: "qos" must be'),
                        ({"time": 2, "topic": "a"}, 'line 2: "payload" is missing')]:
        done = fleet("replay", trace(message(1), line), "--broker", broker.place)
        assert done.returncode == 2 and words in done.err, (line, done.err)
    assert fleet("replay", trace(""), "--broker", broker.place).returncode == 2
    missing = fleet("replay", "/does/not/exist", "--broker", broker.place)
    assert missing.returncode == 2 and "/does/not/exist" in missing.err
    time.sleep(0.2)
    assert not heard.received
    heard.close()


def test_no_broker_is_exit_code_3(fleet, trace):
    done = fleet("replay", trace(message(0)), "--broker", "127.0.0.1:1")
    assert done.returncode == 3 and "no broker answers at 127.0.0.1:1" in done.err


@pytest.mark.parametrize("speed", ["0", "-1", "fast", "nan", ""])
def test_a_speed_that_is_none(fleet, trace, speed):
    done = fleet("replay", trace(message(0)), "--speed=" + speed)
    assert done.returncode == 2 and "--speed is a number above 0" in done.err


@pytest.fixture
def secure(tmp_path):
    certificates.make_all(tmp_path)
    # As root mosquitto would become another user, who may not read the key.
    run = Broker(tmp_path / "secure", ("allow_anonymous true", "user root"),
                 certificates.broker_lines(tmp_path))
    yield run.start()
    run.stop()


def test_over_tls(fleet, secure, trace, tmp_path):
    own = ("--cert", tmp_path / "client.pem", "--key", tmp_path / "client.key")
    broker = ("--broker", "mqtts://" + secure.place)
    path = trace(*(message(i / 1000, i) for i in range(100)))
    told = fleet.json("replay", path, *broker, "--cacert", tmp_path / "ca.pem", *own)
    assert told["sent"] == 100 and told["not_acknowledged"] == 0
    for more, words in [((), "TLS: "),
                        (("--cacert", tmp_path / "other.pem", *own), "TLS: certificate verify failed"),
                        (("--cacert", tmp_path / "ca.pem"), "TLS: ")]:
        done = fleet("replay", path, *broker, *more, timeout=30)
        assert done.returncode == 3 and words in done.err, done.err
    done = fleet("replay", path, *broker, "--cert", tmp_path / "client.pem")
    assert done.returncode == 2 and "--cert and --key go together" in done.err
