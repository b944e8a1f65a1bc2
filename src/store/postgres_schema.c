/* SPDX-License-Identifier: MIT */
/*
 * The PostgreSQL schema as numbered migrations.  A migration that was released never changes: a
 * later one changes what it made.  docs/database_schema.md says what the columns mean.
 *
 * The first one also takes over what the service before this one has left: tables that are there
 * keep their rows and their columns and get those that are missing.  So a table is made with its id
 * alone, and every column is added unless it is there.
 */
#include "store/postgres.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

/* Held while the schema is changed, by whoever starts. */

static const char tables[] =
	"CREATE TABLE IF NOT EXISTS firmware_releases (id bigint PRIMARY KEY);"
	"ALTER TABLE firmware_releases"
	" ADD COLUMN IF NOT EXISTS version text NOT NULL,"
	" ADD COLUMN IF NOT EXISTS device_model text NOT NULL,"
	" ADD COLUMN IF NOT EXISTS min_version text,"
	" ADD COLUMN IF NOT EXISTS file_path text NOT NULL DEFAULT '',"
	" ADD COLUMN IF NOT EXISTS file_size bigint NOT NULL,"
	" ADD COLUMN IF NOT EXISTS checksum_sha256 text NOT NULL,"
	" ADD COLUMN IF NOT EXISTS changelog text,"
	" ADD COLUMN IF NOT EXISTS release_notes text,"
	" ADD COLUMN IF NOT EXISTS is_signed boolean NOT NULL DEFAULT false,"
	" ADD COLUMN IF NOT EXISTS created_at timestamptz NOT NULL DEFAULT now(),"
	" ADD COLUMN IF NOT EXISTS created_by text,"
	" ADD COLUMN IF NOT EXISTS metadata jsonb NOT NULL DEFAULT '{}',"
	" ADD COLUMN IF NOT EXISTS learnt_versions jsonb,"
	" ADD COLUMN IF NOT EXISTS suspect_at timestamptz,"
	" ADD COLUMN IF NOT EXISTS deleted_at timestamptz;"

	"CREATE TABLE IF NOT EXISTS devices (id bigint PRIMARY KEY);"
	"ALTER TABLE devices"
	" ADD COLUMN IF NOT EXISTS device_id text NOT NULL,"
	" ADD COLUMN IF NOT EXISTS mac_address text,"
	" ADD COLUMN IF NOT EXISTS device_model text,"
	" ADD COLUMN IF NOT EXISTS current_firmware_version text,"
	" ADD COLUMN IF NOT EXISTS last_seen timestamptz NOT NULL DEFAULT now(),"
	" ADD COLUMN IF NOT EXISTS created_at timestamptz NOT NULL DEFAULT now(),"
	" ADD COLUMN IF NOT EXISTS metadata jsonb NOT NULL DEFAULT '{}',"
	" ADD COLUMN IF NOT EXISTS hw text,"
	" ADD COLUMN IF NOT EXISTS label text,"
	" ADD COLUMN IF NOT EXISTS notes text,"
	" ADD COLUMN IF NOT EXISTS boot_hash bigint NOT NULL DEFAULT 0,"
	" ADD COLUMN IF NOT EXISTS booted_at timestamptz,"
	" ADD COLUMN IF NOT EXISTS boot_seen_at timestamptz,"
	" ADD COLUMN IF NOT EXISTS firmware_digest text,"
	" ADD COLUMN IF NOT EXISTS app_elf_sha256 text,"
	" ADD COLUMN IF NOT EXISTS ran_release_id bigint NOT NULL DEFAULT 0,"
	" ADD COLUMN IF NOT EXISTS ran_as text,"
	" ADD COLUMN IF NOT EXISTS site text,"
	" ADD COLUMN IF NOT EXISTS topic_form integer NOT NULL DEFAULT 0,"
	" ADD COLUMN IF NOT EXISTS online integer,"
	" ADD COLUMN IF NOT EXISTS presence_at timestamptz,"
	" ADD COLUMN IF NOT EXISTS other_site text,"
	" ADD COLUMN IF NOT EXISTS conflict_at timestamptz,"
	" ADD COLUMN IF NOT EXISTS heard bytea,"
	" ADD COLUMN IF NOT EXISTS heard_at timestamptz,"
	" ADD COLUMN IF NOT EXISTS silent_at timestamptz,"
	" ADD COLUMN IF NOT EXISTS retry_at timestamptz,"
	" ADD COLUMN IF NOT EXISTS habit_us bigint NOT NULL DEFAULT 0;"

	"CREATE TABLE IF NOT EXISTS device_groups ("
	" device_id text NOT NULL, group_name text NOT NULL,"
	" PRIMARY KEY (device_id, group_name));"

	"CREATE TABLE IF NOT EXISTS rollout_configurations (id bigint PRIMARY KEY);"
	"ALTER TABLE rollout_configurations"
	" ADD COLUMN IF NOT EXISTS name text NOT NULL,"
	" ADD COLUMN IF NOT EXISTS firmware_version text NOT NULL,"
	" ADD COLUMN IF NOT EXISTS device_model text NOT NULL,"
	" ADD COLUMN IF NOT EXISTS target_type text NOT NULL"
	"  CHECK (target_type IN ('all','group','canary','specific')),"
	" ADD COLUMN IF NOT EXISTS target_filter jsonb,"
	" ADD COLUMN IF NOT EXISTS rollout_percentage integer NOT NULL DEFAULT 100,"
	" ADD COLUMN IF NOT EXISTS is_active boolean NOT NULL DEFAULT false,"
	" ADD COLUMN IF NOT EXISTS created_at timestamptz NOT NULL DEFAULT now(),"
	" ADD COLUMN IF NOT EXISTS updated_at timestamptz NOT NULL DEFAULT now(),"
	" ADD COLUMN IF NOT EXISTS created_by text,"
	" ADD COLUMN IF NOT EXISTS metadata jsonb NOT NULL DEFAULT '{}',"
	" ADD COLUMN IF NOT EXISTS release_id bigint REFERENCES firmware_releases (id),"
	" ADD COLUMN IF NOT EXISTS allow_downgrade integer NOT NULL DEFAULT 0,"
	" ADD COLUMN IF NOT EXISTS max_attempts integer NOT NULL DEFAULT 3,"
	" ADD COLUMN IF NOT EXISTS max_parallel integer NOT NULL DEFAULT 0,"
	" ADD COLUMN IF NOT EXISTS state text"
	"  CHECK (state IN"
	"   ('draft','scheduled','running','paused','halted','completed','aborted')),"
	" ADD COLUMN IF NOT EXISTS state_since timestamptz,"
	" ADD COLUMN IF NOT EXISTS state_reason text,"
	" ADD COLUMN IF NOT EXISTS stages jsonb,"
	" ADD COLUMN IF NOT EXISTS stage integer NOT NULL DEFAULT 1,"
	" ADD COLUMN IF NOT EXISTS stage_since timestamptz,"
	" ADD COLUMN IF NOT EXISTS stage_held_us bigint NOT NULL DEFAULT 0,"
	" ADD COLUMN IF NOT EXISTS approved integer NOT NULL DEFAULT 0,"
	" ADD COLUMN IF NOT EXISTS not_before timestamptz,"
	" ADD COLUMN IF NOT EXISTS deadline timestamptz,"
	" ADD COLUMN IF NOT EXISTS priority integer NOT NULL DEFAULT 0,"
	" ADD COLUMN IF NOT EXISTS requires text,"
	" ADD COLUMN IF NOT EXISTS maintenance_window text;"

	"CREATE TABLE IF NOT EXISTS device_update_status (id bigint PRIMARY KEY);"
	"ALTER TABLE device_update_status"
	" ADD COLUMN IF NOT EXISTS device_id text NOT NULL,"
	" ADD COLUMN IF NOT EXISTS firmware_version text NOT NULL,"
	" ADD COLUMN IF NOT EXISTS status text NOT NULL CHECK (status IN"
	"  ('pending','downloading','downloaded','installing','success','failed','rolled_back')),"
	" ADD COLUMN IF NOT EXISTS error_message text,"
	" ADD COLUMN IF NOT EXISTS progress_percent integer,"
	" ADD COLUMN IF NOT EXISTS started_at timestamptz,"
	" ADD COLUMN IF NOT EXISTS completed_at timestamptz,"
	" ADD COLUMN IF NOT EXISTS reported_at timestamptz NOT NULL DEFAULT now(),"
	" ADD COLUMN IF NOT EXISTS metadata jsonb NOT NULL DEFAULT '{}',"
	" ADD COLUMN IF NOT EXISTS attempt_id text UNIQUE,"
	" ADD COLUMN IF NOT EXISTS release_id bigint,"
	" ADD COLUMN IF NOT EXISTS rollout_id bigint,"
	" ADD COLUMN IF NOT EXISTS closed text CHECK (closed IN ('lapsed','withdrawn')),"
	" ADD COLUMN IF NOT EXISTS closed_why text,"
	" ADD COLUMN IF NOT EXISTS unsolicited integer NOT NULL DEFAULT 0,"
	" ADD COLUMN IF NOT EXISTS from_version text,"
	" ADD COLUMN IF NOT EXISTS opened_at timestamptz,"
	" ADD COLUMN IF NOT EXISTS installing_at timestamptz,"
	" ADD COLUMN IF NOT EXISTS settled integer NOT NULL DEFAULT 0,"
	" ADD COLUMN IF NOT EXISTS commanded_at timestamptz,"
	" ADD COLUMN IF NOT EXISTS commands integer NOT NULL DEFAULT 0,"
	" ADD COLUMN IF NOT EXISTS accepted_at timestamptz;"

	"CREATE TABLE IF NOT EXISTS attempt_failures ("
	" device_id text NOT NULL, release_id bigint NOT NULL, failures integer NOT NULL,"
	" passing integer NOT NULL DEFAULT 0, result_code integer,"
	" PRIMARY KEY (device_id, release_id));"

	"CREATE TABLE IF NOT EXISTS ota_events"
	" (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY);"
	"ALTER TABLE ota_events"
	" ADD COLUMN IF NOT EXISTS event_type text NOT NULL,"
	" ADD COLUMN IF NOT EXISTS device_id text,"
	" ADD COLUMN IF NOT EXISTS firmware_version text,"
	" ADD COLUMN IF NOT EXISTS rollout_id bigint,"
	" ADD COLUMN IF NOT EXISTS event_data jsonb,"
	" ADD COLUMN IF NOT EXISTS created_at timestamptz NOT NULL DEFAULT now(),"
	" ADD COLUMN IF NOT EXISTS created_by text;"

	"CREATE TABLE IF NOT EXISTS ota_alerts ("
	" id bigint PRIMARY KEY, kind text NOT NULL, subject text NOT NULL,"
	" severity text NOT NULL CHECK (severity IN ('critical','warning','info')),"
	" sentence text NOT NULL, raised_at timestamptz NOT NULL, acknowledged_at timestamptz,"
	" acknowledged_by text, acknowledged_reason text, cleared_at timestamptz,"
	" data jsonb NOT NULL DEFAULT '{}');"
	/* Ids are never given twice: who gets a message twice knows it by its id. */
	"CREATE TABLE IF NOT EXISTS ota_webhooks ("
	" id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,"
	" alert_id bigint NOT NULL REFERENCES ota_alerts (id),"
	" event text NOT NULL CHECK (event IN ('raised','cleared')),"
	" target text NOT NULL, created_at timestamptz NOT NULL, tries integer NOT NULL DEFAULT 0,"
	" last_error text, given_up_at timestamptz);"
	"CREATE TABLE IF NOT EXISTS ota_rejected_messages ("
	" id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, device_id text,"
	" topic text NOT NULL, payload bytea NOT NULL, reason text NOT NULL,"
	" detail text NOT NULL, created_at timestamptz NOT NULL);"
	"CREATE TABLE IF NOT EXISTS service_state (key text PRIMARY KEY, value text NOT NULL);";

