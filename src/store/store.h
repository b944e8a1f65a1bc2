/* SPDX-License-Identifier: MIT */
/*
 * The store: where everything that was acknowledged is.  One interface; a back end is a table of
 * functions.
 *
 * Threads: load, commit, find and ids are the committer's (load: before it runs).  The lists may be
 * called from any thread that may wait for a disk; each borrows a reading connection.  No policy
 * here: the store writes what it is told and answers what it has.
 */
#pragma once

#include "base/err.h"
#include "base/finding.h"
#include "core/alert.h"
#include "core/domain.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* --- what is written --- */

enum change_kind {
	CHANGE_DEVICE_PUT, /* insert, or replace every column of the fleet's; see `same` */
	CHANGE_DEVICE_SEEN,
	CHANGE_DEVICE_LABEL, /* label or notes */
	CHANGE_DEVICE_GROUPS,
	CHANGE_DEVICE_DELETE,
	CHANGE_ATTEMPT_INSERT,
	CHANGE_ATTEMPT_UPDATE,
	CHANGE_FAILURES,
	CHANGE_EVENT,
	CHANGE_RELEASE_INSERT,
	CHANGE_RELEASE_DELETED, /* marks or unmarks */
	CHANGE_RELEASE_LEARNT,
	CHANGE_RELEASE_SUSPECT, /* marks or unmarks */
	CHANGE_ROLLOUT_INSERT,
	CHANGE_ROLLOUT_WALK,
	CHANGE_REJECTED, /* keeps the newest REJECTED_KEPT */
	CHANGE_STATE,    /* a fact about the service as a whole */
	CHANGE_ALERT,
	CHANGE_WEBHOOK,
	CHANGE_PRUNE,          /* removes old rows of a range; attempts are counted by day first */
	CHANGE_ROLLOUT_PRUNED, /* its events and attempts may go from now on */
};

/* What is removed when it is old.  Each row says for itself whether it may go: PRUNABLE_... in
 * sql.h. */
enum prune_what { PRUNE_ATTEMPTS, PRUNE_EVENTS };

enum webhook_change {
	WEBHOOK_ADD,
	WEBHOOK_SENT,     /* it arrived: the row goes */
	WEBHOOK_FAILED,   /* it did not, and is tried again */
	WEBHOOK_GIVEN_UP, /* the same, and it is not; the newest WEBHOOKS_KEPT of those are kept */
};
#define WEBHOOKS_KEPT 1000

#define REJECTED_KEPT        1000
#define REJECTED_PAYLOAD_MAX 512

/* All pointers are borrowed until the commit has returned.  Times are microseconds, 0 is NULL. */
/* What an update of an attempt can have changed: indexes over other columns are left alone. */
enum attempt_reach {
	ATTEMPT_CHANGES,    /* anything */
	ATTEMPT_MOVES_ON,   /* open before and after: the state, and what ATTEMPT_PROGRESSES may */
	ATTEMPT_PROGRESSES, /* error, percent, started, reported, installing, accepted */
};

struct change {
	enum change_kind kind;
	union {
		struct {
			const struct device *device;
			const struct device_state *state;
			bool same; /* it is there, as the same model: last_seen is left to
				      CHANGE_DEVICE_SEEN, and no index is written */
		} device;
		struct {
			int64_t id;
			int64_t last_seen_us, habit_us;
		} seen;
		struct {
			const char *device_id, *value; /* value NULL: remove */
			bool notes;                    /* else the label */
		} label;
		struct {
			const char *device_id;
			const struct string_list *groups; /* NULL: none */
		} groups;
		struct {
			const char *device_id;
		} device_delete;
		struct {
			const char *device_id;
			const struct attempt *attempt;
			const char *error_message;        /* NULL: leave what is there */
			const char *closed_why;           /* NULL: leave what is there */
			int64_t started_us, completed_us; /* 0: leave what is there */
			enum attempt_reach reach;         /* of CHANGE_ATTEMPT_UPDATE */
		} attempt;
		struct {
			const char *device_id;
			struct failure_count failures; /* without any: removes */
		} failures;
		struct {
			const char *type, *device_id, *version; /* device_id, version may be NULL */
			int64_t rollout_id;
			const char *data, *created_by; /* data: JSON or NULL */
			int64_t created_us;
		} event;
		struct {
			const struct release *release;
			const char *file_path, *changelog, *release_notes, *created_by, *metadata;
			bool is_signed;
		} release;
		struct {
			int64_t id;
			int64_t deleted_us; /* 0: not any more */
		} release_deleted;
		struct {
			int64_t id;
			const char *names; /* JSON array */
		} release_learnt;
		struct {
			int64_t id;
			int64_t suspect_us;
		} release_suspect;
		struct {
			const struct rollout *rollout;
			const char *target_filter, *created_by, *metadata;
			const char *stages; /* JSON array */
		} rollout;
		struct {
			const struct rollout *rollout; /* as it was, but for ... */
			const struct walk *walk;       /* ... where it stands now, and ... */
			int percent;                   /* ... whom it reaches */
			bool active;
			int64_t updated_us;
		} rollout_walk;
		struct {
			const char *device_id, *topic, *reason, *detail; /* device_id may be NULL */
			const void *payload; /* the first REJECTED_PAYLOAD_MAX bytes */
			size_t payload_len;
			int64_t created_us;
		} rejected;
		struct {
			const char *key, *value; /* value NULL: forget */
		} state;
		struct {
			enum alert_change what;
			int64_t id, at_us;
			enum alert_kind kind;                  /* these to raise it ... */
			const char *subject, *sentence, *data; /* data: JSON */
			const char *by, *reason;               /* ... these to acknowledge it */
		} alert;
		struct {
			enum webhook_change what;
			int64_t id, alert_id; /* id: not to add */
			int64_t at_us;
			const char *target; /* to add; */
			bool cleared;       /* else: raised */
			const char *error;  /* of the last try; NULL: leave what is there */
		} webhook;
		struct {
			enum prune_what what;
			int64_t after_id,
				upto_id; /* rows with ids above the one, and up to the other */
			int64_t before_us;
		} prune;
		struct {
			int64_t id, at_us;
		} rollout_pruned;
	};
};

