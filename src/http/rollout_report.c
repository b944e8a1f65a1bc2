/* SPDX-License-Identifier: MIT */
/*
 * Rollouts: what one did.  On a job thread; attempts and events are read a page at a time.  Each
 * device is in one state at a time: its attempts come newest first, and one ends where the next
 * begins.  Memory: 16 bytes for each device that was offered it, DEVICES_MOST of them.
 */
#include "http/report.h"
#include "http/request.h"

#include "base/clock.h"
#include "base/hash.h"
#include "commit/history.h"
#include "core/reach.h"
#include "core/runs.h"
#include "core/target.h"

#include <stdlib.h>
#include <string.h>

#define ATTEMPTS_PAGE 1000
#define DEVICES_MOST  (1u << 21)

enum format { FORMAT_JSON, FORMAT_MARKDOWN, FORMAT_SVG, FORMATS };

static const struct {
	const char *word, *type, *content_type;
} formats[FORMATS] = {
	[FORMAT_JSON] = {"json", "application/json", "application/json"},
	[FORMAT_MARKDOWN] = {"markdown", "text/markdown", "text/markdown; charset=utf-8"},
	[FORMAT_SVG] = {"svg", "image/svg+xml", "image/svg+xml"},
};

/* When the device's next attempt was opened, by the hash of its name. */
struct later {
	uint64_t hash; /* 0: free */
	int64_t opened_us;
};

struct gather {
	struct account report;
	enum format format;
	struct http_server *server;
	int64_t release_id;
	struct later *later;
	uint32_t later_cap, later_count;
	/* attempts */
	int64_t last_id, row_count;
	bool out_of_memory;
	/* the gate */
	struct history history;
	struct gate gate;
	int64_t change[REPORT_STEPS + 1][REPORT_SERIES];
	int64_t proven[REPORT_STEPS];
};

static void release_gather(struct request *r)
{
	struct gather *g = r->memory;

	free(g->later);
	gate_fini(&g->gate);
}

static void copy_text(char *out, size_t size, const char *text)
{
	snprintf(out, size, "%s", text ? text : "");
	/* No half of a character at the end. */
	while (out[0] && !utf8_valid(out, strlen(out)) && strlen(out) + 1 == size)
		out[--size - 1] = '\0';
}

static int64_t time_of(const char *text)
{
	int64_t us;

	return text && time_parse(text, &us) ? us : 0;
}

/* --- the row, and the fleet --- */

static void describe_target(const struct row_rollout *row, char *out, size_t size)
{
	json_t *filter = json_loads(row->target_filter ? row->target_filter : "{}", 0, NULL);
	const char *group = json_string_value(json_object_get(filter, "group"));
	size_t named = json_array_size(json_object_get(filter, "device_ids")) +
		       json_array_size(json_object_get(filter, "mac_addresses"));

	if (strcmp(row->target_type, "specific") == 0)
		snprintf(out, size, "%zu named devices", named);
	else if (group)
		snprintf(out, size, "group %s", group);
	else
		snprintf(out, size, "all devices of the model");
	json_decref(filter);
}

static bool take_row(void *ctx, const struct row_rollout *row)
{
	struct gather *g = ctx;
	struct account *r = &g->report;
	json_t *stages = json_loads(row->stages, 0, NULL);

	g->row_count++;
	g->release_id = row->release_id;
	r->id = row->id;
	copy_text(r->name, sizeof r->name, row->name);
	copy_text(r->version, sizeof r->version, row->firmware_version);
	copy_text(r->model, sizeof r->model, row->device_model);
	copy_text(r->reason, sizeof r->reason, row->state_reason);
	describe_target(row, r->target, sizeof r->target);
	r->state = rollout_state_from_name(row->state);
	r->created_us = time_of(row->created_at);
	r->from_us = r->created_us;
	r->to_us = time_of(row->state_since);
	r->stage_count = (int)json_array_size(stages) < STAGES_MAX ? (int)json_array_size(stages)
								   : STAGES_MAX;
	for (int i = 0; i < r->stage_count; i++)
		r->stages[i].percent = (int)json_integer_value(
			json_object_get(json_array_get(stages, (size_t)i), "percent"));
	json_decref(stages);
	return false;
}

struct count {
	const struct rollout *rollout;
	struct account *report;
};

