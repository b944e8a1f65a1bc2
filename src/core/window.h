/* SPDX-License-Identifier: MIT */
/*
 * Maintenance windows: the hours of the week in which updates may begin, by the clocks of a place.
 *
 *     "Mon-Fri 01:00-05:00 Europe/Helsinki"      days, from-to, and the time zone at the end
 *     "daily 22:00-04:00 UTC"                    across midnight: the day is the one it begins on
 *     "Mon-Fri 01:00-05:00; Sat,Sun 00:00-24:00 America/New_York"       several, of one place
 *
 * A window is open whenever a clock on the wall there shows a time inside it.  So where clocks go
 * forward, an hour that no clock shows opens nothing; where they go back, what they show twice is
 * open twice.  Pure.
 */
#pragma once

#include "base/err.h"
#include "base/tz.h"

#define WINDOW_TEXT_MAX  200
#define WINDOW_PARTS_MAX 8
#define WINDOW_SPANS_MAX (WINDOW_PARTS_MAX * 8)

struct window {
	char text[WINDOW_TEXT_MAX + 1]; /* as a person wrote it */
	char zone_name[TZ_NAME_MAX + 1];
	struct tz *zone; /* owned; NULL: it could not be read, and the window never opens */
	/* Seconds since Monday 00:00 on the wall; ascending, apart from each other. */
	int span_count;
	struct {
		int32_t from_s, to_s;
	} spans[WINDOW_SPANS_MAX];
};

/* Reads TEXT; the zone is left NULL, for the caller to load.  OTA_EUNPROCESSABLE: a sentence that
 * says what is wrong, beginning with a verb. */
OTA_MUST_USE enum ota_code window_parse(const char *text, struct window *out, struct ota_err *err);
/* Both on the heap, with their zones.  NULL: out of memory. */
struct window *window_copy(const struct window *w);
void window_free(struct window **w);

bool window_is_open(const struct window *w, int64_t t_us);
/* When it next opens, or closes if it is open; INT64_MAX: not within 400 days. */
int64_t window_next_change_us(const struct window *w, int64_t t_us);
/* T_US if it is open, else when it opens; INT64_MAX: never. */
int64_t window_opens_us(const struct window *w, int64_t t_us);

/* "opens Mon 01:00 Europe/Helsinki (in 3 h)", "is open until Mon 05:00 Europe/Helsinki". */
void window_sentence(const struct window *w, int64_t t_us, char *out, size_t size);
