/* SPDX-License-Identifier: MIT */
/* base: sentences are cut on character boundaries, JSON is escaped, times are of fixed width. */
#include "base/buf.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/tar.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void err_sentences(void **state)
{
	struct ota_err err = {0};
	char big[1000];

	(void)state;
	assert_int_equal(ota_fail(&err, OTA_ENOTFOUND, "no %s", "x"), OTA_ENOTFOUND);
	assert_int_equal(ota_wrap(&err, "opening"), OTA_ENOTFOUND);
	assert_string_equal(err.msg, "opening: no x");
	memset(big, 'a', sizeof big);
	memcpy(big + sizeof err.msg - 2, "\xC3\xA4", 2); /* torn by the cut */
	big[999] = '\0';
	ota_fail(&err, OTA_EINVAL, "%s", big);
	assert_int_equal(strlen(err.msg), sizeof err.msg - 2);
}

static void json_escapes(void **state)
{
	struct buf b = BUF_INIT;

	(void)state;
	json_open(&b, NULL, '{');
	json_str(&b, "a\"", "x\\\n\x01\xC3\xA4\xFF");
	json_int(&b, "n", -5);
	json_open(&b, "l", '[');
	json_nil(&b, NULL);
	json_bool(&b, NULL, true);
	json_close(&b, ']');
	json_close(&b, '}');
	assert_true(buf_ok(&b));
	assert_string_equal(b.data, "{\"a\\\"\":\"x\\\\\\n\\u0001\xC3\xA4\xEF\xBF\xBD\",\"n\":-5,"
				    "\"l\":[null,true]}");
	buf_fini(&b);
}

static void times(void **state)
{
	char text[TIME_TEXT_SIZE];
	int64_t us;

	(void)state;
	time_format(INT64_C(1764022369123456), text);
	assert_string_equal(text, "2025-11-24T22:12:49.123456Z");
	assert_true(time_parse(text, &us));
	assert_true(us == INT64_C(1764022369123456));
	assert_false(time_parse("2025-11-24T22:12:49Z", &us));
	time_format(-1, text);
	assert_string_equal(text, "1970-01-01T00:00:00.000000Z");
}

/* The thread is held up once it has read a clock. */
static bool held_up;

int __real_clock_gettime(clockid_t clock, struct timespec *ts);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ts);

int __wrap_clock_gettime(clockid_t clock, struct timespec *ts)
{
	int rc = __real_clock_gettime(clock, ts);

	if (held_up) {
		held_up = false;
		usleep(500000);
	}
	return rc;
}

static void times_as_people_write_them(void **state)
{
	static const struct {
		const char *text, *same; /* NULL: not a time */
	} cases[] = {
		{"2027-03-01T02:00:00Z", "2027-03-01T02:00:00.000000Z"},
		{"2027-03-01T02:00Z", "2027-03-01T02:00:00.000000Z"},
		{"2027-03-01 02:00:01.25z", "2027-03-01T02:00:01.250000Z"},
		{"2027-03-01T02:00:00.1234567Z", "2027-03-01T02:00:00.123456Z"},
		{"2027-03-01T02:00:00+02:00", "2027-03-01T00:00:00.000000Z"},
		{"2027-03-01T00:30:00+0200", "2027-02-28T22:30:00.000000Z"},
		{"2026-12-31T23:30-03:30", "2027-01-01T03:00:00.000000Z"},
		{"2028-02-29T00:00:00Z", "2028-02-29T00:00:00.000000Z"},
		{"2027-02-29T00:00:00Z", NULL},
		{"2027-13-01T00:00:00Z", NULL},
		{"2027-00-01T00:00:00Z", NULL},
		{"2027-03-01T24:00:00Z", NULL},
		{"2027-03-01T02:60:00Z", NULL},
		{"2027-03-01T02:00:61Z", NULL},
		{"2027-03-01T02:00:00", NULL},
		{"2027-03-01T02:00:0Z", NULL},
		{"2027-03-01T02:00:00.Z", NULL},
		{"2027-03-01T02:00:00+2", NULL},
		{"2027-03-01T02:00:00+02:0", NULL},
		{"2027-03-01T02:00:00+02:00x", NULL},
		{"2027-03-01T02:00:00+15:00", NULL},
		{"1970-01-01T00:00:00+01:00", NULL}, /* before there is time */
		{"2027-03-01", NULL},
		{"", NULL},
		{"tomorrow, at noon or so", NULL},
		{"2027-03-01T02:00:00.00000000000000000000000000000000000000000000000Z", NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char text[TIME_TEXT_SIZE];
		int64_t us;
		bool ok = time_parse_human(cases[i].text, &us);

		if (ok != (cases[i].same != NULL))
			fail_msg("%s", cases[i].text);
		if (!ok)
			continue;
		time_format(us, text);
		assert_string_equal(text, cases[i].same);
	}
}

static void service_time_keeps_to_the_wall(void **state)
{
	(void)state;
	int64_t ahead = clock_service_us() - clock_wall_us();
	held_up = true;
	(void)clock_service_us();
	assert_false(held_up);
	assert_true(clock_service_us() - clock_wall_us() < ahead + 250000);
}

static void hashes(void **state)
{
	uint8_t d[SHA256_SIZE], back[SHA256_SIZE];
	char hex[SHA256_HEX_SIZE];

	(void)state;
	assert_true(sha256_once("abc", 3, d)); /* FIPS 180-4, example 1 */
	hex_encode(d, sizeof d, hex);
	assert_string_equal(hex,
			    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	assert_true(hex_decode(hex, back, sizeof back));
	assert_memory_equal(d, back, sizeof d);
	hex[3] = 'g';
	assert_false(hex_decode(hex, back, sizeof back));
	/* Rollout membership depends on this value: it never changes. */
	assert_true(hash64("esp32_001", 9) == UINT64_C(0x3b970bfd51feb4fe));
}

/* Headers of an archive: sizes on both sides of what the usual field holds. */
static void archive_headers(void **state)
{
	static const uint64_t sizes[] = {
		0, 1, 511, 512, 077777777777, 0100000000000, UINT64_C(1) << 62};
	unsigned char h[TAR_BLOCK];
	char name[TAR_NAME_SIZE];
	uint64_t size;

	(void)state;
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		tar_write_header("paku-ota.db", sizes[i], 1800000000, h);
		assert_int_equal(tar_read_header(h, name, &size), TAR_FILE);
		assert_string_equal(name, "paku-ota.db");
		assert_true(size == sizes[i]);
		assert_int_equal((sizes[i] + tar_padding(sizes[i])) % TAR_BLOCK, 0);
		for (int at = 0; at < TAR_BLOCK; at++) {
			h[at] ^= 1; /* any byte but the one behind the sum's end */
			assert_true(at == 155 || tar_read_header(h, name, &size) == TAR_BROKEN);
			h[at] ^= 1;
		}
	}
	memset(h, 0, sizeof h);
	assert_int_equal(tar_read_header(h, name, &size), TAR_END);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(err_sentences),
		cmocka_unit_test(json_escapes),
		cmocka_unit_test(times),
		cmocka_unit_test(times_as_people_write_them),
		cmocka_unit_test(service_time_keeps_to_the_wall),
		cmocka_unit_test(archive_headers),
		cmocka_unit_test(hashes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
