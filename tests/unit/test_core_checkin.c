/* SPDX-License-Identifier: MIT */
/* core/checkin: what is news, and what a check-in means for the attempt: evidence, grace, names
 * learnt. */
#include "core/checkin.h"

#include "core_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define NOW   (INT64_C(1800000000) * US_PER_S)
#define GRACE (600 * US_PER_S)

static void news(void **state)
{
	struct device d = world_device("esp32_001", "1.0.0");
	struct device_digests g = {.has_firmware = true};
	struct checkin c = {.device_id = "esp32_001", .model = MODEL, .version = "1.0.0", .hw = ""};
	struct device_state *s = &d.state;

	(void)state;
	assert_false(checkin_has_news(&c, s, NOW));
	c.version = "1.0.1";
	assert_true(checkin_has_news(&c, s, NOW));
	c.version = "v1.0.0"; /* another string is news, the same version or not */
	assert_true(checkin_has_news(&c, s, NOW));
	c.version = "1.0.0";
	c.model = "esp32";
	assert_true(checkin_has_news(&c, s, NOW));
	c.model = MODEL;
	c.hw = "rev2";
	assert_true(checkin_has_news(&c, s, NOW));
	s->hw = "rev2";
	assert_false(checkin_has_news(&c, s, NOW));
	c.hw = ""; /* not told is no news */
	assert_false(checkin_has_news(&c, s, NOW));
	c.mac = 5;
	assert_true(checkin_has_news(&c, s, NOW));
	s->mac = 5;
	assert_false(checkin_has_news(&c, s, NOW));
	c.mac = 0;
	assert_false(checkin_has_news(&c, s, NOW));
	c.boot_hash = 9;
	assert_true(checkin_has_news(&c, s, NOW));
	s->boot_hash = 9;
	assert_false(checkin_has_news(&c, s, NOW));
	/* Uptime: a boot much later than the one known. */
	c.has_uptime = true;
	c.uptime_s = 1000;
	assert_true(checkin_has_news(&c, s, NOW));
	s->booted_us = NOW - 1000 * US_PER_S;
	assert_false(checkin_has_news(&c, s, NOW));
	assert_false(checkin_has_news(&c, s, NOW + 30 * US_PER_S)); /* it travels */
	c.uptime_s = 10;
	assert_true(checkin_has_news(&c, s, NOW));
	c.uptime_s = 1000;
	/* Digests. */
	c.digests.has_elf = true;
	assert_true(checkin_has_news(&c, s, NOW));
	c.digests = g;
	assert_true(checkin_has_news(&c, s, NOW));
	s->digests = &g;
	assert_false(checkin_has_news(&c, s, NOW));
	c.digests.firmware[31] = 1;
	assert_true(checkin_has_news(&c, s, NOW));
	memset(&c.digests, 0, sizeof c.digests);
	assert_false(checkin_has_news(&c, s, NOW));
}

/* An uptime that no device can have is no uptime, and no arithmetic beyond the range either. */
static void absurd_uptime(void **state)
{
	struct device d = world_device("esp32_001", "1.0.0");
	struct checkin c = {.device_id = "esp32_001",
			    .model = MODEL,
			    .version = "1.0.0",
			    .hw = "",
			    .has_uptime = true};
	static const int64_t absurd[] = {-1, INT64_MIN, INT64_MAX, NOW / US_PER_S + 1};

	(void)state;
	for (size_t i = 0; i < sizeof absurd / sizeof *absurd; i++) {
		c.uptime_s = absurd[i];
		assert_false(checkin_has_news(&c, &d.state, NOW));
		assert_true(checkin_booted_us(&c, NOW) == 0);
	}
	c.uptime_s = 7;
	assert_true(checkin_booted_us(&c, NOW) == NOW - 7 * US_PER_S);
}

/* A restart soon after the last one is news while it may be what an installation waits for. */
static void boot_after_installing_is_news(void **state)
{
	struct device d = world_device("esp32_001", "1.0.0");
	struct attempt a = {.state = ATTEMPT_INSTALLING,
			    .installing_us = NOW - 10 * US_PER_S,
			    .version = "2.0.0",
			    .from_version = "1.0.0"};
	struct checkin c = {.device_id = "esp32_001",
			    .model = MODEL,
			    .version = "1.0.0",
			    .hw = "",
			    .has_uptime = true,
			    .uptime_s = 2};

	(void)state;
	d.state.booted_us = NOW - 40 * US_PER_S;
	assert_false(checkin_has_news(&c, &d.state, NOW));
	d.state.attempt = &a;
	assert_true(checkin_has_news(&c, &d.state, NOW));
	c.uptime_s = 39;
	assert_false(checkin_has_news(&c, &d.state, NOW));
	d.state.booted_us = NOW - 2 * US_PER_S;
	c.uptime_s = 1;
	assert_false(checkin_has_news(&c, &d.state, NOW));
}

struct judged {
	struct world w;
	struct device d;
	struct attempt a;
	struct release *target;
};

