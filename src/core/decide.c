/* SPDX-License-Identifier: MIT */
#include "core/decide.h"

#include "base/clock.h"
#include "core/retry.h"
#include "core/runs.h"
#include "core/target.h"
#include "core/version.h"
#include "core/window.h"

#include <stdio.h>
#include <string.h>

static struct failure_count failures_at(const struct device *d, int64_t release_id)
{
	const struct failure_count *f = d->state.failures;

	for (; f && f->release_id; f++)
		if (f->release_id == release_id)
			return *f;
	return (struct failure_count){.release_id = release_id};
}

static enum reason decide_target(const struct device *d, const struct rollout *r)
{
	if (strcmp(d->state.model, r->release->model) != 0)
		return REASON_OTHER_MODEL;
	if (target_includes(r, d))
		return REASON_OFFER;
	if (target_selects(r, d))
		return REASON_OUTSIDE_PERCENT;
	return r->target.type == TARGET_GROUP ? REASON_NOT_IN_GROUP : REASON_NOT_NAMED;
}

/* What it ran before the release that is taken back: is another rollout there for that? */
static bool is_others(const struct takeback *b, const char *before)
{
	for (size_t i = 0; b->others && i < b->others->count; i++)
		if (version_equal(b->others->items[i], before))
			return true;
	return false;
}

bool decide_brings_back(const struct device *d, const struct rollout *r)
{
	const struct takeback *b = &r->back;

	if (!target_includes(r, d) || !runs_release(d, b->from))
		return false;
	const char *before = d->state.ran_release_id == b->from->id ? d->state.ran_from : "";
	return version_equal(before, r->release->version) || (b->rest && !is_others(b, before));
}

/* Whether a device that runs HAS may, where LEAST ("" any) is needed. */
static enum reason decide_least(const char *has, const char *least, enum reason below,
				enum reason incomparable)
{
	if (!least[0])
		return REASON_OFFER;
	switch (version_compare(has, least)) {
	case VERSION_LOWER: return below;
	case VERSION_INCOMPARABLE: return incomparable;
	case VERSION_SAME:
	case VERSION_HIGHER: break;
	}
	return REASON_OFFER;
}

static enum reason decide_version(const struct device *d, const struct rollout *r)
{
	const struct release *rel = r->release;
	const char *has = d->state.version;

	if (runs_release(d, rel))
		return REASON_UP_TO_DATE;
	if (!r->allow_downgrade && version_compare(has, rel->version) == VERSION_HIGHER)
		return REASON_DOWNGRADE;
	enum reason why = decide_least(has, rel->min_version, REASON_BELOW_MIN_VERSION,
				       REASON_MIN_VERSION_INCOMPARABLE);
	if (why == REASON_OFFER)
		why = decide_least(has, r->requires, REASON_BELOW_REQUIRED,
				   REASON_REQUIRED_INCOMPARABLE);
	if (why != REASON_OFFER)
		return why;
	struct failure_count f = failures_at(d, rel->id);
	switch (retry_end(&f, r->max_attempts)) {
	case RETRY_IN_VAIN: return REASON_IN_VAIN;
	case RETRY_TOO_MANY: return REASON_TOO_MANY_FAILURES;
	case RETRY_GOES_ON: break;
	}
	return REASON_OFFER;
}

enum reason decide_rollout(const struct device *d, const struct rollout *r)
{
	if (!r->active)
		return r->walk.state == ROLLOUT_HALTED ? REASON_HALTED : REASON_INACTIVE;
	enum reason why = decide_target(d, r);
	if (why == REASON_OFFER && r->back.from && !decide_brings_back(d, r))
		why = REASON_NOT_ON_IT;
	return why == REASON_OFFER ? decide_version(d, r) : why;
}

/* How near a refusal was to an offer: the nearest one is what an operator wants to hear. */
static int nearness(enum reason reason)
{
	switch (reason) {
	case REASON_TOO_MANY_FAILURES:
	case REASON_IN_VAIN:
	case REASON_TAKEN_BACK:
	case REASON_DOWNGRADE:
	case REASON_BELOW_MIN_VERSION:
	case REASON_MIN_VERSION_INCOMPARABLE:
	case REASON_BELOW_REQUIRED:
	case REASON_REQUIRED_INCOMPARABLE: return 3;
	case REASON_OUTSIDE_PERCENT: return 2;
	case REASON_NOT_IN_GROUP:
	case REASON_NOT_NAMED: return 1;
	case REASON_NOT_ON_IT: return -1;
	default: return 0;
	}
}

