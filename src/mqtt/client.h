/* SPDX-License-Identifier: MIT */
/*
 * One connection to the broker, kept up: MQTT 5, a persistent session, tried again with a jittered
 * backoff.  The MQTT thread alone touches it; it never waits for the broker longer than
 * CLIENT_CONNECT_MS.
 *
 * libmosquitto runs without a thread of its own.  What it has to say (acknowledgements too) goes on
 * the wire at client_write() and at no other moment, so who owns the client decides when.
 */
#pragma once

#include "base/err.h"

#include <mosquitto.h>
#include <poll.h>
#include <stdint.h>

#define CLIENT_KEEPALIVE_S 60
#define CLIENT_CONNECT_MS  5000

struct client_config {
	const char *host, *user, *password; /* user and password "" for none */
	const char *ca_file;                /* NULL: plain; "": TLS with the system's authorities */
	const char *cert_file, *key_file;   /* with TLS, shown to the broker; "" for none */
	int port;
	const _Atomic bool *stopping; /* ends a connecting that waits */
};

struct client {
	const struct client_config *cfg;
	const char *id;                        /* the MQTT client id */
	const char *will_topic, *will_payload; /* NULL: no last will */
	/* Called inside client_read(); for the owner. */
	void (*on_up)(struct client *c);
	void (*on_message)(struct client *c, const struct mosquitto_message *m);
	void *owner;

	struct mosquitto *m; /* NULL: down */
	bool up;             /* the broker has accepted */
	bool ready;          /* ... and sends what was subscribed to */
	unsigned packets;    /* of those that were read, the ones that said something */
	int in_flight;       /* published, and not acknowledged yet */
	/* What the broker said of itself when it accepted; 0: it did not. */
	struct client_limits {
		uint32_t packet_bytes, session_s;
		uint16_t unacknowledged;
	} limits;
	int64_t since_us;    /* up or down since then */
	int64_t up_at_ms;    /* up: since then, by the clock that nobody sets */
	int64_t retry_at_ms; /* down: when to try again */
	int64_t quiet_ms;    /* not up: nothing is written before */
	int backoff_ms;
	char problem[200];   /* why it is down, or what is wrong while it is up; "" unknown, nothing
			      */
	char refusal[200];   /* what the broker answered instead of taking us; "" nothing */
	char tls_error[160]; /* what the TLS library said last; "" nothing */
};

void client_init(struct client *c);
/* Connects when it is down and its time has come. */
void client_tend(struct client *c);
/* Reads one packet, or what there is of it; false: nothing more is there now, or the connection
 * ended. */
bool client_read(struct client *c);
/* Whether a message would be on its way at once; else libmosquitto keeps it for who knows how long.
 */
bool client_has_room(const struct client *c);
/* At QoS 1; EXPIRY_S 0: never.  A libmosquitto code.  It leaves with client_write(). */
int client_publish(struct client *c, const char *topic, const char *payload, bool retain,
		   uint32_t expiry_s);
/* Sends what waits. */
void client_write(struct client *c);
/* The kernel confirms at once what the broker sends next: a broker that gathers small packets
 * (Nagle) sends no more before. */
void client_hurry(const struct client *c);
/* Pings when it is time (which sends what waits, too). */
void client_misc(struct client *c);
/* Closes the socket as it is: what waits to be sent (acknowledgements) is forgotten. */
void client_drop(struct client *c, int64_t again_in_ms, const char *why);
/* Sends what waits, says goodbye, frees all. */
void client_fini(struct client *c);
/* The socket and what to wait for; fd -1 while down. */
struct pollfd client_pollfd(const struct client *c);
