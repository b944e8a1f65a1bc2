# SPDX-License-Identifier: MIT
"""Options, scenario files and their mistakes; and the page about it all."""
import os
import re

import pytest

from service import ROOT

BAD_OPTIONS = [
    (["run", "--devices", "0"], "--devices is a whole number from 1 to 100000, not '0'"),
    (["run", "--devices", "many"], "--devices is a whole number"),
    (["run", "--device", "5"], "did you mean --devices?"),
    (["run", "--model", "a b"], "--model is 1 to 120 of A-Z a-z 0-9 . _ + and -, not 'a b'"),
    (["run", "--version", ""], "--version is 1 to 120 of"),
    (["run", "--connections", "none"], "--connections is a whole number from 1 to 10000, or 'each'"),
    (["run", "--broker", "host:port"], "--broker is HOST, HOST:PORT or mqtts://HOST[:PORT], not 'host:port'"),
    (["run", "--broker", ":1883"], "--broker is HOST, HOST:PORT or mqtts://HOST[:PORT], not ':1883'"),
    (["run", "--broker", "h:70000"], "--broker is HOST, HOST:PORT or mqtts://HOST[:PORT], not 'h:70000'"),
    (["run", "--ramp", "0"], "--ramp is a whole number from 1 to 100000, not '0'"),
    (["run", "--http", "--broker", "h"], "--broker does not go with --http"),
    (["run", "--poll", "3"], "--poll goes with --http alone"),
    (["run", "--until", "time"], "--until time needs --duration"),
    (["run", "--until", "dawn"], "--until is one of done time, not 'dawn'"),
    (["run", "--site", "a/b"], "--site is one level of a topic, not 'a/b'"),
    (["run", "--qos", "2"], "--qos is a whole number from 0 to 1, not '2'"),
    (["run", "--habits", "brik=3"], "--habits: there is no habit 'brik'; habits are fail, brick,"),
    (["run", "--habits", "brick"], "--habits: 'brick' is not NAME=PERCENT or NAME:VALUE=PERCENT"),
    (["run", "--habits", "brick=101"], "--habits: '101' is no percentage from 0 to 100"),
    (["run", "--habits", "brick=3,"], "--habits: '' is not NAME=PERCENT"),
    (["run", "--habits", "fail:12=3"], "--habits: '12' is no value of 'fail'"),
    (["run", "--habits", "fail:10=3"], "--habits: '10' is no value of 'fail'"),
    (["run", "--habits", "duty:5=3"], "--habits: '5' is no value of 'duty'"),
    (["run", "--habits", "duty:60/2700000=3"], "--habits: '60/2700000' is no value of 'duty'"),
    (["run", "--habits", "brick@C=3"], "the habit 'brick' is of devices of revision 'C', and there are none"),
    (["run", "--hw", "A,B", "--habits", "fail:4@=3"], "--habits: a hardware revision is 1 to 32 of A-Z"),
    (["run", "--hw", "A,B", "--habits", "slow@A=3,slow=1"], "the habit 'slow' is given twice"),
    (["run", "--hw", "A,B", "--habits", "brick@A=60,fail=9,lie@A=40"], "and make 109 % together"),
    (["run", "--hw", "A,"], "--hw: a hardware revision is 1 to 32 of A-Z a-z 0-9 . _ + and -, not ''"),
    (["run", "--hw", "A,B,A"], "--hw: the hardware revision 'A' is given twice"),
    (["run", "--hw", ",".join(map(str, range(33)))], "--hw: more than 32 hardware revisions"),
    (["run", "--habits", "twice:5=3"], "--habits: '5' is no value of 'twice'"),
    (["run", "--habits", "late=1,late=1"], "--habits: the habit 'late' is given twice"),
    (["run", "--habits", "fail:2=60,fail:4=50"], "exclude each other, and make 110 % together"),
    (["run", "--scenario", "/none"], "cannot open the scenario /none"),
    (["run", "extra"], "'extra' is one argument too many for 'run'"),
    (["replay"], "something is missing: paku-fleet replay FILE"),
    (["walk"], "there is no command 'walk'"),
    ([], "Usage: paku-fleet"),
]

