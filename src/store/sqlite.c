/* SPDX-License-Identifier: MIT */
/* SQLite: WAL, synchronous=FULL, one writing connection (the committer's), a few reading ones. */
#include "store/sqlite.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUSY_TIMEOUT_MS 5000

enum ota_code sqlite_fail(struct sqlite_store *s, sqlite3 *db, const char *doing,
			  struct ota_err *err)
{
	const char *what = db ? sqlite3_errmsg(db) : "out of memory";

	switch (db ? sqlite3_errcode(db) & 0xFF : SQLITE_NOMEM) {
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return ota_fail(
			err, OTA_EIO,
			"%s: the database %s is damaged (%s); restore it from a backup, or move it "
			"away to begin with an empty one (docs/operating.md tells how rows may be "
			"saved)",
			doing, s->path, what);
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return ota_fail(
			err, OTA_EUNAVAIL,
			"%s: the database %s is locked by another program; end that one (fuser "
			"shows which it is), or wait for it",
			doing, s->path);
	case SQLITE_FULL:
		return ota_fail(err, OTA_EUNAVAIL, "%s: the disk that holds %s is full", doing,
				s->path);
	case SQLITE_READONLY:
	case SQLITE_CANTOPEN:
	case SQLITE_PERM:
		return ota_fail(err, OTA_EUNAVAIL,
				"%s: the database %s cannot be written (%s); check owner and "
				"permissions of "
				"the file and its folder",
				doing, s->path, what);
	case SQLITE_OK: /* a bind failed, and what came after it did not */
	case SQLITE_NOMEM: return ota_fail_nomem(err);
	case SQLITE_CONSTRAINT:
		return ota_fail(err, OTA_ECONFLICT, "%s: the database refuses it: %s", doing, what);
	default: return ota_fail(err, OTA_EUNAVAIL, "%s: database %s: %s", doing, s->path, what);
	}
}

static int64_t next_id(struct store *base, enum id_kind kind)
{
	return ++((struct sqlite_store *)base)->last_id[kind];
}

/* --- open and close --- */

static bool exec(sqlite3 *db, const char *text)
{
	return sqlite3_exec(db, text, NULL, NULL, NULL) == SQLITE_OK;
}

/* One number; -1 when the query fails. */
static int64_t query_int(sqlite3 *db, const char *text)
{
	sqlite3_stmt *st = NULL;
	int64_t v = -1;

	if (sqlite3_prepare_v2(db, text, -1, &st, NULL) == SQLITE_OK &&
	    sqlite3_step(st) == SQLITE_ROW)
		v = sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	return v;
}

static enum ota_code migrate(struct sqlite_store *s, struct ota_err *err)
{
	int count;
	const char *const *steps = sqlite_migrations(&count);
	int64_t at = query_int(s->db, "PRAGMA user_version");

	if (at < 0)
		return sqlite_fail(s, s->db, "reading the schema's version", err);
	if (at > count)
		return ota_fail(
			err, OTA_ECONFLICT,
			"the database %s has schema version %lld and this program knows %d: it was "
			"made by a newer paku-otad; use that one, or restore the backup from "
			"before",
			s->path, (long long)at, count);
	for (int i = (int)at; i < count; i++) {
		char set[64];
		sqlite3_snprintf(sizeof set, set, "PRAGMA user_version=%d", i + 1);
		if (!exec(s->db, "BEGIN IMMEDIATE") || !exec(s->db, steps[i]) ||
		    !exec(s->db, set) || !exec(s->db, "COMMIT")) {
			ota_fail(err, OTA_EIO, "migration %d of %s: %s", i + 1, s->path,
				 sqlite3_errmsg(s->db));
			if (!sqlite3_get_autocommit(s->db))
				exec(s->db, "ROLLBACK");
			return err->code;
		}
	}
	return OTA_OK;
}

static enum ota_code open_writer(struct sqlite_store *s, struct ota_err *err)
{
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;

