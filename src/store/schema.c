/* SPDX-License-Identifier: MIT */
/*
 * The SQLite schema as numbered migrations.  A migration that was released never changes: a later
 * one changes what it made.  docs/database_schema.md says what the columns mean.
 */
#include "store/sqlite.h"

static const char migration_1[] =
	"CREATE TABLE firmware_releases ("
	" id INTEGER PRIMARY KEY, version TEXT NOT NULL, device_model TEXT NOT NULL, min_version "
	"TEXT,"
	" file_path TEXT NOT NULL, file_size INTEGER NOT NULL, checksum_sha256 TEXT NOT NULL,"
	" changelog TEXT, release_notes TEXT, is_signed INTEGER NOT NULL DEFAULT 0,"
	" created_at TEXT NOT NULL, created_by TEXT, metadata TEXT NOT NULL DEFAULT '{}',"
	" learnt_versions TEXT, deleted_at TEXT,"
	" UNIQUE (version, device_model)) STRICT;"

	"CREATE TABLE devices ("
	" id INTEGER PRIMARY KEY, device_id TEXT NOT NULL UNIQUE, mac_address TEXT, device_model "
	"TEXT,"
	" current_firmware_version TEXT, last_seen TEXT NOT NULL, created_at TEXT NOT NULL,"
	" metadata TEXT NOT NULL DEFAULT '{}', hw TEXT, label TEXT, notes TEXT,"
	" boot_hash INTEGER NOT NULL DEFAULT 0, booted_at TEXT, boot_seen_at TEXT,"
	" firmware_digest TEXT, app_elf_sha256 TEXT,"
	" ran_release_id INTEGER NOT NULL DEFAULT 0, ran_as TEXT) STRICT;"
	"CREATE INDEX devices_by_last_seen ON devices (last_seen, id);"
	"CREATE INDEX devices_by_model ON devices (device_model, last_seen, id);"

	"CREATE TABLE device_groups ("
	" device_id TEXT NOT NULL, group_name TEXT NOT NULL,"
	" PRIMARY KEY (device_id, group_name)) STRICT, WITHOUT ROWID;"
	"CREATE INDEX device_groups_by_name ON device_groups (group_name, device_id);"

	"CREATE TABLE rollout_configurations ("
	" id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, firmware_version TEXT NOT NULL,"
	" device_model TEXT NOT NULL,"
	" target_type TEXT NOT NULL CHECK (target_type IN ('all','group','canary','specific')),"
	" target_filter TEXT, rollout_percentage INTEGER NOT NULL, is_active INTEGER NOT NULL,"
	" created_at TEXT NOT NULL, updated_at TEXT NOT NULL, created_by TEXT,"
	" metadata TEXT NOT NULL DEFAULT '{}',"
	" release_id INTEGER NOT NULL REFERENCES firmware_releases (id),"
	" allow_downgrade INTEGER NOT NULL DEFAULT 0, max_attempts INTEGER NOT NULL DEFAULT 3) "
	"STRICT;"

	"CREATE TABLE device_update_status ("
	" id INTEGER PRIMARY KEY, device_id TEXT NOT NULL, firmware_version TEXT NOT NULL,"
	" status TEXT NOT NULL CHECK (status IN"
	"  ('pending','downloading','downloaded','installing','success','failed','rolled_back')),"
	" error_message TEXT, progress_percent INTEGER, started_at TEXT, completed_at TEXT,"
	" reported_at TEXT NOT NULL,"
	" attempt_id TEXT UNIQUE, release_id INTEGER, rollout_id INTEGER,"
	" closed TEXT CHECK (closed IN ('lapsed','withdrawn')), closed_why TEXT,"
	" unsolicited INTEGER NOT NULL DEFAULT 0, from_version TEXT, opened_at TEXT NOT NULL,"
	" installing_at TEXT, settled INTEGER NOT NULL DEFAULT 0,"
	" metadata TEXT GENERATED ALWAYS AS (json_object('closed', closed, 'why', closed_why,"
	"  'unsolicited', json(iif(unsolicited, 'true', 'false')), 'from_version', from_version)) "
	"VIRTUAL"
	") STRICT;"
	/* One open attempt for a device at a time; what nobody asked for does not count. */
	"CREATE UNIQUE INDEX one_open_attempt ON device_update_status (device_id)"
	" WHERE completed_at IS NULL AND unsolicited = 0;"
	"CREATE INDEX updates_by_device ON device_update_status (device_id, id);"
	"CREATE INDEX updates_by_version ON device_update_status (firmware_version, id);"
	"CREATE INDEX updates_by_rollout ON device_update_status (rollout_id, status, closed);"
	"CREATE INDEX updates_of_rollout ON device_update_status (rollout_id, id);"
	"CREATE INDEX updates_by_time ON device_update_status (reported_at);"
	"CREATE INDEX updates_unsettled ON device_update_status (id)"
	" WHERE status = 'success' AND settled = 0 AND unsolicited = 0;"

	"CREATE TABLE attempt_failures ("
	" device_id TEXT NOT NULL, release_id INTEGER NOT NULL, failures INTEGER NOT NULL,"
	" PRIMARY KEY (device_id, release_id)) STRICT, WITHOUT ROWID;"

	"CREATE TABLE ota_events ("
	" id INTEGER PRIMARY KEY, event_type TEXT NOT NULL, device_id TEXT, firmware_version TEXT,"
	" rollout_id INTEGER, event_data TEXT, created_at TEXT NOT NULL, created_by TEXT) STRICT;"
	"CREATE INDEX events_by_device ON ota_events (device_id, id);"
	"CREATE INDEX events_by_rollout ON ota_events (rollout_id, id) WHERE rollout_id IS NOT "
	"NULL;"
	"CREATE TRIGGER ota_events_are_kept BEFORE DELETE ON ota_events"
	" BEGIN SELECT RAISE(ABORT, 'ota_events is append-only'); END;"
	"CREATE TRIGGER ota_events_stand BEFORE UPDATE ON ota_events"
	" BEGIN SELECT RAISE(ABORT, 'ota_events is append-only'); END;"

	"CREATE TABLE service_state (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT "
	"ROWID;";

