/* SPDX-License-Identifier: MIT */
#include "core/gate_replay.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

#define NOBODY UINT32_MAX

enum entry_state { ENTRY_OPEN, ENTRY_WAITS, ENTRY_SPARED };

struct replay_entry {
	int64_t number; /* in the history */
	int64_t own;    /* in the other gate, once it is open there */
	int64_t since_us, shift_us;
	int64_t at_us; /* the outcome: of a waiting one how long after, else when */
	uint32_t next; /* in its queue; of a free one: the next free */
	uint16_t variant;
	uint8_t state, outcome; /* an enum gate_event_kind, 0 (STAGE): none known yet */
};

bool replay_init(struct replay *r, const struct gate_params *was, const struct gate_params *is,
		 bool bounds)
{
	int64_t prove_s = is ? is->prove_s - was->prove_s : 0;
	int64_t silence_s = is ? is->silence_s - was->silence_s : 0;

	memset(r, 0, sizeof *r);
	gate_init(&r->was, was);
	gate_init(&r->is, is ? is : was);
	r->other = is != NULL;
	r->bounds = bounds;
	r->later_us[GATE_EVENT_PROVEN] = prove_s > 0 ? prove_s * US_PER_S : 0;
	r->later_us[GATE_EVENT_SILENT] = silence_s > 0 ? silence_s * US_PER_S : 0;
	r->free = NOBODY;
	r->queues = malloc(2 * GATE_VARIANTS_MAX * sizeof *r->queues);
	if (!r->queues)
		return false;
	for (int i = 0; i < 2 * GATE_VARIANTS_MAX; i++)
		r->queues[i] = NOBODY;
	return true;
}

void replay_fini(struct replay *r)
{
	gate_fini(&r->was);
	gate_fini(&r->is);
	free(r->entries);
	free(r->index);
	free(r->queues);
	free(r->heap);
	memset(r, 0, sizeof *r);
}

/* --- entries, by number --- */

static uint32_t home(const struct replay *r, int64_t number)
{
	uint64_t h = (uint64_t)number * UINT64_C(0x9E3779B97F4A7C15);

	return (uint32_t)(h >> 32) & (2 * r->cap - 1);
}

/* Its place in the index; that of nobody where it would be. */
static uint32_t find_slot(const struct replay *r, int64_t number)
{
	uint32_t i = home(r, number);

	while (r->index[i] != NOBODY && r->entries[r->index[i]].number != number)
		i = (i + 1) & (2 * r->cap - 1);
	return i;
}

static struct replay_entry *find(const struct replay *r, int64_t number)
{
	uint32_t slot = r->cap ? find_slot(r, number) : 0;

	return r->cap && r->index[slot] != NOBODY ? &r->entries[r->index[slot]] : NULL;
}

static uint32_t id_of(const struct replay *r, const struct replay_entry *e)
{
	return (uint32_t)(e - r->entries);
}

/* An array more than doubled, or left as it is. */
static bool grow_array(void *array_p, size_t count, size_t size)
{
	void **array = array_p, *more = realloc(*array, count * size);

	if (more)
		*array = more;
	return more != NULL;
}

static bool grow(struct replay *r)
{
	uint32_t cap = r->cap ? r->cap * 2 : 64;

	if (!grow_array((void *)&r->entries, cap, sizeof *r->entries) ||
	    !grow_array((void *)&r->heap, cap, sizeof *r->heap) ||
	    !grow_array((void *)&r->index, 2 * (size_t)cap, sizeof *r->index))
		return false;
	r->cap = cap;
	memset(r->index, 0xFF, 2 * (size_t)cap * sizeof *r->index);
	for (uint32_t i = 0; i < r->used; i++)
		r->index[find_slot(r, r->entries[i].number)] = i;
	return true;
}

static enum ota_code add(struct replay *r, const struct replay_event *e, struct replay_entry **out,
			 struct ota_err *err)
{
	uint32_t i = r->free;

