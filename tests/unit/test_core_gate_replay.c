/* SPDX-License-Identifier: MIT */
/* Another gate over what happened: the same one makes the same of it, a stricter one stops sooner,
 * a narrower one holds up; by property on random walks through a real gate, and by hand. */
#include "core/gate_replay.h"

#include "base/clock.h"
#include "gate_walk.h"
#include "random.h"

#define S(s)   ((int64_t)(s)*US_PER_S)
#define EVENTS 3000

struct history {
	struct replay_event events[EVENTS];
	int count;
	int64_t now_us, number;
};

static struct replay_event *note(struct history *h, enum gate_event_kind kind, int64_t number)
{
	assert_true(h->count < EVENTS);
	h->events[h->count] = (struct replay_event){
		.gate = {.kind = kind, .number = number}, .at_us = h->now_us, .bounded = true};
	return &h->events[h->count++];
}

static void feed(struct replay *r, const struct history *h)
{
	struct ota_err err;

	for (int i = 0; i < h->count; i++)
		if (replay_feed(r, &h->events[i], &err) != OTA_OK)
			fail_msg("%s", err.msg);
	if (replay_end(r, &err) != OTA_OK)
		fail_msg("%s", err.msg);
}

static struct replay_result replayed(const struct history *h, const struct gate_params *was,
				     const struct gate_params *is, bool bounds)
{
	struct replay r;

	assert_true(replay_init(&r, was, is, bounds));
	feed(&r, h);
	struct replay_result x = r.result;
	replay_fini(&r);
	return x;
}

/* One device after the other: exposed, and a while later its outcome. */
static void one(struct history *h, enum gate_event_kind outcome, int64_t after_s)
{
	note(h, GATE_EVENT_EXPOSED, ++h->number)->gate.hw = "a";
	h->now_us += S(after_s);
	note(h, outcome, h->number);
	h->now_us += S(10);
}

/* A walk through a real gate: who has a place goes in, and what comes of them comes in any order.
 */
static void random_walk(struct history *h, const struct gate_params *p, int bad_percent)
{
	static const char *const hw[] = {"a", "b", ""};
	struct ota_err err;
	int64_t open[600];
	int open_count = 0;
	struct gate g;

	*h = (struct history){.now_us = S(1000000)};
	gate_init(&g, p);
	note(h, GATE_EVENT_STAGE, 0)->gate.devices = 1000;
	assert_int_equal(gate_replay(&g, &h->events[0].gate, &err), OTA_OK);
	for (int i = 0; i < 800 && h->count < EVENTS - 10; i++) {
		struct replay_event *e;
		int v = random_below(3);

		h->now_us += S(random_below(60));
		if (random_below(2) && open_count < 600 && gate_ask(&g, hw[v], "1") == GATE_FREE) {
			e = note(h, GATE_EVENT_EXPOSED, ++h->number);
			e->gate.hw = hw[v];
			e->gate.from = "1";
			open[open_count++] = h->number;
		} else if (open_count) {
			int k = random_below(open_count);
			enum gate_event_kind kind = random_below(100) < bad_percent
							    ? GATE_EVENT_FAILED
						    : random_below(20) ? GATE_EVENT_PROVEN
								       : GATE_EVENT_GIVEN_BACK;
			if (random_below(4) == 0)
				note(h, GATE_EVENT_AT_RISK, open[k]);
			e = note(h, kind, open[k]);
			open[k] = open[--open_count];
		} else {
			continue;
		}
		assert_int_equal(gate_replay(&g, &e->gate, &err), OTA_OK);
	}
	gate_fini(&g);
}

