/* SPDX-License-Identifier: MIT */
/*
 * The fleet in memory: what the store holds, arranged for decisions that cost no query.
 *
 * The committer is the only writer, and it writes only what is committed: fleet_publish*() cannot
 * fail, because everything they need was allocated before the commit.  Readers take locks in this
 * order: the plan (releases, rollouts, models; a read-write lock), then one device's shard (a
 * mutex). Neither is held over I/O.
 */
#pragma once

#include "base/err.h"
#include "core/domain.h"
#include "core/names.h"

#include <pthread.h>

struct fleet;

struct fleet *fleet_new(void); /* NULL when out of memory */
void fleet_free(struct fleet **f);

/* --- any thread --- */

void fleet_plan_read(struct fleet *f);
void fleet_plan_done(struct fleet *f);
/* With the plan held: */
const struct model *fleet_model(struct fleet *f, const char *name);
const struct model *fleet_models(struct fleet *f); /* all, a list */
const struct release *fleet_release(struct fleet *f, int64_t id);
const struct rollout *fleet_rollout(struct fleet *f, int64_t id);
const struct rollout *fleet_rollout_named(struct fleet *f, const char *name);
/* The model's release VERSION, deleted ones too; NULL if there is none. */
const struct release *fleet_release_of(const struct model *m, const char *version);

/* Locks the device's shard and returns the device; NULL (nothing locked) when it is unknown. */
const struct device *fleet_lock_device(struct fleet *f, const char *device_id);
void fleet_unlock_device(struct fleet *f, const struct device *d);
/* Soft state: the device was heard of.  Under its lock, or by the committer. */
void fleet_touch(struct fleet *f, const struct device *d, int64_t now_us);
/* The same.  Until when it is known to have been there: its last word; over MQTT also its going,
 * or, as long as its broker does not say that it went, UNTIL_US. */
int64_t fleet_heard_us(const struct device *d, int64_t until_us);
/* Its last_seen_us is still to be written. */
void fleet_mark_seen(struct fleet *f, const struct device *d);

/* Calls VISIT for every born device of shards [from, to), each shard under its lock; stops on
 * false. */
#define FLEET_SHARDS 64
/* In which of them it stands. */
int fleet_shard(const struct device *d);
typedef bool fleet_visit_fn(const struct device *d, void *ctx);
bool fleet_visit(struct fleet *f, int from, int to, fleet_visit_fn *visit, void *ctx);
/* The same for those touched or marked since the last call, and a few more: what it costs goes by
 * them, not by the size of the fleet.  When VISIT returns false the rest is forgotten: mark again.
 */
bool fleet_visit_touched(struct fleet *f, int from, int to, fleet_visit_fn *visit, void *ctx);

size_t fleet_device_count(struct fleet *f);
/* Whether an operator stopped everything; why and since when (REASON may be NULL). */
bool fleet_is_stopped(struct fleet *f);
bool fleet_stop_reason(struct fleet *f, char *reason, size_t size, int64_t *since_us);
/* The hours of groups: the same list for as long as the fleet lives, read with the plan held. */
const struct group_windows *fleet_group_windows(struct fleet *f);
/* Counts the changes of the plan: another number, and somebody may have to be told. */
uint64_t fleet_plan_number(struct fleet *f);
/* Whether a release that is not deleted has these bytes.  FLEET is a struct fleet (a callback's
 * context). */
bool fleet_names_image(void *fleet, const uint8_t sha256[DIGEST_SIZE]);
/* The image of a release, as it is when the plan is held no more. */
struct fleet_image {
	uint8_t sha256[DIGEST_SIZE];
	int64_t size;
	char version[NAME_MAX_LEN + 1], model[NAME_MAX_LEN + 1];
};
/* Of each release that is not deleted; the caller's to free.  NULL: out of memory. */
struct fleet_image *fleet_list_images(struct fleet *f, size_t *count);
/* The id of the device whose attempt in memory has this token; false if there is none. */
bool fleet_device_by_token(struct fleet *f, const char *token, char *device_id, size_t size);

/* --- the committer alone --- */

/* Finds a device, unborn ones too; no lock. */
struct device *fleet_find(struct fleet *f, const char *device_id);
/* Adds a device that readers do not see yet; NULL when out of memory. */
struct device *fleet_add(struct fleet *f, const char *device_id, int64_t row_id, int64_t now_us);
/* Takes back an unborn device (the commit failed), or a committed one (it was deleted). */
void fleet_remove(struct fleet *f, struct device *d);
/* Memory that publishing NEXT for D may need: call before the commit. */
OTA_MUST_USE bool fleet_reserve(struct fleet *f, const struct device_state *next);
/* The device gets its new state (which the fleet takes) and is visible from now on. */
void fleet_publish(struct fleet *f, struct device *d, struct device_state *next);

/* Releases and rollouts are made whole by the caller and handed over.  The model must exist. */
struct model *fleet_model_ensure(struct fleet *f, const char *name); /* NULL: out of memory */
/* Frees models without devices, releases and rollouts.  Not between a command's preparation and its
 * publication, which may be about to use one. */
void fleet_drop_empty_models(struct fleet *f);
void fleet_publish_release(struct fleet *f, struct model *m, struct release *r);
void fleet_publish_rollout(struct fleet *f, struct model *m, struct rollout *r);
/* Where the rollout stands from now on: whether it offers, and to whom.  Takes the reason. */
void fleet_set_walk(struct fleet *f, struct rollout *r, struct walk *w);
void fleet_set_deleted(struct fleet *f, struct release *r, bool deleted);
/* 0: it is not suspect any more. */
void fleet_set_suspect(struct fleet *f, struct release *r, int64_t since_us);
/* The history of all rollouts of the release may be gone since then. */
void fleet_set_pruned(struct fleet *f, const struct release *r, int64_t since_us);
/* Another name of the release; takes LEARNT, frees the list before. */
void fleet_set_learnt(struct fleet *f, struct release *r, struct string_list *learnt);

/* The group's hours are another's from now on: takes G.  Without a window it has none any more. */
void fleet_set_group_window(struct fleet *f, struct group_window *g);
void group_window_free(struct group_window **g);
/* Takes REASON (malloc()ed); NULL: everything goes on. */
void fleet_set_stop(struct fleet *f, char *reason, int64_t since_us);

void release_free(struct release **r);
void rollout_free(struct rollout **r);
/* As it is now, to be looked at when the plan is not held any more; it owns nothing. */
void rollout_copy(struct rollout *to, const struct rollout *from);
