# SPDX-License-Identifier: MIT
"""The embedded broker: a real mosquitto, kept by broker_driver as the daemon keeps it."""
import datetime
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading

import paho.mqtt.client as paho
import pytest

from service import BUILD, REPORTS, wait_for

DRIVER = os.path.join(BUILD, "tests", "integration", "broker_driver")
SERVICE = "paku-ota-service"
ROOT = os.geteuid() == 0


class Client:
    """A paho client that remembers what came."""

    def __init__(self, port, user=None, password=None, client_id="", clean=True, connect=True):
        self.got, self.codes, self.acked, self.subscribed = [], [], set(), set()
        self.changed = threading.Lock()
        self.c = paho.Client(client_id, clean_session=clean, protocol=paho.MQTTv311)
        self.c.max_queued_messages_set(0)
        self.c.max_inflight_messages_set(1000)
        if user is not None:
            self.c.username_pw_set(user, password)
        self.c.on_connect = lambda c, u, flags, code: self.codes.append(code)
        self.c.on_message = lambda c, u, m: self.got.append((m.topic, m.payload, m.retain))
        self.c.on_publish = lambda c, u, mid: self.acked.add(mid)
        self.c.on_subscribe = lambda c, u, mid, granted: self.subscribed.add(mid)
        self.c.connect("127.0.0.1", port)
        self.c.loop_start()
        wait_for(lambda: self.codes, "an answer to CONNECT")
        if connect:
            assert self.codes[0] == 0

    def subscribe(self, topic, qos=1):
        mid = self.c.subscribe(topic, qos)[1]
        wait_for(lambda: mid in self.subscribed, "the subscription")
        return self

    def publish(self, topic, payload=b"x", retain=False):
        """At QoS 1, and acknowledged; mosquitto acknowledges too what it denies."""
        mid = self.c.publish(topic, payload, 1, retain).mid
        wait_for(lambda: mid in self.acked, "the acknowledgement")

    def close(self):
        self.c.disconnect()
        self.c.loop_stop()


class Driver:
    def __init__(self, folder, host="127.0.0.1", port=0, program=None, user=None):
        self.folder = folder
        self.data = os.path.join(folder, "data")
        self.files = os.path.join(self.data, "mosquitto")
        os.makedirs(self.data, 0o700, exist_ok=True)
        self.as_user = []
        driver = DRIVER
        if user and ROOT:
            # Where everybody may run it.
            driver = os.path.join(folder, "broker_driver")
            shutil.copy(DRIVER, driver)
            shutil.chown(self.data, user)
            self.as_user = ["setpriv", "--reuid", user, "--clear-groups"]
        self.command = [*self.as_user, driver, self.data, host]
        self.port, self.program = port, program
        self.err = os.path.join(folder, "err")
        self.process = None
        self.clients = []

    def spawn(self, **more):
        command = [*self.command, str(self.port)] + ([self.program] if self.program else [])
        with open(self.err, "ab") as err:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True,
                                            stdin=subprocess.DEVNULL, **more)
        return self

    def start(self, **more):
        self.spawn(**more)
        words = self.process.stdout.readline().split()
        assert words[:1] == ["ready"], self.said()
        self.port, self.user, self.password = int(words[1]), words[2], words[3]
        return self

    def refused(self):
        """Started in vain: the sentence it says."""
        self.spawn()
        code = self.process.wait(60)
        self.process.stdout.close()
        self.process = None
        assert code == 1, self.said()
        return self.said().splitlines()[-1]

    def said(self):
        with open(self.err, encoding="utf-8") as f:
            return f.read()

    def pid(self):
        with open(os.path.join(self.files, "pid"), encoding="utf-8") as f:
            return int(f.read().split()[0])

    def new_pid(self, old):
        """The next broker's, once it takes connections."""
        def look():
            try:
                pid = self.pid()
                if pid != old:
                    socket.create_connection(("127.0.0.1", self.port), 1).close()
                    return pid
            except (OSError, IndexError):
                pass
            return None
        return wait_for(look, "another broker")

    def client(self, **more):
        self.clients.append(Client(self.port, **more))
        return self.clients[-1]

    def service(self, **more):
        return self.client(user=self.user, password=self.password, **more)

    def close_clients(self):
        while self.clients:
            self.clients.pop().close()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process = None

    def stop(self):
        self.close_clients()
        if self.process is None:
            return
        self.process.terminate()
        code = self.process.wait(30)
        self.process.stdout.close()
        self.process = None
        assert code == 0, self.said()

    def check(self):
        said = self.said() if os.path.exists(self.err) else ""
        assert not [r for r in REPORTS if r in said], said


