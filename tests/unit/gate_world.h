/* SPDX-License-Identifier: MIT */
/*
 * Fleets that take a release of a gate and do well, brick, fall silent, on the real committer,
 * store and conductor, each by the clock, which is an argument.
 */
#pragma once

#include "commit_bench.h"

#include "conductor/conductor.h"

#define STEP_US  (30 * US_PER_S) /* a tick of the conductor */
#define POLL_US  (300 * US_PER_S)
#define HOUR_US  (3600 * US_PER_S)
#define INSTALLS (60 * US_PER_S) /* from the whole image to what comes of it */
#define DEVICES  100

enum fate {
	WELL,
	LOUD,   /* it says that the installation failed, code 4 */
	BRICKS, /* it has the image, and is never heard of again */
	BACK,   /* it runs the release, and is rolled back five minutes later */
	LOOPS,  /* it runs the release and boots again and again */
};

struct box {
	char id[16], token[ATTEMPT_TOKEN_LEN + 1];
	const char *hw;
	enum fate fate; /* of whoever takes the release */
	bool runs_new, installs, dead, failed, reported;
	int64_t next_us, due_us; /* its next contact; when the installation is over */
	uint64_t boot;
};

struct world {
	struct bench *b;
	struct conductor *k;
	struct box box[DEVICES];
	int count;
	bool dark; /* nobody reaches us */
	bool dusk; /* those do not that have the image */
	int offers;
};

static inline int begin(void **state)
{
	static struct bench b;

	b = bench_new();
	b.cfg.poll_interval_s = POLL_US / US_PER_S;
	bench_open(&b);
	*state = &b;
	return 0;
}

static inline int end(void **state)
{
	bench_end(*state);
	return 0;
}

/* --- devices --- */

static inline enum ota_code say(struct bench *b, const struct box *x, const char *word, int code)
{
	struct command cmd = {.kind = COMMAND_REPORT};

	cmd.report = (struct report){.device_id = x->id,
				     .version = "2.0.0",
				     .attempt_token = x->token,
				     .percent = -1,
				     .code = code,
				     .event = attempt_event_from_status(word)};
	return committer_run(b->c, &cmd);
}

static inline void look_in(struct world *w, struct box *x, int64_t now_us)
{
	struct answer a = ask_with(w->b, x->id, x->runs_new ? "2.0.0" : "1.0.0",
				   (struct told){.hw = x->hw, .boot = x->boot});

	x->next_us = now_us + POLL_US;
	if (!a.offered || x->installs)
		return;
	w->offers++;
	strcpy(x->token, a.token);
	assert_int_equal(fetch(w->b, x->token, false), OTA_OK);
	assert_int_equal(say(w->b, x, "installing", 0), OTA_OK);
	x->installs = true;
	x->due_us = now_us + INSTALLS;
}

static inline void installed(struct world *w, struct box *x, int64_t now_us)
{
	x->installs = false;
	switch (x->fate) {
	case WELL: break;
	case LOUD:
		x->failed = true;
		assert_int_equal(say(w->b, x, "failed", 4), OTA_OK);
		return;
	case BRICKS: x->failed = x->dead = true; return;
	case BACK:
	case LOOPS: break;
	}
	x->runs_new = true;
	x->boot++;
	x->due_us = now_us + POLL_US;
	look_in(w, x, now_us);
}

/* After it runs the release: what is wrong with it shows. */
static inline void later(struct world *w, struct box *x, int64_t now_us)
{
	if (x->fate == BACK && x->runs_new && now_us >= x->due_us) {
		x->runs_new = false;
		x->failed = true;
		x->boot++;
		look_in(w, x, now_us);
	}
	if (x->fate == LOOPS && x->runs_new) {
		x->failed = true;
		x->boot++;
		look_in(w, x, now_us);
	}
}

static inline void live(struct world *w, struct box *x, int64_t now_us)
{
	if (x->dead || w->dark || (w->dusk && x->installs))
		return;
	if (x->installs && now_us >= x->due_us)
		installed(w, x, now_us);
	else if (x->installs)
		return;
	later(w, x, now_us);
	if (now_us >= x->next_us && !x->dead)
		look_in(w, x, now_us);
}

