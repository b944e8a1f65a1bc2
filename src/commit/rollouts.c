/* SPDX-License-Identifier: MIT */
/*
 * Rollouts: made, and led from one state to another, by people and by the conductor alike.  Each is
 * a batch by itself, so of two that cross the second finds what the first has made.
 */
#include "commit/gates.h"
#include "commit/plan.h"
#include "commit/takeback.h"

#include "base/buf.h"
#include "base/clock.h"
#include "core/target.h"

#include <stdlib.h>
#include <string.h>

static int compare_macs(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static bool fill_target(struct target *t, const struct rollout_new *n)
{
	t->type = n->type;
	t->group = "";
	if (!state_set_string(&t->group, n->group))
		return false;
	if (n->device_id_count &&
	    !(t->device_ids = string_list_new(n->device_ids, n->device_id_count)))
		return false;
	if (n->mac_count) {
		t->macs = malloc(n->mac_count * sizeof *t->macs);
		if (!t->macs)
			return false;
		memcpy(t->macs, n->macs, n->mac_count * sizeof *t->macs);
		qsort(t->macs, n->mac_count, sizeof *t->macs, compare_macs);
		t->mac_count = n->mac_count;
	}
	return true;
}

static bool fill_stages(struct rollout *r, const struct rollout_new *n)
{
	size_t count = n->stage_count ? n->stage_count : 1;

	r->stages = calloc(count, sizeof *r->stages);
	if (!r->stages)
		return false;
	r->stage_count = (int)count;
	if (n->stage_count)
		memcpy(r->stages, n->stages, count * sizeof *r->stages);
	else
		r->stages[0] =
			(struct stage){.percent = n->percent, .min_proven = STAGE_MIN_PROVEN_AUTO};
	r->target.percent = r->stages[0].percent;
	return true;
}

struct rollout *rollout_make(const struct rollout_new *n, const struct release *rel, int64_t now_us)
{
	struct rollout *r = calloc(1, sizeof *r);

	if (!r)
		return NULL;
	r->name = r->target.group = r->requires = r->walk.reason = "";
	if (!state_set_string(&r->name, n->name) || !fill_target(&r->target, n) ||
	    !fill_stages(r, n) || !state_set_string(&r->requires, n->requires ? n->requires : "") ||
	    (n->window && !(r->window = window_copy(n->window)))) {
		rollout_free(&r);
		return NULL;
	}
	r->release = (struct release *)(uintptr_t)rel;
	r->guard = n->guard;
	r->rolls_back = n->rolls_back;
	r->walk = walk_begin(n->active, n->not_before_us, now_us);
	r->active = rollout_state_offers(r->walk.state);
	r->created_active = n->active;
	r->priority = n->priority;
	r->not_before_us = n->not_before_us;
	r->deadline_us = n->deadline_us;
	r->allow_downgrade = n->allow_downgrade;
	r->max_attempts = n->max_attempts;
	r->max_parallel = n->max_parallel;
	r->lowest_hash = UINT64_MAX;
	r->created_us = now_us;
	return r;
}

static bool same_lists(const struct target *a, const struct target *b)
{
	size_t na = a->device_ids ? a->device_ids->count : 0;
	size_t nb = b->device_ids ? b->device_ids->count : 0;

	if (na != nb || a->mac_count != b->mac_count)
		return false;
	for (size_t i = 0; i < na; i++)
		if (strcmp(a->device_ids->items[i], b->device_ids->items[i]) != 0)
			return false;
	return a->mac_count == 0 || memcmp(a->macs, b->macs, a->mac_count * sizeof *a->macs) == 0;
}

static bool same_stages(const struct rollout *a, const struct rollout *b)
{
	for (int i = 0; i < a->stage_count && a->stage_count == b->stage_count; i++) {
		const struct stage *s = &a->stages[i], *t = &b->stages[i];
		if (s->percent != t->percent || s->min_duration_s != t->min_duration_s ||
		    s->min_proven != t->min_proven || s->approve != t->approve)
			return false;
	}
	return a->stage_count == b->stage_count;
}

static bool same_windows(const struct window *a, const struct window *b)
{
	return a && b ? strcmp(a->text, b->text) == 0 : a == b;
}

static bool same_rollout(const struct rollout *a, const struct rollout *b)
{
	return a->release == b->release && a->target.type == b->target.type && same_stages(a, b) &&
	       a->priority == b->priority && a->not_before_us == b->not_before_us &&
	       a->deadline_us == b->deadline_us && same_windows(a->window, b->window) &&
	       strcmp(a->requires, b->requires) == 0 &&
	       strcmp(a->target.group, b->target.group) == 0 &&
	       same_lists(&a->target, &b->target) && a->created_active == b->created_active &&
	       a->allow_downgrade == b->allow_downgrade && a->max_attempts == b->max_attempts &&
	       a->max_parallel == b->max_parallel && a->rolls_back == b->rolls_back &&
	       a->guard.off == b->guard.off && a->guard.bounded == b->guard.bounded &&
	       a->guard.given == b->guard.given &&
	       (!a->guard.given || gate_params_equal(&a->guard.params, &b->guard.params));
}

static char *target_filter(struct committer *c, const struct target *t)
{
	struct buf b = BUF_INIT;
	char mac[MAC_TEXT_SIZE];

	json_open(&b, NULL, '{');
	if (t->device_ids) {
		json_open(&b, "device_ids", '[');
		for (size_t i = 0; i < t->device_ids->count; i++)
			json_str(&b, NULL, t->device_ids->items[i]);
		json_close(&b, ']');
	}
	if (t->mac_count) {
		json_open(&b, "mac_addresses", '[');
		for (size_t i = 0; i < t->mac_count; i++) {
			mac_format(t->macs[i], mac);
			json_str(&b, NULL, mac);
		}
		json_close(&b, ']');
	}
	if (t->group[0])
		json_str(&b, "group", t->group);
	json_close(&b, '}');
	return batch_json(c, &b);
}

static char *stages_json(struct committer *c, const struct rollout *r)
{
	struct buf b = BUF_INIT;

	json_open(&b, NULL, '[');
	for (int i = 0; i < r->stage_count; i++) {
		const struct stage *s = &r->stages[i];
		json_open(&b, NULL, '{');
		json_int(&b, "percent", s->percent);
		json_int(&b, "min_duration_s", s->min_duration_s);
		if (s->min_proven != STAGE_MIN_PROVEN_AUTO)
			json_int(&b, "min_proven", s->min_proven);
		if (s->approve)
			json_bool(&b, "approve", true);
		json_close(&b, '}');
	}
	json_close(&b, ']');
	return batch_json(c, &b);
}

static void json_time(struct buf *b, const char *key, int64_t us)
{
	char text[TIME_TEXT_SIZE];

	if (!us)
		return;
	time_format(us, text);
	json_str(b, key, text);
}

/* What the row keeps besides its columns. */
static char *rollout_metadata(struct committer *c, const struct rollout *r)
{
	struct buf b = BUF_INIT;

	json_open(&b, NULL, '{');
	json_bool(&b, "created_active", r->created_active);
	guard_write(&b, &r->guard);
	takeback_write(&b, r);
	json_close(&b, '}');
	return batch_json(c, &b);
}

static char *created_data(struct committer *c, const struct rollout *r, const char *stages,
			  const char *reason)
{
	struct buf b = BUF_INIT;

	json_open(&b, NULL, '{');
	json_int(&b, "rollout_percentage", r->target.percent);
	json_bool(&b, "is_active", r->active);
	json_str(&b, "state", rollout_state_name(r->walk.state));
	json_raw(&b, "stages", stages);
	json_time(&b, "not_before", r->not_before_us);
	json_time(&b, "deadline", r->deadline_us);
	if (r->window)
		json_str(&b, "window", r->window->text);
	guard_write(&b, &r->guard);
	takeback_write(&b, r);
	if (reason)
		json_str(&b, "reason", reason);
	json_close(&b, '}');
	return batch_json(c, &b);
}

/* Keeps the new rollout only as long as it is compared with the one of the same name. */
static enum prepared rollout_again(struct command *cmd, const struct rollout *have,
				   struct rollout *made)
{
	bool same = same_rollout(have, made);

	rollout_free(&made);
	if (!same)
		return prepare_fail(
			cmd, OTA_ECONFLICT,
			"a rollout called %s exists (%lld) and is not the same; choose another "
			"name",
			have->name, (long long)have->id);
	cmd->out.id = have->id;
	cmd->out.existed = true;
	return PREPARED;
}

const char *rollout_never_offers(const struct rollout *r, int64_t now_us)
{
	int64_t from_us = r->not_before_us > now_us ? r->not_before_us : now_us;
	int64_t opens_us = r->window ? window_opens_us(r->window, from_us) : from_us;

	if (r->deadline_us && r->deadline_us <= now_us)
		return "the deadline has passed already";
	if (opens_us == INT64_MAX)
		return "the window never opens";
	if (r->deadline_us && opens_us >= r->deadline_us)
		return "the window does not open before the deadline";
	return NULL;
}

/* A release that was found bad is tried again only by somebody who says so, and why. */
static bool may_be_made(struct committer *c, struct command *cmd, const struct rollout *made)
{
	const struct rollout_new *n = &cmd->rollout;
	char since[TIME_TEXT_SIZE];

	if (made->release->suspect_us && !(n->override_suspect && n->reason)) {
		time_format(made->release->suspect_us, since);
		prepare_fail(cmd, OTA_ECONFLICT,
			     "release %s was found bad at %.19sZ and is suspect for model %s: give "
			     "override_suspect true and a reason to roll it out all the same",
			     n->version, since, n->model);
		return false;
	}
	struct gate_params now = gates_params(c, made);
	if (made->guard.off || !made->guard.given || made->release->suspect_us ||
	    gate_params_equal(&now, &made->guard.params))
		return true;
	prepare_fail(
		cmd, OTA_ECONFLICT,
		"another rollout has release %s watched by other parameters (p0 %g, halt_at %g, "
		"prove_s %lld): leave guard out, or give the same",
		n->version, now.p0, now.halt_at, (long long)now.prove_s);
	return false;
}

/* It begins anew with MADE; one for named devices leaves the suspicion on the release. */
static bool override_suspicion(struct committer *c, struct command *cmd, const struct rollout *made)
{
	if (!made->release->suspect_us || made->target.type == TARGET_SPECIFIC)
		return true;
	return gates_note_override(c, made, cmd->rollout.reason) &&
	       release_set_suspect(c, cmd, made->release, 0);
}

bool rollout_add(struct committer *c, struct command *cmd, struct model *m, struct rollout *made,
		 const char *by, const char *reason)
{
	struct plan_work *p = plan_work(c, cmd);

	if (!p) {
		rollout_free(&made);
		return false;
	}
	p->new_rollout = made;
	p->model = m;
	struct change *ch = batch_change(&c->batch, CHANGE_ROLLOUT_INSERT);
	if (!ch)
		return false;
	ch->rollout.rollout = made;
	ch->rollout.created_by = by;
	ch->rollout.metadata = rollout_metadata(c, made);
	ch->rollout.target_filter = target_filter(c, &made->target);
	ch->rollout.stages = stages_json(c, made);
	char *data = created_data(c, made, ch->rollout.stages, reason);
	return ch->rollout.target_filter && ch->rollout.stages && ch->rollout.metadata && data &&
	       batch_event(&c->batch, "rollout_created", NULL, made->release->version, made->id,
			   data);
}

static bool begin_stage(struct committer *c, const struct rollout *made)
{
	return !made->walk.stage_since_us || gates_note_stage(c, made, 0);
}

enum prepared prepare_rollout_create(struct committer *c, struct command *cmd)
{
	const struct rollout_new *n = &cmd->rollout;
	struct model *m = (struct model *)(uintptr_t)fleet_model(c->fleet, n->model);
	const struct release *rel = find_release(m, n->version);
	const struct rollout *have = fleet_rollout_named(c->fleet, n->name);

	if (!rel || rel->deleted)
		return prepare_fail(cmd, OTA_ENOTFOUND,
				    "there is no release %s for model %s; upload it first",
				    n->version, n->model);
	struct rollout *made = rollout_make(n, rel, c->batch.now_us);
	if (!made)
		return prepare_fail_nomem(cmd);
	made->id = c->store->ops->next_id(c->store, ID_ROLLOUT);
	if (have)
		return rollout_again(cmd, have, made);
	const char *wrong = rollout_never_offers(made, c->batch.now_us);
	if (wrong) {
		rollout_free(&made);
		return prepare_fail(cmd, OTA_EUNPROCESSABLE, "%s", wrong);
	}
	if (!may_be_made(c, cmd, made)) {
		rollout_free(&made);
		return PREPARED_FAIL;
	}
	cmd->out.id = made->id;
	return rollout_add(c, cmd, m, made, "api", n->reason) && override_suspicion(c, cmd, made) &&
			       begin_stage(c, made)
		       ? PREPARED
		       : prepare_fail_nomem(cmd);
}

/* --- from one state to another --- */

static const char *event_type(const struct walk *was, const struct walk *is)
{
	if (is->state == was->state)
		return is->stage != was->stage ? "rollout_stage" : "rollout_approved";
	switch (is->state) {
	case ROLLOUT_SCHEDULED: return "rollout_scheduled";
	case ROLLOUT_RUNNING:
		return was->state == ROLLOUT_PAUSED && was->stage_since_us ? "rollout_resumed"
									   : "rollout_started";
	case ROLLOUT_PAUSED: return "rollout_paused";
	case ROLLOUT_HALTED: return "rollout_halted";
	case ROLLOUT_COMPLETED: return "rollout_completed";
	case ROLLOUT_ABORTED: return "rollout_aborted";
	case ROLLOUT_DRAFT:
	case ROLLOUT_STATES: break;
	}
	return "rollout_updated";
}

static void json_walk(struct buf *b, const char *key, const struct walk *w)
{
	json_open(b, key, '{');
	json_str(b, "state", rollout_state_name(w->state));
	json_int(b, "stage", w->stage + 1);
	json_bool(b, "approved", w->approved);
	json_close(b, '}');
}

/* The log tells what was, what is, and why: the state can be told from it alone. */
static bool walk_events(struct committer *c, const struct rollout *r, const struct walk *is,
			const char *reason)
{
	struct buf b = BUF_INIT;
	bool active = rollout_state_offers(is->state);
	int percent = r->stages[is->stage].percent;

	json_open(&b, NULL, '{');
	json_walk(&b, "before", &r->walk);
	json_walk(&b, "after", is);
	if (reason)
		json_str(&b, "reason", reason);
	json_close(&b, '}');
	const char *data = batch_json(c, &b);
	if (!data || !batch_event(&c->batch, event_type(&r->walk, is), NULL, r->release->version,
				  r->id, data))
		return false;
	if (active == r->active && percent == r->target.percent)
		return true;
	data = batch_printf(&c->batch, "{\"is_active\":%s,\"rollout_percentage\":%d}",
			    active ? "true" : "false", percent);
	return data &&
	       batch_event(&c->batch, "rollout_updated", NULL, r->release->version, r->id, data);
}

/* It has come to a stage: the gate is to know how many devices that reaches. */
static bool note_stage(struct committer *c, const struct rollout *r, const struct walk *is)
{
	return !is->stage_since_us || is->stage_since_us == r->walk.stage_since_us ||
	       gates_note_stage(c, r, is->stage);
}

bool rollout_step(struct committer *c, struct command *cmd, struct rollout *r,
		  const struct walk *is, const char *reason)
{
	struct plan_work *p = plan_work(c, cmd);
	struct withdrawal w = {.c = c, .rollout_id = r->id};

	bool off_is_fine = cmd->kind == COMMAND_ROLLOUT_WALK && cmd->walk.off_is_fine;

	if (!p)
		return false;
	p->rollout = r;
	p->walk = *is;
	p->walk.reason = "";
	if (reason && !state_set_string(&p->walk.reason, reason))
		return false;
	struct change *ch = batch_change(&c->batch, CHANGE_ROLLOUT_WALK);
	if (!ch)
		return false;
	ch->rollout_walk.rollout = r;
	ch->rollout_walk.walk = &p->walk;
	ch->rollout_walk.percent = r->stages[is->stage].percent;
	ch->rollout_walk.active = rollout_state_offers(is->state);
	ch->rollout_walk.updated_us = c->batch.now_us;
	if (r->active && !rollout_state_offers(is->state)) {
		const char *why =
			batch_printf(&c->batch, "the rollout was %s",
				     off_is_fine ? "deactivated" : rollout_state_name(is->state));
		if (!why || !withdraw_pending(c, cmd, &w, why))
			return false;
	}
	return walk_events(c, r, is, reason) && note_stage(c, r, is);
}

static bool is_expected(const struct command *cmd, const struct walk *w)
{
	return (!cmd->walk.expect_states || cmd->walk.expect_states >> w->state & 1) &&
	       (!cmd->walk.expect_stage || cmd->walk.expect_stage == w->stage + 1);
}

enum prepared prepare_rollout_walk(struct committer *c, struct command *cmd)
{
	struct rollout *r = (struct rollout *)(uintptr_t)fleet_rollout(c->fleet, cmd->walk.id);
	enum rollout_event event = cmd->walk.event;
	int64_t now_us = c->batch.now_us;
	char why[sizeof cmd->err.msg];
	struct walk is;

	if (!r)
		return prepare_fail(cmd, OTA_ENOTFOUND, "no rollout has the id %lld",
				    (long long)cmd->walk.id);
	cmd->out.id = r->id;
	cmd->out.state = r->walk.state;
	cmd->out.stage = r->walk.stage + 1;
	if (!is_expected(cmd, &r->walk))
		return prepare_fail(cmd, OTA_ECONFLICT,
				    "rollout %s is %s in stage %d of %d by now, which is not what "
				    "the request expects",
				    r->name, rollout_state_name(r->walk.state), r->walk.stage + 1,
				    r->stage_count);
	cmd->out.existed = true;
	if (cmd->walk.off_is_fine && !r->active && r->walk.state != ROLLOUT_SCHEDULED)
		return PREPARED;
	switch (walk_step(r, event, now_us, &is)) {
	case WALK_STAYS: return PREPARED;
	case WALK_REFUSED:
		walk_refusal(r, event, now_us, why, sizeof why);
		return prepare_fail(cmd, OTA_ECONFLICT, "%s", why);
	case WALK_STEPS: break;
	}
	cmd->out.existed = false;
	bool begins =
		!r->active && (rollout_state_offers(is.state) || is.state == ROLLOUT_SCHEDULED);
	if (begins && r->release->deleted)
		return prepare_fail(cmd, OTA_ECONFLICT,
				    "release %s was deleted; upload it again before activating %s",
				    r->release->version, r->name);
	if (event == ROLLOUT_ROLLBACK && takeback_error(c, r, why, sizeof why))
		return prepare_fail(cmd, OTA_ECONFLICT, "%s", why);
	cmd->out.state = is.state;
	cmd->out.stage = is.stage + 1;
	if (!rollout_step(c, cmd, r, &is, cmd->walk.reason) ||
	    (event == ROLLOUT_ROLLBACK && !takeback_make(c, cmd, r, cmd->walk.reason)))
		return prepare_fail_nomem(cmd);
	return PREPARED;
}
