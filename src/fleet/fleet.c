/* SPDX-License-Identifier: MIT */
#include "fleet/fleet.h"

#include "base/hash.h"
#include "core/runs.h"
#include "core/target.h"
#include "fleet/intern.h"
#include "fleet/state.h"
#include "fleet/tokens.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define TOUCHED_BITS 4096 /* a power of two; 32 KiB in all shards */

struct shard {
	pthread_mutex_t lock;
	struct device **buckets; /* bucket_count is a power of two */
	size_t bucket_count, device_count;
	/* Where devices were touched since they were last looked for: a bit for all buckets of the
	 * same low bits. */
	_Atomic uint64_t touched[TOUCHED_BITS / 64];
};

/* Devices name their models, so there may be many. */
#define MODEL_BUCKETS 4096

struct fleet {
	pthread_rwlock_t plan_lock;
	struct model *models; /* plan_lock: all, and by the hash of their names */
	struct model *model_buckets[MODEL_BUCKETS];
	struct shard shards[FLEET_SHARDS];
	pthread_mutex_t token_lock; /* after a shard's lock */
	struct token_table tokens;
	_Atomic size_t device_count; /* born ones */
	char *stop_reason;           /* plan_lock: NULL, all goes on */
	int64_t stop_since_us;
	_Atomic bool stopped;
	_Atomic uint64_t plan_number;
};

/* The low bits pick the shard, the next ones the bucket. */
static int shard_of(uint64_t hash)
{
	return (int)(hash % FLEET_SHARDS);
}

static struct device **bucket_of(const struct shard *s, uint64_t hash)
{
	return &s->buckets[(hash / FLEET_SHARDS) & (s->bucket_count - 1)];
}

struct fleet *fleet_new(void)
{
	struct fleet *f = calloc(1, sizeof *f);
	pthread_rwlockattr_t attr;

	if (!f)
		return NULL;
	/* Readers come all the time; the committer must not wait for a moment without any. */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&f->plan_lock, &attr);
	pthread_rwlockattr_destroy(&attr);
	pthread_mutex_init(&f->token_lock, NULL);
	for (int i = 0; i < FLEET_SHARDS; i++)
		pthread_mutex_init(&f->shards[i].lock, NULL);
	return f;
}

static void device_free(struct device *d)
{
	state_fini(&d->state);
	free(d);
}

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

void rollout_free(struct rollout **rp)
{
	struct rollout *r = *rp;

	if (!r)
		return;
	intern_put(r->name);
	intern_put(r->target.group);
	string_list_free(&r->target.device_ids);
	free(r->target.macs);
	free(r);
	*rp = NULL;
}

static void model_free(struct model *m)
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

void fleet_free(struct fleet **fp)
{
	struct fleet *f = *fp;

	if (!f)
		return;
	for (int i = 0; i < FLEET_SHARDS; i++) {
		struct shard *s = &f->shards[i];
		for (size_t b = 0; b < s->bucket_count; b++)
			for (struct device *d = s->buckets[b], *next; d; d = next) {
				next = d->next;
				device_free(d);
			}
		free(s->buckets);
		pthread_mutex_destroy(&s->lock);
	}
	for (struct model *m = f->models, *next; m; m = next) {
		next = m->next;
		model_free(m);
	}
	free(f->tokens.slots);
	free(f->stop_reason);
	pthread_mutex_destroy(&f->token_lock);
	pthread_rwlock_destroy(&f->plan_lock);
	free(f);
	*fp = NULL;
}

/* --- reading --- */

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

static struct model *find_model(struct fleet *f, const char *name)
{
	for (struct model *m = *model_bucket(f, name); m; m = m->bucket_next)
		if (m->name == name || strcmp(m->name, name) == 0)
			return m;
	return NULL;
}

