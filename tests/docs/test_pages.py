# SPDX-License-Identifier: MIT
"""The pages against the programs: options, tables, log events, links, and lines to be typed."""
import os
import re
import sqlite3
import subprocess

import pytest

import images
from service import BUILD, PROGRAM, ROOT, wait_for

PAGES = ["README.md", "CONTRIBUTING.md"] + sorted(
    "docs/" + f for f in os.listdir(os.path.join(ROOT, "docs")) if f.endswith(".md"))


def page(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as f:
        return f.read()


def table_rows(text):
    """The cells of each table row of a page, of any table."""
    for line in text.splitlines():
        if line.startswith("|") and not set(line) <= set("|-: "):
            yield [c.strip() for c in line.strip("|").split("|")]


def blocks(text, kind):
    return re.findall(r"^```%s\n(.*?)^```$" % kind, text, re.M | re.S)


@pytest.fixture(scope="module")
def service(make_service):
    return make_service()


def test_links_lead_somewhere():
    for name in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page(name)):
            if not target.startswith("http"):
                at = os.path.join(ROOT, os.path.dirname(name), target)
                assert os.path.exists(at), "%s: %s" % (name, target)


def test_options_are_those_of_help():
    text = subprocess.run([PROGRAM, "--help"], capture_output=True, text=True, check=True).stdout
    offered = {}
    for name, fallback in re.findall(r"^  ([A-Z][A-Z_]+)[^\n\[]*(?:\[([^\]\n]+)\])?$", text, re.M):
        offered[name] = fallback or ""
    assert len(offered) > 20 and offered["PORT"] == "8080"
    written = {}
    for cells in table_rows(page("docs/operating.md")):
        for name in re.findall(r"`([A-Z][A-Z_]+)`", cells[0]):
            assert name not in written, name
            written[name] = cells[1].strip("`")
    assert written == {n: v.split(" ")[0] for n, v in offered.items()}


