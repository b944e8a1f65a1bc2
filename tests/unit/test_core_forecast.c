/* SPDX-License-Identifier: MIT */
/* Whom a rollout would reach, and how long it takes: against decide(), and against what is known of
 * the gate. */
#include "core/forecast.h"
#include "core_world.h"
#include "random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>

#define NOW_US (INT64_C(1800000000) * US_PER_S)
#define H(us)  ((double)(us) / 3600e6)

struct scene {
	struct world w;
	struct rollout *rollout;
	struct stage stages[STAGES_MAX];
	struct device *devices;
	char (*names)[24];
	int count;
	struct reach reach;
	struct forecast forecast;
};

static struct scene *scene_new(int count, const char *version)
{
	struct scene *s = calloc(1, sizeof *s);

	assert_non_null(s);
	world_init(&s->w);
	s->rollout = world_rollout(&s->w, world_release(&s->w, "2.0.0"), TARGET_ALL);
	s->rollout->stages = s->stages;
	s->rollout->guard = (struct guard){.bounded = true, .params = gate_params_default()};
	s->count = count;
	s->devices = calloc((size_t)count, sizeof *s->devices);
	s->names = calloc((size_t)count, sizeof *s->names);
	assert_true(s->devices && s->names);
	for (int i = 0; i < count; i++) {
		snprintf(s->names[i], sizeof s->names[i], "dev-%d", i);
		s->devices[i] = world_device(s->names[i], version);
		s->devices[i].last_seen_us = NOW_US - US_PER_S;
		s->devices[i].habit_us = 300 * US_PER_S;
	}
	return s;
}

static void scene_free(struct scene *s)
{
	reach_fini(&s->reach);
	free(s->devices);
	free(s->names);
	free(s);
}

static void add_stage(struct scene *s, int percent, int64_t min_duration_s)
{
	s->stages[s->rollout->stage_count++] = (struct stage){
		.percent = percent,
		.min_duration_s = min_duration_s,
		.min_proven = STAGE_MIN_PROVEN_AUTO,
	};
}

static void take_census(struct scene *s)
{
	struct decide_params p = {.now_us = NOW_US};

	s->rollout->lowest_hash = UINT64_MAX;
	for (int i = 0; i < s->count; i++) {
		uint64_t b = target_bucket(&s->devices[i], s->rollout->release);
		if (target_selects(s->rollout, &s->devices[i]) && b < s->rollout->lowest_hash)
			s->rollout->lowest_hash = b;
	}
	assert_true(reach_init(&s->reach, s->rollout, &s->w.model, &p, 300 * US_PER_S));
	for (int i = 0; i < s->count; i++)
		reach_add(&s->reach, &s->devices[i],
			  runs_release(&s->devices[i], s->rollout->release) ? REACH_DONE
									    : REACH_NEW);
}

static const struct forecast *look_ahead(struct scene *s, struct forecast_pace pace)
{
	struct forecast_start from = {.at_us = NOW_US};

	if (!s->reach.cells)
		take_census(s);
	if (!pace.take_us)
		pace.take_us = 60 * US_PER_S;
	if (!pace.tell_per_s)
		pace.tell_per_s = 200;
	assert_int_equal(forecast_run(&s->reach, s->rollout, &from, &pace, &s->forecast), OTA_OK);
	return &s->forecast;
}

static double lasts_h(const struct forecast *f, int stage, int which)
{
	assert_true(f->stages[stage].ends_us[which] != FORECAST_NEVER);
	return H(f->stages[stage].ends_us[which] - NOW_US);
}

