# SPDX-License-Identifier: MIT
"""The figures: each a function that measures and yields its rows."""
import hashlib
import os
import random
import re
import shutil
import socket
import sqlite3
import statistics
import time

from machine import (KEY, Failed, Fleets, Nginx, Service, bench_load, load, pinned, program,
                     request, running, wrk)
import machine

DEVICES = 100_000


class Row:
    """One figure: our samples, the peer's of the same rounds, the goal."""

    def __init__(self, name, title, unit, samples, peer=None, goal=None, aim=None, kind="ratio",
                 meaning="", notes=()):
        self.name, self.title, self.unit = name, title, unit
        self.samples, self.peer = list(samples), list(peer or [])
        self.goal, self.aim, self.kind = goal, aim, kind
        self.meaning, self.notes = meaning, list(notes)

    @property
    def value(self):
        return statistics.median(self.samples)

    @property
    def ratios(self):
        return [a / b for a, b in zip(self.samples, self.peer)]

    @property
    def ratio(self):
        return statistics.median(self.ratios) if self.peer else None

    @property
    def reached(self):
        if self.goal is None:
            return None
        if self.kind == "ratio":
            return self.ratio >= self.goal
        if self.kind == "ratio at most":
            return self.ratio <= self.goal
        if self.kind == "each at most":
            return max(self.samples) <= self.goal
        return self.value <= self.goal

    def as_json(self):
        spread = lambda s: {"median": statistics.median(s), "min": min(s), "max": max(s),
                            "samples": s} if s else None
        return {"name": self.name, "title": self.title, "unit": self.unit,
                "ours": spread(self.samples), "peer": spread(self.peer),
                "ratio": spread(self.ratios), "goal": self.goal, "aim": self.aim,
                "goal_is": {"ratio": "at least (ratio)", "ratio at most": "at most (ratio)",
                            "each at most": "each at most"}.get(self.kind, "at most"),
                "reached": self.reached, "meaning": self.meaning, "notes": self.notes}


class Setting:
    """What a run shares: how many rounds of which length, where, and the prepared fleets."""

    def __init__(self, folder, rounds, seconds, quick):
        self.folder, self.rounds, self.seconds, self.quick = folder, rounds, seconds, quick
        self.fleets = Fleets(folder)

    def pairs(self, ours, peer):
        """Samples of both, interleaved; which comes first changes each round."""
        a, b = [], []
        for i in range(self.rounds):
            for turn in ((ours, a), (peer, b)) if i % 2 == 0 else ((peer, b), (ours, a)):
                turn[1].append(turn[0]())
        return a, b


def check_path(i):
    model = ("esp32", "esp32-s3", "esp32-c3", "esp8266")[i % 4]
    return (f"/api/firmware/check?device_id=bench-{i:07d}&device_model={model}"
            "&current_version=1.0.0")


def body_like_ours(service):
    """As long as our answers are on average over the fleet; and the share that is offered."""
    rng = random.Random(1)
    sizes, offers = [], 0
    for _ in range(400):
        status, _, body = request(service.port, "GET", check_path(rng.randrange(DEVICES)))
        if status != 200:
            raise Failed(f"a check-in is answered {status}")
        sizes.append(len(body))
        offers += b'"update_available":true' in body
    return "x" * round(statistics.mean(sizes)), offers / len(sizes)


def checkins(setting, name, title, meaning, goal, aim, connections, *args):
    folder = setting.fleets.folder_with("checkins", DEVICES, "canary")
    with running(Service(folder)) as service:
        body, offered = body_like_ours(service)
        with running(Nginx(os.path.join(setting.folder, "nginx"), body)) as nginx:
            measure = lambda port: wrk(port, "/", "checkins.lua", setting.seconds, connections,
                                       DEVICES, *args)
            measure(service.port)  # warm
            ours, peer = setting.pairs(lambda: measure(service.port), lambda: measure(nginx.port))
        if count_events(folder):
            raise Failed("the check-ins wrote something: they were to say nothing new")
    yield Row(name, title, "check-ins/s", ours, peer, goal, aim, meaning=meaning,
              notes=[f"{connections} connections; answers of {len(body)} bytes on average; "
                     f"{offered:.0%} of the devices have a standing offer; "
                     "peer: nginx return 200"])


