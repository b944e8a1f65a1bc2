/* SPDX-License-Identifier: MIT */
#include "core/gate_params.h"

#include <stddef.h>

#define P0_LEAST      1e-6
#define SUSPECT_MOST  0.999
#define UNPROVEN_MOST 10000000
#define DEFAULT_MOST  500

struct gate_params gate_params_default(void)
{
	return (struct gate_params){.p0 = 0.01,
				    .suspect_count = 5,
				    .suspects = {0.05, 0.1, 0.2, 0.5, 0.95},
				    .halt_at = 125,
				    .prove_s = 600,
				    .silence_s = 1800,
				    .initial_unproven = 2};
}

/* Whole numbers with their ranges. */
static const struct range {
	const char *name;
	size_t field;
	int64_t least, most;
	const char *what;
} ranges[] = {
	{"prove_s", offsetof(struct gate_params, prove_s), 1, 604800, "seconds"},
	{"silence_s", offsetof(struct gate_params, silence_s), 60, 2592000, "seconds"},
	{"initial_unproven", offsetof(struct gate_params, initial_unproven), 1, UNPROVEN_MOST,
	 "devices"},
	{"max_unproven", offsetof(struct gate_params, max_unproven), 0, UNPROVEN_MOST,
	 "devices, 0 being by the size of the stage"},
};

/* Comparisons are written so that NaN fails them. */
static enum ota_code check_suspects(const struct gate_params *p, struct ota_err *err)
{
	if (p->suspect_count < 1 || p->suspect_count > GATE_SUSPECTS_MAX)
		return ota_fail(err, OTA_EUNPROCESSABLE,
				"suspects holds %d shares of failures: name 1 to %d, such as "
				"[0.05,0.1,0.2,0.5,0.95]",
				p->suspect_count, GATE_SUSPECTS_MAX);
	for (int i = 0; i < p->suspect_count; i++) {
		double q = p->suspects[i], above = i ? p->suspects[i - 1] : p->p0;

		if (!(q > above && q <= SUSPECT_MOST))
			return ota_fail(err, OTA_EUNPROCESSABLE,
					"suspects[%d] is %g: each must be above %s (here %g), and "
					"%g at the most",
					i, q, i ? "the one before" : "p0", above, SUSPECT_MOST);
	}
	return OTA_OK;
}

enum ota_code gate_params_check(const struct gate_params *p, struct ota_err *err)
{
	if (!(p->p0 >= P0_LEAST && p->p0 <= 0.5))
		return ota_fail(err, OTA_EUNPROCESSABLE,
				"p0 is %g: it is the acceptable share of failures, %g to 0.5, such "
				"as 0.01 for one in a hundred",
				p->p0, P0_LEAST);
	enum ota_code code = check_suspects(p, err);
	if (code)
		return code;
	if (!(p->halt_at >= 2 && p->halt_at <= 1e12))
		return ota_fail(err, OTA_EUNPROCESSABLE,
				"halt_at is %g: it is how many times likelier a bad release is "
				"when it is halted, 2 to 1e12; a good one is halted once in so "
				"many times at most (default 125)",
				p->halt_at);
	for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
		const struct range *r = &ranges[i];
		int64_t value = *(const int64_t *)((const char *)p + r->field);

		if (value < r->least || value > r->most)
			return ota_fail(err, OTA_EUNPROCESSABLE,
					"%s is %lld: it must be %lld to %lld %s", r->name,
					(long long)value, (long long)r->least, (long long)r->most,
					r->what);
	}
	if (p->max_unproven && p->max_unproven < p->initial_unproven)
		return ota_fail(
			err, OTA_EUNPROCESSABLE,
			"max_unproven is %lld, below initial_unproven (%lld): it must not be lower",
			(long long)p->max_unproven, (long long)p->initial_unproven);
	return OTA_OK;
}

int64_t gate_params_most(const struct gate_params *p, int64_t devices)
{
	int64_t most = p->max_unproven;

	if (!most)
		most = devices / 50 > DEFAULT_MOST ? devices / 50 : DEFAULT_MOST;
	return most > p->initial_unproven ? most : p->initial_unproven;
}
