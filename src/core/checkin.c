/* SPDX-License-Identifier: MIT */
#include "core/checkin.h"

#include "base/clock.h"
#include "core/runs.h"
#include "core/version.h"

#include <string.h>

/* Uptime is told in seconds and travels: boots nearer together than this are one. */
#define BOOT_SLACK_US (60 * US_PER_S)

static bool digests_differ(const struct device_digests *told, const struct device_digests *known)
{
	static const struct device_digests none;

	if (!known)
		known = &none;
	return (told->has_firmware &&
		(!known->has_firmware ||
		 memcmp(told->firmware, known->firmware, DIGEST_SIZE) != 0)) ||
	       (told->has_elf &&
		(!known->has_elf || memcmp(told->elf, known->elf, DIGEST_SIZE) != 0));
}

int64_t checkin_booted_us(const struct checkin *c, int64_t now_us)
{
	if (!c->has_uptime || c->uptime_s < 0 || c->uptime_s >= now_us / US_PER_S)
		return 0;
	return now_us - c->uptime_s * US_PER_S;
}

/* It booted between the installation and now, and that was not known: evidence. */
static bool boot_is_evidence(int64_t booted_us, const struct device_state *s)
{
	const struct attempt *a = s->attempt;

	return a && a->installing_us && booted_us > a->installing_us &&
	       s->booted_us <= a->installing_us;
}

bool checkin_has_news(const struct checkin *c, const struct device_state *s, int64_t now_us)
{
	if ((c->model[0] && strcmp(c->model, s->model) != 0) ||
	    (c->version[0] && strcmp(c->version, s->version) != 0))
		return true;
	if (c->hw[0] && strcmp(c->hw, s->hw) != 0)
		return true;
	if ((c->mac && c->mac != s->mac) || (c->boot_hash && c->boot_hash != s->boot_hash))
		return true;
	int64_t booted = checkin_booted_us(c, now_us);
	if (booted && (booted - s->booted_us > BOOT_SLACK_US || boot_is_evidence(booted, s)))
		return true;
	return digests_differ(&c->digests, s->digests);
}

/* A boot after the moment SINCE_US: by uptime where it is told, else by a new boot_id. */
static bool booted_since(const struct device_state *s, int64_t since_us)
{
	if (s->booted_us)
		return s->booted_us > since_us;
	return s->boot_seen_us > since_us;
}

struct checkin_verdict checkin_judge(const struct device *d, const struct release *target,
				     const struct release *all, const struct checkin_params *p)
{
	const struct device_state *s = &d->state;
	const struct attempt *a = s->attempt;
	struct checkin_verdict v = {EVENT_NONE, false, false, false};

	if (!a || !target || a->settled || !s->version[0])
		return v;
	if (a->state == ATTEMPT_SUCCESS) {
		switch (runs_after_success(d, a, target, all)) {
		case SIGHTING_TARGET: v.settles = true; return v;
		case SIGHTING_LEARNT: v.settles = v.learns = true; return v;
		case SIGHTING_OTHER: v.settles = v.moved_on = true; return v;
		case SIGHTING_OLD: break;
		}
	} else if (runs_release(d, target)) {
		v.event = EVENT_SEEN_TARGET;
		v.settles = true;
		return v;
	} else if (a->state != ATTEMPT_INSTALLING) {
		return v;
	}
	if (!booted_since(s, a->installing_us) && p->now_us - a->installing_us < p->grace_us)
		return v;
	if (version_equal(s->version, a->from_version)) {
		v.event = EVENT_SEEN_OLD;
	} else if (runs_after_success(d, a, target, all) == SIGHTING_TARGET) {
		v.event = EVENT_SEEN_TARGET; /* a name that it shares with another release */
		v.settles = true;
	} else {
		v.event = EVENT_REPORT_FAILED;
	}
	return v;
}
