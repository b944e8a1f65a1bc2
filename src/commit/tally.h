/* SPDX-License-Identifier: MIT */
/*
 * How far the rollouts are that wait for their devices, kept up to date: what a device adds to the
 * counts of a rollout is taken away before a change of the device, and added again after it.  So
 * whoever asks how far a rollout is pays for nothing but the answer.
 *
 * Who was heard of within a day changes by the clock alone, so devices are kept by the hour in
 * which they were heard of last: one that fell silent counts for up to an hour longer, and a word
 * that changes nothing but that counts when it is written (last_seen_flush_s).
 *
 * What may move many devices at once (another stage, another name of a release, suspicion taken
 * off) drops the tally.  COMMAND_COUNT makes it anew, a part of the fleet each time; what happens
 * between the parts is not lost: a change counts where the device's part was counted already.
 *
 * The committer's thread, but for tally_read().  Each batch is shown as a whole, at its end.
 */
#pragma once

#include "commit/batch.h"
#include "commit/progress.h"

void tallies_init(struct tallies *t);
void tallies_fini(struct tallies *t);

/* Around each change of a born device, of its state or of its standing with a gate. */
void tallies_leave(struct committer *c, const struct device *d);
void tallies_enter(struct committer *c, struct device *d);
/* And after the last of it, where one was deleted: another may stand in for nobody. */
void tallies_look(struct committer *c);
/* Whether the change is worth that. */
bool tallies_mind(const struct committer *c, const struct device *d,
		  const struct device_state *next);
/* The device was heard of, and nothing else. */
void tallies_hear(struct committer *c, struct device *d);

/* Before the change of the plan that makes them wrong. */
void tallies_drop_rollout(struct committer *c, const struct rollout *r);
void tallies_drop_model(struct committer *c, const char *model);

/* Readers see what the batch has changed. */
void tallies_show(struct committer *c);

/* Any thread, with the plan held: the devices of *OUT.  False: it is not counted (to its end). */
bool tally_read(struct committer *c, const struct rollout *r, int64_t now_us, struct progress *out);
