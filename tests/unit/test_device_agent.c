/* SPDX-License-Identifier: MIT */
/*
 * The agent's decisions, on a simulated device: a broken line at every block, an image that changes
 * in the middle, images that are wrong, trials that fail, reports that have to wait.
 */
#include "device/sim.h"
#include "agent.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

static struct sim_image old, new, other, huge;
static struct sim s;

static int images(void **state)
{
	(void)state;
	sim_image(&old, "1.0.0", 30 * SIM_BLOCK + 5, 1);
	sim_image(&new, "1.1.0", 40 * SIM_BLOCK + 123, 2);
	sim_image(&other, "1.1.0", 40 * SIM_BLOCK + 123, 3); /* the same version, rebuilt */
	sim_image(&huge, "2.0.0", SIM_SLOT + 1, 4);
	return 0;
}

static int begin(void **state)
{
	(void)state;
	sim_init(&s, &old, &new);
	return 0;
}

static int end(void **state)
{
	(void)state;
	sim_fini(&s);
	return 0;
}

static const struct sim_report *last_report(void)
{
	assert_true(s.report_count > 0);
	return &s.reports[s.report_count - 1];
}

static void assert_stays(enum paku_status status, enum paku_why why)
{
	assert_ptr_equal(sim_running(&s), &old);
	assert_string_equal(paku_version(&s.agent), "1.0.0");
	assert_int_equal(sim_reported(&s, PAKU_SUCCESS), 0);
	assert_int_equal(last_report()->status, status);
	assert_int_equal(last_report()->why, why);
	assert_string_equal(last_report()->version, "1.1.0");
	assert_string_equal(last_report()->attempt, "try0");
}

/* ---------------------------------------------------------------------------------- the happy way
 */

static void each_step_is_reported_once_and_in_order(void **state)
{
	(void)state;
	assert_true(sim_run(&s, 3));
	assert_ptr_equal(sim_running(&s), &new);
	assert_int_equal(s.boots, 2);
	assert_int_equal(s.sent, new.size);
	for (uint32_t i = 1; i < s.report_count; i++) {
		const struct sim_report *was = &s.reports[i - 1], *is = &s.reports[i];
		assert_true(is->status > was->status ||
			    (is->status == PAKU_DOWNLOADING && was->status == PAKU_DOWNLOADING &&
			     is->percent > was->percent));
	}
	assert_int_equal(sim_reported(&s, PAKU_DOWNLOADED), 1);
	assert_int_equal(sim_reported(&s, PAKU_INSTALLING), 1);
	assert_int_equal(sim_reported(&s, PAKU_SUCCESS), 1);
	assert_true(sim_reported(&s, PAKU_DOWNLOADING) <= 12);
	assert_false(s.lied);
}

static void nothing_offered_nothing_written(void **state)
{
	(void)state;
	s.offered = NULL;
	assert_true(sim_run(&s, 1));
	assert_int_equal(s.ops, 0);
	assert_int_equal(s.report_count, 0);
	assert_int_equal(s.checks, 1);
}

static void the_service_names_the_time_of_the_next_check(void **state)
{
	uint32_t wait_ms = 0;

	(void)state;
	s.offered = NULL;
	s.retry_after_s = 77;
	assert_true(sim_run(&s, 1));
	assert_int_equal(paku_step(&s.agent, &wait_ms), PAKU_WAIT);
	assert_int_equal(wait_ms, 77000);
	s.cfg.poll_fixed = true;
	assert_true(sim_run(&s, 1));
	assert_int_equal(paku_step(&s.agent, &wait_ms), PAKU_WAIT);
	assert_int_equal(wait_ms, s.cfg.poll_s * 1000);
}

/* After an update back to the version that is still in the other slot: nothing is loaded. */
static void an_image_that_is_there_is_not_loaded_again(void **state)
{
	(void)state;
	sim_image(&old, "1.0.0", 30 * SIM_BLOCK + 5, 1);
	assert_true(sim_run(&s, 3));
	s.known[2] = &other;
	sim_image(&other, "1.2.0", 20 * SIM_BLOCK, 3);
	s.offered = s.served = &other;
	assert_true(sim_run(&s, 3));
	assert_int_equal(s.agent.running, 0);
	s.sent = 0;
	s.offered = s.served = &new;
	assert_true(sim_run(&s, 3));
	assert_int_equal(s.agent.running, 1);
	assert_int_equal(s.sent, 0);
	assert_ptr_equal(sim_running(&s), &new);
	sim_image(&other, "1.1.0", 40 * SIM_BLOCK + 123, 3);
}

