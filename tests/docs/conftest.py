# SPDX-License-Identifier: MIT
# The service is started as the whole-system tests start it.
import os
import sys

import pytest

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TESTS, "integration"))

from service import Service  # noqa: E402


@pytest.fixture(scope="module")
def make_service(tmp_path_factory):
    """Starts services; they are ended, and looked at, after the module's tests."""
    made = []

    def make(**more):
        made.append(Service(tmp_path_factory.mktemp("service"), **more))
        return made[-1].start()

    yield make
    for service in made:
        service.stop()
