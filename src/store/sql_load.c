/* SPDX-License-Identifier: MIT */
/*
 * What the fleet is made of at start, and the look-up of what is not in memory.  The committer's,
 * on its connection.
 */
#include "store/sql.h"

#include "base/hash.h"
#include "core/target.h"

#include <stdio.h>
#include <string.h>

/* A loading visitor, and what came of it. */
typedef enum ota_code load_fn(struct row *r, const struct store_loader *l, struct ota_err *err);
struct load_visit {
	load_fn *fn;
	const struct store_loader *l;
	struct ota_err *err;
	enum ota_code rc;
};

static bool load_row(struct row *r, void *ctx)
{
	struct load_visit *v = ctx;

	v->rc = v->fn(r, v->l, v->err);
	return v->rc == OTA_OK;
}

static enum ota_code each_row(struct store *base, const char *sql, load_fn *fn,
			      const struct store_loader *l, struct ota_err *err)
{
	struct load_visit v = {fn, l, err, OTA_OK};
	struct select q;

	select_begin(&q, sql);
	enum ota_code rc = select_run_own(base, &q, load_row, &v, err);
	return v.rc != OTA_OK ? v.rc : rc;
}

static enum ota_code load_release(struct row *r, const struct store_loader *l, struct ota_err *err)
{
	struct row_release row = {
		.id = column_number(r, 0),
		.version = column_text(r, 1),
		.device_model = column_text(r, 2),
		.min_version = column_text(r, 3),
		.file_size = column_number(r, 4),
		.sha256 = column_text(r, 5),
		.release_notes = column_text(r, 6),
		.created_at = column_time(r, 7),
		.metadata = column_text(r, 8),
		.learnt = column_text(r, 9),
		.suspect_at = column_time(r, 11),
	};
	return l->release(l->ctx, &row, column_time(r, 10), err);
}

static enum ota_code load_rollout(struct row *r, const struct store_loader *l, struct ota_err *err)
{
	struct row_rollout row = read_rollout(r);

	return l->rollout(l->ctx, &row, err);
}

static enum ota_code load_state(struct row *r, const struct store_loader *l, struct ota_err *err)
{
	return l->state ? l->state(l->ctx, column_text(r, 0), column_text(r, 1), err) : OTA_OK;
}

/* False: the device was never heard over MQTT. */
static bool read_link(struct row *r, struct device_link *l)
{
	size_t len = 0;
	const void *heard = r->ops->bytes(r, 21, &len);

	*l = (struct device_link){
		.site = column_text_or_empty(r, 15),
		.form = (enum topic_form)(int)column_number(r, 16),
		.presence_us = column_time_us(r, 18),
		.other_site = column_text_or_empty(r, 19),
		.conflict_us = column_time_us(r, 20),
		.heard_us = column_time_us(r, 22),
		.silent_us = column_time_us(r, 23),
	};
	/* In the order of bytes of the machine that wrote it: elsewhere it is of no use, and no
	 * harm.
	 */
	if (heard && len == sizeof l->heard)
		memcpy(l->heard, heard, sizeof l->heard);
	if (!r->ops->is_null(r, 17))
		l->presence = column_number(r, 17) ? PRESENCE_ONLINE : PRESENCE_OFFLINE;
	return l->form != TOPIC_FORM_NONE;
}

static enum ota_code load_device(struct row *r, const struct store_loader *l, struct ota_err *err)
{
	struct device_digests digests = {0};
	struct device_link link;
	struct device_state state = {
		.model = column_text_or_empty(r, 3),
		.version = column_text_or_empty(r, 4),
		.hw = column_text_or_empty(r, 7),
		.boot_hash = (uint64_t)column_number(r, 8),
		.booted_us = column_time_us(r, 9),
		.boot_seen_us = column_time_us(r, 10),
		.ran_release_id = column_number(r, 13),
		.ran_as = column_text_or_empty(r, 14),
		.retry_us = column_time_us(r, 24),
		.ran_from = column_text_or_empty(r, 26),
	};
	struct row_device row = {
		.id = column_number(r, 0),
		.device_id = column_text(r, 1),
		.last_seen = column_time(r, 5),
		.created_at = column_time(r, 6),
		.habit_us = column_number(r, 25),
	};
	const char *mac = column_text(r, 2);

	if (mac && !mac_parse(mac, &state.mac))
		state.mac = 0;
	digests.has_firmware =
		hex_decode(column_text_or_empty(r, 11), digests.firmware, sizeof digests.firmware);
	digests.has_elf = hex_decode(column_text_or_empty(r, 12), digests.elf, sizeof digests.elf);
	if (digests.has_firmware || digests.has_elf)
		state.digests = &digests;
	if (read_link(r, &link))
		state.link = &link;
	return l->device(l->ctx, &row, &state, err);
}

