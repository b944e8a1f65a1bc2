/* SPDX-License-Identifier: MIT */
/*
 * Errors: a code for programs and a sentence for people, in a struct the caller owns.
 *
 * A function that can fail returns an ota_code and, on failure, has filled *err and left its
 * outputs NULL or untouched.  Layers below add context with ota_wrap(); whoever ends the chain
 * (an HTTP door, main) logs or answers once.  Only the HTTP door knows HTTP statuses.
 */
#pragma once

#include <stdarg.h>
#include <stdbool.h>

#define OTA_MUST_USE     __attribute__((warn_unused_result))
#define OTA_PRINTF(f, a) __attribute__((format(printf, f, a)))

enum ota_code {
	OTA_OK = 0,
	OTA_EINVAL,         /* the request is malformed */
	OTA_EAUTH,          /* no key, or a wrong one */
	OTA_ENOTFOUND,      /* what is named does not exist */
	OTA_ECONFLICT,      /* it contradicts what is there */
	OTA_EGONE,          /* it was there and has been withdrawn */
	OTA_ETOOLARGE,      /* beyond a limit of size */
	OTA_EUNPROCESSABLE, /* well formed, but makes no sense here */
	OTA_EUNAVAIL,       /* try again later: over a limit, store down, shutting down */
	OTA_ENOMEM,         /* out of memory */
	OTA_EIO,            /* a disk or socket said no */
	OTA_EUNKNOWN,       /* the commit's outcome is not known */
	OTA_EINTERNAL,      /* a bug of ours */
};

struct ota_err {
	enum ota_code code;
	char msg[512]; /* one sentence, UTF-8, cut on a character boundary if it is longer */
};

/* Fills *err (which may be NULL) and returns CODE, so that `return ota_fail(...)` reads well. */
enum ota_code ota_fail(struct ota_err *err, enum ota_code code, const char *fmt, ...)
	OTA_PRINTF(3, 4);
/* Puts "context: " before the sentence that is there; returns err->code. */
enum ota_code ota_wrap(struct ota_err *err, const char *fmt, ...) OTA_PRINTF(2, 3);
/* ota_fail(OTA_EIO, "fmt: strerror(errnum)"). */
enum ota_code ota_fail_errno(struct ota_err *err, int errnum, const char *fmt, ...)
	OTA_PRINTF(3, 4);
/* ota_fail(OTA_ENOMEM) with its fixed sentence. */
enum ota_code ota_fail_nomem(struct ota_err *err);
/* The code's name for logs: "not_found". */
const char *ota_code_name(enum ota_code code);
