# SPDX-License-Identifier: MIT
"""The pages against the programs: options, tables, log events, links, and lines to be typed."""
import http.server
import json
import os
import re
import socket
import sqlite3
import subprocess
import threading

import pytest

import images
from mqtt import MqttService
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
    for name, fallback in re.findall(r"^  ([A-Z][A-Z0-9_]+)[^\n\[]*(?:\[([^\]\n]+)\])?$", text, re.M):
        offered[name] = fallback or ""
    assert len(offered) > 20 and offered["PORT"] == "8080"
    written = {}
    for cells in table_rows(page("docs/operating.md")):
        for name in re.findall(r"`([A-Z][A-Z0-9_]+)`", cells[0]):
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
                    r'"((?:firmware|rollout|update|device|version|retry|rollback|site|all|gate|alert)_[a-z_]+)"', f.read()))
    events |= {"release_suspect"}
    events -= {"alert_id", "device_model", "device_ids", "device_id", "firmware_version",
               "rollout_id", "rollout_percentage", "update_id"}  # keys of JSON
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


def test_backup_as_the_operating_page_says(make_service, tmp_path):
    service = make_service()
    service.release(images.esp32("1.1.0"), "1.1.0")
    service.check("dev-1")
    lines = [b for b in blocks(page("docs/operating.md"), "sh") if "/backup/" in b]
    assert len(lines) == 2 and "paku-ota backup" in lines[0] and "--restore" in lines[1]
    new = tmp_path / "new"
    place = {"PATH": "%s:%s:%s" % (os.path.join(BUILD, "cli"), os.path.join(BUILD, "src"), os.environ["PATH"])}
    for text in lines:
        done = run_lines(text.replace("/var/lib/paku-ota", str(new)).replace("/backup/", "%s/" % tmp_path),
                         tmp_path, service, place)
        assert done.returncode == 0, done.stdout + done.stderr
    copy = sqlite3.connect(new / "paku-ota.db")
    assert copy.execute("SELECT device_id FROM devices").fetchall() == [("dev-1",)]
    copy.close()
    done = run_lines("tar xf paku-ota.tar && sha256sum -c SHA256SUMS", tmp_path, service)
    assert done.returncode == 0 and "paku-ota.db: OK" in done.stdout, done.stderr
    assert "tar\nxf paku-ota.tar && sha256sum -c SHA256SUMS" in page("docs/operating.md")


# --- docs/faq.md, docs/upgrade.md ---

def commands_in(text):
    """What a page has to be typed: (program, words) of paku-ota and paku-otad, in blocks and in passing."""
    lines = [line for b in re.findall(r"^```(?:sh|console)?\n(.*?)^```$", text, re.M | re.S) for line in b.splitlines()]
    lines += re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S).replace("\n", " "))
    for line in lines:
        for part in re.split(r"&&|;|\|", line):
            words = re.sub(r"^\s*(\$ )?([A-Z_]+=\S+ )*", "", part).split()
            if words and words[0] in ("paku-ota", "paku-otad"):
                yield words[0], words[1:]


@pytest.mark.parametrize("name", ["docs/faq.md", "docs/upgrade.md", "docs/operating.md", "docs/alerts.md",
                                  "docs/rollouts.md"])
def test_commands_exist(name):
    """Each command of the page, and each of its options, is one that --help tells of."""
    program = {"paku-ota": os.path.join(BUILD, "cli", "paku-ota"), "paku-otad": PROGRAM}
    found = list(commands_in(page(name)))
    assert len(found) >= (3 if name in PAGES else 0), found
    for which, words in found:
        options = [w.split("=")[0] for w in words if w.startswith("--")]
        if which == "paku-otad":
            usage = subprocess.run([PROGRAM, "--help"], capture_output=True, text=True).stdout
        else:
            named = [w for w in words[:2] if re.fullmatch(r"[a-z-]+", w) and not w.startswith("-")]
            usage = ""
            for n in range(len(named), 0, -1):  # "rollout show", else "explain"
                done = subprocess.run([program[which], *named[:n], "--help"], capture_output=True, text=True)
                path = "Usage: paku-ota " + " ".join(named[:n])
                if done.returncode == 0 and done.stdout.startswith(path + " ") or done.stdout.startswith(path + "\n"):
                    usage = "" if n < len(named) and "Commands:" in done.stdout else done.stdout
                    if named == ["devices"]:
                        usage += subprocess.run([program[which], "devices", "list", "--help"],
                                                capture_output=True, text=True).stdout
                    break
            assert usage or not words, "%s: there is no 'paku-ota %s'" % (name, " ".join(words))
        for option in options:
            assert re.search(r"%s\b" % re.escape(option), usage or "--help"), (name, which, words, option)


def test_the_table_of_problems_answers_the_seeds():
    rows = {re.sub(r"\[([^\]]+)\].*", r"\1", cells[0]): cells for cells in table_rows(page("docs/faq.md"))}
    for problem in ("Build fails", "Upload fails", "Rollout created, devices not updating", "High failure rate"):
        assert re.search(r"`[^`]+`", rows[problem][1]), problem


