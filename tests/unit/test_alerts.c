/* SPDX-License-Identifier: MIT */
/*
 * Alerts on the real committer and store, with the clock as an argument, and the messages about
 * them: what is to be sent, what is tried again, what is given up.
 */
#include "failing_store.h"

#include "conductor/conductor.h"
#include "conductor/webhook.h"

#include <jansson.h>
#include <time.h>

#define HOUR_US (3600 * US_PER_S)
#define DAY_US  (24 * HOUR_US)

struct world {
	struct bench b;
	struct conductor *k;
	struct alerts *a;
	struct webhooks *w;
	const char *urls;
};

static void watch(struct world *x)
{
	struct ota_err err = {0};
	struct webhooks_parts wp = {.store = x->b.store,
				    .committer = x->b.c,
				    .urls = x->urls,
				    .secret = "",
				    .retry_s = 1};
	if (webhooks_start(&wp, &x->w, &err) != OTA_OK)
		fail_msg("%s", err.msg);
	struct alerts_parts ap = {.fleet = x->b.fleet,
				  .store = x->b.store,
				  .committer = x->b.c,
				  .webhooks = x->w,
				  .stuck_us = DAY_US};
	assert_int_equal(alerts_new(&ap, clock_service_us(), &x->a, &err), OTA_OK);
	x->k = conductor_new(x->b.fleet, x->b.c);
	assert_non_null(x->k);
	conductor_set_alerts(x->k, x->a);
}

static void unwatch(struct world *x)
{
	conductor_free(&x->k);
	alerts_free(&x->a);
	webhooks_stop(&x->w);
}

static int begin_on(void **state, struct store *(*wrap)(struct store *))
{
	static struct world x;

	x = (struct world){.b = bench_new(), .urls = ""};
	x.b.wrap = wrap;
	atomic_store(&commits_until_failure, 0);
	atomic_store(&failures_in_all, 0);
	bench_open(&x.b);
	watch(&x);
	*state = &x;
	return 0;
}

static int begin(void **state)
{
	return begin_on(state, NULL);
}

static int begin_failing(void **state)
{
	return begin_on(state, wrap_failing);
}

static int end(void **state)
{
	struct world *x = *state;

	unwatch(x);
	bench_end(&x->b);
	return 0;
}

static void restart(struct world *x)
{
	unwatch(x);
	bench_restart(&x->b);
	watch(x);
}

static void pass(int64_t us)
{
	clock_service_not_before(clock_service_us() + us);
}

/* So many seconds go by, with a tick in each. */
static void ticks(struct world *x, int count)
{
	for (int i = 0; i < count; i++) {
		pass(US_PER_S);
		conductor_tick(x->k, clock_service_us());
	}
}

/* Every device was looked at. */
static void round_of_ticks(struct world *x)
{
	ticks(x, FLEET_SHARDS + 2);
}

/* "kind subject" of those that are open, in their order. */
static const char *open_alerts(struct world *x)
{
	return row_text(&x->b, "SELECT coalesce(group_concat(kind || ' ' || subject, ', '), '') "
			       "FROM (SELECT * FROM ota_alerts WHERE cleared_at IS NULL ORDER BY "
			       "id)");
}

static int64_t count(struct world *x, const char *what)
{
	char sql[256];

	snprintf(sql, sizeof sql, "SELECT count(*) FROM %s", what);
	return row_int(&x->b, sql);
}

static enum ota_code lead(struct world *x, int64_t id, enum rollout_event e)
{
	struct command cmd = {.kind = COMMAND_ROLLOUT_WALK,
			      .walk = {.id = id, .event = e, .reason = "because"}};

	return committer_run(x->b.c, &cmd);
}

/* What the device was offered, and did not take. */
static void lapse(struct world *x, const char *id)
{
	struct command cmd = {.kind = COMMAND_LAPSE,
			      .lapse = {.device_id = id, .not_after_us = clock_service_us()}};

	assert_int_equal(committer_run(x->b.c, &cmd), OTA_OK);
}

/* --- rollouts --- */

