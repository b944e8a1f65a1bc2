/* SPDX-License-Identifier: MIT */
/* core/retry: what follows a failure, code by code. */
#include "core/retry.h"

#include "base/clock.h"
#include "core/decide.h"
#include "core_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#define NOW      (INT64_C(1800000000) * US_PER_S)
#define POLL_S   60
#define MIN      60
#define H        3600
#define DAY      86400
#define ATTEMPTS 3

static struct retry_facts facts_of(int code, bool whole, bool is_told)
{
	return (struct retry_facts){code, whole, is_told, POLL_S * US_PER_S};
}

/* Failures of one code, one after another, until it ends or eight are over. */
static const struct {
	int code;
	bool whole, is_told;
	int waits_s[8]; /* after the first, second, ...; -1: it has ended */
	enum retry_end end;
} rows[] = {
	{0, false, true, {60, 120, -1}, RETRY_TOO_MANY},
	{0, true, false, {0, 0, -1}, RETRY_TOO_MANY}, /* it comes by itself */
	{1, false, true, {5 * MIN, 30 * MIN, 2 * H, 4 * H, 8 * H, 16 * H, DAY, DAY}, RETRY_GOES_ON},
	{2, false, true, {5 * MIN, 30 * MIN, 2 * H, 4 * H, 8 * H, 16 * H, DAY, DAY}, RETRY_GOES_ON},
	{2, true, false, {5 * MIN, 30 * MIN, 2 * H, 4 * H, 8 * H, 16 * H, DAY, DAY}, RETRY_GOES_ON},
	{3, true, true, {60, -1}, RETRY_IN_VAIN},
	{4, true, true, {60, 120, -1}, RETRY_TOO_MANY},
	{4, true, false, {60, 120, -1}, RETRY_TOO_MANY},
	{5, true, true, {-1}, RETRY_IN_VAIN},
	{6, false, true, {5 * MIN, 30 * MIN, 2 * H, 4 * H, 8 * H, 16 * H, DAY, DAY}, RETRY_GOES_ON},
	{7, false, true, {5 * MIN, 30 * MIN, 2 * H, 4 * H, 8 * H, 16 * H, DAY, DAY}, RETRY_GOES_ON},
	{7, true, true, {60, 120, -1}, RETRY_TOO_MANY},
	{8, true, true, {-1}, RETRY_IN_VAIN},
	{8, false, false, {-1}, RETRY_IN_VAIN},
	{9, true, true, {-1}, RETRY_IN_VAIN},
	{10,
	 false,
	 true,
	 {5 * MIN, 30 * MIN, 2 * H, 4 * H, 8 * H, 16 * H, DAY, DAY},
	 RETRY_GOES_ON},
	{11, true, true, {-1}, RETRY_IN_VAIN},
	{12, true, true, {60, 120, -1}, RETRY_TOO_MANY}, /* that nobody knows: as without */
	{-1, true, true, {60, 120, -1}, RETRY_TOO_MANY},
};

static void each_code(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct retry_facts facts = facts_of(rows[i].code, rows[i].whole, rows[i].is_told);
		struct failure_count f = {.release_id = 1};
		bool ended = false;
		for (int n = 0; n < 8 && !ended; n++) {
			int64_t wait_us = retry_note(&f, &facts);
			ended = rows[i].waits_s[n] < 0;
			if (ended != (retry_end(&f, ATTEMPTS) != RETRY_GOES_ON))
				fail_msg("row %zu: failure %d", i, n + 1);
			if (!ended)
				assert_int_equal(wait_us, rows[i].waits_s[n] * US_PER_S);
		}
		assert_int_equal(retry_end(&f, ATTEMPTS), rows[i].end);
	}
}

