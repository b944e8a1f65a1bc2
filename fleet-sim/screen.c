/* SPDX-License-Identifier: MIT */
#include "fleet-sim/screen.h"

#include "cli/term.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define REDRAW_MS 250
#define LINE_MS   5000 /* without a terminal */
#define RATE_MS   1000

struct screen {
	struct fleet *f;
	bool quiet, full;
	int64_t begun_ms, drawn_ms;
	/* of the rates */
	int64_t rated_ms, out, in, answers;
	double out_rate, in_rate, answer_rate;
};

struct screen *screen_new(struct fleet *f, bool quiet)
{
	struct screen *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->f = f;
	s->quiet = quiet;
	s->begun_ms = s->drawn_ms = s->rated_ms = loop_now_ms(f->loop);
	s->full = !quiet && term_screen_open();
	return s;
}

void screen_close(struct screen *s)
{
	if (s->full)
		term_screen_close();
	s->full = false;
}

void screen_free(struct screen **s)
{
	if (*s)
		screen_close(*s);
	free(*s);
	*s = NULL;
}

static void take_rates(struct screen *s)
{
	int64_t now = loop_now_ms(s->f->loop);
	const struct broker_stats *b = s->f->broker ? broker_stats(s->f->broker) : NULL;
	int64_t out = b ? b->published : 0, in = b ? b->received : 0;
	int64_t answers = web_stats(s->f->web)->answers;
	double seconds = (double)(now - s->rated_ms) / 1000;

	if (now - s->rated_ms < RATE_MS)
		return;
	s->out_rate = (double)(out - s->out) / seconds;
	s->in_rate = (double)(in - s->in) / seconds;
	s->answer_rate = (double)(answers - s->answers) / seconds;
	s->rated_ms = now;
	s->out = out;
	s->in = in;
	s->answers = answers;
}

static int64_t tries(const struct fleet *f)
{
	int64_t n = 0;

	for (int o = 0; o < OUTCOMES; o++)
		n += f->stats.outcomes[o];
	return n;
}

/* Tries that have ended, of all there are; of the fleet while there is none. */
static double part_done(const struct fleet *f)
{
	int64_t all = tries(f), open = f->stats.outcomes[OUTCOME_OPEN];

	all = all > f->o.devices ? all : f->o.devices;
	return (double)(tries(f) - open) / (double)all;
}

static void draw_bar(struct buf *b, double part, int width)
{
	const char *full = term_utf8() ? "\u2588" : "#", *rest = term_utf8() ? "\u2591" : ".";
	int n = (int)(part * width);

	buf_adds(b, term_sgr(COLOUR_GREEN));
	for (int i = 0; i < width; i++) {
		if (i == n)
			buf_adds(b, term_sgr(COLOUR_DIM));
		buf_adds(b, i < n ? full : rest);
	}
	buf_adds(b, term_sgr(COLOUR_NONE));
}

#define EOL "\x1b[K\r\n"

static void draw_head(const struct screen *s, struct buf *b, const char *phase)
{
	const struct fleet *f = s->f;
	int64_t seconds = (loop_now_ms(f->loop) - s->begun_ms) / 1000;
	int width = term_columns() - 8;

	buf_printf(b,
		   "%spaku-fleet%s   %" PRIu32 " devices of %s, seed %" PRIu64 "   %s for %" PRId64
		   " s" EOL,
		   term_sgr(COLOUR_BOLD), term_sgr(COLOUR_NONE), f->o.devices, f->o.model,
		   f->o.seed, phase, seconds);
	buf_printf(b, "%s", f->o.server);
	if (f->broker)
		buf_printf(b, ", broker: %" PRIu32 " of %" PRIu32 " connections",
			   broker_stats(f->broker)->up, broker_stats(f->broker)->joined);
	buf_adds(b, EOL EOL);
	draw_bar(b, part_done(f), width < 100 ? width : 100);
	buf_printf(b, " %3.0f %%" EOL EOL, 100 * part_done(f));
}

static void draw_states(const struct fleet *f, struct buf *b)
{
	buf_adds(b, "devices  ");
	for (int k = 0; k < DEVICE_STATES; k++)
		if (f->stats.states[k])
			buf_printf(b, "  %s %" PRId64, device_state_name((enum device_state)k),
				   f->stats.states[k]);
	buf_adds(b, EOL "attempts ");
	for (int k = 0; k < OUTCOMES; k++)
		if (f->stats.outcomes[k])
			buf_printf(b, "  %s %" PRId64, outcome_name((enum outcome)k),
				   f->stats.outcomes[k]);
	buf_printf(b, EOL "told       %" PRId64 " offers, %" PRId64 " of them again" EOL EOL,
		   f->stats.offers + f->stats.again, f->stats.again);
}

static void draw_traffic(const struct screen *s, struct buf *b)
{
	const struct fleet *f = s->f;
	const struct web_stats *w = web_stats(f->web);

	if (f->broker) {
		const struct broker_stats *m = broker_stats(f->broker);

		buf_printf(b, "MQTT       %.0f/s out, %.0f/s in, %" PRId64 " not acknowledged" EOL,
			   s->out_rate, s->in_rate, m->published - m->acknowledged - m->abandoned);
		if (m->up < m->joined && m->problem[0])
			buf_printf(b, "           %s%s%s" EOL, term_sgr(COLOUR_YELLOW), m->problem,
				   term_sgr(COLOUR_NONE));
	}
	buf_printf(b,
		   "HTTP       %.0f/s, %" PRId64 " under way, %" PRId64 " busy (503), %" PRId64
		   " without an answer" EOL,
		   s->answer_rate, w->under_way, w->busy, w->failures);
	buf_printf(b, "images     %" PRId64 " (%.1f MB), %" PRId64 " damaged" EOL, f->stats.images,
		   (double)w->bytes / 1e6, f->stats.corrupt);
}

static void print_line(const struct screen *s, const char *phase)
{
	const struct fleet *f = s->f;

	fprintf(stderr,
		"%" PRId64 " s %s: %" PRId64 " of %" PRId64 " attempts ended, %" PRId64
		" well; %.0f messages/s, %.0f requests/s\n",
		(loop_now_ms(f->loop) - s->begun_ms) / 1000, phase,
		tries(f) - f->stats.outcomes[OUTCOME_OPEN], tries(f),
		f->stats.outcomes[OUTCOME_SUCCESS], s->out_rate + s->in_rate, s->answer_rate);
}

bool screen_draw(struct screen *s, const char *phase)
{
	int64_t now = loop_now_ms(s->f->loop);
	struct buf b = BUF_INIT;

	if (s->quiet || now - s->drawn_ms < (s->full ? REDRAW_MS : LINE_MS))
		return false;
	s->drawn_ms = now;
	take_rates(s);
	if (!s->full) {
		print_line(s, phase);
		return false;
	}
	buf_adds(&b, "\x1b[H");
	draw_head(s, &b, phase);
	draw_states(s->f, &b);
	draw_traffic(s, &b);
	buf_adds(&b, EOL "q or Ctrl-C ends it, with the comparison" EOL "\x1b[J");
	if (buf_ok(&b))
		fwrite(b.data, 1, b.len, stdout);
	fflush(stdout);
	buf_fini(&b);
	return term_wait(0);
}