static bool count_device(const struct device *d, void *ctx)
{
	struct count *n = ctx;
	int stage = reach_stage_of(n->rollout, d);

	if (stage >= 0)
		n->report->stages[stage].devices++;
	if (target_includes(n->rollout, d)) {
		n->report->targeted++;
		n->report->on_version += runs_release(d, n->rollout->release);
	}
	return true;
}

static void count_fleet(struct gather *g)
{
	struct fleet *f = g->server->fleet;
	struct account *r = &g->report;

	fleet_plan_read(f);
	const struct rollout *o = fleet_rollout(f, r->id);
	if (o && o->stage_count == r->stage_count) {
		struct count n = {o, r};

		r->image_bytes = o->release->file_size;
		fleet_visit(f, 0, FLEET_SHARDS, count_device, &n);
	}
	fleet_plan_done(f);
	for (int i = 1; i < r->stage_count; i++)
		r->stages[i].devices += r->stages[i - 1].devices;
}

/* --- attempts --- */

static struct later *later_at(struct gather *g, uint64_t hash)
{
	uint32_t i = (uint32_t)(hash >> 32) & (g->later_cap - 1);

	while (g->later[i].hash && g->later[i].hash != hash)
		i = (i + 1) & (g->later_cap - 1);
	return &g->later[i];
}

static bool later_grow(struct gather *g)
{
	struct later *old = g->later;
	uint32_t old_cap = g->later_cap;

	g->later_cap = old_cap ? old_cap * 2 : 1024;
	g->later = calloc(g->later_cap, sizeof *g->later);
	if (!g->later) {
		g->later = old;
		g->later_cap = old_cap;
		return false;
	}
	for (uint32_t i = 0; i < old_cap; i++)
		if (old[i].hash)
			*later_at(g, old[i].hash) = old[i];
	free(old);
	return true;
}

/* When the device's attempt after this one was opened; 0: none was. */
static int64_t next_opened(struct gather *g, const char *device_id, int64_t opened_us)
{
	uint64_t hash = hash64(device_id, strlen(device_id)) | 1;

	if (g->later_count < DEVICES_MOST && g->later_count * 4 >= g->later_cap * 3 &&
	    !later_grow(g))
		g->out_of_memory = true;
	if (g->out_of_memory)
		return 0;
	struct later *l = later_at(g, hash);
	int64_t next_us = l->hash ? l->opened_us : 0;
	if (!l->hash && g->later_count == DEVICES_MOST)
		return 0;
	g->later_count += l->hash == 0;
	*l = (struct later){hash, opened_us};
	return next_us;
}

static void add_span(struct gather *g, enum report_series s, int64_t from_us, int64_t to_us)
{
	const struct account *r = &g->report;

	if (!from_us || (to_us && to_us <= from_us))
		return;
	g->change[report_step_of(r, from_us)][s]++;
	if (to_us)
		g->change[report_step_of(r, to_us)][s]--;
}

static void note_failure(struct account *r, const struct row_update *row, int64_t at_us)
{
	char text[REPORT_TEXT];
	int i = 0;

	copy_text(text, sizeof text, row->error_message ? row->error_message : row->status);
	while (i < r->reason_count && strcmp(r->reasons[i].text, text) != 0)
		i++;
	if (i == REPORT_REASONS) {
		i--;
		copy_text(r->reasons[i].text, sizeof text, "other errors");
	}
	if (i == r->reason_count) {
		memcpy(r->reasons[i].text, text, sizeof text);
		r->reason_count++;
	}
	r->reasons[i].count++;
	if (r->failure_count == REPORT_FAILURES)
		return;
	struct report_failure *f = &r->failures[r->failure_count++];
	f->at_us = at_us;
	copy_text(f->device_id, sizeof f->device_id, row->device_id);
	memcpy(f->text, text, sizeof text);
}

static bool take_attempt(void *ctx, const struct row_update *row)
{
	struct gather *g = ctx;
	int64_t opened_us = time_of(row->opened_at), began_us = time_of(row->started_at);
	int64_t ended_us = time_of(row->completed_at), next_us;
	enum attempt_state state;

	g->last_id = row->id;
	g->row_count++;
	if (row->unsolicited || !attempt_state_from_words(row->status, row->closed, &state))
		return true;
	g->report.counts[state]++;
	if (!opened_us)
		opened_us = began_us;
	next_us = next_opened(g, row->device_id, opened_us);
	add_span(g, REPORT_OFFERED, opened_us, began_us ? began_us : ended_us);
	add_span(g, REPORT_RUNNING, began_us, ended_us);
	if (state == ATTEMPT_SUCCESS)
		add_span(g, REPORT_DONE, ended_us, next_us);
	if (state == ATTEMPT_FAILED || state == ATTEMPT_ROLLED_BACK) {
		add_span(g, REPORT_FAILED, ended_us, next_us);
		note_failure(&g->report, row, ended_us);
	}
	return !g->out_of_memory;
}

