/* SPDX-License-Identifier: MIT */
/* http/parse/multipart: every cut into chunks gives the same parts, and data comes out as it went
 * in. */
#include "http/parse/multipart.h"
#include "base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SEEN 40

struct seen_part {
	char name[256], filename[256], content_type[128];
	bool has_filename, ended;
	struct buf data;
};

struct seen {
	size_t count;
	int refuse_at; /* which callback, counted from 1, says no; 0: none */
	int calls;
	struct seen_part parts[MAX_SEEN];
};

static enum ota_code maybe_refuse(struct seen *s, struct ota_err *err)
{
	if (++s->calls == s->refuse_at)
		return ota_fail(err, OTA_ECONFLICT, "stopped by the caller");
	return OTA_OK;
}

static enum ota_code on_begin(void *arg, const char *name, const char *filename,
			      const char *content_type, struct ota_err *err)
{
	struct seen *s = arg;
	struct seen_part *p = &s->parts[s->count++];

	assert_in_range(s->count, 1, MAX_SEEN);
	snprintf(p->name, sizeof p->name, "%s", name);
	snprintf(p->filename, sizeof p->filename, "%s", filename ? filename : "");
	snprintf(p->content_type, sizeof p->content_type, "%s", content_type);
	p->has_filename = filename != NULL;
	return maybe_refuse(s, err);
}

static enum ota_code on_data(void *arg, const void *data, size_t len, struct ota_err *err)
{
	struct seen *s = arg;

	assert_true(s->count > 0 && !s->parts[s->count - 1].ended && len > 0);
	buf_add(&s->parts[s->count - 1].data, data, len);
	return maybe_refuse(s, err);
}

static enum ota_code on_end(void *arg, struct ota_err *err)
{
	struct seen *s = arg;

	assert_true(s->count > 0 && !s->parts[s->count - 1].ended);
	s->parts[s->count - 1].ended = true;
	return maybe_refuse(s, err);
}

static const struct multipart_ops OPS = {on_begin, on_data, on_end};
static struct multipart parser; /* one program, one test at a time */
static struct seen seen;

static void forget(void)
{
	for (size_t i = 0; i < MAX_SEEN; i++)
		buf_fini(&seen.parts[i].data);
	seen = (struct seen){0};
}

/* A chunk in memory of its own, so that a look past its end finds nothing good. */
static enum ota_code feed_copy(const char *data, size_t len, struct ota_err *err)
{
	char *copy = malloc(len ? len : 1);

	assert_non_null(copy);
	memcpy(copy, data, len);
	enum ota_code code = multipart_feed(&parser, copy, len, err);
	free(copy);
	return code;
}

/* Feeds [0,cut) and [cut,len). */
static enum ota_code feed_cut(const char *boundary, const char *body, size_t len, size_t cut,
			      struct ota_err *err)
{
	forget();
	multipart_init(&parser, boundary, &OPS, &seen);
	enum ota_code code = feed_copy(body, cut, err);
	if (!code)
		code = feed_copy(body + cut, len - cut, err);
	return code ? code : multipart_finish(&parser, err);
}

static enum ota_code feed_bytes(const char *boundary, const char *body, size_t len,
				struct ota_err *err)
{
	enum ota_code code = OTA_OK;

	forget();
	multipart_init(&parser, boundary, &OPS, &seen);
	for (size_t i = 0; i < len && !code; i++)
		code = feed_copy(body + i, 1, err);
	return code ? code : multipart_finish(&parser, err);
}

static void expect_part(size_t i, const char *name, const char *filename, const char *data,
			size_t len)
{
	const struct seen_part *p = &seen.parts[i];

	assert_true(i < seen.count && p->ended);
	assert_string_equal(p->name, name);
	assert_int_equal(p->has_filename, filename != NULL);
	if (filename)
		assert_string_equal(p->filename, filename);
	assert_int_equal(p->data.len, len);
	if (len)
		assert_memory_equal(p->data.data, data, len);
}

/* One file part of the body in every way it can be cut in two, and byte by byte. */
static void one_part_any_cut(const char *body, const char *name, const char *filename,
			     const char *data)
{
	struct ota_err err = {0};
	size_t len = strlen(body);

	for (size_t cut = 0; cut <= len; cut++) {
		if (feed_cut("X", body, len, cut, &err) != OTA_OK)
			fail_msg("cut at %zu: %s", cut, err.msg);
		assert_int_equal(seen.count, 1);
		expect_part(0, name, filename, data, strlen(data));
	}
	assert_int_equal(feed_bytes("X", body, len, &err), OTA_OK);
	expect_part(0, name, filename, data, strlen(data));
}

