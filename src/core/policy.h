/* SPDX-License-Identifier: MIT */
/* What is odd about a new release but allowed: sentences for its uploader.  Pure. */
#pragma once

#include "core/domain.h"

/* What the upload says and the image holds. */
struct release_facts {
	const char *version;
	const char *inner_version, *project; /* "" unknown */
	bool has_secure_version;
	uint32_t secure_version;
};

#define POLICY_WARNINGS_MAX  4
#define POLICY_SENTENCE_SIZE 320

/* Fills OUT and returns how many there are.  OLDER: the model's releases, newest first; may be
 * NULL. */
int policy_warnings(const struct release_facts *f, const struct release *older,
		    char out[POLICY_WARNINGS_MAX][POLICY_SENTENCE_SIZE]);
