/* SPDX-License-Identifier: MIT */
/*
 * What the service manager (systemd) holds for the service, and is told by it: a listening socket
 * that outlives a restart, readiness, signs of life.  Without a manager nothing happens.  main's
 * alone.
 */
#pragma once

#include "base/err.h"

#include <stdint.h>

/*
 * The listening socket that was handed over (socket activation; sd_listen_fds(3)), the caller's
 * from then on; *FD is -1 where there is none.  Fails on more than one, or on something else.
 */
enum ota_code manager_socket(int *fd, struct ota_err *err);
/* The service answers from now on. */
void manager_ready(void);
void manager_stopping(void);
/* Milliseconds after which the manager, hearing nothing, kills and restarts us; 0: never. */
int64_t manager_watchdog_ms(void);
void manager_alive(void);
