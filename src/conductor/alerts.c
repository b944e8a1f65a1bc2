/* SPDX-License-Identifier: MIT */
#include "conductor/alerts.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "conductor/silence.h"
#include "conductor/webhook.h"
#include "core/retry.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TICK_US US_PER_S
/* Attempts of a rollout are counted so often although none was seen to move, ... */
#define RECOUNT_US (600 * US_PER_S)
/* ... and counting takes a hundredth of the time at most. */
#define COUNT_SHARE 100
/* So many devices may have an open alert: beyond that it is no device's trouble. */
#define SILENT_MAX     100
#define LOOKUPS_A_TICK 500
/* Longer without a word stored before the start: nobody was there to hear. */
#define STANDSTILL_US (600 * US_PER_S)
/* Of a rollout's newest events, so many tell when it last made progress. */
#define EVENTS_LOOKED_AT 1000

#define SUBJECT_SIZE 160 /* "device/" and a device's id */

struct open_alert {
	int64_t id, raised_us;
	enum alert_kind kind;
	char subject[SUBJECT_SIZE];
};

/* What is remembered of a rollout. */
struct note {
	int64_t rollout_id;
	/* As the conductor found it, in this stage. */
	enum walk_wait wait;
	enum rollout_state state;
	int stage;
	/* Its attempts as they were counted, when they had moved so often. */
	struct alert_attempts attempts;
	struct alert_breaks breaks; /* of its release */
	uint64_t moves;
	int64_t counted_us, count_next_us; /* counted_us 0: never */
	int64_t stored_progress_us;        /* before the start; -1: not looked up yet */
};

/* An alert to be raised, or one to be cleared. */
struct finding {
	struct finding *next;
	int64_t clear_id; /* 0: raise */
	enum alert_kind kind;
	char subject[SUBJECT_SIZE], sentence[ALERT_SENTENCE_SIZE];
	struct buf data;
};

struct alerts {
	struct alerts_parts parts;
	int64_t next_us, listens_us;
	struct open_alert *open;
	size_t open_count, open_cap;
	struct note *notes; /* by rollout_id, ascending */
	size_t note_count, note_cap;
	struct finding *found, **found_end;
	/* Silent devices. */
	struct silence silence;
	size_t silent_open;
	bool full;
};

/* --- what is open --- */

static struct open_alert *find_open(struct alerts *a, enum alert_kind kind, const char *subject)
{
	for (size_t i = 0; i < a->open_count; i++)
		if (a->open[i].kind == kind && strcmp(a->open[i].subject, subject) == 0)
			return &a->open[i];
	return NULL;
}

static bool add_open(struct alerts *a, int64_t id, enum alert_kind kind, const char *subject,
		     int64_t raised_us)
{
	if (a->open_count == a->open_cap) {
		size_t cap = a->open_cap ? a->open_cap * 2 : 16;
		struct open_alert *p = realloc(a->open, cap * sizeof *p);
		if (!p)
			return false;
		a->open = p;
		a->open_cap = cap;
	}
	struct open_alert *o = &a->open[a->open_count++];
	o->id = id;
	o->raised_us = raised_us;
	o->kind = kind;
	snprintf(o->subject, sizeof o->subject, "%s", subject);
	a->silent_open += kind == ALERT_DEVICE_SILENT;
	return true;
}

static void remove_open(struct alerts *a, int64_t id)
{
	for (size_t i = 0; i < a->open_count; i++)
		if (a->open[i].id == id) {
			a->silent_open -= a->open[i].kind == ALERT_DEVICE_SILENT;
			a->open[i] = a->open[--a->open_count];
			return;
		}
}

struct loading {
	struct alerts *a;
	bool ok;
	int64_t last_id;
	int count;
};

