# SPDX-License-Identifier: MIT
"""How the service speaks HTTP, whatever is asked."""
import json

import pytest

import images


def test_unknown_paths_are_404_in_json(service):
    for path in ("/", "/api", "/api/admin", "/api/admin/nothing", "/healthz", "/api/firmware",
                 "/api/admin/devices/a/b/c", "//health", "/health/"):
        answer = service.get(path)
        assert answer.status_code == 404, path
        assert isinstance(answer.json()["detail"], str)
        assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("method,path,allow", [
    ("POST", "/health", {"GET", "HEAD"}),
    ("DELETE", "/api/firmware/check", {"GET", "HEAD"}),
    ("GET", "/api/admin/rollout/create", {"POST"}),
    ("PUT", "/api/admin/devices/x", {"GET", "HEAD", "DELETE"}),
    ("GET", "/api/admin/devices/x/groups", {"PUT", "DELETE"}),
    ("GET", "/api/device/x/update-status", {"POST"}),
    ("BREW", "/health", {"GET", "HEAD"}),
])
def test_a_wrong_method_is_405_with_allow(service, method, path, allow):
    answer = service.request(method, path)
    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == allow
    assert isinstance(answer.json()["detail"], str)


def test_head_works_wherever_get_does(service):
    for path in ("/health", "/metrics", "/api/admin/devices"):
        get, head = service.get(path), service.request("HEAD", path)
        assert head.status_code == 200 and head.content == b""
        assert head.headers["Content-Type"] == get.headers["Content-Type"]


def test_request_ids_are_given_echoed_and_logged(services):
    service = services(env={"OTA_LOG_LEVEL": "debug"})
    one = service.get("/health").headers["X-Request-Id"]
    two = service.get("/nothing").headers["X-Request-Id"]
    assert one and two and one != two
    answer = service.get("/health", headers={"X-Request-Id": "ci-run-42"})
    assert answer.headers["X-Request-Id"] == "ci-run-42"
    assert "request/ci-run-42" in service.log() and one in service.log()
    for odd in ("a b", "x" * 500, 'a"b'):
        given = service.get("/health", headers={"X-Request-Id": odd}).headers["X-Request-Id"]
        assert given and given != odd


def test_json_logs(services):
    service = services(args=["--log-format", "json"], start=False)
    service.spawn()
    from service import wait_for
    wait_for(lambda: '"started"' in service.log(), "the start")
    service.signal()
    service.wait()
    lines = [json.loads(line) for line in service.log().splitlines()]
    assert {"time", "level", "subject", "event", "text"} <= set(lines[0])


WRONG_KEYS = [
    {}, {"X-API-Key": ""}, {"X-API-Key": "wrong"}, {"X-API-Key": "a-test key"},
    {"X-API-Key": "A-TEST-KEY"}, {"X-API-Key": "a-test-ke"}, {"X-API-Key": "a-test-keyx"},
    {"Authorization": "Bearer a-test-key"}, {"API-Key": "a-test-key"},
    {"Cookie": "X-API-Key=a-test-key"}, {"X-API-Key": "x" * 9000},
]
ADMIN = [("GET", "/api/admin/devices"), ("GET", "/api/admin/firmware/releases"),
         ("GET", "/api/admin/update-status"), ("GET", "/api/admin/events"),
         ("GET", "/api/admin/rollouts"), ("POST", "/api/admin/rollout/create"),
         ("POST", "/api/admin/firmware/upload"), ("POST", "/api/admin/rollout/1/deactivate"),
         ("DELETE", "/api/admin/devices/x"), ("PUT", "/api/admin/devices/x/label"),
         ("POST", "/api/admin/devices/import"), ("DELETE", "/api/admin/firmware/releases/1")]


@pytest.mark.parametrize("method,path", ADMIN)
def test_no_admin_call_without_the_key(service, method, path):
    for headers in WRONG_KEYS[:4] if path != ADMIN[0][1] else WRONG_KEYS:
        answer = service.session.request(method, service.url + path, headers=headers, timeout=30)
        assert answer.status_code == 401
        assert "X-API-Key" in answer.headers["WWW-Authenticate"]
        assert answer.json() == {"detail": "Invalid API key"}


def test_the_key_in_the_query_or_twice_is_no_key(service):
    answer = service.session.get(service.url + "/api/admin/devices?X-API-Key=" + service.key)
    assert answer.status_code == 401
    raw = ("GET /api/admin/devices HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nX-API-Key: %s\r\n"
           "Connection: close\r\n\r\n")
    assert service.raw((raw % (service.key, "other")).encode()).status == 401
    assert service.raw((raw % (service.key, service.key)).encode()).status == 401


