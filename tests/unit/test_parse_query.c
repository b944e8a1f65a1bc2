/* SPDX-License-Identifier: MIT */
/* http/parse/query: targets split before they are decoded, and refused with a sentence. */
#include "http/parse/query.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

static struct query parse_ok(const char *raw)
{
	struct ota_err err = {0};
	struct query q;

	if (query_parse(&q, raw, &err) != OTA_OK)
		fail_msg("%s: %s", raw, err.msg);
	return q;
}

/* The refusal's code must be CODE and its sentence must contain SAYS. */
static void refused(const char *raw, enum ota_code code, const char *says)
{
	struct ota_err err = {0};
	struct query q;

	enum ota_code got = query_parse(&q, raw, &err);
	if (got != code || err.code != code)
		fail_msg("%s: code %d instead of %d (%s)", raw, got, code, err.msg);
	if (!strstr(err.msg, says))
		fail_msg("%s: \"%s\" does not say \"%s\"", raw, err.msg, says);
	assert_null(q.arena);
	assert_int_equal(q.segment_count + q.param_count, 0);
	query_fini(&q);
}

static void a_plain_target(void **state)
{
	struct query q = parse_ok("/api/x%20y/z?a=1&b=2&flag&e=&c=d=e");

	(void)state;
	assert_int_equal(q.segment_count, 3);
	assert_string_equal(q.segments[0], "api");
	assert_string_equal(q.segments[1], "x y");
	assert_string_equal(q.segments[2], "z");
	assert_int_equal(q.param_count, 5);
	assert_string_equal(query_get(&q, "a"), "1");
	assert_string_equal(query_get(&q, "b"), "2");
	assert_string_equal(query_get(&q, "flag"), "");
	assert_string_equal(query_get(&q, "e"), "");
	assert_string_equal(query_get(&q, "c"), "d=e");
	assert_null(query_get(&q, "A"));
	query_fini(&q);
}

static void segments_as_they_stand(void **state)
{
	struct query q = parse_ok("/a%2Fb//./..%2f/");

	(void)state;
	assert_int_equal(q.segment_count, 5);
	assert_string_equal(q.segments[0], "a/b");
	assert_string_equal(q.segments[1], "");
	assert_string_equal(q.segments[2], ".");
	assert_string_equal(q.segments[3], "../");
	assert_string_equal(q.segments[4], "");
	query_fini(&q);
	q = parse_ok("/");
	assert_int_equal(q.segment_count, 0);
	query_fini(&q);
	q = parse_ok("/1/2/3/4/5/6/7/8/9/10/11/12");
	assert_int_equal(q.segment_count, 12);
	query_fini(&q);
	q = parse_ok("/a+b"); /* only a query's plus is a space */
	assert_string_equal(q.segments[0], "a+b");
	query_fini(&q);
}

static void plus_is_flagged(void **state)
{
	struct query q = parse_ok("/c?v=1.0+2&w=1.0%2B2&x%2By=1");

	(void)state;
	assert_string_equal(query_get(&q, "v"), "1.0 2");
	assert_true(query_find(&q, "v")->plus_seen);
	assert_non_null(strstr(query_plus_hint(&q, "v"), "write + as %2B"));
	assert_string_equal(query_get(&q, "w"), "1.0+2");
	assert_false(query_find(&q, "w")->plus_seen);
	assert_string_equal(query_plus_hint(&q, "w"), "");
	assert_string_equal(query_plus_hint(&q, "absent"), "");
	assert_string_equal(query_get(&q, "x+y"), "1");
	query_fini(&q);
}

static void other_forms(void **state)
{
	static const char *const same[] = {"/p?a=1",
					   "/p?a=1#frag?b=2",
					   "http://host/p?a=1",
					   "HTTPS://u@h:8080/p?a=1#x",
					   "http:///p?a=1&&",
					   "/p?&a=1&"};
	(void)state;
	for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
		struct query q = parse_ok(same[i]);
		assert_int_equal(q.segment_count, 1);
		assert_string_equal(q.segments[0], "p");
		assert_int_equal(q.param_count, 1);
		assert_string_equal(query_get(&q, "a"), "1");
		query_fini(&q);
	}
	struct query q = parse_ok("http://host?a=1");
	assert_int_equal(q.segment_count, 0);
	assert_string_equal(query_get(&q, "a"), "1");
	query_fini(&q);
}