static bool load_open(void *ctx, const struct row_alert *row)
{
	struct loading *l = ctx;
	enum alert_kind kind = alert_kind_from_name(row->kind);
	int64_t raised_us = 0;

	l->count++;
	l->last_id = row->id;
	(void)time_parse(row->raised_at, &raised_us);
	if (kind != ALERT_KINDS)
		l->ok = add_open(l->a, row->id, kind, row->subject, raised_us);
	return l->ok;
}

/* Again from the start of it: also where the outcome of a commit is not known. */
static enum ota_code read_open(struct alerts *a, struct ota_err *err)
{
	struct list_query q = {.active = 1, .limit = 1000};
	struct loading l = {.a = a, .ok = true};
	enum ota_code rc;

	a->open_count = a->silent_open = 0;
	do {
		l.count = 0;
		rc = a->parts.store->ops->list_alerts(a->parts.store, &q, load_open, &l, err);
		q.before_id = l.last_id;
	} while (rc == OTA_OK && l.ok && l.count == q.limit);
	return rc == OTA_OK && !l.ok ? ota_fail_nomem(err) : rc;
}

/* --- what is found --- */

static struct finding *find(struct alerts *a, enum alert_kind kind, const char *subject)
{
	struct finding *f = calloc(1, sizeof *f);

	if (!f)
		return NULL; /* the next tick finds it again */
	f->kind = kind;
	snprintf(f->subject, sizeof f->subject, "%s", subject);
	*a->found_end = f;
	a->found_end = &f->next;
	return f;
}

/* The condition holds or not: whether it is to be raised, with *data open for facts. */
static struct buf *settle(struct alerts *a, enum alert_kind kind, const char *subject, bool holds,
			  const char *sentence)
{
	const struct open_alert *o = find_open(a, kind, subject);
	struct finding *f = holds == (o != NULL) ? NULL : find(a, kind, subject);

	if (!f)
		return NULL;
	if (!holds) {
		f->clear_id = o->id;
		return NULL;
	}
	snprintf(f->sentence, sizeof f->sentence, "%s", sentence);
	json_open(&f->data, NULL, '{');
	return &f->data;
}

static void raise_or_clear(struct alerts *a, struct finding *f)
{
	struct command cmd = {.kind = COMMAND_ALERT};
	struct webhooks *w = a->parts.webhooks;
	struct ota_err err;

	cmd.alert.what = f->clear_id ? ALERT_CLEAR : ALERT_RAISE;
	cmd.alert.id = f->clear_id;
	cmd.alert.kind = f->kind;
	cmd.alert.subject = f->subject;
	cmd.alert.sentence = f->sentence;
	if (!f->clear_id)
		json_close(&f->data, '}');
	cmd.alert.data = f->data.data;
	if (w)
		cmd.alert.targets = webhooks_targets(w, &cmd.alert.target_count);
	if (!buf_ok(&f->data))
		return; /* the next tick finds it again */
	enum ota_code rc = committer_run(a->parts.committer, &cmd);
	if (rc != OTA_OK) {
		log_event(LOG_WARNING, f->subject, "alert_not_stored", "%s: %s",
			  alert_kind_names[f->kind], cmd.err.msg);
		if (rc == OTA_EUNKNOWN || rc == OTA_ECONFLICT)
			(void)read_open(a, &err);
		return;
	}
	if (f->clear_id)
		remove_open(a, f->clear_id);
	else if (!add_open(a, cmd.out.id, f->kind, f->subject, clock_service_us()))
		(void)read_open(a, &err);
	if (w)
		webhooks_wake(w);
}

static void do_found(struct alerts *a)
{
	struct finding *f;

	while ((f = a->found) != NULL) {
		a->found = f->next;
		raise_or_clear(a, f);
		buf_fini(&f->data);
		free(f);
	}
	a->found_end = &a->found;
}

/* --- rollouts --- */

static struct note *note_of(struct alerts *a, int64_t rollout_id)
{
	size_t from = 0, to = a->note_count;