static void stuck(void **state)
{
	struct world *x = *state;

	ask(&x->b, "d1", "1.0.0");
	roll_out(&x->b, "2.0.0");
	ticks(x, 3);
	/* It is offered again and again, and never taken: that is no step. */
	for (int hour = 0; hour < 23; hour++) {
		pass(HOUR_US - US_PER_S);
		ticks(x, 1);
		assert_true(ask(&x->b, "d1", "1.0.0").offered);
		lapse(x, "d1");
		assert_string_equal(open_alerts(x), "");
	}
	assert_int_equal(count(x, "device_update_status WHERE closed='lapsed'"), 23);
	pass(HOUR_US);
	ticks(x, 2);
	assert_string_equal(open_alerts(x), "rollout_stuck rollout/1");
	/* Once, however long, and over a restart. */
	pass(DAY_US);
	ticks(x, 5);
	restart(x);
	ticks(x, 5);
	assert_int_equal(count(x, "ota_alerts"), 1);
	/* The service stood still (no word for a day): from here it counts anew. */
	assert_string_equal(open_alerts(x), "");
	pass(DAY_US);
	ticks(x, 3);
	assert_string_equal(open_alerts(x), "rollout_stuck rollout/1");
	assert_int_equal(count(x, "ota_alerts"), 2);
	/* A download begins: it moves. */
	assert_int_equal(fetch(&x->b, ask(&x->b, "d1", "1.0.0").token, false), OTA_OK);
	ticks(x, 2);
	assert_string_equal(open_alerts(x), "");
	pass(DAY_US - HOUR_US);
	ticks(x, 2);
	assert_string_equal(open_alerts(x), "");
	assert_int_equal(count(x, "ota_events WHERE event_type='alert_raised' AND rollout_id=1 AND "
				  "firmware_version='2.0.0' AND created_by IS NULL"),
			 2);
	assert_int_equal(count(x, "ota_events WHERE event_type='alert_cleared'"), 2);
}

/* What moved before a restart still counts, by the events. */
static void progress_before_a_restart(void **state)
{
	struct world *x = *state;

	roll_out(&x->b, "2.0.0");
	ticks(x, 2);
	pass(10 * HOUR_US);
	struct answer a = ask(&x->b, "d1", "1.0.0");
	assert_int_equal(fetch(&x->b, a.token, false), OTA_OK);
	pass(10 * HOUR_US);
	ask(&x->b, "d2", "1.0.0"); /* somebody is heard of up to the end */
	restart(x);
	pass(13 * HOUR_US);
	ticks(x, 4);
	assert_string_equal(open_alerts(x), ""); /* 33 after its begin, 23 after its last step */
	pass(HOUR_US);
	ticks(x, 2);
	assert_string_equal(open_alerts(x), "rollout_stuck rollout/1");
}

static void halted(void **state)
{
	struct world *x = *state;
	int64_t id = roll_out(&x->b, "2.0.0");

	ticks(x, 2);
	assert_string_equal(open_alerts(x), "");
	assert_int_equal(lead(x, id, ROLLOUT_HALT), OTA_OK);
	ticks(x, 1);
	assert_string_equal(open_alerts(x), "rollout_halted rollout/1");
	assert_non_null(strstr(row_text(&x->b, "SELECT sentence FROM ota_alerts"), ": because."));
	restart(x);
	ticks(x, 2);
	assert_int_equal(count(x, "ota_alerts"), 1);
	roll_out(&x->b, "2.0.1");
	ticks(x, 1);
	assert_string_equal(open_alerts(x), "");
}

