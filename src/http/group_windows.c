/* SPDX-License-Identifier: MIT */
/* The hours of groups: listed, set and taken off. */
#include "http/request.h"

#include "base/clock.h"
#include "base/tzfile.h"
#include "core/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void add_window_now(struct buf *b, const struct window *w, int64_t now_us)
{
	int64_t change_us = window_next_change_us(w, now_us);
	char text[160];

	json_open(b, "window_now", '{');
	json_bool(b, "open", window_is_open(w, now_us));
	if (change_us == INT64_MAX) {
		json_nil(b, "until");
	} else {
		char until[TIME_TEXT_SIZE];
		time_format(change_us, until);
		json_str(b, "until", until);
	}
	window_sentence(w, now_us, text, sizeof text);
	json_str(b, "sentence", text);
	json_close(b, '}');
}

enum next group_windows_list(struct request *r)
{
	struct fleet *f = r->server->fleet;
	struct buf *b = respond_begin(r, 200);
	int64_t now_us = clock_service_us();

	json_open(b, "windows", '[');
	fleet_plan_read(f);
	for (const struct group_window *g = fleet_group_windows(f)->first; g; g = g->next) {
		json_open(b, NULL, '{');
		json_str(b, "group", g->group);
		json_str(b, "window", g->window->text);
		add_window_now(b, g->window, now_us);
		json_close(b, '}');
	}
	fleet_plan_done(f);
	json_close(b, ']');
	return respond_end(r);
}

static void free_window(struct request *r)
{
	tz_free(&((struct window *)r->memory)->zone);
}

static bool begin(struct request *r)
{
	if (name_version_error(r->args[0]))
		field_errors_add(&r->errors, "path", "group", FIELD_TYPE_VALUE, "a group's name %s",
				 name_version_error(r->args[0]));
	r->command.kind = COMMAND_GROUP_WINDOW;
	r->command.group_window.group = r->args[0];
	return request_reason(r);
}

static enum next after_set(struct request *r)
{
	const struct command *cmd = &r->command;

	if (r->job_code != OTA_OK && r->job_code != OTA_ENOMEM) {
		field_errors_add(&r->errors, "body", "window", FIELD_TYPE_VALUE, "%s",
				 r->job_err.msg);
		return respond_fields(r);
	}
	if (r->job_code != OTA_OK)
		return respond_err(r, &r->job_err);
	if (cmd->code != OTA_OK)
		return respond_err(r, &cmd->err);
	return respond_ok(r, "group %s has %s%s", cmd->group_window.group,
			  cmd->group_window.window ? "the window " : "no window of its own",
			  cmd->group_window.window ? cmd->group_window.window->text : "");
}

static void load_zone(struct request *r)
{
	struct window *w = r->memory;

	r->job_code = tz_load(TZ_DIRECTORY, w->zone_name, &w->zone, &r->job_err);
	if (r->job_code == OTA_OK)
		request_job_submit(r);
}

/* Null, or a window that never opens, would be a stop: there are other words for that. */
enum next group_window_put(struct request *r)
{
	struct window *w = calloc(1, sizeof *w);
	const char *text, *reason = NULL;
	struct ota_err err;

	if (!w)
		return respond_error(r, OTA_ENOMEM, "out of memory");
	r->memory = w;
	r->release = free_window;
	begin(r);
	if (!request_json(r))
		return NEXT_ANSWER;
	struct json_fields f = {.object = r->json, .errors = &r->errors};
	if (json_field_string(&f, "reason", false, 1, REASON_MAX, &reason))
		r->command.why = reason;
	if (json_field_string(&f, "window", true, 1, 100000, &text) &&
	    window_parse(text, w, &err) != OTA_OK)
		field_errors_add(&r->errors, "body", "window", FIELD_TYPE_VALUE, "%s", err.msg);
	if (field_errors_any(&r->errors))
		return respond_fields(r);
	r->command.group_window.window = w;
	return request_job(r, load_zone, after_set);
}

enum next group_window_delete(struct request *r)
{
	if (!begin(r))
		return respond_fields(r);
	return request_submit(r, after_set);
}
