/* SPDX-License-Identifier: MIT */
/* Rollouts: listed and shown. */
#include "http/request.h"

#include "base/clock.h"
#include "commit/guard.h"
#include "commit/progress.h"

#include <stdlib.h>
#include <string.h>

static void add_stage(struct buf *b, const struct row_rollout *row)
{
	json_t *stages = json_loads(row->stages, 0, NULL);

	json_open(b, "stage", '{');
	json_int(b, "index", row->stage);
	json_int(b, "of", (int64_t)json_array_size(stages));
	json_int(b, "percent", row->percent);
	json_str(b, "since", row->stage_since);
	json_bool(b, "approved", row->approved);
	json_close(b, '}');
	json_decref(stages);
}

/* What its row keeps of how it is watched, and of what is taken back. */
static void add_guard(struct buf *b, const struct row_rollout *row)
{
	json_t *meta = json_loads(row->metadata, 0, NULL);
	const char *on_halt = json_string_value(json_object_get(meta, "on_halt"));
	const json_t *back = json_object_get(meta, "rolls_back");
	struct guard g = guard_read(meta);

	guard_write(b, &g);
	json_str(b, "on_halt", on_halt ? on_halt : "keep");
	if (json_is_object(back)) {
		json_open(b, "rolls_back", '{');
		json_int(b, "rollout_id", json_integer_value(json_object_get(back, "rollout_id")));
		json_str(b, "firmware_version",
			 json_string_value(json_object_get(back, "firmware_version")));
		json_close(b, '}');
	} else {
		json_nil(b, "rolls_back");
	}
	json_decref(meta);
}

static void add_fields(struct buf *b, const struct row_rollout *row)
{
	json_int(b, "id", row->id);
	json_str(b, "name", row->name);
	json_str(b, "firmware_version", row->firmware_version);
	json_str(b, "device_model", row->device_model);
	json_int(b, "release_id", row->release_id);
	json_str(b, "target_type", row->target_type);
	json_raw(b, "target_filter", row->target_filter);
	json_int(b, "rollout_percentage", row->percent);
	json_bool(b, "is_active", row->active);
	json_bool(b, "allow_downgrade", row->allow_downgrade);
	json_int(b, "max_attempts", row->max_attempts);
	json_int(b, "max_parallel", row->max_parallel);
	json_str(b, "state", row->state);
	json_str(b, "reason", row->state_reason);
	json_str(b, "since", row->state_since);
	json_raw(b, "stages", row->stages);
	add_stage(b, row);
	json_str(b, "not_before", row->not_before);
	json_str(b, "deadline", row->deadline);
	json_int(b, "priority", row->priority);
	json_str(b, "requires", row->requires);
	json_str(b, "window", row->window);
	add_guard(b, row);
	json_str(b, "created_at", row->created_at);
	json_str(b, "updated_at", row->updated_at);
	json_str(b, "created_by", row->created_by);
}

static bool add_rollout(void *ctx, const struct row_rollout *row)
{
	struct page *p = ctx;

	if (!page_takes(p, row->id))
		return false;
	json_open(p->b, NULL, '{');
	add_fields(p->b, row);
	json_close(p->b, '}');
	return true;
}

static void query_rollouts(struct request *r)
{
	struct list_query *q = r->memory;
	struct page p = {.b = respond_begin(r, 200), .limit = q->limit++};

	json_open(p.b, "rollouts", '[');
	r->job_code = r->server->store->ops->list_rollouts(r->server->store, q, add_rollout, &p,
							   &r->job_err);
	json_close(p.b, ']');
	respond_cursor(r, p.count > p.limit, p.last_id);
	respond_end(r);
}

enum next rollouts_list(struct request *r)
{
	struct list_query *q = request_list(r);
	bool active;

	if (!q)
		return NEXT_ANSWER;
	q->device_model = request_name_filter(r, "device_model");
	q->version = request_name_filter(r, "firmware_version");
	if (field_query_bool(&r->errors, &r->query, "active", false, &active))
		q->active = active;
	if (field_errors_any(&r->errors))
		return respond_fields(r);
	return request_job(r, query_rollouts, request_list_done);
}

/* The stage goes on outside its window, but nobody is offered anything. */
static void say_window(const struct rollout *r, int64_t now_us, char *out, size_t size)
{
	size_t used = strlen(out);
	char when[160];

	if (!r->active || !r->window || window_is_open(r->window, now_us))
		return;
	window_sentence(r->window, now_us, when, sizeof when);
	snprintf(out + used, size - used, " Its window %s.", when);
}

/* That of the group which it is for. */
static void say_group_window(const struct group_windows *all, const struct rollout *r,
			     int64_t now_us, char *out, size_t size)
{
	size_t used = strlen(out);
	char when[160];

	for (const struct group_window *g = r->active ? all->first : NULL; g; g = g->next) {
		if (strcmp(g->group, r->target.group) != 0 || window_is_open(g->window, now_us))
			continue;
		window_sentence(g->window, now_us, when, sizeof when);
		snprintf(out + used, size - used, " The window of group %s %s.", g->group, when);
	}
}

