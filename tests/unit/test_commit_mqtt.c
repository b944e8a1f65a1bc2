/* SPDX-License-Identifier: MIT */
/*
 * commit: what comes over MQTT and whom the dispatcher tells, on a real SQLite file, restarted
 * between steps.  Time passes by moving the service's clock.
 */
#include "mqtt_bench.h"

#include "failing_store.h"

#define ATTEMPTS     "SELECT count(*) FROM device_update_status"
#define LAST_STATUS  "SELECT status FROM device_update_status ORDER BY id DESC LIMIT 1"
#define LAST_PERCENT "SELECT progress_percent FROM device_update_status ORDER BY id DESC LIMIT 1"
#define LAST_CLOSED  "SELECT closed FROM device_update_status ORDER BY id DESC LIMIT 1"
#define LAST_WHY     "SELECT closed_why FROM device_update_status ORDER BY id DESC LIMIT 1"
#define COMMANDS     "SELECT commands FROM device_update_status ORDER BY id DESC LIMIT 1"
#define ONLINE       "SELECT online FROM devices WHERE device_id='d1'"
#define SITE         "SELECT site FROM devices WHERE device_id='d1'"

static const struct via other = {"other", TOPIC_FORM_EDGE}, older = {"paku", TOPIC_FORM_DEVICES};

/* --- presence --- */

static void a_birth_registers(void **state)
{
	struct bench *b = *state;
	int64_t before_us = clock_service_us();

	roll_out(b, "2.0.0");
	birth(b, "d1", "1.0.0");
	assert_int_equal(row_int(b, ONLINE), 1);
	assert_string_equal(row_text(b, SITE), "paku");
	assert_string_equal(row_text(b, "SELECT device_model||' '||current_firmware_version FROM "
					"devices"),
			    MODEL " 1.0.0");
	assert_true(device(b, "d1")->last_seen_us >= before_us);
	assert_int_equal(events(b, "device_registered"), 1);
	/* Its offer waits for the dispatcher. */
	assert_int_equal(row_int(b, ATTEMPTS), 0);
	bench_restart(b);
	int64_t n = writes(b), seen_us = device(b, "d1")->last_seen_us;
	seconds_pass(5);
	birth(b, "d1", "1.0.0");
	assert_int_equal(writes(b), n);
	assert_true(device(b, "d1")->last_seen_us >= seen_us + 5 * US_PER_S);
	/* What it runs is worth a row. */
	birth(b, "d1", "1.1.0");
	assert_int_equal(events(b, "version_changed"), 1);
	bench_restart(b);
}

/* Nobody knows when a retained copy was written. */
static void a_copy_is_no_contact(void **state)
{
	struct bench *b = *state;

	roll_out(b, "2.0.0");
	retained(b, "d1", "1.0.0", true);
	assert_int_equal(device(b, "d1")->last_seen_us, LAST_SEEN_NEVER_US);
	assert_string_equal(row_text(b, ONLINE), "(null)");
	assert_string_equal(row_text(b, SITE), "paku");
	bench_restart(b);
	int64_t n = writes(b);
	retained(b, "d1", "1.0.0", true);
	retained(b, "d1", "1.7.0", true); /* known better */
	retained(b, "d2", "1.0.0", false);
	retained(b, "d1", "1.0.0", false);
	assert_int_equal(writes(b), n);
	assert_int_equal(row_int(b, "SELECT count(*) FROM devices"), 1);
	assert_string_equal(device(b, "d1")->state.version, "1.0.0");
	/* It may be there: it is told. */
	assert_true(order(b, "d1"));
	assert_int_equal(device(b, "d1")->last_seen_us, LAST_SEEN_NEVER_US);
	bench_restart(b);
	/* Of one that was seen before, the copy says where it is, and no more than that. */
	ask(b, "d3", "1.0.0");
	int64_t seen_us = device(b, "d3")->last_seen_us;
	seconds_pass(5);
	retained(b, "d3", "1.0.0", true);
	assert_int_equal(device(b, "d3")->last_seen_us, seen_us);
	assert_int_equal(device(b, "d3")->state.link->presence, PRESENCE_UNKNOWN);
	bench_restart(b);
}

