/* SPDX-License-Identifier: MIT */
#include "mqtt/payload.h"

#include "base/buf.h"
#include "base/hash.h"
#include "core/target.h"
#include "json/json_body.h"

#include <stdio.h>
#include <string.h>

static const char *const reason_names[REJECT_REASONS] = {
	[REJECT_TOPIC] = "topic",       [REJECT_TOO_LARGE] = "too_large",
	[REJECT_EMPTY] = "empty",       [REJECT_NOT_JSON] = "not_json",
	[REJECT_FIELD] = "wrong_field", [REJECT_DEVICE] = "other_device",
};

const char *reject_reason_name(enum reject_reason r)
{
	return reason_names[r];
}

static const char *const code_names[] = {
	"success",
	"wifi not connected",
	"download failed",
	"verification failed",
	"install failed",
	"no partition",
	"invalid url",
	"timeout",
	"insufficient space",
	"invalid firmware",
	"already running",
	"rollback failed",
};
#define CODES           (int64_t)(sizeof code_names / sizeof code_names[0])
#define ALREADY_RUNNING 10

const char *result_code_name(int64_t code)
{
	return code >= 0 && code < CODES ? code_names[code] : NULL;
}

/* --- topics --- */

/* Copies the level at *at, up to the next '/' or the end; false: too long. */
static bool take_level(const char **at, char *out)
{
	size_t n = strcspn(*at, "/");

	if (n > NAME_MAX_LEN)
		return false;
	memcpy(out, *at, n);
	out[n] = '\0';
	*at += n;
	if (**at == '/')
		(*at)++;
	return true;
}

static const struct {
	const char *path;
	enum message_kind kind;
} endings[] = {
	{"status", MESSAGE_STATUS},
	{"ota/status", MESSAGE_OTA_STATUS},
	{"ota/progress", MESSAGE_OTA_PROGRESS},
	{"ota/result", MESSAGE_OTA_RESULT},
};

bool topic_parse(const char *topic, struct topic *out, struct ota_err *err)
{
	char form[NAME_MAX_LEN + 1];
	const char *at = topic;

	memset(out, 0, sizeof *out);
	if (!take_level(&at, out->site) || !take_level(&at, form) ||
	    !take_level(&at, out->device_id)) {
		out->device_id[0] = '\0';
		ota_fail(err, OTA_EINVAL, "a level of the topic has more than %d characters",
			 NAME_MAX_LEN);
		return false;
	}
	const char *wrong = name_device_id_error(out->device_id);
	if (wrong || name_device_id_error(out->site)) {
		out->device_id[0] = '\0';
		ota_fail(err, OTA_EINVAL,
			 wrong ? "the topic's device id %s" : "the topic's site %s",
			 wrong ? wrong : name_device_id_error(out->site));
		return false;
	}
	out->form = strcmp(form, "edge") == 0      ? TOPIC_FORM_EDGE
		    : strcmp(form, "devices") == 0 ? TOPIC_FORM_DEVICES
						   : TOPIC_FORM_NONE;
	for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++)
		if (out->form != TOPIC_FORM_NONE && strcmp(at, endings[i].path) == 0) {
			out->kind = endings[i].kind;
			return true;
		}
	ota_fail(err, OTA_EINVAL,
		 "the topic is none of {site}/edge/{device_id}/status and .../ota/status, "
		 "ota/progress, ota/result");
	return false;
}

/* --- payloads --- */

/* What reading a payload works with. */
struct reading {
	const struct topic *topic;
	struct message *out;
	enum reject_reason *reason;
	struct ota_err *err;
};

static bool wrong_field(struct reading *r, const char *name, const char *right)
{
	*r->reason = REJECT_FIELD;
	ota_fail(r->err, OTA_EINVAL, "%s %s", name, right);
	return false;
}

/* *out stays as it is when the field is absent or null. */
static bool get_string(struct reading *r, const char *name, const char **out)
{
	const json_t *v = json_object_get(r->out->root, name);

	if (!v || json_is_null(v))
		return true;
	if (!json_is_string(v))
		return wrong_field(r, name, "must be a string");
	*out = json_string_value(v);
	return true;
}

/* The first of NAMES that is there, checked. */
static bool get_name(struct reading *r, const char *const *names,
		     const char *(*check)(const char *), const char **out)
{
	for (; *names; names++) {
		const char *v = NULL;
		if (!get_string(r, *names, &v))
			return false;
		if (!v)
			continue;
		if (check(v))
			return wrong_field(r, *names, check(v));
		*out = v;
		return true;
	}
	return true;
}

static bool get_bool(struct reading *r, const char *name, bool *there, bool *out)
{
	const json_t *v = json_object_get(r->out->root, name);

	*there = v && !json_is_null(v);
	if (!*there)
		return true;
	if (!json_is_boolean(v))
		return wrong_field(r, name, "must be true or false");
	*out = json_is_true(v);
	return true;
}

