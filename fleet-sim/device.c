/* SPDX-License-Identifier: MIT */
/*
 * A device's life:
 *
 *   OFF -> IDLE -> WAITING -> DOWNLOADING -> INSTALLING -> RESTARTING -> IDLE
 *           |          \___________\_____________\_ failed, withdrawn -> IDLE
 *           |                       \_____________\_ no power -> OFF -> IDLE
 *           '-- away (duty cycle) -> OFF -> IDLE   \_ BRICKED
 *
 * Which way it goes stands in its plan (fate.h) before it begins.
 */
#include "fleet-sim/fleet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE_MS 200 /* until held messages are looked for again */

static const char *const state_names[DEVICE_STATES] = {
	[DEVICE_OFF] = "off",
	[DEVICE_IDLE] = "idle",
	[DEVICE_WAITING] = "waiting",
	[DEVICE_DOWNLOADING] = "downloading",
	[DEVICE_INSTALLING] = "installing",
	[DEVICE_RESTARTING] = "restarting",
	[DEVICE_BRICKED] = "bricked",
};

const char *device_state_name(enum device_state s)
{
	return state_names[s];
}

void device_enter(struct fleet *f, struct device *d, enum device_state s)
{
	f->stats.states[d->state]--;
	f->stats.states[s]++;
	d->state = (uint8_t)s;
}

/* ------------------------------------------------------------------ time */

static void on_timer(void *ctx, uint64_t arg)
{
	struct fleet *f = ctx;
	struct device *d = &f->devices[(uint32_t)arg];

	if (d->generation == (uint32_t)(arg >> 32) && !f->ending)
		d->then(f, d);
}

void device_after(struct fleet *f, struct device *d, int64_t ms, device_step *then)
{
	d->then = then;
	d->generation++;
	loop_after(f->loop, ms, on_timer, f, (uint64_t)d->generation << 32 | d->number);
}

static const struct habit *habit_of(const struct fleet *f, const struct device *d,
				    enum habit_kind k)
{
	return traits_have(&d->traits, k) ? &f->scenario.habits[d->traits.row[k]] : NULL;
}

/* ------------------------------------------------------------------ there and away */

static void appear(struct fleet *f, struct device *d)
{
	device_enter(f, d, DEVICE_IDLE);
	d->boot++;
	if (f->broker && f->o.connections == 0)
		broker_join(f->broker, d->number);
	device_announce(f, d);
}

static bool is_idle(const struct device *d)
{
	return d->state == DEVICE_IDLE && d->held == 0 && !d->reports && !d->checking;
}

/* It sleeps only when it has nothing to do. */
static void on_duty(void *ctx, uint64_t arg)
{
	struct fleet *f = ctx;
	struct device *d = &f->devices[(uint32_t)arg];
	const struct habit *h = habit_of(f, d, HABIT_DUTY);
	int64_t again_ms = 1000;

	if (f->ending || d->state == DEVICE_BRICKED)
		return;
	if (d->away) {
		d->away = false;
		again_ms = h->on_ms;
		appear(f, d);
	} else if (is_idle(d)) {
		d->away = true;
		again_ms = h->off_ms;
		d->generation++;
		device_leave(f, d);
		device_enter(f, d, DEVICE_OFF);
	}
	loop_after(f->loop, again_ms > 0 ? again_ms : 1, on_duty, f, d->number);
}

void device_start(struct fleet *f, struct device *d)
{
	const struct habit *h = habit_of(f, d, HABIT_DUTY);
	double part = draw_unit(f->o.seed, d->number, DRAW_DUTY, 0);

	appear(f, d);
	if (h && h->off_ms > 0)
		loop_after(f->loop, (int64_t)((double)h->on_ms * part), on_duty, f, d->number);
}

/* ------------------------------------------------------------------ a try and its end */

struct seen *device_try(struct device *d)
{
	return &d->record.tries[d->work->try_index];
}

static void work_free(struct device *d)
{
	if (!d->work)
		return;
	sha256_free(&d->work->hash);
	free(d->work->url);
	free(d->work);
	d->work = NULL;
}

static void ends(struct fleet *f, struct device *d, enum outcome o)
{
	struct seen *s = device_try(d);

	f->stats.outcomes[s->outcome]--;
	f->stats.outcomes[o]++;
	s->outcome = (uint8_t)o;
	f->stats.last_news_ms = loop_now_ms(f->loop);
}

