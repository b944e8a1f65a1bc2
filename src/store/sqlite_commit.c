/* SPDX-License-Identifier: MIT */
/*
 * SQLite: the commit.  One transaction over the whole batch; if a statement is refused by a
 * constraint, the transaction begins anew, and the batch is halved at savepoints until the refused
 * group stands alone; the others go in.
 */
#include "store/sqlite_statements.h"

#include "base/clock.h"
#include "base/hash.h"
#include "core/stage.h"
#include "core/target.h"

#include <string.h>

static sqlite3_stmt *statement(struct sqlite_store *s, enum statement which)
{
	if (!s->statements[which] &&
	    sqlite3_prepare_v3(s->db, sqlite_statements[which], -1, SQLITE_PREPARE_PERSISTENT,
			       &s->statements[which], NULL) != SQLITE_OK)
		return NULL;
	return s->statements[which];
}

/*
 * A bind that failed for want of memory leaves a NULL and says nothing when the statement runs: it
 * is remembered until run() looks.  The committer alone writes.
 */
static _Thread_local bool bind_failed;

static void bind_text(sqlite3_stmt *st, int at, const char *text)
{
	if (text)
		bind_failed |= sqlite3_bind_text(st, at, text, -1, SQLITE_STATIC) != SQLITE_OK;
	else
		sqlite3_bind_null(st, at);
}

/* "" is stored as NULL: it was not told. */
static void bind_known(sqlite3_stmt *st, int at, const char *text)
{
	bind_text(st, at, text && text[0] ? text : NULL);
}

/* Most times of a batch are when it was begun. */
static void bind_time(sqlite3_stmt *st, int at, int64_t us)
{
	static _Thread_local int64_t last_us;
	static _Thread_local char text[TIME_TEXT_SIZE];

	if (us == 0) {
		sqlite3_bind_null(st, at);
		return;
	}
	if (us != last_us) {
		time_format(us, text);
		last_us = us;
	}
	bind_failed |=
		sqlite3_bind_text(st, at, text, TIME_TEXT_SIZE - 1, SQLITE_TRANSIENT) != SQLITE_OK;
}

static void bind_id(sqlite3_stmt *st, int at, int64_t id)
{
	if (id)
		sqlite3_bind_int64(st, at, id);
	else
		sqlite3_bind_null(st, at);
}

static void bind_hex(sqlite3_stmt *st, int at, bool has, const uint8_t *digest)
{
	char hex[SHA256_HEX_SIZE];

	if (!has) {
		sqlite3_bind_null(st, at);
		return;
	}
	hex_encode(digest, DIGEST_SIZE, hex);
	bind_failed |= sqlite3_bind_text(st, at, hex, -1, SQLITE_TRANSIENT) != SQLITE_OK;
}

/* Runs a bound statement to its end; false when it, or a bind before it, failed. */
static bool run(sqlite3_stmt *st)
{
	if (bind_failed) {
		bind_failed = false;
		sqlite3_reset(st);
		return false;
	}
	int rc = sqlite3_step(st);

	sqlite3_reset(st);
	return rc == SQLITE_DONE || rc == SQLITE_ROW;
}

static bool run_plain(struct sqlite_store *s, enum statement which)
{
	sqlite3_stmt *st = statement(s, which);

	return st && run(st);
}

static void bind_link(sqlite3_stmt *st, const struct device_link *l)
{
	static const struct device_link none = {.site = "", .other_site = ""};

	if (!l)
		l = &none;
	bind_known(st, 16, l->site);
	sqlite3_bind_int(st, 17, (int)l->form);
	if (l->presence == PRESENCE_UNKNOWN)
		sqlite3_bind_null(st, 18);
	else
		sqlite3_bind_int(st, 18, l->presence == PRESENCE_ONLINE);
	bind_time(st, 19, l->presence_us);
	bind_known(st, 20, l->other_site);
	bind_time(st, 21, l->conflict_us);
	if (l->heard_us)
		sqlite3_bind_blob(st, 22, l->heard, sizeof l->heard, SQLITE_STATIC);
	else
		sqlite3_bind_null(st, 22);
	bind_time(st, 23, l->heard_us);
	bind_time(st, 24, l->silent_us);
}

