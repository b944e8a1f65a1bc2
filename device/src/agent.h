/* SPDX-License-Identifier: MIT */
/*
 * What the agent's source files share.  Phases are the states of one update; each has one function
 * that does a bounded piece of work and returns the phase that follows (often its own).
 */
#pragma once

#include "paku_device.h"

enum paku_phase {
	PHASE_CHECK,   /* ask the service (after a wait) */
	PHASE_RECHECK, /* is what the record says of the spare slot really in flash? */
	PHASE_OPEN,    /* GET the image from the first byte that is missing */
	PHASE_FETCH,   /* line -> block buffer -> flash */
	PHASE_VERIFY,  /* SHA-256 of what the flash reads back */
	PHASE_ARM,     /* write the boot record: from here on the new image starts */
	PHASE_RESTART, /* nothing left to do but restart */
	PHASE_TRIAL,   /* we are the new image: self-test, then confirm or go back */
	PHASE_REARM,   /* a trial is on record, but the old image runs */
	PHASE_RETURN,  /* the bootloader started an image that was given up */
	PHASE_COUNT
};

/* record.c: the boot record.  All of them 0 when done. */
uint32_t paku_crc32(uint32_t crc, const void *data, size_t len);
/* Fills *rec from the newer valid copy; without one: an empty record.  Returns the copy. */
uint8_t paku_record_load(const struct paku_io *io, struct paku_record *rec);
/* Writes the copy that is not *copy, reads it back, and only then makes it the current one. */
int paku_record_save(const struct paku_io *io, struct paku_record *rec, uint8_t *copy);
/* The trial is over and lost; the caller saves. */
void paku_record_give_up(struct paku_record *rec, enum paku_why why);

/* agent.c */
void paku_event(const struct paku *p, enum paku_event event, uint32_t value);
int paku_save(struct paku *p);
void paku_due(struct paku *p, enum paku_status status);
void paku_pause(struct paku *p, uint32_t ms);
/* Waits for the next check as if the service had named no time. */
void paku_pause_poll(struct paku *p);
/* Waits longer with each try in a row, with jitter, and at least `least_s`. */
void paku_backoff(struct paku *p, uint32_t least_s);
/* Ends the update: reports `failed`, and returns PHASE_CHECK after the usual wait. */
uint8_t paku_fail(struct paku *p, enum paku_why why);
struct paku_slot *paku_spare(struct paku *p);

/* download.c */
uint8_t paku_begin(struct paku *p, const struct paku_offer *offer);
uint8_t phase_recheck(struct paku *p);
uint8_t phase_open(struct paku *p);
uint8_t phase_fetch(struct paku *p);
uint8_t phase_verify(struct paku *p);

/* boot.c */
uint8_t phase_arm(struct paku *p);
uint8_t phase_restart(struct paku *p);
uint8_t phase_trial(struct paku *p);
uint8_t phase_rearm(struct paku *p);
uint8_t phase_return(struct paku *p);
