/* SPDX-License-Identifier: MIT */
/* core/decide and core/runs: what a device is offered and why, case by case and with random fleets.
 */
#include "core/decide.h"

#include "core/version.h"
#include "core_world.h"
#include "random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define NOW (INT64_C(1800000000) * US_PER_S)
static const struct decide_params params = {.now_us = NOW, .stale_us = 180 * US_PER_S};

/* Every reason has a name of its own and a sentence that names what it speaks of. */
static void check_sentence(const struct device *d, const struct decision *x)
{
	char text[512], tiny[8];

	memset(tiny, 'x', sizeof tiny);
	reason_sentence(d, x, text, sizeof text);
	reason_sentence(d, x, tiny, sizeof tiny);
	assert_true(strlen(text) > 10 && text[strlen(text) - 1] == '.');
	assert_non_null(memchr(tiny, '\0', sizeof tiny));
	switch (x->reason) {
	case REASON_OFFER:
	case REASON_IN_PROGRESS:
	case REASON_INSTALLING:
	case REASON_DOWNGRADE:
	case REASON_BELOW_MIN_VERSION:
	case REASON_MIN_VERSION_INCOMPARABLE:
	case REASON_IN_VAIN:
	case REASON_RETRY_LATER:
	case REASON_OUTSIDE_WINDOW:
	case REASON_WAITS:
	case REASON_NO_PLACE:
	case REASON_VARIANT_HELD:
	case REASON_HALTED:
	case REASON_STOPPED:
	case REASON_TOO_MANY_FAILURES: assert_non_null(strstr(text, x->release->version)); break;
	case REASON_BELOW_REQUIRED:
	case REASON_REQUIRED_INCOMPARABLE:
	case REASON_INACTIVE:
	case REASON_NOT_NAMED:
	case REASON_OUTSIDE_PERCENT:
	case REASON_OTHER_MODEL:
	case REASON_NOT_ON_IT:
	case REASON_TAKEN_BACK:
	case REASON_NEWER_ROLLOUT_WINS: assert_non_null(strstr(text, x->rollout->name)); break;
	case REASON_NOT_IN_GROUP: assert_non_null(strstr(text, x->rollout->target.group)); break;
	case REASON_UP_TO_DATE:
	case REASON_NO_ROLLOUT:
	case REASON_MODEL_UNKNOWN:
		assert_non_null(strstr(text, x->reason == REASON_UP_TO_DATE ? d->state.version
									    : d->state.model));
		break;
	case REASONS: fail();
	}
}

static void expect(const struct device *d, const struct world *w, enum reason want,
		   const struct rollout *by)
{
	struct decision x = decide(d, &w->model, &params);

	if (x.reason != want || x.rollout != by)
		fail_msg("%s (%s), expected %s (%s)", reason_name(x.reason),
			 x.rollout ? x.rollout->name : "-", reason_name(want), by ? by->name : "-");
	check_sentence(d, &x);
}

