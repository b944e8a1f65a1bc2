/* SPDX-License-Identifier: MIT */
/* Rollouts: what one would do, and when one that walks will be through. */
#include "http/request.h"

#include "base/clock.h"
#include "commit/foresee.h"
#include "commit/progress.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const case_names[FORECAST_CASES] = {"earliest", "likely", "latest"};
static const char *const wait_names[] = {
	[FORECAST_TIME] = "time", [FORECAST_PROOF] = "proof", [FORECAST_TOO_FEW] = "never"};

static struct foresee_limits limits_of(const struct request *r)
{
	const struct config *cfg = r->server->cfg;

	return (struct foresee_limits){.max_downloads = cfg->max_downloads,
				       .tell_per_s = cfg->dispatch_per_second,
				       .bytes_per_s = cfg->download_bytes_per_s};
}

static void json_time(struct buf *b, const char *key, int64_t us)
{
	char text[TIME_TEXT_SIZE];

	if (us == FORECAST_NEVER || us == 0) {
		json_nil(b, key);
		return;
	}
	time_format(us, text);
	json_str(b, key, text);
}

static void add_times(struct buf *b, const char *key, const int64_t us[FORECAST_CASES])
{
	json_open(b, key, '{');
	for (int i = 0; i < FORECAST_CASES; i++)
		json_time(b, case_names[i], us[i]);
	json_close(b, '}');
}

/* Seconds since FROM. */
static void add_durations(struct buf *b, const char *key, const int64_t us[FORECAST_CASES],
			  int64_t from_us)
{
	json_open(b, key, '{');
	for (int i = 0; i < FORECAST_CASES; i++)
		if (us[i] == FORECAST_NEVER)
			json_nil(b, case_names[i]);
		else
			json_int(b, case_names[i], (us[i] - from_us) / US_PER_S);
	json_close(b, '}');
}

static void add_counts(struct buf *b, const struct reach_stage *s)
{
	json_int(b, "devices", s->devices);
	json_int(b, "seen", s->seen);
	json_int(b, "on_version", s->done);
	json_int(b, "to_update", s->to_update);
	json_int(b, "reachable", s->reachable);
}

static void sum_up(struct reach_stage *sum, const struct reach_stage *s)
{
	sum->devices += s->devices;
	sum->seen += s->seen;
	sum->done += s->done;
	sum->to_update += s->to_update;
	sum->reachable += s->reachable;
}

static void add_stages(struct buf *b, const struct foresight *f)
{
	struct reach_stage sum = {0};

	json_open(b, "stages", '[');
	for (int i = 0; i < f->rollout->stage_count; i++) {
		const struct stage *s = &f->rollout->stages[i];
		const struct forecast_stage *o = &f->forecast.stages[i];

		sum_up(&sum, &f->reach.stages[i]);
		json_open(b, NULL, '{');
		json_int(b, "percent", s->percent);
		json_int(b, "min_duration_s", s->min_duration_s);
		json_bool(b, "approve", s->approve);
		add_counts(b, &sum);
		json_int(b, "needed", o->needed);
		json_int(b, "bytes", f->reach.stages[i].to_update * f->rollout->release->file_size);
		json_str(b, "waits_for", wait_names[o->wait]);
		add_times(b, "begins", o->begins_us);
		add_times(b, "ends", o->ends_us);
		json_close(b, '}');
	}
	json_close(b, ']');
}

static void add_refused(struct buf *b, const struct reach *c)
{
	json_open(b, "refused", '{');
	for (int i = 0; i < REASONS; i++)
		if (c->refused[i])
			json_int(b, reason_name((enum reason)i), c->refused[i]);
	json_close(b, '}');
}

static void add_variants(struct buf *b, const struct reach *c)
{
	json_open(b, "variants", '[');
	for (int64_t i = 0; i < c->taken; i++) {
		const struct reach_variant *v = &c->variants[i];

		json_open(b, NULL, '{');
		json_str(b, "hw", v->hw[0] ? v->hw : NULL);
		json_str(b, "from_version", v->from[0] ? v->from : NULL);
		json_int(b, "to_update", v->to_update);
		json_int(b, "reachable", v->reachable);
		json_close(b, '}');
	}
	json_close(b, ']');
}

/* What the times rest on. */
static void add_pace(struct buf *b, const struct foresight *f)
{
	const struct guard *g = &f->rollout->guard;

	json_open(b, "pace", '{');
	json_int(b, "history", f->history);
	json_int(b, "update_s", f->pace.take_us / US_PER_S);
	json_float(b, "failure_share", f->pace.failure_share);
	json_int(b, "interval_s", reach_median_us(&f->reach) / US_PER_S);
	if (g->off)
		json_nil(b, "prove_s");
	else
		json_int(b, "prove_s", g->params.prove_s);
	json_int(b, "max_downloads", f->pace.max_downloads);
	json_int(b, "tell_per_s", f->pace.tell_per_s);
	if (f->pace.bytes_per_s)
		json_int(b, "bytes_per_s", f->pace.bytes_per_s);
	else
		json_nil(b, "bytes_per_s");
	json_close(b, '}');
}

