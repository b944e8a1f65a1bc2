/* SPDX-License-Identifier: MIT */
/* core/fair: whose turn it is at a gate, case by case, and with random fleets that ask by the
 * clock. */
#include "core/fair.h"

#include "core_world.h"
#include "random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define NOW   (INT64_C(1800000000) * US_PER_S)
#define HABIT (600 * US_PER_S)

static struct gate gate;
static struct fair fair;

static int begin(void **state)
{
	struct gate_params p = gate_params_default();

	(void)state;
	gate_init(&gate, &p);
	memset(&fair, 0, sizeof fair);
	return 0;
}

static int end(void **state)
{
	(void)state;
	gate_fini(&gate);
	return 0;
}

static struct device device_of(const char *hw)
{
	struct device d = world_device(hw, "1.0.0");

	d.state.hw = hw;
	d.last_seen_us = NOW;
	return d;
}

static void count(const struct device *d, int64_t now_us)
{
	fair_count(&fair, d, fair_due_us(d, HABIT, now_us), now_us);
}

static bool may(const struct device *d, int64_t now_us)
{
	return fair_may(&fair, &gate, d, now_us);
}

static int take(const struct device *d)
{
	return fair_take(&fair, d, d->state.hw, d->state.version);
}

static void by_turns(void **state)
{
	struct device a = device_of("a"), b = device_of("b"), c = device_of("c");

	(void)state;
	/* Nobody else is known. */
	assert_true(may(&a, NOW));
	for (int i = 0; i < 9; i++) {
		count(&a, NOW);
		count(&b, NOW);
	}
	assert_true(may(&a, NOW) && may(&b, NOW));
	int kind = take(&a);
	assert_false(may(&a, NOW));
	assert_true(may(&b, NOW));
	/* What gives its place back was none. */
	fair_give_back(&fair, kind);
	assert_true(may(&a, NOW));
	take(&a);
	take(&b);
	assert_true(may(&a, NOW) && may(&b, NOW));
	/* One that nobody counted comes as it comes, and holds nobody up. */
	assert_true(may(&c, NOW));
	for (int i = 1; i < FAIR_FIRST; i++) {
		take(&a);
		assert_false(may(&a, NOW));
		take(&b);
	}
	/* Each has had its first ones. */
	take(&a);
	take(&a);
	assert_true(may(&a, NOW));
	assert_false(fair_matters(&fair));
}

static void nobody_is_waited_for_in_vain(void **state)
{
	struct device a = device_of("a"), b = device_of("b"), dead = device_of("b");
	int64_t due_us = NOW + HABIT + HABIT / 4;

	(void)state;
	count(&a, NOW);
	count(&a, NOW);
	/* One that should have come long since is not there. */
	dead.last_seen_us = NOW - 2 * HABIT;
	count(&dead, NOW);
	take(&a);
	assert_true(may(&a, NOW));
	/* One that should come is waited for, until then. */
	fair_begin(&fair);
	count(&a, NOW);
	count(&b, NOW);
	assert_false(may(&a, NOW));
	assert_false(may(&a, due_us - 1));
	assert_true(may(&a, due_us));
	/* It was there, and found no place: once more. */
	b.last_seen_us = due_us;
	fair_waits(&fair, &b, fair_due_us(&b, HABIT, due_us), due_us);
	assert_false(may(&a, due_us + HABIT));
	assert_true(may(&a, due_us + 2 * HABIT));
	/* However seldom it comes, no longer than an hour. */
	fair_waits(&fair, &b, due_us + 100 * HABIT, due_us);
	assert_false(may(&a, due_us + FAIR_HOLD_US - 1));
	assert_true(may(&a, due_us + FAIR_HOLD_US));
	/* Without a place of its own it holds nobody up. */
	fair_waits(&fair, &b, due_us + HABIT, due_us);
	struct gate_place place;
	assert_int_equal(gate_take(&gate, "b", "1.0.0", &place), OTA_OK);
	gate_open(&gate, &place, 1);
	assert_false(may(&a, due_us));
	assert_int_equal(gate_take(&gate, "b", "1.0.0", &place), OTA_OK);
	gate_open(&gate, &place, 2);
	assert_true(may(&a, due_us));
	gate_proven(&gate, 1);
	gate_proven(&gate, 2);
	assert_false(may(&a, due_us));
	/* The last of them has had its place. */
	fair_begin(&fair);
	count(&b, due_us);
	take(&b);
	take(&a);
	assert_true(may(&a, due_us));
}

