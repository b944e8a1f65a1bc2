/* SPDX-License-Identifier: MIT */
/* What a message about an alert looks like to those who read it. */
#include "conductor/webhook.h"

#include "base/clock.h"

#include <string.h>

/* How long Alertmanager keeps an alert that is not told to it again: it is told of its end. */
#define ALERTMANAGER_KEEPS_US (INT64_C(365) * 86400 * US_PER_S)

int64_t webhook_pause_s(int64_t retry_s, int failures)
{
	int64_t s = retry_s;

	while (--failures > 0 && s < WEBHOOK_PAUSE_MAX_S)
		s *= 2;
	return s < WEBHOOK_PAUSE_MAX_S ? s : WEBHOOK_PAUSE_MAX_S;
}

static void plain(const struct row_webhook *m, struct buf *b)
{
	const struct row_alert *a = &m->alert;

	json_open(b, NULL, '{');
	json_int(b, "delivery", m->id);
	json_str(b, "event", m->cleared ? "cleared" : "raised");
	json_open(b, "alert", '{');
	json_int(b, "id", a->id);
	json_str(b, "kind", a->kind);
	json_str(b, "subject", a->subject);
	json_str(b, "severity", a->severity);
	json_str(b, "sentence", a->sentence);
	json_str(b, "raised_at", a->raised_at);
	json_str(b, "cleared_at", m->cleared ? a->cleared_at : NULL);
	json_raw(b, "data", a->data);
	json_close(b, '}');
	json_close(b, '}');
}

/* "[critical] 12 of 180 ..."; Slack wants & < > escaped, and would else take a device's name for a
 * link or call a channel. */
static void line(const struct row_webhook *m, bool escaped, struct buf *out)
{
	buf_printf(out, "%s[%s] ", m->cleared ? "Over: " : "", m->alert.severity);
	for (const char *p = m->alert.sentence; *p; p++) {
		if (escaped && *p == '&')
			buf_adds(out, "&amp;");
		else if (escaped && *p == '<')
			buf_adds(out, "&lt;");
		else if (escaped && *p == '>')
			buf_adds(out, "&gt;");
		else
			buf_addc(out, *p);
	}
}

static void chat(enum webhook_format format, const struct row_webhook *m, struct buf *b)
{
	struct buf text = BUF_INIT;

	line(m, format == WEBHOOK_SLACK, &text);
	json_open(b, NULL, '{');
	json_str(b, format == WEBHOOK_SLACK ? "text" : "content", text.data);
	if (format == WEBHOOK_DISCORD) { /* a name like @everyone calls nobody */
		json_open(b, "allowed_mentions", '{');
		json_open(b, "parse", '[');
		json_close(b, ']');
		json_close(b, '}');
	}
	json_close(b, '}');
	b->failed |= !buf_ok(&text);
	buf_fini(&text);
}

static void alertmanager(const struct row_webhook *m, struct buf *b)
{
	const struct row_alert *a = &m->alert;
	char ends[TIME_TEXT_SIZE];
	int64_t us = 0;

	(void)time_parse(a->raised_at, &us);
	time_format(us + ALERTMANAGER_KEEPS_US, ends);
	json_open(b, NULL, '[');
	json_open(b, NULL, '{');
	json_open(b, "labels", '{'); /* by these it knows the alert: the same when it is over */
	json_str(b, "alertname", "paku_ota_alert");
	json_str(b, "kind", a->kind);
	json_str(b, "subject", a->subject);
	json_str(b, "severity", a->severity);
	json_close(b, '}');
	json_open(b, "annotations", '{');
	json_str(b, "summary", a->sentence);
	json_close(b, '}');
	json_str(b, "startsAt", a->raised_at);
	json_str(b, "endsAt", m->cleared ? a->cleared_at : ends);
	json_close(b, '}');
	json_close(b, ']');
}

void webhook_body(enum webhook_format format, const struct row_webhook *m, struct buf *out)
{
	switch (format) {
	case WEBHOOK_JSON: plain(m, out); break;
	case WEBHOOK_SLACK:
	case WEBHOOK_DISCORD: chat(format, m, out); break;
	case WEBHOOK_ALERTMANAGER: alertmanager(m, out); break;
	}
}