static void each_reason(void **state)
{
	struct world w;
	struct device d = world_device("esp32_001", "1.0.0");
	struct list_of nobody = {1, {"other"}};
	struct failure_count failures[] = {{0}, {0}};

	(void)state;
	world_init(&w);
	assert_int_equal(decide(&d, NULL, &params).reason, REASON_MODEL_UNKNOWN);
	expect(&d, &w, REASON_MODEL_UNKNOWN, NULL);
	struct release *r = world_release(&w, "2.0.0");
	expect(&d, &w, REASON_NO_ROLLOUT, NULL);
	struct rollout *o = world_rollout(&w, r, TARGET_ALL);
	expect(&d, &w, REASON_OFFER, o);
	o->active = false;
	expect(&d, &w, REASON_NO_ROLLOUT, NULL);
	assert_int_equal(decide_rollout(&d, o), REASON_INACTIVE);
	o->active = true;
	o->target.type = TARGET_SPECIFIC;
	o->target.device_ids = (struct string_list *)&nobody;
	expect(&d, &w, REASON_NOT_NAMED, o);
	o->target.type = TARGET_GROUP;
	o->target.group = "beta";
	expect(&d, &w, REASON_NOT_IN_GROUP, o);
	o->target.type = TARGET_CANARY;
	o->target.percent = 1;
	d.hash = r->salt ^ 1; /* some bucket outside 1 % */
	while (target_includes(o, &d))
		d.hash++;
	expect(&d, &w, REASON_OUTSIDE_PERCENT, o);
	o->lowest_hash = target_bucket(&d, r);
	expect(&d, &w, REASON_OFFER, o);
	o->target.percent = 100;
	d.state.version = "3.0.0";
	expect(&d, &w, REASON_DOWNGRADE, o);
	o->allow_downgrade = true;
	expect(&d, &w, REASON_OFFER, o);
	o->allow_downgrade = false;
	d.state.version = "foo"; /* incomparable: no reason to refuse */
	expect(&d, &w, REASON_OFFER, o);
	d.state.version = "";
	expect(&d, &w, REASON_OFFER, o);
	r->min_version = "1.1.0";
	expect(&d, &w, REASON_MIN_VERSION_INCOMPARABLE, o);
	d.state.version = "1.0.9";
	expect(&d, &w, REASON_BELOW_MIN_VERSION, o);
	d.state.version = "v1.1.0";
	expect(&d, &w, REASON_OFFER, o);
	d.state.version = "1.1.0-rc.1"; /* before 1.1.0 */
	expect(&d, &w, REASON_BELOW_MIN_VERSION, o);
	/* The rollout's own least version, besides the release's. */
	r->min_version = "1.0.0";
	o->requires = "1.1.0";
	expect(&d, &w, REASON_BELOW_REQUIRED, o);
	d.state.version = "foo";
	r->min_version = "";
	expect(&d, &w, REASON_REQUIRED_INCOMPARABLE, o);
	d.state.version = "1.1.0";
	expect(&d, &w, REASON_OFFER, o);
	o->requires = "";
	failures[0] = (struct failure_count){.release_id = r->id, .count = 3};
	d.state.failures = failures;
	expect(&d, &w, REASON_TOO_MANY_FAILURES, o);
	failures[0].count = 2;
	expect(&d, &w, REASON_OFFER, o);
	failures[0] = (struct failure_count){.release_id = r->id + 7,
					     .count = 9}; /* at another release */
	expect(&d, &w, REASON_OFFER, o);
	d.state.failures = NULL;
	d.state.version = "v2.0.0";
	expect(&d, &w, REASON_UP_TO_DATE, o);
	d.state.model = "esp32";
	assert_int_equal(decide_rollout(&d, o), REASON_OTHER_MODEL);
	struct decision x = {.reason = REASON_OTHER_MODEL, .release = r, .rollout = o};
	check_sentence(&d, &x);
	x.reason = REASON_INACTIVE;
	check_sentence(&d, &x);
	x.reason = REASON_NEWER_ROLLOUT_WINS;
	check_sentence(&d, &x);
	for (int i = 0; i < REASONS; i++) {
		assert_non_null(reason_name((enum reason)i));
		for (int j = 0; j < i; j++)
			assert_string_not_equal(reason_name((enum reason)i),
						reason_name((enum reason)j));
	}
}

static void newest_wins(void **state)
{
	struct world w;
	struct device d = world_device("esp32_001", "aaa");

	(void)state;
	world_init(&w);
	struct release *b = world_release(&w, "bbb"), *c = world_release(&w, "ccc");
	struct rollout *rb = world_rollout(&w, b, TARGET_ALL),
		       *rc = world_rollout(&w, c, TARGET_ALL);
	expect(&d, &w, REASON_OFFER, rc);
	rc->target.type = TARGET_GROUP;
	rc->target.group = "x";
	expect(&d, &w, REASON_OFFER, rb);
	rc->target.type = TARGET_ALL;
	/* Up to date with the newest: an older rollout of what cannot be compared changes nothing.
	 */
	d.state.version = "ccc";
	expect(&d, &w, REASON_UP_TO_DATE, rc);
	d.state.version = "bbb";
	expect(&d, &w, REASON_OFFER, rc);
	/* The newest that it may take: one it may not take does not stop the older one. */
	c->min_version = "1.0.0";
	d.state.version = "aaa";
	expect(&d, &w, REASON_OFFER, rb);
	/* A newer upload without a rollout changes nothing for anyone. */
	world_release(&w, "9.9.9");
	expect(&d, &w, REASON_OFFER, rb);
	/* Of several refusals the nearest to an offer is told. */
	rb->target.type = TARGET_GROUP;
	rb->target.group = "x";
	expect(&d, &w, REASON_MIN_VERSION_INCOMPARABLE, rc);
}

/* A rollout that requires a version, and an older one that brings devices there. */
static void stepping_stones(void **state)
{
	struct world w;
	struct device d = world_device("esp32_001", "1.0.0");

	(void)state;
	world_init(&w);
	struct release *stone = world_release(&w, "1.5.0"), *r = world_release(&w, "2.0.0");
	struct rollout *first = world_rollout(&w, stone, TARGET_ALL),
		       *then = world_rollout(&w, r, TARGET_ALL);
	then->requires = "1.5.0";
	expect(&d, &w, REASON_OFFER, first);
	d.state.version = "1.5.0";
	expect(&d, &w, REASON_OFFER, then);
	d.state.version = "2.0.0";
	expect(&d, &w, REASON_UP_TO_DATE, then);
}

