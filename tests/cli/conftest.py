# SPDX-License-Identifier: MIT
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from cli_fake_service import FakeService  # noqa: E402
from cli_program import PROGRAM, Cli  # noqa: E402


@pytest.fixture
def service():
    fake = FakeService()
    yield fake
    fake.close()


@pytest.fixture
def cli(tmp_path, service):
    assert os.path.exists(PROGRAM), "%s is not built; PAKU_BUILD names the build directory" % PROGRAM
    run = Cli(tmp_path, service.url)
    yield run
    for terminal in run.terminals:
        terminal.close()
