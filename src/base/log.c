/* SPDX-License-Identifier: MIT */
#include "base/log.h"

#include "base/buf.h"
#include "base/clock.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static enum log_level least_level = LOG_INFO;
static bool as_json;

void log_configure(enum log_level least, bool json)
{
	least_level = least;
	as_json = json;
}

bool log_enabled(enum log_level level)
{
	return level >= least_level;
}

static const char *const level_names[] = {"debug", "info", "warning", "error"};

static void add_plain(struct buf *b, const char *text)
{
	for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
		if (*p < 0x20 || *p == 0x7F)
			buf_printf(b, "\\x%02x", *p);
		else
			buf_addc(b, (char)*p);
	}
}

void log_event(enum log_level level, const char *subject, const char *event, const char *fmt, ...)
{
	char text[1024], now[TIME_TEXT_SIZE];
	struct buf b = BUF_INIT;
	va_list ap;

	if (!log_enabled(level))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	time_format(clock_wall_us(), now);
	if (as_json) {
		json_open(&b, NULL, '{');
		json_str(&b, "time", now);
		json_str(&b, "level", level_names[level]);
		json_str(&b, "subject", subject);
		json_str(&b, "event", event);
		json_str(&b, "text", text);
		json_close(&b, '}');
	} else {
		buf_printf(&b, "%s %s ", now, level_names[level]);
		add_plain(&b, subject);
		buf_printf(&b, " %s ", event);
		add_plain(&b, text);
	}
	buf_addc(&b, '\n');
	/* A log that cannot be written has nobody to tell. */
	if (buf_ok(&b)) {
		ssize_t n = write(STDERR_FILENO, b.data, b.len);
		(void)n;
	}
	buf_fini(&b);
}
