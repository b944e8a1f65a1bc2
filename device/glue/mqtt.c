/* SPDX-License-Identifier: MIT */
/* Topics and payloads over MQTT, as section "MQTT" of docs/device-agent.md describes them. */
#include "paku_mqtt.h"
#include "text.h"

#include <string.h>

bool paku_mqtt_topic(char *out, size_t size, const char *site, const char *device_id,
		     enum paku_topic which)
{
	static const char *const ends[] = {
		[PAKU_TOPIC_COMMAND] = "cmd/ota",       [PAKU_TOPIC_ACCEPTED] = "ota/status",
		[PAKU_TOPIC_PROGRESS] = "ota/progress", [PAKU_TOPIC_RESULT] = "ota/result",
		[PAKU_TOPIC_STATUS] = "status",
	};
	struct text t = text_begin(out, size);

	text_puts(&t, site);
	text_puts(&t, "/edge/");
	text_puts(&t, device_id);
	text_put(&t, '/');
	text_puts(&t, ends[which]);
	return t.ok;
}

static bool digit(char ch)
{
	return ch >= '0' && ch <= '9';
}

bool paku_version_same(const char *a, const char *b)
{
	a += a[0] == 'v' && digit(a[1]);
	b += b[0] == 'v' && digit(b[1]);
	return strcmp(a, b) == 0;
}

bool paku_mqtt_birth(char *out, size_t size, const struct paku_identity *id, const char *version)
{
	struct text t = text_begin(out, size);

	text_put(&t, '{');
	text_field(&t, "device_model", id->device_model);
	text_field(&t, "firmware_version", version);
	text_field(&t, "mac", id->mac);
	text_field_bool(&t, "online", true);
	text_field(&t, "boot_id", id->boot_id);
	text_field(&t, "hw", id->hw);
	text_field(&t, "firmware_digest", id->firmware_digest);
	text_field_u32(&t, "uptime_s", id->uptime_s);
	text_put(&t, '}');
	return t.ok;
}

static void put_about(struct text *t, const struct paku_about *about)
{
	text_put(t, '{');
	text_field(t, "timestamp", about->timestamp);
	text_field(t, "version", about->version);
	text_field(t, "attempt_id", about->attempt[0] ? about->attempt : NULL);
}

bool paku_mqtt_accepted(char *out, size_t size, const struct paku_about *about)
{
	struct text t = text_begin(out, size);

	put_about(&t, about);
	text_field(&t, "status", "accepted");
	text_put(&t, '}');
	return t.ok;
}

bool paku_mqtt_progress(char *out, size_t size, const struct paku_about *about,
			const struct paku_progress *progress)
{
	static const char *const names[] = {
		[PAKU_STATE_IDLE] = "Idle",
		[PAKU_STATE_CHECKING] = "Checking",
		[PAKU_STATE_DOWNLOADING] = "Downloading",
		[PAKU_STATE_VERIFYING] = "Verifying",
		[PAKU_STATE_INSTALLING] = "Installing",
		[PAKU_STATE_COMPLETE] = "Complete",
		[PAKU_STATE_FAILED] = "Failed",
		[PAKU_STATE_ROLLED_BACK] = "Rolled back",
	};
	uint64_t done = progress->downloaded;
	struct text t = text_begin(out, size);

	put_about(&t, about);
	text_field(&t, "state", names[progress->state]);
	text_field_u32(&t, "percent",
		       progress->total && done <= progress->total
			       ? (uint32_t)(done * 100 / progress->total)
			       : 0);
	text_field_u32(&t, "downloaded", progress->downloaded);
	text_field_u32(&t, "total", progress->total);
	text_field_u32(&t, "elapsed_ms", progress->elapsed_ms);
	text_put(&t, '}');
	return t.ok;
}

bool paku_mqtt_result(char *out, size_t size, const struct paku_about *about,
		      enum paku_result result, const char *message)
{
	struct text t = text_begin(out, size);

	put_about(&t, about);
	text_field_bool(&t, "success", result == PAKU_RESULT_SUCCESS);
	text_field_u32(&t, "result_code", (uint32_t)result);
	text_field(&t, "message", message);
	text_put(&t, '}');
	return t.ok;
}

const char *paku_why_message(enum paku_why why)
{
	const char *text = paku_why_text(why), *colon = strchr(text, ':');

	return colon ? colon + 2 : text;
}
