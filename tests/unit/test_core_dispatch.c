/* SPDX-License-Identifier: MIT */
/* core/dispatch: whom to tell, and when again; case by case, with what decide() says of each. */
#include "core/dispatch.h"

#include "core_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define NOW    (INT64_C(1800000000) * US_PER_S)
#define WINDOW 60
#define STALE  (3 * 3600)

/* What the device is and was told; times are seconds ago, 0: never. */
struct given {
	bool no_link;
	enum presence presence;
	bool gone; /* offline, whatever `presence` says */
	bool has_attempt;
	enum attempt_state state;
	int opened, commanded, accepted, reported;
	int commands;
	const char *runs; /* NULL: 1.0.0 */
	bool newer;       /* 3.0.0 is rolled out since */
	bool inactive;    /* no rollout is active */
	bool stopped, full;
	bool shut;              /* outside the window of the rollout of 2.0.0 */
	int max_parallel, busy; /* of the rollout of 2.0.0 */
};

#define ONLINE  .presence = PRESENCE_ONLINE
#define OFFLINE .gone = true
#define OPEN    ONLINE, .has_attempt = true
/* Told COUNT times, the last one AGO seconds ago. */
#define TOLD(count, ago) OPEN, .opened = 100000, .commands = (count), .commanded = (ago)
#define BEGUN(what, ago) .state = ATTEMPT_##what, .reported = (ago)

static int64_t ago(int seconds)
{
	return seconds ? NOW - seconds * US_PER_S : 0;
}

static enum dispatch judge(const struct given *g)
{
	struct world w;
	struct device d = world_device("esp32_001", g->runs ? g->runs : "1.0.0");
	struct device_link link = {.site = "paku",
				   .form = TOPIC_FORM_EDGE,
				   .presence = g->gone ? PRESENCE_OFFLINE : g->presence,
				   .other_site = ""};
	struct decide_params dp = {.now_us = NOW,
				   .stale_us = STALE * US_PER_S,
				   .stopped = g->stopped,
				   .full = g->full};
	struct dispatch_params p = {NOW, WINDOW * US_PER_S};

	world_init(&w);
	struct release *r = world_release(&w, "2.0.0");
	struct rollout *o = world_rollout(&w, r, TARGET_ALL);
	o->active = !g->inactive;
	o->max_parallel = g->max_parallel;
	o->busy = g->busy;
	struct window shut = {.zone = NULL}; /* for ever */
	o->window = g->shut ? &shut : NULL;
	if (g->newer)
		world_rollout(&w, world_release(&w, "3.0.0"), TARGET_ALL);
	struct attempt a = {.id = 1,
			    .release_id = r->id,
			    .rollout_id = o->id,
			    .state = g->state,
			    .percent = -1,
			    .opened_us = ago(g->opened),
			    .commanded_us = ago(g->commanded),
			    .accepted_us = ago(g->accepted),
			    .reported_us = ago(g->reported ? g->reported : g->opened),
			    .commands = g->commands,
			    .version = r->version,
			    .from_version = "1.0.0"};
	d.state.link = g->no_link ? NULL : &link;
	d.state.attempt = g->has_attempt ? &a : NULL;
	struct decision x = decide(&d, &w.model, &dp);
	return dispatch_judge(&d, &x, &p);
}

struct dispatch_case {
	const char *name;
	struct given given;
	enum dispatch want;
};

static void judge_all(const struct dispatch_case *cases, size_t count)
{
	static const char *const names[] = {"nothing", "open", "again", "lapse"};

	for (size_t i = 0; i < count; i++) {
		enum dispatch is = judge(&cases[i].given);
		if (is != cases[i].want)
			fail_msg("%s: %s, expected %s", cases[i].name, names[is],
				 names[cases[i].want]);
	}
}

