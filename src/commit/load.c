/* SPDX-License-Identifier: MIT */
/* The fleet as the store has it, at start.  Before the committer's thread runs. */
#include "commit/plan.h"
#include "commit/takeback.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/tzfile.h"
#include "core/stage.h"
#include "core/target.h"
#include "fleet/state.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static int64_t time_or_zero(const char *text)
{
	int64_t us;

	return text && time_parse(text, &us) ? us : 0;
}

static const char *json_text(const json_t *object, const char *key)
{
	const char *s = json_string_value(json_object_get(object, key));

	return s ? s : "";
}

/* The strings of a JSON array as a list; NULL and *ok when there are none. */
static struct string_list *json_names(const json_t *array, bool *ok)
{
	size_t n = json_array_size(array);
	const char **names = n ? calloc(n, sizeof *names) : NULL;
	struct string_list *l = NULL;

	*ok = n == 0 || names;
	for (size_t i = 0; i < n && names; i++) {
		names[i] = json_string_value(json_array_get(array, i));
		if (!names[i])
			names[i] = "";
	}
	if (names) {
		l = string_list_new(names, n);
		*ok = l != NULL;
	}
	free(names);
	return l;
}

static bool fill_release(struct release *r, const struct row_release *row, const json_t *image)
{
	char digest[SHA256_HEX_SIZE];

	r->version = r->model = r->min_version = r->inner_version = r->project = r->release_notes =
		"";
	r->id = row->id;
	r->salt = target_salt(row->device_model, row->version);
	r->file_size = row->file_size;
	r->created_us = time_or_zero(row->created_at);
	r->chip = chip_from_name(json_text(image, "chip"));
	r->secure_version = (uint32_t)json_integer_value(json_object_get(image, "secure_version"));
	snprintf(digest, sizeof digest, "%s", json_text(image, "image_digest"));
	r->has_image_digest = hex_decode(digest, r->image_digest, DIGEST_SIZE);
	snprintf(digest, sizeof digest, "%s", json_text(image, "elf_sha256"));
	r->has_elf_digest = hex_decode(digest, r->elf_digest, DIGEST_SIZE);
	return hex_decode(row->sha256, r->sha256, DIGEST_SIZE) &&
	       state_set_string(&r->version, row->version) &&
	       state_set_string(&r->model, row->device_model) &&
	       state_set_string(&r->min_version, row->min_version ? row->min_version : "") &&
	       state_set_string(&r->inner_version, json_text(image, "version")) &&
	       state_set_string(&r->project, json_text(image, "project")) &&
	       state_set_string(&r->release_notes, row->release_notes ? row->release_notes : "");
}

static enum ota_code load_release(void *ctx, const struct row_release *row, const char *deleted_at,
				  struct ota_err *err)
{
	struct fleet *f = ctx;
	struct release *r = calloc(1, sizeof *r);
	struct model *m = fleet_model_ensure(f, row->device_model);
	json_t *meta = json_loads(row->metadata, 0, NULL);
	json_t *learnt = row->learnt ? json_loads(row->learnt, 0, NULL) : NULL;
	bool ok = r && m && meta && fill_release(r, row, json_object_get(meta, "image"));

	if (ok)
		r->learnt = json_names(learnt, &ok);
	json_decref(meta);
	json_decref(learnt);
	if (!ok) {
		release_free(&r);
		return ota_fail(err, OTA_EIO, "release %lld (%s for %s) cannot be read",
				(long long)row->id, row->version, row->device_model);
	}
	r->deleted = deleted_at != NULL;
	r->suspect_us = time_or_zero(row->suspect_at);
	fleet_publish_release(f, m, r);
	return OTA_OK;
}

static bool load_macs(struct target *t, const json_t *array)
{
	size_t n = json_array_size(array);

	if (n == 0)
		return true;
	t->macs = calloc(n, sizeof *t->macs);
	if (!t->macs)
		return false;
	for (size_t i = 0; i < n; i++) {
		const char *text = json_string_value(json_array_get(array, i));
		if (text && mac_parse(text, &t->macs[t->mac_count]))
			t->mac_count++;
	}
	return true;
}