BAD_SCENARIOS = [
    ("", "line 1: "),
    ("[]", "must be a JSON object"),
    ('{\n"habits": [}', "line 2: "),
    ('{"habit": []}', 'knows no "habit", but about, hw, install_s, reboot_s and habits'),
    ('{"habits": {}}', '"habits" must be a list'),
    ('{"habits": [3]}', "habits[0]: must be an object like {"),
    ('{"habits": [{"habit": "brick"}]}', 'habits[0]: "percent" (of the fleet) is missing'),
    ('{"habits": [{"habit": "brick", "percent": "5"}]}',
     'habits[0]: "percent" must be a number from 0 to 100'),
    ('{"habits": [{"habit": "twice", "percent": 5}, {"habit": "nap", "percent": 5}]}',
     "habits[1]: there is no habit 'nap'; habits are fail,"),
    ('{"habits": [{"habit": "fail", "percent": 5, "code": 4.5}]}',
     'habits[0]: "code" must be a whole number'),
    ('{"habits": [{"habit": "fail", "percent": 5, "code": 10}]}',
     'habits[0]: "code" 10 (already running) is no failure'),
    ('{"habits": [{"habit": "brick", "percent": 5, "code": 4}]}',
     "habits[0]: the habit 'brick' knows no \"code\""),
    ('{"hw": "A"}', '"hw" must be a list of words'),
    ('{"hw": ["A", 1]}', "hw[1]: a hardware revision is 1 to 32 of"),
    ('{"hw": ["A"], "habits": [{"habit": "brick", "percent": 5, "hw": "B C"}]}',
     "habits[0]: a hardware revision is 1 to 32 of"),
    ('{"install_s": [3]}', '"install_s" must be seconds, or [least, most]'),
    ('{"reboot_s": [3, 1]}', '"reboot_s" must be [least, most], not the reverse'),
    ('{"install_s": -1}', '"install_s" must be a number from 0 to 86400'),
    ('{"about": 1, "about": 2}', "duplicate object key"),
]


@pytest.mark.parametrize("args, words", BAD_OPTIONS, ids=lambda x: " ".join(x)[:40])
def test_bad_options_are_exit_code_2(fleet, args, words):
    done = fleet(*args)
    assert done.returncode == 2 and words in done.err, done.err
    assert not done.out


@pytest.mark.parametrize("text, words", BAD_SCENARIOS, ids=range(len(BAD_SCENARIOS)))
def test_a_bad_scenario_says_where(fleet, tmp_path, text, words):
    path = tmp_path / "scenario.json"
    path.write_text(text)
    done = fleet("run", "--http", "--scenario", path)
    assert done.returncode == 2 and words in done.err and str(path) in done.err, done.err


def test_service_and_broker_that_are_not_there(fleet, fake):
    done = fleet("run", "--http", "--devices", 1, "--server", "http://127.0.0.1:1")
    assert done.returncode == 3 and "cannot reach http://127.0.0.1:1" in done.err
    done = fleet("run", "--devices", 1, "--broker", "127.0.0.1:1", service=fake)
    assert done.returncode == 3 and "no broker answers at 127.0.0.1:1" in done.err
    done = fleet("run", "--devices", 1, "--broker", "no-such-host.invalid", service=fake)
    assert done.returncode == 3 and "no-such-host.invalid" in done.err


def test_a_wrong_key(fleet, services):
    service = services(rollout=False)
    done = fleet("run", "--http", "--devices", 1, "--duration", 1, service=service, OTA_API_KEY="wrong")
    assert done.returncode == 4 and "the service refuses the key" in done.err


def test_more_connections_than_open_files(fleet, fake):
    import subprocess
    from fleet_program import PROGRAM
    done = subprocess.run(["bash", "-c", "ulimit -n 300 && exec \"$@\"", "-", PROGRAM, "run",
                           "--devices", "500", "--connections", "each"], text=True,
                          capture_output=True, env=fleet.environment(fake), timeout=60)
    assert done.returncode == 2 and "open files are needed and 300 allowed" in done.stderr


# --- the page ---

def page():
    with open(os.path.join(ROOT, "docs", "simulator.md"), encoding="utf-8") as f:
        return f.read()


def test_every_option_and_habit_is_on_the_page(fleet):
    text = page()
    for command in ("run", "replay"):
        shown = fleet(command, "--help")
        assert shown.returncode == 0
        options = set(re.findall(r"^  --([a-z-]+)", shown.out, re.M)) - {"help", "cacert"}
        missing = {o for o in options if "`--%s" % o not in text}
        assert len(options) > 3 and not missing, missing
    habits = fleet("run", "--habits", "x=1").err.split("habits are ")[1].split("\n")[0].split(", ")
    assert len(habits) == 12
    assert not {h for h in habits if "`%s`" % h not in text}


def test_the_scenarios_of_the_page_are_understood(fleet, tmp_path, services):
    """Its lines as they stand, but few devices, a short time, and no broker."""
    service = services()
    blocks = re.findall(r"^```json\n(.*?)^```$", page(), re.M | re.S)
    assert blocks
    for i, block in enumerate(blocks):
        path = tmp_path / ("scenario-%d.json" % i)
        path.write_text(block)
        told = fleet.json("run", "--http", "--devices", 5, "--poll", 1, "--duration", 2, "--scenario",
                          path, service=service)
        assert told["devices"] == 5
    lines = re.findall(r"^paku-fleet run (.*)$", page(), re.M)
    assert len(lines) >= 3
    for line in lines:
        habits = re.search(r"--habits (\S+)", line)
        if habits:
            told = fleet.json("run", "--http", "--devices", 2, "--poll", 1, "--duration", 1, "--habits",
                              habits.group(1), service=service)
            assert told["devices"] == 2
