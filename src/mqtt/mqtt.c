/* SPDX-License-Identifier: MIT */
#include "mqtt/mqtt.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "mqtt/collector.h"
#include "mqtt/dispatcher.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <net/if.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LEASE_WAIT_MS 100 /* before it is looked again whether this instance leads */

struct mqtt {
	pthread_t thread;
	bool running; /* main's */
	_Atomic bool stopping;
	int wake_fd;
	struct client_config broker;
	char client_id[2][160]; /* collecting, telling */
	struct committer *committer;
	struct lease *lease; /* NULL: there is no other instance */
	struct collector *collector;
	struct dispatcher *dispatcher;
	/* What others see; written by the thread at each turn. */
	pthread_mutex_t lock;
	bool up;
	int64_t since_us;
	char problem[200];
	struct client_limits limits; /* of the session that collects */
	bool own_broker;
};

static void on_seen(void *ctx, const char *device_id)
{
	struct mqtt *m = ctx;

	dispatcher_consider(m->dispatcher, device_id);
}

/* Both have to be up; the one that is not tells why. */
static void note_state(struct mqtt *m)
{
	const struct client *a = collector_client(m->collector);
	const struct client *b = dispatcher_client(m->dispatcher);
	const struct client *tells = a->ready ? b : a;

	pthread_mutex_lock(&m->lock);
	m->up = a->ready && b->up;
	m->since_us = tells->since_us;
	if (m->up && a->since_us > b->since_us)
		m->since_us = a->since_us;
	snprintf(m->problem, sizeof m->problem, "%s", tells->problem);
	m->limits = a->limits;
	committer_hears(m->committer, m->up);
	pthread_mutex_unlock(&m->lock);
}

static void *run(void *arg)
{
	struct mqtt *m = arg;
	int wait_ms = 0;

	while (!m->stopping) {
		const struct pollfd nothing = {.fd = -1};
		bool leads = lease_holds(m->lease);
		struct pollfd p[3] = {
			{.fd = m->wake_fd, .events = POLLIN},
			leads ? collector_pollfd(m->collector) : nothing,
			leads ? dispatcher_pollfd(m->dispatcher) : nothing,
		};
		uint64_t n;
		if (poll(p, 3, wait_ms) < 0 && errno != EINTR)
			log_event(LOG_ERROR, "mqtt", "poll_failed", "%s", strerror(errno));
		if (p[0].revents & POLLIN)
			(void)!read(m->wake_fd, &n, sizeof n);
		wait_ms = LEASE_WAIT_MS;
		/* The sessions are the leader's: another one may have them by now. */
		if (!lease_holds(m->lease))
			continue;
		wait_ms = collector_turn(m->collector, (p[1].revents & ~POLLOUT) != 0);
		int other_ms = dispatcher_turn(m->dispatcher);
		if (other_ms < wait_ms)
			wait_ms = other_ms;
		note_state(m);
	}
	collector_end(m->collector);
	dispatcher_end(m->dispatcher);
	note_state(m);
	return NULL;
}

static enum ota_code make_parts(struct mqtt *m, const struct mqtt_parts *p, struct ota_err *err)
{
	struct collector_config cc = {
		.broker = &m->broker,
		.client_id = m->client_id[0],
		.committer = p->committer,
		.new_devices_per_second = p->cfg->new_devices_per_second,
		.wake_fd = m->wake_fd,
		.on_seen = on_seen,
		.ctx = m,
	};
	struct dispatcher_config dc = {
		.broker = &m->broker,
		.client_id = m->client_id[1],
		.site = p->cfg->mqtt_site,
		.fleet = p->fleet,
		.bases = p->cfg->download_bases,
		.committer = p->committer,
		.per_second = p->cfg->dispatch_per_second,
		.command_timeout_s = p->cfg->command_timeout_s,
		.wake_fd = m->wake_fd,
	};
	m->committer = p->committer;
	m->lease = p->lease;
	enum ota_code rc = dispatcher_new(&dc, &m->dispatcher, err);

	return rc == OTA_OK ? collector_new(&cc, &m->collector, err) : rc;
}

