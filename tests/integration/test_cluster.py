# SPDX-License-Identifier: MIT
"""Several paku-otad on one PostgreSQL and one broker: one leads, the others pass on and take over.

What was acknowledged is there once, nobody is told twice, no stage is walked twice, whoever is
killed, frozen or cut off, and whenever."""
import json
import os
import random
import signal
import subprocess
import threading
import time

import pytest
import requests

import images
import postgres
from cluster import DISTURBANCES, Group, answers
from mqtt import Broker, Client, Device
from service import KEY, read_answer, wait_for
from test_conductor import events, same_as_explained

NEW = "2.0.0"
PER_SECOND = 2  # commands
AT_ONCE = PER_SECOND // 2 + 1  # so many may a leader have begun to tell when it goes


class Session:
    """Somebody else at the database; FIRST is what it does, or waits to do."""

    def __init__(self, group, first):
        self.process = subprocess.Popen(
            ["psql", "-X", "-At", "-q"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **group.server.environment(group.name)})
        self.process.stdin.write("SELECT pg_backend_pid();\n%s;\n" % first)
        self.process.stdin.flush()
        self.pid = int(self.process.stdout.readline())

    def close(self):
        self.process.communicate()


@pytest.fixture
def group(tmp_path):
    made = []

    def make(count=2, server=None, **settings):
        made.append(Group(tmp_path, count, server, **settings))
        return made[-1]

    yield make
    for g in made:
        g.close()


@pytest.fixture
def broker(tmp_path):
    b = Broker(tmp_path)
    yield b
    b.close()


# --- following ---

def test_every_instance_answers_alike(group):
    g = group(3)
    leader, (follower, third) = g.roles()
    image = images.esp32(NEW, size=300000)
    follower.release(image, NEW)
    assert third.list("releases")[0]["version"] == NEW
    follower.rollout(NEW)
    offer = follower.check("d1")
    assert offer["update_available"] and offer["download_url"].startswith(follower.url + "/api/")
    whole = follower.session.get(offer["download_url"])
    assert whole.content == image and whole.headers["ETag"]
    part = follower.session.get(offer["download_url"], headers={"Range": "bytes=1000-1999"})
    assert part.status_code == 206 and part.content == image[1000:2000]
    head = follower.session.head(offer["download_url"])
    assert int(head.headers["Content-Length"]) == len(image) and not head.content
    follower.report("d1", NEW, "success", attempt_id=offer["attempt_id"])
    assert leader.list("updates")[0]["status"] == "success"
    # What is wrong is as wrong here as there, to the letter.
    for method, path, more in (
            ("GET", "/api/nothing?a=b", {}), ("POST", "/api/firmware/check", {}),
            ("GET", "/api/admin/devices", {"headers": {"X-API-Key": "wrong"}}),
            ("POST", "/api/admin/rollout/create", {"json": {"name": "x"}}),
            ("POST", "/api/admin/rollout/create", {"data": b"{"}),
            ("GET", "/api/firmware/download/9.9.9", {}),
            ("PUT", "/api/admin/devices/d1/label", {"json": {"label": "\u00e4 b"}}),
            ("GET", "/api/admin/devices?limit=%zz&model=a%2Fb", {}),
            ("GET", "/api/../api/admin//devices", {}),
            ("DELETE", "/api/admin/devices/d1/label", {})):
        here, there = follower.request(method, path, **more), leader.request(method, path, **more)
        assert (here.status_code, here.text) == (there.status_code, there.text), path
        for name in ("Content-Type", "Allow"):
            assert here.headers.get(name) == there.headers.get(name)
    said = follower.get("/api/admin/devices", headers={"X-Request-Id": "mine-1"})
    assert said.headers["X-Request-Id"] == "mine-1"


