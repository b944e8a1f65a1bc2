/* SPDX-License-Identifier: MIT */
#include "core/stage.h"

#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* What a device needs to prove a release, once: the guarded stages last no longer than that. */
#define GUARDED_S 600

static const char *const state_names[ROLLOUT_STATES] = {
	[ROLLOUT_DRAFT] = "draft",     [ROLLOUT_SCHEDULED] = "scheduled",
	[ROLLOUT_RUNNING] = "running", [ROLLOUT_PAUSED] = "paused",
	[ROLLOUT_HALTED] = "halted",   [ROLLOUT_COMPLETED] = "completed",
	[ROLLOUT_ABORTED] = "aborted",
};

static const char *const event_names[ROLLOUT_EVENTS] = {
	[ROLLOUT_START] = "start",       [ROLLOUT_SCHEDULE] = "schedule",
	[ROLLOUT_PAUSE] = "pause",       [ROLLOUT_RESUME] = "resume",
	[ROLLOUT_PROMOTE] = "promote",   [ROLLOUT_APPROVE] = "approve",
	[ROLLOUT_ABORT] = "abort",       [ROLLOUT_HALT] = "halt",
	[ROLLOUT_ROLLBACK] = "rollback", [ROLLOUT_STAGE_DONE] = "stage_done",
	[ROLLOUT_COMPLETE] = "complete",
};

static const char *const wait_names[WALK_WAITS] = {
	[WAIT_NOTHING] = "nothing",
	[WAIT_ACTIVATION] = "activation",
	[WAIT_NOT_BEFORE] = "not_before",
	[WAIT_RESUME] = "resume",
	[WAIT_TIME] = "time",
	[WAIT_PROOF] = "proof",
	[WAIT_EVIDENCE] = "evidence",
	[WAIT_APPROVAL] = "approval",
	[WAIT_RESUME_ALL] = "resume_all",
	[WAIT_OVER] = "over",
};

const char *const strategy_names[STRATEGIES] = {"canary-10", "canary-25", "canary-50",
						"full",      "test",      "guarded"};

#define NO ROLLOUT_STATES /* refused */

/* Rows: events.  Columns: states, as in the enum. */
static const enum rollout_state table[ROLLOUT_EVENTS][ROLLOUT_STATES] = {
#define DR ROLLOUT_DRAFT
#define SC ROLLOUT_SCHEDULED
#define RU ROLLOUT_RUNNING
#define PA ROLLOUT_PAUSED
#define HA ROLLOUT_HALTED
#define CO ROLLOUT_COMPLETED
#define AB ROLLOUT_ABORTED
	/* clang-format off */
	/*                      draft scheduled running paused halted completed aborted */
	[ROLLOUT_START]      = {RU,   RU,       NO,     NO,    NO,    NO,       NO},
	[ROLLOUT_SCHEDULE]   = {SC,   SC,       NO,     SC,    NO,    NO,       NO},
	[ROLLOUT_PAUSE]      = {DR,   PA,       PA,     PA,    NO,    PA,       NO},
	[ROLLOUT_RESUME]     = {RU,   SC,       RU,     RU,    NO,    CO,       NO},
	[ROLLOUT_PROMOTE]    = {NO,   RU,       RU,     NO,    NO,    NO,       NO},
	[ROLLOUT_APPROVE]    = {NO,   NO,       RU,     NO,    NO,    NO,       NO},
	[ROLLOUT_ABORT]      = {AB,   AB,       AB,     AB,    AB,    AB,       AB},
	[ROLLOUT_HALT]       = {HA,   HA,       HA,     HA,    HA,    HA,       AB},
	[ROLLOUT_ROLLBACK]   = {NO,   NO,       AB,     AB,    AB,    AB,       NO},
	[ROLLOUT_STAGE_DONE] = {NO,   NO,       RU,     NO,    NO,    NO,       NO},
	[ROLLOUT_COMPLETE]   = {NO,   NO,       CO,     NO,    NO,    NO,       NO},
/* clang-format on */
#undef DR
#undef SC
#undef RU
#undef PA
#undef HA
#undef CO
#undef AB
};

const char *rollout_state_name(enum rollout_state state)
{
	return state_names[state];
}

enum rollout_state rollout_state_from_name(const char *word)
{
	int s = 0;

	while (s < ROLLOUT_STATES && strcmp(word, state_names[s]) != 0)
		s++;
	return (enum rollout_state)s;
}

bool rollout_state_offers(enum rollout_state state)
{
	return state == ROLLOUT_RUNNING || state == ROLLOUT_COMPLETED;
}

bool rollout_state_is_final(enum rollout_state state)
{
	return state == ROLLOUT_HALTED || state == ROLLOUT_ABORTED;
}

