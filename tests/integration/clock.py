# SPDX-License-Identifier: MIT
"""A service's wall clock, in the test's hands."""
import datetime
import os

from service import BUILD


def utc_now():
    return datetime.datetime.now(datetime.timezone.utc)


class Clock:
    """Goes ahead of the machine's by as much as it is set; the service's time never goes back."""

    def __init__(self, path):
        self.path = path
        self.set(0)

    def set(self, ahead_s):
        new = self.path.with_suffix(".new")
        new.write_text(str(int(ahead_s)))
        new.rename(self.path)
        self.ahead_s = int(ahead_s)

    def now(self):
        return utc_now() + datetime.timedelta(seconds=self.ahead_s)

    def set_to(self, when):
        self.set((when - utc_now()).total_seconds())

    def go_on(self, seconds):
        self.set(self.ahead_s + seconds)

    def environment(self):
        """What a service needs to go by it."""
        shim = os.path.join(BUILD, "tests", "integration", "libclockshift.so")
        assert os.path.exists(shim), shim
        preload = " ".join(filter(None, [os.environ.get("LD_PRELOAD"), shim]))
        asan = ":".join(filter(None, [os.environ.get("ASAN_OPTIONS"), "verify_asan_link_order=0"]))
        return {"LD_PRELOAD": preload, "CLOCK_SHIFT_FILE": str(self.path), "ASAN_OPTIONS": asan}
