# SPDX-License-Identifier: MIT
"""Uploads: as the usual clients send them, and as none should."""
import hashlib
import os
import subprocess

import pytest

import images
from service import wait_for

PATH = "/api/admin/firmware/upload"


def form(parts, boundary=b"----odd'()+_,-./:=?", eol=b"\r\n", preamble=b"", epilogue=b""):
    """Multipart as bytes: PARTS are (headers after form-data, content)."""
    out = preamble
    for disposition, content in parts:
        out += b"--" + boundary + eol + b"Content-Disposition: form-data; " + disposition + eol + \
            eol + content + eol
    return out + b"--" + boundary + b"--" + eol + epilogue


def post_form(service, body, boundary=b"----odd'()+_,-./:=?", query="", content_type=None):
    kind = content_type or 'multipart/form-data; boundary="%s"' % boundary.decode()
    return service.post(PATH + query, data=body, headers={"Content-Type": kind})


def nothing_is_left(service):
    assert service.list("releases") == []
    wait_for(lambda: service.firmware_files() == [], "no file to be left")


def test_the_answer(service):
    image = images.esp32("1.2.0", project="demo", secure_version=3, min_rev=301)
    answer = service.upload(image, "1.2.0", min_version="1.0.0", changelog="faster",
                            release_notes="Fixes Wi-Fi.\nAnd more: ä", is_signed="true")
    assert answer.status_code == 200
    body = answer.json()
    assert body["status"] == "ok" and isinstance(body["message"], str)
    assert body["version"] == "1.2.0" and body["device_model"] == "esp32"
    assert body["file_size"] == len(image)
    assert body["checksum_sha256"] == hashlib.sha256(image).hexdigest()
    assert isinstance(body["release_id"], int) and body["warnings"] == []
    inside = body["image"]
    assert inside["chip"] == "ESP32" and inside["project"] == "demo"
    assert inside["version"] == "1.2.0" and inside["idf_version"] == "v5.3"
    assert inside["build_time"] and inside["elf_sha256"] == "e1" * 32
    assert inside["image_digest"] == image[-32:].hex()
    assert inside["min_chip_rev"] == 301 and inside["secure_version"] == 3

    row, = service.list("releases")
    assert row["id"] == body["release_id"] and row["version"] == "1.2.0"
    assert row["device_model"] == "esp32" and row["min_version"] == "1.0.0"
    assert row["is_signed"] is True and row["changelog"] == "faster"
    assert row["release_notes"] == "Fixes Wi-Fi.\nAnd more: ä"
    assert row["image"] == inside and row["image_type"] == "esp" and row["warnings"] == []
    assert row["learnt_versions"] == [] and row["created_at"].endswith("Z")
    assert len(row["created_at"]) == len("2026-11-23T22:12:49.000000Z")
    event = [e for e in service.list("events") if e["event_type"] == "firmware_uploaded"]
    assert len(event) == 1 and event[0]["firmware_version"] == "1.2.0"


def test_the_same_again(service):
    image = images.esp32("1.2.0")
    first, again = service.upload(image, "1.2.0"), service.upload(image, "1.2.0")
    assert again.status_code == 200
    assert again.json()["release_id"] == first.json()["release_id"]
    assert again.json()["checksum_sha256"] == first.json()["checksum_sha256"]
    other = service.upload(images.esp32("1.2.0", fill=9), "1.2.0")
    assert other.status_code == 409 and "1.2.0" in other.json()["detail"]
    assert len(service.list("releases")) == 1
    wait_for(lambda: len(service.firmware_files()) == 1, "the refused file to go")


def test_identical_images_share_a_file(service):
    image = images.big(5000)
    service.release(image, "1", "one")
    service.release(image, "2", "one")
    service.release(image, "1", "two")
    assert service.firmware_files() == [hashlib.sha256(image).hexdigest() + ".bin"]
    # It goes with the last release that needs it.
    for version, model in (("1", "one"), ("2", "one")):
        service.ok("DELETE", "/api/admin/firmware/releases/" + version,
                   params={"device_model": model})
        assert len(service.firmware_files()) == 1
    service.ok("DELETE", "/api/admin/firmware/releases/1", params={"device_model": "two"})
    assert service.firmware_files() == []


