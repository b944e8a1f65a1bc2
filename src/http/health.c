/* SPDX-License-Identifier: MIT */
/* How the service is: /health for people and load balancers, /metrics for dashboards. */
#include "http/request.h"

#include "base/clock.h"
#include "http/parse/accept.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define RECOUNT_MS 200
#define DAY_US     (INT64_C(86400) * US_PER_S)

enum next health_show(struct request *r)
{
	struct http_server *s = r->server;
	char reason[512];
	bool well = committer_healthy(s->committer, reason, sizeof reason);
	struct buf *b = respond_begin(r, well ? 200 : 503);

	json_str(b, "status", well ? "healthy" : "unhealthy");
	if (!well) {
		json_str(b, "reason", reason);
		json_str(b, "detail", reason);
		r->retry_after_s = 5;
	}
	json_str(b, "version", PAKU_VERSION);
	json_str(b, "store", s->store->ops->name(s->store));
	json_int(b, "uptime_s", (clock_mono_ms() - s->started_mono_ms) / 1000);
	add_stop(s->fleet, b);
	if (s->mqtt_status)
		s->mqtt_status(s->mqtt_ctx, b);
	else
		json_str(b, "mqtt", "off");
	return respond_end(r);
}

/* --- metrics --- */

struct figures {
	int64_t devices, connections, updates_24h, releases, rollouts, active_rollouts, busy;
	bool stopped;
	struct committer_stats commits;
	struct alert_counts alerts;
};

static void count_plan(struct request *r, struct figures *f)
{
	for (const struct model *m = fleet_models(r->server->fleet); m; m = m->next) {
		for (const struct release *rel = m->releases; rel; rel = rel->next)
			f->releases += !rel->deleted;
		for (const struct rollout *o = m->rollouts; o; o = o->next) {
			f->rollouts++;
			f->active_rollouts += o->active;
		}
	}
}

static void write_json(struct request *r, const struct figures *f)
{
	struct http_server *s = r->server;
	struct buf *b = respond_begin(r, 200);

	json_int(b, "total_devices", f->devices);
	json_open(b, "devices_by_model", '{');
	for (const struct model *m = fleet_models(s->fleet); m; m = m->next)
		if (m->device_count)
			json_int(b, m->name, (int64_t)m->device_count);
	json_close(b, '}');
	json_int(b, "recent_updates_24h", f->updates_24h);
	json_int(b, "active_rollouts", f->active_rollouts);
	json_int(b, "total_rollouts", f->rollouts);
	json_int(b, "total_releases", f->releases);
	json_int(b, "http_connections", f->connections);
	json_int(b, "http_requests_total", s->requests_total);
	json_int(b, "http_server_errors_total", s->server_errors_total);
	json_int(b, "downloads_total", s->downloads_total);
	json_int(b, "downloads_active", s->active_downloads);
	json_int(b, "download_bytes_total", s->download_bytes_total);
	json_int(b, "commits_total", f->commits.batches);
	json_int(b, "commands_total", f->commits.commands);
	json_int(b, "commit_queue_length", f->commits.queue_length);
	json_int(b, "devices_busy", f->busy);
	json_int(b, "stopped", f->stopped);
	json_open(b, "alerts_open", '{');
	for (int k = 0; k < ALERT_KINDS; k++)
		json_int(b, alert_kind_names[k], f->alerts.open[k]);
	json_close(b, '}');
	json_int(b, "webhooks_waiting", f->alerts.waiting);
	json_int(b, "webhooks_given_up", f->alerts.given_up);
	if (s->mqtt_metrics)
		s->mqtt_metrics(s->mqtt_ctx, b, false);
	respond_end(r);
}

static void metric(struct buf *b, const char *name, const char *type, const char *help,
		   int64_t value)
{
	buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n%s %" PRId64 "\n", name, help, name, type, name,
		   value);
}

static void alert_metrics(struct buf *b, const struct alert_counts *c)
{
	buf_adds(b, "# HELP paku_ota_alerts_open Alerts that are not over.\n"
		    "# TYPE paku_ota_alerts_open gauge\n");
	for (int k = 0; k < ALERT_KINDS; k++)
		buf_printf(b, "paku_ota_alerts_open{kind=\"%s\"} %" PRId64 "\n",
			   alert_kind_names[k], c->open[k]);
	metric(b, "paku_ota_webhooks_waiting", "gauge",
	       "Messages about alerts that have not arrived.", c->waiting);
	metric(b, "paku_ota_webhooks_given_up", "gauge",
	       "Messages about alerts that did not arrive within a day.", c->given_up);
}

