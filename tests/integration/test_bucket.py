# SPDX-License-Identifier: MIT
"""Firmware in an S3 bucket: a real server that checks signatures, and a line to it that fails as told."""
import concurrent.futures
import hashlib
import io
import itertools
import os
import shutil
import socket
import tarfile
import threading

import pytest
import requests

import images
import s3
import test_cluster
from service import wait_for
from test_disk import fill, make_room, needs_root, small_disk  # noqa: F401 (a fixture)

names = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = s3.Server(tmp_path_factory.mktemp("s3"))
    yield server
    server.stop()


@pytest.fixture
def bucket(server):
    return server.bucket("firmware-%d-%d" % (os.getpid(), next(names)))


@pytest.fixture
def line(server):
    line = s3.Line(server)
    yield line
    line.fault = 503
    line.stop()


@pytest.fixture
def in_bucket(services, line, bucket):
    def make(start=True, **env):
        return services(start=start, env=line.environment(bucket.name, **env))
    return make


def download(service, version, **more):
    return requests.get("%s/api/firmware/download/%s" % (service.url, version), timeout=60, **more)


def empty_cache(service):
    service.stop()
    shutil.rmtree(os.path.join(service.data, "firmware"))
    service.start()


def file_name(image):
    return hashlib.sha256(image).hexdigest() + ".bin"


def health(service):
    answer = service.get("/health")
    assert answer.status_code == 200  # devices are answered, and what is in the folder goes out
    return answer.json()["bucket"]


def fails(service, *words):
    def told():
        state = health(service)
        return state["status"] == "failing" and all(w in state["reason"] for w in words)
    wait_for(told, "/health to say %s" % (words,))


def works(service):
    wait_for(lambda: health(service)["status"] == "ok", "/health to be well")


def refused(answer, *words):
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) > 0
    for word in words:
        assert word in answer.json()["detail"]


def test_without_it_nothing_is_said(service):
    assert "bucket" not in service.ok("GET", "/health")


def test_an_upload_is_in_the_bucket(in_bucket, bucket, image):
    service = in_bucket()
    service.release(image, "1.2.0")
    assert bucket.has(image) == image
    works(service)
    assert download(service, "1.2.0").content == image
    figures = service.get("/metrics", headers={"Accept": "text/plain"}).text
    assert "paku_ota_bucket_up 1\n" in figures and "paku_ota_bucket_fetches_total 0\n" in figures
    assert "paku_ota_bucket_cached_bytes %d\n" % len(image) in figures


def test_a_missing_image_is_fetched_once(in_bucket, bucket, line):
    image = images.big(3000000)
    service = in_bucket()
    service.release(image, "1.2.0", "pi")
    empty_cache(service)
    assert service.firmware_files() == []
    go = threading.Event()
    line.fault = lambda method, path: method == "GET" and ".bin" in path and not go.wait(30)
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(download, service, "1.2.0") for _ in range(20)]
        wait_for(lambda: line.count("GET", image), "the fetch to begin")
        go.set()
        for answer in answers:
            assert answer.result().content == image
    assert line.count("GET", image) == 1
    assert service.firmware_files() == [file_name(image)]


def test_wrong_bytes_are_never_served(in_bucket, bucket, image):
    service = in_bucket()
    service.release(image, "1.2.0")
    for wrong in (image[:-1] + b"?", image[:-10], image + b"more", b""):
        bucket.put(image, wrong)
        empty_cache(service)
        refused(download(service, "1.2.0"), "other bytes", "upload the image again")
        assert service.firmware_files() == []
    service.release(image, "1.2.0")  # the same again mends it
    empty_cache(service)
    assert download(service, "1.2.0").content == image


def test_a_damaged_copy_is_fetched_anew(in_bucket, image):
    service = in_bucket()
    service.release(image, "1.2.0")
    service.stop()
    with open(os.path.join(service.data, "firmware", file_name(image)), "r+b") as f:
        f.write(b"damage")
    service.start()
    wait_for(lambda: health(service)["status"] == "ok", "the keeper to have looked")
    assert wait_for(lambda: download(service, "1.2.0"), "an answer").content == image


