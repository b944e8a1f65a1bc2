/* SPDX-License-Identifier: MIT */
/*
 * base/tz, base/tzfile and core/window where no time zone files are needed: rules and windows on
 * made-up zones, and files that make no sense.  tests/integration/test_window.py compares the whole
 * with another implementation.
 */
#include "base/clock.h"
#include "base/tzfile.h"
#include "core/window.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* after the others */
#include <cmocka.h>

static int64_t at(const char *text)
{
	int64_t us;

	assert_true(time_parse_human(text, &us));
	return us;
}

static struct tz *zone_of(const char *rule)
{
	struct tz *z = tz_new(0);

	assert_non_null(z);
	assert_true(tz_rule_parse(rule, &z->rule));
	z->has_rule = true;
	return z;
}

static void test_rules(void **state)
{
	static const struct {
		const char *rule, *at, *until; /* until NULL: for ever */
		int offset_s;
	} rows[] = {
		{"UTC0", "2027-01-01T00:00:00Z", NULL, 0},
		{"<+0545>-5:45", "2027-01-01T00:00:00Z", NULL, 20700},
		{"EET-2EEST,M3.5.0/3,M10.5.0/4", "2027-03-28T00:59:59Z", "2027-03-28T01:00:00Z",
		 7200},
		{"EET-2EEST,M3.5.0/3,M10.5.0/4", "2027-03-28T01:00:00Z", "2027-10-31T01:00:00Z",
		 10800},
		{"EET-2EEST,M3.5.0/3,M10.5.0/4", "2027-12-31T22:30:00Z", "2028-03-26T01:00:00Z",
		 7200},
		/* south of the equator, where summer goes over the end of the year */
		{"AEST-10AEDT,M10.1.0,M4.1.0/3", "2027-12-31T23:59:59Z", "2028-04-01T16:00:00Z",
		 39600},
		{"<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", "2027-06-01T00:00:00Z",
		 "2027-10-02T15:30:00Z", 37800},
		/* winter time as the exception */
		{"IST-1GMT0,M10.5.0,M3.5.0/1", "2027-12-01T00:00:00Z", "2028-03-26T01:00:00Z", 0},
		/* days by number, with 29 February counted or not; in a leap year and without */
		{"AAA0BBB,J60/0,J300/0", "2028-02-29T23:59:59Z", "2028-03-01T00:00:00Z", 0},
		{"AAA0BBB,59/0,300/0", "2028-02-28T23:59:59Z", "2028-02-29T00:00:00Z", 0},
		{"AAA0BBB,59/0,300/0", "2027-02-28T23:59:59Z", "2027-03-01T00:00:00Z", 0},
		/* hours before the day, and days after it */
		{"<-02>2<-01>,M3.5.0/-1,M10.5.0/0", "2027-03-28T00:59:59Z", "2027-03-28T01:00:00Z",
		 -7200},
		{"IST-2IDT,M3.4.4/26,M10.5.0", "2027-03-25T23:59:59Z", "2027-03-26T00:00:00Z",
		 7200},
	};
	(void)state;

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct tz *z = zone_of(rows[i].rule);
		int64_t until_s;
		assert_int_equal(tz_offset_s(z, at(rows[i].at) / US_PER_S, &until_s),
				 rows[i].offset_s);
		if (rows[i].until)
			assert_int_equal(until_s, at(rows[i].until) / US_PER_S);
		else
			assert_true(until_s == INT64_MAX);
		tz_free(&z);
	}
}

static void test_summer_all_the_year(void **state)
{
	struct tz *z = zone_of("XXX3EDT4,0/0,J365/23");
	(void)state;

	for (int64_t t_s = 0; t_s < INT64_C(4102444800); t_s += 86400 * 5 + 3600)
		assert_int_equal(tz_offset_s(z, t_s, NULL), -14400);
	tz_free(&z);
}

static void test_rules_that_are_none(void **state)
{
	static const char *const rules[] = {
		"",
		"E",
		"EET",
		"EET-25",
		"EET-2:60",
		"EET-2EEST",
		"EET-2EEST,M3.5.0",
		"EET-2EEST,M3.5.0,",
		"EET-2EEST,M13.5.0,M10.5.0",
		"EET-2EEST,M3.6.0,M10.5.0",
		"EET-2EEST,M3.5.7,M10.5.0",
		"EET-2EEST,J0,J300",
		"EET-2EEST,366,J300",
		"EET-2EEST,M3.5.0/168,M10.5.0",
		"EET-2EEST,M3.5.0,M10.5.0x",
		"<+03-3",
		"<+>-3",
		"EET-99999999999999",
	};
	struct tz_rule rule = {.standard_s = 7};
	(void)state;

	for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
		assert_false(tz_rule_parse(rules[i], &rule));
		assert_int_equal(rule.standard_s, 7);
	}
}

