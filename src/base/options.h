/* SPDX-License-Identifier: MIT */
/*
 * Options out of the environment, described once: one table makes the parser, --help and the docs.
 * At start, before there are threads.
 */
#pragma once

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum option_type {
	OPTION_TEXT,   /* char *, "" when unset and without default */
	OPTION_SECRET, /* the same; NAME_FILE names a file whose first line it is, instead */
	OPTION_INT,    /* int64_t in [min, max] */
	OPTION_BYTES,  /* int64_t; "64M" and "1G" are understood */
	OPTION_WORD,   /* int: the index into words */
};

struct option {
	const char *name, *alias; /* variables; the name wins; alias may be NULL */
	enum option_type type;
	size_t offset;        /* of the field in the caller's struct */
	const char *fallback; /* the default, as it would be written; NULL: none */
	int64_t min, max;
	const char *const *words; /* ended by NULL */
	const char *unit, *doc;
};

/*
 * Fills the fields of *INTO (zeroed by the caller).  A value that makes no sense: OTA_EINVAL and a
 * sentence that names the variable.  Texts are allocated; free them with options_free().
 */
enum ota_code options_load(const struct option *table, size_t count, void *into,
			   struct ota_err *err);
/* The next variable whose name begins with PREFIX and is none of the table's; NULL: no more.  *AT
 * is 0 at first, and the caller's to keep. */
const char *options_unknown(const struct option *table, size_t count, const char *prefix,
			    size_t *at);
void options_free(const struct option *table, size_t count, void *from);
void options_print(const struct option *table, size_t count, FILE *out);
