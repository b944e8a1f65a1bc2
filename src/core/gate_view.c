/* SPDX-License-Identifier: MIT */
/* What people see of a gate, in numbers and in sentences. */
#include "core/gate.h"

#include <math.h>
#include <stdio.h>

static struct gate_view view_of(const struct gate *g, const struct gate_line *l)
{
	struct gate_evidence e = gate_line_evidence(l, &g->rules);
	double value = gate_evidence_value(&e, &g->rules.factors);

	return (struct gate_view){.hw = "",
				  .from = "",
				  .e = value,
				  .likelier = value * l->share,
				  .halts_at = g->rules.halt_at,
				  .halted = l->halted,
				  .n = e.n,
				  .n_failed = e.failed,
				  .proven = l->proven,
				  .failed = l->failed,
				  .silent = l->silent,
				  .unresolved = l->unresolved,
				  .at_risk = l->at_risk,
				  .held = l->held,
				  .bound = l->bound};
}

struct gate_view gate_view(const struct gate *g)
{
	return view_of(g, &g->line);
}

int gate_variants(const struct gate *g)
{
	return g->ranked;
}

struct gate_view gate_view_variant(const struct gate *g, int i)
{
	const struct gate_variant *v = g->variants;

	while (v->rank != i + 1)
		v++;
	struct gate_view view = view_of(g, &v->line);
	view.hw = v->hw;
	view.from = v->from;
	return view;
}

bool gate_is_halted(const struct gate *g)
{
	return g->line.halted;
}

bool gate_is_calm(const struct gate *g)
{
	struct gate_evidence e = gate_line_evidence(&g->line, &g->rules);

	return gate_evidence_value(&e, &g->rules.factors) < GATE_CALM_E;
}

/* Down to two digits, never up: 495.6 is 490, 1.19 is 1.1. */
static double round_down(double x)
{
	double step = pow(10, floor(log10(x)) - 1);

	/* The quotient of a number that has two digits already may fall just short of it. */
	return floor(x / step * (1 + 1e-12)) * step;
}

void gate_sentence(const struct gate_view *v, char out[GATE_SENTENCE_SIZE])
{
	const char *whose = v->hw[0] || v->from[0] ? "for this variant" : "";
	const char *gap = whose[0] ? " " : "";
	const char *end = v->halted ? "halted" : "halts";
	char likelier[64];

	if (v->n == 0) {
		snprintf(out, GATE_SENTENCE_SIZE,
			 "no outcome is known yet%s%s; halts when %g times likelier if the release "
			 "is bad",
			 gap, whose, v->halts_at);
		return;
	}
	if (v->likelier < 1)
		snprintf(likelier, sizeof likelier, "no likelier");
	else if (v->likelier < 1e6)
		snprintf(likelier, sizeof likelier, "%.*f times likelier", v->likelier < 10,
			 round_down(v->likelier));
	else
		snprintf(likelier, sizeof likelier, "over a million times likelier");
	snprintf(out, GATE_SENTENCE_SIZE,
		 "%lld of the first %lld failed: %s if the release is bad%s%s; %s at %g",
		 (long long)v->n_failed, (long long)v->n, likelier, gap, whose, end, v->halts_at);
}

void gate_answer_sentence(const struct gate *g, enum gate_answer a, const char *hw,
			  const char *from, char out[GATE_SENTENCE_SIZE])
{
	const struct gate_line *l = &g->line;
	const char *rev = hw && hw[0] ? hw : "unknown", *old = from && from[0] ? from : "unknown";

	switch (a) {
	case GATE_FREE: snprintf(out, GATE_SENTENCE_SIZE, "a place is free"); break;
	case GATE_FULL:
		snprintf(out, GATE_SENTENCE_SIZE,
			 "%lld devices have not proven the release yet (%lld of them failed), and "
			 "no more than %lld may",
			 (long long)(l->unresolved + l->reserved + l->held), (long long)l->held,
			 (long long)l->bound);
		break;
	case GATE_VARIANT_FULL:
		snprintf(out, GATE_SENTENCE_SIZE,
			 "as many devices of hardware %s, running %s, as may have not proven the "
			 "release yet",
			 rev, old);
		break;
	case GATE_CLOGGED:
		snprintf(out, GATE_SENTENCE_SIZE,
			 "%zu devices wait behind an earlier one of which nothing is known yet",
			 l->count - l->entered_count - l->gone);
		break;
	case GATE_TURN:
		snprintf(out, GATE_SENTENCE_SIZE,
			 "devices of other hardware, versions or groups, of which fewer have tried "
			 "the release, go first");
		break;
	case GATE_HALTED: snprintf(out, GATE_SENTENCE_SIZE, "the release is halted"); break;
	case GATE_VARIANT_HELD:
		snprintf(out, GATE_SENTENCE_SIZE,
			 "the release is held back from devices of hardware %s, running %s", rev,
			 old);
		break;
	}
}
