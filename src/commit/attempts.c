/* SPDX-License-Identifier: MIT */
/*
 * Attempts, as the committer changes them: one function opens one, one function moves one, and each
 * change is a row, an event and the device's new state at once.
 */
#include "commit/gates.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/hash.h"
#include "core/retry.h"
#include "core/runs.h"
#include "core/version.h"
#include "fleet/intern.h"

#include <stdlib.h>
#include <string.h>

/* 13 characters of base 32 (RFC 4648, lower case): 65 bits nobody can guess. */
static bool make_token(char out[ATTEMPT_TOKEN_LEN + 1])
{
	uint8_t bytes[ATTEMPT_TOKEN_LEN];

	if (!random_bytes(bytes, sizeof bytes))
		return false;
	for (int i = 0; i < ATTEMPT_TOKEN_LEN; i++)
		out[i] = "abcdefghijklmnopqrstuvwxyz234567"[bytes[i] & 31];
	out[ATTEMPT_TOKEN_LEN] = '\0';
	return true;
}

/* event_data: what an operator asks later.  Only words of ours and escaped text go in. */
static const char *event_data(struct committer *c, const struct attempt *a,
			      const struct attempt_word *word)
{
	struct buf b = BUF_INIT;
	char *copy = NULL;

	json_open(&b, NULL, '{');
	json_str(&b, "attempt_id", a->token[0] ? a->token : NULL);
	json_int(&b, "update_id", a->id);
	json_str(&b, "status", attempt_status_word(a->state));
	if (a->from_version[0])
		json_str(&b, "from_version", a->from_version);
	if (word && word->error)
		json_str(&b, "error_message", word->error);
	if (word && word->code)
		json_int(&b, "result_code", word->code);
	if (word && word->why)
		json_str(&b, "why", word->why);
	if (a->unsolicited)
		json_bool(&b, "unsolicited", true);
	json_close(&b, '}');
	if (buf_ok(&b))
		copy = batch_alloc(&c->batch, b.len + 1);
	if (copy)
		memcpy(copy, b.data, b.len + 1);
	buf_fini(&b);
	return copy;
}

static struct change *put_attempt(struct committer *c, struct device_work *w, enum change_kind kind,
				  const struct attempt *a)
{
	/* The change outlives this call: its attempt lives in the batch, its strings in the state.
	 */
	struct attempt *copy = batch_alloc(&c->batch, sizeof *copy);
	char *version = batch_strdup(&c->batch, a->version);
	char *from = batch_strdup(&c->batch, a->from_version);
	struct change *ch = copy && version && from ? batch_change(&c->batch, kind) : NULL;

	if (!ch)
		return NULL;
	*copy = *a;
	copy->version = version;
	copy->from_version = from;
	ch->attempt.device_id = w->device->device_id;
	ch->attempt.attempt = copy;
	return ch;
}

static bool put_failures(struct committer *c, struct device_work *w, const struct failure_count *f)
{
	struct change *ch = batch_change(&c->batch, CHANGE_FAILURES);

	if (!ch || !state_set_failures(&w->next, f))
		return false;
	ch->failures.device_id = w->device->device_id;
	ch->failures.failures = *f;
	return true;
}

static bool forget_failures(struct committer *c, struct device_work *w, int64_t release_id)
{
	struct failure_count had = state_failures(&w->next, release_id);

	return had.count + had.passing == 0 ||
	       put_failures(c, w, &(struct failure_count){.release_id = release_id});
}

/* It takes a place from now on.  A round that is under way may have passed it by. */
static void take_place(struct committer *c, const struct rollout *by)
{
	struct rollout *r = (struct rollout *)(uintptr_t)by;

	c->busy++;
	c->busy_next += c->in_round;
	if (r) {
		r->busy++;
		r->busy_next += c->in_round;
	}
}

bool attempt_tell(struct committer *c, struct device_work *w, bool told)
{
	struct attempt a = *w->next.attempt;

	a.commands = told ? a.commands + 1 : 0;
	if (told)
		a.commanded_us = c->batch.now_us;
	return put_attempt(c, w, CHANGE_ATTEMPT_UPDATE, &a) && state_set_attempt(&w->next, &a);
}

