/* SPDX-License-Identifier: MIT */
/* Any bytes, read as a TZif file, as a rule and as a window: what is taken answers for any instant,
 * and what it says of changes is so. */
#include "base/clock.h"
#include "base/tzfile.h"
#include "core/window.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const int64_t instants[] = {
	-INT64_C(100000000000), -1, 0, 1000000000, 1793491200, 2147483648, 4102444800, 32503680000,
};
#define INSTANTS (sizeof instants / sizeof *instants)

static void try_zone(const struct tz *z)
{
	for (size_t i = 0; i < INSTANTS; i++) {
		int64_t until_s, t_s = instants[i];
		int32_t offset_s = tz_offset_s(z, t_s, &until_s);
		if (until_s <= t_s || offset_s < -90000 || offset_s > 93600 ||
		    tz_offset_s(z, until_s - 1, NULL) != offset_s)
			abort();
	}
}

static void try_window(const struct window *w)
{
	for (size_t i = 0; i < INSTANTS; i++) {
		int64_t t_us = instants[i] * US_PER_S, next_us = window_next_change_us(w, t_us);
		bool open = window_is_open(w, t_us);
		char said[200];
		if (next_us != INT64_MAX &&
		    (next_us <= t_us || window_is_open(w, next_us) == open ||
		     window_is_open(w, next_us - 1) != open))
			abort();
		window_sentence(w, t_us, said, sizeof said);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct window w, helsinki;
	struct tz *zone = NULL;
	struct tz_rule rule;
	struct ota_err err;
	char *text = malloc(size + 1);

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	(void)tz_rule_parse(text, &rule);
	if (tz_parse(data, size, &zone, &err) == OTA_OK) {
		try_zone(zone);
		if (window_parse("Mon-Fri 01:00-05:00; Sat,Sun 22:00-04:00 UTC", &helsinki, &err))
			abort();
		helsinki.zone = zone;
		try_window(&helsinki);
	}
	if (window_parse(text, &w, &err) == OTA_OK) {
		w.zone = tz_new(0);
		if (w.zone)
			try_window(&w);
		tz_free(&w.zone);
	}
	tz_free(&zone);
	free(text);
	return 0;
}
