/* SPDX-License-Identifier: MIT */
/* Typed getters of query parameters that collect every wrong one.  Pure: any thread. */
#pragma once

#include "http/parse/query.h"
#include "json/field_errors.h"

/*
 * Query parameters.  Each answers whether *out was filled; what is wrong went into *fe.  An absent
 * parameter is an error only where REQUIRED, and leaves *out as the caller set it.
 * Lengths are in characters, not bytes.  *out of a string belongs to *q.
 */
bool field_query_string(struct field_errors *fe, const struct query *q, const char *name,
			bool required, size_t min, size_t max, const char **out);
bool field_query_int(struct field_errors *fe, const struct query *q, const char *name,
		     bool required, int64_t min, int64_t max, int64_t *out);
bool field_query_bool(struct field_errors *fe, const struct query *q, const char *name,
		      bool required, bool *out);
