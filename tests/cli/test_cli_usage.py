# SPDX-License-Identifier: MIT
"""The command line itself: help, mistakes, completion, exit codes, server and key."""

import os
import re
import subprocess
import termios

import pytest
from cli_fake_service import KEY
from cli_program import ROOT

COMMANDS = ["upload", "rollout", "rollout create", "rollout list", "rollout show", "rollout activate",
            "rollout deactivate", "rollout pause", "rollout resume", "rollout promote", "rollout approve",
            "rollout abort", "rollout rollback", "rollout plan", "rollout report", "policy", "policy replay", "log", "watch", "devices", "devices list", "devices show",
            "devices delete", "devices group", "devices label", "devices notes", "devices import",
            "windows", "windows list", "windows set", "windows remove", "releases", "releases list", "releases delete", "updates", "events", "rejected", "alerts", "explain",
            "retry", "stop-all", "resume-all", "status", "doctor", "backup", "login", "completion", "completion bash"]


def test_version(cli):
    run = cli("--version")
    assert (run.returncode, run.stderr) == (0, "")
    assert re.fullmatch(r"paku-ota \d+\.\d+\.\d+\n", run.stdout)


def test_nothing_said_prints_the_commands(cli):
    run = cli()
    assert run.returncode == 2
    assert run.stdout == ""
    assert "  upload FILE " in run.stderr


@pytest.mark.parametrize("command", [""] + COMMANDS)
def test_help(cli, command):
    run = cli(*command.split(), "--help")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("Usage: paku-ota " + command)
    assert "--server URL" in run.stdout
    assert max(len(line) for line in run.stdout.splitlines()) <= 100


def test_help_forgives_the_rest(cli):
    run = cli("upload", "--nonsense", "-h")
    assert run.returncode == 0
    assert "--min-version V" in run.stdout


def test_every_command_is_known(cli):
    """COMMANDS above is what the program says it has."""
    named = set()
    for line in cli("--help").stdout.split("Commands:")[1].split("\n\n")[0].strip().splitlines():
        name = line.split()[0]
        named.add(name)
        inside = cli(name, "--help").stdout
        if "Commands:" in inside:
            for sub in inside.split("Commands:")[1].split("\n\n")[0].strip().splitlines():
                named.add(name + " " + sub.split()[0])
    assert named == set(COMMANDS)


