/* SPDX-License-Identifier: MIT */
/*
 * commit: late and repeated words over MQTT when the next attempt of the device is open.  The rule
 * is in docs/mqtt.md: what names no attempt moves one that the device is known to have, and a copy
 * of what was heard before moves none.
 */
#include "mqtt_bench.h"

#define STATUSES                                                                                   \
	"SELECT group_concat(status, ' ') FROM (SELECT status FROM device_update_status ORDER BY " \
	"id)"
#define FAILURES    "SELECT coalesce(sum(failures),0) FROM attempt_failures"
#define ACCEPTED    "SELECT accepted_at IS NOT NULL FROM device_update_status ORDER BY id DESC LIMIT 1"
#define LAST_CLOSED "SELECT closed FROM device_update_status ORDER BY id DESC LIMIT 1"

enum { SOON_S = 300 }; /* the bench's poll interval here: retries come before the hour is over */

/* A bench on which d1 is told 2.0.0. */
static int begin_told(void **state)
{
	static struct bench b;

	b = bench_new();
	b.cfg.poll_interval_s = SOON_S;
	bench_open(&b);
	roll_out(&b, "2.0.0");
	birth(&b, "d1", "1.0.0");
	assert_true(order(&b, "d1"));
	*state = &b;
	return 0;
}

static uint64_t hash_of(const char *payload)
{
	return hash64(payload, strlen(payload)) | 1;
}

/* What names no attempt, in a payload with a real time in it. */
static void stamped(struct bench *b, enum attempt_event event, const char *payload)
{
	say(b, (struct report){.device_id = "d1",
			       .event = event,
			       .percent = -1,
			       .accepted = event != EVENT_NONE,
			       .hash = hash_of(payload),
			       .stamped = true});
}

static void accepts(struct bench *b, const char *payload, bool has_time)
{
	say(b, (struct report){.device_id = "d1",
			       .version = "2.0.0",
			       .percent = -1,
			       .accepted = true,
			       .hash = hash_of(payload),
			       .stamped = has_time});
}

static void fails(struct bench *b, const char *payload, bool has_time)
{
	say(b, (struct report){.device_id = "d1",
			       .version = "2.0.0",
			       .event = EVENT_REPORT_FAILED,
			       .percent = -1,
			       .accepted = true,
			       .error_message = "download failed",
			       .hash = hash_of(payload),
			       .stamped = has_time});
}

/* The first try, as a device of the contract tells it, and the second is told. */
static void try_and_fail(struct bench *b)
{
	accepts(b, "accepted 1", true);
	stamped(b, EVENT_REPORT_DOWNLOADING, "downloading 1");
	stamped(b, EVENT_REPORT_DOWNLOADED, "verifying 1");
	stamped(b, EVENT_REPORT_INSTALLING, "installing 1");
	fails(b, "failed 1", true);
	assert_string_equal(row_text(b, STATUSES), "failed");
	seconds_pass(SOON_S);
	assert_true(order(b, "d1"));
	bench_restart(b);
}

static void hear_it_all_again(struct bench *b)
{
	accepts(b, "accepted 1", true);
	stamped(b, EVENT_REPORT_DOWNLOADING, "downloading 1");
	stamped(b, EVENT_REPORT_DOWNLOADED, "verifying 1");
	stamped(b, EVENT_REPORT_INSTALLING, "installing 1");
	stamped(b, EVENT_REPORT_ROLLED_BACK, "rolled back 1");
	fails(b, "failed 1", true);
}

/* It knows of the first try; that it has the second command nobody has heard. */
static void late_before_it_answered(void **state)
{
	static const enum attempt_event late[] = {
		EVENT_REPORT_DOWNLOADING,
		EVENT_REPORT_DOWNLOADED,
		EVENT_REPORT_INSTALLING,
		EVENT_REPORT_ROLLED_BACK,
	};
	struct bench *b = *state;

	try_and_fail(b);
	for (size_t i = 0; i < sizeof late / sizeof late[0]; i++) {
		progress(b, "d1", late[i], 50);
		assert_string_equal(row_text(b, STATUSES), "failed pending");
		assert_int_equal(row_int(b, ACCEPTED), 0);
	}
	hear_it_all_again(b);
	assert_string_equal(row_text(b, STATUSES), "failed pending");
	assert_int_equal(row_int(b, ACCEPTED), 0);
	assert_int_equal(row_int(b, FAILURES), 1);
	bench_restart(b);
	/* So it is told again when its window has passed. */
	seconds_pass(WINDOW);
	assert_true(order(b, "d1"));
	bench_restart(b);
}