#define HEAD "--X\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n"

static void lookalikes_are_data(void **state)
{
	static const char *const data[] = {
		"",
		"a",
		"\r",
		"\n",
		"\r\n",
		"\r\n\r\n",
		"\r\n-",
		"\r\n--",
		"\r\n--Y",
		"\r\n--XY",
		"\r\n--X-Y",
		"\r\n--X--Y",
		"\r\r\n-",
		"\r\n\r\n--",
		"\r\n--X \t x",
		"\r\n--X \r",
		"\r\n--X\r\r",
		"\r\n--X--\rx",
		"\n--X",
		"\n--X--\n",
		"\n--X\r\nabc",
		"--XY",
		"-",
		"--",
		"\r\n--X--\r \nab",
		"\r\n--X--\r\r\n",
		"\r\n--X--\t-",
		"--X--x",
		"x--X\r\n",
		"\r\n--\r\n--",
		"\r\n--X\r\r\n-",
		"a\r\n--x\r\nb",
	};

	(void)state;
	for (size_t i = 0; i < sizeof data / sizeof *data; i++) {
		char body[300];
		snprintf(body, sizeof body, HEAD "%s\r\n--X--\r\n", data[i]);
		one_part_any_cut(body, "f", NULL, data[i]);
	}
}

static void lf_style(void **state)
{
	static const char *const data[] = {"",      "a",   "\r",       "\n",       "\r\n",   "\n--",
					   "\n--Y", "\n-", "\r\n--XY", "\n--X--a", "\r\n-\n"};

	(void)state;
	for (size_t i = 0; i < sizeof data / sizeof *data; i++) {
		char body[300];
		snprintf(body, sizeof body,
			 "--X\nContent-Disposition: form-data; name=f\n\n%s\n--X--", data[i]);
		one_part_any_cut(body, "f", NULL, data[i]);
	}
}

static void other_shapes(void **state)
{
	(void)state;
	one_part_any_cut(
		"preamble\r\n--XY\n--\r\n--X\t \r\n"
		"Content-Disposition: form-data; name=f\r\n\r\nd\r\n--X-- \t\r\nepi\r\n--X\r\n",
		"f", NULL, "d");
	one_part_any_cut(HEAD "d\r\n--X--", "f", NULL, "d");
	one_part_any_cut(HEAD "--X--", "f", NULL, ""); /* no line break of its own */
	one_part_any_cut(
		"--X\r\nX-Other: 1\r\ncontent-disposition:form-data;filename=\"a\\\"b.bin\""
		";name=f\r\nContent-type: a/b\r\n\r\nd\r\n--X--\r\n",
		"f", "a\"b.bin", "d");
	assert_string_equal(seen.parts[0].content_type, "a/b");
	one_part_any_cut("--X\r\nContent-Disposition: form-data;\r\n\tname=\"a b\" ; \r\n"
			 " filename*=utf-8''f%C3%BCr%20x ; filename=\"y\"\r\n\r\nd\r\n--X--\r\n",
			 "a b", "f\xC3\xBCr x", "d");
	assert_string_equal(seen.parts[0].content_type, "text/plain");
	one_part_any_cut("--X\r\nContent-Disposition: form-data; name=f; filename*=latin1''%FC; "
			 "filename=\"C:\\tmp\\x.bin\"\r\n\r\nd\r\n--X--\r\n",
			 "f", "C:\\tmp\\x.bin", "d");
	one_part_any_cut("--X\r\nContent-Disposition: form-data; x=\"; name=no\"; name=f; "
			 "filename=\"\"\r\n\r\nd\r\n--X--\r\n",
			 "f", "", "d");
	/* An extended name that cannot be decoded counts as none. */
	static const char *const broken[] = {"utf-8''%4", "utf-8''%zz", "utf-8''a%0Ab", "utf-8'x",
					     "latin''x"};
	for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
		char body[300];
		snprintf(body, sizeof body,
			 "--X\r\nContent-Disposition: form-data; name=f; flag; filename*=%s; "
			 "filename=b \r\nContent-Transfer-Encoding: Binary \r\n\r\nd\r\n--X--\r\n",
			 broken[i]);
		one_part_any_cut(body, "f", "b", "d");
	}
}

