/* SPDX-License-Identifier: MIT */
/*
 * Check-ins.  One that says nothing new is answered from memory by the door's thread
 * (committer_soft_checkin); any other is a command.  After the command the door asks again and
 * finds nothing new: so an offer that leaves the service is always one that is durable.
 */
#include "commit/gates.h"

#include "base/buf.h"
#include "base/clock.h"
#include "core/checkin.h"
#include "core/runs.h"
#include "core/version.h"

#include <string.h>

struct decide_params committer_decide_params(struct committer *c)
{
	return (struct decide_params){
		.now_us = clock_service_us(),
		.stale_us = 3 * c->cfg.poll_interval_s * US_PER_S,
		.stopped = fleet_is_stopped(c->fleet),
		.full = c->cfg.max_downloads > 0 && c->busy >= c->cfg.max_downloads,
		.groups = fleet_group_windows(c->fleet),
		.ask = gates_ask,
		.ask_ctx = c,
	};
}

static const struct release *release_tried(const struct model *m, const struct device_state *s)
{
	for (const struct release *r = m && s->attempt ? m->releases : NULL; r; r = r->next)
		if (r->id == s->attempt->release_id)
			return r;
	return NULL;
}

/* The offer stands as it was made: nothing to write. */
static bool offer_stands(const struct decision *x, const struct attempt *a,
			 const struct release *trying)
{
	bool open = a && attempt_is_open(a->state);

	/* What was begun as another model ends: nothing of this one's can be in its place. */
	if (open && !trying)
		return false;
	if (decision_offers(x))
		return open && a->release_id == x->release->id;
	if (open && decision_keeps(x, a->release_id))
		return true; /* it waits for the window */
	return !open || a->state != ATTEMPT_PENDING;
}

static const struct release *latest_of(const struct model *m)
{
	const struct release *r = m ? m->releases : NULL;

	while (r && r->deleted)
		r = r->next;
	return r;
}

static bool soft_under_lock(struct committer *c, const struct checkin *in, const struct device *d,
			    struct soft_answer *out)
{
	struct decide_params p = committer_decide_params(c);
	const struct model *m = fleet_model(c->fleet, d->state.model);
	struct checkin_params cp = {p.now_us, c->cfg.install_grace_s * US_PER_S};

	if (checkin_has_news(in, &d->state, p.now_us))
		return false;
	struct checkin_verdict v =
		checkin_judge(d, release_tried(m, &d->state), m ? m->releases : NULL, &cp);
	if (checkin_says_what_runs(in) && (v.event != EVENT_NONE || v.settles))
		return false;
	out->decision = decide(d, m, &p);
	if (!offer_stands(&out->decision, d->state.attempt, release_tried(m, &d->state)))
		return false;
	out->latest = latest_of(m);
	out->token[0] = '\0';
	if (decision_offers(&out->decision))
		strcpy(out->token, d->state.attempt->token);
	fleet_touch(c->fleet, d, p.now_us);
	if (out->decision.reason == REASON_NO_PLACE)
		committer_note_waiting(c, d, out->decision.rollout);
	return true;
}

bool committer_soft_checkin(struct committer *c, const struct checkin *in, struct soft_answer *out)
{
	const struct device *d = fleet_lock_device(c->fleet, in->device_id);

	if (!d)
		return false;
	bool soft = soft_under_lock(c, in, d, out);
	fleet_unlock_device(c->fleet, d);
	return soft;
}

/* The device's facts, as told. */
static bool apply_facts(struct committer *c, const struct checkin *in, struct device_state *n)
{
	int64_t now_us = c->batch.now_us;

	if ((in->model[0] && !state_set_string(&n->model, in->model)) ||
	    (in->version[0] && !state_set_version(n, in->version)) ||
	    (in->hw[0] && !state_set_string(&n->hw, in->hw)) || !state_set_digests(n, &in->digests))
		return false;
	if (in->mac)
		n->mac = in->mac;
	if (in->boot_hash && in->boot_hash != n->boot_hash) {
		/* The first boot_id ever told is no evidence of a boot since. */
		if (n->boot_hash) {
			n->boot_seen_us = now_us;
			n->booted_us = 0; /* was of the boot before */
		}
		n->boot_hash = in->boot_hash;
	}
	int64_t booted_us = checkin_booted_us(in, now_us);
	if (booted_us)
		n->booted_us = booted_us;
	return true;
}

/* {"KEY": "VALUE"}: what devices call themselves may hold quotes.  NULL: out of memory. */
static const char *one_member(struct committer *c, const char *key, const char *value)
{
	struct buf b = BUF_INIT;

	json_open(&b, NULL, '{');
	json_str(&b, key, value);
	json_close(&b, '}');
	const char *copy = buf_ok(&b) ? batch_strdup(&c->batch, b.data) : NULL;
	buf_fini(&b);
	return copy;
}

