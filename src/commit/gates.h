/* SPDX-License-Identifier: MIT */
/*
 * Inside the committer: the gates of all releases (core/gate.h), whose device is exposed to what,
 * and how a change of theirs is prepared, made durable as an event, and applied.
 *
 * A release has one gate over all its rollouts; a rollout for named devices, or one that takes
 * another's release back, has one of its own, which halts that rollout alone.  A gate is changed by
 * the committer only, under the lock of all gates, which is a leaf: taken after the plan's and a
 * shard's, and nothing is taken under it.
 */
#pragma once

#include "commit/batch.h"
#include "core/fair.h"
#include "core/gate_silence.h"
#include "core/gate_trial.h"

#include <jansson.h>

enum exposed_outcome { EXPOSED_OPEN, EXPOSED_PROVEN, EXPOSED_FAILED };

/* A device that has met the release: it has one vote.  There are as many as a release has met, for
 * as long as its history is kept: 16 bytes. */
struct exposed {
	int64_t device_id; /* of its row; 0: the slot is free */
	uint32_t
		open; /* its place in the list of those without an outcome, from 1; 0: it has one */
	uint8_t outcome;
	int16_t kind; /* of the order; -1: none */
};

/* A device without an outcome. */
struct on_trial {
	struct device *device;
	int64_t number, rollout_id;
	int64_t since_us; /* it is exposed, or at risk */
	int64_t heard_us; /* silence counts from here, or from its last word: the later */
	struct gate_trial trial;
	bool at_risk;
};

/* A rollout that is done offers its release to latecomers still: so long what it saw is kept. */
#define GATES_KEPT_US (7 * INT64_C(86400) * US_PER_S)

struct watch {
	const struct release *release;
	int64_t rollout_id; /* of the rollout that has its own; 0: of the release */
	struct gate gate;
	struct fair fair;      /* who comes next, where a bound holds */
	struct exposed *slots; /* open addressing, by device */
	size_t cap, count;
	struct on_trial *open;
	size_t open_cap, open_count, reserved;
	size_t looked; /* where the look at them goes on */
	bool halt_written;
	bool outage; /* it was paused for one, and nobody has resumed it */
	struct watch *next;
};

/* One change of a gate, waiting for the commit of its event. */
struct gate_work {
	struct watch *watch;
	struct gate_event event;
	struct gate_place place; /* taken, GATE_EVENT_EXPOSED ... */
	int kind;                /* ... and its kind in the order */
	struct device *device;
	int64_t rollout_id;
	bool made; /* the watch is new */
	struct gate_work *next;
};

void gates_init(struct gates *g);
void gates_fini(struct gates *g);
/* The gate that watches R; NULL: none (yet, or R is not guarded). */
struct watch *gates_find(const struct gates *g, const struct rollout *r);
/* The same, made where it is missing (*MADE); NULL: out of memory. */
struct watch *gates_ensure(struct committer *c, const struct rollout *r, bool *made);
void gates_drop(struct gates *g, struct watch *k);
/* Whether K is the gate that R would have, guarded or not. */
bool gates_is_of(const struct watch *k, const struct rollout *r);
/* What a rollout of the release is watched by, unless its creator says otherwise. */
struct gate_params gates_params(struct committer *c, const struct rollout *r);

/* NULL: the device has not met the release. */
struct exposed *watch_exposed(const struct watch *k, int64_t device_id);
struct on_trial *watch_on_trial(const struct watch *k, const struct exposed *e);
/* Memory for one more; false: there is none. */
OTA_MUST_USE bool watch_reserve(struct watch *k);
/* The gate has the change, which is of the time AT: whose it is.  KIND: what fair_take() said. */
void watch_apply(struct gates *g, struct watch *k, const struct gate_event *e, struct device *d,
		 int kind, int64_t rollout_id, int64_t at_us);
/* Those that wait in the present stages of its bounded rollouts are counted anew, R (NULL: none)
 * being at PERCENT. */
void watch_count_waiting(struct committer *c, struct watch *k, const struct rollout *r,
			 int percent);

/* committer_gate_standing(), for the committer's thread: without the lock. */
enum gate_standing gates_standing(struct committer *c, const struct rollout *r,
				  const struct device *d);
/* When the device was seen, for its trial: by a clock that does not leap when ours is set, and goes
 * from look to look.  What was before the first look, as before a restart, proves nothing. */
int64_t gates_trial_us(const struct gates *g, const struct gate_trial *t, int64_t seen_us);
/* How often the device is heard of. */
int64_t gates_habit_us(const struct committer *c, const struct device *d);
/* decide()'s question; CTX is the committer.  Any thread. */
struct gate_word gates_ask(void *ctx, const struct device *d, const struct rollout *r);

/* --- preparing; false: out of memory --- */

/* An attempt is opened.  *REFUSED: there is no place for it after all. */
OTA_MUST_USE bool gates_note_open(struct committer *c, struct device_work *w,
				  const struct rollout *by, const struct attempt *a, bool *refused);
/* An attempt has moved from the state WAS. */
OTA_MUST_USE bool gates_note_step(struct committer *c, struct device_work *w,
				  enum attempt_state was, const struct attempt *a,
				  const struct attempt_word *word);
/* The device is deleted. */
OTA_MUST_USE bool gates_note_delete(struct committer *c, struct device_work *w);
/* A bounded rollout has come to a stage. */
OTA_MUST_USE bool gates_note_stage(struct committer *c, const struct rollout *r, int stage);
/* A person takes the suspicion off the release, by making R. */
OTA_MUST_USE bool gates_note_override(struct committer *c, const struct rollout *r,
				      const char *reason);

/* --- after the commit --- */

void gates_publish(struct committer *c, struct command *cmd);
void gates_undo(struct committer *c, struct command *cmd);
/* The device gets NEXT: it may have booted. */
void gates_see(struct committer *c, const struct device *d, const struct device_state *next);
/* The device is no more; it has its outcome, or gave its place back. */
void gates_forget(struct committer *c, const struct device *d);
/* Whether devices without an outcome are on trial at a gate of the release. */
bool gates_are_open(const struct gates *g, const struct release *r);
/* The release's history is given up: what its gates saw, too. */
void gates_give_up(struct gates *g, const struct release *r);
/* A gate that has halted, while its rollouts do not say so yet; NULL: none. */
struct watch *gates_halted(const struct gates *g);

/* Whether events called TYPE are the gate's; what their data tell, borrowed from DATA. */
bool gates_read_kind(const char *type, enum gate_event_kind *out);
void gates_read_data(const json_t *data, struct gate_event *out);
/* From the events, at start. */
enum ota_code gates_load(struct committer *c, struct ota_err *err);
