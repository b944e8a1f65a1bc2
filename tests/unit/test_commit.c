/* SPDX-License-Identifier: MIT */
/* commit, on a real store: what devices and operators do, row by row, and a restart between the
 * steps. */
#include "commit_bench.h"

#define STATUS_OF                                                                                  \
	"SELECT status FROM device_update_status WHERE device_id='%s' ORDER BY id DESC LIMIT 1"
#define LAST_STATUS "SELECT status FROM device_update_status ORDER BY id DESC LIMIT 1"

static int begin(void **state)
{
	static struct bench b;

	b = bench_new();
	bench_open(&b);
	*state = &b;
	return 0;
}

static int end(void **state)
{
	bench_end(*state);
	return 0;
}

static void expect_offer(const struct answer *a, const char *version)
{
	if (!a->offered || strcmp(a->version, version) != 0)
		fail_msg("expected an offer of %s: %s %s", version, reason_name(a->reason),
			 a->version);
	assert_int_equal(strlen(a->token), ATTEMPT_TOKEN_LEN);
}

static void expect_refusal(const struct answer *a, enum reason want)
{
	if (a->offered || a->reason != want)
		fail_msg("expected %s: %s %s", reason_name(want), reason_name(a->reason),
			 a->version);
}

static void registers_and_offers_once(void **state)
{
	struct bench *b = *state;
	struct answer first, again;

	first = ask(b, "esp32_001", "1.0.0");
	expect_refusal(&first, REASON_MODEL_UNKNOWN);
	assert_int_equal(first.commands, 1);
	assert_int_equal(row_int(b, "SELECT count(*) FROM devices"), 1);
	assert_string_equal(row_text(b, "SELECT event_type FROM ota_events"), "device_registered");
	bench_restart(b);
	roll_out(b, "2.0.0");
	bench_restart(b);
	first = ask(b, "esp32_001", "1.0.0");
	expect_offer(&first, "2.0.0");
	assert_int_equal(first.commands, 1);
	assert_string_equal(first.latest, "2.0.0");
	assert_string_equal(row_text(b, LAST_STATUS), "pending");
	assert_string_equal(row_text(b, "SELECT attempt_id FROM device_update_status"),
			    first.token);
	int64_t before = writes(b), rows = row_int(b, "SELECT count(*) FROM ota_events");
	for (int i = 0; i < 10; i++) {
		again = ask(b, "esp32_001", "1.0.0");
		expect_offer(&again, "2.0.0");
		assert_string_equal(again.token, first.token);
		assert_int_equal(again.commands, 0);
	}
	assert_int_equal(writes(b), before);
	bench_restart(b);
	again = ask(b, "esp32_001", "1.0.0");
	assert_string_equal(again.token, first.token);
	assert_int_equal(again.commands, 0);
	assert_int_equal(row_int(b, "SELECT count(*) FROM ota_events"), rows);
}

static void all_the_words(void **state)
{
	static const char *const words[] = {"pending", "downloading", "downloaded", "installing",
					    "success"};
	static const char *const events[] = {"update_started", "update_completed"};
	struct bench *b = *state;
	struct answer a;

	roll_out(b, "2.0.0");
	a = ask(b, "d1", "1.0.0");
	for (int i = 0; i < 5; i++) {
		assert_int_equal(tell(b, "d1", "2.0.0", words[i], i == 1 ? 10 : -1,
				      i % 2 ? a.token : NULL, NULL),
				 OTA_OK);
		assert_string_equal(row_text(b, LAST_STATUS), words[i]);
		bench_restart(b);
		/* Late and repeated words change nothing. */
		int64_t before = writes(b);
		for (int k = 0; k <= i; k++)
			tell(b, "d1", "2.0.0", words[k], k == 1 ? 10 : -1, NULL, NULL);
		tell(b, "d1", "v2.0.0", words[0], -1, NULL, NULL);
		assert_int_equal(writes(b), before);
	}
	assert_int_equal(row_int(b, "SELECT count(*) FROM device_update_status"), 1);
	assert_int_equal(row_int(b, "SELECT progress_percent FROM device_update_status"), 100);
	assert_int_equal(row_int(b, "SELECT completed_at IS NOT NULL AND started_at IS NOT NULL"
				    " FROM device_update_status"),
			 1);
	for (int i = 0; i < 2; i++) {
		char sql[128];
		snprintf(sql, sizeof sql, "SELECT count(*) FROM ota_events WHERE event_type='%s'",
			 events[i]);
		assert_int_equal(row_int(b, sql), 1);
	}
	a = ask(b, "d1", "2.0.0");
	expect_refusal(&a, REASON_UP_TO_DATE);
	assert_int_equal(row_int(b, "SELECT settled FROM device_update_status"), 1);
	bench_restart(b);
	/* Duplicates after the end, in the other spelling too. */
	int64_t before = writes(b);
	assert_int_equal(tell(b, "d1", "v2.0.0", "success", -1, NULL, NULL), OTA_OK);
	assert_int_equal(tell(b, "d1", "2.0.0", "downloading", 99, NULL, NULL), OTA_OK);
	assert_int_equal(writes(b), before);
	assert_int_equal(row_int(b, "SELECT count(*) FROM device_update_status"), 1);
}

static void progress_only_grows(void **state)
{
	struct bench *b = *state;
	static const int told[] = {5, 50, 20, 50, 60}, kept[] = {5, 50, 50, 50, 60};

	roll_out(b, "2.0.0");
	ask(b, "d1", "1.0.0");
	for (int i = 0; i < 5; i++) {
		tell(b, "d1", "2.0.0", "downloading", told[i], NULL, NULL);
		assert_int_equal(row_int(b, "SELECT progress_percent FROM device_update_status"),
				 kept[i]);
		bench_restart(b);
	}
	/* How far it came before it failed is part of the record. */
	tell(b, "d1", "2.0.0", "failed", 75, NULL, "Checksum mismatch");
	assert_int_equal(row_int(b, "SELECT progress_percent FROM device_update_status"), 75);
	assert_string_equal(row_text(b, "SELECT error_message FROM device_update_status"),
			    "Checksum mismatch");
	bench_restart(b);
}

