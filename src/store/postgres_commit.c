/* SPDX-License-Identifier: MIT */
/*
 * PostgreSQL: the transaction.  Two ways to the server and back: first everything up to the last
 * row, in a pipeline; then, when the transaction's id is known, COMMIT.
 *
 * A row that is refused takes its statement with it, and that the transaction: it is rolled back,
 * and the batch goes once more, halved at savepoints until the refused group stands alone.
 *
 * A session that was lost before COMMIT was said has written nothing, and the batch is tried once
 * more.  One that was lost after it may have: then nothing goes on until the server has said which.
 */
#include "store/postgres.h"

#include "base/clock.h"
#include "base/log.h"

#include <string.h>
#include <time.h>

#define XID_SIZE     24
#define ASK_AGAIN_MS 200

struct transaction {
	char token[PG_TOKEN_SIZE]; /* that it moves to */
	char xid[XID_SIZE];
	bool overtaken; /* the token was not the one this instance wrote last */
};

/* --- the pipeline --- */

/* Takes COUNT results off the connection, then the end of the pipeline.  The first error counts:
 * what came after it was skipped. */
static enum ota_code take_results(struct postgres_store *s, int count, PGresult **first_rows,
				  enum pg_refusal *how, struct ota_err *err)
{
	enum ota_code rc = OTA_OK;
	PGresult *res;

	for (int i = 0; i < count + 1; i++) {
		if (!pg_result(s->db, PG_ANSWER_MS, &res) || !res)
			return pg_fail(s, NULL, NULL, "writing", how, err);
		ExecStatusType got = PQresultStatus(res);
		if (got == PGRES_FATAL_ERROR && rc == OTA_OK)
			rc = pg_fail(s, s->db, res, "writing", how, err);
		if (got == PGRES_TUPLES_OK && first_rows && !*first_rows)
			*first_rows = res;
		else
			PQclear(res);
		/* Each statement's results end with a NULL, the pipeline's end does not. */
		if (got != PGRES_PIPELINE_SYNC &&
		    (!pg_result(s->db, PG_ANSWER_MS, &res) || res != NULL))
			return pg_fail(s, NULL, NULL, "writing", how, err);
	}
	return rc;
}

static bool send_plain(PGconn *c, const char *sql, int *sent)
{
	++*sent;
	return PQsendQueryParams(c, sql, 0, NULL, NULL, NULL, NULL, 0) != 0;
}

/* Ends a pipeline in which SENT statements stand; OK: so far all went well. */
static enum ota_code run_pipeline(struct postgres_store *s, bool ok, int sent, PGresult **rows,
				  enum pg_refusal *how, struct ota_err *err)
{
	if (!ok && PQstatus(s->db) == CONNECTION_OK) {
		/* libpq had no memory; what it has taken may be anything. */
		*how = PG_LOST;
		return ota_fail_nomem(err);
	}
	if (!ok || !PQpipelineSync(s->db) || !pg_flush(s->db, PG_ANSWER_MS))
		return pg_fail(s, NULL, NULL, "writing", how, err);
	enum ota_code rc = take_results(s, sent, rows, how, err);
	if (rc != OTA_OK && *how == PG_LOST)
		return rc;
	if (!PQexitPipelineMode(s->db))
		return pg_fail(s, NULL, NULL, "writing", how, err);
	return rc;
}

/* BEGIN, the token, and groups [from, to). */
static enum ota_code begin_with(struct postgres_store *s, struct transaction *t,
				const struct change_batch *b, size_t from, size_t to,
				enum pg_refusal *how, struct ota_err *err)
{
	const char *const values[] = {s->token, t->token};
	PGresult *moved = NULL;
	int sent = 0;

	bool ok = PQenterPipelineMode(s->db) && send_plain(s->db, "BEGIN", &sent) &&
		  PQsendQueryParams(s->db,
				    "UPDATE service_state SET value = $2 WHERE key = 'writer'"
				    " AND value = $1 RETURNING pg_current_xact_id()",
				    2, NULL, values, NULL, NULL, 0);
	sent++;
	ok = ok && pg_rows_send(s->rows, s->db, b, from, to, &sent);
	enum ota_code rc = run_pipeline(s, ok, sent, &moved, how, err);
	if (moved && PQntuples(moved) == 1)
		snprintf(t->xid, sizeof t->xid, "%s", PQgetvalue(moved, 0, 0));
	else if (moved)
		t->overtaken = true;
	PQclear(moved);
	return rc;
}

static enum ota_code write_range(struct postgres_store *s, const struct change_batch *b,
				 size_t from, size_t to, enum pg_refusal *how, struct ota_err *err)
{
	int sent = 0;
	bool ok = PQenterPipelineMode(s->db) && send_plain(s->db, "SAVEPOINT part", &sent) &&
		  pg_rows_send(s->rows, s->db, b, from, to, &sent) &&
		  send_plain(s->db, "RELEASE part", &sent);

	return run_pipeline(s, ok, sent, NULL, how, err);
}

