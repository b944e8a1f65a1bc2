/* SPDX-License-Identifier: MIT */
/*
 * Rollouts on the real committer and store, led by people and by the conductor, with the clock as
 * an argument: a month passes in a second.
 */
#include "commit_bench.h"

#include "conductor/conductor.h"
#include "failing_store.h"
#include "random.h"

#define HOUR_US (3600 * US_PER_S)
#define DAY_US  (24 * HOUR_US)
#define DEVICES 60

static int begin(void **state)
{
	static struct bench b;

	b = bench_new();
	b.wrap = wrap_failing;
	bench_open(&b);
	*state = &b;
	return 0;
}

static int end(void **state)
{
	bench_end(*state);
	return 0;
}

/* --- devices that do as they are told --- */

struct crowd {
	int count, bad_from; /* those from bad_from on fail */
	bool updated[DEVICES];
};

static void id_of(int i, char out[16])
{
	snprintf(out, 16, "d%03d", i);
}

/* Each looks in once, and takes what it is offered. */
static void look_in(struct bench *b, struct crowd *w)
{
	char id[16];

	for (int i = 0; i < w->count; i++) {
		id_of(i, id);
		struct answer a = ask(b, id, w->updated[i] ? "2.0.0" : "1.0.0");
		if (!a.offered)
			continue;
		assert_string_equal(a.version, "2.0.0");
		bool bad = i >= w->bad_from;
		assert_int_equal(fetch(b, a.token, false), OTA_OK);
		assert_int_equal(
			tell(b, id, "2.0.0", bad ? "failed" : "success", -1, a.token, NULL),
			OTA_OK);
		w->updated[i] = !bad;
	}
}

static int updated(const struct crowd *w)
{
	int n = 0;

	for (int i = 0; i < w->count; i++)
		n += w->updated[i];
	return n;
}

static struct rollout_new staged(const struct stage *stages, size_t count)
{
	struct rollout_new n = rollout_of("walk", "2.0.0");

	n.stages = stages;
	n.stage_count = count;
	return n;
}

static int64_t make(struct bench *b, const struct rollout_new *n)
{
	struct command cmd;

	assert_int_equal(upload(b, "2.0.0"), OTA_OK);
	assert_int_equal(roll_out_as(b, n, &cmd), OTA_OK);
	return cmd.out.id;
}

static enum ota_code event_if(struct bench *b, int64_t id, enum rollout_event e, int stage,
			      struct command *cmd)
{
	*cmd = (struct command){
		.kind = COMMAND_ROLLOUT_WALK,
		.by = "tester",
		.walk = {.id = id, .event = e, .expect_stage = stage, .reason = "because"}};
	return committer_run(b->c, cmd);
}

static enum ota_code event(struct bench *b, int64_t id, enum rollout_event e)
{
	struct command cmd;

	return event_if(b, id, e, 0, &cmd);
}

static const char *state_of(struct bench *b)
{
	return row_text(b, "SELECT state || ' ' || stage || ' ' || rollout_percentage || ' ' || "
			   "is_active FROM rollout_configurations WHERE name='walk'");
}

static int64_t events_of(struct bench *b, const char *type)
{
	char sql[128];

	snprintf(sql, sizeof sql, "SELECT count(*) FROM ota_events WHERE event_type='%s'", type);
	return row_int(b, sql);
}

/* The service's time from now on; whoever asks for it gets it or a little more. */
static int64_t pass(int64_t us)
{
	clock_service_not_before(clock_service_us() + us);
	return clock_service_us();
}

static struct conductor *conductor(struct bench *b)
{
	struct conductor *k = conductor_new(b->fleet, b->c);

	assert_non_null(k);
	return k;
}

/* --- a month --- */

