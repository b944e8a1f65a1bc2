/* SPDX-License-Identifier: MIT */
#include "mqtt/payload.h"

#include "base/hash.h"
#include "core/target.h"
#include "json/json_body.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

#define TOKEN_MAX    64
#define UPTIME_MAX_S INT64_C(10000000000)
/* A size that no image has, but every double below it is exact. */
#define ALREADY_RUNNING 10 /* a result code */
#define SIZE_SANE       1e12

const char *reject_reason_name(enum reject_reason r)
{
	static const char *const names[REJECT_REASONS] = {
		[REJECT_TOPIC] = "topic", [REJECT_TOO_LARGE] = "too_large",
		[REJECT_EMPTY] = "empty", [REJECT_NOT_JSON] = "not_json",
		[REJECT_FIELD] = "field", [REJECT_DEVICE] = "device",
	};

	return (unsigned)r < REJECT_REASONS ? names[r] : "?";
}

const char *result_code_name(int64_t code)
{
	static const char *const names[] = {
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

	return code >= 0 && code < (int64_t)COUNT(names) ? names[code] : NULL;
}

/* ------------------------------------------------------------------ topics */

/* A topic is anybody's text: what of it goes into a sentence is short and printable. */
#define SHOWN_SIZE 72

static const char *show(const char *text, char out[SHOWN_SIZE])
{
	size_t n = 0;

	for (; text[n] && n < SHOWN_SIZE - 4; n++)
		out[n] = text[n] >= 0x20 && text[n] <= 0x7E ? text[n] : '?';
	strcpy(out + n, text[n] ? "..." : "");
	return out;
}

static bool fail_topic(const char *topic, struct ota_err *err)
{
	char shown[SHOWN_SIZE];

	ota_fail(err, OTA_EINVAL,
		 "'%s' is no topic of a device: {site}/edge/{device_id}/status, or .../ota/status, "
		 ".../ota/progress, .../ota/result",
		 show(topic, shown));
	return false;
}

static bool find_kind(const char *tail, enum message_kind *out)
{
	static const struct {
		const char *tail;
		enum message_kind kind;
	} kinds[] = {
		{"status", MESSAGE_STATUS},
		{"ota/status", MESSAGE_OTA_STATUS},
		{"ota/progress", MESSAGE_OTA_PROGRESS},
		{"ota/result", MESSAGE_OTA_RESULT},
	};

	for (size_t i = 0; i < COUNT(kinds); i++)
		if (strcmp(tail, kinds[i].tail) == 0) {
			*out = kinds[i].kind;
			return true;
		}
	return false;
}

static bool site_is_sane(const char *site)
{
	size_t n = strlen(site);

	if (n == 0 || n > NAME_MAX_LEN)
		return false;
	for (size_t i = 0; i < n; i++)
		if (site[i] < 0x20 || site[i] > 0x7E || site[i] == '+' || site[i] == '#')
			return false;
	return true;
}

bool topic_parse(const char *topic, struct topic *out, struct ota_err *err)
{
	/* One character more than a name may have, so that one that is too long is still seen. */
	char levels[3][NAME_MAX_LEN + 2];
	const char *rest = topic;
	struct topic t = {0};
	char shown[SHOWN_SIZE];

	for (size_t i = 0; i < COUNT(levels); i++) {
		size_t n = strcspn(rest, "/");
		if (rest[n] == '\0')
			return fail_topic(topic, err);
		snprintf(levels[i], sizeof levels[i], "%.*s",
			 (int)(n > NAME_MAX_LEN ? NAME_MAX_LEN + 1 : n), rest);
		rest += n + 1;
	}
	if (strcmp(levels[1], "edge") == 0)
		t.form = TOPIC_FORM_EDGE;
	else if (strcmp(levels[1], "devices") == 0)
		t.form = TOPIC_FORM_DEVICES;
	if (t.form == TOPIC_FORM_NONE || !find_kind(rest, &t.kind))
		return fail_topic(topic, err);
	if (!site_is_sane(levels[0])) {
		ota_fail(err, OTA_EINVAL,
			 "the site in the topic '%s' must be 1 to 128 characters of printable "
			 "ASCII without '+' and '#'",
			 show(topic, shown));
		return false;
	}
	const char *wrong = name_device_id_error(levels[2]);
	if (wrong) {
		ota_fail(err, OTA_EINVAL, "the topic '%s' names no possible device: %s",
			 show(topic, shown), wrong);
		return false;
	}
	strcpy(t.site, levels[0]);
	strcpy(t.device_id, levels[2]);
	*out = t;
	return true;
}

/* ------------------------------------------------------------------ fields */

/* Names of one fact, the preferred one first; ended by NULL. */
typedef const char *const field_names[4];

/* The first name that is there; NULL: none. */
static const char *find_name(const struct json_fields *f, field_names names)
{
	for (size_t i = 0; names[i]; i++) {
		const json_t *v = json_object_get(f->object, names[i]);
		if (v && !json_is_null(v))
			return names[i];
	}
	return NULL;
}

static void add_wrong(const struct json_fields *f, const char *name, const char *rule,
		      const char *value)
{
	size_t n = strlen(value);

	if (n > NAME_MAX_LEN)
		field_errors_add(f->errors, "body", name, FIELD_TYPE_VALUE, "%s (it has %zu bytes)",
				 rule, n);
	else
		field_errors_add(f->errors, "body", name, FIELD_TYPE_VALUE, "%s (it is \"%s\")",
				 rule, value);
}

/* NULL: absent, or refused. */
static const char *read_text(const struct json_fields *f, field_names names)
{
	const char *name = find_name(f, names), *s = NULL;

	if (name)
		json_field_string(f, name, true, 0, PAYLOAD_MAX, &s);
	return s;
}

static const char *read_checked(const struct json_fields *f, field_names names,
				const char *(*check)(const char *))
{
	const char *s = read_text(f, names);
	const char *wrong = s ? check(s) : NULL;

	if (wrong)
		add_wrong(f, find_name(f, names), wrong, s);
	return wrong ? NULL : s;
}

/* Where an empty string says no more than an absent field. */
static const char *read_filled(const struct json_fields *f, const char *name)
{
	const char *s = read_text(f, (field_names){name});

	return s && s[0] ? s : NULL;
}

/* 42, 42.0 and 42.9 are 42; MIN is not negative.  False: absent, or refused. */
static bool read_floor(const struct json_fields *f, const char *name, int64_t min, int64_t max,
		       int64_t *out)
{
	const json_t *v = json_object_get(f->object, name);

	if (!json_is_real(v))
		return json_field_int(f, name, false, min, max, out);
	double d = json_real_value(v);
	if (d < (double)min || d > (double)max) {
		field_errors_add(f->errors, "body", name, FIELD_TYPE_RANGE,
				 "must be between %lld and %lld (it is %g)", (long long)min,
				 (long long)max, d);
		return false;
	}
	*out = (int64_t)d;
	return true;
}

/* ------------------------------------------------------------------ .../status */

static void read_digest(const struct json_fields *f, const char *name, bool *has, uint8_t *out)
{
	static const uint8_t zero[DIGEST_SIZE];
	const char *s = read_filled(f, name);

	if (!s)
		return;
	if (!hex_decode(s, out, DIGEST_SIZE))
		add_wrong(f, name, "must be 64 hexadecimal digits (a SHA-256)", s);
	else
		*has = memcmp(out, zero, DIGEST_SIZE) != 0; /* some builders leave it all zero */
}

/* A number hashes as its digits, which is how it stands in a query over HTTP. */
static uint64_t read_boot(const struct json_fields *f)
{
	const json_t *v = json_object_get(f->object, "boot_id");
	char digits[24];

	if (!json_is_integer(v)) {
		const char *s = read_filled(f, "boot_id");
		return s ? hash64(s, strlen(s)) : 0;
	}
	snprintf(digits, sizeof digits, "%lld", (long long)json_integer_value(v));
	return hash64(digits, strlen(digits));
}

static void read_status(const struct json_fields *f, struct message *m)
{
	struct checkin *c = &m->facts;
	const char *model =
		read_checked(f, (field_names){"device_model", "model"}, name_version_error);
	const char *version =
		read_checked(f, (field_names){"firmware_version", "version", "current_version"},
			     name_told_version_error);
	const char *hw = read_filled(f, "hw"), *mac = read_filled(f, "mac");

	c->model = model ? model : "";
	c->version = version ? version : "";
	c->hw = hw ? hw : "";
	if (hw && name_told_version_error(hw))
		add_wrong(f, "hw", name_told_version_error(hw), hw);
	if (mac && !mac_parse(mac, &c->mac))
		add_wrong(f, "mac", "must be 12 hexadecimal digits, as in aa:bb:cc:dd:ee:ff", mac);
	c->boot_hash = read_boot(f);
	c->has_uptime = read_floor(f, "uptime_s", 0, UPTIME_MAX_S, &c->uptime_s);
	read_digest(f, "firmware_digest", &c->digests.has_firmware, c->digests.firmware);
	read_digest(f, "app_elf_sha256", &c->digests.has_elf, c->digests.elf);
	json_field_bool(f, "online", false, &m->online);
}

/* ------------------------------------------------------------------ .../ota/... */

/* U+0000..U+001F, U+007F, or a byte of U+0080..U+009F: a terminal may obey all of them. */
static bool is_control(const char *text, size_t i)
{
	unsigned char before = i ? (unsigned char)text[i - 1] : 0, c = (unsigned char)text[i];
	unsigned char after = (unsigned char)text[i + 1];

	return c < 0x20 || c == 0x7F || (c == 0xC2 && after >= 0x80 && after < 0xA0) ||
	       (before == 0xC2 && c >= 0x80 && c < 0xA0);
}

/* Appends TEXT, control characters as spaces, as far as whole characters fit. */
static void append_error(struct message *m, const char *text)
{
	size_t at = strlen(m->error), room = sizeof m->error - 1 - at, n = strlen(text);

	if (n > room)
		for (n = room; n > 0 && ((unsigned char)text[n] & 0xC0) == 0x80;)
			n--;
	for (size_t i = 0; i < n; i++)
		m->error[at + i] = is_control(text, i) ? ' ' : text[i];
	m->error[at + n] = '\0';
}

/* What went wrong, by its code (NULL: none told) and in the device's own words. */
static void read_error(const struct json_fields *f, const char *code_name, struct message *m)
{
	const char *words = read_text(f, (field_names){"message", "error_message"});

	if (code_name)
		append_error(m, code_name);
	if (code_name && words && words[0])
		append_error(m, ": ");
	if (words)
		append_error(m, words);
}

struct word {
	const char *text;
	enum attempt_event event;
	bool accepted; /* although it moves nothing */
};

static const struct word status_words[] = {
	{"accepted", EVENT_NONE, true},
	{"pending", EVENT_REPORT_PENDING, false},
	{"downloading", EVENT_REPORT_DOWNLOADING, false},
	{"downloaded", EVENT_REPORT_DOWNLOADED, false},
	{"installing", EVENT_REPORT_INSTALLING, false},
	{"success", EVENT_REPORT_SUCCESS, false},
	{"failed", EVENT_REPORT_FAILED, false},
	{"rolled_back", EVENT_REPORT_ROLLED_BACK, false},
};

/*
 * Complete is the end of the writing: whether the new firmware runs tells the result, or the
 * version after the next boot.  Failed leaves the reason to the result that follows.
 */
static const struct word progress_words[] = {
	{"Idle", EVENT_NONE, false},
	{"Checking", EVENT_NONE, false},
	{"Downloading", EVENT_REPORT_DOWNLOADING, false},
	{"Verifying", EVENT_REPORT_DOWNLOADED, false},
	{"Installing", EVENT_REPORT_INSTALLING, false},
	{"Complete", EVENT_REPORT_INSTALLING, false},
	{"Failed", EVENT_NONE, false},
	{"Rolled back", EVENT_REPORT_ROLLED_BACK, false},
	{"Rolled_back", EVENT_REPORT_ROLLED_BACK, false},
	{"RolledBack", EVENT_REPORT_ROLLED_BACK, false},
};

static void add_wrong_word(const struct json_fields *f, const char *name, const struct word *words,
			   size_t count, const char *told)
{
	char rule[256] = "must be one of: ";
	size_t n = strlen(rule);

	for (size_t i = 0; i < count && n < sizeof rule; i++)
		n += (size_t)snprintf(rule + n, sizeof rule - n, "%s%s", i ? ", " : "",
				      words[i].text);
	if (told)
		add_wrong(f, name, rule, told);
	else
		field_errors_add(f->errors, "body", name, FIELD_TYPE_MISSING, "is missing: it %s",
				 rule);
}

static void read_word(const struct json_fields *f, const char *name, const struct word *words,
		      size_t count, struct message *m)
{
	bool there = find_name(f, (field_names){name}) != NULL;
	const char *told = read_text(f, (field_names){name});

	if (there && !told)
		return; /* of another type, and said so */
	for (size_t i = 0; told && i < count; i++)
		if (strcasecmp(told, words[i].text) == 0) {
			m->event = words[i].event;
			m->accepted = words[i].accepted || m->event != EVENT_NONE;
			return;
		}
	add_wrong_word(f, name, words, count, told);
}

static bool read_bytes(const struct json_fields *f, const char *name, double *out)
{
	const json_t *v = json_object_get(f->object, name);

	if (!v || json_is_null(v))
		return false;
	if (!json_is_number(v)) {
		field_errors_add(f->errors, "body", name, FIELD_TYPE_INTEGER,
				 "must be a number of bytes, as in 524288");
		return false;
	}
	*out = json_number_value(v);
	return true;
}

/* As told, else from the bytes; a total that is not known is often told as 0 or -1. */
static void read_percent(const struct json_fields *f, struct message *m)
{
	int64_t percent = -1;
	double downloaded = 0, total = 0;

	if (find_name(f, (field_names){"percent"})) {
		read_floor(f, "percent", 0, 100, &percent);
		m->percent = (int)percent;
		return;
	}
	bool has_downloaded = read_bytes(f, "downloaded", &downloaded);
	if (!read_bytes(f, "total", &total) || !has_downloaded)
		return;
	if (downloaded < 0 || total <= 0 || total > SIZE_SANE)
		return;
	m->percent = downloaded < total ? (int)(100 * downloaded / total) : 100;
}

static void read_result(const struct json_fields *f, struct message *m)
{
	bool success = false;
	int64_t code = 0;
	bool told = find_name(f, (field_names){"success", "result_code"}) != NULL;
	bool has_success = json_field_bool(f, "success", false, &success);
	bool has_code = json_field_int(f, "result_code", false, 0, 11, &code);
	const char *name = has_code ? result_code_name(code) : NULL;

	if (!told)
		field_errors_add(f->errors, "body", "success", FIELD_TYPE_MISSING,
				 "is missing: a result says true or false here, or a result_code "
				 "of 0 (success) to 11");
	if (has_success && has_code && success != (code == 0))
		field_errors_add(f->errors, "body", "success", FIELD_TYPE_VALUE,
				 "is %s and contradicts result_code %d (%s): true goes with 0, "
				 "false with 1 to 11",
				 success ? "true" : "false", (int)code, name);
	if (!has_success)
		success = has_code && code == 0;
	m->accepted = true;
	/* It was told twice, and is about it: a sign of life, and no failure. */
	if (has_code && code == ALREADY_RUNNING)
		return;
	m->event = success ? EVENT_REPORT_SUCCESS : EVENT_REPORT_FAILED;
	if (!success)
		read_error(f, name, m);
}

/*
 * The time of a clock that was set, as a number of seconds or smaller, or in words.  What counts
 * from the start of the device (a small number, a date in 1970) comes again after the next start.
 */
static bool is_stamped(const json_t *timestamp)
{
	const char *text = json_string_value(timestamp);

	if (!text)
		return json_number_value(timestamp) >= 1e9;
	return strlen(text) >= strlen("2026-01-01") && strncmp(text, "1970", 4) != 0;
}

/* Version and attempt are told alike in all three. */
static void read_subject(const struct json_fields *f, bool needs_version, struct message *m)
{
	field_names names = {"target_version", "version"}, tokens = {"attempt_id", "attempt"};
	const char *name = find_name(f, tokens), *token = NULL;

	m->stamped = is_stamped(json_object_get(f->object, "timestamp"));
	m->version = read_checked(f, names, name_told_version_error);
	if (needs_version && !find_name(f, names))
		field_errors_add(f->errors, "body", "version", FIELD_TYPE_MISSING,
				 "is missing: a result names the version it is about, as version "
				 "or target_version");
	if (name && json_field_string(f, name, true, 0, TOKEN_MAX, &token) && token[0])
		m->attempt_token = token;
}

static void read_fields(enum message_kind kind, const struct json_fields *f, struct message *m)
{
	switch (kind) {
	case MESSAGE_STATUS: read_status(f, m); return;
	case MESSAGE_OTA_STATUS:
		read_word(f, "status", status_words, COUNT(status_words), m);
		break;
	case MESSAGE_OTA_PROGRESS:
		read_word(f, "state", progress_words, COUNT(progress_words), m);
		break;
	case MESSAGE_OTA_RESULT: read_result(f, m); break;
	}
	if (kind != MESSAGE_OTA_RESULT) {
		read_percent(f, m);
		if (m->event == EVENT_REPORT_FAILED || m->event == EVENT_REPORT_ROLLED_BACK)
			read_error(f, NULL, m);
	}
	read_subject(f, kind == MESSAGE_OTA_RESULT, m);
}

/* ------------------------------------------------------------------ the whole */

/* The bare words that many last wills send; in any case, with space or a line's end around. */
static bool read_bare_word(const char *text, size_t len, struct message *m)
{
	static const char space[] = " \t\r\n";

	while (len > 0 && strchr(space, text[len - 1]) && text[len - 1])
		len--;
	while (len > 0 && strchr(space, *text) && *text) {
		text++;
		len--;
	}
	if (len == 6 && strncasecmp(text, "online", len) == 0)
		m->online = true;
	else if (len == 7 && strncasecmp(text, "offline", len) == 0)
		m->online = false;
	else
		return false;
	return true;
}

static bool reject(enum reject_reason why, enum reject_reason *reason)
{
	*reason = why;
	return false;
}

/* After a function of ours has filled *err: is it the message's fault? */
static bool reject_code(enum ota_code code, enum reject_reason why, enum reject_reason *reason)
{
	return reject(code == OTA_ENOMEM ? REJECT_REASONS : why, reason);
}

static bool names_other_device(const struct topic *topic, const json_t *root, struct ota_err *err)
{
	const char *id = json_string_value(json_object_get(root, "device_id"));
	char shown[SHOWN_SIZE];

	if (!id || strcmp(id, topic->device_id) == 0)
		return false;
	ota_fail(err, OTA_EINVAL,
		 "device_id: must be that of the topic, %s, or absent (it is \"%s\")",
		 topic->device_id, show(id, shown));
	return true;
}

static bool read_object(const struct topic *topic, struct message *m, enum reject_reason *reason,
			struct ota_err *err)
{
	struct field_errors errors = FIELD_ERRORS_INIT;
	const struct json_fields f = {.object = m->root, .errors = &errors};
	enum ota_code code = OTA_OK;
	const char *id = NULL;

	if (names_other_device(topic, m->root, err))
		return reject(REJECT_DEVICE, reason);
	json_field_string(&f, "device_id", false, 0, PAYLOAD_MAX, &id);
	read_fields(topic->kind, &f, m);
	if (field_errors_any(&errors))
		code = field_errors_fail(&errors, err);
	field_errors_fini(&errors);
	return code == OTA_OK || reject_code(code, REJECT_FIELD, reason);
}

bool message_parse(const struct topic *topic, const void *payload, size_t len, struct message *out,
		   enum reject_reason *reason, struct ota_err *err)
{
	struct message m = {.facts = {.model = "", .version = "", .hw = ""},
			    .online = true,
			    .event = EVENT_NONE,
			    .percent = -1};

	if (len > PAYLOAD_MAX) {
		ota_fail(err, OTA_ETOOLARGE, "the payload has %zu bytes, at most %d are read", len,
			 PAYLOAD_MAX);
		return reject(REJECT_TOO_LARGE, reason);
	}
	if (len == 0) {
		ota_fail(err, OTA_EINVAL, "the payload is empty: a JSON object is expected");
		return reject(REJECT_EMPTY, reason);
	}
	if (topic->kind != MESSAGE_STATUS || !read_bare_word(payload, len, &m)) {
		enum ota_code code = json_body_parse(payload, len, &m.root, err);
		if (code)
			return reject_code(code, REJECT_NOT_JSON, reason);
		if (!read_object(topic, &m, reason, err)) {
			message_fini(&m);
			return false;
		}
	}
	*out = m;
	return true;
}

void message_fini(struct message *m)
{
	json_decref(m->root);
	m->root = NULL;
}
