/* SPDX-License-Identifier: MIT */
/*
 * What a rollout will do: whom it reaches and how long it takes, before it is made and while it
 * walks.  Changes nothing.  Any thread that may wait for a disk: it goes over the whole fleet, with
 * the plan held for a part of it at a time, and walks the rollout on paper without it.
 */
#pragma once

#include "commit/committer.h"
#include "core/forecast.h"

#define FORESIGHT_WARNINGS 20
#define FORESIGHT_SENTENCE 320

struct foresight {
	const struct rollout *rollout; /* the one that is looked at ... */
	struct rollout *made;          /* ... when it was made for that; owned */
	struct rollout copy;           /* ... when it walks */
	int64_t now_us, begins_us;
	struct reach reach;
	struct forecast forecast;
	struct forecast_pace pace;
	int64_t history; /* updates that the pace is taken from; 0: none, it is assumed */
	int warning_count;
	char warnings[FORESIGHT_WARNINGS][FORESIGHT_SENTENCE];
};

/* What of the pace is the service's: the rest is found in the history of the model. */
struct foresee_limits {
	int64_t max_downloads, tell_per_s, bytes_per_s;
};

/* A rollout that is not made.  Errors as rollout/create has them, but for a name that is taken and
 * a release that is suspect: those are warnings. */
enum ota_code foresee_plan(struct committer *c, const struct rollout_new *n,
			   const struct foresee_limits *limits, struct foresight *out,
			   struct ota_err *err) OTA_MUST_USE;
/* One that is there.  *KNOWN: it walks, so there is something to foresee. */
enum ota_code foresee_rollout(struct committer *c, int64_t id, const struct foresee_limits *limits,
			      struct foresight *out, bool *known, struct ota_err *err) OTA_MUST_USE;
/* After either, whatever it answered. */
void foresight_fini(struct foresight *f);

/* Devices that would be offered it, that are heard of, and so on, in all stages. */
struct reach_stage foresight_sum(const struct foresight *f);
