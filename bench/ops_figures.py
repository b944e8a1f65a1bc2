# SPDX-License-Identifier: MIT
"""The figures of operation: on PostgreSQL, side by side, with a large fleet."""
import contextlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time

import figures
import machine
from figures import DEVICES, Row
from machine import Failed, Service, bench_load, pinned, program, request, running

# Clusters, instances and the dashboards' questions are those of the tests, on the bench's build.
os.environ["PAKU_BUILD"] = machine.BUILD
sys.path.append(os.path.join(machine.ROOT, "tests", "integration"))
# pylint: disable=wrong-import-position
import postgres  # noqa: E402

MODELS = 4
PER_MODEL = 5
SETTINGS = {"shared_buffers": "256MB", "maintenance_work_mem": "512MB", "max_wal_size": "4GB",
            "random_page_cost": "1.1", "effective_cache_size": "8GB"}


class Databases:
    """A PostgreSQL of the bench's own, with a database for each fleet, copied for each use."""

    def __init__(self, setting):
        self.setting, self.made, self.count = setting, {}, 0
        os.chmod(setting.folder, 0o755)  # the server runs as another user
        self.cluster = postgres.cluster(parent="/tmp", **SETTINGS)

    def template(self, devices, plan):
        """Filled by bench-fill, and moved over as an installation is: paku-otad --import."""
        if (devices, plan) not in self.made:
            folder = self.setting.fleets.folder_with("import", devices, plan)
            name = self.cluster.database()
            env = {"PATH": os.environ["PATH"], "OTA_DATA_DIR": folder, "OTA_MQTT": "off",
                   "OTA_API_KEY": machine.KEY, **self.cluster.environment(database=name)}
            run = subprocess.run([program("paku-otad"), "--import"], env=env, capture_output=True, text=True,
                                 check=False, timeout=1800)
            if run.returncode != 0:
                raise Failed(f"paku-otad --import: {run.stderr.strip()}")
            shutil.rmtree(folder)
            self.cluster.psql("VACUUM ANALYZE", database=name, timeout=600)
            self.made[(devices, plan)] = name
        return self.made[(devices, plan)]

    def copy(self, devices, plan):
        self.count += 1
        name = f"copy{self.count}"
        self.cluster.psql(f"CREATE DATABASE {name} TEMPLATE {self.template(devices, plan)} STRATEGY file_copy;"
                          "CHECKPOINT", timeout=600)
        return name

    def drop(self, name):
        self.cluster.psql(f"DROP DATABASE {name} WITH (FORCE)")

    def service(self, name, **options):
        folder = os.path.join(self.setting.folder, f"data-{name}")
        return Service(folder, **{**self.cluster.environment(database=name), **options})

    def pin(self, cores):
        """The server and all it has started; what it starts later inherits it."""
        pid = self.cluster.process.pid
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
            for one in [pid, *map(int, f.read().split())]:
                os.sched_setaffinity(one, cores)


def databases(setting):
    if not hasattr(setting, "databases"):
        setting.databases = Databases(setting)
    return setting.databases


# --- reports ---

STEPS = ("downloading", "downloaded", "installing", "success")
EVENTS = (("update_started", "device_exposed"), ("update_progressed", "device_at_risk"),
          ("update_progressed",), ("update_completed",))
BATCH = 500
NEXT = "1.4.0"


def token(i):
    x = ((i + 1) * 0x9e3779b97f4a7c15) & (2 ** 64 - 1)
    out = ""
    for _ in range(13):
        out += "abcdefghijklmnopqrstuvwxyz234567"[x & 31]
        x = (x >> 5 | x << 59) & (2 ** 64 - 1)
    return out


def array(values, kind):
    return "'{" + ",".join(json.dumps(v) if isinstance(v, str) else str(v) for v in values) + f"}}'::{kind}[]"


def rollout_of(i):
    return PER_MODEL * (i % MODELS) + PER_MODEL


