/* SPDX-License-Identifier: MIT */
#include "commit/gates.h"

#include "commit/tally.h"

#include "base/clock.h"
#include "fleet/state.h"

#include <stdlib.h>
#include <string.h>

void gates_init(struct gates *g)
{
	pthread_mutex_init(&g->lock, NULL);
	g->steady.tick_us = 1; /* before the first look nobody looked */
}

static void watch_free(struct watch *k)
{
	gate_fini(&k->gate);
	free(k->slots);
	free(k->open);
	free(k);
}

void gates_fini(struct gates *g)
{
	for (struct watch *k = g->first, *next; k; k = next) {
		next = k->next;
		watch_free(k);
	}
	pthread_mutex_destroy(&g->lock);
}

/* --- which gate --- */

/* The rollout, if it has a gate of its own; 0: the release's is meant. */
static int64_t own_id(const struct rollout *r)
{
	return r->target.type == TARGET_SPECIFIC || r->back.rollout_id ? r->id : 0;
}

bool gates_is_of(const struct watch *k, const struct rollout *r)
{
	return k->release == r->release && k->rollout_id == own_id(r);
}

struct watch *gates_find(const struct gates *g, const struct rollout *r)
{
	struct watch *k = r->guard.off ? NULL : g->first;

	while (k && !gates_is_of(k, r))
		k = k->next;
	return k;
}

struct gate_params gates_params(struct committer *c, const struct rollout *r)
{
	const struct watch *k = gates_find(&c->gates, r);
	const struct model *m = fleet_model(c->fleet, r->release->model);
	const struct rollout *first = r;

	if (k)
		return k->gate.params;
	for (const struct rollout *o = m ? m->rollouts : NULL; o; o = o->next)
		if (o->release == r->release && own_id(o) == own_id(r) && !o->guard.off &&
		    o->id < first->id)
			first = o;
	return first->guard.params;
}

struct watch *gates_ensure(struct committer *c, const struct rollout *r, bool *made)
{
	struct gates *g = &c->gates;
	struct watch *k = gates_find(g, r);
	struct gate_params p;

	*made = !k;
	if (k || !(k = calloc(1, sizeof *k)))
		return k;
	p = gates_params(c, r);
	k->release = r->release;
	k->rollout_id = own_id(r);
	gate_init(&k->gate, &p);
	pthread_mutex_lock(&g->lock);
	k->next = g->first;
	g->first = k;
	pthread_mutex_unlock(&g->lock);
	return k;
}

void gates_drop(struct gates *g, struct watch *k)
{
	struct watch **p = &g->first;

	pthread_mutex_lock(&g->lock);
	while (*p != k)
		p = &(*p)->next;
	*p = k->next;
	pthread_mutex_unlock(&g->lock);
	watch_free(k);
}

/* --- whose exposures --- */

static size_t home(const struct watch *k, int64_t device_id)
{
	uint64_t h = (uint64_t)device_id * UINT64_C(0x9E3779B97F4A7C15);

	return (size_t)(h >> 20) & (k->cap - 1);
}

struct exposed *watch_exposed(const struct watch *k, int64_t device_id)
{
	if (k->cap == 0)
		return NULL;
	for (size_t i = home(k, device_id); k->slots[i].device_id; i = (i + 1) & (k->cap - 1))
		if (k->slots[i].device_id == device_id)
			return &k->slots[i];
	return NULL;
}

struct on_trial *watch_on_trial(const struct watch *k, const struct exposed *e)
{
	return e && e->open ? &k->open[e->open - 1] : NULL;
}

static struct exposed *slot_put(struct watch *k, const struct exposed *e)
{
	size_t i = home(k, e->device_id);

	while (k->slots[i].device_id)
		i = (i + 1) & (k->cap - 1);
	k->slots[i] = *e;
	k->count++;
	return &k->slots[i];
}

/* What stands behind it moves up where it may, so that a search never ends too early. */
static void slot_remove(struct watch *k, struct exposed *e)
{
	size_t mask = k->cap - 1, hole = (size_t)(e - k->slots);

	for (size_t i = (hole + 1) & mask; k->slots[i].device_id; i = (i + 1) & mask) {
		size_t at = home(k, k->slots[i].device_id);
		if (((i - at) & mask) < ((i - hole) & mask))
			continue;
		k->slots[hole] = k->slots[i];
		hole = i;
	}
	k->slots[hole] = (struct exposed){0};
	k->count--;
}

static bool slots_grow(struct watch *k)
{
	struct exposed *old = k->slots;
	size_t old_cap = k->cap, cap = old_cap ? old_cap * 2 : 16;
	struct exposed *slots = calloc(cap, sizeof *slots);

	if (!slots)
		return false;
	k->slots = slots;
	k->cap = cap;
	k->count = 0;
	for (size_t i = 0; i < old_cap; i++)
		if (old[i].device_id)
			slot_put(k, &old[i]);
	free(old);
	return true;
}

