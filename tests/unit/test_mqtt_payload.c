/* SPDX-License-Identifier: MIT */
/* mqtt/payload: what devices send, what it means, and what a refusal says. */
#include "mqtt/payload.h"

#include "base/buf.h"
#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

/* ------------------------------------------------------------------ memory that runs out */

static long allocations_left = -1; /* -1: no end */

static bool fails(void)
{
	if (allocations_left < 0)
		return false;
	if (allocations_left == 0)
		return true;
	allocations_left--;
	return false;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

void *__wrap_malloc(size_t n)
{
	return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
	return fails() ? NULL : __real_realloc(p, n);
}

/* ------------------------------------------------------------------ helpers */

static struct topic topic_of(enum message_kind kind)
{
	return (struct topic){
		.kind = kind, .form = TOPIC_FORM_EDGE, .site = "paku", .device_id = "esp32_001"};
}

static struct message parse_bytes(enum message_kind kind, const char *text, size_t len)
{
	const struct topic t = topic_of(kind);
	enum reject_reason reason = REJECT_REASONS;
	struct ota_err err = {0};
	struct message m;

	if (!message_parse(&t, text, len, &m, &reason, &err))
		fail_msg("%s: %s, %s", text, reject_reason_name(reason), err.msg);
	return m;
}

static struct message parse(enum message_kind kind, const char *text)
{
	return parse_bytes(kind, text, strlen(text));
}

static void refused_bytes(enum message_kind kind, const char *text, size_t len,
			  enum reject_reason why, const char *sentence)
{
	const struct topic t = topic_of(kind);
	enum reject_reason reason = REJECT_REASONS;
	struct ota_err err = {0};
	struct message m;

	if (message_parse(&t, text, len, &m, &reason, &err))
		fail_msg("%.200s: is taken", text);
	if (reason != why)
		fail_msg("%.200s: %s, %s", text, reject_reason_name(reason), err.msg);
	if (!strstr(err.msg, sentence))
		fail_msg("%.200s: \"%s\" does not say \"%s\"", text, err.msg, sentence);
}

static void refused(enum message_kind kind, const char *text, enum reject_reason why,
		    const char *sentence)
{
	refused_bytes(kind, text, strlen(text), why, sentence);
}

static void same_text(const char *payload, const char *got, const char *expected)
{
	if (!got != !expected || (got && strcmp(got, expected) != 0))
		fail_msg("%s: \"%s\", not \"%s\"", payload, got ? got : "(null)",
			 expected ? expected : "(null)");
}

/* ------------------------------------------------------------------ topics */

static void topics(void **state)
{
	static const struct {
		const char *topic, *site, *device_id;
		enum topic_form form;
		enum message_kind kind;
	} good[] = {
		{"paku/edge/esp32_001/status", "paku", "esp32_001", TOPIC_FORM_EDGE,
		 MESSAGE_STATUS},
		{"paku/edge/esp32_001/ota/status", "paku", "esp32_001", TOPIC_FORM_EDGE,
		 MESSAGE_OTA_STATUS},
		{"van 7/edge/a:b/ota/progress", "van 7", "a:b", TOPIC_FORM_EDGE,
		 MESSAGE_OTA_PROGRESS},
		{"x/devices/status/ota/result", "x", "status", TOPIC_FORM_DEVICES,
		 MESSAGE_OTA_RESULT},
		{"edge/edge/edge/status", "edge", "edge", TOPIC_FORM_EDGE, MESSAGE_STATUS},
		{"paku/devices/d/status", "paku", "d", TOPIC_FORM_DEVICES, MESSAGE_STATUS},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(good); i++) {
		struct ota_err err = {0};
		struct topic t;
		if (!topic_parse(good[i].topic, &t, &err))
			fail_msg("%s: %s", good[i].topic, err.msg);
		assert_string_equal(t.site, good[i].site);
		assert_string_equal(t.device_id, good[i].device_id);
		assert_int_equal(t.form, good[i].form);
		assert_int_equal(t.kind, good[i].kind);
	}
}

static void topic_refused(const char *topic, const char *sentence)
{
	struct ota_err err = {0};
	struct topic t, before;

	memset(&t, 0x5A, sizeof t);
	before = t;
	if (topic_parse(topic, &t, &err))
		fail_msg("%s: is taken", topic);
	if (!strstr(err.msg, sentence))
		fail_msg("%s: \"%s\" does not say \"%s\"", topic, err.msg, sentence);
	if (!utf8_valid(err.msg, strlen(err.msg)))
		fail_msg("%s: a sentence that is not UTF-8", topic);
	assert_memory_equal(&t, &before, sizeof t);
}

static void topics_refused(void **state)
{
	static const char *const unknown[] = {
		"",
		"/",
		"////",
		"paku",
		"paku/edge/esp32_001",
		"paku/edge/esp32_001/",
		"paku/edge/esp32_001/ota",
		"paku/edge/esp32_001/ota/",
		"paku/edge/esp32_001/ota//status",
		"paku/edge/esp32_001/status/",
		"paku/edge/esp32_001//status",
		"paku/edge/esp32_001/STATUS",
		"paku/edge/esp32_001/cmd/ota",
		"paku/edge/esp32_001/ota/result/more",
		"paku/edge/esp32_001/ota/+",
		"paku/edge/esp32_001/#",
		"paku/+/esp32_001/status",
		"paku//esp32_001/status",
		"/paku/edge/esp32_001/status",
		"paku/ota-service/status",
		"paku/Edge/esp32_001/status",
	};
	static const char *const sites[] = {
		"/edge/d/status",        "+/edge/d/status",           "#/edge/d/status",
		"a+b/edge/d/ota/status", "\xC3\xA4/edge/d/status",    "a\nb/edge/d/status",
		"\x7F/edge/d/status",    "\xFF/devices/d/ota/result",
	};
	static const char *const devices[] = {
		"p/edge//status",         "p/edge/+/status",    "p/edge/#/ota/result",
		"p/edge/\xC3\xA4/status", "p/edge/a b/status",  "p/edge/./status",
		"p/devices/../status",    "p/edge/a\tb/status", "p/edge/\xFF/status",
	};
	char longest[400];

	(void)state;
	for (size_t i = 0; i < COUNT(unknown); i++)
		topic_refused(unknown[i],
			      "is no topic of a device: {site}/edge/{device_id}/status");
	for (size_t i = 0; i < COUNT(sites); i++)
		topic_refused(sites[i], "must be 1 to 128 characters of printable ASCII");
	for (size_t i = 0; i < COUNT(devices); i++)
		topic_refused(devices[i], "names no possible device: a device id ");

	for (int n = 127; n <= 300; n++) {
		struct ota_err err = {0};
		struct topic t;
		snprintf(longest, sizeof longest, "p/edge/%0*d/status", n, 7);
		if (topic_parse(longest, &t, &err) != (n <= NAME_MAX_LEN))
			fail_msg("a device id of %d characters", n);
		snprintf(longest, sizeof longest, "%0*d/edge/d/status", n, 7);
		if (topic_parse(longest, &t, &err) != (n <= NAME_MAX_LEN))
			fail_msg("a site of %d characters", n);
		if (n <= NAME_MAX_LEN)
			assert_int_equal(strlen(t.site), n);
	}
	/* A topic of any length gives a short sentence. */
	char *huge = malloc(65536);
	assert_non_null(huge);
	memset(huge, 0xC3, 65535);
	huge[65535] = '\0';
	topic_refused(huge, "...' is no topic");
	free(huge);
}

/* ------------------------------------------------------------------ payloads of any kind */

static void payloads_refused(void **state)
{
	static const enum message_kind kinds[] = {MESSAGE_STATUS, MESSAGE_OTA_STATUS,
						  MESSAGE_OTA_PROGRESS, MESSAGE_OTA_RESULT};
	char *big = malloc(PAYLOAD_MAX + 1);

	(void)state;
	assert_non_null(big);
	memset(big, '[', PAYLOAD_MAX + 1);
	for (size_t i = 0; i < COUNT(kinds); i++) {
		enum message_kind k = kinds[i];
		refused_bytes(k, NULL, 0, REJECT_EMPTY, "a JSON object is expected");
		refused_bytes(k, big, PAYLOAD_MAX, REJECT_NOT_JSON, "deeper than 32 levels");
		refused_bytes(k, big, PAYLOAD_MAX + 1, REJECT_TOO_LARGE,
			      "65537 bytes, at most 65536");
		refused_bytes(k, NULL, SIZE_MAX, REJECT_TOO_LARGE, "at most 65536");
		refused(k, "   ", REJECT_NOT_JSON, "not valid JSON");
		refused(k, "hello", REJECT_NOT_JSON, "not valid JSON");
		refused(k, "[]", REJECT_NOT_JSON, "must be a JSON object, not an array");
		refused(k, "5", REJECT_NOT_JSON, "must be a JSON object, not a number");
		refused(k, "\"online\"", REJECT_NOT_JSON, "must be a JSON object, not a string");
		refused(k, "{\"a\":\"\xFF\"}", REJECT_NOT_JSON, "not UTF-8");
		refused(k, "{\"a\":\"\\u0000\"}", REJECT_NOT_JSON, "NUL");
		refused(k, "{\"a\":1,\"a\":2}", REJECT_NOT_JSON, "given twice");
		refused_bytes(k, "{\"a\":\"b\0c\"}", 11, REJECT_NOT_JSON, "NUL byte");
		refused_bytes(k, "online\0", 7, REJECT_NOT_JSON, "NUL byte");
		refused(k, "{\"device_id\":\"esp32_002\"}", REJECT_DEVICE,
			"device_id: must be that of the topic, esp32_001, or absent (it is "
			"\"esp32_002\")");
		refused(k, "{\"device_id\":\"\"}", REJECT_DEVICE, "esp32_001");
		refused(k, "{\"device_id\":5}", REJECT_FIELD,
			"device_id: must be a string, not a number");
	}
	/* Another device's message is another device's, whatever else is wrong with it. */
	refused(MESSAGE_OTA_PROGRESS, "{\"device_id\":\"x\\n\",\"percent\":101}", REJECT_DEVICE,
		"(it is \"x?\")");
	refused(MESSAGE_OTA_STATUS, "online", REJECT_NOT_JSON, "not valid JSON");
	free(big);
}

static void all_that_is_wrong_is_said(void **state)
{
	(void)state;
	refused(MESSAGE_OTA_PROGRESS,
		"{\"state\":\"Dancing\",\"percent\":101,\"version\":5,\"attempt_id\":[]}",
		REJECT_FIELD,
		"state: must be one of: Idle, Checking, Downloading, Verifying, Installing, "
		"Complete, Failed, Rolled back, Rolled_back, RolledBack (it is \"Dancing\"); "
		"percent: must be between 0 and 100 (it is 101); "
		"version: must be a string, not a number; "
		"attempt_id: must be a string, not an array");
}

static void reasons_have_names(void **state)
{
	static const char *const names[REJECT_REASONS] = {"topic",    "too_large", "empty",
							  "not_json", "field",     "device"};

	(void)state;
	for (int r = 0; r < REJECT_REASONS; r++)
		assert_string_equal(reject_reason_name((enum reject_reason)r), names[r]);
	assert_string_equal(reject_reason_name(REJECT_REASONS), "?");
}

/* ------------------------------------------------------------------ .../status */

#define DIGEST_1 "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1fFF"
#define DIGEST_0 "0000000000000000000000000000000000000000000000000000000000000000"

static void status_in_full(void **state)
{
	struct message m =
		parse(MESSAGE_STATUS,
		      "\xEF\xBB\xBF{\"device_id\":\"esp32_001\",\"device_model\":\"esp32\","
		      "\"firmware_version\":\"2.0 "
		      "stable\",\"mac\":\"AA-BB-CC-DD-EE-0F\",\"hw\":\"rev 2\","
		      "\"boot_id\":\"b7\",\"uptime_s\":12,\"firmware_digest\":\"" DIGEST_1 "\","
		      "\"app_elf_sha256\":\"" DIGEST_0 "\",\"online\":true,\"ip\":\"10.0.0.7\"}");

	(void)state;
	assert_null(m.facts.device_id);
	assert_string_equal(m.facts.model, "esp32");
	assert_string_equal(m.facts.version, "2.0 stable");
	assert_string_equal(m.facts.hw, "rev 2");
	assert_true(m.facts.mac == UINT64_C(0xAABBCCDDEE0F));
	assert_true(m.facts.boot_hash == hash64("b7", 2));
	assert_true(m.facts.has_uptime);
	assert_int_equal(m.facts.uptime_s, 12);
	assert_true(m.facts.digests.has_firmware);
	assert_int_equal(m.facts.digests.firmware[0], 1);
	assert_int_equal(m.facts.digests.firmware[31], 0xFF);
	assert_false(m.facts.digests.has_elf); /* all zero: nobody filled it in */
	assert_true(m.online);
	message_fini(&m);
	assert_null(m.root);
}

/* Nothing told is "" and 0, as checkin.h has it. */
static void status_with_nothing(void **state)
{
	static const char *const payloads[] = {
		"{}",
		"{\"mac\":null,\"hw\":null,\"boot_id\":null,\"uptime_s\":null,\"online\":null,"
		"\"device_model\":null,\"firmware_version\":null,\"device_id\":null}",
		"{\"mac\":\"\",\"hw\":\"\",\"boot_id\":\"\",\"firmware_digest\":\"\","
		"\"app_elf_sha256\":\"\"}",
		"{\"state\":5,\"percent\":\"much\",\"result_code\":77}",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(payloads); i++) {
		struct message m = parse(MESSAGE_STATUS, payloads[i]);
		assert_string_equal(m.facts.model, "");
		assert_string_equal(m.facts.version, "");
		assert_string_equal(m.facts.hw, "");
		assert_true(m.facts.mac == 0 && m.facts.boot_hash == 0);
		assert_false(m.facts.has_uptime || m.facts.digests.has_firmware ||
			     m.facts.digests.has_elf);
		assert_true(m.online);
		assert_int_equal(m.event, EVENT_NONE);
		assert_int_equal(m.percent, -1);
		assert_null(m.version);
		assert_null(m.attempt_token);
		assert_string_equal(m.error, "");
		message_fini(&m);
	}
}

static void status_by_other_names(void **state)
{
	static const struct {
		const char *payload, *model, *version;
	} cases[] = {
		{"{\"model\":\"m\",\"version\":\"1\"}", "m", "1"},
		{"{\"current_version\":\"1\"}", "", "1"},
		{"{\"version\":\"2\",\"current_version\":\"1\"}", "", "2"},
		{"{\"current_version\":\"1\",\"version\":\"2\",\"firmware_version\":\"3\"}", "",
		 "3"},
		{"{\"firmware_version\":null,\"version\":\"2\"}", "", "2"},
		{"{\"model\":\"n\",\"device_model\":\"m\"}", "m", ""},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct message m = parse(MESSAGE_STATUS, cases[i].payload);
		same_text(cases[i].payload, m.facts.model, cases[i].model);
		same_text(cases[i].payload, m.facts.version, cases[i].version);
		message_fini(&m);
	}
}

static void online_and_offline(void **state)
{
	static const struct {
		const char *payload;
		bool online;
	} cases[] = {
		{"online", true},
		{"offline", false},
		{"Online", true},
		{"OFFLINE", false},
		{" offline\r\n", false},
		{"online\n", true},
		{"{\"online\":true}", true},
		{"{\"online\":false}", false},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct message m = parse(MESSAGE_STATUS, cases[i].payload);
		if (m.online != cases[i].online)
			fail_msg("%s", cases[i].payload);
		assert_string_equal(m.facts.version, "");
		message_fini(&m);
	}
	refused(MESSAGE_STATUS, "offlin", REJECT_NOT_JSON, "not valid JSON");
	refused(MESSAGE_STATUS, "offline.", REJECT_NOT_JSON, "not valid JSON");
	refused(MESSAGE_STATUS, "{\"online\":\"no\"}", REJECT_FIELD,
		"online: must be true or false, not a string");
	refused(MESSAGE_STATUS, "{\"online\":0}", REJECT_FIELD, "must be true or false");
}

static void boot_ids(void **state)
{
	static const struct {
		const char *payload, *hashed;
	} cases[] = {
		{"{\"boot_id\":\"17\"}", "17"},
		{"{\"boot_id\":17}", "17"},
		{"{\"boot_id\":-1}", "-1"},
		{"{\"boot_id\":0}", "0"},
		{"{\"boot_id\":9223372036854775807}", "9223372036854775807"},
		{"{\"boot_id\":-9223372036854775808}", "-9223372036854775808"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct message m = parse(MESSAGE_STATUS, cases[i].payload);
		if (m.facts.boot_hash != hash64(cases[i].hashed, strlen(cases[i].hashed)))
			fail_msg("%s", cases[i].payload);
		message_fini(&m);
	}
	refused(MESSAGE_STATUS, "{\"boot_id\":1.5}", REJECT_FIELD, "boot_id: must be a string");
}

static void status_refused(void **state)
{
	static const struct {
		const char *payload, *sentence;
	} cases[] = {
		{"{\"device_model\":\"\"}",
		 "device_model: must have 1 to 128 characters (it is \"\")"},
		{"{\"model\":\"a b\"}", "model: must not contain spaces"},
		{"{\"device_model\":[]}", "device_model: must be a string, not an array"},
		{"{\"firmware_version\":\"\"}", "firmware_version: must have 1 to 128"},
		{"{\"current_version\":\"1\\u00e4\"}",
		 "current_version: must be printable ASCII (it is \"1\xC3\xA4\")"},
		{"{\"version\":\"1\\n\"}", "version: must be printable ASCII (it is \"1 \")"},
		{"{\"firmware_version\":1.5}", "firmware_version: must be a string"},
		{"{\"hw\":\"\\t\"}", "hw: must be printable ASCII"},
		{"{\"mac\":\"aa:bb\"}", "mac: must be 12 hexadecimal digits, as in "
					"aa:bb:cc:dd:ee:ff (it is \"aa:bb\")"},
		{"{\"mac\":\"00:00:00:00:00:00\"}", "mac: must be 12 hexadecimal digits"},
		{"{\"uptime_s\":-1}", "uptime_s: must be between 0 and 10000000000 (it is -1)"},
		{"{\"uptime_s\":1e300}", "uptime_s: must be between 0 and 10000000000"},
		{"{\"uptime_s\":\"5\"}", "uptime_s: must be a whole number, not a string"},
		{"{\"firmware_digest\":\"ab\"}",
		 "firmware_digest: must be 64 hexadecimal digits (a SHA-256) (it is \"ab\")"},
		{"{\"app_elf_sha256\":\"" DIGEST_1 "00\"}", "app_elf_sha256: must be 64"},
	};
	char text[10100];

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		refused(MESSAGE_STATUS, cases[i].payload, REJECT_FIELD, cases[i].sentence);
	snprintf(text, sizeof text, "{\"firmware_version\":\"%010000d\"}", 0);
	refused(MESSAGE_STATUS, text, REJECT_FIELD,
		"firmware_version: must have 1 to 128 characters (it has 10000 bytes)");
	struct message m = parse(MESSAGE_STATUS, "{\"uptime_s\":86400.75}");
	assert_int_equal(m.facts.uptime_s, 86400);
	message_fini(&m);
}

/* ------------------------------------------------------------------ .../ota/status, progress */

static void words(void **state)
{
	static const struct {
		enum message_kind kind;
		const char *payload;
		enum attempt_event event;
		bool accepted;
	} cases[] = {
		{MESSAGE_OTA_STATUS, "{\"status\":\"accepted\"}", EVENT_NONE, true},
		{MESSAGE_OTA_STATUS, "{\"status\":\"Accepted\"}", EVENT_NONE, true},
		{MESSAGE_OTA_STATUS, "{\"status\":\"pending\"}", EVENT_REPORT_PENDING, true},
		{MESSAGE_OTA_STATUS, "{\"status\":\"downloading\"}", EVENT_REPORT_DOWNLOADING,
		 true},
		{MESSAGE_OTA_STATUS, "{\"status\":\"downloaded\"}", EVENT_REPORT_DOWNLOADED, true},
		{MESSAGE_OTA_STATUS, "{\"status\":\"installing\"}", EVENT_REPORT_INSTALLING, true},
		{MESSAGE_OTA_STATUS, "{\"status\":\"success\"}", EVENT_REPORT_SUCCESS, true},
		{MESSAGE_OTA_STATUS, "{\"status\":\"FAILED\"}", EVENT_REPORT_FAILED, true},
		{MESSAGE_OTA_STATUS, "{\"status\":\"rolled_back\"}", EVENT_REPORT_ROLLED_BACK,
		 true},
		{MESSAGE_OTA_PROGRESS, "{\"state\":\"Idle\"}", EVENT_NONE, false},
		{MESSAGE_OTA_PROGRESS, "{\"state\":\"Checking\"}", EVENT_NONE, false},
		{MESSAGE_OTA_PROGRESS, "{\"state\":\"Downloading\"}", EVENT_REPORT_DOWNLOADING,
		 true},
		{MESSAGE_OTA_PROGRESS, "{\"state\":\"downloading\"}", EVENT_REPORT_DOWNLOADING,
		 true},
		{MESSAGE_OTA_PROGRESS, "{\"state\":\"Verifying\"}", EVENT_REPORT_DOWNLOADED, true},
		{MESSAGE_OTA_PROGRESS, "{\"state\":\"INSTALLING\"}", EVENT_REPORT_INSTALLING, true},
		{MESSAGE_OTA_PROGRESS, "{\"state\":\"Complete\"}", EVENT_REPORT_INSTALLING, true},
		{MESSAGE_OTA_PROGRESS, "{\"state\":\"Failed\",\"message\":\"x\"}", EVENT_NONE,
		 false},
		{MESSAGE_OTA_PROGRESS, "{\"state\":\"Rolled back\"}", EVENT_REPORT_ROLLED_BACK,
		 true},
		{MESSAGE_OTA_PROGRESS, "{\"state\":\"rolled_back\"}", EVENT_REPORT_ROLLED_BACK,
		 true},
		{MESSAGE_OTA_PROGRESS, "{\"state\":\"RolledBack\"}", EVENT_REPORT_ROLLED_BACK,
		 true},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct message m = parse(cases[i].kind, cases[i].payload);
		if (m.event != cases[i].event || m.accepted != cases[i].accepted)
			fail_msg("%s: event %d, accepted %d", cases[i].payload, (int)m.event,
				 m.accepted);
		assert_string_equal(m.error, "");
		assert_int_equal(m.percent, -1);
		message_fini(&m);
	}
	refused(MESSAGE_OTA_STATUS, "{}", REJECT_FIELD,
		"status: is missing: it must be one of: accepted, pending, downloading");
	refused(MESSAGE_OTA_STATUS, "{\"status\":\"Verifying\"}", REJECT_FIELD,
		"status: must be one of: accepted, pending, downloading, downloaded, installing, "
		"success, failed, rolled_back (it is \"Verifying\")");
	refused(MESSAGE_OTA_STATUS, "{\"status\":true}", REJECT_FIELD,
		"status: must be a string, not a boolean");
	refused(MESSAGE_OTA_PROGRESS, "{\"percent\":5}", REJECT_FIELD,
		"state: is missing: it must be one of: Idle, Checking");
	refused(MESSAGE_OTA_PROGRESS, "{\"state\":\"\"}", REJECT_FIELD, "(it is \"\")");
	refused(MESSAGE_OTA_PROGRESS, "{\"state\":null}", REJECT_FIELD, "state: is missing");
	refused(MESSAGE_OTA_PROGRESS, "{\"state\":\"accepted\"}", REJECT_FIELD, "must be one of");
}

static void percents(void **state)
{
	static const struct {
		const char *fields;
		int percent;
	} cases[] = {
		{"\"percent\":0", 0},
		{"\"percent\":100", 100},
		{"\"percent\":42.5", 42},
		{"\"percent\":99.999", 99},
		{"\"percent\":100.0", 100},
		{"\"percent\":-0.0", 0},
		{"\"percent\":7,\"downloaded\":50,\"total\":100", 7},
		{"\"percent\":7,\"downloaded\":\"much\"", 7},
		{"\"percent\":null,\"downloaded\":50,\"total\":100", 50},
		{"\"downloaded\":29,\"total\":100", 29},
		{"\"downloaded\":0,\"total\":1000000", 0},
		{"\"downloaded\":999999,\"total\":1000000", 99},
		{"\"downloaded\":1000000,\"total\":1000000", 100},
		{"\"downloaded\":1000001,\"total\":1000000", 100},
		{"\"downloaded\":1e300,\"total\":1000000", 100},
		{"\"downloaded\":524288.0,\"total\":1048576.0", 50},
		{"\"downloaded\":5,\"total\":0", -1},
		{"\"downloaded\":5,\"total\":-1", -1},
		{"\"downloaded\":-5,\"total\":10", -1},
		{"\"downloaded\":5,\"total\":1e300", -1},
		{"\"downloaded\":9223372036854775807,\"total\":9223372036854775807", -1},
		{"\"downloaded\":5", -1},
		{"\"total\":5", -1},
		{"\"downloaded\":null,\"total\":5", -1},
	};
	static const struct {
		const char *fields, *sentence;
	} bad[] = {
		{"\"percent\":101", "percent: must be between 0 and 100 (it is 101)"},
		{"\"percent\":-1", "percent: must be between 0 and 100 (it is -1)"},
		{"\"percent\":100.5", "percent: must be between 0 and 100 (it is 100.5)"},
		{"\"percent\":-0.5", "percent: must be between 0 and 100 (it is -0.5)"},
		{"\"percent\":1e308", "percent: must be between 0 and 100 (it is 1e+308)"},
		{"\"percent\":\"42\"", "percent: must be a whole number, not a string"},
		{"\"percent\":[]", "percent: must be a whole number, not an array"},
		{"\"downloaded\":\"5\",\"total\":10",
		 "downloaded: must be a number of bytes, as in 524288"},
		{"\"downloaded\":5,\"total\":{}", "total: must be a number of bytes"},
	};
	char text[200];

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		snprintf(text, sizeof text, "{\"state\":\"Downloading\",%s}", cases[i].fields);
		struct message m = parse(MESSAGE_OTA_PROGRESS, text);
		if (m.percent != cases[i].percent)
			fail_msg("%s: %d", text, m.percent);
		message_fini(&m);
	}
	for (size_t i = 0; i < COUNT(bad); i++) {
		snprintf(text, sizeof text, "{\"state\":\"Downloading\",%s}", bad[i].fields);
		refused(MESSAGE_OTA_PROGRESS, text, REJECT_FIELD, bad[i].sentence);
	}
}

/* What a device without a clock sends as the time may come again after its next start. */
static void times_of_day(void **state)
{
	static const struct {
		const char *time;
		bool stamped;
	} cases[] = {
		{"0", false},
		{"-1", false},
		{"999999999", false},
		{"1000000000", true},
		{"1790000000.5", true},
		{"1790000000123", true},
		{"\"2026-10-01T12:00:00Z\"", true},
		{"\"1970-01-01T00:00:07Z\"", false},
		{"\"\"", false},
		{"\"12345\"", false},
		{"null", false},
		{"[1790000000]", false},
	};
	char text[100];

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		snprintf(text, sizeof text, "{\"state\":\"Idle\",\"timestamp\":%s}", cases[i].time);
		struct message m = parse(MESSAGE_OTA_PROGRESS, text);
		if (m.stamped != cases[i].stamped)
			fail_msg("%s", text);
		message_fini(&m);
	}
	struct message m = parse(MESSAGE_OTA_RESULT, "{\"version\":\"1\",\"success\":true}");
	assert_false(m.stamped);
	message_fini(&m);
}

