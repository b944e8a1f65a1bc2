/* SPDX-License-Identifier: MIT */
/* SQLite: what the fleet is made of at start, and the look-up of attempts that are not in memory.
 */
#include "store/sqlite.h"

#include "base/hash.h"
#include "core/target.h"

#include <stdlib.h>
#include <string.h>

typedef enum ota_code row_fn(sqlite3_stmt *st, const struct store_loader *l, struct ota_err *err);

static enum ota_code each_row(struct sqlite_store *s, const char *sql, row_fn *fn,
			      const struct store_loader *l, struct ota_err *err)
{
	sqlite3_stmt *st = NULL;
	enum ota_code rc = OTA_OK;
	int step = SQLITE_DONE;

	if (sqlite3_prepare_v2(s->db, sql, -1, &st, NULL) != SQLITE_OK)
		return sqlite_fail(s, s->db, "reading", err);
	while (rc == OTA_OK && (step = sqlite3_step(st)) == SQLITE_ROW)
		rc = fn(st, l, err);
	if (rc == OTA_OK && step != SQLITE_DONE)
		rc = sqlite_fail(s, s->db, "reading", err);
	sqlite3_finalize(st);
	return rc;
}

static const char *text_or_empty(sqlite3_stmt *st, int column)
{
	const char *t = sqlite_text(st, column);

	return t ? t : "";
}

static enum ota_code load_release(sqlite3_stmt *st, const struct store_loader *l,
				  struct ota_err *err)
{
	struct row_release row = {
		.id = sqlite3_column_int64(st, 0),
		.version = sqlite_text(st, 1),
		.device_model = sqlite_text(st, 2),
		.min_version = sqlite_text(st, 3),
		.file_size = sqlite3_column_int64(st, 4),
		.sha256 = sqlite_text(st, 5),
		.release_notes = sqlite_text(st, 6),
		.created_at = sqlite_text(st, 7),
		.metadata = sqlite_text(st, 8),
		.learnt = sqlite_text(st, 9),
	};
	return l->release(l->ctx, &row, sqlite_text(st, 10), err);
}

static enum ota_code load_rollout(sqlite3_stmt *st, const struct store_loader *l,
				  struct ota_err *err)
{
	struct row_rollout row = sqlite_rollout(st);

	return l->rollout(l->ctx, &row, err);
}

static enum ota_code load_state(sqlite3_stmt *st, const struct store_loader *l, struct ota_err *err)
{
	return l->state ? l->state(l->ctx, sqlite_text(st, 0), sqlite_text(st, 1), err) : OTA_OK;
}

/* False: the device was never heard over MQTT. */
static bool read_link(sqlite3_stmt *st, struct device_link *l)
{
	*l = (struct device_link){
		.site = text_or_empty(st, 15),
		.form = (enum topic_form)sqlite3_column_int(st, 16),
		.presence_us = sqlite_time(st, 18),
		.other_site = text_or_empty(st, 19),
		.conflict_us = sqlite_time(st, 20),
		.heard_us = sqlite_time(st, 22),
		.silent_us = sqlite_time(st, 23),
		.retry_us = sqlite_time(st, 24),
	};
	/* In the order of bytes of the machine that wrote it: elsewhere it is of no use, and no
	 * harm.
	 */
	if (sqlite3_column_bytes(st, 21) == sizeof l->heard)
		memcpy(l->heard, sqlite3_column_blob(st, 21), sizeof l->heard);
	if (sqlite3_column_type(st, 17) != SQLITE_NULL)
		l->presence = sqlite3_column_int(st, 17) ? PRESENCE_ONLINE : PRESENCE_OFFLINE;
	return l->form != TOPIC_FORM_NONE;
}

