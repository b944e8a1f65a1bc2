/* SPDX-License-Identifier: MIT */
/*
 * PostgreSQL: rows become statements.
 *
 * A statement takes its rows in no order, and must not meet one row of a table twice.  So changes
 * go out in waves.  A change belongs to the first wave in which nothing that it could touch, or
 * depend on, has been said already; within a wave statements stand in the order of enum
 * pg_statement.  What could touch each other shares a key: all that is of one device; all releases
 * and rollouts; all alerts and their messages; the service's state.  Events and rejected messages
 * touch nothing.  A batch in which no device says two things is one wave.
 */
#include "store/postgres_rows.h"

#include "base/hash.h"
#include "core/domain.h"

#include <arpa/inet.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>

/* Microseconds from 1970 to 2000, where PostgreSQL's time begins. */
#define EPOCH_US INT64_C(946684800000000)

/* What is known of a key: the last wave in which it was spoken of, and the last statement there. */
struct key {
	uint64_t hash; /* 0: free */
	int wave, statement;
};

struct pg_rows {
	struct pg_columns of[PG_STATEMENTS];
	bool prepared[PG_STATEMENTS];
	struct key *keys;
	size_t key_cap;
	int *waves; /* of each change */
	size_t wave_cap;
};

struct pg_rows *pg_rows_new(void)
{
	return calloc(1, sizeof(struct pg_rows));
}

void pg_rows_free(struct pg_rows *r)
{
	if (!r)
		return;
	for (int i = 0; i < PG_STATEMENTS; i++)
		for (int k = 0; k < PG_COLUMNS_MAX; k++)
			buf_fini(&r->of[i].data[k]);
	free(r->keys);
	free(r->waves);
	free(r);
}

void pg_rows_forget(struct pg_rows *r)
{
	memset(r->prepared, 0, sizeof r->prepared);
}

/* --- values: arrays in PostgreSQL's binary format --- */

static const struct {
	char letter;
	uint32_t element, array; /* OIDs, which never change */
} types[] = {
	{'i', 20, 1016},   /* int8 */
	{'t', 25, 1009},   /* text */
	{'z', 1184, 1185}, /* timestamptz */
	{'b', 16, 1000},   /* bool */
	{'j', 3802, 3807}, /* jsonb */
	{'x', 17, 1001},   /* bytea */
};

static int type_of(char letter)
{
	int i = 0;

	while (types[i].letter != letter)
		i++;
	return i;
}

static void add_word(struct buf *b, uint32_t v)
{
	v = htonl(v);
	buf_add(b, &v, sizeof v);
}

struct pg_columns *pg_begin(struct pg_rows *r, enum pg_statement which)
{
	struct pg_columns *c = &r->of[which];

	if (c->count++ == 0)
		for (int k = 0; pg_statements[which].types[k]; k++) {
			buf_reset(&c->data[k]);
			add_word(&c->data[k], 1); /* dimension */
			add_word(&c->data[k], 1); /* there may be NULLs */
			add_word(&c->data[k],
				 types[type_of(pg_statements[which].types[k])].element);
			add_word(&c->data[k], 0); /* rows: known when it is sent */
			add_word(&c->data[k], 1); /* counted from */
		}
	c->next = 0;
	return c;
}

void pg_add_bytes(struct pg_columns *c, const void *data, size_t len)
{
	struct buf *b = &c->data[c->next++];

	add_word(b, (uint32_t)len);
	buf_add(b, data, len);
}

void pg_add_null(struct pg_columns *c)
{
	add_word(&c->data[c->next++], UINT32_MAX);
}

void pg_add_int(struct pg_columns *c, int64_t v)
{
	uint64_t big = htobe64((uint64_t)v);

	pg_add_bytes(c, &big, sizeof big);
}

void pg_add_bool(struct pg_columns *c, bool v)
{
	char one = v;

	pg_add_bytes(c, &one, 1);
}

void pg_add_text(struct pg_columns *c, const char *text)
{
	if (text)
		pg_add_bytes(c, text, strlen(text));
	else
		pg_add_null(c);
}

/* "" is stored as NULL: it was not told. */
void pg_add_known(struct pg_columns *c, const char *text)
{
	pg_add_text(c, text && text[0] ? text : NULL);
}

void pg_add_json(struct pg_columns *c, const char *text)
{
	if (!text) {
		pg_add_null(c);
		return;
	}
	struct buf *b = &c->data[c->next++];

	add_word(b, (uint32_t)strlen(text) + 1);
	buf_addc(b, 1); /* the format's version */
	buf_adds(b, text);
}

void pg_add_time(struct pg_columns *c, int64_t us)
{
	if (us == 0)
		pg_add_null(c);
	else
		pg_add_int(c, us - EPOCH_US);
}

void pg_add_id(struct pg_columns *c, int64_t id)
{
	if (id)
		pg_add_int(c, id);
	else
		pg_add_null(c);
}

void pg_add_hex(struct pg_columns *c, bool has, const uint8_t *digest)
{
	char hex[SHA256_HEX_SIZE];

	if (!has) {
		pg_add_null(c);
		return;
	}
	hex_encode(digest, DIGEST_SIZE, hex);
	pg_add_text(c, hex);
}