	if (r->count == REPLAY_MOST)
		return ota_fail(err, OTA_EUNPROCESSABLE,
				"more than %u devices would wait, or be without an outcome, at a "
				"time: that is more than can be replayed",
				REPLAY_MOST);
	if (i == NOBODY) { /* then all that were used are in use */
		if (r->used == r->cap && !grow(r))
			return ota_fail_nomem(err);
		i = r->used++;
	} else {
		r->free = r->entries[i].next;
	}
	r->entries[i] = (struct replay_entry){
		.number = e->gate.number, .since_us = e->at_us, .next = NOBODY};
	r->index[find_slot(r, e->gate.number)] = i;
	r->count++;
	*out = &r->entries[i];
	return OTA_OK;
}

static void drop(struct replay *r, struct replay_entry *e)
{
	uint32_t mask = 2 * r->cap - 1, hole = find_slot(r, e->number);

	for (uint32_t i = (hole + 1) & mask; r->index[i] != NOBODY; i = (i + 1) & mask) {
		uint32_t at = home(r, r->entries[r->index[i]].number);

		if (((i - at) & mask) < ((i - hole) & mask))
			continue;
		r->index[hole] = r->index[i];
		hole = i;
	}
	r->index[hole] = NOBODY;
	e->next = r->free;
	r->free = id_of(r, e);
	r->count--;
}

/* --- outcomes to come --- */

static bool sooner(const struct replay *r, uint32_t a, uint32_t b)
{
	const struct replay_entry *x = &r->entries[a], *y = &r->entries[b];

	return x->at_us != y->at_us ? x->at_us < y->at_us : x->own < y->own;
}

static void heap_push(struct replay *r, uint32_t id)
{
	uint32_t i = r->heap_count++;

	for (; i && sooner(r, id, r->heap[(i - 1) / 2]); i = (i - 1) / 2)
		r->heap[i] = r->heap[(i - 1) / 2];
	r->heap[i] = id;
}

static uint32_t heap_pop(struct replay *r)
{
	uint32_t top = r->heap[0], last = r->heap[--r->heap_count], i = 0;

	for (;;) {
		uint32_t child = 2 * i + 1;

		if (child + 1 < r->heap_count && sooner(r, r->heap[child + 1], r->heap[child]))
			child++;
		if (child >= r->heap_count || !sooner(r, r->heap[child], last))
			break;
		r->heap[i] = r->heap[child];
		i = child;
	}
	r->heap[i] = last;
	return top;
}

/* --- the other gate --- */

static uint32_t *queue_first(struct replay *r, int variant)
{
	return &r->queues[2 * variant];
}

static void queue_push(struct replay *r, struct replay_entry *e)
{
	uint32_t id = id_of(r, e), *last = &r->queues[2 * e->variant + 1];

	e->state = ENTRY_WAITS;
	e->next = NOBODY;
	if (*last == NOBODY)
		*queue_first(r, e->variant) = id;
	else
		r->entries[*last].next = id;
	*last = id;
	r->result.waiting++;
}

static struct replay_entry *queue_pop(struct replay *r, int variant)
{
	uint32_t *first = queue_first(r, variant);
	struct replay_entry *e = &r->entries[*first];

	*first = e->next;
	if (*first == NOBODY)
		r->queues[2 * variant + 1] = NOBODY;
	e->next = NOBODY;
	r->result.waiting--;
	return e;
}

static bool open_it(struct replay *r, struct replay_entry *e, const char *hw, const char *from)
{
	struct gate_place place;

	if (gate_take(&r->is, hw, from, &place) != OTA_OK)
		return false;
	e->own = ++r->own_number;
	e->state = ENTRY_OPEN;
	gate_open(&r->is, &place, e->own);
	r->result.is.exposed++;
	return true;
}

static void spare(struct replay *r, struct replay_entry *e)
{
	r->result.spared++;
	r->result.spared_failed +=
		e->outcome == GATE_EVENT_FAILED || e->outcome == GATE_EVENT_SILENT;
	e->state = ENTRY_SPARED;
	if (e->outcome)
		drop(r, e);
}

