/* SPDX-License-Identifier: MIT */
/*
 * Requests on their way from an instance that follows to the one that leads, and the answers' way
 * back, by libcurl on one thread.
 *
 * The door (relay.c) owns an errand from errand_new() to errand_end() and calls from HTTP workers,
 * which never wait: what cannot go on now calls SUSPEND, and RESUME is called when it can.  Of a
 * body and of an answer only a window is in memory.  What was begun with a leader ends with it:
 * when another one leads, or none, the errand has failed.
 */
#pragma once

#include "base/buf.h"
#include "store/lease.h"

#include <curl/curl.h>
#include <sys/types.h>

struct errands;
struct errand;

struct errand_order {
	const char *leader; /* "http://host:port" */
	int64_t epoch;      /* of the leader */
	const char *method, *target;
	struct curl_slist *headers; /* the errand's from then on */
	int64_t body_length;        /* -1: not said */
	void (*suspend)(void *owner), (*resume)(void *owner);
	void *owner;
};

enum errand_state {
	ERRAND_UNDER_WAY, /* SUSPEND was called */
	ERRAND_ANSWERED,
	ERRAND_FAILED, /* without an answer */
};

struct errand_answer {
	long status;
	int64_t length; /* of the body; -1: not known before its end */
	bool whole;     /* all of it is in BODY */
	const struct buf *body;
	const struct buf *headers; /* "Name: value\0Name: value\0" */
};

struct errands_stats {
	_Atomic int64_t relayed, failed;
};

enum ota_code errands_start(struct lease *lease, struct errands **out, struct ota_err *err);
/* Every errand fails, and no new one begins. */
void errands_close(struct errands *w);
/* After errands_close(), when every errand has been ended. */
void errands_stop(struct errands **w);
const struct errands_stats *errands_stats(const struct errands *w);

/* NULL: out of memory, or they are closed; the headers are freed. */
struct errand *errand_new(struct errands *w, const struct errand_order *o);
/* Takes of the body what there is room for and returns how much; 0: SUSPEND was called. */
size_t errand_feed(struct errand *e, const char *data, size_t size);
/* That was the body. */
void errand_fed(struct errand *e);
enum errand_state errand_look(struct errand *e, struct errand_answer *out);
/* The answer's body as it comes; 0: SUSPEND was called; -1: that was all; -2: it broke off. */
ssize_t errand_read(struct errand *e, char *out, size_t max);
void errand_end(struct errand **e);
/* Instead of errand_end(), after errand_fed(): its answer is of no interest.  It goes on without an
 * owner, and takes TARGET, which its order named. */
void errand_leave(struct errand **e, char *target);
