/* SPDX-License-Identifier: MIT */
#include "commit/batch.h"
#include "commit/progress.h"
#include "commit/retention.h"
#include "commit/round.h"
#include "commit/tally.h"

#include "commit/gates.h"

#include "base/clock.h"
#include "base/exposition.h"
#include "base/log.h"
#include "core/dispatch.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BATCH_MAX 1000
#define TICK_MS   1000
#define STUCK_MS  10000 /* one round of the committer */
#define IN_DOUBT  "the database has not said yet what became of the last changes; come again"

struct committer_queue {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t work;
	/* under lock: */
	struct command_list waiting;
	bool stopping;
	struct ota_err sickness; /* code OTA_OK: the store takes writes */
	struct committer_stats stats;
	size_t deferred_count; /* of `deferred`, for others to know */
	struct histogram took_us, batch_size;
	_Atomic int64_t beat_ms; /* when the thread last went round */
	_Atomic int plan_fd;     /* rung when the plan changes; -1: nobody's */
	/* the committer's: */
	struct command_list deferred;
	int64_t next_tick_ms, sick_since_us;
};

static prepare_fn *const prepare_kind[COMMAND_KINDS] = {
	[COMMAND_CHECKIN] = prepare_checkin,
	[COMMAND_REPORT] = prepare_report,
	[COMMAND_FETCH] = prepare_fetch,
	[COMMAND_RETRY] = prepare_retry,
	[COMMAND_LAPSE] = prepare_lapse,
	[COMMAND_DEVICE_EDIT] = prepare_edit,
	[COMMAND_DEVICE_DELETE] = prepare_device_delete,
	[COMMAND_RELEASE_CREATE] = prepare_release_create,
	[COMMAND_RELEASE_DELETE] = prepare_release_delete,
	[COMMAND_ROLLOUT_CREATE] = prepare_rollout_create,
	[COMMAND_ROLLOUT_WALK] = prepare_rollout_walk,
	[COMMAND_FLUSH_SEEN] = prepare_flush_seen,
	[COMMAND_STATUS] = prepare_status,
	[COMMAND_DISPATCH] = prepare_dispatch,
	[COMMAND_REJECTED] = prepare_rejected,
	[COMMAND_STOP] = prepare_stop,
	[COMMAND_GROUP_WINDOW] = prepare_group_window,
	[COMMAND_SENT] = prepare_sent,
	[COMMAND_GATE_LOOK] = prepare_gate_look,
	[COMMAND_GATE_HALT] = prepare_gate_halt,
	[COMMAND_COUNT] = prepare_count,
	[COMMAND_ALERT] = prepare_alert,
	[COMMAND_WEBHOOK] = prepare_webhook,
	[COMMAND_PRUNE] = prepare_prune,
};

/* Changes releases or rollouts, or speaks of every device: a batch by itself. */
static bool stands_alone(enum command_kind kind)
{
	switch (kind) {
	case COMMAND_RELEASE_CREATE:
	case COMMAND_RELEASE_DELETE:
	case COMMAND_ROLLOUT_CREATE:
	case COMMAND_ROLLOUT_WALK:
	case COMMAND_FLUSH_SEEN:
	case COMMAND_STOP:
	case COMMAND_GROUP_WINDOW:
	case COMMAND_GATE_LOOK:
	case COMMAND_GATE_HALT:
	case COMMAND_ALERT:
	case COMMAND_PRUNE:
	case COMMAND_DEVICE_DELETE: return true;
	default: return false;
	}
}

/* --- one batch --- */

static enum prepared prepare(struct committer *c, struct command *cmd)
{
	struct batch *b = &c->batch;

	cmd->devices = NULL;
	cmd->plan = NULL;
	cmd->first_change = b->store.change_count;
	cmd->code = OTA_OK;
	cmd->refused = cmd->over_limit = false;
	b->by = cmd->by;
	b->why = cmd->why;
	b->gates = NULL;
	b->gates_end = &b->gates;
	memset(&cmd->out, 0, sizeof cmd->out);
	enum prepared p = prepare_kind[cmd->kind](c, cmd);
	cmd->gates = b->gates;
	for (struct device_work *w = cmd->devices; w && p == PREPARED; w = w->link)
		if (!w->removed && !fleet_reserve(c->fleet, &w->next))
			p = prepare_fail_nomem(cmd);
	if (p != PREPARED)
		b->store.change_count = cmd->first_change;
	cmd->change_count = b->store.change_count - cmd->first_change;
	if (cmd->change_count == 0)
		work_undo(c, cmd);
	return p;
}