/* --------------------------------------------------------------------------------- the line breaks
 */

/* The other slot holds another whole image of that size: it is neither kept nor mistaken. */
static void another_image_of_the_same_size(void **state)
{
	struct sim_image third;

	(void)state;
	assert_true(sim_run(&s, 3));
	sim_image(&third, "1.0.9", 20 * SIM_BLOCK, 8);
	s.known[2] = s.offered = s.served = &third;
	assert_true(sim_run(&s, 3));
	sim_image(&third, "1.0.9", 20 * SIM_BLOCK, 8);
	s.known[3] = s.offered = s.served = &other;
	assert_true(sim_run(&s, 3));
	assert_int_equal(s.agent.running, 1);
	assert_ptr_equal(sim_running(&s), &other);
	assert_int_equal(sim_reported(&s, PAKU_FAILED), 0);
}

static void waits_have_their_jitter(void **state)
{
	uint32_t waits[8], low = UINT32_MAX, high = 0;

	(void)state;
	s.offered = NULL;
	for (uint32_t i = 0; i < 8; i++) {
		s.random = 1000 * i;
		assert_true(sim_run(&s, 1));
		assert_int_equal(paku_step(&s.agent, &waits[i]), PAKU_WAIT);
		low = waits[i] < low ? waits[i] : low;
		high = waits[i] > high ? waits[i] : high;
	}
	assert_true(low >= s.cfg.poll_s * 500 && high <= s.cfg.poll_s * 1000);
	assert_true(high - low > s.cfg.poll_s * 100);
}

static void line_cut_at_every_block(void **state)
{
	static const uint32_t within[] = {0, 1, SIM_BLOCK / 2, SIM_BLOCK - 1};

	(void)state;
	for (uint32_t cut = 0; cut < new.size; cut += SIM_BLOCK) {
		for (int i = 0; i < 4; i++) {
			sim_init(&s, &old, &new);
			s.net_cut_at = cut + within[i];
			assert_true(sim_run(&s, 3));
			assert_ptr_equal(sim_running(&s), &new);
			assert_int_equal(s.sent, new.size); /* not a byte twice */
			assert_int_equal(s.opens, cut + within[i] < new.size ? 2 : 1);
			assert_int_equal(s.ranged,
					 cut + within[i] && cut + within[i] < new.size ? 1 : 0);
			assert_int_equal(sim_reported(&s, PAKU_SUCCESS), 1);
			assert_false(s.lied);
			sim_fini(&s);
		}
	}
}

/* More breaks than max_tries, but each time something came through. */
static void a_bad_line_is_enough(void **state)
{
	(void)state;
	s.net_cut_at = s.net_cut_step = 2 * SIM_BLOCK;
	assert_true(sim_run(&s, 3));
	assert_ptr_equal(sim_running(&s), &new);
	assert_true(s.opens > s.cfg.max_tries + 5u);
	assert_int_equal(sim_reported(&s, PAKU_FAILED), 0);
	assert_int_equal(s.sent, new.size);
}

/* Damage to the flash while the device was off is seen before the rest is loaded on top of it. */
static void damaged_while_off(void **state)
{
	(void)state;
	for (uint32_t cut = 20; cut < 90; cut++) {
		sim_init(&s, &old, &new);
		s.cut_at = cut;
		s.reports_down = true; /* so that the record holds some */
		assert_false(sim_run(&s, 1));
		assert_int_equal(s.power_cuts, 1);
		s.reports_down = false;
		s.flash[1][3 * SIM_BLOCK + 7] ^= 4;
		assert_true(sim_run(&s, 3));
		assert_ptr_equal(sim_running(&s), &new);
		assert_int_equal(s.events[PAKU_EV_RESTARTED], 1);
		assert_int_equal(s.events[PAKU_EV_RESUME], 0);
		assert_int_equal(sim_reported(&s, PAKU_FAILED), 0);
		assert_false(s.lied);
		sim_fini(&s);
	}
}

/* The image is replaced while the line is down: everything that ends up in flash is of one image.
 */
