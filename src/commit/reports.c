/* SPDX-License-Identifier: MIT */
/*
 * What devices say about their updates, and the beginning of a download.
 *
 * A report is recorded as said.  It belongs to the attempt that its attempt_id names, else to the
 * device's attempt at that version, else it was not asked for: then it gets a row of its own that
 * steers nothing.
 */
#include "commit/gates.h"

#include "base/clock.h"
#include "core/runs.h"
#include "core/version.h"

#include <string.h>

/* Reports arrive late.  One that comes so long after the end is not late: it is another try. */
#define LATE_US (3600 * US_PER_S)

/* The report can belong to A, which is not open in memory: A ended a short while ago, or not for
 * good.  A success can be rolled back at any time. */
static bool still_speaks_of(const struct stored_attempt *s, const struct report *r, int64_t now_us)
{
	return s->completed_us == 0 || now_us - s->completed_us < LATE_US ||
	       s->a.state == ATTEMPT_LAPSED ||
	       (s->a.state == ATTEMPT_SUCCESS && r->event == EVENT_REPORT_ROLLED_BACK);
}

static bool names_attempt(const struct attempt *a, const struct report *r)
{
	if (r->attempt_token && a->token[0])
		return strcmp(r->attempt_token, a->token) == 0;
	if (!r->version)
		return attempt_is_open(a->state);
	return version_equal(a->version, r->version);
}

/* The attempt at the version that the report says; false: none. */
static bool find_as_said(struct committer *c, const struct device_work *w, const struct report *r,
			 struct stored_attempt *found, const struct attempt **out,
			 enum ota_code *rc, struct ota_err *err)
{
	const struct attempt *held = w->next.attempt;

	*rc = OTA_OK;
	if (held && names_attempt(held, r)) {
		*out = held;
		return true;
	}
	if (w->added)
		return false;
	if (r->attempt_token) {
		*rc = c->store->ops->find_attempt(c->store, r->attempt_token, NULL, NULL, found,
						  err);
		if (*rc == OTA_OK && strcmp(found->device_id, w->device->device_id) == 0) {
			*out = &found->a;
			return true;
		}
		if (*rc != OTA_OK && *rc != OTA_ENOTFOUND)
			return false;
		*rc = OTA_OK;
		/* An id nobody gave out, or another device's: the version tells. */
		if (held && r->version && version_equal(held->version, r->version)) {
			*out = held;
			return true;
		}
	}
	if (!r->version)
		return false;
	*rc = c->store->ops->find_attempt(c->store, NULL, w->device->device_id, r->version, found,
					  err);
	if (*rc == OTA_ENOTFOUND)
		*rc = OTA_OK;
	else if (*rc == OTA_OK && still_speaks_of(found, r, c->batch.now_us)) {
		*out = &found->a;
		return true;
	}
	return false;
}

/* Finds the attempt that the report speaks of, which may call the release by another of its names;
 * false: none. */
static bool find_attempt(struct committer *c, const struct device_work *w, const struct report *r,
			 struct stored_attempt *found, const struct attempt **out,
			 enum ota_code *rc, struct ota_err *err)
{
	const struct model *m =
		r->version && w->next.model[0] ? fleet_model(c->fleet, w->next.model) : NULL;
	const struct release *rel = m ? m->releases : NULL;
	struct report named = *r;

	while (rel && !release_is_called(rel, r->version))
		rel = rel->next;
	if (rel && !version_equal(rel->version, r->version)) {
		named.version = rel->version;
		if (find_as_said(c, w, &named, found, out, rc, err))
			return true;
		if (*rc != OTA_OK)
			return false;
	}
	return find_as_said(c, w, r, found, out, rc, err);
}

static const struct release *known_release(struct committer *c, const struct device_work *w,
					   const char *version)
{
	const struct model *m = w->next.model[0] ? fleet_model(c->fleet, w->next.model) : NULL;

	return m ? fleet_release_of(m, version) : NULL;
}