/*
 * What was there before this program: a column as it has to be for what this program writes, and
 * rows that say what they left open.  On an empty database it finds nothing.
 */
static const char adoption[] =
	"DO $$ DECLARE c record; BEGIN"
	" FOR c IN SELECT table_name AS t, column_name AS n, data_type AS has, is_nullable"
	"  FROM information_schema.columns WHERE table_schema = current_schema()"
	"  AND (table_name IN ('firmware_releases','devices','rollout_configurations',"
	"   'device_update_status','ota_events'))"
	" LOOP"
	/* No length to stumble over. */
	"  IF c.has <> 'text' AND c.n IN ('version','device_model',"
	"    'min_version','file_path','checksum_sha256','changelog','release_notes','created_by',"
	"    'device_id','mac_address','current_firmware_version','name','firmware_version',"
	"    'target_type','status','error_message','event_type') THEN"
	"   EXECUTE format('ALTER TABLE %I ALTER COLUMN %I TYPE text USING %I::text',"
	"    c.t, c.n, c.n);"
	"  ELSIF c.n IN ('metadata','target_filter','event_data') AND c.has <> 'jsonb' THEN"
	"   EXECUTE format('ALTER TABLE %I ALTER COLUMN %I DROP DEFAULT,"
	"    ALTER COLUMN %I TYPE jsonb USING %I::text::jsonb', c.t, c.n, c.n, c.n);"
	"  ELSIF c.n IN ('id','rollout_id','file_size') AND c.has IN ('integer','smallint') THEN"
	"   EXECUTE format('ALTER TABLE %I ALTER COLUMN %I TYPE bigint', c.t, c.n);"
	"  END IF;"
	"  IF c.n IN ('id','file_size','rollout_percentage','progress_percent')"
	"    AND c.has NOT IN ('bigint','integer','smallint')"
	"    OR c.n IN ('is_active','is_signed') AND c.has <> 'boolean'"
	"    OR c.n IN ('created_at','updated_at','last_seen','started_at','completed_at',"
	"     'reported_at') AND c.has NOT LIKE 'timestamp%' THEN"
	"   RAISE EXCEPTION 'the column %.% is %, which is not what it has to be"
	" (docs/database_schema.md); change it first', c.t, c.n, c.has;"
	"  END IF;"
	/* What this program may not know. */
	"  IF c.is_nullable = 'NO' AND (c.n IN ('min_version','changelog','release_notes',"
	"    'created_by','mac_address','current_firmware_version','target_filter',"
	"    'error_message','progress_percent','started_at','completed_at','rollout_id',"
	"    'event_data') OR (c.n = 'device_model' AND c.t = 'devices')"
	"    OR (c.n IN ('device_id','firmware_version') AND c.t = 'ota_events')) THEN"
	"   EXECUTE format('ALTER TABLE %I ALTER COLUMN %I DROP NOT NULL', c.t, c.n);"
	"  END IF;"
	"  IF c.n = 'metadata' THEN"
	"   EXECUTE format('UPDATE %I SET metadata = ''{}'' WHERE metadata IS NULL', c.t);"
	"   EXECUTE format('ALTER TABLE %I ALTER COLUMN metadata SET DEFAULT ''{}'',"
	"    ALTER COLUMN metadata SET NOT NULL', c.t);"
	"  END IF;"
	" END LOOP; END $$;"

	"UPDATE firmware_releases SET created_at = now() WHERE created_at IS NULL;"
	"UPDATE firmware_releases SET is_signed = false WHERE is_signed IS NULL;"
	"UPDATE devices SET created_at = coalesce(last_seen, now()) WHERE created_at IS NULL;"
	"UPDATE devices SET last_seen = created_at WHERE last_seen IS NULL;"
	"UPDATE ota_events SET created_at = now() WHERE created_at IS NULL;"
	/* Nobody waits for what the service before has left open; what it counted stands. */
	"UPDATE device_update_status SET reported_at = coalesce(completed_at, started_at, now())"
	" WHERE reported_at IS NULL;"
	"UPDATE device_update_status SET opened_at = coalesce(started_at, reported_at),"
	" unsolicited = CASE WHEN completed_at IS NULL THEN 1 ELSE 0 END, settled = 1"
	" WHERE opened_at IS NULL;"
	"ALTER TABLE device_update_status ALTER COLUMN opened_at SET NOT NULL;"
	"UPDATE rollout_configurations SET created_at = coalesce(created_at, now()),"
	" updated_at = coalesce(updated_at, created_at, now()),"
	" rollout_percentage = coalesce(rollout_percentage, 100),"
	" is_active = coalesce(is_active, false)"
	" WHERE created_at IS NULL OR updated_at IS NULL OR rollout_percentage IS NULL"
	" OR is_active IS NULL;"
	"UPDATE rollout_configurations r SET release_id = f.id FROM firmware_releases f"
	" WHERE r.release_id IS NULL AND f.version = r.firmware_version"
	" AND f.device_model = r.device_model;"
	/* One stage, at once; where it is inactive, paused. */
	"UPDATE rollout_configurations SET"
	" state = CASE WHEN is_active AND release_id IS NOT NULL THEN 'running' ELSE 'paused' END,"
	" is_active = is_active AND release_id IS NOT NULL,"
	" state_since = updated_at, stage_since = created_at,"
	" stages = jsonb_build_array(jsonb_build_object('percent', rollout_percentage,"
	"  'min_duration_s', 0)) WHERE state IS NULL;"
	"ALTER TABLE rollout_configurations ALTER COLUMN state SET NOT NULL,"
	" ALTER COLUMN state SET DEFAULT 'running', ALTER COLUMN stages SET NOT NULL,"
	" ALTER COLUMN stages SET DEFAULT '[]';"

	/* Ids that the database gives: from above what is there. */
	"DO $$ DECLARE seq text; BEGIN"
	" IF NOT EXISTS (SELECT FROM information_schema.columns WHERE"
	"  table_schema = current_schema() AND table_name = 'ota_events' AND column_name = 'id'"
	"  AND (column_default IS NOT NULL OR is_identity = 'YES')) THEN"
	"  ALTER TABLE ota_events ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY;"
	" END IF;"
	" seq := pg_get_serial_sequence('ota_events', 'id');"
	" IF seq IS NOT NULL THEN"
	"  PERFORM setval(seq::regclass, (SELECT coalesce(max(id), 0) + 1 FROM ota_events), false);"
	" END IF; END $$;";

