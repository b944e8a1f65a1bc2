/* SPDX-License-Identifier: MIT */
/* fleet: random operations against a plain array, the token table, strings given back, readers
 * beside the writer. */
#include "fleet/fleet.h"

#include "base/hash.h"
#include "core/decide.h"
#include "core/target.h"
#include "fleet/intern.h"
#include "fleet/state.h"
#include "fleet/tokens.h"
#include "random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdatomic.h>
#include <string.h>

/* --- interned strings --- */

static void strings(void **state)
{
	char text[32];
	const char *first[1000];

	(void)state;
	assert_int_equal(intern_count(), 0);
	assert_ptr_equal(intern_get(""), intern_get(""));
	intern_put(intern_get(""));
	intern_put(NULL);
	for (int round = 0; round < 3; round++)
		for (int i = 0; i < 1000; i++) {
			snprintf(text, sizeof text, "string-%d", i);
			const char *s = intern_get(text);
			assert_string_equal(s, text);
			if (round == 0)
				first[i] = s;
			assert_ptr_equal(s, first[i]);
		}
	assert_int_equal(intern_count(), 1000);
	for (int round = 0; round < 3; round++)
		for (int i = 0; i < 1000; i++) {
			assert_string_equal(intern_ref(first[i]), first[i]);
			intern_put(first[i]);
			intern_put(first[i]);
		}
	assert_int_equal(intern_count(), 0);
}

/* --- the token table against an array --- */

static void tokens(void **state)
{
	enum { N = 400 };
	static struct device d[N];
	uint64_t hash[N] = {0};
	struct token_table t = {0};
	size_t used = 0;

	(void)state;
	random_begin("tokens");
	assert_null(tokens_get(&t, 5));
	tokens_remove(&t, 5, &d[0]);
	assert_true(token_hash("") != 0);
	for (int step = 0; step < 200000; step++) {
		int i = random_below(N);
		if (hash[i]) {
			tokens_remove(&t, hash[i], &d[(i + 1) % N]); /* another device's: nothing */
			assert_ptr_equal(tokens_get(&t, hash[i]), &d[i]);
			tokens_remove(&t, hash[i], &d[i]);
			assert_null(tokens_get(&t, hash[i]));
			hash[i] = 0;
			used--;
		} else {
			assert_true(tokens_reserve(&t, 1));
			/* Few home slots, so that runs of neighbours form and wrap round the end.
			 */
			hash[i] = (uint64_t)(i + 1) << 32 |
				  (uint64_t)(random_below(8) - 4 + (1 << 20));
			tokens_put(&t, hash[i], &d[i]);
			used++;
		}
		assert_int_equal(t.used, used);
		if (step % 500 == 0)
			for (int k = 0; k < N; k++)
				if (hash[k])
					assert_ptr_equal(tokens_get(&t, hash[k]), &d[k]);
	}
	free(t.slots);
}

/* --- device states --- */

static bool put_failures(struct device_state *s, int64_t release_id, int count)
{
	return state_set_failures(
		s, &(struct failure_count){.release_id = release_id, .count = count});
}

