# SPDX-License-Identifier: MIT
"""The sketches in examples/, and what they stand on, compile against small stand-ins for the
headers of their SDKs.  What they say is tested with the updater (tests/unit)."""
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
STUBS = ROOT / "tests" / "examples" / "stubs"
DEVICE = ROOT / "device"
STRICT = ["-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers",
          *("-I%s" % (DEVICE / folder) for folder in ("include", "glue", "port/esp32"))]
SKETCH = ROOT / "examples" / "arduino" / "paku_ota_mqtt" / "paku_ota_mqtt.ino"
COMPONENT = ROOT / "examples" / "esp-idf" / "components" / "paku_ota"


def compiles(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


def test_arduino():
    # -include: an .ino sees Arduino.h without asking.  The IDE sets no -Wextra.
    compiles(["g++", "-std=gnu++17", "-x", "c++", "-Wno-unused-parameter", *STRICT,
              "-I", str(STUBS / "arduino"), "-include", "Arduino.h", str(SKETCH)])


@pytest.mark.parametrize("source", [COMPONENT / "paku_ota.c",
                                    DEVICE / "port" / "esp32" / "paku_esp32.c"])
def test_esp_idf(source):
    compiles(["gcc", "-std=gnu17", *STRICT, "-I", str(STUBS / "esp-idf"),
              "-I", str(COMPONENT / "include"), str(source)])


def test_the_packages_name_what_is_there():
    """Both build systems of an ESP32 get every source that the examples need."""
    cmake = (DEVICE / "CMakeLists.txt").read_text()
    library = (DEVICE / "library.json").read_text()
    for folder in ("src", "glue", "port/esp32"):
        assert '"+<%s/*.c>"' % folder in library
        for source in (DEVICE / folder).glob("*.c"):
            assert "%s/%s" % (folder, source.name) in cmake, source