@pytest.mark.parametrize("args, sentence", [
    (["device"], "there is no command 'device'; did you mean 'devices'?"),
    (["frobnicate"], "there is no command 'frobnicate'"),
    (["rollout", "craete"], "did you mean 'create'?"),
    (["rollout"], "which command?"),
    (["devices", "--modle", "x"], "there is no option --modle here; did you mean --model?"),
    (["devices", "-x"], "there is no option -x; options are written --name"),
    (["devices", "--model"], "--model needs a value: --model M"),
    (["devices", "--model", "--json"], "--model needs a value"),
    (["devices", "--model", "a", "--model", "b"], "--model is given twice"),
    (["devices", "--json=yes"], "--json takes no value"),
    (["devices", "--limit", "0"], "--limit is a whole number from 1 to 100000000, not '0'"),
    (["devices", "--limit", "10x"], "--limit is a whole number"),
    (["devices", "--limit", "99999999999999999999"], "--limit is a whole number"),
    (["devices", "show"], "something is missing: paku-ota devices show ID"),
    (["devices", "show", "a", "b"], "'b' is one argument too many for 'devices show'"),
    (["devices", "shwo", "a"], "'shwo' is one argument too many for 'devices list'"),
    (["upload", "x.bin", "--image-type", "elf"], "--image-type is one of auto esp raw, not 'elf'"),
    (["rollout", "create", "1.0", "--model", "m"], "say which devices get it"),
    (["rollout", "create", "1.0", "--all"], "rollout create needs --model"),
    (["rollout", "create", "1.0", "--model", "m", "--all", "--percent", "5"], "given twice"),
    (["rollout", "create", "1.0", "--model", "m", "--all", "--group", "g"], "given twice"),
    (["rollout", "create", "1.0", "--model", "m", "--percent", "101"], "from 1 to 100, not '101'"),
    (["rollout", "create", "1.0", "--model", "m", "--devices", ","], "--devices names no device"),
    (["rollout", "create", "1.0", "--model", "m", "--all", "--inactive", "--watch"], "nothing would"),
    (["rollout", "create", "1.0", "--model", "m", "--stages", "10", "--percent", "5"], "given twice"),
    (["rollout", "create", "1.0", "--model", "m", "--stages", "10", "--strategy", "full"], "not both"),
    (["rollout", "create", "1.0", "--model", "m", "--strategy", "yolo"], "one of canary-10"),
    (["rollout", "create", "1.0", "--model", "m", "--stages", "ten"], "'ten' is no stage"),
    (["rollout", "create", "1.0", "--model", "m", "--stages", "10:1w"], "'10:1w' is no stage"),
    (["rollout", "create", "1.0", "--model", "m", "--stages", "10,20:5h:2h"], "'20:5h:2h' is no stage"),
    (["rollout", "create", "1.0", "--model", "m", "--stages", "10:proven="], "is no stage"),
    (["rollout", "create", "1.0", "--model", "m", "--stages", "10:-5s"], "is no stage"),
    (["rollout", "create", "1.0", "--model", "m", "--stages", "10" * 90], "is no stage"),
    (["rollout", "pause", "7", "--stage", "0"], "--stage is a whole number"),
    (["releases", "delete", "1.0"], "delete needs --model"),
    (["devices", "group", "d", "put", "g"], "'add' or 'remove' stands before the group, not 'put'"),
    (["devices", "label", "d"], "either a text or --clear"),
    (["devices", "label", "d", "text", "--clear"], "either a text or --clear"),
    (["upload", "/nonexistent/x", "--version", "1", "--model", "m"], "cannot read /nonexistent/x"),
    (["upload", "/", "--version", "1", "--model", "m"], "/ is not a file"),
    (["upload", "x"], "upload needs --version"),
    (["stop-all"], "stop-all needs --reason"),
    (["stop-all", "--reason", ""], "stop-all needs --reason"),
    (["stop-all", "now"], "'now' is one argument too many for 'stop-all'"),
    (["rollout", "create", "1.0", "--model", "m", "--all", "--max-parallel", "-1"],
     "--max-parallel is a whole number from 0 to 1000000, not '-1'"),
    (["devices", "import", "/nonexistent/x"], "cannot read /nonexistent/x: No such file"),
])
def test_mistakes(cli, service, args, sentence):
    run = cli(*args)
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith("paku-ota: ")
    assert sentence in run.stderr
    assert service.requests == []


def test_options_stand_anywhere(cli, service):
    service.answer("GET", "/api/admin/devices/list", {"device_id": "list", "attempts": []})
    for args in (["--json", "devices", "show", "list"], ["devices", "--json", "show", "list"],
                 ["devices", "show", "--json", "--", "list"],
                 ["--server", service.url, "devices", "show", "list", "--json"],
                 ["devices", "--server=" + service.url + "/", "show", "list", "--json"]):
        run = cli(*args)
        assert run.returncode == 0, run.stderr
        assert '"device_id":"list"' in run.stdout


def test_output_that_cannot_be_written(cli, service):
    service.answer_list("/api/admin/devices", "devices", [])
    with open("/dev/full", "w") as full:
        run = subprocess.run([cli.program, "devices", "--json"], env=cli.env, stdout=full,
                             stderr=subprocess.PIPE, text=True, timeout=60)
    assert run.returncode == 2
    assert "cannot write the output: No space left on device" in run.stderr


# Where the server and the key come from


def test_default_server_and_unreachable(cli):
    run = cli("status", "--server", "http://127.0.0.1:1")
    assert run.returncode == 3
    assert "cannot reach http://127.0.0.1:1: nothing answers there" in run.stderr
    assert "--server URL or OTA_SERVICE_URL" in run.stderr


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://x", "http://", "http:///x", "http://a?b",
                                 "http://a b", "http://a\r\nX-Evil: 1"])
def test_addresses_that_are_none(cli, url):
    run = cli("status", "--server", url)
    assert run.returncode == 2
    assert "server" in run.stderr or "address" in run.stderr


def test_unknown_host(cli):
    run = cli("status", "--server", "http://no-such-host.invalid")
    assert run.returncode == 3
    assert "Could not resolve host" in run.stderr


def test_no_key(cli, service):
    run = cli("devices", env={"OTA_API_KEY": None})
    assert run.returncode == 4
    assert "no key for " + service.url in run.stderr
    assert "paku-ota login " + service.url in run.stderr
    assert "X-API-Key" not in service.requests[0].headers


