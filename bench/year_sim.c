/* SPDX-License-Identifier: MIT */
/*
 * A year of a fleet: every week a release for one of ten models, each in four rollouts that walk by
 * themselves, through the real fleet, committer and conductor (sim.h).
 *
 *     bench-year-sim [--json] [--keep DAYS] [DEVICES]
 *
 * Devices are online over MQTT, drop out about once a month, and do as they are told.  One release
 * in ten is bad: it is tried three times, and halted three times.  Whoever operates the fleet looks
 * once an hour: makes the next rollout when one is completed, and aborts what was halted.
 */
#include "sim.h"

#include "base/hash.h"
#include "core/dispatch.h"
#include "core/gate.h"
#include "core/target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODELS     10
#define PER_MODEL  5 /* releases */
#define RELEASES   (MODELS * PER_MODEL)
#define ROLLOUTS   4  /* of a release */
#define TEST       10 /* named devices, which the first is for */
#define MINUTE_US  (60 * US_PER_S)
#define YEAR_MIN   (365 * 24 * 60)
#define LAST_MIN   (340 * 24 * 60) /* no release begins later */
#define IDLE_MIN   30              /* a step while nobody is on trial */
#define DROP_MIN   (30 * 24 * 60)  /* a device drops out once in so long ... */
#define AWAY_MIN   120             /* ... for up to so long */
#define REPAIR_MIN (7 * 24 * 60)   /* a bricked device is back on what it ran before */
#define AGAIN_MIN  (6 * 60)        /* who was not to be told is asked about again */
#define STUCK_MIN  (5 * 24 * 60)
#define WHEEL      16384 /* minutes ahead that are known; a power of two */

enum fault { GOOD, BRICKS, FAILS, ROLLS_BACK };
/* Of releases that are bad, one in ten; the share of devices for which they are. */
static const struct {
	enum fault fault;
	double share;
} faults[] = {{BRICKS, 1}, {FAILS, 0.2}, {ROLLS_BACK, 0.5}, {BRICKS, 0.1}, {FAILS, 0.05}};
#define GOOD_FAILS 0.005

enum device_is { ONLINE, AWAY, UPDATES, BRICKED };

enum what { BEGINS, INSTALLS, RUNS, BREAKS, GONE, RETURNS, ASKED_ABOUT };

struct coming {
	uint32_t device : 29, what : 3;
};
struct slot {
	struct coming *items;
	uint32_t count, cap;
};

/* Where a device stands in a release's order. */
struct place {
	uint64_t bucket;
	uint32_t device;
};

/* A release and its rollouts. */
struct campaign {
	int model, number; /* of the model's releases, from 1 */
	enum fault fault;
	double share;
	char version[16], name[ROLLOUTS][32];
	int64_t rollouts[ROLLOUTS];
	int made;
	int64_t made_min; /* the last of them */
	bool over;
	struct place *order; /* the model's devices */
	uint32_t next;       /* of them, whose turn it is */
	uint64_t plan;       /* nobody was to be told under this one ... */
	int64_t again_min;   /* ... until then */
};

struct year {
	struct sim sim;
	uint32_t devices;
	uint8_t *is, *runs; /* of each device: enum device_is; the number of its release */
	struct slot wheel[WHEEL];
	int64_t minute;
	struct campaign campaigns[RELEASES];
	char models[MODELS][16];
	int64_t told, updated, harmed, halted, completed;
};

static void *get(size_t count, size_t size)
{
	void *p = calloc(count, size);

	if (!p) {
		fprintf(stderr, "bench-year-sim: out of memory\n");
		exit(1);
	}
	return p;
}

static const char *model_of(const struct year *y, uint32_t device)
{
	return y->models[device % MODELS];
}

static const char *version_name(int number)
{
	static const char *const names[PER_MODEL + 1] = {"1.0.0", "1.1.0", "1.2.0",
							 "1.3.0", "1.4.0", "1.5.0"};

	return names[number];
}

/* --- what devices do --- */

static void comes(struct year *y, int64_t in_min, uint32_t device, enum what what)
{
	struct slot *s = &y->wheel[(y->minute + in_min) & (WHEEL - 1)];

	if (s->count == s->cap) {
		s->cap = s->cap ? s->cap * 2 : 8;
		s->items = realloc(s->items, s->cap * sizeof *s->items);
		if (!s->items)
			abort();
	}
	s->items[s->count++] = (struct coming){device & 0x1FFFFFFF, what};
}

