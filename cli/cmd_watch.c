/* SPDX-License-Identifier: MIT */
/*
 * watch: asks the service once a second, and shows what has changed.
 *
 * One question while nothing changes; when counts do, the attempts and the last events as well. The
 * attempts are read whole for up to ROWS_SOFT of them, or when nothing is under way any more and
 * the end has to be judged exactly.  A service that does not answer is waited for, up to
 * PATIENCE_MS.
 */
#include "cli/api.h"
#include "cli/format.h"
#include "cli/term.h"
#include "cli/text.h"
#include "cli/watch.h"
#include "base/clock.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_SOFT   5000
#define EVENTS_KEPT 40
#define PATIENCE_MS 60000
#define CONFIRM_MAX 50

const struct opt cmd_watch_opts[] = {
	{.name = "timeout",
	 .arg = "S",
	 .help = "give up after so many seconds (exit code 5)",
	 .min = 1,
	 .max = 31536000},
	{.name = "interval",
	 .arg = "S",
	 .help = "seconds between two looks (1)",
	 .min = 1,
	 .max = 3600},
	{0},
};

struct watch {
	struct cli *c;
	int64_t id;
	const struct watch_options *o;
	struct watch_state s;
	int64_t started_mono_ms, answered_mono_ms;
	bool seen, screen;
	char *last_line; /* of counts: printed when it differs */
};

static enum ota_code read_rows(struct watch *w, struct ota_err *err)
{
	struct buf url = BUF_INIT;
	struct watch_rows rows = {0};
	json_t *answer, *update;
	/* Nothing is under way, and some do not run it: have they failed, all of them? */
	bool all = w->s.done < w->s.targeted && !w->s.counts[0] && !w->s.counts[1] &&
		   !w->s.counts[2] && !w->s.counts[3];
	enum ota_code code;
	size_t i;

	api_url(w->c, &url, "/api/admin/update-status");
	url_query_int(&url, "rollout_id", w->id);
	code = api_list(w->c, &url, "updates", all ? 0 : ROWS_SOFT, &answer, err);
	if (code != OTA_OK)
		return code;
	json_array_foreach(json_object_get(answer, "updates"), i, update)
	{
		if (!watch_rows_add(&rows, update)) {
			code = ota_fail_nomem(err);
			break;
		}
	}
	rows.complete = !api_str(answer, "next_cursor");
	json_decref(answer);
	if (code != OTA_OK) {
		watch_rows_fini(&rows);
		return code;
	}
	watch_rows_fini(&w->s.rows);
	w->s.rows = rows;
	return OTA_OK;
}

static enum ota_code read_events(struct watch *w, struct ota_err *err)
{
	struct buf url = BUF_INIT;
	json_t *answer;
	enum ota_code code;

	api_url(w->c, &url, "/api/admin/events");
	url_query_int(&url, "rollout_id", w->id);
	code = api_list(w->c, &url, "events", EVENTS_KEPT, &answer, err);
	if (code != OTA_OK)
		return code;
	json_decref(w->s.events);
	w->s.events = json_incref(json_object_get(answer, "events"));
	json_decref(answer);
	return OTA_OK;
}

/* One look.  Counts are only taken over together with the rows that explain them. */
static enum ota_code look(struct watch *w, struct ota_err *err)
{
	struct buf url = BUF_INIT;
	json_t *answer;
	enum ota_code code;

	api_url(w->c, &url, "/api/admin/rollouts");
	buf_printf(&url, "/%" PRId64, w->id);
	code = api_get(w->c, &url, &answer, err);
	if (code != OTA_OK)
		return code;
	json_decref(w->s.rollout);
	w->s.rollout = answer;
	w->s.now_us = cli_now_us(w->c);
	if (!w->s.started_us)
		w->s.started_us = w->s.now_us;
	if (watch_read_counts(&w->s) || !w->seen) {
		w->seen = false; /* until the rows are here too */
		code = read_rows(w, err);
		if (code == OTA_OK && w->screen)
			code = read_events(w, err);
		if (code != OTA_OK)
			return code;
	}
	w->seen = true;
	w->answered_mono_ms = clock_mono_ms();
	w->s.trouble[0] = 0;
	watch_tally(&w->s);
	return OTA_OK;
}

