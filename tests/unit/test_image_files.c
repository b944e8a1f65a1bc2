/* SPDX-License-Identifier: MIT */
/*
 * The image inspection against real releases: every file of shared/firmware, with its manifest.json
 * as the oracle.  The folder is no part of the project; PAKU_SHARED names another place than
 * ../shared, and without it this program says so and is skipped (exit 77).
 */
#include "firmware/image.h"
#include "image_source.h"

#include "base/clock.h"
#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>
#include <jansson.h>

#define FLIPS_PER_APP 16

static char folder[512];
static json_t *manifest;
static struct image_info info;
static struct ota_err err;

struct file {
	uint8_t *data;
	size_t len;
};

static struct file load(const char *name)
{
	char path[1024];
	struct file f = {NULL, 0};

	snprintf(path, sizeof path, "%s/%s", folder, name);
	FILE *in = fopen(path, "rb");
	if (!in || fseek(in, 0, SEEK_END) != 0)
		fail_msg("%s cannot be read", path);
	f.len = (size_t)ftell(in);
	f.data = malloc(f.len);
	rewind(in);
	if (!f.data || fread(f.data, 1, f.len, in) != f.len)
		fail_msg("%s cannot be read", path);
	fclose(in);
	return f;
}

static const char *text(json_t *entry, const char *key)
{
	const char *s = json_string_value(json_object_get(entry, key));

	return s ? s : "";
}

static int number(json_t *entry, const char *key)
{
	return (int)json_integer_value(json_object_get(entry, key));
}

static bool is_app(json_t *entry)
{
	return strncmp(text(entry, "file"), "app/", 4) == 0;
}

/* The manifest's chip; it names none for the ESP8266. */
static enum chip chip_of(json_t *entry)
{
	return strncmp(text(entry, "kind"), "esp8266", 7) == 0
		       ? CHIP_ESP8266
		       : chip_from_name(text(entry, "chip"));
}

static enum ota_code inspect(const struct file *f, enum chip chip)
{
	return inspect_memory(f->data, f->len, IMAGE_AUTO, "the-model", chip, &info, &err);
}

/* "11:09:12" and "Sep  1 2024", by another way than the code's. */
static void expected_time(json_t *app, char out[40])
{
	static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
					     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	const char *date = text(app, "date");
	int month = 0;

	while (month < 12 && strncmp(months[month], date, 3) != 0)
		month++;
	snprintf(out, 40, "%s-%02d-%02dT%s", date + 7, month + 1, atoi(date + 4),
		 text(app, "time"));
}

static void check_app_desc(json_t *entry)
{
	json_t *app = json_object_get(entry, "app");
	char hex[SHA256_HEX_SIZE], time[40];
	bool zero;

	assert_true(info.has_app_desc);
	assert_string_equal(info.version, text(app, "version"));
	assert_string_equal(info.project, text(app, "project"));
	assert_string_equal(info.idf_version, text(app, "idf"));
	assert_int_equal(info.secure_version, number(app, "secure_version"));
	expected_time(app, time);
	assert_string_equal(info.build_time, time);
	hex_encode(info.elf_sha256, 32, hex);
	assert_string_equal(hex, text(app, "elf_sha256"));
	zero = strspn(hex, "0") == 64;
	assert_int_equal(info.has_elf_sha256, !zero);
	assert_int_equal(info.has_digest, number(entry, "hash_appended"));
	hex_encode(info.digest, 32, hex);
	assert_string_equal(hex, text(entry, "image_digest"));
	assert_int_equal(info.min_chip_rev, number(entry, "min_rev_full"));
	int max = number(entry, "max_rev_full");
	assert_int_equal(info.max_chip_rev, max == 0 || max == 65535 ? -1 : max);
}

