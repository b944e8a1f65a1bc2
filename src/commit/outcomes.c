/* SPDX-License-Identifier: MIT */
/*
 * What becomes of devices that meet a release, told to its gate: at once where a device's word says
 * it, and by looks at those without an outcome where time does.
 */
#include "commit/gates.h"
#include "commit/plan.h"
#include "commit/takeback.h"

#include "base/clock.h"
#include "core/names.h"
#include "core/runs.h"
#include "core/target.h"

#include <inttypes.h>
#include <string.h>

/* So many devices on trial are looked at in one look, ... */
#define LOOKS_MAX 20000
/* ... so many of them get their outcome, ... */
#define OUTCOMES_MAX 500
/* ... and so many of a gate by silence: each of these asks how others do. */
#define SILENT_MAX 8
/* So long a device may have the image, and be there, without installing it. */
#define IDLE_US (24 * INT64_C(3600) * US_PER_S)
/* Others that were to be heard of: so many say enough. */
#define CONTROL_MAX 256

static const char *const event_types[] = {
	[GATE_EVENT_STAGE] = "gate_stage",
	[GATE_EVENT_EXPOSED] = "device_exposed",
	[GATE_EVENT_AT_RISK] = "device_at_risk",
	[GATE_EVENT_PROVEN] = "device_proven",
	[GATE_EVENT_FAILED] = "device_failed",
	[GATE_EVENT_SILENT] = "device_silent",
	[GATE_EVENT_GIVEN_BACK] = "device_given_back",
	[GATE_EVENT_OVERRIDDEN] = "gate_overridden",
};

/* --- events --- */

/* The change of the gate, and the event that it can be told from. */
static struct gate_work *add_work(struct committer *c, struct watch *k, const struct gate_event *e)
{
	struct gate_work *w = batch_alloc(&c->batch, sizeof *w);

	if (!w)
		return NULL;
	*w = (struct gate_work){.watch = k, .event = *e};
	*c->batch.gates_end = w;
	c->batch.gates_end = &w->next;
	return w;
}

static char *event_data(struct committer *c, const struct watch *k, const struct gate_event *e,
			const char *why)
{
	struct buf b = BUF_INIT;

	json_open(&b, NULL, '{');
	json_int(&b, "release_id", k->release->id);
	if (e->kind == GATE_EVENT_STAGE)
		json_int(&b, "devices", e->devices);
	else if (e->kind != GATE_EVENT_OVERRIDDEN)
		json_int(&b, "exposure", e->number);
	if (e->hw && e->hw[0])
		json_str(&b, "hw", e->hw);
	if (e->from && e->from[0])
		json_str(&b, "from", e->from);
	if (why)
		json_str(&b, "reason", why);
	json_close(&b, '}');
	return batch_json(c, &b);
}

static bool add_event(struct committer *c, const struct watch *k, const struct gate_event *e,
		      const struct device *d, int64_t rollout_id, const char *why)
{
	const char *data = event_data(c, k, e, why);

	return data && batch_event(&c->batch, event_types[e->kind], d ? d->device_id : NULL,
				   k->release->version, rollout_id, data);
}

static bool add(struct committer *c, struct watch *k, enum gate_event_kind kind, int64_t number,
		struct device *d, int64_t rollout_id)
{
	struct gate_event e = {.kind = kind, .number = number};
	const struct gate_item *it = gate_line_find(&k->gate.line, number);

	if (it) {
		e.hw = k->gate.variants[it->variant].hw;
		e.from = k->gate.variants[it->variant].from;
	}
	if (!add_event(c, k, &e, d, rollout_id, NULL))
		return false;
	e.hw = e.from = NULL; /* the variants may move before it is applied */
	struct gate_work *w = add_work(c, k, &e);
	if (!w)
		return false;
	w->device = d;
	w->rollout_id = rollout_id;
	return true;
}

/* --- exposure --- */