def count_events(folder):
    with sqlite3.connect(f"file:{folder}/paku-ota.db?mode=ro", uri=True) as db:
        return db.execute("SELECT count(*) FROM ota_events").fetchone()[0]


def keepalive(setting):
    yield from checkins(setting, "checkins", "check-ins, keep-alive", "what one core answers when "
                        "a proxy or a gateway keeps connections open", 0.8, 0.9, 64)


def close(setting):
    yield from checkins(setting, "checkins-close", "check-ins, a new connection each",
                        "what one core answers to ESP devices, which connect for each question",
                        0.8, None, 64, "close")


def downloads(setting):
    image = random.Random(2).randbytes(1 << 20)
    folder = setting.fleets.folder_with("downloads", 1000, "canary")
    nginx_folder = os.path.join(setting.folder, "nginx")
    os.makedirs(os.path.join(nginx_folder, "image"), exist_ok=True)
    with open(os.path.join(nginx_folder, "image", "firmware.bin"), "wb") as f:
        f.write(image)
    with running(Service(folder)) as service, running(Nginx(nginx_folder)) as nginx:
        upload(service, "7.0.0", image)
        ours_path, peer_path = "/api/firmware/download/7.0.0", "/image/firmware.bin"
        for port, path in ((service.port, ours_path), (nginx.port, peer_path)):
            status, _, body = request(port, "GET", path)
            if status != 200 or body != image:
                raise Failed(f"{path} is answered {status}, {len(body)} bytes")
        measure = lambda port, path: wrk(port, path, "downloads.lua", setting.seconds, 16)
        ours, peer = setting.pairs(lambda: measure(service.port, ours_path),
                                   lambda: measure(nginx.port, peer_path))
    yield Row("downloads", "downloads of a 1 MiB image", "images/s", ours, peer, 0.9, 1.0,
              meaning="how fast a fleet gets its image from one core, over loopback",
              notes=["16 connections, keep-alive; peer: nginx sendfile"])


def upload(service, version, image):
    boundary = "benchboundary"
    body = (f'--{boundary}\r\nContent-Disposition: form-data; name="file"; '
            'filename="firmware.bin"\r\n\r\n').encode() + image + f"\r\n--{boundary}--\r\n".encode()
    status, _, answer = request(
        service.port, "POST",
        f"/api/admin/firmware/upload?version={version}&device_model=bench-image&image_type=raw",
        body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}, key=True)
    if status != 200:
        raise Failed(f"the upload is answered {status}: {answer[:200]!r}")


def same_rows(a, b):
    """Whether the rows of a finished update are the same in both databases, but for the times."""
    queries = ("SELECT * FROM devices WHERE device_id = ?",
               "SELECT * FROM device_update_status WHERE device_id = ? ORDER BY id",
               "SELECT event_type, device_id, firmware_version, rollout_id, event_data, created_at,"
               " created_by FROM ota_events WHERE device_id = ? ORDER BY id")
    masks = ((r"\d{4}-\d\d-\d\dT[\d:.]{15}Z", "TIME"), (r'"exposure":\d{6}', '"exposure":N'))

    def rows(db, device):
        text = repr([db.execute(q, (device,)).fetchall() for q in queries])
        for pattern, word in masks:
            text = re.sub(pattern, word, text)
        return text

    with sqlite3.connect(f"file:{a}/paku-ota.db?mode=ro", uri=True) as x, \
            sqlite3.connect(f"file:{b}/paku-ota.db?mode=ro", uri=True) as y:
        finished = "SELECT device_id FROM ota_events WHERE event_type = 'update_completed'"
        both = sorted(set(x.execute(finished)) & set(y.execute(finished)))[:200]
        return bool(both) and all(rows(x, *d) == rows(y, *d) for d in both)


