/* SPDX-License-Identifier: MIT */
/*
 * The plan: models, their releases and rollouts, and the great stop.  The committer writes under
 * the plan's write lock; all others read under its read lock.
 */
#include "fleet/fleet_internal.h"

#include "base/hash.h"
#include "core/runs.h"
#include "core/stage.h"
#include "core/target.h"
#include "fleet/intern.h"
#include "fleet/state.h"

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void release_free(struct release **rp)
{
	struct release *r = *rp;

	if (!r)
		return;
	intern_put(r->version);
	intern_put(r->model);
	intern_put(r->min_version);
	intern_put(r->inner_version);
	intern_put(r->project);
	intern_put(r->release_notes);
	string_list_free(&r->learnt);
	free(r);
	*rp = NULL;
}

void rollout_copy(struct rollout *to, const struct rollout *from)
{
	memcpy(to, from, offsetof(struct rollout, moves));
	to->moves = atomic_load(&from->moves);
	to->progressed_us = atomic_load(&from->progressed_us);
	to->lowest_hash = atomic_load(&from->lowest_hash);
	to->busy = atomic_load(&from->busy);
	to->busy_next = 0;
}

void rollout_free(struct rollout **rp)
{
	struct rollout *r = *rp;

	if (!r)
		return;
	intern_put(r->name);
	intern_put(r->target.group);
	intern_put(r->requires);
	intern_put(r->walk.reason);
	string_list_free(&r->target.device_ids);
	string_list_free(&r->back.others);
	free(r->target.macs);
	free(r->stages);
	window_free(&r->window);
	free(r);
	*rp = NULL;
}

void group_window_free(struct group_window **gp)
{
	struct group_window *g = *gp;

	if (!g)
		return;
	intern_put(g->group);
	window_free(&g->window);
	free(g);
	*gp = NULL;
}

const struct group_windows *fleet_group_windows(struct fleet *f)
{
	return &f->group_windows;
}

void fleet_set_group_window(struct fleet *f, struct group_window *g)
{
	struct group_window **p = &f->group_windows.first, *old = NULL;

	pthread_rwlock_wrlock(&f->plan_lock);
	while (*p && strcmp((*p)->group, g->group) < 0)
		p = &(*p)->next;
	if (*p && strcmp((*p)->group, g->group) == 0) {
		old = *p;
		*p = old->next;
	}
	if (g->window) {
		g->next = *p;
		*p = g;
		g = NULL;
	}
	pthread_rwlock_unlock(&f->plan_lock);
	f->plan_number++;
	group_window_free(&old);
	group_window_free(&g);
}

void fleet_model_free(struct model *m)
{
	for (struct rollout *r = m->rollouts, *next; r; r = next) {
		next = r->next;
		rollout_free(&r);
	}
	for (struct release *r = m->releases, *next; r; r = next) {
		next = r->next;
		release_free(&r);
	}
	intern_put(m->name);
	free(m);
}

void fleet_plan_read(struct fleet *f)
{
	pthread_rwlock_rdlock(&f->plan_lock);
}

void fleet_plan_done(struct fleet *f)
{
	pthread_rwlock_unlock(&f->plan_lock);
}

static struct model **model_bucket(struct fleet *f, const char *name)
{
	return &f->model_buckets[hash64(name, strlen(name)) % MODEL_BUCKETS];
}

struct model *fleet_find_model(struct fleet *f, const char *name)
{
	for (struct model *m = *model_bucket(f, name); m; m = m->bucket_next)
		if (m->name == name || strcmp(m->name, name) == 0)
			return m;
	return NULL;
}

const struct model *fleet_model(struct fleet *f, const char *name)
{
	return fleet_find_model(f, name);
}

const struct model *fleet_models(struct fleet *f)
{
	return f->models;
}

const struct release *fleet_release(struct fleet *f, int64_t id)
{
	for (struct model *m = f->models; m; m = m->next)
		for (struct release *r = m->releases; r; r = r->next)
			if (r->id == id)
				return r;
	return NULL;
}