/*
 * Attempts do not tell that somebody said `retry`; the service does.  Asked only when all else is
 * over, and of the first CONFIRM_MAX devices: one that may go on is enough to wait.
 */
static enum ota_code forgive(struct watch *w, struct ota_err *err)
{
	int64_t forgiven = 0;
	int asked = 0;

	for (size_t i = 0; i < w->s.rows.n && asked < CONFIRM_MAX; i++) {
		struct buf url = BUF_INIT;
		json_t *answer;
		enum ota_code code;

		if (!w->s.rows.rows[i].given_up)
			continue;
		asked++;
		api_url(w->c, &url, "/api/admin/devices");
		url_segment(&url, w->s.rows.rows[i].device);
		buf_adds(&url, "/explain");
		code = api_get(w->c, &url, &answer, err);
		if (code == OTA_ENOTFOUND)
			continue; /* deleted meanwhile */
		if (code != OTA_OK)
			return code;
		forgiven += api_true(answer, "update_available") &&
			    api_int(answer, "rollout_id", -1) == w->id;
		json_decref(answer);
	}
	watch_forgive(&w->s, forgiven);
	return OTA_OK;
}

/*
 * Every line begins with "erase to its end", and what is below is erased: no flicker, no rest of
 * before.  Not behind the text: after a line as wide as the screen the cursor is on its last
 * character still, and most terminals would erase that.
 */
static void put_screen(const struct buf *frame, int lines)
{
	struct buf out = BUF_INIT;
	int n = 0;

	buf_adds(&out, "\x1b[H\x1b[K");
	for (size_t i = 0; i < frame->len && n < lines; i++) {
		if (frame->data[i] != '\n') {
			buf_addc(&out, frame->data[i]);
			continue;
		}
		n++;
		buf_adds(&out, n < lines ? "\n\x1b[K" : "");
	}
	buf_adds(&out, n < lines ? "\x1b[J" : "");
	if (buf_ok(&out))
		fwrite(out.data, 1, out.len, stdout);
	fflush(stdout);
	buf_fini(&out);
}

static void footer(const struct watch *w, struct buf *frame)
{
	if (w->s.trouble[0])
		buf_printf(frame, "\n%s%s%s\n", term_sgr(COLOUR_YELLOW), w->s.trouble,
			   term_sgr(COLOUR_NONE));
	else
		buf_printf(frame, "\n%sq leaves; the rollout goes on%s\n", term_sgr(COLOUR_DIM),
			   term_sgr(COLOUR_NONE));
}

static void show(struct watch *w)
{
	struct buf out = BUF_INIT;
	int lines = term_lines();

	if (w->screen) {
		w->s.now_us = cli_now_us(w->c);
		watch_draw(&w->s, term_columns(), lines - 1, &out);
		footer(w, &out);
		put_screen(&out, lines);
	} else {
		char *line;

		watch_line(&w->s, &out);
		line = buf_take(&out, NULL);
		/* The time in front (21 characters) is no change. */
		if (line && (!w->last_line || strcmp(line + 21, w->last_line + 21) != 0)) {
			struct ota_err ignored;

			if (!w->c->json)
				fputs(line, stdout);
			else if (api_print_json(w->s.rollout, &ignored) != OTA_OK)
				fputs("{}\n", stdout);
			fflush(stdout);
			free(w->last_line);
			w->last_line = line;
			line = NULL;
		}
		free(line);
	}
	buf_fini(&out);
}