static const char indexes[] =
	/* Unique already, as a rule, where the table was there before. */
	"DO $$ DECLARE w record; BEGIN FOR w IN SELECT * FROM (VALUES"
	"  ('firmware_releases', 'id', 'id'), ('devices', 'id', 'id'),"
	"  ('rollout_configurations', 'id', 'id'), ('device_update_status', 'id', 'id'),"
	"  ('ota_events', 'id', 'id'),"
	"  ('firmware_releases', 'device_model, version', 'version, device_model'),"
	"  ('devices', 'device_id', 'device_id'), ('rollout_configurations', 'name', 'name'))"
	"  AS v(t, sorted, columns)"
	" LOOP"
	"  IF NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = w.t::regclass"
	"   AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL"
	"   AND (SELECT string_agg(a.attname, ', ' ORDER BY a.attname) FROM pg_attribute a"
	"    WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)) = w.sorted) THEN"
	"   EXECUTE format('CREATE UNIQUE INDEX ON %I (%s)', w.t, w.columns);"
	"  END IF;"
	" END LOOP; END $$;"
	"CREATE INDEX devices_by_last_seen ON devices (last_seen, id);"
	"CREATE INDEX devices_by_model ON devices (device_model, last_seen, id);"
	"CREATE INDEX device_groups_by_name ON device_groups (group_name, device_id);"
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
	"CREATE INDEX events_by_device ON ota_events (device_id, id);"
	"CREATE INDEX events_by_rollout ON ota_events (rollout_id, id)"
	" WHERE rollout_id IS NOT NULL;"
	"CREATE INDEX events_by_somebody ON ota_events (id) WHERE created_by IS NOT NULL;"
	/* Raised once while it holds. */
	"CREATE UNIQUE INDEX one_open_alert ON ota_alerts (kind, subject)"
	" WHERE cleared_at IS NULL;"
	"CREATE INDEX webhooks_by_alert ON ota_webhooks (alert_id);"
	"CREATE INDEX webhooks_waiting ON ota_webhooks (target, tries, id)"
	" WHERE given_up_at IS NULL;"
	"CREATE FUNCTION ota_events_are_kept() RETURNS trigger LANGUAGE plpgsql AS"
	" $$ BEGIN RAISE EXCEPTION 'ota_events is append-only'; END $$;"
	"CREATE TRIGGER ota_events_are_kept BEFORE UPDATE OR DELETE ON ota_events"
	" FOR EACH ROW EXECUTE FUNCTION ota_events_are_kept();";

