/* SPDX-License-Identifier: MIT */
#include "core/runs.h"

#include "core/version.h"

#include <string.h>

static bool is_learnt(const struct release *r, const char *version)
{
	for (size_t i = 0; r->learnt && i < r->learnt->count; i++)
		if (version_equal(r->learnt->items[i], version))
			return true;
	return false;
}

/* Any of the names of R: declared, embedded, learnt. */
static bool has_name(const struct release *r, const char *version)
{
	return version_equal(r->version, version) ||
	       (r->inner_version[0] && version_equal(r->inner_version, version)) ||
	       is_learnt(r, version);
}

bool release_is_called(const struct release *r, const char *version)
{
	if (version_equal(r->version, version))
		return true;
	if (r->inner_is_unique && version_equal(r->inner_version, version))
		return true;
	for (size_t i = 0; r->learnt && i < r->learnt->count && i < LEARNT_MAX; i++)
		if (!(r->learnt_taken >> i & 1) && version_equal(r->learnt->items[i], version))
			return true;
	return false;
}

/* All zero is what a build leaves that fills no digest in: it names nothing. */
static bool same_digest(const uint8_t *a, const uint8_t *b)
{
	static const uint8_t zero[DIGEST_SIZE];

	return memcmp(a, b, DIGEST_SIZE) == 0 && memcmp(a, zero, DIGEST_SIZE) != 0;
}

static bool digest_matches(const struct device_digests *g, const struct release *r)
{
	if (g->has_firmware && r->has_image_digest && same_digest(g->firmware, r->image_digest))
		return true;
	if (g->has_firmware && same_digest(g->firmware, r->sha256))
		return true;
	return g->has_elf && r->has_elf_digest && same_digest(g->elf, r->elf_digest);
}

bool runs_release(const struct device *d, const struct release *r)
{
	const struct device_state *s = &d->state;

	if (strcmp(s->model, r->model) != 0)
		return false;
	if (s->version[0] && release_is_called(r, s->version))
		return true;
	if (s->digests && digest_matches(s->digests, r))
		return true;
	return s->ran_release_id == r->id && s->ran_as[0] && strcmp(s->ran_as, s->version) == 0;
}

static bool name_taken_by_other(const struct release *all, const struct release *self,
				const char *name)
{
	for (const struct release *r = all; r; r = r->next)
		if (r != self && has_name(r, name))
			return true;
	return false;
}

void releases_mark_unique(struct release *newest)
{
	for (struct release *r = newest; r; r = r->next) {
		r->inner_is_unique =
			r->inner_version[0] && !name_taken_by_other(newest, r, r->inner_version);
		r->learnt_taken = 0;
		for (size_t i = 0; r->learnt && i < r->learnt->count && i < LEARNT_MAX; i++)
			if (name_taken_by_other(newest, r, r->learnt->items[i]))
				r->learnt_taken |= UINT64_C(1) << i;
	}
}

enum sighting runs_after_success(const struct device *d, const struct attempt *a,
				 const struct release *r, const struct release *all)
{
	const char *now = d->state.version;

	if (release_is_called(r, now) || (d->state.digests && digest_matches(d->state.digests, r)))
		return SIGHTING_TARGET;
	/* A mislabelled image may call itself what ran before, or as another release does; a digest
	 * would have told. */
	bool digest_denies =
		d->state.digests && d->state.digests->has_firmware && r->has_image_digest;
	if (!digest_denies && r->inner_version[0] && version_equal(now, r->inner_version))
		return SIGHTING_TARGET;
	if (version_equal(now, a->from_version))
		return SIGHTING_OLD;
	return name_taken_by_other(all, r, now) ? SIGHTING_OTHER : SIGHTING_LEARNT;
}
