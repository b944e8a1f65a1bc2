/* SPDX-License-Identifier: MIT */
/*
 * Which devices a rollout means.  Pure.
 *
 * Membership is by hash alone: bucket = mix(device hash XOR release salt), inside when it is below
 * percent/100 of the range.  So 10 % is inside 25 % of the same release, and each release has an
 * order of its own.  Where the target is not empty but nobody falls inside, the device with the
 * lowest bucket stands in: inside <=> bucket < threshold or bucket == lowest.
 */
#pragma once

#include "core/domain.h"

/* Salt of a release: from its model and version, so that it survives a restart and a move. */
uint64_t target_salt(const char *model, const char *version);
uint64_t target_bucket(const struct device *d, const struct release *r);

/* Model, and group or name where the target has one; not the percentage. */
bool target_selects(const struct rollout *r, const struct device *d);
/* Inside the percentage too. */
bool target_includes(const struct rollout *r, const struct device *d);

/* "aa:bb:cc:dd:ee:ff", "AA-BB-...", "aabbccddeeff" to 48 bits; false for anything else and for
 * zero. */
bool mac_parse(const char *text, uint64_t *mac);
#define MAC_TEXT_SIZE 18
void mac_format(uint64_t mac, char out[MAC_TEXT_SIZE]);

/* "all", "group", ...: as rows and requests have it. */
const char *target_type_word(enum target_type type);