/* Each stage that waits is told of, also where one follows the other at once. */
static void approvals(void **state)
{
	static const struct stage stages[] = {
		{10, 0, 0, true}, {50, 0, 0, true}, {100, 0, 0, false}};
	struct world *x = *state;
	struct rollout_new n = rollout_of("walk", "2.0.0");
	struct command cmd;

	n.stages = stages;
	n.stage_count = 3;
	assert_int_equal(upload(&x->b, "2.0.0"), OTA_OK);
	assert_int_equal(roll_out_as(&x->b, &n, &cmd), OTA_OK);
	int64_t id = cmd.out.id;
	ticks(x, 5);
	assert_string_equal(open_alerts(x), "waiting_for_approval rollout/1");
	assert_int_equal(count(x, "ota_alerts"), 1);
	restart(x);
	ticks(x, 5);
	assert_int_equal(count(x, "ota_alerts"), 1);
	assert_int_equal(lead(x, id, ROLLOUT_APPROVE), OTA_OK);
	for (int i = 0; i < 3; i++) /* in between two looks at alerts it goes on, and waits again */
		conductor_tick(x->k, clock_service_us());
	assert_int_equal(row_int(&x->b, "SELECT stage FROM rollout_configurations"), 2);
	ticks(x, 5);
	assert_string_equal(open_alerts(x), "waiting_for_approval rollout/1");
	assert_int_equal(count(x, "ota_alerts"), 2);
	assert_non_null(strstr(row_text(&x->b, "SELECT sentence FROM ota_alerts WHERE id=2"),
			       "stage 2 of 3 (50 %)"));
	assert_int_equal(lead(x, id, ROLLOUT_APPROVE), OTA_OK);
	ticks(x, 2);
	assert_string_equal(open_alerts(x), "");
}

static void acknowledged(void **state)
{
	struct world *x = *state;
	struct command cmd = {.kind = COMMAND_ALERT,
			      .by = "tester",
			      .alert = {.what = ALERT_ACKNOWLEDGE, .id = 1, .reason = "seen"}};
	int64_t id = roll_out(&x->b, "2.0.0");

	assert_int_equal(committer_run(x->b.c, &cmd), OTA_ENOTFOUND);
	assert_int_equal(lead(x, id, ROLLOUT_HALT), OTA_OK);
	ticks(x, 1);
	assert_int_equal(committer_run(x->b.c, &cmd), OTA_OK);
	assert_false(cmd.out.existed);
	cmd.by = "another";
	assert_int_equal(committer_run(x->b.c, &cmd), OTA_OK);
	assert_true(cmd.out.existed);
	ticks(x, 2);
	assert_string_equal(row_text(&x->b, "SELECT acknowledged_by || ' ' || acknowledged_reason"
					    " FROM ota_alerts"),
			    "tester seen");
	assert_string_equal(open_alerts(x), "rollout_halted rollout/1"); /* it is as it was */
	assert_int_equal(count(x, "ota_events WHERE event_type='alert_acknowledged' AND"
				  " created_by='tester'"),
			 1);
}

/* Attempts count over all rollouts of a release, and only while one of them goes on. */
static void failures(void **state)
{
	struct world *x = *state;
	struct rollout_new n = rollout_of("again", "2.0.0");
	struct command cmd;
	char id[16];
	int64_t first = roll_out(&x->b, "2.0.0");

	for (int i = 0; i < 12; i++) {
		snprintf(id, sizeof id, "d%d", i);
		struct answer a = ask(&x->b, id, "1.0.0");
		if (i == 6) {
			assert_int_equal(lead(x, first, ROLLOUT_ABORT), OTA_OK);
			assert_int_equal(roll_out_as(&x->b, &n, &cmd), OTA_OK);
			a = ask(&x->b, id, "1.0.0");
		}
		assert_int_equal(
			tell(&x->b, id, "2.0.0", i % 6 ? "success" : "failed", -1, a.token, NULL),
			OTA_OK);
		ticks(x, 4);
		assert_string_equal(open_alerts(x), i < 9 ? "" : "failure_rate release/1");
	}
	assert_string_equal(row_text(&x->b, "SELECT sentence FROM ota_alerts"),
			    "2 of 10 finished attempts at 2.0.0 for esp32-c3 failed: 20.0 %, more "
			    "than 5 %.");
	restart(x);
	ticks(x, 4);
	assert_int_equal(count(x, "ota_alerts"), 1);
	assert_string_equal(open_alerts(x), "failure_rate release/1");
	assert_int_equal(lead(x, 2, ROLLOUT_PAUSE), OTA_OK);
	ticks(x, 2);
	assert_string_equal(open_alerts(x), "failure_rate release/1");
	assert_int_equal(lead(x, 2, ROLLOUT_ABORT), OTA_OK);
	ticks(x, 2);
	assert_string_equal(open_alerts(x), "");
}

