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

/* Once a second: the next step, if one is due, as a command. */
void retention_step(struct committer *c, struct command_list *out);