enum ota_code mqtt_new(const struct mqtt_parts *p, struct mqtt **out, struct ota_err *err)
{
	struct mqtt *m = calloc(1, sizeof *m);
	enum ota_code rc = OTA_OK;

	if (!m)
		return ota_fail_nomem(err);
	mosquitto_lib_init();
	pthread_mutex_init(&m->lock, NULL);
	m->since_us = clock_service_us();
	m->own_broker = !p->cfg->mqtt_host[0];
	m->broker = (struct client_config){
		.ca_file = p->cfg->mqtt_tls ? p->cfg->mqtt_ca : NULL,
		.cert_file = p->cfg->mqtt_cert,
		.key_file = p->cfg->mqtt_key,
		.stopping = &m->stopping,
	};
	m->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (m->wake_fd < 0)
		rc = ota_fail_errno(err, errno, "making an eventfd");
	if (rc == OTA_OK)
		rc = make_parts(m, p, err);
	if (rc != OTA_OK)
		mqtt_free(&m);
	else
		*out = m;
	return rc;
}

enum ota_code mqtt_start(struct mqtt *m, const struct mqtt_place *place, struct ota_err *err)
{
	snprintf(m->client_id[0], sizeof m->client_id[0], "%s-collect", place->client_id);
	snprintf(m->client_id[1], sizeof m->client_id[1], "%s-tell", place->client_id);
	m->broker.host = place->host;
	m->broker.port = place->port;
	m->broker.user = place->user;
	m->broker.password = place->password;
	dispatcher_set_base_url(m->dispatcher, place->base_url);
	int rc = pthread_create(&m->thread, NULL, run, m);
	if (rc != 0)
		return ota_fail_errno(err, rc, "starting the MQTT thread");
	m->running = true;
	/* Who is to be told of a new rollout is told now, not at the next turn. */
	committer_ring_on_plan(m->committer, m->wake_fd);
	return OTA_OK;
}

void mqtt_stop(struct mqtt *m)
{
	uint64_t one = 1;

	if (!m || !m->running)
		return;
	committer_ring_on_plan(m->committer, -1);
	committer_barrier(m->committer); /* what was to ring has rung */
	m->stopping = true;
	(void)!write(m->wake_fd, &one, sizeof one);
	pthread_join(m->thread, NULL);
	m->running = false;
}

void mqtt_free(struct mqtt **mp)
{
	struct mqtt *m = *mp;

	if (!m)
		return;
	collector_free(&m->collector);
	dispatcher_free(&m->dispatcher);
	if (m->wake_fd >= 0)
		close(m->wake_fd);
	pthread_mutex_destroy(&m->lock);
	mosquitto_lib_cleanup();
	free(m);
	*mp = NULL;
}

/* --- the name of the sessions --- */

static bool read_id(const char *path, char out[MQTT_CLIENT_ID_SIZE])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, out, MQTT_CLIENT_ID_SIZE - 1) : -1;

	if (fd >= 0)
		close(fd);
	out[n > 0 ? n : 0] = '\0';
	out[strcspn(out, "\n")] = '\0';
	return strlen(out) >= 32 && !name_version_error(out);
}

static bool write_id(const char *path, const char *id)
{
	char part[4200];

	if ((size_t)snprintf(part, sizeof part, "%s.new", path) >= sizeof part)
		return false;
	int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	size_t n = strlen(id);
	bool ok = fd >= 0 && write(fd, id, n) == (ssize_t)n && fsync(fd) == 0;

	if (fd >= 0 && close(fd) != 0)
		ok = false;
	return ok && rename(part, path) == 0;
}

enum ota_code mqtt_own_client_id(const char *data_dir, char out[MQTT_CLIENT_ID_SIZE],
				 struct ota_err *err)
{
	static const char prefix[] = "paku-otad-";
	char path[4200];
	uint8_t bytes[16];

	if ((size_t)snprintf(path, sizeof path, "%s/mqtt-client-id", data_dir) >= sizeof path)
		return ota_fail(err, OTA_EINVAL, "OTA_DATA_DIR is too long");
	if (read_id(path, out))
		return OTA_OK;
	if (!random_bytes(bytes, sizeof bytes))
		return ota_fail(err, OTA_EIO, "there are no random numbers to be had");
	memcpy(out, prefix, sizeof prefix);
	hex_encode(bytes, sizeof bytes, out + sizeof prefix - 1);
	return write_id(path, out) ? OTA_OK
				   : ota_fail_errno(err, errno, "%s cannot be written", path);
}