static void in_progress(void **state)
{
	struct world w;
	struct device d = world_device("esp32_001", "1.0.0");
	struct attempt a = {.id = 1,
			    .percent = -1,
			    .version = "2.0.0",
			    .from_version = "1.0.0",
			    .state = ATTEMPT_PENDING,
			    .reported_us = NOW};

	(void)state;
	world_init(&w);
	struct release *r2 = world_release(&w, "2.0.0"), *r3 = world_release(&w, "3.0.0");
	struct rollout *o2 = world_rollout(&w, r2, TARGET_ALL);
	a.release_id = r2->id;
	a.rollout_id = o2->id;
	d.state.attempt = &a;
	expect(&d, &w, REASON_OFFER, o2);
	/* Another rollout of the same release: the offer stays the first one's while that includes
	 * it. */
	struct rollout *again = world_rollout(&w, r2, TARGET_ALL);
	expect(&d, &w, REASON_OFFER, o2);
	o2->target.type = TARGET_GROUP;
	o2->target.group = "gone";
	expect(&d, &w, REASON_OFFER, again);
	o2->target.type = TARGET_ALL;
	o2->active = false;
	expect(&d, &w, REASON_OFFER, again);
	again->active = false;
	expect(&d, &w, REASON_NO_ROLLOUT, NULL); /* what waits is taken back ... */
	a.state = ATTEMPT_DOWNLOADING;
	expect(&d, &w, REASON_IN_PROGRESS, o2); /* ... what has begun runs to its end */
	a.state = ATTEMPT_DOWNLOADED;
	expect(&d, &w, REASON_IN_PROGRESS, o2);
	/* A newer release waits for it, until it has stopped for long. */
	struct rollout *o3 = world_rollout(&w, r3, TARGET_ALL);
	expect(&d, &w, REASON_IN_PROGRESS, o2);
	a.reported_us = NOW - params.stale_us;
	expect(&d, &w, REASON_OFFER, o3);
	o3->active = false;
	expect(&d, &w, REASON_IN_PROGRESS, o2); /* nothing would take its place */
	o3->active = true;
	a.state = ATTEMPT_INSTALLING; /* an installation is never disturbed */
	expect(&d, &w, REASON_INSTALLING, o2);
	a.state = ATTEMPT_SUCCESS;
	expect(&d, &w, REASON_INSTALLING, o2);
	a.settled = true;
	expect(&d, &w, REASON_OFFER, o3);
	a.settled = false;
	a.state = ATTEMPT_PENDING;
	expect(&d, &w, REASON_OFFER, o3); /* waiting offers give way at once */
	assert_true(decision_offers(&(struct decision){.reason = REASON_IN_PROGRESS}));
	assert_false(decision_offers(&(struct decision){.reason = REASON_INSTALLING}));
}

/* --- the gate --- */

static struct gate_word says(void *ctx, const struct device *d, const struct rollout *r)
{
	assert_true(d && r);
	return *(const struct gate_word *)ctx;
}

/* The gate is asked of what would be offered, and of what was offered and not begun; what has begun
 * goes on. */
static void what_the_gate_says(void **state)
{
	static const struct {
		enum gate_answer answer;
		enum reason first, again;
	} cases[] = {
		{GATE_FREE, REASON_OFFER, REASON_OFFER},
		{GATE_FULL, REASON_NO_PLACE, REASON_OFFER},
		{GATE_VARIANT_FULL, REASON_NO_PLACE, REASON_OFFER},
		{GATE_CLOGGED, REASON_NO_PLACE, REASON_OFFER},
		{GATE_HALTED, REASON_HALTED, REASON_HALTED},
		{GATE_VARIANT_HELD, REASON_VARIANT_HELD, REASON_VARIANT_HELD},
	};
	struct world w;
	world_init(&w);
	struct release *r = world_release(&w, "2.0.0");
	struct rollout *o = world_rollout(&w, r, TARGET_ALL);
	struct device d = world_device("d1", "1.0.0");
	struct attempt a = {.release_id = r->id, .rollout_id = o->id};
	char text[400];

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct gate_word word = {cases[i].answer, 2, 2};
		struct decide_params p = {.now_us = NOW, .ask = says, .ask_ctx = &word};
		d.state.attempt = NULL;
		struct decision x = decide(&d, &w.model, &p);
		assert_int_equal(x.reason, cases[i].first);
		check_sentence(&d, &x);
		if (x.reason == REASON_NO_PLACE) {
			reason_sentence(&d, &x, text, sizeof text);
			assert_non_null(strstr(text, "2 of the 2 devices"));
		}
		d.state.attempt = &a;
		a.state = ATTEMPT_PENDING;
		assert_int_equal(decide(&d, &w.model, &p).reason, cases[i].again);
		a.state = ATTEMPT_DOWNLOADING;
		a.reported_us = NOW;
		assert_int_equal(decide(&d, &w.model, &p).reason, REASON_IN_PROGRESS);
	}
}

