/* SPDX-License-Identifier: MIT */
/* What operators do to devices: another try, labels and groups, removal; and the soft state's
 * flush. */
#include "commit/gates.h"
#include "commit/plan.h"
#include "commit/tally.h"

#include "core/version.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* {"before": BEFORE, ..., "reason"}: what somebody did, and why.  Opened by the caller. */
static const char *end_audit(struct committer *c, struct buf *b)
{
	if (c->batch.why)
		json_str(b, "reason", c->batch.why);
	json_close(b, '}');
	return batch_json(c, b);
}

static const char *retry_data(struct committer *c, const struct failure_count *f)
{
	struct buf b = BUF_INIT;

	json_open(&b, NULL, '{');
	json_open(&b, "before", '{');
	json_int(&b, "failures", f->count);
	json_int(&b, "passing", f->passing);
	if (f->code)
		json_int(&b, "result_code", f->code);
	json_close(&b, '}');
	return end_audit(c, &b);
}

enum prepared prepare_retry(struct committer *c, struct command *cmd)
{
	struct device *d = fleet_find(c->fleet, cmd->retry.device_id);
	bool defer = false;

	if (!d)
		return prepare_fail(cmd, OTA_ENOTFOUND, "no device is called %s",
				    cmd->retry.device_id);
	struct device_work *w = work_on_device(c, cmd, d, &defer);
	if (defer)
		return PREPARED_DEFER;
	if (!w)
		return prepare_fail_nomem(cmd);
	for (const struct failure_count *f = d->state.failures; f && f->release_id; f++) {
		const struct release *r = fleet_release(c->fleet, f->release_id);
		if (cmd->retry.version && (!r || !version_equal(r->version, cmd->retry.version)))
			continue;
		struct change *ch = batch_change(&c->batch, CHANGE_FAILURES);
		struct failure_count none = {.release_id = f->release_id};
		if (!ch || !state_set_failures(&w->next, &none))
			return prepare_fail_nomem(cmd);
		ch->failures.device_id = d->device_id;
		ch->failures.failures = none;
		const char *data = retry_data(c, f);
		if (!data || !batch_event(&c->batch, "retry_allowed", d->device_id,
					  r ? r->version : NULL, 0, data))
			return prepare_fail_nomem(cmd);
		cmd->out.count++;
	}
	if (w->next.retry_us) {
		w->next.retry_us = 0;
		if (!put_device(c, w))
			return prepare_fail_nomem(cmd);
	}
	return PREPARED;
}

/* The groups after the edit, into the new state. */
static bool edit_groups(struct committer *c, struct device_work *w, const struct device_edit *e)
{
	const struct string_list *had = w->next.groups;
	size_t n = 0, had_count = had ? had->count : 0;
	const char **names;

	if (e->set_groups)
		return state_set_groups(&w->next, e->groups, e->group_count);
	names = batch_alloc(&c->batch, (had_count + 1) * sizeof *names);
	if (!names)
		return false;
	for (size_t i = 0; i < had_count; i++)
		if (!e->remove_group || strcmp(had->items[i], e->remove_group) != 0)
			names[n++] = had->items[i];
	if (e->add_group)
		names[n++] = e->add_group;
	return state_set_groups(&w->next, names, n);
}

static bool put_label(struct committer *c, const struct device *d, const char *value, bool notes)
{
	struct change *ch = batch_change(&c->batch, CHANGE_DEVICE_LABEL);

	if (!ch)
		return false;
	ch->label.device_id = d->device_id;
	ch->label.value = value;
	ch->label.notes = notes;
	return true;
}

/* The change that writes the device's groups; the one of an edit before it in the same command. */
static struct change *groups_change(struct committer *c, const struct command *cmd,
				    const struct device *d)
{
	struct batch *b = &c->batch;

	for (size_t i = cmd->first_change; i < b->store.change_count; i++)
		if (b->store.changes[i].kind == CHANGE_DEVICE_GROUPS &&
		    b->store.changes[i].groups.device_id == d->device_id)
			return &b->store.changes[i];
	return batch_change(b, CHANGE_DEVICE_GROUPS);
}