static void versions_and_attempts(void **state)
{
	static const struct {
		const char *fields, *version, *token;
	} cases[] = {
		{"\"version\":\"1.0.0\"", "1.0.0", NULL},
		{"\"target_version\":\"2\",\"version\":\"1\"", "2", NULL},
		{"\"target_version\":null,\"version\":\"1 b\"", "1 b", NULL},
		{"\"attempt_id\":\"abcdefghijklm\"", NULL, "abcdefghijklm"},
		{"\"attempt\":\"n\"", NULL, "n"},
		{"\"attempt\":\"n\",\"attempt_id\":\"m\"", NULL, "m"},
		{"\"attempt_id\":\"\"", NULL, NULL},
		{"\"attempt_id\":null,\"version\":null", NULL, NULL},
		{"\"timestamp\":\"whenever\"", NULL, NULL},
	};
	char text[300];

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		snprintf(text, sizeof text, "{\"status\":\"accepted\",%s}", cases[i].fields);
		struct message m = parse(MESSAGE_OTA_STATUS, text);
		same_text(text, m.version, cases[i].version);
		same_text(text, m.attempt_token, cases[i].token);
		message_fini(&m);
	}
	for (int n = 127; n <= 130; n++) {
		snprintf(text, sizeof text, "{\"state\":\"Idle\",\"version\":\"%0*d\"}", n, 0);
		if (n > 128) {
			refused(MESSAGE_OTA_PROGRESS, text, REJECT_FIELD,
				"version: must have 1 to 128 characters (it has");
			continue;
		}
		struct message m = parse(MESSAGE_OTA_PROGRESS, text);
		message_fini(&m);
	}
	snprintf(text, sizeof text, "{\"state\":\"Idle\",\"attempt\":\"%064d\"}", 0);
	struct message m = parse(MESSAGE_OTA_PROGRESS, text);
	assert_int_equal(strlen(m.attempt_token), 64);
	message_fini(&m);
	snprintf(text, sizeof text, "{\"state\":\"Idle\",\"attempt\":\"%065d\"}", 0);
	refused(MESSAGE_OTA_PROGRESS, text, REJECT_FIELD,
		"attempt: must have at most 64 characters (it has 65)");
	refused(MESSAGE_OTA_STATUS, "{\"status\":\"accepted\",\"target_version\":\"\"}",
		REJECT_FIELD, "target_version: must have 1 to 128 characters");
	refused(MESSAGE_OTA_STATUS, "{\"status\":\"accepted\",\"attempt_id\":5}", REJECT_FIELD,
		"attempt_id: must be a string, not a number");
}

