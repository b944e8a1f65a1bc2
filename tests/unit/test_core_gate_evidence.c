/* SPDX-License-Identifier: MIT */
/* core/gate_evidence: the numbers by hand, and that E stays 1 on average while p0 holds. */
#include "core/gate_evidence.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

static void near(double have, double want, double tolerance, const char *what)
{
	if (!(fabs(have - want) <= tolerance * fabs(want)))
		fail_msg("%s: %.17g, expected %.17g", what, have, want);
}

static double value_after(const struct gate_params *p, const char *outcomes)
{
	struct gate_factors l = gate_factors_of(p);
	struct gate_evidence e;

	gate_evidence_init(&e);
	for (const char *c = outcomes; *c; c++)
		gate_evidence_add(&e, &l, *c == 'F');
	assert_int_equal(e.n, strlen(outcomes));
	return gate_evidence_value(&e, &l);
}

/* L on failure is 5, 10, 20, 50, 95: on average 36, squared 2410, cubed 198300. */
static void by_hand(void **state)
{
	struct gate_params p = gate_params_default();
	double g1 = 1 / (1 + log(2)), g2 = 1 / (1 + log(3)), g3 = 1 / (1 + log(4));
	double proof = ((0.95 + 0.9 + 0.8 + 0.5 + 0.05) / 5) / 0.99;

	(void)state;
	near(value_after(&p, ""), 1, 0, "nothing");
	near(value_after(&p, "F"), (1 - g1) * 36 + g1, 1e-14, "F");
	near(value_after(&p, "FF"), (1 - g1) * 2410 + (g1 - g2) * 36 + g2, 1e-14, "FF");
	near(value_after(&p, "FFF"), (1 - g1) * 198300 + (g1 - g2) * 2410 + (g2 - g3) * 36 + g3,
	     1e-14, "FFF");
	near(value_after(&p, "P"), (1 - g1) * proof + g1, 1e-14, "P");
	assert_true(value_after(&p, "FF") / 2 > 495 && value_after(&p, "FF") / 2 < 496);
	assert_true(value_after(&p, "F") / 2 < 125);
}

/* The sum over all sequences of so many outcomes of their chance at p0 times E. */
static double expectation(const struct gate_params *p, const struct gate_factors *l,
			  const struct gate_evidence *e, double chance, int more)
{
	struct gate_evidence failed = *e, proven = *e;

	if (!more)
		return chance * gate_evidence_value(e, l);
	gate_evidence_add(&failed, l, true);
	gate_evidence_add(&proven, l, false);
	return expectation(p, l, &failed, chance * p->p0, more - 1) +
	       expectation(p, l, &proven, chance * (1 - p->p0), more - 1);
}

static void one_on_average(void **state)
{
	struct gate_params some[] = {gate_params_default(),
				     {.p0 = 0.3, .suspect_count = 2, .suspects = {0.4, 0.99}},
				     {.p0 = 0.001, .suspect_count = 1, .suspects = {0.002}}};

	(void)state;
	for (size_t i = 0; i < sizeof some / sizeof some[0]; i++) {
		struct gate_factors l = gate_factors_of(&some[i]);
		struct gate_evidence e;

		gate_evidence_init(&e);
		for (int n = 1; n <= 16; n++)
			near(expectation(&some[i], &l, &e, 1, n), 1, 1e-9, "E on average");
	}
}

/* A proof in the place of a failure never says more: what is run ahead understates. */
static void a_failure_says_more(void **state)
{
	struct gate_params p = gate_params_default();
	char a[17], b[17];

	(void)state;
	for (unsigned bits = 0; bits < 1u << 10; bits++)
		for (int other = 0; other < 10; other++) {
			for (int i = 0; i < 10; i++)
				a[i] = b[i] = bits >> i & 1 ? 'F' : 'P';
			a[10] = b[10] = '\0';
			a[other] = 'F';
			b[other] = 'P';
			assert_true(value_after(&p, a) > value_after(&p, b));
		}
}

static void large_numbers(void **state)
{
	struct gate_params p = {.p0 = 1e-6, .suspect_count = 2, .suspects = {0.5, 0.999}};
	struct gate_factors l = gate_factors_of(&p);
	struct gate_evidence e;

	(void)state;
	gate_evidence_init(&e);
	for (int i = 0; i < 1000; i++)
		gate_evidence_add(&e, &l, true);
	assert_true(isfinite(gate_evidence_value(&e, &l)));
	assert_true(gate_evidence_value(&e, &l) > 1e299);
	/* From there back to nothing, and never below what is left for later. */
	for (int i = 0; i < 1000000; i++)
		gate_evidence_add(&e, &l, false);
	assert_true(gate_evidence_value(&e, &l) >= e.g);
	assert_true(gate_evidence_value(&e, &l) < 1.001 * e.g);
	near(e.g, gate_evidence_left(1001000), 1e-15, "what is left");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(by_hand),
		cmocka_unit_test(one_on_average),
		cmocka_unit_test(a_failure_says_more),
		cmocka_unit_test(large_numbers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