@pytest.fixture
def drivers():
    """Makes drivers; not below pytest's folders, which are root's alone."""
    made = []
    folders = []

    def make(folder=None, **more):
        if folder is None:
            folder = tempfile.mkdtemp(prefix="paku-broker-")
            os.chmod(folder, 0o755)
            folders.append(folder)
        made.append(Driver(folder, **more))
        return made[-1]

    yield make
    for driver in made:
        driver.stop()
        driver.check()
    for folder in folders:
        shutil.rmtree(folder)


@pytest.fixture
def broker(drivers):
    return drivers().start()


def runs(pid):
    """Whether that process is there and no zombie."""
    try:
        with open("/proc/%d/stat" % pid, encoding="utf-8") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def uid_of(pid):
    return os.stat("/proc/%d" % pid).st_uid


# --- who may do what ---

COMMANDS = ["paku/edge/esp32_001/cmd/ota", "paku/devices/esp32_001/cmd/ota"]
REPORTED = ["paku/edge/esp32_001/status", "paku/edge/esp32_001/ota/status",
            "paku/edge/esp32_001/ota/progress", "paku/edge/esp32_001/ota/result",
            "van/devices/esp32_001/status", "van/devices/esp32_001/ota/result"]
OTHERS = ["paku/ota-service/status", "paku", "paku/edge/esp32_001", "x/y/z/status",
          "$SYS/broker/version"]


@pytest.mark.parametrize("user", [None, ""])
def test_a_device_reports_and_never_commands(broker, user):
    everything = broker.service().subscribe("#")
    if user is None:
        device = broker.client()
    else:
        device = broker.client(user=user, password="", connect=False)
        if device.codes[0] != 0:
            return  # refused: as good
    for topic in COMMANDS + OTHERS + REPORTED:
        device.publish(topic, topic)
    wait_for(lambda: len(everything.got) >= len(REPORTED), "the reports")
    assert [t for t, _, _ in everything.got] == REPORTED


def test_a_device_hears_its_command(broker):
    device = broker.client()
    for topic in COMMANDS:
        device.subscribe(topic)
    service = broker.service()
    for topic in COMMANDS + ["paku/ota-service/status"]:
        service.publish(topic, b"{}")
    wait_for(lambda: len(device.got) == 2, "both commands")
    assert [t for t, _, _ in device.got] == COMMANDS


def test_a_last_will_is_held_to_the_same_rules(broker):
    everything = broker.service().subscribe("#")
    for topic in COMMANDS[0], REPORTED[0]:
        dying = paho.Client("", protocol=paho.MQTTv311)
        dying.will_set(topic, topic, 1)
        dying.connect("127.0.0.1", broker.port)
        dying.socket().shutdown(socket.SHUT_RDWR)
    wait_for(lambda: everything.got, "the last will")
    assert [t for t, _, _ in everything.got] == [REPORTED[0]]


@pytest.mark.parametrize("user, password", [(SERVICE, "wrong"), (SERVICE, ""), ("somebody", "x")])
def test_a_wrong_password_is_refused(broker, user, password):
    client = broker.client(user=user, password=password, connect=False)
    assert client.codes[0] in (4, 5)


def test_the_password_is_new_at_each_start_and_nowhere_on_the_disk(broker):
    first = broker.password
    assert len(first) == 32 and broker.user == SERVICE
    for name in os.listdir(broker.files):
        with open(os.path.join(broker.files, name), "rb") as f:
            assert first.encode() not in f.read(), name
    broker.stop()
    broker.start()
    assert broker.password != first
    assert broker.client(user=SERVICE, password=first, connect=False).codes[0] in (4, 5)


def test_the_rules_outlast_a_reload(broker):
    os.kill(broker.pid(), signal.SIGHUP)
    everything = broker.service().subscribe("#")
    device = broker.client()
    for topic in COMMANDS + REPORTED:
        device.publish(topic)
    wait_for(lambda: len(everything.got) >= len(REPORTED), "the reports")
    assert [t for t, _, _ in everything.got] == REPORTED


