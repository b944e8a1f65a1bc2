/* SPDX-License-Identifier: MIT */
/*
 * Inside the SQLite back end: shared by sqlite.c (open, migrate), sqlite_commit.c, sqlite_load.c
 * and sqlite_lists.c. Nobody else includes it.
 */
#pragma once

#include "store/store.h"

#include <pthread.h>
#include <sqlite3.h>

#define READERS        2
#define STATEMENTS_MAX 40

struct sqlite_store {
	struct store base;
	char *path;
	/* The committer's: */
	sqlite3 *db;
	sqlite3_stmt *statements[STATEMENTS_MAX]; /* prepared when first needed */
	int64_t last_id[ID_KINDS];
	/* Shared, under readers_lock: */
	pthread_mutex_t readers_lock;
	pthread_cond_t reader_free;
	sqlite3 *readers[READERS]; /* NULL while borrowed */
};

const char *const *sqlite_migrations(int *count);

/* A sentence that names the file and, where it helps, what to do. */
enum ota_code sqlite_fail(struct sqlite_store *s, sqlite3 *db, const char *doing,
			  struct ota_err *err);
/* Column as text, NULL as NULL; as time, 0 when NULL. */
const char *sqlite_text(sqlite3_stmt *st, int column);
int64_t sqlite_time(sqlite3_stmt *st, int column);

/* Prepares what begins and ends a transaction: it must need no memory when there is none. */
enum ota_code sqlite_prepare_frame(struct sqlite_store *s, struct ota_err *err);
enum ota_code sqlite_commit(struct store *base, struct change_batch *b, struct ota_err *err);
enum ota_code sqlite_load(struct store *base, const struct store_loader *l, struct ota_err *err);
enum ota_code sqlite_find_attempt(struct store *base, const char *token, const char *device_id,
				  const char *version, struct stored_attempt *out,
				  struct ota_err *err);

/* A rollout's row as sqlite_rollout() reads it. */
#define ROLLOUT_COLUMNS                                                                            \
	"id, name, firmware_version, device_model, target_type, target_filter,"                    \
	" rollout_percentage, is_active, created_at, updated_at, created_by, metadata, "           \
	"release_id,"                                                                              \
	" allow_downgrade, max_attempts, max_parallel, state, state_reason, state_since, stages,"  \
	" stage, stage_since, stage_held_us, approved, not_before, deadline, priority, requires,"  \
	" maintenance_window"
struct row_rollout sqlite_rollout(sqlite3_stmt *st);

/* One of the reading connections, waited for; it goes back at once. */
sqlite3 *sqlite_borrow(struct sqlite_store *s);
void sqlite_give_back(struct sqlite_store *s, sqlite3 *db);

/* Alerts and what is to be sent of them: sqlite_alerts.c. */
bool sqlite_write_alert(struct sqlite_store *s, const struct change *c);
bool sqlite_write_webhook(struct sqlite_store *s, const struct change *c);
enum ota_code sqlite_find_alert(struct store *, int64_t id, struct stored_alert *out,
				struct ota_err *err);
enum ota_code sqlite_list_alerts(struct store *, const struct list_query *,
				 bool (*visit)(void *, const struct row_alert *), void *ctx,
				 struct ota_err *err);
enum ota_code sqlite_list_webhooks(struct store *, const struct webhook_query *,
				   bool (*visit)(void *, const struct row_webhook *), void *ctx,
				   struct ota_err *err);
enum ota_code sqlite_alert_counts(struct store *, struct alert_counts *out, struct ota_err *err);

enum ota_code sqlite_list_updates(struct store *, const struct list_query *,
				  bool (*visit)(void *, const struct row_update *), void *ctx,
				  struct ota_err *err);
enum ota_code sqlite_list_releases(struct store *, const struct list_query *,
				   bool (*visit)(void *, const struct row_release *), void *ctx,
				   struct ota_err *err);
enum ota_code sqlite_list_rollouts(struct store *, const struct list_query *,
				   bool (*visit)(void *, const struct row_rollout *), void *ctx,
				   struct ota_err *err);
enum ota_code sqlite_list_devices(struct store *, const struct list_query *,
				  bool (*visit)(void *, const struct row_device *), void *ctx,
				  struct ota_err *err);
enum ota_code sqlite_list_events(struct store *, const struct list_query *,
				 bool (*visit)(void *, const struct row_event *), void *ctx,
				 struct ota_err *err);
enum ota_code sqlite_list_rejected(struct store *, const struct list_query *,
				   bool (*visit)(void *, const struct row_rejected *), void *ctx,
				   struct ota_err *err);
enum ota_code sqlite_rollout_counts(struct store *, int64_t rollout_id, struct attempt_counts *out,
				    struct ota_err *err);
enum ota_code sqlite_gate_events(struct store *, int64_t release_id,
				 enum ota_code (*visit)(void *, const struct row_event *,
							struct ota_err *),
				 void *ctx, struct ota_err *err);
enum ota_code sqlite_updates_since(struct store *, int64_t since_us, int64_t *out,
				   struct ota_err *err);
