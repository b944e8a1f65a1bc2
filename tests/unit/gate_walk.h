/* SPDX-License-Identifier: MIT */
/* Short hands for the tests of core/gate: exposures by number, and gates compared. */
#pragma once

#include "core/gate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

static inline void gate_apply(struct gate *g, enum gate_event_kind kind, int64_t number,
			      const char *hw, const char *from)
{
	struct gate_event e = {.kind = kind, .number = number, .hw = hw, .from = from};
	struct ota_err err;

	if (kind == GATE_EVENT_STAGE)
		e.devices = number;
	if (gate_replay(g, &e, &err))
		fail_msg("%s", err.msg);
}

/* Field by field, so that padding does not count; memory that was grown may differ. */
static inline void same_evidence(const struct gate_evidence *a, const struct gate_evidence *b)
{
	assert_int_equal(a->n, b->n);
	assert_int_equal(a->failed, b->failed);
	assert_true(a->g >= b->g && a->g <= b->g);
	for (int i = 0; i < GATE_SUSPECTS_MAX; i++)
		assert_true(a->r[i] >= b->r[i] && a->r[i] <= b->r[i]);
}

/* What is left of a line when every outcome is known: whatever order they came in. */
static inline void same_outcome(const struct gate_line *a, const struct gate_line *b)
{
	same_evidence(&a->entered, &b->entered);
	assert_int_equal(a->bound, b->bound);
	assert_int_equal(a->epoch_n, b->epoch_n);
	assert_int_equal(a->epoch_failed, b->epoch_failed);
	assert_int_equal(a->unresolved, b->unresolved);
	assert_int_equal(a->at_risk, b->at_risk);
	assert_int_equal(a->held, b->held);
	assert_int_equal(a->proven, b->proven);
	assert_int_equal(a->failed, b->failed);
	assert_int_equal(a->silent, b->silent);
	assert_int_equal(a->proven_to, b->proven_to);
	assert_int_equal(a->forgiven_to, b->forgiven_to);
}

static inline void same_line(const struct gate_line *a, const struct gate_line *b)
{
	same_outcome(a, b);
	same_evidence(&a->ahead, &b->ahead);
	same_evidence(&a->at_halt, &b->at_halt);
	assert_true(a->share >= b->share && a->share <= b->share);
	assert_int_equal(a->ahead_to, b->ahead_to);
	assert_int_equal(a->ahead_stale, b->ahead_stale);
	assert_int_equal(a->halted, b->halted);
	assert_int_equal(a->reserved, b->reserved);
	assert_int_equal(a->count, b->count);
	assert_int_equal(a->entered_count, b->entered_count);
	assert_int_equal(a->gone, b->gone);
	for (size_t i = 0; i < a->count; i++) {
		const struct gate_item *x = &a->items[(a->head + i) & (a->cap - 1)];
		const struct gate_item *y = &b->items[(b->head + i) & (b->cap - 1)];

		assert_int_equal(x->number, y->number);
		assert_int_equal(x->state, y->state);
		assert_int_equal(x->at_risk, y->at_risk);
	}
}

static inline const struct gate_variant *variant_of_rank(const struct gate *g, int rank)
{
	for (int i = 0; i < g->variant_count; i++)
		if (g->variants[i].rank == rank)
			return &g->variants[i];
	fail_msg("no variant of rank %d", rank);
	return NULL;
}

static inline void same_gate(const struct gate *a, const struct gate *b)
{
	same_line(&a->line, &b->line);
	assert_int_equal(a->rules.most, b->rules.most);
	assert_int_equal(gate_variants(a), gate_variants(b));
	for (int rank = 1; rank <= gate_variants(a); rank++) {
		const struct gate_variant *x = variant_of_rank(a, rank),
					  *y = variant_of_rank(b, rank);

		assert_string_equal(x->hw, y->hw);
		assert_string_equal(x->from, y->from);
		same_line(&x->line, &y->line);
	}
}
