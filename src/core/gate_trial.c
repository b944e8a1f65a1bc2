/* SPDX-License-Identifier: MIT */
#include "core/gate_trial.h"

enum gate_trial_state gate_trial_see(struct gate_trial *t, enum gate_sight sight, int64_t now_us,
				     int64_t prove_s)
{
	if (t->state > GATE_TRIAL_RUNS)
		return t->state;
	if (t->state == GATE_TRIAL_WAITS) {
		if (sight != GATE_SIGHT_OLD)
			*t = (struct gate_trial){.state = GATE_TRIAL_RUNS, .since_us = now_us};
		return t->state;
	}
	if (sight == GATE_SIGHT_OLD)
		return t->state = GATE_TRIAL_OLD_AGAIN;
	if (sight == GATE_SIGHT_BOOT && ++t->boots >= GATE_BOOTS_MAX)
		return t->state = GATE_TRIAL_BOOT_LOOP;
	if (now_us < t->since_us)
		t->since_us = now_us;
	if (now_us - t->since_us >= prove_s * 1000000)
		t->state = GATE_TRIAL_PROVEN;
	return t->state;
}

enum gate_vote gate_vote(int code, bool whole, bool rolled_back)
{
	if (rolled_back)
		return GATE_VOTE_FAILED;
	switch (code) {
	case 3: /* verification failed */
	case 4: /* install failed */
	case 5: /* no partition */
	case 8: /* insufficient space */
	case 9: /* invalid firmware */
	case 11: /* rollback failed */ return GATE_VOTE_FAILED;
	case 1: /* wifi not connected */
	case 2: /* download failed */
	case 6: /* invalid url */
	case 10: /* already running */ return GATE_VOTE_NONE;
	default: return whole ? GATE_VOTE_FAILED : GATE_VOTE_NONE;
	}
}