def test_a_copy_that_was_cut_short_is_no_copy(in_bucket, bucket, image):
    service = in_bucket()
    service.release(image, "1.2.0")
    service.stop()
    os.truncate(os.path.join(service.data, "firmware", file_name(image)), 1000)
    service.start()
    wait_for(lambda: service.firmware_files() == [], "the keeper to find it out")
    assert "image_useless" in service.log()
    assert bucket.has(image) == image and download(service, "1.2.0").content == image
    works(service)


def test_an_image_that_is_not_in_the_bucket(in_bucket, bucket, image):
    service = in_bucket()
    service.release(image, "1.2.0")
    bucket.remove(image)
    empty_cache(service)
    wait_for(lambda: "image_missing" in service.log(), "the start to tell")
    refused(download(service, "1.2.0"), "NoSuchKey", "upload the image again")
    works(service)  # the bucket is not to blame
    found = [f for f in service.ok("GET", "/api/admin/doctor")["checks"] if f["check"] == "images"]
    assert [f["level"] for f in found] == ["problem"] and "1.2.0" in found[0]["finding"]
    assert "not in the bucket" in found[0]["finding"]


@pytest.mark.parametrize("env, words", [
    ({"OTA_S3_SECRET_KEY": "wrong"}, ("403", "SignatureDoesNotMatch", "OTA_S3_SECRET_KEY")),
    ({"OTA_S3_ACCESS_KEY": "test:nobody"}, ("403",)),
    ({"OTA_S3_BUCKET": "not-made"}, ("404", "NoSuchBucket")),
    ({"OTA_S3_REGION": "eu-south-9"}, ("OTA_S3_REGION",)),
])
def test_what_is_set_wrong_is_said(in_bucket, bucket, image, env, words):
    service = in_bucket(**env)
    fails(service, *words)
    refused(service.upload(image, "1.2.0"), *words)
    assert service.list("releases") == [] and service.firmware_files() == []
    assert bucket.has(image) is None


def test_a_bucket_that_is_away_at_the_start_and_comes_back(in_bucket, line, bucket, services, image):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))  # nobody listens there
        away = services("away", env=line.environment(
            bucket.name, OTA_S3_ENDPOINT="http://127.0.0.1:%d" % s.getsockname()[1]))
        fails(away, "does not answer")
        refused(away.upload(image, "1.2.0"), "does not answer")
        away.check("dev-1")
    line.fault = 503
    service = in_bucket()
    fails(service, "503", "SlowDown")
    refused(service.upload(image, "1.2.0"), "503", "SlowDown")
    line.fault = None
    service.release(image, "1.2.0")
    works(service)
    assert bucket.has(image) == image


def test_what_is_in_the_folder_goes_out_while_the_bucket_is_away(in_bucket, line, image):
    service = in_bucket()
    service.release(image, "1.2.0")
    line.fault = 503
    service.restart()
    fails(service, "503")
    assert download(service, "1.2.0").content == image


def test_a_bucket_that_stands_still(in_bucket, line, image):
    service = in_bucket()
    service.release(image, "1.2.0")
    service.extra["OTA_S3_STALL_S"] = 2
    empty_cache(service)
    go = threading.Event()
    line.fault = lambda method, path: 503 if method == "GET" and ".bin" in path and go.wait(60) else None
    try:
        refused(download(service, "1.2.0"), "does not answer")
        # A stop does not wait for it.
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            before = line.count("GET", image)
            waiting = pool.submit(download, service, "1.2.0")
            wait_for(lambda: line.count("GET", image) > before, "the fetch to begin")
            service.stop()
            refused(waiting.result())
    finally:
        go.set()


def test_the_folder_is_bounded_and_keeps_what_is_sent(in_bucket, bucket):
    big = [images.big(8000000) for _ in range(3)]
    service = in_bucket(OTA_CACHE_BYTES=12000000, OTA_MAX_FIRMWARE_BYTES=12000000, OTA_IMAGE_CACHE_BYTES=0)
    for i, image in enumerate(big):
        service.release(image, "1.%d.0" % i, "pi")
    assert service.firmware_files() == [file_name(big[2])]
    with download(service, "1.0.0", stream=True) as slow:
        first = slow.raw.read(1000)
        assert download(service, "1.1.0").content == big[1]
        assert file_name(big[0]) in service.firmware_files()
        assert file_name(big[2]) not in service.firmware_files()
        assert first + slow.raw.read() == big[0]
    wait_for(lambda: len(service.firmware_files()) == 1, "the folder to be within its bound")
    assert all(bucket.has(image) == image for image in big)


