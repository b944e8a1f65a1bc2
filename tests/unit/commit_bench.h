/* SPDX-License-Identifier: MIT */
/*
 * A committer on a real SQLite file for tests, driven as a door drives it, and restarted between
 * steps: the fleet that is loaded again must be the fleet that was in memory, to the last field.
 */
#pragma once

#include "base/buf.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "commit/gates.h"
#include "commit/progress.h"
#include "core/target.h"
#include "fleet/intern.h"
#include "fleet/state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "test_folder.h" /* after cmocka's */

#define MODEL "esp32-c3"

struct bench {
	char dir[64], path[96];
	struct store *store;
	struct fleet *fleet;
	struct committer *c;
	struct committer_config cfg;
	struct store *(*wrap)(struct store *inner); /* NULL: the store as it is */
	sqlite3 *db;                                /* the test's own look at the rows */
};

static inline void bench_open(struct bench *b)
{
	struct ota_err err = {0};

	if (store_sqlite_open(b->path, &b->store, &err) != OTA_OK)
		fail_msg("%s", err.msg);
	if (b->wrap)
		b->store = b->wrap(b->store);
	b->fleet = fleet_new();
	assert_non_null(b->fleet);
	if (commit_load(b->fleet, b->store, &err) != OTA_OK)
		fail_msg("%s", err.msg);
	if (committer_start(b->fleet, b->store, &b->cfg, &b->c, &err) != OTA_OK)
		fail_msg("%s", err.msg);
	assert_int_equal(sqlite3_open(b->path, &b->db), SQLITE_OK);
	sqlite3_busy_timeout(b->db, 10000);
}

static inline struct bench bench_new(void)
{
	log_configure(LOG_ERROR, false);
	struct bench b = {.cfg = {.poll_interval_s = 3600,
				  .install_grace_s = 600,
				  .max_devices = 1000000,
				  .new_devices_per_second = 1000000,
				  .last_seen_flush_s = 60,
				  .command_timeout_s = 60,
				  .queue_max = 100000}};

	test_folder("commit", b.dir, sizeof b.dir);
	snprintf(b.path, sizeof b.path, "%s/ota.db", b.dir);
	return b;
}

static inline void bench_close(struct bench *b)
{
	committer_stop(&b->c);
	fleet_free(&b->fleet);
	b->store->ops->close(&b->store);
	sqlite3_close(b->db);
	b->db = NULL;
	assert_int_equal(intern_count(), 0);
}

static inline void bench_end(struct bench *b)
{
	char file[128];

	bench_close(b);
	for (int i = 0; i < 3; i++) {
		snprintf(file, sizeof file, "%s%s", b->path,
			 i == 0   ? ""
			 : i == 1 ? "-wal"
				  : "-shm");
		unlink(file);
	}
	rmdir(b->dir);
}

/* --- the whole fleet as text --- */

struct lines {
	char **items;
	size_t count, cap;
};

static inline void lines_add(struct lines *l, struct buf *b)
{
	if (l->count == l->cap) {
		l->cap = l->cap ? l->cap * 2 : 64;
		l->items = realloc(l->items, l->cap * sizeof *l->items);
		assert_non_null(l->items);
	}
	l->items[l->count++] = buf_take(b, NULL);
	assert_non_null(l->items[l->count - 1]);
}

static inline int lines_compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static inline void dump_digest(struct buf *b, const char *name, bool has, const uint8_t *d)
{
	char hex[SHA256_HEX_SIZE] = "-";

	if (has)
		hex_encode(d, DIGEST_SIZE, hex);
	buf_printf(b, " %s=%s", name, hex);
}

static inline void dump_names(struct buf *b, const char *name, const struct string_list *l)
{
	buf_printf(b, " %s=", name);
	for (size_t i = 0; l && i < l->count; i++)
		buf_printf(b, "%s,", l->items[i]);
}

