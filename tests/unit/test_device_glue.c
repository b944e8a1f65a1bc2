/* SPDX-License-Identifier: MIT */
/* The glue: answers in every shape are read or refused, nothing is read past their end, and what
 * is sent is encoded. */
#include "paku_mqtt.h"

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
	assert_null(strstr(out, "result_code")); /* to the service a rollback has none */
	r.status = PAKU_FAILED;
	r.why = PAKU_WHY_SPACE;
	assert_true(paku_report_body(out, sizeof out, &id, &r));
	assert_non_null(strstr(out, "slot\",\"result_code\":8}"));
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

/* -------------------------------------------------------------------------------------- MQTT */

#define COMMAND                                                                                    \
	"{\"url\":\"http://h:8080/f?attempt=ABCDEFGHIJKLM\",\"checksum\":\"" SHA                   \
	"\",\"version\":\"abc1234-20260101-120000\"}"

static enum paku_result command(const char *json, size_t len, struct paku_offer *offer)
{
	char *exact = malloc(len + !len);

	assert_non_null(exact);
	memcpy(exact, json, len);
	enum paku_result result = paku_parse_command(exact, len, offer);
	free(exact);
	return result;
}

static void a_command(void **state)
{
	struct paku_offer o;

	(void)state;
	assert_int_equal(command(COMMAND, strlen(COMMAND), &o), PAKU_RESULT_SUCCESS);
	assert_true(o.available);
	assert_string_equal(o.version, "abc1234-20260101-120000");
	assert_string_equal(o.url, "http://h:8080/f?attempt=ABCDEFGHIJKLM");
	assert_int_equal(o.sha256[0], 0xba);
	assert_true(o.size == PAKU_SIZE_UNKNOWN);

	const char *other = "{ \"target_version\" : \"2\", \"x\":[{}], \"url\":\"https://h/f\","
			    "\"checksum\":\"" SHA "\", \"file_size\":5 }";
	assert_int_equal(command(other, strlen(other), &o), PAKU_RESULT_SUCCESS);
	assert_string_equal(o.version, "2");
	assert_true(o.size == PAKU_SIZE_UNKNOWN);
}

static void commands_to_refuse(void **state)
{
	static const struct {
		const char *json;
		enum paku_result result;
		const char *version; /* whom to answer about */
	} cases[] = {
		{"", PAKU_RESULT_INVALID_FIRMWARE, ""},
		{"[]", PAKU_RESULT_INVALID_FIRMWARE, ""},
		{"{}", PAKU_RESULT_INVALID_FIRMWARE, ""},
		{"{\"url\":\"http://h/f\",\"checksum\":\"" SHA "\"}", PAKU_RESULT_INVALID_FIRMWARE,
		 ""},
		{"{\"version\":\"\",\"url\":\"http://h/f\",\"checksum\":\"" SHA "\"}",
		 PAKU_RESULT_INVALID_FIRMWARE, ""},
		{"{\"version\":1,\"url\":\"http://h/f\",\"checksum\":\"" SHA "\"}",
		 PAKU_RESULT_INVALID_FIRMWARE, ""},
		{"{\"version\":\"1\",\"checksum\":\"" SHA "\"}", PAKU_RESULT_INVALID_URL, "1"},
		{"{\"version\":\"1\",\"url\":\"ftp://h/f\",\"checksum\":\"" SHA "\"}",
		 PAKU_RESULT_INVALID_URL, "1"},
		{"{\"version\":\"1\",\"url\":null,\"checksum\":\"" SHA "\"}",
		 PAKU_RESULT_INVALID_URL, "1"},
		{"{\"version\":\"1\",\"url\":\"http://h/f\"}", PAKU_RESULT_VERIFICATION_FAILED,
		 "1"},
		{"{\"version\":\"1\",\"url\":\"http://h/f\",\"checksum\":\"ab\"}",
		 PAKU_RESULT_VERIFICATION_FAILED, "1"},
	};
	struct paku_offer o;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		if (command(cases[i].json, strlen(cases[i].json), &o) != cases[i].result)
			fail_msg("another result: %s", cases[i].json);
		assert_string_equal(o.version, cases[i].version);
		assert_false(o.available);
	}
	for (size_t len = 0; len < strlen(COMMAND); len++)
		assert_int_equal(command(COMMAND, len, &o), PAKU_RESULT_INVALID_FIRMWARE);
	for (size_t at = 0; at < strlen(COMMAND); at++) {
		for (int byte = 0; byte < 256; byte++) {
			char text[] = COMMAND;
			text[at] = (char)byte;
			bool ok = command(text, strlen(COMMAND), &o) == PAKU_RESULT_SUCCESS;
			assert_int_equal(ok, o.available);
			assert_true(!ok || (o.version[0] && strncmp(o.url, "http", 4) == 0));
		}
	}
}

static void a_url_too_long_is_none_of_ours(void **state)
{
	char url[PAKU_URL_SIZE + 8], text[1024];
	struct paku_offer o;

	(void)state;
	for (size_t len = PAKU_URL_SIZE - 1; len <= PAKU_URL_SIZE; len++) {
		memset(url, 'u', len);
		memcpy(url, "http://", 7);
		url[len] = '\0';
		snprintf(text, sizeof text,
			 "{\"url\":\"%s\",\"version\":\"1\",\"checksum\":\"" SHA "\"}", url);
		assert_int_equal(command(text, strlen(text), &o),
				 len < PAKU_URL_SIZE ? PAKU_RESULT_SUCCESS
						     : PAKU_RESULT_INVALID_URL);
	}
}

