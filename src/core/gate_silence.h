/* SPDX-License-Identifier: MIT */
/*
 * When silence is a failure.  Pure; its owner is one thread.
 *
 * A device at risk that is not heard of for three times its own habit, and silence_s at least, has
 * failed, unless it is us: the time in which the service or its broker was down does not count, and
 * when more than a fifth of the comparable devices that were not exposed and were due in the same
 * interval are silent too, it is an outage, which counts nothing and pauses.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* --- a clock that stands while we hear nobody --- */

#define GATE_DOWNS_MAX 32
/* Between two ticks further apart the service did not run: stopped, suspended, or its clock jumped.
 */
#define GATE_TICK_MOST_US (INT64_C(60) * 1000000)

struct gate_down {
	int64_t from_us, to_us;
};

/* Starts as {0}.  To keep it over a restart, write it down whole; the gap is found by itself. */
struct gate_clock {
	int64_t tick_us; /* the last; 0: none */
	int count;
	struct gate_down downs[GATE_DOWNS_MAX]; /* rising; when full the two nearest are joined,
						   so that it rather stands too long */
};

/* Called each second or so; UP: devices can reach us, over every door that they use. */
void gate_clock_tick(struct gate_clock *c, int64_t now_us, bool up);
/* When devices could last reach us: at the last tick, or before it, where the clock stands. */
int64_t gate_clock_heard_us(const struct gate_clock *c);
/* How long we could have heard a device since SINCE_US; 0 when that is not in the past. */
int64_t gate_clock_since(const struct gate_clock *c, int64_t since_us, int64_t now_us);

/* --- a device's habit --- */

/* Contacts nearer than this are one: a device that wakes asks, downloads and reports at once. */
#define GATE_CONTACT_US (INT64_C(60) * 1000000)

/* The habit after a gap between two contacts; 0: not known yet.  It follows longer gaps at once,
 * twofold at the most each time, and shorter ones slowly. */
int64_t gate_habit_next(int64_t habit_us, int64_t gap_us);
/* The silence that is a failure.  Give the poll interval for a habit that is not known. */
int64_t gate_silence_limit_us(int64_t habit_us, int64_t silence_s);

/* --- the control --- */

/* DUE comparable devices, not exposed, should have been heard in the interval; SILENT were not. */
bool gate_is_outage(int64_t due, int64_t silent);

enum gate_hearing {
	GATE_HEARD,  /* not silent, or not for long enough */
	GATE_SILENT, /* failed */
	GATE_OUTAGE, /* silent, and so are others: pause, alert, count nothing */
};

struct gate_silence {
	int64_t heard_us; /* the device's last contact, or when it had the whole image: the later */
	int64_t habit_us;
	int64_t silence_s;   /* of the gate's parameters */
	int64_t due, silent; /* the control */
};

enum gate_hearing gate_silence_judge(const struct gate_silence *s, const struct gate_clock *c,
				     int64_t now_us);
