/* SPDX-License-Identifier: MIT */
/* What devices call: the check for an update, and the report about one. */
#include "http/request.h"

#include "base/clock.h"
#include "base/hash.h"
#include "core/names.h"
#include "core/retry.h"
#include "core/target.h"

#include <stdlib.h>
#include <string.h>

#define SOFT_TRIES        5
#define ERROR_MESSAGE_MAX 2000

static const char *required(struct request *r, const char *name, const char *(*check)(const char *))
{
	const struct query_param *p = query_find(&r->query, name);

	if (!p) {
		field_errors_add(&r->errors, "query", name, FIELD_TYPE_MISSING, "field required");
		return "";
	}
	const char *wrong = p->plus_seen ? "contains a '+', which must be written %2B in a query"
					 : check(p->value);
	if (wrong)
		field_errors_add(&r->errors, "query", name, FIELD_TYPE_VALUE, "%s", wrong);
	return p->value;
}

static void optional_digest(struct request *r, const char *name, bool *has, uint8_t *out)
{
	const char *v = request_filter(r, name);
	static const uint8_t zero[DIGEST_SIZE];

	if (!v)
		return;
	if (!hex_decode(v, out, DIGEST_SIZE))
		field_errors_add(&r->errors, "query", name, FIELD_TYPE_VALUE,
				 "must be 64 hexadecimal digits (a SHA-256)");
	else
		*has = memcmp(out, zero, DIGEST_SIZE) != 0; /* some builders leave it all zero */
}

static bool read_checkin(struct request *r, struct checkin *c)
{
	const char *mac = request_filter(r, "mac"), *boot = request_filter(r, "boot_id");

	memset(c, 0, sizeof *c);
	c->device_id = required(r, "device_id", name_device_id_error);
	c->model = required(r, "device_model", name_version_error);
	c->version = required(r, "current_version", name_told_version_error);
	c->hw = request_filter(r, "hw");
	if (!c->hw)
		c->hw = "";
	else if (name_told_version_error(c->hw))
		field_errors_add(&r->errors, "query", "hw", FIELD_TYPE_VALUE, "%s",
				 name_told_version_error(c->hw));
	if (mac && !mac_parse(mac, &c->mac))
		field_errors_add(&r->errors, "query", "mac", FIELD_TYPE_VALUE,
				 "must be 12 hexadecimal digits, as in aa:bb:cc:dd:ee:ff");
	if (boot)
		c->boot_hash = hash64(boot, strlen(boot));
	c->has_uptime = request_filter(r, "uptime_s") &&
			field_query_int(&r->errors, &r->query, "uptime_s", false, 0,
					INT64_C(10000000000), &c->uptime_s);
	optional_digest(r, "firmware_digest", &c->digests.has_firmware, c->digests.firmware);
	optional_digest(r, "app_elf_sha256", &c->digests.has_elf, c->digests.elf);
	return !field_errors_any(&r->errors);
}

/* The poll interval, a fifth more or less: a fleet after a power cut does not stay in step. */
static int64_t jittered_poll(const struct request *r)
{
	int64_t s = r->server->cfg->poll_interval_s;
	int64_t spread = s * 2 / 5;

	s = s - s / 5 + (spread ? (int64_t)(r->chance % (uint64_t)(spread + 1)) : 0);
	return s > 0 ? s : 1;
}

/*
 * When to come again.  Never later than by the interval, because other rollouts may have no window.
 * A device that would come before its window and then after it is called into it; those of a fleet
 * are spread over the window, or over an interval where the window is longer.
 */
static int64_t come_again_s(const struct request *r, const struct decision *x)
{
	int64_t poll_s = jittered_poll(r), now_us = x->now_us;

	if (x->reason != REASON_OUTSIDE_WINDOW)
		return poll_s;
	int64_t opens_us = window_next_change_us(x->window, now_us);
	if (opens_us == INT64_MAX || (opens_us - now_us) / US_PER_S >= poll_s)
		return poll_s;
	int64_t shuts_us = window_next_change_us(x->window, opens_us);
	int64_t spread_us = r->server->cfg->poll_interval_s * US_PER_S;
	if (shuts_us != INT64_MAX && (shuts_us - opens_us) / 2 < spread_us)
		spread_us = (shuts_us - opens_us) / 2;
	int64_t at_us = opens_us + (int64_t)(r->chance % (uint64_t)(spread_us + 1));
	int64_t wait_s = (at_us - now_us) / US_PER_S + 1;
	return wait_s < poll_s ? wait_s : poll_s;
}

/* What the device's download URL begins with.  With the plan held. */
static void base_for(struct request *r, const char *device_id, char *out, size_t size)
{
	const struct download_bases *bases = r->server->cfg->download_bases;
	const struct device *d = bases ? fleet_lock_device(r->server->fleet, device_id) : NULL;
	const char *base = d ? download_base_find(bases, &d->state) : NULL;

	if (d)
		fleet_unlock_device(r->server->fleet, d);
	if (base)
		snprintf(out, size, "%s", base);
	else
		request_base_url(r, out, size);
}

