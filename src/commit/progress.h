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

/* With the plan held.  A round over the whole fleet. */
void progress_count(struct committer *c, const struct rollout *r, int64_t now_us,
		    struct progress *out);
