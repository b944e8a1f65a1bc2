# SPDX-License-Identifier: MIT
"""The dashboards and alert rules of deploy/grafana: well made, and each of their questions asked of a
PostgreSQL with 100,000 devices and as many attempts (PAKU_ATTEMPTS=1000000: ten times, a minute more),
and of the service's own metrics."""
import json
import os
import re
import subprocess
import sys
import time

import pytest
import yaml

import images
import postgres
from grafana import DASHBOARDS, FOLDER, dashboards, rules, spelled_out
from service import Service

MOST_MS = 200
ATTEMPTS = int(os.environ.get("PAKU_ATTEMPTS", "100000"))
# The service made the tables, and wrote two rollouts and a device; this multiplies them.
FILL = """
SET synchronous_commit = off;
INSERT INTO devices (id, device_id, device_model, current_firmware_version, last_seen, online, created_at)
 SELECT 1000 + i, 'dev-' || i, 'model-' || i % 7, '1.' || i % 23 || '.0',
  now() - (i % 5000) * interval '1 minute', i % 2, now() - interval '100 days' FROM generate_series(1, 100000) i;
INSERT INTO device_update_status (id, device_id, firmware_version, status, error_message, started_at, completed_at,
  reported_at, release_id, rollout_id, from_version, opened_at, attempt_id)
 SELECT 1000 + i, 'dev-' || (i % 100000 + 1), '1.' || i % 23 || '.0',
  CASE WHEN i % 50 = 0 THEN 'failed' WHEN i % 333 = 0 THEN 'rolled_back' ELSE 'success' END,
  CASE WHEN i % 50 = 0 THEN 'code ' || i % 12 END, t - (i % 600) * interval '1 second', t, t, 1, 1 + i % 40, '1.0.0', t, 'a' || i
 FROM (SELECT i, now() - i * (interval '93 days' / ATTEMPTS) AS t FROM generate_series(1, ATTEMPTS) i) x;
INSERT INTO rollout_configurations (id, name, firmware_version, device_model, target_type, state, state_since, stages, stage)
 SELECT i, 'rollout ' || i, '1.0.0', 'model-1', 'all', 'completed', now() - interval '9 days', '[{"percent":100}]', 1
 FROM generate_series(2, 40) i ON CONFLICT DO NOTHING;
ANALYZE;
"""


def panels():
    return [pytest.param(p, id="%s-%s" % (name[5:-5], p["title"].replace(" ", "-")))
            for name, d in dashboards() for p in d["panels"]]


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A database that the service made, filled; and what the service's metrics are called."""
    cluster = postgres.cluster()
    name = cluster.database()
    service = Service(tmp_path_factory.mktemp("full"),
                      env={**cluster.environment(database=name), "OTA_MQTT": "on", "MQTT_PORT": "0"}).start()
    service.release(images.esp32("1.2.0"), "1.2.0")
    service.rollout("1.2.0", stages=[{"percent": 50}, {"percent": 100}])
    service.check("dev-a")
    text = service.get("/metrics", headers={"Accept": "text/plain"}).text
    service.stop()
    cluster.psql(FILL.replace("ATTEMPTS", str(ATTEMPTS)), database=name)
    return cluster, name, set(re.findall(r"^# TYPE (\w+)", text, re.M))


def ask(full, text):
    """How many rows, and how long the server took, the best of three: other tests run beside."""
    cluster, name, _ = full
    times = []
    for _ in range(3):
        plan = json.loads(cluster.psql("EXPLAIN (ANALYZE, FORMAT JSON) " + spelled_out(text), database=name))
        times.append(plan[0]["Execution Time"] + plan[0]["Planning Time"])
        if times[-1] <= MOST_MS:
            break
        time.sleep(0.5)
    return plan[0]["Plan"]["Actual Rows"], min(times)


