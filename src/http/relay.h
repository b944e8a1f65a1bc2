/* SPDX-License-Identifier: MIT */
/*
 * The HTTP door of an instance that follows: /health and /metrics are its own, every other request
 * goes as it is to the instance that leads.  While nobody leads, the answer is 503 with
 * Retry-After. The leader is told the client's address in X-Forwarded-For, and believes it where
 * this instance stands in its OTA_TRUSTED_PROXIES.
 */
#pragma once

#include "config.h"
#include "store/lease.h"

struct relay;

/* CFG and LEASE stay the caller's.  LISTEN_FD listens already; the relay's from then on. */
enum ota_code relay_start(const struct config *cfg, struct lease *lease, int listen_fd,
			  struct relay **out, struct ota_err *err);
int relay_port(const struct relay *r);
/*
 * Lets requests that have begun end within WAIT_S (which main may cut short through *hurry), and
 * closes what is left.  Who listens on the same socket goes on.
 */
void relay_stop(struct relay **r, int64_t wait_s, const volatile int *hurry);
