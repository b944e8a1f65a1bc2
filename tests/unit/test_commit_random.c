/* SPDX-License-Identifier: MIT */
/*
 * commit: random commands of all kinds, some of whose commits fail, against a simple reference of
 * what was acknowledged; and again and again a restart that must change nothing.
 */
#include "failing_store.h"
#include "random.h"

#define DEVICES  12
#define VERSIONS 6
#define ROLLOUTS 30
static const char *const versions[VERSIONS] = {"1.0.0", "1.1.0", "2.0.0", "abc1234-20260101-000000",
					       "foo",   "v3.0.0"};
static const char *const words[] = {"pending", "downloading", "downloaded", "installing",
				    "success", "failed",      "rolled_back"};
static const char *const groups[] = {"beta", "kitchen"};

/* What was acknowledged. */
struct reference {
	bool device[DEVICES];
	unsigned device_groups[DEVICES];
	char label[DEVICES][8];
	char last_token[DEVICES][2][ATTEMPT_TOKEN_LEN + 1];
	bool release[VERSIONS], release_deleted[VERSIONS];
	bool rollout_active[ROLLOUTS];
	int64_t rollout_id[ROLLOUTS];
	int rollouts;
};

static void id_of(int i, char out[16])
{
	snprintf(out, 16, "dev%d", i);
}

static bool unexpected(enum ota_code rc)
{
	return rc != OTA_OK && rc != OTA_EUNAVAIL && rc != OTA_ENOTFOUND && rc != OTA_ECONFLICT &&
	       rc != OTA_EGONE;
}

static enum ota_code random_checkin(struct bench *b, struct reference *r, int i, const char *id)
{
	struct device_digests g = {.has_firmware = random_below(4) == 0};
	struct told t = {.boot = (uint64_t)random_below(4),
			 .uptime_s = random_below(3) ? 0 : 1 + random_below(5000),
			 .just_booted = random_below(4) == 0,
			 .mac = (uint64_t)random_below(2) * (uint64_t)(i + 1)};

	if (g.has_firmware) {
		assert_true(sha256_once(versions[0], 5, g.firmware));
		t.digests = &g;
	}
	if (random_below(40) == 0)
		t.model = "esp32";
	struct answer a = ask_with(b, id, versions[random_below(VERSIONS)], t);
	if (a.code != OTA_OK)
		return a.code;
	r->device[i] = true;
	if (a.offered && strcmp(a.token, r->last_token[i][0]) != 0) {
		strcpy(r->last_token[i][1], r->last_token[i][0]);
		strcpy(r->last_token[i][0], a.token);
	}
	/* What leaves as an offer is durable, and open. */
	if (a.offered) {
		char sql[160];
		snprintf(sql, sizeof sql,
			 "SELECT completed_at IS NULL FROM device_update_status WHERE "
			 "attempt_id='%s'",
			 a.token);
		assert_int_equal(row_int(b, sql), 1);
	}
	return OTA_OK;
}

static enum ota_code random_report(struct bench *b, struct reference *r, int i, const char *id)
{
	const char *token =
		r->last_token[random_below(10) ? i : random_below(DEVICES)][random_below(2)];
	enum ota_code rc = tell(b, id, versions[random_below(VERSIONS)], words[random_below(7)],
				random_below(102) - 1, token[0] && random_below(4) ? token : NULL,
				random_below(2) ? "why" : NULL);

	if (rc == OTA_OK)
		r->device[i] = true;
	return rc;
}

static enum ota_code random_edit(struct bench *b, struct reference *r, int i, const char *id)
{
	static const char *const both[] = {"beta", "kitchen"};
	struct device_edit e = {.device_id = id};
	unsigned after = r->device_groups[i];
	int g = random_below(2);

	switch (random_below(4)) {
	case 0:
		e.add_group = groups[g];
		after |= 1u << g;
		break;
	case 1:
		e.remove_group = groups[g];
		after &= ~(1u << g);
		break;
	case 2:
		e.set_groups = true;
		e.groups = both;
		e.group_count = (size_t)random_below(3);
		after = (1u << e.group_count) - 1;
		break;
	default: e.set_label = true; e.label = random_below(2) ? "lamp" : NULL;
	}
	enum ota_code rc = edit(b, &e, 1);
	assert_true(rc != OTA_OK || r->device[i]);
	if (rc != OTA_OK)
		return rc;
	r->device_groups[i] = after;
	if (e.set_label)
		strcpy(r->label[i], e.label ? e.label : "");
	return rc;
}

static enum ota_code random_plan(struct bench *b, struct reference *r)
{
	int v = random_below(VERSIONS), o;
	enum ota_code rc;
	struct command cmd;
	char name[16];