static void refused(const char *body, enum ota_code code, const char *says)
{
	struct ota_err err = {0};

	for (size_t cut = 0; cut <= strlen(body); cut++) {
		assert_int_equal(feed_cut("X", body, strlen(body), cut, &err), code);
		if (!strstr(err.msg, says))
			fail_msg("\"%s\" does not say \"%s\"", err.msg, says);
	}
	/* It stays refused. */
	err = (struct ota_err){0};
	assert_int_equal(multipart_feed(&parser, "x", 1, &err), code);
	assert_non_null(strstr(err.msg, says));
	assert_int_equal(multipart_finish(&parser, &err), code);
}

static void refusals(void **state)
{
	(void)state;
	refused("", OTA_EINVAL, "the body was cut off: it has no line with the boundary");
	refused("--Y\r\nabc\r\n--Y--", OTA_EINVAL, "the body was cut off");
	refused("--X", OTA_EINVAL, "the body was cut off");
	refused("--X\r\nContent-Dis", OTA_EINVAL,
		"the body was cut off: it ends inside the headers");
	refused(HEAD "abc", OTA_EINVAL, "the body was cut off: its closing boundary is missing");
	refused(HEAD "abc\r\n--X", OTA_EINVAL, "the body was cut off");
	refused(HEAD "abc\r\n--X-", OTA_EINVAL, "the body was cut off");
	refused(HEAD "abc\r\n--X--z", OTA_EINVAL, "the body was cut off");
	refused("--X\r\n\r\nabc\r\n--X--", OTA_EINVAL, "part 1 has no name");
	refused("--X\r\nContent-Disposition: form-data\r\n\r\nabc\r\n--X--", OTA_EINVAL,
		"part 1 has no name");
	refused("--X\r\nnonsense\r\n\r\n", OTA_EINVAL, "part 1 has a header line without a colon");
	refused(HEAD "a\r\n--X\r\nContent-Disposition: x; name=a\r\nContent-Disposition: x; name=b"
		     "\r\n\r\n",
		OTA_EINVAL, "part 2 has two Content-Disposition");
	refused("--X\r\nContent-Disposition: x; name=a\r\nContent-Transfer-Encoding: "
		"base64\r\n\r\n",
		OTA_EINVAL, "transfer encoding \"base64\"");
}

static void limits(void **state)
{
	struct buf body = BUF_INIT;
	struct ota_err err = {0};
	char name[300];

	(void)state;
	for (int parts = 32; parts <= 33; parts++) {
		buf_reset(&body);
		for (int i = 0; i < parts; i++)
			buf_printf(&body, HEAD "%d\r\n", i);
		buf_adds(&body, "--X--");
		assert_int_equal(feed_cut("X", body.data, body.len, 5, &err),
				 parts == 32 ? OTA_OK : OTA_ETOOLARGE);
	}
	assert_non_null(strstr(err.msg, "more than 32 parts"));

	for (size_t total = MULTIPART_MAX_HEADERS; total <= MULTIPART_MAX_HEADERS + 1; total++) {
		buf_reset(&body);
		buf_adds(&body, "--X\r\nContent-Disposition: x; name=a\r\nFiller: ");
		while (body.len < 5 + total - 4)
			buf_addc(&body, 'x');
		buf_adds(&body, "\r\n\r\n\r\n--X--");
		assert_int_equal(feed_cut("X", body.data, body.len, 5, &err),
				 total == MULTIPART_MAX_HEADERS ? OTA_OK : OTA_ETOOLARGE);
	}
	assert_non_null(strstr(err.msg, "larger than 8192 bytes"));

	memset(name, 'n', sizeof name - 1);
	name[sizeof name - 1] = '\0';
	buf_reset(&body);
	buf_printf(&body, "--X\r\nContent-Disposition: x; name=%s\r\n\r\n", name);
	assert_int_equal(feed_bytes("X", body.data, body.len, &err), OTA_ETOOLARGE);
	buf_reset(&body);
	buf_printf(&body, "--X\r\nContent-Disposition: x; name=a; filename=%s%s%s%s\r\n\r\n", name,
		   name, name, name);
	assert_int_equal(feed_bytes("X", body.data, body.len, &err), OTA_ETOOLARGE);
	assert_int_equal(feed_bytes("X", "--X\r\nA\0: b\r\n", 13, &err), OTA_EINVAL);
	assert_non_null(strstr(err.msg, "NUL byte"));

	/* White space after a boundary: 128 bytes are padding, more of it is data. */
	for (size_t spaces = 128; spaces <= 129; spaces++) {
		buf_reset(&body);
		buf_printf(&body, HEAD "d\r\n--X%*s\r\n\r\n--X--", (int)spaces, "");
		enum ota_code code = feed_bytes("X", body.data, body.len, &err);
		assert_int_equal(code, spaces == 128 ? OTA_EINVAL : OTA_OK);
		if (spaces == 129)
			assert_int_equal(seen.parts[0].data.len, 1 + 5 + 129 + 2);
	}
	buf_fini(&body);
}

