# SPDX-License-Identifier: MIT
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
sys.path.append(os.path.dirname(os.path.dirname(__file__)))  # for certificates

import images  # noqa: E402
from clock import Clock  # noqa: E402
from service import Service  # noqa: E402


@pytest.fixture
def services(tmp_path):
    """Makes services; those that still run are ended, and looked at, after the test."""
    made = []

    def make(name="service", start=True, **more):
        service = Service(tmp_path / name, **more)
        made.append(service)
        return service.start() if start else service

    yield make
    for service in made:
        service.stop()


@pytest.fixture
def service(services):
    return services()


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path / "clock")


@pytest.fixture(scope="session")
def image():
    return images.esp32("1.2.0")
