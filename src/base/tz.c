/* SPDX-License-Identifier: MIT */
#include "base/tz.h"

#include <stdlib.h>
#include <string.h>

#define DAY_S INT64_C(86400)

/* --- the calendar --- */

static bool is_leap(int64_t year)
{
	return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

/* Days from 1970-01-01 to the first of January of YEAR. */
static int64_t year_begins(int64_t year)
{
	int64_t y = year - 1;

	/* Counted from the year 0 in eras of 400 years, so that the division is of no negative. */
	int64_t era = (y >= 0 ? y : y - 399) / 400, in_era = y - era * 400;
	return era * 146097 + in_era * 365 + in_era / 4 - in_era / 100 - 719162;
}

static int64_t year_of(int64_t day)
{
	int64_t year = day < 0 ? 1969 + day / 365 : 1970 + day / 366; /* or earlier than it is */

	while (year_begins(year + 1) <= day)
		year++;
	return year;
}

static int days_before_month(int64_t year, int month)
{
	static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365};

	return before[month - 1] + (month > 2 && is_leap(year));
}

static int64_t day_of_rule(const struct tz_day *d, int64_t year)
{
	int64_t first = year_begins(year);

	if (d->form == TZ_DAY_JULIAN)
		return first + d->day - 1 + (d->day >= 60 && is_leap(year));
	if (d->form == TZ_DAY_ZERO)
		return first + d->day;
	first += days_before_month(year, d->month);
	int weekday = (int)(((first + 4) % 7 + 7) % 7); /* 1970-01-01 was a Thursday */
	int64_t day = first + (d->day - weekday + 7) % 7 + 7 * (d->week - 1);
	int64_t end = d->month == 12 ? year_begins(year + 1)
				     : year_begins(year) + days_before_month(year, d->month + 1);
	return day < end ? day : day - 7;
}

/* --- the rule --- */

/* The end and the beginning of summer time in one year. */
static void rule_changes(const struct tz_rule *r, int64_t year, struct tz_change *ends,
			 struct tz_change *begins)
{
	*begins = (struct tz_change){day_of_rule(&r->begins, year) * DAY_S + r->begins.time_s -
					     r->standard_s,
				     r->summer_s};
	*ends = (struct tz_change){
		day_of_rule(&r->ends, year) * DAY_S + r->ends.time_s - r->summer_s, r->standard_s};
}

/* A rule may end the summer of one year in the next, after that one's has begun: so the changes of
 * the year, of two before, and of the next. */
#define YEARS 4

static int32_t rule_offset_s(const struct tz_rule *r, int64_t t_s, int64_t *until_s)
{
	struct tz_change c[2 * YEARS], last = {INT64_MIN, r->standard_s};

	if (!r->has_summer)
		return r->standard_s;
	int64_t local_s = t_s + r->standard_s;
	int64_t year = year_of(local_s / DAY_S - (local_s % DAY_S < 0));
	for (int i = 0; i < YEARS; i++)
		rule_changes(r, year - 2 + i, &c[i], &c[YEARS + i]);
	/* Where one summer ends as the next begins (all the year), the beginning comes later. */
	for (int i = 0; i < 2 * YEARS; i++) {
		if (c[i].at_s <= t_s && c[i].at_s >= last.at_s)
			last = c[i];
		if (c[i].at_s > t_s && c[i].at_s < *until_s)
			*until_s = c[i].at_s;
	}
	return last.offset_s;
}

int32_t tz_offset_s(const struct tz *z, int64_t t_s, int64_t *until_s)
{
	size_t low = 0, high = z->count; /* the first change after t_s is in [low, high] */
	int64_t until;

	if (!until_s)
		until_s = &until;
	*until_s = INT64_MAX;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (z->changes[middle].at_s <= t_s)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < z->count)
		*until_s = z->changes[low].at_s;
	else if (z->has_rule)
		return rule_offset_s(&z->rule, t_s, until_s);
	return low ? z->changes[low - 1].offset_s : z->first_offset_s;
}

/* --- the rule's text --- */

static bool is_letter(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* "EET" or "<+03>": three characters or more. */
static bool skip_name(const char **p)
{
	const char *begin = *p;

	if (**p == '<') {
		begin = ++*p;
		while (is_letter(**p) || is_digit(**p) || **p == '+' || **p == '-')
			++*p;
		return *p - begin >= 3 && *(*p)++ == '>';
	}
	while (is_letter(**p))
		++*p;
	return *p - begin >= 3;
}

static bool read_number(const char **p, int least, int most, int *out)
{
	int n = 0, digits = 0;

	for (; is_digit(**p) && digits < 4; ++*p, digits++)
		n = n * 10 + (**p - '0');
	*out = n;
	return digits > 0 && n >= least && n <= most;
}

/* "[+-]h[h[h]][:mm[:ss]]" */
static bool read_time(const char **p, int hours_max, int32_t *out_s)
{
	int sign = **p == '-' ? -1 : 1, hours, minutes = 0, seconds = 0;

	if (**p == '-' || **p == '+')
		++*p;
	if (!read_number(p, 0, hours_max, &hours))
		return false;
	if (**p == ':') {
		++*p;
		if (!read_number(p, 0, 59, &minutes))
			return false;
		if (**p == ':') {
			++*p;
			if (!read_number(p, 0, 59, &seconds))
				return false;
		}
	}
	*out_s = sign * (hours * 3600 + minutes * 60 + seconds);
	return true;
}

/* ",M3.5.0/3" */
static bool read_day(const char **p, struct tz_day *out)
{
	*out = (struct tz_day){.time_s = 2 * 3600};
	if (*(*p)++ != ',')
		return false;
	if (**p == 'M') {
		++*p;
		if (!read_number(p, 1, 12, &out->month) || *(*p)++ != '.' ||
		    !read_number(p, 1, 5, &out->week) || *(*p)++ != '.' ||
		    !read_number(p, 0, 6, &out->day))
			return false;
	} else if (**p == 'J') {
		++*p;
		out->form = TZ_DAY_JULIAN;
		if (!read_number(p, 1, 365, &out->day))
			return false;
	} else {
		out->form = TZ_DAY_ZERO;
		if (!read_number(p, 0, 365, &out->day))
			return false;
	}
	if (**p != '/')
		return true;
	++*p;
	return read_time(p, 167, &out->time_s);
}

bool tz_rule_parse(const char *text, struct tz_rule *out)
{
	struct tz_rule r = {0};
	const char *p = text;

	if (!skip_name(&p) || !read_time(&p, 24, &r.standard_s))
		return false;
	r.standard_s = -r.standard_s; /* POSIX counts westwards */
	if (*p) {
		r.has_summer = true;
		r.summer_s = r.standard_s + 3600;
		if (!skip_name(&p))
			return false;
		if (*p != ',') {
			if (!read_time(&p, 24, &r.summer_s))
				return false;
			r.summer_s = -r.summer_s;
		}
		if (!read_day(&p, &r.begins) || !read_day(&p, &r.ends) || *p)
			return false;
	}
	*out = r;
	return true;
}

/* --- memory --- */

static size_t size_of(size_t changes)
{
	return sizeof(struct tz) + changes * sizeof(struct tz_change);
}

struct tz *tz_new(size_t changes)
{
	return calloc(1, size_of(changes));
}

struct tz *tz_copy(const struct tz *z)
{
	struct tz *copy = tz_new(z->count);

	if (copy)
		memcpy(copy, z, size_of(z->count));
	return copy;
}

void tz_free(struct tz **z)
{
	free(*z);
	*z = NULL;
}
