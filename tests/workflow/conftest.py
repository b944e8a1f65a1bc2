# SPDX-License-Identifier: MIT
import os
import sys

import pytest

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TESTS, "integration"))

from service import Service  # noqa: E402


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """One for the file's tests, each of which takes a model of its own."""
    made = Service(tmp_path_factory.mktemp("service")).start()
    yield made
    made.stop()