def test_a_key_of_any_case_of_header(service):
    raw = "GET /api/admin/devices HTTP/1.1\r\nHost: x\r\nx-api-KEY: %s\r\nConnection: close\r\n\r\n"
    assert service.raw((raw % service.key).encode()).status == 200


def test_white_space_around_the_key_is_no_part_of_it(service):
    raw = "GET /api/admin/devices HTTP/1.1\r\nHost: x\r\nX-API-Key:%s\r\nConnection: close\r\n\r\n"
    for spelled in ("%s", "  %s  ", "\t%s\t", " %s \t "):
        assert service.raw((raw % (spelled % service.key)).encode()).status == 200, spelled


REPORT = {"device_id": "d1", "firmware_version": "1.0", "status": "downloading"}


def post_report(service, head, body):
    return service.raw(("POST /api/device/d1/update-status HTTP/1.1\r\nHost: x\r\n"
                        "Content-Type: application/json\r\nConnection: close\r\n" + head +
                        "\r\n").encode() + body)


def chunked(data, size):
    out = b""
    for at in range(0, len(data), size):
        part = data[at:at + size]
        out += b"%x\r\n%s\r\n" % (len(part), part)
    return out + b"0\r\n\r\n"


def test_bodies_in_chunks(service):
    body = json.dumps(REPORT).encode()
    for size in (1, 7, 10000):
        answer = post_report(service, "Transfer-Encoding: chunked\r\n", chunked(body, size))
        assert answer.status == 200 and answer.json()["status"] == "ok"
    upload = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + \
        images.esp32("1.0.0") + b"\r\n--b--\r\n"
    answer = service.raw(
        b"POST /api/admin/firmware/upload?version=1.0.0&device_model=esp32 HTTP/1.1\r\nHost: x\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n"
        b"Connection: close\r\nX-API-Key: " + service.key.encode() + b"\r\n\r\n" +
        chunked(upload, 333))
    assert answer.status == 200, answer.body


def test_expect_100_continue(service):
    body = json.dumps(REPORT).encode()
    with service.connect() as s:
        s.sendall(("POST /api/device/d1/update-status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                   "Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)).encode())
        interim = b""
        while b"\r\n\r\n" not in interim:
            interim += s.recv(1000)
        assert interim.startswith(b"HTTP/1.1 100")
        s.sendall(body)
        final = b""
        while chunk := s.recv(1000):
            final += chunk
    assert b" 200 " in final.split(b"\r\n")[0]


def test_raw_control_characters_in_json_strings(service):
    message = "flash\twrite\nfailed\x01\x1f"
    body = json.dumps(dict(REPORT, status="failed", error_message="@@")).replace("@@", message)
    assert post_report(service, "Content-Length: %d\r\n" % len(body), body.encode()).status == 200
    assert service.list("updates")[0]["error_message"] == message


def test_answers_have_a_length_and_are_never_chunked(service):
    service.release(images.esp32("1.0.0"), "1.0.0")
    for path in ("/health", "/metrics", "/nothing", "/api/admin/devices", "/api/firmware/check",
                 "/api/firmware/download/1.0.0", "/api/admin/firmware/releases"):
        answer = service.get(path)
        assert answer.headers["Content-Length"] == str(len(answer.content))
        assert "Transfer-Encoding" not in answer.headers


def test_a_connection_is_kept_for_many_requests(service):
    with service.connect() as s:
        for i in range(50):
            s.sendall(b"GET /api/firmware/check?device_id=d%d&device_model=m&current_version=1 "
                      b"HTTP/1.1\r\nHost: x\r\n\r\n" % (i % 5))
            head = b""
            while b"\r\n\r\n" not in head:
                head += s.recv(65536)
            head, _, body = head.partition(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            while len(body) < length:
                body += s.recv(65536)
            assert json.loads(body)["update_available"] is False


def test_requests_in_a_pipeline_are_answered_in_order(service):
    one = b"GET /api/firmware/check?device_id=d%d&device_model=m&current_version=%d HTTP/1.1\r\n" \
          b"Host: x\r\n%s\r\n"
    with service.connect() as s:
        s.sendall(b"".join(one % (i, i, b"Connection: close\r\n" if i == 9 else b"")
                           for i in range(10)))
        got = b""
        while chunk := s.recv(65536):
            got += chunk
    assert got.count(b"HTTP/1.1 200") == 10
    at = [got.index(b'"current_version":"%d"' % i) for i in range(10)]
    assert at == sorted(at)


def test_health(service):
    answer = service.session.get(service.url + "/health")
    body = answer.json()
    assert answer.status_code == 200
    assert body["status"] == "healthy" and body["store"] == "sqlite"
    assert isinstance(body["version"], str) and isinstance(body["uptime_s"], int)
