/* SPDX-License-Identifier: MIT */
/*
 * Reading an image in pieces: bounds, the walk over segment headers, and the one pass that makes
 * all the sums.  Every number from the file is 32 bits and is added in 64, and compared with the
 * file's size before it is used as an offset.
 */
#include "firmware/image_internal.h"

#include "base/hash.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define SEGMENT_MAX (UINT32_C(16) << 20) /* SIXTEEN_MB of ESP-IDF's esp_image_format.c */

static enum ota_code cut_off(const char *what, uint64_t need, uint64_t have, struct ota_err *err)
{
	return ota_fail(err, OTA_EUNPROCESSABLE,
			"the image is cut off: %s needs %" PRIu64 " bytes, the file has %" PRIu64,
			what, need, have);
}

enum ota_code image_read(const struct image_source *src, uint64_t off, void *buf, size_t len,
			 const char *what, struct ota_err *err)
{
	if (off > src->size || len > src->size - off)
		return cut_off(what, off + len, src->size, err);
	return len ? src->read(src->ctx, off, buf, len, err) : OTA_OK;
}

enum ota_code image_peek(const struct image_source *src, uint64_t off, void *buf, size_t len,
			 size_t *got, struct ota_err *err)
{
	uint64_t left = off < src->size ? src->size - off : 0;

	*got = left < len ? (size_t)left : len;
	memset(buf, 0, len);
	return *got ? src->read(src->ctx, off, buf, *got, err) : OTA_OK;
}

enum ota_code image_walk(const struct image_source *src, uint64_t base, uint64_t off, int count,
			 bool align, struct image_layout *layout, struct ota_err *err)
{
	if (count < 1 || count > IMAGE_MAX_SEGMENTS)
		return ota_fail(err, OTA_EUNPROCESSABLE,
				"the image header is damaged: it says %d segments, 1 to %d are "
				"possible" IMAGE_OR_RAW,
				count, IMAGE_MAX_SEGMENTS);
	for (int i = 0; i < count; i++) {
		uint8_t head[8] = {0};
		char what[32];

		snprintf(what, sizeof what, "segment %d", i + 1);
		enum ota_code code = image_read(src, off, head, sizeof head, what, err);
		if (code)
			return code;
		struct image_segment seg = {
			.addr = le32(head), .len = le32(head + 4), .off = off + 8};
		if (seg.len >= SEGMENT_MAX)
			return ota_fail(err, OTA_EUNPROCESSABLE,
					"the image is damaged: %s says it has %" PRIu32
					" bytes, the limit is 16 MiB",
					what, seg.len);
		if (align && seg.len % 4)
			return ota_fail(err, OTA_EUNPROCESSABLE,
					"the image is damaged: %s says it has %" PRIu32
					" bytes, which is no multiple of 4",
					what, seg.len);
		if (seg.len > src->size - seg.off)
			return cut_off(what, seg.off + seg.len, src->size, err);
		layout->seg[i] = seg;
		off = seg.off + seg.len;
	}
	layout->count = count;
	layout->end = base + ((off - base + 1 + 15) & ~UINT64_C(15));
	layout->checksum_at = layout->end - 1;
	if (layout->end > src->size)
		return cut_off("the checksum", layout->end, src->size, err);
	return OTA_OK;
}

/* XOR of bytes, eight at a time; memcpy because a segment begins anywhere. */
static uint8_t xor_bytes(const uint8_t *p, size_t len)
{
	uint64_t lane[4] = {0}, word;
	uint8_t sum = 0;

	for (; len >= 32; p += 32, len -= 32)
		for (size_t i = 0; i < 4; i++) {
			memcpy(&word, p + 8 * i, sizeof word);
			lane[i] ^= word;
		}
	word = lane[0] ^ lane[1] ^ lane[2] ^ lane[3];
	for (int shift = 0; shift < 64; shift += 8)
		sum ^= (uint8_t)(word >> shift);
	for (; len; p++, len--)
		sum ^= *p;
	return sum;
}

