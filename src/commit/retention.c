/* SPDX-License-Identifier: MIT */
#include "commit/retention.h"

#include "base/clock.h"
#include "base/log.h"
#include "commit/gates.h"
#include "commit/plan.h"

#include <inttypes.h>
#include <stdlib.h>

#define PASS_EVERY_MS 3600000
#define AGAIN_MS      60000 /* after a failure */
#define DAY_US        (INT64_C(86400) * US_PER_S)
/* Others wait for a step: it looks at so many rows as take about so long. */
#define STEP_US    20000
#define ROWS_FIRST 128
#define ROWS_LEAST 64
#define ROWS_MOST  4096

/* --- the clock --- */

#define JUMP_US    DAY_US
#define UNUSUAL_US (30 * DAY_US) /* for nothing to be stored */

static int64_t anchor_us(void)
{
	return clock_service_us() - clock_mono_ms() * 1000;
}

static void wait_a_day(struct retention *t, const char *why, int64_t us)
{
	log_event(LOG_WARNING, "retention", "waits",
		  "%s %" PRId64 " days: nothing is removed for a day; set the clock right if it is "
		  "wrong",
		  why, (us + (us < 0 ? -DAY_US : DAY_US) / 2) / DAY_US);
	t->stage = RETAIN_RELEASES;
	t->after_id = 0;
	t->anchor_us = anchor_us();
	t->next_pass_ms = clock_mono_ms() + DAY_US / 1000;
}

static bool see_newest(void *ctx, const struct row_event *row)
{
	int64_t *newest_us = ctx;

	if (row->created_at)
		(void)time_parse(row->created_at, newest_us);
	return false;
}

void retention_begin(struct committer *c)
{
	const struct list_query newest = {.active = -1, .limit = 1};
	int64_t newest_us = 0;
	struct ota_err err;

	c->retention.anchor_us = anchor_us();
	if (c->cfg.keep_days == 0 ||
	    c->store->ops->list_events(c->store, &newest, see_newest, &newest_us, &err) != OTA_OK)
		return;
	int64_t since_us = clock_service_us() - newest_us;
	if (newest_us && since_us > UNUSUAL_US)
		wait_a_day(&c->retention, "nothing was stored for", since_us);
}

static bool has_jumped(struct retention *t)
{
	int64_t us = anchor_us() - t->anchor_us;

	if (us < JUMP_US && us > -JUMP_US)
		return false;
	wait_a_day(t, "the clock has jumped by", us);
	return true;
}

/* --- releases that are over --- */

static bool is_over(const struct rollout *r, int64_t before_us)
{
	return (r->walk.state == ROLLOUT_COMPLETED || r->walk.state == ROLLOUT_ABORTED) &&
	       r->walk.state_since_us < before_us;
}

/* As far as memory tells: it has rollouts with a history, and all are over. */
static bool may_be_given_up(struct committer *c, const struct model *m, const struct release *rel,
			    int64_t before_us)
{
	bool any = false;

	for (const struct rollout *r = m->rollouts; r; r = r->next) {
		if (r->release != rel)
			continue;
		if (!is_over(r, before_us))
			return false;
		any |= !r->pruned_us;
	}
	return any && !gates_are_open(&c->gates, rel);
}

/* The next such release by id; NULL: there is none. */
static const struct release *next_release(struct committer *c, int64_t after_id, int64_t before_us)
{
	const struct release *found = NULL;

	for (const struct model *m = fleet_models(c->fleet); m; m = m->next)
		for (const struct release *rel = m->releases; rel; rel = rel->next)
			if (rel->id > after_id && (!found || rel->id < found->id) &&
			    may_be_given_up(c, m, rel, before_us))
				found = rel;
	return found;
}

/* Whether nothing has happened in its rollouts since. */
static enum ota_code is_quiet(struct committer *c, const struct release *rel, int64_t before_us,
			      bool *quiet, struct ota_err *err)
{
	const struct model *m = fleet_model(c->fleet, rel->model);
	enum ota_code rc = OTA_OK;
	int64_t last_us;

	*quiet = true;
	for (const struct rollout *r = m->rollouts; r && *quiet && rc == OTA_OK; r = r->next) {
		if (r->release != rel)
			continue;
		rc = c->store->ops->rollout_last_us(c->store, r->id, &last_us, err);
		*quiet = rc == OTA_OK && last_us < before_us;
	}
	return rc;
}

/* --- a step --- */

static void step_done(struct command *cmd)
{
	struct committer *c = cmd->owner;
	struct retention *t = &c->retention;
	int64_t took_us = clock_service_us() - cmd->prune.begun_us;

	t->under_way = false;
	if (cmd->code != OTA_OK) {
		t->next_pass_ms = clock_mono_ms() + AGAIN_MS;
	} else if (cmd->prune.release) {
		t->after_id = cmd->prune.release->id;
	} else {
		t->after_id = cmd->prune.upto_id;
		*(cmd->prune.what == PRUNE_EVENTS ? &t->events : &t->attempts) += cmd->prune.rows;
		if (took_us > STEP_US && t->rows > ROWS_LEAST)
			t->rows /= 2;
		else if (took_us < STEP_US / 2 && t->rows < ROWS_MOST)
			t->rows *= 2;
	}
	free(cmd);
}

