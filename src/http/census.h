/* SPDX-License-Identifier: MIT */
/*
 * The fleet counted: devices by model and version, who is there, attempts under way.  A walk over
 * all devices (0.1 s for a million), so for a job's thread and not for each question.
 */
#pragma once

#include "base/buf.h"
#include "fleet/fleet.h"

struct census;

struct census *census_new(void); /* empty; NULL: out of memory */
void census_free(struct census **c);
/* Counts anew; one thread at a time.  OTA_ENOMEM leaves the last count. */
enum ota_code census_take(struct census *c, struct fleet *f, int64_t now_us, struct ota_err *err);
/* What was last counted, in the Prometheus format.  Any thread. */
void census_write(struct census *c, struct buf *b);