static void states(void **state)
{
	static const char *const names[] = {"b", "a", "b", "c"};
	struct device_state s, copy;
	struct device_digests g = {.has_elf = true, .elf = {7}};
	struct attempt a = {.id = 3, .version = "2", .from_version = "1", .token = "t"};

	(void)state;
	state_init(&s);
	assert_true(state_set_string(&s.model, "m"));
	assert_true(state_set_version(&s, "1"));
	assert_true(state_set_digests(&s, &g));
	g = (struct device_digests){.has_firmware = true, .firmware = {9}};
	assert_true(state_set_digests(&s, &g)); /* what was told before stays */
	assert_true(s.digests->has_elf && s.digests->has_firmware && s.digests->elf[0] == 7);
	assert_true(state_set_groups(&s, names, 4));
	assert_int_equal(s.groups->count, 3);
	assert_string_equal(s.groups->items[0], "a");
	assert_true(put_failures(&s, 5, 2) && put_failures(&s, 6, 1) && put_failures(&s, 5, 3));
	assert_int_equal(state_failures(&s, 5).count, 3);
	assert_int_equal(state_failures(&s, 6).count, 1);
	assert_true(put_failures(&s, 5, 0) && put_failures(&s, 7, 0));
	assert_int_equal(state_failures(&s, 5).count, 0);
	assert_true(state_set_attempt(&s, &a));
	assert_true(state_copy(&copy, &s));
	state_fini(&s);
	assert_string_equal(copy.attempt->version, "2");
	assert_int_equal(state_failures(&copy, 6).count, 1);
	assert_true(state_set_attempt(&copy, copy.attempt)); /* onto itself */
	assert_true(state_set_attempt(&copy, NULL));
	assert_true(state_set_groups(&copy, copy.groups->items, 2)); /* out of itself */
	assert_int_equal(copy.groups->count, 2);
	assert_true(state_set_groups(&copy, NULL, 0));
	assert_null(copy.groups);
	assert_true(state_set_version(&copy, "1"));
	assert_non_null(copy.digests);
	assert_true(state_set_version(&copy, "1.1"));
	assert_null(copy.digests);
	assert_true(put_failures(&copy, 6, 0));
	assert_null(copy.failures);
	state_fini(&copy);
	assert_int_equal(intern_count(), 0);
}

/* --- random operations --- */

#define DEVICES 60
#define MODELS  3
#define GROUPS  3
static const char *const model_names[MODELS] = {"m0", "m1", "m2"}, *const group_names[GROUPS] = {
									   "g0", "g1", "g2"};

/* What a device must be. */
struct expected {
	bool there;
	int model; /* -1: told none */
	unsigned groups;
	uint64_t mac;
	char version[16], token[ATTEMPT_TOKEN_LEN + 1];
};

static struct rollout *make_rollout(int64_t id, struct release *r)
{
	struct rollout *o = calloc(1, sizeof *o);
	char name[32];

	assert_non_null(o);
	snprintf(name, sizeof name, "r%lld", (long long)id);
	o->name = intern_get(name);
	o->id = id;
	o->release = r;
	o->target.type = (enum target_type)random_below(4);
	o->target.percent = 1 + random_below(20);
	o->target.group =
		intern_get(o->target.type == TARGET_GROUP ? group_names[random_below(GROUPS)] : "");
	if (o->target.type == TARGET_SPECIFIC) {
		o->target.macs = calloc(1, sizeof *o->target.macs);
		o->target.macs[0] = (uint64_t)(1 + random_below(4));
		o->target.mac_count = 1;
	}
	o->requires = o->walk.reason = "";
	o->stage_count = 1;
	o->stages = calloc(1, sizeof *o->stages);
	assert_non_null(o->stages);
	o->stages[0].percent = o->target.percent;
	o->active = true;
	o->lowest_hash = UINT64_MAX;
	return o;
}

static void set_active(struct fleet *f, struct rollout *o, bool active)
{
	struct walk w = {.state = active ? ROLLOUT_RUNNING : ROLLOUT_PAUSED,
			 .reason = intern_get("why")};

	fleet_set_walk(f, o, &w);
	assert_int_equal(o->active, active);
}

static struct release *make_release(int64_t id, const char *model)
{
	struct release *r = calloc(1, sizeof *r);
	char version[32];

	assert_non_null(r);
	snprintf(version, sizeof version, "%lld.0.0", (long long)id);
	r->version = intern_get(version);
	r->model = intern_get(model);
	r->min_version = r->inner_version = r->project = r->release_notes = "";
	r->id = id;
	r->salt = target_salt(model, version);
	return r;
}

static void name_of(int i, char out[16])
{
	snprintf(out, 16, "device-%d", i);
}

struct low {
	const struct rollout *o;
	uint64_t lowest;
	size_t model_devices;
};

static bool find_low(const struct device *d, void *ctx)
{
	struct low *l = ctx;

	if (strcmp(d->state.model, l->o->release->model) == 0)
		l->model_devices++;
	if (target_selects(l->o, d) && target_bucket(d, l->o->release) < l->lowest)
		l->lowest = target_bucket(d, l->o->release);
	return true;
}

