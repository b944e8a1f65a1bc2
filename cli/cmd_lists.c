/* SPDX-License-Identifier: MIT */
/* updates, events, log, and releases: lists, and what is done to a release. */
#include "cli/api.h"
#include "cli/format.h"
#include "cli/lists.h"
#include "cli/table.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum ota_code list_run(struct cli *c, const struct args *a, const struct list *l, struct buf *url,
		       struct ota_err *err)
{
	int64_t max = args_flag(a, "all") ? 0 : args_int(a, "limit", LIST_DEFAULT);
	struct table t;
	json_t *answer, *rows, *row;
	enum ota_code code;
	size_t i;

	code = api_list(c, url, l->key, max, &answer, err);
	if (code != OTA_OK)
		return code;
	rows = json_object_get(answer, l->key);
	if (c->json) {
		code = api_print_json(answer, err);
	} else if (json_array_size(rows) == 0) {
		fprintf(stderr, "%s\n", l->none);
	} else {
		table_init(&t, l->cols, l->ncols);
		json_array_foreach(rows, i, row) l->row(c, &t, row);
		code = table_print(&t, err);
		table_fini(&t);
		fflush(stdout);
		format_more(c, answer, json_array_size(rows));
	}
	json_decref(answer);
	return code;
}

const struct opt cmd_updates_opts[] = {
	{.name = "device", .arg = "ID", .help = "of this device"},
	{.name = "version", .arg = "V", .help = "to this version"},
	{.name = "rollout", .arg = "ROLLOUT", .help = "of this rollout (id or name)"},
	{.name = "status",
	 .arg = "WORD",
	 .help = "pending downloading downloaded installing success\n"
		 "                     failed rolled_back"},
	LIST_OPTS,
	{0},
};

static const struct col update_cols[] = {
	{"ID", true, 0, 3},      {"DEVICE", false, 12, 0}, {"VERSION", false, 9, 0},
	{"STATUS", false, 0, 0}, {"%", true, 0, 2},        {"REPORTED", false, 0, 1},
	{"ROLLOUT", true, 0, 4}, {"ERROR", false, 12, 0},
};

void list_update_row(const struct cli *c, struct table *t, const json_t *row)
{
	char text[FORMAT_SIZE];

	format_int(row, "id", text);
	table_add(t, text, COLOUR_NONE);
	table_add(t, api_str(row, "device_id"), COLOUR_NONE);
	table_add(t, api_str(row, "firmware_version"), COLOUR_NONE);
	format_status(row, text);
	table_add(t, text, format_status_colour(api_str(row, "status")));
	format_int(row, "progress_percent", text);
	table_add(t, text, COLOUR_NONE);
	format_time(c, api_str(row, "reported_at"), text);
	table_add(t, text, COLOUR_DIM);
	format_int(row, "rollout_id", text);
	table_add(t, text, COLOUR_NONE);
	/* What was never begun has no error, and a reason. */
	if (api_str(row, "closed"))
		table_add(t, api_str(row, "why"), COLOUR_DIM);
	else
		table_add(t, api_str(row, "error_message"), COLOUR_RED);
}

const struct list list_updates = {"updates", "no updates", update_cols,
				  sizeof(update_cols) / sizeof(update_cols[0]), list_update_row};

static enum ota_code rollout_query(struct cli *c, const struct args *a, struct buf *url,
				   struct ota_err *err)
{
	const char *word = args_get(a, "rollout");
	enum ota_code code;
	int64_t id;

	if (!word)
		return OTA_OK;
	code = api_rollout_id(c, word, &id, err);
	if (code == OTA_OK)
		url_query_int(url, "rollout_id", id);
	else
		buf_fini(url);
	return code;
}

