/* SPDX-License-Identifier: MIT */
#include "mqtt/collector.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "mqtt/latecomers.h"
#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BATCH_MAX     1000
#define LAST_OF_SLOTS 4096 /* a power of two, well above BATCH_MAX */
#define TENDS_MS      1000
#define RETRY_MS      50
/* From one batch to the next, at least: a commit costs the processor as much as six messages, and
 * wears the flash.  Who speaks after a silence is heard at once. */
#define PACE_MS 20
/* A commit that takes longer than this may cost the connection its keepalive: it is given up. */
#define PATIENCE_MS (CLIENT_KEEPALIVE_S * 1000 / 2)

static const char *const subscriptions[] = {
	"+/edge/+/status",          "+/edge/+/ota/status",    "+/edge/+/ota/progress",
	"+/edge/+/ota/result",      "+/devices/+/status",     "+/devices/+/ota/status",
	"+/devices/+/ota/progress", "+/devices/+/ota/result",
};
#define SUBSCRIPTIONS (int)(sizeof subscriptions / sizeof subscriptions[0])

/* One message on its way to the store.  Its strings live as long as it does. */
struct inbound {
	struct collector *collector;
	struct topic topic;
	struct message message;
	enum reject_reason reason; /* for COMMAND_REJECTED */
	char *topic_text;
	uint8_t *payload;
	struct command command; /* last: what follows COMMAND_CLEARED is not touched */
};
#define INBOUND_CLEARED (offsetof(struct inbound, command) + COMMAND_CLEARED)

struct collector {
	struct collector_config cfg;
	struct client client;
	struct collector_stats stats;
	struct latecomers latecomers;
	/* The batch: read, then with the committer, then done. */
	struct inbound *batch[BATCH_MAX];
	size_t count, submitted;
	bool overflow;              /* no memory for a message: it must come again */
	_Atomic size_t unanswered;  /* submitted, and not done yet */
	_Atomic bool store_refused; /* something was not stored: nothing is acknowledged */
	bool abandoned;             /* the connection it came by is gone */
	int64_t submitted_ms, tend_ms;
	int64_t next_ms; /* the next batch begins not before */
	/* The last message of each device in the batch: index + 1, by the hash of its id. */
	uint16_t last_of[LAST_OF_SLOTS];
};

/* --- one message --- */

static void inbound_free(struct inbound *in)
{
	if (in->command.kind != COMMAND_REJECTED)
		message_fini(&in->message);
	free(in->topic_text);
	free(in->payload);
	free(in);
}

/* On the committer's thread: the last one of the batch wakes ours. */
static void collector_done(struct command *cmd)
{
	struct inbound *in = cmd->owner;
	struct collector *c = in->collector;
	uint64_t one = 1;

	/* A command that the store refused by itself, and a device over a limit, are answers too.
	 */
	if (cmd->code != OTA_OK && !cmd->refused && !cmd->over_limit &&
	    (cmd->code == OTA_EUNAVAIL || cmd->code == OTA_EUNKNOWN || cmd->code == OTA_ENOMEM ||
	     cmd->code == OTA_EIO))
		c->store_refused = true;
	int fd = c->cfg.wake_fd;
	if (atomic_fetch_sub(&c->unanswered, 1) == 1)
		(void)!write(fd, &one, sizeof one);
}

static bool make_rejected(struct inbound *in, const struct mosquitto_message *m,
			  const struct ota_err *err)
{
	struct command *cmd = &in->command;
	size_t keep = (size_t)m->payloadlen;

	if (keep > REJECTED_PAYLOAD_MAX)
		keep = REJECTED_PAYLOAD_MAX;
	cmd->kind = COMMAND_REJECTED;
	in->payload = malloc(keep + 1 + strlen(err->msg) + 1);
	if (!in->payload)
		return false;
	if (keep)
		memcpy(in->payload, m->payload, keep);
	char *detail = (char *)in->payload + keep + 1;
	strcpy(detail, err->msg);
	cmd->rejected.device_id = in->topic.device_id[0] ? in->topic.device_id : NULL;
	cmd->rejected.topic = in->topic_text;
	cmd->rejected.reason = reject_reason_name(in->reason);
	cmd->rejected.detail = detail;
	cmd->rejected.payload = in->payload;
	cmd->rejected.payload_len = keep;
	return true;
}

static void make_status(struct inbound *in, bool retained)
{
	struct status *s = &in->command.status;

	in->command.kind = COMMAND_STATUS;
	s->facts = in->message.facts;
	s->facts.device_id = in->topic.device_id;
	s->via = (struct via){in->topic.site, in->topic.form};
	s->online = in->message.online;
	s->retained = retained;
}

