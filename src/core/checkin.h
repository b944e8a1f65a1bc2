/* SPDX-License-Identifier: MIT */
/*
 * What a check-in tells about a device, beside what is known.  Pure.
 *
 * A check-in that says nothing new is soft state and costs no write: the door answers it by itself.
 */
#pragma once

#include "core/domain.h"

struct checkin {
	const char *device_id, *model, *version, *hw; /* "" not told; likewise 0 and false below */
	uint64_t mac;
	uint64_t boot_hash;
	bool has_uptime;
	int64_t uptime_s;
	struct device_digests digests;
};

/* A status message over MQTT may say that the device is there, and no more. */
static inline bool checkin_says_what_runs(const struct checkin *c)
{
	return c->version[0] || c->digests.has_firmware || c->digests.has_elf;
}

/* When it booted by its uptime; 0: not told, or an uptime that nothing can have. */
int64_t checkin_booted_us(const struct checkin *c, int64_t now_us);

/* Something that is worth a row: model, version, mac, hw, boot, digests. */
bool checkin_has_news(const struct checkin *c, const struct device_state *s, int64_t now_us);

struct checkin_params {
	int64_t now_us;
	int64_t grace_us; /* OTA_INSTALL_GRACE_S */
};

/* What it means for the device's attempt (d->state already tells what the check-in said). */
struct checkin_verdict {
	enum attempt_event event; /* EVENT_NONE, EVENT_SEEN_TARGET, EVENT_SEEN_OLD, or
				   * EVENT_REPORT_FAILED: it runs something else altogether */
	bool settles;             /* the success is seen to be real: it leaves memory */
	bool learns;              /* the release has another name: d->state.version */
	bool moved_on;            /* it runs yet another release */
};
struct checkin_verdict checkin_judge(const struct device *d, const struct release *target,
				     const struct release *all, const struct checkin_params *p);