/* "about 3 h (2 h to 6 h)" */
static void say_range(const int64_t us[FORECAST_CASES], int64_t from_us, char *out, size_t size)
{
	char text[FORECAST_CASES][32];

	for (int i = 0; i < FORECAST_CASES; i++)
		if (us[i] == FORECAST_NEVER)
			snprintf(text[i], sizeof text[i], "never");
		else
			duration_text((us[i] - from_us) / US_PER_S, text[i], sizeof text[i]);
	if (strcmp(text[FORECAST_EARLIEST], text[FORECAST_LATEST]) == 0)
		snprintf(out, size, "about %s", text[FORECAST_LIKELY]);
	else
		snprintf(out, size, "about %s (%s to %s)", text[FORECAST_LIKELY],
			 text[FORECAST_EARLIEST], text[FORECAST_LATEST]);
}

static void say_end(const struct foresight *f, char *out, size_t size)
{
	const struct forecast *x = &f->forecast;
	int i = f->rollout->walk.stage;
	char range[120];

	while (i < x->stage_count && x->stages[i].wait != FORECAST_TOO_FEW)
		i++;
	if (i == x->stage_count) {
		say_range(x->stages[i - 1].ends_us, f->begins_us, range, sizeof range);
		snprintf(out, size, "It is through in %s.", range);
	} else if (x->stages[i].needed > x->stages[i].can) {
		snprintf(out, size,
			 "It does not come to its end by itself: stage %d needs %lld devices that "
			 "prove the release, and %lld can.",
			 i + 1, (long long)x->stages[i].needed, (long long)x->stages[i].can);
	} else {
		snprintf(
			out, size,
			"It does not come to the end of stage %d by itself: too few of its devices "
			"can get the release.",
			i + 1);
	}
}

static void write_plan(struct request *r, const struct rollout_new *n, const struct foresight *f)
{
	const struct forecast *x = &f->forecast;
	const int64_t *ends_us = x->stages[x->stage_count - 1].ends_us;
	struct reach_stage sum = foresight_sum(f);
	struct buf *b = respond_begin(r, 200);
	char text[400];

	json_str(b, "name", n->name);
	json_str(b, "firmware_version", n->version);
	json_str(b, "device_model", n->model);
	json_int(b, "selected", f->reach.selected);
	add_counts(b, &sum);
	add_refused(b, &f->reach);
	json_int(b, "image_bytes", f->rollout->release->file_size);
	json_int(b, "bytes", sum.to_update * f->rollout->release->file_size);
	json_time(b, "begins", f->begins_us);
	add_stages(b, f);
	add_times(b, "ends", ends_us);
	add_durations(b, "duration_s", ends_us, f->begins_us);
	add_durations(b, "everybody_s", x->reached_us, f->begins_us);
	say_end(f, text, sizeof text);
	json_str(b, "sentence", text);
	add_variants(b, &f->reach);
	add_pace(b, f);
	json_open(b, "warnings", '[');
	for (int i = 0; i < f->warning_count; i++)
		json_str(b, NULL, f->warnings[i]);
	json_close(b, ']');
	respond_end(r);
}

void rollout_write_plan(struct request *r, const struct rollout_new *n)
{
	struct foresee_limits limits = limits_of(r);
	struct foresight *f = calloc(1, sizeof *f);

	if (!f) {
		r->job_code = ota_fail_nomem(&r->job_err);
		return;
	}
	r->job_code = foresee_plan(r->server->committer, n, &limits, f, &r->job_err);
	if (r->job_code == OTA_OK)
		write_plan(r, n, f);
	foresight_fini(f);
	free(f);
}

/* --- eta --- */

/* A look goes over the fleet: a watcher who asks each second gets the last one, as long as so many
 * times what it cost, and this at least. */
#define ETA_LEAST_MS 2000
#define ETA_TIMES    20
#define ETA_KEPT     16
/* Others are told what was known before, as long as one looks: this at the most. */
#define ETA_LOOK_MS 60000

struct eta {
	int64_t id; /* of the rollout; 0: free */
	uint64_t plan;
	int64_t until_ms;
	char text[1200]; /* JSON */
};

/* What was counted of a rollout that the committer does not keep up: it costs the same, and is told
 * again as long. */
struct counted {
	int64_t id;
	uint64_t plan;
	int64_t until_ms;
	struct progress progress;
};

struct etas {
	pthread_mutex_t lock;
	struct eta kept[ETA_KEPT];
	struct counted counted[ETA_KEPT];
};

struct etas *etas_new(void)
{
	struct etas *e = calloc(1, sizeof *e);

	if (e)
		pthread_mutex_init(&e->lock, NULL);
	return e;
}

void etas_free(struct etas **e)
{
	if (*e)
		pthread_mutex_destroy(&(*e)->lock);
	free(*e);
	*e = NULL;
}

