/* SPDX-License-Identifier: MIT */
#include "commit/takeback.h"

#include "commit/gates.h"
#include "core/names.h"
#include "core/target.h"
#include "core/version.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* So many releases that devices ran before are gone back to, those of most devices; the devices of
 * others go back with the rest. */
#define BEFORE_MAX 8
/* So many are told apart. */
#define TOLD_APART 64
/* Of the name of what is taken back, in bytes. */
#define NAME_CUT 120

/* --- what devices ran before --- */

struct before {
	const struct release *release;
	size_t devices;
};

struct survey {
	const struct rollout *rollout;
	const struct model *model;
	struct before before[TOLD_APART];
	size_t count;
};

/* Some rollout takes it back: devices would go to and fro. */
static bool is_unwanted(const struct model *m, const struct release *r)
{
	for (const struct rollout *o = m->rollouts; o; o = o->next)
		if (o->back.from == r && o->walk.state != ROLLOUT_ABORTED)
			return true;
	return false;
}

/* Whether devices that have BAD may be given R. */
static bool is_usable(const struct model *m, const struct release *r, const struct release *bad)
{
	return r && r != bad && !r->deleted && !r->suspect_us &&
	       r->secure_version >= bad->secure_version && !is_unwanted(m, r);
}

static void note_before(struct survey *s, const char *version)
{
	const struct release *r = version[0] ? find_release(s->model, version) : NULL;
	size_t i = 0;

	if (!is_usable(s->model, r, s->rollout->release))
		return;
	while (i < s->count && s->before[i].release != r)
		i++;
	if (i == TOLD_APART)
		return;
	if (i == s->count)
		s->before[s->count++] = (struct before){.release = r};
	s->before[i].devices++;
}

/* It has the release, or is about to. */
static bool survey_device(const struct device *d, void *ctx)
{
	struct survey *s = ctx;
	const struct release *bad = s->rollout->release;
	const struct attempt *a = d->state.attempt;

	if (!target_selects(s->rollout, d))
		return true;
	if (a && a->release_id == bad->id && a->state != ATTEMPT_PENDING)
		note_before(s, a->from_version);
	else if (d->state.ran_release_id == bad->id)
		note_before(s, d->state.ran_from);
	return true;
}

static int by_devices(const void *a, const void *b)
{
	const struct before *x = a, *y = b;

	if (x->devices != y->devices)
		return x->devices < y->devices ? 1 : -1;
	return (x->release->id < y->release->id) - (x->release->id > y->release->id);
}

/* --- the release before --- */

static bool has_begun(const struct rollout *r)
{
	return r->walk.stage_since_us != 0;
}

/* That of the newest rollout before; else the upload before; NULL: there is none. */
static const struct release *release_before(const struct model *m, const struct rollout *r)
{
	const struct rollout *newest = NULL;
	const struct release *bad = r->release;

	for (const struct rollout *o = m->rollouts; o; o = o->next)
		if (o->id < r->id && (!newest || o->id > newest->id) && has_begun(o) &&
		    o->target.type != TARGET_SPECIFIC && is_usable(m, o->release, bad))
			newest = o;
	if (newest)
		return newest->release;
	for (const struct release *o = m->releases; o; o = o->next)
		if (o->id < bad->id && is_usable(m, o, bad))
			return o;
	return NULL;
}

/* Where devices go back to; the first is for all others too.  How many; 0: there is nothing. */
static size_t survey(struct committer *c, const struct rollout *r, struct survey *s)
{
	const struct release *rest;
	size_t at = 0;

	*s = (struct survey){.rollout = r, .model = fleet_model(c->fleet, r->release->model)};
	fleet_visit(c->fleet, 0, FLEET_SHARDS, survey_device, s);
	if (s->count > 1)
		qsort(s->before, s->count, sizeof s->before[0], by_devices);
	if (s->count > BEFORE_MAX)
		s->count = BEFORE_MAX;
	rest = release_before(s->model, r);
	if (!rest)
		return s->count;
	while (at < s->count && s->before[at].release != rest)
		at++;
	if (at == s->count && s->count < BEFORE_MAX)
		s->count++;
	if (at == s->count)
		at--;
	memmove(s->before + 1, s->before, at * sizeof s->before[0]);
	s->before[0] = (struct before){.release = rest};
	return s->count;
}

bool takeback_error(struct committer *c, const struct rollout *r, char *why, size_t size)
{
	const struct model *m = fleet_model(c->fleet, r->release->model);
	struct survey s;

	if (r->back.from) {
		snprintf(why, size,
			 "rollout %s takes a release back itself: make a rollout of what its "
			 "devices shall run",
			 r->name);
		return true;
	}
	for (const struct rollout *o = m->rollouts; o; o = o->next)
		if (o->back.rollout_id == r->id && o->walk.state != ROLLOUT_ABORTED &&
		    o->walk.state != ROLLOUT_HALTED) {
			snprintf(why, size, "rollout %s (%lld) takes back already what %s gave",
				 o->name, (long long)o->id, r->name);
			return true;
		}
	if (survey(c, r, &s) > 0)
		return false;
	snprintf(why, size,
		 "there is no release of model %s to go back to: all others are deleted, suspect, "
		 "taken back, later, or of a lower secure_version",
		 m->name);
	return true;
}

/* --- the rollouts --- */

static void name_it(struct committer *c, const struct rollout *r, const struct release *to,
		    char *out, size_t size)
{
	char id[24] = "";
	size_t n = strlen(r->name);

	if (n > NAME_CUT) {
		for (n = NAME_CUT; n > 0 && ((unsigned char)r->name[n] & 0xC0) == 0x80;)
			n--;
		/* Another that is halted in the same breath may begin like it. */
		snprintf(id, sizeof id, "-%lld", (long long)r->id);
	}
	snprintf(out, size, "%.*s%s-back-to-%s", (int)n, r->name, id, to->version);
	for (int i = 2; fleet_rollout_named(c->fleet, out); i++)
		snprintf(out, size, "%.*s%s-back-to-%s-%d", (int)n, r->name, id, to->version, i);
}

