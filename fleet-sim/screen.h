/* SPDX-License-Identifier: MIT */
/* What a run looks like while it goes on, and in the end. */
#pragma once

#include "fleet-sim/fleet.h"
#include "fleet-sim/verify.h"

struct screen;

/* On a terminal a screen of its own, else a line now and then on stderr; QUIET: neither. */
struct screen *screen_new(struct fleet *f, bool quiet);
/* Back to how the terminal was. */
void screen_close(struct screen *s);
void screen_free(struct screen **s);
/* Draws if it is time.  PHASE: "running"; true when the user pressed q. */
bool screen_draw(struct screen *s, const char *phase);

/* VERIFIED NULL: nothing was compared, for REASON.  To stdout. */
void summary_print(const struct fleet *f, const struct differences *verified, const char *reason,
		   int64_t took_ms);
enum ota_code summary_json(const struct fleet *f, const struct differences *verified,
			   const char *reason, int64_t took_ms, struct ota_err *err);
/* A line a device: {"device":...,"version":...,"attempts":[...]}. */
enum ota_code record_write(const struct fleet *f, const char *path, struct ota_err *err);
