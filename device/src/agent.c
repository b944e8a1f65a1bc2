/* SPDX-License-Identifier: MIT */
/*
 * The agent's frame: start-up, the step, waiting, checks and reports.
 *
 * A report that cannot be delivered stays in the record's `due` bits, one bit a step of the
 * update, and the bits are sent in the order of the steps.  So the queue needs no memory, loses no
 * step, and survives a restart wherever the record is saved; the final result always is.  No new
 * update begins before the last one's result is delivered.
 */
#include "agent.h"

#include <string.h>

#define FINAL_MASK        (1 << PAKU_SUCCESS | 1 << PAKU_FAILED | 1 << PAKU_ROLLED_BACK)
#define BACKOFF_FIRST_MS  2000
#define BACKOFF_DOUBLINGS 7     /* at most 256 s */
#define WAIT_MAX_S        86400 /* what a service asks for beyond a day is a mistake */

void paku_event(const struct paku *p, enum paku_event event, uint32_t value)
{
	if (p->io->sys.event)
		p->io->sys.event(p->io->ctx, event, value);
}

int paku_save(struct paku *p)
{
	p->unsaved = 0;
	return paku_record_save(p->io, &p->rec, &p->copy);
}

struct paku_slot *paku_spare(struct paku *p)
{
	return &p->rec.slot[p->running ^ 1];
}

void paku_due(struct paku *p, enum paku_status status)
{
	p->rec.due |= (uint8_t)(1 << status);
}

void paku_pause(struct paku *p, uint32_t ms)
{
	p->wait_until = p->io->sys.now_ms(p->io->ctx) + ms;
	p->waiting = true;
}

/* Between a half and all of it, so that a fleet cut off together does not come back together. */
static uint32_t jittered(struct paku *p, uint32_t ms)
{
	return ms / 2 + p->io->sys.random(p->io->ctx) % (ms / 2 + 1);
}

static uint32_t backoff_ms(struct paku *p, uint8_t tries)
{
	uint8_t doublings = tries > BACKOFF_DOUBLINGS ? BACKOFF_DOUBLINGS : tries;

	return jittered(p, (uint32_t)BACKOFF_FIRST_MS << doublings);
}

void paku_pause_poll(struct paku *p)
{
	paku_pause(p, jittered(p, p->cfg->poll_s * 1000));
}

void paku_backoff(struct paku *p, uint32_t least_s)
{
	if (least_s > WAIT_MAX_S)
		least_s = WAIT_MAX_S;
	paku_pause(p, least_s * 1000 + backoff_ms(p, p->tries));
	if (p->tries < UINT8_MAX)
		p->tries++;
}

uint8_t paku_fail(struct paku *p, enum paku_why why)
{
	paku_due(p, PAKU_FAILED);
	p->rec.why = (uint8_t)why;
	p->tries = p->changes = 0;
	p->most = 0;
	paku_event(p, PAKU_EV_FAILED, why);
	/* If even this cannot be saved, a restart forgets the result, not the image that runs. */
	if (paku_save(p))
		paku_event(p, PAKU_EV_REPORT_KEPT, PAKU_FAILED);
	paku_pause_poll(p);
	return PHASE_CHECK;
}

/* ----------------------------------------------------------------------------------- reports */

static enum paku_status first_due(uint8_t due)
{
	int status = 0;

	while (!(due >> status & 1))
		status++;
	return (enum paku_status)status;
}

