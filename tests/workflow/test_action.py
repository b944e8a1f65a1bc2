# SPDX-License-Identifier: MIT
"""action.yml and the workflow, step by step against a real service, with a stand-in for PlatformIO
that "builds" a real ESP image (one made here where the real ones are not at hand)."""
import os
import re
import shutil
import stat
import subprocess
import threading

import pytest

import action
import images
from service import KEY, ROOT, wait_for

WORKFLOW = ".github/workflows/ota-update-esp.yaml"
GIT = {"GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.org", "GIT_COMMITTER_NAME": "t",
       "GIT_COMMITTER_EMAIL": "t@example.org", "GIT_CONFIG_GLOBAL": "/dev/null",
       "GIT_AUTHOR_DATE": "2025-12-08T17:30:45+0200",
       "GIT_COMMITTER_DATE": "2025-12-08T17:30:45+0200"}


def program(path, text):
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


class Firmware:
    """A checkout with a platformio.ini, and the tools of a runner: platformio builds IMAGE."""

    def __init__(self, tmp_path, model):
        self.tmp = tmp_path
        self.model = model
        self.folder = tmp_path / "firmware"
        self.tools = tmp_path / "tools"
        self.image = tmp_path / "image.bin"
        self.argv = tmp_path / "argv"
        self.runs = 0
        self.folder.mkdir()
        self.tools.mkdir()
        self.image.write_bytes(images.real_or_made())
        (self.folder / "platformio.ini").write_text("[env:%s]\nplatform = espressif32\n" % model)
        self.git("init", "-q", "-b", "main")
        self.git("add", ".")
        self.git("commit", "-q", "-m", "first")
        program(self.tools / "platformio",
                "#!/bin/sh\n[ \"$*\" = 'run --environment %s' ] || exit 64\n"
                "mkdir -p .pio/build/%s && cp %s .pio/build/%s/firmware.bin\n"
                "echo built $FIRMWARE_VERSION\n" % (model, model, self.image, model))
        # What a program is given as arguments is seen by every user of the machine.
        program(self.tools / "curl", "#!/bin/sh\nprintf '%%s\\n' \"$*\" >>%s\nexec %s \"$@\"\n"
                % (self.argv, shutil.which("curl")))

    def git(self, *args):
        return subprocess.run(["git", *args], cwd=self.folder, env={**os.environ, **GIT},
                              check=True, capture_output=True, text=True).stdout.strip()

    def run(self, service, env=(), **inputs):
        self.runs += 1
        given = {"service-url": service if isinstance(service, str) else service.url,
                 "api-key": KEY, "device-model": self.model, "firmware-dir": str(self.folder),
                 **{k.replace("_", "-"): v for k, v in inputs.items()}}
        return action.Run(self.tmp / ("run-%d" % self.runs), given,
                          "%s:%s" % (self.tools, os.environ["PATH"]), dict(env))


@pytest.fixture
def firmware(tmp_path, request):
    """Each test has a model of its own: one service serves them all."""
    return Firmware(tmp_path, re.sub(r"\W", "-", request.node.name)[:60])


def releases(service, model):
    return service.list("releases", device_model=model)


def rollouts(service, model):
    return service.list("rollouts", device_model=model)


def test_builds_uploads_rolls_out(service, firmware):
    run = firmware.run(service, strategy="canary-10", release_notes="@notes; with \"quotes\" & ü")
    assert run.ok, run.log
    head = firmware.git("rev-parse", "HEAD")
    version = head[:7] + "-20251208-153045"  # the commit's time, in UTC
    (release,) = releases(service, firmware.model)
    assert release["version"] == version == run.outputs["version"]
    assert release["release_notes"] == "@notes; with \"quotes\" & ü"
    assert release["file_size"] == firmware.image.stat().st_size
    assert run.outputs["built"] == "true" and "built " + version in run.log
    (rollout,) = rollouts(service, firmware.model)
    assert rollout["name"] == "%s-%s-canary-10" % (version, firmware.model)
    assert (rollout["target_type"], rollout["rollout_percentage"]) == ("canary", 10)
    assert run.outputs["rollout-id"] == str(rollout["id"]) and run.outputs["state"] == "running"
    assert "No device is in this rollout yet." in run.summary


def test_run_again_finds_all(service, firmware):
    first = firmware.run(service, strategy="full")
    firmware.image.write_bytes(b"another build would differ")
    again = firmware.run(service, strategy="full")
    assert first.ok and again.ok, again.log
    assert "Build" not in again.ran and "Upload" not in again.ran
    assert again.outputs == {**first.outputs, "built": "false"}
    # The next strategy is another rollout of the same release.
    wider = firmware.run(service, strategy="canary-50")
    assert wider.ok and wider.outputs["version"] == first.outputs["version"]
    assert wider.outputs["rollout-id"] != first.outputs["rollout-id"]
    assert len(releases(service, firmware.model)) == 1


