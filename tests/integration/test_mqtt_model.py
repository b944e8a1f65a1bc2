# SPDX-License-Identifier: MIT
"""What devices say at random, late, twice and in any order, against a model of what must stand in the tables after it.

The model is written from the contract (docs/mqtt.md), in sets and words, and knows nothing of the program. PAKU_SEED
says which dice are thrown (printed), PAKU_FAULT_ROUNDS how many rounds (4).
"""
import collections
import json
import os
import random
import sqlite3

import pytest

import images
from mqtt import Broker, Client, FarService
from service import wait_for

ROUNDS = int(os.environ.get("PAKU_FAULT_ROUNDS", "4"))
SEED = int(os.environ.get("PAKU_SEED", random.SystemRandom().randrange(1 << 30)))

KNOWN_COPIES = 8
RANK = {"pending": 0, "downloading": 1, "downloaded": 2, "installing": 3}
ENDS = ("success", "failed", "rolled_back")
STATES = {"Idle": None, "Checking": None, "Downloading": "downloading", "Verifying": "downloaded",
          "Installing": "installing", "Complete": "installing", "Failed": None,
          "Rolled back": "rolled_back"}
END_EVENTS = {"success": "update_completed", "failed": "update_failed",
              "rolled_back": "rollback_initiated"}


class Attempt:
    def __init__(self, version, came_from, token=None):
        self.version, self.came_from, self.token = version, came_from, token
        self.status, self.closed, self.accepted, self.settled = "pending", None, False, False

    def asked_for(self):
        return self.token is not None

    def is_open(self):
        return self.status in RANK and not self.closed

    def has_begun(self):
        return self.status != "pending"

    def after(self, word):
        """The status that a report leaves it in."""
        if word in (None, "pending") or self.status in ("failed", "rolled_back"):
            return self.status
        if self.status == "success":
            return "rolled_back" if word == "rolled_back" else "success"
        if word in ENDS:
            return word
        return self.status if self.closed or RANK[word] <= RANK[self.status] else word


