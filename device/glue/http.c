/* SPDX-License-Identifier: MIT */
/* URLs, report bodies and head lines: text in and out of the caller's buffers, cut nowhere. */
#include "paku_glue.h"
#include "text.h"

#include <string.h>

static void put_param(struct text *t, char before, const char *name, const char *value)
{
	if (!value)
		return;
	text_put(t, before);
	text_puts(t, name);
	text_put(t, '=');
	text_encoded(t, value);
}

bool paku_check_url(char *out, size_t size, const struct paku_identity *id, const char *version)
{
	struct text t = text_begin(out, size);

	text_puts(&t, id->server);
	text_puts(&t, "/api/firmware/check");
	put_param(&t, '?', "device_id", id->device_id);
	put_param(&t, '&', "device_model", id->device_model);
	put_param(&t, '&', "current_version", version);
	put_param(&t, '&', "mac", id->mac);
	put_param(&t, '&', "hw", id->hw);
	put_param(&t, '&', "firmware_digest", id->firmware_digest);
	put_param(&t, '&', "boot_id", id->boot_id);
	text_puts(&t, "&uptime_s=");
	text_u32(&t, id->uptime_s);
	return t.ok;
}

bool paku_report_url(char *out, size_t size, const struct paku_identity *id)
{
	struct text t = text_begin(out, size);

	text_puts(&t, id->server);
	text_puts(&t, "/api/device/");
	text_encoded(&t, id->device_id);
	text_puts(&t, "/update-status");
	return t.ok;
}

bool paku_report_body(char *out, size_t size, const struct paku_identity *id,
		      const struct paku_report *report)
{
	struct text t = text_begin(out, size);

	text_puts(&t, "{\"device_id\":");
	text_json(&t, id->device_id);
	text_puts(&t, ",\"firmware_version\":");
	text_json(&t, report->version);
	text_puts(&t, ",\"status\":");
	text_json(&t, paku_status_text(report->status));
	if (report->percent != PAKU_NO_PERCENT) {
		text_puts(&t, ",\"progress_percent\":");
		text_u32(&t, report->percent);
	}
	if (report->why != PAKU_WHY_NONE) {
		text_puts(&t, ",\"error_message\":");
		text_json(&t, paku_why_text(report->why));
	}
	if (report->status == PAKU_FAILED) {
		text_puts(&t, ",\"result_code\":");
		text_u32(&t, (uint32_t)paku_why_result(report->why));
	}
	if (report->attempt[0]) {
		text_puts(&t, ",\"attempt_id\":");
		text_json(&t, report->attempt);
	}
	text_put(&t, '}');
	return t.ok;
}

const char *paku_status_text(enum paku_status status)
{
	static const char *const names[] = {
		[PAKU_DOWNLOADING] = "downloading", [PAKU_DOWNLOADED] = "downloaded",
		[PAKU_INSTALLING] = "installing",   [PAKU_SUCCESS] = "success",
		[PAKU_FAILED] = "failed",           [PAKU_ROLLED_BACK] = "rolled_back",
	};

	return (size_t)status < sizeof names / sizeof *names ? names[status] : "failed";
}

const char *paku_why_text(enum paku_why why)
{
	static const char *const texts[] = {
		[PAKU_WHY_NONE] = "",
		[PAKU_WHY_LINE] = "download failed: no progress in many tries",
		[PAKU_WHY_ABSENT] = "download failed: the service does not have the image",
		[PAKU_WHY_SIZE] = "download failed: the service sends another size than it offered",
		[PAKU_WHY_SPACE] = "insufficient space: the image is larger than a slot",
		[PAKU_WHY_FLASH] =
			"install failed: a block of flash cannot be erased, written or read",
		[PAKU_WHY_RECORD] = "install failed: the boot record cannot be written",
		[PAKU_WHY_HASH] = "verification failed: the flash reads back another SHA-256",
		[PAKU_WHY_SELFTEST] = "invalid firmware: the self-test of the new version failed",
		[PAKU_WHY_TRIAL_TIME] =
			"invalid firmware: the self-test of the new version did not end",
		[PAKU_WHY_BOOTS] = "invalid firmware: the new version did not start up and confirm",
	};

	return (size_t)why < sizeof texts / sizeof *texts ? texts[why] : "install failed";
}

