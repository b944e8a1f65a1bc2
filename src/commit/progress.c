/* SPDX-License-Identifier: MIT */
#include "commit/progress.h"

#include "commit/batch.h"
#include "commit/tally.h"

#include "base/clock.h"
#include "core/runs.h"
#include "core/target.h"

#include <string.h>

/* Of a rollout that takes a release back: who runs that still, and whom it has brought back. */
static struct progress_share share_of_way_back(struct committer *c, const struct rollout *r,
					       const struct device *d, standing_fn *standing)
{
	enum gate_standing s = GATE_STANDING_NONE;

	if (decide_brings_back(d, r))
		return (struct progress_share){.in = true};
	if (runs_release(d, r->release))
		s = standing(c, r, d);
	if (s == GATE_STANDING_NONE)
		return (struct progress_share){0};
	return (struct progress_share){true, true, s == GATE_STANDING_PROVEN};
}

struct progress_share progress_share(struct committer *c, const struct rollout *r,
				     const struct device *d, standing_fn *standing)
{
	struct progress_share s = {0};

	if (r->back.from)
		return share_of_way_back(c, r, d, standing);
	s.in = target_includes(r, d);
	s.on_version = s.in && runs_release(d, r->release);
	if (!s.on_version)
		return s;
	switch (standing(c, r, d)) {
	case GATE_STANDING_PROVEN: s.proven = true; break;
	case GATE_STANDING_NOT_PROVEN: break;
	/* It came to it in another way.  With an attempt still in memory it was not seen to run it
	 * yet: it says so, no more. */
	case GATE_STANDING_NONE: s.proven = d->state.attempt == NULL; break;
	}
	return s;
}

int32_t progress_hour(int64_t us)
{
	return (int32_t)(us / (3600 * US_PER_S));
}

static void weigh(void *ctx, const struct gate *g)
{
	*(double *)ctx = gate_view(g).e;
}

/* What is not counted. */
static void begin(struct committer *c, const struct rollout *r, int64_t now_us,
		  struct progress *out)
{
	out->facts.now_us = now_us;
	out->facts.stopped = fleet_is_stopped(c->fleet);
	out->facts.evidence = 1;
	out->facts.may_be_nobody = r->back.from != NULL;
	committer_gate(c, r, weigh, &out->facts.evidence);
}

bool progress_known(struct committer *c, const struct rollout *r, int64_t now_us,
		    struct progress *out)
{
	begin(c, r, now_us, out);
	return tally_read(c, r, now_us, out);
}

struct count {
	struct committer *committer;
	const struct rollout *rollout;
	struct progress *out;
	int32_t seen_from;
};

static bool count_device(const struct device *d, void *ctx)
{
	struct count *n = ctx;
	struct progress_share s =
		progress_share(n->committer, n->rollout, d, committer_gate_standing);

	n->out->facts.devices += s.in;
	n->out->facts.seen += s.in && (device_is_online(&d->state) ||
				       progress_hour(fleet_heard_us(d, 0)) >= n->seen_from);
	n->out->on_version += s.on_version;
	n->out->facts.proven += s.proven;
	return true;
}

void progress_count(struct committer *c, int64_t rollout_id, int64_t now_us, struct progress *out)
{
	struct count n = {c, NULL, out, progress_hour(now_us - STAGE_SEEN_US)};

	out->facts.devices = out->facts.seen = out->facts.proven = out->on_version = 0;
	for (int shard = 0; shard < FLEET_SHARDS; shard++) {
		fleet_plan_read(c->fleet);
		n.rollout = fleet_rollout(c->fleet, rollout_id);
		if (n.rollout)
			fleet_visit(c->fleet, shard, shard + 1, count_device, &n);
		fleet_plan_done(c->fleet);
	}
}

struct moved progress_moved(struct fleet *f, const struct device *d,
			    const struct device_state *next)
{
	const struct attempt *was = d->state.attempt, *is = next->attempt;
	struct moved m = {0};

	if (!was || !was->rollout_id || (is && is->id == was->id && is->state == was->state))
		return m;
	const struct model *model = fleet_model(f, d->state.model);
	m.rollout = model ? model->rollouts : NULL;
	while (m.rollout && m.rollout->id != was->rollout_id)
		m.rollout = m.rollout->next;
	m.forward =
		is && is->id == was->id && is->state > was->state && is->state <= ATTEMPT_SUCCESS;
	return m;
}

void progress_note(const struct moved *m, int64_t now_us)
{
	if (!m->rollout)
		return;
	m->rollout->moves++;
	if (m->forward)
		m->rollout->progressed_us = now_us;
}