/* Back to idle; over HTTP it asks again after a while. */
static void rest(struct fleet *f, struct device *d)
{
	work_free(d);
	device_enter(f, d, DEVICE_IDLE);
	if (!f->o.mqtt)
		device_check_later(f, d);
}

/* What came before is out first: progress names no attempt, and would be taken for the next one's.
 */
static void say_failed(struct fleet *f, struct device *d)
{
	if (d->held > 0) {
		device_after(f, d, PATIENCE_MS, say_failed);
		return;
	}
	ends(f, d, OUTCOME_FAILED);
	device_say(f, d, WORD_FAILED, d->work->why);
	rest(f, d);
}

void device_failed(struct fleet *f, struct device *d, int code, const char *why)
{
	device_try(d)->code = (uint8_t)code;
	snprintf(d->work->why, sizeof d->work->why, "%s", why);
	say_failed(f, d);
}

void device_withdrawn(struct fleet *f, struct device *d)
{
	ends(f, d, OUTCOME_WITHDRAWN);
	rest(f, d);
}

/* ------------------------------------------------------------------ restarting */

static const char *version_after(struct fleet *f, struct device *d)
{
	const char *target = device_try(d)->version;
	char lie[160];
	int n;

	switch (d->work->plan.fate) {
	case FATE_ROLL_BACK: return d->version;
	case FATE_LIE:
		n = snprintf(lie, sizeof lie, "%.120s-lie", target);
		return pool_string(f->pool, lie, (size_t)n);
	default: return target;
	}
}

/* What it said before must not come after its first word as a new version says more. */
static bool must_wait(const struct fleet *f, struct device *d)
{
	if (f->o.mqtt && d->work->plan.fate == FATE_SUCCESS &&
	    device_try(d)->outcome != OUTCOME_OPEN)
		return false;
	return d->held > 0 || d->reports;
}

static void starts(struct fleet *f, struct device *d)
{
	if (must_wait(f, d)) {
		device_after(f, d, PATIENCE_MS, starts);
		return;
	}
	work_free(d);
	appear(f, d);
}

static void came_back(struct fleet *f, struct device *d)
{
	struct work *w = d->work;
	const char *version;

	if (must_wait(f, d)) {
		device_after(f, d, PATIENCE_MS, came_back);
		return;
	}
	version = version_after(f, d);
	d->before = d->version;
	d->version = version ? version : d->version;
	if (w->plan.fate == FATE_ROLL_BACK) {
		ends(f, d, OUTCOME_ROLLED_BACK);
		if (w->plan.says_rolled_back)
			device_say(f, d, WORD_ROLLED_BACK,
				   "the new version does not pass its test");
	} else if (!f->o.mqtt) {
		ends(f, d, OUTCOME_SUCCESS);
		device_say(f, d, WORD_SUCCESS, NULL);
	}
	starts(f, d);
}

/* After a power loss. */
static void came_back_dark(struct fleet *f, struct device *d)
{
	struct work *w = d->work;

	if (d->held > 0 || d->reports) {
		device_after(f, d, PATIENCE_MS, came_back_dark);
		return;
	}
	if (w->plan.loss_is_new) {
		d->before = d->version;
		d->version = device_try(d)->version;
		ends(f, d, OUTCOME_SUCCESS);
	} else if (w->plan.loss == LOSS_INSTALL) {
		ends(f, d, OUTCOME_ROLLED_BACK);
	}
	work_free(d);
	appear(f, d);
}

void device_lost_power(struct fleet *f, struct device *d)
{
	device_try(d)->lost_power = true;
	device_enter(f, d, DEVICE_OFF);
	device_leave(f, d);
	device_after(f, d, d->work->plan.away_ms, came_back_dark);
}

/* ------------------------------------------------------------------ installing */

static void falls_silent(struct fleet *f, struct device *d)
{
	if (d->held > 0 || d->reports) {
		device_after(f, d, PATIENCE_MS, falls_silent);
		return;
	}
	ends(f, d, OUTCOME_BRICKED);
	work_free(d);
	device_enter(f, d, DEVICE_BRICKED);
	device_leave(f, d);
}

