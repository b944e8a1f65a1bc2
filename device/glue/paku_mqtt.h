/* SPDX-License-Identifier: MIT */
/*
 * What a port needs to speak with the service over any MQTT client: topics, the command, and the
 * payloads of what a device says.  C99 without heap; the broker is the port's.  What was made is
 * whole, or the function says false.
 */
#pragma once

#include "paku_glue.h"

enum paku_topic {
	PAKU_TOPIC_COMMAND,  /* cmd/ota: to the device, QoS 1 */
	PAKU_TOPIC_ACCEPTED, /* ota/status */
	PAKU_TOPIC_PROGRESS, /* ota/progress */
	PAKU_TOPIC_RESULT,   /* ota/result */
	PAKU_TOPIC_STATUS,   /* status, retained: the birth message and the last will */
};

enum paku_state {
	PAKU_STATE_IDLE,
	PAKU_STATE_CHECKING,
	PAKU_STATE_DOWNLOADING,
	PAKU_STATE_VERIFYING,
	PAKU_STATE_INSTALLING,
	PAKU_STATE_COMPLETE,
	PAKU_STATE_FAILED,
	PAKU_STATE_ROLLED_BACK,
};

/* "{site}/edge/{device_id}/..."; room for two names of 128 characters: */
#define PAKU_TOPIC_SIZE 288
bool paku_mqtt_topic(char *out, size_t size, const char *site, const char *device_id,
		     enum paku_topic which);

/*
 * Reads a command: `version` (or `target_version`), `url`, `checksum`.  PAKU_RESULT_SUCCESS: *offer
 * can be taken, its size unknown.  Else the code to answer with, about offer->version; that is ""
 * when the payload names none, and then there is nothing to answer.
 */
enum paku_result paku_parse_command(const char *json, size_t len, struct paku_offer *offer);

/* The same version: a leading v counts for nothing. */
bool paku_version_same(const char *a, const char *b);

/* What is left on the status topic when the connection breaks (the last will). */
#define PAKU_MQTT_WILL "{\"online\":false}"

/* The birth message: who this is and what it runs.  Retained, after each start and reconnect. */
bool paku_mqtt_birth(char *out, size_t size, const struct paku_identity *id, const char *version);

/* Which update a message is about, and when it was said. */
struct paku_about {
	const char *timestamp; /* any text; NULL without a clock */
	const char *version;
	const char *attempt; /* "" when the command's URL named none */
};

struct paku_progress {
	enum paku_state state;
	uint32_t downloaded, total; /* bytes in flash, of how many; 0 while nobody knows */
	uint32_t elapsed_ms;
};

bool paku_mqtt_accepted(char *out, size_t size, const struct paku_about *about);
bool paku_mqtt_progress(char *out, size_t size, const struct paku_about *about,
			const struct paku_progress *progress);
/* `message` is one sentence, without the result code's name; NULL: none. */
bool paku_mqtt_result(char *out, size_t size, const struct paku_about *about,
		      enum paku_result result, const char *message);

/* What paku_why_text() says behind the result code's name. */
const char *paku_why_message(enum paku_why why);
