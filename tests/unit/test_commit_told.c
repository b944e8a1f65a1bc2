/* SPDX-License-Identifier: MIT */
/*
 * commit: what devices tell late, twice, half, or in words nobody expects; on a real SQLite file,
 * restarted between steps.
 */
#include "commit_bench.h"

#define STATUS_OF "SELECT status FROM device_update_status WHERE device_id='d1' ORDER BY id LIMIT 1"
#define ATTEMPTS  "SELECT count(*) FROM device_update_status"

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

/* A device's name for itself may hold whatever can be printed. */
static void learns_a_quoted_name(void **state)
{
	struct bench *b = *state;
	struct answer a;

	roll_out(b, "2.0.0");
	a = ask(b, "d1", "1.0.0");
	tell(b, "d1", "2.0.0", "success", -1, a.token, NULL);
	ask(b, "d1", "two \"oh\" \\ 2");
	assert_int_equal(row_int(b, "SELECT count(*) FROM ota_events WHERE NOT "
				    "json_valid(event_data) AND event_data IS NOT NULL"),
			 0);
	assert_string_equal(row_text(b, "SELECT json_extract(event_data,'$.learnt_version') FROM "
					"ota_events WHERE event_type='version_learnt'"),
			    "two \"oh\" \\ 2");
	bench_restart(b);
}

static enum ota_code lapse(struct bench *b, const char *id)
{
	struct command cmd = {.kind = COMMAND_LAPSE, .lapse = {id, INT64_MAX}};

	return committer_run(b->c, &cmd);
}

/* A device that slept through the end of a rollout must not begin it with the URL it kept. */
static void lapsed_and_then_halted(void **state)
{
	struct bench *b = *state;
	int64_t id = roll_out(b, "2.0.0");
	struct answer a = ask(b, "d1", "1.0.0");

	lapse(b, "d1");
	assert_int_equal(set_active(b, id, false), OTA_OK);
	bench_restart(b);
	int64_t before = writes(b);
	assert_int_equal(fetch(b, a.token, true), OTA_EGONE);
	assert_int_equal(fetch(b, a.token, false), OTA_EGONE);
	assert_int_equal(writes(b), before);
	assert_int_equal(set_active(b, id, true), OTA_OK);
	assert_int_equal(fetch(b, a.token, false), OTA_OK);
	assert_string_equal(row_text(b, STATUS_OF), "downloading");
	bench_restart(b);
}

static void hours_pass(int hours)
{
	clock_service_not_before(clock_service_us() + hours * 3600 * US_PER_S);
}

/* Without an attempt_id, long after: what can still change belongs to the attempt there was. */
static void words_hours_later(void **state)
{
	struct bench *b = *state;

	roll_out(b, "2.0.0");
	ask(b, "d1", "1.0.0");
	tell(b, "d1", "2.0.0", "success", -1, NULL, NULL);
	ask(b, "d1", "2.0.0");
	hours_pass(30);
	tell(b, "d1", "2.0.0", "rolled_back", -1, NULL, "self-test failed");
	assert_int_equal(row_int(b, ATTEMPTS), 1);
	assert_string_equal(row_text(b, STATUS_OF), "rolled_back");
	bench_restart(b);
	/* One that slept, and begins after all. */
	ask(b, "d2", "1.0.0");
	lapse(b, "d2");
	hours_pass(2);
	tell(b, "d2", "2.0.0", "downloading", 10, NULL, NULL);
	assert_int_equal(row_int(b, ATTEMPTS), 2);
	assert_int_equal(row_int(b, ATTEMPTS " WHERE unsolicited = 1"), 0);
	bench_restart(b);
	/* What had failed by then is another try, which nobody asked for. */
	tell(b, "d2", "2.0.0", "failed", -1, NULL, NULL);
	hours_pass(2);
	tell(b, "d2", "2.0.0", "success", -1, NULL, NULL);
	assert_int_equal(row_int(b, ATTEMPTS " WHERE unsolicited = 1"), 1);
	bench_restart(b);
}

