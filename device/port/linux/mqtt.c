/* SPDX-License-Identifier: MIT */
/*
 * The service over MQTT: who we are, the command, and what comes of it.  One thread, the agent's:
 * the connection lives in port_mqtt_pump(), which runs between the agent's steps, while it waits,
 * and while a download does.
 *
 * Happy path: connect (the session persists, so commands wait at the broker) -> subscribe, birth
 * message -> command, kept on the disk -> accepted -> progress once a second -> restart -> birth
 * message of the new version -> result.  libmosquitto writes nothing by itself in its threaded mode
 * without a thread: the PUBACK of a command leaves with mosquitto_loop_write(), after the command
 * is on the disk.
 *
 * What fails: the broker is away (tried again with backoff; the update goes on, and what is due is
 * told later), a message that is no command (told on stderr, answered where it names a version).
 * On trial nothing is said: a version that is not confirmed yet is not ours to announce.
 */
#include "port.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEEPALIVE_S    30
#define CONNECT_MS     10000 /* from the SYN to the CONNACK */
#define RETRY_FIRST_MS 1000u
#define RETRY_MAX_MS   30000u
#define ACK_MS         5000  /* for what has to be at the broker before we go on */
#define TELL_MS        1000  /* between two progress messages */
#define TELL_SAME_MS   10000 /* ... that say the same */
#define PUMP_MS        1000  /* the longest sleep: the keepalive and the tries need their turn */
#define CHECK_AGAIN_S  86400 /* nobody is asked: a command wakes the agent */
#define READS_MAX      100   /* packets in one go; the agent has work to do */
#define PAYLOAD_ROOM   2048

/* ----------------------------------------------------------------------------------- sending */

/* Valid until the next one. */
static struct paku_about about(struct port *p, const char *version, const char *attempt)
{
	time_format(clock_wall_us(), p->mqtt.now);
	return (struct paku_about){p->mqtt.now, version, attempt};
}

/* Queues it, to be sent again after a reconnect if need be (QoS 1).  Its id, or 0. */
static int publish(struct port *p, enum paku_topic topic, const char *payload, int qos)
{
	int mid = 0;
	int rc = mosquitto_publish(p->mqtt.client, &mid, p->mqtt.topics[topic],
				   (int)strlen(payload), payload, qos, topic == PAKU_TOPIC_STATUS);

	if (rc)
		port_say(p, "mqtt_unsent", "%s", mosquitto_strerror(rc));
	return rc ? 0 : mid;
}

/* What is confirmed, and therefore ours to announce. */
static bool settled(const struct port *p)
{
	const struct paku_record *rec = &p->agent.rec;

	return rec->active == p->agent.running && rec->trial == PAKU_NO_SLOT;
}

static void announce(struct port *p)
{
	char payload[PAYLOAD_ROOM];

	if (!p->mqtt.connected || p->mqtt.announced || !settled(p))
		return;
	p->id.uptime_s = (uint32_t)((clock_mono_ms() - p->boot_mono_ms) / 1000);
	p->mqtt.announced =
		paku_mqtt_birth(payload, sizeof payload, &p->id, paku_version(&p->agent)) &&
		publish(p, PAKU_TOPIC_STATUS, payload, 1);
	if (p->mqtt.announced)
		port_say(p, "mqtt_birth", "announced: %s runs %s", p->opt.model,
			 paku_version(&p->agent));
}

static void send_accepted(struct port *p, const struct paku_offer *offer)
{
	struct paku_about a = about(p, offer->version, p->mqtt.command.attempt);
	char payload[PAYLOAD_ROOM];

	if (paku_mqtt_accepted(payload, sizeof payload, &a))
		(void)publish(p, PAKU_TOPIC_ACCEPTED, payload, 1);
}

static int send_result(struct port *p, const char *version, const char *attempt,
		       enum paku_result result, const char *message)
{
	struct paku_about a = about(p, version, attempt);
	char payload[PAYLOAD_ROOM];

