# SPDX-License-Identifier: MIT
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
for folder in ("integration", "cli"):
    sys.path.insert(0, os.path.join(os.path.dirname(HERE), folder))
sys.path.insert(0, HERE)
sys.path.append(os.path.dirname(HERE))  # for certificates

import images  # noqa: E402
from fleet_program import Broker, FakeService, Fleet  # noqa: E402
from mqtt import MqttService  # noqa: E402
from service import Service  # noqa: E402


@pytest.fixture
def fleet(tmp_path):
    run = Fleet(tmp_path)
    yield run
    run.close()


@pytest.fixture
def services(tmp_path):
    """Makes services with a release 1.2.0 of `sample` for all; they are looked at in the end."""
    made = []

    def make(name="service", mqtt=False, rollout=True, env=None):
        kind = MqttService if mqtt else Service
        made.append(kind(tmp_path / name, env=env).start())
        if rollout:
            made[-1].release(images.esp32("1.2.0", size=100000), "1.2.0", model="sample")
            made[-1].rollout("1.2.0", model="sample", guard="off")  # many fail on purpose
        return made[-1]

    yield make
    for service in made:
        service.stop()


@pytest.fixture
def broker(tmp_path):
    run = Broker(tmp_path / "broker").start()
    yield run
    run.stop()


@pytest.fixture
def fake():
    run = FakeService()
    yield run
    run.close()
