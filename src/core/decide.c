/* SPDX-License-Identifier: MIT */
#include "core/decide.h"

#include "core/runs.h"
#include "core/target.h"
#include "core/version.h"

#include <stdio.h>
#include <string.h>

static int failures_at(const struct device *d, int64_t release_id)
{
	const struct failure_count *f = d->state.failures;

	for (; f && f->release_id; f++)
		if (f->release_id == release_id)
			return f->count;
	return 0;
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
	if (failures_at(d, rel->id) >= r->max_attempts)
		return REASON_TOO_MANY_FAILURES;
	return REASON_OFFER;
}

enum reason decide_rollout(const struct device *d, const struct rollout *r)
{
	if (!r->active)
		return REASON_INACTIVE;
	enum reason why = decide_target(d, r);
	return why == REASON_OFFER ? decide_version(d, r) : why;
}

/* How near a refusal was to an offer: the nearest one is what an operator wants to hear. */
static int nearness(enum reason reason)
{
	switch (reason) {
	case REASON_TOO_MANY_FAILURES:
	case REASON_DOWNGRADE:
	case REASON_BELOW_MIN_VERSION:
	case REASON_MIN_VERSION_INCOMPARABLE:
	case REASON_BELOW_REQUIRED:
	case REASON_REQUIRED_INCOMPARABLE: return 3;
	case REASON_OUTSIDE_PERCENT: return 2;
	case REASON_NOT_IN_GROUP:
	case REASON_NOT_NAMED: return 1;
	default: return 0;
	}
}

static struct decision decide_by_rollouts(const struct device *d, const struct model *m)
{
	struct decision refused = {.reason = REASON_NO_ROLLOUT};

	for (const struct rollout *r = m->rollouts; r; r = r->next) {
		enum reason why = decide_rollout(d, r);
		if (why == REASON_INACTIVE)
			continue;
		if (why == REASON_OFFER || why == REASON_UP_TO_DATE)
			return (struct decision){why, r->release, r};
		if (refused.reason == REASON_NO_ROLLOUT || nearness(why) > nearness(refused.reason))
			refused = (struct decision){why, r->release, r};
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

/* What is not begun waits while everything is stopped or taken. */
static struct decision hold(struct decision x, const struct decide_params *p)
{
	if (x.reason != REASON_OFFER)
		return x;
	if (p->stopped)
		x.reason = REASON_STOPPED;
	else if (p->full || (x.rollout->max_parallel && x.rollout->busy >= x.rollout->max_parallel))
		x.reason = REASON_WAITS;
	return x;
}

struct decision decide(const struct device *d, const struct model *m, const struct decide_params *p)
{
	const struct attempt *a = d->state.attempt;

	if (!m || !m->releases)
		return (struct decision){.reason = REASON_MODEL_UNKNOWN};
	const struct release *trying = a ? find_release(m, a->release_id) : NULL;
	if (!trying)
		return hold(decide_by_rollouts(d, m), p);

	struct decision same = {.release = trying, .rollout = find_rollout(m, a->rollout_id)};
	if (a->state == ATTEMPT_INSTALLING || (a->state == ATTEMPT_SUCCESS && !a->settled)) {
		same.reason = REASON_INSTALLING;
		return same;
	}
	struct decision fresh = decide_by_rollouts(d, m);
	if (!attempt_is_open(a->state))
		return hold(fresh, p);
	if (decision_offers(&fresh) && fresh.release == trying && a->state == ATTEMPT_PENDING) {
		if (same.rollout && decide_rollout(d, same.rollout) == REASON_OFFER)
			fresh.rollout = same.rollout;
		if (p->stopped)
			fresh.reason = REASON_STOPPED;
		return fresh;
	}
	/* What has begun runs to its end, unless it stopped and something else takes its place. */
	if (a->state != ATTEMPT_PENDING &&
	    (p->now_us - a->reported_us < p->stale_us || !decision_offers(&fresh) ||
	     fresh.release == trying) &&
	    !trying->deleted) {
		same.reason = REASON_IN_PROGRESS;
		return same;
	}
	return hold(fresh, p);
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
	[REASON_WAITS] = "waits_its_turn",
	[REASON_STOPPED] = "stopped",
	[REASON_NEWER_ROLLOUT_WINS] = "newer_rollout_wins",
};

const char *reason_name(enum reason reason)
{
	return names[reason];
}

void reason_sentence(const struct device *d, const struct decision *x, char *out, size_t size)
{
	const char *has = d->state.version[0] ? d->state.version : "an unknown version";
	const char *model = d->state.model[0] ? d->state.model : "(unknown)";
	const char *rel = x->release ? x->release->version : "";
	const char *name = x->rollout ? x->rollout->name : "(an ended rollout)";

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
			 failures_at(d, x->release->id), rel, name, x->rollout->max_attempts);
		return;
	case REASON_WAITS:
		snprintf(out, size,
			 "It runs %s and gets %s by rollout %s when one of those that download now "
			 "is done.",
			 has, rel, name);
		return;
	case REASON_STOPPED:
		snprintf(out, size,
			 "It runs %s and would get %s by rollout %s, but everything is stopped.",
			 has, rel, name);
		return;
	case REASON_NEWER_ROLLOUT_WINS:
		snprintf(out, size,
			 "Another rollout, newer or of a higher priority, decides for this device "
			 "before %s.",
			 name);
		return;
	case REASONS: break;
	}
	snprintf(out, size, "unknown");
}