	return paku_mqtt_result(payload, sizeof payload, &a, result, message)
		       ? publish(p, PAKU_TOPIC_RESULT, payload, 1)
		       : 0;
}

static int send_progress(struct port *p, enum paku_state state, int qos)
{
	struct port_mqtt *m = &p->mqtt;
	const struct paku_slot *slot = &p->agent.rec.slot[p->agent.rec.subject];
	struct paku_about a = about(p, slot->version, p->agent.rec.attempt);
	bool known = slot->size != PAKU_SIZE_UNKNOWN;
	struct paku_progress progress = {
		.state = state,
		.downloaded = slot->written,
		.total = known ? slot->size : 0,
		.elapsed_ms = (uint32_t)(clock_mono_ms() - m->begun_mono_ms),
	};
	char payload[PAYLOAD_ROOM];

	m->told_state = state;
	m->told_bytes = slot->written;
	m->told_mono_ms = clock_mono_ms();
	return paku_mqtt_progress(payload, sizeof payload, &a, &progress)
		       ? publish(p, PAKU_TOPIC_PROGRESS, payload, qos)
		       : 0;
}

/* What the agent's phase is called over MQTT; false for the others: Installing, the restart and the
 * end are told when they are due, in port_mqtt_report(). */
static bool state_of(const char *phase, enum paku_state *state)
{
	static const struct {
		const char *phase;
		enum paku_state state;
	} states[] = {
		{"recheck", PAKU_STATE_CHECKING},
		{"open", PAKU_STATE_DOWNLOADING},
		{"fetch", PAKU_STATE_DOWNLOADING},
		{"verify", PAKU_STATE_VERIFYING},
	};

	for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
		if (strcmp(states[i].phase, phase) != 0)
			continue;
		*state = states[i].state;
		return true;
	}
	return false;
}

/* At a change of state at once, else once a second, and less often while nothing moves. */
static void tell_progress(struct port *p)
{
	struct port_mqtt *m = &p->mqtt;
	uint32_t bytes = p->agent.rec.slot[p->agent.rec.subject].written;
	int64_t silent_ms = clock_mono_ms() - m->told_mono_ms;
	enum paku_state state;

	if (!m->connected || !m->begun || !state_of(paku_phase_name(&p->agent), &state))
		return;
	if (state != m->told_state)
		(void)send_progress(p, state, 1);
	else if (silent_ms >= (bytes != m->told_bytes ? TELL_MS : TELL_SAME_MS))
		(void)send_progress(p, state, 0);
}

/* ------------------------------------------------------------------------------- the command */

/* The result is at the broker, or there is none to tell; for --once. */
static void count_end(struct port *p, enum paku_result result)
{
	p->mqtt.ended++;
	p->outcome = result == PAKU_RESULT_SUCCESS ? EXIT_FINE : EXIT_FAILED;
}

static void end_command(struct port *p, enum paku_result result, const char *message)
{
	struct port_command *c = &p->mqtt.command;

	c->state = COMMAND_ENDED;
	c->result = (uint8_t)result;
	snprintf(c->message, sizeof c->message, "%s", message);
	p->mqtt.begun = p->mqtt.ending = false;
	/* Not kept, it is begun once more after a restart, and ends as it did. */
	if (!port_command_save(p))
		port_say(p, "command_open", "a restart will begin it again");
	count_end(p, result);
}

static void refuse(struct port *p, const struct paku_offer *offer, enum paku_result result,
		   const char *message)
{
	char attempt[PAKU_ATTEMPT_SIZE];

	port_say(p, "command_refused", "the command for %s: %s", offer->version, message);
	paku_attempt_of(offer->url, attempt);
	(void)send_result(p, offer->version, attempt, result, message);
}

static bool same_command(const struct port_command *c, const struct paku_offer *offer)
{
	return strcmp(c->offer.url, offer->url) == 0 ||
	       paku_version_same(c->offer.version, offer->version);
}

