/* SPDX-License-Identifier: MIT */
/*
 * bench-mqtt-load: devices at the broker, many on a few connections, one thread.
 *
 *   bench-mqtt-load PORT publish DATABASE|- MESSAGES RATE FROM TO
 *   bench-mqtt-load PORT receive COUNT
 *
 * publish: 200 devices at once play whole updates: accepted, Downloading, Verifying, Installing,
 * result.  Each sends its next message (QoS 1) when the broker has acknowledged the last, and after
 * the result the next device of FROM..TO-1 comes.  RATE 0: as quick as that goes; else so many
 * messages a second, and a message's time counts from when it was due.  Each message is one event
 * in the service's DATABASE: it is over when all are there, and the time of each result is taken
 * when its event is seen.  "-": over when the broker has acknowledged.
 * receive: takes cmd/ota of all devices, says "ready", and is over when COUNT devices were told.
 * Both print one line of JSON; points in time are those of CLOCK_MONOTONIC.
 */
#include "mqtt_link.h"
#include "names.h"

#include <sqlite3.h>
#include <string.h>

#define LINKS   4
#define SLOTS   200
#define STEPS   5
#define MIDS    65536
#define WATCH_S 0.001 /* from one look at the database to the next */

struct slot {
	uint32_t device;
	int step; /* the next; STEPS: take another device */
};

struct link {
	struct client client;
	char id[32];
	struct slot *of[MIDS]; /* by message id: who waits for the acknowledgement */
};

static struct client_config broker = {.host = "127.0.0.1", .user = "", .password = ""};
static struct link links[LINKS];
static struct slot slots[SLOTS];
static uint16_t idle[SLOTS]; /* a ring */
static size_t idle_first, idle_count;
static uint32_t from, to, next_device;
static uint64_t sent, acked, sent_of[STEPS];
static double *due_at; /* of each device's result; 0: not sent, or seen */

/* --- the database --- */

static sqlite3 *db;
static sqlite3_stmt *select_last, *select_told, *select_results;
static int64_t last_id, seen_id;
static uint64_t told; /* events of messages; those of the gate stand between them */
static double *latencies, last_seen_s;
static size_t latency_count;

static sqlite3_stmt *prepare(const char *sql)
{
	sqlite3_stmt *st;

	if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) != SQLITE_OK)
		die(sqlite3_errmsg(db));
	return st;
}

static int64_t select_number(sqlite3_stmt *st)
{
	if (sqlite3_step(st) != SQLITE_ROW)
		die(sqlite3_errmsg(db));
	int64_t n = sqlite3_column_int64(st, 0);
	sqlite3_reset(st);
	return n;
}

static void watch_open(const char *path)
{
	if (strcmp(path, "-") == 0)
		return;
	if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK)
		die(sqlite3_errmsg(db));
	/* It must not checkpoint in the service's stead. */
	sqlite3_exec(db, "PRAGMA query_only=ON; PRAGMA wal_autocheckpoint=0", NULL, NULL, NULL);
	sqlite3_busy_timeout(db, 1000);
	select_last = prepare("SELECT coalesce(max(id),0) FROM ota_events");
	select_told = prepare("SELECT count(*) FROM ota_events WHERE id > ?1 AND id <= ?2"
			      " AND event_type GLOB 'update_*'");
	select_results = prepare("SELECT device_id FROM ota_events WHERE id > ?1 AND id <= ?2"
				 " AND event_type = 'update_completed'");
	last_id = seen_id = select_number(select_last);
}

/* Results whose events are new: the time from when they were due. */
static void watch_results(double now)
{
	int rc;

	sqlite3_bind_int64(select_results, 1, seen_id);
	sqlite3_bind_int64(select_results, 2, last_id);
	while ((rc = sqlite3_step(select_results)) == SQLITE_ROW) {
		const char *id = (const char *)sqlite3_column_text(select_results, 0);
		uint32_t i = (uint32_t)strtoul(id + strcspn(id, "0123456789"), NULL, 10);
		if (i < from || i >= to || due_at[i - from] == 0)
			die("a result is there twice, or is nobody's");
		latencies[latency_count++] = now - due_at[i - from];
		due_at[i - from] = 0;
	}
	if (rc != SQLITE_DONE)
		die(sqlite3_errmsg(db));
	sqlite3_reset(select_results);
	seen_id = last_id;
}

static void watch(bool results)
{
	int64_t id;

	if (!db || (id = select_number(select_last)) == last_id)
		return;
	last_seen_s = now_s();
	sqlite3_bind_int64(select_told, 1, last_id);
	sqlite3_bind_int64(select_told, 2, id);
	told += (uint64_t)select_number(select_told);
	last_id = id;
	if (results)
		watch_results(last_seen_s);
}

