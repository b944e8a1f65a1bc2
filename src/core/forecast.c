/* SPDX-License-Identifier: MIT */
#include "core/forecast.h"

#include "base/clock.h"
#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

#define NONE (-1)
/* Walks in which the gate halts a good release, by bad luck, are walked anew. */
#define DRAWS 4

/* Devices of one variant that are heard of about as often, still to be updated. */
struct bin {
	int variant;
	bool online;
	int64_t interval_us;
	/* Those that have not asked in this interval yet, in which they are spread evenly; those
	 * that have, and found no place. */
	int64_t ahead, later;
	int64_t last_us, end_us; /* looked at; of the interval */
	int64_t next_us;         /* when the next one asks */
};

/* One that has the release, until what became of it is known. */
struct trial {
	int64_t at_us, number;
	bool failed;
};

struct walk_sim {
	const struct reach *reach;
	const struct rollout *rollout;
	const struct forecast_start *from;
	const struct forecast_pace *pace;
	struct forecast *out;
	enum forecast_case which;
	bool watched, bounded;
	int64_t take_us, prove_us, slower;
	double fails;
	uint64_t chance;
	bool lucky; /* nobody fails after all */

	struct gate gate;
	struct bin *bins;
	int bin_count, bin_cap;
	struct trial *heap;
	size_t heap_count, heap_cap;
	int64_t *starts; /* a ring of the last PARALLEL */
	int64_t parallel, started;
	int64_t now_us, tell_us, byte_us;
	int places[REACH_VARIANTS]; /* of the variants, in the gate */
	/* Until then there was no place at all, or for the variant. */
	int64_t full_us, variant_full_us[REACH_VARIANTS];
	int64_t number;
	int64_t proven;           /* of the devices inside the present stage */
	int64_t open_us, shut_us; /* the window is open in between */
	bool out_of_memory;
};

/* --- chance: always the same --- */

static bool fails_now(struct walk_sim *s)
{
	s->chance = hash64_mix(s->chance + 1);
	return (double)(s->chance >> 11) / (double)(UINT64_C(1) << 53) < s->fails;
}

/* --- who is under way: the earliest end first --- */

static bool heap_push(struct walk_sim *s, struct trial t)
{
	size_t i = s->heap_count;

	if (i == s->heap_cap) {
		size_t cap = s->heap_cap ? s->heap_cap * 2 : 64;
		struct trial *heap = realloc(s->heap, cap * sizeof *heap);

		if (!heap)
			return false;
		s->heap = heap;
		s->heap_cap = cap;
	}
	s->heap_count++;
	for (; i && s->heap[(i - 1) / 2].at_us > t.at_us; i = (i - 1) / 2)
		s->heap[i] = s->heap[(i - 1) / 2];
	s->heap[i] = t;
	return true;
}

static struct trial heap_pop(struct walk_sim *s)
{
	struct trial top = s->heap[0], last = s->heap[--s->heap_count];
	size_t i = 0;

	for (;;) {
		size_t child = 2 * i + 1;

		if (child + 1 < s->heap_count && s->heap[child + 1].at_us < s->heap[child].at_us)
			child++;
		if (child >= s->heap_count || s->heap[child].at_us >= last.at_us)
			break;
		s->heap[i] = s->heap[child];
		i = child;
	}
	s->heap[i] = last;
	return top;
}

/* --- who asks when --- */

static void bin_next(struct bin *b)
{
	if (b->online)
		b->next_us = b->ahead ? b->last_us : FORECAST_NEVER;
	else if (b->ahead)
		b->next_us = b->last_us + (b->end_us - b->last_us) / (b->ahead + 1);
	else if (b->later)
		b->next_us = b->end_us + b->interval_us / (b->later + 1);
	else
		b->next_us = FORECAST_NEVER;
}

/* Another interval: whoever found no place asks again. */
static void bin_turn(struct bin *b, int64_t now_us)
{
	int64_t turns = (now_us - b->end_us) / b->interval_us;

	if (turns > 0) { /* all have asked in between */
		b->later += b->ahead;
		b->ahead = 0;
	}
	b->last_us = b->end_us + turns * b->interval_us;
	b->end_us = b->last_us + b->interval_us;
	b->ahead += b->later;
	b->later = 0;
}