enum paku_result paku_why_result(enum paku_why why)
{
	switch (why) {
	case PAKU_WHY_NONE: return PAKU_RESULT_SUCCESS;
	case PAKU_WHY_LINE:
	case PAKU_WHY_ABSENT:
	case PAKU_WHY_SIZE: return PAKU_RESULT_DOWNLOAD_FAILED;
	case PAKU_WHY_SPACE: return PAKU_RESULT_NO_SPACE;
	case PAKU_WHY_FLASH:
	case PAKU_WHY_RECORD: return PAKU_RESULT_INSTALL_FAILED;
	case PAKU_WHY_HASH: return PAKU_RESULT_VERIFICATION_FAILED;
	case PAKU_WHY_SELFTEST:
	case PAKU_WHY_TRIAL_TIME:
	case PAKU_WHY_BOOTS: return PAKU_RESULT_INVALID_FIRMWARE;
	}
	return PAKU_RESULT_INSTALL_FAILED; /* a record of a later firmware */
}

/* -------------------------------------------------------------------------------- head lines */

/* The value behind "name:", without the blanks around it; NULL if the line is another field. */
static const char *field_value(const char *line, size_t len, const char *name, size_t *value_len)
{
	size_t n = strlen(name);

	if (len <= n || line[n] != ':')
		return NULL;
	for (size_t i = 0; i < n; i++) {
		char ch = line[i];
		if (ch >= 'A' && ch <= 'Z')
			ch = (char)(ch - 'A' + 'a');
		if (ch != name[i])
			return NULL;
	}
	for (n++; n < len && (line[n] == ' ' || line[n] == '\t');)
		n++;
	while (len > n && strchr(" \t\r\n", line[len - 1]))
		len--;
	*value_len = len - n;
	return line + n;
}

/* Digits at the front, as many as there are; *used is 0 if there are none or too many. */
static uint32_t number(const char *s, size_t len, size_t *used)
{
	uint64_t value = 0;
	size_t i = 0;

	while (i < len && s[i] >= '0' && s[i] <= '9' && value <= UINT32_MAX)
		value = value * 10 + (uint64_t)(s[i++] - '0');
	*used = value <= UINT32_MAX ? i : 0;
	return *used ? (uint32_t)value : 0;
}

/* "bytes 100-199/1000", RFC 9110 14.4. */
static void content_range(struct paku_head *head, const char *value, size_t len)
{
	size_t at = 6, used;
	uint32_t from, size;

	if (len < at || memcmp(value, "bytes ", at) != 0)
		return;
	from = number(value + at, len - at, &used);
	at += used;
	if (!used || at == len || value[at++] != '-')
		return;
	(void)number(value + at, len - at, &used);
	at += used;
	if (!used || at == len || value[at++] != '/')
		return;
	size = number(value + at, len - at, &used);
	if (!used || at + used != len)
		return;
	head->from = from;
	head->size = size;
}

void paku_head_line(struct paku_head *head, const char *line, size_t len)
{
	const char *value;
	size_t n, used;

	if ((value = field_value(line, len, "content-length", &n))) {
		uint32_t length = number(value, n, &used);
		head->length = used == n ? length : 0;
	} else if ((value = field_value(line, len, "content-range", &n))) {
		content_range(head, value, n);
	} else if ((value = field_value(line, len, "etag", &n))) {
		memset(head->etag, 0, sizeof head->etag);
		if (n < sizeof head->etag)
			memcpy(head->etag, value, n);
	} else if ((value = field_value(line, len, "retry-after", &n))) {
		uint32_t seconds = number(value, n, &used);
		head->retry_after_s = used == n ? seconds : 0;
	}
}
