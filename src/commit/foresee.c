/* SPDX-License-Identifier: MIT */
#include "commit/foresee.h"

#include "base/clock.h"
#include "commit/plan.h"
#include "core/runs.h"
#include "core/target.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* An update of a model that never had one. */
#define TAKE_DEFAULT_US (60 * US_PER_S)
#define TAKE_MAX_US     (INT64_C(86400) * US_PER_S)
/* So many attempts tell the pace; fewer than so many successes do not. */
#define HISTORY_MAX   500
#define HISTORY_LEAST 5
/* Releases whose attempts are looked at: the rollout's own, then the newest before. */
#define HISTORY_RELEASES 4

/* --- the pace, from the history --- */

struct history {
	int64_t release_id;
	int64_t takes_us[HISTORY_MAX];
	int64_t succeeded, failed;
};

static bool note_update(void *ctx, const struct row_update *row)
{
	struct history *h = ctx;
	const char *from = row->started_at ? row->started_at : row->opened_at;
	int64_t from_us, to_us;

	if (row->release_id != h->release_id || row->unsolicited || !row->completed_at)
		return true;
	if (strcmp(row->status, "failed") == 0 || strcmp(row->status, "rolled_back") == 0)
		h->failed++;
	if (strcmp(row->status, "success") != 0 || !from || !time_parse(from, &from_us) ||
	    !time_parse(row->completed_at, &to_us) || to_us < from_us ||
	    h->succeeded == HISTORY_MAX)
		return true;
	h->takes_us[h->succeeded++] = to_us - from_us;
	return true;
}