static void unsolicited(void **state)
{
	struct bench *b = *state;

	assert_int_equal(tell(b, "stranger", "9.9.9", "downloading", 30, "aaaaaaaaaaaaa", NULL),
			 OTA_OK);
	assert_string_equal(row_text(b, "SELECT device_model FROM devices"), "(null)");
	assert_int_equal(row_int(b, "SELECT unsolicited FROM device_update_status"), 1);
	assert_int_equal(row_int(b, "SELECT progress_percent FROM device_update_status"), 30);
	bench_restart(b);
	assert_int_equal(tell(b, "stranger", "9.9.9", "success", -1, NULL, NULL), OTA_OK);
	assert_int_equal(row_int(b, "SELECT count(*) FROM device_update_status"), 1);
	assert_string_equal(row_text(b, LAST_STATUS), "success");
	bench_restart(b);
	int64_t before = writes(b);
	assert_int_equal(tell(b, "stranger", "9.9.9", "success", -1, NULL, NULL), OTA_OK);
	assert_int_equal(writes(b), before);
	/* Outside every count: three failures that nobody asked for do not stop an offer. */
	roll_out(b, "2.0.0");
	for (int i = 0; i < 4; i++)
		tell(b, "d1", "2.0.0", "failed", -1, NULL, NULL);
	struct answer a = ask(b, "d1", "1.0.0");
	expect_offer(&a, "2.0.0");
	bench_restart(b);
	/* Beside an open attempt a word about another version is a row of its own. */
	tell(b, "d1", "7.0.0", "installing", -1, NULL, NULL);
	assert_string_equal(row_text(b, LAST_STATUS), "installing");
	bench_restart(b);
	a = ask(b, "d1", "1.0.0");
	expect_offer(&a, "2.0.0");
}

static void closed_by_what_it_runs(void **state)
{
	struct bench *b = *state;
	struct answer a;

	roll_out(b, "2.0.0");
	a = ask(b, "d1", "1.0.0");
	assert_int_equal(fetch(b, a.token, true), OTA_OK);
	assert_string_equal(row_text(b, LAST_STATUS), "pending");
	assert_int_equal(fetch(b, a.token, false), OTA_OK);
	assert_string_equal(row_text(b, LAST_STATUS), "downloading");
	bench_restart(b);
	int64_t before = writes(b);
	assert_int_equal(fetch(b, a.token, false), OTA_OK);
	assert_int_equal(fetch(b, "nobodys-token", false), OTA_OK);
	assert_int_equal(writes(b), before);
	a = ask(b, "d1", "2.0.0"); /* its result was lost */
	expect_refusal(&a, REASON_UP_TO_DATE);
	assert_string_equal(row_text(b, LAST_STATUS), "success");
	bench_restart(b);
	/* A success can become rolled back later. */
	a = ask(b, "d1", "1.0.0");
	expect_offer(&a, "2.0.0");
	assert_int_equal(
		row_int(b, "SELECT count(*) FROM device_update_status WHERE status='rolled_back'"),
		1);
	bench_restart(b);
}

static void learns_a_name(void **state)
{
	struct bench *b = *state;
	struct answer a;

	roll_out(b, "2.0.0");
	a = ask(b, "d1", "1.0.0");
	tell(b, "d1", "2.0.0", "success", -1, a.token, NULL);
	bench_restart(b);
	a = ask(b, "d1", "two-oh");
	expect_refusal(&a, REASON_UP_TO_DATE);
	assert_string_equal(row_text(b, "SELECT learnt_versions FROM firmware_releases"),
			    "[\"two-oh\"]");
	bench_restart(b);
	a = ask(b, "d1", "two-oh");
	assert_int_equal(a.commands, 0);
	/* What was learnt holds for others. */
	a = ask(b, "d2", "two-oh");
	expect_refusal(&a, REASON_UP_TO_DATE);
	bench_restart(b);
	/* A second name. */
	a = ask(b, "d3", "1.0.0");
	tell(b, "d3", "2.0.0", "success", -1, a.token, NULL);
	a = ask(b, "d3", "zwei");
	expect_refusal(&a, REASON_UP_TO_DATE);
	bench_restart(b);
	/* Once learnt, a success that is seen again writes no new name. */
	a = ask(b, "d4", "1.0.0");
	tell(b, "d4", "2.0.0", "success", -1, a.token, NULL);
	a = ask(b, "d4", "zwei");
	expect_refusal(&a, REASON_UP_TO_DATE);
	assert_int_equal(
		row_int(b, "SELECT json_array_length(learnt_versions) FROM firmware_releases"), 2);
	assert_int_equal(
		row_int(b, "SELECT count(*) FROM ota_events WHERE event_type='version_learnt'"), 2);
	bench_restart(b);
}

/* 2.0RC4 calls itself 2.0RC3, which is a release too: success, and no loop of offers. */
static void mislabelled_release(void **state)
{
	static const char *const from[] = {"2.0RC2", "2.0RC3", "1.0.0"};
	struct bench *b = *state;
	struct release_new rc3 = release_facts_of("2.0RC3", "3"),
			   rc4 = release_facts_of("2.0RC4", "4");
	struct rollout_new n = rollout_of("rc4", "2.0RC4");
	struct command cmd;

	rc3.inner_version = rc4.inner_version = "2.0RC3";
	rc3.image_type = rc4.image_type = "esp";
	rc3.image_json = rc4.image_json = "{\"version\":\"2.0RC3\"}";
	assert_int_equal(upload_as(b, &rc3, &cmd), OTA_OK);
	assert_string_equal(cmd.warnings, "[]");
	assert_int_equal(upload_as(b, &rc4, &cmd), OTA_OK);
	assert_non_null(strstr(cmd.warnings, "2.0RC3"));
	assert_int_equal(roll_out_as(b, &n, &cmd), OTA_OK);
	bench_restart(b);
	for (int i = 0; i < 3; i++) {
		char id[8];
		snprintf(id, sizeof id, "d%d", i);
		struct answer a = ask(b, id, from[i]);
		expect_offer(&a, "2.0RC4");
		tell(b, id, "2.0RC4", "installing", -1, a.token, NULL);
		tell(b, id, "2.0RC4", "success", -1, a.token, NULL);
		bench_restart(b);
		for (int k = 0; k < 3; k++) {
			a = ask_with(b, id, "2.0RC3", (struct told){.just_booted = true});
			expect_refusal(&a, REASON_UP_TO_DATE);
			bench_restart(b);
		}
	}
	assert_int_equal(row_int(b, "SELECT count(*) FROM device_update_status"), 3);
}

