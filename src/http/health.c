/* SPDX-License-Identifier: MIT */
/* How the service is, for people and load balancers. */
#include "http/request.h"

#include "base/clock.h"

#include <stdio.h>

/* "bucket": how the one that images are kept in is.  Without it what is in the folder goes out all
 * the same. */
static void add_bucket(struct mirror *m, struct buf *b)
{
	struct mirror_state state;

	mirror_look(m, &state);
	json_open(b, "bucket", '{');
	json_str(b, "status", state.failing ? "failing" : state.asked ? "ok" : "not asked yet");
	json_str(b, "reason", state.failing ? state.reason : NULL);
	json_int(b, "cached_bytes", (int64_t)state.bytes);
	json_close(b, '}');
}

enum next health_show(struct request *r)
{
	struct http_server *s = r->server;
	struct lease_view lead = {0};
	char reason[512];
	bool well = committer_healthy(s->committer, reason, sizeof reason);

	if (s->lease)
		lease_look(s->lease, &lead);
	if (!lease_holds(s->lease)) {
		snprintf(reason, sizeof reason, "this instance does not lead at the moment%s%s",
			 lead.problem[0] ? ": " : "", lead.problem);
		well = false;
	}
	struct buf *b = respond_begin(r, well ? 200 : 503);

	json_str(b, "status", well ? "healthy" : "unhealthy");
	if (!well) {
		json_str(b, "reason", reason);
		json_str(b, "detail", reason);
		r->retry_after_s = 5;
	}
	json_str(b, "version", PAKU_VERSION);
	json_str(b, "store", s->store->ops->name(s->store));
	json_int(b, "uptime_s", (clock_mono_ms() - s->started_mono_ms) / 1000);
	if (s->lease) {
		json_str(b, "role", lease_holds(s->lease) ? "leader" : "follower");
		json_str(b, "leader", lead.leader[0] ? lead.leader : NULL);
		json_int(b, "epoch", lead.epoch);
	}
	add_stop(s->fleet, b);
	if (s->mirror)
		add_bucket(s->mirror, b);
	if (s->mqtt_status)
		s->mqtt_status(s->mqtt_ctx, b);
	else
		json_str(b, "mqtt", "off");
	return respond_end(r);
}
