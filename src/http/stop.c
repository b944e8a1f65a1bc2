/* SPDX-License-Identifier: MIT */
/* The great stop: nothing new is offered to anybody, through no door, until it is taken back. */
#include "http/request.h"

#include "base/clock.h"

#include <stdio.h>

static enum next after_stop(struct request *r)
{
	const struct command *cmd = &r->command;
	char message[200];

	if (cmd->code != OTA_OK)
		return respond_err(r, &cmd->err);
	if (cmd->out.existed)
		snprintf(message, sizeof message,
			 "everything was stopped already, for the reason that /health shows");
	else
		snprintf(message, sizeof message,
			 "everything is stopped; %zu waiting attempts are withdrawn",
			 cmd->out.count);
	struct buf *b = respond_begin(r, 200);
	json_str(b, "status", "ok");
	json_str(b, "message", message);
	json_int(b, "withdrawn", (int64_t)cmd->out.count);
	return respond_end(r);
}

enum next all_stop(struct request *r)
{
	const char *reason = NULL;

	if (!request_json(r))
		return NEXT_ANSWER;
	struct json_fields f = {.object = r->json, .errors = &r->errors};
	if (!json_field_string(&f, "reason", true, 1, REASON_MAX, &reason))
		return respond_fields(r);
	r->command.kind = COMMAND_STOP;
	r->command.stop.reason = reason;
	return request_submit(r, after_stop);
}

static enum next after_resume(struct request *r)
{
	if (r->command.code != OTA_OK)
		return respond_err(r, &r->command.err);
	return respond_ok(r, r->command.out.existed ? "nothing was stopped" : "everything goes on");
}

enum next all_resume(struct request *r)
{
	r->command.kind = COMMAND_STOP;
	r->command.stop.reason = NULL;
	if (!request_reason(r))
		return respond_fields(r);
	return request_submit(r, after_resume);
}

void add_stop(struct fleet *f, struct buf *b)
{
	char reason[4 * REASON_MAX + 1], since[TIME_TEXT_SIZE];
	int64_t since_us;

	if (!fleet_stop_reason(f, reason, sizeof reason, &since_us)) {
		json_nil(b, "stopped");
		return;
	}
	time_format(since_us, since);
	json_open(b, "stopped", '{');
	json_str(b, "reason", reason);
	json_str(b, "since", since);
	json_close(b, '}');
}
