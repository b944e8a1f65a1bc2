/* SPDX-License-Identifier: MIT */
/*
 * core/gate by property, on random walks: never above the bound, the same end in whatever order
 * outcomes arrive, nothing left of what was given back, the same state from the events; and at
 * every step what a plain model, which recomputes all from the start, says.
 */
#include "gate_walk.h"

#include "random.h"

#define STEPS    400
#define EVENTS   (3 * STEPS)
#define VARIANTS 3
#define WALKS    200

enum fate { OPEN, PROVEN, FAILED, GONE };

struct exposure {
	int64_t number;
	int variant;
	enum fate fate;
};

/* What happened, as a log and as a list. */
struct walk {
	struct gate gate;
	struct gate_event events[EVENTS];
	int event_count;
	struct exposure list[STEPS];
	int count;
	int bad; /* per mille */
};

static const char *const hw[VARIANTS] = {"a", "b", ""};

static struct gate_params random_params(void)
{
	struct gate_params p = gate_params_default();

	p.initial_unproven = 1 + random_below(20);
	p.max_unproven = p.initial_unproven + random_below(40);
	if (random_below(3) == 0)
		p.halt_at = 1e9;
	return p;
}

static void log_event(struct walk *w, struct gate_event e)
{
	assert_true(w->event_count < EVENTS);
	w->events[w->event_count++] = e;
}

/* --- the plain model --- */

static bool is_of(const struct exposure *x, int variant)
{
	return variant < 0 || x->variant == variant;
}

/* VARIANT < 0: the release. */
static void model_says(const struct walk *w, const struct gate_line *l, int variant)
{
	const struct gate_rules *r = &w->gate.rules;
	int64_t proven_to = INT64_MIN, unresolved = 0, held = 0, last_failure = INT64_MIN;
	struct gate_evidence entered, ahead;
	bool waits = false;

	for (int i = 0; i < w->count; i++)
		if (is_of(&w->list[i], variant) && w->list[i].fate == PROVEN)
			proven_to = w->list[i].number;
	gate_evidence_init(&entered);
	gate_evidence_init(&ahead);
	for (int i = 0; i < w->count; i++) {
		const struct exposure *x = &w->list[i];

		if (!is_of(x, variant) || x->fate == GONE)
			continue;
		unresolved += x->fate == OPEN;
		waits |= x->fate == OPEN;
		held += x->fate == FAILED && x->number > proven_to;
		if (x->fate == FAILED)
			last_failure = x->number;
		if (!waits)
			gate_evidence_add(&entered, &r->factors, x->fate == FAILED);
	}
	for (int i = 0; i < w->count && w->list[i].number <= last_failure; i++)
		if (is_of(&w->list[i], variant) && w->list[i].fate != GONE)
			gate_evidence_add(&ahead, &r->factors, w->list[i].fate == FAILED);
	assert_int_equal(l->unresolved, unresolved);
	assert_int_equal(l->held, held);
	same_evidence(&l->entered, &entered);
	if (l->halted)
		return;
	struct gate_evidence have = gate_line_evidence(l, r);
	bool is_ahead = gate_evidence_value(&ahead, &r->factors) >
				gate_evidence_value(&entered, &r->factors) &&
			ahead.n > entered.n;
	same_evidence(&have, is_ahead ? &ahead : &entered);
}

static void model_says_all(const struct walk *w)
{
	model_says(w, &w->gate.line, -1);
	for (int i = 0; i < w->gate.variant_count; i++)
		for (int v = 0; v < VARIANTS; v++)
			if (w->gate.variants[i].rank && strcmp(w->gate.variants[i].hw, hw[v]) == 0)
				model_says(w, &w->gate.variants[i].line, v);
}

/* --- a step --- */

static void was_within(const struct gate_line *l)
{
	int64_t under_way = l->unresolved + l->reserved;

	assert_true(under_way == 1 || under_way + l->held <= l->bound);
}

