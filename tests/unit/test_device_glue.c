/* SPDX-License-Identifier: MIT */
/* The glue: answers in every shape are read or refused, nothing is read past their end, and what
 * is sent is encoded. */
#include "paku_glue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHA "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define OFFER                                                                                      \
	"{\"update_available\":true,\"current_version\":\"1\",\"latest_version\":\"1.1+b\","       \
	"\"download_url\":\"http:\\/\\/h\\u003a8080/f?a=1&attempt=ABCDEFGHIJKLM\",\"file_size\":"  \
	"123456,\"checksum_sha256\":\"" SHA "\",\"release_notes\":null,\"retry_after_s\":300}"

/* From a block of exactly that length, so that a sanitizer sees a read past its end. */
static bool parse(const char *json, size_t len, struct paku_offer *offer, uint32_t *retry)
{
	char *exact = malloc(len + !len);

	assert_non_null(exact);
	memcpy(exact, json, len);
	bool ok = paku_parse_offer(exact, len, offer, retry);
	free(exact);
	return ok;
}

static void an_offer(void **state)
{
	struct paku_offer o;
	uint32_t retry;

	(void)state;
	assert_true(parse(OFFER, strlen(OFFER), &o, &retry));
	assert_true(o.available);
	assert_string_equal(o.version, "1.1+b");
	assert_string_equal(o.url, "http://h:8080/f?a=1&attempt=ABCDEFGHIJKLM");
	assert_int_equal(o.size, 123456);
	assert_int_equal(o.sha256[0], 0xba);
	assert_int_equal(o.sha256[31], 0xad);
	assert_int_equal(retry, 300);
}

static void no_offer(void **state)
{
	static const char *const answers[] = {
		"{\"update_available\":false,\"retry_after_s\":7}",
		" { \"retry_after_s\" : 7 , \"update_available\" : false, \"x\":{\"a\":[1,{}]} } "
		"\n",
		"{\"x\":[],\"update_available\":null,\"download_url\":null,\"retry_after_s\":7}",
		"{\"a\":[[[\"}\",{\"k\":[true,false,null,-1.5e+3]}]]],\"retry_after_s\":7}",
		"{\"a_name_far_longer_than_any_of_ours\":{\"update_available\":true},"
		"\"retry_after_s\":7}",
	};
	static const struct paku_offer none;

	(void)state;
	for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
		struct paku_offer o;
		uint32_t retry;
		assert_true(parse(answers[i], strlen(answers[i]), &o, &retry));
		assert_memory_equal(&o, &none, sizeof o);
		assert_int_equal(retry, 7);
	}
}

static void refused(void **state)
{
	static const char *const answers[] = {
		"",
		" ",
		"null",
		"[]",
		"{",
		"{}x",
		"{\"a\"}",
		"{\"a\":}",
		"{\"a\":1,}",
		"{,}",
		"{\"a\":[1,]}",
		"{\"a\":[1 2]}",
		"{\"a\":{\"b\":1]}",
		"{\"a\":\"\\x\"}",
		"{\"a\":\"\\u12g4\"}",
		"{\"a\":\"x}",
		"{\"a\":tru}",
		"{\"a\":{1:2}}",
		"<html>",
		"{\"update_available\":true}",
		"{\"a\":[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]}", /* deeper than anybody needs */
	};
	static const char *const changes[][2] = {
		{"123456", "-12345"},     {"123456", "1.2345"},    {"123456", "\"1234\""},
		{"123456", "4294967296"}, {"123456", "null"},      {SHA, "ab"},
		{"ba7816", "xa7816"},     {"1.1+b", "1.1\\u0000"},
	};
	struct paku_offer o;
	uint32_t retry;

	(void)state;
	for (size_t i = 0; i < sizeof answers / sizeof *answers; i++)
		if (parse(answers[i], strlen(answers[i]), &o, &retry))
			fail_msg("taken: %s", answers[i]);
	for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
		char text[1024] = OFFER;
		char *at = strstr(text, changes[i][0]);
		const char *rest = strstr(OFFER, changes[i][0]) + strlen(changes[i][0]);
		assert_non_null(at);
		strcpy(at, changes[i][1]);
		strcat(text, rest);
		if (parse(text, strlen(text), &o, &retry))
			fail_msg("taken: %s", text);
		assert_false(o.available);
	}
}

/* Cut anywhere, or with any one byte changed: never a crash, never half an offer. */
static void mutations(void **state)
{
	struct paku_offer o;
	uint32_t retry;

	(void)state;
	for (size_t len = 0; len < strlen(OFFER); len++)
		assert_false(parse(OFFER, len, &o, &retry));
	for (size_t at = 0; at < strlen(OFFER); at++) {
		for (int byte = 0; byte < 256; byte++) {
			char text[1024] = OFFER;
			text[at] = (char)byte;
			bool ok = parse(text, strlen(OFFER), &o, &retry);
			if (ok && o.available)
				assert_true(o.size && o.version[0] && o.url[0]);
			if (!ok)
				assert_false(o.available);
		}
	}
}

static void too_long_for_us(void **state)
{
	char text[2048];
	struct paku_offer o;
	uint32_t retry;

	(void)state;
	for (int field = 0; field < 2; field++) {
		size_t room = field ? 128 : PAKU_URL_SIZE - 1;
		for (size_t len = room; len <= room + 1; len++) {
			char filler[400];
			memset(filler, 'v', len);
			filler[len] = '\0';
			snprintf(text, sizeof text,
				 "{\"update_available\":true,\"latest_version\":\"%s\","
				 "\"download_url\":\"%s\",\"file_size\":1,"
				 "\"checksum_sha256\":\"" SHA "\"}",
				 field ? filler : "1", field ? "http://u" : filler);
			assert_int_equal(parse(text, strlen(text), &o, &retry), len == room);
		}
	}
}

