/* SPDX-License-Identifier: MIT */
/* PostgreSQL: what each change is in rows of which statements. */
#include "store/postgres_rows.h"

#include "base/hash.h"
#include "core/stage.h"
#include "core/target.h"

#include <string.h>

/* --- each change: its rows, in the order of the statement's columns --- */

static void add_link(struct pg_columns *c, const struct device_link *l)
{
	static const struct device_link none = {.site = "", .other_site = ""};

	if (!l)
		l = &none;
	pg_add_known(c, l->site);
	pg_add_int(c, (int)l->form);
	if (l->presence == PRESENCE_UNKNOWN)
		pg_add_null(c);
	else
		pg_add_int(c, l->presence == PRESENCE_ONLINE);
	pg_add_time(c, l->presence_us);
	pg_add_known(c, l->other_site);
	pg_add_time(c, l->conflict_us);
	if (l->heard_us)
		pg_add_bytes(c, l->heard, sizeof l->heard);
	else
		pg_add_null(c);
	pg_add_time(c, l->heard_us);
	pg_add_time(c, l->silent_us);
}

static void put_device(struct pg_rows *r, const struct change *ch)
{
	const struct device *d = ch->device.device;
	const struct device_state *n = ch->device.state;
	struct pg_columns *c = pg_begin(r, ch->device.same ? PG_DEVICE_SAME : PG_DEVICE_PUT);
	char mac[MAC_TEXT_SIZE];

	if (n->mac)
		mac_format(n->mac, mac);
	pg_add_int(c, d->id);
	pg_add_text(c, n->mac ? mac : NULL);
	pg_add_known(c, n->version);
	pg_add_known(c, n->hw);
	pg_add_int(c, (int64_t)n->boot_hash);
	pg_add_time(c, n->booted_us);
	pg_add_time(c, n->boot_seen_us);
	pg_add_hex(c, n->digests && n->digests->has_firmware,
		   n->digests ? n->digests->firmware : NULL);
	pg_add_hex(c, n->digests && n->digests->has_elf, n->digests ? n->digests->elf : NULL);
	pg_add_int(c, n->ran_release_id);
	pg_add_known(c, n->ran_as);
	add_link(c, n->link);
	pg_add_time(c, n->retry_us);
	pg_add_known(c, n->ran_from);
	if (ch->device.same)
		return;
	pg_add_text(c, d->device_id);
	pg_add_known(c, n->model);
	pg_add_time(c, d->last_seen_us);
	pg_add_time(c, d->created_us);
	pg_add_int(c, d->habit_us);
}

static void put_device_id(struct pg_rows *r, enum pg_statement which, const char *device_id)
{
	pg_add_text(pg_begin(r, which), device_id);
}

static void put_label(struct pg_rows *r, const struct change *ch)
{
	struct pg_columns *c = pg_begin(r, ch->label.notes ? PG_DEVICE_NOTES : PG_DEVICE_LABEL);

	pg_add_text(c, ch->label.device_id);
	pg_add_text(c, ch->label.value);
}

static void put_groups(struct pg_rows *r, const struct change *ch)
{
	const struct string_list *l = ch->groups.groups;

	put_device_id(r, PG_GROUPS_CLEAR, ch->groups.device_id);
	for (size_t i = 0; l && i < l->count; i++) {
		struct pg_columns *c = pg_begin(r, PG_GROUP_ADD);
		pg_add_text(c, ch->groups.device_id);
		pg_add_text(c, l->items[i]);
	}
}

