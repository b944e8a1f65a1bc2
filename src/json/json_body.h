/* SPDX-License-Identifier: MIT */
/*
 * A JSON request body: parsing that forgives what real devices send, and typed getters that collect
 * every wrong field.
 *
 * Pure: any thread.  Forgiven: raw control characters inside strings (they become escapes), a UTF-8
 * byte order mark in front.  Refused with a sentence that says what and where: nesting deeper than
 * JSON_BODY_MAX_DEPTH (so that no input decides how deep we recurse), raw or escaped NUL, a key
 * given twice, numbers beyond what 64 bits hold, text that is not UTF-8, anything but an object.
 */
#pragma once

#include "base/err.h"
#include "json/field_errors.h"

#include <jansson.h>

#define JSON_BODY_MAX_DEPTH 32

/*
 * On OTA_OK *out is an object, the caller's reference (json_decref()); else NULL, with OTA_EINVAL
 * and the sentence, or OTA_ENOMEM.  Lines and columns count from 1, columns in bytes.
 */
OTA_MUST_USE enum ota_code json_body_parse(const char *data, size_t len, json_t **out,
					   struct ota_err *err);

/* Where the getters look: an object, and what it is called inside the body (NULL: it is the body).
 */
struct json_fields {
	const json_t *object;
	const char *under;
	struct field_errors *errors;
	size_t item; /* UNDER is a list: the number of this item, from 1 */
};

/*
 * Each answers whether *out was filled; what is wrong went into the collector.  A field that is
 * absent or null is an error only where REQUIRED, and leaves *out as the caller set it.  What is
 * put into *out belongs to the object.  Lengths are in characters, not bytes.
 */
bool json_field_string(const struct json_fields *f, const char *name, bool required, size_t min,
		       size_t max, const char **out);
/* 5 alone is a whole number: "5" and 5.0 are refused. */
bool json_field_int(const struct json_fields *f, const char *name, bool required, int64_t min,
		    int64_t max, int64_t *out);
/* Any finite number, whole or not. */
bool json_field_number(const struct json_fields *f, const char *name, bool required, double *out);
bool json_field_bool(const struct json_fields *f, const char *name, bool required, bool *out);
/* *out is the index into WORDS. */
bool json_field_word(const struct json_fields *f, const char *name, bool required,
		     const char *const *words, size_t word_count, size_t *out);
/* An array of strings of MIN..MAX characters each; every wrong element is named by its index. */
bool json_field_strings(const struct json_fields *f, const char *name, bool required,
			size_t max_items, size_t min, size_t max, const json_t **out);
/* An array of objects. */
bool json_field_objects(const struct json_fields *f, const char *name, bool required,
			size_t max_items, const json_t **out);
bool json_field_object(const struct json_fields *f, const char *name, bool required,
		       const json_t **out);
