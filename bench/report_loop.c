/* SPDX-License-Identifier: MIT */
/*
 * bench-report-loop DATABASE SECONDS BATCH
 *
 * What a report costs at the least: a loop that writes what the service writes for it, and does
 * nothing else.  The same schema (the database is one that the service opens too), the same
 * journal and synchronous mode, the service's own statements with values as long, BATCH reports a
 * transaction, devices in the order in which bench-load reports.  bench/run compares the rows that
 * both have written.  Prints one line of JSON.
 */
#include "names.h"

#include "store/sqlite_statements.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

static sqlite3 *db;

static void die(const char *what)
{
	fprintf(stderr, "bench-report-loop: %s: %s\n", what, sqlite3_errmsg(db));
	exit(1);
}

static void exec(const char *sql)
{
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		die(sql);
}

static sqlite3_stmt *prepare(const char *sql)
{
	sqlite3_stmt *st;

	if (sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &st, NULL) != SQLITE_OK)
		die(sql);
	return st;
}

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void run(sqlite3_stmt *st)
{
	if (sqlite3_step(st) != SQLITE_DONE)
		die("writing");
	sqlite3_reset(st);
}

static void bind(sqlite3_stmt *st, int at, const char *text)
{
	sqlite3_bind_text(st, at, text, -1, SQLITE_STATIC);
}

/* Steps 0..3 of an update. */
static const char *const words[] = {"downloading", "downloaded", "installing", "success"};

static sqlite3_stmt *move_attempt, *end_attempt, *insert_event, *put_device;
static char time_text[32];
static uint32_t attempts;

static void note_time(void)
{
	struct timeval tv;
	struct tm tm;

	gettimeofday(&tv, NULL);
	gmtime_r(&tv.tv_sec, &tm);
	size_t n = strftime(time_text, sizeof time_text, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(time_text + n, sizeof time_text - n, ".%06dZ", (int)(tv.tv_usec % 1000000));
}

static int64_t rollout_of(uint32_t i)
{
	return 5 * (int64_t)(i % BENCH_MODELS) + 5;
}

/* The attempt of device I has the number I+1: so bench-fill makes them. */
static void write_attempt(uint32_t i, int step)
{
	sqlite3_stmt *st = step < 3 ? move_attempt : end_attempt;

	sqlite3_bind_int64(st, 1, i + 1);
	bind(st, 4, words[step]);
	if (step == 3)
		sqlite3_bind_int(st, 6, 100);
	bind(st, 7, time_text);
	bind(st, 9, time_text);
	bind(st, 18, step >= 2 ? time_text : NULL);
	if (step == 3) {
		bind(st, 8, time_text);
		sqlite3_bind_int(st, 19, 0);
		sqlite3_bind_int(st, 20, 0);
		sqlite3_bind_int(st, 22, 0);
	}
	run(st);
}

static void write_event(uint32_t i, const char *type, const char *data)
{
	char id[BENCH_ID_SIZE];

	bench_device_id(i, id);
	bind(insert_event, 1, type);
	bind(insert_event, 2, id);
	bind(insert_event, 3, BENCH_NEXT_VERSION);
	sqlite3_bind_int64(insert_event, 4, rollout_of(i));
	bind(insert_event, 5, data);
	bind(insert_event, 6, time_text);
	run(insert_event);
}

static void write_events(uint32_t i, int step)
{
	static const char *const types[] = {"update_started", "update_progressed",
					    "update_progressed", "update_completed"};
	static const char *const gate_types[] = {"device_exposed", "device_at_risk"};
	char token[BENCH_TOKEN_SIZE], data[160];

	bench_token(i, token);
	snprintf(data, sizeof data,
		 "{\"attempt_id\":\"%s\",\"update_id\":%u,\"status\":\"%s\",\"from_version\":\"%"
		 "s\"}",
		 token, i + 1, words[step], BENCH_RUNS_VERSION);
	write_event(i, types[step], data);
	if (step > 1)
		return;
	/* Exposures are numbered as attempts are, and go on after them. */
	snprintf(data, sizeof data,
		 "{\"release_id\":%lld,\"exposure\":%u,\"from\":\"" BENCH_RUNS_VERSION "\"}",
		 (long long)rollout_of(i), attempts + i + 1);
	write_event(i, gate_types[step], data);
}

static void write_device(uint32_t i)
{
	sqlite3_bind_int64(put_device, 1, i + 1);
	bind(put_device, 5, BENCH_NEXT_VERSION);
	sqlite3_bind_int64(put_device, 9, 0);
	sqlite3_bind_int64(put_device, 14, rollout_of(i));
	sqlite3_bind_int(put_device, 17, 0);
	bind(put_device, 27, BENCH_RUNS_VERSION);
	run(put_device);
}

static void report(uint32_t i, int step)
{
	write_attempt(i, step);
	write_events(i, step);
	if (step == 3)
		write_device(i);
}

static uint32_t count_attempts(void)
{
	sqlite3_stmt *st = prepare("SELECT max(id) FROM device_update_status");

	if (sqlite3_step(st) != SQLITE_ROW)
		die("counting");
	uint32_t n = (uint32_t)sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	return n;
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: bench-report-loop DATABASE SECONDS BATCH\n");
		return 2;
	}
	double seconds = strtod(argv[2], NULL);
	uint32_t batch = (uint32_t)strtoul(argv[3], NULL, 10), first = 0;
	uint64_t done = 0;
	int step = 0;

	if (sqlite3_open_v2(argv[1], &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) !=
	    SQLITE_OK)
		die(argv[1]);
	exec("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;"
	     "PRAGMA temp_store=MEMORY; PRAGMA cache_size=-16384;"
	     "PRAGMA wal_autocheckpoint=4000");
	move_attempt = prepare(sqlite_statements[ST_ATTEMPT_MOVE]);
	end_attempt = prepare(sqlite_statements[ST_ATTEMPT_UPDATE]);
	insert_event = prepare(sqlite_statements[ST_EVENT]);
	put_device = prepare(sqlite_statements[ST_DEVICE_SAME]);
	sqlite3_stmt *begin = prepare(sqlite_statements[ST_BEGIN]);
	sqlite3_stmt *commit = prepare(sqlite_statements[ST_COMMIT]);
	attempts = count_attempts();
	double begun = now_s(), now = begun;

	for (; now - begun < seconds && first + batch <= attempts; now = now_s()) {
		note_time();
		run(begin);
		for (uint32_t k = 0; k < batch; k++)
			report(first + k, step);
		run(commit);
		done += batch;
		step = (step + 1) % 4;
		if (step == 0)
			first += batch;
	}
	printf("{\"requests\":%llu,\"seconds\":%.3f,\"per_s\":%.1f}\n", (unsigned long long)done,
	       now - begun, (double)done / (now - begun));
	return 0;
}