	while (from < to) {
		size_t middle = from + (to - from) / 2;
		if (a->notes[middle].rollout_id < rollout_id)
			from = middle + 1;
		else
			to = middle;
	}
	if (from < a->note_count && a->notes[from].rollout_id == rollout_id)
		return &a->notes[from];
	if (a->note_count == a->note_cap) {
		size_t cap = a->note_cap ? a->note_cap * 2 : 16;
		struct note *p = realloc(a->notes, cap * sizeof *p);
		if (!p)
			return NULL;
		a->notes = p;
		a->note_cap = cap;
	}
	memmove(a->notes + from + 1, a->notes + from, (a->note_count - from) * sizeof *a->notes);
	a->note_count++;
	a->notes[from] = (struct note){
		.rollout_id = rollout_id, .wait = WAIT_TIME, .stored_progress_us = -1};
	return &a->notes[from];
}

void alerts_judged(struct alerts *a, const struct rollout *r, enum walk_wait wait)
{
	struct note *n = note_of(a, r->id);

	if (!n)
		return;
	n->wait = wait;
	n->state = r->walk.state;
	n->stage = r->walk.stage;
}

/* A later rollout of the model offers another release, and not only to take this one back. */
static bool is_replaced(const struct model *m, const struct rollout *r)
{
	for (const struct rollout *o = m->rollouts; o; o = o->next)
		if (o->id > r->id && o->active && o->release != r->release && !o->back.from)
			return true;
	return false;
}

static void add_rollout_facts(struct buf *b, const struct rollout *r)
{
	char text[TIME_TEXT_SIZE];

	json_int(b, "rollout_id", r->id);
	json_str(b, "rollout", r->name);
	json_str(b, "firmware_version", r->release->version);
	json_str(b, "device_model", r->release->model);
	json_str(b, "state", rollout_state_name(r->walk.state));
	json_int(b, "stage", r->walk.stage + 1);
	json_int(b, "stages", r->stage_count);
	if (r->walk.reason[0])
		json_str(b, "reason", r->walk.reason);
	if (r->deadline_us) {
		time_format(r->deadline_us, text);
		json_str(b, "deadline", text);
	}
}

/* It was raised in a stage before the present one, which is to be told of anew. */
static bool is_of_the_past(struct alerts *a, const char *subject, const struct rollout *r)
{
	const struct open_alert *o = find_open(a, ALERT_WAITING_FOR_APPROVAL, subject);

	return o && o->raised_us < r->walk.stage_since_us;
}

static void look_at_rollout(struct alerts *a, const struct model *m, const struct rollout *r,
			    int64_t now_us)
{
	static const enum alert_kind kinds[] = {ALERT_ROLLOUT_HALTED, ALERT_ROLLOUT_STUCK,
						ALERT_DEADLINE_AT_RISK, ALERT_WAITING_FOR_APPROVAL};
	char subject[SUBJECT_SIZE], sentence[ALERT_SENTENCE_SIZE];
	const struct note *n = note_of(a, r->id);
	struct alert_facts f = {
		.now_us = now_us,
		.listens_us = a->listens_us,
		.stuck_us = a->parts.stuck_us,
		.progressed_us = r->progressed_us,
		.wait = WAIT_TIME,
	};

	if (!n)
		return;
	if (n->state == r->walk.state && n->stage == r->walk.stage)
		f.wait = n->wait;
	if (!f.progressed_us)
		f.progressed_us = n->stored_progress_us;
	f.replaced = r->walk.state == ROLLOUT_HALTED && is_replaced(m, r);
	snprintf(subject, sizeof subject, "rollout/%" PRId64, r->id);
	for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
		/* What it did before the start is yet to be looked up. */
		if (kinds[k] == ALERT_ROLLOUT_STUCK && f.progressed_us < 0 &&
		    r->walk.state == ROLLOUT_RUNNING)
			continue;
		bool holds = alert_of_rollout(kinds[k], r, &f, sentence);
		if (kinds[k] == ALERT_WAITING_FOR_APPROVAL && is_of_the_past(a, subject, r))
			holds = false; /* the next tick raises it */
		struct buf *b = settle(a, kinds[k], subject, holds, sentence);
		if (b)
			add_rollout_facts(b, r);
	}
}