static bool edit_device(struct committer *c, const struct command *cmd, struct device_work *w,
			const struct device_edit *e)
{
	if (e->set_groups || e->add_group || e->remove_group) {
		struct change *ch = groups_change(c, cmd, w->device);
		if (!ch || !edit_groups(c, w, e))
			return false;
		ch->groups.device_id = w->device->device_id;
		ch->groups.groups = w->next.groups;
	}
	return (!e->set_label || put_label(c, w->device, e->label, false)) &&
	       (!e->set_notes || put_label(c, w->device, e->notes, true));
}

/* --- what was, what is, and why --- */

/* What people call it, which is in the store alone. */
struct called {
	struct batch *batch;
	const char *label, *notes; /* NULL: nothing */
	bool ok;
};

static bool see_called(void *ctx, const struct row_device *row)
{
	struct called *k = ctx;

	if (row->label)
		k->ok &= (k->label = batch_strdup(k->batch, row->label)) != NULL;
	if (row->notes)
		k->ok &= (k->notes = batch_strdup(k->batch, row->notes)) != NULL;
	return false;
}

static enum ota_code read_called(struct committer *c, const struct device *d, struct called *out,
				 struct ota_err *err)
{
	struct list_query q = {.device_id = d->device_id, .limit = 1};

	*out = (struct called){.batch = &c->batch, .ok = true};
	enum ota_code rc = c->store->ops->list_devices(c->store, &q, see_called, out, err);
	return rc == OTA_OK && !out->ok ? ota_fail_nomem(err) : rc;
}

static void json_groups(struct buf *b, const struct string_list *groups)
{
	json_open(b, "groups", '[');
	for (size_t i = 0; groups && i < groups->count; i++)
		json_str(b, NULL, groups->items[i]);
	json_close(b, ']');
}

static void json_edited(struct buf *b, const char *key, const struct device_edit *e,
			const struct string_list *groups, const char *label, const char *notes)
{
	json_open(b, key, '{');
	if (e->set_groups || e->add_group || e->remove_group)
		json_groups(b, groups);
	if (e->set_label)
		json_str(b, "label", label);
	if (e->set_notes)
		json_str(b, "notes", notes);
	json_close(b, '}');
}

static bool note_edit(struct committer *c, const struct device_work *w, const struct device_edit *e,
		      const struct called *was)
{
	struct buf b = BUF_INIT;

	json_open(&b, NULL, '{');
	json_edited(&b, "before", e, w->device->state.groups, was->label, was->notes);
	json_edited(&b, "after", e, w->next.groups, e->label, e->notes);
	const char *data = end_audit(c, &b);
	return data && batch_event(&c->batch, "device_edited", w->device->device_id,
				   w->next.version, 0, data);
}

/* The same command names a device twice: both edits go into one work. */
static struct device_work *edited_before(const struct command *cmd, const struct device *d)
{
	struct device_work *w = cmd->devices;

	while (w && w->device != d)
		w = w->link;
	return w;
}

enum prepared prepare_edit(struct committer *c, struct command *cmd)
{
	for (size_t i = 0; i < cmd->edit.count; i++) {
		const struct device_edit *e = &cmd->edit.edits[i];
		struct device *d = fleet_find(c->fleet, e->device_id);
		bool defer = false;
		if (!d)
			return prepare_fail(cmd, OTA_ENOTFOUND, "no device is called %s",
					    e->device_id);
		struct device_work *w = edited_before(cmd, d);
		if (!w)
			w = work_on_device(c, cmd, d, &defer);
		if (defer)
			return PREPARED_DEFER;
		struct called was = {0};
		if (w && (e->set_label || e->set_notes) &&
		    read_called(c, d, &was, &cmd->err) != OTA_OK) {
			cmd->code = cmd->err.code;
			return PREPARED_FAIL;
		}
		if (!w || !edit_device(c, cmd, w, e) || !note_edit(c, w, e, &was))
			return prepare_fail_nomem(cmd);
		cmd->out.count++;
	}
	return PREPARED;
}

