# SPDX-License-Identifier: MIT
"""Downloads, as the HTTP clients of microcontrollers ask for them."""
import hashlib

import pytest

import images

VERSION = "1.2.0"
URL = "/api/firmware/download/" + VERSION


@pytest.fixture(scope="module")
def bytes_():
    return images.esp32(VERSION, size=200000)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory, bytes_):
    from service import Service
    service = Service(tmp_path_factory.mktemp("download")).start()
    service.release(bytes_, VERSION)
    yield service
    service.stop()


def fetch(service, path=URL, method="GET", **headers):
    return service.session.request(method, service.url + path, timeout=30, headers={
        name.replace("_", "-"): value for name, value in headers.items()})


def test_the_whole_image(loaded, bytes_):
    answer = fetch(loaded)
    digest = hashlib.sha256(bytes_).hexdigest()
    assert answer.status_code == 200
    assert answer.content == bytes_
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Length"] == str(len(bytes_))
    assert answer.headers["X-Firmware-Version"] == VERSION
    assert answer.headers["X-Checksum-SHA256"] == digest
    assert answer.headers["ETag"].startswith('"') and answer.headers["ETag"].endswith('"')
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert "Transfer-Encoding" not in answer.headers


def test_head_tells_the_same_without_the_body(loaded, bytes_):
    whole, head = fetch(loaded), fetch(loaded, method="HEAD")
    assert head.status_code == 200 and head.content == b""
    for name in ("Content-Length", "Content-Type", "ETag", "X-Checksum-SHA256", "Accept-Ranges",
                 "X-Firmware-Version"):
        assert head.headers[name] == whole.headers[name]


@pytest.mark.parametrize("spec,first,last", [
    ("bytes=0-", 0, -1), ("bytes=0-0", 0, 0), ("bytes=100-199", 100, 199),
    ("bytes=-100", -100, -1), ("bytes=150000-", 150000, -1),
    ("bytes=0-99999999999", 0, -1),  # clamped
    ("bytes=5-9999999999999999999999999", 5, -1),  # as well
    ("bytes=-99999999999", 0, -1),
])
def test_one_range_is_206(loaded, bytes_, spec, first, last):
    size = len(bytes_)
    first, last = first % size, last % size
    answer = fetch(loaded, Range=spec)
    assert answer.status_code == 206
    assert answer.content == bytes_[first:last + 1]
    assert answer.headers["Content-Range"] == "bytes %d-%d/%d" % (first, last, size)
    assert answer.headers["Content-Length"] == str(last + 1 - first)


def test_esp_idf_asks_one_byte_too_many(loaded, bytes_):
    size = len(bytes_)
    answer = fetch(loaded, Range="bytes=1000-%d" % size)
    assert answer.status_code == 206 and answer.content == bytes_[1000:]
    assert answer.headers["Content-Range"] == "bytes 1000-%d/%d" % (size - 1, size)


@pytest.mark.parametrize("spec", ["bytes=%(size)d-", "bytes=-0", "bytes=9999999999999999999-",
                                  "bytes=99999999999999999999999-", "bytes=%(size)d-%(size)d",
                                  "bytes=5-2", "bytes=9999999-%(size)d"])
def test_a_range_of_nothing_is_416(loaded, bytes_, spec):
    answer = fetch(loaded, Range=spec % {"size": len(bytes_)})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == "bytes */%d" % len(bytes_)
    assert "%d bytes" % len(bytes_) in answer.json()["detail"]


@pytest.mark.parametrize("spec", ["bytes=a-b", "lines=1-2", "bytes=0-1,5-6", "bytes",
                                  "bytes=", "bytes=--1"])
def test_what_is_no_single_range_is_ignored(loaded, bytes_, spec):
    answer = fetch(loaded, Range=spec)
    assert answer.status_code == 200 and answer.content == bytes_


def test_if_range(loaded, bytes_):
    etag = fetch(loaded, method="HEAD").headers["ETag"]
    assert fetch(loaded, Range="bytes=10-19", If_Range=etag).content == bytes_[10:20]
    other = fetch(loaded, Range="bytes=10-19", If_Range='"other"')
    assert other.status_code == 200 and other.content == bytes_
    # Weak tags never match here (RFC 9110 13.1.5).
    assert fetch(loaded, Range="bytes=10-19", If_Range="W/" + etag).status_code == 200