static bool write_device(struct sqlite_store *s, const struct change *c)
{
	const struct device *d = c->device.device;
	const struct device_state *n = c->device.state;
	sqlite3_stmt *st = statement(s, c->device.same ? ST_DEVICE_SAME : ST_DEVICE_PUT);
	char mac[MAC_TEXT_SIZE];

	if (!st)
		return false;
	if (n->mac)
		mac_format(n->mac, mac);
	sqlite3_bind_int64(st, 1, d->id);
	if (!c->device.same) {
		bind_text(st, 2, d->device_id);
		bind_known(st, 4, n->model);
		bind_time(st, 6, d->last_seen_us);
		bind_time(st, 7, d->created_us);
		sqlite3_bind_int64(st, 26, d->habit_us);
	}
	bind_text(st, 3, n->mac ? mac : NULL);
	bind_known(st, 5, n->version);
	bind_known(st, 8, n->hw);
	sqlite3_bind_int64(st, 9, (int64_t)n->boot_hash);
	bind_time(st, 10, n->booted_us);
	bind_time(st, 11, n->boot_seen_us);
	bind_hex(st, 12, n->digests && n->digests->has_firmware,
		 n->digests ? n->digests->firmware : NULL);
	bind_hex(st, 13, n->digests && n->digests->has_elf, n->digests ? n->digests->elf : NULL);
	sqlite3_bind_int64(st, 14, n->ran_release_id);
	bind_known(st, 15, n->ran_as);
	bind_link(st, n->link);
	bind_time(st, 25, n->retry_us);
	bind_known(st, 27, n->ran_from);
	return run(st);
}

static bool write_groups(struct sqlite_store *s, const struct change *c)
{
	sqlite3_stmt *st = statement(s, ST_GROUPS_CLEAR);

	if (!st)
		return false;
	bind_text(st, 1, c->groups.device_id);
	if (!run(st))
		return false;
	for (size_t i = 0; c->groups.groups && i < c->groups.groups->count; i++) {
		st = statement(s, ST_GROUP_ADD);
		if (!st)
			return false;
		bind_text(st, 1, c->groups.device_id);
		bind_text(st, 2, c->groups.groups->items[i]);
		if (!run(st))
			return false;
	}
	return true;
}

static bool run_with_device(struct sqlite_store *s, enum statement which, const char *device_id)
{
	sqlite3_stmt *st = statement(s, which);

	if (!st)
		return false;
	bind_text(st, 1, device_id);
	return run(st);
}

static void bind_progress(sqlite3_stmt *st, const struct change *c)
{
	const struct attempt *a = c->attempt.attempt;

	sqlite3_bind_int64(st, 1, a->id);
	bind_text(st, 5, c->attempt.error_message);
	if (a->percent >= 0)
		sqlite3_bind_int(st, 6, a->percent);
	else
		sqlite3_bind_null(st, 6);
	bind_time(st, 7, c->attempt.started_us);
	bind_time(st, 9, a->reported_us);
	bind_time(st, 18, a->installing_us);
	bind_time(st, 23, a->accepted_us);
}

static bool write_progress(struct sqlite_store *s, const struct change *c)
{
	bool moves = c->attempt.reach == ATTEMPT_MOVES_ON;
	sqlite3_stmt *st = statement(s, moves ? ST_ATTEMPT_MOVE : ST_ATTEMPT_PROGRESS);

	if (!st)
		return false;
	if (moves)
		bind_text(st, 4, attempt_status_word(c->attempt.attempt->state));
	bind_progress(st, c);
	return run(st);
}

static bool write_attempt(struct sqlite_store *s, const struct change *c)
{
	const struct attempt *a = c->attempt.attempt;
	bool insert = c->kind == CHANGE_ATTEMPT_INSERT;
	sqlite3_stmt *st = statement(s, insert ? ST_ATTEMPT_INSERT : ST_ATTEMPT_UPDATE);

	if (!st)
		return false;
	bind_progress(st, c);
	bind_text(st, 4, attempt_status_word(a->state));
	bind_time(st, 8, c->attempt.completed_us);
	bind_text(st, 13, attempt_closed_word(a->state));
	bind_text(st, 14, c->attempt.closed_why);
	sqlite3_bind_int(st, 19, a->settled);
	bind_time(st, 21, a->commanded_us);
	sqlite3_bind_int(st, 22, a->commands);
	if (insert) {
		bind_text(st, 2, c->attempt.device_id);
		bind_text(st, 3, a->version);
		bind_known(st, 10, a->token);
		bind_id(st, 11, a->release_id);
		bind_id(st, 12, a->rollout_id);
		sqlite3_bind_int(st, 15, a->unsolicited);
		bind_known(st, 16, a->from_version);
		bind_time(st, 17, a->opened_us);
	} else {
		sqlite3_bind_int(st, 20, attempt_is_open(a->state));
	}
	return run(st);
}

