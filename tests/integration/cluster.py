# SPDX-License-Identifier: MIT
"""Several paku-otad on one PostgreSQL, each with a line of its own to it, to be killed, frozen and cut off."""
import signal
import threading
import time

import requests

import postgres
from mqtt import free_port
from pgproxy import Proxy
from service import Service, wait_for

DISTURBANCES = ("kill", "freeze", "cut")


class Line(Proxy):
    """To the database; when it is silent nothing passes, and nobody is told."""

    silent = False

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near):
        while self.silent:
            time.sleep(0.02)
        super()._join(near)

    def _may_pass(self):
        return not self.silent


class Member(Service):
    """One of several instances; each has its own line to the database."""

    def __init__(self, group, number):
        self.line = Line(group.server)
        port = free_port()
        super().__init__(group.folder / ("member%d" % number), store="sqlite", env={
            **group.server.environment(group.name), **self.line.environment(), "PORT": port, "OTA_INSTANCE_URL": "http://127.0.0.1:%d" % port,
            "FIRMWARE_STORAGE_PATH": group.folder / "firmware",
            "OTA_TRUSTED_PROXIES": "127.0.0.1", **group.settings})
        self.is_frozen = False

    def health(self):
        try:
            return self.session.get(self.url + "/health", timeout=30).json()
        except requests.RequestException:
            return {}

    def leads(self):
        return self.health().get("role") == "leader" and answers(self)

    def follows(self):
        health = self.health()
        return health.get("role") == "follower" and health.get("leader")

    def disturb(self, how):
        if how == "kill":
            self.kill()
        elif how == "freeze":
            self.signal(signal.SIGSTOP)
            self.is_frozen = True
        else:
            self.line.silent = True

    def thaw(self):
        self.line.silent = False
        if self.is_frozen:
            self.signal(signal.SIGCONT)
        self.is_frozen = False

    def heal(self):
        self.thaw()
        if not self.process:
            self.spawn()


class Group:
    def __init__(self, folder, count, server=None, **settings):
        self.folder, self.settings = folder, settings
        self.server = server or postgres.cluster()
        self.name = self.server.schema()
        self.members = [Member(self, n) for n in range(count)]
        self.members[0].start()
        wait_for(self.leader, "the first to lead")
        for m in self.members[1:]:
            m.start()
            wait_for(m.follows, "the others to follow")

    def leader(self):
        for m in self.members:
            if m.process and not m.is_frozen and m.health().get("role") == "leader":
                return m
        return None

    def roles(self):
        """The leader, and those that follow."""
        found = wait_for(lambda: sorted(self.members, key=lambda m: m.health().get("role") != "leader")
                         if sum(m.health().get("role") == "leader" for m in self.members) == 1
                         and all(answers(m) for m in self.members) else None, "one to lead")
        return found[0], found[1:]

    def epoch(self):
        return int(self.psql("SELECT epoch FROM ota_leader"))

    def others(self, member):
        return [m for m in self.members if m is not member]

    def psql(self, sql):
        return self.server.psql(sql, self.name)

    def take_over(self, how):
        """Disturbs the leader, until another one answers: the old one, the new one."""
        old, epoch = self.leader(), self.epoch()
        old.disturb(how)
        # One that is cut off leads rightly for a while: what it answers is passed on.
        new = wait_for(lambda: next((m for m in self.others(old) if m.leads()), None), "a new leader")
        assert self.epoch() > epoch
        return old, new

    def close(self):
        for m in self.members:
            m.thaw()
        for m in self.members:
            m.stop()
            m.line.close()


def answers(member):
    """Whether a request that the leader alone can answer is answered here."""
    try:
        return member.session.get(member.url + "/api/firmware/check", timeout=30, params={
            "device_id": "probe", "device_model": "probe",
            "current_version": "1"}).status_code == 200
    except requests.RequestException:
        return False
