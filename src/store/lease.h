/* SPDX-License-Identifier: MIT */
/*
 * Who leads, where several paku-otad share a PostgreSQL database: one of them at a time.
 *
 * The leader's session holds an advisory lock, and twice a second moves the one row of ota_leader
 * on: its beat.  What the leader may do rests on its last beat and ends LEASE_MS after it was sent.
 * Who follows reads the row four times a second, and takes over when it has not moved for
 * LEASE_STALE_MS, which is longer: it ends the session that holds the lock, takes the lock, and
 * raises the epoch.  So there are never two who may lead, as long as their clocks run equally
 * fast; and what is written is fenced besides (postgres.h: the token, which a leader takes under
 * its epoch).  A leader that ends well says so in the row, and is followed at once.
 *
 * A thread of its own with a connection of its own, which must reach the server itself: a
 * transaction pooler in between would lend the lock to somebody else.
 */
#pragma once

#include "base/err.h"

#include <stdint.h>

#define LEASE_BEAT_MS  500
#define LEASE_LOOK_MS  250
#define LEASE_MS       2500
#define LEASE_STALE_MS 2800
#define LEASE_URL_SIZE 160

struct lease;

enum lease_role {
	LEASE_FOLLOWS,
	LEASE_LEADS, /* it was not told of another leader; whether it may act now, lease_holds()
			says */
};

struct lease_view {
	enum lease_role role;
	int64_t epoch;               /* of the leader; 0: not known */
	char leader[LEASE_URL_SIZE]; /* where the leader is; "": nobody is known to lead */
	char problem[256];           /* why that is not known; "": it is */
};

/* Begins to follow.  URL: where others reach this instance.  CHANGED is called on the lease's
 * thread when the role has changed. */
enum ota_code lease_start(const char *conninfo, const char *url, void (*changed)(void),
			  struct lease **out, struct ota_err *err);
/* Gives up the lead, so that another may take it at once, and ends. */
void lease_stop(struct lease **l);
/* Gives up the lead, if it has it, and goes on as one that follows; FOR_GOOD: and never leads
 * again. */
void lease_resign(struct lease *l, bool for_good);

/* Any thread.  Whether this instance leads, and may act on it, at this moment; L may be NULL: there
 * is nobody else. */
bool lease_holds(const struct lease *l);
void lease_look(struct lease *l, struct lease_view *out);
