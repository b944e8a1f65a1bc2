/* SPDX-License-Identifier: MIT */
/* Rollouts: another gate over what happened. */
#include "http/request.h"

#include "base/clock.h"
#include "commit/guard.h"
#include "commit/history.h"

#include <stdlib.h>
#include <string.h>

struct ask {
	struct history history;
	struct gate_params params;
	bool given, bounds;
	struct replay replay;
};

static void release_ask(struct request *r)
{
	struct ask *a = r->memory;

	replay_fini(&a->replay);
}

static void json_time(struct buf *b, const char *key, bool is, int64_t us)
{
	char text[TIME_TEXT_SIZE];

	time_format(us, text);
	json_str(b, key, is ? text : NULL);
}

static void add_side(struct buf *b, const char *key, const struct replay_side *s,
		     const struct gate *g)
{
	struct gate_view v = gate_view(g);
	char sentence[GATE_SENTENCE_SIZE];

	json_open(b, key, '{');
	json_int(b, "exposed", s->exposed);
	json_int(b, "proven", s->proven);
	json_int(b, "failed", s->failed);
	json_bool(b, "halted", s->halted);
	json_time(b, "halted_at", s->halted, s->halted_us);
	if (s->halted)
		json_int(b, "halted_after", s->exposed_then);
	else
		json_nil(b, "halted_after");
	gate_sentence(&v, sentence);
	json_str(b, "sentence", sentence);
	json_close(b, '}');
}

static void add_held(struct buf *b, const struct replay *r)
{
	json_open(b, "variants_held", '[');
	for (int i = 0; i < r->result.held_count; i++) {
		const struct replay_variant *h = &r->result.held[i];
		const struct gate_variant *v = &r->is.variants[h->variant];

		json_open(b, NULL, '{');
		json_str(b, "hw", v->hw[0] ? v->hw : NULL);
		json_str(b, "from_version", v->from[0] ? v->from : NULL);
		json_time(b, "halted_at", true, h->halted_us);
		json_close(b, '}');
	}
	json_close(b, ']');
}

static void say_halt(const struct replay_result *x, struct buf *out)
{
	char at[TIME_TEXT_SIZE], sooner[32];
	int64_t ahead_us = x->was.halted_us - x->is.halted_us;

	time_format(x->is.halted_us, at);
	if (!x->is.halted) {
		buf_adds(out, x->was.halted
				      ? "It would not have halted: what the devices that the gate "
					"spared would have done is not known."
				      : "It would not have halted either.");
		return;
	}
	buf_printf(out, "It would have halted at %.19sZ, when %lld devices had met the release", at,
		   (long long)x->is.exposed_then);
	duration_text((ahead_us < 0 ? -ahead_us : ahead_us) / US_PER_S, sooner, sizeof sooner);
	if (!x->was.halted)
		buf_adds(out, ", which was not halted.");
	else if (ahead_us >= US_PER_S || ahead_us <= -US_PER_S)
		buf_printf(out, ", %s %s.", sooner, ahead_us > 0 ? "sooner" : "later");
	else
		buf_adds(out, ", as it was.");
}

static void say_devices(const struct replay_result *x, struct buf *out)
{
	char longest[32];

	if (x->spared)
		buf_printf(out, " %lld devices would have been spared; %lld of them failed.",
			   (long long)x->spared, (long long)x->spared_failed);
	duration_text(x->longest_wait_us / US_PER_S, longest, sizeof longest);
	if (x->held_up)
		buf_printf(out, " %lld would have got it later, by %s at the most.",
			   (long long)x->held_up, longest);
	if (x->waiting)
		buf_printf(out, " %lld would wait still.", (long long)x->waiting);
	if (!x->spared && !x->held_up && !x->waiting)
		buf_adds(out, " The same devices would have met it, as soon as they did.");
}

static void write_replay(struct request *r, const struct ask *a)
{
	const struct replay_result *x = &a->replay.result;
	struct guard shown = {.given = true,
			      .params = a->replay.is.params,
			      .bounded = a->bounds || a->history.bounded};
	struct buf *b = respond_begin(r, 200), sentence = BUF_INIT;

	json_int(b, "rollout_id", a->history.sources[0].rollout_id);
	json_open(b, "rollouts", '[');
	for (int i = 0; i < a->history.count; i++)
		json_int(b, NULL, a->history.sources[i].rollout_id);
	json_close(b, ']');
	guard_write(b, &shown);
	add_side(b, "was", &x->was, &a->replay.was);
	add_side(b, "would_be", &x->is, &a->replay.is);
	add_held(b, &a->replay);
	json_int(b, "spared", x->spared);
	json_int(b, "spared_failed", x->spared_failed);
	json_int(b, "held_up", x->held_up);
	json_int(b, "waiting", x->waiting);
	json_int(b, "longest_wait_s", x->longest_wait_us / US_PER_S);
	json_int(b, "mean_wait_s", x->held_up ? x->wait_us / x->held_up / US_PER_S : 0);
	say_halt(x, &sentence);
	say_devices(x, &sentence);
	json_str(b, "sentence", sentence.data);
	if (!buf_ok(&sentence))
		r->job_code = ota_fail_nomem(&r->job_err);
	buf_fini(&sentence);
	respond_end(r);
}

static enum ota_code feed(void *ctx, const struct history_event *e, struct ota_err *err)
{
	return e->is_gate ? replay_feed(ctx, &e->gate, err) : OTA_OK;
}

static void run_replay(struct request *r)
{
	struct ask *a = r->memory;

	if (!replay_init(&a->replay, &a->history.params, a->given ? &a->params : NULL, a->bounds))
		r->job_code = ota_fail_nomem(&r->job_err);
	else
		r->job_code = history_read(r->server->committer, &a->history, feed, &a->replay,
					   &r->job_err);
	if (r->job_code == OTA_OK)
		r->job_code = replay_end(&a->replay, &r->job_err);
	if (r->job_code == OTA_OK)
		write_replay(r, a);
}

static bool is_given(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	return v && !json_is_null(v);
}

/* What is left out is as it was.  A bound that is named holds for rollouts without one, too. */
static void read_gate(struct request *r, struct ask *a)
{
	const json_t *o = json_object_get(r->json, "guard");

	a->params = a->history.params;
	if (!o || json_is_null(o))
		return;
	if (!json_is_object(o)) {
		field_errors_add(&r->errors, "body", "guard", FIELD_TYPE_OBJECT,
				 "must be an object such as {\"p0\":0.01,\"halt_at\":125}");
		return;
	}
	a->given = json_object_size(o) > 0;
	a->bounds = is_given(o, "initial_unproven") || is_given(o, "max_unproven");
	rollout_read_gate(r, o, &a->params);
}

enum next rollout_replay(struct request *r)
{
	struct ota_err err;
	struct ask *a;
	int64_t id;

	if (!request_rollout_id(r, &id) || !request_json(r))
		return NEXT_ANSWER;
	a = calloc(1, sizeof *a);
	if (!a)
		return respond_error(r, OTA_ENOMEM, "out of memory");
	r->memory = a;
	r->release = release_ask;
	if (history_find(r->server->committer, id, &a->history, &err) != OTA_OK)
		return respond_err(r, &err);
	if (!a->history.watched)
		return respond_error(r, OTA_ECONFLICT,
				     "no gate watched rollout %lld: there is nothing to replay",
				     (long long)id);
	read_gate(r, a);
	if (field_errors_any(&r->errors))
		return respond_fields(r);
	return request_job(r, run_replay, request_list_done);
}
