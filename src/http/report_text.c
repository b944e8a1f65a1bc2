/* SPDX-License-Identifier: MIT */
/* What a rollout did, as JSON and as Markdown. */
#include "http/report.h"

#include "base/clock.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static const char *const series_names[REPORT_SERIES] = {"offered", "running", "done", "failed"};

int report_step_of(const struct account *r, int64_t at_us)
{
	double share = (double)(at_us - r->from_us) / (double)(r->to_us - r->from_us);

	return share <= 0 ? 0 : share >= 1 ? REPORT_STEPS - 1 : (int)(share * REPORT_STEPS);
}

int64_t report_step_us(const struct account *r, int step)
{
	return r->from_us + (int64_t)((double)(r->to_us - r->from_us) * step / REPORT_STEPS);
}

static int64_t begun_us(const struct account *r)
{
	return r->stage_count && r->stages[0].begins_us ? r->stages[0].begins_us : r->created_us;
}

/* When it came into the state in which it is. */
static int64_t since_us(const struct account *r)
{
	int64_t us = r->created_us;

	for (int i = 0; i < r->mark_count; i++)
		if (i == 0 || r->marks[i].state != r->marks[i - 1].state)
			us = r->marks[i].at_us;
	return us;
}

void report_sentence(const struct account *r, char *out, size_t size)
{
	int64_t s =
		((rollout_state_is_final(r->state) || r->state == ROLLOUT_COMPLETED ? since_us(r)
										    : r->now_us) -
		 begun_us(r)) /
		US_PER_S;
	char lasted[32];

	duration_text(s, lasted, sizeof lasted);
	switch (r->state) {
	case ROLLOUT_COMPLETED:
		snprintf(out, size, "Completed after %s: %lld of %lld devices run it.", lasted,
			 (long long)r->on_version, (long long)r->targeted);
		return;
	case ROLLOUT_HALTED:
	case ROLLOUT_ABORTED:
	case ROLLOUT_PAUSED:
		snprintf(out, size, "%s after %s, with %lld of %lld devices on it%s%s.",
			 r->state == ROLLOUT_HALTED    ? "Halted"
			 : r->state == ROLLOUT_ABORTED ? "Aborted"
						       : "Paused",
			 lasted, (long long)r->on_version, (long long)r->targeted,
			 r->reason[0] ? ": " : "", r->reason);
		return;
	case ROLLOUT_RUNNING:
		snprintf(out, size, "It runs for %s: %lld of %lld devices inside its stage run it.",
			 lasted, (long long)r->on_version, (long long)r->targeted);
		return;
	default: snprintf(out, size, "It has not begun."); return;
	}
}

/* --- JSON --- */

static void json_time(struct buf *b, const char *key, int64_t us)
{
	char text[TIME_TEXT_SIZE];

	time_format(us, text);
	json_str(b, key, us ? text : NULL);
}

static void json_steps(struct buf *b, const struct account *r)
{
	json_open(b, "steps", '[');
	for (int i = 0; i < REPORT_STEPS; i++) {
		const struct report_step *s = &r->steps[i];

		json_open(b, NULL, '{');
		json_time(b, "at", report_step_us(r, i + 1));
		for (int k = 0; k < REPORT_SERIES; k++)
			json_int(b, series_names[k], s->devices[k]);
		json_int(b, "proven", s->proven);
		if (s->e > 0)
			json_float(b, "e", s->e);
		else
			json_nil(b, "e");
		json_close(b, '}');
	}
	json_close(b, ']');
}

static void json_history(struct buf *b, const struct account *r)
{
	json_open(b, "history", '[');
	for (int i = 0; i < r->mark_count; i++) {
		const struct report_mark *m = &r->marks[i];

		json_open(b, NULL, '{');
		json_time(b, "at", m->at_us);
		json_str(b, "event", m->what);
		json_str(b, "state", rollout_state_name(m->state));
		json_int(b, "stage", m->stage + 1);
		json_str(b, "reason", m->reason[0] ? m->reason : NULL);
		json_close(b, '}');
	}
	json_close(b, ']');
	json_int(b, "history_left_out", r->marks_left_out);
}

static void json_stages(struct buf *b, const struct account *r)
{
	json_open(b, "stages", '[');
	for (int i = 0; i < r->stage_count; i++) {
		json_open(b, NULL, '{');
		json_int(b, "percent", r->stages[i].percent);
		json_int(b, "devices", r->stages[i].devices);
		json_time(b, "begins", r->stages[i].begins_us);
		json_time(b, "ends", r->stages[i].ends_us);
		json_close(b, '}');
	}
	json_close(b, ']');
}

