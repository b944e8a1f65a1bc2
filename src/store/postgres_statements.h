/* SPDX-License-Identifier: MIT */
/*
 * What the commit says to PostgreSQL: each statement takes many rows at once, as one array for each
 * of its columns.
 */
#pragma once

/* In the order in which those of one wave are sent: what makes room stands before what fills it,
 * what is referred to before what refers to it. */
enum pg_statement {
	PG_DEVICE_PUT,
	PG_DEVICE_SAME,
	PG_DEVICE_SEEN,
	PG_DEVICE_LABEL,
	PG_DEVICE_NOTES,
	PG_GROUPS_CLEAR,
	PG_GROUP_ADD,
	PG_FAILURES_CLEAR,
	PG_DEVICE_DELETE,
	PG_FAILURES_PUT,
	PG_FAILURES_REMOVE,
	PG_ATTEMPT_PROGRESS,
	PG_ATTEMPT_MOVE,
	PG_ATTEMPT_UPDATE,
	PG_ATTEMPT_INSERT,
	PG_RELEASE_INSERT,
	PG_RELEASE_DELETED,
	PG_RELEASE_LEARNT,
	PG_RELEASE_SUSPECT,
	PG_ROLLOUT_INSERT,
	PG_ROLLOUT_WALK,
	PG_EVENT,
	PG_PRUNE_ATTEMPTS,
	PG_PRUNE_BEGIN,
	PG_PRUNE_EVENTS,
	PG_PRUNE_END,
	PG_ROLLOUT_PRUNED,
	PG_REJECTED,
	PG_REJECTED_PRUNE,
	PG_STATE_PUT,
	PG_STATE_REMOVE,
	PG_ALERT_CLEAR,
	PG_ALERT_ACKNOWLEDGE,
	PG_ALERT_RAISE,
	PG_WEBHOOK_ADD,
	PG_WEBHOOK_SENT,
	PG_WEBHOOK_FAILED,
	PG_WEBHOOK_GIVEN_UP,
	PG_WEBHOOK_PRUNE,
	PG_STATEMENTS,
};

#define PG_COLUMNS_MAX 27

/* HEAD unnest($1, $2, ...) AS n(NAMES) TAIL.  A letter of TYPES a column: i int8, t text,
 * z timestamptz, b boolean, j jsonb, x bytea. */
struct pg_statement_text {
	const char *head, *names, *types, *tail;
};

extern const struct pg_statement_text pg_statements[PG_STATEMENTS];
