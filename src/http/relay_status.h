/* SPDX-License-Identifier: MIT */
/* /health and /metrics of an instance that follows, as text.  Pure. */
#pragma once

#include "base/buf.h"
#include "store/lease.h"

struct relay_figures {
	int64_t epoch, connections;
	int64_t relayed, failed; /* requests that were passed on */
	int64_t images;          /* downloads that were sent from here */
};

void relay_write_health(struct buf *b, const struct lease_view *v, int64_t uptime_s);
/* TEXT: as Prometheus reads it; else JSON. */
void relay_write_metrics(struct buf *b, bool text, const struct relay_figures *f);
