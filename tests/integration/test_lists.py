# SPDX-License-Identifier: MIT
"""Lists and figures: every page once, whatever happens in between."""
import re

import pytest

import images

LISTS = {"releases": "/api/admin/firmware/releases", "devices": "/api/admin/devices",
         "updates": "/api/admin/update-status", "rollouts": "/api/admin/rollouts",
         "events": "/api/admin/events", "rejected": "/api/admin/rejected"}


def pages(service, name, between=None, **params):
    """All rows, page by page."""
    rows, cursor = [], None
    while True:
        body = service.ok("GET", LISTS[name], params={**params, **({"cursor": cursor} if cursor
                                                                  else {})})
        assert len(body[name]) <= int(params.get("limit", 100))
        rows += body[name]
        cursor = body["next_cursor"]
        if cursor is None:
            return rows
        assert isinstance(cursor, str) and body[name]
        if between:
            between()


def reject(service, rows):
    """Writes what the MQTT side keeps of messages it did not understand; the service is stopped."""
    service.sql("".join(
        "INSERT INTO ota_rejected_messages (device_id, topic, payload, reason, detail, created_at)"
        " VALUES (nullif('%s', ''), '%s', %s, '%s', 'a sentence', '2026-11-23T22:12:49.000000Z');"
        % (device_id or "", topic, service.sql_bytes(payload), reason)
        for device_id, topic, payload, reason in rows))


@pytest.fixture
def filled(service):
    for i in range(7):
        service.release(images.esp32("1.%d.0" % i), "1.%d.0" % i)
        service.rollout("1.%d.0" % i)
    for i in range(23):
        service.check("d%02d" % i)
    service.stop()
    reject(service, [("d%02d" % i, "paku/edge/d%02d/status" % i, b"{%d" % i, "not_json")
                     for i in range(11)])
    return service.start()


@pytest.mark.parametrize("name", LISTS)
def test_pages_join_to_the_whole(filled, name):
    whole = filled.ok("GET", LISTS[name], params={"limit": 1000})
    assert whole["next_cursor"] is None
    ids = [row["id"] for row in whole[name]]
    assert len(ids) == len(set(ids)) >= 7
    if name != "devices":
        assert ids == sorted(ids, reverse=True)
    for limit in (1, 2, 7, len(ids) - 1, len(ids), len(ids) + 1):
        assert [row["id"] for row in pages(filled, name, limit=limit)] == ids


@pytest.mark.parametrize("name", LISTS)
def test_limits_and_cursors_of_the_wrong_shape(service, name):
    for params in ({"limit": 0}, {"limit": 1001}, {"limit": -1}, {"limit": "x"}, {"limit": "1e2"},
                   {"limit": "99999999999999999999"}, {"cursor": "x"}, {"cursor": "-1"},
                   {"cursor": "1-2"}, {"cursor": "1 OR 1"}, {"cursor": "9" * 100}):
        answer = service.get(LISTS[name], params=params)
        assert answer.status_code == 422, (params, answer.text)
        assert answer.json()["detail"][0]["loc"] == ["query", next(iter(params))]
    assert service.ok("GET", LISTS[name], params={"limit": 1000})[name] == []


def test_the_default_is_a_hundred(service):
    for i in range(101):
        service.check("d%03d" % i)
    assert len(service.list("devices")) == 100
    assert len(pages(service, "devices")) == 101


def test_rows_that_come_meanwhile_do_not_disturb(filled):
    before = [u["id"] for u in filled.list("updates")]
    counter = iter(range(1000))

    def more():
        for _ in range(3):
            filled.report("new-%d" % next(counter), "9", "failed")

    assert [u["id"] for u in pages(filled, "updates", more, limit=5)] == before


def test_devices_by_last_contact(filled):
    assert [d["device_id"] for d in filled.list("devices")] == \
        ["d%02d" % i for i in reversed(range(23))]
    filled.check("d05")
    filled.report("d03", "1.0.0", "downloading")
    assert [d["device_id"] for d in filled.list("devices")][:3] == ["d03", "d05", "d22"]
    seen = [d["last_seen"] for d in filled.list("devices")]
    assert seen == sorted(seen, reverse=True)
    filled.restart()
    assert [d["device_id"] for d in filled.list("devices")][:3] == ["d03", "d05", "d22"]


def test_each_device_not_heard_of_since_comes_exactly_once(filled):
    heard = set()
    order = iter(["d00", "d22", "d10", "d01", "d11", "d15", "fresh-1", "d02"])

    def contact():
        one = next(order, None)
        if one:
            filled.check(one)
            heard.add(one)

    rows = [d["device_id"] for d in pages(filled, "devices", contact, limit=4)]
    assert len(rows) == len(set(rows)), "a device came twice"
    quiet = {"d%02d" % i for i in range(23)} - heard
    assert quiet <= set(rows)


