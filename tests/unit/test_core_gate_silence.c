/* SPDX-License-Identifier: MIT */
/* core/gate_silence, core/gate_trial and core/gate_params: pure rules, case by case. */
#include "core/gate_params.h"
#include "core/gate_silence.h"
#include "core/gate_trial.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#define S(seconds) (INT64_C(1000000) * (seconds))
#define T0         S(1800000000)

/* --- the clock that stands --- */

/* Ticks each second from FROM, not including, to TO seconds after T0. */
static void ticks(struct gate_clock *c, int from, int to, bool up)
{
	for (int s = from + 1; s <= to; s++)
		gate_clock_tick(c, T0 + S(s), up);
}

static void the_clock_stands(void **state)
{
	struct gate_clock c = {0};

	(void)state;
	gate_clock_tick(&c, T0, true);
	ticks(&c, 0, 100, true);
	assert_int_equal(gate_clock_since(&c, T0, T0 + S(100)), S(100));
	assert_int_equal(gate_clock_heard_us(&c), T0 + S(100));
	ticks(&c, 100, 400, false); /* the broker was away */
	assert_int_equal(gate_clock_heard_us(&c), T0 + S(100));
	ticks(&c, 400, 500, true);
	assert_int_equal(gate_clock_heard_us(&c), T0 + S(500));
	assert_int_equal(gate_clock_since(&c, T0, T0 + S(500)), S(200));
	assert_int_equal(gate_clock_since(&c, T0 + S(250), T0 + S(500)), S(100));
	assert_int_equal(gate_clock_since(&c, T0 + S(450), T0 + S(500)), S(50));
	/* It was stopped for a day, and is told by the gap alone. */
	gate_clock_tick(&c, T0 + S(500 + 86400), true);
	assert_int_equal(gate_clock_since(&c, T0, T0 + S(500 + 86400 + 10)), S(210));
	/* A tick that is late is none. */
	gate_clock_tick(&c, T0 + S(500 + 86400 + 60), true);
	assert_int_equal(gate_clock_since(&c, T0, T0 + S(500 + 86400 + 60)), S(260));
	assert_int_equal(gate_clock_since(&c, T0 + S(200000), T0 + S(90000)), 0);
}

static void the_clock_goes_back(void **state)
{
	struct gate_clock c = {0};

	(void)state;
	gate_clock_tick(&c, T0, true);
	ticks(&c, 0, 100, false);
	gate_clock_tick(&c, T0 + S(86400), true); /* a day forward: none of it counts */
	assert_int_equal(gate_clock_since(&c, T0, T0 + S(86400)), 0);
	gate_clock_tick(&c, T0 + S(50), true); /* and back, into what was down */
	assert_int_equal(c.count, 1);
	ticks(&c, 50, 80, true);
	assert_int_equal(gate_clock_since(&c, T0, T0 + S(80)), S(30));
}

/* More outages than it remembers: it stands too long rather than too short. */
static void the_clock_forgets(void **state)
{
	struct gate_clock c = {0};
	int64_t up = 0, now = T0;

	(void)state;
	gate_clock_tick(&c, now, true);
	for (int i = 0; i < 10 * GATE_DOWNS_MAX; i++) {
		gate_clock_tick(&c, now += S(10 + i % 7), true);
		up += S(10 + i % 7);
		gate_clock_tick(&c, now += S(5), false);
		assert_true(c.count <= GATE_DOWNS_MAX);
		assert_true(gate_clock_since(&c, T0, now) <= up);
		for (int k = 1; k < c.count; k++)
			assert_true(c.downs[k].from_us > c.downs[k - 1].to_us);
	}
	/* What it remembers one by one is right. */
	int64_t since = c.downs[GATE_DOWNS_MAX - 2].to_us;
	assert_int_equal(gate_clock_since(&c, since, now),
			 c.downs[GATE_DOWNS_MAX - 1].from_us - since);
}

/* --- habit and limit --- */

static void a_habit(void **state)
{
	int64_t h = 0;

	(void)state;
	assert_int_equal(gate_habit_next(0, S(10)), 0); /* one contact still */
	assert_int_equal(gate_habit_next(0, S(3600)), S(3600));
	assert_int_equal(gate_habit_next(S(3600), S(2)), S(3600));
	assert_int_equal(gate_habit_next(S(3600), S(5000)), S(5000));
	assert_int_equal(gate_habit_next(S(3600), S(604800)), S(7200));
	/* An hourly device with some jitter, which speaks five times whenever it wakes. */
	for (int i = 0; i < 1000; i++) {
		h = gate_habit_next(h, S(3600 + i * 37 % 240));
		for (int k = 0; k < 4; k++)
			h = gate_habit_next(h, S(3));
		assert_true(h >= S(3600) && h < S(3900));
	}
	/* It becomes minutely: within a day that is its habit. */
	for (int i = 0; i < 1440; i++)
		h = gate_habit_next(h, S(60));
	assert_true(h < S(61));
}

