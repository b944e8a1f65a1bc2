/* SPDX-License-Identifier: MIT */
/* See table.h. */
#include "cli/table.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>

#define GAP      2
#define COLS_MAX 16
#define COMFORT  24 /* a version `{hash7}-{YYYYMMDD-HHMMSS}` has 23 characters */
#define PAD_MAX  40 /* without a terminal: one long cell makes its own line long, and no other */

struct cell {
	char *text;
	int width;
	enum colour colour;
};

void table_init(struct table *t, const struct col *cols, int ncols)
{
	*t = (struct table){.cols = cols, .ncols = ncols};
	if (ncols > COLS_MAX)
		abort();
}

void table_fini(struct table *t)
{
	for (size_t i = 0; i < t->n; i++)
		free(t->cells[i].text);
	free(t->cells);
	*t = (struct table){0};
}

void table_add(struct table *t, const char *text, enum colour colour)
{
	struct buf b = BUF_INIT;
	char *clean;

	if (t->n == t->cap) {
		size_t cap = t->cap ? t->cap * 2 : 256;
		struct cell *cells = realloc(t->cells, cap * sizeof(*cells));

		if (!cells) {
			t->failed = true;
			return;
		}
		t->cells = cells;
		t->cap = cap;
	}
	if (text)
		text_clean(&b, text, strlen(text), TEXT_LINE, term_is_tty(stdout) && !term_utf8());
	clean = buf_take(&b, NULL);
	if (!clean) {
		t->failed = true;
		return;
	}
	t->cells[t->n++] = (struct cell){clean, text_width(clean), colour};
}

/* Takes one column's width off the widest that is wider than its least (and FLOOR); false: none is.
 */
static bool shrink(const struct table *t, int *w, int floor)
{
	int widest = -1;

	for (int c = 0; c < t->ncols; c++)
		if (t->cols[c].least && w[c] > t->cols[c].least && w[c] > floor &&
		    (widest < 0 || w[c] > w[widest]))
			widest = c;
	if (widest < 0)
		return false;
	w[widest]--;
	return true;
}

static bool drop(const struct table *t, int *w)
{
	int found = -1;

	for (int c = 0; c < t->ncols; c++)
		if (w[c] >= 0 && t->cols[c].drop &&
		    (found < 0 || t->cols[c].drop > t->cols[found].drop))
			found = c;
	if (found < 0)
		return false;
	w[found] = -1;
	return true;
}

static int total(const struct table *t, const int *w)
{
	int sum = -GAP;

	for (int c = 0; c < t->ncols; c++)
		sum += w[c] < 0 ? 0 : w[c] + GAP;
	return sum;
}

static bool is_empty(const struct table *t, int col)
{
	for (size_t i = (size_t)col; i < t->n; i += (size_t)t->ncols)
		if (t->cells[i].width > 0)
			return false;
	return true;
}

/* Widths so that the table fits; -1: the column is left out. */
static void fit(const struct table *t, int width, int *w)
{
	int natural[COLS_MAX];

	for (int c = 0; c < t->ncols; c++) {
		w[c] = (int)strlen(t->cols[c].title);
		for (size_t i = (size_t)c; i < t->n; i += (size_t)t->ncols)
			w[c] = t->cells[i].width > w[c] ? t->cells[i].width : w[c];
		natural[c] = w[c];
		if (width == 0 && w[c] > PAD_MAX)
			w[c] = PAD_MAX;
	}
	if (width == 0)
		return;
	for (int c = 0; c < t->ncols; c++)
		if (t->cols[c].drop && is_empty(t, c))
			w[c] = -1;
	while (total(t, w) > width && shrink(t, w, COMFORT))
		;
	while (total(t, w) > width && drop(t, w))
		;
	while (total(t, w) > width && shrink(t, w, 0))
		; /* narrower than even that: the lines wrap */
	for (int c = 0; c < t->ncols; c++)
		while (w[c] >= 0 && w[c] < natural[c] && total(t, w) < width)
			w[c]++;
}

static void put(struct buf *out, const struct col *col, const char *text, int cell_width, int width,
		enum colour colour, bool last)
{
	bool ascii = !term_utf8();
	int pad = width - cell_width;

	if (col->right)
		text_pad(out, pad);
	if (colour != COLOUR_NONE)
		buf_adds(out, term_sgr(colour));
	text_fit(out, text, width, ascii);
	if (colour != COLOUR_NONE)
		buf_adds(out, term_sgr(COLOUR_NONE));
	if (!last)
		text_pad(out, (col->right || pad < 0 ? 0 : pad) + GAP);
}

void table_render(const struct table *t, struct buf *out, int width)
{
	int w[COLS_MAX], last = 0;

	if (t->failed) {
		out->failed = true;
		return;
	}
	fit(t, width, w);
	for (int c = 0; c < t->ncols; c++)
		last = w[c] >= 0 ? c : last;
	for (int c = 0; c < t->ncols; c++)
		if (w[c] >= 0)
			put(out, &t->cols[c], t->cols[c].title, (int)strlen(t->cols[c].title), w[c],
			    COLOUR_BOLD, c == last);
	buf_addc(out, '\n');
	for (size_t i = 0; i < t->n; i++) {
		int c = (int)(i % (size_t)t->ncols);
		int own = t->cells[i].width, room = width == 0 && own > w[c] ? own : w[c];

		if (w[c] >= 0)
			put(out, &t->cols[c], t->cells[i].text, own, room, t->cells[i].colour,
			    c == last);
		if (c == t->ncols - 1) {
			while (out->len && out->data[out->len - 1] == ' ')
				out->data[--out->len] = 0;
			buf_addc(out, '\n');
		}
	}
}

enum ota_code table_print(const struct table *t, struct ota_err *err)
{
	struct buf out = BUF_INIT;
	enum ota_code code = OTA_OK;

	table_render(t, &out, term_is_tty(stdout) ? term_columns() : 0);
	if (!buf_ok(&out))
		code = ota_fail_nomem(err);
	else if (out.len)
		fwrite(out.data, 1, out.len, stdout);
	buf_fini(&out);
	return code;
}
