/* SPDX-License-Identifier: MIT */
/*
 * The device agent: finds out about a new firmware image, brings it into the spare slot, and
 * switches to it so that no power cut, broken line or bad image leaves the device without one
 * that works.
 *
 * Portable C99 for one task of a microcontroller: no heap, no threads, no global state.  All I/O
 * goes through functions of the caller (struct paku_io), all memory is the caller's: one struct
 * paku and one block buffer.  Call paku_step() again and again; each call does one bounded piece
 * of work (one request, one block) and says what is next.
 *
 * Happy path: check -> recheck -> open -> fetch -> verify -> arm -> (restart) -> trial -> check.
 * What fails is tried again with backoff, or reported as failed; a new image that is not
 * confirmed is left for the old one.  docs/device-agent.md has the whole story.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAKU_SHA256_SIZE  32
#define PAKU_VERSION_SIZE 131 /* 128 characters, NUL, and what makes struct paku_slot even */
#define PAKU_ATTEMPT_SIZE 24  /* the service's are 13 characters; longer ones are not echoed */
#define PAKU_ETAG_SIZE    72  /* room for a quoted SHA-256 in hex */
#define PAKU_URL_SIZE     256 /* the service keeps download URLs under 200 characters */
#define PAKU_NO_SLOT      0xFF
#define PAKU_NO_PERCENT   0xFF
/* Of an offer that does not say how large its image is: the answer to the download does. */
#define PAKU_SIZE_UNKNOWN UINT32_MAX

/* --------------------------------------------------------------- what is kept over a restart */

enum paku_slot_state {
	PAKU_SLOT_EMPTY,   /* nothing known about it */
	PAKU_SLOT_FILLING, /* the first `written` bytes of the image are there */
	PAKU_SLOT_WHOLE,   /* all there, and the SHA-256 of what the flash reads back is right */
	PAKU_SLOT_GOOD,    /* ran and was confirmed (or is what the device came with) */
	PAKU_SLOT_BAD,     /* did not verify, or was not confirmed */
};

/*
 * These two structs are what lies in flash, byte for byte: every firmware that shares a device
 * has to agree on them, so they have no padding, and a change of layout changes PAKU_RECORD_MAGIC.
 */
struct paku_slot {
	uint32_t size;    /* of the image, in bytes, or PAKU_SIZE_UNKNOWN */
	uint32_t written; /* bytes known to be in flash: whole blocks, or all of the image */
	uint32_t crc;     /* CRC-32 of those, so that they are verified and not trusted */
	uint8_t sha256[PAKU_SHA256_SIZE];
	uint8_t state; /* enum paku_slot_state */
	char version[PAKU_VERSION_SIZE];
};

#define PAKU_RECORD_MAGIC UINT32_C(0x31524B50) /* "PKR1" */

struct paku_record {
	uint32_t magic;
	uint32_t crc; /* CRC-32 of all that follows */
	uint32_t seq; /* of two valid copies the higher one counts */
	struct paku_slot slot[2];
	uint8_t active;  /* the slot that is confirmed */
	uint8_t trial;   /* the slot on trial, or PAKU_NO_SLOT */
	uint8_t boots;   /* boots granted to the trial so far */
	uint8_t due;     /* reports not delivered yet: bit 1 << enum paku_status */
	uint8_t percent; /* for the due report of downloading */
	uint8_t why;     /* enum paku_why, for the due report of failed or rolled_back */
	uint8_t subject; /* the slot whose version the due reports are about */
	uint8_t zero;
	char attempt[PAKU_ATTEMPT_SIZE]; /* of the last offer taken, "" if it named none */
	char etag[PAKU_ETAG_SIZE];       /* of the image that is being filled in */
};

/* ------------------------------------------------------------------ words shared with a port */

/* In the order in which they happen, which is the order in which due reports are sent. */
enum paku_status {
	PAKU_DOWNLOADING,
	PAKU_DOWNLOADED,
	PAKU_INSTALLING,
	PAKU_SUCCESS,
	PAKU_FAILED,
	PAKU_ROLLED_BACK,
};

/* Why an update failed or was rolled back; paku_why_text() of the glue has the sentences. */
enum paku_why {
	PAKU_WHY_NONE,
	PAKU_WHY_LINE,       /* the download made no progress in max_tries more tries */
	PAKU_WHY_ABSENT,     /* the service does not have the image (404 and its like) */
	PAKU_WHY_SIZE,       /* it sends another number of bytes than it offered */
	PAKU_WHY_SPACE,      /* the image is larger than a slot */
	PAKU_WHY_FLASH,      /* a block could not be erased, written or read back */
	PAKU_WHY_RECORD,     /* the boot record could not be written */
	PAKU_WHY_HASH,       /* the flash reads back another SHA-256 than the offer says */
	PAKU_WHY_SELFTEST,   /* the new image's self-test said no */
	PAKU_WHY_TRIAL_TIME, /* the self-test did not come to an end in trial_s */
	PAKU_WHY_BOOTS,      /* the new image was not confirmed in max_boots boots */
};