/* Takes a place for an exposure; BOUND: if there is one, else *REFUSED. */
static bool take(struct committer *c, struct watch *k, struct device_work *w, int64_t number,
		 const struct rollout *by, const char *from, bool bound, bool made, bool *refused)
{
	struct gate_event e = {
		.kind = GATE_EVENT_EXPOSED, .number = number, .hw = w->next.hw, .from = from};
	enum gate_answer answer = GATE_FREE;
	struct gate_place place = {0};
	enum ota_code rc = OTA_OK;

	pthread_mutex_lock(&c->gates.lock);
	if (!watch_reserve(k)) {
		pthread_mutex_unlock(&c->gates.lock);
		return false;
	}
	rc = bound ? gate_reserve(&k->gate, e.hw, e.from, &answer, &place)
		   : gate_take(&k->gate, e.hw, e.from, &place);
	int kind = -1;
	if (rc != OTA_OK || answer != GATE_FREE)
		k->reserved--;
	else
		kind = fair_take(&k->fair, w->device, e.hw, e.from);
	pthread_mutex_unlock(&c->gates.lock);
	*refused = rc == OTA_OK && answer != GATE_FREE;
	if (rc != OTA_OK || *refused)
		return rc == OTA_OK;
	struct gate_work *work = add_work(c, k, &e);
	if (!work) {
		pthread_mutex_lock(&c->gates.lock);
		gate_cancel(&k->gate, &place);
		fair_give_back(&k->fair, kind);
		k->reserved--;
		pthread_mutex_unlock(&c->gates.lock);
		return false;
	}
	work->place = place;
	work->kind = kind;
	work->device = w->device;
	work->rollout_id = by->id;
	work->made = made;
	return add_event(c, k, &e, w->device, by->id, NULL);
}

bool gates_note_open(struct committer *c, struct device_work *w, const struct rollout *by,
		     const struct attempt *a, bool *refused)
{
	bool made;

	*refused = false;
	if (by->guard.off)
		return true;
	struct watch *k = gates_ensure(c, by, &made);
	if (!k)
		return false;
	/* Not in the breath in which it failed: the next one knows what that means. */
	for (const struct gate_work *g = c->batch.gates; g; g = g->next)
		*refused |= g->watch == k && g->event.kind == GATE_EVENT_FAILED;
	return *refused || watch_exposed(k, w->device->id) ||
	       take(c, k, w, a->id, by, a->from_version, by->guard.bounded, made, refused);
}

/* What its next outcome belongs to. */
struct exposure {
	struct watch *watch;
	int64_t number;
	bool open, at_risk;
};

/*
 * The device's exposure.  One that gave its place back and goes on all the same (it slept, and then
 * began) is exposed now: that asks nobody.
 */
static bool find_exposure(struct committer *c, struct device_work *w, const struct rollout *r,
			  const struct attempt *a, bool late, struct exposure *out)
{
	bool made, refused;
	struct watch *k = gates_ensure(c, r, &made);

	if (!k)
		return false;
	const struct exposed *x = watch_exposed(k, w->device->id);
	const struct on_trial *t = watch_on_trial(k, x);
	*out = (struct exposure){.watch = k,
				 .number = t ? t->number : 0,
				 .open = t != NULL,
				 .at_risk = t && t->at_risk};
	if (x || !late) {
		if (made)
			gates_drop(&c->gates, k);
		return true;
	}
	out->number = c->store->ops->next_id(c->store, ID_ATTEMPT);
	out->open = true;
	return take(c, k, w, out->number, r, a->from_version, false, made, &refused);
}

static bool had_all(enum attempt_state s)
{
	return s == ATTEMPT_DOWNLOADED || s == ATTEMPT_INSTALLING || s == ATTEMPT_SUCCESS;
}

