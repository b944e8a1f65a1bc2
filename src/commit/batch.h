/* SPDX-License-Identifier: MIT */
/*
 * Inside the committer: one batch, its memory, and what commands prepare.  The committer's thread
 * only.
 *
 * A command is prepared against the fleet as it stands: its changes for the store, and the work
 * that publishes it.  Two commands that touch the same device never share a batch: the later one
 * waits for the next, in order.  A command that changes the plan is a batch by itself.
 */
#pragma once

#include "commit/committer.h"
#include "core/gate_silence.h"
#include "fleet/state.h"

#include <pthread.h>

/* A device's new state, waiting for the commit. */
struct device_work {
	struct device *device;
	struct device_state next;
	bool added;   /* not born before */
	bool removed; /* to be deleted */
	/* A release has another name from now on: taken by the fleet at publication. */
	struct release *learns;
	struct string_list *learnt;
	struct device_work *link;
};

/* A change of the plan, waiting for the commit. */
struct plan_work {
	struct model *model;
	struct release *new_release;
	struct rollout *new_rollout;
	struct rollout *rollout; /* stands elsewhere */
	struct walk walk;
	struct release *release; /* set deleted, or ... */
	bool deleted;
	bool suspects; /* ... suspect since then, 0: not any more */
	int64_t suspect_us;
	const struct release *pruned; /* the history of its rollouts is given up */
	bool stops;                   /* everything is stopped, or goes on ... */
	char *stop_reason;            /* ... when NULL */
	struct group_window *group_window;
	struct plan_work *next;
};

/* The key of the store's state that says since when and why everything is stopped: "TIME REASON".
 */
#define STATE_STOPPED "stopped"
/* What the keys of groups' hours begin with; the group follows, the value is the window's text. */
#define STATE_GROUP_WINDOW "group_window/"

struct chunk;

/* All gates: gates.h. */
struct gates {
	pthread_mutex_t lock;
	struct watch *first;
	struct gate_clock clock;  /* stands while nobody can be heard */
	struct gate_clock steady; /* stands where the time leapt, or nobody looked */
	_Atomic bool deaf;        /* a door is shut */
	_Atomic int64_t open;     /* devices without an outcome, in all */
};

/* All tallies: tally.h. */
struct tallies {
	pthread_mutex_t lock; /* of the list, and of what readers see of each */
	struct tally *first;
};

struct batch {
	struct change_batch store;
	size_t change_cap, group_cap;
	struct chunk *memory; /* strings of the changes; freed with the batch */
	uint64_t number;
	int64_t now_us;
	size_t added;         /* devices that its commands add, not born yet */
	const char *by, *why; /* who asked for what is being prepared, and why */
	/* What it changes in gates. */
	struct gate_work *gates, **gates_end;
};

/* Where the rounds over the fleet are: round.c. */
struct round {
	int64_t started_ms, next_look_ms, next_flush_ms;
	int look_shard;
	int flush_shard; /* FLEET_SHARDS: it is done for now */
};

/* Where the pruning of what is old is: retention.c. */
struct retention {
	int64_t next_pass_ms;
	enum { RETAIN_RELEASES, RETAIN_ATTEMPTS, RETAIN_EVENTS } stage;
	int64_t after_id;         /* of a release or a row: the pass goes on behind it */
	int64_t rows;             /* that a step looks at */
	int64_t attempts, events; /* removed in this pass */
	int64_t anchor_us;        /* the service's time less the monotonic one, as it was found */
	bool under_way;           /* a step is on its way */
};

struct committer {
	struct fleet *fleet;
	struct store *store;
	struct committer_config cfg;
	struct batch batch;
	struct gates gates;
	struct tallies tallies;
	/* Attempts that take a place: counted in rounds over the fleet, and one more for each that
	 * is opened meanwhile.  Read by all. */
	_Atomic int64_t busy;
	int64_t busy_next;
	bool in_round; /* the round is not at its end yet: what is opened may be counted by it or
			  not */
	/* New devices: a bucket of tokens, filled by the second. */
	double new_device_tokens;
	int64_t new_device_filled_ms;
	struct round round;
	struct retention retention;
	_Atomic int64_t ended[ATTEMPT_STATES]; /* attempts since the start, by how they ended */
	struct committer_queue *queue;         /* what other threads see: committer.c */
};

/* What became of a command in preparation. */
enum prepared {
	PREPARED,       /* its changes are in the batch (maybe none) */
	PREPARED_DEFER, /* it touches a device that the batch has touched: next batch */
	PREPARED_FAIL,  /* cmd->code and cmd->err say why; nothing of it is in the batch */
};

/* The kinds of command: one row each in committer.c. */
typedef enum prepared prepare_fn(struct committer *c, struct command *cmd);
prepare_fn prepare_checkin, prepare_report, prepare_fetch, prepare_retry, prepare_lapse,
	prepare_edit, prepare_device_delete, prepare_release_create, prepare_release_delete,
	prepare_rollout_create, prepare_rollout_walk, prepare_flush_seen, prepare_status,
	prepare_dispatch, prepare_rejected, prepare_stop, prepare_group_window, prepare_sent,
	prepare_gate_look, prepare_gate_halt, prepare_count, prepare_alert, prepare_webhook,
	prepare_prune;