static void a_month(void **state)
{
	static const struct stage stages[] = {{10, 7 * 86400, -1, false},
					      {25, 7 * 86400, -1, false},
					      {50, 7 * 86400, -1, true},
					      {100, 7 * 86400, -1, false}};
	struct bench *b = *state;
	struct crowd w = {.count = DEVICES, .bad_from = DEVICES};
	struct rollout_new n = staged(stages, 4);
	struct conductor *k;
	int stage = 1, reached[5] = {0};

	look_in(b, &w);
	int64_t id = make(b, &n), began_us = clock_service_us(), since_us = began_us, now_us = 0;
	k = conductor(b);
	for (int hour = 0; hour < 40 * 24 && strncmp(state_of(b), "completed", 9) != 0; hour++) {
		if (hour % 6 == 0)
			look_in(b, &w);
		now_us = pass(HOUR_US);
		conductor_tick(k, now_us);
		int is = (int)row_int(b, "SELECT stage FROM rollout_configurations");
		if (is != stage) {
			assert_int_equal(is, stage + 1);
			assert_true(now_us - since_us >= 7 * DAY_US);
			assert_true(now_us - since_us < 7 * DAY_US + 3 * HOUR_US || is == 4);
			stage = is;
			since_us = now_us;
		}
		reached[stage] = updated(&w);
		/* A restart in the middle: the stage goes on where it was. */
		if (hour == 10 * 24) {
			conductor_free(&k);
			bench_restart(b);
			k = conductor(b);
		}
		/* Whoever is to approve comes on the 25th day. */
		if (hour == 25 * 24) {
			assert_string_equal(state_of(b), "running 3 50 1");
			assert_int_equal(event(b, id, ROLLOUT_APPROVE), OTA_OK);
		}
	}
	assert_string_equal(state_of(b), "completed 4 100 1");
	assert_true(now_us - began_us > 28 * DAY_US);
	/* Each stage reached more devices than the one before, and the last one all. */
	assert_true(reached[1] > 0 && reached[1] < reached[2] && reached[2] < reached[3]);
	assert_true(reached[3] < DEVICES);
	assert_int_equal(updated(&w), DEVICES);
	assert_int_equal(events_of(b, "rollout_stage"), 3);
	assert_int_equal(events_of(b, "rollout_approved"), 1);
	assert_int_equal(events_of(b, "rollout_completed"), 1);
	assert_int_equal(row_int(b, "SELECT count(*) FROM ota_events WHERE"
				    " event_type='rollout_stage' AND created_by='conductor'"
				    " AND json_extract(event_data,'$.reason') <> ''"),
			 3);
	/* It is done with it: a latecomer is offered the release all the same. */
	assert_int_equal(conductor_tick(k, now_us), INT64_MAX);
	assert_true(ask(b, "latecomer", "1.0.0").offered);
	conductor_free(&k);
	bench_restart(b);
}

/* Too few prove it: it waits where it is, however long. */
static void a_bad_release_stays_small(void **state)
{
	static const struct stage stages[] = {{10, 60, -1, false}, {100, 0, -1, false}};
	struct bench *b = *state;
	struct crowd w = {.count = DEVICES, .bad_from = 0};
	struct rollout_new n = staged(stages, 2);
	struct conductor *k;

	look_in(b, &w);
	make(b, &n);
	k = conductor(b);
	for (int hour = 0; hour < 24 * 20; hour++) {
		if (hour % 12 == 0)
			look_in(b, &w);
		conductor_tick(k, pass(HOUR_US));
	}
	assert_string_equal(state_of(b), "running 1 10 1");
	assert_true(row_int(b, "SELECT count(DISTINCT device_id) FROM device_update_status") < 20);
	conductor_free(&k);
}

/* The time of a stage is not the fleet's: with nobody there, nothing is proven. */
static void an_empty_fleet_does_not_walk(void **state)
{
	static const struct stage stages[] = {{10, 1, -1, false}, {100, 0, -1, false}};
	struct bench *b = *state;
	struct rollout_new n = staged(stages, 2);

	make(b, &n);
	struct conductor *k = conductor(b);
	conductor_tick(k, pass(DAY_US));
	assert_string_equal(state_of(b), "running 1 10 1");
	conductor_free(&k);
}

