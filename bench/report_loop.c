/* SPDX-License-Identifier: MIT */
/*
 * bench-report-loop DATABASE SECONDS BATCH
 *
 * What a report costs at the least: a loop that writes what the service writes for it, and does
 * nothing else.  The same schema (the database is one that the service opens too), the same
 * journal and synchronous mode, the same statements with values as long, BATCH reports a
 * transaction, devices in the order in which bench-load reports.  Prints one line of JSON.
 */
#include "names.h"

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

static const char *const update_attempt_sql =
	"UPDATE device_update_status SET status=?4, error_message=coalesce(?5,error_message),"
	" progress_percent=?6, started_at=coalesce(started_at,?7),"
	" completed_at=iif(?20,NULL,coalesce(?8,completed_at)), reported_at=?9, closed=?13,"
	" closed_why=iif(?20,NULL,coalesce(?14,closed_why)), installing_at=?18, settled=?19"
	" WHERE id=?1";
static const char *const insert_event_sql =
	"INSERT INTO ota_events (event_type, device_id, firmware_version, rollout_id,"
	" event_data, created_at, created_by) VALUES (?1,?2,?3,?4,?5,?6,?7)";
static const char *const put_device_sql =
	"INSERT INTO devices (id, device_id, mac_address, device_model,"
	" current_firmware_version, last_seen, created_at, hw, boot_hash, booted_at,"
	" boot_seen_at, firmware_digest, app_elf_sha256, ran_release_id, ran_as)"
	" VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15)"
	" ON CONFLICT (id) DO UPDATE SET mac_address=?3, device_model=?4,"
	" current_firmware_version=?5, last_seen=?6, hw=?8, boot_hash=?9, booted_at=?10,"
	" boot_seen_at=?11, firmware_digest=?12, app_elf_sha256=?13, ran_release_id=?14,"
	" ran_as=?15";

static sqlite3_stmt *update_attempt, *insert_event, *put_device;
static char time_text[32];

static void note_time(void)
{
	struct timeval tv;
	struct tm tm;

	gettimeofday(&tv, NULL);
	gmtime_r(&tv.tv_sec, &tm);
	size_t n = strftime(time_text, sizeof time_text, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(time_text + n, sizeof time_text - n, ".%06dZ", (int)(tv.tv_usec % 1000000));
}

/* Step 0..3 of device I, whose attempt has the number I+1: so bench-fill makes them. */
static void report(uint32_t i, int step)
{
	static const char *const words[] = {"downloading", "downloaded", "installing", "success"};
	static const char *const types[] = {"update_started", "update_progressed",
					    "update_progressed", "update_completed"};
	char id[BENCH_ID_SIZE], token[BENCH_TOKEN_SIZE], data[160];

	bench_device_id(i, id);
	bench_token(i, token);
	snprintf(data, sizeof data,
		 "{\"attempt_id\":\"%s\",\"update_id\":%u,\"status\":\"%s\",\"from_version\":\"%"
		 "s\"}",
		 token, i + 1, words[step], BENCH_RUNS_VERSION);
	sqlite3_bind_int64(update_attempt, 1, i + 1);
	bind(update_attempt, 4, words[step]);
	if (step == 3)
		sqlite3_bind_int(update_attempt, 6, 100);
	else
		sqlite3_bind_null(update_attempt, 6);
	bind(update_attempt, 7, time_text);
	bind(update_attempt, 8, step == 3 ? time_text : NULL);
	bind(update_attempt, 9, time_text);
	bind(update_attempt, 18, step >= 2 ? time_text : NULL);
	sqlite3_bind_int(update_attempt, 19, 0);
	sqlite3_bind_int(update_attempt, 20, step != 3);
	run(update_attempt);
	bind(insert_event, 1, types[step]);
	bind(insert_event, 2, id);
	bind(insert_event, 3, "1.4.0");
	sqlite3_bind_int64(insert_event, 4, 5 * (i % BENCH_MODELS) + 5);
	bind(insert_event, 5, data);
	bind(insert_event, 6, time_text);
	run(insert_event);
	if (step < 3)
		return;
	sqlite3_bind_int64(put_device, 1, i + 1);
	bind(put_device, 2, id);
	bind(put_device, 4, bench_model(i));
	bind(put_device, 5, "1.4.0");
	bind(put_device, 6, time_text);
	bind(put_device, 7, time_text);
	sqlite3_bind_int64(put_device, 9, 0);
	sqlite3_bind_int64(put_device, 14, 5 * (i % BENCH_MODELS) + 5);
	run(put_device);
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
	     "PRAGMA cache_size=-8192");
	update_attempt = prepare(update_attempt_sql);
	insert_event = prepare(insert_event_sql);
	put_device = prepare(put_device_sql);
	sqlite3_stmt *begin = prepare("BEGIN IMMEDIATE"), *commit = prepare("COMMIT");
	uint32_t attempts = count_attempts();
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
