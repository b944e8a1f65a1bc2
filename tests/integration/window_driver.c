/* SPDX-License-Identifier: MIT */
/*
 * Time zones and windows for test_window.py.  A line in, a line out:
 *
 *     offset ZONE T...       seconds east of UTC at each T (seconds since 1970)
 *     window T TEXT          "1 T2" or "0 T2": open or not at T, and when that changes ("never")
 *     sentence T TEXT        as people read it
 *
 * What is refused is answered by "error: " and the sentence.
 */
#include "base/clock.h"
#include "base/tzfile.h"
#include "core/window.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void offsets(char *args, struct ota_err *err)
{
	struct tz *zone = NULL;
	char *save, *name = strtok_r(args, " ", &save), *t;

	if (tz_load(TZ_DIRECTORY, name, &zone, err) != OTA_OK) {
		printf("error: %s\n", err->msg);
		return;
	}
	while ((t = strtok_r(NULL, " ", &save)) != NULL)
		printf("%d ", tz_offset_s(zone, atoll(t), NULL));
	printf("\n");
	tz_free(&zone);
}

static void window(char *args, bool sentence, struct ota_err *err)
{
	char *text, said[200];
	int64_t t_us = strtoll(args, &text, 10) * US_PER_S;
	struct window w;

	if (window_parse(text + 1, &w, err) != OTA_OK ||
	    tz_load(TZ_DIRECTORY, w.zone_name, &w.zone, err) != OTA_OK) {
		printf("error: %s\n", err->msg);
		return;
	}
	int64_t next_us = window_next_change_us(&w, t_us);
	window_sentence(&w, t_us, said, sizeof said);
	if (sentence)
		printf("%s\n", said);
	else if (next_us == INT64_MAX)
		printf("%d never\n", window_is_open(&w, t_us));
	else
		printf("%d %" PRId64 "\n", window_is_open(&w, t_us), next_us / US_PER_S);
	tz_free(&w.zone);
}

int main(void)
{
	static char line[65536];
	struct ota_err err;

	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = '\0';
		char *args = strchr(line, ' ');
		if (!args)
			return 2;
		*args++ = '\0';
		if (strcmp(line, "offset") == 0)
			offsets(args, &err);
		else
			window(args, strcmp(line, "sentence") == 0, &err);
	}
	return 0;
}
