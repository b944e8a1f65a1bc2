/* SPDX-License-Identifier: MIT */
/* What crosses a walk under a gate: a person's word at the moment of a halt, a clock that jumps. */
#include "gate_world.h"

#include "random.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

/* --- the wall clock, in the test's hands --- */

static _Atomic int64_t shift_s;

int __real_clock_gettime(clockid_t clock, struct timespec *ts);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ts);

int __wrap_clock_gettime(clockid_t clock, struct timespec *ts)
{
	int rc = __real_clock_gettime(clock, ts);

	if (clock == CLOCK_REALTIME)
		ts->tv_sec += shift_s;
	return rc;
}

/* --- a promotion crosses the halt --- */

struct crossing {
	struct bench *b;
	struct box *last;    /* whose failure halts */
	struct command word; /* the person's */
	pthread_barrier_t both;
};

static void *promote(void *arg)
{
	struct crossing *x = arg;

	pthread_barrier_wait(&x->both);
	(void)committer_run(x->b->c, &x->word);
	return NULL;
}

/* The first of two failures; the second will halt. */
static void one_has_failed(struct bench *b, struct box x[2])
{
	for (int i = 0; i < 2; i++) {
		struct answer a = ask(b, x[i].id, "1.0.0");
		assert_true(a.offered);
		strcpy(x[i].token, a.token);
	}
	assert_int_equal(say(b, &x[0], "failed", 4), OTA_OK);
}

enum first { EITHER, PERSON, GATE };

/* Whatever came first it is halted; who promoted is told so, or had promoted before it was. */
static bool cross(struct bench *b, enum first first, int turn)
{
	struct box box[2] = {{.id = "d1"}, {.id = "d2"}};
	static const struct stage stages[] = {{99, 86400, -1, false}, {100, 0, -1, false}};
	struct rollout_new n = watched("walk", stages, 2);
	struct crossing x = {.b = b, .last = &box[1]};
	pthread_t thread;

	int64_t id = make(b, &n);
	one_has_failed(b, box);
	x.word = (struct command){.kind = COMMAND_ROLLOUT_WALK,
				  .by = "tester",
				  .walk = {.id = id,
					   .event = ROLLOUT_PROMOTE,
					   .expect_states = 1u << ROLLOUT_RUNNING,
					   .expect_stage = 1}};
	pthread_barrier_init(&x.both, NULL, 2);
	assert_int_equal(pthread_create(&thread, NULL, promote, &x), 0);
	if (first == GATE) {
		assert_int_equal(say(b, x.last, "failed", 4), OTA_OK);
		committer_barrier(b->c);
	}
	pthread_barrier_wait(&x.both);
	if (first != EITHER)
		pthread_join(thread, NULL);
	if (turn > 0)
		usleep((useconds_t)random_below(turn));
	if (first != GATE)
		assert_int_equal(say(b, x.last, "failed", 4), OTA_OK);
	if (first == EITHER)
		pthread_join(thread, NULL);
	pthread_barrier_destroy(&x.both);
	committer_barrier(b->c);
	bool promoted = x.word.code == OTA_OK;
	assert_true(first == EITHER || promoted == (first == PERSON));
	assert_string_equal(state_of(b), promoted ? "halted 2" : "halted 1");
	assert_int_equal(events_of(b, "rollout_halted"), 1);
	assert_int_equal(events_of(b, "rollout_stage"), promoted);
	if (promoted) {
		assert_int_equal(x.word.out.stage, 2);
		assert_int_equal(row_int(b,
					 "SELECT (SELECT id FROM ota_events WHERE"
					 " event_type='rollout_stage') < (SELECT id FROM ota_events"
					 " WHERE event_type='rollout_halted')"),
				 1);
	} else {
		assert_int_equal(x.word.code, OTA_ECONFLICT);
		assert_int_equal(x.word.out.state, ROLLOUT_HALTED);
		assert_non_null(strstr(x.word.err.msg, "halted"));
	}
	nothing_after_the_halt(b);
	/* Once more: nobody leads it on. */
	x.word.walk.expect_states = 0;
	x.word.walk.expect_stage = 0;
	assert_int_equal(committer_run(b->c, &x.word), OTA_ECONFLICT);
	return promoted;
}

static void a_promotion_crosses_the_halt(void **state)
{
	int promoted = 0, rounds = 8;

	random_begin("crossing");
	for (int i = 0; i < rounds; i++) {
		struct bench fresh = bench_new();
		bench_open(&fresh);
		promoted += cross(&fresh,
				  i == 0   ? PERSON
				  : i == 1 ? GATE
					   : EITHER,
				  i % 3 ? 2000 : 0);
		bench_restart(&fresh);
		bench_end(&fresh);
	}
	printf("# %d of %d were promoted before the halt\n", promoted, rounds);
	(void)state;
}

