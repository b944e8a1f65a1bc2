# SPDX-License-Identifier: MIT
"""`paku-ota doctor`: well when all is well, and for each thing that can be broken a line that says
so and what to do."""
import http.server
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import threading

import pytest

import images
import postgres
from mqtt import MqttService
from service import BUILD, wait_for
from test_conductor import lead

CLI = os.path.join(BUILD, "cli", "paku-ota")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")


def run(service, *args, **env):
    return subprocess.run([CLI, "doctor", *args], capture_output=True, text=True, timeout=60,
                          env={"PATH": os.environ["PATH"], "HOME": service.folder, "LANG": "C.UTF-8",
                               "OTA_SERVICE_URL": service.url, "OTA_API_KEY": service.key, **env})


def doctor(service, code=0, **env):
    """[(level, check, finding, advice)], and the exit code is right."""
    done = run(service, "--json", **env)
    assert done.returncode == code, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["ok"] == (code == 0)
    found = [(c["level"], c["check"], c["finding"], c["advice"]) for c in said["checks"]]
    assert all((level == "ok") == (advice is None) for level, _, _, advice in found), found
    assert (code == 1) == any(f[0] == "problem" for f in found)
    return found


def bad(found):
    return [f for f in found if f[0] != "ok"]


def only(found, level, check, words, advice=""):
    one, = bad(found)
    assert one[:2] == (level, check) and words in one[2] and advice in one[3], one


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def filled(service):
    service.release(images.esp32("1.1.0"), "1.1.0")
    service.release(images.esp32("1.2.0+b"), "1.2.0+b", "box+x")
    service.check("dev-1")
    return service


def test_all_is_well(tmp_path):
    service = filled(MqttService(tmp_path / "service").start())
    try:
        found = doctor(service)
        assert not bad(found)
        checks = [f[1] for f in found]
        assert set(checks) == {"service", "store", "disk", "images", "broker", "clock", "devices", "alerts",
                               "messages", "address"}
        told = {f[1]: f[2] for f in found}
        assert "looked through: whole" in told["store"]
        assert told["images"].startswith("2 releases") and "compared with their sums" in told["images"]
        assert told["broker"].startswith("the built-in one, connected since 20")
        assert told["devices"] == "1 known, 1 of them heard of within a day"
        assert "a test download of" in told["address"] and service.url in told["address"]
        # As text: one line a check.
        lines = run(service).stdout.splitlines()
        assert len(lines) == len(found) and all(line.startswith("ok ") for line in lines)
    finally:
        service.stop()


def test_an_empty_service_is_well(services):
    found = doctor(services())
    assert not bad(found)
    assert ("ok", "address", "there is no release yet, so nothing was downloaded to try it", None) in found


def test_nobody_is_there(services):
    service = services()
    url = "http://127.0.0.1:%d" % free_port()
    done = run(service, OTA_SERVICE_URL=url)
    assert done.returncode == 1
    assert done.stdout.startswith("problem  service   cannot reach " + url) and "systemctl status" in done.stdout
    only(doctor(service, 1, OTA_SERVICE_URL=url), "problem", "service", "nothing answers", "is it running?")
    only(doctor(service, 1, OTA_API_KEY="wrong"), "problem", "key", "Invalid API key", "--new-key")


def test_it_is_stopped(services):
    service = services()
    service.ok("POST", "/api/admin/stop-all", json={"reason": "pumps do not come back"})
    only(doctor(service), "warning", "service", "pumps do not come back", "paku-ota resume-all")
    line, = [x for x in run(service).stdout.splitlines() if x.startswith("warning")]
    assert line.startswith("warning  service   everything is stopped since 20")
    assert line.endswith("To do: when it is mended: paku-ota resume-all")


def test_images_that_are_not_what_they_were(services):
    service = filled(services())
    where = {n: os.path.join(service.data, "firmware", n) for n in service.firmware_files()}
    assert len(where) == 2
    for damage, words in ((lambda d: d[:-1] + bytes([d[-1] ^ 1]), "damaged"), (lambda d: d[:-1], "another size"),
                          (lambda d: None, "is missing")):
        for path in where.values():
            whole = open(path, "rb").read()
            broken = damage(whole)
            os.unlink(path)
            if broken is not None:
                with open(path, "wb") as f:
                    f.write(broken)
            wrong = [f for f in bad(doctor(service, 1)) if f[1] == "images"]
            assert len(wrong) == 1 and words in wrong[0][2] and "upload the same file again" in wrong[0][3]
            with open(path, "wb") as f:
                f.write(whole)
    assert not bad(doctor(service))