static void open_some(struct walk *w)
{
	enum gate_answer answer;
	struct gate_place places[4];
	int variants[4], count = 0;

	/* A batch: all are asked before any is committed, and some are not. */
	for (int i = 1 + random_below(4); i > 0; i--) {
		int v = random_below(VARIANTS);

		assert_int_equal(gate_reserve(&w->gate, hw[v], "1", &answer, &places[count]),
				 OTA_OK);
		if (answer != GATE_FREE)
			continue;
		assert_false(gate_is_halted(&w->gate));
		was_within(&w->gate.line);
		was_within(&w->gate.variants[places[count].variant].line);
		variants[count++] = v;
	}
	for (int i = 0; i < count; i++) {
		if (w->count == STEPS || random_below(8) == 0) {
			gate_cancel(&w->gate, &places[i]);
			continue;
		}
		int64_t number = w->count ? w->list[w->count - 1].number + 1 + random_below(3) : 1;
		gate_open(&w->gate, &places[i], number);
		w->list[w->count++] = (struct exposure){.number = number, .variant = variants[i]};
		log_event(w, (struct gate_event){.kind = GATE_EVENT_EXPOSED,
						 .number = number,
						 .hw = hw[variants[i]],
						 .from = "1"});
	}
}

/* Any that is open, the early ones more often. */
static struct exposure *some_open(struct walk *w)
{
	int open = 0, which;

	for (int i = 0; i < w->count; i++)
		open += w->list[i].fate == OPEN;
	if (!open)
		return NULL;
	which = random_below(1 + random_below(open));
	for (int i = 0;; i++)
		if (w->list[i].fate == OPEN && which-- == 0)
			return &w->list[i];
}

static void resolve_one(struct walk *w)
{
	struct exposure *x = some_open(w);
	struct gate_event e = {.number = x ? x->number : 0};

	if (!x)
		return;
	if (random_below(6) == 0) {
		e.kind = GATE_EVENT_GIVEN_BACK;
		x->fate = GONE;
		assert_true(gate_give_back(&w->gate, x->number));
	} else if (random_below(1000) < w->bad) {
		bool silent = random_below(2);
		e.kind = silent ? GATE_EVENT_SILENT : GATE_EVENT_FAILED;
		x->fate = FAILED;
		assert_true(silent ? gate_silent(&w->gate, x->number)
				   : gate_failed(&w->gate, x->number));
	} else {
		e.kind = GATE_EVENT_PROVEN;
		x->fate = PROVEN;
		assert_true(gate_proven(&w->gate, x->number));
	}
	log_event(w, e);
}

static void walk_begin(struct walk *w)
{
	static const int bad[] = {0, 5, 10, 50, 100, 300, 1000};
	struct gate_params p = random_params();
	struct ota_err err;

	*w = (struct walk){.bad = bad[random_below(7)]};
	assert_int_equal(gate_params_check(&p, &err), OTA_OK);
	gate_init(&w->gate, &p);
}

static void as_the_model_says(void **state)
{
	struct walk *w = test_malloc(sizeof *w);

	(void)state;
	random_begin("gate");
	for (int i = 0; i < WALKS; i++) {
		struct gate again;
		struct ota_err err;
		bool halted = false;

		walk_begin(w);
		for (int k = 0; k < STEPS; k++) {
			if (random_below(3) == 0)
				open_some(w);
			else
				resolve_one(w);
			assert_true(w->gate.line.unresolved <= w->gate.rules.most);
			assert_true(!halted || gate_is_halted(&w->gate));
			halted = gate_is_halted(&w->gate);
			if (k % 8 == 0)
				model_says_all(w);
		}
		/* The same from its events. */
		gate_init(&again, &w->gate.params);
		for (int k = 0; k < w->event_count; k++)
			assert_int_equal(gate_replay(&again, &w->events[k], &err), OTA_OK);
		same_gate(&w->gate, &again);
		gate_fini(&again);
		gate_fini(&w->gate);
	}
	test_free(w);
}

