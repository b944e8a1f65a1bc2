/* SPDX-License-Identifier: MIT */
#include "http/relay_status.h"

#include "base/exposition.h"

void relay_write_health(struct buf *b, const struct lease_view *v, int64_t uptime_s)
{
	json_open(b, NULL, '{');
	json_str(b, "status", v->leader[0] ? "healthy" : "unhealthy");
	if (!v->leader[0]) {
		json_str(b, "reason", v->problem);
		json_str(b, "detail", v->problem);
	}
	json_str(b, "version", PAKU_VERSION);
	json_str(b, "store", "postgresql");
	json_int(b, "uptime_s", uptime_s);
	json_str(b, "role", "follower");
	json_str(b, "leader", v->leader[0] ? v->leader : NULL);
	json_int(b, "epoch", v->epoch);
	json_close(b, '}');
}

static void write_text(struct buf *b, const struct relay_figures *f)
{
	exposition_one(b, "paku_ota_leader", "gauge",
		       "1 on the instance that leads, 0 on those that follow.", 0);
	exposition_one(b, "paku_ota_epoch", "gauge", "How often the lead has been taken.",
		       f->epoch);
	exposition_one(b, "paku_ota_http_connections", "gauge", "HTTP connections.",
		       f->connections);
	exposition_one(b, "paku_ota_relayed_total", "counter",
		       "Requests that were passed on to the leader and answered.", f->relayed);
	exposition_one(b, "paku_ota_relay_failures_total", "counter",
		       "Requests that were passed on and got no answer.", f->failed);
	exposition_one(b, "paku_ota_relay_images_total", "counter",
		       "Downloads that this instance sent itself.", f->images);
}

void relay_write_metrics(struct buf *b, bool text, const struct relay_figures *f)
{
	if (text) {
		write_text(b, f);
		return;
	}
	json_open(b, NULL, '{');
	json_str(b, "role", "follower");
	json_int(b, "epoch", f->epoch);
	json_int(b, "http_connections", f->connections);
	json_int(b, "relayed_total", f->relayed);
	json_int(b, "relay_failures_total", f->failed);
	json_int(b, "relay_images_total", f->images);
	json_close(b, '}');
}
