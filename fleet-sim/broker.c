/* SPDX-License-Identifier: MIT */
#include "fleet-sim/broker.h"

#include "base/clock.h"
#include "cli/opt.h"
#include "cli/term.h"

#include <errno.h>
#include <mosquitto.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define KEEPALIVE_S   60
#define INFLIGHT      1000
#define REACH_MS      5000
#define JOINS_A_TICK  20
#define JOIN_TICK_MS  10
#define MISC_TICK_MS  1000
#define MISC_PARTS    10
#define READS_A_TURN  64
#define BACKOFF_MS    500
#define BACKOFF_MAX_S 15

struct conn {
	struct source source;
	struct broker *broker;
	struct mosquitto *m; /* NULL: never joined, or cut */
	struct conn *next_dirty;
	uint32_t index;
	uint32_t events; /* watched */
	bool wanted, up, dirty, queued;
	bool refused; /* and the problem says why */
	int64_t retry_at_ms;
	int64_t unacked;
	int backoff_ms;
};

struct broker {
	struct broker_config cfg;
	struct broker_door door;
	struct conn *conns;
	struct conn *dirty;
	uint32_t *queue; /* connections that are to be made; a ring */
	uint32_t queue_first, queue_count;
	int misc_part;
	bool joining; /* its timer runs */
	bool refused; /* by the broker: it will not do */
	struct broker_stats stats;
};

static void flush_soon(struct conn *c);
static void join_later(struct conn *c);

/* ------------------------------------------------------------------ where it is */

enum ota_code broker_door_read(struct broker_door *door, const struct args *a, struct ota_err *err)
{
	const char *broker = args_get(a, "broker");

	*door = (struct broker_door){
		.tls = {args_get(a, "cacert"), args_get(a, "cert"), args_get(a, "key")},
		.user = getenv("MQTT_USER"),
		.password = getenv("MQTT_PASSWORD"),
	};
	if (broker_place_parse("--broker", broker ? broker : "127.0.0.1", &door->place, err) !=
	    OTA_OK)
		return err->code;
	if (!door->place.tls && (door->tls.cert || door->tls.key))
		return ota_fail(err, OTA_EINVAL, "--cert and --key go with --broker mqtts://HOST");
	return door->place.tls ? broker_tls_check(&door->tls, err) : OTA_OK;
}

static bool connects(const struct addrinfo *a)
{
	int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), error = 0;
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	socklen_t len = sizeof error;
	bool ok;

	if (fd < 0)
		return false;
	ok = connect(fd, a->ai_addr, a->ai_addrlen) == 0 ||
	     (errno == EINPROGRESS && poll(&p, 1, REACH_MS) == 1 &&
	      getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0);
	close(fd);
	return ok;
}

/* libmosquitto's own connecting may wait for minutes where nobody answers. */
static bool is_reachable(const struct broker_place *p, char *why, size_t size)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
	char port[8];
	bool ok = false;
	int rc;

	snprintf(port, sizeof port, "%d", p->port);
	rc = getaddrinfo(p->host, port, &hints, &found);
	if (rc != 0) {
		snprintf(why, size, "there is no broker %.100s: %s", p->host, gai_strerror(rc));
		return false;
	}
	for (struct addrinfo *a = found; a && !ok; a = a->ai_next)
		ok = connects(a);
	freeaddrinfo(found);
	if (!ok)
		snprintf(why, size, "no broker answers at %.150s:%d", p->host, p->port);
	return ok;
}

/* ------------------------------------------------------------------ libmosquitto's callbacks */

static void became_ready(struct conn *c)
{
	const struct broker_config *cfg = &c->broker->cfg;

	c->up = true;
	c->backoff_ms = BACKOFF_MS;
	c->broker->stats.up++;
	if (cfg->ready)
		cfg->ready(cfg->ctx, c->index);
}

static void on_connect(struct mosquitto *m, void *ctx, int rc)
{
	struct conn *c = ctx;
	struct broker *b = c->broker;
	struct broker_client what;

	if (rc != 0) {
		c->refused = b->refused = true;
		snprintf(b->stats.problem, sizeof b->stats.problem, "the broker refused: %s",
			 mosquitto_connack_string(rc));
		return;
	}
	b->cfg.describe(b->cfg.ctx, c->index, &what);
	if (what.subscription[0])
		mosquitto_subscribe(m, NULL, what.subscription, 1);
	else
		became_ready(c);
	flush_soon(c);
}

