/* SPDX-License-Identifier: MIT */
/*
 * What is old goes, on both back ends: who goes against rules told here once more, row by row; what
 * went is counted; all of a step or nothing; and a step does no more than its range asks for.
 */
#include "store_bench.h"

#include "store/sqlite_statements.h"

#include <stdio.h>

#define DAY_US   (INT64_C(86400) * US_PER_S)
#define NOW      (T0 + 1000 * DAY_US)
#define BEFORE   (NOW - 400 * DAY_US)
#define ATTEMPTS 450
#define DEVICES  60
#define EVENTS   450

static uint64_t seed = 7;

static int chance(int n)
{
	seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (int)((seed >> 33) % (uint64_t)n);
}

/* --- rows --- */

static const char *const statuses[] = {"pending", "downloading", "success", "failed",
				       "rolled_back"};

struct one {
	int device, rollout, release; /* 0: NULL */
	const char *status;
	bool closed, done, unsolicited, settled;
	int64_t opened_us, reported_us, completed_us;
};

static struct one attempts[ATTEMPTS + 1];
static struct {
	int rollout;
	int64_t at_us;
} events[EVENTS + 1];

/* 1 and 2 are pruned, 3 runs, 4 is over and not pruned, 5 was never here. */
static bool rollout_is_kept(int rollout)
{
	return rollout == 3 || rollout == 4;
}

static bool device_is_there(int device)
{
	return device % 7 != 0;
}

static void text_of(int64_t us, char out[TIME_TEXT_SIZE + 2])
{
	char text[TIME_TEXT_SIZE];

	if (us)
		time_format(us, text);
	snprintf(out, TIME_TEXT_SIZE + 2, us ? "'%s'" : "NULL", text);
}

static void run_sql(struct place *p, struct buf *b)
{
	assert_true(buf_ok(b));
	if (!sql(p, b->data))
		fail_msg("%s: %.300s", p->error, b->data);
	buf_reset(b);
}

static void insert_plan(struct place *p)
{
	struct buf b = BUF_INIT;

	buf_adds(&b, "INSERT INTO firmware_releases (id,version,device_model,file_path,file_size,"
		     "checksum_sha256,created_at) VALUES (1,'1.1.0','m','f',1,'x',"
		     "'2026-01-01T00:00:00.000000Z');");
	run_sql(p, &b);
	for (int r = 1; r <= 4; r++) {
		buf_printf(&b,
			   "INSERT INTO rollout_configurations (id,name,firmware_version,"
			   "device_model,target_type,rollout_percentage,is_active,created_at,"
			   "updated_at,release_id,state,stages,pruned_at) VALUES (%d,'r%d',"
			   "'1.1.0','m','all',100,%s,'2026-01-01T00:00:00.000000Z',"
			   "'2026-01-01T00:00:00.000000Z',1,'%s','[]',%s)",
			   r, r,
			   p->database[0] ? r == 3 ? "true" : "false"
			   : r == 3       ? "1"
					  : "0",
			   r == 3 ? "running" : "completed",
			   r < 3 ? "'2028-01-01T00:00:00.000000Z'" : "NULL");
		run_sql(p, &b);
	}
	for (int d = 0; d < DEVICES; d++) {
		if (!device_is_there(d))
			continue;
		buf_printf(&b,
			   "INSERT INTO devices (id,device_id,last_seen,created_at) VALUES "
			   "(%d,'d%d','2026-01-01T00:00:00.000000Z','2026-01-01T00:00:00.000000Z')",
			   d + 1, d);
		run_sql(p, &b);
	}
	buf_fini(&b);
}