static enum ota_code load_device(sqlite3_stmt *st, const struct store_loader *l,
				 struct ota_err *err)
{
	struct device_digests digests = {0};
	struct device_link link;
	struct device_state state = {
		.model = text_or_empty(st, 3),
		.version = text_or_empty(st, 4),
		.hw = text_or_empty(st, 7),
		.boot_hash = (uint64_t)sqlite3_column_int64(st, 8),
		.booted_us = sqlite_time(st, 9),
		.boot_seen_us = sqlite_time(st, 10),
		.ran_release_id = sqlite3_column_int64(st, 13),
		.ran_as = text_or_empty(st, 14),
	};
	struct row_device row = {
		.id = sqlite3_column_int64(st, 0),
		.device_id = sqlite_text(st, 1),
		.last_seen = sqlite_text(st, 5),
		.created_at = sqlite_text(st, 6),
	};
	const char *mac = sqlite_text(st, 2);

	if (mac && !mac_parse(mac, &state.mac))
		state.mac = 0;
	digests.has_firmware =
		hex_decode(text_or_empty(st, 11), digests.firmware, sizeof digests.firmware);
	digests.has_elf = hex_decode(text_or_empty(st, 12), digests.elf, sizeof digests.elf);
	if (digests.has_firmware || digests.has_elf)
		state.digests = &digests;
	if (read_link(st, &link))
		state.link = &link;
	return l->device(l->ctx, &row, &state, err);
}

static enum ota_code load_group(sqlite3_stmt *st, const struct store_loader *l, struct ota_err *err)
{
	return l->group(l->ctx, sqlite_text(st, 0), sqlite_text(st, 1), err);
}

static enum ota_code load_failures(sqlite3_stmt *st, const struct store_loader *l,
				   struct ota_err *err)
{
	return l->failures(l->ctx, sqlite_text(st, 0), sqlite3_column_int64(st, 1),
			   sqlite3_column_int(st, 2), err);
}

#define ATTEMPT_COLUMNS                                                                            \
	"id, release_id, rollout_id, status, closed, unsolicited, settled, progress_percent,"      \
	" opened_at, reported_at, installing_at, firmware_version, from_version, attempt_id,"      \
	" device_id, completed_at, commanded_at, commands, accepted_at "

/* Strings in *A are the statement's. */
static bool read_attempt(sqlite3_stmt *st, struct attempt *a)
{
	const char *token = text_or_empty(st, 13);

	*a = (struct attempt){
		.id = sqlite3_column_int64(st, 0),
		.release_id = sqlite3_column_int64(st, 1),
		.rollout_id = sqlite3_column_int64(st, 2),
		.unsolicited = sqlite3_column_int(st, 5),
		.settled = sqlite3_column_int(st, 6),
		.percent =
			sqlite3_column_type(st, 7) == SQLITE_NULL ? -1 : sqlite3_column_int(st, 7),
		.opened_us = sqlite_time(st, 8),
		.reported_us = sqlite_time(st, 9),
		.installing_us = sqlite_time(st, 10),
		.commanded_us = sqlite_time(st, 16),
		.commands = sqlite3_column_int(st, 17),
		.accepted_us = sqlite_time(st, 18),
		.version = text_or_empty(st, 11),
		.from_version = text_or_empty(st, 12),
	};
	if (strlen(token) <= ATTEMPT_TOKEN_LEN)
		strcpy(a->token, token);
	return attempt_state_from_words(text_or_empty(st, 3), sqlite_text(st, 4), &a->state);
}

static enum ota_code load_attempt(sqlite3_stmt *st, const struct store_loader *l,
				  struct ota_err *err)
{
	struct attempt a;

	if (!read_attempt(st, &a))
		return ota_fail(err, OTA_EINTERNAL, "attempt %lld has a status nobody writes",
				(long long)a.id);
	return l->attempt(l->ctx, sqlite_text(st, 14), &a, err);
}

