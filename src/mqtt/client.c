/* SPDX-License-Identifier: MIT */
#include "mqtt/client.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"

#include <errno.h>
#include <mqtt_protocol.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKOFF_FIRST_MS 250
#define BACKOFF_LAST_MS  30000
/* Up for that long it was a good connection: the next is tried at once.  A broker that lets us in
 * and closes (another client has our id, say) is not asked four times a second for ever. */
#define STEADY_MS        10000
#define SESSION_EXPIRY_S (14 * 86400)
/* Over TLS nothing is said before the broker has been quiet for so long: its word on a certificate
 * comes after the handshake, and is lost to who writes to a connection that it has closed. */
#define QUIET_MS 50
/* Messages the broker may send before the first is acknowledged: more than a batch. */
#define RECEIVE_MAXIMUM 2000
/* Messages of ours that may be on their way at once.  At each acknowledgement libmosquitto walks
 * over all of them. */
#define SEND_MAXIMUM 250
/* libmosquitto allocates what a packet announces: no more than this. */
#define PACKET_MAXIMUM (256 * 1024)

void client_init(struct client *c)
{
	c->m = NULL;
	c->up = c->ready = false;
	c->in_flight = 0;
	c->refusal[0] = c->tls_error[0] = '\0';
	c->since_us = clock_service_us();
	c->retry_at_ms = c->quiet_ms = 0;
	c->backoff_ms = BACKOFF_FIRST_MS;
	snprintf(c->problem, sizeof c->problem, "not connected yet");
}

/* Half of it for certain, half of it by chance: instances and connections do not stay in step. */
static int64_t jittered(int64_t ms)
{
	uint64_t chance = hash64_mix((uint64_t)clock_wall_us());

	return ms / 2 + (int64_t)(chance % (uint64_t)(ms / 2 + 1));
}

void client_drop(struct client *c, int64_t again_in_ms, const char *why)
{
	bool was_up = c->up;

	if (c->m)
		mosquitto_destroy(c->m);
	c->m = NULL;
	c->up = c->ready = false;
	c->in_flight = 0;
	c->refusal[0] = c->tls_error[0] = '\0';
	if (was_up && clock_mono_ms() - c->up_at_ms >= STEADY_MS)
		c->backoff_ms = BACKOFF_FIRST_MS;
	if (again_in_ms < 0) {
		again_in_ms = jittered(c->backoff_ms);
		c->backoff_ms =
			c->backoff_ms * 2 < BACKOFF_LAST_MS ? c->backoff_ms * 2 : BACKOFF_LAST_MS;
	}
	c->retry_at_ms = clock_mono_ms() + again_in_ms;
	if (was_up) {
		c->since_us = clock_service_us();
		log_event(LOG_WARNING, "mqtt", "disconnected", "%s: %s", c->id, why);
	} else if (strcmp(c->problem, why) != 0) {
		log_event(LOG_WARNING, "mqtt", "not_connected", "%s: %s", c->id, why);
	}
	snprintf(c->problem, sizeof c->problem, "%s", why);
}

static void on_connect(struct mosquitto *m, void *arg, int code, int flags,
		       const mosquitto_property *properties)
{
	struct client *c = arg;

	(void)m;
	(void)flags;
	c->packets++;
	if (code != 0) {
		/* Dropped by client_read(): not in a callback of what is dropped. */
		snprintf(c->refusal, sizeof c->refusal, "the broker refused: %s",
			 mosquitto_reason_string(code));
		return;
	}
	c->limits = (struct client_limits){0};
	mosquitto_property_read_int32(properties, MQTT_PROP_MAXIMUM_PACKET_SIZE,
				      &c->limits.packet_bytes, false);
	mosquitto_property_read_int32(properties, MQTT_PROP_SESSION_EXPIRY_INTERVAL,
				      &c->limits.session_s, false);
	mosquitto_property_read_int16(properties, MQTT_PROP_RECEIVE_MAXIMUM,
				      &c->limits.unacknowledged, false);
	c->up = true;
	c->ready = false;
	c->since_us = clock_service_us();
	c->up_at_ms = clock_mono_ms();
	c->problem[0] = '\0';
	log_event(LOG_INFO, "mqtt", "connected", "%s to %s:%d", c->id, c->cfg->host, c->cfg->port);
	c->on_up(c);
}

