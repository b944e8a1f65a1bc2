/* SPDX-License-Identifier: MIT */
/* rollout: create, list, show, activate, deactivate. */
#include "cli/api.h"
#include "cli/format.h"
#include "cli/lists.h"
#include "cli/table.h"
#include "base/hash.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const struct opt create_opts[] = {
	{.name = "model", .arg = "M", .help = "the release's model (required)"},
	{.name = "all", .help = "to every device of the model"},
	{.name = "percent",
	 .arg = "N",
	 .help = "to N % of them (with --group: of the group)",
	 .min = 1,
	 .max = 100},
	{.name = "group", .arg = "G", .help = "to the devices of a group"},
	{.name = "devices", .arg = "A,B,C", .help = "to these devices"},
	{.name = "name",
	 .arg = "NAME",
	 .help = "its name (else made from model, version and target)"},
	{.name = "inactive", .help = "create it, but offer nothing yet"},
	{.name = "allow-downgrade", .help = "also to devices that run a later version"},
	{.name = "max-attempts",
	 .arg = "N",
	 .help = "failures in a row before a device is left alone "
		 "(3)",
	 .min = 1,
	 .max = 1000},
	{.name = "max-parallel",
	 .arg = "N",
	 .help = "so many devices at a time, the others wait their turn (any number)",
	 .min = 0,
	 .max = 1000000},
	{.name = "watch", .help = "then watch it to its end"},
	{.name = "timeout",
	 .arg = "S",
	 .help = "of --watch, as of 'paku-ota watch'",
	 .min = 1,
	 .max = 31536000},
	{0},
};

/* The ids of "a,b,c"; NULL when there are none. */
static json_t *split(const char *list)
{
	json_t *ids = json_array();

	while (ids && *list) {
		size_t n = strcspn(list, ",");

		while (n && *list == ' ') {
			list++;
			n--;
		}
		if (n && json_array_append_new(ids, json_stringn(list, n)) != 0)
			break;
		list += n + (list[n] == ',');
	}
	if (json_array_size(ids) == 0) {
		json_decref(ids);
		return NULL;
	}
	return ids;
}

/* One way to say who gets it. */
static enum ota_code check_target(struct cli *c, const struct args *a, struct ota_err *err)
{
	int n = args_flag(a, "all") + args_flag(a, "group") + args_flag(a, "devices");

	if (!args_get(a, "model")) {
		cli_hint(c, "paku-ota rollout create %s --model esp32-c3 --percent 10", a->pos[0]);
		return ota_fail(err, OTA_EINVAL, "rollout create needs --model");
	}
	if (n == 0 && !args_flag(a, "percent")) {
		cli_hint(c, "--all, --percent N, --group G or --devices A,B,C");
		return ota_fail(err, OTA_EINVAL, "say which devices get it");
	}
	if (n > 1 ||
	    (args_flag(a, "percent") && (args_flag(a, "all") || args_flag(a, "devices")))) {
		cli_hint(c, "only --group and --percent go together");
		return ota_fail(err, OTA_EINVAL, "the target is given twice");
	}
	if (args_flag(a, "inactive") && args_flag(a, "watch"))
		return ota_fail(err, OTA_EINVAL, "--inactive and --watch: nothing would happen");
	if (args_flag(a, "timeout") && !args_flag(a, "watch"))
		return ota_fail(err, OTA_EINVAL, "--timeout goes with --watch");
	return OTA_OK;
}

/* The same command has the same name, so that a job run again finds its rollout. */
static void make_name(const struct args *a, char out[320])
{
	const char *group = args_get(a, "group"), *devices = args_get(a, "devices");
	const char *percent = args_get(a, "percent");
	char target[160];

	if (devices && !strchr(devices, ','))
		snprintf(target, sizeof(target), "%s", devices);
	else if (devices)
		snprintf(target, sizeof(target), "devices-%06x",
			 (unsigned)(hash64(devices, strlen(devices)) & 0xFFFFFF));
	else if (group)
		snprintf(target, sizeof(target), "group-%.128s%s%s", group, percent ? "-" : "",
			 percent ? percent : "");
	else if (percent)
		snprintf(target, sizeof(target), "canary-%s", percent);
	else
		snprintf(target, sizeof(target), "all");
	snprintf(out, 320, "%.128s-%.60s-%.128s", args_get(a, "model"), a->pos[0], target);
}

