/* SPDX-License-Identifier: MIT */
#include "http/sockets.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG 4096

/* --- listening --- */

static enum ota_code find_address(const struct config *cfg, struct sockaddr_storage *out,
				  struct ota_err *err)
{
	struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV,
				 .ai_socktype = SOCK_STREAM};
	struct addrinfo *found = NULL;
	char port[8];

	snprintf(port, sizeof port, "%d", (int)cfg->port);
	int rc = getaddrinfo(cfg->host, port, &hints, &found);
	if (rc != 0)
		return ota_fail(err, OTA_EINVAL, "HOST is '%s', which is no address: %s", cfg->host,
				gai_strerror(rc));
	memset(out, 0, sizeof *out);
	memcpy(out, found->ai_addr, found->ai_addrlen);
	freeaddrinfo(found);
	return OTA_OK;
}

enum ota_code socket_listen(const struct config *cfg, int *out, struct ota_err *err)
{
	struct sockaddr_storage at;
	int on = 1, off = 0;

	if (find_address(cfg, &at, err) != OTA_OK)
		return err->code;
	bool six = at.ss_family == AF_INET6;
	socklen_t len = six ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
	int fd = socket(at.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	bool ok = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0;
	if (ok && six)
		ok = setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0;
	if (ok && bind(fd, (struct sockaddr *)&at, len) == 0 && listen(fd, BACKLOG) == 0) {
		*out = fd;
		return OTA_OK;
	}
	ota_fail_errno(err, errno,
		       "port %d of %s cannot be listened on (taken by another program, or not "
		       "allowed? PORT is another one)",
		       (int)cfg->port, cfg->host);
	if (fd >= 0)
		close(fd);
	return err->code;
}

unsigned processors_we_may_use(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned)CPU_COUNT(&set) : 2;
}

int socket_port(int fd)
{
	struct sockaddr_storage at = {0};
	socklen_t len = sizeof at;

	if (getsockname(fd, (struct sockaddr *)&at, &len) != 0)
		return 0;
	if (at.ss_family == AF_INET)
		return ntohs(((struct sockaddr_in *)&at)->sin_port);
	return at.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&at)->sin6_port) : 0;
}

/* --- connections --- */

bool socket_peer(struct MHD_Connection *connection, const struct connections *known, char *out,
		 size_t size)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	socklen_t len;

	snprintf(out, size, "?");
	if (!info || !info->client_addr)
		return false;
	if (info->client_addr->sa_family == AF_UNIX) {
		snprintf(out, size, "unix");
		return true;
	}
	len = info->client_addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
						       : sizeof(struct sockaddr_in);
	if (getnameinfo(info->client_addr, len, out, (socklen_t)size, NULL, 0, NI_NUMERICHOST) != 0)
		snprintf(out, size, "?");
	size_t n = strlen(out);
	if (n > 7 && strncmp(out, "::ffff:", 7) == 0)
		memmove(out, out + 7, n - 7 + 1);
	return connections_trust(known, out);
}

void socket_notify(struct connections *known, struct MHD_Connection *connection,
		   void **socket_context, enum MHD_ConnectionNotificationCode toe)
{
	if (toe == MHD_CONNECTION_NOTIFY_STARTED) {
		const union MHD_ConnectionInfo *info =
			MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
		*socket_context = info ? connection_add(known, info->connect_fd) : NULL;
	} else if (*socket_context) {
		connection_remove(known, *socket_context);
		*socket_context = NULL;
	}
}

void wait_a_moment(void)
{
	struct timespec moment = {0, 20 * 1000000};

	nanosleep(&moment, NULL);
}
