/* SPDX-License-Identifier: MIT */
/* Between postgres_changes.c, which says what a change is in rows, and postgres_rows.c, which sends
 * them. */
#pragma once

#include "store/postgres.h"
#include "store/postgres_statements.h"

/* The rows of one statement: an array for each column. */
struct pg_columns {
	int count; /* rows */
	int next;  /* the column that the next value belongs to */
	struct buf data[PG_COLUMNS_MAX];
};

/* A new row; its values are added in the order of the statement's columns. */
struct pg_columns *pg_begin(struct pg_rows *r, enum pg_statement which);
int pg_row_count(const struct pg_rows *r, enum pg_statement which);
void pg_add_int(struct pg_columns *c, int64_t v);
void pg_add_bool(struct pg_columns *c, bool v);
void pg_add_null(struct pg_columns *c);
void pg_add_bytes(struct pg_columns *c, const void *data, size_t len);
void pg_add_text(struct pg_columns *c, const char *text);  /* NULL is NULL */
void pg_add_known(struct pg_columns *c, const char *text); /* "" too: it was not told */
void pg_add_json(struct pg_columns *c, const char *text);
void pg_add_time(struct pg_columns *c, int64_t us); /* 0 is NULL */
void pg_add_id(struct pg_columns *c, int64_t id);   /* 0 is NULL */
void pg_add_hex(struct pg_columns *c, bool has, const uint8_t *digest);

/* What a change speaks of (two changes with a key in common may touch each other), and the first
 * and the last of its statements. */
#define NO_KEY 0
struct pg_place {
	uint64_t key, other; /* other: NO_KEY, or a second one */
	enum pg_statement first, last;
};
struct pg_place pg_place_of(const struct change *ch);
void pg_put_change(struct pg_rows *r, const struct change *ch);
