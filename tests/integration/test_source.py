# SPDX-License-Identifier: MIT
"""Rules of the source that a compiler does not see."""
import os
import re

from service import ROOT

SRC = os.path.join(ROOT, "src")
# What each folder may include besides itself: left of it, never right, never sideways.
MAY = {
    "base": set(), "json": {"base"}, "core": {"base"}, "fleet": {"base", "core"}, "store": {"base", "core"},
    "firmware": {"base", "core"}, "commit": {"base", "core", "fleet", "store", "firmware"},
    "conductor": {"base", "core", "fleet", "store", "commit"},
    "http": {"base", "json", "core", "fleet", "store", "firmware", "commit", "config"},
    "mqtt": {"base", "json", "core", "fleet", "store", "commit", "config"},
}
# Pure: no files, no threads, no clock, no JSON.
NOT_IN_CORE = {"pthread.h", "time.h", "unistd.h", "fcntl.h", "jansson.h", "sqlite3.h",
               "microhttpd.h", "sys/socket.h"}


def sources(*folders):
    for folder in folders:
        for path, _, names in os.walk(os.path.join(ROOT, folder)):
            for name in names:
                if name.endswith((".c", ".h")):
                    yield os.path.join(path, name)


def includes(path):
    with open(path, encoding="utf-8") as f:
        return re.findall(r'^\s*#\s*include\s+(["<])([^">]+)[">]', f.read(), re.M)


def test_who_includes_whom():
    wrong = []
    for path in sources("src"):
        here = os.path.relpath(path, SRC)
        folder = here.split(os.sep)[0] if os.sep in here else None
        for kind, name in includes(path):
            if kind == '"' and folder:
                there = name.split("/")[0] if "/" in name else name[:-2]
                if there != folder and there not in MAY[folder]:
                    wrong.append("%s includes %s" % (here, name))
            if folder == "core" and kind == "<" and name in NOT_IN_CORE:
                wrong.append("%s includes <%s>" % (here, name))
    assert not wrong, "\n".join(wrong)


def test_the_simulator_stands_alone():
    """Of the daemon it has src/base, so that it cannot repeat the daemon's mistakes."""
    wrong = {"%s: %s" % (os.path.basename(p), n) for p in sources("fleet-sim") for kind, n in includes(p)
             if kind == '"' and n.split("/")[0] not in ("fleet-sim", "cli", "base")}
    assert not wrong, wrong


def test_every_folder_has_its_rule():
    folders = {n for n in os.listdir(SRC) if os.path.isdir(os.path.join(SRC, n))}
    assert folders <= set(MAY), "add %s to MAY" % (folders - set(MAY))


def test_a_file_includes_its_own_header_first():
    for path in sources("src"):
        own = path[:-2] + ".h"
        if path.endswith(".c") and os.path.exists(own):
            first = os.path.join(SRC, includes(path)[0][1])
            # An inner header of the folder may stand for it, when that begins with it.
            assert first == own or os.path.join(SRC, includes(first)[0][1]) == own, \
                "%s begins with %s" % (path, first)


def test_files_stay_readable():
    long = ["%s: %d lines" % (os.path.relpath(p, ROOT), n) for p in sources("src", "device", "cli", "fleet-sim")
            if (n := sum(1 for _ in open(p, encoding="utf-8"))) > 700]
    assert not long, "split " + ", ".join(long)


def test_every_file_says_its_licence():
    for path in sources("src", "device", "cli", "fleet-sim", "tests"):
        with open(path, encoding="utf-8") as f:
            assert f.readline() == "/* SPDX-License-Identifier: MIT */\n", path


def test_every_option_is_documented():
    with open(os.path.join(SRC, "config.c")) as f:
        names = re.findall(r'^\t\{"([A-Z0-9_]+)"', f.read(), re.M)
    with open(os.path.join(ROOT, "docs", "operating.md")) as f:
        text = f.read()
    missing = [name for name in names if "`%s`" % name not in text]
    assert len(names) > 20 and not missing, "docs/operating.md says nothing of " + \
        ", ".join(missing)


def test_the_http_library_is_asked_to_quiesce_on_its_own_thread_only():
    """From another thread it may abort, in a race with the one that runs it (0.9.75)."""
    callers = [os.path.basename(path) for path in sources("src")
               if re.search(r"\bMHD_quiesce_daemon\s*\(\s*\w", open(path, encoding="utf-8").read())]
    assert callers == ["workers.c"]
