/* SPDX-License-Identifier: MIT */
/*
 * Whom a rollout would reach, counted over the fleet: by stage, by why not, by variant and by how
 * often they are heard of.  Pure; whoever fills it visits the devices.
 *
 * A device is counted in the first stage that includes it.  Who would be offered the release is
 * decide()'s word, asked without an attempt, a gate, a window or a limit: those say when, not
 * whether.
 *
 * Memory: 1,600 bytes a stage and variant, 32 variants at most; the rest share the last.
 */
#pragma once

#include "core/decide.h"
#include "core/stage.h"

/* Intervals between contacts: each bin up to twice as long as the one before; the first is devices
 * that are there over MQTT, which are told at once. */
#define REACH_BINS     25
#define REACH_VARIANTS 32

/* How far a device is. */
enum reach_standing {
	REACH_NEW,   /* it has not met the release */
	REACH_TRIAL, /* it has, and what became of it is not known yet */
	REACH_DONE,  /* it runs it well */
	REACH_LOST,  /* it failed */
};

struct reach_stage {
	int64_t devices;   /* here for the first time */
	int64_t seen;      /* of them, within STAGE_SEEN_US */
	int64_t done;      /* run the release well already */
	int64_t trial;     /* are at it */
	int64_t to_update; /* would be offered it */
	int64_t reachable; /* of those: heard of within a day, or two of their intervals */
};

struct reach_variant {
	char *hw, *from; /* owned; "" unknown */
	int64_t to_update, reachable;
};

/* Devices of a stage and variant that are heard of about as often. */
struct reach_cell {
	int64_t count, interval_us_sum;
};

struct reach {
	/* set before; the rollout is among the model's */
	const struct rollout *rollout;
	const struct model *model;
	struct decide_params params;
	int64_t poll_interval_us; /* of a device whose habit is not known */
	/* counted */
	int64_t selected; /* by the target, whatever the percentage */
	struct reach_stage stages[STAGES_MAX];
	int64_t refused[REASONS]; /* inside the last stage, and not offered it */
	int64_t stones;           /* of them: older than it requires, but taken there by another */
	int64_t taken;            /* variants in use */
	struct reach_variant variants[REACH_VARIANTS];
	struct reach_cell (*cells)[REACH_VARIANTS][REACH_BINS]; /* by stage */
	bool out_of_memory;
};

/* False: out of memory.  R's target percent is that of its last stage.  R and M (and what of P is
 * theirs) may be replaced by copies of another moment between two devices. */
OTA_MUST_USE bool reach_init(struct reach *c, const struct rollout *r, const struct model *m,
			     const struct decide_params *p, int64_t poll_interval_us);
void reach_fini(struct reach *c);
/* Sets c->out_of_memory where there is none for a variant. */
void reach_add(struct reach *c, const struct device *d, enum reach_standing standing);

/* The first stage that includes D; -1: none does. */
int reach_stage_of(const struct rollout *r, const struct device *d);
/* Whether an answer of decide() is an offer, now or when its time comes. */
bool reach_is_offer(const struct decision *x, const struct rollout *r);
/* The interval that half of the reachable ones are heard of as often as, or more; 0: nobody. */
int64_t reach_median_us(const struct reach *c);
/* Of the reachable, those heard of less often than that. */
int64_t reach_slower_than(const struct reach *c, int64_t interval_us);
