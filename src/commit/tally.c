/* SPDX-License-Identifier: MIT */
#include "commit/tally.h"

#include "commit/gates.h"

#include <stdlib.h>
#include <string.h>

/* A power of two; more than a day, so that a device whose hour is not among them is not seen. */
#define HOURS 32
/* So many devices, and the rest of a shard, are counted in one command: some milliseconds. */
#define COUNT_DEVICES 8192

struct counts {
	int64_t devices, on_version, proven;
	int64_t online; /* over MQTT: they are there, whenever they spoke */
	int32_t newest; /* hour */
	int64_t by_hour[HOURS];
};

struct tally {
	const struct rollout *rollout;
	uint64_t lowest_hash; /* as it was when it was counted */
	int counted;          /* shards, from the first */
	bool changed;
	struct counts now;   /* the committer's */
	struct counts shown; /* under the lock ... */
	bool complete;       /* ... and whether it is the whole fleet */
	struct tally *next;
};

void tallies_init(struct tallies *t)
{
	pthread_mutex_init(&t->lock, NULL);
}

void tallies_fini(struct tallies *t)
{
	for (struct tally *k = t->first, *next; k; k = next) {
		next = k->next;
		free(k);
	}
	pthread_mutex_destroy(&t->lock);
}

/* --- which --- */

static struct tally *find(const struct tallies *t, const struct rollout *r)
{
	struct tally *k = t->first;

	while (k && k->rollout != r)
		k = k->next;
	return k;
}

/* Interned, both: the same text is the same pointer. */
static bool is_of(const struct tally *k, const char *model)
{
	return k->rollout->release->model == model;
}

/* Frees the tally behind *P, which is the next one's then. */
static void drop(struct tallies *t, struct tally **p)
{
	struct tally *k = *p;

	pthread_mutex_lock(&t->lock);
	*p = k->next;
	pthread_mutex_unlock(&t->lock);
	free(k);
}

void tallies_drop_rollout(struct committer *c, const struct rollout *r)
{
	for (struct tally **p = &c->tallies.first; *p; p = &(*p)->next)
		if ((*p)->rollout == r) {
			drop(&c->tallies, p);
			return;
		}
}

void tallies_drop_model(struct committer *c, const char *model)
{
	for (struct tally **p = &c->tallies.first; *p;)
		if (is_of(*p, model))
			drop(&c->tallies, p);
		else
			p = &(*p)->next;
}

/* Whether the device with the lowest bucket stands in, because nobody falls inside. */
static bool stands_in(const struct rollout *r, uint64_t lowest)
{
	return r->target.percent < 100 && r->target.type != TARGET_SPECIFIC &&
	       lowest != UINT64_MAX && lowest >= UINT64_MAX / 100 * (uint64_t)r->target.percent;
}

/* Another device may stand in since a device came or went: it is counted anew then. */
void tallies_look(struct committer *c)
{
	for (struct tally **p = &c->tallies.first; *p;) {
		struct tally *k = *p;
		uint64_t is = k->rollout->lowest_hash, was = k->lowest_hash;

		if (is != was && (stands_in(k->rollout, is) || stands_in(k->rollout, was))) {
			drop(&c->tallies, p);
			continue;
		}
		k->lowest_hash = is;
		p = &k->next;
	}
}

/* --- what a device adds --- */

static void add_hour(struct counts *n, int32_t hour, int sign)
{
	for (; n->newest < hour; n->newest++) {
		if (hour - n->newest > HOURS)
			n->newest = hour - HOURS;
		n->by_hour[(n->newest + 1) & (HOURS - 1)] = 0;
	}
	if (hour > n->newest - HOURS)
		n->by_hour[hour & (HOURS - 1)] += sign;
}

static void add(struct committer *c, struct tally *k, const struct device *d, int sign)
{
	struct progress_share s = progress_share(c, k->rollout, d, gates_standing);

	if (!s.in)
		return;
	k->now.devices += sign;
	k->now.on_version += s.on_version ? sign : 0;
	k->now.proven += s.proven ? sign : 0;
	if (device_is_online(&d->state))
		k->now.online += sign;
	else
		add_hour(&k->now, d->tally_hour, sign);
	k->changed = true;
}

static void add_to_all(struct committer *c, const struct device *d, int sign)
{
	for (struct tally *k = c->tallies.first; k; k = k->next)
		if (is_of(k, d->state.model) && fleet_shard(d) < k->counted)
			add(c, k, d, sign);
}

void tallies_leave(struct committer *c, const struct device *d)
{
	if (d->born)
		add_to_all(c, d, -1);
}

