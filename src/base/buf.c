/* SPDX-License-Identifier: MIT */
#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_fini(struct buf *b)
{
	free(b->data);
	*b = BUF_INIT;
}

void buf_reset(struct buf *b)
{
	b->len = 0;
	b->failed = false;
	if (b->data)
		b->data[0] = '\0';
}

static void buf_fail(struct buf *b)
{
	free(b->data);
	*b = (struct buf){.failed = true};
}

bool buf_reserve(struct buf *b, size_t more)
{
	if (b->failed)
		return false;
	if (more < SIZE_MAX / 4 && b->len + more + 1 <= b->cap)
		return true;
	if (more >= SIZE_MAX / 4 || b->len >= SIZE_MAX / 4) {
		buf_fail(b);
		return false;
	}
	size_t cap = b->cap ? b->cap : 128;
	while (cap < b->len + more + 1)
		cap *= 2;
	char *p = realloc(b->data, cap);
	if (!p) {
		buf_fail(b);
		return false;
	}
	b->data = p;
	b->cap = cap;
	return true;
}

void buf_add(struct buf *b, const void *data, size_t len)
{
	if (!buf_reserve(b, len))
		return;
	if (len)
		memcpy(b->data + b->len, data, len);
	b->len += len;
	b->data[b->len] = '\0';
}

void buf_adds(struct buf *b, const char *s)
{
	buf_add(b, s, strlen(s));
}

void buf_addc(struct buf *b, char c)
{
	if (!buf_reserve(b, 1))
		return;
	b->data[b->len++] = c;
	b->data[b->len] = '\0';
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap, again;

	va_start(ap, fmt);
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		buf_fail(b);
	else if (buf_reserve(b, (size_t)n)) {
		vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
		b->len += (size_t)n;
	}
	va_end(again);
}

char *buf_take(struct buf *b, size_t *len)
{
	if (!buf_reserve(b, 0))
		return NULL;
	char *p = b->data;
	p[b->len] = '\0';
	if (len)
		*len = b->len;
	*b = BUF_INIT;
	return p;
}

/* Length of the valid UTF-8 character at s (RFC 3629: no surrogates, no overlong), 0 if none. */
static size_t utf8_char(const unsigned char *s, size_t n)
{
	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xC2 && s[0] <= 0xDF)
		return n >= 2 && (s[1] & 0xC0) == 0x80 ? 2 : 0;
	if (s[0] >= 0xE0 && s[0] <= 0xEF) {
		if (n < 3 || (s[1] & 0xC0) != 0x80 || (s[2] & 0xC0) != 0x80)
			return 0;
		if ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F))
			return 0;
		return 3;
	}
	if (s[0] >= 0xF0 && s[0] <= 0xF4) {
		if (n < 4 || (s[1] & 0xC0) != 0x80 || (s[2] & 0xC0) != 0x80 ||
		    (s[3] & 0xC0) != 0x80)
			return 0;
		if ((s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] > 0x8F))
			return 0;
		return 4;
	}
	return 0;
}

bool utf8_valid(const char *text, size_t len)
{
	for (size_t i = 0, n; i < len; i += n)
		if ((n = utf8_char((const unsigned char *)text + i, len - i)) == 0)
			return false;
	return true;
}

/* Characters from the beginning that a JSON string holds as they are, and that are ASCII. */
static size_t plain_prefix(const unsigned char *s, size_t len)
{
	size_t i = 0;

	while (i < len && s[i] >= 0x20 && s[i] < 0x80 && s[i] != '"' && s[i] != '\\')
		i++;
	return i;
}

static void add_quoted(struct buf *b, const char *value, size_t len)
{
	const unsigned char *s = (const unsigned char *)value;

	/* Nearly all of them: names, versions, digests, times. */
	if (plain_prefix(s, len) == len && buf_reserve(b, len + 2)) {
		char *to = b->data + b->len;
		*to = '"';
		memcpy(to + 1, value, len);
		memcpy(to + 1 + len, "\"", 2);
		b->len += len + 2;
		return;
	}
	buf_addc(b, '"');
	for (size_t i = 0, start = 0; i <= len;) {
		size_t n = i < len ? utf8_char(s + i, len - i) : 0;
		if (i < len && n && s[i] >= 0x20 && s[i] != '"' && s[i] != '\\') {
			i += n;
			continue;
		}
		buf_add(b, value + start, i - start);
		if (i == len)
			break;
		if (n == 0)
			buf_adds(b, "\xEF\xBF\xBD");
		else if (s[i] == '"' || s[i] == '\\') {
			buf_addc(b, '\\');
			buf_addc(b, (char)s[i]);
		} else if (s[i] == '\n')
			buf_adds(b, "\\n");
		else
			buf_printf(b, "\\u%04x", s[i]);
		start = ++i;
	}
	buf_addc(b, '"');
}

/* A comma unless this is the first member of its object or array. */
static void begin_member(struct buf *b, const char *key)
{
	if (b->len > 0) {
		char last = b->data[b->len - 1];
		if (last != '{' && last != '[')
			buf_addc(b, ',');
	}
	if (key) {
		add_quoted(b, key, strlen(key));
		buf_addc(b, ':');
	}
}

void json_open(struct buf *b, const char *key, char bracket)
{
	begin_member(b, key);
	buf_addc(b, bracket);
}

void json_close(struct buf *b, char bracket)
{
	buf_addc(b, bracket);
}

void json_strn(struct buf *b, const char *key, const char *value, size_t len)
{
	begin_member(b, key);
	add_quoted(b, value, len);
}

void json_str(struct buf *b, const char *key, const char *value)
{
	if (value)
		json_strn(b, key, value, strlen(value));
	else
		json_nil(b, key);
}

void json_int(struct buf *b, const char *key, int64_t value)
{
	char digits[24], *p = digits + sizeof digits;
	uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;

	do
		*--p = (char)('0' + left % 10);
	while ((left /= 10) > 0);
	if (value < 0)
		*--p = '-';
	begin_member(b, key);
	buf_add(b, p, (size_t)(digits + sizeof digits - p));
}

void json_float(struct buf *b, const char *key, double value)
{
	begin_member(b, key);
	buf_printf(b, "%.6g", value);
}

void json_bool(struct buf *b, const char *key, bool value)
{
	begin_member(b, key);
	buf_adds(b, value ? "true" : "false");
}

void json_nil(struct buf *b, const char *key)
{
	begin_member(b, key);
	buf_adds(b, "null");
}

void json_raw(struct buf *b, const char *key, const char *json)
{
	begin_member(b, key);
	buf_adds(b, json ? json : "null");
}
