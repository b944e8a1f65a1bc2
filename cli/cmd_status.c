/* SPDX-License-Identifier: MIT */
/* status: /health and /metrics in a few lines; neither needs a key. */
#include "cli/api.h"
#include "cli/format.h"
#include "cli/term.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Healthy, but nothing new goes out: not to be overlooked. */
static void print_stop(const struct cli *c, const json_t *stopped)
{
	char since[64];

	format_time_long(c, api_str(stopped, "since"), since, sizeof(since));
	printf("%sEVERYTHING IS STOPPED%s since %s\n", term_sgr(COLOUR_RED), term_sgr(COLOUR_NONE),
	       since);
	format_field("reason", api_str(stopped, "reason"));
	format_field("to go on", "paku-ota resume-all");
}

static void print_health(const struct cli *c, const json_t *h)
{
	const json_t *stopped = json_object_get(h, "stopped");
	const char *store = api_str(h, "store"), *version = api_str(h, "version");
	char up[FORMAT_SIZE];

	format_duration(api_int(h, "uptime_s", 0), up);
	printf("%s%s%s: ", term_sgr(COLOUR_BOLD), c->server, term_sgr(COLOUR_NONE));
	printf("%s", term_sgr(COLOUR_GREEN));
	format_text(api_str(h, "status") ? api_str(h, "status") : "?");
	printf("%s", term_sgr(COLOUR_NONE));
	if (json_is_object(stopped))
		print_stop(c, stopped);
	format_field("version", version);
	format_field("store", store);
	format_field("mqtt", api_str(h, "mqtt"));
	if (json_object_get(h, "uptime_s"))
		format_field("up", up);
}

static void print_devices(const json_t *m)
{
	const json_t *models = json_object_get(m, "devices_by_model"), *n;
	struct buf line = BUF_INIT;
	const char *name;

	buf_printf(&line, "%" PRId64, api_int(m, "total_devices", 0));
	if (json_object_size(models))
		buf_adds(&line, " (");
	json_object_foreach((json_t *)(uintptr_t)models, name, n)
	{
		buf_printf(&line, "%s%s %" JSON_INTEGER_FORMAT,
			   line.data[line.len - 1] == '(' ? "" : ", ", name, json_integer_value(n));
	}
	if (json_object_size(models))
		buf_addc(&line, ')');
	format_field("devices", line.data);
	buf_fini(&line);
}

/* recent_updates_24h may be a number or counts by status. */
static void print_updates(const json_t *m)
{
	const json_t *recent = json_object_get(m, "recent_updates_24h"), *n;
	struct buf line = BUF_INIT;
	const char *status;
	int64_t total = json_is_integer(recent) ? (int64_t)json_integer_value(recent) : 0;

	json_object_foreach((json_t *)(uintptr_t)recent, status, n)
	{
		total += json_integer_value(n);
		if (json_integer_value(n))
			buf_printf(&line, "%s%" JSON_INTEGER_FORMAT " %s", line.len ? ", " : "",
				   json_integer_value(n), status);
	}
	printf("  %s%-13s%s %" PRId64 " in 24 h%s%s%s\n", term_sgr(COLOUR_DIM), "updates",
	       term_sgr(COLOUR_NONE), total, line.len ? " (" : "", line.len ? line.data : "",
	       line.len ? ")" : "");
	buf_fini(&line);
}

static void print_alerts(const json_t *m)
{
	const json_t *open = json_object_get(m, "alerts_open"), *n;
	json_int_t total = 0;
	char text[64];
	const char *kind;

	json_object_foreach((json_t *)(uintptr_t)open, kind, n) total += json_integer_value(n);
	snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT " open: paku-ota alerts", total);
	format_field("alerts", total > 0 ? text : NULL);
}

enum ota_code cmd_status(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct buf url = BUF_INIT;
	json_t *health = NULL, *metrics = NULL, *both;
	char text[FORMAT_SIZE];
	enum ota_code code;

	(void)a;
	api_url(c, &url, "/health");
	code = api_get(c, &url, &health, err);
	if (code == OTA_EUNAVAIL)
		ota_wrap(err, "%s is not healthy", c->server);
	if (code != OTA_OK)
		return code;
	api_url(c, &url, "/metrics");
	code = api_get(c, &url, &metrics, err);
	if (code == OTA_OK && c->json) {
		both = json_pack("{s:O,s:O}", "health", health, "metrics", metrics);
		code = both ? api_print_json(both, err) : ota_fail_nomem(err);
		json_decref(both);
	} else if (code == OTA_OK) {
		print_health(c, health);
		print_devices(metrics);
		format_int(metrics, "active_rollouts", text);
		format_field("rollouts", text[0] ? strcat(text, " active") : NULL);
		print_updates(metrics);
		print_alerts(metrics);
	}
	json_decref(health);
	json_decref(metrics);
	return code;
}
