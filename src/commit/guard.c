/* SPDX-License-Identifier: MIT */
#include "commit/guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void json_number(struct buf *b, const char *key, double v)
{
	char text[32];

	/* 17 digits: what is read is what was written. */
	snprintf(text, sizeof text, "%.15g", v);
	if (strtod(text, NULL) != v)
		snprintf(text, sizeof text, "%.17g", v);
	json_raw(b, key, text);
}

static void write_params(struct buf *b, const struct gate_params *p)
{
	json_open(b, "guard", '{');
	json_number(b, "p0", p->p0);
	json_open(b, "suspects", '[');
	for (int i = 0; i < p->suspect_count; i++)
		json_number(b, NULL, p->suspects[i]);
	json_close(b, ']');
	json_number(b, "halt_at", p->halt_at);
	json_int(b, "prove_s", p->prove_s);
	json_int(b, "silence_s", p->silence_s);
	json_int(b, "initial_unproven", p->initial_unproven);
	json_int(b, "max_unproven", p->max_unproven);
	json_close(b, '}');
}

void guard_write(struct buf *b, const struct guard *g)
{
	if (g->off)
		json_str(b, "guard", "off");
	else if (g->given)
		write_params(b, &g->params);
	else
		json_nil(b, "guard");
	json_bool(b, "bounded", g->bounded);
}

static int64_t number_of(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

struct guard guard_read(const json_t *metadata)
{
	const json_t *o = json_object_get(metadata, "guard");
	const json_t *suspects = json_object_get(o, "suspects");
	struct guard g = {.bounded = json_is_true(json_object_get(metadata, "bounded")),
			  .params = gate_params_default()};
	struct gate_params p = {
		.p0 = json_number_value(json_object_get(o, "p0")),
		.halt_at = json_number_value(json_object_get(o, "halt_at")),
		.prove_s = number_of(o, "prove_s"),
		.silence_s = number_of(o, "silence_s"),
		.initial_unproven = number_of(o, "initial_unproven"),
		.max_unproven = number_of(o, "max_unproven"),
	};
	struct ota_err err;

	g.off = json_is_string(o) && strcmp(json_string_value(o), "off") == 0;
	for (size_t i = 0; i < json_array_size(suspects) && i < GATE_SUSPECTS_MAX; i++)
		p.suspects[p.suspect_count++] = json_number_value(json_array_get(suspects, i));
	g.given = json_is_object(o) && gate_params_check(&p, &err) == OTA_OK;
	if (g.given)
		g.params = p;
	return g;
}