/* What MQTT needs: how a device is spoken to, how an attempt was told, what was not understood. */
static const char migration_2[] =
	"ALTER TABLE devices ADD COLUMN site TEXT;"
	"ALTER TABLE devices ADD COLUMN topic_form INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE devices ADD COLUMN online INTEGER;"
	"ALTER TABLE devices ADD COLUMN presence_at TEXT;"
	"ALTER TABLE devices ADD COLUMN silent_at TEXT;"
	"ALTER TABLE devices ADD COLUMN retry_at TEXT;"
	"ALTER TABLE devices ADD COLUMN other_site TEXT;"
	"ALTER TABLE devices ADD COLUMN conflict_at TEXT;"
	"ALTER TABLE devices ADD COLUMN result_hash INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE devices ADD COLUMN result_attempt INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE device_update_status ADD COLUMN commanded_at TEXT;"
	"ALTER TABLE device_update_status ADD COLUMN commands INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE device_update_status ADD COLUMN accepted_at TEXT;"
	"ALTER TABLE rollout_configurations ADD COLUMN max_parallel INTEGER NOT NULL DEFAULT 0;"
	"CREATE TABLE ota_rejected_messages ("
	" id INTEGER PRIMARY KEY, device_id TEXT, topic TEXT NOT NULL, payload BLOB NOT NULL,"
	" reason TEXT NOT NULL, detail TEXT NOT NULL, created_at TEXT NOT NULL) STRICT;";

/* Copies of every message that moved an attempt are known, not those of the last result alone. */
static const char migration_3[] = "ALTER TABLE devices DROP COLUMN result_hash;"
				  "ALTER TABLE devices DROP COLUMN result_attempt;"
				  "ALTER TABLE devices ADD COLUMN heard BLOB;"
				  "ALTER TABLE devices ADD COLUMN heard_at TEXT;";

/* How a rollout walks.  What was there is one stage, at once; where it is inactive, paused. */
static const char migration_4[] =
	"ALTER TABLE rollout_configurations ADD COLUMN state TEXT NOT NULL DEFAULT 'running'"
	" CHECK (state IN"
	"  ('draft','scheduled','running','paused','halted','completed','aborted'));"
	"ALTER TABLE rollout_configurations ADD COLUMN state_since TEXT;"
	"ALTER TABLE rollout_configurations ADD COLUMN state_reason TEXT;"
	"ALTER TABLE rollout_configurations ADD COLUMN stages TEXT NOT NULL DEFAULT '[]';"
	"ALTER TABLE rollout_configurations ADD COLUMN stage INTEGER NOT NULL DEFAULT 1;"
	"ALTER TABLE rollout_configurations ADD COLUMN stage_since TEXT;"
	"ALTER TABLE rollout_configurations ADD COLUMN stage_held_us INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE rollout_configurations ADD COLUMN approved INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE rollout_configurations ADD COLUMN not_before TEXT;"
	"ALTER TABLE rollout_configurations ADD COLUMN deadline TEXT;"
	"ALTER TABLE rollout_configurations ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE rollout_configurations ADD COLUMN requires TEXT;"
	"CREATE INDEX events_by_somebody ON ota_events (id) WHERE created_by IS NOT NULL;"
	"UPDATE rollout_configurations SET"
	" state = CASE WHEN is_active THEN 'running'"
	"  WHEN updated_at = created_at THEN 'draft' ELSE 'paused' END,"
	" state_since = updated_at,"
	" stages = json_array(json_object('percent', rollout_percentage, 'min_duration_s', 0));"
	"UPDATE rollout_configurations SET stage_since = created_at WHERE state <> 'draft';";