/* ------------------------------------------------------------------ .../ota/result */

static void results(void **state)
{
	static const struct {
		const char *fields;
		enum attempt_event event;
		const char *error;
	} cases[] = {
		{"\"success\":true", EVENT_REPORT_SUCCESS, ""},
		{"\"result_code\":0", EVENT_REPORT_SUCCESS, ""},
		{"\"success\":true,\"result_code\":0,\"message\":\"fine\"", EVENT_REPORT_SUCCESS,
		 ""},
		{"\"success\":false", EVENT_REPORT_FAILED, ""},
		{"\"success\":false,\"message\":null", EVENT_REPORT_FAILED, ""},
		{"\"success\":false,\"message\":\"no luck\"", EVENT_REPORT_FAILED, "no luck"},
		{"\"success\":false,\"error_message\":\"no luck\"", EVENT_REPORT_FAILED, "no luck"},
		{"\"success\":false,\"result_code\":2", EVENT_REPORT_FAILED, "download failed"},
		{"\"result_code\":3,\"message\":\"\"", EVENT_REPORT_FAILED, "verification failed"},
		{"\"result_code\":11,\"message\":\"slot 1\"", EVENT_REPORT_FAILED,
		 "rollback failed: slot 1"},
		{"\"success\":null,\"result_code\":5", EVENT_REPORT_FAILED, "no partition"},
		{"\"result_code\":7,\"message\":\"a\\nb\\u001b[2J\\u007f\\u009b\\u00e4\"",
		 EVENT_REPORT_FAILED, "timeout: a b [2J   \xC3\xA4"},
	};
	char text[300];

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		snprintf(text, sizeof text, "{\"version\":\"1.0.0\",%s}", cases[i].fields);
		struct message m = parse(MESSAGE_OTA_RESULT, text);
		if (m.event != cases[i].event || !m.accepted)
			fail_msg("%s: event %d", text, (int)m.event);
		same_text(text, m.error, cases[i].error);
		assert_string_equal(m.version, "1.0.0");
		message_fini(&m);
	}
	/* The other two tell of failures too, without a code. */
	struct message m = parse(MESSAGE_OTA_STATUS,
				 "{\"status\":\"failed\",\"error_message\":\"flash is full\"}");
	assert_string_equal(m.error, "flash is full");
	message_fini(&m);
	m = parse(MESSAGE_OTA_PROGRESS, "{\"state\":\"Rolled back\",\"message\":\"panic\"}");
	assert_string_equal(m.error, "panic");
	message_fini(&m);
}

