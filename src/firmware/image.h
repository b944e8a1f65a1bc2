/* SPDX-License-Identifier: MIT */
/*
 * What is this file, and may it go onto a device?  A firmware image is read once, in pieces,
 * checked whole, and described.  Pure apart from the caller's read function; any thread; at most 64
 * KiB of the image are in memory at a time.
 *
 * Formats: ESP32-family application (24-byte header, app description, XOR checksum, appended
 * SHA-256, secure boot signature), ESP8266 Arduino (bootloader and application in one file) and
 * ESP8266 non-OS SDK "v2" (first byte 0xEA).  Everything else is raw: bytes that are handed on as
 * they are.
 *
 * A file that is not accepted is OTA_EUNPROCESSABLE with a sentence that says what it is and what
 * to upload instead.  OTA_EIO (or whatever the read function says) and OTA_ENOMEM are not the
 * file's fault.
 */
#pragma once

#include "base/err.h"
#include "core/chip.h"

#include <stddef.h>
#include <stdint.h>

struct image_source {
	void *ctx;
	/* Reads exactly LEN bytes at OFF, which lie inside SIZE, or fails with *err. */
	enum ota_code (*read)(void *ctx, uint64_t off, void *buf, size_t len, struct ota_err *err);
	uint64_t size;
};

/*
 * What the uploader says the file is.
 *
 * AUTO: what looks like ESP firmware (first byte 0xE9, or 0xEA 0x04) is checked.  Known mistakes
 * are refused.  Anything else is raw for a model without a chip, and refused for a model with one;
 * except that an ESP8266 model takes gzip, which its Arduino updater unpacks (info.note says so).
 * ESP:  must be a valid image.   RAW: must not be empty; nothing else is looked at.
 */
enum image_type { IMAGE_AUTO, IMAGE_ESP, IMAGE_RAW };

/* Texts out of the image are cut at their first NUL; what is not printable ASCII becomes '?'. */
struct image_info {
	bool is_esp; /* false: raw, and only layout and note mean anything */
	enum chip chip;
	const char *layout; /* a constant: "esp32-family app", "esp8266 arduino", "raw", ... */
	int segments;       /* of the application; without the ESP8266's irom part in v2 */

	bool has_app_desc; /* then the next six come from it; ESP32 family only */
	char version[33], project[33];
	/* "2025-02-21T20:00:44", the build machine's local time (so no zone); or, when date and
	 * time are not as the C compiler writes them, both as they are: "DATE TIME". */
	char build_time[40];
	char idf_version[33];
	uint32_t secure_version;
	bool has_elf_sha256; /* false when it is all zero */
	uint8_t elf_sha256[32];

	bool has_digest; /* the appended SHA-256: the image digest that the bootloader means */
	uint8_t digest[32];
	int min_chip_rev,
		max_chip_rev; /* major * 100 + minor, as the header says; -1: none given */
	bool signed_block;    /* a signature block follows; its form is checked, not its key */
	char note[128];       /* odd but allowed, for the answer's warnings; "" mostly */
};

/*
 * MODEL is the model's name, for the sentences; CHIP_WANTED its chip, CHIP_NONE when it has none.
 * *out is written on success only.
 */
OTA_MUST_USE enum ota_code image_inspect(const struct image_source *src, enum image_type type,
					 const char *model, enum chip chip_wanted,
					 struct image_info *out, struct ota_err *err);