static void make_attempt(int i, bool *has_open)
{
	struct one *a = &attempts[i];

	*a = (struct one){.device = chance(DEVICES), .rollout = chance(6), .release = 1};
	a->status = statuses[chance(5)];
	a->unsolicited = chance(5) == 0;
	if (a->unsolicited && chance(2))
		a->release = 0;
	a->settled = strcmp(a->status, "success") != 0 || chance(4) > 0;
	a->opened_us = T0 + i * (INT64_C(995) * DAY_US / ATTEMPTS) + chance(1000000);
	a->reported_us = a->opened_us + chance(40) * DAY_US / 10;
	a->done = chance(10) > 0 || (!a->unsolicited && has_open[a->device]);
	if (!a->done && !a->unsolicited)
		has_open[a->device] = true;
	if (a->done)
		a->completed_us = a->reported_us + chance(3) * DAY_US;
	a->closed = a->done && strcmp(a->status, "pending") == 0;
}

static void insert_attempts(struct place *p)
{
	bool has_open[DEVICES] = {false};
	struct buf b = BUF_INIT;

	for (int i = 1; i <= ATTEMPTS; i++) {
		struct one *a = &attempts[i];
		char opened[32], reported[32], completed[32];

		make_attempt(i, has_open);
		text_of(a->opened_us, opened);
		text_of(a->reported_us, reported);
		text_of(a->completed_us, completed);
		buf_printf(&b,
			   "INSERT INTO device_update_status (id,device_id,firmware_version,status,"
			   "closed,opened_at,reported_at,completed_at,unsolicited,settled,"
			   "rollout_id,release_id) VALUES (%d,'d%d','1.%d.0','%s',%s,%s,%s,%s,%d,"
			   "%d,nullif(%d,0),nullif(%d,0))",
			   i, a->device, a->release, a->status, a->closed ? "'lapsed'" : "NULL",
			   opened, reported, completed, a->unsolicited, a->settled, a->rollout,
			   a->release);
		run_sql(p, &b);
	}
	buf_fini(&b);
}

static void insert_events(struct place *p)
{
	struct buf b = BUF_INIT;

	for (int i = 1; i <= EVENTS; i++) {
		char at[32];

		events[i].rollout = chance(6);
		events[i].at_us = T0 + i * (INT64_C(995) * DAY_US / EVENTS);
		text_of(events[i].at_us, at);
		buf_printf(&b,
			   "INSERT INTO ota_events (id,event_type,rollout_id,created_at) VALUES "
			   "(%d,'thing',nullif(%d,0),%s)",
			   i, events[i].rollout, at);
		run_sql(p, &b);
	}
	buf_fini(&b);
}

static int begin_filled(void **state)
{
	struct place *p;

	if (begin(state) != 0)
		return -1;
	p = *state;
	insert_plan(p);
	insert_attempts(p);
	insert_events(p);
	return 0;
}

/* --- who may go, by rules told once more --- */

static bool attempt_may_go(int i)
{
	const struct one *a = &attempts[i];
	bool newest = true;

	for (int j = i + 1; j <= ATTEMPTS; j++)
		newest &= attempts[j].device != a->device;
	if ((newest && device_is_there(a->device)) || i == ATTEMPTS)
		return false;
	if (rollout_is_kept(a->rollout))
		return false;
	if (!a->unsolicited && (!a->done || !a->settled))
		return false;
	return a->reported_us < BEFORE && (!a->done || a->completed_us < BEFORE);
}

static bool event_may_go(int i)
{
	return i != EVENTS && events[i].at_us < BEFORE && !rollout_is_kept(events[i].rollout);
}

/* --- a pass --- */

static void add_prune(struct batch_of *x, enum prune_what what, int64_t after, int64_t upto)
{
	struct change *c = add(x, CHANGE_PRUNE);

	c->prune.what = what;
	c->prune.after_id = after;
	c->prune.upto_id = upto;
	c->prune.before_us = BEFORE;
}

static struct prune_range range(struct place *p, enum prune_what what, int64_t after, int limit)
{
	struct ota_err err = {0};
	struct prune_range r;

	if (p->s->ops->prune_range(p->s, what, after, BEFORE, limit, &r, &err) != OTA_OK)
		fail_msg("%s", err.msg);
	return r;
}

static int64_t rows_of(struct place *p, enum prune_what what)
{
	return number(p, what == PRUNE_EVENTS ? "SELECT count(*) FROM ota_events"
					      : "SELECT count(*) FROM device_update_status");
}