/* --- the messages --- */

static const char *message(const struct slot *s, char topic[64], char payload[160])
{
	static const char *const states[] = {"", "Downloading", "Verifying", "Installing"};
	static const char *const ends[STEPS] = {"status", "progress", "progress", "progress",
						"result"};
	char id[BENCH_ID_SIZE];

	bench_device_id(s->device, id);
	snprintf(topic, 64, BENCH_SITE "/edge/%s/ota/%s", id, ends[s->step]);
	switch (s->step) {
	case 0:
		return "{\"timestamp\":1,\"status\":\"accepted\",\"version\":\"" BENCH_NEXT_VERSION
		       "\"}";
	case 4:
		return "{\"timestamp\":3,\"version\":\"" BENCH_NEXT_VERSION "\",\"success\":true,"
		       "\"result_code\":0,\"message\":\"\"}";
	default:
		snprintf(payload, 160,
			 "{\"timestamp\":2,\"state\":\"%s\",\"percent\":%d,\"downloaded\":%d,"
			 "\"total\":1048576,\"elapsed_ms\":%d}",
			 states[s->step], 30 * s->step, 314572 * s->step, 4000 * s->step);
		return payload;
	}
}

static void publish(struct slot *s, double due)
{
	struct link *l = &links[(size_t)(s - slots) % LINKS];
	char topic[64], room[160];
	int mid;

	if (s->step == STEPS) {
		if (next_device == to)
			die("all devices are updated: give it more");
		*s = (struct slot){.device = next_device++};
	}
	const char *payload = message(s, topic, room);
	if (s->step == STEPS - 1)
		due_at[s->device - from] = due;
	int rc = mosquitto_publish_v5(l->client.m, &mid, topic, (int)strlen(payload), payload, 1,
				      false, NULL);
	if (rc != MOSQ_ERR_SUCCESS)
		die(mosquitto_strerror(rc));
	l->of[mid] = s;
	sent_of[s->step++]++;
	sent++;
}

static void on_ack(struct mosquitto *m, void *arg, int mid, int code,
		   const mosquitto_property *properties)
{
	struct client *c = arg;
	struct link *l = c->owner;

	(void)m;
	(void)properties;
	/* Also "no matching subscribers": then nobody collects. */
	if (code != 0)
		die(mosquitto_reason_string(code));
	c->packets++;
	acked++;
	idle[(idle_first + idle_count++) % SLOTS] = (uint16_t)(l->of[mid] - slots);
}

static void on_up(struct client *c)
{
	(void)c; /* it subscribes to nothing */
}

static void links_open(void)
{
	for (int i = 0; i < LINKS; i++) {
		struct link *l = &links[i];
		snprintf(l->id, sizeof l->id, "bench-load-%d", i);
		l->client = (struct client){.on_up = on_up, .owner = l};
		link_open(&l->client, &broker, l->id);
		mosquitto_publish_v5_callback_set(l->client.m, on_ack);
		link_await(&l->client, false);
	}
}

static void links_turn(double wait_s)
{
	struct pollfd p[LINKS];
	struct timespec ts = {0, wait_s > 0 ? (long)(wait_s * 1e9) : 0};

	for (int i = 0; i < LINKS; i++)
		p[i] = client_pollfd(&links[i].client);
	ppoll(p, LINKS, &ts, NULL);
	for (int i = 0; i < LINKS; i++) {
		struct client *c = &links[i].client;
		if (p[i].revents & (POLLIN | POLLHUP | POLLERR))
			while (client_read(c))
				;
		client_write(c);
		if (!c->m)
			die(c->problem);
	}
}

