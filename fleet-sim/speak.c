/* SPDX-License-Identifier: MIT */
/*
 * How a device says what it has to say: topics and payloads of docs/mqtt.md, or update-status over
 * HTTP.  Here messages are late, out of order, and said twice.
 *
 * Over HTTP a device's reports go out one after the other, each until it is taken; over MQTT the
 * connection keeps them.
 */
#include "fleet-sim/fleet.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOPIC_SIZE 320
/* Between two attempts at a report, where the service does not say. */
#define AGAIN_MS 1000

enum channel { CHANNEL_STATUS, CHANNEL_PROGRESS, CHANNEL_RESULT };

struct report {
	struct report *next;
	struct fleet *fleet;
	uint32_t number; /* of the device */
	enum channel channel;
	bool twice;
	size_t len;
	char body[];
};

static const struct {
	const char *state;  /* in ota/progress */
	const char *status; /* over HTTP; NULL: not said there */
	int percent;
} words[] = {
	[WORD_ACCEPTED] = {"Checking", NULL, 0},
	[WORD_DOWNLOADING] = {"Downloading", "downloading", 0},
	[WORD_VERIFYING] = {"Verifying", "downloaded", 100},
	[WORD_INSTALLING] = {"Installing", "installing", 100},
	[WORD_COMPLETE] = {"Complete", NULL, 100},
	[WORD_SUCCESS] = {NULL, "success", 100},
	[WORD_FAILED] = {NULL, "failed", 0},
	[WORD_ROLLED_BACK] = {"Rolled back", "rolled_back", 100},
};

const char *result_code_words(int code)
{
	static const char *const names[] = {
		"success",
		"wifi not connected",
		"download failed",
		"verification failed",
		"install failed",
		"no partition",
		"invalid url",
		"timeout",
		"insufficient space",
		"invalid firmware",
		"already running",
		"rollback failed",
	};

	return code >= 0 && code < 12 ? names[code] : "?";
}

static uint32_t connection_of(const struct fleet *f, const struct device *d)
{
	return f->o.connections ? d->number % f->o.connections : d->number;
}

static void topic_of(const struct fleet *f, const struct device *d, const char *tail,
		     char out[TOPIC_SIZE])
{
	char id[DEVICE_ID_SIZE];

	device_id(f, d, id);
	snprintf(out, TOPIC_SIZE, "%s/%s/%s/%s", f->o.site,
		 traits_have(&d->traits, HABIT_OLD_TOPICS) ? "devices" : "edge", id, tail);
}

static int percent_of(const struct work *w, enum word word)
{
	if (word != WORD_DOWNLOADING)
		return words[word].percent;
	return w->size > 0 ? (int)(100 * w->got / w->size) : 0;
}

/* ------------------------------------------------------------------ the words */

static enum channel write_mqtt(const struct fleet *f, struct device *d, enum word word,
			       const char *why, struct buf *b)
{
	const struct work *w = d->work;
	const struct seen *s = device_try(d);
	int64_t now_ms = loop_now_ms(f->loop);
	enum channel channel = CHANNEL_PROGRESS;

	json_open(b, NULL, '{');
	json_int(b, "timestamp", now_ms);
	if (word == WORD_ACCEPTED) {
		json_str(b, "status", "accepted");
		json_str(b, "version", s->version);
		channel = CHANNEL_STATUS;
	} else if (word == WORD_SUCCESS || word == WORD_FAILED) {
		json_str(b, "version", s->version);
		json_bool(b, "success", word == WORD_SUCCESS);
		json_int(b, "result_code", word == WORD_SUCCESS ? 0 : s->code);
		json_str(b, "message", why ? why : "");
		channel = CHANNEL_RESULT;
	} else {
		json_str(b, "state", words[word].state);
		json_int(b, "percent", percent_of(w, word));
		json_int(b, "downloaded", w->got);
		json_int(b, "total", w->size > 0 ? w->size : 0);
		json_int(b, "elapsed_ms", now_ms - w->begun_ms);
	}
	json_close(b, '}');
	return channel;
}