static bool load_target(struct target *t, const struct row_rollout *row)
{
	static const char *const words[] = {"all", "group", "canary", "specific"};
	json_t *filter = json_loads(row->target_filter ? row->target_filter : "{}", 0, NULL);
	bool ok = filter != NULL;

	for (int i = 0; i < 4; i++)
		if (strcmp(row->target_type, words[i]) == 0)
			t->type = (enum target_type)i;
	t->group = "";
	if (ok)
		t->device_ids = json_names(json_object_get(filter, "device_ids"), &ok);
	ok = ok && load_macs(t, json_object_get(filter, "mac_addresses")) &&
	     state_set_string(&t->group, json_text(filter, "group"));
	json_decref(filter);
	return ok;
}

static bool load_stages(struct rollout *r, const struct row_rollout *row)
{
	json_t *list = json_loads(row->stages ? row->stages : "[]", 0, NULL);
	size_t count = json_array_size(list);
	char wrong[128];

	r->stages = count ? calloc(count, sizeof *r->stages) : NULL;
	for (size_t i = 0; i < count && r->stages; i++) {
		const json_t *s = json_array_get(list, i),
			     *proven = json_object_get(s, "min_proven");
		r->stages[i] = (struct stage){
			.percent = (int)json_integer_value(json_object_get(s, "percent")),
			.min_duration_s = json_integer_value(json_object_get(s, "min_duration_s")),
			.min_proven = proven ? json_integer_value(proven) : STAGE_MIN_PROVEN_AUTO,
			.approve = json_is_true(json_object_get(s, "approve")),
		};
	}
	json_decref(list);
	r->stage_count = (int)count;
	return r->stages && !stages_error(r->stages, count, wrong, sizeof wrong);
}

static bool load_walk(struct rollout *r, const struct row_rollout *row)
{
	struct walk *w = &r->walk;

	w->state = rollout_state_from_name(row->state);
	w->stage = row->stage - 1;
	w->approved = row->approved;
	w->state_since_us = time_or_zero(row->state_since);
	w->stage_since_us = time_or_zero(row->stage_since);
	w->held_us = row->held_us;
	if (w->state == ROLLOUT_STATES || w->stage < 0 || w->stage >= r->stage_count)
		return false;
	r->active = rollout_state_offers(w->state);
	r->target.percent = r->stages[w->stage].percent;
	return state_set_string(&w->reason, row->state_reason ? row->state_reason : "");
}

/* Without its zone the window stays shut: too careful is better than not at all.  NULL: it cannot
 * be read. */
static struct window *read_window(const char *text, const char *what, const char *whose)
{
	struct window w, *copy;
	struct ota_err err;

	if (window_parse(text, &w, &err) != OTA_OK)
		return NULL;
	if (tz_load(TZ_DIRECTORY, w.zone_name, &w.zone, &err) != OTA_OK)
		log_event(LOG_WARNING, "daemon", "no_time_zone",
			  "the window of %s %s stays shut until this is mended and the service "
			  "started anew: %s",
			  what, whose, err.msg);
	copy = window_copy(&w);
	tz_free(&w.zone);
	return copy;
}

static bool load_window(struct rollout *r, const struct row_rollout *row)
{
	return !row->window || (r->window = read_window(row->window, "rollout", r->name));
}

static enum ota_code load_group_window(struct fleet *f, const char *group, const char *text,
				       struct ota_err *err)
{
	struct group_window *g = calloc(1, sizeof *g);

	if (g)
		g->group = "";
	if (!g || !state_set_string(&g->group, group) ||
	    !(g->window = read_window(text, "group", group))) {
		group_window_free(&g);
		return ota_fail(err, OTA_EIO, "the window of group %s cannot be read", group);
	}
	fleet_set_group_window(f, g);
	return OTA_OK;
}