const struct rollout *fleet_rollout(struct fleet *f, int64_t id)
{
	for (struct model *m = f->models; m; m = m->next)
		for (struct rollout *r = m->rollouts; r; r = r->next)
			if (r->id == id)
				return r;
	return NULL;
}

const struct rollout *fleet_rollout_named(struct fleet *f, const char *name)
{
	for (struct model *m = f->models; m; m = m->next)
		for (struct rollout *r = m->rollouts; r; r = r->next)
			if (strcmp(r->name, name) == 0)
				return r;
	return NULL;
}

const struct release *fleet_release_of(const struct model *m, const char *version)
{
	for (const struct release *r = m ? m->releases : NULL; r; r = r->next)
		if (strcmp(r->version, version) == 0)
			return r;
	return NULL;
}

bool fleet_is_stopped(struct fleet *f)
{
	return f->stopped;
}

bool fleet_stop_reason(struct fleet *f, char *reason, size_t size, int64_t *since_us)
{
	fleet_plan_read(f);
	bool stopped = f->stop_reason != NULL;
	if (stopped) {
		size_t n = strnlen(f->stop_reason, size - 1);
		memcpy(reason, f->stop_reason, n);
		reason[n] = '\0';
		*since_us = f->stop_since_us;
	}
	fleet_plan_done(f);
	return stopped;
}

uint64_t fleet_plan_number(struct fleet *f)
{
	return f->plan_number;
}

struct lowest {
	struct rollout *rollout;
	uint64_t hash;
};

static bool find_lowest(const struct device *d, void *ctx)
{
	struct lowest *l = ctx;

	if (target_selects(l->rollout, d)) {
		uint64_t b = target_bucket(d, l->rollout->release);
		if (b < l->hash)
			l->hash = b;
	}
	return true;
}

void fleet_rescan_lowest(struct fleet *f, struct rollout *r)
{
	struct lowest l = {r, UINT64_MAX};

	fleet_visit(f, 0, FLEET_SHARDS, find_lowest, &l);
	atomic_store(&r->lowest_hash, l.hash);
}

/* --- the committer alone --- */

static bool is_empty(const struct model *m)
{
	return m->device_count == 0 && !m->releases && !m->rollouts;
}

/* Takes the model out of the list and of its hash chain. */
static void model_unlink(struct fleet *f, struct model *m)
{
	*(m->previous ? &m->previous->next : &f->models) = m->next;
	if (m->next)
		m->next->previous = m->previous;
	struct model **p = model_bucket(f, m->name);
	while (*p != m)
		p = &(*p)->bucket_next;
	*p = m->bucket_next;
}

void fleet_drop_empty_models(struct fleet *f)
{
	struct model *m = f->models, *next, *dead = NULL;

	while (m && !is_empty(m))
		m = m->next;
	if (!m)
		return;
	pthread_rwlock_wrlock(&f->plan_lock);
	for (; m; m = next) {
		next = m->next;
		if (!is_empty(m))
			continue;
		model_unlink(f, m);
		m->next = dead;
		dead = m;
	}
	pthread_rwlock_unlock(&f->plan_lock);
	while ((m = dead) != NULL) {
		dead = m->next;
		fleet_model_free(m);
	}
}

struct model *fleet_model_ensure(struct fleet *f, const char *name)
{
	struct model *m = fleet_find_model(f, name);

	if (m)
		return m;
	m = calloc(1, sizeof *m);
	if (!m)
		return NULL;
	m->name = intern_get(name);
	if (!m->name) {
		free(m);
		return NULL;
	}
	m->chip = chip_from_model(name);
	pthread_rwlock_wrlock(&f->plan_lock);
	m->next = f->models;
	if (m->next)
		m->next->previous = m;
	f->models = m;
	struct model **bucket = model_bucket(f, m->name);
	m->bucket_next = *bucket;
	*bucket = m;
	pthread_rwlock_unlock(&f->plan_lock);
	return m;
}

