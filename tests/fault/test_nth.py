# SPDX-License-Identifier: MIT
"""Call N fails, N going up until nothing fails any more: memory, writes, syncs, renames, creations.

One client, one request at a time, so that N means the same call from run to run.  Whatever fails:
the answer is 200 and it is durable, or a clear error (or, where the HTTP library has no memory for
an answer, a closed connection) and what was asked is there as a whole or not at all; the service
lives on with the descriptors it had, and the same request then succeeds.
"""
import errno
import glob
import os
import random
import time

import pytest

import faults as f
from records import Records
from service import ROOT, SANITIZED

RESTART_EVERY = 25
CHECK_EVERY = 5  # rounds in which all the records are read, not only what was asked for
# Where every call from N on fails, few N tell much that their neighbours do not; 1 takes them all.
STRIDE = int(os.environ.get("PAKU_FAULT_STRIDE", "7"))
MOST = 2000  # calls in one request; more means that it never comes to an end
PATIENCE_S = 10


def wait_until(true, what):
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, what()
        time.sleep(0.002)


class Operation:
    """One kind of request.  prepare() without faults, request() with; state() is "all" when the
    records hold what was asked, "none" when nothing of it, and anything else is half."""

    def __init__(self, service):
        self.s = service
        self.must(service.upload("base", "1.0", b"base image"))
        self.begin()

    @staticmethod
    def must(answer):
        assert answer.status == 200, answer
        return answer.json

    def begin(self):
        pass

    def offered(self, device):
        offer = self.must(self.s.check(device, "base", "0.9"))
        assert offer["update_available"], offer
        return offer


class Checkin(Operation):
    """A device's first: it registers, is exposed to the release, and its attempt opens."""

    def begin(self):
        self.must(self.s.rollout("everyone", "base", "1.0"))

    def prepare(self, n):
        return "device-%s" % n

    def request(self, device):
        return self.s.check(device, "base", "0.9")

    def accept(self, device, answer):
        assert answer.json["update_available"], answer
        assert len(answer.json["attempt_id"]) == 13, answer

    def state(self, device, records):
        found = (records.one("SELECT count(*) FROM devices WHERE device_id=?", device),
                 records.one("SELECT count(*) FROM device_update_status WHERE device_id=?"
                             " AND completed_at IS NULL", device),
                 records.one("SELECT count(*) FROM ota_events WHERE device_id=?", device))
        return {(0, 0, 0): "none", (1, 1, 3): "all"}.get(found, found)


class Report(Checkin):
    """The word that ends an attempt."""
    status, message = "success", None

    def prepare(self, n):
        device = "device-%s" % n
        return device, self.offered(device)["attempt_id"]

    def request(self, at):
        fields = {"error_message": self.message} if self.message else {}
        return self.s.report(at[0], "1.0", self.status, at[1], **fields)

    def accept(self, at, answer):
        assert answer.json["status"] == "ok", answer

    def state(self, at, records):
        row = records.rows("SELECT status, error_message FROM device_update_status"
                           " WHERE attempt_id=?", at[1])
        version = records.one("SELECT current_firmware_version FROM devices WHERE device_id=?",
                              at[0])
        assert len(row) == 1
        if row[0]["status"] == "pending":
            return "none" if version == "0.9" else version
        whole = (row[0]["status"] == self.status and
                 row[0]["error_message"] == (self.message and self.message[:2000]) and
                 version == ("1.0" if self.status == "success" else "0.9"))
        return "all" if whole else [dict(r) for r in row]


class FailedReport(Report):
    """With more words than are kept."""
    status, message = "failed", "no space left in the slot; " * 100


class RolloutCreate(Operation):
    def begin(self):
        self.must(self.s.check("here", "base", "0.9"))

    def prepare(self, n):
        return "rollout-%s" % n

    def request(self, name):
        return self.s.rollout(name, "base", "1.0", "specific",
                              target_filter={"device_ids": ["x-1", "x-2"],
                                             "mac_addresses": ["aa:bb:cc:dd:ee:ff"]})

    def accept(self, name, answer):
        assert answer.json["rollout_id"] > 0, answer

    def state(self, name, records):
        rows = records.rows("SELECT * FROM rollout_configurations WHERE name=?", name)
        if not rows:
            return "none"
        return "all" if len(rows) == 1 and "x-2" in rows[0]["target_filter"] else [dict(r) for r in rows]


class Deactivate(Operation):
    """With two devices that wait: their attempts are withdrawn."""

    def prepare(self, n):
        devices = ["a-%s" % n, "b-%s" % n]
        made = self.must(self.s.rollout("rollout-%s" % n, "base", "1.0", "specific",
                                        target_device_ids=devices))
        for d in devices:
            self.offered(d)
        return made["rollout_id"]

    def request(self, rollout):
        return self.s.deactivate(rollout)

    def accept(self, rollout, answer):
        assert answer.json["status"] == "ok", answer

    def state(self, rollout, records):
        active = records.one("SELECT is_active FROM rollout_configurations WHERE id=?", rollout)
        closed = [r["closed"] for r in records.rows(
            "SELECT closed FROM device_update_status WHERE rollout_id=?", rollout)]
        found = (active, closed)
        if found == (1, [None, None]):
            return "none"
        return "all" if found == (0, ["withdrawn", "withdrawn"]) else found