static void changed_at_every_block(void **state)
{
	(void)state;
	for (int no_range = 0; no_range < 2; no_range++) {
		for (uint32_t cut = 1; cut < new.size; cut += SIM_BLOCK / 2) {
			sim_init(&s, &old, &new);
			s.known[2] = s.swap_to = &other;
			s.no_range = no_range;
			s.net_cut_at = cut;
			assert_true(sim_run(&s, 3));
			assert_ptr_equal(sim_running(&s), &other);
			assert_int_equal(s.events[PAKU_EV_CHANGED], 1);
			assert_int_equal(sim_reported(&s, PAKU_FAILED), 0);
			sim_fini(&s);
		}
	}
}

/* As above, but the offer goes on naming the first image: the SHA-256 of the flash says no. */
static void an_image_that_is_not_the_one_offered(void **state)
{
	(void)state;
	s.served = &other;
	s.max_attempts = 1;
	assert_true(sim_run(&s, 3));
	assert_stays(PAKU_FAILED, PAKU_WHY_HASH);
	assert_int_equal(s.restarts, 0);
}

static void without_an_etag_the_download_begins_again(void **state)
{
	(void)state;
	s.no_etag = 1;
	s.net_cut_at = 20 * SIM_BLOCK;
	assert_true(sim_run(&s, 3));
	assert_ptr_equal(sim_running(&s), &new);
	assert_int_equal(s.ranged, 0);
	assert_int_equal(s.sent, 20 * SIM_BLOCK + new.size);
}

static void an_answer_for_another_range_is_not_used(void **state)
{
	(void)state;
	s.wrong_from = 1;
	s.net_cut_at = 20 * SIM_BLOCK;
	assert_true(sim_run(&s, 3));
	assert_ptr_equal(sim_running(&s), &new);
	assert_int_equal(s.sent, 20 * SIM_BLOCK + new.size);
}

/* A line that never holds for a whole image, and nothing that lets it go on: no end, but one. */
static void loading_the_same_again_and_again_is_no_progress(void **state)
{
	(void)state;
	for (int which = 0; which < 3; which++) {
		sim_init(&s, &old, &new);
		s.max_attempts = 1;
		s.no_range = which == 0;
		s.no_etag = which == 1;
		s.new_etag = which == 2;
		s.net_cut_at = s.net_cut_step = 20 * SIM_BLOCK;
		assert_true(sim_run(&s, 3));
		assert_stays(PAKU_FAILED, PAKU_WHY_LINE);
		assert_true(s.opens > s.cfg.max_tries && s.opens <= 2u * s.cfg.max_tries + 4);
		/* On a better line the next attempt has all its tries. */
		s.max_attempts = 2;
		s.net_cut_step = 0;
		assert_true(sim_run(&s, 4));
		assert_ptr_equal(sim_running(&s), &new);
		sim_fini(&s);
	}
}

static void a_dead_line_fails_after_many_tries_and_keeps_what_it_has(void **state)
{
	(void)state;
	s.max_attempts = 1;
	s.http_status = 503;
	s.http_times = s.cfg.max_tries + 1u;
	assert_true(sim_run(&s, 3));
	assert_stays(PAKU_FAILED, PAKU_WHY_LINE);
	assert_int_equal(s.opens, s.cfg.max_tries + 1u);
	/* The tries came with growing pauses: 2 + 4 + ... + 256 s and more, at least half of that.
	 */
	assert_true(s.now_ms > 255 * 1000);
}

static void retry_after_of_a_busy_service_is_heeded(void **state)
{
	(void)state;
	s.http_status = 503;
	s.http_times = 1;
	s.retry_after_s = 500;
	assert_true(sim_run(&s, 3));
	assert_ptr_equal(sim_running(&s), &new);
	assert_true(s.now_ms >= 500 * 1000);
}

static void statuses_of_the_download(void **state)
{
	static const struct {
		int status;
		bool fails;
	} cases[] = {{404, true}, {403, true}, {409, true}, {410, false}, {416, true}, {302, true}};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		sim_init(&s, &old, &new);
		s.http_status = cases[i].status;
		s.http_times = 1;
		s.max_attempts = 1;
		assert_true(sim_run(&s, 3));
		if (cases[i].fails)
			assert_stays(PAKU_FAILED, PAKU_WHY_ABSENT);
		else /* taken back: asks again after the usual time, and here that goes well */
			assert_int_equal(sim_reported(&s, PAKU_FAILED), 0);
		sim_fini(&s);
	}
}

