# SPDX-License-Identifier: MIT
"""The built program, run with a clean environment, with or without a terminal."""

import os
import subprocess

from cli_fake_service import KEY
from cli_terminal import Terminal

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("PAKU_BUILD", os.path.join(ROOT, "build"))
PROGRAM = os.path.join(BUILD, "cli", "paku-ota")


class Cli:
    """paku-ota with an environment of its own: no login, nothing of the caller's."""

    def __init__(self, home, url):
        self.home = home
        self.url = url
        self.program = PROGRAM
        self.login_file = home / "config" / "paku-ota"
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            "OTA_SERVICE_URL": url,
            "OTA_API_KEY": KEY,
        }
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS"):
            if name in os.environ:
                self.env[name] = os.environ[name]
        self.terminals = []

    def __call__(self, *args, env=None, stdin=""):
        """The finished process: returncode, stdout, stderr."""
        return subprocess.run([PROGRAM, *args], env=self.environment(env), input=stdin,
                              capture_output=True, encoding="utf-8", errors="surrogateescape",
                              timeout=60)

    def environment(self, changes):
        env = dict(self.env)
        for name, value in (changes or {}).items():
            if value is None:
                env.pop(name, None)
            else:
                env[name] = value
        return env

    def on_terminal(self, *args, env=None, cols=80, lines=24, program=PROGRAM):
        terminal = Terminal([program, *args], self.environment(env), cols, lines)
        self.terminals.append(terminal)
        return terminal
