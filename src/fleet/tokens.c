/* SPDX-License-Identifier: MIT */
#include "fleet/tokens.h"

#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

uint64_t token_hash(const char *token)
{
	uint64_t h = hash64(token, strlen(token));

	return h ? h : 1;
}

void tokens_put(struct token_table *t, uint64_t hash, struct device *d)
{
	size_t i = hash & (t->cap - 1);

	while (t->slots[i].hash)
		i = (i + 1) & (t->cap - 1);
	t->slots[i] = (struct token_slot){hash, d};
	t->used++;
}

bool tokens_reserve(struct token_table *t, size_t more)
{
	size_t cap = t->cap ? t->cap : 64;

	while ((t->used + more) * 4 > cap * 3)
		cap *= 2;
	if (cap == t->cap)
		return true;
	struct token_table bigger = {calloc(cap, sizeof *t->slots), cap, 0};
	if (!bigger.slots)
		return false;
	for (size_t i = 0; i < t->cap; i++)
		if (t->slots[i].hash)
			tokens_put(&bigger, t->slots[i].hash, t->slots[i].device);
	free(t->slots);
	*t = bigger;
	return true;
}

static size_t find(const struct token_table *t, uint64_t hash)
{
	size_t i = hash & (t->cap - 1);

	while (t->slots[i].hash && t->slots[i].hash != hash)
		i = (i + 1) & (t->cap - 1);
	return i;
}

struct device *tokens_get(const struct token_table *t, uint64_t hash)
{
	return t->cap ? t->slots[find(t, hash)].device : NULL;
}

void tokens_remove(struct token_table *t, uint64_t hash, const struct device *d)
{
	if (!t->cap)
		return;
	size_t hole = find(t, hash);
	if (!t->slots[hole].hash || t->slots[hole].device != d)
		return;
	/* Close the gap: whoever stands further on and belongs before it moves back. */
	for (size_t i = (hole + 1) & (t->cap - 1); t->slots[i].hash; i = (i + 1) & (t->cap - 1)) {
		size_t home = t->slots[i].hash & (t->cap - 1);
		if (((i - home) & (t->cap - 1)) >= ((i - hole) & (t->cap - 1))) {
			t->slots[hole] = t->slots[i];
			hole = i;
		}
	}
	t->slots[hole] = (struct token_slot){0, NULL};
	t->used--;
}