static void submit(struct committer *c, struct command_list *out, const struct command *what)
{
	struct command *cmd = calloc(1, sizeof *cmd);

	if (!cmd)
		return; /* the next tick tries again */
	cmd->kind = COMMAND_PRUNE;
	cmd->prune = what->prune;
	cmd->done = step_done;
	cmd->owner = c;
	c->retention.under_way = true;
	list_push(out, cmd);
}

/* The next stage of the pass, or its end. */
static void go_on(struct committer *c)
{
	struct retention *t = &c->retention;

	t->after_id = 0;
	if (t->stage != RETAIN_EVENTS) {
		t->stage++;
		return;
	}
	if (t->attempts + t->events > 0)
		log_event(LOG_INFO, "retention", "pruned",
			  "%" PRId64 " attempts and %" PRId64 " events of more than %" PRId64
			  " days ago",
			  t->attempts, t->events, c->cfg.keep_days);
	t->stage = RETAIN_RELEASES;
	t->attempts = t->events = 0;
	t->next_pass_ms = clock_mono_ms() + PASS_EVERY_MS;
}

static void look_at_releases(struct committer *c, struct command_list *out, int64_t before_us)
{
	struct command cmd = {.prune = {.before_us = before_us}};

	cmd.prune.release = next_release(c, c->retention.after_id, before_us);
	if (cmd.prune.release)
		submit(c, out, &cmd);
	else
		go_on(c);
}

static enum ota_code look_at_rows(struct committer *c, struct command_list *out, int64_t before_us,
				  struct ota_err *err)
{
	struct retention *t = &c->retention;
	struct command cmd = {.prune = {.before_us = before_us, .after_id = t->after_id}};
	struct prune_range found;

	cmd.prune.what = t->stage == RETAIN_EVENTS ? PRUNE_EVENTS : PRUNE_ATTEMPTS;
	enum ota_code rc = c->store->ops->prune_range(c->store, cmd.prune.what, t->after_id,
						      before_us, (int)t->rows, &found, err);
	if (rc != OTA_OK)
		return rc;
	/* Ids rise with time: behind these nothing is older. */
	if (found.rows == 0 || found.oldest_us >= before_us) {
		go_on(c);
	} else if (found.prunable == 0) {
		t->after_id = found.upto_id;
	} else {
		cmd.prune.upto_id = found.upto_id;
		cmd.prune.rows = found.prunable;
		submit(c, out, &cmd);
	}
	return OTA_OK;
}

void retention_step(struct committer *c, struct command_list *out)
{
	struct retention *t = &c->retention;
	int64_t begun_us = clock_service_us();
	int64_t before_us = begun_us - c->cfg.keep_days * DAY_US;
	int64_t over_us =
		begun_us - GATES_KEPT_US < before_us ? begun_us - GATES_KEPT_US : before_us;
	enum ota_code rc = OTA_OK;
	struct ota_err err;

	if (c->cfg.keep_days == 0 || t->under_way || has_jumped(t))
		return;
	if (t->rows == 0)
		t->rows = ROWS_FIRST;
	while (rc == OTA_OK && !t->under_way && clock_mono_ms() >= t->next_pass_ms &&
	       clock_service_us() - begun_us < STEP_US)
		if (t->stage == RETAIN_RELEASES)
			look_at_releases(c, out, over_us);
		else
			rc = look_at_rows(c, out, before_us, &err);
	if (rc == OTA_OK)
		return;
	log_event(LOG_WARNING, "retention", "not_pruned", "%s", err.msg);
	t->next_pass_ms = clock_mono_ms() + AGAIN_MS;
}

/* --- the command --- */

static enum prepared give_up(struct committer *c, struct command *cmd)
{
	const struct release *rel = cmd->prune.release;
	const struct model *m = fleet_model(c->fleet, rel->model);
	int64_t before_us = cmd->prune.before_us;
	bool quiet;

	/* Something may have begun since it was chosen. */
	if (!may_be_given_up(c, m, rel, before_us))
		return PREPARED;
	cmd->code = is_quiet(c, rel, before_us, &quiet, &cmd->err);
	if (cmd->code != OTA_OK || !quiet)
		return cmd->code != OTA_OK ? PREPARED_FAIL : PREPARED;
	struct plan_work *p = plan_work(c, cmd);
	if (!p)
		return prepare_fail_nomem(cmd);
	p->pruned = rel;
	for (const struct rollout *r = m->rollouts; r; r = r->next) {
		if (r->release != rel || r->pruned_us)
			continue;
		struct change *ch = batch_change(&c->batch, CHANGE_ROLLOUT_PRUNED);
		if (!ch)
			return prepare_fail_nomem(cmd);
		ch->rollout_pruned.id = r->id;
		ch->rollout_pruned.at_us = c->batch.now_us;
	}
	return PREPARED;
}

enum prepared prepare_prune(struct committer *c, struct command *cmd)
{
	cmd->prune.begun_us = clock_service_us();
	if (cmd->prune.release)
		return give_up(c, cmd);
	struct change *ch = batch_change(&c->batch, CHANGE_PRUNE);
	if (!ch)
		return prepare_fail_nomem(cmd);
	ch->prune.what = cmd->prune.what;
	ch->prune.after_id = cmd->prune.after_id;
	ch->prune.upto_id = cmd->prune.upto_id;
	ch->prune.before_us = cmd->prune.before_us;
	return PREPARED;
}