/* The changes of one command: written together or refused together. */
struct change_group {
	size_t first, count;  /* of the batch's changes */
	enum ota_code result; /* set by commit: OTA_OK, or why this one was refused */
	struct ota_err err;
};

struct change_batch {
	struct change *changes;
	size_t change_count;
	struct change_group *groups;
	size_t group_count;
};

/* --- what is read --- */

/* A row as it stands in the table; strings live until the visitor returns, NULL is NULL. */
struct row_update {
	int64_t id;
	const char *attempt_id, *device_id, *firmware_version, *status, *closed, *closed_why;
	const char *error_message, *from_version, *opened_at, *started_at, *completed_at,
		*reported_at;
	int percent; /* -1: NULL */
	int64_t release_id, rollout_id;
	bool unsolicited;
};

struct row_release {
	int64_t id, file_size;
	const char *version, *device_model, *min_version, *file_path, *sha256, *changelog,
		*release_notes;
	const char *created_at, *created_by, *metadata, *learnt, *suspect_at;
	bool is_signed;
};

struct row_rollout {
	int64_t id, release_id;
	const char *name, *firmware_version, *device_model, *target_type, *target_filter;
	const char *created_at, *updated_at, *created_by, *metadata;
	const char *state, *state_reason, *state_since, *stages, *stage_since;
	const char *not_before, *deadline, *requires, *window;
	int percent, max_attempts, max_parallel, priority;
	int stage; /* from 1 */
	int64_t held_us;
	const char *pruned_at; /* NULL: its history is whole */
	bool active, allow_downgrade, approved;
};

struct row_device {
	int64_t id, habit_us;
	const char *device_id, *mac, *model, *version, *hw, *label, *notes;
	const char *last_seen, *created_at;
	const char *site, *presence_at, *other_site, *conflict_at; /* NULL: never over MQTT, none */
	int online;                                                /* -1: unknown */
};

struct row_rejected {
	int64_t id;
	const char *device_id, *topic, *reason, *detail, *created_at;
	const void *payload;
	size_t payload_len;
};

struct row_event {
	int64_t id, rollout_id;
	const char *type, *device_id, *version, *data, *created_at, *created_by;
};

struct row_alert {
	int64_t id;
	const char *kind, *subject, *severity, *sentence, *raised_at;
	const char *acknowledged_at, *acknowledged_by, *acknowledged_reason, *cleared_at, *data;
	int64_t waiting, given_up; /* messages about it that have not arrived ... */
	const char *last_error;    /* ... and why the newest of them has not */
};

/* A message about an alert that has not arrived. */
struct row_webhook {
	int64_t id, alert_id, tries, created_us;
	const char *target;
	bool cleared;           /* else: raised */
	struct row_alert alert; /* but for the counts of messages */
};

/* Those not given up, the least tried first. */
struct webhook_query {
	const char *target;        /* NULL: any */
	int64_t created_before_us; /* 0: any */
	int limit;
};

struct alert_counts {
	int64_t open[ALERT_KINDS];
	int64_t waiting, given_up; /* messages */
};

/* What find_alert() finds. */
struct stored_alert {
	enum alert_kind kind;
	bool acknowledged, cleared;
	char subject[192];
};

