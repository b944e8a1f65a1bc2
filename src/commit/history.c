/* SPDX-License-Identifier: MIT */
#include "commit/history.h"

#include "base/buf.h"
#include "base/clock.h"
#include "commit/gates.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* Rows that are held, of all rollouts together; of one, these at the least. */
#define ROWS       4096
#define ROWS_LEAST 16

/* --- which rollouts --- */

static bool is_watched(const struct rollout *r)
{
	return !r->guard.off && r->target.type != TARGET_SPECIFIC;
}

static void add_source(struct history *h, const struct rollout *r)
{
	if (h->count == HISTORY_ROLLOUTS)
		return;
	h->sources[h->count++] = (struct history_source){.rollout_id = r->id, .guard = r->guard};
	h->watched |= !r->guard.off;
	h->bounded |= r->guard.bounded;
}

/* With the plan held. */
static bool find_sources(struct committer *c, int64_t rollout_id, struct history *h)
{
	const struct rollout *r = fleet_rollout(c->fleet, rollout_id), *first = r;

	if (!r)
		return false;
	add_source(h, r);
	const struct model *m = is_watched(r) ? fleet_model(c->fleet, r->release->model) : NULL;
	for (const struct rollout *o = m ? m->rollouts : NULL; o; o = o->next) {
		if (o == r || o->release != r->release || !is_watched(o) || o->pruned_us)
			continue;
		add_source(h, o);
		if (o->id < first->id)
			first = o;
	}
	h->params = first->guard.params;
	return true;
}

enum ota_code history_find(struct committer *c, int64_t rollout_id, struct history *out,
			   struct ota_err *err)
{
	memset(out, 0, sizeof *out);
	fleet_plan_read(c->fleet);
	const struct rollout *r = fleet_rollout(c->fleet, rollout_id);
	bool found = find_sources(c, rollout_id, out), gone = r && r->pruned_us;
	fleet_plan_done(c->fleet);
	if (gone)
		return ota_fail(err, OTA_EGONE,
				"what happened in rollout %lld is too long ago: its events are "
				"not kept any more (OTA_KEEP_EVENTS_DAYS)",
				(long long)rollout_id);
	return found ? OTA_OK
		     : ota_fail(err, OTA_ENOTFOUND, "no rollout has the id %lld",
				(long long)rollout_id);
}

/* --- their events, merged --- */

/* A row that is held: its strings are in the page's text, by their places. */
struct held {
	int64_t id, at_us;
	size_t type, device_id, data;
};

struct page_of {
	const struct history_source *source;
	struct buf text;
	struct held *rows;
	int count, at, limit;
	bool ended;
};

struct merge {
	struct committer *c;
	struct page_of *pages;
	int count;
};

static size_t keep(struct buf *b, const char *s)
{
	size_t at = b->len;

	buf_add(b, s ? s : "", (s ? strlen(s) : 0) + 1);
	return at;
}

static bool hold_row(void *ctx, const struct row_event *row)
{
	struct page_of *p = ctx;
	struct held *h = &p->rows[p->count++];

	h->id = row->id;
	if (!row->created_at || !time_parse(row->created_at, &h->at_us))
		h->at_us = 0;
	h->type = keep(&p->text, row->type);
	h->device_id = keep(&p->text, row->device_id);
	h->data = keep(&p->text, row->data);
	return true;
}

static enum ota_code next_page(struct merge *m, struct page_of *p, struct ota_err *err)
{
	int64_t after_id = p->count ? p->rows[p->count - 1].id : 0;
	struct store *s = m->c->store;

	buf_reset(&p->text);
	p->count = p->at = 0;
	enum ota_code rc = s->ops->rollout_history(s, p->source->rollout_id, after_id, p->limit,
						   hold_row, p, err);
	p->ended = p->count < p->limit;
	return rc == OTA_OK && !buf_ok(&p->text) ? ota_fail_nomem(err) : rc;
}

/* The page with the oldest event; NULL: none has one. */
static enum ota_code oldest(struct merge *m, struct page_of **out, struct ota_err *err)
{
	*out = NULL;
	for (int i = 0; i < m->count; i++) {
		struct page_of *p = &m->pages[i];
		enum ota_code rc = OTA_OK;

		if (p->at == p->count && !p->ended)
			rc = next_page(m, p, err);
		if (rc != OTA_OK)
			return rc;
		if (p->at < p->count && (!*out || p->rows[p->at].id < (*out)->rows[(*out)->at].id))
			*out = p;
	}
	return OTA_OK;
}

static enum ota_code tell(const struct page_of *p, history_fn *visit, void *ctx,
			  struct ota_err *err)
{
	const struct held *h = &p->rows[p->at];
	const struct guard *g = &p->source->guard;
	struct history_event e = {.id = h->id,
				  .rollout_id = p->source->rollout_id,
				  .at_us = h->at_us,
				  .type = p->text.data + h->type,
				  .device_id = p->text.data + h->device_id,
				  .data = p->text.data + h->data};
	json_t *data = NULL;

	e.is_gate = !g->off && gates_read_kind(e.type, &e.gate.gate.kind);
	e.gate.at_us = e.at_us;
	e.gate.bounded = g->bounded;
	if (e.is_gate) {
		data = json_loads(e.data, 0, NULL);
		if (!data)
			return ota_fail(err, OTA_EIO, "event %lld cannot be read",
					(long long)h->id);
		gates_read_data(data, &e.gate.gate);
		if (e.gate.gate.kind == GATE_EVENT_OVERRIDDEN && g->given)
			e.gate.gate.params = &g->params;
	}
	enum ota_code rc = visit(ctx, &e, err);
	json_decref(data);
	return rc;
}

static bool make_pages(struct merge *m, const struct history *h)
{
	int limit = ROWS / h->count > ROWS_LEAST ? ROWS / h->count : ROWS_LEAST;

	m->pages = calloc((size_t)h->count, sizeof *m->pages);
	for (; m->pages && m->count < h->count; m->count++) {
		struct page_of *p = &m->pages[m->count];

		p->source = &h->sources[m->count];
		p->limit = limit;
		p->rows = calloc((size_t)limit, sizeof *p->rows);
		if (!p->rows)
			return false;
	}
	return m->pages != NULL;
}

enum ota_code history_read(struct committer *c, const struct history *h, history_fn *visit,
			   void *ctx, struct ota_err *err)
{
	struct merge m = {.c = c};
	struct page_of *p;
	enum ota_code rc = make_pages(&m, h) ? OTA_OK : ota_fail_nomem(err);

	while (rc == OTA_OK && (rc = oldest(&m, &p, err)) == OTA_OK && p) {
		rc = tell(p, visit, ctx, err);
		p->at++;
	}
	for (int i = 0; m.pages && i < h->count; i++) {
		buf_fini(&m.pages[i].text);
		free(m.pages[i].rows);
	}
	free(m.pages);
	return rc;
}