static const struct dispatch_case nothing_open[] = {
	{"never heard over MQTT", {.no_link = true}, DISPATCH_NOTHING},
	{"known by a retained copy alone", {.presence = PRESENCE_UNKNOWN}, DISPATCH_OPEN},
	{"online", {ONLINE}, DISPATCH_OPEN},
	{"offline", {OFFLINE}, DISPATCH_NOTHING},
	{"online, up to date", {ONLINE, .runs = "2.0.0"}, DISPATCH_NOTHING},
	{"online, no rollout", {ONLINE, .inactive = true}, DISPATCH_NOTHING},
	{"online, everything stopped", {ONLINE, .stopped = true}, DISPATCH_NOTHING},
	{"online, outside the window", {ONLINE, .shut = true}, DISPATCH_NOTHING},
	{"online, all places taken", {ONLINE, .full = true}, DISPATCH_NOTHING},
	{"the rollout has no place", {ONLINE, .max_parallel = 2, .busy = 2}, DISPATCH_NOTHING},
	{"the rollout has one place", {ONLINE, .max_parallel = 2, .busy = 1}, DISPATCH_OPEN},
	{"a success that is yet to be seen",
	 {OPEN, .commanded = 9000, .commands = 1, BEGUN(SUCCESS, 9000)},
	 DISPATCH_NOTHING},
};

static void none_open(void **state)
{
	(void)state;
	judge_all(nothing_open, sizeof nothing_open / sizeof nothing_open[0]);
}

/* Offered at a check-in over HTTP, to a device that was heard over MQTT too. */
static const struct dispatch_case offered_over_http[] = {
	{"just offered", {OPEN, .opened = WINDOW - 1}, DISPATCH_NOTHING},
	{"offered a window ago", {OPEN, .opened = WINDOW}, DISPATCH_AGAIN},
	{"... to one never heard", {OPEN, .opened = WINDOW, .no_link = true}, DISPATCH_NOTHING},
	{"... to one offline", {OFFLINE, .has_attempt = true, .opened = 9000}, DISPATCH_NOTHING},
	{"... and everything stopped since",
	 {OPEN, .opened = WINDOW, .stopped = true},
	 DISPATCH_NOTHING},
	{"... and outside the window", {OPEN, .opened = WINDOW, .shut = true}, DISPATCH_NOTHING},
	/* It has its place already. */
	{"... and all places taken", {OPEN, .opened = WINDOW, .full = true}, DISPATCH_AGAIN},
	{"begun there", {OPEN, .opened = 9000, BEGUN(DOWNLOADING, 8000)}, DISPATCH_NOTHING},
	{"another release since", {OPEN, .opened = 5, .newer = true}, DISPATCH_OPEN},
	{"another release, no place",
	 {OPEN, .opened = 5, .newer = true, .full = true},
	 DISPATCH_NOTHING},
};

static void offered_elsewhere(void **state)
{
	(void)state;
	judge_all(offered_over_http, sizeof offered_over_http / sizeof offered_over_http[0]);
}

static const struct dispatch_case told[] = {
	{"once, inside the window", {TOLD(1, WINDOW - 1)}, DISPATCH_NOTHING},
	{"once, the window over", {TOLD(1, WINDOW)}, DISPATCH_AGAIN},
	{"twice, inside five windows", {TOLD(2, 5 * WINDOW - 1)}, DISPATCH_NOTHING},
	{"twice, five windows over", {TOLD(2, 5 * WINDOW)}, DISPATCH_AGAIN},
	{"three times, inside thirty", {TOLD(3, 30 * WINDOW - 1)}, DISPATCH_NOTHING},
	{"three times, thirty over", {TOLD(3, 30 * WINDOW)}, DISPATCH_AGAIN},
	{"four times, inside the last", {TOLD(4, WINDOW - 1)}, DISPATCH_NOTHING},
	{"four times, the last over", {TOLD(4, WINDOW)}, DISPATCH_LAPSE},
	{"more often than there are", {TOLD(40, WINDOW)}, DISPATCH_LAPSE},
	{"came online inside the window", {TOLD(0, WINDOW - 1)}, DISPATCH_NOTHING},
	{"came online after it", {TOLD(0, WINDOW)}, DISPATCH_AGAIN},
	{"all places taken: it has one", {TOLD(1, WINDOW), .full = true}, DISPATCH_AGAIN},
	{"its rollout full: it is one",
	 {TOLD(1, WINDOW), .max_parallel = 1, .busy = 1},
	 DISPATCH_AGAIN},
	{"everything stopped", {TOLD(1, WINDOW), .stopped = true}, DISPATCH_LAPSE},
	/* It waits, and lapses as it would have. */
	{"once, outside the hours", {TOLD(1, 90000), .shut = true}, DISPATCH_NOTHING},
	{"came online outside the hours", {TOLD(0, 90000), .shut = true}, DISPATCH_NOTHING},
	{"four times, outside the hours", {TOLD(4, WINDOW - 1), .shut = true}, DISPATCH_NOTHING},
	{"... the last over", {TOLD(4, WINDOW), .shut = true}, DISPATCH_LAPSE},
	{"gone, outside the hours", {TOLD(1, WINDOW), OFFLINE, .shut = true}, DISPATCH_LAPSE},
	{"no rollout any more", {TOLD(1, 5), .inactive = true}, DISPATCH_LAPSE},
	{"another release", {TOLD(1, 5), .newer = true}, DISPATCH_OPEN},
	{"another release, no place", {TOLD(1, 5), .newer = true, .full = true}, DISPATCH_LAPSE},
	{"gone, inside the window", {TOLD(1, WINDOW - 1), OFFLINE}, DISPATCH_NOTHING},
	{"gone, the window over", {TOLD(1, WINDOW), OFFLINE}, DISPATCH_LAPSE},
	/* A device that is not there waits for no further window. */
	{"gone, told three times", {TOLD(3, WINDOW), OFFLINE}, DISPATCH_LAPSE},
	{"gone, another release", {TOLD(1, 5), OFFLINE, .newer = true}, DISPATCH_LAPSE},
};