/* --- which release a device runs --- */

static void names_of_releases(void **state)
{
	struct world w;
	struct device d = world_device("esp32_001", "1.0.0");
	struct list_of learnt = {2, {"odd", "rc-build"}};

	(void)state;
	world_init(&w);
	struct release *a = world_release(&w, "1.0.0"), *b = world_release(&w, "2.0.0");
	assert_true(runs_release(&d, a));
	assert_false(runs_release(&d, b));
	d.state.version = "v2.0.0";
	assert_true(runs_release(&d, b));
	/* The name inside, where it is one release's only. */
	b->inner_version = "2.0.0-inside";
	releases_mark_unique(w.model.releases);
	d.state.version = "2.0.0-inside";
	assert_true(runs_release(&d, b));
	a->inner_version = "2.0.0-inside";
	releases_mark_unique(w.model.releases);
	assert_false(runs_release(&d, a) || runs_release(&d, b));
	/* A learnt one likewise. */
	b->learnt = (struct string_list *)&learnt;
	releases_mark_unique(w.model.releases);
	d.state.version = "rc-build";
	assert_true(runs_release(&d, b));
	a->inner_version = "rc-build";
	releases_mark_unique(w.model.releases);
	assert_false(runs_release(&d, b));
	d.state.version = "odd"; /* the other one is still its own */
	assert_true(runs_release(&d, b));
	d.state.version = "rc-build";
	/* What the device called itself since its success. */
	d.state.ran_release_id = b->id;
	d.state.ran_as = "rc-build";
	assert_true(runs_release(&d, b));
	d.state.ran_as = "";
	assert_false(runs_release(&d, b));
	/* Another model's release of the same name is another. */
	d.state.version = "1.0.0";
	d.state.model = "esp32";
	assert_false(runs_release(&d, a));
}

static void digests(void **state)
{
	struct world w;
	struct device d = world_device("esp32_001", "whatever");
	struct device_digests g = {0};

	(void)state;
	world_init(&w);
	struct release *a = world_release(&w, "1.0.0");
	d.state.digests = &g;
	assert_false(runs_release(&d, a));
	g.has_firmware = true;
	memcpy(g.firmware, a->sha256, DIGEST_SIZE);
	assert_true(runs_release(&d, a));
	memset(g.firmware, 0x55, DIGEST_SIZE);
	assert_false(runs_release(&d, a));
	a->has_image_digest = true;
	memset(a->image_digest, 0x55, DIGEST_SIZE);
	assert_true(runs_release(&d, a));
	g.has_firmware = false;
	g.has_elf = a->has_elf_digest = true;
	memset(g.elf, 0x66, DIGEST_SIZE);
	memset(a->elf_digest, 0x66, DIGEST_SIZE);
	assert_true(runs_release(&d, a));
	a->has_elf_digest = false;
	assert_false(runs_release(&d, a));
	/* All zero is what builds leave there that fill nothing in: it names no release. */
	a->has_elf_digest = a->has_image_digest = g.has_firmware = true;
	memset(a->elf_digest, 0, DIGEST_SIZE);
	memset(a->image_digest, 0, DIGEST_SIZE);
	memset(&g.elf, 0, DIGEST_SIZE);
	memset(&g.firmware, 0, DIGEST_SIZE);
	assert_false(runs_release(&d, a));
}

