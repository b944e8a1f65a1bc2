/* SPDX-License-Identifier: MIT */
/* core: what may be a name, MAC addresses, chips, and the warnings about a release. */
#include "core/chip.h"
#include "core/names.h"
#include "core/policy.h"
#include "core/target.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

static void device_ids(void **state)
{
	static const char *const good[] = {"a", "esp32_001", "!\"$%&'()*,-.:;<=>?@[\\]^_`{|}~",
					   "..."};
	static const char *const bad[] = {"",     "a/b",  "a+b",      "a#b",
					  " ",    "a b",  "a\tb",     "\x7f",
					  "\x1f", "\x80", "\xC3\xA4", "\xF0\x9F\x98\x80",
					  ".",    ".."};
	char longest[NAME_MAX_LEN + 2];

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		if (name_device_id_error(good[i]))
			fail_msg("%s: %s", good[i], name_device_id_error(good[i]));
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (!name_device_id_error(bad[i]) || !name_device_id_error(bad[i])[0])
			fail_msg("'%s' passes", bad[i]);
	memset(longest, 'x', sizeof longest);
	longest[NAME_MAX_LEN] = '\0';
	assert_null(name_device_id_error(longest));
	longest[NAME_MAX_LEN] = 'x';
	longest[NAME_MAX_LEN + 1] = '\0';
	assert_non_null(name_device_id_error(longest));
	/* Each character by itself, against the contract's words. */
	for (int c = 1; c < 256; c++) {
		char s[3] = {'x', (char)c, '\0'};
		bool may = c >= 0x21 && c <= 0x7E && c != '/' && c != '+' && c != '#';
		if ((name_device_id_error(s) == NULL) != may)
			fail_msg("character 0x%02x", (unsigned)c);
	}
}

static void versions_and_models(void **state)
{
	(void)state;
	for (int c = 1; c < 256; c++) {
		char s[3] = {'x', (char)c, '\0'};
		bool may = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
			   (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '+' || c == '-';
		if ((name_version_error(s) == NULL) != may)
			fail_msg("character 0x%02x", (unsigned)c);
	}
	assert_non_null(name_version_error(""));
	assert_non_null(name_version_error(".."));
	assert_non_null(strstr(name_version_error("1.0 beta"), "%2B"));
}

static void versions_as_told(void **state)
{
	char longest[NAME_MAX_LEN + 2];

	(void)state;
	for (int c = 1; c < 256; c++) {
		char s[3] = {'x', (char)c, '\0'};
		if ((name_told_version_error(s) == NULL) != (c >= 0x20 && c <= 0x7E))
			fail_msg("character 0x%02x", (unsigned)c);
	}
	assert_non_null(name_told_version_error(""));
	memset(longest, 'x', sizeof longest);
	longest[NAME_MAX_LEN + 1] = '\0';
	assert_non_null(name_told_version_error(longest));
	longest[NAME_MAX_LEN] = '\0';
	assert_null(name_told_version_error(longest));
}

static void macs(void **state)
{
	static const char *const good[] = {"aa:bb:cc:dd:ee:0f", "AA-BB-CC-DD-EE-0F", "aabbccddee0f",
					   "AABB.CCDD.EE0F"};
	static const char *const bad[] = {"",
					  "00:00:00:00:00:00",
					  "aa:bb:cc:dd:ee",
					  "aa:bb:cc:dd:ee:0f:01",
					  "aa:bb:cc:dd:ee:0g",
					  ":aabbccddee0f",
					  "a:abbccddee0f",
					  "aa bb cc dd ee 0f",
					  "aabbccddee0",
					  "aa::bb:cc:dd:ee:0f",
					  "aa:bb:cc:dd:ee:0f:"};
	uint64_t mac;
	char text[MAC_TEXT_SIZE];

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		mac = 0;
		if (!mac_parse(good[i], &mac) || mac != UINT64_C(0xaabbccddee0f))
			fail_msg("%s", good[i]);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		mac = 7;
		if (mac_parse(bad[i], &mac) || mac != 7)
			fail_msg("'%s' passes or touches its output", bad[i]);
	}
	mac_format(UINT64_C(0x0123456789ab), text);
	assert_string_equal(text, "01:23:45:67:89:ab");
}

