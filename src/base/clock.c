/* SPDX-License-Identifier: MIT */
#include "base/clock.h"

#include <stdatomic.h>
#include <string.h>
#include <time.h>

int64_t clock_wall_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * US_PER_S + ts.tv_nsec / 1000;
}

int64_t clock_mono_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t clock_coarse_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static _Atomic int64_t offset_us; /* service time minus monotonic time */

void clock_service_not_before(int64_t us)
{
	int64_t now = clock_service_us();

	if (us > now)
		atomic_fetch_add(&offset_us, us - now);
}

int64_t clock_service_us(void)
{
	/* In this order: a thread that has to wait between the two must not bring time forward. */
	int64_t wall = clock_wall_us(), offset = atomic_load(&offset_us);
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	int64_t mono = (int64_t)ts.tv_sec * US_PER_S + ts.tv_nsec / 1000;
	if (wall - mono > offset) {
		/* Two threads may race here: the larger one stands in the end, by the next call. */
		atomic_store(&offset_us, wall - mono);
		return wall;
	}
	return mono + offset;
}

/*
 * Days since 1970-01-01 of a Gregorian date and back, for years 1970..9999: years are counted from
 * March, so that the leap day comes last.  The C library's gmtime_r() and timegm() look up time
 * zones, which shows when a fleet is loaded or a batch of reports is written.
 */
static int64_t days_from_date(int year, int month, int day)
{
	int64_t y = month <= 2 ? year - 1 : year;
	int64_t day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;

	return 365 * y + y / 4 - y / 100 + y / 400 + day_of_year - 719468;
}

static void date_from_days(int64_t days, int *year, int *month, int *day)
{
	int64_t n = days + 719468, era = n / 146097, in_era = n % 146097;
	int64_t y = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
	int64_t day_of_year = in_era - (365 * y + y / 4 - y / 100);
	int64_t m = (5 * day_of_year + 2) / 153;

	*day = (int)(day_of_year - (153 * m + 2) / 5 + 1);
	*month = (int)(m < 10 ? m + 3 : m - 9);
	*year = (int)(era * 400 + y + (*month <= 2));
}

static void put_digits(char *p, int value, int count)
{
	while (count-- > 0) {
		p[count] = (char)('0' + value % 10);
		value /= 10;
	}
}

void time_format(int64_t us, char out[TIME_TEXT_SIZE])
{
	const int64_t last_us = INT64_C(253402300799999999); /* 9999-12-31T23:59:59.999999Z */
	int year, month, day;

	if (us < 0)
		us = 0;
	if (us > last_us)
		us = last_us;
	int64_t s = us / US_PER_S;
	int in_day = (int)(s % 86400);
	date_from_days(s / 86400, &year, &month, &day);
	memcpy(out, "0000-00-00T00:00:00.000000Z", TIME_TEXT_SIZE);
	put_digits(out, year, 4);
	put_digits(out + 5, month, 2);
	put_digits(out + 8, day, 2);
	put_digits(out + 11, in_day / 3600, 2);
	put_digits(out + 14, in_day / 60 % 60, 2);
	put_digits(out + 17, in_day % 60, 2);
	put_digits(out + 20, (int)(us % US_PER_S), 6);
}

/* DIGITS decimal digits at *p; -1 when one of them is not a digit. */
static int digits(const char *p, int count)
{
	int v = 0;

	for (int i = 0; i < count; i++) {
		if (p[i] < '0' || p[i] > '9')
			return -1;
		v = v * 10 + (p[i] - '0');
	}
	return v;
}

bool time_parse(const char *text, int64_t *us)
{
	if (strlen(text) != TIME_TEXT_SIZE - 1 || text[4] != '-' || text[7] != '-' ||
	    text[10] != 'T' || text[13] != ':' || text[16] != ':' || text[19] != '.' ||
	    text[26] != 'Z')
		return false;
	int year = digits(text, 4), month = digits(text + 5, 2), day = digits(text + 8, 2);
	int hour = digits(text + 11, 2), min = digits(text + 14, 2), sec = digits(text + 17, 2);
	int micro = digits(text + 20, 6);
	if (year < 1970 || month < 1 || month > 12 || day < 1 || day > 31 || hour < 0 ||
	    hour > 23 || min < 0 || min > 59 || sec < 0 || sec > 60 || micro < 0)
		return false;
	int64_t in_day = hour * 3600 + min * 60 + sec;
	*us = (days_from_date(year, month, day) * 86400 + in_day) * US_PER_S + micro;
	return true;
}

static int days_of_month(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return month == 2 && leap ? 29 : days[month - 1];
}

/* "Z", "+02:00" or "-0330" to seconds east of UTC; false for anything else. */
static bool parse_offset(const char *p, int *offset_s)
{
	*offset_s = 0;
	if ((*p == 'Z' || *p == 'z') && !p[1])
		return true;
	if (*p != '+' && *p != '-')
		return false;
	int sign = *p == '-' ? -1 : 1, hours = digits(p + 1, 2);
	if (hours < 0 || hours > 14)
		return false;
	p += 3;
	p += *p == ':';
	int minutes = digits(p, 2);
	if (minutes < 0 || minutes > 59 || p[2])
		return false;
	*offset_s = sign * (hours * 3600 + minutes * 60);
	return true;
}

bool time_parse_human(const char *text, int64_t *us)
{
	int second = 0, offset_s;
	int64_t micro = 0;

	if (strnlen(text, 64) < 17 || strnlen(text, 64) == 64 || text[4] != '-' || text[7] != '-' ||
	    (text[10] != 'T' && text[10] != 't' && text[10] != ' ') || text[13] != ':')
		return false;
	int year = digits(text, 4), month = digits(text + 5, 2), day = digits(text + 8, 2);
	int hour = digits(text + 11, 2), minute = digits(text + 14, 2);
	const char *p = text + 16;
	if (*p == ':') {
		second = digits(p + 1, 2);
		p += second < 0 ? 0 : 3;
	}
	if (*p == '.') {
		int64_t unit = 100000;
		if (p[1] < '0' || p[1] > '9')
			return false;
		for (p++; *p >= '0' && *p <= '9'; p++, unit /= 10)
			micro += (*p - '0') * unit;
	}
	if (year < 1970 || month < 1 || month > 12 || day < 1 || day > days_of_month(year, month) ||
	    hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59 ||
	    !parse_offset(p, &offset_s))
		return false;
	int64_t in_day = hour * 3600 + minute * 60 + second - offset_s;
	*us = (days_from_date(year, month, day) * 86400 + in_day) * US_PER_S + micro;
	return *us >= 0;
}