/* Each migration is the statements of up to three texts. */
#define PARTS 3
/* What a device goes back to when its release is taken back. */
static const char going_back[] =
	"ALTER TABLE devices ADD COLUMN ran_from text;"
	"UPDATE devices d SET ran_from = (SELECT u.from_version FROM device_update_status u"
	" WHERE u.device_id = d.device_id AND u.release_id = d.ran_release_id"
	" AND u.status = 'success' ORDER BY u.id DESC LIMIT 1) WHERE d.ran_release_id <> 0;";

/* What is old goes, and is counted by day for good. */
static const char retention[] =
	"CREATE TABLE ota_daily_attempts ("
	" day date NOT NULL, rollout_id bigint NOT NULL, release_id bigint NOT NULL,"
	" firmware_version text NOT NULL, status text NOT NULL, closed text NOT NULL,"
	" unsolicited integer NOT NULL, attempts bigint NOT NULL,"
	" PRIMARY KEY (rollout_id, day, release_id, firmware_version, status, closed,"
	"  unsolicited));"
	"ALTER TABLE rollout_configurations ADD COLUMN pruned_at timestamptz;"
	"CREATE OR REPLACE FUNCTION ota_events_are_kept() RETURNS trigger LANGUAGE plpgsql AS"
	" $$ BEGIN IF TG_OP = 'DELETE' AND OLD.created_at < (SELECT value::timestamptz"
	"  FROM service_state WHERE key = 'pruning') THEN RETURN OLD; END IF;"
	" RAISE EXCEPTION 'ota_events is append-only'; END $$;";