/* After the commit: the log, the fleet and the gates get what the command changed. */
void publish_log(const struct batch *b, const struct command *cmd);
void publish(struct committer *c, struct command *cmd);

/* A flush was not written: all of it is to be written again. */
void flush_undo(struct committer *c);

/* Fails the command; returns PREPARED_FAIL. */
enum prepared prepare_fail(struct command *cmd, enum ota_code code, const char *fmt, ...)
	OTA_PRINTF(3, 4);
enum prepared prepare_fail_nomem(struct command *cmd);

/* Gives the batch's memory back, but for its arrays. */
void batch_reset(struct batch *b);
/* Memory until the end of the batch; NULL when there is none. */
void *batch_alloc(struct batch *b, size_t size);
char *batch_strdup(struct batch *b, const char *s);
char *batch_printf(struct batch *b, const char *fmt, ...) OTA_PRINTF(2, 3);
/* Room for one more change of the command being prepared; NULL when out of memory. */
struct change *batch_change(struct batch *b, enum change_kind kind);
/*
 * An event row; DATA_JSON may be NULL and must live as long as the batch.  False: out of memory.
 */
OTA_MUST_USE bool batch_event(struct batch *b, const char *type, const char *device_id,
			      const char *version, int64_t rollout_id, const char *data_json);

/*
 * Takes a device into the command: its state is copied to work->next.  NULL with *defer: the batch
 * has touched it; NULL without: out of memory.
 */
struct device_work *work_on_device(struct committer *c, struct command *cmd, struct device *d,
				   bool *defer);
/* A device that is not there yet; refused (cmd fails, NULL) over the limits. */
struct device_work *work_on_new_device(struct committer *c, struct command *cmd,
				       const char *device_id);
/* Frees what a command's work holds and takes back what it added. */
void work_undo(struct committer *c, struct command *cmd);

/* --- attempts, in attempts.c --- */

/* Opens an attempt of the device at the release, unless its gate has no place after all; TOLD: a
 * command goes out with it.  False: out of memory. */
OTA_MUST_USE bool attempt_open(struct committer *c, struct device_work *w, const struct release *r,
			       const struct rollout *by, bool told);
/* The open attempt is told again now; or (TOLD false) counts its commands anew. */
OTA_MUST_USE bool attempt_tell(struct committer *c, struct device_work *w, bool told);

struct attempt_word {
	enum attempt_event event;
	int percent;       /* -1 */
	const char *error; /* NULL */
	const char *why;   /* for what the service ends: metadata.why */
	bool accepted;     /* the device has the command */
	bool coalesced;    /* progress alone is worth a row once a second */
	int code;          /* the result code of a failure; 0: none was told */
};
enum stepped {
	STEPPED,     /* something changed and is in the batch */
	STEPPED_NOT, /* late or repeated: nothing to write */
	STEPPED_NOMEM,
};
/* Moves attempt A (the device's in memory, or one that the store found) by one event. */
enum stepped attempt_step(struct committer *c, struct device_work *w, const struct attempt *a,
			  const struct attempt_word *word);
/* Ends what the device has open and has not begun (why: metadata.why). */
enum stepped attempt_withdraw(struct committer *c, struct device_work *w, const char *why);
/* Marks the success in memory as seen to be real. */
OTA_MUST_USE bool attempt_settle(struct committer *c, struct device_work *w, const char *runs_as);
/* Its last success stood, and the device has moved on from it by itself: what fails from now on is
 * not in a row with what failed before. */
OTA_MUST_USE bool attempt_success_ends(struct committer *c, struct device_work *w);

/* --- check-ins and status messages, in checkins.c --- */

/*
 * What a device says of itself goes into its state, its attempt, and the offer that follows; OPENS:
 * an offer opens an attempt at once (over MQTT the dispatcher does, at its turn).
 */
OTA_MUST_USE enum ota_code checkin_apply(struct committer *c, struct device_work *w,
					 const struct checkin *in, bool opens, struct ota_err *err);

/* --- MQTT, in presence.c --- */

/* The device was heard VIA; PRESENCE_UNKNOWN leaves what is known.  *changed: it is worth a row. */
OTA_MUST_USE bool link_note(struct committer *c, struct device_work *w, const struct via *via,
			    enum presence presence, bool *changed);

/* The hashes of the newest messages that mattered, to know another copy of one by. */
bool link_has_heard(const struct device_link *l, uint64_t hash); /* l may be NULL, hash 0 */
void link_hear(struct device_link *l, uint64_t hash);

/* Adds the row of the device to the batch, as work->next says. */
OTA_MUST_USE bool put_device(struct committer *c, struct device_work *w);
