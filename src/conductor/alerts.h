/* SPDX-License-Identifier: MIT */
/*
 * Alerts: looks once a second at what has changed, asks `core` (alert.h) whether a person is to be
 * told, and has the committer raise and clear.  A part of the conductor, on its thread.
 *
 * What it costs goes by what has changed, not by the fleet: rollouts are looked at as they stand in
 * memory; attempts of one rollout are counted in a second, when they have moved, and less often
 * where counting takes long; one shard of devices is looked at in a second, and only those that
 * have become silent since the last round are asked of the store.
 */
#pragma once

#include "commit/committer.h"

struct alerts;
struct webhooks;

struct alerts_parts {
	struct fleet *fleet;
	struct store *store;
	struct committer *committer;
	struct webhooks *webhooks; /* NULL: nobody is sent anything */
	int64_t stuck_us;
};

/* Reads the alerts that are open.  All parts stay the caller's and outlive it. */
enum ota_code alerts_new(const struct alerts_parts *parts, int64_t now_us, struct alerts **out,
			 struct ota_err *err);
void alerts_free(struct alerts **a);

/* What the conductor has found a rollout's stage to wait for.  With the plan held. */
void alerts_judged(struct alerts *a, const struct rollout *r, enum walk_wait wait);
/* Nobody could be heard before NOW: silence and standstill count from here. */
void alerts_listen(struct alerts *a, int64_t now_us);
/* Does what is to be done once a second, and nothing in between. */
void alerts_tick(struct alerts *a, int64_t now_us);
