/* SPDX-License-Identifier: MIT */
/* rollout: list, show, and the words that lead one.  rollout_create.c makes them. */
#include "cli/api.h"
#include "cli/format.h"
#include "cli/lists.h"
#include "cli/rollout.h"
#include "cli/table.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const struct opt list_opts[] = {
	{.name = "model", .arg = "M", .help = "for this model"},
	{.name = "active", .help = "only those that are active"},
	LIST_OPTS,
	{0},
};

static const struct col rollout_cols[] = {
	{"ID", true, 0, 0},       {"NAME", false, 12, 0},   {"VERSION", false, 9, 0},
	{"MODEL", false, 8, 1},   {"TARGET", false, 10, 0}, {"STATE", false, 0, 0},
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

static enum colour rollout_colour(const char *state)
{
	if (!state || strcmp(state, "draft") == 0 || strcmp(state, "aborted") == 0)
		return COLOUR_DIM;
	if (strcmp(state, "halted") == 0)
		return COLOUR_RED;
	return strcmp(state, "running") == 0 || strcmp(state, "completed") == 0 ? COLOUR_GREEN
										: COLOUR_YELLOW;
}

static void rollout_row(const struct cli *c, struct table *t, const json_t *row)
{
	char text[FORMAT_SIZE], target[192];
	const char *state = api_str(row, "state");

	format_int(row, "id", text);
	table_add(t, text, COLOUR_NONE);
	table_add(t, api_str(row, "name"), COLOUR_NONE);
	table_add(t, api_str(row, "firmware_version"), COLOUR_NONE);
	table_add(t, api_str(row, "device_model"), COLOUR_NONE);
	describe_target(row, target, sizeof(target));
	table_add(t, target, COLOUR_NONE);
	table_add(t, state, rollout_colour(state));
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

/* A line for each stage, the present one marked; nothing when there is one, at once. */
static void show_stages(const json_t *stages, const json_t *now)
{
	const json_t *s;
	size_t i;

	if (json_array_size(stages) < 2)
		return;
	json_array_foreach(stages, i, s)
	{
		char line[160], lasts[FORMAT_SIZE] = "", proven[48] = "";
		int64_t seconds = api_int(s, "min_duration_s", 0);

		format_duration(seconds, lasts);
		if (json_object_get(s, "min_proven"))
			snprintf(proven, sizeof(proven), ", %" PRId64 " proven",
				 api_int(s, "min_proven", 0));
		snprintf(line, sizeof(line), "%" PRId64 " %%%s%s%s%s%s", api_int(s, "percent", 0),
			 seconds ? ", at least " : "", seconds ? lasts : "", proven,
			 api_true(s, "approve") ? ", approved" : "",
			 api_int(now, "index", 0) == (int64_t)i + 1 ? "   <- here" : "");
		format_field("stage", line);
	}
}

/* What it takes back, or who takes back what it gave, or that somebody will when it halts. */
static void show_takeback(const json_t *r)
{
	const json_t *back = json_object_get(r, "rolls_back"), *by;
	const char *on_halt = api_str(r, "on_halt");
	char line[192];
	size_t i;

	if (json_is_object(back)) {
		snprintf(line, sizeof(line), "%.128s, which rollout %" PRId64 " gave",
			 api_str(back, "firmware_version") ? api_str(back, "firmware_version")
							   : "?",
			 api_int(back, "rollout_id", 0));
		format_field("takes back", line);
	}
	json_array_foreach(json_object_get(r, "rolled_back_by"), i, by)
	{
		snprintf(line, sizeof(line), "rollout %" JSON_INTEGER_FORMAT,
			 json_integer_value(by));
		format_field("back by", line);
	}
	if (on_halt && strcmp(on_halt, "rollback") == 0)
		format_field("on halt", "its devices go back to what they ran before");
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
	format_field("state", api_str(r, "state"));
	format_field("why", api_str(r, "reason"));
	show_takeback(r);
	format_time_long(c, api_str(r, "since"), text, sizeof(text));
	format_field("since", text);
	show_stages(json_object_get(r, "stages"), json_object_get(r, "stage"));
	format_field("next", api_str(json_object_get(r, "next"), "sentence"));
	format_field("eta", api_str(json_object_get(r, "eta"), "sentence"));
	format_field("gate", api_str(json_object_get(r, "evidence"), "sentence"));
	format_field("not before", api_str(r, "not_before"));
	format_field("deadline", api_str(r, "deadline"));
	format_field("window", api_str(r, "window"));
	format_int(r, "priority", text);
	format_field("priority", api_int(r, "priority", 0) != 0 ? text : NULL);
	format_field("requires", api_str(r, "requires"));
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

static const struct opt lead_opts[] = {
	{.name = "reason", .arg = "TEXT", .help = "why, for the log"},
	{.name = "stage", .arg = "N", .help = "only if it is in this stage", .min = 1, .max = 100},
	{0},
};

static json_t *lead_body(const struct args *a, struct ota_err *err)
{
	const char *reason = args_get(a, "reason");
	json_t *body = json_object();

	if (!body || (reason && json_object_set_new(body, "reason", json_string(reason)) != 0) ||
	    (args_flag(a, "stage") &&
	     json_object_set_new(body, "stage", json_integer(args_int(a, "stage", 1))) != 0)) {
		json_decref(body);
		ota_fail(err, OTA_EINVAL, "the reason is not UTF-8");
		return NULL;
	}
	return body;
}

static enum ota_code rollout_switch(struct cli *c, const struct args *a, const char *verb,
				    json_t *body, struct ota_err *err)
{
	struct buf url = BUF_INIT;
	json_t *answer;
	enum ota_code code = rollout_url(c, a, "/api/admin/rollout", &url, err);

	if (code != OTA_OK) {
		json_decref(body);
		return code;
	}
	url_segment(&url, verb);
	code = api_call(c, "POST", &url, body, &answer, err);
	if (code != OTA_OK)
		return code;
	code = format_message(c, answer, "done", err);
	json_decref(answer);
	return code;
}

static enum ota_code rollout_activate(struct cli *c, const struct args *a, struct ota_err *err)
{
	return rollout_switch(c, a, "activate", NULL, err);
}

static enum ota_code rollout_deactivate(struct cli *c, const struct args *a, struct ota_err *err)
{
	return rollout_switch(c, a, "deactivate", NULL, err);
}

/* pause, resume, promote, approve, abort, rollback: the word is the command's own name. */
static enum ota_code rollout_lead(struct cli *c, const struct args *a, struct ota_err *err)
{
	json_t *body = lead_body(a, err);

	return body ? rollout_switch(c, a, a->cmd->name, body, err) : err->code;
}

const struct cmd cmd_rollout_subs[] = {
	{"create", "VERSION", "give a release to devices",
	 "  paku-ota rollout create 1.3.0 --model esp32-c3 --percent 10 --watch\n"
	 "  paku-ota rollout create 1.3.0 --model esp32-c3 --stages 10:24h,50:24h:approve,100\n"
	 "\n"
	 "Who gets it must be said. The same command again is no error, and creates nothing.",
	 .opts = rollout_create_opts, .min_args = 1, .max_args = 1, .run = rollout_create},
	{"plan", "VERSION", "say what 'rollout create' would do, and do nothing",
	 "  paku-ota rollout plan 1.3.0 --model esp32-c3 --stages 10:24h,50:24h,100\n"
	 "\n"
	 "Takes what 'rollout create' takes. From the fleet's own history: how many devices each\n"
	 "stage reaches, how long it takes, what it sends, and what stands in its way.",
	 .opts = ROLLOUT_PLAN_OPTS, .min_args = 1, .max_args = 1, .run = rollout_plan},
	{"list", NULL, "list rollouts, the newest first", .opts = list_opts, .run = rollout_list},
	{"show", "ROLLOUT", "show one (id or name), with its counts", .min_args = 1, .max_args = 1,
	 .run = rollout_show},
	{"report", "ROLLOUT", "say what one did: a page with its picture",
	 "  paku-ota rollout report 7 --output report.md\n"
	 "\n"
	 "writes report.md, and report.svg beside it. Without --output the page goes to stdout.",
	 .opts = rollout_report_opts, .min_args = 1, .max_args = 1, .run = rollout_report},
	{"pause", "ROLLOUT", "hold it; what is done stays", .opts = lead_opts, .min_args = 1,
	 .max_args = 1, .run = rollout_lead},
	{"resume", "ROLLOUT", "let it go on, in the stage where it was", .opts = lead_opts,
	 .min_args = 1, .max_args = 1, .run = rollout_lead},
	{"promote", "ROLLOUT", "go on to its next stage now", .opts = lead_opts, .min_args = 1,
	 .max_args = 1, .run = rollout_lead},
	{"approve", "ROLLOUT", "let its stage end, when the rest is fulfilled too",
	 .opts = lead_opts, .min_args = 1, .max_args = 1, .run = rollout_lead},
	{"abort", "ROLLOUT", "end it for good; what has begun runs to its end", .opts = lead_opts,
	 .min_args = 1, .max_args = 1, .run = rollout_lead},
	{"rollback", "ROLLOUT", "end it, and bring its devices back to what they ran before",
	 .opts = lead_opts, .min_args = 1, .max_args = 1, .run = rollout_lead},
	{"activate", "ROLLOUT", "offer it (again): resume in an older word", .min_args = 1,
	 .max_args = 1, .run = rollout_activate},
	{"deactivate", "ROLLOUT", "offer it to nobody for now: pause in an older word",
	 .min_args = 1, .max_args = 1, .run = rollout_deactivate},
	{0},
};
