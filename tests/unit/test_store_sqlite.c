/* SPDX-License-Identifier: MIT */
/* SQLite alone: opening, migrations, files that cannot be used, and which indexes the lists take.
 */
#include "store_bench.h"

#include <sys/stat.h>
#include <sys/wait.h>

/* --- opening --- */

static void migrates_and_keeps(void **state)
{
	struct place *p = *state;
	int count;

	sqlite_migrations(&count);
	assert_int_equal(number(p, "PRAGMA user_version"), count);
	assert_int_equal(number(p, "PRAGMA synchronous"), 2);
	assert_int_equal(
		number(p, "SELECT count(*) FROM pragma_journal_mode() WHERE journal_mode='wal'"),
		1);
	assert_string_equal(p->s->ops->name(p->s), "sqlite");
	p->s->ops->close(&p->s);
	assert_null(p->s);
	open_store(p); /* nothing to migrate */
	assert_int_equal(number(p, "PRAGMA user_version"), count);
}

/* Rollouts from before there were stages: one stage each, and a state that says what they did. */
static void rollouts_get_stages(void **state)
{
	struct place *p = *state;
	int count;
	const char *const *m = sqlite_migrations(&count);

	assert_true(sql(
		p, "DROP TABLE ota_webhooks; DROP TABLE ota_alerts; DROP TABLE ota_daily_attempts;"
		   "DROP TABLE ota_rejected_messages; DROP TABLE service_state;"
		   "DROP TABLE ota_events; DROP TABLE attempt_failures;"
		   "DROP TABLE device_update_status; DROP TABLE rollout_configurations;"
		   "DROP TABLE device_groups; DROP TABLE devices;"
		   "DROP TABLE firmware_releases"));
	assert_true(sql(p, m[0]) && sql(p, m[1]) && sql(p, "PRAGMA user_version=2"));
	assert_true(sql(p, "INSERT INTO firmware_releases (id, version, device_model, file_path,"
			   " file_size, checksum_sha256, created_at)"
			   " VALUES (1, '1', 'm', 'x', 1, 'ab', 't0');"
			   "INSERT INTO rollout_configurations (id, name, firmware_version,"
			   " device_model, target_type, rollout_percentage, is_active, created_at,"
			   " updated_at, release_id) VALUES"
			   " (1, 'on', '1', 'm', 'all', 25, 1, 't0', 't1', 1),"
			   " (2, 'off', '1', 'm', 'all', 100, 0, 't0', 't1', 1),"
			   " (3, 'never', '1', 'm', 'all', 100, 0, 't0', 't0', 1)"));
	p->s->ops->close(&p->s);
	open_store(p);
	assert_int_equal(number(p, "PRAGMA user_version"), count);
	assert_int_equal(number(p,
				"SELECT count(*) FROM rollout_configurations WHERE"
				" id=1 AND state='running' AND stage=1 AND stage_since='t0'"
				" AND state_since='t1' AND json_extract(stages,'$[0].percent')=25"
				" AND json_array_length(stages)=1"),
			 1);
	assert_int_equal(number(p, "SELECT count(*) FROM rollout_configurations WHERE"
				   " id=2 AND state='paused' AND stage_since='t0'"),
			 1);
	assert_int_equal(number(p, "SELECT count(*) FROM rollout_configurations WHERE"
				   " id=3 AND state='draft' AND stage_since IS NULL"),
			 1);
}

static void expect_refusal(struct place *p, enum ota_code want, const char *a, const char *b)
{
	struct ota_err err = {0};
	struct store *s = NULL;
	enum ota_code rc = store_sqlite_open(p->path, &s, &err);

	assert_null(s);
	assert_int_equal(rc, want);
	assert_int_equal(err.code, want);
	if (!strstr(err.msg, p->path) || !strstr(err.msg, a) || !strstr(err.msg, b))
		fail_msg("%s", err.msg);
}

static void newer_schema(void **state)
{
	struct place *p = *state;

	assert_true(sql(p, "PRAGMA user_version=999"));
	p->s->ops->close(&p->s);
	expect_refusal(p, OTA_ECONFLICT, "999", "newer paku-otad");
}

static void no_database(void **state)
{
	struct place *p = *state;

	p->s->ops->close(&p->s);
	FILE *f = fopen(p->path, "w");
	assert_non_null(f);
	for (int i = 0; i < 500; i++)
		fputs("this is not a database\n", f);
	fclose(f);
	expect_refusal(p, OTA_EIO, "damaged", "backup");
	unlink(p->path);
	assert_int_equal(mkdir(p->path, 0700), 0);
	expect_refusal(p, OTA_EUNAVAIL, "cannot be written", "");
	rmdir(p->path);
}

static void damaged_inside(void **state)
{
	struct place *p = *state;
	char page[4096];
	struct store *s = NULL;
	struct ota_err err;

	p->s->ops->close(&p->s);
	memset(page, 0x5A, sizeof page);
	FILE *f = fopen(p->path, "r+");
	assert_non_null(f);
	for (int i = 1; i < 6; i++) { /* the header stands, the tables do not */
		fseek(f, i * 4096L, SEEK_SET);
		fwrite(page, sizeof page, 1, f);
	}
	fclose(f);
	if (store_sqlite_open(p->path, &s, &err) == OTA_OK) {
		struct store_loader none = {0};
		assert_int_equal(s->ops->load(s, &none, &err), OTA_EIO);
		s->ops->close(&s);
	}
	assert_non_null(strstr(err.msg, "damaged"));
}