static void json_failures(struct buf *b, const struct account *r)
{
	json_open(b, "errors", '[');
	for (int i = 0; i < r->reason_count; i++) {
		json_open(b, NULL, '{');
		json_int(b, "count", r->reasons[i].count);
		json_str(b, "error", r->reasons[i].text);
		json_close(b, '}');
	}
	json_close(b, ']');
	json_open(b, "failures", '[');
	for (int i = 0; i < r->failure_count; i++) {
		json_open(b, NULL, '{');
		json_time(b, "at", r->failures[i].at_us);
		json_str(b, "device_id", r->failures[i].device_id);
		json_str(b, "error", r->failures[i].text);
		json_close(b, '}');
	}
	json_close(b, ']');
}

static void json_gate(struct buf *b, const struct account *r)
{
	if (!r->watched) {
		json_nil(b, "gate");
		return;
	}
	json_open(b, "gate", '{');
	json_int(b, "exposed", r->exposed);
	json_int(b, "proven", r->proven);
	json_int(b, "failed", r->failed);
	json_int(b, "silent", r->silent);
	json_bool(b, "halted", r->halted);
	json_float(b, "halts_at", r->halts_at);
	json_float(b, "most", r->e_most);
	json_str(b, "sentence", r->evidence);
	json_close(b, '}');
}

void report_write_json(struct buf *b, const struct account *r)
{
	char sentence[700];

	report_sentence(r, sentence, sizeof sentence);
	json_int(b, "rollout_id", r->id);
	json_str(b, "name", r->name);
	json_str(b, "firmware_version", r->version);
	json_str(b, "device_model", r->model);
	json_str(b, "target", r->target);
	json_str(b, "state", rollout_state_name(r->state));
	json_str(b, "reason", r->reason[0] ? r->reason : NULL);
	json_str(b, "sentence", sentence);
	json_time(b, "created_at", r->created_us);
	json_time(b, "from", r->from_us);
	json_time(b, "to", r->to_us);
	json_int(b, "targeted", r->targeted);
	json_int(b, "on_version", r->on_version);
	json_int(b, "image_bytes", r->image_bytes);
	json_open(b, "attempts", '{');
	for (int s = 0; s < ATTEMPT_STATES; s++)
		json_int(b, attempt_state_name((enum attempt_state)s), r->counts[s]);
	json_close(b, '}');
	json_gate(b, r);
	json_stages(b, r);
	json_history(b, r);
	json_failures(b, r);
	json_steps(b, r);
}

/* --- Markdown --- */

/* Text of others means nothing in Markdown, stays on its line, and is UTF-8. */
static void put_text(struct buf *b, const char *s)
{
	bool sound = utf8_valid(s, strlen(s));

	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (strchr("\\`*_{}[]<>()#+!|~&$", c))
			buf_addc(b, '\\');
		buf_addc(b, c < ' ' || c == 0x7F ? ' ' : c >= 0x80 && !sound ? '?' : *s);
	}
}

static void put_time(struct buf *b, int64_t us)
{
	char text[TIME_TEXT_SIZE];

	time_format(us, text);
	if (us)
		buf_printf(b, "%.10s %.8s", text, text + 11);
	else
		buf_adds(b, "-");
}

static void put_bytes(struct buf *b, int64_t bytes)
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
	double n = (double)bytes;
	int u = 0;

	for (; n >= 9999 && u < 5; u++)
		n /= 1024;
	buf_printf(b, u ? "%.1f %s" : "%.0f %s", n, units[u]);
}