/* What the gate needs: releases found bad, and how often devices are heard of. */
static const char migration_5[] =
	"ALTER TABLE firmware_releases ADD COLUMN suspect_at TEXT;"
	"ALTER TABLE devices ADD COLUMN habit_us INTEGER NOT NULL DEFAULT 0;";

/* When updates may begin, and when they are tried again. */
static const char migration_6[] =
	"ALTER TABLE rollout_configurations ADD COLUMN maintenance_window TEXT;"
	"ALTER TABLE attempt_failures ADD COLUMN passing INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE attempt_failures ADD COLUMN result_code INTEGER;";

/* What a person is to be told, and what of it is still to be sent. */
static const char migration_7[] =
	"CREATE TABLE ota_alerts ("
	" id INTEGER PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL,"
	" severity TEXT NOT NULL CHECK (severity IN ('critical','warning','info')),"
	" sentence TEXT NOT NULL, raised_at TEXT NOT NULL, acknowledged_at TEXT,"
	" acknowledged_by TEXT, acknowledged_reason TEXT, cleared_at TEXT,"
	" data TEXT NOT NULL DEFAULT '{}') STRICT;"
	/* Raised once while it holds. */
	"CREATE UNIQUE INDEX one_open_alert ON ota_alerts (kind, subject) WHERE cleared_at IS NULL;"
	/* Ids are never given twice: who gets a message twice knows it by its id. */
	"CREATE TABLE ota_webhooks ("
	" id INTEGER PRIMARY KEY AUTOINCREMENT,"
	" alert_id INTEGER NOT NULL REFERENCES ota_alerts (id),"
	" event TEXT NOT NULL CHECK (event IN ('raised','cleared')),"
	" target TEXT NOT NULL, created_at TEXT NOT NULL, tries INTEGER NOT NULL DEFAULT 0,"
	" last_error TEXT, given_up_at TEXT) STRICT;"
	"CREATE INDEX webhooks_by_alert ON ota_webhooks (alert_id);"
	"CREATE INDEX webhooks_waiting ON ota_webhooks (target, tries, id)"
	" WHERE given_up_at IS NULL;";

/* What a device goes back to when its release is taken back. */
static const char migration_8[] =
	"ALTER TABLE devices ADD COLUMN ran_from TEXT;"
	"UPDATE devices SET ran_from = (SELECT u.from_version FROM device_update_status u"
	" WHERE u.device_id = devices.device_id AND u.release_id = devices.ran_release_id"
	" AND u.status = 'success' ORDER BY u.id DESC LIMIT 1) WHERE ran_release_id <> 0;";

/* What is old goes, and is counted by day for good. */
static const char migration_9[] =
	"CREATE TABLE ota_daily_attempts ("
	" day TEXT NOT NULL, rollout_id INTEGER NOT NULL, release_id INTEGER NOT NULL,"
	" firmware_version TEXT NOT NULL, status TEXT NOT NULL, closed TEXT NOT NULL,"
	" unsolicited INTEGER NOT NULL, attempts INTEGER NOT NULL,"
	" PRIMARY KEY (rollout_id, day, release_id, firmware_version, status, closed,"
	"  unsolicited)) STRICT, WITHOUT ROWID;"
	"ALTER TABLE rollout_configurations ADD COLUMN pruned_at TEXT;"
	"DROP TRIGGER ota_events_are_kept;"
	"CREATE TRIGGER ota_events_are_kept BEFORE DELETE ON ota_events"
	" WHEN OLD.created_at >= coalesce((SELECT value FROM service_state"
	"  WHERE key = 'pruning'), '')"
	" BEGIN SELECT RAISE(ABORT, 'ota_events is append-only'); END;";

static const char *const migrations[] = {migration_1, migration_2, migration_3,
					 migration_4, migration_5, migration_6,
					 migration_7, migration_8, migration_9};

const char *const *sqlite_migrations(int *count)
{
	*count = (int)(sizeof migrations / sizeof migrations[0]);
	return migrations;
}