/* ------------------------------------------------------------------------------------- bad images
 */

static void larger_than_the_slot(void **state)
{
	(void)state;
	s.offered = s.served = &huge;
	s.max_attempts = 1;
	assert_true(sim_run(&s, 3));
	assert_int_equal(last_report()->why, PAKU_WHY_SPACE);
	assert_int_equal(s.opens, 0);
	assert_ptr_equal(sim_running(&s), &old);
}

static void exactly_as_large_as_the_slot(void **state)
{
	(void)state;
	sim_image(&huge, "2.0.0", SIM_SLOT, 4);
	s.known[1] = s.offered = s.served = &huge;
	assert_true(sim_run(&s, 3));
	assert_ptr_equal(sim_running(&s), &huge);
	sim_image(&huge, "2.0.0", SIM_SLOT + 1, 4);
}

static void of_another_size_than_offered(void **state)
{
	struct sim_image longer;

	(void)state;
	sim_image(&longer, "1.1.0", new.size + 1, 2);
	s.served = &longer;
	s.max_attempts = 1;
	assert_true(sim_run(&s, 3));
	assert_stays(PAKU_FAILED, PAKU_WHY_SIZE);
	assert_int_equal(s.sent, 0);
}

static void empty_image(void **state)
{
	struct sim_image empty;

	(void)state;
	sim_image(&empty, "1.1.0", 0, 1);
	s.offered = s.served = &empty;
	s.max_attempts = 1;
	assert_true(sim_run(&s, 3));
	assert_stays(PAKU_FAILED, PAKU_WHY_SIZE);
}

/* ------------------------------------------------------------------------------------ bad hardware
 */

/* An offer that leaves the size open: what the download says holds, with the same checks. */
static void the_size_is_learnt_from_the_download(void **state)
{
	struct sim_image odd;

	(void)state;
	s.size_untold = true;
	s.net_cut_at = 20 * SIM_BLOCK + 100;
	assert_true(sim_run(&s, 3));
	assert_ptr_equal(sim_running(&s), &new);
	assert_int_equal(s.ranged, 1);
	assert_int_equal(s.sent, new.size);

	for (int large = 0; large < 2; large++) {
		sim_fini(&s);
		sim_image(&odd, "1.1.0", large ? SIM_SLOT + 1 : 0, 2);
		sim_init(&s, &old, &odd);
		s.size_untold = true;
		s.max_attempts = 1;
		assert_true(sim_run(&s, 3));
		assert_stays(PAKU_FAILED, large ? PAKU_WHY_SPACE : PAKU_WHY_SIZE);
		assert_int_equal(s.sent, 0);
	}
}

/* Another image of another size at the URL, and the checksum of the command is that one's. */
static void a_size_that_was_learnt_does_not_outlive_its_image(void **state)
{
	struct sim_image longer;

	(void)state;
	sim_image(&longer, "1.1.0", new.size + SIM_BLOCK, 9);
	memcpy(new.sha256, longer.sha256, sizeof new.sha256);
	s.size_untold = true;
	s.net_cut_at = 20 * SIM_BLOCK + 100;
	s.swap_to = &longer;
	s.known[1] = &longer;
	assert_true(sim_run(&s, 3));
	assert_ptr_equal(sim_running(&s), &longer);
	images(NULL);
}

/* ----------------------------------------------------------------------------------- by command */

static struct paku_offer command(const struct sim_image *image)
{
	struct paku_offer offer = {.available = true, .size = PAKU_SIZE_UNKNOWN};

	snprintf(offer.version, sizeof offer.version, "%s", image->version);
	snprintf(offer.url, sizeof offer.url, "http://sim/x?attempt=try0");
	memcpy(offer.sha256, image->sha256, sizeof offer.sha256);
	return offer;
}