static bool add_group(struct batch *b, const struct command *cmd)
{
	if (b->store.group_count == b->group_cap) {
		size_t cap = b->group_cap ? b->group_cap * 2 : 64;
		struct change_group *p = realloc(b->store.groups, cap * sizeof *p);
		if (!p)
			return false;
		b->store.groups = p;
		b->group_cap = cap;
	}
	b->store.groups[b->store.group_count++] = (struct change_group){
		.first = cmd->first_change,
		.count = cmd->change_count,
		.result = OTA_EINTERNAL,
	};
	return true;
}

/* Fills the batch from the deferred and the taken; what does not fit goes to deferred, in order. */
static void batch_prepare(struct committer *c, struct command_list *taken,
			  struct command_list *done)
{
	struct command_list later, *sources[2] = {&c->queue->deferred, taken};
	bool closed = false;
	struct command *cmd;

	list_init(&later);
	for (int i = 0; i < 2; i++)
		while ((cmd = list_pop(sources[i])) != NULL) {
			if (closed || done->count >= BATCH_MAX ||
			    (stands_alone(cmd->kind) && done->count > 0)) {
				list_push(&later, cmd);
				closed = true;
				continue;
			}
			closed = stands_alone(cmd->kind);
			enum prepared p = prepare(c, cmd);
			if (p == PREPARED && cmd->change_count > 0 && !add_group(&c->batch, cmd)) {
				work_undo(c, cmd);
				c->batch.store.change_count = cmd->first_change;
				cmd->change_count = 0;
				prepare_fail_nomem(cmd);
			}
			list_push(p == PREPARED_DEFER ? &later : done, cmd);
		}
	c->queue->deferred = later;
	if (!later.first)
		list_init(&c->queue->deferred);
}

static void note_health(struct committer *c, enum ota_code rc, const struct ota_err *err)
{
	struct committer_queue *q = c->queue;
	bool was_sick = q->sickness.code != OTA_OK;

	if (rc == OTA_OK && !was_sick)
		return;
	pthread_mutex_lock(&q->lock);
	if (rc == OTA_OK)
		q->sickness.code = OTA_OK;
	else
		q->sickness = *err;
	if (rc != OTA_OK)
		q->sickness.code = rc;
	pthread_mutex_unlock(&q->lock);
	if (rc != OTA_OK && !was_sick) {
		q->sick_since_us = clock_service_us();
		log_event(LOG_ERROR, "store", "write_failed", "%s", err->msg);
	} else if (rc == OTA_OK) {
		log_event(LOG_INFO, "store", "write_works_again", "after %lld s",
			  (long long)((clock_service_us() - q->sick_since_us) / US_PER_S));
	}
}

static const struct histogram_shape took_shape = {
	.count = 8,
	.at = {500, 1000, 2500, 5000, 10000, 50000, 250000, 1000000},
	.per_unit = US_PER_S};
static const struct histogram_shape size_shape = {
	.count = 7, .at = {1, 2, 8, 32, 128, 512, 2048}, .per_unit = 1};

/* Attempts that this batch ended. */
static void note_ended(struct committer *c)
{
	const struct change_batch *b = &c->batch.store;

	for (const struct change_group *g = b->groups; g < b->groups + b->group_count; g++)
		for (size_t i = 0; i < g->count && g->result == OTA_OK; i++) {
			const struct change *ch = &b->changes[g->first + i];
			if (ch->kind == CHANGE_ATTEMPT_UPDATE && ch->attempt.completed_us != 0)
				atomic_fetch_add_explicit(&c->ended[ch->attempt.attempt->state], 1,
							  memory_order_relaxed);
		}
}

static void note_batch(struct committer *c, int64_t took_us, size_t commands)
{
	histogram_add(&c->queue->took_us, &took_shape, took_us);
	histogram_add(&c->queue->batch_size, &size_shape, (int64_t)commands);
	struct committer_stats *s = &c->queue->stats;

	pthread_mutex_lock(&c->queue->lock);
	s->batches++;
	s->commands += (int64_t)commands;
	s->commit_us_total += took_us;
	if (took_us > s->commit_us_max)
		s->commit_us_max = took_us;
	if ((int64_t)commands > s->batch_max)
		s->batch_max = (int64_t)commands;
	pthread_mutex_unlock(&c->queue->lock);
}

/* Makes the batch durable; afterwards each command has its code, and its work is published or
 * undone. */