static void note_halts(struct replay *r, int64_t at_us)
{
	struct replay_result *x = &r->result;

	if (gate_is_halted(&r->is) && !x->is.halted) {
		x->is.halted = true;
		x->is.halted_us = at_us;
		x->is.exposed_then = x->is.exposed;
	}
	for (int v = 0; v < r->is.variant_count; v++) {
		bool known = !r->is.variants[v].line.halted;

		for (int i = 0; i < x->held_count && !known; i++)
			known = x->held[i].variant == v;
		if (!known)
			x->held[x->held_count++] = (struct replay_variant){v, at_us};
		while ((gate_is_halted(&r->is) || r->is.variants[v].line.halted) &&
		       *queue_first(r, v) != NOBODY)
			spare(r, queue_pop(r, v));
	}
}

/* The earliest of those that wait and find a place now; NOBODY. */
static int next_variant(struct replay *r)
{
	int best = -1;

	for (int v = 0; v < r->is.variant_count; v++) {
		uint32_t first = *queue_first(r, v);
		const struct gate_variant *g = &r->is.variants[v];

		if (first == NOBODY ||
		    (best >= 0 &&
		     r->entries[*queue_first(r, best)].number < r->entries[first].number) ||
		    gate_ask(&r->is, g->hw, g->from) != GATE_FREE)
			continue;
		best = v;
	}
	return best;
}

static bool let_in(struct replay *r, int64_t at_us)
{
	struct replay_result *x = &r->result;

	for (int v; x->waiting && (v = next_variant(r)) >= 0;) {
		struct replay_entry *e = queue_pop(r, v);
		const struct gate_variant *g = &r->is.variants[v];

		if (!open_it(r, e, g->hw, g->from))
			return false;
		e->shift_us = at_us - e->since_us;
		x->held_up++;
		x->wait_us += e->shift_us;
		if (e->shift_us > x->longest_wait_us)
			x->longest_wait_us = e->shift_us;
		if (e->outcome) {
			e->at_us += at_us;
			heap_push(r, id_of(r, e));
		}
	}
	return true;
}

/* The outcome of an open one is known. */
static bool conclude(struct replay *r, struct replay_entry *e, int64_t at_us)
{
	struct replay_side *is = &r->result.is;

	switch ((enum gate_event_kind)e->outcome) {
	case GATE_EVENT_PROVEN: is->proven += gate_proven(&r->is, e->own); break;
	case GATE_EVENT_FAILED: is->failed += gate_failed(&r->is, e->own); break;
	case GATE_EVENT_SILENT: is->failed += gate_silent(&r->is, e->own); break;
	default: is->exposed -= gate_give_back(&r->is, e->own); break;
	}
	drop(r, e);
	note_halts(r, at_us);
	return let_in(r, at_us);
}

/* What comes of it until then. */
static bool catch_up(struct replay *r, int64_t at_us)
{
	while (r->heap_count && r->entries[r->heap[0]].at_us <= at_us) {
		struct replay_entry *e = &r->entries[heap_pop(r)];

		if (!conclude(r, e, e->at_us))
			return false;
	}
	return true;
}

/* --- the history --- */

static enum ota_code feed_exposed(struct replay *r, const struct replay_event *e,
				  enum gate_answer was, struct ota_err *err)
{
	struct gate_place place;
	struct replay_entry *x = NULL;
	enum ota_code rc = add(r, e, &x, err);