static void rolled_back_by_evidence(void **state)
{
	struct bench *b = *state;
	struct answer a;

	roll_out(b, "2.0.0");
	for (int with_success = 0; with_success < 2; with_success++) {
		const char *id = with_success ? "d1" : "d0";
		char sql[160];
		snprintf(sql, sizeof sql, STATUS_OF, id);
		a = ask_with(b, id, "1.0.0", (struct told){.boot = 1});
		tell(b, id, "2.0.0", "installing", -1, a.token, NULL);
		if (with_success)
			tell(b, id, "2.0.0", "success", -1, a.token, NULL);
		bench_restart(b);
		a = ask_with(b, id, "1.0.0", (struct told){.boot = 1}); /* not restarted yet */
		expect_refusal(&a, REASON_INSTALLING);
		assert_string_equal(row_text(b, sql), with_success ? "success" : "installing");
		bench_restart(b);
		a = ask_with(b, id, "1.0.0", (struct told){.boot = 2});
		expect_offer(&a, "2.0.0");
		snprintf(sql, sizeof sql,
			 "SELECT count(*) FROM device_update_status WHERE device_id='%s' AND "
			 "status='rolled_back'",
			 id);
		assert_int_equal(row_int(b, sql), 1);
		bench_restart(b);
	}
	/* By uptime, soon after the boot known. */
	a = ask_with(b, "d2", "1.0.0", (struct told){.uptime_s = 5});
	tell(b, "d2", "2.0.0", "installing", -1, a.token, NULL);
	a = ask_with(b, "d2", "1.0.0", (struct told){.uptime_s = 6});
	expect_refusal(&a, REASON_INSTALLING);
	a = ask_with(b, "d2", "1.0.0", (struct told){.just_booted = true});
	expect_offer(&a, "2.0.0");
	bench_restart(b);
}

static void rolled_back_after_the_grace_period(void **state)
{
	struct bench *b = *state;

	b->cfg.install_grace_s = 1;
	bench_restart(b);
	roll_out(b, "2.0.0");
	struct answer a = ask(b, "d1", "1.0.0");
	tell(b, "d1", "2.0.0", "installing", -1, a.token, NULL);
	a = ask(b, "d1", "1.0.0");
	expect_refusal(&a, REASON_INSTALLING);
	for (int i = 0; i < 1000 && !a.offered; i++) {
		usleep(10000);
		a = ask(b, "d1", "1.0.0");
	}
	expect_offer(&a, "2.0.0");
	assert_int_equal(
		row_int(b, "SELECT count(*) FROM device_update_status WHERE status='rolled_back'"),
		1);
	bench_restart(b);
}

/* Neither the old nor the new: it ends, or the device would wait for ever. */
static void installs_and_runs_something_else(void **state)
{
	struct bench *b = *state;

	roll_out(b, "2.0.0");
	struct answer a = ask(b, "d1", "1.0.0");
	tell(b, "d1", "2.0.0", "installing", -1, a.token, NULL);
	a = ask(b, "d1", "1.7.0");
	expect_refusal(&a, REASON_INSTALLING);
	bench_restart(b);
	a = ask_with(b, "d1", "1.7.0", (struct told){.just_booted = true});
	expect_offer(&a, "2.0.0");
	assert_int_equal(
		row_int(b, "SELECT count(*) FROM device_update_status WHERE status='failed'"), 1);
	bench_restart(b);
}

static void fails_three_times(void **state)
{
	struct bench *b = *state;
	struct answer a;

	roll_out(b, "2.0.0");
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 3; i++) {
			a = ask(b, "d1", "1.0.0");
			expect_offer(&a, "2.0.0");
			tell(b, "d1", "2.0.0", i == 1 ? "rolled_back" : "failed", -1, a.token,
			     "no");
			bench_restart(b);
		}
		a = ask(b, "d1", "1.0.0");
		expect_refusal(&a, REASON_TOO_MANY_FAILURES);
		assert_int_equal(retry(b, "d1", "1.2.3"), OTA_OK); /* at another release: nothing */
		a = ask(b, "d1", "1.0.0");
		expect_refusal(&a, REASON_TOO_MANY_FAILURES);
		assert_int_equal(retry(b, "d1", round ? "2.0.0" : NULL), OTA_OK);
		bench_restart(b);
	}
	a = ask(b, "d1", "1.0.0");
	expect_offer(&a, "2.0.0");
	assert_int_equal(retry(b, "nobody", NULL), OTA_ENOTFOUND);
}

