# SPDX-License-Identifier: MIT
"""A program on a pseudo-terminal, and the screen that its output makes."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time


class Terminal:
    """Runs ARGV with all three streams on a pseudo-terminal of COLS by LINES."""

    def __init__(self, argv, env, cols=80, lines=24):
        self.cols, self.lines = cols, lines
        self.raw = b""
        self.status = None
        master, slave = pty.openpty()
        self.slave = slave  # kept open, so that the settings can be looked at after the end
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, cols, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            for fd in (0, 1, 2):
                os.dup2(slave, fd)
            os.closerange(3, 256)
            os.execve(argv[0], argv, env)
        self.master = master

    def _pump(self, seconds):
        ready, _, _ = select.select([self.master], [], [], seconds)
        if ready:
            try:
                self.raw += os.read(self.master, 65536)
            except OSError:
                return

    def _reap(self):
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)

    def wait_for(self, condition, what, seconds=60):
        """Until CONDITION(self) holds."""
        end = time.monotonic() + seconds
        while not condition(self):
            assert time.monotonic() < end, "never %s; the output so far: %r" % (what, self.raw)
            self._pump(0.05)
            self._reap()
            if self.status is not None and not condition(self):
                self._pump(0.05)
                assert condition(self), "ended (%s) without %s: %r" % (self.status, what, self.raw)

    def wait_text(self, text):
        self.wait_for(lambda t: text in t.text(), "shows %r" % text)

    def wait_exit(self):
        self.wait_for(lambda t: t.status is not None, "ends")
        while select.select([self.master], [], [], 0.05)[0]:
            n = len(self.raw)
            self._pump(0)
            if len(self.raw) == n:
                break
        return self.status

    def send(self, data):
        os.write(self.master, data)

    def kill(self, sig=signal.SIGINT):
        os.kill(self.pid, sig)

    def is_stopped(self):
        with open("/proc/%d/stat" % self.pid, encoding="ascii", errors="replace") as f:
            return f.read().rpartition(")")[2].split()[0] == "T"

    def settings(self):
        return termios.tcgetattr(self.slave)

    def close(self):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.master)
        os.close(self.slave)

    def text(self):
        """The output without its control sequences."""
        out = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", self.raw)
        return out.decode("utf-8", "replace").replace("\r\n", "\n")

    def screen(self):
        """The alternate screen's lines as they stand; understands what this program writes.

        As on an xterm the cursor never leaves the last column, so that what erases from there on takes the
        character with it; a line that is too long wraps unless that is switched off."""
        rows, row, col, wrap, full = [[]], 0, 0, True, False
        data = self.raw.decode("utf-8", "replace")
        data = data[data.rindex("\x1b[?1049h"):] if "\x1b[?1049h" in data else data
        data = data.split("\x1b[?1049l")[0]
        for token in re.findall(r"\x1b\[[0-9;?]*[a-zA-Z]|\r|\n|[^\x1b\r\n]", data):
            pending, full = full, full and token[0] == "\x1b" and token[-1] == "m"
            if token == "\x1b[H":
                row = col = 0
            elif token in ("\x1b[J", "\x1b[2J"):
                del rows[row + 1:]
                rows[row] = rows[row][:col]
                if token == "\x1b[2J":
                    rows, row, col = [[]], 0, 0
            elif token == "\x1b[K":
                rows[row] = rows[row][:col]
            elif token == "\r":
                col = 0
            elif token == "\n":
                row += 1
                if row == len(rows):
                    rows.append([])
                if len(rows) > self.lines:
                    del rows[0]  # scrolled off
                    row -= 1
            elif token in ("\x1b[?7l", "\x1b[?7h"):
                wrap = token[-1] == "h"
            elif token[0] != "\x1b":
                if pending and wrap:
                    row, col = row + 1, 0
                    if row == len(rows):
                        rows.append([])
                line = rows[row]
                line.extend(" " * (col - len(line)))
                line[col:col + 1] = token
                full = col == self.cols - 1
                col = min(col + 1, self.cols - 1)
        return ["".join(line).rstrip() for line in rows]