static void put_attempt(struct pg_rows *r, const struct change *ch, enum pg_statement which)
{
	const struct attempt *a = ch->attempt.attempt;
	struct pg_columns *c = pg_begin(r, which);

	pg_add_int(c, a->id);
	pg_add_text(c, ch->attempt.error_message);
	if (a->percent >= 0)
		pg_add_int(c, a->percent);
	else
		pg_add_null(c);
	pg_add_time(c, ch->attempt.started_us);
	pg_add_time(c, a->reported_us);
	pg_add_time(c, a->installing_us);
	pg_add_time(c, a->accepted_us);
	if (which == PG_ATTEMPT_PROGRESS)
		return;
	pg_add_text(c, attempt_status_word(a->state));
	if (which == PG_ATTEMPT_MOVE)
		return;
	pg_add_time(c, ch->attempt.completed_us);
	pg_add_text(c, attempt_closed_word(a->state));
	pg_add_text(c, ch->attempt.closed_why);
	pg_add_int(c, a->settled);
	pg_add_time(c, a->commanded_us);
	pg_add_int(c, a->commands);
	if (which == PG_ATTEMPT_UPDATE) {
		pg_add_bool(c, attempt_is_open(a->state));
		return;
	}
	pg_add_text(c, ch->attempt.device_id);
	pg_add_text(c, a->version);
	pg_add_known(c, a->token);
	pg_add_id(c, a->release_id);
	pg_add_id(c, a->rollout_id);
	pg_add_int(c, a->unsolicited);
	pg_add_known(c, a->from_version);
	pg_add_time(c, a->opened_us);
}

static void put_failures(struct pg_rows *r, const struct change *ch)
{
	const struct failure_count *f = &ch->failures.failures;
	bool put = f->count + f->passing > 0;
	struct pg_columns *c = pg_begin(r, put ? PG_FAILURES_PUT : PG_FAILURES_REMOVE);

	pg_add_text(c, ch->failures.device_id);
	pg_add_int(c, f->release_id);
	if (!put)
		return;
	pg_add_int(c, f->count);
	pg_add_int(c, f->passing);
	pg_add_id(c, f->code);
}

static void put_event(struct pg_rows *r, const struct change *ch)
{
	struct pg_columns *c = pg_begin(r, PG_EVENT);

	pg_add_text(c, ch->event.type);
	pg_add_text(c, ch->event.device_id);
	pg_add_text(c, ch->event.version);
	pg_add_id(c, ch->event.rollout_id);
	pg_add_json(c, ch->event.data);
	pg_add_time(c, ch->event.created_us);
	pg_add_text(c, ch->event.created_by);
}

static void put_release(struct pg_rows *r, const struct change *ch)
{
	const struct release *rel = ch->release.release;
	struct pg_columns *c = pg_begin(r, PG_RELEASE_INSERT);

	pg_add_int(c, rel->id);
	pg_add_text(c, rel->version);
	pg_add_text(c, rel->model);
	pg_add_known(c, rel->min_version);
	pg_add_text(c, ch->release.file_path);
	pg_add_int(c, rel->file_size);
	pg_add_hex(c, true, rel->sha256);
	pg_add_text(c, ch->release.changelog);
	pg_add_text(c, ch->release.release_notes);
	pg_add_bool(c, ch->release.is_signed);
	pg_add_time(c, rel->created_us);
	pg_add_text(c, ch->release.created_by);
	pg_add_json(c, ch->release.metadata);
}

static void put_rollout(struct pg_rows *r, const struct change *ch)
{
	const struct rollout *o = ch->rollout.rollout;
	struct pg_columns *c = pg_begin(r, PG_ROLLOUT_INSERT);

	pg_add_int(c, o->id);
	pg_add_text(c, o->name);
	pg_add_text(c, o->release->version);
	pg_add_text(c, o->release->model);
	pg_add_text(c, target_type_word(o->target.type));
	pg_add_json(c, ch->rollout.target_filter);
	pg_add_int(c, o->target.percent);
	pg_add_bool(c, o->active);
	pg_add_time(c, o->created_us);
	pg_add_time(c, o->created_us);
	pg_add_text(c, ch->rollout.created_by);
	pg_add_json(c, ch->rollout.metadata);
	pg_add_int(c, o->release->id);
	pg_add_int(c, o->allow_downgrade);
	pg_add_int(c, o->max_attempts);
	pg_add_int(c, o->max_parallel);
	pg_add_json(c, ch->rollout.stages);
	pg_add_time(c, o->not_before_us);
	pg_add_time(c, o->deadline_us);
	pg_add_int(c, o->priority);
	pg_add_known(c, o->requires);
	pg_add_text(c, rollout_state_name(o->walk.state));
	pg_add_int(c, o->walk.stage + 1);
	pg_add_time(c, o->walk.state_since_us);
	pg_add_time(c, o->walk.stage_since_us);
	pg_add_text(c, o->window ? o->window->text : NULL);
}

