/* SPDX-License-Identifier: MIT */
#include "core/gate_line.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

enum { ITEM_OPEN, ITEM_PROVEN, ITEM_FAILED, ITEM_GONE };

#define NUMBER_NONE INT64_MIN
#define NOT_FOUND   SIZE_MAX

static int64_t least_of(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

struct gate_rules gate_rules_of(const struct gate_params *p, int64_t most)
{
	struct gate_rules r = {.factors = gate_factors_of(p),
			       .halt_at = p->halt_at,
			       .initial = p->initial_unproven,
			       .least = least_of(2, p->initial_unproven),
			       .most = most};

	r.ln_failed = log(r.factors.failed[0]);
	r.ln_proven = log(r.factors.proven[0]);
	return r;
}

static void line_begin(struct gate_line *l, const struct gate_rules *r)
{
	l->bound = least_of(r->initial, r->most);
	l->epoch_n = l->epoch_failed = 0;
	gate_evidence_init(&l->entered);
	gate_evidence_init(&l->ahead);
	l->ahead_to = NUMBER_NONE;
	l->ahead_stale = false;
	l->halted = false;
}

void gate_line_init(struct gate_line *l, const struct gate_rules *r, double share)
{
	*l = (struct gate_line){
		.share = share, .proven_to = NUMBER_NONE, .forgiven_to = NUMBER_NONE};
	line_begin(l, r);
}

void gate_line_fini(struct gate_line *l)
{
	free(l->items);
	l->items = NULL;
	l->cap = l->count = 0;
}

/* --- the ring --- */

static struct gate_item *item_at(const struct gate_line *l, size_t i)
{
	return &l->items[(l->head + i) & (l->cap - 1)];
}

/* The place of the first with a number above NUMBER. */
static size_t first_above(const struct gate_line *l, int64_t number)
{
	size_t low = 0, high = l->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (item_at(l, middle)->number > number)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static size_t find(const struct gate_line *l, int64_t number)
{
	size_t i = first_above(l, number);

	return i && item_at(l, i - 1)->number == number ? i - 1 : NOT_FOUND;
}

const struct gate_item *gate_line_find(const struct gate_line *l, int64_t number)
{
	size_t i = find(l, number);

	return i == NOT_FOUND ? NULL : item_at(l, i);
}

bool gate_line_is_open(const struct gate_line *l, int64_t number)
{
	const struct gate_item *it = gate_line_find(l, number);

	return it && it->state == ITEM_OPEN;
}

int64_t gate_line_last(const struct gate_line *l)
{
	return l->count ? item_at(l, l->count - 1)->number : NUMBER_NONE;
}

static bool keeps_place(const struct gate_line *l, const struct gate_item *it)
{
	return it->state == ITEM_FAILED && it->number > l->proven_to;
}

/* What is given back goes at once from both ends, and from between when it is most of all. */
static void ring_tidy(struct gate_line *l)
{
	while (l->entered_count && !keeps_place(l, item_at(l, 0))) {
		l->gone -= item_at(l, 0)->state == ITEM_GONE;
		l->head = (l->head + 1) & (l->cap - 1);
		l->count--;
		l->entered_count--;
	}
	while (l->count > l->entered_count && item_at(l, l->count - 1)->state == ITEM_GONE) {
		l->count--;
		l->gone--;
	}
	if (l->gone * 2 <= l->count)
		return;
	size_t kept = 0, entered = 0;
	for (size_t i = 0; i < l->count; i++) {
		if (item_at(l, i)->state == ITEM_GONE)
			continue;
		entered += i < l->entered_count;
		*item_at(l, kept++) = *item_at(l, i);
	}
	l->count = kept;
	l->entered_count = entered;
	l->gone = 0;
}

static bool ring_grow(struct gate_line *l)
{
	size_t cap = l->cap ? l->cap * 2 : 8;
	struct gate_item *items = calloc(cap, sizeof *items);

	if (!items)
		return false;
	for (size_t i = 0; i < l->count; i++)
		items[i] = *item_at(l, i);
	free(l->items);
	l->items = items;
	l->cap = cap;
	l->head = 0;
	return true;
}

/* --- places --- */

bool gate_line_has_place(const struct gate_line *l)
{
	int64_t under_way = l->unresolved + l->reserved;

	return under_way == 0 || under_way + l->held < l->bound;
}

bool gate_line_is_clogged(const struct gate_line *l)
{
	int64_t waits = (int64_t)(l->count - l->entered_count - l->gone) + l->reserved;

	return waits >= GATE_QUEUE_FACTOR * l->bound;
}

bool gate_line_reserve(struct gate_line *l)
{
	if (l->count + (size_t)l->reserved >= l->cap && !ring_grow(l))
		return false;
	l->reserved++;
	return true;
}

void gate_line_cancel(struct gate_line *l)
{
	assert(l->reserved > 0);
	l->reserved--;
}

void gate_line_open(struct gate_line *l, int64_t number, uint16_t variant)
{
	assert(l->reserved > 0 && l->count < l->cap);
	assert(gate_line_last(l) < number);
	l->reserved--;
	l->unresolved++;
	*item_at(l, l->count++) = (struct gate_item){.number = number, .variant = variant};
}

/* --- evidence --- */

static bool counts(const struct gate_line *l, const struct gate_item *it)
{
	return it->state != ITEM_GONE && it->number > l->forgiven_to;
}

/* The bound after one more outcome has entered. */
static void bound_step(struct gate_line *l, const struct gate_rules *r, bool failed)
{
	l->epoch_n++;
	l->epoch_failed += failed;
	if (l->epoch_n < l->bound)
		return;
	double sum = (double)l->epoch_failed * r->ln_failed +
		     (double)(l->epoch_n - l->epoch_failed) * r->ln_proven;
	int64_t bound = sum <= 0 ? l->bound * 2 : l->bound / 2;

	l->bound = least_of(bound > r->least ? bound : r->least, r->most);
	l->epoch_n = l->epoch_failed = 0;
}

static void look(struct gate_line *l, const struct gate_rules *r, const struct gate_evidence *e)
{
	if (l->halted || l->share * gate_evidence_value(e, &r->factors) < r->halt_at)
		return;
	l->halted = true;
	l->at_halt = *e;
}

/* All that are known up to the first that is not. */
static void enter(struct gate_line *l, const struct gate_rules *r)
{
	int64_t last = NUMBER_NONE;

	for (; l->entered_count < l->count; l->entered_count++) {
		const struct gate_item *it = item_at(l, l->entered_count);
		bool failed = it->state == ITEM_FAILED;

		if (it->state == ITEM_OPEN)
			break;
		last = it->number;
		if (!counts(l, it))
			continue;
		gate_evidence_add(&l->entered, &r->factors, failed);
		bound_step(l, r, failed);
		if (failed)
			look(l, r, &l->entered);
	}
	if (last >= l->ahead_to) {
		l->ahead = l->entered;
		l->ahead_to = last;
		l->ahead_stale = false;
	}
	ring_tidy(l);
}

/*
 * E after those in places FROM up to, not including, TO, what is pending being taken as proven.
 * HALTS: the line to halt where E says so; NULL: only to know.
 */
static void run(const struct gate_line *l, const struct gate_rules *r, struct gate_evidence *e,
		size_t from, size_t to, struct gate_line *halts)
{
	for (size_t i = from; i < to; i++) {
		const struct gate_item *it = item_at(l, i);
		bool failed = it->state == ITEM_FAILED;

		if (!counts(l, it))
			continue;
		gate_evidence_add(e, &r->factors, failed);
		if (failed && halts)
			look(halts, r, e);
	}
}

/* The one in place I has just failed. */
static void run_ahead(struct gate_line *l, const struct gate_rules *r, size_t i)
{
	int64_t number = item_at(l, i)->number;
	size_t from = first_above(l, l->ahead_to), to = i + 1;

	/* One that was taken as proven, or as there: once more from the start. */
	if (number < l->ahead_to || l->ahead_stale) {
		l->ahead = l->entered;
		to = to > from ? to : from;
		from = l->entered_count;
	}
	run(l, r, &l->ahead, from, to, l);
	l->ahead_to = number > l->ahead_to ? number : l->ahead_to;
	l->ahead_stale = false;
}

struct gate_evidence gate_line_evidence(const struct gate_line *l, const struct gate_rules *r)
{
	struct gate_evidence ahead = l->ahead;

	if (l->halted)
		return l->at_halt;
	if (l->ahead_stale) {
		ahead = l->entered;
		run(l, r, &ahead, l->entered_count, first_above(l, l->ahead_to), NULL);
	}
	return gate_evidence_value(&ahead, &r->factors) >
			       gate_evidence_value(&l->entered, &r->factors)
		       ? ahead
		       : l->entered;
}

/* --- outcomes --- */

bool gate_line_at_risk(struct gate_line *l, int64_t number)
{
	size_t i = find(l, number);

	if (i == NOT_FOUND || item_at(l, i)->state != ITEM_OPEN || item_at(l, i)->at_risk)
		return false;
	item_at(l, i)->at_risk = true;
	l->at_risk++;
	return true;
}

/* Takes an open one out of those without an outcome; NULL when there is no such. */
static struct gate_item *close_open(struct gate_line *l, size_t i)
{
	struct gate_item *it = i == NOT_FOUND ? NULL : item_at(l, i);

	if (!it || it->state != ITEM_OPEN)
		return NULL;
	l->unresolved--;
	l->at_risk -= it->at_risk;
	return it;
}

/* The failed that were exposed before the proven one in place I give their places back. */
static void release_held(struct gate_line *l, size_t i)
{
	int64_t number = item_at(l, i)->number;

	if (number <= l->proven_to)
		return;
	while (l->held && i-- > 0 && item_at(l, i)->number > l->proven_to)
		l->held -= item_at(l, i)->state == ITEM_FAILED;
	l->proven_to = number;
}

bool gate_line_resolve(struct gate_line *l, const struct gate_rules *r, int64_t number,
		       enum gate_outcome outcome)
{
	size_t i = find(l, number);
	struct gate_item *it = close_open(l, i);

	if (!it)
		return false;
	if (outcome == GATE_OUTCOME_PROVEN) {
		it->state = ITEM_PROVEN;
		l->proven++;
		release_held(l, i);
	} else {
		it->state = ITEM_FAILED;
		l->failed++;
		l->silent += outcome == GATE_OUTCOME_SILENT;
		l->held += keeps_place(l, it);
		if (!l->halted)
			run_ahead(l, r, i);
	}
	enter(l, r);
	return true;
}

bool gate_line_give_back(struct gate_line *l, const struct gate_rules *r, int64_t number)
{
	struct gate_item *it = close_open(l, find(l, number));

	if (!it)
		return false;
	it->state = ITEM_GONE;
	l->gone++;
	l->ahead_stale |= number < l->ahead_to;
	enter(l, r);
	return true;
}

/* --- what people decide --- */

void gate_line_limit(struct gate_line *l, const struct gate_rules *r)
{
	l->bound = least_of(l->bound, r->most);
}

void gate_line_forgive(struct gate_line *l, const struct gate_rules *r)
{
	if (l->count) {
		l->forgiven_to = l->proven_to = gate_line_last(l);
		l->held = 0;
	}
	line_begin(l, r);
	ring_tidy(l);
}