static void boundaries(void **state)
{
	static const char *const good[][2] = {
		{"multipart/form-data; boundary=abc", "abc"},
		{"Multipart/FORM-data;boundary=\"a b;c\\\"d\"; charset=x", "a b;c\"d"},
		{"multipart/form-data; charset=\"; boundary=no\"; BOUNDARY = a:/?=b ; x=y",
		 "a:/?=b"},
		{"multipart/form-data; boundary=\"(')+_,-./:=?  \"", "(')+_,-./:=?"},
	};
	static const char *const bad[][2] = {
		{"multipart/form-data", "names no boundary"},
		{"multipart/form-data; boundary=", "names no boundary"},
		{"multipart/form-data; boundary=\"  \"", "names no boundary"},
		{"multipart/form-data; xboundary=a", "names no boundary"},
		{"multipart/mixed; boundary=a", "must be multipart/form-data"},
		{"application/octet-stream", "not \"application/octet-stream\""},
		{"multipart/form-data; boundary=a\x01", "control character"},
		{"", "must be multipart/form-data"},
	};
	char out[MULTIPART_MAX_BOUNDARY + 1], big[260];
	struct ota_err err = {0};

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		assert_int_equal(multipart_boundary(good[i][0], out, &err), OTA_OK);
		assert_string_equal(out, good[i][1]);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_int_equal(multipart_boundary(bad[i][0], out, &err), OTA_EINVAL);
		if (!strstr(err.msg, bad[i][1]))
			fail_msg("\"%s\" does not say \"%s\"", err.msg, bad[i][1]);
	}
	assert_int_equal(multipart_boundary(NULL, out, &err), OTA_EINVAL);
	assert_non_null(strstr(err.msg, "no Content-Type"));
	for (int n = 200; n <= 201; n++) {
		snprintf(big, sizeof big, "multipart/form-data; boundary=%0*d", n, 0);
		assert_int_equal(multipart_boundary(big, out, &err),
				 n == 200 ? OTA_OK : OTA_EINVAL);
	}
	assert_int_equal(strlen(out), 200);
}

static void a_callback_stops_it(void **state)
{
	const char *body = HEAD "abc\r\n--X--";
	struct ota_err err = {0};

	(void)state;
	for (int at = 1; at <= 3; at++) {
		forget();
		seen.refuse_at = at;
		multipart_init(&parser, "X", &OPS, &seen);
		assert_int_equal(multipart_feed(&parser, body, strlen(body), &err),
				 at < 3 ? OTA_ECONFLICT : OTA_OK);
		assert_int_equal(multipart_finish(&parser, &err), OTA_ECONFLICT);
		assert_string_equal(err.msg, "stopped by the caller");
		assert_int_equal(seen.calls, at); /* and is not called again */
	}
}

static unsigned next_random(unsigned *seed)
{
	*seed = *seed * 1103515245u + 12345u;
	return *seed >> 16;
}

