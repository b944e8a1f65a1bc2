/* SPDX-License-Identifier: MIT */
/*
 * Devices over MQTT on a bench: what they say, as the collector hands it on, and the dispatcher's
 * turn.  Time passes by moving the service's clock.
 */
#pragma once

#include "commit_bench.h"

#define WINDOW 60

static inline int begin(void **state)
{
	static struct bench b;

	b = bench_new();
	bench_open(&b);
	*state = &b;
	return 0;
}

static inline int end(void **state)
{
	bench_end(*state);
	return 0;
}

#define RETRY 3600 /* the bench's poll interval */

static inline void seconds_pass(int seconds)
{
	clock_service_not_before(clock_service_us() + seconds * US_PER_S);
}

static inline int64_t events(struct bench *b, const char *type)
{
	char sql[128];

	snprintf(sql, sizeof sql, "SELECT count(*) FROM ota_events WHERE event_type='%s'", type);
	return row_int(b, sql);
}

/* --- what devices say --- */

static const struct via paku = {"paku", TOPIC_FORM_EDGE};

static inline enum ota_code run_status(struct bench *b, struct command *cmd)
{
	struct checkin *f = &cmd->status.facts;

	cmd->kind = COMMAND_STATUS;
	if (!f->model)
		f->model = MODEL;
	if (!f->version)
		f->version = "";
	f->hw = "";
	return committer_run(b->c, cmd);
}

static inline void birth_at(struct bench *b, const char *id, const char *version, struct via via)
{
	struct command cmd = {.status = {.facts = {.device_id = id, .version = version},
					 .via = via,
					 .online = true}};

	assert_int_equal(run_status(b, &cmd), OTA_OK);
}

static inline void birth(struct bench *b, const char *id, const char *version)
{
	birth_at(b, id, version, paku);
}

static inline void last_will(struct bench *b, const char *id, struct via via)
{
	struct command cmd = {.status = {.facts = {.device_id = id, .model = ""}, .via = via}};

	assert_int_equal(run_status(b, &cmd), OTA_OK);
}

static inline void retained(struct bench *b, const char *id, const char *version, bool online)
{
	struct command cmd = {.status = {.facts = {.device_id = id, .version = version},
					 .via = paku,
					 .online = online,
					 .retained = true}};

	assert_int_equal(run_status(b, &cmd), OTA_OK);
}

static inline void say(struct bench *b, struct report r)
{
	struct command cmd = {.kind = COMMAND_REPORT, .report = r};

	if (!r.via.site)
		cmd.report.via = paku;
	assert_int_equal(committer_run(b->c, &cmd), OTA_OK);
}

static inline void accepted(struct bench *b, const char *id, const char *version)
{
	say(b,
	    (struct report){.device_id = id, .version = version, .percent = -1, .accepted = true});
}

/* As the collector has it: no version, whatever the payload names. */
static inline void progress(struct bench *b, const char *id, enum attempt_event event, int percent)
{
	say(b,
	    (struct report){.device_id = id, .event = event, .percent = percent, .accepted = true});
}

/* PAYLOAD makes the hash by which a copy is known. */
static inline void result(struct bench *b, const char *id, const char *version, bool success,
			  const char *payload)
{
	say(b, (struct report){.device_id = id,
			       .version = version,
			       .event = success ? EVENT_REPORT_SUCCESS : EVENT_REPORT_FAILED,
			       .percent = -1,
			       .error_message = success ? NULL : "download failed",
			       .hash = hash64(payload, strlen(payload)) | 1});
}

/* The dispatcher's turn: whether a command is to be sent. */
static inline bool order(struct bench *b, const char *id)
{
	struct command cmd = {.kind = COMMAND_DISPATCH, .dispatch = {id}};

	assert_int_equal(committer_run(b->c, &cmd), OTA_OK);
	return cmd.out.send;
}

static inline const struct device *device(struct bench *b, const char *id)
{
	return fleet_find(b->fleet, id);
}

#define ON_A_BENCH(test) cmocka_unit_test_setup_teardown(test, begin, end)
