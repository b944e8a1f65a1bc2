/* SPDX-License-Identifier: MIT */
/* Releases made and deleted, and the great stop.  Each is a batch by itself. */
#include "commit/plan.h"

#include "base/buf.h"
#include "base/clock.h"
#include "core/policy.h"
#include "core/target.h"
#include "core/version.h"

#include <stdlib.h>
#include <string.h>

struct plan_work *plan_work(struct committer *c, struct command *cmd)
{
	struct plan_work *p = batch_alloc(&c->batch, sizeof *p);

	if (p) {
		memset(p, 0, sizeof *p);
		p->next = cmd->plan;
		cmd->plan = p;
	}
	return p;
}

char *batch_json(struct committer *c, struct buf *b)
{
	char *copy = buf_ok(b) ? batch_alloc(&c->batch, b->len + 1) : NULL;

	if (copy)
		memcpy(copy, b->data, b->len + 1);
	buf_fini(b);
	return copy;
}

/* --- releases --- */

const struct release *find_release(const struct model *m, const char *version)
{
	const struct release *r = m ? m->releases : NULL;

	while (r && !version_equal(r->version, version))
		r = r->next;
	return r;
}

static struct release *make_release(struct committer *c, const struct release_new *n)
{
	struct release *r = calloc(1, sizeof *r);

	if (!r)
		return NULL;
	r->version = r->model = r->min_version = r->inner_version = r->project = r->release_notes =
		"";
	if (!state_set_string(&r->version, n->version) || !state_set_string(&r->model, n->model) ||
	    !state_set_string(&r->min_version, n->min_version ? n->min_version : "") ||
	    !state_set_string(&r->inner_version, n->inner_version) ||
	    !state_set_string(&r->project, n->project) ||
	    !state_set_string(&r->release_notes, n->release_notes ? n->release_notes : "")) {
		release_free(&r);
		return NULL;
	}
	r->id = c->store->ops->next_id(c->store, ID_RELEASE);
	r->salt = target_salt(n->model, n->version);
	r->has_image_digest = n->has_image_digest;
	r->has_elf_digest = n->has_elf_digest;
	memcpy(r->sha256, n->sha256, DIGEST_SIZE);
	memcpy(r->image_digest, n->image_digest, DIGEST_SIZE);
	memcpy(r->elf_digest, n->elf_digest, DIGEST_SIZE);
	r->file_size = n->file_size;
	r->created_us = c->batch.now_us;
	r->secure_version = n->secure_version;
	r->chip = n->chip;
	return r;
}

static bool tell_warnings(struct command *cmd, const struct release_new *n, const struct model *m)
{
	char sentences[POLICY_WARNINGS_MAX][POLICY_SENTENCE_SIZE];
	struct release_facts f = {
		.version = n->version,
		.inner_version = n->inner_version,
		.project = n->project,
		.has_secure_version = n->image_json != NULL,
		.secure_version = n->secure_version,
	};
	int count = policy_warnings(&f, m->releases, sentences);
	struct buf b = BUF_INIT;

	json_open(&b, NULL, '[');
	for (int i = 0; i < count; i++)
		json_str(&b, NULL, sentences[i]);
	json_close(&b, ']');
	strcpy(cmd->warnings, "[]");
	bool ok = buf_ok(&b);
	if (ok && b.len < sizeof cmd->warnings)
		memcpy(cmd->warnings, b.data, b.len + 1);
	buf_fini(&b);
	return ok;
}

/* The release is there already: fine when it is the same file. */
static enum prepared release_again(struct committer *c, struct command *cmd,
				   const struct release *have)
{
	const struct release_new *n = &cmd->release;

	if (memcmp(have->sha256, n->sha256, DIGEST_SIZE) != 0)
		return prepare_fail(
			cmd, OTA_ECONFLICT,
			"release %s for %s %s with other bytes; give the new image a version of "
			"its own (a leading v makes none)",
			have->version, n->model,
			have->deleted ? "existed (and was deleted)" : "exists");
	cmd->out.id = have->id;
	cmd->out.existed = true;
	strcpy(cmd->warnings, "[]");
	if (!have->deleted)
		return PREPARED;
	struct plan_work *p = plan_work(c, cmd);
	struct change *ch = batch_change(&c->batch, CHANGE_RELEASE_DELETED);
	if (!p || !ch)
		return prepare_fail_nomem(cmd);
	ch->release_deleted.id = have->id;
	if (!batch_event(&c->batch, "firmware_uploaded", NULL, n->version, 0, NULL))
		return prepare_fail_nomem(cmd);
	p->release = (struct release *)(uintptr_t)have;
	return PREPARED;
}

static char *release_metadata(struct committer *c, const struct command *cmd)
{
	const struct release_new *n = &cmd->release;
	struct buf b = BUF_INIT;

	json_open(&b, NULL, '{');
	json_str(&b, "image_type", n->image_type);
	json_raw(&b, "image", n->image_json);
	json_raw(&b, "warnings", cmd->warnings);
	json_close(&b, '}');
	return batch_json(c, &b);
}