class Device:
    """What the service must hold of a device, moved by each message that is sent."""

    def __init__(self):
        self.known, self.model, self.version, self.boot = False, None, "", None
        self.site = self.other = self.form = None
        self.online, self.torn = False, False  # torn: the conflict is of this minute
        self.attempts, self.heard, self.events = [], [], []
        self.spoke = False       # of an attempt
        self.ran = None          # the version of the success that stands
        self.failed_at = set()   # versions that wait after a failure, until somebody says `retry`

    # --- what it has ---

    def trying(self):
        """Open, or a success that was not seen yet."""
        for a in self.attempts:
            if a.asked_for() and (a.is_open() or (a.status == "success" and not a.settled)):
                return a
        return None

    def is_to_be_told(self, target):
        return bool(target and self.model and self.version != target and target not in self.failed_at
                    and not self.trying())

    def told(self, version, token):
        self.attempts.append(Attempt(version, self.version, token))
        self.events.append("update_offered")

    def withdrawn(self):
        a = self.trying()
        if a and a.status == "pending":
            a.closed = "withdrawn"
            self.events.append("update_withdrawn")

    # --- where it is ---

    def heard_at(self, site, form, online=True):
        if self.site not in (None, site):
            if not online:
                return
            back = self.other == site
            if back and self.online and self.torn:
                return
            if self.online:
                self.torn = True
                self.events.append("site_conflict")
                self.other = self.site
            elif back:
                self.other = self.site
        self.site, self.form, self.online = site, form, online

    # --- what it says of itself ---

    def will(self, site, form):
        if self.known:
            self.heard_at(site, form, online=False)

    def birth(self, site, form, version, boot):
        self.heard_at(site, form)
        if (version, boot) in self.heard and self.spoke:
            return  # another copy of what it said before
        if (version, boot) not in self.heard and not (self.known and (version, boot) == (self.version, self.boot)):
            self.heard = [(version, boot), *self.heard][:KNOWN_COPIES]
        rebooted = self.boot not in (None, boot)
        self.boot = boot
        if not self.known:
            self.events.append("device_registered")
        elif version != self.version:
            self.events.append("version_changed")
        self.known, self.model, self.version = True, "esp32", version
        a = self.trying()
        if self.ran and self.ran != version and not (a and a.status in ("installing", "success")):
            ran = [x for x in self.attempts if same(x.version, self.ran)][-1]
            if ran.status == "success" and ran.came_from == version:
                self.step(ran, "rolled_back")
            self.ran = None
        if not a:
            return
        if version == a.version:
            if a.is_open():
                self.step(a, "success", reported=False)
            a.settled = True
        elif version == a.came_from and rebooted and a.status in ("installing", "success"):
            self.step(a, "rolled_back")
        elif version != a.came_from and rebooted and a.status == "installing":
            self.step(a, "failed", reported=False)  # it runs what it did not install

    # --- what it says of an attempt ---

    def step(self, a, word, accepted=False, reported=True):
        before, another = a.status, self.trying()
        accepts = accepted and not a.accepted and a.is_open()
        a.status = a.after(word)
        if accepts:
            a.accepted = True
        if a.status == before:
            if accepts:
                self.events.append("update_accepted")
            return
        a.closed = None
        if a.status in ENDS:
            self.events.append(END_EVENTS[a.status])
        else:
            self.events.append("update_started" if before == "pending" else "update_progressed")
        if a.status == "success":
            self.failed_at.discard(a.version)
            if reported:
                self.version = a.version
            if a.asked_for():
                self.ran = a.version
                a.settled = another not in (None, a)
        elif a.status in ENDS and a.asked_for():
            if self.site:
                self.failed_at.add(a.version)
            if a.status == "rolled_back":
                if self.ran == a.version:
                    self.ran = None
                if a.came_from and same(self.version, a.version):
                    self.version = a.came_from

    def spoken_of(self, said):
        a, version, token = self.trying(), said.get("version"), said.get("attempt_id")
        if said["kind"] == "progress":
            version = None
        if token:
            named = [x for x in self.attempts if x.token == token]
            if named:
                return named[0]
        if not version:
            return a if a and a.is_open() and not token else None
        if a and same(a.version, version):
            return a
        return ([None] + [x for x in self.attempts if same(x.version, version)])[-1]

    def report(self, site, form, said):
        word, kind = said["word"], said["kind"]
        version = said.get("version") if kind != "progress" else None
        says_nothing = not version or not word
        if not self.known and says_nothing:
            return
        a = self.spoken_of(said)
        copy = said["key"] in self.heard
        if copy and a and not said["stamped"]:
            # It may say the same of each try, but not of one that it has not begun.
            copy = word in ENDS and not a.has_begun()
        late = False
        if a and not version and not said.get("attempt_id") and self.spoke:
            if not a.has_begun() and word and not (a.accepted and word != "rolled_back"):
                late = True
        if not copy:
            accepted = said["accepts"]
            moves = a and (a.after(word) != a.status or (accepted and not a.accepted and a.is_open()))
            if word in ENDS and (a or not says_nothing) or (moves and not late) or (
                    not a and not says_nothing):
                if said["key"] not in self.heard:
                    self.spoke = True
                    self.heard = [said["key"], *self.heard][:KNOWN_COPIES]
            if a and not late:
                self.step(a, word, accepted)
            elif not a and not says_nothing:
                new = Attempt(version, self.version)
                self.attempts.append(new)
                self.step(new, word, accepted)
        self.heard_at(site, form)
        if not self.known:
            self.known = True
            self.events.append("device_registered")


def same(a, b):
    return a.removeprefix("v") == b.removeprefix("v")