static void put_walk(struct pg_rows *r, const struct change *ch)
{
	const struct walk *w = ch->rollout_walk.walk;
	struct pg_columns *c = pg_begin(r, PG_ROLLOUT_WALK);

	pg_add_int(c, ch->rollout_walk.rollout->id);
	pg_add_bool(c, ch->rollout_walk.active);
	pg_add_time(c, ch->rollout_walk.updated_us);
	pg_add_int(c, ch->rollout_walk.percent);
	pg_add_text(c, rollout_state_name(w->state));
	pg_add_known(c, w->reason);
	pg_add_time(c, w->state_since_us);
	pg_add_int(c, w->stage + 1);
	pg_add_time(c, w->stage_since_us);
	pg_add_int(c, w->held_us);
	pg_add_int(c, w->approved);
}

static struct pg_columns *put_time(struct pg_rows *r, enum pg_statement which, int64_t id,
				   int64_t us)
{
	struct pg_columns *c = pg_begin(r, which);

	pg_add_int(c, id);
	pg_add_time(c, us);
	return c;
}

static void put_seen(struct pg_rows *r, const struct change *ch)
{
	struct pg_columns *c = put_time(r, PG_DEVICE_SEEN, ch->seen.id, ch->seen.last_seen_us);

	pg_add_int(c, ch->seen.habit_us);
}

static void put_learnt(struct pg_rows *r, const struct change *ch)
{
	struct pg_columns *c = pg_begin(r, PG_RELEASE_LEARNT);

	pg_add_int(c, ch->release_learnt.id);
	pg_add_json(c, ch->release_learnt.names);
}

static void put_rejected(struct pg_rows *r, const struct change *ch)
{
	struct pg_columns *c = pg_begin(r, PG_REJECTED);

	pg_add_text(c, ch->rejected.device_id);
	pg_add_text(c, ch->rejected.topic);
	pg_add_bytes(c, ch->rejected.payload_len ? ch->rejected.payload : "",
		     ch->rejected.payload_len);
	pg_add_text(c, ch->rejected.reason);
	pg_add_text(c, ch->rejected.detail);
	pg_add_time(c, ch->rejected.created_us);
	if (pg_row_count(r, PG_REJECTED_PRUNE) == 0)
		pg_add_int(pg_begin(r, PG_REJECTED_PRUNE), REJECTED_KEPT);
}

static void put_state(struct pg_rows *r, const struct change *ch)
{
	struct pg_columns *c = pg_begin(r, ch->state.value ? PG_STATE_PUT : PG_STATE_REMOVE);

	pg_add_text(c, ch->state.key);
	if (ch->state.value)
		pg_add_text(c, ch->state.value);
}

static void put_alert(struct pg_rows *r, const struct change *ch)
{
	struct pg_columns *c;

	switch (ch->alert.what) {
	case ALERT_RAISE:
		c = pg_begin(r, PG_ALERT_RAISE);
		pg_add_int(c, ch->alert.id);
		pg_add_text(c, alert_kind_names[ch->alert.kind]);
		pg_add_text(c, ch->alert.subject);
		pg_add_text(c, alert_severity(ch->alert.kind));
		pg_add_text(c, ch->alert.sentence);
		pg_add_time(c, ch->alert.at_us);
		pg_add_json(c, ch->alert.data);
		break;
	case ALERT_CLEAR: put_time(r, PG_ALERT_CLEAR, ch->alert.id, ch->alert.at_us); break;
	default:
		c = put_time(r, PG_ALERT_ACKNOWLEDGE, ch->alert.id, ch->alert.at_us);
		pg_add_text(c, ch->alert.by);
		pg_add_text(c, ch->alert.reason);
	}
}

