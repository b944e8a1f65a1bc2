/* SPDX-License-Identifier: MIT */
/*
 * `paku-fleet replay`: sends a recorded trace to a broker, as it was or faster.
 *
 * One JSON object a line: {"time": 12.5, "topic": "...", "payload": "..." or any JSON,
 * "retain": false, "qos": 1}; or what `mosquitto_sub -F %j` writes ("tst" instead of "time").  The
 * time is seconds, or RFC 3339 as the service writes it, and does not go back.  The file is read
 * twice: a line that makes no sense stops it before anything is sent.  Messages of one topic's
 * device share a connection and so keep their order.
 */
#include "fleet-sim/run.h"

#include "fleet-sim/broker.h"

#include "base/clock.h"
#include "base/hash.h"
#include "cli/api.h"
#include "cli/term.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READY_MS    20000
#define DRAIN_MS    30000
#define UNACKED_MAX 5000 /* the trace waits */
#define A_TURN      500
#define LINE_MS     5000

const struct opt replay_opts[] = {
	{.name = "broker", .arg = "HOST[:PORT]", .help = "where to (127.0.0.1:1883; mqtts: 8883)"},
	{.name = "cert", .arg = "FILE", .help = "show this certificate to the broker"},
	{.name = "key", .arg = "FILE", .help = "its private key, without a password"},
	{.name = "speed", .arg = "X", .help = "so many times as fast as it was (1), or 'max'"},
	{.name = "connections", .arg = "N", .help = "to the broker (8)", .min = 1, .max = 1000},
	{0},
};

struct line {
	json_t *root;
	double at_s;
	const char *topic;
	char *dumped; /* of a payload that is no string */
	const char *payload;
	size_t len;
	int qos;
	bool retain;
};

struct replay {
	struct cli *c;
	const char *path;
	FILE *file;
	double speed; /* 0: as fast as it goes */
	struct broker_door door;
	uint32_t connections;
	struct loop *loop;
	struct broker *broker;
	char *text; /* getline()'s */
	size_t cap;
	int64_t number, lines, sent, lost;
	double first_s, last_s;
	int64_t begun_ms, told_ms;
};

/* ------------------------------------------------------------------ lines */

static void line_fini(struct line *l)
{
	json_decref(l->root);
	free(l->dumped);
	*l = (struct line){0};
}

/* "-0500" behind the time of mosquitto_sub, which is local. */
static bool read_offset(const char *text, int64_t *us)
{
	int hours, minutes, end = 0;

	if (sscanf(text, "%*1[+-]%2d%2d%n", &hours, &minutes, &end) != 2 || end != 5 || text[5])
		return false;
	*us = (hours * INT64_C(60) + minutes) * 60 * US_PER_S * (*text == '-' ? -1 : 1);
	return true;
}

static bool read_time(const json_t *v, double *out)
{
	const char *text = json_string_value(v);
	char stamp[TIME_TEXT_SIZE];
	int64_t us, offset_us = 0;

	if (json_is_number(v)) {
		*out = json_number_value(v);
		return isfinite(*out) && *out >= 0;
	}
	if (!text)
		return false;
	snprintf(stamp, sizeof stamp, "%.27s", text);
	if (!time_parse(stamp, &us) ||
	    (strlen(text) > strlen(stamp) && !read_offset(text + strlen(stamp), &offset_us)))
		return false;
	*out = (double)(us - offset_us) / 1e6;
	return true;
}

static bool topic_is_sane(const char *t)
{
	return t && *t && strlen(t) < 1024 && !strpbrk(t, "+#") && utf8_valid(t, strlen(t));
}

static enum ota_code wrong(const struct replay *r, const char *why, struct ota_err *err)
{
	return ota_fail(err, OTA_EINVAL, "%s, line %" PRId64 ": %s", r->path, r->number, why);
}

static bool take_payload(struct line *l, const json_t *v)
{
	if (json_is_string(v)) {
		l->payload = json_string_value(v);
		l->len = json_string_length(v);
		return true;
	}
	l->dumped = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
	l->payload = l->dumped;
	l->len = l->dumped ? strlen(l->dumped) : 0;
	return l->dumped != NULL;
}

static enum ota_code parse(const struct replay *r, struct line *l, size_t n, struct ota_err *err)
{
	json_error_t e;
	const json_t *qos, *payload, *at;

