/* SPDX-License-Identifier: MIT */
/*
 * The committer: one thread; takes all commands that wait, makes them durable in one transaction,
 * publishes them to the fleet, and only then answers.  A batch is what piled up during the last
 * write.
 *
 * It also owns the service's slow clock: last_seen is written about once a minute, offers lapse,
 * and a store that failed is probed until it answers.
 */
#pragma once

#include "base/buf.h"
#include "commit/command_list.h"
#include "fleet/fleet.h"
#include "store/store.h"

struct committer;

struct committer_config {
	int64_t poll_interval_s;
	int64_t install_grace_s;
	int64_t max_devices;
	int64_t new_devices_per_second;
	int64_t last_seen_flush_s;
	int64_t max_downloads;     /* attempts that may take a place at once; 0: any number */
	int64_t command_timeout_s; /* how long a command is waited for before it is sent again */
	int64_t keep_days;         /* events and finished attempts; 0: for ever */
	size_t queue_max;          /* commands waiting; beyond it submit refuses */
};

/* Loads the fleet from the store. */
enum ota_code commit_load(struct fleet *f, struct store *s, struct ota_err *err);

/* Starts the thread.  Fleet and store stay the caller's and outlive the committer. */
enum ota_code committer_start(struct fleet *f, struct store *s, const struct committer_config *cfg,
			      struct committer **out, struct ota_err *err);
/* Commits what waits, writes the soft state, ends the thread. */
void committer_stop(struct committer **c);

/*
 * Any thread.  OTA_OK: the command is taken, done() will be called, perhaps before this returns.
 * OTA_EUNAVAIL (queue full, store down, stopping): it is not, *err says why.
 */
enum ota_code committer_submit(struct committer *c, struct command *cmd, struct ota_err *err);
/* The same with several at once, which the thread sees together: one transaction, as far as that
 * goes.  Those that are taken leave LIST, from its front; OTA_OK: all of them. */
enum ota_code committer_submit_list(struct committer *c, struct command_list *list,
				    struct ota_err *err);
/* The same, and waits for the outcome.  Not for HTTP workers. */
enum ota_code committer_run(struct committer *c, struct command *cmd);

/* Rings the eventfd FD whenever releases, rollouts or the great stop have changed; -1: nobody's. */
void committer_ring_on_plan(struct committer *c, int fd);

/* Returns when all that was submitted before it has been answered. */
void committer_barrier(struct committer *c);

/* Whether the thread has gone round within so many milliseconds: it does about each second,
 * but for the time in which the store is in doubt. */
bool committer_alive(struct committer *c, int64_t within_ms);

/* Whether the store takes writes; if not, REASON tells (and since when). */
bool committer_healthy(struct committer *c, char *reason, size_t size);

struct committer_stats {
	int64_t batches, commands, refused, commit_us_total, commit_us_max, queue_length;
	int64_t batch_max;
};
void committer_stats(struct committer *c, struct committer_stats *out);
/* How long transactions take and how many commands they hold, and how attempts ended, in the
 * Prometheus format.  Any thread. */
void committer_write_metrics(struct committer *c, struct buf *b);
/* Attempts that take one of max_downloads places now, as counted in the last round. */
int64_t committer_busy(struct committer *c);

/*
 * A check-in that is nothing new is answered from memory.  With the plan held by the caller: true
 * and *out is the decision (pointers valid while the plan is held; TOKEN is set when it is an
 * offer), or false: submit a COMMAND_CHECKIN.
 */
struct soft_answer {
	struct decision decision;
	const struct release *latest; /* newest of the model, NULL: none */
	char token[ATTEMPT_TOKEN_LEN + 1];
};
bool committer_soft_checkin(struct committer *c, const struct checkin *in, struct soft_answer *out);
struct decide_params committer_decide_params(struct committer *c);

/* --- the gate of a rollout's release; with the plan held --- */

/* Shows it, under a lock: SHOW is quick and calls nothing here.  False: there is none (yet). */
bool committer_gate(struct committer *c, const struct rollout *r,
		    void (*show)(void *ctx, const struct gate *g), void *ctx);
enum gate_standing {
	GATE_STANDING_NONE, /* it has not met the release by what is known */
	GATE_STANDING_PROVEN,
	GATE_STANDING_NOT_PROVEN,
};
enum gate_standing committer_gate_standing(struct committer *c, const struct rollout *r,
					   const struct device *d);
/* D, which is locked, waits for a place of R's gate. */
void committer_note_waiting(struct committer *c, const struct device *d, const struct rollout *r);
/* So many devices are without an outcome: COMMAND_GATE_LOOK may find what became of them. */
int64_t committer_on_trial(struct committer *c);
/* Whether devices can reach us over every door that they use: silence counts only then. */
void committer_hears(struct committer *c, bool hears);
