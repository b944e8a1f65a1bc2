/* SPDX-License-Identifier: MIT */
/*
 * SQLite: alerts, and the messages about them that have not arrived.  Both are few: statements are
 * prepared when they are needed.
 */
#include "store/sqlite.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

/* A statement and whether all of it went well so far. */
struct stmt {
	sqlite3_stmt *st;
	bool ok;
};

static struct stmt prepare(sqlite3 *db, const char *sql)
{
	struct stmt s = {0};

	s.ok = sqlite3_prepare_v2(db, sql, -1, &s.st, NULL) == SQLITE_OK;
	return s;
}

static void bind_text(struct stmt *s, int at, const char *text)
{
	if (s->ok && text)
		s->ok = sqlite3_bind_text(s->st, at, text, -1, SQLITE_STATIC) == SQLITE_OK;
}

static void bind_int(struct stmt *s, int at, int64_t value)
{
	s->ok = s->ok && sqlite3_bind_int64(s->st, at, value) == SQLITE_OK;
}

static void bind_time(struct stmt *s, int at, int64_t us)
{
	char text[TIME_TEXT_SIZE];

	time_format(us, text);
	s->ok = s->ok && sqlite3_bind_text(s->st, at, text, -1, SQLITE_TRANSIENT) == SQLITE_OK;
}

static bool run(struct stmt *s)
{
	bool ok = s->ok && sqlite3_step(s->st) == SQLITE_DONE;

	sqlite3_finalize(s->st);
	return ok;
}

/* --- writing --- */

static bool raise_alert(struct sqlite_store *s, const struct change *c)
{
	struct stmt st =
		prepare(s->db, "INSERT INTO ota_alerts (id, kind, subject, severity,"
			       " sentence, raised_at, data) VALUES (?1,?2,?3,?4,?5,?6,?7)");

	bind_int(&st, 1, c->alert.id);
	bind_text(&st, 2, alert_kind_names[c->alert.kind]);
	bind_text(&st, 3, c->alert.subject);
	bind_text(&st, 4, alert_severity(c->alert.kind));
	bind_text(&st, 5, c->alert.sentence);
	bind_time(&st, 6, c->alert.at_us);
	bind_text(&st, 7, c->alert.data);
	return run(&st);
}

bool sqlite_write_alert(struct sqlite_store *s, const struct change *c)
{
	bool clears = c->alert.what == ALERT_CLEAR;

	if (c->alert.what == ALERT_RAISE)
		return raise_alert(s, c);
	struct stmt st = prepare(
		s->db, clears ? "UPDATE ota_alerts SET cleared_at=?2 WHERE id=?1"
			      : "UPDATE ota_alerts SET acknowledged_at=?2, acknowledged_by=?3,"
				" acknowledged_reason=?4 WHERE id=?1");
	bind_int(&st, 1, c->alert.id);
	bind_time(&st, 2, c->alert.at_us);
	if (!clears) {
		bind_text(&st, 3, c->alert.by);
		bind_text(&st, 4, c->alert.reason);
	}
	return run(&st);
}

static bool add_webhook(struct sqlite_store *s, const struct change *c)
{
	struct stmt st = prepare(s->db, "INSERT INTO ota_webhooks (alert_id, event, target,"
					" created_at) VALUES (?1,?2,?3,?4)");

	bind_int(&st, 1, c->webhook.alert_id);
	bind_text(&st, 2, c->webhook.cleared ? "cleared" : "raised");
	bind_text(&st, 3, c->webhook.target);
	bind_time(&st, 4, c->webhook.at_us);
	return run(&st);
}

static bool prune_webhooks(struct sqlite_store *s)
{
	struct stmt st =
		prepare(s->db, "DELETE FROM ota_webhooks WHERE given_up_at IS NOT NULL AND id <="
			       " (SELECT max(id) FROM ota_webhooks) - ?1");

	bind_int(&st, 1, WEBHOOKS_KEPT);
	return run(&st);
}

