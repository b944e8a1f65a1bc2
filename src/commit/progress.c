/* SPDX-License-Identifier: MIT */
#include "commit/progress.h"

#include "commit/batch.h"

#include "core/runs.h"
#include "core/target.h"

#include <string.h>

struct count {
	struct committer *committer;
	const struct rollout *rollout;
	struct progress *out;
};

/* Of a rollout that takes a release back: who runs that still, and whom it has brought back. */
static bool count_brought_back(const struct device *d, struct count *n)
{
	struct stage_facts *f = &n->out->facts;
	bool seen = d->last_seen_us > f->now_us - STAGE_SEEN_US;
	bool is_back = !decide_brings_back(d, n->rollout);
	enum gate_standing standing = GATE_STANDING_NONE;

	if (is_back && runs_release(d, n->rollout->release))
		standing = committer_gate_standing(n->committer, n->rollout, d);
	if (is_back && standing == GATE_STANDING_NONE)
		return true;
	f->devices++;
	f->seen += seen;
	n->out->on_version += is_back;
	f->proven += standing == GATE_STANDING_PROVEN;
	return true;
}

static bool count_device(const struct device *d, void *ctx)
{
	struct count *n = ctx;
	struct stage_facts *f = &n->out->facts;

	if (n->rollout->back.from)
		return count_brought_back(d, n);
	if (!target_includes(n->rollout, d))
		return true;
	f->devices++;
	f->seen += d->last_seen_us > f->now_us - STAGE_SEEN_US;
	if (!runs_release(d, n->rollout->release))
		return true;
	n->out->on_version++;
	switch (committer_gate_standing(n->committer, n->rollout, d)) {
	case GATE_STANDING_PROVEN: f->proven++; break;
	case GATE_STANDING_NOT_PROVEN: break;
	/* It came to it in another way.  With an attempt still in memory it was not seen to run it
	 * yet: it says so, no more. */
	case GATE_STANDING_NONE: f->proven += d->state.attempt == NULL; break;
	}
	return true;
}

static void weigh(void *ctx, const struct gate *g)
{
	*(double *)ctx = gate_view(g).e;
}

void progress_count(struct committer *c, const struct rollout *r, int64_t now_us,
		    struct progress *out)
{
	struct count n = {c, r, out};

	memset(out, 0, sizeof *out);
	out->facts.now_us = now_us;
	out->facts.stopped = fleet_is_stopped(c->fleet);
	out->facts.evidence = 1;
	out->facts.may_be_nobody = r->back.from != NULL;
	committer_gate(c, r, weigh, &out->facts.evidence);
	fleet_visit(c->fleet, 0, FLEET_SHARDS, count_device, &n);
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