def test_an_installation_with_images_moves_into_the_bucket(services, line, bucket, image):
    service = services()
    service.release(image, "1.2.0")
    service.stop()
    service.extra.update(line.environment(bucket.name))
    service.start()
    wait_for(lambda: bucket.has(image) == image, "the image to be copied")
    empty_cache(service)
    assert download(service, "1.2.0").content == image


def test_images_of_another_database_are_not_copied(services, line, bucket, image):
    strange = images.esp32("9.9.9", fill=4)
    service = services(env=line.environment(bucket.name))
    service.stop()
    with open(os.path.join(service.data, "firmware", file_name(strange)), "wb") as f:
        f.write(strange)
    service.start()
    service.release(image, "1.2.0")
    service.ok("DELETE", "/api/admin/firmware/releases/1.2.0")
    wait_for(lambda: line.count("HEAD", image), "the keeper to come past what it copies")
    assert bucket.has(strange) is None and file_name(strange) in service.firmware_files()


def test_killed_in_the_middle_of_an_upload(in_bucket, line, bucket, image):
    other = images.esp32("2.0.0", fill=6)
    service = in_bucket()
    service.release(image, "1.2.0")
    go = threading.Event()
    line.fault = lambda method, path: 503 if method == "PUT" and go.wait(60) else None
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        upload = pool.submit(service.upload, other, "2.0.0")
        wait_for(lambda: line.count("PUT", other), "it to be on its way into the bucket")
        service.kill()
        go.set()
        with pytest.raises(requests.RequestException):
            upload.result()
    line.fault = None
    service.start()
    assert [r["version"] for r in service.list("releases")] == ["1.2.0"]
    assert service.firmware_files() == [file_name(image)] and bucket.has(other) is None
    service.release(other, "2.0.0")
    assert bucket.has(other) == other


@needs_root
def test_a_full_disk_is_made_room_on(in_bucket, small_disk):  # noqa: F811
    big = [images.big(3 << 19) for _ in range(3)]
    service = in_bucket(FIRMWARE_STORAGE_PATH=small_disk, OTA_IMAGE_CACHE_BYTES=0)
    service.release(big[0], "0", "pi")
    service.release(big[1], "1", "pi")
    refused(service.upload(big[2], "2", "pi"), "full")
    service.release(big[2], "2", "pi")  # room was made
    for i in range(3):
        assert download(service, i).content == big[i]
    service.stop()
    for name in os.listdir(small_disk):
        os.remove(small_disk / name)
    fill(small_disk)
    service.start()
    refused(download(service, 0), "full")
    works(service)  # the bucket is not to blame
    make_room(small_disk)
    assert download(service, 0).content == big[0]


def test_several_instances_share_a_bucket(tmp_path, line, bucket, image):
    line.old = True
    group = test_cluster.Group(tmp_path, 2, FIRMWARE_STORAGE_PATH="", **line.environment(bucket.name))
    try:
        first = group.leader()
        second = group.others(first)[0]
        second.release(image, "1.2.0")
        assert first.firmware_files() == [file_name(image)]
        assert download(second, "1.2.0").content == image
        first.disturb("kill")
        wait_for(lambda: group.leader() is second, "the other to lead")
        wait_for(lambda: download(second, "1.2.0").content == image, "the image to be fetched")
        assert second.firmware_files() == [file_name(image)]
        first.heal()
        wait_for(first.follows, "the first to follow")
        first.ok("DELETE", "/api/admin/firmware/releases/1.2.0")
        wait_for(lambda: bucket.has(image) is None, "the leader to remove it")
        assert second.firmware_files() == []
        # One that wakes up in the middle of a removal does not remove what the next one has stored.
        second.release(image, "1.2.1")
        line.seen.clear()
        line.answered.clear()
        go = threading.Event()
        line.fault = lambda method, path: go.wait(120) and None if method == "HEAD" else None
        second.ok("DELETE", "/api/admin/firmware/releases/1.2.1")
        wait_for(lambda: line.count("HEAD", image), "the keeper to look")
        second.disturb("freeze")
        wait_for(lambda: group.leader() is first, "the first to lead")
        first.release(image, "1.2.2")
        asked = line.count("HEAD", image)
        go.set()
        wait_for(lambda: sum(m == "HEAD" for m, _ in list(line.answered)) >= asked, "the answers to be on their way")
        second.thaw()
        wait_for(second.follows, "the second to follow")
        assert line.count("DELETE", image) == 0 and bucket.has(image) == image
        wait_for(lambda: download(second, "1.2.2").content == image, "it to be passed on")
    finally:
        line.fault = None
        group.close()


