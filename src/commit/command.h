/* SPDX-License-Identifier: MIT */
/*
 * Commands: every fact that changes the world, whatever door it came through.
 *
 * A door fills a command, submits it, and hears of its outcome by done(), which runs on the
 * committer's thread and must not block.  All that a command points to belongs to the door and
 * lives until done().
 */
#pragma once

#include "base/err.h"
#include "core/attempt.h"
#include "core/checkin.h"
#include "core/decide.h"
#include "core/domain.h"
#include "core/stage.h"
#include "store/store.h"

enum command_kind {
	COMMAND_CHECKIN,
	COMMAND_REPORT,
	COMMAND_FETCH,
	COMMAND_RETRY,
	COMMAND_LAPSE,
	COMMAND_DEVICE_EDIT,
	COMMAND_DEVICE_DELETE,
	COMMAND_RELEASE_CREATE,
	COMMAND_RELEASE_DELETE,
	COMMAND_ROLLOUT_CREATE,
	COMMAND_ROLLOUT_WALK,
	COMMAND_FLUSH_SEEN,
	COMMAND_STATUS,
	COMMAND_DISPATCH,
	COMMAND_REJECTED,
	COMMAND_STOP,
	COMMAND_GROUP_WINDOW,
	COMMAND_SENT,
	COMMAND_GATE_LOOK,
	COMMAND_GATE_HALT,
	COMMAND_COUNT,
	COMMAND_ALERT,
	COMMAND_WEBHOOK,
	COMMAND_PRUNE,
	COMMAND_KINDS,
};

/* How a device's word came, when it came over MQTT. */
struct via {
	const char *site; /* NULL: over HTTP */
	enum topic_form form;
};

/* A device's word about an update. */
struct report {
	const char *device_id, *version, *error_message,
		*attempt_token;   /* the last two may be NULL */
	enum attempt_event event; /* one of EVENT_REPORT_* */
	int percent;              /* -1: not told */
	/* Over MQTT besides: the version may be NULL (it is the open attempt's), the event
	 * EVENT_NONE (a sign of life). */
	struct via via;
	bool accepted; /* it has the command */
	uint64_t hash; /* of topic and payload: another copy has the same; 0: over HTTP */
	bool stamped;  /* a time is in the payload: no two messages are the same by chance */
	int code;      /* the result's, where one was told; 0: none */
};

/* A device's word about itself over MQTT: its birth message, or its last will. */
struct status {
	struct checkin facts; /* model and version "" when not told */
	struct via via;
	bool online;
	bool retained; /* the broker's copy, maybe old: no contact */
};

/* Edits of one device, or of many at once; each field only where its flag is set. */
struct device_edit {
	const char *device_id;
	bool set_groups, set_label, set_notes;
	const char *const *groups; /* the whole new set ... */
	size_t group_count;
	const char *add_group, *remove_group; /* ... or one more, one less; may be NULL */
	const char *label, *notes;            /* NULL removes */
};

struct release_new {
	const char *version, *model, *min_version, *changelog, *release_notes, *file_path;
	const char *image_json; /* what the inspection found, for metadata.image; NULL: raw */
	const char *image_type; /* "esp" or "raw" */
	const char *inner_version, *project; /* "" unknown */
	bool is_signed, has_image_digest, has_elf_digest;
	uint8_t sha256[DIGEST_SIZE], image_digest[DIGEST_SIZE], elf_digest[DIGEST_SIZE];
	int64_t file_size;
	uint32_t secure_version;
	enum chip chip;
};

struct rollout_new {
	const char *name, *version, *model, *group; /* group "" unless TARGET_GROUP */
	enum target_type type;
	int percent, max_attempts;
	bool active, allow_downgrade;
	int max_parallel; /* 0: no limit of its own */
	int priority;
	const char *requires;               /* NULL: any version */
	int64_t not_before_us, deadline_us; /* 0: none */
	const struct window *window;        /* with its zone; NULL: at any hour */
	const struct stage *stages;         /* checked; none: one of PERCENT */
	size_t stage_count;
	const char *reason; /* for the log; may be NULL */
	struct guard guard; /* its params: checked where given, else the default */
	bool override_suspect;
	bool rolls_back; /* what it gave is taken back when it halts */
	const char *const *device_ids;
	size_t device_id_count;
	const uint64_t *macs;
	size_t mac_count;
};

