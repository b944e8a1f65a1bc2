# SPDX-License-Identifier: MIT
"""Devices over MQTT, on the service's own broker: commands out; status, progress and result in."""
import json
import os
import re
import signal
import socket
import subprocess
import time

import pytest

import images
from mqtt import Client, Device, MqttService
from service import wait_for


@pytest.fixture
def services(tmp_path):
    made = []

    def make(name="service", **more):
        service = MqttService(tmp_path / name, **more)
        made.append(service)
        return service.start()

    yield make
    for service in made:
        service.stop()


@pytest.fixture
def service(services):
    return services()


def released(service, version="1.2.0", **rollout):
    service.release(images.esp32(version), version)
    return service.rollout(version, **rollout)


def test_a_device_is_told(service):
    topic = "paku/edge/esp32_001/status"
    listener = Client(service.mqtt_port).subscribe("paku/edge/esp32_001/cmd/ota")
    subprocess.run(["mosquitto_pub", "-p", str(service.mqtt_port), "-t", topic, "-r", "-m",
                    '{"device_model":"esp32","firmware_version":"1.0.0"}'], check=True)
    wait_for(lambda: service.list("devices"), "the device to be registered")
    service.release(images.esp32("1.2.0"), "1.2.0")
    service.rollout("1.2.0", name="prod")
    wait_for(lambda: listener.received, "the command")
    (where, payload), = listener.received
    row = service.update_of("esp32_001")
    assert row["status"] == "pending"
    command = json.loads(payload)
    assert command["version"] == "1.2.0"
    assert command["checksum"] == service.list("releases")[0]["checksum_sha256"]
    assert command["url"].startswith("http://127.0.0.1:%d/api/firmware/download/1.2.0?attempt="
                                     % service.port)
    assert b" " not in payload
    assert set(command) == {"url", "checksum", "version"}
    answer = service.session.get(command["url"])
    assert answer.status_code == 200
    listener.close()


def test_the_packet_fits_what_devices_can_hold(service):
    """PubSubClient drops packets of over 256 bytes: fixed header, topic, id, payload."""
    version = "a1b2c3d-20251208-153045"
    device = Device(service, version="a1b2c3c-20251207-153045")
    service.release(images.esp32(version), version)
    service.rollout(version)
    device.command()
    (topic, payload), = device.received
    longest_host = len("192.168.100.100:8080") - len("127.0.0.1:%d" % service.port)
    assert 3 + 2 + len(topic) + 2 + len(payload) + longest_host <= 256
    device.close()


def test_an_update_by_hand(service):
    device = Device(service)
    released(service)
    device.command()
    device.accepted("1.2.0")
    device.progress("Downloading", 10)
    wait_for(lambda: service.update_of("esp32_001")["status"] == "downloading", "the download")
    assert service.update_of("esp32_001")["started_at"]
    device.progress("Verifying", 100)
    wait_for(lambda: service.update_of("esp32_001")["status"] == "downloaded", "the check")
    device.progress("Installing", 100)
    wait_for(lambda: service.update_of("esp32_001")["status"] == "installing", "the installation")
    device.result("1.2.0")
    wait_for(lambda: service.update_of("esp32_001")["status"] == "success", "the result")
    device.progress("Downloading", 50)
    device.result("1.2.0")
    device.birth("1.2.0")
    wait_for(lambda: service.list("devices")[0]["current_firmware_version"] == "1.2.0", "the birth")
    assert [row["status"] for row in service.list("updates")] == ["success"]
    events = service.events("esp32_001")
    for once in ("device_registered", "update_offered", "update_accepted", "update_started",
                 "update_completed"):
        assert events.count(once) == 1, events
    assert len(device.commands()) == 1
    device.close()


def test_a_failure_has_its_name_and_the_devices_words(service):
    device = Device(service)
    released(service)
    device.command()
    device.result("1.2.0", 2, "connection reset")
    row = wait_for(lambda: (r := service.update_of("esp32_001"))["status"] == "failed" and r,
                   "the failure")
    assert row["error_message"] == "download failed: connection reset"
    device.close()


def test_who_started_anew_is_told_again_when_its_window_has_passed(services):
    """Without a last will, too: another boot_id says that it may have lost what it was told."""
    service = services(env={"OTA_COMMAND_TIMEOUT_S": 3})
    device = Device(service, boot_id="one")
    released(service)
    device.command()
    device.command(2)  # the next one would come five windows later
    begun = time.monotonic()
    device.facts["boot_id"] = "two"
    device.birth()
    device.command(3)
    assert time.monotonic() - begun < 14
    assert len(service.list("updates")) == 1
    device.close()


def test_after_a_failure_it_is_told_again_when_its_time_has_come(services):
    service = services(env={"OTA_POLL_INTERVAL_S": 4})
    device = Device(service)
    released(service)
    first = device.command()
    device.result("1.2.0", 4, "first")
    begun = time.monotonic()
    second = device.command(2)
    assert time.monotonic() - begun > 3 and second["url"] != first["url"]
    device.result("1.2.0", 4, "second")
    wait_for(lambda: service.update_of("esp32_001")["error_message"] == "install failed: second",
             "the second failure")
    service.ok("POST", "/api/admin/devices/esp32_001/retry")
    begun = time.monotonic()
    device.command(3)
    assert time.monotonic() - begun < 7  # by itself it would wait for eight
    device.close()