def test_filters(filled):
    filled.check("other", "1.0.0", "esp8266")
    assert [d["device_id"] for d in filled.list("devices", device_model="esp8266")] == ["other"]
    assert {r["device_model"] for r in filled.list("releases", device_model="esp32")} == {"esp32"}
    assert filled.list("releases", device_model="none") == []
    filled.report("d01", "1.6.0", "failed")
    assert [u["device_id"] for u in filled.list("updates", status="failed")] == ["d01"]
    assert {u["device_id"] for u in filled.list("updates", device_id="d02")} == {"d02"}
    assert filled.list("updates", firmware_version="1.5.0") == []
    assert len(filled.list("updates", firmware_version="1.6.0")) == 23
    number = filled.list("rollouts")[0]["id"]
    assert len(filled.list("updates", rollout_id=number)) == 23
    assert {e["rollout_id"] for e in filled.list("events", rollout_id=number)} == {number}
    assert {e["event_type"] for e in filled.list("events", event_type="rollout_created")} == \
        {"rollout_created"}
    assert {e["device_id"] for e in filled.list("events", device_id="d01")} == {"d01"}
    assert filled.get(LISTS["updates"], params={"status": "done"}).status_code == 422
    assert filled.get(LISTS["updates"], params={"rollout_id": "x"}).status_code == 422
    # Filters and pages together.
    assert len(pages(filled, "updates", rollout_id=number, limit=5)) == 23
    assert len(pages(filled, "devices", device_model="esp32", limit=5)) == 23


@pytest.mark.parametrize("method, path, name", [
    ("GET", "devices", "device_model"), ("GET", "devices", "group"),
    ("GET", "firmware/releases", "device_model"), ("GET", "firmware/releases", "version"),
    ("GET", "update-status", "device_id"), ("GET", "update-status", "firmware_version"),
    ("GET", "events", "firmware_version"), ("GET", "rollouts", "firmware_version"),
    ("DELETE", "firmware/releases/1.6.0", "device_model"),
    ("POST", "devices/d01/retry", "firmware_version")])
def test_a_plus_in_a_filter_is_explained(filled, method, path, name):
    answer = filled.request(method, "/api/admin/%s?%s=1.6.0+7" % (path, name))
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"][0]["loc"] == ["query", name] and "%2B" in answer.text
    answer = filled.request(method, "/api/admin/%s?%s=1.6.0%%2B7" % (path, name))
    assert answer.status_code == (404 if method == "DELETE" else 200), answer.text


def test_what_was_not_understood(service):
    assert service.list("rejected") == []
    rows = [("a", "paku/edge/a/status", b'{"x":1}', "field"), (None, "x/y", b"\0\xff\xc3", "topic"),
            ("a", "paku/edge/a/ota/result", "ü\u202e\n\x1b".encode(), "not_json"),
            ("b", "paku/edge/b/ota/result", b"", "empty")]
    service.stop()
    reject(service, rows)
    service.start()
    shown = service.list("rejected")
    assert [(r["device_id"], r["topic"], r["reason"]) for r in shown] == \
        [(d, t, why) for d, t, _, why in reversed(rows)]
    assert [r["payload"] for r in shown] == ["", "ü\u202e\n\x1b", "\0\ufffd\ufffd", '{"x":1}']
    assert shown[0]["detail"] == "a sentence" and shown[0]["created_at"].endswith("Z")
    assert [r["topic"] for r in service.list("rejected", device_id="a")] == \
        ["paku/edge/a/ota/result", "paku/edge/a/status"]
    assert [r["device_id"] for r in service.list("rejected", reason="empty")] == ["b"]
    assert service.list("rejected", device_id="a", reason="empty") == []


def test_events_of_the_contract(filled):
    filled.session.get(filled.check("d01")["download_url"])
    filled.report("d01", "1.6.0", "success")
    filled.report("d02", "1.6.0", "failed")
    filled.report("d03", "1.6.0", "rolled_back")
    filled.ok("POST", "/api/admin/rollout/%d/deactivate" % filled.list("rollouts")[0]["id"])
    events = filled.list("events", limit=1000)
    assert {"firmware_uploaded", "rollout_created", "rollout_updated", "update_started",
            "update_completed", "update_failed", "rollback_initiated"} <= \
        {e["event_type"] for e in events}
    for event in events:
        assert set(event) >= {"id", "event_type", "device_id", "firmware_version", "rollout_id",
                              "event_data", "created_at", "created_by"}
        assert event["event_data"] is None or isinstance(event["event_data"], dict)


def test_metrics_in_json(filled):
    filled.check("other", "1.0.0", "esp8266")
    for accept in (None, "*/*", "application/json", "application/json, text/plain;q=0.5"):
        answer = filled.session.get(filled.url + "/metrics",
                                    headers={"Accept": accept} if accept else {})
        assert answer.headers["Content-Type"] == "application/json"
        body = answer.json()
        assert body["total_devices"] == 24 and body["active_rollouts"] == 7
        assert body["devices_by_model"] == {"esp32": 23, "esp8266": 1}
        assert isinstance(body["recent_updates_24h"], int)


def test_counters_move(service):
    one = service.ok("GET", "/metrics")
    service.release(images.esp32("1.0.0"), "1.0.0")
    service.session.get(service.url + "/api/firmware/download/1.0.0")
    two = service.ok("GET", "/metrics")
    assert two["http_requests_total"] > one["http_requests_total"]
    assert two["downloads_total"] == one["downloads_total"] + 1
    assert two["total_releases"] == 1