/* An uptime belongs to its boot: a later boot_id without one is evidence by itself. */
static void uptime_told_once(void **state)
{
	struct bench *b = *state;
	struct answer a;

	roll_out(b, "2.0.0");
	a = ask_with(b, "d1", "1.0.0", (struct told){.boot = 1, .uptime_s = 100});
	tell(b, "d1", "2.0.0", "installing", -1, a.token, NULL);
	a = ask_with(b, "d1", "1.0.0", (struct told){.boot = 1});
	assert_int_equal(a.reason, REASON_INSTALLING);
	bench_restart(b);
	ask_with(b, "d1", "1.0.0", (struct told){.boot = 2});
	assert_string_equal(row_text(b, STATUS_OF), "rolled_back");
	bench_restart(b);
	/* With an uptime that says that it booted before it installed, it is none. */
	a = ask_with(b, "d1", "1.0.0", (struct told){.boot = 2});
	tell(b, "d1", "2.0.0", "installing", -1, a.token, NULL);
	a = ask_with(b, "d1", "1.0.0", (struct told){.boot = 3, .uptime_s = 1000});
	assert_int_equal(a.reason, REASON_INSTALLING);
	bench_restart(b);
}

/* Why an attempt was closed is not told of one that came to an end after all. */
static void why_it_was_closed(void **state)
{
	struct bench *b = *state;
	static const char why[] = "SELECT closed_why FROM device_update_status";

	roll_out(b, "2.0.0");
	struct answer a = ask(b, "d1", "1.0.0");
	lapse(b, "d1");
	assert_string_not_equal(row_text(b, why), "(null)");
	tell(b, "d1", "2.0.0", "failed", -1, a.token, "no space");
	assert_string_equal(row_text(b, STATUS_OF), "failed");
	assert_string_equal(row_text(b, why), "(null)");
	bench_restart(b);
	assert_int_equal(delete_device(b, "d1"), OTA_OK);
	a = ask(b, "d1", "1.0.0");
	fetch(b, a.token, false);
	assert_int_equal(delete_device(b, "d1"), OTA_OK);
	assert_string_equal(row_text(b, "SELECT status||closed_why FROM device_update_status "
					"ORDER BY id DESC LIMIT 1"),
			    "failedthe device was deleted");
	bench_restart(b);
}

/* Two failures, a success, and the device is taken elsewhere by hand: a new row of failures. */
static void failures_and_moving_on(void **state)
{
	struct bench *b = *state;
	struct answer a;

	roll_out(b, "2.0.0");
	for (int seen = 0; seen < 2; seen++) {
		const char *id = seen ? "d2" : "d1";
		for (int i = 0; i < 2; i++) {
			a = ask(b, id, "1.0.0");
			tell(b, id, "2.0.0", "failed", -1, a.token, NULL);
		}
		a = ask(b, id, "1.0.0");
		tell(b, id, "2.0.0", "success", -1, a.token, NULL);
		if (seen)
			ask(b, id, "2.0.0");
		else
			assert_int_equal(upload(b, "1.5.0"), OTA_OK);
		bench_restart(b);
		a = ask(b, id, "1.5.0");
		assert_true(a.offered);
		assert_int_equal(row_int(b, "SELECT count(*) FROM attempt_failures"), 0);
		tell(b, id, "2.0.0", "failed", -1, a.token, NULL);
		a = ask(b, id, "1.5.0");
		assert_true(a.offered);
		bench_restart(b);
		assert_int_equal(retry(b, id, NULL), OTA_OK);
	}
}

/* It is offered the next release when it falls back from the last one. */
static void rolled_back_under_an_offer(void **state)
{
	struct bench *b = *state;
	struct answer a;

	roll_out(b, "2.0.0");
	a = ask(b, "d1", "1.0.0");
	tell(b, "d1", "2.0.0", "success", -1, a.token, NULL);
	ask(b, "d1", "2.0.0");
	roll_out(b, "3.0.0");
	a = ask(b, "d1", "2.0.0");
	assert_string_equal(a.version, "3.0.0");
	bench_restart(b);
	a = ask(b, "d1", "1.0.0");
	assert_string_equal(a.version, "3.0.0");
	assert_string_equal(row_text(b, STATUS_OF), "rolled_back");
	assert_int_equal(row_int(b, ATTEMPTS), 2);
	bench_restart(b);
}

/* It slept, installed the image it had got another way, and says so by what it runs. */
static void lapsed_and_installed_unseen(void **state)
{
	struct bench *b = *state;
	struct answer a;

	roll_out(b, "2.0.0");
	ask(b, "d1", "1.0.0");
	lapse(b, "d1");
	bench_restart(b);
	a = ask(b, "d1", "2.0.0");
	assert_int_equal(a.reason, REASON_UP_TO_DATE);
	assert_string_equal(row_text(b, STATUS_OF), "success");
	assert_int_equal(row_int(b, ATTEMPTS), 1);
	bench_restart(b);
	a = ask(b, "d1", "1.0.0");
	assert_string_equal(row_text(b, STATUS_OF), "rolled_back");
	bench_restart(b);
}