static void after_success(void **state)
{
	struct world w;
	struct device d = world_device("esp32_001", "2.0RC2");
	struct device_digests g = {.has_firmware = true};
	struct attempt at = {
		.from_version = "2.0RC2", .version = "2.0RC4", .state = ATTEMPT_SUCCESS};

	(void)state;
	world_init(&w);
	world_release(&w, "2.0RC2");
	struct release *rc3 = world_release(&w, "2.0RC3"), *rc4 = world_release(&w, "2.0RC4");
	struct release *all = w.model.releases;
	rc4->inner_version =
		"2.0RC3"; /* mislabelled: it calls itself what another release is called */
	rc3->inner_version = "2.0RC3";
	releases_mark_unique(all);
	at.release_id = rc4->id;
	assert_int_equal(runs_after_success(&d, &at, rc4, all), SIGHTING_OLD);
	d.state.version = "2.0RC4";
	assert_int_equal(runs_after_success(&d, &at, rc4, all), SIGHTING_TARGET);
	d.state.version = "new-name";
	assert_int_equal(runs_after_success(&d, &at, rc4, all), SIGHTING_LEARNT);
	/* It said success and calls itself what the image calls itself: it runs it, or it would be
	 * offered it for ever. */
	d.state.version = "2.0RC3";
	assert_int_equal(runs_after_success(&d, &at, rc4, all), SIGHTING_TARGET);
	at.from_version = "2.0RC3";
	assert_int_equal(runs_after_success(&d, &at, rc4, all), SIGHTING_TARGET);
	/* ... unless the digest it sends is another image's. */
	rc4->has_image_digest = true;
	memset(rc4->image_digest, 0x44, DIGEST_SIZE);
	memset(g.firmware, 0x33, DIGEST_SIZE);
	d.state.digests = &g;
	assert_int_equal(runs_after_success(&d, &at, rc4, all), SIGHTING_OLD);
	at.from_version = "2.0RC2";
	assert_int_equal(runs_after_success(&d, &at, rc4, all), SIGHTING_OTHER);
	memset(g.firmware, 0x44, DIGEST_SIZE);
	assert_int_equal(runs_after_success(&d, &at, rc4, all), SIGHTING_TARGET);
	d.state.digests = NULL;
	/* Another release's name that this image does not bear. */
	rc4->inner_version = "";
	releases_mark_unique(all);
	assert_int_equal(runs_after_success(&d, &at, rc4, all), SIGHTING_OTHER);
}

/* --- what is taken back --- */

static void takes_back(void **state)
{
	struct world w;
	struct list_of others = {1, {"1.1.0"}};
	struct device d = world_device("esp32_001", "2.0.0");

	(void)state;
	world_init(&w);
	struct release *first = world_release(&w, "1.0.0");
	world_release(&w, "1.1.0");
	struct release *bad = world_release(&w, "2.0.0");
	struct rollout *o = world_rollout(&w, bad, TARGET_ALL);
	struct rollout *t = world_rollout(&w, first, TARGET_ALL);
	t->allow_downgrade = true;
	t->back = (struct takeback){.rollout_id = o->id, .from = bad};
	/* Without the rest: those that are known to have run its release. */
	const struct {
		const char *runs, *from;
		bool ran, rest;
		enum reason want;
	} cases[] = {
		{"2.0.0", "1.0.0", true, false, REASON_OFFER},
		{"2.0.0", "v1.0.0", true, false, REASON_OFFER},
		{"2.0.0", "1.0.0", false, false, REASON_NOT_ON_IT}, /* of another success */
		{"2.0.0", "", true, false, REASON_NOT_ON_IT},
		{"2.0.0", "0.9.0", true, false, REASON_NOT_ON_IT},
		{"2.0.0", "0.9.0", true, true, REASON_OFFER},
		{"2.0.0", "1.0.0", false, true, REASON_OFFER},
		{"2.0.0", "1.1.0", true, true, REASON_NOT_ON_IT}, /* another rollout's */
		{"2.0.0", "1.1.0", false, true, REASON_OFFER},
		{"1.0.0", "", true, true, REASON_NOT_ON_IT},
		{"3.0.0", "1.0.0", true, true, REASON_NOT_ON_IT},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		d.state.version = cases[i].runs;
		d.state.ran_from = cases[i].from;
		d.state.ran_release_id = cases[i].ran ? bad->id : first->id;
		t->back.rest = cases[i].rest;
		t->back.others = cases[i].rest ? (struct string_list *)&others : NULL;
		if (decide_rollout(&d, t) != cases[i].want)
			fail_msg("case %zu: %s", i, reason_name(decide_rollout(&d, t)));
	}
	/* The bad release is not offered again behind its back, by one before it it is. */
	d.state.version = "1.0.0";
	expect(&d, &w, REASON_TAKEN_BACK, o);
	t->walk.state = ROLLOUT_HALTED;
	t->active = false;
	expect(&d, &w, REASON_TAKEN_BACK, o);
	t->walk.state = ROLLOUT_ABORTED;
	expect(&d, &w, REASON_OFFER, o);
	t->walk.state = ROLLOUT_RUNNING;
	t->active = true;
	struct rollout *again = world_rollout(&w, bad, TARGET_ALL);
	expect(&d, &w, REASON_OFFER, again);
}

/* Whatever is taken back, a device that takes what it is offered comes to rest, and never comes by
 * a version twice. */