static void a_copy_may_show_success(void **state)
{
	struct bench *b = *state;

	roll_out(b, "2.0.0");
	birth(b, "d1", "1.0.0");
	assert_true(order(b, "d1"));
	progress(b, "d1", EVENT_REPORT_INSTALLING, -1);
	int64_t seen_us = device(b, "d1")->last_seen_us, n = writes(b);
	seconds_pass(3600);
	/* Old copies are no evidence of a rollback, and of nothing else either. */
	retained(b, "d1", "1.0.0", true);
	retained(b, "d1", "1.5.0", true);
	assert_int_equal(writes(b), n);
	assert_string_equal(row_text(b, LAST_STATUS), "installing");
	retained(b, "d1", "v2.0.0", true);
	assert_string_equal(row_text(b, LAST_STATUS), "success");
	assert_int_equal(device(b, "d1")->last_seen_us, seen_us);
	assert_int_equal(row_int(b, ONLINE), 1);
	bench_restart(b);
	/* The live word settles it. */
	birth(b, "d1", "2.0.0");
	assert_int_equal(row_int(b, "SELECT settled FROM device_update_status"), 1);
	n = writes(b);
	retained(b, "d1", "1.0.0", true);
	assert_int_equal(writes(b), n);
	bench_restart(b);
}

/* Its birth message is the sign of a boot, also after it said that all went well. */
static void born_as_it_was(void **state)
{
	struct bench *b = *state;

	roll_out(b, "2.0.0");
	for (int said = 0; said < 2; said++) {
		const char *id = said ? "d2" : "d1";
		birth(b, id, "1.0.0");
		assert_true(order(b, id));
		progress(b, id, EVENT_REPORT_INSTALLING, -1);
		if (said)
			result(b, id, "2.0.0", true, "done");
		bench_restart(b);
		seconds_pass(5);
		/* The same word in a copy, or over HTTP, waits for the time of grace. */
		retained(b, id, "1.0.0", true);
		ask(b, id, "1.0.0");
		assert_string_equal(row_text(b, LAST_STATUS), said ? "success" : "installing");
		birth(b, id, "1.0.0");
		assert_string_equal(row_text(b, LAST_STATUS), "rolled_back");
		bench_restart(b);
		seconds_pass(RETRY);
		assert_true(order(b, id));
		bench_restart(b);
	}
}

/* "online", and not a word of what it runs: no evidence of anything. */
static void a_birth_without_a_version(void **state)
{
	struct bench *b = *state;

	roll_out(b, "2.0.0");
	birth(b, "d1", "1.0.0");
	assert_true(order(b, "d1"));
	progress(b, "d1", EVENT_REPORT_INSTALLING, -1);
	for (int i = 0; i < 2; i++) {
		seconds_pass(5 + i * 1200);
		last_will(b, "d1", paku);
		birth(b, "d1", "");
		assert_string_equal(row_text(b, LAST_STATUS), "installing");
		assert_int_equal(row_int(b, ONLINE), 1);
		bench_restart(b);
	}
	birth(b, "d1", "2.0.0");
	assert_string_equal(row_text(b, LAST_STATUS), "success");
	bench_restart(b);
}

static void a_last_will(void **state)
{
	struct bench *b = *state;

	roll_out(b, "2.0.0");
	last_will(b, "d1", paku);
	assert_null(device(b, "d1")); /* nobody knows it */
	birth(b, "d1", "1.0.0");
	int64_t seen_us = device(b, "d1")->last_seen_us;
	seconds_pass(5);
	last_will(b, "d1", paku);
	assert_int_equal(row_int(b, ONLINE), 0);
	assert_int_equal(device(b, "d1")->last_seen_us, seen_us);
	assert_true(device(b, "d1")->state.link->presence_us >= seen_us + 5 * US_PER_S);
	bench_restart(b);
	int64_t n = writes(b);
	last_will(b, "d1", paku);
	assert_false(order(b, "d1"));
	assert_int_equal(writes(b), n);
	assert_int_equal(row_int(b, ATTEMPTS), 0);
	birth(b, "d1", "1.0.0");
	assert_true(order(b, "d1"));
	bench_restart(b);
	/* Whatever it says, it is there. */
	last_will(b, "d1", paku);
	progress(b, "d1", EVENT_NONE, -1);
	assert_int_equal(row_int(b, ONLINE), 1);
	bench_restart(b);
}

static void both_forms_of_topics(void **state)
{
	struct bench *b = *state;

	birth_at(b, "d1", "1.0.0", older);
	assert_int_equal(device(b, "d1")->state.link->form, TOPIC_FORM_DEVICES);
	bench_restart(b);
	/* It is answered on the form that it speaks. */
	say(b, (struct report){.device_id = "d1", .percent = -1, .via = paku});
	assert_int_equal(device(b, "d1")->state.link->form, TOPIC_FORM_EDGE);
	bench_restart(b);
	assert_int_equal(events(b, "site_conflict"), 0);
}

