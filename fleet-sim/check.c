/* SPDX-License-Identifier: MIT */
/* HTTP's side of hearing of updates: a device asks, again and again. */
#include "fleet-sim/fleet.h"

#include "cli/http.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AGAIN_MS     1000
#define POLL_S       60  /* where the service does not say, or makes no sense */
#define UNHURRIED_MS 250 /* until reports that wait are looked for again */

/* Reasons after which something is still to come. */
static bool is_final(const char *reason)
{
	static const char *const open[] = {"offered",        "in_progress",       "installing",
					   "waits_its_turn", "waits_for_a_place", "stopped"};

	for (size_t i = 0; reason && i < sizeof open / sizeof open[0]; i++)
		if (strcmp(reason, open[i]) == 0)
			return false;
	return true;
}

static void settle(struct fleet *f, struct device *d, bool settled, bool up_to_date)
{
	f->stats.settled += settled - d->settled;
	f->stats.up_to_date += up_to_date - d->up_to_date;
	d->settled = settled;
	d->up_to_date = up_to_date;
}

/* The interval of the service has its own jitter; ours is drawn. */
static int64_t poll_ms(const struct fleet *f, struct device *d, const json_t *answer)
{
	json_int_t told_s = json_integer_value(json_object_get(answer, "retry_after_s"));

	if (f->o.poll_ms > 0)
		return (int64_t)((double)f->o.poll_ms *
				 (0.8 +
				  0.4 * draw_unit(f->o.seed, d->number, DRAW_POLL, d->polls)));
	return (told_s > 0 && told_s <= RETRY_MOST_S ? told_s : POLL_S) * 1000;
}

static void take_answer(struct fleet *f, struct device *d, const json_t *answer)
{
	const char *reason = json_string_value(json_object_get(answer, "reason"));
	const json_t *size = json_object_get(answer, "file_size");
	struct offer o = {
		.url = json_string_value(json_object_get(answer, "download_url")),
		.checksum = json_string_value(json_object_get(answer, "checksum_sha256")),
		.version = json_string_value(json_object_get(answer, "latest_version")),
		.size = json_is_integer(size) ? (int64_t)json_integer_value(size) : -1,
	};

	if (json_is_true(json_object_get(answer, "update_available")) && o.url && o.checksum &&
	    o.version) {
		settle(f, d, false, false);
		device_offered(f, d, &o);
	} else {
		settle(f, d, is_final(reason), reason && strcmp(reason, "up_to_date") == 0);
	}
}

static void on_checked(void *ctx, uint64_t arg, const struct web_reply *r)
{
	struct fleet *f = ctx;
	struct device *d = &f->devices[arg];
	int64_t next_ms = r->retry_after_s ? r->retry_after_s * 1000 : AGAIN_MS;
	json_t *answer = r->status == 200 ? json_loads(r->body, 0, NULL) : NULL;

	d->checking = false;
	if (answer) {
		d->told = d->version;
		f->stats.seen += !d->seen;
		d->seen = true;
		next_ms = poll_ms(f, d, answer);
	} else if (r->status >= 400 && r->status < 500 && r->status != 429) {
		f->stats.refused++;
		snprintf(f->stats.refusal, sizeof f->stats.refusal, "%ld: %.200s", r->status,
			 r->body);
		next_ms = 60000;
	}
	if (f->ending || d->state != DEVICE_IDLE)
		goto out;
	if (answer)
		take_answer(f, d, answer);
	if (d->state == DEVICE_IDLE)
		device_after(f, d, next_ms, device_check);
out:
	json_decref(answer);
}

void device_check(struct fleet *f, struct device *d)
{
	struct buf url = BUF_INIT;
	struct web_ask ask = {.lane = WEB_TALK, .done = on_checked, .ctx = f, .arg = d->number};
	const char *hw = scenario_hw(&f->scenario, d->number);
	char id[DEVICE_ID_SIZE], boot[40];

	if (d->checking || d->held > 0 || d->reports) {
		device_after(f, d, UNHURRIED_MS, device_check);
		return;
	}
	device_id(f, d, id);
	snprintf(boot, sizeof boot, "%08x-%u",
		 (unsigned)(draw(f->o.seed, d->number, DRAW_BOOT, 0) & 0xFFFFFFFFu), d->boot);
	buf_printf(&url, "%s/api/firmware/check", f->o.server);
	url_query(&url, "device_id", id);
	url_query(&url, "device_model", f->o.model);
	url_query(&url, "current_version", d->version);
	url_query(&url, "boot_id", boot);
	if (hw)
		url_query(&url, "hw", hw);
	ask.url = url.data;
	d->polls++;
	d->checking = buf_ok(&url) && web_send(f->web, &ask);
	if (!d->checking)
		device_after(f, d, AGAIN_MS, device_check);
	buf_fini(&url);
}

void device_check_later(struct fleet *f, struct device *d)
{
	settle(f, d, false, false);
	device_after(f, d, poll_ms(f, d, NULL), device_check);
}
