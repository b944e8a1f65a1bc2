/* SPDX-License-Identifier: MIT */
/* What mirror.c and its keeper (mirror_keeper.c) share. */
#pragma once

#include "firmware/mirror.h"

#include "base/jobs.h"

#include <pthread.h>

struct mirror_file {
	uint8_t sha256[SHA256_SIZE];
	uint64_t size;
	size_t refs;
	bool listed, safe; /* safe: the bucket has it */
	unsigned tries;    /* to make it safe */
	struct mirror_file *newer, *older;
};

/* One fetch, for all who wait for the image. */
struct fetch {
	struct job job;
	struct mirror *mirror;
	uint8_t sha256[SHA256_SIZE];
	uint64_t size;
	struct mirror_wait *waits;
	struct fetch *next;
};

/* An object to be removed from the bucket. */
struct doomed {
	uint8_t sha256[SHA256_SIZE];
	int64_t not_before_ms;
	struct doomed *next;
};

struct mirror {
	struct mirror_parts parts;
	struct bucket *bucket;
	struct jobs *fetchers;
	pthread_t keeper;
	bool keeping;
	/* Held over a removal in the bucket, from the look at who wants it to its end. */
	pthread_mutex_t removal;
	pthread_mutex_t lock; /* what follows */
	pthread_cond_t work;
	struct mirror_file *newest, *oldest;
	uint64_t bytes, coming; /* of listed files, of those being fetched */
	struct fetch *fetches;
	struct doomed *doomed;
	bool woken, stopping;
	int64_t asked_ms; /* when the bucket last answered, or did not */
	struct mirror_state state;
};

/* What a request to the bucket came to. */
void mirror_note(struct mirror *m, enum ota_code rc, const struct ota_err *err);
/* The file is not what its name says: it is none of ours any more, and removed where the bucket
 * has the image. */
void mirror_discard(struct mirror *m, struct mirror_file *f, bool remove);
/* The keeper's thread; ARG is the mirror. */
void *mirror_keep(void *arg);
