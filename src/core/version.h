/* SPDX-License-Identifier: MIT */
/*
 * The order of versions.  Pure.
 *
 * Two versions are comparable when both are semver (Semantic Versioning 2.0.0, 11), or both are
 * {hash7}-{YYYYMMDD-HHMMSS}, which go by their time stamp.  Anything else is incomparable: neither
 * an upgrade nor a downgrade.  A leading 'v' counts for nothing.
 */
#pragma once

#include <stdbool.h>

enum version_order {
	VERSION_LOWER = -1,
	VERSION_SAME = 0,
	VERSION_HIGHER = 1,
	VERSION_INCOMPARABLE = 2,
};

/* What A is with respect to B. */
enum version_order version_compare(const char *a, const char *b);
/* The same name, but for a leading 'v'.  Stricter than VERSION_SAME, which ignores build metadata.
 */
bool version_equal(const char *a, const char *b);