/* Sends one due report; true if that was delivered, or refused for good. */
static bool report_one(struct paku *p)
{
	enum paku_status status = first_due(p->rec.due);
	bool failure = status == PAKU_FAILED || status == PAKU_ROLLED_BACK;
	struct paku_report report = {
		.version = p->rec.slot[p->rec.subject].version,
		.attempt = p->rec.attempt,
		.status = status,
		.why = failure ? (enum paku_why)p->rec.why : PAKU_WHY_NONE,
		.percent = status == PAKU_DOWNLOADING ? p->rec.percent : PAKU_NO_PERCENT,
	};
	enum paku_outcome outcome = p->io->net.report(p->io->ctx, &report);

	if (outcome == PAKU_AGAIN) {
		paku_event(p, PAKU_EV_REPORT_KEPT, status);
		p->report_at = p->io->sys.now_ms(p->io->ctx) + backoff_ms(p, p->report_tries);
		if (p->report_tries < UINT8_MAX)
			p->report_tries++;
		return false;
	}
	paku_event(p, outcome == PAKU_OK ? PAKU_EV_REPORTED : PAKU_EV_REPORT_DROPPED, status);
	p->rec.due &= (uint8_t) ~(1 << status);
	p->report_tries = 0;
	/* Not saved, it is sent once more after a restart, and the service knows a repetition. */
	if (1 << status & FINAL_MASK)
		(void)paku_save(p);
	return true;
}

void paku_report_now(struct paku *p)
{
	p->report_tries = 0;
}

static bool before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static bool report_ready(const struct paku *p)
{
	return p->rec.due &&
	       !(p->report_tries && before(p->io->sys.now_ms(p->io->ctx), p->report_at));
}

/* ------------------------------------------------------------------------------------- check */

static uint32_t next_check_ms(struct paku *p, uint32_t retry_after_s)
{
	if (retry_after_s > WAIT_MAX_S)
		retry_after_s = WAIT_MAX_S;
	/* The service's time has its jitter already. */
	if (retry_after_s && !p->cfg->poll_fixed)
		return retry_after_s * 1000;
	return p->cfg->poll_fixed ? p->cfg->poll_s * 1000 : jittered(p, p->cfg->poll_s * 1000);
}

static uint8_t phase_check(struct paku *p)
{
	struct paku_offer offer;
	uint32_t retry_after_s = 0;

	memset(&offer, 0, sizeof offer);
	enum paku_outcome outcome =
		p->io->net.check(p->io->ctx, paku_version(p), &offer, &retry_after_s);
	if (outcome != PAKU_OK) {
		paku_event(p, PAKU_EV_CHECK_FAILED, outcome);
		paku_backoff(p, retry_after_s);
		return PHASE_CHECK;
	}
	p->tries = 0;
	paku_event(p, PAKU_EV_CHECKED, offer.available);
	if (offer.available && !(p->rec.due & FINAL_MASK))
		return paku_begin(p, &offer);
	paku_pause(p, next_check_ms(p, retry_after_s));
	return PHASE_CHECK;
}

bool paku_take_offer(struct paku *p, const struct paku_offer *offer)
{
	if (p->phase != PHASE_CHECK || p->rec.due & FINAL_MASK)
		return false;
	p->tries = 0;
	p->waiting = false;
	p->phase = paku_begin(p, offer);
	return true;
}

/* -------------------------------------------------------------------------------------- step */

static const struct {
	const char *name;
	uint8_t (*run)(struct paku *p); /* returns the next phase */
} phases[PHASE_COUNT] = {
	[PHASE_CHECK] = {"check", phase_check},       [PHASE_RECHECK] = {"recheck", phase_recheck},
	[PHASE_OPEN] = {"open", phase_open},          [PHASE_FETCH] = {"fetch", phase_fetch},
	[PHASE_VERIFY] = {"verify", phase_verify},    [PHASE_ARM] = {"arm", phase_arm},
	[PHASE_RESTART] = {"restart", phase_restart}, [PHASE_TRIAL] = {"trial", phase_trial},
	[PHASE_REARM] = {"rearm", phase_rearm},       [PHASE_RETURN] = {"return", phase_return},
};

enum paku_next paku_step(struct paku *p, uint32_t *wait_ms)
{
	uint32_t now;