def test_bodies_of_any_size_and_shape(group):
    leader, (follower,) = group(2).roles()
    image = images.esp32(NEW, size=300000)

    def pieces():
        yield b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n"
        for at in range(0, len(image), 50000):
            yield image[at:at + 50000]
        yield b"\r\n--b--\r\n"

    params = {"version": NEW, "device_model": "esp32"}
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    upload = "/api/admin/firmware/upload"
    answer = follower.post(upload, data=pieces(), params=params, headers=kind)  # chunked
    assert answer.status_code == 200, answer.text
    big = images.esp32("3.0.0") + bytes(6 << 20)
    whole = follower.upload(big, "3.0.0", image_type="raw")
    assert whole.status_code == 200, whole.text
    offered = follower.session.get(follower.url + "/api/firmware/download/3.0.0")
    assert offered.content == big
    for size in (0, 1, 65536, 262144, 1 << 20, (1 << 20) + 1):
        here, there = (m.post("/api/admin/stop-all", data=b" " * size) for m in (follower, leader))
        assert (here.status_code, here.text) == (there.status_code, there.text), size
    refused = follower.upload(bytes(65 << 20), "4.0.0", image_type="raw")
    assert refused.status_code == 413, refused.text
    early = follower.raw(b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n"
                         b"Expect: 100-continue\r\nX-Request-Id: mine-2\r\n\r\n" % upload.encode())
    assert early.status == 413 and early.headers["X-Request-Id"] == "mine-2"
    with follower.connect() as s:  # gone in the middle of an upload
        s.sendall(b"POST %s HTTP/1.1\r\nHost: a\r\nX-API-Key: %s\r\nContent-Length: 1000000\r\n"
                  b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" % (upload.encode(), KEY.encode())
                  + bytes(400000))
    with follower.connect() as s:
        s.sendall(b"GET /api/firmware/check?device_id=old&device_model=m&current_version=1 HTTP/1.0\r\n\r\n")
        assert read_answer(s).status == 200
    text = follower.get("/metrics", headers={"Accept": "text/plain"}).text
    assert "paku_ota_leader 0" in text and "paku_ota_relayed_total" in text
    assert "paku_ota_leader 1" in leader.get("/metrics", headers={"Accept": "text/plain"}).text


def test_the_leader_sees_the_clients_address(group):
    """So a limit for each address is one for each client, not for each instance."""
    g = group(2, OTA_MAX_CONNECTIONS_PER_ADDRESS=1, OTA_TRUSTED_PROXIES="127.0.0.1")
    leader, (follower,) = g.roles()
    s = leader.connect(source="127.0.0.9")  # a body that does not end holds its place
    s.sendall(b"POST /api/device/d1/update-status HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n"
              b"Expect: 100-continue\r\n\r\n")
    assert b" 100 " in s.recv(100)

    def asks(source, forged=b""):
        with follower.connect(source=source) as c:
            c.sendall(b"GET /api/firmware/check?device_id=a&device_model=m&current_version=1 HTTP/1.1\r\n"
                      b"Host: a\r\n" + forged + b"\r\n")
            return read_answer(c).status

    assert asks("127.0.0.9") == 503
    assert asks("127.0.0.8") == 200
    assert asks("127.0.0.9", b"X-Forwarded-For: 10.0.0.1\r\n") == 503  # who is no proxy is not believed
    s.close()


def test_without_a_leader_there_is_503(group):
    g = group(2)
    old, (follower,) = g.roles()
    waiting = Session(g, "SELECT pg_advisory_lock(1885432438, hashtext(current_schema()))")
    wait_for(lambda: g.psql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                            " AND pid = %d" % waiting.pid) == "1", "somebody else to wait for the lead")
    old.kill()
    wait_for(lambda: "nobody leads" in follower.health().get("reason", ""), "nobody to lead")
    answer = follower.get("/api/admin/devices")
    assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0, answer.text
    text = follower.get("/metrics", headers={"Accept": "text/plain"}).text
    assert "paku_ota_leader 0" in text  # as everywhere: the alert PakuOtaNobodyLeads
    waiting.close()
    wait_for(follower.leads, "the other one to lead")


def test_who_is_alone_is_left_alone(group, services):
    """One that was started without OTA_INSTANCE_URL is not overtaken, nor does it overtake."""
    g = group(2)
    env = postgres.cluster().environment(g.name)
    alone = services("alone", start=False, store="sqlite", env=env)
    done = alone.run()
    assert done.returncode == 1 and "OTA_INSTANCE_URL for both" in done.stderr
    for m in g.members:
        m.stop()
    alone.start()
    alone.check("d1")
    g.members[0].spawn()
    wait_for(lambda: "nobody leads" in g.members[0].health().get("reason", ""), "it to look")
    assert g.members[0].health()["role"] == "follower" and not g.members[0].health()["leader"]
    alone.report("d1", "1.0.0", "failed")
    alone.stop()
    wait_for(g.members[0].leads, "the lead")