@pytest.mark.parametrize("tags, version", [
    (["v1.2.0"], "1.2.0"),
    (["1.2.0"], "1.2.0"),
    (["v1.10.0", "v1.9.0", "nightly", "v2"], "1.10.0"),
    (["v1.2.0-rc1", "v1.2.0"], "1.2.0"),
    (["v1.2.0+esp.7"], "1.2.0+esp.7"),
])
def test_tag_gives_version(service, firmware, tags, version):
    for tag in tags:
        firmware.git("tag", tag)
    run = firmware.run(service, strategy="full")
    assert run.ok and run.outputs["version"] == version, run.log
    again = firmware.run(service, strategy="full")
    assert again.ok and again.outputs["built"] == "false", again.log
    assert [r["version"] for r in releases(service, firmware.model)] == [version]


def test_test_devices(service, firmware):
    run = firmware.run(service, strategy="test", test_devices=" esp32_002,esp32_001 ,,esp32_002")
    assert run.ok, run.log
    (rollout,) = rollouts(service, firmware.model)
    assert rollout["target_filter"] == {"device_ids": ["esp32_001", "esp32_002"]}
    same = firmware.run(service, strategy="test", test_devices="esp32_001,esp32_002")
    other = firmware.run(service, strategy="test", test_devices="esp32_003")
    assert same.ok and same.outputs["rollout-id"] == run.outputs["rollout-id"], same.log
    assert other.ok and other.outputs["rollout-id"] != run.outputs["rollout-id"], other.log


def test_guarded_walks_in_stages(service, firmware):
    assert firmware.run(service, strategy="guarded").ok
    assert [s["percent"] for s in rollouts(service, firmware.model)[0]["stages"]] == \
        [1, 10, 25, 50, 100]


@pytest.mark.parametrize("inputs, says", [
    ({"strategy": "test"}, "needs the ids of the devices"),
    ({"strategy": "test", "test_devices": " , "}, "needs the ids of the devices"),
    ({"strategy": "full", "test_devices": "esp32_001"}, "chooses devices by itself"),
    ({"strategy": "everyone"}, "the strategy has to be"),
    ({"device_model": "esp 32"}, "the device model has to be"),
    ({"device_model": "$(id)"}, "the device model has to be"),
    ({"service_url": ""}, "OTA_SERVICE_URL is not set"),
    ({"service_url": "server:8080"}, "has to be http://host:port"),
    ({"service_url": "http://key@server:8080"}, "has to be http://host:port"),
    ({"api_key": ""}, "OTA_API_KEY is not set"),
    ({"api_key": "a b"}, "OTA_API_KEY has a blank"),
    ({"wait_minutes": "soon"}, "a whole number"),
])
def test_bad_inputs_stop_before_anything(service, firmware, inputs, says):
    run = firmware.run(service, **{"strategy": "full", **inputs})
    assert not run.ok and run.ran == ["Look at the inputs"]
    assert run.log.count("::error::") == 1 and says in run.log, run.log


def test_wrong_key(service, firmware):
    run = firmware.run(service, strategy="full", api_key="wrong")
    assert not run.ok and "Build" not in run.ran
    assert "the service answered 401: Invalid API key" in run.log


def test_service_away(service, firmware):
    run = firmware.run("http://127.0.0.1:9", strategy="full")
    assert not run.ok and "was not reached" in run.log and "Build" not in run.ran


def test_another_server_there(tmp_path, firmware):
    with action_page(tmp_path) as url:
        run = firmware.run(url, strategy="full")
    assert not run.ok and "is not the OTA service" in run.log, run.log


def action_page(tmp_path):
    """A web server that says yes to everything."""
    import contextlib
    import http.server

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *_):
            pass

    @contextlib.contextmanager
    def serve():
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield "http://127.0.0.1:%d" % server.server_port
            server.shutdown()
    return serve()


def test_failed_build(service, firmware):
    program(firmware.tools / "platformio", "#!/bin/sh\necho 'src/main.cpp:1: no'\nexit 1\n")
    run = firmware.run(service, strategy="full")
    assert not run.ok and run.ran[-1] == "Build" and "main.cpp:1: no" in run.log
    assert releases(service, firmware.model) == []


def test_model_without_environment(service, firmware):
    run = firmware.run(service, strategy="full", device_model="esp32-none")
    assert not run.ok and "platformio.ini has no [env:esp32-none]" in run.log


def test_failed_upload_fails_the_job(service, firmware):
    firmware.image.write_bytes(b"")
    empty = firmware.run(service, strategy="full")
    assert not empty.ok and "there is no image at" in empty.log
    made = images.esp32("1.0.0", chip="esp32-c3")
    firmware.image.write_bytes(made[:-40])  # cut off
    run = firmware.run(service, strategy="full")
    assert not run.ok and run.ran[-1] == "Upload", run.log
    assert "::error::the upload: the service answered 4" in run.log
    assert rollouts(service, firmware.model) == []