	*wait_ms = 0;
	if (p->phase == PHASE_RESTART)
		return PAKU_RESTART;
	if (report_ready(p)) {
		(void)report_one(p);
		return PAKU_CONTINUE;
	}
	now = p->io->sys.now_ms(p->io->ctx);
	if (p->waiting && before(now, p->wait_until)) {
		*wait_ms = p->wait_until - now;
		if (p->rec.due && before(p->report_at, p->wait_until))
			*wait_ms = before(now, p->report_at) ? p->report_at - now : 1;
		return PAKU_WAIT;
	}
	p->waiting = false;
	p->phase = phases[p->phase].run(p);
	return p->phase == PHASE_RESTART ? PAKU_RESTART : PAKU_CONTINUE;
}

uint8_t phase_restart(struct paku *p)
{
	(void)p;
	return PHASE_RESTART;
}

const char *paku_version(const struct paku *p)
{
	return p->rec.slot[p->running].version;
}

bool paku_idle(const struct paku *p)
{
	return p->phase == PHASE_CHECK && p->waiting && !p->tries && !p->rec.due;
}

const char *paku_phase_name(const struct paku *p)
{
	return phases[p->phase].name;
}

/* ------------------------------------------------------------------------------------- start */

static bool config_ok(const struct paku_config *cfg, int running)
{
	return cfg->block_size >= PAKU_BLOCK_MIN && cfg->slot_size >= cfg->block_size &&
	       cfg->slot_size % cfg->block_size == 0 && cfg->poll_s && cfg->poll_s <= WAIT_MAX_S &&
	       cfg->trial_s && cfg->trial_s <= WAIT_MAX_S && cfg->max_boots && cfg->max_tries &&
	       cfg->save_blocks && cfg->report_percent && running >= 0 && running <= 1;
}

/*
 * What runs without a trial is what counts, whoever put it there (a cable, at the factory).  A boot
 * loader of its own mind hears so too: it puts even the old image on trial when we go back to it.
 */
static void adopt_running(struct paku *p, const char *version)
{
	struct paku_slot *slot = &p->rec.slot[p->running];

	p->rec.active = p->running;
	if (slot->state != PAKU_SLOT_GOOD || !slot->version[0]) {
		memset(slot, 0, sizeof *slot);
		strncpy(slot->version, version, sizeof slot->version - 1);
		slot->state = PAKU_SLOT_GOOD;
	}
	/* If that fails, the worst is that the bootloader starts the other one: PHASE_RETURN. */
	if (p->io->sys.boot_confirm)
		(void)p->io->sys.boot_confirm(p->io->ctx);
}

bool paku_init(struct paku *p, const struct paku_io *io, const struct paku_config *cfg,
	       uint8_t *block, int running, const char *version)
{
	if (!config_ok(cfg, running))
		return false;
	memset(p, 0, sizeof *p);
	p->io = io;
	p->cfg = cfg;
	p->block = block;
	p->running = (uint8_t)running;
	p->copy = paku_record_load(io, &p->rec);
	/* What is in flash has to be looked at again before anything is said about it. */
	p->rec.due &= (uint8_t) ~(1 << PAKU_DOWNLOADING);
	if (p->rec.trial == PAKU_NO_SLOT && p->rec.slot[running].state == PAKU_SLOT_BAD &&
	    p->rec.slot[running ^ 1].state == PAKU_SLOT_GOOD) {
		p->phase = PHASE_RETURN;
	} else if (p->rec.trial == PAKU_NO_SLOT) {
		adopt_running(p, version);
		if (p->rec.due & 1 << PAKU_ROLLED_BACK)
			paku_event(p, PAKU_EV_ROLLED_BACK, p->rec.why);
		p->phase = PHASE_CHECK;
	} else if (p->rec.trial == p->running) {
		p->trial_until = io->sys.now_ms(io->ctx) + cfg->trial_s * 1000;
		paku_event(p, PAKU_EV_TRIAL, p->rec.boots);
		p->phase = PHASE_TRIAL;
	} else {
		p->phase = PHASE_REARM;
	}
	return true;
}