static void say_takebacks(const struct model *m, const struct rollout *r, char *out, size_t size)
{
	for (const struct rollout *t = m ? m->rollouts : NULL; t; t = t->next) {
		size_t used = strlen(out);
		if (t->back.rollout_id == r->id && t->walk.state != ROLLOUT_ABORTED)
			snprintf(out + used, size - used,
				 " Rollout %lld brings its devices back to %s.", (long long)t->id,
				 t->release->version);
	}
}

/* What it waits for, for programs and for people. */
static void add_next(struct fleet *f, struct buf *b, const struct rollout *r,
		     const struct walk_next *n, int64_t now_us)
{
	char text[600];

	json_open(b, "next", '{');
	json_str(b, "waits_for", walk_wait_name(n->wait));
	json_str(b, "then", n->event == ROLLOUT_EVENTS ? NULL : rollout_event_name(n->event));
	if (n->until_us) {
		char until[TIME_TEXT_SIZE];
		time_format(n->until_us, until);
		json_str(b, "until", until);
	} else {
		json_nil(b, "until");
	}
	walk_sentence(r, n, text, sizeof text);
	say_window(r, now_us, text, sizeof text);
	say_group_window(fleet_group_windows(f), r, now_us, text, sizeof text);
	say_takebacks(fleet_model(f, r->release->model), r, text, sizeof text);
	json_str(b, "sentence", text);
	json_close(b, '}');
}

/* The rollouts that take back what it gave. */
static void add_takebacks(struct request *r, struct buf *b, const struct rollout *o)
{
	const struct model *m = fleet_model(r->server->fleet, o->release->model);

	json_open(b, "rolled_back_by", '[');
	for (const struct rollout *t = m ? m->rollouts : NULL; t; t = t->next)
		if (t->back.rollout_id == o->id)
			json_int(b, NULL, t->id);
	json_close(b, ']');
}

/* Whom the stage reaches, and how they do. */
static void add_progress(struct request *r, struct buf *b, int64_t id)
{
	struct fleet *f = r->server->fleet;
	struct progress p = {0};

	rollout_count(r, id, &p);
	fleet_plan_read(f);
	const struct rollout *o = fleet_rollout(f, id);
	if (o) {
		/* As it is kept, if it is; else as it was counted. */
		(void)progress_known(r->server->committer, o, clock_service_us(), &p);
		struct walk_next n = walk_judge(o, &p.facts);
		add_takebacks(r, b, o);
		json_int(b, "targeted", p.facts.devices);
		json_int(b, "on_version", p.on_version);
		json_open(b, "progress", '{');
		json_int(b, "seen", p.facts.seen);
		json_int(b, "proven", p.facts.proven);
		json_int(b, "needed", stage_need(&o->stages[o->walk.stage], &p.facts));
		json_close(b, '}');
		add_next(f, b, o, &n, p.facts.now_us);
		if (o->window)
			add_window_now(b, o->window, p.facts.now_us);
		rollout_add_gate(r, b, o);
	}
	fleet_plan_done(f);
}

static void add_counts(struct request *r, struct buf *b, int64_t id)
{
	struct attempt_counts counts;

	r->job_code =
		r->server->store->ops->rollout_counts(r->server->store, id, &counts, &r->job_err);
	if (r->job_code != OTA_OK)
		return;
	json_open(b, "counts", '{');
	for (int s = 0; s < ATTEMPT_STATES; s++)
		json_int(b, attempt_state_name((enum attempt_state)s), counts.by_state[s]);
	json_close(b, '}');
	add_progress(r, b, id);
	rollout_add_eta(r, b, id);
}

static bool add_one(void *ctx, const struct row_rollout *row)
{
	struct page *p = ctx;

	add_fields(p->b, row);
	p->count++;
	return false;
}

static void query_rollout(struct request *r)
{
	struct list_query *q = r->memory;
	struct page p = {.b = respond_begin(r, 200)};

	r->job_code =
		r->server->store->ops->list_rollouts(r->server->store, q, add_one, &p, &r->job_err);
	if (r->job_code == OTA_OK && p.count == 0)
		r->job_code = ota_fail(&r->job_err, OTA_ENOTFOUND, "no rollout has the id %lld",
				       (long long)q->rollout_id);
	if (r->job_code != OTA_OK)
		return;
	add_counts(r, p.b, q->rollout_id);
	respond_end(r);
}

enum next rollout_show(struct request *r)
{
	struct list_query *q;
	int64_t id;

	if (!request_rollout_id(r, &id) || !(q = request_list(r)))
		return NEXT_ANSWER;
	q->rollout_id = id;
	q->limit = 1;
	return request_job(r, query_rollout, request_list_done);
}
