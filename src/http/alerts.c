/* SPDX-License-Identifier: MIT */
/* Alerts: what is open, what was, and that somebody has seen it. */
#include "http/request.h"

#include <errno.h>
#include <stdlib.h>

static bool add_alert(void *ctx, const struct row_alert *row)
{
	struct page *p = ctx;
	struct buf *b = p->b;

	if (!page_takes(p, row->id))
		return false;
	json_open(b, NULL, '{');
	json_int(b, "id", row->id);
	json_str(b, "kind", row->kind);
	json_str(b, "subject", row->subject);
	json_str(b, "severity", row->severity);
	json_str(b, "sentence", row->sentence);
	json_str(b, "raised_at", row->raised_at);
	json_str(b, "acknowledged_at", row->acknowledged_at);
	json_str(b, "acknowledged_by", row->acknowledged_by);
	json_str(b, "acknowledged_reason", row->acknowledged_reason);
	json_str(b, "cleared_at", row->cleared_at);
	json_raw(b, "data", row->data);
	json_open(b, "webhooks", '{');
	json_int(b, "waiting", row->waiting);
	json_int(b, "given_up", row->given_up);
	json_str(b, "last_error", row->last_error);
	json_close(b, '}');
	json_close(b, '}');
	return true;
}

static void query_alerts(struct request *r)
{
	struct list_query *q = r->memory;
	struct page p = {.b = respond_begin(r, 200), .limit = q->limit++};
	struct store *s = r->server->store;

	json_open(p.b, "alerts", '[');
	r->job_code = s->ops->list_alerts(s, q, add_alert, &p, &r->job_err);
	json_close(p.b, ']');
	respond_cursor(r, p.count > p.limit, p.last_id);
	respond_end(r);
}

enum next alerts_list(struct request *r)
{
	struct list_query *q = request_list(r);
	bool open;

	if (!q)
		return NEXT_ANSWER;
	if (field_query_bool(&r->errors, &r->query, "open", false, &open))
		q->active = open;
	q->kind = request_filter(r, "kind");
	if (q->kind && alert_kind_from_name(q->kind) == ALERT_KINDS)
		field_errors_add(&r->errors, "query", "kind", FIELD_TYPE_VALUE,
				 "is no kind of alert; docs/alerts.md lists them");
	if (field_errors_any(&r->errors))
		return respond_fields(r);
	return request_job(r, query_alerts, request_list_done);
}

static enum next after_acknowledge(struct request *r)
{
	const struct command *cmd = &r->command;

	if (cmd->code != OTA_OK)
		return respond_err(r, &cmd->err);
	return respond_ok(r, "alert %lld %s acknowledged%s", (long long)cmd->out.id,
			  cmd->out.existed ? "was" : "is", cmd->out.existed ? " already" : "");
}

enum next alert_acknowledge(struct request *r)
{
	struct json_fields f = {.errors = &r->errors};
	struct alert_word *w = &r->command.alert;
	char *end;

	errno = 0;
	w->id = strtoll(r->args[0], &end, 10);
	if (errno != 0 || w->id <= 0 || *end != '\0' || r->args[0][0] < '0' || r->args[0][0] > '9')
		field_errors_add(&r->errors, "path", "alert_id", FIELD_TYPE_INTEGER,
				 "must be the whole number of an alert");
	if (!request_json_if_any(r))
		return NEXT_ANSWER;
	f.object = r->json;
	json_field_string(&f, "reason", false, 1, REASON_MAX, &w->reason);
	if (field_errors_any(&r->errors))
		return respond_fields(r);
	r->command.kind = COMMAND_ALERT;
	w->what = ALERT_ACKNOWLEDGE;
	return request_submit(r, after_acknowledge);
}