	l->root = json_loadb(r->text, n, JSON_ALLOW_NUL, &e);
	if (!json_is_object(l->root))
		return wrong(r, l->root ? "no JSON object" : e.text, err);
	l->topic = api_str(l->root, "topic");
	at = json_object_get(l->root, "time");
	at = at ? at : json_object_get(l->root, "tst");
	qos = json_object_get(l->root, "qos");
	payload = json_object_get(l->root, "payload");
	l->qos = qos ? (int)api_int(l->root, "qos", -1) : 1;
	l->retain = api_true(l->root, "retain") || api_int(l->root, "retain", 0) == 1;
	if (!read_time(at, &l->at_s))
		return wrong(r, "\"time\" must be seconds, or like 2026-11-23T22:12:49.000000Z",
			     err);
	if (!topic_is_sane(l->topic))
		return wrong(r, "\"topic\" must be a topic, without + and #", err);
	if (l->qos < 0 || l->qos > 2)
		return wrong(r, "\"qos\" must be 0, 1 or 2", err);
	if (!payload)
		return wrong(r, "\"payload\" is missing", err);
	return take_payload(l, payload) ? OTA_OK : ota_fail_nomem(err);
}

/* The next line that is not empty; l->root NULL at the end. */
static enum ota_code next_line(struct replay *r, struct line *l, struct ota_err *err)
{
	ssize_t n;

	*l = (struct line){0};
	while ((n = getline(&r->text, &r->cap, r->file)) >= 0) {
		enum ota_code code;

		r->number++;
		if (strspn(r->text, " \t\r\n") == (size_t)n)
			continue;
		code = parse(r, l, (size_t)n, err);
		if (code != OTA_OK)
			line_fini(l);
		return code;
	}
	return ferror(r->file)
		       ? ota_fail(err, OTA_EINVAL, "cannot read %s: %s", r->path, strerror(errno))
		       : OTA_OK;
}

/* All of it once, before anything is sent. */
static enum ota_code check_file(struct replay *r, struct ota_err *err)
{
	enum ota_code code;
	struct line l;

	r->file = fopen(r->path, "re");
	if (!r->file)
		return ota_fail(err, OTA_EINVAL, "cannot open %s: %s", r->path, strerror(errno));
	while ((code = next_line(r, &l, err)) == OTA_OK && l.root) {
		if (r->lines++ == 0)
			r->first_s = r->last_s = l.at_s;
		else if (l.at_s < r->last_s)
			code = wrong(r, "\"time\" goes back", err);
		r->last_s = l.at_s;
		line_fini(&l);
		if (code != OTA_OK)
			return code;
	}
	if (code == OTA_OK && r->lines == 0)
		code = ota_fail(err, OTA_EINVAL, "%s has no line", r->path);
	if (code == OTA_OK && fseek(r->file, 0, SEEK_SET) != 0)
		code = ota_fail(err, OTA_EINVAL, "%s must be a file: it is read twice", r->path);
	r->number = 0;
	return code;
}

/* ------------------------------------------------------------------ sending */

static void describe(void *ctx, uint32_t connection, struct broker_client *out)
{
	(void)ctx;
	*out = (struct broker_client){0};
	snprintf(out->id, sizeof out->id, "paku-fleet-replay-%u-%lld", connection,
		 (long long)clock_wall_us());
}

static void ignore(void *ctx, uint32_t connection, const char *topic, const char *payload,
		   size_t len)
{
	(void)ctx;
	(void)connection;
	(void)topic;
	(void)payload;
	(void)len;
}

/* {site}/edge/{device_id}/...: by its first three levels. */
static uint32_t connection_of(const struct replay *r, const char *topic)
{
	const char *end = topic;

	for (int levels = 0; *end && !(*end == '/' && ++levels == 3); end++)
		;
	return (uint32_t)(hash64(topic, (size_t)(end - topic)) % r->connections);
}

static int64_t unacked(const struct replay *r)
{
	const struct broker_stats *s = broker_stats(r->broker);

	return s->published - s->acknowledged;
}

static void tell_progress(struct replay *r)
{
	int64_t now_ms = loop_now_ms(r->loop);

	if (r->c->json || now_ms - r->told_ms < LINE_MS)
		return;
	r->told_ms = now_ms;
	fprintf(stderr, "%" PRId64 " s: %" PRId64 " of %" PRId64 " messages\n",
		(now_ms - r->begun_ms) / 1000, r->sent, r->lines);
}