def test_wrong_key(cli):
    run = cli("devices", "--json", env={"OTA_API_KEY": "wrong"})
    assert run.returncode == 4
    assert "the service refuses the key: Invalid API key" in run.stderr
    assert run.stdout == '{"detail":"Invalid API key"}\n'


@pytest.mark.parametrize("key", ["a b", "a\nX-Evil: 1", "ä"])
def test_key_that_is_none(cli, service, key):
    run = cli("devices", env={"OTA_API_KEY": key})
    assert run.returncode == 4
    assert "OTA_API_KEY: the key contains" in run.stderr
    assert service.requests == []


def test_redirect_is_not_followed(cli, service):
    service.answer("GET", "/api/admin/devices", (302, b""))
    run = cli("devices")
    assert run.returncode == 3
    assert "answers 302 and points to http://127.0.0.1:1/elsewhere" in run.stderr


@pytest.mark.parametrize("answer", [b"<html>hello</html>", b"", b"[1,2]", {"something": "else"}])
def test_answer_of_something_else(cli, service, answer):
    service.answer("GET", "/api/admin/devices", (200, answer))
    run = cli("devices")
    assert run.returncode == 3
    assert service.url in run.stderr


@pytest.mark.parametrize("status, detail, code, sentence", [
    (404, "no such thing", 1, "no such thing"),
    (409, "it is taken", 1, "it is taken"),
    (503, "come back later", 1, "come back later"),
    (500, "a bug", 1, "a bug"),
    (403, "not yours", 4, "not yours"),
    (422, [{"loc": ["query", "limit"], "msg": "must be 1 to 1000", "type": "int"},
           {"loc": ["body", "rows", 3, "name"], "msg": "is missing", "type": "missing"}], 1,
     "paku-ota: limit: must be 1 to 1000\n  rows 3 name: is missing\n"),
])
def test_refusals(cli, service, status, detail, code, sentence):
    service.answer("GET", "/api/admin/devices", (status, {"detail": detail}))
    run = cli("devices")
    assert run.returncode == code
    assert sentence in run.stderr
    assert run.stdout == ""


def test_refusal_without_json(cli, service):
    service.answer("GET", "/api/admin/devices", (502, b"<h1>Bad Gateway</h1>"))
    run = cli("devices")
    assert run.returncode == 3
    assert "answers 502 without a reason; is it a Paku OTA service?" in run.stderr


# login


def test_login(cli, service):
    service.answer_list("/api/admin/rollouts", "rollouts", [])
    clean = {"OTA_API_KEY": None, "OTA_SERVICE_URL": None}
    run = cli("login", service.url + "/", env=clean, stdin=KEY + "\n")
    assert run.returncode == 0, run.stderr
    assert run.stdout == "logged in to %s; the key is in %s\n" % (service.url, cli.login_file)
    assert KEY not in run.stdout + run.stderr
    assert cli.login_file.stat().st_mode & 0o7777 == 0o600
    assert os.listdir(cli.login_file.parent) == ["paku-ota"]
    run = cli("rollout", "list", env=clean)
    assert (run.returncode, run.stderr) == (0, "no rollouts\n")


def test_login_without_xdg(cli, service):
    service.answer_list("/api/admin/rollouts", "rollouts", [])
    run = cli("login", service.url, env={"XDG_CONFIG_HOME": None}, stdin=KEY)
    assert run.returncode == 0
    assert (cli.home / ".config" / "paku-ota").stat().st_mode & 0o7777 == 0o600


def test_login_refused_stores_nothing(cli, service):
    run = cli("login", service.url, stdin="wrong\n")
    assert run.returncode == 4
    assert not cli.login_file.exists()
    assert cli("login", service.url, stdin="").returncode == 4
    assert cli("login", service.url, stdin="two words\n").returncode == 4
    assert cli("login", "http://127.0.0.1:1", stdin=KEY).returncode == 3
    assert not cli.login_file.exists()


def test_key_of_the_login_goes_to_its_server_only(cli, service):
    cli.login_file.parent.mkdir()
    cli.login_file.write_text("server = http://other.example\nkey = %s\n" % KEY)
    cli.login_file.chmod(0o600)
    run = cli("devices", env={"OTA_API_KEY": None})
    assert run.returncode == 4
    assert "X-API-Key" not in service.requests[0].headers


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_login_that_others_can_read(cli, service, mode):
    cli.login_file.parent.mkdir()
    cli.login_file.write_text("server = %s\nkey = %s\n" % (service.url, KEY))
    cli.login_file.chmod(mode)
    run = cli("devices", env={"OTA_API_KEY": None})
    assert run.returncode == 4
    assert "chmod 600 %s" % cli.login_file in run.stderr
    assert service.requests == []
    service.answer_list("/api/admin/devices", "devices", [])
    assert cli("devices").returncode == 0  # server and key from the environment: it is not needed


