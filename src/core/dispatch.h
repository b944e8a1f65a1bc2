/* SPDX-License-Identifier: MIT */
/*
 * Whom to tell over MQTT, and when again.  Pure: the clock comes in.
 *
 * An attempt is told when it is opened.  When the device says nothing, it is told again 1, 5 and 30
 * windows later, and a window after that the attempt lapses as unanswered: nobody's failure.  Then
 * it is told nothing until it is next seen.  A device that comes online begins anew, but never
 * inside the window of the command before.
 */
#pragma once

#include "core/decide.h"

enum dispatch {
	DISPATCH_NOTHING, /* nothing to tell, or it is not time yet */
	DISPATCH_OPEN,  /* open an attempt at decision.release (in the place of one that waits), and
			   tell */
	DISPATCH_AGAIN, /* tell the open attempt (again) */
	DISPATCH_LAPSE, /* it did not answer, is gone, or is not to have it any more: the open
			   attempt ends */
};

struct dispatch_params {
	int64_t now_us;
	int64_t window_us; /* OTA_COMMAND_TIMEOUT_S */
};

/*
 * X is decide()'s answer for D now.  Outside the window nobody is told, again or for the first
 * time. What was told before waits on: it lapses when it should, and what may be told again is told
 * when the window opens.
 */
enum dispatch dispatch_judge(const struct device *d, const struct decision *x,
			     const struct dispatch_params *p);
/* Whether the attempt takes a place among those that download: told or begun, and active within
 * the last QUIET_US. */
#define DISPATCH_QUIET_US (INT64_C(600) * 1000000)
bool dispatch_is_busy(const struct attempt *a, int64_t now_us);
