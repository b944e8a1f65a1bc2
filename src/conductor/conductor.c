/* SPDX-License-Identifier: MIT */
#include "conductor/conductor.h"

#include "base/clock.h"
#include "base/log.h"
#include "commit/progress.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A rollout that waits for devices is looked at so often. */
#define LOOK_US US_PER_S
/* Counting a rollout anew takes less than half a microsecond for each device of the fleet.  Between
 * two counts, of whatever rollouts, this much for each: a twentieth of the time goes into it. */
#define COUNT_DEVICE_US 8
/* The thread looks at least so often whether the plan has changed. */
#define NAP_US US_PER_S
/* The service's time, which runs on by the monotonic clock, has jumped when it is so far ahead. */
#define JUMP_US (60 * US_PER_S)

/* No clock before this code was written is right: 2026-11-01. */
#define EARLIEST_US (INT64_C(1793491200) * US_PER_S)
/* A clock that is set right may step back so far. */
#define STEP_BACK_US (60 * US_PER_S)

struct entry {
	int64_t rollout_id;
	int64_t due_us; /* nothing comes before */
};

struct conductor {
	struct fleet *fleet;
	struct committer *committer;
	struct alerts *alerts; /* NULL: nobody is to be told */
	/* By due_us, ascending. */
	struct entry *entries;
	size_t count, cap;
	int64_t may_count_us; /* anew, not before */
	uint64_t plan_number;
	bool plan_read;
	int64_t next_look_us; /* at those that have met a release */
	/* The thread's. */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool stopping; /* under lock */
	bool distrusts;
};

/* --- what waits --- */

static void insert(struct conductor *k, struct entry e)
{
	size_t at = k->count++;

	for (; at > 0 && k->entries[at - 1].due_us > e.due_us; at--)
		k->entries[at] = k->entries[at - 1];
	k->entries[at] = e;
}

static int by_due(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return (x->due_us > y->due_us) - (x->due_us < y->due_us);
}

static size_t count_rollouts(struct fleet *f)
{
	size_t n = 0;

	for (const struct model *m = fleet_models(f); m; m = m->next)
		for (const struct rollout *r = m->rollouts; r; r = r->next)
			n++;
	return n;
}

/* With the plan held.  False: no memory now; what is known stays. */
static bool replace_entries(struct conductor *k)
{
	size_t cap = count_rollouts(k->fleet) + 1, n = 0;
	struct entry *fresh = calloc(cap, sizeof *fresh);

	if (!fresh)
		return false;
	for (const struct model *m = fleet_models(k->fleet); m; m = m->next)
		for (const struct rollout *r = m->rollouts; r; r = r->next)
			if (walk_due_us(r) != INT64_MAX)
				fresh[n++] = (struct entry){r->id, walk_due_us(r)};
	free(k->entries);
	k->entries = fresh;
	k->count = n;
	k->cap = cap;
	return true;
}

static void read_plan(struct conductor *k)
{
	uint64_t number = fleet_plan_number(k->fleet);

	if (k->plan_read && number == k->plan_number)
		return;
	fleet_plan_read(k->fleet);
	k->plan_read = replace_entries(k);
	fleet_plan_done(k->fleet);
	k->plan_number = number;
	if (k->count > 1)
		qsort(k->entries, k->count, sizeof *k->entries, by_due);
}

/* --- one rollout --- */

/* What is due by the time and the state alone; WAIT_PROOF where the devices decide. */
static struct walk_next judge_time(struct conductor *k, const struct rollout *r, int64_t now_us)
{
	const struct stage_facts f = {
		.now_us = now_us, .evidence = 1, .stopped = fleet_is_stopped(k->fleet)};
	struct walk_next n = walk_judge(r, &f);

	if (r->walk.state == ROLLOUT_RUNNING && n.event != ROLLOUT_PAUSE && n.wait != WAIT_TIME &&
	    n.wait != WAIT_RESUME_ALL)
		n.wait = WAIT_PROOF;
	return n;
}

/* What is due, with the plan held; and *due_us, when to look again.  False: its devices decide, and
 * they are to be counted. */
static bool look(struct conductor *k, const struct rollout *r, int64_t now_us,
		 struct walk_next *out, int64_t *due_us)
{
	struct progress p;
	bool known = true;

	*out = judge_time(k, r, now_us);
	*due_us = walk_due_us(r);
	if (*due_us <= now_us)
		*due_us = now_us + LOOK_US;
	if (out->wait == WAIT_PROOF) {
		known = progress_known(k->committer, r, now_us, &p);
		if (known)
			*out = walk_judge(r, &p.facts);
		*due_us = now_us + LOOK_US;
	}
	if (r->deadline_us > now_us && r->deadline_us < *due_us)
		*due_us = r->deadline_us;
	return known;
}

