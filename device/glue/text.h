/* SPDX-License-Identifier: MIT */
/*
 * Text that grows in a buffer of the caller's.  Once something did not fit, `ok` stays false and
 * nothing more is added: what is sent is never cut.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text {
	char *out;
	size_t size, len;
	bool ok;
};

struct text text_begin(char *out, size_t size);
void text_put(struct text *t, char ch);
void text_puts(struct text *t, const char *s);
void text_u32(struct text *t, uint32_t value);
/* RFC 3986: all but the unreserved characters, so also the `+` that a query would read as space. */
void text_encoded(struct text *t, const char *s);
/* A JSON string with its quotes. */
void text_json(struct text *t, const char *s);
/* ,"name":"value"; NULL is left out.  After a '{' without the comma. */
void text_field(struct text *t, const char *name, const char *value);
void text_field_u32(struct text *t, const char *name, uint32_t value);
void text_field_bool(struct text *t, const char *name, bool value);
