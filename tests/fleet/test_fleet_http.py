# SPDX-License-Identifier: MIT
"""A fleet over HTTP against a real service: what both say in the end."""
import json
import re
import signal

from service import wait_for

FIELD = ("fail:4=3,fail:2=3,fail:3=3,brick=2,roll_back=3,lie=3,power_loss=15,twice=10,"
         "broken_link=10,slow:200000=10,late:1=10,out_of_order:1=10,duty:2/1=10")


def test_two_hundred_devices_end_consistent(fleet, services):
    service = services()
    done = fleet("run", "--http", "--devices", 200, "--poll", 1, service=service)
    assert done.returncode == 0, done.out + done.err
    assert re.search(r"^consistent: .*\(200 devices, 200 attempts\)$", done.out, re.M), done.out
    assert "versions   1.2.0 200" in done.out


def test_the_field_with_all_its_habits(fleet, services):
    service = services()
    told = fleet.json("run", "--http", "--devices", 200, "--seed", 7, "--poll", 1, "--habits", FIELD,
                      service=service)
    assert told["consistent"] is True and told["differences"] == 0
    for outcome in ("success", "failed", "rolled_back", "bricked"):
        assert told["attempts"][outcome] > 0, told
    assert told["http"]["corrupt"] == 0 and told["http"]["images"] > 150
    rows = service.list("updates", limit=1000)
    assert {"success", "failed", "rolled_back", "installing"} == {r["status"] for r in rows}
    assert any(r["error_message"].startswith("install failed") for r in rows if r["error_message"])


def test_the_same_seed_gives_the_same_record(fleet, services, tmp_path):
    def start(name, seed):
        return name, fleet.start("run", "--http", "--devices", 100, "--seed", seed, "--poll", 1,
                                 "--habits", FIELD, "--json", "--record", tmp_path / name,
                                 service=services("service-" + name))

    def end(name, process):
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
        return (tmp_path / name).read_text()

    runs = [start("first", 11), start("again", 11), start("other", 12)]
    first, again, other = [end(*run) for run in runs]
    assert first == again
    assert first.replace("fleet-11-", "") != other.replace("fleet-12-", "")
    rows = [json.loads(line) for line in first.splitlines()]
    assert len(rows) == 100 and rows[5]["device"] == "fleet-11-5"


def wait_until_seen(service, count):
    """Until each of so many devices has told after its start that it runs the new version."""
    def reasons():
        return [service.get("/api/admin/devices/fleet-1-%d/explain" % i).json().get("reason")
                for i in range(count)]
    wait_for(lambda: reasons() == count * ["up_to_date"], "the devices to run the new version")


def test_a_difference_is_found(fleet, services):
    service = services()
    process = fleet.start("run", "--http", "--devices", 10, "--poll", 1, "--until", "time",
                          "--duration", 60, "--settle", 1, service=service)
    wait_until_seen(service, 10)
    service.report("fleet-1-3", "9.9.9", "failed")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, out + err
    assert "1 differences" in out
    assert re.search(r"^  fleet-1-3: the service has a failed attempt \S+ at 9.9.9 that the "
                     r"device never saw$", out, re.M), out


def test_a_version_that_was_not_said_is_found(fleet, services):
    service = services()
    process = fleet.start("run", "--http", "--devices", 3, "--poll", 5, "--until", "time",
                          "--duration", 60, "--settle", 0, "--json", service=service)
    wait_until_seen(service, 3)
    service.check("fleet-1-1", version="7.0.0", model="sample")
    process.send_signal(signal.SIGINT)
    told = json.loads(process.communicate(timeout=60)[0])
    assert process.returncode == 1 and told["consistent"] is False
    assert "fleet-1-1: it runs 1.2.0, the service says 7.0.0" in told["first_differences"]


def test_only_twenty_differences_are_shown(fleet, services):
    service = services(rollout=False)
    process = fleet.start("run", "--http", "--devices", 30, "--until", "time", "--duration", 60,
                          "--settle", 0, service=service)
    wait_for(lambda: len(service.list("devices")) == 30, "the devices to be there")
    for i in range(30):
        service.report("fleet-1-%d" % i, "9.9.9", "failed")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "30 differences" in out and "  and 10 more" in out
    assert len(re.findall(r"^  fleet-1-\d+: ", out, re.M)) == 20


def test_without_a_key_nothing_is_compared(fleet, services):
    service = services()
    told = fleet.json("run", "--http", "--devices", 5, "--poll", 1, OTA_SERVICE_URL=service.url)
    assert told["consistent"] is None and "OTA_API_KEY" in told["not_compared"]


def test_with_head_alone_nothing_is_downloaded(fleet, services):
    told = fleet.json("run", "--http", "--devices", 20, "--poll", 1, "--no-download",
                      service=services())
    assert told["consistent"] is True
    assert told["attempts"]["success"] == 20
    assert told["http"]["images"] == 0


