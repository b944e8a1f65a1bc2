/* SPDX-License-Identifier: MIT */
#include "base/clock.h"

#include <stdatomic.h>
#include <stdio.h>
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

int64_t clock_service_us(void)
{
	static _Atomic int64_t offset_us; /* service time minus monotonic time */
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	int64_t mono = (int64_t)ts.tv_sec * US_PER_S + ts.tv_nsec / 1000;
	int64_t wall = clock_wall_us(), offset = atomic_load(&offset_us);
	if (wall - mono > offset) {
		/* Two threads may race here: the larger one stands in the end, by the next call. */
		atomic_store(&offset_us, wall - mono);
		return wall;
	}
	return mono + offset;
}

void time_format(int64_t us, char out[TIME_TEXT_SIZE])
{
	const int64_t last_us = INT64_C(253402300799999999); /* 9999-12-31T23:59:59.999999Z */
	struct tm tm;
	time_t s;

	if (us < 0)
		us = 0;
	if (us > last_us)
		us = last_us;
	s = (time_t)(us / US_PER_S);
	gmtime_r(&s, &tm);
	char text[96]; /* wide enough for any int, so the compiler can see that nothing is cut */
	snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", tm.tm_year + 1900,
		 tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int)(us % US_PER_S));
	memcpy(out, text, TIME_TEXT_SIZE - 1);
	out[TIME_TEXT_SIZE - 1] = '\0';
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
	struct tm tm = {.tm_year = year - 1900,
			.tm_mon = month - 1,
			.tm_mday = day,
			.tm_hour = hour,
			.tm_min = min,
			.tm_sec = sec};
	*us = (int64_t)timegm(&tm) * US_PER_S + micro;
	return true;
}
