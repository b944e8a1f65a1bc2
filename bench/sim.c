/* SPDX-License-Identifier: MIT */
#include "sim.h"

#include "base/hash.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* --- the clock --- */

#define FIRST_US (INT64_C(1798761600) * US_PER_S) /* 2027-01-01 */
/* Ahead of any machine's own: what waits for a time is woken by the next command, not by the
 * kernel's clock. */
#define FIRST_MONO_US (INT64_C(3650) * DAY_US)

static _Atomic int64_t passed_us;

/* The whole program's, in the place of the C library's: every clock that src/ reads. */
int clock_gettime(clockid_t clock, struct timespec *ts)
{
	if (clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC && clock != CLOCK_MONOTONIC_COARSE)
		return (int)syscall(SYS_clock_gettime, clock, ts);
	int64_t us = passed_us + (clock == CLOCK_REALTIME ? FIRST_US : FIRST_MONO_US);

	ts->tv_sec = us / US_PER_S;
	ts->tv_nsec = us % US_PER_S * 1000;
	return 0;
}

int64_t sim_now_us(void)
{
	return passed_us + FIRST_US;
}

void sim_pass(int64_t us)
{
	passed_us += us;
}

double sim_real_s(void)
{
	struct timespec ts;

	(void)syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

double sim_cpu_s(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* Not getrusage()'s: that remembers who started the program, too. */
double sim_peak_mb(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[256];
	long kb = 0;

	while (f && fgets(line, sizeof line, f))
		(void)sscanf(line, "VmHWM: %ld", &kb);
	if (f)
		(void)fclose(f);
	return (double)kb / 1024;
}

static void die(const char *what, const struct ota_err *err)
{
	fprintf(stderr, "bench: %s: %s\n", what, err ? err->msg : "out of memory");
	exit(1);
}

/* --- the store: takes all, keeps when each rollout was last heard of --- */

#define ROLLOUTS_MAX 4096

struct memory_store {
	struct store base;
	int64_t ids[ID_KINDS];
	int64_t last_us[ROLLOUTS_MAX];
};

static void memory_close(struct store **s)
{
	free(*s);
	*s = NULL;
}

static enum ota_code memory_load(struct store *s, const struct store_loader *l, struct ota_err *err)
{
	(void)s;
	(void)l;
	(void)err;
	return OTA_OK;
}

static enum ota_code memory_commit(struct store *s, struct change_batch *b, struct ota_err *err)
{
	struct memory_store *m = (struct memory_store *)s;

	(void)err;
	for (size_t i = 0; i < b->group_count; i++)
		b->groups[i].result = OTA_OK;
	for (size_t i = 0; i < b->change_count; i++) {
		const struct change *c = &b->changes[i];
		if (c->kind == CHANGE_EVENT && c->event.rollout_id < ROLLOUTS_MAX)
			m->last_us[c->event.rollout_id] = c->event.created_us;
	}
	return OTA_OK;
}

static int64_t memory_next_id(struct store *s, enum id_kind kind)
{
	return ++((struct memory_store *)s)->ids[kind];
}

static enum ota_code memory_find(struct store *s, const char *token, const char *device_id,
				 const char *version, struct stored_attempt *out,
				 struct ota_err *err)
{
	(void)s;
	(void)token;
	(void)device_id;
	(void)version;
	(void)out;
	return ota_fail(err, OTA_ENOTFOUND, "nothing is kept");
}

static enum ota_code memory_events(struct store *s, const struct list_query *q,
				   bool (*visit)(void *, const struct row_event *), void *ctx,
				   struct ota_err *err)
{
	(void)s;
	(void)q;
	(void)visit;
	(void)ctx;
	(void)err;
	return OTA_OK;
}

static enum ota_code memory_gate_events(struct store *s, int64_t release_id,
					enum ota_code (*visit)(void *, const struct row_event *,
							       struct ota_err *),
					void *ctx, struct ota_err *err)
{
	(void)s;
	(void)release_id;
	(void)visit;
	(void)ctx;
	(void)err;
	return OTA_OK;
}

static enum ota_code memory_prune_range(struct store *s, enum prune_what what, int64_t after_id,
					int64_t before_us, int limit, struct prune_range *out,
					struct ota_err *err)
{
	(void)s;
	(void)what;
	(void)after_id;
	(void)before_us;
	(void)limit;
	(void)err;
	*out = (struct prune_range){0};
	return OTA_OK;
}

static enum ota_code memory_last_us(struct store *s, int64_t rollout_id, int64_t *out,
				    struct ota_err *err)
{
	(void)err;
	*out = rollout_id < ROLLOUTS_MAX ? ((struct memory_store *)s)->last_us[rollout_id] : 0;
	return OTA_OK;
}

static const char *memory_name(const struct store *s)
{
	(void)s;
	return "memory";
}

/* What is not here is what only doors and alerts call. */
static const struct store_ops memory_ops = {
	.close = memory_close,
	.load = memory_load,
	.commit = memory_commit,
	.next_id = memory_next_id,
	.find_attempt = memory_find,
	.list_events = memory_events,
	.gate_events = memory_gate_events,
	.prune_range = memory_prune_range,
	.rollout_last_us = memory_last_us,
	.name = memory_name,
};

/* --- beginning and end --- */

void sim_begin(struct sim *s, const struct committer_config *cfg, uint64_t seed)
{
	struct memory_store *m = calloc(1, sizeof *m);
	struct ota_err err;

	log_configure(LOG_ERROR, false);
	*s = (struct sim){.random = seed * UINT64_C(0xD1342543DE82EF95)};
	s->orders = calloc(SIM_BATCH, sizeof *s->orders);
	s->fleet = fleet_new();
	if (!m || !s->orders || !s->fleet)
		die("beginning", NULL);
	m->base.ops = &memory_ops;
	s->store = &m->base;
	if (commit_load(s->fleet, s->store, &err) != OTA_OK ||
	    committer_start(s->fleet, s->store, cfg, &s->committer, &err) != OTA_OK)
		die("beginning", &err);
	s->conductor = conductor_new(s->fleet, s->committer);
	if (!s->conductor)
		die("beginning", NULL);
}

void sim_end(struct sim *s)
{
	conductor_free(&s->conductor);
	committer_stop(&s->committer);
	fleet_free(&s->fleet);
	s->store->ops->close(&s->store);
	free(s->orders);
}

/* splitmix64 */
double sim_chance(struct sim *s)
{
	uint64_t z = (s->random += UINT64_C(0x9E3779B97F4A7C15));

	z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
	return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

/* --- orders --- */

struct waiter {
	pthread_mutex_t lock;
	pthread_cond_t all;
	size_t left;
};

static void one_done(struct command *cmd)
{
	struct waiter *w = cmd->owner;

	pthread_mutex_lock(&w->lock);
	if (--w->left == 0)
		pthread_cond_signal(&w->all);
	pthread_mutex_unlock(&w->lock);
}

void sim_id(uint32_t device, char out[SIM_ID_SIZE])
{
	snprintf(out, SIM_ID_SIZE, "device-%07u", (unsigned)device % 10000000);
}

bool sim_is_full(const struct sim *s)
{
	return s->count == SIM_BATCH;
}

struct command *sim_order(struct sim *s, enum command_kind kind, uint32_t device)
{
	struct sim_order *o = &s->orders[s->count++];

	memset(&o->command, 0, COMMAND_CLEARED);
	o->command.kind = kind;
	o->device = device;
	sim_id(device, o->id);
	return &o->command;
}

void sim_run(struct sim *s, sim_done_fn *done, void *ctx)
{
	struct waiter w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, s->count};
	size_t count = s->count;
	struct command_list all;
	struct ota_err err;

	if (count == 0)
		return;
	list_init(&all);
	for (size_t i = 0; i < count; i++) {
		s->orders[i].command.done = one_done;
		s->orders[i].command.owner = &w;
		list_push(&all, &s->orders[i].command);
	}
	if (committer_submit_list(s->committer, &all, &err) != OTA_OK)
		die("submitting", &err);
	pthread_mutex_lock(&w.lock);
	while (w.left > 0)
		pthread_cond_wait(&w.all, &w.lock);
	pthread_mutex_unlock(&w.lock);
	s->commands += (int64_t)count;
	for (size_t i = 0; i < count; i++)
		if (s->orders[i].command.code != OTA_OK)
			die(s->orders[i].id, &s->orders[i].command.err);
	/* What DONE orders is said by the next run. */
	s->count = 0;
	for (size_t i = 0; i < count && done; i++)
		done(ctx, &s->orders[i]);
}

enum ota_code sim_ask(struct sim *s, struct command *cmd)
{
	s->commands++;
	return committer_run(s->committer, cmd);
}

/* --- what devices say --- */

static const struct via by_mqtt = {"paku", TOPIC_FORM_EDGE};

static const char *id_of(const struct command *cmd)
{
	return ((const struct sim_order *)cmd)->id;
}

void sim_birth(struct sim *s, uint32_t device, const char *model, const char *version)
{
	struct command *cmd = sim_order(s, COMMAND_STATUS, device);

	cmd->status = (struct status){
		.facts = {.device_id = id_of(cmd), .model = model, .version = version, .hw = ""},
		.via = by_mqtt,
		.online = true};
}

void sim_last_will(struct sim *s, uint32_t device)
{
	struct command *cmd = sim_order(s, COMMAND_STATUS, device);

	cmd->status = (struct status){
		.facts = {.device_id = id_of(cmd), .model = "", .version = "", .hw = ""},
		.via = by_mqtt};
}

void sim_progress(struct sim *s, uint32_t device, enum attempt_event event)
{
	struct command *cmd = sim_order(s, COMMAND_REPORT, device);

	cmd->report = (struct report){.device_id = id_of(cmd),
				      .event = event,
				      .percent = -1,
				      .accepted = true,
				      .stamped = true,
				      .via = by_mqtt};
}

void sim_result(struct sim *s, uint32_t device, const char *version, bool success, int code)
{
	struct command *cmd = sim_order(s, COMMAND_REPORT, device);

	cmd->report = (struct report){.device_id = id_of(cmd),
				      .version = version,
				      .event = success ? EVENT_REPORT_SUCCESS : EVENT_REPORT_FAILED,
				      .percent = -1,
				      .code = code,
				      .stamped = true,
				      .via = by_mqtt};
}

void sim_checkin(struct sim *s, uint32_t device, const char *model, const char *version)
{
	struct command *cmd = sim_order(s, COMMAND_CHECKIN, device);

	cmd->checkin = (struct checkin){
		.device_id = id_of(cmd), .model = model, .version = version, .hw = ""};
}

void sim_report(struct sim *s, uint32_t device, const char *version, enum attempt_event event,
		int code)
{
	struct command *cmd = sim_order(s, COMMAND_REPORT, device);

	cmd->report = (struct report){.device_id = id_of(cmd),
				      .version = version,
				      .event = event,
				      .percent = -1,
				      .code = code};
}

void sim_tell(struct sim *s, uint32_t device)
{
	struct command *cmd = sim_order(s, COMMAND_DISPATCH, device);

	cmd->dispatch.device_id = id_of(cmd);
}

/* --- what people do --- */

void sim_upload(struct sim *s, const char *model, const char *version)
{
	struct command cmd = {.kind = COMMAND_RELEASE_CREATE,
			      .release = {.version = version,
					  .model = model,
					  .file_path = "",
					  .image_type = "raw",
					  .inner_version = "",
					  .project = "",
					  .file_size = 1 << 20}};
	char both[128];
	int n = snprintf(both, sizeof both, "%s %s", model, version);

	if (!sha256_once(both, (size_t)n, cmd.release.sha256) || sim_ask(s, &cmd) != OTA_OK)
		die("uploading", &cmd.err);
}

int64_t sim_roll_out(struct sim *s, const struct rollout_new *n)
{
	struct command cmd = {.kind = COMMAND_ROLLOUT_CREATE, .rollout = *n};

	if (sim_ask(s, &cmd) != OTA_OK)
		die(n->name, &cmd.err);
	return cmd.out.id;
}

void sim_event(struct sim *s, int64_t rollout_id, enum rollout_event event, const char *reason)
{
	struct command cmd = {.kind = COMMAND_ROLLOUT_WALK,
			      .by = "simulation",
			      .walk = {.id = rollout_id, .event = event, .reason = reason}};

	if (sim_ask(s, &cmd) != OTA_OK)
		die(rollout_event_name(event), &cmd.err);
}

struct walk sim_walk(struct sim *s, int64_t rollout_id)
{
	fleet_plan_read(s->fleet);
	struct walk w = fleet_rollout(s->fleet, rollout_id)->walk;
	fleet_plan_done(s->fleet);
	return w;
}