@pytest.mark.parametrize("missing, said", (
    ("OTA_API_KEY", "OTA_API_KEY"), ("FIRMWARE_STORAGE_PATH", "FIRMWARE_STORAGE_PATH"),
    ("PGHOST", "PostgreSQL"), ("MQTT_HOST", "MQTT_HOST"), ("OTA_PUBLIC_URL", "OTA_PUBLIC_URL")))
def test_what_several_need(services, tmp_path, missing, said):
    env = {"OTA_INSTANCE_URL": "http://127.0.0.1:1", "FIRMWARE_STORAGE_PATH": tmp_path, "PGHOST": "/tmp",
           "OTA_API_KEY": "k", "OTA_MQTT": "on", "MQTT_HOST": "127.0.0.1",
           "OTA_PUBLIC_URL": "http://ota.example.org"}
    s = services(start=False, store="sqlite", key=None, env={**env, missing: ""})
    done = s.run()
    assert done.returncode == 2 and said in done.stderr, done.stderr


# --- taking over ---

def test_a_leader_that_ends_is_followed_at_once(group):
    g = group(2)
    first, (second,) = g.roles()
    before = len(second.log())
    first.stop()
    wait_for(second.leads, "the other one")
    assert "; nobody led" in second.log(before)  # and not: the leader was silent
    first.start()
    wait_for(first.follows, "the first to follow")
    assert answers(first)


def test_who_wakes_after_long_writes_nothing_and_follows(group):
    """Frozen in the middle of its work, it wakes in the epoch of another."""
    g = group(2)
    first, (second,) = g.roles()
    first.check("d1")
    before, epoch = len(second.log()), g.epoch()
    first.disturb("freeze")
    # These are in its sockets when it wakes.
    late = [first.connect() for _ in range(20)]
    for i, s in enumerate(late):
        body = json.dumps({"device_id": "late%d" % i, "firmware_version": "9", "status": "failed"})
        s.sendall(("POST /api/device/late%d/update-status HTTP/1.1\r\nHost: a\r\nContent-Length: %d"
                   "\r\nConnection: close\r\n\r\n%s" % (i, len(body), body)).encode())
    wait_for(second.leads, "the other one to lead")
    second.report("d1", "1.0.0", "failed")
    first.heal()
    for s in late:
        answer = read_answer(s)
        assert answer is None or answer.status == 503 or answer.status == 200
        s.close()
    wait_for(lambda: first.follows() and "epoch %d is over" % epoch in first.log(), "the first to follow")
    # A 200 means that it followed by then, and passed it on: then it is stored, once.
    assert g.epoch() > epoch and "; the leader before it was silent" in second.log(before)
    assert first.list("updates") == second.list("updates")


def test_the_database_goes_and_comes_back(group):
    """Without it nobody can know who leads; with it one goes on from what is stored."""
    g = group(2)
    g.members[1].check("d1")
    postgres.cluster().stop()
    try:
        for m in g.members:
            wait_for(lambda: not answers(m), "503")
            answer = m.get("/api/admin/devices")
            assert answer.status_code == 503 and answer.headers["Retry-After"]
            assert m.get("/health").status_code == 503 and m.health()["reason"]
    finally:
        postgres.cluster().start()
    for m in g.members:
        wait_for(lambda: answers(m), "the service")
    g.members[0].report("d1", "1.0.0", "failed")
    assert len(g.members[1].list("updates")) == 1
    g.roles()


def test_a_database_that_was_restored_is_loaded_anew(group):
    """What the leader has in memory is not what is there: another one, or itself, begins anew."""
    g = group(2)
    g.members[1].check("d1")
    epoch = g.epoch()
    g.psql("UPDATE service_state SET value = 'somebody' WHERE key = 'writer'")
    assert g.members[1].post("/api/device/d1/update-status", json={
        "device_id": "d1", "firmware_version": "9", "status": "failed"}).status_code == 503 or g.epoch() > epoch
    wait_for(lambda: g.epoch() > epoch and answers(g.members[1]), "the next epoch")
    g.members[1].report("d1", "9", "failed")