/* Told again of an attempt that has ended here: the service missed the result. */
static bool told_before(struct port *p, const struct paku_offer *offer)
{
	const struct port_command *c = &p->mqtt.command;

	if (c->state != COMMAND_ENDED || !c->attempt[0] || strcmp(c->offer.url, offer->url) != 0)
		return false;
	port_say(p, "command_again", "the command for %s has ended before; told so again",
		 offer->version);
	(void)send_result(p, c->offer.version, c->attempt, (enum paku_result)c->result, c->message);
	return true;
}

static void keep_command(struct port *p, const struct paku_offer *offer)
{
	struct port_command before = p->mqtt.command, *c = &p->mqtt.command;

	memset(c, 0, sizeof *c);
	c->state = COMMAND_OPEN;
	c->offer = *offer;
	paku_attempt_of(offer->url, c->attempt);
	if (!port_command_save(p)) {
		p->mqtt.command = before;
		refuse(p, offer, PAKU_RESULT_INSTALL_FAILED, "the command cannot be kept");
		return;
	}
	port_say(p, "command", "told to update to %s", offer->version);
	send_accepted(p, offer);
}

static void take_command(struct port *p, const char *json, size_t len)
{
	const struct port_command *c = &p->mqtt.command;
	struct paku_offer offer;
	enum paku_result result = paku_parse_command(json, len, &offer);

	if (result != PAKU_RESULT_SUCCESS && !offer.version[0]) {
		port_say(p, "command_unclear", "a command that makes no sense is passed over");
	} else if (result != PAKU_RESULT_SUCCESS) {
		refuse(p, &offer, result,
		       result == PAKU_RESULT_INVALID_URL
			       ? "the command's URL is missing, too long or not http"
			       : "the command's checksum is not a SHA-256 in hex");
	} else if (c->state == COMMAND_OPEN && same_command(c, &offer)) {
		port_say(p, "command_duplicate", "the update to %s is under way", c->offer.version);
	} else if (c->state == COMMAND_OPEN) {
		refuse(p, &offer, PAKU_RESULT_ALREADY_RUNNING, "another update is under way");
	} else if (settled(p) && paku_version_same(offer.version, paku_version(&p->agent))) {
		refuse(p, &offer, PAKU_RESULT_SUCCESS, "it runs already");
		count_end(p, PAKU_RESULT_SUCCESS);
	} else if (!told_before(p, &offer)) {
		keep_command(p, &offer);
	}
}

void port_mqtt_begin(struct port *p)
{
	struct port_mqtt *m = &p->mqtt;

	if (m->command.state != COMMAND_OPEN || m->begun)
		return;
	/* Another update that was under way when the command came, by HTTP, made it needless. */
	if (settled(p) && !p->agent.rec.due &&
	    paku_version_same(m->command.offer.version, paku_version(&p->agent))) {
		(void)send_result(p, m->command.offer.version, m->command.attempt,
				  PAKU_RESULT_SUCCESS, "it runs already");
		end_command(p, PAKU_RESULT_SUCCESS, "it runs already");
		return;
	}
	m->begun_mono_ms = clock_mono_ms();
	m->begun = paku_take_offer(&p->agent, &m->command.offer);
}

void port_mqtt_withdrawn(struct port *p)
{
	struct port_mqtt *m = &p->mqtt;

	if (m->command.state != COMMAND_OPEN)
		return;
	memset(&m->command, 0, sizeof m->command);
	if (!port_command_save(p))
		port_say(p, "command_open", "a restart will ask for it again");
	m->begun = false;
	if (m->connected)
		(void)send_progress(p, PAKU_STATE_IDLE, 1);
	count_end(p, PAKU_RESULT_SUCCESS);
}

/* -------------------------------------------------------------------------- the connection */