static void copies_after_it_accepted(void **state)
{
	struct bench *b = *state;

	try_and_fail(b);
	accepts(b, "accepted 2", true);
	for (int begun = 0; begun < 2; begun++) {
		hear_it_all_again(b);
		assert_string_equal(row_text(b, STATUSES),
				    begun ? "failed downloading" : "failed pending");
		assert_int_equal(row_int(b, FAILURES), 1);
		bench_restart(b);
		stamped(b, EVENT_REPORT_DOWNLOADING, "downloading 2");
	}
	/* Its own end counts. */
	fails(b, "failed 2", true);
	assert_string_equal(row_text(b, STATUSES), "failed failed");
	assert_int_equal(row_int(b, FAILURES), 2);
	bench_restart(b);
}

/* An end that changed nothing when it first came is known all the same. */
static void the_second_end_of_one_try(void **state)
{
	struct bench *b = *state;

	accepts(b, "accepted 1", true);
	stamped(b, EVENT_REPORT_DOWNLOADING, "downloading 1");
	stamped(b, EVENT_REPORT_INSTALLING, "installing 1");
	stamped(b, EVENT_REPORT_ROLLED_BACK, "rolled back 1");
	fails(b, "failed 1", true);
	assert_string_equal(row_text(b, STATUSES), "rolled_back");
	seconds_pass(SOON_S);
	assert_true(order(b, "d1"));
	accepts(b, "accepted 2", true);
	stamped(b, EVENT_REPORT_DOWNLOADING, "downloading 2");
	bench_restart(b);
	fails(b, "failed 1", true);
	stamped(b, EVENT_REPORT_ROLLED_BACK, "rolled back 1");
	assert_string_equal(row_text(b, STATUSES), "rolled_back downloading");
	assert_int_equal(row_int(b, FAILURES), 1);
	bench_restart(b);
}

/* Nothing is rolled back of which nothing was downloaded. */
static void rolled_back_from_nothing(void **state)
{
	struct bench *b = *state;

	try_and_fail(b);
	accepts(b, "accepted 2", true);
	stamped(b, EVENT_REPORT_ROLLED_BACK, "rolled back 1");
	assert_string_equal(row_text(b, STATUSES), "failed pending");
	stamped(b, EVENT_REPORT_INSTALLING, "installing 2");
	assert_string_equal(row_text(b, STATUSES), "failed installing");
	stamped(b, EVENT_REPORT_ROLLED_BACK, "rolled back 2");
	assert_string_equal(row_text(b, STATUSES), "failed rolled_back");
	bench_restart(b);
}

/* Devices without a clock say the same of each try. */
static void the_same_words_of_each_try(void **state)
{
	struct bench *b = *state;

	accepts(b, "accepted", false);
	fails(b, "failed", false);
	seconds_pass(SOON_S);
	assert_true(order(b, "d1"));
	fails(b, "failed", false); /* a copy: it has not answered */
	assert_string_equal(row_text(b, STATUSES), "failed pending");
	accepts(b, "accepted", false);
	fails(b, "failed", false); /* may be one still */
	assert_string_equal(row_text(b, STATUSES), "failed pending");
	bench_restart(b);
	seconds_pass(WINDOW);
	assert_true(order(b, "d1"));
	fails(b, "failed", false); /* told twice, and it says so again: it means it */
	assert_string_equal(row_text(b, STATUSES), "failed failed");
	assert_int_equal(row_int(b, FAILURES), 2);
	seconds_pass(2 * SOON_S);
	assert_true(order(b, "d1"));
	accepts(b, "accepted", false);
	progress(b, "d1", EVENT_REPORT_DOWNLOADING, 5);
	fails(b, "failed", false); /* the download began: it means it */
	assert_string_equal(row_text(b, STATUSES), "failed failed failed");
	bench_restart(b);
}

