/* SPDX-License-Identifier: MIT */
/*
 * bench-fill DATABASE DEVICES canary|all|mqtt|waiting
 *
 * Makes a database with a fleet in it, by the service's own store: 4 models, 5 releases and 5
 * rollouts for each.  Every device runs 1.0.0.  `canary`: the newest rollouts are for named
 * devices, a group, 10 % and 25 %, so that a quarter of the devices has a standing offer and each
 * decision looks at several rollouts.  `all`: the newest rollout is for all, so that each device
 * has an open attempt.  Attempts are those that decide() would open: the service changes nothing
 * when these devices check in.  `mqtt`: as `all`, of devices that are online at a broker.
 * `waiting`: they are online, the releases are there, and no rollout offers them anything yet.
 */
#include "names.h"

#include "base/clock.h"
#include "base/hash.h"
#include "core/decide.h"
#include "core/target.h"
#include "store/store.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define PER_MODEL 5
#define BATCH     5000

enum plan { PLAN_CANARY, PLAN_ALL, PLAN_MQTT, PLAN_WAITING, PLANS };

static const char *const plan_names[PLANS] = {"canary", "all", "mqtt", "waiting"};

struct slot {
	struct device device;
	struct device_link link;
	char id[BENCH_ID_SIZE];
	struct attempt attempt;
};

static struct store *store;
static struct model models[BENCH_MODELS];
static int64_t now_us;

static void die(const char *what, const struct ota_err *err)
{
	fprintf(stderr, "bench-fill: %s: %s\n", what, err ? err->msg : "out of memory");
	exit(1);
}

static void *get(size_t count, size_t size)
{
	void *p = calloc(count, size);

	if (!p)
		die("memory", NULL);
	return p;
}

/* Each change a group of its own would be a savepoint's unit; one group a batch is quicker. */
static void write_changes(struct change *changes, size_t count)
{
	struct change_group group = {.first = 0, .count = count, .result = OTA_EINTERNAL};
	struct change_batch batch = {
		.changes = changes, .change_count = count, .groups = &group, .group_count = 1};
	struct ota_err err;

	if (store->ops->commit(store, &batch, &err) != OTA_OK)
		die("writing", &err);
	if (group.result != OTA_OK)
		die("writing", &group.err);
}

static struct release *add_release(struct model *m, int minor)
{
	struct release *r = get(1, sizeof *r);
	char *version = get(1, 16);

	snprintf(version, 16, "1.%d.0", minor);
	*r = (struct release){.id = store->ops->next_id(store, ID_RELEASE),
			      .salt = target_salt(m->name, version),
			      .version = version,
			      .model = m->name,
			      .min_version = "",
			      .inner_version = "",
			      .project = "",
			      .release_notes = "Fixes and improvements.",
			      .file_size = 1048576,
			      .created_us = now_us,
			      .next = m->releases};
	if (!sha256_once(version, strlen(version), r->sha256))
		die("hashing", NULL);
	m->releases = r;
	struct change ch = {.kind = CHANGE_RELEASE_INSERT};
	ch.release.release = r;
	ch.release.file_path = "bench.bin";
	ch.release.release_notes = r->release_notes;
	ch.release.metadata = "{\"image_type\":\"raw\",\"image\":null}";
	write_changes(&ch, 1);
	return r;
}

static void add_rollout(struct model *m, struct release *rel, struct target target,
			const char *filter)
{
	struct rollout *r = get(1, sizeof *r);
	char *name = get(1, 48);
	struct change ch = {.kind = CHANGE_ROLLOUT_INSERT};

	snprintf(name, 48, "%s-%s", m->name, rel->version);
	*r = (struct rollout){.id = store->ops->next_id(store, ID_ROLLOUT),
			      .name = name,
			      .release = rel,
			      .target = target,
			      .active = true,
			      .created_active = true,
			      .requires = "",
			      .walk = {.state = ROLLOUT_RUNNING,
				       .state_since_us = now_us,
				       .stage_since_us = now_us,
				       .reason = ""},
			      .max_attempts = 3,
			      .created_us = now_us,
			      .next = m->rollouts};
	m->rollouts = r;
	ch.rollout.rollout = r;
	ch.rollout.target_filter = filter;
	ch.rollout.metadata = "{\"created_active\":true}";
	char stages[64];
	snprintf(stages, sizeof stages, "[{\"percent\":%d,\"min_duration_s\":0}]", target.percent);
	ch.rollout.stages = stages;
	write_changes(&ch, 1);
}

