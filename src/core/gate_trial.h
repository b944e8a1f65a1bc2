/* SPDX-License-Identifier: MIT */
/*
 * What becomes of one exposed device: when it proves the release, when it fails it, and when what
 * happened says nothing of the release.  Pure; times in microseconds come in.
 *
 * A report of success alone proves nothing.  The device proves the release when it was seen with
 * the new version and is still well prove_s later: no rollback, not three boots or more in between.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define GATE_BOOTS_MAX 3 /* so many boots on trial are a boot loop */

enum gate_trial_state {
	GATE_TRIAL_WAITS, /* not yet seen with the new version */
	GATE_TRIAL_RUNS,  /* seen, for less than prove_s */
	GATE_TRIAL_PROVEN,
	GATE_TRIAL_BOOT_LOOP, /* failed */
	GATE_TRIAL_OLD_AGAIN, /* failed: the old version after the new one */
};

/* Starts as {0}; proven and failed are final. */
struct gate_trial {
	enum gate_trial_state state;
	int64_t since_us; /* first seen with the new version */
	int boots;        /* since then */
};

enum gate_sight {
	GATE_SIGHT_NEW,  /* it runs the new version */
	GATE_SIGHT_BOOT, /* it runs the new version and has booted since the last sight */
	GATE_SIGHT_OLD,  /* it runs another one, by evidence that decides an attempt */
};

/* The device is seen at NOW_US.  The boot into the new version, of the first sight, is no boot on
 * trial; a clock that went back starts the trial's time anew. */
enum gate_trial_state gate_trial_see(struct gate_trial *t, enum gate_sight sight, int64_t now_us,
				     int64_t prove_s);

/* What a failed attempt says of the release. */
enum gate_vote { GATE_VOTE_NONE, GATE_VOTE_FAILED };

#define GATE_CODE_NONE (-1) /* the device told none, as over HTTP */

/*
 * CODE is the result code: 3, 4, 5, 8, 9 and 11 speak of the image or the device's work with it;
 * 1, 2, 6 and 10 do not; a timeout (7), or a failure without a code, does when the device had the
 * WHOLE image.  A code that nobody knows counts as none.  A rollback always fails.
 */
enum gate_vote gate_vote(int code, bool whole, bool rolled_back);