static void told_and_silent(void **state)
{
	(void)state;
	judge_all(told, sizeof told / sizeof told[0]);
}

static const struct dispatch_case answered[] = {
	{"accepted, then silent for a window", {TOLD(1, 90), .accepted = 59}, DISPATCH_NOTHING},
	{"... and longer", {TOLD(1, 120), .accepted = 60}, DISPATCH_AGAIN},
	{"accepted once, told again, and silent",
	 {TOLD(2, 5 * WINDOW), .accepted = 3000},
	 DISPATCH_AGAIN},
	{"accepted, and told for the last time",
	 {TOLD(4, WINDOW), .accepted = 3000},
	 DISPATCH_LAPSE},
	{"begun", {TOLD(1, 9000), BEGUN(DOWNLOADING, 5)}, DISPATCH_NOTHING},
	{"begun, and silent since", {TOLD(1, 9000), BEGUN(DOWNLOADING, 8000)}, DISPATCH_NOTHING},
	{"begun, told four times", {TOLD(4, 9000), BEGUN(DOWNLOADING, 8000)}, DISPATCH_NOTHING},
	{"begun, and gone", {TOLD(1, 9000), BEGUN(DOWNLOADING, 8000), OFFLINE}, DISPATCH_NOTHING},
	{"begun, came back without it",
	 {TOLD(0, 9000), BEGUN(DOWNLOADING, WINDOW)},
	 DISPATCH_AGAIN},
	{"... and speaks of it", {TOLD(0, 9000), BEGUN(DOWNLOADING, WINDOW - 1)}, DISPATCH_NOTHING},
	{"... and was just told", {TOLD(0, WINDOW - 1), BEGUN(DOWNLOADED, 8000)}, DISPATCH_NOTHING},
	{"verified, came back without it",
	 {TOLD(0, 9000), BEGUN(DOWNLOADED, 8000)},
	 DISPATCH_AGAIN},
	/* Its next word tells. */
	{"installs, came back", {TOLD(0, 9000), BEGUN(INSTALLING, 8000)}, DISPATCH_NOTHING},
	/* What has begun runs to its end. */
	{"begun, stopped",
	 {TOLD(1, 9000), BEGUN(DOWNLOADING, 5), .stopped = true},
	 DISPATCH_NOTHING},
	{"begun, outside the hours",
	 {TOLD(1, 9000), BEGUN(DOWNLOADING, 5), .shut = true},
	 DISPATCH_NOTHING},
	{"... and came back without it",
	 {TOLD(0, 9000), BEGUN(DOWNLOADING, WINDOW), .shut = true},
	 DISPATCH_AGAIN},
	{"begun, no rollout any more",
	 {TOLD(0, 9000), BEGUN(DOWNLOADING, 5), .inactive = true},
	 DISPATCH_NOTHING},
	{"begun, another release",
	 {TOLD(1, 9000), BEGUN(DOWNLOADING, 5), .newer = true},
	 DISPATCH_NOTHING},
	{"begun, stale, another release",
	 {TOLD(1, 90000), BEGUN(DOWNLOADING, STALE), .newer = true},
	 DISPATCH_NOTHING},
};

