/* SPDX-License-Identifier: MIT */
/*
 * Copying and changing a device's state: the committer makes a copy, changes it, and hands it to
 * fleet_publish() after the commit.  A state owns all that it points to; interned strings are
 * counted. Setters return false when out of memory and leave the state as it was.  Any thread, each
 * on its own copy.
 */
#pragma once

#include "base/err.h"
#include "core/domain.h"

/* An empty state: all strings "". */
void state_init(struct device_state *s);
OTA_MUST_USE bool state_copy(struct device_state *dst, const struct device_state *src);
void state_fini(struct device_state *s);

/* Replaces an interned string of a state or attempt. */
OTA_MUST_USE bool state_set_string(const char **field, const char *value);
/* What it runs.  Digests were told of the version before: another one drops them. */
OTA_MUST_USE bool state_set_version(struct device_state *s, const char *version);
OTA_MUST_USE bool state_set_digests(struct device_state *s, const struct device_digests *told);
/* Takes a copy of *A, whose strings need not be interned; NULL removes the attempt. */
OTA_MUST_USE bool state_set_attempt(struct device_state *s, const struct attempt *a);
/* Takes a copy of *L, whose strings need not be interned. */
OTA_MUST_USE bool state_set_link(struct device_state *s, const struct device_link *l);
/* Takes a copy of *F; without failures it removes the entry. */
OTA_MUST_USE bool state_set_failures(struct device_state *s, const struct failure_count *f);
/* Without failures, where there are none. */
struct failure_count state_failures(const struct device_state *s, int64_t release_id);
/* NAMES need not be interned; sorted, doubles taken out. */
OTA_MUST_USE bool state_set_groups(struct device_state *s, const char *const *names, size_t count);

/* A sorted list of counted strings without doubles; NULL when out of memory. */
struct string_list *string_list_new(const char *const *names, size_t count);
void string_list_free(struct string_list **list);
