/* SPDX-License-Identifier: MIT */
/* What happens, on stderr: for people "ID: sentence", for machines (--json) one object a line. */
#include "port.h"

#include <stdio.h>
#include <string.h>

/* The stable name of an event; the sentence is for people and may change. */
static const char *const names[] = {
	[PAKU_EV_CHECKED] = "checked",
	[PAKU_EV_CHECK_FAILED] = "check_failed",
	[PAKU_EV_BEGIN] = "begin",
	[PAKU_EV_RESUME] = "resume",
	[PAKU_EV_RESTARTED] = "start_over",
	[PAKU_EV_PROGRESS] = "progress",
	[PAKU_EV_CUT] = "cut",
	[PAKU_EV_HTTP] = "http",
	[PAKU_EV_CHANGED] = "changed",
	[PAKU_EV_WITHDRAWN] = "withdrawn",
	[PAKU_EV_VERIFIED] = "verified",
	[PAKU_EV_SWITCH] = "switch",
	[PAKU_EV_TRIAL] = "trial",
	[PAKU_EV_CONFIRMED] = "confirmed",
	[PAKU_EV_TRIAL_FAILED] = "trial_failed",
	[PAKU_EV_FAILED] = "failed",
	[PAKU_EV_ROLLED_BACK] = "rolled_back",
	[PAKU_EV_REPORTED] = "reported",
	[PAKU_EV_REPORT_KEPT] = "report_kept",
	[PAKU_EV_REPORT_DROPPED] = "report_dropped",
};

static void emit(struct port *p, const char *event, const char *sentence, const uint32_t *value)
{
	struct buf b = BUF_INIT;
	char time[TIME_TEXT_SIZE];
	bool known = p->agent.io != NULL;

	if (!p->opt.json) {
		fprintf(stderr, "%s: %s\n", p->opt.id, sentence);
		return;
	}
	time_format(clock_wall_us(), time);
	json_open(&b, NULL, '{');
	json_str(&b, "time", time);
	json_str(&b, "device_id", p->opt.id);
	json_str(&b, "event", event);
	if (known) {
		json_str(&b, "version", paku_version(&p->agent));
		json_str(&b, "target", p->agent.rec.slot[p->agent.rec.subject].version);
	}
	if (value)
		json_int(&b, "value", *value);
	json_str(&b, "message", sentence);
	json_close(&b, '}');
	fprintf(stderr, "%s\n", buf_ok(&b) ? b.data : "{\"event\":\"out_of_memory\"}");
	buf_fini(&b);
}

void port_say(struct port *p, const char *event, const char *fmt, ...)
{
	char sentence[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(sentence, sizeof sentence, fmt, ap);
	va_end(ap);
	emit(p, event, sentence, NULL);
}

/* One line for each step of 10 %, not for each block. */
static bool progress_worth_a_line(struct port *p, uint32_t written, uint32_t size)
{
	uint32_t percent = (uint32_t)((uint64_t)written * 100 / size) / 10 * 10;

	if (percent == p->shown_percent)
		return false;
	p->shown_percent = percent;
	return true;
}

static bool sentence_of(struct port *p, enum paku_event event, uint32_t value, char *out, size_t n)
{
	const struct paku_slot *spare = &p->agent.rec.slot[p->agent.rec.subject];
	const char *target = spare->version;

	switch (event) {
	case PAKU_EV_CHECKED:
		snprintf(out, n, value ? "an update is offered" : "no update, %s is what is wanted",
			 paku_version(&p->agent));
		break;
	case PAKU_EV_CHECK_FAILED: snprintf(out, n, "the check failed; will try again"); break;
	case PAKU_EV_BEGIN:
		if (value == PAKU_SIZE_UNKNOWN)
			snprintf(out, n, "updating to %s", target);
		else
			snprintf(out, n, "updating to %s, %u bytes", target, value);
		break;
	case PAKU_EV_RESUME:
		snprintf(out, n, "resuming: %u bytes in flash, verified", value);
		break;
	case PAKU_EV_RESTARTED:
		snprintf(out, n, "starting over: %u bytes in flash are of no use", value);
		break;
	case PAKU_EV_PROGRESS:
		if (!progress_worth_a_line(p, value, spare->size))
			return false;
		snprintf(out, n, "%s: %u %% in flash", target, p->shown_percent);
		break;
	case PAKU_EV_CUT:
		snprintf(out, n, "the line broke, %u bytes are in flash; will go on", value);
		break;
	case PAKU_EV_HTTP: snprintf(out, n, "the download is answered with %u", value); break;
	case PAKU_EV_CHANGED: snprintf(out, n, "the image at the URL has changed"); break;
	case PAKU_EV_WITHDRAWN: snprintf(out, n, "the service took the offer back"); break;
	case PAKU_EV_VERIFIED: snprintf(out, n, "%s: SHA-256 of the flash is right", target); break;
	case PAKU_EV_SWITCH: snprintf(out, n, "will start %s from slot %u", target, value); break;
	case PAKU_EV_TRIAL: snprintf(out, n, "%s is on trial, boot %u", target, value); break;
	case PAKU_EV_CONFIRMED: snprintf(out, n, "%s is confirmed", target); break;
	case PAKU_EV_TRIAL_FAILED:
	case PAKU_EV_FAILED:
	case PAKU_EV_ROLLED_BACK:
		snprintf(out, n, "%s %s: %s", target,
			 event == PAKU_EV_FAILED        ? "failed"
			 : event == PAKU_EV_ROLLED_BACK ? "was rolled back"
							: "goes back",
			 paku_why_text((enum paku_why)value));
		break;
	case PAKU_EV_REPORTED:
	case PAKU_EV_REPORT_KEPT:
	case PAKU_EV_REPORT_DROPPED:
		snprintf(out, n, "%s %s",
			 event == PAKU_EV_REPORTED      ? "reported"
			 : event == PAKU_EV_REPORT_KEPT ? "kept for later: the report of"
							: "the service does not want the report of",
			 paku_status_text((enum paku_status)value));
		break;
	}
	return true;
}

void port_event(void *ctx, enum paku_event event, uint32_t value)
{
	struct port *p = ctx;
	char sentence[512];

	if (event == PAKU_EV_BEGIN)
		p->shown_percent = UINT32_MAX;
	/* Over MQTT nobody is asked, and what a command came to is told by its result. */
	if (event == PAKU_EV_CHECKED && p->opt.mqtt.host[0])
		return;
	if (event == PAKU_EV_WITHDRAWN)
		port_mqtt_withdrawn(p);
	if (event == PAKU_EV_CHECKED)
		p->outcome = EXIT_FINE;
	if (event == PAKU_EV_CHECK_FAILED)
		p->outcome = EXIT_SERVICE;
	if (event == PAKU_EV_FAILED || event == PAKU_EV_ROLLED_BACK) {
		p->outcome = EXIT_FAILED;
		p->update_ended = true;
	}
	if (sentence_of(p, event, value, sentence, sizeof sentence))
		emit(p, names[event], sentence, &value);
}
