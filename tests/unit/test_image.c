/* SPDX-License-Identifier: MIT */
/*
 * The image inspection against images built here, whole, cut at every length and with every bit
 * flipped, and against the mistakes people make.  Real images: test_image_files.c.
 */
#include "firmware/image.h"
#include "image_builder.h"
#include "image_source.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

static uint8_t image[IMAGE_BUILD_MAX];
static struct image_info info;
static struct ota_err err;

static enum ota_code inspect_as(enum image_type type, enum chip chip, const void *data, size_t len)
{
	return inspect_memory(data, len, type, "the-model", chip, &info, &err);
}

static enum ota_code inspect_auto(enum chip chip, size_t len)
{
	return inspect_as(IMAGE_AUTO, chip, image, len);
}

static void assert_refused(enum ota_code code, const char *sentence)
{
	if (code != OTA_EUNPROCESSABLE || !strstr(err.msg, sentence))
		fail_msg("code %d, \"%s\" where \"%s\" was expected", code, code ? err.msg : "",
			 sentence);
}

static size_t build_example(uint16_t chip_id)
{
	struct image_spec spec = IMAGE_SPEC_EXAMPLE;

	spec.chip_id = chip_id;
	return build_esp32(image, &spec);
}

static void test_chip_names(void **state)
{
	static const struct {
		const char *name;
		enum chip chip;
	} cases[] = {
		{"esp32", CHIP_ESP32},
		{"ESP32", CHIP_ESP32},
		{"esp-32", CHIP_ESP32},
		{"esp8266", CHIP_ESP8266},
		{"ESP-8266", CHIP_ESP8266},
		{"esp32-s3", CHIP_ESP32_S3},
		{"esp32s3", CHIP_ESP32_S3},
		{"ESP32_S3", CHIP_ESP32_S3},
		{"Esp32C61", CHIP_ESP32_C61},
		{"esp32-c6", CHIP_ESP32_C6},
		{"esp_32_p4", CHIP_ESP32_P4},
		{"esp32-c6-1", CHIP_NONE},
		{"esp32-s3-devkit", CHIP_NONE},
		{"esp32dev", CHIP_NONE},
		{"esp32-", CHIP_NONE},
		{"-esp32", CHIP_NONE},
		{"esp32--s3", CHIP_NONE},
		{"esp", CHIP_NONE},
		{"esp32-x9", CHIP_NONE},
		{"raspberry-pi", CHIP_NONE},
		{"", CHIP_NONE},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		if (chip_from_model(cases[i].name) != cases[i].chip)
			fail_msg("%s is %d", cases[i].name, chip_from_model(cases[i].name));
	for (int c = CHIP_NONE + 1; c < CHIP_COUNT; c++)
		assert_int_equal(chip_from_name(chip_name((enum chip)c)), c);
	assert_null(chip_name(CHIP_NONE));
	assert_null(chip_name(CHIP_COUNT));
	assert_int_equal(chip_from_name(NULL), CHIP_NONE);
}

static void test_chip_numbers(void **state)
{
	static const struct {
		uint16_t id;
		const char *name;
	} cases[] = {
		{0, "ESP32"},      {2, "ESP32-S2"},   {5, "ESP32-C3"},   {9, "ESP32-S3"},
		{12, "ESP32-C2"},  {13, "ESP32-C6"},  {16, "ESP32-H2"},  {18, "ESP32-P4"},
		{20, "ESP32-C61"}, {23, "ESP32-C5"},  {25, "ESP32-H21"}, {28, "ESP32-H4"},
		{31, "ESP32-E22"}, {32, "ESP32-S31"},
	};
	int known = 0;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		assert_string_equal(chip_name(chip_from_esp_id(cases[i].id)), cases[i].name);
	for (int id = 0; id <= 0xFFFF; id++)
		known += chip_from_esp_id((uint16_t)id) != CHIP_NONE;
	assert_int_equal(known, sizeof cases / sizeof cases[0]);
}

static void test_esp32_fields(void **state)
{
	size_t len = build_example(5);
	uint8_t elf[32];

	(void)state;
	memset(elf, 0xE1, sizeof elf);
	assert_int_equal(inspect_auto(CHIP_ESP32_C3, len), OTA_OK);
	assert_true(info.is_esp);
	assert_int_equal(info.chip, CHIP_ESP32_C3);
	assert_string_equal(info.layout, "esp32-family app");
	assert_int_equal(info.segments, 3);
	assert_true(info.has_app_desc);
	assert_string_equal(info.version, "1.2.3");
	assert_string_equal(info.project, "paku-demo");
	assert_string_equal(info.build_time, "2025-02-01T20:00:44");
	assert_string_equal(info.idf_version, "v5.3");
	assert_int_equal(info.secure_version, 7);
	assert_true(info.has_elf_sha256);
	assert_memory_equal(info.elf_sha256, elf, 32);
	assert_true(info.has_digest);
	assert_memory_equal(info.digest, image + len - 32, 32);
	assert_int_equal(info.min_chip_rev, 3);
	assert_int_equal(info.max_chip_rev, 199);
	assert_false(info.signed_block);
	assert_string_equal(info.note, "");
	/* A model without a chip takes it too, and so does image_type=esp. */
	assert_int_equal(inspect_auto(CHIP_NONE, len), OTA_OK);
	assert_int_equal(inspect_as(IMAGE_ESP, CHIP_NONE, image, len), OTA_OK);
}

static void test_esp32_odd_fields(void **state)
{
	struct image_spec spec = {
		.version = "0123456789abcdef0123456789abcdef", /* 32, no room for a NUL */
		.project = "na\x01me\xC3",
		.date = "2025-02-01",
		.time = "noon",
		.max_rev = 0xFFFF,
		.without_digest = true,
	};
	static const struct {
		const char *date, *time, *want;
	} times[] = {
		{"Dec 31 1999", "23:59:59", "1999-12-31T23:59:59"},
		{"Foo 31 1999", "23:59:59", "Foo 31 1999 23:59:59"},
		{"anF 31 1999", "23:59:59", "anF 31 1999 23:59:59"},
		{"Jan 32 1999", "23:59:59", "Jan 32 1999 23:59:59"},
		{"Jan 31 1999", "24:59:59", "Jan 31 1999 24:59:59"},
		{"Jan 31 1999", "", "Jan 31 1999"},
		{"Jan 31 -999", "10:00:00", "Jan 31 -999 10:00:00"},
		{"", "", ""},
	};

	(void)state;
	assert_int_equal(inspect_auto(CHIP_ESP32, build_esp32(image, &spec)), OTA_OK);
	assert_string_equal(info.version, "0123456789abcdef0123456789abcdef");
	assert_string_equal(info.project, "na?me?");
	assert_string_equal(info.build_time, "2025-02-01 noon");
	assert_false(info.has_elf_sha256);
	assert_false(info.has_digest);
	assert_int_equal(info.max_chip_rev, -1);
	for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
		spec.date = times[i].date;
		spec.time = times[i].time;
		assert_int_equal(inspect_auto(CHIP_ESP32, build_esp32(image, &spec)), OTA_OK);
		assert_string_equal(info.build_time, times[i].want);
	}
}

