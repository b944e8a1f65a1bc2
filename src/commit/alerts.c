/* SPDX-License-Identifier: MIT */
/*
 * Alerts and the messages about them.  An alert, its event and what is to be sent of it are one
 * transaction: a crash loses none of them alone.
 */
#include "commit/plan.h"

#include <stdlib.h>
#include <string.h>

/* What an event's columns say of a subject. */
struct about {
	const char *device_id, *version;
	int64_t rollout_id;
};

static struct about about(struct committer *c, const char *subject)
{
	struct about a = {0};
	const char *id = strchr(subject, '/') + 1;

	if (strncmp(subject, "device/", 7) == 0) {
		a.device_id = id;
	} else if (strncmp(subject, "rollout/", 8) == 0) {
		const struct rollout *r = fleet_rollout(c->fleet, strtoll(id, NULL, 10));
		a.rollout_id = r ? r->id : 0;
		a.version = r ? r->release->version : NULL;
	} else {
		const struct release *r = fleet_release(c->fleet, strtoll(id, NULL, 10));
		a.version = r ? r->version : NULL;
	}
	return a;
}

static bool add_event(struct committer *c, const char *type, int64_t id, enum alert_kind kind,
		      const char *subject, const struct alert_word *w)
{
	struct about a = about(c, subject);
	struct buf b = BUF_INIT;

	json_open(&b, NULL, '{');
	json_int(&b, "alert_id", id);
	json_str(&b, "kind", alert_kind_names[kind]);
	if (w->what == ALERT_RAISE) {
		json_str(&b, "severity", alert_severity(kind));
		json_str(&b, "sentence", w->sentence);
	}
	if (w->reason)
		json_str(&b, "reason", w->reason);
	json_close(&b, '}');
	const char *data = batch_json(c, &b);
	return data && batch_event(&c->batch, type, a.device_id, a.version, a.rollout_id, data);
}

static bool add_messages(struct committer *c, int64_t alert_id, const struct alert_word *w)
{
	for (size_t i = 0; i < w->target_count; i++) {
		struct change *ch = batch_change(&c->batch, CHANGE_WEBHOOK);
		if (!ch)
			return false;
		ch->webhook.what = WEBHOOK_ADD;
		ch->webhook.alert_id = alert_id;
		ch->webhook.cleared = w->what == ALERT_CLEAR;
		ch->webhook.target = w->targets[i];
		ch->webhook.at_us = c->batch.now_us;
	}
	return true;
}

static enum prepared write_alert(struct committer *c, struct command *cmd, int64_t id,
				 enum alert_kind kind, const char *subject)
{
	static const char *const types[] = {
		[ALERT_RAISE] = "alert_raised",
		[ALERT_CLEAR] = "alert_cleared",
		[ALERT_ACKNOWLEDGE] = "alert_acknowledged",
	};
	const struct alert_word *w = &cmd->alert;
	struct change *ch = batch_change(&c->batch, CHANGE_ALERT);
	char *kept = batch_strdup(&c->batch, subject);

	cmd->out.id = id;
	if (!ch || !kept)
		return prepare_fail_nomem(cmd);
	ch->alert.what = w->what;
	ch->alert.id = id;
	ch->alert.kind = kind;
	ch->alert.subject = kept;
	ch->alert.sentence = w->sentence;
	ch->alert.data = w->data;
	ch->alert.reason = w->reason;
	ch->alert.by = cmd->by;
	ch->alert.at_us = c->batch.now_us;
	return add_event(c, types[w->what], id, kind, kept, w) && add_messages(c, id, w)
		       ? PREPARED
		       : prepare_fail_nomem(cmd);
}

enum prepared prepare_alert(struct committer *c, struct command *cmd)
{
	const struct alert_word *w = &cmd->alert;
	struct stored_alert have;

	if (w->what == ALERT_RAISE)
		return write_alert(c, cmd, c->store->ops->next_id(c->store, ID_ALERT), w->kind,
				   w->subject);
	cmd->code = c->store->ops->find_alert(c->store, w->id, &have, &cmd->err);
	if (cmd->code != OTA_OK)
		return PREPARED_FAIL;
	cmd->out.id = w->id;
	cmd->out.existed = w->what == ALERT_CLEAR ? have.cleared : have.acknowledged;
	if (cmd->out.existed)
		return PREPARED;
	return write_alert(c, cmd, w->id, have.kind, have.subject);
}

enum prepared prepare_webhook(struct committer *c, struct command *cmd)
{
	struct change *ch = batch_change(&c->batch, CHANGE_WEBHOOK);

	if (!ch)
		return prepare_fail_nomem(cmd);
	ch->webhook.what = cmd->webhook.what;
	ch->webhook.id = cmd->webhook.id;
	ch->webhook.error = cmd->webhook.error;
	ch->webhook.at_us = c->batch.now_us;
	return PREPARED;
}
