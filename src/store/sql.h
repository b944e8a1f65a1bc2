/* SPDX-License-Identifier: MIT */
/*
 * Reading, as every back end that speaks SQL does it: the questions and the rows of their answers
 * stand once, in sql_load.c, sql_lists.c and sql_alerts.c.  A back end runs a SELECT (one function)
 * and reads its columns (one table of functions).
 *
 * The SQL is what SQLite and PostgreSQL both understand.  Times are the exception: text of fixed
 * width in the one, timestamptz in the other; column_time() gives the text of both.
 */
#pragma once

#include "store/store.h"

#include "base/buf.h"

/* A row under a visitor.  Columns count from 0; what is returned lives until the next row. */
struct row;
struct row_ops {
	bool (*is_null)(struct row *r, int column);
	const char *(*text)(struct row *r, int column); /* NULL is NULL */
	int64_t (*number)(struct row *r, int column);   /* booleans are 0 and 1, NULL is 0 */
	const char *(*time)(struct row *r, int column); /* as time_format() writes it, or NULL */
	const void *(*bytes)(struct row *r, int column, size_t *len);
};
struct row {
	const struct row_ops *ops;
};

static inline const char *column_text(struct row *r, int column)
{
	return r->ops->text(r, column);
}

static inline int64_t column_number(struct row *r, int column)
{
	return r->ops->number(r, column);
}

static inline const char *column_time(struct row *r, int column)
{
	return r->ops->time(r, column);
}

/* NULL as OTHERWISE; as 0; as "". */
int column_number_or(struct row *r, int column, int otherwise);
int64_t column_time_us(struct row *r, int column);
const char *column_text_or_empty(struct row *r, int column);

/* A SELECT under construction: its conditions, and what they compare with. */
struct select {
	struct buf sql;
	bool filtered; /* it has a WHERE */
	int count;
	struct {
		const char *text; /* borrowed; NULL: the number */
		int64_t number;
	} values[12];
};

void select_begin(struct select *q, const char *head);
/* CONDITION has a '?' for its value.  A text of NULL and an id of 0 set no condition. */
void where_text(struct select *q, const char *condition, const char *text);
void where_id(struct select *q, const char *condition, int64_t id);
void where_number(struct select *q, const char *condition, int64_t number);
void where_fact(struct select *q, const char *condition);
/* One more value of the last condition: TEXT, or (NULL) the number. */
void select_value(struct select *q, const char *before, const char *text, int64_t number,
		  const char *after);
/* A value alone: $1, $2 and so on stand in the text already. */
void select_bind(struct select *q, const char *text, int64_t number);
void select_limit(struct select *q, const char *order, int limit);

/* False: enough. */
typedef bool row_fn(struct row *r, void *ctx);

/* A back end's struct begins with this. */
struct sql_store {
	struct store base;
	/* Runs Q; OWN: on the committer's connection, else on one that is borrowed. */
	enum ota_code (*select)(struct sql_store *s, bool own, const struct select *q, row_fn *row,
				void *ctx, struct ota_err *err);
};

/* Runs Q and frees it: on a borrowed connection, and on the committer's. */
enum ota_code select_run(struct store *s, struct select *q, row_fn *row, void *ctx,
			 struct ota_err *err);
enum ota_code select_run_own(struct store *s, struct select *q, row_fn *row, void *ctx,
			     struct ota_err *err);

/* A rollout's row as read_rollout() reads it. */
#define ROLLOUT_COLUMNS                                                                            \
	"id, name, firmware_version, device_model, target_type, target_filter,"                    \
	" rollout_percentage, is_active, created_at, updated_at, created_by, metadata, "           \
	"release_id,"                                                                              \
	" allow_downgrade, max_attempts, max_parallel, state, state_reason, state_since, stages,"  \
	" stage, stage_since, stage_held_us, approved, not_before, deadline, priority, requires,"  \
	" maintenance_window, pruned_at"
struct row_rollout read_rollout(struct row *r);

/* The functions of struct store_ops that only read. */
enum ota_code sql_load(struct store *, const struct store_loader *, struct ota_err *err);
enum ota_code sql_find_attempt(struct store *, const char *token, const char *device_id,
			       const char *version, struct stored_attempt *out,
			       struct ota_err *err);
enum ota_code sql_gate_events(struct store *, int64_t release_id,
			      enum ota_code (*visit)(void *, const struct row_event *,
						     struct ota_err *),
			      void *ctx, struct ota_err *err);
enum ota_code sql_list_updates(struct store *, const struct list_query *,
			       bool (*visit)(void *, const struct row_update *), void *ctx,
			       struct ota_err *err);
enum ota_code sql_list_releases(struct store *, const struct list_query *,
				bool (*visit)(void *, const struct row_release *), void *ctx,
				struct ota_err *err);
enum ota_code sql_list_rollouts(struct store *, const struct list_query *,
				bool (*visit)(void *, const struct row_rollout *), void *ctx,
				struct ota_err *err);
enum ota_code sql_list_devices(struct store *, const struct list_query *,
			       bool (*visit)(void *, const struct row_device *), void *ctx,
			       struct ota_err *err);
enum ota_code sql_list_events(struct store *, const struct list_query *,
			      bool (*visit)(void *, const struct row_event *), void *ctx,
			      struct ota_err *err);
