/* SPDX-License-Identifier: MIT */
/*
 * The dispatcher: tells devices over MQTT what to install.
 *
 * Whom: it looks over the fleet, part by part, with the same decide() as a check-in (at once after
 * a change of the plan, else in rounds), and hears of devices that come online.  Each becomes a
 * command (COMMAND_DISPATCH) at its turn: rollouts of the highest priority first, which take
 * turns, at most so many a second.  Only when
 * the attempt is durable is cmd/ota published, with Message Expiry, as soon as the broker has room
 * for it, and only if it still waits by then.  The MQTT thread alone; the committer's thread only
 * hands back what is done.
 */
#pragma once

#include "commit/committer.h"
#include "core/download_base.h"
#include "fleet/fleet.h"
#include "mqtt/client.h"

#include <stdatomic.h>

struct dispatcher_stats {
	_Atomic int64_t commands, waiting;
};

struct dispatcher_config {
	struct client_config *broker;
	const char *client_id, *site;
	struct fleet *fleet;
	const struct download_bases *bases; /* NULL: one for all */
	struct committer *committer;
	int64_t per_second, command_timeout_s;
	int wake_fd;
};

struct dispatcher;

enum ota_code dispatcher_new(const struct dispatcher_config *cfg, struct dispatcher **out,
			     struct ota_err *err);
/* "http://host:port", what command URLs begin with where `bases` has none; it stays the caller's.
 */
void dispatcher_set_base_url(struct dispatcher *d, const char *base_url);
/* A device was seen: it may be its turn. */
void dispatcher_consider(struct dispatcher *d, const char *device_id);
struct pollfd dispatcher_pollfd(const struct dispatcher *d);
/* Returns in milliseconds how long the next poll may take. */
int dispatcher_turn(struct dispatcher *d);
/* Waits for what is with the committer, says goodbye. */
void dispatcher_end(struct dispatcher *d);
void dispatcher_free(struct dispatcher **d);

const struct client *dispatcher_client(const struct dispatcher *d);
const struct dispatcher_stats *dispatcher_stats(const struct dispatcher *d);
