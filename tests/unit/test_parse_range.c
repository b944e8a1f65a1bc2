/* SPDX-License-Identifier: MIT */
/* http/parse/range and accept: the RFC's cases, and what clients really send. */
#include "http/parse/accept.h"
#include "http/parse/range.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>

#define BIG UINT64_C(18446744073709551615)

static const struct {
	const char *header;
	uint64_t size;
	enum range_result result;
	uint64_t first, last;
} ranges[] = {
	{"bytes=0-", 100, RANGE_OK, 0, 99},
	{"bytes=0-0", 100, RANGE_OK, 0, 0},
	{"bytes=5-9", 100, RANGE_OK, 5, 9},
	{"bytes=5-99", 100, RANGE_OK, 5, 99},
	{"bytes=5-100", 100, RANGE_OK, 5, 99}, /* ESP-IDF asks up to the length */
	{"bytes=99-", 100, RANGE_OK, 99, 99},
	{"bytes=-1", 100, RANGE_OK, 99, 99},
	{"bytes=-100", 100, RANGE_OK, 0, 99},
	{"bytes=-101", 100, RANGE_OK, 0, 99},
	{"BYTES=1-2", 100, RANGE_OK, 1, 2},
	{" bytes= 1-2 \t", 100, RANGE_OK, 1, 2},
	{"bytes=,, 1-2 ,", 100, RANGE_OK, 1, 2},
	{"bytes=0001-000000000000000000000000000002", 100, RANGE_OK, 1, 2},
	{"bytes=0-99999999999999999999999", 100, RANGE_OK, 0, 99},
	{"bytes=-99999999999999999999999", 100, RANGE_OK, 0, 99},
	{"bytes=18446744073709551614-", BIG, RANGE_OK, BIG - 1, BIG - 1},
	{"bytes=18446744073709551615-", BIG, RANGE_UNSATISFIABLE, 0, 0},
	{"bytes=100-", 100, RANGE_UNSATISFIABLE, 0, 0},
	{"bytes=100-200", 100, RANGE_UNSATISFIABLE, 0, 0},
	{"bytes=-0", 100, RANGE_UNSATISFIABLE, 0, 0},
	{"bytes=0-", 0, RANGE_UNSATISFIABLE, 0, 0},
	{"bytes=-5", 0, RANGE_UNSATISFIABLE, 0, 0},
	{"bytes=9999999999999999999-", 100, RANGE_UNSATISFIABLE, 0, 0},
	{"bytes=18446744073709551616-", 100, RANGE_UNSATISFIABLE, 0, 0}, /* 2^64 is not 0 */
	{"bytes=18446744073709551621-18446744073709551625", 100, RANGE_UNSATISFIABLE, 0, 0},
	{NULL, 100, RANGE_NONE, 0, 0},
	{"", 100, RANGE_NONE, 0, 0},
	{"bytes", 100, RANGE_NONE, 0, 0},
	{"bytes=", 100, RANGE_NONE, 0, 0},
	{"bytes=,", 100, RANGE_NONE, 0, 0},
	{"bytes=-", 100, RANGE_NONE, 0, 0},
	{"bytes=5", 100, RANGE_NONE, 0, 0},
	{"bytes=5-2", 100, RANGE_UNSATISFIABLE, 0, 0},
	{"bytes=120-100", 100, RANGE_UNSATISFIABLE, 0, 0},
	{"bytes=99999999999999999999999-99999999999999999999998", 100, RANGE_UNSATISFIABLE, 0, 0},
	{"bytes=a-5", 100, RANGE_NONE, 0, 0},
	{"bytes=1-b", 100, RANGE_NONE, 0, 0},
	{"bytes=1-2x", 100, RANGE_NONE, 0, 0},
	{"bytes=1 -2", 100, RANGE_NONE, 0, 0},
	{"bytes=1- 2", 100, RANGE_NONE, 0, 0},
	{"bytes=--2", 100, RANGE_NONE, 0, 0},
	{"bytes=+1-2", 100, RANGE_NONE, 0, 0},
	{"bytes=0x1-2", 100, RANGE_NONE, 0, 0},
	{"bytes =1-2", 100, RANGE_NONE, 0, 0},
	{"bytes:1-2", 100, RANGE_NONE, 0, 0},
	{"items=1-2", 100, RANGE_NONE, 0, 0},
	{"bytes=1-2,4-5", 100, RANGE_NONE, 0, 0},
	{"bytes=1-2,1-2", 100, RANGE_NONE, 0, 0},
	{"bytes=1-2,x", 100, RANGE_NONE, 0, 0},
	{"bytes=1-2;4-5", 100, RANGE_NONE, 0, 0},
};

static void range_cases(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
		uint64_t first = 7777, last = 7777;
		enum range_result r = range_parse(ranges[i].header, ranges[i].size, &first, &last);
		if (r != ranges[i].result)
			fail_msg("%s: %d instead of %d", ranges[i].header, r, ranges[i].result);
		bool ok = r == RANGE_OK;
		assert_true(first == (ok ? ranges[i].first : 7777));
		assert_true(last == (ok ? ranges[i].last : 7777));
	}
}