int pg_row_count(const struct pg_rows *r, enum pg_statement which)
{
	return r->of[which].count;
}

/* --- waves --- */

static bool make_room(struct pg_rows *r, size_t changes)
{
	size_t cap = 64;

	while (cap < changes * 4)
		cap *= 2;
	if (cap > r->key_cap) {
		struct key *keys = realloc(r->keys, cap * sizeof *keys);
		if (!keys)
			return false;
		r->keys = keys;
		r->key_cap = cap;
	}
	if (cap > r->wave_cap) {
		int *waves = realloc(r->waves, cap * sizeof *waves);
		if (!waves)
			return false;
		r->waves = waves;
		r->wave_cap = cap;
	}
	memset(r->keys, 0, r->key_cap * sizeof *r->keys);
	return true;
}

/* Two keys that hash alike are one: the later merely waits for a wave of its own. */
static struct key *find_key(struct pg_rows *r, uint64_t hash)
{
	size_t i = hash64_mix(hash) & (r->key_cap - 1);

	while (r->keys[i].hash && r->keys[i].hash != hash)
		i = (i + 1) & (r->key_cap - 1);
	if (!r->keys[i].hash)
		r->keys[i] = (struct key){hash, 0, -1};
	return &r->keys[i];
}

static int wave_of(struct pg_rows *r, const struct change *ch)
{
	struct pg_place p = pg_place_of(ch);

	if (p.key == NO_KEY)
		return 0;
	const uint64_t keys[] = {p.key, p.other};
	int wave = 0;
	for (int i = 0; i < 2 && keys[i]; i++) {
		const struct key *k = find_key(r, keys[i]);
		int least = k->wave + ((int)p.first <= k->statement);
		wave = least > wave ? least : wave;
	}
	for (int i = 0; i < 2 && keys[i]; i++) {
		struct key *k = find_key(r, keys[i]);
		k->wave = wave;
		k->statement = (int)p.last;
	}
	return wave;
}

static bool send_prepare(PGconn *c, enum pg_statement which, const char *name)
{
	const struct pg_statement_text *t = &pg_statements[which];
	struct buf sql = BUF_INIT;
	Oid oids[PG_COLUMNS_MAX];
	int n = (int)strlen(t->types);

	buf_printf(&sql, "%s unnest(", t->head);
	for (int i = 0; i < n; i++) {
		oids[i] = types[type_of(t->types[i])].array;
		buf_printf(&sql, "%s$%d", i ? "," : "", i + 1);
	}
	buf_printf(&sql, ") AS n(%s) %s", t->names, t->tail);
	bool ok = buf_ok(&sql) && PQsendPrepare(c, name, sql.data, n, oids);
	buf_fini(&sql);
	return ok;
}

static bool send_rows(struct pg_rows *r, PGconn *c, enum pg_statement which, int *sent)
{
	struct pg_columns *rows = &r->of[which];
	const char *values[PG_COLUMNS_MAX];
	int lengths[PG_COLUMNS_MAX], formats[PG_COLUMNS_MAX];
	int n = (int)strlen(pg_statements[which].types);
	uint32_t count = htonl((uint32_t)rows->count);
	char name[16];

	snprintf(name, sizeof name, "w%d", (int)which);
	if (!r->prepared[which]) {
		if (!send_prepare(c, which, name))
			return false;
		r->prepared[which] = true; /* if it was not after all, then all is forgotten */
		++*sent;
	}
	for (int i = 0; i < n; i++) {
		if (!buf_ok(&rows->data[i]))
			return false;
		memcpy(rows->data[i].data + 12, &count, sizeof count);
		values[i] = rows->data[i].data;
		lengths[i] = (int)rows->data[i].len;
		formats[i] = 1;
	}
	++*sent;
	rows->count = 0;
	return PQsendQueryPrepared(c, name, n, values, lengths, formats, 0) != 0;
}

bool pg_rows_send(struct pg_rows *r, PGconn *c, const struct change_batch *b, size_t from,
		  size_t to, int *sent)
{
	if (from == to)
		return true;
	const struct change_group *last = &b->groups[to - 1];
	size_t first = b->groups[from].first, end = last->first + last->count;
	int waves = 0;

	if (!make_room(r, end - first))
		return false;
	for (size_t i = first; i < end; i++) {
		r->waves[i - first] = wave_of(r, &b->changes[i]);
		if (r->waves[i - first] >= waves)
			waves = r->waves[i - first] + 1;
	}
	for (int s = 0; s < PG_STATEMENTS; s++)
		r->of[s].count = 0;
	for (int w = 0; w < waves; w++) {
		for (size_t i = first; i < end; i++)
			if (r->waves[i - first] == w)
				pg_put_change(r, &b->changes[i]);
		for (int s = 0; s < PG_STATEMENTS; s++)
			if (r->of[s].count && !send_rows(r, c, (enum pg_statement)s, sent))
				return false;
	}
	return true;
}