	switch (random_below(5)) {
	case 0:
	case 1: {
		struct release_new n = release_facts_of(versions[v], versions[v]);
		n.inner_version = random_below(3) ? "" : versions[random_below(VERSIONS)];
		n.image_type = "esp";
		char image[64];
		snprintf(image, sizeof image, "{\"version\":\"%s\"}", n.inner_version);
		n.image_json = image;
		rc = upload_as(b, &n, &cmd);
		if (rc == OTA_OK) {
			r->release[v] = true;
			r->release_deleted[v] = false;
		}
		return rc;
	}
	case 2:
		rc = delete_release(b, versions[v]);
		if (rc == OTA_OK)
			r->release_deleted[v] = true;
		return rc;
	case 3: {
		if (r->rollouts == ROLLOUTS)
			return OTA_OK;
		snprintf(name, sizeof name, "r%d", r->rollouts);
		struct rollout_new n = rollout_of(name, versions[v]);
		n.type = random_below(2) ? TARGET_ALL : TARGET_GROUP;
		n.group = n.type == TARGET_GROUP ? groups[random_below(2)] : "";
		n.percent = random_below(2) ? 100 : 1 + random_below(99);
		n.allow_downgrade = random_below(2);
		n.max_attempts = 1 + random_below(4);
		n.active = random_below(4) > 0;
		/* Watched, by a gate that lets much pass, ... */
		n.guard = (struct guard){.off = random_below(8) == 0,
					 .given = true,
					 .bounded = random_below(2),
					 .params = gate_params_default()};
		n.override_suspect = random_below(2);
		n.reason = n.override_suspect ? "once more" : NULL;
		n.guard.params.halt_at = 1e12;
		n.guard.params.prove_s = 1;
		n.guard.params.silence_s = 2592000; /* ... and that takes nothing for an outage. */
		rc = roll_out_as(b, &n, &cmd);
		if (rc == OTA_OK) {
			r->rollout_id[r->rollouts] = cmd.out.id;
			r->rollout_active[r->rollouts++] = n.active;
		}
		return rc;
	}
	default:
		if (r->rollouts == 0)
			return OTA_OK;
		o = random_below(r->rollouts);
		bool active = random_below(2);
		rc = set_active(b, r->rollout_id[o], active);
		if (rc == OTA_OK)
			r->rollout_active[o] = active;
		return rc;
	}
}

/* What the gates do by themselves: an image is sent to its end, or time has passed. */
static enum ota_code random_look(struct bench *b, struct reference *r, int i)
{
	struct command cmd = {.kind = COMMAND_SENT, .sent = {r->last_token[i][0]}};

	if (random_below(2)) {
		int most_s = random_below(2) ? 60 : 40 * 3600;
		clock_service_not_before(clock_service_us() + random_below(most_s) * US_PER_S);
		cmd = (struct command){.kind = COMMAND_GATE_LOOK};
	}
	return committer_run(b->c, &cmd);
}

/* Some rollout is counted, or a part of it: whatever comes between the parts. */
static void random_count(struct bench *b, const struct reference *r)
{
	if (r->rollouts == 0)
		return;
	int64_t id = r->rollout_id[random_below(r->rollouts)];
	for (int parts = random_below(2 * DEVICES); parts > 0; parts--) {
		struct command cmd = {.kind = COMMAND_COUNT,
				      .count = {.rollout_id = id, .devices = 1}};
		assert_int_equal(committer_run(b->c, &cmd), OTA_OK);
	}
}

static void random_command(struct bench *b, struct reference *r)
{
	int i = random_below(DEVICES), what = random_below(100);
	enum ota_code rc;
	char id[16];

	id_of(i, id);
	if (random_below(15) == 0) {
		atomic_store(&failures_in_all, 1);
		atomic_store(&commits_until_failure, 1 + random_below(2));
	}
	if (what < 45) {
		rc = random_checkin(b, r, i, id);
	} else if (what < 75) {
		rc = random_report(b, r, i, id);
	} else if (what < 80) {
		const char *token = r->last_token[i][random_below(2)];
		rc = token[0] ? fetch(b, token, random_below(2)) : OTA_OK;
	} else if (what < 86) {
		rc = random_edit(b, r, i, id);
	} else if (what < 88) {
		rc = delete_device(b, id);
		assert_true(rc != OTA_OK || r->device[i]);
		if (rc == OTA_OK) {
			r->device[i] = false;
			r->device_groups[i] = 0;
			r->label[i][0] = '\0';
		}
	} else if (what < 91) {
		rc = retry(b, id, NULL);
	} else if (what < 92) {
		struct command cmd = {.kind = COMMAND_LAPSE, .lapse = {id, INT64_MAX}};
		rc = committer_run(b->c, &cmd);
	} else if (what < 95) {
		rc = random_look(b, r, i);
	} else {
		rc = random_plan(b, r);
	}
	atomic_store(&commits_until_failure, 0);
	if (unexpected(rc))
		fail_msg("command %d: code %d", what, rc);
}

