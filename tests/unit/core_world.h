/* SPDX-License-Identifier: MIT */
/* A small model with releases, rollouts and devices for the tests of `core`: plain structs, nothing
 * owned. */
#pragma once

#include "base/clock.h"
#include "base/hash.h"
#include "core/decide.h"
#include "core/runs.h"
#include "core/target.h"

#include <stdio.h>
#include <string.h>

#define WORLD_MAX 16
#define MODEL     "esp32-c3"

struct list_of {
	size_t count;
	const char *items[8];
};

struct world {
	struct model model;
	struct release releases[WORLD_MAX];
	struct rollout rollouts[WORLD_MAX];
	int release_count, rollout_count;
};

static inline void world_init(struct world *w)
{
	memset(w, 0, sizeof *w);
	w->model.name = MODEL;
}

static inline struct release *world_release(struct world *w, const char *version)
{
	struct release *r = &w->releases[w->release_count++];

	*r = (struct release){.id = 100 + w->release_count,
			      .version = version,
			      .model = MODEL,
			      .min_version = "",
			      .inner_version = "",
			      .project = "",
			      .release_notes = "",
			      .salt = target_salt(MODEL, version)};
	memset(r->sha256, 0x10 + w->release_count, DIGEST_SIZE);
	r->next = w->model.releases;
	w->model.releases = r;
	releases_mark_unique(r);
	return r;
}

static inline struct rollout *world_rollout(struct world *w, struct release *r,
					    enum target_type type)
{
	static const char *const names[WORLD_MAX] = {"r1",  "r2",  "r3",  "r4",  "r5",  "r6",
						     "r7",  "r8",  "r9",  "r10", "r11", "r12",
						     "r13", "r14", "r15", "r16"};
	struct rollout *o = &w->rollouts[w->rollout_count];

	memset(o, 0, sizeof *o);
	o->name = names[w->rollout_count++];
	o->id = w->rollout_count;
	o->release = r;
	o->target.type = type;
	o->target.percent = 100;
	o->target.group = o->requires = o->walk.reason = "";
	o->active = true;
	o->max_attempts = 3;
	o->lowest_hash = UINT64_MAX;
	o->next = w->model.rollouts;
	w->model.rollouts = o;
	return o;
}

static inline struct device world_device(const char *id, const char *version)
{
	struct device d = {.id = 1, .device_id = id, .hash = hash64(id, strlen(id)), .born = true};

	d.state.model = MODEL;
	d.state.version = version;
	d.state.hw = d.state.ran_as = d.state.ran_from = "";
	return d;
}
