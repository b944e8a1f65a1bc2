# SPDX-License-Identifier: MIT
"""Devices: how they register, what operators see and change."""
import json
import re

import pytest

import images

VERSION = "1.2.0"
TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")


def test_a_check_registers_and_answers(service):
    answer = service.check("d1", "1.0.0", mac="AA:BB:CC:00:11:22", hw="rev 3")
    absent = {k: v for k, v in answer.items() if v is None}
    assert answer["update_available"] is False and answer["current_version"] == "1.0.0"
    assert {"latest_version", "download_url", "file_size", "checksum_sha256",
            "release_notes"} <= set(absent)
    assert isinstance(answer["retry_after_s"], int) and answer["retry_after_s"] > 0
    row, = service.list("devices")
    assert row["device_id"] == "d1" and row["device_model"] == "esp32"
    assert row["current_firmware_version"] == "1.0.0" and row["hw"] == "rev 3"
    assert row["mac_address"] == "aa:bb:cc:00:11:22"
    assert TIME.match(row["last_seen"]) and TIME.match(row["created_at"])
    assert row["label"] is None and isinstance(row["id"], int)


def test_an_offer(service):
    image = images.esp32(VERSION)
    release = service.release(image, VERSION, release_notes="Fixes.")
    number = service.rollout(VERSION)
    answer = service.check("d1")
    assert answer["update_available"] is True
    assert answer["current_version"] == "1.0.0" and answer["latest_version"] == VERSION
    assert answer["file_size"] == len(image) and answer["release_notes"] == "Fixes."
    assert answer["checksum_sha256"] == release["checksum_sha256"]
    assert answer["release_id"] == release["release_id"] and answer["rollout_id"] == number
    assert re.match(r"^[a-z2-7]{13}$", answer["attempt_id"])
    assert answer["download_url"] == "%s/api/firmware/download/%s?attempt=%s" % (
        service.url, VERSION, answer["attempt_id"])
    assert len(answer["download_url"]) < 200
    # The same question gets the same offer.
    again = service.check("d1")
    assert {k: v for k, v in again.items() if k != "retry_after_s"} == \
        {k: v for k, v in answer.items() if k != "retry_after_s"}
    assert len(service.list("updates")) == 1


@pytest.mark.parametrize("begun", [False, True], ids=["offered", "begun"])
def test_only_one_rollout_is_said_to_offer(service, begun):
    """The offer stands when a newer rollout would make the same one."""
    service.release(images.esp32(VERSION), VERSION)
    first = service.rollout(VERSION, name="first")
    offer = service.check("d1")
    second = service.rollout(VERSION, name="second")
    if begun:
        assert service.get(offer["download_url"][len(service.url):]).status_code == 200
    told = service.explain("d1")
    assert told["rollout_id"] == first
    assert {c["rollout_id"]: c["reason"] for c in told["considered"]} == {
        second: "newer_rollout_wins", first: "in_progress" if begun else "offered"}
    assert "has begun already" in told["considered"][0]["sentence"]


def test_the_url_follows_the_host_that_was_asked(service):
    service.release(images.esp32(VERSION), VERSION)
    service.rollout(VERSION)
    ask = "GET /api/firmware/check?device_id=d1&device_model=esp32&current_version=1 HTTP/1.%d\r\n"
    for minor, host, wanted in ((1, "ota.example:99", "http://ota.example:99/"),
                                (1, "[::1]:80", "http://[::1]:80/"),
                                (0, None, service.url + "/"),
                                (1, 'a"b<c>', service.url + "/")):
        head = ask % minor + ("Host: %s\r\n" % host if host else "") + "Connection: close\r\n\r\n"
        url = service.raw(head.encode()).json()["download_url"]
        assert url.startswith(wanted)


def test_the_url_that_the_operator_sets(services):
    service = services(env={"OTA_PUBLIC_URL": "https://ota.example.org/base/"})
    service.release(images.esp32(VERSION), VERSION)
    service.rollout(VERSION)
    url = service.check("d1")["download_url"]
    assert url.startswith("https://ota.example.org/base/api/firmware/download/1.2.0?attempt=")


@pytest.mark.parametrize("missing", ["device_id", "device_model", "current_version"])
def test_missing_parameters_are_422_as_fastapi_says(service, missing):
    params = {"device_id": "d", "device_model": "m", "current_version": "1"}
    del params[missing]
    answer = service.session.get(service.url + "/api/firmware/check", params=params)
    assert answer.status_code == 422
    detail, = answer.json()["detail"]
    assert detail["loc"] == ["query", missing] and detail["msg"] and detail["type"]
    assert service.list("devices") == []


