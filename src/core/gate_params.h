/* SPDX-License-Identifier: MIT */
/* What a person may set about a gate, and whether it makes sense.  Pure. */
#pragma once

#include "base/err.h"

#include <stdint.h>

#define GATE_SUSPECTS_MAX 8

struct gate_params {
	double p0; /* the share of failures that is acceptable */
	int suspect_count;
	double suspects[GATE_SUSPECTS_MAX]; /* shares of failures that are suspected, rising */
	double halt_at;                     /* so many times likelier if the release is bad */
	int64_t prove_s;                    /* how long a device is well before it proves */
	int64_t silence_s;                  /* how long it is silent, at least, before it failed */
	int64_t initial_unproven;           /* exposures without an outcome, at the start */
	int64_t max_unproven;               /* ... and at the most; 0: by the size of the stage */
};

/* p0 0.01; suspects 0.05, 0.1, 0.2, 0.5, 0.95; halt_at 125; prove_s 600; silence_s 1800;
 * initial_unproven 2; max_unproven by the stage. */
struct gate_params gate_params_default(void);
/* OTA_EUNPROCESSABLE, and a sentence that names the parameter, what is wrong, what would be right.
 */
enum ota_code gate_params_check(const struct gate_params *p, struct ota_err *err) OTA_MUST_USE;
/* max_unproven for a stage of so many devices: by default the larger of 500 and 2 % of it. */
int64_t gate_params_most(const struct gate_params *p, int64_t devices);
