/* SPDX-License-Identifier: MIT */
/* Messages over MQTT that could not be understood, newest first. */
#include "http/request.h"

static bool add_rejected(void *ctx, const struct row_rejected *row)
{
	struct page *p = ctx;
	struct buf *b = p->b;

	if (!page_takes(p, row->id))
		return false;
	json_open(b, NULL, '{');
	json_int(b, "id", row->id);
	json_str(b, "device_id", row->device_id);
	json_str(b, "topic", row->topic);
	json_strn(b, "payload", row->payload ? row->payload : "", row->payload_len);
	json_str(b, "reason", row->reason);
	json_str(b, "detail", row->detail);
	json_str(b, "created_at", row->created_at);
	json_close(b, '}');
	return true;
}

static void query_rejected(struct request *r)
{
	struct list_query *q = r->memory;
	struct page p = {.b = respond_begin(r, 200), .limit = q->limit++};

	json_open(p.b, "rejected", '[');
	r->job_code = r->server->store->ops->list_rejected(r->server->store, q, add_rejected, &p,
							   &r->job_err);
	json_close(p.b, ']');
	respond_cursor(r, p.count > p.limit, p.last_id);
	respond_end(r);
}

enum next rejected_list(struct request *r)
{
	struct list_query *q = request_list(r);

	if (!q)
		return NEXT_ANSWER;
	q->device_id = request_filter(r, "device_id");
	q->status = request_filter(r, "reason");
	return request_job(r, query_rejected, request_list_done);
}