static enum ota_code load_rollout(void *ctx, const struct row_rollout *row, struct ota_err *err)
{
	struct fleet *f = ctx;
	const struct release *rel = fleet_release(f, row->release_id);
	struct rollout *r = calloc(1, sizeof *r);
	json_t *meta = json_loads(row->metadata, 0, NULL);

	if (r)
	r->name = r->target.group = r->requires = r->walk.reason = "";
	if (!r || !meta || !rel || !state_set_string(&r->name, row->name) ||
	    !load_target(&r->target, row) || !load_stages(r, row) || !load_walk(r, row) ||
	    !state_set_string(&r->requires, row->requires ? row->requires : "") ||
	    !load_window(r, row) || !takeback_read(meta, f, r)) {
		json_decref(meta);
		rollout_free(&r);
		return ota_fail(err, OTA_EIO, "rollout %lld (%s) cannot be read",
				(long long)row->id, row->name);
	}
	r->id = row->id;
	r->release = (struct release *)(uintptr_t)rel;
	r->not_before_us = time_or_zero(row->not_before);
	r->deadline_us = time_or_zero(row->deadline);
	r->priority = row->priority;
	r->created_active = json_is_true(json_object_get(meta, "created_active"));
	r->guard = guard_read(meta);
	r->allow_downgrade = row->allow_downgrade;
	r->max_attempts = row->max_attempts;
	r->max_parallel = row->max_parallel;
	r->created_us = time_or_zero(row->created_at);
	r->pruned_us = time_or_zero(row->pruned_at);
	r->lowest_hash = UINT64_MAX;
	json_decref(meta);
	fleet_publish_rollout(f, fleet_model_ensure(f, rel->model), r);
	return OTA_OK;
}

static enum ota_code load_device(void *ctx, const struct row_device *row,
				 const struct device_state *state, struct ota_err *err)
{
	struct fleet *f = ctx;
	struct device_state next = *state;
	struct device *d = fleet_add(f, row->device_id, row->id, time_or_zero(row->created_at));

	if (!d)
		return ota_fail_nomem(err);
	d->last_seen_us = time_or_zero(row->last_seen);
	d->habit_us = row->habit_us;
	next.model = next.version = next.hw = next.ran_as = next.ran_from = "";
	next.digests = NULL;
	next.link = NULL;
	if (!state_set_string(&next.model, state->model) ||
	    !state_set_string(&next.version, state->version) ||
	    !state_set_string(&next.hw, state->hw) ||
	    !state_set_string(&next.ran_as, state->ran_as) ||
	    !state_set_string(&next.ran_from, state->ran_from) ||
	    (state->digests && !state_set_digests(&next, state->digests)) ||
	    (state->link && !state_set_link(&next, state->link)) || !fleet_reserve(f, &next)) {
		state_fini(&next);
		return ota_fail_nomem(err);
	}
	fleet_publish(f, d, &next);
	return OTA_OK;
}

/* Changes a loaded device: a copy of its state, changed by the caller, published again. */
static enum ota_code begin_change(struct fleet *f, const char *device_id, struct device **d,
				  struct device_state *next, struct ota_err *err)
{
	*d = fleet_find(f, device_id);
	if (!*d)
		return OTA_ENOTFOUND; /* a row of a deleted device */
	return state_copy(next, &(*d)->state) ? OTA_OK : ota_fail_nomem(err);
}

static enum ota_code end_change(struct fleet *f, struct device *d, struct device_state *next,
				bool ok, struct ota_err *err)
{
	if (!ok || !fleet_reserve(f, next)) {
		state_fini(next);
		return ota_fail_nomem(err);
	}
	fleet_publish(f, d, next);
	return OTA_OK;
}

static enum ota_code load_group(void *ctx, const char *device_id, const char *group,
				struct ota_err *err)
{
	struct device_state next;
	struct device *d;
	enum ota_code rc = begin_change(ctx, device_id, &d, &next, err);