def test_curl(service, tmp_path):
    (tmp_path / "firmware.bin").write_bytes(images.esp32("3.0.0", size=200000))
    done = subprocess.run(
        ["curl", "-sS", "-X", "POST", service.url + PATH, "-H", "X-API-Key: " + service.key,
         "-F", "version=3.0.0", "-F", "file=@firmware.bin", "-F", "device_model=esp32",
         "-F", "release_notes=said as a field", "-F", "is_signed=false"],
        cwd=tmp_path, capture_output=True, text=True)
    assert '"status":"ok"' in done.stdout, done.stdout + done.stderr
    assert service.list("releases")[0]["release_notes"] == "said as a field"


def test_python_requests_with_fields(service):
    answer = service.post(PATH, files={"file": ("x.bin", images.esp32("1.0.0"))},
                          data={"version": "1.0.0", "device_model": "esp32", "changelog": "c"})
    assert answer.status_code == 200, answer.text


def test_go_mime_multipart(service):
    """A boundary of 60 hexadecimal digits, a Content-Type in each part, chunked as Go sends."""
    boundary = b"3f" * 30
    body = form([(b'name="file"; filename="firmware.bin"\r\nContent-Type: application/octet-stream',
                  images.esp32("1.0.0"))], boundary)

    def pieces():
        for at in range(0, len(body), 100):
            yield body[at:at + 100]

    answer = service.post(PATH + "?version=1.0.0&device_model=esp32", data=pieces(), headers={
        "Content-Type": "multipart/form-data; boundary=" + boundary.decode()})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("name,body", [
    ("file last", [(b'name="version"', b"1.0.0"), (b'name="device_model"', b"esp32"),
                   (b'name="file"; filename="f"', "image")]),
    ("file first", [(b'name="file"; filename="f"', "image"), (b'name="version"', b"1.0.0"),
                    (b'name="device_model"', b"esp32")]),
    ("names unquoted", [(b"name=version", b"1.0.0"), (b"name=device_model", b"esp32"),
                        (b"name=file; filename=f", "image")]),
    ("filename first", [(b'filename="a b;c.bin"; name="file"', "image"),
                        (b'name="version"', b"1.0.0"), (b'name="device_model"', b"esp32")]),
    ("unknown fields", [(b'name="what"', b"ever"), (b'name="version"', b"1.0.0"),
                        (b'name="device_model"', b"esp32"), (b'name="file"; filename="f"', "image"),
                        (b'name="submit"', b"Upload")]),
])
def test_orders_and_ways_of_writing(service, name, body):
    image = images.esp32("1.0.0")
    body = form([(d, image if c == "image" else c) for d, c in body])
    answer = post_form(service, body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["checksum_sha256"] == hashlib.sha256(image).hexdigest()


def test_line_feeds_alone(service):
    image = images.esp32("1.0.0")
    body = form([(b'name="version"', b"1.0.0"), (b'name="device_model"', b"esp32"),
                 (b'name="file"; filename="f"', image)], eol=b"\n")
    answer = post_form(service, body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["file_size"] == len(image)


def test_preamble_and_epilogue(service):
    body = form([(b'name="file"; filename="f"', images.esp32("1.0.0"))],
                preamble=b"This is a message in MIME format.\r\n", epilogue=b"and so on")
    answer = post_form(service, body, query="?version=1.0.0&device_model=esp32")
    assert answer.status_code == 200, answer.text


def test_an_image_that_holds_what_looks_like_a_boundary(service):
    image = b"PAKU\r\n--b\r\n--b-\r\n\r\n--" + b"\r\n--bb" * 1000
    body = form([(b'name="file"; filename="f"', image)], b"bbx")
    answer = post_form(service, body, b"bbx", "?version=1&device_model=pi")
    assert answer.status_code == 200, answer.text
    assert answer.json()["checksum_sha256"] == hashlib.sha256(image).hexdigest()


GOOD = b'name="file"; filename="f"'
MAKE = {
    "no file": lambda i: form([(b'name="version"', b"1.0.0")]),
    "two files": lambda i: form([(GOOD, i), (GOOD, i)]),
    "empty file name": lambda i: form([(b'name="file"; filename=""', b"")]),
    "empty file": lambda i: form([(GOOD, b"")]),
    "file as another field": lambda i: form([(b'name="firmware"; filename="f"', i)]),
    "no name": lambda i: form([(b'filename="f"', i)]),
    "no end": lambda i: form([(GOOD, i)])[:-20],
    "cut in the image": lambda i: form([(GOOD, i)])[:200],
    "nothing": lambda i: b"",
    "only an end": lambda i: form([]),
    "no multipart at all": lambda i: i,
    "another boundary": lambda i: form([(GOOD, i)], b"other"),
    "headers without end": lambda i: b"------odd'()+_,-./:=?\r\nX: " + b"y" * 100000,
    "many parts": lambda i: form([(b'name="x"', b"y")] * 5000),
    "a field of 1 MiB": lambda i: form([(b'name="version"', b"1" * 1048576), (GOOD, i)]),
    "notes not UTF-8": lambda i: form([(b'name="release_notes"', b"a\xff"), (GOOD, i)]),
    "notes with a NUL": lambda i: form([(b'name="changelog"', b"a\0b"), (GOOD, i)]),
    "version twice": lambda i: form([(b'name="version"', b"1"), (b'name="version"', b"2"),
                                     (GOOD, i)]),
}


@pytest.mark.parametrize("name", MAKE)
def test_wrong_forms_are_told_and_leave_nothing(service, name):
    answer = post_form(service, MAKE[name](images.esp32("1.0.0")),
                       query="?version=1.0.0&device_model=esp32")
    assert answer.status_code in (400, 413, 422), answer.text
    assert answer.json()["detail"]
    nothing_is_left(service)
    assert service.upload(images.esp32("1.0.0"), "1.0.0").status_code == 200


@pytest.mark.parametrize("name, word", [("many parts", "parts"), ("headers without end", "headers")])
def test_a_form_with_too_much_in_it_is_not_called_an_image(service, name, word):
    answer = post_form(service, MAKE[name](b""), query="?version=1.0.0&device_model=esp32")
    assert answer.status_code == 413
    assert word in answer.json()["detail"] and "image" not in answer.json()["detail"]


def test_query_and_form_that_contradict_each_other(service):
    body = form([(b'name="version"', b"1.0.1"), (GOOD, images.esp32("1.0.0"))])
    answer = post_form(service, body, query="?version=1.0.0&device_model=esp32")
    assert answer.status_code == 422 and answer.json()["detail"][0]["loc"] == ["body", "version"]
    nothing_is_left(service)
    assert post_form(service, body, query="?version=1.0.1&device_model=esp32").status_code == 200


def send_and_go(service, line, headers=b"", body=b""):
    """A request whose client does not wait; returns when the service has done with it."""
    before = service.ok("GET", "/metrics")
    polls = 0

    def done():
        nonlocal polls
        polls += 1
        now = service.ok("GET", "/metrics")
        return now["http_requests_total"] == before["http_requests_total"] + polls + 1 and \
            now["http_connections"] == before["http_connections"]

    with service.connect() as s:
        s.sendall(b"%s HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\n%sContent-Length: %d\r\n\r\n%s" % (
            line.encode(), service.key.encode(), headers, len(body), body))
    wait_for(done, "the request to end")


def test_a_client_that_goes_leaves_no_file_behind(service):
    """Neither with an upload that is refused (other bytes under one version) nor with a deletion."""
    service.release(images.esp32("1.0.0"), "1.0.0")
    for i in range(5):
        body = form([(GOOD, images.esp32("1.0.0", size=400000, fill=i + 1))], b"b")
        send_and_go(service, "POST %s?version=1.0.0&device_model=esp32" % PATH,
                    b"Content-Type: multipart/form-data; boundary=b\r\n", body)
    assert len(service.firmware_files()) == 1
    for i in range(5):
        service.release(images.esp32("2", fill=i + 1), "2.%d" % i)
        send_and_go(service, "DELETE /api/admin/firmware/releases/2.%d" % i)
    assert len(service.list("releases")) == 1
    assert len(service.firmware_files()) == 1


@pytest.mark.parametrize("kind", ["application/octet-stream", "multipart/form-data", "text/plain",
                                  "multipart/form-data; boundary=", "multipart/mixed; boundary=x",
                                  "multipart/form-data; boundary=" + "x" * 300])
def test_wrong_content_types(service, kind):
    answer = post_form(service, form([(GOOD, images.esp32("1.0.0"))], b"x"), content_type=kind,
                       query="?version=1.0.0&device_model=esp32")
    assert answer.status_code in (400, 415, 422), answer.text
    assert answer.json()["detail"]
    nothing_is_left(service)


def test_a_body_that_ends_early(service):
    body = form([(GOOD, images.esp32("1.0.0"))])
    head = ("POST %s?version=1.0.0&device_model=esp32 HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\n"
            "Content-Type: multipart/form-data; boundary=\"----odd'()+_,-./:=?\"\r\n"
            "Content-Length: %d\r\n\r\n" % (PATH, service.key, len(body))).encode()
    for keep in (0, 10, 150, len(body) - 1):
        for _ in range(5):  # the end of the stream often comes together with the last bytes
            with service.connect() as s:
                s.sendall(head + body[:keep])
    nothing_is_left(service)


def test_parameters_that_are_missing(service):
    for params, names in (({}, {"version", "device_model"}), ({"version": "1"}, {"device_model"})):
        answer = service.post(PATH, files={"file": ("f", images.esp32("1.0.0"))}, params=params)
        assert answer.status_code == 422
        detail = answer.json()["detail"]
        assert {d["loc"][-1] for d in detail} == names
        assert all(isinstance(d["msg"], str) and isinstance(d["type"], str) for d in detail)
    nothing_is_left(service)


@pytest.mark.parametrize("version", ["1 0", "", "a/b", "v1;rm", "x" * 129, "ü", "..", "1\n"])
def test_a_version_or_model_outside_the_pattern_is_400(service, version):
    image = images.esp32("1.0.0")
    for answer in (service.upload(image, version), service.upload(image, "1.0.0", version)):
        assert answer.status_code == (400 if version else 422) or version == "" and \
            answer.status_code == 400, answer.text
        assert answer.json()["detail"]
    nothing_is_left(service)


def test_a_plus_in_the_query_is_explained(service):
    answer = service.post(PATH + "?version=1.0+b&device_model=esp32",
                          files={"file": ("f", images.esp32("1.0.0"))})
    assert answer.status_code == 400 and "%2B" in answer.json()["detail"]


def test_a_bool_and_a_type_that_are_none(service):
    image = images.esp32("1.0.0")
    assert service.upload(image, "1.0.0", is_signed="maybe").status_code == 422
    assert service.upload(image, "1.0.0", image_type="elf").status_code == 422
    nothing_is_left(service)


WRONG_FILES = {
    "empty": (b"", "empty"),
    "html": (b"<!DOCTYPE html><html>404</html>", "web page"),
    "elf": (b"\x7fELF" + bytes(500), "ELF"),
    "partition table": (b"\xaa\x50" + bytes(3070), "partition table"),
    "bootloader": (images.esp32(desc=False), "boot"),
    "merged": (b"\xff" * 0x1000 + images.esp32(desc=False).ljust(0x7000, b"\xff") + b"\xaa\x50" +
               bytes(3070), "merged"),
    "cut off": (images.esp32("1.0.0")[:-40], ""),
    "cut in a segment": (images.esp32("1.0.0")[:300], "segment"),
    "flipped bit": (bytes([b ^ (i == 100) for i, b in enumerate(images.esp32("1.0.0"))]), ""),
    "another chip": (images.esp32("1.0.0", chip="esp32-s3"), "ESP32-S3"),
    "text": (b"hello", ""),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_wrong_files_are_422_with_a_sentence(service, name):
    content, says = WRONG_FILES[name]
    answer = service.upload(content, "1.0.0")
    assert answer.status_code == 422, answer.text
    assert says.lower() in str(answer.json()["detail"]).lower()
    nothing_is_left(service)


def test_raw_bundles_are_for_models_without_a_chip(service):
    assert service.upload(images.big(3000), "1", "pi").json()["image_type"] == "raw"
    assert service.upload(images.big(3000), "1.0.0").status_code == 422
    answer = service.upload(images.big(3000), "1.0.0", image_type="raw")
    assert answer.status_code == 200 and answer.json()["image"] is None
    assert service.upload(images.big(3000), "2", "pi", image_type="esp").status_code == 422


def test_the_first_release_fixes_the_chip_of_a_model(service):
    service.release(images.esp32("1.0.0", chip="esp32-c3"), "1.0.0", "lamp")
    answer = service.upload(images.esp32("1.1.0", chip="esp32"), "1.1.0", "lamp")
    assert answer.status_code == 422 and "ESP32-C3" in answer.json()["detail"]
    assert service.upload(images.big(3000), "1.1.0", "lamp").status_code == 422


def test_warnings(service):
    service.release(images.esp32("1.0.0", secure_version=2, project="a"), "1.0.0")
    answer = service.release(images.esp32("1.2.0", secure_version=1, project="b"), "1.1.0")
    assert len(answer["warnings"]) == 3
    assert service.list("releases")[0]["warnings"] == answer["warnings"]


@pytest.mark.parametrize("one", [pytest.param(i, id=os.path.basename(i["file"]))
                                 for i in images.real()])
def test_every_real_file(service, one):
    """The manifest beside the images says what is inside each of them."""
    with open(one["full"], "rb") as f:
        image = f.read()
    model = (one.get("chip") or "ESP32").lower()
    answer = service.upload(image, "1.0.0", model)
    if one["kind"] != "app":
        assert answer.status_code == 422, answer.text
        nothing_is_left(service)
        return
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["checksum_sha256"] == one["sha256"] and body["file_size"] == one["size"]
    assert body["image"]["chip"] == one["chip"]
    if one.get("app"):
        assert body["image"]["version"] == one["app"]["version"]
        assert body["image"]["project"] == one["app"]["project"]
        assert body["image"]["image_digest"] == one["image_digest"]
    assert service.session.get(service.url + "/api/firmware/download/1.0.0").content == image


@pytest.mark.parametrize("declared", [True, False])
def test_an_image_too_large(services, declared):
    service = services(env={"OTA_MAX_FIRMWARE_BYTES": "1M"})
    image = images.big(1048576)
    assert service.upload(image, "1", "pi").status_code == 200
    body = form([(GOOD, image + b"x")])
    data = body if declared else (body[at:at + 65536] for at in range(0, len(body), 65536))
    answer = post_form(service, data, query="?version=2&device_model=pi")
    assert answer.status_code == 413
    assert "OTA_MAX_FIRMWARE_BYTES" in answer.json()["detail"]
    assert len(service.list("releases")) == 1
    wait_for(lambda: len(service.firmware_files()) == 1, "the rest of the upload to go")


def test_a_long_upload_that_grows_too_large_is_answered(services):
    service = services(env={"OTA_MAX_FIRMWARE_BYTES": "20M"})
    body = form([(GOOD, images.big(28 << 20))])
    answer = post_form(service, (body[at:at + 65536] for at in range(0, len(body), 65536)),
                       query="?version=2&device_model=pi")
    assert answer.status_code == 413 and answer.json()["detail"]


def test_far_too_large_is_refused_before_it_is_sent(services):
    service = services(env={"OTA_MAX_FIRMWARE_BYTES": "1M"})
    answer = service.raw(("POST %s?version=1&device_model=pi HTTP/1.1\r\nHost: x\r\n"
                          "X-API-Key: %s\r\nContent-Type: multipart/form-data; boundary=b\r\n"
                          "Content-Length: 900000000000\r\n\r\n" % (PATH, service.key)).encode())
    assert answer.status == 413 and answer.json()["detail"]


def test_an_upload_needs_little_memory(service):
    """60 MiB pass through; the image is never held."""
    size = 60 << 20
    image = images.big(size)
    service.release(images.big(1 << 20), "0", "pi")  # what the first upload allocates once
    before, most = service.memory_kib(), 0
    body = form([(GOOD, image)])

    def pieces():
        nonlocal most
        for at in range(0, len(body), 1 << 18):
            yield body[at:at + (1 << 18)]
            most = max(most, service.memory_kib())

    answer = post_form(service, pieces(), query="?version=1&device_model=pi")
    assert answer.status_code == 200, answer.text
    if "asan" not in service.program and "tsan" not in service.program:
        assert most - before <= 256, "grew by %d KiB" % (most - before)