static void say_why(const struct walk_next *n, char *out, size_t size)
{
	switch (n->event) {
	case ROLLOUT_START: snprintf(out, size, "its time has come"); return;
	case ROLLOUT_PAUSE: snprintf(out, size, "its deadline has passed"); return;
	default:
		snprintf(out, size,
			 "its time has passed, and %" PRId64 " devices run it well (%" PRId64
			 " needed)",
			 n->have, n->need);
	}
}

static void lead(struct conductor *k, struct command *cmd)
{
	enum ota_code rc = committer_run(k->committer, cmd);
	char subject[64];

	if (rc == OTA_OK)
		return;
	/* Somebody was faster: the plan has changed, and is read anew.  Or the store is ill, which
	 * the committer tells. */
	snprintf(subject, sizeof subject, "rollout/%lld", (long long)cmd->walk.id);
	log_event(rc == OTA_ECONFLICT || rc == OTA_EUNAVAIL ? LOG_DEBUG : LOG_WARNING, subject,
		  "not_led", "%s: %s", rollout_event_name(cmd->walk.event), cmd->err.msg);
}

/* Looks at the rollout, and says what it finds to the alerts; *OUT waits where nothing is due.
 * False: its devices are to be counted. */
static bool look_at(struct conductor *k, struct entry *e, int64_t now_us, struct walk_next *out,
		    struct command *cmd)
{
	bool known = true;

	*out = (struct walk_next){.wait = WAIT_OVER};
	fleet_plan_read(k->fleet);
	const struct rollout *r = fleet_rollout(k->fleet, e->rollout_id);
	if (r) {
		known = look(k, r, now_us, out, &e->due_us);
		if (k->alerts && known)
			alerts_judged(k->alerts, r, out->wait);
		cmd->walk.id = r->id;
		cmd->walk.event = out->event;
		cmd->walk.expect_states = 1u << r->walk.state;
		cmd->walk.expect_stage = r->walk.stage + 1;
	} else {
		e->due_us = INT64_MAX;
	}
	fleet_plan_done(k->fleet);
	return known;
}

/* The committer counts, a part of the fleet at a time, and keeps up what it counted.  False: it
 * did not, or somebody has to wait. */
static bool count(struct conductor *k, int64_t rollout_id, int64_t now_us)
{
	struct command cmd = {.kind = COMMAND_COUNT, .count = {.rollout_id = rollout_id}};

	if (now_us < k->may_count_us)
		return false;
	do
		if (committer_run(k->committer, &cmd) != OTA_OK)
			return false;
	while (!cmd.out.existed);
	k->may_count_us = now_us + (int64_t)fleet_device_count(k->fleet) * COUNT_DEVICE_US;
	return true;
}

static void judge(struct conductor *k, struct entry *e, int64_t now_us)
{
	struct command cmd = {.kind = COMMAND_ROLLOUT_WALK, .by = "conductor"};
	struct walk_next n;
	char why[200];

	if (!look_at(k, e, now_us, &n, &cmd) && count(k, e->rollout_id, now_us))
		(void)look_at(k, e, now_us, &n, &cmd);
	if (n.wait != WAIT_NOTHING)
		return;
	say_why(&n, why, sizeof why);
	cmd.walk.reason = why;
	lead(k, &cmd); /* it is due still, where it was not led */
}

/* Asks what became of the devices that have met a release; when to ask again. */
static int64_t look_at_trials(struct conductor *k, int64_t now_us)
{
	struct command cmd = {.kind = COMMAND_GATE_LOOK, .by = "conductor"};

	if (committer_on_trial(k->committer) == 0)
		return INT64_MAX;
	if (now_us >= k->next_look_us || now_us < k->next_look_us - LOOK_US) {
		k->next_look_us = now_us + LOOK_US;
		if (committer_run(k->committer, &cmd) != OTA_OK)
			log_event(LOG_WARNING, "conductor", "not_looked", "%s", cmd.err.msg);
	}
	return k->next_look_us;
}

/* Leads what is due; when something may be due again. */
static int64_t lead_due(struct conductor *k, int64_t now_us)
{
	for (;;) {
		read_plan(k);
		if (k->count == 0)
			return k->plan_read ? INT64_MAX : now_us + LOOK_US;
		if (k->entries[0].due_us > now_us)
			return k->entries[0].due_us;
		struct entry e = k->entries[0];
		memmove(k->entries, k->entries + 1, --k->count * sizeof *k->entries);
		judge(k, &e, now_us);
		if (e.due_us != INT64_MAX)
			insert(k, e);
	}
}

