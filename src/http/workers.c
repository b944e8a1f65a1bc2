/* SPDX-License-Identifier: MIT */
#include "http/workers.h"

#include "http/sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct worker {
	const struct workers_config *cfg;
	struct MHD_Daemon *daemon;
	pthread_t thread;
	bool started;
	int epoll_fd; /* the library's */
	int bell;     /* an eventfd */
	_Atomic bool rung, lets_go, stopping;
	/* The thread's: one has closed, and the library may listen again, once it is called. */
	bool has_room;
};

struct workers {
	struct workers_config cfg;
	unsigned count;
	struct worker each[];
};

static _Thread_local struct worker *current;

struct worker *worker_current(void)
{
	return current;
}

/* --- waking --- */

static void ring(struct worker *w)
{
	uint64_t one = 1;

	if (!atomic_exchange(&w->rung, true))
		(void)!write(w->bell, &one, sizeof one);
}

/* What is asked for from now on rings again. */
static void heard(struct worker *w)
{
	uint64_t count;

	(void)!read(w->bell, &count, sizeof count);
	atomic_store(&w->rung, false);
}

void worker_resume(struct worker *w, struct MHD_Connection *connection)
{
	MHD_resume_connection(connection);
	ring(w);
}

/* --- a thread --- */

static void on_connection(void *cls, struct MHD_Connection *connection, void **socket_context,
			  enum MHD_ConnectionNotificationCode toe)
{
	struct worker *w = cls;

	w->has_room |= toe == MHD_CONNECTION_NOTIFY_CLOSED;
	w->cfg->connection(w->cfg->cls, connection, socket_context, toe);
}

static int wait_ms(struct worker *w)
{
	MHD_UNSIGNED_LONG_LONG ms;

	if (w->has_room)
		return 0;
	if (MHD_get_timeout(w->daemon, &ms) != MHD_YES)
		return -1;
	return ms < INT_MAX ? (int)ms : INT_MAX;
}

static void let_go(struct worker *w)
{
	/* Here, since the library is not to do it while it waits in another thread. */
	MHD_socket fd = MHD_quiesce_daemon(w->daemon);

	if (fd != MHD_INVALID_SOCKET)
		close(fd);
}

static void *run(void *arg)
{
	struct worker *w = arg;
	struct pollfd fds[] = {{w->epoll_fd, POLLIN, 0}, {w->bell, POLLIN, 0}};

	current = w;
	while (!atomic_load(&w->stopping)) {
		int ms = wait_ms(w);
		if (poll(fds, 2, ms) > 0 && fds[1].revents)
			heard(w);
		if (atomic_exchange(&w->lets_go, false))
			let_go(w);
		w->has_room = false;
		(void)MHD_run(w->daemon);
		if (w->cfg->turn)
			w->cfg->turn(w->cfg->cls);
	}
	return NULL;
}

/* --- start and stop --- */

static bool start(struct worker *w, unsigned connections)
{
	const struct workers_config *cfg = w->cfg;
	int fd = fcntl(cfg->listen_fd, F_DUPFD_CLOEXEC, 3);

	w->bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (fd < 0 || w->bell < 0) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	w->daemon = MHD_start_daemon(
		MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
		cfg->request, cfg->cls, MHD_OPTION_EXTERNAL_LOGGER, cfg->log, NULL,
		MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, connections,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEADER_MEMORY,
		/* main() ignores the signal: files may be sent by the kernel. */
		MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
		/* connections.c watches; this is for one it had no memory for */
		MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)cfg->timeout_s,
		MHD_OPTION_URI_LOG_CALLBACK, cfg->begin, cfg->cls, MHD_OPTION_NOTIFY_COMPLETED,
		cfg->end, cfg->cls, MHD_OPTION_NOTIFY_CONNECTION, on_connection, w, MHD_OPTION_END);
	const union MHD_DaemonInfo *info =
		w->daemon ? MHD_get_daemon_info(w->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
	if (!info)
		return false; /* the library has closed FD, or does when it is stopped */
	w->epoll_fd = info->epoll_fd;
	w->started = pthread_create(&w->thread, NULL, run, w) == 0;
	if (w->started)
		pthread_setname_np(w->thread, "http");
	return w->started;
}

enum ota_code workers_start(const struct workers_config *cfg, struct workers **out,
			    struct ota_err *err)
{
	unsigned count = cfg->threads ? (unsigned)cfg->threads : processors_we_may_use();
	struct workers *w = calloc(1, sizeof *w + count * sizeof w->each[0]);

	if (!w)
		return ota_fail_nomem(err);
	w->cfg = *cfg;
	w->count = count;
	for (unsigned i = 0; i < count; i++) {
		w->each[i].cfg = &w->cfg;
		w->each[i].bell = -1;
	}
	for (unsigned i = 0; i < count; i++) {
		unsigned share = (unsigned)cfg->max_connections / count +
				 (i < (unsigned)cfg->max_connections % count);
		if (!start(&w->each[i], share)) {
			workers_stop(&w);
			return ota_fail(err, OTA_EIO, "the HTTP library does not start");
		}
	}
	*out = w;
	return OTA_OK;
}

void workers_let_go(struct workers *w)
{
	for (unsigned i = 0; i < w->count; i++) {
		atomic_store(&w->each[i].lets_go, true);
		ring(&w->each[i]);
	}
}

static void stop(struct worker *w)
{
	if (w->started) {
		atomic_store(&w->stopping, true);
		ring(w);
		pthread_join(w->thread, NULL);
	}
	if (w->daemon)
		MHD_stop_daemon(w->daemon);
	if (w->bell >= 0)
		close(w->bell);
}

void workers_stop(struct workers **wp)
{
	struct workers *w = *wp;

	if (!w)
		return;
	for (unsigned i = 0; i < w->count; i++)
		stop(&w->each[i]);
	free(w);
	*wp = NULL;
}
