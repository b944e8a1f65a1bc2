/* SPDX-License-Identifier: MIT */
/* Rollouts: made, and planned. */
#include "http/request.h"

#include "base/clock.h"
#include "base/tzfile.h"
#include "core/names.h"
#include "core/target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMED_DEVICES_MAX 100000
#define ROLLOUT_NAME_MAX  200
#define MAX_PARALLEL_MAX  1000000
#define PRIORITY_MAX      100

/* What a request's arrays become; one allocation chain, freed with r->memory. */
struct wanted {
	const char **device_ids;
	uint64_t *macs;
	struct stage stages[STAGES_MAX];
	struct window window;
	bool out_of_memory; /* for one of them */
	bool zone_read;
};

static void release_wanted(struct request *r)
{
	struct wanted *w = r->memory;

	free(w->device_ids);
	free(w->macs);
	tz_free(&w->window.zone);
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

/* What would not be looked at, and so reach devices that nobody meant. */
static void refuse_unused(struct request *r, const char *field, const char *name,
			  enum target_type is_for)
{
	enum target_type type = r->command.rollout.type;

	if (type == is_for || field_errors_any(&r->errors))
		return;
	field_errors_add(&r->errors, "body", field, FIELD_TYPE_VALUE,
			 "%s is for target_type %s, but target_type is %s: leave it out, or say %s",
			 name, target_type_word(is_for), target_type_word(type),
			 target_type_word(is_for));
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
	if (n->device_id_count)
		refuse_unused(r, ids ? "target_filter" : "target_device_ids",
			      ids ? "device_ids" : "target_device_ids", TARGET_SPECIFIC);
	if (n->mac_count)
		refuse_unused(r, "target_filter", "mac_addresses", TARGET_SPECIFIC);
	if (n->group[0])
		refuse_unused(r, "target_filter", "group", TARGET_GROUP);
}

/* --- stages --- */

static void read_stage(struct request *r, const json_t *list, size_t i, struct stage *out)
{
	struct json_fields in = {.object = json_array_get(list, i),
				 .under = "stages",
				 .item = i + 1,
				 .errors = &r->errors};
	int64_t percent = 0;

	*out = (struct stage){.min_proven = STAGE_MIN_PROVEN_AUTO};
	json_field_int(&in, "percent", true, 1, 100, &percent);
	json_field_int(&in, "min_duration_s", false, 0, STAGE_DURATION_MAX_S, &out->min_duration_s);
	json_field_int(&in, "min_proven", false, 0, INT32_MAX, &out->min_proven);
	json_field_bool(&in, "approve", false, &out->approve);
	out->percent = (int)percent;
}

static void wrong_stages(struct request *r, const char *field, const char *sentence)
{
	field_errors_add(&r->errors, "body", field, FIELD_TYPE_VALUE, "%s", sentence);
}

/* Named devices get it at once; a strategy of its own name says so. */
static void check_stages_fit(struct request *r, bool test, const char *field)
{
	const struct rollout_new *n = &r->command.rollout;
	bool at_once = n->stage_count == 1 && n->stages[0].percent == 100;

	if (n->type == TARGET_SPECIFIC && !at_once)
		wrong_stages(r, field,
			     "named devices get it at once: one stage of 100 percent, or none");
	if (test && n->type != TARGET_SPECIFIC)
		wrong_stages(r, field, "test is for named devices: target_type must be specific");
}

static void read_stages(struct request *r, const struct json_fields *f)
{
	struct wanted *w = r->memory;
	struct rollout_new *n = &r->command.rollout;
	const json_t *list = NULL;
	size_t strategy = STRATEGIES, errors = r->errors.count;
	char wrong[200];
	bool named = json_field_word(f, "strategy", false, strategy_names, STRATEGIES, &strategy);
	bool listed = json_field_objects(f, "stages", false, STAGES_MAX, &list);
	const char *field = listed ? "stages" : "strategy";
	const json_t *percent = json_object_get(f->object, "rollout_percentage");

	if (!named && !listed)
		return;
	if (named && listed)
		wrong_stages(r, "strategy", "give stages or a strategy, not both");
	if (percent && !json_is_null(percent))
		wrong_stages(r, "rollout_percentage", "the stages say it: leave this out");
	for (size_t i = 0; i < json_array_size(list); i++)
		read_stage(r, list, i, &w->stages[n->stage_count++]);
	if (r->errors.count != errors)
		return;
	if (named)
		n->stage_count = (size_t)strategy_stages((enum strategy)strategy, w->stages);
	n->stages = w->stages;
	const char *sentence = stages_error(n->stages, n->stage_count, wrong, sizeof wrong);
	if (sentence)
		wrong_stages(r, "stages", sentence);
	else
		check_stages_fit(r, strategy == STRATEGY_TEST, field);
}

static void read_time(struct request *r, const struct json_fields *f, const char *name, int64_t *us)
{
	const char *text;

	if (json_field_string(f, name, false, 1, 64, &text) && !time_parse_human(text, us))
		field_errors_add(&r->errors, "body", name, FIELD_TYPE_VALUE,
				 "must be a time with its zone, such as 2027-03-01T02:00:00Z or "
				 "2027-03-01T04:00:00+02:00");
}

/* Its zone is read when all else is known to be right. */
static void read_window(struct request *r, const struct json_fields *f)
{
	struct wanted *w = r->memory;
	const char *text;
	struct ota_err err;

	if (!json_field_string(f, "window", false, 1, 100000, &text))
		return;
	if (window_parse(text, &w->window, &err) == OTA_OK)
		r->command.rollout.window = &w->window;
	else
		field_errors_add(&r->errors, "body", "window", FIELD_TYPE_VALUE, "%s", err.msg);
}

/* When it begins and ends, and before which others. */
static void read_manners(struct request *r, const struct json_fields *f)
{
	struct rollout_new *n = &r->command.rollout;
	static const char *const ends[] = {"keep", "rollback"};
	int64_t max_parallel = 0, priority = 0;
	size_t on_halt = 0;

	json_field_word(f, "on_halt", false, ends, 2, &on_halt);
	n->rolls_back = on_halt == 1;
	json_field_int(f, "max_parallel", false, 0, MAX_PARALLEL_MAX, &max_parallel);
	json_field_int(f, "priority", false, -PRIORITY_MAX, PRIORITY_MAX, &priority);
	n->max_parallel = (int)max_parallel;
	n->priority = (int)priority;
	read_time(r, f, "not_before", &n->not_before_us);
	read_time(r, f, "deadline", &n->deadline_us);
	read_window(r, f);
	if (n->deadline_us && n->deadline_us <= n->not_before_us)
		field_errors_add(&r->errors, "body", "deadline", FIELD_TYPE_VALUE,
				 "must be later than not_before");
	if (json_field_string(f, "requires", false, 1, 100000, &n->requires) &&
	    name_version_error(n->requires))
		field_errors_add(&r->errors, "body", "requires", FIELD_TYPE_VALUE, "%s",
				 name_version_error(n->requires));
	json_field_string(f, "reason", false, 1, REASON_MAX, &n->reason);
}

static bool read_rollout(struct request *r)
{
	static const char *const types[] = {"all", "group", "canary", "specific"};
	struct json_fields f = {.object = r->json, .errors = &r->errors};
	struct rollout_new *n = &r->command.rollout;
	int64_t percent = 100, max_attempts = 3;
	size_t type = 0;

	memset(n, 0, sizeof *n);
	n->active = true;
	json_field_string(&f, "name", true, 1, ROLLOUT_NAME_MAX, &n->name);
	n->version = name_field(r, &f, "firmware_version");
	n->model = name_field(r, &f, "device_model");
	json_field_word(&f, "target_type", true, types, 4, &type);
	json_field_int(&f, "rollout_percentage", false, 1, 100, &percent);
	json_field_int(&f, "max_attempts", false, 1, 1000, &max_attempts);
	json_field_bool(&f, "is_active", false, &n->active);
	json_field_bool(&f, "allow_downgrade", false, &n->allow_downgrade);
	n->type = (enum target_type)type;
	n->percent = (int)percent;
	n->max_attempts = (int)max_attempts;
	read_manners(r, &f);
	read_target(r, &f);
	read_stages(r, &f);
	rollout_read_guard(r, &f);
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

static bool read_zone(struct request *r)
{
	struct window *w = &((struct wanted *)r->memory)->window;

	if (!r->command.rollout.window)
		return true;
	r->job_code = tz_load(TZ_DIRECTORY, w->zone_name, &w->zone, &r->job_err);
	return r->job_code == OTA_OK;
}

static void load_zone(struct request *r)
{
	if (read_zone(r))
		request_job_submit(r);
}

static enum next zone_error(struct request *r)
{
	if (r->job_code == OTA_ENOMEM)
		return respond_err(r, &r->job_err);
	field_errors_add(&r->errors, "body", "window", FIELD_TYPE_VALUE, "%s", r->job_err.msg);
	return respond_fields(r);
}

static enum next after_zone(struct request *r)
{
	return r->job_code == OTA_OK ? after_create(r) : zone_error(r);
}

/* The body into r->command.rollout; false: the answer is made. */
static bool read_body(struct request *r)
{
	if (!request_json(r))
		return false;
	r->memory = calloc(1, sizeof(struct wanted));
	if (!r->memory) {
		respond_error(r, OTA_ENOMEM, "out of memory");
		return false;
	}
	r->release = release_wanted;
	r->command.kind = COMMAND_ROLLOUT_CREATE;
	bool ok = read_rollout(r);
	if (((const struct wanted *)r->memory)->out_of_memory) {
		respond_error(r, OTA_ENOMEM, "out of memory");
		return false;
	}
	if (!ok)
		respond_fields(r);
	return ok;
}

enum next rollout_create(struct request *r)
{
	if (!read_body(r))
		return NEXT_ANSWER;
	return r->command.rollout.window ? request_job(r, load_zone, after_zone)
					 : request_submit(r, after_create);
}

/* --- planned: nothing is made of it --- */

static void look_ahead(struct request *r)
{
	struct wanted *w = r->memory;

	w->zone_read = read_zone(r);
	if (w->zone_read)
		rollout_write_plan(r, &r->command.rollout);
}

static enum next after_look(struct request *r)
{
	if (r->job_code == OTA_OK)
		return NEXT_ANSWER;
	return ((const struct wanted *)r->memory)->zone_read ? respond_err(r, &r->job_err)
							     : zone_error(r);
}

enum next rollout_plan(struct request *r)
{
	return read_body(r) ? request_job(r, look_ahead, after_look) : NEXT_ANSWER;
}