/* In ranges of any size; what a look says that it will be is what it was. */
static void pass(struct place *p, enum prune_what what)
{
	struct prune_range r;
	int64_t after = 0;

	for (;; after = r.upto_id) {
		int limit = 1 + chance(100);
		r = range(p, what, after, limit);
		if (r.rows == 0)
			break;
		assert_true(r.rows <= limit && r.upto_id > after);
		int64_t had = rows_of(p, what);
		struct batch_of x = {0};
		add_prune(&x, what, after, r.upto_id);
		close_group(&x);
		assert_int_equal(commit_all(p, &x), OTA_OK);
		assert_int_equal(x.groups[0].result, OTA_OK);
		assert_int_equal(had - rows_of(p, what), r.prunable);
	}
}

static int64_t daily(struct place *p, const struct one *a)
{
	char text[TIME_TEXT_SIZE];
	struct buf b = BUF_INIT;

	time_format(a->completed_us ? a->completed_us : a->reported_us, text);
	buf_printf(&b,
		   "SELECT attempts FROM ota_daily_attempts WHERE day='%.10s' AND rollout_id=%d AND"
		   " release_id=%d AND firmware_version='%s' AND status='%s' AND closed='%s' AND"
		   " unsolicited=%d",
		   text, a->rollout, a->release, a->unsolicited && !a->release ? "" : "1.1.0",
		   a->status, a->closed ? "lapsed" : "", a->unsolicited);
	int64_t n = number(p, b.data);
	buf_fini(&b);
	return n;
}

static int64_t same_as(const struct one *a)
{
	int64_t n = 0, day = (a->completed_us ? a->completed_us : a->reported_us) / DAY_US;

	for (int i = 1; i <= ATTEMPTS; i++) {
		const struct one *o = &attempts[i];
		n += attempt_may_go(i) && o->rollout == a->rollout && o->release == a->release &&
		     o->status == a->status && o->closed == a->closed &&
		     o->unsolicited == a->unsolicited &&
		     (o->completed_us ? o->completed_us : o->reported_us) / DAY_US == day;
	}
	return n;
}

static void attempts_are_right(struct place *p)
{
	int64_t gone = 0;
	char query[96];

	for (int i = 1; i <= ATTEMPTS; i++) {
		snprintf(query, sizeof query,
			 "SELECT count(*) FROM device_update_status WHERE id=%d", i);
		assert_int_equal(number(p, query), !attempt_may_go(i));
		if (!attempt_may_go(i))
			continue;
		gone++;
		assert_int_equal(daily(p, &attempts[i]), same_as(&attempts[i]));
	}
	assert_int_equal(number(p, "SELECT coalesce(sum(attempts), 0) FROM ota_daily_attempts"),
			 gone);
	assert_true(gone > 50 && gone < ATTEMPTS / 2);
}

static void attempts_go_and_are_counted(void **state)
{
	struct place *p = *state;
	struct ota_err err = {0};
	struct attempt_counts before, after;

	assert_int_equal(p->s->ops->rollout_counts(p->s, 1, &before, &err), OTA_OK);
	pass(p, PRUNE_ATTEMPTS);
	attempts_are_right(p);
	assert_int_equal(rows_of(p, PRUNE_EVENTS), EVENTS);
	/* A rollout's counts are what they were: of what went, too. */
	assert_int_equal(p->s->ops->rollout_counts(p->s, 1, &after, &err), OTA_OK);
	assert_memory_equal(&before, &after, sizeof before);
	/* Once more finds nothing. */
	int64_t left = rows_of(p, PRUNE_ATTEMPTS);
	pass(p, PRUNE_ATTEMPTS);
	assert_int_equal(rows_of(p, PRUNE_ATTEMPTS), left);
	attempts_are_right(p);
}

