/* SPDX-License-Identifier: MIT */
/*
 * Connections under watch: nobody holds the service by being slow.
 *
 * Each connection has a deadline for what it is doing (idle, sending a request, taking an answer).
 * A thread looks once a second and shuts down those that are late; libmicrohttpd then closes them.
 * It does the same with those whose client is gone in the middle of a request: libmicrohttpd 0.9.75
 * with epoll does not see the end of a stream that comes together with its last bytes.
 * Near the limit idle connections are let go after a second.  Also counts requests per client
 * address, when asked.
 *
 * Where the bandwidth is capped, the connections that send an image share it evenly.  The kernel
 * does the waiting (SO_MAX_PACING_RATE), so that no thread here sleeps and nothing else is slowed.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct connections;

enum connection_doing { CONNECTION_IDLE, CONNECTION_ARRIVING, CONNECTION_ANSWERED };

struct connection {
	struct connection *newer, *older; /* under the lock */
	bool ended;                       /* the watcher's: nothing more will arrive */
	bool paced;                       /* its worker's: it sent an image since it was unpaced */
	bool sends_image;                 /* under the lock, and among the senders */
	struct connection *next_sender, *previous_sender; /* under the lock */
	int fd;
	_Atomic int64_t deadline_ms; /* monotonic; INT64_MAX: none (suspended) */
	_Atomic enum connection_doing doing;
	_Atomic bool asked; /* a request has come on it */
};

struct connections_config {
	int64_t max, per_address;
	int64_t idle_timeout_s;
	int64_t download_bytes_per_s; /* for all images together; 0: no cap */
	const char *trusted_proxies;  /* comma-separated addresses */
};

enum ota_code connections_start(const struct connections_config *cfg, struct connections **out,
				struct ota_err *err);
void connections_stop(struct connections **c);

struct connection *connection_add(struct connections *c, int fd); /* NULL: out of memory */
void connection_remove(struct connections *c, struct connection *conn);
/* A request arrives, and has so many milliseconds from now for it. */
void connection_arriving(struct connection *conn, int64_t ms);
/* It is here: SECONDS for the answer; 0: as long as it takes. */
void connection_deadline(struct connection *conn, int64_t seconds);
void connection_idle(struct connections *c, struct connection *conn);
int64_t connections_count(struct connections *c);
/*
 * Closes now what is kept for a next request: the service ends.  A new connection stays: its first
 * request may be on the way, and gets an answer.
 */
void connections_close_idle(struct connections *c);

/* An image begins to be sent: all that are get an even share of the cap. */
void connection_image_begin(struct connections *c, struct connection *conn);
/* It is with the kernel, or was given up: the others get more.  What the kernel still holds keeps
 * its pace. */
void connection_image_end(struct connections *c, struct connection *conn);
/* Another request comes on the connection: it is as fast as any. */
void connection_unpace(struct connection *conn);

bool connections_trust(const struct connections *c, const char *peer);
/* A request of ADDRESS begins; false when it has too many. */
bool connections_enter(struct connections *c, const char *address);
void connections_leave(struct connections *c, const char *address);
