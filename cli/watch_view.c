/* SPDX-License-Identifier: MIT */
/* See watch.h: the screen and the line. */
#include "cli/watch.h"
#include "cli/api.h"
#include "cli/format.h"
#include "cli/term.h"
#include "cli/text.h"
#include "base/clock.h"

#include <inttypes.h>
#include <string.h>

#define SPARK_MAX 60

static void clean_fit(struct buf *out, const char *text, int cols)
{
	struct buf clean = BUF_INIT;

	text_clean(&clean, text ? text : "", text ? strlen(text) : 0, TEXT_LINE, !term_utf8());
	if (clean.data)
		text_fit(out, clean.data, cols, !term_utf8());
	buf_fini(&clean);
}

static void coloured(struct buf *out, enum colour colour, const char *text)
{
	buf_printf(out, "%s%s%s", term_sgr(colour), text, term_sgr(COLOUR_NONE));
}

static void draw_head(const struct watch_state *w, int cols, struct buf *out)
{
	bool active = api_true(w->rollout, "is_active");
	const char *state = api_str(w->rollout, "state");
	char right[64], watched[FORMAT_SIZE];
	struct buf line = BUF_INIT;

	snprintf(right, sizeof(right), "rollout %" PRId64 ", %.20s", api_int(w->rollout, "id", 0),
		 state    ? state
		 : active ? "active"
			  : "not active");
	clean_fit(&line, api_str(w->rollout, "name"), cols - (int)strlen(right) - 2);
	coloured(out, COLOUR_BOLD, line.data ? line.data : "");
	text_pad(out, cols - (int)strlen(right) - (line.data ? text_width(line.data) : 0));
	coloured(out, active ? COLOUR_GREEN : COLOUR_YELLOW, right);
	buf_addc(out, '\n');

	format_duration((w->now_us - w->started_us) / US_PER_S, watched);
	snprintf(right, sizeof(right), "watched for %s", watched);
	buf_reset(&line);
	buf_printf(&line, "%s for %s",
		   api_str(w->rollout, "firmware_version") ? api_str(w->rollout, "firmware_version")
							   : "?",
		   api_str(w->rollout, "device_model") ? api_str(w->rollout, "device_model") : "?");
	if (line.data)
		clean_fit(out, line.data, cols - (int)strlen(right) - 2);
	text_pad(out, cols - (int)strlen(right) - (line.data ? text_width(line.data) : 0));
	coloured(out, COLOUR_DIM, right);
	buf_addc(out, '\n');
	buf_fini(&line);
}

/* "through in about 3 h (2 h to 6 h)" */
static void draw_eta(const struct watch_state *w, int cols, struct buf *out)
{
	static const char *const keys[] = {"likely", "earliest", "latest"};
	const json_t *eta = json_object_get(w->rollout, "eta");
	char left[3][FORMAT_SIZE];
	struct buf line = BUF_INIT;

	for (int i = 0; i < 3; i++) {
		const char *at = api_str(eta, keys[i]);
		int64_t us;

		if (!at || !time_parse(at, &us))
			return;
		format_duration(us > w->now_us ? (us - w->now_us) / US_PER_S : 0, left[i]);
	}
	buf_printf(&line, "Through in about %s (%s to %s), as things go.", left[0], left[1],
		   left[2]);
	if (line.data) {
		clean_fit(out, line.data, cols);
		buf_addc(out, '\n');
	}
	buf_fini(&line);
}

/* Where it is, since when, why, and what it waits for. */
static void draw_stage(const struct watch_state *w, int cols, struct buf *out)
{
	const json_t *stage = json_object_get(w->rollout, "stage");
	const char *since = api_str(stage, "since"), *reason = api_str(w->rollout, "reason");
	const char *next = api_str(json_object_get(w->rollout, "next"), "sentence");
	char lasted[FORMAT_SIZE];
	struct buf line = BUF_INIT;
	int64_t us;

	if (!next)
		return;
	if (api_int(stage, "of", 1) > 1) {
		buf_printf(&line, "stage %" PRId64 " of %" PRId64 ", %" PRId64 " %%",
			   api_int(stage, "index", 1), api_int(stage, "of", 1),
			   api_int(stage, "percent", 0));
		if (since && time_parse(since, &us)) {
			format_duration((w->now_us - us) / US_PER_S, lasted);
			buf_printf(&line, ", for %s", lasted);
		}
	}
	if (reason)
		buf_printf(&line, "%s%s", line.len ? ": " : "", reason);
	if (line.data) {
		clean_fit(out, line.data, cols);
		buf_addc(out, '\n');
	}
	clean_fit(out, next, cols);
	buf_addc(out, '\n');
	draw_eta(w, cols, out);
	buf_fini(&line);
}