/* The same devices, hours and pace; all at once as far as its gate lets them. */
static struct rollout *make_one(struct committer *c, const struct rollout *r,
				const struct release *to, const char *reason)
{
	static const struct stage all = {.percent = 100, .min_proven = STAGE_MIN_PROVEN_AUTO};
	char name[NAME_CUT + NAME_MAX_LEN + 64];
	struct rollout_new n = {
		.name = name,
		.version = to->version,
		.model = to->model,
		.group = r->target.group,
		.type = r->target.type,
		.max_attempts = r->max_attempts,
		.active = true,
		.allow_downgrade = true,
		.max_parallel = r->max_parallel,
		.priority = r->priority,
		.window = r->window,
		.stages = &all,
		.stage_count = 1,
		.reason = reason,
		.guard = r->guard,
		.macs = r->target.macs,
		.mac_count = r->target.mac_count,
	};

	name_it(c, r, to, name, sizeof name);
	if (r->target.device_ids) {
		n.device_ids = r->target.device_ids->items;
		n.device_id_count = r->target.device_ids->count;
	}
	if (n.guard.off)
		n.guard = (struct guard){.params = gate_params_default()};
	n.guard.bounded = true;
	struct rollout *made = rollout_make(&n, to, c->batch.now_us);
	if (made) {
		made->id = c->store->ops->next_id(c->store, ID_ROLLOUT);
		made->back.rollout_id = r->id;
		made->back.from = r->release;
	}
	return made;
}

static bool fill_rest(struct rollout *made, const struct survey *s)
{
	const char *others[BEFORE_MAX];

	made->back.rest = true;
	for (size_t i = 1; i < s->count; i++)
		others[i - 1] = s->before[i].release->version;
	return s->count < 2 || (made->back.others = string_list_new(others, s->count - 1));
}

static bool add_event(struct committer *c, const struct rollout *r, const struct survey *s,
		      const int64_t *ids, const char *reason)
{
	struct buf b = BUF_INIT;

	json_open(&b, NULL, '{');
	json_open(&b, "rollouts", '[');
	for (size_t i = 0; i < s->count; i++)
		json_int(&b, NULL, ids[i]);
	json_close(&b, ']');
	json_open(&b, "versions", '[');
	for (size_t i = 0; i < s->count; i++)
		json_str(&b, NULL, s->before[i].release->version);
	json_close(&b, ']');
	if (s->count == 0)
		json_str(&b, "detail", "there is no release to go back to");
	if (reason)
		json_str(&b, "reason", reason);
	json_close(&b, '}');
	const char *data = batch_json(c, &b);
	return data &&
	       batch_event(&c->batch, "rollout_taken_back", NULL, r->release->version, r->id, data);
}

bool takeback_make(struct committer *c, struct command *cmd, const struct rollout *r,
		   const char *reason)
{
	struct model *m = (struct model *)(uintptr_t)fleet_model(c->fleet, r->release->model);
	int64_t ids[BEFORE_MAX];
	struct survey s;

	survey(c, r, &s);
	for (size_t i = 0; i < s.count; i++) {
		struct rollout *made = make_one(c, r, s.before[i].release, reason);
		if (!made)
			return false;
		if (i == 0 && !fill_rest(made, &s)) {
			rollout_free(&made);
			return false;
		}
		ids[i] = made->id;
		if (!rollout_add(c, cmd, m, made, c->batch.by ? c->batch.by : "api", reason) ||
		    !gates_note_stage(c, made, 0))
			return false;
	}
	cmd->out.back_id = s.count ? ids[0] : 0;
	return add_event(c, r, &s, ids, reason);
}

/* --- rows --- */

void takeback_write(struct buf *b, const struct rollout *r)
{
	const struct takeback *t = &r->back;

	json_str(b, "on_halt", r->rolls_back ? "rollback" : "keep");
	if (!t->rollout_id) {
		json_nil(b, "rolls_back");
		return;
	}
	json_open(b, "rolls_back", '{');
	json_int(b, "rollout_id", t->rollout_id);
	json_int(b, "release_id", t->from->id);
	json_str(b, "firmware_version", t->from->version);
	json_bool(b, "rest", t->rest);
	json_open(b, "others", '[');
	for (size_t i = 0; t->others && i < t->others->count; i++)
		json_str(b, NULL, t->others->items[i]);
	json_close(b, ']');
	json_close(b, '}');
}

bool takeback_read(const json_t *metadata, struct fleet *f, struct rollout *r)
{
	const json_t *on_halt = json_object_get(metadata, "on_halt");
	const json_t *o = json_object_get(metadata, "rolls_back");
	const json_t *others = json_object_get(o, "others");
	const char *names[BEFORE_MAX];
	size_t n = 0;

	r->rolls_back =
		json_is_string(on_halt) && strcmp(json_string_value(on_halt), "rollback") == 0;
	if (!json_is_object(o))
		return true;
	r->back.rollout_id = json_integer_value(json_object_get(o, "rollout_id"));
	r->back.from = fleet_release(f, json_integer_value(json_object_get(o, "release_id")));
	r->back.rest = json_is_true(json_object_get(o, "rest"));
	for (size_t i = 0; i < json_array_size(others) && n < BEFORE_MAX; i++)
		if (json_is_string(json_array_get(others, i)))
			names[n++] = json_string_value(json_array_get(others, i));
	return r->back.from && (n == 0 || (r->back.others = string_list_new(names, n)));
}