/* Failures before a success that stood are not in a row with those after it. */
static void failures_in_a_row(void **state)
{
	struct bench *b = *state;
	struct answer a;

	roll_out(b, "2.0.0");
	for (int i = 0; i < 2; i++) {
		a = ask(b, "d1", "1.0.0");
		tell(b, "d1", "2.0.0", "failed", -1, a.token, NULL);
	}
	a = ask(b, "d1", "1.0.0");
	tell(b, "d1", "2.0.0", "success", -1, a.token, NULL);
	ask(b, "d1", "2.0.0");
	roll_out(b, "3.0.0");
	a = ask(b, "d1", "2.0.0");
	expect_offer(&a, "3.0.0");
	tell(b, "d1", "3.0.0", "success", -1, a.token, NULL);
	ask(b, "d1", "3.0.0");
	bench_restart(b);
	assert_int_equal(row_int(b, "SELECT count(*) FROM attempt_failures"), 0);
	/* But a boot loop ends: each success that is rolled back is one more in the row. */
	roll_out(b, "4.0.0");
	for (int i = 0; i < 3; i++) {
		a = ask(b, "d1", "3.0.0");
		expect_offer(&a, "4.0.0");
		tell(b, "d1", "4.0.0", "success", -1, a.token, NULL);
		ask(b, "d1", "4.0.0");
		bench_restart(b);
	}
	a = ask(b, "d1", "3.0.0");
	expect_refusal(&a, REASON_UP_TO_DATE); /* with the rollout before it */
	assert_int_equal(row_int(b, "SELECT max(failures) FROM attempt_failures"), 3);
	bench_restart(b);
}

static void deactivation(void **state)
{
	struct bench *b = *state;
	int64_t id = roll_out(b, "2.0.0");
	struct answer waits = ask(b, "waits", "1.0.0"), begun = ask(b, "begun", "1.0.0"), a;

	fetch(b, begun.token, false);
	assert_int_equal(set_active(b, id, false), OTA_OK);
	bench_restart(b);
	assert_string_equal(row_text(b, "SELECT status||closed||(completed_at IS NOT NULL) FROM"
					" device_update_status WHERE device_id='waits'"),
			    "pendingwithdrawn1");
	assert_string_equal(row_text(b, "SELECT json_extract(metadata,'$.closed') FROM"
					" device_update_status WHERE device_id='waits'"),
			    "withdrawn");
	assert_string_equal(
		row_text(b, "SELECT status FROM device_update_status WHERE device_id='begun'"),
		"downloading");
	assert_int_equal(fetch(b, waits.token, false), OTA_EGONE);
	assert_int_equal(fetch(b, waits.token, true), OTA_EGONE);
	assert_int_equal(fetch(b, begun.token, false), OTA_OK);
	a = ask(b, "waits", "1.0.0");
	expect_refusal(&a, REASON_NO_ROLLOUT);
	a = ask(b, "begun", "1.0.0");
	expect_offer(&a, "2.0.0"); /* the same again */
	assert_string_equal(a.token, begun.token);
	int64_t before = writes(b);
	assert_int_equal(set_active(b, id, false), OTA_OK);
	assert_int_equal(writes(b), before);
	assert_int_equal(set_active(b, id + 99, false), OTA_ENOTFOUND);
	/* A word about the withdrawn one opens nothing; how it ended is recorded. */
	tell(b, "waits", "2.0.0", "downloading", 10, waits.token, NULL);
	assert_string_equal(
		row_text(b,
			 "SELECT status||closed FROM device_update_status WHERE device_id='waits'"),
		"pendingwithdrawn");
	bench_restart(b);
	tell(b, "waits", "2.0.0", "success", -1, waits.token, NULL);
	assert_string_equal(
		row_text(b, "SELECT status FROM device_update_status WHERE device_id='waits'"),
		"success");
	bench_restart(b);
	assert_int_equal(set_active(b, id, true), OTA_OK);
	bench_restart(b);
	tell(b, "begun", "2.0.0", "success", -1, NULL, NULL);
	a = ask(b, "begun", "2.0.0");
	expect_refusal(&a, REASON_UP_TO_DATE);
	bench_restart(b);
}

static void lapses_and_begins_again(void **state)
{
	struct bench *b = *state;
	struct answer a, again;

	b->cfg.poll_interval_s = 1;
	bench_restart(b);
	roll_out(b, "2.0.0");
	a = ask(b, "d1", "1.0.0");
	again = ask(b, "d2", "1.0.0");
	for (int i = 0;
	     i < 2000 &&
	     row_int(b, "SELECT count(*) FROM device_update_status WHERE closed='lapsed'") < 2;
	     i++)
		usleep(10000);
	assert_string_equal(row_text(b, "SELECT status||closed FROM device_update_status"),
			    "pendinglapsed");
	assert_int_equal(row_int(b, "SELECT count(*) FROM attempt_failures"), 0);
	b->cfg.poll_interval_s = 3600;
	bench_restart(b);
	/* It wakes up and begins after all. */
	assert_int_equal(fetch(b, a.token, false), OTA_OK);
	assert_string_equal(
		row_text(b, "SELECT status FROM device_update_status WHERE device_id='d1'"),
		"downloading");
	assert_int_equal(
		row_int(b, "SELECT count(*) FROM device_update_status WHERE completed_at IS NULL"),
		1);
	bench_restart(b);
	/* It asks again and is offered it anew; then the old attempt does not begin beside the new
	 * one. */
	struct answer anew = ask(b, "d2", "1.0.0");
	expect_offer(&anew, "2.0.0");
	assert_string_not_equal(anew.token, again.token);
	assert_int_equal(fetch(b, again.token, false), OTA_OK);
	bench_restart(b);
	/* A success of the old one beside the new one: recorded, and it waits for nothing. */
	assert_int_equal(tell(b, "d2", "2.0.0", "success", -1, again.token, NULL), OTA_OK);
	bench_restart(b);
	tell(b, "d2", "2.0.0", "success", -1, anew.token, NULL);
	/* Nor does a lapsed one begin beside a success that is yet to be seen. */
	bench_restart(b);
	ask(b, "d2", "2.0.0");
	bench_restart(b);
	/* A lapsed attempt, a newer success not yet seen, and a late word of the first. */
	b->cfg.poll_interval_s = 1;
	bench_restart(b);
	a = ask(b, "d3", "1.0.0");
	for (int i = 0; i < 2000 && row_int(b, "SELECT count(*) FROM device_update_status WHERE "
					       "closed='lapsed' AND device_id='d3'") < 1;
	     i++)
		usleep(10000);
	b->cfg.poll_interval_s = 3600;
	bench_restart(b);
	again = ask(b, "d3", "1.0.0");
	tell(b, "d3", "2.0.0", "success", -1, again.token, NULL);
	tell(b, "d3", "2.0.0", "downloading", 5, a.token, NULL);
	bench_restart(b);
	again = ask_with(b, "d3", "1.0.0", (struct told){.just_booted = true});
	expect_offer(&again, "2.0.0");
	bench_restart(b);
}