static void batch_commit(struct committer *c, struct command_list *done)
{
	struct batch *b = &c->batch;
	struct ota_err err = {0};
	enum ota_code rc = OTA_OK;
	size_t g = 0;

	if (b->store.group_count > 0) {
		int64_t begin_us = clock_service_us();
		rc = c->store->ops->commit(c->store, &b->store, &err);
		note_batch(c, clock_service_us() - begin_us, b->store.group_count);
		note_health(c, rc, &err);
		if (rc == OTA_OK)
			note_ended(c);
	}
	enum ota_code failure = rc == OTA_EUNKNOWN ? rc : OTA_EUNAVAIL;
	for (struct command *cmd = done->first; cmd; cmd = cmd->next) {
		if (cmd->change_count == 0)
			continue;
		struct change_group *group = &b->store.groups[g++];
		if (rc == OTA_OK && group->result == OTA_OK) {
			publish_log(b, cmd);
			publish(c, cmd);
			continue;
		}
		cmd->err = rc != OTA_OK ? err : group->err;
		cmd->code = cmd->err.code = rc != OTA_OK ? failure : group->result;
		cmd->refused = rc == OTA_OK;
		if (cmd->kind == COMMAND_FLUSH_SEEN)
			flush_undo(c);
		work_undo(c, cmd);
	}
	tallies_show(c);
}

static void ring(int fd)
{
	uint64_t one = 1;

	if (fd >= 0)
		(void)!write(fd, &one, sizeof one);
}

/* A command of the committer's own, as a batch by itself. */
static bool run_own(struct committer *c, struct command *cmd)
{
	struct command_list one;

	list_init(&one);
	c->batch.number++;
	c->batch.now_us = clock_service_us();
	if (prepare(c, cmd) == PREPARED && cmd->change_count > 0) {
		if (add_group(&c->batch, cmd)) {
			list_push(&one, cmd);
			batch_commit(c, &one);
		} else {
			work_undo(c, cmd);
			prepare_fail_nomem(cmd);
		}
	}
	batch_reset(&c->batch);
	return cmd->code == OTA_OK;
}

/*
 * Before anybody hears of the outcome by which a gate has halted, its rollouts are.  Until that is
 * written (the store may be down) the gate itself answers that nothing is offered.
 */
static void halt_what_is_bad(struct committer *c)
{
	for (struct watch *k = gates_halted(&c->gates); k; k = gates_halted(&c->gates)) {
		struct command cmd = {.kind = COMMAND_GATE_HALT, .by = "gate", .halt = k};
		if (!run_own(c, &cmd))
			return; /* at the next tick */
		k->halt_written = true;
	}
}

/*
 * One batch.  The order is the contract: check and prepare; make it durable; show it to readers;
 * only then answer.  Nobody hears "ok" about a change that a restart could lose.
 */
static void run_batch(struct committer *c, struct command_list *taken)
{
	uint64_t plan = fleet_plan_number(c->fleet);
	struct command_list done;
	struct command *cmd;

	list_init(&done);
	c->batch.number++;
	c->batch.now_us = clock_service_us();
	batch_prepare(c, taken, &done);
	batch_commit(c, &done);
	batch_reset(&c->batch);
	halt_what_is_bad(c);
	if (fleet_plan_number(c->fleet) != plan)
		ring(c->queue->plan_fd);
	while ((cmd = list_pop(&done)) != NULL)
		cmd->done(cmd);
}

/* --- the slow clock --- */

static void tick(struct committer *c, struct command_list *out)
{
	struct committer_queue *q = c->queue;

	round_flush(c, out);
	if (q->sickness.code == OTA_OK)
		retention_step(c, out);
	fleet_drop_empty_models(c->fleet);
	struct change_batch probe = {0};
	struct ota_err err = {0};
	if (q->sickness.code != OTA_OK)
		note_health(c, c->store->ops->commit(c->store, &probe, &err), &err);
	else if (c->store->ops->look)
		note_health(c, c->store->ops->look(c->store, &err), &err);
}

/* --- the thread --- */

static int64_t next_work_ms(const struct committer *c)
{
	int64_t look = c->round.next_look_ms, tick = c->queue->next_tick_ms;

	return look < tick ? look : tick;
}