static void the_limit(void **state)
{
	(void)state;
	assert_int_equal(gate_silence_limit_us(S(60), 1800), S(1800));
	assert_int_equal(gate_silence_limit_us(S(600), 1800), S(1800));
	assert_int_equal(gate_silence_limit_us(S(601), 1800), S(1803));
	assert_int_equal(gate_silence_limit_us(S(86400), 1800), S(3 * 86400));
	assert_int_equal(gate_silence_limit_us(0, 1800), S(1800));
}

static void silent_or_outage(void **state)
{
	struct gate_clock c = {0};
	static const struct {
		int heard_s, habit_s, due, silent;
		enum gate_hearing want;
	} cases[] = {
		{0, 60, 100, 0, GATE_SILENT},  {1, 60, 100, 0, GATE_HEARD},
		{0, 60, 100, 20, GATE_SILENT}, {0, 60, 100, 21, GATE_OUTAGE},
		{1, 60, 100, 100, GATE_HEARD}, {0, 60, 0, 0, GATE_SILENT},
		{0, 60, 4, 1, GATE_OUTAGE},    {0, 60, 5, 1, GATE_SILENT},
		{0, 60, 9, 2, GATE_OUTAGE},    {0, 601, 100, 0, GATE_HEARD},
	};

	(void)state;
	gate_clock_tick(&c, T0, true);
	ticks(&c, 0, 1800, true);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct gate_silence s = {.heard_us = T0 + S(cases[i].heard_s),
					 .habit_us = S(cases[i].habit_s),
					 .silence_s = 1800,
					 .due = cases[i].due,
					 .silent = cases[i].silent};
		if (gate_silence_judge(&s, &c, T0 + S(1800)) != cases[i].want)
			fail_msg("case %zu", i);
	}
	/* An hour in which the broker was away is nobody's silence. */
	struct gate_silence s = {
		.heard_us = T0 + S(1800), .habit_us = S(60), .silence_s = 1800, .due = 100};
	ticks(&c, 1800, 5400, false);
	ticks(&c, 5400, 7199, true);
	assert_int_equal(gate_silence_judge(&s, &c, T0 + S(7199)), GATE_HEARD);
	ticks(&c, 7199, 7200, true);
	assert_int_equal(gate_silence_judge(&s, &c, T0 + S(7200)), GATE_SILENT);
}

/* --- a device on trial --- */

/* Each letter is a sight 100 s after the one before: n new, b new after a boot, o old. */
static const struct {
	const char *sights;
	enum gate_trial_state want;
} trials[] = {
	{"", GATE_TRIAL_WAITS},
	{"o", GATE_TRIAL_WAITS},
	{"ooooooooo", GATE_TRIAL_WAITS},
	{"n", GATE_TRIAL_RUNS},
	{"b", GATE_TRIAL_RUNS},
	{"nnnnnn", GATE_TRIAL_RUNS},
	{"nnnnnnn", GATE_TRIAL_PROVEN},
	{"oonnnnnnn", GATE_TRIAL_PROVEN},
	{"bnbnbnn", GATE_TRIAL_PROVEN},
	{"nbb", GATE_TRIAL_RUNS},
	{"nbbb", GATE_TRIAL_BOOT_LOOP},
	{"bbbb", GATE_TRIAL_BOOT_LOOP},
	{"bbnbnbn", GATE_TRIAL_BOOT_LOOP},
	{"nnnnbbb", GATE_TRIAL_BOOT_LOOP},
	{"nnnnnno", GATE_TRIAL_OLD_AGAIN},
	{"no", GATE_TRIAL_OLD_AGAIN},
	{"nonnnnnnnn", GATE_TRIAL_OLD_AGAIN}, /* final */
	{"nnnnnnnooo", GATE_TRIAL_PROVEN},
	{"nnnnnnnbbb", GATE_TRIAL_PROVEN},
};