void tallies_enter(struct committer *c, struct device *d)
{
	if (!c->tallies.first)
		return;
	d->tally_hour = progress_hour(fleet_heard_us(d, 0));
	add_to_all(c, d, 1);
	tallies_look(c);
}

void tallies_hear(struct committer *c, struct device *d)
{
	int32_t hour = progress_hour(fleet_heard_us(d, 0));

	if (!c->tallies.first || hour == d->tally_hour || device_is_online(&d->state))
		return;
	for (struct tally *k = c->tallies.first; k; k = k->next) {
		if (!is_of(k, d->state.model) || fleet_shard(d) >= k->counted ||
		    !progress_share(c, k->rollout, d, gates_standing).in)
			continue;
		add_hour(&k->now, d->tally_hour, -1);
		add_hour(&k->now, hour, 1);
		k->changed = true;
	}
	d->tally_hour = hour;
}

static bool same_digests(const struct device_digests *a, const struct device_digests *b)
{
	return a == b || (a && b && memcmp(a, b, sizeof *a) == 0);
}

static bool same_names(const struct string_list *a, const struct string_list *b)
{
	return a == b || (a && b && a->count == b->count &&
			  memcmp(a->items, b->items, a->count * sizeof a->items[0]) == 0);
}

bool tallies_mind(const struct committer *c, const struct device *d,
		  const struct device_state *next)
{
	const struct device_state *was = &d->state;

	return c->tallies.first &&
	       (!d->born || was->model != next->model || was->version != next->version ||
		was->mac != next->mac || was->ran_release_id != next->ran_release_id ||
		device_is_online(was) != device_is_online(next) || was->ran_as != next->ran_as ||
		was->ran_from != next->ran_from || !was->attempt != !next->attempt ||
		!same_names(was->groups, next->groups) ||
		!same_digests(was->digests, next->digests));
}

/* --- counting anew --- */

struct part {
	struct committer *c;
	struct tally *tally;
	size_t devices;
};

static bool count_device(const struct device *d, void *ctx)
{
	struct part *p = ctx;

	p->devices++;
	if (!is_of(p->tally, d->state.model))
		return true;
	tallies_hear(p->c, (struct device *)(uintptr_t)d);
	add(p->c, p->tally, d, 1);
	return true;
}

enum prepared prepare_count(struct committer *c, struct command *cmd)
{
	const struct rollout *r = fleet_rollout(c->fleet, cmd->count.rollout_id);
	struct part p = {.c = c};

	if (!r)
		return prepare_fail(cmd, OTA_ENOTFOUND, "no rollout has the id %lld",
				    (long long)cmd->count.rollout_id);
	p.tally = find(&c->tallies, r);
	if (!p.tally) {
		if (!(p.tally = calloc(1, sizeof *p.tally)))
			return prepare_fail_nomem(cmd);
		p.tally->rollout = r;
		p.tally->lowest_hash = r->lowest_hash;
		pthread_mutex_lock(&c->tallies.lock);
		p.tally->next = c->tallies.first;
		c->tallies.first = p.tally;
		pthread_mutex_unlock(&c->tallies.lock);
	}
	size_t most = cmd->count.devices ? cmd->count.devices : COUNT_DEVICES;
	for (int *at = &p.tally->counted; *at < FLEET_SHARDS && p.devices < most; ++*at)
		fleet_visit(c->fleet, *at, *at + 1, count_device, &p);
	p.tally->changed = true;
	cmd->out.existed = p.tally->counted == FLEET_SHARDS;
	return PREPARED;
}

/* --- readers --- */

void tallies_show(struct committer *c)
{
	for (struct tally *k = c->tallies.first; k; k = k->next) {
		if (!k->changed)
			continue;
		pthread_mutex_lock(&c->tallies.lock);
		k->shown = k->now;
		k->complete = k->counted == FLEET_SHARDS;
		pthread_mutex_unlock(&c->tallies.lock);
		k->changed = false;
	}
}

bool tally_read(struct committer *c, const struct rollout *r, int64_t now_us, struct progress *out)
{
	int32_t from = progress_hour(now_us - STAGE_SEEN_US);
	struct counts n;

	pthread_mutex_lock(&c->tallies.lock);
	const struct tally *k = find(&c->tallies, r);
	bool known = k && k->complete;
	if (known)
		n = k->shown;
	pthread_mutex_unlock(&c->tallies.lock);
	if (!known)
		return false;
	out->facts.devices = n.devices;
	out->facts.proven = n.proven;
	out->on_version = n.on_version;
	out->facts.seen = n.online;
	for (int32_t hour = n.newest; hour >= from && hour > n.newest - HOURS; hour--)
		out->facts.seen += n.by_hour[hour & (HOURS - 1)];
	return true;
}