/* Random fleets, targets and other rollouts: in each stage as many as decide() would admit. */
static void test_stages_are_what_decide_admits(void **state)
{
	static const char *const versions[] = {"1.0.0", "1.5.0", "2.0.0", "3.0.0", "odd"};
	(void)state;
	random_begin("stages");

	for (int round = 0; round < 60; round++) {
		struct scene *s = scene_new(1 + random_below(200), "1.0.0");
		struct release *old = world_release(&s->w, "1.5.0");
		struct rollout *other = world_rollout(&s->w, old, TARGET_ALL);
		struct list_of group = {1, {"lab"}};

		other->target.percent = 1 + random_below(100);
		other->active = random_below(2);
		if (random_below(2)) { /* the new one decides first */
			s->w.model.rollouts = s->rollout;
			s->rollout->next = other;
			other->next = NULL;
		}
		if (random_below(3) == 0)
		s->rollout->requires = "1.5.0";
		if (random_below(3) == 0) {
			s->rollout->target.type = TARGET_GROUP;
			s->rollout->target.group = "lab";
		}
		for (int i = 0; i < s->count; i++) {
			s->devices[i].state.version = versions[random_below(5)];
			if (random_below(2))
				s->devices[i].state.groups = (struct string_list *)(void *)&group;
		}
		for (int p = 0; p < 100 && s->rollout->stage_count < 6;)
			add_stage(s, p += 1 + random_below(100 - p), 0);
		take_census(s);
		int64_t devices = 0, offered = 0;
		for (int k = 0; k < s->rollout->stage_count; k++) {
			struct decide_params p = {.now_us = NOW_US};
			int64_t inside = 0, admitted = 0;

			s->rollout->target.percent = s->stages[k].percent;
			for (int i = 0; i < s->count; i++) {
				struct decision x = decide(&s->devices[i], &s->w.model, &p);

				inside += target_includes(s->rollout, &s->devices[i]);
				admitted += x.reason == REASON_OFFER && x.rollout == s->rollout;
			}
			devices += s->reach.stages[k].devices;
			offered += s->reach.stages[k].to_update;
			assert_int_equal(devices, inside);
			assert_int_equal(offered, admitted);
		}
		int64_t sum = offered;
		for (int k = 0; k < s->rollout->stage_count; k++)
			sum += s->reach.stages[k].done;
		for (int i = 0; i < REASONS; i++)
			sum += s->reach.refused[i];
		assert_int_equal(sum, devices); /* everybody is counted once */
		scene_free(s);
	}
}

static void test_who_is_counted_where(void **state)
{
	struct scene *s = scene_new(6, "1.0.0");
	struct device_link online = {.presence = PRESENCE_ONLINE};
	(void)state;

	add_stage(s, 100, 0);
	s->devices[1].last_seen_us = NOW_US - 2 * STAGE_SEEN_US; /* gone for two days */
	s->devices[2].last_seen_us = NOW_US - 2 * STAGE_SEEN_US;
	s->devices[2].habit_us = 2 * STAGE_SEEN_US; /* which is its habit */
	s->devices[3].last_seen_us = NOW_US - 2 * STAGE_SEEN_US;
	s->devices[3].state.link = &online;
	s->devices[4].state.version = "2.0.0";
	s->devices[5].state.version = "2.1.0";
	take_census(s);
	const struct reach_stage *k = &s->reach.stages[0];
	assert_int_equal(k->devices, 6);
	assert_int_equal(k->seen, 4); /* one is online, whenever it spoke */
	assert_int_equal(k->done, 1);
	assert_int_equal(k->to_update, 4);
	assert_int_equal(k->reachable, 3);
	assert_int_equal(s->reach.refused[REASON_DOWNGRADE], 1);
	assert_int_equal(s->reach.taken, 1);
	assert_int_equal(reach_slower_than(&s->reach, 300 * US_PER_S), 1);
	assert_int_equal(reach_slower_than(&s->reach, 3 * STAGE_SEEN_US), 0);
	scene_free(s);
}

static void test_more_variants_than_are_kept_apart(void **state)
{
	struct scene *s = scene_new(100, "1.0.0");
	static char names[100][8];
	int64_t sum = 0;
	(void)state;

	add_stage(s, 100, 0);
	for (int i = 0; i < 100; i++) {
		snprintf(names[i], sizeof names[i], "hw%d", i);
		s->devices[i].state.hw = names[i];
	}
	take_census(s);
	assert_int_equal(s->reach.taken, REACH_VARIANTS);
	for (int i = 0; i < REACH_VARIANTS; i++)
		sum += s->reach.variants[i].to_update;
	assert_int_equal(sum, 100);
	assert_string_equal(s->reach.variants[REACH_VARIANTS - 1].hw, "");
	assert_false(s->reach.out_of_memory);
	assert_string_equal(s->reach.variants[5].hw, "hw5");
	look_ahead(s, (struct forecast_pace){0});
	assert_true(s->forecast.reached_us[FORECAST_LIKELY] != FORECAST_NEVER);
	scene_free(s);
}

