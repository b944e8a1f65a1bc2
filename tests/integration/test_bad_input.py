# SPDX-License-Identifier: MIT
"""What no client should send: each gets a clear error, and nothing is half done."""
import json
import socket
from urllib.parse import quote

import pytest

import images

REPORT = "/api/device/d1/update-status"
GOOD = {"device_id": "d1", "firmware_version": "1.0.0", "status": "failed"}


def untouched(service):
    for name in ("devices", "updates", "rollouts", "releases", "events"):
        assert service.list(name) == []
    assert service.firmware_files() == []
    assert service.get("/health").status_code == 200


def clear(answer, *statuses):
    assert answer.status_code in statuses, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    detail = answer.json()["detail"]
    assert detail and (isinstance(detail, str) or
                       all(d["loc"] and d["msg"] and d["type"] for d in detail))
    return answer


def with_text(**changes):
    return json.dumps({**GOOD, **changes})


BODIES = {
    "nothing": "", "white space": "  \n", "a word": "hello", "cut off": with_text()[:-5],
    "two": with_text() + with_text(), "a list": "[1,2]", "a string": '"x"', "a number": "5",
    "null": "null", "single quotes": with_text().replace('"', "'"), "a comma": '{"a":1,}',
    "a comment": "{} // x", "100 levels": '{"x":' + "[" * 100 + "]" * 100 + "," + with_text()[1:],
    "100000 levels": "[" * 100000, "deep objects": '{"a":' * 200 + "1" + "}" * 200,
    "a NUL inside": with_text(error_message="a").replace('"a"', '"a\\u0000b"'),
    "a raw NUL": with_text().replace("d1", "d1\0"),
    "a NUL behind": with_text() + "\0",
    "duplicate keys": '{"device_id":"d1","status":"failed","status":"success",'
                      '"firmware_version":"1"}',
    "percent as a string": with_text(progress_percent="50"),
    "percent 101": with_text(progress_percent=101),
    "percent 1e400": with_text(progress_percent=1).replace(" 1,", " 1e400,").replace(
        ": 1}", ": 1e400}"),
    "percent NaN": with_text(progress_percent=float("nan")),
    "percent of 400 digits": with_text(progress_percent=10 ** 400),
    "a lone surrogate": with_text(error_message="x").replace('"x"', '"\\ud800"'),
    "status of 1 MB": with_text(status="x" * 900000),
    "an emoji as version": with_text(firmware_version="\U0001f600"),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_that_are_no_report(service, name):
    clear(service.post(REPORT, data=BODIES[name].encode("utf-8", "surrogatepass")), 400, 422)
    untouched(service)


@pytest.mark.parametrize("name", ["invalid UTF-8", "UTF-16", "latin 1"])
def test_bodies_in_other_encodings(service, name):
    text = with_text(error_message="ä").replace("\\u00e4", "ä")
    data = {"invalid UTF-8": text.encode().replace(b"\xc3\xa4", b"\xc3\x28"),
            "UTF-16": text.encode("utf-16"), "latin 1": text.encode("latin-1")}[name]
    clear(service.post(REPORT, data=data), 400, 422)
    untouched(service)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_2_mib(service, chunked):
    data = with_text(error_message="x" * (2 << 20)).encode()
    body = (data[at:at + 65536] for at in range(0, len(data), 65536)) if chunked else data
    clear(service.post(REPORT, data=body), 413)
    untouched(service)


def test_a_body_of_just_under_1_mib_is_taken(service):
    assert service.post(REPORT, data=with_text(error_message="x" * 1000000)).status_code == 200


def test_a_body_cut_off(service):
    for keep in (0, 10, 40):
        with service.connect() as s:
            s.sendall(b"POST " + REPORT.encode() + b" HTTP/1.1\r\nHost: x\r\n"
                      b"Content-Length: 60\r\n\r\n" + with_text().encode()[:keep])
    untouched(service)


IDS = ["a/b", "..", ".", "%00", "a%00b", "'", "%E2%82%AC", "x" * 10000, "%F0%9F%98%80", "a%20b",
       "a+b", "a%2Fb", "%23", "a%0Ab", "..%2F..%2Fetc", "%", "%zz", "%c3%28", "%7F", "a%2Bb"]


@pytest.mark.parametrize("one", IDS)
def test_ids_in_the_path(service, one):
    """Each is refused, or (a quote) a fine id that nobody has."""
    get = service.raw(("GET /api/admin/devices/%s HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\n"
                       "Connection: close\r\n\r\n" % (one, service.key)).encode())
    assert get.status in (400, 404, 422), get.body
    assert get.json()["detail"]
    if one in ("'", "a/b"):
        return
    post = service.raw(("POST /api/device/%s/update-status HTTP/1.1\r\nHost: x\r\n"
                        "Content-Length: 2\r\nConnection: close\r\n\r\n{}" % one).encode())
    assert post.status in (400, 404, 422), post.body
    assert post.json()["detail"]
    untouched(service)


def test_an_error_about_an_id_says_what_an_id_may_be(service):
    answer = clear(service.get("/api/admin/devices/" + quote("a b")), 422)
    assert "'/'" in answer.text or "printable ASCII" in answer.text
    answer = clear(service.get("/api/admin/devices/" + "x" * 500), 422)
    assert "128" in answer.text


def test_sql_is_only_text(service):
    for text in ("'; DROP TABLE devices; --", "' OR '1'='1", "\\", "%", "_"):
        text = quote(text)
        assert service.ok("GET", "/api/admin/devices?device_model=" + text)["devices"] == []
        assert service.ok("GET", "/api/admin/update-status?device_id=" + text)["updates"] == []
    service.check("x';DROP-TABLE-devices;--")
    assert len(service.list("devices")) == 1


GARBAGE = [
    b"\r\n\r\n", b"hello\r\n\r\n", b"GET\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), bytes(range(256)) * 10,
    b"GET / HTTP/1.1\r\nHost x\r\n\r\n", b"GET / HTTP/1.1\r\n" + b": x\r\n" * 10 + b"\r\n",
    b"GET /%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"POST /api/device/d/update-status HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"POST /api/device/d/update-status HTTP/1.1\r\nHost: x\r\nContent-Length: 5x\r\n\r\n12345",
    b"POST /api/device/d/update-status HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999"
    b"\r\n\r\n", b"POST /api/device/d/update-status HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
    b"chunked\r\n\r\nzz\r\n", b"POST /api/device/d/update-status HTTP/1.1\r\nHost: x\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\nx",
    b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 60000 + b"\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X-%d: y\r\n" * 5000 + b"\r\n",
    b"GET /" + b"a" * 30000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"A" * (1 << 20),
]


@pytest.mark.parametrize("number", range(len(GARBAGE)))
def test_garbage_is_refused_and_forgotten(services, number):
    # Idle long enough that a busy machine does not lose the connection that looks afterwards.
    service = services(env={"OTA_REQUEST_TIMEOUT_S": 1, "OTA_IDLE_TIMEOUT_S": 60})
    with service.connect(10) as s:
        try:
            s.sendall(GARBAGE[number])
            s.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        try:
            got = s.recv(4096)
        except OSError:
            got = b""
    assert got == b"" or got.startswith(b"HTTP/1.") and got.split(b" ")[1][:1] in b"45", got
    untouched(service)


def test_a_request_line_of_1_mib_is_414(service):
    answer = service.raw(b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer is None or answer.status in (414, 431, 400)


def test_headers_of_15_kib_are_taken(service):
    head = b"".join(b"X-%d: %s\r\n" % (i, b"y" * 1000) for i in range(15))
    answer = service.raw(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + head +
                         b"\r\n")
    assert answer.status == 200


def test_headers_beyond_16_kib_are_431(service):
    head = b"".join(b"X-%d: %s\r\n" % (i, b"y" * 1000) for i in range(25))
    answer = service.raw(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + head +
                         b"\r\n")
    assert answer is None or answer.status == 431


def test_many_parameters(services):
    service = services(env={"OTA_REQUEST_TIMEOUT_S": 1})
    query = "&".join("p%d=1" % i for i in range(100))
    clear(service.get("/api/admin/devices?" + query), 400, 422)
    # More than the library has room for: it refuses, or never gets to it and the watch cuts.
    answer = service.raw(b"GET /health?" + b"a=b&" * 3000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer is None or answer.status in (414, 431)


def test_the_same_parameter_twice(service):
    answer = service.session.get(service.url + "/api/firmware/check?device_id=a&device_id=b"
                                 "&device_model=m&current_version=1")
    detail, = clear(answer, 422).json()["detail"]
    assert detail["loc"] == ["query", "device_id"] and "twice" in detail["msg"]
    untouched(service)


@pytest.mark.parametrize("value,says", [("a%00b", "%00"), ("a%zzb", "%zz"), ("%FF", "UTF-8")])
def test_a_parameter_that_cannot_be_read_is_named(service, value, says):
    for target, loc in (("/api/firmware/check?current_version=1&device_model=m&device_id=" + value,
                         ["query", "device_id"]),
                        ("/api/admin/devices/" + value, ["path"])):
        answer = service.raw(("GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                              % target).encode())
        detail, = answer.json()["detail"]
        assert answer.status == 422 and detail["loc"] == loc and says in detail["msg"]
    untouched(service)


def test_wrong_files_again_and_again_leave_no_file(service):
    for content in (b"", b"<html>", images.esp32("1.0.0")[:-1], bytes(5000)):
        for _ in range(5):
            clear(service.upload(content, "1.0.0"), 422)
    untouched(service)