static void put_facts(struct buf *b, const struct account *r)
{
	int64_t done = r->counts[ATTEMPT_SUCCESS] + r->counts[ATTEMPT_ROLLED_BACK];
	int64_t failed = r->counts[ATTEMPT_FAILED] + r->counts[ATTEMPT_ROLLED_BACK];

	buf_adds(b, "| | |\n|---|---|\n| rollout | ");
	put_text(b, r->name);
	buf_printf(b, " (%lld) |\n| target | ", (long long)r->id);
	put_text(b, r->target);
	buf_printf(b, " |\n| state | %s |\n| began | ", rollout_state_name(r->state));
	put_time(b, begun_us(r));
	buf_printf(
		b,
		" UTC |\n| devices | %lld of the %lld inside its stage run it |\n| attempts | "
		"%lld succeeded, %lld failed, %lld under way |\n| images sent | %lld whole ones at "
		"least: ",
		(long long)r->on_version, (long long)r->targeted, (long long)done,
		(long long)failed,
		(long long)(r->counts[ATTEMPT_PENDING] + r->counts[ATTEMPT_DOWNLOADING] +
			    r->counts[ATTEMPT_DOWNLOADED] + r->counts[ATTEMPT_INSTALLING]),
		(long long)done);
	put_bytes(b, done * r->image_bytes);
	buf_adds(b, " |\n");
	if (!r->watched) {
		buf_adds(b, "| gate | off |\n\n");
		return;
	}
	buf_printf(
		b,
		"| proven | %lld of the %lld devices that met it |\n| failed | %lld, %lld of them "
		"by silence |\n| gate | ",
		(long long)r->proven, (long long)r->exposed, (long long)r->failed,
		(long long)r->silent);
	put_text(b, r->evidence);
	buf_adds(b, " |\n\n");
}

static void put_stage_table(struct buf *b, const struct account *r)
{
	char lasted[32];

	buf_adds(b, "## Stages\n\n| stage | of the devices | devices | began (UTC) | ended (UTC) | "
		    "lasted |\n"
		    "|---:|---:|---:|---|---|---|\n");
	for (int i = 0; i < r->stage_count; i++) {
		const struct report_stage *s = &r->stages[i];
		int64_t end_us = s->ends_us ? s->ends_us : r->to_us;

		buf_printf(b, "| %d | %d %% | %lld | ", i + 1, s->percent, (long long)s->devices);
		put_time(b, s->begins_us);
		buf_adds(b, " | ");
		put_time(b, s->ends_us);
		duration_text(s->begins_us ? (end_us - s->begins_us) / US_PER_S : 0, lasted,
			      sizeof lasted);
		buf_printf(b, " | %s%s |\n", s->begins_us ? lasted : "-",
			   s->begins_us && !s->ends_us ? " so far" : "");
	}
	buf_addc(b, '\n');
}

static void put_history(struct buf *b, const struct account *r)
{
	buf_adds(b, "## What happened\n\n| when (UTC) | event | state | stage | why |\n"
		    "|---|---|---|---:|---|\n");
	for (int i = 0; i < r->mark_count; i++) {
		const struct report_mark *m = &r->marks[i];

		buf_adds(b, "| ");
		put_time(b, m->at_us);
		buf_adds(b, " | ");
		put_text(b, m->what);
		buf_printf(b, " | %s | %d | ", rollout_state_name(m->state), m->stage + 1);
		put_text(b, m->reason);
		buf_adds(b, " |\n");
	}
	if (r->marks_left_out)
		buf_printf(b, "\n%d more events are left out.\n", r->marks_left_out);
	buf_addc(b, '\n');
}

static void put_failures(struct buf *b, const struct account *r)
{
	if (!r->reason_count)
		return;
	buf_adds(b, "## What failed\n\n| attempts | error |\n|---:|---|\n");
	for (int i = 0; i < r->reason_count; i++) {
		buf_printf(b, "| %lld | ", (long long)r->reasons[i].count);
		put_text(b, r->reasons[i].text);
		buf_adds(b, " |\n");
	}
	buf_adds(b, "\nThe last of them:\n\n| when (UTC) | device | error |\n|---|---|---|\n");
	for (int i = 0; i < r->failure_count; i++) {
		const struct report_failure *f = &r->failures[i];

		buf_adds(b, "| ");
		put_time(b, f->at_us);
		buf_adds(b, " | ");
		put_text(b, f->device_id);
		buf_adds(b, " | ");
		put_text(b, f->text);
		buf_adds(b, " |\n");
	}
	buf_addc(b, '\n');
}

void report_write_markdown(struct buf *b, const struct account *r)
{
	char sentence[700];

	report_sentence(r, sentence, sizeof sentence);
	buf_adds(b, "# ");
	put_text(b, r->version);
	buf_adds(b, " for ");
	put_text(b, r->model);
	buf_adds(b, "\n\n");
	put_text(b, sentence);
	buf_adds(b, "\n\n![Devices by state over time](" REPORT_PICTURE ")\n\n");
	put_facts(b, r);
	put_stage_table(b, r);
	put_history(b, r);
	put_failures(b, r);
	buf_adds(b, "Written at ");
	put_time(b, r->now_us);
	buf_adds(b, " UTC.\n");
}