def batch_sql(devices, step, attempts):
    """What the service writes for these devices' reports of that step, by the same kinds of statements."""
    done = step == 3
    out = ["BEGIN", (
        f"UPDATE device_update_status s SET status='{STEPS[step]}', progress_percent={100 if done else 'NULL'},"
        " started_at=coalesce(s.started_at, n.at), reported_at=n.at,"
        f" installing_at={'n.at' if step >= 2 else 'NULL'}"
        + (", completed_at=n.at, closed=NULL, settled=0, metadata=s.metadata ||"
           " jsonb_build_object('closed', NULL::text, 'why', NULL::text)" if done else "")
        + f" FROM (SELECT id, now() AS at FROM unnest({array([i + 1 for i in devices], 'bigint')}) AS u(id)) n"
          " WHERE s.id=n.id")]
    rows = []
    for i in devices:
        for kind in EVENTS[step]:
            data = {"release_id": rollout_of(i), "exposure": attempts + i + 1, "from": "1.0.0"} \
                if kind.startswith("device_") else \
                {"attempt_id": token(i), "update_id": i + 1, "status": STEPS[step], "from_version": "1.0.0"}
            rows.append((kind, f"bench-{i:07d}", NEXT, rollout_of(i), json.dumps(data, separators=(",", ":"))))
    columns = list(zip(*rows))
    out.append("INSERT INTO ota_events (event_type, device_id, firmware_version, rollout_id, event_data, created_at)"
               " SELECT kind, device, version, rollout, data, now() FROM unnest("
               + ", ".join(array(c, t) for c, t in zip(columns, ("text", "text", "text", "bigint", "jsonb")))
               + ") AS n(kind, device, version, rollout, data)")
    if done:
        out.append(f"UPDATE devices d SET current_firmware_version='{NEXT}', ran_release_id=n.release, ran_from='1.0.0'"
                   f" FROM unnest({array([i + 1 for i in devices], 'bigint')},"
                   f" {array([rollout_of(i) for i in devices], 'bigint')}) AS n(id, release) WHERE d.id=n.id")
    return ";\n".join([*out, "COMMIT"]) + ";\n"


def write_script(path, batches):
    with open(path, "w", encoding="ascii") as f:
        for k in range(batches):
            first = k // 4 * BATCH
            f.write(batch_sql(range(first, first + BATCH), k % 4, DEVICES))
    return batches * BATCH