static inline void dump_release(struct buf *b, const struct release *r)
{
	buf_printf(b,
		   "release %s %s id=%lld salt=%llx min=%s inner=%s project=%s notes=%s deleted=%d "
		   "unique=%d/%llx"
		   " size=%lld created=%lld secure=%u chip=%d",
		   r->model, r->version, (long long)r->id, (unsigned long long)r->salt,
		   r->min_version, r->inner_version, r->project, r->release_notes, r->deleted,
		   r->inner_is_unique, (unsigned long long)r->learnt_taken, (long long)r->file_size,
		   (long long)r->created_us, r->secure_version, r->chip);
	dump_digest(b, "sha", true, r->sha256);
	dump_digest(b, "image", r->has_image_digest, r->image_digest);
	dump_digest(b, "elf", r->has_elf_digest, r->elf_digest);
	dump_names(b, "learnt", r->learnt);
	buf_printf(b, " tried=%lld broken=", (long long)r->tried);
	for (int code = 0; code <= RESULT_CODE_LAST; code++)
		buf_printf(b, "%lld,", (long long)r->broken[code]);
}

static inline void dump_rollout(struct buf *b, const struct rollout *r)
{
	buf_printf(b,
		   "rollout %s %s id=%lld release=%lld type=%d %d%% group=%s active=%d/%d down=%d "
		   "max=%d parallel=%d"
		   " created=%lld lowest=%llx macs=",
		   r->release->model, r->name, (long long)r->id, (long long)r->release->id,
		   (int)r->target.type, r->target.percent, r->target.group, r->active,
		   r->created_active, r->allow_downgrade, r->max_attempts, r->max_parallel,
		   (long long)r->created_us, (unsigned long long)r->lowest_hash);
	buf_printf(b,
		   " %s stage=%d/%d since=%lld,%lld held=%lld approved=%d why=%s priority=%d "
		   "requires=%s not_before=%lld deadline=%lld pruned=%lld ",
		   rollout_state_name(r->walk.state), r->walk.stage, r->stage_count,
		   (long long)r->walk.state_since_us, (long long)r->walk.stage_since_us,
		   (long long)r->walk.held_us, r->walk.approved, r->walk.reason, r->priority,
		   r->requires, (long long)r->not_before_us, (long long)r->deadline_us,
		   (long long)r->pruned_us);
	for (int i = 0; i < r->stage_count; i++)
		buf_printf(b, "%d:%lld:%lld:%d,", r->stages[i].percent,
			   (long long)r->stages[i].min_duration_s,
			   (long long)r->stages[i].min_proven, r->stages[i].approve);
	for (size_t i = 0; i < r->target.mac_count; i++)
		buf_printf(b, "%llx,", (unsigned long long)r->target.macs[i]);
	buf_printf(b, " rolls_back=%d back=%lld,%lld,%d ", r->rolls_back,
		   (long long)r->back.rollout_id, (long long)(r->back.from ? r->back.from->id : 0),
		   r->back.rest);
	dump_names(b, "others", r->back.others);
	dump_names(b, "ids", r->target.device_ids);
}

static inline void dump_attempt(struct buf *b, const struct attempt *a)
{
	if (!a)
		return;
	buf_printf(b,
		   " attempt{id=%lld release=%lld rollout=%lld %s unsolicited=%d settled=%d %d%% "
		   "opened=%lld"
		   " reported=%lld installing=%lld commanded=%lld accepted=%lld commands=%d to=%s "
		   "from=%s token=%s}",
		   (long long)a->id, (long long)a->release_id, (long long)a->rollout_id,
		   attempt_state_name(a->state), a->unsolicited, a->settled, a->percent,
		   (long long)a->opened_us, (long long)a->reported_us, (long long)a->installing_us,
		   (long long)a->commanded_us, (long long)a->accepted_us, a->commands, a->version,
		   a->from_version, a->token);
}

static inline void dump_link(struct buf *b, const struct device_link *l)
{
	if (!l)
		return;
	buf_printf(b,
		   " link{%s form=%d presence=%d since=%lld other=%s conflict=%lld heard=%llx,%llx "
		   "at %lld}",
		   l->site, (int)l->form, (int)l->presence, (long long)l->presence_us,
		   l->other_site, (long long)l->conflict_us, (unsigned long long)l->heard[0],
		   (unsigned long long)l->heard[1], (long long)l->heard_us);
}

static inline int failure_compare(const void *a, const void *b)
{
	const struct failure_count *x = a, *y = b;

	return (x->release_id > y->release_id) - (x->release_id < y->release_id);
}

