# SPDX-License-Identifier: MIT
"""Slow, many and greedy clients cannot hold the service."""
import glob
import resource
import signal
import socket
import threading
import time

import pytest

import images
from service import Service, raise_file_limit, wait_for

IDLE = 10000
ROOM = 16  # commands that may wait for the committer


def cut(sock, timeout=15):
    """Seconds until the service closes the connection; None: it did not."""
    begun = time.monotonic()
    sock.settimeout(timeout)
    try:
        while sock.recv(4096):
            pass
    except socket.timeout:
        return None
    except OSError:
        pass
    return time.monotonic() - begun


def drip(service, first, byte, every_s):
    """Sends FIRST, then BYTE again and again; the seconds until the connection is closed."""
    begun = time.monotonic()
    with service.connect() as s:
        s.sendall(first)
        s.settimeout(every_s)
        while time.monotonic() - begun < 15:
            try:
                s.sendall(byte)
                if not s.recv(4096):
                    return time.monotonic() - begun
            except socket.timeout:
                continue
            except OSError:
                return time.monotonic() - begun
    return None


SLOW = {
    "headers": b"GET /health HTTP/1.1\r\nHost: x\r\nX: ",
    "a JSON body": b"POST /api/device/d/update-status HTTP/1.1\r\nHost: x\r\n"
                   b"Content-Length: 100000\r\n\r\n",
    "an upload": b"POST /api/admin/firmware/upload?version=1&device_model=pi HTTP/1.1\r\nHost: x\r\n"
                 b"X-API-Key: a-test-key\r\nContent-Type: multipart/form-data; boundary=b\r\n"
                 b"Content-Length: 60000000\r\n\r\n--b\r\nContent-Disposition: form-data; "
                 b"name=\"file\"; filename=\"f\"\r\n\r\n",
    "an upload in chunks": b"POST /api/admin/firmware/upload?version=1&device_model=pi HTTP/1.1\r\n"
                           b"Host: x\r\nX-API-Key: a-test-key\r\nContent-Type: multipart/form-data;"
                           b" boundary=b\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n--b\r\n",
    "the request line": b"GET /heal",
}


@pytest.mark.parametrize("name", SLOW)
def test_a_slow_sender_is_cut(services, name):
    service = services(env={"OTA_REQUEST_TIMEOUT_S": 2, "OTA_IDLE_TIMEOUT_S": 2})
    service.session.close()  # its connection is idle as well
    took = drip(service, SLOW[name], b"x", 0.2)
    assert took is not None and took < 20
    wait_for(lambda: service.firmware_files() == [], "the upload's file to go")
    assert service.get("/health").status_code == 200


def test_an_upload_that_pauses_is_cut(services):
    service = services(env={"OTA_REQUEST_TIMEOUT_S": 2})
    with service.connect() as s:
        s.sendall(SLOW["an upload"] + bytes(4 << 20))  # has earned an hour at 1 KiB/s
        took = cut(s)
    assert took is not None and took < 20