enum ota_code sql_rollout_history(struct store *, int64_t rollout_id, int64_t after_id, int limit,
				  bool (*visit)(void *, const struct row_event *), void *ctx,
				  struct ota_err *err);
enum ota_code sql_list_rejected(struct store *, const struct list_query *,
				bool (*visit)(void *, const struct row_rejected *), void *ctx,
				struct ota_err *err);
enum ota_code sql_rollout_counts(struct store *, int64_t rollout_id, struct attempt_counts *out,
				 struct ota_err *err);
enum ota_code sql_updates_since(struct store *, int64_t since_us, int64_t *out,
				struct ota_err *err);
enum ota_code sql_find_alert(struct store *, int64_t id, struct stored_alert *out,
			     struct ota_err *err);
enum ota_code sql_list_alerts(struct store *, const struct list_query *,
			      bool (*visit)(void *, const struct row_alert *), void *ctx,
			      struct ota_err *err);
enum ota_code sql_list_webhooks(struct store *, const struct webhook_query *,
				bool (*visit)(void *, const struct row_webhook *), void *ctx,
				struct ota_err *err);
enum ota_code sql_alert_counts(struct store *, struct alert_counts *out, struct ota_err *err);

enum ota_code sql_prune_range(struct store *, enum prune_what what, int64_t after_id,
			      int64_t before_us, int limit, struct prune_range *out,
			      struct ota_err *err);
enum ota_code sql_rollout_last_us(struct store *, int64_t rollout_id, int64_t *out,
				  struct ota_err *err);

/*
 * Whether a row may go, being older than BEFORE.  Never: what belongs to a rollout that is not
 * pruned; what is open or still in memory; a device's newest attempt; the newest row of all, from
 * whose id the next goes on.
 */
#define OF_NO_LIVE_ROLLOUT(row)                                                                    \
	"(" row ".rollout_id IS NULL OR NOT EXISTS (SELECT 1 FROM rollout_configurations r"        \
	" WHERE r.id = " row ".rollout_id AND r.pruned_at IS NULL))"
#define PRUNABLE_EVENT(row, before)                                                                \
	row ".created_at < " before " AND " row                                                    \
	    ".id < (SELECT max(id) FROM ota_events) AND " OF_NO_LIVE_ROLLOUT(row)
#define PRUNABLE_ATTEMPT(row, before)                                                              \
	row ".reported_at < " before " AND (" row ".completed_at < " before " OR (" row            \
	    ".completed_at IS NULL AND " row ".unsolicited <> 0))"                                 \
	    " AND (" row ".status <> 'success' OR " row ".settled <> 0 OR " row                    \
	    ".unsolicited <> 0) AND " row ".id < (SELECT max(id) FROM device_update_status)"       \
	    " AND (EXISTS (SELECT 1 FROM device_update_status l WHERE l.device_id = " row          \
	    ".device_id AND l.id > " row ".id)"                                                    \
	    " OR NOT EXISTS (SELECT 1 FROM devices d WHERE d.device_id = " row ".device_id))"      \
	    " AND " OF_NO_LIVE_ROLLOUT(row)
/* An attempt as ota_daily_attempts counts it; the day is the back end's.  What devices call things
 * that nobody has released would be a row each. */
#define DAILY_COLUMNS                                                                              \
	"day, rollout_id, release_id, firmware_version, status, closed, unsolicited, attempts"
#define DAILY_KEY "rollout_id, day, release_id, firmware_version, status, closed, unsolicited"
#define DAILY_VALUES(row)                                                                          \
	"coalesce(" row ".rollout_id, 0), coalesce(" row ".release_id, 0), CASE WHEN " row         \
	".unsolicited <> 0 AND coalesce(" row ".release_id, 0) = 0 THEN '' ELSE " row              \
	".firmware_version END, " row ".status, CASE WHEN " row                                    \
	".status = 'pending' THEN coalesce(" row ".closed, '') ELSE '' END, " row ".unsolicited"

/* Of the service's state, inside a transaction that removes events: those before that time. */
#define PRUNING_KEY "pruning"

/* What snapshot() and store_sqlite_check() ask: digest and size. */
#define IMAGES_SELECT                                                                              \
	"SELECT DISTINCT checksum_sha256, file_size FROM firmware_releases"                        \
	" WHERE deleted_at IS NULL ORDER BY 1"

/* All of them, for a back end's table. */
#define SQL_READING_OPS                                                                            \
	.load = sql_load, .find_attempt = sql_find_attempt, .list_updates = sql_list_updates,      \
	.list_releases = sql_list_releases, .list_rollouts = sql_list_rollouts,                    \
	.list_devices = sql_list_devices, .list_events = sql_list_events,                          \
	.list_rejected = sql_list_rejected, .rollout_counts = sql_rollout_counts,                  \
	.gate_events = sql_gate_events, .rollout_history = sql_rollout_history,                    \
	.updates_since = sql_updates_since, .find_alert = sql_find_alert,                          \
	.list_alerts = sql_list_alerts, .list_webhooks = sql_list_webhooks,                        \
	.alert_counts = sql_alert_counts, .prune_range = sql_prune_range,                          \
	.rollout_last_us = sql_rollout_last_us

/* The greatest id of each kind that was given; in both back ends ids are counted in memory. */
enum ota_code sql_last_ids(struct store *s, int64_t last_id[ID_KINDS], struct ota_err *err);
