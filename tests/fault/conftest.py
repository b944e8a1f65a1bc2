# SPDX-License-Identifier: MIT
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from faults import Faults  # noqa: E402
from service import Service  # noqa: E402


@pytest.fixture
def start(tmp_path):
    """start(faults=..., **env): a service that runs; at the end all of them end cleanly."""
    services = []

    def make(**kw):
        s = Service(tmp_path / ("service-%d" % len(services)), **kw)
        services.append(s)
        return s.start()

    yield make
    errors = []
    for s in services:
        try:
            s.stop()
        except AssertionError as e:
            errors.append(e)
    if errors:
        raise errors[0]


@pytest.fixture
def faults(tmp_path):
    f = Faults(tmp_path)
    yield f
    f.close()
