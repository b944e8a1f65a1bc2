/* SPDX-License-Identifier: MIT */
/*
 * SQLite: the lists.  Each borrows one of a few reading connections, so a list sees one moment and
 * never waits for the committer.  A query is put together from the filters that are set.
 */
#include "store/sqlite.h"

#include "base/buf.h"
#include "base/clock.h"

#include <string.h>

sqlite3 *sqlite_borrow(struct sqlite_store *s)
{
	sqlite3 *db = NULL;

	pthread_mutex_lock(&s->readers_lock);
	while (!db) {
		for (int i = 0; i < READERS && !db; i++)
			if (s->readers[i]) {
				db = s->readers[i];
				s->readers[i] = NULL;
			}
		if (!db)
			pthread_cond_wait(&s->reader_free, &s->readers_lock);
	}
	pthread_mutex_unlock(&s->readers_lock);
	return db;
}

void sqlite_give_back(struct sqlite_store *s, sqlite3 *db)
{
	pthread_mutex_lock(&s->readers_lock);
	for (int i = 0; i < READERS; i++)
		if (!s->readers[i]) {
			s->readers[i] = db;
			break;
		}
	pthread_cond_signal(&s->reader_free);
	pthread_mutex_unlock(&s->readers_lock);
}

/* A SELECT under construction: conditions and what they compare with. */
struct select {
	struct buf sql;
	int params;
	struct {
		const char *text; /* NULL: the number */
		int64_t number;
	} values[12];
};

static void select_begin(struct select *q, const char *head)
{
	memset(q, 0, sizeof *q);
	buf_adds(&q->sql, head);
}

static void add_condition(struct select *q, const char *condition, const char *text, int64_t number)
{
	buf_adds(&q->sql, q->params == 0 ? " WHERE " : " AND ");
	buf_adds(&q->sql, condition);
	q->values[q->params].text = text;
	q->values[q->params].number = number;
	q->params++;
}

static void where_text(struct select *q, const char *condition, const char *text)
{
	if (text)
		add_condition(q, condition, text, 0);
}

static void where_id(struct select *q, const char *condition, int64_t id)
{
	if (id > 0)
		add_condition(q, condition, NULL, id);
}

typedef bool row_fn(sqlite3_stmt *st, void *visit_ctx);

static enum ota_code run_select(struct sqlite_store *s, struct select *q, row_fn *row, void *ctx,
				struct ota_err *err)
{
	sqlite3_stmt *st = NULL;
	enum ota_code rc = OTA_OK;
	int step = SQLITE_DONE;

	if (!buf_ok(&q->sql))
		return ota_fail_nomem(err);
	sqlite3 *db = sqlite_borrow(s);
	if (sqlite3_prepare_v2(db, q->sql.data, -1, &st, NULL) != SQLITE_OK) {
		rc = sqlite_fail(s, db, "reading", err);
		goto out;
	}
	for (int i = 0; i < q->params; i++) {
		if (q->values[i].text)
			sqlite3_bind_text(st, i + 1, q->values[i].text, -1, SQLITE_STATIC);
		else
			sqlite3_bind_int64(st, i + 1, q->values[i].number);
	}
	while ((step = sqlite3_step(st)) == SQLITE_ROW)
		if (!row(st, ctx))
			break;
	if (step != SQLITE_DONE && step != SQLITE_ROW)
		rc = sqlite_fail(s, db, "reading", err);
out:
	sqlite3_finalize(st);
	sqlite_give_back(s, db);
	buf_fini(&q->sql);
	return rc;
}

static void select_limit(struct select *q, const char *order, int limit)
{
	buf_printf(&q->sql, " ORDER BY %s LIMIT %d", order, limit);
}

/* Each list: its columns, its row, its filters. */

struct update_visit {
	bool (*visit)(void *, const struct row_update *);
	void *ctx;
};

static bool update_row(sqlite3_stmt *st, void *ctx)
{
	struct update_visit *v = ctx;
	struct row_update row = {
		.id = sqlite3_column_int64(st, 0),
		.attempt_id = sqlite_text(st, 1),
		.device_id = sqlite_text(st, 2),
		.firmware_version = sqlite_text(st, 3),
		.status = sqlite_text(st, 4),
		.closed = sqlite_text(st, 5),
		.closed_why = sqlite_text(st, 6),
		.error_message = sqlite_text(st, 7),
		.from_version = sqlite_text(st, 8),
		.opened_at = sqlite_text(st, 9),
		.started_at = sqlite_text(st, 10),
		.completed_at = sqlite_text(st, 11),
		.reported_at = sqlite_text(st, 12),
		.percent = sqlite3_column_type(st, 13) == SQLITE_NULL ? -1
								      : sqlite3_column_int(st, 13),
		.release_id = sqlite3_column_int64(st, 14),
		.rollout_id = sqlite3_column_int64(st, 15),
		.unsolicited = sqlite3_column_int(st, 16),
	};
	return v->visit(v->ctx, &row);
}

