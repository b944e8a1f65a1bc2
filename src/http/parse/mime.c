/* SPDX-License-Identifier: MIT */
#include "http/parse/mime.h"

#include <string.h>
#include <strings.h>

static const char *skip_space(const char *s)
{
	return s + strspn(s, " \t\r\n");
}

bool mime_type_is(const char *value, const char *type)
{
	value = skip_space(value);
	size_t n = strcspn(value, "; \t\r\n");

	return n == strlen(type) && strncasecmp(value, type, n) == 0;
}

/* Where one value ends up; bytes beyond the room are counted and dropped. */
struct sink {
	char *out; /* NULL: nobody wants this one */
	size_t size, len;
};

static void sink_add(struct sink *k, char c)
{
	if (k->out && k->len + 1 < k->size)
		k->out[k->len] = c;
	k->len++;
}

/* Reads one value at S into K; returns what follows it. */
static const char *read_value(const char *s, struct sink *k)
{
	if (*s != '"') {
		size_t n = strcspn(s, ";\r\n");
		const char *end = s + n;
		while (n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t'))
			n--;
		for (size_t i = 0; i < n; i++)
			sink_add(k, s[i]);
		return end;
	}
	for (s++; *s && *s != '"'; s++) {
		if (*s == '\\' && (s[1] == '"' || s[1] == '\\'))
			s++;
		sink_add(k, *s);
	}
	return *s ? s + 1 : s;
}

enum mime_found mime_param(const char *value, const char *name, char *out, size_t size)
{
	const char *s = value + strcspn(value, ";");

	while (*s == ';') {
		s = skip_space(s + 1);
		size_t n = strcspn(s, "=; \t\r\n");
		bool wanted = n == strlen(name) && strncasecmp(s, name, n) == 0;
		struct sink k = {.out = wanted ? out : NULL, .size = size};
		const char *after = skip_space(s + n);
		if (*after == '=') {
			s = read_value(skip_space(after + 1), &k);
			if (wanted && k.len + 1 > size)
				return MIME_TOO_LONG;
			if (wanted) {
				out[k.len] = '\0';
				return MIME_FOUND;
			}
		} else {
			s = after;
		}
		s += strcspn(s, ";");
	}
	return MIME_ABSENT;
}

static int hex_digit(char c)
{
	const char *digits = "0123456789abcdefABCDEF";
	const char *at = c ? strchr(digits, c) : NULL;

	if (!at)
		return -1;
	int v = (int)(at - digits);
	return v < 16 ? v : v - 6;
}

bool mime_decode_extended(char *text)
{
	char *language = strchr(text, '\'');
	char *from = language ? strchr(language + 1, '\'') : NULL;

	if (!from || (size_t)(language - text) != 5 || strncasecmp(text, "utf-8", 5) != 0)
		return false;
	for (from++; *from; from++) {
		unsigned char c = (unsigned char)*from;
		if (c == '%') {
			int high = hex_digit(from[1]), low = high < 0 ? -1 : hex_digit(from[2]);
			if (low < 0)
				return false;
			c = (unsigned char)(high << 4 | low);
			from += 2;
		}
		if (c < 0x20 || c == 0x7F)
			return false;
		*text++ = (char)c;
	}
	*text = '\0';
	return true;
}
