/* SPDX-License-Identifier: MIT */
/*
 * When a person is to be told.  Pure: what is known comes in, whether the condition holds and a
 * sentence about it come out.  Whoever asks raises an alert when a condition begins to hold, and
 * clears it when it does no more.
 */
#pragma once

#include "core/stage.h"

#define ALERT_SENTENCE_SIZE 512

/* More than so many percent of a release's attempts failed, of so many that ended at least ... */
#define ALERT_FAILURE_PERCENT  5
#define ALERT_FAILURE_ATTEMPTS 10
/* ... until no more than so many did: a rate at the edge does not ring all day. */
#define ALERT_FAILURE_OVER_PERCENT 4
/* A device is silent when it was not heard of for so long. */
#define ALERT_SILENT_US (INT64_C(24) * 3600 * 1000000)
/* A deadline is at risk in the last tenth of a rollout's time. */
#define ALERT_DEADLINE_LEFT 10

/* In the order in which people read them. */
enum alert_kind {
	ALERT_ROLLOUT_HALTED,       /* the release was found bad */
	ALERT_FAILURE_RATE,         /* too many attempts at a release failed */
	ALERT_UPDATES_BREAK_OFF,    /* too many devices do not get an image over */
	ALERT_DEVICE_SILENT,        /* a device was not heard of since an update */
	ALERT_ROLLOUT_STUCK,        /* nothing moves forward */
	ALERT_DEADLINE_AT_RISK,     /* it will hardly be done in time */
	ALERT_WAITING_FOR_APPROVAL, /* a stage may end when a person says so */
	ALERT_KINDS,
};
/* "rollout_halted"; stable, for programs and rows.  ALERT_KINDS when there is no such word. */
extern const char *const alert_kind_names[ALERT_KINDS];
enum alert_kind alert_kind_from_name(const char *word);
/* "critical", "warning" or "info". */
const char *alert_severity(enum alert_kind kind);

/* What becomes of an alert. */
enum alert_change { ALERT_RAISE, ALERT_CLEAR, ALERT_ACKNOWLEDGE };

/* What is known of a rollout beside what it says itself. */
struct alert_facts {
	int64_t now_us;
	int64_t listens_us; /* before then nobody could be heard: no reproach counts from there */
	int64_t stuck_us;   /* so long without progress is too long */
	int64_t progressed_us; /* when an attempt of it last moved forward; 0: not known to */
	enum walk_wait wait;   /* what its stage waits for */
	bool replaced;         /* a later rollout of the model offers another release */
};

/* Whether KIND, one of a rollout's, holds; then OUT has a sentence. */
bool alert_of_rollout(enum alert_kind kind, const struct rollout *r, const struct alert_facts *f,
		      char out[ALERT_SENTENCE_SIZE]);

/* Attempts at a release, over all its rollouts. */
struct alert_attempts {
	int64_t finished, failed; /* failed ones are finished, too */
};
/* IS_OPEN: the alert was raised and not cleared. */
bool alert_of_failures(const struct release *r, const struct alert_attempts *a, bool is_open,
		       char out[ALERT_SENTENCE_SIZE]);

/* So often in a row an update breaks off on the way until it is more than a hiccup. */
#define ALERT_BREAKS 2
/* Devices that have tried a release, and those whose last tries broke off for reasons that say
 * nothing of the image (core/retry.h). */
struct alert_breaks {
	int64_t tried, broken;
	int code; /* the commonest result code of theirs; 0: none told */
};
/* The rules of alert_of_failures(), of devices. */
bool alert_of_breaks(const struct release *r, const struct alert_breaks *b, bool is_open,
		     char out[ALERT_SENTENCE_SIZE]);

/* A device that installed VERSION, and was heard of then. */
struct alert_silence {
	const char *device_id, *version;
	int64_t last_seen_us;
	int64_t updated_us; /* its last word about the update */
};
bool alert_of_silence(const struct alert_silence *s, int64_t listens_us, int64_t now_us,
		      char out[ALERT_SENTENCE_SIZE]);