static int compare_us(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

/* Releases by what they are called: their structs are not held. */
struct looked_at {
	int count;
	int64_t ids[HISTORY_RELEASES];
	char versions[HISTORY_RELEASES][129];
};

static void choose(struct looked_at *l, const struct release *r)
{
	if (l->count == HISTORY_RELEASES)
		return;
	l->ids[l->count] = r->id;
	snprintf(l->versions[l->count++], sizeof l->versions[0], "%s", r->version);
}

static void choose_releases(const struct model *m, const struct release *own, struct looked_at *out)
{
	out->count = 0;
	choose(out, own);
	for (const struct release *r = m->releases; r; r = r->next)
		if (r != own)
			choose(out, r);
}

/* The newest release with enough attempts tells how they go. */
static enum ota_code read_history(struct committer *c, const struct looked_at *l,
				  struct foresight *f, struct ota_err *err)
{
	struct history *h = malloc(sizeof *h);
	enum ota_code rc = h ? OTA_OK : ota_fail_nomem(err);

	f->pace.take_us = TAKE_DEFAULT_US;
	f->pace.failure_share = f->rollout->guard.params.p0 / 4;
	for (int i = 0; rc == OTA_OK && i < l->count && !f->history; i++) {
		struct list_query q = {
			.version = l->versions[i], .active = -1, .limit = HISTORY_MAX};

		*h = (struct history){.release_id = l->ids[i]};
		rc = c->store->ops->list_updates(c->store, &q, note_update, h, err);
		if (rc != OTA_OK || h->succeeded < HISTORY_LEAST)
			continue;
		qsort(h->takes_us, (size_t)h->succeeded, sizeof h->takes_us[0], compare_us);
		f->history = h->succeeded + h->failed;
		f->pace.take_us = h->takes_us[h->succeeded / 2];
		f->pace.failure_share = (double)h->failed / (double)f->history;
	}
	if (f->pace.take_us < US_PER_S)
		f->pace.take_us = US_PER_S;
	if (f->pace.take_us > TAKE_MAX_US)
		f->pace.take_us = TAKE_MAX_US;
	free(h);
	return rc;
}

/* --- the devices --- */

/* The model as it will be: a copy of its rollouts, with this one in its last stage; one that is not
 * made stands where it will. */
struct model_copy {
	struct model model;
	struct rollout *rollouts, *own;
};

static bool model_with(struct model_copy *out, const struct model *m, const struct rollout *own)
{
	size_t n = 1, i = 0;

	for (const struct rollout *r = m->rollouts; r; r = r->next)
		n++;
	*out = (struct model_copy){.model = {.name = m->name,
					     .device_count = atomic_load(&m->device_count),
					     .chip = m->chip,
					     .releases = m->releases}};
	out->rollouts = calloc(n, sizeof *out->rollouts);
	if (!out->rollouts)
		return false;
	for (const struct rollout *r = m->rollouts; r; r = r->next) {
		if (!out->own && (own->id ? r->id == own->id : r->priority <= own->priority)) {
			out->own = &out->rollouts[i];
			rollout_copy(&out->rollouts[i++], own);
		}
		if (r->id != own->id)
			rollout_copy(&out->rollouts[i++], r);
	}
	if (!out->own) {
		out->own = &out->rollouts[i];
		rollout_copy(&out->rollouts[i++], own);
	}
	out->own->target.percent = own->stages[own->stage_count - 1].percent;
	for (n = i, i = 0; i < n; i++)
		out->rollouts[i].next = i + 1 < n ? &out->rollouts[i + 1] : NULL;
	out->model.rollouts = out->rollouts;
	return true;
}

struct visit {
	struct committer *c;
	struct rollout *rollout;
	struct reach *reach;
	bool walks;
};

static bool find_lowest(const struct device *d, void *ctx)
{
	struct visit *v = ctx;
	struct rollout *r = v->rollout;
	uint64_t bucket = target_bucket(d, r->release);

	if (bucket < r->lowest_hash && target_selects(r, d))
		r->lowest_hash = bucket;
	return true;
}

static enum reach_standing standing_of(struct visit *v, const struct device *d)
{
	const struct release *rel = v->rollout->release;
	const struct attempt *a = d->state.attempt;
	bool runs = runs_release(d, rel), trying = a && a->release_id == rel->id;

	switch (v->walks ? committer_gate_standing(v->c, v->rollout, d) : GATE_STANDING_NONE) {
	case GATE_STANDING_PROVEN: return runs ? REACH_DONE : REACH_NEW;
	case GATE_STANDING_NOT_PROVEN: return runs || trying ? REACH_TRIAL : REACH_LOST;
	case GATE_STANDING_NONE: break;
	}
	if (runs)
		return a ? REACH_TRIAL : REACH_DONE;
	return v->walks && trying ? REACH_TRIAL : REACH_NEW;
}

static bool count_device(const struct device *d, void *ctx)
{
	struct visit *v = ctx;

	reach_add(v->reach, d, target_selects(v->rollout, d) ? standing_of(v, d) : REACH_NEW);
	return true;
}

/* A part of the fleet, with the plan as it is by now; nothing where it knows no model. */
static bool count_part(struct visit *v, struct foresight *f, int shard)
{
	struct fleet *fleet = v->c->fleet;
	const struct rollout *own = v->walks ? fleet_rollout(fleet, f->copy.id) : f->made;
	const struct model *m = own ? fleet_model(fleet, own->release->model) : NULL;
	struct model_copy copy;

	if (!m)
		return true;
	if (!model_with(&copy, m, own))
		return false;
	v->rollout = copy.own;
	f->reach.rollout = copy.own;
	f->reach.model = &copy.model;
	fleet_visit(fleet, shard, shard + 1, count_device, v);
	free(copy.rollouts);
	return !f->reach.out_of_memory;
}

/* Without the plan, which is held for a part at a time: others wait for that at the most. */
static enum ota_code count(struct committer *c, bool walks, struct foresight *f,
			   struct ota_err *err)
{
	struct decide_params p = committer_decide_params(c);
	struct visit v = {.c = c, .reach = &f->reach, .walks = walks};
	bool ok = true;

	p.now_us = f->now_us;
	if (!reach_init(&f->reach, f->rollout, NULL, &p, c->cfg.poll_interval_s * US_PER_S))
		return ota_fail_nomem(err);
	for (int shard = 0; shard < FLEET_SHARDS && ok; shard++) {
		fleet_plan_read(c->fleet);
		ok = count_part(&v, f, shard);
		fleet_plan_done(c->fleet);
	}
	f->reach.rollout = f->rollout;
	f->reach.model = NULL;
	return ok ? OTA_OK : ota_fail_nomem(err);
}

struct reach_stage foresight_sum(const struct foresight *f)
{
	struct reach_stage sum = {0};

	for (int i = 0; i < f->rollout->stage_count; i++) {
		const struct reach_stage *s = &f->reach.stages[i];

		sum.devices += s->devices;
		sum.seen += s->seen;
		sum.done += s->done;
		sum.trial += s->trial;
		sum.to_update += s->to_update;
		sum.reachable += s->reachable;
	}
	return sum;
}

/* --- one that is not made --- */

static void warn(struct foresight *f, const char *fmt, ...) OTA_PRINTF(2, 3);

static void warn(struct foresight *f, const char *fmt, ...)
{
	va_list ap;

	if (f->warning_count == FORESIGHT_WARNINGS)
		return;
	va_start(ap, fmt);
	vsnprintf(f->warnings[f->warning_count++], FORESIGHT_SENTENCE, fmt, ap);
	va_end(ap);
}

/* What rollout/create would refuse, but a person may see to. */
static void warn_of_refusals(struct committer *c, const struct rollout_new *n, struct foresight *f)
{
	const struct rollout *r = f->made, *have = fleet_rollout_named(c->fleet, n->name);
	const struct model *m = fleet_model(c->fleet, n->model);
	char since[TIME_TEXT_SIZE];

	if (r->release->suspect_us && !n->override_suspect) {
		time_format(r->release->suspect_us, since);
		warn(f,
		     "release %s was found bad at %.19sZ and is suspect: it is rolled out only "
		     "with "
		     "override_suspect and a reason",
		     n->version, since);
	}
	if (have)
		warn(f,
		     "a rollout called %.100s is here already (%lld): this one is planned beside "
		     "it",
		     have->name, (long long)have->id);
	for (const struct rollout *o = m->rollouts; o && r->guard.given; o = o->next) {
		if (o->release != r->release || o->guard.off || o->target.type == TARGET_SPECIFIC ||
		    gate_params_equal(&o->guard.params, &r->guard.params) ||
		    r->release->suspect_us || r->target.type == TARGET_SPECIFIC)
			continue;
		warn(f,
		     "rollout %.100s has the release watched by other parameters: leave guard out, "
		     "or give the same",
		     o->name);
		break;
	}
	if (fleet_is_stopped(c->fleet))
		warn(f, "everything is stopped: nothing is offered until that is taken back");
}

struct bounds {
	struct gate gate;
	bool ok;
};

static void copy_bounds(void *ctx, const struct gate *g)
{
	struct bounds *b = ctx;

	b->ok = gate_copy_bounds(&b->gate, g);
}

/* What the gate that watches R allows by now.  False: out of memory. */
static bool read_bounds(struct committer *c, const struct rollout *r, struct bounds *b)
{
	gate_init(&b->gate, &r->guard.params);
	b->ok = true;
	if (r->id || r->target.type != TARGET_SPECIFIC)
		committer_gate(c, r, copy_bounds, b);
	return b->ok;
}

/* Unless its creator says otherwise it is watched as another rollout of the release is. */
static void adopt_params(struct rollout *made, const struct model *m)
{
	for (const struct rollout *o = m->rollouts; o && !made->guard.given; o = o->next)
		if (o->release == made->release && !o->guard.off &&
		    o->target.type != TARGET_SPECIFIC && made->target.type != TARGET_SPECIFIC)
			made->guard.params = o->guard.params;
}

/* With the plan held. */
static enum ota_code look_at_plan(struct committer *c, const struct rollout_new *n,
				  struct foresight *f, struct looked_at *l, struct bounds *b,
				  struct ota_err *err)
{
	const struct model *m = fleet_model(c->fleet, n->model);
	const struct release *rel = m ? fleet_release_of(m, n->version) : NULL;

	if (!rel || rel->deleted)
		return ota_fail(err, OTA_ENOTFOUND,
				"there is no release %s for model %s; upload it first", n->version,
				n->model);
	f->made = rollout_make(n, rel, f->now_us);
	if (!f->made)
		return ota_fail_nomem(err);
	f->rollout = f->made;
	f->begins_us = n->not_before_us > f->now_us ? n->not_before_us : f->now_us;
	const char *wrong = rollout_never_offers(f->made, f->now_us);
	if (wrong)
		return ota_fail(err, OTA_EUNPROCESSABLE, "%s", wrong);
	warn_of_refusals(c, n, f);
	choose_releases(m, rel, l);
	f->made->active = true; /* what a draft would do, too */
	adopt_params(f->made, m);
	return read_bounds(c, f->made, b) ? OTA_OK : ota_fail_nomem(err);
}

/* Whom it reaches; the plan is not held. */
static enum ota_code look_at_devices(struct committer *c, struct foresight *f, struct ota_err *err)
{
	struct visit v = {.rollout = f->made};

	fleet_visit(c->fleet, 0, FLEET_SHARDS, find_lowest, &v);
	return count(c, false, f, err);
}

static void begin_look(struct foresight *f, const struct foresee_limits *limits)
{
	memset(f, 0, sizeof *f);
	f->now_us = clock_service_us();
	f->pace.max_downloads = limits->max_downloads;
	f->pace.tell_per_s = limits->tell_per_s;
	f->pace.bytes_per_s = limits->bytes_per_s;
}

static void warn_of_devices(struct foresight *f)
{
	const struct rollout *r = f->rollout;
	struct reach_stage sum = foresight_sum(f);
	int64_t below = f->reach.refused[REASON_BELOW_REQUIRED] +
			f->reach.refused[REASON_BELOW_MIN_VERSION];
	int64_t others = f->reach.refused[REASON_NEWER_ROLLOUT_WINS];

	if (!f->reach.selected)
		warn(f, "it selects no device that is known");
	else if (!sum.to_update && !sum.done)
		warn(f, "nobody would be offered it: see refused");
	else if (!sum.to_update)
		warn(f, "nobody would be offered it: %lld devices run it already",
		     (long long)sum.done);
	if (sum.to_update > sum.reachable)
		warn(f,
		     "%lld of the %lld devices to update have not been heard of within a day, or "
		     "two "
		     "of their own intervals",
		     (long long)(sum.to_update - sum.reachable), (long long)sum.to_update);
	if (below)
		warn(f,
		     "%lld devices run less than it needs (%s): %lld of them are taken there by "
		     "another rollout first, the others wait for a stepping stone",
		     (long long)below, r->requires[0] ? r->requires : r->release->min_version,
		     (long long)f->reach.stones);
	if (others)
		warn(f, "another rollout, newer or of a higher priority, decides for %lld devices",
		     (long long)others);
}

/* The longest time for which it is open at a stretch. */
static int64_t longest_open_s(const struct window *w)
{
	int64_t longest = 0;

	for (int i = 0; i < w->span_count; i++)
		if (w->spans[i].to_s - w->spans[i].from_s > longest)
			longest = w->spans[i].to_s - w->spans[i].from_s;
	return longest;
}

static void warn_of_window(struct foresight *f)
{
	const struct window *w = f->rollout->window;
	int64_t open_s = w ? longest_open_s(w) : 0, reachable = foresight_sum(f).reachable;
	int64_t rare = w ? reach_slower_than(&f->reach, open_s * US_PER_S) : 0;
	char open[32];

	if (!rare)
		return;
	duration_text(open_s, open, sizeof open);
	warn(f,
	     "the window is open for %s at a time, and %lld of %lld devices are heard of less "
	     "often "
	     "than that: they meet it only if they do as retry_after_s tells them",
	     open, (long long)rare, (long long)reachable);
}

static void warn_of_stages(struct foresight *f)
{
	const struct rollout *r = f->rollout;
	int64_t ends_us = f->forecast.stages[r->stage_count - 1].ends_us[FORECAST_LIKELY];
	int approvals = 0;

	for (int i = 0; i < r->stage_count; i++) {
		const struct forecast_stage *s = &f->forecast.stages[i];

		approvals += r->stages[i].approve;
		if (s->needed > s->can)
			warn(f,
			     "stage %d (%d %%) does not end by itself: %lld devices must prove the "
			     "release, and %lld can",
			     i + 1, r->stages[i].percent, (long long)s->needed, (long long)s->can);
	}
	if (approvals)
		warn(f, "%d of its stages wait%s for somebody's approval: that time is not counted",
		     approvals, approvals == 1 ? "s" : "");
	if (r->deadline_us && ends_us > r->deadline_us)
		warn(f, "it is not likely to be through at its deadline, when it pauses");
	if (r->guard.off)
		warn(f, "nothing watches it: a bad release is not halted");
	else if (!r->guard.bounded && foresight_sum(f).reachable > 10 &&
		 r->target.type != TARGET_SPECIFIC)
		warn(f,
		     "without stages nothing bounds how many devices meet the release at a time");
}

enum ota_code foresee_plan(struct committer *c, const struct rollout_new *n,
			   const struct foresee_limits *limits, struct foresight *out,
			   struct ota_err *err)
{
	struct forecast_start from = {0};
	struct bounds b = {0};
	struct looked_at l;

	begin_look(out, limits);
	fleet_plan_read(c->fleet);
	enum ota_code rc = look_at_plan(c, n, out, &l, &b, err);
	fleet_plan_done(c->fleet);
	if (rc == OTA_OK)
		rc = look_at_devices(c, out, err);
	if (rc == OTA_OK)
		rc = read_history(c, &l, out, err);
	from.at_us = out->begins_us;
	from.gate = &b.gate;
	if (rc == OTA_OK &&
	    forecast_run(&out->reach, out->rollout, &from, &out->pace, &out->forecast) != OTA_OK)
		rc = ota_fail_nomem(err);
	gate_fini(&b.gate);
	if (rc != OTA_OK)
		return rc;
	warn_of_devices(out);
	warn_of_window(out);
	warn_of_stages(out);
	return OTA_OK;
}

/* --- one that walks --- */

/* With the plan held.  Rollouts and releases are never freed while the service runs, and their
 * stages and windows never change: the copy may be used when it is not. */
static enum ota_code look_at_rollout(struct committer *c, int64_t id, struct foresight *f,
				     struct looked_at *l, struct bounds *b, bool *known,
				     struct ota_err *err)
{
	const struct rollout *r = fleet_rollout(c->fleet, id);

	*known = r && !fleet_is_stopped(c->fleet) &&
		 (r->walk.state == ROLLOUT_RUNNING || r->walk.state == ROLLOUT_SCHEDULED);
	if (!*known)
		return OTA_OK;
	const struct model *m = fleet_model(c->fleet, r->release->model);
	rollout_copy(&f->copy, r);
	f->rollout = &f->copy;
	if (!read_bounds(c, r, b))
		return ota_fail_nomem(err);
	choose_releases(m, r->release, l);
	f->begins_us = r->walk.state == ROLLOUT_SCHEDULED && r->not_before_us > f->now_us
			       ? r->not_before_us
			       : f->now_us;
	return OTA_OK;
}

enum ota_code foresee_rollout(struct committer *c, int64_t id, const struct foresee_limits *limits,
			      struct foresight *out, bool *known, struct ota_err *err)
{
	struct forecast_start from = {0};
	struct bounds b = {0};
	struct looked_at l;

	begin_look(out, limits);
	fleet_plan_read(c->fleet);
	enum ota_code rc = look_at_rollout(c, id, out, &l, &b, known, err);
	fleet_plan_done(c->fleet);
	if (rc == OTA_OK && *known)
		rc = count(c, true, out, err);
	if (rc == OTA_OK && *known)
		rc = read_history(c, &l, out, err);
	if (rc == OTA_OK && *known) {
		bool runs = out->rollout->walk.state == ROLLOUT_RUNNING;

		from.at_us = out->begins_us;
		from.stage = out->rollout->walk.stage;
		from.stage_until_us = runs ? stage_until_us(out->rollout) : 0;
		from.gate = &b.gate;
		if (forecast_run(&out->reach, out->rollout, &from, &out->pace, &out->forecast) !=
		    OTA_OK)
			rc = ota_fail_nomem(err);
	}
	gate_fini(&b.gate);
	return rc;
}

void foresight_fini(struct foresight *f)
{
	reach_fini(&f->reach);
	rollout_free(&f->made);
}