/* Some rollout of the release offers it, or may go on with it. */
static bool is_on_its_way(const struct model *m, const struct release *rel)
{
	for (const struct rollout *r = m->rollouts; r; r = r->next)
		if (r->release == rel && (r->active || r->walk.state == ROLLOUT_PAUSED))
			return true;
	return false;
}

static void add_release_facts(struct buf *b, const struct release *rel)
{
	json_int(b, "release_id", rel->id);
	json_str(b, "firmware_version", rel->version);
	json_str(b, "device_model", rel->model);
}

/* As they were counted last, for whichever of its rollouts. */
static void look_at_breaks(struct alerts *a, const struct model *m, const struct release *rel)
{
	char subject[SUBJECT_SIZE], sentence[ALERT_SENTENCE_SIZE];
	struct alert_breaks breaks = {0};
	int64_t counted_us = 0;
	bool holds = !rel->deleted && is_on_its_way(m, rel);

	for (const struct rollout *r = m->rollouts; r && holds; r = r->next) {
		const struct note *n = r->release == rel ? note_of(a, r->id) : NULL;
		if (n && n->counted_us > counted_us) {
			counted_us = n->counted_us;
			breaks = n->breaks;
		}
	}
	if (holds && !counted_us)
		return; /* none is counted yet */
	snprintf(subject, sizeof subject, "release/%" PRId64, rel->id);
	holds = holds &&
		alert_of_breaks(rel, &breaks,
				find_open(a, ALERT_UPDATES_BREAK_OFF, subject) != NULL, sentence);
	struct buf *b = settle(a, ALERT_UPDATES_BREAK_OFF, subject, holds, sentence);
	if (!b)
		return;
	add_release_facts(b, rel);
	json_int(b, "tried", breaks.tried);
	json_int(b, "broken", breaks.broken);
	if (breaks.code)
		json_int(b, "result_code", breaks.code);
}

static void look_at_release(struct alerts *a, const struct model *m, const struct release *rel)
{
	char subject[SUBJECT_SIZE], sentence[ALERT_SENTENCE_SIZE];
	struct alert_attempts sum = {0};
	bool holds = !rel->deleted && is_on_its_way(m, rel);

	for (const struct rollout *r = m->rollouts; r && holds; r = r->next) {
		const struct note *n = r->release == rel ? note_of(a, r->id) : NULL;
		if (!n)
			continue;
		if (!n->counted_us)
			return; /* not all of them are counted yet */
		sum.finished += n->attempts.finished;
		sum.failed += n->attempts.failed;
	}
	snprintf(subject, sizeof subject, "release/%" PRId64, rel->id);
	holds = holds &&
		alert_of_failures(rel, &sum, find_open(a, ALERT_FAILURE_RATE, subject) != NULL,
				  sentence);
	struct buf *b = settle(a, ALERT_FAILURE_RATE, subject, holds, sentence);
	if (!b)
		return;
	add_release_facts(b, rel);
	json_int(b, "finished", sum.finished);
	json_int(b, "failed", sum.failed);
}

static void look_at_plan(struct alerts *a, int64_t now_us)
{
	fleet_plan_read(a->parts.fleet);
	for (const struct model *m = fleet_models(a->parts.fleet); m; m = m->next) {
		for (const struct rollout *r = m->rollouts; r; r = r->next)
			look_at_rollout(a, m, r, now_us);
		if (!m->rollouts)
			continue;
		for (const struct release *rel = m->releases; rel; rel = rel->next) {
			look_at_release(a, m, rel);
			look_at_breaks(a, m, rel);
		}
	}
	fleet_plan_done(a->parts.fleet);
}

/* --- what the store has to be asked: one rollout a tick --- */

