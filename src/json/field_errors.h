/* SPDX-License-Identifier: MIT */
/*
 * Collects what is wrong with a request's fields in the shape today's clients parse (FastAPI's,
 * with pydantic 1 type words): [{"loc":["query","device_model"],"msg":"field
 * required","type":"value_error.missing"}].
 *
 * Pure: any thread.  One request is checked whole, so its caller hears of every wrong field at
 * once. Running out of memory loses the text and not the fact: field_errors_any() stays true and
 * field_errors_text() is NULL.
 */
#pragma once

#include "base/buf.h"

#include <stdint.h>

#define FIELD_TYPE_MISSING "value_error.missing"
#define FIELD_TYPE_NONE    "type_error.none.not_allowed"
#define FIELD_TYPE_STRING  "type_error.str"
#define FIELD_TYPE_INTEGER "type_error.integer"
#define FIELD_TYPE_NUMBER  "type_error.float"
#define FIELD_TYPE_BOOL    "type_error.bool"
#define FIELD_TYPE_LIST    "type_error.list"
#define FIELD_TYPE_OBJECT  "type_error.dict"
#define FIELD_TYPE_WORD    "value_error.const"
#define FIELD_TYPE_RANGE   "value_error.number.not_in_range"
#define FIELD_TYPE_SHORT   "value_error.any_str.min_length"
#define FIELD_TYPE_LONG    "value_error.any_str.max_length"
#define FIELD_TYPE_ITEMS   "value_error.list.max_items"
#define FIELD_TYPE_VALUE   "value_error"
#define FIELD_TYPE_JSON    "value_error.jsondecode"

/* So many are told: a list of 100,000 wrong items makes no answer of 10 MB. */
#define FIELD_ERRORS_TOLD 100

struct field_errors {
	size_t count;
	struct buf json; /* a whole array whenever count > 0 */
};

#define FIELD_ERRORS_INIT ((struct field_errors){0})

void field_errors_fini(struct field_errors *fe);

/* WHERE is "query", "body" or "path"; NAME NULL means the whole of it. */
void field_errors_add(struct field_errors *fe, const char *where, const char *name,
		      const char *type, const char *fmt, ...) OTA_PRINTF(5, 6);

/* The full place: where, the object it is in (or NULL), the name (or NULL), the index (or < 0). */
struct field_loc {
	const char *where, *under, *name;
	int64_t index;
	size_t item; /* UNDER is a list, and this the item in it, from 1; 0: it is an object */
};

void field_errors_add_at(struct field_errors *fe, const struct field_loc *loc, const char *type,
			 const char *fmt, ...) OTA_PRINTF(4, 5);

static inline bool field_errors_any(const struct field_errors *fe)
{
	return fe->count > 0;
}

/* In characters of UTF-8. */
size_t field_text_length(const char *text);

/* The array, owned by *fe; NULL when there is no error, or no memory for its text. */
const char *field_errors_text(const struct field_errors *fe);
/*
 * The same for people, where there is an error: "percent: must be ...; target_filter.group: ...",
 * without control characters.  OTA_EINVAL, or OTA_ENOMEM when there is no memory to say it.
 */
enum ota_code field_errors_fail(const struct field_errors *fe, struct ota_err *err);

/* Adds the error, if any, that valid UTF-8 TEXT has not MIN..MAX characters; true when it fits. */
bool field_check_length(struct field_errors *fe, const struct field_loc *loc, const char *text,
			size_t min, size_t max);