static void on_subscribe(struct mosquitto *m, void *ctx, int mid, int count, const int *granted)
{
	struct conn *c = ctx;

	(void)m;
	(void)mid;
	if (count > 0 && granted[0] > 2) {
		c->broker->refused = true;
		snprintf(c->broker->stats.problem, sizeof c->broker->stats.problem,
			 "the broker refuses to send commands: its access control forbids the "
			 "subscription");
	} else if (!c->up) {
		became_ready(c);
	}
}

static void on_message(struct mosquitto *m, void *ctx, const struct mosquitto_message *msg)
{
	struct conn *c = ctx;
	const struct broker_config *cfg = &c->broker->cfg;

	(void)m;
	c->broker->stats.received++;
	cfg->message(cfg->ctx, c->index, msg->topic, msg->payload,
		     msg->payloadlen > 0 ? (size_t)msg->payloadlen : 0);
	flush_soon(c); /* the PUBACK */
}

static void on_publish(struct mosquitto *m, void *ctx, int mid)
{
	struct conn *c = ctx;

	(void)m;
	(void)mid;
	c->unacked--;
	c->broker->stats.acknowledged++;
}

/* The first line of a failed handshake is the one that says why. */
static void on_log(struct mosquitto *m, void *ctx, int level, const char *line)
{
	struct conn *c = ctx;

	(void)m;
	if (!c->broker->door.place.tls || level != MOSQ_LOG_ERR || c->refused)
		return;
	c->refused = c->broker->refused = true;
	snprintf(c->broker->stats.problem, sizeof c->broker->stats.problem, "TLS: %s",
		 broker_tls_reason(line));
}

/* ------------------------------------------------------------------ a connection's life */

static void went_down(struct conn *c, const char *why)
{
	struct broker *b = c->broker;

	loop_forget(b->cfg.loop, &c->source);
	c->events = 0;
	if (c->up) {
		b->stats.up--;
		b->stats.lost++;
	}
	c->up = false;
	if (why && !c->refused)
		snprintf(b->stats.problem, sizeof b->stats.problem, "%s", why);
	c->refused = false;
	if (!c->wanted)
		return;
	c->retry_at_ms = loop_now_ms(b->cfg.loop) + c->backoff_ms;
	c->backoff_ms =
		c->backoff_ms * 2 < BACKOFF_MAX_S * 1000 ? c->backoff_ms * 2 : BACKOFF_MAX_S * 1000;
	join_later(c);
}

static bool check(struct conn *c, int rc)
{
	if (rc == MOSQ_ERR_SUCCESS)
		return true;
	/* It may have closed the socket itself; the number is then another's soon. */
	went_down(c, rc == MOSQ_ERR_ERRNO ? strerror(errno) : mosquitto_strerror(rc));
	return false;
}

/* Writes what there is, and watches for what the socket did not take. */
static void flush(struct conn *c)
{
	uint32_t events = EPOLLIN;

	if (!c->m || mosquitto_socket(c->m) < 0)
		return;
	if (mosquitto_want_write(c->m) && !check(c, mosquitto_loop_write(c->m, 1)))
		return;
	if (mosquitto_socket(c->m) < 0)
		return;
	events |= mosquitto_want_write(c->m) ? EPOLLOUT : 0;
	if (events != c->events &&
	    loop_watch(c->broker->cfg.loop, &c->source, mosquitto_socket(c->m), events))
		c->events = events;
}

static void on_flush(void *ctx, uint64_t arg)
{
	struct broker *b = ctx;
	struct conn *c;

	(void)arg;
	while ((c = b->dirty) != NULL) {
		b->dirty = c->next_dirty;
		c->dirty = false;
		flush(c);
	}
}

/* What is said in one turn goes out together. */
static void flush_soon(struct conn *c)
{
	struct broker *b = c->broker;

	if (c->dirty)
		return;
	if (!b->dirty)
		loop_after(b->cfg.loop, 0, on_flush, b, 0);
	c->dirty = true;
	c->next_dirty = b->dirty;
	b->dirty = c;
}