static void write_http(const struct fleet *f, struct device *d, enum word word, const char *why,
		       struct buf *b)
{
	const struct seen *s = device_try(d);
	char id[DEVICE_ID_SIZE], error[160];

	device_id(f, d, id);
	json_open(b, NULL, '{');
	json_str(b, "device_id", id);
	json_str(b, "firmware_version", s->version);
	json_str(b, "status", words[word].status);
	if (word == WORD_DOWNLOADING)
		json_int(b, "progress_percent", percent_of(d->work, word));
	if (word == WORD_FAILED)
		snprintf(error, sizeof error, "%s: %s", result_code_words(s->code), why);
	if (word == WORD_FAILED || (word == WORD_ROLLED_BACK && why))
		json_str(b, "error_message", word == WORD_FAILED ? error : why);
	/* Not every device in the field sends it back. */
	if (s->token[0] && (draw(f->o.seed, d->number, DRAW_ECHO, 0) & 1))
		json_str(b, "attempt_id", s->token);
	json_close(b, '}');
}

/* ------------------------------------------------------------------ on their way */

static void publish(struct fleet *f, struct device *d, const char *tail, const char *body,
		    size_t len, bool retain)
{
	char topic[TOPIC_SIZE];

	topic_of(f, d, tail, topic);
	if (!broker_publish(f->broker, connection_of(f, d), topic, body, len, f->o.qos, retain))
		f->stats.lost++;
}

static void pump(struct fleet *f, struct device *d);

static void on_again(void *ctx, uint64_t arg)
{
	struct fleet *f = ctx;

	f->devices[arg].posting = false;
	pump(f, &f->devices[arg]);
}

static void on_posted(void *ctx, uint64_t arg, const struct web_reply *r)
{
	struct fleet *f = ctx;
	struct device *d = &f->devices[arg];
	struct report *head = d->reports;

	if (r->status == 0 || r->status >= 500 || r->status == 429) {
		loop_after(f->loop, r->retry_after_s ? r->retry_after_s * 1000 : AGAIN_MS, on_again,
			   f, arg);
		return;
	}
	if (r->status == 200) {
		f->stats.reports++;
	} else {
		f->stats.refused++;
		snprintf(f->stats.refusal, sizeof f->stats.refusal, "%ld: %.200s", r->status,
			 r->body);
	}
	if (head->twice) {
		head->twice = false;
	} else {
		d->reports = head->next;
		free(head);
	}
	d->posting = false;
	pump(f, d);
}

static void pump(struct fleet *f, struct device *d)
{
	struct buf url = BUF_INIT;
	char id[DEVICE_ID_SIZE];
	struct web_ask ask = {.lane = WEB_TALK, .done = on_posted, .ctx = f, .arg = d->number};

	if (!d->reports || d->posting)
		return;
	device_id(f, d, id);
	buf_printf(&url, "%s/api/device/%s/update-status", f->o.server, id);
	ask.url = url.data;
	ask.body = d->reports->body;
	d->posting = buf_ok(&url) && web_send(f->web, &ask);
	if (!d->posting)
		f->stats.lost++;
	buf_fini(&url);
}

static void deliver(struct report *r)
{
	static const char *const tails[] = {
		[CHANNEL_STATUS] = "ota/status",
		[CHANNEL_PROGRESS] = "ota/progress",
		[CHANNEL_RESULT] = "ota/result",
	};
	struct fleet *f = r->fleet;
	struct device *d = &f->devices[r->number];
	struct report **at = &d->reports;

	if (f->o.mqtt) {
		for (int i = 0; i <= r->twice; i++)
			publish(f, d, tails[r->channel], r->body, r->len, false);
		free(r);
		return;
	}
	while (*at)
		at = &(*at)->next;
	*at = r;
	r->next = NULL;
	pump(f, d);
}

