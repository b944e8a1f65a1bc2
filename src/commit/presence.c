/* SPDX-License-Identifier: MIT */
/*
 * What devices say about themselves over MQTT: birth messages, last wills, the broker's retained
 * copies of them; and whom the dispatcher is to tell.  A birth message is a check-in that is not
 * answered: the offer that follows from it is opened when the dispatcher says that its turn has
 * come.
 */
#include "commit/batch.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/hash.h"
#include "core/dispatch.h"
#include "core/runs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Two devices of one name, speaking in turns, are told of once in so long. */
#define CONFLICT_US (60 * US_PER_S)

/* The id is live on two sites: both are shown. */
static bool note_conflict(struct committer *c, struct device_work *w, struct device_link *l,
			  const struct via *via)
{
	struct buf b = BUF_INIT;

	l->other_site = l->site;
	l->conflict_us = c->batch.now_us;
	json_open(&b, NULL, '{');
	json_str(&b, "site", via->site);
	json_str(&b, "other_site", l->other_site);
	json_close(&b, '}');
	const char *data = buf_ok(&b) ? batch_strdup(&c->batch, b.data) : NULL;
	buf_fini(&b);
	return data && batch_event(&c->batch, "site_conflict", w->device->device_id,
				   w->next.version, 0, data);
}

bool link_note(struct committer *c, struct device_work *w, const struct via *via,
	       enum presence presence, bool *changed)
{
	struct device_link l = {.site = via->site, .other_site = ""};
	bool new = !w->next.link;

	if (!new)
		l = *w->next.link;
	bool came = presence == PRESENCE_ONLINE && l.presence != PRESENCE_ONLINE;
	if (strcmp(l.site, via->site) != 0) {
		if (presence == PRESENCE_OFFLINE)
			return true; /* it has left there, and is here */
		bool back = strcmp(l.other_site, via->site) == 0;
		if (back && l.presence == PRESENCE_ONLINE &&
		    c->batch.now_us - l.conflict_us < CONFLICT_US)
			return true;
		if (presence == PRESENCE_ONLINE && l.presence == PRESENCE_ONLINE) {
			if (!note_conflict(c, w, &l, via))
				return false;
		} else if (back) {
			l.other_site = l.site; /* the conflict that was is of these two still */
		}
	}
	if (presence != PRESENCE_UNKNOWN && presence != l.presence) {
		l.presence = presence;
		l.presence_us = c->batch.now_us;
	}
	l.form = via->form;
	const struct device_link *was = w->next.link;
	if (!new &&strcmp(l.site, via->site) == 0 && l.form == was->form &&
	    l.presence == was->presence)
		return true;
	l.site = via->site;
	*changed = true;
	/* It may have lost what it was told. */
	const struct attempt *a = w->next.attempt;
	if (came && a && attempt_is_open(a->state) && a->commands > 0 && !attempt_tell(c, w, false))
		return false;
	return state_set_link(&w->next, &l);
}

bool link_has_heard(const struct device_link *l, uint64_t hash)
{
	for (int i = 0; l && hash && i < HEARD_MAX; i++)
		if (l->heard[i] == hash)
			return true;
	return false;
}

void link_hear(struct device_link *l, uint64_t hash)
{
	memmove(l->heard + 1, l->heard, sizeof l->heard - sizeof l->heard[0]);
	l->heard[0] = hash;
}

/* --- status messages --- */

/* The attempt that a retained copy shows to have succeeded: the device runs the target by now, and
 * had told another version before. */
static bool shows_target(struct committer *c, const struct device_work *w, const struct checkin *in)
{
	const struct attempt *a = w->next.attempt;
	const struct model *m = w->next.model[0] ? fleet_model(c->fleet, w->next.model) : NULL;
	struct device view = {
		.hash = w->device->hash, .device_id = w->device->device_id, .state = w->next};

	if (!a || !attempt_is_open(a->state) || !in->version[0] || !w->next.version[0] ||
	    strcmp(in->version, w->next.version) == 0)
		return false;
	for (const struct release *r = m ? m->releases : NULL; r; r = r->next)
		if (r->id == a->release_id && !runs_release(&view, r)) {
			view.state.version = in->version;
			view.state.digests = NULL;
			return runs_release(&view, r);
		}
	return false;
}

static enum prepared prepare_retained(struct committer *c, struct command *cmd,
				      struct device_work *w)
{
	const struct status *s = &cmd->status;
	struct attempt_word word = {.event = EVENT_SEEN_TARGET, .percent = -1};
	bool changed = w->added;