static void two_sites(void **state)
{
	struct bench *b = *state;

	birth(b, "d1", "1.0.0");
	birth_at(b, "d1", "1.0.0", other);
	assert_int_equal(events(b, "site_conflict"), 1);
	assert_string_equal(row_text(b, "SELECT site||' '||other_site FROM devices"), "other paku");
	bench_restart(b);
	/* In turns, for a minute: shown once. */
	for (int i = 0; i < 10; i++) {
		birth_at(b, "d1", "1.0.0", i % 2 ? other : paku);
		seconds_pass(5);
	}
	assert_int_equal(events(b, "site_conflict"), 1);
	bench_restart(b);
	seconds_pass(11);
	birth(b, "d1", "1.0.0");
	assert_int_equal(events(b, "site_conflict"), 2);
	assert_string_equal(row_text(b, "SELECT site||' '||other_site FROM devices"), "paku other");
	/* The last will of where it is not. */
	last_will(b, "d1", other);
	assert_int_equal(row_int(b, ONLINE), 1);
	bench_restart(b);
	/* It moves: no conflict. */
	last_will(b, "d1", paku);
	seconds_pass(70);
	birth_at(b, "d1", "1.0.0", other);
	assert_string_equal(row_text(b, SITE), "other");
	assert_int_equal(row_int(b, ONLINE), 1);
	assert_int_equal(events(b, "site_conflict"), 2);
	bench_restart(b);
}

/* One of the two went away: the other is the one that is left, at once. */
static void one_site_is_left(void **state)
{
	struct bench *b = *state;

	roll_out(b, "2.0.0");
	birth(b, "d1", "1.0.0");
	birth_at(b, "d1", "1.0.0", other);
	last_will(b, "d1", other);
	birth(b, "d1", "1.0.0");
	assert_string_equal(row_text(b, SITE), "paku");
	assert_int_equal(row_int(b, ONLINE), 1);
	assert_int_equal(events(b, "site_conflict"), 1);
	assert_true(order(b, "d1"));
	bench_restart(b);
}

/* --- telling --- */

static void told_once_a_window(void **state)
{
	static const int waits[] = {WINDOW, 5 * WINDOW, 30 * WINDOW};
	struct bench *b = *state;

	roll_out(b, "2.0.0");
	birth(b, "d1", "1.0.0");
	assert_false(order(b, "nobody"));
	assert_true(order(b, "d1"));
	assert_string_equal(row_text(b, LAST_STATUS), "pending");
	assert_int_equal(events(b, "update_offered"), 1);
	for (int i = 0; i < 3; i++) {
		int64_t n = writes(b);
		assert_int_equal(row_int(b, COMMANDS), i + 1);
		assert_false(order(b, "d1"));
		assert_int_equal(writes(b), n);
		bench_restart(b);
		assert_false(order(b, "d1"));
		seconds_pass(waits[i] - 10);
		assert_false(order(b, "d1"));
		seconds_pass(10);
		bench_restart(b);
		assert_true(order(b, "d1"));
	}
	assert_int_equal(row_int(b, COMMANDS), 4);
	seconds_pass(WINDOW);
	assert_false(order(b, "d1")); /* ends it */
	assert_string_equal(row_text(b, LAST_STATUS), "pending");
	assert_string_equal(row_text(b, LAST_CLOSED), "lapsed");
	assert_string_equal(row_text(b, LAST_WHY), "unanswered");
	assert_int_equal(events(b, "update_lapsed"), 1);
	assert_int_equal(row_int(b, "SELECT count(*) FROM attempt_failures"), 0);
	assert_int_equal(row_int(b, ATTEMPTS), 1);
	bench_restart(b);
}

/* Nobody's failure; and no reason to begin anew before it was heard. */
static void lapsed_until_it_is_seen(void **state)
{
	static const int waits[] = {WINDOW, 5 * WINDOW, 30 * WINDOW, WINDOW};
	struct bench *b = *state;

	roll_out(b, "2.0.0");
	birth(b, "d1", "1.0.0");
	assert_true(order(b, "d1"));
	for (int i = 0; i < 4; i++) {
		seconds_pass(waits[i]);
		assert_int_equal(order(b, "d1"), i < 3);
	}
	assert_string_equal(row_text(b, LAST_CLOSED), "lapsed");
	for (int i = 0; i < 3; i++) {
		int64_t n = writes(b);
		assert_false(order(b, "d1"));
		retained(b, "d1", "1.0.0", true);
		assert_false(order(b, "d1"));
		assert_int_equal(writes(b), n);
		seconds_pass(3600);
		bench_restart(b);
	}
	assert_int_equal(row_int(b, ATTEMPTS), 1);
	birth(b, "d1", "1.0.0");
	assert_true(order(b, "d1"));
	assert_int_equal(row_int(b, ATTEMPTS), 2);
	bench_restart(b);
}