@pytest.mark.parametrize("name", ["docs/faq.md", "docs/upgrade.md"])
def test_lines_run_as_they_stand(make_service, tmp_path, name):
    service = make_service()
    service.release(images.esp32("1.1.0"), "1.1.0")
    service.rollout("1.1.0", name="night")
    said = {"attempt_id": service.check("esp32_001")["attempt_id"]}
    service.report("esp32_001", "1.1.0", "downloading", **said)
    service.report("esp32_001", "1.1.0", "failed", result_code=4, **said)
    new = tmp_path / "new"
    place = {"PATH": "%s:%s:%s" % (os.path.join(BUILD, "cli"), os.path.join(BUILD, "src"), os.environ["PATH"])}
    lines = [b for b in blocks(page(name), "sh")]
    assert len(lines) >= 3
    for text in lines:
        done = run_lines(text.replace("/var/lib/paku-ota", str(new)), tmp_path, service, place)
        assert done.returncode == 0, text + done.stdout + done.stderr
    if name.endswith("faq.md"):
        assert service.list("rollouts")[0]["state"] == "paused"
    else:
        assert (new / "paku-ota.db").exists()


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


def test_states_of_a_rollout_are_those_of_the_source():
    """The table of docs/rollouts.md is table[][] of src/core/stage.c."""
    text = source("core", "stage.c")
    rows = re.findall(r"\[ROLLOUT_(\w+)\]\s*= \{([A-Z, ]+)\}", text)
    names = re.findall(r'\[ROLLOUT_\w+\] = "(\w+)"', text[:text.index("event_names")])
    states = [n[:2].upper() for n in names]
    want = [[event.lower()] + ["" if to == "NO" else "." if to == states[i]
                               else names[states.index(to)]
                               for i, to in enumerate(re.split(r",\s+", cells))]
            for event, cells in rows]
    assert len(want) == 11 and len(names) == 7
    page_rows = list(table_rows(page("docs/rollouts.md")))
    first = next(i for i, cells in enumerate(page_rows) if cells[0] == "event")
    assert page_rows[first][1:] == names
    assert page_rows[first + 1:first + 1 + len(want)] == want
    words = [w for w in re.findall(r'\[WAIT_\w+\] = "(\w+)"', text)]
    told = re.search(r"^\| `waits_for`.*?\n\n", page("docs/rollouts.md"), re.M | re.S).group(0)
    assert len(words) == 10 and not [w for w in words if "`%s`" % w not in told]


# --- docs/alerts.md ---

def test_kinds_of_alerts_are_those_of_the_source():
    kinds = re.findall(r'\[ALERT_\w+\] = "(\w+)"', source("core", "alert.c"))
    assert len(kinds) == 7
    told = [cells[0].strip("`") for cells in table_rows(page("docs/alerts.md"))]
    assert [t for t in told if t in kinds] == kinds * 2  # what they are, what to do
    spec = re.search(r"AlertKind:\n\s+enum: \[([^\]]+)\]", page("docs/openapi.yaml")).group(1)
    assert spec.split(", ") == kinds
    with open(os.path.join(ROOT, "cli", "cmd_alerts.c"), encoding="utf-8") as f:
        offered = re.search(r"kinds\[\] = \{(.*?)\}", f.read(), re.S).group(1)
    assert re.findall(r'"(\w+)"', offered) == kinds
    text = source("core", "alert.h")
    percent, least, over = (int(re.search(r"#define ALERT_%s\s+(\d+)" % n, text).group(1))
                            for n in ("FAILURE_PERCENT", "FAILURE_ATTEMPTS", "FAILURE_OVER_PERCENT"))
    assert "over %d %% of the attempts at a release failed, of at least %d" % (percent, least) in \
        page("docs/alerts.md")
    assert "%d %% or fewer did" % over in page("docs/alerts.md")


def test_a_message_and_its_signature_as_the_alerts_page_says(make_service):
    """The page's own lines judge what the service really sends."""
    got, secret = [], "quiet"

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            got.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        service = make_service(env={"OTA_WEBHOOK_SECRET": secret, "OTA_WEBHOOK_URL":
                                    "http://127.0.0.1:%d/" % server.server_address[1]})
        service.release(images.esp32("1.1.0"), "1.1.0")
        service.rollout("1.1.0", stages=[{"percent": 10, "min_proven": 0, "approve": True},
                                         {"percent": 100}])
        headers, body = wait_for(lambda: got, "the message")[0]
    finally:
        server.shutdown()
        server.server_close()
    lines, = blocks(page("docs/alerts.md"), "python")
    names = {}
    exec(lines, names)
    assert names["is_ours"](secret, headers, body)
    assert not names["is_ours"]("another", headers, body)
    assert not names["is_ours"](secret, headers, body + b" ")
    for stamp in (1, int(headers["X-Paku-Timestamp"]) - 301):
        assert not names["is_ours"](secret, {**headers, "X-Paku-Timestamp": str(stamp)}, body)
    shown = json.loads(blocks(page("docs/alerts.md"), "json")[0])
    sent = json.loads(body)
    assert list(shown) == list(sent) and list(shown["alert"]) == list(sent["alert"])


