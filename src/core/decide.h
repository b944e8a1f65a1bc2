/* SPDX-License-Identifier: MIT */
/*
 * What a device is to run, and why.  Pure: the clock comes in, nothing goes out.
 *
 * The active rollout of the highest priority, then the newest, that selects the device and whose
 * release it may take wins.  A device that runs the release of the first rollout that includes it
 * is up to date, whatever others say: with incomparable versions it would else go to and fro
 * between two of them.  Where that first one requires a version that the device does not have yet,
 * an older rollout may take it there: a stepping stone.  A rollout that takes a release back offers
 * its own to those alone that run the other one, and while it is there no older rollout offers them
 * that one again.
 */
#pragma once

#include "core/domain.h"
#include "core/gate.h"

enum reason {
	REASON_OFFER,       /* it is (still) offered a release */
	REASON_IN_PROGRESS, /* it has begun: the same release again */
	REASON_INSTALLING,  /* it installs or restarts: wait for its word */
	REASON_UP_TO_DATE,
	REASON_MODEL_UNKNOWN, /* no release was ever uploaded for its model */
	REASON_NO_ROLLOUT,    /* no active rollout for its model */
	REASON_INACTIVE,      /* this rollout is not active */
	REASON_NOT_NAMED,     /* `specific`, and the device is not among them */
	REASON_NOT_IN_GROUP,
	REASON_OUTSIDE_PERCENT,
	REASON_OTHER_MODEL,
	REASON_DOWNGRADE,
	REASON_BELOW_MIN_VERSION,
	REASON_MIN_VERSION_INCOMPARABLE,
	REASON_BELOW_REQUIRED, /* the rollout's own least version */
	REASON_REQUIRED_INCOMPARABLE,
	REASON_TOO_MANY_FAILURES,
	REASON_IN_VAIN,            /* it failed in a way that another try would not mend */
	REASON_NOT_ON_IT,          /* the rollout takes a release back that it does not run */
	REASON_TAKEN_BACK,         /* a later rollout takes the release back */
	REASON_RETRY_LATER,        /* it failed, and is tried again after a while */
	REASON_OUTSIDE_WINDOW,     /* nothing begins until the rollout's window opens */
	REASON_WAITS,              /* its turn comes when others are done */
	REASON_NO_PLACE,           /* as many as may be have not proven the release yet */
	REASON_VARIANT_HELD,       /* the release is bad for devices like this one */
	REASON_HALTED,             /* the release was found bad */
	REASON_STOPPED,            /* an operator stopped everything */
	REASON_NEWER_ROLLOUT_WINS, /* only in a list of all rollouts */
	REASONS,
};

/* What the gate says of a device that would be offered a release. */
struct gate_word {
	enum gate_answer answer;
	int64_t unproven, bound; /* where no place is free */
};

struct decision {
	enum reason reason;
	const struct release
		*release; /* offered, installing or up to date with; else the one refused */
	const struct rollout *rollout; /* whose doing it is; NULL: none */
	int64_t now_us;                /* when it was decided; 0 of decide_rollout() */
	struct gate_word gate;         /* of REASON_NO_PLACE */
	/* Of REASON_OUTSIDE_WINDOW: the window that is shut, and whose; NULL: the rollout's own. */
	const struct window *window;
	const char *group;
};

struct decide_params {
	int64_t now_us;
	int64_t stale_us; /* a begun download without a word for so long may be superseded */
	bool stopped;     /* nothing new is offered to anybody */
	bool full;        /* as many are downloading as may: nobody new */
	const struct group_windows *groups; /* the plan's; NULL: no group has hours of its own */
	/* Asks the gate whether D may be offered what R has.  NULL: there is none. */
	struct gate_word (*ask)(void *ctx, const struct device *d, const struct rollout *r);
	void *ask_ctx;
};

/* MODEL may be NULL: unknown. */
struct decision decide(const struct device *d, const struct model *m,
		       const struct decide_params *p);
/* One rollout alone: REASON_OFFER, REASON_UP_TO_DATE, or why not. */
enum reason decide_rollout(const struct device *d, const struct rollout *r);
/* Whether a rollout that takes a release back would bring D back, as it is now. */
bool decide_brings_back(const struct device *d, const struct rollout *r);
static inline bool decision_offers(const struct decision *x)
{
	return x->reason == REASON_OFFER || x->reason == REASON_IN_PROGRESS;
}

/* Whether an attempt at RELEASE_ID that waits goes on waiting: it is offered still, or the window
 * has shut over it. */
static inline bool decision_keeps(const struct decision *x, int64_t release_id)
{
	return (decision_offers(x) || x->reason == REASON_OUTSIDE_WINDOW) &&
	       x->release->id == release_id;
}

/* "outside_percent": stable, for programs. */
const char *reason_name(enum reason reason);
/* One sentence for people; OUT is always terminated. */
void reason_sentence(const struct device *d, const struct decision *x, char *out, size_t size);