/* What it was told is not for it any more: no silence of the device's. */
static void told_and_not_meant(void **state)
{
	static const char *const beta[] = {"beta"};
	struct device_edit e = {.device_id = "d1", .set_groups = true};
	struct bench *b = *state;
	struct rollout_new n = rollout_of("beta", "2.0.0");
	struct command cmd;

	assert_int_equal(upload(b, "2.0.0"), OTA_OK);
	n.type = TARGET_GROUP;
	n.group = "beta";
	assert_int_equal(roll_out_as(b, &n, &cmd), OTA_OK);
	birth(b, "d1", "1.0.0");
	assert_false(order(b, "d1"));
	e.groups = beta;
	e.group_count = 1;
	assert_int_equal(edit(b, &e, 1), OTA_OK);
	assert_true(order(b, "d1"));
	e.group_count = 0;
	assert_int_equal(edit(b, &e, 1), OTA_OK);
	assert_false(order(b, "d1"));
	assert_string_equal(row_text(b, LAST_CLOSED), "withdrawn");
	assert_string_equal(row_text(b, LAST_WHY), "not_in_group");
	assert_int_equal(row_int(b, ONLINE), 1);
	bench_restart(b);
	/* Back in: told at once. */
	e.group_count = 1;
	assert_int_equal(edit(b, &e, 1), OTA_OK);
	assert_true(order(b, "d1"));
	/* Another release in the place of the one that waits. */
	roll_out(b, "3.0.0");
	assert_true(order(b, "d1"));
	assert_string_equal(row_text(b, "SELECT firmware_version FROM device_update_status ORDER "
					"BY id DESC LIMIT 1"),
			    "3.0.0");
	assert_int_equal(row_int(b, ATTEMPTS " WHERE completed_at IS NULL"), 1);
	bench_restart(b);
}

static void counted_anew(void **state)
{
	struct bench *b = *state;

	roll_out(b, "2.0.0");
	birth(b, "d1", "1.0.0");
	assert_true(order(b, "d1"));
	seconds_pass(WINDOW);
	assert_true(order(b, "d1"));
	assert_int_equal(row_int(b, COMMANDS), 2);
	last_will(b, "d1", paku);
	assert_false(order(b, "d1"));
	birth(b, "d1", "1.0.0");
	assert_int_equal(row_int(b, COMMANDS), 0);
	/* Not inside the window of the command before. */
	assert_false(order(b, "d1"));
	bench_restart(b);
	assert_false(order(b, "d1"));
	seconds_pass(WINDOW);
	assert_true(order(b, "d1"));
	assert_int_equal(row_int(b, COMMANDS), 1);
	assert_int_equal(row_int(b, ATTEMPTS), 1);
	bench_restart(b);
	/* Gone for longer than the window: it ends, and begins when it is back. */
	last_will(b, "d1", paku);
	seconds_pass(WINDOW);
	assert_false(order(b, "d1"));
	assert_string_equal(row_text(b, LAST_CLOSED), "lapsed");
	assert_false(order(b, "d1"));
	birth(b, "d1", "1.0.0");
	assert_true(order(b, "d1"));
	assert_int_equal(row_int(b, ATTEMPTS), 2);
	bench_restart(b);
}

static void offered_over_http_first(void **state)
{
	struct bench *b = *state;

	roll_out(b, "2.0.0");
	birth(b, "d1", "1.0.0");
	struct answer a = ask(b, "d1", "1.0.0");
	assert_true(a.offered);
	assert_false(order(b, "d1"));
	seconds_pass(WINDOW);
	assert_true(order(b, "d1"));
	assert_int_equal(row_int(b, ATTEMPTS), 1);
	assert_string_equal(row_text(b, "SELECT attempt_id FROM device_update_status"), a.token);
	bench_restart(b);
}

