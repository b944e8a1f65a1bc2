/* SPDX-License-Identifier: MIT */
/* When a person is told: rows of what is known, and what holds. */
#include "base/buf.h"
#include "base/clock.h"
#include "core/alert.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#define H       (INT64_C(3600) * US_PER_S)
#define T0      (INT64_C(1800000000) * US_PER_S) /* 2027-01-15 */
#define ROWS(a) (sizeof(a) / sizeof(a)[0])

static struct release release = {.id = 3, .version = "2.0.0", .model = "esp32"};
static struct stage stages[] = {
	{10, 6 * 3600, -1, false}, {50, 3600, -1, true}, {100, 0, -1, false}};

static struct rollout rollout_in(enum rollout_state state, int stage)
{
	return (struct rollout){
		.id = 7,
		.name = "walk",
		.release = &release,
		.stages = stages,
		.stage_count = 3,
		.requires = "",
		.created_us = T0,
		.walk = {.state = state,
			 .stage = stage,
			 .reason = "",
			 .state_since_us = T0,
			 .stage_since_us = state <= ROLLOUT_SCHEDULED ? 0 : T0},
	};
}

static void names(void **state)
{
	(void)state;
	for (int k = 0; k < ALERT_KINDS; k++) {
		assert_non_null(alert_kind_names[k]);
		assert_int_equal(alert_kind_from_name(alert_kind_names[k]), k);
		assert_non_null(alert_severity((enum alert_kind)k));
	}
	assert_int_equal(alert_kind_from_name("fire"), ALERT_KINDS);
}

static void failures(void **state)
{
	static const struct {
		int64_t finished, failed;
		bool fresh, open; /* holds when it was not raised yet, and when it was */
	} rows[] = {
		{0, 0, false, false},          {9, 9, false, false},
		{10, 0, false, false},         {10, 1, true, true},
		{20, 1, false, true}, /* 5 %: not more */
		{39, 2, true, true},           {40, 2, false, true},
		{25, 1, false, false},         {24, 1, false, true},
		{100, 5, false, true},         {100, 6, true, true},
		{100, 4, false, false},        {1000000, 50001, true, true},
		{1000000, 50000, false, true}, {1000000, 40000, false, false},
	};
	char text[ALERT_SENTENCE_SIZE];

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		const struct alert_attempts a = {rows[i].finished, rows[i].failed};
		assert_int_equal(alert_of_failures(&release, &a, false, text), rows[i].fresh);
		assert_int_equal(alert_of_failures(&release, &a, true, text), rows[i].open);
	}
	const struct alert_attempts a = {180, 12};
	assert_true(alert_of_failures(&release, &a, false, text));
	assert_string_equal(text, "12 of 180 finished attempts at 2.0.0 for esp32 failed: 6.7 %, "
				  "more than 5 %.");
}

static void breaks(void **state)
{
	static const struct {
		int64_t tried, broken;
		bool fresh, open;
	} rows[] = {
		{9, 9, false, false},  {10, 0, false, false},   {10, 1, true, true},
		{100, 5, false, true}, {100, 6, true, true},    {100, 4, false, false},
		{0, 0, false, false},  {1000, 50, false, true}, {1000, 51, true, true},
	};
	struct alert_breaks b;
	char text[ALERT_SENTENCE_SIZE];

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		b = (struct alert_breaks){rows[i].tried, rows[i].broken, 2};
		assert_int_equal(alert_of_breaks(&release, &b, false, text), rows[i].fresh);
		assert_int_equal(alert_of_breaks(&release, &b, true, text), rows[i].open);
	}
	b = (struct alert_breaks){180, 12, 6};
	assert_true(alert_of_breaks(&release, &b, false, text));
	assert_string_equal(text,
			    "12 of 180 devices that tried 2.0.0 for esp32 break off on the way "
			    "again and again, mostly with invalid url: 6.7 %, more than 5 %. "
			    "That says nothing of the image.");
	b.code = 0;
	assert_true(alert_of_breaks(&release, &b, false, text));
	assert_null(strstr(text, "mostly"));
}

