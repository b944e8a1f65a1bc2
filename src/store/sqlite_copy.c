/* SPDX-License-Identifier: MIT */
/*
 * SQLite: a copy of the database, and the look at one that came back.
 *
 * The copy is made on a connection of its own, page by page in one reading transaction: of one
 * moment, and nobody waits; the log grows meanwhile.  (VACUUM INTO stumbles over the computed
 * column in SQLite 3.40.)  Any thread.
 */
#include "store/sqlite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BUSY_TIMEOUT_MS 5000
#define WAL_LARGE       (INT64_C(256) << 20)

struct copy {
	struct sqlite_store as; /* for its sentences: the path */
	sqlite3 *db;
};

static enum ota_code open_file(struct copy *c, const char *path, const char *name, int flags,
			       struct ota_err *err)
{
	memset(c, 0, sizeof *c);
	c->as.path = (char *)(uintptr_t)path;
	if (sqlite3_open_v2(name, &c->db, flags | SQLITE_OPEN_NOMUTEX, NULL) == SQLITE_OK)
		return OTA_OK;
	enum ota_code rc = sqlite_fail(&c->as, c->db, "opening", err);
	sqlite3_close(c->db);
	return rc;
}

/* A file that nobody changes: without the log's files beside it. */
static enum ota_code open_still(struct copy *c, const char *path, struct ota_err *err)
{
	struct buf uri = BUF_INIT;

	buf_adds(&uri, "file:");
	for (const char *p = path; *p; p++)
		if (strchr("%?#", *p))
			buf_printf(&uri, "%%%02X", (unsigned char)*p);
		else
			buf_addc(&uri, *p);
	buf_adds(&uri, "?immutable=1");
	enum ota_code rc = buf_ok(&uri) ? open_file(c, path, uri.data,
						    SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, err)
					: ota_fail_nomem(err);
	buf_fini(&uri);
	return rc;
}

/* The first text that SQL answers; "" for none. */
static enum ota_code ask(struct copy *c, const char *sql, char *out, size_t size,
			 struct ota_err *err)
{
	sqlite3_stmt *st = NULL;
	int step = SQLITE_ERROR;

	out[0] = '\0';
	if (sqlite3_prepare_v2(c->db, sql, -1, &st, NULL) == SQLITE_OK)
		step = sqlite3_step(st);
	if (step == SQLITE_ROW && sqlite3_column_text(st, 0))
		snprintf(out, size, "%s", (const char *)sqlite3_column_text(st, 0));
	enum ota_code rc = step == SQLITE_ROW || step == SQLITE_DONE
				   ? OTA_OK
				   : sqlite_fail(&c->as, c->db, "reading", err);
	sqlite3_finalize(st);
	return rc;
}

static enum ota_code visit_images(struct copy *c, image_fn *visit, void *ctx, struct ota_err *err)
{
	sqlite3_stmt *st = NULL;
	int step = SQLITE_ERROR;

	if (sqlite3_prepare_v2(c->db, IMAGES_SELECT, -1, &st, NULL) == SQLITE_OK)
		while ((step = sqlite3_step(st)) == SQLITE_ROW)
			if (!visit(ctx, (const char *)sqlite3_column_text(st, 0),
				   sqlite3_column_int64(st, 1)))
				break;
	enum ota_code rc = step == SQLITE_ROW || step == SQLITE_DONE
				   ? OTA_OK
				   : sqlite_fail(&c->as, c->db, "reading the releases", err);
	sqlite3_finalize(st);
	return rc;
}

static enum ota_code images_of(const char *path, image_fn *visit, void *ctx, struct ota_err *err)
{
	struct copy c;
	enum ota_code rc = open_still(&c, path, err);

	if (rc != OTA_OK)
		return rc;
	rc = visit_images(&c, visit, ctx, err);
	sqlite3_close(c.db);
	return rc;
}

static enum ota_code copy_pages(struct copy *from, struct copy *to, struct ota_err *err)
{
	/* Whoever finds it after a crash removes it: it need not be safe. */
	(void)sqlite3_exec(to->db, "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF", NULL, NULL,
			   NULL);
	sqlite3_backup *b = sqlite3_backup_init(to->db, "main", from->db, "main");
	if (b) {
		(void)sqlite3_backup_step(b, -1);
		(void)sqlite3_backup_finish(b);
	}
	return sqlite3_errcode(to->db) == SQLITE_OK
		       ? OTA_OK
		       : sqlite_fail(&to->as, to->db, "copying the database", err);
}

