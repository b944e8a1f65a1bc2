/* SPDX-License-Identifier: MIT */
/*
 * Images of the ESP32 family.  Source: ESP-IDF, esp_app_format.h (esp_image_header_t),
 * esp_app_desc.h (esp_app_desc_t) and esp_image_format.c.
 *
 * The order of the checks is the order in which the sentences help: cut off, merged, bootloader,
 * wrong chip, then the sums.
 */
#include "firmware/image_internal.h"

#include <inttypes.h>
#include <stdio.h>

#define HEADER_SIZE     24
#define DESC_AT         0x20 /* the first segment's data: esp_app_desc_t stands there in every app */
#define DESC_SIZE       256
#define DESC_MAGIC      UINT32_C(0xABCD5432)
#define BOOT_DESC_MAGIC 0x50 /* esp_bootloader_desc_t, since ESP-IDF 5.1 */
#define DIGEST_SIZE     32
/*
 * Bootloaders before 5.1 have no mark.  They live below the partition table, at 0x8000 by default,
 * and no application with a network is as small; some with secure boot reach 0x10000.
 */
#define BOOTLOADER_MAX UINT64_C(0x10000)

struct esp32_header {
	int segments;
	uint16_t chip_id, min_rev, max_rev;
	uint8_t hash_appended;
};

static enum ota_code read_header(const struct image_source *src, struct esp32_header *h,
				 struct ota_err *err)
{
	uint8_t raw[HEADER_SIZE];
	enum ota_code code = image_read(src, 0, raw, sizeof raw, "the header", err);

	if (code)
		return code;
	*h = (struct esp32_header){
		.segments = raw[1],
		.chip_id = le16(raw + 12),
		.min_rev = le16(raw + 15),
		.max_rev = le16(raw + 17),
		.hash_appended = raw[23],
	};
	if (raw[0] != ESP_MAGIC)
		return ota_fail(err, OTA_EUNPROCESSABLE,
				"this is no ESP image: the first byte is 0x%02X, not 0xE9", raw[0]);
	if (h->hash_appended > 1)
		return ota_fail(err, OTA_EUNPROCESSABLE,
				"the image header is damaged: its hash_appended is %d, not 0 or "
				"1" IMAGE_OR_RAW,
				h->hash_appended);
	if (chip_from_esp_id(h->chip_id) == CHIP_NONE)
		return ota_fail(err, OTA_EUNPROCESSABLE,
				"the image header names chip number %d, which is unknown "
				"here" IMAGE_OR_RAW,
				h->chip_id);
	return OTA_OK;
}

static void copy_text(char *out, const uint8_t *from, size_t len)
{
	size_t n = 0;

	for (; n < len && from[n]; n++)
		out[n] = from[n] >= 0x20 && from[n] <= 0x7E ? (char)from[n] : '?';
	out[n] = '\0';
}

/* __DATE__ and __TIME__ of C ("Feb  1 2025", "20:00:44") to ISO 8601; false when they are not. */
static bool parse_build_time(const char *date, const char *time, char out[40])
{
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	char month[4], rest;
	unsigned day, year, hour, minute, second;

	if (sscanf(date, "%3s %2u %4u%c", month, &day, &year, &rest) != 3 ||
	    sscanf(time, "%2u:%2u:%2u%c", &hour, &minute, &second, &rest) != 3)
		return false;
	const char *at = strlen(month) == 3 ? strstr(months, month) : NULL;
	if (!at || (at - months) % 3 || day < 1 || day > 31 || year < 1970 || year > 9999 ||
	    hour > 23 || minute > 59 || second > 60)
		return false;
	snprintf(out, 40, "%04u-%02u-%02uT%02u:%02u:%02u", year % 10000,
		 (unsigned)(at - months) / 3 + 1, day % 100, hour % 100, minute % 100,
		 second % 100);
	return true;
}

static void take_desc(const uint8_t *d, struct image_info *info)
{
	static const uint8_t zero[32];
	char date[17], time[17];

	info->has_app_desc = true;
	info->secure_version = le32(d + 0x04);
	copy_text(info->version, d + 0x10, 32);
	copy_text(info->project, d + 0x30, 32);
	copy_text(time, d + 0x50, 16);
	copy_text(date, d + 0x60, 16);
	copy_text(info->idf_version, d + 0x70, 32);
	if (!parse_build_time(date, time, info->build_time))
		snprintf(info->build_time, sizeof info->build_time, "%s%s%s", date,
			 *date && *time ? " " : "", time);
	memcpy(info->elf_sha256, d + 0x90, 32);
	info->has_elf_sha256 = memcmp(info->elf_sha256, zero, 32) != 0;
}