def test_refused_rollout_fails_the_job(service, firmware):
    run = firmware.run(service, strategy="full")
    taken = firmware.run(service, strategy="canary-10")
    assert run.ok and taken.ok
    # The name is there, and it is another rollout.
    version = run.outputs["version"]
    service.rollout(version, firmware.model, "all",
                    name="%s-%s-canary-25" % (version, firmware.model))
    refused = firmware.run(service, strategy="canary-25")
    assert not refused.ok and "the rollout: the service answered 409" in refused.log


def test_image_built_elsewhere(service, firmware):
    run = firmware.run(service, strategy="full", image=str(firmware.image), version="v3.0.0",
                       firmware_dir="/nowhere")
    assert run.ok and run.outputs["version"] == "3.0.0", run.log


def update(service, model, names, version):
    for name in names:
        assert service.check(name, "0.9.0", model)["update_available"]
        for status in "downloading", "installing", "success":
            service.report(name, version, status)
        service.check(name, version, model)


def test_waits_for_the_end(service, firmware):
    firmware.git("tag", "v1.0.0")
    names = ["%s-%d" % (firmware.model, i) for i in range(3)]
    for name in names:
        service.check(name, "0.9.0", firmware.model)

    def devices():
        wait_for(lambda: rollouts(service, firmware.model), "the rollout")
        update(service, firmware.model, names, "1.0.0")
        service.post("/api/admin/rollout/%d/promote" % rollouts(service, firmware.model)[0]["id"],
                     json={"reason": "seen"})

    thread = threading.Thread(target=devices)
    thread.start()
    run = firmware.run(service, strategy="full", wait_minutes="1")
    thread.join()
    assert run.ok and run.outputs["state"] == "completed", run.log
    assert '"updated" : 3' in run.summary and "```mermaid\npie showData" in run.summary


def test_bad_release_fails_the_job(service, firmware):
    firmware.git("tag", "v1.0.0")
    names = ["%s-%d" % (firmware.model, i) for i in range(4)]
    for name in names:
        service.check(name, "0.9.0", firmware.model)

    def devices():
        wait_for(lambda: rollouts(service, firmware.model), "the rollout")
        for name in names:
            if service.check(name, "0.9.0", firmware.model)["update_available"]:
                service.report(name, "1.0.0", "downloading")
                service.report(name, "1.0.0", "failed", result_code=4, error_message="no | boot")

    thread = threading.Thread(target=devices)
    thread.start()
    run = firmware.run(service, strategy="full", wait_minutes="1")
    thread.join()
    assert not run.ok and run.outputs["state"] == "halted", run.log
    assert re.search(r"::error::rollout \d+ was halted: .*failed", run.log), run.log
    assert "1.0.0 on " + firmware.model + ": halted" in run.summary


def test_still_running_is_no_failure(service, firmware):
    run = firmware.run(service, strategy="full", wait_minutes="0")
    assert run.ok and "::warning::" not in run.log


def test_secrets_are_never_shown(service, firmware):
    run = firmware.run(service, strategy="full")
    assert run.ok and run.log.startswith("::add-mask::" + KEY + "\n")
    assert KEY not in run.log.split("\n", 1)[1] and KEY not in run.summary
    seen = firmware.argv.read_text()
    assert "/api/admin/firmware/upload" in seen and KEY not in seen
    assert KEY not in str(run.outputs)


def test_workflow_is_the_action():
    """The workflow gives the action what it takes; names and secrets are the contract's."""
    flow = action.read(WORKFLOW)
    given = flow[True]["workflow_dispatch"]["inputs"]  # YAML 1.1 reads `on` as true
    assert given["rollout_strategy"]["options"][:5] == \
        ["test", "canary-10", "canary-25", "canary-50", "full"]
    assert {"rollout_strategy", "device_model", "test_devices", "release_notes"} <= set(given)
    (step,) = [s for s in flow["jobs"]["update"]["steps"] if s.get("uses") == "./"]
    takes = action.read("action.yml")["inputs"]
    assert set(step["with"]) <= set(takes)
    assert {k for k, v in takes.items() if v.get("required")} <= set(step["with"])
    with open(os.path.join(ROOT, WORKFLOW), encoding="utf-8") as f:
        text = f.read()
    assert set(re.findall(r"secrets\.(\w+)", text)) == \
        {"OTA_SERVICE_URL", "OTA_API_KEY", "PAKU_CORE_REPO", "PAKU_CORE_TOKEN"}
    assert not [s for s in flow["jobs"]["update"]["steps"] if "run" in s]
    for name in re.findall(r"inputs\.(\w+)", text):
        assert name in given
    for name in re.findall(r"steps\.ota\.outputs\.([\w-]+)", text):
        assert name in action.read("action.yml")["outputs"]


def test_scripts_are_clean():
    """Every shell script of the project, by shellcheck."""
    listed = subprocess.run(["grep", "-rlIE", "--exclude-dir=build*", "--exclude-dir=.git",
                             "^#!.*sh$|^# shellcheck shell=", "."], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout.split()
    assert "./check" in listed and "./deploy/workflow/lib.sh" in listed
    found = subprocess.run(["shellcheck", "-x", *sorted(listed)], cwd=ROOT, check=False,
                           capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
