/* SPDX-License-Identifier: MIT */
/*
 * What a rollout gave is taken back, on the real committer, store and conductor: by a halt, and by
 * a person.
 */
#include "commit_bench.h"

#include "conductor/conductor.h"

static int begin(void **state)
{
	static struct bench b;

	b = bench_new();
	b.cfg.poll_interval_s = 300;
	bench_open(&b);
	*state = &b;
	return 0;
}

static int end(void **state)
{
	bench_end(*state);
	return 0;
}

static struct rollout_new walk_of(const char *name, const char *version)
{
	static const struct stage all = {100, 0, -1, false};
	struct rollout_new n = rollout_of(name, version);

	n.guard = (struct guard){.params = gate_params_default(), .bounded = true};
	n.stages = &all;
	n.stage_count = 1;
	return n;
}

static int64_t start(struct bench *b, const struct rollout_new *n)
{
	struct command cmd;

	if (roll_out_as(b, n, &cmd) != OTA_OK)
		fail_msg("%s", cmd.err.msg);
	return cmd.out.id;
}

static enum ota_code lead(struct bench *b, int64_t id, enum rollout_event event,
			  struct command *cmd)
{
	*cmd = (struct command){
		.kind = COMMAND_ROLLOUT_WALK,
		.by = "ann",
		.walk = {.id = id, .event = event, .reason = "it smells"},
	};
	return committer_run(b->c, cmd);
}

/* It runs FROM and takes what it is offered, which must be TO. */
static void takes(struct bench *b, const char *id, const char *from, const char *to)
{
	struct answer a = ask(b, id, from);

	if (!a.offered)
		fail_msg("%s on %s is offered nothing: %s", id, from, reason_name(a.reason));
	assert_string_equal(a.version, to);
	assert_int_equal(fetch(b, a.token, false), OTA_OK);
	assert_int_equal(tell(b, id, to, "installing", -1, a.token, NULL), OTA_OK);
	assert_int_equal(tell(b, id, to, "success", -1, a.token, NULL), OTA_OK);
	(void)ask(b, id, to);
}

static bool fails(struct bench *b, const char *id, const char *from, const char *to)
{
	struct answer a = ask(b, id, from);
	struct command cmd = {.kind = COMMAND_REPORT};

	if (!a.offered)
		return false;
	assert_string_equal(a.version, to);
	cmd.report = (struct report){.device_id = id,
				     .version = to,
				     .attempt_token = a.token,
				     .percent = -1,
				     .code = 4,
				     .event = attempt_event_from_status("failed")};
	assert_int_equal(fetch(b, a.token, false), OTA_OK);
	assert_int_equal(committer_run(b->c, &cmd), OTA_OK);
	return true;
}

static const char *id_of(char out[16], const char *what, int i)
{
	snprintf(out, 16, "%s%d", what, i);
	return out;
}

static const char *state_of(struct bench *b, int64_t id)
{
	char sql[100];

	snprintf(sql, sizeof sql, "SELECT state FROM rollout_configurations WHERE id=%lld",
		 (long long)id);
	return row_text(b, sql);
}

static int64_t taken_back_by(struct bench *b, int64_t id, const char *version)
{
	char sql[300];

	snprintf(sql, sizeof sql,
		 "SELECT id FROM rollout_configurations WHERE firmware_version='%s' AND"
		 " json_extract(metadata,'$.rolls_back.rollout_id')=%lld ORDER BY id DESC",
		 version, (long long)id);
	return row_int(b, sql);
}

/* Fails until it is halted. */
static int halt(struct bench *b, int64_t id, const char *from, const char *to)
{
	char name[16];
	int n = 0;

	while (n < 20 && strcmp(state_of(b, id), "halted") != 0 &&
	       fails(b, id_of(name, "bad", n), from, to))
		n++;
	assert_string_equal(state_of(b, id), "halted");
	return n;
}

static void wait_s(struct bench *b, struct conductor *k, int64_t s)
{
	for (int64_t i = 0; i < s; i += 30) {
		clock_service_not_before(clock_service_us() + 30 * US_PER_S);
		conductor_tick(k, clock_service_us());
		(void)same_counts(b);
	}
}

