/* SPDX-License-Identifier: MIT */
/*
 * Rollouts with a gate on the real committer, store and conductor: fleets that take a release and
 * do well, brick, fall silent, each by the clock, which is an argument.
 */
#include "gate_world.h"

#include "failing_store.h"

static void halts(struct bench *b, enum fate fate, const struct stage *stages, size_t count,
		  int most)
{
	struct world w = world_of(b, DEVICES);
	struct rollout_new n = watched("walk", stages, count);
	const char *reason = "SELECT state_reason FROM rollout_configurations";

	all_are(&w, fate);
	make(b, &n);
	for (int i = 0; i < 48 && strncmp(state_of(b), "halted", 6) != 0; i++) {
		pass(&w, HOUR_US / 2);
		if (i == 0)
			restart(&w);
	}
	assert_string_equal(state_of(b), "halted 1");
	assert_in_range(harmed(&w), 2, most);
	assert_non_null(strstr(row_text(b, reason), "failed"));
	assert_non_null(strstr(row_text(b, reason), "halted at 125"));
	nothing_after_the_halt(b);
	assert_int_equal(row_int(b, "SELECT suspect_at IS NOT NULL FROM firmware_releases"), 1);
	/* Whoever asks is told why. */
	int offers = w.offers;
	struct answer a = ask(b, "somebody", "1.0.0");
	assert_false(a.offered);
	assert_int_equal(a.reason, REASON_HALTED);
	pass(&w, HOUR_US);
	restart(&w);
	pass(&w, HOUR_US);
	assert_int_equal(w.offers, offers);
	/* Again only by somebody who says so. */
	struct command cmd;
	n.name = "again";
	assert_int_equal(roll_out_as(b, &n, &cmd), OTA_ECONFLICT);
	assert_non_null(strstr(cmd.err.msg, "override_suspect"));
	n.override_suspect = true;
	n.reason = "the power supply was at fault";
	assert_int_equal(roll_out_as(b, &n, &cmd), OTA_OK);
	assert_int_equal(row_int(b, "SELECT suspect_at IS NULL FROM firmware_releases"), 1);
	assert_int_equal(events_of(b, "gate_overridden"), 1);
	restart(&w);
	all_are(&w, WELL);
	pass(&w, HOUR_US);
	assert_true(w.offers > offers && updated(&w) > 0);
	world_end(&w);
}

static void bricks_loudly(void **state)
{
	halts(*state, LOUD, two, 2, 3);
}

static void bricks_silently(void **state)
{
	halts(*state, BRICKS, two, 2, 3);
}

static void is_rolled_back(void **state)
{
	halts(*state, BACK, two, 2, 3);
}

static void boots_again_and_again(void **state)
{
	halts(*state, LOOPS, two, 2, 3);
}

/* Everyone at once, as without stages: watched, and halted, but nobody waits for a place. */
static void without_stages_it_is_watched(void **state)
{
	struct bench *b = *state;
	struct world w = world_of(b, 40);
	struct rollout_new n = watched("walk", NULL, 0);

	all_are(&w, LOUD);
	make(b, &n);
	pass(&w, 120 * US_PER_S);
	assert_string_equal(state_of(b), "halted 1");
	assert_true(w.offers > 3);
	nothing_after_the_halt(b);
	world_end(&w);
}

static void off_is_off(void **state)
{
	struct bench *b = *state;
	struct world w = world_of(b, 20);
	struct rollout_new n = watched("walk", two, 2);

	n.guard = (struct guard){.off = true, .params = gate_params_default()};
	all_are(&w, LOUD);
	make(b, &n);
	pass(&w, HOUR_US);
	assert_string_equal(state_of(b), "running 1");
	assert_int_equal(events_of(b, "device_exposed"), 0);
	world_end(&w);
}

/* --- a good one --- */

