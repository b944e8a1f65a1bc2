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

static bool grow(struct buf *b, size_t more)
{
	if (b->failed)
		return false;
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

static inline bool room(struct buf *b, size_t more)
{
	/* A buffer that failed has cap 0. */
	return (b->cap > b->len && more < b->cap - b->len) || grow(b, more);
}

bool buf_reserve(struct buf *b, size_t more)
{
	return room(b, more);
}

void buf_add(struct buf *b, const void *data, size_t len)
{
	if (!room(b, len))
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
	if (!room(b, 1))
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

/* Eight bytes at once: the high bit of each byte that is zero, or some higher byte's too. */
static uint64_t zero_bytes(uint64_t x)
{
	return (x - UINT64_C(0x0101010101010101)) & ~x & UINT64_C(0x8080808080808080);
}

static uint64_t eight(const unsigned char *s)
{
	uint64_t x;

	memcpy(&x, s, sizeof x);
	return x;
}

/* Bytes from the beginning that are ASCII, and perhaps some more of them follow. */
static size_t ascii_prefix(const unsigned char *s, size_t len)
{
	size_t i = 0;

	while (len - i >= 8 && (eight(s + i) & UINT64_C(0x8080808080808080)) == 0)
		i += 8;
	return i;
}

bool utf8_valid(const char *text, size_t len)
{
	for (size_t i = ascii_prefix((const unsigned char *)text, len), n; i < len; i += n)
		if ((n = utf8_char((const unsigned char *)text + i, len - i)) == 0)
			return false;
	return true;
}

/* Characters from the beginning that a JSON string holds as they are, and that are ASCII. */
static size_t plain_prefix(const unsigned char *s, size_t len)
{
	size_t i = 0;

	for (; len - i >= 8; i += 8) {
		uint64_t x = eight(s + i), below_space = x & UINT64_C(0xE0E0E0E0E0E0E0E0);
		if ((x & UINT64_C(0x8080808080808080)) | zero_bytes(below_space) |
		    zero_bytes(x ^ UINT64_C(0x2222222222222222)) |
		    zero_bytes(x ^ UINT64_C(0x5C5C5C5C5C5C5C5C)))
			break;
	}
	while (i < len && s[i] >= 0x20 && s[i] < 0x80 && s[i] != '"' && s[i] != '\\')
		i++;
	return i;
}

static char *put_plain(char *to, const char *text, size_t len)
{
	*to = '"';
	memcpy(to + 1, text, len);
	to[len + 1] = '"';
	return to + len + 2;
}

static void add_quoted(struct buf *b, const char *value, size_t len)
{
	const unsigned char *s = (const unsigned char *)value;

	/* Nearly all of them: names, versions, digests, times. */
	if (plain_prefix(s, len) == len && room(b, len + 2)) {
		b->len = (size_t)(put_plain(b->data + b->len, value, len) - b->data);
		b->data[b->len] = '\0';
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
	size_t len = key ? strlen(key) : 0;

	if (!room(b, len + 4))
		return;
	char *to = b->data + b->len;
	if (b->len > 0 && to[-1] != '{' && to[-1] != '[')
		*to++ = ',';
	bool plain = key && plain_prefix((const unsigned char *)key, len) == len;
	if (plain) {
		to = put_plain(to, key, len);
		*to++ = ':';
	}
	*to = '\0';
	b->len = (size_t)(to - b->data);
	if (key && !plain) { /* a name that somebody gave */
		add_quoted(b, key, len);
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
	buf_add(b, value ? "true" : "false", value ? 4 : 5);
}

void json_nil(struct buf *b, const char *key)
{
	begin_member(b, key);
	buf_add(b, "null", 4);
}

void json_raw(struct buf *b, const char *key, const char *json)
{
	begin_member(b, key);
	buf_adds(b, json ? json : "null");
}
