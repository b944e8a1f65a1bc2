/* SPDX-License-Identifier: MIT */
/*
 * The domain as plain structs: devices, releases, rollouts, attempts.
 *
 * Who owns what: `fleet` allocates these and frees them.  Strings in a device are interned
 * (fleet/intern.h) and never NULL ("" is unknown).  Who may touch what:
 *  - release, rollout, model: written by the committer under the plan's write lock, read under its
 * read lock; lowest_hash is atomic, because devices come and go without a change of plan;
 *  - device.state: replaced whole by the committer under the device's shard lock, read under it
 * (the committer, being the only writer, reads without);
 *  - device.last_seen_us and seen_dirty: atomic, soft state that any thread may set;
 *  - device.next: under the shard lock; device.batch: the committer's alone;
 *  - the rest of a device never changes while it lives.
 */
#pragma once

#include "core/attempt.h"
#include "core/chip.h"
#include "core/gate_params.h"
#include "core/window.h"

#include <stddef.h>
#include <stdint.h>

/* What a device says of a failure; core/retry.h. */
#define RESULT_CODE_NONE 0 /* none told: success is no failure's code */
#define RESULT_CODE_LAST 11

/* last_seen of a device that is known by the broker's retained copy alone. */
#define LAST_SEEN_NEVER_US 1

#define DIGEST_SIZE       32
#define LEARNT_MAX        64 /* names that a release learns */
#define HEARD_MAX         8 /* messages whose copies are known: all that one try moves by, and more */
#define ATTEMPT_TOKEN_LEN 13 /* base 32, 65 bits of chance */

/* How a device is spoken to over MQTT: the form of its topics, which it chose by speaking first. */
enum topic_form {
	TOPIC_FORM_NONE,    /* it was never heard over MQTT */
	TOPIC_FORM_EDGE,    /* {site}/edge/{device_id}/... */
	TOPIC_FORM_DEVICES, /* {site}/devices/{device_id}/..., older devices */
};

/* An attempt in memory: open, or a success whose device has not yet been seen running the release.
 */
struct attempt {
	int64_t id;
	int64_t release_id, rollout_id; /* 0: none */
	enum attempt_state state;
	bool unsolicited;
	bool settled;          /* the device was seen running the release */
	int percent;           /* -1: never told */
	int64_t opened_us;     /* metadata for lapses and started_at */
	int64_t reported_us;   /* the service's time of the last report */
	int64_t installing_us; /* when installing, or success without it, was first told; 0: not yet
				*/
	/* How it was told over MQTT; 0: not yet. */
	int64_t commanded_us;     /* when last; written before the command is sent */
	int64_t accepted_us;      /* when the device first said that it has it */
	int commands;             /* how often, since the device was last seen to come online */
	const char *version;      /* the target version, interned */
	const char *from_version; /* what the device ran when it was opened, interned */
	char token[ATTEMPT_TOKEN_LEN + 1]; /* "" for unsolicited ones */
};

struct device_digests {
	bool has_firmware, has_elf;
	uint8_t firmware[DIGEST_SIZE]; /* the image digest, or the file's SHA-256 */
	uint8_t elf[DIGEST_SIZE];
};

/* Failures in a row of one device at one release. */
struct failure_count {
	int64_t release_id;
	int count;   /* towards max_attempts */
	int passing; /* those that say nothing of the image; core/retry.h */
	int code;    /* the last one's result code; 0: none told */
};

enum presence { PRESENCE_UNKNOWN, PRESENCE_ONLINE, PRESENCE_OFFLINE };

/* A device that was heard over MQTT: where it is spoken to, and whether it is there. */
struct device_link {
	const char *site; /* interned */
	enum topic_form form;
	enum presence presence;
	int64_t presence_us;    /* since when; 0: unknown */
	int64_t silent_us;      /* it answered no command by then; 0: never so */
	const char *other_site; /* interned; "" but for an id that is live on two sites ... */
	int64_t conflict_us;    /* ... as was last seen then */
	/* The newest messages that moved or ended an attempt, by their hashes: copies are known. */
	uint64_t heard[HEARD_MAX]; /* the newest first; 0: none */
	int64_t heard_us;          /* when the newest about an attempt came; 0: never */
};

