# SPDX-License-Identifier: MIT
"""A PostgreSQL of the tests' own: a cluster in a temporary folder, on a unix socket, as a user
without rights; it ends with the process that started it."""
import atexit
import ctypes
import glob
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time

PORT = 5432  # of the socket's name alone: nothing listens on TCP
USER = "paku"
START_S = 60


def programs():
    """The newest installed server's folder."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"),
                   key=lambda p: float(p.split("/")[4]))
    assert found, "PostgreSQL is not installed: apt-get install postgresql"
    return os.path.dirname(found[-1])


class Cluster:
    def __init__(self, tls_port=None, parent="/tmp", follows=None, **settings):
        """With TLS_PORT also on 127.0.0.1, by TLS, its certificate for localhost in self.certificate.
        It FOLLOWS another cluster: a standby of it."""
        self.bin = programs()
        self.folder = tempfile.mkdtemp(prefix="paku-pg-", dir=parent)
        self.data = os.path.join(self.folder, "data")
        self.settings = settings
        self.process = None
        self.made = 0
        if os.geteuid() == 0:
            who = pwd.getpwnam("postgres")
            self.ids = who.pw_uid, who.pw_gid
            os.chown(self.folder, *self.ids)
        else:
            self.ids = None
        os.chmod(self.folder, 0o755)
        if follows:
            self._run("pg_basebackup", "-D", self.data, "-h", follows.folder, "-p", str(PORT), "-U", USER,
                      "-R", "-c", "fast", "-N")
        else:
            self._run("initdb", "-D", self.data, "-A", "trust", "-U", USER, "-E", "UTF8", "--locale=C", "-N")
        if tls_port:
            self.settings.update({"listen_addresses": "127.0.0.1", "port": tls_port, "ssl": "on"})
            self.certificate = os.path.join(self.folder, "server.crt")
            self._run("/usr/bin/openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                      "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                      "-keyout", os.path.join(self.data, "server.key"), "-out", self.certificate)
            self.settings["ssl_cert_file"] = self.certificate
        self.start()

    def _become(self):
        """In the child: another user, and gone when this process is."""
        if self.ids:
            os.setgroups([])
            os.setgid(self.ids[1])
            os.setuid(self.ids[0])
        ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG: a fast shutdown

    def _run(self, program, *args):
        done = subprocess.run([os.path.join(self.bin, program), *args], capture_output=True,
                              text=True, preexec_fn=self._become, cwd="/", timeout=START_S)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self, wait=True):
        settings = {"unix_socket_directories": self.folder, "listen_addresses": "", "port": PORT,
                    "max_connections": 60, "shared_buffers": "32MB", **self.settings}
        args = [a for name, value in settings.items() for a in ("-c", "%s=%s" % (name, value))]
        with open(os.path.join(self.folder, "log"), "ab") as log:
            self.process = subprocess.Popen(
                [os.path.join(self.bin, "postgres"), "-D", self.data, *args], stdout=log,
                stderr=log, stdin=subprocess.DEVNULL, preexec_fn=self._become, cwd="/")
        end = time.monotonic() + START_S
        while wait and not self.answers():
            assert self.process.poll() is None and time.monotonic() < end, self.log()
            time.sleep(0.05)

    def answers(self):
        return self.psql("SELECT 1", check=False) == "1"

    def log(self):
        with open(os.path.join(self.folder, "log"), errors="replace") as log:
            return log.read()

    def stop(self, number=signal.SIGINT):
        """SIGINT: a fast shutdown; SIGQUIT: as if the power had gone."""
        if self.process:
            self.process.send_signal(number)
            self.process.wait(START_S)
            self.process = None

    def close(self):
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def psql(self, sql, schema="public", check=True, timeout=200, **place):
        """The answer as psql -At prints it."""
        done = subprocess.run(["psql", "-X", "-At", "-v", "ON_ERROR_STOP=1", "-f", "-"], input=sql,
                              capture_output=True, text=True, timeout=timeout,
                              env={**os.environ, **self.environment(schema, **place)})
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def schema(self):
        """A new one's name: for a service as good as a database of its own, and made at once."""
        self.made += 1
        name = "test%d" % self.made
        self.psql("CREATE SCHEMA %s" % name)
        return name

    def database(self):
        """A new one's name, for what a schema is not enough for."""
        self.made += 1
        name = "test%d" % self.made
        self.psql("CREATE DATABASE %s" % name)
        return name

    def environment(self, schema="public", database="postgres", user=USER):
        return {"PGHOST": self.folder, "PGPORT": str(self.settings.get("port", PORT)), "PGUSER": user,
                "PGDATABASE": database, "PGOPTIONS": "-c search_path=%s" % schema}


_cluster = None


def cluster(**settings):
    """One for all tests of a run; each service has a schema of its own in it."""
    global _cluster
    if _cluster is None:
        _cluster = Cluster(**settings)
        atexit.register(_cluster.close)
    return _cluster


if __name__ == "__main__":  # postgres.py PROGRAM...: run with the store on a cluster of its own
    sys.exit(subprocess.run(sys.argv[1:], env={
        **os.environ, **cluster().environment(), "PAKU_STORE": "postgresql"}).returncode)
