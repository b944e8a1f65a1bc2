/* SPDX-License-Identifier: MIT */
#include "fleet/fleet_internal.h"

#include "base/hash.h"
#include "core/alert.h"
#include "core/gate_silence.h"
#include "core/target.h"
#include "fleet/intern.h"
#include "fleet/state.h"

#include <stdlib.h>
#include <string.h>

/* The low bits pick the shard, the next ones the bucket. */
static int shard_of(uint64_t hash)
{
	return (int)(hash % FLEET_SHARDS);
}

static struct device **bucket_of(const struct shard *s, uint64_t hash)
{
	return &s->buckets[(hash / FLEET_SHARDS) & (s->bucket_count - 1)];
}

int fleet_shard(const struct device *d)
{
	return shard_of(d->hash);
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
		fleet_model_free(m);
	}
	for (struct group_window *g = f->group_windows.first, *next; g; g = next) {
		next = g->next;
		group_window_free(&g);
	}
	free(f->tokens.slots);
	free(f->stop_reason);
	pthread_mutex_destroy(&f->token_lock);
	pthread_rwlock_destroy(&f->plan_lock);
	free(f);
	*fp = NULL;
}

/* --- reading --- */

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

int64_t fleet_heard_us(const struct device *d, int64_t until_us)
{
	int64_t seen_us = atomic_load_explicit(&d->last_seen_us, memory_order_relaxed);
	const struct device_link *l = d->state.link;
	int64_t there_us = !l                                ? 0
			   : l->presence == PRESENCE_ONLINE  ? until_us
			   : l->presence == PRESENCE_OFFLINE ? l->presence_us
							     : 0;

	return there_us > seen_us ? there_us : seen_us;
}

/* When it was heard of, and how often it is: it need say nothing while it is online. */
static void hear(struct device *d, int64_t now_us)
{
	int64_t before_us = fleet_heard_us(d, now_us);
	int64_t habit_us = atomic_load_explicit(&d->habit_us, memory_order_relaxed);

	if (before_us > LAST_SEEN_NEVER_US)
		atomic_store_explicit(&d->habit_us, gate_habit_next(habit_us, now_us - before_us),
				      memory_order_relaxed);
	atomic_store_explicit(&d->last_seen_us, now_us, memory_order_relaxed);
}

void fleet_touch(struct fleet *f, const struct device *d, int64_t now_us)
{
	hear((struct device *)(uintptr_t)d, now_us);
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
			fleet_rescan_lowest(f, r);
}

static void model_leave(struct model *m)
{
	if (m)
		m->device_count--;
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

/* --- who has tried what --- */

static void note_try(struct fleet *f, int64_t release_id, const struct failure_count *at, int by)
{
	struct release *r = (struct release *)(uintptr_t)fleet_release(f, release_id);

	if (!r)
		return;
	r->tried += by;
	if (at && at->passing >= ALERT_BREAKS)
		r->broken[at->code >= 0 && at->code <= RESULT_CODE_LAST ? at->code : 0] += by;
}

/* What failed before a success stays written down until the next try: that one is a success. */
static void note_tries(struct fleet *f, const struct device_state *s, int by)
{
	if (s->ran_release_id)
		note_try(f, s->ran_release_id, NULL, by);
	for (const struct failure_count *at = s->failures; at && at->release_id; at++)
		if (at->release_id != s->ran_release_id)
			note_try(f, at->release_id, at, by);
}

static bool same_tries(const struct device_state *a, const struct device_state *b)
{
	const struct failure_count *x = a->failures, *y = b->failures;

	for (; x && y && x->release_id && x->release_id == y->release_id; x++, y++)
		if (x->passing != y->passing || x->code != y->code)
			return false;
	return a->ran_release_id == b->ran_release_id && (!x || !x->release_id) &&
	       (!y || !y->release_id);
}

void fleet_publish(struct fleet *f, struct device *d, struct device_state *next)
{
	struct shard *s = &f->shards[shard_of(d->hash)];
	struct device_state old;
	struct model *was =
		d->born && d->state.model[0] ? fleet_find_model(f, d->state.model) : NULL;
	struct model *is = next->model[0] ? fleet_find_model(f, next->model) : NULL;
	bool moved =
		!d->born || was != is || !same_groups(&d->state, next) || d->state.mac != next->mac;

	index_token(f, d, d->state.attempt, next->attempt);
	if (!same_tries(&d->state, next)) {
		note_tries(f, &d->state, -1); /* an unborn one has none */
		note_tries(f, next, 1);
	}
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
	struct model *m = d->born && d->state.model[0] ? fleet_find_model(f, d->state.model) : NULL;

	index_token(f, d, d->state.attempt, NULL);
	note_tries(f, &d->state, -1);
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