static inline bool dump_device(const struct device *d, void *ctx)
{
	const struct device_state *s = &d->state;
	struct failure_count f[64];
	size_t n = 0;
	struct buf b = BUF_INIT;

	buf_printf(&b,
		   "device %s id=%lld created=%lld seen=%lld habit=%lld model=%s version=%s hw=%s "
		   "booted=%lld "
		   "boot_seen=%lld"
		   " boot=%llx mac=%llx retry=%lld ran=%lld as=%s from=%s",
		   d->device_id, (long long)d->id, (long long)d->created_us,
		   (long long)d->last_seen_us, (long long)d->habit_us, s->model, s->version, s->hw,
		   (long long)s->booted_us, (long long)s->boot_seen_us,
		   (unsigned long long)s->boot_hash, (unsigned long long)s->mac,
		   (long long)s->retry_us, (long long)s->ran_release_id, s->ran_as, s->ran_from);
	if (s->digests) {
		dump_digest(&b, "firmware", s->digests->has_firmware, s->digests->firmware);
		dump_digest(&b, "elf", s->digests->has_elf, s->digests->elf);
	}
	dump_names(&b, "groups", s->groups);
	while (s->failures && s->failures[n].release_id && n < 64) {
		f[n] = s->failures[n];
		n++;
	}
	qsort(f, n, sizeof *f, failure_compare);
	for (size_t i = 0; i < n; i++)
		buf_printf(&b, " failures[%lld]=%d+%d by %d", (long long)f[i].release_id,
			   f[i].count, f[i].passing, f[i].code);
	dump_attempt(&b, s->attempt);
	dump_link(&b, s->link);
	lines_add(ctx, &b);
	return true;
}

static inline void dump_stop(struct fleet *f, struct lines *l)
{
	char reason[256] = "";
	int64_t since_us = 0;
	struct buf b = BUF_INIT;

	if (!fleet_stop_reason(f, reason, sizeof reason, &since_us))
		return;
	buf_printf(&b, "stopped since=%lld %s", (long long)since_us, reason);
	lines_add(l, &b);
}

/* Sorted lines; free() it.  The committer must be idle or stopped. */
static inline char *fleet_dump(struct fleet *f)
{
	struct lines l = {0};
	struct buf all = BUF_INIT;

	dump_stop(f, &l);

	for (const struct model *m = fleet_models(f); m; m = m->next) {
		struct buf b = BUF_INIT;
		if (m->device_count || m->releases || m->rollouts) {
			buf_printf(&b, "model %s devices=%zu chip=%d", m->name,
				   (size_t)m->device_count, m->chip);
			lines_add(&l, &b);
		}
		for (const struct release *r = m->releases; r; r = r->next) {
			assert_true(!r->next || r->next->id < r->id);
			dump_release(&b, r);
			lines_add(&l, &b);
		}
		for (const struct rollout *r = m->rollouts; r; r = r->next) {
			dump_rollout(&b, r);
			lines_add(&l, &b);
		}
	}
	fleet_visit(f, 0, FLEET_SHARDS, dump_device, &l);
	if (l.count > 0)
		qsort(l.items, l.count, sizeof *l.items, lines_compare);
	for (size_t i = 0; i < l.count; i++) {
		buf_printf(&all, "%s\n", l.items[i]);
		free(l.items[i]);
	}
	free(l.items);
	if (!all.data)
		buf_adds(&all, "");
	return buf_take(&all, NULL);
}

static inline void same_fleet(const char *before, const char *after)
{
	if (strcmp(before, after) != 0) {
		const char *a = before, *b = after;
		for (;;) { /* the first line that differs */
			size_t n = strcspn(a, "\n"), m = strcspn(b, "\n");
			if (n != m || memcmp(a, b, n) != 0)
				fail_msg("the fleets differ:\n  was: %.*s\n  is:  %.*s", (int)n, a,
					 (int)m, b);
			a += n + 1;
			b += m + 1;
		}
	}
}

/* --- the gates as text --- */

static inline int variant_rank_of(const struct watch *k, const struct gate_line *l,
				  const struct gate_item *it)
{
	return l == &k->gate.line ? k->gate.variants[it->variant].rank : 0;
}

static inline void dump_evidence(struct buf *b, const char *name, const struct gate_evidence *e)
{
	buf_printf(b, " %s{%lld/%lld %.17g", name, (long long)e->failed, (long long)e->n, e->g);
	for (int i = 0; i < GATE_SUSPECTS_MAX; i++)
		buf_printf(b, " %.17g", e->r[i]);
	buf_adds(b, "}");
}

