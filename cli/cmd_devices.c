/* SPDX-License-Identifier: MIT */
/* devices: list, show, delete, group, label, notes, import; explain and retry. */
#include "cli/api.h"
#include "cli/format.h"
#include "cli/lists.h"
#include "cli/table.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IMPORT_MAX (64u << 20)

static const struct opt list_opts[] = {
	{.name = "model", .arg = "M", .help = "of this model"},
	{.name = "group", .arg = "G", .help = "in this group"},
	LIST_OPTS,
	{0},
};

#define REASON_OPT                                                                                 \
	{                                                                                          \
		.name = "reason", .arg = "TEXT", .help = "why, for the log"                        \
	}

static const struct opt clear_opts[] = {{.name = "clear", .help = "remove it"}, REASON_OPT, {0}};
static const struct opt reason_opts[] = {REASON_OPT, {0}};
const struct opt cmd_retry_opts[] = {REASON_OPT, {0}};

static const struct col device_cols[] = {
	{"DEVICE", false, 12, 0},   {"MODEL", false, 8, 1},    {"VERSION", false, 9, 0},
	{"LAST SEEN", false, 0, 0}, {"PRESENCE", false, 0, 1}, {"LABEL", false, 8, 2},
	{"MAC", false, 0, 4},       {"HW", false, 6, 3},
};

/* "online", "offline since 3 h 10 min"; "" when it does not speak MQTT. */
static enum colour format_presence(const struct cli *c, const json_t *row, char out[64])
{
	const json_t *online = json_object_get(row, "online");
	const char *since = api_str(row, "presence_since");
	char text[FORMAT_SIZE];
	int64_t us;

	out[0] = '\0';
	if (!json_is_boolean(online))
		return COLOUR_NONE;
	if (json_is_true(online)) {
		strcpy(out, "online");
		return COLOUR_GREEN;
	}
	if (!since || !time_parse(since, &us)) {
		strcpy(out, "offline");
		return COLOUR_YELLOW;
	}
	if (term_is_tty(stdout))
		format_duration((cli_now_us(c) - us) / US_PER_S, text);
	else
		snprintf(text, sizeof(text), "%s", since);
	snprintf(out, 64, "offline since %s", text);
	return COLOUR_YELLOW;
}

static void device_row(const struct cli *c, struct table *t, const json_t *row)
{
	char text[FORMAT_SIZE], there[64];
	enum colour colour = format_presence(c, row, there);

	table_add(t, api_str(row, "device_id"), COLOUR_NONE);
	table_add(t, api_str(row, "device_model"), COLOUR_NONE);
	table_add(t, api_str(row, "current_firmware_version"), COLOUR_NONE);
	format_time(c, api_str(row, "last_seen"), text);
	table_add(t, text, COLOUR_DIM);
	table_add(t, there, colour);
	table_add(t, api_str(row, "label"), COLOUR_NONE);
	table_add(t, api_str(row, "mac_address"), COLOUR_NONE);
	table_add(t, api_str(row, "hw"), COLOUR_NONE);
}

static const struct list devices_list = {"devices", "no devices", device_cols,
					 sizeof(device_cols) / sizeof(device_cols[0]), device_row};

static enum ota_code devices_run(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct buf url = BUF_INIT;

	api_url(c, &url, "/api/admin/devices");
	url_query(&url, "device_model", args_get(a, "model"));
	url_query(&url, "group", args_get(a, "group"));
	return list_run(c, a, &devices_list, &url, err);
}

static void device_url(const struct cli *c, const char *id, const char *rest, struct buf *url)
{
	api_url(c, url, "/api/admin/devices");
	url_segment(url, id);
	buf_adds(url, rest);
}

static void show_groups(const json_t *groups)
{
	struct buf line = BUF_INIT;
	const json_t *g;
	size_t i;

	json_array_foreach(groups, i, g) buf_printf(&line, "%s%s", i ? ", " : "",
						    json_is_string(g) ? json_string_value(g) : "?");
	format_field("groups", line.data);
	buf_fini(&line);
}

/* Where it speaks over MQTT, and whether it is there. */
static void show_presence(const struct cli *c, const json_t *d)
{
	const json_t *conflict = json_object_get(d, "site_conflict");
	char text[320], there[64], at[64];

	format_field("site", api_str(d, "site"));
	format_presence(c, d, there);
	format_time_long(c, api_str(d, "presence_since"), at, sizeof(at));
	snprintf(text, sizeof(text), "%.7s since %s", there, at);
	format_field("presence", there[0] && api_str(d, "presence_since") ? text : there);
	if (!json_is_object(conflict))
		return;
	format_time_long(c, api_str(conflict, "at"), at, sizeof(at));
	snprintf(text, sizeof(text), "its id is live on site %.140s too, seen %s",
		 api_str(conflict, "other_site") ? api_str(conflict, "other_site") : "?", at);
	format_field("conflict", text);
}

static enum ota_code show(const struct cli *c, const json_t *d, struct ota_err *err)
{
	const json_t *attempts = json_object_get(d, "attempts"), *row;
	enum ota_code code = OTA_OK;
	struct table t;
	char text[64];
	size_t i;

