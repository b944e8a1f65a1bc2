/* SPDX-License-Identifier: MIT */
/*
 * What a rollout did, as a page: filled by rollout_report.c from the store, written here as JSON,
 * Markdown and a picture.  The writers are pure.
 */
#pragma once

#include "base/buf.h"
#include "core/attempt.h"
#include "core/stage.h"

#define REPORT_STEPS    240 /* of time, over the whole of it */
#define REPORT_MARKS    100 /* what people and the conductor did: the first */
#define REPORT_REASONS  20  /* different errors */
#define REPORT_FAILURES 20  /* devices that failed: the last */
#define REPORT_TEXT     200

/* How many devices are in which state at the end of a step. */
enum report_series { REPORT_OFFERED, REPORT_RUNNING, REPORT_DONE, REPORT_FAILED, REPORT_SERIES };

struct report_step {
	int64_t devices[REPORT_SERIES];
	int64_t proven; /* of those that are done */
	double e;       /* the most that spoke against the release in it; 0: nothing new */
};

struct report_stage {
	int percent;
	int64_t devices;            /* inside it, as the fleet is now */
	int64_t begins_us, ends_us; /* 0: not yet */
};

struct report_mark {
	int64_t at_us;
	enum rollout_state state; /* from then on ... */
	int stage;                /* ... in this stage, from 0 */
	char what[40], reason[REPORT_TEXT];
};

struct report_reason {
	int64_t count;
	char text[REPORT_TEXT];
};

struct report_failure {
	int64_t at_us;
	char device_id[129], text[REPORT_TEXT];
};

struct account {
	int64_t id;
	char name[201 * 4], version[129], model[129], target[160], reason[500];
	enum rollout_state state;
	int64_t created_us, from_us, to_us, now_us; /* the picture is of from .. to */
	int64_t targeted, on_version;               /* as the fleet is now */
	int64_t image_bytes, counts[ATTEMPT_STATES];
	int stage_count;
	struct report_stage stages[STAGES_MAX];
	int mark_count, marks_left_out;
	struct report_mark marks[REPORT_MARKS];
	int reason_count;
	struct report_reason reasons[REPORT_REASONS];
	int failure_count;
	struct report_failure failures[REPORT_FAILURES];
	/* the gate */
	bool watched, halted;
	int64_t exposed, proven, failed, silent;
	double halts_at, e_most;
	char evidence[400];
	struct report_step steps[REPORT_STEPS];
};

void report_write_json(struct buf *b, const struct account *r); /* members of an open object */
void report_write_markdown(struct buf *b, const struct account *r);
void report_write_svg(struct buf *b, const struct account *r);

/* "Completed after 3 d: 297 of 300 devices run it." */
void report_sentence(const struct account *r, char *out, size_t size);
/* The step of a time; those outside count to the nearest. */
int report_step_of(const struct account *r, int64_t at_us);
int64_t report_step_us(const struct account *r, int step); /* where it begins */
/* What the picture links to in the page. */
#define REPORT_PICTURE "report?format=svg"