static void results_refused(void **state)
{
	static const struct {
		const char *payload, *sentence;
	} cases[] = {
		{"{\"version\":\"1\"}", "success: is missing: a result says true or false here, or "
					"a result_code of 0 (success) to 11"},
		{"{\"success\":true}", "version: is missing: a result names the version"},
		{"{\"success\":true,\"target_version\":null}", "version: is missing"},
		{"{\"version\":\"1\",\"success\":1}", "success: must be true or false"},
		{"{\"version\":\"1\",\"result_code\":12}",
		 "result_code: must be between 0 and 11 (it is 12)"},
		{"{\"version\":\"1\",\"result_code\":-1}", "result_code: must be between 0 and 11"},
		{"{\"version\":\"1\",\"result_code\":2.0}", "result_code: must be a whole number"},
		{"{\"version\":\"1\",\"success\":false,\"result_code\":\"2\"}",
		 "result_code: must be a whole number, not a string"},
		{"{\"version\":\"1\",\"success\":true,\"result_code\":3}",
		 "success: is true and contradicts result_code 3 (verification failed): true goes "
		 "with 0, false with 1 to 11"},
		{"{\"version\":\"1\",\"success\":false,\"result_code\":0}",
		 "success: is false and contradicts result_code 0 (success)"},
		{"{\"version\":\"1\",\"success\":false,\"message\":5}",
		 "message: must be a string, not a number"},
		{"{\"version\":\"\xC3\xA4\",\"success\":true}", "version: must be printable ASCII"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		refused(MESSAGE_OTA_RESULT, cases[i].payload, REJECT_FIELD, cases[i].sentence);
}

/* A long message is cut where a character ends, wherever the limit falls. */
static void long_errors(void **state)
{
	static const char *const characters[] = {"x", "\xC3\xA4", "\xE2\x82\xAC",
						 "\xF0\x9F\x98\x80"};
	char text[4000];

	(void)state;
	for (size_t c = 0; c < COUNT(characters); c++)
		for (int shift = 0; shift < 4; shift++) {
			int n = snprintf(text, sizeof text,
					 "{\"version\":\"1\",\"result_code\":9,\"message\":\"%.*s",
					 shift, "aaaa");
			for (int i = 0; i < 500; i++)
				n += snprintf(text + n, sizeof text - (size_t)n, "%s",
					      characters[c]);
			snprintf(text + n, sizeof text - (size_t)n, "\"}");
			struct message m = parse(MESSAGE_OTA_RESULT, text);
			size_t len = strlen(m.error);
			assert_true(utf8_valid(m.error, len));
			assert_in_range(len, sizeof m.error - strlen(characters[c]),
					sizeof m.error - 1);
			assert_memory_equal(m.error, "invalid firmware: ", 18);
			message_fini(&m);
		}
}

static void result_codes_have_names(void **state)
{
	static const char *const names[] = {"success",
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
					    "rollback failed"};

	(void)state;
	for (int i = 0; i < 12; i++)
		assert_string_equal(result_code_name(i), names[i]);
	assert_null(result_code_name(12));
	assert_null(result_code_name(-1));
	assert_null(result_code_name(INT64_MIN));
	assert_null(result_code_name(INT64_MAX));
}

/* ------------------------------------------------------------------ no memory */

/* Whichever allocation fails, the message is not blamed for it, and nothing is left behind. */
static void memory_runs_out(void **state)
{
	static const struct {
		enum message_kind kind;
		const char *payload;
		enum reject_reason ends; /* REJECT_REASONS: it is taken */
	} cases[] = {
		{MESSAGE_STATUS, "{\"device_model\":\"esp32\",\"firmware_version\":\"1\"}",
		 REJECT_REASONS},
		{MESSAGE_OTA_RESULT, "{\"version\":\"1\",\"result_code\":2,\"message\":\"m\"}",
		 REJECT_REASONS},
		{MESSAGE_OTA_PROGRESS,
		 "{\"state\":\"Dancing\",\"percent\":101,\"version\":\"\",\"attempt\":5}",
		 REJECT_FIELD},
		{MESSAGE_OTA_STATUS, "{\"status\":", REJECT_NOT_JSON},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		const struct topic t = topic_of(cases[i].kind);
		for (long n = 0;; n++) {
			enum reject_reason reason = REJECT_TOPIC;
			struct ota_err err = {0};
			struct message m;
			allocations_left = n;
			bool good = message_parse(&t, cases[i].payload, strlen(cases[i].payload),
						  &m, &reason, &err);
			allocations_left = -1;
			if (good) {
				message_fini(&m);
				assert_int_equal(cases[i].ends, REJECT_REASONS);
			}
			if (good || err.code != OTA_ENOMEM) {
				assert_in_range(n, 3, 200);
				if (!good)
					assert_int_equal(reason, cases[i].ends);
				break;
			}
			assert_int_equal(reason, REJECT_REASONS);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(topics),
		cmocka_unit_test(topics_refused),
		cmocka_unit_test(payloads_refused),
		cmocka_unit_test(all_that_is_wrong_is_said),
		cmocka_unit_test(reasons_have_names),
		cmocka_unit_test(status_in_full),
		cmocka_unit_test(status_with_nothing),
		cmocka_unit_test(status_by_other_names),
		cmocka_unit_test(online_and_offline),
		cmocka_unit_test(boot_ids),
		cmocka_unit_test(status_refused),
		cmocka_unit_test(words),
		cmocka_unit_test(percents),
		cmocka_unit_test(versions_and_attempts),
		cmocka_unit_test(results),
		cmocka_unit_test(times_of_day),
		cmocka_unit_test(results_refused),
		cmocka_unit_test(long_errors),
		cmocka_unit_test(result_codes_have_names),
		cmocka_unit_test(memory_runs_out),
	};
	return cmocka_run_group_tests_name("mqtt_payload", tests, NULL, NULL);
}