/* The store did not take it: the next tick raises it, and not twice. */
static void store_that_fails(void **state)
{
	struct world *x = *state;
	int64_t id = roll_out(&x->b, "2.0.0");

	assert_int_equal(lead(x, id, ROLLOUT_HALT), OTA_OK);
	atomic_store(&failures_in_all, 1);
	atomic_store(&commits_until_failure, 1);
	log_configure(LOG_ERROR + 1, false);
	ticks(x, 1);
	log_configure(LOG_ERROR, false);
	assert_int_equal(count(x, "ota_alerts"), 0);
	ticks(x, 2);
	assert_string_equal(open_alerts(x), "rollout_halted rollout/1");
}

/* --- devices --- */

/* The device updates; LAST is its last word about it. */
static void update(struct world *x, const char *id, const char *last)
{
	struct answer a = ask(&x->b, id, "1.0.0");

	assert_true(a.offered);
	assert_int_equal(fetch(&x->b, a.token, false), OTA_OK);
	if (last)
		assert_int_equal(tell(&x->b, id, "2.0.0", last, -1, a.token, NULL), OTA_OK);
}

static void silent(void **state)
{
	struct world *x = *state;

	roll_out(&x->b, "2.0.0");
	update(x, "bricked", "installing");
	update(x, "dies-later", "success");
	ask(&x->b, "dies-later", "2.0.0");
	update(x, "lives", "success");
	update(x, "failed", "failed");
	update(x, "loads", NULL);
	update(x, "old", "success");
	ask(&x->b, "waits", "1.0.0");
	/* Nobody is silent for a day yet. */
	for (int hour = 0; hour < 23; hour++) {
		pass(HOUR_US);
		ask(&x->b, "lives", "2.0.0");
		ask(&x->b, "old", "2.0.0");
		if (hour == 1)
			ask(&x->b, "dies-later", "2.0.0");
		round_of_ticks(x);
	}
	assert_int_equal(count(x, "ota_alerts WHERE kind='device_silent'"), 0);
	pass(HOUR_US);
	round_of_ticks(x);
	assert_string_equal(row_text(&x->b, "SELECT group_concat(subject) FROM ota_alerts WHERE"
					    " kind='device_silent'"),
			    "device/bricked");
	/* Two hours after its update, that one was heard of for the last time. */
	for (int hour = 0; hour < 3; hour++) {
		pass(HOUR_US);
		ask(&x->b, "lives", "2.0.0");
		ask(&x->b, "old", "2.0.0");
		round_of_ticks(x);
	}
	assert_int_equal(count(x, "ota_alerts WHERE kind='device_silent' AND"
				  " subject='device/dies-later'"),
			 1);
	/* It ran for more than a day: when it falls silent, that is not its update's. */
	for (int hour = 0; hour < 30; hour++) {
		pass(HOUR_US);
		ask(&x->b, "lives", "2.0.0");
		round_of_ticks(x);
	}
	assert_int_equal(count(x, "ota_alerts WHERE kind='device_silent'"), 2);
	restart(x);
	round_of_ticks(x);
	assert_int_equal(count(x, "ota_alerts WHERE kind='device_silent'"), 2);
	/* Heard of again, or deleted: over. */
	ask(&x->b, "bricked", "1.0.0");
	assert_int_equal(delete_device(&x->b, "dies-later"), OTA_OK);
	ticks(x, 1);
	assert_int_equal(count(x, "ota_alerts WHERE kind='device_silent' AND cleared_at IS NULL"),
			 0);
	assert_int_equal(count(x, "ota_events WHERE event_type='alert_cleared' AND"
				  " device_id='bricked'"),
			 1);
}

/* Found although a restart came in between. */
static void silent_over_a_restart(void **state)
{
	struct world *x = *state;

	roll_out(&x->b, "2.0.0");
	update(x, "bricked", "installing");
	pass(20 * HOUR_US);
	ask(&x->b, "lives", "1.0.0");
	restart(x);
	pass(3 * HOUR_US);
	round_of_ticks(x);
	assert_int_equal(count(x, "ota_alerts WHERE kind='device_silent'"), 0);
	pass(HOUR_US);
	round_of_ticks(x);
	assert_int_equal(count(x, "ota_alerts WHERE kind='device_silent'"), 1);
}

