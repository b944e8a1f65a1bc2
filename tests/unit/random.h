/* SPDX-License-Identifier: MIT */
/*
 * Random input for property tests: xorshift64*, seeded from TEST_SEED or the system; the seed is
 * printed so that a failure can be run again.  One thread.
 */
#pragma once

#include "base/hash.h"

#include <stdio.h>
#include <stdlib.h>

static uint64_t random_state;

static inline void random_begin(const char *what)
{
	const char *given = getenv("TEST_SEED");
	uint64_t seed = 1;

	if (given)
		seed = strtoull(given, NULL, 0);
	else if (!random_bytes(&seed, sizeof seed))
		abort();
	random_state = seed ? seed : 1;
	printf("# %s: TEST_SEED=0x%llx\n", what, (unsigned long long)random_state);
	fflush(stdout);
}

static inline uint64_t random_next(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * UINT64_C(0x2545F4914F6CDD1D);
}

/* 0 .. below-1 */
static inline int random_below(int below)
{
	return (int)((random_next() >> 33) % (uint64_t)below);
}