static bool is_due(const struct model *m, const struct note *n, const struct rollout *r,
		   int64_t now_us)
{
	if (!is_on_its_way(m, r->release))
		return false;
	if (n->stored_progress_us < 0)
		return true;
	return now_us >= n->count_next_us &&
	       (!n->counted_us || n->moves != r->moves || now_us - n->counted_us >= RECOUNT_US);
}

/* The one that was counted longest ago, the oldest of several; false: none is due. */
static bool next_due(struct alerts *a, int64_t now_us, struct note *out)
{
	bool any = false;

	fleet_plan_read(a->parts.fleet);
	for (const struct model *m = fleet_models(a->parts.fleet); m; m = m->next)
		for (const struct rollout *r = m->rollouts; r; r = r->next) {
			const struct note *n = note_of(a, r->id);
			if (!n || !is_due(m, n, r, now_us) ||
			    (any && out->counted_us < n->counted_us))
				continue;
			*out = *n;
			out->moves = r->moves;
			any = true;
		}
	fleet_plan_done(a->parts.fleet);
	return any;
}

static bool see_progress(void *ctx, const struct row_event *row)
{
	static const char *const forward[] = {"update_started", "update_progressed",
					      "update_completed"};
	int64_t *us = ctx;

	for (size_t i = 0; i < sizeof forward / sizeof forward[0]; i++)
		if (strcmp(row->type, forward[i]) == 0)
			return !time_parse(row->created_at, us);
	return true;
}

/* Of its release, as the fleet keeps them. */
static struct alert_breaks read_breaks(struct fleet *f, int64_t rollout_id)
{
	struct alert_breaks sum = {0};
	int64_t most = 0;

	fleet_plan_read(f);
	const struct rollout *r = fleet_rollout(f, rollout_id);
	for (int code = 0; r && code <= RESULT_CODE_LAST; code++) {
		int64_t n = r->release->broken[code];

		sum.broken += n;
		if (n > most) {
			most = n;
			sum.code = code;
		}
	}
	sum.tried = r ? r->release->tried : 0;
	fleet_plan_done(f);
	return sum;
}

static void count_attempts(struct alerts *a, int64_t now_us)
{
	struct store *s = a->parts.store;
	struct attempt_counts c;
	struct note found = {0};
	struct ota_err err;
	int64_t began_ms = clock_mono_ms();

	if (!next_due(a, now_us, &found))
		return;
	struct note *n = note_of(a, found.rollout_id);
	if (n->stored_progress_us < 0) {
		struct list_query q = {.rollout_id = found.rollout_id, .limit = EVENTS_LOOKED_AT};
		n->stored_progress_us = 0;
		if (s->ops->list_events(s, &q, see_progress, &n->stored_progress_us, &err) !=
		    OTA_OK)
			n->stored_progress_us = -1;
	}
	if (s->ops->rollout_counts(s, found.rollout_id, &c, &err) == OTA_OK) {
		n->attempts.failed = c.by_state[ATTEMPT_FAILED] + c.by_state[ATTEMPT_ROLLED_BACK];
		n->attempts.finished = n->attempts.failed + c.by_state[ATTEMPT_SUCCESS];
		n->breaks = read_breaks(a->parts.fleet, found.rollout_id);
		n->moves = found.moves;
		n->counted_us = now_us;
	}
	n->count_next_us = now_us + (clock_mono_ms() - began_ms) * 1000 * COUNT_SHARE;
}

/* --- devices --- */

/* Those that are heard again. */
static void look_at_silent(struct alerts *a, int64_t now_us)
{
	for (size_t i = 0; i < a->open_count; i++)
		if (a->open[i].kind == ALERT_DEVICE_SILENT &&
		    silence_is_over(a->parts.fleet, a->open[i].subject + strlen("device/"), now_us))
			settle(a, ALERT_DEVICE_SILENT, a->open[i].subject, false, NULL);
}