@pytest.mark.parametrize("name,value", [
    ("device_id", "a/b"), ("device_id", "a b"), ("device_id", "a+b"), ("device_id", "a#b"),
    ("device_id", ".."), ("device_id", ""), ("device_id", "x" * 129), ("device_id", "é"),
    ("device_id", "a\0b"), ("device_id", "a\nb"), ("device_id", "\U0001f600"),
    ("device_model", "a b"), ("device_model", "../x"), ("device_model", ""),
    ("current_version", ""), ("current_version", "x" * 129), ("current_version", "a\tb"),
    ("mac", "not a mac"), ("mac", "aa:bb:cc"), ("uptime_s", "-5"), ("uptime_s", "x"),
    ("firmware_digest", "xyz"), ("app_elf_sha256", "12"), ("hw", "a\x07b"),
])
def test_parameters_of_the_wrong_shape_are_422(service, name, value):
    params = {"device_id": "d", "device_model": "m", "current_version": "1", name: value}
    answer = service.session.get(service.url + "/api/firmware/check", params=params)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"]
    assert service.list("devices") == []


def test_ids_that_are_fine(service):
    ids = ["a", "x" * 128, "esp32_001", "A4:CF:12:aa:00:01", 'q"uo\'te', "{id}", "per%cent", "a&b=c",
           "~!$*()@", "...", "<b>"]
    for one in ids:
        service.check(one)
    assert {d["device_id"] for d in service.list("devices")} == set(ids)
    from urllib.parse import quote
    for one in ids:
        path = "/api/admin/devices/" + quote(one, safe="")
        assert service.ok("GET", path)["device_id"] == one
        assert service.ok("GET", path + "/explain")["device_id"] == one


def test_a_device_speaks_of_its_version_freely(service):
    """Images hold strings such as `2.0 stable`."""
    answer = service.session.get(service.url + "/api/firmware/check?device_id=d1&device_model=m"
                                 "&current_version=2.0%20stable%20(a/b)")
    assert answer.json()["current_version"] == "2.0 stable (a/b)"
    assert service.list("devices")[0]["current_firmware_version"] == "2.0 stable (a/b)"


def test_a_plus_in_the_query_is_explained(service):
    answer = service.session.get(
        service.url + "/api/firmware/check?device_id=d&device_model=m&current_version=1.0+7")
    assert answer.status_code == 422 and "%2B" in answer.text
    assert service.check("d", "1.0+7")["current_version"] == "1.0+7"


def test_what_a_device_tells_is_kept_up_to_date(service):
    service.check("d1", "1.0.0", hw="a")
    service.check("d1", "1.1.0", "esp32-s3", hw="b", mac="aa:bb:cc:00:11:22")
    row = service.ok("GET", "/api/admin/devices/d1")
    assert (row["current_firmware_version"], row["device_model"], row["hw"]) == \
        ("1.1.0", "esp32-s3", "b")
    service.check("d1", "1.1.0", "esp32-s3")  # says less: nothing is forgotten
    row = service.ok("GET", "/api/admin/devices/d1")
    assert row["hw"] == "b" and row["mac_address"] == "aa:bb:cc:00:11:22"


def test_show(service):
    service.release(images.esp32(VERSION), VERSION)
    service.rollout(VERSION)
    offer = service.check("d1")
    service.ok("PUT", "/api/admin/devices/d1/groups", json={"groups": ["b", "a"]})
    one = service.ok("GET", "/api/admin/devices/d1")
    assert sorted(one["groups"]) == ["a", "b"] and one["notes"] is None
    assert one["current_attempt"]["attempt_id"] == offer["attempt_id"]
    assert [a["attempt_id"] for a in one["attempts"]] == [offer["attempt_id"]]
    row, = service.list("devices")
    assert {k: one[k] for k in row} == row


@pytest.mark.parametrize("path", ["", "/explain"])
def test_a_device_nobody_knows(service, path):
    answer = service.get("/api/admin/devices/nobody" + path)
    assert answer.status_code == 404 and isinstance(answer.json()["detail"], str)
    for method, end, more in (("DELETE", "", {}), ("POST", "/retry", {}),
                              ("PUT", "/label", {"json": {"label": "x"}}),
                              ("PUT", "/groups", {"json": {"groups": []}}),
                              ("PUT", "/groups/g", {}), ("DELETE", "/notes", {})):
        answer = service.request(method, "/api/admin/devices/nobody" + end, **more)
        assert answer.status_code == 404, (method, end, answer.text)
    assert service.list("devices") == []


def groups_of(service, device):
    return sorted(service.ok("GET", "/api/admin/devices/" + device)["groups"])


