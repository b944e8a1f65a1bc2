/* SPDX-License-Identifier: MIT */
/* json/json_body and field_errors: what is forgiven, what is refused, and what the refusal
 * says. */
#include "http/parse/query_fields.h"
#include "json/json_body.h"
#include "random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static json_t *parse_ok(const char *text)
{
	struct ota_err err = {0};
	json_t *root = NULL;

	if (json_body_parse(text, strlen(text), &root, &err) != OTA_OK)
		fail_msg("%s: %s", text, err.msg);
	assert_non_null(root);
	return root;
}

static void refused_bytes(const char *text, size_t len, const char *sentence)
{
	struct ota_err err = {0};
	json_t *root = (json_t *)(uintptr_t)1;

	assert_int_equal(json_body_parse(text, len, &root, &err), OTA_EINVAL);
	assert_null(root);
	if (!strstr(err.msg, sentence))
		fail_msg("\"%s\" does not say \"%s\"", err.msg, sentence);
	assert_true(utf8_valid(err.msg, strlen(err.msg)));
}

static void refused(const char *text, const char *sentence)
{
	refused_bytes(text, strlen(text), sentence);
}

static void control_characters_in_strings(void **state)
{
	json_t *root =
		parse_ok("\xEF\xBB\xBF{\r\n\t\"m\": \"a\nb\tc\x01\x1f\", \"k\ney\": \"\\\\\n\"}");

	(void)state;
	assert_string_equal(json_string_value(json_object_get(root, "m")), "a\nb\tc\x01\x1f");
	assert_string_equal(json_string_value(json_object_get(root, "k\ney")), "\\\n");
	json_decref(root);
	/* Never made into something else: the backslash is not given a neighbour to escape. */
	refused("{\"m\": \"a\\\n\"}", "near '\"a\\ ', line 1, column 10");
	refused("{\x01\"m\": 1}", "line 1, column 2");
}

static void bodies_refused(void **state)
{
	(void)state;
	refused("", "the body is empty");
	refused("   ", "it ends too early");
	refused("[]", "must be a JSON object, not an array");
	refused("\"x\"", "must be a JSON object, not a string");
	refused("5", "must be a JSON object, not a number");
	refused("true", "must be a JSON object, not a boolean");
	refused("null", "must be a JSON object, not null");
	refused("{\"a\": 1", "it ends too early, line 1, column 7");
	refused("{\"a\": 1} x", "something follows its end, line 1, column 10");
	refused("{\"a\": 1,\n \"a\": 2}", "a key is given twice, line 2");
	refused("{\"a\":\n 1e400}", "a number is too large, line 2");
	refused("{\"a\": 99999999999999999999}", "a number is too large, line 1");
	refused("{\"a\": \"x\xFF\"}", "it is not UTF-8, line 1, column 9");
	refused("{\"a\": \"\\u0000\"}", "NUL character");
	refused("{'a': 1}", "line 1, column 2");
	refused("{\"a\": NaN}", "line 1, column");
	/* What is quoted of the body ends inside a character; the sentence does not. */
	refused("{\"a\": \"\xC3\xA4\\\xC3\xA4\"}", "near '\"\xC3\xA4\\?'");
	/* The raw newlines before the mistake became escapes: the place is still the sender's. */
	refused("{\"a\": \"x\ny\n\", \"b\": !}", "line 3, column 9");
	refused_bytes("{\"a\": \"x\0\"}", 11, "it has a NUL byte, line 1, column 9");
	refused_bytes("{}\0", 3, "it has a NUL byte, line 1, column 3");
}