static const char *deleted_data(struct committer *c, const struct device *d)
{
	struct buf b = BUF_INIT;

	json_open(&b, NULL, '{');
	json_open(&b, "before", '{');
	json_str(&b, "device_model", d->state.model);
	json_groups(&b, d->state.groups);
	json_close(&b, '}');
	return end_audit(c, &b);
}

enum prepared prepare_device_delete(struct committer *c, struct command *cmd)
{
	struct device *d = fleet_find(c->fleet, cmd->device_delete.device_id);
	bool defer = false;

	if (!d)
		return prepare_fail(cmd, OTA_ENOTFOUND, "no device is called %s",
				    cmd->device_delete.device_id);
	struct device_work *w = work_on_device(c, cmd, d, &defer);
	if (defer)
		return PREPARED_DEFER;
	if (!w)
		return prepare_fail_nomem(cmd);
	/* Nothing of it stays open: what had begun can never be told of again. */
	const struct attempt *a = w->next.attempt;
	struct attempt_word word = {
		.event = EVENT_SUPERSEDE, .percent = -1, .why = "the device was deleted"};
	if (a && a->state == ATTEMPT_INSTALLING)
		word.event = EVENT_REPORT_FAILED;
	if (a && a->state != ATTEMPT_PENDING)
		word.error = "the device was deleted while it was updating";
	if (a && attempt_is_open(a->state) && attempt_step(c, w, a, &word) == STEPPED_NOMEM)
		return prepare_fail_nomem(cmd);
	/* A success that is not seen by now never will be. */
	if (w->next.attempt && !attempt_settle(c, w, ""))
		return prepare_fail_nomem(cmd);
	struct change *ch =
		gates_note_delete(c, w) ? batch_change(&c->batch, CHANGE_DEVICE_DELETE) : NULL;
	if (!ch)
		return prepare_fail_nomem(cmd);
	ch->device_delete.device_id = d->device_id;
	const char *data = deleted_data(c, d);
	if (!data ||
	    !batch_event(&c->batch, "device_deleted", d->device_id, d->state.version, 0, data))
		return prepare_fail_nomem(cmd);
	w->removed = true;
	return PREPARED;
}

/* --- the soft state --- */

static bool flush_one(const struct device *d, void *ctx)
{
	struct committer *c = ctx;
	struct device *w = (struct device *)(uintptr_t)d;

	tallies_hear(c, w);
	if (!atomic_exchange(&w->seen_dirty, false))
		return true;
	struct change *ch = batch_change(&c->batch, CHANGE_DEVICE_SEEN);
	if (!ch) {
		w->seen_dirty = true;
		return false;
	}
	ch->seen.id = d->id;
	ch->seen.last_seen_us = d->last_seen_us;
	ch->seen.habit_us = d->habit_us;
	return true;
}

static bool mark_unsaid(const struct device *d, void *ctx)
{
	fleet_mark_seen(ctx, d);
	return true;
}

void flush_undo(struct committer *c)
{
	fleet_visit(c->fleet, 0, FLEET_SHARDS, mark_unsaid, c->fleet);
}

static int by_row(const void *a, const void *b)
{
	int64_t x = ((const struct change *)a)->seen.id, y = ((const struct change *)b)->seen.id;

	return (x > y) - (x < y);
}

enum prepared prepare_flush_seen(struct committer *c, struct command *cmd)
{
	size_t first = c->batch.store.change_count;

	if (fleet_visit_touched(c->fleet, cmd->flush_seen.from, cmd->flush_seen.to, flush_one, c)) {
		/* Rows of a page one after the other. */
		if (c->batch.store.change_count > first)
			qsort(c->batch.store.changes + first, c->batch.store.change_count - first,
			      sizeof(struct change), by_row);
		return PREPARED;
	}
	flush_undo(c);
	return prepare_fail_nomem(cmd);
}
