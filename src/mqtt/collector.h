/* SPDX-License-Identifier: MIT */
/*
 * The collector: what devices say over MQTT becomes commands, and is acknowledged after the commit.
 *
 * It reads until the socket is dry or the batch is full, submits the batch, and leaves the socket
 * alone until the committer has answered all of it: one packet more would send the acknowledgements
 * that wait.  Then they go out.  Batches begin 20 ms apart at least.  If the store did not take
 * something, or takes too long, the socket is closed without writing: the broker keeps the messages
 * and sends them again.
 *
 * A message that cannot be understood is kept in ota_rejected_messages, counted and acknowledged:
 * it blocks nobody.  The MQTT thread alone; only collector_done() runs on the committer's.
 */
#pragma once

#include "commit/committer.h"
#include "mqtt/client.h"
#include "mqtt/payload.h"

#include <stdatomic.h>

struct collector_stats {
	_Atomic int64_t messages, coalesced, rejected[REJECT_REASONS], refused, over_limit, batches;
};

struct collector_config {
	struct client_config *broker;
	const char *client_id;
	struct committer *committer;
	int64_t new_devices_per_second;
	int wake_fd; /* an eventfd that ends the thread's poll */
	/* Called for a device that came online, or was heard of for the first time. */
	void (*on_seen)(void *ctx, const char *device_id);
	void *ctx;
};

struct collector;

enum ota_code collector_new(const struct collector_config *cfg, struct collector **out,
			    struct ota_err *err);
/* What to poll, and what to do when the poll is over.  Returns in milliseconds how long the next
 * poll may take. */
struct pollfd collector_pollfd(const struct collector *c);
int collector_turn(struct collector *c, bool readable);
/* Takes no more, waits for what is with the committer, acknowledges it, says goodbye. */
void collector_end(struct collector *c);
void collector_free(struct collector **c);

const struct client *collector_client(const struct collector *c);
struct collector_stats *collector_stats(struct collector *c);