static void nesting(void **state)
{
	char text[200] = "{\"a\":";
	struct ota_err err = {0};
	json_t *root;

	(void)state;
	memset(text + 5, '[', 31);
	memset(text + 36, ']', 31);
	text[67] = '}';
	json_decref(parse_ok(text));
	memset(text + 5, '[', 32);
	memset(text + 37, ']', 32);
	text[69] = '}';
	refused(text, "nested deeper than 32 levels, line 1, column 37");
	json_decref(parse_ok("{\"a\":\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[[[[[[[\"}"));
	/* Depth is not the number of brackets. */
	char wide[300] = "{\"a\":[";
	for (int i = 0; i < 40; i++)
		strcat(wide, "[{}],");
	strcat(wide, "1]}");
	json_decref(parse_ok(wide));
	/* A million brackets are refused by the scan, whatever the stack is. */
	char *deep = malloc(1000000);
	assert_non_null(deep);
	memset(deep, '[', 1000000);
	assert_int_equal(json_body_parse(deep, 1000000, &root, &err), OTA_EINVAL);
	free(deep);
}

static int allocations_left;

static void *scarce_malloc(size_t size)
{
	return allocations_left-- > 0 ? malloc(size) : NULL;
}

/*
 * Whichever of jansson's allocations fails: an error with a sentence, and nothing left behind
 * (which valgrind sees).  Its lexer reports some of them as syntax errors, so the code is not asked
 * for.
 */
static void memory_runs_out(void **state)
{
	const char *text = "{\"a\": [1, 2.5, {\"b\": \"a string of some length\"}], \"c\": true}";
	struct ota_err err = {0};
	json_t *root = NULL;
	int needed = 0;

	(void)state;
	json_set_alloc_funcs(scarce_malloc, free);
	for (;; needed++) {
		err.msg[0] = '\0';
		allocations_left = needed;
		if (json_body_parse(text, strlen(text), &root, &err) == OTA_OK)
			break;
		if (root || err.msg[0] == '\0' || strstr(err.msg, "JSON: ,"))
			break;
	}
	json_set_alloc_funcs(malloc, free);
	if (!root)
		fail_msg("allocation %d: \"%s\"", needed, err.msg);
	json_decref(root);
	assert_in_range(needed, 8, 100);
}

static void good_fields(void **state)
{
	static const char *const words[] = {"all", "group", "canary"};
	json_t *root = parse_ok(
		"{\"name\": \"\xC3\xA4\xC3\xB6\", \"n\": 50, \"b\": false, \"t\": \"canary\","
		" \"l\": [\"x\", \"y\"], \"o\": {\"g\": 1}, \"nil\": null}");
	struct field_errors fe = FIELD_ERRORS_INIT;
	struct json_fields f = {.object = root, .errors = &fe};
	const char *s = "unset";
	const json_t *j = NULL;
	int64_t n = 7;
	bool b = true;
	size_t w = 9;

	(void)state;
	assert_false(json_field_string(&f, "absent", false, 1, 2, &s));
	assert_false(json_field_string(&f, "nil", false, 1, 2, &s));
	assert_string_equal(s, "unset");
	assert_true(json_field_string(&f, "name", true, 1, 2, &s)); /* two characters, four bytes */
	assert_string_equal(s, "\xC3\xA4\xC3\xB6");
	assert_false(json_field_int(&f, "nil", false, 0, 100, &n));
	assert_int_equal(n, 7);
	assert_true(json_field_int(&f, "n", true, 0, 100, &n));
	assert_int_equal(n, 50);
	assert_true(json_field_bool(&f, "b", true, &b));
	assert_false(b);
	assert_true(json_field_word(&f, "t", true, words, 3, &w));
	assert_int_equal(w, 2);
	assert_true(json_field_strings(&f, "l", true, 2, 1, 1, &j));
	assert_int_equal(json_array_size(j), 2);
	assert_true(json_field_object(&f, "o", true, &j));
	assert_true(json_is_object(j));
	assert_false(json_field_bool(&f, "absent", false, &b));
	assert_false(json_field_word(&f, "absent", false, words, 3, &w));
	assert_false(json_field_strings(&f, "absent", false, 1, 1, 1, &j));
	assert_false(json_field_object(&f, "absent", false, &j));
	assert_true(json_is_object(j) && w == 2);
	assert_false(field_errors_any(&fe));
	assert_null(field_errors_text(&fe));
	field_errors_fini(&fe);
	json_decref(root);
}