/* It includes the device, or would in a later stage. */
static bool would_reach(const struct device *d, const struct rollout *r)
{
	enum reason why = decide_target(d, r);

	return why == REASON_OFFER || why == REASON_OUTSIDE_PERCENT;
}

/* One before R takes back what R has: else the device would go to and fro between them. */
static bool is_taken_back(const struct device *d, const struct model *m, const struct rollout *r)
{
	for (const struct rollout *o = m->rollouts; o != r; o = o->next)
		if (o->back.from == r->release && o->walk.state != ROLLOUT_ABORTED &&
		    target_selects(o, d))
			return true;
	return false;
}

static struct decision decide_by_rollouts(const struct device *d, const struct model *m)
{
	struct decision refused = {.reason = REASON_NO_ROLLOUT};

	for (const struct rollout *r = m->rollouts; r; r = r->next) {
		enum reason why = decide_rollout(d, r);
		if (why == REASON_INACTIVE)
			continue;
		if (why == REASON_OFFER && is_taken_back(d, m, r))
			why = REASON_TAKEN_BACK;
		if (why == REASON_HALTED && !would_reach(d, r))
			continue;
		if (why == REASON_OFFER || why == REASON_UP_TO_DATE)
			return (struct decision){
				.reason = why, .release = r->release, .rollout = r};
		if (refused.reason == REASON_NO_ROLLOUT || nearness(why) > nearness(refused.reason))
			refused = (struct decision){
				.reason = why, .release = r->release, .rollout = r};
	}
	return refused;
}

static const struct release *find_release(const struct model *m, int64_t id)
{
	for (const struct release *r = m->releases; r; r = r->next)
		if (r->id == id)
			return r;
	return NULL;
}

static const struct rollout *find_rollout(const struct model *m, int64_t id)
{
	for (const struct rollout *r = m->rollouts; r; r = r->next)
		if (r->id == id)
			return r;
	return NULL;
}

/* The gate's word of what is offered for the first time, or (AGAIN) is not begun yet. */
static struct decision ask_gate(struct decision x, const struct device *d,
				const struct decide_params *p, bool again)
{
	if (!p->ask || !x.rollout)
		return x;
	x.gate = p->ask(p->ask_ctx, d, x.rollout);
	switch (x.gate.answer) {
	case GATE_FREE: break;
	case GATE_HALTED: x.reason = REASON_HALTED; break;
	case GATE_VARIANT_HELD: x.reason = REASON_VARIANT_HELD; break;
	case GATE_FULL:
	case GATE_VARIANT_FULL:
	case GATE_TURN:
	case GATE_CLOGGED: x.reason = again ? x.reason : REASON_NO_PLACE; break;
	}
	return x;
}

static bool is_in_group(const struct device *d, const char *group)
{
	for (size_t i = 0; i < d->state.groups->count; i++)
		if (strcmp(d->state.groups->items[i], group) == 0)
			return true;
	return false;
}

/* The group of the device whose window is shut; NULL: none is. */
static const struct group_window *shut_group(const struct device *d, const struct decide_params *p)
{
	const struct group_window *g = p->groups && d->state.groups ? p->groups->first : NULL;

	while (g && (!is_in_group(d, g->group) || window_is_open(g->window, p->now_us)))
		g = g->next;
	return g;
}

static bool is_shut(const struct rollout *r, const struct decide_params *p)
{
	return r->window && !window_is_open(r->window, p->now_us);
}

/* Its deadline has passed, and it is paused in a moment. */
static bool is_too_late(const struct rollout *r, const struct decide_params *p)
{
	return r->deadline_us && p->now_us >= r->deadline_us;
}

/* What is not begun waits while everything is stopped, and outside the rollout's window and those
 * of the device's groups: all of them must be open. */
