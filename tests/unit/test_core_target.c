/* SPDX-License-Identifier: MIT */
/* core/target: who is inside a percentage, a group, a list; and that a percentage only ever grows
 * its set. */
#include "core_world.h"
#include "random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>

static void set_id(struct device *d, char *buf, int i)
{
	sprintf(buf, "esp32_%06d", i);
	d->device_id = buf;
	d->hash = hash64(buf, strlen(buf));
}

static bool inside(struct rollout *o, const struct device *d, int percent)
{
	o->target.percent = percent;
	return target_includes(o, d);
}

static void percentage_grows(void **state)
{
	struct world w;
	char id[32];
	struct device d = world_device("x", "1");

	(void)state;
	random_begin("percentage");
	world_init(&w);
	struct rollout *o = world_rollout(&w, world_release(&w, "2.0.0"), TARGET_CANARY);
	for (int i = 0; i < 5000; i++) {
		set_id(&d, id, random_below(1 << 20));
		w.releases[0].salt = random_next();
		o->lowest_hash = random_below(4) ? UINT64_MAX : target_bucket(&d, o->release);
		bool was = false;
		for (int p = 1; p <= 100; p++) {
			bool is = inside(o, &d, p);
			if (was && !is)
				fail_msg("%s is inside %d %% and not inside %d %%", id, p - 1, p);
			was = is;
		}
		assert_true(was);
	}
}

static void distribution(void **state)
{
	static const int percents[] = {1, 10, 25, 50, 75, 99};
	enum { DEVICES = 100000 };
	struct world w;
	char id[32];
	struct device d = world_device("x", "1");

	(void)state;
	world_init(&w);
	struct rollout *o = world_rollout(&w, world_release(&w, "2.0.0"), TARGET_ALL);
	for (size_t k = 0; k < sizeof percents / sizeof *percents; k++) {
		int count = 0, p = percents[k];
		for (int i = 0; i < DEVICES; i++) {
			set_id(&d, id, i);
			count += inside(o, &d, p);
		}
		/* Five standard deviations of a fair draw. */
		double want = DEVICES * p / 100.0, sd = sqrt(want * (1 - p / 100.0));
		if (fabs(count - want) > 5 * sd)
			fail_msg("%d %%: %d of %d", p, count, DEVICES);
	}
}

/* Whether a device is early in one release says nothing about the next. */
static void orders_differ(void **state)
{
	struct world w;
	char id[32];
	struct device d = world_device("x", "1");
	int both = 0;

	(void)state;
	world_init(&w);
	struct rollout *a = world_rollout(&w, world_release(&w, "2.0.0"), TARGET_ALL);
	struct rollout *b = world_rollout(&w, world_release(&w, "2.0.1"), TARGET_ALL);
	for (int i = 0; i < 100000; i++) {
		set_id(&d, id, i);
		both += inside(a, &d, 10) && inside(b, &d, 10);
	}
	assert_in_range(both, 850, 1150); /* 1 % by chance; 10 % if the order were one */
	assert_true(target_salt("a", "1") != target_salt("b", "1"));
	assert_true(target_salt("a", "1") != target_salt("1", "a"));
	/* Values that rollouts in the field depend on: they never change. */
	assert_true(target_salt(MODEL, "2.0.0") ==
		    hash64_mix(hash64(MODEL, 8) + 3 * hash64("2.0.0", 5)));
}

static void stand_in(void **state)
{
	struct world w;
	char ids[5][32];
	struct device d[5];
	int alone = 0;

	(void)state;
	random_begin("stand-in");
	world_init(&w);
	struct rollout *o = world_rollout(&w, world_release(&w, "2.0.0"), TARGET_ALL);
	for (int round = 0; round < 2000; round++) {
		uint64_t lowest = UINT64_MAX;
		w.releases[0].salt = random_next();
		for (int i = 0; i < 5; i++) {
			d[i] = world_device("x", "1");
			set_id(&d[i], ids[i], i);
			if (target_bucket(&d[i], o->release) < lowest)
				lowest = target_bucket(&d[i], o->release);
		}
		o->lowest_hash = UINT64_MAX;
		int by_percent = 0, with = 0;
		for (int i = 0; i < 5; i++)
			by_percent += inside(o, &d[i], 10);
		o->lowest_hash = lowest;
		for (int i = 0; i < 5; i++)
			with += inside(o, &d[i], 10);
		assert_int_equal(with, by_percent ? by_percent : 1);
		alone += by_percent == 0;
	}
	assert_true(alone > 100);
}

static void groups_and_lists(void **state)
{
	struct world w;
	struct device d = world_device("esp32_001", "1"), e = world_device("esp32_002", "1");
	struct list_of in = {2, {"beta", "kitchen"}}, ids = {2, {"esp32_001", "esp32_009"}};
	uint64_t macs[] = {0x10, 0x20, 0x30};

	(void)state;
	world_init(&w);
	struct release *r = world_release(&w, "2.0.0");
	struct rollout *g = world_rollout(&w, r, TARGET_GROUP),
		       *s = world_rollout(&w, r, TARGET_SPECIFIC);
	g->target.group = "kitchen";
	d.state.groups = (const struct string_list *)&in;
	assert_true(target_selects(g, &d) && target_includes(g, &d));
	assert_false(target_selects(g, &e) || target_includes(g, &e));
	g->target.group = "kitch";
	assert_false(target_selects(g, &d));

	s->target.device_ids = (struct string_list *)&ids;
	assert_true(target_includes(s, &d));
	assert_false(target_includes(s, &e));
	s->target.percent = 1; /* means nothing for named devices */
	assert_true(target_includes(s, &d));
	s->target.macs = macs;
	s->target.mac_count = 3;
	e.state.mac = 0x20;
	assert_true(target_includes(s, &e));
	e.state.mac = 0x21;
	assert_false(target_includes(s, &e));
	s->target.device_ids = NULL;
	e.state.mac = 0x30;
	assert_true(target_includes(s, &e));
	assert_false(target_includes(s, &d));
	e.state.model = "esp32";
	assert_false(target_selects(s, &e));
	g->target.type = TARGET_ALL;
	assert_false(target_selects(g, &e));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(percentage_grows), cmocka_unit_test(distribution),
		cmocka_unit_test(orders_differ),    cmocka_unit_test(stand_in),
		cmocka_unit_test(groups_and_lists),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
