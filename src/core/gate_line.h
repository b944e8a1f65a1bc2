/* SPDX-License-Identifier: MIT */
/*
 * The exposures of a release, or of one variant of it: in which order they came, what became of
 * them, what that says, and how many may be without an outcome.  Pure; its owner is one thread.
 *
 * An exposure has a number; numbers rise in the order of exposure.  Its life:
 *
 *     reserve -> open -> proven | failed            counted
 *            \        \-> given back                as if it had never been
 *             \-> cancel                            the same: what reserved it was not committed
 *
 * Outcomes enter the evidence in the order of exposure and wait until all before them are known;
 * else failures, which come sooner than proofs, would count twice.  To stop early all the same,
 * each failure is run ahead: over what waits, what is pending being taken as proven, which
 * understates.
 *
 * The bound W doubles when W more outcomes entered and speak for the release, and halves when not.
 * A failed device keeps its place until one exposed after it is proven.  With nothing under way one
 * may always go, so that a line whose places are all kept by failures comes to its verdict.
 *
 * Memory: 16 bytes an exposure from its opening until it has entered, at most 8 W of them.
 * Only gate_line_reserve() allocates; nothing else can fail.
 */
#pragma once

#include "core/gate_evidence.h"

#include <stddef.h>

/* What waits behind an exposure that stays without an outcome: at most so many times the bound. */
#define GATE_QUEUE_FACTOR 8

enum gate_outcome { GATE_OUTCOME_PROVEN, GATE_OUTCOME_FAILED, GATE_OUTCOME_SILENT };

/* The same for all lines of a gate. */
struct gate_rules {
	struct gate_factors factors;
	double halt_at;
	double ln_failed, ln_proven;  /* ln L of the lowest suspect */
	int64_t initial, least, most; /* of the bound */
};

struct gate_item {
	int64_t number;
	uint16_t variant; /* its owner's */
	uint8_t state;    /* of gate_line.c */
	bool at_risk;     /* the device had the whole image */
};

struct gate_line {
	double share; /* of the suspicion: halted at share * E >= halt_at */
	/* the bound, and what counts towards its next change */
	int64_t bound, epoch_n, epoch_failed;
	/* who takes a place: open, reserved, failed and kept */
	int64_t unresolved, reserved, held;
	int64_t at_risk, proven, failed, silent; /* silent: among the failed */
	int64_t proven_to;                       /* the highest number that is proven */
	int64_t forgiven_to;                     /* up to this number nothing counts any more */
	struct gate_evidence entered;            /* in the order of exposure, all known */
	struct gate_evidence ahead;              /* run ahead to the last failure ... */
	int64_t ahead_to;                        /* ... which has this number */
	bool ahead_stale;                        /* something before it was given back since */
	bool halted;                             /* for good */
	struct gate_evidence at_halt;
	/* a ring; the first ENTERED_COUNT have entered and are kept for their places */
	struct gate_item *items;
	size_t cap, head, count, entered_count, gone;
};

struct gate_rules gate_rules_of(const struct gate_params *p, int64_t most);
void gate_line_init(struct gate_line *l, const struct gate_rules *r, double share);
void gate_line_fini(struct gate_line *l);

/* Whether a place is free; whether too much waits behind an early one. */
bool gate_line_has_place(const struct gate_line *l);
bool gate_line_is_clogged(const struct gate_line *l);
/* Takes a place, and memory for it; false when there is none. */
bool gate_line_reserve(struct gate_line *l) OTA_MUST_USE;
void gate_line_cancel(struct gate_line *l);
/* The reserved place becomes an exposure; its number must be above those of all that are open. */
void gate_line_open(struct gate_line *l, int64_t number, uint16_t variant);

/* NULL: it is not known, or has entered long since. */
const struct gate_item *gate_line_find(const struct gate_line *l, int64_t number);
bool gate_line_is_open(const struct gate_line *l, int64_t number);
/* The highest number that is known; INT64_MIN: none. */
int64_t gate_line_last(const struct gate_line *l);
/* These say whether anything changed; not when the exposure is unknown or has its outcome. */
bool gate_line_at_risk(struct gate_line *l, int64_t number);
bool gate_line_resolve(struct gate_line *l, const struct gate_rules *r, int64_t number,
		       enum gate_outcome outcome);
bool gate_line_give_back(struct gate_line *l, const struct gate_rules *r, int64_t number);

/* Another stage: the most changes. */
void gate_line_limit(struct gate_line *l, const struct gate_rules *r);
/* A person takes the suspicion off: nothing exposed so far counts, all begins anew. */
void gate_line_forgive(struct gate_line *l, const struct gate_rules *r);

/* What is known: at the halt if it is halted, else the stronger of entered and run ahead. */
struct gate_evidence gate_line_evidence(const struct gate_line *l, const struct gate_rules *r);
