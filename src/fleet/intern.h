/* SPDX-License-Identifier: MIT */
/*
 * One copy of each model, version and group name, counted.  A million devices share a handful of
 * them. Any thread; a short lock.  The strings are compared with strcmp by `core`, which knows
 * nothing of this.
 */
#pragma once

#include <stddef.h>

/* A reference to the one copy of S; NULL when out of memory.  The empty string is never counted. */
const char *intern_get(const char *s);
/* Another reference to an interned string. */
const char *intern_ref(const char *interned);
/* Drops a reference; NULL is fine. */
void intern_put(const char *interned);
/* How many strings there are (for tests: nothing may leak). */
size_t intern_count(void);
