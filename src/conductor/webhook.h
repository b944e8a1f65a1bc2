/* SPDX-License-Identifier: MIT */
/*
 * Webhooks: messages about alerts, sent over HTTP to the addresses of OTA_WEBHOOK_URL.
 *
 * What is to be sent stands in the store, written in one transaction with the alert, and goes when
 * an address has answered 2xx: each message arrives at least once, also through a crash.  One
 * thread sends; nobody waits for it, and nothing that an address does can keep it longer than
 * WEBHOOK_TIMEOUT_MS: what hangs, redirects or never ends is a failure.  An address that fails is
 * left alone for a while that doubles; the others are not.  After a day a message is given up.
 */
#pragma once

#include "base/buf.h"
#include "commit/committer.h"
#include "store/lease.h"

#define WEBHOOK_TARGETS_MAX 8
#define WEBHOOK_TIMEOUT_MS  10000 /* for a message, from the connection to the answer's end */
#define WEBHOOK_ANSWER_MAX  65536 /* bytes of an answer that are read, and thrown away */
#define WEBHOOK_PAUSE_MAX_S 1800  /* between two tries */
#define WEBHOOK_GIVE_UP_US  (INT64_C(86400) * 1000000)

enum webhook_format {
	WEBHOOK_JSON,
	WEBHOOK_SLACK,
	WEBHOOK_DISCORD,
	WEBHOOK_ALERTMANAGER,
};

struct webhooks_parts {
	struct store *store;
	struct committer *committer;
	const char *urls; /* separated by blanks or commas; "" none */
	enum webhook_format format;
	const char *secret;  /* "": messages are not signed */
	int64_t retry_s;     /* after the first failure */
	struct lease *lease; /* NULL: there is no other instance */
};

struct webhooks;

/* A sentence that names the variable, when the addresses make no sense. */
enum ota_code webhooks_check(const char *urls, const char *secret, struct ota_err *err);
/* Gives up what is left for addresses that are not there any more; starts the thread where there
 * are some.  All parts stay the caller's and outlive it. */
enum ota_code webhooks_start(const struct webhooks_parts *parts, struct webhooks **out,
			     struct ota_err *err);
/* Ends what is under way within a second or so; it is sent again at the next start. */
void webhooks_stop(struct webhooks **w);

/* By which names the store knows the addresses; they live as long as W. */
const char *const *webhooks_targets(const struct webhooks *w, size_t *count);
/* There is something new to be sent. */
void webhooks_wake(struct webhooks *w);

/* --- pure, webhook_body.c --- */

/* The message as it is sent. */
void webhook_body(enum webhook_format format, const struct row_webhook *m, struct buf *out);
/* How long an address is left alone after so many failures in a row. */
int64_t webhook_pause_s(int64_t retry_s, int failures);
