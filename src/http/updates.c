/* SPDX-License-Identifier: MIT */
/* What happened: attempts and events, newest first. */
#include "http/request.h"

static void id_or_null(struct buf *b, const char *key, int64_t id)
{
	if (id)
		json_int(b, key, id);
	else
		json_nil(b, key);
}

void add_update_row(struct buf *b, const struct row_update *row)
{
	json_open(b, NULL, '{');
	json_int(b, "id", row->id);
	json_str(b, "attempt_id", row->attempt_id);
	json_str(b, "device_id", row->device_id);
	json_str(b, "firmware_version", row->firmware_version);
	json_str(b, "status", row->status);
	json_str(b, "closed", row->closed);
	json_str(b, "why", row->closed_why);
	json_str(b, "error_message", row->error_message);
	if (row->percent >= 0)
		json_int(b, "progress_percent", row->percent);
	else
		json_nil(b, "progress_percent");
	json_str(b, "from_version", row->from_version);
	json_str(b, "opened_at", row->opened_at);
	json_str(b, "started_at", row->started_at);
	json_str(b, "completed_at", row->completed_at);
	json_str(b, "reported_at", row->reported_at);
	id_or_null(b, "release_id", row->release_id);
	id_or_null(b, "rollout_id", row->rollout_id);
	json_bool(b, "unsolicited", row->unsolicited);
	json_close(b, '}');
}

static bool add_update(void *ctx, const struct row_update *row)
{
	struct page *p = ctx;

	if (!page_takes(p, row->id))
		return false;
	add_update_row(p->b, row);
	return true;
}

static void query_updates(struct request *r)
{
	struct list_query *q = r->memory;
	struct page p = {.b = respond_begin(r, 200), .limit = q->limit++};

	json_open(p.b, "updates", '[');
	r->job_code = r->server->store->ops->list_updates(r->server->store, q, add_update, &p,
							  &r->job_err);
	json_close(p.b, ']');
	respond_cursor(r, p.count > p.limit, p.last_id);
	respond_end(r);
}

static bool read_filters(struct request *r, struct list_query *q)
{
	q->device_id = request_name_filter(r, "device_id");
	q->version = request_name_filter(r, "firmware_version");
	if (request_filter(r, "rollout_id"))
		field_query_int(&r->errors, &r->query, "rollout_id", false, 1, INT64_MAX,
				&q->rollout_id);
	return !field_errors_any(&r->errors);
}

enum next updates_list(struct request *r)
{
	struct list_query *q = request_list(r);

	if (!q)
		return NEXT_ANSWER;
	q->status = request_filter(r, "status");
	if (q->status && attempt_event_from_status(q->status) == EVENT_NONE)
		field_errors_add(
			&r->errors, "query", "status", FIELD_TYPE_WORD,
			"must be one of pending, downloading, downloaded, installing, success, "
			"failed, rolled_back");
	if (!read_filters(r, q))
		return respond_fields(r);
	return request_job(r, query_updates, request_list_done);
}

static bool add_event(void *ctx, const struct row_event *row)
{
	struct page *p = ctx;
	struct buf *b = p->b;

	if (!page_takes(p, row->id))
		return false;
	json_open(b, NULL, '{');
	json_int(b, "id", row->id);
	json_str(b, "event_type", row->type);
	json_str(b, "device_id", row->device_id);
	json_str(b, "firmware_version", row->version);
	id_or_null(b, "rollout_id", row->rollout_id);
	json_raw(b, "event_data", row->data);
	json_str(b, "created_at", row->created_at);
	json_str(b, "created_by", row->created_by);
	json_close(b, '}');
	return true;
}

static void query_events(struct request *r)
{
	struct list_query *q = r->memory;
	struct page p = {.b = respond_begin(r, 200), .limit = q->limit++};

	json_open(p.b, "events", '[');
	r->job_code =
		r->server->store->ops->list_events(r->server->store, q, add_event, &p, &r->job_err);
	json_close(p.b, ']');
	respond_cursor(r, p.count > p.limit, p.last_id);
	respond_end(r);
}

enum next events_list(struct request *r)
{
	struct list_query *q = request_list(r);

	if (!q)
		return NEXT_ANSWER;
	q->event_type = request_filter(r, "event_type");
	field_query_bool(&r->errors, &r->query, "operations", false, &q->operations);
	if (!read_filters(r, q))
		return respond_fields(r);
	return request_job(r, query_events, request_list_done);
}