static void make_report(struct inbound *in, const struct mosquitto_message *m)
{
	struct report *r = &in->command.report;
	const struct message *say = &in->message;

	in->command.kind = COMMAND_REPORT;
	*r = (struct report){
		.device_id = in->topic.device_id,
		.version = say->version,
		.error_message = say->error[0] ? say->error : NULL,
		.attempt_token = say->attempt_token,
		.event = say->event,
		.percent = say->percent,
		.code = say->code,
		.via = {in->topic.site, in->topic.form},
		.accepted = say->accepted,
		.hash = (hash64(m->payload, (size_t)m->payloadlen) + in->topic.kind) | 1,
		.stamped = say->stamped,
	};
	/* Progress is of the attempt that is open, whatever it names. */
	if (in->topic.kind == MESSAGE_OTA_PROGRESS)
		r->version = NULL;
}

/* NULL: no memory. */
static struct inbound *inbound_new(struct collector *c, const struct mosquitto_message *m)
{
	struct inbound *in = malloc(sizeof *in);
	struct ota_err err = {0};

	if (!in)
		return NULL;
	memset(in, 0, INBOUND_CLEARED);
	in->collector = c;
	in->command.owner = in;
	in->command.done = collector_done;
	in->reason = REJECT_TOPIC;
	bool ok = topic_parse(m->topic, &in->topic, &err) &&
		  message_parse(&in->topic, m->payload, (size_t)m->payloadlen, &in->message,
				&in->reason, &err);
	if (!ok) {
		in->topic_text = strdup(m->topic);
		in->command.kind = COMMAND_REJECTED; /* no message to release */
		if (err.code == OTA_ENOMEM || !in->topic_text || !make_rejected(in, m, &err)) {
			inbound_free(in);
			return NULL;
		}
		c->stats.rejected[in->reason]++;
	} else if (in->topic.kind == MESSAGE_STATUS) {
		make_status(in, m->retain);
	} else {
		make_report(in, m);
	}
	return in;
}

static bool is_progress(const struct inbound *in)
{
	return in->command.kind == COMMAND_REPORT && in->topic.kind == MESSAGE_OTA_PROGRESS &&
	       (in->message.event == EVENT_NONE || in->message.event == EVENT_REPORT_DOWNLOADING);
}

/* Where the index of the device's last message in the batch is kept. */
static uint16_t *last_of(struct collector *c, const struct inbound *in)
{
	size_t slot = hash64(in->topic.device_id, strlen(in->topic.device_id));

	for (slot &= LAST_OF_SLOTS - 1; c->last_of[slot]; slot = (slot + 1) & (LAST_OF_SLOTS - 1))
		if (strcmp(c->batch[c->last_of[slot] - 1]->topic.device_id, in->topic.device_id) ==
		    0)
			break;
	return &c->last_of[slot];
}

static void on_message(struct client *client, const struct mosquitto_message *m)
{
	struct collector *c = client->owner;
	struct inbound *in = inbound_new(c, m);

	c->stats.messages++;
	if (!in || c->count == BATCH_MAX) {
		if (in)
			inbound_free(in);
		c->overflow = true;
		return;
	}
	uint16_t *last = last_of(c, in);
	/* Of progress right after progress the newest says it all. */
	if (*last && is_progress(in) && is_progress(c->batch[*last - 1])) {
		inbound_free(c->batch[*last - 1]);
		c->batch[*last - 1] = in;
		c->stats.coalesced++;
		return;
	}
	c->batch[c->count++] = in;
	*last = (uint16_t)c->count;
}

static void on_up(struct client *client)
{
	struct collector *c = client->owner;
	char *topics[SUBSCRIPTIONS];

	latecomers_clear(&c->latecomers); /* the copies of all come */
	for (int i = 0; i < SUBSCRIPTIONS; i++)
		topics[i] = (char *)(uintptr_t)subscriptions[i];
	int rc = mosquitto_subscribe_multiple(client->m, NULL, SUBSCRIPTIONS, topics, 1, 0, NULL);
	if (rc != MOSQ_ERR_SUCCESS)
		log_event(LOG_ERROR, "mqtt", "not_subscribed", "%s", mosquitto_strerror(rc));
}

/* --- the batch --- */

static void batch_clear(struct collector *c)
{
	for (size_t i = 0; i < c->count; i++)
		inbound_free(c->batch[i]);
	c->count = c->submitted = 0;
	c->overflow = c->abandoned = false;
	c->store_refused = false;
	memset(c->last_of, 0, sizeof c->last_of);
}

/* Hands over what is not with the committer yet; what its queue has no room for waits. */
static void batch_submit(struct collector *c)
{
	struct command_list list;
	struct ota_err err;

	if (c->submitted == 0)
		c->submitted_ms = clock_mono_ms();
	list_init(&list);
	for (size_t i = c->submitted; i < c->count; i++)
		list_push(&list, &c->batch[i]->command);
	c->unanswered += list.count; /* they may be answered before they are all handed over */
	if (committer_submit_list(c->cfg.committer, &list, &err) == OTA_OK)
		c->stats.batches++;
	c->unanswered -= list.count;
	c->submitted = c->count - list.count;
}

