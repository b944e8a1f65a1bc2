# SPDX-License-Identifier: MIT
"""What is old goes, in the running service: live rollouts keep their evidence, what went is counted,
and a service that is killed in the middle goes on where it was.  On both stores (PAKU_STORE)."""
import os
import random
import sqlite3

import images
import postgres
from service import wait_for
from test_conductor import events, lead, show

DAY_S = 86400
KEEP = {"OTA_KEEP_EVENTS_DAYS": "30"}


def query(service, sql):
    """Rows of integers and texts, while the service runs or not."""
    if service.schema:
        text = postgres.cluster().psql(sql, service.schema)
        return [tuple(line.split("|")) for line in text.splitlines()]
    db = sqlite3.connect("file:%s/paku-ota.db?mode=ro" % service.data, uri=True, timeout=20)
    found = [tuple("" if v is None else str(v) for v in row) for row in db.execute(sql)]
    db.close()
    return found


def number(service, sql):
    return int(query(service, sql)[0][0])


def test_old_rows_go_and_live_ones_stay(services, clock):
    service = services(env={**clock.environment(), **KEEP})
    for version in ("1.1.0", "1.2.0", "1.3.0"):
        service.release(images.esp32(version), version)
    # Over: 1.1.0, by two devices that update later, too, and one that does not.
    over = service.rollout("1.1.0", name="over", guard={"initial_unproven": 10})
    for name in ("a", "b", "once"):
        said = {"attempt_id": service.check(name)["attempt_id"]}
        service.report(name, "1.1.0", "downloading", **said)
        service.report(name, "1.1.0", "failed" if name == "b" else "success", result_code=4, **said)
        if name != "b":
            service.check(name, "1.1.0")
    assert lead(service, over, "abort", reason="enough").status_code == 200
    counts = show(service, over)["counts"]
    assert counts["success"] == 2 and counts["failed"] == 1
    # Live: 1.2.0 runs, 1.3.0 is paused.
    live = service.rollout("1.2.0", name="live", guard={"initial_unproven": 10, "prove_s": 60})
    paused = service.rollout("1.3.0", name="paused", model="esp32", is_active=False)
    for name in ("a", "b", "c"):
        said = {"attempt_id": service.check(name, "1.1.0" if name == "a" else "1.0.0")["attempt_id"]}
        service.report(name, "1.2.0", "downloading", **said)
        service.report(name, "1.2.0", "failed" if name == "c" else "success", result_code=4, **said)
        if name != "c":
            service.check(name, "1.2.0")

    def proven():
        clock.go_on(20)  # a second or so apart: what leaps by more than a minute from look to look proves nothing
        for name in ("a", "b"):
            service.check(name, "1.2.0")
        return show(service, live)["evidence"]["proven"] == 2

    wait_for(proven, "two to have proven it", every_s=1)
    before, told = show(service, live), events(service, live)
    assert before["evidence"]["failed"] == 1
    assert service.get("/api/admin/rollouts/%d/report" % over).status_code == 200
    stored = number(service, "SELECT count(*) FROM ota_events")

    service.stop()
    clock.go_on(20 * DAY_S)
    service.start()
    # Nothing is old yet.  The first pass begins within a second and ends with the events.
    assert number(service, "SELECT count(*) FROM ota_events") >= stored
    service.ok("PUT", "/api/admin/devices/a/label", json={"label": "still there"})
    clock.go_on(20 * DAY_S)
    service.restart()
    wait_for(lambda: "retention pruned" in service.log(service.log_from), "the pass to end")
    assert number(service, "SELECT count(*) FROM ota_events WHERE rollout_id = %d" % over) == 0
    assert number(service, "SELECT count(*) FROM ota_events WHERE event_type = 'device_registered'") == 0
    # Live ones keep all of it: in the rows, and in what the gate has seen.
    now = events(service, live)
    assert now[:len(told)] == told
    assert [e["event_type"] for e in events(service, paused)][0] == "rollout_created"
    after = show(service, live)
    assert {k: after["evidence"][k] for k in ("e", "proven", "failed", "halted")} == \
        {k: before["evidence"][k] for k in ("e", "proven", "failed", "halted")}
    # Each device has its newest attempt; "once" has never had another.
    assert sorted(query(service, "SELECT device_id, firmware_version FROM device_update_status")) == \
        [("a", "1.2.0"), ("b", "1.2.0"), ("c", "1.2.0"), ("once", "1.1.0")]
    # What went is counted, and the rollout's counts are what they were.
    assert sorted(query(service, "SELECT status, attempts FROM ota_daily_attempts WHERE rollout_id = %d"
                        % over)) == [("failed", "1"), ("success", "1")]
    assert show(service, over)["counts"] == counts
    # Its story is not told in half.
    for answer in (service.get("/api/admin/rollouts/%d/report" % over),
                   service.post("/api/admin/rollouts/%d/replay" % over, json={"guard": {"halt_at": 50}})):
        assert answer.status_code == 410 and "OTA_KEEP_EVENTS_DAYS" in answer.json()["detail"], answer.text
    assert service.get("/api/admin/rollouts/%d/report" % live).status_code == 200

    # Whoever tries that release anew begins with no evidence, and so it is after a restart.
    again = service.rollout("1.1.0", name="again", guard={"initial_unproven": 10},
                            target_type="all", priority=5, allow_downgrade=True)
    said = {"attempt_id": service.check("new")["attempt_id"]}
    service.report("new", "1.1.0", "downloading", **said)
    service.report("new", "1.1.0", "failed", result_code=4, **said)
    seen = show(service, again)["evidence"]
    assert (seen["failed"], seen["proven"]) == (1, 0)
    service.restart()
    assert show(service, again)["evidence"] == seen
    assert show(service, live)["evidence"]["proven"] == 2