class World:
    """Devices that speak on one connection, the model of them, and the service that hears them."""

    def __init__(self, service, dice):
        self.service, self.dice = service, dice
        self.line = Client(service.broker_port())
        self.line.subscribe("+/+/+/cmd/ota")
        self.devices = {"d%02d" % n: Device() for n in range(8)}
        self.devices["twin"] = Device()
        self.devices["stranger"] = Device()
        self.places = {i: (dice.choice(("paku", "van")), dice.choice(("edge", "edge", "devices")))
                       for i in self.devices}
        self.sent = {i: [] for i in self.devices}
        self.births = {i: [] for i in self.devices}
        self.thinned, self.born = set(), set()
        self.rejected = collections.Counter()
        self.target = self.rollout = None
        self.clock, self.marks, self.taken = 1790000000, 0, 0
        self.only_stamped = False
        self.log = []
        self.db = sqlite3.connect("file:%s?mode=ro" % os.path.join(service.data, "paku-ota.db"),
                                  uri=True)

    # --- speaking ---

    def place(self, i):
        if i == "twin":
            return self.dice.choice(("paku", "van")), "edge"
        return self.places[i]

    def publish(self, i, place, tail, payload, retain=False):
        topic = "%s/%s/%s/%s" % (*place, i, tail)
        self.line.client.publish(topic, payload, 1, retain)
        self.log.append("%s %s" % (topic, payload))

    def say(self, i, said, body, place=None):
        """SAID is what the model hears, BODY what the service does."""
        place = place or self.place(i)
        payload = json.dumps(body)
        said = {**said, "key": (said["kind"], payload)}
        self.publish(i, place, "ota/" + said["kind"], payload)
        self.devices[i].report(*place, said)
        self.sent[i].append((said, payload, place))
        self.thin(i, said)

    def thin(self, i, said):
        """Progress right after progress is thinned: what is left of it depends on the moment."""
        if said["kind"] == "progress" and said["word"] in (None, "downloading"):
            self.thinned.add(i)
        else:
            self.thinned.discard(i)

    def stamp(self):
        self.clock += 1
        if self.only_stamped or self.dice.random() < 0.6:
            return {"timestamp": self.clock}
        return self.dice.choice(({}, {"timestamp": 7}))

    def subject(self, i, versions=True):
        d, body = self.devices[i], {}
        if versions:
            names = [a.version for a in d.attempts if a.asked_for()][-2:] or ["9.9.9"]
            version = self.dice.choice(names + names[-1:] * 3)
            if self.dice.random() < 0.1:
                version = "v" + version.removeprefix("v")
            body["version"] = version
        if self.dice.random() < 0.2:
            tokens = [a.token for x in self.devices.values() for a in x.attempts if a.token]
            mine = [a.token for a in d.attempts if a.token]
            body["attempt_id"] = self.dice.choice((mine or ["?"])[-2:] + (tokens or ["?"])[:1])
        return body

    def speak(self, i):
        """One message at random; what names the model and what the service hears say the same."""
        d, dice = self.devices[i], self.dice
        kind = dice.choice(("copy", "copy", "status", "progress", "progress", "progress", "result",
                            "birth", "birth copy", "will", "garbage"))
        if kind == "copy" and self.sent[i]:
            ends = [x for x in self.sent[i] if x[0]["word"] in ENDS and "mark" not in x[1]]
            said, payload, place = dice.choice(ends[-5:] if ends and dice.random() < 0.5
                                               else self.sent[i][-25:])
            if said["kind"] == "progress" and said["word"] in (None, "downloading") and i in self.thinned:
                return
            self.publish(i, place, "ota/" + said["kind"], payload)
            d.report(*place, said)
            self.thin(i, said)
        elif kind == "progress":
            state = dice.choice([*STATES, "Rolled back"])
            word = STATES[state]
            if word in (None, "downloading") and i in self.thinned:
                return
            body = {**self.stamp(), "state": dice.choice((state, state.upper())),
                    "percent": dice.randrange(101), **self.subject(i, versions=False)}
            self.say(i, {"kind": "progress", "word": word, "accepts": word is not None,
                         "stamped": body.get("timestamp", 0) > 1e9,
                         "attempt_id": body.get("attempt_id")}, body)
        elif kind == "status":
            body = {**self.stamp(), "status": dice.choice(("accepted", "accepted", "pending", "downloading",
                                                           "downloaded", "installing", "rolled_back")),
                    **self.subject(i)}
            word = None if body["status"] == "accepted" else body["status"]
            self.say(i, {"kind": "status", "word": word, "accepts": True, "version": body["version"],
                         "stamped": body.get("timestamp", 0) > 1e9,
                         "attempt_id": body.get("attempt_id")}, body)
        elif kind == "result":
            body = {**self.stamp(), **self.subject(i), "message": "as it is"}
            code = dice.choice((0, 0, 2, 3, 4, 10))
            if body["version"] == "9.9.9" and i != "stranger":
                code = code or 4
            body.update(success=code == 0, result_code=code)
            if dice.random() < 0.3:
                body["target_version"] = body.pop("version")
            word = None if code == 10 else "success" if code == 0 else "failed"
            self.say(i, {"kind": "result", "word": word, "accepts": True,
                         "version": body.get("version") or body["target_version"],
                         "stamped": body.get("timestamp", 0) > 1e9,
                         "attempt_id": body.get("attempt_id")}, body)
        elif kind == "birth copy":
            for version, boot, payload, place in self.births[i][-4:]:
                if (version, boot) in d.heard and d.spoke and dice.random() < 0.5:
                    self.publish(i, place, "status", payload)
                    d.birth(*place, version, boot)
                    self.thinned.discard(i)
        elif kind == "birth" and i != "stranger" and i not in self.born:
            a = d.trying()
            self.birth(i, dice.choice([d.version] + ([a.version, a.came_from] if a else
                                                     [d.version])))
            self.born.add(i)
        elif kind == "will" and not (self.only_stamped and i == "twin"):
            place = self.place(i)
            self.publish(i, place, "status", dice.choice(('{"online":false}', "offline")))
            d.will(*place)
            self.thinned.discard(i)
        elif kind == "garbage" and not self.only_stamped:
            tail, payload, why = dice.choice((
                ("ota/result", "{", "not_json"), ("ota/result", "", "empty"),
                ("ota/progress", '{"state":"Flying"}', "field"), ("ota/status", '{"status":5}', "field"),
                ("ota/progress", '{"state":"Downloading","percent":101}', "field"),
                ("ota/result", '{"version":"1","success":true,"device_id":"me"}', "device"),
                ("ota/result", "[" * 65537, "too_large"), ("ota/result", b"\xff", "not_json")))
            self.publish(i, self.place(i), tail, payload)
            self.rejected[why] += 1
            self.thinned.discard(i)

    def birth(self, i, version, retain=False):
        place = self.place(i)
        retain = retain and i != "twin"  # of two copies one is old, and comes after each start
        self.clock += 1
        payload = json.dumps({"device_model": "esp32", "firmware_version": version, "boot_id": self.clock})
        self.publish(i, place, "status", payload, retain)
        self.births[i].append((version, self.clock, payload, place))
        self.devices[i].birth(*place, version, self.clock)
        self.thinned.discard(i)

    # --- keeping step ---

    def heard_all(self):
        """Each device says a last word that can be seen: all before it is in the tables then."""
        self.marks += 1
        version = "mark-%d" % self.marks
        for i in self.devices:
            self.clock += 1
            self.say(i, {"kind": "result", "word": "failed", "accepts": True, "stamped": True,
                         "version": version},
                     {"timestamp": self.clock, "version": version, "success": False, "result_code": 4})
        wait_for(lambda: self.rows("SELECT count(*) FROM device_update_status WHERE firmware_version=?",
                                   version)[0][0] == len(self.devices), "the last words")
        self.born.clear()

    def commands(self):
        with self.line.lock:
            return [(t, json.loads(p)) for t, p in self.line.received]

    def take_commands(self):
        """Whoever is to be told is told, on the form and site it speaks, and nobody else."""
        due = sorted(i for i, d in self.devices.items() if d.online and d.is_to_be_told(self.target))
        try:
            wait_for(lambda: len(self.commands()) >= self.taken + len(due), "the commands")
        except AssertionError:
            pass  # who is missing is told below
        got = self.commands()[self.taken:]
        self.taken += len(got)
        assert sorted(t.split("/")[2] for t, _ in got) == due, self.target
        for topic, command in got:
            site, form, i = topic.split("/")[:3]
            d = self.devices[i]
            assert (site, form) == (d.site, d.form) and command["version"] == self.target, topic
            d.told(self.target, command["url"].split("attempt=")[1])

    def settle(self):
        """Each open attempt ends: one that names it leaves no doubt."""
        for i, d in self.devices.items():
            a = d.trying()
            if a and a.is_open():
                self.clock += 1
                good = self.dice.random() < 0.5
                self.say(i, {"kind": "result", "word": "success" if good else "failed", "accepts": True,
                             "stamped": True, "version": a.version, "attempt_id": a.token},
                         {"timestamp": self.clock, "version": a.version, "attempt_id": a.token,
                          "success": good})
        for i, d in self.devices.items():
            if i != "stranger":
                self.birth(i, d.version, retain=True)  # what succeeded is seen
        self.heard_all()

    # --- looking ---

    def rows(self, sql, *args):
        return self.db.execute(sql, args).fetchall()

    def compare(self):
        for i, d in self.devices.items():
            want = [(a.version, a.status, a.closed, 0 if a.asked_for() else 1, 1 if a.accepted else 0)
                    for a in sorted(d.attempts, key=Attempt.asked_for)]
            got = self.rows("SELECT firmware_version, status, closed, unsolicited, accepted_at IS NOT NULL"
                            " FROM device_update_status WHERE device_id=? ORDER BY unsolicited DESC, id", i)
            assert got == want, self.told_of(i)
            events = dict(self.rows("SELECT event_type, count(*) FROM ota_events WHERE device_id=?"
                                    " AND event_type <> 'retry_allowed' GROUP BY event_type", i))
            assert events == collections.Counter(d.events), self.told_of(i)
            got, = self.rows("SELECT device_model, coalesce(current_firmware_version,''), site, online,"
                             " topic_form FROM devices WHERE device_id=?", i) or [None]
            assert got == (d.model, d.version, d.site, 1 if d.online else 0,
                           1 if d.form == "edge" else 2), self.told_of(i)
        rejected = dict(self.rows("SELECT reason, count(*) FROM ota_rejected_messages GROUP BY reason"))
        assert rejected == dict(self.rejected)

    def told_of(self, i):
        return "what %s said:\n%s" % (i, "\n".join(line for line in self.log if "/%s/" % i in line))