static void places(void **state)
{
	struct bench *b = *state;
	struct rollout_new n = rollout_of("two", "2.0.0");
	struct command cmd;

	assert_int_equal(upload(b, "2.0.0"), OTA_OK);
	n.max_parallel = 1;
	assert_int_equal(roll_out_as(b, &n, &cmd), OTA_OK);
	birth(b, "d1", "1.0.0");
	birth(b, "d2", "1.0.0");
	assert_true(order(b, "d1"));
	assert_false(order(b, "d2"));
	bench_restart(b); /* counted again at the start */
	assert_false(order(b, "d2"));
	result(b, "d1", "2.0.0", true, "done");
	bool told = false;
	for (int i = 0; i < 500 && !told; i++) {
		usleep(10000); /* a round of the slow clock */
		told = order(b, "d2");
	}
	assert_true(told);
	bench_restart(b);
}

/* --- what they answer --- */

static void accepted_once(void **state)
{
	struct bench *b = *state;

	roll_out(b, "2.0.0");
	birth(b, "d1", "1.0.0");
	assert_true(order(b, "d1"));
	accepted(b, "d1", "2.0.0");
	assert_int_equal(events(b, "update_accepted"), 1);
	assert_string_equal(row_text(b, LAST_STATUS), "pending");
	int64_t n = writes(b);
	seconds_pass(2);
	accepted(b, "d1", "2.0.0");
	accepted(b, "d1", NULL);
	assert_int_equal(writes(b), n);
	bench_restart(b);
	n = writes(b);
	accepted(b, "d1", "2.0.0");
	assert_int_equal(writes(b), n);
	/* It has a window from there. */
	seconds_pass(WINDOW - 10);
	assert_false(order(b, "d1"));
	seconds_pass(10);
	assert_true(order(b, "d1"));
	bench_restart(b);
	result(b, "d1", "2.0.0", true, "done");
	n = writes(b);
	accepted(b, "d1", "2.0.0");
	assert_int_equal(writes(b), n);
	assert_string_equal(row_text(b, LAST_STATUS), "success");
}

static void progress_is_coalesced(void **state)
{
	struct bench *b = *state;

	roll_out(b, "2.0.0");
	birth(b, "d1", "1.0.0");
	assert_true(order(b, "d1"));
	/* The step is a row of its own, and takes along what was told with it. */
	progress(b, "d1", EVENT_REPORT_DOWNLOADING, 3);
	assert_string_equal(row_text(b, LAST_STATUS), "downloading");
	assert_int_equal(row_int(b, LAST_PERCENT), 3);
	int64_t n = writes(b);
	for (int i = 4; i < 40; i++)
		progress(b, "d1", EVENT_REPORT_DOWNLOADING, i);
	assert_int_equal(writes(b), n);
	for (int i = 40; i < 45; i++) {
		seconds_pass(1);
		progress(b, "d1", EVENT_REPORT_DOWNLOADING, i);
		progress(b, "d1", EVENT_REPORT_DOWNLOADING, i + 1);
		assert_int_equal(row_int(b, LAST_PERCENT), i);
	}
	assert_int_equal(writes(b), n + 5);
	/* Late, or nothing new. */
	seconds_pass(1);
	progress(b, "d1", EVENT_REPORT_DOWNLOADING, 20);
	assert_int_equal(writes(b), n + 5);
	bench_restart(b);
	/* Steps never wait. */
	n = writes(b);
	seconds_pass(1);
	progress(b, "d1", EVENT_REPORT_DOWNLOADING, 99);
	progress(b, "d1", EVENT_REPORT_DOWNLOADED, 100);
	progress(b, "d1", EVENT_REPORT_INSTALLING, 100);
	result(b, "d1", "2.0.0", true, "done");
	assert_int_equal(writes(b), n + 4);
	/* A finished one is not reopened. */
	n = writes(b);
	progress(b, "d1", EVENT_REPORT_DOWNLOADING, 99);
	assert_int_equal(writes(b), n);
	assert_string_equal(row_text(b, LAST_STATUS), "success");
	bench_restart(b);
}

static void result_before_status(void **state)
{
	struct bench *b = *state;

	roll_out(b, "2.0.0");
	birth(b, "d1", "1.0.0");
	assert_true(order(b, "d1"));
	result(b, "d1", "v2.0.0", true, "done");
	assert_string_equal(row_text(b, LAST_STATUS), "success");
	bench_restart(b);
	int64_t n = writes(b);
	accepted(b, "d1", "2.0.0");
	progress(b, "d1", EVENT_REPORT_DOWNLOADING, 50);
	progress(b, "d1", EVENT_REPORT_INSTALLING, 100);
	result(b, "d1", "v2.0.0", true, "done");
	assert_int_equal(writes(b), n);
	assert_int_equal(row_int(b, ATTEMPTS), 1);
	assert_int_equal(events(b, "update_completed"), 1);
	assert_false(order(b, "d1"));
	bench_restart(b);
}

