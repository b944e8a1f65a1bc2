/* SPDX-License-Identifier: MIT */
/*
 * Builds tiny firmware images that are valid to the last byte, for any test that needs one.  The
 * sums are made here bit by bit, on purpose another way than the inspection makes them.
 *
 * Each function writes to OUT (IMAGE_BUILD_MAX bytes are always enough) and returns the length.
 */
#pragma once

#include "base/hash.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define IMAGE_BUILD_MAX ((size_t)32 << 10)

struct image_spec {
	uint16_t chip_id; /* of esp_chip_id_t: 0 ESP32, 5 ESP32-C3, 9 ESP32-S3 */
	const char *version, *project, *date, *time, *idf_version; /* NULL: "" */
	uint32_t secure_version;
	uint16_t min_rev, max_rev;
	uint8_t elf_fill;    /* each byte of the ELF hash */
	uint8_t data_fill;   /* makes otherwise equal images differ */
	bool without_desc;   /* a bootloader, or something very old */
	bool without_digest; /* no SHA-256 appended */
};

#define IMAGE_SPEC_EXAMPLE                                                                         \
	((struct image_spec){.version = "1.2.3",                                                   \
			     .project = "paku-demo",                                               \
			     .date = "Feb  1 2025",                                                \
			     .time = "20:00:44",                                                   \
			     .idf_version = "v5.3",                                                \
			     .secure_version = 7,                                                  \
			     .min_rev = 3,                                                         \
			     .max_rev = 199,                                                       \
			     .elf_fill = 0xE1})

static inline void build_le32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static inline void build_text(uint8_t *p, size_t size, const char *text)
{
	if (text)
		memcpy(p, text, strnlen(text, size));
}

static inline size_t build_segment(uint8_t *out, size_t at, uint32_t addr, uint32_t len,
				   uint8_t fill)
{
	build_le32(out + at, addr);
	build_le32(out + at + 4, len);
	for (uint32_t i = 0; i < len; i++)
		out[at + 8 + i] = (uint8_t)(fill + i * 7);
	return at + 8 + len;
}

static inline uint8_t build_xor(const uint8_t *p, size_t len, uint8_t sum)
{
	while (len--)
		sum ^= *p++;
	return sum;
}

/* XOR over the data of COUNT segments whose headers begin at AT. */
static inline uint8_t build_checksum(const uint8_t *out, size_t at, int count)
{
	uint8_t sum = 0xEF;

	for (; count; count--) {
		uint32_t len = (uint32_t)out[at + 4] | (uint32_t)out[at + 5] << 8 |
			       (uint32_t)out[at + 6] << 16 | (uint32_t)out[at + 7] << 24;
		sum = build_xor(out + at + 8, len, sum);
		at += 8 + len;
	}
	return sum;
}

/* Zeroes up to the 16-byte line's last byte and puts SUM there. */
static inline size_t build_close(uint8_t *out, size_t at, uint8_t sum)
{
	for (; at % 16 != 15; at++)
		out[at] = 0;
	out[at] = sum;
	return at + 1;
}

static inline void build_app_desc(uint8_t *d, const struct image_spec *s)
{
	memset(d, 0, 256);
	build_le32(d, 0xABCD5432u);
	build_le32(d + 4, s->secure_version);
	build_text(d + 0x10, 32, s->version);
	build_text(d + 0x30, 32, s->project);
	build_text(d + 0x50, 16, s->time);
	build_text(d + 0x60, 16, s->date);
	build_text(d + 0x70, 32, s->idf_version);
	memset(d + 0x90, s->elf_fill, 32);
}

/*
 * Makes checksum and digest right again after a change to what build_esp32() wrote; the segments
 * are taken where it put them, whatever their headers say now.
 */
static inline size_t build_esp32_sums(uint8_t *out, bool without_digest)
{
	uint8_t sum = build_xor(out + 32, 256, 0xEF);

	sum = build_xor(out + 32 + 256 + 8, 64, sum);
	sum = build_xor(out + 32 + 256 + 8 + 64 + 8, 36, sum);
	size_t at = build_close(out, 32 + 256 + 8 + 64 + 8 + 36, sum);

	if (without_digest)
		return at;
	return sha256_once(out, at, out + at) ? at + 32 : 0;
}

static inline size_t build_esp32(uint8_t *out, const struct image_spec *s)
{
	size_t at = 24;

	memset(out, 0, 24);
	out[0] = 0xE9;
	out[1] = 3;
	out[2] = 2;    /* DIO */
	out[3] = 0x2F; /* 4 MB, 80 MHz */
	build_le32(out + 4, 0x40380000u);
	out[8] = 0xEE; /* no write-protect pin */
	out[12] = (uint8_t)s->chip_id;
	out[13] = (uint8_t)(s->chip_id >> 8);
	out[15] = (uint8_t)s->min_rev;
	out[16] = (uint8_t)(s->min_rev >> 8);
	out[17] = (uint8_t)s->max_rev;
	out[18] = (uint8_t)(s->max_rev >> 8);
	out[23] = !s->without_digest;
	at = build_segment(out, at, 0x3F400020u, 256, s->data_fill);
	if (!s->without_desc)
		build_app_desc(out + 0x20, s);
	at = build_segment(out, at, 0x3FFB0000u, 64, (uint8_t)(s->data_fill + 1));
	build_segment(out, at, 0x400D0020u, 36, (uint8_t)(s->data_fill + 2));
	return build_esp32_sums(out, s->without_digest);
}