/* Time passed in which nobody of them found a place. */
static void bin_refuse(struct bin *b, int64_t now_us)
{
	int64_t asked;

	if (now_us <= b->last_us)
		return;
	if (b->online) {
		b->last_us = now_us;
	} else {
		if (now_us >= b->end_us) {
			b->later += b->ahead;
			b->ahead = 0;
			bin_turn(b, now_us);
		}
		asked = (int64_t)((double)b->ahead * (double)(now_us - b->last_us) /
				  (double)(b->end_us - b->last_us));
		b->ahead -= asked;
		b->later += asked;
		b->last_us = now_us;
	}
	bin_next(b);
}

/* One of them takes the release. */
static void bin_take(struct bin *b, int64_t now_us)
{
	if (!b->online && b->ahead == 0)
		bin_turn(b, now_us >= b->end_us ? now_us : b->end_us);
	b->ahead--;
	b->last_us = now_us < b->end_us || b->online ? now_us : b->end_us;
	bin_next(b);
}

/* Those of a later stage join those that are heard of as often. */
static bool join_bin(struct walk_sim *s, const struct bin *b)
{
	for (int i = 0; i < s->bin_count; i++) {
		struct bin *is = &s->bins[i];

		if (is->variant != b->variant || is->online != b->online ||
		    is->interval_us / 2 > b->interval_us || b->interval_us / 2 > is->interval_us)
			continue;
		if (is->ahead + is->later == 0 || is->online) {
			is->last_us = s->now_us;
			is->end_us = s->now_us + is->interval_us;
			is->ahead += is->later + b->ahead;
			is->later = 0;
		} else { /* what is left of the interval, they share */
			int64_t left_us = is->end_us > s->now_us ? is->end_us - s->now_us : 0;
			int64_t now = (int64_t)((double)b->ahead * (double)left_us /
						(double)is->interval_us);
			is->ahead += now;
			is->later += b->ahead - now;
		}
		bin_next(is);
		return true;
	}
	return false;
}

static bool add_bin(struct walk_sim *s, struct bin b)
{
	if (join_bin(s, &b))
		return true;
	if (s->bin_count == s->bin_cap) {
		int cap = s->bin_cap ? s->bin_cap * 2 : 16;
		struct bin *bins = realloc(s->bins, (size_t)cap * sizeof *bins);

		if (!bins)
			return false;
		s->bins = bins;
		s->bin_cap = cap;
	}
	b.last_us = s->now_us;
	b.end_us = s->now_us + b.interval_us;
	bin_next(&b);
	s->bins[s->bin_count++] = b;
	return true;
}

/* --- places --- */

static const struct reach_variant *variant_at(const struct walk_sim *s, int i)
{
	return &s->reach->variants[i];
}

static bool has_place(const struct walk_sim *s, int variant)
{
	return !s->bounded || gate_ask_variant(&s->gate, s->places[variant]) == GATE_FREE;
}

/* Nobody finds one, whatever it is. */
static bool is_full(const struct walk_sim *s)
{
	return s->bounded && (s->gate.line.halted || !gate_line_has_place(&s->gate.line) ||
			      gate_line_is_clogged(&s->gate.line));
}

/* Until now there was no place: who asked, asked in vain. */
static void note_full(struct walk_sim *s)
{
	if (is_full(s)) {
		s->full_us = s->now_us;
		return;
	}
	for (int v = 0; v < (int)s->reach->taken; v++)
		if (!has_place(s, v))
			s->variant_full_us[v] = s->now_us;
}

/* When an update may begin, at T_US or after: the window, the downloads under way, the network. */
static int64_t may_begin_us(struct walk_sim *s, int64_t t_us, bool online)
{
	const struct window *w = s->rollout->window;

	if (s->parallel && s->started >= s->parallel) {
		int64_t free_us = s->starts[s->started % s->parallel] + s->take_us;
		t_us = free_us > t_us ? free_us : t_us;
	}
	t_us = s->byte_us > t_us ? s->byte_us : t_us;
	if (online)
		t_us = s->tell_us > t_us ? s->tell_us : t_us;
	if (!w || (t_us >= s->open_us && t_us < s->shut_us))
		return t_us;
	int64_t opens_us = window_opens_us(w, t_us);
	if (opens_us == INT64_MAX)
		return FORECAST_NEVER;
	s->open_us = opens_us;
	s->shut_us = window_next_change_us(w, opens_us);
	return opens_us;
}

