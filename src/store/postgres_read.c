/* SPDX-License-Identifier: MIT */
/*
 * PostgreSQL: how a SELECT is run, a row at a time.  A list borrows one of a few reading sessions,
 * which are made when they are first needed and again when they were lost.
 */
#include "store/postgres.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define COLUMNS_MAX 32
#define NUMBER_SIZE 24
#define LIST_MS     12000 /* a little more than the server allows itself */
#define BORROW_S    5

struct pg_row {
	struct row row;
	PGresult *res;
	char times[COLUMNS_MAX][TIME_TEXT_SIZE];
	struct buf bytes;
};

static struct pg_row *of(struct row *r)
{
	return (struct pg_row *)r;
}

static bool get_is_null(struct row *r, int column)
{
	return PQgetisnull(of(r)->res, 0, column) != 0;
}

static const char *get_text(struct row *r, int column)
{
	return get_is_null(r, column) ? NULL : PQgetvalue(of(r)->res, 0, column);
}

static int64_t get_number(struct row *r, int column)
{
	const char *text = get_text(r, column);

	if (!text)
		return 0;
	return text[0] == 't' ? 1 : strtoll(text, NULL, 10);
}

/*
 * "2026-11-23 22:12:49.5+00" as time_format() writes it: the session's zone is UTC.  What is no
 * time of ours ('infinity', before Christ) is none.
 */
static const char *get_time(struct row *r, int column)
{
	const char *text = get_text(r, column);
	char *out = of(r)->times[column];
	size_t n = text ? strspn(text, "0123456789-: ") : 0;

	if (n < 19 || text[4] != '-' || text[10] != ' ')
		return NULL;
	memcpy(out, "0000-00-00T00:00:00.000000Z", TIME_TEXT_SIZE);
	memcpy(out, text, 10);
	memcpy(out + 11, text + 11, 8);
	if (text[19] == '.') {
		size_t digits = strspn(text + 20, "0123456789");
		memcpy(out + 20, text + 20, digits < 6 ? digits : 6);
	}
	return out;
}

static int digit(char c)
{
	return c <= '9' ? c - '0' : c - 'a' + 10;
}

/* "\x0aff", as bytea_output=hex gives it. */
static const void *get_bytes(struct row *r, int column, size_t *len)
{
	const char *text = get_text(r, column);
	struct buf *b = &of(r)->bytes;

	*len = 0;
	if (!text || strncmp(text, "\\x", 2) != 0)
		return NULL;
	buf_reset(b);
	for (text += 2; text[0] && text[1]; text += 2)
		buf_addc(b, (char)(digit(text[0]) << 4 | digit(text[1])));
	*len = b->len;
	return b->len ? b->data : "";
}

static const struct row_ops row_ops = {
	.is_null = get_is_null,
	.text = get_text,
	.number = get_number,
	.time = get_time,
	.bytes = get_bytes,
};

/* --- running --- */

static bool send(PGconn *c, const struct select *q)
{
	const char *values[sizeof q->values / sizeof q->values[0]];
	char numbers[sizeof q->values / sizeof q->values[0]][NUMBER_SIZE];

	for (int i = 0; i < q->count; i++) {
		snprintf(numbers[i], NUMBER_SIZE, "%lld", (long long)q->values[i].number);
		values[i] = q->values[i].text ? q->values[i].text : numbers[i];
	}
	return PQsendQueryParams(c, q->sql.data, q->count, NULL, values, NULL, NULL, 0) &&
	       PQsetSingleRowMode(c);
}