/* Well formed, but no application: say what it is. */
static enum ota_code refuse_without_desc(const struct image_source *src, const uint8_t *desc,
					 uint64_t end, struct ota_err *err)
{
	uint8_t table[2];
	size_t got;
	enum ota_code code = image_peek(src, PARTITION_TABLE_AT, table, sizeof table, &got, err);

	if (code)
		return code;
	if (table[0] == PARTITION_MAGIC_0 && table[1] == PARTITION_MAGIC_1)
		return ota_fail(err, OTA_EUNPROCESSABLE,
				"this is a merged flash image (bootloader, partition table and "
				"application in one), upload firmware.bin");
	if (end <= BOOTLOADER_MAX || desc[0] == BOOT_DESC_MAGIC)
		return ota_fail(err, OTA_EUNPROCESSABLE,
				"this is a bootloader, upload firmware.bin");
	return ota_fail(
		err, OTA_EUNPROCESSABLE,
		"the image has no application description (ESP-IDF writes one since 3.3), "
		"so it is no application or a very old one; image_type=raw takes it unchecked");
}

static enum ota_code check_sums(const struct image_source *src, const struct image_layout *layout,
				bool hashed, struct image_info *info, struct ota_err *err)
{
	struct image_pass pass = {.to = layout->end, .layout = layout, .want_sha256 = hashed};
	uint8_t checksum, digest[DIGEST_SIZE];
	enum ota_code code =
		image_read(src, layout->checksum_at, &checksum, 1, "the checksum", err);

	if (!code && hashed)
		code = image_read(src, layout->end, digest, sizeof digest, "the SHA-256 at its end",
				  err);
	if (!code)
		code = image_run_pass(src, &pass, err);
	if (code)
		return code;
	if (pass.xor_sum != checksum)
		return ota_fail(err, OTA_EUNPROCESSABLE,
				"the image is damaged: its checksum is 0x%02X, its data say 0x%02X",
				checksum, pass.xor_sum);
	if (hashed && memcmp(digest, pass.sha256, sizeof digest) != 0)
		return ota_fail(
			err, OTA_EUNPROCESSABLE,
			"the image is damaged: the SHA-256 at its end is not that of its data");
	if (hashed) {
		info->has_digest = true;
		memcpy(info->digest, digest, sizeof digest);
	}
	return OTA_OK;
}

static enum ota_code check_kind(const struct image_source *src, const struct image_layout *layout,
				struct image_info *info, struct ota_err *err)
{
	const struct image_segment *first = &layout->seg[0];
	uint8_t desc[DESC_SIZE];
	size_t got;
	enum ota_code code = image_peek(src, DESC_AT, desc, sizeof desc, &got, err);

	if (code)
		return code;
	if (first->len < DESC_SIZE || le32(desc) != DESC_MAGIC)
		return refuse_without_desc(src, desc, layout->end, err);
	/*
	 * The ESP8266 RTOS SDK writes the same header with a zero where the ESP32's number is.  Its
	 * first segment is flash code; an ESP32 application's is flash data, at 0x3F400000.
	 */
	if (info->chip == CHIP_ESP32 && first->addr >= 0x40200000u && first->addr < 0x40300000u)
		return ota_fail(err, OTA_EUNPROCESSABLE,
				"this looks like an image of the ESP8266 RTOS SDK, which cannot be "
				"checked here; image_type=raw takes it unchecked");
	take_desc(desc, info);
	return OTA_OK;
}

enum ota_code image_parse_esp32(const struct image_source *src, const char *model, enum chip wanted,
				struct image_info *info, struct ota_err *err)
{
	struct esp32_header header;
	struct image_layout layout = {0};
	enum ota_code code = read_header(src, &header, err);

	if (!code)
		code = image_walk(src, 0, HEADER_SIZE, header.segments, true, &layout, err);
	if (code)
		return code;
	*info = (struct image_info){
		.is_esp = true,
		.chip = chip_from_esp_id(header.chip_id),
		.layout = "esp32-family app",
		.segments = header.segments,
		.min_chip_rev = header.min_rev,
		.max_chip_rev =
			header.max_rev == 0 || header.max_rev == 0xFFFF ? -1 : header.max_rev,
	};
	code = check_kind(src, &layout, info, err);
	if (!code)
		code = image_check_chip(info->chip, model, wanted, err);
	if (!code)
		code = check_sums(src, &layout, header.hash_appended, info, err);
	if (!code)
		code = image_check_signature(src,
					     layout.end + (header.hash_appended ? DIGEST_SIZE : 0),
					     &info->signed_block, err);
	return code;
}