/* Before the first change, between, and after the last without a rule. */
static void test_changes(void **state)
{
	struct tz *z = tz_new(2), *copy;
	int64_t until_s;
	(void)state;

	z->first_offset_s = -100;
	z->count = 2;
	z->changes[0] = (struct tz_change){1000, 3600};
	z->changes[1] = (struct tz_change){2000, 7200};
	copy = tz_copy(z);
	tz_free(&z);
	assert_null(z);
	assert_int_equal(tz_offset_s(copy, 999, &until_s), -100);
	assert_int_equal(until_s, 1000);
	assert_int_equal(tz_offset_s(copy, 1000, &until_s), 3600);
	assert_int_equal(until_s, 2000);
	assert_int_equal(tz_offset_s(copy, 2000, &until_s), 7200);
	assert_true(until_s == INT64_MAX);
	tz_free(&copy);
}

/* --- windows --- */

static struct window window_of(const char *text)
{
	struct window w;
	struct ota_err err;

	assert_int_equal(window_parse(text, &w, &err), OTA_OK);
	assert_null(w.zone);
	return w;
}

static void test_open_and_shut(void **state)
{
	static const struct {
		const char *window, *at, *change;
		bool open;
	} rows[] = {
		/* 2027-01-04 is a Monday. */
		{"Mon-Fri 01:00-05:00 UTC", "2027-01-03T23:59:59Z", "2027-01-04T01:00:00Z", false},
		{"Mon-Fri 01:00-05:00 UTC", "2027-01-04T01:00:00Z", "2027-01-04T05:00:00Z", true},
		{"Mon-Fri 01:00-05:00 UTC", "2027-01-08T05:00:00Z", "2027-01-11T01:00:00Z", false},
		{"daily 22:00-04:00 UTC", "2027-01-04T03:59:59Z", "2027-01-04T04:00:00Z", true},
		{"daily 22:00-04:00 UTC", "2027-01-03T23:00:00Z", "2027-01-04T04:00:00Z", true},
		{"Sun 22:00-04:00 UTC", "2027-01-04T03:00:00Z", "2027-01-04T04:00:00Z", true},
		{"Sun 22:00-04:00 UTC", "2027-01-05T03:00:00Z", "2027-01-10T22:00:00Z", false},
		{"Sat,Sun 00:00-24:00 UTC", "2027-01-02T00:00:00Z", "2027-01-04T00:00:00Z", true},
		{"Fri-Mon 8:00-09:00 UTC", "2027-01-04T08:30:00Z", "2027-01-04T09:00:00Z", true},
		{"Fri-Mon 8:00-09:00 UTC", "2027-01-05T08:30:00Z", "2027-01-08T08:00:00Z", false},
		{"mon 22:00-00:00 UTC", "2027-01-04T22:00:00Z", "2027-01-05T00:00:00Z", true},
		/* parts that meet or overlap are one */
		{"Mon 01:00-02:00; Mon 02:00-03:00 UTC", "2027-01-04T01:00:00Z",
		 "2027-01-04T03:00:00Z", true},
		{"Mon 01:00-04:00; Mon 02:00-03:00;Tue 00:00-01:00 UTC", "2027-01-04T02:30:00Z",
		 "2027-01-04T04:00:00Z", true},
		{"Sun 20:00-24:00; Mon 00:00-01:00 UTC", "2027-01-03T21:00:00Z",
		 "2027-01-04T01:00:00Z", true},
		/* before 1970 */
		{"daily 01:00-05:00 UTC", "1970-01-01T00:00:00Z", "1970-01-01T01:00:00Z", false},
	};
	(void)state;

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct window w = window_of(rows[i].window);
		w.zone = tz_new(0);
		int64_t t_us = at(rows[i].at), change_us = at(rows[i].change);
		assert_int_equal(window_is_open(&w, t_us), rows[i].open);
		assert_int_equal(window_next_change_us(&w, t_us), change_us);
		assert_int_equal(window_opens_us(&w, t_us), rows[i].open ? t_us : change_us);
		assert_int_equal(window_is_open(&w, change_us - 1), rows[i].open);
		tz_free(&w.zone);
	}
}