static struct decision hold_waiting(struct decision x, const struct device *d,
				    const struct decide_params *p)
{
	const struct group_window *g;

	if (x.reason != REASON_OFFER)
		return x;
	if (p->stopped) {
		x.reason = REASON_STOPPED;
	} else if (is_too_late(x.rollout, p)) {
		x.reason = REASON_INACTIVE;
	} else if (is_shut(x.rollout, p)) {
		x.reason = REASON_OUTSIDE_WINDOW;
		x.window = x.rollout->window;
	} else if ((g = shut_group(d, p)) != NULL) {
		x.reason = REASON_OUTSIDE_WINDOW;
		x.window = g->window;
		x.group = g->group;
	}
	return x;
}

static bool failed_at(const struct device *d, const struct release *r)
{
	struct failure_count f = failures_at(d, r->id);

	return f.count + f.passing > 0;
}

/* What is new waits besides until it may be tried again, and for a place. */
static struct decision hold(struct decision x, const struct device *d,
			    const struct decide_params *p)
{
	if (x.reason != REASON_OFFER)
		return x;
	struct decision asked = ask_gate(x, d, p, false);
	if (asked.reason == REASON_HALTED || asked.reason == REASON_VARIANT_HELD)
		return asked;
	x = hold_waiting(x, d, p);
	if (x.reason != REASON_OFFER)
		return x;
	if (p->now_us < d->state.retry_us && failed_at(d, x.release))
		x.reason = REASON_RETRY_LATER;
	else if (asked.reason != REASON_OFFER)
		return asked;
	else if (p->full || (x.rollout->max_parallel && x.rollout->busy >= x.rollout->max_parallel))
		x.reason = REASON_WAITS;
	return x;
}

static struct decision decide_now(const struct device *d, const struct model *m,
				  const struct decide_params *p)
{
	const struct attempt *a = d->state.attempt;

	if (!m || !m->releases)
		return (struct decision){.reason = REASON_MODEL_UNKNOWN};
	const struct release *trying = a ? find_release(m, a->release_id) : NULL;
	if (!trying)
		return hold(decide_by_rollouts(d, m), d, p);

	struct decision same = {.release = trying, .rollout = find_rollout(m, a->rollout_id)};
	if (a->state == ATTEMPT_INSTALLING || (a->state == ATTEMPT_SUCCESS && !a->settled)) {
		same.reason = REASON_INSTALLING;
		return same;
	}
	struct decision fresh = decide_by_rollouts(d, m);
	if (!attempt_is_open(a->state))
		return hold(fresh, d, p);
	if (decision_offers(&fresh) && fresh.release == trying && a->state == ATTEMPT_PENDING) {
		/* Still of its own rollout, unless another may go on where that one's window is
		 * shut. */
		if (same.rollout && decide_rollout(d, same.rollout) == REASON_OFFER &&
		    !is_shut(same.rollout, p))
			fresh.rollout = same.rollout;
		return hold_waiting(ask_gate(fresh, d, p, true), d, p);
	}
	/* What has begun runs to its end, unless it stopped and something else takes its place. */
	if (a->state != ATTEMPT_PENDING &&
	    (p->now_us - a->reported_us < p->stale_us || !decision_offers(&fresh) ||
	     fresh.release == trying) &&
	    !trying->deleted) {
		same.reason = REASON_IN_PROGRESS;
		return same;
	}
	return hold(fresh, d, p);
}

struct decision decide(const struct device *d, const struct model *m, const struct decide_params *p)
{
	struct decision x = decide_now(d, m, p);

	x.now_us = p->now_us;
	return x;
}

