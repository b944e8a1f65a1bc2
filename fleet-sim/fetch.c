/* SPDX-License-Identifier: MIT */
/*
 * How a device gets its image: by GET, hashed as it comes, going on by Range where the link broke;
 * or by HEAD alone, and the time that the link would take.
 *
 * Where the plan wants something to happen within the image, HEAD tells its size first.
 */
#include "fleet-sim/fleet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROGRESS_MS  1000
#define AGAIN_MS     1000
#define BREAK_MS     800
#define REFUSALS_MAX 30
#define PRETEND_MS   300 /* a download that is not done, over a fast link */

enum stop { STOP_NONE, STOP_BREAK, STOP_FAIL, STOP_LOSS };

/* What is to happen next within the image, and where; -1: nothing. */
static enum stop next_stop(const struct work *w, int64_t *at)
{
	const struct try_plan *p = &w->plan;
	enum stop what = STOP_NONE;
	double part = 2;

	if (w->breaks < p->breaks) {
		what = STOP_BREAK;
		part = p->break_at[w->breaks];
	}
	if (p->fate == FATE_FAIL && p->fail_phase == FAIL_DOWNLOAD && p->fail_at <= part) {
		what = STOP_FAIL;
		part = p->fail_at;
	}
	if (p->loss == LOSS_DOWNLOAD && p->loss_at <= part) {
		what = STOP_LOSS;
		part = p->loss_at;
	}
	*at = what == STOP_NONE || w->size < 0 ? -1 : (int64_t)((double)w->size * part);
	if (*at >= 0 && *at < w->got)
		*at = w->got;
	return what;
}

static int64_t speed_of(const struct fleet *f, const struct device *d)
{
	int row = d->traits.row[HABIT_SLOW];

	return row >= 0 ? f->scenario.habits[row].bytes_per_s : 0;
}

static void begins(struct fleet *f, struct device *d)
{
	if (d->state == DEVICE_DOWNLOADING)
		return;
	device_enter(f, d, DEVICE_DOWNLOADING);
	d->work->told_ms = loop_now_ms(f->loop);
	device_say(f, d, WORD_DOWNLOADING, NULL);
}

static void tell_progress(struct fleet *f, struct device *d)
{
	struct work *w = d->work;

	begins(f, d);
	if (loop_now_ms(f->loop) - w->told_ms < PROGRESS_MS)
		return;
	w->told_ms = loop_now_ms(f->loop);
	device_say(f, d, WORD_DOWNLOADING, NULL);
}

/* ------------------------------------------------------------------ answers that are no image */

/* True when it was one. */
static bool is_image(struct fleet *f, struct device *d, const struct web_reply *r, long wanted)
{
	struct work *w = d->work;
	int64_t wait_ms = r->retry_after_s ? r->retry_after_s * 1000 : AGAIN_MS;
	char why[80];

	if (r->status == wanted && (r->whole || r->cut))
		return true;
	if (r->status == 410) {
		device_withdrawn(f, d);
		return false;
	}
	if ((r->status != wanted && r->status != 0 && r->status != 503) ||
	    ++w->refusals > REFUSALS_MAX) {
		snprintf(why, sizeof why, r->status ? "the service answered %ld" : "no answer",
			 r->status);
		device_failed(f, d, 2, why);
		return false;
	}
	device_after(f, d, wait_ms, device_fetch);
	return false;
}

static void what_was_to_happen(struct fleet *f, struct device *d, enum stop what)
{
	struct work *w = d->work;

	switch (what) {
	case STOP_LOSS: device_lost_power(f, d); break;
	case STOP_FAIL: device_failed(f, d, w->plan.code, "it was meant to"); break;
	case STOP_BREAK:
	case STOP_NONE:
		w->breaks++;
		device_after(f, d, BREAK_MS, device_fetch);
		break;
	}
}

/* ------------------------------------------------------------------ GET */

static void on_progress(void *ctx, uint64_t arg, int64_t got)
{
	struct fleet *f = ctx;
	struct device *d = &f->devices[arg];

	if (!d->work || f->ending)
		return;
	d->work->got = got;
	tell_progress(f, d);
}

static void check_image(struct fleet *f, struct device *d)
{
	uint8_t digest[SHA256_SIZE];

	f->stats.images++;
	begins(f, d);
	if (!sha256_final(d->work->hash, digest) ||
	    memcmp(digest, d->work->checksum, SHA256_SIZE) != 0) {
		f->stats.corrupt++;
		device_failed(f, d, 3, "the SHA-256 is another one");
		return;
	}
	device_fetched(f, d);
}

static void on_fetched(void *ctx, uint64_t arg, const struct web_reply *r)
{
	struct fleet *f = ctx;
	struct device *d = &f->devices[arg];
	struct work *w = d->work;
	int64_t at;

	if (f->ending || !w)
		return;
	if (w->size < 0 && r->length >= 0 && r->status == 200)
		w->size = r->length;
	if (!r->whole && w->size >= 0 && w->got == w->size) {
		check_image(f, d); /* only its end was not heard */
		return;
	}
	if (!is_image(f, d, r, w->got - r->got > 0 ? 206 : 200))
		return;
	if (r->cut) {
		enum stop what = next_stop(w, &at);

		begins(f, d);
		what_was_to_happen(f, d, what);
	} else {
		check_image(f, d);
	}
}

/* ------------------------------------------------------------------ HEAD */

/* The download that is not done has taken its time. */
static void pretended(struct fleet *f, struct device *d)
{
	struct work *w = d->work;
	int64_t speed = speed_of(f, d), at = -1, until;
	enum stop what;

	what = next_stop(w, &at);
	until = what == STOP_NONE ? w->size : at;
	w->got = speed > 0 && w->got + speed < until ? w->got + speed : until;
	tell_progress(f, d);
	if (w->got < until)
		device_after(f, d, PROGRESS_MS, pretended);
	else if (what != STOP_NONE)
		what_was_to_happen(f, d, what);
	else
		device_fetched(f, d);
}

static void on_head(void *ctx, uint64_t arg, const struct web_reply *r)
{
	struct fleet *f = ctx;
	struct device *d = &f->devices[arg];

	if (f->ending || !d->work || !is_image(f, d, r, 200))
		return;
	if (r->length < 0) {
		device_failed(f, d, 2, "the answer has no Content-Length");
		return;
	}
	d->work->size = r->length;
	if (f->o.download) {
		device_fetch(f, d);
		return;
	}
	begins(f, d);
	device_after(f, d, PRETEND_MS, pretended);
}

void device_fetch(struct fleet *f, struct device *d)
{
	struct work *w = d->work;
	struct web_ask ask = {
		.lane = WEB_LOAD, .url = w->url, .ctx = f, .arg = d->number, .stop_at = -1};
	enum stop what = next_stop(w, &ask.stop_at);

	if (!f->o.download && w->size >= 0 && d->state == DEVICE_DOWNLOADING) {
		pretended(f, d); /* after a break */
		return;
	}
	ask.head = !f->o.download || (what != STOP_NONE && w->size < 0);
	if (ask.head) {
		ask.done = on_head;
		ask.stop_at = -1;
	} else {
		ask.done = on_fetched;
		ask.hash = w->hash;
		ask.from = w->got;
		ask.bytes_per_s = speed_of(f, d);
		ask.progress = on_progress;
	}
	if (ask.stop_at >= 0 && ask.stop_at == w->got && w->got > 0)
		what_was_to_happen(f, d, what);
	else if (!web_send(f->web, &ask))
		device_after(f, d, AGAIN_MS, device_fetch);
}
