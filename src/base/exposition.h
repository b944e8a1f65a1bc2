/* SPDX-License-Identifier: MIT */
/*
 * The Prometheus text format, version 0.0.4, and histograms to count into.  Names, labels and help
 * are the caller's and taken as they are, but for label values of others: exposition_label().
 */
#pragma once

#include "base/buf.h"

#include <stddef.h>
#include <stdint.h>

/* HELP and TYPE; the family's samples follow. */
void exposition_family(struct buf *b, const char *name, const char *type, const char *help);
/* A family of one sample. */
void exposition_one(struct buf *b, const char *name, const char *type, const char *help,
		    int64_t value);
/* name="value" inside braces: VALUE may hold anything. */
void exposition_label(struct buf *b, const char *name, const char *value);

#define HISTOGRAM_BOUNDS 12
/* What counts are sorted by; static. */
struct histogram_shape {
	size_t count;                 /* of bounds; what is beyond the last is counted as such */
	int64_t at[HISTOGRAM_BOUNDS]; /* ascending; a value of the bound itself is below it */
	int64_t per_unit;             /* 1000: counted in milliseconds, shown in seconds */
};
/* All zero to begin with.  Any thread may add while any other reads. */
struct histogram {
	_Atomic int64_t counts[HISTOGRAM_BOUNDS + 1], sum;
};
void histogram_add(struct histogram *h, const struct histogram_shape *shape, int64_t value);
int64_t histogram_count(const struct histogram *h, const struct histogram_shape *shape);
/* The samples of H: NAME_bucket, NAME_sum, NAME_count; LABELS is 'route="/x"', or "". */
void exposition_histogram(struct buf *b, const char *name, const char *labels,
			  const struct histogram *h, const struct histogram_shape *shape);