static void its_time(void **state)
{
	static const struct stage stages[] = {{100, 0, 0, false}};
	struct bench *b = *state;
	struct rollout_new n = staged(stages, 1);
	struct conductor *k;

	n.not_before_us = clock_service_us() + 3 * HOUR_US;
	n.deadline_us = n.not_before_us + 5 * HOUR_US;
	int64_t id = make(b, &n);
	assert_string_equal(state_of(b), "scheduled 1 100 0");
	assert_false(ask(b, "d1", "1.0.0").offered);
	/* It is going to use the release: that stays. */
	assert_int_equal(delete_release(b, "2.0.0"), OTA_ECONFLICT);
	k = conductor(b);
	assert_int_equal(conductor_tick(k, clock_service_us()), n.not_before_us);
	bench_restart(b);
	conductor_free(&k);
	k = conductor(b);
	assert_int_equal(conductor_tick(k, clock_service_us()), n.not_before_us);
	conductor_tick(k, pass(4 * HOUR_US));
	assert_string_equal(state_of(b), "running 1 100 1");
	conductor_tick(k, pass(US_PER_S));
	assert_string_equal(state_of(b), "completed 1 100 1"); /* no proof was asked for */
	assert_int_equal(events_of(b, "rollout_started"), 1);
	assert_true(ask(b, "d1", "1.0.0").offered);
	conductor_tick(k, pass(5 * HOUR_US));
	assert_string_equal(state_of(b), "paused 1 100 0");
	assert_string_equal(row_text(b, "SELECT state_reason FROM rollout_configurations"),
			    "its deadline has passed");
	assert_false(ask(b, "d1", "1.0.0").offered);
	assert_int_equal(event(b, id, ROLLOUT_RESUME), OTA_ECONFLICT);
	conductor_free(&k);
	bench_restart(b);
	/* A deadline that has passed makes no rollout. */
	struct command cmd;
	n.name = "late";
	n.deadline_us = clock_service_us() - 1;
	assert_int_equal(roll_out_as(b, &n, &cmd), OTA_EUNPROCESSABLE);
}

/* What the store did not take is due still, and done when it takes it. */
static void an_ill_store(void **state)
{
	static const struct stage stages[] = {{10, 60, 0, false}, {100, 86400, -1, false}};
	struct bench *b = *state;
	struct rollout_new n = staged(stages, 2);

	make(b, &n);
	struct conductor *k = conductor(b);
	atomic_store(&failures_in_all, 1);
	atomic_store(&commits_until_failure, 1);
	int64_t now_us = pass(60 * US_PER_S);
	int64_t again_us = conductor_tick(k, now_us);
	assert_string_equal(state_of(b), "running 1 10 1");
	assert_int_equal(fleet_rollout(b->fleet, 1)->walk.stage, 0);
	assert_true(again_us <= now_us + US_PER_S);
	conductor_tick(k, pass(US_PER_S));
	assert_string_equal(state_of(b), "running 2 100 1");
	assert_int_equal(events_of(b, "rollout_stage"), 1);
	conductor_free(&k);
	bench_restart(b);
}

/* --- people --- */