# --- limits ---

def test_a_sleeper_gets_all_that_waited(broker):
    sleeper = broker.service(client_id="sleeper", clean=False).subscribe("+/edge/+/ota/result")
    sleeper.close()
    device = broker.client()
    for n in range(5000):
        last = device.c.publish("paku/edge/d/ota/result", b"%d" % n, 1)
    wait_for(lambda: last.mid in device.acked and len(device.acked) == 5000, "5,000 acknowledgements")
    again = broker.service(client_id="sleeper", clean=False)
    wait_for(lambda: len(again.got) >= 5000, "5,000 messages")
    assert [p for _, p, _ in again.got] == [b"%d" % n for n in range(5000)]


def test_sizes(broker):
    everything = broker.service().subscribe("#")
    device = broker.client()
    device.publish("p/edge/d/status", b"x" * 262144)
    device.publish("p/edge/d/status", b"y" * 262145)  # acknowledged and dropped
    gone = []
    device.c.on_disconnect = lambda *what: gone.append(what)
    device.c.publish("p/edge/d/status", b"z" * 300001, 1)
    wait_for(lambda: gone, "the end of a connection with too large a packet")
    device.c.disconnect()
    broker.client().publish("p/edge/d/status", b"small")
    wait_for(lambda: len(everything.got) >= 2, "two messages")
    assert [len(p) for _, p, _ in everything.got] == [262144, 5]


def test_version_5_learns_the_limits(broker):
    told = []
    client = paho.Client("", protocol=paho.MQTTv5)
    client.on_connect = lambda c, u, flags, code, props: told.append(props)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    wait_for(lambda: told, "CONNACK")
    client.disconnect()
    client.loop_stop()
    assert told[0].MaximumPacketSize == 300000 and told[0].ReceiveMaximum == 1000


# --- its life ---

@pytest.fixture(params=["as the tests", "as nobody"])
def any_user(request):
    if request.param == "as nobody" and not ROOT:
        return None  # the tests are nobody special themselves: the same once more
    return "nobody" if request.param == "as nobody" else None


def test_it_ends_with_a_killed_service(drivers, any_user):
    broker = drivers(user=any_user).start()
    pid = broker.pid()
    assert runs(pid)
    broker.kill()
    wait_for(lambda: not runs(pid), "the broker's end")


def test_it_gives_up_root(drivers):
    broker = drivers().start()
    pid = broker.pid()
    with open("/proc/%d/status" % pid, encoding="utf-8") as f:
        status = f.read()
    assert "Groups:\t \n" in status or not ROOT
    assert uid_of(pid) != 0
    # Nothing inherited: its standard descriptors, its sockets, its timers.
    for fd in os.listdir("/proc/%d/fd" % pid):
        target = os.readlink("/proc/%d/fd/%s" % (pid, fd))
        assert target in ("/dev/null", os.path.join(broker.files, "log")) or ":" in target, target
    # While it waits it blocks the signals that it handles; the driver's SIGCHLD is not among them.
    handled = (signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
    blocked = int(status.split("SigBlk:\t")[1].split()[0], 16)
    assert not blocked & ~sum(1 << (number - 1) for number in handled)
    assert "SigIgn:\t0000000000001000" in status  # SIGPIPE, by itself
    assert stat.S_IMODE(os.stat(broker.files).st_mode) == 0o700


def test_it_outlives_ctrl_c(broker):
    """The terminal signals its whole group; the service still needs the broker."""
    assert os.getpgid(broker.pid()) != os.getpgid(broker.process.pid)


def test_it_is_started_again(drivers, any_user):
    broker = drivers(user=any_user).start()
    broker.service().publish("paku/edge/d/status", b"kept", retain=True)
    pid = broker.pid()
    database = os.path.join(broker.files, "mosquitto.db")

    def saved():
        try:
            with open(database, "rb") as f:
                return b"kept" in f.read()
        except OSError:
            return False
    os.kill(pid, signal.SIGUSR1)  # to save now
    wait_for(saved, "the database")
    broker.close_clients()
    os.kill(pid, signal.SIGKILL)
    again = broker.new_pid(pid)
    client = broker.service().subscribe("#")  # the same password, the same port
    wait_for(lambda: client.got, "the retained message")
    assert client.got == [("paku/edge/d/status", b"kept", True)]
    assert "broker died ended by signal 9" in broker.said()
    # And with the service killed, the second one ends like the first.
    broker.close_clients()
    broker.kill()
    wait_for(lambda: not runs(again), "the broker's end")


def test_one_that_was_told_to_end_is_started_again_too(broker):
    """`killall mosquitto`, which is meant for another."""
    pid = broker.pid()
    os.kill(pid, signal.SIGTERM)
    broker.new_pid(pid)
    assert "broker died ended with code 0" in broker.said()


def test_what_it_saved_by_itself_survives(broker):
    """The configuration's own interval, not a signal of ours."""
    broker.service().publish("paku/edge/d/status", b"kept", retain=True)
    database = os.path.join(broker.files, "mosquitto.db")
    wait_for(lambda: os.path.exists(database) and b"kept" in open(database, "rb").read(),
             "the database", 30)


def test_it_is_not_started_again_and_again(drivers):
    """What dies at once is tried after 1, 2, 4 ... seconds."""
    broker = drivers().start()
    pid = broker.pid()
    with open(os.path.join(broker.files, "mosquitto.conf"), "a", encoding="utf-8") as f:
        f.write("nonsense true\n")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: broker.said().count("broker restarted") == 2, "two more starts")
    assert "Unknown configuration variable" in broker.said()
    times = [datetime.datetime.fromisoformat(line.split()[0][:-1])
             for line in broker.said().splitlines() if "broker restarted" in line]
    assert (times[1] - times[0]).total_seconds() >= 0.99