static bool write_failures(struct sqlite_store *s, const struct change *c)
{
	const struct failure_count *f = &c->failures.failures;
	bool put = f->count + f->passing > 0;
	sqlite3_stmt *st = statement(s, put ? ST_FAILURES_PUT : ST_FAILURES_REMOVE);

	if (!st)
		return false;
	bind_text(st, 1, c->failures.device_id);
	sqlite3_bind_int64(st, 2, f->release_id);
	if (put) {
		sqlite3_bind_int(st, 3, f->count);
		sqlite3_bind_int(st, 4, f->passing);
		bind_id(st, 5, f->code);
	}
	return run(st);
}

static bool write_event(struct sqlite_store *s, const struct change *c)
{
	sqlite3_stmt *st = statement(s, ST_EVENT);

	if (!st)
		return false;
	bind_text(st, 1, c->event.type);
	bind_text(st, 2, c->event.device_id);
	bind_text(st, 3, c->event.version);
	bind_id(st, 4, c->event.rollout_id);
	bind_text(st, 5, c->event.data);
	bind_time(st, 6, c->event.created_us);
	bind_text(st, 7, c->event.created_by);
	return run(st);
}

static bool write_release(struct sqlite_store *s, const struct change *c)
{
	const struct release *r = c->release.release;
	sqlite3_stmt *st = statement(s, ST_RELEASE_INSERT);

	if (!st)
		return false;
	sqlite3_bind_int64(st, 1, r->id);
	bind_text(st, 2, r->version);
	bind_text(st, 3, r->model);
	bind_known(st, 4, r->min_version);
	bind_text(st, 5, c->release.file_path);
	sqlite3_bind_int64(st, 6, r->file_size);
	bind_hex(st, 7, true, r->sha256);
	bind_text(st, 8, c->release.changelog);
	bind_text(st, 9, c->release.release_notes);
	sqlite3_bind_int(st, 10, c->release.is_signed);
	bind_time(st, 11, r->created_us);
	bind_text(st, 12, c->release.created_by);
	bind_text(st, 13, c->release.metadata);
	return run(st);
}

static bool write_rollout(struct sqlite_store *s, const struct change *c)
{
	const struct rollout *r = c->rollout.rollout;
	sqlite3_stmt *st = statement(s, ST_ROLLOUT_INSERT);

	if (!st)
		return false;
	sqlite3_bind_int64(st, 1, r->id);
	bind_text(st, 2, r->name);
	bind_text(st, 3, r->release->version);
	bind_text(st, 4, r->release->model);
	bind_text(st, 5, target_type_word(r->target.type));
	bind_text(st, 6, c->rollout.target_filter);
	sqlite3_bind_int(st, 7, r->target.percent);
	sqlite3_bind_int(st, 8, r->active);
	bind_time(st, 9, r->created_us);
	bind_text(st, 10, c->rollout.created_by);
	bind_text(st, 11, c->rollout.metadata);
	sqlite3_bind_int64(st, 12, r->release->id);
	sqlite3_bind_int(st, 13, r->allow_downgrade);
	sqlite3_bind_int(st, 14, r->max_attempts);
	sqlite3_bind_int(st, 15, r->max_parallel);
	bind_text(st, 16, c->rollout.stages);
	bind_time(st, 17, r->not_before_us);
	bind_time(st, 18, r->deadline_us);
	sqlite3_bind_int(st, 19, r->priority);
	bind_known(st, 20, r->requires);
	bind_text(st, 21, rollout_state_name(r->walk.state));
	sqlite3_bind_int(st, 22, r->walk.stage + 1);
	bind_time(st, 23, r->walk.state_since_us);
	bind_time(st, 24, r->walk.stage_since_us);
	bind_text(st, 25, r->window ? r->window->text : NULL);
	return run(st);
}

