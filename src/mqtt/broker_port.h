/* SPDX-License-Identifier: MIT */
/* The embedded broker's port: whether it is free, and whether the broker answers on it.  Any
 * thread. */
#pragma once

#include "base/err.h"

/*
 * Tries whether HOST:*port can be listened on; a *port of 0 becomes a free one.  Nothing is held:
 * another program may take it right after.
 */
enum ota_code broker_port_check(const char *host, int *port, struct ota_err *err);
/* The sentence for a port that another program has. */
enum ota_code broker_port_taken(int port, struct ota_err *err);

enum broker_answer {
	BROKER_SILENT, /* not yet, or no broker: try again */
	BROKER_READY,
	BROKER_REFUSED, /* a broker that does not know the password: not ours */
};
/* Connects to the broker as USER and leaves again; 500 ms at most. */
enum broker_answer broker_port_ask(const char *host, int port, const char *user,
				   const char *password);