static char *release_event(struct committer *c, const struct command *cmd)
{
	const struct release_new *n = &cmd->release;
	struct buf b = BUF_INIT;

	json_open(&b, NULL, '{');
	json_str(&b, "device_model", n->model);
	json_int(&b, "file_size", n->file_size);
	json_int(&b, "release_id", cmd->out.id);
	json_close(&b, '}');
	return batch_json(c, &b);
}

enum prepared prepare_release_create(struct committer *c, struct command *cmd)
{
	const struct release_new *n = &cmd->release;
	struct model *m = fleet_model_ensure(c->fleet, n->model);

	if (!m)
		return prepare_fail_nomem(cmd);
	const struct release *have = find_release(m, n->version);
	if (have)
		return release_again(c, cmd, have);
	if (n->chip != CHIP_NONE && m->chip != CHIP_NONE && n->chip != m->chip)
		return prepare_fail(cmd, OTA_EUNPROCESSABLE,
				    "the image is for %s, the model %s is %s", chip_name(n->chip),
				    n->model, chip_name(m->chip));
	struct plan_work *p = tell_warnings(cmd, n, m) ? plan_work(c, cmd) : NULL;
	if (!p || !(p->new_release = make_release(c, n)))
		return prepare_fail_nomem(cmd);
	p->model = m;
	cmd->out.id = p->new_release->id;
	struct change *ch = batch_change(&c->batch, CHANGE_RELEASE_INSERT);
	if (!ch)
		return prepare_fail_nomem(cmd);
	ch->release.release = p->new_release;
	ch->release.file_path = n->file_path;
	ch->release.changelog = n->changelog;
	ch->release.release_notes = n->release_notes;
	ch->release.created_by = "api";
	ch->release.is_signed = n->is_signed;
	ch->release.metadata = release_metadata(c, cmd);
	const char *data = release_event(c, cmd);
	if (!ch->release.metadata || !data ||
	    !batch_event(&c->batch, "firmware_uploaded", NULL, n->version, 0, data))
		return prepare_fail_nomem(cmd);
	return PREPARED;
}

static bool find_pending(const struct device *d, void *ctx)
{
	struct withdrawal *w = ctx;
	const struct attempt *a = d->state.attempt;

	if (!a || !attempt_is_open(a->state) || (w->release_id && a->release_id != w->release_id) ||
	    (w->rollout_id && a->rollout_id != w->rollout_id))
		return true;
	if (a->state != ATTEMPT_PENDING) {
		w->begun = true;
		return true;
	}
	if (w->devices)
		w->devices[w->count] = (struct device *)(uintptr_t)d;
	w->count++;
	return true;
}

bool withdraw_pending(struct committer *c, struct command *cmd, struct withdrawal *w,
		      const char *why)
{
	bool defer, ok = true;
	const char *by = c->batch.by;
	size_t count;

	w->count = 0;
	fleet_visit(c->fleet, 0, FLEET_SHARDS, find_pending, w);
	count = w->count;
	if (count == 0)
		return true;
	w->devices = calloc(count, sizeof(struct device *));
	if (!w->devices)
		return false;
	w->count = 0;
	fleet_visit(c->fleet, 0, FLEET_SHARDS, find_pending, w);
	/* That somebody did it stands once in the log, with why: not at each device. */
	c->batch.by = NULL;
	for (size_t i = 0; i < count && ok; i++) {
		struct device_work *work = work_on_device(c, cmd, w->devices[i], &defer);
		ok = work && attempt_withdraw(c, work, why) != STEPPED_NOMEM;
	}
	c->batch.by = by;
	free(w->devices);
	w->devices = NULL;
	cmd->out.count = count;
	return ok;
}

static const char *deleted_data(struct committer *c, const struct release *r)
{
	struct buf b = BUF_INIT;

	json_open(&b, NULL, '{');
	json_str(&b, "device_model", r->model);
	json_int(&b, "release_id", r->id);
	if (c->batch.why)
		json_str(&b, "reason", c->batch.why);
	json_close(&b, '}');
	return batch_json(c, &b);
}

enum prepared prepare_release_delete(struct committer *c, struct command *cmd)
{
	const struct model *m = fleet_model(c->fleet, cmd->release_delete.model);
	const struct release *r = find_release(m, cmd->release_delete.version);
	struct withdrawal w = {.c = c};

	if (!r || r->deleted)
		return prepare_fail(cmd, OTA_ENOTFOUND, "no release %s for %s",
				    cmd->release_delete.version, cmd->release_delete.model);
	for (const struct rollout *o = m->rollouts; o; o = o->next)
		if ((o->active || o->walk.state == ROLLOUT_SCHEDULED) && o->release == r)
			return prepare_fail(
				cmd, OTA_ECONFLICT,
				"rollout %s (%lld) uses release %s; deactivate it first", o->name,
				(long long)o->id, r->version);
	w.release_id = r->id;
	fleet_visit(c->fleet, 0, FLEET_SHARDS, find_pending, &w);
	if (w.begun)
		return prepare_fail(
			cmd, OTA_ECONFLICT,
			"devices are updating to release %s; delete it when they are done",
			r->version);
	struct plan_work *p = plan_work(c, cmd);
	if (!p || !withdraw_pending(c, cmd, &w, "the release was deleted"))
		return prepare_fail_nomem(cmd);
	p->release = (struct release *)(uintptr_t)r;
	p->deleted = true;
	cmd->out.id = r->id;
	struct change *ch = batch_change(&c->batch, CHANGE_RELEASE_DELETED);
	if (!ch)
		return prepare_fail_nomem(cmd);
	ch->release_deleted.id = r->id;
	ch->release_deleted.deleted_us = c->batch.now_us;
	const char *data = deleted_data(c, r);
	return data && batch_event(&c->batch, "firmware_deleted", NULL, r->version, 0, data)
		       ? PREPARED
		       : prepare_fail_nomem(cmd);
}