/* The release has another name from now on. */
static bool learn_name(struct committer *c, struct device_work *w, struct release *r)
{
	size_t n = r->learnt ? r->learnt->count : 0;
	struct buf json = BUF_INIT;
	struct change *ch;

	/* Names that are each one device's would never end; the device's own stays with it. */
	if (n >= LEARNT_MAX)
		return true;
	const char **names = batch_alloc(&c->batch, (n + 1) * sizeof *names);
	if (!names)
		return false;
	if (r->batch == c->batch.number)
		return true; /* one name a batch: the next device teaches the other */
	r->batch = c->batch.number;
	for (size_t i = 0; i < n; i++)
		names[i] = r->learnt->items[i];
	names[n] = w->next.version;
	w->learnt = string_list_new(names, n + 1);
	w->learns = r;
	json_open(&json, NULL, '[');
	for (size_t i = 0; i <= n; i++)
		json_str(&json, NULL, names[i]);
	json_close(&json, ']');
	char *text = buf_ok(&json) ? batch_strdup(&c->batch, json.data) : NULL;
	buf_fini(&json);
	const char *data = one_member(c, "learnt_version", w->next.version);
	if (!w->learnt || !text || !data || !(ch = batch_change(&c->batch, CHANGE_RELEASE_LEARNT)))
		return false;
	ch->release_learnt.id = r->id;
	ch->release_learnt.names = text;
	return batch_event(&c->batch, "version_learnt", w->device->device_id, r->version, 0, data);
}

static struct device view_of(const struct device_work *w)
{
	return (struct device){.id = w->device->id,
			       .hash = w->device->hash,
			       .device_id = w->device->device_id,
			       .state = w->next};
}

/* A success that had settled, and now the device calls itself something else: back, or on? */
static enum ota_code look_back(struct committer *c, struct device_work *w, const struct model *m,
			       struct ota_err *err)
{
	const struct release *ran = NULL;
	struct device view = view_of(w);
	struct stored_attempt found;

	for (const struct release *r = m ? m->releases : NULL; r; r = r->next)
		if (r->id == w->next.ran_release_id)
			ran = r;
	/* Beside one that installs, or is yet to be seen, the version is that one's business. */
	const struct attempt *held = w->next.attempt;
	if ((held && (held->state == ATTEMPT_INSTALLING || held->state == ATTEMPT_SUCCESS)) ||
	    !ran || runs_release(&view, ran))
		return OTA_OK;
	enum ota_code rc = c->store->ops->find_attempt(c->store, NULL, w->device->device_id,
						       ran->version, &found, err);
	if (rc != OTA_OK && rc != OTA_ENOTFOUND)
		return rc;
	if (rc != OTA_OK || found.a.state != ATTEMPT_SUCCESS ||
	    !version_equal(found.a.from_version, w->next.version))
		return attempt_success_ends(c, w) ? OTA_OK : ota_fail_nomem(err);
	struct attempt_word word = {.event = EVENT_SEEN_OLD,
				    .percent = -1,
				    .error = "the device is back on the version it had before"};
	return attempt_step(c, w, &found.a, &word) == STEPPED_NOMEM ? ota_fail_nomem(err) : OTA_OK;
}

/* It runs another version than before, and nothing is open: an offer that lapsed may have been
 * taken unseen. */
static enum ota_code look_for_lapsed(struct committer *c, struct device_work *w,
				     const struct model *m, struct ota_err *err)
{
	struct attempt_word word = {.event = EVENT_SEEN_TARGET, .percent = -1};
	struct device view = view_of(w);
	const struct release *runs = m->releases;
	struct stored_attempt found;

	while (runs && !runs_release(&view, runs))
		runs = runs->next;
	if (!runs || w->next.attempt)
		return OTA_OK;
	enum ota_code rc = c->store->ops->find_attempt(c->store, NULL, w->device->device_id,
						       runs->version, &found, err);
	if (rc != OTA_OK)
		return rc == OTA_ENOTFOUND ? OTA_OK : rc;
	if (found.a.state != ATTEMPT_LAPSED || found.a.release_id != runs->id)
		return OTA_OK;
	return attempt_step(c, w, &found.a, &word) == STEPPED_NOMEM ? ota_fail_nomem(err) : OTA_OK;
}

