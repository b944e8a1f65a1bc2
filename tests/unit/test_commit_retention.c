/* SPDX-License-Identifier: MIT */
/*
 * A release gives up its history on the real committer: only when all its rollouts are over and
 * quiet, and if something has begun since it was chosen, not at all; and what is in memory then is
 * what a restart finds.
 */
#include "commit_bench.h"

#define DAY_US (INT64_C(86400) * US_PER_S)

static int begin(void **state)
{
	static struct bench b;

	b = bench_new();
	bench_open(&b);
	*state = &b;
	return 0;
}

static int end(void **state)
{
	bench_end(*state);
	return 0;
}

static enum ota_code walk(struct bench *b, int64_t id, enum rollout_event event)
{
	struct command cmd = {.kind = COMMAND_ROLLOUT_WALK, .by = "test"};

	cmd.walk.id = id;
	cmd.walk.event = event;
	cmd.walk.reason = "because";
	return committer_run(b->c, &cmd);
}

static const struct release *release(struct bench *b)
{
	return fleet_release(b->fleet, row_int(b, "SELECT id FROM firmware_releases"));
}

/* As a pass does it: what was quiet before DAYS ago goes. */
static void give_up(struct bench *b, int days)
{
	struct command cmd = {.kind = COMMAND_PRUNE};

	cmd.prune.release = release(b);
	cmd.prune.before_us = clock_service_us() - days * DAY_US;
	assert_int_equal(committer_run(b->c, &cmd), OTA_OK);
}

static int64_t pruned(struct bench *b)
{
	return row_int(b,
		       "SELECT count(*) FROM rollout_configurations WHERE pruned_at IS NOT NULL");
}

static int64_t try_once(struct bench *b, const char *name)
{
	struct rollout_new n = rollout_of(name, "2.0.0");
	struct command cmd;

	n.guard = (struct guard){.params = gate_params_default()};
	if (roll_out_as(b, &n, &cmd) != OTA_OK)
		fail_msg("%s", cmd.err.msg);
	return cmd.out.id;
}

/* A device takes the release and fails it: evidence. */
static void fails(struct bench *b, const char *id)
{
	struct answer a = ask(b, id, "1.0.0");

	assert_true(a.offered);
	assert_int_equal(fetch(b, a.token, false), OTA_OK);
	assert_int_equal(tell(b, id, "2.0.0", "installing", -1, a.token, NULL), OTA_OK);
	assert_int_equal(tell(b, id, "2.0.0", "rolled_back", -1, a.token, NULL), OTA_OK);
}

static void only_what_is_over_and_quiet(void **state)
{
	struct bench *b = *state;

	assert_int_equal(upload(b, "2.0.0"), OTA_OK);
	int64_t first = try_once(b, "first");
	fails(b, "a");
	clock_service_not_before(clock_service_us() + 500 * DAY_US);
	give_up(b, 400); /* it runs */
	assert_int_equal(pruned(b), 0);
	assert_int_equal(walk(b, first, ROLLOUT_ABORT), OTA_OK);
	give_up(b, 400); /* it is over since today */
	assert_int_equal(pruned(b), 0);
	assert_int_equal(
		row_int(b, "SELECT count(*) FROM ota_events WHERE event_type='device_failed'"), 1);
	assert_non_null(b->c->gates.first);
	clock_service_not_before(clock_service_us() + 401 * DAY_US);
	/* Another one of the release began since it was chosen. */
	int64_t second = try_once(b, "second");
	give_up(b, 400);
	assert_int_equal(pruned(b), 0);
	bench_restart(b);
	assert_int_equal(walk(b, second, ROLLOUT_ABORT), OTA_OK);
	clock_service_not_before(clock_service_us() + 401 * DAY_US);
	give_up(b, 400);
	assert_int_equal(pruned(b), 2);
	assert_null(b->c->gates.first);
	bench_restart(b);
	give_up(b, 400); /* there is nothing left to give up */
	assert_int_equal(pruned(b), 2);
}

/* Whoever rolls it out again begins without evidence, now and after a restart; the marks of the old
 * ones stay theirs. */
static void begins_anew(void **state)
{
	struct bench *b = *state;

	assert_int_equal(upload(b, "2.0.0"), OTA_OK);
	int64_t first = try_once(b, "first");
	fails(b, "a");
	assert_int_equal(walk(b, first, ROLLOUT_ABORT), OTA_OK);
	clock_service_not_before(clock_service_us() + 401 * DAY_US);
	give_up(b, 400);
	assert_int_equal(pruned(b), 1);
	try_once(b, "again");
	fails(b, "b");
	assert_int_equal(b->c->gates.first->gate.line.failed, 1);
	assert_int_equal(b->c->gates.first->count, 1);
	bench_restart(b); /* the same gate, from the events of the new one alone */
	assert_int_equal(b->c->gates.first->gate.line.failed, 1);
	assert_int_equal(pruned(b), 1);
	/* And is given up with it when it is over, too. */
	assert_int_equal(
		walk(b, row_int(b, "SELECT max(id) FROM rollout_configurations"), ROLLOUT_ABORT),
		OTA_OK);
	clock_service_not_before(clock_service_us() + 401 * DAY_US);
	give_up(b, 400);
	assert_int_equal(pruned(b), 2);
	bench_restart(b);
}

/* Rows, by the command that a pass makes. */
static void rows_go_with_their_rollout(void **state)
{
	struct bench *b = *state;
	struct command cmd = {.kind = COMMAND_PRUNE};

	assert_int_equal(upload(b, "2.0.0"), OTA_OK);
	int64_t first = try_once(b, "first");
	fails(b, "a");
	assert_int_equal(walk(b, first, ROLLOUT_ABORT), OTA_OK);
	const char *of_it = "SELECT count(*) FROM ota_events WHERE rollout_id IS NOT NULL";
	int64_t had = row_int(b, of_it);
	clock_service_not_before(clock_service_us() + 401 * DAY_US);
	for (int round = 0; round < 2; round++) {
		cmd.prune.what = PRUNE_EVENTS;
		cmd.prune.after_id = 0;
		cmd.prune.upto_id = 1000;
		cmd.prune.before_us = clock_service_us() - 400 * DAY_US;
		assert_int_equal(committer_run(b->c, &cmd), OTA_OK);
		/* Not before its release gave them up; the newest row of all stays. */
		assert_true(round == 0 ? row_int(b, of_it) == had : row_int(b, of_it) <= 1);
		give_up(b, 400);
	}
	bench_restart(b);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)
	const struct CMUnitTest tests[] = {
		T(only_what_is_over_and_quiet),
		T(begins_anew),
		T(rows_go_with_their_rollout),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
