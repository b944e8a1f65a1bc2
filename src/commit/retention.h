/* SPDX-License-Identifier: MIT */
/*
 * What is old goes: events and finished attempts, in passes of many short steps, through the
 * committer like every other change.  The committer's thread.
 *
 * A release whose rollouts are all over, and of which nothing was heard for so long, gives up its
 * history first, as a whole and durably: gates are not made of half of their events.  Then its
 * rows go, each when it is old, with those of no rollout.  A pass that is broken off begins anew:
 * each row says for itself whether it may go (PRUNABLE_... in store/sql.h).
 */
#pragma once

#include "commit/batch.h"
#include "commit/command_list.h"

/*
 * At the start, before the thread.  A clock that is wrong by years must not cost the history: where
 * nothing was stored for a month, and when the clock jumps by a day, nothing goes for a day.
 */
void retention_begin(struct committer *c);
/* Once a second: the next step, if one is due, as a command. */
void retention_step(struct committer *c, struct command_list *out);