static bool write_walk(struct sqlite_store *s, const struct change *c)
{
	const struct walk *w = c->rollout_walk.walk;
	sqlite3_stmt *st = statement(s, ST_ROLLOUT_WALK);

	if (!st)
		return false;
	sqlite3_bind_int64(st, 1, c->rollout_walk.rollout->id);
	sqlite3_bind_int(st, 2, c->rollout_walk.active);
	bind_time(st, 3, c->rollout_walk.updated_us);
	sqlite3_bind_int(st, 4, c->rollout_walk.percent);
	bind_text(st, 5, rollout_state_name(w->state));
	bind_known(st, 6, w->reason);
	bind_time(st, 7, w->state_since_us);
	sqlite3_bind_int(st, 8, w->stage + 1);
	bind_time(st, 9, w->stage_since_us);
	sqlite3_bind_int64(st, 10, w->held_us);
	sqlite3_bind_int(st, 11, w->approved);
	return run(st);
}

static bool write_small(struct sqlite_store *s, const struct change *c)
{
	static const enum statement which[] = {
		[CHANGE_DEVICE_SEEN] = ST_DEVICE_SEEN,
		[CHANGE_RELEASE_DELETED] = ST_RELEASE_DELETED,
		[CHANGE_RELEASE_LEARNT] = ST_RELEASE_LEARNT,
		[CHANGE_RELEASE_SUSPECT] = ST_RELEASE_SUSPECT,
		[CHANGE_ROLLOUT_PRUNED] = ST_ROLLOUT_PRUNED,
	};
	sqlite3_stmt *st = statement(s, which[c->kind]);

	if (!st)
		return false;
	switch (c->kind) {
	case CHANGE_DEVICE_SEEN:
		sqlite3_bind_int64(st, 1, c->seen.id);
		bind_time(st, 2, c->seen.last_seen_us);
		sqlite3_bind_int64(st, 3, c->seen.habit_us);
		break;
	case CHANGE_RELEASE_SUSPECT:
		sqlite3_bind_int64(st, 1, c->release_suspect.id);
		bind_time(st, 2, c->release_suspect.suspect_us);
		break;
	case CHANGE_ROLLOUT_PRUNED:
		sqlite3_bind_int64(st, 1, c->rollout_pruned.id);
		bind_time(st, 2, c->rollout_pruned.at_us);
		break;
	case CHANGE_RELEASE_DELETED:
		sqlite3_bind_int64(st, 1, c->release_deleted.id);
		bind_time(st, 2, c->release_deleted.deleted_us);
		break;
	default:
		sqlite3_bind_int64(st, 1, c->release_learnt.id);
		bind_text(st, 2, c->release_learnt.names);
	}
	return run(st);
}

static bool write_label(struct sqlite_store *s, const struct change *c)
{
	sqlite3_stmt *st = statement(s, c->label.notes ? ST_DEVICE_NOTES : ST_DEVICE_LABEL);

	if (!st)
		return false;
	bind_text(st, 1, c->label.device_id);
	bind_text(st, 2, c->label.value);
	return run(st);
}

static bool write_rejected(struct sqlite_store *s, const struct change *c)
{
	sqlite3_stmt *st = statement(s, ST_REJECTED);

	if (!st)
		return false;
	bind_text(st, 1, c->rejected.device_id);
	bind_text(st, 2, c->rejected.topic);
	bind_failed |= sqlite3_bind_blob(st, 3, c->rejected.payload_len ? c->rejected.payload : "",
					 (int)c->rejected.payload_len, SQLITE_STATIC) != SQLITE_OK;
	bind_text(st, 4, c->rejected.reason);
	bind_text(st, 5, c->rejected.detail);
	bind_time(st, 6, c->rejected.created_us);
	if (!run(st) || !(st = statement(s, ST_REJECTED_PRUNE)))
		return false;
	sqlite3_bind_int(st, 1, REJECTED_KEPT);
	return run(st);
}

