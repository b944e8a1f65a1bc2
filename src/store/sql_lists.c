/* SPDX-License-Identifier: MIT */
/* The lists: each its columns, its row, its filters.  Any thread that may wait for the database. */
#include "store/sql.h"

#include "base/clock.h"

#include <string.h>

struct update_visit {
	bool (*visit)(void *, const struct row_update *);
	void *ctx;
};

static bool update_row(struct row *r, void *ctx)
{
	struct update_visit *v = ctx;
	struct row_update row = {
		.id = column_number(r, 0),
		.attempt_id = column_text(r, 1),
		.device_id = column_text(r, 2),
		.firmware_version = column_text(r, 3),
		.status = column_text(r, 4),
		.closed = column_text(r, 5),
		.closed_why = column_text(r, 6),
		.error_message = column_text(r, 7),
		.from_version = column_text(r, 8),
		.opened_at = column_time(r, 9),
		.started_at = column_time(r, 10),
		.completed_at = column_time(r, 11),
		.reported_at = column_time(r, 12),
		.percent = column_number_or(r, 13, -1),
		.release_id = column_number(r, 14),
		.rollout_id = column_number(r, 15),
		.unsolicited = column_number(r, 16) != 0,
	};
	return v->visit(v->ctx, &row);
}

enum ota_code sql_list_updates(struct store *base, const struct list_query *q,
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
	return select_run(base, &sel, update_row, &v, err);
}

struct release_visit {
	bool (*visit)(void *, const struct row_release *);
	void *ctx;
};

static bool release_row(struct row *r, void *ctx)
{
	struct release_visit *v = ctx;
	struct row_release row = {
		.id = column_number(r, 0),
		.version = column_text(r, 1),
		.device_model = column_text(r, 2),
		.min_version = column_text(r, 3),
		.file_path = column_text(r, 4),
		.file_size = column_number(r, 5),
		.sha256 = column_text(r, 6),
		.changelog = column_text(r, 7),
		.release_notes = column_text(r, 8),
		.is_signed = column_number(r, 9) != 0,
		.created_at = column_time(r, 10),
		.created_by = column_text(r, 11),
		.metadata = column_text(r, 12),
		.learnt = column_text(r, 13),
		.suspect_at = column_time(r, 14),
	};
	return v->visit(v->ctx, &row);
}

enum ota_code sql_list_releases(struct store *base, const struct list_query *q,
				bool (*visit)(void *, const struct row_release *), void *ctx,
				struct ota_err *err)
{
	struct release_visit v = {visit, ctx};
	struct select sel;

	select_begin(
		&sel,
		"SELECT id, version, device_model, min_version, file_path, file_size,"
		" checksum_sha256, changelog, release_notes, is_signed, created_at, created_by,"
		" metadata, learnt_versions, suspect_at FROM firmware_releases");
	where_fact(&sel, "deleted_at IS NULL");
	where_text(&sel, "device_model = ?", q->device_model);
	where_text(&sel, "version = ?", q->version);
	where_id(&sel, "id < ?", q->before_id);
	select_limit(&sel, "id DESC", q->limit);
	return select_run(base, &sel, release_row, &v, err);
}

struct rollout_visit {
	bool (*visit)(void *, const struct row_rollout *);
	void *ctx;
};

struct row_rollout read_rollout(struct row *r)
{
	return (struct row_rollout){
		.id = column_number(r, 0),
		.name = column_text(r, 1),
		.firmware_version = column_text(r, 2),
		.device_model = column_text(r, 3),
		.target_type = column_text(r, 4),
		.target_filter = column_text(r, 5),
		.percent = (int)column_number(r, 6),
		.active = column_number(r, 7) != 0,
		.created_at = column_time(r, 8),
		.updated_at = column_time(r, 9),
		.created_by = column_text(r, 10),
		.metadata = column_text(r, 11),
		.release_id = column_number(r, 12),
		.allow_downgrade = column_number(r, 13) != 0,
		.max_attempts = (int)column_number(r, 14),
		.max_parallel = (int)column_number(r, 15),
		.state = column_text(r, 16),
		.state_reason = column_text(r, 17),
		.state_since = column_time(r, 18),
		.stages = column_text(r, 19),
		.stage = (int)column_number(r, 20),
		.stage_since = column_time(r, 21),
		.held_us = column_number(r, 22),
		.approved = column_number(r, 23) != 0,
		.not_before = column_time(r, 24),
		.deadline = column_time(r, 25),
		.priority = (int)column_number(r, 26),
		.requires = column_text(r, 27),
		.window = column_text(r, 28),
		.pruned_at = column_time(r, 29),
	};
}

static bool rollout_row(struct row *r, void *ctx)
{
	struct rollout_visit *v = ctx;
	struct row_rollout row = read_rollout(r);

	return v->visit(v->ctx, &row);
}

enum ota_code sql_list_rollouts(struct store *base, const struct list_query *q,
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
		where_number(&sel, "is_active = ?", q->active);
	where_id(&sel, "id < ?", q->before_id);
	select_limit(&sel, "id DESC", q->limit);
	return select_run(base, &sel, rollout_row, &v, err);
}

