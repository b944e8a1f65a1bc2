/* SPDX-License-Identifier: MIT */
#include "core/dispatch.h"

/* Windows to wait after the first, second, ... command that was not answered. */
static const int patience[] = {1, 5, 30, 1};
#define COMMANDS_MAX (int)(sizeof patience / sizeof patience[0])

static int64_t latest(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

/* An open attempt that was told, and whose device said nothing since. */
static enum dispatch judge_told(const struct attempt *a, bool offline,
				const struct dispatch_params *p)
{
	bool pending = a->state == ATTEMPT_PENDING;
	/* With commands at 0 it was told before it last came online. */
	int waited = a->commands < COMMANDS_MAX ? a->commands : COMMANDS_MAX;
	int64_t due_us = latest(a->commanded_us, a->accepted_us);

	if (!pending)
		due_us = latest(due_us, a->reported_us);
	due_us += p->window_us * (waited > 0 ? patience[waited - 1] : 1);
	if (offline)
		return pending && p->now_us >= a->commanded_us + p->window_us ? DISPATCH_LAPSE
									      : DISPATCH_NOTHING;
	if (p->now_us < due_us)
		return DISPATCH_NOTHING;
	/* What has begun goes on by itself, unless the device came back without it. */
	if (!pending)
		return a->commands == 0 ? DISPATCH_AGAIN : DISPATCH_NOTHING;
	return a->commands < COMMANDS_MAX ? DISPATCH_AGAIN : DISPATCH_LAPSE;
}

enum dispatch dispatch_judge(const struct device *d, const struct decision *x,
			     const struct dispatch_params *p)
{
	const struct device_link *l = d->state.link;
	const struct attempt *a = d->state.attempt;
	bool offline = l && l->presence == PRESENCE_OFFLINE;

	if (!l)
		return DISPATCH_NOTHING;
	if (a && attempt_is_open(a->state) && a->commanded_us) {
		if (decision_keeps(x, a->release_id)) {
			enum dispatch what = judge_told(a, offline, p);
			return what == DISPATCH_AGAIN && !decision_offers(x) ? DISPATCH_NOTHING
									     : what;
		}
		/* What is not meant any more is not told again. */
		if (a->state != ATTEMPT_PENDING)
			return DISPATCH_NOTHING;
		return decision_offers(x) && !offline ? DISPATCH_OPEN : DISPATCH_LAPSE;
	}
	if (!decision_offers(x) || offline || (l->silent_us && d->last_seen_us <= l->silent_us))
		return DISPATCH_NOTHING;
	if (!a || !attempt_is_open(a->state))
		return DISPATCH_OPEN;
	/* Offered over HTTP, and taken there or not: asking is an answer too. */
	if (a->state != ATTEMPT_PENDING)
		return DISPATCH_NOTHING;
	if (x->release->id != a->release_id)
		return DISPATCH_OPEN;
	return p->now_us >= a->opened_us + p->window_us ? DISPATCH_AGAIN : DISPATCH_NOTHING;
}

bool dispatch_is_busy(const struct attempt *a, int64_t now_us)
{
	if (a->state != ATTEMPT_PENDING && a->state != ATTEMPT_DOWNLOADING)
		return false;
	return now_us - latest(latest(a->opened_us, a->commanded_us),
			       latest(a->accepted_us, a->reported_us)) <
	       DISPATCH_QUIET_US;
}