/* The devices of a halted release are brought back, two first, and that is watched too. */
static void a_halt_takes_back(void **state)
{
	struct bench *b = *state;
	struct conductor *k = conductor_new(b->fleet, b->c);
	struct rollout_new n = walk_of("walk", "2.0.0");
	char name[16];

	assert_int_equal(upload(b, "1.0.0"), OTA_OK);
	assert_int_equal(upload(b, "2.0.0"), OTA_OK);
	n.guard.bounded = false;
	n.stage_count = 0;
	n.rolls_back = true;
	int64_t id = start(b, &n);
	for (int i = 0; i < 5; i++)
		takes(b, id_of(name, "dev", i), "1.0.0", "2.0.0");
	halt(b, id, "1.0.0", "2.0.0");
	int64_t back = taken_back_by(b, id, "1.0.0");
	assert_true(back > id);
	/* Made by the gate, in the breath of the halt. */
	assert_int_equal(row_int(b, "SELECT count(DISTINCT created_at) FROM ota_events WHERE"
				    " event_type IN ('rollout_halted', 'rollout_taken_back') OR"
				    " (event_type = 'rollout_created' AND created_by = 'gate')"),
			 1);
	assert_string_equal(row_text(b, "SELECT name || ' ' || created_by FROM"
					" rollout_configurations ORDER BY id DESC"),
			    "walk-back-to-1.0.0 gate");
	/* Whoever runs something else has nothing to do with it. */
	assert_int_equal(ask(b, "bad0", "1.0.0").reason, REASON_HALTED);
	assert_false(ask(b, "new", "0.9.0").offered);
	bench_restart(b);
	conductor_free(&k);
	k = conductor_new(b->fleet, b->c);
	/* Two at first, downgrade or not. */
	takes(b, "dev0", "2.0.0", "1.0.0");
	takes(b, "dev1", "2.0.0", "1.0.0");
	assert_int_equal(ask(b, "dev2", "2.0.0").reason, REASON_NO_PLACE);
	bench_restart(b);
	conductor_free(&k);
	k = conductor_new(b->fleet, b->c);
	assert_int_equal(ask(b, "dev2", "2.0.0").reason, REASON_NO_PLACE);
	/* They are back, and stay. */
	wait_s(b, k, 330);
	for (int i = 0; i < 2; i++)
		assert_false(ask(b, id_of(name, "dev", i), "1.0.0").offered);
	wait_s(b, k, 330);
	for (int i = 0; i < 2; i++)
		assert_false(ask(b, id_of(name, "dev", i), "1.0.0").offered);
	wait_s(b, k, 60);
	for (int i = 2; i < 5; i++)
		takes(b, id_of(name, "dev", i), "2.0.0", "1.0.0");
	for (int t = 0; t < 3; t++) {
		wait_s(b, k, 330);
		for (int i = 0; i < 5; i++)
			assert_false(ask(b, id_of(name, "dev", i), "1.0.0").offered);
	}
	wait_s(b, k, 180);
	assert_string_equal(state_of(b, back), "completed");
	/* A latecomer, that was out of reach until now, too. */
	struct answer a = ask(b, "late", "2.0.0");
	assert_true(a.offered);
	assert_string_equal(a.version, "1.0.0");
	conductor_free(&k);
	bench_restart(b);
}

/* That the older release fails on these devices halts the way back, and it alone. */
static void the_way_back_halts_too(void **state)
{
	struct bench *b = *state;
	struct rollout_new n = walk_of("walk", "2.0.0");
	char name[16];
	int failed = 0;

	assert_int_equal(upload(b, "1.0.0"), OTA_OK);
	assert_int_equal(upload(b, "2.0.0"), OTA_OK);
	n.guard.bounded = false;
	n.stage_count = 0;
	n.rolls_back = true;
	int64_t id = start(b, &n);
	for (int i = 0; i < 9; i++)
		takes(b, id_of(name, "dev", i), "1.0.0", "2.0.0");
	halt(b, id, "1.0.0", "2.0.0");
	int64_t back = taken_back_by(b, id, "1.0.0");
	for (int i = 0; i < 9; i++)
		failed += fails(b, id_of(name, "dev", i), "2.0.0", "1.0.0");
	assert_in_range(failed, 2, 3);
	assert_string_equal(state_of(b, back), "halted");
	assert_int_equal(row_int(b, "SELECT count(*) FROM rollout_configurations"), 2);
	assert_int_equal(row_int(b, "SELECT suspect_at IS NULL FROM firmware_releases WHERE"
				    " version='1.0.0'"),
			 1);
	bench_restart(b);
	assert_false(ask(b, "dev8", "2.0.0").offered);
}