static void test_the_same_gate_does_what_was_done(void **state)
{
	struct history *h = malloc(sizeof *h);
	(void)state;

	random_begin("same");
	assert_non_null(h);
	for (int round = 0; round < 60; round++) {
		struct gate_params p = gate_params_default();
		struct replay r;

		p.initial_unproven = 1 + random_below(6);
		p.max_unproven = p.initial_unproven + random_below(40);
		random_walk(h, &p, random_below(30));
		assert_true(replay_init(&r, &p, round % 2 ? &p : NULL, round % 3 == 0));
		feed(&r, h);
		const struct replay_result *x = &r.result;
		assert_memory_equal(&x->was, &x->is, sizeof x->was);
		assert_int_equal(x->spared, 0);
		assert_int_equal(x->held_up, 0);
		assert_int_equal(x->waiting, 0);
		assert_int_equal(r.is.line.bound, r.was.line.bound);
		same_evidence(&r.is.line.entered, &r.was.line.entered);
		same_evidence(&r.is.line.at_halt, &r.was.line.at_halt);
		assert_int_equal(r.is.line.halted, r.was.line.halted);
		replay_fini(&r);
	}
	free(h);
}

/* Whatever the gate: everybody is somewhere, and a stricter one meets no more of them. */
static void test_whoever_it_is_is_counted_once(void **state)
{
	struct history *h = malloc(sizeof *h);
	(void)state;

	random_begin("once");
	assert_non_null(h);
	for (int round = 0; round < 60; round++) {
		struct gate_params was = gate_params_default(), is = was;

		was.max_unproven = 40;
		is.halt_at = 2 + random_below(300);
		is.initial_unproven = 1 + random_below(3);
		is.max_unproven = is.initial_unproven + random_below(20);
		is.prove_s = 1 + random_below(3000);
		random_walk(h, &was, random_below(20));
		struct replay_result x = replayed(h, &was, &is, true);
		int64_t exposed = 0, back = 0;
		for (int i = 0; i < h->count; i++) {
			exposed += h->events[i].gate.kind == GATE_EVENT_EXPOSED;
			back += h->events[i].gate.kind == GATE_EVENT_GIVEN_BACK;
		}
		assert_int_equal(x.was.exposed, exposed - back);
		int64_t seen = x.is.exposed + x.spared + x.waiting;
		assert_true(seen >= exposed - back && seen <= exposed);
		assert_true(x.is.failed + x.spared_failed <= x.was.failed);
		assert_true(x.longest_wait_us <= x.wait_us);
		assert_true(x.held_up == 0 || x.longest_wait_us >= 0);
	}
	free(h);
}

static void test_a_stricter_gate_stops_sooner(void **state)
{
	struct gate_params was = gate_params_default(), strict = was, lax = was;
	static struct history h;
	(void)state;

	h = (struct history){.now_us = S(1000)};
	was.halt_at = 1e6;
	strict.halt_at = 20;
	lax.halt_at = 1e9;
	for (int i = 0; i < 5; i++)
		one(&h, GATE_EVENT_FAILED, 60);
	struct replay_result x = replayed(&h, &was, &strict, false);
	assert_true(x.is.halted);
	assert_true(x.is.exposed_then < 5);
	assert_int_equal(x.spared, 5 - x.is.exposed);
	assert_int_equal(x.spared_failed, x.spared);
	assert_int_equal(x.is.halted_us, S(1000) + S(70) * (x.is.exposed_then - 1) + S(60));
	x = replayed(&h, &was, &lax, false);
	assert_false(x.is.halted);
	assert_int_equal(x.spared, 0);
	assert_int_equal(x.is.failed, 5);
}