static void events_go(void **state)
{
	struct place *p = *state;
	char query[96];
	int64_t gone = 0, last;
	struct ota_err err = {0};

	pass(p, PRUNE_EVENTS);
	for (int i = 1; i <= EVENTS; i++) {
		snprintf(query, sizeof query, "SELECT count(*) FROM ota_events WHERE id=%d", i);
		assert_int_equal(number(p, query), !event_may_go(i));
		gone += event_may_go(i);
	}
	assert_true(gone > 100);
	assert_int_equal(rows_of(p, PRUNE_ATTEMPTS), ATTEMPTS);
	/* The door that was open for this is shut again. */
	assert_int_equal(number(p, "SELECT count(*) FROM service_state WHERE key='pruning'"), 0);
	assert_false(sql(p, "DELETE FROM ota_events WHERE id = (SELECT min(id) FROM ota_events)"));
	assert_non_null(strstr(p->error, "append-only"));
	assert_false(sql(p, "UPDATE ota_events SET event_type='x' WHERE id = 400"));
	assert_int_equal(p->s->ops->rollout_last_us(p->s, 99, &last, &err), OTA_OK);
	assert_int_equal(last, 0);
	int64_t want = 0;
	for (int i = 1; i <= EVENTS; i++)
		want = events[i].rollout == 3 ? events[i].at_us : want;
	assert_int_equal(p->s->ops->rollout_last_us(p->s, 3, &last, &err), OTA_OK);
	assert_int_equal(last, want);
}

/* Refused with its group, a step has counted nothing and removed nothing. */
static void all_of_a_step_or_nothing(void **state)
{
	struct place *p = *state;
	struct device d = device_of(1, "another");

	for (int what = PRUNE_ATTEMPTS; what <= PRUNE_EVENTS; what++) {
		struct batch_of x = {0};
		add_prune(&x, (enum prune_what)what, 0, 300);
		struct change *c = add(&x, CHANGE_RELEASE_INSERT);
		static struct release rel = {
			.id = 1, .version = "1.1.0", .model = "m", .min_version = ""};
		c->release.release = &rel;
		c->release.file_path = "f";
		c->release.metadata = "{}";
		close_group(&x);
		put(&x, &d); /* another's goes in */
		x.changes[2].device.device = &d;
		d.id = 1000 + what;
		d.device_id = what ? "another-1" : "another-0";
		close_group(&x);
		assert_int_equal(commit_all(p, &x), OTA_OK);
		assert_int_equal(x.groups[0].result, OTA_ECONFLICT);
		assert_int_equal(x.groups[1].result, OTA_OK);
		assert_int_equal(rows_of(p, (enum prune_what)what), ATTEMPTS);
	}
	assert_int_equal(number(p, "SELECT count(*) FROM ota_daily_attempts"), 0);
	assert_int_equal(number(p, "SELECT count(*) FROM service_state WHERE key='pruning'"), 0);
	assert_int_equal(number(p, "SELECT count(*) FROM devices WHERE id >= 1000"), 2);
	pass(p, PRUNE_ATTEMPTS);
	attempts_are_right(p);
}

static void a_rollout_is_marked(void **state)
{
	struct place *p = *state;
	struct batch_of x = {0};
	struct change *c = add(&x, CHANGE_ROLLOUT_PRUNED);

	c->rollout_pruned.id = 4;
	c->rollout_pruned.at_us = NOW;
	close_group(&x);
	assert_int_equal(commit_all(p, &x), OTA_OK);
	assert_int_equal(number(p, "SELECT count(*) FROM rollout_configurations WHERE pruned_at IS "
				   "NOT NULL"),
			 3);
	struct prune_range r = range(p, PRUNE_EVENTS, 0, 200);
	int64_t want = 0;
	for (int i = 1; i <= 200; i++)
		want += events[i].rollout != 3;
	assert_int_equal(r.prunable, want);
}

/* --- a step is bounded, however large the tables are --- */

static int64_t vm_steps(struct place *p, enum statement which)
{
	return sqlite3_stmt_status(((struct sqlite_store *)p->s)->statements[which],
				   SQLITE_STMTSTATUS_VM_STEP, 1);
}