static void walks_to_all(void **state)
{
	static const struct stage stages[] = {{10, 600, -1, false},
					      {25, 600, -1, false},
					      {50, 600, -1, false},
					      {100, 0, -1, false}};
	struct bench *b = *state;
	struct world w = world_of(b, DEVICES);
	struct rollout_new n = watched("walk", stages, 4);
	int most = 0;

	make(b, &n);
	for (int i = 0; i < 96 && strncmp(state_of(b), "completed", 9) != 0; i++) {
		pass(&w, HOUR_US / 4);
		/* Never more without an outcome than the bound. */
		const struct gate_line *l = &b->c->gates.first->gate.line;
		assert_true(l->unresolved + l->held <= l->bound || l->bound == 2);
		most = (int)l->unresolved > most ? (int)l->unresolved : most;
		if (i % 5 == 2)
			restart(&w);
	}
	assert_string_equal(state_of(b), "completed 4");
	assert_true(most > 2);
	assert_int_equal(events_of(b, "device_failed") + events_of(b, "device_silent"), 0);
	pass(&w, 2 * HOUR_US);
	assert_int_equal(updated(&w), DEVICES);
	assert_int_equal(events_of(b, "device_proven"), DEVICES);
	assert_int_equal(committer_on_trial(b->c), 0);
	world_end(&w);
}

/* The first two only, until they have proven it. */
static void only_so_many(void **state)
{
	struct bench *b = *state;
	struct world w = world_of(b, 20);
	struct rollout_new n = watched("walk", at_once, 1);

	make(b, &n);
	pass(&w, 600 * US_PER_S);
	assert_int_equal(w.offers, 2);
	assert_int_equal(events_of(b, "device_exposed"), 2);
	struct answer a = ask(b, "d019", "1.0.0");
	assert_int_equal(a.reason, REASON_NO_PLACE);
	pass(&w, HOUR_US / 2);
	assert_true(w.offers > 2);
	world_end(&w);
}

/* --- one variant --- */

static void one_variant_is_held_back(void **state)
{
	static const char *const hw[] = {"A", "B", "C", "D", "E", "F", "G", "H", "I", "J"};
	struct bench *b = *state;
	struct world w = world_of(b, DEVICES);
	struct rollout_new n = watched("walk", at_once, 1);

	/* The fault of one of ten shows while the others have proven much. */
	for (int i = 0; i < DEVICES; i++) {
		w.box[i].hw = hw[i % 10];
		w.box[i].fate = i % 10 == 3 ? LOUD : WELL;
		/* Those of the bad one come last. */
		w.box[i].dead = i % 10 == 3;
	}
	make(b, &n);
	pass(&w, 5 * HOUR_US);
	for (int i = 0; i < DEVICES; i++)
		w.box[i].dead = false;
	pass(&w, 5 * HOUR_US);
	restart(&w);
	pass(&w, 5 * HOUR_US);
	assert_true(strncmp(state_of(b), "halted", 6) != 0);
	assert_int_equal(updated(&w), DEVICES - DEVICES / 10);
	assert_in_range(harmed(&w), 2, 4);
	struct answer a = ask_with(b, "another", "1.0.0", (struct told){.hw = "D"});
	assert_int_equal(a.reason, REASON_VARIANT_HELD);
	assert_true(ask_with(b, "one-more", "1.0.0", (struct told){.hw = "A"}).offered);
	assert_int_equal(row_int(b, "SELECT suspect_at IS NULL FROM firmware_releases"), 1);
	world_end(&w);
}

/* --- over MQTT --- */

static const struct via paku = {"paku", TOPIC_FORM_EDGE};

static void is_there(struct bench *b, const char *id, bool online)
{
	struct command cmd = {.kind = COMMAND_STATUS,
			      .status = {.facts = {.device_id = id,
						   .model = online ? MODEL : "",
						   .version = online ? "1.0.0" : "",
						   .hw = ""},
					 .via = paku,
					 .online = online}};

	assert_int_equal(committer_run(b->c, &cmd), OTA_OK);
}

static bool is_told(struct bench *b, const char *id)
{
	struct command cmd = {.kind = COMMAND_DISPATCH, .dispatch = {id}};

	assert_int_equal(committer_run(b->c, &cmd), OTA_OK);
	return cmd.out.send;
}

static void has_image(struct bench *b, const char *id)
{
	struct command cmd = {.kind = COMMAND_REPORT};

	cmd.report = (struct report){.device_id = id,
				     .event = EVENT_REPORT_INSTALLING,
				     .percent = -1,
				     .accepted = true,
				     .via = paku};
	assert_int_equal(committer_run(b->c, &cmd), OTA_OK);
}