static void installed(struct fleet *f, struct device *d)
{
	struct work *w = d->work;

	if (w->plan.fate == FATE_FAIL && w->plan.fail_phase == FAIL_INSTALL) {
		device_failed(f, d, w->plan.code, "it was meant to");
		return;
	}
	if (w->plan.fate == FATE_BRICK) {
		falls_silent(f, d);
		return;
	}
	device_say(f, d, WORD_COMPLETE, NULL);
	if (f->o.mqtt) {
		ends(f, d, OUTCOME_SUCCESS);
		device_say(f, d, WORD_SUCCESS, NULL);
	}
	device_enter(f, d, DEVICE_RESTARTING);
	device_after(f, d, w->plan.reboot_ms, came_back);
}

void device_fetched(struct fleet *f, struct device *d)
{
	struct work *w = d->work;
	struct try_plan *p = &w->plan;

	device_say(f, d, WORD_VERIFYING, NULL);
	if (p->fate == FATE_FAIL && p->fail_phase == FAIL_VERIFY) {
		device_failed(f, d, p->code, "it was meant to");
		return;
	}
	device_enter(f, d, DEVICE_INSTALLING);
	device_say(f, d, WORD_INSTALLING, NULL);
	if (p->loss == LOSS_INSTALL)
		device_after(f, d, (int64_t)((double)p->install_ms * p->loss_at),
			     device_lost_power);
	else
		device_after(f, d, p->install_ms, installed);
}

/* ------------------------------------------------------------------ the offer */

/* "...?attempt=abc&...": abc */
static void token_of(const char *url, char out[TOKEN_SIZE])
{
	const char *at = strstr(url, "attempt=");
	size_t n = at ? strcspn(at + 8, "&#") : 0;

	snprintf(out, TOKEN_SIZE, "%.*s", n < TOKEN_SIZE ? (int)n : 0, at ? at + 8 : "");
}

static bool begin_work(struct fleet *f, struct device *d, const struct offer *o, struct seen *s)
{
	struct work *w = calloc(1, sizeof *w);
	uint32_t number = (uint32_t)(s - d->record.tries);

	if (!w)
		return false;
	d->work = w;
	w->url = strdup(o->url);
	w->hash = sha256_new();
	w->try_index = number;
	w->size = o->size;
	w->begun_ms = loop_now_ms(f->loop);
	if (!w->url || !w->hash || !hex_decode(o->checksum, w->checksum, SHA256_SIZE)) {
		work_free(d);
		return false;
	}
	try_draw(&w->plan, &f->scenario, &d->traits, f->o.seed, d->number, number);
	if (s->lost_power)
		w->plan.loss = LOSS_NONE;
	return true;
}

/* Told of a try that it knows: it answers, and does nothing twice. */
static void told_again(struct fleet *f, struct device *d, const struct seen *s)
{
	f->stats.again++;
	if (f->o.mqtt && d->work && s == device_try(d))
		device_say(f, d, WORD_ACCEPTED, NULL);
}

void device_offered(struct fleet *f, struct device *d, const struct offer *o)
{
	const char *version = pool_string(f->pool, o->version, strlen(o->version));
	uint32_t known = d->record.count;
	char token[TOKEN_SIZE];
	struct seen *s;

	token_of(o->url, token);
	s = version ? record_find(&d->record, token, version) : NULL;
	if (!s)
		return;
	if (s->told < UINT16_MAX)
		s->told++;
	if (d->record.count > known) {
		f->stats.offers++;
		f->stats.outcomes[OUTCOME_OPEN]++;
	}
	f->stats.last_news_ms = loop_now_ms(f->loop);
	if (d->state != DEVICE_IDLE || s->outcome != OUTCOME_OPEN) {
		told_again(f, d, s);
		return;
	}
	if (!begin_work(f, d, o, s)) {
		f->stats.odd_commands++;
		return;
	}
	device_enter(f, d, DEVICE_WAITING);
	device_say(f, d, WORD_ACCEPTED, NULL);
	if (d->work->plan.fate == FATE_FAIL && d->work->plan.fail_phase == FAIL_AT_ONCE)
		device_failed(f, d, d->work->plan.code, "it was meant to");
	else
		device_fetch(f, d);
}