/* Lists by what is rare, or is not there at all, among millions. */
static const char rare[] = "CREATE INDEX updates_by_status ON device_update_status (status, id)"
			   " WHERE status <> 'success';"
			   "CREATE INDEX events_by_type ON ota_events (event_type, id);"
			   "CREATE INDEX events_by_version ON ota_events (firmware_version, id);";

static const char *const migrations[][PARTS] = {
	{tables, adoption, indexes}, {going_back}, {retention}, {rare}};
#define MIGRATIONS ((int)(sizeof migrations / sizeof migrations[0]))

static enum ota_code run(struct postgres_store *s, const char *sql, struct ota_err *err)
{
	PGresult *res = pg_run(s, s->db, sql, 0, NULL, -1, NULL, err);

	PQclear(res);
	return res ? OTA_OK : err->code;
}

static enum ota_code apply(struct postgres_store *s, int number, struct ota_err *err)
{
	char note[128];

	for (int i = 0; i < PARTS && migrations[number - 1][i]; i++)
		if (run(s, migrations[number - 1][i], err) != OTA_OK)
			return ota_wrap(err, "migration %d", number);
	snprintf(note, sizeof note, "INSERT INTO ota_schema (version) VALUES (%d)", number);
	if (run(s, note, err) != OTA_OK)
		return err->code;
	log_event(LOG_INFO, "store", "migrated", "the database %s to version %d", s->where, number);
	return OTA_OK;
}

