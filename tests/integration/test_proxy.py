# SPDX-License-Identifier: MIT
"""Behind a reverse proxy: a real nginx with deploy/proxy/nginx.conf, and a Unix socket."""
import http.client
import os
import socket
import ssl
import stat
import subprocess

import pytest
import requests

import images
from service import KEY, PROGRAM, ROOT, wait_for

NGINX = "/usr/sbin/nginx"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Frame:
    """nginx with TEXT as its http block, in a frame that needs no root."""

    def __init__(self, folder, port, text):
        self.port = port
        config = folder / "nginx.conf"
        config.write_text(
            "daemon off; master_process off; pid %s/pid; error_log stderr;\n"
            "events {} http { access_log off; %s\n%s }\n"
            % (folder, " ".join("%s_temp_path %s/%s;" % (k, folder, k) for k in
                                ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")), text))
        self.log = open(folder / "log", "wb")
        self.process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(config)],
                                        stdout=self.log, stderr=self.log)
        wait_for(self.listens, "nginx to listen")

    def listens(self):
        assert self.process.poll() is None, "nginx ended"
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


class Nginx(Frame):
    """The file as it is, but for the addresses."""

    def __init__(self, folder, upstream, edit=lambda text: text):
        port = free_port()
        cert, key = str(folder / "pem"), str(folder / "key")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
                        "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key,
                        "-out", cert], check=True, capture_output=True)
        with open(os.path.join(ROOT, "deploy", "proxy", "nginx.conf"), encoding="utf-8") as f:
            text = f.read()
        for was, now in (("listen 443 ssl", "listen 127.0.0.1:%d ssl" % port),
                         ("\tlisten [::]:443 ssl;\n", ""),
                         ("/etc/ssl/ota.example.org.pem", cert),
                         ("/etc/ssl/ota.example.org.key", key),
                         ("http://127.0.0.1:8080", upstream)):
            assert was in text
            text = text.replace(was, now)
        super().__init__(folder, port, edit(text))
        self.url = "https://127.0.0.1:%d" % self.port
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = cert


@pytest.fixture
def nginx(tmp_path):
    made = []

    def make(upstream):
        folder = tmp_path / "nginx"
        folder.mkdir()
        made.append(Nginx(folder, upstream))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def check(session, url, **headers):
    answer = session.get(url + "/api/firmware/check", timeout=20, headers=headers, params={
        "device_id": "dev-1", "device_model": "esp32", "current_version": "1.0.0"})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
def behind(services, nginx):
    service = services(env={"OTA_TRUSTED_PROXIES": "127.0.0.1"})
    return service, nginx("http://127.0.0.1:%d" % service.port)


def test_update_through_nginx(behind):
    service, proxy = behind
    image = images.esp32("1.2.0", size=8 << 20)
    answer = proxy.session.post(proxy.url + "/api/admin/firmware/upload", timeout=60,
                                headers={"X-API-Key": KEY}, files={"file": ("f.bin", image)},
                                params={"version": "1.2.0", "device_model": "esp32"})
    assert answer.status_code == 200, answer.text
    service.rollout("1.2.0")
    offer = check(proxy.session, proxy.url)
    # TLS ends at the proxy, and the device has to come back through it.
    assert offer["download_url"].startswith(proxy.url + "/api/firmware/download/1.2.0?")
    whole = proxy.session.get(offer["download_url"], timeout=60)
    assert whole.content == image and whole.headers["Content-Length"] == str(len(image))
    part = proxy.session.get(offer["download_url"], timeout=60, headers={"Range": "bytes=100-199"})
    assert part.status_code == 206 and part.content == image[100:200]
    told = proxy.session.post(proxy.url + "/api/device/dev-1/update-status", timeout=20, json={
        "device_id": "dev-1", "firmware_version": "1.2.0", "status": "success"})
    assert told.status_code == 200
    assert service.list("updates")[0]["status"] == "success"