/* Until then what devices say would pass us by at a broker that knows no session of ours. */
static void on_subscribe(struct mosquitto *m, void *arg, int mid, int count, const int *granted,
			 const mosquitto_property *properties)
{
	struct client *c = arg;

	(void)m;
	(void)mid;
	(void)properties;
	c->packets++;
	c->ready = true;
	for (int i = 0; i < count; i++)
		if (granted[i] > 2) {
			c->ready = false;
			snprintf(c->problem, sizeof c->problem,
				 "the broker refused a subscription: %s",
				 mosquitto_reason_string(granted[i]));
			log_event(LOG_ERROR, "mqtt", "not_subscribed", "%s: %s", c->id, c->problem);
			return;
		}
}

static void on_message(struct mosquitto *m, void *arg, const struct mosquitto_message *message,
		       const mosquitto_property *properties)
{
	struct client *c = arg;

	(void)m;
	(void)properties;
	c->packets++;
	c->on_message(c, message);
}

/* Waits for a connection that is being made, or for the end of the service. */
static bool await_connect(const struct client *c, int fd)
{
	int64_t until_ms = clock_mono_ms() + CLIENT_CONNECT_MS;
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	int error = 0;
	socklen_t len = sizeof error;

	while (clock_mono_ms() < until_ms && !*c->cfg->stopping) {
		int n = poll(&p, 1, 100);
		if (n < 0 && errno != EINTR)
			return false;
		if (n > 0)
			return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 &&
			       error == 0;
	}
	return false;
}

/* Whether anybody listens there: libmosquitto's own connecting may wait for minutes. */
static bool is_reachable(const struct client *c, char *why, size_t size)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
	char port[8];
	bool ok = false;

	snprintf(port, sizeof port, "%d", c->cfg->port);
	int rc = getaddrinfo(c->cfg->host, port, &hints, &found);
	if (rc != 0) {
		snprintf(why, size, "MQTT_HOST %s: %s", c->cfg->host, gai_strerror(rc));
		return false;
	}
	for (struct addrinfo *a = found; a && !ok; a = a->ai_next) {
		int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (fd < 0)
			break;
		ok = connect(fd, a->ai_addr, a->ai_addrlen) == 0 ||
		     (errno == EINPROGRESS && await_connect(c, fd));
		close(fd);
	}
	freeaddrinfo(found);
	if (!ok)
		snprintf(why, size, "nobody answers at %s:%d", c->cfg->host, c->cfg->port);
	return ok;
}

/* What the broker took, or refused: who may not write cmd/ota commands nobody. */
static void on_publish(struct mosquitto *m, void *arg, int mid, int code,
		       const mosquitto_property *properties)
{
	struct client *c = arg;

	(void)m;
	(void)mid;
	(void)properties;
	c->packets++;
	c->in_flight--;
	if (code < 0x80) {
		c->problem[0] = '\0';
		return;
	}
	if (!c->problem[0])
		log_event(LOG_ERROR, "mqtt", "not_taken", "%s: the broker refused a message: %s",
			  c->id, mosquitto_reason_string(code));
	snprintf(c->problem, sizeof c->problem, "the broker refuses what it is to pass on: %s",
		 mosquitto_reason_string(code));
}

/* libmosquitto's codes say "a TLS error" at the most; the reason is in its log alone. */
static void on_log(struct mosquitto *m, void *arg, int level, const char *line)
{
	struct client *c = arg;

	(void)m;
	if (level == MOSQ_LOG_ERR)
		snprintf(c->tls_error, sizeof c->tls_error, "%s", line);
}