def test_the_database_is_damaged(services):
    service = services()
    filled(service)
    for i in range(300):
        service.check("dev-%d" % i)
    service.stop()
    path = service.data + "/paku-ota.db"
    db = sqlite3.connect(path)
    page = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'events_by_device'").fetchone()[0]
    db.close()
    with open(path, "r+b") as f:
        f.seek(page * 4096 - 250)  # a page is filled from its end
        f.write(b"\xff" * 250)
    service.start()
    found = bad(doctor(service, 1))
    assert found[0][:2] == ("problem", "store") and "is damaged" in found[0][2] and "backup" in found[0][3]


def test_the_database_takes_no_writes(services):
    service = filled(services())
    other = sqlite3.connect(service.data + "/paku-ota.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    service.check_later = threading.Thread(target=lambda: service.session.get(
        service.url + "/api/firmware/check", timeout=60,
        params={"device_id": "dev-2", "device_model": "esp32", "current_version": "1.0.0"}))
    service.check_later.start()
    wait_for(lambda: service.get("/health").status_code == 503, "the store to be ill", 30)
    assert ("problem", "store") in [f[:2] for f in bad(doctor(service, 1))]
    assert "locked by another program" in bad(doctor(service, 1))[0][2]
    other.execute("ROLLBACK")
    other.close()
    service.check_later.join()
    wait_for(lambda: service.get("/health").status_code == 200, "the store to be well", 30)
    assert not bad(doctor(service))


@needs_root
def test_the_disk_is_nearly_full(services, tmp_path):
    where = tmp_path / "small"
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=755", "tmpfs", str(where)], check=True)
    try:
        service = services(env={"FIRMWARE_STORAGE_PATH": str(where)})
        only(doctor(service, 1), "problem", "disk", "%s: 8 MiB of 8 are free" % where, "make room")
        service.stop()
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def test_the_broker(services, tmp_path):
    port = free_port()
    service = services(env={"OTA_MQTT": "on", "MQTT_HOST": "127.0.0.1", "MQTT_PORT": str(port),
                            "OTA_PUBLIC_URL": "http://127.0.0.1:%d" % free_port()})
    wait_for(lambda: "not_connected" in service.log(), "the first try")
    found = bad(doctor(service, 1))
    assert found[0][:2] == ("problem", "broker") and "not connected since 20" in found[0][2]
    assert "MQTT_HOST" in found[0][3]
    (tmp_path / "conf").write_text("listener %d 127.0.0.1\nallow_anonymous true\nuser root\nmax_inflight_messages 5\n"
                                   "max_packet_size 2000\n" % port)
    broker = subprocess.Popen(["/usr/sbin/mosquitto", "-c", str(tmp_path / "conf")], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: service.ok("GET", "/health")["mqtt"].startswith("connected"), "the broker", 60)
        found = doctor(service)
        assert [f[:2] for f in bad(found)] == [("warning", "broker")] * 2
        assert "packets of up to 2000 bytes" in bad(found)[0][2] and "max_packet_size" in bad(found)[0][3]
        assert "5 commands at a time" in bad(found)[1][2] and "max_inflight_messages" in bad(found)[1][3]
        assert any("that of MQTT_HOST, connected since" in f[2] for f in found)
    finally:
        broker.terminate()
        broker.wait()


def test_clocks(services, clock):
    service = filled(services(env=clock.environment()))
    clock.set(20)
    only(doctor(service), "warning", "clock", "ahead of this machine's", "NTP")
    clock.set(7200)
    only(doctor(service, 1), "problem", "clock", "ahead of this machine's", "NTP")
    service.check("dev-9")
    service.stop()
    clock.set(0)
    service.start()
    only(doctor(service, 1), "problem", "clock", "behind what was stored last", "rollouts wait")


def test_devices(services, clock):
    service = filled(services(env=clock.environment()))
    service.report("nameless", "1.1.0", "success")
    only(doctor(service), "warning", "devices", "1 have not said which model", "device_model")
    clock.set(2 * 86400)
    found = bad(doctor(service, 1))
    assert ("problem", "devices", "2 known, 0 of them heard of within a day") in [f[:3] for f in found]


