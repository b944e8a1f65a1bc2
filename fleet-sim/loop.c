/* SPDX-License-Identifier: MIT */
#include "fleet-sim/loop.h"

#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define BATCH 256
/* Timers of one turn: sockets get their share. */
#define TIMERS_A_TURN 2000

struct timer {
	int64_t due_ms;
	uint64_t order;
	timer_fn *fn;
	void *ctx;
	uint64_t arg;
};

struct loop {
	int epoll_fd;
	int64_t now_ms;
	struct timer *heap;
	size_t count, cap;
	uint64_t order;
	/* of the turn under way; sources forgotten meanwhile become NULL */
	struct epoll_event events[BATCH];
	int ready;
};

enum ota_code loop_new(struct loop **out, struct ota_err *err)
{
	struct loop *l = calloc(1, sizeof *l);

	if (!l)
		return ota_fail_nomem(err);
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll_fd < 0) {
		free(l);
		return ota_fail_errno(err, errno, "cannot make an event loop");
	}
	l->now_ms = clock_mono_ms();
	*out = l;
	return OTA_OK;
}

void loop_free(struct loop **l)
{
	if (!*l)
		return;
	close((*l)->epoll_fd);
	free((*l)->heap);
	free(*l);
	*l = NULL;
}

bool loop_watch(struct loop *l, struct source *s, int fd, uint32_t events)
{
	struct epoll_event e = {.events = events, .data = {.ptr = s}};

	if (s->fd == fd)
		return epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, fd, &e) == 0;
	loop_forget(l, s);
	/* A number that its owner closed and opened anew may still be known. */
	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &e) != 0 &&
	    (errno != EEXIST || epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, fd, &e) != 0))
		return false;
	s->fd = fd;
	return true;
}

void loop_forget(struct loop *l, struct source *s)
{
	if (s->fd < 0)
		return;
	epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
	s->fd = -1;
	for (int i = 0; i < l->ready; i++)
		if (l->events[i].data.ptr == s)
			l->events[i].data.ptr = NULL;
}

int64_t loop_now_ms(const struct loop *l)
{
	return l->now_ms;
}

static bool earlier(const struct timer *a, const struct timer *b)
{
	return a->due_ms != b->due_ms ? a->due_ms < b->due_ms : a->order < b->order;
}

bool loop_after(struct loop *l, int64_t ms, timer_fn *fn, void *ctx, uint64_t arg)
{
	struct timer t = {l->now_ms + (ms > 0 ? ms : 0), l->order++, fn, ctx, arg};
	size_t i;

	if (l->count == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 1024;
		struct timer *more = realloc(l->heap, cap * sizeof *more);

		if (!more)
			return false;
		l->heap = more;
		l->cap = cap;
	}
	for (i = l->count++; i > 0 && earlier(&t, &l->heap[(i - 1) / 2]); i = (i - 1) / 2)
		l->heap[i] = l->heap[(i - 1) / 2];
	l->heap[i] = t;
	return true;
}

static struct timer pop(struct loop *l)
{
	struct timer first = l->heap[0], last = l->heap[--l->count];
	size_t i = 0;

	for (size_t child = 1; child < l->count; child = 2 * i + 1) {
		if (child + 1 < l->count && earlier(&l->heap[child + 1], &l->heap[child]))
			child++;
		if (!earlier(&l->heap[child], &last))
			break;
		l->heap[i] = l->heap[child];
		i = child;
	}
	l->heap[i] = last;
	return first;
}

static void run_timers(struct loop *l)
{
	uint64_t until = l->order; /* what a timer starts waits for the next turn */

	for (int i = 0; i < TIMERS_A_TURN && l->count > 0; i++) {
		if (l->heap[0].due_ms > l->now_ms || l->heap[0].order >= until)
			return;
		struct timer t = pop(l);
		t.fn(t.ctx, t.arg);
	}
}

void loop_turn(struct loop *l, int ms)
{
	if (l->count > 0) {
		int64_t left = l->heap[0].due_ms - clock_mono_ms();

		ms = left < ms ? (int)(left > 0 ? left : 0) : ms;
	}
	l->ready = epoll_wait(l->epoll_fd, l->events, BATCH, ms);
	l->now_ms = clock_mono_ms();
	for (int i = 0; i < l->ready; i++) {
		struct source *s = l->events[i].data.ptr;

		if (s)
			s->ready(s, l->events[i].events);
	}
	l->ready = 0;
	run_timers(l);
}