/* The gate alone, ten thousand devices that are always there: 5.0 h were simulated for it. */
static void test_as_long_as_the_gate_takes(void **state)
{
	struct scene *s = scene_new(10000, "1.0.0");
	struct device_link online = {.presence = PRESENCE_ONLINE};
	(void)state;

	add_stage(s, 100, 0);
	s->stages[0].min_proven = 10000 - 100;
	for (int i = 0; i < s->count; i++)
		s->devices[i].state.link = &online;
	const struct forecast *f =
		look_ahead(s, (struct forecast_pace){.take_us = 60 * US_PER_S, .tell_per_s = 1000});
	double h = lasts_h(f, 0, FORECAST_LIKELY);
	if (h < 4.5 || h > 5.5)
		fail_msg("%.2f h", h);
	assert_true(lasts_h(f, 0, FORECAST_EARLIEST) <= h);
	assert_true(f->stages[0].ends_us[FORECAST_LATEST] > f->stages[0].ends_us[FORECAST_LIKELY]);
	assert_int_equal(f->stages[0].wait, FORECAST_PROOF);
	scene_free(s);
}

/* Without a bound all have it after one of their intervals, and the time to take it. */
static void test_as_long_as_the_devices_take(void **state)
{
	struct scene *s = scene_new(1000, "1.0.0");
	(void)state;

	add_stage(s, 100, 0);
	s->rollout->guard.bounded = false;
	for (int i = 0; i < s->count; i++)
		s->devices[i].habit_us = 3600 * US_PER_S;
	const struct forecast *f = look_ahead(s, (struct forecast_pace){0});
	double first = lasts_h(f, 0, FORECAST_EARLIEST);
	/* 80 % of them: they ask within 0.8 h, and are seen well an hour after. */
	if (first < 1.7 || first > 1.9)
		fail_msg("%.2f h", first);
	double all = H(f->reached_us[FORECAST_LIKELY] - NOW_US);
	if (all < 1.95 || all > 2.1)
		fail_msg("%.2f h", all);
	scene_free(s);
}

static void test_what_else_holds_it_up(void **state)
{
	(void)state;
	/* stages' own times */
	struct scene *s = scene_new(200, "1.0.0");
	add_stage(s, 10, 86400);
	add_stage(s, 50, 86400);
	add_stage(s, 100, 0);
	const struct forecast *f = look_ahead(s, (struct forecast_pace){0});
	assert_true(lasts_h(f, 0, FORECAST_LIKELY) >= 24 && lasts_h(f, 0, FORECAST_LIKELY) < 24.1);
	assert_true(lasts_h(f, 1, FORECAST_LIKELY) >= 48 && lasts_h(f, 1, FORECAST_LIKELY) < 48.1);
	assert_int_equal(f->stages[1].begins_us[FORECAST_LIKELY],
			 f->stages[0].ends_us[FORECAST_LIKELY]);
	assert_int_equal(f->stages[0].wait, FORECAST_TIME);
	assert_int_equal(f->stages[2].wait, FORECAST_PROOF);
	double plain = lasts_h(f, 2, FORECAST_LIKELY);
	/* two at a time, a minute each */
	s->rollout->max_parallel = 2;
	f = look_ahead(s, (struct forecast_pace){0});
	assert_true(lasts_h(f, 2, FORECAST_LIKELY) - plain > 0.3);
	/* the network: 200 images of 1 MB at 10 kB/s */
	s->rollout->max_parallel = 0;
	s->rollout->release->file_size = 1000000;
	f = look_ahead(s, (struct forecast_pace){.bytes_per_s = 10000});
	double h = H(f->reached_us[FORECAST_LIKELY] - f->stages[1].ends_us[FORECAST_LIKELY]);
	if (h < 2.7 || h > 3.3) /* the last half of them: 100 * 100 s */
		fail_msg("%.2f h", h);
	scene_free(s);
}

static void test_a_window(void **state)
{
	struct scene *s = scene_new(100, "1.0.0");
	struct window w;
	struct ota_err err;
	(void)state;

	add_stage(s, 100, 0);
	assert_int_equal(window_parse("daily 01:00-02:00 UTC", &w, &err), OTA_OK);
	w.zone = tz_new(0);
	assert_non_null(w.zone);
	s->rollout->window = &w;
	const struct forecast *f = look_ahead(s, (struct forecast_pace){0});
	/* NOW is a Friday, 08:00: it opens 17 h later. */
	int64_t opens_us = window_opens_us(&w, NOW_US);
	assert_true(opens_us > NOW_US);
	assert_true(f->stages[0].ends_us[FORECAST_EARLIEST] > opens_us);
	assert_true(f->stages[0].ends_us[FORECAST_LIKELY] > opens_us);
	tz_free(&w.zone);
	scene_free(s);
}