def talk(world, dice, messages):
    for _ in range(messages):
        i = dice.choice(list(world.devices))
        # One that is to be told now is told at a moment that nobody knows: it waits for that.
        if not world.devices[i].is_to_be_told(world.target):
            world.speak(i)


@pytest.fixture
def service(tmp_path):
    broker = Broker(tmp_path)
    # Nothing happens by the clock alone.
    service = FarService(tmp_path / "service", env={
        "MQTT_HOST": "127.0.0.1", "MQTT_PORT": broker.port, "OTA_COMMAND_TIMEOUT_S": 3600,
        "OTA_POLL_INTERVAL_S": 86400, "OTA_DISPATCH_PER_SECOND": 1000})
    try:
        yield service.start()
    finally:
        service.stop()
        broker.close()


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_random_words_leave_what_the_contract_says(service, round_):
    dice = random.Random(SEED * 1000 + round_)
    print("PAKU_SEED=%d round %d" % (SEED, round_))
    world = World(service, dice)
    for i in world.devices:
        if i != "stranger":
            world.birth(i, "1.0.0", retain=True)
    for era in range(2, 7):
        if world.target and dice.random() < 0.5:
            for i, d in world.devices.items():
                if d.failed_at and dice.random() < 0.8:
                    service.post("/api/admin/devices/%s/retry" % i)
                    d.failed_at.clear()
        else:
            if world.rollout:  # or it would have its turn when the newer one has not
                service.ok("POST", "/api/admin/rollout/%d/deactivate" % world.rollout)
            world.target = "%d.0.0" % era
            service.release(images.esp32(world.target), world.target)
            world.rollout = service.rollout(world.target, max_attempts=1000, guard="off")
        world.take_commands()
        for burst in range(2):
            killed = dice.random() < 0.3
            world.only_stamped = killed
            if killed:
                world.heard_all()  # the batch before this one is acknowledged, and does not come again
            talk(world, dice, 60)
            if killed:
                service.kill()
                service.start()
                talk(world, dice, 60)
            world.heard_all()
            world.take_commands()
            world.compare()
        if dice.random() < 0.3:
            # What waits is withdrawn, what has begun goes on.
            service.ok("POST", "/api/admin/rollout/%d/deactivate" % world.rollout)
            for d in world.devices.values():
                d.withdrawn()
            target, world.target = world.target, None
            talk(world, dice, 60)
            world.heard_all()
            world.compare()
            world.target = target
            service.ok("POST", "/api/admin/rollout/%d/activate" % world.rollout)
            world.take_commands()
        world.settle()
        world.take_commands()
        world.compare()
    world.line.close()