def test_schema_is_the_databases(service):
    db = sqlite3.connect("file:%s/paku-ota.db?mode=ro" % service.data, uri=True)
    has = {}
    for (table,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'"):
        if not table.startswith("sqlite_"):
            has[table] = [r[1] for r in db.execute("PRAGMA table_xinfo(%s)" % table)]
    db.close()
    written, table = {}, None
    for line in page("docs/database_schema.md").splitlines():
        if line.startswith("#"):
            named = re.fullmatch(r"## `(\w+)`", line)
            table = named.group(1) if named else None
        cells = line.strip("|").split("|")
        if table and line.startswith("| `"):
            written.setdefault(table, []).extend(re.findall(r"`(\w+)`", cells[0]))
    assert {t: sorted(c) for t, c in written.items()} == {t: sorted(c) for t, c in has.items()}


def test_sql_of_the_schema_page_runs(service):
    image = images.esp32("1.1.0")
    service.release(image, "1.1.0")
    service.rollout("1.1.0")
    service.check("dev-1")
    service.report("dev-1", "1.1.0", "success")
    # last_seen is written about once a minute; a listing of devices writes it at once.
    service.get("/api/admin/devices")
    queries = [q for b in blocks(page("docs/database_schema.md"), "sql") for q in b.split(";")
               if q.strip()]
    assert len(queries) >= 3
    db = sqlite3.connect("file:%s/paku-ota.db?mode=ro" % service.data, uri=True)
    for query in queries:
        assert db.execute(query).fetchall(), "no row: " + query
    db.close()


def test_event_types_are_those_of_the_source():
    events = set()
    for folder, _, files in os.walk(os.path.join(ROOT, "src", "commit")):
        for name in files:
            with open(os.path.join(folder, name), encoding="utf-8") as f:
                events |= set(re.findall(
                    r'"((?:firmware|rollout|update|device|version|retry|rollback|site|all)_[a-z]+)"', f.read()))
    events -= {"device_model", "device_ids", "device_id", "rollout_percentage", "update_id"}  # keys of JSON
    logged = set()
    for folder, _, files in os.walk(os.path.join(ROOT, "src")):
        for name in files:
            with open(os.path.join(folder, name), encoding="utf-8") as f:
                logged |= set(re.findall(r'log_event\(\s*[\w :?=]+,\s*[^;"]*"(?:[\w-]+",\s*")?([a-z_]+)",',
                                         f.read()))
    assert {"update_completed", "rollback_initiated", "device_registered"} <= events
    assert {"started", "stopped", "answered", "write_failed"} <= logged
    told = page("docs/operating.md")
    missing = {e for e in events | logged if "`%s`" % e not in told}
    assert not missing, missing


# --- lines to be typed ---

def run_lines(text, folder, service, extra=None):
    """Runs the lines of a page's `sh` blocks as they stand, against SERVICE."""
    env = {"PATH": "%s:%s" % (os.path.join(BUILD, "cli"), os.environ["PATH"]), "HOME": str(folder),
           "OTA_SERVICE_URL": service.url, "OTA_API_KEY": service.key, "LANG": "C.UTF-8",
           **(extra or {})}
    text = text.replace("http://127.0.0.1:8080", service.url).replace("build/", BUILD + "/")
    return subprocess.run(["bash", "-e", "-o", "pipefail", "-c", text], cwd=folder, env=env,
                          capture_output=True, text=True, timeout=120)


def test_first_update_of_the_readme(make_service, tmp_path):
    service = make_service()
    block = [b for b in blocks(page("README.md"), "sh") if "paku-ota upload" in b]
    assert len(block) == 1
    done = run_lines(block[0], tmp_path, service)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"update_available":true' in done.stdout
    assert '"status":"ok"' in done.stdout
    rollout = service.list("rollouts")[0]
    assert service.ok("GET", "/api/admin/rollouts/%d" % rollout["id"])["counts"]["success"] == 1


def shape(text):
    """An answer without what differs from run to run."""
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    text = re.sub(r"(attempt_id\":\"|attempt=)[a-z2-7]{13}", r"\1TOKEN", text)
    text = re.sub(r"[0-9a-f]{64}", "SHA256", text)
    text = re.sub(r"http://[\d.]+:\d+", "URL", text)
    text = re.sub(r"\"(retry_after_s|uptime_s|file_size|commits_total|http_\w+)\":\d+", r'"\1":N', text)
    return re.sub(r"\s+", "", text)


def test_lines_of_the_api_page(make_service, tmp_path):
    """Each `$ curl` of docs/api.md, in one shell, and the answer that stands below it."""
    service = make_service()
    sample = os.path.join(BUILD, "deploy", "sample.bin")
    assert os.path.exists(sample), "the sample image is not built"
    os.symlink(sample, tmp_path / "firmware.bin")
    text = "".join(blocks(page("docs/api.md"), "console"))
    lines = re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", text, re.M)
    assert len(lines) > 10
    script = 'URL=%s; KEY=%s\n' % (service.url, service.key)
    for command, _ in lines:
        script += "%s\nprintf '\\n@@@\\n'\n" % command
    done = run_lines(script, tmp_path, service)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = done.stdout.split("\n@@@\n")
    assert len(answers) == len(lines) + 1
    for (command, written), answer in zip(lines, answers):
        parts = [shape(p) for p in written.split("...")]
        at, told = 0, shape(answer)
        for part in parts:
            found = told.find(part, at)
            assert found >= 0, "%s\nthe page: %s\nthe service: %s" % (command, written, answer)
            at = found + len(part)


def test_backup_as_the_operating_page_says(service, tmp_path):
    block = [b for b in blocks(page("docs/operating.md"), "sh") if ".backup" in b]
    assert len(block) == 1
    wait_for(lambda: service.get("/health").ok, "the service")
    text = block[0].replace("/var/lib/paku-ota", service.data).replace("/backup", str(tmp_path))
    done = run_lines(text, tmp_path, service)
    assert done.returncode == 0, done.stdout + done.stderr
    copy = sqlite3.connect(tmp_path / "paku-ota.db")
    assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert copy.execute("SELECT count(*) FROM firmware_releases").fetchone()[0] >= 0
    copy.close()


def test_rows_are_saved_as_the_operating_page_says(make_service, tmp_path):
    service = make_service()
    service.release(images.esp32("1.1.0"), "1.1.0")
    service.rollout("1.1.0")
    service.check("dev-1")
    service.report("dev-1", "1.1.0", "downloading")
    block = [b for b in blocks(page("docs/operating.md"), "sh") if ".dump" in b]
    assert len(block) == 1
    lists = ("releases", "rollouts", "devices", "updates", "events")
    before = {name: service.list(name) for name in lists}
    service.stop()
    done = run_lines(block[0], service.data, service)
    assert done.returncode == 0, done.stdout + done.stderr
    os.replace(os.path.join(service.data, "new.db"), os.path.join(service.data, "paku-ota.db"))
    service.start()
    assert {name: service.list(name) for name in lists} == before
    assert service.check("dev-1")["reason"] == "in_progress"


def test_attempts_are_those_of_the_source():
    """The table of docs/architecture.md is next_state[][] of src/core/attempt.c."""
    with open(os.path.join(ROOT, "src", "core", "attempt.c"), encoding="utf-8") as f:
        rows = re.findall(r"\[EVENT_(\w+)\] = \{([A-Z, ]+)\}", f.read())
    states = ["PEND", "DLNG", "DLED", "INST", "SUCC", "FAIL", "RBCK", "LAPS", "WDRN"]
    names = ["pending", "downloading", "downloaded", "installing", "success", "failed",
             "rolled back", "lapsed", "withdrawn"]
    want = [["." if to == states[i] else names[states.index(to)]
             for i, to in enumerate(cells.split(", "))] for event, cells in rows if event != "NONE"]
    page_rows = list(table_rows(page("docs/architecture.md")))
    first = next(i for i, cells in enumerate(page_rows) if cells[0] == "event")
    assert page_rows[first][1:] == names
    assert [cells[1:] for cells in page_rows[first + 1:first + 1 + len(want)]] == want
