/* SPDX-License-Identifier: MIT */
/*
 * Images that an instance which follows sends itself, after the leader has said which: from the
 * folder that all share, or from the bucket, through a folder of its own that is emptied when it
 * ends.  Like the leader it sends none whose SHA-256 is wrong, as far as it fits into memory.
 */
#pragma once

#include "base/buf.h"
#include "base/jobs.h"
#include "config.h"
#include "firmware/cache.h"
#include "firmware/mirror.h"
#include "http/errand.h"
#include "http/relay_headers.h"

#include <microhttpd.h>

struct relay_images;

enum ota_code relay_images_open(const struct config *cfg, struct relay_images **out,
				struct ota_err *err);
/* What is being opened fails within a second, and all later. */
void relay_images_abort(struct relay_images *s);
/* When every image has been ended. */
void relay_images_close(struct relay_images **s);

/* One for a request; zero before its first use. */
struct relay_image {
	struct job job;
	struct mirror_wait wait;
	struct relay_images *from;
	uint8_t sha256[SHA256_SIZE];
	uint64_t first, length, size;
	void (*done)(void *owner); /* on any thread, perhaps before relay_image_open() returns */
	void *owner;
	/* the outcome: */
	enum ota_code code;
	struct ota_err err;
	struct cached_image *image;
	struct mirror_file *pinned;
	int fd;
};

/* HEADERS: of the leader's answer, as an errand has them.  False: it tells of no image. */
bool relay_image_read(struct relay_image *i, const struct buf *headers);
void relay_image_open(struct relay_images *s, struct relay_image *i);
/* NULL: out of memory. */
struct MHD_Response *relay_image_response(struct relay_image *i);
void relay_image_end(struct relay_image *i);
/*
 * Its last byte went out, to PEER: the leader is told, by the same request (TARGET, taken) for an
 * image that is there already, which counts as sent whole.  Nobody waits for it.
 */
void relay_image_tell(const struct relay_image *i, struct errands *errands,
		      const struct lease_view *leader, char *target, const char *peer);