def test_one_that_follows_sends_from_the_bucket(tmp_path, line, bucket):
    group = test_cluster.Group(tmp_path, 2, FIRMWARE_STORAGE_PATH="", OTA_IMAGE_CACHE_BYTES=0,
                               **line.environment(bucket.name))

    def fetched_once():
        assert sum(m == "GET" and path.endswith(".bin") for m, path in list(line.seen)) == 1
    try:
        leader, follower, image = test_cluster.sends_itself(group, fetched_once)
        wait_for(lambda: group.leader() is follower, "the other to lead")
        assert os.listdir(os.path.join(follower.data, "relayed")) == []
        leader.heal()
        wait_for(leader.follows, "the first to follow")
        line.fault = 503  # the one that follows has nothing, the leader neither
        refused(download(leader, "1.2.0"), "SlowDown")
        line.fault = None
        wait_for(lambda: download(leader, "1.2.0").content == image, "the image")
    finally:
        line.fault = None
        group.close()


def test_deletion_removes_what_nobody_uses(in_bucket, line, bucket, image):
    other = images.esp32("2.0.0", fill=7)
    service = in_bucket()
    for version, bytes_ in (("1.2.0", image), ("1.2.1", image), ("2.0.0", other)):
        service.release(bytes_, version)
    # Just stored: another service may be about to use it.
    line.seen.clear()
    service.ok("DELETE", "/api/admin/firmware/releases/2.0.0")
    wait_for(lambda: line.count("HEAD", other), "the keeper to look")
    assert service.firmware_files() == [file_name(image)]
    line.old = True
    line.seen.clear()
    service.ok("DELETE", "/api/admin/firmware/releases/1.2.0")  # 1.2.1 has the same bytes
    service.ok("DELETE", "/api/admin/firmware/releases/1.2.1")
    wait_for(lambda: bucket.has(image) is None, "the object to be removed")
    assert line.count("DELETE", other) == 0 and bucket.has(other) == other
    assert service.firmware_files() == []


def test_a_release_that_shares_its_bytes_keeps_them(in_bucket, line, bucket, image):
    line.old = True
    last = images.esp32("3.0.0", fill=9)
    service = in_bucket()
    service.release(image, "1.2.0")
    service.release(image, "1.2.1")
    service.release(last, "3.0.0")
    service.ok("DELETE", "/api/admin/firmware/releases/1.2.0")
    service.ok("DELETE", "/api/admin/firmware/releases/3.0.0")
    wait_for(lambda: bucket.has(last) is None, "what came later to be removed")
    assert bucket.has(image) == image
    assert download(service, "1.2.1").content == image


def test_secrets_come_from_files(in_bucket, tmp_path, bucket, image):
    (tmp_path / "secret").write_text(s3.SECRET + "\n")
    service = in_bucket(start=False)
    del service.extra["OTA_S3_SECRET_KEY"]
    service.extra["OTA_S3_SECRET_KEY_FILE"] = tmp_path / "secret"
    service.start()
    assert "unknown_setting" not in service.log()
    service.release(image, "1.2.0")
    assert bucket.has(image) == image