static bool write_state(struct sqlite_store *s, const struct change *c)
{
	sqlite3_stmt *st = statement(s, c->state.value ? ST_STATE_PUT : ST_STATE_REMOVE);

	if (!st)
		return false;
	bind_text(st, 1, c->state.key);
	if (c->state.value)
		bind_text(st, 2, c->state.value);
	return run(st);
}

static bool run_pruning(struct sqlite_store *s, enum statement which, const struct change *c)
{
	sqlite3_stmt *st = statement(s, which);

	if (!st)
		return false;
	sqlite3_bind_int64(st, 1, c->prune.after_id);
	sqlite3_bind_int64(st, 2, c->prune.upto_id);
	bind_time(st, 3, c->prune.before_us);
	return run(st);
}

/* Events may go while the state says so, and no later: a trigger holds them else. */
static bool write_prune(struct sqlite_store *s, const struct change *c)
{
	char before[TIME_TEXT_SIZE];
	struct change says = {.kind = CHANGE_STATE, .state = {PRUNING_KEY, before}};

	if (c->prune.what == PRUNE_ATTEMPTS)
		return run_pruning(s, ST_PRUNE_COUNT, c) && run_pruning(s, ST_PRUNE_ATTEMPTS, c);
	time_format(c->prune.before_us, before);
	if (!write_state(s, &says) || !run_pruning(s, ST_PRUNE_EVENTS, c))
		return false;
	says.state.value = NULL;
	return write_state(s, &says);
}

static bool write_change(struct sqlite_store *s, const struct change *c)
{
	switch (c->kind) {
	case CHANGE_DEVICE_PUT: return write_device(s, c);
	case CHANGE_DEVICE_LABEL: return write_label(s, c);
	case CHANGE_DEVICE_GROUPS: return write_groups(s, c);
	case CHANGE_DEVICE_DELETE:
		return run_with_device(s, ST_GROUPS_CLEAR, c->device_delete.device_id) &&
		       run_with_device(s, ST_FAILURES_CLEAR, c->device_delete.device_id) &&
		       run_with_device(s, ST_DEVICE_DELETE, c->device_delete.device_id);
	case CHANGE_ATTEMPT_INSERT: return write_attempt(s, c);
	case CHANGE_ATTEMPT_UPDATE:
		return c->attempt.reach == ATTEMPT_CHANGES ? write_attempt(s, c)
							   : write_progress(s, c);
	case CHANGE_FAILURES: return write_failures(s, c);
	case CHANGE_EVENT: return write_event(s, c);
	case CHANGE_RELEASE_INSERT: return write_release(s, c);
	case CHANGE_ROLLOUT_INSERT: return write_rollout(s, c);
	case CHANGE_ROLLOUT_WALK: return write_walk(s, c);
	case CHANGE_REJECTED: return write_rejected(s, c);
	case CHANGE_STATE: return write_state(s, c);
	case CHANGE_ALERT: return sqlite_write_alert(s, c);
	case CHANGE_WEBHOOK: return sqlite_write_webhook(s, c);
	case CHANGE_DEVICE_SEEN:
	case CHANGE_RELEASE_DELETED:
	case CHANGE_RELEASE_LEARNT:
	case CHANGE_ROLLOUT_PRUNED:
	case CHANGE_RELEASE_SUSPECT: return write_small(s, c);
	case CHANGE_PRUNE: return write_prune(s, c);
	}
	return false;
}

/* --- the commit --- */

/* Writes groups [from, to).  False: the database failed; a refusal (constraint) returns with
 * *refused. */
static bool write_groups_range(struct sqlite_store *s, struct change_batch *b, size_t from,
			       size_t to, bool *refused)
{
	*refused = false;
	for (size_t g = from; g < to; g++) {
		const struct change *c = b->changes + b->groups[g].first;
		for (size_t i = 0; i < b->groups[g].count; i++)
			if (!write_change(s, &c[i])) {
				int rc = sqlite3_errcode(s->db) & 0xFF;
				*refused = rc == SQLITE_CONSTRAINT || rc == SQLITE_TOOBIG ||
					   rc == SQLITE_MISMATCH;
				return false;
			}
		b->groups[g].result = OTA_OK;
	}
	return true;
}