def test_a_clock_that_is_wrong_costs_nothing(services, clock):
    """It is years ahead at the start, or jumps while the service runs."""
    service = services(env={**clock.environment(), **KEEP})
    service.release(images.esp32("1.1.0"), "1.1.0")
    service.check("a")
    had = number(service, "SELECT count(*) FROM ota_events")
    service.stop()
    clock.go_on(2000 * DAY_S)
    service.start()
    assert "retention waits nothing was stored for 2000 days" in service.log(service.log_from)
    service.check("b")  # is stored at that time
    clock.go_on(2 * DAY_S)
    wait_for(lambda: "retention waits the clock has jumped by 2 days" in service.log(service.log_from), "the jump")
    assert number(service, "SELECT count(*) FROM ota_events") == had + 1


def test_off_keeps_everything(services, clock):
    service = services(env={**clock.environment(), "OTA_KEEP_EVENTS_DAYS": "0", "OTA_LAST_SEEN_FLUSH_S": "1"})
    service.release(images.esp32("1.1.0"), "1.1.0")
    service.check("a")
    had = number(service, "SELECT count(*) FROM ota_events")
    clock.go_on(5000 * DAY_S)
    service.restart()
    service.check("b")
    # When what is only said in between has been written twice, the slow clock has gone round.
    for _ in range(2):
        seen = query(service, "SELECT last_seen FROM devices WHERE device_id = 'b'")
        clock.go_on(5)
        service.check("b")
        wait_for(lambda: query(service, "SELECT last_seen FROM devices WHERE device_id = 'b'") != seen,
                 "last_seen to be written")
    assert number(service, "SELECT count(*) FROM ota_events") == had + 1


OLD = 3000


def old_rows(service):
    """As a service without retention has left them."""
    date, boolean = ("now() - interval '900 days'", "true") if service.schema else \
        ("strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-900 days')", "1")
    series = "generate_series(1, %d) AS s(i)" % OLD if service.schema else \
        "(WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < %d) SELECT i FROM s) s" % OLD
    service.sql("INSERT INTO ota_events (id, event_type, device_id, created_at)"
                " SELECT 100000 + s.i, 'update_completed', 'x', %s FROM %s;"
                "INSERT INTO ota_events (id, event_type, created_at) VALUES (200000, 'device_edited', %s);"
                % (date, series, date.replace("900", "1")))
    service.sql("INSERT INTO device_update_status (id, device_id, firmware_version, status, settled,"
                " opened_at, reported_at, completed_at) SELECT 100000 + s.i, 'old-' || (s.i %% 50), '0.1.' ||"
                " (s.i %% 3), CASE WHEN s.i %% 4 = 0 THEN 'failed' ELSE 'success' END, 1, %s, %s, %s FROM %s;"
                % (date, date, date, series))


def test_killed_in_the_middle(services):
    """Again and again; in the end each row is there, or counted once."""
    service = services(env=KEEP)
    service.release(images.esp32("1.1.0"), "1.1.0")
    service.stop()
    old_rows(service)
    dice = random.Random(os.environ.get("PAKU_SEED", "3"))
    left = OLD
    for _ in range(2):
        service.start()
        wait_for(lambda: number(service, "SELECT count(*) FROM device_update_status") < left,
                 "some to go", every_s=dice.random() * 0.01)
        service.kill()
        left = number(service, "SELECT count(*) FROM device_update_status")
        counted = number(service, "SELECT coalesce(sum(attempts), 0) FROM ota_daily_attempts")
        assert left + counted == OLD
        assert number(service, "SELECT count(*) FROM service_state WHERE key = 'pruning'") == 0
    service.start()
    wait_for(lambda: "retention pruned" in service.log(service.log_from), "the pass to end", 60)
    # No device is known, so none has a newest attempt to keep: but the newest row of all stays.
    assert number(service, "SELECT count(*) FROM device_update_status") == 1
    assert number(service, "SELECT count(*) FROM ota_events WHERE created_at < '%s'"
                  % service.list("events", limit=1)[0]["created_at"].replace("Z", "+00" if service.schema else "Z")
                  ) in (0, 1)
    per = dict(query(service, "SELECT firmware_version || ' ' || status, sum(attempts)"
                     " FROM ota_daily_attempts GROUP BY 1"))
    want = {}
    for i in range(1, OLD):
        key = "0.1.%d %s" % (i % 3, "failed" if i % 4 == 0 else "success")
        want[key] = want.get(key, 0) + 1
    assert per == {k: str(v) for k, v in want.items()}
    assert "retention pruned" in service.log()
    # Ids go on above what was: none is given twice.
    service.check("new")
    assert service.list("events", limit=1)[0]["id"] > 100000
