/* SPDX-License-Identifier: MIT */
/* core/stage: every (state, event) pair, and what no sequence of events may lead to. */
#include "core_world.h"

#include "core/stage.h"
#include "random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#define S  US_PER_S
#define T0 (INT64_C(1800000000) * S)

#define NO ROLLOUT_STATES
#define DR ROLLOUT_DRAFT
#define SC ROLLOUT_SCHEDULED
#define RU ROLLOUT_RUNNING
#define PA ROLLOUT_PAUSED
#define HA ROLLOUT_HALTED
#define CO ROLLOUT_COMPLETED
#define AB ROLLOUT_ABORTED

/* Written down a second time, by state: what each event makes of it. */
static const enum rollout_state want[ROLLOUT_STATES][ROLLOUT_EVENTS] = {
	/* clang-format off */
	/*       start sched pause resume promote approve abort halt rollback done complete */
	[DR] = { RU,   SC,   DR,   RU,    NO,     NO,     AB,   HA,  NO,      NO,  NO },
	[SC] = { RU,   SC,   PA,   SC,    RU,     NO,     AB,   HA,  NO,      NO,  NO },
	[RU] = { NO,   NO,   PA,   RU,    RU,     RU,     AB,   HA,  AB,      RU,  CO },
	[PA] = { NO,   SC,   PA,   RU,    NO,     NO,     AB,   HA,  AB,      NO,  NO },
	[HA] = { NO,   NO,   NO,   NO,    NO,     NO,     AB,   HA,  AB,      NO,  NO },
	[CO] = { NO,   NO,   PA,   CO,    NO,     NO,     AB,   HA,  AB,      NO,  NO },
	[AB] = { NO,   NO,   NO,   NO,    NO,     NO,     AB,   AB,  NO,      NO,  NO },
	/* clang-format on */
};

static void the_table(void **state)
{
	(void)state;
	for (int s = 0; s < ROLLOUT_STATES; s++)
		for (int e = 0; e < ROLLOUT_EVENTS; e++)
			if (rollout_next_state((enum rollout_state)s, (enum rollout_event)e) !=
			    want[s][e])
				fail_msg("%s, %s", rollout_state_name((enum rollout_state)s),
					 rollout_event_name((enum rollout_event)e));
}

static void the_words(void **state)
{
	(void)state;
	for (int s = 0; s < ROLLOUT_STATES; s++)
		assert_int_equal(rollout_state_from_name(rollout_state_name((enum rollout_state)s)),
				 s);
	assert_int_equal(rollout_state_from_name("walking"), ROLLOUT_STATES);
	for (int e = 1; e < ROLLOUT_EVENTS; e++)
		assert_string_not_equal(rollout_event_name((enum rollout_event)e),
					rollout_event_name((enum rollout_event)(e - 1)));
	for (int w = 1; w < WALK_WAITS; w++)
		assert_string_not_equal(walk_wait_name((enum walk_wait)w),
					walk_wait_name((enum walk_wait)(w - 1)));
}

static const struct stage three[] = {
	{10, 3600, STAGE_MIN_PROVEN_AUTO, false},
	{50, 3600, 3, true},
	{100, 0, STAGE_MIN_PROVEN_AUTO, false},
};

/* A rollout in a world, with stages, that was made at T0. */
static struct rollout *staged(struct world *w, const struct stage *stages, int count, bool active,
			      int64_t not_before_us)
{
	world_init(w);
	struct rollout *r = world_rollout(w, world_release(w, "2.0.0"), TARGET_ALL);

	r->stages = (struct stage *)(uintptr_t)stages;
	r->stage_count = count;
	r->not_before_us = not_before_us;
	r->walk = walk_begin(active, not_before_us, T0);
	return r;
}

static void take(struct rollout *r, enum rollout_event e, int64_t now_us, enum rollout_state then,
		 int stage)
{
	struct walk w;

	if (walk_step(r, e, now_us, &w) != WALK_STEPS)
		fail_msg("%s does nothing in state %s", rollout_event_name(e),
			 rollout_state_name(r->walk.state));
	r->walk = w;
	assert_int_equal(w.state, then);
	assert_int_equal(w.stage, stage);
}