/* --- for others --- */

void mqtt_write_status(void *ctx, struct buf *b)
{
	struct mqtt *m = ctx;
	char since[TIME_TEXT_SIZE], text[300];

	pthread_mutex_lock(&m->lock);
	time_format(m->since_us, since);
	if (m->up)
		snprintf(text, sizeof text, "connected since %s%s%s", since,
			 m->problem[0] ? ", but " : "", m->problem);
	else
		snprintf(text, sizeof text, "connecting since %s: %s", since,
			 m->problem[0] ? m->problem : "not connected yet");
	pthread_mutex_unlock(&m->lock);
	json_str(b, "mqtt", text);
}

/* Less than that and something is lost, or slow. */
#define PACKET_LEAST         (64 * 1024)
#define SESSION_LEAST_S      3600
#define UNACKNOWLEDGED_LEAST 20

static void examine_limits(const struct client_limits *l, finding_fn *say, void *ctx)
{
	if (l->packet_bytes && l->packet_bytes < PACKET_LEAST)
		finding_say(say, ctx, "broker", FINDING_WARNING,
			    "raise its limit (mosquitto: max_packet_size)",
			    "the broker takes packets of up to %u bytes only",
			    (unsigned)l->packet_bytes);
	if (l->session_s && l->session_s < SESSION_LEAST_S)
		finding_say(say, ctx, "broker", FINDING_WARNING,
			    "raise its limit (mosquitto: persistent_client_expiration)",
			    "the broker forgets the service's session after %u s: what devices say "
			    "while the service is away longer is lost",
			    (unsigned)l->session_s);
	if (l->unacknowledged && l->unacknowledged < UNACKNOWLEDGED_LEAST)
		finding_say(say, ctx, "broker", FINDING_WARNING,
			    "raise its limit (mosquitto: max_inflight_messages)",
			    "the broker takes %u commands at a time only",
			    (unsigned)l->unacknowledged);
}

void mqtt_examine(void *ctx, finding_fn *say, void *say_ctx)
{
	struct mqtt *m = ctx;
	char since[TIME_TEXT_SIZE], problem[200];

	pthread_mutex_lock(&m->lock);
	struct client_limits limits = m->limits;
	bool up = m->up;
	time_format(m->since_us, since);
	snprintf(problem, sizeof problem, "%s", m->problem[0] ? m->problem : "not connected yet");
	pthread_mutex_unlock(&m->lock);
	if (!up) {
		finding_say(
			say, say_ctx, "broker", FINDING_PROBLEM,
			m->own_broker
				? "look for broker lines in the service's log"
				: "is the broker of MQTT_HOST there, and does it take MQTT_USER "
				  "and MQTT_PASSWORD? Its log tells",
			"not connected since %.19sZ: %s", since, problem);
		return;
	}
	finding_say(say, say_ctx, "broker", FINDING_OK, NULL, "%s, connected since %.19sZ%s",
		    m->own_broker ? "the built-in one" : "that of MQTT_HOST", since,
		    m->own_broker ? ""
				  : "; it does not tell how many messages it queues: docs/mqtt.md "
				    "says what it should");
	examine_limits(&limits, say, say_ctx);
}

