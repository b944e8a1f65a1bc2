/* SPDX-License-Identifier: MIT */
/* core/gate: places, order, halts and what is said of them; case by case. */
#include "gate_walk.h"

#include <stdio.h>

static struct gate gate;
static int64_t next_number;

static int begin(void **state)
{
	struct gate_params p = gate_params_default();

	(void)state;
	gate_init(&gate, &p);
	next_number = 0;
	return 0;
}

static int end(void **state)
{
	(void)state;
	gate_fini(&gate);
	return 0;
}

/* Exposes one of hardware HW; the answer when that may not be. */
static enum gate_answer expose_of(const char *hw)
{
	enum gate_answer answer;
	struct gate_place place;

	assert_int_equal(gate_reserve(&gate, hw, "1.0.0", &answer, &place), OTA_OK);
	if (answer == GATE_FREE)
		gate_open(&gate, &place, ++next_number);
	return answer;
}

static enum gate_answer expose(void)
{
	return expose_of("v1");
}

static int expose_all(void)
{
	int n = 0;

	while (expose() == GATE_FREE)
		n++;
	return n;
}

/* The outcomes of the next exposures, one after the other: P, F, S silent, G given back. */
static void live(const char *outcomes)
{
	for (; *outcomes; outcomes++) {
		assert_int_equal(expose(), GATE_FREE);
		assert_true(*outcomes == 'P'   ? gate_proven(&gate, next_number)
			    : *outcomes == 'F' ? gate_failed(&gate, next_number)
			    : *outcomes == 'S' ? gate_silent(&gate, next_number)
					       : gate_give_back(&gate, next_number));
	}
}

static void says(const char *want)
{
	char have[GATE_SENTENCE_SIZE];
	struct gate_view v = gate_view(&gate);

	gate_sentence(&v, have);
	assert_string_equal(have, want);
}

static void two_places_at_the_start(void **state)
{
	(void)state;
	assert_int_equal(gate_ask(&gate, "v1", "1.0.0"), GATE_FREE);
	assert_int_equal(expose_all(), 2);
	assert_int_equal(expose(), GATE_FULL);
	struct gate_view v = gate_view(&gate);
	assert_int_equal(v.unresolved, 2);
	assert_int_equal(v.bound, 2);
	assert_true(gate_is_unresolved(&gate, 1));
	assert_true(gate_give_back(&gate, 1));
	assert_false(gate_is_unresolved(&gate, 1));
	assert_int_equal(expose_all(), 1);
}

/* Places are counted from the reservation on, so that one batch cannot take the last one twice. */
static void reserved_and_cancelled(void **state)
{
	enum gate_answer answer;
	struct gate_place a, b, c;

	(void)state;
	assert_int_equal(gate_reserve(&gate, "v1", NULL, &answer, &a), OTA_OK);
	assert_int_equal(answer, GATE_FREE);
	assert_int_equal(gate_reserve(&gate, "v2", NULL, &answer, &b), OTA_OK);
	assert_int_equal(answer, GATE_FREE);
	assert_int_equal(gate_reserve(&gate, "v3", NULL, &answer, &c), OTA_OK);
	assert_int_equal(answer, GATE_FULL);
	/* The first was not committed: no trace, not even in the rank of the second. */
	gate_cancel(&gate, &a);
	gate_open(&gate, &b, ++next_number);
	assert_int_equal(gate_variants(&gate), 1);
	assert_string_equal(gate_view_variant(&gate, 0).hw, "v2");
	assert_int_equal(gate_view(&gate).unresolved, 1);
	assert_int_equal(expose_of("v3"), GATE_FREE);
}

static void bricks_all(void **state)
{
	(void)state;
	assert_int_equal(expose_all(), 2);
	assert_true(gate_failed(&gate, 1));
	says("1 of the first 1 failed: 7.6 times likelier if the release is bad; halts at 125");
	/* Its place stays taken, and one is under way. */
	assert_int_equal(expose(), GATE_FULL);
	assert_false(gate_is_calm(&gate));
	assert_true(gate_silent(&gate, 2));
	assert_true(gate_is_halted(&gate));
	says("2 of the first 2 failed: 490 times likelier if the release is bad; halted at 125");
	assert_int_equal(expose(), GATE_HALTED);
	struct gate_view v = gate_view(&gate);
	assert_int_equal(v.failed, 2);
	assert_int_equal(v.silent, 1);
	assert_int_equal(v.unresolved, 0);
	assert_true(v.e > 991 && v.e < 992 && v.likelier > 495 && v.likelier < 496);
	assert_true(v.halts_at >= 125 && v.halts_at <= 125);
}

