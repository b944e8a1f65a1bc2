/* SPDX-License-Identifier: MIT */
/*
 * What a rollout gave is taken back: rollouts are made in the same batch in which it ends, one for
 * each release that its devices ran before (core/decide.h says whom they reach).  Each has a gate
 * of its own, bounded, and halts like any other; it is never taken back itself.
 */
#pragma once

#include "commit/plan.h"

/* Why what R gave cannot be taken back now, as a sentence; false: it can. */
bool takeback_error(struct committer *c, const struct rollout *r, char *why, size_t size);
/*
 * Adds the rollouts to the command, and an event that names them.  Where there is no release to go
 * back to the event says that.  False: out of memory.
 */
OTA_MUST_USE bool takeback_make(struct committer *c, struct command *cmd, const struct rollout *r,
				const char *reason);

/* Members "on_halt" and "rolls_back" of a rollout's row and events. */
void takeback_write(struct buf *b, const struct rollout *r);
/* Of METADATA, with the releases of F; false: out of memory, or the release is not there. */
OTA_MUST_USE bool takeback_read(const json_t *metadata, struct fleet *f, struct rollout *r);
