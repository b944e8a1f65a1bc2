/* SPDX-License-Identifier: MIT */
/*
 * HTTP of all devices: libcurl's multi interface on the loop, so many requests at a time.
 *
 * Two lanes, each with its own bound: talk (checks, reports) and load (images, HEAD).  What is
 * above the bound waits in order.  Every request ends in one call of its DONE, also when nothing
 * answered; not after web_free().
 */
#pragma once

#include "base/hash.h"
#include "fleet-sim/loop.h"

#include <stddef.h>

/* A week, the longest interval of a service, and the fifth by which it spreads it: more makes no
 * sense. */
#define RETRY_MOST_S 725760

struct web;

struct web_reply {
	long status;       /* 0: no answer */
	int retry_after_s; /* 0: not told */
	const char *body;  /* of the talk lane: NUL-terminated, "" without; gone after DONE */
	int64_t got;       /* bytes of the image, of this request */
	int64_t length;    /* Content-Length; -1: not told */
	bool whole;        /* the answer came to its end */
	bool cut;          /* ended here, at stop_at */
};

typedef void web_done(void *ctx, uint64_t arg, const struct web_reply *r);

enum web_lane { WEB_TALK, WEB_LOAD };

struct web_ask {
	enum web_lane lane;
	const char *url;
	const char *body; /* NULL: GET, or HEAD */
	bool head;
	web_done *done;
	void *ctx;
	uint64_t arg;
	/* of the load lane */
	struct sha256 *hash;                                    /* NULL: none */
	int64_t from;                                           /* by Range; 0: the whole */
	int64_t stop_at;                                        /* bytes of it; -1: to its end */
	int64_t bytes_per_s;                                    /* 0: as fast as it goes */
	void (*progress)(void *ctx, uint64_t arg, int64_t got); /* NULL: none */
};

struct web_limits {
	int talk, load;
};

struct web_stats {
	int64_t answers, busy, failures, bytes; /* 503s; no answer at all */
	int64_t under_way;                      /* asked, and DONE not called yet */
	char problem[160];                      /* the last failure's */
};

enum ota_code web_new(struct loop *l, const struct web_limits *limits, struct web **out,
		      struct ota_err *err);
void web_free(struct web **w);
/* Copies what it needs.  False: out of memory. */
bool web_send(struct web *w, const struct web_ask *a);
const struct web_stats *web_stats(const struct web *w);