static void stays_halted(void **state)
{
	(void)state;
	assert_int_equal(expose_all(), 2);
	gate_failed(&gate, 1);
	gate_failed(&gate, 2);
	for (int64_t n = 3; n < 5000; n++) {
		gate_apply(&gate, GATE_EVENT_EXPOSED, n, "v1", "1.0.0");
		gate_apply(&gate, GATE_EVENT_PROVEN, n, NULL, NULL);
		assert_true(gate_is_halted(&gate));
	}
	assert_true(gate_evidence_value(&gate.line.entered, &gate.rules.factors) < 5);
	assert_false(gate_is_calm(&gate));
	says("2 of the first 2 failed: 490 times likelier if the release is bad; halted at 125");
}

/* Failures come first; what is pending before them is taken as proven. */
static void stopped_early(void **state)
{
	(void)state;
	live("PPPPPP"); /* 2, 2, then 4 places */
	assert_int_equal(gate_view(&gate).bound, 8);
	assert_int_equal(expose_all(), 8);
	assert_true(gate_failed(&gate, 8));
	assert_int_equal(gate.line.entered.n, 6);
	struct gate_view v = gate_view(&gate);
	assert_int_equal(v.n, 8);
	assert_int_equal(v.n_failed, 1);
	assert_true(gate_failed(&gate, 10));
	assert_int_equal(gate_view(&gate).n, 10);
	assert_true(gate_failed(&gate, 12));
	says("3 of the first 12 failed: 270 times likelier if the release is bad; halted at 125");
	/* What they were taken for in the end makes no less of it. */
	assert_true(gate_failed(&gate, 7));
	assert_true(gate_proven(&gate, 9));
	assert_true(gate_proven(&gate, 11));
	assert_true(gate_evidence_value(&gate.line.entered, &gate.rules.factors) > 2 * 11181);
	assert_int_equal(gate.line.entered.n, 12);
}

static void first_come_first_counted(void **state)
{
	(void)state;
	live("PP");
	assert_int_equal(expose_all(), 4);
	assert_true(gate_proven(&gate, 6));
	assert_true(gate_proven(&gate, 5));
	assert_true(gate_proven(&gate, 4));
	assert_int_equal(gate.line.entered.n, 2);
	assert_int_equal(gate_view(&gate).proven, 5);
	assert_true(gate_proven(&gate, 3));
	assert_int_equal(gate.line.entered.n, 6);
	assert_int_equal(gate.line.count, 0);
}

static void one_outcome_each(void **state)
{
	(void)state;
	assert_int_equal(expose_all(), 2);
	assert_true(gate_at_risk(&gate, 2));
	assert_false(gate_at_risk(&gate, 2));
	assert_int_equal(gate_view(&gate).at_risk, 1);
	assert_true(gate_proven(&gate, 2));
	assert_int_equal(gate_view(&gate).at_risk, 0);
	assert_false(gate_proven(&gate, 2));
	assert_false(gate_failed(&gate, 2));
	assert_false(gate_give_back(&gate, 2));
	assert_false(gate_at_risk(&gate, 2));
	assert_false(gate_failed(&gate, 77));
	assert_true(gate_proven(&gate, 1));
	assert_false(gate_failed(&gate, 1));
	assert_int_equal(gate_view(&gate).proven, 2);
	assert_int_equal(gate_view(&gate).failed, 0);
}