/* While nobody could be heard nobody was silent. */
static void the_service_was_down(void **state)
{
	struct world *x = *state;

	roll_out(&x->b, "2.0.0");
	update(x, "bricked", "installing");
	pass(40 * HOUR_US);
	restart(x);
	round_of_ticks(x);
	pass(23 * HOUR_US);
	round_of_ticks(x);
	assert_int_equal(count(x, "ota_alerts WHERE kind='device_silent'"), 0);
	/* The clock was set a day ahead: neither. */
	alerts_listen(x->a, clock_service_us());
	pass(23 * HOUR_US);
	round_of_ticks(x);
	assert_int_equal(count(x, "ota_alerts WHERE kind='device_silent'"), 0);
	pass(HOUR_US);
	round_of_ticks(x);
	assert_int_equal(count(x, "ota_alerts WHERE kind='device_silent'"), 1);
}

static void too_many_are_silent(void **state)
{
	struct world *x = *state;
	char id[16];

	roll_out(&x->b, "2.0.0");
	for (int i = 0; i < 130; i++) {
		snprintf(id, sizeof id, "d%03d", i);
		update(x, id, "installing");
	}
	pass(DAY_US);
	log_configure(LOG_ERROR, false);
	round_of_ticks(x);
	assert_int_equal(count(x, "ota_alerts WHERE kind='device_silent'"), 100);
	/* Those that are heard again make room for the others. */
	for (int i = 0; i < 130; i++) {
		snprintf(id, sizeof id, "device/d%03d", i);
		char sql[128];
		snprintf(sql, sizeof sql, "SELECT count(*) FROM ota_alerts WHERE subject='%s'", id);
		if (row_int(&x->b, sql) == 1)
			ask(&x->b, id + strlen("device/"), "1.0.0");
	}
	round_of_ticks(x);
	round_of_ticks(x);
	assert_int_equal(count(x, "ota_alerts WHERE kind='device_silent' AND cleared_at IS NULL"),
			 30);
	assert_int_equal(count(x, "ota_alerts WHERE kind='device_silent'"), 130);
}

/* --- messages --- */

static void until(struct world *x, const char *what, int64_t is)
{
	const struct timespec ms = {0, 5000000};

	for (int i = 0; i < 4000 && count(x, what) != is; i++)
		nanosleep(&ms, NULL);
	assert_int_equal(count(x, what), is);
}

/* Nobody answers at these. */
#define NOBODY "http://127.0.0.1:1/a, http://127.0.0.1:1/b http://127.0.0.1:1/a"

static void messages(void **state)
{
	struct world *x = *state;
	struct alert_counts c;
	struct ota_err err;

	log_configure(LOG_ERROR + 1, false);
	unwatch(x);
	x->urls = NOBODY;
	watch(x);
	int64_t id = roll_out(&x->b, "2.0.0");
	assert_int_equal(lead(x, id, ROLLOUT_HALT), OTA_OK);
	ticks(x, 1);
	/* One for each address, in the alert's own transaction, and none knows the address. */
	assert_int_equal(count(x, "ota_webhooks WHERE alert_id=1 AND event='raised'"), 2);
	assert_int_equal(count(x, "ota_webhooks WHERE target LIKE '%127%'"), 0);
	until(x, "ota_webhooks WHERE tries > 0 AND last_error LIKE '%onnect%'", 2);
	restart(x);
	until(x, "ota_webhooks WHERE tries > 1", 2);
	assert_int_equal(count(x, "ota_webhooks"), 2);
	assert_int_equal(x->b.store->ops->alert_counts(x->b.store, &c, &err), OTA_OK);
	assert_int_equal(c.waiting, 2);
	assert_int_equal(c.open[ALERT_ROLLOUT_HALTED], 1);
	/* After a day they are given up. */
	pass(DAY_US);
	until(x, "ota_webhooks WHERE given_up_at IS NOT NULL", 2);
	assert_int_equal(count(x, "ota_webhooks WHERE last_error LIKE '%onnect%'"), 2);
	/* What is over is told too; one address less, and what was left for it is given up. */
	roll_out(&x->b, "2.0.1");
	ticks(x, 1);
	assert_int_equal(count(x, "ota_webhooks WHERE event='cleared'"), 2);
	unwatch(x);
	x->urls = "http://127.0.0.1:1/b";
	watch(x);
	assert_int_equal(
		count(x, "ota_webhooks WHERE last_error='its address is not set any more'"), 1);
	assert_int_equal(x->b.store->ops->alert_counts(x->b.store, &c, &err), OTA_OK);
	assert_int_equal(c.waiting, 1);
	assert_int_equal(c.given_up, 3);
	assert_int_equal(c.open[ALERT_ROLLOUT_HALTED], 0);
	log_configure(LOG_ERROR, false);
}