static void check_all(struct fleet *f, const struct expected *want)
{
	size_t count = 0;
	char name[16];

	for (int i = 0; i < DEVICES; i++) {
		name_of(i, name);
		const struct device *d = fleet_lock_device(f, name);
		if (!d != !want[i].there)
			fail_msg("%s", name);
		if (!d)
			continue;
		count++;
		assert_string_equal(d->device_id, name);
		assert_string_equal(d->state.version, want[i].version);
		assert_string_equal(d->state.model,
				    want[i].model < 0 ? "" : model_names[want[i].model]);
		assert_true(d->state.mac == want[i].mac);
		assert_int_equal(d->state.groups ? d->state.groups->count : 0,
				 __builtin_popcount(want[i].groups));
		fleet_unlock_device(f, d);
		char found[16] = "";
		if (want[i].token[0]) {
			assert_true(fleet_device_by_token(f, want[i].token, found, sizeof found));
			assert_string_equal(found, name);
			assert_false(
				fleet_device_by_token(f, want[i].token, found, 3)); /* no room */
		}
	}
	assert_int_equal(fleet_device_count(f), count);
	for (const struct model *m = fleet_models(f); m; m = m->next) {
		int64_t last = INT64_MAX;
		for (const struct rollout *o = m->rollouts; o; o = o->next) {
			struct low l = {o, UINT64_MAX, 0};
			fleet_visit(f, 0, FLEET_SHARDS, find_low, &l);
			if (l.lowest != o->lowest_hash)
				fail_msg("%s: lowest hash %llx, is %llx", o->name,
					 (unsigned long long)o->lowest_hash,
					 (unsigned long long)l.lowest);
			assert_int_equal(m->device_count, l.model_devices);
			assert_true(o->id < last);
			last = o->id;
		}
	}
}

static void change_device(struct fleet *f, struct expected *want, int i, int step)
{
	struct device_state next;
	const char *names[GROUPS];
	size_t n = 0;
	char name[16];

	name_of(i, name);
	struct device *d = fleet_find(f, name);
	if (!d) {
		d = fleet_add(f, name, i + 1, 1000);
		assert_non_null(d);
		assert_null(fleet_lock_device(f, name)); /* readers do not see it yet */
	}
	assert_true(state_copy(&next, &d->state));
	struct expected e = want[i];
	e.there = true;
	if (!want[i].there || random_below(3) == 0)
		e.model = random_below(MODELS + 1) - 1;
	if (random_below(2))
		e.groups = (unsigned)random_below(1 << GROUPS);
	if (random_below(2))
		e.mac = (uint64_t)random_below(5);
	snprintf(e.version, sizeof e.version, "%d", random_below(4));
	for (int g = 0; g < GROUPS; g++)
		if (e.groups & 1u << g)
			names[n++] = group_names[g];
	e.token[0] = '\0';
	struct attempt a = {.id = step, .version = "9", .from_version = e.version};
	if (random_below(2)) {
		snprintf(a.token, sizeof a.token, "t%011d", step);
		strcpy(e.token, a.token);
	}
	next.mac = e.mac;
	assert_true(state_set_string(&next.model, e.model < 0 ? "" : model_names[e.model]) &&
		    state_set_string(&next.version, e.version) &&
		    state_set_groups(&next, names, n) &&
		    state_set_attempt(&next, e.token[0] || random_below(2) ? &a : NULL) &&
		    fleet_reserve(f, &next));
	if (random_below(5) == 0) { /* the commit failed */
		state_fini(&next);
		if (!want[i].there)
			fleet_remove(f, d);
		return;
	}
	if (want[i].token[0] && strcmp(want[i].token, e.token) != 0) {
		char found[16];
		fleet_publish(f, d, &next);
		assert_false(fleet_device_by_token(f, want[i].token, found, sizeof found));
	} else {
		fleet_publish(f, d, &next);
	}
	want[i] = e;
}

