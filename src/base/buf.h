/* SPDX-License-Identifier: MIT */
/*
 * A growing byte buffer, and a JSON writer on top of it.
 *
 * Allocation failure is remembered instead of returned by every call: write the whole answer,
 * then look at buf_ok() once.  A failed buffer holds nothing and ignores further writes.
 * A buffer belongs to one thread at a time.
 */
#pragma once

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct buf {
	char *data; /* NUL-terminated after len, NULL while empty */
	size_t len, cap;
	bool failed;
};

#define BUF_INIT ((struct buf){0})

void buf_fini(struct buf *b);
void buf_reset(struct buf *b); /* keeps the memory */
static inline bool buf_ok(const struct buf *b)
{
	return !b->failed;
}
/* Makes room for MORE bytes and the NUL; false (and failed) when there is none. */
bool buf_reserve(struct buf *b, size_t more);
void buf_add(struct buf *b, const void *data, size_t len);
void buf_adds(struct buf *b, const char *s);
void buf_addc(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) OTA_PRINTF(2, 3);
/* Hands the NUL-terminated memory to the caller (free()); NULL when the buffer failed. */
char *buf_take(struct buf *b, size_t *len);

/*
 * JSON: commas are placed by the writer.  A key may be NULL inside an array.  Strings are taken as
 * UTF-8; what is not becomes U+FFFD.  NULL strings are written as null.
 */
void json_open(struct buf *b, const char *key, char bracket); /* '{' or '[' */
void json_close(struct buf *b, char bracket);                 /* '}' or ']' */
void json_str(struct buf *b, const char *key, const char *value);
void json_strn(struct buf *b, const char *key, const char *value, size_t len);
void json_int(struct buf *b, const char *key, int64_t value);
void json_float(struct buf *b, const char *key, double value);
void json_bool(struct buf *b, const char *key, bool value);
void json_nil(struct buf *b, const char *key);
void json_raw(struct buf *b, const char *key, const char *json); /* JSON as it stands; NULL: null */

/* Whether TEXT is UTF-8 (RFC 3629: no surrogates, nothing overlong). */
bool utf8_valid(const char *text, size_t len);