struct seen {
	int64_t ids[8];
	int count;
};

static bool see_message(void *ctx, const struct row_webhook *row)
{
	struct seen *s = ctx;

	assert_string_equal(row->target, "t");
	assert_int_equal(row->alert.id, 1);
	s->ids[s->count++] = row->id;
	return true;
}

static void change_message(struct world *x, enum webhook_change what, int64_t id)
{
	struct command cmd = {.kind = COMMAND_WEBHOOK,
			      .webhook = {.what = what, .id = id, .error = "no"}};

	assert_int_equal(committer_run(x->b.c, &cmd), OTA_OK);
}

/* The least tried goes first; what has arrived or is given up does not go at all. */
static void order_of_messages(void **state)
{
	static const char *const targets[] = {"t", "t", "t", "t", "u"};
	struct world *x = *state;
	struct command cmd = {.kind = COMMAND_ALERT,
			      .alert = {.what = ALERT_RAISE,
					.kind = ALERT_FAILURE_RATE,
					.subject = "release/1",
					.sentence = "s",
					.data = "{}",
					.targets = targets,
					.target_count = 5}};
	struct webhook_query q = {.target = "t", .limit = 8};
	struct seen s = {0};
	struct ota_err err;

	assert_int_equal(committer_run(x->b.c, &cmd), OTA_OK);
	/* Once while it is open: the whole of the second is refused, messages too. */
	assert_int_equal(committer_run(x->b.c, &cmd), OTA_ECONFLICT);
	assert_int_equal(count(x, "ota_webhooks"), 5);
	change_message(x, WEBHOOK_FAILED, 1);
	change_message(x, WEBHOOK_SENT, 2);
	change_message(x, WEBHOOK_GIVEN_UP, 3);
	struct store *st = x->b.store;
	assert_int_equal(st->ops->list_webhooks(st, &q, see_message, &s, &err), OTA_OK);
	assert_int_equal(s.count, 2);
	assert_int_equal(s.ids[0], 4);
	assert_int_equal(s.ids[1], 1);
	s.count = 0;
	q.created_before_us = clock_service_us() - HOUR_US;
	assert_int_equal(st->ops->list_webhooks(st, &q, see_message, &s, &err), OTA_OK);
	assert_int_equal(s.count, 0);
	/* An id is never given twice. */
	change_message(x, WEBHOOK_SENT, 5);
	cmd.alert.what = ALERT_CLEAR;
	cmd.alert.id = 1;
	assert_int_equal(committer_run(x->b.c, &cmd), OTA_OK);
	assert_int_equal(count(x, "ota_webhooks WHERE event='cleared' AND id > 5"), 5);
	assert_int_equal(committer_run(x->b.c, &cmd), OTA_OK);
	assert_true(cmd.out.existed);
	assert_int_equal(count(x, "ota_webhooks WHERE event='cleared'"), 5);
}

/* --- pure --- */

static void pauses(void **state)
{
	static const int64_t want[] = {5, 10, 20, 40, 80, 160, 320, 640, 1280, 1800, 1800};

	(void)state;
	for (int i = 0; i < 11; i++)
		assert_int_equal(webhook_pause_s(5, i + 1), want[i]);
	assert_int_equal(webhook_pause_s(1800, 1), 1800);
	assert_int_equal(webhook_pause_s(1, 1000000), 1800);
}