static inline void pass(struct world *w, int64_t us)
{
	for (int64_t gone = 0; gone < us; gone += STEP_US) {
		clock_service_not_before(clock_service_us() + STEP_US);
		int64_t now_us = clock_service_us();
		for (int i = 0; i < w->count; i++)
			live(w, &w->box[i], now_us);
		conductor_tick(w->k, now_us);
		if (gone % (20 * STEP_US) == 0)
			(void)same_counts(w->b);
	}
}

static inline struct world world_of(struct bench *b, int count)
{
	struct world w = {.b = b, .count = count};

	assert_true(count <= DEVICES);
	w.k = conductor_new(b->fleet, b->c);
	assert_non_null(w.k);
	for (int i = 0; i < count; i++) {
		snprintf(w.box[i].id, sizeof w.box[i].id, "d%03d", i);
		w.box[i].hw = "A";
		w.box[i].boot = 1;
		w.box[i].next_us = clock_service_us() + i * POLL_US / count;
	}
	/* So that their habits are known. */
	pass(&w, 3 * POLL_US);
	return w;
}

static inline void all_are(struct world *w, enum fate fate)
{
	for (int i = 0; i < w->count; i++)
		w->box[i].fate = fate;
}

static inline int harmed(const struct world *w)
{
	int n = 0;

	for (int i = 0; i < w->count; i++)
		n += w->box[i].failed;
	return n;
}

static inline int updated(const struct world *w)
{
	int n = 0;

	for (int i = 0; i < w->count; i++)
		n += w->box[i].runs_new;
	return n;
}

/* Another committer over the same file. */
static inline void restart(struct world *w)
{
	conductor_free(&w->k);
	bench_restart(w->b);
	w->k = conductor_new(w->b->fleet, w->b->c);
	assert_non_null(w->k);
}

static inline void world_end(struct world *w)
{
	restart(w);
	conductor_free(&w->k);
}

/* --- rollouts --- */

static const struct stage two[] = {{10, 600, -1, false}, {100, 0, -1, false}};
static const struct stage at_once[] = {{100, 0, -1, false}};

static inline struct rollout_new watched(const char *name, const struct stage *stages, size_t count)
{
	struct rollout_new n = rollout_of(name, "2.0.0");

	n.stages = stages;
	n.stage_count = count;
	n.guard = (struct guard){.bounded = count > 0, .params = gate_params_default()};
	return n;
}

static inline int64_t make(struct bench *b, const struct rollout_new *n)
{
	struct command cmd;

	assert_int_equal(upload(b, "2.0.0"), OTA_OK);
	if (roll_out_as(b, n, &cmd) != OTA_OK)
		fail_msg("%s", cmd.err.msg);
	return cmd.out.id;
}

static inline const char *state_of(struct bench *b)
{
	return row_text(b, "SELECT state || ' ' || stage FROM rollout_configurations ORDER BY id");
}

static inline int64_t events_of(struct bench *b, const char *type)
{
	char sql[128];

	snprintf(sql, sizeof sql, "SELECT count(*) FROM ota_events WHERE event_type='%s'", type);
	return row_int(b, sql);
}

/* After the event that halted, nothing was offered. */
static inline void nothing_after_the_halt(struct bench *b)
{
	assert_int_equal(
		row_int(b, "SELECT count(*) FROM ota_events WHERE id >"
			   " (SELECT min(id) FROM ota_events WHERE event_type='rollout_halted')"
			   " AND event_type IN ('update_offered', 'device_exposed')"),
		0);
	/* Nothing stands between the outcome and the halt but what the halt does. */
	assert_int_equal(
		row_int(b, "SELECT count(*) FROM ota_events WHERE event_type IN"
			   " ('update_offered', 'device_exposed') AND id > (SELECT max(id) FROM"
			   " ota_events WHERE event_type IN ('device_failed', 'device_silent') AND"
			   " id < (SELECT min(id) FROM ota_events WHERE"
			   " event_type='rollout_halted'))"),
		0);
}