/* 39 proofs outweigh a failure: ln 5 against 39 times ln (0.95 / 0.99). */
static void the_bound_moves(void **state)
{
	static const int bounds[] = {2, 4, 8, 16, 32, 64, 128, 256, 500, 500, 500};

	(void)state;
	for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
		assert_int_equal(gate_view(&gate).bound, bounds[i]);
		int n = expose_all();
		assert_int_equal(n, bounds[i]);
		for (int k = 0; k < n; k++)
			assert_true(gate_proven(&gate, next_number - k));
	}
	/* One in 40 leaves it; one in 39 halves it, when as many have come as it allows. */
	assert_int_equal(expose_all(), 500);
	for (int k = 499; k >= 0; k--)
		assert_true(k % 41 == 40 ? gate_failed(&gate, next_number - k)
					 : gate_proven(&gate, next_number - k));
	assert_false(gate_is_halted(&gate));
	assert_int_equal(gate_view(&gate).bound, 500);
	gate_stage(&gate, 50000);
	assert_int_equal(gate.rules.most, 1000);
	for (int k = 0; k < 500; k++)
		live("P");
	assert_int_equal(gate_view(&gate).bound, 1000);
	gate_stage(&gate, 100);
	assert_int_equal(gate_view(&gate).bound, 500);
}

static void the_bound_falls(void **state)
{
	struct gate_params p = gate_params_default();

	(void)state;
	gate_fini(&gate);
	p.halt_at = 1e12;
	p.initial_unproven = 16;
	gate_init(&gate, &p);
	static const int bounds[] = {16, 8, 4, 2, 2};
	for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
		assert_int_equal(gate_view(&gate).bound, bounds[i]);
		int n = expose_all();
		assert_int_equal(n, bounds[i]);
		assert_true(gate_failed(&gate, next_number - n + 1));
		for (int k = 0; k < n - 1; k++)
			assert_true(gate_proven(&gate, next_number - k));
		assert_int_equal(gate_view(&gate).held, 0);
	}
}

/* A failed one keeps its place until one exposed after it is proven, not before it. */
static void a_failed_place(void **state)
{
	(void)state;
	live("PPPPPP");
	assert_int_equal(expose_all(), 8); /* 7 .. 14 */
	assert_true(gate_failed(&gate, 8));
	assert_int_equal(gate_view(&gate).held, 1);
	assert_int_equal(expose(), GATE_FULL);
	assert_true(gate_proven(&gate, 7));
	assert_int_equal(gate_view(&gate).held, 1);
	assert_int_equal(expose_all(), 1);
	assert_true(gate_proven(&gate, 9));
	assert_int_equal(gate_view(&gate).held, 0);
	assert_int_equal(expose_all(), 2);
	/* One of which a later one is proven already keeps none. */
	assert_true(gate_proven(&gate, 14));
	assert_true(gate_failed(&gate, 10));
	assert_int_equal(gate_view(&gate).held, 0);
}

/* All places kept by failures, and not halted: one at a time goes on. */
static void one_may_always_go(void **state)
{
	struct gate_params p = gate_params_default();

	(void)state;
	gate_fini(&gate);
	p.initial_unproven = 1;
	p.halt_at = 10000;
	gate_init(&gate, &p);
	assert_int_equal(expose_all(), 1);
	gate_failed(&gate, 1);
	assert_int_equal(expose_all(), 1);
	gate_failed(&gate, 2);
	assert_int_equal(gate_view(&gate).held, 2);
	assert_int_equal(expose_all(), 1);
	assert_int_equal(expose(), GATE_FULL);
	gate_failed(&gate, 3);
	assert_true(gate_is_halted(&gate));
}

/* An early one of which nothing is known: what waits behind it is bounded by W. */
static void clogged(void **state)
{
	(void)state;
	assert_int_equal(expose(), GATE_FREE);
	int n = 1;
	while (expose() == GATE_FREE) {
		assert_true(gate_proven(&gate, next_number));
		n++;
	}
	assert_int_equal(n, GATE_QUEUE_FACTOR * 2);
	assert_int_equal(expose(), GATE_CLOGGED);
	char why[GATE_SENTENCE_SIZE];
	gate_answer_sentence(&gate, GATE_CLOGGED, "v1", "1.0.0", why);
	assert_string_equal(why,
			    "16 devices wait behind an earlier one of which nothing is known yet");
	assert_true(gate_give_back(&gate, 1));
	assert_int_equal(gate.line.count, 0);
	assert_int_equal(gate.line.entered.n, 15);
	assert_int_equal(gate_view(&gate).bound, 16);
}

/* What is given back takes no room, at the end or in the middle: offers that lapse behind an early
 * exposure do not clog the gate. */
