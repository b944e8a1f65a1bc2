# SPDX-License-Identifier: MIT
"""What only PostgreSQL can do to the service: go away, come back, forget, refuse."""
import contextlib
import hashlib
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

import images
import postgres
from pgproxy import Proxy
from service import wait_for
from test_manager import ear  # noqa: F401


@pytest.fixture
def service(services):
    return services(store="postgresql")


@pytest.fixture
def proxy():
    p = Proxy(postgres.cluster())
    yield p
    p.close()


@pytest.fixture
def through(services, proxy):
    """A service whose line to the database can be cut."""
    return services(store="postgresql", env=proxy.environment())


def psql(service, sql):
    return postgres.cluster().psql(sql, service.schema)


def health(service):
    answer = service.get("/health")
    return answer.status_code, answer.json().get("reason", "")


def well(service):
    return health(service)[0] == 200


def try_report(service, device, status="failed"):
    return service.post("/api/device/%s/update-status" % device, json={
        "device_id": device, "firmware_version": "9.9.9", "status": status})


def reports_of(service, device):
    return int(psql(service, "SELECT count(*) FROM device_update_status WHERE device_id = '%s'"
                    % device))


def later(function, *args):
    """Runs it beside us; the list has the answer when it is there."""
    answers = []
    threading.Thread(target=lambda: answers.append(function(*args)), daemon=True).start()
    return answers


@contextlib.contextmanager
def frozen(cluster):
    with open("/proc/%d/task/%d/children" % (cluster.process.pid, cluster.process.pid)) as f:
        processes = [cluster.process.pid] + [int(p) for p in f.read().split()]
    try:
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)


def refused(answer):
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) > 0
    return answer.json()["detail"]


# --- the answer to COMMIT ---

def test_the_answer_to_a_commit_is_lost(through, proxy):
    through.check("d1")
    proxy.cut = "answer"
    assert try_report(through, "d1").status_code == 200
    assert proxy.cuts == 1 and reports_of(through, "d1") == 1
    assert "found_out" in through.log() and " is in the database" in through.log()
    assert try_report(through, "d2").status_code == 200
    assert well(through)


def test_a_commit_that_never_arrived_is_no_fact(through, proxy):
    through.check("d1")
    proxy.cut = "question"
    refused(try_report(through, "d1"))
    assert proxy.cuts == 1 and reports_of(through, "d1") == 0
    assert " is not in the database" in through.log()
    # The session that was left at the server holds no lock any more.
    assert try_report(through, "d1").status_code == 200
    assert reports_of(through, "d1") == 1 and well(through)


def test_in_doubt_nobody_is_answered_and_others_are_told(through, proxy):
    through.check("d1")
    proxy.open = False
    proxy.cut = "answer"
    waits = later(try_report, through, "d1")
    wait_for(lambda: not well(through), "the doubt to show")
    assert "has not said yet" in health(through)[1]
    assert "has not said yet" in refused(try_report(through, "d2"))
    assert through.check("d1")["current_version"] == "1.0.0"  # from memory
    assert not waits
    proxy.open = True
    wait_for(lambda: waits, "the answer")
    assert waits[0].status_code == 200 and reports_of(through, "d1") == 1
    wait_for(lambda: well(through), "health")


def test_doubt_is_no_reason_to_be_started_anew(services, proxy, ear):
    """The manager's watchdog hears from a service that waits for its database."""
    service = services(store="postgresql",
                       env={**proxy.environment(), **ear.env, "WATCHDOG_USEC": "3000000"})
    service.check("d1")
    proxy.open = False
    proxy.cut = "answer"
    waits = later(try_report, service, "d1")
    wait_for(lambda: not well(service), "the doubt to show")
    doubted = time.monotonic()
    while time.monotonic() < doubted + 3:
        assert ear.word(2) in ("READY=1", "WATCHDOG=1")
    proxy.open = True
    wait_for(lambda: waits, "the answer")


def test_the_service_can_be_ended_in_doubt(through, proxy):
    through.check("d1")
    proxy.open = False
    proxy.cut = "answer"
    waits = later(try_report, through, "d1")
    wait_for(lambda: not well(through), "the doubt to show")
    through.stop()
    wait_for(lambda: waits, "an answer")
    assert waits[0].status_code == 503
    proxy.open = True
    through.start()
    assert reports_of(through, "d1") == 1