static void texts(void **state)
{
	struct query q =
		parse_ok("/u?notes=one%0D%0Atwo%09x&u=%C3%A4\xC3\xA4%F0%9F%98%80%EF%BF%BF");

	(void)state;
	assert_string_equal(query_get(&q, "notes"), "one\r\ntwo\tx");
	assert_string_equal(query_get(&q, "u"), "\xC3\xA4\xC3\xA4\xF0\x9F\x98\x80\xEF\xBF\xBF");
	query_fini(&q);
}

static void refusals(void **state)
{
	char many[600] = "/p?";
	size_t n = 3;

	(void)state;
	refused("", OTA_EINVAL, "must begin with");
	refused("*", OTA_EINVAL, "must begin with");
	refused("api/x", OTA_EINVAL, "must begin with");
	refused("/a%", OTA_EINVAL, "\"%\" is not");
	refused("/a%4", OTA_EINVAL, "\"%4\" is not");
	refused("/a%zz", OTA_EINVAL, "\"%zz\" is not");
	refused("/a%4/%41", OTA_EINVAL, "has a broken escape");
	refused("/p?x=100%", OTA_EINVAL, "%25");
	refused("/p?ver=%G1", OTA_EINVAL, "has a broken escape");
	refused("/p?%4x=1", OTA_EINVAL, "a parameter's name");
	refused("/a%00b", OTA_EINVAL, "the control character %00");
	refused("/p?a=b%00", OTA_EINVAL, "has the control character %00");
	refused("/p?a=%1b", OTA_EINVAL, "%1B");
	refused("/p?a=%7F", OTA_EINVAL, "%7F");
	refused("/a%0A", OTA_EINVAL, "%0A");
	refused("/p?a%0A=1", OTA_EINVAL, "%0A");
	refused("/a\tb", OTA_EINVAL, "0x09 at position 2");
	refused("/a?x=\x7f", OTA_EINVAL, "0x7F at position 5");
	refused("/p?a=1&b=2&a=1", OTA_EINVAL, "is given twice");
	refused("/p?a=1&%61=1", OTA_EINVAL, "is given twice");
	refused("/p?=1", OTA_EINVAL, "without a name");
	refused("/1/2/3/4/5/6/7/8/9/10/11/12/13", OTA_ENOTFOUND, "more than 12 parts");
	for (int i = 0; i < 33; i++)
		n += (size_t)snprintf(many + n, sizeof many - n, "p%d=%d&", i, i);
	refused(many, OTA_EINVAL, "more than 32 parameters");
}

/* Where it is wrong: for the list of errors in an answer. */
static void where_it_is_wrong(void **state)
{
	static const struct {
		const char *raw, *where, *name;
	} cases[] = {
		{"/a%00b?x=1", "path", ""},
		{"/a%4?x=%4", "path", ""},
		{"/p?a=1&b=%zz", "query", "b"},
		{"/p?b=%FF", "query", "b"},
		{"/p?b=1&c=1&b=2", "query", "b"},
		{"/p?%zz=1", "query", ""},
		{"/p?=1", "query", ""},
		{"/p?a12345678901234567890123456789012345678901234567890123456789012=%00", "query",
		 "a12345678901234567890123456789012345678901234567890123456789012"},
		{"/p?a123456789012345678901234567890123456789012345678901234567890123=%00", "query",
		 ""},
		{"nothing", NULL, ""},
		{"/a\x01", NULL, ""},
	};
	struct ota_err err;
	struct query q;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_int_equal(query_parse(&q, cases[i].raw, &err), OTA_EINVAL);
		if (cases[i].where)
			assert_string_equal(q.wrong.where, cases[i].where);
		else
			assert_null(q.wrong.where);
		assert_string_equal(q.wrong.name, cases[i].name);
		query_fini(&q);
	}
}

