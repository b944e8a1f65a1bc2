/* SPDX-License-Identifier: MIT */
/*
 * The extractor for the answer to a check-in and for a command: one walk over the object, in which
 * every byte is looked at, fields of the top level are taken, and everything else is stepped over.
 * Nesting is bounded, and nothing is read behind `len`.
 */
#include "paku_glue.h"
#include "paku_mqtt.h"

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

/* A field that somebody wants: where it goes, and its bit once it is there and usable. */
enum want_kind { WANT_TRUE, WANT_TEXT, WANT_U32, WANT_DIGEST };

struct want {
	const char *name;
	enum want_kind kind;
	void *out;
	size_t size; /* of a text's buffer */
	unsigned bit;
};

static bool take_wanted(struct cursor *c, const struct want *w, bool *given)
{
	char hex[2 * PAKU_SHA256_SIZE + 1];

	skip_space(c);
	switch (w->kind) {
	case WANT_TEXT: return take_text(c, w->out, w->size, given);
	case WANT_U32: return take_u32(c, w->out, given);
	case WANT_DIGEST:
		if (!take_text(c, hex, sizeof hex, given))
			return false;
		*given = *given && digest_of(hex, w->out);
		return true;
	case WANT_TRUE: break;
	}
	*given = c->at < c->end && *c->at == 't';
	*(bool *)w->out = *given;
	return skip_value(c);
}

/* One "name": value of the top level.  Of two of one name the last one counts. */
static bool take_field(struct cursor *c, const struct want *wants, size_t n, unsigned *have)
{
	char name[24];
	bool given;

	if (!take_string(c, name, sizeof name, &given) || !take(c, ':'))
		return false;
	for (size_t i = 0; given && i < n; i++) {
		if (strcmp(name, wants[i].name) != 0)
			continue;
		if (!take_wanted(c, &wants[i], &given))
			return false;
		*have = given ? *have | wants[i].bit : *have & ~wants[i].bit;
		return true;
	}
	return skip_value(c); /* not ours, or a longer name than any of ours */
}

/* The whole of `json` is one object; *have has the bits of what was found. */
static bool take_object(const char *json, size_t len, const struct want *wants, size_t n,
			unsigned *have)
{
	struct cursor c = {json, json + len};

	*have = 0;
	if (!take(&c, '{'))
		return false;
	if (!take(&c, '}')) {
		do {
			if (!take_field(&c, wants, n, have))
				return false;
		} while (take(&c, ','));
		if (!take(&c, '}'))
			return false;
	}
	skip_space(&c);
	return c.at == c.end;
}

#define VERSION_ROOM 129 /* 128 characters and the NUL */

bool paku_parse_offer(const char *json, size_t len, struct paku_offer *offer,
		      uint32_t *retry_after_s)
{
	enum { VERSION = 1, URL = 2, SIZE = 4, DIGEST = 8, ALL = 15 };
	const struct want wants[] = {
		{"update_available", WANT_TRUE, &offer->available, 0, 0},
		{"latest_version", WANT_TEXT, offer->version, VERSION_ROOM, VERSION},
		{"download_url", WANT_TEXT, offer->url, sizeof offer->url, URL},
		{"file_size", WANT_U32, &offer->size, 0, SIZE},
		{"checksum_sha256", WANT_DIGEST, offer->sha256, 0, DIGEST},
		{"retry_after_s", WANT_U32, retry_after_s, 0, 0},
	};
	unsigned have;
	bool ok;

	memset(offer, 0, sizeof *offer);
	*retry_after_s = 0;
	ok = take_object(json, len, wants, sizeof wants / sizeof *wants, &have) &&
	     (!offer->available || have == ALL);
	if (!ok || !offer->available)
		memset(offer, 0, sizeof *offer);
	return ok;
}

enum paku_result paku_parse_command(const char *json, size_t len, struct paku_offer *offer)
{
	enum { VERSION = 1, URL = 2, DIGEST = 4 };
	const struct want wants[] = {
		{"version", WANT_TEXT, offer->version, VERSION_ROOM, VERSION},
		{"target_version", WANT_TEXT, offer->version, VERSION_ROOM, VERSION},
		{"url", WANT_TEXT, offer->url, sizeof offer->url, URL},
		{"checksum", WANT_DIGEST, offer->sha256, 0, DIGEST},
	};
	enum paku_result result = PAKU_RESULT_SUCCESS;
	unsigned have;

	memset(offer, 0, sizeof *offer);
	if (!take_object(json, len, wants, sizeof wants / sizeof *wants, &have) ||
	    !(have & VERSION) || !offer->version[0]) {
		memset(offer, 0, sizeof *offer);
		return PAKU_RESULT_INVALID_FIRMWARE;
	}
	if (!(have & URL) ||
	    (strncmp(offer->url, "http://", 7) != 0 && strncmp(offer->url, "https://", 8) != 0))
		result = PAKU_RESULT_INVALID_URL;
	else if (!(have & DIGEST))
		result = PAKU_RESULT_VERIFICATION_FAILED;
	offer->available = result == PAKU_RESULT_SUCCESS;
	offer->size = PAKU_SIZE_UNKNOWN;
	return result;
}