static void given_back_takes_no_room(void **state)
{
	(void)state;
	live("PPPPPP");
	assert_int_equal(expose(), GATE_FREE);
	assert_int_equal(expose(), GATE_FREE);
	for (int i = 0; i < 10000; i++) {
		assert_int_equal(expose(), GATE_FREE);
		assert_true(gate_give_back(&gate, next_number - 1));
		assert_true(gate.line.cap <= 16);
	}
	for (int i = 0; i < 10000; i++) {
		live("G");
		assert_true(gate.line.cap <= 16);
	}
	assert_int_equal(gate_view(&gate).unresolved, 2);
}

/* Two that were taken as proven were none: what is left is 495 times likelier. */
static void halted_by_what_is_given_back(void **state)
{
	struct gate_params p = gate_params_default();

	(void)state;
	gate_fini(&gate);
	p.initial_unproven = 6;
	gate_init(&gate, &p);
	assert_int_equal(expose_all(), 6);
	assert_true(gate_failed(&gate, next_number));
	assert_true(gate_failed(&gate, next_number - 1));
	assert_false(gate_is_halted(&gate));
	for (int k = 2; k < 6; k++)
		assert_true(gate_give_back(&gate, next_number - k));
	assert_true(gate_is_halted(&gate));
	says("2 of the first 2 failed: 490 times likelier if the release is bad; halted at 125");
}

/* Among ten, one that bricks: the third of it holds it back, the others go on. */
static void one_variant(void **state)
{
	char hw[8], why[GATE_SENTENCE_SIZE];

	(void)state;
	for (int round = 0; round < 30; round++)
		for (int v = 0; v < 10; v++) {
			sprintf(hw, "v%d", v);
			if (expose_of(hw) == GATE_FREE)
				gate_proven(&gate, next_number);
		}
	assert_int_equal(gate_variants(&gate), 10);
	int harmed = 0;
	while (expose_of("v10") == GATE_FREE) {
		harmed++;
		gate_failed(&gate, next_number);
		for (int i = 0; i < 9; i++) {
			assert_int_equal(expose_of("v0"), GATE_FREE);
			gate_proven(&gate, next_number);
		}
	}
	assert_int_equal(harmed, 3);
	assert_int_equal(expose_of("v10"), GATE_VARIANT_HELD);
	assert_int_equal(expose_of("v3"), GATE_FREE);
	assert_false(gate_is_halted(&gate));
	struct gate_view v = gate_view_variant(&gate, 10);
	assert_string_equal(v.hw, "v10");
	assert_string_equal(v.from, "1.0.0");
	assert_true(v.halted);
	assert_int_equal(v.failed, 3);
	gate_sentence(&v, why);
	assert_string_equal(why,
			    "3 of the first 3 failed: 290 times likelier if the release is bad "
			    "for this variant; halted at 125");
	gate_answer_sentence(&gate, GATE_VARIANT_HELD, "v10", "", why);
	assert_string_equal(
		why, "the release is held back from devices of hardware v10, running unknown");
}

/* Each variant has a bound of its own, and both hold. */
static void bounds_of_variants(void **state)
{
	(void)state;
	live("PPPPPP");
	assert_int_equal(expose_of("v2"), GATE_FREE);
	assert_int_equal(expose_of("v2"), GATE_FREE);
	assert_int_equal(expose_of("v2"), GATE_VARIANT_FULL);
	assert_int_equal(expose_all(), 6);
	assert_int_equal(expose_of("v3"), GATE_FULL);
	/* A proof of another variant does not give the failed one's place back. */
	assert_true(gate_failed(&gate, 8));
	assert_true(gate_proven(&gate, next_number));
	assert_int_equal(expose_of("v2"), GATE_VARIANT_FULL);
	assert_true(gate_proven(&gate, 7));
	assert_int_equal(expose_of("v2"), GATE_FREE);
	assert_true(gate_proven(&gate, next_number));
	assert_int_equal(expose_of("v2"), GATE_FREE);
	assert_int_equal(expose_of("v2"), GATE_FREE);
}