static void none_match(void **state)
{
	(void)state;
	assert_true(etag_list_matches("\"abc\"", "\"abc\""));
	assert_true(etag_list_matches("W/\"abc\"", "\"abc\""));
	assert_true(etag_list_matches("\"abc\"", "W/\"abc\""));
	assert_true(etag_list_matches(" * ", "\"abc\""));
	assert_true(etag_list_matches("\"x\", W/\"y,\" ,, \"abc\" ", "\"abc\""));
	assert_true(etag_list_matches("\"abc\" garbage", "\"abc\""));
	assert_false(etag_list_matches(NULL, "\"abc\""));
	assert_false(etag_list_matches("", "\"abc\""));
	assert_false(etag_list_matches("abc", "\"abc\""));
	assert_false(etag_list_matches("\"ab\"", "\"abc\""));
	assert_false(etag_list_matches("\"abcd\"", "\"abc\""));
	assert_false(etag_list_matches("\"abc", "\"abc\""));
	assert_false(etag_list_matches("w/\"abc\"", "\"abc\""));
	assert_false(etag_list_matches("*x", "\"abc\""));
	assert_false(etag_list_matches("\"x, \"abc\"", "\"abc\"")); /* a quote that swallows */
	assert_false(etag_list_matches("\"x\" \"abc\"", "\"abc\""));
}

static void if_range(void **state)
{
	const char *date = "Mon, 23 Nov 2026 22:12:49 GMT";

	(void)state;
	assert_true(if_range_matches(NULL, "\"abc\"", NULL));
	assert_true(if_range_matches("\"abc\"", "\"abc\"", NULL));
	assert_true(if_range_matches(" \"abc\" ", "\"abc\"", NULL));
	assert_true(if_range_matches(date, "\"abc\"", date));
	assert_false(if_range_matches(date, "\"abc\"", NULL));
	assert_false(if_range_matches("Mon, 23 Nov 2026 22:12:48 GMT", "\"abc\"", date));
	assert_false(if_range_matches("W/\"abc\"", "\"abc\"", NULL));
	assert_false(if_range_matches("W/\"abc\"", "W/\"abc\"", NULL));
	assert_false(if_range_matches("\"abc\"", "W/\"abc\"", NULL));
	assert_false(if_range_matches("\"abd\"", "\"abc\"", NULL));
	assert_false(if_range_matches("\"abc\", \"abd\"", "\"abc\"", NULL));
	assert_false(if_range_matches("*", "\"abc\"", NULL));
	assert_false(if_range_matches("", "\"abc\"", ""));
}

static void accept_cases(void **state)
{
	static const char *const text[] = {
		"text/plain",
		"TEXT/Plain; version=0.0.4",
		"text/*",
		/* What Prometheus 2.x and 3.x send. */
		"application/openmetrics-text;version=1.0.0;q=0.5,application/"
		"openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
		"text/plain;version=0.0.4;q=1,*/*;q=0.1",
		"application/openmetrics-text; "
		"version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
		"application/json;q=0.5, text/plain;q=0.501",
		"application/json;q=0, */*",
		"application/*;q=0.1, text/plain;q=0.2",
		"text/plain;x=\"a,b\\\",\"; q=0.9, application/json;q=0.8",
	};
	static const char *const json[] = {
		"",
		"*/*",
		"application/json",
		"application/json, text/plain, */*", /* what axios sends */
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
		"text/plain;q=0.5, application/json",
		"text/plain, application/json",
		"application/*",
		"text/plain;q=0",
		"text/plain;q=0, */*",
		"text/plain;q=2",
		"text/plain;q=-1",
		"text/plain;q=",
		"text/plain;q=0.1234567890123456789",
		"text/plain;q=1.5",
		"text/plainer",
		"text/html",
		",,;q=1,\"",
	};

	(void)state;
	/* A range too long to be meant is passed over, what follows it is not. */
	char lengthy[400];
	snprintf(lengthy, sizeof lengthy, "application/json;x=%0300d, text/plain;q=0.1", 0);
	assert_true(accept_prefers_text(lengthy));
	assert_false(accept_prefers_text(NULL));
	for (size_t i = 0; i < sizeof text / sizeof *text; i++)
		if (!accept_prefers_text(text[i]))
			fail_msg("JSON for: %s", text[i]);
	for (size_t i = 0; i < sizeof json / sizeof *json; i++)
		if (accept_prefers_text(json[i]))
			fail_msg("text for: %s", json[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(range_cases),
		cmocka_unit_test(none_match),
		cmocka_unit_test(if_range),
		cmocka_unit_test(accept_cases),
	};
	return cmocka_run_group_tests_name("parse_range", tests, NULL, NULL);
}