static void test_esp8266_accepted(void **state)
{
	(void)state;
	for (int crc = 0; crc < 2; crc++) {
		size_t len = build_esp8266_arduino(image, crc);

		assert_int_equal(inspect_auto(CHIP_ESP8266, len), OTA_OK);
		assert_string_equal(info.layout, "esp8266 arduino");
		assert_int_equal(info.chip, CHIP_ESP8266);
		assert_int_equal(info.segments, 3);
		assert_int_equal(info.min_chip_rev, -1);
		assert_false(info.has_app_desc || info.has_digest || info.signed_block);
		assert_int_equal(inspect_auto(CHIP_NONE, len), OTA_OK);
		assert_true(info.is_esp);
		assert_refused(inspect_auto(CHIP_ESP32, len),
			       "the image is for ESP8266, the model the-model is ESP32");
		len = build_esp8266_v2(image, crc);
		assert_int_equal(inspect_auto(CHIP_ESP8266, len), OTA_OK);
		assert_string_equal(info.layout, "esp8266 non-os v2");
		assert_int_equal(info.segments, 2);
		assert_int_equal(inspect_as(IMAGE_ESP, CHIP_NONE, image, len), OTA_OK);
	}
}

/* Every prefix is refused, by models with and without a chip, whatever is claimed but raw. */
static void cut_everywhere(size_t len, enum chip chip, size_t but)
{
	for (size_t n = 0; n < len; n++) {
		if (n == but)
			continue;
		uint8_t *exact = malloc(n ? n : 1); /* so that a sanitizer sees a byte too many */
		assert_non_null(exact);
		memcpy(exact, image, n);
		if (inspect_as(IMAGE_AUTO, chip, exact, n) != OTA_EUNPROCESSABLE ||
		    inspect_as(IMAGE_AUTO, CHIP_NONE, exact, n) != OTA_EUNPROCESSABLE ||
		    inspect_as(IMAGE_ESP, chip, exact, n) != OTA_EUNPROCESSABLE)
			fail_msg("accepted when cut to %zu of %zu bytes", n, len);
		free(exact);
	}
}

