/* SPDX-License-Identifier: MIT */
/*
 * The real fleet, committer and conductor on a clock that the simulation sets, with a store that
 * takes every change and keeps nothing.  What devices and people say are commands, as from a door;
 * several are taken together.  Any failure ends the program with a sentence.
 */
#pragma once

#include "base/clock.h"
#include "conductor/conductor.h"

#define SIM_BATCH   1000
#define SIM_ID_SIZE 16
#define HOUR_US     (3600 * US_PER_S)
#define DAY_US      (24 * HOUR_US)

struct sim_order {
	struct command command;
	uint32_t device; /* the simulation's number of it */
	char id[SIM_ID_SIZE];
};

struct sim {
	struct fleet *fleet;
	struct store *store;
	struct committer *committer;
	struct conductor *conductor;
	uint64_t random;
	/* What is to be said next, and what became of it. */
	struct sim_order *orders;
	size_t count;
	int64_t commands;
};

/* Called for each order that was carried out; may be NULL. */
typedef void sim_done_fn(void *ctx, const struct sim_order *o);

void sim_begin(struct sim *s, const struct committer_config *cfg, uint64_t seed);
void sim_end(struct sim *s);

/* The clock, for the whole program: wall and monotonic time go together. */
int64_t sim_now_us(void);
void sim_pass(int64_t us);
/* As a clock on the wall has it, in seconds; and the processor's, of all threads. */
double sim_real_s(void);
double sim_cpu_s(void);
double sim_peak_mb(void);

/* Evenly from [0, 1). */
double sim_chance(struct sim *s);

/* An order of the kind for the device, all else zero.  There is room as long as sim_is_full() does
 * not say otherwise. */
struct command *sim_order(struct sim *s, enum command_kind kind, uint32_t device);
bool sim_is_full(const struct sim *s);
/* Submits what waits, and returns when all of it is durable. */
void sim_run(struct sim *s, sim_done_fn *done, void *ctx);
/* One command at once; its code is the answer. */
enum ota_code sim_ask(struct sim *s, struct command *cmd);

void sim_id(uint32_t device, char out[SIM_ID_SIZE]);
/* What a device says over MQTT.  VERSION and MODEL must outlive the run. */
void sim_birth(struct sim *s, uint32_t device, const char *model, const char *version);
void sim_last_will(struct sim *s, uint32_t device);
void sim_progress(struct sim *s, uint32_t device, enum attempt_event event);
void sim_result(struct sim *s, uint32_t device, const char *version, bool success, int code);

/* And over HTTP. */
void sim_checkin(struct sim *s, uint32_t device, const char *model, const char *version);
void sim_report(struct sim *s, uint32_t device, const char *version, enum attempt_event event,
		int code);
/* The dispatcher's order to tell it; out.send of what is done says whether it was told. */
void sim_tell(struct sim *s, uint32_t device);

/* What people do.  The id of what was made; or the program ends. */
void sim_upload(struct sim *s, const char *model, const char *version);
int64_t sim_roll_out(struct sim *s, const struct rollout_new *n);
void sim_event(struct sim *s, int64_t rollout_id, enum rollout_event event, const char *reason);
struct walk sim_walk(struct sim *s, int64_t rollout_id);