# --- the server ---

def test_the_server_goes_and_comes_back(service):
    cluster = postgres.cluster()
    service.check("d1")
    cluster.stop()
    try:
        assert "cannot be reached" in refused(try_report(service, "d1"))
        wait_for(lambda: not well(service), "it to show")
        assert "cannot be reached" in health(service)[1]
        refused(service.get("/api/admin/update-status"))
        assert service.check("d1")["current_version"] == "1.0.0"  # from memory
    finally:
        cluster.start()
    wait_for(lambda: well(service), "the connection")
    assert try_report(service, "d1").status_code == 200
    assert len(service.list("updates")) == 1


def test_a_server_started_anew_is_not_noticed(service):
    service.check("d1")
    assert service.list("updates") == []
    postgres.cluster().stop()
    postgres.cluster().start()
    assert try_report(service, "d1").status_code == 200
    assert len(service.list("updates")) == 1


def test_a_server_that_freezes_and_goes_on(service):
    service.release(images.esp32("1.2.0"), "1.2.0")
    service.check("d1")
    cluster = postgres.cluster()
    with frozen(cluster):
        waits = later(try_report, service, "d1")
        wait_for(lambda: not well(service), "it to show")
        assert "not answered" in health(service)[1]
        assert service.check("d1")["current_version"] == "1.0.0"  # from memory
        assert service.get("/api/firmware/download/1.2.0").status_code == 200
        assert not waits
    wait_for(lambda: waits, "the answer")
    assert waits[0].status_code == 200 and reports_of(service, "d1") == 1
    wait_for(lambda: well(service), "health")


def test_what_was_acknowledged_survives_the_servers_crashes(service):
    """The server dies three times as if the power had gone, under reports from eight sides."""
    acknowledged, ending = [], threading.Event()

    def keep_reporting(side):
        n = 0
        while not ending.is_set():
            n += 1
            device = "d%d-%d" % (side, n)
            if try_report(service, device).status_code == 200:
                acknowledged.append(device)

    sides = [threading.Thread(target=keep_reporting, args=(i,)) for i in range(8)]
    for side in sides:
        side.start()
    try:
        for _ in range(3):
            before = len(acknowledged)
            wait_for(lambda: len(acknowledged) > before + 50, "reports to be taken")
            postgres.cluster().stop(signal.SIGQUIT)
            postgres.cluster().start()
        before = len(acknowledged)
        wait_for(lambda: len(acknowledged) > before + 50, "reports to be taken again")
    finally:
        ending.set()
        for side in sides:
            side.join()
    there = psql(service, "SELECT device_id FROM device_update_status").split()
    assert len(there) == len(set(there)), "a report is there twice"
    assert set(acknowledged) <= set(there), set(acknowledged) - set(there)


def test_a_database_that_may_not_be_written(service):
    service.check("d1")
    psql(service, "ALTER SYSTEM SET default_transaction_read_only = on")
    psql(service, "SELECT pg_reload_conf()")
    try:
        wait_for(lambda: try_report(service, "d1").status_code == 503, "the refusal")
        assert "read-only" in health(service)[1]
        assert service.list("devices")[0]["device_id"] == "d1"
    finally:
        psql(service, "SET default_transaction_read_only = off;"
                      "ALTER SYSTEM RESET default_transaction_read_only")
        psql(service, "SELECT pg_reload_conf()")
    wait_for(lambda: well(service), "writes")


def test_a_full_disk(service):
    """The server's answer when a file cannot grow, from a trigger."""
    service.check("d1")
    psql(service, "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                  " RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;"
                  "CREATE TRIGGER no_room BEFORE INSERT ON device_update_status EXECUTE FUNCTION no_room()")
    assert "is full" in refused(try_report(service, "d1"))
    assert "is full" in health(service)[1]
    psql(service, "DROP TRIGGER no_room ON device_update_status")
    wait_for(lambda: well(service), "writes")


