/* SPDX-License-Identifier: MIT */
/*
 * One of several instances on one database: which part it has, as the lease says.  It begins with
 * the relay of one that follows; when it gets the lead, what leads is started, which takes the
 * relay's place at the listening socket; when it loses it, the other way round.  main's alone, but
 * for the lease.
 */
#pragma once

#include "config.h"
#include "store/lease.h"

struct instance;

struct instance_parts {
	const struct config *cfg;
	int listen_fd; /* listens already, and is the instance's from then on; -1: as HOST and PORT
			  say */
	/* Starts what leads in EPOCH; it calls instance_take_socket() when it can answer.  When it
	 * fails, STOP is called, too. */
	enum ota_code (*start)(void *ctx, int64_t epoch, struct ota_err *err);
	void (*stop)(void *ctx);
	/* Whether the database is another than the one that was loaded. */
	bool (*is_overtaken)(void *ctx);
	void (*changed)(void); /* on any thread: instance_tend() has something to do */
	void *ctx;
};

#define INSTANCE_LOOK_MS 200 /* instance_tend() is to be called so often, also unasked */

enum ota_code instance_start(const struct instance_parts *parts, struct instance **out,
			     struct ota_err *err);
/* Does what the lease says; an error: this instance can neither lead nor follow. */
enum ota_code instance_tend(struct instance *i, struct ota_err *err);
/* Ends the relay; *FD is the socket that listens, for one that closes it at its end. */
enum ota_code instance_take_socket(struct instance *i, int *fd, struct ota_err *err);
struct lease *instance_lease(const struct instance *i);
/* While it follows: the TCP port. */
int instance_port(const struct instance *i);
/* Ends the relay and gives up the lead for good: another one may take it while this one ends.  What
 * leads is the caller's to stop, before instance_stop(). */
void instance_leave(struct instance *i, const volatile int *hurry);
void instance_stop(struct instance **i);