def reports(setting):
    for clients in (64, 512):
        def ours():
            folder = setting.fleets.folder_with("reports", DEVICES, "all")
            with running(Service(folder)) as service:
                r = bench_load(service.port, "--seconds", setting.seconds,
                               f"report:{clients}:0:0:{DEVICES}")
                s = r["report"]
                if s["ok"] != s["requests"] or s["repeated"]:
                    raise Failed(f"reports went wrong: {s}")
                written = count_events(folder)
            if written < s["ok"]:
                raise Failed(f"{s['ok']} reports were acknowledged, {written} are in the database")
            return s["per_s"]

        def peer():
            folder = setting.fleets.folder_with("reports-peer", DEVICES, "all")
            # The loop is the peer of the service, so it has the service's core.
            return loop(folder, setting.seconds, clients)

        a, b = setting.pairs(ours, peer)
        if not same_rows(os.path.join(setting.folder, "reports"),
                         os.path.join(setting.folder, "reports-peer")):
            raise Failed("service and loop have written different rows for the same reports")
        yield Row(f"reports-{clients}", f"durable reports, {clients} clients", "reports/s", a, b,
                  0.5, 0.8, meaning="how near the service comes to what the database alone can "
                  "make durable; each answer is sent after its fsync",
                  notes=[f"peer: the same statements in a loop, {clients} a transaction"])


def loop(folder, seconds, batch):
    was = machine.LOAD_CORE
    machine.LOAD_CORE = machine.SERVER_CORE
    try:
        return load(program("bench-report-loop"), f"{folder}/paku-ota.db", seconds, batch)["per_s"]
    finally:
        machine.LOAD_CORE = was


def busy(setting):
    folder = setting.fleets.folder_with("busy", DEVICES, "all")
    half = DEVICES // 2
    samples, notes = [], []
    with running(Service(folder)) as service:
        for i in range(setting.rounds):
            first = i * half // setting.rounds
            last = (i + 1) * half // setting.rounds
            r = bench_load(service.port, "--seconds", setting.seconds + 1, "--key", KEY,
                           f"check:32:500:{half}:{DEVICES}", f"report:64:1000:{first}:{last}",
                           "upload:1:0:0:1")
            for kind in ("check", "report", "upload"):
                if r[kind]["ok"] != r[kind]["requests"]:
                    raise Failed(f"{kind} went wrong: {r[kind]}")
            samples.append(r["check"]["p99_us"] / 1000)
            notes.append((r["upload"]["requests"], r["report"]["per_s"],
                          r["report"]["p99_us"] / 1000, r["check"]["p50_us"] / 1000))
    yield Row("busy", "p99 of a check-in during uploads and reports", "ms", samples, goal=5,
              kind="at most", meaning="what a device waits at worst (but for one in a hundred) "
              "while an operator uploads and a rollout reports",
              notes=["500 check-ins/s, timed from when they were due; 16 MiB uploads one after the "
                     f"other ({statistics.median(n[0] for n in notes):.0f} a round); "
                     f"{statistics.median(n[1] for n in notes):.0f} reports/s, their p99 "
                     f"{statistics.median(n[2] for n in notes):.1f} ms; median check-in "
                     f"{statistics.median(n[3] for n in notes):.2f} ms"])