static void refused(const struct rollout *r, enum rollout_event e, int64_t now_us, const char *word)
{
	struct walk w;
	char why[300];

	assert_int_equal(walk_step(r, e, now_us, &w), WALK_REFUSED);
	walk_refusal(r, e, now_us, why, sizeof why);
	if (!strstr(why, word) || !strstr(why, r->name))
		fail_msg("'%s' does not say '%s'", why, word);
}

static void stays(const struct rollout *r, enum rollout_event e, int64_t now_us)
{
	struct walk w;

	assert_int_equal(walk_step(r, e, now_us, &w), WALK_STAYS);
}

static struct walk_next look(const struct rollout *r, int64_t now_us, int64_t seen, int64_t proven)
{
	const struct stage_facts f = {
		.now_us = now_us, .devices = seen, .seen = seen, .proven = proven, .evidence = 1};
	struct walk_next n = walk_judge(r, &f);
	char text[300], tiny[8];

	walk_sentence(r, &n, text, sizeof text);
	walk_sentence(r, &n, tiny, sizeof tiny);
	assert_true(strlen(text) > 10 && text[strlen(text) - 1] == '.');
	if (n.wait != WAIT_NOTHING)
		return n;
	/* What is due is never refused. */
	struct walk w;
	assert_int_equal(walk_step(r, n.event, now_us, &w), WALK_STEPS);
	return n;
}

static void waits(const struct rollout *r, int64_t now_us, int64_t seen, int64_t proven,
		  enum walk_wait wait)
{
	struct walk_next n = look(r, now_us, seen, proven);

	if (n.wait != wait)
		fail_msg("waits for %s, not %s", walk_wait_name(n.wait), walk_wait_name(wait));
}

static void a_walk(void **state)
{
	struct world w;
	struct rollout *r = staged(&w, three, 3, true, 0);

	(void)state;
	assert_int_equal(r->walk.state, ROLLOUT_RUNNING);
	/* Time, then proof: 80 % of those seen, at least one. */
	waits(r, T0, 10, 10, WAIT_TIME);
	assert_int_equal(look(r, T0, 10, 10).until_us, T0 + 3600 * S);
	assert_int_equal(walk_due_us(r), T0 + 3600 * S);
	waits(r, T0 + 3600 * S - 1, 10, 10, WAIT_TIME);
	waits(r, T0 + 3600 * S, 0, 0, WAIT_PROOF);
	waits(r, T0 + 3600 * S, 10, 7, WAIT_PROOF);
	assert_int_equal(look(r, T0 + 3600 * S, 10, 7).need, 8);
	assert_int_equal(look(r, T0 + 3600 * S, 11, 7).need, 9);
	waits(r, T0 + 3600 * S, 10, 8, WAIT_NOTHING);
	refused(r, ROLLOUT_APPROVE, T0, "asks nobody");
	refused(r, ROLLOUT_COMPLETE, T0, "running");
	take(r, ROLLOUT_STAGE_DONE, T0 + 3600 * S, ROLLOUT_RUNNING, 1);
	/* A number of its own, and a person's word. */
	waits(r, T0 + 7200 * S, 1000, 2, WAIT_PROOF);
	waits(r, T0 + 7200 * S, 1000, 3, WAIT_APPROVAL);
	take(r, ROLLOUT_APPROVE, T0 + 7200 * S, ROLLOUT_RUNNING, 1);
	stays(r, ROLLOUT_APPROVE, T0 + 7200 * S);
	waits(r, T0 + 7200 * S, 1000, 3, WAIT_NOTHING);
	take(r, ROLLOUT_STAGE_DONE, T0 + 7200 * S, ROLLOUT_RUNNING, 2);
	assert_false(r->walk.approved);
	refused(r, ROLLOUT_STAGE_DONE, T0 + 7200 * S, "running");
	assert_int_equal(look(r, T0 + 7200 * S, 10, 8).event, ROLLOUT_COMPLETE);
	take(r, ROLLOUT_COMPLETE, T0 + 7200 * S, ROLLOUT_COMPLETED, 2);
	assert_true(rollout_state_offers(r->walk.state));
	waits(r, T0 + 7200 * S, 10, 10, WAIT_OVER);
	refused(r, ROLLOUT_PROMOTE, T0 + 7200 * S, "completed");
	assert_int_equal(walk_due_us(r), INT64_MAX);
}