/* Its birth message is acknowledged: it is asked for again. */
static void note_over_limit(struct collector *c, const struct inbound *in)
{
	const struct topic *t = &in->topic;
	char topic[2 * NAME_MAX_LEN + 24];

	c->stats.over_limit++;
	if (in->command.kind != COMMAND_STATUS || !in->command.status.online)
		return;
	snprintf(topic, sizeof topic, "%s/%s/%s/status", t->site,
		 t->form == TOPIC_FORM_DEVICES ? "devices" : "edge", t->device_id);
	latecomers_add(&c->latecomers, topic, in->command.retry_after_s);
}

/* A command that the store refused by itself is told; who came online goes to the dispatcher. */
static void note_outcome(struct collector *c, const struct inbound *in)
{
	const struct command *cmd = &in->command;

	if (cmd->over_limit)
		note_over_limit(c, in);
	if (cmd->refused) {
		c->stats.refused++;
		log_event(LOG_ERROR, "mqtt", "message_refused", "of device %s: %s",
			  in->topic.device_id, cmd->err.msg);
	}
	if (cmd->code == OTA_OK && cmd->kind == COMMAND_STATUS && cmd->status.online &&
	    !cmd->status.retained)
		c->cfg.on_seen(c->cfg.ctx, in->topic.device_id);
}

/* All of it is answered: acknowledge, or go away without a word. */
static void batch_end(struct collector *c)
{
	bool lost = c->store_refused || c->overflow;

	for (size_t i = 0; i < c->count; i++)
		note_outcome(c, c->batch[i]);
	if (!c->abandoned && lost)
		client_drop(&c->client, -1, "the store did not take all of it");
	else if (!c->abandoned)
		client_write(&c->client);
	batch_clear(c);
}

struct pollfd collector_pollfd(const struct collector *c)
{
	struct pollfd p = client_pollfd(&c->client);

	if (c->count > 0 || clock_mono_ms() < c->next_ms)
		p.fd = -1; /* not before it is answered, and not yet */
	return p;
}

static int wait_for_batch(struct collector *c)
{
	if (c->submitted < c->count)
		batch_submit(c);
	if (c->submitted == c->count && c->unanswered == 0) {
		batch_end(c);
		return 0;
	}
	if (!c->abandoned && clock_mono_ms() - c->submitted_ms > PATIENCE_MS) {
		c->abandoned = true;
		client_drop(&c->client, -1, "the store takes too long");
	}
	return c->submitted < c->count ? RETRY_MS : TENDS_MS;
}

int collector_turn(struct collector *c, bool readable)
{
	if (c->count > 0)
		return wait_for_batch(c);
	if (clock_mono_ms() >= c->tend_ms) {
		c->tend_ms = clock_mono_ms() + TENDS_MS / 4;
		/* While the store is down, the broker keeps what there is. */
		if (committer_healthy(c->cfg.committer, NULL, 0))
			client_tend(&c->client);
		latecomers_ask(&c->latecomers, &c->client);
		client_misc(&c->client);
	}
	client_write(&c->client);
	int64_t pause_ms = c->next_ms - clock_mono_ms();
	if (!readable || pause_ms > 0)
		return pause_ms > 0 ? (int)pause_ms : TENDS_MS / 4;
	c->next_ms = clock_mono_ms() + PACE_MS;
	while (client_read(&c->client) && c->count < BATCH_MAX && !c->overflow)
		;
	if (c->count == 0) {
		if (c->overflow) {
			client_drop(&c->client, -1, "out of memory");
			c->overflow = false;
		}
		return 0;
	}
	if (!c->client.m)
		c->abandoned = true;
	return wait_for_batch(c);
}

enum ota_code collector_new(const struct collector_config *cfg, struct collector **out,
			    struct ota_err *err)
{
	struct collector *c = calloc(1, sizeof *c);

	if (!c)
		return ota_fail_nomem(err);
	c->cfg = *cfg;
	c->client = (struct client){
		.cfg = cfg->broker,
		.id = cfg->client_id,
		.on_up = on_up,
		.on_message = on_message,
		.owner = c,
	};
	client_init(&c->client);
	latecomers_init(&c->latecomers, cfg->new_devices_per_second);
	*out = c;
	return OTA_OK;
}

void collector_end(struct collector *c)
{
	struct pollfd wake = {.fd = c->cfg.wake_fd, .events = POLLIN};
	uint64_t n;

	while (c->count > 0)
		if (wait_for_batch(c) > 0 && poll(&wake, 1, RETRY_MS) > 0)
			(void)!read(c->cfg.wake_fd, &n, sizeof n);
	client_fini(&c->client);
	latecomers_clear(&c->latecomers);
}

void collector_free(struct collector **cp)
{
	free(*cp);
	*cp = NULL;
}

const struct client *collector_client(const struct collector *c)
{
	return &c->client;
}

struct collector_stats *collector_stats(struct collector *c)
{
	return &c->stats;
}
