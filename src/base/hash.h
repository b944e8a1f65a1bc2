/* SPDX-License-Identifier: MIT */
/* Digests: SHA-256 by libcrypto, and the stable 64-bit hash that buckets are made of. */
#pragma once

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define SHA256_SIZE     32
#define SHA256_HEX_SIZE 65

struct sha256;

/* A running SHA-256; free with sha256_free().  NULL when out of memory. */
struct sha256 *sha256_new(void);
OTA_MUST_USE bool sha256_update(struct sha256 *h, const void *data, size_t len);
/* Ends the digest; the object can only be freed after it. */
OTA_MUST_USE bool sha256_final(struct sha256 *h, uint8_t out[SHA256_SIZE]);
void sha256_free(struct sha256 **h);
OTA_MUST_USE bool sha256_once(const void *data, size_t len, uint8_t out[SHA256_SIZE]);

/* HMAC with SHA-256 (RFC 2104). */
OTA_MUST_USE bool hmac_sha256(const char *key, const void *data, size_t len,
			      uint8_t out[SHA256_SIZE]);

/* Lower-case hex and back.  hex_decode wants exactly 2*len digits, either case. */
void hex_encode(const uint8_t *data, size_t len, char *out);
bool hex_decode(const char *hex, uint8_t *out, size_t len);

/* Equal in a time that does not depend on where they differ. */
bool equal_constant_time(const void *a, const void *b, size_t len);
/* LEN bytes from the system's generator; false when it has none. */
OTA_MUST_USE bool random_bytes(void *out, size_t len);

/*
 * FNV-1a, 64 bits, finished with the mixer of MurmurHash3.  Rollout buckets and the attempt order
 * depend on it: it never changes.
 */
uint64_t hash64(const void *data, size_t len);
uint64_t hash64_mix(uint64_t x);
