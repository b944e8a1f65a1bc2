/* SPDX-License-Identifier: MIT */
/* windows: the hours of groups. */
#include "cli/api.h"
#include "cli/format.h"
#include "cli/table.h"

static const struct opt reason_opts[] = {
	{.name = "reason", .arg = "TEXT", .help = "why, for the log"},
	{0},
};

static const struct col window_cols[] = {
	{"GROUP", false, 8, 0}, {"WINDOW", false, 20, 0}, {"NOW", false, 0, 0}};

static enum ota_code windows_list(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct buf url = BUF_INIT;
	json_t *answer, *row;
	enum ota_code code;
	struct table t;
	size_t i;

	(void)a;
	api_url(c, &url, "/api/admin/windows");
	code = api_get(c, &url, &answer, err);
	if (code != OTA_OK)
		return code;
	const json_t *rows = json_object_get(answer, "windows");
	if (c->json) {
		code = api_print_json(answer, err);
	} else if (json_array_size(rows) == 0) {
		puts("no group has hours of its own");
	} else {
		table_init(&t, window_cols, 3);
		json_array_foreach(rows, i, row)
		{
			const json_t *now = json_object_get(row, "window_now");
			table_add(&t, api_str(row, "group"), COLOUR_NONE);
			table_add(&t, api_str(row, "window"), COLOUR_NONE);
			table_add(&t, api_str(now, "sentence"),
				  api_true(now, "open") ? COLOUR_GREEN : COLOUR_YELLOW);
		}
		code = table_print(&t, err);
		table_fini(&t);
	}
	json_decref(answer);
	return code;
}

static enum ota_code change(struct cli *c, const struct args *a, json_t *body, struct ota_err *err)
{
	struct buf url = BUF_INIT;
	json_t *answer;
	enum ota_code code;

	api_url(c, &url, "/api/admin/groups");
	url_segment(&url, a->pos[0]);
	url_segment(&url, "window");
	url_query(&url, "reason", args_get(a, "reason"));
	code = api_call(c, body ? "PUT" : "DELETE", &url, body, &answer, err);
	if (code != OTA_OK)
		return code;
	code = format_message(c, answer, "done", err);
	json_decref(answer);
	return code;
}

static enum ota_code windows_set(struct cli *c, const struct args *a, struct ota_err *err)
{
	json_t *body = json_pack("{s:s}", "window", a->pos[1]);

	return body ? change(c, a, body, err)
		    : ota_fail(err, OTA_EINVAL, "the window is not UTF-8");
}

static enum ota_code windows_remove(struct cli *c, const struct args *a, struct ota_err *err)
{
	return change(c, a, NULL, err);
}

const struct cmd cmd_windows_subs[] = {
	{"list", NULL, "list the groups that have hours of their own", .run = windows_list},
	{"set", "GROUP HOURS", "let updates of a group begin in these hours alone",
	 "  paku-ota windows set kitchen 'Mon-Fri 01:00-05:00 Europe/Helsinki'\n"
	 "\n"
	 "Whatever the rollout: its own window must be open too, and so must those of all groups\n"
	 "that a device is in.",
	 .opts = reason_opts, .min_args = 2, .max_args = 2, .run = windows_set},
	{"remove", "GROUP", "let them begin at any hour again", .opts = reason_opts, .min_args = 1,
	 .max_args = 1, .run = windows_remove},
	{0},
};
