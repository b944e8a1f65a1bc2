/* SPDX-License-Identifier: MIT */
/* Inside the committer: what commands that change the plan share (plan.c, rollouts.c). */
#pragma once

#include "base/buf.h"
#include "commit/batch.h"
#include "commit/guard.h"

/* The command changes the plan from now on; NULL: out of memory. */
struct plan_work *plan_work(struct committer *c, struct command *cmd);
/* Copies a finished JSON text into the batch's memory; NULL when out of memory. */
char *batch_json(struct committer *c, struct buf *b);
/* The model's release of that version, deleted ones too: there is one, since a leading v counts for
 * nothing. */
const struct release *find_release(const struct model *m, const char *version);

/* The release is suspect since then; 0: not any more. */
OTA_MUST_USE bool release_set_suspect(struct committer *c, struct command *cmd,
				      const struct release *r, int64_t since_us);
/* As asked for, without an id; NULL: out of memory. */
struct rollout *rollout_make(const struct rollout_new *n, const struct release *rel,
			     int64_t now_us);
/* NULL, or why it could never offer anything. */
const char *rollout_never_offers(const struct rollout *r, int64_t now_us);
/* The rollout stands elsewhere from now on, for REASON (NULL: none is told): its row, the events,
 * what waits withdrawn. */
OTA_MUST_USE bool rollout_step(struct committer *c, struct command *cmd, struct rollout *r,
			       const struct walk *is, const char *reason);

/* MADE, which is the command's from now on, begins: its row and event.  False: out of memory. */
OTA_MUST_USE bool rollout_add(struct committer *c, struct command *cmd, struct model *m,
			      struct rollout *made, const char *by, const char *reason);

/* Visits the fleet for open attempts of one release or one rollout that have not begun. */
struct withdrawal {
	struct committer *c;
	int64_t release_id, rollout_id; /* one of them; none: all */
	bool begun;                     /* an attempt of the release has begun */
	size_t count;
	struct device **devices; /* NULL: only count */
};
/* Withdraws what waits; what has begun runs to its end. */
OTA_MUST_USE bool withdraw_pending(struct committer *c, struct command *cmd, struct withdrawal *w,
				   const char *why);
