/* SPDX-License-Identifier: MIT */
/*
 * How a rollout walks from its first devices to all of them.  Pure: the clock comes in.
 *
 * A rollout is a list of stages, each a share of the target that holds the one before (by hash, see
 * target.h).  It has a state; events lead from one state to the next, by the table in stage.c and
 * by nothing else.  A stage ends when its time has passed, enough of its devices have proven the
 * release, the evidence against the release is small, and a person has approved where that is
 * asked.  A rollout without stages has one: its whole percentage at once.
 */
#pragma once

#include "core/domain.h"

#define STAGES_MAX 100
/* A stage ends only while the release is less than so many times likelier to be bad than good. */
#define STAGE_EVIDENCE_MAX 5.0
/* Without min_proven: so many of the devices that were seen within STAGE_SEEN_US. */
#define STAGE_PROVEN_PERCENT  80
#define STAGE_SEEN_US         (INT64_C(86400) * 1000000)
#define STAGE_DURATION_MAX_S  (INT64_C(366) * 86400)
#define STAGE_MIN_PROVEN_AUTO (-1)

/* "running"; stable, for programs and rows. */
const char *rollout_state_name(enum rollout_state state);
/* ROLLOUT_STATES when there is no such word. */
enum rollout_state rollout_state_from_name(const char *word);
/* Whether its release is offered. */
bool rollout_state_offers(enum rollout_state state);
/* Whether nothing leads back from it to offering. */
bool rollout_state_is_final(enum rollout_state state);

enum rollout_event {
	ROLLOUT_START,      /* activated, or its time has come */
	ROLLOUT_SCHEDULE,   /* activated before its time */
	ROLLOUT_PAUSE,      /* by a person, or at the deadline */
	ROLLOUT_RESUME,     /* by a person */
	ROLLOUT_PROMOTE,    /* by a person: the next stage now, or the end */
	ROLLOUT_APPROVE,    /* by a person: this stage may end */
	ROLLOUT_ABORT,      /* by a person */
	ROLLOUT_HALT,       /* the evidence says that the release is bad */
	ROLLOUT_ROLLBACK,   /* by a person: it ends, and another rollout takes its release back */
	ROLLOUT_STAGE_DONE, /* the stage has ended, there is another */
	ROLLOUT_COMPLETE,   /* the last stage has ended */
	ROLLOUT_EVENTS,
};
const char *rollout_event_name(enum rollout_event event);

enum walk_outcome {
	WALK_STEPS,   /* *out is where it stands from now on */
	WALK_STAYS,   /* nothing to do: it is so already */
	WALK_REFUSED, /* the event makes no sense now: walk_refusal() says why */
};

/*
 * The state table alone: ROLLOUT_STATES where the event is refused, the same state where nothing
 * changes or only the stage does.
 */
enum rollout_state rollout_next_state(enum rollout_state state, enum rollout_event event);
/*
 * What EVENT makes of the rollout.  *OUT has no reason: that is the caller's.  A resumed draft
 * starts, or is scheduled when its time has not come; promotion of the last stage completes.
 */
enum walk_outcome walk_step(const struct rollout *r, enum rollout_event event, int64_t now_us,
			    struct walk *out);
/* One sentence on why walk_step() refuses. */
void walk_refusal(const struct rollout *r, enum rollout_event event, int64_t now_us, char *out,
		  size_t size);
/* Where a rollout that is made now begins. */
struct walk walk_begin(bool active, int64_t not_before_us, int64_t now_us);

/* What is known of the devices inside the present stage. */
struct stage_facts {
	int64_t now_us;
	int64_t devices;
	int64_t seen;       /* of them, within STAGE_SEEN_US, or online */
	int64_t proven;     /* of them: they run the release, and did well */
	double evidence;    /* against the release; 1: none either way */
	bool stopped;       /* nothing is offered by anybody */
	bool may_be_nobody; /* without a device that was seen the stage is done, not empty */
};

enum walk_wait {
	WAIT_NOTHING,    /* what comes next is due */
	WAIT_ACTIVATION, /* draft */
	WAIT_NOT_BEFORE, /* scheduled, until then */
	WAIT_RESUME,     /* paused */
	WAIT_TIME,       /* the stage's time has not passed */
	WAIT_PROOF,      /* too few devices have proven the release */
	WAIT_EVIDENCE,   /* there is too much against the release */
	WAIT_APPROVAL,   /* a person has to approve */
	WAIT_RESUME_ALL, /* everything is stopped */
	WAIT_OVER,       /* nothing comes any more */
	WALK_WAITS,
};
/* "approval"; stable, for programs. */
const char *walk_wait_name(enum walk_wait wait);

struct walk_next {
	enum walk_wait wait;
	enum rollout_event event; /* what follows; ROLLOUT_EVENTS: nothing */
	int64_t until_us;         /* WAIT_TIME, WAIT_NOT_BEFORE; 0: no time is known */
	int64_t have, need;       /* devices that have proven it, WAIT_PROOF */
};
/* What the rollout waits for, or what is due now. */
struct walk_next walk_judge(const struct rollout *r, const struct stage_facts *f);
/* One sentence for people; OUT is always terminated. */
void walk_sentence(const struct rollout *r, const struct walk_next *n, char *out, size_t size);
/* How many of the stage's devices must have proven the release. */
int64_t stage_need(const struct stage *s, const struct stage_facts *f);
/* When the present stage's time has passed. */
int64_t stage_until_us(const struct rollout *r);
/* Before then walk_judge() finds nothing due, whatever the devices do; INT64_MAX: never. */
int64_t walk_due_us(const struct rollout *r);

/* NULL, or a sentence that says what is wrong with the list. */
const char *stages_error(const struct stage *stages, size_t count, char *buf, size_t size);

enum strategy {
	STRATEGY_CANARY_10,
	STRATEGY_CANARY_25,
	STRATEGY_CANARY_50,
	STRATEGY_FULL,
	STRATEGY_TEST,    /* named devices, at once */
	STRATEGY_GUARDED, /* 1, 10, 25, 50, 100 %, each for a short while */
	STRATEGIES,
};
extern const char *const strategy_names[STRATEGIES];
/* Fills OUT (STAGES_MAX of them); how many. */
int strategy_stages(enum strategy strategy, struct stage *out);
