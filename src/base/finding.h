/* SPDX-License-Identifier: MIT */
/* What an examination finds: paku-ota doctor shows one a line. */
#pragma once

#include "base/err.h"

enum finding_level {
	FINDING_OK,
	FINDING_WARNING, /* it works, and somebody should know */
	FINDING_PROBLEM, /* it does not work, or will not for long */
};

/* WHAT was looked at (a word), what was found, and (NULL: nothing) what to do: sentences without
 * a full stop, borrowed. */
typedef void finding_fn(void *ctx, const char *what, enum finding_level level, const char *found,
			const char *advice);
/* The same, FOUND made as printf() does; over 511 bytes it is cut. */
void finding_say(finding_fn *say, void *ctx, const char *what, enum finding_level level,
		 const char *advice, const char *fmt, ...) OTA_PRINTF(6, 7);
