/* SPDX-License-Identifier: MIT */
#include "cli/bar.h"
#include "cli/format.h"
#include "cli/term.h"
#include "base/clock.h"

#include <stdio.h>

#define REDRAW_MS 100

static void draw(void *ctx, int64_t moved, int64_t total)
{
	struct bar *b = ctx;
	int64_t now = clock_mono_ms();
	int columns = term_columns(), width = columns - 46, full;
	char done[FORMAT_SIZE], all[FORMAT_SIZE];

	if (total <= 0 || moved == b->drawn ||
	    (moved < total && now - b->drawn_mono_ms < REDRAW_MS))
		return;
	b->drawn_mono_ms = now;
	b->drawn = moved;
	b->shown = true;
	width = width > 40 ? 40 : width < 4 ? 4 : width;
	full = (int)(moved * width / total);
	format_bytes(moved, done);
	format_bytes(total, all);
	fprintf(stderr, "\r%s", term_sgr_err(COLOUR_CYAN));
	for (int i = 0; i < width; i++)
		fputs(i < full ? (term_utf8() ? "█" : "#") : (term_utf8() ? "░" : "."), stderr);
	fprintf(stderr, "%s %3d %%", term_sgr_err(COLOUR_NONE), (int)(moved * 100 / total));
	/* A line that wraps cannot be drawn over. */
	if (columns >= 36)
		fprintf(stderr, "  %s of %s", done, all);
	if (columns >= 52 && moved == total && b->at_end)
		fputs(b->at_end, stderr);
	fputs("\x1b[K", stderr);
}

void bar_begin(struct bar *b, struct http_request *q, bool wanted)
{
	if (!wanted || !term_is_tty(stderr))
		return;
	q->progress = draw;
	q->progress_ctx = b;
}

void bar_end(const struct bar *b)
{
	if (b->shown)
		fputs("\r\x1b[K", stderr);
}