/* Ticks until HOURS have passed, or the rollout runs no more.  Those that are told brick. */
static int brick(struct bench *b, struct conductor *k, int count, int hours)
{
	char id[16];
	int bricked = 0;

	for (int64_t t = 0; t < hours * HOUR_US && strncmp(state_of(b), "running", 7) == 0;
	     t += STEP_US) {
		clock_service_not_before(clock_service_us() + STEP_US);
		for (int i = 0; i < count; i++) {
			snprintf(id, sizeof id, "d%03d", i);
			if (!is_told(b, id))
				continue;
			has_image(b, id);
			is_there(b, id, false);
			bricked++;
		}
		conductor_tick(k, clock_service_us());
	}
	return bricked;
}

/* Online for a month without a word: that is no habit of being silent for so long. */
static void quiet_is_not_silent(void **state)
{
	struct bench *b = *state;
	struct rollout_new n = watched("walk", two, 2);
	struct conductor *k = conductor_new(b->fleet, b->c);
	char id[16];

	assert_non_null(k);
	for (int month = 0; month < 2; month++) {
		for (int i = 0; i < 40; i++) {
			snprintf(id, sizeof id, "d%03d", i);
			is_there(b, id, true);
		}
		clock_service_not_before(clock_service_us() + 30 * 24 * HOUR_US);
	}
	make(b, &n);
	assert_in_range(brick(b, k, 40, 2), 2, 3);
	assert_string_equal(state_of(b), "halted 1");
	assert_int_equal(events_of(b, "device_silent"), 2);
	conductor_free(&k);
}

/* A stage waits for four fifths of those that are there, not of those that had something to say. */
static void quiet_is_seen(void **state)
{
	struct bench *b = *state;
	struct rollout_new n = watched("walk", at_once, 1);
	struct conductor *k = conductor_new(b->fleet, b->c);
	struct progress p = {0};
	char id[16];

	assert_non_null(k);
	for (int i = 0; i < 10; i++) {
		snprintf(id, sizeof id, "d%03d", i);
		is_there(b, id, true);
	}
	int64_t rollout_id = make(b, &n);
	for (int day = 0; day < 3; day++) {
		clock_service_not_before(clock_service_us() + 24 * HOUR_US);
		conductor_tick(k, clock_service_us());
		assert_int_equal(same_counts(b), 1);
		progress_count(b->c, rollout_id, clock_service_us(), &p);
		/* One goes on the first day: it is seen for a day more. */
		assert_int_equal(p.facts.seen, day < 2 ? 10 : 9);
		if (day == 0)
			is_there(b, "d004", false);
		assert_int_equal(same_counts(b), 1);
	}
	conductor_free(&k);
}

/* --- an outage --- */

static void an_outage_is_no_failure(void **state)
{
	struct bench *b = *state;
	struct world w = world_of(b, 40);
	struct rollout_new n = watched("walk", at_once, 1);
	int64_t id = make(b, &n);
	struct command cmd;

	pass(&w, 120 * US_PER_S);
	assert_true(w.offers > 0 && w.offers <= 2);
	w.dark = true;
	pass(&w, 6 * HOUR_US);
	assert_string_equal(state_of(b), "paused 1");
	assert_non_null(strstr(row_text(b, "SELECT state_reason FROM rollout_configurations"),
			       "an outage: "));
	assert_int_equal(events_of(b, "device_silent") + events_of(b, "device_failed"), 0);
	w.dark = false;
	pass(&w, HOUR_US);
	assert_int_equal(events_of(b, "device_silent") + events_of(b, "device_failed"), 0);
	cmd = (struct command){.kind = COMMAND_ROLLOUT_WALK,
			       .walk = {.id = id, .event = ROLLOUT_RESUME}};
	assert_int_equal(committer_run(b->c, &cmd), OTA_OK);
	pass(&w, 10 * HOUR_US);
	assert_int_equal(updated(&w), 40);
	assert_int_equal(events_of(b, "device_silent") + events_of(b, "device_failed"), 0);
	world_end(&w);
}