def test_login_prompt_hides_the_key(cli, service):
    service.answer_list("/api/admin/rollouts", "rollouts", [])
    terminal = cli.on_terminal("login", service.url)
    terminal.wait_text("API key: ")
    assert not terminal.settings()[3] & termios.ECHO
    terminal.send(KEY.encode() + b"\n")
    assert terminal.wait_exit() == 0
    assert KEY not in terminal.text()
    assert terminal.settings() == terminal.before


def test_ctrl_c_at_the_prompt_restores_echo(cli, service):
    terminal = cli.on_terminal("login", service.url)
    terminal.wait_text("API key: ")
    terminal.send(b"\x03")
    assert terminal.wait_exit() == 130
    assert terminal.settings() == terminal.before
    assert not cli.login_file.exists()


# completion


def complete(cli, *words):
    """What bash would offer for the last of WORDS."""
    script = """source <("$0" completion bash)
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _paku_ota; printf '%s\\n' "${COMPREPLY[@]}" """
    run = subprocess.run(["bash", "-c", script, cli.program, *words], env=cli.env, timeout=60,
                         capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout.split()


def test_completion(cli, tmp_path):
    assert complete(cli, "paku-ota", "roll") == ["rollout"]
    assert complete(cli, "paku-ota", "rollout", "c") == ["create"]
    assert complete(cli, "paku-ota", "devices", "--gr") == ["--group"]
    assert complete(cli, "paku-ota", "rollout", "create", "1.0", "--per") == ["--percent"]
    assert complete(cli, "paku-ota", "upload", "f", "--image-type", "") == ["auto", "esp", "raw"]
    (tmp_path / "firmware.bin").write_text("x")
    assert complete(cli, "paku-ota", "upload", str(tmp_path / "firm")) == [str(tmp_path / "firmware.bin")]
    assert set(complete(cli, "paku-ota", "")) >= {c for c in COMMANDS if " " not in c}


def test_completion_at_a_prompt(cli, tmp_path):
    """A command where a folder has its name, and a file with a blank."""
    (tmp_path / "releases").mkdir()
    (tmp_path / "new firmware.bin").write_text("x")
    script = tmp_path / "rc"
    script.write_text('PS1="> "; cd %s; alias paku-ota=%s; source <(%s completion bash); echo ready\n'
                      % (tmp_path, os.path.abspath(cli.program), os.path.abspath(cli.program)))
    bash = cli.on_terminal("--noprofile", "--rcfile", str(script), "-i", program="/bin/bash",
                           env={"TERM": "dumb", "HISTFILE": "/dev/null", "INPUTRC": "/dev/null"})
    bash.wait_text("ready")
    bash.send(b"paku-ota rel\tdel\t--mo\t")
    bash.wait_text("paku-ota releases delete --model ")
    bash.send(b"\x15paku-ota upload new\t")
    bash.wait_text("paku-ota upload new\\ firmware.bin ")
    bash.send(b"\x15exit\n")
    assert bash.wait_exit() == 0


# docs/cli.md


def documented():
    """The commands that stand in code blocks and tables of the page."""
    with open(os.path.join(ROOT, "docs", "cli.md"), encoding="utf-8") as page:
        text = page.read()
    found = re.findall(r"^\$ paku-ota ([^|\n]*)", text, re.M)
    found += re.findall(r"^\| `(devices [^`]*|events|rejected|alerts[^`]*)`", text, re.M)
    return text, found


def test_the_page_names_what_there_is(cli):
    text, found = documented()
    assert len(found) > 10
    for line in found:
        words = line.split()
        known = " ".join(w for i, w in enumerate(words[:2]) if " ".join(words[:i + 1]) in COMMANDS)
        assert known, line
        usage = cli(*known.split(), "--help").stdout
        if known == "devices":
            usage += cli("devices", "list", "--help").stdout
        for option in re.findall(r"--[a-z-]+", line):
            assert option in usage, (line, option)
    for command in COMMANDS:
        assert command.replace(" list", "") in text, command


def test_the_page_has_the_exit_codes(cli):
    text, _ = documented()
    assert re.findall(r"^\| (\d+) \|", text, re.M) == ["0", "1", "2", "3", "4", "5", "130"]