/* Taken at once, however long the wait for the next check would have been. */
static void a_command_is_taken_while_the_agent_waits(void **state)
{
	struct paku_offer offer = command(&new);
	uint32_t wait_ms;

	(void)state;
	s.offered = NULL;
	s.retry_after_s = 3600;
	assert_true(sim_run(&s, 1));
	assert_true(paku_take_offer(&s.agent, &offer));
	assert_false(paku_take_offer(&s.agent, &offer)); /* one at a time */
	while (paku_step(&s.agent, &wait_ms) != PAKU_RESTART)
		s.now_ms += wait_ms;
	assert_int_equal(s.checks, 1);
	assert_true(sim_run(&s, 3));
	assert_ptr_equal(sim_running(&s), &new);
	assert_string_equal(last_report()->attempt, "try0");
	assert_int_equal(last_report()->status, PAKU_SUCCESS);
}

/* A report that waits for its next try does not wait on once the line is back. */
static void the_line_is_back(void **state)
{
	struct paku_offer offer = command(&new);
	uint32_t wait_ms = 0;

	(void)state;
	s.offered = NULL;
	assert_true(sim_run(&s, 1));
	s.down = true;
	assert_true(paku_take_offer(&s.agent, &offer));
	while (s.agent.report_tries < 5) {
		(void)paku_step(&s.agent, &wait_ms);
		s.now_ms += wait_ms;
	}
	s.down = false;
	s.report_count = 0;
	paku_report_now(&s.agent);
	(void)paku_step(&s.agent, &wait_ms);
	assert_int_equal(s.report_count, 1);
}

static void attempts_in_urls(void **state)
{
	static const char *const cases[][2] = {
		{"http://h/f?attempt=A", "A"},
		{"http://h/f?a=1&attempt=AB&c", "AB"},
		{"http://h/f?attempt=A#x", "A"},
		{"http://h/f?xattempt=A", ""},
		{"http://h/attempt=A", ""},
		{"http://h/f", ""},
		{"http://h/f?attempt=", ""},
		{"?attempt=12345678901234567890123", "12345678901234567890123"},
		{"?attempt=123456789012345678901234", ""},
	};
	char attempt[PAKU_ATTEMPT_SIZE];

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		paku_attempt_of(cases[i][0], attempt);
		assert_string_equal(attempt, cases[i][1]);
	}
}

static void no_command_before_the_last_result_is_told(void **state)
{
	struct paku_offer offer = command(&new);
	uint32_t wait_ms;

	(void)state;
	s.served = &other;
	s.offered = NULL;
	assert_true(sim_run(&s, 1));
	s.reports_down = true;
	assert_true(paku_take_offer(&s.agent, &offer));
	while (strcmp(paku_phase_name(&s.agent), "check") != 0) {
		(void)paku_step(&s.agent, &wait_ms);
		s.now_ms += wait_ms;
	}
	assert_false(paku_take_offer(&s.agent, &offer));
	s.reports_down = false;
	while (!paku_idle(&s.agent)) {
		(void)paku_step(&s.agent, &wait_ms);
		s.now_ms += wait_ms;
	}
	assert_stays(PAKU_FAILED, PAKU_WHY_HASH);
	assert_true(paku_take_offer(&s.agent, &offer));
}

static void flash_that_does_not_erase(void **state)
{
	(void)state;
	memset(s.flash[1], 0, sizeof s.flash[1]); /* as if something were in it */
	s.bad_block = true;
	s.max_attempts = 1;
	assert_true(sim_run(&s, 3));
	assert_stays(PAKU_FAILED, PAKU_WHY_FLASH);
}

static void a_record_that_cannot_be_written(void **state)
{
	(void)state;
	s.record_fails = 1; /* at the begin: before the slot is touched */
	s.max_attempts = 1;
	assert_true(sim_run(&s, 3));
	assert_stays(PAKU_FAILED, PAKU_WHY_RECORD);
	assert_int_equal(s.opens, 0);
}

static void record_writes_that_fail_now_and_then(void **state)
{
	(void)state;
	for (uint32_t fails = 1; fails < 6; fails++) {
		sim_init(&s, &old, &new);
		s.record_fails = fails;
		assert_true(sim_run(&s, 20));
		assert_ptr_equal(sim_running(&s), &new);
		assert_int_equal(last_report()->status, PAKU_SUCCESS);
		sim_fini(&s);
	}
}

/* One copy rots: the other one says the same, or what was true one write before. */
static void one_rotten_copy_of_the_record(void **state)
{
	(void)state;
	for (int copy = 0; copy < 2; copy++) {
		for (size_t at = 0; at < sizeof(struct paku_record); at += 13) {
			sim_init(&s, &old, &new);
			assert_true(sim_run(&s, 3));
			s.record[copy][at] ^= 0x10;
			assert_true(sim_run(&s, 3));
			assert_ptr_equal(sim_running(&s), &new);
			sim_fini(&s);
		}
	}
}