/* True when the line's time has come, and the broker keeps up. */
static bool is_due(const struct replay *r, const struct line *l)
{
	double played_s = (double)(loop_now_ms(r->loop) - r->begun_ms) / 1000;

	if (unacked(r) >= UNACKED_MAX)
		return false;
	return !(r->speed > 0) || (l->at_s - r->first_s) / r->speed <= played_s;
}

static enum ota_code play(struct replay *r, struct ota_err *err)
{
	enum ota_code code;
	struct line l;

	code = next_line(r, &l, err);
	while (code == OTA_OK && l.root && !term_interrupted()) {
		for (int i = 0; i < A_TURN && code == OTA_OK && l.root && is_due(r, &l); i++) {
			if (broker_publish(r->broker, connection_of(r, l.topic), l.topic, l.payload,
					   l.len, l.qos, l.retain))
				r->sent++;
			else
				r->lost++;
			line_fini(&l);
			code = next_line(r, &l, err);
		}
		loop_turn(r->loop, l.root && !is_due(r, &l) ? 10 : 0);
		tell_progress(r);
	}
	line_fini(&l);
	return code;
}

static enum ota_code reach_broker(struct replay *r, struct ota_err *err)
{
	struct broker_config cfg = {
		.loop = r->loop,
		.door = &r->door,
		.connections = r->connections,
		.ctx = r,
		.describe = describe,
		.message = ignore,
	};
	enum ota_code code = broker_new(&cfg, &r->broker, err);

	if (code == OTA_OK)
		code = broker_join_all(r->broker, READY_MS, err);
	return code;
}

static enum ota_code tell(struct replay *r, struct ota_err *err)
{
	double took_s = (double)(loop_now_ms(r->loop) - r->begun_ms) / 1000;
	int64_t missing = unacked(r) + r->lost;
	enum ota_code code = OTA_OK;
	json_t *root;

	r->c->exit_status = missing > 0 || r->sent < r->lines ? EXIT_REFUSED : EXIT_OK;
	if (r->c->json) {
		root = json_pack("{s:I,s:I,s:I,s:f}", "lines", (json_int_t)r->lines, "sent",
				 (json_int_t)r->sent, "not_acknowledged", (json_int_t)missing,
				 "seconds", took_s);
		code = root ? api_print_json(root, err) : ota_fail_nomem(err);
		json_decref(root);
		return code;
	}
	printf("%" PRId64 " of %" PRId64 " messages sent in %.1f s, %" PRId64
	       " of them not acknowledged\n",
	       r->sent, r->lines, took_s, missing);
	return OTA_OK;
}

static enum ota_code read_options(struct replay *r, const struct args *a, struct ota_err *err)
{
	const char *speed = args_get(a, "speed");
	char *end = NULL;

	r->path = a->pos[0];
	r->connections = (uint32_t)args_int(a, "connections", 8);
	r->speed = 1;
	if (speed && strcmp(speed, "max") == 0)
		r->speed = 0;
	else if (speed) {
		r->speed = strtod(speed, &end);
		if (end == speed || *end || !isfinite(r->speed) || r->speed <= 0)
			return ota_fail(err, OTA_EINVAL,
					"--speed is a number above 0, or 'max', not '%s'", speed);
	}
	return broker_door_read(&r->door, a, err);
}

static enum ota_code replay_file(struct replay *r, struct ota_err *err)
{
	enum ota_code code = check_file(r, err);
	int64_t until_ms;

	if (code == OTA_OK)
		code = loop_new(&r->loop, err);
	if (code == OTA_OK)
		code = reach_broker(r, err);
	if (code != OTA_OK)
		return code;
	r->begun_ms = r->told_ms = loop_now_ms(r->loop);
	code = play(r, err);
	until_ms = clock_mono_ms() + DRAIN_MS;
	while (code == OTA_OK && unacked(r) > 0 && clock_mono_ms() < until_ms &&
	       !term_interrupted())
		loop_turn(r->loop, 50);
	return code == OTA_OK ? tell(r, err) : code;
}

enum ota_code cmd_replay(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct replay r = {.c = c};
	enum ota_code code = read_options(&r, a, err);

	if (code == OTA_OK)
		code = replay_file(&r, err);
	broker_free(&r.broker);
	loop_free(&r.loop);
	if (r.file)
		fclose(r.file);
	free(r.text);
	return code;
}