const char *rollout_event_name(enum rollout_event event)
{
	return event_names[event];
}

const char *walk_wait_name(enum walk_wait wait)
{
	return wait_names[wait];
}

enum rollout_state rollout_next_state(enum rollout_state state, enum rollout_event event)
{
	return table[event][state];
}

/* --- one step --- */

static bool too_late(const struct rollout *r, int64_t now_us)
{
	return r->deadline_us && now_us >= r->deadline_us;
}

static bool is_last_stage(const struct rollout *r)
{
	return r->walk.stage + 1 >= r->stage_count;
}

static bool begins_offering(enum rollout_state was, enum rollout_state is)
{
	return !rollout_state_offers(was) && rollout_state_offers(is);
}

/* What a person's word means where the table alone does not say it. */
static enum rollout_event meant(const struct rollout *r, enum rollout_event event, int64_t now_us)
{
	bool begun = r->walk.stage_since_us != 0;

	if (event == ROLLOUT_RESUME && !begun && now_us < r->not_before_us)
		return ROLLOUT_SCHEDULE;
	if (event == ROLLOUT_PROMOTE && r->walk.state == ROLLOUT_SCHEDULED)
		return ROLLOUT_START;
	if (event == ROLLOUT_PROMOTE && r->walk.state == ROLLOUT_RUNNING && is_last_stage(r))
		return ROLLOUT_COMPLETE;
	return event;
}

static bool refuses(const struct rollout *r, enum rollout_event event, int64_t now_us)
{
	enum rollout_state is = rollout_next_state(r->walk.state, event);

	if (is == ROLLOUT_STATES)
		return true;
	if (event == ROLLOUT_APPROVE)
		return !r->stages[r->walk.stage].approve;
	if (event == ROLLOUT_STAGE_DONE || event == ROLLOUT_COMPLETE)
		return is_last_stage(r) != (event == ROLLOUT_COMPLETE);
	return (begins_offering(r->walk.state, is) || event == ROLLOUT_PROMOTE) &&
	       too_late(r, now_us);
}

static void enter_stage(struct walk *w, int stage, int64_t now_us)
{
	w->stage = stage;
	w->stage_since_us = now_us;
	w->held_us = 0;
	w->approved = false;
}

enum walk_outcome walk_step(const struct rollout *r, enum rollout_event event, int64_t now_us,
			    struct walk *out)
{
	const struct walk *was = &r->walk;
	struct walk w = *was;

	event = meant(r, event, now_us);
	if (refuses(r, event, now_us))
		return WALK_REFUSED;
	w.state = rollout_next_state(was->state, event);
	w.reason = "";
	if (event == ROLLOUT_APPROVE)
		w.approved = true;
	if (event == ROLLOUT_STAGE_DONE || event == ROLLOUT_PROMOTE)
		enter_stage(&w, was->stage + 1, now_us);
	if (w.state == was->state && w.stage == was->stage && w.approved == was->approved)
		return WALK_STAYS;
	if (w.state != was->state)
		w.state_since_us = now_us;
	if (w.state == ROLLOUT_RUNNING && !w.stage_since_us)
		enter_stage(&w, 0, now_us);
	else if (w.state == ROLLOUT_RUNNING && was->state == ROLLOUT_PAUSED)
		w.held_us += now_us - was->state_since_us;
	*out = w;
	return WALK_STEPS;
}

void walk_refusal(const struct rollout *r, enum rollout_event event, int64_t now_us, char *out,
		  size_t size)
{
	enum rollout_state state = r->walk.state;
	const char *word = event_names[event], *is = state_names[state];
	char when[TIME_TEXT_SIZE];

	if (rollout_state_is_final(state)) {
		snprintf(out, size, "rollout %s is %s, for good: make another one", r->name, is);
	} else if (event == ROLLOUT_APPROVE && state == ROLLOUT_RUNNING) {
		snprintf(out, size,
			 "stage %d of rollout %s asks nobody's approval; promote it to go on now",
			 r->walk.stage + 1, r->name);
	} else if (too_late(r, now_us) && state != ROLLOUT_COMPLETED) {
		time_format(r->deadline_us, when);
		snprintf(out, size, "the deadline of rollout %s passed at %s: make another one",
			 r->name, when);
	} else if (event == ROLLOUT_PROMOTE && state == ROLLOUT_COMPLETED) {
		snprintf(out, size, "rollout %s is completed: there is no stage after its last",
			 r->name);
	} else if (event == ROLLOUT_PROMOTE || event == ROLLOUT_APPROVE) {
		snprintf(out, size, "rollout %s is %s and cannot be %s; %s", r->name, is,
			 event == ROLLOUT_PROMOTE ? "promoted" : "approved",
			 state == ROLLOUT_PAUSED      ? "resume it first"
			 : state == ROLLOUT_DRAFT     ? "activate it first"
			 : state == ROLLOUT_SCHEDULED ? "it has not begun"
						      : "nothing waits for that");
	} else {
		snprintf(out, size, "rollout %s is %s: no %s now", r->name, is, word);
	}
}

