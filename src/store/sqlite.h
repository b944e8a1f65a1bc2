/* SPDX-License-Identifier: MIT */
/*
 * Inside the SQLite back end: shared by sqlite.c (open, migrate), sqlite_commit.c and
 * sqlite_read.c.  Nobody else includes it.
 */
#pragma once

#include "store/sql.h"

#include <pthread.h>
#include <sqlite3.h>

#define READERS        2
#define STATEMENTS_MAX 48

struct sqlite_store {
	struct sql_store sql;
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

/* Prepares what begins and ends a transaction: it must need no memory when there is none. */
enum ota_code sqlite_prepare_frame(struct sqlite_store *s, struct ota_err *err);
enum ota_code sqlite_commit(struct store *base, struct change_batch *b, struct ota_err *err);
enum ota_code sqlite_select(struct sql_store *base, bool own, const struct select *q, row_fn *row,
			    void *ctx, struct ota_err *err);

/* sqlite_copy.c */
enum ota_code sqlite_snapshot(struct store *base, const char *path, bool *copied, image_fn *visit,
			      void *ctx, struct ota_err *err);

enum ota_code sqlite_examine(struct store *base, finding_fn *say, void *ctx, struct ota_err *err);

/* sqlite_alerts.c */
bool sqlite_write_alert(struct sqlite_store *s, const struct change *c);
bool sqlite_write_webhook(struct sqlite_store *s, const struct change *c);
