/* SPDX-License-Identifier: MIT */
#include "core/gate.h"

#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

#define RELEASE_SHARE 0.5

void gate_init(struct gate *g, const struct gate_params *params)
{
	*g = (struct gate){.params = *params};
	g->rules = gate_rules_of(params, gate_params_most(params, 0));
	gate_line_init(&g->line, &g->rules, RELEASE_SHARE);
}

void gate_fini(struct gate *g)
{
	for (int i = 0; i < g->variant_count; i++) {
		free(g->variants[i].hw);
		free(g->variants[i].from);
		gate_line_fini(&g->variants[i].line);
	}
	free(g->variants);
	gate_line_fini(&g->line);
	*g = (struct gate){0};
}

void gate_stage(struct gate *g, int64_t devices)
{
	g->rules.most = gate_params_most(&g->params, devices);
	gate_line_limit(&g->line, &g->rules);
	for (int i = 0; i < g->variant_count; i++)
		gate_line_limit(&g->variants[i].line, &g->rules);
}

/* --- variants --- */

static const char *text(const char *s)
{
	return s ? s : "";
}

uint64_t gate_variant_key(const char *hw, const char *from)
{
	return hash64_mix(hash64(hw, strlen(hw)) + 3 * hash64(from, strlen(from)));
}

bool gate_variant_has_place(const struct gate *g, uint64_t key)
{
	for (int i = 0; i < g->variant_count; i++)
		if (g->variants[i].key == key)
			return !g->variants[i].line.halted &&
			       gate_line_has_place(&g->variants[i].line);
	return true;
}

/* Its place, or -1.  When all are taken, the last is everybody else's. */
static int variant_find(const struct gate *g, const char *hw, const char *from)
{
	for (int i = 0; i < g->variant_count; i++)
		if (strcmp(g->variants[i].hw, hw) == 0 && strcmp(g->variants[i].from, from) == 0)
			return i;
	return g->variant_count == GATE_VARIANTS_MAX ? GATE_VARIANTS_MAX - 1 : -1;
}

static bool variants_grow(struct gate *g)
{
	int cap = g->variant_cap ? g->variant_cap * 2 : 4;
	struct gate_variant *grown = realloc(g->variants, (size_t)cap * sizeof *grown);

	if (!grown)
		return false;
	g->variants = grown;
	g->variant_cap = cap;
	return true;
}

/* Its place, made if need be; -1 without memory. */
static int variant_make(struct gate *g, const char *hw, const char *from)
{
	int i = variant_find(g, hw, from);

	if (i >= 0)
		return i;
	if (g->variant_count == g->variant_cap && !variants_grow(g))
		return -1;
	bool shared = g->variant_count == GATE_VARIANTS_MAX - 1;
	struct gate_variant v = {.hw = strdup(shared ? "" : hw),
				 .from = strdup(shared ? "" : from),
				 .key = gate_variant_key(hw, from)};
	if (!v.hw || !v.from) {
		free(v.hw);
		free(v.from);
		return -1;
	}
	gate_line_init(&v.line, &g->rules, 0);
	g->variants[g->variant_count] = v;
	return g->variant_count++;
}

/* The first exposure that was committed gives the variant its rank, and so its share. */
static void variant_rank(struct gate *g, struct gate_variant *v)
{
	if (v->rank)
		return;
	v->rank = ++g->ranked;
	v->line.share = (1 - RELEASE_SHARE) *
			(gate_evidence_left(v->rank - 1) - gate_evidence_left(v->rank));
}

/* --- places --- */

/* V NULL: nobody of the variant has met the release. */
static enum gate_answer ask(const struct gate *g, const struct gate_line *v)
{
	if (g->line.halted)
		return GATE_HALTED;
	if (v && v->halted)
		return GATE_VARIANT_HELD;
	if (!gate_line_has_place(&g->line))
		return GATE_FULL;
	if (v && !gate_line_has_place(v))
		return GATE_VARIANT_FULL;
	return gate_line_is_clogged(&g->line) ? GATE_CLOGGED : GATE_FREE;
}

enum gate_answer gate_ask(const struct gate *g, const char *hw, const char *from)
{
	int i = variant_find(g, text(hw), text(from));

	return ask(g, i < 0 ? NULL : &g->variants[i].line);
}

enum gate_answer gate_ask_variant(const struct gate *g, int variant)
{
	return ask(g, &g->variants[variant].line);
}

static bool reserve(struct gate *g, const char *hw, const char *from, struct gate_place *out)
{
	int i = variant_make(g, text(hw), text(from));

	if (i < 0 || !gate_line_reserve(&g->line))
		return false;
	if (!gate_line_reserve(&g->variants[i].line)) {
		gate_line_cancel(&g->line);
		return false;
	}
	out->variant = i;
	return true;
}