/* The Prometheus text format, version 0.0.4. */
static void write_text(struct request *r, const struct figures *f)
{
	struct http_server *s = r->server;
	struct buf *b = &r->out;

	buf_reset(b);
	r->status = 200;
	r->content_type = "text/plain; version=0.0.4; charset=utf-8";
	metric(b, "paku_ota_up", "gauge", "1 when the store takes writes.",
	       committer_healthy(s->committer, NULL, 0));
	metric(b, "paku_ota_devices", "gauge", "Devices known.", f->devices);
	buf_adds(b, "# HELP paku_ota_devices_by_model Devices of each model.\n"
		    "# TYPE paku_ota_devices_by_model gauge\n");
	for (const struct model *m = fleet_models(s->fleet); m; m = m->next)
		if (m->device_count)
			buf_printf(b, "paku_ota_devices_by_model{model=\"%s\"} %zu\n", m->name,
				   m->device_count);
	metric(b, "paku_ota_updates_24h", "gauge", "Attempts heard of in the last 24 hours.",
	       f->updates_24h);
	metric(b, "paku_ota_rollouts_active", "gauge", "Active rollouts.", f->active_rollouts);
	metric(b, "paku_ota_releases", "gauge", "Releases.", f->releases);
	metric(b, "paku_ota_http_connections", "gauge", "Open HTTP connections.", f->connections);
	metric(b, "paku_ota_http_requests_total", "counter", "HTTP requests.", s->requests_total);
	metric(b, "paku_ota_http_server_errors_total", "counter", "Answers of 500 and above.",
	       s->server_errors_total);
	metric(b, "paku_ota_downloads_total", "counter", "Image downloads begun.",
	       s->downloads_total);
	metric(b, "paku_ota_downloads_active", "gauge", "Image downloads under way.",
	       s->active_downloads);
	metric(b, "paku_ota_download_bytes_total", "counter", "Bytes of images asked for.",
	       s->download_bytes_total);
	metric(b, "paku_ota_commits_total", "counter", "Transactions.", f->commits.batches);
	metric(b, "paku_ota_commands_total", "counter", "Commands made durable.",
	       f->commits.commands);
	metric(b, "paku_ota_commit_microseconds_total", "counter", "Time spent in transactions.",
	       f->commits.commit_us_total);
	metric(b, "paku_ota_commit_queue_length", "gauge", "Commands waiting.",
	       f->commits.queue_length);
	metric(b, "paku_ota_devices_busy", "gauge",
	       "Devices that were told or are downloading (OTA_MAX_DOWNLOADS).", f->busy);
	metric(b, "paku_ota_stopped", "gauge", "1 while everything is stopped.", f->stopped);
	alert_metrics(b, &f->alerts);
	if (s->mqtt_metrics)
		s->mqtt_metrics(s->mqtt_ctx, b, true);
}

static enum next write_metrics(struct request *r)
{
	struct http_server *s = r->server;
	struct figures f = {.updates_24h = s->recent_updates};

	for (int k = 0; k < ALERT_KINDS; k++)
		f.alerts.open[k] = s->alerts_open[k];
	f.alerts.waiting = s->webhooks_waiting;
	f.alerts.given_up = s->webhooks_given_up;

	f.devices = (int64_t)fleet_device_count(s->fleet);
	f.connections = connections_count(s->connections);
	committer_stats(s->committer, &f.commits);
	f.busy = committer_busy(s->committer);
	f.stopped = fleet_is_stopped(s->fleet);
	fleet_plan_read(s->fleet);
	count_plan(r, &f);
	if (accept_prefers_text(request_header(r, "Accept")))
		write_text(r, &f);
	else
		write_json(r, &f);
	fleet_plan_done(s->fleet);
	return NEXT_ANSWER;
}

static void count_recent(struct request *r)
{
	struct http_server *s = r->server;
	struct alert_counts alerts;
	int64_t count;

	r->job_code = s->store->ops->updates_since(s->store, clock_service_us() - DAY_US, &count,
						   &r->job_err);
	if (r->job_code == OTA_OK)
		r->job_code = s->store->ops->alert_counts(s->store, &alerts, &r->job_err);
	if (r->job_code == OTA_OK) {
		for (int k = 0; k < ALERT_KINDS; k++)
			s->alerts_open[k] = alerts.open[k];
		s->webhooks_waiting = alerts.waiting;
		s->webhooks_given_up = alerts.given_up;
		s->recent_updates = count;
		s->recent_updates_ms = clock_mono_ms();
	}
}

static enum next after_count(struct request *r)
{
	return r->job_code == OTA_OK ? write_metrics(r) : respond_err(r, &r->job_err);
}

/* Anyone may ask, and the count costs a query: it is made a few times a second at the most. */
enum next metrics_show(struct request *r)
{
	if (clock_mono_ms() - r->server->recent_updates_ms < RECOUNT_MS)
		return write_metrics(r);
	return request_job(r, count_recent, after_count);
}