static void comes_to_rest(void **state)
{
	static const char *const versions[] = {"1.0.0", "1.1.0", "2.0.0", "foo", "bar"};
	int offers = 0;

	(void)state;
	random_begin("comes to rest");
	for (int round = 0; round < 20000; round++) {
		struct world w;
		bool seen[5] = {false};
		world_init(&w);
		for (int i = 0; i < 5; i++)
			world_release(&w, versions[i]);
		for (int i = random_below(4) + 1; i > 0; i--) {
			struct rollout *r =
				world_rollout(&w, &w.releases[random_below(5)], TARGET_ALL);
			r->allow_downgrade = random_below(2) != 0;
			if (random_below(4) == 0)
			r->requires = versions[random_below(3)];
		}
		int plain = w.rollout_count;
		for (int i = random_below(3); i > 0; i--) {
			const struct rollout *o = &w.rollouts[random_below(plain)];
			struct release *to = &w.releases[random_below(5)];
			bool unwanted = to == o->release;
			for (int k = plain; k < w.rollout_count; k++)
				unwanted |= w.rollouts[k].back.from == to ||
					    w.rollouts[k].release == o->release;
			if (unwanted)
				continue;
			struct rollout *t = world_rollout(&w, to, TARGET_ALL);
			t->allow_downgrade = true;
			t->back = (struct takeback){o->id, o->release, random_below(2) != 0, NULL};
		}
		int at = random_below(5);
		struct device d = world_device("d", versions[at]);
		for (;;) {
			struct decision x = decide(&d, &w.model, &params);
			seen[at] = true;
			if (!decision_offers(&x))
				break;
			offers++;
			d.state.ran_from = d.state.version;
			d.state.ran_release_id = x.release->id;
			d.state.version = x.release->version;
			at = (int)(x.release - w.releases);
			if (seen[at])
				fail_msg("round %d: %s comes again", round, d.state.version);
		}
	}
	assert_true(offers > 10000);
}

/* --- random fleets --- */

static const char *const some_versions[] = {"1.0.0",
					    "1.1.0",
					    "2.0.0",
					    "v2.0.0",
					    "foo",
					    "bar",
					    "abc1234-20260101-000000",
					    "abc1234-20260202-000000",
					    ""};

static const char *random_version(void)
{
	return some_versions[random_below(8)];
}

static void random_world(struct world *w, struct list_of *group)
{
	world_init(w);
	for (int i = 1 + random_below(5); i > 0; i--) {
		bool have = false;
		const char *v = random_version();
		for (int k = 0; k < w->release_count; k++)
			have |= strcmp(w->releases[k].version, v) == 0;
		if (have)
			continue;
		struct release *r = world_release(w, v);
		r->min_version = random_below(3) ? "" : "1.1.0";
		r->inner_version = random_below(2) ? "" : random_version();
		r->deleted = random_below(6) == 0;
	}
	releases_mark_unique(w->model.releases);
	for (int i = random_below(7); i > 0; i--) {
		struct release *r = &w->releases[random_below(w->release_count)];
		struct rollout *o = world_rollout(w, r, (enum target_type)random_below(3));
		o->target.group =
			o->target.type == TARGET_GROUP ? group->items[random_below(2)] : "";
		o->target.percent = 1 + random_below(100);
		/* The service lets nobody activate what was deleted. */
		o->active = !r->deleted && random_below(4) > 0;
		o->allow_downgrade = random_below(3) == 0;
		o->requires = random_below(4) ? "" : "1.1.0";
	}
}

static void random_fleets(void **state)
{
	static struct list_of names = {2, {"beta", "kitchen"}}, mine = {1, {"beta"}};
	struct world w;
	int offers = 0;

	(void)state;
	random_begin("decide");
	for (int round = 0; round < 100000; round++) {
		char id[32];
		random_world(&w, &names);
		sprintf(id, "d%d", random_below(1000));
		struct device d = world_device(id, some_versions[random_below(9)]);
		struct attempt a = {.percent = -1,
				    .version = "x",
				    .from_version = d.state.version,
				    .reported_us = NOW - random_below(400) * US_PER_S,
				    .state = (enum attempt_state)random_below(ATTEMPT_SUCCESS + 1)};
		if (random_below(2))
			d.state.groups = (const struct string_list *)&mine;
		if (random_below(3) == 0) {
			a.release_id = w.releases[random_below(w.release_count)].id;
			for (int k = 0; k < w.rollout_count; k++)
				if (w.rollouts[k].release->id == a.release_id && random_below(2))
					a.rollout_id = w.rollouts[k].id;
			d.state.attempt = &a;
		}
		struct decision x = decide(&d, &w.model, &params);
		check_sentence(&d, &x);
		if (x.reason == REASON_IN_PROGRESS || x.reason == REASON_INSTALLING) {
			assert_non_null(d.state.attempt);
			assert_true(a.state != ATTEMPT_PENDING && x.release->id == a.release_id);
			continue;
		}
		if (x.reason != REASON_OFFER)
			continue;
		offers++;
		assert_false(runs_release(&d, x.release));
		assert_true(x.rollout->active && x.rollout->release == x.release);
		assert_false(x.release->deleted);
		assert_true(target_includes(x.rollout, &d));
		if (!x.rollout->allow_downgrade)
			assert_true(version_compare(d.state.version, x.release->version) !=
				    VERSION_HIGHER);
		/* Having taken it, it is offered nothing more by that rollout: no going to and fro.
		 */
		struct device then = d;
		then.state.attempt = NULL;
		then.state.version = x.release->version;
		for (int hops = 0;; hops++) {
			struct decision y = decide(&then, &w.model, &params);
			if (y.reason != REASON_OFFER)
				break;
			if (hops > w.release_count)
				fail_msg("offers without end");
			then.state.version = y.release->version;
		}
	}
	assert_true(offers > 1000);
}

