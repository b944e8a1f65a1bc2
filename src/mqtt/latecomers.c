/* SPDX-License-Identifier: MIT */
#include "mqtt/latecomers.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

#define ASK_MS  250 /* from one question to the next */
#define ASK_MAX 250 /* topics in one */

struct latecomer {
	struct latecomer *next;
	char topic[];
};

void latecomers_init(struct latecomers *l, int64_t per_second)
{
	*l = (struct latecomers){.per_second = per_second};
	l->end = &l->first;
}

static void pop(struct latecomers *l)
{
	struct latecomer *first = l->first;

	l->first = first->next;
	if (!l->first)
		l->end = &l->first;
	l->count--;
	free(first);
}

void latecomers_clear(struct latecomers *l)
{
	while (l->first)
		pop(l);
	l->left_out = false;
}

void latecomers_add(struct latecomers *l, const char *topic, int retry_after_s)
{
	size_t size = strlen(topic) + 1;
	struct latecomer *new = l->count < LATECOMERS_MAX ? malloc(sizeof *new + size) : NULL;

	l->ask_ms = clock_mono_ms() + (int64_t)retry_after_s * 1000;
	if (!new) {
		l->left_out = true;
		return;
	}
	new->next = NULL;
	memcpy(new->topic, topic, size);
	*l->end = new;
	l->end = &new->next;
	l->count++;
}

/* Subscribing brings the copies; what comes live is subscribed to already. */
static int ask(struct client *c, char **topics, int count)
{
	int rc = mosquitto_subscribe_multiple(c->m, NULL, count, topics, 1, 0, NULL);

	if (rc == MOSQ_ERR_SUCCESS)
		rc = mosquitto_unsubscribe_multiple(c->m, NULL, count, topics, NULL);
	return rc;
}

static int ask_for_some(struct latecomers *l, struct client *c)
{
	/* A fifth of the limit is left for those that speak themselves. */
	int64_t most = l->per_second * ASK_MS / 1000 * 4 / 5 + 1;
	char *topics[ASK_MAX];
	int count = 0;

	for (struct latecomer *i = l->first; i && count < ASK_MAX && count < most; i = i->next)
		topics[count++] = i->topic;
	int rc = ask(c, topics, count);
	while (rc == MOSQ_ERR_SUCCESS && count-- > 0)
		pop(l);
	return rc;
}

static int ask_for_all(struct latecomers *l, struct client *c)
{
	char edge[] = "+/edge/+/status", devices[] = "+/devices/+/status";
	char *topics[] = {edge, devices};

	l->left_out = false;
	return mosquitto_subscribe_multiple(c->m, NULL, 2, topics, 1, 0, NULL);
}

void latecomers_ask(struct latecomers *l, struct client *c)
{
	int64_t now_ms = clock_mono_ms();
	int rc;

	if ((!l->first && !l->left_out) || !c->ready || now_ms < l->ask_ms)
		return;
	l->ask_ms = now_ms + ASK_MS;
	rc = l->first ? ask_for_some(l, c) : ask_for_all(l, c);
	if (rc != MOSQ_ERR_SUCCESS)
		log_event(LOG_ERROR, "mqtt", "not_subscribed", "%s", mosquitto_strerror(rc));
}