/* It ends by failure: whose is it? */
static bool note_failure(struct committer *c, struct device_work *w, const struct rollout *r,
			 enum attempt_state was, const struct attempt *a,
			 const struct attempt_word *word)
{
	struct exposure x;
	/* What the service ends says nothing of the image. */
	bool ours = word->event == EVENT_SUPERSEDE || word->why;

	if (!find_exposure(c, w, r, a, false, &x))
		return false;
	bool whole = had_all(was) || (x.open && x.at_risk);
	enum gate_vote vote = ours ? GATE_VOTE_NONE
				   : gate_vote(word->code ? word->code : GATE_CODE_NONE, whole,
					       a->state == ATTEMPT_ROLLED_BACK);
	if (vote == GATE_VOTE_NONE)
		return !x.open ||
		       add(c, x.watch, GATE_EVENT_GIVEN_BACK, x.number, w->device, r->id);
	if (!find_exposure(c, w, r, a, true, &x))
		return false;
	return !x.open || add(c, x.watch, GATE_EVENT_FAILED, x.number, w->device, r->id);
}

bool gates_note_step(struct committer *c, struct device_work *w, enum attempt_state was,
		     const struct attempt *a, const struct attempt_word *word)
{
	const struct rollout *r =
		a->rollout_id && !a->unsolicited ? fleet_rollout(c->fleet, a->rollout_id) : NULL;
	struct exposure x;

	if (!r || r->guard.off)
		return true;
	switch (a->state) {
	case ATTEMPT_DOWNLOADING: return find_exposure(c, w, r, a, true, &x);
	case ATTEMPT_DOWNLOADED:
	case ATTEMPT_INSTALLING:
	case ATTEMPT_SUCCESS:
		return find_exposure(c, w, r, a, true, &x) &&
		       (!x.open || x.at_risk ||
			add(c, x.watch, GATE_EVENT_AT_RISK, x.number, w->device, r->id));
	case ATTEMPT_FAILED:
	case ATTEMPT_ROLLED_BACK: return note_failure(c, w, r, was, a, word);
	case ATTEMPT_LAPSED:
	case ATTEMPT_WITHDRAWN:
		return find_exposure(c, w, r, a, false, &x) &&
		       (!x.open || x.at_risk ||
			add(c, x.watch, GATE_EVENT_GIVEN_BACK, x.number, w->device, r->id));
	case ATTEMPT_PENDING:
	case ATTEMPT_STATES: break;
	}
	return true;
}

bool gates_note_delete(struct committer *c, struct device_work *w)
{
	for (struct watch *k = c->gates.first; k; k = k->next) {
		const struct on_trial *t = watch_on_trial(k, watch_exposed(k, w->device->id));
		bool told = false;
		/* What ended its attempt may have told it already. */
		for (const struct gate_work *g = c->batch.gates; g; g = g->next)
			told |= g->watch == k && t && g->event.number == t->number;
		if (t && !told &&
		    !add(c, k, GATE_EVENT_GIVEN_BACK, t->number, w->device, t->rollout_id))
			return false;
	}
	return true;
}

enum prepared prepare_sent(struct committer *c, struct command *cmd)
{
	char device_id[NAME_MAX_LEN + 1];
	bool defer = false;
	struct device *d =
		fleet_device_by_token(c->fleet, cmd->sent.token, device_id, sizeof device_id)
			? fleet_find(c->fleet, device_id)
			: NULL;
	const struct attempt *a = d ? d->state.attempt : NULL;
	const struct rollout *r = a && strcmp(a->token, cmd->sent.token) == 0
					  ? fleet_rollout(c->fleet, a->rollout_id)
					  : NULL;
	const struct watch *k = r ? gates_find(&c->gates, r) : NULL;
	const struct on_trial *t = k ? watch_on_trial(k, watch_exposed(k, d->id)) : NULL;

	if (!t || t->at_risk)
		return PREPARED;
	struct device_work *w = work_on_device(c, cmd, d, &defer);
	if (defer)
		return PREPARED_DEFER;
	if (!w || !add(c, (struct watch *)(uintptr_t)k, GATE_EVENT_AT_RISK, t->number, d, r->id))
		return prepare_fail_nomem(cmd);
	return PREPARED;
}