bool attempt_open(struct committer *c, struct device_work *w, const struct release *r,
		  const struct rollout *by, bool told)
{
	struct attempt a = {
		.id = c->store->ops->next_id(c->store, ID_ATTEMPT),
		.release_id = r->id,
		.rollout_id = by ? by->id : 0,
		.state = ATTEMPT_PENDING,
		.percent = -1,
		.opened_us = c->batch.now_us,
		.reported_us = c->batch.now_us,
		.commanded_us = told ? c->batch.now_us : 0,
		.commands = told,
		.version = r->version,
		.from_version = w->next.version,
	};
	const char *data;
	bool refused = false;

	if (by && !gates_note_open(c, w, by, &a, &refused))
		return false;
	if (refused)
		return true;
	take_place(c, by);

	/* A try after a success that stood begins a new row of failures. */
	if (w->next.ran_release_id == r->id && !forget_failures(c, w, r->id))
		return false;
	return make_token(a.token) && put_attempt(c, w, CHANGE_ATTEMPT_INSERT, &a) &&
	       (data = event_data(c, &a, NULL)) &&
	       batch_event(&c->batch, "update_offered", w->device->device_id, a.version,
			   a.rollout_id, data) &&
	       state_set_attempt(&w->next, &a);
}

/* The event type of the contract that a state's begin is written as. */
static const char *event_type(enum attempt_state was, enum attempt_state is)
{
	switch (is) {
	case ATTEMPT_DOWNLOADING:
	case ATTEMPT_DOWNLOADED:
	case ATTEMPT_INSTALLING:
		return was == ATTEMPT_PENDING || was == ATTEMPT_LAPSED ? "update_started"
								       : "update_progressed";
	case ATTEMPT_SUCCESS: return "update_completed";
	case ATTEMPT_FAILED: return "update_failed";
	case ATTEMPT_ROLLED_BACK: return "rollback_initiated";
	case ATTEMPT_LAPSED: return "update_lapsed";
	case ATTEMPT_WITHDRAWN: return "update_withdrawn";
	case ATTEMPT_PENDING:
	case ATTEMPT_STATES: break;
	}
	return "update_progressed";
}

static bool has_whole_image(enum attempt_state state)
{
	return state == ATTEMPT_DOWNLOADED || state == ATTEMPT_INSTALLING ||
	       state == ATTEMPT_SUCCESS;
}

/* One more failure in a row: when it is tried again, if it is. */
static bool note_failure(struct committer *c, struct device_work *w, const struct attempt *a,
			 enum attempt_state was, const struct attempt_word *word)
{
	struct failure_count f = state_failures(&w->next, a->release_id);
	struct retry_facts facts = {
		.code = word->code,
		.whole = has_whole_image(was),
		.is_told = w->next.link != NULL,
		.poll_interval_us = c->cfg.poll_interval_s * US_PER_S,
	};
	int64_t wait_us = retry_note(&f, &facts);

	if (!put_failures(c, w, &f))
		return false;
	if (wait_us == 0 && w->next.retry_us <= c->batch.now_us)
		return true;
	w->next.retry_us = wait_us ? c->batch.now_us + wait_us : 0;
	return put_device(c, w);
}

/* What a finished attempt means for its device: failures in a row, what it runs. */
static bool note_outcome(struct committer *c, struct device_work *w, const struct attempt *a,
			 enum attempt_state was, const struct attempt_word *word)
{
	struct device_state *n = &w->next;
	bool reported = word->event == EVENT_REPORT_SUCCESS;

	if (a->unsolicited)
		return a->state != ATTEMPT_SUCCESS || state_set_version(n, a->version);
	if (attempt_is_failure(a->state) && !note_failure(c, w, a, was, word))
		return false;
	if (a->state == ATTEMPT_ROLLED_BACK) {
		if (n->ran_release_id == a->release_id) {
			n->ran_release_id = 0;
			if (!state_set_string(&n->ran_as, ""))
				return false;
		}
		if (a->from_version[0] && version_equal(n->version, a->version))
			return state_set_version(n, a->from_version);
	}
	if (a->state == ATTEMPT_SUCCESS) {
		/* The success before this one stood: its failures were not in a row with what
		 * comes. */
		if (n->ran_release_id != a->release_id && !forget_failures(c, w, n->ran_release_id))
			return false;
		n->ran_release_id = a->release_id;
		/* Installed once more it still came from where it came. */
		if (!version_equal(a->from_version, a->version) &&
		    !state_set_string(&n->ran_from, a->from_version))
			return false;
		/* A device that says so runs it from now on; one that was seen has told its own
		 * name. */
		if (reported && !state_set_version(n, a->version))
			return false;
		return state_set_string(&n->ran_as, "");
	}
	return true;
}