const struct model *fleet_model(struct fleet *f, const char *name)
{
	return find_model(f, name);
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

static struct device *find_in(const struct shard *s, uint64_t hash, const char *device_id)
{
	if (s->bucket_count == 0)
		return NULL;
	for (struct device *d = *bucket_of(s, hash); d; d = d->next)
		if (d->hash == hash && strcmp(d->device_id, device_id) == 0)
			return d;
	return NULL;
}

const struct device *fleet_lock_device(struct fleet *f, const char *device_id)
{
	uint64_t hash = hash64(device_id, strlen(device_id));
	struct shard *s = &f->shards[shard_of(hash)];

	pthread_mutex_lock(&s->lock);
	struct device *d = find_in(s, hash, device_id);
	if (d && d->born)
		return d;
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

void fleet_unlock_device(struct fleet *f, const struct device *d)
{
	pthread_mutex_unlock(&f->shards[shard_of(d->hash)].lock);
}

void fleet_mark_seen(struct fleet *f, const struct device *d)
{
	struct device *w = (struct device *)(uintptr_t)d;
	struct shard *s = &f->shards[shard_of(d->hash)];
	size_t bit = (d->hash / FLEET_SHARDS) & (TOUCHED_BITS - 1);

	atomic_store_explicit(&w->seen_dirty, true, memory_order_release);
	atomic_fetch_or(&s->touched[bit / 64], UINT64_C(1) << bit % 64);
}

void fleet_touch(struct fleet *f, const struct device *d, int64_t now_us)
{
	struct device *w = (struct device *)(uintptr_t)d;

	atomic_store_explicit(&w->last_seen_us, now_us, memory_order_relaxed);
	fleet_mark_seen(f, d);
}

/* Visits the buckets that stand behind BIT: some more than those touched, never fewer. */
static bool visit_bit(const struct shard *s, size_t bit, fleet_visit_fn *visit, void *ctx)
{
	bool more = true;

	if (s->bucket_count == 0)
		return true;
	for (size_t b = bit & (s->bucket_count - 1); b < s->bucket_count && more; b += TOUCHED_BITS)
		for (struct device *d = s->buckets[b]; d && more; d = d->next)
			if (d->born)
				more = visit(d, ctx);
	return more;
}

bool fleet_visit_touched(struct fleet *f, int from, int to, fleet_visit_fn *visit, void *ctx)
{
	bool more = true;

	for (int i = from; i < to && more; i++) {
		struct shard *s = &f->shards[i];
		pthread_mutex_lock(&s->lock);
		for (size_t w = 0; w < TOUCHED_BITS / 64 && more; w++) {
			uint64_t bits = atomic_load(&s->touched[w]);
			if (bits)
				bits = atomic_exchange(&s->touched[w], 0);
			for (; bits && more; bits &= bits - 1)
				more = visit_bit(s, w * 64 + (size_t)__builtin_ctzll(bits), visit,
						 ctx);
		}
		pthread_mutex_unlock(&s->lock);
	}
	return more;
}

bool fleet_visit(struct fleet *f, int from, int to, fleet_visit_fn *visit, void *ctx)
{
	bool more = true;

	for (int i = from; i < to && more; i++) {
		struct shard *s = &f->shards[i];
		pthread_mutex_lock(&s->lock);
		for (size_t b = 0; b < s->bucket_count && more; b++)
			for (struct device *d = s->buckets[b]; d && more; d = d->next)
				if (d->born)
					more = visit(d, ctx);
		pthread_mutex_unlock(&s->lock);
	}
	return more;
}

size_t fleet_device_count(struct fleet *f)
{
	return atomic_load(&f->device_count);
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

bool fleet_names_image(void *fleet, const uint8_t sha256[DIGEST_SIZE])
{
	struct fleet *f = fleet;
	bool found = false;

	fleet_plan_read(f);
	for (const struct model *m = f->models; m; m = m->next)
		for (const struct release *r = m->releases; r; r = r->next)
			found = found ||
				(!r->deleted && memcmp(r->sha256, sha256, DIGEST_SIZE) == 0);
	fleet_plan_done(f);
	return found;
}

bool fleet_device_by_token(struct fleet *f, const char *token, char *device_id, size_t size)
{
	uint64_t h = token_hash(token);
	bool found = false;

	pthread_mutex_lock(&f->token_lock);
	const struct device *d = tokens_get(&f->tokens, h);
	if (d && strlen(d->device_id) < size) {
		strcpy(device_id, d->device_id);
		found = true;
	}
	pthread_mutex_unlock(&f->token_lock);
	return found;
}

/* --- the committer: devices --- */

struct device *fleet_find(struct fleet *f, const char *device_id)
{
	uint64_t hash = hash64(device_id, strlen(device_id));

	return find_in(&f->shards[shard_of(hash)], hash, device_id);
}

static bool shard_grow(struct shard *s)
{
	size_t n = s->bucket_count ? s->bucket_count * 2 : 16;
	struct device **more = calloc(n, sizeof(struct device *));

	if (!more)
		return s->bucket_count > 0; /* longer chains, nothing worse */
	pthread_mutex_lock(&s->lock);
	struct device **old = s->buckets;
	size_t old_count = s->bucket_count;
	s->buckets = more;
	s->bucket_count = n;
	for (size_t b = 0; b < old_count; b++)
		for (struct device *d = old[b], *next; d; d = next) {
			next = d->next;
			struct device **slot = bucket_of(s, d->hash);
			d->next = *slot;
			*slot = d;
		}
	pthread_mutex_unlock(&s->lock);
	free(old);
	return true;
}

struct device *fleet_add(struct fleet *f, const char *device_id, int64_t row_id, int64_t now_us)
{
	size_t len = strlen(device_id);
	struct device *d = calloc(1, sizeof *d + len + 1);

	if (!d)
		return NULL;
	d->id = row_id;
	d->hash = hash64(device_id, len);
	d->created_us = now_us;
	d->last_seen_us = now_us;
	d->device_id = memcpy(d + 1, device_id, len + 1);
	state_init(&d->state);
	struct shard *s = &f->shards[shard_of(d->hash)];
	if (s->device_count >= s->bucket_count && !shard_grow(s)) {
		free(d);
		return NULL;
	}
	pthread_mutex_lock(&s->lock);
	struct device **slot = bucket_of(s, d->hash);
	d->next = *slot;
	*slot = d;
	s->device_count++;
	pthread_mutex_unlock(&s->lock);
	return d;
}

bool fleet_reserve(struct fleet *f, const struct device_state *next)
{
	bool ok = true;

	if (next->attempt) {
		pthread_mutex_lock(&f->token_lock);
		ok = tokens_reserve(&f->tokens, 1024); /* more than a batch can add */
		pthread_mutex_unlock(&f->token_lock);
	}
	return ok && (!next->model[0] || fleet_model_ensure(f, next->model));
}

static bool same_groups(const struct device_state *a, const struct device_state *b)
{
	size_t na = a->groups ? a->groups->count : 0, nb = b->groups ? b->groups->count : 0;

	if (na != nb)
		return false;
	for (size_t i = 0; i < na; i++)
		if (a->groups->items[i] != b->groups->items[i])
			return false;
	return true;
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

static void rescan_lowest(struct fleet *f, struct rollout *r)
{
	struct lowest l = {r, UINT64_MAX};

	fleet_visit(f, 0, FLEET_SHARDS, find_lowest, &l);
	atomic_store(&r->lowest_hash, l.hash);
}

/* The device has come into the targets that now select it. */
static void lower_targets(struct model *m, const struct device *d)
{
	for (struct rollout *r = m ? m->rollouts : NULL; r; r = r->next) {
		uint64_t b = target_bucket(d, r->release);
		if (b < r->lowest_hash && target_selects(r, d))
			atomic_store(&r->lowest_hash, b);
	}
}

/* The device may have left targets in which it stood in. */
static void rescan_targets(struct fleet *f, struct model *m, const struct device *d)
{
	for (struct rollout *r = m ? m->rollouts : NULL; r; r = r->next)
		if (r->lowest_hash == target_bucket(d, r->release))
			rescan_lowest(f, r);
}

static void model_leave(struct model *m)
{
	if (m)
		m->device_count--;
}

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
		model_free(m);
	}
}

static void index_token(struct fleet *f, struct device *d, const struct attempt *was,
			const struct attempt *is)
{
	bool had = was && was->token[0], has = is && is->token[0];

	if (had && has && strcmp(was->token, is->token) == 0)
		return;
	pthread_mutex_lock(&f->token_lock);
	if (had)
		tokens_remove(&f->tokens, token_hash(was->token), d);
	if (has)
		tokens_put(&f->tokens, token_hash(is->token), d);
	pthread_mutex_unlock(&f->token_lock);
}

void fleet_publish(struct fleet *f, struct device *d, struct device_state *next)
{
	struct shard *s = &f->shards[shard_of(d->hash)];
	struct device_state old;
	struct model *was = d->born && d->state.model[0] ? find_model(f, d->state.model) : NULL;
	struct model *is = next->model[0] ? find_model(f, next->model) : NULL;
	bool moved =
		!d->born || was != is || !same_groups(&d->state, next) || d->state.mac != next->mac;

	index_token(f, d, d->state.attempt, next->attempt);
	if (!d->born)
		atomic_fetch_add(&f->device_count, 1);
	pthread_mutex_lock(&s->lock);
	old = d->state;
	d->state = *next;
	d->born = true;
	pthread_mutex_unlock(&s->lock);
	if (moved) {
		if (is != was && is)
			is->device_count++;
		rescan_targets(f, was, d);
		lower_targets(is, d);
		if (is != was)
			model_leave(was);
	}
	state_init(next);
	state_fini(&old);
}

void fleet_remove(struct fleet *f, struct device *d)
{
	struct shard *s = &f->shards[shard_of(d->hash)];
	struct model *m = d->born && d->state.model[0] ? find_model(f, d->state.model) : NULL;

	index_token(f, d, d->state.attempt, NULL);
	pthread_mutex_lock(&s->lock);
	struct device **p = bucket_of(s, d->hash);
	while (*p != d)
		p = &(*p)->next;
	*p = d->next;
	s->device_count--;
	pthread_mutex_unlock(&s->lock);
	if (d->born)
		atomic_fetch_sub(&f->device_count, 1);
	rescan_targets(f, m, d);
	model_leave(m);
	device_free(d);
}

/* --- the committer: the plan --- */

struct model *fleet_model_ensure(struct fleet *f, const char *name)
{
	struct model *m = find_model(f, name);

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
	rescan_lowest(f, r);
	pthread_rwlock_wrlock(&f->plan_lock);
	struct rollout **p = &m->rollouts;
	while (*p && (*p)->id > r->id)
		p = &(*p)->next;
	r->next = *p;
	*p = r;
	pthread_rwlock_unlock(&f->plan_lock);
	f->plan_number++;
}

void fleet_set_active(struct fleet *f, struct rollout *r, bool active)
{
	pthread_rwlock_wrlock(&f->plan_lock);
	r->active = active;
	pthread_rwlock_unlock(&f->plan_lock);
	f->plan_number++;
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

void fleet_set_learnt(struct fleet *f, struct release *r, struct string_list *learnt)
{
	struct model *m = find_model(f, r->model);

	pthread_rwlock_wrlock(&f->plan_lock);
	struct string_list *old = r->learnt;
	r->learnt = learnt;
	releases_mark_unique(m->releases);
	pthread_rwlock_unlock(&f->plan_lock);
	string_list_free(&old);
}