static void superseded(void **state)
{
	struct bench *b = *state;
	struct answer a;

	roll_out(b, "2.0.0");
	struct answer begun = ask(b, "begun", "1.0.0");
	ask(b, "waits", "1.0.0");
	fetch(b, begun.token, false);
	roll_out(b, "3.0.0");
	bench_restart(b);
	a = ask(b, "waits", "1.0.0");
	expect_offer(&a, "3.0.0");
	assert_int_equal(row_int(b,
				 "SELECT count(*) FROM device_update_status WHERE device_id='waits'"
				 " AND closed='withdrawn' AND firmware_version='2.0.0'"),
			 1);
	a = ask(b, "begun", "1.0.0");
	expect_offer(&a, "2.0.0");
	assert_int_equal(a.reason, REASON_IN_PROGRESS);
	bench_restart(b);
	/* Once it has stopped for three poll intervals the newer release takes its place. */
	b->cfg.poll_interval_s = 0;
	bench_restart(b);
	a = ask(b, "begun", "1.0.0");
	expect_offer(&a, "3.0.0");
	b->cfg.poll_interval_s = 3600;
	bench_restart(b);
	assert_string_equal(
		row_text(b, "SELECT status FROM device_update_status WHERE device_id='begun'"
			    " AND firmware_version='2.0.0'"),
		"failed");
}

/* A device that comes back as another model, at each stage of an update. */
static void becomes_another_model(void **state)
{
	static const char *const words[] = {"pending", "downloading", "downloaded", "installing",
					    "success"};
	struct bench *b = *state;
	struct release_new n = release_facts_of("5.0.0", "other");
	struct rollout_new o = rollout_of("other", "5.0.0");
	struct command cmd;

	roll_out(b, "2.0.0");
	n.model = o.model = "esp32";
	for (int with_rollout = 0; with_rollout < 2; with_rollout++) {
		for (int i = 0; i < 5; i++) {
			char id[16];
			snprintf(id, sizeof id, "d%d-%d", with_rollout, i);
			struct answer a = ask(b, id, "1.0.0");
			expect_offer(&a, "2.0.0");
			tell(b, id, "2.0.0", words[i], -1, a.token, NULL);
			a = ask_with(b, id, "1.0.0", (struct told){.model = "esp32"});
			assert_int_equal(a.code, OTA_OK);
			if (with_rollout)
				expect_offer(&a, "5.0.0");
			else
				expect_refusal(&a, REASON_MODEL_UNKNOWN);
			/* Nothing of the model it was stays open. */
			assert_int_equal(
				row_int(b, "SELECT count(*) FROM device_update_status WHERE"
					   " firmware_version='2.0.0' AND completed_at IS NULL"),
				0);
			bench_restart(b);
			ask_with(b, id, "5.0.0", (struct told){.model = "esp32"});
			a = ask(b, id, "2.0.0"); /* and back */
			assert_int_equal(a.code, OTA_OK);
			bench_restart(b);
		}
		assert_int_equal(upload_as(b, &n, &cmd), OTA_OK);
		assert_int_equal(roll_out_as(b, &o, &cmd), OTA_OK);
	}
}

static void digests_go_with_the_version(void **state)
{
	struct bench *b = *state;
	struct device_digests g = {.has_firmware = true};
	struct release_new n = release_facts_of("1.0.0", "one");
	struct rollout_new o = rollout_of("back", "1.0.0");
	struct command cmd;

	assert_int_equal(upload_as(b, &n, &cmd), OTA_OK);
	memcpy(g.firmware, n.sha256, DIGEST_SIZE);
	ask_with(b, "d1", "1.0.0", (struct told){.digests = &g});
	bench_restart(b);
	ask(b, "d1", "foo"); /* flashed by hand with something that tells no digest */
	bench_restart(b);
	assert_int_equal(roll_out_as(b, &o, &cmd), OTA_OK);
	struct answer a = ask(b, "d1", "foo");
	expect_offer(&a, "1.0.0");
}

static void releases(void **state)
{
	struct bench *b = *state;
	struct release_new n = release_facts_of("1.0.0", "one"),
			   other = release_facts_of("1.0.0", "two");
	struct command cmd;

	n.min_version = "0.5.0";
	n.release_notes = "quote \" and \\ and \n";
	n.has_image_digest = n.has_elf_digest = true;
	n.chip = CHIP_ESP32_C3;
	n.secure_version = 3;
	n.project = "thermo";
	n.inner_version = "1.0.0-g1";
	memset(n.image_digest, 0xAB, DIGEST_SIZE);
	memset(n.elf_digest, 0xCD, DIGEST_SIZE);
	n.image_type = "esp";
	n.image_json = "{\"chip\":\"ESP32-C3\",\"project\":\"thermo\",\"version\":\"1.0.0-g1\","
		       "\"secure_version\":3,"
		       "\"image_digest\":"
		       "\"abababababababababababababababababababababababababababababababab\","
		       "\"elf_sha256\":"
		       "\"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd\"}";
	assert_int_equal(upload_as(b, &n, &cmd), OTA_OK);
	assert_false(cmd.out.existed);
	int64_t id = cmd.out.id;
	bench_restart(b);
	int64_t before = writes(b);
	assert_int_equal(upload_as(b, &n, &cmd), OTA_OK);
	assert_true(cmd.out.existed && cmd.out.id == id);
	assert_int_equal(upload_as(b, &other, &cmd), OTA_ECONFLICT);
	assert_int_equal(cmd.err.code, OTA_ECONFLICT);
	assert_int_equal(writes(b), before);
	assert_int_equal(delete_release(b, "1.0.1"), OTA_ENOTFOUND);
	assert_int_equal(delete_release(b, "1.0.0"), OTA_OK);
	assert_int_equal(delete_release(b, "1.0.0"), OTA_ENOTFOUND);
	bench_restart(b);
	assert_int_equal(upload_as(b, &other, &cmd),
			 OTA_ECONFLICT); /* the name never means other bytes */
	assert_int_equal(upload_as(b, &n, &cmd), OTA_OK);
	assert_int_equal(cmd.out.id, id);
	bench_restart(b);
	n.version = "1.1.0";
	n.chip = CHIP_ESP32_S3;
	assert_int_equal(upload_as(b, &n, &cmd), OTA_EUNPROCESSABLE);
	assert_non_null(strstr(cmd.err.msg, "ESP32-S3"));
	bench_restart(b);
}

