/* SPDX-License-Identifier: MIT */
/*
 * PostgreSQL: connections, and what a server's error means.  libpq reads its environment, service
 * and password files itself, and whatever it knows of TLS; what is set here are limits, so that a
 * server that went away without a word is noticed.
 */
#include "store/postgres.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define SERVER_LEAST 140000
#define CONNECT_S    "5"

static void log_notice(void *ctx, const PGresult *res)
{
	const char *text = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);

	(void)ctx;
	log_event(LOG_DEBUG, "store", "notice", "%s", text ? text : "?");
}

/* The first line, without its end: libpq's messages have several. */
static int line_of(const char *text)
{
	return (int)strcspn(text, "\n");
}

static enum ota_code sentence(const struct postgres_store *s, PGconn *c, const PGresult *res,
			      enum pg_refusal *how, struct ota_err *err)
{
	const char *state = res ? PQresultErrorField(res, PG_DIAG_SQLSTATE) : NULL;
	const char *what = res ? PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY) : NULL;
	const char *severity = res ? PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED) : NULL;
	const char *detail = res ? PQresultErrorField(res, PG_DIAG_MESSAGE_DETAIL) : NULL;
	bool ends = severity && strcmp(severity, "ERROR") != 0; /* FATAL, PANIC: the session goes */

	*how = PG_FAILED;
	if (!what)
		what = c && PQerrorMessage(c)[0] ? PQerrorMessage(c) : "it does not answer";
	if (!c || PQstatus(c) != CONNECTION_OK || !state || ends) {
		*how = PG_LOST;
		return ota_fail(err, OTA_EUNAVAIL, "the database %s cannot be reached: %.*s",
				s->where, line_of(what), what);
	}
	/* Integrity, data, and what a trigger of somebody's raises. */
	if (strncmp(state, "23", 2) == 0 || strncmp(state, "22", 2) == 0 ||
	    strcmp(state, "P0001") == 0) {
		*how = PG_REFUSED;
		return ota_fail(err, OTA_ECONFLICT, "the database refuses it: %s%s%s", what,
				detail ? "; " : "", detail ? detail : "");
	}
	if (strcmp(state, "25006") == 0)
		return ota_fail(err, OTA_EUNAVAIL,
				"the database %s is read-only (a standby, or "
				"default_transaction_read_only): connect to the one that can be "
				"written",
				s->where);
	if (strcmp(state, "53100") == 0)
		return ota_fail(err, OTA_EUNAVAIL, "the disk of the database %s is full (%s)",
				s->where, what);
	if (strcmp(state, "55P03") == 0)
		return ota_fail(err, OTA_EUNAVAIL,
				"a table of the database %s is locked by another program",
				s->where);
	return ota_fail(err, OTA_EUNAVAIL, "the database %s says: %s%s%s", s->where, what,
			detail ? "; " : "", detail ? detail : "");
}

enum ota_code pg_fail(const struct postgres_store *s, PGconn *c, const PGresult *res,
		      const char *doing, enum pg_refusal *how, struct ota_err *err)
{
	enum pg_refusal unused;
	enum ota_code rc = sentence(s, c, res, how ? how : &unused, err);

	return doing ? ota_wrap(err, "%s", doing) : rc;
}

/* --- waiting --- */

/* Until the socket can be read (and, while there is something to send, written) or UNTIL. */
static bool wait_socket(PGconn *c, short events, int64_t until_ms)
{
	struct pollfd p = {.fd = PQsocket(c), .events = events};

	for (;;) {
		int64_t left = until_ms < 0 ? -1 : until_ms - clock_mono_ms();
		if (until_ms >= 0 && left < 0)
			left = 0;
		int n = poll(&p, 1, (int)left);
		if (n > 0)
			return true;
		if (n == 0 || errno != EINTR)
			return false;
	}
}

bool pg_flush(PGconn *c, int ms)
{
	int64_t until_ms = ms < 0 ? -1 : clock_mono_ms() + ms;
	int rc;

	while ((rc = PQflush(c)) == 1)
		if (!wait_socket(c, POLLIN | POLLOUT, until_ms) || !PQconsumeInput(c))
			return false;
	return rc == 0;
}

bool pg_result(PGconn *c, int ms, PGresult **out)
{
	int64_t until_ms = ms < 0 ? -1 : clock_mono_ms() + ms;

	*out = NULL;
	while (PQisBusy(c))
		if (!wait_socket(c, POLLIN, until_ms) || !PQconsumeInput(c))
			return false;
	*out = PQgetResult(c);
	return true;
}