struct device_visit {
	bool (*visit)(void *, const struct row_device *);
	void *ctx;
};

static bool device_row(struct row *r, void *ctx)
{
	struct device_visit *v = ctx;
	struct row_device row = {
		.id = column_number(r, 0),
		.device_id = column_text(r, 1),
		.mac = column_text(r, 2),
		.model = column_text(r, 3),
		.version = column_text(r, 4),
		.last_seen = column_time(r, 5),
		.created_at = column_time(r, 6),
		.hw = column_text(r, 7),
		.label = column_text(r, 8),
		.notes = column_text(r, 9),
		.site = column_text(r, 10),
		.online = column_number_or(r, 11, -1),
		.presence_at = column_time(r, 12),
		.other_site = column_text(r, 13),
		.conflict_at = column_time(r, 14),
	};
	return v->visit(v->ctx, &row);
}

enum ota_code sql_list_devices(struct store *base, const struct list_query *q,
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
		where_text(&sel, "(last_seen, id) < (?", q->before_time);
		select_value(&sel, ", ", NULL, q->before_id, ")");
	}
	select_limit(&sel, "last_seen DESC, id DESC", q->limit);
	return select_run(base, &sel, device_row, &v, err);
}

struct event_visit {
	bool (*visit)(void *, const struct row_event *);
	void *ctx;
};

static bool event_row(struct row *r, void *ctx)
{
	struct event_visit *v = ctx;
	struct row_event row = {
		.id = column_number(r, 0),
		.type = column_text(r, 1),
		.device_id = column_text(r, 2),
		.version = column_text(r, 3),
		.rollout_id = column_number(r, 4),
		.data = column_text(r, 5),
		.created_at = column_time(r, 6),
		.created_by = column_text(r, 7),
	};
	return v->visit(v->ctx, &row);
}

enum ota_code sql_list_events(struct store *base, const struct list_query *q,
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
	if (q->operations)
		where_fact(&sel, "created_by IS NOT NULL");
	where_id(&sel, "id < ?", q->before_id);
	select_limit(&sel, "id DESC", q->limit);
	return select_run(base, &sel, event_row, &v, err);
}

enum ota_code sql_rollout_history(struct store *base, int64_t rollout_id, int64_t after_id,
				  int limit, bool (*visit)(void *, const struct row_event *),
				  void *ctx, struct ota_err *err)
{
	struct event_visit v = {visit, ctx};
	struct select sel;

	select_begin(&sel,
		     "SELECT id, event_type, device_id, firmware_version, rollout_id, event_data,"
		     " created_at, created_by FROM ota_events");
	where_number(&sel, "rollout_id = ?", rollout_id);
	where_number(&sel, "id > ?", after_id);
	where_fact(&sel, "event_type NOT LIKE 'update%'");
	select_limit(&sel, "id", limit);
	return select_run(base, &sel, event_row, &v, err);
}

struct rejected_visit {
	bool (*visit)(void *, const struct row_rejected *);
	void *ctx;
};

static bool rejected_row(struct row *r, void *ctx)
{
	struct rejected_visit *v = ctx;
	struct row_rejected row = {
		.id = column_number(r, 0),
		.device_id = column_text(r, 1),
		.topic = column_text(r, 2),
		.reason = column_text(r, 4),
		.detail = column_text(r, 5),
		.created_at = column_time(r, 6),
	};

	row.payload = r->ops->bytes(r, 3, &row.payload_len);
	return v->visit(v->ctx, &row);
}

enum ota_code sql_list_rejected(struct store *base, const struct list_query *q,
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
	return select_run(base, &sel, rejected_row, &v, err);
}

static bool count_row(struct row *r, void *ctx)
{
	struct attempt_counts *out = ctx;
	enum attempt_state state;

	if (attempt_state_from_words(column_text(r, 0), column_text(r, 1), &state))
		out->by_state[state] += column_number(r, 2);
	return true;
}

enum ota_code sql_rollout_counts(struct store *base, int64_t rollout_id, struct attempt_counts *out,
				 struct ota_err *err)
{
	struct select sel;

	memset(out, 0, sizeof *out);
	/* What ended otherwise keeps no `closed` that matters: only pending rows are told apart.
	 * And those that were pruned. */
	select_begin(&sel, "SELECT status, CASE WHEN status='pending' THEN closed END, count(*)"
			   " FROM device_update_status WHERE rollout_id = $1 GROUP BY 1, 2"
			   " UNION ALL SELECT status, CASE WHEN closed <> '' THEN closed END,"
			   " attempts FROM ota_daily_attempts WHERE rollout_id = $1");
	select_bind(&sel, NULL, rollout_id);
	return select_run(base, &sel, count_row, out, err);
}

static bool number_row(struct row *r, void *ctx)
{
	*(int64_t *)ctx = column_number(r, 0);
	return false;
}

enum ota_code sql_updates_since(struct store *base, int64_t since_us, int64_t *out,
				struct ota_err *err)
{
	char since[TIME_TEXT_SIZE];
	struct select sel;

	time_format(since_us, since);
	select_begin(&sel, "SELECT count(*) FROM device_update_status");
	where_text(&sel, "reported_at >= ?", since);
	return select_run(base, &sel, number_row, out, err);
}
