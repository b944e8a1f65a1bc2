/* SPDX-License-Identifier: MIT */
/*
 * An outage of six hours in the middle of a good rollout, through the real fleet, committer and
 * conductor (sim.h): is it halted?  Does it stand still until a person resumes it?
 *
 *     bench-outage-sim [--json] [--devices N] [WALKS [KIND...]]
 *
 * Kinds: `broker` (it is away, and the service knows), `uplink` (nobody reaches the service, or its
 * broker, which sees them all go), `sites` (the same of half of them); each but the first over MQTT
 * and over HTTP.  Two hundred and fifty devices a site.  The outage begins when a share of the
 * devices, by chance between 20 and 60 %, has the release; ten minutes after it somebody resumes
 * what was paused.
 */
#include "sim.h"

#include "core/gate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEP_S   30
#define OUTAGE_S (6 * 3600)
#define BACK_S   300         /* within so long all are there again */
#define RESUME_S 600         /* after the end of the outage */
#define WILL_S   90          /* a broker takes so long, at the most, to see that a device is gone */
#define LEAD_S   (24 * 3600) /* the fleet lives before the rollout begins */
#define MOST_S   (7 * 24 * 3600) /* for a rollout */
/* A device drops out once in so long: in a restless fleet, and in one that is always there ... */
#define DROP_LEAST_S (6 * 3600)
#define DROP_MOST_S  (60 * 24 * 3600)
#define AWAY_S       1200 /* ... for up to so long */
#define FAILS        0.005
#define SITE         250
#define MODEL        "esp32"
#define OLD          "1.0.0"
#define NEW          "2.0.0"

enum outage { BROKER, UPLINK, SITES, OUTAGES };
static const struct {
	const char *name;
	enum outage outage;
	bool mqtt;
} kinds[] = {{"broker", BROKER, true},
	     {"uplink-mqtt", UPLINK, true},
	     {"uplink-http", UPLINK, false},
	     {"sites-mqtt", SITES, true},
	     {"sites-http", SITES, false}};
#define KINDS (int)(sizeof kinds / sizeof kinds[0])

/* What a device is about. */
enum doing { RESTS, DOWNLOADS, INSTALLS };

struct box {
	enum doing doing;
	bool runs_new, fails, connected;
	bool owes;       /* how the installation ended, untold */
	bool broke;      /* or that the download broke */
	int64_t due_s;   /* when what it does is done */
	int64_t next_s;  /* its next poll; over MQTT when it is there again */
	int64_t will_s;  /* the broker sees it gone; 0: it has, or it is there */
	int64_t habit_s; /* over HTTP */
};

struct trip {
	struct sim sim;
	enum outage outage;
	bool mqtt, dark;
	uint32_t count;
	struct box *box;
	uint64_t dark_sites; /* a bit each */
	double drop_s;
	int64_t now_s, rollout;
	uint32_t updated;
	int64_t told, told_in_outage;
};

struct trip_end {
	bool halted, paused, completed;
	int64_t told_in_outage, took_s, silent;
};

/* Devices that failed by silence: none is, of this release. */
static void count_silent(void *ctx, const struct gate *g)
{
	*(int64_t *)ctx = gate_view(g).silent;
}

static int64_t by_chance(struct trip *w, int64_t from, int64_t to)
{
	return from + (int64_t)(sim_chance(&w->sim) * (double)(to - from));
}

static void say(struct trip *w, sim_done_fn *done)
{
	sim_run(&w->sim, done, w);
}

static void room(struct trip *w, sim_done_fn *done)
{
	if (w->sim.count + 2 > SIM_BATCH)
		say(w, done);
}

/* --- whom the outage meets --- */

/* It cannot reach the service: neither by its broker, nor over HTTP. */
static bool is_cut_off(const struct trip *w, uint32_t d)
{
	return w->dark && (w->outage == UPLINK ||
			   (w->outage == SITES && (w->dark_sites >> (d / SITE % 64) & 1)));
}

/* It can be heard, and told. */
static bool is_heard(const struct trip *w, uint32_t d)
{
	return !is_cut_off(w, d) && !(w->dark && w->outage == BROKER);
}

/* --- one device --- */

