/* SPDX-License-Identifier: MIT */
/*
 * The switch to a new image, its trial, and the way back.
 *
 * One record write is the switch, one is the confirmation, one is the rollback; each is whole or
 * not at all.  The confirmed image stays `active` and untouched until the new one is confirmed.
 * Where a bootloader has a record of its own (sys.boot_set), it is told first and the record
 * written after: a cut between the two leads to one more boot of the trial, never to a lost image,
 * and the number of those is bounded by max_boots.
 */
#include "agent.h"

#define SELFTEST_PAUSE_MS 1000

/* ------------------------------------------------------------------------ in the bootloader */

int paku_boot_choose(const struct paku_io *io, uint8_t max_boots)
{
	struct paku_record rec;
	uint8_t copy = paku_record_load(io, &rec);
	uint8_t trial = rec.trial;

	if (trial == PAKU_NO_SLOT)
		return rec.active;
	if (rec.boots >= max_boots) {
		paku_record_give_up(&rec, PAKU_WHY_BOOTS);
		trial = rec.active;
	} else {
		rec.boots++;
	}
	/* A boot that is not counted must not be a trial's, or it could go on for ever. */
	return paku_record_save(io, &rec, &copy) ? rec.active : trial;
}

/* -------------------------------------------------------------------------- in the old image */

/* Counts a boot of the trial, and tells a bootloader that keeps its own record. */
static int grant_boot(struct paku *p)
{
	p->rec.boots++;
	if (paku_save(p))
		return -1;
	return p->io->sys.boot_set ? p->io->sys.boot_set(p->io->ctx, p->rec.trial) : 0;
}

uint8_t phase_arm(struct paku *p)
{
	p->rec.trial = p->running ^ 1;
	p->rec.boots = 0;
	if (paku_save(p)) {
		/* Whatever the failed write left behind: the next save says that there is no trial.
		 */
		p->rec.trial = PAKU_NO_SLOT;
		return paku_fail(p, PAKU_WHY_RECORD);
	}
	paku_event(p, PAKU_EV_SWITCH, p->rec.trial);
	return p->io->sys.boot_set ? PHASE_REARM : PHASE_RESTART;
}

/*
 * A trial is on record and the old image runs: the bootloader has to be told yet, or has come
 * back to it, or could not count the boot.  Sends the trial on its way (again), or gives it up.
 */
uint8_t phase_rearm(struct paku *p)
{
	if (p->rec.boots < p->cfg->max_boots && grant_boot(p) == 0)
		return PHASE_RESTART;
	paku_record_give_up(&p->rec, PAKU_WHY_BOOTS);
	paku_event(p, PAKU_EV_ROLLED_BACK, PAKU_WHY_BOOTS);
	/* Not saved, the trial gets another chance after a restart; it did verify. */
	(void)paku_save(p);
	return PHASE_CHECK;
}

/* -------------------------------------------------------------------------- in the new image */

/* Nothing is asked of the service under a version that was given up: go back first. */
uint8_t phase_return(struct paku *p)
{
	if (p->io->sys.boot_set && p->io->sys.boot_set(p->io->ctx, p->running ^ 1)) {
		paku_backoff(p, 0);
		return PHASE_RETURN;
	}
	return PHASE_RESTART;
}

static uint8_t roll_back(struct paku *p, enum paku_why why)
{
	if (p->io->sys.boot_set && p->io->sys.boot_set(p->io->ctx, p->rec.active)) {
		paku_backoff(p, 0);
		return PHASE_TRIAL;
	}
	paku_record_give_up(&p->rec, why);
	paku_event(p, PAKU_EV_TRIAL_FAILED, why);
	/* If that cannot be saved, the boots run out instead. */
	(void)paku_save(p);
	return PHASE_RESTART;
}

static uint8_t confirm(struct paku *p)
{
	uint8_t old = p->rec.active;

	if (p->io->sys.boot_confirm && p->io->sys.boot_confirm(p->io->ctx)) {
		paku_pause(p, SELFTEST_PAUSE_MS);
		return PHASE_TRIAL;
	}
	p->rec.active = p->running;
	p->rec.trial = PAKU_NO_SLOT;
	p->rec.slot[p->running].state = PAKU_SLOT_GOOD;
	p->rec.subject = p->running;
	p->rec.why = PAKU_WHY_NONE;
	paku_due(p, PAKU_SUCCESS);
	if (paku_save(p)) {
		/* Not confirmed: it would not survive a restart.  The trial's time bounds the
		 * tries. */
		p->rec.active = old;
		p->rec.trial = p->running;
		p->rec.due &= (uint8_t) ~(1 << PAKU_SUCCESS);
		paku_pause(p, SELFTEST_PAUSE_MS);
		return PHASE_TRIAL;
	}
	paku_event(p, PAKU_EV_CONFIRMED, p->running);
	return PHASE_CHECK;
}

uint8_t phase_trial(struct paku *p)
{
	uint32_t now = p->io->sys.now_ms(p->io->ctx);

	if ((int32_t)(now - p->trial_until) >= 0)
		return roll_back(p, PAKU_WHY_TRIAL_TIME);
	switch (p->io->sys.selftest(p->io->ctx)) {
	case PAKU_TEST_PASS: return confirm(p);
	case PAKU_TEST_FAIL: return roll_back(p, PAKU_WHY_SELFTEST);
	case PAKU_TEST_WAIT: break;
	}
	paku_pause(p, SELFTEST_PAUSE_MS);
	return PHASE_TRIAL;
}