static void delete_rules(void **state)
{
	struct bench *b = *state;
	int64_t id = roll_out(b, "2.0.0");
	struct answer a = ask(b, "d1", "1.0.0");
	struct command cmd;
	struct rollout_new n = rollout_of("again", "2.0.0");

	assert_int_equal(delete_release(b, "2.0.0"), OTA_ECONFLICT);
	fetch(b, a.token, false);
	assert_int_equal(set_active(b, id, false), OTA_OK);
	assert_int_equal(delete_release(b, "2.0.0"), OTA_ECONFLICT); /* a device is on its way */
	tell(b, "d1", "2.0.0", "failed", -1, NULL, NULL);
	assert_int_equal(delete_release(b, "2.0.0"), OTA_OK);
	bench_restart(b);
	assert_int_equal(set_active(b, id, true), OTA_ECONFLICT);
	assert_int_equal(roll_out_as(b, &n, &cmd), OTA_ENOTFOUND);
	bench_restart(b);
}

static void rollouts(void **state)
{
	struct bench *b = *state;
	static const char *const ids[] = {"d2", "d1", "d2"}, *const same_ids[] = {"d1", "d2"};
	static const uint64_t macs[] = {0x30, 0x10};
	struct rollout_new n = rollout_of("r", "1.0.0"), x;
	struct command cmd;

	assert_int_equal(roll_out_as(b, &n, &cmd), OTA_ENOTFOUND);
	assert_int_equal(upload(b, "1.0.0"), OTA_OK);
	assert_int_equal(upload(b, "1.1.0"), OTA_OK);
	n.type = TARGET_SPECIFIC;
	n.device_ids = ids;
	n.device_id_count = 3;
	n.macs = macs;
	n.mac_count = 2;
	assert_int_equal(roll_out_as(b, &n, &cmd), OTA_OK);
	int64_t id = cmd.out.id;
	bench_restart(b);
	assert_int_equal(set_active(b, id, false), OTA_OK);
	bench_restart(b);
	int64_t before = writes(b);
	n.device_ids = same_ids;
	n.device_id_count = 2;
	assert_int_equal(roll_out_as(b, &n, &cmd),
			 OTA_OK); /* the job runs again: as it was created */
	assert_true(cmd.out.existed && cmd.out.id == id);
	for (int i = 0; i < 8; i++) {
		x = n;
		if (i == 0)
			x.version = "1.1.0";
		else if (i == 1)
			x.percent = 99;
		else if (i == 2)
			x.device_id_count = 1;
		else if (i == 3)
			x.mac_count = 1;
		else if (i == 4)
			x.active = false;
		else if (i == 5)
			x.allow_downgrade = true;
		else if (i == 6)
			x.max_attempts = 4;
		else
			x.type = TARGET_ALL;
		assert_int_equal(roll_out_as(b, &x, &cmd), OTA_ECONFLICT);
	}
	assert_int_equal(writes(b), before);
	n = rollout_of("g", "1.0.0");
	n.type = TARGET_GROUP;
	n.group = "beta \"x\"";
	n.active = false;
	n.allow_downgrade = true;
	n.max_attempts = 1;
	n.percent = 10;
	assert_int_equal(roll_out_as(b, &n, &cmd), OTA_OK);
	bench_restart(b);
}

static void devices_leave_and_return(void **state)
{
	static const char *const words[] = {"pending", "downloading", "installing", "success",
					    "failed"};
	struct bench *b = *state;

	roll_out(b, "2.0.0");
	for (int i = 0; i < 5; i++) {
		char id[8];
		snprintf(id, sizeof id, "d%d", i);
		struct device_edit e = {
			.device_id = id, .add_group = "beta", .set_label = true, .label = "x"};
		struct answer a = ask(b, id, "1.0.0");
		assert_int_equal(edit(b, &e, 1), OTA_OK);
		tell(b, id, "2.0.0", words[i], -1, a.token, NULL);
		assert_int_equal(delete_device(b, id), OTA_OK);
		assert_int_equal(row_int(b, "SELECT count(*) FROM devices"), i);
		assert_int_equal(row_int(b, "SELECT count(*) FROM device_update_status WHERE "
					    "completed_at IS NULL"),
				 0);
		bench_restart(b);
		if (i < 3)
			assert_int_equal(fetch(b, a.token, false), OTA_EGONE);
		a = ask_with(b, id, "1.0.0", (struct told){.just_booted = true});
		expect_offer(&a, "2.0.0");
		assert_int_equal(row_int(b, "SELECT count(*) FROM device_groups"), 0);
		bench_restart(b);
		tell(b, id, "2.0.0", "failed", -1, a.token, NULL);
		assert_int_equal(row_int(b, "SELECT max(failures) FROM attempt_failures"), 1);
	}
	assert_int_equal(delete_device(b, "nobody"), OTA_ENOTFOUND);
}

