# SPDX-License-Identifier: MIT
"""paku-device --mqtt with a real mosquitto: commands, progress, results, cuts of every kind."""
import importlib.util
import json
import os
import pathlib
import random
import subprocess
import threading

import pytest

import certificates

from broker import Broker, Watcher, command_for, wait_for

BLOCK = 65536
SLOW = ("--speed", "1000000")


def image(seed, size=10 * BLOCK + 1234):
    return random.Random(seed).randbytes(size)


@pytest.fixture
def broker(tmp_path):
    (tmp_path / "broker").mkdir()
    b = Broker(tmp_path / "broker")
    yield b
    b.stop()


@pytest.fixture
def watcher(broker):
    w = Watcher(broker.port)
    yield w
    w.close()


class Agent:
    """One process of paku-device; its events are read as they come."""

    def __init__(self, program, directory, port, *more, device="dev:1", env=None, scheme=""):
        command = [program, "--mqtt", "%s127.0.0.1:%d" % (scheme, port), "--id", device, "--model", "m+1",
                   "--version", "1.0.0", "--dir", str(directory), "--json", *more]
        self.events, self.noise = [], []
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True,
                                        env=dict(os.environ, **(env or {})))
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.process.stderr:
            if line.startswith("{"):
                self.events.append(json.loads(line))
            else:
                self.noise.append(line)

    def names(self):
        return [e["event"] for e in list(self.events)]

    def saw(self, event, n=1):
        wait_for(lambda: self.names().count(event) >= n, "%s of %s" % (event, self.names()))

    def flashed(self, percent):
        wait_for(lambda: any(e["event"] == "progress" and "%d %%" % percent in e["message"]
                             for e in list(self.events)), "%d %% in flash" % percent)

    def said(self, message):
        wait_for(lambda: any(e["message"] == message for e in list(self.events)), message)

    def wait(self, timeout=60):
        code = self.process.wait(timeout=timeout)
        self.reader.join()
        self.process.stderr.close()
        assert not self.noise, "".join(self.noise)
        return code

    def kill(self):
        self.process.kill()
        self.wait()

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
        return self.wait()


