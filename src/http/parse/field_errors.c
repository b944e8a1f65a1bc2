/* SPDX-License-Identifier: MIT */
#include "http/parse/field_errors.h"

#include <stdio.h>
#include <string.h>

void field_errors_fini(struct field_errors *fe)
{
	buf_fini(&fe->json);
	fe->count = 0;
}

OTA_PRINTF(4, 0)
static void add(struct field_errors *fe, const struct field_loc *loc, const char *type,
		const char *fmt, va_list ap)
{
	struct buf *b = &fe->json;
	char sentence[512];

	if (fe->count >= FIELD_ERRORS_TOLD) {
		fe->count++;
		return;
	}
	/* A sentence may list words; beyond the buffer it is cut, and the writer mends torn UTF-8.
	 */
	vsnprintf(sentence, sizeof sentence, fmt, ap);
	if (fe->count++ == 0)
		json_open(b, NULL, '[');
	else if (b->len > 0)
		b->len--; /* the closing bracket */
	json_open(b, NULL, '{');
	json_open(b, "loc", '[');
	json_str(b, NULL, loc->where);
	if (loc->under)
		json_str(b, NULL, loc->under);
	if (loc->name)
		json_str(b, NULL, loc->name);
	if (loc->index >= 0)
		json_int(b, NULL, loc->index);
	json_close(b, ']');
	json_str(b, "msg", sentence);
	json_str(b, "type", type);
	json_close(b, '}');
	json_close(b, ']');
}

void field_errors_add(struct field_errors *fe, const char *where, const char *name,
		      const char *type, const char *fmt, ...)
{
	const struct field_loc loc = {.where = where, .name = name, .index = -1};
	va_list ap;

	va_start(ap, fmt);
	add(fe, &loc, type, fmt, ap);
	va_end(ap);
}

void field_errors_add_at(struct field_errors *fe, const struct field_loc *loc, const char *type,
			 const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	add(fe, loc, type, fmt, ap);
	va_end(ap);
}

const char *field_errors_text(const struct field_errors *fe)
{
	return fe->count > 0 && buf_ok(&fe->json) ? fe->json.data : NULL;
}

size_t field_text_length(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xC0) != 0x80;
	return n;
}

bool field_check_length(struct field_errors *fe, const struct field_loc *loc, const char *text,
			size_t min, size_t max)
{
	size_t n = field_text_length(text);

	if (n < min && min == 1)
		field_errors_add_at(fe, loc, FIELD_TYPE_SHORT, "must not be empty");
	else if (n < min)
		field_errors_add_at(fe, loc, FIELD_TYPE_SHORT, "must have at least %zu characters",
				    min);
	else if (n > max)
		field_errors_add_at(fe, loc, FIELD_TYPE_LONG,
				    "must have at most %zu characters (it has %zu)", max, n);
	return n >= min && n <= max;
}

/* The value, or NULL after saying, where it is required, that it is missing. */
static const char *query_value(struct field_errors *fe, const struct query *q, const char *name,
			       bool required)
{
	const char *value = query_get(q, name);

	if (!value && required)
		field_errors_add(fe, "query", name, FIELD_TYPE_MISSING, "field required");
	return value;
}

bool field_query_string(struct field_errors *fe, const struct query *q, const char *name,
			bool required, size_t min, size_t max, const char **out)
{
	const struct field_loc loc = {.where = "query", .name = name, .index = -1};
	const char *value = query_value(fe, q, name, required);

	if (!value || !field_check_length(fe, &loc, value, min, max))
		return false;
	*out = value;
	return true;
}

bool field_query_int(struct field_errors *fe, const struct query *q, const char *name,
		     bool required, int64_t min, int64_t max, int64_t *out)
{
	struct ota_err err = {0};

	if (!query_value(fe, q, name, required))
		return false;
	enum ota_code code = query_get_int(q, name, min, max, out, &err);
	if (code)
		field_errors_add(fe, "query", name,
				 code == OTA_EINVAL ? FIELD_TYPE_INTEGER : FIELD_TYPE_RANGE, "%s",
				 err.msg);
	return code == OTA_OK;
}

bool field_query_bool(struct field_errors *fe, const struct query *q, const char *name,
		      bool required, bool *out)
{
	struct ota_err err = {0};

	if (!query_value(fe, q, name, required))
		return false;
	enum ota_code code = query_get_bool(q, name, out, &err);
	if (code)
		field_errors_add(fe, "query", name, FIELD_TYPE_BOOL, "%s", err.msg);
	return code == OTA_OK;
}
