# SPDX-License-Identifier: MIT
"""The real paku-device program, one state directory a test.

PAKU_DEVICE names the program; else PAKU_BUILD the build directory (default: builddir)."""
import json
import os
import pathlib
import subprocess
import sys

import pytest

from service import Service

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))  # for certificates
sys.path.append(str(ROOT / "tests" / "integration"))  # for what the real service's driver needs


@pytest.fixture(scope="session")
def program():
    build = pathlib.Path(os.environ.get("PAKU_BUILD", ROOT / "builddir"))
    path = pathlib.Path(os.environ.get("PAKU_DEVICE", build / "device" / "paku-device"))
    assert path.exists(), "%s is not there: build first, or set PAKU_DEVICE" % path
    return str(path)


@pytest.fixture
def service():
    s = Service()
    yield s
    s.close()


class Device:
    def __init__(self, program, directory, url):
        self.program, self.directory, self.url = program, directory, url
        self.events = []

    def command(self, *more):
        return [self.program, "--server", self.url, "--id", "dev:1", "--model", "m+1",
                "--version", "1.0.0", "--dir", str(self.directory), "--json", *more]

    def start(self, *more):
        return subprocess.Popen(self.command(*more), stderr=subprocess.PIPE, text=True)

    def run(self, *more, timeout=120):
        done = subprocess.run(self.command(*more), stderr=subprocess.PIPE, text=True,
                              timeout=timeout)
        assert "Sanitizer" not in done.stderr, done.stderr
        self.events = [json.loads(line) for line in done.stderr.splitlines()]
        return done.returncode

    def names(self):
        return [e["event"] for e in self.events]

    def slot(self, n):
        return (self.directory / ("slot%d" % n)).read_bytes()


@pytest.fixture
def device(program, service, tmp_path):
    return Device(program, tmp_path / "state", service.url)
