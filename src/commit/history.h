/* SPDX-License-Identifier: MIT */
/*
 * What happened to a release, from the events of its rollouts, oldest first.  Any thread that may
 * wait for a disk.  Read a page at a time, each for itself: nothing is held over it, whatever its
 * size, and memory is that of a page for each rollout.
 */
#pragma once

#include "commit/committer.h"
#include "core/gate_replay.h"

/* Rollouts of a release whose events are merged, at the most: the newest. */
#define HISTORY_ROLLOUTS 256

struct history_event {
	int64_t id, rollout_id, at_us;
	const char *type, *device_id; /* "" none; valid until the visitor returns */
	bool is_gate;
	struct replay_event gate; /* where it is the gate's */
	const char *data;         /* JSON */
};

struct history_source {
	int64_t rollout_id;
	struct guard guard;
};

/* Whose events a gate is made of. */
struct history {
	int count;
	struct history_source sources[HISTORY_ROLLOUTS];
	struct gate_params params; /* as it was watched at first */
	bool watched, bounded;     /* any of them is */
};

/* Of the rollout, and of all others that its gate watches.  OTA_ENOTFOUND. */
enum ota_code history_find(struct committer *c, int64_t rollout_id, struct history *out,
			   struct ota_err *err) OTA_MUST_USE;
/* VISIT's own failure ends it. */
typedef enum ota_code history_fn(void *ctx, const struct history_event *e, struct ota_err *err);
enum ota_code history_read(struct committer *c, const struct history *h, history_fn *visit,
			   void *ctx, struct ota_err *err) OTA_MUST_USE;
