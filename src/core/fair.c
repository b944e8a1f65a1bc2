/* SPDX-License-Identifier: MIT */
#include "core/fair.h"

#include "base/hash.h"

#include <string.h>

/* --- kinds --- */

static uint64_t key_of(uint64_t variant, const struct string_list *groups)
{
	uint64_t key = variant;

	for (size_t i = 0; groups && i < groups->count; i++)
		key = hash64_mix(key + hash64(groups->items[i], strlen(groups->items[i])));
	return key;
}

uint64_t fair_key(const struct device *d, const char *from)
{
	return key_of(gate_variant_key(d->state.hw, from), d->state.groups);
}

static int find(const struct fair *f, uint64_t key)
{
	for (int i = 0; i < f->count; i++)
		if (f->kinds[i].key == key)
			return i;
	return -1;
}

/* -1: there are too many. */
static int find_or_add(struct fair *f, uint64_t variant, const struct string_list *groups)
{
	uint64_t key = key_of(variant, groups);
	int i = find(f, key);

	if (i >= 0 || f->count == FAIR_KINDS_MAX)
		return i;
	f->kinds[f->count] = (struct fair_kind){.key = key, .variant = variant};
	return f->count++;
}

/* --- who waits --- */

int64_t fair_due_us(const struct device *d, int64_t habit_us, int64_t now_us)
{
	const struct device_link *l = d->state.link;
	int64_t seen_us = d->last_seen_us;

	if (l && l->presence == PRESENCE_ONLINE)
		return now_us + FAIR_TOLD_US;
	/* It is a fifth earlier or later than it should be. */
	int64_t due_us = seen_us + habit_us + habit_us / 4;
	return now_us < due_us ? due_us : 0;
}

static void expect(struct fair_kind *k, int64_t due_us, int64_t now_us)
{
	if (due_us > now_us + FAIR_HOLD_US)
		due_us = now_us + FAIR_HOLD_US;
	if (due_us > k->until_us)
		k->until_us = due_us;
}

void fair_begin(struct fair *f)
{
	for (int i = 0; i < f->count; i++)
		f->kinds[i].left = f->kinds[i].until_us = 0;
}

void fair_count(struct fair *f, const struct device *d, int64_t due_us, int64_t now_us)
{
	int i = find_or_add(f, gate_variant_key(d->state.hw, d->state.version), d->state.groups);

	if (i < 0 || !due_us)
		return;
	struct fair_kind *k = &f->kinds[i];
	/* The first of them that should come: the others are expected when it has. */
	if (k->left++ == 0 || due_us < k->until_us) {
		k->until_us = 0;
		expect(k, due_us, now_us);
	}
}

void fair_waits(struct fair *f, const struct device *d, int64_t due_us, int64_t now_us)
{
	int i = find(f, fair_key(d, d->state.version));

	if (i < 0 || !due_us)
		return;
	if (f->kinds[i].left == 0)
		f->kinds[i].left = 1;
	expect(&f->kinds[i], due_us, now_us);
}

bool fair_matters(const struct fair *f)
{
	for (int i = 0; i < f->count; i++)
		if (f->kinds[i].exposed < FAIR_FIRST && f->kinds[i].left > 0)
			return true;
	return false;
}

bool fair_may(const struct fair *f, const struct gate *g, const struct device *d, int64_t now_us)
{
	if (!fair_matters(f))
		return true;
	int mine = find(f, fair_key(d, d->state.version));
	int64_t exposed = mine < 0 ? 0 : f->kinds[mine].exposed;

	for (int i = 0; i < f->count; i++) {
		const struct fair_kind *k = &f->kinds[i];
		if (k->exposed < exposed && k->exposed < FAIR_FIRST && k->left > 0 &&
		    now_us < k->until_us && gate_variant_has_place(g, k->variant))
			return false;
	}
	return true;
}

/* --- places --- */

int fair_take(struct fair *f, const struct device *d, const char *hw, const char *from)
{
	int i = find_or_add(f, gate_variant_key(hw, from), d->state.groups);

	if (i < 0)
		return -1;
	f->kinds[i].exposed++;
	if (f->kinds[i].left > 0)
		f->kinds[i].left--;
	return i;
}

void fair_give_back(struct fair *f, int kind)
{
	if (kind < 0)
		return;
	f->kinds[kind].exposed--;
	f->kinds[kind].left++;
}

void fair_forget(struct fair *f)
{
	f->count = 0;
}