struct walk walk_begin(bool active, int64_t not_before_us, int64_t now_us)
{
	struct walk w = {.state_since_us = now_us, .reason = ""};

	if (!active)
		w.state = ROLLOUT_DRAFT;
	else if (now_us < not_before_us)
		w.state = ROLLOUT_SCHEDULED;
	else {
		w.state = ROLLOUT_RUNNING;
		w.stage_since_us = now_us;
	}
	return w;
}

/* --- what it waits for --- */

int64_t stage_need(const struct stage *s, const struct stage_facts *f)
{
	int64_t need = (f->seen * STAGE_PROVEN_PERCENT + 99) / 100;

	if (s->min_proven != STAGE_MIN_PROVEN_AUTO)
		return s->min_proven;
	/* Where nobody was seen, nothing was proven either. */
	return need > 0 || f->may_be_nobody ? need : 1;
}

int64_t stage_until_us(const struct rollout *r)
{
	const struct walk *w = &r->walk;

	return w->stage_since_us + w->held_us + r->stages[w->stage].min_duration_s * US_PER_S;
}

int64_t walk_due_us(const struct rollout *r)
{
	int64_t due_us = INT64_MAX;

	switch (r->walk.state) {
	case ROLLOUT_SCHEDULED: due_us = r->not_before_us; break;
	case ROLLOUT_RUNNING: due_us = stage_until_us(r); break;
	case ROLLOUT_COMPLETED: break;
	default: return INT64_MAX;
	}
	return r->deadline_us && r->deadline_us < due_us ? r->deadline_us : due_us;
}

static struct walk_next judge_stage(const struct rollout *r, const struct stage_facts *f)
{
	const struct stage *s = &r->stages[r->walk.stage];
	struct walk_next n = {
		.event = is_last_stage(r) ? ROLLOUT_COMPLETE : ROLLOUT_STAGE_DONE,
		.have = f->proven,
		.need = stage_need(s, f),
	};

	if (f->now_us < stage_until_us(r)) {
		n.wait = WAIT_TIME;
		n.until_us = stage_until_us(r);
	} else if (f->evidence >= STAGE_EVIDENCE_MAX) {
		n.wait = WAIT_EVIDENCE;
	} else if (n.have < n.need) {
		n.wait = WAIT_PROOF;
	} else if (s->approve && !r->walk.approved) {
		n.wait = WAIT_APPROVAL;
	}
	return n;
}

struct walk_next walk_judge(const struct rollout *r, const struct stage_facts *f)
{
	enum rollout_state state = r->walk.state;
	struct walk_next n = {.wait = WAIT_OVER, .event = ROLLOUT_EVENTS};

	if ((state == ROLLOUT_SCHEDULED || rollout_state_offers(state)) && too_late(r, f->now_us))
		return (struct walk_next){.wait = WAIT_NOTHING, .event = ROLLOUT_PAUSE};
	if (f->stopped && (state == ROLLOUT_SCHEDULED || state == ROLLOUT_RUNNING))
		return (struct walk_next){.wait = WAIT_RESUME_ALL, .event = ROLLOUT_EVENTS};
	switch (state) {
	case ROLLOUT_DRAFT: n.wait = WAIT_ACTIVATION; return n;
	case ROLLOUT_PAUSED: n.wait = WAIT_RESUME; return n;
	case ROLLOUT_SCHEDULED:
		n.event = ROLLOUT_START;
		n.wait = f->now_us < r->not_before_us ? WAIT_NOT_BEFORE : WAIT_NOTHING;
		n.until_us = n.wait == WAIT_NOT_BEFORE ? r->not_before_us : 0;
		return n;
	case ROLLOUT_RUNNING: return judge_stage(r, f);
	default: return n;
	}
}