/* NOW is a Friday, 08:00 UTC. */
static void windows(void **state)
{
	struct world w;
	struct device d = world_device("esp32_001", "1.0.0");
	struct window night, day;
	struct ota_err err;
	char text[512];

	(void)state;
	assert_int_equal(window_parse("Mon-Fri,Sat 01:00-05:00 UTC", &night, &err), OTA_OK);
	assert_int_equal(window_parse("daily 06:00-20:00 UTC", &day, &err), OTA_OK);
	night.zone = day.zone = tz_new(0);
	world_init(&w);
	struct release *r1 = world_release(&w, "1.1.0"), *r2 = world_release(&w, "2.0.0");
	struct rollout *o1 = world_rollout(&w, r1, TARGET_ALL);
	struct rollout *o2 = world_rollout(&w, r2, TARGET_ALL);

	o2->window = &day;
	expect(&d, &w, REASON_OFFER, o2);
	o2->window = &night;
	/* It waits; the older one, which has no window, does not take its place. */
	expect(&d, &w, REASON_OUTSIDE_WINDOW, o2);
	struct decision x = decide(&d, &w.model, &params);
	assert_false(decision_offers(&x));
	assert_true(decision_keeps(&x, r2->id) && !decision_keeps(&x, r1->id));
	reason_sentence(&d, &x, text, sizeof text);
	assert_string_equal(text, "It runs 1.0.0 and gets 2.0.0 by rollout r2 inside its window, "
				  "which opens Sat 01:00 UTC (in 17 h).");
	struct decide_params stopped = params, later = params;
	stopped.stopped = true;
	later.now_us += 17 * 3600 * US_PER_S;
	assert_int_equal(decide(&d, &w.model, &stopped).reason, REASON_STOPPED);
	assert_int_equal(decide(&d, &w.model, &later).reason, REASON_OFFER);

	/* One that waits stays, what has begun goes on, and what is done is done. */
	struct attempt a = {.id = 1,
			    .release_id = r2->id,
			    .rollout_id = o2->id,
			    .state = ATTEMPT_PENDING,
			    .reported_us = NOW - US_PER_S,
			    .version = r2->version,
			    .from_version = "1.0.0"};
	d.state.attempt = &a;
	expect(&d, &w, REASON_OUTSIDE_WINDOW, o2);
	/* Another rollout of the same release, for those who cannot wait. */
	struct rollout *now = world_rollout(&w, r2, TARGET_ALL);
	expect(&d, &w, REASON_OFFER, now);
	o2->window = &day;
	expect(&d, &w, REASON_OFFER, o2);
	o2->window = &night;
	now->active = false;
	a.state = ATTEMPT_DOWNLOADING;
	expect(&d, &w, REASON_IN_PROGRESS, o2);
	a.reported_us = 0; /* silent for ever */
	expect(&d, &w, REASON_IN_PROGRESS, o2);
	a.state = ATTEMPT_INSTALLING;
	expect(&d, &w, REASON_INSTALLING, o2);
	/* What waits of another release is not meant any more. */
	a.state = ATTEMPT_PENDING;
	a.release_id = r1->id;
	a.rollout_id = o1->id;
	expect(&d, &w, REASON_OUTSIDE_WINDOW, o2);
	x = decide(&d, &w.model, &params);
	assert_false(decision_keeps(&x, a.release_id));
	d.state.attempt = NULL;
	d.state.version = "2.0.0";
	expect(&d, &w, REASON_UP_TO_DATE, o2);
	tz_free(&night.zone);
}