@pytest.fixture
def otad(program, tmp_path):
    """The real service, by the class of its own tests."""
    os.environ.setdefault("PAKU_BUILD", str(pathlib.Path(program).resolve().parents[1]))
    path = pathlib.Path(__file__).parents[1] / "integration" / "service.py"
    spec = importlib.util.spec_from_file_location("integration_service", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    real = module.Service(tmp_path / "otad").start()
    yield real
    real.stop()


@pytest.fixture
def start(program, broker, tmp_path):
    agents = []

    def run(*more, **named):
        agents.append(Agent(program, tmp_path / "state", broker.port, *more, **named))
        return agents[-1]
    yield run
    for agent in agents:
        if agent.process.poll() is None:
            agent.end()


def connected(agent):
    agent.saw("mqtt_birth")
    return agent


def slot(tmp_path, n, image):
    return (tmp_path / "state" / ("slot%d" % n)).read_bytes()[:len(image)] == image


def test_update(start, watcher, service, tmp_path):
    agent = connected(start("--once", "--speed", "400000", "--mac", "aa:bb:cc:dd:ee:ff",
                            "--hw", "r2"))
    command = command_for(service, "1.1.0", image(1))
    watcher.command(command)
    assert agent.wait() == 0
    wait_for(lambda: not watcher.of("status")[-1]["online"], "the last word")

    first, second = watcher.births()
    assert (first["device_model"], first["firmware_version"]) == ("m+1", "1.0.0")
    assert (first["mac"], first["hw"]) == ("aa:bb:cc:dd:ee:ff", "r2")
    assert second["firmware_version"] == "1.1.0" and first["boot_id"] != second["boot_id"]
    assert len(second["firmware_digest"]) == 64
    accepted, = watcher.of("ota/status")
    assert (accepted["status"], accepted["version"]) == ("accepted", "1.1.0")
    result, = watcher.results()
    assert (result["success"], result["result_code"], result["version"]) == (True, 0, "1.1.0")
    assert result["attempt_id"] == "ABCDEFGHIJKLM" and result["timestamp"].endswith("Z")
    states = watcher.states()
    assert states == ["Downloading", "Verifying", "Installing", "Complete"], watcher.of("ota/progress")
    loading = [p for p in watcher.of("ota/progress") if p["state"] == "Downloading"]
    # 1.6 s of it, and one a second.
    assert 2 <= len(loading) <= 4
    assert loading[-1]["total"] == len(service.image) and loading[-1]["elapsed_ms"] >= 900
    for p in watcher.of("ota/progress"):
        assert p["percent"] == (p["downloaded"] * 100 // p["total"] if p["total"] else 0)
    # Birth before result: who says it succeeded runs it.
    topics = [(t.split("/edge/dev:1/")[1], p) for t, p, _ in watcher.said]
    assert topics.index(("status", second)) < topics.index(("ota/result", result))
    # The restart broke the connection, and the last will told so.
    assert topics.index(("status", {"online": False})) < topics.index(("status", second))
    assert slot(tmp_path, 1, service.image)
    assert service.checks == [] and service.reports == []


def test_update_of_the_real_service(start, watcher, otad, tmp_path):
    """The download of a paku-otad: its URL with its attempt, its ETag, its Content-Length."""
    key, firmware = {"X-API-Key": otad.key}, image(7)
    assert otad.session.post(
        otad.url + "/api/admin/firmware/upload", headers=key, files={"file": firmware},
        data={"version": "1.1.0", "device_model": "m+1"}).status_code == 200
    assert otad.session.post(otad.url + "/api/admin/rollout/create", headers=key, json={
        "name": "r", "firmware_version": "1.1.0", "device_model": "m+1",
        "target_type": "all"}).status_code == 200
    offer = otad.session.get(otad.url + "/api/firmware/check", params={
        "device_id": "dev:1", "device_model": "m+1", "current_version": "1.0.0"}).json()
    agent = connected(start("--once", "--speed", "2000000"))
    watcher.command({"url": offer["download_url"], "checksum": offer["checksum_sha256"],
                     "version": offer["latest_version"]})
    agent.flashed(40)
    agent.kill()
    agent = start("--once")
    assert agent.wait() == 0 and "resume" in agent.names()
    result = watcher.result()
    assert result["success"] and result["attempt_id"] == offer["attempt_id"]
    assert slot(tmp_path, 1, firmware)


def test_runs_it_already(start, watcher, service):
    agent = connected(start("--once"))
    watcher.command(command_for(service, "v1.0.0", image(1)))
    assert agent.wait() == 0
    result = watcher.result()
    assert result["success"] and result["version"] == "v1.0.0" and result["result_code"] == 0
    assert service.downloads == [] and watcher.of("ota/progress") == []


def test_duplicates_are_ignored_and_another_is_told_to_wait(start, watcher, service):
    agent = connected(start("--once", *SLOW))
    command = command_for(service, "1.1.0", image(1, 40 * BLOCK))
    watcher.command(command)
    agent.flashed(20)
    watcher.command(command)
    watcher.command(dict(command, url=command["url"] + "2"))
    agent.saw("command_duplicate", 2)
    assert watcher.results() == []
    watcher.command(dict(command, version="9", url=command["url"] + "9"))
    result = watcher.result()
    assert (result["result_code"], result["version"]) == (10, "9")
    assert agent.wait() == 0
    assert watcher.result(2)["success"] and len(watcher.results()) == 2
    assert len(watcher.of("ota/status")) == 1 and len(service.downloads) == 1


def test_told_again_after_the_end_tells_the_result_again(start, watcher, service):
    agent = connected(start())
    command = command_for(service, "1.1.0", image(1))
    command["checksum"] = "ab" * 32
    watcher.command(command)
    first = watcher.result()
    assert (first["success"], first["result_code"]) == (False, 3)
    agent.said("reported failed")  # else the restart tells it once more
    agent.kill()
    agent = connected(start())
    watcher.command(command)
    again = watcher.result(2)
    assert dict(again, timestamp=0) == dict(first, timestamp=0)
    assert len(service.downloads) == 1
    # Another attempt is another try.
    command = command_for(service, "1.1.0", image(1), "NEXTATTEMPT22")
    watcher.command(command)
    assert watcher.result(3)["success"]


def test_next_try_right_after_the_result(start, watcher, service):
    """A service answers a failure with the next attempt, which may share a packet with the PUBACK."""
    agent = connected(start())
    tries = 30
    good = command_for(service, "1.1.0", image(1, BLOCK))
    left = iter(range(1, tries))

    def retry(_client, _data, message):
        watcher.note(_client, _data, message)
        n = next(left, None) if message.topic.endswith("/result") else None
        if n is not None:
            watcher.client.publish("paku/edge/dev:1/cmd/ota", json.dumps(dict(
                good, url=good["url"].replace("ABCDEFGHIJKLM", "TRY%010d" % n),
                checksum="ab" * 32)), qos=1)
    watcher.client.on_message = retry
    watcher.command(dict(good, checksum="ab" * 32))
    watcher.result(tries)
    assert [r["result_code"] for r in watcher.results()] == [3] * tries
    assert "command_duplicate" not in agent.names()


def test_wrong_checksum(start, watcher, service):
    agent = connected(start("--once"))
    command = command_for(service, "1.1.0", image(1))
    command["checksum"] = "ab" * 32
    watcher.command(command)
    assert agent.wait() == 1
    result = watcher.result()
    assert (result["success"], result["result_code"]) == (False, 3)
    assert result["message"] == "the flash reads back another SHA-256"
    assert watcher.states()[-1] == "Failed"
    assert [b["firmware_version"] for b in watcher.births()] == ["1.0.0"]


@pytest.mark.parametrize("fail", ["selftest", "boot"])
def test_rollback(start, watcher, service, fail):
    agent = connected(start("--once", "--fail", fail))
    watcher.command(command_for(service, "1.1.0", image(1)))
    assert agent.wait() == 1
    result = watcher.result()
    assert (result["success"], result["result_code"], result["version"]) == (False, 9, "1.1.0")
    assert watcher.states()[-2:] == ["Installing", "Rolled back"]
    births = watcher.births()
    assert [b["firmware_version"] for b in births] == ["1.0.0", "1.0.0"]
    assert births[0]["boot_id"] != births[1]["boot_id"]


def test_power_cut_in_the_middle_goes_on_by_itself(start, watcher, service, tmp_path):
    agent = connected(start(*SLOW))
    watcher.command(command_for(service, "1.1.0", image(1, 40 * BLOCK)))
    agent.flashed(40)
    agent.kill()
    wait_for(lambda: watcher.of("status")[-1] == {"online": False}, "the last will")
    agent = start("--once")
    assert agent.wait() == 0
    assert watcher.result()["success"] and len(watcher.results()) == 1
    assert watcher.results()[0]["attempt_id"] == "ABCDEFGHIJKLM"
    resumed = [e["value"] for e in agent.events if e["event"] == "resume"]
    assert resumed and service.downloads[-1][0] == "bytes=%d-" % resumed[0]
    assert slot(tmp_path, 1, service.image)


def test_power_cuts_at_many_moments_lose_no_result(start, watcher, service):
    """Whatever was told, the next process ends what this one began: each update, one outcome."""
    version = 0
    for n, moment in enumerate(["command", "mqtt_connected", "begin", "verified", "switch",
                                "trial", "confirmed", "reported"] * 2):
        version += 1
        name = "2.%d.0" % version
        agent = connected(start())
        command = command_for(service, name, image(n, 2 * BLOCK + n), "ATTEMPT%06d" % n)
        watcher.command(command)
        agent.saw(moment)
        agent.kill()
        agent = start()
        wait_for(lambda: any(r["version"] == name for r in watcher.results()),
                 "the result of %s, cut at %s: %s" % (name, moment, agent.names()))
        agent.end()
        results = [r for r in watcher.results() if r["version"] == name]
        assert all(r["success"] and r["attempt_id"] == "ATTEMPT%06d" % n for r in results)


def test_command_sent_while_the_device_was_off(start, watcher, service):
    connected(start()).kill()
    watcher.command(command_for(service, "1.1.0", image(1)))
    assert start("--once").wait() == 0
    assert watcher.result()["success"]


def test_broker_gone_and_back(start, broker, service, watcher):
    agent = connected(start("--once", *SLOW))
    watcher.command(command_for(service, "1.1.0", image(1, 40 * BLOCK)))
    agent.flashed(20)
    broker.stop()
    agent.saw("mqtt_lost")
    agent.flashed(60)  # the update goes on
    broker.start()
    assert agent.wait() == 0
    assert watcher.result()["success"] and len(watcher.results()) == 1


def test_broker_gone_until_the_trial_ends(start, broker, service, watcher):
    """A new version that cannot be reached is no good: back, and the result waits for the broker."""
    agent = connected(start("--trial", "2", *SLOW))
    watcher.command(command_for(service, "1.1.0", image(1, 20 * BLOCK)))
    agent.flashed(20)
    broker.stop()
    agent.saw("rolled_back")
    broker.start()
    result = watcher.result()
    assert (result["success"], result["result_code"]) == (False, 9)
    assert agent.end() == 0


def test_no_broker_at_the_start(start, broker, service):
    broker.stop()
    agent = start("--once")
    agent.saw("mqtt_lost")
    broker.start()
    connected(agent)
    w = Watcher(broker.port)
    w.command(command_for(service, "1.1.0", image(1)))
    assert agent.wait() == 0 and w.result()["success"]
    w.close()


def test_withdrawn_is_no_failure(start, watcher, service):
    service.status = {"/api/firmware/download": [410]}
    agent = connected(start())
    watcher.command(command_for(service, "1.1.0", image(1)))
    agent.saw("withdrawn")
    wait_for(lambda: watcher.states() and watcher.states()[-1] == "Idle", "back to idle")
    assert watcher.results() == []
    # And it is open for the next one, of the same version too.
    watcher.command(command_for(service, "1.1.0", image(1), "NEXTATTEMPT22"))
    assert watcher.result()["success"]


def test_absent_image(start, watcher, service):
    service.status = {"/api/firmware/download": [404]}
    agent = connected(start("--once"))
    watcher.command(command_for(service, "1.1.0", image(1)))
    assert agent.wait() == 1 and watcher.result()["result_code"] == 2


def test_image_larger_than_a_slot(start, watcher, service):
    agent = connected(start("--once", "--slot-size", str(4 * BLOCK)))
    watcher.command(command_for(service, "1.1.0", image(1)))
    assert agent.wait() == 1 and watcher.result()["result_code"] == 8
    assert service.sent <= 4 * BLOCK or service.downloads


def test_commands_that_make_no_sense(start, watcher, service):
    agent = connected(start())
    good = command_for(service, "1.1.0", image(1))
    silent = ["", "x", "[]", "{}", "[" * 65536, b"\x00\xff", json.dumps(dict(good, version=7)),
              json.dumps(dict(good, version="v" * 10000))]
    for payload in silent:
        watcher.command(payload)
    answered = [(dict(good, url="ftp://h/f"), 6), (dict(good, url="http://h/" + "u" * 300), 6),
                (dict(good, checksum="ab"), 3), ({"version": "1.1.0"}, 6)]
    for payload, code in answered:
        watcher.command(payload)
    watcher.result(len(answered))
    assert [r["result_code"] for r in watcher.results()] == [code for _, code in answered]
    watcher.command(good)
    assert watcher.result(len(answered) + 1)["success"]
    agent.end()


def test_retained_command_is_passed_over(start, watcher, service):
    watcher.client.publish("paku/edge/dev:1/cmd/ota", json.dumps(
        command_for(service, "1.1.0", image(1))), qos=1, retain=True).wait_for_publish(20)
    agent = start()
    agent.saw("command_unclear")
    assert agent.end() == 0 and service.downloads == []


def test_last_will_and_last_word_are_retained(start, broker, watcher):
    agent = connected(start())
    wait_for(lambda: watcher.births(), "the birth")
    assert agent.end() == 0
    wait_for(lambda: watcher.of("status")[-1] == {"online": False}, "the last word")
    late = Watcher(broker.port)
    wait_for(lambda: late.said == [("paku/edge/dev:1/status", {"online": False}, True)],
             "the retained word")
    late.close()


def test_site_and_account(program, service, tmp_path):
    (tmp_path / "broker").mkdir()
    b = Broker(tmp_path / "broker", ("dev", "pass word"))
    w = Watcher(b.port, ("dev", "pass word"))
    wrong = Agent(program, tmp_path / "other", b.port, device="dev:2",
                  env={"MQTT_USER": "dev", "MQTT_PASSWORD": "no"})
    wrong.saw("mqtt_refused")
    agent = Agent(program, tmp_path / "state", b.port, "--once", "--site", "plant-7",
                  env={"MQTT_USER": "dev", "MQTT_PASSWORD": "pass word"})
    connected(agent)
    w.command(command_for(service, "1.1.0", image(1)), site="plant-7")
    assert agent.wait() == 0 and w.result()["success"]
    assert {t.split("/")[0] for t, _, _ in w.said} == {"plant-7"}
    assert wrong.end() == 0
    w.close()
    b.stop()


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pem")
    certificates.make_all(folder)
    return folder


def own(pem, name="client"):
    return ["--cert", str(pem / (name + ".pem")), "--key", str(pem / (name + ".key"))]


@pytest.fixture
def secure(tmp_path, pem):
    """Makes brokers that speak TLS, and know their clients by their certificates."""
    made = []

    def make(server="server"):
        (tmp_path / server).mkdir()
        made.append(Broker(tmp_path / server, more=certificates.broker_lines(pem, server)))
        return made[-1]
    yield make
    for b in made:
        b.stop()


def test_an_update_over_tls(program, service, tmp_path, pem, secure):
    b = secure()
    w = Watcher(b.port, tls={"ca_certs": pem / "ca.pem", "certfile": pem / "client.pem",
                             "keyfile": pem / "client.key"})
    agent = Agent(program, tmp_path / "state", b.port, "--once", "--cacert", str(pem / "ca.pem"),
                  *own(pem), scheme="mqtts://")
    connected(agent)
    w.command(command_for(service, "1.1.0", image(1)))
    assert agent.wait() == 0 and w.result()["success"]
    assert w.births()[-1]["firmware_version"] == "1.1.0"
    w.close()


@pytest.mark.parametrize("server,ca,client,words", [
    ("server", "other", "client", "TLS: certificate verify failed"),
    ("server", None, "client", "TLS: certificate verify failed"),
    ("elsewhere", "ca", "client", "TLS: host name verification failed"),
    ("server", "ca", "stranger", "TLS: "),
    ("server", "ca", None, "TLS: "),
])
def test_tls_trusts_nobody_unknown(program, tmp_path, pem, secure, server, ca, client, words):
    agent = Agent(program, tmp_path / "state", secure(server).port,
                  *(["--cacert", str(pem / (ca + ".pem"))] if ca else []),
                  *(own(pem, client) if client else []), scheme="mqtts://")
    agent.saw("mqtt_lost")
    told = [e["message"] for e in agent.events if e["event"] == "mqtt_lost"][0]
    assert words in told, told
    assert agent.end() == 0 and "mqtt_birth" not in agent.names()


def test_tls_against_a_broker_without(start, broker):
    agent = start(scheme="mqtts://")
    agent.saw("mqtt_lost")
    assert agent.end() == 0 and "mqtt_birth" not in agent.names()


@pytest.mark.parametrize("change,words", [
    (["--cert", "client.pem"], "--cert and --key go together"),
    (["--cacert", "none.pem"], "--cacert none.pem: No such file"),
    (["--cacert", "client.key"], "--cacert client.key: holds no certificate"),
    (["--cert", "client.key", "--key", "client.key"], "--cert client.key: holds no certificate"),
    (["--cert", "client.pem", "--key", "client.pem"], "--key client.pem: holds no private key"),
    (["--cert", "client.pem", "--key", "server.key"], "--key server.key: is not the key of --cert"),
    (["--mqtt", "h", "--cert", "client.pem", "--key", "client.key"], "go with --mqtt mqtts://"),
])
def test_certificates_that_are_of_no_use(program, pem, change, words):
    done = subprocess.run([program, "--mqtt", "mqtts://h", "--id", "d", "--model", "m", "--version",
                           "1", "--dir", "d", *change], cwd=pem, stderr=subprocess.PIPE, text=True,
                          timeout=60)
    assert done.returncode == 2 and words in done.stderr, done.stderr


@pytest.mark.parametrize("change,words", [
    (["--mqtt", ""], "HOST"), (["--mqtt", "h:0"], "HOST"), (["--mqtt", "h:65536"], "HOST"),
    (["--mqtt", "mqtts://"], "HOST"), (["--mqtt", "ssl://h"], "HOST"), (["--mqtt", "[::1"], "HOST"), (["--mqtt", "a:1:2"], "HOST"),
    (["--site", "a/b"], "--site"), (["--poll", "5"], "--poll"), (["--max-polls", "5"], "--poll"),
    (["--server", "ftp://x"], "--server"),
])
def test_bad_arguments(program, tmp_path, change, words):
    done = subprocess.run([program, "--mqtt", "127.0.0.1", "--id", "d", "--model", "m", "--version",
                           "1", "--dir", str(tmp_path / "d"), *change],
                          stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 2 and words in done.stderr, done.stderr
