/* SPDX-License-Identifier: MIT */
/*
 * The firmware folder as a bounded mirror of a bucket (firmware/bucket.h).  The bucket has every
 * image; the folder those that were asked for last.
 *
 * - An upload is put into the bucket before its release is committed.
 * - What is missing here is fetched when somebody asks: once, however many ask at a time, and
 *   nobody gets it before its size and SHA-256 are right.
 * - Over the bound the least recently used goes, but never one that is pinned (it is being sent),
 *   nor one that is not known to be in the bucket: an installation that has images when the bucket
 *   is first set has them copied there, by the keeper.
 * - An image that no release names any more is removed here and there.
 *
 * Threads: two that fetch; the keeper, which copies, removes, and asks now and then whether the
 * bucket answers.  Any thread may call; what waits for the bucket says so.
 */
#pragma once

#include "firmware/blob.h"
#include "firmware/bucket.h"

/*
 * An object younger than this (by the bucket's clock) is not removed yet: another service on the
 * same bucket may have stored it for a release that this one has not heard of.
 */
#define MIRROR_YOUNG_S 600

struct mirror;
struct mirror_file;

struct mirror_parts {
	struct blob_store *blobs;
	const struct bucket_place *place;
	uint64_t max_bytes;
	/* As for blob_sweep(); until mirror_stop().  NULL: BLOBS is empty, nothing is stored or
	 * removed, and there is no keeper. */
	blob_wanted_fn *wanted;
	/* Called once, on the keeper, when the bucket has answered for the first time. */
	void (*reached)(void *ctx, struct mirror *m);
	void *ctx;
};

/* After blob_sweep().  The bucket may be away. */
enum ota_code mirror_start(const struct mirror_parts *parts, struct mirror **out,
			   struct ota_err *err);
/* Nobody waits for a fetch any more. */
void mirror_stop(struct mirror **m);
/* What waits for the bucket fails within a second, now and later. */
void mirror_abort(struct mirror *m);

/* The image if it is in the folder, which it does not leave before mirror_unpin(); NULL: fetch it.
 * Never waits. */
struct mirror_file *mirror_pin(struct mirror *m, const uint8_t sha256[SHA256_SIZE]);
void mirror_unpin(struct mirror *m, struct mirror_file **file);
/* Its bytes turned out wrong: the folder forgets it, unless it is the only copy (false). */
bool mirror_distrust(struct mirror *m, struct mirror_file *file);

/* Somebody who waits for an image; the caller's until DONE was called, on any thread. */
struct mirror_wait {
	uint8_t sha256[SHA256_SIZE];
	uint64_t size;
	void (*done)(struct mirror_wait *w);
	/* the outcome: pinned where it is OTA_OK */
	enum ota_code code;
	struct mirror_file *file;
	struct ota_err err;
	struct mirror_wait *next; /* the mirror's */
};
void mirror_fetch(struct mirror *m, struct mirror_wait *w);

/* Puts an image that was kept in the folder into the bucket; waits for it.  Its writer stays open
 * until the release is visible. */
enum ota_code mirror_put(struct mirror *m, struct blob_writer *w, struct ota_err *err);
/* The disk is full: all goes that may, whatever the bound.  Whether any did. */
bool mirror_empty(struct mirror *m);
/* A release that named it is gone: removes it where nobody wants it, the bucket's copy later. */
void mirror_forget(struct mirror *m, const uint8_t sha256[SHA256_SIZE]);

struct mirror_state {
	bool asked, failing;
	char reason[512]; /* when it fails */
	uint64_t bytes, fetches, failures;
};
void mirror_look(struct mirror *m, struct mirror_state *out);
/* These ask the bucket, and wait.  How far its clock is ahead of this machine's; */
enum ota_code mirror_probe(struct mirror *m, int64_t *ahead_s, struct ota_err *err);
/* how large the image is there; OTA_ENOTFOUND: there is none. */
enum ota_code mirror_ask(struct mirror *m, const uint8_t sha256[SHA256_SIZE], uint64_t *size,
			 struct ota_err *err);