static bool get_int(struct reading *r, const char *name, int64_t min, int64_t max, bool *there,
		    int64_t *out)
{
	const json_t *v = json_object_get(r->out->root, name);
	char right[80];

	*there = v && !json_is_null(v);
	if (!*there)
		return true;
	if (json_is_integer(v) && json_integer_value(v) >= min && json_integer_value(v) <= max) {
		*out = json_integer_value(v);
		return true;
	}
	snprintf(right, sizeof right, "must be a whole number from %lld to %lld", (long long)min,
		 (long long)max);
	return wrong_field(r, name, right);
}

static bool get_version(struct reading *r)
{
	static const char *const names[] = {"target_version", "version", NULL};

	return get_name(r, names, name_told_version_error, &r->out->version);
}

static bool get_token(struct reading *r)
{
	if (!get_string(r, "attempt_id", &r->out->attempt_token))
		return false;
	return !r->out->attempt_token || strlen(r->out->attempt_token) <= 64 ||
	       wrong_field(r, "attempt_id", "must be the 13 characters of the command's URL");
}

/* --- .../status --- */

static bool get_digest(struct reading *r, const char *name, bool *has, uint8_t *out)
{
	static const uint8_t zero[DIGEST_SIZE];
	const char *v = NULL;

	if (!get_string(r, name, &v))
		return false;
	if (v && !hex_decode(v, out, DIGEST_SIZE))
		return wrong_field(r, name, "must be 64 hexadecimal digits (a SHA-256)");
	*has = v && memcmp(out, zero, DIGEST_SIZE) != 0; /* some builders leave it all zero */
	return true;
}

/* Text or a number: both are only held against the one before. */
static bool get_boot(struct reading *r)
{
	const json_t *v = json_object_get(r->out->root, "boot_id");
	char number[24];

	if (json_is_string(v)) {
		r->out->facts.boot_hash =
			hash64(json_string_value(v), strlen(json_string_value(v)));
	} else if (json_is_integer(v)) {
		int n = snprintf(number, sizeof number, "%lld", (long long)json_integer_value(v));
		r->out->facts.boot_hash = hash64(number, (size_t)n);
	} else if (v && !json_is_null(v)) {
		return wrong_field(r, "boot_id", "must be a string or a whole number");
	}
	return true;
}

static bool read_status(struct reading *r)
{
	static const char *const models[] = {"device_model", "model", NULL};
	static const char *const versions[] = {"firmware_version", "version", "current_version",
					       NULL};
	static const char *const hw[] = {"hw", NULL};
	struct checkin *f = &r->out->facts;
	const char *mac = NULL;
	bool there;

	if (!get_name(r, models, name_version_error, &f->model) ||
	    !get_name(r, versions, name_told_version_error, &f->version) ||
	    !get_name(r, hw, name_told_version_error, &f->hw) || !get_string(r, "mac", &mac) ||
	    !get_boot(r) || !get_bool(r, "online", &there, &r->out->online) ||
	    !get_int(r, "uptime_s", 0, INT64_C(10000000000), &f->has_uptime, &f->uptime_s) ||
	    !get_digest(r, "firmware_digest", &f->digests.has_firmware, f->digests.firmware) ||
	    !get_digest(r, "app_elf_sha256", &f->digests.has_elf, f->digests.elf))
		return false;
	if (mac && !mac_parse(mac, &f->mac))
		return wrong_field(r, "mac",
				   "must be 12 hexadecimal digits, as in aa:bb:cc:dd:ee:ff");
	return true;
}

/* --- .../ota/... --- */

static bool read_ota_status(struct reading *r)
{
	const char *word = NULL;

	if (!get_string(r, "status", &word) || !get_version(r))
		return false;
	if (word && strcmp(word, "accepted") == 0) {
		r->out->accepted = true;
		return true;
	}
	r->out->event = word ? attempt_event_from_status(word) : EVENT_NONE;
	r->out->accepted = r->out->event != EVENT_NONE;
	return r->out->event != EVENT_NONE ||
	       wrong_field(r, "status",
			   "must be accepted, pending, downloading, downloaded, installing, "
			   "success, failed or rolled_back");
}

static const struct {
	const char *name;
	enum attempt_event event;
} states[] = {
	{"Idle", EVENT_NONE},
	{"Checking", EVENT_NONE},
	{"Downloading", EVENT_REPORT_DOWNLOADING},
	{"Verifying", EVENT_REPORT_DOWNLOADED},
	{"Installing", EVENT_REPORT_INSTALLING},
	/* Its result, or its next version, tells the rest. */
	{"Complete", EVENT_REPORT_INSTALLING},
	{"Failed", EVENT_NONE},
	{"Rolled back", EVENT_REPORT_ROLLED_BACK},
	{"Rolled_back", EVENT_REPORT_ROLLED_BACK},
	{"RolledBack", EVENT_REPORT_ROLLED_BACK},
};