/* ------------------------------------------------------------------------------------------ trials
 */

static void a_selftest_that_says_no(void **state)
{
	(void)state;
	s.selftest = PAKU_TEST_FAIL;
	s.max_attempts = 1;
	assert_true(sim_run(&s, 5));
	assert_stays(PAKU_ROLLED_BACK, PAKU_WHY_SELFTEST);
	assert_int_equal(s.boots, 3);
}

static void a_selftest_that_never_ends(void **state)
{
	(void)state;
	s.selftest = PAKU_TEST_WAIT;
	s.max_attempts = 1;
	assert_true(sim_run(&s, 5));
	assert_stays(PAKU_ROLLED_BACK, PAKU_WHY_TRIAL_TIME);
	assert_true(s.now_ms >= s.cfg.trial_s * 1000);
}

static void a_version_that_restarts_before_it_confirms(void **state)
{
	(void)state;
	for (int vendor = 0; vendor < 2; vendor++) {
		sim_init(&s, &old, &new);
		s.vendor = vendor;
		s.hangs = &new;
		s.max_attempts = 1;
		assert_true(sim_run(&s, 12));
		assert_stays(PAKU_ROLLED_BACK, PAKU_WHY_BOOTS);
		sim_fini(&s);
	}
}

/* ------------------------------------------------------------------------------- reports that wait
 */

/* A boot that cannot be counted is not given to a trial. */
static void the_boot_loader_counts_or_starts_the_old_one(void **state)
{
	(void)state;
	s.hangs = &new; /* so that it stays on trial */
	assert_false(sim_run(&s, 2));
	s.record_fails = 1;
	assert_int_equal(paku_boot_choose(&s.io, s.cfg.max_boots), 0);
	assert_int_equal(paku_boot_choose(&s.io, s.cfg.max_boots), 1);
}

/* A bootloader of its own mind has been told: the next boots are what the last one was. */
static void what_was_decided_stays_so(void **state)
{
	(void)state;
	for (int fails = 0; fails < 2; fails++) {
		sim_init(&s, &old, &new);
		s.vendor = true;
		s.selftest = fails ? PAKU_TEST_FAIL : PAKU_TEST_PASS;
		s.max_attempts = 1;
		assert_true(sim_run(&s, 5));
		for (int i = 0; i < 3; i++) {
			uint32_t boots = s.boots;
			assert_true(sim_run(&s, 5));
			assert_ptr_equal(sim_running(&s), fails ? &old : &new);
			assert_int_equal(s.boots, boots + 1);
		}
		sim_fini(&s);
	}
}

static void the_result_survives_a_power_cut(void **state)
{
	(void)state;
	s.reports_down = true;
	/* Not at rest: the report waits.  The boot loop of the sim ends at its own bound instead.
	 */
	for (int i = 0; i < 2; i++) {
		uint32_t wait_ms;
		int slot = paku_boot_choose(&s.io, s.cfg.max_boots);
		assert_true(paku_init(&s.agent, &s.io, &s.cfg, s.block, slot, "1.0.0"));
		for (int step = 0; step < 2000; step++) {
			enum paku_next next = paku_step(&s.agent, &wait_ms);
			if (next == PAKU_RESTART)
				break;
			s.now_ms += next == PAKU_WAIT ? wait_ms : 0;
			assert_false(paku_idle(&s.agent));
		}
	}
	assert_string_equal(paku_version(&s.agent), "1.1.0");
	assert_int_equal(s.report_count, 0);
	s.reports_down = false; /* and the power goes now */
	assert_true(sim_run(&s, 1));
	assert_int_equal(last_report()->status, PAKU_SUCCESS);
	assert_string_equal(last_report()->attempt, "try0");
	uint32_t before = s.report_count;
	assert_true(sim_run(&s, 1)); /* delivered is delivered */
	assert_int_equal(s.report_count, before);
}