static void random_operations(void **state)
{
	struct expected want[DEVICES] = {{0}};
	int64_t plan_id = 0;
	char name[16];

	(void)state;
	random_begin("fleet");
	struct fleet *f = fleet_new();
	assert_non_null(f);
	for (int step = 1; step < 6000; step++) {
		int i = random_below(DEVICES);
		if (random_below(300) == 0 && plan_id < 40) {
			const char *model = model_names[random_below(MODELS)];
			struct model *m = fleet_model_ensure(f, model);
			struct release *r = make_release(++plan_id, model);
			fleet_publish_release(f, m, r);
			struct rollout *o = make_rollout(plan_id, r);
			fleet_publish_rollout(f, m, o);
			assert_ptr_equal(fleet_release(f, r->id), r);
			assert_ptr_equal(fleet_rollout(f, o->id), o);
			assert_ptr_equal(fleet_rollout_named(f, o->name), o);
			assert_ptr_equal(fleet_release_of(m, r->version), r);
			set_active(f, o, random_below(2));
			fleet_set_deleted(f, r, random_below(2));
			if (random_below(2)) {
				const char *learnt[] = {"x", "y"};
				fleet_set_learnt(f, r, string_list_new(learnt, 2));
			}
		} else if (random_below(4) == 0) {
			name_of(i, name);
			struct device *d = fleet_find(f, name);
			assert_int_equal(d != NULL, want[i].there);
			if (d)
				fleet_remove(f, d);
			want[i] = (struct expected){0};
		} else {
			change_device(f, want, i, step);
		}
		if (random_below(50) == 0)
			fleet_drop_empty_models(f);
		if (step % 20 == 0)
			check_all(f, want);
	}
	assert_null(fleet_model(f, "no such model"));
	assert_null(fleet_release(f, 999));
	fleet_free(&f);
	assert_null(f);
	assert_int_equal(intern_count(), 0);
}

static void empty_models_go(void **state)
{
	struct fleet *f = fleet_new();
	char name[32];

	(void)state;
	assert_non_null(f);
	for (int i = 0; i < 5000; i++) {
		snprintf(name, sizeof name, "model-%d", i);
		assert_non_null(fleet_model_ensure(f, name));
		assert_ptr_equal(fleet_model_ensure(f, name), fleet_model(f, name));
	}
	struct model *kept = fleet_model_ensure(f, "model-77");
	fleet_publish_release(f, kept, make_release(1, "model-77"));
	fleet_drop_empty_models(f);
	assert_ptr_equal(fleet_models(f), kept);
	assert_null(kept->next);
	assert_null(fleet_model(f, "model-78"));
	assert_ptr_equal(fleet_model(f, "model-77"), kept);
	fleet_free(&f);
	assert_int_equal(intern_count(), 0);
}

/* --- who was heard of --- */

static bool count_seen(const struct device *d, void *ctx)
{
	struct device *w = (struct device *)(uintptr_t)d;

	*(int *)ctx += atomic_exchange(&w->seen_dirty, false);
	return true;
}

static bool refuse(const struct device *d, void *ctx)
{
	(void)d;
	(*(int *)ctx)++;
	return false;
}

static void add_plain(struct fleet *f, int i)
{
	struct device_state next;
	char name[24];

	snprintf(name, sizeof name, "touch-%d", i);
	struct device *d = fleet_add(f, name, i + 1, 1000);
	assert_non_null(d);
	state_init(&next);
	assert_true(fleet_reserve(f, &next));
	fleet_publish(f, d, &next);
}

/* Each touched device is found once, however much the fleet has grown since; nobody else is. */
static void touched_are_found(void **state)
{
	/* Fewer buckets than bits, about as many, several buckets a bit. */
	static const int sizes[] = {1000, 100000, 600000};
	struct fleet *f = fleet_new();
	int there = 0;

	(void)state;
	assert_non_null(f);
	for (int k = 0; k < 3; k++) {
		int touched = 0, found = 0, again = 0, visited = 0;
		for (int i = 0; i < there; i += 977, touched++) {
			char name[24];
			snprintf(name, sizeof name, "touch-%d", i);
			fleet_touch(f, fleet_find(f, name), 2000);
		}
		for (; there < sizes[k]; there++)
			add_plain(f, there);
		assert_true(fleet_visit_touched(f, 0, FLEET_SHARDS, count_seen, &found));
		assert_int_equal(found, touched);
		assert_true(fleet_visit_touched(f, 0, FLEET_SHARDS, refuse, &visited));
		assert_int_equal(visited, 0);
		assert_true(fleet_visit(f, 0, FLEET_SHARDS, count_seen, &again));
		assert_int_equal(again, 0);
	}
	fleet_mark_seen(f, fleet_find(f, "touch-77"));
	int visited = 0;
	assert_false(fleet_visit_touched(f, 0, FLEET_SHARDS, refuse, &visited));
	assert_int_equal(visited, 1);
	fleet_free(&f);
	assert_int_equal(intern_count(), 0);
}

