/* SPDX-License-Identifier: MIT */
/*
 * The conductor: the clock of rollouts.  It starts those whose time has come, ends their stages,
 * completes them, and pauses them at their deadline.  What is due it asks `core` (walk_judge()),
 * and what it wants it asks the committer, as a person would: it says in which state and stage it
 * saw the rollout, and is refused where somebody was faster.
 *
 * Where devices are on trial it has them looked at, once a second: what time makes of them.
 *
 * One thread.  It keeps the rollouts that wait for something by the time at which that may come, so
 * a tick costs what is due, not the size of the fleet; a plan that changed is read anew.  It has
 * alerts raised and cleared (alerts.h).  While the wall clock cannot be right nothing is done.
 */
#pragma once

#include "commit/committer.h"
#include "conductor/alerts.h"

struct conductor;

/* Fleet and committer stay the caller's and outlive it. */
struct conductor *conductor_new(struct fleet *f, struct committer *c); /* NULL: out of memory */
void conductor_free(struct conductor **k);
/* Before the first tick; A stays the caller's and outlives it. */
void conductor_set_alerts(struct conductor *k, struct alerts *a);

/*
 * Does what is due at NOW (the service's time, which the committer's must have reached), and waits
 * for the committer to answer.  Returns when it is to be called again at the latest; INT64_MAX: not
 * before the plan changes.
 */
int64_t conductor_tick(struct conductor *k, int64_t now_us);

/* Whether a wall clock can be right when the service's time is NOW, which never goes back. */
bool conductor_trusts(int64_t wall_us, int64_t now_us);

enum ota_code conductor_start(struct fleet *f, struct committer *c, struct alerts *a,
			      struct conductor **out, struct ota_err *err);
void conductor_stop(struct conductor **k);