static enum ota_code plain(struct postgres_store *s, const char *sql, enum pg_refusal *how,
			   struct ota_err *err)
{
	PGresult *res = pg_run(s, s->db, sql, 0, NULL, PG_ANSWER_MS, how, err);

	PQclear(res);
	return res ? OTA_OK : err->code;
}

/* After an error: which statements stood before it, and are prepared, is not worth knowing. */
static enum ota_code roll_back(struct postgres_store *s, const char *how_far, enum pg_refusal *how,
			       struct ota_err *err)
{
	char sql[96];

	snprintf(sql, sizeof sql, "%s; DEALLOCATE ALL", how_far);
	pg_rows_forget(s->rows);
	return plain(s, sql, how, err);
}

/* Inside the transaction: writes what can be written of [from, to), marks what was refused. */
static enum ota_code write_bisecting(struct postgres_store *s, struct change_batch *b, size_t from,
				     size_t to, enum pg_refusal *how, struct ota_err *err)
{
	struct ota_err why;
	enum ota_code rc = write_range(s, b, from, to, how, &why);

	if (rc == OTA_OK)
		return OTA_OK;
	if (*how != PG_REFUSED) {
		*err = why;
		return rc;
	}
	if ((rc = roll_back(s, "ROLLBACK TO part; RELEASE part", how, err)) != OTA_OK)
		return rc;
	if (to - from == 1) {
		b->groups[from].result = why.code;
		b->groups[from].err = why;
		return OTA_OK;
	}
	size_t middle = from + (to - from) / 2;
	rc = write_bisecting(s, b, from, middle, how, err);
	return rc != OTA_OK ? rc : write_bisecting(s, b, middle, to, how, err);
}

/* --- COMMIT, and what if it is not answered --- */

/* OTA_OK: it is in; OTA_ECONFLICT: it is not; else: the server does not say. */
static enum ota_code ask_outcome(struct postgres_store *s, const struct transaction *t, PGconn *c,
				 struct ota_err *err)
{
	const char *const xid[] = {t->xid}, *const token[] = {t->token};
	char status[24], there[8], follows[8];
	enum pg_refusal how = PG_LOST;
	/* With several hosts named this may be a standby: what it has not heard of may well be. */
	enum ota_code rc =
		pg_ask(s, c, "SELECT pg_is_in_recovery()", 0, NULL, follows, sizeof follows, err);

	if (rc == OTA_OK && follows[0] != 'f')
		return ota_fail(err, OTA_EUNAVAIL, "the database %s is a standby by now", s->where);
	if (rc == OTA_OK)
		rc = pg_end_lost_session(s, c, err);
	if (rc != OTA_OK)
		return rc;
	/* An id from the future: the server has been down, and never wrote of the transaction. */
	PGresult *res =
		pg_run(s, c, "SELECT pg_xact_status($1::xid8)", 1, xid, PG_ANSWER_MS, &how, err);
	if (!res && how != PG_REFUSED)
		return err->code;
	snprintf(status, sizeof status, "%s", res ? PQgetvalue(res, 0, 0) : "unheard of");
	PQclear(res);
	if (strcmp(status, "in progress") == 0)
		return ota_fail(err, OTA_EUNAVAIL, "the transaction is still being written");
	/* The id alone may, after a crash, have become another's. */
	rc = pg_ask(s, c, "SELECT count(*) FROM service_state WHERE key = 'writer' AND value = $1",
		    1, token, there, sizeof there, err);
	if (rc != OTA_OK)
		return rc;
	return strcmp(there, "1") == 0 ? OTA_OK : OTA_ECONFLICT;
}

/* For as long as it takes, or until the service ends (OTA_EUNKNOWN). */
static enum ota_code find_out(struct postgres_store *s, const struct transaction *t,
			      struct ota_err *err)
{
	static const struct timespec pause = {0, ASK_AGAIN_MS * 1000000L};
	struct store *base = &s->sql.base;
	enum ota_code rc = OTA_EUNAVAIL;