def test_stop_saves_and_leaves_nothing(broker):
    broker.service().publish("paku/edge/d/status", b"kept", retain=True)
    pid = broker.pid()
    broker.stop()
    assert not runs(pid) and not os.path.exists(os.path.join(broker.files, "pid"))
    broker.start()
    client = broker.client().subscribe("#")
    wait_for(lambda: client.got, "the retained message")


# --- what an earlier run left ---

def test_an_orphan_is_ended(drivers):
    """One that hangs when its service is killed takes no notice of the signal."""
    broker = drivers().start()
    orphan = broker.pid()
    os.kill(orphan, signal.SIGSTOP)
    try:
        broker.kill()
        assert runs(orphan)
        broker.start()  # on the same port
        assert not runs(orphan) and broker.pid() != orphan
    finally:
        if runs(orphan):
            os.kill(orphan, signal.SIGKILL)
    assert "orphan ending mosquitto (process %d)" % orphan in broker.said()


@pytest.mark.parametrize("kind", ["another program", "another mosquitto"])
def test_an_innocent_process_is_left_alone(drivers, kind, tmp_path):
    broker = drivers().start()
    with open(os.path.join(broker.files, "pid"), encoding="utf-8") as f:
        ticks = int(f.read().split()[1])
    broker.stop()
    if kind == "another program":
        innocent = subprocess.Popen(["sleep", "1000"])
        ticks = int(open("/proc/%d/stat" % innocent.pid).read().rsplit(")")[1].split()[19])
    else:  # which got the number of ours
        conf = tmp_path / "other.conf"
        conf.write_text("user root\nlistener 0 %s\n" % (tmp_path / "socket"))
        innocent = subprocess.Popen(["/usr/sbin/mosquitto", "-c", str(conf)],
                                    stderr=subprocess.DEVNULL)
        wait_for(lambda: open("/proc/%d/comm" % innocent.pid).read() == "mosquitto\n", "its start")
    try:
        with open(os.path.join(broker.files, "pid"), "w", encoding="utf-8") as f:
            f.write("%d %d\n" % (innocent.pid, ticks))
        broker.start()
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()
    assert "orphan" not in broker.said()


@pytest.mark.parametrize("text", ["", "1 1\n", "0 0\n", "-1 5\n", "x", "99999999999999999999 1",
                                  "\0" * 100])
def test_a_senseless_pid_file(drivers, text):
    broker = drivers().start()
    broker.stop()
    with open(os.path.join(broker.files, "pid"), "w", encoding="utf-8") as f:
        f.write(text)
    broker.start()


