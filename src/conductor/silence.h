/* SPDX-License-Identifier: MIT */
/*
 * Who has become silent after an update.  A part of alerts.h, on the conductor's thread.
 *
 * The fleet is looked at in shards, one at a time.  Each keeps until when silence was decided
 * there: only devices last heard of since are candidates, so each silence is looked up in the store
 * once, and a look costs a shard.
 */
#pragma once

#include "core/alert.h"
#include "fleet/fleet.h"
#include "store/store.h"

struct silence {
	struct fleet *fleet;
	struct store *store;
	int shard;                        /* the next one to look at */
	int64_t decided_us[FLEET_SHARDS]; /* who was last heard of by then was looked at */
	struct candidate *waiting;
	size_t count, next, cap;
};

struct silent_device {
	char device_id[129], version[129], sentence[ALERT_SENTENCE_SIZE];
	int64_t last_seen_us;
};

enum silence_found {
	SILENCE_NOBODY,  /* nobody waits to be looked at */
	SILENCE_ANOTHER, /* one was looked at, and is nothing to tell of */
	SILENCE_FOUND,   /* *out is to be told of: silence_told() when it is */
	SILENCE_UNKNOWN, /* the store does not answer: another time */
};

void silence_init(struct silence *s, struct fleet *f, struct store *st, int64_t now_us);
void silence_fini(struct silence *s);
/* Looks at the next shard, when all that it found in the one before was looked at. */
void silence_look(struct silence *s, int64_t listens_us, int64_t now_us);
enum silence_found silence_next(struct silence *s, int64_t listens_us, int64_t now_us,
				struct silent_device *out);
void silence_told(struct silence *s);
/* Whether the device was heard of within ALERT_SILENT_US, or is there no more. */
bool silence_is_over(struct fleet *f, const char *device_id, int64_t now_us);