static enum ota_code read_attempts(struct gather *g, struct ota_err *err)
{
	struct store *s = g->server->store;
	struct list_query q = {.rollout_id = g->report.id, .active = -1, .limit = ATTEMPTS_PAGE};
	enum ota_code rc;

	do {
		g->row_count = 0;
		rc = s->ops->list_updates(s, &q, take_attempt, g, err);
		q.before_id = g->last_id;
		if (rc == OTA_OK && g->out_of_memory)
			rc = ota_fail_nomem(err);
	} while (rc == OTA_OK && g->row_count == ATTEMPTS_PAGE);
	return rc;
}

/* The picture is of the time in which something happened. */
static bool take_newest(void *ctx, const struct row_update *row)
{
	struct account *r = ctx;
	int64_t us = time_of(row->reported_at);

	if (us > r->to_us)
		r->to_us = us;
	return false;
}

static enum ota_code find_range(struct gather *g, struct ota_err *err)
{
	struct account *r = &g->report;
	struct store *s = g->server->store;
	struct list_query q = {.rollout_id = r->id, .active = -1, .limit = 1};
	enum ota_code rc = s->ops->list_updates(s, &q, take_newest, r, err);

	if (!rollout_state_is_final(r->state) && r->state != ROLLOUT_COMPLETED)
		r->to_us = r->now_us;
	r->to_us += (r->to_us - r->from_us) / 50; /* a margin, in which its end is seen */
	if (r->to_us > r->now_us)
		r->to_us = r->now_us;
	if (r->to_us < r->from_us + 10 * US_PER_S)
		r->to_us = r->from_us + 10 * US_PER_S;
	return rc;
}

/* --- events --- */

static void take_walk(struct account *r, const struct history_event *e)
{
	json_t *data = json_loads(e->data, 0, NULL);
	const json_t *after = json_object_get(data, "after");
	const char *word = json_string_value(json_object_get(after ? after : data, "state"));
	int stage = (int)json_integer_value(json_object_get(after, "stage"));
	struct report_mark m = {.at_us = e->at_us, .stage = stage > 0 ? stage - 1 : 0};

	m.state = word ? rollout_state_from_name(word) : ROLLOUT_STATES;
	if (m.state != ROLLOUT_STATES && m.stage < r->stage_count) {
		copy_text(m.what, sizeof m.what, e->type + strlen("rollout_"));
		copy_text(m.reason, sizeof m.reason,
			  json_string_value(json_object_get(data, "reason")));
		if (r->mark_count < REPORT_MARKS)
			r->marks[r->mark_count++] = m;
		else
			r->marks_left_out++;
		bool begun = m.state != ROLLOUT_DRAFT && m.state != ROLLOUT_SCHEDULED;
		if (begun && !r->stages[m.stage].begins_us && m.state == ROLLOUT_RUNNING)
			r->stages[m.stage].begins_us = m.at_us;
		if (m.stage && !r->stages[m.stage - 1].ends_us)
			r->stages[m.stage - 1].ends_us = m.at_us;
		if (m.state == ROLLOUT_COMPLETED || rollout_state_is_final(m.state))
			if (!r->stages[m.stage].ends_us && r->stages[m.stage].begins_us)
				r->stages[m.stage].ends_us = m.at_us;
	}
	json_decref(data);
}

static enum ota_code take_event(void *ctx, const struct history_event *e, struct ota_err *err)
{
	struct gather *g = ctx;
	struct account *r = &g->report;
	struct report_step *s = &r->steps[report_step_of(r, e->at_us)];

	if (e->rollout_id == r->id && strncmp(e->type, "rollout_", 8) == 0)
		take_walk(r, e);
	if (!e->is_gate)
		return OTA_OK;
	int64_t proven = g->gate.line.proven;
	enum ota_code rc = gate_replay(&g->gate, &e->gate.gate, err);
	if (rc != OTA_OK)
		return rc;
	if (e->rollout_id == r->id) {
		r->exposed += e->gate.gate.kind == GATE_EVENT_EXPOSED;
		r->exposed -= e->gate.gate.kind == GATE_EVENT_GIVEN_BACK;
		r->proven += e->gate.gate.kind == GATE_EVENT_PROVEN;
		r->silent += e->gate.gate.kind == GATE_EVENT_SILENT;
		r->failed += e->gate.gate.kind == GATE_EVENT_SILENT ||
			     e->gate.gate.kind == GATE_EVENT_FAILED;
		g->proven[report_step_of(r, e->at_us)] += g->gate.line.proven - proven;
	}
	double likelier = gate_view(&g->gate).likelier;
	if (likelier > s->e)
		s->e = likelier;
	if (likelier > r->e_most)
		r->e_most = likelier;
	return OTA_OK;
}