static void test_cut_at_every_length(void **state)
{
	struct image_spec spec = IMAGE_SPEC_EXAMPLE;
	size_t none = SIZE_MAX;

	(void)state;
	cut_everywhere(build_esp32(image, &spec), CHIP_ESP32, none);
	spec.without_digest = true;
	cut_everywhere(build_esp32(image, &spec), CHIP_ESP32, none);
	cut_everywhere(build_esp8266_arduino(image, true), CHIP_ESP8266, none);
	cut_everywhere(build_esp8266_arduino(image, false), CHIP_ESP8266, none);
	cut_everywhere(build_esp8266_v2(image, false), CHIP_ESP8266, none);
	/* Without its CRC this one is whole again: the format allows both. */
	size_t len = build_esp8266_v2(image, true);
	cut_everywhere(len, CHIP_ESP8266, len - 4);
}

static void test_cut_says_where(void **state)
{
	size_t len = build_example(0);

	(void)state;
	assert_refused(inspect_auto(CHIP_ESP32, 300),
		       "the image is cut off: segment 2 needs 360 bytes, the file has 300");
	assert_refused(inspect_auto(CHIP_ESP32, len - 1), "the SHA-256 at its end needs 448 bytes");
	assert_refused(inspect_auto(CHIP_ESP32, 10), "the header needs 24 bytes");
}

