/* SPDX-License-Identifier: MIT */
/* rollout plan: what a rollout would do, as a table and a few sentences. */
#include "cli/api.h"
#include "cli/format.h"
#include "cli/rollout.h"
#include "cli/table.h"
#include "base/clock.h"

#include <inttypes.h>
#include <string.h>

static const struct col stage_cols[] = {
	{"STAGE", true, 0, 0},    {"PERCENT", true, 0, 5},       {"DEVICES", true, 0, 0},
	{"SEEN", true, 0, 4},     {"UPDATES", true, 0, 0},       {"PROVEN", true, 0, 3},
	{"AT LEAST", true, 0, 2}, {"THROUGH AFTER", true, 0, 0}, {"RANGE", false, 0, 0},
	{"SENDS", true, 0, 1},
};

/* Seconds from the plan's begin to the time under KEY of TIMES; -1: never. */
static int64_t after_s(const json_t *plan, const json_t *times, const char *key)
{
	const char *begins = api_str(plan, "begins"), *at = api_str(times, key);
	int64_t from_us, us;

	if (!begins || !at || !time_parse(begins, &from_us) || !time_parse(at, &us))
		return -1;
	return (us - from_us) / US_PER_S;
}

static void format_after(int64_t s, char out[FORMAT_SIZE])
{
	if (s < 0)
		snprintf(out, FORMAT_SIZE, "never");
	else
		format_duration(s, out);
}

static void stage_row(struct table *t, const json_t *plan, const json_t *s, size_t i)
{
	const json_t *ends = json_object_get(s, "ends");
	char text[FORMAT_SIZE], early[FORMAT_SIZE], late[FORMAT_SIZE], range[2 * FORMAT_SIZE + 16];
	int64_t likely = after_s(plan, ends, "likely");
	static const char *const counts[] = {"devices", "seen", "to_update", "needed"};

	snprintf(text, sizeof(text), "%zu", i + 1);
	table_add(t, text, COLOUR_NONE);
	format_percent(s, "percent", text);
	table_add(t, text, COLOUR_NONE);
	for (size_t k = 0; k < sizeof(counts) / sizeof(counts[0]); k++) {
		format_int(s, counts[k], text);
		table_add(t, text, COLOUR_NONE);
	}
	format_duration(api_int(s, "min_duration_s", 0), text);
	table_add(t, api_int(s, "min_duration_s", 0) ? text : "", COLOUR_DIM);
	format_after(likely, text);
	table_add(t, text, likely < 0 ? COLOUR_RED : COLOUR_BOLD);
	format_after(after_s(plan, ends, "earliest"), early);
	format_after(after_s(plan, ends, "latest"), late);
	snprintf(range, sizeof(range), "%s%s%s%s", strcmp(early, late) ? early : "",
		 strcmp(early, late) ? " to " : "", strcmp(early, late) ? late : "",
		 api_true(s, "approve") ? " + approval" : "");
	table_add(t, likely < 0 ? "" : range, COLOUR_DIM);
	format_bytes(api_int(s, "bytes", 0), text);
	table_add(t, text, COLOUR_DIM);
}

static void show_head(const json_t *p)
{
	char bytes[FORMAT_SIZE];
	const char *model = api_str(p, "device_model");

	printf("%s", term_sgr(COLOUR_BOLD));
	format_text(api_str(p, "firmware_version") ? api_str(p, "firmware_version") : "?");
	printf("%s", term_sgr(COLOUR_NONE));
	format_field("model", model);
	format_bytes(api_int(p, "bytes", 0), bytes);
	printf("  %-14s%" PRId64 " inside the last stage, %" PRId64 " seen within a day, %" PRId64
	       " run it already\n",
	       "devices", api_int(p, "devices", 0), api_int(p, "seen", 0),
	       api_int(p, "on_version", 0));
	printf("  %-14s%" PRId64 ", %s in all; %" PRId64 " of them are heard of\n", "updates",
	       api_int(p, "to_update", 0), bytes, api_int(p, "reachable", 0));
}

static void show_refused(const json_t *p)
{
	const json_t *refused = json_object_get(p, "refused"), *n;
	const char *reason;

	json_object_foreach((json_t *)(uintptr_t)refused, reason, n)
	{
		char line[96];

		if (strcmp(reason, "up_to_date") == 0)
			continue;
		snprintf(line, sizeof(line), "%" JSON_INTEGER_FORMAT " %.60s",
			 json_integer_value(n), reason);
		format_field("not offered", line);
	}
}

static void show_variants(const json_t *p)
{
	const json_t *variants = json_object_get(p, "variants"), *v;
	size_t i;

	if (json_array_size(variants) < 2)
		return;
	json_array_foreach(variants, i, v)
	{
		char line[400];
		const char *hw = api_str(v, "hw"), *from = api_str(v, "from_version");

		snprintf(line, sizeof(line), "%" PRId64 " of hardware %.128s that run %.128s",
			 api_int(v, "to_update", 0), hw ? hw : "unknown", from ? from : "unknown");
		format_field("variant", line);
	}
}

static void show_pace(const json_t *p)
{
	const json_t *pace = json_object_get(p, "pace");
	char line[200], takes[FORMAT_SIZE], interval[FORMAT_SIZE];
	int64_t history = api_int(pace, "history", 0);

	format_duration(api_int(pace, "update_s", 0), takes);
	format_duration(api_int(pace, "interval_s", 0), interval);
	if (history)
		snprintf(line, sizeof(line),
			 "an update takes %s, %.1f %% fail (the last %" PRId64
			 " tell); devices come each %s",
			 takes, json_number_value(json_object_get(pace, "failure_share")) * 100,
			 history, interval);
	else
		snprintf(line, sizeof(line),
			 "an update takes %s (assumed: there were none yet); devices come each %s",
			 takes, interval);
	format_field("pace", line);
}

static enum ota_code show_plan(const json_t *p, struct ota_err *err)
{
	const json_t *stages = json_object_get(p, "stages"), *s, *warnings;
	struct table t;
	size_t i;

	show_head(p);
	show_refused(p);
	show_variants(p);
	show_pace(p);
	putchar('\n');
	table_init(&t, stage_cols, sizeof(stage_cols) / sizeof(stage_cols[0]));
	json_array_foreach(stages, i, s) stage_row(&t, p, s, i);
	enum ota_code code = table_print(&t, err);
	table_fini(&t);
	if (code != OTA_OK)
		return code;
	putchar('\n');
	format_text(api_str(p, "sentence") ? api_str(p, "sentence") : "");
	warnings = json_object_get(p, "warnings");
	json_array_foreach(warnings, i, s)
	{
		printf("%s!%s ", term_sgr(COLOUR_YELLOW), term_sgr(COLOUR_NONE));
		format_text(json_string_value(s));
	}
	return OTA_OK;
}

enum ota_code rollout_plan(struct cli *c, const struct args *a, struct ota_err *err)
{
	json_t *body = rollout_body(c, a, err), *answer;
	struct buf url = BUF_INIT;
	enum ota_code code;

	if (!body)
		return err->code;
	api_url(c, &url, "/api/admin/rollout/plan");
	code = api_call(c, "POST", &url, body, &answer, err);
	if (code == OTA_ENOTFOUND)
		cli_hint(c, "paku-ota releases --model %s    shows what there is",
			 args_get(a, "model"));
	if (code != OTA_OK)
		return code;
	code = c->json ? api_print_json(answer, err) : show_plan(answer, err);
	json_decref(answer);
	return code;
}