def test_files_are_what_make_writes(tmp_path):
    with open(os.path.join(FOLDER, "make.py"), encoding="utf-8") as f:
        program = f.read().replace("os.path.dirname(os.path.abspath(__file__))", repr(str(tmp_path)))
    (tmp_path / "dashboards").mkdir()
    subprocess.run([sys.executable, "-c", program], check=True)
    for name in os.listdir(DASHBOARDS):
        with open(os.path.join(DASHBOARDS, name), "rb") as f:
            assert f.read() == (tmp_path / "dashboards" / name).read_bytes(), "run deploy/grafana/make.py"


def test_dashboards_are_well_made():
    with open(os.path.join(FOLDER, "provisioning", "datasources", "paku.yaml"), encoding="utf-8") as f:
        sources = {s["uid"]: s["type"] for s in yaml.safe_load(f)["datasources"]}
    uids = set()
    for name, d in dashboards():
        assert d["uid"] + ".json" == name and d["uid"] not in uids
        uids.add(d["uid"])
        ids = [p["id"] for p in d["panels"]]
        assert len(set(ids)) == len(ids)
        taken = set()
        for p in d["panels"]:
            at = p["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"])
                     for y in range(at["y"], at["y"] + at["h"])}
            assert at["x"] + at["w"] <= 24 and not cells & taken, p["title"]
            taken |= cells
            assert p["fieldConfig"]["defaults"]["unit"] and p["title"] and p["targets"]
            for target in [p, *p["targets"]]:
                assert sources[target["datasource"]["uid"]] == target["datasource"]["type"]
            used = set(re.findall(r"\$(?!__)(\w+)", json.dumps(p["targets"])))
            assert used <= {v["name"] for v in d["templating"]["list"]}


@pytest.mark.parametrize("p", panels())
def test_panel(full, p):
    for target in p["targets"]:
        if "rawSql" in target:
            rows, ms = ask(full, target["rawSql"])
            assert ms <= MOST_MS, "%d ms" % ms
            assert rows > 0 or p["title"] in ("Alerts",), "it shows nothing"
        else:
            named = set(re.findall(r"paku_ota_\w+", target["expr"]))
            assert named and not {n for n in named
                                  if re.sub("_(bucket|sum|count)$", "", n) not in full[2]}


def test_variables(full):
    for _, d in dashboards():
        for v in d["templating"]["list"]:
            rows, ms = ask(full, v["query"])
            assert rows > 0 and ms <= MOST_MS


def value(full, text, change):
    """What a rule's question says after CHANGE, which is taken back."""
    cluster, name, _ = full
    out = cluster.psql("BEGIN; %s; %s; ROLLBACK" % (change, text), database=name).splitlines()
    return float(out[-2]) if len(out) > 2 else None


@pytest.mark.parametrize("uid, quiet, raised", [
    ("paku-failure-rate", "SELECT 1",
     "UPDATE device_update_status SET status = 'failed' WHERE reported_at > now() - interval '1 day'"),
    ("paku-device-silent", "UPDATE devices SET last_seen = now()",
     "UPDATE devices d SET last_seen = u.reported_at FROM device_update_status u WHERE u.device_id = d.device_id AND "
     "u.status = 'success' AND u.reported_at BETWEEN now() - interval '3 days' AND now() - interval '2 days'"),
    ("paku-rollout-stuck", "SELECT 1",
     "UPDATE rollout_configurations SET state = 'running' WHERE id = 7; UPDATE device_update_status SET "
     "status = 'installing', completed_at = NULL, reported_at = now() - interval '2 days' WHERE id IN (SELECT id FROM "
     "device_update_status WHERE rollout_id = 7 AND reported_at > now() - interval '30 hours')"),
])
def test_alert_rules_both_ways(full, uid, quiet, raised):
    (rule,) = [r for r in rules() if r["uid"] == uid]
    text = rule["data"][0]["model"]["rawSql"]
    (above,) = rule["data"][1]["model"]["conditions"][0]["evaluator"]["params"]
    _, ms = ask(full, text)
    assert ms <= MOST_MS, "%d ms" % ms
    assert (value(full, text, quiet) or 0) <= above
    assert value(full, text, raised) > above