/* The rows hold what was acknowledged, and nothing that cannot be. */
static void check_rows(struct bench *b, const struct reference *r)
{
	char sql[256], id[16];

	for (int i = 0; i < DEVICES; i++) {
		id_of(i, id);
		snprintf(sql, sizeof sql, "SELECT count(*) FROM devices WHERE device_id='%s'", id);
		assert_int_equal(row_int(b, sql), r->device[i]);
		snprintf(sql, sizeof sql,
			 "SELECT coalesce(sum(1 << (group_name='kitchen')),0) FROM device_groups "
			 "WHERE device_id='%s'",
			 id);
		assert_int_equal(row_int(b, sql), r->device_groups[i]);
		snprintf(sql, sizeof sql,
			 "SELECT coalesce(label,'') FROM devices WHERE device_id='%s'", id);
		if (r->device[i])
			assert_string_equal(row_text(b, sql), r->label[i]);
	}
	for (int v = 0; v < VERSIONS; v++) {
		snprintf(sql, sizeof sql,
			 "SELECT count(*) FROM firmware_releases WHERE version='%s' AND "
			 "(deleted_at IS NULL)=%d",
			 versions[v], !r->release_deleted[v]);
		assert_int_equal(row_int(b, sql), r->release[v]);
	}
	for (int o = 0; o < r->rollouts; o++) {
		snprintf(sql, sizeof sql,
			 "SELECT is_active + 2 * (state='halted') FROM rollout_configurations"
			 " WHERE id=%lld",
			 (long long)r->rollout_id[o]);
		int64_t is = row_int(b, sql);
		assert_true(is == 2 || is == r->rollout_active[o]); /* a gate halts it any time */
	}
	assert_int_equal(row_int(b, "SELECT count(*) FROM (SELECT 1 FROM device_update_status "
				    "WHERE completed_at IS NULL"
				    " AND unsolicited=0 GROUP BY device_id HAVING count(*)>1)"),
			 0);
	assert_int_equal(
		row_int(b,
			"SELECT count(*) FROM device_update_status WHERE (completed_at IS NULL) <>"
			" (status IN ('downloading','downloaded','installing') OR "
			"(status='pending' AND closed IS NULL))"),
		0);
	assert_int_equal(row_int(b, "SELECT count(*) FROM rollout_configurations r JOIN "
				    "firmware_releases f ON f.id=r.release_id"
				    " WHERE r.is_active AND f.deleted_at IS NOT NULL"),
			 0);
	/* Nothing waits for a rollout that is off. */
	assert_int_equal(
		row_int(b, "SELECT count(*) FROM device_update_status u JOIN "
			   "rollout_configurations r ON r.id=u.rollout_id"
			   " WHERE u.status='pending' AND u.closed IS NULL AND NOT r.is_active"),
		0);
}

/* How each attempt had ended when we looked last: it stays so, but for a success that is rolled
 * back. */
static void check_history(struct bench *b, bool first)
{
	char *error = NULL;

	if (first)
		assert_int_equal(
			sqlite3_exec(
				b->db,
				"CREATE TEMP TABLE was (id INTEGER PRIMARY KEY, status, closed)",
				NULL, NULL, NULL),
			SQLITE_OK);
	else
		assert_int_equal(row_int(b, "SELECT count(*) FROM was JOIN device_update_status u "
					    "USING (id) WHERE"
					    " (was.status IN ('failed','rolled_back') AND "
					    "u.status<>was.status) OR"
					    " (was.status='success' AND u.status NOT IN "
					    "('success','rolled_back')) OR"
					    " (was.closed='withdrawn' AND u.completed_at IS NULL)"),
				 0);
	if (sqlite3_exec(
		    b->db,
		    "INSERT OR REPLACE INTO was SELECT id, status, closed FROM device_update_status"
		    " WHERE completed_at IS NOT NULL",
		    NULL, NULL, &error) != SQLITE_OK)
		fail_msg("%s", error);
}

static void random_commands(void **state)
{
	int rounds = getenv("TEST_ROUNDS") ? atoi(getenv("TEST_ROUNDS")) : 3;

	(void)state;
	random_begin("commands");
	for (int round = 0; round < rounds; round++) {
		struct reference r = {0};
		int counted = 0;
		struct bench b = bench_new();
		b.wrap = wrap_failing;
		log_configure(LOG_ERROR + 1, false);
		bench_open(&b);
		check_history(&b, true);
		/* How many counts a step compares goes by the seed: some take longer to see enough.
		 */
		for (int step = 1; step <= 1500 || (counted <= 1500 && step <= 6000); step++) {
			random_count(&b, &r);
			random_command(&b, &r);
			counted += same_counts(&b);
			if (step % 25 == 0) {
				check_rows(&b, &r);
				check_history(&b, false);
			}
			if (step % 100 == 0) {
				bench_restart(&b);
				check_history(&b, true);
			}
		}
		printf("# counts compared: %d\n", counted);
		assert_true(counted > 1500);
		bench_end(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(random_commands)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