def memory(setting):
    # Each size once or few times: it varies by the megabyte at most, and filling takes long.
    sizes = [(0, "empty", 15, 3), (DEVICES, "100,000 devices", 60, 3)]
    if not setting.quick:
        sizes.append((1_000_000, "1,000,000 devices", 350, 1))
    for devices, title, goal, rounds in sizes:
        samples, after = [], []
        for _ in range(rounds):
            folder = os.path.join(setting.folder, "empty")
            shutil.rmtree(folder, ignore_errors=True)
            if devices:
                folder = setting.fleets.folder_with("memory", devices, "canary")
            with running(Service(folder)) as service:
                time.sleep(1)
                samples.append(service.anonymous_mb())
                if devices:
                    bench_load(service.port, "--requests", 20000, f"check:64:0:0:{devices}")
                    after.append(service.anonymous_mb())
        note = f"after 20,000 check-ins: {statistics.median(after):.1f} MB" if after else \
            "with the one device that asks whether it is up"
        yield Row(f"memory-{devices}", f"memory of its own, {title}", "MB", samples, goal=goal,
                  kind="at most", meaning="RssAnon one second after the start: what the machine "
                  "must have beside the file cache", notes=[note])
    yield from idle(setting)


def idle(setting):
    count, held = 10_000, []
    with running(Service(setting.fleets.folder_with("idle", 1000, "canary"))) as service:
        time.sleep(1)
        before = service.anonymous_mb()
        try:
            for _ in range(count):
                held.append(socket.create_connection(("127.0.0.1", service.port)))
            # The last one is answered, so all were accepted.
            held[-1].sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            if not held[-1].recv(1000).startswith(b"HTTP/1.1 200"):
                raise Failed("among idle connections one is not answered")
            accepted = descriptors(service)
            added = service.anonymous_mb() - before
        finally:
            for s in held:
                s.close()
    yield Row("memory-idle", "memory that 10,000 idle connections add", "MB", [added],
              kind="at most", meaning="what a fleet that stays connected costs in the service "
              "(the kernel's sockets come on top)", notes=[f"{accepted} descriptors open"])


def descriptors(service):
    return len(os.listdir(f"/proc/{service.process.pid}/fd"))


def start(setting):
    samples = []
    for _ in range(setting.rounds):
        with running(Service(setting.fleets.folder_with("start", DEVICES, "canary"))) as service:
            samples.append(service.start_s)
    yield Row("start", "start to first answer, 100,000 devices", "s", samples, goal=0.5,
              kind="at most", meaning="how long a restart is felt: from exec to the first answered "
              "check-in, database in the file cache")


def growth(setting):
    warm, total = (20_000, 100_000) if setting.quick else (200_000, 1_000_000)
    folder = setting.fleets.folder_with("growth", DEVICES, "all")
    with running(Service(folder)) as service:
        upload(service, "7.0.0", random.Random(3).randbytes(16384))
        args = ("--key", KEY, "--download", "/api/firmware/download/7.0.0")
        mixed(service, warm, f"mixed:32:0:0:{DEVICES // 2}", *args)
        before = service.anonymous_mb()
        began = time.monotonic()
        mixed(service, total, f"mixed:32:0:{DEVICES // 2}:{DEVICES}", *args)
        took = time.monotonic() - began
        after = service.anonymous_mb()
    yield Row("growth", f"memory growth over {total:,} mixed requests", "MB", [after - before],
              goal=1.0, kind="at most", meaning="whether anything leaks: the goal is 0, and 1 MB "
              "is taken as noise", notes=[
                  f"{before:.1f} MB after {warm:,} requests to warm up, {after:.1f} MB at the end; "
                  f"{total / took:,.0f} requests/s"])


def mixed(service, requests, *args):
    r = bench_load(service.port, "--requests", requests, *args)["mixed"]
    # Two of twenty are mistakes on purpose.
    if r["server_errors"] or r["broken"] or not 0.09 < r["client_errors"] / r["requests"] < 0.11:
        raise Failed(f"mixed requests went wrong: {r}")


FIGURES = {"checkins": keepalive, "checkins-close": close, "downloads": downloads,
           "reports": reports, "busy": busy, "memory": memory, "start": start, "growth": growth}
