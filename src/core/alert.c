/* SPDX-License-Identifier: MIT */
#include "core/alert.h"

#include "base/clock.h"
#include "core/retry.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const char *const alert_kind_names[ALERT_KINDS] = {
	[ALERT_ROLLOUT_HALTED] = "rollout_halted",
	[ALERT_FAILURE_RATE] = "failure_rate",
	[ALERT_UPDATES_BREAK_OFF] = "updates_break_off",
	[ALERT_DEVICE_SILENT] = "device_silent",
	[ALERT_ROLLOUT_STUCK] = "rollout_stuck",
	[ALERT_DEADLINE_AT_RISK] = "deadline_at_risk",
	[ALERT_WAITING_FOR_APPROVAL] = "waiting_for_approval",
};

enum alert_kind alert_kind_from_name(const char *word)
{
	int k = 0;

	while (k < ALERT_KINDS && strcmp(alert_kind_names[k], word) != 0)
		k++;
	return (enum alert_kind)k;
}

const char *alert_severity(enum alert_kind kind)
{
	switch (kind) {
	case ALERT_ROLLOUT_HALTED:
	case ALERT_FAILURE_RATE: return "critical";
	case ALERT_WAITING_FOR_APPROVAL: return "info";
	default: return "warning";
	}
}

static int64_t later(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

/* So many bytes of TEXT, at most MAX, as are whole characters of UTF-8. */
static int cut(const char *text, size_t max)
{
	size_t n = strnlen(text, max + 1);

	if (n > max)
		for (n = max; n > 0 && ((unsigned char)text[n] & 0xC0) == 0x80;)
			n--;
	return (int)n;
}

/* "Rollout walk (2.0.0 for esp32)" */
static void name_rollout(const struct rollout *r, char *out, size_t size)
{
	snprintf(out, size, "Rollout %.*s (%.60s for %.60s)", cut(r->name, 100), r->name,
		 r->release->version, r->release->model);
}

/* --- rollouts --- */

/* Only devices can be late: a clock or a person that a stage waits for is nobody's standstill. */
static bool is_stuck(const struct rollout *r, const struct alert_facts *f, const char *who,
		     char *out)
{
	const struct walk *w = &r->walk;
	char since[TIME_TEXT_SIZE];
	int64_t from_us = later(f->listens_us, f->progressed_us);

	if (w->state != ROLLOUT_RUNNING || (f->wait != WAIT_PROOF && f->wait != WAIT_EVIDENCE))
		return false;
	from_us = later(from_us, later(w->state_since_us, stage_until_us(r)));
	if (f->now_us - from_us < f->stuck_us)
		return false;
	time_format(from_us, since);
	snprintf(out, ALERT_SENTENCE_SIZE,
		 "%s has made no progress since %.19sZ: stage %d of %d (%d %%) waits for %s.", who,
		 since, w->stage + 1, r->stage_count, r->stages[w->stage].percent,
		 f->wait == WAIT_PROOF ? "devices that run it well"
				       : "the evidence against it to grow less");
	return true;
}

/* The end of its last stage at the earliest, when no device and no person makes it wait. */
static int64_t earliest_end_us(const struct rollout *r, int64_t now_us)
{
	const struct walk *w = &r->walk;
	int64_t end_us = later(now_us, r->not_before_us);

	if (w->stage_since_us) {
		end_us = later(now_us, stage_until_us(r));
		if (w->state == ROLLOUT_PAUSED) /* the pause counts for nothing */
			end_us = later(now_us, stage_until_us(r) + now_us - w->state_since_us);
	} else {
		end_us += r->stages[w->stage].min_duration_s * US_PER_S;
	}
	for (int i = w->stage + 1; i < r->stage_count; i++)
		end_us += r->stages[i].min_duration_s * US_PER_S;
	return end_us;
}

static bool deadline_at_risk(const struct rollout *r, const struct alert_facts *f, const char *who,
			     char *out)
{
	enum rollout_state s = r->walk.state;
	int64_t from_us = later(r->created_us, r->not_before_us), end_us;
	char by[TIME_TEXT_SIZE], until[TIME_TEXT_SIZE];

	if (!r->deadline_us || f->now_us >= r->deadline_us ||
	    (s != ROLLOUT_SCHEDULED && s != ROLLOUT_RUNNING && s != ROLLOUT_PAUSED))
		return false;
	end_us = earliest_end_us(r, f->now_us);
	time_format(r->deadline_us, by);
	time_format(end_us, until);
	if (end_us > r->deadline_us)
		snprintf(out, ALERT_SENTENCE_SIZE,
			 "%s cannot be done by its deadline, %.19sZ: its stages alone last until "
			 "%.19sZ.",
			 who, by, until);
	else if ((r->deadline_us - f->now_us) * ALERT_DEADLINE_LEFT <= r->deadline_us - from_us)
		snprintf(out, ALERT_SENTENCE_SIZE,
			 "%s is in stage %d of %d, and nine tenths of its time have passed; its "
			 "deadline is %.19sZ.",
			 who, r->walk.stage + 1, r->stage_count, by);
	else
		return false;
	return true;
}

bool alert_of_rollout(enum alert_kind kind, const struct rollout *r, const struct alert_facts *f,
		      char out[ALERT_SENTENCE_SIZE])
{
	const struct walk *w = &r->walk;
	char who[256];

	name_rollout(r, who, sizeof who);
	switch (kind) {
	case ALERT_ROLLOUT_STUCK: return is_stuck(r, f, who, out);
	case ALERT_DEADLINE_AT_RISK: return deadline_at_risk(r, f, who, out);
	case ALERT_ROLLOUT_HALTED:
		if (w->state != ROLLOUT_HALTED || r->release->deleted || f->replaced)
			return false;
		snprintf(out, ALERT_SENTENCE_SIZE, "%s was halted in stage %d of %d%s%.*s.", who,
			 w->stage + 1, r->stage_count, w->reason[0] ? ": " : "",
			 cut(w->reason, 150), w->reason);
		return true;
	case ALERT_WAITING_FOR_APPROVAL:
		if (w->state != ROLLOUT_RUNNING || w->approved || f->wait != WAIT_APPROVAL)
			return false;
		snprintf(out, ALERT_SENTENCE_SIZE,
			 "%s waits for somebody's approval: stage %d of %d (%d %%) has done all "
			 "else.",
			 who, w->stage + 1, r->stage_count, r->stages[w->stage].percent);
		return true;
	default: return false;
	}
}

/* --- releases and devices --- */

bool alert_of_failures(const struct release *r, const struct alert_attempts *a, bool is_open,
		       char out[ALERT_SENTENCE_SIZE])
{
	int most = is_open ? ALERT_FAILURE_OVER_PERCENT : ALERT_FAILURE_PERCENT;

	if (a->finished < ALERT_FAILURE_ATTEMPTS || a->failed * 100 <= a->finished * most)
		return false;
	snprintf(out, ALERT_SENTENCE_SIZE,
		 "%" PRId64 " of %" PRId64
		 " finished attempts at %.60s for %.60s failed: %.1f %%, more than %d %%.",
		 a->failed, a->finished, r->version, r->model,
		 100.0 * (double)a->failed / (double)a->finished, ALERT_FAILURE_PERCENT);
	return true;
}

bool alert_of_breaks(const struct release *r, const struct alert_breaks *b, bool is_open,
		     char out[ALERT_SENTENCE_SIZE])
{
	int most = is_open ? ALERT_FAILURE_OVER_PERCENT : ALERT_FAILURE_PERCENT;
	const char *name = b->code ? result_code_name(b->code) : NULL;

	if (b->tried < ALERT_FAILURE_ATTEMPTS || b->broken * 100 <= b->tried * most)
		return false;
	snprintf(out, ALERT_SENTENCE_SIZE,
		 "%" PRId64 " of %" PRId64
		 " devices that tried %.60s for %.60s break off on the way again and again%s%s: "
		 "%.1f %%, more than %d %%. That says nothing of the image.",
		 b->broken, b->tried, r->version, r->model, name ? ", mostly with " : "",
		 name ? name : "", 100.0 * (double)b->broken / (double)b->tried,
		 ALERT_FAILURE_PERCENT);
	return true;
}

bool alert_of_silence(const struct alert_silence *s, int64_t listens_us, int64_t now_us,
		      char out[ALERT_SENTENCE_SIZE])
{
	char seen[TIME_TEXT_SIZE];
	int64_t after_s = (s->last_seen_us - s->updated_us) / US_PER_S;

	if (now_us - later(s->last_seen_us, listens_us) < ALERT_SILENT_US ||
	    s->last_seen_us >= s->updated_us + ALERT_SILENT_US)
		return false;
	time_format(s->last_seen_us, seen);
	snprintf(out, ALERT_SENTENCE_SIZE,
		 "Device %.128s was last heard of at %.19sZ, %" PRId64
		 " s after its last word about its update to %.60s.",
		 s->device_id, seen, after_s > 0 ? after_s : 0, s->version);
	return true;
}