/* Random data made of the bytes that delimiters are made of, cut at random places. */
static void random_parts(void **state)
{
	static const char alphabet[] = {'\r', '\n', '-', '-', 'B', 'b', ' ', '\0'};
	struct ota_err err = {0};
	unsigned seed = 20261123;

	(void)state;
	for (int round = 0; round < 3000; round++) {
		struct buf body = BUF_INIT, sent[3] = {BUF_INIT, BUF_INIT, BUF_INIT};
		const char *eol = round % 3 ? "\r\n" : "\n",
			   *end = round % 3 ? "\r\n--Bb" : "\n--Bb";
		for (int i = 0; i < 3; i++) {
			size_t n = next_random(&seed) % 40;
			buf_reserve(&sent[i], n);
			do {
				buf_reset(&sent[i]);
				for (size_t k = 0; k < n; k++)
					buf_addc(&sent[i], alphabet[next_random(&seed) % 8]);
			} while (n >= 4 && (memmem(sent[i].data, n, end, strlen(end)) ||
					    memcmp(sent[i].data, "--Bb", 4) == 0));
			buf_printf(&body, "%s--Bb%sContent-Disposition: form-data; name=p%d%s%s",
				   eol, eol, i, eol, eol);
			buf_add(&body, sent[i].data, sent[i].len);
		}
		buf_printf(&body, "%s--Bb--%s", eol, eol);
		forget();
		multipart_init(&parser, "Bb", &OPS, &seen);
		for (size_t i = 0; i < body.len;) {
			size_t n = 1 + next_random(&seed) % 9;
			n = n > body.len - i ? body.len - i : n;
			assert_int_equal(multipart_feed(&parser, body.data + i, n, &err), OTA_OK);
			i += n;
		}
		assert_int_equal(multipart_finish(&parser, &err), OTA_OK);
		assert_int_equal(seen.count, 3);
		for (int i = 0; i < 3; i++) {
			expect_part((size_t)i, (const char *[]){"p0", "p1", "p2"}[i], NULL,
				    sent[i].data, sent[i].len);
			buf_fini(&sent[i]);
		}
		buf_fini(&body);
	}
}

/* A whole image in one chunk comes out in few pieces, though every 100th byte is a CR. */
static void large_pieces(void **state)
{
	struct buf body = BUF_INIT;
	struct ota_err err = {0};

	(void)state;
	buf_adds(&body, HEAD);
	for (int i = 0; i < 100000; i++)
		buf_addc(&body, i % 100 ? 'x' : '\r');
	buf_adds(&body, "\r\n--X--");
	assert_int_equal(feed_cut("X", body.data, body.len, 0, &err), OTA_OK);
	assert_int_equal(seen.parts[0].data.len, 100000);
	assert_int_equal(seen.calls, 3);
	buf_fini(&body);
}

/* Bodies as real clients made them; a Content-Type line, then the body as it was on the wire. */
static void real_clients(void **state)
{
	static const struct {
		const char *path, *filename;
		size_t parts, file_at;
	} clients[] = {
		{"curl", "firmware.bin", 3, 1},
		{"curl_quote", "a%22b\\c.bin", 1, 0},
		{"requests", "firmware.bin", 3, 2},
		{"requests_utf8", "f\xC3\xBCr %22x%22.bin", 1, 0},
		{"go", "firmware.bin", 2, 1},
		{"bare_lf", "firmware.bin", 1, 0},
		{"odd", "f\xC3\xBCr.bin", 1, 0},
	};
	static char raw[4096], image[4096];
	size_t image_len = 0;

	(void)state;
	for (size_t i = 0; i < sizeof clients / sizeof *clients; i++) {
		char path[200], boundary[MULTIPART_MAX_BOUNDARY + 1];
		struct ota_err err = {0};
		snprintf(path, sizeof path, "tests/fuzz/corpus/multipart/%s", clients[i].path);
		FILE *f = fopen(path, "rb");
		assert_non_null(f);
		size_t n = fread(raw, 1, sizeof raw, f);
		fclose(f);
		char *eol = memchr(raw, '\n', n);
		assert_non_null(eol);
		*eol++ = '\0';
		n -= (size_t)(eol - raw);
		assert_int_equal(multipart_boundary(raw, boundary, &err), OTA_OK);
		for (size_t cut = 0; cut <= n; cut++) {
			if (feed_cut(boundary, eol, n, cut, &err) != OTA_OK)
				fail_msg("%s: %s", path, err.msg);
			assert_int_equal(seen.count, clients[i].parts);
			const struct seen_part *p = &seen.parts[clients[i].file_at];
			/* All of them sent the same image. */
			if (image_len == 0) {
				image_len = p->data.len;
				memcpy(image, p->data.data, image_len);
				assert_true(image_len > 400 && (unsigned char)image[0] == 0xE9);
			}
			expect_part(clients[i].file_at, "file", clients[i].filename, image,
				    image_len);
		}
	}
}

static int tidy(void **state)
{
	(void)state;
	forget();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lookalikes_are_data),
		cmocka_unit_test(lf_style),
		cmocka_unit_test(other_shapes),
		cmocka_unit_test(refusals),
		cmocka_unit_test(limits),
		cmocka_unit_test(boundaries),
		cmocka_unit_test(a_callback_stops_it),
		cmocka_unit_test(random_parts),
		cmocka_unit_test(large_pieces),
		cmocka_unit_test(real_clients),
	};
	return cmocka_run_group_tests_name("parse_multipart", tests, NULL, tidy);
}
