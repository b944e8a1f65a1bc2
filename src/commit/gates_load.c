/* SPDX-License-Identifier: MIT */
/* Gates as their events tell them, at start.  Before the committer's thread runs. */
#include "commit/gates.h"

#include "base/clock.h"
#include "core/stage.h"

#include <jansson.h>
#include <string.h>

struct load {
	struct committer *c;
	int64_t now_us;
	int64_t last; /* the highest number of an exposure */
};

static const struct {
	const char *type;
	enum gate_event_kind kind;
} kinds[] = {
	{"gate_stage", GATE_EVENT_STAGE},
	{"device_exposed", GATE_EVENT_EXPOSED},
	{"device_at_risk", GATE_EVENT_AT_RISK},
	{"device_proven", GATE_EVENT_PROVEN},
	{"device_failed", GATE_EVENT_FAILED},
	{"device_silent", GATE_EVENT_SILENT},
	{"device_given_back", GATE_EVENT_GIVEN_BACK},
	{"gate_overridden", GATE_EVENT_OVERRIDDEN},
};

bool gates_read_kind(const char *type, enum gate_event_kind *out)
{
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
		if (strcmp(type, kinds[i].type) == 0) {
			*out = kinds[i].kind;
			return true;
		}
	return false;
}

static const char *text_of(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

void gates_read_data(const json_t *data, struct gate_event *out)
{
	out->number = json_integer_value(json_object_get(data, "exposure"));
	out->devices = json_integer_value(json_object_get(data, "devices"));
	out->hw = text_of(data, "hw");
	out->from = text_of(data, "from");
}

static enum ota_code apply(struct load *l, const struct row_event *row, const json_t *data,
			   struct ota_err *err)
{
	struct committer *c = l->c;
	const struct rollout *r = fleet_rollout(c->fleet, row->rollout_id);
	struct gate_event e = {0};
	int64_t at_us;
	bool made;

	gates_read_data(data, &e);

	if (!row->created_at || !time_parse(row->created_at, &at_us))
		at_us = l->now_us;
	if (!r || r->guard.off || !gates_read_kind(row->type, &e.kind))
		return OTA_OK;
	if (e.kind == GATE_EVENT_OVERRIDDEN && r->guard.given)
		e.params = &r->guard.params;
	struct watch *k = gates_ensure(c, r, &made);
	/* One that was deleted since is in the evidence, and nowhere else; another may be called as
	 * it was. */
	struct device *d = row->device_id ? fleet_find(c->fleet, row->device_id) : NULL;
	if (d && at_us < d->created_us)
		d = NULL;
	if (!k || (d && e.kind == GATE_EVENT_EXPOSED && !watch_reserve(k)))
		return ota_fail_nomem(err);
	enum ota_code rc = gate_replay(&k->gate, &e, err);
	if (e.number > l->last)
		l->last = e.number;
	if (rc != OTA_OK)
		return rc;
	int kind = d && e.kind == GATE_EVENT_EXPOSED ? fair_take(&k->fair, d, e.hw, e.from) : -1;
	watch_apply(&c->gates, k, &e, d, kind, row->rollout_id, at_us);
	return rc;
}

static enum ota_code load_event(void *ctx, const struct row_event *row, struct ota_err *err)
{
	json_t *data = json_loads(row->data ? row->data : "{}", 0, NULL);

	if (!data)
		return ota_fail(err, OTA_EIO, "event %lld cannot be read", (long long)row->id);
	enum ota_code rc = apply(ctx, row, data, err);
	json_decref(data);
	return rc;
}

static bool is_kept(const struct rollout *r, int64_t now_us)
{
	switch (r->walk.state) {
	case ROLLOUT_ABORTED: return false;
	case ROLLOUT_COMPLETED: return now_us - r->walk.state_since_us < GATES_KEPT_US;
	default: return true;
	}
}

static bool is_live(const struct model *m, const struct release *rel, int64_t now_us)
{
	for (const struct rollout *r = m->rollouts; r; r = r->next)
		if (r->release == rel && !r->guard.off && is_kept(r, now_us))
			return true;
	return false;
}

static bool see_latest(const struct device *d, void *ctx)
{
	int64_t *latest_us = ctx;

	if (d->last_seen_us > *latest_us)
		*latest_us = d->last_seen_us;
	return true;
}

/* While the service stood still nobody could be heard. */
static void go_on(struct committer *c, int64_t now_us)
{
	int64_t latest_us = 0;

	if (c->gates.open == 0)
		return;
	fleet_visit(c->fleet, 0, FLEET_SHARDS, see_latest, &latest_us);
	if (latest_us)
		gate_clock_tick(&c->gates.clock, latest_us, true);
	for (struct watch *k = c->gates.first; k; k = k->next)
		for (size_t i = 0; i < k->open_count; i++)
			k->open[i].heard_us = now_us;
}

enum ota_code gates_load(struct committer *c, struct ota_err *err)
{
	struct load l = {.c = c, .now_us = clock_service_us()};

	for (const struct model *m = fleet_models(c->fleet); m; m = m->next)
		for (const struct release *rel = m->releases; rel; rel = rel->next) {
			if (!is_live(m, rel, l.now_us))
				continue;
			enum ota_code rc =
				c->store->ops->gate_events(c->store, rel->id, load_event, &l, err);
			if (rc != OTA_OK)
				return ota_wrap(err, "reading what the gates saw");
		}
	go_on(c, l.now_us);
	for (struct watch *k = c->gates.first; k; k = k->next)
		watch_count_waiting(c, k, NULL, 0);
	/* Not all numbers are those of rows: they must rise all the same. */
	while (l.last && c->store->ops->next_id(c->store, ID_ATTEMPT) < l.last)
		;
	return OTA_OK;
}