static void groups_and_versions_are_kinds(void **state)
{
	struct list_of north = {1, {"north"}}, both = {2, {"north", "south"}};
	struct device d[4];

	(void)state;
	for (int i = 0; i < 4; i++)
		d[i] = device_of("a");
	d[1].state.groups = (struct string_list *)&north;
	d[2].state.groups = (struct string_list *)&both;
	d[3].state.version = "1.1.0";
	for (int i = 0; i < 4; i++) {
		for (int k = 0; k < i; k++)
			assert_true(fair_key(&d[i], d[i].state.version) !=
				    fair_key(&d[k], d[k].state.version));
		count(&d[i], NOW);
		count(&d[i], NOW);
	}
	for (int i = 0; i < 4; i++) {
		assert_true(may(&d[i], NOW));
		take(&d[i]);
		assert_int_equal(may(&d[i], NOW), i == 3);
	}
}

/* More kinds than are told apart: the others come as they come. */
static void too_many_kinds(void **state)
{
	static char names[FAIR_KINDS_MAX + 50][8];

	(void)state;
	for (int i = 0; i < FAIR_KINDS_MAX + 50; i++) {
		snprintf(names[i], sizeof names[i], "h%d", i);
		struct device d = device_of(names[i]);
		count(&d, NOW);
		assert_int_equal(take(&d) < 0, i >= FAIR_KINDS_MAX);
		assert_true(may(&d, NOW));
	}
	fair_give_back(&fair, -1);
}

/* --- random fleets --- */

#define KINDS   10
#define DEVICES 120

struct asker {
	struct device d;
	int kind;
	int64_t next_us, habit_us, ends_us;
	int64_t number; /* of its exposure; 0: none */
	bool away;
};

struct fleet {
	struct asker asker[DEVICES];
	int count, exposed, met[KINDS], bad;
	int harmed, first[KINDS];
};

static void make(struct fleet *f, bool some_away)
{
	static const char *const revisions[KINDS] = {"r0", "r1", "r2", "r3", "r4",
						     "r5", "r6", "r7", "r8", "r9"};

	memset(f, 0, sizeof *f);
	f->bad = -1;
	f->count = DEVICES;
	for (int i = 0; i < f->count; i++) {
		struct asker *a = &f->asker[i];
		/* One kind in ten devices, and one that most are of. */
		a->kind = i < 2 * KINDS ? i % KINDS : random_below(3) ? 0 : random_below(KINDS);
		a->d = device_of(revisions[a->kind]);
		a->habit_us = (60 + random_below(3000)) * US_PER_S;
		a->next_us = NOW + random_below((int)(a->habit_us / US_PER_S)) * US_PER_S;
		a->d.last_seen_us = a->next_us - a->habit_us;
		a->away = some_away && a->kind % 3 == 1;
		fair_count(&fair, &a->d, fair_due_us(&a->d, a->habit_us, NOW), NOW);
	}
}

static void ends(struct fleet *f, struct asker *a, int64_t now_us)
{
	if (!a->number || a->ends_us != now_us)
		return;
	if (a->kind == f->bad)
		gate_failed(&gate, a->number);
	else
		gate_proven(&gate, a->number);
}

