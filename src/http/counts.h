/* SPDX-License-Identifier: MIT */
/*
 * How often each route was asked, what it answered and how long that took.  Bounded: routes are
 * those of the table, codes those that are answered.  Any thread may count and any may write.
 */
#pragma once

#include "base/exposition.h"

struct route;
struct counts;

struct counts *counts_new(void); /* NULL: out of memory */
void counts_free(struct counts **c);
/* ROUTE NULL: there is none at that path.  TOOK_MS as coarse as the clock that ticks every 4 ms. */
void counts_add(struct counts *c, const struct route *route, int status, int64_t took_ms);
void counts_write(const struct counts *c, struct buf *b);
