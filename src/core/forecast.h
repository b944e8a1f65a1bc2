/* SPDX-License-Identifier: MIT */
/*
 * How long a rollout will take: its devices are walked through it, on paper, by the gate that will
 * watch it.  Pure; the same numbers in, the same out.
 *
 * A device asks once in its interval, somewhere in it; one that is there over MQTT is told when its
 * turn comes.  Where the gate has a place for its variant, the window is open and a download is
 * free, it takes the release, and proves it as the gate wants it proven.  A stage ends as
 * core/stage.h says, but for what people decide: an approval takes no time here.
 *
 * Three walks make the range:
 *     earliest   nobody fails, updates take half the usual time
 *     likely     as usual
 *     latest     as many fail as the gate accepts; all takes twice as long
 *
 * Cost: a microsecond or so for each device and walk; memory by what is under way at a time.
 */
#pragma once

#include "core/reach.h"

enum forecast_case { FORECAST_EARLIEST, FORECAST_LIKELY, FORECAST_LATEST, FORECAST_CASES };

#define FORECAST_NEVER INT64_MAX

/* How fast the service lets it go, and devices do. */
struct forecast_pace {
	int64_t take_us;       /* from the offer until it runs the release */
	double failure_share;  /* of updates, usually */
	int64_t max_downloads; /* at a time, of the whole service; 0: any number */
	int64_t tell_per_s;    /* over MQTT */
	int64_t bytes_per_s;   /* 0: no limit */
};

struct forecast_start {
	int64_t at_us;          /* now, or when it begins */
	int stage;              /* where it is; the stage ends ... */
	int64_t stage_until_us; /* ... not before; 0: its whole time is to come */
	/* What the gate has come to; NULL: it begins.  Borrowed for the call. */
	const struct gate *gate;
};

enum forecast_wait {
	FORECAST_TIME,    /* the stage's own time is what takes long */
	FORECAST_PROOF,   /* the devices are */
	FORECAST_TOO_FEW, /* fewer can prove it than must: it does not end by itself */
};

struct forecast_stage {
	int64_t devices, seen, needed; /* all inside it, also of the stages before */
	int64_t can;                   /* so many may prove the release, by what is known */
	int64_t begins_us[FORECAST_CASES], ends_us[FORECAST_CASES]; /* FORECAST_NEVER */
	enum forecast_wait wait;                                    /* of the likely walk */
};

struct forecast {
	int stage_count;
	struct forecast_stage stages[STAGES_MAX]; /* those before the start are left out: 0 */
	/* When the last device that is heard of has it, past the end of the last stage. */
	int64_t reached_us[FORECAST_CASES];
	int64_t updates; /* devices walked through */
};

/* OTA_OK or OTA_ENOMEM.  RULES of the gate: R's guard. */
enum ota_code forecast_run(const struct reach *c, const struct rollout *r,
			   const struct forecast_start *from, const struct forecast_pace *pace,
			   struct forecast *out) OTA_MUST_USE;
