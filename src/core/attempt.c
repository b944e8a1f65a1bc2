/* SPDX-License-Identifier: MIT */
#include "core/attempt.h"

#include <string.h>

/* Short names, so that the table can be read as one. */
enum {
	PEND = ATTEMPT_PENDING,
	DLNG = ATTEMPT_DOWNLOADING,
	DLED = ATTEMPT_DOWNLOADED,
	INST = ATTEMPT_INSTALLING,
	SUCC = ATTEMPT_SUCCESS,
	FAIL = ATTEMPT_FAILED,
	RBCK = ATTEMPT_ROLLED_BACK,
	LAPS = ATTEMPT_LAPSED,
	WDRN = ATTEMPT_WITHDRAWN,
};

/*
 * Rows: the event.  Columns: the state it meets.
 *
 * - A report never moves an attempt backwards: what is behind the state is late and changes
 * nothing.
 * - WITHDRAW and LAPSE touch only what has not begun.
 * - A withdrawn attempt whose device had begun unseen (a cache in between) still records how it
 * ended.
 * - SEEN_OLD is only raised with evidence, and so means something only once installing has begun.
 * - SUPERSEDE ends a begun attempt whose download stopped: it did not succeed.
 */
static const unsigned char next_state[ATTEMPT_EVENTS][ATTEMPT_STATES] = {
	/*                            PEND  DLNG  DLED  INST  SUCC  FAIL  RBCK  LAPS  WDRN */
	[EVENT_NONE] = {PEND, DLNG, DLED, INST, SUCC, FAIL, RBCK, LAPS, WDRN},
	[EVENT_REPORT_PENDING] = {PEND, DLNG, DLED, INST, SUCC, FAIL, RBCK, LAPS, WDRN},
	[EVENT_REPORT_DOWNLOADING] = {DLNG, DLNG, DLED, INST, SUCC, FAIL, RBCK, DLNG, WDRN},
	[EVENT_REPORT_DOWNLOADED] = {DLED, DLED, DLED, INST, SUCC, FAIL, RBCK, DLED, WDRN},
	[EVENT_REPORT_INSTALLING] = {INST, INST, INST, INST, SUCC, FAIL, RBCK, INST, WDRN},
	[EVENT_REPORT_SUCCESS] = {SUCC, SUCC, SUCC, SUCC, SUCC, FAIL, RBCK, SUCC, SUCC},
	[EVENT_REPORT_FAILED] = {FAIL, FAIL, FAIL, FAIL, SUCC, FAIL, RBCK, FAIL, FAIL},
	[EVENT_REPORT_ROLLED_BACK] = {RBCK, RBCK, RBCK, RBCK, RBCK, FAIL, RBCK, RBCK, RBCK},
	[EVENT_FETCH] = {DLNG, DLNG, DLED, INST, SUCC, FAIL, RBCK, DLNG, WDRN},
	[EVENT_SEEN_TARGET] = {SUCC, SUCC, SUCC, SUCC, SUCC, FAIL, RBCK, SUCC, WDRN},
	[EVENT_SEEN_OLD] = {PEND, DLNG, DLED, RBCK, RBCK, FAIL, RBCK, LAPS, WDRN},
	[EVENT_WITHDRAW] = {WDRN, DLNG, DLED, INST, SUCC, FAIL, RBCK, WDRN, WDRN},
	[EVENT_LAPSE] = {LAPS, DLNG, DLED, INST, SUCC, FAIL, RBCK, LAPS, WDRN},
	[EVENT_SUPERSEDE] = {WDRN, FAIL, FAIL, INST, SUCC, FAIL, RBCK, WDRN, WDRN},
};

enum attempt_state attempt_next(enum attempt_state state, enum attempt_event event)
{
	return (enum attempt_state)next_state[event][state];
}

bool attempt_has_begun(enum attempt_state state)
{
	return state >= ATTEMPT_DOWNLOADING && state <= ATTEMPT_ROLLED_BACK;
}

bool attempt_takes_unnamed(enum attempt_state state, enum attempt_event event, bool accepted,
			   bool first)
{
	if (first || event == EVENT_NONE || attempt_has_begun(state))
		return true;
	/* Nothing is rolled back that was not begun. */
	return accepted && event != EVENT_REPORT_ROLLED_BACK;
}

bool attempt_is_open(enum attempt_state state)
{
	return state <= ATTEMPT_INSTALLING;
}

bool attempt_is_finished(enum attempt_state state)
{
	return !attempt_is_open(state) && state != ATTEMPT_LAPSED;
}

bool attempt_is_failure(enum attempt_state state)
{
	return state == ATTEMPT_FAILED || state == ATTEMPT_ROLLED_BACK;
}

static const struct {
	const char *name, *status, *closed;
} words[ATTEMPT_STATES] = {
	[ATTEMPT_PENDING] = {"pending", "pending", NULL},
	[ATTEMPT_DOWNLOADING] = {"downloading", "downloading", NULL},
	[ATTEMPT_DOWNLOADED] = {"downloaded", "downloaded", NULL},
	[ATTEMPT_INSTALLING] = {"installing", "installing", NULL},
	[ATTEMPT_SUCCESS] = {"success", "success", NULL},
	[ATTEMPT_FAILED] = {"failed", "failed", NULL},
	[ATTEMPT_ROLLED_BACK] = {"rolled_back", "rolled_back", NULL},
	[ATTEMPT_LAPSED] = {"lapsed", "pending", "lapsed"},
	[ATTEMPT_WITHDRAWN] = {"withdrawn", "pending", "withdrawn"},
};

const char *attempt_status_word(enum attempt_state state)
{
	return words[state].status;
}

const char *attempt_closed_word(enum attempt_state state)
{
	return words[state].closed;
}

const char *attempt_state_name(enum attempt_state state)
{
	return words[state].name;
}

enum attempt_event attempt_event_from_status(const char *word)
{
	for (int s = ATTEMPT_PENDING; s <= ATTEMPT_ROLLED_BACK; s++)
		if (strcmp(word, words[s].status) == 0)
			return (enum attempt_event)(EVENT_REPORT_PENDING + s);
	return EVENT_NONE;
}

bool attempt_state_from_words(const char *status, const char *closed, enum attempt_state *out)
{
	for (int s = 0; s < ATTEMPT_STATES; s++) {
		bool same_closed = words[s].closed ? closed && strcmp(closed, words[s].closed) == 0
						   : closed == NULL;
		if (same_closed && strcmp(status, words[s].status) == 0) {
			*out = (enum attempt_state)s;
			return true;
		}
	}
	return false;
}
