/* SPDX-License-Identifier: MIT */
/* PostgreSQL leaves the indexes alone when no indexed column changes: each statement names few. */
#include "store/postgres_statements.h"

#include "store/sql.h"

#define DEVICE_NAMES                                                                               \
	"mac_address, current_firmware_version, hw, boot_hash, booted_at, boot_seen_at,"           \
	" firmware_digest, app_elf_sha256, ran_release_id, ran_as, site, topic_form, online,"      \
	" presence_at, other_site, conflict_at, heard, heard_at, silent_at, retry_at, ran_from"
#define DEVICE_TYPES                                                                               \
	"ttti"                                                                                     \
	"zz"                                                                                       \
	"tt"                                                                                       \
	"itti"                                                                                     \
	"izt"                                                                                      \
	"zxzzzt"
#define DEVICE_FACTS(n)                                                                            \
	" mac_address=" n ".mac_address, current_firmware_version=" n ".current_firmware_version," \
	" hw=" n ".hw, boot_hash=" n ".boot_hash, booted_at=" n ".booted_at,"                      \
	" boot_seen_at=" n ".boot_seen_at, firmware_digest=" n ".firmware_digest,"                 \
	" app_elf_sha256=" n ".app_elf_sha256, ran_release_id=" n ".ran_release_id,"               \
	" ran_as=" n ".ran_as, site=" n ".site, topic_form=" n ".topic_form, online=" n ".online," \
	" presence_at=" n ".presence_at, other_site=" n ".other_site,"                             \
	" conflict_at=" n ".conflict_at, heard=" n ".heard, heard_at=" n ".heard_at,"              \
	" silent_at=" n ".silent_at, retry_at=" n ".retry_at, ran_from=" n ".ran_from"

#define PROGRESS_NAMES                                                                             \
	"error_message, progress_percent, started_at, reported_at, installing_at, accepted_at"
#define PROGRESS_TYPES "tizzzz"
#define ATTEMPT_PROGRESS                                                                           \
	" error_message=coalesce(n.error_message, s.error_message),"                               \
	" progress_percent=n.progress_percent,"                                                    \
	" started_at=coalesce(s.started_at, n.started_at), reported_at=n.reported_at,"             \
	" installing_at=n.installing_at, accepted_at=n.accepted_at"
/* A reason to close goes with what it was a reason for. */
#define CLOSED_WHY                                                                                 \
	"coalesce(n.closed_why, CASE WHEN n.is_open OR"                                            \
	" (s.closed IS NOT NULL AND n.closed IS NULL) THEN NULL ELSE s.closed_why END)"