static void commands(void **state)
{
	static const struct stage stages[] = {{10, 86400, -1, true}, {100, 86400, -1, false}};
	struct bench *b = *state;
	struct rollout_new n = staged(stages, 2);
	struct command cmd;
	int64_t id = make(b, &n);

	assert_int_equal(event(b, 77, ROLLOUT_PAUSE), OTA_ENOTFOUND);
	assert_int_equal(event(b, id, ROLLOUT_PAUSE), OTA_OK);
	assert_string_equal(state_of(b), "paused 1 10 0");
	bench_restart(b);
	assert_int_equal(event_if(b, id, ROLLOUT_PAUSE, 0, &cmd), OTA_OK);
	assert_true(cmd.out.existed && cmd.out.state == ROLLOUT_PAUSED);
	assert_int_equal(events_of(b, "rollout_paused"), 1);
	assert_int_equal(event(b, id, ROLLOUT_PROMOTE), OTA_ECONFLICT);
	assert_int_equal(event(b, id, ROLLOUT_RESUME), OTA_OK);
	assert_int_equal(event(b, id, ROLLOUT_APPROVE), OTA_OK);
	bench_restart(b);
	assert_int_equal(event_if(b, id, ROLLOUT_APPROVE, 1, &cmd), OTA_OK);
	assert_true(cmd.out.existed);
	assert_int_equal(event_if(b, id, ROLLOUT_PROMOTE, 1, &cmd), OTA_OK);
	assert_int_equal(cmd.out.stage, 2);
	assert_string_equal(state_of(b), "running 2 100 1");
	/* What the second one expects is not so any more. */
	assert_int_equal(event_if(b, id, ROLLOUT_PROMOTE, 1, &cmd), OTA_ECONFLICT);
	assert_non_null(strstr(cmd.err.msg, "running in stage 2 of 2"));
	assert_int_equal(event_if(b, id, ROLLOUT_APPROVE, 1, &cmd), OTA_ECONFLICT);
	struct answer a = ask(b, "d1", "1.0.0");
	assert_true(a.offered);
	assert_int_equal(event_if(b, id, ROLLOUT_ABORT, 0, &cmd), OTA_OK);
	assert_int_equal(cmd.out.count, 1);
	assert_int_equal(row_int(b, "SELECT count(*) FROM device_update_status WHERE"
				    " closed='withdrawn' AND closed_why='the rollout was aborted'"),
			 1);
	bench_restart(b);
	assert_int_equal(event(b, id, ROLLOUT_ABORT), OTA_OK);
	assert_int_equal(event(b, id, ROLLOUT_RESUME), OTA_ECONFLICT);
	assert_int_equal(event(b, id, ROLLOUT_PAUSE), OTA_ECONFLICT);
	/* To deactivate what offers nothing is no error, to activate it is. */
	assert_int_equal(set_active(b, id, false), OTA_OK);
	assert_int_equal(set_active(b, id, true), OTA_ECONFLICT);
	assert_string_equal(state_of(b), "aborted 2 100 0");
	assert_int_equal(row_int(b, "SELECT count(*) FROM ota_events WHERE created_by='tester' AND"
				    " event_type LIKE 'rollout_%' AND event_type <>"
				    " 'rollout_updated' AND"
				    " json_extract(event_data,'$.reason')='because'"),
			 5);
	assert_string_equal(row_text(b, "SELECT event_data FROM ota_events WHERE event_type="
					"'rollout_stage'"),
			    "{\"before\":{\"state\":\"running\",\"stage\":1,\"approved\":true},"
			    "\"after\":{\"state\":\"running\",\"stage\":2,\"approved\":false},"
			    "\"reason\":\"because\"}");
}

/* A release found bad sends nothing more: not what waits, not what asks, not what is told. */
static void halted_is_the_end(void **state)
{
	struct bench *b = *state;
	struct rollout_new n = staged(NULL, 0);
	int64_t id = make(b, &n);
	struct answer a = ask(b, "d1", "1.0.0");

	assert_true(a.offered);
	assert_int_equal(event(b, id, ROLLOUT_HALT), OTA_OK);
	assert_string_equal(state_of(b), "halted 1 100 0");
	assert_false(ask(b, "d1", "1.0.0").offered);
	assert_false(ask(b, "d2", "1.0.0").offered);
	bench_restart(b);
	assert_int_equal(set_active(b, id, true), OTA_ECONFLICT);
	assert_int_equal(event(b, id, ROLLOUT_PROMOTE), OTA_ECONFLICT);
	assert_false(ask(b, "d1", "1.0.0").offered);
	struct conductor *k = conductor(b);
	assert_int_equal(conductor_tick(k, pass(90 * DAY_US)), INT64_MAX);
	conductor_free(&k);
	assert_string_equal(state_of(b), "halted 1 100 0");
}

/*
 * People, devices, the conductor and restarts in any order: nothing is offered but by a rollout
 * that may, its share only grows, the rows say what the fleet says, and the log tells each step.
 */