/* The bin of the device that begins next, and when; NONE: nobody. */
static int next_start(struct walk_sim *s, int64_t *at_us)
{
	int best = NONE, asked = NONE;
	int64_t full_us = 0;
	bool place = false;

	*at_us = FORECAST_NEVER;
	for (int i = 0; i < s->bin_count && !is_full(s); i++) {
		struct bin *b = &s->bins[i];

		if (b->next_us == FORECAST_NEVER)
			continue;
		if (asked != b->variant) {
			asked = b->variant;
			place = has_place(s, asked);
			full_us = s->variant_full_us[asked];
			full_us = full_us > s->full_us ? full_us : s->full_us;
		}
		if (place && b->next_us < full_us)
			bin_refuse(b, full_us);
		int64_t t_us = b->next_us > s->now_us ? b->next_us : s->now_us;
		if (place && t_us < *at_us) {
			*at_us = t_us;
			best = i;
		}
	}
	if (best != NONE)
		*at_us = may_begin_us(s, *at_us, s->bins[best].online);
	return *at_us == FORECAST_NEVER ? NONE : best;
}

/* --- an update --- */

/* When a device that runs it since SEEN_US has proven it. */
static int64_t proven_us(const struct walk_sim *s, const struct bin *b, int64_t seen_us)
{
	int64_t step_us = b->interval_us;

	if (!s->watched)
		return seen_us;
	if (b->online || step_us <= 0)
		return seen_us + s->prove_us;
	return seen_us + (s->prove_us + step_us - 1) / step_us * step_us;
}

static bool expose(struct walk_sim *s, const char *hw, const char *from)
{
	struct gate_place place;

	if (!s->watched)
		return true;
	if (gate_take(&s->gate, hw, from, &place) != OTA_OK)
		return false;
	gate_open(&s->gate, &place, s->number);
	return true;
}

static void begin(struct walk_sim *s, int i, int64_t at_us)
{
	struct bin *b = &s->bins[i];
	const struct forecast_pace *p = s->pace;
	const struct reach_variant *v = variant_at(s, b->variant);
	int64_t has_us = at_us + s->take_us;
	struct trial t = {.number = ++s->number, .failed = fails_now(s)};

	s->now_us = at_us;
	t.at_us = t.failed ? has_us : proven_us(s, b, has_us);
	if (!expose(s, v->hw, v->from) || !heap_push(s, t)) {
		s->out_of_memory = true;
		return;
	}
	if (s->parallel)
		s->starts[s->started % s->parallel] = at_us;
	s->started++;
	if (p->bytes_per_s)
		s->byte_us = at_us + (int64_t)((double)s->rollout->release->file_size * 1e6 /
					       (double)p->bytes_per_s);
	if (b->online)
		s->tell_us = at_us + US_PER_S / p->tell_per_s;
	bin_take(b, at_us);
}

static void end_trial(struct walk_sim *s)
{
	struct trial t = heap_pop(s);

	s->now_us = t.at_us > s->now_us ? t.at_us : s->now_us;
	if (s->bounded)
		note_full(s);
	s->proven += !t.failed;
	if (!s->watched)
		return;
	if (t.failed)
		gate_failed(&s->gate, t.number);
	else
		gate_proven(&s->gate, t.number);
}

/* --- a stage --- */

static bool add_devices(struct walk_sim *s, int stage)
{
	const struct reach *c = s->reach;

	for (int v = 0; v < (int)c->taken; v++)
		for (int i = 0; i < REACH_BINS; i++) {
			const struct reach_cell *cell = &c->cells[stage][v][i];
			struct bin b = {.variant = v, .online = i == 0, .ahead = cell->count};

			if (!cell->count)
				continue;
			b.interval_us = cell->interval_us_sum / cell->count * s->slower;
			if (b.interval_us < US_PER_S)
				b.interval_us = US_PER_S;
			if (!add_bin(s, b))
				return false;
		}
	return true;
}