static void draw_bar(const struct watch_state *w, int cols, struct buf *out)
{
	bool utf8 = term_utf8();
	const struct {
		int64_t n;
		enum colour colour;
		const char *glyph;
	} parts[] = {
		{w->done, COLOUR_GREEN, utf8 ? "█" : "#"},
		{w->running, COLOUR_CYAN, utf8 ? "▒" : "="},
		{w->failed, COLOUR_RED, utf8 ? "✗" : "x"},
		{w->waiting, COLOUR_DIM, utf8 ? "░" : "."},
	};
	int width = cols - 6, at = 0;
	int64_t sum = 0, total = w->targeted > 0 ? w->targeted : 1;

	for (size_t p = 0; p < sizeof(parts) / sizeof(parts[0]); p++) {
		int end;

		sum += parts[p].n;
		end = (int)(sum * width / total);
		/* Even one device in ten thousand that failed or runs is seen. */
		if (parts[p].n > 0 && end <= at && at < width)
			end = at + 1;
		buf_adds(out, term_sgr(parts[p].colour));
		for (; at < end && at < width; at++)
			buf_adds(out, parts[p].glyph);
		buf_adds(out, term_sgr(COLOUR_NONE));
	}
	text_pad(out, width - at);
	buf_printf(out, "%4d %%\n", (int)(w->done * 100 / total));
}

/* WORDS and GAP blanks in COLOUR on the line that is filled up to *AT, or on the next one. */
static void flow(struct buf *out, int cols, int indent, int *at, enum colour colour,
		 const char *words, int gap)
{
	int n = text_width(words);

	if (*at > indent && *at + n > cols) {
		buf_addc(out, '\n');
		text_pad(out, indent);
		*at = indent;
	}
	*at += n + gap;
	buf_printf(out, "%s%s%s", term_sgr(colour), words, term_sgr(COLOUR_NONE));
	text_pad(out, gap);
}

static void draw_figures(const struct watch_state *w, int cols, struct buf *out)
{
	const struct {
		const char *name;
		int64_t n;
		enum colour colour;
	} figures[] = {
		{"done", w->done, COLOUR_GREEN},
		{"running", w->running, COLOUR_CYAN},
		{"failed", w->failed, COLOUR_RED},
		{"waiting", w->waiting, COLOUR_NONE},
	};
	char text[64];
	int at = 0;

	for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++) {
		snprintf(text, sizeof(text), "%s %" PRId64, figures[i].name, figures[i].n);
		flow(out, cols, 0, &at, figures[i].n ? figures[i].colour : COLOUR_NONE, text, 3);
	}
	snprintf(text, sizeof(text), "of %" PRId64 " targeted", w->targeted);
	flow(out, cols, 0, &at, COLOUR_NONE, text, 0);
	buf_addc(out, '\n');
	if (w->targeted == 0)
		buf_adds(out,
			 "No device is targeted yet: none of this model (or group) is known.\n");
	if (w->retrying)
		buf_printf(out, "%" PRId64 " of those waiting failed and will try again\n",
			   w->retrying);
	buf_addc(out, '\n');
	coloured(out, COLOUR_DIM, "attempts  ");
	at = 10;
	for (int i = 0; i < WATCH_STATES; i++) {
		if (w->counts[i] == 0)
			continue;
		snprintf(text, sizeof(text), "%s %" PRId64, watch_words[i], w->counts[i]);
		flow(out, cols, 10, &at, format_status_colour(watch_words[i]), text, 2);
	}
	buf_addc(out, '\n');
}