static void silence(void **state)
{
	/* All by the hour: last word about the update, last word at all, since when we listen, now.
	 */
	static const struct {
		int updated, seen, listens, now;
		bool holds;
	} rows[] = {
		{0, 0, -99, 23, false},  {0, 0, -99, 24, true},  {0, 0, -99, 500, true},
		{0, 10, -99, 33, false}, {0, 10, -99, 34, true}, {0, 23, -99, 47, true},
		{0, 24, -99, 48, false}, /* it ran for a day: that is no longer the update's */
		{0, 0, 5, 28, false},    {0, 0, 5, 29, true}, /* nobody could be heard before */
	};
	char text[ALERT_SENTENCE_SIZE];

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		const struct alert_silence s = {"d1", "2.0.0", T0 + rows[i].seen * H,
						T0 + rows[i].updated * H};
		assert_int_equal(
			alert_of_silence(&s, T0 + rows[i].listens * H, T0 + rows[i].now * H, text),
			rows[i].holds);
	}
	const struct alert_silence s = {"d1", "2.0.0", T0 + 120 * US_PER_S, T0};
	assert_true(alert_of_silence(&s, 0, T0 + 25 * H, text));
	assert_string_equal(text,
			    "Device d1 was last heard of at 2027-01-15T08:02:00Z, 120 s after "
			    "its last word about its update to 2.0.0.");
}

static void stuck(void **state)
{
	/* By the hour; stage 1 lasts six of them. */
	static const struct {
		enum rollout_state state;
		enum walk_wait wait;
		int stage, progressed, listens, now;
		bool holds;
	} rows[] = {
		{ROLLOUT_RUNNING, WAIT_PROOF, 0, 0, -99, 29, false},
		{ROLLOUT_RUNNING, WAIT_PROOF, 0, 0, -99, 30, true},   /* 24 after its time */
		{ROLLOUT_RUNNING, WAIT_PROOF, 2, -50, -99, 24, true}, /* no time of its own */
		{ROLLOUT_RUNNING, WAIT_PROOF, 2, 1, -99, 24, false},
		{ROLLOUT_RUNNING, WAIT_PROOF, 2, 1, -99, 25, true},
		{ROLLOUT_RUNNING, WAIT_PROOF, 2, 1, 20, 25, false},
		{ROLLOUT_RUNNING, WAIT_PROOF, 2, 1, 20, 44, true},
		{ROLLOUT_RUNNING, WAIT_EVIDENCE, 2, 1, -99, 25, true},
		{ROLLOUT_RUNNING, WAIT_TIME, 2, 1, -99, 99, false},
		{ROLLOUT_RUNNING, WAIT_APPROVAL, 2, 1, -99, 99, false},
		{ROLLOUT_RUNNING, WAIT_RESUME_ALL, 2, 1, -99, 99, false},
		{ROLLOUT_PAUSED, WAIT_PROOF, 2, 1, -99, 99, false},
		{ROLLOUT_COMPLETED, WAIT_OVER, 2, 1, -99, 99, false},
		{ROLLOUT_HALTED, WAIT_PROOF, 2, 1, -99, 99, false},
	};
	char text[ALERT_SENTENCE_SIZE];

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		const struct rollout r = rollout_in(rows[i].state, rows[i].stage);
		const struct alert_facts f = {.now_us = T0 + rows[i].now * H,
					      .listens_us = T0 + rows[i].listens * H,
					      .progressed_us = T0 + rows[i].progressed * H,
					      .stuck_us = 24 * H,
					      .wait = rows[i].wait};
		assert_int_equal(alert_of_rollout(ALERT_ROLLOUT_STUCK, &r, &f, text),
				 rows[i].holds);
	}
}

static void deadline(void **state)
{
	/* By the hour.  The stages last 7 in all. */
	static const struct {
		enum rollout_state state;
		int stage, not_before, deadline, now;
		bool holds;
	} rows[] = {
		{ROLLOUT_RUNNING, 0, 0, 0, 99, false}, /* it has none */
		{ROLLOUT_RUNNING, 0, 0, 7, 0, false},
		{ROLLOUT_RUNNING, 0, 0, 6, 0, true},
		{ROLLOUT_RUNNING, 0, 0, 10, 8, false},
		{ROLLOUT_RUNNING, 0, 0, 20, 7, false},
		{ROLLOUT_RUNNING, 0, 0, 20, 18, true}, /* a tenth is left */
		{ROLLOUT_RUNNING, 0, 0, 20, 17, false},
		{ROLLOUT_RUNNING, 2, 0, 20, 18, true}, /* in the last stage too: it has not ended */
		{ROLLOUT_RUNNING, 0, 0, 20, 20, false}, /* it has passed */
		{ROLLOUT_COMPLETED, 2, 0, 20, 19, false},
		{ROLLOUT_ABORTED, 0, 0, 20, 19, false},
		{ROLLOUT_HALTED, 0, 0, 20, 19, false},
		{ROLLOUT_DRAFT, 0, 0, 20, 19, false},
		{ROLLOUT_SCHEDULED, 0, 10, 17, 0, false},
		{ROLLOUT_SCHEDULED, 0, 10, 16, 0, true},
		{ROLLOUT_SCHEDULED, 0, 10, 30, 9, false}, /* its time begins at 10 */
		{ROLLOUT_PAUSED, 0, 0, 20, 12, false},
		{ROLLOUT_PAUSED, 0, 0, 20, 14, true}, /* paused from the start: 7 are to come */
	};
	char text[ALERT_SENTENCE_SIZE];

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct rollout r = rollout_in(rows[i].state, rows[i].stage);
		const struct alert_facts f = {.now_us = T0 + rows[i].now * H};
		r.deadline_us = rows[i].deadline ? T0 + rows[i].deadline * H : 0;
		r.not_before_us = rows[i].not_before ? T0 + rows[i].not_before * H : 0;
		if (alert_of_rollout(ALERT_DEADLINE_AT_RISK, &r, &f, text) != rows[i].holds)
			fail_msg("row %zu", i);
	}
}

