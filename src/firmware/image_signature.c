/* SPDX-License-Identifier: MIT */
/*
 * What may follow an ESP32-family image.  Nothing here trusts a key: it tells a signature from
 * rubbish.
 *
 * Secure boot v2 (ESP-IDF esp32c3/rom/secure_boot.h, ets_secure_boot_signature_t; espsecure
 * sign-data): 0xFF up to a multiple of 4 KiB, then one sector of 4 KiB with up to three blocks of
 * 1216 bytes: 0 magic 0xE7; 1 version (2 RSA, 3 ECDSA); 4 SHA-256 of everything before the sector;
 *   36 key and signature (ECDSA: curve number first); 1196 CRC-32 of the 1196 bytes before;
 * padding. Blocks that are not used are 0xFF. Secure boot v1 (esp_secure_boot_sig_block_t): right
 * after the image, u32 version 0 and 64 bytes.
 */
#include "firmware/image_internal.h"

#include <inttypes.h>
#include <stdlib.h>

#define V1_SIZE       68
#define V2_SECTOR     4096
#define V2_BLOCK      ((size_t)1216)
#define V2_BLOCKS     3
#define V2_MAGIC      0xE7
#define V2_DIGEST_AT  4
#define V2_CURVE_AT   36
#define V2_CRC_AT     1196
#define V2_RSA        2
#define V2_ECDSA      3
#define V2_CURVE_P256 2 /* 1: P-192.  P-384 (3) signs a SHA-384, which is left to the device */

enum ota_code image_refuse_trailing(uint64_t end, uint64_t size, struct ota_err *err)
{
	return ota_fail(err, OTA_EUNPROCESSABLE,
			"the image ends after %" PRIu64 " bytes, the file has %" PRIu64
			": what follows is no signature; upload firmware.bin as the build wrote it",
			end, size);
}

static bool all_ff(const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (p[i] != 0xFF)
			return false;
	return true;
}

static bool is_v1(const uint8_t sig[V1_SIZE])
{
	uint8_t seen = 0;

	for (int i = 4; i < V1_SIZE; i++)
		seen |= sig[i];
	return le32(sig) == 0 && seen != 0 && !all_ff(sig + 4, V1_SIZE - 4);
}

static bool block_is_valid(const uint8_t *b, const uint8_t sha256[32])
{
	if (b[0] != V2_MAGIC || (b[1] != V2_RSA && b[1] != V2_ECDSA))
		return false;
	if (image_crc32(0xFFFFFFFFu, b, V2_CRC_AT) != le32(b + V2_CRC_AT))
		return false;
	if (b[1] == V2_ECDSA && b[V2_CURVE_AT] > V2_CURVE_P256)
		return true;
	return memcmp(b + V2_DIGEST_AT, sha256, 32) == 0;
}

static bool sector_is_valid(const uint8_t *sector, const uint8_t sha256[32])
{
	if (!block_is_valid(sector, sha256))
		return false;
	for (size_t i = 1; i < V2_BLOCKS; i++) {
		const uint8_t *b = sector + i * V2_BLOCK;

		if (!all_ff(b, V2_BLOCK) && !block_is_valid(b, sha256))
			return false;
	}
	return all_ff(sector + V2_BLOCKS * V2_BLOCK, V2_SECTOR - V2_BLOCKS * V2_BLOCK);
}

/* The sector at AT, the fill before it from END. */
static enum ota_code check_v2(const struct image_source *src, uint64_t end, uint64_t at,
			      bool *valid, struct ota_err *err)
{
	uint8_t *buf = malloc(V2_SECTOR);
	struct image_pass pass = {.to = at, .want_sha256 = true};
	enum ota_code code;

	if (!buf)
		return ota_fail_nomem(err);
	code = image_read(src, end, buf, (size_t)(at - end), "the signature", err);
	if (!code && all_ff(buf, (size_t)(at - end))) {
		code = image_run_pass(src, &pass, err);
		if (!code)
			code = image_read(src, at, buf, V2_SECTOR, "the signature", err);
		if (!code)
			*valid = sector_is_valid(buf, pass.sha256);
	}
	free(buf);
	return code;
}

enum ota_code image_check_signature(const struct image_source *src, uint64_t end, bool *is_signed,
				    struct ota_err *err)
{
	uint64_t sector_at = (end + V2_SECTOR - 1) & ~(uint64_t)(V2_SECTOR - 1);
	uint8_t v1[V1_SIZE];
	enum ota_code code = OTA_OK;

	*is_signed = false;
	if (src->size == end)
		return OTA_OK;
	if (src->size == sector_at + V2_SECTOR) {
		code = check_v2(src, end, sector_at, is_signed, err);
	} else if (src->size == end + V1_SIZE) {
		code = image_read(src, end, v1, sizeof v1, "the signature", err);
		*is_signed = !code && is_v1(v1);
	}
	if (!code && !*is_signed)
		code = image_refuse_trailing(end, src->size, err);
	return code;
}