def run_script(dbs, name, path):
    """Reports a second, of psql on the core that the load has otherwise."""
    begun = time.monotonic()
    run = subprocess.run(pinned(machine.LOAD_CORE, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", path),
                         env={**os.environ, **dbs.cluster.environment(database=name)},
                         capture_output=True, text=True, timeout=600, check=False)
    if run.returncode != 0:
        raise Failed(f"psql: {run.stderr[-300:]}")
    return time.monotonic() - begun


def finished(dbs, name):
    """What is in the database of the first devices that are through, but for times and the service's marks."""
    return dbs.cluster.psql("""
SELECT json_agg(x ORDER BY x.device_id) FROM (SELECT s.device_id, s.status, s.progress_percent, s.firmware_version,
  s.completed_at IS NOT NULL AS done, s.installing_at IS NOT NULL AS installing, s.started_at IS NOT NULL AS began,
  d.current_firmware_version AS runs, d.ran_release_id, d.ran_from,
  (SELECT json_agg(json_build_array(event_type, firmware_version, rollout_id, event_data - 'exposure') ORDER BY id)
   FROM ota_events e WHERE e.device_id = s.device_id) AS events
 FROM device_update_status s JOIN devices d USING (device_id) WHERE s.status = 'success' ORDER BY s.id LIMIT 200) x""",
                            database=name)


def reports(setting):
    dbs = databases(setting)
    dbs.template(DEVICES, "all")
    script = os.path.join(setting.folder, "reports.sql")
    count = write_script(script, 40 * setting.seconds)
    seen = {}

    def ours():
        name = dbs.copy(DEVICES, "all")
        with running(dbs.service(name)) as service:
            s = bench_load(service.port, "--seconds", setting.seconds, f"report:{BATCH}:0:0:{DEVICES}")["report"]
        if s["ok"] != s["requests"] or s["repeated"]:
            raise Failed(f"reports went wrong: {s}")
        written = int(dbs.cluster.psql("SELECT count(*) FROM ota_events WHERE event_type LIKE 'update%'",
                                       database=name))
        if written < s["ok"]:
            raise Failed(f"{s['ok']} reports were acknowledged, {written} are in the database")
        seen["ours"] = finished(dbs, name)
        dbs.drop(name)
        return s["per_s"]

    def peer():
        name = dbs.copy(DEVICES, "all")
        took = run_script(dbs, name, script)
        seen["peer"] = finished(dbs, name)
        dbs.drop(name)
        return count / took

    dbs.pin({machine.SERVER_CORE})
    try:
        a, b = setting.pairs(ours, peer)
    finally:
        dbs.pin(set(machine.CORES))
    compare(seen)
    yield Row("ops-reports", f"durable reports on PostgreSQL, {BATCH} clients", "reports/s", a, b, 0.5,
              meaning="how near the service comes to what the database alone can make durable; each answer is "
              "sent after its commit", notes=[
                  f"the database has the service's core with it; peer: psql, the same rows by unnest, {BATCH} reports "
                  "a transaction; fsync and synchronous_commit on"])


def compare(seen):
    rows = {who: {r["device_id"]: r for r in json.loads(text or "null") or []} for who, text in seen.items()}
    both = sorted(set(rows["ours"]) & set(rows["peer"]))
    if not both:
        raise Failed("no device is through on both sides")
    for device in both:
        if rows["ours"][device] != rows["peer"][device]:
            raise Failed(f"service and psql have written different rows: {rows['ours'][device]} "
                         f"and {rows['peer'][device]}")


# --- side by side ---

def cpu_s(pid):
    """Seconds on a processor so far, of the program itself and in the kernel for it."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def member(dbs, name, number):
    port = machine.free_port()
    return dbs.service(name, OTA_INSTANCE_URL=f"http://127.0.0.1:{port}", PORT=port,
                       OTA_DATA_DIR=os.path.join(dbs.setting.folder, f"member{number}"),
                       FIRMWARE_STORAGE_PATH=os.path.join(dbs.setting.folder, "images"))


def two(setting):
    """On a machine where all share two cores, what a check-in costs, not how many there are."""
    dbs = databases(setting)
    name = dbs.copy(DEVICES, "canary")
    requests = 10_000 if setting.quick else 50_000
    with running(dbs.service(name)) as one:
        alone = [work([one], requests) for _ in range(setting.rounds)]
    with running(member(dbs, name, 1)) as first:
        with running(member(dbs, name, 2)) as second:
            leader = [work([first, second], requests, ask=[first]) for _ in range(setting.rounds)]
            both = [work([first, second], requests, ask=[first, second]) for _ in range(setting.rounds)]
            passed = [work([first, second], requests, ask=[second]) for _ in range(setting.rounds)]
    dbs.drop(name)
    told = "microseconds of processor time of all instances for one check-in; 64 connections kept open"
    yield Row("ops-two-leader", "a check-in, two instances, at the one that leads : one alone", "us of work", leader,
              alone, meaning="what leading costs: the lease and nothing else", notes=[told])
    yield Row("ops-two", "a check-in, two instances, half at each : one alone", "us of work", both, alone,
              meaning="a follower passes on what it is asked: it takes the clients' connections from the one that "
              "leads, and answers nothing itself", notes=[told])
    yield Row("ops-two-follower", "a check-in, two instances, at the one that follows : one alone", "us of work",
              passed, alone, meaning="the way round: what passing on costs", notes=[told])


def work(services, requests, ask=None):
    before = sum(cpu_s(s.process.pid) for s in services)
    asked = ask or services
    for s in asked:
        r = bench_load(s.port, "--requests", requests // len(asked), f"check:64:0:0:{DEVICES}")["check"]
        if r["ok"] != r["requests"]:
            raise Failed(f"check-ins went wrong: {r}")
    return (sum(cpu_s(s.process.pid) for s in services) - before) * 1e6 / requests


# --- taking over ---

def take_over(setting):
    """The tests' instances: each with a line to the database that can be silenced."""
    import cluster  # pylint: disable=import-outside-toplevel

    databases(setting)
    try:
        with contextlib.ExitStack() as stack:
            samples = disturb(setting, cluster.Group, cluster.DISTURBANCES, stack)
    except AssertionError as e:
        raise Failed(str(e)) from e
    for how, what in (("kill", "killed"), ("freeze", "frozen"), ("cut", "cut off from the database")):
        yield Row(f"ops-take-over-{how}", f"the leader is {what}: the next command by another", "s", samples[how],
                  goal=5, kind="each at most", meaning="how long a rollout stands still at the worst",
                  notes=[f"{PER_SECOND} commands a second; to the first that a subscriber gets after another has taken "
                         "the lead and answers; a lease lasts 2.5 s and is stale after 2.8 s"])


PER_SECOND = 10


def disturb(setting, group, disturbances, stack):
    """Seconds for each way to disturb the leader."""
    import images  # pylint: disable=import-outside-toplevel
    from mqtt import Broker, Client  # pylint: disable=import-outside-toplevel
    from service import wait_for  # pylint: disable=import-outside-toplevel

    folder = pathlib.Path(setting.folder, "cluster")
    folder.mkdir()
    broker = Broker(folder)
    stack.callback(broker.close)
    g = group(folder, 2, OTA_MQTT="on", MQTT_HOST="127.0.0.1", MQTT_PORT=broker.port,
              OTA_DISPATCH_PER_SECOND=PER_SECOND, OTA_PUBLIC_URL="http://ota.example.org", OTA_COMMAND_TIMEOUT_S=3600,
              OTA_NEW_DEVICES_PER_SECOND=10000, OTA_MAX_DOWNLOADS=100000)
    stack.callback(g.close)
    told, listener, speaker = [], Client(broker.port), Client(broker.port)
    stack.callback(listener.close)
    stack.callback(speaker.close)
    listener.client.on_message = lambda *_: told.append(time.monotonic())
    listener.subscribe("+/edge/+/cmd/ota")
    front, _ = g.roles()
    wait_for(lambda: front.health().get("mqtt", "").startswith("connected"), "the broker")
    count = 150 * PER_SECOND * setting.rounds  # more than are told meanwhile
    for i in range(count):
        speaker.client.publish(f"paku/edge/t{i}/status", json.dumps(
            {"device_model": "esp32", "online": True, "firmware_version": "1.0.0"}), 1)
    wait_for(lambda: g.psql("SELECT count(*) FROM devices WHERE online = 1") == str(count), "the devices", 120, 0.5)
    front.release(images.esp32("2.0.0"), "2.0.0")
    front.rollout("2.0.0", guard="off")
    samples = {how: [] for how in disturbances}
    for _ in range(setting.rounds):
        for how in disturbances:
            before = len(told)
            wait_for(lambda: len(told) > before + PER_SECOND, "commands to flow", 120)
            begun = time.monotonic()
            old, _ = g.take_over(how)
            # Whatever is told from here on is told by the other one.
            taken = time.monotonic()
            wait_for(lambda: told[-1] > taken, "the next command")
            samples[how].append(next(t for t in told if t > taken) - begun)
            old.heal()
            wait_for(old.follows, "it to follow")
    return samples


# --- a large fleet ---

ROLLOUTS = 40  # each of a quarter of the fleet: ten updates for a device
ATTEMPTS = """
SET synchronous_commit = off; SET maintenance_work_mem = '512MB';
INSERT INTO firmware_releases (id, version, device_model, file_path, file_size, checksum_sha256, created_at, deleted_at)
 SELECT 1000 + i, '2.' || i || '.0', 'esp32', 'bench.bin', 1048576, repeat('ab', 32), now(), now()
 FROM generate_series(0, 39) i;
INSERT INTO rollout_configurations (id, name, firmware_version, device_model, target_type, state, is_active, state_since,
  stages, stage, release_id) SELECT 1000 + i, 'rollout ' || i, '2.' || i || '.0', 'esp32', 'all', 'completed', false,
  now() - interval '100 days', '[{"percent":100}]', 1, 1000 + i FROM generate_series(0, 39) i;
INSERT INTO device_update_status (id, device_id, firmware_version, status, error_message, started_at, completed_at,
  reported_at, release_id, rollout_id, from_version, opened_at, attempt_id, settled)
 SELECT 10000000 + i, 'bench-' || lpad((i %% %(devices)d)::text, 7, '0'), '2.' || r || '.0',
  CASE WHEN i %% 50 = 7 THEN 'failed' WHEN i %% 333 = 5 THEN 'rolled_back' ELSE 'success' END,
  CASE WHEN i %% 50 = 7 THEN 'code ' || i %% 13 END, t - (i %% 600) * interval '1 second', t, t, 1000 + r, 1000 + r, '1.0.0', t,
  'a' || i, 1
 FROM (SELECT i, i %% 4 + 4 * (i * 10 / %(rows)d) AS r, now() - (%(rows)d - i) * (interval '100 days' / %(rows)d) AS t
       FROM generate_series(%(first)d, %(last)d) i) x;
INSERT INTO ota_events (event_type, device_id, firmware_version, rollout_id, event_data, created_at, created_by)
 SELECT 'update_completed', s.device_id, s.firmware_version, s.rollout_id, '{"status":"success"}', s.completed_at,
  CASE WHEN s.id %% 100000 = 0 THEN 'api' END
 FROM device_update_status s WHERE s.id BETWEEN 10000000 + %(first)d AND 10000000 + %(last)d;
"""


def large(setting):
    sizes = (DEVICES, 1_000_000) if setting.quick else (1_000_000, 10_000_000)
    yield from measure_large(databases(setting), *sizes)


def fill(dbs, devices, rows):
    name, part = dbs.copy(devices, "canary"), rows // 10
    # Made anew at the end: quicker by far than kept up.
    indexes = dbs.cluster.psql(
        "SELECT i.indexrelid::regclass, pg_get_indexdef(i.indexrelid) FROM pg_index i WHERE NOT indisunique AND indrelid"
        " IN ('device_update_status'::regclass, 'ota_events'::regclass)", database=name).splitlines()
    indexes = [line.split("|", 1) for line in indexes]
    dbs.cluster.psql("".join(f"DROP INDEX {i[0]};" for i in indexes), database=name)
    for first in range(0, rows, part):
        sql = ATTEMPTS if first == 0 else ATTEMPTS[ATTEMPTS.index("INSERT INTO device_update"):]
        dbs.cluster.psql(sql % {"devices": devices, "rows": rows, "first": first, "last": first + part - 1},
                         database=name, timeout=3000)
    dbs.cluster.psql("SET maintenance_work_mem = '1GB';" + "".join(f"{i[1]};" for i in indexes) + "VACUUM ANALYZE",
                     database=name, timeout=3000)
    return name


def measure_large(dbs, devices, rows):
    name = fill(dbs, devices, rows)
    size = dbs.cluster.psql("SELECT pg_size_pretty(pg_database_size(current_database()))", database=name)
    title = f"{devices:,} devices, {rows:,} attempts, as many events"
    with running(dbs.service(name)) as service:
        asked = {"list page": ask_lists(service, rows), "explain": ask_explain(service, devices)}
    asked["question of a Grafana panel, variable or alert rule"] = ask_grafana(dbs, name)
    dbs.drop(name)
    for key, (what, times) in zip(("lists", "explain", "grafana"), asked.items()):
        worst = sorted(times, key=lambda k: -times[k])[:3]
        yield Row(f"ops-large-{key}", f"the slowest {what}, {title}", "ms", sorted(times.values()), goal=200,
                  kind="each at most", meaning="what an operator waits for", notes=[
                      f"{len(times)} of them, each the median of five; the slowest: "
                      + "; ".join(f"{w} {times[w]:.0f} ms" for w in worst) + f"; the database is {size}"])


def median_ms(function, rounds=5):
    times = []
    for _ in range(rounds):
        begun = time.monotonic()
        function()
        times.append((time.monotonic() - begun) * 1000)
    return figures.statistics.median(times)


def ask(service, path):
    status, _, body = request(service.port, "GET", path, key=True)
    if status != 200:
        raise Failed(f"{path} is answered {status}: {body[:200]!r}")
    return json.loads(body)


LISTS = {
    "devices": ("", "device_model=esp32", "device_model=none", "group=field"),
    "update-status": ("", "device_id=bench-0000007", "firmware_version=2.39.0", "rollout_id=1003", "status=failed",
                      "status=pending", "status=rolled_back&rollout_id=1003", "firmware_version=2.0.0&status=failed",
                      "device_id=bench-0000007&status=failed", "device_id=nobody"),
    "events": ("", "device_id=bench-0000007", "rollout_id=1003", "operations=true", "event_type=update_completed",
               "event_type=rollout_created", "firmware_version=2.3.0", "firmware_version=none"),
    "rollouts": ("", "device_model=esp32", "firmware_version=2.39.0"),
    "firmware/releases": ("", "device_model=esp32"),
    "rejected": ("",), "alerts": ("",),
}


def ask_lists(service, rows):
    """Each list with each filter: its first page, the next, and one in the middle where a cursor is an id."""
    times = {}
    for name, filters in LISTS.items():
        for f in filters:
            path = f"/api/admin/{name}?limit=100&{f}"
            pages = {"": path}
            cursor = ask(service, path)["next_cursor"]
            if cursor:
                pages[" next"] = f"{path}&cursor={cursor}"
            if cursor and name in ("update-status", "events") and int(cursor) > rows // 2:
                pages[" middle"] = f"{path}&cursor={int(cursor) - rows // 2}"
            for which, page in pages.items():
                times[f"{name}?{f}{which}"] = median_ms(lambda p=page: ask(service, p))
    for path in ("rollouts/1003", "devices/bench-0000007"):
        times[path] = median_ms(lambda p=path: ask(service, f"/api/admin/{p}"))
    times["metrics"] = median_ms(lambda: ask(service, "/metrics"))
    return times


def ask_explain(service, devices):
    rng = random.Random(5)
    return {one: median_ms(lambda o=one: ask(service, f"/api/admin/devices/{o}/explain"))
            for one in (f"bench-{rng.randrange(devices):07d}" for _ in range(20))}


def ask_grafana(dbs, name):
    """As the server counts: planning and execution."""
    import grafana  # pylint: disable=import-outside-toplevel

    questions = {}
    for file, d in grafana.dashboards():
        for p in d["panels"]:
            questions.update({f"{file[5:-5]}, {p['title']}": t["rawSql"] for t in p["targets"] if "rawSql" in t})
        questions.update({f"{file[5:-5]}, ${v['name']}": v["query"] for v in d["templating"]["list"]
                          if v["type"] == "query"})
    questions.update({f"alert {r['uid']}": r["data"][0]["model"]["rawSql"] for r in grafana.rules()})
    times = {}
    for title, text in questions.items():
        took = []
        for _ in range(5):
            plan = json.loads(dbs.cluster.psql("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) " +
                                               grafana.spelled_out(text, rollout=1039), database=name))[0]
            took.append(plan["Execution Time"] + plan["Planning Time"])
        times[title] = figures.statistics.median(took)
    return times


def start(setting):
    dbs = databases(setting)
    for devices, goal in ((DEVICES, 1.5),) if setting.quick else ((DEVICES, 1.5), (1_000_000, 10)):
        name = dbs.copy(devices, "canary")
        samples, worked = [], []
        for _ in range(setting.rounds if devices == DEVICES else 3):
            with running(dbs.service(name)) as service:
                samples.append(service.start_s)
                worked.append(cpu_s(service.process.pid))
        dbs.drop(name)
        yield Row(f"ops-start-{devices}", f"start to first answer on PostgreSQL, {devices:,} devices", "s", samples,
                  goal=goal, kind="at most", meaning="how long a restart is felt: from exec to the first answered "
                  "check-in", notes=[
                      "the database in the server's cache or the file cache; the service itself was on a processor for "
                      f"{figures.statistics.median(worked):.2f} s of it"])


FIGURES = {"ops-reports": reports, "ops-two": two, "ops-take-over": take_over, "ops-large": large,
           "ops-start": start}
