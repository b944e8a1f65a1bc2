/* SPDX-License-Identifier: MIT */
/*
 * core/attempt: every state with every event, spelled out from the contract's words and not from
 * the table; and that no sequence of events reopens what is finished.
 */
#include "core/attempt.h"

#include "random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

static bool is_report(enum attempt_event e)
{
	return e >= EVENT_REPORT_PENDING && e <= EVENT_REPORT_ROLLED_BACK;
}

/* How far along an open attempt is. */
static int progress_of(enum attempt_event e)
{
	switch (e) {
	case EVENT_REPORT_DOWNLOADING:
	case EVENT_FETCH: return ATTEMPT_DOWNLOADING;
	case EVENT_REPORT_DOWNLOADED: return ATTEMPT_DOWNLOADED;
	case EVENT_REPORT_INSTALLING: return ATTEMPT_INSTALLING;
	default: return ATTEMPT_PENDING;
	}
}

/* The contract, Attempts, sentence by sentence. */
static enum attempt_state expected(enum attempt_state s, enum attempt_event e)
{
	bool open = s <= ATTEMPT_INSTALLING;

	/* "A finished update is never reopened"; "`success` can become `rolled_back` later". */
	if (s == ATTEMPT_FAILED || s == ATTEMPT_ROLLED_BACK)
		return s;
	if (s == ATTEMPT_SUCCESS)
		return e == EVENT_REPORT_ROLLED_BACK || e == EVENT_SEEN_OLD ? ATTEMPT_ROLLED_BACK
									    : s;
	/* The device's own word about the end is recorded as said, of what never seemed to begin
	 * too. */
	if (e == EVENT_REPORT_SUCCESS)
		return ATTEMPT_SUCCESS;
	if (e == EVENT_REPORT_FAILED)
		return ATTEMPT_FAILED;
	if (e == EVENT_REPORT_ROLLED_BACK)
		return ATTEMPT_ROLLED_BACK;
	/* Withdrawn: nobody's failure, and nothing else opens it again. */
	if (s == ATTEMPT_WITHDRAWN)
		return s;
	/* "A check-in ... with the target version closes it as success, even if the result was
	 * lost". */
	if (e == EVENT_SEEN_TARGET)
		return ATTEMPT_SUCCESS;
	/* "The old version after `installing` means rolled_back", before it means nothing. */
	if (e == EVENT_SEEN_OLD)
		return s == ATTEMPT_INSTALLING ? ATTEMPT_ROLLED_BACK : s;
	/* "An attempt never begun is withdrawn or lapses"; "what has begun runs to its end". */
	if (e == EVENT_WITHDRAW)
		return s == ATTEMPT_PENDING || s == ATTEMPT_LAPSED ? ATTEMPT_WITHDRAWN : s;
	if (e == EVENT_LAPSE)
		return s == ATTEMPT_PENDING ? ATTEMPT_LAPSED : s;
	/* Another release takes the place of a download that stopped; of an installation never. */
	if (e == EVENT_SUPERSEDE)
		return s == ATTEMPT_PENDING || s == ATTEMPT_LAPSED ? ATTEMPT_WITHDRAWN
		       : s == ATTEMPT_INSTALLING                   ? s
								   : ATTEMPT_FAILED;
	/* "Messages arrive late, twice, and out of order": progress only ever goes forward. */
	int p = progress_of(e);
	if (s == ATTEMPT_LAPSED)
		return p > ATTEMPT_PENDING ? (enum attempt_state)p : s;
	assert_true(open);
	return p > (int)s ? (enum attempt_state)p : s;
}

static void every_state_and_event(void **state)
{
	(void)state;
	for (int s = 0; s < ATTEMPT_STATES; s++)
		for (int e = 0; e < ATTEMPT_EVENTS; e++) {
			enum attempt_state is =
				attempt_next((enum attempt_state)s, (enum attempt_event)e);
			enum attempt_state want =
				expected((enum attempt_state)s, (enum attempt_event)e);
			if (is != want)
				fail_msg("state %s, event %d: %s, expected %s",
					 attempt_state_name((enum attempt_state)s), e,
					 attempt_state_name(is), attempt_state_name(want));
		}
}

static void classes(void **state)
{
	(void)state;
	for (int s = 0; s < ATTEMPT_STATES; s++) {
		enum attempt_state x = (enum attempt_state)s;
		bool open = s == ATTEMPT_PENDING || s == ATTEMPT_DOWNLOADING ||
			    s == ATTEMPT_DOWNLOADED || s == ATTEMPT_INSTALLING;
		bool finished = s == ATTEMPT_SUCCESS || s == ATTEMPT_FAILED ||
				s == ATTEMPT_ROLLED_BACK || s == ATTEMPT_WITHDRAWN;
		assert_int_equal(attempt_is_open(x), open);
		assert_int_equal(attempt_is_finished(x), finished);
		assert_int_equal(attempt_is_failure(x),
				 s == ATTEMPT_FAILED || s == ATTEMPT_ROLLED_BACK);
	}
}

