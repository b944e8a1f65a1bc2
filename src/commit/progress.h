/* SPDX-License-Identifier: MIT */
/* How far a rollout is, counted in the fleet: what a stage's end is judged by. */
#pragma once

#include "core/stage.h"
#include "commit/committer.h"

struct progress {
	int64_t on_version;       /* devices of the stage that run the release */
	struct stage_facts facts; /* devices: how many the stage reaches */
};

/* With the plan held.  A round over the whole fleet. */
void progress_count(struct committer *c, const struct rollout *r, int64_t now_us,
		    struct progress *out);
