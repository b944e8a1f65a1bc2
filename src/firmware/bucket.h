/* SPDX-License-Identifier: MIT */
/*
 * Images in an S3 bucket, as <sha256>.bin: one request a function, signed by libcurl (SigV4), at
 * ENDPOINT/BUCKET/KEY.  Each may take long, so it belongs on a thread of its own; any thread may
 * call.
 *
 * What fails is OTA_EUNAVAIL with a sentence that names the bucket and what it said.  A bucket that
 * passes less than BUCKET_SLOWEST for place.stall_s counts as failed.
 */
#pragma once

#include "base/err.h"
#include "base/hash.h"

#include <stdint.h>

#define BUCKET_SLOWEST 10240 /* bytes in a second; a device gives up after minutes */

struct bucket;
struct bucket_place {
	const char *endpoint; /* "https://s3.example.org", without a path */
	const char *name, *region, *key, *secret;
	int64_t stall_s;
};

/* All or nothing of it is set, and each part makes sense: else OTA_EINVAL names the variable. */
enum ota_code bucket_check(const struct bucket_place *place, struct ota_err *err);
/* Asks nobody yet.  PLACE is copied. */
enum ota_code bucket_open(const struct bucket_place *place, struct bucket **out,
			  struct ota_err *err);
void bucket_close(struct bucket **b);
/* Requests that run, and all later ones, fail within a second. */
void bucket_abort(struct bucket *b);

/* Whether it is there and lets us in, and how far its clock is ahead of this machine's. */
enum ota_code bucket_probe(struct bucket *b, int64_t *ahead_s, struct ota_err *err);
/* Stores SIZE bytes of FD, whose digest the bucket checks.  OTA_OK: it is durable there. */
enum ota_code bucket_put(struct bucket *b, const uint8_t sha256[SHA256_SIZE], int fd, uint64_t size,
			 struct ota_err *err);
/* Passes what is stored on to TAKE, in pieces; what TAKE returns other than OTA_OK ends it, and is
 * returned.  OTA_ENOTFOUND: there is none. */
typedef enum ota_code bucket_take_fn(void *ctx, const void *data, size_t len, struct ota_err *err);
enum ota_code bucket_get(struct bucket *b, const uint8_t sha256[SHA256_SIZE], bucket_take_fn *take,
			 void *ctx, struct ota_err *err);
/* OTA_ENOTFOUND: there is none.  How old it is, by the bucket's own clock. */
enum ota_code bucket_look(struct bucket *b, const uint8_t sha256[SHA256_SIZE], uint64_t *size,
			  int64_t *age_s, struct ota_err *err);
/* What is not there is removed already. */
enum ota_code bucket_remove(struct bucket *b, const uint8_t sha256[SHA256_SIZE],
			    struct ota_err *err);