static json_t *create_body(const struct args *a, struct ota_err *err)
{
	const char *group = args_get(a, "group"), *devices = args_get(a, "devices");
	char name[320];
	json_t *body, *ids;

	make_name(a, name);
	body = json_pack("{s:s, s:s, s:s, s:s, s:I, s:b}", "name",
			 args_get(a, "name") ? args_get(a, "name") : name, "firmware_version",
			 a->pos[0], "device_model", args_get(a, "model"), "target_type",
			 devices                   ? "specific"
			 : group                   ? "group"
			 : args_flag(a, "percent") ? "canary"
						   : "all",
			 "rollout_percentage", (json_int_t)args_int(a, "percent", 100), "is_active",
			 !args_flag(a, "inactive"));
	if (body && group)
		json_object_set_new(body, "target_filter", json_pack("{s:s}", "group", group));
	if (body && devices) {
		ids = split(devices);
		if (!ids) {
			json_decref(body);
			ota_fail(err, OTA_EINVAL, "--devices names no device");
			return NULL;
		}
		json_object_set_new(body, "target_filter", json_pack("{s:o}", "device_ids", ids));
	}
	if (body && args_flag(a, "allow-downgrade"))
		json_object_set_new(body, "allow_downgrade", json_true());
	if (body && args_flag(a, "max-attempts"))
		json_object_set_new(body, "max_attempts",
				    json_integer(args_int(a, "max-attempts", 3)));
	if (body && args_flag(a, "max-parallel"))
		json_object_set_new(body, "max_parallel",
				    json_integer(args_int(a, "max-parallel", 0)));
	if (!body)
		ota_fail(err, OTA_EINVAL, "the arguments are not UTF-8");
	return body;
}

static enum ota_code rollout_create(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct buf url = BUF_INIT;
	json_t *body, *answer;
	enum ota_code code = check_target(c, a, err);
	char name[320];
	int64_t id;

	if (code != OTA_OK)
		return code;
	body = create_body(a, err);
	if (!body)
		return err->code;
	snprintf(name, sizeof(name), "%s", api_str(body, "name"));
	api_url(c, &url, "/api/admin/rollout/create");
	code = api_call(c, "POST", &url, body, &answer, err);
	if (code == OTA_ENOTFOUND)
		cli_hint(c, "paku-ota releases --model %s    shows what there is",
			 args_get(a, "model"));
	if (code != OTA_OK)
		return code;
	id = api_int(answer, "rollout_id", -1);
	if (c->json && !args_flag(a, "watch")) {
		code = api_print_json(answer, err);
	} else if (!c->json && !(args_flag(a, "watch") && term_is_tty(stdout))) {
		format_text(api_str(answer, "message") ? api_str(answer, "message") : "created");
		printf("  rollout %" PRId64 ", ", id);
		format_text(name);
		if (term_is_tty(stdout))
			printf("next: paku-ota watch %" PRId64 "\n", id);
	}
	json_decref(answer);
	fflush(stdout);
	if (code == OTA_OK && args_flag(a, "watch"))
		code = watch_rollout(
			c, id,
			&(struct watch_options){.interval_ms = 1000,
						.timeout_s = args_int(a, "timeout", 0)},
			err);
	return code;
}

static const struct opt list_opts[] = {
	{.name = "model", .arg = "M", .help = "for this model"},
	{.name = "active", .help = "only those that are active"},
	LIST_OPTS,
	{0},
};

static const struct col rollout_cols[] = {
	{"ID", true, 0, 0},       {"NAME", false, 12, 0},   {"VERSION", false, 9, 0},
	{"MODEL", false, 8, 1},   {"TARGET", false, 10, 0}, {"ACTIVE", false, 0, 0},
	{"CREATED", false, 0, 2},
};

/* "all", "25 %", "group kitchen, 25 %", "3 devices" */
static void describe_target(const json_t *r, char *out, size_t size)
{
	const json_t *filter = json_object_get(r, "target_filter");
	const char *type = api_str(r, "target_type"), *group = api_str(filter, "group");
	size_t ids = json_array_size(json_object_get(filter, "device_ids")) +
		     json_array_size(json_object_get(filter, "mac_addresses"));
	char percent[FORMAT_SIZE];
	bool whole = json_number_value(json_object_get(r, "rollout_percentage")) >= 100;

	format_percent(r, "rollout_percentage", percent);
	if (type && strcmp(type, "specific") == 0)
		snprintf(out, size, "%zu device%s", ids, ids == 1 ? "" : "s");
	else if (group)
		snprintf(out, size, "group %s%s%s", group, whole ? "" : ", ", whole ? "" : percent);
	else
		snprintf(out, size, "%s", whole ? "all" : percent);
}

static void rollout_row(const struct cli *c, struct table *t, const json_t *row)
{
	char text[FORMAT_SIZE], target[192];
	bool active = api_true(row, "is_active");

	format_int(row, "id", text);
	table_add(t, text, COLOUR_NONE);
	table_add(t, api_str(row, "name"), COLOUR_NONE);
	table_add(t, api_str(row, "firmware_version"), COLOUR_NONE);
	table_add(t, api_str(row, "device_model"), COLOUR_NONE);
	describe_target(row, target, sizeof(target));
	table_add(t, target, COLOUR_NONE);
	table_add(t, active ? "yes" : "no", active ? COLOUR_GREEN : COLOUR_DIM);
	format_time(c, api_str(row, "created_at"), text);
	table_add(t, text, COLOUR_DIM);
}

