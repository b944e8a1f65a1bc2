/* SPDX-License-Identifier: MIT */
/*
 * The extractor for the answer to a check-in: one walk over the object, in which every byte is
 * looked at, fields of the top level are taken, and everything else is stepped over.  Nesting is
 * bounded, and nothing is read behind `len`.
 */
#include "paku_glue.h"

#include <string.h>

#define DEPTH_MAX 16

struct cursor {
	const char *at, *end;
};

static void skip_space(struct cursor *c)
{
	while (c->at < c->end &&
	       (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r'))
		c->at++;
}

static bool take(struct cursor *c, char ch)
{
	skip_space(c);
	if (c->at == c->end || *c->at != ch)
		return false;
	c->at++;
	return true;
}

static bool take_word(struct cursor *c, const char *word)
{
	size_t len = strlen(word);

	if ((size_t)(c->end - c->at) < len || memcmp(c->at, word, len) != 0)
		return false;
	c->at += len;
	return true;
}

static int hex_digit(char ch)
{
	if (ch >= '0' && ch <= '9')
		return ch - '0';
	if (ch >= 'a' && ch <= 'f')
		return ch - 'a' + 10;
	if (ch >= 'A' && ch <= 'F')
		return ch - 'A' + 10;
	return -1;
}

/* After a backslash: one character.  What the agent reads is ASCII; the rest becomes NUL, which
 * makes a field of ours one that does not fit. */
static bool unescape(struct cursor *c, char *out)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *known;
	unsigned code = 0;

	if (c->at == c->end)
		return false;
	char ch = *c->at++;
	if (ch == 'u') {
		for (int i = 0; i < 4; i++) {
			int digit = c->at < c->end ? hex_digit(*c->at++) : -1;
			if (digit < 0)
				return false;
			code = code << 4 | (unsigned)digit;
		}
		*out = code < 0x80 ? (char)code : '\0';
		return true;
	}
	known = ch ? strchr(from, ch) : NULL;
	if (!known)
		return false;
	*out = to[known - from];
	return true;
}

/* A string into out (NULL: only stepped over).  *fits says whether all of it found room. */
static bool take_string(struct cursor *c, char *out, size_t size, bool *fits)
{
	size_t n = 0;

	*fits = true;
	if (!take(c, '"'))
		return false;
	while (c->at < c->end && *c->at != '"') {
		char ch = *c->at++;
		if (ch == '\\' && !unescape(c, &ch))
			return false;
		if (out && n + 1 < size && ch)
			out[n++] = ch;
		else
			*fits = false;
	}
	if (out)
		out[n] = '\0';
	return take(c, '"');
}

static bool skip_scalar(struct cursor *c)
{
	const char *start = c->at;

	if (take_word(c, "true") || take_word(c, "false") || take_word(c, "null"))
		return true;
	while (c->at < c->end && *c->at && strchr("+-.0123456789eE", *c->at))
		c->at++;
	return c->at > start;
}

/* Any value, nested ones without recursion: the brackets that are open lie in `open`. */
static bool skip_value(struct cursor *c)
{
	char open[DEPTH_MAX];
	int depth = 0;
	bool fits;

	for (;;) {
		skip_space(c);
		if (c->at == c->end)
			return false;
		char ch = *c->at;
		if (ch == '{' || ch == '[') {
			if (depth == DEPTH_MAX)
				return false;
			open[depth++] = ch == '{' ? '}' : ']';
			c->at++;
			if (!take(c, open[depth - 1])) {
				if (ch == '[')
					continue;
				if (!take_string(c, NULL, 0, &fits) || !take(c, ':'))
					return false;
				continue;
			}
			depth--;
		} else if (ch == '"' ? !take_string(c, NULL, 0, &fits) : !skip_scalar(c)) {
			return false;
		}
		while (depth && !take(c, ',')) { /* a value has ended: so may what is around it */
			if (!take(c, open[depth - 1]))
				return false;
			depth--;
		}
		if (!depth)
			return true;
		if (open[depth - 1] == '}' && (!take_string(c, NULL, 0, &fits) || !take(c, ':')))
			return false;
	}
}

/* A whole number of 32 bits; anything else that is JSON (null, fractions) is "not given". */
static bool take_u32(struct cursor *c, uint32_t *out, bool *given)
{
	uint64_t value = 0;
	const char *start;

	skip_space(c);
	start = c->at;
	while (c->at < c->end && *c->at >= '0' && *c->at <= '9' && value <= UINT32_MAX)
		value = value * 10 + (uint64_t)(*c->at++ - '0');
	*given = c->at > start && value <= UINT32_MAX &&
		 (c->at == c->end || !*c->at || !strchr("0123456789.eE", *c->at));
	if (*given) {
		*out = (uint32_t)value;
		return true;
	}
	c->at = start;
	return skip_value(c);
}

/* A string field that may be null. */
static bool take_text(struct cursor *c, char *out, size_t size, bool *given)
{
	skip_space(c);
	*given = c->at < c->end && *c->at == '"';
	return *given ? take_string(c, out, size, given) : skip_value(c);
}

static bool digest_of(const char *hex, uint8_t out[PAKU_SHA256_SIZE])
{
	if (strlen(hex) != 2 * PAKU_SHA256_SIZE)
		return false;
	for (int i = 0; i < PAKU_SHA256_SIZE; i++) {
		int high = hex_digit(hex[2 * i]), low = hex_digit(hex[2 * i + 1]);
		if (high < 0 || low < 0)
			return false;
		out[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

enum field { F_AVAILABLE = 1, F_VERSION = 2, F_URL = 4, F_SIZE = 8, F_DIGEST = 16, F_ALL = 31 };

/* One "name": value of the top level.  Sets the bit of a field that is there and usable. */
static bool take_field(struct cursor *c, struct paku_offer *offer, uint32_t *retry_after_s,
		       unsigned *have)
{
	char name[24], hex[2 * PAKU_SHA256_SIZE + 1];
	bool given, ok;
	unsigned bit = 0;

	if (!take_string(c, name, sizeof name, &given) || !take(c, ':'))
		return false;
	skip_space(c);
	if (!given) {
		ok = skip_value(c); /* a longer name than any of ours */
	} else if (strcmp(name, "update_available") == 0) {
		bit = F_AVAILABLE;
		offer->available = given = c->at < c->end && *c->at == 't';
		ok = skip_value(c);
	} else if (strcmp(name, "latest_version") == 0) {
		bit = F_VERSION;
		ok = take_text(c, offer->version, 129, &given);
	} else if (strcmp(name, "download_url") == 0) {
		bit = F_URL;
		ok = take_text(c, offer->url, sizeof offer->url, &given);
	} else if (strcmp(name, "file_size") == 0) {
		bit = F_SIZE;
		ok = take_u32(c, &offer->size, &given);
	} else if (strcmp(name, "checksum_sha256") == 0) {
		bit = F_DIGEST;
		ok = take_text(c, hex, sizeof hex, &given);
		given = ok && given && digest_of(hex, offer->sha256);
	} else if (strcmp(name, "retry_after_s") == 0) {
		ok = take_u32(c, retry_after_s, &given);
	} else {
		ok = skip_value(c);
	}
	*have = given ? *have | bit : *have & ~bit;
	return ok;
}

static bool take_object(struct cursor *c, struct paku_offer *offer, uint32_t *retry_after_s,
			unsigned *have)
{
	if (!take(c, '{'))
		return false;
	if (!take(c, '}')) {
		do {
			if (!take_field(c, offer, retry_after_s, have))
				return false;
		} while (take(c, ','));
		if (!take(c, '}'))
			return false;
	}
	skip_space(c);
	return c->at == c->end;
}

bool paku_parse_offer(const char *json, size_t len, struct paku_offer *offer,
		      uint32_t *retry_after_s)
{
	struct cursor c = {json, json + len};
	unsigned have = 0;

	memset(offer, 0, sizeof *offer);
	*retry_after_s = 0;
	if (!take_object(&c, offer, retry_after_s, &have) || (offer->available && have != F_ALL)) {
		memset(offer, 0, sizeof *offer);
		return false;
	}
	if (!offer->available)
		memset(offer, 0, sizeof *offer);
	return true;
}
