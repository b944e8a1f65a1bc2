# SPDX-License-Identifier: MIT
"""Disks that are full or stuck, and a clock that jumps."""
import os
import sqlite3
import subprocess

import pytest

import images
from service import wait_for

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a few MiB; and ways to fill it and to make room."""
    where = tmp_path / "disk"
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "tmpfs", str(where)],
                   check=True)
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


def fill(where):
    with open(where / "filler", "ab", buffering=0) as f:
        for size in (65536, 4096):
            try:
                while True:
                    f.write(bytes(size))
            except OSError:
                pass


def make_room(where):
    os.remove(where / "filler")


@needs_root
def test_the_disk_full_during_an_upload(services, small_disk):
    service = services(env={"FIRMWARE_STORAGE_PATH": str(small_disk)})
    service.release(images.big(1 << 20), "1", "pi")
    answer = service.upload(images.big(5 << 20), "2", "pi")
    assert answer.status_code == 503, answer.text
    assert "full" in answer.json()["detail"] and int(answer.headers["Retry-After"]) > 0
    assert len(service.list("releases")) == 1
    wait_for(lambda: len(os.listdir(small_disk)) == 1, "the half upload to go")
    # What is there goes on, and there is room for what fits.
    service.release(images.big(2 << 20), "2", "pi")


@needs_root
def test_the_disk_full_during_a_commit(services, small_disk, tmp_path):
    service = services(env={"OTA_DATA_DIR": str(small_disk),
                            "FIRMWARE_STORAGE_PATH": str(tmp_path / "firmware")})
    service.release(images.esp32("1.2.0"), "1.2.0")
    # It does not complete meanwhile.
    service.rollout("1.2.0", stages=[{"percent": 100, "min_duration_s": 86400}])
    service.check("known", "1.2.0")
    fill(small_disk)

    def refused():
        answer = service.session.get(service.url + "/api/firmware/check", params={
            "device_id": "d-%s" % os.urandom(4).hex(), "device_model": "esp32",
            "current_version": "x" * 100})
        return [answer] if answer.status_code == 503 else None  # a refusal counts as false

    answer, = wait_for(refused, "the disk to be noticed")
    assert "full" in answer.json()["detail"] and int(answer.headers["Retry-After"]) > 0
    health = service.get("/health")
    assert health.status_code == 503 and health.json()["status"] == "unhealthy"
    assert "full" in health.json()["reason"]
    report = service.post("/api/device/known/update-status", json={
        "device_id": "known", "firmware_version": "1.2.0", "status": "failed"})
    assert report.status_code == 503
    assert service.upload(images.esp32("1.3.0"), "1.3.0").status_code == 503
    assert service.post("/api/admin/rollout/1/deactivate").status_code == 503
    # Reading goes on: a device that says nothing new is answered, images are sent.
    assert service.check("known", "1.2.0")["update_available"] is False
    assert service.session.get(service.url + "/api/firmware/download/1.2.0").status_code == 200
    assert len(service.list("releases")) == 1
    assert service.list("rollouts")[0]["is_active"] is True

    make_room(small_disk)
    wait_for(lambda: service.get("/health").status_code == 200, "the service to be well again")
    service.report("known", "1.2.0", "failed")
    service.release(images.esp32("1.3.0"), "1.3.0")
    before = {name: service.list(name, limit=1000) for name in ("releases", "rollouts", "updates")}
    service.kill()
    service.start()
    assert before == {name: service.list(name, limit=1000) for name in before}
    assert len(os.listdir(tmp_path / "firmware")) == 2


@needs_root
def test_no_room_at_the_start(services, small_disk):
    fill(small_disk)
    done = services(start=False).run(env={"OTA_DATA_DIR": str(small_disk)})
    assert done.returncode == 1
    assert str(small_disk) in done.stderr and done.stderr.count("\n") == 1


def test_a_store_that_somebody_locks(service):
    """Health tells it, and that it is over."""
    service.check("known")
    db = sqlite3.connect(os.path.join(service.data, "paku-ota.db"), isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    try:
        answer = service.session.get(service.url + "/api/firmware/check", timeout=60, params={
            "device_id": "new", "device_model": "m", "current_version": "1"})
        assert answer.status_code == 503, answer.text
        assert "locked" in answer.json()["detail"]
        health = service.get("/health")
        assert health.status_code == 503 and "locked" in health.json()["reason"]
        assert service.check("known")["update_available"] is False
    finally:
        db.execute("ROLLBACK")
        db.close()
    wait_for(lambda: service.get("/health").status_code == 200, "the service to be well again")
    service.check("new", model="m")
    assert len(service.list("devices")) == 2


def test_the_clock_set_back_an_hour(services, clock):
    """Order is by ids and by a time that never runs backwards."""
    service = services(env=clock.environment())
    service.release(images.esp32("1.2.0"), "1.2.0")
    service.rollout("1.2.0")
    first = service.check("d1")
    clock.set(-3600)
    service.check("d2")
    service.report("d1", "1.2.0", "downloading")
    service.report("d1", "1.2.0", "success")
    assert service.check("d1", "1.2.0")["update_available"] is False

    def ordered():
        row = service.list("updates", device_id="d1")[0]
        assert row["attempt_id"] == first["attempt_id"] and row["status"] == "success"
        assert row["started_at"] <= row["completed_at"] <= row["reported_at"]
        times = [e["created_at"] for e in service.list("events")]
        assert times == sorted(times, reverse=True)
        assert [d["device_id"] for d in service.list("devices")] == ["d1", "d2"]

    ordered()
    # Started again with the clock still behind: what is new comes after what is there.
    service.restart()
    ordered()
    assert "clock_behind" in service.log()
    service.check("d3")
    assert [d["device_id"] for d in service.list("devices")] == ["d3", "d1", "d2"]
    times = [e["created_at"] for e in service.list("events")]
    assert times == sorted(times, reverse=True)