	printf("%s", term_sgr(COLOUR_BOLD));
	format_text(api_str(d, "device_id") ? api_str(d, "device_id") : "?");
	printf("%s", term_sgr(COLOUR_NONE));
	format_field("label", api_str(d, "label"));
	format_field("model", api_str(d, "device_model"));
	format_field("version", api_str(d, "current_firmware_version"));
	format_time_long(c, api_str(d, "last_seen"), text, sizeof(text));
	format_field("last seen", text);
	format_time_long(c, api_str(d, "created_at"), text, sizeof(text));
	format_field("first seen", text);
	format_field("mac", api_str(d, "mac_address"));
	format_field("hardware", api_str(d, "hw"));
	show_presence(c, d);
	show_groups(json_object_get(d, "groups"));
	format_field("notes", api_str(d, "notes"));
	if (json_array_size(attempts) == 0)
		return OTA_OK;
	putchar('\n');
	table_init(&t, list_updates.cols, list_updates.ncols);
	json_array_foreach(attempts, i, row) list_update_row(c, &t, row);
	code = table_print(&t, err);
	table_fini(&t);
	return code;
}

static enum ota_code devices_show(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct buf url = BUF_INIT;
	json_t *answer;
	enum ota_code code;

	device_url(c, a->pos[0], "", &url);
	code = api_get(c, &url, &answer, err);
	if (code == OTA_ENOTFOUND)
		cli_hint(c, "paku-ota devices    lists those that have made themselves known");
	if (code != OTA_OK)
		return code;
	code = c->json ? api_print_json(answer, err) : show(c, answer, err);
	json_decref(answer);
	return code;
}

/* A request whose answer is a message. */
static enum ota_code simple(struct cli *c, const char *method, struct buf *url, json_t *body,
			    const char *fallback, struct ota_err *err)
{
	json_t *answer;
	enum ota_code code = api_call(c, method, url, body, &answer, err);

	if (code != OTA_OK)
		return code;
	code = format_message(c, answer, fallback, err);
	json_decref(answer);
	return code;
}

static void add_reason(struct buf *url, const struct args *a)
{
	url_query(url, "reason", args_get(a, "reason"));
}

static enum ota_code devices_delete(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct buf url = BUF_INIT;

	device_url(c, a->pos[0], "", &url);
	add_reason(&url, a);
	return simple(c, "DELETE", &url, NULL, "deleted", err);
}

static enum ota_code devices_group(struct cli *c, const struct args *a, struct ota_err *err)
{
	bool add = strcmp(a->pos[1], "add") == 0;
	enum ota_code code = OTA_OK;

	if (!add && strcmp(a->pos[1], "remove") != 0) {
		cli_hint(c, "paku-ota devices group %s add kitchen", a->pos[0]);
		return ota_fail(err, OTA_EINVAL,
				"'add' or 'remove' stands before the group, not '%s'", a->pos[1]);
	}
	for (int i = 2; i < a->npos && code == OTA_OK; i++) {
		struct buf url = BUF_INIT;

		device_url(c, a->pos[0], "/groups", &url);
		url_segment(&url, a->pos[i]);
		add_reason(&url, a);
		code = simple(c, add ? "PUT" : "DELETE", &url, NULL, add ? "added" : "removed",
			      err);
	}
	return code;
}

/* label and notes: set to the words given, or cleared. */
static enum ota_code set_text(struct cli *c, const struct args *a, const char *what,
			      struct ota_err *err)
{
	bool clear = args_flag(a, "clear");
	struct buf url = BUF_INIT, text = BUF_INIT;
	json_t *body = NULL;

	if (clear == (a->npos > 1)) {
		cli_hint(c, "paku-ota devices %s %s 'TEXT'    or --clear", what, a->pos[0]);
		return ota_fail(err, OTA_EINVAL, "either a text or --clear");
	}
	for (int i = 1; i < a->npos; i++)
		buf_printf(&text, "%s%s", i > 1 ? " " : "", a->pos[i]);
	if (!clear) {
		body = text.data ? json_pack("{s:s}", what, text.data) : NULL;
		buf_fini(&text);
		if (!body)
			return ota_fail(err, OTA_EINVAL, "the text is not UTF-8");
	}
	device_url(c, a->pos[0], "", &url);
	url_segment(&url, what);
	add_reason(&url, a);
	return simple(c, clear ? "DELETE" : "PUT", &url, body, clear ? "removed" : "set", err);
}

static enum ota_code devices_label(struct cli *c, const struct args *a, struct ota_err *err)
{
	return set_text(c, a, "label", err);
}

static enum ota_code devices_notes(struct cli *c, const struct args *a, struct ota_err *err)
{
	return set_text(c, a, "notes", err);
}

/* "-" is stdin. */
static enum ota_code read_file(const char *path, struct buf *out, struct ota_err *err)
{
	int fd = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	enum ota_code code = OTA_OK;
	ssize_t n = 0;