/* The last word: the screen stays as it was, under it what came out. */
static void conclude(struct watch *w, enum watch_verdict v)
{
	struct buf out = BUF_INIT;
	FILE *to = w->c->json ? stderr : stdout;

	if (w->screen) {
		term_screen_close();
		w->s.events = (json_decref(w->s.events), NULL);
		watch_draw(&w->s, term_columns(), term_lines(), &out);
		fwrite(out.data, 1, out.len, stdout);
		buf_reset(&out);
		buf_addc(&out, '\n');
	}
	watch_sentence(&w->s, v, &out);
	fprintf(to, "%s\n", buf_ok(&out) ? out.data : "");
	fflush(to);
	if (v == WATCH_FAILED)
		fprintf(stderr, "  paku-ota updates --rollout %" PRId64 "    shows the errors\n",
			w->id);
	else if (v == WATCH_INACTIVE && !watch_is_over(&w->s))
		fprintf(stderr, "  paku-ota rollout resume %" PRId64 "\n", w->id);
	else if (v == WATCH_GOES_ON)
		fprintf(stderr, "  paku-ota explain DEVICE    says why one is not being updated\n");
	buf_fini(&out);
	w->c->exit_status = v == WATCH_ALL_DONE  ? EXIT_OK
			    : v == WATCH_GOES_ON ? EXIT_TIMEOUT
						 : EXIT_REFUSED;
}

/* A look that failed after one that did not: wait for the service a while. */
static enum ota_code bear(struct watch *w, const struct ota_err *err)
{
	bool passing = err->code == OTA_EIO || err->code == OTA_EUNAVAIL;
	bool first = !w->s.trouble[0];
	struct buf words = BUF_INIT, cut = BUF_INIT;

	if (!passing || term_interrupted() || clock_mono_ms() - w->answered_mono_ms > PATIENCE_MS)
		return err->code;
	text_clean(&words, err->msg, strlen(err->msg), TEXT_LINE, !term_utf8());
	text_fit(&cut, words.data ? words.data : "", 100, !term_utf8());
	snprintf(w->s.trouble, sizeof(w->s.trouble), "waiting for the service: %s",
		 cut.data ? cut.data : "");
	buf_fini(&cut);
	if (first && !w->screen)
		fprintf(stderr, "%s\n", w->s.trouble);
	buf_fini(&words);
	w->c->hint[0] = 0;
	return OTA_OK;
}

static bool timed_out(const struct watch *w)
{
	return w->o->timeout_s && clock_mono_ms() - w->started_mono_ms >= w->o->timeout_s * 1000;
}

static enum ota_code loop(struct watch *w, struct ota_err *err)
{
	for (;;) {
		enum watch_verdict v = WATCH_GOES_ON;
		enum ota_code code = look(w, err);

		if (code == OTA_OK && watch_judge(&w->s) == WATCH_FAILED)
			code = forgive(w, err);
		if (code != OTA_OK)
			code = bear(w, err);
		else
			v = watch_judge(&w->s);
		if (code != OTA_OK)
			return code;
		show(w);
		if (v != WATCH_GOES_ON || timed_out(w)) {
			conclude(w, v);
			return OTA_OK;
		}
		if (term_wait((int)w->o->interval_ms) || term_interrupted()) {
			w->c->exit_status = EXIT_INTERRUPTED;
			return OTA_OK;
		}
	}
}

enum ota_code watch_rollout(struct cli *c, int64_t id, const struct watch_options *o,
			    struct ota_err *err)
{
	struct watch w = {.c = c, .id = id, .o = o, .started_mono_ms = clock_mono_ms()};
	enum ota_code code;

	code = look(&w, err);
	if (code == OTA_OK) {
		w.screen = !c->json && term_screen_open();
		w.seen = false; /* the screen wants the events too */
		code = loop(&w, err);
	}
	term_screen_close();
	watch_rows_fini(&w.s.rows);
	json_decref(w.s.rollout);
	json_decref(w.s.events);
	free(w.last_line);
	return code;
}

enum ota_code cmd_watch(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct watch_options o = {.timeout_s = args_int(a, "timeout", 0),
				  .interval_ms = args_int(a, "interval", 1) * 1000};
	enum ota_code code;
	int64_t id;

	code = api_rollout_id(c, a->pos[0], &id, err);
	return code == OTA_OK ? watch_rollout(c, id, &o, err) : code;
}