/* A row for what nobody asked for: it begins where the report says. */
static enum stepped record_unsolicited(struct committer *c, struct device_work *w,
				       const struct report *r, const struct attempt_word *word)
{
	const struct release *rel = known_release(c, w, r->version);
	struct attempt a = {
		.id = c->store->ops->next_id(c->store, ID_ATTEMPT),
		.release_id = rel ? rel->id : 0,
		.unsolicited = true,
		.settled = true,
		.percent = -1,
		.opened_us = c->batch.now_us,
		.reported_us = c->batch.now_us,
		.version = r->version,
		.from_version = batch_strdup(&c->batch, w->next.version),
	};
	struct change *ch = a.from_version ? batch_change(&c->batch, CHANGE_ATTEMPT_INSERT) : NULL;
	struct attempt *copy = batch_alloc(&c->batch, sizeof *copy);

	if (!ch || !copy)
		return STEPPED_NOMEM;
	*copy = a;
	ch->attempt.device_id = w->device->device_id;
	ch->attempt.attempt = copy;
	return attempt_step(c, w, &a, word) == STEPPED_NOMEM ? STEPPED_NOMEM : STEPPED;
}

static bool ends_attempt(enum attempt_event e)
{
	return e == EVENT_REPORT_SUCCESS || e == EVENT_REPORT_FAILED ||
	       e == EVENT_REPORT_ROLLED_BACK;
}

/*
 * Another copy of what was heard before (a broker sends it again when it heard no acknowledgement,
 * at once or hours later) must not move the next attempt (A; NULL: there is none), nor make a row
 * of its own.  Without a time in it a device may say the same of each try: its end is meant once it
 * has begun the download, or was told again since it accepted.
 */
static bool is_copy(const struct device_work *w, const struct report *r, const struct attempt *a)
{
	if (!link_has_heard(w->next.link, r->hash))
		return false;
	if (r->stamped || !a)
		return true;
	return ends_attempt(r->event) && !attempt_has_begun(a->state) &&
	       (!a->accepted_us || a->commanded_us <= a->accepted_us);
}

/* What names no attempt may be late, and of the one before. */
static bool may_be_late(const struct committer *c, const struct device_work *w,
			const struct report *r, const struct attempt *a)
{
	const struct device_link *l = w->next.link;
	bool first = !l || !l->heard_us || c->batch.now_us - l->heard_us >= LATE_US;

	return !r->version && !r->attempt_token &&
	       !attempt_takes_unnamed(a->state, r->event, a->accepted_us != 0, first);
}

/* What came over MQTT: where from, and that it was heard.  *changed: a row is due. */
static bool note_via(struct committer *c, struct device_work *w, const struct report *r,
		     bool matters, bool *changed)
{
	struct device_link l;

	if (!link_note(c, w, &r->via, PRESENCE_ONLINE, changed))
		return false;
	if (!matters || !r->hash || link_has_heard(w->next.link, r->hash))
		return true;
	l = *w->next.link;
	link_hear(&l, r->hash);
	l.heard_us = c->batch.now_us;
	*changed = true;
	return state_set_link(&w->next, &l);
}

/* It moves A, not its percentage alone; or ends it, were it not at its end. */
static bool is_worth_knowing(const struct attempt *a, const struct report *r, bool late)
{
	bool moves = attempt_next(a->state, r->event) != a->state ||
		     (r->accepted && !a->accepted_us && attempt_is_open(a->state));

	return ends_attempt(r->event) || (moves && !late);
}

/* Nothing that anybody tries, and nothing to keep: a device that is there. */
static bool says_nothing(const struct report *r)
{
	return !r->version || r->event == EVENT_NONE;
}

enum prepared prepare_report(struct committer *c, struct command *cmd)
{
	const struct report *r = &cmd->report;
	struct attempt_word word = {.event = r->event,
				    .percent = r->percent,
				    .error = r->error_message,
				    .accepted = r->accepted,
				    .coalesced = r->via.site != NULL,
				    .code = r->code};
	struct device *d = fleet_find(c->fleet, r->device_id);
	struct stored_attempt found;
	const struct attempt *a = NULL;
	enum ota_code rc;
	enum stepped stepped = STEPPED_NOT;
	bool defer = false, link_changed = false, matters = false;

	if (!d && says_nothing(r)) {
		cmd->out.existed = true;
		return PREPARED;
	}
	struct device_work *w =
		d ? work_on_device(c, cmd, d, &defer) : work_on_new_device(c, cmd, r->device_id);

