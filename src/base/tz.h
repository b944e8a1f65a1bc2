/* SPDX-License-Identifier: MIT */
/*
 * A time zone as data: what the clocks of a place show at an instant.  Pure; any thread.
 * base/tzfile.h reads one.  Instants are seconds since 1970 UTC, offsets seconds east of UTC.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TZ_NAME_MAX 64 /* characters of a zone's name */

struct tz_change {
	int64_t at_s;     /* from then on ... */
	int32_t offset_s; /* ... clocks show this much more than UTC */
};

/* A day of the year and a time on it, as POSIX writes them. */
struct tz_day {
	enum {
		TZ_DAY_WEEK, /* Mm.w.d: the WEEKth (5: the last) weekday DAY (0: Sunday) of MONTH */
		TZ_DAY_JULIAN, /* Jn: DAY 1..365; 29 February is not counted */
		TZ_DAY_ZERO,   /* n: DAY 0..365; 29 February is counted */
	} form;
	int month, week, day;
	int32_t time_s; /* since midnight by the clock until then; maybe negative, or days later */
};

/* What holds in years that the changes do not reach. */
struct tz_rule {
	bool has_summer;
	int32_t standard_s, summer_s;
	struct tz_day begins, ends; /* summer time, each year */
};

struct tz {
	int32_t first_offset_s; /* before the first change */
	bool has_rule;          /* after the last one; without: that one holds for ever */
	struct tz_rule rule;
	size_t count;
	struct tz_change changes[]; /* ascending; each makes another offset than the one before */
};

/* The offset at T_S; *UNTIL_S (may be NULL): it holds so long, INT64_MAX: for ever. */
int32_t tz_offset_s(const struct tz *z, int64_t t_s, int64_t *until_s);

/* "EET-2EEST,M3.5.0/3,M10.5.0/4"; false: it is no such text, *OUT is untouched. */
bool tz_rule_parse(const char *text, struct tz_rule *out);

/* NULL: out of memory. */
struct tz *tz_new(size_t changes);
struct tz *tz_copy(const struct tz *z);
void tz_free(struct tz **z);