static void evidence_and_the_great_stop(void **state)
{
	struct world w;
	struct rollout *r = staged(&w, three, 3, true, 0);
	struct stage_facts f = {.now_us = T0 + 3600 * S, .devices = 9, .seen = 9, .proven = 9};
	const struct {
		double evidence;
		enum walk_wait wait;
	} cases[] = {{1, WAIT_NOTHING},
		     {4.999, WAIT_NOTHING},
		     {5, WAIT_EVIDENCE},
		     {1e300, WAIT_EVIDENCE}};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		f.evidence = cases[i].evidence;
		assert_int_equal(walk_judge(r, &f).wait, cases[i].wait);
	}
	f.evidence = 1;
	f.stopped = true;
	assert_int_equal(walk_judge(r, &f).wait, WAIT_RESUME_ALL);
}

static void paused_time_does_not_count(void **state)
{
	struct world w;
	struct rollout *r = staged(&w, three, 3, true, 0);

	(void)state;
	take(r, ROLLOUT_PAUSE, T0 + 1000 * S, ROLLOUT_PAUSED, 0);
	stays(r, ROLLOUT_PAUSE, T0 + 1001 * S);
	waits(r, T0 + 90000 * S, 1, 1, WAIT_RESUME);
	assert_int_equal(walk_due_us(r), INT64_MAX);
	refused(r, ROLLOUT_PROMOTE, T0, "resume it first");
	refused(r, ROLLOUT_APPROVE, T0, "resume it first");
	take(r, ROLLOUT_RESUME, T0 + 90000 * S, ROLLOUT_RUNNING, 0);
	stays(r, ROLLOUT_RESUME, T0 + 90000 * S);
	assert_int_equal(stage_until_us(r), T0 + (3600 + 89000) * S);
	take(r, ROLLOUT_PROMOTE, T0 + 90001 * S, ROLLOUT_RUNNING, 1);
	assert_int_equal(stage_until_us(r), T0 + (90001 + 3600) * S);
	take(r, ROLLOUT_PROMOTE, T0 + 90001 * S, ROLLOUT_RUNNING, 2);
	take(r, ROLLOUT_PROMOTE, T0 + 90001 * S, ROLLOUT_COMPLETED, 2);
	/* A completed one can be paused too, and goes on where it was. */
	take(r, ROLLOUT_PAUSE, T0 + 90002 * S, ROLLOUT_PAUSED, 2);
	take(r, ROLLOUT_RESUME, T0 + 90003 * S, ROLLOUT_RUNNING, 2);
}

