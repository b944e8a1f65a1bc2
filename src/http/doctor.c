/* SPDX-License-Identifier: MIT */
/*
 * /doctor: everything is looked at, closely and for as long as it takes, on a job thread.  Each
 * check is one of doctor_checks.c, of the store or of the MQTT side; this makes the answer of what
 * they say.  What can only be seen from outside (the way to the public address, the clock as others
 * see it) is for who asks: he is told what to download.
 */
#include "http/doctor.h"
#include "http/request.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

struct doctor {
	struct request *request;
	struct buf *b;
	/* what to download: the smallest image */
	char version[129], model[129], sha256[SHA256_HEX_SIZE];
	int64_t size;
};

static void write_finding(void *ctx, const char *what, enum finding_level level, const char *found,
			  const char *advice)
{
	static const char *const words[] = {
		[FINDING_OK] = "ok",
		[FINDING_WARNING] = "warning",
		[FINDING_PROBLEM] = "problem",
	};
	struct doctor *d = ctx;

	json_open(d->b, NULL, '{');
	json_str(d->b, "check", what);
	json_str(d->b, "level", words[level]);
	json_str(d->b, "finding", found);
	json_str(d->b, "advice", advice);
	json_close(d->b, '}');
}

/* --- what to download --- */

/* MODEL: of that one; NULL: of any. */
static void find_smallest(struct doctor *d, const char *model)
{
	struct fleet *f = d->request->server->fleet;

	d->size = 0;
	fleet_plan_read(f);
	for (const struct model *m = fleet_models(f); m; m = m->next)
		for (const struct release *r = m->releases; r; r = r->next) {
			if (r->deleted || (model && strcmp(m->name, model) != 0) ||
			    (d->size && r->file_size >= d->size))
				continue;
			d->size = r->file_size;
			snprintf(d->version, sizeof d->version, "%s", r->version);
			snprintf(d->model, sizeof d->model, "%s", r->model);
			hex_encode(r->sha256, SHA256_SIZE, d->sha256);
		}
	fleet_plan_done(f);
}

static void write_escaped(struct buf *b, const char *name)
{
	for (; *name; name++)
		if (*name == '+')
			buf_adds(b, "%2B");
		else
			buf_addc(b, *name);
}

/* A release to try it with, below BASE. */
static void write_test(struct doctor *d, const char *base)
{
	struct buf url = BUF_INIT;

	json_str(d->b, "base_url", base);
	if (d->size) {
		buf_printf(&url, "%s/api/firmware/download/", base);
		write_escaped(&url, d->version);
		buf_adds(&url, "?device_model=");
		write_escaped(&url, d->model);
	}
	json_str(d->b, "url", buf_ok(&url) ? url.data : NULL);
	json_str(d->b, "checksum_sha256", d->size ? d->sha256 : NULL);
	json_int(d->b, "file_size", d->size);
	if (!buf_ok(&url))
		d->b->failed = true;
	buf_fini(&url);
}

/* As a device would be told to download. */
static void write_download(struct doctor *d)
{
	const struct config *cfg = d->request->server->cfg;
	char base[160], who[160];

	find_smallest(d, NULL);
	request_base_url(d->request, base, sizeof base);
	json_open(d->b, "test_download", '{');
	json_bool(d->b, "configured", cfg->public_url[0] != '\0');
	write_test(d, base);
	json_close(d->b, '}');
	json_open(d->b, "test_downloads", '[');
	for (size_t i = 0; cfg->download_bases && i < cfg->download_bases->count; i++) {
		const struct download_base *one = &cfg->download_bases->list[i];
		find_smallest(d, one->is_group ? NULL : one->name);
		snprintf(who, sizeof who, "%s:%s", one->is_group ? "group" : "model", one->name);
		json_open(d->b, NULL, '{');
		json_str(d->b, "for", who);
		write_test(d, one->url);
		json_close(d->b, '}');
	}
	json_close(d->b, ']');
}

/* --- the answer --- */

static void examine(struct request *r)
{
	struct doctor d = {.request = r};
	struct http_server *s = r->server;
	char now[TIME_TEXT_SIZE];

	d.b = respond_begin(r, 200);
	json_str(d.b, "version", PAKU_VERSION);
	json_open(d.b, "checks", '[');
	doctor_service(s, write_finding, &d);
	doctor_store(s, write_finding, &d);
	doctor_disks(s, write_finding, &d);
	doctor_images(s, write_finding, &d);
	doctor_bucket(s, write_finding, &d);
	if (s->mqtt_examine)
		s->mqtt_examine(s->mqtt_ctx, write_finding, &d);
	else
		write_finding(&d, "broker", FINDING_OK, "MQTT is off (OTA_MQTT)", NULL);
	doctor_clock(s, write_finding, &d);
	doctor_devices(s, write_finding, &d);
	doctor_alerts(s, write_finding, &d);
	doctor_rejected(s, write_finding, &d);
	json_close(d.b, ']');
	write_download(&d);
	time_format(clock_wall_us(), now);
	json_str(d.b, "now", now);
	respond_end(r);
	r->job_code = OTA_OK;
}

enum next doctor_show(struct request *r)
{
	return request_job(r, examine, request_list_done);
}
