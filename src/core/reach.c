/* SPDX-License-Identifier: MIT */
#include "core/reach.h"

#include "base/clock.h"
#include "core/target.h"

#include <stdlib.h>
#include <string.h>

#define ONLINE_BIN 0

bool reach_init(struct reach *c, const struct rollout *r, const struct model *m,
		const struct decide_params *p, int64_t poll_interval_us)
{
	memset(c, 0, sizeof *c);
	c->rollout = r;
	c->model = m;
	c->params = *p;
	c->params.ask = NULL;
	c->params.stopped = c->params.full = false;
	c->poll_interval_us = poll_interval_us;
	c->cells = calloc((size_t)r->stage_count, sizeof *c->cells);
	return c->cells != NULL;
}

void reach_fini(struct reach *c)
{
	for (int64_t i = 0; i < c->taken; i++) {
		free(c->variants[i].hw);
		free(c->variants[i].from);
	}
	free(c->cells);
	memset(c, 0, sizeof *c);
}

int reach_stage_of(const struct rollout *r, const struct device *d)
{
	uint64_t bucket = target_bucket(d, r->release);

	if (!target_selects(r, d))
		return -1;
	for (int i = 0; i < r->stage_count; i++) {
		int percent = r->stages[i].percent;

		if (r->target.type == TARGET_SPECIFIC || percent >= 100 ||
		    bucket < UINT64_MAX / 100 * (uint64_t)percent || bucket == r->lowest_hash)
			return i;
	}
	return -1;
}

bool reach_is_offer(const struct decision *x, const struct rollout *r)
{
	return x->rollout == r &&
	       (x->reason == REASON_OFFER || x->reason == REASON_OUTSIDE_WINDOW ||
		x->reason == REASON_WAITS || x->reason == REASON_RETRY_LATER);
}

static int bin_of(int64_t interval_us)
{
	int bin = 1;

	for (int64_t s = interval_us / US_PER_S; s > 1 && bin < REACH_BINS - 1; s /= 2)
		bin++;
	return bin;
}

static int64_t variant_of(struct reach *c, const struct device *d)
{
	const char *hw = d->state.hw, *from = d->state.version;
	int64_t i = 0;

	while (i < c->taken &&
	       (strcmp(c->variants[i].hw, hw) != 0 || strcmp(c->variants[i].from, from) != 0))
		i++;
	if (i < c->taken)
		return i;
	if (c->taken == REACH_VARIANTS)
		return REACH_VARIANTS - 1;
	if (i == REACH_VARIANTS - 1)
		hw = from = "";
	c->variants[i] = (struct reach_variant){.hw = strdup(hw), .from = strdup(from)};
	c->taken++;
	if (c->variants[i].hw && c->variants[i].from)
		return i;
	free(c->variants[i].hw);
	free(c->variants[i].from);
	c->taken--;
	c->out_of_memory = true;
	return -1;
}

static void add_offered(struct reach *c, int stage, const struct device *d)
{
	int64_t habit_us = d->habit_us ? d->habit_us : c->poll_interval_us;
	int64_t within_us = 2 * habit_us > STAGE_SEEN_US ? 2 * habit_us : STAGE_SEEN_US;
	bool online = device_is_online(&d->state);
	int64_t v = variant_of(c, d);

	if (v < 0)
		return;
	c->stages[stage].to_update++;
	c->variants[v].to_update++;
	if (!online && d->last_seen_us <= c->params.now_us - within_us)
		return;
	struct reach_cell *cell = &c->cells[stage][v][online ? ONLINE_BIN : bin_of(habit_us)];
	cell->count++;
	cell->interval_us_sum += habit_us;
	c->stages[stage].reachable++;
	c->variants[v].reachable++;
}

/* What it would be told if nothing were under way; whether another rollout takes it on.  Only what
 * is decided by is copied: other fields belong to the committer, which writes them meanwhile. */
static enum reason ask(const struct reach *c, const struct device *d, bool *stone)
{
	struct device idle = {.hash = d->hash, .device_id = d->device_id, .state = d->state};

	idle.state.attempt = NULL;
	struct decision x = decide(&idle, c->model, &c->params);
	if (reach_is_offer(&x, c->rollout))
		return REASON_OFFER;
	enum reason why = decide_rollout(&idle, c->rollout);
	*stone = x.rollout != c->rollout && x.reason == REASON_OFFER &&
		 (why == REASON_BELOW_REQUIRED || why == REASON_BELOW_MIN_VERSION);
	return why == REASON_OFFER ? REASON_NEWER_ROLLOUT_WINS : why;
}

void reach_add(struct reach *c, const struct device *d, enum reach_standing standing)
{
	bool stone = false;
	int stage;

	if (!target_selects(c->rollout, d))
		return;
	c->selected++;
	stage = reach_stage_of(c->rollout, d);
	if (stage < 0)
		return;
	struct reach_stage *s = &c->stages[stage];
	s->devices++;
	s->seen +=
		device_is_online(&d->state) || d->last_seen_us > c->params.now_us - STAGE_SEEN_US;
	s->done += standing == REACH_DONE;
	s->trial += standing == REACH_TRIAL;
	if (standing != REACH_NEW)
		return;
	enum reason why = ask(c, d, &stone);
	if (why == REASON_OFFER) {
		add_offered(c, stage, d);
		return;
	}
	c->refused[why]++;
	c->stones += stone;
}

/* Of all stages and variants. */
static struct reach_cell cell_sum(const struct reach *c, int bin)
{
	struct reach_cell sum = {0};

	for (int s = 0; s < c->rollout->stage_count; s++)
		for (int64_t v = 0; v < c->taken; v++) {
			sum.count += c->cells[s][v][bin].count;
			sum.interval_us_sum += c->cells[s][v][bin].interval_us_sum;
		}
	return sum;
}

int64_t reach_median_us(const struct reach *c)
{
	int64_t total = 0, below = 0;

	for (int bin = 0; bin < REACH_BINS; bin++)
		total += cell_sum(c, bin).count;
	for (int bin = 0; bin < REACH_BINS; bin++) {
		struct reach_cell sum = cell_sum(c, bin);

		below += sum.count;
		if (total && below * 2 >= total && sum.count)
			return bin == ONLINE_BIN ? US_PER_S : sum.interval_us_sum / sum.count;
	}
	return 0;
}

int64_t reach_slower_than(const struct reach *c, int64_t interval_us)
{
	int64_t n = 0;

	for (int bin = ONLINE_BIN + 1; bin < REACH_BINS; bin++) {
		struct reach_cell sum = cell_sum(c, bin);

		if (sum.count && sum.interval_us_sum / sum.count > interval_us)
			n += sum.count;
	}
	return n;
}