static void add_offer(struct request *r, struct buf *b, const char *device_id,
		      const struct soft_answer *a)
{
	const struct release *rel = a->decision.release;
	char base[160], path[3 * NAME_MAX_LEN + 1], *to = path, url[640], hex[SHA256_HEX_SIZE];

	base_for(r, device_id, base, sizeof base);
	/* '+' is the only character of a version that a path cannot hold as it is everywhere. */
	for (const char *p = rel->version; *p; p++) {
		*to++ = *p == '+' ? '%' : *p;
		if (*p == '+') {
			*to++ = '2';
			*to++ = 'B';
		}
	}
	*to = '\0';
	snprintf(url, sizeof url, "%s/api/firmware/download/%s?attempt=%s", base, path, a->token);
	hex_encode(rel->sha256, SHA256_SIZE, hex);
	json_str(b, "latest_version", rel->version);
	json_str(b, "download_url", url);
	json_int(b, "file_size", rel->file_size);
	json_str(b, "checksum_sha256", hex);
	json_str(b, "release_notes", rel->release_notes[0] ? rel->release_notes : NULL);
	json_int(b, "release_id", rel->id);
	if (a->decision.rollout)
		json_int(b, "rollout_id", a->decision.rollout->id);
	else
		json_nil(b, "rollout_id");
	json_str(b, "attempt_id", a->token);
}

static void add_no_offer(struct buf *b, const struct soft_answer *a)
{
	static const char *const absent[] = {"download_url",  "file_size",  "checksum_sha256",
					     "release_notes", "release_id", "rollout_id",
					     "attempt_id"};

	json_str(b, "latest_version", a->latest ? a->latest->version : NULL);
	for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++)
		json_nil(b, absent[i]);
}

/* With the plan held. */
static void write_check_answer(struct request *r, const struct checkin *c,
			       const struct soft_answer *a)
{
	struct buf *b = respond_begin(r, 200);
	bool offers = decision_offers(&a->decision);

	json_bool(b, "update_available", offers);
	json_str(b, "current_version", c->version);
	if (offers)
		add_offer(r, b, c->device_id, a);
	else
		add_no_offer(b, a);
	json_str(b, "reason", reason_name(a->decision.reason));
	json_int(b, "retry_after_s", come_again_s(r, &a->decision));
	respond_end(r);
}

/* True: the answer was in memory, and is made. */
static bool try_soft(struct request *r)
{
	struct soft_answer a;

	fleet_plan_read(r->server->fleet);
	bool soft = committer_soft_checkin(r->server->committer, &r->command.checkin, &a);
	if (soft)
		write_check_answer(r, &r->command.checkin, &a);
	fleet_plan_done(r->server->fleet);
	return soft;
}

static enum next after_checkin(struct request *r)
{
	if (r->command.code != OTA_OK) {
		r->retry_after_s = r->command.retry_after_s;
		return respond_err(r, &r->command.err);
	}
	if (try_soft(r))
		return NEXT_ANSWER;
	/* Something changed in between (a rollout, another report): ask again, within reason. */
	if (++r->tries < SOFT_TRIES)
		return request_submit(r, after_checkin);
	return respond_error(r, OTA_EUNAVAIL, "too much changes at once; come again");
}

enum next device_check(struct request *r)
{
	r->command.kind = COMMAND_CHECKIN;
	if (!read_checkin(r, &r->command.checkin))
		return respond_fields(r);
	if (try_soft(r))
		return NEXT_ANSWER;
	return request_submit(r, after_checkin);
}

/* --- reports --- */

static enum next after_report(struct request *r)
{
	if (r->command.code != OTA_OK) {
		r->retry_after_s = r->command.retry_after_s;
		return respond_err(r, &r->command.err);
	}
	return respond_ok(r, r->command.out.existed ? "already known" : "recorded");
}

static bool read_report(struct request *r, struct report *rep)
{
	static const char *const words[] = {"pending", "downloading", "downloaded", "installing",
					    "success", "failed",      "rolled_back"};
	struct json_fields f = {.object = r->json, .errors = &r->errors};
	const char *device_id = NULL;
	int64_t percent = -1, code = 0;
	size_t word = 0;

	memset(rep, 0, sizeof *rep);
	rep->device_id = r->args[0];
	json_field_string(&f, "device_id", true, 0, 100000, &device_id);
	if (device_id && strcmp(device_id, rep->device_id) != 0)
		field_errors_add(&r->errors, "body", "device_id", FIELD_TYPE_VALUE,
				 "contradicts the path, which names %s", rep->device_id);
	if (json_field_string(&f, "firmware_version", true, 0, 100000, &rep->version) &&
	    name_told_version_error(rep->version))
		field_errors_add(&r->errors, "body", "firmware_version", FIELD_TYPE_VALUE, "%s",
				 name_told_version_error(rep->version));
	if (json_field_word(&f, "status", true, words, sizeof words / sizeof words[0], &word))
		rep->event = attempt_event_from_status(words[word]);
	json_field_string(&f, "error_message", false, 0, BODY_MAX, &rep->error_message);
	json_field_int(&f, "progress_percent", false, 0, 100, &percent);
	json_field_string(&f, "attempt_id", false, 0, 64, &rep->attempt_token);
	json_field_int(&f, "result_code", false, 0, RESULT_CODE_LAST, &code);
	rep->code = (int)code;
	rep->percent = (int)percent;
	return !field_errors_any(&r->errors);
}

/* A device's words are kept, but not without end; cut where a character ends.  False: no memory. */
static bool shorten_error(struct request *r, struct report *rep)
{
	size_t n = ERROR_MESSAGE_MAX;

	if (!rep->error_message || strlen(rep->error_message) <= n)
		return true;
	while (n > 0 && ((unsigned char)rep->error_message[n] & 0xC0) == 0x80)
		n--;
	r->memory = strndup(rep->error_message, n);
	rep->error_message = r->memory;
	return r->memory != NULL;
}

enum next device_report(struct request *r)
{
	if (!request_device_id(r, r->args[0]) || !request_json(r))
		return NEXT_ANSWER;
	r->command.kind = COMMAND_REPORT;
	if (!read_report(r, &r->command.report))
		return respond_fields(r);
	if (!shorten_error(r, &r->command.report))
		return respond_error(r, OTA_ENOMEM, "out of memory");
	return request_submit(r, after_report);
}
