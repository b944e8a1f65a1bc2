/* SPDX-License-Identifier: MIT */
/*
 * The HTTP door: libmicrohttpd's workers, and the life of a request.  main.c starts and stops it.
 */
#pragma once

#include "base/buf.h"
#include "base/finding.h"
#include "commit/committer.h"
#include "config.h"
#include "firmware/cache.h"
#include "firmware/mirror.h"
#include "store/lease.h"

struct http_server;
struct auth;

struct http_parts {
	const struct config *cfg;
	struct fleet *fleet;
	struct store *store;
	struct committer *committer;
	struct blob_store *blobs;
	struct image_cache *cache;
	struct mirror *mirror; /* NULL: the firmware folder is all there is */
	struct auth *auth;
	struct lease *lease; /* NULL: there is no other instance */
	/*
	 * A socket that listens already, whatever HOST and PORT say; the server's from then on, and
	 * *listen_fd is -1.  -1: it opens one.
	 */
	int *listen_fd;
	/*
	 * What the MQTT side adds to answers; NULL where MQTT is off.  Called by HTTP workers, at
	 * any time until http_stop() returns; they must not wait.  mqtt_status writes the member
	 * "mqtt" of /health; mqtt_metrics members of /metrics, or its lines as TEXT for Prometheus.
	 */
	void (*mqtt_status)(void *ctx, struct buf *b);
	void (*mqtt_metrics)(void *ctx, struct buf *b, bool text);
	/* What the doctor says of it; it may wait a moment. */
	void (*mqtt_examine)(void *ctx, finding_fn *say, void *say_ctx);
	void *mqtt_ctx;
};

/* All parts stay the caller's and outlive the server. */
enum ota_code http_start(const struct http_parts *parts, struct http_server **out,
			 struct ota_err *err);
int http_port(const struct http_server *s);
/*
 * Answers new requests with 503, lets short ones that have begun end within 5 s and downloads
 * within drain_s (which main may cut short through *hurry), then closes what is left.
 */
void http_stop(struct http_server **s, int64_t drain_s, const volatile int *hurry);
