/* SPDX-License-Identifier: MIT */
/* How far a rollout is, counted in the fleet: what a stage's end is judged by. */
#pragma once

#include "core/stage.h"
#include "commit/committer.h"

struct progress {
	int64_t on_version;       /* devices of the stage that run the release */
	struct stage_facts facts; /* devices: how many the stage reaches */
};

/* The rollout whose attempt moves when DEVICE takes its NEXT state. */
struct moved {
	struct rollout *rollout; /* NULL: none does */
	bool forward;            /* towards success */
};
struct moved progress_moved(struct fleet *f, const struct device *d,
			    const struct device_state *next);
/* After it has: whoever counts may count anew, and find more. */
void progress_note(const struct moved *m, int64_t now_us);

/* What one device adds to it. */
struct progress_share {
	bool in; /* the stage reaches it; else the others are false */
	bool on_version, proven;
};
typedef enum gate_standing standing_fn(struct committer *c, const struct rollout *r,
				       const struct device *d);
struct progress_share progress_share(struct committer *c, const struct rollout *r,
				     const struct device *d, standing_fn *standing);
/* Seen within a day goes by the hour: who was heard of in the hour a day ago, or later. */
int32_t progress_hour(int64_t us);

/* With the plan held.  As the committer keeps it (tally.h); false: it does not, or not yet, and
 * what is counted stays as it is in *OUT. */
bool progress_known(struct committer *c, const struct rollout *r, int64_t now_us,
		    struct progress *out);
/* The devices anew: a round over the whole fleet, in which the plan is held for a part at a time.
 * What is not counted stays as it is in *OUT. */
void progress_count(struct committer *c, int64_t rollout_id, int64_t now_us, struct progress *out);