def test_if_none_match(loaded):
    etag = fetch(loaded, method="HEAD").headers["ETag"]
    for value in (etag, "*", '"x", ' + etag, "W/" + etag):
        answer = fetch(loaded, If_None_Match=value)
        assert answer.status_code == 304 and answer.content == b"", value
        assert answer.headers["ETag"] == etag
    assert fetch(loaded, If_None_Match='"x"').status_code == 200


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_an_esp_with_connection_close(loaded, bytes_, version):
    answer = loaded.raw(("GET %s %s\r\nHost: ota\r\nUser-Agent: ESP32HTTPClient\r\n"
                         "Connection: close\r\n\r\n" % (URL, version)).encode())
    assert answer.status == 200 and answer.body == bytes_
    assert answer.headers["Content-Length"] == str(len(bytes_))
    assert answer.will_close


def test_http_1_0_without_any_header(loaded, bytes_):
    answer = loaded.raw(b"GET %s HTTP/1.0\r\n\r\n" % URL.encode())
    assert answer.status == 200 and answer.body == bytes_
    assert answer.headers["Content-Length"] == str(len(bytes_))


def test_a_resumed_download_is_the_same_image(loaded, bytes_):
    got = b""
    while len(got) < len(bytes_):
        part = fetch(loaded, Range="bytes=%d-%d" % (len(got), len(got) + 65535))
        assert part.status_code == 206
        got += part.content
    assert hashlib.sha256(got).digest() == hashlib.sha256(bytes_).digest()


def test_unknown_is_404(loaded):
    for path in ("/api/firmware/download/9.9.9", URL + "?device_model=esp32-s3",
                 "/api/firmware/download/a%20b", "/api/firmware/download/..%2F..%2Fetc%2Fpasswd"):
        answer = fetch(loaded, path)
        assert answer.status_code == 404, path
        assert isinstance(answer.json()["detail"], str)
    assert fetch(loaded, URL + "?device_model=esp32").status_code == 200


def test_several_models_and_none_named_is_409(service):
    one, other = images.esp32("2.0.0"), images.esp32("2.0.0", chip="esp32-s3")
    service.release(one, "2.0.0", "esp32")
    service.release(other, "2.0.0", "esp32-s3")
    answer = fetch(service, "/api/firmware/download/2.0.0")
    assert answer.status_code == 409
    named = answer.json()["detail"].split("(")[1].split(")")[0]
    assert set(named.split(", ")) == {"esp32", "esp32-s3"}
    assert fetch(service, "/api/firmware/download/2.0.0?device_model=esp32").content == one
    assert fetch(service, "/api/firmware/download/2.0.0?device_model=esp32-s3").content == other
    # The URL of an offer names the attempt, and so the release.
    service.rollout("2.0.0", "esp32-s3")
    url = service.check("s3-1", "1.0.0", "esp32-s3")["download_url"]
    assert service.session.get(url).content == other


def test_a_version_with_a_plus(service):
    image = images.esp32("1.0.0")
    service.release(image, "1.0.0+build.7")
    service.rollout("1.0.0+build.7")
    offer = service.check("d1", "0.9.0")
    assert offer["latest_version"] == "1.0.0+build.7"
    assert service.session.get(offer["download_url"]).content == image


def test_images_larger_than_the_cache_come_from_the_disk(services):
    service = services(env={"OTA_IMAGE_CACHE_BYTES": "1M"})
    image = images.big(3000000)
    service.release(image, "1", "pi")
    assert fetch(service, "/api/firmware/download/1").content == image
    part = fetch(service, "/api/firmware/download/1", Range="bytes=2000000-2000099")
    assert part.status_code == 206 and part.content == image[2000000:2000100]
    service.restart()
    assert fetch(service, "/api/firmware/download/1").content == image


def test_a_damaged_file_is_never_sent(service):
    image = images.esp32("1.0.0")
    service.release(image, "1.0.0")
    name, = service.firmware_files()
    with open(service.data + "/firmware/" + name, "r+b") as f:
        f.seek(100)
        f.write(b"damaged")
    answer = fetch(service, "/api/firmware/download/1.0.0")
    assert answer.status_code == 500
    assert "damaged" in answer.json()["detail"]
    # The same bytes uploaded again repair it.
    service.release(image, "1.0.0")
    assert fetch(service, "/api/firmware/download/1.0.0").content == image