def test_groups(service):
    service.check("d1")
    path = "/api/admin/devices/d1/groups"
    service.ok("PUT", path, json={"groups": ["vans", "beta", "vans"]})
    assert groups_of(service, "d1") == ["beta", "vans"]
    service.ok("PUT", path + "/alpha")
    service.ok("PUT", path + "/alpha")
    service.ok("DELETE", path + "/beta")
    service.ok("DELETE", path + "/never")
    assert groups_of(service, "d1") == ["alpha", "vans"]
    assert [d["device_id"] for d in service.list("devices", group="vans")] == ["d1"]
    assert service.list("devices", group="beta") == []
    service.restart()
    assert groups_of(service, "d1") == ["alpha", "vans"]
    service.ok("DELETE", path)
    assert groups_of(service, "d1") == []


@pytest.mark.parametrize("body", [{}, {"groups": "a"}, {"groups": ["a b"]}, {"groups": [1]},
                                  {"groups": [""]}, {"groups": ["x"] * 101}, [], "x", None])
def test_wrong_groups(service, body):
    service.check("d1")
    answer = service.put("/api/admin/devices/d1/groups", json=body)
    assert answer.status_code == 422, answer.text
    assert groups_of(service, "d1") == []


def test_label_and_notes(service):
    service.check("d1")
    for name in ("label", "notes"):
        path = "/api/admin/devices/d1/" + name
        service.ok("PUT", path, json={name: "Küche \U0001f373\n2"})
        assert service.ok("GET", "/api/admin/devices/d1")[name] == "Küche \U0001f373\n2"
        assert service.put(path, json={}).status_code == 422
        assert service.put(path, json={name: 5}).status_code == 422
        assert service.put(path, json={name: "x" * 20000}).status_code == 422
        service.restart()
        assert service.ok("GET", "/api/admin/devices/d1")[name] == "Küche \U0001f373\n2"
        service.ok("DELETE", path)
        assert service.ok("GET", "/api/admin/devices/d1")[name] is None


def import_csv(service, text):
    return service.post("/api/admin/devices/import", data=text.encode(),
                        headers={"Content-Type": "text/csv"})


def test_import(service):
    for i in ("d1", "d2", "d3"):
        service.check(i)
    service.ok("PUT", "/api/admin/devices/d3/label", json={"label": "old"})
    answer = import_csv(service, '\ufeffdevice_id,groups,label,notes\r\n'
                        'd1,vans;beta,"Kitchen, left","said ""yes""\nand no"\r\n'
                        'd2,,,\r\n\r\nd3,beta,,x\r\n')
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "ok" and answer.json()["updated"] == 3
    one = service.ok("GET", "/api/admin/devices/d1")
    assert sorted(one["groups"]) == ["beta", "vans"]
    assert one["label"] == "Kitchen, left" and one["notes"] == 'said "yes"\nand no'
    assert service.ok("GET", "/api/admin/devices/d3")["label"] is None
    # Columns that are not there change nothing.
    assert import_csv(service, "label,device_id\nnew,d1\n").json()["updated"] == 1
    one = service.ok("GET", "/api/admin/devices/d1")
    assert one["label"] == "new" and sorted(one["groups"]) == ["beta", "vans"]


@pytest.mark.parametrize("text", [
    "", "device_id\nd1\n", "groups\nx\n", "device_id,groups\n", "device_id,groups\nnobody,x\n",
    "device_id,groups\nd1,a b/c\n", "device_id,label\nd1,\"open\n", "device_id,label\nd/1,x\n",
    "device_id,label\nd1,a\nd1,b\n", "device_id,label\n,x\n", "device_id,label\nd1," + "x" * 201,
    "device_id,label\nd1,x\nnobody,y\n", "device_id,label\nd1,a\0b\n", "<html>",
    "device_id,label\nd1,\xff\xfe"])
def test_a_wrong_import_changes_nothing(service, text):
    service.check("d1")
    data = text.encode("latin-1") if "\xff" in text else text.encode()
    answer = service.post("/api/admin/devices/import", data=data)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"]
    one = service.ok("GET", "/api/admin/devices/d1")
    assert one["label"] is None and one["groups"] == []


def test_an_import_takes_what_the_single_calls_take(service):
    service.check("d1")
    for field, most in (("label", 200), ("notes", 10000)):
        for text, status in (("\u00e9" * most, 200), ("\u00e9" * (most + 1), 422)):
            answer = service.put("/api/admin/devices/d1/" + field, json={field: text})
            assert answer.status_code == status, answer.text
            answer = import_csv(service, "device_id,%s\nd1,%s\n" % (field, text))
            assert answer.status_code == status, answer.text
        assert service.ok("GET", "/api/admin/devices/d1")[field] == "\u00e9" * most


def test_an_import_of_many(service):
    for i in range(300):
        service.check("d%03d" % i)
    text = "device_id,groups\n" + "".join("d%03d,g%d;all\n" % (i, i % 3) for i in range(300))
    assert import_csv(service, text).json()["updated"] == 300
    assert len(service.list("devices", group="all", limit=1000)) == 300
    assert len(service.list("devices", group="g1", limit=1000)) == 100