/* --- stages, and what people decide --- */

struct selected {
	const struct rollout *rollout;
	int64_t count;
};

static bool count_selected(const struct device *d, void *ctx)
{
	struct selected *s = ctx;

	s->count += s->rollout->back.from ? decide_brings_back(d, s->rollout)
					  : target_selects(s->rollout, d);
	return true;
}

bool gates_note_stage(struct committer *c, const struct rollout *r, int stage)
{
	struct gate_event e = {.kind = GATE_EVENT_STAGE};
	struct selected s = {.rollout = r};
	bool made;

	if (r->guard.off || !r->guard.bounded)
		return true;
	struct watch *k = gates_ensure(c, r, &made);
	if (!k)
		return false;
	fleet_visit(c->fleet, 0, FLEET_SHARDS, count_selected, &s);
	e.devices = s.count * r->stages[stage].percent / 100;
	struct gate_work *w = add_work(c, k, &e);
	if (w)
		w->made = made;
	watch_count_waiting(c, k, r, r->stages[stage].percent);
	return w && add_event(c, k, &e, NULL, r->id, NULL);
}

bool gates_note_override(struct committer *c, const struct rollout *r, const char *reason)
{
	struct gate_event e = {.kind = GATE_EVENT_OVERRIDDEN};
	bool made;
	struct watch *k = r->guard.off ? NULL : gates_ensure(c, r, &made);

	if (!k)
		return r->guard.off;
	if (r->guard.given)
		e.params = &r->guard.params;
	struct gate_work *w = add_work(c, k, &e);
	if (w)
		w->made = made;
	return w && add_event(c, k, &e, NULL, r->id, reason);
}

/* --- looks --- */

struct look {
	struct committer *c;
	struct command *cmd;
	struct watch *watch;
	int64_t now_us;
	int outcomes, silent;
	int64_t due, missing; /* of the control, where it is an outage */
	bool failed;          /* out of memory */
};

/* Over MQTT a device is there as long as its broker does not say otherwise, and we hear it. */
static int64_t heard_of(const struct committer *c, const struct device *d)
{
	return fleet_heard_us(d, gate_clock_heard_us(&c->gates.clock));
}

/* How long it is away, usually: 0 of one that is online and was never missed. */
static int64_t away_us(const struct committer *c, const struct device *d)
{
	const struct device_link *l = d->state.link;
	bool told = l && l->presence != PRESENCE_UNKNOWN;

	return told ? d->habit_us : gates_habit_us(c, d);
}

struct control {
	const struct look *look;
	int64_t from_us;
	int64_t due, silent;
};

/*
 * A device of the model that has not met the release, was there before the interval, and should
 * have been heard of twice in it: is it silent too?  One that was always there is, when it is away
 * for half of it.
 */
static bool count_control(const struct device *d, void *ctx)
{
	struct control *t = ctx;
	const struct look *l = t->look;
	const struct gate_clock *clock = &l->c->gates.clock;
	int64_t habit_us = away_us(l->c, d), heard_us = heard_of(l->c, d);
	int64_t length_us = gate_clock_since(clock, t->from_us, l->now_us);
	int64_t twice_us = habit_us ? 2 * habit_us : length_us / 2 + 1;

	if (strcmp(d->state.model, l->watch->release->model) != 0 ||
	    watch_exposed(l->watch, d->id) || heard_us <= t->from_us - 3 * habit_us ||
	    twice_us > length_us)
		return true;
	t->due++;
	t->silent += gate_clock_since(clock, heard_us, l->now_us) >= twice_us;
	return t->due < CONTROL_MAX;
}