/* Devices that are at it already: known in half of their time. */
static bool add_trials(struct walk_sim *s, int64_t count)
{
	for (int64_t i = 0; i < count; i++) {
		struct trial t = {.number = ++s->number,
				  .at_us = s->now_us +
					   (s->take_us + (s->watched ? s->prove_us : 0)) / 2};

		if (!expose(s, "", "") || !heap_push(s, t))
			return false;
	}
	return true;
}

static void begin_stage(struct walk_sim *s, int i, bool first)
{
	const struct reach *c = s->reach;
	struct forecast_stage *o = &s->out->stages[i];
	int64_t trials = 0;

	o->begins_us[s->which] = s->now_us;
	for (int k = first ? 0 : i; k <= i && !s->out_of_memory; k++) {
		trials += c->stages[k].trial;
		s->proven += c->stages[k].done;
		s->out_of_memory = !add_devices(s, k);
	}
	if (s->watched && !first)
		gate_stage(&s->gate, c->selected * s->rollout->stages[i].percent / 100);
	if (!s->out_of_memory)
		s->out_of_memory = !add_trials(s, trials);
}

static bool is_ready(const struct walk_sim *s, int i)
{
	return s->proven >= s->out->stages[i].needed && (!s->watched || gate_is_calm(&s->gate));
}

/* Goes on until T_US or, without anything left to do, as far as it comes; false: nothing is left.
 */
static bool step(struct walk_sim *s, int64_t until_us)
{
	int64_t start_us;
	int i = next_start(s, &start_us);
	int64_t end_us = s->heap_count ? s->heap[0].at_us : FORECAST_NEVER;

	if (start_us == FORECAST_NEVER && end_us == FORECAST_NEVER)
		return false;
	if (start_us > until_us && end_us > until_us) {
		s->now_us = until_us;
		return true;
	}
	if (end_us <= start_us)
		end_trial(s);
	else
		begin(s, i, start_us);
	return true;
}

/* False: it does not end. */
static bool walk_stage(struct walk_sim *s, int i, bool first)
{
	struct forecast_stage *o = &s->out->stages[i];
	int64_t until_us = s->now_us + s->rollout->stages[i].min_duration_s * US_PER_S;

	begin_stage(s, i, first);
	if (first && s->from->stage_until_us)
		until_us = s->from->stage_until_us;
	if (s->which == FORECAST_LIKELY)
		o->wait = FORECAST_TIME;
	while (!s->out_of_memory && !(s->now_us >= until_us && is_ready(s, i))) {
		if (s->now_us >= until_us && s->which == FORECAST_LIKELY)
			o->wait = FORECAST_PROOF;
		if (s->watched && gate_is_halted(&s->gate))
			return false;
		if (!step(s, s->now_us < until_us ? until_us : FORECAST_NEVER)) {
			if (!is_ready(s, i)) {
				if (s->which == FORECAST_LIKELY)
					o->wait = FORECAST_TOO_FEW;
				return false;
			}
			s->now_us = until_us > s->now_us ? until_us : s->now_us;
		}
	}
	o->ends_us[s->which] = s->now_us;
	return true;
}

/* --- a walk --- */

/* The gate knows the variants from the start. */
static bool find_places(struct walk_sim *s)
{
	for (int i = 0; i < (int)s->reach->taken; i++) {
		const struct reach_variant *v = variant_at(s, i);
		struct gate_place place;

		if (gate_take(&s->gate, v->hw, v->from, &place) != OTA_OK)
			return false;
		gate_cancel(&s->gate, &place);
		s->places[i] = place.variant;
	}
	return true;
}

