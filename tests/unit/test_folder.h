/* SPDX-License-Identifier: MIT */
/* A folder of a test's own, in PAKU_UNIT_TMP or else in /tmp. */
#pragma once

#include <stdio.h>
#include <stdlib.h>

/* Makes it and writes its path; the caller removes it. */
static inline void test_folder(const char *name, char *path, size_t size)
{
	const char *in = getenv("PAKU_UNIT_TMP");
	int length = snprintf(path, size, "%s/paku-%s-XXXXXX", in ? in : "/tmp", name);

	assert_in_range(length, 1, size - 1);
	assert_non_null(mkdtemp(path));
}
