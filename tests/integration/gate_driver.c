/* SPDX-License-Identifier: MIT */
/*
 * The gate of src/core for test_gate.py: reads a line of outcomes in order of exposure ("PPFP"),
 * and writes after each E, the bound, whether it is halted, and the R_q.
 *
 *     gate_driver P0 HALT_AT INITIAL MOST SUSPECT...
 */
#include "core/gate.h"

#include <stdio.h>
#include <stdlib.h>

static int tell(struct gate *g, int64_t number, bool failed)
{
	struct gate_event events[] = {
		{.kind = GATE_EVENT_EXPOSED, .number = number},
		{.kind = failed ? GATE_EVENT_FAILED : GATE_EVENT_PROVEN, .number = number}};
	struct ota_err err;

	for (int i = 0; i < 2; i++)
		if (gate_replay(g, &events[i], &err)) {
			fprintf(stderr, "%s\n", err.msg);
			return 1;
		}
	const struct gate_evidence *e = &g->line.entered;
	printf("%.17g %lld %d", gate_evidence_value(e, &g->rules.factors), (long long)g->line.bound,
	       gate_is_halted(g));
	for (int i = 0; i < g->params.suspect_count; i++)
		printf(" %.17g", e->r[i]);
	printf("\n");
	return 0;
}

int main(int argc, char **argv)
{
	struct gate_params p = gate_params_default();
	struct ota_err err;
	struct gate g;
	int64_t number = 0;

	if (argc < 6 || argc - 5 > GATE_SUSPECTS_MAX)
		return 2;
	p.p0 = atof(argv[1]);
	p.halt_at = atof(argv[2]);
	p.initial_unproven = atoi(argv[3]);
	p.max_unproven = atoi(argv[4]);
	p.suspect_count = argc - 5;
	for (int i = 0; i < p.suspect_count; i++)
		p.suspects[i] = atof(argv[5 + i]);
	if (gate_params_check(&p, &err)) {
		fprintf(stderr, "%s\n", err.msg);
		return 1;
	}
	gate_init(&g, &p);
	for (int c; (c = getchar()) != EOF && c != '\n';)
		if (tell(&g, ++number, c == 'F'))
			return 1;
	gate_fini(&g);
	return 0;
}
