/* SPDX-License-Identifier: MIT */
/*
 * The power fails at every flash write, erase and boot record write of a whole update: before it,
 * half way and right after.  Each time the device boots an image that is whole (the sim looks at
 * every boot), ends with the new version, and says so.
 */
#include "device/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

static struct sim_image old, new;
static struct sim s;

static int images(void **state)
{
	(void)state;
	sim_image(&old, "1.0.0", 30 * SIM_BLOCK + 5, 1);
	sim_image(&new, "1.1.0", 40 * SIM_BLOCK + 123, 2);
	return 0;
}

static void assert_updated(uint32_t op)
{
	if (sim_running(&s) != &new || strcmp(paku_version(&s.agent), "1.1.0") != 0)
		fail_msg("cut at %u: not updated", (unsigned)op);
	assert_false(s.lied);
	assert_memory_equal(s.flash[0], old.data, old.size); /* the way back is still there */
	assert_true(sim_reported(&s, PAKU_SUCCESS) >= 1);
	assert_int_equal(s.reports[s.report_count - 1].status, PAKU_SUCCESS);
	assert_string_equal(s.reports[s.report_count - 1].attempt, "try0");
}

static void cut_everywhere(bool vendor, bool size_untold)
{
	for (int torn = 0; torn < SIM_TORN_COUNT; torn++) {
		uint32_t op = 0;
		do {
			sim_init(&s, &old, &new);
			s.vendor = vendor;
			s.size_untold = size_untold;
			s.torn = (enum sim_torn)torn;
			s.cut_at = ++op;
			assert_true(sim_run(&s, 12));
			assert_updated(op);
			assert_int_equal(sim_reported(&s, PAKU_FAILED), 0);
			assert_int_equal(sim_reported(&s, PAKU_ROLLED_BACK), 0);
			/* A cut costs what was written since the last note, not the download. */
			assert_true(s.sent <= new.size + (s.cfg.save_blocks + 1u) * SIM_BLOCK);
			sim_fini(&s);
		} while (s.power_cuts);
		/* An erase and a write a block, and the records: so many places there were at
		 * least. */
		assert_true(op > 2 * 41 + 2 * 12);
	}
}

static void every_write_own_boot_loader(void **state)
{
	(void)state;
	cut_everywhere(false, false);
}

static void every_write_vendor_boot_loader(void **state)
{
	(void)state;
	cut_everywhere(true, false);
}

static void every_write_size_learnt(void **state)
{
	(void)state;
	cut_everywhere(false, true);
}

/* Power that fails again and again, at random: the update still gets through in the end. */
static void again_and_again(void **state)
{
	(void)state;
	for (uint32_t seed = 1; seed <= 300; seed++) {
		sim_init(&s, &old, &new);
		s.vendor = seed & 1;
		s.size_untold = seed & 2;
		s.random = seed;
		s.torn = (enum sim_torn)(seed % SIM_TORN_COUNT);
		s.cut_every = 30;
		s.cut_at = 1 + seed % 30;
		assert_true(sim_run(&s, 2000));
		assert_true(s.power_cuts > 0);
		assert_int_equal(s.reports[s.report_count - 1].status, PAKU_SUCCESS);
		assert_ptr_equal(sim_running(&s), &new);
		assert_false(s.lied);
		sim_fini(&s);
	}
}

/* The same on the way back from an image that fails its self-test: the old one always runs. */
static void every_write_of_a_rollback(void **state)
{
	(void)state;
	for (int mode = 0; mode < 2 * SIM_TORN_COUNT; mode++) {
		uint32_t op = 0;
		do {
			sim_init(&s, &old, &new);
			s.vendor = mode & 1;
			s.torn = (enum sim_torn)(mode / 2);
			s.selftest = PAKU_TEST_FAIL;
			s.max_attempts = 1;
			s.cut_at = ++op;
			assert_true(sim_run(&s, 12));
			assert_ptr_equal(sim_running(&s), &old);
			assert_true(sim_reported(&s, PAKU_ROLLED_BACK) >= 1);
			assert_int_equal(sim_reported(&s, PAKU_SUCCESS), 0);
			sim_fini(&s);
		} while (s.power_cuts);
		assert_true(op > 2 * 41 + 2 * 12);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_write_own_boot_loader),
		cmocka_unit_test(every_write_vendor_boot_loader),
		cmocka_unit_test(every_write_size_learnt),
		cmocka_unit_test(again_and_again),
		cmocka_unit_test(every_write_of_a_rollback),
	};
	return cmocka_run_group_tests(tests, images, NULL);
}