static void grow(struct place *p, int64_t to)
{
	struct buf b = BUF_INIT;

	for (int64_t have = ATTEMPTS; have < to; have *= 2) {
		buf_printf(&b,
			   "INSERT INTO ota_events (id,event_type,rollout_id,created_at)"
			   " SELECT id + (SELECT max(id) FROM "
			   "ota_events),event_type,rollout_id,created_at FROM ota_events;"
			   "INSERT INTO device_update_status (id,device_id,firmware_version,status,"
			   "opened_at,reported_at,completed_at,settled,rollout_id,release_id)"
			   " SELECT id + (SELECT max(id) FROM device_update_status),device_id || "
			   "'-%lld',firmware_version,'failed',opened_at,"
			   "reported_at,reported_at,settled,rollout_id,release_id"
			   " FROM device_update_status",
			   (long long)have);
		run_sql(p, &b);
	}
	buf_fini(&b);
}

/* The database's own instructions for a step of 100 rows in a table of N. */
static void cost_of_a_step(struct place *p, int64_t *attempts_cost, int64_t *events_cost)
{
	struct batch_of x = {0};

	add_prune(&x, PRUNE_ATTEMPTS, 200, 300);
	close_group(&x);
	add_prune(&x, PRUNE_EVENTS, 200, 300);
	close_group(&x);
	assert_int_equal(commit_all(p, &x), OTA_OK);
	*attempts_cost = vm_steps(p, ST_PRUNE_COUNT) + vm_steps(p, ST_PRUNE_ATTEMPTS);
	*events_cost = vm_steps(p, ST_PRUNE_EVENTS);
}

static void a_step_costs_what_its_range_does(void **state)
{
	struct place *p = *state;
	int64_t small[2], large[2];

	if (p->database[0])
		skip();
	cost_of_a_step(p, &small[0], &small[1]);
	grow(p, 10000);
	assert_true(rows_of(p, PRUNE_EVENTS) >= 10000);
	cost_of_a_step(p, &large[0], &large[1]);
	print_message(
		"# instructions for 100 rows: attempts %lld then %lld, events %lld then %lld\n",
		(long long)small[0], (long long)large[0], (long long)small[1], (long long)large[1]);
	/* The second time most of the range has gone. */
	assert_true(small[0] < 100 * 200 && small[1] < 100 * 100);
	assert_true(large[0] < small[0] && large[1] < small[1]);
}

/* PostgreSQL finds a step's rows by their ids, too. */
static void a_step_goes_by_id(void **state)
{
	struct place *p = *state;

	if (!p->database[0])
		skip();
	grow(p, 50000);
	assert_true(sql(p, "ANALYZE"));
	static const char *const looks[] = {
		"EXPLAIN (COSTS OFF) DELETE FROM ota_events e USING unnest(ARRAY[200::bigint],"
		"ARRAY[300::bigint], ARRAY['2028-01-01'::timestamptz]) AS n(after_id, upto_id, "
		"before) WHERE"
		" e.id > n.after_id AND e.id <= n.upto_id AND " PRUNABLE_EVENT("e", "n.before"),
		"EXPLAIN (COSTS OFF) DELETE FROM device_update_status u USING "
		"unnest(ARRAY[200::bigint],"
		"ARRAY[300::bigint], ARRAY['2028-01-01'::timestamptz]) AS n(after_id, upto_id, "
		"before) WHERE"
		" u.id > n.after_id AND u.id <= n.upto_id AND " PRUNABLE_ATTEMPT("u", "n.before"),
	};
	for (int i = 0; i < 2; i++) {
		PGresult *res = PQexec(p->look, looks[i]);
		assert_int_equal(PQresultStatus(res), PGRES_TUPLES_OK);
		for (int row = 0; row < PQntuples(res); row++) {
			const char *line = PQgetvalue(res, row, 0);
			if (strstr(line, "Seq Scan on ota_events") ||
			    strstr(line, "Seq Scan on device_update_status"))
				fail_msg("%s", line);
		}
		PQclear(res);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin_filled, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(attempts_go_and_are_counted),      TEST(events_go),
		TEST(all_of_a_step_or_nothing),         TEST(a_rollout_is_marked),
		TEST(a_step_costs_what_its_range_does), TEST(a_step_goes_by_id),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
