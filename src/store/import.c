/* SPDX-License-Identifier: MIT */
/*
 * From SQLite to PostgreSQL: every table, every column of it, by COPY, in one transaction: a
 * failure leaves the new database as it was, and the old one is only read.  Before it stays, what
 * was copied is counted and summed up on both sides.  Main thread, with no service on either
 * database.
 */
#include "store/postgres.h"
#include "store/sqlite.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define COPY_BYTES (64 * 1024) /* sent at once */

/* What is referred to stands before what refers to it. */
static const char *const tables[] = {
	"firmware_releases",
	"devices",
	"device_groups",
	"rollout_configurations",
	"device_update_status",
	"attempt_failures",
	"ota_events",
	"ota_daily_attempts",
	"ota_alerts",
	"ota_webhooks",
	"ota_rejected_messages",
	"service_state",
};
#define TABLES ((int)(sizeof tables / sizeof tables[0]))

/* Facts about a database rather than about the fleet. */
#define WHICH(table)                                                                               \
	(strcmp(table, "service_state") == 0 ? " WHERE key NOT IN ('probe', 'writer')" : "")

struct import {
	struct sqlite_store *from;
	struct postgres_store *to;
	const char *table;
	struct buf columns, sums; /* of the table: its columns, and what sums them up */
	int64_t rows;
};

static enum ota_code ask_sqlite(struct import *m, sqlite3_stmt **st, const char *sql,
				struct ota_err *err)
{
	return sqlite3_prepare_v2(m->from->db, sql, -1, st, NULL) == SQLITE_OK
		       ? OTA_OK
		       : sqlite_fail(m->from, m->from->db, m->table, err);
}

static enum ota_code tell_postgres(struct import *m, const char *sql, struct ota_err *err)
{
	PGresult *res = pg_run(m->to, m->to->db, sql, 0, NULL, -1, NULL, err);

	PQclear(res);
	return res ? OTA_OK : ota_wrap(err, "%s", m->table);
}

/* --- which columns --- */

static void add_column(struct import *m, const char *name, const char *type)
{
	bool text = strcmp(type, "text") == 0 || strcmp(type, "bytea") == 0;

	buf_printf(&m->columns, "%s%s", m->columns.len ? ", " : "", name);
	buf_printf(&m->sums, "%scount(%s)", m->sums.len ? " || ' ' || " : "", name);
	if (text)
		buf_printf(&m->sums, " || ' ' || coalesce(sum(length(%s)), 0)", name);
	else if (strcmp(type, "boolean") == 0)
		buf_printf(&m->sums, " || ' ' || count(CASE WHEN %s THEN 1 END)", name);
	else if (strcmp(type, "integer") == 0 || strcmp(type, "bigint") == 0)
		buf_printf(&m->sums,
			   " || ' ' || coalesce(min(%s), 0) || ' ' || coalesce(max(%s), 0)", name,
			   name);
}

/* Every column of the old table: one that has no place in the new one is an error. */
static enum ota_code find_columns(struct import *m, struct ota_err *err)
{
	sqlite3_stmt *st = NULL;
	char sql[128], type[64];
	enum ota_code rc;

	buf_reset(&m->columns);
	buf_reset(&m->sums);
	snprintf(sql, sizeof sql,
		 "SELECT name FROM pragma_table_xinfo('%s') WHERE hidden IN (0, 2)", m->table);
	if ((rc = ask_sqlite(m, &st, sql, err)) != OTA_OK)
		return rc;
	while (rc == OTA_OK && sqlite3_step(st) == SQLITE_ROW) {
		const char *name = (const char *)sqlite3_column_text(st, 0);
		const char *const values[] = {m->table, name};
		rc = pg_ask(m->to, m->to->db,
			    "SELECT data_type FROM information_schema.columns WHERE table_schema ="
			    " current_schema() AND table_name = $1 AND column_name = $2",
			    2, values, type, sizeof type, err);
		if (rc == OTA_OK && !type[0])
			rc = ota_fail(err, OTA_ECONFLICT, "%s.%s has no place in the new database",
				      m->table, name);
		if (rc == OTA_OK)
			add_column(m, name, type);
	}
	sqlite3_finalize(st);
	if (rc == OTA_OK && (!buf_ok(&m->columns) || !buf_ok(&m->sums)))
		rc = ota_fail_nomem(err);
	return rc;
}

