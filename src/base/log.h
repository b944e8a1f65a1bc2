/* SPDX-License-Identifier: MIT */
/*
 * The log: one line an event on standard error, subject first, then the event's stable name.
 *
 *   2026-11-23T22:12:49.000000Z info device/esp32_001 update_completed version 1.2.0
 *   {"time":"...","level":"info","subject":"device/esp32_001","event":"update_completed","text":"..."}
 *
 * Any thread; a line is one write.  Control characters in texts are escaped: a device's words
 * cannot forge a line.
 */
#pragma once

#include "base/err.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR };

void log_configure(enum log_level least, bool json);
void log_event(enum log_level level, const char *subject, const char *event, const char *fmt, ...)
	OTA_PRINTF(4, 5);
bool log_enabled(enum log_level level);
