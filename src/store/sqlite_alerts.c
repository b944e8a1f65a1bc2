/* SPDX-License-Identifier: MIT */
/*
 * SQLite: writing alerts, and the messages about them that have not arrived.  Both are few:
 * statements are prepared when they are needed.
 */
#include "store/sqlite.h"

#include "base/clock.h"

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
