/* SPDX-License-Identifier: MIT */
/* Rollouts: made, switched on and off, listed and shown. */
#include "http/request.h"

#include "core/names.h"
#include "core/runs.h"
#include "core/target.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMED_DEVICES_MAX 100000
#define ROLLOUT_NAME_MAX  200
#define MAX_PARALLEL_MAX  1000000

/* --- creation --- */

/* What a request's arrays become; one allocation chain, freed with r->memory. */
struct wanted {
	const char **device_ids;
	uint64_t *macs;
	bool out_of_memory; /* for one of them */
};

static void release_wanted(struct request *r)
{
	struct wanted *w = r->memory;

	free(w->device_ids);
	free(w->macs);
}

static const char *name_field(struct request *r, const struct json_fields *f, const char *name)
{
	const char *v = "";

	if (json_field_string(f, name, true, 0, 100000, &v) && name_version_error(v))
		field_errors_add(&r->errors, "body", name, FIELD_TYPE_VALUE, "%s",
				 name_version_error(v));
	return v;
}

static void read_ids(struct request *r, const json_t *array, const char *where)
{
	struct wanted *w = r->memory;
	struct rollout_new *n = &r->command.rollout;
	size_t count = json_array_size(array);

	w->device_ids = count ? calloc(count, sizeof *w->device_ids) : NULL;
	w->out_of_memory |= count && !w->device_ids;
	for (size_t i = 0; i < count && w->device_ids; i++) {
		const char *id = json_string_value(json_array_get(array, i));
		const char *wrong = id ? name_device_id_error(id) : "must be a string";
		if (wrong)
			field_errors_add(&r->errors, "body", where, FIELD_TYPE_VALUE,
					 "device %zu: %s", i + 1, wrong);
		else
			w->device_ids[n->device_id_count++] = id;
	}
	n->device_ids = w->device_ids;
}

static void read_macs(struct request *r, const json_t *array)
{
	struct wanted *w = r->memory;
	struct rollout_new *n = &r->command.rollout;
	size_t count = json_array_size(array);

	w->macs = count ? calloc(count, sizeof *w->macs) : NULL;
	w->out_of_memory |= count && !w->macs;
	for (size_t i = 0; i < count && w->macs; i++) {
		const char *text = json_string_value(json_array_get(array, i));
		if (!text || !mac_parse(text, &w->macs[n->mac_count]))
			field_errors_add(
				&r->errors, "body", "target_filter", FIELD_TYPE_VALUE,
				"mac_addresses: number %zu must be 12 hexadecimal digits, as in "
				"aa:bb:cc:dd:ee:ff",
				i + 1);
		else
			n->mac_count++;
	}
	n->macs = w->macs;
}

static void read_target(struct request *r, const struct json_fields *f)
{
	struct rollout_new *n = &r->command.rollout;
	const json_t *filter = NULL, *ids = NULL, *macs = NULL, *plain = NULL;
	struct json_fields in = {.under = "target_filter", .errors = &r->errors};

	n->group = "";
	json_field_strings(f, "target_device_ids", false, NAMED_DEVICES_MAX, 0, 100000, &plain);
	if (json_field_object(f, "target_filter", false, &filter)) {
		in.object = filter;
		json_field_strings(&in, "device_ids", false, NAMED_DEVICES_MAX, 0, 100000, &ids);
		json_field_strings(&in, "mac_addresses", false, NAMED_DEVICES_MAX, 0, 100000,
				   &macs);
		json_field_string(&in, "group", false, 0, 100000, &n->group);
	}
	if (ids && plain) {
		field_errors_add(
			&r->errors, "body", "target_device_ids", FIELD_TYPE_VALUE,
			"name the devices here or in target_filter.device_ids, not in both");
		return;
	}
	read_ids(r, ids ? ids : plain, ids ? "target_filter" : "target_device_ids");
	read_macs(r, macs);
	if (n->type == TARGET_SPECIFIC && n->device_id_count + n->mac_count == 0 &&
	    !field_errors_any(&r->errors))
		field_errors_add(&r->errors, "body", "target_filter", FIELD_TYPE_VALUE,
				 "a specific rollout needs target_filter.device_ids or "
				 "target_filter.mac_addresses with at least one device");
	if (n->type == TARGET_GROUP && (!n->group[0] || name_version_error(n->group)))
		field_errors_add(&r->errors, "body", "target_filter", FIELD_TYPE_VALUE,
				 "a group rollout needs target_filter.group, which %s",
				 n->group[0] ? name_version_error(n->group) : "is missing");
	if (n->type != TARGET_GROUP)
		n->group = "";
	if (n->type != TARGET_SPECIFIC)
		n->device_id_count = n->mac_count = 0;
}