static void versions_that_are_the_same(void **state)
{
	(void)state;
	assert_true(paku_version_same("v1.0", "1.0"));
	assert_true(paku_version_same("1.0", "v1.0"));
	assert_false(paku_version_same("1.0", "1.0.0"));
	assert_false(paku_version_same("vanilla", "anilla"));
	assert_false(paku_version_same("", "v"));
}

static void topics(void **state)
{
	char out[PAKU_TOPIC_SIZE], name[129];

	(void)state;
	assert_true(paku_mqtt_topic(out, sizeof out, "paku", "dev:1", PAKU_TOPIC_COMMAND));
	assert_string_equal(out, "paku/edge/dev:1/cmd/ota");
	assert_true(paku_mqtt_topic(out, sizeof out, "paku", "dev:1", PAKU_TOPIC_ACCEPTED));
	assert_string_equal(out, "paku/edge/dev:1/ota/status");
	assert_true(paku_mqtt_topic(out, sizeof out, "s", "d", PAKU_TOPIC_STATUS));
	assert_string_equal(out, "s/edge/d/status");
	assert_false(paku_mqtt_topic(out, 15, "s", "d", PAKU_TOPIC_STATUS));
	memset(name, 'n', 128);
	name[128] = '\0';
	assert_true(paku_mqtt_topic(out, sizeof out, name, name, PAKU_TOPIC_PROGRESS));
}

static void what_a_device_says(void **state)
{
	const struct paku_about about = {"2026-01-01T00:00:00Z", "1.1\"b", "ABC"};
	const struct paku_about bare = {NULL, "1", ""};
	const struct paku_identity me = {.device_model = "m+1", .boot_id = "b1", .uptime_s = 7};
	struct paku_progress half = {PAKU_STATE_DOWNLOADING, 4000000000u, 4000000001u, 1500};
	char out[256];

	(void)state;
	assert_true(paku_mqtt_birth(out, sizeof out, &me, "1.0"));
	assert_string_equal(out, "{\"device_model\":\"m+1\",\"firmware_version\":\"1.0\","
				 "\"online\":true,\"boot_id\":\"b1\",\"uptime_s\":7}");
	assert_true(paku_mqtt_accepted(out, sizeof out, &about));
	assert_string_equal(out, "{\"timestamp\":\"2026-01-01T00:00:00Z\",\"version\":\"1.1\\\"b\","
				 "\"attempt_id\":\"ABC\",\"status\":\"accepted\"}");
	assert_true(paku_mqtt_progress(out, sizeof out, &bare, &half));
	assert_string_equal(out, "{\"version\":\"1\",\"state\":\"Downloading\",\"percent\":99,"
				 "\"downloaded\":4000000000,\"total\":4000000001,"
				 "\"elapsed_ms\":1500}");
	half = (struct paku_progress){PAKU_STATE_ROLLED_BACK, 0, 0, 0};
	assert_true(paku_mqtt_progress(out, sizeof out, &bare, &half));
	assert_non_null(strstr(out, "\"Rolled back\",\"percent\":0,"));
	assert_true(paku_mqtt_result(out, sizeof out, &bare, PAKU_RESULT_SUCCESS, NULL));
	assert_string_equal(out, "{\"version\":\"1\",\"success\":true,\"result_code\":0}");
	assert_true(paku_mqtt_result(out, sizeof out, &bare, PAKU_RESULT_NO_SPACE, "too large"));
	assert_string_equal(out, "{\"version\":\"1\",\"success\":false,\"result_code\":8,"
				 "\"message\":\"too large\"}");
	for (size_t size = 0; size < strlen(out) + 1; size++)
		assert_false(paku_mqtt_result(out, size, &bare, PAKU_RESULT_NO_SPACE, "too large"));
}

/* The code and the sentence in words say the same. */
static void result_codes(void **state)
{
	static const char *const names[] = {
		"success",
		"wifi not connected",
		"download failed",
		"verification failed",
		"install failed",
		"no partition",
		"invalid url",
		"timeout",
		"insufficient space",
		"invalid firmware",
		"already running",
		"rollback failed",
	};

	(void)state;
	for (int why = PAKU_WHY_NONE + 1; why <= PAKU_WHY_BOOTS; why++) {
		const char *name = names[paku_why_result((enum paku_why)why)];
		const char *text = paku_why_text((enum paku_why)why);
		assert_memory_equal(text, name, strlen(name));
		assert_string_equal(paku_why_message((enum paku_why)why), text + strlen(name) + 2);
	}
	assert_int_equal(paku_why_result(PAKU_WHY_NONE), PAKU_RESULT_SUCCESS);
	assert_string_equal(paku_why_message(PAKU_WHY_NONE), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_offer),
		cmocka_unit_test(no_offer),
		cmocka_unit_test(refused),
		cmocka_unit_test(mutations),
		cmocka_unit_test(too_long_for_us),
		cmocka_unit_test(urls_and_bodies),
		cmocka_unit_test(no_room),
		cmocka_unit_test(every_reason_has_its_sentence),
		cmocka_unit_test(head_lines),
		cmocka_unit_test(a_command),
		cmocka_unit_test(commands_to_refuse),
		cmocka_unit_test(a_url_too_long_is_none_of_ours),
		cmocka_unit_test(versions_that_are_the_same),
		cmocka_unit_test(topics),
		cmocka_unit_test(what_a_device_says),
		cmocka_unit_test(result_codes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