static void test_apps_accepted(void **state)
{
	size_t i;
	json_t *entry;
	int apps = 0;

	(void)state;
	json_array_foreach(manifest, i, entry)
	{
		if (!is_app(entry))
			continue;
		struct file f = load(text(entry, "file"));

		assert_int_equal(f.len, number(entry, "size"));
		for (int with_chip = 0; with_chip < 2; with_chip++) {
			if (inspect(&f, with_chip ? chip_of(entry) : CHIP_NONE) != OTA_OK)
				fail_msg("%s: %s", text(entry, "file"), err.msg);
			assert_true(info.is_esp);
			assert_int_equal(info.chip, chip_of(entry));
			assert_false(info.signed_block);
			if (chip_of(entry) != CHIP_ESP8266) {
				assert_int_equal(info.segments, number(entry, "segments"));
				check_app_desc(entry);
			}
		}
		apps++;
		free(f.data);
	}
	assert_int_equal(apps, 19);
}

static void test_apps_of_another_chip(void **state)
{
	size_t i;
	json_t *entry;

	(void)state;
	json_array_foreach(manifest, i, entry)
	{
		if (!is_app(entry))
			continue;
		struct file f = load(text(entry, "file"));
		enum chip other = chip_of(entry) == CHIP_ESP32 ? CHIP_ESP32_C6 : CHIP_ESP32;
		char want[128];

		if (chip_of(entry) == CHIP_ESP32_C6)
			other = CHIP_ESP8266;
		snprintf(want, sizeof want, "the image is for %s, the model the-model is %s",
			 chip_name(chip_of(entry)), chip_name(other));
		assert_int_equal(inspect(&f, other), OTA_EUNPROCESSABLE);
		assert_string_equal(err.msg, want);
		free(f.data);
	}
}

static void test_not_apps_refused(void **state)
{
	static const struct {
		const char *kind, *sentence;
	} want[] = {
		{"bootloader", "this is a bootloader, upload firmware.bin"},
		{"partition-table", "this is a partition table, upload firmware.bin"},
		{"filesystem", "this is a file system image (SPIFFS), upload firmware.bin"},
		{"otadata", "this is the OTA data partition (boot_app0.bin), upload firmware.bin"},
		{"merged", "this is a merged flash image"},
	};
	size_t i;
	json_t *entry;
	int refused = 0;

	(void)state;
	json_array_foreach(manifest, i, entry)
	{
		if (is_app(entry))
			continue;
		struct file f = load(text(entry, "file"));
		size_t w = 0;

		while (w < 5 && strcmp(want[w].kind, text(entry, "kind")) != 0)
			w++;
		assert_true(w < 5);
		for (int chip = CHIP_NONE; chip < CHIP_COUNT; chip++) {
			/* A model without a chip may keep its data in SPIFFS. */
			bool raw = chip == CHIP_NONE && strcmp(want[w].kind, "filesystem") == 0;
			enum ota_code code = inspect(&f, (enum chip)chip);

			if (raw ? code != OTA_OK
				: code != OTA_EUNPROCESSABLE || !strstr(err.msg, want[w].sentence))
				fail_msg("%s for chip %d: code %d, %s", text(entry, "file"), chip,
					 code, err.msg);
		}
		refused++;
		free(f.data);
	}
	assert_int_equal(refused, 8);
}

static void test_apps_cut_off(void **state)
{
	static const size_t from_start[] = {1, 8, 24, 100, 300, 4096, 4200, 65536};
	static const size_t from_end[] = {1, 16, 31, 32, 33, 4096, 100000};
	size_t i;
	json_t *entry;

	(void)state;
	json_array_foreach(manifest, i, entry)
	{
		if (!is_app(entry))
			continue;
		struct file f = load(text(entry, "file"));
		size_t whole = f.len;

		for (size_t n = 0; n < sizeof from_start / sizeof from_start[0]; n++) {
			f.len = from_start[n];
			assert_int_equal(inspect(&f, CHIP_NONE), OTA_EUNPROCESSABLE);
			assert_int_equal(inspect(&f, chip_of(entry)), OTA_EUNPROCESSABLE);
		}
		for (size_t n = 0; n < sizeof from_end / sizeof from_end[0]; n++) {
			f.len = whole - from_end[n];
			assert_int_equal(inspect(&f, chip_of(entry)), OTA_EUNPROCESSABLE);
			assert_non_null(strstr(err.msg, "the image is cut off: "));
		}
		free(f.data);
	}
}