def test_alerts(services):
    service = filled(services())
    number = service.rollout("1.1.0", stages=[{"percent": 10, "min_proven": 0, "approve": True}, {"percent": 100}])
    alert = wait_for(lambda: service.list("alerts"), "the alert")[0]
    only(doctor(service), "warning", "rollouts", "rollout/%d: " % number, "paku-ota alerts --ack %d" % alert["id"])
    assert lead(service, number, "approve").status_code == 200
    wait_for(lambda: not bad(doctor(service)), "the alert to be over")
    # Found bad: two of the first two.
    service.release(images.esp32("2.0.0"), "2.0.0")
    service.rollout("2.0.0", name="bad", priority=5)
    for name in ("a", "b", "c"):
        answer = service.check(name)
        if answer["update_available"] and answer["latest_version"] == "2.0.0":
            said = {"attempt_id": answer["attempt_id"]}
            service.report(name, "2.0.0", "downloading", **said)
            service.report(name, "2.0.0", "failed", result_code=4, **said)
    halted = wait_for(lambda: [a for a in service.list("alerts", open="true") if a["kind"] == "rollout_halted"],
                      "the halt")[0]
    assert ("problem", "rollouts") in [f[:2] for f in bad(doctor(service, 1))]
    service.ok("POST", "/api/admin/alerts/%d/acknowledge" % halted["id"], json={"reason": "the lab looks"})
    seen = [f for f in bad(doctor(service)) if f[1] == "rollouts"]
    assert [f[3] for f in seen if "halted" in f[2] or "bad" in f[2]] == ["somebody has seen it"] * len(seen)


def test_messages_that_were_not_understood(tmp_path):
    service = MqttService(tmp_path / "service").start()
    try:
        subprocess.run(["mosquitto_pub", "-p", str(service.mqtt_port), "-q", "1", "-t", "paku/edge/dev-1/ota/result",
                        "-m", "{"], check=True)
        wait_for(lambda: service.list("rejected"), "the message")
        only(doctor(service), "warning", "messages", "1 over MQTT within a day", "paku-ota rejected")
    finally:
        service.stop()


class Wrong(http.server.BaseHTTPRequestHandler):
    answers = 200, b"<html>welcome</html>"

    def do_GET(self):
        status, body = self.answers
        self.send_response(status)
        if status == 301:
            self.send_header("Location", "https://elsewhere.example/")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def test_the_public_address(services):
    nowhere = "http://127.0.0.1:%d" % free_port()
    service = filled(services("nowhere", env={"OTA_PUBLIC_URL": nowhere}))
    only(doctor(service, 1), "problem", "address", nowhere, "is OTA_PUBLIC_URL right")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Wrong)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        another = "http://127.0.0.1:%d" % server.server_address[1]
        service = filled(services("another", env={"OTA_PUBLIC_URL": another}))
        only(doctor(service, 1), "problem", "address", "they are not the image")
        Wrong.answers = 301, b""
        only(doctor(service, 1), "problem", "address", "301 and points to https://elsewhere.example/")
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def cluster():
    made = postgres.Cluster()
    yield made
    made.close()


def test_postgresql(services, cluster):
    """Its settings, and a standby that nobody waits for."""
    service = filled(services(env=cluster.environment(), store="sqlite"))
    found = doctor(service)
    told = {}
    for level, check, finding, _ in found:
        assert level == "ok"
        told.setdefault(check, []).append(finding)
    assert told["store"][0].startswith("postgresql ") and told["replication"] == ["no standby is connected"]
    assert any("the database server's clock is 0." in t for t in told["clock"])

    def setting(name, value, there):
        cluster.psql("ALTER SYSTEM SET %s = '%s'" % (name, value))
        cluster.psql("SELECT pg_reload_conf()")
        wait_for(lambda: cluster.psql("SHOW " + name) == there, name)

    setting("fsync", "off", "off")
    only(doctor(service, 1), "problem", "store", "fsync is off", "postgresql.conf")
    setting("fsync", "on", "on")
    setting("autovacuum", "off", "off")
    only(doctor(service), "warning", "store", "autovacuum is off")
    setting("autovacuum", "on", "on")
    follows = os.path.join(cluster.folder, "wal")
    os.mkdir(follows)
    try:
        receiver = subprocess.Popen([shutil.which("pg_receivewal") or os.path.join(cluster.bin, "pg_receivewal"),
                                     "-D", follows, "--synchronous", "--no-password"],
                                    env={**os.environ, **cluster.environment()}, stderr=subprocess.DEVNULL)
        wait_for(lambda: cluster.psql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "1",
                 "the standby", 30)
        only(doctor(service), "warning", "replication", "asynchronous: 1 standbys", "synchronous_standby_names")
        setting("synchronous_standby_names", "*", "*")
        assert not bad(doctor(service))
        receiver.terminate()
        receiver.wait()
        wait_for(lambda: cluster.psql("SELECT count(*) FROM pg_stat_replication") == "0", "it to be gone")
        only(doctor(service, 1), "problem", "replication", "no standby is connected", "start a standby")
    finally:
        cluster.psql("ALTER SYSTEM RESET synchronous_standby_names")
        cluster.psql("SELECT pg_reload_conf()")
        receiver.terminate()
        receiver.wait()
    cluster.stop()
    found = bad(doctor(service, 1))
    assert ("problem", "store") in [f[:2] for f in found]
    cluster.start()
