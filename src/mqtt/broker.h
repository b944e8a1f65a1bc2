/* SPDX-License-Identifier: MIT */
/*
 * The embedded broker: Debian's mosquitto as our child, for those who have none.
 *
 * It gets a configuration that is written anew at each start, a password that only this process
 * knows, and ends with us, however we end: a pid file and a parent-death signal see to it.  The
 * main thread alone calls these functions (the signal is bound to the thread that forks), with
 * SIGCHLD blocked and waited for.
 */
#pragma once

#include "base/err.h"

#include <stdint.h>
#include <sys/types.h>

struct broker;

struct broker_config {
	const char *data_dir; /* its files go into data_dir/mosquitto */
	const char *host;     /* to listen on: "0.0.0.0", "::", "127.0.0.1" */
	int port;             /* 0: a free one */
	const char *program;  /* NULL: mosquitto, where distributions put it */
};

/*
 * Ends an orphan of an earlier run, writes the configuration, starts mosquitto and waits (10 s at
 * most) until it takes connections.  Errors are one sentence that says what to do: the port taken,
 * mosquitto not installed.
 */
enum ota_code broker_start(const struct broker_config *cfg, struct broker **out,
			   struct ota_err *err);
/* The user and the password of the service itself; they live as long as the broker. */
const char *broker_user(const struct broker *b);
const char *broker_password(const struct broker *b);
int broker_port(const struct broker *b);

/* After SIGCHLD: when the broker died it is logged and started again, at most once a second.
 * Returns the milliseconds after which it wants to be called again; -1: at the next SIGCHLD. */
int broker_watch(struct broker *b);
/* SIGTERM, SIGKILL after 5 s; waits for it. */
void broker_stop(struct broker **b);