/* Each to what it ran before; whose past nobody knows to the release before. */
static void each_to_its_own(void **state)
{
	struct bench *b = *state;
	struct rollout_new n = walk_of("walk", "2.0.0");
	struct command cmd;

	for (int i = 0; i < 4; i++)
		assert_int_equal(upload(b, (const char *[]){"1.0.0", "1.1.0", "1.2.0", "2.0.0"}[i]),
				 OTA_OK);
	n.guard.off = true;
	n.guard.bounded = false;
	int64_t id = start(b, &n);
	takes(b, "one", "1.0.0", "2.0.0");
	takes(b, "two", "1.0.0", "2.0.0");
	takes(b, "three", "1.1.0", "2.0.0");
	takes(b, "odd", "0.5.0", "2.0.0"); /* which was never uploaded */
	assert_false(ask(b, "unknown", "2.0.0").offered);
	assert_int_equal(lead(b, id, ROLLOUT_ROLLBACK, &cmd), OTA_OK);
	assert_int_equal(cmd.out.state, ROLLOUT_ABORTED);
	assert_int_equal(cmd.out.back_id, taken_back_by(b, id, "1.2.0"));
	assert_int_equal(row_int(b, "SELECT count(*) FROM rollout_configurations"), 4);
	assert_string_equal(
		row_text(b, "SELECT created_by || ' ' || json_extract(event_data,'$.versions[0]')"
			    " || ' ' || json_extract(event_data,'$.reason') FROM ota_events"
			    " WHERE event_type='rollout_taken_back'"),
		"ann 1.2.0 it smells");
	bench_restart(b);
	takes(b, "one", "2.0.0", "1.0.0");
	takes(b, "two", "2.0.0", "1.0.0");
	takes(b, "three", "2.0.0", "1.1.0");
	takes(b, "odd", "2.0.0", "1.2.0");
	takes(b, "unknown", "2.0.0", "1.2.0");
	/* Not twice; and it is not itself taken back. */
	assert_int_equal(lead(b, id, ROLLOUT_ROLLBACK, &cmd), OTA_ECONFLICT);
	assert_int_equal(lead(b, taken_back_by(b, id, "1.0.0"), ROLLOUT_ROLLBACK, &cmd),
			 OTA_ECONFLICT);
	assert_non_null(strstr(cmd.err.msg, "takes a release back itself"));
}

/* Another rollout of the release goes on: it offers nothing to those that were brought back. */
static void nobody_goes_to_and_fro(void **state)
{
	struct bench *b = *state;
	struct rollout_new n = walk_of("first", "2.0.0"), other = walk_of("other", "2.0.0");
	struct command cmd;

	assert_int_equal(upload(b, "1.0.0"), OTA_OK);
	assert_int_equal(upload(b, "2.0.0"), OTA_OK);
	int64_t id = start(b, &n);
	start(b, &other);
	takes(b, "dev", "1.0.0", "2.0.0");
	assert_int_equal(lead(b, id, ROLLOUT_ROLLBACK, &cmd), OTA_OK);
	takes(b, "dev", "2.0.0", "1.0.0");
	assert_int_equal(ask(b, "dev", "1.0.0").reason, REASON_TAKEN_BACK);
	bench_restart(b);
	assert_int_equal(ask(b, "dev", "1.0.0").reason, REASON_TAKEN_BACK);
	/* Until somebody ends the way back. */
	assert_int_equal(lead(b, cmd.out.back_id, ROLLOUT_ABORT, &cmd), OTA_OK);
	assert_true(ask(b, "dev", "1.0.0").offered);
}