static void on_held(void *ctx, uint64_t arg)
{
	struct report *r = ctx;

	(void)arg;
	r->fleet->devices[r->number].held--;
	deliver(r);
}

/* How long the network keeps this message. */
static int64_t delay_of(struct fleet *f, struct device *d)
{
	const struct traits *t = &d->traits;
	bool ordered = !traits_have(t, HABIT_OUT_OF_ORDER);
	int row = ordered ? t->row[HABIT_LATE] : t->row[HABIT_OUT_OF_ORDER];
	int64_t now_ms = loop_now_ms(f->loop), until_ms;

	if (row < 0)
		return 0;
	until_ms = now_ms + draw_span(f->o.seed, d->number, DRAW_LATE, d->messages++,
				      (struct span){0, f->scenario.habits[row].by_ms});
	if (ordered && until_ms < d->held_until_ms)
		until_ms = d->held_until_ms;
	d->held_until_ms = until_ms;
	return until_ms - now_ms;
}

static void send_report(struct fleet *f, struct device *d, enum channel channel, bool twice,
			const struct buf *b)
{
	struct report *r = malloc(sizeof *r + b->len + 1);
	int64_t delay_ms = delay_of(f, d);

	if (!r || !buf_ok(b)) {
		free(r);
		f->stats.lost++;
		return;
	}
	*r = (struct report){
		.fleet = f, .number = d->number, .channel = channel, .twice = twice, .len = b->len};
	memcpy(r->body, b->data, b->len + 1);
	if (delay_ms <= 0 && d->held == 0) {
		deliver(r);
	} else if (loop_after(f->loop, delay_ms, on_held, r, 0)) {
		d->held++;
	} else {
		free(r);
		f->stats.lost++;
	}
}

void device_say(struct fleet *f, struct device *d, enum word word, const char *why)
{
	struct buf b = BUF_INIT;
	enum channel channel = CHANNEL_STATUS;

	if (!f->o.mqtt && !words[word].status)
		return;
	if (f->o.mqtt)
		channel = write_mqtt(f, d, word, why, &b);
	else
		write_http(f, d, word, why, &b);
	/* A device that says so runs it from now on, for the service too. */
	if (word == WORD_SUCCESS)
		d->told = device_try(d)->version;
	/* A second "Rolled back" could not be told from one about the next attempt. */
	send_report(f, d, channel, word != WORD_ROLLED_BACK && traits_have(&d->traits, HABIT_TWICE),
		    &b);
	buf_fini(&b);
}

void reports_free(struct device *d)
{
	struct report *r;

	while ((r = d->reports) != NULL) {
		d->reports = r->next;
		free(r);
	}
}

/* ------------------------------------------------------------------ birth and farewell */

static void write_birth(const struct fleet *f, const struct device *d, struct buf *b)
{
	uint64_t mac = draw(f->o.seed, d->number, DRAW_MAC, 0);
	const char *hw = scenario_hw(&f->scenario, d->number);
	char text[40];

	json_open(b, NULL, '{');
	json_str(b, "device_model", f->o.model);
	json_str(b, "firmware_version", d->version);
	json_bool(b, "online", true);
	/* Locally administered, so nobody's. */
	snprintf(text, sizeof text, "02:%02x:%02x:%02x:%02x:%02x", (unsigned)(mac & 255),
		 (unsigned)(mac >> 8 & 255), (unsigned)(d->number >> 16 & 255),
		 (unsigned)(d->number >> 8 & 255), (unsigned)(d->number & 255));
	json_str(b, "mac", text);
	snprintf(text, sizeof text, "%08x-%u",
		 (unsigned)(draw(f->o.seed, d->number, DRAW_BOOT, 0) & 0xFFFFFFFFu), d->boot);
	json_str(b, "boot_id", text);
	if (hw)
		json_str(b, "hw", hw);
	json_close(b, '}');
}