static json_t *body_of(enum webhook_format format, bool cleared, const char *sentence)
{
	const struct row_webhook m = {.id = 7,
				      .cleared = cleared,
				      .alert = {.id = 4,
						.kind = "failure_rate",
						.subject = "release/2",
						.severity = "critical",
						.sentence = sentence,
						.raised_at = "2026-11-25T04:17:34.966078Z",
						.cleared_at = "2026-11-26T04:17:34.966078Z",
						.data = "{\"failed\":12}"}};
	struct buf b = BUF_INIT;
	json_error_t e;

	webhook_body(format, &m, &b);
	assert_true(buf_ok(&b));
	json_t *j = json_loadb(b.data, b.len, 0, &e);
	if (!j)
		fail_msg("%s: %s", e.text, b.data);
	buf_fini(&b);
	return j;
}

static void bodies(void **state)
{
	static const char odd[] = "<!channel> & @everyone \"x\"\n\x01\xff";
	const char *text;

	(void)state;
	json_t *j = body_of(WEBHOOK_JSON, false, odd);
	assert_int_equal(json_integer_value(json_object_get(j, "delivery")), 7);
	json_t *a = json_object_get(j, "alert");
	assert_int_equal(json_integer_value(json_object_get(json_object_get(a, "data"), "failed")),
			 12);
	assert_true(json_is_null(json_object_get(a, "cleared_at")));
	json_decref(j);
	j = body_of(WEBHOOK_SLACK, true, odd);
	text = json_string_value(json_object_get(j, "text"));
	assert_true(strncmp(text, "Over: [critical] &lt;!channel&gt; &amp; @everyone", 49) == 0);
	json_decref(j);
	j = body_of(WEBHOOK_DISCORD, false, odd);
	text = json_string_value(json_object_get(j, "content"));
	assert_true(strncmp(text, "[critical] <!channel> & @everyone", 33) == 0);
	assert_int_equal(
		json_array_size(json_object_get(json_object_get(j, "allowed_mentions"), "parse")),
		0);
	json_decref(j);
	j = body_of(WEBHOOK_ALERTMANAGER, false, odd);
	a = json_array_get(j, 0);
	assert_string_equal(json_string_value(json_object_get(a, "endsAt")),
			    "2027-11-25T04:17:34.966078Z");
	json_decref(j);
}

static void addresses(void **state)
{
	static const char *const good[] = {"",
					   "  ",
					   "http://h",
					   "https://u:p@h.example:8443/x?y=z",
					   "http://[::1]:9093",
					   "http://a,https://b c"};
	struct ota_err err;

	(void)state;
	for (size_t i = 0; i < 5; i++)
		assert_int_equal(webhooks_check(good[i], "", &err), OTA_OK);
	assert_int_equal(webhooks_check(good[5], "", &err), OTA_EINVAL); /* "c" is none */
	assert_non_null(strstr(err.msg, "OTA_WEBHOOK_URL: its address number 3"));
	assert_int_equal(webhooks_check("", "s", &err), OTA_EINVAL);
}

/* RFC 4231, test case 2. */
static void signature(void **state)
{
	char hex[SHA256_HEX_SIZE];
	uint8_t mac[SHA256_SIZE];

	(void)state;
	assert_true(hmac_sha256("Jefe", "what do ya want for nothing?", 28, mac));
	hex_encode(mac, sizeof mac, hex);
	assert_string_equal(hex,
			    "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

#define IN_A_WORLD(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_A_WORLD(stuck),
		IN_A_WORLD(progress_before_a_restart),
		IN_A_WORLD(halted),
		IN_A_WORLD(approvals),
		IN_A_WORLD(acknowledged),
		IN_A_WORLD(failures),
		cmocka_unit_test_setup_teardown(store_that_fails, begin_failing, end),
		IN_A_WORLD(silent),
		IN_A_WORLD(silent_over_a_restart),
		IN_A_WORLD(the_service_was_down),
		IN_A_WORLD(too_many_are_silent),
		IN_A_WORLD(messages),
		IN_A_WORLD(order_of_messages),
		cmocka_unit_test(pauses),
		cmocka_unit_test(bodies),
		cmocka_unit_test(addresses),
		cmocka_unit_test(signature),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