	if (fd < 0)
		return ota_fail(err, OTA_EINVAL, "cannot read %s: %s", path, strerror(errno));
	while (code == OTA_OK && buf_reserve(out, 65536) &&
	       (n = read(fd, out->data + out->len, 65536)) > 0) {
		out->len += (size_t)n;
		if (out->len > IMPORT_MAX)
			code = ota_fail(err, OTA_EINVAL, "%s is larger than %u MiB", path,
					IMPORT_MAX >> 20);
	}
	if (code == OTA_OK && !buf_ok(out))
		code = ota_fail_nomem(err);
	else if (code == OTA_OK && n < 0)
		code = ota_fail(err, OTA_EINVAL, "cannot read %s: %s", path, strerror(errno));
	if (fd != STDIN_FILENO)
		close(fd);
	return code;
}

static enum ota_code devices_import(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct buf url = BUF_INIT, csv = BUF_INIT;
	struct http_request q = {.method = "POST", .content_type = "text/csv"};
	json_t *answer = NULL;
	enum ota_code code = read_file(a->pos[0], &csv, err);

	if (code == OTA_OK && csv.len == 0)
		code = ota_fail(err, OTA_EINVAL, "%s is empty", a->pos[0]);
	if (code == OTA_OK) {
		q.body = csv.data;
		q.body_len = csv.len;
		api_url(c, &url, "/api/admin/devices/import");
		add_reason(&url, a);
		code = api_send(c, &url, &q, &answer, err);
	}
	buf_fini(&csv);
	if (code != OTA_OK)
		return code;
	if (c->json)
		code = api_print_json(answer, err);
	else
		printf("updated: %" PRId64 "\n", api_int(answer, "updated", 0));
	json_decref(answer);
	return code;
}

static enum colour explain_colour(const json_t *x)
{
	if (!api_true(x, "update_available"))
		return COLOUR_BOLD;
	return json_is_false(json_object_get(x, "online")) ? COLOUR_YELLOW : COLOUR_GREEN;
}

static void explain_print(const json_t *x)
{
	const json_t *considered = json_object_get(x, "considered"), *r;
	size_t i;

	printf("%s", term_sgr(explain_colour(x)));
	format_text(api_str(x, "sentence") ? api_str(x, "sentence") : "no reason was given");
	printf("%s", term_sgr(COLOUR_NONE));
	format_field("reason", api_str(x, "reason"));
	format_field("rollout", api_str(x, "rollout"));
	format_field("version", api_str(x, "firmware_version"));
	format_field("downloads", api_str(x, "download_base_url"));
	if (json_array_size(considered) < 2)
		return; /* the sentence above is its */
	printf("\nRollouts looked at:\n");
	json_array_foreach(considered, i, r)
	{
		char id[FORMAT_SIZE];

		format_int(r, "rollout_id", id);
		printf("  %s ", id);
		format_text(api_str(r, "name") ? api_str(r, "name") : "?");
		format_field("", api_str(r, "sentence"));
	}
}

enum ota_code cmd_explain(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct buf url = BUF_INIT;
	json_t *answer;
	enum ota_code code;

	device_url(c, a->pos[0], "/explain", &url);
	code = api_get(c, &url, &answer, err);
	if (code == OTA_ENOTFOUND)
		cli_hint(c, "paku-ota devices    lists those that have made themselves known");
	if (code != OTA_OK)
		return code;
	if (c->json)
		code = api_print_json(answer, err);
	else
		explain_print(answer);
	json_decref(answer);
	return code;
}

enum ota_code cmd_retry(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct buf url = BUF_INIT;

	device_url(c, a->pos[0], "/retry", &url);
	add_reason(&url, a);
	return simple(c, "POST", &url, NULL, "it may try again", err);
}

const struct cmd cmd_devices_subs[] = {
	{"list", NULL, "list devices, the last seen first", .opts = list_opts, .run = devices_run},
	{"show", "ID", "show one, with its groups and attempts", .min_args = 1, .max_args = 1,
	 .run = devices_show},
	{"delete", "ID", "forget a device; it comes back when it checks in again",
	 .opts = reason_opts, .min_args = 1, .max_args = 1, .run = devices_delete},
	{"group", "ID add|remove GROUP...", "put a device into groups, or take it out",
	 .opts = reason_opts, .min_args = 3, .max_args = -1, .run = devices_group},
	{"label", "ID [TEXT]", "give it a name for people", .opts = clear_opts, .min_args = 1,
	 .max_args = -1, .run = devices_label},
	{"notes", "ID [TEXT]", "write a note about it", .opts = clear_opts, .min_args = 1,
	 .max_args = -1, .run = devices_notes},
	{"import", "FILE.csv", "groups, labels and notes of many devices (- is stdin)",
	 "The first line names the columns: device_id, and any of groups (separated by ';'),\n"
	 "label, notes. Either every line is taken, or none.",
	 .opts = reason_opts, .min_args = 1, .max_args = 1, .run = devices_import,
	 .takes_file = true},
	{0},
};