static void write_text(struct mqtt *m, struct buf *b)
{
	const struct collector_stats *c = collector_stats(m->collector);
	const struct dispatcher_stats *d = dispatcher_stats(m->dispatcher);

	pthread_mutex_lock(&m->lock);
	bool up = m->up;
	pthread_mutex_unlock(&m->lock);
	buf_printf(b,
		   "# HELP paku_ota_mqtt_up 1 when both connections to the broker stand.\n"
		   "# TYPE paku_ota_mqtt_up gauge\npaku_ota_mqtt_up %d\n"
		   "# HELP paku_ota_mqtt_messages_total Messages from devices.\n"
		   "# TYPE paku_ota_mqtt_messages_total counter\n"
		   "paku_ota_mqtt_messages_total %" PRId64 "\n"
		   "# HELP paku_ota_mqtt_commands_total Commands sent to devices.\n"
		   "# TYPE paku_ota_mqtt_commands_total counter\n"
		   "paku_ota_mqtt_commands_total %" PRId64 "\n"
		   "# HELP paku_ota_mqtt_waiting Devices whose turn to be told is to come.\n"
		   "# TYPE paku_ota_mqtt_waiting gauge\npaku_ota_mqtt_waiting %" PRId64 "\n"
		   "# HELP paku_ota_mqtt_unregistered_total Devices over a limit, not registered.\n"
		   "# TYPE paku_ota_mqtt_unregistered_total counter\n"
		   "paku_ota_mqtt_unregistered_total %" PRId64 "\n"
		   "# HELP paku_ota_mqtt_rejected_total Messages that were not understood.\n"
		   "# TYPE paku_ota_mqtt_rejected_total counter\n",
		   up, c->messages, d->commands, d->waiting, c->over_limit);
	for (int i = 0; i < REJECT_REASONS; i++)
		buf_printf(b, "paku_ota_mqtt_rejected_total{reason=\"%s\"} %" PRId64 "\n",
			   reject_reason_name((enum reject_reason)i), c->rejected[i]);
}

void mqtt_write_metrics(void *ctx, struct buf *b, bool text)
{
	struct mqtt *m = ctx;
	int64_t rejected = 0;

	if (text) {
		write_text(m, b);
		return;
	}
	const struct collector_stats *c = collector_stats(m->collector);
	const struct dispatcher_stats *d = dispatcher_stats(m->dispatcher);
	for (int i = 0; i < REJECT_REASONS; i++)
		rejected += c->rejected[i];
	json_int(b, "mqtt_messages_total", c->messages);
	json_int(b, "mqtt_coalesced_total", c->coalesced);
	json_int(b, "mqtt_rejected_total", rejected);
	json_int(b, "mqtt_unregistered_total", c->over_limit);
	json_int(b, "mqtt_commands_total", d->commands);
	json_int(b, "mqtt_waiting", d->waiting);
}

/* --- the base of URLs --- */

static bool is_any(const char *host)
{
	return strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

static bool is_loopback(const char *host)
{
	return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 ||
	       strcasecmp(host, "localhost") == 0;
}

/* The address that packets to the world leave from: connecting a datagram socket sends nothing. */
static bool default_address(char *out, size_t size)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)}, own;
	socklen_t len = sizeof own;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return false;
	inet_pton(AF_INET, "192.0.2.1", &to.sin_addr); /* RFC 5737: nobody's */
	bool ok = connect(fd, (struct sockaddr *)&to, sizeof to) == 0 &&
		  getsockname(fd, (struct sockaddr *)&own, &len) == 0 &&
		  inet_ntop(AF_INET, &own.sin_addr, out, (socklen_t)size);
	close(fd);
	return ok;
}

enum ota_code mqtt_base_url(const struct config *cfg, int http_port, char *out, size_t size,
			    struct ota_err *err)
{
	char host[64] = "127.0.0.1";
	const char *own = host;

	if (cfg->public_url[0]) {
		size_t n = strlen(cfg->public_url);
		snprintf(out, size, "%.*s", (int)(cfg->public_url[n - 1] == '/' ? n - 1 : n),
			 cfg->public_url);
		return OTA_OK;
	}
	if (http_port == 0)
		return ota_fail(
			err, OTA_EINVAL,
			"the service listens on a Unix socket, which no device can reach: set "
			"OTA_PUBLIC_URL to the address of the proxy before it");
	if (!is_any(cfg->host))
		own = cfg->host;
	else
		(void)default_address(host, sizeof host);
	if (is_loopback(own) && cfg->mqtt_host[0] && !is_loopback(cfg->mqtt_host))
		return ota_fail(err, OTA_EINVAL,
				"devices at the broker %s cannot reach this service at %s: set "
				"OTA_PUBLIC_URL to its address",
				cfg->mqtt_host, own);
	snprintf(out, size, strchr(own, ':') ? "http://[%s]:%d" : "http://%s:%d", own, http_port);
	return OTA_OK;
}