bool watch_reserve(struct watch *k)
{
	if ((k->count + k->reserved + 1) * 4 > k->cap * 3 && !slots_grow(k))
		return false;
	if (k->open_count + k->reserved + 1 > k->open_cap) {
		size_t cap = k->open_cap ? k->open_cap * 2 : 8;
		struct on_trial *open = realloc(k->open, cap * sizeof *open);
		if (!open)
			return false;
		k->open = open;
		k->open_cap = cap;
	}
	k->reserved++;
	return true;
}

static void expose(struct gates *g, struct watch *k, const struct gate_event *e, struct device *d,
		   int kind, int64_t rollout_id, int64_t at_us)
{
	k->reserved--;
	k->open[k->open_count++] = (struct on_trial){.device = d,
						     .number = e->number,
						     .rollout_id = rollout_id,
						     .since_us = at_us,
						     .heard_us = at_us};
	slot_put(k, &(struct exposed){.device_id = d->id,
				      .open = (uint32_t)k->open_count,
				      .kind = (int16_t)kind});
	g->open++;
}

/* It has its outcome, or none and never will. */
static void end_trial(struct gates *g, struct watch *k, struct exposed *e)
{
	struct on_trial *last = &k->open[k->open_count - 1], *it = &k->open[e->open - 1];

	if (it != last) {
		watch_exposed(k, last->device->id)->open = e->open;
		*it = *last;
	}
	k->open_count--;
	e->open = 0;
	g->open--;
}

/* Whoever had an outcome may have another from now on. */
static void forget_outcomes(struct watch *k)
{
	memset(k->slots, 0, k->cap * sizeof *k->slots);
	k->count = 0;
	fair_forget(&k->fair);
	for (size_t i = 0; i < k->open_count; i++)
		slot_put(k, &(struct exposed){.device_id = k->open[i].device->id,
					      .open = (uint32_t)i + 1,
					      .kind = -1});
}

void watch_apply(struct gates *g, struct watch *k, const struct gate_event *e, struct device *d,
		 int kind, int64_t rollout_id, int64_t at_us)
{
	if (e->kind == GATE_EVENT_OVERRIDDEN) {
		if (k->cap)
			forget_outcomes(k);
		k->halt_written = false;
		return;
	}
	if (!d || e->kind == GATE_EVENT_STAGE)
		return;
	if (e->kind == GATE_EVENT_EXPOSED) {
		expose(g, k, e, d, kind, rollout_id, at_us);
		return;
	}
	struct exposed *x = watch_exposed(k, d->id);
	struct on_trial *t = watch_on_trial(k, x);
	if (!t || t->number != e->number)
		return;
	if (e->kind == GATE_EVENT_AT_RISK) {
		t->at_risk = true;
		t->since_us = t->heard_us = at_us;
		return;
	}
	end_trial(g, k, x);
	if (e->kind == GATE_EVENT_GIVEN_BACK) {
		fair_give_back(&k->fair, x->kind);
		slot_remove(k, x);
	} else
		x->outcome = e->kind == GATE_EVENT_PROVEN ? EXPOSED_PROVEN : EXPOSED_FAILED;
}

/* --- after the commit --- */

static void apply_to_gate(struct gate *g, const struct gate_work *w)
{
	const struct gate_event *e = &w->event;

	switch (e->kind) {
	case GATE_EVENT_STAGE: gate_stage(g, e->devices); break;
	case GATE_EVENT_EXPOSED: gate_open(g, &w->place, e->number); break;
	case GATE_EVENT_AT_RISK: gate_at_risk(g, e->number); break;
	case GATE_EVENT_PROVEN: gate_proven(g, e->number); break;
	case GATE_EVENT_FAILED: gate_failed(g, e->number); break;
	case GATE_EVENT_SILENT: gate_silent(g, e->number); break;
	case GATE_EVENT_GIVEN_BACK: gate_give_back(g, e->number); break;
	case GATE_EVENT_OVERRIDDEN: gate_override(g, e->params); break;
	}
}

void gates_publish(struct committer *c, struct command *cmd)
{
	if (!cmd->gates)
		return;
	pthread_mutex_lock(&c->gates.lock);
	for (struct gate_work *w = cmd->gates; w; w = w->next) {
		apply_to_gate(&w->watch->gate, w);
		if (w->device)
			tallies_leave(c, w->device);
		watch_apply(&c->gates, w->watch, &w->event, w->device, w->kind, w->rollout_id,
			    c->batch.now_us);
		if (w->device)
			tallies_enter(c, w->device);
		else if (w->event.kind == GATE_EVENT_OVERRIDDEN)
			tallies_drop_model(c, w->watch->release->model);
		/* Whoever counts what is proven counts anew. */
		struct rollout *r =
			(struct rollout *)(uintptr_t)fleet_rollout(c->fleet, w->rollout_id);
		if (r)
			r->moves++;
	}
	pthread_mutex_unlock(&c->gates.lock);
	cmd->gates = NULL;
}