/* The part of the XOR sum that lies in buf, which holds [off, off + len) of the file. */
static uint8_t xor_block(const struct image_layout *layout, uint64_t off, const uint8_t *buf,
			 size_t len)
{
	uint8_t sum = 0;

	for (int i = 0; i < layout->count; i++) {
		const struct image_segment *s = &layout->seg[i];
		uint64_t from = s->off > off ? s->off : off;
		uint64_t to = s->off + s->len < off + len ? s->off + s->len : off + len;

		if (from < to)
			sum ^= xor_bytes(buf + (from - off), (size_t)(to - from));
	}
	return sum;
}

/* eboot's CRC-32: polynomial 04C11DB7, most significant bit first (esp8266/Arduino, elf2bin.py). */
static void crc_table_eboot(uint32_t table[256])
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i << 24;

		for (int bit = 0; bit < 8; bit++)
			c = c << 1 ^ (c & 0x80000000u ? 0x04C11DB7u : 0);
		table[i] = c;
	}
}

static void crc_table_zlib(uint32_t table[256])
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;

		for (int bit = 0; bit < 8; bit++)
			c = c >> 1 ^ (c & 1 ? 0xEDB88320u : 0);
		table[i] = c;
	}
}

static uint32_t crc_eboot(const uint32_t table[256], uint32_t crc, const uint8_t *p, size_t len)
{
	for (; len; p++, len--)
		crc = crc << 8 ^ table[crc >> 24 ^ *p];
	return crc;
}

static uint32_t crc_zlib(const uint32_t table[256], uint32_t crc, const uint8_t *p, size_t len)
{
	for (; len; p++, len--)
		crc = crc >> 8 ^ table[(crc ^ *p) & 0xFF];
	return crc;
}

uint32_t image_crc32(uint32_t start, const uint8_t *data, size_t len)
{
	uint32_t table[256];

	crc_table_zlib(table);
	return ~crc_zlib(table, start, data, len);
}

/* Zeroes what of [at, at + 8) lies in buf. */
static void blank_out(uint64_t at, uint64_t off, uint8_t *buf, size_t len)
{
	for (uint64_t i = at; i < at + 8; i++)
		if (i >= off && i < off + len)
			buf[i - off] = 0;
}

static enum ota_code pass_blocks(const struct image_source *src, struct image_pass *pass,
				 struct sha256 *sha, uint8_t *buf, struct ota_err *err)
{
	uint32_t table[256];

	if (pass->crc_kind == IMAGE_CRC_EBOOT)
		crc_table_eboot(table);
	else if (pass->crc_kind == IMAGE_CRC_ZLIB)
		crc_table_zlib(table);
	for (uint64_t off = pass->from; off < pass->to;) {
		uint64_t left = pass->to - off;
		size_t len = left < IMAGE_BLOCK_SIZE ? (size_t)left : IMAGE_BLOCK_SIZE;
		enum ota_code code = image_read(src, off, buf, len, "the image", err);

		if (code)
			return code;
		if (pass->layout)
			pass->xor_sum ^= xor_block(pass->layout, off, buf, len);
		if (sha && !sha256_update(sha, buf, len))
			return ota_fail(err, OTA_EINTERNAL, "SHA-256 failed");
		if (pass->blank_at)
			blank_out(pass->blank_at, off, buf, len);
		if (pass->crc_kind == IMAGE_CRC_EBOOT)
			pass->crc = crc_eboot(table, pass->crc, buf, len);
		else if (pass->crc_kind == IMAGE_CRC_ZLIB)
			pass->crc = crc_zlib(table, pass->crc, buf, len);
		off += len;
	}
	return OTA_OK;
}

enum ota_code image_run_pass(const struct image_source *src, struct image_pass *pass,
			     struct ota_err *err)
{
	uint8_t *buf = malloc(IMAGE_BLOCK_SIZE);
	struct sha256 *sha = pass->want_sha256 ? sha256_new() : NULL;
	enum ota_code code;

	pass->xor_sum = IMAGE_XOR_START;
	pass->crc = 0xFFFFFFFFu;
	if (!buf || (pass->want_sha256 && !sha))
		code = ota_fail_nomem(err);
	else
		code = pass_blocks(src, pass, sha, buf, err);
	if (!code && sha && !sha256_final(sha, pass->sha256))
		code = ota_fail(err, OTA_EINTERNAL, "SHA-256 failed");
	if (pass->crc_kind == IMAGE_CRC_ZLIB)
		pass->crc = ~pass->crc;
	sha256_free(&sha);
	free(buf);
	return code;
}
