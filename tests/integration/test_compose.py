# SPDX-License-Identifier: MIT
"""compose.yaml, read by docker-compose, and each service's own command started with the environment
that the file gives it: a real PostgreSQL, a real mosquitto, the real paku-otad.  What a container
would add (names of hosts, mounted paths) is put in by hand."""
import json
import os
import pathlib
import re
import shutil
import socket
import stat
import subprocess
import tempfile

import paho.mqtt.client as paho
import pytest
import yaml

import images
import postgres
from service import ROOT, wait_for

ENV_LINE = re.compile(r"^([A-Z_]+)=(\S+)$", re.M)


@pytest.fixture(scope="module")
def env_file(tmp_path_factory):
    """.env as ./up --compose makes it."""
    path = tmp_path_factory.mktemp("env") / ".env"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c",
         "say() { echo \"$*\"; }; port=8080 mqtt_port=1883; . deploy/compose/up.sh; "
         "compose_env %s; compose_env %s" % (path, path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("made ") == 1, done.stderr
    return path


@pytest.fixture(scope="module")
def stack(env_file):
    done = subprocess.run(["docker-compose", "--env-file", str(env_file), "config"], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)["services"]


def test_passwords_are_nobodys_default(env_file):
    text = env_file.read_text()
    made = dict(ENV_LINE.findall(text))
    secret = {k: v for k, v in made.items() if "PASSWORD" in k or "KEY" in k}
    assert len(secret) == 5 and len(set(secret.values())) == 5
    assert all(re.fullmatch("[0-9a-f]{40}", v) for v in secret.values())
    assert stat.S_IMODE(env_file.stat().st_mode) == 0o600
    assert re.fullmatch(r"http://[\d.]+:8080", made["OTA_PUBLIC_URL"])


def test_without_passwords_it_says_what_to_do(tmp_path):
    (tmp_path / ".env").touch()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OTA_", "MQTT_", "PG"))}
    done = subprocess.run(["docker-compose", "--env-file", str(tmp_path / ".env"), "config"], cwd=ROOT,
                          env=env, capture_output=True, text=True)
    assert done.returncode != 0 and "./up --compose" in done.stderr


def test_names_are_the_contracts(stack):
    assert {k: v["container_name"] for k, v in stack.items() if k != "prometheus"} == {
        "ota-service": "paku_ota_service", "postgres": "paku_postgres",
        "mosquitto": "paku_mosquitto", "grafana": "paku_grafana"}
    assert stack["postgres"]["environment"]["POSTGRES_USER"] == "paku"
    assert stack["postgres"]["environment"]["POSTGRES_DB"] == "paku"
    for name, service in stack.items():
        assert service["restart"] == "unless-stopped" and service["mem_limit"], name
        assert "healthcheck" in service or name in ("ota-service", "prometheus"), name
    assert stack["prometheus"]["profiles"] == ["prometheus"]


def test_what_is_mounted_is_there(stack):
    for service in stack.values():
        for volume in service.get("volumes", []):
            source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
            if source.startswith("/"):
                assert os.path.exists(source), source


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def broker(stack):
    """start.sh with its own files, but for the paths and the port."""
    for _ in range(5):  # somebody else may take the port before mosquitto does
        folder = pathlib.Path(tempfile.mkdtemp(prefix="paku-broker-", dir="/tmp"))
        port = free_port()
        process = start_broker(stack, folder, port)
        check = stack["mosquitto"]["healthcheck"]["test"]
        assert check[0] == "CMD-SHELL"
        command = check[1].replace("$$", "$").replace("mosquitto_sub", "mosquitto_sub -p %d" % port)
        env = {**os.environ, **stack["mosquitto"]["environment"]}
        try:
            wait_for(lambda: process.poll() is not None or subprocess.run(
                ["sh", "-c", command], capture_output=True, env=env).returncode == 0,
                "the broker's own health check", 60)
            if process.poll() is None:
                yield port
                return
            said = (folder / "log").read_text()
            assert "Address already in use" in said, said
        finally:
            process.terminate()
            process.wait(20)
            shutil.rmtree(folder)
    raise AssertionError("five ports in a row were taken")


def start_broker(stack, folder, port):
    config, run, data = folder / "config", folder / "run", folder / "data"
    shutil.copytree(os.path.join(ROOT, "deploy", "compose", "mosquitto"), config)
    run.mkdir()
    data.mkdir()
    for path in config.iterdir():
        text = path.read_text()
        for was, now in (("/mosquitto/config", config), ("/run/mosquitto", run),
                         ("/mosquitto/data", data), ("listener 1883", "listener %d" % port)):
            text = text.replace(was, str(now))
        path.write_text(text)
    if os.geteuid() == 0:  # mosquitto gives up root, and has to read and write all the same
        os.chmod(folder, 0o755)
        for path in [config, run, data, *config.iterdir()]:
            shutil.chown(path, "mosquitto")
        with open(config / "mosquitto.conf", "a", encoding="utf-8") as f:
            f.write("user mosquitto\n")
        start = config / "start.sh"
        start.write_text(start.read_text().replace("\nexec", "\nchown mosquitto %s/*\nexec" % run))
    with open(folder / "log", "wb") as log:
        return subprocess.Popen(["sh", str(config / "start.sh")], stdout=log, stderr=log, env={
            **stack["mosquitto"]["environment"], "PATH": os.environ["PATH"] + ":/usr/sbin"})


@pytest.fixture
def database(stack):
    """The database as the image makes it, and the account of Grafana."""
    cluster = postgres.cluster()
    env = stack["postgres"]["environment"]
    name = cluster.database()
    cluster.psql("DROP ROLE IF EXISTS grafana")
    done = subprocess.run(
        ["sh", os.path.join(ROOT, "deploy", "compose", "postgres-grafana.sh")],
        capture_output=True, text=True,
        env={**os.environ, **env, "POSTGRES_DB": name, "PGHOST": cluster.folder,
             "PGPORT": str(postgres.PORT)})
    assert done.returncode == 0, done.stderr
    yield cluster, name
    cluster.psql("DROP ROLE grafana")


def test_the_stack_updates_a_device(stack, broker, database, services):
    cluster, name = database
    env = dict(stack["ota-service"]["environment"])
    assert env["PGHOST"] == "postgres" and env["MQTT_HOST"] == "mosquitto"
    assert env["PGPASSWORD"] == stack["postgres"]["environment"]["POSTGRES_PASSWORD"]
    env.update({"PGHOST": cluster.folder, "PGPORT": str(postgres.PORT), "PGDATABASE": name,
                "MQTT_HOST": "127.0.0.1", "MQTT_PORT": str(broker), "OTA_MQTT": "on"})
    service = services(env=env, key=env.pop("OTA_API_KEY"))
    assert service.ok("GET", "/health")["store"].startswith("postgres")
    service.release(images.esp32("1.2.0"), "1.2.0")
    told = []
    device = paho.Client(client_id="dev-1")
    device.on_message = lambda _c, _u, message: told.append(json.loads(message.payload))
    device.connect("127.0.0.1", broker)
    device.subscribe("paku/edge/dev-1/cmd/ota", 1)
    device.loop_start()
    device.publish("paku/edge/dev-1/status", json.dumps(
        {"device_model": "esp32", "firmware_version": "1.0.0", "online": True}), 1, True)
    wait_for(lambda: service.list("devices"), "the device")
    # A device is no service: what it says as one is dropped by the ACL, and nobody hears it.
    device.publish("paku/edge/dev-1/cmd/ota", json.dumps({"url": "http://evil/"}), 1)
    service.rollout("1.2.0")
    wait_for(lambda: told, "the command")
    assert len(told) == 1 and told[0]["url"].startswith(env["OTA_PUBLIC_URL"] + "/")
    device.loop_stop()
    device.disconnect()
    # The seed's questions, as Grafana asks them.
    assert cluster.psql("SELECT current_firmware_version, COUNT(*) FROM devices GROUP BY 1", database=name,
                        user="grafana") == "1.0.0|1"
    with pytest.raises(AssertionError, match="read-only|permission denied"):
        cluster.psql("DELETE FROM devices", database=name, user="grafana")
