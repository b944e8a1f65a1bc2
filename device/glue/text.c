/* SPDX-License-Identifier: MIT */
#include "text.h"

#include <string.h>

struct text text_begin(char *out, size_t size)
{
	struct text t = {out, size, 0, size > 0};

	if (size)
		out[0] = '\0';
	return t;
}

void text_put(struct text *t, char ch)
{
	if (t->len + 1 >= t->size)
		t->ok = false;
	if (!t->ok)
		return;
	t->out[t->len++] = ch;
	t->out[t->len] = '\0';
}

void text_puts(struct text *t, const char *s)
{
	while (*s)
		text_put(t, *s++);
}

void text_u32(struct text *t, uint32_t value)
{
	char digits[10];
	int n = 0;

	do
		digits[n++] = (char)('0' + value % 10);
	while (value /= 10);
	while (n)
		text_put(t, digits[--n]);
}

void text_encoded(struct text *t, const char *s)
{
	static const char hex[] = "0123456789ABCDEF";

	for (; *s; s++) {
		unsigned char ch = (unsigned char)*s;
		if ((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') ||
		    (ch >= '0' && ch <= '9') || strchr("-._~", ch)) {
			text_put(t, *s);
		} else {
			text_put(t, '%');
			text_put(t, hex[ch >> 4]);
			text_put(t, hex[ch & 15]);
		}
	}
}

void text_json(struct text *t, const char *s)
{
	static const char hex[] = "0123456789abcdef";

	text_put(t, '"');
	for (; *s; s++) {
		unsigned char ch = (unsigned char)*s;
		if (ch < 0x20) {
			text_puts(t, "\\u00");
			text_put(t, hex[ch >> 4]);
			text_put(t, hex[ch & 15]);
			continue;
		}
		if (ch == '"' || ch == '\\')
			text_put(t, '\\');
		text_put(t, *s);
	}
	text_put(t, '"');
}

static void name_of(struct text *t, const char *name)
{
	if (t->len && t->out[t->len - 1] != '{')
		text_put(t, ',');
	text_json(t, name);
	text_put(t, ':');
}

void text_field(struct text *t, const char *name, const char *value)
{
	if (!value)
		return;
	name_of(t, name);
	text_json(t, value);
}

void text_field_u32(struct text *t, const char *name, uint32_t value)
{
	name_of(t, name);
	text_u32(t, value);
}

void text_field_bool(struct text *t, const char *name, bool value)
{
	name_of(t, name);
	text_puts(t, value ? "true" : "false");
}