enum ota_code sqlite_list_updates(struct store *base, const struct list_query *q,
				  bool (*visit)(void *, const struct row_update *), void *ctx,
				  struct ota_err *err)
{
	struct update_visit v = {visit, ctx};
	struct select sel;

	select_begin(&sel, "SELECT id, attempt_id, device_id, firmware_version, status, closed,"
			   " closed_why, error_message, from_version, opened_at, started_at,"
			   " completed_at, reported_at, progress_percent, release_id, rollout_id,"
			   " unsolicited FROM device_update_status");
	where_text(&sel, "device_id = ?", q->device_id);
	where_text(&sel, "firmware_version = ?", q->version);
	where_text(&sel, "status = ?", q->status);
	where_id(&sel, "rollout_id = ?", q->rollout_id);
	where_id(&sel, "id < ?", q->before_id);
	select_limit(&sel, "id DESC", q->limit);
	return run_select((struct sqlite_store *)base, &sel, update_row, &v, err);
}

struct release_visit {
	bool (*visit)(void *, const struct row_release *);
	void *ctx;
};

static bool release_row(sqlite3_stmt *st, void *ctx)
{
	struct release_visit *v = ctx;
	struct row_release row = {
		.id = sqlite3_column_int64(st, 0),
		.version = sqlite_text(st, 1),
		.device_model = sqlite_text(st, 2),
		.min_version = sqlite_text(st, 3),
		.file_path = sqlite_text(st, 4),
		.file_size = sqlite3_column_int64(st, 5),
		.sha256 = sqlite_text(st, 6),
		.changelog = sqlite_text(st, 7),
		.release_notes = sqlite_text(st, 8),
		.is_signed = sqlite3_column_int(st, 9),
		.created_at = sqlite_text(st, 10),
		.created_by = sqlite_text(st, 11),
		.metadata = sqlite_text(st, 12),
		.learnt = sqlite_text(st, 13),
		.suspect_at = sqlite_text(st, 14),
	};
	return v->visit(v->ctx, &row);
}

enum ota_code sqlite_list_releases(struct store *base, const struct list_query *q,
				   bool (*visit)(void *, const struct row_release *), void *ctx,
				   struct ota_err *err)
{
	struct release_visit v = {visit, ctx};
	struct select sel;

	select_begin(
		&sel,
		"SELECT id, version, device_model, min_version, file_path, file_size,"
		" checksum_sha256, changelog, release_notes, is_signed, created_at, created_by,"
		" metadata, learnt_versions, suspect_at FROM (SELECT * FROM firmware_releases"
		" WHERE deleted_at IS NULL)");
	where_text(&sel, "device_model = ?", q->device_model);
	where_text(&sel, "version = ?", q->version);
	where_id(&sel, "id < ?", q->before_id);
	select_limit(&sel, "id DESC", q->limit);
	return run_select((struct sqlite_store *)base, &sel, release_row, &v, err);
}

struct rollout_visit {
	bool (*visit)(void *, const struct row_rollout *);
	void *ctx;
};

struct row_rollout sqlite_rollout(sqlite3_stmt *st)
{
	return (struct row_rollout){
		.id = sqlite3_column_int64(st, 0),
		.name = sqlite_text(st, 1),
		.firmware_version = sqlite_text(st, 2),
		.device_model = sqlite_text(st, 3),
		.target_type = sqlite_text(st, 4),
		.target_filter = sqlite_text(st, 5),
		.percent = sqlite3_column_int(st, 6),
		.active = sqlite3_column_int(st, 7),
		.created_at = sqlite_text(st, 8),
		.updated_at = sqlite_text(st, 9),
		.created_by = sqlite_text(st, 10),
		.metadata = sqlite_text(st, 11),
		.release_id = sqlite3_column_int64(st, 12),
		.allow_downgrade = sqlite3_column_int(st, 13),
		.max_attempts = sqlite3_column_int(st, 14),
		.max_parallel = sqlite3_column_int(st, 15),
		.state = sqlite_text(st, 16),
		.state_reason = sqlite_text(st, 17),
		.state_since = sqlite_text(st, 18),
		.stages = sqlite_text(st, 19),
		.stage = sqlite3_column_int(st, 20),
		.stage_since = sqlite_text(st, 21),
		.held_us = sqlite3_column_int64(st, 22),
		.approved = sqlite3_column_int(st, 23),
		.not_before = sqlite_text(st, 24),
		.deadline = sqlite_text(st, 25),
		.priority = sqlite3_column_int(st, 26),
		.requires = sqlite_text(st, 27),
		.window = sqlite_text(st, 28),
	};
}

