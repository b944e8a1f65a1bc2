/* SPDX-License-Identifier: MIT */
/* See format.h. */
#include "cli/format.h"
#include "cli/api.h"
#include "cli/text.h"
#include "base/clock.h"

#include <inttypes.h>
#include <string.h>

void format_bytes(int64_t bytes, char out[FORMAT_SIZE])
{
	if (bytes < 10000)
		snprintf(out, FORMAT_SIZE, "%" PRId64 " bytes", bytes);
	else if (bytes < INT64_C(1000) * 1024)
		snprintf(out, FORMAT_SIZE, "%.1f KiB", (double)bytes / 1024);
	else
		snprintf(out, FORMAT_SIZE, "%.1f MiB", (double)bytes / (1024 * 1024));
}

void format_duration(int64_t s, char out[FORMAT_SIZE])
{
	if (s < 60)
		snprintf(out, FORMAT_SIZE, "%" PRId64 " s", s < 0 ? 0 : s);
	else if (s < 3600)
		snprintf(out, FORMAT_SIZE, "%" PRId64 " min", s / 60);
	else if (s < 86400)
		snprintf(out, FORMAT_SIZE, "%" PRId64 " h %" PRId64 " min", s / 3600, s / 60 % 60);
	else
		snprintf(out, FORMAT_SIZE, "%" PRId64 " d %" PRId64 " h", s / 86400, s / 3600 % 24);
}

static bool age(const struct cli *c, const char *timestamp, char out[FORMAT_SIZE])
{
	char duration[FORMAT_SIZE];
	int64_t us, s;

	if (!time_parse(timestamp, &us))
		return false;
	s = (cli_now_us(c) - us) / US_PER_S;
	if (s < 2) { /* the Date header has whole seconds */
		snprintf(out, FORMAT_SIZE, "now");
		return true;
	}
	format_duration(s, duration);
	snprintf(out, FORMAT_SIZE, "%.26s ago", duration);
	return true;
}

void format_time(const struct cli *c, const char *timestamp, char out[FORMAT_SIZE])
{
	if (!timestamp)
		snprintf(out, FORMAT_SIZE, "-");
	else if (!term_is_tty(stdout) || !age(c, timestamp, out))
		snprintf(out, FORMAT_SIZE, "%s", timestamp);
}

void format_time_long(const struct cli *c, const char *timestamp, char *out, size_t size)
{
	char ago[FORMAT_SIZE];

	if (!timestamp)
		snprintf(out, size, "never");
	else if (age(c, timestamp, ago))
		snprintf(out, size, "%.10s %.8s UTC (%s)", timestamp, timestamp + 11, ago);
	else
		snprintf(out, size, "%s", timestamp);
}

void format_percent(const json_t *row, const char *key, char out[FORMAT_SIZE])
{
	const json_t *v = json_object_get(row, key);

	out[0] = 0;
	if (json_is_number(v))
		snprintf(out, FORMAT_SIZE, "%g %%", json_number_value(v));
}

void format_int(const json_t *row, const char *key, char out[FORMAT_SIZE])
{
	const json_t *v = json_object_get(row, key);

	out[0] = 0;
	if (json_is_integer(v))
		snprintf(out, FORMAT_SIZE, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
}

enum colour format_status_colour(const char *status)
{
	static const struct {
		const char *word;
		enum colour colour;
	} colours[] = {
		{"success", COLOUR_GREEN},          {"failed", COLOUR_RED},
		{"rolled_back", COLOUR_RED},        {"downloading", COLOUR_CYAN},
		{"downloaded", COLOUR_CYAN},        {"installing", COLOUR_CYAN},
		{"update_completed", COLOUR_GREEN}, {"update_failed", COLOUR_RED},
		{"rollback_initiated", COLOUR_RED}, {"update_started", COLOUR_CYAN},
	};

	for (size_t i = 0; status && i < sizeof(colours) / sizeof(colours[0]); i++)
		if (strcmp(colours[i].word, status) == 0)
			return colours[i].colour;
	return COLOUR_NONE;
}

void format_status(const json_t *update, char out[FORMAT_SIZE])
{
	const char *status = api_str(update, "status"), *closed = api_str(update, "closed");

	if (closed)
		snprintf(out, FORMAT_SIZE, "%.14s (%.13s)", status ? status : "?", closed);
	else
		snprintf(out, FORMAT_SIZE, "%.31s", status ? status : "?");
}

static void put_clean(const char *value, enum text_mode mode, const char *indent)
{
	struct buf out = BUF_INIT;

	text_clean(&out, value, strlen(value), mode, term_is_tty(stdout) && !term_utf8());
	for (const char *line = out.data; line;) {
		size_t n = strcspn(line, "\n");

		fwrite(line, 1, n, stdout);
		fputc('\n', stdout);
		line = line[n] ? line + n + 1 : NULL;
		if (line && *line)
			fputs(indent, stdout);
	}
	buf_fini(&out);
}

void format_field(const char *label, const char *value)
{
	if (!value || !*value)
		return;
	printf("  %s%-13s%s ", term_sgr(COLOUR_DIM), label, term_sgr(COLOUR_NONE));
	put_clean(value, TEXT_PARAGRAPH, "                ");
}

void format_text(const char *value)
{
	put_clean(value, TEXT_PARAGRAPH, "");
}

enum ota_code format_message(const struct cli *c, const json_t *answer, const char *fallback,
			     struct ota_err *err)
{
	const char *message = api_str(answer, "message");

	if (c->json)
		return api_print_json(answer, err);
	format_text(message && *message ? message : fallback);
	return OTA_OK;
}

void format_more(const struct cli *c, const json_t *answer, size_t shown)
{
	if (!c->json && api_str(answer, "next_cursor"))
		fprintf(stderr, "%zu shown, there are more: --limit N or --all\n", shown);
}