static void put_webhook(struct pg_rows *r, const struct change *ch)
{
	static const enum pg_statement which[] = {
		[WEBHOOK_ADD] = PG_WEBHOOK_ADD,
		[WEBHOOK_SENT] = PG_WEBHOOK_SENT,
		[WEBHOOK_FAILED] = PG_WEBHOOK_FAILED,
		[WEBHOOK_GIVEN_UP] = PG_WEBHOOK_GIVEN_UP,
	};
	struct pg_columns *c = pg_begin(r, which[ch->webhook.what]);

	if (ch->webhook.what == WEBHOOK_ADD) {
		pg_add_int(c, ch->webhook.alert_id);
		pg_add_text(c, ch->webhook.cleared ? "cleared" : "raised");
		pg_add_text(c, ch->webhook.target);
		pg_add_time(c, ch->webhook.at_us);
		return;
	}
	pg_add_int(c, ch->webhook.id);
	if (ch->webhook.what != WEBHOOK_SENT)
		pg_add_text(c, ch->webhook.error);
	if (ch->webhook.what != WEBHOOK_GIVEN_UP)
		return;
	pg_add_time(c, ch->webhook.at_us);
	if (pg_row_count(r, PG_WEBHOOK_PRUNE) == 0)
		pg_add_int(pg_begin(r, PG_WEBHOOK_PRUNE), WEBHOOKS_KEPT);
}

static void put_prune(struct pg_rows *r, const struct change *ch)
{
	bool events = ch->prune.what == PRUNE_EVENTS;
	struct pg_columns *c;

	/* Events may go while the state says so, and no later: a trigger holds them else. */
	if (events)
		pg_add_time(pg_begin(r, PG_PRUNE_BEGIN), ch->prune.before_us);
	c = pg_begin(r, events ? PG_PRUNE_EVENTS : PG_PRUNE_ATTEMPTS);
	pg_add_int(c, ch->prune.after_id);
	pg_add_int(c, ch->prune.upto_id);
	pg_add_time(c, ch->prune.before_us);
	if (events)
		pg_add_int(pg_begin(r, PG_PRUNE_END), 1);
}

/* --- what a change speaks of: its key, the first and the last of its statements --- */

#define KEY_PLAN  1
#define KEY_ALERT 2
#define KEY_STATE 3

static uint64_t key_of_device(const char *device_id)
{
	return hash64(device_id, strlen(device_id)) | 4;
}

static struct pg_place at(uint64_t key, enum pg_statement first, enum pg_statement last)
{
	return (struct pg_place){key, NO_KEY, first, last};
}

/* A device by its row: what CHANGE_DEVICE_SEEN names. */
static uint64_t key_of_row(int64_t id)
{
	return hash64(&id, sizeof id) | 4;
}

static struct pg_place place_of_device(const struct change *ch)
{
	enum pg_statement which = ch->device.same ? PG_DEVICE_SAME : PG_DEVICE_PUT;
	const struct device *d = ch->device.device;

	return (struct pg_place){key_of_device(d->device_id), key_of_row(d->id), which, which};
}

static enum pg_statement attempt_statement(const struct change *ch)
{
	static const enum pg_statement of[] = {
		[ATTEMPT_CHANGES] = PG_ATTEMPT_UPDATE,
		[ATTEMPT_MOVES_ON] = PG_ATTEMPT_MOVE,
		[ATTEMPT_PROGRESSES] = PG_ATTEMPT_PROGRESS,
	};

	return ch->kind == CHANGE_ATTEMPT_INSERT ? PG_ATTEMPT_INSERT : of[ch->attempt.reach];
}

struct pg_place pg_place_of(const struct change *ch)
{
	enum pg_statement a;