static bool read_rollout(struct request *r)
{
	static const char *const types[] = {"all", "group", "canary", "specific"};
	struct json_fields f = {.object = r->json, .errors = &r->errors};
	struct rollout_new *n = &r->command.rollout;
	int64_t percent = 100, max_attempts = 3, max_parallel = 0;
	size_t type = 0;

	memset(n, 0, sizeof *n);
	n->active = true;
	json_field_string(&f, "name", true, 1, ROLLOUT_NAME_MAX, &n->name);
	n->version = name_field(r, &f, "firmware_version");
	n->model = name_field(r, &f, "device_model");
	json_field_word(&f, "target_type", true, types, 4, &type);
	json_field_int(&f, "rollout_percentage", false, 1, 100, &percent);
	json_field_int(&f, "max_attempts", false, 1, 1000, &max_attempts);
	json_field_int(&f, "max_parallel", false, 0, MAX_PARALLEL_MAX, &max_parallel);
	json_field_bool(&f, "is_active", false, &n->active);
	json_field_bool(&f, "allow_downgrade", false, &n->allow_downgrade);
	n->type = (enum target_type)type;
	n->percent = (int)percent;
	n->max_attempts = (int)max_attempts;
	n->max_parallel = (int)max_parallel;
	read_target(r, &f);
	return !field_errors_any(&r->errors);
}

static enum next after_create(struct request *r)
{
	const struct command *cmd = &r->command;
	char message[400];

	if (cmd->code != OTA_OK)
		return respond_err(r, &cmd->err);
	struct buf *b = respond_begin(r, 200);
	snprintf(message, sizeof message,
		 cmd->out.existed ? "rollout %s is here already, the same"
				  : "rollout %s is created",
		 cmd->rollout.name);
	json_str(b, "status", "ok");
	json_str(b, "message", message);
	json_int(b, "rollout_id", cmd->out.id);
	return respond_end(r);
}

enum next rollout_create(struct request *r)
{
	if (!request_json(r))
		return NEXT_ANSWER;
	r->memory = calloc(1, sizeof(struct wanted));
	if (!r->memory)
		return respond_error(r, OTA_ENOMEM, "out of memory");
	r->release = release_wanted;
	r->command.kind = COMMAND_ROLLOUT_CREATE;
	bool ok = read_rollout(r);
	if (((const struct wanted *)r->memory)->out_of_memory)
		return respond_error(r, OTA_ENOMEM, "out of memory");
	return ok ? request_submit(r, after_create) : respond_fields(r);
}

/* --- on and off --- */

static bool rollout_id(struct request *r, int64_t *id)
{
	char *end;

	errno = 0;
	*id = strtoll(r->args[0], &end, 10);
	if (errno == 0 && *id > 0 && *end == '\0' && r->args[0][0] >= '0' && r->args[0][0] <= '9')
		return true;
	field_errors_add(&r->errors, "path", "rollout_id", FIELD_TYPE_INTEGER,
			 "must be the whole number that rollout/create answered");
	respond_fields(r);
	return false;
}

static enum next after_active(struct request *r)
{
	const struct command *cmd = &r->command;
	bool on = cmd->walk.event == ROLLOUT_RESUME;

	if (cmd->code != OTA_OK)
		return respond_err(r, &cmd->err);
	if (cmd->out.existed)
		return respond_ok(r, "rollout %lld was %s already", (long long)cmd->out.id,
				  on ? "active" : "inactive");
	if (on)
		return respond_ok(r, "rollout %lld is active", (long long)cmd->out.id);
	return respond_ok(r, "rollout %lld is inactive; %zu waiting attempts are withdrawn",
			  (long long)cmd->out.id, cmd->out.count);
}

static enum next set_active(struct request *r, bool active)
{
	int64_t id;

	if (!rollout_id(r, &id))
		return NEXT_ANSWER;
	r->command.kind = COMMAND_ROLLOUT_WALK;
	r->command.walk.id = id;
	r->command.walk.event = active ? ROLLOUT_RESUME : ROLLOUT_PAUSE;
	r->command.walk.off_is_fine = !active;
	return request_submit(r, after_active);
}

enum next rollout_activate(struct request *r)
{
	return set_active(r, true);
}

enum next rollout_deactivate(struct request *r)
{
	return set_active(r, false);
}

/* --- looking --- */

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

/* Who is meant now, and who has arrived. */
struct reach {
	const struct rollout *rollout;
	int64_t targeted, on_version;
};

static bool count_reach(const struct device *d, void *ctx)
{
	struct reach *n = ctx;

	if (target_includes(n->rollout, d)) {
		n->targeted++;
		n->on_version += runs_release(d, n->rollout->release);
	}
	return true;
}

static void add_counts(struct request *r, struct buf *b, int64_t id)
{
	struct attempt_counts counts;
	struct reach reach = {0};

	r->job_code =
		r->server->store->ops->rollout_counts(r->server->store, id, &counts, &r->job_err);
	if (r->job_code != OTA_OK)
		return;
	json_open(b, "counts", '{');
	for (int s = 0; s < ATTEMPT_STATES; s++)
		json_int(b, attempt_state_name((enum attempt_state)s), counts.by_state[s]);
	json_close(b, '}');
	fleet_plan_read(r->server->fleet);
	reach.rollout = fleet_rollout(r->server->fleet, id);
	if (reach.rollout)
		fleet_visit(r->server->fleet, 0, FLEET_SHARDS, count_reach, &reach);
	fleet_plan_done(r->server->fleet);
	json_int(b, "targeted", reach.targeted);
	json_int(b, "on_version", reach.on_version);
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

	if (!rollout_id(r, &id) || !(q = request_list(r)))
		return NEXT_ANSWER;
	q->rollout_id = id;
	q->limit = 1;
	return request_job(r, query_rollout, request_list_done);
}