/* As another user, because root may write what is read-only. */
static void read_only(void **state)
{
	struct place *p = *state;
	int status = 0;

	p->s->ops->close(&p->s);
	assert_int_equal(chmod(p->path, 0444), 0);
	assert_int_equal(chmod(p->dir, 0555), 0);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		struct ota_err err = {0};
		struct store *s = NULL;
		if (geteuid() == 0 && setuid(65534) != 0)
			_exit(10);
		if (store_sqlite_open(p->path, &s, &err) == OTA_OK)
			_exit(11);
		_exit(strstr(err.msg, p->path) && strstr(err.msg, "writ") ? 0 : 12);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	chmod(p->dir, 0755);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void locked_by_another(void **state)
{
	struct place *p = *state;
	struct device d = device_of(1, "d1");
	struct batch_of x = {0};
	sqlite3 *other;

	assert_int_equal(sqlite3_open(p->path, &other), SQLITE_OK);
	assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_busy_timeout(writer(p), 50);
	put(&x, &d);
	close_group(&x);
	struct ota_err err = {0};
	assert_int_equal(p->s->ops->commit(p->s, &x.b, &err), OTA_EUNAVAIL);
	assert_non_null(strstr(err.msg, "locked"));
	assert_int_equal(sqlite3_exec(other, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(commit_all(p, &x), OTA_OK);
	assert_int_equal(number(p, "SELECT count(*) FROM devices"), 1);
	sqlite3_close(other);
	/* An empty batch asks whether the store takes writes. */
	struct change_batch probe = {0};
	assert_int_equal(p->s->ops->commit(p->s, &probe, &err), OTA_OK);
	assert_int_equal(number(p, "SELECT count(*) FROM service_state"), 1);
}

/* --- plans --- */

static int explain(void *ctx, int n, char **values, char **names)
{
	struct buf *b = ctx;

	(void)n;
	(void)names;
	buf_printf(b, "%s; ", values[3]);
	return 0;
}

static int trace_sql(unsigned what, void *ctx, void *st, void *text)
{
	(void)what;
	(void)text;
	struct buf *b = ctx;
	char *expanded = sqlite3_expanded_sql(st);
	buf_adds(b, expanded);
	buf_addc(b, '\n');
	sqlite3_free(expanded);
	return 0;
}

static bool stop_update(void *ctx, const struct row_update *r)
{
	(void)ctx;
	(void)r;
	return true;
}

static bool stop_event(void *ctx, const struct row_event *r)
{
	(void)ctx;
	(void)r;
	return true;
}

static bool count_devices(void *ctx, const struct row_device *r)
{
	(void)r;
	++*(int *)ctx;
	return true;
}

/* Runs what the lists really ask through EXPLAIN QUERY PLAN. */
static void expect_plan(struct place *p, const char *what, struct buf *asked, const char *want_not)
{
	struct buf plan = BUF_INIT, text = BUF_INIT;

	buf_printf(&text, "EXPLAIN QUERY PLAN %s", asked->data);
	assert_int_equal(sqlite3_exec(writer(p), text.data, explain, &plan, NULL), SQLITE_OK);
	if (strstr(plan.data, want_not))
		fail_msg("%s: %s  %s", what, plan.data, asked->data);
	buf_fini(&plan);
	buf_fini(&text);
	buf_reset(asked);
}

static void lists_use_indexes(void **state)
{
	struct place *p = *state;
	struct sqlite_store *s = (struct sqlite_store *)p->s;
	struct buf asked = BUF_INIT;
	struct ota_err err;
	struct attempt_counts counts;
	int64_t since;
	int n = 0;
	static const char *const filters[] = {
		"device", "version", "rollout", "device and version", "status", "event type"};

	for (int i = 0; i < READERS; i++)
		sqlite3_trace_v2(s->readers[i], SQLITE_TRACE_STMT, trace_sql, &asked);
	for (int f = 0; f < 4; f++) {
		struct list_query q = {.limit = 100, .active = -1, .before_id = 1000};
		if (f == 0 || f == 3)
			q.device_id = "d1";
		if (f == 1 || f == 3)
			q.version = "1.0";
		if (f == 2)
			q.rollout_id = 3;
		assert_int_equal(p->s->ops->list_updates(p->s, &q, stop_update, NULL, &err),
				 OTA_OK);
		expect_plan(p, filters[f], &asked, "SCAN");
		if (f == 1)
			continue; /* events are not asked for by version alone */
		assert_int_equal(p->s->ops->list_events(p->s, &q, stop_event, NULL, &err), OTA_OK);
		expect_plan(p, filters[f], &asked, "SCAN");
	}
	for (int f = 0; f < 3; f++) {
		struct list_query q = {.limit = 100,
				       .active = -1,
				       .until_time = "2027",
				       .before_time = "2026",
				       .before_id = 5};
		if (f == 1)
			q.device_model = "m";
		if (f == 2)
			q.group = "beta";
		assert_int_equal(p->s->ops->list_devices(p->s, &q, count_devices, &n, &err),
				 OTA_OK);
		expect_plan(p, "devices", &asked, "SCAN devices;");
		if (f < 2) {
			assert_int_equal(p->s->ops->list_devices(p->s, &q, count_devices, &n, &err),
					 OTA_OK);
			expect_plan(p, "devices", &asked, "TEMP B-TREE");
		}
	}
	assert_int_equal(p->s->ops->rollout_counts(p->s, 3, &counts, &err), OTA_OK);
	expect_plan(p, "counts", &asked, "SCAN");
	assert_int_equal(p->s->ops->updates_since(p->s, T0, &since, &err), OTA_OK);
	expect_plan(p, "updates since", &asked, "SCAN");
	buf_fini(&asked);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(migrates_and_keeps), TEST(rollouts_get_stages), TEST(newer_schema),
		TEST(no_database),        TEST(damaged_inside),      TEST(read_only),
		TEST(locked_by_another),  TEST(lists_use_indexes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