/* Completions over time, from the first (or the start of watching) until now. */
static void draw_spark(const struct watch_state *w, int cols, struct buf *out)
{
	static const char *const utf8[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
	static const char *const ascii[] = {" ", ".", ".", ":", ":", "-", "=", "+", "#"};
	int64_t buckets[SPARK_MAX] = {0}, from = w->started_us, span, step, most = 0;
	int width = cols - 12 < SPARK_MAX ? cols - 12 : SPARK_MAX;
	char duration[FORMAT_SIZE], bucket[FORMAT_SIZE];

	if (width < 10)
		return;
	for (size_t i = 0; i < w->rows.n; i++)
		if (w->rows.rows[i].success && w->rows.rows[i].completed_us &&
		    w->rows.rows[i].completed_us < from)
			from = w->rows.rows[i].completed_us;
	span = w->now_us - from > 0 ? w->now_us - from : 0;
	step = (span / width / US_PER_S + 1) * US_PER_S;
	for (size_t i = 0; i < w->rows.n; i++) {
		const struct watch_row *r = &w->rows.rows[i];
		int64_t at = (r->completed_us - from) / step;

		if (!r->success || !r->completed_us)
			continue;
		at = at < 0 ? 0 : at >= width ? width - 1 : at;
		buckets[at]++;
		most = buckets[at] > most ? buckets[at] : most;
	}
	coloured(out, COLOUR_DIM, "time line ");
	buf_adds(out, term_sgr(COLOUR_GREEN));
	for (int i = 0; i < width && i <= span / step; i++) {
		int level = buckets[i] ? (int)((buckets[i] * 8 + most - 1) / most) : 0;

		buf_adds(out, (term_utf8() ? utf8 : ascii)[level]);
	}
	format_duration(span / US_PER_S, duration);
	format_duration(step / US_PER_S, bucket);
	buf_printf(out, "%s\n%s          finished in the last %s, at most %" PRId64 " in %s%s\n",
		   term_sgr(COLOUR_NONE), term_sgr(COLOUR_DIM), duration, most, bucket,
		   term_sgr(COLOUR_NONE));
}

static void draw_events(const struct watch_state *w, int cols, int lines, struct buf *out)
{
	const json_t *e;
	size_t i;

	json_array_foreach(w->events, i, e)
	{
		const char *type = api_str(e, "event_type"), *device = api_str(e, "device_id");
		const json_t *data = json_object_get(e, "event_data");
		const char *error = api_str(data, "error_message");
		const char *message = error ? error : api_str(data, "status");
		const char *at = api_str(e, "created_at");
		struct buf line = BUF_INIT;
		int64_t us;

		if ((int)i >= lines)
			break;
		if (at && time_parse(at, &us))
			buf_printf(&line, "%.8s", at + 11);
		coloured(out, COLOUR_DIM, line.data ? line.data : "        ");
		buf_fini(&line);
		buf_printf(out, "  %s", term_sgr(format_status_colour(type)));
		clean_fit(&line, type ? type : "?", 18);
		buf_adds(out, line.data ? line.data : "");
		text_pad(out, 18 - (line.data ? text_width(line.data) : 0));
		buf_printf(out, "%s  ", term_sgr(COLOUR_NONE));
		buf_reset(&line);
		buf_printf(&line, "%s%s%s", device ? device : "", message ? "  " : "",
			   message ? message : "");
		if (line.data)
			clean_fit(out, line.data, cols - 30);
		buf_addc(out, '\n');
		buf_fini(&line);
	}
}

static int count_lines(const struct buf *b)
{
	int n = 0;

	for (size_t i = 0; i < b->len; i++)
		n += b->data[i] == '\n';
	return n;
}

void watch_draw(const struct watch_state *w, int cols, int lines, struct buf *out)
{
	int left;

	draw_head(w, cols, out);
	draw_stage(w, cols, out);
	buf_addc(out, '\n');
	draw_bar(w, cols, out);
	draw_figures(w, cols, out);
	buf_addc(out, '\n');
	draw_spark(w, cols, out);
	left = lines - count_lines(out) - 3; /* blank, title, footer */
	if (left > 0 && json_array_size(w->events)) {
		buf_addc(out, '\n');
		coloured(out, COLOUR_DIM, "last events (UTC)\n");
		draw_events(w, cols, left, out);
	}
}

/* "  stage 1 of 4 (10 %), waits for proof", where there are several. */
static void add_stage(const struct watch_state *w, struct buf *out)
{
	const json_t *stage = json_object_get(w->rollout, "stage");
	const char *state = api_str(w->rollout, "state");
	const char *waits = api_str(json_object_get(w->rollout, "next"), "waits_for");
	struct buf words = BUF_INIT;

	if (!waits || !state || api_int(stage, "of", 1) < 2)
		return;
	buf_printf(&words, "%s in stage %" PRId64 " of %" PRId64 " (%" PRId64 " %%)", state,
		   api_int(stage, "index", 1), api_int(stage, "of", 1),
		   api_int(stage, "percent", 0));
	if (strcmp(waits, "over") != 0)
		buf_printf(&words, ", waits for %s", waits);
	buf_adds(out, "  ");
	if (words.data)
		clean_fit(out, words.data, 200);
	buf_fini(&words);
}

void watch_line(const struct watch_state *w, struct buf *out)
{
	char at[TIME_TEXT_SIZE];
	const char *sep = "  ";

	time_format(w->now_us, at);
	buf_printf(out,
		   "%.19sZ  done %" PRId64 "  running %" PRId64 "  failed %" PRId64
		   "  waiting %" PRId64 "  of %" PRId64,
		   at, w->done, w->running, w->failed, w->waiting, w->targeted);
	for (int i = 0; i < WATCH_STATES; i++)
		if (w->counts[i]) {
			buf_printf(out, "%s%s %" PRId64, sep, watch_words[i], w->counts[i]);
			sep = ", ";
		}
	add_stage(w, out);
	buf_addc(out, '\n');
}