/* What the check-in means for the attempt in memory. */
static bool apply_verdict(struct committer *c, struct device_work *w, struct model *m)
{
	struct device view = view_of(w);
	const struct release *target = release_tried(m, &w->next);
	struct checkin_params p = {c->batch.now_us, c->cfg.install_grace_s * US_PER_S};
	struct checkin_verdict v = checkin_judge(&view, target, m ? m->releases : NULL, &p);
	struct attempt_word word = {.event = v.event, .percent = -1};

	if (v.event == EVENT_SEEN_OLD)
		word.error = "the device runs the version it had before";
	if (v.event == EVENT_REPORT_FAILED)
		word.error = batch_printf(
			&c->batch,
			"the device restarted and runs %s, which is not what it installed",
			w->next.version);
	if (v.event != EVENT_NONE && attempt_step(c, w, w->next.attempt, &word) == STEPPED_NOMEM)
		return false;
	if (v.learns && !learn_name(c, w, (struct release *)(uintptr_t)target))
		return false;
	if (v.settles && !attempt_settle(c, w, v.moved_on ? "" : w->next.version))
		return false;
	return !v.moved_on || attempt_success_ends(c, w);
}

/* The offer that follows: opened, kept, or an older one withdrawn. */
static bool apply_decision(struct committer *c, struct device_work *w, const struct model *m,
			   bool opens)
{
	/* A success as another model is never seen now: nobody waits for it. */
	if (w->next.attempt && !attempt_is_open(w->next.attempt->state) &&
	    !release_tried(m, &w->next) && !attempt_settle(c, w, ""))
		return false;
	struct device view = view_of(w);
	struct decide_params p = committer_decide_params(c);
	struct decision x = decide(&view, m, &p);

	if (offer_stands(&x, w->next.attempt, release_tried(m, &w->next)))
		return true;
	if (w->next.attempt && attempt_is_open(w->next.attempt->state)) {
		struct attempt_word word = {.event = EVENT_SUPERSEDE, .percent = -1};
		word.why = decision_offers(&x) ? "another release took its place"
					       : reason_name(x.reason);
		if (w->next.attempt->state != ATTEMPT_PENDING)
			word.error = "the download stopped and another release took its place";
		if (!release_tried(m, &w->next)) {
			/* Of another model than the one it says it is now: not to be waited for. */
			if (w->next.attempt->state != ATTEMPT_PENDING)
				word.event = EVENT_REPORT_FAILED;
			word.why = word.error = "the device has become another model";
		}
		if (attempt_step(c, w, w->next.attempt, &word) == STEPPED_NOMEM)
			return false;
	}
	return !opens || !decision_offers(&x) || attempt_open(c, w, x.release, x.rollout, false);
}

static bool note_arrival(struct committer *c, struct device_work *w, const char *old_version)
{
	const char *id = w->device->device_id;

	if (w->added)
		return batch_event(&c->batch, "device_registered", id, w->next.version, 0, NULL);
	if (strcmp(old_version, w->next.version) == 0)
		return true;
	const char *data = one_member(c, "from_version", old_version);
	return data && batch_event(&c->batch, "version_changed", id, w->next.version, 0, data);
}

enum ota_code checkin_apply(struct committer *c, struct device_work *w, const struct checkin *in,
			    bool opens, struct ota_err *err)
{
	const char *old_version = batch_strdup(&c->batch, w->next.version);
	enum ota_code rc;

	if (!old_version || !apply_facts(c, in, &w->next))
		return ota_fail_nomem(err);
	struct model *m = w->next.model[0] ? fleet_model_ensure(c->fleet, w->next.model) : NULL;
	if ((w->next.model[0] && !m) || !note_arrival(c, w, old_version))
		return ota_fail_nomem(err);
	rc = look_back(c, w, m, err);
	if (rc == OTA_OK && m && !w->added && strcmp(old_version, w->next.version) != 0)
		rc = look_for_lapsed(c, w, m, err);
	if (rc != OTA_OK)
		return rc;
	if (checkin_says_what_runs(in) && !apply_verdict(c, w, m))
		return ota_fail_nomem(err);
	return apply_decision(c, w, m, opens) ? OTA_OK : ota_fail_nomem(err);
}

enum prepared prepare_checkin(struct committer *c, struct command *cmd)
{
	const struct checkin *in = &cmd->checkin;
	struct device *d = fleet_find(c->fleet, in->device_id);
	bool defer = false;
	struct device_work *w =
		d ? work_on_device(c, cmd, d, &defer) : work_on_new_device(c, cmd, in->device_id);

	if (defer)
		return PREPARED_DEFER;
	if (!w)
		return d ? prepare_fail_nomem(cmd) : PREPARED_FAIL;
	fleet_touch(c->fleet, w->device, c->batch.now_us);
	cmd->code = checkin_apply(c, w, in, true, &cmd->err);
	if (cmd->code != OTA_OK)
		return PREPARED_FAIL;
	if (!put_device(c, w))
		return prepare_fail_nomem(cmd);
	return PREPARED;
}
