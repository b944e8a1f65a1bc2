# SPDX-License-Identifier: MIT
"""A disk that is full for a while, and a slow one."""
import concurrent.futures
import errno
import random
import time

import pytest

import faults as f
from records import Records

IMAGE = random.Random(1).randbytes(300000)
PATIENCE_S = 10


def wait_for_health(s, status):
    end = time.monotonic() + PATIENCE_S
    while True:
        a = s.get("/health")
        if a.status == status:
            return a
        assert time.monotonic() < end, a
        time.sleep(0.02)


def refused(answer):
    assert answer.status == 503, answer
    assert "full" in answer.json["detail"], answer
    assert int(answer.headers["Retry-After"]) > 0
    return answer


def prepared(start, faults):
    """A release, a rollout, a device that was offered it, and one that has nothing to do."""
    s = start(faults=faults)
    assert s.upload("model", "1.0", b"first").status == 200
    rollout = s.rollout("first", "model", "1.0", "specific", target_device_ids=["d1", "d2"])
    assert rollout.status == 200, rollout
    offer = s.check("d1", "model", "0.9").json
    assert offer["update_available"]
    assert s.check("idle", "model", "1.0").json["update_available"] is False
    return s, rollout.json["rollout_id"], offer


def nothing_half(s, scratch):
    with Records(s, scratch) as r:
        r.check(live=False)


@pytest.mark.parametrize("shorten", [False, True], ids=["at once", "in the middle of a write"])
def test_full_disk_during_upload(start, faults, tmp_path, shorten):
    s, _, _ = prepared(start, faults)
    for after in (1, 2, 3):
        with faults.armed(f.WRITE | f.CREATE, after, errno.ENOSPC, sticky=True, shorten=shorten):
            refused(s.upload("model", "2.0-%d" % after, IMAGE))
            assert faults.injected > 0
        nothing_half(s, tmp_path)
        assert len(list(s.firmware.iterdir())) == after, "the image of 1.0 and those that followed"
        again = s.upload("model", "2.0-%d" % after, IMAGE + bytes([after]))
        assert again.status == 200, again
        assert s.download("model", "2.0-%d" % after).body == IMAGE + bytes([after])
    s.restart()
    assert len(s.list("releases")) == 4
    nothing_half(s, tmp_path)


@pytest.mark.parametrize("shorten", [False, True], ids=["at once", "in the middle of a write"])
def test_full_disk_during_commit(start, faults, tmp_path, shorten):
    s, rollout, offer = prepared(start, faults)
    requests = {
        "report": lambda: s.report("d1", "1.0", "downloading", offer["attempt_id"]),
        "check-in": lambda: s.check("d2", "model", "0.9"),
        "rollout": lambda: s.rollout("second", "model", "1.0"),
        "deactivate": lambda: s.deactivate(rollout),
    }
    with faults.armed(f.WRITE | f.CREATE, 1, errno.ENOSPC, sticky=True, shorten=shorten):
        for request in requests.values():
            refused(request())
        told = wait_for_health(s, 503)
        assert "full" in told.json["reason"], told
        # What needs no write goes on: a device with nothing to do, an offer that stands, lists.
        assert s.check("idle", "model", "1.0").status == 200
        assert s.check("d1", "model", "0.9").json["attempt_id"] == offer["attempt_id"]
        assert [u["status"] for u in s.list("update-status")] == ["pending"]
        nothing_half(s, tmp_path)
    wait_for_health(s, 200)  # by itself, without a request that writes
    for name, request in requests.items():
        a = request()
        assert a.status == 200, (name, a)
    s.restart()
    nothing_half(s, tmp_path)
    updates = {u["device_id"]: u for u in s.list("update-status")}
    assert updates["d1"]["status"] == "downloading"
    assert updates["d2"]["closed"] == "withdrawn"
    assert {r["name"]: r["is_active"] for r in s.list("rollouts")} == \
        {"first": False, "second": True}


@pytest.mark.parametrize("kinds", [f.SYNC, f.SYNC | f.WRITE | f.CREATE | f.NAME],
                         ids=["syncs", "everything"])
def test_dead_disk_and_power_cut(start, faults, tmp_path, kinds):
    """Every sync fails, and then the power: whatever the answers left in doubt is whole."""
    s, rollout, offer = prepared(start, faults)
    with faults.armed(kinds, 1, errno.EIO, sticky=True):
        for a in (s.report("d1", "1.0", "success", offer["attempt_id"]),
                  s.upload("model", "3.0", IMAGE), s.rollout("third", "model", "1.0"),
                  s.deactivate(rollout)):
            assert a.status in (500, 503), a
        wait_for_health(s, 503)
        s.kill()
    s.start()
    wait_for_health(s, 200)
    nothing_half(s, tmp_path)
    a = s.upload("model", "3.0", IMAGE)
    assert a.status == 200, a
    assert s.download("model", "3.0").body == IMAGE


def test_slow_disk(start, faults):
    """Syncs take 200 ms: who needs none does not wait, who does shares one with many."""
    s = start(faults=faults)
    assert s.upload("model", "1.0", b"first").status == 200
    for n in range(64):
        assert s.check("d%d" % n, "model", "1.0").status == 200
    before = s.metrics()
    with faults.slow_sync(0.2), concurrent.futures.ThreadPoolExecutor(40) as pool:
        reports = [pool.submit(s.report, "d%d" % (n % 64), "x%d" % n, "downloading")
                   for n in range(320)]
        times = []
        while not all(r.done() for r in reports):
            begin = time.perf_counter()
            a = s.check("d%d" % (len(times) % 64), "model", "1.0")
            times.append(time.perf_counter() - begin)
            assert a.status == 200, a
        assert all(r.result().status == 200 for r in reports)
    after = s.metrics()
    commits = after["commits_total"] - before["commits_total"]
    commands = after["commands_total"] - before["commands_total"]
    times.sort()
    p90 = times[len(times) * 9 // 10]
    print("%d check-ins, p90 %.1f ms, slowest %.1f ms; %d reports in %d commits"
          % (len(times), p90 * 1000, times[-1] * 1000, commands, commits))
    assert len(times) >= 100, "too few to tell"
    assert p90 < 0.1
    assert commands >= 320
    assert commits * 8 <= commands, "reports do not share their commits"
