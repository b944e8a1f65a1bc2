/* SPDX-License-Identifier: MIT */
/*
 * See watch.h.  The counts of a rollout are of attempts, and a device may have several; who has
 * failed for good is read from the attempts themselves: as many failures in a row as the rollout
 * allows.
 */
#include "cli/watch.h"
#include "cli/api.h"
#include "base/clock.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

const char *const watch_words[WATCH_STATES] = {
	"pending", "downloading", "downloaded", "installing", "success",
	"failed",  "rolled_back", "lapsed",     "withdrawn",
};

bool watch_rows_add(struct watch_rows *r, const json_t *update)
{
	const char *device = api_str(update, "device_id"), *status = api_str(update, "status");
	const char *completed = api_str(update, "completed_at");
	struct watch_row row = {.id = api_int(update, "id", 0)};

	if (!device || !status)
		return true; /* not an attempt we understand: it counts for nothing */
	if (r->n == r->cap) {
		size_t cap = r->cap ? r->cap * 2 : 256;
		struct watch_row *rows = realloc(r->rows, cap * sizeof(*rows));

		if (!rows)
			return false;
		r->rows = rows;
		r->cap = cap;
	}
	if (completed && !time_parse(completed, &row.completed_us))
		row.completed_us = 0;
	row.success = strcmp(status, "success") == 0;
	row.failure = strcmp(status, "failed") == 0 || strcmp(status, "rolled_back") == 0;
	row.closed_unbegun = api_str(update, "closed") != NULL;
	row.device = strdup(device);
	if (!row.device)
		return false;
	r->rows[r->n++] = row;
	return true;
}

void watch_rows_fini(struct watch_rows *r)
{
	for (size_t i = 0; i < r->n; i++)
		free(r->rows[i].device);
	free(r->rows);
	*r = (struct watch_rows){0};
}

bool watch_read_counts(struct watch_state *w)
{
	const json_t *counts = json_object_get(w->rollout, "counts");
	int64_t targeted = api_int(w->rollout, "targeted", 0);
	int64_t done = api_int(w->rollout, "on_version", 0);
	bool changed = targeted != w->targeted || done != w->done;

	w->targeted = targeted;
	w->done = done;
	for (int i = 0; i < WATCH_STATES; i++) {
		int64_t n = api_int(counts, watch_words[i], 0);

		changed = changed || n != w->counts[i];
		w->counts[i] = n;
	}
	return changed;
}

static int by_device_newest_first(const void *a, const void *b)
{
	const struct watch_row *x = a, *y = b;
	int order = strcmp(x->device, y->device);

	return order ? order : (x->id < y->id) - (x->id > y->id);
}

static int64_t at_most(int64_t n, int64_t most)
{
	return n < 0 ? 0 : n > most ? (most < 0 ? 0 : most) : n;
}

void watch_tally(struct watch_state *w)
{
	int64_t allowed = api_int(w->rollout, "max_attempts", 3), failed = 0, retrying = 0;
	struct watch_rows *r = &w->rows;

	qsort(r->rows, r->n, sizeof(*r->rows), by_device_newest_first);
	for (size_t i = 0, next; i < r->n; i = next) {
		int64_t in_a_row = 0;
		bool counting = true;

		for (next = i; next < r->n && strcmp(r->rows[next].device, r->rows[i].device) == 0;
		     next++) {
			if (r->rows[next].failure && counting)
				in_a_row++;
			else if (!r->rows[next].closed_unbegun)
				counting = false;
		}
		r->rows[i].given_up = in_a_row >= allowed;
		if (in_a_row >= allowed)
			failed++;
		else if (in_a_row > 0)
			retrying++;
	}
	w->running = 0;
	for (int i = 0; i < 4; i++)
		w->running += w->counts[i];
	w->running = at_most(w->running, w->targeted - w->done);
	w->failed = at_most(failed, w->targeted - w->done - w->running);
	w->waiting = at_most(w->targeted - w->done - w->running - w->failed, w->targeted);
	w->retrying = at_most(retrying, w->waiting);
}

void watch_forgive(struct watch_state *w, int64_t n)
{
	n = at_most(n, w->failed);
	w->failed -= n;
	w->waiting += n;
	w->retrying += n;
}

bool watch_is_over(const struct watch_state *w)
{
	const char *state = api_str(w->rollout, "state");

	return state && (strcmp(state, "halted") == 0 || strcmp(state, "aborted") == 0);
}

/* More devices follow by themselves, or it has not begun. */
static bool has_more(const struct watch_state *w)
{
	const json_t *stage = json_object_get(w->rollout, "stage");
	const char *state = api_str(w->rollout, "state");

	return state && (strcmp(state, "scheduled") == 0 ||
			 (strcmp(state, "running") == 0 &&
			  api_int(stage, "index", 1) < api_int(stage, "of", 1)));
}

enum watch_verdict watch_judge(const struct watch_state *w)
{
	if (has_more(w))
		return WATCH_GOES_ON;
	if (w->targeted > 0 && w->done >= w->targeted)
		return WATCH_ALL_DONE;
	if (w->targeted > 0 && w->running == 0 && w->waiting == 0)
		return WATCH_FAILED;
	if (!api_true(w->rollout, "is_active") && w->running == 0)
		return WATCH_INACTIVE;
	return WATCH_GOES_ON;
}

void watch_sentence(const struct watch_state *w, enum watch_verdict v, struct buf *out)
{
	const char *version = api_str(w->rollout, "firmware_version");
	const char *state = api_str(w->rollout, "state"), *reason = api_str(w->rollout, "reason");
	int64_t left = w->targeted - w->done;

	version = version ? version : "the version";
	switch (v) {
	case WATCH_ALL_DONE:
		buf_printf(out, "done: all %" PRId64 " targeted devices run %s", w->targeted,
			   version);
		break;
	case WATCH_FAILED:
		buf_printf(out,
			   "over: %" PRId64 " of %" PRId64 " targeted devices failed to install %s",
			   left, w->targeted, version);
		break;
	case WATCH_INACTIVE:
		buf_printf(out,
			   "the rollout is %s%s%s%s: %" PRId64 " of %" PRId64 " targeted devices "
			   "do not run %s",
			   state ? state : "not active", reason ? " (" : "", reason ? reason : "",
			   reason ? ")" : "", left, w->targeted, version);
		break;
	case WATCH_GOES_ON:
		buf_printf(out,
			   "not over: %" PRId64 " of %" PRId64 " targeted devices do not run %s",
			   left, w->targeted, version);
		break;
	}
}
