/* SPDX-License-Identifier: MIT */
/* What is old: looking for it.  The committer's, on its connection. */
#include "store/sql.h"

#include "base/clock.h"

#define LOOK(table, came, prunable)                                                                \
	"SELECT max(e.id), count(*), coalesce(sum(CASE WHEN " prunable                             \
	" THEN 1 ELSE 0 END), 0), min(e." came ") FROM (SELECT * FROM " table                      \
	" WHERE id > $2 ORDER BY id LIMIT "

static bool range_row(struct row *r, void *ctx)
{
	struct prune_range *out = ctx;

	out->upto_id = column_number(r, 0);
	out->rows = column_number(r, 1);
	out->prunable = column_number(r, 2);
	out->oldest_us = column_time_us(r, 3);
	return false;
}

enum ota_code sql_prune_range(struct store *base, enum prune_what what, int64_t after_id,
			      int64_t before_us, int limit, struct prune_range *out,
			      struct ota_err *err)
{
	static const char *const looks[] = {
		[PRUNE_ATTEMPTS] =
			LOOK("device_update_status", "opened_at", PRUNABLE_ATTEMPT("e", "$1")),
		[PRUNE_EVENTS] = LOOK("ota_events", "created_at", PRUNABLE_EVENT("e", "$1")),
	};
	char before[TIME_TEXT_SIZE];
	struct select q;

	*out = (struct prune_range){0};
	time_format(before_us, before);
	select_begin(&q, looks[what]);
	buf_printf(&q.sql, "%d) e", limit);
	/* Numbered as they come in the text: SQLite counts so. */
	select_bind(&q, before, 0);
	select_bind(&q, NULL, after_id);
	return select_run_own(base, &q, range_row, out, err);
}

static bool time_row(struct row *r, void *ctx)
{
	*(int64_t *)ctx = column_time_us(r, 0);
	return false;
}

enum ota_code sql_rollout_last_us(struct store *base, int64_t rollout_id, int64_t *out,
				  struct ota_err *err)
{
	struct select q;

	*out = 0;
	select_begin(&q, "SELECT created_at FROM ota_events");
	where_number(&q, "rollout_id = ?", rollout_id);
	select_limit(&q, "id DESC", 1);
	return select_run_own(base, &q, time_row, out, err);
}
