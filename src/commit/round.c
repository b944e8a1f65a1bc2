/* SPDX-License-Identifier: MIT */
#include "commit/round.h"

#include "base/clock.h"
#include "core/dispatch.h"

#include <stdlib.h>
#include <string.h>

/* So many devices are looked at in a step: commits wait for it, so steps are short and far apart.
 */
#define LOOKS_PER_STEP  10000
#define STEP_MS         400
#define LAPSES_PER_STEP 500
#define FLUSH_PER_TICK  8192 /* devices */

static void free_command(struct command *cmd)
{
	free(cmd);
}

struct look {
	struct committer *c;
	struct command_list *out;
	int64_t now_us, not_after_us; /* not_after_us 0: nothing lapses yet */
};

static bool count_place(const struct device *d, void *ctx)
{
	struct look *s = ctx;
	const struct attempt *a = d->state.attempt;

	if (!a || !dispatch_is_busy(a, s->now_us))
		return true;
	struct rollout *by = (struct rollout *)(uintptr_t)fleet_rollout(s->c->fleet, a->rollout_id);
	s->c->busy_next++;
	if (by)
		by->busy_next++;
	return true;
}

static bool look_at(const struct device *d, void *ctx)
{
	struct look *s = ctx;
	const struct attempt *a = d->state.attempt;

	if (!a)
		return true;
	count_place(d, s);
	/* What was told over MQTT lapses when it is not answered: presence.c. */
	if (a->state != ATTEMPT_PENDING || a->commanded_us || a->opened_us > s->not_after_us ||
	    s->out->count >= LAPSES_PER_STEP)
		return true;
	size_t len = strlen(d->device_id) + 1;
	struct command *cmd = calloc(1, sizeof *cmd + len);
	if (!cmd)
		return true; /* another time */
	cmd->kind = COMMAND_LAPSE;
	cmd->lapse.device_id = memcpy(cmd + 1, d->device_id, len);
	cmd->lapse.not_after_us = s->not_after_us;
	cmd->done = free_command;
	list_push(s->out, cmd);
	return true;
}

/* A round over the fleet is complete: what it counted stands. */
static void end_round(struct committer *c)
{
	c->busy = c->busy_next;
	c->busy_next = 0;
	for (const struct model *m = fleet_models(c->fleet); m; m = m->next)
		for (struct rollout *r = m->rollouts; r; r = r->next) {
			r->busy = r->busy_next;
			r->busy_next = 0;
		}
}

void round_begin(struct committer *c)
{
	/* What was told before a restart keeps its place. */
	struct look s = {.c = c, .now_us = clock_service_us()};

	fleet_visit(c->fleet, 0, FLEET_SHARDS, count_place, &s);
	end_round(c);
	c->round.started_ms = clock_mono_ms();
	c->round.next_look_ms = c->round.started_ms + 1000;
}

void round_look(struct committer *c, struct command_list *out)
{
	struct round *r = &c->round;
	size_t count = fleet_device_count(c->fleet);
	int step = count > LOOKS_PER_STEP ? (int)(FLEET_SHARDS * LOOKS_PER_STEP / count) + 1
					  : FLEET_SHARDS;
	int from = r->look_shard, to = from + step < FLEET_SHARDS ? from + step : FLEET_SHARDS;
	int64_t patience_us = 3 * c->cfg.poll_interval_s * US_PER_S;
	struct look s = {.c = c, .out = out, .now_us = clock_service_us()};

	/* While the service was down nobody could download: they count from its start. */
	if (clock_mono_ms() - r->started_ms >= patience_us / 1000)
		s.not_after_us = s.now_us - patience_us;
	fleet_visit(c->fleet, from, to, look_at, &s);
	r->look_shard = to < FLEET_SHARDS ? to : 0;
	c->in_round = r->look_shard != 0;
	if (r->look_shard == 0)
		end_round(c);
	r->next_look_ms = clock_mono_ms() + (step < FLEET_SHARDS ? STEP_MS : 1000);
}

void round_flush(struct committer *c, struct command_list *out)
{
	struct round *r = &c->round;
	size_t count = fleet_device_count(c->fleet);
	int step = count > FLUSH_PER_TICK ? (int)(FLEET_SHARDS * FLUSH_PER_TICK / count)
					  : FLEET_SHARDS;
	int from = r->flush_shard, to = from + (step > 0 ? step : 1);

	if (from == FLEET_SHARDS) {
		if (clock_mono_ms() < r->next_flush_ms)
			return;
		from = 0;
		to = step > 0 ? step : 1;
	}
	if (from == 0)
		r->next_flush_ms = clock_mono_ms() + c->cfg.last_seen_flush_s * 1000;
	if (to > FLEET_SHARDS)
		to = FLEET_SHARDS;
	struct command *flush = calloc(1, sizeof *flush);
	if (!flush)
		return; /* the next tick tries again */
	flush->kind = COMMAND_FLUSH_SEEN;
	flush->flush_seen.from = from;
	flush->flush_seen.to = to;
	flush->done = free_command;
	list_push(out, flush);
	r->flush_shard = to;
}