enum ota_code cmd_updates(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct buf url = BUF_INIT;
	enum ota_code code;

	api_url(c, &url, "/api/admin/update-status");
	url_query(&url, "device_id", args_get(a, "device"));
	url_query(&url, "firmware_version", args_get(a, "version"));
	url_query(&url, "status", args_get(a, "status"));
	code = rollout_query(c, a, &url, err);
	return code == OTA_OK ? list_run(c, a, &list_updates, &url, err) : code;
}

const struct opt cmd_events_opts[] = {
	{.name = "device", .arg = "ID", .help = "about this device"},
	{.name = "rollout", .arg = "ROLLOUT", .help = "about this rollout (id or name)"},
	{.name = "type", .arg = "WORD", .help = "of this type, such as update_failed"},
	LIST_OPTS,
	{0},
};

static const struct col event_cols[] = {
	{"ID", true, 0, 3},        {"WHEN", false, 0, 0},    {"EVENT", false, 0, 0},
	{"DEVICE", false, 10, 0},  {"VERSION", false, 9, 2}, {"ROLLOUT", true, 0, 2},
	{"DETAILS", false, 14, 1},
};

/* What a person wants of event_data: the error first, then name=value, without the long ids. */
static void event_details(const json_t *data, struct buf *out)
{
	const char *error = api_str(data, "error_message"), *name;
	const json_t *value;

	if (error)
		buf_adds(out, error);
	json_object_foreach((json_t *)(uintptr_t)data, name, value)
	{
		char *text;

		if (json_is_null(value) || strcmp(name, "error_message") == 0 ||
		    strcmp(name, "attempt_id") == 0 || strcmp(name, "update_id") == 0)
			continue;
		text = json_is_string(value) ? strdup(json_string_value(value))
					     : json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
		buf_printf(out, "%s%s=%s", out->len ? " " : "", name, text ? text : "?");
		free(text);
	}
}

static void event_row(const struct cli *c, struct table *t, const json_t *row)
{
	struct buf details = BUF_INIT;
	char text[FORMAT_SIZE];

	format_int(row, "id", text);
	table_add(t, text, COLOUR_NONE);
	format_time(c, api_str(row, "created_at"), text);
	table_add(t, text, COLOUR_DIM);
	table_add(t, api_str(row, "event_type"), format_status_colour(api_str(row, "event_type")));
	table_add(t, api_str(row, "device_id"), COLOUR_NONE);
	table_add(t, api_str(row, "firmware_version"), COLOUR_NONE);
	format_int(row, "rollout_id", text);
	table_add(t, text, COLOUR_NONE);
	event_details(json_object_get(row, "event_data"), &details);
	table_add(t, details.data, COLOUR_NONE);
	buf_fini(&details);
}

static const struct list events_list = {"events", "no events", event_cols,
					sizeof(event_cols) / sizeof(event_cols[0]), event_row};

enum ota_code cmd_events(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct buf url = BUF_INIT;
	enum ota_code code;

	api_url(c, &url, "/api/admin/events");
	url_query(&url, "device_id", args_get(a, "device"));
	url_query(&url, "event_type", args_get(a, "type"));
	code = rollout_query(c, a, &url, err);
	return code == OTA_OK ? list_run(c, a, &events_list, &url, err) : code;
}

const struct opt cmd_log_opts[] = {
	{.name = "rollout", .arg = "ROLLOUT", .help = "about this rollout (id or name)"},
	{.name = "type", .arg = "WORD", .help = "of this type, such as rollout_paused"},
	LIST_OPTS,
	{0},
};

static const struct col log_cols[] = {
	{"ID", true, 0, 4},       {"WHEN", false, 0, 0},    {"WHO", false, 0, 0},
	{"EVENT", false, 0, 0},   {"ROLLOUT", true, 0, 1},  {"VERSION", false, 9, 3},
	{"CHANGE", false, 14, 2}, {"REASON", false, 14, 0},
};

/* What was, or is, of something: its words, else JSON; "-" for nothing. */
static void log_value(const json_t *value, struct buf *out)
{
	char *text = json_is_object(value) || json_is_array(value) ? json_dumps(value, JSON_COMPACT)
								   : NULL;

	buf_adds(out, text ? text : json_is_string(value) ? json_string_value(value) : "-");
	free(text);
}

