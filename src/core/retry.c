/* SPDX-License-Identifier: MIT */
#include "core/retry.h"

#include "base/clock.h"

#define MINUTE_US (60 * US_PER_S)
#define HOUR_US   (60 * MINUTE_US)
#define DAY_US    (24 * HOUR_US)

enum kind {
	COUNTS, /* towards max_attempts; the wait doubles, from a poll interval to a day */
	PASSES, /* counts for nothing; waits as in passing_us */
	MIXED,  /* counts when the device had the whole image, else passes */
};

static const struct {
	const char *name;
	enum kind kind;
	int most; /* failures in a row, if the last one has this code; 0: max_attempts says it */
} rules[RESULT_CODE_LAST + 1] = {
	[RESULT_CODE_NONE] = {"success", COUNTS, 0},
	[1] = {"wifi not connected", PASSES, 0},
	[2] = {"download failed", PASSES, 0},
	[3] = {"verification failed", COUNTS, 2}, /* once more: bits may flip on the way */
	[4] = {"install failed", COUNTS, 0},
	[5] = {"no partition", COUNTS, 1},
	[6] = {"invalid url", PASSES, 0}, /* our fault, not the device's */
	[7] = {"timeout", MIXED, 0},
	[8] = {"insufficient space", COUNTS, 1},
	[9] = {"invalid firmware", COUNTS, 1},
	[10] = {"already running", PASSES, 0},
	[11] = {"rollback failed", COUNTS, 1},
};

/* After the first, second, ... that passed; the last one from then on. */
static const int64_t passing_us[] = {
	5 * MINUTE_US, 30 * MINUTE_US, 2 * HOUR_US, 4 * HOUR_US, 8 * HOUR_US, 16 * HOUR_US, DAY_US,
};
#define PASSING (int)(sizeof passing_us / sizeof *passing_us)

const char *result_code_name(int64_t code)
{
	return code >= 0 && code <= RESULT_CODE_LAST ? rules[code].name : NULL;
}

static int known(int code)
{
	return code >= 0 && code <= RESULT_CODE_LAST ? code : RESULT_CODE_NONE;
}

static int64_t doubled_us(int64_t us, int times)
{
	for (int i = 0; i < times && us < DAY_US; i++)
		us *= 2;
	return us < DAY_US ? us : DAY_US;
}

int64_t retry_note(struct failure_count *f, const struct retry_facts *facts)
{
	enum kind kind = rules[known(facts->code)].kind;

	f->code = known(facts->code);
	if (kind == PASSES || (kind == MIXED && !facts->whole)) {
		f->passing++;
		return passing_us[f->passing < PASSING ? f->passing - 1 : PASSING - 1];
	}
	f->count++;
	if (f->code == RESULT_CODE_NONE && !facts->is_told)
		return 0;
	return doubled_us(facts->poll_interval_us, f->count - 1);
}

enum retry_end retry_end(const struct failure_count *f, int max_attempts)
{
	int most = rules[known(f->code)].most;

	if (most && f->count >= most)
		return RETRY_IN_VAIN;
	return f->count >= max_attempts ? RETRY_TOO_MANY : RETRY_GOES_ON;
}