static bool rollout_row(sqlite3_stmt *st, void *ctx)
{
	struct rollout_visit *v = ctx;
	struct row_rollout row = sqlite_rollout(st);

	return v->visit(v->ctx, &row);
}

enum ota_code sqlite_list_rollouts(struct store *base, const struct list_query *q,
				   bool (*visit)(void *, const struct row_rollout *), void *ctx,
				   struct ota_err *err)
{
	struct rollout_visit v = {visit, ctx};
	struct select sel;

	select_begin(&sel, "SELECT " ROLLOUT_COLUMNS " FROM rollout_configurations");
	where_text(&sel, "device_model = ?", q->device_model);
	where_text(&sel, "firmware_version = ?", q->version);
	where_id(&sel, "id = ?", q->rollout_id);
	if (q->active >= 0)
		add_condition(&sel, "is_active = ?", NULL, q->active);
	where_id(&sel, "id < ?", q->before_id);
	select_limit(&sel, "id DESC", q->limit);
	return run_select((struct sqlite_store *)base, &sel, rollout_row, &v, err);
}

struct device_visit {
	bool (*visit)(void *, const struct row_device *);
	void *ctx;
};

static bool device_row(sqlite3_stmt *st, void *ctx)
{
	struct device_visit *v = ctx;
	struct row_device row = {
		.id = sqlite3_column_int64(st, 0),
		.device_id = sqlite_text(st, 1),
		.mac = sqlite_text(st, 2),
		.model = sqlite_text(st, 3),
		.version = sqlite_text(st, 4),
		.last_seen = sqlite_text(st, 5),
		.created_at = sqlite_text(st, 6),
		.hw = sqlite_text(st, 7),
		.label = sqlite_text(st, 8),
		.notes = sqlite_text(st, 9),
		.site = sqlite_text(st, 10),
		.online = sqlite3_column_type(st, 11) == SQLITE_NULL ? -1
								     : sqlite3_column_int(st, 11),
		.presence_at = sqlite_text(st, 12),
		.other_site = sqlite_text(st, 13),
		.conflict_at = sqlite_text(st, 14),
	};
	return v->visit(v->ctx, &row);
}

enum ota_code sqlite_list_devices(struct store *base, const struct list_query *q,
				  bool (*visit)(void *, const struct row_device *), void *ctx,
				  struct ota_err *err)
{
	struct device_visit v = {visit, ctx};
	struct select sel;

	select_begin(&sel,
		     "SELECT id, device_id, mac_address, device_model, current_firmware_version,"
		     " last_seen, created_at, hw, label, notes, site, online, presence_at,"
		     " other_site, conflict_at FROM devices");
	where_text(&sel, "device_id = ?", q->device_id);
	where_text(&sel, "device_model = ?", q->device_model);
	where_text(&sel, "device_id IN (SELECT device_id FROM device_groups WHERE group_name = ?)",
		   q->group);
	where_text(&sel, "last_seen <= ?", q->until_time);
	if (q->before_time) {
		add_condition(&sel, "(last_seen, id) < (?", q->before_time, 0);
		buf_adds(&sel.sql, ", ?)");
		sel.values[sel.params].text = NULL;
		sel.values[sel.params++].number = q->before_id;
	}
	select_limit(&sel, "last_seen DESC, id DESC", q->limit);
	return run_select((struct sqlite_store *)base, &sel, device_row, &v, err);
}

struct event_visit {
	bool (*visit)(void *, const struct row_event *);
	void *ctx;
};