static void on_connect(struct mosquitto *client, void *arg, int rc)
{
	struct port *p = arg;

	if (rc) {
		port_say(p, "mqtt_refused", "the broker refuses: %s", mosquitto_connack_string(rc));
		return;
	}
	p->mqtt.connected = true;
	p->mqtt.announced = false;
	p->mqtt.tries = 0;
	paku_report_now(&p->agent);
	port_say(p, "mqtt_connected", "connected to the broker at %s:%u", p->opt.mqtt.host,
		 p->opt.mqtt.port);
	rc = mosquitto_subscribe(client, NULL, p->mqtt.topics[PAKU_TOPIC_COMMAND], 1);
	if (rc)
		port_say(p, "mqtt_unsent", "cannot subscribe: %s", mosquitto_strerror(rc));
}

static void on_publish(struct mosquitto *client, void *arg, int mid)
{
	struct port *p = arg;

	(void)client;
	if (mid != p->mqtt.awaited)
		return;
	p->mqtt.awaited = 0;
	/* Here and not later: the next packet may be the command for another try. */
	if (p->mqtt.ending)
		end_command(p, p->mqtt.end_result, p->mqtt.end_message);
}

static void on_message(struct mosquitto *client, void *arg, const struct mosquitto_message *msg)
{
	struct port *p = arg;

	(void)client;
	if (msg->retain)
		port_say(p, "command_unclear", "a retained command is passed over");
	else if (msg->payloadlen > 0)
		take_command(p, msg->payload, (size_t)msg->payloadlen);
}

/* The first line of a failed handshake is the one that says why. */
static void on_log(struct mosquitto *client, void *arg, int level, const char *line)
{
	struct port *p = arg;

	(void)client;
	if (p->opt.mqtt.tls && level == MOSQ_LOG_ERR && !p->mqtt.tls_error[0])
		snprintf(p->mqtt.tls_error, sizeof p->mqtt.tls_error, "TLS: %s",
			 broker_tls_reason(line));
}

static void retry_later(struct port *p, const char *why)
{
	struct port_mqtt *m = &p->mqtt;
	uint32_t ms = RETRY_FIRST_MS << (m->tries > 5 ? 5 : m->tries), jitter = 0;

	if (ms > RETRY_MAX_MS)
		ms = RETRY_MAX_MS;
	if (!random_bytes(&jitter, sizeof jitter))
		jitter = (uint32_t)clock_mono_ms();
	if (m->connected || !m->tries)
		port_say(p, "mqtt_lost", "no connection to the broker at %s:%u (%s); will try on",
			 p->opt.mqtt.host, p->opt.mqtt.port, m->tls_error[0] ? m->tls_error : why);
	m->tries++;
	m->connected = m->trying = false;
	m->retry_mono_ms = clock_mono_ms() + ms / 2 + jitter % (ms / 2 + 1);
}

static void connect_if_due(struct port *p)
{
	struct port_mqtt *m = &p->mqtt;
	int64_t now = clock_mono_ms();

	if (m->trying && !m->connected && now - m->trying_mono_ms > CONNECT_MS)
		retry_later(p, "no answer");
	if (m->trying || now < m->retry_mono_ms)
		return;
	m->trying = true;
	m->trying_mono_ms = now;
	m->tls_error[0] = '\0';
	int rc =
		mosquitto_connect_async(m->client, p->opt.mqtt.host, p->opt.mqtt.port, KEEPALIVE_S);
	if (rc)
		retry_later(p, mosquitto_strerror(rc));
}

/* All that has arrived, then all that is due: in this order a PUBACK says that we have it. */
static int exchange(struct mosquitto *client)
{
	struct pollfd fd = {.fd = mosquitto_socket(client), .events = POLLIN};
	int rc = MOSQ_ERR_SUCCESS;

	for (int n = 0; !rc && n < READS_MAX && poll(&fd, 1, 0) > 0; n++) {
		rc = mosquitto_loop_read(client, 1);
		fd.fd = mosquitto_socket(client);
	}
	if (!rc)
		rc = mosquitto_loop_write(client, 1);
	return rc ? rc : mosquitto_loop_misc(client);
}

