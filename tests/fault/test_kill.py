# SPDX-License-Identifier: MIT
"""kill -9 at a random moment under load, again and again on the same folder.

Clients remember what was answered with 200 and what was on its way.  After each restart all of the
first is there, each of the second is there as a whole or not at all, and nothing is half.

    PAKU_FAULT_ROUNDS=1000   so many rounds (default 10)
    PAKU_SEED=1234           the same choices again (the seed is printed)
"""
import hashlib
import itertools
import os
import random
import threading
import time

from records import Records
from service import Crew, Service

ROUNDS = int(os.environ.get("PAKU_FAULT_ROUNDS", "10"))
SEED = int(os.environ.get("PAKU_SEED", "0")) or random.SystemRandom().randrange(1, 2 ** 32)
REPORTERS = 6
DEVICES_EACH = 8
RANK = {"pending": 0, "downloading": 1, "downloaded": 2, "installing": 3,
        "success": 4, "failed": 4, "rolled_back": 4}
STEPS = ("downloading", "downloaded", "installing")


class Ledger:
    """What the clients were told.  Shared by the threads, under one lock."""

    def __init__(self):
        self.lock = threading.Lock()
        self.releases = {}     # version -> image, answered with 200
        self.sent = {}         # version -> image, answered or not
        self.rollouts = {}     # name -> id
        self.inactive = set()  # rollouts deactivated
        self.attempts = {}     # attempt_id -> (device, best status answered with "recorded")
        self.asked = {}        # attempt_id -> statuses sent, answered or not
        self.strangers = {}    # version nobody knows -> (device, status)
        self.numbers = itertools.count(1)
        self.answered = 0

    def number(self):
        with self.lock:
            self.answered += 1
            return next(self.numbers)


class Client:
    """One thread's work; ends when the service is killed, and only then may an answer be missing."""

    def __init__(self, service, ledger, crew, seed):
        self.s, self.ledger, self.ending = service, ledger, crew.ending
        self.random = random.Random(seed)

    def run(self, step):
        while not self.ending.is_set():
            if not step():
                return

    def good(self, answer):
        """False: the service is gone.  Anything else but 200 is not in order."""
        assert answer.status == 200 or (answer.status == 0 and self.s.killed.is_set()), answer
        return answer.status == 200

    def report(self, device, version, status, attempt):
        with self.ledger.lock:
            self.ledger.asked.setdefault(attempt, []).append(status)
        percent = {"progress_percent": 30} if status == "downloading" else {}
        a = self.s.report(device, version, status, attempt, **percent)
        if not self.good(a):
            return False
        if a.json["message"] == "recorded":
            with self.ledger.lock:
                self.ledger.attempts[attempt] = (device, status)
        return True

    def device_step(self, devices):
        device = self.random.choice(devices)
        a = self.s.check(device, "model", self.versions.get(device, "0.1.0"))
        if not self.good(a):
            return False
        offer = a.json
        if not offer["update_available"]:
            return self.stranger(device)
        with self.ledger.lock:
            self.ledger.attempts.setdefault(offer["attempt_id"], (device, "pending"))
        version = offer["latest_version"]
        for status in STEPS[:self.random.randrange(4)]:
            if not self.report(device, version, status, offer["attempt_id"]):
                return False
        last = self.random.choice(["success", "success", "failed", None])
        if last == "success":
            self.versions[device] = version
        return last is None or self.report(device, version, last, offer["attempt_id"])

    def stranger(self, device):
        """A report about a version that nobody uploaded is recorded all the same."""
        version = "own-%d" % self.ledger.number()
        a = self.s.report(device, version, "downloading")
        if not self.good(a):
            return False
        with self.ledger.lock:
            self.ledger.strangers[version] = (device, "downloading")
        return True

    def report_for_ever(self, devices, versions):
        self.versions = versions
        self.run(lambda: self.device_step(devices))

    def upload_step(self):
        version = "%d.0.0" % self.ledger.number()
        image = self.random.randbytes(self.random.choice([100, 5000, 70000, 300000]))
        with self.ledger.lock:
            self.ledger.sent[version] = image
        if not self.good(self.s.upload("model", version, image)):
            return False
        with self.ledger.lock:
            self.ledger.releases[version] = image
        return True

    def upload_for_ever(self):
        self.run(self.upload_step)

    def rollout_step(self):
        with self.ledger.lock:
            versions = list(self.ledger.releases)
            active = [n for n in self.ledger.rollouts if n not in self.ledger.inactive]
        if len(active) > 3:
            name = self.random.choice(active)
            if not self.good(self.s.deactivate(self.ledger.rollouts[name])):
                return False
            with self.ledger.lock:
                self.ledger.inactive.add(name)
        if not versions:
            return True
        name = "rollout-%d" % self.ledger.number()
        a = self.s.rollout(name, "model", self.random.choice(versions[-5:]), "canary",
                           rollout_percentage=self.random.choice([30, 100]), max_attempts=1000,
                           guard="off")  # what is active is the ledger's to say
        if not self.good(a):
            return False
        with self.ledger.lock:
            self.ledger.rollouts[name] = a.json["rollout_id"]
        self.ending.wait(0.02)
        return True

    def rollout_for_ever(self):
        self.run(self.rollout_step)