/* --- rows, in COPY's text format --- */

static void add_text(struct buf *b, const char *text)
{
	for (; *text; text++)
		switch (*text) {
		case '\\': buf_adds(b, "\\\\"); break;
		case '\n': buf_adds(b, "\\n"); break;
		case '\r': buf_adds(b, "\\r"); break;
		case '\t': buf_adds(b, "\\t"); break;
		default: buf_addc(b, *text);
		}
}

static void add_value(struct buf *b, sqlite3_stmt *st, int column)
{
	const uint8_t *data;

	switch (sqlite3_column_type(st, column)) {
	case SQLITE_NULL: buf_adds(b, "\\N"); break;
	case SQLITE_BLOB:
		data = sqlite3_column_blob(st, column);
		buf_adds(b, "\\\\x");
		for (int i = 0; i < sqlite3_column_bytes(st, column); i++)
			buf_printf(b, "%02x", data[i]);
		break;
	default: add_text(b, (const char *)sqlite3_column_text(st, column));
	}
}

static bool put(PGconn *c, struct buf *b)
{
	bool ok = buf_ok(b) && (b->len == 0 || PQputCopyData(c, b->data, (int)b->len) == 1);

	buf_reset(b);
	return ok;
}

static bool put_rows(struct import *m, sqlite3_stmt *st, store_import_progress *progress)
{
	struct buf b = BUF_INIT;
	bool ok = true;
	int step;

	m->rows = 0;
	while (ok && (step = sqlite3_step(st)) == SQLITE_ROW) {
		for (int i = 0; i < sqlite3_column_count(st); i++) {
			if (i)
				buf_addc(&b, '\t');
			add_value(&b, st, i);
		}
		buf_addc(&b, '\n');
		m->rows++;
		if (b.len > COPY_BYTES || !buf_ok(&b)) {
			ok = put(m->to->db, &b);
			progress(m->table, m->rows, false);
		}
	}
	ok = ok && step == SQLITE_DONE && put(m->to->db, &b);
	buf_fini(&b);
	return ok;
}

static enum ota_code end_copy(struct import *m, bool ok, struct ota_err *err)
{
	enum ota_code rc = OTA_OK;
	PGresult *res;

	if (PQputCopyEnd(m->to->db, ok ? NULL : "the old database could not be read") != 1)
		return pg_fail(m->to, m->to->db, NULL, m->table, NULL, err);
	while ((res = PQgetResult(m->to->db)) != NULL) {
		if (PQresultStatus(res) != PGRES_COMMAND_OK && rc == OTA_OK)
			rc = pg_fail(m->to, m->to->db, res, m->table, NULL, err);
		PQclear(res);
	}
	return rc;
}

static enum ota_code copy_table(struct import *m, store_import_progress *progress,
				struct ota_err *err)
{
	struct buf sql = BUF_INIT;
	sqlite3_stmt *st = NULL;
	enum ota_code rc;

	buf_printf(&sql, "SELECT %s FROM %s%s", m->columns.data, m->table, WHICH(m->table));
	rc = buf_ok(&sql) ? ask_sqlite(m, &st, sql.data, err) : ota_fail_nomem(err);
	buf_reset(&sql);
	buf_printf(&sql, "COPY %s (%s) FROM STDIN", m->table, m->columns.data);
	if (rc == OTA_OK) {
		PGresult *res = PQexec(m->to->db, buf_ok(&sql) ? sql.data : "");
		if (PQresultStatus(res) != PGRES_COPY_IN)
			rc = pg_fail(m->to, m->to->db, res, m->table, NULL, err);
		PQclear(res);
	}
	if (rc == OTA_OK) {
		bool ok = put_rows(m, st, progress);
		rc = end_copy(m, ok, err);
	}
	sqlite3_finalize(st);
	buf_fini(&sql);
	return rc;
}

/* --- the check --- */

static enum ota_code compare(struct import *m, struct ota_err *err)
{
	struct buf sql = BUF_INIT;
	sqlite3_stmt *st = NULL;
	char there[2048];
	enum ota_code rc;