static void its_own_time(void **state)
{
	struct world w;
	struct rollout *r = staged(&w, three, 3, true, T0 + 100 * S);

	(void)state;
	assert_int_equal(r->walk.state, ROLLOUT_SCHEDULED);
	assert_int_equal(walk_due_us(r), T0 + 100 * S);
	waits(r, T0 + 99 * S, 9, 9, WAIT_NOT_BEFORE);
	waits(r, T0 + 100 * S, 9, 9, WAIT_NOTHING);
	refused(r, ROLLOUT_APPROVE, T0, "not begun");
	take(r, ROLLOUT_PAUSE, T0 + S, ROLLOUT_PAUSED, 0);
	take(r, ROLLOUT_RESUME, T0 + 2 * S, ROLLOUT_SCHEDULED, 0); /* not before its time */
	take(r, ROLLOUT_START, T0 + 101 * S, ROLLOUT_RUNNING, 0);
	assert_int_equal(r->walk.stage_since_us, T0 + 101 * S);
	/* Paused before it began, resumed after its time: its first stage begins then. */
	r = staged(&w, three, 3, true, T0 + 100 * S);
	take(r, ROLLOUT_PAUSE, T0 + S, ROLLOUT_PAUSED, 0);
	take(r, ROLLOUT_RESUME, T0 + 200 * S, ROLLOUT_RUNNING, 0);
	assert_int_equal(stage_until_us(r), T0 + 3800 * S);
	/* A person does not have to wait for it. */
	r = staged(&w, three, 3, true, T0 + 100 * S);
	take(r, ROLLOUT_PROMOTE, T0 + S, ROLLOUT_RUNNING, 0);
	/* A draft waits for a person, whatever the time. */
	r = staged(&w, three, 3, false, T0 + 100 * S);
	waits(r, T0 + 200 * S, 9, 9, WAIT_ACTIVATION);
	assert_int_equal(walk_due_us(r), INT64_MAX);
	take(r, ROLLOUT_RESUME, T0 + S, ROLLOUT_SCHEDULED, 0);
}

static void deadlines(void **state)
{
	struct world w;
	struct rollout *r = staged(&w, three, 3, true, 0);

	(void)state;
	r->deadline_us = T0 + 50 * S;
	assert_int_equal(walk_due_us(r), T0 + 50 * S);
	waits(r, T0 + 49 * S, 9, 9, WAIT_TIME);
	assert_int_equal(look(r, T0 + 50 * S, 9, 9).event, ROLLOUT_PAUSE);
	refused(r, ROLLOUT_PROMOTE, T0 + 50 * S, "deadline");
	take(r, ROLLOUT_PAUSE, T0 + 50 * S, ROLLOUT_PAUSED, 0);
	refused(r, ROLLOUT_RESUME, T0 + 51 * S, "deadline");
	take(r, ROLLOUT_ABORT, T0 + 51 * S, ROLLOUT_ABORTED, 0);
	for (int e = 0; e < ROLLOUT_EVENTS; e++) {
		struct walk x;
		enum walk_outcome o = walk_step(r, (enum rollout_event)e, T0, &x);
		assert_int_not_equal(o, WALK_STEPS);
		if (o == WALK_REFUSED)
			refused(r, (enum rollout_event)e, T0, "for good");
	}
}

/*
 * Whatever happens in whatever order: it stays inside the table, offers only where it may, never
 * comes back from its end, reaches more devices with each stage and never fewer.
 */
static void any_sequence(void **state)
{
	int completed = 0, halted = 0;

	(void)state;
	random_begin("stages");
	for (int round = 0; round < 20000; round++) {
		struct stage stages[6];
		struct world w;
		int count = 1 + random_below(6), percent = 0;
		int64_t now_us = T0;

		for (int i = 0; i < count; i++) {
			percent += 1 + random_below((100 - percent) / (count - i));
			stages[i] = (struct stage){percent, random_below(100),
						   random_below(2) ? STAGE_MIN_PROVEN_AUTO
								   : random_below(5),
						   random_below(3) == 0};
		}
		struct rollout *r = staged(&w, stages, count, random_below(3) > 0,
					   random_below(2) ? 0 : T0 + random_below(500) * S);
		r->deadline_us = random_below(3) ? 0 : T0 + 1 + random_below(2000) * S;
		for (int i = 0; i < 40; i++) {
			struct walk was = r->walk, is;
			enum rollout_event e = (enum rollout_event)random_below(ROLLOUT_EVENTS);
			int64_t held = random_below(10);

			now_us += random_below(60) * S;
			if (random_below(2)) {
				struct walk_next n = look(r, now_us, held, random_below(11));
				if (n.wait != WAIT_NOTHING) {
					assert_true(n.wait != WAIT_TIME || now_us < n.until_us);
					continue;
				}
				e = n.event;
				/* Before it is due there is nothing. */
				assert_true(walk_due_us(r) <= now_us);
			}
			enum walk_outcome o = walk_step(r, e, now_us, &is);
			if (o != WALK_STEPS)
				continue;
			assert_true(is.state < ROLLOUT_STATES);
			assert_true(is.stage >= was.stage && is.stage < count);
			assert_true(is.stage <= was.stage + 1);
			assert_false(rollout_state_is_final(was.state) &&
				     rollout_state_offers(is.state));
			assert_false(was.state == ROLLOUT_ABORTED);
			assert_true(stages[is.stage].percent >= stages[was.stage].percent);
			assert_true(!rollout_state_offers(is.state) || is.stage_since_us > 0);
			assert_true(is.held_us >= 0 && is.state_since_us >= was.state_since_us);
			if (is.state == ROLLOUT_COMPLETED)
				assert_int_equal(is.stage, count - 1);
			completed += is.state == ROLLOUT_COMPLETED;
			halted += is.state == ROLLOUT_HALTED;
			r->walk = is;
		}
	}
	assert_true(completed > 100 && halted > 100);
}

