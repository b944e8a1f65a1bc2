/* SPDX-License-Identifier: MIT */
#include "http/server.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "http/census.h"
#include "http/counts.h"
#include "http/request.h"
#include "http/sockets.h"
#include "http/workers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHORT_DRAIN_S   5
#define LAST_ANSWERS_MS 1000
#define JOB_THREADS     3
#define INSPECTION_NICE 10

/* --- what the library calls --- */

static void on_connection(void *cls, struct MHD_Connection *connection, void **socket_context,
			  enum MHD_ConnectionNotificationCode toe)
{
	struct http_server *s = cls;

	socket_notify(s->connections, connection, socket_context, toe);
}

static void on_log(void *cls, const char *fmt, va_list ap)
{
	char text[512];

	(void)cls;
	if (!log_enabled(LOG_DEBUG))
		return;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	vsnprintf(text, sizeof text, fmt, ap);
#pragma GCC diagnostic pop
	text[strcspn(text, "\r\n")] = '\0';
	log_event(LOG_DEBUG, "http", "library", "%s", text);
}

/* --- start and stop --- */

static enum ota_code start_workers(struct http_server *s, struct ota_err *err)
{
	struct workers_config wc = {
		.threads = s->cfg->http_threads,
		.max_connections = s->cfg->max_connections,
		.timeout_s = s->cfg->download_timeout_s,
		.listen_fd = s->listen_fd,
		.request = request_proceed,
		.begin = request_begin,
		.end = request_end,
		.connection = on_connection,
		.log = on_log,
		.turn = request_turn,
		.cls = s,
	};

	return workers_start(&wc, &s->workers, err);
}

static void server_free(struct http_server *s)
{
	connections_stop(&s->connections);
	counts_free(&s->counts);
	census_free(&s->census);
	jobs_stop(&s->inspections);
	jobs_stop(&s->jobs);
	etas_free(&s->etas);
	if (s->listen_fd >= 0)
		close(s->listen_fd);
	free(s);
}

enum ota_code http_start(const struct http_parts *parts, struct http_server **out,
			 struct ota_err *err)
{
	struct http_server *s = calloc(1, sizeof *s);
	struct connections_config cc = {
		.max = parts->cfg->max_connections,
		.per_address = parts->cfg->max_connections_per_address,
		.idle_timeout_s = parts->cfg->idle_timeout_s,
		.download_bytes_per_s = parts->cfg->download_bytes_per_s,
		.trusted_proxies = parts->cfg->trusted_proxies,
	};

	if (!s)
		return ota_fail_nomem(err);
	s->listen_fd = -1;
	s->cfg = parts->cfg;
	s->fleet = parts->fleet;
	s->store = parts->store;
	s->committer = parts->committer;
	s->blobs = parts->blobs;
	s->cache = parts->cache;
	s->mirror = parts->mirror;
	s->auth = parts->auth;
	s->lease = parts->lease;
	s->mqtt_status = parts->mqtt_status;
	s->mqtt_metrics = parts->mqtt_metrics;
	s->mqtt_examine = parts->mqtt_examine;
	s->mqtt_ctx = parts->mqtt_ctx;
	s->started_mono_ms = clock_mono_ms();
	s->census_ms = INT64_MIN / 2; /* never */
	s->counts = counts_new();
	s->census = census_new();
	s->etas = etas_new();
	if (!s->counts || !s->census || !s->etas) {
		server_free(s);
		return ota_fail_nomem(err);
	}
	if (!random_bytes(&s->id_prefix, sizeof s->id_prefix))
		s->id_prefix = (uint64_t)clock_wall_us();
	s->given = *parts->listen_fd >= 0;
	if (s->given) {
		s->listen_fd = *parts->listen_fd;
		*parts->listen_fd = -1;
	}
	if ((!s->given && socket_listen(s->cfg, &s->listen_fd, err) != OTA_OK) ||
	    connections_start(&cc, &s->connections, err) != OTA_OK ||
	    jobs_start(JOB_THREADS, 0, &s->jobs, err) != OTA_OK ||
	    jobs_start(1, INSPECTION_NICE, &s->inspections, err) != OTA_OK) {
		server_free(s);
		return err->code;
	}
	s->port = socket_port(s->listen_fd);
	if (start_workers(s, err) != OTA_OK) {
		server_free(s);
		return err->code;
	}
	*out = s;
	return OTA_OK;
}

int http_port(const struct http_server *s)
{
	return s->port;
}

/* Who has been let in gets an answer. */
static void answer_last(struct http_server *s)
{
	int64_t begun = clock_mono_ms();

	while (connections_count(s->connections) > 0 && clock_mono_ms() - begun < LAST_ANSWERS_MS) {
		connections_close_idle(s->connections);
		wait_a_moment();
	}
}

static void drain(struct http_server *s, int64_t drain_s, const volatile int *hurry)
{
	int64_t begun = clock_mono_ms();

	for (;;) {
		int64_t downloads = atomic_load(&s->active_downloads);
		int64_t others = atomic_load(&s->active_requests) - downloads;
		int64_t waited_ms = clock_mono_ms() - begun;
		bool short_done = others <= 0 || waited_ms >= SHORT_DRAIN_S * 1000;
		bool long_done = downloads <= 0 || waited_ms >= drain_s * 1000 || *hurry;
		if (short_done && long_done)
			return;
		wait_a_moment();
	}
}

void http_stop(struct http_server **sp, int64_t drain_s, const volatile int *hurry)
{
	struct http_server *s = *sp;

	if (!s)
		return;
	/* The port stays open, and new requests are told to come again. */
	atomic_store(&s->draining, true);
	connections_close_idle(s->connections);
	drain(s, drain_s, hurry);
	int64_t cut = atomic_load(&s->active_downloads);
	if (cut > 0)
		log_event(LOG_INFO, "daemon", "downloads_cut",
			  "%lld had not ended; OTA_DRAIN_S is how long they may go on",
			  (long long)cut);
	if (s->given) {
		workers_let_go(s->workers);
		answer_last(s);
	}
	/*
	 * No handler runs or is suspended past this loop, and none begins: begin_work() counts,
	 * then looks.  Job threads, the committer and who else resumed one may still be leaving
	 * worker_resume().
	 */
	atomic_store(&s->closing, true);
	if (s->mirror)
		mirror_abort(s->mirror);
	while (atomic_load(&s->working) > 0 || atomic_load(&s->resuming) > 0)
		wait_a_moment();
	jobs_stop(&s->inspections);
	jobs_stop(&s->jobs);
	committer_barrier(s->committer);
	workers_stop(&s->workers);
	server_free(s);
	*sp = NULL;
}