def test_older_devices_are_answered_on_their_topics(service):
    device = Device(service, "old_1", form="devices")
    released(service)
    assert device.command()["version"] == "1.2.0"
    device.result("1.2.0")
    wait_for(lambda: service.update_of("old_1")["status"] == "success", "the result")
    device.close()


def test_sites_are_any_level(service):
    device = Device(service, "far", site="plant-7")
    released(service)
    device.command()
    assert device.received[0][0] == "plant-7/edge/far/cmd/ota"
    device.close()


def test_who_is_offline_is_told_when_it_comes(service):
    device = Device(service)
    wait_for(lambda: service.list("devices"), "the device")
    device.vanish()
    wait_for(lambda: service.get("/api/admin/devices/esp32_001").json().get("online") is False,
             "the last will")
    released(service)
    watcher = Client(service.mqtt_port).subscribe("paku/edge/esp32_001/cmd/ota")
    explained = service.ok("GET", "/api/admin/devices/esp32_001/explain")
    assert "offline" in explained["sentence"] and explained["reason"] == "offered"
    other = Device(service, "esp32_002")
    other.command()
    assert not watcher.received and service.update_of("esp32_001") is None
    again = Device(service)
    assert again.command()["version"] == "1.2.0"
    for client in (watcher, other, again):
        client.close()


def test_who_is_first_heard_of_as_it_goes_is_known_as_what_it_says(service):
    client = Client(service.mqtt_port)
    client.publish("paku/edge/gone/status", {"device_model": "esp32", "firmware_version": "1.0.0", "online": False})
    row = wait_for(lambda: service.list("devices"), "the device")[0]
    assert (row["device_model"], row["current_firmware_version"], row["online"]) == ("esp32", "1.0.0", False)
    assert service.events("gone") == ["device_registered"]
    released(service)
    assert service.explain("gone")["sentence"].endswith("and will be told when it connects.")
    client.close()


def test_a_deactivated_rollout_sends_nothing_more(services):
    service = services(env={"OTA_COMMAND_TIMEOUT_S": 1})
    device = Device(service)
    rollout = released(service)
    url = device.command()["url"]
    service.ok("POST", "/api/admin/rollout/%d/deactivate" % rollout)
    assert service.session.get(url).status_code == 410
    late = Device(service, "esp32_009")
    wait_for(lambda: len(service.list("devices")) == 2, "the second device")
    last = Device(service, "esp32_010")
    service.rollout("1.2.0", target_type="specific", name="one",
                    target_filter={"device_ids": ["esp32_010"]})
    last.command()
    assert len(device.commands()) == 1 and not late.commands()
    for client in (device, late, last):
        client.close()


def test_an_unanswered_command_is_sent_again_in_its_time(services):
    """With a window of 1 s: after 1, 5 and 30 s; here the first two."""
    service = services(env={"OTA_COMMAND_TIMEOUT_S": 1})
    device = Device(service)
    released(service)
    first = device.command()
    begun = time.monotonic()
    assert device.command(2) == first
    assert time.monotonic() - begun > 0.8
    device.accepted("1.2.0")
    assert service.update_of("esp32_001")["status"] == "pending"
    assert [row["status"] for row in service.list("updates")] == ["pending"]
    device.close()


def test_who_never_answers_is_left_alone_until_it_is_seen(services):
    """The four commands come at 0, 1, 6 and 36 s with a window of 1 s: here the last is behind it."""
    service = services(env={"OTA_COMMAND_TIMEOUT_S": 1})
    device = Device(service)
    released(service)
    device.command()
    service.stop()
    service.sql("UPDATE device_update_status SET commands = 4")
    device.close()
    service.start()
    row = wait_for(lambda: (r := service.update_of("esp32_001"))["completed_at"] and r, "the lapse")
    assert (row["status"], row["closed"], row["why"]) == ("pending", "lapsed", "unanswered")
    [event] = service.list("events", device_id="esp32_001", event_type="update_lapsed")
    assert event["event_data"]["why"] == "unanswered"
    other = Device(service, "esp32_002")
    other.command()
    assert len(service.list("updates", device_id="esp32_001")) == 1
    again = Device(service)
    again.command()
    assert len(service.list("updates", device_id="esp32_001")) == 2
    for client in (other, again):
        client.close()


def test_nothing_is_sent_twice_within_its_window_after_a_crash(service):
    device = Device(service)
    released(service)
    device.command()
    port = service.mqtt_port
    service.kill()
    service.extra["MQTT_PORT"] = port
    wait_for(lambda: not alive(port), "the broker to end with its parent")
    service.start()
    wait_for(lambda: service.connected(), "the connection")
    device.close()
    again = Device(service)
    other = Device(service, "esp32_002")
    other.command()
    assert not again.commands()
    assert len(service.list("updates")) == 2
    for client in (again, other):
        client.close()


