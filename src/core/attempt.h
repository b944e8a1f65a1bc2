/* SPDX-License-Identifier: MIT */
/*
 * An attempt is one device's try at one release.  Its life is the table in attempt.c.  Pure.
 *
 *              offer            download begins / reported
 *   (nothing) ------> PENDING ----------------------------> DOWNLOADING -> DOWNLOADED -> INSTALLING
 *                      |   |                                     \            |            /   |
 *              deactivated  three poll intervals of silence       +--- any of these ------+    |
 *                      |   |                                      |           |           |    |
 *                 WITHDRAWN LAPSED (the device slept;           SUCCESS     FAILED    ROLLED_BACK
 *                                   it may still begin)            \____ the old version again
 * ____/
 *
 * A finished attempt is never reopened.  LAPSED is not finished: nobody failed, and a device that
 * wakes up and begins is taken at its word.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum attempt_state {
	ATTEMPT_PENDING,
	ATTEMPT_DOWNLOADING,
	ATTEMPT_DOWNLOADED,
	ATTEMPT_INSTALLING,
	ATTEMPT_SUCCESS,
	ATTEMPT_FAILED,
	ATTEMPT_ROLLED_BACK,
	ATTEMPT_LAPSED,    /* status stays `pending`, metadata.closed = "lapsed" */
	ATTEMPT_WITHDRAWN, /* status stays `pending`, metadata.closed = "withdrawn" */
	ATTEMPT_STATES,
};

enum attempt_event {
	EVENT_NONE,
	/* what a device reports */
	EVENT_REPORT_PENDING,
	EVENT_REPORT_DOWNLOADING,
	EVENT_REPORT_DOWNLOADED,
	EVENT_REPORT_INSTALLING,
	EVENT_REPORT_SUCCESS,
	EVENT_REPORT_FAILED,
	EVENT_REPORT_ROLLED_BACK,
	/* what the service sees */
	EVENT_FETCH,       /* the device began to download the image */
	EVENT_SEEN_TARGET, /* a check-in or live status shows the target version */
	EVENT_SEEN_OLD, /* ... the old version, with evidence of a boot or after the grace period */
	/* what the service decides */
	EVENT_WITHDRAW,
	EVENT_LAPSE,
	EVENT_SUPERSEDE, /* another release took the place of a download that stopped */
	ATTEMPT_EVENTS,
};

/* The state after EVENT; the same state when the event changes nothing (late, repeated). */
enum attempt_state attempt_next(enum attempt_state state, enum attempt_event event);

/*
 * Whether a word that names no attempt, and may be a late one of the attempt before, moves the one
 * in STATE.  ACCEPTED: the device has said that it has the command; FIRST: there is nothing that
 * the word could be late of.
 */
bool attempt_takes_unnamed(enum attempt_state state, enum attempt_event event, bool accepted,
			   bool first);

bool attempt_is_open(enum attempt_state state);
/* The device is at it, or was: it has begun to download. */
bool attempt_has_begun(enum attempt_state state);
/* SUCCESS, FAILED, ROLLED_BACK, WITHDRAWN: nothing a device says opens it again. */
bool attempt_is_finished(enum attempt_state state);
/* FAILED or ROLLED_BACK: counts towards max_attempts. */
bool attempt_is_failure(enum attempt_state state);

/* The seven words of the contract: LAPSED and WITHDRAWN are "pending". */
const char *attempt_status_word(enum attempt_state state);
/* metadata.closed: "lapsed", "withdrawn" or NULL. */
const char *attempt_closed_word(enum attempt_state state);
/* Unique names for counts and logs: "lapsed" ... */
const char *attempt_state_name(enum attempt_state state);
/* The event that a report's status word stands for; EVENT_NONE for any other word. */
enum attempt_event attempt_event_from_status(const char *word);
/* The inverse of (status word, closed word), as rows keep them; false when the row makes no sense.
 */
bool attempt_state_from_words(const char *status, const char *closed, enum attempt_state *out);
