/* SPDX-License-Identifier: MIT */
#include "base/finding.h"

#include <stdio.h>

void finding_say(finding_fn *say, void *ctx, const char *what, enum finding_level level,
		 const char *advice, const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	say(ctx, what, level, text, advice);
}