/* "running 1 -> paused 1", or what else there is to tell. */
static void log_change(const json_t *row, const json_t *data, struct buf *out)
{
	const json_t *was = json_object_get(data, "before"), *is = json_object_get(data, "after");
	const char *device = api_str(row, "device_id"), *group = api_str(data, "group");

	if ((was || is) && !json_object_get(was, "stage")) {
		if (device || group)
			buf_printf(out, "%s: ", device ? device : group);
		log_value(was, out);
		buf_adds(out, " -> ");
		log_value(is, out);
	} else if (was && is)
		buf_printf(out, "%s %" PRId64 " -> %s %" PRId64,
			   api_str(was, "state") ? api_str(was, "state") : "?",
			   api_int(was, "stage", 0),
			   api_str(is, "state") ? api_str(is, "state") : "?",
			   api_int(is, "stage", 0));
	else if (json_object_get(data, "is_active"))
		buf_printf(out, "%s, %" PRId64 " %%",
			   api_true(data, "is_active") ? "active" : "inactive",
			   api_int(data, "rollout_percentage", 0));
	else if (device)
		buf_adds(out, device);
}

static void log_row(const struct cli *c, struct table *t, const json_t *row)
{
	const json_t *data = json_object_get(row, "event_data");
	struct buf change = BUF_INIT;
	char text[FORMAT_SIZE];

	format_int(row, "id", text);
	table_add(t, text, COLOUR_NONE);
	format_time(c, api_str(row, "created_at"), text);
	table_add(t, text, COLOUR_DIM);
	table_add(t, api_str(row, "created_by"), COLOUR_NONE);
	table_add(t, api_str(row, "event_type"), COLOUR_NONE);
	format_int(row, "rollout_id", text);
	table_add(t, text, COLOUR_NONE);
	table_add(t, api_str(row, "firmware_version"), COLOUR_NONE);
	log_change(row, data, &change);
	table_add(t, change.data, COLOUR_NONE);
	table_add(t, api_str(data, "reason"), COLOUR_NONE);
	buf_fini(&change);
}

static const struct list log_list = {"events", "nobody did anything", log_cols,
				     sizeof(log_cols) / sizeof(log_cols[0]), log_row};

enum ota_code cmd_log(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct buf url = BUF_INIT;
	enum ota_code code;

	api_url(c, &url, "/api/admin/events");
	url_query(&url, "operations", "true");
	url_query(&url, "event_type", args_get(a, "type"));
	code = rollout_query(c, a, &url, err);
	return code == OTA_OK ? list_run(c, a, &log_list, &url, err) : code;
}

const struct opt cmd_rejected_opts[] = {
	{.name = "device", .arg = "ID", .help = "from this device"},
	{.name = "reason", .arg = "WORD", .help = "for this reason, such as not_json"},
	LIST_OPTS,
	{0},
};

static const struct col rejected_cols[] = {
	{"ID", true, 0, 4},        {"WHEN", false, 0, 0},   {"DEVICE", false, 10, 0},
	{"REASON", false, 0, 0},   {"TOPIC", false, 16, 2}, {"DETAIL", false, 14, 1},
	{"PAYLOAD", false, 12, 3},
};

static void rejected_row(const struct cli *c, struct table *t, const json_t *row)
{
	char text[FORMAT_SIZE];

	format_int(row, "id", text);
	table_add(t, text, COLOUR_NONE);
	format_time(c, api_str(row, "created_at"), text);
	table_add(t, text, COLOUR_DIM);
	table_add(t, api_str(row, "device_id"), COLOUR_NONE);
	table_add(t, api_str(row, "reason"), COLOUR_RED);
	table_add(t, api_str(row, "topic"), COLOUR_NONE);
	table_add(t, api_str(row, "detail"), COLOUR_NONE);
	table_add(t, api_str(row, "payload"), COLOUR_DIM);
}

