/* SPDX-License-Identifier: MIT */
/* How sizes, times and states are written for people.  OUT of 32 bytes is always enough. */
#pragma once

#include "cli/cli.h"
#include "cli/term.h"

#define FORMAT_SIZE 32

/* "874412 bytes" up to 9999, then "853.9 KiB", "1.3 MiB". */
void format_bytes(int64_t bytes, char out[FORMAT_SIZE]);
/* "42 s", "3 min", "5 h 12 min", "9 d 3 h". */
void format_duration(int64_t seconds, char out[FORMAT_SIZE]);
/* A timestamp of the service: how long ago on a terminal, else unchanged; "-" for NULL. */
void format_time(const struct cli *c, const char *timestamp, char out[FORMAT_SIZE]);
/* "2026-11-23 22:12:49 UTC (3 min ago)" */
void format_time_long(const struct cli *c, const char *timestamp, char *out, size_t size);
/* "10 %" of a row's number, "" when it has none. */
void format_percent(const json_t *row, const char *key, char out[FORMAT_SIZE]);
void format_int(const json_t *row, const char *key, char out[FORMAT_SIZE]);
/* Of an update's status. */
enum colour format_status_colour(const char *status);
/* "pending (withdrawn)" */
void format_status(const json_t *update, char out[FORMAT_SIZE]);

/* "  label     value" lines for one object; VALUE may be NULL or empty: no line. */
void format_field(const char *label, const char *value);
/* VALUE of any length and kind, cleaned, to stdout. */
void format_text(const char *value);
/* The answer's message (or all of it, with --json). */
enum ota_code format_message(const struct cli *c, const json_t *answer, const char *fallback,
			     struct ota_err *err);
/* Under a list that the limit has cut; on stderr. */
void format_more(const struct cli *c, const json_t *answer, size_t shown);