PGresult *pg_run(struct postgres_store *s, PGconn *c, const char *sql, int count,
		 const char *const *values, int ms, enum pg_refusal *how, struct ota_err *err)
{
	PGresult *last = NULL, *res = NULL;
	bool there = count ? PQsendQueryParams(c, sql, count, NULL, values, NULL, NULL, 0)
			   : PQsendQuery(c, sql);

	there = there && pg_flush(c, ms);
	while (there && (there = pg_result(c, ms, &res)) && res) {
		PQclear(last);
		last = res;
	}
	ExecStatusType got = last ? PQresultStatus(last) : PGRES_FATAL_ERROR;
	if (there && (got == PGRES_TUPLES_OK || got == PGRES_COMMAND_OK))
		return last;
	pg_fail(s, there ? c : NULL, last, NULL, how, err);
	PQclear(last);
	return NULL;
}

enum ota_code pg_ask(struct postgres_store *s, PGconn *c, const char *sql, int count,
		     const char *const *values, char *out, size_t size, struct ota_err *err)
{
	PGresult *res = pg_run(s, c, sql, count, values, PG_ANSWER_MS, NULL, err);

	if (!res)
		return err->code;
	bool some = PQntuples(res) > 0 && !PQgetisnull(res, 0, 0);
	snprintf(out, size, "%s", some ? PQgetvalue(res, 0, 0) : "");
	PQclear(res);
	return OTA_OK;
}

/* --- connecting --- */

/* For the committer no plan but by index: a plan made while a table was small and kept afterwards
 * would read it whole for each batch. */
static const char settings[] =
	"SET timezone='UTC'; SET datestyle='ISO'; SET bytea_output='hex'; SET jit=off;"
	"SET lock_timeout='5s'; SET idle_in_transaction_session_timeout='60s';"
	"SET standard_conforming_strings=on;";
static const char writer_settings[] =
	"SET statement_timeout='25s'; SET enable_seqscan=off; SET enable_hashjoin=off;"
	"SET enable_mergejoin=off; SET synchronous_commit=on;";
static const char reader_settings[] =
	"SET statement_timeout='10s'; SET default_transaction_read_only=on;";

enum ota_code pg_connect(struct postgres_store *s, bool read_only, PGconn **out,
			 struct ota_err *err)
{
	const char *connect_s = getenv("PGCONNECT_TIMEOUT");
	const char *const names[] = {"fallback_application_name",
				     "client_encoding",
				     "connect_timeout",
				     "keepalives_idle",
				     "keepalives_interval",
				     "keepalives_count",
				     "tcp_user_timeout",
				     "dbname",
				     NULL};
	const char *const values[] = {"paku-otad",
				      "UTF8",
				      connect_s && connect_s[0] ? connect_s : CONNECT_S,
				      "15",
				      "5",
				      "3",
				      "20000",
				      s->conninfo[0] ? s->conninfo : NULL,
				      NULL};
	PGconn *c = PQconnectdbParams(names, values, 1);

	if (!c)
		return ota_fail_nomem(err);
	if (PQstatus(c) != CONNECTION_OK) {
		/* The last line is about the last host that was tried; the first is as good. */
		const char *what = PQerrorMessage(c);
		ota_fail(err, OTA_EUNAVAIL, "the database %s cannot be reached: %.*s", s->where,
			 line_of(what), what);
		PQfinish(c);
		return err->code;
	}
	PQsetNoticeReceiver(c, log_notice, NULL);
	if (PQserverVersion(c) < SERVER_LEAST) {
		ota_fail(err, OTA_ECONFLICT,
			 "the database %s is PostgreSQL %d, and this program needs %d or newer",
			 s->where, PQserverVersion(c) / 10000, SERVER_LEAST / 10000);
		PQfinish(c);
		return err->code;
	}
	PGresult *res = pg_run(s, c, settings, 0, NULL, PG_ANSWER_MS, NULL, err);
	PQclear(res);
	if (res) {
		res = pg_run(s, c, read_only ? reader_settings : writer_settings, 0, NULL,
			     PG_ANSWER_MS, NULL, err);
		PQclear(res);
	}
	if (!res || PQsetnonblocking(c, 1) != 0) {
		PQfinish(c);
		return err->code ? err->code : OTA_EUNAVAIL;
	}
	*out = c;
	return OTA_OK;
}
