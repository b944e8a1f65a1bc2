/* SPDX-License-Identifier: MIT */
/*
 * What follows a failure of a device at a release, by the result code that it gave: whether it is
 * tried again, and when.  Pure.
 *
 * Three kinds.  What says nothing of the image (no WiFi, a download that broke off, a timeout
 * before the whole image was there) passes: it is tried again after longer and longer, a day at the
 * most, and never counts towards max_attempts.  What trying again cannot mend (no space, no
 * partition, an image that is not for it) ends it at once, until a person allows a retry.  All else
 * counts.
 */
#pragma once

#include "core/domain.h"

/* The name of a result code 0..11 ("download failed"); NULL for any other. */
const char *result_code_name(int64_t code);

struct retry_facts {
	int code;     /* RESULT_CODE_NONE, or 1..11; any other counts as none */
	bool whole;   /* the device had the whole image */
	bool is_told; /* over MQTT; others come by themselves, a poll interval later */
	int64_t poll_interval_us;
};
/* One more failure in a row goes into *F.  Returns how long the device is left alone then, in
 * microseconds; 0: it may try when it comes. */
int64_t retry_note(struct failure_count *f, const struct retry_facts *facts);

enum retry_end {
	RETRY_GOES_ON,
	RETRY_TOO_MANY, /* max_attempts failures in a row */
	RETRY_IN_VAIN,  /* the code says that another try would end alike */
};
enum retry_end retry_end(const struct failure_count *f, int max_attempts);
