# SPDX-License-Identifier: MIT
"""Rows as the service sends them."""


def device(n, **changes):
    row = {"id": n, "device_id": "dev-%04d" % n, "mac_address": "24:6f:28:00:00:%02x" % (n % 256),
           "device_model": "esp32-c3", "current_firmware_version": "1.2.0",
           "last_seen": "2026-11-23T22:12:49.000000Z", "created_at": "2026-11-01T08:00:00.000000Z",
           "label": None, "hw": None}
    row.update(changes)
    return row


def release(version="1.3.0", **changes):
    row = {"id": 4, "version": version, "device_model": "esp32-c3", "file_size": 874412,
           "checksum_sha256": "ab" * 32, "is_signed": False,
           "created_at": "2026-11-23T22:00:00.000000Z", "release_notes": "fixes the pump",
           "changelog": None, "min_version": None, "image_type": "esp", "image": {"chip": "ESP32-C3"},
           "warnings": [], "learnt_versions": []}
    row.update(changes)
    return row


def rollout(**changes):
    row = {"id": 7, "name": "esp32-c3-1.3.0-all", "firmware_version": "1.3.0",
           "device_model": "esp32-c3", "target_type": "all", "target_filter": None,
           "rollout_percentage": 100, "is_active": True, "allow_downgrade": False, "max_attempts": 3,
           "created_at": "2026-11-23T22:00:00.000000Z", "updated_at": "2026-11-23T22:00:00.000000Z",
           "reason": None, "since": "2026-11-23T22:00:00.000000Z", "not_before": None,
           "deadline": None, "priority": 0, "requires": None,
           "stages": [{"percent": 100, "min_duration_s": 0}],
           "stage": {"index": 1, "of": 1, "percent": 100, "since": "2026-11-23T22:00:00.000000Z",
                     "approved": False}}
    row.update(changes)
    row.setdefault("state", "running" if row["is_active"] else "paused")
    return row


def walk(index, state="running", **changes):
    """What a rollout in stages has besides."""
    percents = [10, 25, 50, 100]
    more = {"state": state, "is_active": state in ("running", "completed"),
            "stages": [{"percent": p, "min_duration_s": 86400} for p in percents[:3]] +
                      [{"percent": 100, "min_duration_s": 0, "min_proven": 4, "approve": True}],
            "stage": {"index": index, "of": 4, "percent": percents[index - 1], "approved": False,
                      "since": "2026-11-23T22:00:00.000000Z"},
            "next": {"waits_for": "proof", "then": "stage_done", "until": None,
                     "sentence": "Stage %d waits for devices." % index}}
    more.update(changes)
    return more


def progress(targeted, on_version, **counts):
    """A rollout with its counts."""
    names = ("pending downloading downloaded installing success failed rolled_back lapsed "
             "withdrawn").split()
    return rollout(targeted=targeted, on_version=on_version,
                   progress={"seen": targeted, "proven": on_version, "needed": targeted},
                   next={"waits_for": "proof", "then": "complete", "until": None,
                         "sentence": "It waits for devices."},
                   counts={name: counts.get(name, 0) for name in names})


def update(n, device_id, status, **changes):
    done = status in ("success", "failed", "rolled_back")
    row = {"id": n, "attempt_id": "a%012d" % n, "device_id": device_id, "firmware_version": "1.3.0",
           "status": status, "closed": None, "error_message": None, "progress_percent": None,
           "started_at": "2026-11-23T22:01:00.000000Z",
           "completed_at": "2026-11-23T22:02:00.000000Z" if done else None,
           "reported_at": "2026-11-23T22:02:00.000000Z", "rollout_id": 7, "release_id": 4,
           "unsolicited": False}
    row.update(changes)
    return row


def event(n, event_type, device_id, **data):
    return {"id": n, "event_type": event_type, "device_id": device_id, "firmware_version": "1.3.0",
            "rollout_id": 7, "event_data": data, "created_at": "2026-11-23T22:02:00.000000Z",
            "created_by": "device"}
