/* SPDX-License-Identifier: MIT */
/*
 * The connections to the broker: libmosquitto on the loop, MQTT 3.1.1 as devices speak it.
 *
 * One thread.  Either many devices share a connection, or each has its own, with its last will.  A
 * lost connection comes back by itself; what was published meanwhile waits in it.  Messages of one
 * connection keep their order.
 */
#pragma once

#include "base/broker_place.h"
#include "fleet-sim/loop.h"

#include <stddef.h>

struct broker;

/* How to reach a broker, and as whom. */
struct broker_door {
	struct broker_place place;
	struct broker_tls tls;
	const char *user, *password; /* NULL: none */
};
struct args;
/* From --broker, --cacert, --cert, --key, MQTT_USER and MQTT_PASSWORD. */
enum ota_code broker_door_read(struct broker_door *door, const struct args *a, struct ota_err *err);

#define BROKER_TEXT 320

/* What a connection is; empty strings are absent. */
struct broker_client {
	char id[BROKER_TEXT];
	char subscription[BROKER_TEXT];
	char will_topic[BROKER_TEXT]; /* retained, QoS 1 */
	char will_payload[64];
};

struct broker_config {
	struct loop *loop;
	const struct broker_door *door;
	uint32_t connections;
	void *ctx;
	void (*describe)(void *ctx, uint32_t connection, struct broker_client *out);
	/* What the subscription brings; both end with the call. */
	void (*message)(void *ctx, uint32_t connection, const char *topic, const char *payload,
			size_t len);
	/* May be NULL: it is connected, and subscribed if it subscribes. */
	void (*ready)(void *ctx, uint32_t connection);
};

struct broker_stats {
	int64_t published, acknowledged, received;
	int64_t abandoned;   /* not acknowledged when their connection was cut */
	uint32_t up, joined; /* connections; those that should be up */
	int64_t lost;        /* connections that broke */
	char problem[200];   /* the last one's, "" for none */
};

/* Fails with OTA_EIO when nobody answers there. */
enum ota_code broker_new(const struct broker_config *cfg, struct broker **out, struct ota_err *err);
/* Says goodbye: no last will is published. */
void broker_free(struct broker **b);

/* Connects, and stays connected until broker_cut(). */
void broker_join(struct broker *b, uint32_t connection);
/* Joins all and turns the loop until they are up; OTA_EIO when they are not within MS. */
enum ota_code broker_join_all(struct broker *b, int64_t ms, struct ota_err *err);
/* As if the power went: the broker will publish the last will. */
void broker_cut(struct broker *b, uint32_t connection);
/* QoS 0 counts as acknowledged when it is handed over.  False: it is lost. */
bool broker_publish(struct broker *b, uint32_t connection, const char *topic, const char *payload,
		    size_t len, int qos, bool retain);
bool broker_is_up(const struct broker *b, uint32_t connection);
const struct broker_stats *broker_stats(const struct broker *b);
