/* SPDX-License-Identifier: MIT */
/* alerts: what a person is to know of, and that somebody has seen it. */
#include "cli/api.h"
#include "cli/format.h"
#include "cli/lists.h"

#include <inttypes.h>
#include <string.h>

static const char *const kinds[] = {
	"rollout_halted", "failure_rate",     "updates_break_off",    "device_silent",
	"rollout_stuck",  "deadline_at_risk", "waiting_for_approval", NULL};

const struct opt cmd_alerts_opts[] = {
	{.name = "past", .help = "those that are over, too"},
	{.name = "kind",
	 .arg = "WORD",
	 .help = "of this kind, such as failure_rate",
	 .choices = kinds},
	{.name = "ack",
	 .arg = "ID",
	 .help = "say that somebody has seen this one",
	 .min = 1,
	 .max = INT64_MAX},
	{.name = "reason", .arg = "TEXT", .help = "with --ack: a word about it, for the log"},
	LIST_OPTS,
	{0},
};

static const struct col alert_cols[] = {
	{"ID", true, 0, 0},     {"RAISED", false, 0, 1},   {"SEVERITY", false, 0, 2},
	{"ALERT", false, 0, 0}, {"SUBJECT", false, 10, 3}, {"STATE", false, 0, 0},
	{"WHAT", false, 20, 0},
};

static enum colour severity_colour(const char *severity)
{
	if (!severity || strcmp(severity, "info") == 0)
		return COLOUR_NONE;
	return strcmp(severity, "critical") == 0 ? COLOUR_RED : COLOUR_YELLOW;
}

static const char *state_of(const json_t *row)
{
	if (api_str(row, "cleared_at"))
		return "over";
	return api_str(row, "acknowledged_at") ? "seen" : "open";
}

static void alert_row(const struct cli *c, struct table *t, const json_t *row)
{
	const char *state = state_of(row), *severity = api_str(row, "severity");
	char text[FORMAT_SIZE];

	format_int(row, "id", text);
	table_add(t, text, COLOUR_NONE);
	format_time(c, api_str(row, "raised_at"), text);
	table_add(t, text, COLOUR_DIM);
	table_add(t, severity, severity_colour(severity));
	table_add(t, api_str(row, "kind"), COLOUR_NONE);
	table_add(t, api_str(row, "subject"), COLOUR_NONE);
	table_add(t, state, strcmp(state, "open") == 0 ? severity_colour(severity) : COLOUR_DIM);
	table_add(t, api_str(row, "sentence"), COLOUR_NONE);
}

static const struct list alerts_list = {"alerts", "no alerts", alert_cols,
					sizeof(alert_cols) / sizeof(alert_cols[0]), alert_row};

static enum ota_code acknowledge(struct cli *c, const struct args *a, struct ota_err *err)
{
	const char *reason = args_get(a, "reason");
	json_t *body = reason ? json_pack("{s:s}", "reason", reason) : NULL, *answer;
	struct buf url = BUF_INIT;
	enum ota_code code;

	if (reason && !body)
		return ota_fail(err, OTA_EINVAL, "the reason is not UTF-8");
	api_url(c, &url, "/api/admin/alerts");
	buf_printf(&url, "/%" PRId64 "/acknowledge", args_int(a, "ack", 0));
	code = api_call(c, "POST", &url, body, &answer, err);
	if (code != OTA_OK)
		return code;
	code = format_message(c, answer, "acknowledged", err);
	json_decref(answer);
	return code;
}

enum ota_code cmd_alerts(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct buf url = BUF_INIT;

	if (args_get(a, "ack"))
		return acknowledge(c, a, err);
	if (args_get(a, "reason")) {
		cli_hint(c, "paku-ota alerts --ack ID --reason TEXT");
		return ota_fail(err, OTA_EINVAL, "--reason goes with --ack");
	}
	api_url(c, &url, "/api/admin/alerts");
	url_query(&url, "open", args_flag(a, "past") ? NULL : "true");
	url_query(&url, "kind", args_get(a, "kind"));
	return list_run(c, a, &alerts_list, &url, err);
}
