/* SPDX-License-Identifier: MIT */
/*
 * What a device has seen: its tries, and what it said about each.  Held against the service's
 * record at the end (verify.h).
 */
#pragma once

#include "base/buf.h"

#include <stdint.h>

#define TOKEN_SIZE 16 /* the attempt in a command's URL: 13 characters */

enum outcome {
	OUTCOME_OPEN,        /* under way, or cut off by a power loss */
	OUTCOME_SUCCESS,     /* said so, or came back with the new version */
	OUTCOME_FAILED,      /* said so */
	OUTCOME_ROLLED_BACK, /* came back with the old version */
	OUTCOME_BRICKED,     /* fell silent while it installed */
	OUTCOME_WITHDRAWN,   /* the service took the offer back (410) */
	OUTCOMES,
};
const char *outcome_name(enum outcome o); /* "rolled_back" */

struct seen {
	char token[TOKEN_SIZE]; /* "" when the URL had none */
	const char *version;    /* interned */
	uint8_t outcome;        /* enum outcome */
	uint8_t code;           /* result code of OUTCOME_FAILED */
	uint16_t told;          /* commands, or checks that offered it */
	bool lost_power;        /* once in this try */
	bool matched;           /* the service's record has it; verify.c */
};

struct record {
	struct seen *tries;
	uint32_t count;
};

void record_fini(struct record *r);
/* The try of TOKEN and VERSION, made when there is none; NULL: out of memory.  Pointers to others
 * end. */
struct seen *record_find(struct record *r, const char *token, const char *version);

/* Strings that many devices share live as long as the pool. */
struct pool;
struct pool *pool_new(void);
void pool_free(struct pool **p);
const char *pool_string(struct pool *p, const char *s, size_t len); /* NULL: out of memory */