static void told_and_heard(void **state)
{
	(void)state;
	judge_all(answered, sizeof answered / sizeof answered[0]);
}

/* A silent device over all its windows, second by second: told at 0, 1, 6 and 36 windows, ended at
 * 37. */
static void a_silent_life(void **state)
{
	static const int told_at[] = {0, WINDOW, 6 * WINDOW, 36 * WINDOW};
	struct given g = {ONLINE};
	int commands = 0, commanded = 0, lapsed = -1;

	(void)state;
	for (int t = 0; t < 40 * WINDOW && lapsed < 0; t++) {
		if (commands > 0)
			g = (struct given){TOLD(commands, t - commanded)};
		/* Ago 0 would be never: inside the second in which it was told nothing happens. */
		enum dispatch is = commands > 0 && t == commanded ? DISPATCH_NOTHING : judge(&g);
		if (is == DISPATCH_LAPSE)
			lapsed = t;
		if (is != DISPATCH_OPEN && is != DISPATCH_AGAIN)
			continue;
		assert_true(commands < 4);
		assert_int_equal(is == DISPATCH_OPEN, commands == 0);
		assert_int_equal(t, told_at[commands]);
		commands++;
		commanded = t;
	}
	assert_int_equal(commands, 4);
	assert_int_equal(lapsed, 37 * WINDOW);
}

#define QUIET 600

static const struct {
	const char *name;
	enum attempt_state state;
	int opened, commanded, accepted, reported;
	bool want;
} places[] = {
	{"just opened", ATTEMPT_PENDING, 1, 0, 0, 1, true},
	{"opened, still fresh", ATTEMPT_PENDING, QUIET - 1, 0, 0, QUIET - 1, true},
	{"opened long ago", ATTEMPT_PENDING, QUIET, 0, 0, QUIET, false},
	{"told again", ATTEMPT_PENDING, 9000, QUIET - 1, 0, 9000, true},
	{"told long ago", ATTEMPT_PENDING, 9000, QUIET, 0, 9000, false},
	{"accepted", ATTEMPT_PENDING, 9000, 8000, QUIET - 1, 8000, true},
	{"downloads", ATTEMPT_DOWNLOADING, 9000, 8000, 7000, 1, true},
	{"downloads, and is silent", ATTEMPT_DOWNLOADING, 9000, 8000, 7000, QUIET, false},
	{"has it", ATTEMPT_DOWNLOADED, 10, 9, 8, 1, false},
	{"installs", ATTEMPT_INSTALLING, 10, 9, 8, 1, false},
	{"done", ATTEMPT_SUCCESS, 10, 9, 8, 1, false},
	{"failed", ATTEMPT_FAILED, 10, 9, 8, 1, false},
	{"rolled back", ATTEMPT_ROLLED_BACK, 10, 9, 8, 1, false},
	{"lapsed", ATTEMPT_LAPSED, 10, 9, 8, 1, false},
	{"withdrawn", ATTEMPT_WITHDRAWN, 10, 9, 8, 1, false},
};

static void who_takes_a_place(void **state)
{
	(void)state;
	assert_int_equal(DISPATCH_QUIET_US, QUIET * US_PER_S);
	for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
		struct attempt a = {.state = places[i].state,
				    .opened_us = ago(places[i].opened),
				    .commanded_us = ago(places[i].commanded),
				    .accepted_us = ago(places[i].accepted),
				    .reported_us = ago(places[i].reported)};
		if (dispatch_is_busy(&a, NOW) != places[i].want)
			fail_msg("%s: expected %d", places[i].name, places[i].want);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(none_open),       cmocka_unit_test(offered_elsewhere),
		cmocka_unit_test(told_and_silent), cmocka_unit_test(told_and_heard),
		cmocka_unit_test(a_silent_life),   cmocka_unit_test(who_takes_a_place),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