static void sentence_running(const struct rollout *r, const struct walk_next *n, char *out,
			     size_t size)
{
	const struct stage *s = &r->stages[r->walk.stage];
	char when[TIME_TEXT_SIZE], then[64], who[64];

	if (is_last_stage(r))
		snprintf(then, sizeof then, "it is completed");
	else
		snprintf(then, sizeof then, "%d %% follow", s[1].percent);
	if (r->stage_count == 1)
		snprintf(who, sizeof who, "Its only stage (%d %%)", s->percent);
	else
		snprintf(who, sizeof who, "Stage %d of %d (%d %%)", r->walk.stage + 1,
			 r->stage_count, s->percent);
	switch (n->wait) {
	case WAIT_TIME:
		time_format(n->until_us, when);
		snprintf(out, size, "%s lasts until %.19sZ at least; then %s.", who, when, then);
		return;
	case WAIT_EVIDENCE:
		snprintf(out, size, "%s waits: too much speaks against %s; then %s.", who,
			 r->release->version, then);
		return;
	case WAIT_PROOF:
		snprintf(out, size,
			 "%s waits for devices that run %s well: %" PRId64 " of the %" PRId64
			 " needed do; then %s.",
			 who, r->release->version, n->have, n->need, then);
		return;
	case WAIT_APPROVAL:
		snprintf(out, size, "%s waits for somebody's approval; then %s.", who, then);
		return;
	default: snprintf(out, size, "%s is at its end; %s.", who, then); return;
	}
}

void walk_sentence(const struct rollout *r, const struct walk_next *n, char *out, size_t size)
{
	char when[TIME_TEXT_SIZE];

	if (n->wait == WAIT_RESUME_ALL) {
		snprintf(out, size, "Everything is stopped; it goes on when that is taken back.");
		return;
	}
	if (n->wait == WAIT_NOTHING && n->event == ROLLOUT_PAUSE) {
		snprintf(out, size, "Its deadline has passed; it pauses.");
		return;
	}
	switch (r->walk.state) {
	case ROLLOUT_DRAFT: snprintf(out, size, "It waits to be activated."); return;
	case ROLLOUT_SCHEDULED:
		time_format(r->not_before_us, when);
		snprintf(out, size, "It begins at %.19sZ.", when);
		return;
	case ROLLOUT_RUNNING: sentence_running(r, n, out, size); return;
	case ROLLOUT_PAUSED: snprintf(out, size, "It waits to be resumed."); return;
	case ROLLOUT_HALTED:
		snprintf(out, size, "It was halted for good: nothing is offered.");
		return;
	case ROLLOUT_COMPLETED:
		snprintf(out, size,
			 "All stages have ended; devices that come later are offered it too.");
		return;
	case ROLLOUT_ABORTED: snprintf(out, size, "It was ended for good."); return;
	case ROLLOUT_STATES: break;
	}
	snprintf(out, size, "unknown");
}

/* --- lists --- */

const char *stages_error(const struct stage *stages, size_t count, char *buf, size_t size)
{
	if (count == 0)
		return "needs at least one stage";
	if (count > STAGES_MAX) {
		snprintf(buf, size, "has %zu stages; at most %d make sense", count, STAGES_MAX);
		return buf;
	}
	for (size_t i = 0; i < count; i++) {
		const struct stage *s = &stages[i];
		int before = i ? stages[i - 1].percent : 0;
		const char *wrong = NULL;

		if (s->percent < 1 || s->percent > 100)
			wrong = "percent must be between 1 and 100";
		else if (s->percent == before)
			wrong = "repeats the percent of the stage before";
		else if (s->percent < before)
			wrong = "has fewer percent than the stage before; each must have more";
		else if (s->min_duration_s < 0 || s->min_duration_s > STAGE_DURATION_MAX_S)
			wrong = "min_duration_s must be between 0 and 31622400 (366 days)";
		else if (s->min_proven < STAGE_MIN_PROVEN_AUTO)
			wrong = "min_proven must not be negative";
		if (wrong) {
			snprintf(buf, size, "stage %zu %s", i + 1, wrong);
			return buf;
		}
	}
	return NULL;
}

int strategy_stages(enum strategy strategy, struct stage *out)
{
	static const int guarded[] = {1, 10, 25, 50, 100};
	static const int single[STRATEGIES] = {
		[STRATEGY_CANARY_10] = 10, [STRATEGY_CANARY_25] = 25, [STRATEGY_CANARY_50] = 50,
		[STRATEGY_FULL] = 100,     [STRATEGY_TEST] = 100,
	};
	int count = (int)(sizeof guarded / sizeof guarded[0]);

	if (strategy != STRATEGY_GUARDED) {
		out[0] = (struct stage){.percent = single[strategy],
					.min_proven = STAGE_MIN_PROVEN_AUTO};
		return 1;
	}
	for (int i = 0; i < count; i++)
		out[i] = (struct stage){.percent = guarded[i],
					.min_duration_s = i + 1 < count ? GUARDED_S : 0,
					.min_proven = STAGE_MIN_PROVEN_AUTO};
	return count;
}