class Reporter(threading.Thread):
    """Tells facts to any instance until each is acknowledged; remembers which were."""

    def __init__(self, group, name, rng):
        super().__init__(daemon=True)
        self.group, self.name_, self.rng = group, name, rng
        self.acknowledged, self.tries, self.ends = [], 0, threading.Event()
        self.wrong = []
        self.start()

    def run(self):
        session = requests.Session()
        session.trust_env = False
        while not self.ends.is_set():
            device = "%s-%d" % (self.name_, len(self.acknowledged))
            if self.tell(session, device):
                self.acknowledged.append(device)

    def tell(self, session, device):
        self.tries += 1
        url = self.rng.choice(self.group.members).url
        try:
            # Shorter than a leader's frozen: what got no answer is told again.
            answer = session.post("%s/api/device/%s/update-status" % (url, device), timeout=3, json={
                "device_id": device, "firmware_version": "9.9.9", "status": "failed"})
        except requests.RequestException:
            return False
        if answer.status_code not in (200, 503):
            self.wrong.append(answer.text)
        return answer.status_code == 200


def told_by(group, count=3):
    return [Reporter(group, "r%d" % i, random.Random(random.random())) for i in range(count)]


def more_reports(reporters):
    before = sum(len(r.acknowledged) for r in reporters)
    wait_for(lambda: sum(len(r.acknowledged) for r in reporters) > before + 20, "reports to be taken")


def all_there_once(group, reporters):
    """Each acknowledged report is there once; what got no answer is not there twice."""
    for r in reporters:
        r.ends.set()
        r.join(60)
    rows = dict(r.split("|") for r in group.psql(
        "SELECT device_id, count(*) FROM device_update_status WHERE device_id LIKE 'r%' GROUP BY 1"
    ).split("\n"))
    acknowledged = [name for r in reporters for name in r.acknowledged]
    print("reports %d, tries %d" % (len(acknowledged), sum(r.tries for r in reporters)))
    assert not [w for r in reporters for w in r.wrong]
    assert {name: rows.get(name) for name in acknowledged} == {name: "1" for name in acknowledged}
    assert set(rows.values()) == {"1"}


def test_the_row_of_the_leader_is_locked(group):
    """By somebody's LOCK TABLE: the lease cannot be moved on, so nobody leads until it can."""
    g = group(2)
    reporters = told_by(g)
    more_reports(reporters)
    other = Session(g, "BEGIN; LOCK TABLE ota_leader; SELECT 1")
    for m in g.members:
        wait_for(lambda: not answers(m), "503")
    other.close()
    g.roles()
    more_reports(reporters)
    all_there_once(g, reporters)


# --- a standby takes the database's place ---

