/* SPDX-License-Identifier: MIT */
/*
 * SQLite: how a SELECT is run.  A list borrows one of a few reading connections, so it sees one
 * moment and never waits for the committer.
 */
#include "store/sqlite.h"

#include "base/clock.h"

static sqlite3 *borrow(struct sqlite_store *s)
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

static void give_back(struct sqlite_store *s, sqlite3 *db)
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

struct sqlite_row {
	struct row row;
	sqlite3_stmt *st;
};

static sqlite3_stmt *of(struct row *r)
{
	return ((struct sqlite_row *)r)->st;
}

static bool get_is_null(struct row *r, int column)
{
	return sqlite3_column_type(of(r), column) == SQLITE_NULL;
}

static const char *get_text(struct row *r, int column)
{
	return (const char *)sqlite3_column_text(of(r), column);
}

static int64_t get_number(struct row *r, int column)
{
	return sqlite3_column_int64(of(r), column);
}

static const void *get_bytes(struct row *r, int column, size_t *len)
{
	const void *data = sqlite3_column_blob(of(r), column);

	*len = (size_t)sqlite3_column_bytes(of(r), column);
	return data;
}

static const struct row_ops row_ops = {
	.is_null = get_is_null,
	.text = get_text,
	.number = get_number,
	.time = get_text,
	.bytes = get_bytes,
};

static bool bind_values(sqlite3_stmt *st, const struct select *q)
{
	bool ok = true;

	for (int i = 0; i < q->count; i++)
		ok = ok &&
		     SQLITE_OK == (q->values[i].text
					   ? sqlite3_bind_text(st, i + 1, q->values[i].text, -1,
							       SQLITE_STATIC)
					   : sqlite3_bind_int64(st, i + 1, q->values[i].number));
	return ok;
}

enum ota_code sqlite_select(struct sql_store *base, bool own, const struct select *q, row_fn *row,
			    void *ctx, struct ota_err *err)
{
	struct sqlite_store *s = (struct sqlite_store *)base;
	sqlite3 *db = own ? s->db : borrow(s);
	struct sqlite_row r = {.row.ops = &row_ops};
	enum ota_code rc = OTA_OK;
	int step = SQLITE_ERROR;

	if (sqlite3_prepare_v2(db, q->sql.data, -1, &r.st, NULL) == SQLITE_OK &&
	    bind_values(r.st, q))
		while ((step = sqlite3_step(r.st)) == SQLITE_ROW)
			if (!row(&r.row, ctx))
				break;
	if (step != SQLITE_DONE && step != SQLITE_ROW)
		rc = sqlite_fail(s, db, "reading", err);
	sqlite3_finalize(r.st);
	if (!own)
		give_back(s, db);
	return rc;
}