	buf_printf(&sql, "SELECT count(*) || ' ' || %s FROM %s%s", m->sums.data, m->table,
		   WHICH(m->table));
	rc = buf_ok(&sql) ? ask_sqlite(m, &st, sql.data, err) : ota_fail_nomem(err);
	if (rc == OTA_OK)
		rc = pg_ask(m->to, m->to->db, sql.data, 0, NULL, there, sizeof there, err);
	if (rc == OTA_OK && sqlite3_step(st) != SQLITE_ROW)
		rc = sqlite_fail(m->from, m->from->db, m->table, err);
	if (rc == OTA_OK && strcmp((const char *)sqlite3_column_text(st, 0), there) != 0)
		rc = ota_fail(err, OTA_EIO,
			      "%s: what was copied is not what was there (%s, and now %s)",
			      m->table, (const char *)sqlite3_column_text(st, 0), there);
	sqlite3_finalize(st);
	buf_fini(&sql);
	return rc;
}

static enum ota_code must_be_empty(struct import *m, struct ota_err *err)
{
	char sql[128], found[8];

	snprintf(sql, sizeof sql, "SELECT EXISTS (SELECT FROM %s%s)", m->table, WHICH(m->table));
	enum ota_code rc = pg_ask(m->to, m->to->db, sql, 0, NULL, found, sizeof found, err);
	if (rc == OTA_OK && found[0] == 't')
		rc = ota_fail(err, OTA_ECONFLICT,
			      "the database %s has rows in %s already; import into an empty one",
			      m->to->where, m->table);
	return rc;
}

/* Ids that the database gives go on above what came. */
static enum ota_code set_sequences(struct import *m, struct ota_err *err)
{
	return tell_postgres(
		m,
		"SELECT setval(pg_get_serial_sequence(t, 'id'), n + 1, false) FROM ("
		" SELECT 'ota_events' AS t, coalesce(max(id), 0) AS n FROM ota_events UNION ALL"
		" SELECT 'ota_rejected_messages', coalesce(max(id), 0) FROM ota_rejected_messages"
		" UNION ALL SELECT 'ota_webhooks', coalesce(max(id), 0) FROM ota_webhooks) s",
		err);
}

static enum ota_code import_all(struct import *m, store_import_progress *progress,
				struct ota_err *err)
{
	enum ota_code rc = OTA_OK;

	for (int i = 0; i < TABLES && rc == OTA_OK; i++) {
		m->table = tables[i];
		rc = must_be_empty(m, err);
	}
	if (rc == OTA_OK)
		rc = tell_postgres(m, "BEGIN", err);
	for (int i = 0; i < TABLES && rc == OTA_OK; i++) {
		m->table = tables[i];
		if ((rc = find_columns(m, err)) == OTA_OK &&
		    (rc = copy_table(m, progress, err)) == OTA_OK &&
		    (rc = compare(m, err)) == OTA_OK)
			progress(m->table, m->rows, true);
	}
	if (rc == OTA_OK)
		rc = set_sequences(m, err);
	if (rc == OTA_OK)
		rc = tell_postgres(m, "COMMIT", err);
	return rc == OTA_OK ? tell_postgres(m, "ANALYZE", err) : rc;
}

enum ota_code store_import(const char *path, const char *conninfo, store_import_progress *progress,
			   struct ota_err *err)
{
	struct import m = {0};
	struct store *from = NULL, *to = NULL;
	enum ota_code rc = store_sqlite_open(path, &from, err);

	if (rc == OTA_OK)
		rc = store_postgres_open(conninfo, 0, &to, err);
	m.from = (struct sqlite_store *)from;
	m.to = (struct postgres_store *)to;
	if (rc == OTA_OK && PQsetnonblocking(m.to->db, 0) != 0)
		rc = ota_fail_nomem(err);
	if (rc == OTA_OK)
		rc = import_all(&m, progress, err);
	buf_fini(&m.columns);
	buf_fini(&m.sums);
	if (to)
		to->ops->close(&to); /* what is not committed goes with the session */
	if (from)
		from->ops->close(&from);
	return rc;
}