@pytest.fixture
def pair():
    """A server whose commits wait for its standby."""
    first = postgres.Cluster(synchronous_standby_names="*", max_connections=40)
    second = None
    try:
        second = postgres.Cluster(follows=first, max_connections=40)
        wait_for(lambda: first.psql("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == "1",
                 "the standby")
        yield first, second
    finally:
        first.close()
        if second:
            second.close()


def test_a_standby_is_promoted(group, pair, broker, services):
    """What was acknowledged is at the standby, nobody is told twice, and the epochs go on."""
    first, second = pair
    hosts = {"PGHOST": "%s,%s" % (first.folder, second.folder), "PGPORT": "5432",
             "PGTARGETSESSIONATTRS": "read-write"}
    g = group(2, first, OTA_MQTT="on", MQTT_HOST="127.0.0.1", MQTT_PORT=broker.port, OTA_DISPATCH_PER_SECOND=PER_SECOND,
              OTA_PUBLIC_URL="http://ota.example.org", OTA_COMMAND_TIMEOUT_S=3600, **hosts)
    # Who was told of the standby alone is told what is the matter.
    lost = services("lost", start=False, store="sqlite", env=second.environment(g.name))
    done = lost.run()
    assert done.returncode == 1 and "read-only (a standby" in done.stderr, done.stderr
    g.members[0].mqtt_port = broker.port
    gadgets = [Gadget(g.members[0], "gadget%02d" % i, model="esp32") for i in range(12)]
    front = g.members[1]
    front.release(images.esp32(NEW), NEW)
    front.rollout(NEW, guard="off")
    reporters = told_by(g)
    more_reports(reporters)
    wait_for(lambda: any(d.told for d in gadgets), "the first command")
    epoch = g.epoch()
    first.stop(signal.SIGQUIT)
    for m in g.members:
        wait_for(lambda: not answers(m), "503")
    second.psql("SELECT pg_promote()")
    g.server = second
    g.roles()
    assert g.epoch() >= epoch
    more_reports(reporters)
    all_there_once(g, reporters)
    wait_for(lambda: g.psql("SELECT sum(commands) FROM device_update_status") == "12", "the commands")
    wait_for(lambda: sum(d.told != [] for d in gadgets) >= 12 - AT_ONCE, "the commands to arrive")
    assert not [d.told for d in gadgets if len(d.told) > 1]
    wait_for(lambda: all(front.list("updates", device_id=d.id)[0]["status"] == "success"
                         for d in gadgets if d.told), "the results")
    for d in gadgets:
        d.close()


class Gadget(Device):
    """Does what it is told, over MQTT."""

    def __init__(self, *a, **more):
        self.told = []
        super().__init__(*a, **more)

    def _on_message(self, client, arg, message):
        command = json.loads(message.payload)
        self.told.append(command["version"])
        client.publish(self.base + "/ota/result", json.dumps({
            "timestamp": 1, "version": command["version"], "success": True, "result_code": 0,
            "message": ""}), 1)
        client.publish(self.base + "/status", json.dumps({
            "device_model": self.model, "online": True, "firmware_version": command["version"]}), 1)


def test_whatever_befalls_the_leader(group, broker):
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    print("seed", seed)
    g = group(2, OTA_MQTT="on", MQTT_HOST="127.0.0.1", MQTT_PORT=broker.port,
              OTA_DISPATCH_PER_SECOND=PER_SECOND, OTA_PUBLIC_URL="http://ota.example.org",
              OTA_COMMAND_TIMEOUT_S=3600)  # nobody's time comes twice, however slow the machine is
    g.members[0].mqtt_port = broker.port
    gadgets = [Gadget(g.members[0], "gadget%02d" % i, model="esp32") for i in range(30)]
    front = g.members[1]
    wait_for(lambda: len(front.list("devices")) == 30, "the gadgets to be known")
    front.release(images.esp32(NEW), NEW)
    front.release(images.esp32("7.0.0"), "7.0.0", model="esp32c3", image_type="raw")
    number = front.rollout("7.0.0", model="esp32c3", name="walks", guard="off", stages=[
        {"percent": p, "min_duration_s": 1, "min_proven": 0} for p in range(2, 100, 2)] + [{"percent": 100}])
    front.rollout(NEW, guard="off")
    reporters = told_by(g)
    order = list(DISTURBANCES)
    rng.shuffle(order)
    for how in order:
        time.sleep(rng.random())
        old, _ = g.take_over(how)
        old.heal()
        wait_for(old.follows, "the old leader to follow")
    wait_for(lambda: sum(len(r.acknowledged) for r in reporters) > 100, "the reports")
    all_there_once(g, reporters)
    leader = g.roles()[0]

    # Each command was given once in its window; what a leader had begun to tell may have gone with it.
    wait_for(lambda: g.psql("SELECT sum(commands) FROM device_update_status") == "30", "the commands")
    wait_for(lambda: sum(bool(d.told) for d in gadgets) >= 30 - AT_ONCE * len(order),
             "the commands to arrive")
    assert not [d.told for d in gadgets if len(d.told) > 1]
    # What the gadgets said is known, also what the broker kept meanwhile.
    told = [d for d in gadgets if d.told]
    wait_for(lambda: all(leader.list("updates", device_id=d.id)[0]["status"] == "success"
                         for d in told), "the results")
    # The walk: each step follows from the one before, and none was made twice.
    same_as_explained(leader, number)
    steps = [e["event_data"]["after"]["stage"] for e in events(leader, number)
             if e["event_type"] == "rollout_stage"]
    assert steps and steps == list(range(2, len(steps) + 2))
    for d in gadgets:
        d.close()


def test_who_never_comes_back_leaves_nothing_at_the_broker(group, broker):
    """The sessions are the group's: what the broker kept for a leader comes to the next one."""
    g = group(2, OTA_MQTT="on", MQTT_HOST="127.0.0.1", MQTT_PORT=broker.port,
              OTA_PUBLIC_URL="http://ota.example.org")
    old, (new,) = g.roles()
    wait_for(lambda: old.health().get("mqtt", "").startswith("connected"), "the broker")
    old.disturb("freeze")
    client = Client(broker.port)
    for i in range(50):
        client.publish("paku/edge/q%d/status" % i, {
            "device_model": "esp32", "online": True, "firmware_version": "1.0.0"})
    wait_for(new.leads, "the other one to lead")
    wait_for(lambda: len(new.list("devices", device_model="esp32")) == 50, "what was kept")
    old.process.kill()
    old.process.wait()
    old.process, old.is_frozen = None, False
    client.close()
    g.members = [new]


def relay_images(member):
    return member.get("/metrics").json()["relay_images_total"]


def sends_itself(group, before_broken=lambda: None):
    """Downloads through one that follows are sent by it, and the leader knows all the same."""
    leader = group.leader()
    follower = group.others(leader)[0]
    image = images.big(8 << 20)
    follower.release(image, "1.2.0", image_type="raw")
    follower.rollout("1.2.0")
    url = follower.check("dev-1")["download_url"].replace(leader.url, follower.url)
    assert url.startswith(follower.url)
    get = follower.session.get
    assert get(url).content == image
    part = get(url, headers={"Range": "bytes=100-299"})
    assert part.status_code == 206 and part.content == image[100:300]
    assert part.headers["Content-Range"] == "bytes 100-299/%d" % len(image)
    assert relay_images(follower) == 2

    def told():
        return {e["event_type"] for e in follower.list("events", device_id="dev-1")}
    wait_for(lambda: {"update_started", "device_at_risk"} <= told(), "the leader to know that it was sent")
    # What has no body, or is no image, is the leader's.
    etag = part.headers["ETag"]
    assert etag == '"%s"' % part.headers["X-Checksum-SHA256"] and "X-Paku-Image" not in part.headers
    assert get(url, headers={"If-None-Match": etag}).status_code == 304
    assert get(url, headers={"Range": "bytes=%d-" % len(image)}).status_code == 416
    assert get(follower.url + "/api/firmware/download/9.9.9").status_code == 404
    head = follower.session.head(url)
    assert head.headers["Content-Length"] == str(len(image)) and relay_images(follower) == 2
    before_broken()
    leader.kill()
    return leader, follower, image


def test_images_are_sent_by_who_was_asked(group):
    g = group(OTA_PUBLIC_URL="")
    leader, follower, image = sends_itself(g)
    wait_for(lambda: g.leader() is follower, "the other to lead")
    leader.heal()
    wait_for(leader.follows, "the first to follow")
    # What it cannot send, damaged or gone, is left to the leader.
    (name,) = os.listdir(g.folder / "firmware")
    os.rename(g.folder / "firmware" / name, g.folder / "kept")
    url = leader.url + "/api/firmware/download/1.2.0"
    assert leader.session.get(url).status_code == 500 and "image_not_here" in leader.log()
    os.rename(g.folder / "kept", g.folder / "firmware" / name)
    assert leader.session.get(url).content == image and relay_images(leader) == 1
    # Without the folder it passes images on.
    leader.stop()
    leader.extra["FIRMWARE_STORAGE_PATH"] = g.folder / "kept" / "nowhere"
    leader.start()
    wait_for(leader.follows, "it to follow")
    assert leader.session.get(leader.url + "/api/firmware/download/1.2.0").content == image
    assert "no_images_here" in leader.log() and relay_images(leader) == 0


def test_a_shared_out_network_is_shared_out_by_the_leader(group):
    g = group(OTA_PUBLIC_URL="", OTA_DOWNLOAD_BYTES_PER_S=100000000)
    follower = g.others(g.leader())[0]
    image = images.big(100000)
    follower.release(image, "1.2.0", image_type="raw")
    assert follower.session.get(follower.url + "/api/firmware/download/1.2.0").content == image
    assert relay_images(follower) == 0