static void test_apps_with_a_flipped_bit(void **state)
{
	size_t i, flips = 0;
	json_t *entry;
	uint64_t random = 20250221;

	(void)state;
	json_array_foreach(manifest, i, entry)
	{
		if (!is_app(entry))
			continue;
		struct file f = load(text(entry, "file"));
		size_t from = 0;

		/* These builds carry no CRC: their flash code, up to the RAM part, is covered by
		 * nothing. */
		if (strcmp(text(entry, "kind"), "esp8266-v2") == 0)
			from = 16 +
			       ((size_t)f.data[12] | (size_t)f.data[13] << 8 |
				(size_t)f.data[14] << 16) +
			       16;
		for (int n = 0; n < FLIPS_PER_APP; n++) {
			random = hash64_mix(random + 1);
			size_t at = from + random % (f.len - from);
			uint8_t bit = (uint8_t)(1 << (random >> 60 & 7));

			f.data[at] ^= bit;
			if (inspect(&f, chip_of(entry)) != OTA_EUNPROCESSABLE)
				fail_msg("%s: accepted with byte %zu changed", text(entry, "file"),
					 at);
			f.data[at] ^= bit;
			flips++;
		}
		free(f.data);
	}
	assert_true(flips >= 300);
}

/* Read once, in pieces; the time is printed, not judged. */
static void measure(const char *name)
{
	struct file f = load(name);
	int64_t best_us = INT64_MAX;

	for (int round = 0; round < 5; round++) {
		struct memory_source m = {f.data, f.len, -1, 0, 0};
		struct image_source src = {&m, memory_read, f.len};
		int64_t start_us = clock_wall_us();

		assert_int_equal(image_inspect(&src, IMAGE_AUTO, "m", CHIP_NONE, &info, &err),
				 OTA_OK);
		int64_t took_us = clock_wall_us() - start_us;
		best_us = took_us < best_us ? took_us : best_us;
		assert_true(m.read_bytes < f.len + 2 * 4096);
	}
	print_message("%s: %zu bytes inspected in %lld us (best of 5)\n", name, f.len,
		      (long long)best_us);
	free(f.data);
}

static void test_cost(void **state)
{
	(void)state;
	measure("app/wled_esp32c3_0.14.2.bin");
	measure("app/wled_esp8266_0.14.2.bin");
	measure("app/repeater_esp8266_2021-04-05_slot0x02000.bin");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_apps_accepted),
		cmocka_unit_test(test_apps_of_another_chip),
		cmocka_unit_test(test_not_apps_refused),
		cmocka_unit_test(test_apps_cut_off),
		cmocka_unit_test(test_apps_with_a_flipped_bit),
		cmocka_unit_test(test_cost),
	};
	const char *shared = getenv("PAKU_SHARED");
	char path[600];
	json_error_t bad;
	int rc;

	snprintf(folder, sizeof folder, "%s/firmware", shared ? shared : "../shared");
	snprintf(path, sizeof path, "%s/manifest.json", folder);
	FILE *in = fopen(path, "rb");
	if (!in) {
		printf("SKIPPED: %s is not there, so no real image was inspected "
		       "(PAKU_SHARED names its parent's place)\n",
		       path);
		return 77;
	}
	manifest = json_loadf(in, 0, &bad);
	fclose(in);
	if (!manifest) {
		printf("%s: %s\n", path, bad.text);
		return 1;
	}
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	json_decref(manifest);
	return rc;
}