/* Those that have the image come back last: when somebody resumes it, they have their time. */
static void they_come_back_in_turn(void **state)
{
	struct bench *b = *state;
	struct world w = world_of(b, 40);
	struct rollout_new n = watched("walk", at_once, 1);
	struct command cmd = {.kind = COMMAND_ROLLOUT_WALK, .walk = {.event = ROLLOUT_RESUME}};

	cmd.walk.id = make(b, &n);
	while (w.offers == 0)
		pass(&w, STEP_US);
	w.dark = w.dusk = true;
	pass(&w, 2 * HOUR_US);
	assert_string_equal(state_of(b), "paused 1");
	w.dark = false;
	pass(&w, HOUR_US);
	assert_int_equal(committer_run(b->c, &cmd), OTA_OK);
	pass(&w, HOUR_US / 3);
	w.dusk = false;
	pass(&w, 10 * HOUR_US);
	assert_int_equal(updated(&w), 40);
	assert_int_equal(events_of(b, "device_silent") + events_of(b, "device_failed"), 0);
	world_end(&w);
}

/* The service stood still, for a day: nobody was silent. */
static void our_own_absence_is_no_silence(void **state)
{
	struct bench *b = *state;
	struct world w = world_of(b, 20);
	struct rollout_new n = watched("walk", at_once, 1);

	make(b, &n);
	pass(&w, 120 * US_PER_S);
	clock_service_not_before(clock_service_us() + 24 * HOUR_US);
	restart(&w);
	pass(&w, 60 * US_PER_S);
	clock_service_not_before(clock_service_us() + 24 * HOUR_US);
	pass(&w, HOUR_US);
	assert_int_equal(events_of(b, "device_silent"), 0);
	world_end(&w);
}

/* --- what says nothing of it --- */

static void given_back(void **state)
{
	struct bench *b = *state;
	struct rollout_new n = watched("walk", at_once, 1);
	struct box x = {.id = "d1"}, y = {.id = "d2"};
	struct command cmd;

	make(b, &n);
	strcpy(x.token, ask(b, "d1", "1.0.0").token);
	strcpy(y.token, ask(b, "d2", "1.0.0").token);
	assert_int_equal(ask(b, "d3", "1.0.0").reason, REASON_NO_PLACE);
	bench_restart(b);
	/* The download failed: nobody's fault, and its place is free. */
	assert_int_equal(say(b, &x, "failed", 2), OTA_OK);
	assert_int_equal(events_of(b, "device_given_back"), 1);
	assert_true(ask(b, "d3", "1.0.0").offered);
	assert_int_equal(ask(b, "d1", "1.0.0").reason, REASON_RETRY_LATER);
	bench_restart(b);
	/* It slept: its place is another's now, and it may not begin any more. */
	cmd = (struct command){.kind = COMMAND_LAPSE, .lapse = {"d2", INT64_MAX}};
	assert_int_equal(committer_run(b->c, &cmd), OTA_OK);
	assert_true(ask(b, "d4", "1.0.0").offered);
	assert_int_equal(fetch(b, y.token, false), OTA_EGONE);
	assert_int_equal(events_of(b, "device_exposed"), 4);
	bench_restart(b);
	assert_int_equal(delete_device(b, "d4"), OTA_OK);
	assert_int_equal(fetch(b, y.token, false), OTA_OK);
	assert_int_equal(events_of(b, "device_exposed"), 5);
	bench_restart(b);
	/* The whole image was had: that it is quiet now is another matter. */
	cmd = (struct command){.kind = COMMAND_SENT, .sent = {y.token}};
	assert_int_equal(committer_run(b->c, &cmd), OTA_OK);
	assert_int_equal(events_of(b, "device_at_risk"), 1);
	assert_int_equal(committer_run(b->c, &cmd), OTA_OK);
	assert_int_equal(events_of(b, "device_at_risk"), 1);
	assert_int_equal(say(b, &y, "failed", 7), OTA_OK);
	assert_int_equal(events_of(b, "device_failed"), 1);
	bench_restart(b);
}

/* --- the end comes between the outcome and the halt --- */