	if (rc != OTA_OK)
		return rc == OTA_ENOTFOUND ? OTA_OK : rc;
	size_t n = next.groups ? next.groups->count : 0;
	const char **names = calloc(n + 1, sizeof *names);
	for (size_t i = 0; i < n && names; i++)
		names[i] = next.groups->items[i];
	if (names)
		names[n] = group;
	bool ok = names && state_set_groups(&next, names, n + 1);
	free(names);
	return end_change(ctx, d, &next, ok, err);
}

static enum ota_code load_failures(void *ctx, const char *device_id, const struct failure_count *f,
				   struct ota_err *err)
{
	struct device_state next;
	struct device *d;
	enum ota_code rc = begin_change(ctx, device_id, &d, &next, err);

	if (rc != OTA_OK)
		return rc == OTA_ENOTFOUND ? OTA_OK : rc;
	return end_change(ctx, d, &next, state_set_failures(&next, f), err);
}

static enum ota_code load_attempt(void *ctx, const char *device_id, const struct attempt *a,
				  struct ota_err *err)
{
	struct device_state next;
	struct device *d;
	enum ota_code rc = begin_change(ctx, device_id, &d, &next, err);

	if (rc != OTA_OK)
		return rc == OTA_ENOTFOUND ? OTA_OK : rc;
	return end_change(ctx, d, &next, state_set_attempt(&next, a), err);
}

static bool see_event(void *ctx, const struct row_event *row)
{
	int64_t us = time_or_zero(row->created_at), *latest_us = ctx;

	if (us > *latest_us)
		*latest_us = us;
	return false;
}

static bool see_device(const struct device *d, void *ctx)
{
	int64_t *latest_us = ctx;

	if (d->last_seen_us > *latest_us)
		*latest_us = d->last_seen_us;
	return true;
}

/* A clock that went back while the service stood still must not turn the order of things round. */
static enum ota_code go_on_in_time(struct fleet *f, struct store *s, struct ota_err *err)
{
	const struct list_query newest = {.active = -1, .limit = 1};
	int64_t latest_us = 0, behind_us;
	char text[TIME_TEXT_SIZE];
	enum ota_code rc = s->ops->list_events(s, &newest, see_event, &latest_us, err);

	if (rc != OTA_OK)
		return rc;
	fleet_visit(f, 0, FLEET_SHARDS, see_device, &latest_us);
	behind_us = latest_us - clock_wall_us();
	if (behind_us > 60 * US_PER_S) {
		time_format(latest_us, text);
		log_event(LOG_WARNING, "daemon", "clock_behind",
			  "the last change was stored at %s, and the clock is %lld s behind that: "
			  "times go on from there until the clock is right",
			  text, (long long)(behind_us / US_PER_S));
	}
	clock_service_not_before(latest_us + 1);
	return OTA_OK;
}

static enum ota_code load_state(void *ctx, const char *key, const char *value, struct ota_err *err)
{
	char since[TIME_TEXT_SIZE] = "";

	if (strncmp(key, STATE_GROUP_WINDOW, strlen(STATE_GROUP_WINDOW)) == 0)
		return load_group_window(ctx, key + strlen(STATE_GROUP_WINDOW), value, err);
	if (strcmp(key, STATE_STOPPED) != 0)
		return OTA_OK;
	size_t n = strlen(value);
	if (n < sizeof since)
		return ota_fail(err, OTA_EIO, "the state '%s' cannot be read", key);
	memcpy(since, value, sizeof since - 1);
	char *reason = strdup(value + sizeof since);
	if (!reason)
		return ota_fail_nomem(err);
	fleet_set_stop(ctx, reason, time_or_zero(since));
	return OTA_OK;
}

enum ota_code commit_load(struct fleet *f, struct store *s, struct ota_err *err)
{
	const struct store_loader l = {
		.ctx = f,
		.state = load_state,
		.release = load_release,
		.rollout = load_rollout,
		.device = load_device,
		.group = load_group,
		.failures = load_failures,
		.attempt = load_attempt,
	};
	enum ota_code rc = s->ops->load(s, &l, err);

	if (rc == OTA_OK)
		rc = go_on_in_time(f, s, err);
	return rc == OTA_OK ? OTA_OK : ota_wrap(err, "loading the fleet");
}
