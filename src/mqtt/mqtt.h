/* SPDX-License-Identifier: MIT */
/*
 * The MQTT door: one thread, two connections.  One collects (collector.h) and between a read and
 * its commit writes nothing; the other one tells (dispatcher.h).  While the broker is away the rest
 * of the service works on.
 */
#pragma once

#include "base/buf.h"
#include "base/finding.h"
#include "commit/committer.h"
#include "config.h"
#include "store/lease.h"

struct mqtt;

struct mqtt_parts {
	const struct config *cfg;
	struct fleet *fleet;
	struct committer *committer;
	struct lease *lease; /* NULL: there is no other instance */
};

/* Where the broker is, and what command URLs begin with. */
struct mqtt_place {
	const char *host, *user, *password; /* user and password "": none */
	int port;
	const char *client_id; /* begins the names of both sessions */
	const char *base_url;
};

/*
 * A client id for the embedded broker, where devices are anonymous: one that nobody can guess, or
 * anybody could take over our session by its name.  Made at the first start and kept in DATA_DIR,
 * for the session is known by it.
 */
#define MQTT_CLIENT_ID_SIZE 48
enum ota_code mqtt_own_client_id(const char *data_dir, char out[MQTT_CLIENT_ID_SIZE],
				 struct ota_err *err);

/* All parts stay the caller's and outlive it; so do the strings of the place. */
enum ota_code mqtt_new(const struct mqtt_parts *parts, struct mqtt **out, struct ota_err *err);
/* Starts the thread; does not wait for the broker. */
enum ota_code mqtt_start(struct mqtt *m, const struct mqtt_place *place, struct ota_err *err);
/* Takes no more messages, acknowledges what is stored, says goodbye, ends the thread. */
void mqtt_stop(struct mqtt *m);
void mqtt_free(struct mqtt **m);

/* Any thread, from mqtt_new() to mqtt_free(), for /health and /metrics; CTX is a struct mqtt. */
void mqtt_write_status(void *ctx, struct buf *b);
/* For the doctor: the connection, and what the broker allows. */
void mqtt_examine(void *ctx, finding_fn *say, void *say_ctx);
void mqtt_write_metrics(void *ctx, struct buf *b, bool text);

/*
 * What command URLs begin with, when OTA_PUBLIC_URL is not set: the address of the default route's
 * interface and PORT, or the address that HOST names.  An error where devices at the broker could
 * never reach it: a loopback address towards a broker that is elsewhere.
 */
enum ota_code mqtt_base_url(const struct config *cfg, int http_port, char *out, size_t size,
			    struct ota_err *err);
