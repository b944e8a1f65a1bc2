/* SPDX-License-Identifier: MIT */
/* What bench-mqtt-load and bench-mqtt-loop share: the service's own connection, a clock, the end.
 */
#pragma once

#include "base/clock.h"
#include "base/log.h"
#include "mqtt/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Nothing for so long: something was lost. */
#define PATIENCE_S 30

static inline _Noreturn void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", program_invocation_short_name, what);
	exit(1);
}

/* CLOCK_MONOTONIC, which all processes of a measurement share. */
static inline double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* CFG and the id live as long as the connection. */
static inline void link_open(struct client *c, const struct client_config *cfg, const char *id)
{
	c->cfg = cfg;
	c->id = id;
	client_init(c);
	client_tend(c);
	if (!c->m)
		die(c->problem);
}

/* Reads and writes what there is, waiting WAIT_MS at most. */
static inline void link_turn(struct client *c, int wait_ms)
{
	struct pollfd p = client_pollfd(c);

	poll(&p, 1, wait_ms);
	if (p.revents & (POLLIN | POLLHUP | POLLERR))
		while (client_read(c))
			;
	client_write(c);
	client_misc(c);
	if (!c->m)
		die(c->problem);
}

/* Until the broker has accepted, and what was subscribed to comes. */
static inline void link_await(struct client *c, bool subscribed)
{
	for (double end = now_s() + 10; !c->up || (subscribed && !c->ready);) {
		link_turn(c, 100);
		if (now_s() > end)
			die("the broker does not answer");
	}
}
