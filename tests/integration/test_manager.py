# SPDX-License-Identifier: MIT
"""What the service says to a service manager and takes from it: sd_notify(3), sd_listen_fds(3)."""
import signal
import socket
import stat
import threading

import pytest

from service import PROGRAM, wait_for


class Ear:
    """The manager's: `word()` waits for the next one."""

    def __init__(self, bound):
        self.socket = bound
        self.env = {"NOTIFY_SOCKET": bound.getsockname()}

    def word(self, timeout=20):
        self.socket.settimeout(timeout)
        return self.socket.recv(4096).decode()


@pytest.fixture
def ear(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        yield Ear(bound)


def program_with_sockets(tmp_path, *fds):
    """paku-otad as a manager starts it: the sockets are descriptors 3 and on, LISTEN_PID is its."""
    path = tmp_path / "started-by-a-manager"
    moves = "".join(" %d<&%d" % (3 + i, fd) for i, fd in enumerate(fds))
    path.write_text("#!/bin/bash\nexport LISTEN_PID=$$ LISTEN_FDS=%d\nexec %s \"$@\"%s\n"
                    % (len(fds), PROGRAM, moves))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_ready_and_stopping(services, ear):
    service = services(env=ear.env)
    assert ear.word() == "READY=1"
    assert service.get("/health").status_code == 200
    service.stop()
    assert ear.word() == "STOPPING=1"


def test_no_watchdog_unless_asked(services, ear):
    services(env=ear.env)
    assert ear.word() == "READY=1"
    with pytest.raises(socket.timeout):
        ear.word(0.5)


def test_signs_of_life(services, ear):
    service = services(env={**ear.env, "WATCHDOG_USEC": "3000000"})
    assert ear.word() == "READY=1"
    assert [ear.word() for _ in range(3)] == ["WATCHDOG=1"] * 3
    service.signal(signal.SIGSTOP)
    with pytest.raises(socket.timeout):
        while True:
            ear.word(2)
    service.signal(signal.SIGCONT)
    assert ear.word() == "WATCHDOG=1"


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as s:
        yield s


def test_socket_of_the_manager(services, tmp_path, listening):
    service = services(program=program_with_sockets(tmp_path, listening.fileno()),
                       pass_fds=[listening.fileno()], env={"PORT": "1"})
    assert service.port == listening.getsockname()[1]
    assert service.check("dev-1")["update_available"] is False


def test_restart_refuses_nobody(services, tmp_path, listening):
    """Clients that knock all the while: each is let in, before, during and after the restarts."""
    service = services(program=program_with_sockets(tmp_path, listening.fileno()),
                       pass_fds=[listening.fileno()])
    ended = threading.Event()
    answers, broken = [], []

    def knock():
        while not ended.is_set():
            try:
                with socket.create_connection(listening.getsockname(), timeout=30) as s:
                    s.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    answers.append(s.recv(12))
            except OSError as why:
                broken.append(why)

    threads = [threading.Thread(target=knock) for _ in range(4)]
    for t in threads:
        t.start()
    for _ in range(3):
        seen = len(answers)
        wait_for(lambda: len(answers) > seen + 20, "answers")
        service.restart()
    ended.set()
    for t in threads:
        t.join()
    assert not [b for b in broken if isinstance(b, ConnectionRefusedError)]
    # While it ends it may say 503, come again; it hangs up on nobody.
    assert set(answers) <= {b"HTTP/1.1 200", b"HTTP/1.1 503"} and not broken, broken[:3]


def test_too_many_sockets(services, tmp_path, listening):
    with socket.create_server(("127.0.0.1", 0)) as other:
        fds = [listening.fileno(), other.fileno()]
        service = services(start=False, program=program_with_sockets(tmp_path, *fds), pass_fds=fds)
        done = service.spawn()
        assert done.wait(20) == 2 and "hands over 2 sockets" in service.log()
        service.process = None


def test_another_kind_of_socket(services, tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        service = services(start=False, program=program_with_sockets(tmp_path, udp.fileno()),
                           pass_fds=[udp.fileno()])
        assert service.spawn().wait(20) == 2
        assert "no listening stream socket" in service.log()
        service.process = None
