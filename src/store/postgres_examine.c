/* SPDX-License-Identifier: MIT */
/* PostgreSQL: what its settings mean for what was acknowledged, and its clock. */
#include "store/postgres.h"

#include "base/clock.h"

#include <string.h>

#define CLOCK_WARNS_US (5 * US_PER_S)
#define CLOCK_WRONG_US (60 * US_PER_S)

enum {
	VERSION,
	FSYNC,
	FULL_PAGES,
	CHECKSUMS,
	AUTOVACUUM,
	STANDBY_NAMES,
	STANDBYS,
	SIZE,
	CLOCK,
};

struct examination {
	struct postgres_store *s;
	finding_fn *say;
	void *ctx;
	int64_t asked_us;
};

static void say_clock(struct examination *x, int64_t there_us)
{
	int64_t now_us = clock_wall_us(), ours_us = x->asked_us + (now_us - x->asked_us) / 2;
	int64_t apart_us = there_us > ours_us ? there_us - ours_us : ours_us - there_us;
	/* As far as the answer's own time cannot be to blame. */
	enum finding_level level =
		apart_us - (now_us - x->asked_us) > CLOCK_WRONG_US   ? FINDING_PROBLEM
		: apart_us - (now_us - x->asked_us) > CLOCK_WARNS_US ? FINDING_WARNING
								     : FINDING_OK;

	finding_say(
		x->say, x->ctx, "clock", level,
		level == FINDING_OK ? NULL : "let NTP (chrony, systemd-timesyncd) set both clocks",
		"the database server's clock is %.1f s %s the service's",
		(double)apart_us / (double)US_PER_S, there_us >= ours_us ? "ahead of" : "behind");
}

static void say_replication(struct examination *x, const char *names, int64_t standbys)
{
	if (names[0] && standbys == 0)
		finding_say(x->say, x->ctx, "replication", FINDING_PROBLEM,
			    "start a standby, or reset synchronous_standby_names on the server",
			    "synchronous (%s), and no standby is connected: changes wait for one",
			    names);
	else if (names[0])
		finding_say(x->say, x->ctx, "replication", FINDING_OK, NULL,
			    "synchronous (%s), %lld standbys connected", names,
			    (long long)standbys);
	else if (standbys > 0)
		finding_say(x->say, x->ctx, "replication", FINDING_WARNING,
			    "set synchronous_standby_names on the server, so that no "
			    "acknowledged change is lost when a standby takes over",
			    "asynchronous: %lld standbys are connected, and none is waited for",
			    (long long)standbys);
	else
		finding_say(x->say, x->ctx, "replication", FINDING_OK, NULL,
			    "no standby is connected");
}

static bool setting_row(struct row *r, void *ctx)
{
	struct examination *x = ctx;
	const char *unsafe = NULL;

	if (strcmp(column_text_or_empty(r, FSYNC), "on") != 0)
		unsafe = "fsync";
	else if (strcmp(column_text_or_empty(r, FULL_PAGES), "on") != 0)
		unsafe = "full_page_writes";
	if (unsafe)
		finding_say(x->say, x->ctx, "store", FINDING_PROBLEM,
			    "switch it on in postgresql.conf and reload",
			    "%s is off on the server: a power cut loses what was acknowledged",
			    unsafe);
	else
		finding_say(x->say, x->ctx, "store", FINDING_OK, NULL,
			    "postgresql %s, the database %s has %lld MiB%s",
			    column_text_or_empty(r, VERSION), x->s->where,
			    (long long)(column_number(r, SIZE) >> 20),
			    strcmp(column_text_or_empty(r, CHECKSUMS), "on") == 0
				    ? ", with checksums"
				    : ", without checksums: damage on its disk shows late");
	if (strcmp(column_text_or_empty(r, AUTOVACUUM), "on") != 0)
		finding_say(x->say, x->ctx, "store", FINDING_WARNING,
			    "switch it on in postgresql.conf and reload",
			    "autovacuum is off on the server: tables grow, and queries slow down");
	say_replication(x, column_text_or_empty(r, STANDBY_NAMES), column_number(r, STANDBYS));
	say_clock(x, column_number(r, CLOCK));
	return false;
}

enum ota_code pg_examine(struct store *base, finding_fn *say, void *ctx, struct ota_err *err)
{
	struct examination x = {
		.s = (struct postgres_store *)base,
		.say = say,
		.ctx = ctx,
		.asked_us = clock_wall_us(),
	};
	struct select q;

	select_begin(&q, "SELECT current_setting('server_version'), current_setting('fsync'),"
			 " current_setting('full_page_writes'), current_setting('data_checksums'),"
			 " current_setting('autovacuum'),"
			 " current_setting('synchronous_standby_names'),"
			 " (SELECT count(*) FROM pg_stat_replication),"
			 " pg_database_size(current_database()),"
			 " (extract(epoch FROM clock_timestamp()) * 1000000)::bigint");
	return select_run(base, &q, setting_row, &x, err);
}