static const struct list rollouts_list = {"rollouts", "no rollouts", rollout_cols,
					  sizeof(rollout_cols) / sizeof(rollout_cols[0]),
					  rollout_row};

static enum ota_code rollout_list(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct buf url = BUF_INIT;

	api_url(c, &url, "/api/admin/rollouts");
	url_query(&url, "device_model", args_get(a, "model"));
	url_query(&url, "active", args_flag(a, "active") ? "true" : NULL);
	return list_run(c, a, &rollouts_list, &url, err);
}

static void show(const struct cli *c, const json_t *r)
{
	const json_t *counts = json_object_get(r, "counts"), *n;
	char text[64], target[192];
	const char *state;

	printf("%s", term_sgr(COLOUR_BOLD));
	format_text(api_str(r, "name") ? api_str(r, "name") : "?");
	printf("%s", term_sgr(COLOUR_NONE));
	format_int(r, "id", text);
	format_field("id", text);
	format_field("version", api_str(r, "firmware_version"));
	format_field("model", api_str(r, "device_model"));
	describe_target(r, target, sizeof(target));
	format_field("target", target);
	format_field("active", api_true(r, "is_active") ? "yes" : "no");
	format_field("downgrades", api_true(r, "allow_downgrade") ? "allowed" : NULL);
	format_int(r, "max_attempts", text);
	format_field("max attempts", text);
	format_int(r, "max_parallel", text);
	format_field("max parallel", api_int(r, "max_parallel", 0) > 0 ? text : NULL);
	format_time_long(c, api_str(r, "created_at"), text, sizeof(text));
	format_field("created", text);
	snprintf(text, sizeof(text), "%" PRId64 " targeted, %" PRId64 " run the version",
		 api_int(r, "targeted", 0), api_int(r, "on_version", 0));
	format_field("devices", text);
	json_object_foreach((json_t *)(uintptr_t)counts, state, n)
	{
		if (json_integer_value(n) == 0)
			continue;
		snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT " %.20s",
			 json_integer_value(n), state);
		format_field("attempts", text);
	}
}

/* URL of rollout a->pos[0], below PREFIX. */
static enum ota_code rollout_url(struct cli *c, const struct args *a, const char *prefix,
				 struct buf *url, struct ota_err *err)
{
	enum ota_code code;
	int64_t id;

	code = api_rollout_id(c, a->pos[0], &id, err);
	if (code == OTA_OK) {
		api_url(c, url, prefix);
		buf_printf(url, "/%" PRId64, id);
	}
	return code;
}

static enum ota_code rollout_show(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct buf url = BUF_INIT;
	json_t *answer;
	enum ota_code code = rollout_url(c, a, "/api/admin/rollouts", &url, err);

	if (code == OTA_OK)
		code = api_get(c, &url, &answer, err);
	if (code != OTA_OK)
		return code;
	if (c->json)
		code = api_print_json(answer, err);
	else
		show(c, answer);
	json_decref(answer);
	return code;
}

static enum ota_code rollout_switch(struct cli *c, const struct args *a, const char *verb,
				    struct ota_err *err)
{
	struct buf url = BUF_INIT;
	json_t *answer;
	enum ota_code code = rollout_url(c, a, "/api/admin/rollout", &url, err);

	if (code != OTA_OK)
		return code;
	url_segment(&url, verb);
	code = api_call(c, "POST", &url, NULL, &answer, err);
	if (code != OTA_OK)
		return code;
	code = format_message(c, answer, "done", err);
	json_decref(answer);
	return code;
}

static enum ota_code rollout_activate(struct cli *c, const struct args *a, struct ota_err *err)
{
	return rollout_switch(c, a, "activate", err);
}

static enum ota_code rollout_deactivate(struct cli *c, const struct args *a, struct ota_err *err)
{
	return rollout_switch(c, a, "deactivate", err);
}

const struct cmd cmd_rollout_subs[] = {
	{"create", "VERSION", "give a release to devices",
	 "  paku-ota rollout create 1.3.0 --model esp32-c3 --percent 10 --watch\n"
	 "\n"
	 "Who gets it must be said. The same command again is no error, and creates nothing.",
	 .opts = create_opts, .min_args = 1, .max_args = 1, .run = rollout_create},
	{"list", NULL, "list rollouts, the newest first", .opts = list_opts, .run = rollout_list},
	{"show", "ROLLOUT", "show one (id or name), with its counts", .min_args = 1, .max_args = 1,
	 .run = rollout_show},
	{"activate", "ROLLOUT", "offer it (again)", .min_args = 1, .max_args = 1,
	 .run = rollout_activate},
	{"deactivate", "ROLLOUT", "offer it to nobody any more; what has begun runs to its end",
	 .min_args = 1, .max_args = 1, .run = rollout_deactivate},
	{0},
};