/* The model's newest release that has begun; NULL: none. */
static struct campaign *campaign_of(struct year *y, uint32_t device)
{
	struct campaign *found = NULL;

	for (int i = (int)(device % MODELS); i < RELEASES; i += MODELS)
		if (y->campaigns[i].made)
			found = &y->campaigns[i];
	return found;
}

static void on_done(void *ctx, const struct sim_order *o)
{
	struct year *y = ctx;

	if (o->command.kind != COMMAND_DISPATCH || !o->command.out.send)
		return;
	if (y->is[o->device] != ONLINE)
		return; /* it hears nothing */
	y->told++;
	y->is[o->device] = UPDATES;
	comes(y, 1, o->device, BEGINS);
}

static void say(struct year *y)
{
	sim_run(&y->sim, on_done, y);
}

static void room_for(struct year *y, size_t count)
{
	if (y->sim.count + count > SIM_BATCH)
		say(y);
}

static void be_born(struct year *y, uint32_t d)
{
	sim_birth(&y->sim, d, model_of(y, d), version_name(y->runs[d]));
}

static void run_new(struct year *y, uint32_t d, const struct campaign *c)
{
	uint8_t was = y->runs[d];

	y->is[d] = ONLINE;
	y->runs[d] = (uint8_t)c->number;
	be_born(y, d);
	bool bad = c->fault == ROLLS_BACK && d / MODELS >= TEST && sim_chance(&y->sim) < c->share;
	if (!bad) {
		sim_result(&y->sim, d, c->version, true, 0);
		y->updated++;
		return;
	}
	y->harmed++;
	y->runs[d] = was;
	y->is[d] = UPDATES;
	comes(y, 3, d, RETURNS);
}

static void install(struct year *y, uint32_t d, const struct campaign *c)
{
	bool tested = d / MODELS < TEST; /* what is wrong shows in the field alone */
	double bad = c->fault == FAILS ? c->share : GOOD_FAILS;
	enum what then = RUNS;

	sim_progress(&y->sim, d, EVENT_REPORT_INSTALLING);
	if (!tested && c->fault == BRICKS && sim_chance(&y->sim) < c->share)
		then = GONE;
	else if (!tested && sim_chance(&y->sim) < bad)
		then = BREAKS;
	y->harmed += then == GONE || (then == BREAKS && c->fault == FAILS);
	comes(y, 2, d, then);
}

/* Whether the device is to be told; *WAITS: not now, for there is no place. */
static bool is_due(struct year *y, uint32_t d, bool *waits)
{
	struct decide_params p = committer_decide_params(y->sim.committer);
	struct dispatch_params dp = {p.now_us, 60 * US_PER_S};
	enum dispatch what = DISPATCH_NOTHING;
	char id[SIM_ID_SIZE];

	sim_id(d, id);
	fleet_plan_read(y->sim.fleet);
	const struct device *dev = fleet_lock_device(y->sim.fleet, id);
	if (dev) {
		struct decision x = decide(dev, fleet_model(y->sim.fleet, model_of(y, d)), &p);
		*waits = x.reason == REASON_NO_PLACE;
		if (*waits)
			committer_note_waiting(y->sim.committer, dev, x.rollout);
		what = dispatch_judge(dev, &x, &dp);
		fleet_unlock_device(y->sim.fleet, dev);
	}
	fleet_plan_done(y->sim.fleet);
	return what != DISPATCH_NOTHING;
}

static void happen(struct year *y, struct coming what)
{
	uint32_t d = what.device;
	const struct campaign *c = campaign_of(y, d);
	bool waits;

	room_for(y, 2);
	switch ((enum what)what.what) {
	case BEGINS:
		sim_progress(&y->sim, d, EVENT_REPORT_DOWNLOADING);
		comes(y, 1, d, INSTALLS);
		break;
	case INSTALLS: install(y, d, c); break;
	case RUNS: run_new(y, d, c); break;
	case BREAKS:
		y->is[d] = ONLINE;
		sim_result(&y->sim, d, c->version, false, 4);
		break;
	case GONE:
		y->is[d] = BRICKED;
		sim_last_will(&y->sim, d);
		comes(y, REPAIR_MIN, d, RETURNS);
		break;
	case RETURNS:
		y->is[d] = ONLINE;
		be_born(y, d);
		if (c && c->order && y->runs[d] != c->number)
			comes(y, 1, d, ASKED_ABOUT);
		break;
	case ASKED_ABOUT:
		if (y->is[d] == ONLINE && is_due(y, d, &waits))
			sim_tell(&y->sim, d);
		break;
	}
}