static const char *const names[REASONS] = {
	[REASON_OFFER] = "offered",
	[REASON_IN_PROGRESS] = "in_progress",
	[REASON_INSTALLING] = "installing",
	[REASON_UP_TO_DATE] = "up_to_date",
	[REASON_MODEL_UNKNOWN] = "model_unknown",
	[REASON_NO_ROLLOUT] = "no_rollout",
	[REASON_INACTIVE] = "inactive",
	[REASON_NOT_NAMED] = "not_named",
	[REASON_NOT_IN_GROUP] = "not_in_group",
	[REASON_OUTSIDE_PERCENT] = "outside_percent",
	[REASON_OTHER_MODEL] = "other_model",
	[REASON_DOWNGRADE] = "downgrade",
	[REASON_BELOW_MIN_VERSION] = "below_min_version",
	[REASON_MIN_VERSION_INCOMPARABLE] = "min_version_incomparable",
	[REASON_BELOW_REQUIRED] = "below_required",
	[REASON_REQUIRED_INCOMPARABLE] = "required_incomparable",
	[REASON_TOO_MANY_FAILURES] = "too_many_failures",
	[REASON_IN_VAIN] = "in_vain",
	[REASON_NOT_ON_IT] = "not_on_it",
	[REASON_TAKEN_BACK] = "taken_back",
	[REASON_RETRY_LATER] = "retry_later",
	[REASON_OUTSIDE_WINDOW] = "outside_window",
	[REASON_WAITS] = "waits_its_turn",
	[REASON_NO_PLACE] = "waits_for_a_place",
	[REASON_VARIANT_HELD] = "variant_held_back",
	[REASON_HALTED] = "halted",
	[REASON_STOPPED] = "stopped",
	[REASON_NEWER_ROLLOUT_WINS] = "newer_rollout_wins",
};

const char *reason_name(enum reason reason)
{
	return names[reason];
}

/* "8 insufficient space"; "an error" where no code was told. */
static void failure_text(const struct failure_count *f, char *out, size_t size)
{
	if (f->code == RESULT_CODE_NONE)
		snprintf(out, size, "an error");
	else
		snprintf(out, size, "%d %s", f->code, result_code_name(f->code));
}

static void sentence_failed(const struct device *d, const struct decision *x, char *out,
			    size_t size)
{
	struct failure_count f = failures_at(d, x->release->id);
	char why[40], wait[32];

	failure_text(&f, why, sizeof why);
	if (x->reason == REASON_IN_VAIN) {
		snprintf(out, size,
			 "It failed with %s at %s (rollout %s): not tried again until you say "
			 "retry.",
			 why, x->release->version, x->rollout->name);
		return;
	}
	duration_text((d->state.retry_us - x->now_us) / US_PER_S, wait, sizeof wait);
	snprintf(out, size, "It failed with %s at %s (rollout %s): tried again in %s.", why,
		 x->release->version, x->rollout->name, wait);
}