/* CA, certificate and key; without a CA the system's authorities. */
static int configure_tls(struct client *c)
{
	const struct client_config *cfg = c->cfg;
	const char *ca = cfg->ca_file[0] ? cfg->ca_file : NULL;
	const char *cert = cfg->cert_file[0] ? cfg->cert_file : NULL;
	int rc = ca ? 0 : mosquitto_int_option(c->m, MOSQ_OPT_TLS_USE_OS_CERTS, 1);

	/* It takes a certificate only together with authorities: then Debian's folder of them. */
	if (rc == 0 && (ca || cert))
		rc = mosquitto_tls_set(c->m, ca, ca ? NULL : "/etc/ssl/certs", cert,
				       cert ? cfg->key_file : NULL, NULL);
	return rc;
}

static int configure(struct client *c)
{
	const struct client_config *cfg = c->cfg;
	int rc = mosquitto_int_option(c->m, MOSQ_OPT_PROTOCOL_VERSION, MQTT_PROTOCOL_V5);

	if (rc == 0)
		rc = mosquitto_int_option(c->m, MOSQ_OPT_RECEIVE_MAXIMUM, RECEIVE_MAXIMUM);
	if (rc == 0)
		rc = mosquitto_int_option(c->m, MOSQ_OPT_SEND_MAXIMUM, SEND_MAXIMUM);
	if (rc == 0)
		rc = mosquitto_int_option(c->m, MOSQ_OPT_TCP_NODELAY, 1);
	/* Then what it has to say waits for client_write(). */
	if (rc == 0)
		rc = mosquitto_threaded_set(c->m, true);
	if (rc == 0 && cfg->user[0])
		rc = mosquitto_username_pw_set(c->m, cfg->user, cfg->password);
	if (rc == 0 && cfg->ca_file)
		rc = configure_tls(c);
	if (rc == 0 && c->will_topic)
		rc = mosquitto_will_set_v5(c->m, c->will_topic, (int)strlen(c->will_payload),
					   c->will_payload, 1, true, NULL);
	if (cfg->ca_file)
		mosquitto_log_callback_set(c->m, on_log);
	mosquitto_connect_v5_callback_set(c->m, on_connect);
	mosquitto_message_v5_callback_set(c->m, on_message);
	mosquitto_subscribe_v5_callback_set(c->m, on_subscribe);
	mosquitto_publish_v5_callback_set(c->m, on_publish);
	return rc;
}

static int connect_v5(struct client *c)
{
	mosquitto_property *properties = NULL;
	int rc = mosquitto_property_add_int32(&properties, MQTT_PROP_SESSION_EXPIRY_INTERVAL,
					      SESSION_EXPIRY_S);

	if (rc == 0)
		rc = mosquitto_property_add_int32(&properties, MQTT_PROP_MAXIMUM_PACKET_SIZE,
						  PACKET_MAXIMUM);
	if (rc == 0)
		rc = mosquitto_connect_bind_v5(c->m, c->cfg->host, c->cfg->port, CLIENT_KEEPALIVE_S,
					       NULL, properties);
	mosquitto_property_free_all(&properties);
	return rc;
}

static bool check(struct client *c, int rc)
{
	bool mute = rc == MOSQ_ERR_ERRNO && errno == EPROTO; /* of TLS, without a reason */
	const char *text = mute ? "the broker ended the TLS connection without a word"
			   : rc == MOSQ_ERR_ERRNO     ? strerror(errno)
			   : rc == MOSQ_ERR_KEEPALIVE ? "the broker does not answer any more"
						      : mosquitto_strerror(rc);
	char why[200];

	if (rc == MOSQ_ERR_SUCCESS && !c->refusal[0])
		return true;
	snprintf(why, sizeof why, "%s",
		 c->refusal[0]     ? c->refusal
		 : c->tls_error[0] ? c->tls_error
				   : text);
	client_drop(c, -1, why);
	return false;
}

/* libmosquitto calls a file that it cannot open an invalid argument. */
static bool files_are_readable(const struct client *c, char *why, size_t size)
{
	const struct client_config *cfg = c->cfg;
	const struct {
		const char *option, *path;
	} files[] = {{"OTA_MQTT_CA", cfg->ca_file},
		     {"OTA_MQTT_CERT", cfg->cert_file},
		     {"OTA_MQTT_KEY", cfg->key_file}};

	for (size_t i = 0; cfg->ca_file && i < sizeof files / sizeof files[0]; i++)
		if (files[i].path[0] && access(files[i].path, R_OK) != 0) {
			snprintf(why, size, "the file of %s cannot be read: %s", files[i].option,
				 strerror(errno));
			return false;
		}
	return true;
}