/* Fresh collector, one getter, the exact text it must leave. */
#define ONE_ERROR(call, expected)                                                                  \
	do {                                                                                       \
		struct field_errors fe = FIELD_ERRORS_INIT;                                        \
		f.errors = &fe;                                                                    \
		assert_false(call);                                                                \
		assert_true(field_errors_any(&fe));                                                \
		assert_string_equal(field_errors_text(&fe), expected);                             \
		field_errors_fini(&fe);                                                            \
	} while (0)

static void wrong_fields(void **state)
{
	static const char *const words[] = {"all", "group"};
	json_t *root = parse_ok(
		"{\"s\": \"\", \"n\": \"5\", \"r\": 50.0, \"big\": 101, \"b\": 1, \"t\": \"ALL\","
		" \"l\": [\"x\", 5, \"\"], \"o\": [], \"nil\": null, \"long\": \"abcd\"}");
	struct json_fields f = {.object = root};
	const char *s = "unset";
	const json_t *j = NULL;
	int64_t n = 7;
	bool b = true;
	size_t w = 9;

	(void)state;
	ONE_ERROR(json_field_string(&f, "x", true, 1, 2, &s),
		  "[{\"loc\":[\"body\",\"x\"],\"msg\":\"field "
		  "required\",\"type\":\"value_error.missing\"}]");
	ONE_ERROR(json_field_string(&f, "nil", true, 1, 2, &s),
		  "[{\"loc\":[\"body\",\"nil\"],\"msg\":\"must not be "
		  "null\",\"type\":\"type_error.none.not_allowed\"}]");
	ONE_ERROR(json_field_string(&f, "s", true, 1, 2, &s),
		  "[{\"loc\":[\"body\",\"s\"],\"msg\":\"must not be "
		  "empty\",\"type\":\"value_error.any_str.min_length\"}]");
	ONE_ERROR(json_field_string(&f, "long", true, 1, 3, &s),
		  "[{\"loc\":[\"body\",\"long\"],\"msg\":\"must have at most 3 characters (it has "
		  "4)\",\"type\":\"value_error.any_str.max_length\"}]");
	ONE_ERROR(json_field_string(&f, "big", false, 1, 2, &s),
		  "[{\"loc\":[\"body\",\"big\"],\"msg\":\"must be a string, not a "
		  "number\",\"type\":\"type_error.str\"}]");
	ONE_ERROR(json_field_int(&f, "n", true, 0, 100, &n),
		  "[{\"loc\":[\"body\",\"n\"],\"msg\":\"must be a whole number, not a "
		  "string\",\"type\":\"type_error.integer\"}]");
	ONE_ERROR(json_field_int(&f, "r", true, 0, 100, &n),
		  "[{\"loc\":[\"body\",\"r\"],\"msg\":\"must be a whole number, not a number with "
		  "a decimal point or exponent\",\"type\":\"type_error.integer\"}]");
	ONE_ERROR(json_field_int(&f, "big", true, 0, 100, &n),
		  "[{\"loc\":[\"body\",\"big\"],\"msg\":\"must be between 0 and "
		  "100 (it is 101)\",\"type\":\"value_error.number.not_in_range\"}]");
	ONE_ERROR(json_field_bool(&f, "b", true, &b),
		  "[{\"loc\":[\"body\",\"b\"],\"msg\":\"must be true or false, not a "
		  "number\",\"type\":\"type_error.bool\"}]");
	ONE_ERROR(json_field_word(&f, "t", true, words, 2, &w),
		  "[{\"loc\":[\"body\",\"t\"],\"msg\":\"must be one of: all, "
		  "group\",\"type\":\"value_error.const\"}]");
	ONE_ERROR(json_field_word(&f, "big", true, words, 2, &w),
		  "[{\"loc\":[\"body\",\"big\"],\"msg\":\"must be one of: all, "
		  "group\",\"type\":\"value_error.const\"}]");
	ONE_ERROR(json_field_strings(&f, "l", true, 3, 1, 9, &j),
		  "[{\"loc\":[\"body\",\"l\",1],\"msg\":\"must be a string, not a "
		  "number\",\"type\":\"type_error.str\"},"
		  "{\"loc\":[\"body\",\"l\",2],\"msg\":\"must not be "
		  "empty\",\"type\":\"value_error.any_str.min_length\"}]");
	ONE_ERROR(json_field_strings(&f, "l", true, 2, 0, 9, &j),
		  "[{\"loc\":[\"body\",\"l\"],\"msg\":\"must have at most 2 "
		  "items\",\"type\":\"value_error.list.max_items\"}]");
	ONE_ERROR(json_field_strings(&f, "s", true, 2, 0, 9, &j),
		  "[{\"loc\":[\"body\",\"s\"],\"msg\":\"must be a list of strings, not a "
		  "string\",\"type\":\"type_error.list\"}]");
	ONE_ERROR(json_field_string(&f, "long", true, 5, 9, &s),
		  "[{\"loc\":[\"body\",\"long\"],\"msg\":\"must have at least 5 "
		  "characters\",\"type\":\"value_error.any_str.min_length\"}]");
	ONE_ERROR(json_field_object(&f, "nothere", true, &j),
		  "[{\"loc\":[\"body\",\"nothere\"],\"msg\":\"field "
		  "required\",\"type\":\"value_error.missing\"}]");
	ONE_ERROR(json_field_string(&f, "o", true, 5, 9, &s),
		  "[{\"loc\":[\"body\",\"o\"],\"msg\":\"must be a string, not an "
		  "array\",\"type\":\"type_error.str\"}]");
	f.under = "target_filter";
	ONE_ERROR(json_field_object(&f, "o", true, &j),
		  "[{\"loc\":[\"body\",\"target_filter\",\"o\"],\"msg\":\"must be an object, not "
		  "an array\",\"type\":\"type_error.dict\"}]");
	assert_string_equal(s, "unset");
	assert_true(n == 7 && b && w == 9 && !j);
	json_decref(root);
}

