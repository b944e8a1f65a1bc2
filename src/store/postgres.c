/* SPDX-License-Identifier: MIT */
/* PostgreSQL: opening and closing, and the committer's session, of which there is one. */
#include "store/postgres.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BACKOFF_FIRST_MS 250
#define BACKOFF_MOST_MS  5000
#define LOCK_WAIT_MS     5000 /* for the session of one that was just killed to go */
#define LOCK_AGAIN_MS    100

static int64_t next_id(struct store *base, enum id_kind kind)
{
	return ++((struct postgres_store *)base)->last_id[kind];
}

void pg_next_token(struct postgres_store *s, char out[PG_TOKEN_SIZE])
{
	snprintf(out, PG_TOKEN_SIZE, "%016" PRIx64 "-%" PRIu64, s->token_base, ++s->token_count);
}

/* --- the committer's session --- */

void pg_writer_lost(struct postgres_store *s, const struct ota_err *why)
{
	if (!s->db)
		return;
	PQfinish(s->db);
	s->db = NULL;
	s->lost = *why;
	s->lost.code = OTA_EUNAVAIL;
	s->backoff_ms = 0;
	s->next_try_mono_ms = clock_mono_ms();
	pg_rows_forget(s->rows);
}

/* It may still hold its locks: the server has not noticed yet that nobody is there.  One that waits
 * for a standby to have its COMMIT is left to it. */
enum ota_code pg_end_lost_session(struct postgres_store *s, PGconn *c, struct ota_err *err)
{
	const char *const session[] = {s->session};
	char ended[8];

	if (!s->session[0])
		return OTA_OK;
	return pg_ask(s, c,
		      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
		      " WHERE pid || ' ' || extract(epoch FROM backend_start) = $1"
		      " AND wait_event IS DISTINCT FROM 'SyncRep'",
		      1, session, ended, sizeof ended, err);
}

static enum ota_code who_has_the_lock(struct postgres_store *s, PGconn *c, struct ota_err *err)
{
	char who[160];
	enum ota_code rc = pg_ask(
		s, c,
		"SELECT coalesce(a.application_name, '?') || coalesce(' at ' || a.client_addr, '')"
		" || ', since ' || to_char(a.backend_start, 'YYYY-MM-DD HH24:MI:SS \"UTC\"')"
		" FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = "
		"'advisory'"
		" AND l.classid = 1885432437 AND l.granted LIMIT 1",
		0, NULL, who, sizeof who, err);

	if (rc != OTA_OK)
		return rc;
	return ota_fail(err, OTA_ECONFLICT,
			"another paku-otad writes to the database %s (%s); stop it, or set "
			"PGDATABASE to another database, or OTA_INSTANCE_URL for both",
			s->where, who[0] ? who : "it has just gone");
}

/* Whoever wrote before this epoch writes no more, unless he waits for a standby to have it. */
static enum ota_code end_writer_before(struct postgres_store *s, PGconn *c, struct ota_err *err)
{
	const char *const epoch[] = {s->epoch};
	char ended[8];

	return pg_ask(s, c,
		      "SELECT pg_terminate_backend(l.pid) FROM pg_locks l"
		      " JOIN pg_stat_activity a USING (pid) JOIN ota_leader o ON o.epoch = $1"
		      " WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 1885432437"
		      " AND l.objid = hashtext(coalesce(current_schema(), ''))::oid"
		      " AND l.database = (SELECT oid FROM pg_database WHERE datname ="
		      " current_database()) AND a.wait_event IS DISTINCT FROM 'SyncRep'",
		      1, epoch, ended, sizeof ended, err);
}

/* Whether the epoch under which this instance leads, if there are others, still is. */
static enum ota_code check_epoch(struct postgres_store *s, PGconn *c, struct ota_err *err)
{
	const char *const epoch[] = {s->epoch};
	char is[8];
	enum ota_code rc;

	if (!s->epoch[0])
		return OTA_OK;
	rc = pg_ask(s, c, "SELECT 1 FROM ota_leader WHERE epoch = $1", 1, epoch, is, sizeof is,
		    err);
	if (rc == OTA_OK && !is[0])
		rc = ota_fail(err, OTA_EUNAVAIL, "another instance leads by now");
	return rc;
}