static void on_ready(struct source *s, uint32_t events)
{
	struct conn *c = (struct conn *)s;
	char byte;

	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		for (int i = 0; i < READS_A_TURN; i++) {
			if (!c->m || !check(c, mosquitto_loop_read(c->m, 1)))
				return;
			if (!c->m || mosquitto_socket(c->m) < 0 ||
			    recv(mosquitto_socket(c->m), &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0)
				break;
		}
	flush(c);
}

/* The broker's certificate has to be good, and to be of the host that we mean. */
static int use_tls(struct mosquitto *m, const struct broker_tls *tls)
{
	const char *folder = tls->ca ? NULL : broker_tls_system_authorities();

	return mosquitto_tls_set(m, tls->ca, folder, tls->cert, tls->key, NULL);
}

static struct mosquitto *make(struct conn *c)
{
	struct broker *b = c->broker;
	struct broker_client what = {0};
	struct mosquitto *m;
	int rc;

	b->cfg.describe(b->cfg.ctx, c->index, &what);
	m = mosquitto_new(what.id, true, c);
	if (!m)
		return NULL;
	mosquitto_threaded_set(m, true);
	mosquitto_max_inflight_messages_set(m, INFLIGHT);
	mosquitto_connect_callback_set(m, on_connect);
	mosquitto_subscribe_callback_set(m, on_subscribe);
	mosquitto_message_callback_set(m, on_message);
	mosquitto_publish_callback_set(m, on_publish);
	mosquitto_log_callback_set(m, on_log);
	rc = mosquitto_int_option(m, MOSQ_OPT_TCP_NODELAY, 1);
	if (rc == 0 && b->door.user)
		rc = mosquitto_username_pw_set(m, b->door.user, b->door.password);
	if (rc == 0 && b->door.place.tls)
		rc = use_tls(m, &b->door.tls);
	if (rc == 0 && what.will_topic[0])
		rc = mosquitto_will_set(m, what.will_topic, (int)strlen(what.will_payload),
					what.will_payload, 1, true);
	if (rc == 0)
		return m;
	mosquitto_destroy(m);
	return NULL;
}

static void join_now(struct conn *c)
{
	bool again = c->m != NULL;
	int rc;

	if (!c->m)
		c->m = make(c);
	if (!c->m)
		rc = MOSQ_ERR_NOMEM;
	else if (again)
		rc = mosquitto_reconnect(c->m);
	else
		rc = mosquitto_connect(c->m, c->broker->door.place.host, c->broker->door.place.port,
				       KEEPALIVE_S);
	if (check(c, rc))
		flush(c);
}

static void on_join(void *ctx, uint64_t arg)
{
	struct broker *b = ctx;
	int64_t now = loop_now_ms(b->cfg.loop);
	uint32_t look = b->queue_count;
	char why[200];

	(void)arg;
	b->joining = false;
	for (int joins = 0; look > 0 && joins < JOINS_A_TICK; look--) {
		struct conn *c = &b->conns[b->queue[b->queue_first]];

		b->queue_first = (b->queue_first + 1) % b->cfg.connections;
		b->queue_count--;
		c->queued = false;
		if (!c->wanted)
			continue;
		if (c->retry_at_ms > now) {
			join_later(c);
			continue;
		}
		/* Once a tick: while nobody listens nobody is asked to connect. */
		if (joins++ == 0 && !is_reachable(&b->door.place, why, sizeof why)) {
			went_down(c, why);
			break;
		}
		join_now(c);
	}
	if (b->queue_count > 0 && !b->joining)
		b->joining = loop_after(b->cfg.loop, JOIN_TICK_MS, on_join, b, 0);
}

static void join_later(struct conn *c)
{
	struct broker *b = c->broker;

	if (!c->queued)
		b->queue[(b->queue_first + b->queue_count++) % b->cfg.connections] = c->index;
	c->queued = true;
	if (!b->joining)
		b->joining = loop_after(b->cfg.loop, JOIN_TICK_MS, on_join, b, 0);
}

/* Pings, and connections that went silent: each is looked at every ten seconds. */
static void on_misc(void *ctx, uint64_t arg)
{
	struct broker *b = ctx;

	(void)arg;
	b->misc_part = (b->misc_part + 1) % MISC_PARTS;
	for (uint32_t i = (uint32_t)b->misc_part; i < b->cfg.connections; i += MISC_PARTS) {
		struct conn *c = &b->conns[i];

		if (c->m && mosquitto_socket(c->m) >= 0 && check(c, mosquitto_loop_misc(c->m)))
			flush(c);
	}
	loop_after(b->cfg.loop, MISC_TICK_MS, on_misc, b, 0);
}

/* ------------------------------------------------------------------ the interface */

enum ota_code broker_new(const struct broker_config *cfg, struct broker **out, struct ota_err *err)
{
	struct broker *b;
	char why[200];

	if (!is_reachable(&cfg->door->place, why, sizeof why))
		return ota_fail(err, OTA_EIO, "%s", why);
	b = calloc(1, sizeof *b);
	if (!b)
		return ota_fail_nomem(err);
	mosquitto_lib_init();
	b->cfg = *cfg;
	b->door = *cfg->door;
	b->conns = calloc(cfg->connections, sizeof *b->conns);
	b->queue = calloc(cfg->connections, sizeof *b->queue);
	if (!b->conns || !b->queue || !loop_after(cfg->loop, MISC_TICK_MS, on_misc, b, 0)) {
		broker_free(&b);
		return ota_fail_nomem(err);
	}
	for (uint32_t i = 0; i < cfg->connections; i++) {
		b->conns[i].source = SOURCE_INIT(on_ready);
		b->conns[i].broker = b;
		b->conns[i].index = i;
		b->conns[i].backoff_ms = BACKOFF_MS;
	}
	*out = b;
	return OTA_OK;
}

static void say_goodbye(struct conn *c)
{
	if (c->up) {
		mosquitto_disconnect(c->m);
		for (int i = 0; i < 100 && mosquitto_want_write(c->m); i++)
			if (mosquitto_loop_write(c->m, 1) != MOSQ_ERR_SUCCESS)
				break;
	}
	if (c->m)
		mosquitto_destroy(c->m);
	c->m = NULL;
}

void broker_free(struct broker **p)
{
	struct broker *b = *p;

	if (!b)
		return;
	for (uint32_t i = 0; b->conns && i < b->cfg.connections; i++) {
		loop_forget(b->cfg.loop, &b->conns[i].source);
		say_goodbye(&b->conns[i]);
	}
	free(b->conns);
	free(b->queue);
	free(b);
	mosquitto_lib_cleanup();
	*p = NULL;
}

void broker_join(struct broker *b, uint32_t connection)
{
	struct conn *c = &b->conns[connection];

	if (c->wanted)
		return;
	c->wanted = true;
	c->retry_at_ms = 0;
	b->stats.joined++;
	join_later(c);
}

enum ota_code broker_join_all(struct broker *b, int64_t ms, struct ota_err *err)
{
	const struct broker_stats *s = &b->stats;
	int64_t until_ms = clock_mono_ms() + ms;

	for (uint32_t i = 0; i < b->cfg.connections; i++)
		broker_join(b, i);
	while (s->up < s->joined && !b->refused && clock_mono_ms() < until_ms &&
	       !term_interrupted())
		loop_turn(b->cfg.loop, 50);
	if (s->up < s->joined)
		return ota_fail(err, OTA_EIO, "%s",
				s->problem[0] ? s->problem : "the broker does not answer");
	return OTA_OK;
}

void broker_cut(struct broker *b, uint32_t connection)
{
	struct conn *c = &b->conns[connection];

	if (!c->wanted)
		return;
	c->wanted = false;
	b->stats.joined--;
	loop_forget(b->cfg.loop, &c->source);
	c->events = 0;
	b->stats.up -= c->up;
	c->up = false;
	/* What is said is said: it is out, or in the socket. */
	if (c->m && mosquitto_want_write(c->m))
		mosquitto_loop_write(c->m, 1);
	if (c->m)
		mosquitto_destroy(c->m);
	c->m = NULL;
	b->stats.abandoned += c->unacked;
	c->unacked = 0;
}

bool broker_publish(struct broker *b, uint32_t connection, const char *topic, const char *payload,
		    size_t len, int qos, bool retain)
{
	struct conn *c = &b->conns[connection];

	if (!c->m || mosquitto_publish(c->m, NULL, topic, (int)len, payload, qos, retain) != 0)
		return false;
	b->stats.published++;
	c->unacked++;
	flush_soon(c);
	return true;
}

bool broker_is_up(const struct broker *b, uint32_t connection)
{
	return b->conns[connection].up;
}

const struct broker_stats *broker_stats(const struct broker *b)
{
	return &b->stats;
}
