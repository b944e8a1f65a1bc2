/* SPDX-License-Identifier: MIT */
/*
 * /metrics, for dashboards: JSON for people, the Prometheus format for Prometheus.  The number of
 * samples is bounded whatever devices say.
 */
#include "http/request.h"

#include "base/clock.h"
#include "base/exposition.h"
#include "core/gate.h"
#include "core/stage.h"
#include "http/census.h"
#include "http/counts.h"
#include "http/parse/accept.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define RECOUNT_MS     200
#define CENSUS_MS      5000
#define ROLLOUTS_SHOWN 100
#define DAY_US         (INT64_C(86400) * US_PER_S)

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

static void alert_metrics(struct buf *b, const struct alert_counts *c)
{
	exposition_family(b, "paku_ota_alerts_open", "gauge", "Alerts that are not over.");
	for (int k = 0; k < ALERT_KINDS; k++)
		buf_printf(b, "paku_ota_alerts_open{kind=\"%s\"} %" PRId64 "\n",
			   alert_kind_names[k], c->open[k]);
	exposition_one(b, "paku_ota_webhooks_waiting", "gauge",
		       "Messages about alerts that have not arrived.", c->waiting);
	exposition_one(b, "paku_ota_webhooks_given_up", "gauge",
		       "Messages about alerts that did not arrive within a day.", c->given_up);
}

/* --- rollouts --- */

/* Of each live rollout, what a dashboard draws: the number is the row's, the words are its labels.
 */
enum rollout_figure {
	FIGURE_STAGE,
	FIGURE_STAGES,
	FIGURE_PERCENT,
	FIGURE_RUNNING,
	FIGURE_EVIDENCE,
	FIGURE_HALTS_AT,
	FIGURE_PROVEN,
	FIGURE_FAILED,
	FIGURE_UNRESOLVED,
	FIGURE_BOUND,
	ROLLOUT_FIGURES,
};
static const char *const rollout_figures[ROLLOUT_FIGURES][2] = {
	{"paku_ota_rollout_stage", "The stage it is in, from 1."},
	{"paku_ota_rollout_stages", "How many stages it has."},
	{"paku_ota_rollout_percent", "Percent of its target that its stage reaches."},
	{"paku_ota_rollout_running",
	 "1: it offers its release; 0: it is paused or to begin later."},
	{"paku_ota_rollout_evidence",
	 "How many times likelier what was seen is if the release is bad."},
	{"paku_ota_rollout_halts_at", "The evidence at which it halts."},
	{"paku_ota_rollout_proven", "Devices that have proven the release."},
	{"paku_ota_rollout_failed", "Devices that failed it, the silent among them."},
	{"paku_ota_rollout_unresolved", "Devices of which it is not known yet."},
	{"paku_ota_rollout_bound", "So many may be unresolved; no sample: any number."},
};

struct rollout_row {
	int64_t id;
	const char *model, *version; /* interned; while the plan is held */
	double values[ROLLOUT_FIGURES];
	bool has_gate, bounded;
};

static void take_gate(void *ctx, const struct gate *g)
{
	struct rollout_row *row = ctx;
	struct gate_view v = gate_view(g);

	row->has_gate = true;
	row->values[FIGURE_EVIDENCE] = v.likelier;
	row->values[FIGURE_HALTS_AT] = v.halts_at;
	row->values[FIGURE_PROVEN] = (double)v.proven;
	row->values[FIGURE_FAILED] = (double)v.failed;
	row->values[FIGURE_UNRESOLVED] = (double)v.unresolved;
	row->values[FIGURE_BOUND] = (double)v.bound;
}

static bool is_live(const struct rollout *o)
{
	return o->walk.state == ROLLOUT_RUNNING || o->walk.state == ROLLOUT_PAUSED ||
	       o->walk.state == ROLLOUT_SCHEDULED;
}

static size_t take_rollouts(struct http_server *s, struct rollout_row rows[ROLLOUTS_SHOWN])
{
	size_t n = 0;

	for (const struct model *m = fleet_models(s->fleet); m; m = m->next)
		for (const struct rollout *o = m->rollouts; o && n < ROLLOUTS_SHOWN; o = o->next) {
			if (!is_live(o))
				continue;
			struct rollout_row *row = &rows[n++];
			*row = (struct rollout_row){.id = o->id,
						    .model = m->name,
						    .version = o->release->version,
						    .bounded = o->guard.bounded};
			row->values[FIGURE_STAGE] = o->walk.stage + 1;
			row->values[FIGURE_STAGES] = o->stage_count;
			row->values[FIGURE_PERCENT] = o->target.percent;
			row->values[FIGURE_RUNNING] = o->walk.state == ROLLOUT_RUNNING;
			committer_gate(s->committer, o, take_gate, row);
		}
	return n;
}

static bool row_has(const struct rollout_row *row, int figure)
{
	if (figure < FIGURE_EVIDENCE)
		return true;
	return row->has_gate && (figure != FIGURE_BOUND || row->bounded);
}