/* Says that this instance is the one that writes. */
static enum ota_code take_lock(struct postgres_store *s, PGconn *c, struct ota_err *err)
{
	static const struct timespec pause = {0, LOCK_AGAIN_MS * 1000000L};
	const char *ask = s->epoch[0] ? "SELECT pg_try_advisory_lock(" PG_WRITER_LOCK ")"
				      : "SELECT pg_try_advisory_lock(" PG_WRITER_LOCK
					") AND pg_try_advisory_lock(" PG_LEADER_LOCK ")";
	int64_t until_ms = clock_mono_ms() + LOCK_WAIT_MS;
	char got[8];

	for (;;) {
		enum ota_code rc = check_epoch(s, c, err);
		if (rc == OTA_OK)
			rc = pg_ask(s, c, ask, 0, NULL, got, sizeof got, err);
		if (rc == OTA_OK && got[0] != 't' && s->epoch[0])
			rc = end_writer_before(s, c, err);
		if (rc != OTA_OK)
			return rc;
		if (got[0] == 't')
			return OTA_OK;
		if (clock_mono_ms() >= until_ms) {
			rc = who_has_the_lock(s, c, err);
			return s->epoch[0] ? (err->code = OTA_EUNAVAIL) : rc;
		}
		nanosleep(&pause, NULL);
	}
}

static enum ota_code open_writer(struct postgres_store *s, struct ota_err *err)
{
	PGconn *c = NULL;
	enum ota_code rc = pg_connect(s, false, &c, err);

	if (rc == OTA_OK)
		rc = pg_end_lost_session(s, c, err);
	if (rc == OTA_OK)
		rc = take_lock(s, c, err);
	if (rc == OTA_OK)
		rc = pg_ask(s, c, PG_OWN_SESSION, 0, NULL, s->session, sizeof s->session, err);
	if (rc != OTA_OK) {
		PQfinish(c);
		return rc;
	}
	s->db = c;
	return OTA_OK;
}

enum ota_code pg_writer(struct postgres_store *s, struct ota_err *err)
{
	if (s->db)
		return OTA_OK;
	if (clock_mono_ms() < s->next_try_mono_ms) {
		*err = s->lost;
		return s->lost.code;
	}
	if (open_writer(s, err) == OTA_OK) {
		s->backoff_ms = 0;
		log_event(LOG_INFO, "store", "connected", "to the database %s again", s->where);
		return OTA_OK;
	}
	err->code = OTA_EUNAVAIL; /* whoever writes there may go again */
	s->lost = *err;
	s->backoff_ms = s->backoff_ms ? s->backoff_ms * 2 : BACKOFF_FIRST_MS;
	if (s->backoff_ms > BACKOFF_MOST_MS)
		s->backoff_ms = BACKOFF_MOST_MS;
	s->next_try_mono_ms = clock_mono_ms() + s->backoff_ms;
	return err->code;
}

/* A server that ends, ends its sessions: that is heard without asking. */
static enum ota_code look(struct store *base, struct ota_err *err)
{
	struct postgres_store *s = (struct postgres_store *)base;

	if (s->db && (!PQconsumeInput(s->db) || PQstatus(s->db) != CONNECTION_OK)) {
		pg_fail(s, s->db, NULL, "listening", NULL, err);
		pg_writer_lost(s, err);
	}
	return pg_writer(s, err);
}

/* From here on whoever wrote before this instance finds that he has been overtaken. */
static enum ota_code take_token(struct postgres_store *s, struct ota_err *err)
{
	const char *const values[] = {s->token, s->epoch};

	pg_next_token(s, s->token);
	PGresult *res =
		pg_run(s, s->db,
		       s->epoch[0] ? "INSERT INTO service_state (key, value)"
				     " SELECT 'writer', $1::text FROM ota_leader WHERE epoch = $2"
				     " FOR SHARE ON CONFLICT (key)"
				     " DO UPDATE SET value = excluded.value"
				   : "INSERT INTO service_state (key, value)"
				     " VALUES ('writer', $1) ON CONFLICT (key)"
				     " DO UPDATE SET value = excluded.value",
		       s->epoch[0] ? 2 : 1, values, PG_ANSWER_MS, NULL, err);
	bool taken = res && strcmp(PQcmdTuples(res), "1") == 0;

	PQclear(res);
	if (res && !taken)
		return ota_fail(err, OTA_EUNAVAIL, "another instance leads by now");
	return res ? OTA_OK : err->code;
}

/* --- open and close --- */