/* The broker sends the end of the first try again when the second is open. */
static void copy_of_a_result(void **state)
{
	struct bench *b = *state;

	roll_out(b, "2.0.0");
	birth(b, "d1", "1.0.0");
	assert_true(order(b, "d1"));
	result(b, "d1", "2.0.0", false, "no route");
	assert_string_equal(row_text(b, LAST_STATUS), "failed");
	assert_false(order(b, "d1")); /* not at once */
	seconds_pass(RETRY);
	assert_true(order(b, "d1"));
	assert_int_equal(row_int(b, ATTEMPTS), 2);
	bench_restart(b);
	int64_t n = writes(b);
	result(b, "d1", "2.0.0", false, "no route");
	assert_int_equal(writes(b), n);
	assert_string_equal(row_text(b, LAST_STATUS), "pending");
	assert_int_equal(row_int(b, "SELECT failures FROM attempt_failures"), 1);
	/* A device without a clock says the same of the next try, once it has begun that. */
	accepted(b, "d1", "2.0.0");
	progress(b, "d1", EVENT_REPORT_DOWNLOADING, 3);
	result(b, "d1", "2.0.0", false, "no route");
	assert_string_equal(row_text(b, LAST_STATUS), "failed");
	assert_int_equal(row_int(b, "SELECT failures FROM attempt_failures"), 2);
	bench_restart(b);
	n = writes(b);
	result(b, "d1", "2.0.0", false, "no route");
	assert_int_equal(writes(b), n);
	/* Nor does it end one that lapsed, or was taken back. */
	seconds_pass(RETRY);
	assert_false(order(b, "d1")); /* the second wait is twice as long */
	seconds_pass(RETRY);
	assert_true(order(b, "d1"));
	last_will(b, "d1", paku);
	seconds_pass(WINDOW);
	assert_false(order(b, "d1"));
	assert_string_equal(row_text(b, LAST_CLOSED), "lapsed");
	result(b, "d1", "2.0.0", false, "no route");
	assert_string_equal(row_text(b, LAST_CLOSED), "lapsed");
	assert_int_equal(row_int(b, "SELECT failures FROM attempt_failures"), 2);
	/* Another payload needs no word before it. */
	seconds_pass(1);
	assert_true(order(b, "d1"));
	result(b, "d1", "2.0.0", false, "no space");
	assert_int_equal(row_int(b, "SELECT failures FROM attempt_failures"), 3);
	assert_false(order(b, "d1")); /* too many */
	bench_restart(b);
}

/* A copy that the broker kept for hours is one still. */
static void copy_hours_later(void **state)
{
	struct bench *b = *state;

	roll_out(b, "2.0.0");
	birth(b, "d1", "1.0.0");
	assert_true(order(b, "d1"));
	result(b, "d1", "2.0.0", true, "done");
	birth(b, "d1", "2.0.0");
	birth(b, "d1", "3.0.0"); /* by hand */
	seconds_pass(2 * 3600);
	bench_restart(b);
	int64_t n = writes(b);
	result(b, "d1", "2.0.0", true, "done");
	assert_int_equal(writes(b), n);
	assert_int_equal(row_int(b, ATTEMPTS), 1);
	assert_string_equal(device(b, "d1")->state.version, "3.0.0");
	bench_restart(b);
}

static void progress_names_no_version(void **state)
{
	struct bench *b = *state;

	progress(b, "d1", EVENT_REPORT_DOWNLOADING, 10);
	assert_null(device(b, "d1"));
	assert_int_equal(row_int(b, ATTEMPTS), 0);
	roll_out(b, "2.0.0");
	birth(b, "d1", "1.0.0");
	int64_t n = writes(b);
	progress(b, "d1", EVENT_REPORT_DOWNLOADING, 10); /* of nothing that is open */
	assert_int_equal(writes(b), n);
	assert_int_equal(row_int(b, ATTEMPTS), 0);
	assert_true(order(b, "d1"));
	progress(b, "d1", EVENT_REPORT_DOWNLOADING, 10);
	assert_string_equal(row_text(b, LAST_STATUS), "downloading");
	/* It came back without what it had begun: told again. */
	bench_restart(b);
	seconds_pass(WINDOW);
	assert_false(order(b, "d1"));
	last_will(b, "d1", paku);
	birth(b, "d1", "1.0.0");
	assert_true(order(b, "d1"));
	assert_int_equal(row_int(b, ATTEMPTS), 1);
	seconds_pass(WINDOW);
	assert_false(order(b, "d1")); /* once */
	bench_restart(b);
}

