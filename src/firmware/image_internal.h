/* SPDX-License-Identifier: MIT */
/* What the parts of the image inspection share; nobody else includes it. */
#pragma once

#include "firmware/image.h"

#include <string.h>

#define IMAGE_MAX_SEGMENTS 16
#define IMAGE_BLOCK_SIZE   ((size_t)32 << 10)
#define IMAGE_XOR_START    0xEF /* ESP_ROM_CHECKSUM_INITIAL */

#define ESP_MAGIC           0xE9
#define ESP8266_V2_MAGIC    0xEA
#define ESP8266_V2_SEGMENTS 0x04 /* the fixed second byte of a v2 file */
#define ESP8266_APP_OFFSET  0x1000
#define PARTITION_TABLE_AT  0x8000
#define PARTITION_MAGIC_0   0xAA
#define PARTITION_MAGIC_1   0x50

/* Ends the sentences that a bundle meets which begins with 0xE9 by chance. */
#define IMAGE_OR_RAW "; if it is no ESP image, say image_type=raw"

struct image_segment {
	uint32_t addr, len;
	uint64_t off; /* of its data in the file */
};

/* The segments of one part of a file, walked and known to lie inside it. */
struct image_layout {
	int count;
	struct image_segment seg[IMAGE_MAX_SEGMENTS];
	uint64_t checksum_at; /* the byte with the XOR checksum */
	uint64_t end;         /* the part's end: after the checksum */
};

/* One sequential reading of [from, to): whichever sums are asked for. */
struct image_pass {
	uint64_t from, to;
	const struct image_layout *layout; /* XOR of its segments; may be NULL */
	enum { IMAGE_CRC_NONE, IMAGE_CRC_EBOOT, IMAGE_CRC_ZLIB } crc_kind;
	bool want_sha256;
	uint64_t blank_at; /* eight bytes here count as zero for the CRC; 0: nowhere */

	uint8_t xor_sum;
	uint32_t crc;
	uint8_t sha256[32];
};

static inline uint16_t le16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t le32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* OTA_EUNPROCESSABLE when [off, off + len) is not inside the file: "cut off: WHAT needs ...". */
enum ota_code image_read(const struct image_source *src, uint64_t off, void *buf, size_t len,
			 const char *what, struct ota_err *err);
/* Reads what there is of [off, off + len), fills the rest with zero, tells how much there was. */
enum ota_code image_peek(const struct image_source *src, uint64_t off, void *buf, size_t len,
			 size_t *got, struct ota_err *err);
/*
 * Walks COUNT segment headers from OFF.  ALIGN: lengths must be multiples of 4.  The checksum is
 * the last byte of the 16-byte line (counted from BASE) in which the data ends.
 */
enum ota_code image_walk(const struct image_source *src, uint64_t base, uint64_t off, int count,
			 bool align, struct image_layout *layout, struct ota_err *err);
enum ota_code image_run_pass(const struct image_source *src, struct image_pass *pass,
			     struct ota_err *err);
/* CRC-32 as zlib's, of a small buffer; zlib's own start is 0xFFFFFFFF. */
uint32_t image_crc32(uint32_t start, const uint8_t *data, size_t len);

/* "the image is for ESP32-S3, the model esp32-c3 is ESP32-C3", when they differ. */
enum ota_code image_check_chip(enum chip chip, const char *model, enum chip wanted,
			       struct ota_err *err);
/* What follows an ESP32-family image at END: nothing, a signature, or a refusal. */
enum ota_code image_check_signature(const struct image_source *src, uint64_t end, bool *is_signed,
				    struct ota_err *err);
enum ota_code image_refuse_trailing(uint64_t end, uint64_t size, struct ota_err *err);

/* The parsers fill *info or refuse. */
enum ota_code image_parse_esp32(const struct image_source *src, const char *model, enum chip wanted,
				struct image_info *info, struct ota_err *err);
enum ota_code image_parse_esp8266(const struct image_source *src, const char *model,
				  enum chip wanted, struct image_info *info, struct ota_err *err);
/* Does the file begin as an ESP8266 image does: is its first segment where only that chip has
 * memory? */
enum ota_code image_looks_esp8266(const struct image_source *src, bool *yes, struct ota_err *err);
/*
 * For a file that does not begin as an image: OTA_EUNPROCESSABLE with its sentence when it is a
 * known mistake, or when nothing but an image will do (MUST_BE_ESP, or the model has a chip).
 */
enum ota_code image_check_mistakes(const struct image_source *src, bool must_be_esp,
				   const char *model, enum chip wanted, struct ota_err *err);