static void flip_every_bit(size_t from, size_t to, size_t len, enum chip chip)
{
	for (size_t bit = from * 8; bit < to * 8; bit++) {
		image[bit / 8] ^= (uint8_t)(1 << bit % 8);
		if (inspect_auto(chip, len) != OTA_EUNPROCESSABLE)
			fail_msg("accepted with bit %zu of byte %zu flipped", bit % 8, bit / 8);
		image[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	assert_int_equal(inspect_auto(chip, len), OTA_OK);
}

static void test_every_bit_flipped(void **state)
{
	struct image_spec spec = IMAGE_SPEC_EXAMPLE;
	size_t len = build_esp32(image, &spec);

	(void)state;
	flip_every_bit(0, len, len, CHIP_ESP32);
	spec.without_digest = true; /* then only the data are covered */
	len = build_esp32(image, &spec);
	flip_every_bit(0x20, 0x120, len, CHIP_ESP32);
	flip_every_bit(len - 1, len, len, CHIP_ESP32);
	len = build_esp8266_v2(image, true);
	flip_every_bit(0, len, len, CHIP_ESP8266);
	len = build_esp8266_v2(image, false);
	flip_every_bit(16 + 160 + 8 + 8, 16 + 160 + 8 + 8 + 72, len, CHIP_ESP8266);
	len = build_esp8266_arduino(image, false);
	flip_every_bit(8 + 8, 8 + 8 + 101, len, CHIP_ESP8266); /* of the bootloader */
	flip_every_bit(0x1010, 0x1010 + 301, len, CHIP_ESP8266);
	len = build_esp8266_arduino(image, true);
	flip_every_bit(0, 0x100, len, CHIP_ESP8266);
	flip_every_bit(0x1000, len, len, CHIP_ESP8266);
}

/* Fields that the sums do not protect, because whoever changes them makes the sums anew. */
static void test_esp32_header_fields(void **state)
{
	static const struct {
		size_t at;
		uint8_t value;
		const char *sentence;
	} cases[] = {
		{0, 0xE8, "the first byte is 0xE8"},
		{1, 0, "it says 0 segments"},
		{1, 17, "it says 17 segments"},
		{1, 255, "it says 255 segments"},
		{12, 1, "chip number 1, which is unknown"},
		{13, 0xFF, "chip number 65280, which is unknown"},
		{12, 9, "the image is for ESP32-S3, the model the-model is ESP32"},
		{23, 2, "hash_appended is 2"},
		{24 + 4, 2, "no multiple of 4"},
		{24 + 7, 1, "the limit is 16 MiB"},
		{24 + 7, 0xFF, "the limit is 16 MiB"},
		{24 + 6, 0xFF, "the image is cut off: segment 1 needs"},
		{0x20, 0, "this is a bootloader, upload firmware.bin"},
		{0x23, 0xAC, "this is a bootloader, upload firmware.bin"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		build_example(0);
		image[cases[i].at] = cases[i].value;
		size_t len = build_esp32_sums(image, false);

		assert_refused(inspect_auto(CHIP_ESP32, len), cases[i].sentence);
	}
	build_example(0);
	build_le32(image + 24, 0x40210010u);
	assert_refused(inspect_auto(CHIP_ESP32, build_esp32_sums(image, false)),
		       "ESP8266 RTOS SDK");
}

static void test_wrong_chip(void **state)
{
	(void)state;
	assert_int_equal(inspect_memory(image, build_example(9), IMAGE_AUTO, "esp32-c3",
					CHIP_ESP32_C3, &info, &err),
			 OTA_EUNPROCESSABLE);
	assert_string_equal(err.msg, "the image is for ESP32-S3, the model esp32-c3 is ESP32-C3");
	assert_refused(inspect_as(IMAGE_ESP, CHIP_ESP8266, image, build_example(0)),
		       "the image is for ESP32, the model the-model is ESP8266");
}

static void test_bootloaders(void **state)
{
	struct image_spec spec = {.without_desc = true};
	size_t len = build_esp32(image, &spec);

	(void)state;
	for (int chip = CHIP_NONE; chip < CHIP_COUNT; chip++)
		assert_refused(inspect_auto((enum chip)chip, len),
			       "this is a bootloader, upload firmware.bin");
	len = build_esp8266_arduino(image, true);
	assert_refused(inspect_auto(CHIP_ESP8266, 176), "this is a bootloader (eboot");
	/* One part alone, beyond where the application would stand. */
	len = build_esp8266_head(image, 0, 1);
	len = build_segment(image, len, 0x40200010u, 0x1800, 1);
	len = build_close(image, len, build_checksum(image, 8, 1));
	assert_refused(inspect_auto(CHIP_ESP8266, len), "is for flash address 0");
}

static void test_trailing_bytes(void **state)
{
	static const size_t extra[] = {1, 2, 4, 16, 32, 64, 67, 68, 69, 80, 1216, 4096, 4096 + 64};
	size_t len = build_example(0);

	(void)state;
	for (int fill = 0; fill < 256; fill += 51)
		for (size_t i = 0; i < sizeof extra / sizeof extra[0]; i++) {
			len = build_example(0);
			memset(image + len, fill, extra[i]);
			if (fill != 0 && fill != 255 && extra[i] == 68)
				build_le32(image + len, 1); /* a version that is none */
			assert_refused(inspect_auto(CHIP_ESP32, len + extra[i]),
				       "what follows is no signature");
		}
	len = build_esp8266_v2(image, false);
	assert_refused(inspect_auto(CHIP_ESP8266, len + 5), "what follows is no signature");
}

static void test_signature_v1(void **state)
{
	size_t len = build_example(0);

	(void)state;
	memset(image + len, 0, 68);
	memset(image + len + 4, 0x5A, 64);
	assert_int_equal(inspect_auto(CHIP_ESP32, len + 68), OTA_OK);
	assert_true(info.signed_block);
	memset(image + len + 4, 0, 64);
	assert_refused(inspect_auto(CHIP_ESP32, len + 68), "what follows is no signature");
}

static void test_signature_v2(void **state)
{
	size_t app = build_example(5), len;

	(void)state;
	for (int blocks = 1; blocks <= 3; blocks++)
		for (uint8_t version = 2; version <= 3; version++) {
			build_example(5);
			len = build_sign_v2(image, app, blocks, version);
			assert_int_equal(inspect_auto(CHIP_ESP32_C3, len), OTA_OK);
			assert_true(info.signed_block);
			assert_true(info.has_digest);
		}
	/* Whatever is changed after the image: fill, block, or what follows the last block. */
	len = build_sign_v2(image, app, 2, 2);
	for (size_t at = app; at < len; at += at < 4096 ? 97 : 29) {
		image[at] ^= 0x10;
		bool padding = (at - 4096) % 1216 >= 1200 && at >= 4096 && at < 4096 + 2 * 1216;
		if (!padding) /* 16 bytes of no meaning at each block's end */
			assert_refused(inspect_auto(CHIP_ESP32_C3, len),
				       "what follows is no signature");
		image[at] ^= 0x10;
	}
	for (size_t n = app + 1; n < len; n += 61)
		assert_refused(inspect_auto(CHIP_ESP32_C3, n), "what follows is no signature");
	/* A block that is right in itself, but for another image. */
	uint8_t digest[32] = {1};
	build_signature_block(image + 4096, digest, 2);
	assert_refused(inspect_auto(CHIP_ESP32_C3, len), "what follows is no signature");
	/* P-384 signs a SHA-384: only its form is looked at. */
	len = build_sign_v2(image, app, 0, 0);
	build_signature_block(image + 4096, digest, 3);
	image[4096 + 36] = 3;
	build_le32(image + 4096 + 1196, build_crc_zlib(image + 4096, 1196));
	assert_int_equal(inspect_auto(CHIP_ESP32_C3, len), OTA_OK);
}

static void test_signature_esp8266(void **state)
{
	size_t len = build_esp8266_arduino(image, true);

	(void)state;
	memset(image + len, 0x77, 256);
	build_le32(image + len + 256, 256);
	assert_int_equal(inspect_auto(CHIP_ESP8266, len + 260), OTA_OK);
	assert_true(info.signed_block);
	build_le32(image + len + 256, 255);
	assert_refused(inspect_auto(CHIP_ESP8266, len + 260), "what follows is no signature");
	assert_refused(inspect_auto(CHIP_ESP8266, len + 3), "what follows is no signature");
	memset(image + len, 0, 4);
	assert_refused(inspect_auto(CHIP_ESP8266, len + 4), "what follows is no signature");
}

/* An old core's code where newer ones keep length and CRC, with an XOR of zero: right both ways. */
static void test_esp8266_ambiguous_info(void **state)
{
	size_t len = build_esp8266_arduino(image, false);

	(void)state;
	memset(image + 0x1010, 0x21, 8);
	build_close(image, len - 1, build_checksum(image, 0x1008, 3));
	assert_int_equal(inspect_auto(CHIP_ESP8266, len), OTA_OK);
	build_le32(image + 0x1010, (uint32_t)len);
	build_le32(image + 0x1014, (uint32_t)len);
	build_close(image, len - 1, build_checksum(image, 0x1008, 3));
	assert_refused(inspect_auto(CHIP_ESP8266, len), "its CRC-32 is");
}

static void test_esp8266_damaged(void **state)
{
	size_t len = build_esp8266_arduino(image, true);

	(void)state;
	image[0x1000] = 0xAA;
	assert_refused(inspect_auto(CHIP_ESP8266, len), "the application begins with 0xAA");
	len = build_esp8266_arduino(image, true);
	image[0x1011] ^= 1;
	assert_refused(inspect_auto(CHIP_ESP8266, len), "its segments say");
	len = build_esp8266_arduino(image, true);
	image[0x900] ^= 1; /* the fill between the parts */
	assert_refused(inspect_auto(CHIP_ESP8266, len), "its CRC-32 is");
	len = build_esp8266_v2(image, false);
	build_le32(image + 12, 0xFFFFFFFFu);
	assert_refused(inspect_auto(CHIP_ESP8266, len), "the limit is 16 MiB");
	len = build_esp8266_v2(image, false);
	build_le32(image + 16 + 160 + 8, 0x3F400020u);
	assert_refused(inspect_auto(CHIP_ESP8266, len), "where the chip has no memory");
}

static void test_mistakes(void **state)
{
	static const struct {
		const char *data;
		size_t len;
		bool esp_only; /* a model without a chip takes it */
		const char *sentence;
	} cases[] = {
		{BYTES("\xAA\x50\x01\x02"), false,
		 "this is a partition table, upload firmware.bin"},
		{BYTES("\x7F"
		       "ELF\x01\x01\x01"),
		 false, "this is an ELF file"},
		{BYTES("UF2\nWQ]\x9E"), false, "this is a UF2 file"},
		{BYTES("<!doctype html><title>404</title>"), false, "this is a web page"},
		{BYTES("\xEF\xBB\xBF\r\n <html>"), false, "this is a web page"},
		{BYTES("<?xml version='1.0'?><Error/>"), false, "this is a web page"},
		{BYTES("version https://git-lfs.github.com/spec/v1\n"), false, "Git LFS"},
		{BYTES("\xFF"), false, "every byte is 0xFF"},
		{BYTES("\0\0\0"), false, "every byte is 0x00"},
		{BYTES("\x1F\x8B\x08\0\0"), true, "compressed with gzip"},
		{BYTES("PK\x03\x04..."), true, "this is a zip archive"},
		{BYTES("\1\0\0\0\xF0\x0F\xFF\xF7littlefs/\xE0"), true,
		 "file system image (LittleFS)"},
		{BYTES(":10000000"), true, "this is an Intel HEX file"},
		{BYTES("{\"detail\":\"Not found\"}"), true,
		 "this is no ESP32 image, which the model "
		 "the-model needs: the first byte is 0x7B"},
		{BYTES("\xEA\x05"), true, "the first byte is 0xEA"},
		{BYTES("\xFF\x00"), true, "the first byte is 0xFF"},
		{BYTES("\xEF\xBB"), true, "the first byte is 0xEF"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		const char *data = cases[i].data;
		size_t len = cases[i].len;

		assert_refused(inspect_as(IMAGE_AUTO, CHIP_ESP32, data, len), cases[i].sentence);
		assert_int_equal(inspect_as(IMAGE_ESP, CHIP_NONE, data, len), OTA_EUNPROCESSABLE);
		enum ota_code code = inspect_as(IMAGE_AUTO, CHIP_NONE, data, len);
		if (!cases[i].esp_only) {
			assert_refused(code, cases[i].sentence);
		} else {
			assert_int_equal(code, OTA_OK);
			assert_false(info.is_esp);
			assert_string_equal(info.layout, "raw");
			assert_int_equal(info.min_chip_rev, -1);
		}
		for (int chip = CHIP_NONE; chip < CHIP_COUNT; chip++)
			assert_int_equal(inspect_as(IMAGE_RAW, (enum chip)chip, data, len), OTA_OK);
	}
}

static void test_merged(void **state)
{
	size_t size = 0x8002;
	uint8_t *flash = malloc(size);
	struct image_spec spec = {.without_desc = true, .chip_id = 9};

	(void)state;
	assert_non_null(flash);
	memset(flash, 0xFF, size);
	flash[0x2000] = 0xE9;
	assert_refused(inspect_as(IMAGE_AUTO, CHIP_NONE, flash, size),
		       "this is a merged flash image");
	assert_refused(inspect_as(IMAGE_AUTO, CHIP_ESP32_C5, flash, 0x2001), "merged flash image");
	flash[0x2000] = 0xFF;
	assert_refused(inspect_as(IMAGE_AUTO, CHIP_NONE, flash, size), "every byte is 0xFF");
	flash[0x8000] = 0xAA;
	flash[0x8001] = 0x50;
	assert_refused(inspect_as(IMAGE_AUTO, CHIP_ESP32, flash, size), "merged flash image");
	build_esp32(flash, &spec); /* chips whose bootloader stands at 0 */
	assert_refused(inspect_as(IMAGE_AUTO, CHIP_ESP32_S3, flash, size), "merged flash image");
	free(flash);
}

static void test_empty_and_gzip(void **state)
{
	static const enum image_type types[] = {IMAGE_AUTO, IMAGE_ESP, IMAGE_RAW};

	(void)state;
	for (size_t i = 0; i < 3; i++)
		for (int chip = CHIP_NONE; chip < CHIP_COUNT; chip++)
			assert_refused(inspect_as(types[i], (enum chip)chip, "", 0),
				       "the file is empty");
	assert_int_equal(inspect_as(IMAGE_AUTO, CHIP_ESP8266, "\x1F\x8B\x08", 3), OTA_OK);
	assert_false(info.is_esp);
	assert_string_equal(info.layout, "gzip");
	assert_non_null(strstr(info.note, "not checked"));
	assert_refused(inspect_as(IMAGE_ESP, CHIP_ESP8266, "\x1F\x8B\x08", 3), "gzip");
}

/* A disk error is nobody's bad image, wherever it strikes, and leaves the output alone. */
static void test_read_errors(void **state)
{
	struct image_info untouched;

	(void)state;
	memset(&untouched, 0x5C, sizeof untouched);
	for (int kind = 0; kind < 5; kind++) {
		size_t len = kind == 0   ? build_sign_v2(image, build_example(5), 1, 2)
			     : kind == 1 ? build_esp8266_arduino(image, true)
			     : kind == 2 ? build_esp8266_v2(image, true)
			     : kind == 3
				     ? build_sign_v2(image, 0, 0, 0) /* blank */
				     : build_esp32(image, &(struct image_spec){.without_desc = 1});
		int failed = 0;

		for (int nth = 0;; nth++) {
			struct memory_source m = {image, len, nth, 0, 0};
			struct image_source src = {&m, memory_read, len};
			struct image_info out = untouched;
			enum ota_code code =
				image_inspect(&src, IMAGE_AUTO, "m", CHIP_NONE, &out, &err);

			if (m.fail_in >= 0) /* never got that far */
				break;
			assert_int_equal(code, OTA_EIO);
			assert_memory_equal(&out, &untouched, sizeof out);
			failed++;
		}
		assert_true(failed >= 3);
	}
}

static void write_file(const char *folder, const char *name, size_t len)
{
	char path[512];

	snprintf(path, sizeof path, "%s/%s", folder, name);
	FILE *out = fopen(path, "wb");
	if (!out || fwrite(image, 1, len, out) != len || fclose(out) != 0) {
		perror(path);
		exit(1);
	}
}

/* The seeds of tests/fuzz/corpus/image: one small file of each form that is accepted. */
static int write_corpus(const char *folder)
{
	size_t len;

	write_file(folder, "esp32", build_example(0));
	write_file(folder, "esp32s3", build_example(9));
	len = build_example(0);
	memset(image + len, 0, 68);
	memset(image + len + 4, 0x5A, 64);
	write_file(folder, "esp32-signed-v1", len + 68);
	write_file(folder, "esp32c3-signed-v2", build_sign_v2(image, build_example(5), 2, 2));
	write_file(folder, "esp8266-arduino", build_esp8266_arduino(image, true));
	write_file(folder, "esp8266-arduino-old", build_esp8266_arduino(image, false));
	write_file(folder, "esp8266-v2", build_esp8266_v2(image, false));
	write_file(folder, "esp8266-v2-crc", build_esp8266_v2(image, true));
	write_file(folder, "bootloader",
		   build_esp32(image, &(struct image_spec){.without_desc = true}));
	memcpy(image, "<html>", 6);
	write_file(folder, "html", 6);
	memset(image, 0xFF, 600);
	write_file(folder, "blank", 600);
	return 0;
}

/* With `--corpus FOLDER` it writes the fuzzer's seeds instead of testing. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_chip_names),
		cmocka_unit_test(test_chip_numbers),
		cmocka_unit_test(test_esp32_fields),
		cmocka_unit_test(test_esp32_odd_fields),
		cmocka_unit_test(test_esp8266_accepted),
		cmocka_unit_test(test_cut_at_every_length),
		cmocka_unit_test(test_cut_says_where),
		cmocka_unit_test(test_every_bit_flipped),
		cmocka_unit_test(test_esp32_header_fields),
		cmocka_unit_test(test_wrong_chip),
		cmocka_unit_test(test_bootloaders),
		cmocka_unit_test(test_trailing_bytes),
		cmocka_unit_test(test_signature_v1),
		cmocka_unit_test(test_signature_v2),
		cmocka_unit_test(test_signature_esp8266),
		cmocka_unit_test(test_esp8266_ambiguous_info),
		cmocka_unit_test(test_esp8266_damaged),
		cmocka_unit_test(test_mistakes),
		cmocka_unit_test(test_merged),
		cmocka_unit_test(test_empty_and_gzip),
		cmocka_unit_test(test_read_errors),
	};

	if (argc == 3 && strcmp(argv[1], "--corpus") == 0)
		return write_corpus(argv[2]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