static void any_order(void **state)
{
	static const struct stage stages[] = {
		{10, 0, 0, false}, {30, 600, 1, true}, {60, 600, -1, false}, {100, 600, -1, false}};
	struct bench *b = *state;
	struct crowd w = {.count = 30, .bad_from = 27};
	int64_t ids[12], ended = 0;
	int made = 0, percents[12] = {0};
	char name[16], sql[256];

	random_begin("rollouts");
	assert_int_equal(upload(b, "2.0.0"), OTA_OK);
	look_in(b, &w);
	struct conductor *k = conductor(b);
	for (int step = 0; step < 400; step++) {
		int what = random_below(20);
		if ((what == 0 || made == 0) && made < 12) {
			struct rollout_new n = staged(stages, 4);
			struct command cmd;
			snprintf(name, sizeof name, "r%d", made);
			n.name = name;
			n.active = random_below(4) > 0;
			n.not_before_us = random_below(3) ? 0 : clock_service_us() + 900 * US_PER_S;
			assert_int_equal(roll_out_as(b, &n, &cmd), OTA_OK);
			ids[made++] = cmd.out.id;
		} else if (step == 399) {
			assert_int_equal(event(b, ids[0], ROLLOUT_ABORT), OTA_OK);
		} else if (what < 8 && made > 0) {
			enum rollout_event e = (enum rollout_event)random_below(ROLLOUT_EVENTS);
			/* What ends it all comes seldom, so that there is something to see. */
			if (e >= ROLLOUT_ABORT && e <= ROLLOUT_ROLLBACK && random_below(8))
				e = ROLLOUT_RESUME;
			enum ota_code rc = event(b, ids[random_below(made)], e);
			assert_true(rc == OTA_OK || rc == OTA_ECONFLICT);
		} else if (what < 12) {
			look_in(b, &w);
		} else if (what == 12) {
			conductor_free(&k);
			bench_restart(b);
			k = conductor(b);
		} else {
			conductor_tick(k, pass(random_below(400) * US_PER_S));
		}
		for (int i = 0; i < made; i++) {
			const struct rollout *r = fleet_rollout(b->fleet, ids[i]);
			assert_true(r->target.percent >= percents[i]);
			percents[i] = r->target.percent;
			ended += rollout_state_is_final(r->walk.state);
			snprintf(sql, sizeof sql,
				 "SELECT count(*) FROM device_update_status u WHERE"
				 " u.rollout_id=%lld AND u.closed IS NULL AND u.status='pending'",
				 (long long)ids[i]);
			if (!r->active)
				assert_int_equal(row_int(b, sql), 0);
			snprintf(sql, sizeof sql,
				 "SELECT count(*) FROM rollout_configurations WHERE id=%lld AND"
				 " state='%s' AND stage=%d AND rollout_percentage=%d AND "
				 "is_active=%d",
				 (long long)ids[i], rollout_state_name(r->walk.state),
				 r->walk.stage + 1, r->target.percent, r->active);
			assert_int_equal(row_int(b, sql), 1);
			/* The last word of the log on it. */
			snprintf(sql, sizeof sql,
				 "SELECT coalesce(json_extract(event_data,'$.after.state'),"
				 "json_extract(event_data,'$.state')) FROM ota_events WHERE"
				 " rollout_id=%lld AND event_type LIKE 'rollout_%%' AND"
				 " event_type <> 'rollout_updated' ORDER BY id DESC LIMIT 1",
				 (long long)ids[i]);
			assert_string_equal(row_text(b, sql), rollout_state_name(r->walk.state));
		}
	}
	assert_true(made > 0 && ended > 0);
	conductor_free(&k);
}

static _Atomic int answered;

static void note_answer(struct command *cmd)
{
	(void)cmd;
	answered++;
}

/* Two that cross: exactly one wins, whichever it is, and the other is told. */
static void crossing(void **state)
{
	static const struct stage stages[] = {{10, 0, 0, false}, {100, 86400, -1, false}};
	static const enum rollout_event pairs[][2] = {
		{ROLLOUT_PROMOTE, ROLLOUT_HALT},     {ROLLOUT_HALT, ROLLOUT_PROMOTE},
		{ROLLOUT_PROMOTE, ROLLOUT_PROMOTE},  {ROLLOUT_ABORT, ROLLOUT_STAGE_DONE},
		{ROLLOUT_STAGE_DONE, ROLLOUT_PAUSE},
	};
	struct bench *b = *state;
	char name[16];

	assert_int_equal(upload(b, "2.0.0"), OTA_OK);
	for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
		struct rollout_new n = staged(stages, 2);
		struct command made, cross[2];
		struct ota_err err;

		snprintf(name, sizeof name, "r%zu", i);
		n.name = name;
		assert_int_equal(roll_out_as(b, &n, &made), OTA_OK);
		answered = 0;
		for (int c = 0; c < 2; c++) {
			cross[c] = (struct command){.kind = COMMAND_ROLLOUT_WALK,
						    .done = note_answer,
						    .walk = {.id = made.out.id,
							     .event = pairs[i][c],
							     .expect_states = 1u << ROLLOUT_RUNNING,
							     .expect_stage = 1}};
			assert_int_equal(committer_submit(b->c, &cross[c], &err), OTA_OK);
		}
		committer_barrier(b->c);
		assert_int_equal(answered, 2);
		assert_int_equal(cross[0].code, OTA_OK);
		assert_int_equal(cross[1].code, OTA_ECONFLICT);
		assert_int_equal(cross[1].out.state, cross[0].out.state);
		assert_int_equal(cross[1].out.stage, cross[0].out.stage);
	}
}