/* Takes what waits; false when it is time to end and nothing is left. */
static bool take(struct committer *c, struct command_list *out)
{
	struct committer_queue *q = c->queue;
	struct timespec until;
	bool stop;

	list_init(out);
	pthread_mutex_lock(&q->lock);
	q->deferred_count = q->deferred.count;
	while (!q->waiting.first && !q->deferred.first && !q->stopping &&
	       clock_mono_ms() < next_work_ms(c)) {
		int64_t wait_ms = next_work_ms(c) - clock_mono_ms();
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += wait_ms / 1000;
		until.tv_nsec += (wait_ms % 1000) * 1000000;
		if (until.tv_nsec >= 1000000000) {
			until.tv_sec++;
			until.tv_nsec -= 1000000000;
		}
		pthread_cond_timedwait(&q->work, &q->lock, &until);
	}
	while (out->count < BATCH_MAX && q->waiting.first)
		list_push(out, list_pop(&q->waiting));
	stop = q->stopping && !out->first && !q->deferred.first;
	pthread_mutex_unlock(&q->lock);
	return !stop;
}

static void *committer_thread(void *arg)
{
	struct committer *c = arg;
	struct command_list taken;

	halt_what_is_bad(c); /* as it was found before the end */
	while (take(c, &taken)) {
		atomic_store(&c->queue->beat_ms, clock_mono_ms());
		if (clock_mono_ms() >= c->round.next_look_ms)
			round_look(c, &taken);
		if (clock_mono_ms() >= c->queue->next_tick_ms) {
			halt_what_is_bad(c);
			tick(c, &taken);
			c->queue->next_tick_ms = clock_mono_ms() + TICK_MS;
		}
		if (taken.first || c->queue->deferred.first)
			run_batch(c, &taken);
	}
	/* The soft state, so that a restart knows when devices were last seen. */
	struct command flush = {.kind = COMMAND_FLUSH_SEEN, .flush_seen = {0, FLEET_SHARDS}};
	run_own(c, &flush);
	return NULL;
}

static void committer_free(struct committer *c)
{
	if (c->queue) {
		pthread_mutex_destroy(&c->queue->lock);
		pthread_cond_destroy(&c->queue->work);
		free(c->queue);
	}
	free(c->batch.store.changes);
	free(c->batch.store.groups);
	gates_fini(&c->gates);
	tallies_fini(&c->tallies);
	free(c);
}

enum ota_code committer_start(struct fleet *f, struct store *s, const struct committer_config *cfg,
			      struct committer **out, struct ota_err *err)
{
	struct committer *c = calloc(1, sizeof *c);
	struct committer_queue *q = calloc(1, sizeof *q);
	pthread_condattr_t attr;

	if (!c || !q) {
		free(c);
		free(q);
		return ota_fail_nomem(err);
	}
	c->fleet = f;
	c->store = s;
	c->cfg = *cfg;
	c->new_device_tokens = (double)cfg->new_devices_per_second;
	c->new_device_filled_ms = clock_mono_ms();
	c->queue = q;
	pthread_mutex_init(&q->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&q->work, &attr);
	pthread_condattr_destroy(&attr);
	list_init(&q->waiting);
	list_init(&q->deferred);
	q->plan_fd = -1;
	q->beat_ms = clock_mono_ms();
	q->next_tick_ms = clock_mono_ms() + TICK_MS;
	round_begin(c);
	retention_begin(c);
	gates_init(&c->gates);
	tallies_init(&c->tallies);
	if (gates_load(c, err) != OTA_OK) {
		committer_free(c);
		return err->code;
	}
	int rc = pthread_create(&q->thread, NULL, committer_thread, c);
	if (rc != 0) {
		committer_free(c);
		return ota_fail_errno(err, rc, "starting the committer");
	}
	*out = c;
	return OTA_OK;
}

void committer_stop(struct committer **cp)
{
	struct committer *c = *cp;

	if (!c)
		return;
	pthread_mutex_lock(&c->queue->lock);
	c->queue->stopping = true;
	pthread_cond_signal(&c->queue->work);
	pthread_mutex_unlock(&c->queue->lock);
	pthread_join(c->queue->thread, NULL);
	committer_free(c);
	*cp = NULL;
}

/* One more?  Under the lock. */
static enum ota_code may_wait(struct committer *c, struct ota_err *err)
{
	struct committer_queue *q = c->queue;

	if (q->stopping)
		return ota_fail(err, OTA_EUNAVAIL, "the service is shutting down");
	if (!atomic_load(&c->store->in_doubt) &&
	    q->waiting.count + q->deferred_count < c->cfg.queue_max)
		return OTA_OK;
	q->stats.refused++;
	return ota_fail(err, OTA_EUNAVAIL,
			atomic_load(&c->store->in_doubt)
				? IN_DOUBT
				: "the service has too much to do; come again");
}