static enum ota_code load_group(struct row *r, const struct store_loader *l, struct ota_err *err)
{
	return l->group(l->ctx, column_text(r, 0), column_text(r, 1), err);
}

static enum ota_code load_failures(struct row *r, const struct store_loader *l, struct ota_err *err)
{
	struct failure_count f = {
		.release_id = column_number(r, 1),
		.count = (int)column_number(r, 2),
		.passing = (int)column_number(r, 3),
		.code = (int)column_number(r, 4),
	};
	return l->failures(l->ctx, column_text(r, 0), &f, err);
}

#define ATTEMPT_COLUMNS                                                                            \
	"id, release_id, rollout_id, status, closed, unsolicited, settled, progress_percent,"      \
	" opened_at, reported_at, installing_at, firmware_version, from_version, attempt_id,"      \
	" device_id, completed_at, commanded_at, commands, accepted_at "

/* Strings in *A are the statement's. */
static bool read_attempt(struct row *r, struct attempt *a)
{
	const char *token = column_text_or_empty(r, 13);

	*a = (struct attempt){
		.id = column_number(r, 0),
		.release_id = column_number(r, 1),
		.rollout_id = column_number(r, 2),
		.unsolicited = column_number(r, 5) != 0,
		.settled = column_number(r, 6) != 0,
		.percent = column_number_or(r, 7, -1),
		.opened_us = column_time_us(r, 8),
		.reported_us = column_time_us(r, 9),
		.installing_us = column_time_us(r, 10),
		.commanded_us = column_time_us(r, 16),
		.commands = (int)column_number(r, 17),
		.accepted_us = column_time_us(r, 18),
		.version = column_text_or_empty(r, 11),
		.from_version = column_text_or_empty(r, 12),
	};
	if (strlen(token) <= ATTEMPT_TOKEN_LEN)
		strcpy(a->token, token);
	return attempt_state_from_words(column_text_or_empty(r, 3), column_text(r, 4), &a->state);
}

static enum ota_code load_attempt(struct row *r, const struct store_loader *l, struct ota_err *err)
{
	struct attempt a;

	if (!read_attempt(r, &a))
		return ota_fail(err, OTA_EINTERNAL, "attempt %lld has a status nobody writes",
				(long long)a.id);
	return l->attempt(l->ctx, column_text(r, 14), &a, err);
}

enum ota_code sql_load(struct store *base, const struct store_loader *l, struct ota_err *err)
{
	static const struct {
		const char *sql;
		load_fn *fn;
	} steps[] = {
		{"SELECT key, value FROM service_state", load_state},
		{"SELECT id, version, device_model, min_version, file_size, checksum_sha256,"
		 " release_notes, created_at, metadata, learnt_versions, deleted_at,"
		 " suspect_at"
		 " FROM firmware_releases ORDER BY id",
		 load_release},
		{"SELECT " ROLLOUT_COLUMNS
		 " FROM rollout_configurations WHERE release_id IS NOT NULL ORDER BY id",
		 load_rollout},
		{"SELECT id, device_id, mac_address, device_model, current_firmware_version, "
		 "last_seen,"
		 " created_at, hw, boot_hash, booted_at, boot_seen_at, firmware_digest, "
		 "app_elf_sha256,"
		 " ran_release_id, ran_as, site, topic_form, online, presence_at, other_site,"
		 " conflict_at, heard, heard_at, silent_at, retry_at, habit_us, ran_from"
		 " FROM devices",
		 load_device},
		{"SELECT device_id, group_name FROM device_groups ORDER BY device_id, group_name",
		 load_group},
		{"SELECT device_id, release_id, failures, passing, result_code FROM "
		 "attempt_failures",
		 load_failures},
		{"SELECT " ATTEMPT_COLUMNS "FROM device_update_status"
		 " WHERE status = 'success' AND settled = 0 AND unsolicited = 0 ORDER BY id",
		 load_attempt},
		{"SELECT " ATTEMPT_COLUMNS "FROM device_update_status"
		 " WHERE completed_at IS NULL AND unsolicited = 0",
		 load_attempt},
	};
	for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
		enum ota_code rc = each_row(base, steps[i].sql, steps[i].fn, l, err);
		if (rc != OTA_OK)
			return rc;
	}
	return OTA_OK;
}

struct gate_visit {
	enum ota_code (*visit)(void *, const struct row_event *, struct ota_err *);
	void *ctx;
	struct ota_err *err;
	enum ota_code rc;
};