/* A leading v counts for nothing, whoever says the version. */
static void a_leading_v(void **state)
{
	struct bench *b = *state;
	struct release_new n = release_facts_of("v2.0.0", "2.0.0");
	struct rollout_new r = rollout_of("r", "v2.0.0");
	struct command cmd;

	assert_int_equal(upload(b, "2.0.0"), OTA_OK);
	assert_int_equal(upload_as(b, &n, &cmd), OTA_OK); /* the same bytes again */
	assert_true(cmd.out.existed);
	n = release_facts_of("v2.0.0", "other bytes");
	assert_int_equal(upload_as(b, &n, &cmd), OTA_ECONFLICT);
	assert_int_equal(roll_out_as(b, &r, &cmd), OTA_OK);
	int64_t id = cmd.out.id;
	for (int i = 0; i < 3; i++) {
		struct answer a = ask(b, "d1", "1.0.0");
		assert_string_equal(a.version, "2.0.0");
		tell(b, "d1", "v2.0.0", "failed", -1, a.token, NULL);
	}
	bench_restart(b);
	assert_false(ask(b, "d1", "1.0.0").offered);
	assert_int_equal(retry(b, "d1", "v2.0.0"), OTA_OK);
	assert_true(ask(b, "d1", "1.0.0").offered);
	assert_int_equal(set_active(b, id, false), OTA_OK);
	assert_int_equal(delete_release(b, "v2.0.0"), OTA_OK);
	bench_restart(b);
}

/* Each device has a name of its own: the release does not learn them all, and nobody goes round. */
static void learns_so_many_names(void **state)
{
	struct bench *b = *state;
	struct answer a;
	char id[16];

	roll_out(b, "2.0.0");
	for (int i = 0; i < LEARNT_MAX + 2; i++) {
		snprintf(id, sizeof id, "serial-%d", i);
		a = ask(b, id, "1.0.0");
		tell(b, id, "2.0.0", "success", -1, a.token, NULL);
		a = ask(b, id, id);
		assert_int_equal(a.reason, REASON_UP_TO_DATE);
	}
	assert_int_equal(
		row_int(b, "SELECT json_array_length(learnt_versions) FROM firmware_releases"),
		LEARNT_MAX);
	bench_restart(b);
	a = ask(b, id, id);
	assert_int_equal(a.commands, 0);
	assert_int_equal(a.reason, REASON_UP_TO_DATE);
}

/* After its restart a device may know its release by the name inside the image alone. */
static void told_by_the_inner_name(void **state)
{
	struct bench *b = *state;
	struct release_new n = release_facts_of("2.0.0", "2.0.0");
	struct rollout_new r = rollout_of("r", "2.0.0");
	struct command cmd;

	n.inner_version = "app-77";
	n.image_json = "{\"version\":\"app-77\"}";
	assert_int_equal(upload_as(b, &n, &cmd), OTA_OK);
	assert_int_equal(roll_out_as(b, &r, &cmd), OTA_OK);
	ask(b, "d1", "1.0.0");
	tell(b, "d1", "2.0.0", "installing", -1, NULL, NULL);
	tell(b, "d1", "app-77", "success", -1, NULL, NULL);
	assert_string_equal(row_text(b, STATUS_OF), "success");
	bench_restart(b);
	assert_int_equal(ask(b, "d1", "app-77").reason, REASON_UP_TO_DATE);
	bench_restart(b);
	int64_t before = writes(b);
	tell(b, "d1", "app-77", "success", -1, NULL, NULL);
	assert_int_equal(writes(b), before);
	assert_int_equal(row_int(b, ATTEMPTS), 1);
	/* Nobody asked this one for anything: as it said. */
	ask(b, "d2", "app-77");
	for (int i = 0; i < 2; i++)
		tell(b, "d2", "app-77", "success", -1, NULL, NULL);
	assert_int_equal(row_int(b, ATTEMPTS " WHERE firmware_version='app-77'"), 1);
	bench_restart(b);
}

#define T(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(learns_a_quoted_name),
		T(lapsed_and_then_halted),
		T(words_hours_later),
		T(uptime_told_once),
		T(why_it_was_closed),
		T(failures_and_moving_on),
		T(rolled_back_under_an_offer),
		T(lapsed_and_installed_unseen),
		T(a_leading_v),
		T(learns_so_many_names),
		T(told_by_the_inner_name),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