enum ota_code committer_submit_list(struct committer *c, struct command_list *list,
				    struct ota_err *err)
{
	struct committer_queue *q = c->queue;
	enum ota_code rc = OTA_OK;

	pthread_mutex_lock(&q->lock);
	bool idle = !q->waiting.first; /* else it is awake, or about to be */
	while (list->first && (rc = may_wait(c, err)) == OTA_OK)
		list_push(&q->waiting, list_pop(list));
	if (idle && q->waiting.first)
		pthread_cond_signal(&q->work);
	pthread_mutex_unlock(&q->lock);
	return rc;
}

enum ota_code committer_submit(struct committer *c, struct command *cmd, struct ota_err *err)
{
	struct command_list one;

	list_init(&one);
	list_push(&one, cmd);
	return committer_submit_list(c, &one, err);
}

struct waiter {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
};

static void wake_waiter(struct command *cmd)
{
	struct waiter *w = cmd->owner;

	pthread_mutex_lock(&w->lock);
	w->done = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

enum ota_code committer_run(struct committer *c, struct command *cmd)
{
	struct waiter w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};

	cmd->owner = &w;
	cmd->done = wake_waiter;
	/* Once it is taken the command is the committer's: its code may stand before submit
	 * returns. */
	struct ota_err err;
	enum ota_code rc = committer_submit(c, cmd, &err);
	if (rc != OTA_OK) {
		cmd->err = err;
		return cmd->code = rc;
	}
	pthread_mutex_lock(&w.lock);
	while (!w.done)
		pthread_cond_wait(&w.cond, &w.lock);
	pthread_mutex_unlock(&w.lock);
	return cmd->code;
}

void committer_ring_on_plan(struct committer *c, int fd)
{
	c->queue->plan_fd = fd;
}

void committer_barrier(struct committer *c)
{
	struct command nothing = {.kind = COMMAND_FLUSH_SEEN}; /* of no shard */

	(void)committer_run(c, &nothing);
}

bool committer_alive(struct committer *c, int64_t within_ms)
{
	/* While the store asks what became of a commit, a new start would know no better. */
	return atomic_load(&c->store->in_doubt) ||
	       clock_mono_ms() - atomic_load(&c->queue->beat_ms) <= within_ms;
}

bool committer_healthy(struct committer *c, char *reason, size_t size)
{
	pthread_mutex_lock(&c->queue->lock);
	bool in_doubt = atomic_load(&c->store->in_doubt);
	bool sick = c->queue->sickness.code != OTA_OK;
	bool stuck = !committer_alive(c, STUCK_MS);
	if (in_doubt || sick)
		snprintf(reason, size, "%s", in_doubt ? IN_DOUBT : c->queue->sickness.msg);
	else if (stuck)
		snprintf(reason, size, "the store has taken a write and not answered for %d s",
			 STUCK_MS / 1000);
	pthread_mutex_unlock(&c->queue->lock);
	return !sick && !in_doubt && !stuck;
}

void committer_write_metrics(struct committer *c, struct buf *b)
{
	exposition_family(b, "paku_ota_commit_seconds", "histogram", "Time of transactions.");
	exposition_histogram(b, "paku_ota_commit_seconds", "", &c->queue->took_us, &took_shape);
	exposition_family(b, "paku_ota_commit_commands", "histogram", "Commands of a transaction.");
	exposition_histogram(b, "paku_ota_commit_commands", "", &c->queue->batch_size, &size_shape);
	exposition_family(b, "paku_ota_attempts_ended_total", "counter",
			  "Attempts that ended since the start, by how.");
	for (int s = 0; s < ATTEMPT_STATES; s++)
		if (!attempt_is_open((enum attempt_state)s))
			buf_printf(b, "paku_ota_attempts_ended_total{how=\"%s\"} %" PRId64 "\n",
				   attempt_state_name((enum attempt_state)s),
				   atomic_load_explicit(&c->ended[s], memory_order_relaxed));
}

void committer_stats(struct committer *c, struct committer_stats *out)
{
	pthread_mutex_lock(&c->queue->lock);
	*out = c->queue->stats;
	out->queue_length = (int64_t)(c->queue->waiting.count + c->queue->deferred_count);
	pthread_mutex_unlock(&c->queue->lock);
}

int64_t committer_busy(struct committer *c)
{
	return c->busy;
}