def test_old_device_through_nginx(behind):
    """HTTP/1.0 and Connection: close, and a Content-Length all the same."""
    service, proxy = behind
    service.release(images.esp32("1.2.0"), "1.2.0")
    context = ssl.create_default_context(cafile=proxy.session.verify)
    with context.wrap_socket(socket.create_connection(("127.0.0.1", proxy.port)),
                             server_hostname="127.0.0.1") as s:
        s.sendall(b"GET /api/firmware/download/1.2.0 HTTP/1.0\r\n\r\n")
        answer = http.client.HTTPResponse(s)
        answer.begin()
        assert answer.status == 200 and answer.getheader("Content-Length")
        assert answer.read() == images.esp32("1.2.0")


def test_a_client_can_not_play_proxy(behind):
    """What it says of itself is set anew by nginx; without a trusted peer nothing is believed."""
    service, proxy = behind
    service.release(images.esp32("1.2.0"), "1.2.0")
    service.rollout("1.2.0")
    lies = {"X-Forwarded-Host": "evil.example.org", "X-Forwarded-Proto": "http"}
    assert check(proxy.session, proxy.url, **lies)["download_url"].startswith(proxy.url)


def test_nobody_is_believed_unless_named(service):
    service.release(images.esp32("1.2.0"), "1.2.0")
    service.rollout("1.2.0")
    offer = check(service.session, service.url, **{"X-Forwarded-Host": "evil.example.org",
                                                   "X-Forwarded-Proto": "https"})
    assert offer["download_url"].startswith(service.url + "/")


@pytest.mark.parametrize("headers, base", [
    ({"X-Forwarded-Proto": "https"}, "https://{host}"),
    ({"X-Forwarded-Proto": "gopher"}, "http://{host}"),
    ({"X-Forwarded-Host": "ota.example.org"}, "http://ota.example.org"),
    ({"X-Forwarded-Host": "ota.example.org/x\"", "X-Forwarded-Proto": "https"}, "https://{host}"),
    ({"X-Forwarded-Host": "[2001:db8::1]:8443", "X-Forwarded-Proto": "https"},
     "https://[2001:db8::1]:8443"),
])
def test_what_a_proxy_says(services, headers, base):
    service = services(env={"OTA_TRUSTED_PROXIES": "127.0.0.1"})
    service.release(images.esp32("1.2.0"), "1.2.0")
    service.rollout("1.2.0")
    base = base.format(host="127.0.0.1:%d" % service.port)
    assert check(service.session, service.url, **headers)["download_url"].startswith(base + "/")


# --- a Unix socket, held by the service manager ---

@pytest.fixture
def unix(tmp_path):
    with socket.socket(socket.AF_UNIX) as s:
        path = str(tmp_path / "http.sock")
        s.bind(path)
        s.listen(100)
        yield s, path


def on_unix(services, tmp_path, unix, **env):
    started = tmp_path / "started-by-a-manager"
    fd = unix[0].fileno()
    started.write_text("#!/bin/bash\nexport LISTEN_PID=$$ LISTEN_FDS=1\nexec %s 3<&%d\n"
                       % (PROGRAM, fd))
    started.chmod(started.stat().st_mode | stat.S_IXUSR)
    return services(start=False, program=str(started), pass_fds=[fd], env=env)


def test_nginx_and_a_unix_socket(services, tmp_path, unix, nginx):
    service = on_unix(services, tmp_path, unix)
    service.spawn()
    proxy = nginx("http://unix:%s:" % unix[1])
    up = wait_for(lambda: proxy.session.get(proxy.url + "/health", timeout=20), "the service")
    assert up.status_code == 200
    service.url, service.session = proxy.url, proxy.session
    service.release(images.esp32("1.2.0"), "1.2.0")
    service.rollout("1.2.0")
    assert service.check("dev-1")["download_url"].startswith(proxy.url + "/")


def test_mqtt_and_a_unix_socket_need_an_address(services, tmp_path, unix):
    service = on_unix(services, tmp_path, unix, OTA_MQTT="on", MQTT_PORT="0")
    assert service.spawn().wait(20) == 1
    assert "set OTA_PUBLIC_URL" in service.log()
    service.process = None