static void of_no_release(void **state)
{
	struct bench *b = *state;

	result(b, "d1", "9.9.9-unknown", false, "odd");
	assert_string_equal(row_text(b, "SELECT firmware_version||' '||status FROM "
					"device_update_status"),
			    "9.9.9-unknown failed");
	assert_int_equal(row_int(b, "SELECT unsolicited FROM device_update_status"), 1);
	assert_string_equal(row_text(b, "SELECT device_model FROM devices"), "(null)");
	assert_int_equal(row_int(b, ONLINE), 1);
	bench_restart(b);
	int64_t n = writes(b);
	result(b, "d1", "9.9.9-unknown", false, "odd");
	assert_int_equal(writes(b), n);
	seconds_pass(2 * 3600);
	result(b, "d1", "9.9.9-unknown", false, "odd");
	assert_int_equal(row_int(b, ATTEMPTS), 1);
	bench_restart(b);
}

/* --- limits and refusals --- */

static void over_the_limit(void **state)
{
	struct bench b = bench_new();
	struct command cmd = {
		.status = {.facts = {.device_id = "d2"}, .via = paku, .online = true}};

	(void)state;
	b.cfg.max_devices = 1;
	bench_open(&b);
	birth(&b, "d1", "1.0.0");
	assert_int_equal(run_status(&b, &cmd), OTA_EUNAVAIL);
	assert_true(cmd.over_limit);
	cmd.status.retained = true;
	assert_int_equal(run_status(&b, &cmd), OTA_EUNAVAIL);
	assert_true(cmd.over_limit);
	cmd = (struct command){.kind = COMMAND_REPORT,
			       .report = {.device_id = "d2",
					  .version = "1",
					  .event = EVENT_REPORT_SUCCESS,
					  .percent = -1,
					  .via = paku}};
	assert_int_equal(committer_run(b.c, &cmd), OTA_EUNAVAIL);
	assert_true(cmd.over_limit);
	/* Known devices are not held up. */
	birth(&b, "d1", "1.1.0");
	assert_int_equal(delete_device(&b, "d1"), OTA_OK);
	assert_int_equal(committer_run(b.c, &cmd), OTA_OK);
	assert_false(cmd.over_limit);
	bench_restart(&b);
	bench_end(&b);
}

static void refused_alone(void **state)
{
	struct bench b = bench_new();
	struct command cmd = {
		.status = {.facts = {.device_id = "d2"}, .via = paku, .online = true}};

	(void)state;
	b.wrap = wrap_failing;
	bench_open(&b);
	refused_device = "d2";
	assert_int_equal(run_status(&b, &cmd), OTA_ECONFLICT);
	assert_true(cmd.refused);
	assert_null(fleet_find(b.fleet, "d2"));
	birth(&b, "d1", "1.0.0");
	refused_device = NULL;
	assert_int_equal(run_status(&b, &cmd), OTA_OK);
	assert_false(cmd.refused);
	/* When nothing can be written it is not this one's doing. */
	atomic_store(&failures_in_all, 1);
	atomic_store(&commits_until_failure, 1);
	cmd.status.facts.device_id = "d3";
	assert_int_equal(run_status(&b, &cmd), OTA_EUNAVAIL);
	assert_false(cmd.refused || cmd.over_limit);
	bench_restart(&b);
	bench_end(&b);
}

static void freed(struct command *cmd)
{
	assert_int_equal(cmd->code, OTA_OK);
	free(cmd);
}