static void lists_of_objects(void **state)
{
	struct ota_err err = {0};
	struct field_errors fe = FIELD_ERRORS_INIT;
	const char *text = "{\"good\":[{\"n\":1},{\"n\":\"x\"}],\"bad\":[{},3],\"word\":\"w\"}";
	const json_t *list = NULL;
	json_t *root;
	int64_t n = 0;

	(void)state;
	assert_int_equal(json_body_parse(text, strlen(text), &root, &err), OTA_OK);
	const struct json_fields f = {.object = root, .errors = &fe};
	assert_true(json_field_objects(&f, "good", true, 2, &list));
	assert_int_equal(json_array_size(list), 2);
	assert_false(json_field_objects(&f, "absent", false, 2, &list));
	assert_false(field_errors_any(&fe));
	/* The place of a wrong field names the item that it is in. */
	const struct json_fields in = {
		.object = json_array_get(list, 1), .under = "good", .item = 2, .errors = &fe};
	assert_false(json_field_int(&in, "n", true, 0, 9, &n));
	assert_non_null(strstr(field_errors_text(&fe), "[\"body\",\"good\",1,\"n\"]"));
	field_errors_fini(&fe);
	fe = (struct field_errors)FIELD_ERRORS_INIT;
	assert_false(json_field_objects(&f, "good", true, 1, &list));
	assert_non_null(strstr(field_errors_text(&fe), "at most 1 items (it has 2)"));
	assert_false(json_field_objects(&f, "bad", true, 9, &list));
	assert_non_null(strstr(field_errors_text(&fe), "[\"body\",\"bad\",1]"));
	assert_false(json_field_objects(&f, "word", true, 9, &list));
	assert_false(json_field_objects(&f, "absent", true, 9, &list));
	assert_int_equal(fe.count, 4);
	field_errors_fini(&fe);
	json_decref(root);
}