static const char *runs(const struct box *x)
{
	return x->runs_new ? NEW : OLD;
}

static void begin(struct trip *w, uint32_t d)
{
	struct box *x = &w->box[d];

	if (!is_heard(w, d) || x->doing != RESTS)
		return;
	w->told++;
	w->told_in_outage += w->dark;
	x->doing = DOWNLOADS;
	x->due_s = w->now_s + by_chance(w, 20, 180);
	x->fails = sim_chance(&w->sim) < FAILS;
}

static void report(struct trip *w, uint32_t d, enum attempt_event event, int code)
{
	bool ends = event == EVENT_REPORT_FAILED || event == EVENT_REPORT_SUCCESS;

	room(w, NULL);
	if (w->mqtt && ends)
		sim_result(&w->sim, d, NEW, event == EVENT_REPORT_SUCCESS, code);
	else if (w->mqtt)
		sim_progress(&w->sim, d, event);
	else
		sim_report(&w->sim, d, NEW, event, code);
}

/* It is there, and tells what it has not told. */
static void speak(struct trip *w, uint32_t d)
{
	struct box *x = &w->box[d];

	if (x->owes)
		report(w, d, x->fails ? EVENT_REPORT_FAILED : EVENT_REPORT_SUCCESS,
		       x->fails ? 4 : 0);
	else if (x->broke)
		report(w, d, EVENT_REPORT_FAILED, 2);
	x->owes = x->broke = false;
}

static void connect(struct trip *w, uint32_t d)
{
	struct box *x = &w->box[d];

	room(w, NULL);
	x->connected = true;
	x->will_s = 0;
	sim_birth(&w->sim, d, MODEL, runs(x));
	speak(w, d);
}

static void go_on(struct trip *w, uint32_t d)
{
	struct box *x = &w->box[d];

	if (x->doing == DOWNLOADS && is_cut_off(w, d)) {
		x->doing = RESTS;
		x->broke = true;
		return;
	}
	if (w->now_s < x->due_s)
		return;
	if (x->doing == DOWNLOADS) {
		x->doing = INSTALLS;
		x->due_s = w->now_s + by_chance(w, 30, 120);
		if (is_heard(w, d))
			report(w, d, EVENT_REPORT_INSTALLING, 0);
		return;
	}
	x->doing = RESTS;
	x->runs_new = !x->fails;
	x->owes = true;
	w->updated += x->runs_new;
	x->next_s = w->now_s + 10;
	if (w->mqtt && is_heard(w, d))
		connect(w, d);
}

/* Over MQTT: it drops out now and then, and all do that are cut off. */
static void hold_on(struct trip *w, uint32_t d)
{
	struct box *x = &w->box[d];
	bool drops = sim_chance(&w->sim) < (double)STEP_S / w->drop_s && x->doing == RESTS;

	if (w->dark && w->outage == BROKER) {
		x->connected = false; /* nobody hears of it */
		x->next_s = 0;
		return;
	}
	if (x->connected && (drops || is_cut_off(w, d))) {
		x->connected = false;
		x->will_s = w->now_s + by_chance(w, 1, WILL_S);
		x->next_s = w->now_s + by_chance(w, 30, AWAY_S);
	}
	if (x->will_s && w->now_s >= x->will_s) {
		x->will_s = 0;
		room(w, NULL);
		sim_last_will(&w->sim, d);
	}
	if (!x->connected && !is_cut_off(w, d) && x->doing != INSTALLS && w->now_s >= x->next_s)
		connect(w, d);
}

/* Over HTTP it asks now and then: what is new is a command, and then it asks again. */
static bool ask(struct trip *w, uint32_t d, bool *offered)
{
	struct checkin in = {.model = MODEL, .version = runs(&w->box[d]), .hw = ""};
	struct soft_answer a;
	char id[SIM_ID_SIZE];

	sim_id(d, id);
	in.device_id = id;
	fleet_plan_read(w->sim.fleet);
	bool known = committer_soft_checkin(w->sim.committer, &in, &a);
	fleet_plan_done(w->sim.fleet);
	*offered = known && decision_offers(&a.decision);
	return known;
}