def test_a_habit_of_one_hardware_revision(fleet, services):
    service = services()
    told = fleet.json("run", "--http", "--devices", 20, "--poll", 1, "--hw", "A,B,C,D",
                      "--habits", "fail:9@B=100,fail:3@D=100,twice@A=100,twice@B=100",
                      service=service)
    assert told["consistent"] is True
    assert told["versions"] == {"1.0.0": 10, "1.2.0": 10}
    rows = {r["device_id"]: r for r in service.list("devices")}
    assert [rows["fleet-1-%d" % i]["hw"] for i in range(6)] == ["A", "B", "C", "D", "A", "B"]
    assert {r["hw"] for r in rows.values() if r["current_firmware_version"] == "1.2.0"} == {"A", "C"}


def test_a_busy_service_is_asked_when_it_says(fleet, fake):
    fake.checks = [(503, {"detail": "busy"}, {"Retry-After": "2"})]
    told = fleet.json("run", "--http", "--devices", 1, service=fake)
    first, second = [t for t, *_ in fake.of("/check")][:2]
    assert 1.9 < second - first < 4
    assert told["http"]["busy"] == 1


def test_a_service_that_says_to_come_in_days_is_not_asked_before(fleet, fake):
    fake.checks = [(503, {"detail": "busy"}, {"Retry-After": "90000"})]
    fleet.json("run", "--http", "--devices", 1, "--until", "time", "--duration", 3, service=fake)
    assert len(fake.of("/check")) == 1


def test_what_waits_is_still_to_come(fleet, fake):
    """One is updated and done while the other has still to wait for its place, or its turn."""
    fake.checks = [(200, fake.offer()),
                   (200, {"update_available": False, "reason": "waits_for_a_place"}),
                   (200, {"update_available": False, "reason": "waits_its_turn"}),
                   (200, fake.offer(attempt="bbbbbbbbbbbbb"))]
    told = fleet.json("run", "--http", "--devices", 2, "--poll", 1, service=fake)
    assert told["attempts"]["success"] == 2


def test_a_damaged_image_is_told(fleet, fake):
    fake.checks = [(200, fake.offer(checksum="0" * 64))]
    told = fleet.json("run", "--http", "--devices", 1, "--poll", 1, service=fake)
    assert told["http"]["corrupt"] == 1 and told["attempts"]["failed"] == 1
    assert fake.reports[-1]["status"] == "failed"
    assert fake.reports[-1]["error_message"].startswith("verification failed")


def test_a_broken_link_goes_on_by_range(fleet, fake):
    fake.checks = [(200, fake.offer())]
    told = fleet.json("run", "--http", "--devices", 1, "--poll", 1, "--habits", "broken_link=100",
                      service=fake)
    assert told["attempts"]["success"] == 1 and told["http"]["corrupt"] == 0
    assert [r for *_, r in fake.of("/1.2.0") if r], "no request by Range"


def test_reports_come_twice_and_in_their_order(fleet, fake):
    fake.checks = [(200, fake.offer())]
    fleet.json("run", "--http", "--devices", 1, "--poll", 1, "--habits", "twice=100", service=fake)
    words = [r["status"] for r in fake.reports]
    assert words == 2 * ["downloading"] + 2 * ["downloaded"] + 2 * ["installing"] + 2 * ["success"]


def test_the_screen(fleet, services):
    screen = fleet.on_terminal("run", "--http", "--devices", 20, "--poll", 1, "--until", "time",
                               "--duration", 60, service=services())
    try:
        screen.wait_text("success 20")
        shown = screen.screen()
        assert shown[0].startswith("paku-fleet   20 devices of sample, seed 1   running for ")
        assert shown[3].endswith("100 %")
        before = screen.before
        screen.send(b"q")
        assert screen.wait_exit() == 0
        assert "consistent" in screen.text() and screen.settings() == before
    finally:
        screen.close()


def test_ended_before_they_ask_again(fleet, services):
    """Some have said that they succeeded, and restart: the service has it that they run the new version."""
    service = services()
    run = fleet.start("run", "--http", "--devices", 20, "--poll", 1, "--until", "time",
                      "--duration", 60, service=service)
    wait_for(lambda: service.ok("GET", "/api/admin/rollouts/1")["counts"]["success"] > 0, "a success", every_s=0.001)
    run.send_signal(signal.SIGINT)
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 0 and "consistent" in out, out


def test_a_ramp(fleet, fake):
    """Ten devices at five a second: the last one starts after 1.8 s."""
    summary = fleet.json("run", "--http", "--devices", 10, "--ramp", 5, "--poll", 1, service=fake)
    assert summary["seconds"] >= 1.8


def test_ended_twice_at_once_is_ended_once(fleet, services):
    """As `timeout` and a terminal do it; the comparison comes all the same."""
    service = services()
    run = fleet.start("run", "--http", "--devices", 5, "--poll", 1, "--until", "time",
                      "--duration", 60, service=service)
    wait_for(lambda: len(service.list("devices")) == 5, "the fleet")
    run.send_signal(signal.SIGINT)
    run.send_signal(signal.SIGTERM)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
    assert "consistent: " in out