static const struct list rejected_list = {"rejected", "no rejected messages", rejected_cols,
					  sizeof(rejected_cols) / sizeof(rejected_cols[0]),
					  rejected_row};

enum ota_code cmd_rejected(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct buf url = BUF_INIT;

	api_url(c, &url, "/api/admin/rejected");
	url_query(&url, "device_id", args_get(a, "device"));
	url_query(&url, "reason", args_get(a, "reason"));
	return list_run(c, a, &rejected_list, &url, err);
}

static const struct opt releases_opts[] = {
	{.name = "model", .arg = "M", .help = "for this model"},
	LIST_OPTS,
	{0},
};

static const struct opt delete_opts[] = {
	{.name = "model", .arg = "M", .help = "the release's model (required)"},
	{.name = "reason", .arg = "TEXT", .help = "why, for the log"},
	{0},
};

static const struct col release_cols[] = {
	{"ID", true, 0, 4},        {"VERSION", false, 10, 0}, {"MODEL", false, 8, 0},
	{"SIZE", true, 0, 0},      {"CHIP", false, 0, 2},     {"SHA256", false, 12, 3},
	{"UPLOADED", false, 0, 1}, {"NOTES", false, 12, 5},
};

static void release_row(const struct cli *c, struct table *t, const json_t *row)
{
	const char *notes = api_str(row, "release_notes"), *sha = api_str(row, "checksum_sha256");
	char text[FORMAT_SIZE];

	format_int(row, "id", text);
	table_add(t, text, COLOUR_NONE);
	table_add(t, api_str(row, "version"), COLOUR_NONE);
	table_add(t, api_str(row, "device_model"), COLOUR_NONE);
	format_bytes(api_int(row, "file_size", 0), text);
	table_add(t, text, COLOUR_NONE);
	table_add(t, api_str(json_object_get(row, "image"), "chip"), COLOUR_NONE);
	if (term_is_tty(stdout))
		snprintf(text, sizeof(text), "%.12s", sha ? sha : "");
	table_add(t, term_is_tty(stdout) ? text : sha, COLOUR_DIM);
	format_time(c, api_str(row, "created_at"), text);
	table_add(t, text, COLOUR_DIM);
	table_add(t, notes && *notes ? notes : api_str(row, "changelog"), COLOUR_NONE);
}

static const struct list releases_list = {"releases", "no releases", release_cols,
					  sizeof(release_cols) / sizeof(release_cols[0]),
					  release_row};

static enum ota_code releases_list_run(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct buf url = BUF_INIT;

	api_url(c, &url, "/api/admin/firmware/releases");
	url_query(&url, "device_model", args_get(a, "model"));
	return list_run(c, a, &releases_list, &url, err);
}

static enum ota_code releases_delete(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct buf url = BUF_INIT;
	json_t *answer;
	enum ota_code code;

	if (!args_get(a, "model")) {
		cli_hint(c, "paku-ota releases delete %s --model M", a->pos[0]);
		return ota_fail(err, OTA_EINVAL,
				"delete needs --model: a version can exist for several");
	}
	api_url(c, &url, "/api/admin/firmware/releases");
	url_segment(&url, a->pos[0]);
	url_query(&url, "device_model", args_get(a, "model"));
	url_query(&url, "reason", args_get(a, "reason"));
	code = api_call(c, "DELETE", &url, NULL, &answer, err);
	if (code == OTA_OK)
		code = format_message(c, answer, "deleted", err);
	json_decref(answer);
	return code;
}

const struct cmd cmd_releases_subs[] = {
	{"list", NULL, "list releases, the newest first", .opts = releases_opts,
	 .run = releases_list_run},
	{"delete", "VERSION", "delete a release that no rollout uses", .opts = delete_opts,
	 .min_args = 1, .max_args = 1, .run = releases_delete},
	{0},
};
