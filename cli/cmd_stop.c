/* SPDX-License-Identifier: MIT */
/* stop-all and resume-all: nothing new to anybody, and on again. */
#include "cli/api.h"
#include "cli/format.h"
#include "cli/term.h"

const struct opt cmd_stop_all_opts[] = {
	{.name = "reason", .arg = "TEXT", .help = "why, for all who look (required)"},
	{0},
};

enum ota_code cmd_stop_all(struct cli *c, const struct args *a, struct ota_err *err)
{
	const char *reason = args_get(a, "reason");
	struct buf url = BUF_INIT;
	json_t *body, *answer;
	enum ota_code code;

	if (!reason || !*reason) {
		cli_hint(c, "paku-ota stop-all --reason 'devices do not come back'");
		return ota_fail(err, OTA_EINVAL, "stop-all needs --reason");
	}
	body = json_pack("{s:s}", "reason", reason);
	if (!body)
		return ota_fail(err, OTA_EINVAL, "the reason is not UTF-8");
	api_url(c, &url, "/api/admin/stop-all");
	code = api_call(c, "POST", &url, body, &answer, err);
	if (code != OTA_OK)
		return code;
	code = format_message(c, answer, "stopped", err);
	if (code == OTA_OK && !c->json && term_is_tty(stdout))
		puts("next, when it is mended: paku-ota resume-all");
	json_decref(answer);
	return code;
}

const struct opt cmd_resume_all_opts[] = {
	{.name = "reason", .arg = "TEXT", .help = "why, for the log"},
	{0},
};

enum ota_code cmd_resume_all(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct buf url = BUF_INIT;
	json_t *answer;
	enum ota_code code;

	api_url(c, &url, "/api/admin/resume-all");
	url_query(&url, "reason", args_get(a, "reason"));
	code = api_call(c, "POST", &url, NULL, &answer, err);
	if (code != OTA_OK)
		return code;
	code = format_message(c, answer, "everything goes on", err);
	json_decref(answer);
	return code;
}