static inline void dump_line(struct buf *b, const struct watch *k, const struct gate_line *l)
{
	buf_printf(b,
		   " share=%g bound=%lld epoch=%lld/%lld unresolved=%lld reserved=%lld held=%lld "
		   "risk=%lld proven=%lld failed=%lld silent=%lld proven_to=%lld forgiven=%lld "
		   "halted=%d entered_count=%zu",
		   l->share, (long long)l->bound, (long long)l->epoch_failed, (long long)l->epoch_n,
		   (long long)l->unresolved, (long long)l->reserved, (long long)l->held,
		   (long long)l->at_risk, (long long)l->proven, (long long)l->failed,
		   (long long)l->silent, (long long)l->proven_to, (long long)l->forgiven_to,
		   l->halted, l->entered_count);
	dump_evidence(b, "entered", &l->entered);
	struct gate_evidence known = gate_line_evidence(l, &k->gate.rules);
	dump_evidence(b, "known", &known);
	for (size_t i = 0; i < l->count; i++) {
		const struct gate_item *it = &l->items[(l->head + i) & (l->cap - 1)];
		buf_printf(b, " %lld:%d:%d:%d", (long long)it->number, variant_rank_of(k, l, it),
			   it->state, it->at_risk);
	}
}

static inline void dump_watch(struct lines *all, const struct watch *k)
{
	struct buf b = BUF_INIT;
	char who[64];

	snprintf(who, sizeof who, "gate %lld/%lld", (long long)k->release->id,
		 (long long)k->rollout_id);
	buf_printf(&b, "%s p0=%g halt=%g prove=%lld most=%lld slots=%zu open=%zu", who,
		   k->gate.params.p0, k->gate.params.halt_at, (long long)k->gate.params.prove_s,
		   (long long)k->gate.rules.most, k->count, k->open_count);
	dump_line(&b, k, &k->gate.line);
	lines_add(all, &b);
	for (int i = 0; i < k->gate.variant_count; i++) {
		const struct gate_variant *v = &k->gate.variants[i];
		if (!v->rank)
			continue;
		buf_printf(&b, "%s variant %d %s %s", who, v->rank, v->hw, v->from);
		dump_line(&b, k, &v->line);
		lines_add(all, &b);
	}
	for (size_t i = 0; i < k->cap; i++) {
		const struct exposed *x = &k->slots[i];
		const struct on_trial *t = watch_on_trial(k, x);
		if (!x->device_id)
			continue;
		buf_printf(&b, "%s device %lld outcome=%d", who, (long long)x->device_id,
			   x->outcome);
		if (t)
			buf_printf(&b, " %s number=%lld rollout=%lld risk=%d", t->device->device_id,
				   (long long)t->number, (long long)t->rollout_id, t->at_risk);
		lines_add(all, &b);
	}
}

/* Sorted lines; free() it.  The committer must be idle. */
static inline char *gates_dump(struct committer *c)
{
	struct lines l = {0};
	struct buf all = BUF_INIT;

	for (const struct watch *k = c->gates.first; k; k = k->next)
		dump_watch(&l, k);
	if (l.count > 0)
		qsort(l.items, l.count, sizeof *l.items, lines_compare);
	for (size_t i = 0; i < l.count; i++) {
		buf_printf(&all, "%s\n", l.items[i]);
		free(l.items[i]);
	}
	free(l.items);
	if (!all.data)
		buf_adds(&all, "");
	return buf_take(&all, NULL);
}

/* --- how far rollouts are --- */

/* What the committer keeps is what a count anew finds; how many rollouts it keeps.  It must be
 * idle. */