# --- docs/mqtt.md ---

def source(*path):
    with open(os.path.join(ROOT, "src", *path), encoding="utf-8") as f:
        return f.read()


def test_an_update_by_hand_as_the_mqtt_page_says(tmp_path):
    service = MqttService(tmp_path / "service").start()
    try:
        block, = blocks(page("docs/mqtt.md"), "sh")
        text = re.sub(r"mosquitto_(pub|sub) ", r"mosquitto_\1 -p %d " % service.mqtt_port, block)
        done = run_lines(text, tmp_path, service)
        assert done.returncode == 0, done.stdout + done.stderr
        wait_for(lambda: service.update_of("dev-1")["status"] == "success", "the result")
        assert len(service.list("updates")) == 1
        rejected, = wait_for(lambda: service.ok("GET", "/api/admin/rejected")["rejected"],
                             "the message that was not understood")
        assert rejected["reason"] == "field"
        with open(os.path.join(BUILD, "deploy", "sample.bin"), "rb") as sample:
            assert (tmp_path / "got.bin").read_bytes() == sample.read()
    finally:
        service.stop()


def test_words_of_the_mqtt_page_are_those_of_the_source():
    text, payload = page("docs/mqtt.md"), source("mqtt", "payload.c")
    rows = list(table_rows(text))
    names = re.findall(r'\{"([a-z ]+)", (?:COUNTS|PASSES|MIXED)', source("core", "retry.c"))
    written = {cells[i]: cells[i + 1] for cells in rows if len(cells) == 4 for i in (0, 2)
               if cells[i].isdigit()}
    assert written == {str(code): name for code, name in enumerate(names)} and len(names) == 12
    reasons = re.findall(r'\[REJECT_\w+\] = "(\w+)"', payload)
    first = rows.index(["reason", ""]) + 1
    assert [cells[0].strip("`") for cells in rows[first:first + len(reasons)]] == reasons
    states = set(re.findall(r'"(\w+)"|$', re.search(r"progress_words\[\].*?\};", payload, re.S).group()))
    first = rows.index(["state", "is"]) + 1
    told = {w for cells in rows[first:first + 6] for w in re.findall(r"`(\w+)`", cells[0])}
    assert told == {s for s in states if s and not s.lower().startswith("rolled")}


def test_every_result_code_says_what_follows():
    section = page("docs/rollouts.md").split("\n## After a failure\n")[1].split("\n## ")[0]
    names = re.findall(r'\{"([a-z ]+)", (?:COUNTS|PASSES|MIXED)', source("core", "retry.c"))
    written = [pair for cells in table_rows(section)
               for pair in re.findall(r"(\d+) ([a-z ]+)", cells[0])]
    assert sorted((int(code), name) for code, name in written) == list(enumerate(names))[1:]


def test_rules_of_the_mqtt_page_are_those_of_the_built_in_broker():
    rules = "".join(re.findall(r'"(topic [^"]*)\\n"', source("mqtt", "broker_files.c")))
    told = re.findall(r"^topic (?:read|write) .*$", page("docs/mqtt.md"), re.M)
    assert told and rules.startswith("".join(told))


def test_rules_for_a_broker_of_ones_own(tmp_path):
    rules, = blocks(page("docs/mqtt.md"), "conf")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    (tmp_path / "acl").write_text(rules)
    (tmp_path / "passwords").write_text("paku-ota:a\ndev-1:b\ndev-2:c\n")
    subprocess.run(["mosquitto_passwd", "-U", "passwords"], cwd=tmp_path, check=True)
    (tmp_path / "conf").write_text("listener %d 127.0.0.1\npassword_file passwords\nacl_file acl\n"
                                   "user root\n" % port)
    broker = subprocess.Popen(["/usr/sbin/mosquitto", "-c", "conf"], cwd=tmp_path,
                              stderr=subprocess.DEVNULL)

    def may(user, topic):
        done = subprocess.run(["mosquitto_pub", "-p", str(port), "-V", "5", "-q", "1", "-d", "-u", user,
                               "-P", {"paku-ota": "a", "dev-1": "b", "dev-2": "c"}[user],
                               "-t", topic, "-m", "x"], capture_output=True, text=True)
        return "PUBACK" in done.stdout and "RC:135" not in done.stdout
    try:
        wait_for(lambda: may("paku-ota", "paku/edge/dev-1/cmd/ota"), "the broker")
        assert may("paku-ota", "paku/ota-service/status")
        for last in ("status", "ota/status", "ota/progress", "ota/result"):
            assert may("dev-1", "paku/edge/dev-1/" + last)
            assert not may("dev-2", "paku/edge/dev-1/" + last)
        assert not may("dev-1", "paku/edge/dev-1/cmd/ota")
    finally:
        broker.terminate()
        broker.wait()
