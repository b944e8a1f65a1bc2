/* SPDX-License-Identifier: MIT */
/*
 * What `watch` knows about a rollout, and how it looks.  The state is filled by cmd_watch.c, judged
 * and drawn here; watch_view.c and watch_state.c touch no network and no clock.
 */
#pragma once

#include "base/buf.h"
#include "cli/cli.h"

#define WATCH_STATES 9

enum watch_verdict {
	WATCH_GOES_ON,
	WATCH_ALL_DONE, /* every targeted device runs the version */
	WATCH_FAILED,   /* all are finished, some without success */
	WATCH_INACTIVE, /* nothing is under way, and nothing will be */
};

/* One attempt, as far as it matters here. */
struct watch_row {
	char *device;
	int64_t id;
	int64_t completed_us; /* 0: open */
	bool success, failure, closed_unbegun;
	bool given_up; /* the newest of a device that has used all its attempts */
};

struct watch_rows {
	struct watch_row *rows;
	size_t n, cap;
	bool complete; /* all there are; else only the newest */
};

struct watch_state {
	json_t *rollout, *events;
	int64_t counts[WATCH_STATES]; /* in the order of watch_words */
	int64_t targeted, done, running, failed, waiting, retrying;
	struct watch_rows rows;
	int64_t started_us, now_us; /* the service's time */
	char trouble[512];          /* the service does not answer just now */
};

extern const char *const watch_words[WATCH_STATES];

bool watch_rows_add(struct watch_rows *r, const json_t *update);
void watch_rows_fini(struct watch_rows *r);
/* Takes the numbers out of w->rollout; true when a count has changed. */
bool watch_read_counts(struct watch_state *w);
/* Makes done, running, failed, waiting of counts and rows; sorts the rows. */
void watch_tally(struct watch_state *w);
/* N devices counted as failed may try again after all. */
void watch_forgive(struct watch_state *w, int64_t n);
enum watch_verdict watch_judge(const struct watch_state *w);
/* The rollout was ended for good. */
bool watch_is_over(const struct watch_state *w);
/* The end in one sentence. */
void watch_sentence(const struct watch_state *w, enum watch_verdict v, struct buf *out);

/* The screen, COLS wide and LINES high; each line ends with '\n'. */
void watch_draw(const struct watch_state *w, int cols, int lines, struct buf *out);
/* One line for logs. */
void watch_line(const struct watch_state *w, struct buf *out);