static inline int same_counts(struct bench *b)
{
	struct command hear = {.kind = COMMAND_FLUSH_SEEN, .flush_seen = {0, FLEET_SHARDS}};
	int64_t now_us = clock_service_us();
	struct {
		int64_t id;
		struct progress kept;
	} known[64];
	struct progress kept, anew = {0};
	int count = 0;

	(void)committer_run(b->c, &hear); /* contacts that changed nothing else */
	fleet_plan_read(b->fleet);
	for (const struct model *m = fleet_models(b->fleet); m; m = m->next)
		for (const struct rollout *r = m->rollouts; r; r = r->next)
			if (progress_known(b->c, r, now_us, &kept) && count < 64) {
				known[count].id = r->id;
				known[count++].kept = kept;
			}
	fleet_plan_done(b->fleet);
	for (int i = 0; i < count; i++) {
		kept = known[i].kept;
		progress_count(b->c, known[i].id, now_us, &anew);
		assert_int_equal(kept.facts.devices, anew.facts.devices);
		assert_int_equal(kept.facts.seen, anew.facts.seen);
		assert_int_equal(kept.facts.proven, anew.facts.proven);
		assert_int_equal(kept.on_version, anew.on_version);
	}
	return count;
}

/* Stop, open again: nothing may be lost and nothing may come up. */
static inline void bench_restart(struct bench *b)
{
	struct store *store = b->store;

	committer_barrier(b->c);
	char *gates = gates_dump(b->c);
	committer_stop(&b->c);
	char *before = fleet_dump(b->fleet);
	fleet_free(&b->fleet);
	store->ops->close(&b->store);
	sqlite3_close(b->db);
	assert_int_equal(intern_count(), 0);
	bench_open(b);
	char *after = fleet_dump(b->fleet);
	same_fleet(before, after);
	free(before);
	free(after);
	committer_barrier(b->c);
	after = gates_dump(b->c);
	same_fleet(gates, after);
	free(gates);
	free(after);
}

/* --- the rows --- */