static bool may_tell_more(struct alerts *a)
{
	bool full = a->silent_open >= SILENT_MAX;

	if (full && !a->full)
		log_event(LOG_WARNING, "alerts", "alerts_held_back",
			  "%d devices are silent since their updates: others are not told of until "
			  "some are heard again",
			  SILENT_MAX);
	a->full = full;
	return !full;
}

/* False: it was not stored. */
static bool tell_of(struct alerts *a, const struct silent_device *d)
{
	char subject[SUBJECT_SIZE], seen[TIME_TEXT_SIZE];

	snprintf(subject, sizeof subject, "device/%s", d->device_id);
	struct buf *b = settle(a, ALERT_DEVICE_SILENT, subject, true, d->sentence);
	if (b) {
		time_format(d->last_seen_us, seen);
		json_str(b, "device_id", d->device_id);
		json_str(b, "firmware_version", d->version);
		json_str(b, "last_seen", seen);
		do_found(a);
	}
	return find_open(a, ALERT_DEVICE_SILENT, subject) != NULL;
}

static void look_for_silent(struct alerts *a, int64_t now_us)
{
	struct silent_device d;

	if (!may_tell_more(a))
		return;
	silence_look(&a->silence, a->listens_us, now_us);
	for (int i = 0; i < LOOKUPS_A_TICK && a->silent_open < SILENT_MAX; i++)
		switch (silence_next(&a->silence, a->listens_us, now_us, &d)) {
		case SILENCE_ANOTHER: break;
		case SILENCE_FOUND:
			if (!tell_of(a, &d))
				return; /* the next tick goes on with it */
			silence_told(&a->silence);
			break;
		case SILENCE_NOBODY:
		case SILENCE_UNKNOWN: return;
		}
}

/* --- all of it --- */

void alerts_tick(struct alerts *a, int64_t now_us)
{
	if (now_us < a->next_us)
		return;
	a->next_us = now_us + TICK_US;
	count_attempts(a, now_us);
	look_at_plan(a, now_us);
	look_at_silent(a, now_us);
	do_found(a);
	look_for_silent(a, now_us);
}

void alerts_listen(struct alerts *a, int64_t now_us)
{
	a->listens_us = now_us;
}

static bool see_event(void *ctx, const struct row_event *row)
{
	(void)time_parse(row->created_at, ctx);
	return false;
}

static bool see_device(const struct device *d, void *ctx)
{
	int64_t *latest_us = ctx;

	if (d->last_seen_us > *latest_us)
		*latest_us = d->last_seen_us;
	return true;
}

/* When something was stored last, by whoever ran before. */
static int64_t last_word_us(struct alerts *a)
{
	const struct list_query newest = {.active = -1, .limit = 1};
	int64_t latest_us = 0;
	struct ota_err err;

	(void)a->parts.store->ops->list_events(a->parts.store, &newest, see_event, &latest_us,
					       &err);
	fleet_visit(a->parts.fleet, 0, FLEET_SHARDS, see_device, &latest_us);
	return latest_us;
}

enum ota_code alerts_new(const struct alerts_parts *parts, int64_t now_us, struct alerts **out,
			 struct ota_err *err)
{
	struct alerts *a = calloc(1, sizeof *a);

	if (!a)
		return ota_fail_nomem(err);
	a->parts = *parts;
	a->found_end = &a->found;
	if (read_open(a, err) != OTA_OK) {
		alerts_free(&a);
		return ota_wrap(err, "reading the open alerts");
	}
	if (now_us - last_word_us(a) > STANDSTILL_US)
		a->listens_us = now_us;
	silence_init(&a->silence, parts->fleet, parts->store, now_us);
	*out = a;
	return OTA_OK;
}

void alerts_free(struct alerts **ap)
{
	struct alerts *a = *ap;

	if (!a)
		return;
	silence_fini(&a->silence);
	free(a->open);
	free(a->notes);
	free(a);
	*ap = NULL;
}
