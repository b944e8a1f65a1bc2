/* SPDX-License-Identifier: MIT */
/*
 * The threads on which libmicrohttpd runs, for the service's own HTTP door and for the relay.
 *
 * Each thread has a daemon of the library to itself, all listen on one socket.  A thread waits for
 * its daemon, then lets it do what there is to do; the library itself never waits.  Its own threads
 * would (0.9.75, epoll): it takes 128 events at a time, and where there were just 128 it waits for
 * another one before it looks at those that it has, however long that takes.
 *
 * Who resumes requests from elsewhere wakes a thread once for all that it finds when it comes.
 */
#pragma once

#include "base/err.h"

#include <microhttpd.h>
#include <stdarg.h>

struct workers;
struct worker;

struct workers_config {
	int64_t threads; /* 0: as many as can run at once, since requests never wait in one */
	int64_t max_connections, timeout_s;
	int listen_fd; /* stays the caller's, and may be closed once they have started */
	/* What the library calls, on the thread of the connection; cls is theirs. */
	MHD_AccessHandlerCallback request;
	void *(*begin)(void *cls, const char *uri, struct MHD_Connection *connection);
	MHD_RequestCompletedCallback end;
	MHD_NotifyConnectionCallback connection;
	void (*log)(void *cls, const char *fmt, va_list ap);
	/* After it has called for all that there was to do, on each thread; or NULL. */
	void (*turn)(void *cls);
	void *cls;
};

enum ota_code workers_start(const struct workers_config *cfg, struct workers **out,
			    struct ota_err *err);
/* They take no more connections: who comes now is for another process that listens, or for nobody
 * once that socket is closed. */
void workers_let_go(struct workers *w);
/* Ends threads and connections.  No request is suspended, and nobody calls worker_resume(). */
void workers_stop(struct workers **w);

/* The one whose thread this is: of a request, in what the library calls. */
struct worker *worker_current(void);
/* MHD_resume_connection() from any thread, and its worker is woken. */
void worker_resume(struct worker *w, struct MHD_Connection *connection);