/* Some drop out, for a while. */
static void drop_out(struct year *y, int64_t minutes)
{
	double many = (double)y->devices * (double)minutes / DROP_MIN;

	for (; many > 0; many -= 1) {
		if (many < 1 && sim_chance(&y->sim) >= many)
			break;
		uint32_t d = (uint32_t)(sim_chance(&y->sim) * y->devices);
		if (y->is[d] != ONLINE)
			continue;
		room_for(y, 1);
		y->is[d] = AWAY;
		sim_last_will(&y->sim, d);
		comes(y, 1 + (int64_t)(sim_chance(&y->sim) * AWAY_MIN), d, RETURNS);
	}
}

static void pass(struct year *y, int64_t minutes)
{
	sim_pass(minutes * MINUTE_US);
	for (int64_t i = 0; i < minutes; i++) {
		struct slot s = y->wheel[++y->minute & (WHEEL - 1)];
		y->wheel[y->minute & (WHEEL - 1)] = (struct slot){0};
		for (uint32_t k = 0; k < s.count; k++)
			happen(y, s.items[k]);
		free(s.items);
	}
	drop_out(y, minutes);
	say(y);
}

/* --- the dispatcher's part --- */

static void count_places(void *ctx, const struct gate *g)
{
	const struct gate_line *l = &g->line;
	bool nobody = l->unresolved + l->reserved == 0;
	int64_t free = l->bound - l->unresolved - l->reserved - l->held;

	*(int64_t *)ctx = nobody && free < 1 ? 1 : free;
}

/* How many may be told now, and how many devices the stage has. */
static int64_t places(struct year *y, const struct campaign *c, uint32_t *reach)
{
	int64_t free = TEST; /* of the first, which no gate bounds */

	fleet_plan_read(y->sim.fleet);
	const struct rollout *r = fleet_rollout(y->sim.fleet, c->rollouts[c->made - 1]);
	*reach = y->devices / MODELS / 100 * (uint32_t)r->target.percent;
	if (!r->active)
		free = 0;
	else if (r->guard.bounded)
		(void)committer_gate(y->sim.committer, r, count_places, &free);
	fleet_plan_done(y->sim.fleet);
	return free;
}

#define WAITS_MAX 64 /* so many of those that wait are looked at in a turn */

/* Tells as many as have a place.  Devices are looked at in the order of the release's hash: those
 * of a stage are the first of them. */
static void tell(struct year *y, struct campaign *c)
{
	uint32_t reach, waiting = 0, told = 0;
	int64_t left = places(y, c, &reach);
	bool first = c->made == 1;

	if (left <= 0 || (fleet_plan_number(y->sim.fleet) == c->plan && y->minute < c->again_min))
		return;
	for (uint32_t i = 0; i < reach && left > 0 && waiting < WAITS_MAX; i++) {
		c->next = c->next + 1 < reach ? c->next + 1 : 0;
		uint32_t d = c->order[c->next].device;
		bool waits = false;
		if (y->is[d] != ONLINE || y->runs[d] == c->number || (first && d / MODELS >= TEST))
			continue;
		if (is_due(y, d, &waits)) {
			room_for(y, 1);
			sim_tell(&y->sim, d);
			told++;
			left--;
		}
		waiting += waits;
	}
	say(y);
	if (told + waiting == 0) {
		c->plan = fleet_plan_number(y->sim.fleet);
		c->again_min = y->minute + AGAIN_MIN;
	}
}

static int by_bucket(const void *a, const void *b)
{
	const struct place *x = a, *z = b;

	return (x->bucket > z->bucket) - (x->bucket < z->bucket);
}

static void put_in_order(struct year *y, struct campaign *c)
{
	uint32_t count = y->devices / MODELS;
	struct release r = {.salt = target_salt(y->models[c->model], c->version)};
	char id[SIM_ID_SIZE];

	c->order = get(count, sizeof *c->order);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t d = i * MODELS + (uint32_t)c->model;
		sim_id(d, id);
		struct device dev = {.hash = hash64(id, strlen(id))};
		c->order[i] = (struct place){target_bucket(&dev, &r), d};
	}
	qsort(c->order, count, sizeof *c->order, by_bucket);
}

/* --- whoever operates it --- */