/* --- any order --- */

static void shuffle(struct exposure *x, int count)
{
	for (int i = count - 1; i > 0; i--) {
		int k = random_below(i + 1);
		struct exposure t = x[i];

		x[i] = x[k];
		x[k] = t;
	}
}

/* Exposes all, and tells what became of them in a random order. */
static void tell_in_any_order(struct gate *g, const struct exposure *list, int count)
{
	struct exposure some[STEPS];
	static const enum gate_event_kind kind[] = {[PROVEN] = GATE_EVENT_PROVEN,
						    [FAILED] = GATE_EVENT_FAILED,
						    [GONE] = GATE_EVENT_GIVEN_BACK};
	int reach = 1 + random_below(count);

	memcpy(some, list, (size_t)count * sizeof some[0]);
	for (int i = 0; i < count; i += reach) {
		int n = count - i < reach ? count - i : reach;

		for (int k = i; k < i + n; k++)
			gate_apply(g, GATE_EVENT_EXPOSED, list[k].number, hw[list[k].variant], "1");
		shuffle(some + i, n);
		for (int k = i; k < i + n; k++)
			gate_apply(g, kind[some[k].fate], some[k].number, NULL, NULL);
	}
}

static void compare_ends(const struct gate *a, const struct gate *b)
{
	same_outcome(&a->line, &b->line);
	assert_int_equal(gate_variants(a), gate_variants(b));
	for (int rank = 1; rank <= gate_variants(a); rank++)
		same_outcome(&variant_of_rank(a, rank)->line, &variant_of_rank(b, rank)->line);
}

static void in_any_order(void **state)
{
	static const int bad[] = {5, 10, 30, 100, 300};

	(void)state;
	random_begin("order");
	for (int i = 0; i < WALKS; i++) {
		struct gate_params p = random_params();
		struct exposure list[STEPS];
		int count = 1 + random_below(STEPS), rate = bad[random_below(5)];
		struct gate a, b;

		for (int k = 0; k < count; k++)
			list[k] = (struct exposure){.number = 1 + 3 * k,
						    .variant = random_below(VARIANTS),
						    .fate = random_below(1000) < rate ? FAILED
										      : PROVEN};
		gate_init(&a, &p);
		gate_init(&b, &p);
		tell_in_any_order(&a, list, count);
		tell_in_any_order(&b, list, count);
		compare_ends(&a, &b);
		/* What was run ahead said no more than all of it did in the end. */
		assert_int_equal(gate_is_halted(&a), gate_is_halted(&b));
		gate_fini(&a);
		gate_fini(&b);
	}
}

static void given_back_leaves_no_trace(void **state)
{
	(void)state;
	random_begin("given back");
	for (int i = 0; i < WALKS; i++) {
		struct gate_params p = random_params();
		struct exposure with[STEPS], without[STEPS];
		int count = 1 + random_below(STEPS), kept = 0;
		struct gate a, b;

		for (int k = 0; k < count; k++) {
			int roll = random_below(100);
			with[k] = (struct exposure){
				.number = 1 + k,
				/* Which variant was met first is seen from all. */
				.variant = k < VARIANTS ? k : random_below(VARIANTS),
				.fate = roll < 40 && k >= VARIANTS ? GONE
					: roll < 43                ? FAILED
								   : PROVEN};
			if (with[k].fate != GONE)
				without[kept++] = with[k];
		}
		gate_init(&a, &p);
		gate_init(&b, &p);
		tell_in_any_order(&a, with, count);
		tell_in_any_order(&b, without, kept);
		compare_ends(&a, &b);
		gate_fini(&a);
		gate_fini(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_the_model_says),
		cmocka_unit_test(in_any_order),
		cmocka_unit_test(given_back_leaves_no_trace),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