static void no_new_update_before_the_last_result_is_told(void **state)
{
	(void)state;
	assert_true(sim_run(&s, 3));
	s.agent.rec.due = 1 << PAKU_SUCCESS;
	s.agent.waiting = false;
	s.reports_down = true;
	s.known[2] = &other;
	sim_image(&other, "1.2.0", 1000, 9);
	s.offered = s.served = &other;
	uint32_t opens = s.opens, checks = s.checks, wait_ms;
	for (int step = 0; step < 100; step++)
		if (paku_step(&s.agent, &wait_ms) == PAKU_WAIT)
			s.now_ms += wait_ms;
	assert_true(s.checks > checks + 2); /* it goes on asking, and takes nothing */
	assert_int_equal(s.opens, opens);
	s.reports_down = false;
	assert_true(paku_step(&s.agent, &wait_ms) != PAKU_RESTART);
	for (int step = 0; step < 1000 && s.opens == opens; step++)
		if (paku_step(&s.agent, &wait_ms) == PAKU_WAIT)
			s.now_ms += wait_ms;
	assert_int_equal(s.opens, opens + 1);
	sim_image(&other, "1.1.0", 40 * SIM_BLOCK + 123, 3);
}

/* --------------------------------------------------------------------------------------- the start
 */

static void configurations_that_make_no_sense(void **state)
{
	struct paku_config good, bad;

	(void)state;
	good = s.cfg;
	assert_true(paku_init(&s.agent, &s.io, &good, s.block, 0, "1"));
	assert_false(paku_init(&s.agent, &s.io, &good, s.block, 2, "1"));
#define REFUSED(field, value)                                                                      \
	bad = good, bad.field = (value),                                                           \
	assert_false(paku_init(&s.agent, &s.io, &bad, s.block, 0, "1"))
	REFUSED(block_size, PAKU_BLOCK_MIN - 1);
	REFUSED(slot_size, SIM_BLOCK - 1);
	REFUSED(slot_size, SIM_SLOT + 1);
	REFUSED(poll_s, 0);
	REFUSED(trial_s, 0);
	REFUSED(max_boots, 0);
	REFUSED(max_tries, 0);
	REFUSED(save_blocks, 0);
	REFUSED(report_percent, 0);
}

/* IEEE 802.3: the check value of "123456789". */
static void crc(void **state)
{

	(void)state;
	assert_true(paku_crc32(0, "123456789", 9) == UINT32_C(0xCBF43926));
	assert_true(paku_crc32(paku_crc32(0, "1234", 4), "56789", 5) == UINT32_C(0xCBF43926));
}

#define T(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(each_step_is_reported_once_and_in_order),
		T(nothing_offered_nothing_written),
		T(the_service_names_the_time_of_the_next_check),
		T(an_image_that_is_there_is_not_loaded_again),
		T(another_image_of_the_same_size),
		T(waits_have_their_jitter),
		T(line_cut_at_every_block),
		T(a_bad_line_is_enough),
		T(damaged_while_off),
		T(changed_at_every_block),
		T(an_image_that_is_not_the_one_offered),
		T(without_an_etag_the_download_begins_again),
		T(an_answer_for_another_range_is_not_used),
		T(loading_the_same_again_and_again_is_no_progress),
		T(a_dead_line_fails_after_many_tries_and_keeps_what_it_has),
		T(retry_after_of_a_busy_service_is_heeded),
		T(statuses_of_the_download),
		T(larger_than_the_slot),
		T(exactly_as_large_as_the_slot),
		T(of_another_size_than_offered),
		T(empty_image),
		T(the_size_is_learnt_from_the_download),
		T(a_size_that_was_learnt_does_not_outlive_its_image),
		T(a_command_is_taken_while_the_agent_waits),
		T(the_line_is_back),
		T(attempts_in_urls),
		T(no_command_before_the_last_result_is_told),
		T(flash_that_does_not_erase),
		T(a_record_that_cannot_be_written),
		T(record_writes_that_fail_now_and_then),
		T(one_rotten_copy_of_the_record),
		T(a_selftest_that_says_no),
		T(a_selftest_that_never_ends),
		T(a_version_that_restarts_before_it_confirms),
		T(the_boot_loader_counts_or_starts_the_old_one),
		T(what_was_decided_stays_so),
		T(the_result_survives_a_power_cut),
		T(no_new_update_before_the_last_result_is_told),
		T(configurations_that_make_no_sense),
		T(crc),
	};
	return cmocka_run_group_tests(tests, images, NULL);
}