/* --- readers beside the one writer --- */

struct traffic {
	struct fleet *f;
	atomic_bool stop;
	atomic_long read;
	atomic_int saw; /* readers that came upon something */
};

static bool look(const struct device *d, void *ctx)
{
	*(size_t *)ctx += strlen(d->state.version) +
			  (d->state.attempt ? strlen(d->state.attempt->version) : 0);
	return true;
}

static void *reads(void *arg)
{
	struct traffic *t = arg;
	const struct decide_params p = {.now_us = 1, .stale_us = 1};
	char name[16], text[512];
	size_t sum = 0;

	bool saw = false;

	for (unsigned i = 0; !atomic_load(&t->stop); i++) {
		name_of((int)(i * 7 % DEVICES), name);
		fleet_plan_read(t->f);
		const struct device *d = fleet_lock_device(t->f, name);
		if (d) {
			const struct model *m = fleet_model(t->f, d->state.model);
			struct decision x = decide(d, m, &p);
			reason_sentence(d, &x, text, sizeof text);
			sum += m ? m->device_count : 0;
			fleet_touch(t->f, d, i);
			fleet_unlock_device(t->f, d);
		}
		fleet_plan_done(t->f);
		if (i % 64 == 0) {
			fleet_plan_read(t->f);
			fleet_visit(t->f, 0, FLEET_SHARDS, look, &sum);
			for (const struct model *m = fleet_models(t->f); m; m = m->next)
				sum += m->device_count;
			fleet_plan_done(t->f);
		}
		snprintf(text, sizeof text, "t%011u", i % 3000);
		sum += fleet_device_by_token(t->f, text, name, sizeof name);
		sum += fleet_device_count(t->f);
		atomic_fetch_add(&t->read, 1);
		if (sum > 0 && !saw)
			atomic_fetch_add(&t->saw, 1);
		saw = sum > 0;
	}
	return NULL;
}

static void readers_and_writer(void **state)
{
	struct expected want[DEVICES] = {{0}};
	struct traffic t = {.f = fleet_new()};
	pthread_t readers[3];
	int64_t plan_id = 0;
	char name[16];

	(void)state;
	random_begin("readers");
	assert_non_null(t.f);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, reads, &t), 0);
	for (int step = 1; step < 3000 || atomic_load(&t.read) < 3000 || atomic_load(&t.saw) < 3;
	     step++) {
		int i = random_below(DEVICES);
		if (step % 100 == 0 && plan_id < 20) {
			const char *model = model_names[random_below(MODELS)];
			struct model *m = fleet_model_ensure(t.f, model);
			struct release *r = make_release(++plan_id, model);
			fleet_publish_release(t.f, m, r);
			struct rollout *o = make_rollout(plan_id, r);
			fleet_publish_rollout(t.f, m, o);
			set_active(t.f, o, step % 3);
			fleet_set_deleted(t.f, r, step % 2);
		} else if (random_below(5) == 0) {
			name_of(i, name);
			struct device *d = fleet_find(t.f, name);
			if (d)
				fleet_remove(t.f, d);
			want[i] = (struct expected){0};
		} else {
			change_device(t.f, want, i, step);
		}
		if (step % 30 == 0)
			fleet_drop_empty_models(t.f);
	}
	atomic_store(&t.stop, true);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(pthread_join(readers[i], NULL), 0);
	}
	check_all(t.f, want);
	fleet_free(&t.f);
	assert_int_equal(intern_count(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(strings),
		cmocka_unit_test(tokens),
		cmocka_unit_test(states),
		cmocka_unit_test(random_operations),
		cmocka_unit_test(empty_models_go),
		cmocka_unit_test(touched_are_found),
		cmocka_unit_test(readers_and_writer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
