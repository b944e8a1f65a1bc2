/* SPDX-License-Identifier: MIT */
#include "http/census.h"

#include "base/clock.h"
#include "base/exposition.h"
#include "core/attempt.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Models and versions are what devices say: so many pairs are shown, the largest; the rest as one.
 */
#define SHOWN_MAX 500
#define PAIRS_MAX 4096 /* a power of two, twice what is kept apart */
#define KEPT_MAX  (PAIRS_MAX / 2)
#define DAY_US    (INT64_C(86400) * US_PER_S)

struct pair {
	const char *model,
		*version; /* interned: compared as pointers, and read under the shard's lock */
	char *names;      /* "model\0version\0", ours; NULL: no pair */
	int64_t devices;
};

struct count {
	size_t pairs;
	struct pair table[PAIRS_MAX], others;
	int64_t online, seen_day, open[ATTEMPT_STATES];
	int64_t now_us;
	bool failed;
};

struct census {
	pthread_mutex_t lock; /* of shown */
	struct count *shown, *next;
};

static void count_clear(struct count *c)
{
	for (size_t i = 0; i < PAIRS_MAX; i++)
		free(c->table[i].names);
	memset(c, 0, sizeof *c);
}

struct census *census_new(void)
{
	struct census *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	c->shown = calloc(1, sizeof *c->shown);
	c->next = calloc(1, sizeof *c->next);
	pthread_mutex_init(&c->lock, NULL);
	if (!c->shown || !c->next)
		census_free(&c);
	return c;
}

void census_free(struct census **cp)
{
	struct census *c = *cp;

	if (!c)
		return;
	for (int i = 0; i < 2; i++) {
		struct count *k = i ? c->shown : c->next;
		if (k)
			count_clear(k);
		free(k);
	}
	pthread_mutex_destroy(&c->lock);
	free(c);
	*cp = NULL;
}

/* The pair of D; the one for all others when there are too many; NULL: out of memory. */
static struct pair *find_pair(struct count *c, const struct device *d)
{
	const char *model = d->state.model, *version = d->state.version;
	uint64_t h = ((uint64_t)(uintptr_t)model * 31 + (uint64_t)(uintptr_t)version) *
		     UINT64_C(0x9E3779B97F4A7C15);
	size_t i = (size_t)(h >> 40) & (PAIRS_MAX - 1);

	while (c->table[i].names) {
		if (c->table[i].model == model && c->table[i].version == version)
			return &c->table[i];
		i = (i + 1) & (PAIRS_MAX - 1);
	}
	if (c->pairs == KEPT_MAX)
		return &c->others;
	size_t m = strlen(model) + 1, v = strlen(version) + 1;
	char *names = malloc(m + v);
	if (!names)
		return NULL;
	memcpy(names, model, m);
	memcpy(names + m, version, v);
	c->pairs++;
	c->table[i] = (struct pair){model, version, names, 0};
	return &c->table[i];
}

static bool count_device(const struct device *d, void *ctx)
{
	struct count *c = ctx;
	struct pair *p = find_pair(c, d);

	if (!p) {
		c->failed = true;
		return false;
	}
	p->devices++;
	c->online += d->state.link && d->state.link->presence == PRESENCE_ONLINE;
	c->seen_day += c->now_us - d->last_seen_us <= DAY_US;
	if (d->state.attempt && attempt_is_open(d->state.attempt->state))
		c->open[d->state.attempt->state]++;
	return true;
}

enum ota_code census_take(struct census *c, struct fleet *f, int64_t now_us, struct ota_err *err)
{
	struct count *k = c->next;

	count_clear(k);
	k->now_us = now_us;
	for (int i = 0; i < FLEET_SHARDS && !k->failed; i++)
		fleet_visit(f, i, i + 1, count_device, k);
	if (k->failed)
		return ota_fail_nomem(err);
	pthread_mutex_lock(&c->lock);
	c->next = c->shown;
	c->shown = k;
	pthread_mutex_unlock(&c->lock);
	return OTA_OK;
}

static int by_devices(const void *a, const void *b)
{
	const struct pair *p = *(const struct pair *const *)a, *q = *(const struct pair *const *)b;

	return (q->devices > p->devices) - (q->devices < p->devices);
}

static void write_pairs(const struct count *c, struct buf *b)
{
	const struct pair **list = malloc((c->pairs + 1) * sizeof(struct pair *));
	int64_t others = c->others.devices;
	size_t n = 0;

	if (!list) {
		b->failed = true;
		return;
	}
	for (size_t i = 0; i < PAIRS_MAX; i++)
		if (c->table[i].names)
			list[n++] = &c->table[i];
	qsort(list, n, sizeof(struct pair *), by_devices);
	exposition_family(
		b, "paku_ota_devices_by_version", "gauge",
		"Devices of each model and version, the 500 largest; the rest as (others).");
	for (size_t i = 0; i < n; i++) {
		if (i >= SHOWN_MAX) {
			others += list[i]->devices;
			continue;
		}
		buf_adds(b, "paku_ota_devices_by_version{");
		exposition_label(b, "model", list[i]->names);
		buf_adds(b, ",");
		exposition_label(b, "version", list[i]->names + strlen(list[i]->names) + 1);
		buf_printf(b, "} %" PRId64 "\n", list[i]->devices);
	}
	if (others > 0)
		buf_printf(b,
			   "paku_ota_devices_by_version{model=\"(others)\",version=\"(others)\"} "
			   "%" PRId64 "\n",
			   others);
	free(list);
}

void census_write(struct census *c, struct buf *b)
{
	pthread_mutex_lock(&c->lock);
	const struct count *k = c->shown;

	write_pairs(k, b);
	exposition_one(b, "paku_ota_devices_online", "gauge",
		       "Devices whose presence at the broker says that they are there.", k->online);
	exposition_one(b, "paku_ota_devices_seen_24h", "gauge",
		       "Devices heard of in the last 24 hours.", k->seen_day);
	exposition_family(b, "paku_ota_attempts_open", "gauge", "Attempts under way, by status.");
	for (int s = 0; s < ATTEMPT_STATES; s++)
		if (attempt_is_open((enum attempt_state)s))
			buf_printf(b, "paku_ota_attempts_open{status=\"%s\"} %" PRId64 "\n",
				   attempt_status_word((enum attempt_state)s), k->open[s]);
	pthread_mutex_unlock(&c->lock);
}
