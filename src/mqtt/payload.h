/* SPDX-License-Identifier: MIT */
/*
 * What a device says over MQTT: a topic and a payload become one typed message, or a word that says
 * why not.  Pure: any thread, no I/O.  The topics and payloads are those of docs/mqtt.md.
 *
 *   {site}/edge/{device_id}/status                    retained; the birth message or the last will
 *   {site}/edge/{device_id}/ota/{status,progress,result}
 *   {site}/devices/{device_id}/...                    the same, from older devices
 *
 * The JSON is read as forgivingly as over HTTP (json/json_body.h).  Unknown fields are ignored, and
 * null is as good as absent.  Every refusal is a sentence that says what is wrong and what would be
 * right; one payload is read whole, so the sentence names every wrong field.
 */
#pragma once

#include "base/err.h"
#include "core/checkin.h"
#include "core/domain.h"
#include "core/names.h"

#include <jansson.h>

#define PAYLOAD_MAX (64 * 1024) /* bytes; a longer one is not read */

enum message_kind {
	MESSAGE_STATUS,       /* .../status: who it is and what it runs */
	MESSAGE_OTA_STATUS,   /* .../ota/status: it took the command */
	MESSAGE_OTA_PROGRESS, /* .../ota/progress */
	MESSAGE_OTA_RESULT,   /* .../ota/result */
};

/* Why a message cannot be understood: stable words for counters, the table and the docs. */
enum reject_reason {
	REJECT_TOPIC,     /* no topic of ours: levels, or a device id that nobody may have */
	REJECT_TOO_LARGE, /* above PAYLOAD_MAX */
	REJECT_EMPTY,     /* no payload (a retained message that was taken back) */
	REJECT_NOT_JSON,  /* not a JSON object; not UTF-8; too deep */
	REJECT_FIELD,     /* a field is missing, of a wrong type, or out of range */
	REJECT_DEVICE,    /* the payload names another device than the topic */
	REJECT_REASONS,
};
const char *reject_reason_name(enum reject_reason r); /* "not_json" */

struct topic {
	enum message_kind kind;
	enum topic_form form;
	char site[NAME_MAX_LEN + 1];
	char device_id[NAME_MAX_LEN + 1];
};
/* False (REJECT_TOPIC): *err has the sentence, *out is untouched. */
OTA_MUST_USE bool topic_parse(const char *topic, struct topic *out, struct ota_err *err);

/* Strings point into ROOT, or are static; absent ones are NULL. */
struct message {
	json_t *root; /* released by message_fini(); NULL: the payload was a bare word */

	/* MESSAGE_STATUS: what of facts was told ("" and 0 as in checkin.h).  facts.device_id is
	 * not filled. */
	struct checkin facts; /* model and version: "" when absent */
	bool online;          /* true unless the payload says "online": false, or is "offline" */

	/* MESSAGE_OTA_* */
	enum attempt_event event;  /* EVENT_NONE: a sign of life that moves nothing */
	bool accepted;             /* it has the command: no need to tell it again */
	int percent;               /* 0..100; -1: not told */
	const char *version;       /* as told (target_version or version), never "" */
	const char *attempt_token; /* as told, at most 64 characters, never "" */
	bool stamped; /* it has a time of day in it: what is said anew never looks the same */
	/*
	 * "download failed: ..." for a failure or a rollback that gives a reason, else "".  Valid
	 * UTF-8 without control characters; a longer one is cut where a character ends.
	 */
	char error[320];
};

/*
 * Reads the payload of a message of TOPIC.  False: *reason and *err say why, and *out needs no
 * fini.  Out of memory is no fault of the message: false with err->code OTA_ENOMEM, and *reason is
 * REJECT_REASONS.
 */
OTA_MUST_USE bool message_parse(const struct topic *topic, const void *payload, size_t len,
				struct message *out, enum reject_reason *reason,
				struct ota_err *err);
void message_fini(struct message *m);

/* The name of a result code 0..11 ("download failed"); NULL for any other. */
const char *result_code_name(int64_t code);