/* What passes counts for nothing, however often; what counts before and after is in a row. */
static void mixed(void **state)
{
	struct failure_count f = {.release_id = 1};
	struct retry_facts install = facts_of(4, true, true), wifi = facts_of(1, false, true);
	struct retry_facts verify = facts_of(3, true, true);

	(void)state;
	for (int i = 0; i < 100; i++)
		(void)retry_note(&f, &wifi);
	assert_int_equal(retry_end(&f, 1), RETRY_GOES_ON);
	assert_int_equal(retry_note(&f, &install), 60 * US_PER_S);
	(void)retry_note(&f, &wifi);
	assert_int_equal(retry_note(&f, &install), 120 * US_PER_S);
	assert_int_equal(retry_end(&f, 3), RETRY_GOES_ON);
	assert_int_equal(retry_end(&f, 2), RETRY_TOO_MANY);
	assert_int_equal(f.count, 2);
	assert_int_equal(f.passing, 101);
	(void)retry_note(&f, &verify);
	assert_int_equal(retry_end(&f, 100), RETRY_IN_VAIN);
	/* The wait never grows over a day. */
	f = (struct failure_count){.release_id = 1, .count = 1000000};
	assert_int_equal(retry_note(&f, &install), DAY * US_PER_S);
	f = (struct failure_count){.release_id = 1, .passing = 1000000};
	assert_int_equal(retry_note(&f, &wifi), DAY * US_PER_S);
}

static void names(void **state)
{
	(void)state;
	assert_string_equal(result_code_name(0), "success");
	assert_string_equal(result_code_name(8), "insufficient space");
	assert_string_equal(result_code_name(11), "rollback failed");
	assert_null(result_code_name(12));
	assert_null(result_code_name(-1));
}

static void expect(const struct device *d, const struct world *w, int64_t now_us, enum reason want,
		   const char *words)
{
	struct decide_params p = {.now_us = now_us, .stale_us = 180 * US_PER_S};
	struct decision x = decide(d, &w->model, &p);
	char text[512];

	assert_string_equal(reason_name(x.reason), reason_name(want));
	reason_sentence(d, &x, text, sizeof text);
	if (!strstr(text, words))
		fail_msg("'%s' is not in: %s", words, text);
}

/* What decide() makes of it, and says. */
static void decided(void **state)
{
	struct world w;
	struct device d = world_device("esp32_001", "1.0.0");
	struct failure_count failures[] = {{0}, {0}};

	(void)state;
	world_init(&w);
	struct release *r1 = world_release(&w, "1.1.0"), *r2 = world_release(&w, "2.0.0");
	world_rollout(&w, r1, TARGET_ALL);
	world_rollout(&w, r2, TARGET_ALL);
	d.state.failures = failures;
	d.state.retry_us = NOW + 25 * MIN * US_PER_S;
	/* It waits; the older rollout does not take its place. */
	failures[0] = (struct failure_count){r2->id, 0, 2, 2};
	expect(&d, &w, NOW, REASON_RETRY_LATER,
	       "It failed with 2 download failed at 2.0.0 (rollout r2): tried again in 25 min.");
	expect(&d, &w, d.state.retry_us - 1, REASON_RETRY_LATER, "in 0 s");
	expect(&d, &w, d.state.retry_us, REASON_OFFER, "is offered 2.0.0");
	failures[0] = (struct failure_count){r2->id, 1, 0, 0};
	expect(&d, &w, NOW, REASON_RETRY_LATER, "It failed with an error at 2.0.0");
	/* What failed at another release holds up nothing. */
	failures[0].release_id = 999;
	expect(&d, &w, NOW, REASON_OFFER, "is offered 2.0.0");
	/* In vain: the older one is tried, as after too many failures. */
	failures[0] = (struct failure_count){r2->id, 1, 0, 8};
	expect(&d, &w, NOW, REASON_OFFER, "is offered 1.1.0");
	d.state.version = "1.1.0";
	expect(&d, &w, NOW, REASON_UP_TO_DATE, "1.1.0");
	w.rollouts[0].active = false;
	expect(&d, &w, NOW, REASON_IN_VAIN,
	       "It failed with 8 insufficient space at 2.0.0 (rollout r2): not tried again until "
	       "you say retry.");
	failures[0] = (struct failure_count){r2->id, 3, 0, 4};
	expect(&d, &w, NOW, REASON_TOO_MANY_FAILURES, "It failed 3 times in a row");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_code),
		cmocka_unit_test(mixed),
		cmocka_unit_test(names),
		cmocka_unit_test(decided),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
