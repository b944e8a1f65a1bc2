/* SPDX-License-Identifier: MIT */
#include "core/gate_evidence.h"

#include <math.h>

/* A factor is below 1e6 (the least p0), so nothing between two caps overflows. */
#define R_MOST 1e300

struct gate_factors gate_factors_of(const struct gate_params *p)
{
	struct gate_factors l = {.count = p->suspect_count};

	for (int i = 0; i < l.count; i++) {
		l.failed[i] = p->suspects[i] / p->p0;
		l.proven[i] = (1 - p->suspects[i]) / (1 - p->p0);
	}
	return l;
}

double gate_evidence_left(int64_t n)
{
	return 1 / (1 + log1p((double)n));
}

void gate_evidence_init(struct gate_evidence *e)
{
	*e = (struct gate_evidence){.g = 1};
}

void gate_evidence_add(struct gate_evidence *e, const struct gate_factors *l, bool failed)
{
	const double *factor = failed ? l->failed : l->proven;
	double g = gate_evidence_left(++e->n);
	/* g(n-1) - g(n) without the loss of digits that the difference has at large n. */
	double w = e->g * g * log1p(1 / (double)e->n);

	for (int i = 0; i < l->count; i++)
		e->r[i] = fmin((e->r[i] + w) * factor[i], R_MOST);
	e->g = g;
	e->failed += failed;
}

double gate_evidence_value(const struct gate_evidence *e, const struct gate_factors *l)
{
	double sum = 0;

	for (int i = 0; i < l->count; i++)
		sum += e->r[i];
	return sum / l->count + e->g;
}