static enum gate_hearing judge_silence(struct look *l, struct on_trial *t, int64_t quiet_us)
{
	struct committer *c = l->c;
	struct gate_silence s = {.heard_us = quiet_us,
				 .habit_us = away_us(c, t->device),
				 .silence_s = l->watch->gate.params.silence_s};
	int64_t seen_us = t->device->last_seen_us;
	struct control control = {.look = l,
				  .from_us = seen_us > t->since_us ? seen_us : t->since_us};

	if (gate_silence_judge(&s, &c->gates.clock, l->now_us) == GATE_HEARD ||
	    l->silent >= SILENT_MAX)
		return GATE_HEARD;
	l->silent++;
	fleet_visit(c->fleet, 0, FLEET_SHARDS, count_control, &control);
	s.due = control.due;
	s.silent = control.silent;
	enum gate_hearing h = gate_silence_judge(&s, &c->gates.clock, l->now_us);
	if (h == GATE_OUTAGE) {
		t->heard_us = l->now_us; /* nothing of it counts */
		l->watch->outage = true;
		l->due = control.due;
		l->missing = control.silent;
	}
	return h;
}

static bool quiet_for_long(const struct look *l, const struct on_trial *t, int64_t quiet_us)
{
	return gate_clock_since(&l->c->gates.clock, quiet_us, l->now_us) >=
	       gate_silence_limit_us(gates_habit_us(l->c, t->device),
				     l->watch->gate.params.silence_s);
}

/* What has become of it by now; GATE_EVENT_EXPOSED: nothing yet. */
static enum gate_event_kind judge(struct look *l, struct on_trial *t)
{
	const struct device *d = t->device;
	const struct attempt *a = d->state.attempt;
	const struct release *rel = l->watch->release;
	bool trying = a && a->release_id == rel->id; /* a success may be yet to be seen */
	bool seen = !trying && runs_release(d, rel);
	int64_t heard_us = heard_of(l->c, d);
	int64_t quiet_us = heard_us > t->heard_us ? heard_us : t->heard_us;

	if (seen)
		gate_trial_see(&t->trial, GATE_SIGHT_NEW,
			       gates_trial_us(&l->c->gates, &t->trial, heard_us),
			       l->watch->gate.params.prove_s);
	if (t->trial.state == GATE_TRIAL_PROVEN)
		return GATE_EVENT_PROVEN;
	if (t->trial.state > GATE_TRIAL_PROVEN)
		return GATE_EVENT_FAILED;
	if (!seen && !trying)
		return GATE_EVENT_GIVEN_BACK; /* it went on to something else */
	int64_t moved_us = trying && a->reported_us > t->since_us ? a->reported_us : t->since_us;
	/* It is there, has the image, and does not install it: that holds nobody up for ever. */
	if (t->at_risk && !seen && heard_us - moved_us >= IDLE_US)
		return GATE_EVENT_GIVEN_BACK;
	if (t->at_risk || seen)
		return judge_silence(l, t, quiet_us) == GATE_SILENT ? GATE_EVENT_SILENT
								    : GATE_EVENT_EXPOSED;
	/* It began a download that has come no further, heard of or not: it has not the whole
	 * image. */
	if (a->state != ATTEMPT_DOWNLOADING)
		return GATE_EVENT_EXPOSED;
	return quiet_for_long(l, t, moved_us > t->heard_us ? moved_us : t->heard_us)
		       ? GATE_EVENT_GIVEN_BACK
		       : GATE_EVENT_EXPOSED;
}

static bool is_paused(const struct look *l)
{
	const struct model *m = fleet_model(l->c->fleet, l->watch->release->model);
	bool paused = false;

	for (const struct rollout *r = m ? m->rollouts : NULL; r; r = r->next) {
		if (r->guard.off || !gates_is_of(l->watch, r))
			continue;
		if (r->walk.state == ROLLOUT_RUNNING)
			return false;
		paused |= r->walk.state == ROLLOUT_PAUSED;
	}
	return paused;
}

/* Devices come back one after the other: until a person resumes what was paused nobody is silent,
 * and then all begin anew. */
