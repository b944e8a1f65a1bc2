# SPDX-License-Identifier: MIT
"""`paku-ota backup` and `paku-otad --restore`: all or nothing, and of one moment."""
import hashlib
import io
import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import tarfile
import threading

import pytest

import images
from service import BUILD, Service, wait_for

CLI = os.path.join(BUILD, "cli", "paku-ota")


def backup(service, path, *args):
    return subprocess.run([CLI, "backup", str(path), *args], capture_output=True, text=True, timeout=120,
                          env={"PATH": os.environ["PATH"], "HOME": service.folder, "LANG": "C.UTF-8",
                               "OTA_SERVICE_URL": service.url, "OTA_API_KEY": service.key})


def rows(path):
    """Every row of every table."""
    db = sqlite3.connect("file:%s?mode=ro" % path, uri=True)
    names = [n for (n,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1")]
    found = {n: db.execute("SELECT * FROM %s ORDER BY 1" % n).fetchall() for n in names}
    found["schema"] = db.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY 1, 2").fetchall()
    found["version"] = db.execute("PRAGMA user_version").fetchall()
    db.close()
    return found


def files(folder):
    return {n: open(os.path.join(folder, n), "rb").read() for n in os.listdir(folder)}


def fill(service):
    for version in ("1.1.0", "1.2.0"):
        service.release(images.esp32(version), version)
    service.release(images.esp32("1.2.0"), "1.2.0", "esp32-b")  # the same bytes: one file
    service.release(images.esp32("0.9.0"), "0.9.0")
    assert service.delete("/api/admin/firmware/releases/0.9.0").status_code == 200
    service.rollout("1.2.0")
    for i in range(20):
        service.check("dev-%d" % i)
    for i in range(10):
        service.report("dev-%d" % i, "1.2.0", "success" if i % 3 else "failed")
    service.get("/api/admin/devices")  # writes last_seen


def left(service):
    """What is in the place but for the lock and an empty folder."""
    found = set(os.listdir(service.data)) - {"lock"}
    if "firmware" in found and not os.listdir(os.path.join(service.data, "firmware")):
        found.remove("firmware")
    return found


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A service that has ended, its backup, and its key."""
    folder = tmp_path_factory.mktemp("filled")
    service = Service(folder / "service", key=None).start()
    fill(service)
    done = backup(service, folder / "b.tar")
    key = service.key
    service.stop()
    assert done.returncode == 0, done.stderr
    assert "b.tar" in done.stdout and "size" in done.stdout
    return service, str(folder / "b.tar"), key


def test_everything_comes_back(filled, services):
    old, archive, key = filled
    new = services("new", start=False, key=None)
    done = new.run("--restore", archive)
    assert done.returncode == 0, done.stderr
    # The three that are on the disk: 1.1.0 and 1.2.0; 0.9.0 was deleted.
    assert "The database and 2 images and the key's hash" in done.stdout
    assert left(new) == {"paku-ota.db", "firmware", "api-key.sha256"}
    assert rows(new.data + "/paku-ota.db") == rows(old.data + "/paku-ota.db")
    assert files(new.data + "/firmware") == files(old.data + "/firmware")
    for name in ("paku-ota.db", "api-key.sha256"):
        assert os.stat(os.path.join(new.data, name)).st_mode & 0o777 == 0o600
    new.key = key
    new.start()
    assert len(new.list("devices", limit=1000)) == 20
    assert new.get("/api/firmware/download/1.1.0?device_model=esp32").content == images.esp32("1.1.0")
    assert new.check("dev-19")["latest_version"] == "1.2.0"


def test_other_tools_can_read_it(filled):
    """tar and sha256sum are enough to look into one."""
    with tarfile.open(filled[1]) as tar:
        held = {m.name: tar.extractfile(m).read() for m in tar}
    assert list(held)[0] == "paku-ota-backup.json" and list(held)[-1] == "SHA256SUMS"
    sums = dict(reversed(line.split("  ")) for line in held.pop("SHA256SUMS").decode().splitlines())
    assert sums == {n: hashlib.sha256(data).hexdigest() for n, data in held.items()}
    head = json.loads(held["paku-ota-backup.json"])
    assert head["format"] == 1 and head["store"] == "sqlite" and head["images"] == 2


def test_it_is_of_one_moment(services, tmp_path):
    """While a writer goes on: what is in the backup is all that was committed up to one event."""
    service = services("busy")
    fill(service)
    ready, end = threading.Event(), threading.Event()

    def write():
        mine, i = Service(service.folder), 0
        mine.url, mine.key = service.url, service.key
        while not end.is_set():
            mine.check("late-%d" % i, version="2.0.%d" % i)
            mine.ok("PUT", "/api/admin/devices/dev-0/label", json={"label": "at %d" % i})
            if i % 10 == 0:
                mine.release(images.esp32("3.0.%d" % i), "3.0.%d" % i)
            i += 1
            if i == 20:
                ready.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert ready.wait(60)
        for n in range(3):
            done = backup(service, tmp_path / ("%d.tar" % n))
            assert done.returncode == 0, done.stderr
        before_end = service.list("events", limit=1)[0]["id"]
        wait_for(lambda: service.list("events", limit=1)[0]["id"] > before_end + 4, "more writes")
    finally:
        end.set()
        writer.join()
    service.stop()
    now = rows(service.data + "/paku-ota.db")
    cuts = []
    for n in range(3):
        new = services("new%d" % n, start=False)
        done = new.run("--restore", str(tmp_path / ("%d.tar" % n)))
        assert done.returncode == 0, done.stderr
        then = rows(new.data + "/paku-ota.db")
        cut = len(then["ota_events"])
        cuts.append(cut)
        assert then["ota_events"] == now["ota_events"][:cut]
        events = [(e[1], e[2], e[3], json.loads(e[5] or "{}")) for e in then["ota_events"]]
        assert sorted(d[1] for d in then["devices"]) == \
            sorted(e[1] for e in events if e[0] == "device_registered")
        labels = [e[3] for e in events if e[0] == "device_edited"]
        db = sqlite3.connect(new.data + "/paku-ota.db")
        (label,) = db.execute("SELECT label FROM devices WHERE device_id = 'dev-0'").fetchone()
        db.close()
        assert label in json.dumps(labels[-1]) and len(labels) >= 20
        uploaded = {e[2] for e in events if e[0] == "firmware_uploaded"}
        assert {r[1] for r in then["firmware_releases"]} == uploaded
        db = sqlite3.connect(new.data + "/paku-ota.db")
        named = {s + ".bin" for (s,) in db.execute(
            "SELECT checksum_sha256 FROM firmware_releases WHERE deleted_at IS NULL")}
        db.close()
        assert set(os.listdir(new.data + "/firmware")) == named
        for name, data in files(new.data + "/firmware").items():
            assert hashlib.sha256(data).hexdigest() + ".bin" == name
    assert cuts == sorted(cuts) and cuts[0] >= 20 and cuts[-1] < len(now["ota_events"])
    # Nothing of a backup stays behind.
    assert not [n for n in os.listdir(service.data) if "backup" in n]


def repack(archive, change):
    """The archive with its files as CHANGE makes them: {name: bytes or None}."""
    with tarfile.open(archive) as tar:
        held = [(m.name, tar.extractfile(m).read()) for m in tar]
    held = change(held)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in held:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def with_right_sums(held):
    held = [h for h in held if h[0] != "SHA256SUMS"]
    text = "".join("%s  %s\n" % (hashlib.sha256(d).hexdigest(), n) for n, d in held)
    return held + [("SHA256SUMS", text.encode())]


def edited_database(sql, tmp_path):
    def change(held):
        path = tmp_path / "edit.db"
        out = []
        for name, data in held:
            if name == "paku-ota.db":
                path.write_bytes(data)
                db = sqlite3.connect(path)
                db.executescript(sql)
                db.close()
                data = path.read_bytes()
            out.append((name, data))
        return with_right_sums(out)
    return change


def flip(name):
    """One bit of the file called so."""
    def change(held):
        return [(n, d[:-50] + bytes([d[-50] ^ 1]) + d[-49:] if n.startswith(name) else d) for n, d in held]
    return change


def test_what_is_not_whole_is_refused(filled, services, tmp_path):
    _, archive, _ = filled
    whole = open(archive, "rb").read()

    def broken_tree(held):
        return with_right_sums([(n, d[:4096] + bytes(4096) + d[8192:] if n == "paku-ota.db" else d)
                                for n, d in held])

    bad = {
        "cut": (whole[:len(whole) // 2], "not whole"),
        "cut at the sums": (whole[:whole.rindex(b"SHA256SUMS")], "not whole"),
        "empty": (b"", "not whole"),
        "text": (b"no archive at all\n" * 100, "no backup of a paku-otad"),
        "another tar": (repack(archive, lambda h: [("hello.txt", b"hello")]), "no backup of a paku-otad"),
        "header": (whole[:1024] + b"?" + whole[1025:], "is damaged"),
        "database": (repack(archive, flip("paku-ota.db")), "damaged: paku-ota.db"),
        "image": (repack(archive, flip("firmware/")), "not what its name says"),
        "key": (repack(archive, flip("api-key")), "damaged: api-key.sha256"),
        "an image is missing": (repack(archive, lambda h: with_right_sums(
            [x for x in h if not x[0].startswith("firmware/")])), "cannot be opened"),
        "a file too many": (repack(archive, lambda h: h[:2] + [("../evil", b"x")] + h[2:]), "../evil"),
        "a path": (repack(archive, lambda h: h[:2] + [("firmware/../x.bin", b"x")] + h[2:]), "no image's name"),
        "format": (repack(archive, lambda h: [(n, d.replace(b'"format":1', b'"format":2')) for n, d in h]),
                   "newer paku-otad"),
        "schema": (repack(archive, edited_database("PRAGMA user_version = 999", tmp_path)),
                   "schema version 999"),
        "tree": (repack(archive, broken_tree), "damaged"),
        "reference": (repack(archive, edited_database(
            "PRAGMA foreign_keys=OFF; DELETE FROM firmware_releases WHERE version = '1.2.0'", tmp_path)),
            "refers to one that is not"),
    }
    new = services("new", start=False, key=None)
    for what, (data, sentence) in bad.items():
        path = tmp_path / "bad.tar"
        path.write_bytes(data)
        done = new.run("--restore", str(path))
        assert done.returncode == 1 and sentence in done.stderr, (what, done.stderr)
        assert left(new) == set(), what
    assert new.run("--restore", str(tmp_path / "nowhere")).returncode == 1
    assert new.run("--restore", archive).returncode == 0


def test_only_into_an_empty_place(filled, services, tmp_path):
    _, archive, _ = filled
    new = services("new", key=None)
    new.release(images.esp32("7.0.0"), "7.0.0")
    running = new.run("--restore", archive)
    assert running.returncode == 1 and "another paku-otad" in running.stderr
    new.stop()
    before = rows(new.data + "/paku-ota.db"), files(new.data + "/firmware")
    done = new.run("--restore", archive)
    assert done.returncode == 1 and "is not empty: it has paku-ota.db" in done.stderr
    assert (rows(new.data + "/paku-ota.db"), files(new.data + "/firmware")) == before
    elsewhere = services("else", start=False)
    done = elsewhere.run("--restore", archive, env={"FIRMWARE_STORAGE_PATH": new.data + "/firmware"})
    assert done.returncode == 1 and "firmware folder" in done.stderr and "not empty" in done.stderr
    assert files(new.data + "/firmware") == before[1] and left(elsewhere) == set()
    done = elsewhere.run("--restore", archive, env={"PGHOST": "/nowhere"})
    assert done.returncode == 1 and "--import" in done.stderr and left(elsewhere) == set()


def test_a_crash_in_the_middle(filled, services, tmp_path):
    """Killed while it reads: no service starts there, and the next try begins anew."""
    _, archive, _ = filled
    whole = open(archive, "rb").read()
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    new = services("new", start=False, key=None)
    process = new.spawn("--restore", fifo)
    with open(fifo, "wb") as f:
        # Past the first image, not to the end.
        f.write(whole[:whole.index(b"api-key.sha256")])
        f.flush()
        wait_for(lambda: os.path.isdir(new.data + "/firmware") and
                 len([n for n in new.firmware_files() if n.endswith(".bin")]) >= 1, "an image to be there")
        process.send_signal(signal.SIGKILL)
        process.wait()
    new.process = None
    refused = new.run()
    assert refused.returncode == 1 and "begun and not ended" in refused.stderr
    # Of another archive's images it says so, and leaves them.
    other = repack(archive, lambda h: with_right_sums([x for x in h if not x[0].startswith("firmware/")]))
    (tmp_path / "other.tar").write_bytes(other)
    done = new.run("--restore", str(tmp_path / "other.tar"))
    assert done.returncode == 1 and "not empty" in done.stderr
    for name in new.firmware_files():
        os.unlink(os.path.join(new.data, "firmware", name))
    done = new.run("--restore", archive)
    assert done.returncode == 0, done.stderr
    assert left(new) == {"paku-ota.db", "firmware", "api-key.sha256"}
    new.key = filled[2]
    new.start()
    assert len(new.list("devices", limit=1000)) == 20


def test_a_damaged_image_breaks_it_off(services, tmp_path):
    service = services("service")
    fill(service)
    path = tmp_path / "b.tar"
    name = service.firmware_files()[0]
    image = os.path.join(service.data, "firmware", name)
    data = open(image, "rb").read()
    with open(image, "wb") as f:
        f.write(data[:-1] + bytes([data[-1] ^ 1]))
    done = backup(service, path)
    assert done.returncode == 3 and "backup_broken_off" in done.stderr
    assert os.listdir(tmp_path) == ["service"] or not path.exists()
    assert not (tmp_path / "b.tar.part").exists()
    assert "backup_broken_off firmware/%s: the image file is damaged" % name in service.log()
    with open(image, "wb") as f:
        f.write(data[:-1])
    done = backup(service, path)
    assert done.returncode == 1 and "is damaged: it has" in done.stderr and not path.exists()
    os.unlink(image)
    assert backup(service, path).returncode == 1
    with open(image, "wb") as f:
        f.write(data)
    assert backup(service, path).returncode == 0
    again = backup(service, path)
    assert again.returncode == 2 and "exists" in again.stderr and "--force" in again.stderr
    said = backup(service, path, "--force", "--json")
    assert json.loads(said.stdout) == {"file": str(path), "size": path.stat().st_size}
    assert backup(service, "/nowhere/b.tar").returncode == 2


def test_one_at_a_time(services):
    """And while one is read slowly, deleting a release waits with the file."""
    service = services("service")
    for n in range(4):  # more than the sockets between hold
        service.release(b"\xe9" + os.urandom(8 << 20), "9.0.%d" % n, image_type="raw")
    before = service.firmware_files()
    slow = service.session.get(service.url + "/api/admin/backup", stream=True, timeout=60,
                               headers={"X-API-Key": service.key})
    assert slow.status_code == 200
    second = service.get("/api/admin/backup")
    assert second.status_code == 409 and "one at a time" in second.json()["detail"]
    for n in range(1, 4):
        assert service.delete("/api/admin/firmware/releases/9.0.%d" % n).status_code == 200
    assert service.firmware_files() == before
    data = slow.content
    assert len(data) == int(slow.headers["Content-Length"])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert len([m for m in tar if m.name.startswith("firmware/")]) == 4
    wait_for(lambda: service.get("/api/admin/backup").status_code == 200, "the first to be over")
    # One that is broken off by its reader leaves nothing behind.
    with service.session.get(service.url + "/api/admin/backup", stream=True, timeout=60,
                             headers={"X-API-Key": service.key}):
        pass
    wait_for(lambda: service.get("/api/admin/backup").status_code == 200, "the next to be made")
    assert service.session.get(service.url + "/api/admin/backup").status_code == 401
    service.restart()  # what was deleted meanwhile is swept
    assert len(service.firmware_files()) == 1


def test_on_postgresql_it_has_the_images(services, tmp_path):
    service = services("service", store="postgresql", key=None)
    fill(service)
    path = tmp_path / "b.tar"
    assert backup(service, path).returncode == 0
    with tarfile.open(path) as tar:
        names = tar.getnames()
    assert "paku-ota.db" not in names and len([n for n in names if n.startswith("firmware/")]) == 2
    service.stop()
    new = services("new", store="postgresql", start=False, key=None)
    done = new.run("--restore", str(path))
    assert done.returncode == 0 and "pg_restore" in done.stdout, done.stderr
    assert files(new.data + "/firmware") == files(service.data + "/firmware")
    assert left(new) == {"firmware", "api-key.sha256"}


def test_restore_shows_how_far_it_is(filled, services):
    new = services("new", start=False, key=None)
    theirs, ours = pty.openpty()
    process = subprocess.Popen([new.program, "--restore", filled[1]], env=new.environment(), stdout=ours, stderr=ours)
    assert process.wait(60) == 0
    os.close(ours)
    shown = os.read(theirs, 65536).decode()
    os.close(theirs)
    assert re.search(r"\r +\d+ %", shown) and "The database and 2 images" in shown


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_no_room_for_the_copy(services, tmp_path):
    """It is refused with the reason, leaves nothing behind, and the service goes on."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=755", "tmpfs", str(small)], check=True)
    try:
        service = services("service", env={"OTA_DATA_DIR": str(small / "data")})
        fill(service)
        for i in range(400):
            service.check("more-%d" % i)
        room = os.statvfs(small)
        with open(small / "ballast", "wb") as f:
            f.write(bytes(room.f_bavail * room.f_frsize - 100_000))
        done = backup(service, tmp_path / "b.tar")
        assert done.returncode == 1 and "disk that holds" in done.stderr and "is full" in done.stderr
        assert not [n for n in os.listdir(small / "data") if n.startswith("backup")]
        os.unlink(small / "ballast")
        service.check("afterwards")
        done = backup(service, tmp_path / "b.tar")
        assert done.returncode == 0, done.stderr
        service.stop()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
