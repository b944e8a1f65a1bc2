/* SPDX-License-Identifier: MIT */
/* A bar on stderr that shows how far a transfer is, where that is a terminal. */
#pragma once

#include "cli/http.h"

struct bar {
	const char *at_end; /* what is said when all has gone; NULL: nothing */
	/* its own; begin with drawn -1 */
	int64_t drawn, drawn_mono_ms;
	bool shown;
};

/* Has the request Q draw B, if anybody would see it. */
void bar_begin(struct bar *b, struct http_request *q, bool wanted);
void bar_end(const struct bar *b);
