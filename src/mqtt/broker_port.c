/* SPDX-License-Identifier: MIT */
#include "mqtt/broker_port.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* "::" stands for every address of both families. */
static const char *node(const char *host)
{
	return strcmp(host, "::") == 0 ? NULL : host;
}

enum ota_code broker_port_taken(int port, struct ota_err *err)
{
	return ota_fail(err, OTA_ECONFLICT,
			"port %d is taken by another program: set MQTT_HOST=127.0.0.1 to use the "
			"broker that runs there, MQTT_PORT to another port, or OTA_MQTT=off",
			port);
}

static void set_port(struct sockaddr *at, int port)
{
	if (at->sa_family == AF_INET6)
		((struct sockaddr_in6 *)(void *)at)->sin6_port = htons((uint16_t)port);
	else
		((struct sockaddr_in *)(void *)at)->sin_port = htons((uint16_t)port);
}

static int port_of(int fd)
{
	struct sockaddr_storage at = {0};
	socklen_t len = sizeof at;

	if (getsockname(fd, (struct sockaddr *)&at, &len) != 0)
		return 0;
	return ntohs(at.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&at)->sin6_port
					      : ((struct sockaddr_in *)&at)->sin_port);
}

/* 0, or why it cannot be listened on.  The socket's options are those of mosquitto. */
static int try_listen(const struct addrinfo *a, int *port)
{
	int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), e = 0, on = 1;

	if (fd < 0)
		return errno;
	set_port(a->ai_addr, *port);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (a->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
	if (bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, 1) != 0)
		e = errno;
	else if (*port == 0)
		*port = port_of(fd);
	close(fd);
	return e;
}

static enum ota_code cannot_listen(const char *host, int port, int e, struct ota_err *err)
{
	if (e == EADDRINUSE)
		return broker_port_taken(port, err);
	if (e == EADDRNOTAVAIL)
		return ota_fail(err, OTA_EINVAL, "HOST: %s is no address of this machine", host);
	return ota_fail_errno(err, e, "the broker cannot listen on %s, port %d", host, port);
}

enum ota_code broker_port_check(const char *host, int *port, struct ota_err *err)
{
	struct addrinfo hints = {
		.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
	struct addrinfo *all;
	int at = *port, e = 0, good = 0;

	int g = getaddrinfo(node(host), "0", &hints, &all);
	if (g != 0)
		return ota_fail(err, OTA_EINVAL, "HOST: %s is no address: %s", host,
				gai_strerror(g));
	for (const struct addrinfo *a = all; a; a = a->ai_next) {
		int one = try_listen(a, &at);

		good += one == 0;
		/* A machine without IPv6 still has IPv4. */
		if (one != 0 && (e == 0 || one == EADDRINUSE))
			e = one;
		if (one == EADDRINUSE)
			break;
	}
	freeaddrinfo(all);
	if (e == EADDRINUSE || good == 0)
		return cannot_listen(host, at, e, err);
	*port = at;
	return OTA_OK;
}

/* --- a few bytes of MQTT 3.1.1 --- */

static size_t put_text(uint8_t *out, const char *text)
{
	size_t n = strlen(text);

	out[0] = (uint8_t)(n >> 8);
	out[1] = (uint8_t)n;
	memcpy(out + 2, text, n);
	return n + 2;
}

/* CONNECT: a clean session without a name.  OUT has room for 128 bytes, which it fits in. */
static size_t make_connect(uint8_t *out, const char *user, const char *password)
{
	static const uint8_t head[] = {0x10, 0, 0, 4, 'M', 'Q', 'T', 'T', 4, 0xC2, 0, 10, 0, 0};
	size_t n = sizeof head;

	memcpy(out, head, n);
	n += put_text(out + n, user);
	n += put_text(out + n, password);
	out[1] = (uint8_t)(n - 2);
	return n;
}

static int open_connection(const char *host, int port)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
	struct timeval patience = {.tv_usec = 500000};
	struct addrinfo *all;
	int fd = -1;

	if (strcmp(host, "0.0.0.0") == 0 || !node(host))
		host = "127.0.0.1";
	if (getaddrinfo(host, "0", &hints, &all) != 0)
		return -1;
	set_port(all->ai_addr, port);
	fd = socket(all->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0) {
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
		if (connect(fd, all->ai_addr, all->ai_addrlen) != 0) {
			close(fd);
			fd = -1;
		}
	}
	freeaddrinfo(all);
	return fd;
}

enum broker_answer broker_port_ask(const char *host, int port, const char *user,
				   const char *password)
{
	static const uint8_t leave[] = {0xE0, 0};
	enum broker_answer answer = BROKER_SILENT;
	uint8_t out[128], in[4];
	int fd;

	if (strlen(user) + strlen(password) > 100)
		return BROKER_REFUSED;
	fd = open_connection(host, port);
	if (fd < 0)
		return BROKER_SILENT;
	size_t n = make_connect(out, user, password);
	if (send(fd, out, n, MSG_NOSIGNAL) == (ssize_t)n &&
	    recv(fd, in, sizeof in, MSG_WAITALL) == sizeof in && in[0] == 0x20) {
		answer = in[3] == 0 ? BROKER_READY : BROKER_REFUSED;
		if (answer == BROKER_READY && send(fd, leave, sizeof leave, MSG_NOSIGNAL) < 0)
			answer = BROKER_SILENT;
	}
	close(fd);
	return answer;
}
