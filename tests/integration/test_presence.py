# SPDX-License-Identifier: MIT
"""Devices that were heard over MQTT, as lists and explain show them."""
import datetime
import os
import re
import sqlite3

import pytest

import images

VERSION = "1.2.0"
NEVER = "1970-01-01T00:00:00.000001Z"


def ago(**span):
    then = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(**span)
    return then.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def link(service, device_id, online, since, **columns):
    """Writes what a status message over MQTT leaves, while the service is stopped."""
    columns = {"site": "paku", "topic_form": 1, "online": online, "presence_at": since, **columns}
    db = sqlite3.connect(os.path.join(service.data, "paku-ota.db"))
    done = db.execute("UPDATE devices SET %s WHERE device_id = ?" %
                      ", ".join("%s = ?" % name for name in columns),
                      [*columns.values(), device_id])
    assert done.rowcount == 1
    db.commit()
    db.close()


@pytest.fixture
def fleet(service):
    service.release(images.esp32(VERSION), VERSION)
    for name in ("asleep", "awake", "http", "unclear"):
        service.check(name)
    return service


def linked(service):
    service.stop()
    link(service, "asleep", 0, ago(hours=3, minutes=10))
    link(service, "awake", 1, ago(seconds=5), other_site="garage", conflict_at=ago(minutes=1))
    link(service, "unclear", None, None, site="shed", last_seen=NEVER)
    service.start()


def device(service, name):
    return service.ok("GET", "/api/admin/devices/" + name)


def test_lists_and_shows_tell_of_it(fleet):
    linked(fleet)
    rows = {d["device_id"]: d for d in fleet.list("devices")}
    for name, row in rows.items():
        one = device(fleet, name)
        assert {k: one[k] for k in row} == row
    keys = ("site", "online", "presence_since", "site_conflict")
    assert [rows["http"][k] for k in keys] == [None] * 4
    assert rows["asleep"]["site"] == "paku" and rows["asleep"]["online"] is False
    assert re.fullmatch(r"\d{4}-.*Z", rows["asleep"]["presence_since"])
    assert rows["awake"]["online"] is True
    assert set(rows["awake"]["site_conflict"]) == {"other_site", "at"}
    assert rows["awake"]["site_conflict"]["other_site"] == "garage"
    assert rows["asleep"]["site_conflict"] is None
    assert rows["unclear"]["site"] == "shed" and rows["unclear"]["online"] is None
    assert rows["unclear"]["presence_since"] is None


def test_a_device_that_was_never_seen(fleet):
    linked(fleet)
    assert device(fleet, "unclear")["last_seen"] is None
    assert fleet.explain("unclear")["last_seen"] is None
    # It is the last one of the list, once, on pages of any size.
    for limit in (1, 3, 4, 10):
        names, cursor = [], None
        while True:
            body = fleet.ok("GET", "/api/admin/devices",
                            params={"limit": limit, **({"cursor": cursor} if cursor else {})})
            names += [d["device_id"] for d in body["devices"]]
            cursor = body["next_cursor"]
            if cursor is None:
                break
        assert sorted(names) == ["asleep", "awake", "http", "unclear"] and names[-1] == "unclear"
    fleet.check("unclear")
    assert device(fleet, "unclear")["last_seen"] is not None
    assert fleet.list("devices")[0]["device_id"] == "unclear"


def test_explain_says_that_it_is_offline(fleet):
    linked(fleet)
    told = fleet.explain("asleep")
    assert told["online"] is False and told["offline_since"].endswith("Z")
    assert told["reason"] == "no_rollout" and "offline" not in told["sentence"]
    fleet.rollout(VERSION, name="r")
    told = fleet.explain("asleep")
    assert told["reason"] == "offered" and told["update_available"] is True
    assert told["sentence"] == ("It runs 1.0.0 and is offered 1.2.0 by rollout r; it is offline "
                                "since 3 h and will be told when it connects.")
    assert told["considered"][0]["reason"] == "offered"
    told = fleet.explain("awake")
    assert told["online"] is True and told["offline_since"] is None
    assert "offline" not in told["sentence"]
    told = fleet.explain("http")
    assert told["online"] is None and told["offline_since"] is None


@pytest.mark.parametrize("span,words", [
    ({"seconds": 15}, r"since \d\d s"), ({"minutes": 5}, "since 5 min"),
    ({"hours": 47}, "since 47 h"), ({"days": 9}, "since 9 d")])
def test_how_long(service, span, words):
    service.release(images.esp32(VERSION), VERSION)
    service.rollout(VERSION)
    service.check("d", VERSION)
    service.stop()
    link(service, "d", 0, ago(**span), current_firmware_version="1.0.0")
    service.start()
    assert re.search("it is offline " + words + " and will", service.explain("d")["sentence"])


def test_explain_says_that_one_under_way_is_offline(fleet):
    fleet.rollout(VERSION, name="r")
    fleet.session.get(fleet.check("asleep")["download_url"])
    linked(fleet)
    told = fleet.explain("asleep")
    assert told["reason"] == "in_progress"
    assert told["sentence"].endswith("for rollout r. It is offline since 3 h.")
    assert fleet.ok("POST", "/api/admin/stop-all", json={"reason": "x"})["status"] == "ok"
    assert fleet.explain("asleep")["reason"] == "in_progress"
    assert fleet.explain("awake")["reason"] == "stopped"