def test_a_locked_table(service):
    service.check("d1")
    other = subprocess.Popen(["psql", "-X", "-q", "-At"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True,
                             env={**os.environ, **postgres.cluster().environment(service.schema)})
    try:
        other.stdin.write("BEGIN; LOCK TABLE device_update_status; SELECT 'locked';\n")
        other.stdin.flush()
        assert other.stdout.readline() == "locked\n"
        assert "locked by another program" in refused(try_report(service, "d1"))
        assert service.check("d1")["current_version"] == "1.0.0"
    finally:
        other.communicate("ROLLBACK;\n", timeout=20)
    wait_for(lambda: well(service), "health")
    assert try_report(service, "d1").status_code == 200


def test_no_connection_is_left(services):
    """The server says so to whom it would be one too many; what is from memory goes on."""
    cluster = postgres.cluster()
    service = services(start=False, store="postgresql", env={"PGUSER": "few"})
    psql(service, "DROP ROLE IF EXISTS few; CREATE ROLE few LOGIN; GRANT ALL ON SCHEMA %s TO few;"
                  "GRANT pg_read_all_stats, pg_signal_backend TO few" % service.schema)
    service.start()
    service.check("d1")
    assert try_report(service, "d1").status_code == 200
    psql(service, "ALTER ROLE few CONNECTION LIMIT 0;"
                  "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'few'")
    try:
        wait_for(lambda: try_report(service, "d1").status_code == 503, "the refusal")
        assert "too many connections" in refused(try_report(service, "d1"))
        wait_for(lambda: "too many connections" in health(service)[1], "it to show")
        refused(service.get("/api/admin/update-status"))
        assert service.check("d1")["current_version"] == "1.0.0"
        done = services("late", start=False, env={**cluster.environment(service.schema), "PGUSER": "few"}).run()
        assert done.returncode == 1 and "too many connections" in done.stderr, done.stderr
    finally:
        psql(service, "ALTER ROLE few CONNECTION LIMIT -1")
    wait_for(lambda: try_report(service, "d2").status_code == 200, "writes")
    assert well(service) and reports_of(service, "d1") == 1


# --- the line to it ---

@pytest.fixture
def tls_cluster():
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    cluster = postgres.Cluster(tls_port=port)
    yield cluster, port
    cluster.close()


def test_tls_by_a_service_file_and_by_url(services, tmp_path, tls_cluster):
    cluster, port = tls_cluster
    (tmp_path / "service.conf").write_text(
        "[fleet]\nhost=localhost\nport=%d\ndbname=postgres\nuser=%s\nsslmode=verify-full\n"
        "sslrootcert=%s\n" % (port, postgres.USER, cluster.certificate))
    service = services(store="sqlite", env={
        "PGSERVICE": "fleet", "PGSERVICEFILE": tmp_path / "service.conf"})
    assert service.ok("GET", "/health")["store"] == "postgresql"
    assert try_report(service, "d1").status_code == 200 and service.list("updates")
    assert cluster.psql("SELECT count(*) > 1 AND bool_and(ssl) FROM pg_stat_ssl JOIN"
                        " pg_stat_activity USING (pid) WHERE application_name = 'paku-otad'") == "t"
    service.stop()
    url = "postgresql://%s@127.0.0.1:%d/postgres?sslmode=%s&sslrootcert=" + cluster.certificate
    service.extra = {"DATABASE_URL": url % (postgres.USER, port, "verify-full")}
    done = service.run()  # the certificate is localhost's
    assert done.returncode == 1 and "certificate" in done.stderr, done.stderr
    service.extra = {"DATABASE_URL": url % (postgres.USER, port, "verify-ca")}
    service.start()
    assert len(service.list("updates")) == 1


# --- one service for a database ---

def test_a_second_service_is_refused(service, services):
    second = services("second", start=False, env=postgres.cluster().environment(service.schema))
    done = second.run()
    assert done.returncode == 1
    assert "another paku-otad writes to the database postgres" in done.stderr
    service.stop()
    second.start()


def test_who_was_overtaken_writes_no_more(service):
    service.check("d1")
    psql(service, "UPDATE service_state SET value = 'somebody' WHERE key = 'writer'")
    assert "another one has written" in refused(try_report(service, "d1"))
    assert "another one has written" in health(service)[1]
    assert reports_of(service, "d1") == 0
    service.restart()
    assert try_report(service, "d1").status_code == 200


def test_a_newer_schema_is_refused(service):
    service.stop()
    psql(service, "INSERT INTO ota_schema (version) VALUES (999)")
    done = service.run()
    assert done.returncode == 1
    assert "999" in done.stderr and "newer paku-otad" in done.stderr
    psql(service, "DELETE FROM ota_schema WHERE version = 999")
    service.start()


def test_columns_and_views_of_somebody_else(service):
    service.check("d1")
    psql(service, "ALTER TABLE devices ADD room text DEFAULT 'cellar';"
                  "CREATE VIEW fleet AS SELECT * FROM devices;"
                  "CREATE INDEX ON device_update_status (status)")
    service.restart()
    service.check("d2")
    assert try_report(service, "d2").status_code == 200
    assert psql(service, "SELECT device_id, room FROM fleet ORDER BY 1") == "d1|cellar\nd2|cellar"


# --- the service before this one ---

BEFORE = """
CREATE TABLE firmware_releases (
    id SERIAL PRIMARY KEY, version VARCHAR(50) NOT NULL, device_model VARCHAR(50) NOT NULL,
    min_version VARCHAR(50), file_path VARCHAR(500) NOT NULL, file_size INTEGER NOT NULL,
    checksum_sha256 CHAR(64) NOT NULL, changelog TEXT, release_notes TEXT,
    is_signed BOOLEAN DEFAULT FALSE, created_at TIMESTAMPTZ DEFAULT now(), created_by VARCHAR(100),
    metadata JSON, UNIQUE (version, device_model));
CREATE TABLE devices (
    id SERIAL PRIMARY KEY, device_id VARCHAR(100) UNIQUE NOT NULL, mac_address MACADDR,
    device_model VARCHAR(50) NOT NULL, current_firmware_version VARCHAR(50),
    last_seen TIMESTAMPTZ, created_at TIMESTAMPTZ DEFAULT now(), metadata JSONB, shelf TEXT);
CREATE TABLE device_update_status (
    id SERIAL PRIMARY KEY, device_id VARCHAR(100) NOT NULL, firmware_version VARCHAR(50) NOT NULL,
    status VARCHAR(20) NOT NULL, error_message TEXT, progress_percent INTEGER DEFAULT 0,
    started_at TIMESTAMPTZ, completed_at TIMESTAMPTZ, reported_at TIMESTAMPTZ DEFAULT now(),
    metadata JSONB);
CREATE TABLE rollout_configurations (
    id SERIAL PRIMARY KEY, name VARCHAR(100) UNIQUE NOT NULL, firmware_version VARCHAR(50) NOT NULL,
    device_model VARCHAR(50) NOT NULL, target_type VARCHAR(20) NOT NULL, target_filter JSONB,
    rollout_percentage INTEGER DEFAULT 100, is_active BOOLEAN DEFAULT TRUE,
    created_at TIMESTAMPTZ DEFAULT now(), updated_at TIMESTAMPTZ DEFAULT now(),
    created_by VARCHAR(100), metadata JSONB);
CREATE TABLE ota_events (
    id SERIAL PRIMARY KEY, event_type VARCHAR(50) NOT NULL, device_id VARCHAR(100),
    firmware_version VARCHAR(50), rollout_id INTEGER, event_data JSONB,
    created_at TIMESTAMPTZ DEFAULT now(), created_by VARCHAR(100));
INSERT INTO firmware_releases (version, device_model, file_path, file_size, checksum_sha256)
    VALUES ('1.2.0', 'esp32', '/firmware/esp32-1.2.0.bin', %(size)d, '%(sha256)s'),
           ('0.9.0', 'esp32', '/firmware/esp32-0.9.0.bin', 5, repeat('ab', 32));
INSERT INTO devices (device_id, device_model, current_firmware_version, last_seen, shelf, mac_address)
    VALUES ('old-1', 'esp32', '1.2.0', now(), 'top', 'aa:bb:cc:dd:ee:01'),
           ('old-2', 'esp32', '0.9.0', NULL, NULL, NULL);
INSERT INTO device_update_status (device_id, firmware_version, status, started_at, completed_at)
    VALUES ('old-1', '1.2.0', 'success', now(), now()), ('old-1', '1.2.0', 'downloading', now(), NULL),
           ('old-1', '1.2.0', 'failed', NULL, NULL), ('old-2', '0.9.0', 'success', now(), now());
INSERT INTO rollout_configurations (name, firmware_version, device_model, target_type, is_active)
    VALUES ('everybody', '1.2.0', 'esp32', 'all', TRUE), ('lost', '7.7.7', 'esp32', 'all', TRUE),
           ('over', '0.9.0', 'esp32', 'all', FALSE);
INSERT INTO ota_events (event_type, device_id, event_data) VALUES ('update_completed', 'old-1', '{"a": 1}');
"""


def test_a_database_of_the_service_before_is_taken_over(services):
    service = services(start=False, store="postgresql")
    image = images.esp32("1.2.0")
    psql(service, BEFORE % {"size": len(image), "sha256": hashlib.sha256(image).hexdigest()})
    before = {t: psql(service, "SELECT count(*) FROM %s" % t) for t in (
        "firmware_releases", "devices", "device_update_status", "rollout_configurations",
        "ota_events")}
    service.start()
    for table, count in before.items():
        assert psql(service, "SELECT count(*) FROM %s" % table) == count, table
    assert psql(service, "SELECT shelf FROM devices WHERE device_id = 'old-1'") == "top"
    assert {d["device_id"] for d in service.list("devices")} == {"old-1", "old-2"}
    assert [u["unsolicited"] for u in service.list("updates")] == [False, True, True, False]
    states = {r["name"]: (r["state"], r["is_active"]) for r in service.list("rollouts")}
    assert states == {"everybody": ("running", True), "lost": ("paused", False),
                      "over": ("paused", False)}
    # The image comes again, and the rollout goes on.
    assert service.upload(image, "1.2.0").status_code == 200
    offer = service.check("old-2", "0.9.0")
    assert offer["update_available"] and offer["latest_version"] == "1.2.0"
    assert service.session.get(offer["download_url"], timeout=20).content == image
    # What the old columns had no room for.
    service.check("new-" + "x" * 120, "1.0.0", model="m" * 100)
    service.report("new-unknown", "1.0.0", "failed")
    assert psql(service, "SELECT max(id) > 4 FROM device_update_status") == "t"
    service.restart()
    assert service.check("old-1", "1.2.0")["reason"] == "up_to_date"


@pytest.mark.parametrize("table, said", [
    ("devices (id uuid PRIMARY KEY, device_id text)", "devices.id is uuid"),
    ("rollout_configurations (id serial PRIMARY KEY, is_active integer)", "is_active is integer"),
    ("devices (id serial PRIMARY KEY, device_id varchar(9)); CREATE VIEW v AS SELECT * FROM devices",
     "view v depends on column"),
])
def test_tables_that_are_something_else_are_left_alone(services, table, said):
    service = services(start=False, store="postgresql")
    psql(service, "CREATE TABLE %s" % table)
    before = psql(service, "SELECT count(*) FROM information_schema.columns"
                           " WHERE table_schema = current_schema()")
    done = service.run()
    assert done.returncode == 1 and said in done.stderr, done.stderr
    assert psql(service, "SELECT count(*) FROM information_schema.columns"
                         " WHERE table_schema = current_schema()") == before


# --- from the embedded database ---

def everything(service):
    shown = {name: service.list(name) for name in (
        "devices", "releases", "rollouts", "updates", "events", "alerts", "rejected")}
    shown["device"] = service.ok("GET", "/api/admin/devices/d1")
    shown["counts"] = service.ok("GET", "/api/admin/rollouts/1")["counts"]
    return shown


def test_an_embedded_installation_moves_over(services):
    service = services(store="sqlite")
    service.release(images.esp32("1.2.0"), "1.2.0", release_notes="tab\t, new\nline, \\N and ü")
    service.rollout("1.2.0")
    for i in range(30):
        service.check("d%d" % i, mac="aa:bb:cc:dd:ee:%02x" % i, boot_id="b%d" % i)
        service.report("d%d" % i, "1.2.0", ("downloading", "failed", "success")[i % 3],
                       error_message="it said \"no\"\\")
    service.put("/api/admin/devices/d1/groups", json={"groups": ["beta", "kitchen"]})
    service.stop()
    service.sql("INSERT INTO ota_rejected_messages (topic, payload, reason, detail, created_at)"
                " VALUES ('t', x'00ff5c', 'not_json', 'd', '2026-11-23T22:12:49.000000Z');"
                "INSERT INTO ota_daily_attempts VALUES ('2025-01-31', 1, 1, '1.2.0', 'success', '', 0, 7)")
    service.start()
    before = everything(service)
    assert before["counts"]["success"] == 17
    assert before["rejected"] and before["updates"] and before["device"]["groups"]
    schema = postgres.cluster().schema()
    there = postgres.cluster().environment(schema)
    assert "runs on the data folder" in service.run("--import", env=there).stderr
    service.stop()
    done = service.run("--import", env=there)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^devices +30 rows$", done.stdout, re.M), done.stdout
    assert "has rows in" in service.run("--import", env=there).stderr
    service.extra.update(there)
    service.start()
    assert service.ok("GET", "/health")["store"] == "postgresql"
    after = everything(service)
    for name in before:
        assert after[name] == before[name], name
    assert try_report(service, "d99").status_code == 200
    assert service.list("events")[0]["id"] > before["events"][0]["id"]


def test_an_import_that_fails_leaves_nothing(services):
    service = services(store="sqlite")
    service.check("d1")
    service.stop()
    service.sql("UPDATE devices SET hw = CAST(x'ff' AS TEXT)")  # which PostgreSQL does not take
    schema = postgres.cluster().schema()
    done = service.run("--import", env=postgres.cluster().environment(schema))
    assert done.returncode == 1 and "devices" in done.stderr, done.stderr
    assert postgres.cluster().psql("SELECT count(*) FROM devices", schema) == "0"


# --- large tables ---

class Plans:
    """What the server says, in its log, of how it answered."""

    def __init__(self, service):
        service.extra["PGOPTIONS"] += (
            " -c session_preload_libraries=auto_explain -c auto_explain.log_min_duration=0"
            " -c auto_explain.log_analyze=on")

    def begin(self):
        self.since = len(postgres.cluster().log())

    def check(self, what):
        log = postgres.cluster().log()[self.since:]
        assert "Index" in log, "nothing was planned for %s: %s" % (what, log)
        assert not re.search(r"Seq Scan on (devices|device_update_status|ota_events)", log), log
        thrown_away = [int(n) for n in re.findall(r"Rows Removed by Filter: (\d+)", log)]
        assert max(thrown_away, default=0) < 1000, log
        self.begin()


def test_no_list_reads_a_large_table_whole(service):
    service.release(images.esp32("1.2.0"), "1.2.0")
    rollout = service.rollout("1.2.0")
    service.stop()
    psql(service, """
INSERT INTO devices (id, device_id, device_model, current_firmware_version, last_seen, created_at)
    SELECT i, 'd' || i, 'm' || i %% 20, '1.' || i %% 7, now() - i * interval '1 s', now()
    FROM generate_series(1, 50000) i;
INSERT INTO device_update_status (id, device_id, firmware_version, status, reported_at, opened_at,
    completed_at, rollout_id, settled) SELECT i, 'd' || i %% 50000, '1.' || i %% 7,
    (ARRAY['success', 'failed', 'pending'])[1 + i %% 3], now() - i * interval '10 s', now(), now(),
    i %% 50, 1 FROM generate_series(1, 100000) i;
INSERT INTO ota_events (event_type, device_id, rollout_id, created_at, created_by)
    SELECT 'update_completed', 'd' || i %% 50000, i %% 50, now(),
    CASE WHEN i %% 1000 = 0 THEN 'api' END FROM generate_series(1, 100000) i;
ANALYZE;
""".replace("%%", "%"))
    plans = Plans(service)
    service.start()
    plans.begin()
    for name, filters in (("updates", ("", "device_id=d7", "firmware_version=1.3",
                                       "rollout_id=%d" % rollout, "device_id=d7&status=failed",
                                       "status=rolled_back", "status=failed")),
                          ("devices", ("", "device_model=m3")),
                          ("events", ("", "device_id=d7", "rollout_id=%d" % rollout, "operations=true",
                                      "event_type=rollout_created", "firmware_version=9.9"))):
        path = {"updates": "update-status"}.get(name, name)
        for f in filters:
            first = service.ok("GET", "/api/admin/%s?limit=5&%s" % (path, f))
            if first["next_cursor"]:
                service.ok("GET", "/api/admin/%s?limit=5&%s&cursor=%s" % (path, f, first["next_cursor"]))
            plans.check((name, f))
    service.ok("GET", "/api/admin/rollouts/%d" % rollout)
    service.ok("GET", "/api/admin/devices/d7")
    service.explain("d7")
    service.ok("GET", "/metrics")
    service.report("d7", "1.3", "failed")
    service.check("d8", "1.4", model="m8")
    plans.check("the rest")
