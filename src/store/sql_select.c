/* SPDX-License-Identifier: MIT */
/* A SELECT put together from the filters that are set, and the columns of its rows. */
#include "store/sql.h"

#include "base/clock.h"

#include <assert.h>
#include <string.h>

int column_number_or(struct row *r, int column, int otherwise)
{
	return r->ops->is_null(r, column) ? otherwise : (int)column_number(r, column);
}

int64_t column_time_us(struct row *r, int column)
{
	const char *text = column_time(r, column);
	int64_t us;

	return text && time_parse(text, &us) ? us : 0;
}

const char *column_text_or_empty(struct row *r, int column)
{
	const char *t = column_text(r, column);

	return t ? t : "";
}

void select_begin(struct select *q, const char *head)
{
	memset(q, 0, sizeof *q);
	buf_adds(&q->sql, head);
}

/* WHERE before the first condition, values numbered as they come. */
static void add_condition(struct select *q, const char *condition)
{
	const char *mark = strchr(condition, '?');

	buf_adds(&q->sql, q->filtered ? " AND " : " WHERE ");
	q->filtered = true;
	if (!mark) {
		buf_adds(&q->sql, condition);
		return;
	}
	buf_add(&q->sql, condition, (size_t)(mark - condition));
	buf_printf(&q->sql, "$%d%s", q->count, mark + 1);
}

static void add_value(struct select *q, const char *text, int64_t number)
{
	assert(q->count < (int)(sizeof q->values / sizeof q->values[0]));
	q->values[q->count].text = text;
	q->values[q->count++].number = number;
}

void where_text(struct select *q, const char *condition, const char *text)
{
	if (!text)
		return;
	add_value(q, text, 0);
	add_condition(q, condition);
}

void where_number(struct select *q, const char *condition, int64_t number)
{
	add_value(q, NULL, number);
	add_condition(q, condition);
}

void where_id(struct select *q, const char *condition, int64_t id)
{
	if (id > 0)
		where_number(q, condition, id);
}

void select_value(struct select *q, const char *before, const char *text, int64_t number,
		  const char *after)
{
	add_value(q, text, number);
	buf_printf(&q->sql, "%s$%d%s", before, q->count, after);
}

void select_bind(struct select *q, const char *text, int64_t number)
{
	add_value(q, text, number);
}

void where_fact(struct select *q, const char *condition)
{
	add_condition(q, condition);
}

void select_limit(struct select *q, const char *order, int limit)
{
	buf_printf(&q->sql, " ORDER BY %s LIMIT %d", order, limit);
}

static enum ota_code run(struct store *base, bool own, struct select *q, row_fn *row, void *ctx,
			 struct ota_err *err)
{
	struct sql_store *s = (struct sql_store *)base;
	enum ota_code rc =
		buf_ok(&q->sql) ? s->select(s, own, q, row, ctx, err) : ota_fail_nomem(err);

	buf_fini(&q->sql);
	return rc;
}

enum ota_code select_run(struct store *s, struct select *q, row_fn *row, void *ctx,
			 struct ota_err *err)
{
	return run(s, false, q, row, ctx, err);
}

enum ota_code select_run_own(struct store *s, struct select *q, row_fn *row, void *ctx,
			     struct ota_err *err)
{
	return run(s, true, q, row, ctx, err);
}
