/* SPDX-License-Identifier: MIT */
/*
 * A table that fits the terminal.
 *
 * Too wide: first the columns that may shrink do, the widest first, as long as they stay
 * comfortable; then columns are left out, highest `drop` first; then the rest shrinks to its least
 * width.  Where there is no terminal nothing is cut, and a long cell moves what follows in its own
 * row alone.
 */
#pragma once

#include "base/buf.h"
#include "cli/term.h"

struct col {
	const char *title;
	bool right; /* aligned */
	int least;  /* shrinks down to this; 0: never */
	int drop;   /* left out in this order, the highest first; 0: never */
};

struct table {
	const struct col *cols;
	int ncols;
	struct cell *cells; /* row by row */
	size_t n, cap;
	bool failed;
};

/* COLS stays the caller's and has NCOLS entries. */
void table_init(struct table *t, const struct col *cols, int ncols);
void table_fini(struct table *t);
/* The next cell of the row; TEXT may be anything (it is cleaned), NULL is an empty cell. */
void table_add(struct table *t, const char *text, enum colour colour);
/* WIDTH 0: as wide as it needs.  A failed table prints nothing and makes OUT fail. */
void table_render(const struct table *t, struct buf *out, int width);
/* To stdout, at its width. */
enum ota_code table_print(const struct table *t, struct ota_err *err);