/* Visits the rows until ROW says no, and takes the rest off the connection. */
static enum ota_code run(struct postgres_store *s, PGconn *c, const struct select *q, int ms,
			 row_fn *row, void *ctx, enum pg_refusal *how, struct ota_err *err)
{
	struct pg_row r = {.row.ops = &row_ops};
	enum ota_code rc = OTA_OK;
	bool more = true, there = send(c, q) && pg_flush(c, ms);

	while (there && (there = pg_result(c, ms, &r.res)) && r.res) {
		ExecStatusType got = PQresultStatus(r.res);
		if (got == PGRES_SINGLE_TUPLE && more)
			more = row(&r.row, ctx);
		else if (got == PGRES_FATAL_ERROR && rc == OTA_OK)
			rc = pg_fail(s, c, r.res, "reading", how, err);
		PQclear(r.res);
	}
	buf_fini(&r.bytes);
	if (rc == OTA_ECONFLICT) /* no fault of a row's: nothing was to be written */
		rc = err->code = OTA_EUNAVAIL;
	return there || rc != OTA_OK ? rc : pg_fail(s, NULL, NULL, "reading", how, err);
}

/* -1: none is free for so long that the caller's thread, which others need, had better go on. */
static int borrow(struct postgres_store *s)
{
	struct timespec until;
	int found = -1, rc = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += BORROW_S;
	pthread_mutex_lock(&s->readers_lock);
	while (found < 0 && rc == 0) {
		for (int i = 0; i < PG_READERS; i++)
			if (!s->reader_busy[i] && (found < 0 || s->readers[i]))
				found = i; /* one that is connected, if there is one */
		if (found < 0)
			rc = pthread_cond_timedwait(&s->reader_free, &s->readers_lock, &until);
	}
	if (found >= 0)
		s->reader_busy[found] = true;
	pthread_mutex_unlock(&s->readers_lock);
	return found;
}

static void give_back(struct postgres_store *s, int i)
{
	pthread_mutex_lock(&s->readers_lock);
	s->reader_busy[i] = false;
	pthread_cond_signal(&s->reader_free);
	pthread_mutex_unlock(&s->readers_lock);
}

/* A question, and how many rows of its answer were seen. */
struct question {
	const struct select *q;
	row_fn *row;
	void *ctx;
	int64_t seen;
};

static bool count(struct row *r, void *ctx)
{
	struct question *c = ctx;

	c->seen++;
	return c->row(r, c->ctx);
}

/*
 * A session that rested may have died meanwhile (the server was started anew): then *again is set,
 * the caller makes another one, and it is asked once more, unless a row was seen.
 */
static enum ota_code ask(struct postgres_store *s, PGconn *c, int ms, struct question *q,
			 bool *lost, bool *again, struct ota_err *err)
{
	enum pg_refusal how = PG_FAILED;
	enum ota_code rc = run(s, c, q->q, ms, count, q, &how, err);

	*lost = rc != OTA_OK && how == PG_LOST;
	*again = *lost && !*again && q->seen == 0;
	return rc;
}

static enum ota_code select_borrowed(struct postgres_store *s, int i, struct question *q,
				     struct ota_err *err)
{
	enum ota_code rc = OTA_OK;
	bool lost, again = false;

	do {
		if (!s->readers[i] && (rc = pg_connect(s, true, &s->readers[i], err)) != OTA_OK)
			return rc;
		rc = ask(s, s->readers[i], LIST_MS, q, &lost, &again, err);
		if (lost) {
			PQfinish(s->readers[i]);
			s->readers[i] = NULL;
		}
	} while (again);
	return rc;
}

static enum ota_code select_own(struct postgres_store *s, struct question *q, struct ota_err *err)
{
	enum ota_code rc;
	bool lost, again = false;

	do {
		if ((rc = pg_writer(s, err)) != OTA_OK)
			return rc;
		rc = ask(s, s->db, s->loading ? -1 : PG_ANSWER_MS, q, &lost, &again, err);
		if (lost)
			pg_writer_lost(s, err);
	} while (again);
	return rc;
}

enum ota_code pg_select(struct sql_store *base, bool own, const struct select *select, row_fn *row,
			void *ctx, struct ota_err *err)
{
	struct postgres_store *s = (struct postgres_store *)base;
	struct question q = {select, row, ctx, 0};

	if (own)
		return select_own(s, &q, err);
	int i = borrow(s);
	if (i < 0)
		return ota_fail(err, OTA_EUNAVAIL,
				"the database %s is still busy with other lists; come again",
				s->where);
	enum ota_code rc = select_borrowed(s, i, &q, err);
	give_back(s, i);
	return rc;
}
