# SPDX-License-Identifier: MIT
"""OTA_DOWNLOAD_BASE_URLS: another address for a model or a group, and a real nginx there that keeps images."""
import os
import subprocess

import pytest
import requests

import images
import test_proxy
from mqtt import Device, MqttService
from service import BUILD, ROOT, wait_for

BASES = "model:esp32=https://cdn.example.org/, group:plant-a=http://10.9.0.2:81/x"


def into_group(service, device_id, group):
    service.ok("PUT", "/api/admin/devices/%s/groups/%s" % (device_id, group))


def offered(service, device_id, **params):
    return service.check(device_id, **params)["download_url"]


def test_over_http(services):
    service = services(env={"OTA_DOWNLOAD_BASE_URLS": BASES})
    for model in ("esp32", "esp32s3"):
        service.release(images.esp32("1.2.0"), "1.2.0", model, image_type="raw")
        service.rollout("1.2.0", model, name=model)
    own = "%s/api/firmware/download/1.2.0?attempt=" % service.url
    path = "/api/firmware/download/1.2.0?attempt="
    assert offered(service, "a").startswith("https://cdn.example.org" + path)
    assert offered(service, "b", model="esp32s3").startswith(own)
    for device in "ab":
        into_group(service, device, "plant-a")
    assert offered(service, "a").startswith("http://10.9.0.2:81/x" + path)
    assert offered(service, "b", model="esp32s3").startswith("http://10.9.0.2:81/x" + path)
    service.check("c", model="other")
    bases = [service.explain(d)["download_base_url"] for d in "abc"]
    assert bases == ["http://10.9.0.2:81/x", "http://10.9.0.2:81/x", None]


def test_over_mqtt(tmp_path):
    service = MqttService(tmp_path / "service", env={"OTA_DOWNLOAD_BASE_URLS": BASES}).start()
    try:
        devices = {name: Device(service, name, model=model) for name, model in
                   (("a", "esp32"), ("b", "esp32"), ("c", "other"))}
        wait_for(lambda: len(service.list("devices")) == 3, "the devices to be registered")
        into_group(service, "b", "plant-a")
        for model in ("esp32", "other"):
            service.release(images.big(1000), "1.2.0", model, image_type="raw")
            service.rollout("1.2.0", model, name=model)
        begins = {name: device.command()["url"].partition("/api/")[0] for name, device in devices.items()}
        assert begins == {"a": "https://cdn.example.org", "b": "http://10.9.0.2:81/x", "c": service.url}
        for device in devices.values():
            device.close()
    finally:
        service.stop()


@pytest.mark.parametrize("bases, words", [
    ("https://cdn.example.org", "must be like model:esp32="),
    ("model:esp32=cdn.example.org", "whose address"),
    ("group:a=http://a group:a=http://b", "names group:a twice"),
])
def test_what_makes_no_sense_stops_the_start(services, bases, words):
    ended = services(start=False, env={"OTA_DOWNLOAD_BASE_URLS": bases}).run()
    assert ended.returncode == 2 and "OTA_DOWNLOAD_BASE_URLS" in ended.stderr and words in ended.stderr


@pytest.fixture
def cache(services, tmp_path):
    """A service, and nginx before it with deploy/proxy/nginx-cache.conf."""
    made = []
    port = test_proxy.free_port()
    service = services(env={"OTA_TRUSTED_PROXIES": "127.0.0.1", "OTA_DOWNLOAD_BASE_URLS":
                            "model:esp32=http://127.0.0.1:%d/esp32 model:other=http://127.0.0.1:%d/other" % (port, port)})
    folder = tmp_path / "cache"
    folder.mkdir()
    with open(os.path.join(ROOT, "deploy", "proxy", "nginx-cache.conf"), encoding="utf-8") as f:
        text = f.read()
    for was, now in (("listen 80;", "listen 127.0.0.1:%d;" % port), ("\tlisten [::]:80;\n", ""),
                     ("/var/cache/nginx/paku-ota", str(folder / "images")),
                     ("http://192.0.2.1:8080", service.url)):
        assert was in text
        text = text.replace(was, now)
    made.append(test_proxy.Frame(folder, port, text))
    yield service
    made[0].stop()


def sent(service):
    return service.get("/metrics").json()["download_bytes_total"]


def test_a_cache_in_front(cache):
    service = cache
    one, two = images.big(3 << 20), images.big(1 << 20)
    service.release(one, "1.2.0", image_type="raw")
    service.release(two, "1.2.0", "other", image_type="raw")
    rollouts = [service.rollout("1.2.0", model, name=model) for model in ("esp32", "other")]

    def get(url, **headers):
        return requests.get(url, headers=headers, timeout=60)
    urls = [offered(service, "dev-%d" % i) for i in range(3)]
    assert get(urls[0]).content == one
    before = sent(service)
    assert before == len(one)
    answer = get(urls[1], Range="bytes=%d-" % (len(one) - 10))
    assert answer.status_code == 206 and answer.content == one[-10:]
    assert get(offered(service, "else", model="other")).content == two
    assert sent(service) - before == len(two)
    assert rollouts
    # What was withdrawn is not to be had there either, when the copy is older than a second.
    service.ok("POST", "/api/admin/rollout/%d/deactivate" % rollouts[0])
    wait_for(lambda: get(urls[2]).status_code == 410, "the cache to ask")
    assert service.session.get(urls[0]).content == one


def test_who_is_told_not_modified_has_it_all(services):
    service = services()
    image = images.esp32("1.2.0")
    service.release(image, "1.2.0")
    service.rollout("1.2.0")
    url = offered(service, "dev-1")
    first = service.session.get(service.url + "/api/firmware/download/1.2.0")
    assert first.headers["Cache-Control"] == "no-cache"
    answer = service.session.get(url, headers={"If-None-Match": first.headers["ETag"]})
    assert answer.status_code == 304 and answer.content == b""

    def told():
        return {e["event_type"] for e in service.list("events", device_id="dev-1")}
    wait_for(lambda: {"update_started", "device_at_risk"} <= told(), "the image to count as had")


def test_doctor_tries_each(services):
    with test_proxy.socket.socket() as s:
        s.bind(("127.0.0.1", 0))  # nobody listens there
        nowhere = "http://127.0.0.1:%d" % s.getsockname()[1]
        service = services(start=False)
        service.extra["PORT"] = test_proxy.free_port()
        service.extra["OTA_DOWNLOAD_BASE_URLS"] = "model:esp32=%s group:g=http://127.0.0.1:%s" % (
            nowhere, service.extra["PORT"])
        service.start()
        service.release(images.esp32("1.2.0"), "1.2.0")
        done = subprocess.run([os.path.join(BUILD, "cli", "paku-ota"), "doctor"], capture_output=True, text=True, timeout=60,
                              env={"PATH": os.environ["PATH"], "HOME": service.folder, "OTA_SERVICE_URL": service.url,
                                   "OTA_API_KEY": service.key})
    lines = [line for line in done.stdout.splitlines() if " address " in line]
    assert len(lines) == 3 and done.returncode == 1, done.stdout + done.stderr
    assert lines[0].startswith("ok ")
    assert lines[1].startswith("problem") and "devices of model:esp32" in lines[1] and nowhere in lines[1]
    assert "OTA_DOWNLOAD_BASE_URLS" in lines[1]
    assert lines[2].startswith("ok ") and "for group:g" in lines[2]
