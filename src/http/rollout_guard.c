/* SPDX-License-Identifier: MIT */
/* Rollouts: how one is to be watched, and what its gate has seen. */
#include "http/request.h"

#include "core/gate.h"

#include <stdlib.h>
#include <string.h>

/* --- asked for --- */

static const char *const members[] = {"p0",        "suspects",         "halt_at",     "prove_s",
				      "silence_s", "initial_unproven", "max_unproven"};
#define MEMBERS (sizeof members / sizeof members[0])

static void wrong(struct request *r, const char *field, const char *sentence)
{
	field_errors_add(&r->errors, "body", field, FIELD_TYPE_VALUE, "%s", sentence);
}

/* A name that nobody reads would be a gate other than the one that was meant. */
static void check_names(struct request *r, const json_t *o)
{
	for (void *it = json_object_iter((json_t *)(uintptr_t)o); it;
	     it = json_object_iter_next((json_t *)(uintptr_t)o, it)) {
		const char *key = json_object_iter_key(it);
		size_t i = 0;
		while (i < MEMBERS && strcmp(key, members[i]) != 0)
			i++;
		if (i == MEMBERS)
			field_errors_add(&r->errors, "body", "guard", FIELD_TYPE_VALUE,
					 "%.64s is nothing that can be set: p0, suspects, halt_at, "
					 "prove_s, silence_s, initial_unproven, max_unproven",
					 key);
	}
}

static void read_suspects(struct request *r, const json_t *o, struct gate_params *p)
{
	const json_t *list = json_object_get(o, "suspects");

	if (!list || json_is_null(list))
		return;
	p->suspect_count = 0;
	if (!json_is_array(list) || json_array_size(list) > GATE_SUSPECTS_MAX) {
		wrong(r, "guard",
		      "suspects must be a list of 1 to 8 shares of failures, such as "
		      "[0.05,0.1,0.2,0.5,0.95]");
		return;
	}
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *v = json_array_get(list, i);
		if (!json_is_number(v))
			wrong(r, "guard", "suspects must hold numbers, such as 0.05");
		p->suspects[p->suspect_count++] = json_number_value(v);
	}
}

void rollout_read_gate(struct request *r, const json_t *o, struct gate_params *p)
{
	struct json_fields in = {.object = o, .under = "guard", .errors = &r->errors};
	size_t errors = r->errors.count;
	struct ota_err err;

	check_names(r, o);
	json_field_number(&in, "p0", false, &p->p0);
	read_suspects(r, o, p);
	json_field_number(&in, "halt_at", false, &p->halt_at);
	json_field_int(&in, "prove_s", false, INT64_MIN, INT64_MAX, &p->prove_s);
	json_field_int(&in, "silence_s", false, INT64_MIN, INT64_MAX, &p->silence_s);
	json_field_int(&in, "initial_unproven", false, INT64_MIN, INT64_MAX, &p->initial_unproven);
	json_field_int(&in, "max_unproven", false, INT64_MIN, INT64_MAX, &p->max_unproven);
	if (r->errors.count == errors && gate_params_check(p, &err) != OTA_OK)
		wrong(r, "guard", err.msg);
}

void rollout_read_guard(struct request *r, const struct json_fields *f)
{
	struct rollout_new *n = &r->command.rollout;
	struct guard *g = &n->guard;
	const json_t *v = json_object_get(f->object, "guard");

	*g = (struct guard){.params = gate_params_default()};
	if (json_is_string(v) && strcmp(json_string_value(v), "off") == 0)
		g->off = true;
	else if (json_is_object(v)) {
		g->given = true;
		rollout_read_gate(r, v, &g->params);
	} else if (v && !json_is_null(v)) {
		wrong(r, "guard",
		      "must be \"off\", or an object such as {\"p0\":0.01,\"max_unproven\":500}");
	}
	g->bounded = !g->off && n->stage_count > 0 && n->type != TARGET_SPECIFIC;
	json_field_bool(f, "override_suspect", false, &n->override_suspect);
	if (n->override_suspect && !n->reason)
		wrong(r, "reason", "override_suspect needs a reason, for the log");
}

/* --- seen --- */

static void json_number(struct buf *b, const char *key, double v)
{
	char text[32];

	snprintf(text, sizeof text, "%.6g", v);
	json_raw(b, key, text);
}

static void add_view(struct buf *b, const struct gate_view *v)
{
	char sentence[GATE_SENTENCE_SIZE];

	json_number(b, "e", v->likelier);
	json_number(b, "halts_at", v->halts_at);
	json_bool(b, "halted", v->halted);
	json_int(b, "proven", v->proven);
	json_int(b, "failed", v->failed);
	json_int(b, "silent", v->silent);
	json_int(b, "unresolved", v->unresolved);
	json_int(b, "at_risk", v->at_risk);
	gate_sentence(v, sentence);
	json_str(b, "sentence", sentence);
}

static void add_variants(struct buf *b, const struct gate *g)
{
	json_open(b, "variants", '[');
	for (int i = 0; i < gate_variants(g); i++) {
		struct gate_view v = gate_view_variant(g, i);
		json_open(b, NULL, '{');
		json_str(b, "hw", v.hw[0] ? v.hw : NULL);
		json_str(b, "from_version", v.from[0] ? v.from : NULL);
		json_int(b, "bound", v.bound);
		add_view(b, &v);
		json_close(b, '}');
	}
	json_close(b, ']');
}

struct shown {
	struct buf *b;
	bool bounded;
};

static void show_gate(void *ctx, const struct gate *g)
{
	const struct shown *s = ctx;
	struct gate_view v = gate_view(g);

	json_open(s->b, "evidence", '{');
	add_view(s->b, &v);
	add_variants(s->b, g);
	json_close(s->b, '}');
	json_open(s->b, "exposure", '{');
	if (s->bounded)
		json_int(s->b, "bound", v.bound);
	else
		json_nil(s->b, "bound");
	json_int(s->b, "unresolved", v.unresolved + v.held);
	json_close(s->b, '}');
}

void rollout_add_gate(struct request *r, struct buf *b, const struct rollout *o)
{
	struct shown s = {b, o->guard.bounded};
	struct gate empty;

	if (o->guard.off) {
		json_nil(b, "evidence");
		json_nil(b, "exposure");
	} else if (!committer_gate(r->server->committer, o, show_gate, &s)) {
		gate_init(&empty, &o->guard.params); /* nobody has met it yet */
		show_gate(&s, &empty);
		gate_fini(&empty);
	}
}