static void random_sequences(void **state)
{
	(void)state;
	random_begin("attempt");
	for (int round = 0; round < 50000; round++) {
		enum attempt_state s = (enum attempt_state)random_below(ATTEMPT_STATES);
		bool finished = attempt_is_finished(s), failed = attempt_is_failure(s);
		for (int step = 0; step < 20; step++) {
			enum attempt_event e = (enum attempt_event)random_below(ATTEMPT_EVENTS);
			enum attempt_state next = attempt_next(s, e);
			if (finished && !attempt_is_finished(next))
				fail_msg("%s reopened by event %d", attempt_state_name(s), e);
			if (failed && next != s)
				fail_msg("%s moved by event %d", attempt_state_name(s), e);
			if (attempt_is_open(s) && attempt_is_open(next) && next < s)
				fail_msg("%s went back by event %d", attempt_state_name(s), e);
			if (attempt_next(next, e) != next)
				fail_msg("event %d twice in %s is not the same as once", e,
					 attempt_state_name(s));
			s = next;
			finished = attempt_is_finished(s);
			failed = attempt_is_failure(s);
		}
	}
}

static void words(void **state)
{
	static const char *const contract[] = {"pending", "downloading", "downloaded", "installing",
					       "success", "failed",      "rolled_back"};

	(void)state;
	for (int s = 0; s < ATTEMPT_STATES; s++) {
		enum attempt_state x = (enum attempt_state)s, back;
		const char *closed = attempt_closed_word(x);
		bool known = false;
		assert_true(attempt_state_from_words(attempt_status_word(x), closed, &back));
		assert_int_equal(back, s);
		for (int i = 0; i < 7; i++)
			known |= strcmp(attempt_status_word(x), contract[i]) == 0;
		assert_true(known);
		for (int t = 0; t < s; t++)
			assert_string_not_equal(attempt_state_name(x),
						attempt_state_name((enum attempt_state)t));
	}
	assert_string_equal(attempt_status_word(ATTEMPT_LAPSED), "pending");
	assert_string_equal(attempt_closed_word(ATTEMPT_LAPSED), "lapsed");
	assert_string_equal(attempt_status_word(ATTEMPT_WITHDRAWN), "pending");
	assert_string_equal(attempt_closed_word(ATTEMPT_WITHDRAWN), "withdrawn");
	enum attempt_state out = ATTEMPT_FAILED;
	assert_false(attempt_state_from_words("success", "lapsed", &out));
	assert_false(attempt_state_from_words("lapsed", NULL, &out));
	assert_false(attempt_state_from_words("", NULL, &out));
	assert_int_equal(out, ATTEMPT_FAILED);
	for (int i = 0; i < 7; i++) {
		enum attempt_event e = attempt_event_from_status(contract[i]);
		assert_true(is_report(e));
		if (i > 0) /* on a fresh attempt each word leads to the state it names */
			assert_string_equal(attempt_status_word(attempt_next(ATTEMPT_PENDING, e)),
					    contract[i]);
	}
	assert_int_equal(attempt_event_from_status("lapsed"), EVENT_NONE);
	assert_int_equal(attempt_event_from_status("Success"), EVENT_NONE);
	assert_int_equal(attempt_event_from_status(""), EVENT_NONE);
}

/* A word that may be of the attempt before: what it moves. */
static void unnamed_words(void **state)
{
	(void)state;
	for (enum attempt_event e = EVENT_NONE; e <= EVENT_REPORT_ROLLED_BACK; e++) {
		assert_true(attempt_takes_unnamed(ATTEMPT_PENDING, e, false, true));
		assert_true(attempt_takes_unnamed(ATTEMPT_DOWNLOADING, e, false, false));
		assert_true(attempt_takes_unnamed(ATTEMPT_INSTALLING, e, false, false));
		assert_int_equal(attempt_takes_unnamed(ATTEMPT_PENDING, e, true, false),
				 e != EVENT_REPORT_ROLLED_BACK);
		assert_int_equal(attempt_takes_unnamed(ATTEMPT_PENDING, e, false, false),
				 e == EVENT_NONE);
		assert_int_equal(attempt_takes_unnamed(ATTEMPT_LAPSED, e, false, false),
				 e == EVENT_NONE);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_state_and_event), cmocka_unit_test(classes),
		cmocka_unit_test(random_sequences),      cmocka_unit_test(words),
		cmocka_unit_test(unnamed_words),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