static const struct stage canary[] = {{1, 3600, -1, false}, {10, 86400, -1, false}};
static const struct stage half[] = {{25, 86400, -1, false}, {50, 86400, -1, false}};
static const struct stage all[] = {{100, 0, -1, false}};
static const struct {
	const char *name;
	const struct stage *stages;
	size_t count;
} steps[ROLLOUTS] = {{"test", NULL, 0}, {"canary", canary, 2}, {"half", half, 2}, {"all", all, 1}};

static void make_next(struct year *y, struct campaign *c)
{
	int n = c->made, step = c->fault == GOOD || n == 0 ? n : 1;
	struct rollout_new r = {.name = c->name[n],
				.version = c->version,
				.model = y->models[c->model],
				.group = "",
				.type = TARGET_ALL,
				.percent = 100,
				.max_attempts = 3,
				.active = true,
				.stages = steps[step].stages,
				.stage_count = steps[step].count,
				.guard = {.bounded = n > 0, .params = gate_params_default()}};
	char ids[TEST][SIM_ID_SIZE];
	const char *named[TEST];

	for (uint32_t i = 0; i < TEST; i++) {
		sim_id(i * MODELS + (uint32_t)c->model, ids[i]);
		named[i] = ids[i];
	}
	if (n == 0) {
		r.type = TARGET_SPECIFIC;
		r.device_ids = named;
		r.device_id_count = TEST;
	}
	if (n > 1 && c->fault != GOOD) {
		/* It need not be suspect: it may have stood still. */
		r.override_suspect = true;
		r.reason = "once more";
	}
	snprintf(c->name[n], sizeof c->name[n], "%s %s %s %d", y->models[c->model], c->version,
		 steps[step].name, n);
	c->rollouts[n] = sim_roll_out(&y->sim, &r);
	c->made++;
	c->made_min = y->minute;
	c->plan = 0;
}

static void begin(struct year *y, struct campaign *c)
{
	if (c->number > 1) { /* nobody is told of the one before any more */
		free(c[-MODELS].order);
		c[-MODELS].order = NULL;
	}
	sim_upload(&y->sim, y->models[c->model], c->version);
	put_in_order(y, c);
	make_next(y, c);
}

static bool is_on(struct year *y, int64_t rollout_id)
{
	enum rollout_state state = sim_walk(&y->sim, rollout_id).state;

	return state != ROLLOUT_COMPLETED && state != ROLLOUT_ABORTED;
}

/* What was halted, or stands still for a while as some devices speak against it, is given up. */
static void operate(struct year *y, struct campaign *c)
{
	enum rollout_state state = sim_walk(&y->sim, c->rollouts[c->made - 1]).state;
	bool stuck = state != ROLLOUT_COMPLETED && y->minute - c->made_min > STUCK_MIN;

	if (state != ROLLOUT_COMPLETED && state != ROLLOUT_HALTED && !stuck)
		return;
	y->completed += state == ROLLOUT_COMPLETED;
	y->halted += state == ROLLOUT_HALTED;
	for (int i = 0; i < c->made && state != ROLLOUT_COMPLETED; i++)
		if (is_on(y, c->rollouts[i]))
			sim_event(&y->sim, c->rollouts[i], ROLLOUT_ABORT, "it is given up");
	if (c->made < ROLLOUTS)
		make_next(y, c);
	else
		c->over = true; /* what was completed is offered to latecomers still */
}

static void hour(struct year *y)
{
	for (int i = 0; i < RELEASES; i++) {
		struct campaign *c = &y->campaigns[i];
		if (!c->made && y->minute >= (int64_t)i * LAST_MIN / RELEASES)
			begin(y, c);
		else if (c->made && !c->over)
			operate(y, c);
	}
}

/* --- the year --- */

static void plan(struct year *y)
{
	for (int i = 0; i < MODELS; i++)
		snprintf(y->models[i], sizeof y->models[i], "model-%d", i);
	for (int i = 0; i < RELEASES; i++) {
		struct campaign *c = &y->campaigns[i];
		c->model = i % MODELS;
		c->number = i / MODELS + 1;
		snprintf(c->version, sizeof c->version, "%s", version_name(c->number));
		if (i % 10 != 4 + i / 10)
			continue;
		c->fault = faults[i / 10].fault;
		c->share = faults[i / 10].share;
	}
}

static void register_all(struct year *y)
{
	for (uint32_t d = 0; d < y->devices; d++) {
		room_for(y, 1);
		be_born(y, d);
	}
	say(y);
}

