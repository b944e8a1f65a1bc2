/* SPDX-License-Identifier: MIT */
#include "json/field_errors.h"

#include "json/json_body.h"

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
	if (loc->item)
		json_int(b, NULL, (int64_t)loc->item - 1);
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

/* "target_filter.device_ids.2: ", without the "body" in front; nothing when that is all. */
static void add_place(struct buf *b, const json_t *loc)
{
	size_t i;
	json_t *part;

	json_array_foreach(loc, i, part)
	{
		if (i == 0)
			continue;
		if (i > 1)
			buf_addc(b, '.');
		if (json_is_integer(part))
			buf_printf(b, "%lld", (long long)json_integer_value(part));
		else
			buf_adds(b, json_string_value(part));
	}
	if (json_array_size(loc) > 1)
		buf_adds(b, ": ");
}

/* Read back from what was written: only a refusal pays for its sentence. */
static json_t *read_back(const struct field_errors *fe)
{
	struct buf b = BUF_INIT;
	json_t *root = NULL;

	buf_printf(&b, "{\"detail\":%s}", fe->json.data);
	if (!buf_ok(&b) || json_body_parse(b.data, b.len, &root, NULL) != OTA_OK)
		root = NULL;
	buf_fini(&b);
	return root;
}

enum ota_code field_errors_fail(const struct field_errors *fe, struct ota_err *err)
{
	json_t *root = field_errors_text(fe) ? read_back(fe) : NULL, *e;
	struct buf b = BUF_INIT;
	size_t i;

	if (!root)
		return ota_fail_nomem(err);
	json_array_foreach(json_object_get(root, "detail"), i, e)
	{
		if (i > 0)
			buf_adds(&b, "; ");
		add_place(&b, json_object_get(e, "loc"));
		buf_adds(&b, json_string_value(json_object_get(e, "msg")));
	}
	json_decref(root);
	for (i = 0; i < b.len; i++)
		if ((unsigned char)b.data[i] < 0x20 || b.data[i] == 0x7F)
			b.data[i] = ' ';
	enum ota_code code =
		buf_ok(&b) ? ota_fail(err, OTA_EINVAL, "%s", b.data) : ota_fail_nomem(err);
	buf_fini(&b);
	return code;
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