struct string_list {
	size_t count;
	const char *items[]; /* interned */
};

struct device_state {
	const char *model, *version, *hw;
	int64_t booted_us;                    /* by uptime_s, 0: not told */
	int64_t boot_seen_us;                 /* when a new boot_id was first seen, 0: never */
	uint64_t boot_hash;                   /* of boot_id, 0: not told */
	uint64_t mac;                         /* 48 bits; 0: not told */
	const struct device_digests *digests; /* owned, NULL: none told */
	const struct attempt *attempt;        /* owned, NULL: none open or unsettled */
	const struct failure_count *failures; /* owned, ended by release_id 0; NULL: none */
	const struct string_list *groups;     /* owned, NULL: none */
	const struct device_link *link;       /* owned, NULL: it was never heard over MQTT */
	int64_t retry_us;                     /* what failed is not tried again before; 0: none */
	int64_t ran_release_id;               /* the release of its last success, while it stands */
	const char *ran_as;                   /* what it calls itself since; "" until it was seen */
	const char *ran_from;                 /* what it ran before that success; "" not known */
};

/* Its broker says so: it is there, whenever it spoke. */
static inline bool device_is_online(const struct device_state *s)
{
	return s->link && s->link->presence == PRESENCE_ONLINE;
}

struct device {
	int64_t id;
	uint64_t hash; /* hash64(device_id): where it stands in every rollout's order */
	int64_t created_us;
	struct device_state state;
	struct device *next; /* fleet's: the chain of its hash bucket */
	uint64_t batch;      /* committer's: the batch that last touched it */
	_Atomic int64_t last_seen_us;
	_Atomic int64_t habit_us; /* its usual time between contacts; 0: not known */
	_Atomic bool seen_dirty;  /* last_seen_us is newer than the store's */
	bool born;                /* committed; before that only the committer sees it */
	int32_t tally_hour;       /* committer's: when it was heard of, as tallies have it */
	const char *device_id;    /* in the same piece of memory, behind the struct */
};

struct release {
	int64_t id;
	uint64_t salt;               /* makes another order of devices for each release */
	const char *version, *model; /* interned */
	const char *min_version;     /* "" none */
	const char *inner_version;   /* what the image says of itself, "" nothing */
	const char *project, *release_notes;
	bool deleted;          /* kept so that its name never means other bytes */
	bool inner_is_unique;  /* no other release of the model is called so */
	uint64_t learnt_taken; /* bit i: some other release is called learnt->items[i] too */
	bool has_image_digest, has_elf_digest;
	uint8_t sha256[DIGEST_SIZE]; /* of the file */
	uint8_t image_digest[DIGEST_SIZE], elf_digest[DIGEST_SIZE];
	int64_t file_size;
	int64_t created_us;
	int64_t suspect_us; /* when its gate halted it; 0: it is not suspect */
	uint32_t secure_version;
	enum chip chip;
	struct string_list
		*learnt; /* owned: strings devices call themselves after a success; NULL none */
	uint64_t batch;  /* committer's: the batch in which it learnt a name */
	struct release *next; /* older release of the model */
	/* From here on written beside readers: devices that have tried it, and those whose last
	 * tries broke off, by the result code (core/alert.h). */
	_Atomic int64_t tried, broken[RESULT_CODE_LAST + 1];
};

enum target_type {
	TARGET_ALL,
	TARGET_GROUP,
	TARGET_CANARY,
	TARGET_SPECIFIC,
};

struct target {
	enum target_type type;
	int percent;                    /* 1..100 */
	const char *group;              /* interned, "" unless TARGET_GROUP */
	struct string_list *device_ids; /* sorted by strcmp; NULL: none */
	size_t mac_count;
	uint64_t *macs; /* sorted */
};

/* The states of a rollout; core/stage.c says what leads from one to another. */
enum rollout_state {
	ROLLOUT_DRAFT,     /* made, and offered to nobody yet */
	ROLLOUT_SCHEDULED, /* begins at not_before_us */
	ROLLOUT_RUNNING,
	ROLLOUT_PAUSED,    /* offers nothing, keeps what is done, goes on where it was */
	ROLLOUT_HALTED,    /* the release was found bad: offers nothing, for good */
	ROLLOUT_COMPLETED, /* its last stage has ended; latecomers are offered it still */
	ROLLOUT_ABORTED,   /* a person ended it, for good */
	ROLLOUT_STATES,
};