static void wrong_lists(void **state)
{
	static struct stage many[STAGES_MAX + 900];
	static const struct {
		struct stage list[3];
		size_t count;
		const char *word; /* NULL: right */
	} cases[] = {
		{{{0}}, 0, "at least one"},
		{{{10, 0, -1, 0}, {5, 0, -1, 0}}, 2, "stage 2 has fewer"},
		{{{10, 0, -1, 0}, {10, 0, -1, 0}}, 2, "stage 2 repeats"},
		{{{10, 0, -1, 0}, {101, 0, -1, 0}}, 2, "stage 2 percent"},
		{{{0, 0, -1, 0}}, 1, "stage 1 percent"},
		{{{1, -1, -1, 0}}, 1, "min_duration_s"},
		{{{1, STAGE_DURATION_MAX_S + 1, -1, 0}}, 1, "min_duration_s"},
		{{{1, 0, -2, 0}}, 1, "min_proven"},
		{{{1, STAGE_DURATION_MAX_S, 0, 1}, {2, 0, -1, 0}, {100, 0, 9, 0}}, 3, NULL},
	};
	char buf[200];

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		const char *wrong = stages_error(cases[i].list, cases[i].count, buf, sizeof buf);
		if (!wrong != !cases[i].word || (wrong && !strstr(wrong, cases[i].word)))
			fail_msg("case %zu: %s", i, wrong ? wrong : "right");
	}
	for (int i = 0; i < STAGES_MAX + 900; i++)
		many[i] = (struct stage){i + 1, 0, STAGE_MIN_PROVEN_AUTO, false};
	assert_null(stages_error(many, STAGES_MAX, buf, sizeof buf));
	assert_non_null(strstr(stages_error(many, 1000, buf, sizeof buf), "1000 stages"));
}

static void strategies(void **state)
{
	struct stage list[STAGES_MAX];
	char buf[200];

	(void)state;
	for (int s = 0; s < STRATEGIES; s++) {
		int n = strategy_stages((enum strategy)s, list);
		assert_null(stages_error(list, (size_t)n, buf, sizeof buf));
		if (s != STRATEGY_GUARDED)
			assert_int_equal(n, 1);
	}
	assert_int_equal(strategy_stages(STRATEGY_CANARY_25, list), 1);
	assert_int_equal(list[0].percent, 25);
	assert_int_equal(strategy_stages(STRATEGY_GUARDED, list), 5);
	assert_int_equal(list[0].percent, 1);
	assert_int_equal(list[4].percent, 100);
	assert_string_equal(strategy_names[STRATEGY_TEST], "test");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_table),
		cmocka_unit_test(the_words),
		cmocka_unit_test(a_walk),
		cmocka_unit_test(evidence_and_the_great_stop),
		cmocka_unit_test(paused_time_does_not_count),
		cmocka_unit_test(its_own_time),
		cmocka_unit_test(deadlines),
		cmocka_unit_test(any_sequence),
		cmocka_unit_test(wrong_lists),
		cmocka_unit_test(strategies),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