def test_a_backup_has_what_only_the_bucket_has(in_bucket, line, image):
    service = in_bucket()
    service.release(image, "1.2.0")
    empty_cache(service)
    assert "image_missing" not in service.log()
    with tarfile.open(fileobj=io.BytesIO(service.get("/api/admin/backup").content)) as tar:
        assert tar.extractfile("firmware/" + file_name(image)).read() == image
    empty_cache(service)
    line.fault = 503
    refused(service.get("/api/admin/backup"), "SlowDown")


def test_a_backup_keeps_what_it_sends_in_the_folder(in_bucket):
    big = [images.big(4 << 20) for _ in range(4)]
    service = in_bucket(OTA_CACHE_BYTES=5 << 20, OTA_MAX_FIRMWARE_BYTES=5 << 20)
    for i in range(3):
        service.release(big[i], "%d" % i, "pi")
    with service.get("/api/admin/backup", stream=True) as slow:
        first = slow.raw.read(1000)
        service.release(big[3], "3", "pi")
        assert set(service.firmware_files()) >= {file_name(b) for b in big[:3]}
        whole = first + slow.raw.read()
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        for image in big[:3]:
            assert tar.extractfile("firmware/" + file_name(image)).read() == image
    wait_for(lambda: len(service.firmware_files()) == 1, "the folder to be within its bound")


def test_what_is_restored_goes_into_the_bucket(services, server, bucket, line, tmp_path, image):
    old = services("old", env=line.environment(bucket.name))
    old.release(image, "1.2.0")
    (tmp_path / "backup.tar").write_bytes(old.get("/api/admin/backup").content)
    empty = server.bucket(bucket.name + "-new")
    new = services("new", start=False, env=line.environment(empty.name))
    done = new.run("--restore", str(tmp_path / "backup.tar"))
    assert done.returncode == 0, done.stderr
    new.start()
    wait_for(lambda: empty.has(image) == image, "the image to be copied")


def test_doctor_looks_at_it(in_bucket, line, image):
    service = in_bucket()
    service.release(image, "1.2.0")
    empty_cache(service)
    works(service)

    def findings():
        return {f["check"]: f["level"] for f in service.ok("GET", "/api/admin/doctor")["checks"]}
    assert findings()["bucket"] == "ok" and findings()["images"] == "ok"
    line.ahead_s = 100
    assert findings()["bucket"] == "warning"
    line.ahead_s = 0
    line.fault = 503
    assert findings()["bucket"] == "problem" and findings()["images"] == "warning"


@pytest.mark.parametrize("env, words", [
    ({"OTA_S3_BUCKET": ""}, "OTA_S3_BUCKET is not set"),
    ({"OTA_S3_SECRET_KEY": ""}, "OTA_S3_SECRET_KEY is not set"),
    ({"OTA_S3_ENDPOINT": "s3.example.org"}, "OTA_S3_ENDPOINT is 's3.example.org'"),
    ({"OTA_S3_ENDPOINT": "http://s3.example.org/path"}, "OTA_S3_ENDPOINT is"),
    ({"OTA_S3_BUCKET": "No/Bucket"}, "OTA_S3_BUCKET is"),
    ({"OTA_S3_REGION": "a b"}, "OTA_S3_REGION is"),
    ({"OTA_CACHE_BYTES": "1M"}, "OTA_CACHE_BYTES is"),
    ({"OTA_S3_SECRET_KEY_FILE": "/nowhere"}, "both OTA_S3_SECRET_KEY and OTA_S3_SECRET_KEY_FILE"),
    ({"OTA_S3_SECRET_KEY": "", "OTA_S3_SECRET_KEY_FILE": "/nowhere"}, "OTA_S3_SECRET_KEY_FILE names /nowhere"),
    ({"OTA_S3_SECRET_KEY": "", "OTA_S3_SECRET_KEY_FILE": "/"}, "OTA_S3_SECRET_KEY_FILE names /, which cannot be read"),
    ({"OTA_S3_SECRET_KEY": "", "OTA_S3_SECRET_KEY_FILE": "/dev/null"}, "whose first line is empty"),
])
def test_settings_that_make_no_sense_stop_the_start(in_bucket, env, words):
    ended = in_bucket(start=False, **env).run()
    assert ended.returncode == 2 and words in ended.stderr