static bool event_row(sqlite3_stmt *st, void *ctx)
{
	struct event_visit *v = ctx;
	struct row_event row = {
		.id = sqlite3_column_int64(st, 0),
		.type = sqlite_text(st, 1),
		.device_id = sqlite_text(st, 2),
		.version = sqlite_text(st, 3),
		.rollout_id = sqlite3_column_int64(st, 4),
		.data = sqlite_text(st, 5),
		.created_at = sqlite_text(st, 6),
		.created_by = sqlite_text(st, 7),
	};
	return v->visit(v->ctx, &row);
}

enum ota_code sqlite_list_events(struct store *base, const struct list_query *q,
				 bool (*visit)(void *, const struct row_event *), void *ctx,
				 struct ota_err *err)
{
	struct event_visit v = {visit, ctx};
	struct select sel;

	select_begin(&sel,
		     "SELECT id, event_type, device_id, firmware_version, rollout_id, event_data,"
		     " created_at, created_by FROM ota_events");
	where_text(&sel, "device_id = ?", q->device_id);
	where_text(&sel, "event_type = ?", q->event_type);
	where_text(&sel, "firmware_version = ?", q->version);
	where_id(&sel, "rollout_id = ?", q->rollout_id);
	where_id(&sel, "created_by IS NOT NULL AND ? = 1", q->operations);
	where_id(&sel, "id < ?", q->before_id);
	select_limit(&sel, "id DESC", q->limit);
	return run_select((struct sqlite_store *)base, &sel, event_row, &v, err);
}

struct rejected_visit {
	bool (*visit)(void *, const struct row_rejected *);
	void *ctx;
};

static bool rejected_row(sqlite3_stmt *st, void *ctx)
{
	struct rejected_visit *v = ctx;
	struct row_rejected row = {
		.id = sqlite3_column_int64(st, 0),
		.device_id = sqlite_text(st, 1),
		.topic = sqlite_text(st, 2),
		.payload = sqlite3_column_blob(st, 3),
		.payload_len = (size_t)sqlite3_column_bytes(st, 3),
		.reason = sqlite_text(st, 4),
		.detail = sqlite_text(st, 5),
		.created_at = sqlite_text(st, 6),
	};
	return v->visit(v->ctx, &row);
}

enum ota_code sqlite_list_rejected(struct store *base, const struct list_query *q,
				   bool (*visit)(void *, const struct row_rejected *), void *ctx,
				   struct ota_err *err)
{
	struct rejected_visit v = {visit, ctx};
	struct select sel;

	select_begin(&sel, "SELECT id, device_id, topic, payload, reason, detail, created_at"
			   " FROM ota_rejected_messages");
	where_text(&sel, "device_id = ?", q->device_id);
	where_text(&sel, "reason = ?", q->status);
	where_id(&sel, "id < ?", q->before_id);
	select_limit(&sel, "id DESC", q->limit);
	return run_select((struct sqlite_store *)base, &sel, rejected_row, &v, err);
}

static bool count_row(sqlite3_stmt *st, void *ctx)
{
	struct attempt_counts *out = ctx;
	enum attempt_state state;

	if (attempt_state_from_words(sqlite_text(st, 0), sqlite_text(st, 1), &state))
		out->by_state[state] += sqlite3_column_int64(st, 2);
	return true;
}

enum ota_code sqlite_rollout_counts(struct store *base, int64_t rollout_id,
				    struct attempt_counts *out, struct ota_err *err)
{
	struct select sel;

	memset(out, 0, sizeof *out);
	/* What ended otherwise keeps no `closed` that matters: only pending rows are told apart. */
	select_begin(&sel, "SELECT status, iif(status='pending', closed, NULL), count(*)"
			   " FROM device_update_status");
	where_id(&sel, "rollout_id = ?", rollout_id);
	buf_adds(&sel.sql, " GROUP BY 1, 2");
	return run_select((struct sqlite_store *)base, &sel, count_row, out, err);
}

static bool number_row(sqlite3_stmt *st, void *ctx)
{
	*(int64_t *)ctx = sqlite3_column_int64(st, 0);
	return false;
}

enum ota_code sqlite_updates_since(struct store *base, int64_t since_us, int64_t *out,
				   struct ota_err *err)
{
	char since[TIME_TEXT_SIZE];
	struct select sel;

	time_format(since_us, since);
	select_begin(&sel, "SELECT count(*) FROM device_update_status");
	where_text(&sel, "reported_at >= ?", since);
	return run_select((struct sqlite_store *)base, &sel, number_row, out, err);
}