static void asks(struct fleet *f, struct asker *a, int64_t now_us)
{
	enum gate_answer answer = GATE_TURN;
	struct gate_place place;

	if (a->away || a->number || a->next_us > now_us)
		return;
	a->next_us = now_us + a->habit_us;
	a->d.last_seen_us = now_us;
	if (fair_may(&fair, &gate, &a->d, now_us))
		assert_int_equal(gate_reserve(&gate, a->d.state.hw, "1.0.0", &answer, &place),
				 OTA_OK);
	if (answer != GATE_FREE) {
		if (answer == GATE_FULL || answer == GATE_TURN || answer == GATE_VARIANT_FULL)
			fair_waits(&fair, &a->d, fair_due_us(&a->d, a->habit_us, now_us), now_us);
		return;
	}
	take(&a->d);
	gate_open(&gate, &place, a->number = ++f->exposed);
	a->ends_us = now_us + (a->kind == f->bad ? 60 : 660) * US_PER_S;
	f->harmed += a->kind == f->bad;
	if (!f->met[a->kind]++)
		f->first[a->kind] = f->exposed;
}

/* Until all that come have met it; how long that takes. */
static int64_t walk(struct fleet *f)
{
	int64_t t = NOW;

	for (bool more = true; more && !gate.line.halted; t += 10 * US_PER_S) {
		more = false;
		assert_true(t < NOW + 96 * 3600 * US_PER_S);
		for (int i = 0; i < f->count; i++)
			ends(f, &f->asker[i], t);
		for (int i = 0; i < f->count; i++) {
			struct asker *a = &f->asker[i];
			asks(f, a, t);
			more |= !a->away && (!a->number || a->ends_us >= t) &&
				!(a->kind == f->bad && f->harmed >= 2 &&
				  gate_ask(&gate, a->d.state.hw, "1.0.0") == GATE_VARIANT_HELD);
		}
	}
	return t - NOW;
}

/* Every kind is met among the first dozen, of however many devices it is. */
static void each_kind_early(void **state)
{
	(void)state;
	random_begin("fair");
	for (int round = 0; round < 30; round++) {
		struct fleet f;
		begin(NULL);
		make(&f, false);
		walk(&f);
		for (int k = 0; k < KINDS; k++)
			if (f.first[k] < 1 || f.first[k] > 12)
				fail_msg("round %d: kind %d is met as number %d", round, k,
					 f.first[k]);
		end(NULL);
	}
}

/* One that bricks shows at once, and harms no more than the gate lets. */
static void one_bricks(void **state)
{
	(void)state;
	random_begin("bricks");
	for (int round = 0; round < 30; round++) {
		struct fleet f;
		begin(NULL);
		make(&f, false);
		f.bad = round % KINDS;
		walk(&f);
		if (f.first[f.bad] > 12 || f.harmed > 4)
			fail_msg("round %d: kind %d is met as number %d and harms %d", round, f.bad,
				 f.first[f.bad], f.harmed);
		end(NULL);
	}
}

/* Kinds whose devices are away hold the others up for an hour, not for ever. */
static void those_away_are_not_waited_for(void **state)
{
	(void)state;
	random_begin("away");
	for (int round = 0; round < 10; round++) {
		struct fleet f;
		int64_t took_us[2];
		uint64_t seed = random_state;
		for (int away = 0; away < 2; away++) {
			random_state = seed;
			begin(NULL);
			make(&f, true);
			if (!away) /* nobody knows of them */
				for (int i = 0; i < fair.count; i++)
					fair.kinds[i].left = i % 3 == 1 ? 0 : fair.kinds[i].left;
			took_us[away] = walk(&f);
			end(NULL);
		}
		if (took_us[1] > took_us[0] + FAIR_HOLD_US + 3600 * US_PER_S)
			fail_msg("round %d: %lld s with them, %lld s without", round,
				 (long long)(took_us[1] / US_PER_S),
				 (long long)(took_us[0] / US_PER_S));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(by_turns, begin, end),
		cmocka_unit_test_setup_teardown(nobody_is_waited_for_in_vain, begin, end),
		cmocka_unit_test_setup_teardown(groups_and_versions_are_kinds, begin, end),
		cmocka_unit_test_setup_teardown(too_many_kinds, begin, end),
		cmocka_unit_test(each_kind_early),
		cmocka_unit_test(one_bricks),
		cmocka_unit_test(those_away_are_not_waited_for),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
