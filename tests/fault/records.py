# SPDX-License-Identifier: MIT
"""What is on the disk, read past the service: what a restart would find, and whether it is whole.

The rules are the contract's: the seven status words, completed_at set exactly when an attempt is
over, one open attempt for a device, every release's file there with the bytes it was said to have.
"""
import collections
import hashlib
import json
import shutil
import sqlite3

OPEN = ("pending", "downloading", "downloaded", "installing")
OVER = ("success", "failed", "rolled_back")


class Records:
    """A copy of database and log as they are now: after kill -9 the service starts from the same."""

    def __init__(self, service, scratch):
        for end in ("", "-wal"):
            source = str(service.db) + end
            target = scratch / ("copy.db" + end)
            target.unlink(missing_ok=True)
            try:
                shutil.copyfile(source, target)
            except FileNotFoundError:
                assert end, "no database at " + source
        (scratch / "copy.db-shm").unlink(missing_ok=True)
        self.firmware = service.firmware
        self.db = sqlite3.connect(scratch / "copy.db")
        self.db.row_factory = sqlite3.Row

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.db.close()

    def rows(self, sql, *args):
        return self.db.execute(sql, args).fetchall()

    def one(self, sql, *args):
        return self.db.execute(sql, args).fetchone()[0]

    def check(self, live):
        """Nothing half.  live: the service runs and may hold files of uploads that go on."""
        assert [tuple(r) for r in self.rows("PRAGMA integrity_check")] == [("ok",)]
        assert self.rows("PRAGMA foreign_key_check") == []
        self.check_files(live)
        self.check_attempts()
        self.check_events()

    def check_files(self, live):
        wanted = {}
        for r in self.rows("SELECT * FROM firmware_releases"):
            wanted[r["file_path"]] = r
        here = {p.name for p in self.firmware.iterdir()}
        missing = [n for n, r in wanted.items() if n not in here and r["deleted_at"] is None]
        assert not missing, "releases without their file: %s" % missing
        for name, r in wanted.items():
            if name not in here:
                continue
            data = (self.firmware / name).read_bytes()
            assert hashlib.sha256(data).hexdigest() == r["checksum_sha256"], name
            assert len(data) == r["file_size"], name
        if not live:
            assert here <= set(wanted), "files of no release: %s" % (here - set(wanted))

    def check_attempts(self):
        open_of = collections.Counter()
        for a in self.rows("SELECT * FROM device_update_status"):
            told = dict(a)
            over = a["completed_at"] is not None
            assert a["status"] in OPEN + OVER, told
            if a["status"] in OVER:
                assert over and a["closed"] is None and a["started_at"], told
            elif a["closed"]:
                assert over and a["status"] == "pending", told
            else:
                assert not over, told
            if a["status"] in OPEN and a["status"] != "pending":
                assert a["started_at"], told
            if a["status"] == "success":
                assert a["progress_percent"] == 100, told
            if not a["unsolicited"]:
                assert a["attempt_id"] and a["release_id"], told
                open_of[a["device_id"]] += not over
            known = "SELECT count(*) FROM devices WHERE device_id=?"
            assert self.one(known, a["device_id"]) == 1, told
        assert not [d for d, n in open_of.items() if n > 1], open_of.most_common(3)

    def check_events(self):
        """The last event of an attempt says the state that its row has; no row without an event."""
        last, types = {}, collections.defaultdict(list)
        for e in self.rows("SELECT * FROM ota_events ORDER BY id"):
            data = json.loads(e["event_data"]) if e["event_data"] else {}
            if "update_id" in data:
                last[data["update_id"]] = (e, data)
                types[data["update_id"]].append(e["event_type"])
        for a in self.rows("SELECT * FROM device_update_status"):
            if a["unsolicited"] and a["status"] == "pending":
                continue  # nothing happened to it yet
            assert a["id"] in last, "an attempt without an event: %s" % dict(a)
            event, data = last.pop(a["id"])
            assert event["device_id"] == a["device_id"], (dict(a), dict(event))
            assert data["status"] == a["status"], (dict(a), dict(event))
            assert (event["rollout_id"] or 0) == (a["rollout_id"] or 0), (dict(a), dict(event))
            if not a["unsolicited"]:
                assert types[a["id"]][0] == "update_offered", types[a["id"]]
            closed = {"update_withdrawn": "withdrawn", "update_lapsed": "lapsed"}
            assert closed.get(event["event_type"]) == a["closed"], (dict(a), dict(event))
        assert not last, "events of attempts that are not there: %s" % list(last)[:5]
        for name, count in (("firmware_uploaded", "SELECT count(*) FROM firmware_releases"),
                            ("rollout_created", "SELECT count(*) FROM rollout_configurations")):
            events = self.one("SELECT count(*) FROM ota_events WHERE event_type=?", name)
            assert events == self.one(count), name
