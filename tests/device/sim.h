/* SPDX-License-Identifier: MIT */
/*
 * A device and its service in memory: NOR flash with two slots, a boot record in two erase units,
 * a bootloader, a network that breaks where it is told to, and a power supply that fails at the
 * Nth write or erase, before, in the middle of or after it.  Time passes only when the agent waits.
 *
 * Every boot is checked: the slot that starts holds one of the images that the sim knows, whole.
 */
#pragma once

#include "base/hash.h"
#include "paku_device.h"

#define SIM_BLOCK   1024
#define SIM_BLOCKS  48
#define SIM_SLOT    (SIM_BLOCK * SIM_BLOCKS)
#define SIM_REPORTS 256
#define SIM_NEVER   UINT32_MAX

enum sim_vendor { VENDOR_VALID, VENDOR_NEW, VENDOR_PENDING };

enum sim_torn { SIM_BEFORE, SIM_HALF, SIM_AFTER, SIM_TORN_COUNT };

struct sim_image {
	uint8_t data[SIM_SLOT + 100];
	uint32_t size;
	char version[32], etag[40];
	uint8_t sha256[PAKU_SHA256_SIZE];
};

struct sim_report {
	enum paku_status status;
	enum paku_why why;
	uint8_t percent;
	char version[32], attempt[PAKU_ATTEMPT_SIZE];
};

struct sim {
	struct paku_io io;
	struct paku_config cfg;
	struct paku agent;
	uint8_t block[SIM_BLOCK];

	/* The hardware. */
	uint8_t flash[2][SIM_SLOT], record[2][512];
	uint32_t now_ms, random;
	uint32_t ops, cut_at; /* the power fails at this write or erase, counted from 1 */
	enum sim_torn torn;
	uint32_t cut_every; /* if not 0: then again and again, at random, about this often */
	bool dead;
	uint32_t power_cuts, boots, restarts;
	bool bad_block;        /* erases do nothing from now on */
	uint32_t record_fails; /* this many record writes say no */

	/* A bootloader with a record of its own, as ESP-IDF has. */
	bool vendor;
	int vendor_slot, vendor_other;
	enum sim_vendor vendor_state;

	/* The service. */
	struct sim_image *offered; /* NULL: no update */
	struct sim_image *served;  /* what the URL gives, usually the same */
	struct sim_image *known[4];
	uint32_t net_cut_step; /* if not 0: and again after so many more */
	uint32_t net_cut_at; /* the line breaks once when so many body bytes were sent, and then */
	bool down;           /* ... nothing answers while this is set */
	bool reports_down;
	bool no_range; /* Range is ignored */
	bool no_etag, wrong_from;
	bool size_untold; /* an offer does not say how large its image is */
	bool new_etag; /* another one with each answer, as from a farm that makes them of inodes */
	int http_status; /* if not 0, instead of the image, for http_times times */
	uint32_t http_times, retry_after_s;
	struct sim_image *swap_to; /* what the URL gives after the line broke */
	uint32_t sent, opens, ranged, checks;
	uint32_t body_at, body_end;
	uint32_t attempt, max_attempts; /* if not 0: no offer after so many failures */
	struct sim_report reports[SIM_REPORTS];
	uint32_t report_count;
	bool lied; /* a progress report said more than was in flash */

	/* The new image's behaviour. */
	enum paku_test selftest;
	struct sim_image *hangs; /* this image restarts before its agent runs */
	struct sha256 *sha;
	uint32_t events[32];
};

/* An image of that size with that content number. */
void sim_image(struct sim_image *img, const char *version, uint32_t size, uint32_t seed);
/* A device that runs `old` from slot 0, and a service that offers `new` (NULL: nothing). */
void sim_init(struct sim *s, struct sim_image *old, struct sim_image *new);
void sim_fini(struct sim *s);
/* Power on, boot, run until the agent is idle, through restarts and power cuts; at most so many
 * boots.  True if it came to rest. */
bool sim_run(struct sim *s, uint32_t max_boots);
/* Which image the running slot holds; fails the test if none. */
struct sim_image *sim_running(struct sim *s);
/* How many reports of that kind arrived. */
uint32_t sim_reported(const struct sim *s, enum paku_status status);