/* The rollout's window and those of all groups of the device: each alone may shut. */
static void windows_of_groups(void **state)
{
	enum { ROLLOUT = 1, KITCHEN = 2, PUMPS = 4, ATTIC = 8 };
	static const struct {
		int in, shut;      /* the device's groups; whose windows are shut */
		const char *whose; /* "" the rollout's; NULL: none */
	} cases[] = {
		{0, 0, NULL},
		{0, ROLLOUT, ""},
		{0, KITCHEN | PUMPS, NULL},
		{KITCHEN, KITCHEN, "kitchen"},
		{KITCHEN, PUMPS, NULL},
		{KITCHEN, ROLLOUT, ""},
		{KITCHEN | PUMPS, PUMPS, "pumps"},
		{KITCHEN | PUMPS, KITCHEN | PUMPS, "kitchen"},
		{KITCHEN | PUMPS, KITCHEN | PUMPS | ROLLOUT, ""},
		{ATTIC, KITCHEN | PUMPS, NULL}, /* it has no hours */
	};
	struct world w;
	struct window open, shut;
	struct ota_err err;
	char text[512];

	(void)state;
	assert_int_equal(window_parse("daily 06:00-20:00 UTC", &open, &err), OTA_OK);
	assert_int_equal(window_parse("daily 20:00-21:00 UTC", &shut, &err), OTA_OK);
	open.zone = shut.zone = tz_new(0);
	world_init(&w);
	struct rollout *o = world_rollout(&w, world_release(&w, "2.0.0"), TARGET_ALL);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct device d = world_device("esp32_001", "1.0.0");
		struct list_of in = {0};
		const char *const names[] = {"attic", "kitchen", "pumps"};
		const int bits[] = {ATTIC, KITCHEN, PUMPS};
		for (int k = 0; k < 3; k++)
			if (cases[i].in & bits[k])
				in.items[in.count++] = names[k];
		d.state.groups = in.count ? (struct string_list *)&in : NULL;
		struct group_window pumps = {"pumps", cases[i].shut & PUMPS ? &shut : &open, NULL};
		struct group_window kitchen = {"kitchen", cases[i].shut & KITCHEN ? &shut : &open,
					       &pumps};
		struct group_windows all = {&kitchen};
		struct decide_params p = params;
		p.groups = &all;
		o->window = cases[i].shut & ROLLOUT ? &shut : &open;
		struct decision x = decide(&d, &w.model, &p);
		const char *whose = x.reason == REASON_OFFER ? NULL : x.group ? x.group : "";
		if ((whose == NULL) != (cases[i].whose == NULL) ||
		    (whose && strcmp(whose, cases[i].whose) != 0))
			fail_msg("case %zu: %s", i, whose ? whose : "(offered)");
		if (!whose)
			continue;
		assert_int_equal(x.reason, REASON_OUTSIDE_WINDOW);
		assert_ptr_equal(x.window, &shut);
		reason_sentence(&d, &x, text, sizeof text);
		assert_non_null(strstr(text, whose));
	}
	tz_free(&open.zone);
}

/* From the deadline on nothing begins, paused or not yet. */
static void deadline(void **state)
{
	struct world w;
	struct device d = world_device("esp32_001", "1.0.0");

	(void)state;
	world_init(&w);
	struct rollout *o = world_rollout(&w, world_release(&w, "2.0.0"), TARGET_ALL);
	o->deadline_us = NOW + 1;
	expect(&d, &w, REASON_OFFER, o);
	o->deadline_us = NOW;
	expect(&d, &w, REASON_INACTIVE, o);
	struct attempt a = {.id = 1,
			    .release_id = o->release->id,
			    .rollout_id = o->id,
			    .reported_us = NOW - US_PER_S,
			    .version = "2.0.0",
			    .from_version = "1.0.0"};
	d.state.attempt = &a;
	a.state = ATTEMPT_PENDING;
	expect(&d, &w, REASON_INACTIVE, o);
	a.state = ATTEMPT_DOWNLOADING;
	expect(&d, &w, REASON_IN_PROGRESS, o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_reason),
		cmocka_unit_test(newest_wins),
		cmocka_unit_test(what_the_gate_says),
		cmocka_unit_test(stepping_stones),
		cmocka_unit_test(in_progress),
		cmocka_unit_test(names_of_releases),
		cmocka_unit_test(digests),
		cmocka_unit_test(after_success),
		cmocka_unit_test(takes_back),
		cmocka_unit_test(comes_to_rest),
		cmocka_unit_test(random_fleets),
		cmocka_unit_test(windows),
		cmocka_unit_test(windows_of_groups),
		cmocka_unit_test(deadline),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