static void wait_for_return(struct look *l)
{
	struct watch *k = l->watch;

	for (size_t i = 0; i < k->open_count && k->outage; i++)
		k->open[i].heard_us = l->now_us;
	k->outage = k->outage && is_paused(l);
}

static void look_at_watch(struct look *l)
{
	struct watch *k = l->watch;
	size_t looks = k->open_count < LOOKS_MAX ? k->open_count : LOOKS_MAX;

	l->silent = 0;
	l->missing = 0;
	wait_for_return(l);
	for (size_t i = 0; i < looks && l->outcomes < OUTCOMES_MAX && !l->failed; i++) {
		if (k->looked >= k->open_count)
			k->looked = 0;
		struct on_trial *t = &k->open[k->looked++];
		enum gate_event_kind kind = judge(l, t);
		if (kind == GATE_EVENT_EXPOSED)
			continue;
		l->outcomes++;
		l->failed = !add(l->c, k, kind, t->number, t->device, t->rollout_id);
	}
}

/* Takes EVENT to every rollout that the gate watches. */
static bool lead_all(struct committer *c, struct command *cmd, const struct watch *k,
		     enum rollout_event event, const char *reason)
{
	const struct model *m = fleet_model(c->fleet, k->release->model);
	struct walk is;

	for (struct rollout *r = m ? m->rollouts : NULL; r; r = r->next) {
		if (r->guard.off || !gates_is_of(k, r) ||
		    (event == ROLLOUT_PAUSE && r->walk.state != ROLLOUT_RUNNING) ||
		    walk_step(r, event, c->batch.now_us, &is) != WALK_STEPS)
			continue;
		if (!rollout_step(c, cmd, r, &is, reason) ||
		    (event == ROLLOUT_HALT && r->rolls_back && !takeback_make(c, cmd, r, reason)))
			return false;
	}
	return true;
}

static bool pause_for_outage(struct look *l)
{
	const char *why = batch_printf(
		&l->c->batch,
		"an outage: %" PRId64 " of %" PRId64
		" devices that have nothing to do with it are silent too; resume it when they are "
		"back",
		l->missing, l->due);

	return why && lead_all(l->c, l->cmd, l->watch, ROLLOUT_PAUSE, why);
}

enum prepared prepare_gate_look(struct committer *c, struct command *cmd)
{
	struct look l = {.c = c, .cmd = cmd, .now_us = c->batch.now_us};

	gate_clock_tick(&c->gates.clock, l.now_us, !c->gates.deaf);
	gate_clock_tick(&c->gates.steady, l.now_us, true);
	for (l.watch = c->gates.first; l.watch && !l.failed; l.watch = l.watch->next) {
		look_at_watch(&l);
		l.failed = l.failed || (l.missing && !pause_for_outage(&l));
	}
	return l.failed ? prepare_fail_nomem(cmd) : PREPARED;
}

/* --- the halt --- */

static bool mark_suspect(struct committer *c, struct command *cmd, const struct watch *k,
			 const char *reason)
{
	if (k->rollout_id || k->release->suspect_us)
		return true;
	struct gate_event e = {.kind = GATE_EVENT_OVERRIDDEN};
	const char *data = event_data(c, k, &e, reason);

	return release_set_suspect(c, cmd, k->release, c->batch.now_us) && data &&
	       batch_event(&c->batch, "release_suspect", NULL, k->release->version, 0, data);
}

enum prepared prepare_gate_halt(struct committer *c, struct command *cmd)
{
	const struct watch *k = cmd->halt;
	struct gate_view v = gate_view(&k->gate);
	char sentence[GATE_SENTENCE_SIZE];

	gate_sentence(&v, sentence);
	if (!lead_all(c, cmd, k, ROLLOUT_HALT, sentence) || !mark_suspect(c, cmd, k, sentence))
		return prepare_fail_nomem(cmd);
	return PREPARED;
}