static void errors_as_a_sentence(void **state)
{
	json_t *root = parse_ok("{\"n\": \"5\", \"o\": {\"l\": [1, \"\"]}, \"k\\n\": 1}");
	struct field_errors fe = FIELD_ERRORS_INIT;
	struct json_fields f = {.object = root, .errors = &fe};
	struct ota_err err = {0};
	const json_t *j = NULL;
	const char *s = NULL;
	int64_t n = 0;

	(void)state;
	json_field_int(&f, "n", true, 0, 100, &n);
	json_field_string(&f, "k\n", true, 0, 1, &s);
	f = (struct json_fields){.object = json_object_get(root, "o"), .under = "o", .errors = &fe};
	json_field_strings(&f, "l", true, 5, 0, 1, &j);
	field_errors_add(&fe, "body", NULL, FIELD_TYPE_VALUE, "a \"%s\"", "\x7f\n\xC3");
	assert_int_equal(field_errors_fail(&fe, &err), OTA_EINVAL);
	assert_string_equal(err.msg, "n: must be a whole number, not a string; "
				     "k : must be a string, not a number; "
				     "o.l.0: must be a string, not a number; "
				     "a \"  \xEF\xBF\xBD\"");
	/* More than a sentence holds: it is cut where a character ends. */
	for (int i = 0; i < 300; i++)
		field_errors_add(&fe, "body", NULL, FIELD_TYPE_VALUE, "\xC3\xA4");
	assert_int_equal(field_errors_fail(&fe, &err), OTA_EINVAL);
	assert_true(strlen(err.msg) > 500 && utf8_valid(err.msg, strlen(err.msg)));
	field_errors_fini(&fe);
	/* The fact without its text. */
	fe = (struct field_errors){.count = 1, .json = {.failed = true}};
	assert_int_equal(field_errors_fail(&fe, &err), OTA_ENOMEM);
	json_decref(root);
}

static void query_fields(void **state)
{
	struct field_errors fe = FIELD_ERRORS_INIT;
	struct ota_err err = {0};
	struct query q;
	const char *s = NULL;
	int64_t n = 100;
	bool b = false;

	(void)state;
	assert_int_equal(query_parse(&q, "/p?m=abc&limit=5&on=yes&l=a&over=2000&v=", &err), OTA_OK);
	assert_true(field_query_string(&fe, &q, "m", true, 1, 3, &s));
	assert_string_equal(s, "abc");
	assert_true(field_query_int(&fe, &q, "limit", false, 1, 1000, &n));
	assert_int_equal(n, 5);
	assert_true(field_query_bool(&fe, &q, "on", false, &b));
	assert_true(b);
	assert_false(field_query_string(&fe, &q, "absent", false, 1, 3, &s));
	assert_false(field_errors_any(&fe));

	assert_false(field_query_string(&fe, &q, "device_model", true, 1, 3, &s));
	assert_string_equal(field_errors_text(&fe),
			    "[{\"loc\":[\"query\",\"device_model\"],\"msg\":\"field required\","
			    "\"type\":\"value_error.missing\"}]");
	assert_false(field_query_int(&fe, &q, "l", false, 1, 1000, &n));
	assert_false(field_query_int(&fe, &q, "over", false, 1, 1000, &n));
	assert_false(field_query_bool(&fe, &q, "m", false, &b));
	assert_false(field_query_string(&fe, &q, "v", false, 1, 3, &s));
	field_errors_add(&fe, "body", NULL, FIELD_TYPE_JSON, "bad \"%s\"", "x");
	assert_int_equal(fe.count, 6);
	/* What was written is JSON, each error an object of the three members. */
	json_t *list = json_loads(field_errors_text(&fe), 0, NULL);
	assert_int_equal(json_array_size(list), 6);
	const json_t *last = json_array_get(list, 5);
	assert_int_equal(json_array_size(json_object_get(last, "loc")), 1);
	assert_string_equal(json_string_value(json_object_get(last, "msg")), "bad \"x\"");
	assert_string_equal(json_string_value(json_object_get(last, "type")),
			    "value_error.jsondecode");
	json_decref(list);
	assert_int_equal(n, 5);
	field_errors_fini(&fe);
	query_fini(&q);
}