def test_a_broken_database_is_set_aside(drivers):
    broker = drivers()
    os.mkdir(broker.files)
    with open(os.path.join(broker.files, "mosquitto.db"), "wb") as f:
        f.write(b"not a database" * 100)
    broker.start()
    assert "database_broken" in broker.said()
    assert os.path.exists(os.path.join(broker.files, "mosquitto.db.broken"))
    broker.client().publish("paku/edge/d/status")


def test_links_in_its_folder_lead_nowhere(drivers):
    """The folder is the broker's, which faces the network; we may be root."""
    broker = drivers()
    os.mkdir(broker.files)
    precious = os.path.join(broker.folder, "precious")
    with open(precious, "w", encoding="utf-8") as f:
        f.write("precious")
    before = os.stat(precious)
    for name in ("mosquitto.conf", "acl", "passwords", "log", "pid", "acl.part", "mosquitto.db"):
        os.symlink(precious, os.path.join(broker.files, name))
    broker.spawn()  # whether it starts or not
    broker.process.stdout.readline()
    after = os.stat(precious)
    assert (after.st_uid, after.st_mode) == (before.st_uid, before.st_mode)
    assert open(precious, encoding="utf-8").read() == "precious"
    if broker.process.poll() is not None:
        broker.process.stdout.close()
        broker.process = None


# --- sentences ---

@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::"])
def test_a_taken_port(drivers, host):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = drivers(host=host, port=port).refused()
    assert said == ("port %d is taken by another program: set MQTT_HOST=127.0.0.1 to use the broker "
                    "that runs there, MQTT_PORT to another port, or OTA_MQTT=off" % port)


def test_all_addresses(drivers):
    """"::" is IPv6 alone to mosquitto; we mean both."""
    broker = drivers(host="::").start()
    broker.client()
    if os.path.exists("/proc/net/if_inet6") and open("/proc/net/if_inet6").read():
        socket.create_connection(("::1", broker.port)).close()


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "127.0.0.1\nlistener 1"])
def test_an_address_that_is_none(drivers, host):
    assert drivers(host=host).refused().startswith("HOST: ") or "\n" in host


def test_not_installed(drivers):
    said = drivers(program="/nonexistent/mosquitto").refused()
    assert said == ("mosquitto is not installed: apt-get install mosquitto, or set MQTT_HOST to a "
                    "broker that runs, or OTA_MQTT=off")


def fake(driver, text):
    driver.program = os.path.join(driver.folder, "mosquitto")
    with open(driver.program, "w", encoding="utf-8") as f:
        f.write("#!/bin/sh\n" + text)
    os.chmod(driver.program, 0o755)
    return driver


@pytest.mark.parametrize("text, words", [
    ("echo '1: Error: The moon is full.' >&2; echo '2: bye' >&2; exit 1", "The moon is full"),
    ("exit 3", "ended with code 3"), ("kill -11 $$", "ended by signal 11")])
def test_a_broker_that_ends_at_once(drivers, text, words):
    driver = fake(drivers(), text)
    said = driver.refused()
    assert said.startswith("mosquitto did not start: " + words) and driver.files in said


def test_a_program_that_cannot_be_run(drivers):
    driver = fake(drivers(), "")
    with open(driver.program, "w", encoding="utf-8") as f:
        f.write("\x7fELF, not really")
    said = driver.refused()
    assert "Exec format error" in said and said.startswith("mosquitto did not start: ")


def test_a_broker_that_never_answers(drivers):
    driver = fake(drivers(), "exec sleep 1000")
    said = driver.refused()
    assert "does not answer on port" in said and "after 10 s" in said
    assert not os.path.exists(os.path.join(driver.files, "pid"))


@pytest.mark.parametrize("what", ["data", "files"])
def test_a_folder_that_cannot_be_written(drivers, what):
    driver = drivers(user="nobody")
    if what == "files":
        os.mkdir(driver.files, 0o555 if ROOT else 0o500)
    else:
        shutil.chown(driver.data, 0) if ROOT else None
        os.chmod(driver.data, 0o555)
    said = driver.refused()
    os.chmod(driver.data, 0o700)
    assert driver.files in said and said.endswith("Permission denied")
    assert said.startswith("the broker's folder ")


def test_a_data_folder_that_is_a_file(drivers):
    driver = drivers()
    os.rmdir(driver.data)
    with open(driver.data, "w", encoding="utf-8"):
        pass
    assert driver.refused().endswith("Not a directory")