static void the_halt_is_made_good(void **state)
{
	struct bench *b = *state;
	struct rollout_new n = watched("walk", NULL, 0);
	struct box x[3] = {{.id = "d1"}, {.id = "d2"}, {.id = "d3"}};

	bench_close(b);
	b->wrap = wrap_failing;
	bench_open(b);
	make(b, &n);
	for (int i = 0; i < 3; i++)
		strcpy(x[i].token, ask(b, x[i].id, "1.0.0").token);
	assert_int_equal(say(b, &x[0], "failed", 4), OTA_OK);
	assert_true(ask(b, "d3", "1.0.0").offered);
	/* The outcome is written, and nothing after it. */
	atomic_store(&failures_in_all, -1);
	atomic_store(&commits_until_failure, 2);
	assert_int_equal(say(b, &x[1], "failed", 4), OTA_OK);
	assert_string_equal(state_of(b), "running 1");
	assert_int_equal(events_of(b, "device_failed"), 2);
	/* What was offered before, and what would be, is not now. */
	assert_false(ask(b, "d3", "1.0.0").offered);
	assert_false(ask(b, "d4", "1.0.0").offered);
	bench_close(b);
	atomic_store(&commits_until_failure, 0);
	bench_open(b);
	assert_false(ask(b, "d3", "1.0.0").offered);
	assert_string_equal(state_of(b), "halted 1");
	assert_int_equal(events_of(b, "release_suspect"), 1);
	nothing_after_the_halt(b);
	bench_restart(b);
	b->wrap = NULL;
}

/* --- parameters, and a trial by hand --- */

static void by_hand(void **state)
{
	static const char *const ids[] = {"d1", "d2", "d3"};
	struct bench *b = *state;
	struct rollout_new n = watched("test", NULL, 0);
	struct box x;
	struct command cmd;

	n.type = TARGET_SPECIFIC;
	n.device_ids = ids;
	n.device_id_count = 3;
	make(b, &n);
	for (int i = 0; i < 3; i++) {
		strcpy(x.id, ids[i]);
		struct answer a = ask(b, x.id, "1.0.0");
		if (!a.offered)
			continue;
		strcpy(x.token, a.token);
		assert_int_equal(say(b, &x, "failed", 4), OTA_OK);
	}
	assert_string_equal(state_of(b), "halted 1");
	assert_int_equal(row_int(b, "SELECT suspect_at IS NULL FROM firmware_releases"), 1);
	bench_restart(b);
	/* The release begins with a clean sheet. */
	struct rollout_new all = watched("all", at_once, 1);
	assert_int_equal(roll_out_as(b, &all, &cmd), OTA_OK);
	assert_true(ask(b, "d9", "1.0.0").offered);
	bench_restart(b);
}

static void parameters(void **state)
{
	struct bench *b = *state;
	struct rollout_new n = watched("one", at_once, 1), other = watched("two", at_once, 1);
	struct command cmd;

	n.guard.given = true;
	n.guard.params.initial_unproven = 5;
	make(b, &n);
	other.guard.given = true;
	other.guard.params.halt_at = 50;
	assert_int_equal(roll_out_as(b, &other, &cmd), OTA_ECONFLICT);
	assert_non_null(strstr(cmd.err.msg, "other parameters"));
	other.guard = n.guard;
	assert_int_equal(roll_out_as(b, &other, &cmd), OTA_OK);
	bench_restart(b);
	for (int i = 0; i < 8; i++) {
		char id[8];
		snprintf(id, sizeof id, "d%d", i);
		assert_int_equal(ask(b, id, "1.0.0").offered, i < 5);
	}
	/* The same again is the same; with another guard it is not. */
	assert_int_equal(roll_out_as(b, &n, &cmd), OTA_OK);
	assert_true(cmd.out.existed);
	n.guard = (struct guard){.off = true, .params = gate_params_default()};
	assert_int_equal(roll_out_as(b, &n, &cmd), OTA_ECONFLICT);
	bench_restart(b);
}