	if (sqlite3_open_v2(s->path, &s->db, flags, NULL) != SQLITE_OK)
		return sqlite_fail(s, s->db, "opening", err);
	sqlite3_extended_result_codes(s->db, 1);
	sqlite3_busy_timeout(s->db, BUSY_TIMEOUT_MS);
	if (sqlite3_db_readonly(s->db, "main") == 1)
		return ota_fail(
			err, OTA_EIO,
			"the database %s is read-only; make the file and its folder writable for "
			"user %ld",
			s->path, (long)geteuid());
	if (!exec(s->db, "PRAGMA journal_mode=WAL") || !exec(s->db, "PRAGMA synchronous=FULL") ||
	    /* A savepoint's journal is a file elsewhere otherwise, made and removed at each commit.
	     */
	    !exec(s->db, "PRAGMA temp_store=MEMORY") || !exec(s->db, "PRAGMA foreign_keys=ON") ||
	    !exec(s->db, "PRAGMA cache_size=-16384") ||
	    /* 16 MB: the same pages are changed again and again, and are written back once. */
	    !exec(s->db, "PRAGMA wal_autocheckpoint=4000"))
		return sqlite_fail(s, s->db, "opening", err);
	return OTA_OK;
}

static enum ota_code open_readers(struct sqlite_store *s, struct ota_err *err)
{
	for (int i = 0; i < READERS; i++) {
		int flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX;
		if (sqlite3_open_v2(s->path, &s->readers[i], flags, NULL) != SQLITE_OK)
			return sqlite_fail(s, s->readers[i], "opening for reading", err);
		sqlite3_busy_timeout(s->readers[i], BUSY_TIMEOUT_MS);
		if (!exec(s->readers[i], "PRAGMA cache_size=-2048"))
			return sqlite_fail(s, s->readers[i], "opening for reading", err);
	}
	return OTA_OK;
}

static void sqlite_close(struct store **base)
{
	struct sqlite_store *s = (struct sqlite_store *)*base;

	if (!s)
		return;
	for (int i = 0; i < STATEMENTS_MAX; i++)
		sqlite3_finalize(s->statements[i]);
	for (int i = 0; i < READERS; i++)
		sqlite3_close(s->readers[i]);
	sqlite3_close(s->db);
	pthread_mutex_destroy(&s->readers_lock);
	pthread_cond_destroy(&s->reader_free);
	free(s->path);
	free(s);
	*base = NULL;
}

static const char *store_name(const struct store *s)
{
	(void)s;
	return "sqlite";
}

static const struct store_ops sqlite_ops = {
	.close = sqlite_close,
	.commit = sqlite_commit,
	.next_id = next_id,
	SQL_READING_OPS,
	.snapshot = sqlite_snapshot,
	.examine = sqlite_examine,
	.name = store_name,
};

enum ota_code store_sqlite_open(const char *path, struct store **out, struct ota_err *err)
{
	struct sqlite_store *s = calloc(1, sizeof *s);
	enum ota_code rc;

	/* SQLite's count of its own memory is a lock at each allocation, and nobody reads it.  It
	 * can be changed before the library is first used only: later openings in tests keep what
	 * there is. */
	(void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
	if (!s || !(s->path = strdup(path))) {
		free(s);
		return ota_fail_nomem(err);
	}
	s->sql.base.ops = &sqlite_ops;
	s->sql.select = sqlite_select;
	pthread_mutex_init(&s->readers_lock, NULL);
	pthread_cond_init(&s->reader_free, NULL);
	if ((rc = open_writer(s, err)) != OTA_OK || (rc = migrate(s, err)) != OTA_OK ||
	    (rc = open_readers(s, err)) != OTA_OK ||
	    (rc = sql_last_ids(&s->sql.base, s->last_id, err)) != OTA_OK ||
	    (rc = sqlite_prepare_frame(s, err)) != OTA_OK) {
		struct store *base = &s->sql.base;
		sqlite_close(&base);
		return rc;
	}
	*out = &s->sql.base;
	return OTA_OK;
}