static void publish_all(uint64_t messages, double rate)
{
	double begun = now_s(), look = begun, moved = begun, now;
	uint64_t before = 0;

	while (now = now_s(), acked < messages || (db && told < messages)) {
		double due = rate > 0 ? begun + (double)sent / rate : now;
		while (sent < messages && idle_count > 0 && due <= now) {
			uint16_t i = idle[idle_first];
			idle_first = (idle_first + 1) % SLOTS;
			idle_count--;
			publish(&slots[i], due);
			due = rate > 0 ? begun + (double)sent / rate : now;
		}
		for (int i = 0; i < LINKS; i++)
			client_write(&links[i].client);
		if (db && now >= look) {
			watch(rate > 0);
			look = now + WATCH_S;
		}
		uint64_t done = acked + told;
		if (done != before)
			moved = now;
		before = done;
		if (now - moved > PATIENCE_S)
			die("messages were lost: not all are in the database");
		double wake = sent < messages && idle_count > 0 && due < look ? due : look;
		links_turn(db ? wake - now_s() : 0.01);
	}
	if (!db)
		last_seen_s = now_s();
	if (db && told > messages)
		die("there are more events than messages");
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double latency_ms(double share)
{
	size_t at = (size_t)((double)latency_count * share);

	return latency_count ? latencies[at < latency_count ? at : latency_count - 1] * 1000 : 0;
}

static int run_publish(char **argv)
{
	uint64_t messages = strtoull(argv[1], NULL, 10);
	double rate = strtod(argv[2], NULL);

	from = next_device = (uint32_t)strtoul(argv[3], NULL, 10);
	to = (uint32_t)strtoul(argv[4], NULL, 10);
	due_at = calloc(to - from, sizeof *due_at);
	latencies = calloc(to - from, sizeof *latencies);
	if (to <= from || !due_at || !latencies)
		die("no devices");
	for (size_t i = 0; i < SLOTS; i++) {
		slots[i].step = STEPS;
		idle[idle_count++] = (uint16_t)i;
	}
	watch_open(argv[0]);
	links_open();
	double begun = now_s();
	publish_all(messages, rate);
	qsort(latencies, latency_count, sizeof *latencies, compare);
	printf("{\"messages\":%llu,\"accepted\":%llu,\"results\":%llu,\"begun\":%.6f,"
	       "\"ended\":%.6f,\"per_s\":%.1f,\"p50_ms\":%.2f,\"p99_ms\":%.2f,\"max_ms\":%.2f,"
	       "\"seen\":%zu}\n",
	       (unsigned long long)sent, (unsigned long long)sent_of[0],
	       (unsigned long long)sent_of[STEPS - 1], begun, last_seen_s,
	       (double)messages / (last_seen_s - begun), latency_ms(0.5), latency_ms(0.99),
	       latency_ms(1), latency_count);
	for (int i = 0; i < LINKS; i++)
		client_fini(&links[i].client);
	return 0;
}

/* --- commands --- */

static uint64_t told, again;
static size_t payload_bytes;
static uint8_t *was_told; /* by device */
static uint32_t told_max = 10000000;

static void on_command(struct client *c, const struct mosquitto_message *m)
{
	const char *id = strstr(m->topic, "bench-");
	uint32_t i = id ? (uint32_t)strtoul(id + 6, NULL, 10) : told_max;

	(void)c;
	if (i >= told_max)
		die("a command for a stranger");
	*(was_told[i]++ ? &again : &told) += 1;
	payload_bytes = (size_t)m->payloadlen;
	last_seen_s = now_s();
}

static void on_receiver_up(struct client *c)
{
	/* The last one is where bench-mqtt-loop, whom the broker does not know, may write. */
	char *topics[] = {(char[]){BENCH_SITE "/edge/+/cmd/ota"},
			  (char[]){BENCH_SITE "/edge/+/ota/cmd"}};

	if (mosquitto_subscribe_multiple(c->m, NULL, 2, topics, 1, 0, NULL) != MOSQ_ERR_SUCCESS)
		die("subscribing");
}

static int run_receive(uint64_t count)
{
	struct client c = {.on_up = on_receiver_up, .on_message = on_command};

	was_told = calloc(told_max, 1);
	if (!was_told)
		die("memory");
	link_open(&c, &broker, "bench-receive");
	link_await(&c, true);
	printf("ready\n");
	fflush(stdout);
	for (last_seen_s = now_s(); told < count;) {
		link_turn(&c, 100);
		if (now_s() - last_seen_s > PATIENCE_S)
			die("commands were lost");
	}
	client_fini(&c);
	printf("{\"told\":%llu,\"again\":%llu,\"bytes\":%zu,\"ended\":%.6f}\n",
	       (unsigned long long)told, (unsigned long long)again, payload_bytes, last_seen_s);
	return 0;
}

int main(int argc, char **argv)
{
	static const _Atomic bool never;

	log_configure(LOG_WARNING, false);
	broker.stopping = &never;
	broker.port = argc > 1 ? atoi(argv[1]) : 0;
	mosquitto_lib_init();
	if (argc == 8 && strcmp(argv[2], "publish") == 0)
		return run_publish(argv + 3);
	if (argc == 4 && strcmp(argv[2], "receive") == 0)
		return run_receive(strtoull(argv[3], NULL, 10));
	fprintf(stderr, "usage: bench-mqtt-load PORT publish DATABASE|- MESSAGES RATE FROM TO\n"
			"       bench-mqtt-load PORT receive COUNT\n");
	return 2;
}