static enum ota_code migrate(struct postgres_store *s, struct ota_err *err)
{
	char version[16];
	enum ota_code rc;

	if ((rc = run(s,
		      "SET LOCAL statement_timeout = 0;"
		      "SELECT pg_advisory_xact_lock(" PG_MIGRATION_LOCK ");"
		      "CREATE TABLE IF NOT EXISTS ota_schema (version integer PRIMARY KEY,"
		      " applied_at timestamptz NOT NULL DEFAULT now())",
		      err)) != OTA_OK ||
	    (rc = pg_ask(s, s->db, "SELECT coalesce(max(version), 0) FROM ota_schema", 0, NULL,
			 version, sizeof version, err)) != OTA_OK)
		return rc;
	int at = atoi(version);
	if (at > MIGRATIONS)
		return ota_fail(
			err, OTA_ECONFLICT,
			"the database %s has schema version %d and this program knows %d: it was "
			"made by a newer paku-otad; use that one, or restore the backup from "
			"before",
			s->where, at, MIGRATIONS);
	for (int i = at + 1; i <= MIGRATIONS && rc == OTA_OK; i++)
		rc = apply(s, i, err);
	return rc;
}

/* All of them in one transaction: a start that fails has changed nothing. */
enum ota_code pg_migrate(struct postgres_store *s, struct ota_err *err)
{
	enum ota_code rc = run(s, "BEGIN", err);
	struct ota_err other;

	if (rc == OTA_OK)
		rc = migrate(s, err);
	if (rc == OTA_OK)
		return run(s, "COMMIT", err);
	(void)run(s, "ROLLBACK", &other);
	return rc;
}