	if (rc != OTA_OK)
		return rc;
	/* So that the variant is there. */
	if (gate_take(&r->is, e->gate.hw, e->gate.from, &place) != OTA_OK)
		return ota_fail_nomem(err);
	gate_cancel(&r->is, &place);
	x->variant = (uint16_t)place.variant;
	switch (gate_ask(&r->is, e->gate.hw, e->gate.from)) {
	case GATE_HALTED:
	case GATE_VARIANT_HELD:
		if (was == GATE_HALTED || was == GATE_VARIANT_HELD)
			break;
		spare(r, x);
		return OTA_OK;
	case GATE_FULL:
	case GATE_VARIANT_FULL:
	case GATE_CLOGGED:
		if (e->bounded ? was != GATE_FREE : !r->bounds)
			break;
		queue_push(r, x);
		return OTA_OK;
	case GATE_TURN: /* the order of kinds says that, no gate by itself */
	case GATE_FREE: break;
	}
	return open_it(r, x, e->gate.hw, e->gate.from) ? OTA_OK : ota_fail_nomem(err);
}

static bool feed_outcome(struct replay *r, const struct replay_event *e)
{
	struct replay_entry *x = find(r, e->gate.number);
	int64_t later_us = r->later_us[e->gate.kind];

	if (!x || x->outcome)
		return true;
	x->outcome = (uint8_t)e->gate.kind;
	switch ((enum entry_state)x->state) {
	case ENTRY_SPARED:
		r->result.spared_failed +=
			e->gate.kind == GATE_EVENT_FAILED || e->gate.kind == GATE_EVENT_SILENT;
		if (e->gate.kind == GATE_EVENT_GIVEN_BACK)
			r->result.spared--;
		drop(r, x);
		return true;
	case ENTRY_WAITS: x->at_us = e->at_us - x->since_us + later_us; return true;
	case ENTRY_OPEN: break;
	}
	if (x->shift_us + later_us == 0)
		return conclude(r, x, e->at_us);
	x->at_us = e->at_us + x->shift_us + later_us;
	heap_push(r, id_of(r, x));
	return true;
}

/* The gate as it was. */
static enum ota_code follow(struct replay *r, const struct replay_event *e, struct ota_err *err)
{
	struct replay_side *was = &r->result.was;
	int64_t proven = r->was.line.proven, failed = r->was.line.failed;
	bool open = gate_is_unresolved(&r->was, e->gate.number);
	enum ota_code rc = gate_replay(&r->was, &e->gate, err);

	if (rc != OTA_OK)
		return rc;
	was->proven += r->was.line.proven - proven;
	was->failed += r->was.line.failed - failed;
	was->exposed += e->gate.kind == GATE_EVENT_EXPOSED;
	was->exposed -= e->gate.kind == GATE_EVENT_GIVEN_BACK && open;
	if (gate_is_halted(&r->was) && !was->halted) {
		was->halted = true;
		was->halted_us = e->at_us;
		was->exposed_then = was->exposed;
	}
	return OTA_OK;
}

enum ota_code replay_feed(struct replay *r, const struct replay_event *e, struct ota_err *err)
{
	enum gate_answer was = gate_ask(&r->was, e->gate.hw, e->gate.from);
	enum ota_code rc = follow(r, e, err);
	bool ok = rc == OTA_OK && catch_up(r, e->at_us);
	struct replay_entry *x;

	if (rc != OTA_OK)
		return rc;
	switch (e->gate.kind) {
	case GATE_EVENT_STAGE: gate_stage(&r->is, e->gate.devices); break;
	case GATE_EVENT_EXPOSED: return ok ? feed_exposed(r, e, was, err) : ota_fail_nomem(err);
	case GATE_EVENT_AT_RISK:
		x = find(r, e->gate.number);
		if (x && x->state == ENTRY_OPEN)
			gate_at_risk(&r->is, x->own);
		break;
	case GATE_EVENT_OVERRIDDEN: gate_override(&r->is, r->other ? NULL : e->gate.params); break;
	default: ok = ok && feed_outcome(r, e); break;
	}
	ok = ok && let_in(r, e->at_us);
	return ok ? OTA_OK : ota_fail_nomem(err);
}

enum ota_code replay_end(struct replay *r, struct ota_err *err)
{
	return catch_up(r, INT64_MAX) ? OTA_OK : ota_fail_nomem(err);
}