int64_t conductor_tick(struct conductor *k, int64_t now_us)
{
	int64_t looks_us = look_at_trials(k, now_us), due_us = lead_due(k, now_us);

	if (k->alerts)
		alerts_tick(k->alerts, now_us);
	return looks_us < due_us ? looks_us : due_us;
}

/* --- the thread --- */

bool conductor_trusts(int64_t wall_us, int64_t now_us)
{
	return wall_us >= EARLIEST_US && wall_us >= now_us - STEP_BACK_US;
}

/* What a clock says that is behind what was stored, or before this program was written, is no time
 * to end a stage by. */
static bool trusts_clock(struct conductor *k, int64_t now_us)
{
	int64_t wall_us = clock_wall_us();
	bool trusts = conductor_trusts(wall_us, now_us);
	char wall[TIME_TEXT_SIZE], now[TIME_TEXT_SIZE];

	time_format(wall_us, wall);
	time_format(now_us, now);
	if (!trusts && !k->distrusts)
		log_event(LOG_WARNING, "conductor", "waits_for_the_clock",
			  "the clock says %s, but it is %s or later: no stage begins or ends until "
			  "the clock is right",
			  wall, now_us < EARLIEST_US ? "2026-11-01" : now);
	if (trusts && k->distrusts)
		log_event(LOG_INFO, "conductor", "goes_on", "the clock says %s", wall);
	k->distrusts = !trusts;
	return trusts;
}

/* False when it is time to end. */
static bool nap(struct conductor *k, int64_t us)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += us / US_PER_S;
	until.tv_nsec += us % US_PER_S * 1000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&k->lock);
	while (!k->stopping && pthread_cond_timedwait(&k->wake, &k->lock, &until) == 0)
		;
	bool goes_on = !k->stopping;
	pthread_mutex_unlock(&k->lock);
	return goes_on;
}

static void *conductor_thread(void *arg)
{
	struct conductor *k = arg;
	int64_t wait_us, ahead_us = clock_service_us() - clock_mono_ms() * 1000;

	pthread_setname_np(pthread_self(), "conductor"); /* `top -H`, and the bench */
	do {
		int64_t now_us = clock_service_us();
		int64_t jump_us = now_us - clock_mono_ms() * 1000 - ahead_us;
		wait_us = NAP_US;
		/* The clock was set: what lies between is no time in which nobody spoke. */
		if (jump_us > JUMP_US && k->alerts)
			alerts_listen(k->alerts, now_us);
		if (jump_us > JUMP_US)
			ahead_us += jump_us;
		if (trusts_clock(k, now_us)) {
			int64_t next_us = conductor_tick(k, now_us);
			if (next_us - now_us < wait_us)
				wait_us = next_us - now_us;
		}
	} while (nap(k, wait_us));
	return NULL;
}

struct conductor *conductor_new(struct fleet *f, struct committer *c)
{
	struct conductor *k = calloc(1, sizeof *k);
	pthread_condattr_t attr;

	if (!k)
		return NULL;
	k->fleet = f;
	k->committer = c;
	pthread_mutex_init(&k->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&k->wake, &attr);
	pthread_condattr_destroy(&attr);
	return k;
}

void conductor_free(struct conductor **kp)
{
	struct conductor *k = *kp;

	if (!k)
		return;
	pthread_mutex_destroy(&k->lock);
	pthread_cond_destroy(&k->wake);
	free(k->entries);
	free(k);
	*kp = NULL;
}

void conductor_set_alerts(struct conductor *k, struct alerts *a)
{
	k->alerts = a;
}

enum ota_code conductor_start(struct fleet *f, struct committer *c, struct alerts *a,
			      struct conductor **out, struct ota_err *err)
{
	struct conductor *k = conductor_new(f, c);

	if (!k)
		return ota_fail_nomem(err);
	conductor_set_alerts(k, a);
	int rc = pthread_create(&k->thread, NULL, conductor_thread, k);
	if (rc != 0) {
		conductor_free(&k);
		return ota_fail_errno(err, rc, "starting the conductor");
	}
	*out = k;
	return OTA_OK;
}

void conductor_stop(struct conductor **kp)
{
	struct conductor *k = *kp;

	if (!k)
		return;
	pthread_mutex_lock(&k->lock);
	k->stopping = true;
	pthread_cond_signal(&k->wake);
	pthread_mutex_unlock(&k->lock);
	pthread_join(k->thread, NULL);
	conductor_free(kp);
}