def load(service, ledger, fleet, rng):
    crew = Crew()
    for devices, versions in fleet:
        crew.add(Client(service, ledger, crew, rng.random()).report_for_ever, devices, versions)
    crew.add(Client(service, ledger, crew, rng.random()).upload_for_ever)
    crew.add(Client(service, ledger, crew, rng.random()).rollout_for_ever)
    crew.start()
    return crew


def check_attempts(service, ledger):
    rows = service.list("update-status")
    by_attempt = {r["attempt_id"]: r for r in rows if r["attempt_id"]}
    assert len(by_attempt) == len([r for r in rows if r["attempt_id"]])
    for attempt, (device, status) in ledger.attempts.items():
        row = by_attempt.get(attempt)
        assert row, "attempt %s of %s was offered and is lost" % (attempt, device)
        assert row["device_id"] == device
        if status == "pending":
            continue
        # At least what was acknowledged, at most what was sent: nothing lost, nothing made up.
        told = (attempt, status, ledger.asked[attempt], row)
        assert RANK[row["status"]] >= RANK[status], told
        if RANK[status] == 4:
            assert row["status"] == status, told
    by_version = {r["firmware_version"]: r for r in rows if r["unsolicited"]}
    for version, (device, status) in ledger.strangers.items():
        row = by_version.get(version)
        assert row and row["device_id"] == device and row["status"] == status, (version, row)


def check_plan(service, ledger, new):
    releases = {r["version"]: r for r in service.list("releases")}
    for version, image in ledger.releases.items():
        assert version in releases, "release %s was acknowledged and is lost" % version
    for version, r in releases.items():
        image = ledger.sent[version]
        assert r["checksum_sha256"] == hashlib.sha256(image).hexdigest()
        assert r["file_size"] == len(image)
        if version in new:
            got = service.download("model", version)
            assert got.status == 200 and got.body == image, version
    rollouts = {r["name"]: r for r in service.list("rollouts")}
    for name, number in ledger.rollouts.items():
        assert rollouts[name]["id"] == number, name
        if name in ledger.inactive:
            assert not rollouts[name]["is_active"], name


def check_round(service, ledger, scratch, new):
    with Records(service, scratch) as records:
        records.check(live=False)
    check_attempts(service, ledger)
    check_plan(service, ledger, new)
    health = service.get("/health")
    assert health.status == 200, health


def test_kill_under_load(tmp_path):
    print("seed %d, %d rounds" % (SEED, ROUNDS))
    rng = random.Random(SEED)
    service, ledger = Service(tmp_path / "service"), Ledger()
    fleet = [(["d%d-%d" % (i, k) for k in range(DEVICES_EACH)], {}) for i in range(REPORTERS)]
    service.start()
    try:
        for n in range(ROUNDS):
            before = set(ledger.releases)
            crew = load(service, ledger, fleet, rng)
            # The moment is the experiment, not something to wait for.
            crew.ending.wait(rng.uniform(0.05, 1.0))
            service.kill()
            crew.end()
            service.start()
            check_round(service, ledger, tmp_path, set(ledger.sent) - before)
    except BaseException:
        print("PAKU_SEED=%d, round %d" % (SEED, n + 1))
        raise
    finally:
        service.stop()
    print("%d attempts, %d releases, %d rollouts, %d reports of others, all there"
          % (len(ledger.attempts), len(ledger.releases), len(ledger.rollouts),
             len(ledger.strangers)))
    assert ledger.attempts and ledger.releases and ledger.rollouts and ledger.inactive
