/* SPDX-License-Identifier: MIT */
/*
 * Input: a Content-Type, a line feed, a body.  Two promises are held against every input: how a
 * body is cut into chunks changes nothing, and what is sent as a part's data comes out as it went
 * in.
 */
#include "http/parse/multipart.h"
#include "base/buf.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum ota_code trace_begin(void *arg, const char *name, const char *filename,
				 const char *content_type, struct ota_err *err)
{
	(void)err;
	buf_printf(arg, "<%s|%s|%s>", name, filename ? filename : "", content_type);
	return OTA_OK;
}

static enum ota_code trace_data(void *arg, const void *data, size_t len, struct ota_err *err)
{
	(void)err;
	if (len == 0)
		abort();
	buf_add(arg, data, len);
	return OTA_OK;
}

static enum ota_code trace_end(void *arg, struct ota_err *err)
{
	(void)err;
	buf_adds(arg, "</>");
	return OTA_OK;
}

static const struct multipart_ops OPS = {trace_begin, trace_data, trace_end};

/* Feeds BODY in chunks whose sizes come from SEED (0: all at once), writes down what happened. */
static void run(const char *boundary, const uint8_t *body, size_t len, unsigned seed,
		struct buf *trace)
{
	struct multipart *m = malloc(sizeof *m);
	struct ota_err err = {0};
	enum ota_code code = OTA_OK;

	if (!m)
		abort();
	multipart_init(m, boundary, &OPS, trace);
	for (size_t i = 0; i < len && code == OTA_OK;) {
		seed = seed * 1103515245u + 12345u;
		size_t n = seed % 2 && seed != 12345u ? 1 : 1 + (seed >> 8) % 37;
		if (trace->cap == 0 || n > len - i)
			n = len - i;
		code = multipart_feed(m, body + i, n, &err);
		i += n;
	}
	if (code == OTA_OK)
		code = multipart_finish(m, &err);
	if (code != OTA_OK && err.msg[0] == '\0')
		abort();
	buf_printf(trace, "[%d %s]", (int)code, err.msg);
	free(m);
}

static void same_in_any_chunks(const char *boundary, const uint8_t *body, size_t len)
{
	struct buf whole = BUF_INIT, cut = BUF_INIT;

	run(boundary, body, len, 0, &whole); /* an empty trace: one chunk */
	for (unsigned seed = 1; seed <= 3; seed++) {
		buf_reset(&cut);
		buf_reserve(&cut, 1);
		run(boundary, body, len, seed, &cut);
		if (cut.len != whole.len || memcmp(cut.data, whole.data, cut.len) != 0)
			abort();
	}
	buf_fini(&whole);
	buf_fini(&cut);
}

static void comes_out_as_sent(const char *boundary, const uint8_t *data, size_t len, bool lf)
{
	const char *eol = lf ? "\n" : "\r\n";
	struct buf body = BUF_INIT, trace = BUF_INIT, delimiter = BUF_INIT, expected = BUF_INIT;

	buf_printf(&delimiter, "%s--%s", eol, boundary);
	size_t skip = strlen(eol);
	bool begins = len >= delimiter.len - skip &&
		      memcmp(data, delimiter.data + skip, delimiter.len - skip) == 0;
	if (!begins && !memmem(data, len, delimiter.data, delimiter.len)) {
		buf_printf(&body, "--%s%sContent-Disposition: form-data; name=f%s%s", boundary, eol,
			   eol, eol);
		buf_add(&body, data, len);
		buf_printf(&body, "%s--%s--", eol, boundary);
		buf_adds(&expected, "<f||text/plain>");
		buf_add(&expected, data, len);
		buf_adds(&expected, "</>[0 ]");
		buf_reserve(&trace, 1);
		run(boundary, (const uint8_t *)body.data, body.len, 7, &trace);
		if (trace.len != expected.len || memcmp(trace.data, expected.data, trace.len) != 0)
			abort();
	}
	buf_fini(&body);
	buf_fini(&trace);
	buf_fini(&delimiter);
	buf_fini(&expected);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *eol = size ? memchr(data, '\n', size) : NULL;
	char content_type[512], boundary[MULTIPART_MAX_BOUNDARY + 1];
	struct ota_err err = {0};
	size_t n = eol ? (size_t)(eol - data) : 0;

	if (!eol || n >= sizeof content_type)
		return 0;
	memcpy(content_type, data, n);
	content_type[n] = '\0';
	if (multipart_boundary(content_type, boundary, &err) != OTA_OK) {
		if (err.msg[0] == '\0')
			abort();
		strcpy(boundary, "X");
	}
	data += n + 1;
	size -= n + 1;
	same_in_any_chunks(boundary, data, size);
	comes_out_as_sent(boundary, data, size, false);
	comes_out_as_sent(boundary, data, size, true);
	return 0;
}