static void many_variants(void **state)
{
	char hw[16];

	(void)state;
	for (int i = 0; i < 3 * GATE_VARIANTS_MAX; i++) {
		sprintf(hw, "hw%d", i);
		assert_int_equal(expose_of(hw), GATE_FREE);
		assert_true(gate_proven(&gate, next_number));
	}
	assert_int_equal(gate_variants(&gate), GATE_VARIANTS_MAX);
	assert_string_equal(gate_view_variant(&gate, GATE_VARIANTS_MAX - 1).hw, "");
	assert_int_equal(gate_view_variant(&gate, GATE_VARIANTS_MAX - 1).proven,
			 2 * GATE_VARIANTS_MAX + 1);
	double shares = gate.line.share;
	for (int i = 0; i < GATE_VARIANTS_MAX; i++)
		shares += gate.variants[i].line.share;
	assert_true(shares > 0.9 && shares <= 1);
}

/* A person says that the failures were not the release's: what was exposed counts no more. */
static void overridden(void **state)
{
	(void)state;
	assert_int_equal(expose_all(), 2);
	gate_failed(&gate, 1);
	gate_failed(&gate, 2);
	assert_int_equal(expose(), GATE_HALTED);
	gate_override(&gate);
	assert_false(gate_is_halted(&gate));
	says("no outcome is known yet; halts when 125 times likelier if the release is bad");
	assert_int_equal(expose_all(), 2);
	gate_override(&gate); /* these two as well */
	gate_failed(&gate, 3);
	gate_failed(&gate, 4);
	assert_false(gate_is_halted(&gate));
	assert_int_equal(expose_all(), 2);
	gate_failed(&gate, 5);
	gate_failed(&gate, 6);
	assert_true(gate_is_halted(&gate));
	says("2 of the first 2 failed: 490 times likelier if the release is bad; halted at 125");
}

static void sentences(void **state)
{
	char why[GATE_SENTENCE_SIZE];

	(void)state;
	says("no outcome is known yet; halts when 125 times likelier if the release is bad");
	live("PPPP");
	says("0 of the first 4 failed: no likelier if the release is bad; halts at 125");
	assert_true(gate_is_calm(&gate));
	assert_int_equal(expose_all(), 4);
	gate_failed(&gate, 5);
	gate_answer_sentence(&gate, GATE_FULL, "v1", "1.0.0", why);
	assert_string_equal(why,
			    "4 devices have not proven the release yet (1 of them failed), and "
			    "no more than 4 may");
	struct gate_view v = {.hw = "", .from = "", .n = 3, .n_failed = 3, .halts_at = 125};
	static const struct {
		double likelier;
		const char *want;
	} roundings[] = {{0.99, "no likelier if"},
			 {1, "1.0 times likelier if"},
			 {1.19, "1.1 times likelier if"},
			 {9.99, "9.9 times likelier if"},
			 {10, "10 times likelier if"},
			 {124.9, "120 times likelier if"},
			 {130, "130 times likelier if"},
			 {999, "990 times likelier if"},
			 {1000, "1000 times likelier if"},
			 {999999, "990000 times likelier if"},
			 {1e300, "over a million times likelier if"}};
	for (size_t i = 0; i < sizeof roundings / sizeof roundings[0]; i++) {
		v.likelier = roundings[i].likelier;
		gate_sentence(&v, why);
		if (!strstr(why, roundings[i].want))
			fail_msg("%g: %s", v.likelier, why);
	}
}

static void numbers_must_rise(void **state)
{
	struct gate_event e = {.kind = GATE_EVENT_EXPOSED, .number = 5};
	struct ota_err err;

	(void)state;
	assert_int_equal(gate_replay(&gate, &e, &err), OTA_OK);
	assert_int_equal(gate_replay(&gate, &e, &err), OTA_EUNPROCESSABLE);
	assert_string_equal(err.msg, "exposure 5 comes after exposure 5: numbers must rise");
	assert_int_equal(gate_view(&gate).unresolved, 1);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(two_places_at_the_start),
		CASE(reserved_and_cancelled),
		CASE(bricks_all),
		CASE(stays_halted),
		CASE(stopped_early),
		CASE(first_come_first_counted),
		CASE(one_outcome_each),
		CASE(the_bound_moves),
		CASE(the_bound_falls),
		CASE(a_failed_place),
		CASE(one_may_always_go),
		CASE(clogged),
		CASE(given_back_takes_no_room),
		CASE(halted_by_what_is_given_back),
		CASE(one_variant),
		CASE(bounds_of_variants),
		CASE(many_variants),
		CASE(overridden),
		CASE(sentences),
		CASE(numbers_must_rise),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