void gates_undo(struct committer *c, struct command *cmd)
{
	struct gates *g = &c->gates;

	for (struct gate_work *w = cmd->gates; w; w = w->next) {
		if (w->event.kind == GATE_EVENT_EXPOSED) {
			pthread_mutex_lock(&g->lock);
			gate_cancel(&w->watch->gate, &w->place);
			fair_give_back(&w->watch->fair, w->kind);
			w->watch->reserved--;
			pthread_mutex_unlock(&g->lock);
		}
	}
	for (struct gate_work *w = cmd->gates; w; w = w->next)
		if (w->made && w->watch->reserved == 0 && w->watch->count == 0)
			gates_drop(g, w->watch);
	cmd->gates = NULL;
}

static bool has_booted(const struct device_state *was, const struct device_state *is)
{
	return (was->boot_hash && is->boot_hash != was->boot_hash) ||
	       (was->booted_us && is->booted_us > was->booted_us) ||
	       (!is->boot_hash && !is->booted_us && is->boot_seen_us > was->boot_seen_us);
}

/* --- who waits --- */

struct waiting {
	struct committer *committer;
	const struct watch *watch;
	struct rollout *stages; /* copies, at the percent that counts */
	int count;
	struct fair fair;
	int64_t now_us;
};

static bool count_waiting(const struct device *d, void *ctx)
{
	struct waiting *w = ctx;
	int i = 0;

	while (i < w->count && decide_rollout(d, &w->stages[i]) != REASON_OFFER)
		i++;
	if (i < w->count && !watch_exposed(w->watch, d->id))
		fair_count(&w->fair, d, fair_due_us(d, gates_habit_us(w->committer, d), w->now_us),
			   w->now_us);
	return true;
}

static void add_stage(struct waiting *w, const struct rollout *r, int percent)
{
	struct rollout *stage = &w->stages[w->count++];

	rollout_copy(stage, r);
	stage->active = true;
	stage->target.percent = percent;
}

void watch_count_waiting(struct committer *c, struct watch *k, const struct rollout *r, int percent)
{
	const struct model *m = fleet_model(c->fleet, k->release->model);
	struct waiting w = {c, k, NULL, 0, .now_us = clock_service_us()};
	size_t most = 1;

	for (const struct rollout *o = m ? m->rollouts : NULL; o; o = o->next)
		most++;
	w.stages = calloc(most, sizeof *w.stages);
	if (!w.stages)
		return; /* the order is as it was: it decides nothing else */
	pthread_mutex_lock(&c->gates.lock);
	w.fair = k->fair;
	pthread_mutex_unlock(&c->gates.lock);
	fair_begin(&w.fair);
	for (const struct rollout *o = m ? m->rollouts : NULL; o; o = o->next)
		if (o != r && o->active && o->guard.bounded && !o->guard.off && gates_is_of(k, o))
			add_stage(&w, o, o->target.percent);
	if (r)
		add_stage(&w, r, percent);
	if (w.count > 0)
		fleet_visit(c->fleet, 0, FLEET_SHARDS, count_waiting, &w);
	free(w.stages);
	pthread_mutex_lock(&c->gates.lock);
	k->fair = w.fair;
	pthread_mutex_unlock(&c->gates.lock);
}

int64_t gates_trial_us(const struct gates *g, const struct gate_trial *t, int64_t seen_us)
{
	const struct gate_clock *k = &g->steady;

	if (t->state != GATE_TRIAL_RUNS || seen_us <= t->since_us)
		return seen_us;
	/* What came after the last look may lie behind a leap. */
	return t->since_us +
	       gate_clock_since(k, t->since_us, seen_us < k->tick_us ? seen_us : k->tick_us);
}

void gates_see(struct committer *c, const struct device *d, const struct device_state *next)
{
	if (c->gates.open == 0 || !has_booted(&d->state, next))
		return;
	for (struct watch *k = c->gates.first; k; k = k->next) {
		struct on_trial *t = watch_on_trial(k, watch_exposed(k, d->id));
		if (t && t->trial.state == GATE_TRIAL_RUNS)
			gate_trial_see(&t->trial, GATE_SIGHT_BOOT,
				       gates_trial_us(&c->gates, &t->trial, c->batch.now_us),
				       k->gate.params.prove_s);
	}
}

