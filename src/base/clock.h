/* SPDX-License-Identifier: MIT */
/*
 * Time.  Wall time is microseconds since 1970 UTC (names end in _us); it goes into rows and may
 * jump.  Intervals inside one run are measured on the monotonic clock (names end in _mono_ms).
 * Any thread.
 */
#pragma once

#include "base/err.h"

#include <stdint.h>

#define US_PER_S INT64_C(1000000)

/* "2026-11-23T22:12:49.000000Z" and the NUL. */
#define TIME_TEXT_SIZE 28

int64_t clock_wall_us(void);
/*
 * The service's time: starts at the wall clock and runs on by the monotonic one, so that a clock
 * set back does not turn the order of things round; a wall clock that jumps ahead (a Pi that boots
 * in 1970 and then meets NTP) is followed.
 */
int64_t clock_service_us(void);
/* At the start, before other threads: the service's time goes on from what was stored last. */
void clock_service_not_before(int64_t us);
int64_t clock_mono_ms(void);
/* The same a tick of the kernel late (4 ms or so), for a tenth of the cost: for what counts in
 * seconds. */
int64_t clock_coarse_ms(void);

/* RFC 3339, UTC, always 27 characters, for years 1970 to 9999. */
void time_format(int64_t us, char out[TIME_TEXT_SIZE]);
/* The inverse, for exactly that form; false otherwise. */
bool time_parse(const char *text, int64_t *us);
/* As people write it: RFC 3339 with Z or an offset, seconds and their fraction optional ("T" may be
 * a blank). */
bool time_parse_human(const char *text, int64_t *us);