static void only_so_many_are_told(void **state)
{
	struct field_errors fe = FIELD_ERRORS_INIT;

	(void)state;
	for (int i = 0; i < 100000; i++)
		field_errors_add(&fe, "body", "devices", FIELD_TYPE_VALUE, "number %d is wrong", i);
	assert_int_equal(fe.count, 100000);
	json_t *list = json_loads(field_errors_text(&fe), 0, NULL);
	assert_int_equal(json_array_size(list), FIELD_ERRORS_TOLD);
	json_decref(list);
	field_errors_fini(&fe);
}

/* Bodies of the pieces that devices send, put together rightly and wrongly: what jansson takes is
 * taken, and is the same tree; what it refuses is refused. */
static void plain_bodies_are_what_jansson_reads(void **state)
{
	static const char *const pieces[] = {"{",
					     "}",
					     "{\"a\":1}",
					     "\"a\"",
					     "\"b\"",
					     ":",
					     ",",
					     " ",
					     "\n",
					     "\"\"",
					     "\"\\u0041\"",
					     "0",
					     "-1",
					     "07",
					     "1.5",
					     "1e3",
					     "12",
					     "true",
					     "false",
					     "null",
					     "nulls",
					     "[1,2]",
					     "\"",
					     "\xC3\xA9",
					     "\xC3",
					     "\"\xC3\xA9\"",
					     "\"\xC3\"",
					     "\"a\":1,",
					     "\"b\":\"x\",",
					     "\"a\":null,",
					     "9223372036854775807",
					     "9223372036854775808",
					     "123456789012345678"};
	int accepted = 0;

	(void)state;
	random_begin("json bodies");
	for (int round = 0; round < 100000; round++) {
		char text[400] = "{";
		struct ota_err err = {0};
		json_t *root = NULL;
		for (int n = random_below(9); n > 0; n--)
			strcat(text, pieces[random_below(sizeof pieces / sizeof pieces[0])]);
		if (random_below(3))
			strcat(text, "\"c\":2}");
		enum ota_code code = json_body_parse(text, strlen(text), &root, &err);
		json_t *theirs = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
		bool object = json_is_object(theirs);
		/* A raw line break in a string is forgiven, here alone. */
		if (!strchr(text, '\n') && object != (code == OTA_OK))
			fail_msg("%s: %s", text, object ? err.msg : "accepted");
		if (object && !json_equal(root, theirs))
			fail_msg("%s is read otherwise", text);
		accepted += object;
		json_decref(root);
		json_decref(theirs);
	}
	assert_true(accepted > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_bodies_are_what_jansson_reads),
		cmocka_unit_test(control_characters_in_strings),
		cmocka_unit_test(bodies_refused),
		cmocka_unit_test(nesting),
		cmocka_unit_test(memory_runs_out),
		cmocka_unit_test(good_fields),
		cmocka_unit_test(wrong_fields),
		cmocka_unit_test(lists_of_objects),
		cmocka_unit_test(errors_as_a_sentence),
		cmocka_unit_test(query_fields),
		cmocka_unit_test(only_so_many_are_told),
	};
	return cmocka_run_group_tests_name("parse_json_body", tests, NULL, NULL);
}
