/* SPDX-License-Identifier: MIT */
/*
 * Whole images in memory, for downloads: read off the HTTP workers and hashed when loaded, so that
 * a damaged file is never served.  (An mmap would turn a disk error into SIGBUS.)  Bounded: the
 * least recently used go first; one that is being sent stays until it is let go.
 */
#pragma once

#include "firmware/blob.h"

struct image_cache;

/* A loaded image; what cache_get() returns is counted and lives until cache_put(). */
struct cached_image {
	uint8_t sha256[SHA256_SIZE];
	char *data;
	size_t size;
	/* the cache's, under its lock: */
	size_t refs;
	bool listed;
	struct cached_image *newer, *older;
};

struct image_cache *cache_new(struct blob_store *blobs, uint64_t max_bytes); /* NULL: no memory */
void cache_free(struct image_cache **c); /* all must have been put back */

/* Whether an image of that size is kept in memory at all; larger ones go by descriptor. */
bool cache_takes(const struct image_cache *c, uint64_t size);
/* The image if it is in memory; NULL otherwise.  Never waits for a disk. */
struct cached_image *cache_get(struct image_cache *c, const uint8_t sha256[SHA256_SIZE]);
/* Loads and verifies it; may wait for a disk.  OTA_EIO: it is damaged or gone. */
enum ota_code cache_load(struct image_cache *c, const uint8_t sha256[SHA256_SIZE],
			 struct cached_image **out, struct ota_err *err);
void cache_put(struct image_cache *c, struct cached_image *image);
