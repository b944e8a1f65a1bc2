/* SPDX-License-Identifier: MIT */
/* What the service's own HTTP door and the relay do alike with sockets and connections. */
#pragma once

#include "config.h"
#include "http/connections.h"

#include <microhttpd.h>
#include <stddef.h>

/* What a connection may hold of request line and headers. */
#define HEADER_MEMORY (20 * 1024)

/* A socket that listens as HOST and PORT say. */
enum ota_code socket_listen(const struct config *cfg, int *out, struct ota_err *err);
/* As many workers as can run at once: requests never wait in one, so more would only take turns. */
unsigned processors_we_may_use(void);
/* The TCP port; 0: a Unix socket. */
int socket_port(int fd);

/*
 * The address of the peer, and whether it is a proxy that we believe: one that was named, or
 * whoever may open our Unix socket.
 */
bool socket_peer(struct MHD_Connection *connection, const struct connections *known, char *out,
		 size_t size);
/* MHD's notice of a connection that begins or ends, for the watch. */
void socket_notify(struct connections *known, struct MHD_Connection *connection,
		   void **socket_context, enum MHD_ConnectionNotificationCode toe);

void wait_a_moment(void);