static void rejected_are_bounded(void **state)
{
	enum { N = REJECTED_KEPT + 150 };
	static const char payload[] = "{\0\xff";
	struct bench *b = *state;
	struct ota_err err;

	for (int i = 0; i < N; i++) {
		struct command *cmd = calloc(1, sizeof *cmd);
		assert_non_null(cmd);
		cmd->kind = COMMAND_REJECTED;
		cmd->rejected.device_id = i % 2 ? "d1" : NULL;
		cmd->rejected.topic = "paku/edge/d1/status";
		cmd->rejected.reason = "not_json";
		cmd->rejected.detail = i == N - 1 ? "the last" : "";
		cmd->rejected.payload = i % 3 ? payload : NULL;
		cmd->rejected.payload_len = i % 3 ? sizeof payload : 0;
		cmd->done = freed;
		assert_int_equal(committer_submit(b->c, cmd, &err), OTA_OK);
	}
	committer_barrier(b->c);
	assert_int_equal(row_int(b, "SELECT count(*) FROM ota_rejected_messages"), REJECTED_KEPT);
	assert_string_equal(row_text(b, "SELECT detail FROM ota_rejected_messages ORDER BY id DESC "
					"LIMIT 1"),
			    "the last");
	assert_int_equal(row_int(b, "SELECT max(length(payload)) FROM ota_rejected_messages"),
			 sizeof payload);
	bench_restart(b);
}

/* --- the great stop --- */

static size_t stop(struct bench *b, const char *reason, bool existed)
{
	struct command cmd = {.kind = COMMAND_STOP, .stop = {reason}};

	assert_int_equal(committer_run(b->c, &cmd), OTA_OK);
	assert_int_equal(cmd.out.existed, existed);
	return cmd.out.count;
}

static void stop_and_resume(void **state)
{
	struct bench *b = *state;
	char reason[64];
	int64_t since_us;

	roll_out(b, "2.0.0");
	birth(b, "d1", "1.0.0");
	birth(b, "d2", "1.0.0");
	birth(b, "d3", "1.0.0");
	assert_true(order(b, "d1"));
	assert_true(order(b, "d2"));
	accepted(b, "d2", "2.0.0");
	progress(b, "d2", EVENT_REPORT_DOWNLOADING, 5);
	stop(b, NULL, true); /* nothing is stopped */
	int64_t before_us = clock_service_us();
	assert_int_equal(stop(b, "a \"bad\" batch", false), 1);
	assert_int_equal(events(b, "all_stopped"), 1);
	for (int i = 0; i < 2; i++) {
		assert_true(fleet_stop_reason(b->fleet, reason, sizeof reason, &since_us));
		assert_string_equal(reason, "a \"bad\" batch");
		assert_true(since_us >= before_us);
		assert_int_equal(row_int(b, ATTEMPTS " WHERE closed='withdrawn'"), 1);
		assert_int_equal(stop(b, "again", true), 0);
		assert_false(order(b, "d1"));
		assert_false(order(b, "d3"));
		struct answer a = ask(b, "d3", "1.0.0");
		assert_false(a.offered);
		assert_int_equal(a.reason, REASON_STOPPED);
		bench_restart(b);
	}
	/* What had begun goes on. */
	result(b, "d2", "2.0.0", true, "done");
	assert_int_equal(row_int(b, ATTEMPTS " WHERE status='success'"), 1);
	stop(b, NULL, false);
	assert_false(fleet_is_stopped(b->fleet));
	assert_int_equal(events(b, "all_resumed"), 1);
	bench_restart(b);
	assert_false(fleet_is_stopped(b->fleet));
	assert_true(order(b, "d1"));
	assert_true(order(b, "d3"));
	bench_restart(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ON_A_BENCH(a_birth_registers),
		ON_A_BENCH(a_copy_is_no_contact),
		ON_A_BENCH(a_copy_may_show_success),
		ON_A_BENCH(a_birth_without_a_version),
		ON_A_BENCH(born_as_it_was),
		ON_A_BENCH(a_last_will),
		ON_A_BENCH(both_forms_of_topics),
		ON_A_BENCH(two_sites),
		ON_A_BENCH(one_site_is_left),
		ON_A_BENCH(told_once_a_window),
		ON_A_BENCH(lapsed_until_it_is_seen),
		ON_A_BENCH(told_and_not_meant),
		ON_A_BENCH(counted_anew),
		ON_A_BENCH(offered_over_http_first),
		ON_A_BENCH(places),
		ON_A_BENCH(accepted_once),
		ON_A_BENCH(progress_is_coalesced),
		ON_A_BENCH(result_before_status),
		ON_A_BENCH(copy_of_a_result),
		ON_A_BENCH(copy_hours_later),
		ON_A_BENCH(progress_names_no_version),
		ON_A_BENCH(of_no_release),
		cmocka_unit_test(over_the_limit),
		cmocka_unit_test(refused_alone),
		ON_A_BENCH(rejected_are_bounded),
		ON_A_BENCH(stop_and_resume),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