enum ota_code sqlite_load(struct store *base, const struct store_loader *l, struct ota_err *err)
{
	static const struct {
		const char *sql;
		row_fn *fn;
	} steps[] = {
		{"SELECT key, value FROM service_state", load_state},
		{"SELECT id, version, device_model, min_version, file_size, checksum_sha256,"
		 " release_notes, created_at, metadata, learnt_versions, deleted_at"
		 " FROM firmware_releases ORDER BY id",
		 load_release},
		{"SELECT " ROLLOUT_COLUMNS " FROM rollout_configurations ORDER BY id",
		 load_rollout},
		{"SELECT id, device_id, mac_address, device_model, current_firmware_version, "
		 "last_seen,"
		 " created_at, hw, boot_hash, booted_at, boot_seen_at, firmware_digest, "
		 "app_elf_sha256,"
		 " ran_release_id, ran_as, site, topic_form, online, presence_at, other_site,"
		 " conflict_at, heard, heard_at, silent_at, retry_at"
		 " FROM devices",
		 load_device},
		{"SELECT device_id, group_name FROM device_groups ORDER BY device_id, group_name",
		 load_group},
		{"SELECT device_id, release_id, failures FROM attempt_failures", load_failures},
		{"SELECT " ATTEMPT_COLUMNS "FROM device_update_status"
		 " WHERE status = 'success' AND settled = 0 AND unsolicited = 0 ORDER BY id",
		 load_attempt},
		{"SELECT " ATTEMPT_COLUMNS "FROM device_update_status"
		 " WHERE completed_at IS NULL AND unsolicited = 0",
		 load_attempt},
	};
	struct sqlite_store *s = (struct sqlite_store *)base;

	for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
		enum ota_code rc = each_row(s, steps[i].sql, steps[i].fn, l, err);
		if (rc != OTA_OK)
			return rc;
	}
	return OTA_OK;
}

static void copy_name(char *dst, size_t size, const char *src)
{
	size_t n = strnlen(src, size - 1);

	memcpy(dst, src, n);
	dst[n] = '\0';
}

enum ota_code sqlite_find_attempt(struct store *base, const char *token, const char *device_id,
				  const char *version, struct stored_attempt *out,
				  struct ota_err *err)
{
	struct sqlite_store *s = (struct sqlite_store *)base;
	sqlite3_stmt *st = NULL;
	const char *sql =
		token ? "SELECT " ATTEMPT_COLUMNS "FROM device_update_status WHERE attempt_id = ?1"
		      : "SELECT " ATTEMPT_COLUMNS "FROM device_update_status WHERE device_id = ?1"
			" AND firmware_version IN (?2, 'v' || ?2) ORDER BY id DESC LIMIT 1";
	enum ota_code rc;

	if (sqlite3_prepare_v2(s->db, sql, -1, &st, NULL) != SQLITE_OK)
		return sqlite_fail(s, s->db, "reading", err);
	sqlite3_bind_text(st, 1, token ? token : device_id, -1, SQLITE_STATIC);
	if (!token)
		sqlite3_bind_text(st, 2, version[0] == 'v' && version[1] ? version + 1 : version,
				  -1, SQLITE_STATIC); /* a leading v counts for nothing */
	switch (sqlite3_step(st)) {
	case SQLITE_ROW:
		memset(out, 0, sizeof *out);
		if (!read_attempt(st, &out->a)) {
			rc = ota_fail(err, OTA_EINTERNAL, "attempt %lld has a status nobody writes",
				      (long long)out->a.id);
			break;
		}
		copy_name(out->version, sizeof out->version, out->a.version);
		copy_name(out->from_version, sizeof out->from_version, out->a.from_version);
		copy_name(out->device_id, sizeof out->device_id, text_or_empty(st, 14));
		out->a.version = out->version;
		out->a.from_version = out->from_version;
		out->completed_us = sqlite_time(st, 15);
		rc = OTA_OK;
		break;
	case SQLITE_DONE: rc = ota_fail(err, OTA_ENOTFOUND, "no such attempt"); break;
	default: rc = sqlite_fail(s, s->db, "reading", err);
	}
	sqlite3_finalize(st);
	return rc;
}