void fleet_publish_release(struct fleet *f, struct model *m, struct release *r)
{
	pthread_rwlock_wrlock(&f->plan_lock);
	struct release **p = &m->releases;
	while (*p && (*p)->id > r->id)
		p = &(*p)->next;
	r->next = *p;
	*p = r;
	if (m->chip == CHIP_NONE)
		m->chip = r->chip;
	releases_mark_unique(m->releases);
	pthread_rwlock_unlock(&f->plan_lock);
}

void fleet_publish_rollout(struct fleet *f, struct model *m, struct rollout *r)
{
	assert(strcmp(r->release->model, m->name) == 0);
	fleet_rescan_lowest(f, r);
	pthread_rwlock_wrlock(&f->plan_lock);
	struct rollout **p = &m->rollouts;
	while (*p && ((*p)->priority > r->priority ||
		      ((*p)->priority == r->priority && (*p)->id > r->id)))
		p = &(*p)->next;
	r->next = *p;
	*p = r;
	pthread_rwlock_unlock(&f->plan_lock);
	f->plan_number++;
}

void fleet_set_walk(struct fleet *f, struct rollout *r, struct walk *w)
{
	const char *old = r->walk.reason;

	pthread_rwlock_wrlock(&f->plan_lock);
	r->walk = *w;
	r->active = rollout_state_offers(w->state);
	r->target.percent = r->stages[w->stage].percent;
	pthread_rwlock_unlock(&f->plan_lock);
	f->plan_number++;
	intern_put(old);
	w->reason = "";
}

void fleet_set_stop(struct fleet *f, char *reason, int64_t since_us)
{
	pthread_rwlock_wrlock(&f->plan_lock);
	char *old = f->stop_reason;
	f->stop_reason = reason;
	f->stop_since_us = since_us;
	f->stopped = reason != NULL;
	pthread_rwlock_unlock(&f->plan_lock);
	f->plan_number++;
	free(old);
}

void fleet_set_deleted(struct fleet *f, struct release *r, bool deleted)
{
	pthread_rwlock_wrlock(&f->plan_lock);
	r->deleted = deleted;
	pthread_rwlock_unlock(&f->plan_lock);
}

void fleet_set_suspect(struct fleet *f, struct release *r, int64_t since_us)
{
	pthread_rwlock_wrlock(&f->plan_lock);
	r->suspect_us = since_us;
	pthread_rwlock_unlock(&f->plan_lock);
}

void fleet_set_pruned(struct fleet *f, const struct release *r, int64_t since_us)
{
	struct model *m = fleet_find_model(f, r->model);

	pthread_rwlock_wrlock(&f->plan_lock);
	for (struct rollout *o = m->rollouts; o; o = o->next)
		if (o->release == r && !o->pruned_us)
			o->pruned_us = since_us;
	pthread_rwlock_unlock(&f->plan_lock);
}

void fleet_set_learnt(struct fleet *f, struct release *r, struct string_list *learnt)
{
	struct model *m = fleet_find_model(f, r->model);

	pthread_rwlock_wrlock(&f->plan_lock);
	struct string_list *old = r->learnt;
	r->learnt = learnt;
	releases_mark_unique(m->releases);
	pthread_rwlock_unlock(&f->plan_lock);
	string_list_free(&old);
}

struct fleet_image *fleet_list_images(struct fleet *f, size_t *count)
{
	size_t cap = 0;
	struct fleet_image *all = NULL;

	*count = 0;
	fleet_plan_read(f);
	for (const struct model *m = fleet_models(f); m; m = m->next)
		for (const struct release *r = m->releases; r; r = r->next)
			cap += !r->deleted;
	all = calloc(cap + 1, sizeof *all);
	for (const struct model *m = fleet_models(f); m && all; m = m->next)
		for (const struct release *r = m->releases; r; r = r->next) {
			if (r->deleted)
				continue;
			struct fleet_image *i = &all[(*count)++];
			memcpy(i->sha256, r->sha256, DIGEST_SIZE);
			i->size = r->file_size;
			snprintf(i->version, sizeof i->version, "%s", r->version);
			snprintf(i->model, sizeof i->model, "%s", r->model);
		}
	fleet_plan_done(f);
	return all;
}