/* One bit at a time, as elf2bin.py does. */
static inline uint32_t build_crc_eboot(const uint8_t *p, size_t len)
{
	uint32_t crc = 0xFFFFFFFFu;

	for (; len; p++, len--)
		for (int bit = 7; bit >= 0; bit--) {
			bool top = (crc >> 31) ^ (*p >> bit & 1);
			crc = crc << 1 ^ (top ? 0x04C11DB7u : 0);
		}
	return crc;
}

static inline uint32_t build_crc_zlib(const uint8_t *p, size_t len)
{
	uint32_t crc = 0xFFFFFFFFu;

	for (; len; p++, len--)
		for (int bit = 0; bit < 8; bit++) {
			bool low = (crc ^ (uint32_t)(*p >> bit)) & 1;
			crc = crc >> 1 ^ (low ? 0xEDB88320u : 0);
		}
	return ~crc;
}

static inline size_t build_esp8266_head(uint8_t *out, size_t at, uint8_t segments)
{
	static const uint8_t rest[] = {2, 0x40, 0x04, 0x00, 0x10, 0x40};

	out[at] = 0xE9;
	out[at + 1] = segments;
	memcpy(out + at + 2, rest, sizeof rest);
	return at + 8;
}

/* eboot and application; WITH_CRC as cores since 2.6 write it. */
static inline size_t build_esp8266_arduino(uint8_t *out, bool with_crc)
{
	size_t at = build_esp8266_head(out, 0, 2);

	at = build_segment(out, at, 0x4010F000u, 101, 3);
	at = build_segment(out, at, 0x3FFF20B8u, 40, 4);
	at = build_close(out, at, build_checksum(out, 8, 2));
	memset(out + at, 0xAA, 0x1000 - at);
	at = build_esp8266_head(out, 0x1000, 3);
	at = build_segment(out, at, 0x40201010u, 301, 5);
	at = build_segment(out, at, 0x40100000u, 33, 6); /* unaligned, as real ones are */
	at = build_segment(out, at, 0x3FFE8000u, 48, 7);
	if (with_crc)
		memset(out + 0x1010, 0, 8);
	at = build_close(out, at, build_checksum(out, 0x1008, 3));
	if (with_crc) {
		uint32_t crc = build_crc_eboot(out, at);
		build_le32(out + 0x1010, (uint32_t)at);
		build_le32(out + 0x1014, crc);
	}
	return at;
}

static inline size_t build_esp8266_v2(uint8_t *out, bool with_crc)
{
	size_t at = build_esp8266_head(out, 0, 4);

	out[0] = 0xEA;
	at = build_segment(out, at, 0, 160, 8);
	size_t part = build_esp8266_head(out, at, 2);
	at = build_segment(out, part, 0x40100000u, 72, 9);
	at = build_segment(out, at, 0x3FFE8000u, 20, 10);
	at = build_close(out, at, build_checksum(out, part, 2));
	if (with_crc) {
		uint32_t crc = build_crc_zlib(out, at);
		build_le32(out + at, crc & 0x80000000u ? ~crc : crc + 1);
		at += 4;
	}
	return at;
}

/* One signature block as espsecure writes it, its key and signature being just bytes. */
static inline void build_signature_block(uint8_t *block, const uint8_t sha256[32], uint8_t version)
{
	memset(block, 0, 1216);
	for (int i = 36; i < 1196; i++)
		block[i] = (uint8_t)(i * 5);
	block[0] = 0xE7;
	block[1] = version; /* 2: RSA, 3: ECDSA */
	block[36] = 2;      /* of ECDSA: P-256 */
	memcpy(block + 4, sha256, 32);
	build_le32(block + 1196, build_crc_zlib(block, 1196));
}

/* Secure boot v2: 0xFF to 4 KiB, then the sector with BLOCKS blocks.  0 when hashing fails. */
static inline size_t build_sign_v2(uint8_t *out, size_t len, int blocks, uint8_t version)
{
	size_t sector = (len + 4095) / 4096 * 4096;
	uint8_t digest[32];

	memset(out + len, 0xFF, sector + 4096 - len);
	if (!sha256_once(out, sector, digest))
		return 0;
	for (int i = 0; i < blocks; i++)
		build_signature_block(out + sector + (size_t)i * 1216, digest, version);
	return sector + 4096;
}
