/* SPDX-License-Identifier: MIT */
/*
 * Devices whose birth message was acknowledged and which were over the limit of new ones: they are
 * registered later, without a word of theirs.
 *
 * Nothing of the message is kept but its topic: the broker has the newest one, retained, and sends
 * it to who subscribes to just that topic.  So the list may be lost: the next connection gets all
 * retained copies anyway.  It is asked for when the limit's pause is over, slower than devices may
 * register, so that those who are known, and new ones that speak, are not held up.
 *
 * Up to LATECOMERS_MAX are kept; if there were more, all copies are asked for once these are
 * registered.  The MQTT thread alone.
 */
#pragma once

#include "mqtt/client.h"

#include <stddef.h>

#define LATECOMERS_MAX 100000

struct latecomer;

struct latecomers {
	struct latecomer *first, **end;
	size_t count;
	bool left_out;  /* more than the list holds */
	int64_t ask_ms; /* not before */
	int64_t per_second;
};

/* PER_SECOND: how many devices may register. */
void latecomers_init(struct latecomers *l, int64_t per_second);
/* The status on TOPIC registered nobody; again in so long. */
void latecomers_add(struct latecomers *l, const char *topic, int retry_after_s);
/* Asks for some, when it is time.  It writes: only while all that was read is committed. */
void latecomers_ask(struct latecomers *l, struct client *c);
/* All copies come, or it ends: nobody is to be asked for. */
void latecomers_clear(struct latecomers *l);
