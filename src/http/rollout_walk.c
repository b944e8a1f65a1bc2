/* SPDX-License-Identifier: MIT */
/* Rollouts: led by people.  Switched on and off, paused, resumed, promoted, approved, aborted,
 * rolled back. */
#include "http/request.h"

#include <stdio.h>
#include <string.h>

static enum next submit(struct request *r, enum rollout_event event, handler_fn *resume)
{
	r->command.kind = COMMAND_ROLLOUT_WALK;
	r->command.walk.event = event;
	return request_submit(r, resume);
}

/* --- on and off --- */

static enum next after_switch(struct request *r)
{
	const struct command *cmd = &r->command;
	long long id = (long long)cmd->out.id;
	bool on = cmd->walk.event == ROLLOUT_RESUME;

	if (cmd->code != OTA_OK)
		return respond_err(r, &cmd->err);
	if (cmd->out.existed)
		return respond_ok(r, "rollout %lld was %s already", id, on ? "active" : "inactive");
	if (on && cmd->out.state == ROLLOUT_SCHEDULED)
		return respond_ok(r, "rollout %lld is scheduled: its time has not come", id);
	if (on)
		return respond_ok(r, "rollout %lld is active", id);
	return respond_ok(r, "rollout %lld is inactive; %zu waiting attempts are withdrawn", id,
			  cmd->out.count);
}

enum next rollout_activate(struct request *r)
{
	if (!request_rollout_id(r, &r->command.walk.id))
		return NEXT_ANSWER;
	return submit(r, ROLLOUT_RESUME, after_switch);
}

enum next rollout_deactivate(struct request *r)
{
	if (!request_rollout_id(r, &r->command.walk.id))
		return NEXT_ANSWER;
	r->command.walk.off_is_fine = true;
	return submit(r, ROLLOUT_PAUSE, after_switch);
}

/* --- the others: they may say why, and what they expect to find --- */

static void say(const struct command *cmd, char *out, size_t size)
{
	const char *state = rollout_state_name(cmd->out.state);
	long long id = (long long)cmd->out.id;

	if (cmd->out.existed && cmd->walk.event == ROLLOUT_APPROVE)
		snprintf(out, size, "stage %d of rollout %lld was approved already", cmd->out.stage,
			 id);
	else if (cmd->out.existed)
		snprintf(out, size, "rollout %lld was %s already", id, state);
	else if (cmd->out.back_id)
		snprintf(out, size, "rollout %lld is %s; rollout %lld takes back what it gave", id,
			 state, (long long)cmd->out.back_id);
	else if (cmd->walk.event == ROLLOUT_APPROVE)
		snprintf(out, size, "stage %d of rollout %lld is approved", cmd->out.stage, id);
	else if (cmd->out.count > 0)
		snprintf(out, size, "rollout %lld is %s; %zu waiting attempts are withdrawn", id,
			 state, cmd->out.count);
	else
		snprintf(out, size, "rollout %lld is %s in stage %d", id, state, cmd->out.stage);
}

/* A conflict tells what was found, too: a program may want to try again. */
static enum next after_walk(struct request *r)
{
	const struct command *cmd = &r->command;
	char message[200];

	if (cmd->code != OTA_OK && cmd->code != OTA_ECONFLICT)
		return respond_err(r, &cmd->err);
	struct buf *b = respond_begin(r, status_of(cmd->code));
	if (cmd->code == OTA_OK) {
		say(cmd, message, sizeof message);
		json_str(b, "status", "ok");
		json_str(b, "message", message);
	} else {
		json_str(b, "detail", cmd->err.msg);
	}
	json_str(b, "state", rollout_state_name(cmd->out.state));
	json_int(b, "stage", cmd->out.stage);
	if (cmd->code == OTA_OK && cmd->out.back_id)
		json_int(b, "rolled_back_by", cmd->out.back_id);
	return respond_end(r);
}

static enum next walk(struct request *r, enum rollout_event event)
{
	struct json_fields f = {.errors = &r->errors};
	const char *words[ROLLOUT_STATES];
	int64_t stage = 0;
	size_t state;

	if (!request_rollout_id(r, &r->command.walk.id) || !request_json_if_any(r))
		return NEXT_ANSWER;
	for (int s = 0; s < ROLLOUT_STATES; s++)
		words[s] = rollout_state_name((enum rollout_state)s);
	f.object = r->json;
	json_field_string(&f, "reason", false, 1, REASON_MAX, &r->command.walk.reason);
	json_field_int(&f, "stage", false, 1, STAGES_MAX, &stage);
	if (json_field_word(&f, "state", false, words, ROLLOUT_STATES, &state))
		r->command.walk.expect_states = 1u << state;
	r->command.walk.expect_stage = (int)stage;
	if (field_errors_any(&r->errors))
		return respond_fields(r);
	return submit(r, event, after_walk);
}

enum next rollout_pause(struct request *r)
{
	return walk(r, ROLLOUT_PAUSE);
}

enum next rollout_resume(struct request *r)
{
	return walk(r, ROLLOUT_RESUME);
}

enum next rollout_promote(struct request *r)
{
	return walk(r, ROLLOUT_PROMOTE);
}

enum next rollout_approve(struct request *r)
{
	return walk(r, ROLLOUT_APPROVE);
}

enum next rollout_abort(struct request *r)
{
	return walk(r, ROLLOUT_ABORT);
}

enum next rollout_rollback(struct request *r)
{
	return walk(r, ROLLOUT_ROLLBACK);
}