/* One page of a list: what to show, from where on.  NULL and 0 are "any". */
struct list_query {
	const char *device_id, *device_model, *version, *status, *event_type, *group, *kind;
	int64_t rollout_id;
	int active;      /* -1: any; of alerts: those that are open */
	bool operations; /* events: only what somebody did, not what devices did */
	int limit;
	int64_t before_id;       /* rows with a lower id only; 0: from the newest */
	const char *before_time; /* devices: last_seen below, or equal and id below; NULL: from the
				    top */
	const char *until_time;  /* devices: seen no later than this: when the listing began */
};

/* Attempts of one rollout by status, lapsed and withdrawn apart: indexed by attempt_state. */
struct attempt_counts {
	int64_t by_state[ATTEMPT_STATES];
};

/* The next rows by id, as many as were asked for or there are. */
struct prune_range {
	int64_t upto_id;   /* of the last of them */
	int64_t rows;      /* 0: there are none */
	int64_t prunable;  /* of these */
	int64_t oldest_us; /* when the oldest of them came into being */
};

enum id_kind {
	ID_DEVICE,
	ID_ATTEMPT,
	ID_RELEASE,
	ID_ROLLOUT,
	ID_ALERT,
	ID_KINDS,
};

/* What load() finds, in this order: the service's state, releases, rollouts, devices, groups,
 * failures, attempts. */
struct store_loader {
	void *ctx;
	enum ota_code (*release)(void *ctx, const struct row_release *row, const char *deleted_at,
				 struct ota_err *err);
	enum ota_code (*rollout)(void *ctx, const struct row_rollout *row, struct ota_err *err);
	/* STATE's strings are borrowed, not interned; groups, failures and attempt are not in it.
	 */
	enum ota_code (*device)(void *ctx, const struct row_device *row,
				const struct device_state *state, struct ota_err *err);
	enum ota_code (*group)(void *ctx, const char *device_id, const char *group,
			       struct ota_err *err);
	enum ota_code (*failures)(void *ctx, const char *device_id, const struct failure_count *f,
				  struct ota_err *err);
	/* What CHANGE_STATE wrote. */
	enum ota_code (*state)(void *ctx, const char *key, const char *value, struct ota_err *err);
	/* Those that belong in memory: open, or success and not settled; strings borrowed. */
	enum ota_code (*attempt)(void *ctx, const char *device_id, const struct attempt *a,
				 struct ota_err *err);
};

/* An attempt as found(): strings in the struct itself. */
struct stored_attempt {
	struct attempt a; /* version, from_version point below */
	char version[129], from_version[129];
	char device_id[129];
	int64_t completed_us;
};

/* An image that a release names, each once: the digest in hex.  False: enough. */
typedef bool image_fn(void *ctx, const char *sha256, int64_t size);

struct store;

