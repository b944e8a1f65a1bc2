/* SPDX-License-Identifier: MIT */
/*
 * The committer's rounds over the fleet, in steps: offers that lapse, the places that are taken,
 * and the flush of when devices were last seen.  The committer's thread only.
 */
#pragma once

#include "commit/batch.h"
#include "commit/command_list.h"

/* At the start, before the thread: counts the places that are taken. */
void round_begin(struct committer *c);
/* Looks at the next part of the fleet; adds commands for offers that lapse to OUT. */
void round_look(struct committer *c, struct command_list *out);
/*
 * Each second: adds the flush of the next part to OUT.  Once in last_seen_flush_s, from the first
 * shard to the last, as many devices a tick as keep the others waiting a moment only.  The rows of
 * a shard stand anywhere in the table and its indexes: a flush costs pages, and the more rows it
 * takes at once the more of them share one.  Measured with 100,000 devices all heard of each
 * minute: two shards each second wrote 1,434 MB a minute and took 4.8 s of a processor; this writes
 * 515 MB and takes 2.2 s.
 */
void round_flush(struct committer *c, struct command_list *out);