static void show_progress(const struct year *y, double begun_s)
{
	fprintf(stderr,
		"day %3lld: %lld updates, %lld rollouts completed, %lld halted; %.0f s, %.0f s of "
		"a processor, %.0f MB\n",
		(long long)(y->minute / 1440), (long long)y->updated, (long long)y->completed,
		(long long)y->halted, sim_real_s() - begun_s, sim_cpu_s(), sim_peak_mb());
}

static void live(struct year *y, double begun_s)
{
	int64_t month = 0, hours = -1;

	while (y->minute < YEAR_MIN) {
		bool busy = committer_on_trial(y->sim.committer) > 0;
		pass(y, busy ? 1 : IDLE_MIN);
		(void)conductor_tick(y->sim.conductor, sim_now_us());
		if (y->minute / 60 != hours) {
			hours = y->minute / 60;
			hour(y);
		}
		for (int i = 0; i < RELEASES; i++)
			if (y->campaigns[i].order)
				tell(y, &y->campaigns[i]);
		if (y->minute / (30 * 1440) != month) {
			month = y->minute / (30 * 1440);
			show_progress(y, begun_s);
		}
	}
}

static void report(const struct year *y, int64_t keep_days, double begun_s, double fleet_mb,
		   bool json)
{
	int64_t made = 0, newest = 0;

	for (int i = 0; i < RELEASES; i++)
		made += y->campaigns[i].made;
	for (uint32_t d = 0; d < y->devices; d++) {
		/* The last release of its model that is good. */
		int good = 0;
		for (int i = (int)(d % MODELS); i < RELEASES; i += MODELS)
			if (y->campaigns[i].fault == GOOD)
				good = y->campaigns[i].number;
		newest += y->runs[d] >= good;
	}
	printf(json ? "{\"devices\":%u,\"rollouts\":%lld,\"completed\":%lld,\"halted\":%lld,"
		      "\"updates\":%lld,\"harmed\":%lld,\"newest\":%lld,\"commands\":%lld,"
		      "\"wall_s\":%.1f,\"cpu_s\":%.1f,\"fleet_mb\":%.1f,\"peak_mb\":%.1f,\"keep_"
		      "days\":%lld}\n"
		    : "%u devices: %lld rollouts, %lld completed, %lld halted; %lld updates, %lld "
		      "harmed, %lld run the newest good release; %lld commands; %.1f s, %.1f s of "
		      "a processor; %.1f MB when all were there, %.1f MB at the most, what is "
		      "older than %lld days being given up\n",
	       y->devices, (long long)made, (long long)y->completed, (long long)y->halted,
	       (long long)y->updated, (long long)y->harmed, (long long)newest,
	       (long long)y->sim.commands, sim_real_s() - begun_s, sim_cpu_s(), fleet_mb,
	       sim_peak_mb(), (long long)keep_days);
}

int main(int argc, char **argv)
{
	struct committer_config cfg = {.poll_interval_s = 3600,
				       .install_grace_s = 600,
				       .max_devices = 10000000,
				       .new_devices_per_second = 1000000000,
				       .last_seen_flush_s = 60,
				       .command_timeout_s = 60,
				       .keep_days = 90,
				       .queue_max = 100000};
	struct year *y = get(1, sizeof *y);
	double begun_s = sim_real_s();
	bool json = false;
	int i = 1;

	for (; i < argc && argv[i][0] == '-'; i++)
		if (strcmp(argv[i], "--json") == 0)
			json = true;
		else if (strcmp(argv[i], "--keep") == 0 && i + 1 < argc)
			cfg.keep_days = atoi(argv[++i]);
	y->devices = (uint32_t)(i < argc ? atoi(argv[i]) : 1000000) / MODELS * MODELS;
	if (y->devices < MODELS * 2 * TEST || y->devices > 9999999) {
		fprintf(stderr,
			"usage: bench-year-sim [--json] [--keep DAYS] [DEVICES]; at least "
			"%d devices\n",
			MODELS * 2 * TEST);
		return 2;
	}
	y->is = get(y->devices, 1);
	y->runs = get(y->devices, 1);
	plan(y);
	sim_begin(&y->sim, &cfg, 1);
	register_all(y);
	double fleet_mb = sim_peak_mb();
	live(y, begun_s);
	report(y, cfg.keep_days, begun_s, fleet_mb, json);
	sim_end(&y->sim);
	return 0;
}