	if (w->added) {
		w->device->last_seen_us = LAST_SEEN_NEVER_US;
		cmd->code = checkin_apply(c, w, &s->facts, false, &cmd->err);
		if (cmd->code != OTA_OK)
			return PREPARED_FAIL;
	} else if (shows_target(c, w, &s->facts)) {
		if (attempt_step(c, w, w->next.attempt, &word) == STEPPED_NOMEM ||
		    !state_set_version(&w->next, s->facts.version))
			return prepare_fail_nomem(cmd);
		changed = true;
	}
	/* Where it is spoken to is known from its copy, but no more than that. */
	if (!w->next.link && !link_note(c, w, &s->via, PRESENCE_UNKNOWN, &changed))
		return prepare_fail_nomem(cmd);
	if (changed && !put_device(c, w))
		return prepare_fail_nomem(cmd);
	return PREPARED;
}

static enum prepared prepare_gone(struct committer *c, struct command *cmd, struct device_work *w)
{
	bool changed = w->added;

	/* One that is first heard of as it goes is what it says; of one that is known the birth
	 * message is newer than the last will that was left with it. */
	if (w->added) {
		cmd->code = checkin_apply(c, w, &cmd->status.facts, false, &cmd->err);
		if (cmd->code != OTA_OK)
			return PREPARED_FAIL;
	}
	if (!link_note(c, w, &cmd->status.via, PRESENCE_OFFLINE, &changed) ||
	    (changed && !put_device(c, w)))
		return prepare_fail_nomem(cmd);
	return PREPARED;
}

/* A birth message without a boot_id is itself the sign of a boot; also after a success that is yet
 * to be seen. */
static void note_birth(struct committer *c, struct device_work *w, const struct checkin *in)
{
	const struct attempt *a = w->next.attempt;

	if (a && (a->state == ATTEMPT_INSTALLING || a->state == ATTEMPT_SUCCESS) &&
	    checkin_says_what_runs(in) && !in->boot_hash && !in->has_uptime)
		w->next.boot_seen_us = c->batch.now_us;
}

/* It has started anew, seen by its boot_id, and may have lost what it was told. */
static bool note_restart(struct committer *c, struct device_work *w, const struct checkin *in)
{
	const struct attempt *a = w->next.attempt;
	bool restarted = in->boot_hash && w->next.boot_hash && in->boot_hash != w->next.boot_hash;

	return !restarted || !a || !attempt_is_open(a->state) || a->commands == 0 ||
	       attempt_tell(c, w, false);
}

/* What ran since which boot; 0: no boot_id, and nothing to know another copy by. */
static uint64_t birth_hash(const struct checkin *in)
{
	uint64_t boot = in->boot_hash;

	/* Not alike: a boot_id may be the version itself. */
	return boot ? (hash64_mix(boot) ^ hash64(in->version, strlen(in->version))) | 1 : 0;
}

/*
 * A broker sends again what it heard no acknowledgement of: with it a birth message that is older
 * than what the device has said since.  The device is there, but that is no news of what it runs.
 * Only beside words about an update: a boot_id that never changes must hide nothing for long.
 */
static bool is_birth_copy(const struct committer *c, const struct device_work *w, uint64_t hash)
{
	const struct device_link *l = w->next.link;

	return link_has_heard(l, hash) && l->heard_us &&
	       c->batch.now_us - l->heard_us < c->cfg.install_grace_s * US_PER_S;
}

static bool remember_birth(struct device_work *w, uint64_t hash)
{
	struct device_link l = *w->next.link;

	link_hear(&l, hash);
	return state_set_link(&w->next, &l);
}

/* It is there, and no more than that. */
static enum prepared prepare_sight(struct committer *c, struct command *cmd, struct device_work *w)
{
	bool changed = false;

	if (!link_note(c, w, &cmd->status.via, PRESENCE_ONLINE, &changed) ||
	    (changed && !put_device(c, w)))
		return prepare_fail_nomem(cmd);
	fleet_touch(c->fleet, w->device, c->batch.now_us);
	return PREPARED;
}

static enum prepared prepare_birth(struct committer *c, struct command *cmd, struct device_work *w)
{
	const struct checkin *in = &cmd->status.facts;
	uint64_t hash = birth_hash(in);
	bool changed = w->added || checkin_has_news(in, &w->next, c->batch.now_us);
	bool is_new = changed && hash && !link_has_heard(w->next.link, hash);
	size_t before = c->batch.store.change_count;

	if (is_birth_copy(c, w, hash))
		return prepare_sight(c, cmd, w);
	note_birth(c, w, in);
	if (!note_restart(c, w, in) ||
	    !link_note(c, w, &cmd->status.via, PRESENCE_ONLINE, &changed) ||
	    (is_new && !remember_birth(w, hash)))
		return prepare_fail_nomem(cmd);
	cmd->code = checkin_apply(c, w, in, false, &cmd->err);
	if (cmd->code != OTA_OK)
		return PREPARED_FAIL;
	fleet_touch(c->fleet, w->device, c->batch.now_us);
	if ((changed || c->batch.store.change_count != before) && !put_device(c, w))
		return prepare_fail_nomem(cmd);
	return PREPARED;
}

