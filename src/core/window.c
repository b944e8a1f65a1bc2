/* SPDX-License-Identifier: MIT */
#include "core/window.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define DAY_S     86400
#define WEEK_S    (7 * DAY_S)
#define HORIZON_S (INT64_C(400) * DAY_S)

static const char *const day_names[7] = {"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"};

/* --- the text --- */

/* One part of a window, as written. */
struct part {
	unsigned days; /* 1 << 0: Monday ... */
	int32_t from_s, to_s;
};

/* The first word of *P, which goes on behind it; cut at SIZE. */
static bool next_word(const char **p, char *word, size_t size)
{
	*p += strspn(*p, " \t");
	size_t n = strcspn(*p, " \t"), kept = n < size ? n : size - 1;

	memcpy(word, *p, kept);
	word[kept] = '\0';
	*p += n;
	return n > 0;
}

static int day_from_name(const char *name, size_t len)
{
	for (int d = 0; d < 7 && len == 3; d++)
		if (strncasecmp(name, day_names[d], 3) == 0)
			return d;
	return -1;
}

/* "Mon-Fri", "Sat,Sun", "daily"; "Fri-Mon" goes over the end of the week. */
static bool parse_days(const char *word, unsigned *out)
{
	*out = 0;
	if (strcasecmp(word, "daily") == 0) {
		*out = 0x7F;
		return true;
	}
	for (const char *p = word;; p++) {
		size_t n = strcspn(p, ",-");
		int first = day_from_name(p, n), last = first;
		p += n;
		if (*p == '-') {
			n = strcspn(++p, ",-");
			last = day_from_name(p, n);
			p += n;
		}
		if (first < 0 || last < 0 || *p == '-')
			return false;
		for (int d = first;; d = (d + 1) % 7) {
			*out |= 1u << d;
			if (d == last)
				break;
		}
		if (!*p)
			return true;
	}
}

/* "01:00"; hours may be of one digit. */
static bool parse_time(const char *text, size_t len, int32_t *out_s)
{
	char copy[6] = "", rest;
	int hours, minutes;

	if (len < 4 || len > 5 || strspn(text, "0123456789:") < len)
		return false;
	memcpy(copy, text, len);
	if (copy[len - 3] != ':' || sscanf(copy, "%d:%d%c", &hours, &minutes, &rest) != 2 ||
	    hours > 24 || minutes > 59 || (hours == 24 && minutes))
		return false;
	*out_s = hours * 3600 + minutes * 60;
	return true;
}

static enum ota_code parse_times(const char *word, struct part *out, struct ota_err *err)
{
	size_t n = strcspn(word, "-");

	if (!word[n] || !parse_time(word, n, &out->from_s) ||
	    !parse_time(word + n + 1, strlen(word + n + 1), &out->to_s) || out->from_s == DAY_S)
		return ota_fail(err, OTA_EUNPROCESSABLE,
				"must have times such as 01:00-05:00 after the days ('%s' is not)",
				word);
	if (out->from_s == out->to_s)
		return ota_fail(err, OTA_EUNPROCESSABLE,
				"never opens: %s has no length; the whole day is 00:00-24:00",
				word);
	return OTA_OK;
}

/* One part of the text; ZONE is "" where it names none. */
static enum ota_code parse_part(const char *text, struct part *out, char *zone, size_t zone_size,
				struct ota_err *err)
{
	char word[80], more[2];
	enum ota_code rc;

	if (!next_word(&text, word, sizeof word) || !parse_days(word, &out->days))
		return ota_fail(err, OTA_EUNPROCESSABLE,
				"must begin with its days, such as Mon-Fri, Sat,Sun or daily "
				"('%s' is not)",
				word);
	if (!next_word(&text, word, sizeof word))
		return ota_fail(err, OTA_EUNPROCESSABLE,
				"needs times after its days, such as 01:00-05:00");
	rc = parse_times(word, out, err);
	if (rc != OTA_OK)
		return rc;
	(void)next_word(&text, zone, zone_size);
	if (next_word(&text, more, sizeof more))
		return ota_fail(err, OTA_EUNPROCESSABLE,
				"has too many words: days, times and a time zone, and ';' before "
				"the next");
	return OTA_OK;
}

/* --- the week --- */

/* The span goes in where it belongs, and takes in those that it touches. */
static void add_span(struct window *w, int32_t from_s, int32_t to_s)
{
	int kept = 0, at;

	for (int i = 0; i < w->span_count; i++) {
		if (w->spans[i].to_s < from_s || w->spans[i].from_s > to_s) {
			w->spans[kept++] = w->spans[i];
			continue;
		}
		from_s = w->spans[i].from_s < from_s ? w->spans[i].from_s : from_s;
		to_s = w->spans[i].to_s > to_s ? w->spans[i].to_s : to_s;
	}
	for (at = kept; at > 0 && w->spans[at - 1].from_s > from_s; at--)
		w->spans[at] = w->spans[at - 1];
	w->spans[at].from_s = from_s;
	w->spans[at].to_s = to_s;
	w->span_count = kept + 1;
}

static void add_part(struct window *w, const struct part *p)
{
	for (int d = 0; d < 7; d++) {
		if (!(p->days >> d & 1))
			continue;
		int32_t from_s = d * DAY_S + p->from_s;
		int32_t to_s = d * DAY_S + p->to_s + (p->to_s < p->from_s ? DAY_S : 0);
		if (to_s <= WEEK_S) {
			add_span(w, from_s, to_s);
			continue;
		}
		add_span(w, from_s, WEEK_S);
		add_span(w, 0, to_s - WEEK_S);
	}
}