enum ota_code gate_reserve(struct gate *g, const char *hw, const char *from,
			   enum gate_answer *answer, struct gate_place *out)
{
	enum gate_answer a = gate_ask(g, hw, from);

	if (a == GATE_FREE && !reserve(g, hw, from, out))
		return OTA_ENOMEM;
	*answer = a;
	return OTA_OK;
}

enum ota_code gate_take(struct gate *g, const char *hw, const char *from, struct gate_place *out)
{
	return reserve(g, hw, from, out) ? OTA_OK : OTA_ENOMEM;
}

void gate_open(struct gate *g, const struct gate_place *place, int64_t number)
{
	struct gate_variant *v = &g->variants[place->variant];

	variant_rank(g, v);
	gate_line_open(&g->line, number, (uint16_t)place->variant);
	gate_line_open(&v->line, number, 0);
}

void gate_cancel(struct gate *g, const struct gate_place *place)
{
	gate_line_cancel(&g->line);
	gate_line_cancel(&g->variants[place->variant].line);
}

bool gate_copy_bounds(struct gate *to, const struct gate *from)
{
	struct gate_place place;

	to->rules.most = from->rules.most;
	to->line.bound = from->line.bound;
	to->line.halted = from->line.halted;
	for (int i = 0; i < from->variant_count; i++) {
		const struct gate_variant *v = &from->variants[i];

		if (!reserve(to, v->hw, v->from, &place))
			return false;
		gate_cancel(to, &place);
		to->variants[place.variant].line.bound = v->line.bound;
		to->variants[place.variant].line.halted = v->line.halted;
	}
	return true;
}

/* --- outcomes --- */

/* NULL: the exposure is not known. */
static struct gate_line *variant_line(struct gate *g, int64_t number)
{
	const struct gate_item *it = gate_line_find(&g->line, number);

	return it ? &g->variants[it->variant].line : NULL;
}

bool gate_at_risk(struct gate *g, int64_t number)
{
	struct gate_line *v = variant_line(g, number);

	return v && gate_line_at_risk(v, number) && gate_line_at_risk(&g->line, number);
}

static bool resolve(struct gate *g, int64_t number, enum gate_outcome outcome)
{
	struct gate_line *v = variant_line(g, number);

	return v && gate_line_resolve(v, &g->rules, number, outcome) &&
	       gate_line_resolve(&g->line, &g->rules, number, outcome);
}

bool gate_proven(struct gate *g, int64_t number)
{
	return resolve(g, number, GATE_OUTCOME_PROVEN);
}

bool gate_failed(struct gate *g, int64_t number)
{
	return resolve(g, number, GATE_OUTCOME_FAILED);
}

bool gate_silent(struct gate *g, int64_t number)
{
	return resolve(g, number, GATE_OUTCOME_SILENT);
}

bool gate_give_back(struct gate *g, int64_t number)
{
	struct gate_line *v = variant_line(g, number);

	return v && gate_line_give_back(v, &g->rules, number) &&
	       gate_line_give_back(&g->line, &g->rules, number);
}

bool gate_is_unresolved(const struct gate *g, int64_t number)
{
	return gate_line_is_open(&g->line, number);
}

void gate_override(struct gate *g, const struct gate_params *params)
{
	if (params) {
		g->params = *params;
		g->rules = gate_rules_of(params, gate_params_most(params, 0));
	}
	gate_line_forgive(&g->line, &g->rules);
	for (int i = 0; i < g->variant_count; i++)
		gate_line_forgive(&g->variants[i].line, &g->rules);
}

/* --- from events --- */

static enum ota_code replay_exposed(struct gate *g, const struct gate_event *e, struct ota_err *err)
{
	struct gate_place place;

	if (gate_line_last(&g->line) >= e->number)
		return ota_fail(err, OTA_EUNPROCESSABLE,
				"exposure %lld comes after exposure %lld: numbers must rise",
				(long long)e->number, (long long)gate_line_last(&g->line));
	if (!reserve(g, e->hw, e->from, &place))
		return ota_fail_nomem(err);
	gate_open(g, &place, e->number);
	return OTA_OK;
}

enum ota_code gate_replay(struct gate *g, const struct gate_event *e, struct ota_err *err)
{
	switch (e->kind) {
	case GATE_EVENT_STAGE: gate_stage(g, e->devices); break;
	case GATE_EVENT_EXPOSED: return replay_exposed(g, e, err);
	case GATE_EVENT_AT_RISK: gate_at_risk(g, e->number); break;
	case GATE_EVENT_PROVEN: gate_proven(g, e->number); break;
	case GATE_EVENT_FAILED: gate_failed(g, e->number); break;
	case GATE_EVENT_SILENT: gate_silent(g, e->number); break;
	case GATE_EVENT_GIVEN_BACK: gate_give_back(g, e->number); break;
	case GATE_EVENT_OVERRIDDEN: gate_override(g, e->params); break;
	}
	return OTA_OK;
}