/* The last look, if it is fresh; else *OUT is what is told while another one is made. */
static bool eta_find(struct etas *e, int64_t id, uint64_t plan, struct eta *out)
{
	int64_t now_ms = clock_mono_ms();
	bool fresh = false;

	*out = (struct eta){.id = id, .plan = plan, .text = "null"};
	pthread_mutex_lock(&e->lock);
	for (int i = 0; i < ETA_KEPT; i++) {
		const struct eta *k = &e->kept[i];

		if (k->id != id || k->plan != plan)
			continue;
		fresh = now_ms < k->until_ms;
		*out = *k;
	}
	pthread_mutex_unlock(&e->lock);
	return fresh;
}

/* In the place of the same rollout's, or else the oldest one's. */
static void eta_keep(struct etas *e, const struct eta *made)
{
	struct eta *at = &e->kept[0];

	pthread_mutex_lock(&e->lock);
	for (int i = 0; i < ETA_KEPT; i++) {
		struct eta *k = &e->kept[i];

		if (k->id == made->id) {
			at = k;
			break;
		}
		if (k->until_ms < at->until_ms)
			at = k;
	}
	*at = *made;
	pthread_mutex_unlock(&e->lock);
}

static void write_eta(struct buf *b, const struct foresight *f)
{
	const struct forecast *x = &f->forecast;
	char text[400];

	json_open(b, NULL, '{');
	for (int i = 0; i < FORECAST_CASES; i++)
		json_time(b, case_names[i], x->stages[x->stage_count - 1].ends_us[i]);
	add_times(b, "stage", x->stages[f->rollout->walk.stage].ends_us);
	say_end(f, text, sizeof text);
	json_str(b, "sentence", text);
	json_close(b, '}');
}

static void eta_make(struct request *r, struct eta *made)
{
	struct foresee_limits limits = limits_of(r);
	struct foresight *f = calloc(1, sizeof *f);
	int64_t began_ms = clock_mono_ms();
	struct buf b = BUF_INIT;
	struct ota_err ignored; /* the rollout is shown all the same */
	bool known = false;

	if (f &&
	    foresee_rollout(r->server->committer, made->id, &limits, f, &known, &ignored) ==
		    OTA_OK &&
	    known)
		write_eta(&b, f);
	bool fits = b.data && buf_ok(&b) && b.len < sizeof made->text;
	snprintf(made->text, sizeof made->text, "%s", fits ? b.data : "null");
	int64_t spent_ms = clock_mono_ms() - began_ms;
	made->until_ms =
		clock_mono_ms() +
		(spent_ms * ETA_TIMES > ETA_LEAST_MS ? spent_ms * ETA_TIMES : ETA_LEAST_MS);
	buf_fini(&b);
	if (f)
		foresight_fini(f);
	free(f);
}

void rollout_add_eta(struct request *r, struct buf *b, int64_t id)
{
	struct etas *e = r->server->etas;
	struct eta eta;

	if (!eta_find(e, id, fleet_plan_number(r->server->fleet), &eta)) {
		eta.until_ms = clock_mono_ms() + ETA_LOOK_MS;
		eta_keep(e, &eta); /* so that nobody else looks, too */
		eta_make(r, &eta);
		eta_keep(e, &eta);
	}
	json_raw(b, "eta", eta.text);
}

/* --- how far --- */

static bool counted_find(struct etas *e, int64_t id, uint64_t plan, struct progress *out)
{
	int64_t now_ms = clock_mono_ms();
	bool fresh = false;

	pthread_mutex_lock(&e->lock);
	for (int i = 0; i < ETA_KEPT && !fresh; i++) {
		const struct counted *k = &e->counted[i];

		fresh = k->id == id && k->plan == plan && now_ms < k->until_ms;
		if (fresh)
			*out = k->progress;
	}
	pthread_mutex_unlock(&e->lock);
	return fresh;
}

static void counted_keep(struct etas *e, const struct counted *made)
{
	struct counted *at = &e->counted[0];

	pthread_mutex_lock(&e->lock);
	for (int i = 0; i < ETA_KEPT && at->id != made->id; i++) {
		struct counted *k = &e->counted[i];

		if (k->id == made->id || k->until_ms < at->until_ms)
			at = k;
	}
	*at = *made;
	pthread_mutex_unlock(&e->lock);
}

void rollout_count(struct request *r, int64_t id, struct progress *out)
{
	struct committer *c = r->server->committer;
	struct fleet *f = r->server->fleet;
	int64_t now_us = clock_service_us(), began_ms = clock_mono_ms();
	struct counted made = {.id = id, .plan = fleet_plan_number(f)};

	fleet_plan_read(f);
	const struct rollout *o = fleet_rollout(f, id);
	bool known = o && progress_known(c, o, now_us, out);
	fleet_plan_done(f);
	if (known || counted_find(r->server->etas, id, made.plan, out))
		return;
	progress_count(c, id, now_us, out);
	int64_t spent_ms = clock_mono_ms() - began_ms;
	made.until_ms = clock_mono_ms() + spent_ms * ETA_TIMES;
	made.progress = *out;
	counted_keep(r->server->etas, &made);
}
