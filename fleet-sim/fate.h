/* SPDX-License-Identifier: MIT */
/*
 * What happens to a device: drawn from the seed, its number and the number of the try alone.
 *
 * Pure.  The clock, the order of messages and what other devices do have no part in it: the same
 * seed gives every device the same fate, however fast the machine is.
 */
#pragma once

#include "fleet-sim/scenario.h"

/* What a draw is for: each is independent of all others. */
enum draw {
	DRAW_FATE,
	DRAW_HABIT, /* + enum habit_kind */
	DRAW_START = DRAW_HABIT + HABITS,
	DRAW_BOOT,
	DRAW_MAC,
	DRAW_PHASE,
	DRAW_POLL,
	DRAW_INSTALL,
	DRAW_REBOOT,
	DRAW_FAIL_AT,
	DRAW_LOSS_WHEN,
	DRAW_LOSS_AT,
	DRAW_LOSS_VERSION,
	DRAW_AWAY,
	DRAW_BREAKS,
	DRAW_BREAK_AT,
	DRAW_LATE,
	DRAW_WORD,
	DRAW_AGAIN,
	DRAW_ECHO,
	DRAW_DUTY,
};

uint64_t draw(uint64_t seed, uint32_t device, enum draw what, uint64_t k);
/* 0 <= x < 1 */
double draw_unit(uint64_t seed, uint32_t device, enum draw what, uint64_t k);
int64_t draw_span(uint64_t seed, uint32_t device, enum draw what, uint64_t k, struct span s);

/* Which row of the scenario a device has of each kind; -1: none. */
struct traits {
	int8_t row[HABITS];
};
void traits_draw(struct traits *t, const struct scenario *s, uint64_t seed, uint32_t device);
static inline bool traits_have(const struct traits *t, enum habit_kind k)
{
	return t->row[k] >= 0;
}

enum fate { FATE_SUCCESS, FATE_FAIL, FATE_BRICK, FATE_ROLL_BACK, FATE_LIE };
enum fail_phase { FAIL_AT_ONCE, FAIL_DOWNLOAD, FAIL_VERIFY, FAIL_INSTALL };
enum loss { LOSS_NONE, LOSS_DOWNLOAD, LOSS_INSTALL };

/* One try at one release. */
struct try_plan {
	enum fate fate;
	int code; /* of FATE_FAIL */
	enum fail_phase fail_phase;
	double fail_at; /* of the download */
	enum loss loss;
	double loss_at;   /* of the download, or of the installing */
	bool loss_is_new; /* it comes back with the new version */
	int64_t away_ms;  /* without power */
	int64_t install_ms, reboot_ms;
	int breaks; /* of the link */
	double break_at[2];
	bool says_rolled_back; /* beside its version */
};

/* NUMBER: 0 for the device's first try. */
void try_draw(struct try_plan *p, const struct scenario *s, const struct traits *t, uint64_t seed,
	      uint32_t device, uint32_t number);