bool sqlite_write_webhook(struct sqlite_store *s, const struct change *c)
{
	static const char *const sql[] = {
		[WEBHOOK_SENT] = "DELETE FROM ota_webhooks WHERE id=?1",
		[WEBHOOK_FAILED] = "UPDATE ota_webhooks SET tries=tries+1,"
				   " last_error=coalesce(?2,last_error) WHERE id=?1",
		[WEBHOOK_GIVEN_UP] = "UPDATE ota_webhooks SET given_up_at=?3,"
				     " last_error=coalesce(?2,last_error) WHERE id=?1",
	};

	if (c->webhook.what == WEBHOOK_ADD)
		return add_webhook(s, c);
	struct stmt st = prepare(s->db, sql[c->webhook.what]);
	bind_int(&st, 1, c->webhook.id);
	if (c->webhook.what != WEBHOOK_SENT)
		bind_text(&st, 2, c->webhook.error);
	if (c->webhook.what == WEBHOOK_GIVEN_UP)
		bind_time(&st, 3, c->webhook.at_us);
	return run(&st) && (c->webhook.what != WEBHOOK_GIVEN_UP || prune_webhooks(s));
}

/* --- reading --- */

enum ota_code sqlite_find_alert(struct store *base, int64_t id, struct stored_alert *out,
				struct ota_err *err)
{
	struct sqlite_store *s = (struct sqlite_store *)base;
	struct stmt st = prepare(s->db, "SELECT kind, subject, acknowledged_at IS NOT NULL,"
					" cleared_at IS NOT NULL FROM ota_alerts WHERE id=?1");
	const char *kind, *subject;
	enum ota_code rc;

	bind_int(&st, 1, id);
	switch (st.ok ? sqlite3_step(st.st) : SQLITE_ERROR) {
	case SQLITE_ROW:
		if (!(kind = sqlite_text(st.st, 0)) || !(subject = sqlite_text(st.st, 1))) {
			rc = ota_fail_nomem(err);
			break;
		}
		out->kind = alert_kind_from_name(kind);
		snprintf(out->subject, sizeof out->subject, "%s", subject);
		out->acknowledged = sqlite3_column_int(st.st, 2);
		out->cleared = sqlite3_column_int(st.st, 3);
		rc = OTA_OK;
		break;
	case SQLITE_DONE:
		rc = ota_fail(err, OTA_ENOTFOUND, "no alert has the id %lld", (long long)id);
		break;
	default: rc = sqlite_fail(s, s->db, "reading", err);
	}
	sqlite3_finalize(st.st);
	return rc;
}

#define ALERT_COLUMNS                                                                              \
	"a.id, a.kind, a.subject, a.severity, a.sentence, a.raised_at, a.acknowledged_at,"         \
	" a.acknowledged_by, a.acknowledged_reason, a.cleared_at, a.data"

static struct row_alert read_alert(sqlite3_stmt *st)
{
	return (struct row_alert){
		.id = sqlite3_column_int64(st, 0),
		.kind = sqlite_text(st, 1),
		.subject = sqlite_text(st, 2),
		.severity = sqlite_text(st, 3),
		.sentence = sqlite_text(st, 4),
		.raised_at = sqlite_text(st, 5),
		.acknowledged_at = sqlite_text(st, 6),
		.acknowledged_by = sqlite_text(st, 7),
		.acknowledged_reason = sqlite_text(st, 8),
		.cleared_at = sqlite_text(st, 9),
		.data = sqlite_text(st, 10),
	};
}

typedef bool alert_fn(void *, const struct row_alert *);
typedef bool webhook_fn(void *, const struct row_webhook *);

/* Runs to the end or until VISIT says no; frees the statement, gives the connection back. */
static enum ota_code visit_rows(struct sqlite_store *s, sqlite3 *db, struct stmt *st,
				bool (*row)(sqlite3_stmt *st, void *visit, void *ctx), void *visit,
				void *ctx, struct ota_err *err)
{
	enum ota_code rc = OTA_OK;
	int step = SQLITE_ERROR;

	while (st->ok && (step = sqlite3_step(st->st)) == SQLITE_ROW)
		if (!row(st->st, visit, ctx))
			break;
	if (step != SQLITE_DONE && step != SQLITE_ROW)
		rc = sqlite_fail(s, db, "reading", err);
	sqlite3_finalize(st->st);
	sqlite_give_back(s, db);
	return rc;
}

static bool alert_row(sqlite3_stmt *st, void *visit, void *ctx)
{
	struct row_alert row = read_alert(st);

	row.waiting = sqlite3_column_int64(st, 11);
	row.given_up = sqlite3_column_int64(st, 12);
	row.last_error = sqlite_text(st, 13);
	return (*(alert_fn **)visit)(ctx, &row);
}