static void asked(void *ctx, const struct sim_order *o)
{
	struct trip *w = ctx;
	bool offered;

	if (o->command.kind == COMMAND_CHECKIN && ask(w, o->device, &offered) && offered)
		begin(w, o->device);
	else if (o->command.kind == COMMAND_DISPATCH && o->command.out.send)
		begin(w, o->device);
}

static void poll_service(struct trip *w, uint32_t d)
{
	struct box *x = &w->box[d];
	bool offered;

	if (w->now_s < x->next_s || x->doing != RESTS || is_cut_off(w, d))
		return;
	x->next_s = w->now_s + x->habit_s;
	speak(w, d);
	if (w->sim.count)
		say(w, NULL);
	if (!ask(w, d, &offered)) {
		sim_checkin(&w->sim, d, MODEL, runs(x));
		say(w, asked);
	} else if (offered) {
		begin(w, d);
	}
}

static void live(struct trip *w)
{
	for (uint32_t d = 0; d < w->count; d++) {
		if (w->box[d].doing != RESTS)
			go_on(w, d);
		if (w->mqtt)
			hold_on(w, d);
		else
			poll_service(w, d);
	}
	say(w, NULL);
	for (uint32_t d = 0; d < w->count && w->mqtt && w->rollout; d++) {
		const struct box *x = &w->box[d];
		if (!x->connected || x->runs_new || x->doing != RESTS)
			continue;
		room(w, asked);
		sim_tell(&w->sim, d);
	}
	say(w, asked);
}

/* --- one walk --- */

static void step(struct trip *w)
{
	sim_pass(STEP_S * US_PER_S);
	w->now_s += STEP_S;
	committer_hears(w->sim.committer, !(w->dark && w->outage == BROKER));
	live(w);
	(void)conductor_tick(w->sim.conductor, sim_now_us());
}

static void make_devices(struct trip *w)
{
	for (uint32_t d = 0; d < w->count; d++) {
		struct box *x = &w->box[d];
		*x = (struct box){.habit_s = by_chance(w, 300, 3600)};
		x->next_s = w->mqtt ? 0 : by_chance(w, 0, x->habit_s);
	}
}

/* Half of them, whatever chance says. */
static void choose_sites(struct trip *w)
{
	uint32_t sites = w->count / SITE, dark = 0;

	w->dark_sites = 0;
	while (dark < sites / 2) {
		uint64_t bit = UINT64_C(1) << (uint32_t)(sim_chance(&w->sim) * sites);
		dark += !(w->dark_sites & bit);
		w->dark_sites |= bit;
	}
}

static void roll_out(struct trip *w)
{
	static const struct stage stages[] = {{1, 600, -1, false},
					      {10, 600, -1, false},
					      {50, 600, -1, false},
					      {100, 0, -1, false}};
	const struct rollout_new n = {.name = "walk",
				      .version = NEW,
				      .model = MODEL,
				      .group = "",
				      .type = TARGET_ALL,
				      .percent = 100,
				      .max_attempts = 3,
				      .active = true,
				      .stages = stages,
				      .stage_count = 4,
				      .guard = {.bounded = true, .params = gate_params_default()}};

	sim_upload(&w->sim, MODEL, NEW);
	w->rollout = sim_roll_out(&w->sim, &n);
}

static struct trip_end walk(int kind, uint32_t count, uint64_t seed)
{
	struct committer_config cfg = {.poll_interval_s = 3600,
				       .install_grace_s = 600,
				       .max_devices = 10000000,
				       .new_devices_per_second = 1000000000,
				       .last_seen_flush_s = 60,
				       .command_timeout_s = 60,
				       .queue_max = 100000};
	struct trip w = {.outage = kinds[kind].outage, .mqtt = kinds[kind].mqtt, .count = count};
	struct trip_end end = {0};
	int64_t began_s, dark_from_s = 0;