struct store_ops {
	void (*close)(struct store **s);
	enum ota_code (*load)(struct store *s, const struct store_loader *l, struct ota_err *err);
	/*
	 * One transaction.  OTA_OK: it is durable, and each group's result says whether it is in it
	 * (a group that the database refused is not, the others are).  Anything else: nothing of it
	 * is. An empty batch writes a heartbeat: a probe whether the store can be written.
	 */
	enum ota_code (*commit)(struct store *s, struct change_batch *b, struct ota_err *err);
	/* The committer's, once a second: whether the database is there, by as little as it takes.
	 * NULL: it is a file, and it is. */
	enum ota_code (*look)(struct store *s, struct ota_err *err);
	/* A new id, never given before. */
	int64_t (*next_id)(struct store *s, enum id_kind kind);
	/* By token, or (token NULL) the newest of a device at a version; OTA_ENOTFOUND: none. */
	enum ota_code (*find_attempt)(struct store *s, const char *token, const char *device_id,
				      const char *version, struct stored_attempt *out,
				      struct ota_err *err);
	/* Visitors return false to stop.  Newest first (devices: last seen first). */
	enum ota_code (*list_updates)(struct store *s, const struct list_query *q,
				      bool (*visit)(void *, const struct row_update *), void *ctx,
				      struct ota_err *err);
	enum ota_code (*list_releases)(struct store *s, const struct list_query *q,
				       bool (*visit)(void *, const struct row_release *), void *ctx,
				       struct ota_err *err);
	enum ota_code (*list_rollouts)(struct store *s, const struct list_query *q,
				       bool (*visit)(void *, const struct row_rollout *), void *ctx,
				       struct ota_err *err);
	enum ota_code (*list_devices)(struct store *s, const struct list_query *q,
				      bool (*visit)(void *, const struct row_device *), void *ctx,
				      struct ota_err *err);
	enum ota_code (*list_events)(struct store *s, const struct list_query *q,
				     bool (*visit)(void *, const struct row_event *), void *ctx,
				     struct ota_err *err);
	enum ota_code (*list_rejected)(struct store *s, const struct list_query *q,
				       bool (*visit)(void *, const struct row_rejected *),
				       void *ctx, struct ota_err *err);
	enum ota_code (*rollout_counts)(struct store *s, int64_t rollout_id,
					struct attempt_counts *out, struct ota_err *err);
	/* The events of the gates of a release's rollouts, oldest first.  The committer's, before
	 * it runs. */
	enum ota_code (*gate_events)(struct store *s, int64_t release_id,
				     enum ota_code (*visit)(void *, const struct row_event *,
							    struct ota_err *),
				     void *ctx, struct ota_err *err);
	/* What happened to a rollout but for its attempts' own events: oldest first, those after
	 * AFTER_ID, LIMIT of them.  Any thread, as the lists. */
	enum ota_code (*rollout_history)(struct store *s, int64_t rollout_id, int64_t after_id,
					 int limit, bool (*visit)(void *, const struct row_event *),
					 void *ctx, struct ota_err *err);
	/* Attempts with a report since the given time. */
	enum ota_code (*updates_since)(struct store *s, int64_t since_us, int64_t *out,
				       struct ota_err *err);
	/* The committer's, as find_attempt(); OTA_ENOTFOUND: none. */
	enum ota_code (*find_alert)(struct store *s, int64_t id, struct stored_alert *out,
				    struct ota_err *err);
	enum ota_code (*list_alerts)(struct store *s, const struct list_query *q,
				     bool (*visit)(void *, const struct row_alert *), void *ctx,
				     struct ota_err *err);
	enum ota_code (*list_webhooks)(struct store *s, const struct webhook_query *q,
				       bool (*visit)(void *, const struct row_webhook *), void *ctx,
				       struct ota_err *err);
	enum ota_code (*alert_counts)(struct store *s, struct alert_counts *out,
				      struct ota_err *err);
	/* What of the LIMIT rows after AFTER_ID may go, being older than BEFORE.  The committer's.
	 */
	enum ota_code (*prune_range)(struct store *s, enum prune_what what, int64_t after_id,
				     int64_t before_us, int limit, struct prune_range *out,
				     struct ota_err *err);
	/* When the newest event of a rollout was, 0: there is none.  The committer's. */
	enum ota_code (*rollout_last_us)(struct store *s, int64_t rollout_id, int64_t *out,
					 struct ota_err *err);
	/*
	 * The database as it stands at one moment, while others write on: a copy of it in the new
	 * file PATH (*COPIED false: it is no file, and has its own way), and the images that
	 * releases name in it.  Any thread that may wait for a disk.
	 */
	enum ota_code (*snapshot)(struct store *s, const char *path, bool *copied, image_fn *visit,
				  void *ctx, struct ota_err *err);
	/* How the database is, by looking closely: it may take long.  Any thread that may wait. */
	enum ota_code (*examine)(struct store *s, finding_fn *say, void *ctx, struct ota_err *err);
	const char *(*name)(const struct store *s); /* "sqlite" */
};

/* A back end's struct begins with this. */
struct store {
	const struct store_ops *ops;
	/* Set while a commit waits to hear whether it is in the database: others had better not
	 * wait for it.  Any thread. */
	atomic_bool in_doubt;
	/* Set by who ends the service: such a commit waits no more, and fails with OTA_EUNKNOWN. */
	atomic_bool ending;
	/* The database is not as this instance left it: nothing is written any more. */
	atomic_bool overtaken;
};

/* Opens (and makes) PATH, applies the migrations.  Errors name the file and what to do. */
enum ota_code store_sqlite_open(const char *path, struct store **out, struct ota_err *err);

/*
 * Opens the database that CONNINFO says (a URL or libpq's key=value form), and where it says
 * nothing
 * ("") libpq's environment; applies the migrations, which take over what the contract's tables hold
 * already.  One instance writes to a database.  EPOCH 0: it is the only one, and a second one is
 * refused.  Else it leads in that epoch (lease.h), and takes over from whoever led before;
 * OTA_EUNAVAIL: the epoch is over.
 */
enum ota_code store_postgres_open(const char *conninfo, int64_t epoch, struct store **out,
				  struct ota_err *err);

/* Whether the file PATH is a whole SQLite database that this program understands, and which images
 * it names. */
enum ota_code store_sqlite_check(const char *path, image_fn *visit, void *ctx, struct ota_err *err);

/* Copies all of the SQLite database PATH into the empty one that CONNINFO says, and compares.
 * PROGRESS is told the rows of a table so far, and when it is DONE. */
typedef void store_import_progress(const char *table, int64_t rows, bool done);
enum ota_code store_import(const char *path, const char *conninfo, store_import_progress *progress,
			   struct ota_err *err);
