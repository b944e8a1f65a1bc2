/* SPDX-License-Identifier: MIT */
/*
 * A raw request target ("/api/x%20y/z?a=1&b=2") taken apart into decoded path segments and
 * parameters (RFC 3986; `+` as in HTML forms).
 *
 * Pure: any thread, no I/O.  Splitting comes before decoding, so a %2F stays inside its segment.
 * Strict: a broken escape, %00, a control byte, text that is not UTF-8 and a parameter given twice
 * are errors whose sentence says which.  Escaped tab, CR and LF are taken in values alone (release
 * notes have lines).  All strings live in one allocation that the struct owns until query_fini().
 */
#pragma once

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define QUERY_MAX_SEGMENTS 12
#define QUERY_MAX_PARAMS   32

struct query_param {
	const char *key, *value; /* decoded; a parameter without `=` has the value "" */
	bool plus_seen;          /* a bare `+` became a space: maybe a %2B was meant */
};

/* Which part of a target is malformed. */
struct query_wrong {
	const char *where; /* "path", "query"; NULL: the target as a whole */
	char name[64];     /* of the parameter; "": none, or one with a name too long to repeat */
};

struct query {
	size_t segment_count, param_count;
	const char *segments[QUERY_MAX_SEGMENTS]; /* decoded; "", "." and ".." as they stand */
	struct query_param params[QUERY_MAX_PARAMS];
	char *arena;
	struct query_wrong wrong; /* when query_parse() failed */
};

/*
 * Fills *q from RAW, which is not kept.  "/" has no segment, "/a/" has two, the second one empty.
 * An absolute form ("http://host/path") loses its scheme and host, a fragment is dropped.
 * On failure *q is empty but for `wrong` (query_fini() is harmless): OTA_EINVAL for what is
 * malformed, with a sentence without a subject where `wrong` says what is meant; OTA_ENOTFOUND for
 * a path deeper than any that exists, OTA_ENOMEM.
 */
OTA_MUST_USE enum ota_code query_parse(struct query *q, const char *raw, struct ota_err *err);
/* An empty one; what lies behind its counts is never looked at. */
void query_clear(struct query *q);
void query_fini(struct query *q);

const struct query_param *query_find(const struct query *q, const char *name); /* NULL: absent */
const char *query_get(const struct query *q, const char *name);                /* NULL: absent */
/*
 * What to put after a sentence that refuses the value of NAME: the hint that a `+` has to be
 * written %2B if the value had one, else "".
 */
const char *query_plus_hint(const struct query *q, const char *name);

/*
 * An absent parameter leaves *out as it is (the caller's default) and is OTA_OK; a value of the
 * wrong shape is OTA_EINVAL, one beyond the range OTA_EUNPROCESSABLE, both with a sentence without
 * a subject ("must be ..."), as the error list of an answer wants it.
 */
OTA_MUST_USE enum ota_code query_get_int(const struct query *q, const char *name, int64_t min,
					 int64_t max, int64_t *out, struct ota_err *err);
/* true/false, 1/0, yes/no in any case. */
OTA_MUST_USE enum ota_code query_get_bool(const struct query *q, const char *name, bool *out,
					  struct ota_err *err);