static bool sim_init(struct walk_sim *s)
{
	const struct rollout *r = s->rollout;
	int64_t most = s->pace->max_downloads;

	s->slower = s->which == FORECAST_LATEST ? 2 : 1;
	s->take_us =
		s->which == FORECAST_EARLIEST ? s->pace->take_us / 2 : s->pace->take_us * s->slower;
	s->fails = s->which == FORECAST_EARLIEST ? 0
		   : s->which == FORECAST_LIKELY ? s->pace->failure_share
						 : r->guard.params.p0;
	if (s->lucky)
		s->fails = 0;
	if (s->fails > r->guard.params.p0)
		s->fails = r->guard.params.p0;
	s->watched = !r->guard.off;
	s->bounded = r->guard.bounded;
	s->prove_us = r->guard.params.prove_s * US_PER_S;
	s->now_us = s->from->at_us;
	if (r->max_parallel && (!most || r->max_parallel < most))
		most = r->max_parallel;
	s->parallel = most < s->out->updates ? most : 0;
	gate_init(&s->gate, &r->guard.params);
	gate_stage(&s->gate, s->reach->selected * r->stages[s->from->stage].percent / 100);
	if (s->parallel && !(s->starts = calloc((size_t)s->parallel, sizeof *s->starts)))
		return false;
	if (s->from->gate && !gate_copy_bounds(&s->gate, s->from->gate))
		return false;
	return find_places(s);
}

static void sim_fini(struct walk_sim *s)
{
	gate_fini(&s->gate);
	free(s->bins);
	free(s->heap);
	free(s->starts);
}

/* *HALTED: as chance had it, too many failed. */
static bool walk(struct walk_sim *s, bool *halted)
{
	const struct rollout *r = s->rollout;
	int i = s->from->stage;
	bool ends = sim_init(s);

	*halted = false;
	s->out_of_memory = !ends;
	for (int k = i; k < r->stage_count; k++) {
		struct forecast_stage *o = &s->out->stages[k];
		o->begins_us[s->which] = o->ends_us[s->which] = FORECAST_NEVER;
		if (s->which == FORECAST_LIKELY)
			o->wait = FORECAST_TOO_FEW;
	}
	s->out->reached_us[s->which] = FORECAST_NEVER;
	for (bool first = true; ends && i < r->stage_count; i++, first = false)
		ends = walk_stage(s, i, first);
	while (ends && !s->out_of_memory && step(s, FORECAST_NEVER))
		;
	if (ends)
		s->out->reached_us[s->which] = s->now_us;
	*halted = s->watched && gate_is_halted(&s->gate);
	bool ok = !s->out_of_memory;
	sim_fini(s);
	return ok;
}

static void count_stages(const struct reach *c, const struct rollout *r, int from,
			 struct forecast *out)
{
	struct stage_facts f = {0};
	int64_t can = 0;

	for (int i = 0; i < r->stage_count; i++) {
		const struct reach_stage *s = &c->stages[i];

		f.devices += s->devices;
		f.seen += s->seen;
		can += s->done + s->trial + s->reachable;
		out->updates += s->reachable + s->trial;
		if (i < from)
			continue;
		out->stages[i].devices = f.devices;
		out->stages[i].seen = f.seen;
		out->stages[i].needed = stage_need(&r->stages[i], &f);
		out->stages[i].can = can;
	}
}

/* Where chance made the walks cross. */
static void put_in_order(int64_t us[FORECAST_CASES])
{
	if (us[FORECAST_EARLIEST] > us[FORECAST_LIKELY])
		us[FORECAST_EARLIEST] = us[FORECAST_LIKELY];
	if (us[FORECAST_LATEST] < us[FORECAST_LIKELY])
		us[FORECAST_LATEST] = us[FORECAST_LIKELY];
}

enum ota_code forecast_run(const struct reach *c, const struct rollout *r,
			   const struct forecast_start *from, const struct forecast_pace *pace,
			   struct forecast *out)
{
	memset(out, 0, sizeof *out);
	out->stage_count = r->stage_count;
	count_stages(c, r, from->stage, out);
	for (int which = 0; which < FORECAST_CASES; which++) {
		bool halted = true;

		for (uint64_t draw = 0; halted && draw < DRAWS; draw++) {
			struct walk_sim s = {.reach = c,
					     .rollout = r,
					     .from = from,
					     .pace = pace,
					     .out = out,
					     .which = (enum forecast_case)which,
					     .chance = draw,
					     .lucky = draw == DRAWS - 1};

			if (!walk(&s, &halted))
				return OTA_ENOMEM;
		}
	}
	for (int i = from->stage; i < r->stage_count; i++) {
		put_in_order(out->stages[i].begins_us);
		put_in_order(out->stages[i].ends_us);
	}
	put_in_order(out->reached_us);
	return OTA_OK;
}