def alive(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def test_what_cannot_be_understood_is_kept_and_blocks_nobody(service):
    bad = Client(service.mqtt_port)
    for payload in ("", "{", "[" * 65000, b"\xff\xfe", '{"state":"Flying","percent":3}',
                    '{"state":"Downloading","percent":101}'):
        bad.publish("paku/edge/esp32_001/ota/progress", payload)
    bad.publish("paku/edge/esp32_001/ota/result", {"version": "x" * 10000, "success": True})
    bad.publish("paku/edge/esp32_001/status", {"device_id": "other", "device_model": "esp32"})
    device = Device(service)
    wait_for(lambda: service.list("devices"), "the device after all of them")
    answer = service.get("/api/admin/rejected")
    assert answer.status_code == 200, answer.text
    rejected = answer.json()["rejected"]
    assert len(rejected) == 8
    assert {r["device_id"] for r in rejected} == {"esp32_001"}
    assert all(r["detail"] and r["reason"] and len(r["payload"]) <= 512 for r in rejected)
    for client in (bad, device):
        client.close()


def test_a_result_of_what_nobody_knows_is_recorded_as_said(service):
    client = Client(service.mqtt_port)
    client.publish("paku/edge/stranger/ota/result", {"version": "9.9.9", "success": True,
                                                     "result_code": 0})
    row = wait_for(lambda: service.update_of("stranger"), "the record")
    assert (row["firmware_version"], row["status"]) == ("9.9.9", "success")
    assert service.list("devices")[0]["device_model"] is None
    client.close()


def test_a_retained_copy_is_no_contact(service):
    Device(service, "kept", birth=False).birth(retain=True)
    seen = wait_for(lambda: service.list("devices"), "the device")[0]["last_seen"]
    service.restart()
    time_after = service.list("devices")[0]
    assert time_after["last_seen"] == seen


def test_the_broker_is_started_again(service):
    device = Device(service)
    released(service)
    device.command()
    with open(os.path.join(service.data, "mosquitto", "pid")) as f:
        pid = int(f.read().split()[0])
    device.ready.clear()
    os.kill(pid, 9)
    wait_for(lambda: re.search("disconnected", service.log()), "the loss to be seen")
    assert service.get("/health").status_code == 200
    wait_for(service.connected, "the connection", 30)
    assert device.ready.wait(30), "the device does not come back"
    device.result("1.2.0")
    wait_for(lambda: service.update_of("esp32_001")["status"] == "success", "the result", 30)
    device.close()


def test_commands_come_at_the_pace_that_is_set(services):
    service = services(env={"OTA_DISPATCH_PER_SECOND": 20})
    client = Client(service.mqtt_port).subscribe("paku/edge/+/cmd/ota")
    for n in range(60):
        client.publish("paku/edge/d%02d/status" % n,
                       {"device_model": "esp32", "firmware_version": "1.0.0"})
    wait_for(lambda: len(service.list("devices")) == 60, "the devices")
    released(service)
    begun = time.monotonic()
    wait_for(lambda: len(client.received) == 60, "all commands", 30)
    assert time.monotonic() - begun > 1.5
    assert len({topic for topic, _ in client.received}) == 60
    client.close()


def test_no_more_download_than_may(services):
    service = services(env={"OTA_MAX_DOWNLOADS": 2})
    devices = [Device(service, "d%d" % n) for n in range(4)]
    wait_for(lambda: len(service.list("devices")) == 4, "the devices")
    released(service)
    wait_for(lambda: sum(len(d.commands()) for d in devices) == 2, "two commands")
    waiting = [d for d in devices if not d.commands()]
    explained = service.ok("GET", "/api/admin/devices/%s/explain" % waiting[0].id)
    assert explained["reason"] == "waits_its_turn"
    for device in devices:
        if device.commands():
            device.result("1.2.0")
    for device in waiting:
        device.command()
    for device in devices:
        device.close()


def test_the_broker_keeps_what_a_service_that_hangs_cannot_take(service):
    """More than 100,000 messages, all of them acknowledged to the devices."""
    say = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(service.mqtt_port), "-q", "1", "-l"]
    before = service.ok("GET", "/metrics")["mqtt_messages_total"]
    os.kill(service.process.pid, signal.SIGSTOP)
    try:
        devices = [subprocess.Popen([*say, "-t", "paku/edge/d%d/ota/progress" % n],
                                    stdin=subprocess.PIPE) for n in range(2)]
        # Fewer each than there are packet identifiers: past them the program forgets some.
        for one in devices:
            one.stdin.write(b'{"state":"Idle"}\n' * 60000)
            one.stdin.close()
        for one in devices:
            assert one.wait(60) == 0
    finally:
        os.kill(service.process.pid, signal.SIGCONT)
    wait_for(lambda: service.ok("GET", "/metrics")["mqtt_messages_total"] == before + 120000,
             "all messages", 60)