void reason_sentence(const struct device *d, const struct decision *x, char *out, size_t size)
{
	const char *has = d->state.version[0] ? d->state.version : "an unknown version";
	const char *model = d->state.model[0] ? d->state.model : "(unknown)";
	const char *rel = x->release ? x->release->version : "";
	const char *name = x->rollout ? x->rollout->name : "(an ended rollout)";
	char when[160];

	switch (x->reason) {
	case REASON_OFFER:
		snprintf(out, size, "It runs %s and is offered %s by rollout %s %s.", has, rel,
			 name,
			 d->state.link && d->state.link->presence != PRESENCE_OFFLINE
				 ? "over MQTT, and at its next check"
				 : "at its next check");
		return;
	case REASON_IN_PROGRESS:
		snprintf(out, size, "It is taking %s (%s) for rollout %s.", rel,
			 d->state.attempt ? attempt_state_name(d->state.attempt->state) : "begun",
			 name);
		return;
	case REASON_INSTALLING:
		snprintf(out, size, "It installs %s or restarts into it; its next check will tell.",
			 rel);
		return;
	case REASON_UP_TO_DATE:
		snprintf(out, size, "It runs %s, which is what rollout %s asks for.", has, name);
		return;
	case REASON_MODEL_UNKNOWN:
		snprintf(out, size, "No release was ever uploaded for its model %s.", model);
		return;
	case REASON_NO_ROLLOUT:
		snprintf(out, size, "There is no active rollout for its model %s.", model);
		return;
	case REASON_INACTIVE: snprintf(out, size, "Rollout %s is not active.", name); return;
	case REASON_NOT_NAMED:
		snprintf(out, size, "Rollout %s is for named devices and this is none of them.",
			 name);
		return;
	case REASON_NOT_IN_GROUP:
		snprintf(out, size, "Rollout %s is for group %s and this device is not in it.",
			 name, x->rollout->target.group);
		return;
	case REASON_OUTSIDE_PERCENT:
		snprintf(out, size,
			 "Rollout %s reaches %d %% of the devices%s and this one is outside.", name,
			 x->rollout->target.percent,
			 x->rollout->walk.stage + 1 < x->rollout->stage_count ? " so far" : "");
		return;
	case REASON_OTHER_MODEL:
		snprintf(out, size, "Rollout %s is for model %s, this device is %s.", name,
			 x->release->model, model);
		return;
	case REASON_DOWNGRADE:
		snprintf(out, size,
			 "Rollout %s has %s, which is older than the %s it runs; allow_downgrade "
			 "is off.",
			 name, rel, has);
		return;
	case REASON_BELOW_MIN_VERSION:
		snprintf(out, size, "Release %s needs at least %s and the device runs %s.", rel,
			 x->release->min_version, has);
		return;
	case REASON_MIN_VERSION_INCOMPARABLE:
		snprintf(out, size,
			 "Release %s needs at least %s, and the device's %s cannot be compared "
			 "with it.",
			 rel, x->release->min_version, has);
		return;
	case REASON_BELOW_REQUIRED:
		snprintf(out, size, "Rollout %s requires at least %s and the device runs %s.", name,
			 x->rollout->requires, has);
		return;
	case REASON_REQUIRED_INCOMPARABLE:
		snprintf(out, size,
			 "Rollout %s requires at least %s, and the device's %s cannot be compared "
			 "with it.",
			 name, x->rollout->requires, has);
		return;
	case REASON_TOO_MANY_FAILURES:
		snprintf(out, size,
			 "It failed %d times in a row at %s (rollout %s allows %d); "
			 "allow another try with a retry.",
			 failures_at(d, x->release->id).count, rel, name, x->rollout->max_attempts);
		return;
	case REASON_NOT_ON_IT:
		snprintf(out, size,
			 "Rollout %s brings devices back from %s to %s, and this one is not among "
			 "them.",
			 name, x->rollout->back.from ? x->rollout->back.from->version : "", rel);
		return;
	case REASON_TAKEN_BACK:
		snprintf(out, size,
			 "Rollout %s has %s, which a later rollout takes back: it is not offered "
			 "again.",
			 name, rel);
		return;
	case REASON_IN_VAIN:
	case REASON_RETRY_LATER: sentence_failed(d, x, out, size); return;
	case REASON_OUTSIDE_WINDOW:
		window_sentence(x->window, x->now_us, when, sizeof when);
		snprintf(out, size,
			 "It runs %s and gets %s by rollout %s inside %s%s%s window, which %s.",
			 has, rel, name, x->group ? "group " : "its", x->group ? x->group : "",
			 x->group ? "'s" : "", when);
		return;
	case REASON_WAITS:
		snprintf(out, size,
			 "It runs %s and gets %s by rollout %s when one of those that download now "
			 "is done.",
			 has, rel, name);
		return;
	case REASON_NO_PLACE:
		if (x->gate.answer == GATE_TURN) {
			snprintf(
				out, size,
				"It runs %s and waits for a free place at %s (rollout %s): devices "
				"of other hardware, versions or groups, of which fewer have tried "
				"it, go first.",
				has, rel, name);
			return;
		}
		snprintf(out, size,
			 "It runs %s and waits for a free place at %s (rollout %s): %lld of the "
			 "%lld "
			 "devices that may try it at a time are not proven yet.",
			 has, rel, name, (long long)x->gate.unproven, (long long)x->gate.bound);
		return;
	case REASON_VARIANT_HELD:
		snprintf(
			out, size,
			"Release %s is held back from devices of hardware %s that run %s: too many "
			"of them failed (rollout %s); others go on.",
			rel, d->state.hw[0] ? d->state.hw : "unknown", has, name);
		return;
	case REASON_HALTED:
		snprintf(out, size, "Release %s was found bad and rollout %s is halted%s%s.", rel,
			 name, x->rollout && x->rollout->walk.reason[0] ? ": " : "",
			 x->rollout ? x->rollout->walk.reason : "");
		return;
	case REASON_STOPPED:
		snprintf(out, size,
			 "It runs %s and would get %s by rollout %s, but everything is stopped.",
			 has, rel, name);
		return;
	case REASON_NEWER_ROLLOUT_WINS:
		snprintf(out, size,
			 "Another rollout decides for this device before %s: it is newer, of a "
			 "higher priority, or has begun already.",
			 name);
		return;
	case REASONS: break;
	}
	snprintf(out, size, "unknown");
}