static void make_plan(struct model *m, enum plan plan)
{
	struct target everyone = {.type = TARGET_ALL, .percent = 100, .group = ""};
	struct target quarter = {.type = TARGET_CANARY, .percent = 25, .group = ""};
	struct target tenth = {.type = TARGET_CANARY, .percent = 10, .group = ""};
	struct target group = {.type = TARGET_GROUP, .percent = 100, .group = "field"};
	struct target named = {.type = TARGET_SPECIFIC, .percent = 100, .group = ""};

	if (plan == PLAN_WAITING) {
		for (int minor = 0; minor < PER_MODEL; minor++)
			add_release(m, minor);
		return;
	}
	add_rollout(m, add_release(m, 0), everyone, NULL);
	add_rollout(m, add_release(m, 1), quarter, NULL);
	add_rollout(m, add_release(m, 2), tenth, NULL);
	add_rollout(m, add_release(m, 3), group, "{\"group\":\"field\"}");
	if (plan == PLAN_CANARY)
		add_rollout(m, add_release(m, 4), named, "{\"device_ids\":[\"nobody\"]}");
	else
		add_rollout(m, add_release(m, 4), everyone, NULL);
}

/* The device and, where it is offered something, its open attempt. */
static size_t add_device(struct change *ch, struct slot *s, uint32_t i, enum plan plan)
{
	const struct model *m = &models[i % BENCH_MODELS];
	struct decide_params p = {.now_us = now_us, .stale_us = INT64_MAX};

	memset(s, 0, sizeof *s);
	bench_device_id(i, s->id);
	s->device.id = store->ops->next_id(store, ID_DEVICE);
	s->device.device_id = s->id;
	s->device.hash = hash64(s->id, strlen(s->id));
	s->device.created_us = now_us;
	s->device.last_seen_us = now_us;
	s->device.state.model = m->name;
	s->device.state.version = BENCH_RUNS_VERSION;
	s->device.state.hw = s->device.state.ran_as = s->device.state.ran_from = "";
	s->link = (struct device_link){.site = BENCH_SITE,
				       .form = TOPIC_FORM_EDGE,
				       .presence = PRESENCE_ONLINE,
				       .presence_us = now_us,
				       .other_site = ""};
	if (plan == PLAN_MQTT || plan == PLAN_WAITING)
		s->device.state.link = &s->link;
	ch[0] = (struct change){.kind = CHANGE_DEVICE_PUT};
	ch[0].device.device = &s->device;
	ch[0].device.state = &s->device.state;

	struct decision x = decide(&s->device, m, &p);
	if (!decision_offers(&x))
		return 1;
	s->attempt = (struct attempt){.id = store->ops->next_id(store, ID_ATTEMPT),
				      .release_id = x.release->id,
				      .rollout_id = x.rollout->id,
				      .state = ATTEMPT_PENDING,
				      .percent = -1,
				      .opened_us = now_us,
				      .reported_us = now_us,
				      .version = x.release->version,
				      .from_version = BENCH_RUNS_VERSION};
	bench_token(i, s->attempt.token);
	ch[1] = (struct change){.kind = CHANGE_ATTEMPT_INSERT};
	ch[1].attempt.device_id = s->id;
	ch[1].attempt.attempt = &s->attempt;
	return 2;
}

int main(int argc, char **argv)
{
	struct ota_err err;
	struct change *changes = get(2 * BATCH, sizeof *changes);
	struct slot *slots = get(BATCH, sizeof *slots);
	enum plan plan = PLAN_CANARY;

	while (argc == 4 && plan < PLANS && strcmp(argv[3], plan_names[plan]) != 0)
		plan++;
	if (argc != 4 || plan == PLANS) {
		fprintf(stderr, "usage: bench-fill DATABASE DEVICES canary|all|mqtt|waiting\n");
		return 2;
	}
	uint32_t devices = (uint32_t)strtoul(argv[2], NULL, 10);
	now_us = clock_service_us();
	if (store_sqlite_open(argv[1], &store, &err) != OTA_OK)
		die("opening", &err);
	for (int i = 0; i < BENCH_MODELS; i++) {
		models[i].name = bench_models[i];
		make_plan(&models[i], plan);
	}
	for (uint32_t i = 0; i < devices;) {
		size_t count = 0;
		for (int k = 0; k < BATCH && i < devices; k++, i++)
			count += add_device(changes + count, &slots[k], i, plan);
		write_changes(changes, count);
	}
	store->ops->close(&store);
	free(changes);
	free(slots);
	return 0; /* the plan lives as long as the program */
}