static bool gate_row(struct row *r, void *ctx)
{
	struct gate_visit *v = ctx;
	struct row_event row = {
		.id = column_number(r, 0),
		.type = column_text(r, 1),
		.device_id = column_text(r, 2),
		.rollout_id = column_number(r, 3),
		.data = column_text(r, 4),
		.created_at = column_time(r, 5),
	};

	v->rc = v->visit(v->ctx, &row, v->err);
	return v->rc == OTA_OK;
}

enum ota_code sql_gate_events(struct store *base, int64_t release_id,
			      enum ota_code (*visit)(void *, const struct row_event *,
						     struct ota_err *),
			      void *ctx, struct ota_err *err)
{
	struct gate_visit v = {visit, ctx, err, OTA_OK};
	struct select q;

	select_begin(&q, "SELECT id, event_type, device_id, rollout_id, event_data, created_at"
			 " FROM ota_events");
	where_number(&q,
		     "rollout_id IN (SELECT id FROM rollout_configurations WHERE release_id = ?"
		     " AND pruned_at IS NULL)",
		     release_id);
	where_fact(&q, "event_type IN ('gate_stage','device_exposed','device_at_risk',"
		       "'device_proven','device_failed','device_silent','device_given_back',"
		       "'gate_overridden') ORDER BY id");
	enum ota_code rc = select_run_own(base, &q, gate_row, &v, err);
	return v.rc != OTA_OK ? v.rc : rc;
}

static void copy_name(char *dst, size_t size, const char *src)
{
	size_t n = strnlen(src, size - 1);

	memcpy(dst, src, n);
	dst[n] = '\0';
}

struct found_attempt {
	struct stored_attempt *out;
	struct ota_err *err;
	enum ota_code rc;
};

static bool found_row(struct row *r, void *ctx)
{
	struct found_attempt *f = ctx;
	struct stored_attempt *out = f->out;

	memset(out, 0, sizeof *out);
	if (!read_attempt(r, &out->a)) {
		f->rc = ota_fail(f->err, OTA_EINTERNAL, "attempt %lld has a status nobody writes",
				 (long long)out->a.id);
		return false;
	}
	copy_name(out->version, sizeof out->version, out->a.version);
	copy_name(out->from_version, sizeof out->from_version, out->a.from_version);
	copy_name(out->device_id, sizeof out->device_id, column_text_or_empty(r, 14));
	out->a.version = out->version;
	out->a.from_version = out->from_version;
	out->completed_us = column_time_us(r, 15);
	f->rc = OTA_OK;
	return false;
}

enum ota_code sql_find_attempt(struct store *base, const char *token, const char *device_id,
			       const char *version, struct stored_attempt *out, struct ota_err *err)
{
	struct found_attempt f = {out, err, OTA_ENOTFOUND};
	struct select q;
	char with_v[160];

	select_begin(&q, "SELECT " ATTEMPT_COLUMNS "FROM device_update_status");
	where_text(&q, "attempt_id = ?", token);
	if (!token) {
		/* A leading v counts for nothing. */
		snprintf(with_v, sizeof with_v, "v%s",
			 version[0] == 'v' && version[1] ? version + 1 : version);
		where_text(&q, "device_id = ?", device_id);
		where_text(&q, "firmware_version IN (?", with_v + 1);
		select_value(&q, ", ", with_v, 0, ")");
		select_limit(&q, "id DESC", 1);
	}
	enum ota_code rc = select_run_own(base, &q, found_row, &f, err);
	if (rc != OTA_OK || f.rc != OTA_ENOTFOUND)
		return rc != OTA_OK ? rc : f.rc;
	return ota_fail(err, OTA_ENOTFOUND, "no such attempt");
}

static bool last_id_row(struct row *r, void *ctx)
{
	*(int64_t *)ctx = column_number(r, 0);
	return false;
}

enum ota_code sql_last_ids(struct store *s, int64_t last_id[ID_KINDS], struct ota_err *err)
{
	static const char *const queries[ID_KINDS] = {
		[ID_DEVICE] = "SELECT max(id) FROM devices",
		[ID_ATTEMPT] = "SELECT max(id) FROM device_update_status",
		[ID_RELEASE] = "SELECT max(id) FROM firmware_releases",
		[ID_ROLLOUT] = "SELECT max(id) FROM rollout_configurations",
		[ID_ALERT] = "SELECT max(id) FROM ota_alerts",
	};
	enum ota_code rc = OTA_OK;

	for (int i = 0; i < ID_KINDS && rc == OTA_OK; i++) {
		struct select q;
		select_begin(&q, queries[i]);
		rc = select_run_own(s, &q, last_id_row, &last_id[i], err);
	}
	return rc;
}