void gates_forget(struct committer *c, const struct device *d)
{
	for (struct watch *k = c->gates.first; k; k = k->next) {
		struct exposed *x = watch_exposed(k, d->id);
		if (!x)
			continue;
		pthread_mutex_lock(&c->gates.lock);
		if (x->open)
			end_trial(&c->gates, k, x);
		slot_remove(k, x);
		pthread_mutex_unlock(&c->gates.lock);
	}
}

bool gates_are_open(const struct gates *g, const struct release *r)
{
	for (const struct watch *k = g->first; k; k = k->next)
		if (k->release == r && k->open_count > 0)
			return true;
	return false;
}

void gates_give_up(struct gates *g, const struct release *r)
{
	for (struct watch *k = g->first, *next; k; k = next) {
		next = k->next;
		if (k->release == r)
			gates_drop(g, k);
	}
}

struct watch *gates_halted(const struct gates *g)
{
	struct watch *k = g->first;

	while (k && (k->halt_written || !gate_is_halted(&k->gate)))
		k = k->next;
	return k;
}

/* --- what others ask --- */

int64_t gates_habit_us(const struct committer *c, const struct device *d)
{
	return d->habit_us ? d->habit_us : c->cfg.poll_interval_s * US_PER_S;
}

/* The line that has no place. */
static const struct gate_line *full_line(const struct gate *g, enum gate_answer a,
					 const struct device *d)
{
	for (int i = 0; a == GATE_VARIANT_FULL && i < g->variant_count; i++)
		if (strcmp(g->variants[i].hw, d->state.hw) == 0 &&
		    strcmp(g->variants[i].from, d->state.version) == 0)
			return &g->variants[i].line;
	return &g->line;
}

static struct gate_word word_of(const struct watch *k, const struct device *d,
				const struct rollout *r)
{
	struct gate_word w = {.answer = gate_ask(&k->gate, d->state.hw, d->state.version)};

	if (w.answer == GATE_FREE && r->guard.bounded && !watch_exposed(k, d->id) &&
	    !fair_may(&k->fair, &k->gate, d, clock_service_us()))
		w.answer = GATE_TURN;
	if (w.answer == GATE_FREE || w.answer == GATE_TURN || w.answer == GATE_HALTED ||
	    w.answer == GATE_VARIANT_HELD)
		return w;
	if (!r->guard.bounded || watch_exposed(k, d->id)) {
		w.answer = GATE_FREE;
		return w;
	}
	const struct gate_line *l = full_line(&k->gate, w.answer, d);
	w.unproven = l->unresolved + l->reserved + l->held;
	w.bound = l->bound;
	return w;
}

struct gate_word gates_ask(void *ctx, const struct device *d, const struct rollout *r)
{
	struct gates *g = &((struct committer *)ctx)->gates;
	struct gate_word w = {.answer = GATE_FREE};

	if (r->guard.off)
		return w;
	pthread_mutex_lock(&g->lock);
	const struct watch *k = gates_find(g, r);
	if (k)
		w = word_of(k, d, r);
	pthread_mutex_unlock(&g->lock);
	return w;
}

void committer_note_waiting(struct committer *c, const struct device *d, const struct rollout *r)
{
	int64_t now_us = clock_service_us();

	pthread_mutex_lock(&c->gates.lock);
	struct watch *k = gates_find(&c->gates, r);
	if (k && fair_matters(&k->fair))
		fair_waits(&k->fair, d, fair_due_us(d, gates_habit_us(c, d), now_us), now_us);
	pthread_mutex_unlock(&c->gates.lock);
}

bool committer_gate(struct committer *c, const struct rollout *r,
		    void (*show)(void *ctx, const struct gate *g), void *ctx)
{
	pthread_mutex_lock(&c->gates.lock);
	const struct watch *k = gates_find(&c->gates, r);
	if (k)
		show(ctx, &k->gate);
	pthread_mutex_unlock(&c->gates.lock);
	return k != NULL;
}

enum gate_standing gates_standing(struct committer *c, const struct rollout *r,
				  const struct device *d)
{
	const struct watch *k = gates_find(&c->gates, r);
	const struct exposed *e = k ? watch_exposed(k, d->id) : NULL;

	if (!e)
		return GATE_STANDING_NONE;
	return e->outcome == EXPOSED_PROVEN ? GATE_STANDING_PROVEN : GATE_STANDING_NOT_PROVEN;
}

enum gate_standing committer_gate_standing(struct committer *c, const struct rollout *r,
					   const struct device *d)
{
	pthread_mutex_lock(&c->gates.lock);
	enum gate_standing s = gates_standing(c, r, d);
	pthread_mutex_unlock(&c->gates.lock);
	return s;
}

int64_t committer_on_trial(struct committer *c)
{
	return c->gates.open;
}

void committer_hears(struct committer *c, bool hears)
{
	c->gates.deaf = !hears;
}