def test_delete(service):
    service.release(images.esp32(VERSION), VERSION)
    service.rollout(VERSION)
    offer = service.check("d1")
    service.ok("PUT", "/api/admin/devices/d1/groups/g")
    service.ok("DELETE", "/api/admin/devices/d1")
    assert service.get("/api/admin/devices/d1").status_code == 404
    assert service.list("devices") == []
    assert service.delete("/api/admin/devices/d1").status_code == 404
    assert service.session.get(offer["download_url"]).status_code == 410
    # It may come again, and is a new device then.
    assert service.check("d1")["update_available"]
    assert groups_of(service, "d1") == []
    # What it did stays in the records.
    assert len(service.list("updates", device_id="d1")) == 2


@pytest.fixture
def told(service):
    service.release(images.esp32(VERSION), VERSION, min_version="1.0.0")
    return service


def reason(service, device):
    answer = service.explain(device)
    assert answer["device_id"] == device and answer["sentence"].endswith(".")
    assert isinstance(answer["update_available"], bool)
    for one in answer["considered"]:
        assert one["rollout_id"] and one["name"] and one["reason"] and one["sentence"]
    return answer["reason"]


def test_explain_tells_each_reason(told):
    told.check("other", "1.0.0", "unheard-of")
    assert reason(told, "other") == "model_unknown"
    told.check("d1")
    assert reason(told, "d1") == "no_rollout"

    number = told.rollout(VERSION, target_type="specific", target_device_ids=["named"], name="s")
    assert reason(told, "d1") == "not_named"
    told.rollout(VERSION, target_type="group", target_filter={"group": "g"}, name="g")
    assert reason(told, "d1") == "not_in_group"
    for i in range(30):
        told.check("many-%d" % i)
    told.rollout(VERSION, target_type="canary", rollout_percentage=1, name="c")
    outside = [i for i in range(30) if not told.check("many-%d" % i)["update_available"]]
    assert reason(told, "many-%d" % outside[0]) == "outside_percent"

    told.rollout(VERSION, name="all")
    assert reason(told, "d1") == "offered"
    assert told.explain("d1")["update_available"] is True
    assert told.explain("d1")["firmware_version"] == VERSION
    assert told.explain("d1")["rollout"] == "all"
    told.check("low", "0.9.0")
    assert reason(told, "low") == "below_min_version"
    told.check("odd", "a1b2c3d-20251208-153045")
    assert reason(told, "odd") == "min_version_incomparable"
    told.check("high", "2.0.0")
    assert reason(told, "high") == "downgrade"
    told.check("there", VERSION)
    assert reason(told, "there") == "up_to_date"

    told.check("d1")
    told.report("d1", VERSION, "downloading")
    assert reason(told, "d1") == "in_progress"
    told.report("d1", VERSION, "installing")
    assert reason(told, "d1") == "installing"
    assert told.ok("POST", "/api/admin/rollout/%d/deactivate" % number)["status"] == "ok"
    considered = {one["name"]: one["reason"] for one in told.explain("many-0")["considered"]}
    assert considered["s"] == "inactive"


def test_three_failures_and_a_retry(told):
    told.rollout(VERSION)
    for i in range(3):
        assert told.check("d1")["update_available"], i
        told.report("d1", VERSION, "failed", error_message="flash write failed")
    assert not told.check("d1")["update_available"]
    assert reason(told, "d1") == "too_many_failures"
    told.restart()
    assert not told.check("d1")["update_available"]
    assert told.ok("POST", "/api/admin/devices/d1/retry")["status"] == "ok"
    assert told.check("d1")["update_available"]
    assert len([u for u in told.list("updates") if u["status"] == "failed"]) == 3
    # Others are not touched, and a retry of what did not fail says so.
    assert told.check("d2")["update_available"]
    assert told.ok("POST", "/api/admin/devices/d2/retry")["status"] == "ok"


def test_max_attempts_of_a_rollout(told):
    told.rollout(VERSION, max_attempts=1)
    assert told.check("d1")["update_available"]
    told.report("d1", VERSION, "rolled_back")
    assert not told.check("d1")["update_available"]


def test_retry_after_is_jittered(services):
    service = services(env={"OTA_POLL_INTERVAL_S": 1000})
    seen = {service.check("d%d" % i)["retry_after_s"] for i in range(50)}
    assert len(seen) > 10 and min(seen) >= 700 and max(seen) <= 1300


def test_release_notes_with_everything_in_them(service):
    notes = '"quotes" \\ / \u2028 \U0001f600 <b>\ttab'
    service.release(images.esp32(VERSION), VERSION, release_notes=notes)
    service.rollout(VERSION)
    assert service.check("d1")["release_notes"] == notes
    assert json.loads(service.get("/api/admin/firmware/releases").text)["releases"][0][
        "release_notes"] == notes
