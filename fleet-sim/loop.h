/* SPDX-License-Identifier: MIT */
/*
 * The one event loop: sockets (epoll, level-triggered) and timers (a heap).
 *
 * One thread.  A source belongs to its owner and must stay where it is until loop_forget(); after
 * that it is not called any more, not even for events already fetched.  Timers cannot be taken
 * back: whoever might have changed its mind puts a generation into ARG and compares.
 */
#pragma once

#include "base/err.h"

#include <stdint.h>

struct loop;

struct source {
	void (*ready)(struct source *s, uint32_t events); /* EPOLLIN, EPOLLOUT, EPOLLERR, ... */
	int fd;                                           /* of loop_watch(); -1: not watched */
};

#define SOURCE_INIT(fn) ((struct source){.ready = (fn), .fd = -1})

typedef void timer_fn(void *ctx, uint64_t arg);

enum ota_code loop_new(struct loop **out, struct ota_err *err);
void loop_free(struct loop **l);

/* Watches FD, or changes what is watched of it. */
bool loop_watch(struct loop *l, struct source *s, int fd, uint32_t events);
void loop_forget(struct loop *l, struct source *s);

/* FN(CTX, ARG) in MS; equal times in the order of asking.  False: out of memory, and never. */
bool loop_after(struct loop *l, int64_t ms, timer_fn *fn, void *ctx, uint64_t arg);

/* The monotonic clock as of this turn. */
int64_t loop_now_ms(const struct loop *l);

/* One turn: what is due, what is ready; sleeps up to MS when there is nothing. */
void loop_turn(struct loop *l, int ms);
