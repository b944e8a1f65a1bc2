/* SPDX-License-Identifier: MIT */
/*
 * From an attempt's token to its device: an open-addressing table.  Not locked: fleet.c does that.
 * Two tokens with the same 64-bit hash would need the caller to compare, which fleet.c does.
 */
#pragma once

#include "base/err.h"
#include "core/domain.h"

struct token_table {
	struct token_slot {
		uint64_t hash; /* 0: free */
		struct device *device;
	} * slots;
	size_t cap, used; /* cap: a power of two, or 0 */
};

uint64_t token_hash(const char *token); /* never 0 */
/* Room for one more; false when out of memory. */
OTA_MUST_USE bool tokens_reserve(struct token_table *t, size_t more);
void tokens_put(struct token_table *t, uint64_t hash, struct device *d); /* reserved before */
struct device *tokens_get(const struct token_table *t, uint64_t hash);
void tokens_remove(struct token_table *t, uint64_t hash, const struct device *d);
