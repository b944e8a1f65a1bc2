/* SPDX-License-Identifier: MIT */
/*
 * What another gate would have made of what happened to a release.  Pure.
 *
 * The events of the release's gate are fed in their order.  One gate is as it was; beside it the
 * other one is asked: where it has no place for a device, that device waits, and its outcome comes
 * as much later; where it has halted, the device is spared.  Where the gate as it was had no place
 * either (devices that are exposed all the same ask nobody), the other one is not asked.  So by the
 * same parameters it does what was done.
 *
 * What it cannot know: whether a device that waited would have fared otherwise; what devices that
 * the gate as it was never let through would have done; who would have come sooner.  A prove_s or
 * silence_s above the one that was makes outcomes come later by as much, one below changes nothing.
 *
 * Memory: the exposures without an outcome, and those that wait or are spared until theirs is
 * known: REPLAY_MOST at the most, 64 bytes each.
 */
#pragma once

#include "core/gate.h"

#define REPLAY_MOST (1u << 20)

struct replay_event {
	struct gate_event gate; /* params: of GATE_EVENT_OVERRIDDEN, as it was */
	int64_t at_us;
	bool bounded; /* its rollout is */
};

/* Of a gate, and what passed it. */
struct replay_side {
	int64_t exposed, proven, failed; /* what was given back is not among the exposed */
	bool halted;                     /* ... first ... */
	int64_t halted_us;               /* ... then ... */
	int64_t exposed_then;            /* ... when so many were exposed */
};

struct replay_variant {
	int variant; /* of the other gate's variants */
	int64_t halted_us;
};

struct replay_result {
	struct replay_side was, is;
	int64_t spared, spared_failed;    /* it would not have met them; of those, they failed */
	int64_t held_up;                  /* they would have got it later ... */
	int64_t wait_us, longest_wait_us; /* ... by so much in all, and at the most */
	int64_t waiting;                  /* they would wait still at the end */
	int held_count;                   /* variants that it holds back */
	struct replay_variant held[GATE_VARIANTS_MAX];
};

struct replay_entry;

struct replay {
	struct gate was, is;
	bool other;  /* IS has parameters of its own, which overrides leave alone */
	bool bounds; /* it bounds rollouts that were not bounded, too */
	int64_t later_us[GATE_EVENT_OVERRIDDEN + 1]; /* so much later come outcomes of a kind */
	struct replay_result result;
	/* its own */
	struct replay_entry *entries;
	uint32_t *index, *queues; /* by number; by variant, the first and last that wait */
	uint32_t *heap;           /* outcomes to come, by time */
	uint32_t cap, used, free, count, heap_count;
	int64_t own_number;
};

/* WAS: as it was watched.  IS: how it is to be; NULL: the same.  BOUNDS: rollouts that nothing
 * bounded are bounded.  False: out of memory. */
OTA_MUST_USE bool replay_init(struct replay *r, const struct gate_params *was,
			      const struct gate_params *is, bool bounds);
void replay_fini(struct replay *r);
/* OTA_ENOMEM; OTA_EUNPROCESSABLE: numbers that do not rise, or REPLAY_MOST is reached. */
enum ota_code replay_feed(struct replay *r, const struct replay_event *e,
			  struct ota_err *err) OTA_MUST_USE;
/* Nothing more comes: what is still to come of those that waited comes now. */
enum ota_code replay_end(struct replay *r, struct ota_err *err) OTA_MUST_USE;
