/* SPDX-License-Identifier: MIT */
#include "fleet-sim/fleet.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE_MS 150000 /* while tries are open */

enum ota_code fleet_new(struct loop *loop, const struct fleet_options *o, const struct scenario *s,
			const struct web_limits *limits, struct fleet **out, struct ota_err *err)
{
	struct fleet *f = calloc(1, sizeof *f);
	const char *version;

	if (!f)
		return ota_fail_nomem(err);
	f->o = *o;
	f->scenario = *s;
	f->loop = loop;
	f->pool = pool_new();
	f->devices = calloc(o->devices, sizeof *f->devices);
	version = f->pool ? pool_string(f->pool, o->version, strlen(o->version)) : NULL;
	if (!f->devices || !version || web_new(loop, limits, &f->web, err) != OTA_OK) {
		fleet_free(&f);
		return ota_fail_nomem(err);
	}
	for (uint32_t i = 0; i < o->devices; i++) {
		f->devices[i].number = i;
		f->devices[i].version = version;
		traits_draw(&f->devices[i].traits, s, o->seed, i);
	}
	f->stats.states[DEVICE_OFF] = o->devices;
	f->stats.last_news_ms = loop_now_ms(loop);
	*out = f;
	return OTA_OK;
}

static void device_fini(struct device *d)
{
	if (d->work) {
		sha256_free(&d->work->hash);
		free(d->work->url);
		free(d->work);
	}
	reports_free(d);
	record_fini(&d->record);
}

void fleet_free(struct fleet **p)
{
	struct fleet *f = *p;

	if (!f)
		return;
	broker_free(&f->broker);
	web_free(&f->web);
	for (uint32_t i = 0; f->devices && i < f->o.devices; i++)
		device_fini(&f->devices[i]);
	free(f->devices);
	pool_free(&f->pool);
	free(f);
	*p = NULL;
}

static void on_start(void *ctx, uint64_t arg)
{
	struct fleet *f = ctx;

	if (!f->ending)
		device_start(f, &f->devices[arg]);
}

void fleet_start(struct fleet *f)
{
	for (uint32_t i = 0; i < f->o.devices; i++)
		loop_after(f->loop, f->o.ramp_ms * i / f->o.devices, on_start, f, i);
}

bool fleet_is_done(const struct fleet *f, int64_t quiet_ms)
{
	const struct fleet_stats *s = &f->stats;
	int64_t busy = s->states[DEVICE_WAITING] + s->states[DEVICE_DOWNLOADING] +
		       s->states[DEVICE_INSTALLING] + s->states[DEVICE_RESTARTING];
	int64_t bricked = s->states[DEVICE_BRICKED];

	if (busy > 0 || s->seen < f->o.devices)
		return false;
	if (f->o.mqtt) {
		/* The service tells a device again that lost power, after a while. */
		if (s->outcomes[OUTCOME_OPEN] > 0 && quiet_ms < PATIENCE_MS)
			quiet_ms = PATIENCE_MS;
		return s->offers > 0 && loop_now_ms(f->loop) - s->last_news_ms >= quiet_ms;
	}
	return s->settled + bricked >= f->o.devices &&
	       (s->offers > 0 || s->up_to_date >= f->o.devices);
}

void fleet_end(struct fleet *f)
{
	f->ending = true;
}

bool fleet_is_drained(const struct fleet *f)
{
	const struct broker_stats *b = f->broker ? broker_stats(f->broker) : NULL;

	if (b && b->published > b->acknowledged + b->abandoned)
		return false;
	for (uint32_t i = 0; i < f->o.devices; i++)
		if (f->devices[i].held > 0 || f->devices[i].reports || f->devices[i].checking)
			return false;
	return true;
}

void device_id(const struct fleet *f, const struct device *d, char out[DEVICE_ID_SIZE])
{
	snprintf(out, DEVICE_ID_SIZE, "fleet-%" PRIu64 "-%" PRIu32, f->o.seed, d->number);
}

struct device *fleet_find(struct fleet *f, const char *id)
{
	char prefix[DEVICE_ID_SIZE], *end;
	size_t n = (size_t)snprintf(prefix, sizeof prefix, "fleet-%" PRIu64 "-", f->o.seed);
	unsigned long number;

	if (strncmp(id, prefix, n) != 0 || id[n] < '0' || id[n] > '9')
		return NULL;
	number = strtoul(id + n, &end, 10);
	return *end == 0 && number < f->o.devices ? &f->devices[number] : NULL;
}
