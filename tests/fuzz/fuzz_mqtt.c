/* SPDX-License-Identifier: MIT */
/*
 * A topic, a newline, a payload: no crash, a refusal says why, and what is accepted keeps the
 * promises of payload.h.
 */
#include "mqtt/payload.h"

#include "base/buf.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void must_say(const struct ota_err *err)
{
	must(err->msg[0] != '\0' && utf8_valid(err->msg, strlen(err->msg)));
}

static void check_topic(const struct topic *t)
{
	must(t->form == TOPIC_FORM_EDGE || t->form == TOPIC_FORM_DEVICES);
	must(t->site[0] && !strpbrk(t->site, "/+#"));
	must(name_device_id_error(t->device_id) == NULL);
}

static void check_status(const struct message *m)
{
	const struct checkin *c = &m->facts;

	must(!c->device_id);
	must(!c->model[0] || !name_version_error(c->model));
	must(!c->version[0] || !name_told_version_error(c->version));
	must(!c->hw[0] || !name_told_version_error(c->hw));
	must(c->mac >> 48 == 0);
	must(c->uptime_s >= 0 && (c->has_uptime || c->uptime_s == 0));
	must(m->event == EVENT_NONE && !m->accepted && !m->version && !m->attempt_token);
}

static void check_ota(enum message_kind kind, const struct message *m)
{
	must(m->event <= EVENT_REPORT_ROLLED_BACK);
	must(m->event == EVENT_NONE || m->accepted);
	must(m->percent >= -1 && m->percent <= 100);
	must(!m->version || !name_told_version_error(m->version));
	must(!m->attempt_token || m->attempt_token[0]);
	if (kind == MESSAGE_OTA_RESULT)
		must(m->version &&
		     (m->event == EVENT_REPORT_SUCCESS || m->event == EVENT_REPORT_FAILED));
	if (m->event != EVENT_REPORT_FAILED && m->event != EVENT_REPORT_ROLLED_BACK)
		must(m->error[0] == '\0');
}

static void check_payload(const struct topic *t, const uint8_t *payload, size_t len)
{
	enum reject_reason reason = REJECT_TOPIC;
	struct ota_err err = {0};
	struct message m;

	if (!message_parse(t, payload, len, &m, &reason, &err)) {
		must_say(&err);
		must(err.code == OTA_ENOMEM ? reason == REJECT_REASONS
					    : reason > REJECT_TOPIC && reason < REJECT_REASONS);
		return;
	}
	size_t n = strlen(m.error);
	must(utf8_valid(m.error, n));
	for (size_t i = 0; i < n; i++)
		must((unsigned char)m.error[i] >= 0x20 && m.error[i] != 0x7F);
	t->kind == MESSAGE_STATUS ? check_status(&m) : check_ota(t->kind, &m);
	message_fini(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *end = size ? memchr(data, '\n', size) : NULL;
	size_t len = end ? (size_t)(end - data) : size;
	char *text = malloc(len + 1);
	struct ota_err err = {0};
	struct topic t;

	if (!text)
		return 0;
	memcpy(text, data, len);
	text[len] = '\0';
	if (!topic_parse(text, &t, &err)) {
		must_say(&err);
		/* The payload shall not rest because of the topic. */
		t = (struct topic){.kind = (enum message_kind)(len % 4),
				   .form = TOPIC_FORM_EDGE,
				   .site = "paku",
				   .device_id = "d"};
	}
	check_topic(&t);
	if (end)
		check_payload(&t, end + 1, size - len - 1);
	free(text);
	return 0;
}