/* The highest priority first, then the newest. */
static void priorities(void **state)
{
	struct bench *b = *state;
	struct rollout_new n = rollout_of("first", "2.0.0");
	struct command cmd;

	assert_int_equal(upload(b, "2.0.0"), OTA_OK);
	assert_int_equal(upload(b, "3.0.0"), OTA_OK);
	n.priority = 5;
	assert_int_equal(roll_out_as(b, &n, &cmd), OTA_OK);
	struct rollout_new newer = rollout_of("newer", "3.0.0");
	assert_int_equal(roll_out_as(b, &newer, &cmd), OTA_OK);
	assert_string_equal(ask(b, "d1", "1.0.0").version, "2.0.0");
	bench_restart(b);
	assert_string_equal(ask(b, "d2", "1.0.0").version, "2.0.0");
	newer.name = "newest";
	newer.priority = 5;
	assert_int_equal(roll_out_as(b, &newer, &cmd), OTA_OK);
	assert_string_equal(ask(b, "d3", "1.0.0").version, "3.0.0");
}

/* With nothing due a tick touches no device and no rollout. */
static void nothing_due_costs_nothing(void **state)
{
	static const struct stage stages[] = {{10, 86400, -1, false}, {100, 0, -1, false}};
	struct bench *b = *state;
	struct conductor *k = conductor(b);
	char name[16];

	assert_int_equal(upload(b, "2.0.0"), OTA_OK);
	for (int i = 0; i < 20; i++) {
		struct rollout_new n = staged(stages, 2);
		struct command cmd;
		snprintf(name, sizeof name, "r%d", i);
		n.name = name;
		assert_int_equal(roll_out_as(b, &n, &cmd), OTA_OK);
	}
	int64_t now_us = clock_service_us(), due_us = conductor_tick(k, now_us);
	assert_true(due_us > now_us + 86000 * US_PER_S);
	/* A million ticks before it: the plan is not read again, whoever holds it. */
	for (int i = 0; i < 1000000; i++)
		assert_true(conductor_tick(k, now_us + i) == due_us);
	conductor_free(&k);
}

static void clocks(void **state)
{
	const int64_t now_us = clock_service_us();

	(void)state;
	assert_true(conductor_trusts(now_us, now_us));
	assert_true(conductor_trusts(now_us - 30 * US_PER_S, now_us)); /* a step back by NTP */
	assert_true(conductor_trusts(now_us + 86400 * US_PER_S, now_us));
	assert_false(conductor_trusts(now_us - DAY_US, now_us)); /* a day back */
	assert_false(conductor_trusts(0, 0));                    /* 1970 */
	assert_false(conductor_trusts(INT64_C(1700000000) * US_PER_S, 0));
}

/* It starts, leads, and ends.  Before tests that leave the wall clock behind: then it would wait.
 */
static void the_thread(void **state)
{
	static const struct stage stages[] = {{10, 0, 0, false}, {100, 0, 0, false}};
	struct bench *b = *state;
	struct rollout_new n = staged(stages, 2);
	struct conductor *k = NULL;
	struct ota_err err;
	int waited_ms = 0;

	assert_int_equal(conductor_start(b->fleet, b->c, NULL, &k, &err), OTA_OK);
	make(b, &n);
	for (; strcmp(state_of(b), "completed 2 100 1") != 0 && waited_ms < 20000; waited_ms += 10)
		usleep(10000);
	assert_string_equal(state_of(b), "completed 2 100 1");
	conductor_stop(&k);
	assert_null(k);
}

#define T(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(clocks),
		T(the_thread),
		T(commands),
		T(halted_is_the_end),
		T(crossing),
		T(priorities),
		T(a_month),
		T(any_order),
		T(a_bad_release_stays_small),
		T(an_empty_fleet_does_not_walk),
		T(its_time),
		T(an_ill_store),
		T(nothing_due_costs_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
