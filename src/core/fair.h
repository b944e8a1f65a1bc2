/* SPDX-License-Identifier: MIT */
/*
 * In which order devices come to a scarce place at a gate, so that a fault of one kind of device
 * shows among the first few.  Pure; its owner is one thread at a time; nothing is allocated.
 *
 * A kind is hardware revision, previous version and groups.  While a kind has had fewer than
 * FAIR_FIRST exposures, and one of its devices that waits is expected, no kind that has had more
 * takes a place: round robin.  Nobody is waited for in vain: a kind is expected from when one of
 * its devices was found to wait until that one should have come again, FAIR_HOLD_US at most, and
 * not at all while its variant has no place of its own.  So a kind whose devices stay away holds
 * the others up FAIR_HOLD_US once for each time that one of them was heard of.
 */
#pragma once

#include "core/domain.h"
#include "core/gate.h"

#define FAIR_FIRST   4
#define FAIR_HOLD_US (INT64_C(3600) * 1000000)
/* One that is told, over MQTT, comes within so long. */
#define FAIR_TOLD_US (INT64_C(60) * 1000000)
/* Devices of further kinds come as they come. */
#define FAIR_KINDS_MAX 200

struct fair_kind {
	uint64_t key, variant; /* variant: as the gate knows it */
	int64_t exposed;
	int64_t left;     /* devices that wait, as counted last */
	int64_t until_us; /* one of them is expected until then */
};

struct fair {
	int count;
	struct fair_kind kinds[FAIR_KINDS_MAX];
};

/* What kind D is, with FROM the version that it runs before. */
uint64_t fair_key(const struct device *d, const char *from);
/* When D, which waits, should come again; 0: it is out of reach.  HABIT_US: how often it comes. */
int64_t fair_due_us(const struct device *d, int64_t habit_us, int64_t now_us);

/* A stage begins: whoever waits is counted anew, by fair_count() for each. */
void fair_begin(struct fair *f);
void fair_count(struct fair *f, const struct device *d, int64_t due_us, int64_t now_us);
/* D was found to wait for a place. */
void fair_waits(struct fair *f, const struct device *d, int64_t due_us, int64_t now_us);
/* Whether some kind has a turn still; if not, nobody need be told who waits. */
bool fair_matters(const struct fair *f);
/* Whether D may take a place now, as far as others go. */
bool fair_may(const struct fair *f, const struct gate *g, const struct device *d, int64_t now_us);

/* D takes a place; returns which kind it is counted as, -1: none.  And gives it back. */
int fair_take(struct fair *f, const struct device *d, const char *hw, const char *from);
void fair_give_back(struct fair *f, int kind);
/* Nothing exposed so far counts any more. */
void fair_forget(struct fair *f);