/* Four at once where it lets in one at a time: each waits for the proof of the one before. */
static void test_a_narrower_gate_holds_up(void **state)
{
	struct gate_params was = gate_params_default(), narrow = was;
	static struct history h;
	(void)state;

	h = (struct history){.now_us = S(1000)};
	was.initial_unproven = 4;
	narrow.initial_unproven = narrow.max_unproven = 1;
	for (int i = 1; i <= 4; i++)
		note(&h, GATE_EVENT_EXPOSED, i)->gate.hw = "a";
	h.now_us += S(600);
	for (int i = 1; i <= 4; i++)
		note(&h, GATE_EVENT_PROVEN, i);
	struct replay_result x = replayed(&h, &was, &narrow, false);
	assert_int_equal(x.held_up, 3);
	assert_int_equal(x.longest_wait_us, S(1800));
	assert_int_equal(x.wait_us, S(600 + 1200 + 1800));
	assert_int_equal(x.is.proven, 4);
	assert_int_equal(x.waiting, 0);
	/* The second one fails: nothing is known of it until it is let in. */
	h.events[5].gate.kind = GATE_EVENT_FAILED;
	x = replayed(&h, &was, &narrow, false);
	assert_int_equal(x.is.failed, 1);
	assert_int_equal(x.is.proven, 3);
	/* A longer proof comes later, and so does who waits for it. */
	narrow = was;
	narrow.initial_unproven = narrow.max_unproven = 1;
	narrow.prove_s += 100;
	h.events[5].gate.kind = GATE_EVENT_PROVEN;
	x = replayed(&h, &was, &narrow, false);
	assert_int_equal(x.longest_wait_us, S(2100));
}

/* A rollout that nothing bounded is bounded only if that is asked for. */
static void test_what_was_not_bounded(void **state)
{
	struct gate_params was = gate_params_default();
	static struct history h;
	(void)state;

	h = (struct history){.now_us = S(1000)};
	for (int i = 1; i <= 20; i++)
		*note(&h, GATE_EVENT_EXPOSED, i) = (struct replay_event){
			.gate = {.kind = GATE_EVENT_EXPOSED, .number = i}, .at_us = h.now_us};
	h.now_us += S(60);
	for (int i = 1; i <= 20; i++)
		note(&h, GATE_EVENT_FAILED, i);
	struct replay_result x = replayed(&h, &was, NULL, false);
	assert_int_equal(x.was.failed, 20);
	assert_int_equal(x.is.failed, 20);
	assert_true(x.was.halted && x.is.halted);
	x = replayed(&h, &was, NULL, true);
	assert_int_equal(x.was.failed, 20);
	assert_true(x.is.failed >= 2 && x.is.failed <= 3);
	assert_int_equal(x.spared, 20 - x.is.failed);
	assert_int_equal(x.spared_failed, x.spared);
}

static void test_a_variant_that_is_held_back(void **state)
{
	struct gate_params was = gate_params_default(), strict = was;
	static struct history h;
	(void)state;

	h = (struct history){.now_us = S(1000)};
	was.halt_at = 1e9;
	strict.halt_at = 30;
	for (int i = 0; i < 200; i++)
		one(&h, GATE_EVENT_PROVEN, 1);
	for (int i = 0; i < 5; i++) {
		note(&h, GATE_EVENT_EXPOSED, ++h.number)->gate.hw = "bad";
		h.now_us += S(60);
		note(&h, GATE_EVENT_FAILED, h.number);
		one(&h, GATE_EVENT_PROVEN, 1);
	}
	struct replay_result x = replayed(&h, &was, &strict, false);
	assert_int_equal(x.held_count, 1);
	assert_true(x.spared >= 1 && x.spared == x.spared_failed);
	assert_true(!x.is.halted || x.is.halted_us >= x.held[0].halted_us);
}

static void test_numbers_must_rise(void **state)
{
	struct gate_params p = gate_params_default();
	struct replay_event e = {.gate = {.kind = GATE_EVENT_EXPOSED, .number = 5}};
	struct ota_err err;
	struct replay r;
	(void)state;

	assert_true(replay_init(&r, &p, NULL, false));
	assert_int_equal(replay_feed(&r, &e, &err), OTA_OK);
	assert_int_equal(replay_feed(&r, &e, &err), OTA_EUNPROCESSABLE);
	replay_fini(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_same_gate_does_what_was_done),
		cmocka_unit_test(test_whoever_it_is_is_counted_once),
		cmocka_unit_test(test_a_stricter_gate_stops_sooner),
		cmocka_unit_test(test_a_narrower_gate_holds_up),
		cmocka_unit_test(test_what_was_not_bounded),
		cmocka_unit_test(test_a_variant_that_is_held_back),
		cmocka_unit_test(test_numbers_must_rise),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