static void write_rollouts(struct http_server *s, struct buf *b)
{
	int64_t states[ROLLOUT_STATES] = {0};
	struct rollout_row *rows = malloc(ROLLOUTS_SHOWN * sizeof *rows);

	if (!rows) {
		b->failed = true;
		return;
	}
	for (const struct model *m = fleet_models(s->fleet); m; m = m->next)
		for (const struct rollout *o = m->rollouts; o; o = o->next)
			states[o->walk.state]++;
	exposition_family(b, "paku_ota_rollouts", "gauge", "Rollouts by state.");
	for (int i = 0; i < ROLLOUT_STATES; i++)
		buf_printf(b, "paku_ota_rollouts{state=\"%s\"} %" PRId64 "\n",
			   rollout_state_name((enum rollout_state)i), states[i]);
	size_t n = take_rollouts(s, rows);
	for (int f = 0; f < ROLLOUT_FIGURES; f++) {
		exposition_family(b, rollout_figures[f][0], "gauge", rollout_figures[f][1]);
		for (size_t i = 0; i < n; i++)
			if (row_has(&rows[i], f))
				buf_printf(b,
					   "%s{rollout=\"%" PRId64
					   "\",model=\"%s\",version=\"%s\"} %.9g\n",
					   rollout_figures[f][0], rows[i].id, rows[i].model,
					   rows[i].version, rows[i].values[f]);
	}
	free(rows);
}

static void write_bucket(struct mirror *m, struct buf *b)
{
	struct mirror_state state;

	mirror_look(m, &state);
	exposition_one(b, "paku_ota_bucket_up", "gauge", "1 when the bucket answers.",
		       !state.failing);
	exposition_one(b, "paku_ota_bucket_fetches_total", "counter",
		       "Images asked of the bucket, as they were not in the folder.",
		       (int64_t)state.fetches);
	exposition_one(b, "paku_ota_bucket_failures_total", "counter",
		       "Requests to the bucket that failed.", (int64_t)state.failures);
	exposition_one(b, "paku_ota_bucket_cached_bytes", "gauge", "Bytes of images in the folder.",
		       (int64_t)state.bytes);
}

/* The Prometheus text format, version 0.0.4. */
static void write_text(struct request *r, const struct figures *f)
{
	struct http_server *s = r->server;
	struct buf *b = &r->out;

	buf_reset(b);
	r->status = 200;
	r->content_type = "text/plain; version=0.0.4; charset=utf-8";
	exposition_family(b, "paku_ota_build_info", "gauge", "1; what runs.");
	buf_printf(b, "paku_ota_build_info{version=\"%s\",store=\"%s\"} 1\n", PAKU_VERSION,
		   s->store->ops->name(s->store));
	exposition_one(b, "paku_ota_up", "gauge", "1 when the store takes writes.",
		       committer_healthy(s->committer, NULL, 0));
	exposition_one(b, "paku_ota_devices", "gauge", "Devices known.", f->devices);
	exposition_family(b, "paku_ota_devices_by_model", "gauge", "Devices of each model.");
	for (const struct model *m = fleet_models(s->fleet); m; m = m->next)
		if (m->device_count)
			buf_printf(b, "paku_ota_devices_by_model{model=\"%s\"} %zu\n", m->name,
				   m->device_count);
	exposition_one(b, "paku_ota_updates_24h", "gauge",
		       "Attempts heard of in the last 24 hours.", f->updates_24h);
	exposition_one(b, "paku_ota_rollouts_active", "gauge", "Active rollouts.",
		       f->active_rollouts);
	exposition_one(b, "paku_ota_releases", "gauge", "Releases.", f->releases);
	exposition_one(b, "paku_ota_http_connections", "gauge", "Open HTTP connections.",
		       f->connections);
	exposition_one(b, "paku_ota_http_requests_total", "counter", "HTTP requests.",
		       s->requests_total);
	exposition_one(b, "paku_ota_http_server_errors_total", "counter",
		       "Answers of 500 and above.", s->server_errors_total);
	exposition_one(b, "paku_ota_downloads_total", "counter", "Image downloads begun.",
		       s->downloads_total);
	exposition_one(b, "paku_ota_downloads_active", "gauge", "Image downloads under way.",
		       s->active_downloads);
	exposition_one(b, "paku_ota_download_bytes_total", "counter", "Bytes of images asked for.",
		       s->download_bytes_total);
	exposition_one(b, "paku_ota_commits_total", "counter", "Transactions.", f->commits.batches);
	exposition_one(b, "paku_ota_commands_total", "counter", "Commands made durable.",
		       f->commits.commands);
	/* One that is alone leads. */
	exposition_one(b, "paku_ota_leader", "gauge",
		       "1 on the instance that leads, 0 on those that follow.",
		       lease_holds(s->lease));
	if (s->lease) {
		struct lease_view v;
		lease_look(s->lease, &v);
		exposition_one(b, "paku_ota_epoch", "gauge", "How often the lead has been taken.",
			       v.epoch);
	}
	exposition_one(b, "paku_ota_commit_queue_length", "gauge", "Commands waiting.",
		       f->commits.queue_length);
	exposition_one(b, "paku_ota_devices_busy", "gauge",
		       "Devices that were told or are downloading (OTA_MAX_DOWNLOADS).", f->busy);
	exposition_one(b, "paku_ota_stopped", "gauge", "1 while everything is stopped.",
		       f->stopped);
	alert_metrics(b, &f->alerts);
	write_rollouts(s, b);
	counts_write(s->counts, b);
	committer_write_metrics(s->committer, b);
	census_write(s->census, b);
	if (s->mirror)
		write_bucket(s->mirror, b);
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

/* For Prometheus alone: the fleet is walked no more often than its figures are drawn. */
static void take_census(struct request *r)
{
	struct http_server *s = r->server;
	int64_t now_ms = clock_mono_ms();
	int64_t last_ms = s->census_ms;

	if (r->job_code == OTA_OK && now_ms - last_ms >= CENSUS_MS &&
	    atomic_compare_exchange_strong(&s->census_ms, &last_ms, now_ms))
		r->job_code = census_take(s->census, s->fleet, clock_service_us(), &r->job_err);
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
	if (accept_prefers_text(request_header(r, "Accept")))
		take_census(r);
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
