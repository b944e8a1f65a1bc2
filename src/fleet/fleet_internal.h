/* SPDX-License-Identifier: MIT */
/* Inside the fleet: shared by fleet.c (devices) and plan.c (releases, rollouts, models). */
#pragma once

#include "fleet/fleet.h"

#include "fleet/tokens.h"

#include <stdatomic.h>

#define TOUCHED_BITS 16384 /* a power of two: one a bucket of a million devices; 128 KiB in all */

struct shard {
	pthread_mutex_t lock;
	struct device **buckets; /* bucket_count is a power of two */
	size_t bucket_count, device_count;
	/* Where devices were touched since they were last looked for: a bit for all buckets of the
	 * same low bits. */
	_Atomic uint64_t touched[TOUCHED_BITS / 64];
};

/* Devices name their models, so there may be many. */
#define MODEL_BUCKETS 4096

struct fleet {
	pthread_rwlock_t plan_lock;
	struct model *models; /* plan_lock: all, and by the hash of their names */
	struct model *model_buckets[MODEL_BUCKETS];
	struct shard shards[FLEET_SHARDS];
	pthread_mutex_t token_lock; /* after a shard's lock */
	struct token_table tokens;
	_Atomic size_t device_count;        /* born ones */
	struct group_windows group_windows; /* plan_lock */
	char *stop_reason;                  /* plan_lock: NULL, all goes on */
	int64_t stop_since_us;
	_Atomic bool stopped;
	_Atomic uint64_t plan_number;
};

/* By name, also for the committer without a lock; NULL: unknown. */
struct model *fleet_find_model(struct fleet *f, const char *name);
/* Looks for the device that stands in where nobody falls inside the percentage. */
void fleet_rescan_lowest(struct fleet *f, struct rollout *r);
/* With its releases and rollouts. */
void fleet_model_free(struct model *m);