enum ota_code window_parse(const char *text, struct window *out, struct ota_err *err)
{
	struct window w = {0};
	char zone[TZ_NAME_MAX + 2];
	int parts = 0;

	if (strlen(text) > WINDOW_TEXT_MAX)
		return ota_fail(err, OTA_EUNPROCESSABLE, "is longer than %d characters",
				WINDOW_TEXT_MAX);
	strcpy(w.text, text);
	for (const char *p = text;; p++) {
		char one[WINDOW_TEXT_MAX + 1] = "";
		struct part part;
		size_t n = strcspn(p, ";");
		memcpy(one, p, n);
		p += n;
		if (++parts > WINDOW_PARTS_MAX)
			return ota_fail(err, OTA_EUNPROCESSABLE, "has more than %d parts",
					WINDOW_PARTS_MAX);
		enum ota_code rc = parse_part(one, &part, zone, sizeof zone, err);
		if (rc != OTA_OK)
			return rc;
		add_part(&w, &part);
		if (!*p)
			break;
		if (zone[0])
			return ota_fail(err, OTA_EUNPROCESSABLE,
					"must name one time zone, at its end");
	}
	if (!zone[0])
		return ota_fail(err, OTA_EUNPROCESSABLE,
				"needs a time zone at its end, such as Europe/Helsinki or UTC");
	if (strlen(zone) > TZ_NAME_MAX)
		return ota_fail(err, OTA_EUNPROCESSABLE, "names no time zone: %s is too long",
				zone);
	strcpy(w.zone_name, zone);
	*out = w;
	return OTA_OK;
}

struct window *window_copy(const struct window *w)
{
	struct window *copy = malloc(sizeof *copy);

	if (!copy)
		return NULL;
	*copy = *w;
	if (w->zone && !(copy->zone = tz_copy(w->zone))) {
		free(copy);
		return NULL;
	}
	return copy;
}

void window_free(struct window **w)
{
	if (*w)
		tz_free(&(*w)->zone);
	free(*w);
	*w = NULL;
}

/* --- the time --- */

static int64_t floor_s(int64_t t_us)
{
	return t_us / US_PER_S - (t_us % US_PER_S < 0);
}

/* What a clock there shows, in seconds since Monday 00:00. */
static int32_t wall_s(int64_t t_s, int32_t offset_s)
{
	/* 1970-01-01 was a Thursday. */
	return (int32_t)((((t_s + offset_s + 3 * DAY_S) % WEEK_S) + WEEK_S) % WEEK_S);
}

static bool shows_open(const struct window *w, int32_t wall)
{
	for (int i = 0; i < w->span_count && w->spans[i].from_s <= wall; i++)
		if (wall < w->spans[i].to_s)
			return true;
	return false;
}

static bool is_open_at(const struct window *w, int64_t t_s)
{
	return w->zone && shows_open(w, wall_s(t_s, tz_offset_s(w->zone, t_s, NULL)));
}

bool window_is_open(const struct window *w, int64_t t_us)
{
	return is_open_at(w, floor_s(t_us));
}

/* Seconds until the next edge of a span, or the end of the week. */
static int32_t next_edge_s(const struct window *w, int32_t wall)
{
	for (int i = 0; i < w->span_count; i++) {
		if (w->spans[i].from_s > wall)
			return w->spans[i].from_s - wall;
		if (w->spans[i].to_s > wall)
			return w->spans[i].to_s - wall;
	}
	return WEEK_S - wall;
}

int64_t window_next_change_us(const struct window *w, int64_t t_us)
{
	int64_t t_s = floor_s(t_us), end_s = t_s + HORIZON_S, until_s;
	bool open = is_open_at(w, t_s);

	/* From one moment at which it may change to the next: an edge, or the zone's own. */
	while (w->zone && t_s < end_s) {
		int32_t offset_s = tz_offset_s(w->zone, t_s, &until_s);
		int64_t next_s = t_s + next_edge_s(w, wall_s(t_s, offset_s));
		t_s = next_s < until_s ? next_s : until_s;
		if (is_open_at(w, t_s) != open)
			return t_s * US_PER_S;
	}
	return INT64_MAX;
}

int64_t window_opens_us(const struct window *w, int64_t t_us)
{
	return window_is_open(w, t_us) ? t_us : window_next_change_us(w, t_us);
}

void window_sentence(const struct window *w, int64_t t_us, char *out, size_t size)
{
	int64_t change_us = window_next_change_us(w, t_us), at_s = floor_s(change_us);
	bool open = window_is_open(w, t_us);
	char in[32];

	if (!w->zone) {
		snprintf(out, size,
			 "stays shut: the time zone %s cannot be read (is the package tzdata "
			 "installed?)",
			 w->zone_name);
		return;
	}
	if (change_us == INT64_MAX) {
		snprintf(out, size, open ? "is always open" : "never opens");
		return;
	}
	int32_t wall = wall_s(at_s, tz_offset_s(w->zone, at_s, NULL));
	duration_text((change_us - t_us) / US_PER_S, in, sizeof in);
	snprintf(out, size, "%s %s %02d:%02d %s (in %s)", open ? "is open until" : "opens",
		 day_names[wall / DAY_S], wall % DAY_S / 3600, wall % 3600 / 60, w->zone_name, in);
}
