# SPDX-License-Identifier: MIT
"""Downloads under a cap: the network's share is kept, and nothing else is slowed."""
import hashlib
import socket
import threading
import time

import pytest

import images

MIB = 1024 * 1024
VERSION, MODEL = "1.0.0", "box"
URL = "/api/firmware/download/" + VERSION


def capped(services, size, cap, **env):
    image = images.big(size)
    service = services(env={"OTA_DOWNLOAD_BYTES_PER_S": cap, "OTA_IMAGE_CACHE_BYTES": "64M", **env})
    service.release(image, VERSION, MODEL, image_type="raw")
    return service, image


def connect(service):
    """With packets as an Ethernet has them: the kernel lets the first ten go at once."""
    s = socket.socket()
    s.settimeout(60)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1448)
    s.connect(("127.0.0.1", service.port))
    return s


class Download(threading.Thread):
    """One download on a connection of its own; `done` when its last byte came."""

    def __init__(self, service, headers=b"", keep=False):
        super().__init__(daemon=True)
        self.service, self.headers, self.keep = service, headers, keep
        self.begun, self.done, self.got = time.monotonic(), None, 0
        self.hash = hashlib.sha256()
        self.sock = connect(service)
        self.start()

    def run(self):
        self.sock.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (URL.encode(), self.headers))
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.sock.recv(1)
        self.length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while self.got < self.length:
            data = self.sock.recv(65536)
            assert data, "the service closed the connection"
            self.got += len(data)
            self.hash.update(data)
        self.done = time.monotonic()
        if not self.keep:
            self.sock.close()

    def seconds(self):
        self.join(60)
        assert self.done, "the download did not end"
        return self.done - self.begun


@pytest.mark.parametrize("cache", ["64M", "0"], ids=["from memory", "from the disk"])
def test_two_share_the_cap(services, cache):
    service, image = capped(services, 4 * MIB, "1M", OTA_IMAGE_CACHE_BYTES=cache)
    both = [Download(service), Download(service)]
    took = [d.seconds() for d in both]
    # 8 MiB at 1 MiB/s, by both at the same pace.
    assert 4.8 < max(took) < 30, took
    assert min(took) > 0.6 * max(took), took
    for d in both:
        assert d.hash.digest() == hashlib.sha256(image).digest()


def test_nothing_else_is_slowed(services):
    service, _ = capped(services, 4 * MIB, "1M")
    service.rollout(VERSION, MODEL)
    both = [Download(service), Download(service)]
    for i in range(50):
        service.check("dev-%d" % i, model=MODEL)
        service.list("devices")
    assert not both[0].done and not both[1].done, "the downloads were not under way meanwhile"
    for d in both:
        d.seconds()


def test_who_is_left_gets_more(services):
    service, _ = capped(services, 3 * MIB, "1M")
    long = Download(service)
    short = Download(service, b"Range: bytes=0-1048575\r\n")
    # 1 MiB each in 2 s, then the other 2 MiB at the whole pace.
    begun = short.begun
    short.join(60)
    had = long.got
    whole = long.seconds()
    shared_pace = had / (short.done - begun)
    pace_alone = (long.length - had) / (long.done - short.done)
    assert whole > 2.4 and pace_alone > 1.4 * shared_pace, (whole, pace_alone, shared_pace)


def test_who_gives_up_leaves_its_share(services):
    service, _ = capped(services, 2 * MIB, "1M")
    others = [connect(service) for _ in range(9)]
    for s in others:
        s.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % URL.encode())
        assert s.recv(1)
    one = Download(service)
    time.sleep(0.2)
    for s in others:
        s.close()
    assert one.seconds() < 15  # not the twenty seconds of a tenth of the cap


def test_a_connection_that_is_kept_is_fast_again(services):
    service, _ = capped(services, 64 * 1024, "64K")
    for i in range(1000):
        service.check("device-with-a-rather-long-name-%04d" % i, model=MODEL)
    d = Download(service, keep=True)
    assert d.seconds() > 0.6
    begun, got = time.monotonic(), 0
    d.sock.sendall(b"GET /api/admin/devices?limit=1000 HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\n"
                   b"Connection: close\r\n\r\n" % service.key.encode())
    while data := d.sock.recv(65536):
        got += len(data)
    d.sock.close()
    # At the download's pace it would take more than four.
    assert got > 256 * 1024 and time.monotonic() - begun < 3.5, (got, time.monotonic() - begun)


def test_a_low_cap_is_kept_too(services):
    service, _ = capped(services, 192 * 1024, "64K")
    assert 1.8 < Download(service).seconds() < 30


def test_without_a_cap_it_is_fast(services):
    service, _ = capped(services, 16 * MIB, "0")
    assert Download(service).seconds() < 15


@pytest.mark.parametrize("value,word", [("1", "at least 1024"), ("1023", "at least 1024"),
                                        ("-1", "OTA_DOWNLOAD_BYTES_PER_S"),
                                        ("fast", "OTA_DOWNLOAD_BYTES_PER_S")])
def test_values_that_make_no_sense(services, value, word):
    run = services(start=False).run(env={"OTA_DOWNLOAD_BYTES_PER_S": value})
    assert run.returncode == 2 and word in run.stderr