static void test_what_never_ends(void **state)
{
	struct scene *s = scene_new(20, "1.0.0");
	(void)state;

	add_stage(s, 50, 0);
	add_stage(s, 100, 0);
	s->stages[0].min_proven = 15; /* of ten */
	const struct forecast *f = look_ahead(s, (struct forecast_pace){0});
	assert_int_equal(f->stages[0].wait, FORECAST_TOO_FEW);
	assert_true(f->stages[0].needed > f->stages[0].can);
	for (int i = 0; i < FORECAST_CASES; i++) {
		assert_true(f->stages[0].ends_us[i] == FORECAST_NEVER);
		assert_true(f->stages[1].begins_us[i] == FORECAST_NEVER);
		assert_true(f->reached_us[i] == FORECAST_NEVER);
	}
	scene_free(s);
	/* nobody at all */
	s = scene_new(1, "2.5.0");
	add_stage(s, 100, 0);
	s->devices[0].last_seen_us = 0;
	f = look_ahead(s, (struct forecast_pace){0});
	assert_int_equal(f->stages[0].wait, FORECAST_TOO_FEW);
	scene_free(s);
}

static void test_from_where_it_is(void **state)
{
	struct scene *s = scene_new(1000, "1.0.0");
	struct forecast_pace pace = {.take_us = 60 * US_PER_S, .tell_per_s = 200};
	struct gate g;
	(void)state;

	add_stage(s, 10, 3600);
	add_stage(s, 100, 0);
	const struct forecast *whole = look_ahead(s, pace);
	int64_t anew_us = whole->stages[1].ends_us[FORECAST_LIKELY];
	gate_init(&g, &s->rollout->guard.params);
	gate_stage(&g, 1000);
	struct gate_place place;
	assert_int_equal(gate_take(&g, "", "1.0.0", &place), OTA_OK);
	gate_cancel(&g, &place);
	g.line.bound = g.variants[0].line.bound = 500; /* it has seen enough */
	struct forecast_start from = {.at_us = NOW_US, .stage = 1, .gate = &g};
	assert_int_equal(forecast_run(&s->reach, s->rollout, &from, &pace, &s->forecast), OTA_OK);
	assert_true(s->forecast.stages[1].ends_us[FORECAST_LIKELY] < anew_us);
	assert_int_equal(s->forecast.stages[0].ends_us[FORECAST_LIKELY], 0);
	from.stage = 0;
	from.stage_until_us = NOW_US + 100 * US_PER_S;
	assert_int_equal(forecast_run(&s->reach, s->rollout, &from, &pace, &s->forecast), OTA_OK);
	assert_true(s->forecast.stages[0].ends_us[FORECAST_LIKELY] < NOW_US + 3600 * US_PER_S);
	gate_fini(&g);
	scene_free(s);
}

/* Whatever fleet and stages: the range is one, and stages follow each other. */
static void test_ranges(void **state)
{
	(void)state;
	random_begin("ranges");

	for (int round = 0; round < 30; round++) {
		struct scene *s = scene_new(1 + random_below(400), "1.0.0");

		for (int i = 0; i < s->count; i++)
			s->devices[i].habit_us = (1 + random_below(86400)) * US_PER_S;
		for (int p = 0; p < 100 && s->rollout->stage_count < 5;)
			add_stage(s, p += 1 + random_below(100 - p), random_below(7200));
		s->rollout->guard.bounded = random_below(2);
		const struct forecast *f = look_ahead(s, (struct forecast_pace){0});
		for (int k = 0; k < f->stage_count; k++) {
			const struct forecast_stage *o = &f->stages[k];

			for (int i = 0; i < FORECAST_CASES; i++)
				assert_true(o->ends_us[i] >= o->begins_us[i]);
			assert_true(o->ends_us[FORECAST_EARLIEST] <= o->ends_us[FORECAST_LIKELY]);
			assert_true(o->ends_us[FORECAST_LIKELY] <= o->ends_us[FORECAST_LATEST]);
			assert_true(o->can >= o->needed || o->wait == FORECAST_TOO_FEW);
		}
		scene_free(s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stages_are_what_decide_admits),
		cmocka_unit_test(test_who_is_counted_where),
		cmocka_unit_test(test_more_variants_than_are_kept_apart),
		cmocka_unit_test(test_as_long_as_the_gate_takes),
		cmocka_unit_test(test_as_long_as_the_devices_take),
		cmocka_unit_test(test_what_else_holds_it_up),
		cmocka_unit_test(test_a_window),
		cmocka_unit_test(test_what_never_ends),
		cmocka_unit_test(test_from_where_it_is),
		cmocka_unit_test(test_ranges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