static inline int64_t row_int(struct bench *b, const char *sql)
{
	sqlite3_stmt *st = NULL;

	if (sqlite3_prepare_v2(b->db, sql, -1, &st, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(b->db));
	int64_t v = sqlite3_step(st) == SQLITE_ROW ? sqlite3_column_int64(st, 0) : -1;
	sqlite3_finalize(st);
	return v;
}

/* The next call overwrites it; "(null)" for NULL, "(none)" for no row. */
static inline const char *row_text(struct bench *b, const char *sql)
{
	static char text[4][512];
	static int at;
	sqlite3_stmt *st = NULL;
	char *out = text[at++ % 4];

	if (sqlite3_prepare_v2(b->db, sql, -1, &st, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(b->db));
	const char *v = "(none)";
	if (sqlite3_step(st) == SQLITE_ROW)
		v = sqlite3_column_type(st, 0) == SQLITE_NULL
			    ? "(null)"
			    : (const char *)sqlite3_column_text(st, 0);
	snprintf(out, 512, "%s", v);
	sqlite3_finalize(st);
	return out;
}

/* How often anything was written. */
static inline int64_t writes(struct bench *b)
{
	struct committer_stats s;

	committer_stats(b->c, &s);
	return s.batches;
}

/* --- the doors --- */

struct answer {
	enum ota_code code;
	enum reason reason;
	char version[64], token[ATTEMPT_TOKEN_LEN + 1], latest[64];
	int commands; /* 0: answered from memory */
	bool offered;
};

/* What a check-in says beside id and version; all zero: nothing. */
struct told {
	const char *model, *hw;
	uint64_t mac, boot;
	int64_t uptime_s; /* -1: not told; 0 in a zeroed struct: not told either */
	bool just_booted; /* uptime 0 */
	const struct device_digests *digests;
};

static inline struct answer ask_with(struct bench *b, const char *id, const char *version,
				     struct told t)
{
	struct checkin in = {.device_id = id,
			     .model = t.model ? t.model : MODEL,
			     .version = version,
			     .hw = t.hw ? t.hw : "",
			     .mac = t.mac,
			     .boot_hash = t.boot,
			     .has_uptime = t.just_booted || t.uptime_s > 0,
			     .uptime_s = t.just_booted ? 0 : t.uptime_s};
	struct answer a = {0};
	struct soft_answer soft;

	if (t.digests)
		in.digests = *t.digests;
	for (;;) {
		fleet_plan_read(b->fleet);
		bool known = committer_soft_checkin(b->c, &in, &soft);
		if (known) {
			a.reason = soft.decision.reason;
			a.offered = decision_offers(&soft.decision);
			if (a.offered)
				strcpy(a.version, soft.decision.release->version);
			strcpy(a.token, soft.token);
			strcpy(a.latest, soft.latest ? soft.latest->version : "");
		}
		fleet_plan_done(b->fleet);
		if (known)
			return a;
		if (a.commands == 4)
			fail_msg("%s with %s: still news after four commands", id, version);
		struct command cmd = {.kind = COMMAND_CHECKIN, .checkin = in};
		a.commands++;
		a.code = committer_run(b->c, &cmd);
		if (a.code != OTA_OK)
			return a;
	}
}

static inline struct answer ask(struct bench *b, const char *id, const char *version)
{
	return ask_with(b, id, version, (struct told){0});
}

static inline enum ota_code tell(struct bench *b, const char *id, const char *version,
				 const char *word, int percent, const char *token,
				 const char *error)
{
	struct command cmd = {.kind = COMMAND_REPORT};

	cmd.report = (struct report){.device_id = id,
				     .version = version,
				     .error_message = error,
				     .attempt_token = token,
				     .percent = percent,
				     .event = attempt_event_from_status(word)};
	return committer_run(b->c, &cmd);
}

static inline enum ota_code fetch(struct bench *b, const char *token, bool peek)
{
	struct command cmd = {.kind = COMMAND_FETCH, .fetch = {token, peek}};

	return committer_run(b->c, &cmd);
}

static inline struct release_new release_facts_of(const char *version, const char *bytes)
{
	struct release_new n = {.version = version,
				.model = MODEL,
				.file_path = "/blobs/x",
				.image_type = "raw",
				.inner_version = "",
				.project = "",
				.file_size = 1000};

	assert_true(sha256_once(bytes, strlen(bytes), n.sha256));
	return n;
}

static inline enum ota_code upload_as(struct bench *b, const struct release_new *n,
				      struct command *cmd)
{
	*cmd = (struct command){.kind = COMMAND_RELEASE_CREATE, .release = *n};
	return committer_run(b->c, cmd);
}

static inline enum ota_code upload(struct bench *b, const char *version)
{
	struct release_new n = release_facts_of(version, version);
	struct command cmd;

	return upload_as(b, &n, &cmd);
}

/* Unwatched: what a gate does is seen where it is what matters. */
static inline struct rollout_new rollout_of(const char *name, const char *version)
{
	return (struct rollout_new){.name = name,
				    .version = version,
				    .model = MODEL,
				    .group = "",
				    .type = TARGET_ALL,
				    .percent = 100,
				    .max_attempts = 3,
				    .guard = {.off = true, .params = gate_params_default()},
				    .active = true};
}

static inline enum ota_code roll_out_as(struct bench *b, const struct rollout_new *n,
					struct command *cmd)
{
	*cmd = (struct command){.kind = COMMAND_ROLLOUT_CREATE, .rollout = *n};
	return committer_run(b->c, cmd);
}

/* Uploads and rolls out to all; the rollout's id. */
static inline int64_t roll_out(struct bench *b, const char *version)
{
	struct rollout_new n = rollout_of(version, version);
	struct command cmd;

	assert_int_equal(upload(b, version), OTA_OK);
	assert_int_equal(roll_out_as(b, &n, &cmd), OTA_OK);
	return cmd.out.id;
}

static inline enum ota_code set_active(struct bench *b, int64_t id, bool active)
{
	struct command cmd = {.kind = COMMAND_ROLLOUT_WALK,
			      .walk = {.id = id,
				       .event = active ? ROLLOUT_RESUME : ROLLOUT_PAUSE,
				       .off_is_fine = !active}};

	return committer_run(b->c, &cmd);
}

static inline enum ota_code delete_release(struct bench *b, const char *version)
{
	struct command cmd = {.kind = COMMAND_RELEASE_DELETE, .release_delete = {version, MODEL}};

	return committer_run(b->c, &cmd);
}

static inline enum ota_code delete_device(struct bench *b, const char *id)
{
	struct command cmd = {.kind = COMMAND_DEVICE_DELETE, .device_delete = {id}};

	return committer_run(b->c, &cmd);
}

static inline enum ota_code retry(struct bench *b, const char *id, const char *version)
{
	struct command cmd = {.kind = COMMAND_RETRY, .retry = {id, version}};

	return committer_run(b->c, &cmd);
}

static inline enum ota_code edit(struct bench *b, const struct device_edit *e, size_t count)
{
	struct command cmd = {.kind = COMMAND_DEVICE_EDIT, .edit = {e, count}};

	return committer_run(b->c, &cmd);
}
