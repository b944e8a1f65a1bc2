/* SPDX-License-Identifier: MIT */
/* core/version: the order of versions, by tables and as a partial order over random ones. */
#include "core/version.h"

#include "random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

static enum version_order reversed(enum version_order o)
{
	return o == VERSION_INCOMPARABLE ? o : (enum version_order) - (int)o;
}

static void expect(const char *a, const char *b, enum version_order want)
{
	if (version_compare(a, b) != want || version_compare(b, a) != reversed(want))
		fail_msg("%s against %s: %d and %d, expected %d", a, b, version_compare(a, b),
			 version_compare(b, a), want);
}

/* Each lower than all that follow: Semantic Versioning 2.0.0, 11, and its examples. */
static void semver_chain(void **state)
{
	static const char *const chain[] = {
		"0.0.0",
		"0.0.1-0",
		"0.0.1",
		"1.0.0-0",
		"1.0.0-1",
		"1.0.0-10",
		"1.0.0-10.a",
		"1.0.0-A",
		"1.0.0-alpha",
		"1.0.0-alpha.1",
		"1.0.0-alpha.beta",
		"1.0.0-beta",
		"1.0.0-beta.2",
		"1.0.0-beta.11",
		"1.0.0-rc.1",
		"1.0.0",
		"1.0.1",
		"1.2.0",
		"1.10.0",
		"2.0.0",
		"2.1.0",
		"2.1.1",
		"10.0.0",
		"99999999999999999999.0.0",
		"100000000000000000000.0.0",
	};

	(void)state;
	for (size_t i = 0; i < sizeof chain / sizeof *chain; i++)
		for (size_t j = i + 1; j < sizeof chain / sizeof *chain; j++)
			expect(chain[i], chain[j], VERSION_LOWER);
}

static void same_and_incomparable(void **state)
{
	static const struct {
		const char *a, *b;
		enum version_order want;
	} cases[] = {
		{"1.2.3", "1.2.3", VERSION_SAME},
		{"v1.2.3", "1.2.3", VERSION_SAME},
		{"v1.2.3", "v1.2.4", VERSION_LOWER},
		{"1.2.3+build.7", "1.2.3", VERSION_SAME},
		{"1.2.3+001", "1.2.3+exp.sha.5114f85", VERSION_SAME},
		{"1.0.0-rc.1+build.1", "1.0.0-rc.1", VERSION_SAME},
		{"abc1234-20260101-000000", "0000000-20260101-000001", VERSION_LOWER},
		{"vabc1234-20260101-000000", "abc1234-20260101-000000", VERSION_SAME},
		{"abc1234-20260101-000000", "def5678-20260101-000000", VERSION_SAME},
		{"1234567-20251231-235959", "1234567-20260101-000000", VERSION_LOWER},
		{"abc1234-20260101-000000", "1.2.3", VERSION_INCOMPARABLE},
		{"foo", "foo", VERSION_INCOMPARABLE},
		{"1.2", "1.2.3", VERSION_INCOMPARABLE},
		{"1.2.3.4", "1.2.3", VERSION_INCOMPARABLE},
		{"01.2.3", "1.2.3", VERSION_INCOMPARABLE},
		{"1.2.03", "1.2.3", VERSION_INCOMPARABLE},
		{"1.2.3-", "1.2.3", VERSION_INCOMPARABLE},
		{"1.2.3+", "1.2.3", VERSION_INCOMPARABLE},
		{"1.2.3-a..b", "1.2.3", VERSION_INCOMPARABLE},
		{"1.2.3-01", "1.2.3", VERSION_INCOMPARABLE},
		{"1.2.3-01a", "1.2.3", VERSION_LOWER},
		{"1.2.3-a_b", "1.2.3", VERSION_INCOMPARABLE},
		{"1.2.3+a+b", "1.2.3", VERSION_INCOMPARABLE},
		{"vv1.2.3", "1.2.3", VERSION_INCOMPARABLE},
		{"V1.2.3", "1.2.3", VERSION_INCOMPARABLE},
		{"", "1.2.3", VERSION_INCOMPARABLE},
		{"", "", VERSION_INCOMPARABLE},
		{"v", "1.2.3", VERSION_INCOMPARABLE},
		{"ABC1234-20260101-000000", "abc1234-20260101-000000", VERSION_INCOMPARABLE},
		{"abc123-20260101-000000", "abc1234-20260101-000000", VERSION_INCOMPARABLE},
		{"abc1234-20260101-00000", "abc1234-20260101-000000", VERSION_INCOMPARABLE},
		{"abc1234-2026010a-000000", "abc1234-20260101-000000", VERSION_INCOMPARABLE},
		{"abc1234_20260101-000000", "abc1234-20260101-000000", VERSION_INCOMPARABLE},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		expect(cases[i].a, cases[i].b, cases[i].want);
}

static void equality(void **state)
{
	(void)state;
	assert_true(version_equal("v1.0", "1.0"));
	assert_true(version_equal("foo", "foo"));
	assert_true(version_equal("", ""));
	assert_false(version_equal("1.0.0", "1.0.0+b"));
	assert_false(version_equal("1.0.0", "1.0.00"));
	assert_false(version_equal("v", ""));
	assert_false(version_equal("V1.0", "1.0"));
}

enum kind { SEMVER, STAMP, OTHER };

/* From few parts, so that equal and nearly equal ones are frequent. */
static enum kind random_version(char out[64])
{
	static const char *const pre[] = {"",     "",    "-a",    "-a.1",   "-1",
					  "-1.a", "-10", "-rc.2", "-rc.11", "-A"};
	static const char *const build[] = {"", "", "+1", "+x.y"};
	static const char *const other[] = {"foo",       "1.2", "1.2.3.4", "01.0.0",
					    "release-7", "v",   "1.0.0-"};
	const char *v = random_below(3) ? "" : "v";

	switch (random_below(5)) {
	case 0: snprintf(out, 64, "%s%s", v, other[random_below(7)]); return OTHER;
	case 1:
		snprintf(out, 64, "%s%07x-2026010%d-00000%d", v, (unsigned)random_below(0xFFFFFFF),
			 random_below(3), random_below(3));
		return STAMP;
	default:
		snprintf(out, 64, "%s%d.%d.%d%s%s", v, random_below(3), random_below(2),
			 random_below(12), pre[random_below(10)], build[random_below(4)]);
		return SEMVER;
	}
}

static void partial_order(void **state)
{
	(void)state;
	random_begin("version order");
	for (int i = 0; i < 300000; i++) {
		char a[64], b[64], c[64];
		enum kind ka = random_version(a), kb = random_version(b);
		random_version(c);
		enum version_order ab = version_compare(a, b), bc = version_compare(b, c),
				   ac = version_compare(a, c);
		if (version_compare(b, a) != reversed(ab))
			fail_msg("not antisymmetric: %s %s", a, b);
		if ((ab != VERSION_INCOMPARABLE) != (ka == kb && ka != OTHER))
			fail_msg("not total within its kind: %s %s: %d", a, b, ab);
		if (ab <= VERSION_SAME && bc <= VERSION_SAME) {
			enum version_order want = ab == VERSION_SAME ? bc : ab;
			if (ac != want)
				fail_msg("not transitive: %s %s %s", a, b, c);
		}
		if (version_equal(a, b) && ka != OTHER && ab != VERSION_SAME)
			fail_msg("equal but not the same: %s %s", a, b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(semver_chain),
		cmocka_unit_test(same_and_incomparable),
		cmocka_unit_test(equality),
		cmocka_unit_test(partial_order),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