	if (defer)
		return PREPARED_DEFER;
	if (!w)
		return d ? prepare_fail_nomem(cmd) : PREPARED_FAIL;
	bool spoken_of = find_attempt(c, w, r, &found, &a, &rc, &cmd->err);
	if (rc != OTA_OK) {
		cmd->code = rc;
		return PREPARED_FAIL;
	}
	if (!is_copy(w, r, spoken_of ? a : NULL)) {
		bool late = spoken_of && may_be_late(c, w, r, a);
		matters = spoken_of ? is_worth_knowing(a, r, late) : !says_nothing(r);
		if (spoken_of && !late)
			stepped = attempt_step(c, w, a, &word); /* may free what A points to */
		else if (!spoken_of && matters)
			stepped = record_unsolicited(c, w, r, &word);
	}
	if (stepped == STEPPED_NOMEM || (r->via.site && !note_via(c, w, r, matters, &link_changed)))
		return prepare_fail_nomem(cmd);
	cmd->out.existed = stepped == STEPPED_NOT;
	fleet_touch(c->fleet, w->device, c->batch.now_us);
	if (w->added && !batch_event(&c->batch, "device_registered", w->device->device_id,
				     w->next.version, 0, NULL))
		return prepare_fail_nomem(cmd);
	/* The device's own row changes only with what it runs, or when it is new. */
	bool runs_other = d && (strcmp(d->state.version, w->next.version) != 0 ||
				strcmp(d->state.ran_as, w->next.ran_as) != 0 ||
				strcmp(d->state.ran_from, w->next.ran_from) != 0 ||
				d->state.ran_release_id != w->next.ran_release_id);
	if ((w->added || runs_other || link_changed) && !put_device(c, w))
		return prepare_fail_nomem(cmd);
	return PREPARED;
}

/* Not to be begun any more: withdrawn, or it lapsed, and since then its rollout has ended or its
 * place was taken. */
static bool is_gone(struct committer *c, const struct device *d, const struct attempt *a)
{
	if (a->state != ATTEMPT_LAPSED)
		return a->state == ATTEMPT_WITHDRAWN;
	const struct rollout *by = fleet_rollout(c->fleet, a->rollout_id);
	return !by || !by->active || fleet_is_stopped(c->fleet) ||
	       gates_ask(c, d, by).answer != GATE_FREE;
}

enum prepared prepare_fetch(struct committer *c, struct command *cmd)
{
	struct attempt_word word = {.event = EVENT_FETCH, .percent = -1};
	struct stored_attempt found;
	bool defer = false;
	enum ota_code rc = c->store->ops->find_attempt(c->store, cmd->fetch.token, NULL, NULL,
						       &found, &cmd->err);

	if (rc == OTA_ENOTFOUND) {
		cmd->out.existed = false;
		return PREPARED; /* nobody's attempt: the image is for all who ask */
	}
	if (rc != OTA_OK) {
		cmd->code = rc;
		return PREPARED_FAIL;
	}
	cmd->out.existed = true;
	cmd->out.id = found.a.release_id;
	struct device *d = fleet_find(c->fleet, found.device_id);
	if (!d || is_gone(c, d, &found.a))
		return prepare_fail(cmd, OTA_EGONE,
				    "this update of %s to %s was withdrawn; ask again what to run",
				    found.device_id, found.version);
	if (cmd->fetch.peek)
		return PREPARED;
	struct device_work *w = work_on_device(c, cmd, d, &defer);
	if (defer)
		return PREPARED_DEFER;
	if (!w)
		return prepare_fail_nomem(cmd);
	const struct attempt *a =
		w->next.attempt && w->next.attempt->id == found.a.id ? w->next.attempt : &found.a;
	if (attempt_step(c, w, a, &word) == STEPPED_NOMEM)
		return prepare_fail_nomem(cmd);
	fleet_touch(c->fleet, d, c->batch.now_us);
	return PREPARED;
}

enum prepared prepare_lapse(struct committer *c, struct command *cmd)
{
	struct attempt_word word = {.event = EVENT_LAPSE,
				    .percent = -1,
				    .why = "no download within three poll intervals"};
	struct device *d = fleet_find(c->fleet, cmd->lapse.device_id);
	bool defer = false;

	if (!d || !d->state.attempt || d->state.attempt->state != ATTEMPT_PENDING ||
	    d->state.attempt->opened_us > cmd->lapse.not_after_us)
		return PREPARED;
	struct device_work *w = work_on_device(c, cmd, d, &defer);
	if (defer)
		return PREPARED_DEFER;
	if (!w || attempt_step(c, w, w->next.attempt, &word) == STEPPED_NOMEM)
		return prepare_fail_nomem(cmd);
	return PREPARED;
}