enum paku_outcome {
	PAKU_OK,
	PAKU_AGAIN,   /* not now: no connection, 5xx, 429; worth another try */
	PAKU_REFUSED, /* the answer is no, and will be no: 4xx, or nonsense */
};

struct paku_offer {
	bool available;
	char version[PAKU_VERSION_SIZE];
	char url[PAKU_URL_SIZE]; /* absolute; the attempt is its query parameter `attempt` */
	uint32_t size;           /* in bytes, or PAKU_SIZE_UNKNOWN */
	uint8_t sha256[PAKU_SHA256_SIZE];
};

struct paku_report {
	const char *version;
	const char *attempt; /* "" when the offer named none */
	enum paku_status status;
	enum paku_why why;
	uint8_t percent; /* PAKU_NO_PERCENT outside downloading */
};

/* The head of the answer to a GET of the image. */
struct paku_head {
	int status;      /* of HTTP: 200, 206, 404, ... */
	uint32_t length; /* Content-Length: for a 200 that is the size of the image */
	uint32_t from;   /* first byte that follows and size of the image, from the */
	uint32_t size;   /* Content-Range of a 206 */
	uint32_t retry_after_s;
	char etag[PAKU_ETAG_SIZE]; /* quotes included; "" if there is none, or none that fits */
};

enum paku_test {
	PAKU_TEST_PASS,
	PAKU_TEST_FAIL,
	PAKU_TEST_WAIT, /* no result yet: ask again in a second */
};

enum paku_event {
	PAKU_EV_CHECKED,      /* value: 1 an update is offered, 0 none */
	PAKU_EV_CHECK_FAILED, /* value: enum paku_outcome */
	PAKU_EV_BEGIN,        /* value: size of the image, or PAKU_SIZE_UNKNOWN */
	PAKU_EV_RESUME,       /* value: bytes in flash that verified */
	PAKU_EV_RESTARTED,    /* what was in flash is of no use; value: bytes given up */
	PAKU_EV_PROGRESS,     /* value: bytes in flash */
	PAKU_EV_CUT,          /* the line broke; value: bytes in flash */
	PAKU_EV_HTTP,         /* an answer other than 200 and 206; value: its status */
	PAKU_EV_CHANGED,      /* the image at the URL is another one than before */
	PAKU_EV_WITHDRAWN,    /* 410: the service took the offer back */
	PAKU_EV_VERIFIED,     /* value: size */
	PAKU_EV_SWITCH,       /* value: slot */
	PAKU_EV_TRIAL,        /* value: how many boots it had, this one included */
	PAKU_EV_CONFIRMED,    /* value: slot */
	PAKU_EV_TRIAL_FAILED, /* the way back begins; value: enum paku_why */
	PAKU_EV_FAILED,       /* value: enum paku_why */
	PAKU_EV_ROLLED_BACK,  /* back in the old image, until that is reported; value: enum paku_why
			       */
	PAKU_EV_REPORTED,     /* value: enum paku_status */
	PAKU_EV_REPORT_KEPT,  /* value: enum paku_status */
	PAKU_EV_REPORT_DROPPED, /* the service refused it; value: enum paku_status */
};

/* ---------------------------------------------------------------- what the caller implements */

/*
 * Every function gets `ctx`.  Those that return int return 0 when all of it is done, and anything
 * else when it is not or nobody knows; none may be left out unless it says so.
 */
struct paku_flash_ops {
	/* Slots are 0 and 1, offsets and lengths multiples of block_size for erase and write. */
	int (*read)(void *ctx, int slot, uint32_t offset, void *buf, uint32_t len);
	int (*erase)(void *ctx, int slot, uint32_t offset, uint32_t len);
	int (*write)(void *ctx, int slot, uint32_t offset, const void *buf, uint32_t len);
	/*
	 * The two copies (0 and 1) of the boot record, in erase units of their own.  A write may be
	 * torn by a power cut; the other copy is then untouched.  It is durable when it returns 0.
	 */
	int (*record_read)(void *ctx, int copy, uint32_t offset, void *buf, uint32_t len);
	int (*record_write)(void *ctx, int copy, const void *buf, uint32_t len);
};

struct paku_net_ops {
	/* Asks the service what this version should do; on PAKU_OK *offer is filled.  In every case
	 * *retry_after_s is what the service asks for, 0 if nothing. */
	enum paku_outcome (*check)(void *ctx, const char *version, struct paku_offer *offer,
				   uint32_t *retry_after_s);
	/* Delivers one report; PAKU_OK only when the service has said that it is kept. */
	enum paku_outcome (*report)(void *ctx, const struct paku_report *report);
	/* GET of the image from byte `from` (Range only if it is not 0, with If-Range: if_range);
	 * returns 0 once the head is there, whatever its status.  close() follows then. */
	int (*open)(void *ctx, const char *url, uint32_t from, const char *if_range,
		    struct paku_head *head);
	/* Up to len bytes of the body: their number, 0 at its end, negative if the line broke. */
	int32_t (*read)(void *ctx, void *buf, uint32_t len);
	void (*close)(void *ctx);
};