static void postgres_close(struct store **base)
{
	struct postgres_store *s = (struct postgres_store *)*base;

	if (!s)
		return;
	PQfinish(s->db);
	for (int i = 0; i < PG_READERS; i++)
		PQfinish(s->readers[i]);
	pthread_mutex_destroy(&s->readers_lock);
	pthread_cond_destroy(&s->reader_free);
	pg_rows_free(s->rows);
	free(s->conninfo);
	free(s);
	*base = NULL;
}

static const char *store_name(const struct store *s)
{
	(void)s;
	return "postgresql";
}

struct image_visit {
	image_fn *visit;
	void *ctx;
};

static bool image_row(struct row *r, void *ctx)
{
	struct image_visit *v = ctx;

	return v->visit(v->ctx, column_text(r, 0), column_number(r, 1));
}

/* The copy is pg_dump's. */
static enum ota_code snapshot(struct store *s, const char *path, bool *copied, image_fn *visit,
			      void *ctx, struct ota_err *err)
{
	struct image_visit v = {visit, ctx};
	struct select q;

	(void)path;
	*copied = false;
	select_begin(&q, IMAGES_SELECT);
	return select_run(s, &q, image_row, &v, err);
}

static const struct store_ops postgres_ops = {
	.close = postgres_close,
	.commit = pg_commit,
	.look = look,
	.next_id = next_id,
	SQL_READING_OPS,
	.snapshot = snapshot,
	.examine = pg_examine,
	.name = store_name,
};

/* Never a password. */
void pg_name_place(struct postgres_store *s)
{
	const char *host = NULL, *name = NULL, *user = NULL;
	PQconninfoOption *from = s->conninfo[0] ? PQconninfoParse(s->conninfo, NULL) : NULL,
			 *usual = PQconndefaults();
	PQconninfoOption *const lists[] = {usual, from};

	for (int i = 0; i < 2; i++)
		for (PQconninfoOption *o = lists[i]; o && o->keyword; o++) {
			if (!o->val)
				continue;
			if (strcmp(o->keyword, "host") == 0)
				host = o->val;
			else if (strcmp(o->keyword, "dbname") == 0)
				name = o->val;
			else if (strcmp(o->keyword, "user") == 0)
				user = o->val;
		}
	snprintf(s->where, sizeof s->where, "%.60s on %.80s",
		 name   ? name
		 : user ? user
			: "of the user",
		 host ? host : "this machine");
	PQconninfoFree(usual);
	PQconninfoFree(from);
}

static enum ota_code open_all(struct postgres_store *s, struct ota_err *err)
{
	enum ota_code rc;

	pg_name_place(s);
	if (!random_bytes(&s->token_base, sizeof s->token_base))
		return ota_fail(err, OTA_EIO, "no random bytes are to be had");
	if ((rc = open_writer(s, err)) != OTA_OK)
		return rc == OTA_EUNAVAIL
			       ? ota_wrap(err, "PostgreSQL, as DATABASE_URL or PGHOST, PGPORT, "
					       "PGUSER, PGDATABASE and PGSERVICE say")
			       : rc;
	if ((rc = pg_migrate(s, err)) != OTA_OK || (rc = take_token(s, err)) != OTA_OK)
		return rc;
	PGresult *res =
		pg_run(s, s->db, "SET statement_timeout=0", 0, NULL, PG_ANSWER_MS, NULL, err);
	PQclear(res);
	s->loading = true;
	return res ? sql_last_ids(&s->sql.base, s->last_id, err) : err->code;
}

enum ota_code store_postgres_open(const char *conninfo, int64_t epoch, struct store **out,
				  struct ota_err *err)
{
	struct postgres_store *s = calloc(1, sizeof *s);

	if (!s || !(s->conninfo = strdup(conninfo)) || !(s->rows = pg_rows_new())) {
		if (s)
			free(s->conninfo);
		free(s);
		return ota_fail_nomem(err);
	}
	if (epoch)
		snprintf(s->epoch, sizeof s->epoch, "%" PRId64, epoch);
	s->sql.base.ops = &postgres_ops;
	s->sql.select = pg_select;
	pthread_mutex_init(&s->readers_lock, NULL);
	pthread_cond_init(&s->reader_free, NULL);
	enum ota_code rc = open_all(s, err);
	if (rc != OTA_OK) {
		struct store *base = &s->sql.base;
		postgres_close(&base);
		return rc;
	}
	*out = &s->sql.base;
	return OTA_OK;
}
