/* SPDX-License-Identifier: MIT */
/* Alerts, and the messages about them that have not arrived: reading. */
#include "store/sql.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

#define ALERT_COLUMNS                                                                              \
	"a.id, a.kind, a.subject, a.severity, a.sentence, a.raised_at, a.acknowledged_at,"         \
	" a.acknowledged_by, a.acknowledged_reason, a.cleared_at, a.data"

static struct row_alert read_alert(struct row *r)
{
	return (struct row_alert){
		.id = column_number(r, 0),
		.kind = column_text(r, 1),
		.subject = column_text(r, 2),
		.severity = column_text(r, 3),
		.sentence = column_text(r, 4),
		.raised_at = column_time(r, 5),
		.acknowledged_at = column_time(r, 6),
		.acknowledged_by = column_text(r, 7),
		.acknowledged_reason = column_text(r, 8),
		.cleared_at = column_time(r, 9),
		.data = column_text(r, 10),
	};
}

typedef bool alert_fn(void *, const struct row_alert *);
typedef bool webhook_fn(void *, const struct row_webhook *);

struct alert_visit {
	alert_fn *visit;
	void *ctx;
};

static bool alert_row(struct row *r, void *ctx)
{
	struct alert_visit *v = ctx;
	struct row_alert row = read_alert(r);

	row.waiting = column_number(r, 11);
	row.given_up = column_number(r, 12);
	row.last_error = column_text(r, 13);
	return v->visit(v->ctx, &row);
}

enum ota_code sql_list_alerts(struct store *base, const struct list_query *q, alert_fn *visit,
			      void *ctx, struct ota_err *err)
{
	struct alert_visit v = {visit, ctx};
	struct select sel;

	select_begin(&sel, "SELECT " ALERT_COLUMNS
			   ", (SELECT count(*) FROM ota_webhooks w WHERE w.alert_id=a.id"
			   "   AND w.given_up_at IS NULL),"
			   " (SELECT count(*) FROM ota_webhooks w WHERE w.alert_id=a.id"
			   "   AND w.given_up_at IS NOT NULL),"
			   " (SELECT last_error FROM ota_webhooks w WHERE w.alert_id=a.id"
			   "   AND w.last_error IS NOT NULL ORDER BY w.id DESC LIMIT 1)"
			   " FROM ota_alerts a");
	if (q->active >= 0)
		where_fact(&sel, q->active ? "a.cleared_at IS NULL" : "a.cleared_at IS NOT NULL");
	where_text(&sel, "a.kind = ?", q->kind);
	where_id(&sel, "a.id < ?", q->before_id);
	select_limit(&sel, "a.id DESC", q->limit);
	return select_run(base, &sel, alert_row, &v, err);
}

struct webhook_visit {
	webhook_fn *visit;
	void *ctx;
};

static bool webhook_row(struct row *r, void *ctx)
{
	struct webhook_visit *v = ctx;
	struct row_webhook row = {
		.alert = read_alert(r),
		.id = column_number(r, 11),
		.alert_id = column_number(r, 0),
		.cleared = strcmp(column_text_or_empty(r, 12), "cleared") == 0,
		.target = column_text(r, 13),
		.tries = column_number(r, 14),
		.created_us = column_time_us(r, 15),
	};

	return v->visit(v->ctx, &row);
}

enum ota_code sql_list_webhooks(struct store *base, const struct webhook_query *q,
				webhook_fn *visit, void *ctx, struct ota_err *err)
{
	struct webhook_visit v = {visit, ctx};
	char before[TIME_TEXT_SIZE];
	struct select sel;

	select_begin(&sel,
		     "SELECT " ALERT_COLUMNS ", w.id, w.event, w.target, w.tries, w.created_at"
		     " FROM ota_webhooks w JOIN ota_alerts a ON a.id = w.alert_id");
	where_fact(&sel, "w.given_up_at IS NULL");
	where_text(&sel, "w.target = ?", q->target);
	if (q->created_before_us) {
		time_format(q->created_before_us, before);
		where_text(&sel, "w.created_at < ?", before);
	}
	select_limit(&sel, "w.tries, w.id", q->limit);
	return select_run(base, &sel, webhook_row, &v, err);
}

static bool count_row(struct row *r, void *ctx)
{
	struct alert_counts *out = ctx;
	const char *name = column_text_or_empty(r, 0);
	int64_t n = column_number(r, 1);
	enum alert_kind kind = alert_kind_from_name(name);

	if (strcmp(name, "waiting") == 0)
		out->waiting = n;
	else if (strcmp(name, "given_up") == 0)
		out->given_up = n;
	else if (kind != ALERT_KINDS)
		out->open[kind] = n;
	return true;
}

enum ota_code sql_alert_counts(struct store *base, struct alert_counts *out, struct ota_err *err)
{
	struct select sel;

	memset(out, 0, sizeof *out);
	select_begin(&sel,
		     "SELECT kind, count(*) FROM ota_alerts WHERE cleared_at IS NULL GROUP BY kind"
		     " UNION ALL SELECT CASE WHEN given_up_at IS NULL THEN 'waiting'"
		     " ELSE 'given_up' END, count(*) FROM ota_webhooks GROUP BY 1");
	return select_run(base, &sel, count_row, out, err);
}

struct found_alert {
	struct stored_alert *out;
	bool found, whole;
};

static bool found_row(struct row *r, void *ctx)
{
	struct found_alert *f = ctx;
	const char *kind = column_text(r, 0), *subject = column_text(r, 1);

	f->found = true;
	f->whole = kind && subject;
	if (!f->whole)
		return false;
	f->out->kind = alert_kind_from_name(kind);
	snprintf(f->out->subject, sizeof f->out->subject, "%s", subject);
	f->out->acknowledged = column_number(r, 2) != 0;
	f->out->cleared = column_number(r, 3) != 0;
	return false;
}

enum ota_code sql_find_alert(struct store *base, int64_t id, struct stored_alert *out,
			     struct ota_err *err)
{
	struct found_alert f = {.out = out};
	struct select sel;

	select_begin(&sel, "SELECT kind, subject, acknowledged_at IS NOT NULL,"
			   " cleared_at IS NOT NULL FROM ota_alerts");
	where_number(&sel, "id = ?", id);
	enum ota_code rc = select_run_own(base, &sel, found_row, &f, err);
	if (rc != OTA_OK)
		return rc;
	if (!f.found)
		return ota_fail(err, OTA_ENOTFOUND, "no alert has the id %lld", (long long)id);
	return f.whole ? OTA_OK : ota_fail_nomem(err);
}