static void chips(void **state)
{
	(void)state;
	for (int i = CHIP_NONE + 1; i < CHIP_COUNT; i++) {
		assert_non_null(chip_name((enum chip)i));
		assert_int_equal(chip_from_name(chip_name((enum chip)i)), i);
		assert_int_equal(chip_from_model(chip_name((enum chip)i)), i);
	}
	assert_null(chip_name(CHIP_NONE));
	assert_null(chip_name(CHIP_COUNT));
	assert_int_equal(chip_from_model("esp32"), CHIP_ESP32);
	assert_int_equal(chip_from_model("esp32s3"), CHIP_ESP32_S3);
	assert_int_equal(chip_from_model("ESP32_S3"), CHIP_ESP32_S3);
	assert_int_equal(chip_from_model("esp-32-s3"), CHIP_ESP32_S3);
	assert_int_equal(chip_from_model("esp8266"), CHIP_ESP8266);
	assert_int_equal(chip_from_model("esp32-c6"), CHIP_ESP32_C6);
	assert_int_equal(chip_from_model("esp32c61"), CHIP_ESP32_C61);
	assert_int_equal(chip_from_model("esp32-c6-1"), CHIP_NONE);
	assert_int_equal(chip_from_model("esp32-s3-devkit"), CHIP_NONE);
	assert_int_equal(chip_from_model("esp32dev"), CHIP_NONE);
	assert_int_equal(chip_from_model("esp32-"), CHIP_NONE);
	assert_int_equal(chip_from_model("esp"), CHIP_NONE);
	assert_int_equal(chip_from_model(""), CHIP_NONE);
	assert_int_equal(chip_from_esp_id(0), CHIP_ESP32);
	assert_int_equal(chip_from_esp_id(9), CHIP_ESP32_S3);
	assert_int_equal(chip_from_esp_id(0xFFFF), CHIP_NONE);
}

static struct release older(const char *version, const char *project, uint32_t secure,
			    struct release *next)
{
	return (struct release){.version = version,
				.model = "m",
				.min_version = "",
				.inner_version = "",
				.project = project,
				.release_notes = "",
				.secure_version = secure,
				.next = next};
}

static void warnings(void **state)
{
	char out[POLICY_WARNINGS_MAX][POLICY_SENTENCE_SIZE];
	struct release r1 = older("1.0.0", "thermo", 2, NULL);
	struct release r2 = older("1.1.0", "arduino-lib-builder", 3, &r1);
	struct release_facts f = {.version = "2.0RC4",
				  .inner_version = "2.0RC3",
				  .project = "valve",
				  .has_secure_version = true,
				  .secure_version = 2};

	(void)state;
	assert_int_equal(policy_warnings(&f, &r2, out), 3);
	assert_non_null(strstr(out[0], "2.0RC3"));
	assert_non_null(strstr(out[0], "2.0RC4"));
	assert_non_null(strstr(out[1], "valve"));
	assert_non_null(strstr(out[1], "thermo"));
	assert_non_null(strstr(out[2], "secure_version"));
	assert_non_null(strstr(out[2], "1.1.0"));
	/* What a deleted release was says nothing. */
	r2.deleted = true;
	assert_int_equal(policy_warnings(&f, &r2, out), 2);
	r1.deleted = true;
	assert_int_equal(policy_warnings(&f, &r2, out), 1);
	/* A leading v, a builder's name, nothing told: no warning. */
	f.inner_version = "v2.0RC4";
	assert_int_equal(policy_warnings(&f, NULL, out), 0);
	f.inner_version = "esp-idf: v4.4";
	f.project = "arduino-lib-builder";
	assert_int_equal(policy_warnings(&f, NULL, out), 0);
	r1.deleted = false;
	f = (struct release_facts){.version = "3", .inner_version = "", .project = ""};
	assert_int_equal(policy_warnings(&f, &r2, out), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(device_ids),
		cmocka_unit_test(versions_and_models),
		cmocka_unit_test(versions_as_told),
		cmocka_unit_test(macs),
		cmocka_unit_test(chips),
		cmocka_unit_test(warnings),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
