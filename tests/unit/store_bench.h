/* SPDX-License-Identifier: MIT */
/*
 * A store for a test: SQLite in a folder of its own, or (PAKU_STORE=postgresql) a database of its
 * own in the cluster that libpq's environment names.  And batches to write to it.
 */
#pragma once

#include "base/buf.h"
#include "base/clock.h"
#include "store/postgres.h"
#include "store/sqlite.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "test_folder.h" /* after cmocka's */

#define T0 (INT64_C(1800000000) * US_PER_S)

struct place {
	char dir[64], path[96];
	char database[32]; /* of PostgreSQL; "": SQLite */
	PGconn *look;      /* the test's own session there */
	char error[256];   /* of the last sql() */
	struct store *s;
};

static void open_store(struct place *p)
{
	struct ota_err err = {0};
	enum ota_code rc = p->database[0] ? store_postgres_open("", 0, &p->s, &err)
					  : store_sqlite_open(p->path, &p->s, &err);

	if (rc != OTA_OK)
		fail_msg("%s", err.msg);
}

static void run_in(const char *database, const char *text)
{
	char conninfo[64];

	snprintf(conninfo, sizeof conninfo, "dbname=%s", database);
	PGconn *c = PQconnectdb(conninfo);
	PGresult *res = PQexec(c, text);
	if (PQresultStatus(res) != PGRES_COMMAND_OK)
		fail_msg("%s: %s", text, PQerrorMessage(c));
	PQclear(res);
	PQfinish(c);
}

static void begin_postgres(struct place *p)
{
	static int made;
	char text[96];

	snprintf(p->database, sizeof p->database, "unit%ld_%d", (long)getpid(), ++made);
	snprintf(text, sizeof text, "CREATE DATABASE %s", p->database);
	run_in("postgres", text);
	setenv("PGDATABASE", p->database, 1);
	open_store(p);
	p->look = PQconnectdb("");
	assert_int_equal(PQstatus(p->look), CONNECTION_OK);
	PQclear(PQexec(p->look, "SET timezone='UTC'; SET client_min_messages=error"));
}

static void drop_postgres(struct place *p)
{
	char text[96];

	PQfinish(p->look);
	if (p->s)
		p->s->ops->close(&p->s);
	snprintf(text, sizeof text, "DROP DATABASE %s WITH (FORCE)", p->database);
	run_in("postgres", text);
}

static int begin_sqlite(void **state)
{
	static struct place p;

	memset(&p, 0, sizeof p);
	*state = &p;
	test_folder("store", p.dir, sizeof p.dir);
	snprintf(p.path, sizeof p.path, "%s/ota.db", p.dir);
	open_store(&p);
	return 0;
}

static inline int begin(void **state)
{
	static struct place p;
	const char *store = getenv("PAKU_STORE");

	if (!store || strcmp(store, "postgresql") != 0)
		return begin_sqlite(state);
	memset(&p, 0, sizeof p);
	*state = &p;
	begin_postgres(&p);
	return 0;
}

static inline int end(void **state)
{
	static const char *const tails[] = {"", "-wal", "-shm"};
	struct place *p = *state;
	char file[128];

	if (p->database[0]) {
		drop_postgres(p);
		return 0;
	}
	if (p->s)
		p->s->ops->close(&p->s);
	for (int i = 0; i < 3; i++) {
		snprintf(file, sizeof file, "%s%s", p->path, tails[i]);
		unlink(file);
	}
	rmdir(p->dir);
	return 0;
}

static sqlite3 *writer(const struct place *p)
{
	return ((struct sqlite_store *)p->s)->db;
}

/* One number; -1: no row. */
static int64_t number(struct place *p, const char *sql)
{
	int64_t v = -1;

	if (p->database[0]) {
		PGresult *res = PQexec(p->look, sql);
		if (PQresultStatus(res) != PGRES_TUPLES_OK)
			fail_msg("%s: %s", sql, PQerrorMessage(p->look));
		if (PQntuples(res) > 0)
			v = strtoll(PQgetvalue(res, 0, 0), NULL, 10);
		PQclear(res);
		return v;
	}
	sqlite3_stmt *st = NULL;
	if (sqlite3_prepare_v2(writer(p), sql, -1, &st, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(writer(p)));
	if (sqlite3_step(st) == SQLITE_ROW)
		v = sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	return v;
}

static inline bool sql(struct place *p, const char *text)
{
	if (p->database[0]) {
		PGresult *res = PQexec(p->look, text);
		bool ok = PQresultStatus(res) == PGRES_COMMAND_OK;
		snprintf(p->error, sizeof p->error, "%s", PQerrorMessage(p->look));
		PQclear(res);
		return ok;
	}
	bool ok = sqlite3_exec(writer(p), text, NULL, NULL, NULL) == SQLITE_OK;
	snprintf(p->error, sizeof p->error, "%s", sqlite3_errmsg(writer(p)));
	return ok;
}

/* --- changes --- */

struct batch_of {
	struct change changes[64];
	struct change_group groups[64];
	struct change_batch b;
};

static struct change *add(struct batch_of *x, enum change_kind kind)
{
	struct change *c = &x->changes[x->b.change_count++];

	memset(c, 0, sizeof *c);
	c->kind = kind;
	x->b.changes = x->changes;
	return c;
}

/* What was added since the last group is one command. */
static void close_group(struct batch_of *x)
{
	size_t first = 0;

	if (x->b.group_count > 0)
		first = x->groups[x->b.group_count - 1].first +
			x->groups[x->b.group_count - 1].count;
	x->groups[x->b.group_count++] = (struct change_group){
		.first = first, .count = x->b.change_count - first, .result = OTA_EINTERNAL};
	x->b.groups = x->groups;
}

static inline enum ota_code commit_all(struct place *p, struct batch_of *x)
{
	struct ota_err err = {0};
	enum ota_code rc = p->s->ops->commit(p->s, &x->b, &err);

	if (rc != OTA_OK)
		print_message("# %s\n", err.msg);
	return rc;
}

static inline struct device device_of(int64_t id, const char *name)
{
	struct device d = {.id = id, .device_id = name, .created_us = T0, .last_seen_us = T0 + id};

	d.state.model = "m";
	d.state.version = "1";
	d.state.hw = d.state.ran_as = d.state.ran_from = "";
	return d;
}

static inline void put(struct batch_of *x, const struct device *d)
{
	struct change *c = add(x, CHANGE_DEVICE_PUT);

	c->device.device = d;
	c->device.state = &d->state;
}
