/* SPDX-License-Identifier: MIT */
/*
 * Inside the PostgreSQL back end: shared by postgres.c (open, the one writer), postgres_conn.c
 * (connections, errors), postgres_read.c, postgres_schema.c, postgres_commit.c (the transaction),
 * postgres_changes.c (changes become rows), postgres_rows.c (rows become
 * statements) and postgres_statements.c.  Nobody else includes it.
 *
 * One instance writes to a database.  It says so twice.  Its committer's session holds an advisory
 * lock, which tells a second instance at its start.  And each transaction moves one row, the token,
 * from the value this instance wrote last to the next: whoever finds another value there has not
 * the database in memory that he believes to have, and writes nothing until he is started anew.
 * The token also answers whether a transaction whose COMMIT got no answer is in the database.
 *
 * Where several instances share the database, the one that leads (lease.h) opens it so, under its
 * epoch: it ends the session of the leader before it, which may be frozen in the middle of a
 * transaction, and takes the token.
 */
#pragma once

#include "store/sql.h"

#include <libpq-fe.h>
#include <pthread.h>

#define PG_READERS     2 /* fewer than threads that may ask */
#define PG_TOKEN_SIZE  48
#define PG_ANSWER_MS   30000 /* longer than the server's own limits: then it is not there */
#define PG_CONNINFO_OF 256
/* Advisory locks; all but the first are of the database and the schema in it. */
#define PG_MIGRATION_LOCK "1885432437, 1"
#define PG_WRITER_LOCK    "1885432437, hashtext(coalesce(current_schema(), ''))"
#define PG_LEADER_LOCK    "1885432438, hashtext(coalesce(current_schema(), ''))"
/* Which session this is: a process id alone may come again. */
#define PG_OWN_SESSION                                                                             \
	"SELECT pid || ' ' || extract(epoch FROM backend_start)"                                   \
	" FROM pg_stat_activity WHERE pid = pg_backend_pid()"

/* How a server said no. */
enum pg_refusal {
	PG_LOST,    /* it did not: the connection is gone, or silent */
	PG_REFUSED, /* this row, by a constraint or a type: others may go in */
	PG_FAILED,  /* anything else: nothing can be written now */
};

/* One statement's rows as arrays in the making: postgres_rows.c. */
struct pg_rows;

struct postgres_store {
	struct sql_store sql;
	char *conninfo;  /* DATABASE_URL, or "": libpq's environment says it all */
	char where[160]; /* for sentences: "paku on db.example.org" */
	/* The committer's: */
	PGconn *db; /* NULL: lost */
	int64_t last_id[ID_KINDS];
	char token[PG_TOKEN_SIZE]; /* what this instance wrote last */
	uint64_t token_base, token_count;
	char epoch[24]; /* under which this instance leads; "": it is alone, and holds both locks */
	bool loading;   /* reads have all the time they want */
	int64_t next_try_mono_ms;
	int backoff_ms;
	char session[64]; /* of db, or of the one that was lost and may linger: "pid start" */
	struct pg_rows *rows;
	struct ota_err lost; /* why db is NULL */
	/* Under readers_lock: */
	pthread_mutex_t readers_lock;
	pthread_cond_t reader_free;
	PGconn *readers[PG_READERS]; /* NULL: not connected */
	bool reader_busy[PG_READERS];
};

/* --- postgres_conn.c --- */

/* A session with the settings that reading (READ_ONLY) or the committer needs; errors name what to
 * do. */
enum ota_code pg_connect(struct postgres_store *s, bool read_only, PGconn **out,
			 struct ota_err *err);
/* The next result of what was sent, NULL at its end; false: lost or silent (MS < 0: for ever). */
bool pg_result(PGconn *c, int ms, PGresult **out);
/* Sends what libpq holds back; false: lost or silent. */
bool pg_flush(PGconn *c, int ms);
/* Runs SQL with text parameters; the last result, or NULL with *err and *how filled. */
PGresult *pg_run(struct postgres_store *s, PGconn *c, const char *sql, int count,
		 const char *const *values, int ms, enum pg_refusal *how, struct ota_err *err);
/* One text, as above; "" for NULL and for no row. */
enum ota_code pg_ask(struct postgres_store *s, PGconn *c, const char *sql, int count,
		     const char *const *values, char *out, size_t size, struct ota_err *err);
/* A sentence that names the database and, where it helps, what to do; before it what one was DOING.
 * RES and DOING may be NULL. */
enum ota_code pg_fail(const struct postgres_store *s, PGconn *c, const PGresult *res,
		      const char *doing, enum pg_refusal *how, struct ota_err *err);

/* --- postgres.c --- */

/* What libpq will take for host and database, without connecting, into s->where. */
void pg_name_place(struct postgres_store *s);

/* The committer's session, made anew when it was lost; OTA_EUNAVAIL at once while it is not yet
 * time to try again. */
enum ota_code pg_writer(struct postgres_store *s, struct ota_err *err);
void pg_writer_lost(struct postgres_store *s, const struct ota_err *why);
/* The next token, never given before. */
void pg_next_token(struct postgres_store *s, char out[PG_TOKEN_SIZE]);
/* Ends the lost session at the server, if it is still there. */
enum ota_code pg_end_lost_session(struct postgres_store *s, PGconn *c, struct ota_err *err);

/* --- postgres_schema.c --- */

enum ota_code pg_migrate(struct postgres_store *s, struct ota_err *err);

/* --- postgres_read.c --- */

enum ota_code pg_select(struct sql_store *s, bool own, const struct select *q, row_fn *row,
			void *ctx, struct ota_err *err);

/* --- postgres_examine.c --- */

enum ota_code pg_examine(struct store *s, finding_fn *say, void *ctx, struct ota_err *err);

/* --- postgres_commit.c --- */

enum ota_code pg_commit(struct store *s, struct change_batch *b, struct ota_err *err);

/* --- postgres_rows.c --- */

struct pg_rows *pg_rows_new(void);
void pg_rows_free(struct pg_rows *r);
/*
 * Sends groups [from, to) of B as few statements with many rows each, in an order that keeps what
 * depends on another.  Adds the number of results to expect to *SENT.  False: out of memory, or
 * libpq took no more (its message tells).
 */
bool pg_rows_send(struct pg_rows *r, PGconn *c, const struct change_batch *b, size_t from,
		  size_t to, int *sent);
/* After a new connection: nothing is prepared there. */
void pg_rows_forget(struct pg_rows *r);