/* Nothing to go back to: a halt halts all the same, a person is told. */
static void nothing_before(void **state)
{
	struct bench *b = *state;
	struct rollout_new n = walk_of("walk", "2.0.0");
	struct command cmd;

	assert_int_equal(upload(b, "2.0.0"), OTA_OK);
	n.rolls_back = true;
	int64_t id = start(b, &n);
	assert_int_equal(lead(b, id, ROLLOUT_ROLLBACK, &cmd), OTA_ECONFLICT);
	assert_non_null(strstr(cmd.err.msg, "no release of model"));
	assert_string_equal(state_of(b, id), "running");
	halt(b, id, "1.0.0", "2.0.0");
	assert_string_equal(row_text(b, "SELECT json_extract(event_data,'$.detail') FROM ota_events"
					" WHERE event_type='rollout_taken_back'"),
			    "there is no release to go back to");
	/* What is uploaded later is no release before. */
	assert_int_equal(upload(b, "3.0.0"), OTA_OK);
	assert_int_equal(lead(b, id, ROLLOUT_ROLLBACK, &cmd), OTA_ECONFLICT);
	assert_string_equal(state_of(b, id), "halted");
}

/* What is being installed at the halt runs to its end, and is brought back then. */
static void what_is_under_way_comes_back(void **state)
{
	struct bench *b = *state;
	struct rollout_new n = walk_of("walk", "2.0.0");

	assert_int_equal(upload(b, "1.0.0"), OTA_OK);
	assert_int_equal(upload(b, "2.0.0"), OTA_OK);
	n.guard.bounded = false;
	n.stage_count = 0;
	n.rolls_back = true;
	int64_t id = start(b, &n);
	struct answer a = ask(b, "slow", "1.0.0");
	assert_int_equal(fetch(b, a.token, false), OTA_OK);
	assert_int_equal(tell(b, "slow", "2.0.0", "installing", -1, a.token, NULL), OTA_OK);
	halt(b, id, "1.0.0", "2.0.0");
	assert_int_equal(ask(b, "slow", "1.0.0").reason, REASON_INSTALLING);
	assert_int_equal(tell(b, "slow", "2.0.0", "success", -1, a.token, NULL), OTA_OK);
	takes(b, "slow", "2.0.0", "1.0.0");
	assert_int_equal(ask(b, "slow", "1.0.0").reason, REASON_HALTED);
}

/* Long names that begin alike are cut alike, and both ways back are made in one breath. */
static void names_that_begin_alike(void **state)
{
	struct bench *b = *state;
	char first[180], other[180];
	int64_t ids[2];

	memset(first, 'n', sizeof first);
	memset(other, 'n', sizeof other);
	memcpy(first + 170, "-1", 3);
	memcpy(other + 170, "-2", 3);
	assert_int_equal(upload(b, "1.0.0"), OTA_OK);
	assert_int_equal(upload(b, "2.0.0"), OTA_OK);
	for (int i = 0; i < 2; i++) {
		struct rollout_new n = walk_of(i ? other : first, "2.0.0");
		n.guard.bounded = false;
		n.stage_count = 0;
		n.rolls_back = true;
		ids[i] = start(b, &n);
	}
	halt(b, ids[0], "1.0.0", "2.0.0");
	assert_string_equal(state_of(b, ids[1]), "halted");
	for (int i = 0; i < 2; i++)
		assert_true(taken_back_by(b, ids[i], "1.0.0") > ids[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_halt_takes_back, begin, end),
		cmocka_unit_test_setup_teardown(the_way_back_halts_too, begin, end),
		cmocka_unit_test_setup_teardown(each_to_its_own, begin, end),
		cmocka_unit_test_setup_teardown(nobody_goes_to_and_fro, begin, end),
		cmocka_unit_test_setup_teardown(nothing_before, begin, end),
		cmocka_unit_test_setup_teardown(what_is_under_way_comes_back, begin, end),
		cmocka_unit_test_setup_teardown(names_that_begin_alike, begin, end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