static void not_utf8(void **state)
{
	static const char *const bad[] = {"/%FF",          "/%C3",          "/%C3%28",
					  "/%C0%AF",       "/%E0%80%80",    "/%ED%A0%80",
					  "/%F4%90%80%80", "/%F5%80%80%80", "/%F0%80%80%80",
					  "/%80",          "/p?a=%E2%82",   "/p?%FE=1"};
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		refused(bad[i], OTA_EINVAL, "not valid UTF-8");
}

static void whole_numbers(void **state)
{
	struct query q =
		parse_ok("/p?a=12&z=000&big=9223372036854775807&over=9223372036854775808"
			 "&neg=-1&plus=+1&sp=1%20&hex=0x1&e=&r=1.0&l=99999999999999999999");
	static const char *const shapeless[] = {"neg", "plus", "sp", "hex", "e", "r"};
	struct ota_err err = {0};
	int64_t v = 100;

	(void)state;
	assert_int_equal(query_get_int(&q, "absent", 1, 1000, &v, &err), OTA_OK);
	assert_int_equal(v, 100);
	assert_int_equal(query_get_int(&q, "a", 1, 1000, &v, &err), OTA_OK);
	assert_int_equal(v, 12);
	assert_int_equal(query_get_int(&q, "z", 0, 1000, &v, &err), OTA_OK);
	assert_int_equal(v, 0);
	assert_int_equal(query_get_int(&q, "big", 0, INT64_MAX, &v, &err), OTA_OK);
	assert_true(v == INT64_MAX);
	assert_int_equal(query_get_int(&q, "over", 0, INT64_MAX, &v, &err), OTA_EUNPROCESSABLE);
	assert_int_equal(query_get_int(&q, "l", 0, INT64_MAX, &v, &err), OTA_EUNPROCESSABLE);
	assert_int_equal(query_get_int(&q, "a", 13, 1000, &v, &err), OTA_EUNPROCESSABLE);
	assert_string_equal(err.msg, "must be between 13 and 1000");
	for (size_t i = 0; i < sizeof shapeless / sizeof *shapeless; i++) {
		assert_int_equal(query_get_int(&q, shapeless[i], 0, 9, &v, &err), OTA_EINVAL);
		assert_non_null(strstr(err.msg, "whole number"));
	}
	assert_true(v == INT64_MAX);
	query_fini(&q);
}

static void booleans(void **state)
{
	struct query q = parse_ok("/p?a=TRUE&b=false&c=1&d=0&e=Yes&f=nO&g=on&h=");
	static const char *const names[] = {"a", "b", "c", "d", "e", "f"};
	struct ota_err err = {0};
	bool v = true;

	(void)state;
	assert_int_equal(query_get_bool(&q, "absent", &v, &err), OTA_OK);
	assert_true(v);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		v = i % 2 == 1;
		assert_int_equal(query_get_bool(&q, names[i], &v, &err), OTA_OK);
		assert_int_equal(v, i % 2 == 0);
	}
	assert_int_equal(query_get_bool(&q, "g", &v, &err), OTA_EINVAL);
	assert_int_equal(query_get_bool(&q, "h", &v, &err), OTA_EINVAL);
	assert_non_null(strstr(err.msg, "must be true or false"));
	query_fini(&q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_plain_target),
		cmocka_unit_test(segments_as_they_stand),
		cmocka_unit_test(plus_is_flagged),
		cmocka_unit_test(other_forms),
		cmocka_unit_test(texts),
		cmocka_unit_test(refusals),
		cmocka_unit_test(where_it_is_wrong),
		cmocka_unit_test(not_utf8),
		cmocka_unit_test(whole_numbers),
		cmocka_unit_test(booleans),
	};
	return cmocka_run_group_tests_name("parse_query", tests, NULL, NULL);
}
