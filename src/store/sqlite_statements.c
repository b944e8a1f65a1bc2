/* SPDX-License-Identifier: MIT */
/* SQLite writes an index for every column that an UPDATE names: each statement names few. */
#include "store/sqlite_statements.h"

#define DEVICE_FACTS                                                                               \
	" mac_address=?3, current_firmware_version=?5, hw=?8, boot_hash=?9, booted_at=?10,"        \
	" boot_seen_at=?11, firmware_digest=?12, app_elf_sha256=?13, ran_release_id=?14,"          \
	" ran_as=?15, site=?16, topic_form=?17, online=?18, presence_at=?19, other_site=?20,"      \
	" conflict_at=?21, heard=?22, heard_at=?23, silent_at=?24, retry_at=?25, ran_from=?27"
#define ATTEMPT_PROGRESS                                                                           \
	" error_message=coalesce(?5,error_message), progress_percent=?6,"                          \
	" started_at=coalesce(started_at,?7), reported_at=?9, installing_at=?18,"                  \
	" accepted_at=?23 WHERE id=?1"

const char *const sqlite_statements[STATEMENTS] = {
	[ST_DEVICE_PUT] =
		"INSERT INTO devices (id, device_id, mac_address, device_model,"
		" current_firmware_version, last_seen, created_at, hw, boot_hash, booted_at,"
		" boot_seen_at, firmware_digest, app_elf_sha256, ran_release_id, ran_as, site,"
		" topic_form, online, presence_at, other_site, conflict_at, heard,"
		" heard_at, silent_at, retry_at, habit_us, ran_from)"
		" VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,"
		"?21,?22,?23,?24,?25,?26,?27)"
		" ON CONFLICT (id) DO UPDATE SET device_model=?4, last_seen=?6, "
		"habit_us=?26," DEVICE_FACTS,
	[ST_DEVICE_SAME] = "UPDATE devices SET" DEVICE_FACTS " WHERE id=?1",
	[ST_DEVICE_SEEN] = "UPDATE devices SET last_seen=?2, habit_us=?3 WHERE id=?1",
	[ST_DEVICE_LABEL] = "UPDATE devices SET label=?2 WHERE device_id=?1",
	[ST_DEVICE_NOTES] = "UPDATE devices SET notes=?2 WHERE device_id=?1",
	[ST_GROUPS_CLEAR] = "DELETE FROM device_groups WHERE device_id=?1",
	[ST_GROUP_ADD] = "INSERT INTO device_groups (device_id, group_name) VALUES (?1,?2)",
	[ST_DEVICE_DELETE] = "DELETE FROM devices WHERE device_id=?1",
	[ST_FAILURES_CLEAR] = "DELETE FROM attempt_failures WHERE device_id=?1",
	[ST_ATTEMPT_INSERT] =
		"INSERT INTO device_update_status (id, device_id, firmware_version, status,"
		" error_message, progress_percent, started_at, completed_at, reported_at, "
		"attempt_id,"
		" release_id, rollout_id, closed, closed_why, unsolicited, from_version, opened_at,"
		" installing_at, settled, commanded_at, commands, accepted_at)"
		" VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,"
		"?21,?22,?23)",
	/* An index is written for each column that a statement names, changed or not. */
	[ST_ATTEMPT_MOVE] = "UPDATE device_update_status SET status=?4," ATTEMPT_PROGRESS,
	[ST_ATTEMPT_PROGRESS] = "UPDATE device_update_status SET" ATTEMPT_PROGRESS,
	/* completed_at follows the state: a lapsed attempt that begins is open again. */
	[ST_ATTEMPT_UPDATE] =
		"UPDATE device_update_status SET status=?4, "
		"error_message=coalesce(?5,error_message),"
		" progress_percent=?6, started_at=coalesce(started_at,?7),"
		" completed_at=iif(?20,NULL,coalesce(?8,completed_at)), reported_at=?9, closed=?13,"
		/* `closed` on the right is what it was: a reason to close goes with it. */
		" closed_why=coalesce(?14,iif(?20 OR (closed IS NOT NULL AND ?13 IS NULL),NULL,"
		"closed_why)), installing_at=?18, settled=?19,"
		" commanded_at=?21, commands=?22, accepted_at=?23"
		" WHERE id=?1",
	[ST_FAILURES_PUT] = "INSERT INTO attempt_failures (device_id, release_id, failures, "
			    "passing, result_code)"
			    " VALUES (?1,?2,?3,?4,?5) ON CONFLICT (device_id, release_id)"
			    " DO UPDATE SET failures=?3, passing=?4, result_code=?5",
	[ST_FAILURES_REMOVE] = "DELETE FROM attempt_failures WHERE device_id=?1 AND release_id=?2",
	[ST_EVENT] = "INSERT INTO ota_events (event_type, device_id, firmware_version, rollout_id,"
		     " event_data, created_at, created_by) VALUES (?1,?2,?3,?4,?5,?6,?7)",
	[ST_RELEASE_INSERT] =
		"INSERT INTO firmware_releases (id, version, device_model, min_version, file_path,"
		" file_size, checksum_sha256, changelog, release_notes, is_signed, created_at, "
		"created_by,"
		" metadata) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13)",
	[ST_RELEASE_DELETED] = "UPDATE firmware_releases SET deleted_at=?2 WHERE id=?1",
	[ST_RELEASE_LEARNT] = "UPDATE firmware_releases SET learnt_versions=?2 WHERE id=?1",
	[ST_RELEASE_SUSPECT] = "UPDATE firmware_releases SET suspect_at=?2 WHERE id=?1",
	[ST_ROLLOUT_INSERT] =
		"INSERT INTO rollout_configurations (id, name, firmware_version, device_model,"
		" target_type, target_filter, rollout_percentage, is_active, created_at, "
		"updated_at,"
		" created_by, metadata, release_id, allow_downgrade, max_attempts, max_parallel,"
		" stages, not_before, deadline, priority, requires, state, stage, state_since,"
		" stage_since, maintenance_window)"
		" VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,"
		"?20,?21,?22,?23,?24,?25)",
	[ST_ROLLOUT_WALK] =
		"UPDATE rollout_configurations SET is_active=?2, updated_at=?3,"
		" rollout_percentage=?4, state=?5, state_reason=?6, state_since=?7, stage=?8,"
		" stage_since=?9, stage_held_us=?10, approved=?11 WHERE id=?1",
	[ST_REJECTED] = "INSERT INTO ota_rejected_messages (device_id, topic, payload, reason,"
			" detail, created_at) VALUES (?1,?2,?3,?4,?5,?6)",
	[ST_REJECTED_PRUNE] = "DELETE FROM ota_rejected_messages WHERE id <="
			      " (SELECT max(id) FROM ota_rejected_messages) - ?1",
	[ST_STATE_PUT] = "INSERT INTO service_state (key, value) VALUES (?1,?2)"
			 " ON CONFLICT (key) DO UPDATE SET value=?2",
	[ST_STATE_REMOVE] = "DELETE FROM service_state WHERE key=?1",
	/* NOT INDEXED: by id, so that a step looks at no more than its range. */
	[ST_PRUNE_COUNT] =
		"INSERT INTO ota_daily_attempts (" DAILY_COLUMNS ") SELECT"
		" substr(coalesce(u.completed_at, u.reported_at), 1, 10), " DAILY_VALUES(
			"u") ", count(*) FROM device_update_status AS u NOT INDEXED WHERE"
			     " u.id > ?1 AND u.id <= ?2 AND " PRUNABLE_ATTEMPT(
				     "u", "?3") " GROUP BY 1, 2, 3, 4, 5, 6, 7"
						" ON CONFLICT (" DAILY_KEY ") DO UPDATE SET"
						" attempts = attempts + excluded.attempts",
	[ST_PRUNE_ATTEMPTS] = "DELETE FROM device_update_status AS u NOT INDEXED WHERE u.id > ?1"
			      " AND u.id <= ?2 AND " PRUNABLE_ATTEMPT("u", "?3"),
	[ST_PRUNE_EVENTS] = "DELETE FROM ota_events AS e NOT INDEXED WHERE e.id > ?1"
			    " AND e.id <= ?2 AND " PRUNABLE_EVENT("e", "?3"),
	[ST_ROLLOUT_PRUNED] = "UPDATE rollout_configurations SET pruned_at=?2 WHERE id=?1",
	[ST_HEARTBEAT] = "INSERT INTO service_state (key, value) VALUES ('probe', ?1)"
			 " ON CONFLICT (key) DO UPDATE SET value=?1",
	[ST_SAVEPOINT] = "SAVEPOINT part",
	[ST_ROLLBACK_TO] = "ROLLBACK TO part",
	[ST_RELEASE_SAVEPOINT] = "RELEASE part",
	[ST_BEGIN] = "BEGIN IMMEDIATE",
	[ST_COMMIT] = "COMMIT",
	[ST_ROLLBACK] = "ROLLBACK",
};
