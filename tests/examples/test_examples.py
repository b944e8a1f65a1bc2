# SPDX-License-Identifier: MIT
"""The sketches in examples/ compile, against small stand-ins for the headers of their SDKs."""
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
STUBS = ROOT / "tests" / "examples" / "stubs"
STRICT = ["-fsyntax-only", "-Wall", "-Wextra", "-Werror"]
SKETCH = ROOT / "examples" / "arduino" / "paku_ota_mqtt" / "paku_ota_mqtt.ino"
COMPONENT = ROOT / "examples" / "esp-idf" / "components" / "paku_ota"


def compiles(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


def test_arduino():
    # -include: an .ino sees Arduino.h without asking.  The IDE sets no -Wextra.
    compiles(["g++", "-std=gnu++17", "-x", "c++", "-Wno-unused-parameter", *STRICT,
              "-I", str(STUBS / "arduino"), "-include", "Arduino.h", str(SKETCH)])


def test_esp_idf():
    compiles(["gcc", "-std=gnu17", *STRICT, "-Wno-missing-field-initializers",
              "-I", str(STUBS / "esp-idf"), "-I", str(COMPONENT / "include"),
              str(COMPONENT / "paku_ota.c")])


@pytest.mark.parametrize("path", [SKETCH, COMPONENT / "paku_ota.c"])
def test_they_say_what_a_device_has_to_say(path):
    text = path.read_text()
    for word in ["cmd/ota", "ota/status", "ota/progress", "ota/result", "accepted", "device_model",
                 "firmware_version", "online", "boot_id", "result_code", "success", "Downloading",
                 "Installing", "timestamp", "elapsed_ms"]:
        assert word in text, word
    assert re.search(r'\{\\"online\\":false\}', text), "the last will"