	switch (ch->kind) {
	case CHANGE_DEVICE_PUT: return place_of_device(ch);
	case CHANGE_DEVICE_SEEN: return at(key_of_row(ch->seen.id), PG_DEVICE_SEEN, PG_DEVICE_SEEN);
	case CHANGE_DEVICE_LABEL:
		a = ch->label.notes ? PG_DEVICE_NOTES : PG_DEVICE_LABEL;
		return at(key_of_device(ch->label.device_id), a, a);
	case CHANGE_DEVICE_GROUPS:
		return at(key_of_device(ch->groups.device_id), PG_GROUPS_CLEAR, PG_GROUP_ADD);
	case CHANGE_DEVICE_DELETE:
		return at(key_of_device(ch->device_delete.device_id), PG_GROUPS_CLEAR,
			  PG_DEVICE_DELETE);
	case CHANGE_ATTEMPT_INSERT:
	case CHANGE_ATTEMPT_UPDATE:
		a = attempt_statement(ch);
		return at(key_of_device(ch->attempt.device_id), a, a);
	case CHANGE_FAILURES:
		return at(key_of_device(ch->failures.device_id), PG_FAILURES_PUT,
			  PG_FAILURES_REMOVE);
	case CHANGE_EVENT: return at(NO_KEY, PG_EVENT, PG_EVENT);
	case CHANGE_REJECTED: return at(NO_KEY, PG_REJECTED, PG_REJECTED_PRUNE);
	case CHANGE_RELEASE_INSERT: return at(KEY_PLAN, PG_RELEASE_INSERT, PG_RELEASE_INSERT);
	case CHANGE_RELEASE_DELETED: return at(KEY_PLAN, PG_RELEASE_DELETED, PG_RELEASE_DELETED);
	case CHANGE_RELEASE_LEARNT: return at(KEY_PLAN, PG_RELEASE_LEARNT, PG_RELEASE_LEARNT);
	case CHANGE_RELEASE_SUSPECT: return at(KEY_PLAN, PG_RELEASE_SUSPECT, PG_RELEASE_SUSPECT);
	case CHANGE_ROLLOUT_INSERT: return at(KEY_PLAN, PG_ROLLOUT_INSERT, PG_ROLLOUT_INSERT);
	case CHANGE_ROLLOUT_WALK: return at(KEY_PLAN, PG_ROLLOUT_WALK, PG_ROLLOUT_WALK);
	case CHANGE_STATE: return at(KEY_STATE, PG_STATE_PUT, PG_STATE_REMOVE);
	case CHANGE_ALERT: return at(KEY_ALERT, PG_ALERT_CLEAR, PG_ALERT_RAISE);
	case CHANGE_WEBHOOK: return at(KEY_ALERT, PG_WEBHOOK_ADD, PG_WEBHOOK_PRUNE);
	case CHANGE_PRUNE: return at(KEY_STATE, PG_PRUNE_ATTEMPTS, PG_PRUNE_END);
	case CHANGE_ROLLOUT_PRUNED: return at(KEY_PLAN, PG_ROLLOUT_PRUNED, PG_ROLLOUT_PRUNED);
	}
	return at(NO_KEY, PG_EVENT, PG_EVENT);
}

void pg_put_change(struct pg_rows *r, const struct change *ch)
{
	switch (ch->kind) {
	case CHANGE_DEVICE_PUT: put_device(r, ch); break;
	case CHANGE_DEVICE_SEEN: put_seen(r, ch); break;
	case CHANGE_DEVICE_LABEL: put_label(r, ch); break;
	case CHANGE_DEVICE_GROUPS: put_groups(r, ch); break;
	case CHANGE_DEVICE_DELETE:
		put_device_id(r, PG_GROUPS_CLEAR, ch->device_delete.device_id);
		put_device_id(r, PG_FAILURES_CLEAR, ch->device_delete.device_id);
		put_device_id(r, PG_DEVICE_DELETE, ch->device_delete.device_id);
		break;
	case CHANGE_ATTEMPT_INSERT:
	case CHANGE_ATTEMPT_UPDATE: put_attempt(r, ch, attempt_statement(ch)); break;
	case CHANGE_FAILURES: put_failures(r, ch); break;
	case CHANGE_EVENT: put_event(r, ch); break;
	case CHANGE_RELEASE_INSERT: put_release(r, ch); break;
	case CHANGE_RELEASE_DELETED:
		put_time(r, PG_RELEASE_DELETED, ch->release_deleted.id,
			 ch->release_deleted.deleted_us);
		break;
	case CHANGE_RELEASE_LEARNT: put_learnt(r, ch); break;
	case CHANGE_RELEASE_SUSPECT:
		put_time(r, PG_RELEASE_SUSPECT, ch->release_suspect.id,
			 ch->release_suspect.suspect_us);
		break;
	case CHANGE_ROLLOUT_INSERT: put_rollout(r, ch); break;
	case CHANGE_ROLLOUT_WALK: put_walk(r, ch); break;
	case CHANGE_REJECTED: put_rejected(r, ch); break;
	case CHANGE_STATE: put_state(r, ch); break;
	case CHANGE_ALERT: put_alert(r, ch); break;
	case CHANGE_WEBHOOK: put_webhook(r, ch); break;
	case CHANGE_PRUNE: put_prune(r, ch); break;
	case CHANGE_ROLLOUT_PRUNED:
		put_time(r, PG_ROLLOUT_PRUNED, ch->rollout_pruned.id, ch->rollout_pruned.at_us);
		break;
	}
}
