/* SPDX-License-Identifier: MIT */
#include "conductor/silence.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* At the start devices are looked at that became silent within so long. */
#define BACK_US (48 * INT64_C(3600) * US_PER_S)
/* Of a device's newest attempts, so many are looked at for one that it made. */
#define ATTEMPTS_LOOKED_AT 5

/* A device that has just become silent. */
struct candidate {
	char *device_id;
	int64_t last_seen_us;
};

void silence_init(struct silence *s, struct fleet *f, struct store *st, int64_t now_us)
{
	*s = (struct silence){.fleet = f, .store = st};
	for (int i = 0; i < FLEET_SHARDS; i++)
		s->decided_us[i] = now_us - ALERT_SILENT_US - BACK_US;
}

static void forget(struct silence *s)
{
	for (size_t i = s->next; i < s->count; i++)
		free(s->waiting[i].device_id);
	s->next = s->count = 0;
}

void silence_fini(struct silence *s)
{
	forget(s);
	free(s->waiting);
	s->waiting = NULL;
}

/* --- the fleet --- */

bool silence_is_over(struct fleet *f, const char *device_id, int64_t now_us)
{
	const struct device *d = fleet_lock_device(f, device_id);

	if (!d)
		return true; /* it was deleted: nobody waits for it */
	bool heard = now_us - d->last_seen_us < ALERT_SILENT_US;
	fleet_unlock_device(f, d);
	return heard;
}

struct look {
	struct silence *s;
	int64_t from_us, to_us; /* last heard of in between */
	bool ok;
};

static bool collect(const struct device *d, void *ctx)
{
	struct look *l = ctx;
	struct silence *s = l->s;
	int64_t seen_us = d->last_seen_us;

	if (seen_us <= l->from_us || seen_us > l->to_us)
		return true;
	if (s->count == s->cap) {
		size_t cap = s->cap ? s->cap * 2 : 64;
		struct candidate *p = realloc(s->waiting, cap * sizeof *p);
		if (!p)
			return l->ok = false;
		s->waiting = p;
		s->cap = cap;
	}
	char *id = strdup(d->device_id);
	if (!id)
		return l->ok = false;
	s->waiting[s->count++] = (struct candidate){id, seen_us};
	return true;
}

void silence_look(struct silence *s, int64_t listens_us, int64_t now_us)
{
	struct look l = {.s = s, .to_us = now_us - ALERT_SILENT_US, .ok = true};

	/* While nobody could be heard silence says nothing. */
	if (s->next < s->count || listens_us > l.to_us)
		return;
	forget(s);
	l.from_us = s->decided_us[s->shard];
	fleet_visit(s->fleet, s->shard, s->shard + 1, collect, &l);
	if (!l.ok) {
		forget(s);
		return; /* the next look tries again */
	}
	s->decided_us[s->shard] = l.to_us;
	s->shard = (s->shard + 1) % FLEET_SHARDS;
}

/* --- the store --- */

struct last_update {
	int64_t updated_us; /* 0: none */
	char *version;      /* of 129 */
};

/* Its newest attempt that went as far as an installation; offers that were not taken stand aside.
 */
static bool see_update(void *ctx, const struct row_update *row)
{
	struct last_update *u = ctx;
	bool installed = strcmp(row->status, "success") == 0 ||
			 strcmp(row->status, "installing") == 0 ||
			 strcmp(row->status, "downloaded") == 0;

	if (installed && time_parse(row->reported_at, &u->updated_us))
		snprintf(u->version, 129, "%s", row->firmware_version);
	return strcmp(row->status, "pending") == 0;
}

enum silence_found silence_next(struct silence *s, int64_t listens_us, int64_t now_us,
				struct silent_device *out)
{
	struct list_query q = {.limit = ATTEMPTS_LOOKED_AT};
	struct last_update u = {.version = out->version};
	struct ota_err err;
	bool holds = false;

	if (s->next == s->count)
		return SILENCE_NOBODY;
	const struct candidate *c = &s->waiting[s->next];
	q.device_id = c->device_id;
	snprintf(out->device_id, sizeof out->device_id, "%s", c->device_id);
	out->last_seen_us = c->last_seen_us;
	if (!silence_is_over(s->fleet, c->device_id, now_us)) {
		if (s->store->ops->list_updates(s->store, &q, see_update, &u, &err) != OTA_OK)
			return SILENCE_UNKNOWN;
		const struct alert_silence is = {c->device_id, u.version, c->last_seen_us,
						 u.updated_us};
		holds = u.updated_us && alert_of_silence(&is, listens_us, now_us, out->sentence);
	}
	if (holds)
		return SILENCE_FOUND;
	silence_told(s);
	return SILENCE_ANOTHER;
}

void silence_told(struct silence *s)
{
	free(s->waiting[s->next++].device_id);
}
