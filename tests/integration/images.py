# SPDX-License-Identifier: MIT
"""Firmware images: small ones made here, valid to the last byte, and the real ones beside the
project when they are there (PAKU_SHARED names the folder; `../shared` otherwise)."""
import hashlib
import json
import os
import struct

from service import ROOT

SHARED = os.environ.get("PAKU_SHARED", os.path.join(os.path.dirname(ROOT), "shared"))
FIRMWARE = os.path.join(SHARED, "firmware")

CHIPS = {"esp32": 0, "esp32-s2": 2, "esp32-c3": 5, "esp32-s3": 9, "esp32-c6": 13}


def esp32(version="1.0.0", chip="esp32", project="paku-demo", fill=0, size=36, elf=0xE1,
          secure_version=0, min_rev=0, max_rev=0, desc=True):
    """ESP-IDF application image: header, three segments, XOR checksum, SHA-256."""
    def text(s, n):
        return s.encode()[:n].ljust(n, b"\0")

    app = b"".join([struct.pack("<IIII", 0xABCD5432, secure_version, 0, 0), text(version, 32),
                    text(project, 32), text("20:00:44", 16), text("Feb  1 2025", 16),
                    text("v5.3", 32), bytes([elf]) * 32]).ljust(256, b"\0")
    first = app if desc else bytes((fill + i * 7) & 255 for i in range(256))
    rest = [bytes((fill + 1 + i * 7) & 255 for i in range(64)),
            (bytes((fill + 2 + i * 7) & 255 for i in range(256)) * (size // 256 + 1))[:size & ~3]]
    out = struct.pack("<BBBBIB3xHBHHxxxxB", 0xE9, 3, 2, 0x2F, 0x40380000, 0xEE, CHIPS[chip], 0,
                      min_rev, max_rev, 1)
    sum_ = 0xEF
    for address, data in zip((0x3F400020, 0x3FFB0000, 0x400D0020), [first, *rest]):
        out += struct.pack("<II", address, len(data)) + data
        for word in struct.unpack("<%dI" % (len(data) // 4), data):
            sum_ ^= word & 255 ^ word >> 8 & 255 ^ word >> 16 & 255 ^ word >> 24
    out += b"\0" * (15 - len(out) % 16) + bytes([sum_])
    return out + hashlib.sha256(out).digest()


def big(size, first=b"PAKU"):
    """A bundle of no known family: for models without a chip."""
    block = first + os.urandom(65536 - len(first))
    return (block * (size // len(block) + 1))[:size]


def real():
    """Every image of the shared folder: its entry of the manifest, with its path; [] without it."""
    manifest = os.path.join(FIRMWARE, "manifest.json")
    if not os.path.exists(manifest):
        return []
    with open(manifest) as f:
        found = json.load(f)
    return [dict(one, full=os.path.join(FIRMWARE, one["file"])) for one in found]


def real_or_made():
    """A real ESP32 image where there is one, else a small one made here."""
    for one in real():
        if one["file"] == "app/dronebridge_esp32_2.1.0.bin":
            with open(one["full"], "rb") as f:
                return f.read()
    return esp32("1.2.0", size=300000)