/* Without its zone a window is shut, and says why. */
static void test_zone_that_cannot_be_read(void **state)
{
	struct window w = window_of("daily 00:00-24:00 Europe/Helsinki");
	char text[200];
	(void)state;

	assert_false(window_is_open(&w, at("2027-01-04T00:00:00Z")));
	assert_true(window_opens_us(&w, 0) == INT64_MAX);
	window_sentence(&w, 0, text, sizeof text);
	assert_non_null(strstr(text, "Europe/Helsinki cannot be read"));
	assert_non_null(strstr(text, "tzdata"));
}

/* Each year in the gap, where a place has no other hours of that kind. */
static void test_never_opens(void **state)
{
	struct window w = window_of("Mon 02:00-03:00 UTC");
	(void)state;

	/* Clocks that leave out each Monday's third hour. */
	w.zone = tz_new(200);
	for (size_t i = 0; i < 200; i++) {
		int64_t monday_s =
			at("2027-01-04T02:00:00Z") / US_PER_S + (int64_t)(i / 2) * 604800;
		w.zone->changes[i] =
			(struct tz_change){monday_s + (i % 2 ? 86400 : 0), i % 2 ? 0 : 3600};
	}
	w.zone->count = 200;
	assert_true(window_opens_us(&w, at("2027-01-04T00:00:00Z")) == INT64_MAX);
	struct window *copy = window_copy(&w);
	assert_true(window_opens_us(copy, at("2027-01-04T00:00:00Z")) == INT64_MAX);
	window_free(&copy);
	assert_null(copy);
	tz_free(&w.zone);
}

/* --- files --- */

static void expect_no_zone(const char *directory, const char *name, enum ota_code code,
			   const char *words)
{
	struct ota_err err = {0};
	struct tz *z = NULL;

	assert_int_equal(tz_load(directory, name, &z, &err), code);
	assert_null(z);
	assert_non_null(strstr(err.msg, words));
}

static void write_file(const char *directory, const char *name, const void *data, size_t len)
{
	char path[200];

	snprintf(path, sizeof path, "%s/%s", directory, name);
	FILE *f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	fclose(f);
}

static void test_files(void **state)
{
	char directory[] = "/tmp/paku-zones-XXXXXX", path[200];
	static const char *const made[] = {"List", "Cut", "Old"};
	struct tz *z = NULL;
	struct ota_err err;
	(void)state;

	assert_non_null(mkdtemp(directory));
	write_file(directory, "List", "# a list\n", 9);
	write_file(directory, "Cut", "TZif2\0\0\0", 8);
	write_file(directory, "Old",
		   "TZif\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0"
		   "\0\0\4",
		   44);
	expect_no_zone(directory, "Europe/Helsinky", OTA_ENOTFOUND,
		       "there is no time zone 'Europe/Helsinky'");
	expect_no_zone(directory, "List", OTA_ENOTFOUND, "there is no time zone 'List'");
	expect_no_zone(directory, "Cut", OTA_EIO, "it is no TZif file");
	expect_no_zone(directory, "Old", OTA_EIO, "version 1");
	expect_no_zone(directory, "List/Cut", OTA_ENOTFOUND, "there is no time zone");
	expect_no_zone("/nowhere/zones", "Europe/Helsinki", OTA_ENOTFOUND,
		       "install the package tzdata");
	expect_no_zone(directory, "", OTA_EINVAL, "is no name");
	expect_no_zone(directory, "/etc/passwd", OTA_EINVAL, "is no name");
	expect_no_zone(directory, "../passwd", OTA_EINVAL, "is no name");
	expect_no_zone(directory, "a//b", OTA_EINVAL, "is no name");
	/* UTC needs no file. */
	assert_int_equal(tz_load("/nowhere/zones", "UTC", &z, &err), OTA_OK);
	assert_int_equal(tz_offset_s(z, 1800000000, NULL), 0);
	tz_free(&z);
	for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
		snprintf(path, sizeof path, "%s/%s", directory, made[i]);
		assert_int_equal(unlink(path), 0);
	}
	assert_int_equal(rmdir(directory), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_summer_all_the_year),
		cmocka_unit_test(test_rules_that_are_none),
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_open_and_shut),
		cmocka_unit_test(test_zone_that_cannot_be_read),
		cmocka_unit_test(test_never_opens),
		cmocka_unit_test(test_files),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
