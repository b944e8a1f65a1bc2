/* SPDX-License-Identifier: MIT */
/*
 * Text from elsewhere, made fit to show: no control characters, a known width.  Pure.
 *
 * Whatever came from the service (or a device behind it) goes through text_clean() before it
 * reaches a terminal: escape sequences, bidirectional overrides and broken UTF-8 become visible
 * signs.
 */
#pragma once

#include "base/buf.h"

#include <stddef.h>

enum text_mode {
	TEXT_LINE,      /* line breaks and tabs become spaces */
	TEXT_PARAGRAPH, /* line breaks stay */
};

/* ascii: what is not ASCII becomes '?', for terminals without UTF-8. */
void text_clean(struct buf *out, const char *s, size_t len, enum text_mode mode, bool ascii);
/* JSON text (already valid) with DEL, C1 and override characters written as \u escapes. */
void text_clean_json(struct buf *out, const char *json, size_t len);
/* Columns that clean text takes. */
int text_width(const char *s);
/* S cut to COLS columns, the cut marked with "…" (or "~"). */
void text_fit(struct buf *out, const char *s, int cols, bool ascii);
void text_pad(struct buf *out, int cols);