struct paku_sys_ops {
	uint32_t (*now_ms)(void *ctx); /* monotonic, may wrap */
	uint32_t (*random)(void *ctx);
	void (*sha256_init)(void *ctx);
	void (*sha256_update)(void *ctx, const void *data, uint32_t len);
	void (*sha256_final)(void *ctx, uint8_t out[PAKU_SHA256_SIZE]);
	enum paku_test (*selftest)(void *ctx); /* only asked while on trial */
	/* For a bootloader with a record of its own (ESP-IDF); NULL where paku_boot_choose() is
	 * the bootloader.  boot_set: start this slot next time.  boot_confirm: keep the running
	 * one. */
	int (*boot_set)(void *ctx, int slot);
	int (*boot_confirm)(void *ctx);
	void (*event)(void *ctx, enum paku_event event, uint32_t value); /* may be NULL */
};

struct paku_io {
	void *ctx;
	struct paku_flash_ops flash;
	struct paku_net_ops net;
	struct paku_sys_ops sys;
};

struct paku_config {
	uint32_t slot_size;     /* bytes, a multiple of block_size */
	uint32_t block_size;    /* what is erased and written at once; at least PAKU_BLOCK_MIN */
	uint32_t poll_s;        /* between checks when the service names no time */
	bool poll_fixed;        /* check every poll_s, whatever a normal answer recommends */
	uint32_t trial_s;       /* the longest self-test */
	uint8_t max_boots;      /* boots a new image gets to be confirmed in */
	uint8_t max_tries;      /* more tries of a download without a new block in flash */
	uint8_t save_blocks;    /* blocks between two notes of the progress in the boot record */
	uint8_t report_percent; /* step of the progress reports */
};

#define PAKU_BLOCK_MIN 512

/* 4 KiB blocks, noted every 64 KiB; three boots, two minutes of trial. */
#define PAKU_CONFIG_DEFAULT(slot_bytes)                                                            \
	{                                                                                          \
		.slot_size = (slot_bytes), .block_size = 4096, .poll_s = 300, .trial_s = 120,      \
		.max_boots = 3, .max_tries = 10, .save_blocks = 16, .report_percent = 10           \
	}

/* --------------------------------------------------------------------------------- the agent */

/* All fields are the agent's own. */
struct paku {
	const struct paku_io *io;
	const struct paku_config *cfg;
	uint8_t *block;
	struct paku_record rec;
	uint32_t wait_until; /* while `waiting` */
	uint32_t report_at;  /* while `report_tries` is not 0 */
	uint32_t trial_until;
	uint32_t pos; /* recheck, verify: bytes read back; fetch: bytes in the block buffer */
	uint32_t crc; /* recheck: of the bytes read back */
	/* Bytes of this image that were in flash at once: only more than that is progress. */
	uint32_t most;
	uint8_t copy; /* of the record that is current; the other one is written next */
	uint8_t phase, running, tries, changes, report_tries, unsaved, told_percent;
	bool waiting, connected;
	char url[PAKU_URL_SIZE];
};

enum paku_next {
	PAKU_CONTINUE, /* call again when convenient */
	PAKU_WAIT,     /* nothing to do for *wait_ms */
	PAKU_RESTART,  /* restart the device now; the bootloader knows what to start */
};

/*
 * The bootloader's part, for devices whose bootloader knows nothing of slots: which slot to
 * start.  Counts the boot if that is a trial, and gives the trial up after max_boots.  Without a
 * valid record: slot 0.  If the count cannot be written, the confirmed slot.
 */
int paku_boot_choose(const struct paku_io *io, uint8_t max_boots);

/*
 * Prepares *p.  `block` holds cfg->block_size bytes; p, io, cfg and block stay the caller's and
 * stay valid.  `running` is the slot that runs (0 or 1), `version` what it calls itself: it counts
 * only where the record knows nothing of that slot.  False if the configuration makes no sense.
 */
bool paku_init(struct paku *p, const struct paku_io *io, const struct paku_config *cfg,
	       uint8_t *block, int running, const char *version);

/* One piece of work; says what is next, and for PAKU_WAIT how long. */
enum paku_next paku_step(struct paku *p, uint32_t *wait_ms);

/*
 * Takes an offer that came by itself, a command for instance, as if a check had brought it.  False,
 * and nothing has changed, while an update or an undelivered result is under way.  Not from within
 * a function of struct paku_io.  An update goes on after a restart when the next check offers it
 * again: where nobody is asked, keep the offer and let `check` hand it out until its end is told.
 */
bool paku_take_offer(struct paku *p, const struct paku_offer *offer);

/* The line is back: a report that waits for its next try is due now. */
void paku_report_now(struct paku *p);

/* The value of a URL's query parameter `attempt`; "" without one, or with one too long to keep. */
void paku_attempt_of(const char *url, char attempt[PAKU_ATTEMPT_SIZE]);

/* The running version, as it is told to the service. */
const char *paku_version(const struct paku *p);
/* True while there is neither work nor an undelivered report: only the next check is awaited. */
bool paku_idle(const struct paku *p);
/* What the agent is doing, for logs: "check", "fetch", ... */
const char *paku_phase_name(const struct paku *p);