/* Two that take places and come no further, and are heard of all the while. */
static void nobody_sits_on_a_place(void **state)
{
	struct bench *b = *state;
	struct world w = world_of(b, 0);
	struct rollout_new n = watched("walk", at_once, 1);
	struct answer has, begins;

	(void)ask(b, "third", "1.0.0");
	make(b, &n);
	has = ask(b, "has", "1.0.0");
	begins = ask(b, "begins", "1.0.0");
	assert_int_equal(fetch(b, has.token, false), OTA_OK);
	assert_int_equal(tell(b, "has", "2.0.0", "downloaded", -1, has.token, NULL), OTA_OK);
	assert_int_equal(fetch(b, begins.token, false), OTA_OK);
	assert_int_equal(ask(b, "third", "1.0.0").reason, REASON_NO_PLACE);
	for (int i = 0; i < 5; i++) {
		pass(&w, POLL_US);
		(void)ask(b, "has", "1.0.0");
		(void)ask(b, "begins", "1.0.0");
	}
	assert_int_equal(events_of(b, "device_given_back"), 0);
	/* A download that does not move for half an hour is none. */
	for (int i = 0; i < 3; i++) {
		pass(&w, POLL_US);
		(void)ask(b, "has", "1.0.0");
		(void)ask(b, "begins", "1.0.0");
	}
	assert_int_equal(events_of(b, "device_given_back"), 1);
	assert_true(ask(b, "third", "1.0.0").offered);
	assert_int_equal(ask(b, "fourth", "1.0.0").reason, REASON_NO_PLACE);
	restart(&w);
	/* Who has the image is waited for, for a day. */
	for (int i = 8; i < 24 * 12 - 2; i++) {
		pass(&w, POLL_US);
		(void)ask(b, "has", "1.0.0");
	}
	assert_int_equal(row_int(b, "SELECT count(*) FROM ota_events WHERE"
				    " event_type='device_given_back' AND device_id='has'"),
			 0);
	for (int i = 0; i < 4; i++) {
		pass(&w, POLL_US);
		(void)ask(b, "has", "1.0.0");
	}
	assert_int_equal(row_int(b, "SELECT count(*) FROM ota_events WHERE"
				    " event_type='device_given_back' AND device_id='has'"),
			 1);
	assert_int_equal(events_of(b, "device_silent"), 0);
	/* It installs after all: it is exposed again, whether there is a place or not. */
	assert_int_equal(tell(b, "has", "2.0.0", "installing", -1, has.token, NULL), OTA_OK);
	assert_int_equal(row_int(b, "SELECT count(*) FROM ota_events WHERE"
				    " event_type='device_exposed' AND device_id='has'"),
			 2);
	world_end(&w);
}

/* Of ten variants, one has nine devices in ten: each is met among the first dozen. */
static void each_variant_comes_early(void **state)
{
	static const char *const hw[] = {"r0", "r1", "r2", "r3", "r4",
					 "r5", "r6", "r7", "r8", "r9"};
	struct bench *b = *state;
	struct world w = world_of(b, DEVICES);
	struct rollout_new n = watched("walk", at_once, 1);
	const char *met =
		"SELECT count(DISTINCT json_extract(event_data,'$.hw')) FROM (SELECT * FROM"
		" ota_events WHERE event_type='device_exposed' ORDER BY id LIMIT 12)";

	for (int i = 0; i < DEVICES; i++)
		w.box[i].hw = hw[i % 10 ? 0 : i / 10 % 10];
	pass(&w, POLL_US + STEP_US);
	make(b, &n);
	for (int i = 0; i < 40 && events_of(b, "device_exposed") < 12; i++) {
		pass(&w, 10 * STEP_US);
		if (i == 1) /* as many of each as before it */
			restart(&w);
	}
	assert_true(events_of(b, "device_exposed") >= 12);
	assert_int_equal(row_int(b, met), 10);
	world_end(&w);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)
	const struct CMUnitTest tests[] = {
		T(bricks_loudly),
		T(bricks_silently),
		T(is_rolled_back),
		T(boots_again_and_again),
		T(without_stages_it_is_watched),
		T(off_is_off),
		T(walks_to_all),
		T(only_so_many),
		T(one_variant_is_held_back),
		T(each_variant_comes_early),
		T(nobody_sits_on_a_place),
		T(quiet_is_not_silent),
		T(quiet_is_seen),
		T(an_outage_is_no_failure),
		T(they_come_back_in_turn),
		T(our_own_absence_is_no_silence),
		T(given_back),
		T(the_halt_is_made_good),
		T(by_hand),
		T(parameters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