void device_announce(struct fleet *f, struct device *d)
{
	struct buf b = BUF_INIT;

	if (!f->o.mqtt) {
		device_check(f, d);
		return;
	}
	if (f->o.connections == 0 && !broker_is_up(f->broker, d->number))
		return; /* fleet_ready() will */
	write_birth(f, d, &b);
	if (buf_ok(&b)) {
		publish(f, d, "status", b.data, b.len, true);
		d->told = d->version;
		f->stats.seen += !d->seen;
		d->seen = true;
	}
	buf_fini(&b);
}

/* Shared connections stay: there we say what the last will would. */
void device_leave(struct fleet *f, struct device *d)
{
	static const char offline[] = "{\"online\":false}";

	if (!f->o.mqtt)
		return;
	if (f->o.connections == 0)
		broker_cut(f->broker, d->number);
	else
		publish(f, d, "status", offline, sizeof offline - 1, true);
}

/* ------------------------------------------------------------------ what broker.h asks */

static bool has_old_topics(const struct fleet *f)
{
	for (size_t i = 0; i < f->scenario.count; i++)
		if (f->scenario.habits[i].kind == HABIT_OLD_TOPICS)
			return true;
	return false;
}

void fleet_describe(void *ctx, uint32_t connection, struct broker_client *out)
{
	const struct fleet *f = ctx;
	const struct device *d = &f->devices[connection];

	*out = (struct broker_client){0};
	if (f->o.connections > 0) {
		snprintf(out->id, sizeof out->id, "paku-fleet-%llu-%u-%d",
			 (unsigned long long)f->o.seed, connection, (int)getpid());
		/* One hears for all; ids tell whom it is for. */
		if (connection == 0)
			snprintf(out->subscription, sizeof out->subscription, "%s/%s/+/cmd/ota",
				 f->o.site, has_old_topics(f) ? "+" : "edge");
		return;
	}
	device_id(f, d, out->id);
	topic_of(f, d, "cmd/ota", out->subscription);
	topic_of(f, d, "status", out->will_topic);
	snprintf(out->will_payload, sizeof out->will_payload, "{\"online\":false}");
}

/* It is connected, for the first time or again: says who it is, as devices do. */
void fleet_ready(void *ctx, uint32_t connection)
{
	struct fleet *f = ctx;
	uint32_t step = f->o.connections ? f->o.connections : f->o.devices;

	for (uint32_t i = connection; i < f->o.devices; i += step) {
		struct device *d = &f->devices[i];

		if (d->boot > 0 && d->state != DEVICE_OFF && d->state != DEVICE_BRICKED &&
		    d->state != DEVICE_RESTARTING && !f->ending)
			device_announce(f, d);
	}
}

/* {site}/edge/{device_id}/cmd/ota: NULL when it is no device of ours. */
static struct device *device_of(struct fleet *f, const char *topic)
{
	const char *id = topic + strlen(f->o.site);
	char copy[DEVICE_ID_SIZE];
	size_t n;

	id = *id == '/' ? strchr(id + 1, '/') : NULL;
	n = id ? strcspn(id + 1, "/") : 0;
	if (n == 0 || n >= sizeof copy)
		return NULL;
	memcpy(copy, id + 1, n);
	copy[n] = 0;
	return fleet_find(f, copy);
}

void fleet_message(void *ctx, uint32_t connection, const char *topic, const char *payload,
		   size_t len)
{
	struct fleet *f = ctx;
	struct device *d = device_of(f, topic);
	struct offer o = {.size = -1};
	json_t *json;

	(void)connection;
	if (!d || d->state == DEVICE_BRICKED || d->state == DEVICE_OFF || f->ending)
		return; /* nobody is there to hear it */
	json = json_loadb(payload, len, 0, NULL);
	o.url = json_string_value(json_object_get(json, "url"));
	o.checksum = json_string_value(json_object_get(json, "checksum"));
	o.version = json_string_value(json_object_get(json, "version"));
	if (o.url && o.checksum && o.version)
		device_offered(f, d, &o);
	else
		f->stats.odd_commands++;
	json_decref(json);
}