static void turn(struct port *p, int timeout_ms)
{
	struct port_mqtt *m = &p->mqtt;

	connect_if_due(p);
	struct pollfd fd = {.fd = mosquitto_socket(m->client), .events = POLLIN};
	if (mosquitto_want_write(m->client))
		fd.events |= POLLOUT;
	(void)poll(&fd, 1, timeout_ms); /* cut short by a signal, which is what we want */
	int rc = m->trying ? exchange(m->client) : MOSQ_ERR_SUCCESS;
	if (rc || (m->trying && mosquitto_socket(m->client) < 0))
		retry_later(p, rc ? mosquitto_strerror(rc) : "closed");
}

void port_mqtt_pump(struct port *p, uint32_t timeout_ms)
{
	if (!p->mqtt.client) {
		port_sleep_ms(timeout_ms);
		return;
	}
	turn(p, (int)(timeout_ms < PUMP_MS ? timeout_ms : PUMP_MS));
	announce(p);
	tell_progress(p);
	if (mosquitto_want_write(p->mqtt.client))
		turn(p, 0);
}

int port_mqtt_socket(const struct port *p)
{
	return p->mqtt.client ? mosquitto_socket(p->mqtt.client) : -1;
}

/* Until the broker has what was published as `mid`. */
static bool await(struct port *p, int mid)
{
	struct port_mqtt *m = &p->mqtt;
	int64_t until = clock_mono_ms() + ACK_MS;

	m->awaited = mid;
	while (m->awaited && m->connected && clock_mono_ms() < until)
		turn(p, 100);
	bool there = mid && !m->awaited;
	m->awaited = 0;
	return there;
}

/* ---------------------------------------------------------------------- the agent's questions */

enum paku_outcome port_mqtt_check(void *ctx, const char *version, struct paku_offer *offer,
				  uint32_t *retry_after_s)
{
	struct port *p = ctx;
	const struct port_command *c = &p->mqtt.command;

	*retry_after_s = CHECK_AGAIN_S;
	if (c->state != COMMAND_OPEN || paku_version_same(c->offer.version, version))
		return PAKU_OK;
	*offer = c->offer;
	if (!p->mqtt.begun)
		p->mqtt.begun_mono_ms = clock_mono_ms();
	p->mqtt.begun = true;
	return PAKU_OK;
}

static enum paku_outcome report_end(struct port *p, const struct paku_report *r,
				    enum paku_state state)
{
	struct port_mqtt *m = &p->mqtt;
	const struct port_command *c = &m->command;

	m->end_result = paku_why_result(r->why);
	m->end_message = r->why == PAKU_WHY_NONE ? "confirmed" : paku_why_message(r->why);
	(void)send_progress(p, state, 1);
	int mid = send_result(p, r->version, r->attempt, m->end_result, m->end_message);
	m->ending = mid && c->state == COMMAND_OPEN && strcmp(c->offer.version, r->version) == 0;
	bool there = await(p, mid);
	m->ending = false;
	return there ? PAKU_OK : PAKU_AGAIN;
}

enum paku_outcome port_mqtt_report(void *ctx, const struct paku_report *r)
{
	struct port *p = ctx;
	struct port_mqtt *m = &p->mqtt;

	port_mqtt_pump(p, 0);
	if (!m->connected || (settled(p) && !m->announced))
		return PAKU_AGAIN;
	switch (r->status) {
	case PAKU_DOWNLOADING: break; /* told by the pump */
	case PAKU_DOWNLOADED:
		if (m->told_state != PAKU_STATE_VERIFYING)
			(void)send_progress(p, PAKU_STATE_VERIFYING, 1);
		break;
	case PAKU_INSTALLING: /* a restart follows, and takes with it what is not sent */
		return await(p, send_progress(p, PAKU_STATE_INSTALLING, 1)) ? PAKU_OK : PAKU_AGAIN;
	case PAKU_SUCCESS: return report_end(p, r, PAKU_STATE_COMPLETE);
	case PAKU_FAILED: return report_end(p, r, PAKU_STATE_FAILED);
	case PAKU_ROLLED_BACK: return report_end(p, r, PAKU_STATE_ROLLED_BACK);
	}
	return PAKU_OK;
}