static void listen_first(struct client *c)
{
	c->quiet_ms = c->cfg->ca_file ? clock_mono_ms() + QUIET_MS : 0;
}

static bool is_readable(const struct client *c)
{
	struct pollfd p = {.fd = mosquitto_socket(c->m), .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

static bool may_write(const struct client *c)
{
	return c->m && mosquitto_want_write(c->m) && (c->up || clock_mono_ms() >= c->quiet_ms);
}

void client_tend(struct client *c)
{
	char why[200];

	if (c->m || clock_mono_ms() < c->retry_at_ms)
		return;
	if (!files_are_readable(c, why, sizeof why) || !is_reachable(c, why, sizeof why)) {
		client_drop(c, -1, why);
		return;
	}
	c->m = mosquitto_new(c->id, false, c);
	int rc = c->m ? configure(c) : MOSQ_ERR_NOMEM;
	if (rc == 0)
		rc = connect_v5(c);
	listen_first(c);
	if (rc != 0)
		(void)check(c, rc);
}

bool client_read(struct client *c)
{
	unsigned seen = c->packets;

	if (c->m && !c->up && is_readable(c))
		listen_first(c);
	return c->m && check(c, mosquitto_loop_read(c->m, 1)) && c->packets != seen;
}

bool client_has_room(const struct client *c)
{
	int most = c->limits.unacknowledged;

	return c->in_flight < (most > 0 && most < SEND_MAXIMUM ? most : SEND_MAXIMUM);
}

int client_publish(struct client *c, const char *topic, const char *payload, bool retain,
		   uint32_t expiry_s)
{
	mosquitto_property *properties = NULL;
	int rc = MOSQ_ERR_SUCCESS;

	if (expiry_s > 0)
		rc = mosquitto_property_add_int32(&properties, MQTT_PROP_MESSAGE_EXPIRY_INTERVAL,
						  expiry_s);
	if (rc == MOSQ_ERR_SUCCESS)
		rc = mosquitto_publish_v5(c->m, NULL, topic, (int)strlen(payload), payload, 1,
					  retain, properties);
	if (rc == MOSQ_ERR_SUCCESS)
		c->in_flight++;
	mosquitto_property_free_all(&properties);
	return rc;
}

/* libmosquitto sends each packet by itself; the kernel puts them together until the last. */
static void cork(const struct client *c, int on)
{
	(void)setsockopt(mosquitto_socket(c->m), IPPROTO_TCP, TCP_CORK, &on, sizeof on);
}

void client_write(struct client *c)
{
	/* A broker that refuses has said why before it closed; a write that fails would hide it. */
	while (c->m && !c->up && is_readable(c))
		(void)client_read(c);
	if (!may_write(c))
		return;
	cork(c, 1);
	if (check(c, mosquitto_loop_write(c->m, 1)))
		cork(c, 0);
}

void client_hurry(const struct client *c)
{
	int on = 1;

	if (c->m)
		(void)setsockopt(mosquitto_socket(c->m), IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
}

void client_misc(struct client *c)
{
	if (c->m)
		(void)check(c, mosquitto_loop_misc(c->m));
}

void client_fini(struct client *c)
{
	if (c->m && c->up) {
		mosquitto_disconnect_v5(c->m, 0, NULL);
		for (int i = 0; i < 100 && mosquitto_want_write(c->m); i++)
			if (mosquitto_loop_write(c->m, 1) != MOSQ_ERR_SUCCESS)
				break;
	}
	if (c->m)
		mosquitto_destroy(c->m);
	c->m = NULL;
	c->up = false;
}

struct pollfd client_pollfd(const struct client *c)
{
	struct pollfd p = {.fd = c->m ? mosquitto_socket(c->m) : -1, .events = POLLIN};

	if (may_write(c))
		p.events |= POLLOUT;
	return p;
}
