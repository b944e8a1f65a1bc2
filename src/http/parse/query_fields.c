/* SPDX-License-Identifier: MIT */
#include "http/parse/query_fields.h"

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