	log_event(LOG_WARNING, "store", "in_doubt",
		  "the database %s has not answered a COMMIT: asking what became of it", s->where);
	atomic_store(&base->in_doubt, true);
	while (rc != OTA_OK && rc != OTA_ECONFLICT && !atomic_load(&base->ending)) {
		struct ota_err why = {0};
		PGconn *c = NULL;
		rc = pg_connect(s, true, &c, &why);
		if (rc == OTA_OK)
			rc = ask_outcome(s, t, c, &why);
		else if (rc == OTA_ECONFLICT)
			rc = OTA_EUNAVAIL;
		PQfinish(c);
		if (rc != OTA_OK && rc != OTA_ECONFLICT)
			nanosleep(&pause, NULL);
	}
	atomic_store(&base->in_doubt, false);
	if (rc != OTA_OK && rc != OTA_ECONFLICT)
		return ota_fail(err, OTA_EUNKNOWN,
				"the database %s has not said what became of the last changes",
				s->where);
	log_event(LOG_INFO, "store", "found_out", "the transaction %s is %s the database", t->xid,
		  rc == OTA_OK ? "in" : "not in");
	if (rc != OTA_OK)
		ota_fail(err, OTA_EUNAVAIL, "the database %s was lost before it could commit",
			 s->where);
	return rc == OTA_OK ? OTA_OK : OTA_EUNAVAIL;
}

static enum ota_code commit(struct postgres_store *s, const struct transaction *t,
			    struct ota_err *err)
{
	enum pg_refusal how = PG_FAILED;
	PGresult *res = pg_run(s, s->db, "COMMIT", 0, NULL, PG_ANSWER_MS, &how, err);
	enum ota_code rc = OTA_OK;

	if (res && strcmp(PQcmdStatus(res), "COMMIT") != 0)
		rc = ota_fail(err, OTA_EUNAVAIL, "the database %s rolled the transaction back",
			      s->where);
	PQclear(res);
	if (!res && how == PG_LOST) {
		pg_writer_lost(s, err);
		rc = find_out(s, t, err);
	} else if (!res) {
		rc = err->code = OTA_EUNAVAIL; /* it said no, and goes on */
	}
	if (rc == OTA_OK)
		memcpy(s->token, t->token, sizeof s->token);
	return rc;
}

/* --- a batch --- */

static enum ota_code write_all(struct postgres_store *s, struct transaction *t,
			       struct change_batch *b, enum pg_refusal *how, struct ota_err *err)
{
	for (size_t g = 0; g < b->group_count; g++)
		b->groups[g].result = OTA_OK;
	enum ota_code rc = begin_with(s, t, b, 0, b->group_count, how, err);
	if (rc == OTA_OK || *how != PG_REFUSED || t->overtaken)
		return rc;
	if ((rc = roll_back(s, "ROLLBACK", how, err)) != OTA_OK ||
	    (rc = begin_with(s, t, b, 0, 0, how, err)) != OTA_OK || t->overtaken)
		return rc;
	return write_bisecting(s, b, 0, b->group_count, how, err);
}

static enum ota_code overtaken(struct postgres_store *s, struct ota_err *err)
{
	return ota_fail(err, OTA_EUNAVAIL,
			"the database %s is not as this paku-otad left it: another one has written "
			"to it, or it was restored; nothing is written until this one is started "
			"anew",
			s->where);
}

/* What has no time limit ends with the start. */
static enum ota_code end_loading(struct postgres_store *s, enum pg_refusal *how,
				 struct ota_err *err)
{
	if (!s->loading)
		return OTA_OK;
	s->loading = false;
	return plain(s, "SET statement_timeout='25s'", how, err);
}

static enum ota_code try_batch(struct postgres_store *s, struct change_batch *b,
			       enum pg_refusal *how, struct ota_err *err)
{
	struct transaction t = {0};
	enum ota_code rc = end_loading(s, how, err);

	pg_next_token(s, t.token);
	if (rc == OTA_OK)
		rc = write_all(s, &t, b, how, err);
	if (t.overtaken && *how != PG_LOST)
		atomic_store(&s->sql.base.overtaken, true);
	if (rc == OTA_OK && !t.overtaken) {
		*how = PG_FAILED;
		return commit(s, &t, err);
	}
	if (*how == PG_LOST) {
		pg_writer_lost(s, err);
		return rc;
	}
	struct ota_err why;
	enum pg_refusal there = PG_FAILED;
	if (roll_back(s, "ROLLBACK", &there, &why) != OTA_OK)
		pg_writer_lost(s, &why);
	return atomic_load(&s->sql.base.overtaken) ? overtaken(s, err) : rc;
}

enum ota_code pg_commit(struct store *base, struct change_batch *b, struct ota_err *err)
{
	struct postgres_store *s = (struct postgres_store *)base;

	if (atomic_load(&base->overtaken))
		return overtaken(s, err);
	for (int again = 0;; again++) {
		enum pg_refusal how = PG_FAILED;
		enum ota_code rc = pg_writer(s, err);
		if (rc != OTA_OK)
			return rc;
		rc = try_batch(s, b, &how, err);
		if (rc == OTA_OK || how != PG_LOST || again > 0)
			return rc == OTA_OK || rc == OTA_EUNKNOWN ? rc : (err->code = OTA_EUNAVAIL);
	}
}