static void halted_and_approval(void **state)
{
	struct rollout r = rollout_in(ROLLOUT_HALTED, 1);
	struct alert_facts f = {.now_us = T0 + H, .wait = WAIT_APPROVAL};
	char text[ALERT_SENTENCE_SIZE];

	(void)state;
	r.walk.reason = "2 of the first 2 failed";
	assert_true(alert_of_rollout(ALERT_ROLLOUT_HALTED, &r, &f, text));
	assert_string_equal(text, "Rollout walk (2.0.0 for esp32) was halted in stage 2 of 3: 2 of "
				  "the first 2 failed.");
	assert_false(alert_of_rollout(ALERT_WAITING_FOR_APPROVAL, &r, &f, text));
	f.replaced = true;
	assert_false(alert_of_rollout(ALERT_ROLLOUT_HALTED, &r, &f, text));
	f.replaced = false;
	release.deleted = true;
	assert_false(alert_of_rollout(ALERT_ROLLOUT_HALTED, &r, &f, text));
	release.deleted = false;
	for (int s = 0; s < ROLLOUT_STATES; s++) {
		r = rollout_in((enum rollout_state)s, 1);
		assert_int_equal(alert_of_rollout(ALERT_ROLLOUT_HALTED, &r, &f, text),
				 s == ROLLOUT_HALTED);
		assert_int_equal(alert_of_rollout(ALERT_WAITING_FOR_APPROVAL, &r, &f, text),
				 s == ROLLOUT_RUNNING);
		r.walk.approved = true;
		assert_false(alert_of_rollout(ALERT_WAITING_FOR_APPROVAL, &r, &f, text));
	}
	r = rollout_in(ROLLOUT_RUNNING, 1);
	for (int w = 0; w < WALK_WAITS; w++) {
		f.wait = (enum walk_wait)w;
		assert_int_equal(alert_of_rollout(ALERT_WAITING_FOR_APPROVAL, &r, &f, text),
				 w == WAIT_APPROVAL);
	}
	/* Not one of a rollout's. */
	assert_false(alert_of_rollout(ALERT_DEVICE_SILENT, &r, &f, text));
	assert_false(alert_of_rollout(ALERT_FAILURE_RATE, &r, &f, text));
}

/* Whatever is long is cut, and between two characters. */
static void long_names(void **state)
{
	struct rollout r = rollout_in(ROLLOUT_HALTED, 1);
	struct alert_facts f = {.now_us = T0};
	static char name[601];
	char text[ALERT_SENTENCE_SIZE];

	(void)state;
	for (int shift = 0; shift < 3; shift++) {
		memset(name, 'x', sizeof name - 1);
		for (size_t i = (size_t)shift; i + 3 < sizeof name; i += 3)
			memcpy(name + i, "\u20ac", 3);
		r.name = r.walk.reason = name;
		assert_true(alert_of_rollout(ALERT_ROLLOUT_HALTED, &r, &f, text));
		assert_true(strlen(text) > 250 && strlen(text) < ALERT_SENTENCE_SIZE - 1);
		assert_true(utf8_valid(text, strlen(text)));
	}
	memset(name, 'x', sizeof name - 1);
	const struct alert_silence s = {name, name, T0, T0};
	assert_true(alert_of_silence(&s, 0, T0 + 30 * H, text));
	assert_true(strlen(text) < ALERT_SENTENCE_SIZE - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),
		cmocka_unit_test(failures),
		cmocka_unit_test(breaks),
		cmocka_unit_test(silence),
		cmocka_unit_test(stuck),
		cmocka_unit_test(deadline),
		cmocka_unit_test(halted_and_approval),
		cmocka_unit_test(long_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