enum prepared prepare_status(struct committer *c, struct command *cmd)
{
	const struct status *s = &cmd->status;
	struct device *d = fleet_find(c->fleet, s->facts.device_id);
	bool defer = false;

	/* The last will of a device that nobody knows, or a copy of one: nothing to know it by. */
	if ((!d && !s->facts.model[0]) || (s->retained && !s->online))
		return PREPARED;
	struct device_work *w = d ? work_on_device(c, cmd, d, &defer)
				  : work_on_new_device(c, cmd, s->facts.device_id);
	if (defer)
		return PREPARED_DEFER;
	if (!w)
		return d ? prepare_fail_nomem(cmd) : PREPARED_FAIL;
	if (s->retained)
		return prepare_retained(c, cmd, w);
	return s->online ? prepare_birth(c, cmd, w) : prepare_gone(c, cmd, w);
}

/* --- telling --- */

static bool open_and_tell(struct committer *c, struct device_work *w, const struct decision *x)
{
	const struct attempt *a = w->next.attempt;

	if (a && attempt_is_open(a->state) &&
	    attempt_withdraw(c, w, "another release took its place") == STEPPED_NOMEM)
		return false;
	return attempt_open(c, w, x->release, x->rollout, true);
}

/* Nobody's failure.  A device that did not answer is told again when it is next seen. */
static bool lapse_unanswered(struct committer *c, struct device_work *w)
{
	struct attempt_word word = {.event = EVENT_LAPSE, .percent = -1, .why = "unanswered"};
	struct device_link l = *w->next.link;

	l.silent_us = c->batch.now_us;
	return attempt_step(c, w, w->next.attempt, &word) != STEPPED_NOMEM &&
	       state_set_link(&w->next, &l) && put_device(c, w);
}

/* The open attempt was told, and is not to be told again. */
static bool end_told(struct committer *c, struct device_work *w, const struct decision *x)
{
	bool other = decision_offers(x) && x->release->id != w->next.attempt->release_id;

	if (decision_keeps(x, w->next.attempt->release_id))
		return lapse_unanswered(c, w);
	return attempt_withdraw(c, w,
				other ? "another release took its place"
				      : reason_name(x->reason)) != STEPPED_NOMEM;
}

enum prepared prepare_dispatch(struct committer *c, struct command *cmd)
{
	struct device *d = fleet_find(c->fleet, cmd->dispatch.device_id);
	struct decide_params p = committer_decide_params(c);
	struct dispatch_params dp = {c->batch.now_us, c->cfg.command_timeout_s * US_PER_S};
	bool defer = false, ok = true;

	if (!d)
		return PREPARED;
	const struct model *m = d->state.model[0] ? fleet_model(c->fleet, d->state.model) : NULL;
	struct decision x = decide(d, m, &p);
	enum dispatch what = dispatch_judge(d, &x, &dp);
	if (what == DISPATCH_NOTHING)
		return PREPARED;
	struct device_work *w = work_on_device(c, cmd, d, &defer);
	if (defer)
		return PREPARED_DEFER;
	if (!w)
		return prepare_fail_nomem(cmd);
	switch (what) {
	case DISPATCH_OPEN: ok = open_and_tell(c, w, &x); break;
	case DISPATCH_AGAIN: ok = attempt_tell(c, w, true); break;
	case DISPATCH_LAPSE: ok = end_told(c, w, &x); break;
	case DISPATCH_NOTHING: break;
	}
	cmd->out.send = ok && what != DISPATCH_LAPSE;
	if (cmd->out.send)
		cmd->out.id = w->next.attempt->id;
	return ok ? PREPARED : prepare_fail_nomem(cmd);
}

/* --- what was not understood, and the great stop --- */

enum prepared prepare_rejected(struct committer *c, struct command *cmd)
{
	struct change *ch = batch_change(&c->batch, CHANGE_REJECTED);

	if (!ch)
		return prepare_fail_nomem(cmd);
	ch->rejected.device_id = cmd->rejected.device_id;
	ch->rejected.topic = cmd->rejected.topic;
	ch->rejected.reason = cmd->rejected.reason;
	ch->rejected.detail = cmd->rejected.detail;
	ch->rejected.payload = cmd->rejected.payload;
	ch->rejected.payload_len = cmd->rejected.payload_len;
	ch->rejected.created_us = c->batch.now_us;
	return PREPARED;
}