static bool read_percent(struct reading *r)
{
	const json_t *v = json_object_get(r->out->root, "percent");
	const json_t *done = json_object_get(r->out->root, "downloaded");
	const json_t *total = json_object_get(r->out->root, "total");

	if (v && !json_is_null(v)) {
		double percent = json_number_value(v);
		if (!json_is_number(v) || !(percent >= 0 && percent <= 100))
			return wrong_field(r, "percent", "must be a number from 0 to 100");
		r->out->percent = (int)percent;
	} else if (json_is_number(done) && json_number_value(total) > 0 &&
		   json_number_value(done) >= 0 &&
		   json_number_value(done) <= json_number_value(total)) {
		r->out->percent = (int)(100 * json_number_value(done) / json_number_value(total));
	}
	return true;
}

static bool read_progress(struct reading *r)
{
	const char *state = NULL;

	if (!get_string(r, "state", &state) || !get_version(r) || !read_percent(r))
		return false;
	for (size_t i = 0; state && i < sizeof states / sizeof states[0]; i++)
		if (strcasecmp(state, states[i].name) == 0) {
			r->out->event = states[i].event;
			r->out->accepted = r->out->event != EVENT_NONE;
			return true;
		}
	return wrong_field(r, "state",
			   "must be Idle, Checking, Downloading, Verifying, Installing, Complete, "
			   "Failed or Rolled back");
}

/* "download failed: connection reset", on one line. */
static void write_error(struct message *m, int64_t code, bool coded, const char *words)
{
	const char *name = coded ? result_code_name(code) : NULL;
	size_t n = (size_t)snprintf(m->error, sizeof m->error, "%s%s%s", name ? name : "",
				    name && words && words[0] ? ": " : "", words ? words : "");

	if (n >= sizeof m->error) { /* cut where a character ends */
		n = sizeof m->error - 1;
		while (n > 0 && !utf8_valid(m->error, n))
			n--;
		m->error[n] = '\0';
	}
	for (char *p = m->error; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7F)
			*p = ' ';
	if (!m->error[0])
		strcpy(m->error, "the device says that it failed");
}

static bool read_result(struct reading *r)
{
	struct message *m = r->out;
	const char *words = NULL;
	bool success = false, told, coded;
	int64_t code = 0;

	if (!get_bool(r, "success", &told, &success) ||
	    !get_int(r, "result_code", 0, CODES - 1, &coded, &code) || !get_version(r) ||
	    !get_string(r, "message", &words))
		return false;
	if (!told && !coded)
		return wrong_field(r, "success", "is missing, and so is result_code");
	if (told && coded && success != (code == 0))
		return wrong_field(r, "success", "contradicts result_code (0 is success)");
	if (!m->version)
		return wrong_field(r, "version", "is missing");
	if (!told)
		success = code == 0;
	m->accepted = true;
	/* It was told twice, and is about it: a sign of life, and no failure. */
	if (coded && code == ALREADY_RUNNING)
		return true;
	m->event = success ? EVENT_REPORT_SUCCESS : EVENT_REPORT_FAILED;
	if (!success)
		write_error(m, code, coded, words);
	return true;
}

static bool read_fields(struct reading *r)
{
	const char *device_id = NULL;

	if (!get_string(r, "device_id", &device_id) || !get_token(r))
		return false;
	if (device_id && strcmp(device_id, r->topic->device_id) != 0) {
		*r->reason = REJECT_DEVICE;
		ota_fail(r->err, OTA_EINVAL,
			 "the payload is of another device than the topic, which names %s",
			 r->topic->device_id);
		return false;
	}
	switch (r->topic->kind) {
	case MESSAGE_STATUS: return read_status(r);
	case MESSAGE_OTA_STATUS: return read_ota_status(r);
	case MESSAGE_OTA_PROGRESS: return read_progress(r);
	case MESSAGE_OTA_RESULT: return read_result(r);
	}
	return false;
}

/* Many last wills are a bare word. */
static bool is_word(const void *payload, size_t len, const char *word)
{
	return len == strlen(word) && memcmp(payload, word, len) == 0;
}

bool message_parse(const struct topic *topic, const void *payload, size_t len, struct message *out,
		   enum reject_reason *reason, struct ota_err *err)
{
	struct reading r = {topic, out, reason, err};

	*out = (struct message){
		.facts = {.device_id = "", .model = "", .version = "", .hw = ""},
		.online = true,
		.percent = -1,
	};
	if (len == 0) {
		*reason = REJECT_EMPTY;
		ota_fail(err, OTA_EINVAL, "there is no payload");
		return false;
	}
	if (len > PAYLOAD_MAX) {
		*reason = REJECT_TOO_LARGE;
		ota_fail(err, OTA_ETOOLARGE, "the payload has %zu bytes; at most %d are read", len,
			 PAYLOAD_MAX);
		return false;
	}
	if (topic->kind == MESSAGE_STATUS &&
	    (is_word(payload, len, "offline") || is_word(payload, len, "online"))) {
		out->online = len == 6;
		return true;
	}
	*reason = REJECT_NOT_JSON;
	if (json_body_parse(payload, len, &out->root, err) != OTA_OK)
		return false;
	if (read_fields(&r))
		return true;
	message_fini(out);
	return false;
}

void message_fini(struct message *m)
{
	json_decref(m->root);
	m->root = NULL;
}