enum ota_code sqlite_snapshot(struct store *base, const char *path, bool *copied, image_fn *visit,
			      void *ctx, struct ota_err *err)
{
	struct sqlite_store *s = (struct sqlite_store *)base;
	struct copy from, to;
	enum ota_code rc = open_file(&from, s->path, s->path, SQLITE_OPEN_READONLY, err);

	*copied = true;
	if (rc != OTA_OK)
		return rc;
	sqlite3_busy_timeout(from.db, BUSY_TIMEOUT_MS);
	rc = open_file(&to, path, path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, err);
	if (rc == OTA_OK) {
		rc = copy_pages(&from, &to, err);
		sqlite3_close(to.db);
	}
	sqlite3_close(from.db);
	return rc == OTA_OK ? images_of(path, visit, ctx, err) : rc;
}

enum ota_code store_sqlite_check(const char *path, image_fn *visit, void *ctx, struct ota_err *err)
{
	char found[256], breaks[256], version[24];
	int known;
	struct copy c;
	enum ota_code rc = open_still(&c, path, err);

	if (rc != OTA_OK)
		return rc;
	sqlite_migrations(&known);
	if ((rc = ask(&c, "PRAGMA integrity_check(1)", found, sizeof found, err)) == OTA_OK &&
	    (rc = ask(&c, "PRAGMA user_version", version, sizeof version, err)) == OTA_OK)
		rc = ask(&c, "PRAGMA foreign_key_check", breaks, sizeof breaks, err);
	long at = strtol(version, NULL, 10);
	if (rc == OTA_OK && strcmp(found, "ok") != 0)
		rc = ota_fail(err, OTA_EIO, "the database %s is damaged: %s", path, found);
	else if (rc == OTA_OK && breaks[0])
		rc = ota_fail(err, OTA_EIO,
			      "the database %s is damaged: a row of %s refers to one that is not "
			      "there",
			      path, breaks);
	else if (rc == OTA_OK && at < 1)
		rc = ota_fail(err, OTA_EIO, "%s is no database of a paku-otad", path);
	else if (rc == OTA_OK && at > known)
		rc = ota_fail(err, OTA_ECONFLICT,
			      "the database has schema version %ld and this program knows %d: it "
			      "was made by a newer paku-otad; use that one",
			      at, known);
	if (rc == OTA_OK)
		rc = visit_images(&c, visit, ctx, err);
	sqlite3_close(c.db);
	return rc;
}

static int64_t size_of(const char *path, const char *tail)
{
	char name[4300];
	struct stat st;

	snprintf(name, sizeof name, "%s%s", path, tail);
	return stat(name, &st) == 0 ? (int64_t)st.st_size : 0;
}

enum ota_code sqlite_examine(struct store *base, finding_fn *say, void *ctx, struct ota_err *err)
{
	struct sqlite_store *s = (struct sqlite_store *)base;
	int64_t mib = INT64_C(1) << 20, log = size_of(s->path, "-wal");
	char found[256];
	struct copy c;
	enum ota_code rc = open_file(&c, s->path, s->path, SQLITE_OPEN_READONLY, err);

	if (rc != OTA_OK)
		return rc;
	sqlite3_busy_timeout(c.db, BUSY_TIMEOUT_MS);
	rc = ask(&c, "PRAGMA quick_check(1)", found, sizeof found, err);
	sqlite3_close(c.db);
	if (rc != OTA_OK)
		return rc;
	if (strcmp(found, "ok") != 0)
		finding_say(say, ctx, "store", FINDING_PROBLEM,
			    "stop the service and restore a backup, or save the rows that can be "
			    "read: docs/operating.md, \"The database is damaged\"",
			    "the database %s is damaged: %s", s->path, found);
	else
		finding_say(say, ctx, "store", FINDING_OK, NULL,
			    "sqlite, %lld MiB in %s, looked through: whole",
			    (long long)(size_of(s->path, "") / mib), s->path);
	if (log > WAL_LARGE)
		finding_say(say, ctx, "store", FINDING_WARNING,
			    "end other programs that hold the database open, such as an sqlite3 "
			    "in another terminal",
			    "the log beside the database has grown to %lld MiB",
			    (long long)(log / mib));
	return OTA_OK;
}
