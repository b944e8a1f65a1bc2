# SPDX-License-Identifier: MIT
"""The other end of shim.c: which call of the service is to fail, and whether it did."""
import contextlib
import errno
import mmap
import struct

MEMORY, WRITE, SYNC, NAME, CREATE = 1, 2, 4, 8, 16
KINDS = {MEMORY: "memory", WRITE: "write", SYNC: "sync", NAME: "rename", CREATE: "create"}
# struct control in shim.c: nine words
FIELDS = ("kinds", "countdown", "sticky", "error", "injected", "seen", "sync_us", "shorten",
          "last_kind")
NEVER = 2 ** 31 - 1


class Faults:
    def __init__(self, folder):
        self.path = folder / "fault-control"
        with open(self.path, "wb") as f:
            f.write(bytes(4 * len(FIELDS)))
        self.file = open(self.path, "r+b")
        self.map = mmap.mmap(self.file.fileno(), 4 * len(FIELDS))

    def environment(self, watched):
        from service import SHIM
        return {"LD_PRELOAD": SHIM, "PAKU_FAULT_CONTROL": str(self.path),
                "PAKU_FAULT_DIR": str(watched)}

    def close(self):
        self.map.close()
        self.file.close()

    def __getitem__(self, field):
        return struct.unpack_from("i", self.map, 4 * FIELDS.index(field))[0]

    def __setitem__(self, field, value):
        struct.pack_into("i", self.map, 4 * FIELDS.index(field), value)

    def arm(self, kinds, nth=1, error=errno.EIO, sticky=False, shorten=False):
        self.disarm()
        self["countdown"] = nth
        self["error"] = error
        self["sticky"] = sticky
        self["shorten"] = shorten
        self["injected"] = self["seen"] = self["last_kind"] = 0
        self["kinds"] = kinds  # last: from here on it counts

    def disarm(self):
        self["kinds"] = 0

    @contextlib.contextmanager
    def armed(self, *args, **kw):
        self.arm(*args, **kw)
        try:
            yield self
        finally:
            self.disarm()

    @contextlib.contextmanager
    def slow_sync(self, seconds):
        self["sync_us"] = int(seconds * 1000000)
        try:
            yield self
        finally:
            self["sync_us"] = 0

    @property
    def injected(self):
        return self["injected"]