	sim_begin(&w.sim, &cfg, seed);
	w.box = calloc(count, sizeof *w.box);
	if (!w.box)
		abort();
	make_devices(&w);
	choose_sites(&w);
	w.drop_s = DROP_LEAST_S * pow((double)DROP_MOST_S / DROP_LEAST_S, sim_chance(&w.sim));
	while (w.now_s < LEAD_S)
		step(&w);
	roll_out(&w);
	began_s = w.now_s;
	double when = 0.2 + 0.4 * sim_chance(&w.sim);
	while (w.now_s - began_s < MOST_S && !end.halted && !end.completed) {
		step(&w);
		enum rollout_state state = sim_walk(&w.sim, w.rollout).state;
		if (!dark_from_s && w.updated >= when * count) {
			w.dark = true;
			dark_from_s = w.now_s;
		}
		if (w.dark && w.now_s - dark_from_s >= OUTAGE_S) {
			w.dark = false;
			for (uint32_t d = 0; d < count; d++)
				if (w.mqtt && !w.box[d].connected)
					w.box[d].next_s = w.now_s + by_chance(&w, 0, BACK_S);
		}
		end.halted = state == ROLLOUT_HALTED;
		end.paused |= state == ROLLOUT_PAUSED;
		end.completed = state == ROLLOUT_COMPLETED;
		if (state == ROLLOUT_PAUSED && !w.dark &&
		    w.now_s - dark_from_s >= OUTAGE_S + RESUME_S)
			sim_event(&w.sim, w.rollout, ROLLOUT_RESUME, "all are back");
	}
	if (end.halted && getenv("SIM_WHY"))
		fprintf(stderr, "%s %llu: %s\n", kinds[kind].name, (unsigned long long)seed,
			sim_walk(&w.sim, w.rollout).reason);
	fleet_plan_read(w.sim.fleet);
	(void)committer_gate(w.sim.committer, fleet_rollout(w.sim.fleet, w.rollout), count_silent,
			     &end.silent);
	fleet_plan_done(w.sim.fleet);
	end.told_in_outage = w.told_in_outage;
	end.took_s = w.now_s - began_s;
	sim_end(&w.sim);
	free(w.box);
	return end;
}

static void measure(int kind, uint32_t devices, int walks, bool json)
{
	int64_t silent = 0;
	int halted = 0, paused = 0, completed = 0, still = 0;
	double begun_s = sim_real_s(), took_s = 0;

	for (int i = 0; i < walks; i++) {
		struct trip_end e = walk(kind, devices, (uint64_t)i + 1);
		halted += e.halted;
		paused += e.paused;
		completed += e.completed;
		still += e.told_in_outage == 0;
		silent += e.silent;
		took_s += (double)e.took_s;
		if ((i + 1) % 10 == 0)
			fprintf(stderr, "%s: %d walks in %.0f s\n", kinds[kind].name, i + 1,
				sim_real_s() - begun_s);
	}
	printf(json ? "{\"name\":\"%s\",\"devices\":%u,\"runs\":%d,\"halted\":%d,\"paused\":%d,"
		      "\"told_nobody\":%d,\"completed\":%d,\"silent\":%lld,\"took_h\":%.2f}\n"
		    : "%-12s %u devices, %d walks: %d halted, %d paused, %d told nobody in the "
		      "outage, %d completed; %lld devices counted as silent; %.1f h\n",
	       kinds[kind].name, devices, walks, halted, paused, still, completed,
	       (long long)silent, took_s / 3600 / walks);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	uint32_t devices = 2000;
	bool json = false;
	int i = 1, walks = 30, found = 0;

	for (; i < argc && argv[i][0] == '-'; i++)
		if (strcmp(argv[i], "--json") == 0)
			json = true;
		else if (strcmp(argv[i], "--devices") == 0 && i + 1 < argc)
			devices = (uint32_t)atoi(argv[++i]);
	if (i < argc)
		walks = atoi(argv[i++]);
	for (int k = 0; k < KINDS && walks > 0 && devices >= 2 * SITE && devices <= 64 * SITE;
	     k++) {
		bool wanted = i == argc;
		for (int n = i; n < argc; n++)
			wanted |= strcmp(argv[n], kinds[k].name) == 0;
		if (!wanted)
			continue;
		measure(k, devices, walks, json);
		found++;
	}
	if (found > 0)
		return 0;
	fprintf(stderr,
		"usage: bench-outage-sim [--json] [--devices %d..%d] [WALKS [KIND...]]; kinds:",
		2 * SITE, 64 * SITE);
	for (int k = 0; k < KINDS; k++)
		fprintf(stderr, " %s", kinds[k].name);
	fprintf(stderr, "\n");
	return 2;
}