bool release_set_suspect(struct committer *c, struct command *cmd, const struct release *r,
			 int64_t since_us)
{
	struct plan_work *p = plan_work(c, cmd);
	struct change *ch = p ? batch_change(&c->batch, CHANGE_RELEASE_SUSPECT) : NULL;

	if (!ch)
		return false;
	p->release = (struct release *)(uintptr_t)r;
	p->suspects = true;
	p->suspect_us = since_us;
	ch->release_suspect.id = r->id;
	ch->release_suspect.suspect_us = since_us;
	return true;
}

/* --- everything --- */

static const char *words_of_stop(struct fleet *f, char *out, size_t size)
{
	int64_t since_us;

	return fleet_stop_reason(f, out, size, &since_us) ? out : NULL;
}

static char *stop_event(struct committer *c, const char *reason)
{
	struct buf b = BUF_INIT;
	char had[2048];

	json_open(&b, NULL, '{');
	json_str(&b, "before", words_of_stop(c->fleet, had, sizeof had));
	json_str(&b, "after", reason);
	if (reason || c->batch.why)
		json_str(&b, "reason", reason ? reason : c->batch.why);
	json_close(&b, '}');
	return batch_json(c, &b);
}

enum prepared prepare_stop(struct committer *c, struct command *cmd)
{
	const char *reason = cmd->stop.reason;
	struct withdrawal w = {.c = c};
	char since[TIME_TEXT_SIZE];

	cmd->out.existed = fleet_is_stopped(c->fleet) == (reason != NULL);
	if (cmd->out.existed)
		return PREPARED;
	struct plan_work *p = plan_work(c, cmd);
	if (!p || (reason && !(p->stop_reason = strdup(reason))))
		return prepare_fail_nomem(cmd);
	p->stops = true;
	time_format(c->batch.now_us, since);
	char *value = reason ? batch_printf(&c->batch, "%s %s", since, reason) : NULL;
	struct change *ch = batch_change(&c->batch, CHANGE_STATE);
	if (!ch || (reason && !value))
		return prepare_fail_nomem(cmd);
	ch->state.key = STATE_STOPPED;
	ch->state.value = value;
	if (reason && !withdraw_pending(c, cmd, &w, "everything was stopped"))
		return prepare_fail_nomem(cmd);
	char *data = stop_event(c, reason);
	if (!data ||
	    !batch_event(&c->batch, reason ? "all_stopped" : "all_resumed", NULL, NULL, 0, data))
		return prepare_fail_nomem(cmd);
	return PREPARED;
}

static struct group_window *make_group_window(const struct command *cmd)
{
	const struct window *w = cmd->group_window.window;
	struct group_window *g = calloc(1, sizeof *g);

	if (g)
		g->group = "";
	if (g && (!state_set_string(&g->group, cmd->group_window.group) ||
		  (w && !(g->window = window_copy(w)))))
		group_window_free(&g);
	return g;
}

enum prepared prepare_group_window(struct committer *c, struct command *cmd)
{
	const char *group = cmd->group_window.group;
	const char *now = cmd->group_window.window ? cmd->group_window.window->text : NULL;
	const struct group_window *had = fleet_group_windows(c->fleet)->first;
	struct buf b = BUF_INIT;

	while (had && strcmp(had->group, group) != 0)
		had = had->next;
	cmd->out.existed = had ? now && strcmp(had->window->text, now) == 0 : !now;
	if (cmd->out.existed)
		return PREPARED;
	struct plan_work *p = plan_work(c, cmd);
	struct change *ch = p ? batch_change(&c->batch, CHANGE_STATE) : NULL;
	if (!ch || !(p->group_window = make_group_window(cmd)) ||
	    !(ch->state.key = batch_printf(&c->batch, STATE_GROUP_WINDOW "%s", group)))
		return prepare_fail_nomem(cmd);
	ch->state.value = now;
	json_open(&b, NULL, '{');
	json_str(&b, "group", group);
	json_str(&b, "before", had ? had->window->text : NULL);
	json_str(&b, "after", now);
	if (c->batch.why)
		json_str(&b, "reason", c->batch.why);
	json_close(&b, '}');
	const char *data = batch_json(c, &b);
	return data && batch_event(&c->batch, "group_window", NULL, NULL, 0, data)
		       ? PREPARED
		       : prepare_fail_nomem(cmd);
}