class Upload(Operation):
    image_type = "raw"

    def prepare(self, n):
        return "v-%s" % n, self.image(n)

    def image(self, n):
        return random.Random(n).randbytes(150000)

    def request(self, at):
        return self.s.upload("device", at[0], at[1], self.image_type)

    def accept(self, at, answer):
        assert answer.json["file_size"] == len(at[1]), answer
        got = self.s.download("device", at[0])
        assert got.status == 200 and got.body == at[1]

    def state(self, at, records):
        n = records.one("SELECT count(*) FROM firmware_releases WHERE version=?", at[0])
        return {0: "none", 1: "all"}.get(n, n)


class UploadEsp(Upload):
    """An image that is inspected; the smallest of the collection, where there is one."""
    image_type = "esp"

    def begin(self):
        found = glob.glob(os.path.join(ROOT, "..", "shared", "firmware", "app", "*esp8266*.bin"))
        if not found:
            pytest.skip("no ../shared/firmware: the raw upload stands for both")
        with open(min(found, key=os.path.getsize), "rb") as file:
            self.bytes = file.read()

    def image(self, n):
        return self.bytes


OPERATIONS = {"checkin": Checkin, "report": Report, "failed-report": FailedReport,
              "rollout": RolloutCreate, "deactivate": Deactivate, "upload": Upload,
              "upload-esp": UploadEsp}

ON_FILES = [(f.WRITE, errno.ENOSPC), (f.WRITE, errno.EIO), (f.SYNC, errno.EIO),
            (f.CREATE, errno.ENOSPC), (f.NAME, errno.EIO)]


class Trial:
    def __init__(self, service, faults, operation, scratch):
        self.s, self.faults, self.scratch = service, faults, scratch
        self.op = operation(service)
        self.rounds = 0
        self.answers = {}
        self.settle()
        self.files = len(service.open_files())

    def settle(self):
        """Whatever the last request left running has ended."""
        def quiet():
            m = self.s.get("/metrics")
            return m.status == 200 and m.json["http_connections"] == 1

        wait_until(quiet, lambda: "it does not come to rest: %s" % self.s.get("/metrics"))

    def records(self):
        return Records(self.s, self.scratch)

    def once(self, kinds, n, **how):
        """True when a call failed."""
        at = self.op.prepare("%s-%d" % (kinds, self.rounds))
        with self.faults.armed(kinds, n, **how):
            answer = self.op.request(at)
        struck = self.faults.injected > 0
        self.rounds += 1
        self.answers[answer.status] = self.answers.get(answer.status, 0) + 1
        self.s.check_alive()
        self.settle()
        self.check_answer(at, answer, struck, kinds)
        again = self.op.request(at)
        assert again.status == 200, again
        self.op.accept(at, again)
        health = self.s.get("/health")
        assert health.status == 200, health
        with self.records() as r:
            assert self.op.state(at, r) == "all"
            if self.rounds % CHECK_EVERY == 0:
                r.check(live=False)
        self.check_files()
        if self.rounds % RESTART_EVERY == 0:
            self.restart()
        return struck

    def check_answer(self, at, answer, struck, kinds):
        with self.records() as r:
            state = self.op.state(at, r)
            r.check_files(live=False)
        if answer.status == 200:
            self.op.accept(at, answer)
            assert state == "all", (state, answer)
            return
        assert state in ("all", "none"), (state, answer)
        assert struck, "an error without a fault: %s" % answer
        if answer.status:
            assert answer.status in (500, 503), answer
            assert isinstance(answer.json["detail"], str), answer
            if answer.status == 503:
                assert int(answer.headers["Retry-After"]) > 0
        else:
            assert kinds == f.MEMORY, "closed without an answer"

    def check_files(self):
        # A file that an image is read from may stay open for the next reader, one for all.
        wait_until(lambda: len(self.s.open_files()) <= self.files + 1,
                   lambda: "descriptors leak: %s" % self.s.open_files())

    def restart(self):
        keys = ("total_devices", "active_rollouts", "total_rollouts", "total_releases")
        before, updates = self.s.metrics(), self.s.list("update-status")
        self.s.restart()
        after = self.s.metrics()
        assert {k: before[k] for k in keys} == {k: after[k] for k in keys}
        assert updates == self.s.list("update-status")
        with self.records() as r:
            r.check(live=False)
        self.settle()

    def until_nothing_fails(self, kinds, stride=1, **how):
        for n in range(1, MOST, stride):
            if not self.once(kinds, n, **how):
                return n - 1
        raise AssertionError("there is no end of calls that fail")


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("sticky", [False, True], ids=["one", "all-from"])
@pytest.mark.skipif(SANITIZED, reason="the sanitizer has the allocator; plain builds run this")
def test_failing_allocation(start, faults, tmp_path, name, sticky):
    t = Trial(start(faults=faults), faults, OPERATIONS[name], tmp_path)
    calls = t.until_nothing_fails(f.MEMORY, sticky=sticky, stride=STRIDE if sticky else 1)
    print("%s: %d allocations, answers %s" % (name, calls, t.answers))
    assert calls > 10, "the shim is not at work"
    t.restart()


@pytest.mark.parametrize("name", OPERATIONS)
def test_failing_file_call(start, faults, tmp_path, name):
    t = Trial(start(faults=faults), faults, OPERATIONS[name], tmp_path)
    for kind, error in ON_FILES:
        calls = t.until_nothing_fails(kind, error=error)
        print("%s: %d of %s with %s, answers so far %s"
              % (name, calls, f.KINDS[kind], errno.errorcode[error], t.answers))
        is_upload = name.startswith("upload")
        assert calls > 0 or (kind in (f.CREATE, f.NAME) and not is_upload), "nothing was struck"
    t.restart()
