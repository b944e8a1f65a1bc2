/* SPDX-License-Identifier: MIT */
/*
 * The embedded broker alone, kept as the daemon keeps it: for test_broker.py.
 *
 *   broker_driver DATA_DIR HOST PORT [MOSQUITTO]
 *
 * Says "ready PORT USER PASSWORD" once it takes connections; ends on SIGTERM.
 */
#include "mqtt/broker.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv)
{
	struct broker *broker = NULL;
	struct ota_err err;
	sigset_t set;
	int sig = 0, wait_ms = -1;

	if (argc < 4)
		return 2;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);

	struct broker_config cfg = {.data_dir = argv[1],
				    .host = argv[2],
				    .port = atoi(argv[3]),
				    .program = argc > 4 ? argv[4] : NULL};
	if (broker_start(&cfg, &broker, &err) != OTA_OK) {
		fprintf(stderr, "%s\n", err.msg);
		return 1;
	}
	printf("ready %d %s %s\n", broker_port(broker), broker_user(broker),
	       broker_password(broker));
	fflush(stdout);
	while (sig != SIGTERM) {
		struct timespec t = {wait_ms / 1000, wait_ms % 1000 * 1000000L};

		sig = sigtimedwait(&set, NULL, wait_ms < 0 ? NULL : &t);
		if (sig != SIGTERM)
			wait_ms = broker_watch(broker);
	}
	broker_stop(&broker);
	return 0;
}
