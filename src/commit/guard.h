/* SPDX-License-Identifier: MIT */
/* How a rollout is watched, as JSON: members "guard" and "bounded" of its row, and of what people
 * are shown. */
#pragma once

#include "base/buf.h"
#include "core/domain.h"

#include <jansson.h>

void guard_write(struct buf *b, const struct guard *g);
/* Of METADATA; what it does not say is as by default. */
struct guard guard_read(const json_t *metadata);
