/* SPDX-License-Identifier: MIT */
/*
 * What a fleet is like: which share of it has which habit, and how long things take.
 *
 * From a JSON file, from --habits, or both.  What makes no sense is OTA_EINVAL with a sentence that
 * names the place.  Nothing is drawn here; fate.h does.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum habit_kind {
	/* How a try ends; a device has one of these at the most. */
	HABIT_FAIL,      /* with result code `code` */
	HABIT_BRICK,     /* is never heard of again after `installing` */
	HABIT_ROLL_BACK, /* reports success, and comes back with the old version */
	HABIT_LIE,       /* succeeds, and from then on calls itself something else */
	/* These come on top of each other. */
	HABIT_POWER_LOSS,   /* once in its first try, at a random moment */
	HABIT_SLOW,         /* a link of `bytes_per_s` */
	HABIT_BROKEN_LINK,  /* downloads break off and go on by Range */
	HABIT_DUTY,         /* there for `on_s`, away for `off_s` */
	HABIT_TWICE,        /* every report twice */
	HABIT_LATE,         /* reports come up to `by_s` late, in their order */
	HABIT_OUT_OF_ORDER, /* ... and not in their order */
	HABIT_OLD_TOPICS,   /* speaks on {site}/devices/... */
	HABITS,
};
#define HABIT_LAST_FATE HABIT_LIE

const char *habit_name(enum habit_kind k); /* "out_of_order" */

#define HW_SIZE 33

struct habit {
	enum habit_kind kind;
	double percent; /* of the fleet, or of those of `hw` */
	int code;       /* HABIT_FAIL: 1..11, not 10 */
	int times;      /* fates: only the first so many tries; 0: always */
	int64_t bytes_per_s;
	int64_t on_ms, off_ms;
	int64_t by_ms;
	char hw[HW_SIZE]; /* of devices of this hardware revision alone; "": of all */
};

#define HABITS_MAX 32
#define HWS_MAX    32

/* HW: NULL for a device that does not say. */
bool habit_concerns(const struct habit *h, const char *hw);

struct span {
	int64_t least_ms, most_ms;
};

struct scenario {
	struct habit habits[HABITS_MAX];
	size_t count;
	struct span install; /* from Installing to the restart */
	struct span reboot;  /* from the restart to the first word */
	char hws[HWS_MAX][HW_SIZE];
	size_t hw_count; /* 0: no device says what hardware it is */
};

/* Nothing special: every device does as it should. */
void scenario_init(struct scenario *s);
/* {"install_s": [2, 6], "reboot_s": 1, "habits": [{"habit": "fail", "percent": 3, "code": 4}]} */
enum ota_code scenario_read(struct scenario *s, const char *path, struct ota_err *err);
/* "fail:4=3,brick@C=50,duty:20/40=30": NAME[:VALUE][@HW]=PERCENT, with a comma between. */
enum ota_code scenario_add_list(struct scenario *s, const char *list, struct ota_err *err);
/* "A,B,C": the hardware revisions of the fleet, in place of those that there are. */
enum ota_code scenario_set_hws(struct scenario *s, const char *list, struct ota_err *err);
/* When all is read: each habit has devices that may have it. */
enum ota_code scenario_check(const struct scenario *s, struct ota_err *err);
/* The revision of a device: equally many have each. NULL: it does not say. */
const char *scenario_hw(const struct scenario *s, uint32_t device);