/* Inside the transaction: writes what can be written of [from, to), marks what was refused. */
static enum ota_code write_bisecting(struct sqlite_store *s, struct change_batch *b, size_t from,
				     size_t to, struct ota_err *err)
{
	bool refused;

	if (!run_plain(s, ST_SAVEPOINT))
		return sqlite_fail(s, s->db, "writing", err);
	if (write_groups_range(s, b, from, to, &refused)) {
		if (!run_plain(s, ST_RELEASE_SAVEPOINT))
			return sqlite_fail(s, s->db, "writing", err);
		return OTA_OK;
	}
	if (!refused)
		return sqlite_fail(s, s->db, "writing", err);
	if (to - from == 1)
		b->groups[from].result = sqlite_fail(s, s->db, "writing", &b->groups[from].err);
	if (!run_plain(s, ST_ROLLBACK_TO) || !run_plain(s, ST_RELEASE_SAVEPOINT))
		return sqlite_fail(s, s->db, "writing", err);
	if (to - from == 1)
		return OTA_OK;
	size_t middle = from + (to - from) / 2;
	enum ota_code rc = write_bisecting(s, b, from, middle, err);
	return rc != OTA_OK ? rc : write_bisecting(s, b, middle, to, err);
}

/*
 * Inside the transaction, which may begin anew.  The first try goes without a savepoint, which
 * would copy every page before it is changed, for a refusal that hardly ever comes.
 */
static enum ota_code write_batch(struct sqlite_store *s, struct change_batch *b,
				 struct ota_err *err)
{
	bool refused;

	if (write_groups_range(s, b, 0, b->group_count, &refused))
		return OTA_OK;
	if (!refused)
		return sqlite_fail(s, s->db, "writing", err);
	if (!run_plain(s, ST_ROLLBACK) || !run_plain(s, ST_BEGIN))
		return sqlite_fail(s, s->db, "beginning a transaction again", err);
	return write_bisecting(s, b, 0, b->group_count, err);
}

static bool write_heartbeat(struct sqlite_store *s)
{
	sqlite3_stmt *st = statement(s, ST_HEARTBEAT);

	if (!st)
		return false;
	bind_time(st, 1, clock_wall_us());
	return run(st);
}

/*
 * A COMMIT that failed may have reached the log all the same (its sync failed, not its write), and
 * a restart would bring it back.  The next transaction is written over it: once that is durable the
 * failed one is certainly gone.
 */
static bool write_over(struct sqlite_store *s)
{
	if (!run_plain(s, ST_BEGIN))
		return false;
	if (write_heartbeat(s) && run_plain(s, ST_COMMIT))
		return true;
	if (!sqlite3_get_autocommit(s->db))
		(void)run_plain(s, ST_ROLLBACK);
	return false;
}

enum ota_code sqlite_prepare_frame(struct sqlite_store *s, struct ota_err *err)
{
	for (enum statement i = ST_SAVEPOINT; i <= ST_ROLLBACK; i++)
		if (!statement(s, i))
			return sqlite_fail(s, s->db, "preparing", err);
	return OTA_OK;
}

enum ota_code sqlite_commit(struct store *base, struct change_batch *b, struct ota_err *err)
{
	struct sqlite_store *s = (struct sqlite_store *)base;
	bool unsure = false;
	enum ota_code rc;

	/* Left open when the rollback failed too. */
	if (!sqlite3_get_autocommit(s->db) && !run_plain(s, ST_ROLLBACK))
		return sqlite_fail(s, s->db, "rolling back", err);
	if (!run_plain(s, ST_BEGIN))
		return sqlite_fail(s, s->db, "beginning a transaction", err);
	if (b->group_count == 0)
		rc = write_heartbeat(s) ? OTA_OK : sqlite_fail(s, s->db, "writing", err);
	else
		rc = write_batch(s, b, err);
	if (rc == OTA_OK && !run_plain(s, ST_COMMIT)) {
		rc = sqlite_fail(s, s->db, "committing", err);
		unsure = true;
	}
	if (rc != OTA_OK && !sqlite3_get_autocommit(s->db))
		(void)run_plain(s, ST_ROLLBACK); /* if not now, then before the next batch */
	if (unsure && !write_over(s))
		rc = err->code = OTA_EUNKNOWN;
	return rc;
}