static void edits(void **state)
{
	struct bench *b = *state;
	static const char *const groups[] = {"kitchen", "beta", "kitchen"};

	ask(b, "d1", "1.0.0");
	ask(b, "d2", "1.0.0");
	struct device_edit many[] = {
		{.device_id = "d1",
		 .set_groups = true,
		 .groups = groups,
		 .group_count = 3,
		 .set_label = true,
		 .label = "first"},
		{.device_id = "d2", .add_group = "beta", .set_notes = true, .notes = "n"},
		/* The same device again, as a CSV may name it: both edits hold, in order. */
		{.device_id = "d1", .remove_group = "beta", .set_label = true, .label = "second"},
		{.device_id = "d1", .add_group = "late"},
	};
	assert_int_equal(edit(b, many, 4), OTA_OK);
	assert_string_equal(row_text(b,
				     "SELECT group_concat(group_name) FROM (SELECT group_name FROM"
				     " device_groups WHERE device_id='d1' ORDER BY 1)"),
			    "kitchen,late");
	assert_string_equal(row_text(b, "SELECT label FROM devices WHERE device_id='d1'"),
			    "second");
	bench_restart(b);
	struct device_edit bad[] = {{.device_id = "d1", .set_label = true, .label = "third"},
				    {.device_id = "nobody", .add_group = "x"}};
	assert_int_equal(edit(b, bad, 2), OTA_ENOTFOUND);
	assert_string_equal(row_text(b, "SELECT label FROM devices WHERE device_id='d1'"),
			    "second");
	struct device_edit none = {.device_id = "d1", .set_groups = true, .set_label = true};
	assert_int_equal(edit(b, &none, 1), OTA_OK);
	assert_string_equal(row_text(b, "SELECT label FROM devices WHERE device_id='d1'"),
			    "(null)");
	assert_int_equal(row_int(b, "SELECT count(*) FROM device_groups WHERE device_id='d1'"), 0);
	bench_restart(b);
}

/* --- many at once --- */

struct crowd {
	struct command *commands;
	size_t count;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	size_t left;
};