/* The attempt in memory: what is open, or a success that is yet to be seen. */
static bool keep_in_memory(struct device_work *w, const struct attempt *a)
{
	const struct attempt *held = w->next.attempt;
	bool belongs = !a->unsolicited &&
		       (attempt_is_open(a->state) || (a->state == ATTEMPT_SUCCESS && !a->settled));

	if (held && held->id != a->id)
		return true; /* another one is open: this one is history */
	if (!belongs && !held)
		return true;
	return state_set_attempt(&w->next, belongs ? a : NULL);
}

enum stepped attempt_step(struct committer *c, struct device_work *w, const struct attempt *old,
			  const struct attempt_word *word)
{
	struct attempt a = *old;
	const struct attempt *held = w->next.attempt;
	bool grew = word->percent > a.percent;
	bool accepts = word->accepted && !a.accepted_us && attempt_is_open(old->state);

	a.state = attempt_next(old->state, word->event);
	/* LAPSED may begin again, but not beside another that is open or about to be seen. */
	if (!a.unsolicited && !attempt_is_open(old->state) && attempt_is_open(a.state) && held &&
	    held->id != a.id)
		return STEPPED_NOT;
	if (word->coalesced && a.state == old->state &&
	    c->batch.now_us - old->reported_us < US_PER_S)
		grew = false;
	if (a.state == old->state && !accepts &&
	    (!grew || a.state != ATTEMPT_DOWNLOADING || word->event != EVENT_REPORT_DOWNLOADING))
		return STEPPED_NOT;

	a.reported_us = c->batch.now_us;
	if (accepts)
		a.accepted_us = c->batch.now_us;
	if (a.state == ATTEMPT_SUCCESS)
		a.percent = 100;
	else if (grew)
		a.percent = word->percent;
	/* Beside another one this success is history: nobody waits to see it. */
	if (a.state == ATTEMPT_SUCCESS && held && held->id != a.id)
		a.settled = true;
	if (!a.installing_us && (a.state == ATTEMPT_INSTALLING || a.state == ATTEMPT_SUCCESS))
		a.installing_us = c->batch.now_us;

	struct change *ch = put_attempt(c, w, CHANGE_ATTEMPT_UPDATE, &a);
	if (!ch)
		return STEPPED_NOMEM;
	/* The array of changes may move with the next one: CH is good until then. */
	const struct attempt *kept = ch->attempt.attempt;
	ch->attempt.error_message = word->error;
	ch->attempt.closed_why = word->why;
	if (attempt_is_open(old->state) && attempt_is_open(a.state))
		ch->attempt.reach = a.state == old->state ? ATTEMPT_PROGRESSES : ATTEMPT_MOVES_ON;
	if (a.state != ATTEMPT_PENDING && a.state != ATTEMPT_LAPSED && a.state != ATTEMPT_WITHDRAWN)
		ch->attempt.started_us = c->batch.now_us;
	if (!attempt_is_open(a.state))
		ch->attempt.completed_us = c->batch.now_us;
	if (accepts && a.state == old->state) {
		const char *data = event_data(c, &a, NULL);
		if (!data || !batch_event(&c->batch, "update_accepted", w->device->device_id,
					  kept->version, a.rollout_id, data))
			return STEPPED_NOMEM;
	}
	if (a.state != old->state) {
		const char *data = event_data(c, &a, word);
		if (!data ||
		    !batch_event(&c->batch, event_type(old->state, a.state), w->device->device_id,
				 kept->version, a.rollout_id, data) ||
		    !gates_note_step(c, w, old->state, kept, word) ||
		    !note_outcome(c, w, kept, old->state, word))
			return STEPPED_NOMEM;
	}
	return keep_in_memory(w, &a) ? STEPPED : STEPPED_NOMEM;
}

enum stepped attempt_withdraw(struct committer *c, struct device_work *w, const char *why)
{
	struct attempt_word word = {.event = EVENT_WITHDRAW, .percent = -1, .why = why};

	if (!w->next.attempt)
		return STEPPED_NOT;
	return attempt_step(c, w, w->next.attempt, &word);
}

bool attempt_success_ends(struct committer *c, struct device_work *w)
{
	int64_t release_id = w->next.ran_release_id;

	w->next.ran_release_id = 0;
	return state_set_string(&w->next.ran_as, "") && forget_failures(c, w, release_id);
}

bool attempt_settle(struct committer *c, struct device_work *w, const char *runs_as)
{
	struct attempt a = *w->next.attempt;

	a.settled = true;
	if (!put_attempt(c, w, CHANGE_ATTEMPT_UPDATE, &a))
		return false;
	w->next.ran_release_id = a.release_id;
	return state_set_string(&w->next.ran_as, runs_as) && state_set_attempt(&w->next, NULL);
}
