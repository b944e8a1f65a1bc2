/* SPDX-License-Identifier: MIT */
#include "core/target.h"

#include "base/hash.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t target_salt(const char *model, const char *version)
{
	return hash64_mix(hash64(model, strlen(model)) + 3 * hash64(version, strlen(version)));
}

uint64_t target_bucket(const struct device *d, const struct release *r)
{
	return hash64_mix(d->hash ^ r->salt);
}

static int compare_string_item(const void *key, const void *item)
{
	return strcmp(key, *(const char *const *)item);
}

static int compare_mac_item(const void *key, const void *item)
{
	uint64_t a = *(const uint64_t *)key, b = *(const uint64_t *)item;

	return (a > b) - (a < b);
}

static bool names_device(const struct target *t, const struct device *d)
{
	if (t->device_ids && bsearch(d->device_id, t->device_ids->items, t->device_ids->count,
				     sizeof t->device_ids->items[0], compare_string_item))
		return true;
	return d->state.mac && t->mac_count &&
	       bsearch(&d->state.mac, t->macs, t->mac_count, sizeof t->macs[0], compare_mac_item);
}

static bool in_group(const struct device *d, const char *group)
{
	const struct string_list *g = d->state.groups;

	for (size_t i = 0; g && i < g->count; i++)
		if (strcmp(g->items[i], group) == 0)
			return true;
	return false;
}

bool target_selects(const struct rollout *r, const struct device *d)
{
	if (strcmp(d->state.model, r->release->model) != 0)
		return false;
	switch (r->target.type) {
	case TARGET_ALL:
	case TARGET_CANARY: return true;
	case TARGET_GROUP: return in_group(d, r->target.group);
	case TARGET_SPECIFIC: return names_device(&r->target, d);
	}
	return false;
}

bool target_includes(const struct rollout *r, const struct device *d)
{
	if (!target_selects(r, d))
		return false;
	if (r->target.type == TARGET_SPECIFIC || r->target.percent >= 100)
		return true;
	uint64_t bucket = target_bucket(d, r->release);
	return bucket < UINT64_MAX / 100 * (uint64_t)r->target.percent || bucket == r->lowest_hash;
}

bool mac_parse(const char *text, uint64_t *mac)
{
	uint64_t v = 0;
	int digits = 0;

	for (const char *p = text; *p; p++) {
		int d;
		if (*p >= '0' && *p <= '9')
			d = *p - '0';
		else if ((*p | 32) >= 'a' && (*p | 32) <= 'f')
			d = (*p | 32) - 'a' + 10;
		else if ((*p == ':' || *p == '-' || *p == '.') && digits % 2 == 0 && p > text &&
			 isxdigit((unsigned char)p[-1]) && isxdigit((unsigned char)p[1]))
			continue; /* one, between pairs */
		else
			return false;
		if (++digits > 12)
			return false;
		v = v << 4 | (uint64_t)d;
	}
	if (digits != 12 || v == 0)
		return false;
	*mac = v;
	return true;
}

void mac_format(uint64_t mac, char out[MAC_TEXT_SIZE])
{
	snprintf(out, MAC_TEXT_SIZE, "%02x:%02x:%02x:%02x:%02x:%02x", (unsigned)(mac >> 40 & 255),
		 (unsigned)(mac >> 32 & 255), (unsigned)(mac >> 24 & 255),
		 (unsigned)(mac >> 16 & 255), (unsigned)(mac >> 8 & 255), (unsigned)(mac & 255));
}

const char *target_type_word(enum target_type type)
{
	static const char *const words[] = {
		[TARGET_ALL] = "all",
		[TARGET_GROUP] = "group",
		[TARGET_CANARY] = "canary",
		[TARGET_SPECIFIC] = "specific",
	};

	return words[type];
}
