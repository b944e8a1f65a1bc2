# SPDX-License-Identifier: MIT
"""/metrics in the Prometheus format, held against promtool and against what was done; the alert
rules in deploy/prometheus, both ways."""
import os
import re
import subprocess

import pytest

import images
from service import ROOT, wait_for

TEXT = {"Accept": "application/openmetrics-text;version=1.0.0,"
                  "application/openmetrics-text;version=0.0.1;q=0.75,"
                  "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"}
RULES = os.path.join(ROOT, "deploy", "prometheus")


def promtool(*args, **more):
    done = subprocess.run(["promtool", *args], capture_output=True, text=True, check=False, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def text(service):
    answer = service.session.get(service.url + "/metrics", headers=TEXT)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return answer.text


def samples(service):
    return {k: float(v) for k, v in
            re.findall(r"^([a-z0-9_]+(?:\{.*\})?) (\S+)$", text(service), re.M)}


def sample(service, name, **labels):
    """The one sample of that name with these labels among others; None: there is none."""
    found = [v for k, v in samples(service).items() if re.match(r"%s(\{|$)" % name, k)
             and all('%s="%s"' % one in k for one in labels.items())]
    assert len(found) < 2, found
    return found[0] if found else None


@pytest.fixture
def busy(services):
    """A service of which everything can be counted."""
    service = services(env={"OTA_NEW_DEVICES_PER_SECOND": "100000"})
    service.release(images.esp32("1.2.0"), "1.2.0")
    service.rollout("1.2.0", stages=[{"percent": 50}, {"percent": 100}], name='odd "name"')
    for i in range(30):
        service.check("dev-%d" % i, "1.0.%d" % (i % 3))
    service.get("/api/admin/nothing")
    return service


def test_promtool_has_nothing_to_say(busy):
    promtool("check", "metrics", input=text(busy))


def test_what_was_done_is_counted(busy):
    assert sample(busy, "paku_ota_build_info", version="0.1.0") == 1
    assert sample(busy, "paku_ota_devices") == 30
    assert sample(busy, "paku_ota_devices_by_version", model="esp32", version="1.0.1") == 10
    assert sample(busy, "paku_ota_devices_seen_24h") == 30
    assert sample(busy, "paku_ota_devices_online") == 0
    assert sample(busy, "paku_ota_http_answers_total", route="/api/firmware/check",
                  code="200") == 30
    assert sample(busy, "paku_ota_http_answers_total", route="(none)", code="404") == 1
    assert sample(busy, "paku_ota_http_answer_seconds_count", route="/api/firmware/check") == 30
    assert sample(busy, "paku_ota_http_answer_seconds_bucket", route="/api/firmware/check",
                  le=r"+Inf") == 30
    one = samples(busy)
    commits = one["paku_ota_commit_seconds_count"]
    assert 0 < commits == one["paku_ota_commit_commands_count"] == one["paku_ota_commits_total"]
    assert one["paku_ota_commit_commands_sum"] == one["paku_ota_commands_total"]


def test_rollouts_are_shown(busy):
    assert sample(busy, "paku_ota_rollouts", state="running") == 1
    assert sample(busy, "paku_ota_rollout_stage", model="esp32", version="1.2.0") == 1
    assert sample(busy, "paku_ota_rollout_percent") == 50
    assert sample(busy, "paku_ota_rollout_bound") == 2
    assert sample(busy, "paku_ota_rollout_halts_at") == 125
    (rollout,) = busy.list("rollouts")
    busy.ok("POST", "/api/admin/rollout/%d/abort" % rollout["id"], json={"reason": "enough"})
    assert sample(busy, "paku_ota_rollout_stage") is None
    assert sample(busy, "paku_ota_rollouts", state="aborted") == 1


def test_attempts_under_way_and_ended(services):
    service = services()
    service.release(images.esp32("1.2.0"), "1.2.0")
    service.rollout("1.2.0", guard="off")
    for i in range(5):
        service.check("dev-%d" % i)
    service.report("dev-0", "1.2.0", "downloading")
    service.report("dev-1", "1.2.0", "failed", error_message="no")
    service.report("dev-2", "1.2.0", "success")
    service.check("dev-2", "1.2.0")
    assert sample(service, "paku_ota_attempts_open", status="pending") == 2
    assert sample(service, "paku_ota_attempts_open", status="downloading") == 1
    assert sample(service, "paku_ota_attempts_ended_total", how="failed") == 1
    assert sample(service, "paku_ota_attempts_ended_total", how="success") == 1


def test_as_many_samples_whatever_devices_say(services):
    """Models and versions are devices' own words: they must not become samples without end."""
    service = services(env={"OTA_NEW_DEVICES_PER_SECOND": "100000"})
    for i in range(700):
        service.check("dev-%d" % i, "1.0.%d" % i)
    for i in range(3):
        service.check("same-%d" % i, "2.0.0")
    lines = [line for line in text(service).splitlines()
             if line.startswith("paku_ota_devices_by_version{")]
    assert len(lines) == 501
    assert sample(service, "paku_ota_devices_by_version", version="2.0.0") == 3
    assert sample(service, "paku_ota_devices_by_version", version=r"(others)") == 201


def test_census_is_taken_anew(services):
    service = services()
    service.check("dev-1")
    assert sample(service, "paku_ota_devices_by_version", version="1.0.0") == 1
    service.check("dev-1", "1.1.0")
    wait_for(lambda: sample(service, "paku_ota_devices_by_version", version="1.1.0") == 1,
             "the next census", 30)
    assert sample(service, "paku_ota_devices_by_version", version="1.0.0") is None


def test_alert_rules_both_ways():
    promtool("check", "rules", "rules.yml", cwd=RULES)
    assert "SUCCESS" in promtool("test", "rules", "rules_test.yml", cwd=RULES)
    with open(os.path.join(RULES, "rules.yml"), encoding="utf-8") as f:
        alerts = re.findall(r"alert: (\w+)", f.read())
    with open(os.path.join(RULES, "rules_test.yml"), encoding="utf-8") as f:
        tests = f.read()
    for alert in alerts:
        assert "- name: %s, quiet" % alert in tests and "- name: %s, raised" % alert in tests


def test_rules_and_pages_speak_of_what_there_is(services):
    """Each name in them is a metric of the service."""
    service = services(env={"OTA_MQTT": "on", "MQTT_PORT": "0", "OTA_S3_ENDPOINT": "http://127.0.0.1:1",
                            "OTA_S3_BUCKET": "firmware", "OTA_S3_ACCESS_KEY": "a", "OTA_S3_SECRET_KEY": "b"})
    with open(os.path.join(RULES, "rules.yml"), encoding="utf-8") as f:
        named = set(re.findall(r"paku_ota_\w+", f.read()))
    assert named
    there = set(re.findall(r"^# TYPE (\w+)", text(service), re.M))
    assert not {n for n in named if re.sub("_(bucket|sum|count)$", "", n) not in there}
    with open(os.path.join(ROOT, "docs", "monitoring.md"), encoding="utf-8") as f:
        table = f.read().split("## Metrics")[1].split("## Alerts")[0]
    told, stem = set(), ""
    first = "".join(line.split("|")[1] for line in table.split("|---|---|")[1].splitlines()
                    if line.startswith("|"))
    for name in re.findall(r"`([a-z0-9_]+)[{`]", first):
        stem = stem if name.startswith("_") else name.rsplit("_", 1)[0]
        told.add("paku_ota_" + (stem + name if name.startswith("_") else name))
    assert told - there == set() and there - told == set()