/* Devices that never say `accepted`, and whose download nobody sees. */
static void devices_that_accept_nothing(void **state)
{
	struct bench *b = *state;

	/* Nothing can be late of the first try. */
	progress(b, "d1", EVENT_REPORT_DOWNLOADING, 5);
	assert_string_equal(row_text(b, STATUSES), "downloading");
	stamped(b, EVENT_REPORT_INSTALLING, "installing 1");
	fails(b, "failed 1", true);
	seconds_pass(SOON_S);
	assert_true(order(b, "d1"));
	/* A result names the version: it counts. */
	fails(b, "failed 2", true);
	assert_string_equal(row_text(b, STATUSES), "failed failed");
	bench_restart(b);
	seconds_pass(2 * SOON_S);
	assert_true(order(b, "d1"));
	progress(b, "d1", EVENT_REPORT_DOWNLOADING, 5);
	assert_string_equal(row_text(b, STATUSES), "failed failed pending");
	/* An hour after its last word nothing is late any more. */
	last_will(b, "d1", paku);
	seconds_pass(3600);
	assert_false(order(b, "d1"));
	assert_string_equal(row_text(b, LAST_CLOSED), "lapsed");
	birth(b, "d1", "1.0.0");
	assert_true(order(b, "d1"));
	bench_restart(b);
	progress(b, "d1", EVENT_REPORT_DOWNLOADING, 5);
	assert_string_equal(row_text(b, STATUSES), "failed failed pending downloading");
	bench_restart(b);
}

/* The download of the command's URL, and any word that names the attempt, leave no doubt. */
static void the_attempt_named(void **state)
{
	struct bench *b = *state;
	char token[ATTEMPT_TOKEN_LEN + 1];

	try_and_fail(b);
	strcpy(token, device(b, "d1")->state.attempt->token);
	say(b, (struct report){.device_id = "d1",
			       .event = EVENT_REPORT_INSTALLING,
			       .percent = -1,
			       .attempt_token = token});
	assert_string_equal(row_text(b, STATUSES), "failed installing");
	fails(b, "failed 2", true);
	seconds_pass(2 * SOON_S);
	assert_true(order(b, "d1"));
	strcpy(token, device(b, "d1")->state.attempt->token);
	assert_int_equal(fetch(b, token, false), OTA_OK);
	progress(b, "d1", EVENT_REPORT_INSTALLING, -1);
	assert_string_equal(row_text(b, STATUSES), "failed failed installing");
	bench_restart(b);
}

/* An earlier try ended well too: what the device came from is what was heard last, on disk as in
 * memory. */
static void an_earlier_success(void **state)
{
	struct bench *b = *state;
	char token[ATTEMPT_TOKEN_LEN + 1];

	strcpy(token, device(b, "d1")->state.attempt->token);
	assert_int_equal(set_active(b, 1, false), OTA_OK);
	assert_int_equal(set_active(b, 1, true), OTA_OK);
	struct answer second = ask(b, "d1", "1.1.0");
	assert_true(second.offered);
	assert_int_equal(tell(b, "d1", "2.0.0", "success", -1, second.token, NULL), OTA_OK);
	assert_string_equal(device(b, "d1")->state.ran_from, "1.1.0");
	assert_int_equal(tell(b, "d1", "2.0.0", "success", -1, token, NULL), OTA_OK);
	assert_string_equal(row_text(b, STATUSES), "success success");
	assert_string_equal(device(b, "d1")->state.ran_from, "1.0.0");
	bench_restart(b);
}

#define TOLD(test) cmocka_unit_test_setup_teardown(test, begin_told, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TOLD(late_before_it_answered),    TOLD(copies_after_it_accepted),
		TOLD(the_second_end_of_one_try),  TOLD(rolled_back_from_nothing),
		TOLD(the_same_words_of_each_try), TOLD(devices_that_accept_nothing),
		TOLD(the_attempt_named),          TOLD(an_earlier_success),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