def test_an_upload_that_is_slow_but_goes_on_is_taken(services):
    service = services(env={"OTA_REQUEST_TIMEOUT_S": 1})
    image = images.big(40000)
    body = (b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n" + image +
            b"\r\n--b--\r\n")

    def pieces():  # three times as long as a request may take
        for at in range(0, len(body), len(body) // 15 + 1):
            time.sleep(0.2)
            yield body[at:at + len(body) // 15 + 1]

    answer = service.post("/api/admin/firmware/upload?version=1&device_model=pi", data=pieces(),
                          headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.status_code == 200, answer.text


def test_an_idle_connection_is_closed(services):
    service = services(env={"OTA_IDLE_TIMEOUT_S": 1})
    with service.connect() as fresh, service.connect() as used:
        used.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert used.recv(4096).startswith(b"HTTP/1.1 200")
        for s in (fresh, used):
            took = cut(s)
            assert took is not None and took < 20


def test_ten_thousand_idle_connections(services):
    limit = raise_file_limit(IDLE + 500)
    assert limit >= IDLE + 500, "this process may open %d files only" % limit
    service = services(env={"OTA_IDLE_TIMEOUT_S": 600})
    held = []
    try:
        for i in range(IDLE):
            held.append(service.connect(source="127.0.0.%d" % (2 + i // 5000)))
        wait_for(lambda: service.ok("GET", "/metrics")["http_connections"] >= IDLE,
                 "all to be accepted")
        begun = time.monotonic()
        for i in range(100):
            service.check("d%d" % (i % 10))
        assert time.monotonic() - begun < 10
        assert service.session.get(service.url + "/health").status_code == 200
        # None of them was closed for the others' sake.
        held[0].sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert held[0].recv(4096).startswith(b"HTTP/1.1 200")
    finally:
        for s in held:
            s.close()
    wait_for(lambda: service.ok("GET", "/metrics")["http_connections"] < 100, "them to go")


def test_beyond_the_limit_idle_connections_make_room(services):
    service = services(env={"OTA_MAX_CONNECTIONS": 64, "OTA_IDLE_TIMEOUT_S": 600,
                            "OTA_HTTP_THREADS": 2})
    held = [service.connect() for _ in range(80)]
    try:
        def answers():
            try:
                with service.connect(2) as s:
                    s.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    return s.recv(4096).startswith(b"HTTP/1.1 200")
            except OSError:
                return False

        wait_for(answers, "an answer in spite of the crowd")
    finally:
        for s in held:
            s.close()


def is_stopped(service):
    states = []
    for path in glob.glob("/proc/%d/task/*/stat" % service.process.pid):
        with open(path, encoding="ascii") as stat:
            states.append(stat.read().rpartition(") ")[2][0])
    return set(states) == {"T"}


@pytest.mark.parametrize("count", [128, 256])
def test_requests_that_come_at_the_same_moment_are_all_answered(services, count):
    """The library takes 128 events at a time: that there are no more is no reason to wait."""
    service = services(env={"OTA_HTTP_THREADS": 1, "OTA_IDLE_TIMEOUT_S": 3600})
    question = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    held = [service.connect(60) for _ in range(count)]
    try:
        for s in held:
            s.sendall(question)
            assert s.recv(4096).startswith(b"HTTP/1.1 200")
        service.signal(signal.SIGSTOP)
        wait_for(lambda: is_stopped(service), "its threads to stand")
        for s in held:
            s.sendall(question)
        service.signal(signal.SIGCONT)
        for s in held:
            assert s.recv(4096).startswith(b"HTTP/1.1 200")
    finally:
        for s in held:
            s.close()


def test_what_the_committer_has_no_room_for_is_refused(services):
    """Of requests that come at the same moment, and so are handed over together, as of any."""
    service = services(env={"OTA_HTTP_THREADS": 1, "OTA_MAX_QUEUE": ROOM,
                            "OTA_IDLE_TIMEOUT_S": 3600})
    held = [service.connect(60) for _ in range(3 * ROOM)]
    try:
        for s in held:
            s.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert s.recv(4096).startswith(b"HTTP/1.1 200")
        service.signal(signal.SIGSTOP)
        wait_for(lambda: is_stopped(service), "its threads to stand")
        for i, s in enumerate(held):
            s.sendall(b"GET /api/firmware/check?device_id=q%d&device_model=esp32&current_version=1"
                      b" HTTP/1.1\r\nHost: x\r\n\r\n" % i)
        service.signal(signal.SIGCONT)
        answers = [s.recv(4096) for s in held]
    finally:
        for s in held:
            s.close()
    taken = {"q%d" % i for i, a in enumerate(answers) if a.startswith(b"HTTP/1.1 200")}
    refused = [a for a in answers if a.startswith(b"HTTP/1.1 503")]
    assert len(taken) >= ROOM and refused and len(taken) + len(refused) == len(held)
    assert all(b"Retry-After" in a and b"too much to do" in a for a in refused)
    assert {d["device_id"] for d in service.ok("GET", "/api/admin/devices")["devices"]} == taken


def test_fewer_files_than_connections_is_told(services):
    service = services(start=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    service.program, service.args = "/bin/sh", [
        "-c", "ulimit -n 400; exec \"$0\" \"$@\"", service.program]
    service.start()
    assert "fewer_connections" in service.log()


def hold_requests(service, count, headers=b""):
    """Requests whose bodies never end, each of them admitted: the service has asked for the body."""
    held = []
    for i in range(count):
        s = service.connect()
        s.sendall(b"POST /api/device/d%d/update-status HTTP/1.1\r\nHost: x\r\n%s"
                  b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n" % (i, headers))
        assert s.recv(4096).startswith(b"HTTP/1.1 100 ")
        s.sendall(b"{")
        held.append(s)
    return held


def ask(service, **headers):
    return service.session.get(service.url + "/health", timeout=10, headers={
        k.replace("_", "-"): v for k, v in headers.items()})


def test_requests_at_a_time_from_one_address(services):
    service = services(env={"OTA_MAX_CONNECTIONS_PER_ADDRESS": 3})
    held = hold_requests(service, 3)
    wait_for(lambda: ask(service).status_code == 503, "the limit")
    answer = ask(service)
    assert answer.json()["detail"] and int(answer.headers["Retry-After"]) > 0
    # Another address is not touched; nor does a header nobody vouches for help.
    with service.connect(source="127.0.0.9") as s:
        s.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert s.recv(1000).startswith(b"HTTP/1.1 200")
    assert ask(service, X_Forwarded_For="10.0.0.1").status_code == 503
    for s in held:
        s.close()
    wait_for(lambda: ask(service).status_code == 200, "the limit to be free again")


def test_behind_a_trusted_proxy_the_client_counts(services):
    service = services(env={"OTA_MAX_CONNECTIONS_PER_ADDRESS": 2,
                            "OTA_TRUSTED_PROXIES": "10.9.9.9, 127.0.0.1"})
    held = hold_requests(service, 2, b"X-Forwarded-For: 8.8.8.8\r\n")
    wait_for(lambda: ask(service, X_Forwarded_For="8.8.8.8").status_code == 503, "the limit")
    # The last that is no proxy of ours is believed, what stands before it is anybody's word.
    assert ask(service, X_Forwarded_For="1.1.1.1, 8.8.8.8, 10.9.9.9").status_code == 503
    assert ask(service, X_Forwarded_For="8.8.8.8, 9.9.9.9").status_code == 200
    assert ask(service).status_code == 200
    # Some proxies add a line of their own: what the client sent before it does not hide the client.
    answer = service.raw(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.1.1.1\r\n"
                         b"X-Forwarded-For: 8.8.8.8\r\nConnection: close\r\n\r\n")
    assert answer.status == 503
    for s in held:
        s.close()


def test_new_devices_per_second(services):
    service = services(env={"OTA_NEW_DEVICES_PER_SECOND": 5})
    codes = []
    for i in range(40):
        answer = service.session.get(service.url + "/api/firmware/check", params={
            "device_id": "d%d" % i, "device_model": "m", "current_version": "1"})
        codes.append(answer.status_code)
        if answer.status_code == 503:
            assert int(answer.headers["Retry-After"]) > 0 and answer.json()["detail"]
    assert set(codes) == {200, 503} and codes[:5] == [200] * 5
    assert len(service.list("devices")) == codes.count(200)
    # Those that are known are served all the same.
    assert service.check("d0")["update_available"] is False
    # And the others when they come again.
    wait_for(lambda: service.session.get(service.url + "/api/firmware/check", params={
        "device_id": "d39", "device_model": "m", "current_version": "1"}).status_code == 200,
        "room for one more", every_s=0.2)


def test_devices_in_all(services):
    service = services(env={"OTA_MAX_DEVICES": 3})
    for i in range(3):
        service.check("d%d" % i)
    answer = service.session.get(service.url + "/api/firmware/check", params={
        "device_id": "d3", "device_model": "m", "current_version": "1"})
    assert answer.status_code in (429, 503) and "OTA_MAX_DEVICES" in answer.json()["detail"]
    service.check("d1", "1.1.0")
    service.ok("DELETE", "/api/admin/devices/d0")
    service.check("d3")
    assert len(service.list("devices")) == 3


def test_many_at_once(service):
    """Checks, reports, lists and downloads from many threads; every answer is right."""
    service.release(images.esp32("1.2.0", size=100000), "1.2.0")
    service.rollout("1.2.0")
    wrong = []

    def one(number):
        try:
            own = Service.__new__(Service)
            own.__dict__ = dict(service.__dict__)
            import requests
            own.session = requests.Session()
            own.session.trust_env = False
            for i in range(6):
                device = "t%d-%d" % (number, i)
                offer = own.check(device)
                assert offer["update_available"]
                assert len(own.session.get(offer["download_url"]).content) > 100000
                own.report(device, "1.2.0", "installing")
                own.report(device, "1.2.0", "success")
                assert not own.check(device, "1.2.0")["update_available"]
                own.list("updates", limit=5)
        except Exception as e:  # told below, on the test's own thread
            wrong.append(e)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong, wrong[0]
    counts = service.ok("GET", "/api/admin/rollouts/1")
    assert counts["counts"]["success"] == 96 and counts["on_version"] == 96


def test_the_same_upload_from_many_at_once(service):
    image = images.esp32("1.2.0", size=50000)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(__import__("requests").post(
        service.url + "/api/admin/firmware/upload?version=1.2.0&device_model=esp32",
        files={"file": ("f", image)}, headers={"X-API-Key": service.key}))) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert {a.status_code for a in answers} == {200}
    assert len({a.json()["release_id"] for a in answers}) == 1
    assert len(service.list("releases")) == 1
    wait_for(lambda: len(service.firmware_files()) == 1, "one file")
    assert service.session.get(service.url + "/api/firmware/download/1.2.0").content == image