/* One step of a rollout: so many of its devices, for so long. */
struct stage {
	int percent;            /* 1..100, more than that of the stage before */
	int64_t min_duration_s; /* it lasts so long at least */
	int64_t min_proven;     /* so many of its devices; -1: 80 % of those seen within a day */
	bool approve;           /* and a person must say that it may end */
};

/* Where a rollout stands.  Replaced whole, by fleet_set_walk() alone. */
struct walk {
	enum rollout_state state;
	int stage;              /* index into the stages */
	bool approved;          /* a person said that this stage may end */
	int64_t state_since_us; /* in this state */
	int64_t stage_since_us; /* in this stage; 0: it has not begun */
	int64_t held_us;        /* so long of it the rollout was paused */
	const char *reason;     /* of the state, in a person's or our words; interned, "" none */
};

/* How a rollout is watched. */
struct guard {
	bool off;     /* not at all */
	bool given;   /* the parameters are its creator's */
	bool bounded; /* only so many unproven devices at a time: it has stages */
	struct gate_params params;
};

/* A rollout that takes another's release back: whom it reaches besides by its target. */
struct takeback {
	int64_t rollout_id;         /* the one that is taken back; 0: it takes nothing back */
	const struct release *from; /* devices that run this one; NULL: it takes nothing back */
	/* Those that ran its own release before; and with REST all others, but for those that ran
	 * one of these before, which other rollouts bring back (owned; NULL: none). */
	bool rest;
	struct string_list *others;
};

struct rollout {
	int64_t id;
	const char *name; /* interned */
	struct release *release;
	struct target target; /* its percent is that of the stage */
	bool active;          /* it offers its release: by walk.state */
	bool allow_downgrade;
	bool created_active; /* as its creator said: a CI job that runs again says the same */
	int max_attempts;
	int max_parallel;      /* devices at a time; 0: no limit of its own */
	int priority;          /* where several would offer, the highest does; 0 usually */
	const char *requires;  /* a device must run at least this; interned, "" any */
	int64_t not_before_us; /* 0: at once */
	int64_t deadline_us;   /* it pauses then; 0: never */
	struct window *window; /* owned, never changes; NULL: at any hour */
	struct stage *stages;  /* owned; never change */
	int stage_count;       /* 1 or more */
	struct walk walk;
	struct guard guard;   /* never changes */
	bool rolls_back;      /* when it halts, what it gave is taken back */
	struct takeback back; /* never changes */
	int64_t created_us;
	int64_t pruned_us;    /* since then its history may be gone; 0: it is whole */
	struct rollout *next; /* older rollout of the model */
	/* From here on written beside readers; rollout_copy() knows which these are. */
	_Atomic uint64_t moves; /* of attempts of it, told or seen: somebody may want to count anew
				 */
	_Atomic int64_t progressed_us; /* when one last moved towards success; 0: not since the
					  start */
	/* The lowest bucket hash among the target's devices, UINT64_MAX: there are none. */
	_Atomic uint64_t lowest_hash;
	_Atomic int busy; /* attempts that take a place now, as the committer counted last ... */
	int busy_next;    /* ... and counts: its own */
};

/* The hours of a group: its devices begin no update outside them, whatever the rollout. */
struct group_window {
	const char *group;     /* interned */
	struct window *window; /* owned */
	struct group_window *next;
};

struct group_windows {
	struct group_window *first; /* by name, ascending */
};

struct model {
	const char *name; /* interned: the same pointer as in the states of its devices */
	_Atomic size_t device_count; /* changes with devices, not with the plan */
	enum chip chip;              /* by name, else by the first release; CHIP_NONE: not fixed */
	struct release *releases;    /* newest first */
	struct rollout *rollouts;    /* the highest priority first, then the newest */
	struct model *next, *previous, *bucket_next; /* fleet's */
};
