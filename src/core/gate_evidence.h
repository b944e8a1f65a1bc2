/* SPDX-License-Identifier: MIT */
/*
 * How much likelier what was seen is if a release is bad.  Pure; a plain struct, copied freely.
 *
 * For each suspected share of failures q against the acceptable p0 there is one number, R_q = 0 at
 * first.  With the n-th outcome (n = 1, 2, ...):
 *
 *     L_q = q / p0 on failure, (1 - q) / (1 - p0) on proof
 *     R_q = (R_q + w_n) * L_q        w_n = g(n-1) - g(n),   g(n) = 1 / (1 + ln(1 + n))
 *     E   = mean of the R_q + g(n)
 *
 * The w_n spread the suspicion over every moment at which the release may have turned bad.  While
 * p0 holds, E is a martingale that starts at 1, so it ever reaches x with probability 1/x at most,
 * in a fleet of any size, looked at after every outcome (Ville's inequality).
 */
#pragma once

#include "core/gate_params.h"

#include <stdbool.h>

/* The factors L_q, of the parameters once and for all. */
struct gate_factors {
	int count;
	double failed[GATE_SUSPECTS_MAX], proven[GATE_SUSPECTS_MAX];
};

struct gate_evidence {
	int64_t n, failed;           /* outcomes, and failures among them */
	double g;                    /* g(n) */
	double r[GATE_SUSPECTS_MAX]; /* never above 1e300: there it says all that it can */
};

struct gate_factors gate_factors_of(const struct gate_params *p);
void gate_evidence_init(struct gate_evidence *e);
void gate_evidence_add(struct gate_evidence *e, const struct gate_factors *l, bool failed);
/* E. */
double gate_evidence_value(const struct gate_evidence *e, const struct gate_factors *l);
/* g(n): the suspicion that is left for what comes after N. */
double gate_evidence_left(int64_t n);