/* An alert is raised, is over, or a person has seen it. */
struct alert_word {
	enum alert_change what;
	int64_t id;                            /* not to raise it */
	enum alert_kind kind;                  /* these to raise it: */
	const char *subject, *sentence, *data; /* "rollout/7"; data: JSON object */
	const char *reason;                    /* to acknowledge it; may be NULL */
	/* Who is to be sent a message about it; none when it is acknowledged. */
	const char *const *targets;
	size_t target_count;
};

#define WARNINGS_SIZE 1024

struct device_work;
struct plan_work;
struct gate_work;
struct watch;

struct command {
	enum command_kind kind;
	union {
		struct checkin checkin;
		struct report report;
		struct {
			const char *token;
			bool peek; /* HEAD: look, do not begin */
		} fetch;
		struct {
			const char *device_id;
			const char *version; /* NULL: at every release */
		} retry;
		struct {
			const char *device_id;
			int64_t not_after_us; /* only if it was opened before this */
		} lapse;
		struct {
			const struct device_edit *edits;
			size_t count;
		} edit;
		struct {
			const char *device_id;
		} device_delete;
		struct release_new release;
		struct {
			const char *version, *model;
		} release_delete;
		struct rollout_new rollout;
		/* What happens to a rollout.  Where two such commands cross, the second finds
		 * another state than it expects, and is refused. */
		struct {
			int64_t id;
			enum rollout_event event;
			const char *reason;     /* NULL: none told */
			unsigned expect_states; /* 1 << state, several; 0: any */
			int expect_stage;       /* from 1; 0: any */
			bool off_is_fine;       /* with ROLLOUT_PAUSE: what offers nothing is off */
		} walk;
		struct {
			int from, to; /* shards of the fleet */
		} flush_seen;
		struct status status;
		struct {
			const char *device_id; /* tell it, if it is still to be told */
		} dispatch;
		struct {
			const char *device_id, *topic, *reason, *detail; /* device_id may be NULL */
			const void *payload;
			size_t payload_len;
		} rejected;
		struct {
			const char *reason; /* NULL: go on */
		} stop;
		struct {
			const char *group;
			const struct window *window; /* with its zone; NULL: any hour again */
		} group_window;
		struct {
			const char
				*token; /* of the attempt whose image was sent to its last byte */
		} sent;
		struct watch *halt; /* the committer's own */
		/* What is old goes: rows of a range, or (RELEASE) the history of its rollouts is
		 * given up. */
		struct {
			const struct release *release;
			enum prune_what what;
			int64_t after_id, upto_id, before_us;
			int64_t rows; /* that it is to remove */
			int64_t begun_us;
		} prune;
		/* A part of the fleet is counted for a rollout that walks; out.existed: that was
		 * the last part. */
		struct {
			int64_t rollout_id;
			size_t devices; /* so many and the rest of a shard; 0: as is quick */
		} count;
		struct alert_word alert;
		/* What became of a message about an alert. */
		struct {
			enum webhook_change what; /* not WEBHOOK_ADD */
			int64_t id;
			const char *error; /* why it did not arrive; NULL: it is not known */
		} webhook;
	};

	const char *by;  /* who asks for it, for the log; NULL: a device, or the service */
	const char *why; /* and why, where the command itself has no place for it; NULL: not told */

	/* The outcome, valid in done(). */
	enum ota_code code;
	int retry_after_s; /* with OTA_EUNAVAIL: when to come again; 0 unknown */
	bool refused;      /* the store refused this one alone: it would refuse it again */
	bool over_limit;   /* with OTA_EUNAVAIL: only this device may not register now */
	struct {
		int64_t id; /* of the release or rollout; of a fetch: of the attempt's release; of a
			       dispatch that sends: of the attempt */
		bool existed; /* it was there already, identical; or nothing had to change */
		size_t count; /* devices edited, attempts withdrawn */
		bool send;    /* a dispatch: the open attempt is to be told now */
		enum rollout_state state; /* of a rollout, as it is now ... */
		int stage;                /* ... and its stage, from 1 */
		int64_t back_id;          /* the rollout that takes back what it gave; 0: none */
	} out;

	/* The door's. */
	void (*done)(struct command *c);
	void *owner;

	/* The committer's. */
	struct command *next;
	struct device_work *devices; /* what becomes of devices at publication */
	struct plan_work *plan;
	struct gate_work *gates; /* in the order of their events */
	size_t first_change, change_count;

	/* More of the outcome; last, since who makes a command need not clear them. */
	struct ota_err err;           /* where code is not OTA_OK */
	char warnings[WARNINGS_SIZE]; /* JSON array of sentences, for a release */
};
#define COMMAND_CLEARED offsetof(struct command, err)
