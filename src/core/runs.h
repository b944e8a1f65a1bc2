/* SPDX-License-Identifier: MIT */
/*
 * Which release a device runs.  Pure.
 *
 * A device runs a release when it reports the version declared at upload; or the one embedded in
 * the image or learnt from devices, if that belongs to one release of the model only; or the
 * image's digest; or when it succeeded at the release and has called itself what it calls itself
 * now ever since.
 */
#pragma once

#include "core/domain.h"

bool runs_release(const struct device *d, const struct release *r);

/* VERSION (never "") names release R and no other of its model. */
bool release_is_called(const struct release *r, const char *version);
/* Recomputes inner_is_unique and learnt_taken of all releases of a model.  Call after each
 * change of its releases. */
void releases_mark_unique(struct release *newest);

/* What the first words of a device after a success (attempt A at R) tell; ALL are the model's
 * releases. */
enum sighting {
	SIGHTING_TARGET, /* it runs R */
	SIGHTING_LEARNT, /* it calls itself something nobody else is called: R has another name */
	SIGHTING_OTHER,  /* it runs yet another release by now */
	SIGHTING_OLD,    /* the old version: rolled back, given evidence */
};
enum sighting runs_after_success(const struct device *d, const struct attempt *a,
				 const struct release *r, const struct release *all);