static enum ota_code read_events(struct gather *g, struct ota_err *err)
{
	struct account *r = &g->report;
	enum ota_code rc = history_find(g->server->committer, r->id, &g->history, err);

	if (rc != OTA_OK)
		return rc;
	r->watched = g->history.watched;
	gate_init(&g->gate, &g->history.params);
	r->halts_at = g->history.params.halt_at;
	rc = history_read(g->server->committer, &g->history, take_event, g, err);
	struct gate_view v = gate_view(&g->gate);
	r->halted = v.halted;
	gate_sentence(&v, r->evidence);
	return rc;
}

/* --- the whole --- */

static void sum_up(struct gather *g)
{
	struct account *r = &g->report;
	int64_t now[REPORT_SERIES] = {0}, proven = 0;

	for (int i = 0; i < REPORT_STEPS; i++) {
		proven += g->proven[i];
		r->steps[i].proven = proven;
		for (int s = 0; s < REPORT_SERIES; s++) {
			now[s] += g->change[i][s];
			r->steps[i].devices[s] = now[s];
		}
	}
}

static enum ota_code gather(struct gather *g, struct ota_err *err)
{
	struct store *s = g->server->store;
	struct list_query q = {.rollout_id = g->report.id, .active = -1, .limit = 1};
	enum ota_code rc = s->ops->list_rollouts(s, &q, take_row, g, err);

	if (rc == OTA_OK && g->row_count == 0)
		rc = ota_fail(err, OTA_ENOTFOUND, "no rollout has the id %lld",
			      (long long)g->report.id);
	if (rc == OTA_OK)
		rc = find_range(g, err);
	if (rc == OTA_OK)
		rc = read_attempts(g, err);
	if (rc == OTA_OK)
		rc = read_events(g, err);
	if (rc != OTA_OK)
		return rc;
	count_fleet(g);
	sum_up(g);
	return OTA_OK;
}

static void write_report(struct request *r)
{
	struct gather *g = r->memory;

	r->job_code = gather(g, &r->job_err);
	if (r->job_code != OTA_OK)
		return;
	struct buf *b = respond_begin(r, 200);
	r->content_type = formats[g->format].content_type;
	if (g->format == FORMAT_JSON) {
		report_write_json(b, &g->report);
		respond_end(r);
		return;
	}
	buf_reset(b);
	if (g->format == FORMAT_MARKDOWN)
		report_write_markdown(b, &g->report);
	else
		report_write_svg(b, &g->report);
}

/* By ?format=, else the first of them that Accept names, else JSON. */
static bool choose_format(struct request *r, enum format *out)
{
	const char *word = request_filter(r, "format"), *accept = request_header(r, "Accept");
	const char *first = NULL;

	*out = FORMAT_JSON;
	for (int i = 0; i < FORMATS; i++) {
		const char *at = accept ? strstr(accept, formats[i].type) : NULL;

		if (word && strcmp(word, formats[i].word) == 0) {
			*out = (enum format)i;
			return true;
		}
		if (!word && at && (!first || at < first)) {
			first = at;
			*out = (enum format)i;
		}
	}
	if (!word)
		return true;
	field_errors_add(&r->errors, "query", "format", FIELD_TYPE_WORD,
			 "must be json, markdown or svg");
	respond_fields(r);
	return false;
}

enum next rollout_report(struct request *r)
{
	enum format format;
	struct gather *g;
	int64_t id;

	if (!request_rollout_id(r, &id) || !choose_format(r, &format))
		return NEXT_ANSWER;
	g = calloc(1, sizeof *g);
	if (!g)
		return respond_error(r, OTA_ENOMEM, "out of memory");
	r->memory = g;
	r->release = release_gather;
	g->format = format;
	g->server = r->server;
	g->report.id = id;
	g->report.now_us = clock_service_us();
	return request_job(r, write_report, request_list_done);
}