static void judged_init(struct judged *j, enum attempt_state state)
{
	world_init(&j->w);
	world_release(&j->w, "1.0.0");
	j->target = world_release(&j->w, "2.0.0");
	j->d = world_device("esp32_001", "1.0.0");
	j->a = (struct attempt){.id = 1,
				.release_id = j->target->id,
				.state = state,
				.version = "2.0.0",
				.from_version = "1.0.0",
				.installing_us =
					state >= ATTEMPT_INSTALLING ? NOW - 60 * US_PER_S : 0};
	j->d.state.attempt = &j->a;
}

static struct checkin_verdict judge(const struct judged *j, int64_t now)
{
	const struct checkin_params p = {now, GRACE};

	return checkin_judge(&j->d, j->target, j->w.model.releases, &p);
}

static void judge_target_and_old(void **state)
{
	struct judged j;

	(void)state;
	for (int s = ATTEMPT_PENDING; s <= ATTEMPT_INSTALLING; s++) {
		judged_init(&j, (enum attempt_state)s);
		j.d.state.version = "v2.0.0";
		struct checkin_verdict v = judge(&j, NOW);
		assert_int_equal(v.event, EVENT_SEEN_TARGET);
		assert_true(v.settles && !v.learns && !v.moved_on);
	}
	/* The old version: nothing before the installation, however long it lasts. */
	for (int s = ATTEMPT_PENDING; s <= ATTEMPT_DOWNLOADED; s++) {
		judged_init(&j, (enum attempt_state)s);
		j.d.state.booted_us = j.d.state.boot_seen_us = NOW;
		assert_int_equal(judge(&j, NOW + 10 * GRACE).event, EVENT_NONE);
	}
	for (int s = ATTEMPT_INSTALLING; s <= ATTEMPT_SUCCESS; s++) {
		judged_init(&j, (enum attempt_state)s);
		assert_int_equal(judge(&j, NOW).event,
				 EVENT_NONE); /* it may not have restarted yet */
		assert_int_equal(judge(&j, j.a.installing_us + GRACE - 1).event, EVENT_NONE);
		assert_int_equal(judge(&j, j.a.installing_us + GRACE).event, EVENT_SEEN_OLD);
		j.d.state.booted_us = j.a.installing_us - 1; /* a boot before it proves nothing */
		assert_int_equal(judge(&j, NOW).event, EVENT_NONE);
		j.d.state.booted_us = j.a.installing_us + 1;
		assert_int_equal(judge(&j, NOW).event, EVENT_SEEN_OLD);
		j.d.state.booted_us = 0;
		j.d.state.boot_seen_us = j.a.installing_us - 1;
		assert_int_equal(judge(&j, NOW).event, EVENT_NONE);
		j.d.state.boot_seen_us = j.a.installing_us + 1;
		assert_int_equal(judge(&j, NOW).event, EVENT_SEEN_OLD);
	}
	j.a.settled = true;
	assert_int_equal(judge(&j, NOW).event, EVENT_NONE);
}

static void judge_other_names(void **state)
{
	struct judged j;

	(void)state;
	judged_init(&j, ATTEMPT_SUCCESS);
	j.d.state.version = "2.0.0";
	struct checkin_verdict v = judge(&j, NOW);
	assert_true(v.settles && !v.learns && v.event == EVENT_NONE);
	j.d.state.version = "whatever";
	v = judge(&j, NOW);
	assert_true(v.settles && v.learns && !v.moved_on);
	world_release(&j.w, "3.0.0");
	j.d.state.version = "3.0.0";
	v = judge(&j, NOW);
	assert_true(v.settles && v.moved_on && !v.learns);
	j.d.state.version = "";
	assert_false(judge(&j, NOW).settles);
	j.d.state.attempt = NULL;
	assert_int_equal(judge(&j, NOW).event, EVENT_NONE);
}

/*
 * Installing, and then neither the old version nor the target: while nothing proves a restart it
 * waits; then it is over, or the device would be told to wait for ever.
 */
static void judge_third_version(void **state)
{
	struct judged j;

	(void)state;
	judged_init(&j, ATTEMPT_INSTALLING);
	j.d.state.version = "1.5.0";
	assert_int_equal(judge(&j, NOW).event, EVENT_NONE);
	assert_int_equal(judge(&j, j.a.installing_us + GRACE).event, EVENT_REPORT_FAILED);
	j.d.state.booted_us = j.a.installing_us + 1;
	assert_int_equal(judge(&j, NOW).event, EVENT_REPORT_FAILED);
	/* But the image's own name, even one that it shares, means that it runs. */
	struct release *other = world_release(&j.w, "1.5.0");
	j.target->inner_version = other->inner_version = "1.5.0";
	releases_mark_unique(j.w.model.releases);
	struct checkin_verdict v = judge(&j, NOW);
	assert_int_equal(v.event, EVENT_SEEN_TARGET);
	assert_true(v.settles);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(news),
		cmocka_unit_test(absurd_uptime),
		cmocka_unit_test(boot_after_installing_is_news),
		cmocka_unit_test(judge_target_and_old),
		cmocka_unit_test(judge_other_names),
		cmocka_unit_test(judge_third_version),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