/* ------------------------------------------------------------------------------- start and end */

/* The broker's certificate has to be good, and to be of the host that we mean. */
static bool use_tls(const struct port *p, struct mosquitto *client)
{
	const struct broker_tls *tls = &p->opt.tls;
	const char *folder = tls->ca ? NULL : broker_tls_system_authorities();

	return mosquitto_tls_set(client, tls->ca, folder, tls->cert, tls->key, NULL) ==
	       MOSQ_ERR_SUCCESS;
}

/* False: out of memory, or libmosquitto does not take what the options checked. */
static bool client_options(struct port *p, struct mosquitto *client)
{
	const char *user = getenv("MQTT_USER"), *password = getenv("MQTT_PASSWORD");

	mosquitto_connect_callback_set(client, on_connect);
	mosquitto_publish_callback_set(client, on_publish);
	mosquitto_message_callback_set(client, on_message);
	mosquitto_log_callback_set(client, on_log);
	/* Not a thread, but: queue, and write at mosquitto_loop_write() only. */
	return mosquitto_threaded_set(client, true) == MOSQ_ERR_SUCCESS &&
	       mosquitto_will_set(client, p->mqtt.topics[PAKU_TOPIC_STATUS],
				  (int)strlen(PAKU_MQTT_WILL), PAKU_MQTT_WILL, 1,
				  true) == MOSQ_ERR_SUCCESS &&
	       (!p->opt.mqtt.tls || use_tls(p, client)) &&
	       (!user || !*user ||
		mosquitto_username_pw_set(client, user, password) == MOSQ_ERR_SUCCESS);
}

bool port_mqtt_start(struct port *p)
{
	struct port_mqtt *m = &p->mqtt;

	m->client = mosquitto_new(p->opt.id, false, p);
	if (m->client && client_options(p, m->client))
		return true;
	port_mqtt_reset(p);
	return false;
}

void port_mqtt_reset(struct port *p)
{
	struct port_mqtt *m = &p->mqtt;

	mosquitto_destroy(m->client); /* without a DISCONNECT, as a chip that resets */
	m->client = NULL;
	m->connected = m->announced = m->trying = m->begun = false;
	m->tries = 0;
	m->retry_mono_ms = 0;
	m->told_state = PAKU_STATE_IDLE;
}

bool port_mqtt_open(struct port *p, struct ota_err *err)
{
	struct port_mqtt *m = &p->mqtt;

	*m = (struct port_mqtt){0};
	for (int i = 0; i <= PAKU_TOPIC_STATUS; i++) {
		if (!paku_mqtt_topic(m->topics[i], sizeof m->topics[i], p->opt.site, p->opt.id,
				     (enum paku_topic)i)) {
			ota_fail(err, OTA_EINTERNAL, "a topic is too long");
			return false;
		}
	}
	if (mosquitto_lib_init()) {
		ota_fail(err, OTA_EINTERNAL, "libmosquitto does not start");
		return false;
	}
	return true;
}

void port_mqtt_close(struct port *p)
{
	struct port_mqtt *m = &p->mqtt;

	/* With a proper end there is no last will: say the same ourselves. */
	if (m->client && m->connected) {
		(void)await(p, publish(p, PAKU_TOPIC_STATUS, PAKU_MQTT_WILL, 1));
		if (mosquitto_disconnect(m->client) == MOSQ_ERR_SUCCESS)
			(void)mosquitto_loop_write(m->client, 1);
	}
	port_mqtt_reset(p);
	mosquitto_lib_cleanup();
}