/* --- the clock jumps while devices are on trial --- */

/* Two run the release, and have not proven it yet. */
static struct world on_trial(struct bench *b)
{
	struct world w = world_of(b, 40);
	struct rollout_new n = watched("walk", at_once, 1);

	make(b, &n);
	for (int i = 0; i < 40 && updated(&w) < 2; i++)
		pass(&w, STEP_US);
	assert_int_equal(updated(&w), 2);
	assert_int_equal(events_of(b, "device_proven"), 0);
	return w;
}

/* They prove it in their time, by the time that really passes, and the others follow. */
static void proves_in_its_time(struct world *w)
{
	struct bench *b = w->b;

	pass(w, POLL_US + 3 * STEP_US);
	assert_int_equal(events_of(b, "device_proven"), 0);
	pass(w, 2 * POLL_US + 600 * US_PER_S);
	assert_true(events_of(b, "device_proven") >= 2);
	pass(w, 6 * HOUR_US);
	assert_int_equal(updated(w), 40);
	assert_int_equal(events_of(b, "device_silent") + events_of(b, "device_failed"), 0);
	assert_int_equal(events_of(b, "rollout_paused"), 0);
	assert_true(strncmp(state_of(b), "halted", 6) != 0);
}

/* As the devices' own clocks go on: none of them has been away. */
static void next_contacts_by(struct world *w, int64_t us)
{
	for (int i = 0; i < w->count; i++) {
		w->box[i].next_us += us;
		w->box[i].due_us += us;
	}
}

/* The clock is set a day ahead; between two looks. */
static void leap(struct world *w)
{
	int64_t before_us = clock_service_us(), wall_us = clock_wall_us();

	/* Beyond what the steps so far have put the service's time ahead of the wall clock. */
	shift_s = (before_us - wall_us) / US_PER_S + 86400;
	int64_t ahead_us = clock_service_us() - before_us;
	assert_true(ahead_us > 86000 * US_PER_S);
	next_contacts_by(w, ahead_us);
}

static void ends(struct world *w)
{
	world_end(w);
	shift_s = 0;
}

static void a_day_ahead(void **state)
{
	struct world w = on_trial(*state);

	leap(&w);
	pass(&w, STEP_US);
	assert_int_equal(events_of(w.b, "device_proven"), 0);
	proves_in_its_time(&w);
	ends(&w);
}

/* One that boots is seen at once, before the next look. */
static void a_day_ahead_and_a_boot(void **state)
{
	struct world w = on_trial(*state);

	leap(&w);
	for (int i = 0; i < w.count; i++)
		if (w.box[i].runs_new) {
			w.box[i].boot++;
			look_in(&w, &w.box[i], clock_service_us());
		}
	pass(&w, STEP_US);
	assert_int_equal(events_of(w.b, "device_proven"), 0);
	proves_in_its_time(&w);
	ends(&w);
}

/* The service is started anew behind the leap; it knows when each device was seen last. */
static void a_day_ahead_and_a_restart(void **state)
{
	struct world w = on_trial(*state);

	leap(&w);
	restart(&w);
	conductor_tick(w.k, clock_service_us());
	for (int i = 0; i < w.count; i++)
		if (w.box[i].runs_new)
			look_in(&w, &w.box[i], clock_service_us());
	pass(&w, STEP_US);
	assert_int_equal(events_of(w.b, "device_proven"), 0);
	proves_in_its_time(&w);
	ends(&w);
}

static void a_day_back(void **state)
{
	struct bench *b = *state;
	struct world w = on_trial(b);
	int64_t before_us = clock_service_us();

	shift_s -= 86400;
	assert_true(clock_service_us() >= before_us); /* it goes on, ahead of the wall clock */
	assert_false(conductor_trusts(clock_wall_us(), clock_service_us()));
	proves_in_its_time(&w);
	ends(&w);
}

/* As the conductor's thread has it: nothing is led, nor looked at, while the clock cannot be right.
 */
static void a_day_back_and_set_right(void **state)
{
	struct bench *b = *state;
	struct world w = on_trial(b);

	for (int64_t gone = 0; gone < HOUR_US; gone += STEP_US) {
		clock_service_not_before(clock_service_us() + STEP_US);
		for (int i = 0; i < w.count; i++)
			live(&w, &w.box[i], clock_service_us());
	}
	pass(&w, STEP_US);
	/* That they were well in that hour was not looked at. */
	assert_int_equal(events_of(b, "device_proven"), 0);
	proves_in_its_time(&w);
	world_end(&w);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_promotion_crosses_the_halt),
		T(a_day_back),
		T(a_day_back_and_set_right),
		T(a_day_ahead),
		T(a_day_ahead_and_a_boot),
		T(a_day_ahead_and_a_restart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