enum ota_code sqlite_list_alerts(struct store *base, const struct list_query *q, alert_fn *visit,
				 void *ctx, struct ota_err *err)
{
	struct sqlite_store *s = (struct sqlite_store *)base;
	sqlite3 *db = sqlite_borrow(s);
	struct stmt st =
		prepare(db, "SELECT " ALERT_COLUMNS
			    ", (SELECT count(*) FROM ota_webhooks w WHERE w.alert_id=a.id"
			    "   AND w.given_up_at IS NULL),"
			    " (SELECT count(*) FROM ota_webhooks w WHERE w.alert_id=a.id"
			    "   AND w.given_up_at IS NOT NULL),"
			    " (SELECT last_error FROM ota_webhooks w WHERE w.alert_id=a.id"
			    "   AND w.last_error IS NOT NULL ORDER BY w.id DESC LIMIT 1)"
			    " FROM ota_alerts a WHERE (?1 < 0 OR (a.cleared_at IS NULL) = ?1)"
			    " AND (?2 IS NULL OR a.kind = ?2) AND (?3 = 0 OR a.id < ?3)"
			    " ORDER BY a.id DESC LIMIT ?4");

	bind_int(&st, 1, q->active);
	bind_text(&st, 2, q->kind);
	bind_int(&st, 3, q->before_id);
	bind_int(&st, 4, q->limit);
	return visit_rows(s, db, &st, alert_row, &visit, ctx, err);
}

static bool webhook_row(sqlite3_stmt *st, void *visit, void *ctx)
{
	const char *event = sqlite_text(st, 12);
	struct row_webhook row = {
		.alert = read_alert(st),
		.id = sqlite3_column_int64(st, 11),
		.alert_id = sqlite3_column_int64(st, 0),
		.cleared = event && strcmp(event, "cleared") == 0,
		.target = sqlite_text(st, 13),
		.tries = sqlite3_column_int64(st, 14),
		.created_us = sqlite_time(st, 15),
	};

	return (*(webhook_fn **)visit)(ctx, &row);
}

enum ota_code sqlite_list_webhooks(struct store *base, const struct webhook_query *q,
				   webhook_fn *visit, void *ctx, struct ota_err *err)
{
	struct sqlite_store *s = (struct sqlite_store *)base;
	sqlite3 *db = sqlite_borrow(s);
	struct stmt st = prepare(
		db, "SELECT " ALERT_COLUMNS ", w.id, w.event, w.target, w.tries, w.created_at"
		    " FROM ota_webhooks w JOIN ota_alerts a ON a.id = w.alert_id"
		    " WHERE w.given_up_at IS NULL AND (?1 IS NULL OR w.target = ?1)"
		    " AND (?2 IS NULL OR w.created_at < ?2) ORDER BY w.tries, w.id LIMIT ?3");

	bind_text(&st, 1, q->target);
	if (q->created_before_us)
		bind_time(&st, 2, q->created_before_us);
	bind_int(&st, 3, q->limit);
	return visit_rows(s, db, &st, webhook_row, &visit, ctx, err);
}

static bool count_row(sqlite3_stmt *st, void *visit, void *ctx)
{
	struct alert_counts *out = ctx;
	const char *text = sqlite_text(st, 0), *name = text ? text : "";
	int64_t n = sqlite3_column_int64(st, 1);
	enum alert_kind kind = alert_kind_from_name(name);

	(void)visit;
	if (strcmp(name, "waiting") == 0)
		out->waiting = n;
	else if (strcmp(name, "given_up") == 0)
		out->given_up = n;
	else if (kind != ALERT_KINDS)
		out->open[kind] = n;
	return true;
}

enum ota_code sqlite_alert_counts(struct store *base, struct alert_counts *out, struct ota_err *err)
{
	struct sqlite_store *s = (struct sqlite_store *)base;
	sqlite3 *db = sqlite_borrow(s);
	struct stmt st = prepare(
		db, "SELECT kind, count(*) FROM ota_alerts WHERE cleared_at IS NULL GROUP BY kind"
		    " UNION ALL SELECT iif(given_up_at IS NULL, 'waiting', 'given_up'), count(*)"
		    " FROM ota_webhooks GROUP BY 1");

	memset(out, 0, sizeof *out);
	return visit_rows(s, db, &st, count_row, NULL, out, err);
}