static const struct paku_identity id = {.server = "http://h:1",
					.device_id = "a:b\"\\%",
					.device_model = "m+1",
					.uptime_s = 4294967295u};

static void urls_and_bodies(void **state)
{
	char out[512];
	struct paku_report r = {.version = "1.1+b",
				.attempt = "ABC",
				.status = PAKU_DOWNLOADING,
				.why = PAKU_WHY_NONE,
				.percent = 40};

	(void)state;
	assert_true(paku_check_url(out, sizeof out, &id, "1+2"));
	assert_string_equal(out,
			    "http://h:1/api/firmware/check?device_id=a%3Ab%22%5C%25&device_model="
			    "m%2B1&current_version=1%2B2&uptime_s=4294967295");
	assert_true(paku_report_url(out, sizeof out, &id));
	assert_string_equal(out, "http://h:1/api/device/a%3Ab%22%5C%25/update-status");
	assert_true(paku_report_body(out, sizeof out, &id, &r));
	assert_string_equal(out, "{\"device_id\":\"a:b\\\"\\\\%\",\"firmware_version\":\"1.1+b\","
				 "\"status\":\"downloading\",\"progress_percent\":40,"
				 "\"attempt_id\":\"ABC\"}");
	r = (struct paku_report){.version = "1",
				 .attempt = "",
				 .status = PAKU_ROLLED_BACK,
				 .why = PAKU_WHY_SELFTEST,
				 .percent = PAKU_NO_PERCENT};
	assert_true(paku_report_body(out, sizeof out, &id, &r));
	assert_non_null(strstr(out, "\"rolled_back\",\"error_message\":\"invalid firmware: "));
	assert_null(strstr(out, "attempt_id"));
}

/* Whatever the room: all of it with its NUL, or false. */
static void no_room(void **state)
{
	char out[512];
	size_t need;

	(void)state;
	assert_true(paku_check_url(out, sizeof out, &id, "1"));
	need = strlen(out) + 1;
	for (size_t size = 0; size < need; size++) {
		char *exact = malloc(size + !size);
		assert_non_null(exact);
		assert_false(paku_check_url(exact, size, &id, "1"));
		free(exact);
	}
	assert_true(paku_check_url(out, need, &id, "1"));
}

static void every_reason_has_its_sentence(void **state)
{
	(void)state;
	for (int why = PAKU_WHY_NONE + 1; why <= PAKU_WHY_BOOTS; why++)
		assert_non_null(strchr(paku_why_text((enum paku_why)why), ':'));
	assert_string_equal(paku_why_text(PAKU_WHY_NONE), "");
	assert_string_equal(paku_status_text(PAKU_SUCCESS), "success");
}

static void head_lines(void **state)
{
	static const struct {
		const char *line;
		uint32_t length, from, size, retry;
		const char *etag;
	} cases[] = {
		{"Content-Length: 1000\r\n", 1000, 0, 0, 0, ""},
		{"content-range:bytes 5-9/10\r\n", 0, 5, 10, 0, ""},
		{"Content-Range: bytes 5-9/*\r\n", 0, 0, 0, 0, ""},
		{"Content-Range: bytes 5-/10\r\n", 0, 0, 0, 0, ""},
		{"Content-Range: bytes 5-9/10 x\r\n", 0, 0, 0, 0, ""},
		{"Content-Range: items 5-9/10\r\n", 0, 0, 0, 0, ""},
		{"Content-Range: bytes 99999999999-9/10\r\n", 0, 0, 0, 0, ""},
		{"Content-Length: 99999999999999999999\r\n", 0, 0, 0, 0, ""},
		{"Content-Length: 12x\r\n", 0, 0, 0, 0, ""},
		{"Content-Length:\r\n", 0, 0, 0, 0, ""},
		{"ETag: \"abc\" \r\n", 0, 0, 0, 0, "\"abc\""},
		{"ETag: W/\"abc\"\r\n", 0, 0, 0, 0, "W/\"abc\""},
		{"Retry-After: 30\r\n", 0, 0, 0, 30, ""},
		{"Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n", 0, 0, 0, 0, ""},
		{"X-Content-Length: 5\r\n", 0, 0, 0, 0, ""},
		{"Content-Length 5\r\n", 0, 0, 0, 0, ""},
		{"\r\n", 0, 0, 0, 0, ""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct paku_head h = {.status = 200};
		size_t len = strlen(cases[i].line);
		char *exact = malloc(len);
		assert_non_null(exact);
		memcpy(exact, cases[i].line, len);
		paku_head_line(&h, exact, len);
		free(exact);
		assert_int_equal(h.length, cases[i].length);
		assert_int_equal(h.from, cases[i].from);
		assert_int_equal(h.size, cases[i].size);
		assert_int_equal(h.retry_after_s, cases[i].retry);
		assert_string_equal(h.etag, cases[i].etag);
	}
	/* A tag that does not fit is none: cut, it would be another tag. */
	char line[200] = "ETag: \"";
	struct paku_head h = {.status = 200};
	memset(line + 7, 'e', PAKU_ETAG_SIZE);
	strcpy(line + 7 + PAKU_ETAG_SIZE, "\"\r\n");
	paku_head_line(&h, line, strlen(line));
	assert_string_equal(h.etag, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_offer),        cmocka_unit_test(no_offer),
		cmocka_unit_test(refused),         cmocka_unit_test(mutations),
		cmocka_unit_test(too_long_for_us), cmocka_unit_test(urls_and_bodies),
		cmocka_unit_test(no_room),         cmocka_unit_test(every_reason_has_its_sentence),
		cmocka_unit_test(head_lines),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