static void one_done(struct command *cmd)
{
	struct crowd *w = cmd->owner;

	pthread_mutex_lock(&w->lock);
	if (--w->left == 0)
		pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

static void wait_for_crowd(struct crowd *w)
{
	pthread_mutex_lock(&w->lock);
	while (w->left > 0)
		pthread_cond_wait(&w->cond, &w->lock);
	pthread_mutex_unlock(&w->lock);
}

/* Submits all, so that they pile up into batches, and waits. */
static void run_crowd(struct bench *b, struct command *cmds, size_t n)
{
	struct crowd w = {cmds, n, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, n};
	struct ota_err err;

	for (size_t i = 0; i < n; i++) {
		cmds[i].owner = &w;
		cmds[i].done = one_done;
		assert_int_equal(committer_submit(b->c, &cmds[i], &err), OTA_OK);
	}
	wait_for_crowd(&w);
}

/* Of several at once those are taken, from the front, that there is room for. */
static void more_than_may_wait(void **state)
{
	enum { N = 5, ROOM = 3 };
	struct bench *b = *state;
	struct command cmds[N];
	struct crowd w = {cmds, N, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, ROOM};
	struct command_list list;
	struct ota_err err;

	b->cfg.queue_max = ROOM;
	bench_restart(b);
	list_init(&list);
	memset(cmds, 0, sizeof cmds);
	for (int i = 0; i < N; i++) {
		cmds[i].kind = COMMAND_CHECKIN;
		cmds[i].checkin = (struct checkin){
			.device_id = "dev", .model = MODEL, .version = "1.0.0", .hw = ""};
		cmds[i].owner = &w;
		cmds[i].done = one_done;
		cmds[i].code = OTA_EINTERNAL;
		list_push(&list, &cmds[i]);
	}
	assert_int_equal(committer_submit_list(b->c, &list, &err), OTA_EUNAVAIL);
	assert_int_equal(list.count, N - ROOM);
	assert_ptr_equal(list.first, &cmds[ROOM]);
	wait_for_crowd(&w);
	for (int i = 0; i < N; i++)
		assert_int_equal(cmds[i].code, i < ROOM ? OTA_OK : OTA_EINTERNAL);
	/* Once they are done there is room for the others. */
	w.left = N - ROOM;
	assert_int_equal(committer_submit_list(b->c, &list, &err), OTA_OK);
	assert_int_equal(list.count, 0);
	wait_for_crowd(&w);
	assert_int_equal(cmds[N - 1].code, OTA_OK);
}

static void batches(void **state)
{
	enum { DEVICES = 700, EACH = 6, N = DEVICES * EACH };
	static const char *const words[EACH] = {"downloading", "downloading", "downloaded",
						"installing",  "success",     "pending"};
	struct bench *b = *state;
	struct command *cmds = calloc(N, sizeof *cmds);
	static char ids[DEVICES][16];

	assert_non_null(cmds);
	roll_out(b, "2.0.0");
	for (int i = 0; i < DEVICES; i++) {
		snprintf(ids[i], sizeof ids[i], "dev%04d", i);
		cmds[i] = (struct command){.kind = COMMAND_CHECKIN};
		cmds[i].checkin = (struct checkin){
			.device_id = ids[i], .model = MODEL, .version = "1.0.0", .hw = ""};
	}
	/* The first is asked for twice in the same breath. */
	cmds[DEVICES] = cmds[0];
	run_crowd(b, cmds, DEVICES + 1);
	for (int i = 0; i <= DEVICES; i++)
		assert_int_equal(cmds[i].code, OTA_OK);
	assert_int_equal(row_int(b, "SELECT count(*) FROM device_update_status"), DEVICES);
	bench_restart(b);
	/* All words of a device in order, several of one in a batch. */
	for (int i = 0; i < N; i++) {
		cmds[i] = (struct command){.kind = COMMAND_REPORT};
		cmds[i].report =
			(struct report){.device_id = ids[i / EACH],
					.version = "2.0.0",
					.percent = i % EACH == 1 ? 50 : -1,
					.event = attempt_event_from_status(words[i % EACH])};
	}
	run_crowd(b, cmds, N);
	for (int i = 0; i < N; i++)
		assert_int_equal(cmds[i].code, OTA_OK);
	assert_int_equal(
		row_int(b, "SELECT count(*) FROM device_update_status WHERE status='success'"),
		DEVICES);
	struct committer_stats s;
	committer_stats(b->c, &s);
	assert_in_range(s.batch_max, 2, 1000);
	bench_restart(b);
	/* Edits of everything by one command, then all leave. */
	struct device_edit *all = calloc(DEVICES, sizeof *all);
	assert_non_null(all);
	for (int i = 0; i < DEVICES; i++)
		all[i] = (struct device_edit){.device_id = ids[i], .add_group = "g"};
	assert_int_equal(edit(b, all, DEVICES), OTA_OK);
	bench_restart(b);
	for (int i = 0; i < DEVICES; i++)
		cmds[i] = (struct command){.kind = COMMAND_RETRY, .retry = {ids[i], NULL}};
	run_crowd(b, cmds, DEVICES);
	free(all);
	free(cmds);
}

static void *asks_and_tells(void *arg)
{
	struct bench *b = ((void **)arg)[0];
	long me = (long)((void **)arg)[1];
	char id[32];

	for (int i = 0; i < 60; i++) {
		snprintf(id, sizeof id, "t%ld-%d", i % 3 ? me : 9L, i % 20);
		struct answer a = ask(b, id, "1.0.0");
		if (a.offered)
			tell(b, id, "2.0.0", i % 2 ? "downloading" : "failed", i % 100, a.token,
			     NULL);
	}
	return NULL;
}

static void threads(void **state)
{
	struct bench *b = *state;
	pthread_t t[4];
	void *args[4][2];

	roll_out(b, "2.0.0");
	for (long i = 0; i < 4; i++) {
		args[i][0] = b;
		args[i][1] = (void *)i;
		assert_int_equal(pthread_create(&t[i], NULL, asks_and_tells, args[i]), 0);
	}
	for (int i = 0; i < 20; i++) {
		struct rollout_new n = rollout_of("other", "2.0.0");
		struct command cmd;
		char name[16];
		snprintf(name, sizeof name, "r%d", i);
		n.name = name;
		n.percent = 5 * (i + 1);
		assert_int_equal(roll_out_as(b, &n, &cmd), OTA_OK);
		assert_int_equal(set_active(b, cmd.out.id, false), OTA_OK);
	}
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	bench_restart(b);
}

static void limits(void **state)
{
	struct bench *b = *state;
	struct command cmds[50];
	static char ids[50][8];
	int ok = 0;

	b->cfg.max_devices = 20;
	bench_restart(b);
	memset(cmds, 0, sizeof cmds);
	for (int i = 0; i < 50; i++) {
		snprintf(ids[i], sizeof ids[i], "d%d", i);
		cmds[i].kind = COMMAND_CHECKIN;
		cmds[i].checkin = (struct checkin){
			.device_id = ids[i], .model = MODEL, .version = "1", .hw = ""};
	}
	run_crowd(b, cmds, 50);
	for (int i = 0; i < 50; i++) {
		ok += cmds[i].code == OTA_OK;
		if (cmds[i].code != OTA_OK) {
			assert_int_equal(cmds[i].code, OTA_EUNAVAIL);
			assert_true(cmds[i].retry_after_s > 0);
			assert_non_null(strstr(cmds[i].err.msg, "OTA_MAX_DEVICES"));
		}
	}
	assert_int_equal(ok, 20);
	assert_int_equal(row_int(b, "SELECT count(*) FROM devices"), 20);
	struct answer a = ask(b, "d0", "2"); /* those that are known go on */
	assert_int_equal(a.code, OTA_OK);
	assert_int_equal(delete_device(b, "d0"), OTA_OK);
	a = ask(b, "new", "1");
	assert_int_equal(a.code, OTA_OK);
	assert_int_equal(tell(b, "new2", "1", "success", -1, NULL, NULL), OTA_EUNAVAIL);
	bench_restart(b);
	b->cfg.max_devices = 1000;
	b->cfg.new_devices_per_second = 5;
	bench_restart(b);
	for (int i = 0; i < 50; i++)
		snprintf(ids[i], sizeof ids[i], "e%d", i);
	run_crowd(b, cmds, 50);
	ok = 0;
	for (int i = 0; i < 50; i++)
		ok += cmds[i].code == OTA_OK;
	assert_in_range(ok, 5, 20);
	bench_restart(b);
}

static void models_come_and_go(void **state)
{
	struct bench *b = *state;
	struct command cmds[2];

	/* In one batch the last device leaves a model and another one comes. */
	for (int i = 0; i < 30; i++) {
		ask_with(b, "d1", "1", (struct told){.model = "x"});
		ask_with(b, "d2", "1", (struct told){.model = "y"});
		memset(cmds, 0, sizeof cmds);
		for (int k = 0; k < 2; k++) {
			cmds[k].kind = COMMAND_CHECKIN;
			cmds[k].checkin = (struct checkin){.device_id = k ? "d2" : "d1",
							   .model = k ? "x" : "y",
							   .version = "1",
							   .hw = ""};
		}
		run_crowd(b, cmds, 2);
	}
	bench_restart(b);
	for (int i = 0; i < 100; i++) {
		char model[16];
		snprintf(model, sizeof model, "m%d", i);
		ask_with(b, "d1", "1", (struct told){.model = model});
	}
	bench_restart(b);
}

#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(registers_and_offers_once),
		T(all_the_words),
		T(progress_only_grows),
		T(unsolicited),
		T(closed_by_what_it_runs),
		T(learns_a_name),
		T(mislabelled_release),
		T(rolled_back_by_evidence),
		T(rolled_back_after_the_grace_period),
		T(installs_and_runs_something_else),
		T(fails_three_times),
		T(failures_in_a_row),
		T(deactivation),
		T(lapses_and_begins_again),
		T(superseded),
		T(becomes_another_model),
		T(digests_go_with_the_version),
		T(releases),
		T(delete_rules),
		T(rollouts),
		T(devices_leave_and_return),
		T(edits),
		T(batches),
		T(more_than_may_wait),
		T(threads),
		T(limits),
		T(models_come_and_go),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