static void on_trial(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof trials / sizeof trials[0]; i++) {
		struct gate_trial t = {0};
		int64_t now = T0;

		for (const char *c = trials[i].sights; *c; c++, now += S(100)) {
			enum gate_sight sight = *c == 'n'   ? GATE_SIGHT_NEW
						: *c == 'b' ? GATE_SIGHT_BOOT
							    : GATE_SIGHT_OLD;
			enum gate_trial_state said = gate_trial_see(&t, sight, now, 600);
			assert_int_equal(said, t.state);
		}
		if (t.state != trials[i].want)
			fail_msg("'%s' ends as %d", trials[i].sights, (int)t.state);
	}
	/* The clock goes back a day: it has to be well for as long again. */
	struct gate_trial t = {0};
	gate_trial_see(&t, GATE_SIGHT_NEW, T0, 600);
	assert_int_equal(gate_trial_see(&t, GATE_SIGHT_NEW, T0 - S(86400), 600), GATE_TRIAL_RUNS);
	assert_int_equal(gate_trial_see(&t, GATE_SIGHT_NEW, T0 - S(85801), 600), GATE_TRIAL_RUNS);
	assert_int_equal(gate_trial_see(&t, GATE_SIGHT_NEW, T0 - S(85800), 600), GATE_TRIAL_PROVEN);
}

/* By code: before the image was whole, and after.  0 is no failure. */
static void votes(void **state)
{
	static const char before[] = ".--FFF--FF-F", after[] = ".--FFF-FFF-F";

	(void)state;
	for (int code = 1; code <= 11; code++) {
		assert_int_equal(gate_vote(code, false, false) == GATE_VOTE_FAILED,
				 before[code] == 'F');
		assert_int_equal(gate_vote(code, true, false) == GATE_VOTE_FAILED,
				 after[code] == 'F');
		assert_int_equal(gate_vote(code, false, true), GATE_VOTE_FAILED);
	}
	assert_int_equal(gate_vote(GATE_CODE_NONE, false, false), GATE_VOTE_NONE);
	assert_int_equal(gate_vote(GATE_CODE_NONE, true, false), GATE_VOTE_FAILED);
	assert_int_equal(gate_vote(99, false, false), GATE_VOTE_NONE);
}

/* --- parameters --- */

static void parameters(void **state)
{
	struct gate_params p = gate_params_default(), ok = p;
	struct ota_err err;

	(void)state;
	assert_int_equal(gate_params_check(&p, &err), OTA_OK);
	assert_int_equal(gate_params_most(&p, 0), 500);
	assert_int_equal(gate_params_most(&p, 25000), 500);
	assert_int_equal(gate_params_most(&p, 1000000), 20000);
	p.max_unproven = 7;
	assert_int_equal(gate_params_most(&p, 1000000), 7);
#define REFUSED(field, value, says)                                                                \
	do {                                                                                       \
		p = ok;                                                                            \
		p.field = (value);                                                                 \
		assert_int_equal(gate_params_check(&p, &err), OTA_EUNPROCESSABLE);                 \
		if (!strstr(err.msg, says))                                                        \
			fail_msg("%s", err.msg);                                                   \
	} while (0)
	REFUSED(p0, 0, "p0 is 0: it is the acceptable share of failures, 1e-06 to 0.5");
	REFUSED(p0, -1, "p0 is -1");
	REFUSED(p0, 0.9, "p0 is 0.9");
	REFUSED(p0, (double)NAN, "p0 is nan");
	REFUSED(p0, 0.05, "suspects[0] is 0.05: each must be above p0 (here 0.05)");
	REFUSED(suspect_count, 0, "suspects holds 0 shares");
	REFUSED(suspect_count, 9, "suspects holds 9 shares");
	REFUSED(suspects[1], 0.05, "suspects[1] is 0.05: each must be above the one before");
	REFUSED(suspects[4], 1, "0.999 at the most");
	REFUSED(suspects[2], (double)NAN, "suspects[2] is nan");
	REFUSED(halt_at, 1, "halt_at is 1");
	REFUSED(halt_at, (double)INFINITY, "halt_at is inf");
	REFUSED(prove_s, 0, "prove_s is 0: it must be 1 to 604800 seconds");
	REFUSED(silence_s, 59, "silence_s is 59: it must be 60 to 2592000 seconds");
	REFUSED(initial_unproven, 0, "initial_unproven is 0: it must be 1 to 10000000 devices");
	REFUSED(max_unproven, -1, "max_unproven is -1");
	REFUSED(max_unproven, 1, "max_unproven is 1, below initial_unproven (2)");
#undef REFUSED
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_clock_stands),  cmocka_unit_test(the_clock_goes_back),
		cmocka_unit_test(the_clock_forgets), cmocka_unit_test(a_habit),
		cmocka_unit_test(the_limit),         cmocka_unit_test(silent_or_outage),
		cmocka_unit_test(on_trial),          cmocka_unit_test(votes),
		cmocka_unit_test(parameters),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