const struct pg_statement_text pg_statements[PG_STATEMENTS] = {
	[PG_DEVICE_PUT] = {"INSERT INTO devices (id, " DEVICE_NAMES ", device_id, device_model,"
			   " last_seen, created_at, habit_us) SELECT * FROM",
			   "id, " DEVICE_NAMES ", device_id, device_model, last_seen, created_at,"
			   " habit_us",
			   "i" DEVICE_TYPES "ttzzi",
			   "ON CONFLICT (id) DO UPDATE SET device_model=excluded.device_model,"
			   " last_seen=excluded.last_seen,"
			   " habit_us=excluded.habit_us," DEVICE_FACTS("excluded")},
	[PG_DEVICE_SAME] = {"UPDATE devices d SET" DEVICE_FACTS("n") " FROM", "id, " DEVICE_NAMES,
			    "i" DEVICE_TYPES, "WHERE d.id=n.id"},
	[PG_DEVICE_SEEN] = {"UPDATE devices d SET last_seen=n.last_seen, habit_us=n.habit_us FROM",
			    "id, last_seen, habit_us", "izi", "WHERE d.id=n.id"},
	[PG_DEVICE_LABEL] = {"UPDATE devices d SET label=n.value FROM", "device_id, value", "tt",
			     "WHERE d.device_id=n.device_id"},
	[PG_DEVICE_NOTES] = {"UPDATE devices d SET notes=n.value FROM", "device_id, value", "tt",
			     "WHERE d.device_id=n.device_id"},
	[PG_GROUPS_CLEAR] = {"DELETE FROM device_groups d USING", "device_id", "t",
			     "WHERE d.device_id=n.device_id"},
	[PG_GROUP_ADD] = {"INSERT INTO device_groups (device_id, group_name) SELECT * FROM",
			  "device_id, group_name", "tt", ""},
	[PG_FAILURES_CLEAR] = {"DELETE FROM attempt_failures f USING", "device_id", "t",
			       "WHERE f.device_id=n.device_id"},
	[PG_DEVICE_DELETE] = {"DELETE FROM devices d USING", "device_id", "t",
			      "WHERE d.device_id=n.device_id"},
	[PG_FAILURES_PUT] = {"INSERT INTO attempt_failures (device_id, release_id, failures,"
			     " passing, result_code) SELECT * FROM",
			     "device_id, release_id, failures, passing, result_code", "tiiii",
			     "ON CONFLICT (device_id, release_id) DO UPDATE SET"
			     " failures=excluded.failures, passing=excluded.passing,"
			     " result_code=excluded.result_code"},
	[PG_FAILURES_REMOVE] = {"DELETE FROM attempt_failures f USING", "device_id, release_id",
				"ti",
				"WHERE f.device_id=n.device_id AND f.release_id=n.release_id"},
	[PG_ATTEMPT_PROGRESS] = {"UPDATE device_update_status s SET" ATTEMPT_PROGRESS " FROM",
				 "id, " PROGRESS_NAMES, "i" PROGRESS_TYPES, "WHERE s.id=n.id"},
	[PG_ATTEMPT_MOVE] = {"UPDATE device_update_status s SET status=n.status," ATTEMPT_PROGRESS
			     " FROM",
			     "id, " PROGRESS_NAMES ", status", "i" PROGRESS_TYPES "t",
			     "WHERE s.id=n.id"},
	/* completed_at follows the state: a lapsed attempt that begins is open again. */
	[PG_ATTEMPT_UPDATE] = {"UPDATE device_update_status s SET status=n.status," ATTEMPT_PROGRESS
			       ", completed_at=CASE WHEN n.is_open THEN NULL"
			       " ELSE coalesce(n.completed_at, s.completed_at) END,"
			       " closed=n.closed, closed_why=" CLOSED_WHY ", settled=n.settled,"
			       " commanded_at=n.commanded_at, commands=n.commands,"
			       " metadata=s.metadata || jsonb_build_object('closed', n.closed,"
			       " 'why', " CLOSED_WHY ") FROM",
			       "id, " PROGRESS_NAMES
			       ", status, completed_at, closed, closed_why, settled,"
			       " commanded_at, commands, is_open",
			       "i" PROGRESS_TYPES "tzttizib", "WHERE s.id=n.id"},
	[PG_ATTEMPT_INSERT] =
		{"INSERT INTO device_update_status (id, " PROGRESS_NAMES ", status, completed_at,"
		 " closed, closed_why, settled, commanded_at, commands, device_id,"
		 " firmware_version, attempt_id, release_id, rollout_id, unsolicited,"
		 " from_version, opened_at, metadata) SELECT n.*, jsonb_build_object("
		 "'closed', closed, 'why', closed_why, 'unsolicited', unsolicited <> 0,"
		 " 'from_version', from_version) FROM",
		 "id, " PROGRESS_NAMES ", status, completed_at, closed, closed_why, settled,"
		 " commanded_at, commands, device_id, firmware_version, attempt_id, release_id,"
		 " rollout_id, unsolicited, from_version, opened_at",
		 "i" PROGRESS_TYPES "tzttizi"
		 "tttiiitz",
		 ""},
	[PG_RELEASE_INSERT] =
		{"INSERT INTO firmware_releases (id, version, device_model, min_version, file_path,"
		 " file_size, checksum_sha256, changelog, release_notes, is_signed, created_at,"
		 " created_by, metadata) SELECT * FROM",
		 "id, version, device_model, min_version, file_path, file_size, checksum_sha256,"
		 " changelog, release_notes, is_signed, created_at, created_by, metadata",
		 "ittttitttbztj", ""},
	[PG_RELEASE_DELETED] = {"UPDATE firmware_releases r SET deleted_at=n.at FROM", "id, at",
				"iz", "WHERE r.id=n.id"},
	[PG_RELEASE_LEARNT] = {"UPDATE firmware_releases r SET learnt_versions=n.names FROM",
			       "id, names", "ij", "WHERE r.id=n.id"},
	[PG_RELEASE_SUSPECT] = {"UPDATE firmware_releases r SET suspect_at=n.at FROM", "id, at",
				"iz", "WHERE r.id=n.id"},
	[PG_ROLLOUT_INSERT] =
		{"INSERT INTO rollout_configurations (id, name, firmware_version, device_model,"
		 " target_type, target_filter, rollout_percentage, is_active, created_at,"
		 " updated_at, created_by, metadata, release_id, allow_downgrade, max_attempts,"
		 " max_parallel, stages, not_before, deadline, priority, requires, state, stage,"
		 " state_since, stage_since, maintenance_window) SELECT * FROM",
		 "id, name, firmware_version, device_model, target_type, target_filter,"
		 " rollout_percentage, is_active, created_at, updated_at, created_by, metadata,"
		 " release_id, allow_downgrade, max_attempts, max_parallel, stages, not_before,"
		 " deadline, priority, requires, state, stage, state_since, stage_since,"
		 " maintenance_window",
		 "itttt"
		 "jibzz"
		 "tjiii"
		 "ijzzi"
		 "ttizzt",
		 ""},
	[PG_ROLLOUT_WALK] =
		{"UPDATE rollout_configurations r SET is_active=n.is_active,"
		 " updated_at=n.updated_at, rollout_percentage=n.percentage, state=n.state,"
		 " state_reason=n.reason, state_since=n.state_since, stage=n.stage,"
		 " stage_since=n.stage_since, stage_held_us=n.held_us, approved=n.approved FROM",
		 "id, is_active, updated_at, percentage, state, reason, state_since, stage,"
		 " stage_since, held_us, approved",
		 "ibzittzizii", "WHERE r.id=n.id"},
	[PG_EVENT] = {"INSERT INTO ota_events (event_type, device_id, firmware_version,"
		      " rollout_id, event_data, created_at, created_by) SELECT * FROM",
		      "event_type, device_id, firmware_version, rollout_id, event_data,"
		      " created_at, created_by",
		      "tttijzt", ""},
	[PG_PRUNE_ATTEMPTS] =
		{"WITH gone AS (DELETE FROM device_update_status u USING",
		 "after_id, upto_id, before", "iiz",
		 "WHERE u.id > n.after_id AND u.id <= n.upto_id AND " PRUNABLE_ATTEMPT(
			 "u",
			 "n.before") " RETURNING u.*) INSERT INTO ota_daily_attempts AS a"
				     " (" DAILY_COLUMNS ") SELECT (coalesce(u.completed_at,"
				     " u.reported_at) AT TIME ZONE 'UTC')::date, " DAILY_VALUES(
					     "u") ", count(*) FROM gone u"
						  " GROUP BY 1, 2, 3, 4, 5, 6, 7"
						  " ON CONFLICT (" DAILY_KEY ") DO UPDATE SET"
						  " attempts = a.attempts + excluded.attempts"},
	[PG_PRUNE_BEGIN] = {"INSERT INTO service_state (key, value) SELECT '" PRUNING_KEY
			    "', before::text FROM",
			    "before", "z", ""},
	[PG_PRUNE_EVENTS] = {"DELETE FROM ota_events e USING", "after_id, upto_id, before", "iiz",
			     "WHERE e.id > n.after_id AND e.id <= n.upto_id AND " PRUNABLE_EVENT(
				     "e", "n.before")},
	[PG_PRUNE_END] = {"DELETE FROM service_state s USING", "one", "i",
			  "WHERE s.key='" PRUNING_KEY "'"},
	[PG_ROLLOUT_PRUNED] = {"UPDATE rollout_configurations r SET pruned_at=n.at FROM", "id, at",
			       "iz", "WHERE r.id=n.id"},
	[PG_REJECTED] = {"INSERT INTO ota_rejected_messages (device_id, topic, payload, reason,"
			 " detail, created_at) SELECT * FROM",
			 "device_id, topic, payload, reason, detail, created_at", "ttxttz", ""},
	[PG_REJECTED_PRUNE] =
		{"DELETE FROM ota_rejected_messages m USING", "kept", "i",
		 "WHERE m.id <= (SELECT max(id) FROM ota_rejected_messages) - n.kept"},
	[PG_STATE_PUT] = {"INSERT INTO service_state (key, value) SELECT * FROM", "key, value",
			  "tt", "ON CONFLICT (key) DO UPDATE SET value=excluded.value"},
	[PG_STATE_REMOVE] = {"DELETE FROM service_state s USING", "key", "t", "WHERE s.key=n.key"},
	[PG_ALERT_CLEAR] = {"UPDATE ota_alerts a SET cleared_at=n.at FROM", "id, at", "iz",
			    "WHERE a.id=n.id"},
	[PG_ALERT_ACKNOWLEDGE] = {"UPDATE ota_alerts a SET acknowledged_at=n.at,"
				  " acknowledged_by=n.who, acknowledged_reason=n.reason FROM",
				  "id, at, who, reason", "iztt", "WHERE a.id=n.id"},
	[PG_ALERT_RAISE] = {"INSERT INTO ota_alerts (id, kind, subject, severity, sentence,"
			    " raised_at, data) SELECT * FROM",
			    "id, kind, subject, severity, sentence, raised_at, data", "ittttzj",
			    ""},
	[PG_WEBHOOK_ADD] = {"INSERT INTO ota_webhooks (alert_id, event, target, created_at)"
			    " SELECT * FROM",
			    "alert_id, event, target, created_at", "ittz", ""},
	[PG_WEBHOOK_SENT] = {"DELETE FROM ota_webhooks w USING", "id", "i", "WHERE w.id=n.id"},
	[PG_WEBHOOK_FAILED] = {"UPDATE ota_webhooks w SET tries=w.tries+1,"
			       " last_error=coalesce(n.error, w.last_error) FROM",
			       "id, error", "it", "WHERE w.id=n.id"},
	[PG_WEBHOOK_GIVEN_UP] = {"UPDATE ota_webhooks w SET given_up_at=n.at,"
				 " last_error=coalesce(n.error, w.last_error) FROM",
				 "id, error, at", "itz", "WHERE w.id=n.id"},
	[PG_WEBHOOK_PRUNE] = {"DELETE FROM ota_webhooks w USING", "kept", "i",
			      "WHERE w.given_up_at IS NOT NULL AND"
			      " w.id <= (SELECT max(id) FROM ota_webhooks) - n.kept"},
};
