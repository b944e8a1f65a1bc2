/* SPDX-License-Identifier: MIT */
/* Devices: listed, shown, explained, tried again, removed. */
#include "http/request.h"

#include "base/clock.h"
#include "core/target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ATTEMPTS_SHOWN 20

/* A device that is known by the broker's retained copy alone was never seen. */
static void add_last_seen(struct buf *b, const char *last_seen)
{
	int64_t us;

	if (last_seen && time_parse(last_seen, &us) && us == LAST_SEEN_NEVER_US)
		last_seen = NULL;
	json_str(b, "last_seen", last_seen);
}

/* What was heard of it over MQTT. */
static void add_presence(struct buf *b, const struct row_device *row)
{
	json_str(b, "site", row->site);
	if (row->online < 0)
		json_nil(b, "online");
	else
		json_bool(b, "online", row->online);
	json_str(b, "presence_since", row->presence_at);
	if (!row->other_site) {
		json_nil(b, "site_conflict");
		return;
	}
	json_open(b, "site_conflict", '{');
	json_str(b, "other_site", row->other_site);
	json_str(b, "at", row->conflict_at);
	json_close(b, '}');
}

static void add_row(struct buf *b, const struct row_device *row)
{
	json_int(b, "id", row->id);
	json_str(b, "device_id", row->device_id);
	json_str(b, "mac_address", row->mac);
	json_str(b, "device_model", row->model);
	json_str(b, "current_firmware_version", row->version);
	add_last_seen(b, row->last_seen);
	json_str(b, "created_at", row->created_at);
	json_str(b, "hw", row->hw);
	json_str(b, "label", row->label);
	add_presence(b, row);
}

/* --- the list, last seen first --- */

/*
 * The cursor is "began-seen-id": when the listing began, and the last row shown, so that devices
 * which are heard of meanwhile move out of the way and every other one comes exactly once.
 */
struct device_page {
	struct list_query q;
	char before[TIME_TEXT_SIZE], until[TIME_TEXT_SIZE];
	int64_t began_us, last_seen_us;
	struct page page;
};

static bool add_device(void *ctx, const struct row_device *row)
{
	struct device_page *p = ctx;
	struct buf *b = p->page.b;

	if (!page_takes(&p->page, row->id))
		return false;
	json_open(b, NULL, '{');
	add_row(b, row);
	json_close(b, '}');
	if (!time_parse(row->last_seen, &p->last_seen_us))
		p->last_seen_us = 0;
	if (!p->q.before_time && p->last_seen_us > p->began_us)
		p->began_us = p->last_seen_us;
	return true;
}

static void query_devices(struct request *r)
{
	struct device_page *p = r->memory;
	char cursor[80];

	p->page.b = respond_begin(r, 200);
	p->page.limit = p->q.limit++;
	json_open(p->page.b, "devices", '[');
	r->job_code = r->server->store->ops->list_devices(r->server->store, &p->q, add_device, p,
							  &r->job_err);
	json_close(p->page.b, ']');
	snprintf(cursor, sizeof cursor, "%lld-%lld-%lld", (long long)p->began_us,
		 (long long)p->last_seen_us, (long long)p->page.last_id);
	json_str(p->page.b, "next_cursor", p->page.count > p->page.limit ? cursor : NULL);
	respond_end(r);
}

static enum next after_flush(struct request *r)
{
	/* A store that cannot be written may still be read: the list is then a minute old at most.
	 */
	return request_job(r, query_devices, request_list_done);
}

static bool read_device_cursor(struct request *r, struct device_page *p)
{
	const char *cursor = request_filter(r, "cursor");
	long long began, seen, id;
	int used = 0;

	if (!cursor) {
		p->began_us = clock_service_us();
	} else if (strspn(cursor, "0123456789-") != strlen(cursor) || strlen(cursor) > 60 ||
		   sscanf(cursor, "%lld-%lld-%lld%n", &began, &seen, &id, &used) != 3 ||
		   cursor[used] || began <= 0 || seen < 0 || id <= 0) {
		field_errors_add(&r->errors, "query", "cursor", FIELD_TYPE_VALUE,
				 "take it from next_cursor of the page before, as it is");
		return false;
	} else {
		p->began_us = began;
		p->q.before_id = id;
		time_format(seen, p->before);
		p->q.before_time = p->before;
	}
	/* The first page takes whoever is there; the ones behind it whoever was not heard of since.
	 */
	if (cursor) {
		time_format(p->began_us, p->until);
		p->q.until_time = p->until;
	}
	return true;
}

enum next devices_list(struct request *r)
{
	struct device_page *p = calloc(1, sizeof *p);
	int64_t limit = 100;

	if (!p)
		return respond_error(r, OTA_ENOMEM, "out of memory");
	r->memory = p;
	field_query_int(&r->errors, &r->query, "limit", false, 1, 1000, &limit);
	p->q.limit = (int)limit;
	p->q.active = -1;
	p->q.device_model = request_name_filter(r, "device_model");
	p->q.group = request_name_filter(r, "group");
	read_device_cursor(r, p);
	if (field_errors_any(&r->errors))
		return respond_fields(r);
	if (p->q.before_time)
		return request_job(r, query_devices, request_list_done);
	/* The first page begins with what is known now, not a minute ago. */
	r->command.kind = COMMAND_FLUSH_SEEN;
	r->command.flush_seen.from = 0;
	r->command.flush_seen.to = FLEET_SHARDS;
	return request_submit(r, after_flush);
}

/* --- one device --- */

struct one_device {
	struct request *r;
	int found;
};

/* What memory knows: groups, the attempt under way. */
static void add_live(struct request *r, struct buf *b)
{
	const struct device *d = fleet_lock_device(r->server->fleet, r->args[0]);

	json_open(b, "groups", '[');
	for (size_t i = 0; d && d->state.groups && i < d->state.groups->count; i++)
		json_str(b, NULL, d->state.groups->items[i]);
	json_close(b, ']');
	if (d && d->state.attempt && attempt_is_open(d->state.attempt->state)) {
		const struct attempt *a = d->state.attempt;
		json_open(b, "current_attempt", '{');
		json_int(b, "id", a->id);
		json_str(b, "attempt_id", a->token);
		json_str(b, "firmware_version", a->version);
		json_str(b, "status", attempt_status_word(a->state));
		json_int(b, "rollout_id", a->rollout_id);
		json_close(b, '}');
	} else {
		json_nil(b, "current_attempt");
	}
	if (d)
		fleet_unlock_device(r->server->fleet, d);
}

static bool show_row(void *ctx, const struct row_device *row)
{
	struct one_device *one = ctx;
	struct request *r = one->r;
	struct row_device now = *row;
	char seen[TIME_TEXT_SIZE];
	const struct device *d = fleet_lock_device(r->server->fleet, r->args[0]);

	if (d) {
		time_format(d->last_seen_us, seen);
		fleet_unlock_device(r->server->fleet, d);
		now.last_seen = seen;
	}
	add_row(&r->out, &now);
	json_str(&r->out, "notes", row->notes);
	one->found++;
	return false;
}

static bool show_attempt(void *ctx, const struct row_update *row)
{
	add_update_row(ctx, row);
	return true;
}

static void query_device(struct request *r)
{
	struct list_query q = {.device_id = r->args[0], .active = -1, .limit = 1};
	struct store *s = r->server->store;
	struct buf *b = respond_begin(r, 200);
	struct one_device one = {r, 0};

	r->job_code = s->ops->list_devices(s, &q, show_row, &one, &r->job_err);
	if (r->job_code == OTA_OK && one.found == 0)
		r->job_code =
			ota_fail(&r->job_err, OTA_ENOTFOUND, "no device is called %s", r->args[0]);
	if (r->job_code != OTA_OK)
		return;
	add_live(r, b);
	json_open(b, "attempts", '[');
	q.limit = ATTEMPTS_SHOWN;
	r->job_code = s->ops->list_updates(s, &q, show_attempt, b, &r->job_err);
	json_close(b, ']');
	respond_end(r);
}

enum next device_show(struct request *r)
{
	if (!request_device_id(r, r->args[0]))
		return NEXT_ANSWER;
	return request_job(r, query_device, request_list_done);
}

/* --- why --- */

static void add_considered(struct buf *b, const struct device *d, const struct model *m,
			   const struct decision *chosen)
{
	char sentence[512];
	bool decided = false;

	json_open(b, "considered", '[');
	for (const struct rollout *o = m ? m->rollouts : NULL; o; o = o->next) {
		struct decision x = {
			.reason = decide_rollout(d, o), .release = o->release, .rollout = o};
		if ((decided && x.reason == REASON_UP_TO_DATE) ||
		    (x.reason == REASON_OFFER && chosen->rollout != o))
			x.reason = REASON_NEWER_ROLLOUT_WINS; /* or one that has begun */
		if (chosen->rollout == o) {
			decided = true;
			if (x.reason == REASON_OFFER)
				x = *chosen; /* which knows what holds it up */
		}
		reason_sentence(d, &x, sentence, sizeof sentence);
		json_open(b, NULL, '{');
		json_int(b, "rollout_id", o->id);
		json_str(b, "name", o->name);
		json_str(b, "firmware_version", o->release->version);
		json_str(b, "reason", reason_name(x.reason));
		json_str(b, "sentence", sentence);
		json_close(b, '}');
	}
	json_close(b, ']');
}

static bool is_offline(const struct device *d)
{
	return d->state.link && d->state.link->presence == PRESENCE_OFFLINE;
}

/* It answered none of its commands, and was not heard of since. */
static bool is_silent(const struct device *d)
{
	const struct device_link *l = d->state.link;

	return l && l->silent_us && d->last_seen_us <= l->silent_us;
}

/* The sentence, and what it means for it that the device is not there, or does not answer. */
static void explain_sentence(const struct device *d, const struct decision *x, int64_t now_us,
			     char *out, size_t size)
{
	const struct device_link *l = d->state.link;
	char since[48] = "", lasted[32];
	size_t used;

	reason_sentence(d, x, out, size);
	used = strlen(out);
	if (x->reason == REASON_OFFER && !is_offline(d) && is_silent(d))
		snprintf(out + used, size - used,
			 " Its commands were unanswered; it is told again when it is next seen.");
	if (!is_offline(d))
		return;
	if (l->presence_us) {
		duration_text((now_us - l->presence_us) / US_PER_S, lasted, sizeof lasted);
		snprintf(since, sizeof since, " since %s", lasted);
	}
	if (x->reason == REASON_OFFER)
		snprintf(out, size,
			 "It runs %s and is offered %s by rollout %s; it is offline%s and will be "
			 "told when it connects.",
			 d->state.version[0] ? d->state.version : "an unknown version",
			 x->release->version, x->rollout ? x->rollout->name : "(an ended rollout)",
			 since);
	else if (x->reason == REASON_IN_PROGRESS || x->reason == REASON_INSTALLING ||
		 x->reason == REASON_WAITS || x->reason == REASON_NO_PLACE ||
		 x->reason == REASON_OUTSIDE_WINDOW || x->reason == REASON_RETRY_LATER)
		snprintf(out + used, size - used, " It is offline%s.", since);
}

static void add_time(struct buf *b, const char *key, int64_t us)
{
	char text[TIME_TEXT_SIZE];

	time_format(us, text);
	json_str(b, key, us ? text : NULL);
}

/* Whether it is there, as far as MQTT tells. */
static void explain_presence(struct buf *b, const struct device *d)
{
	const struct device_link *l = d->state.link;

	if (!l || l->presence == PRESENCE_UNKNOWN)
		json_nil(b, "online");
	else
		json_bool(b, "online", l->presence == PRESENCE_ONLINE);
	add_time(b, "offline_since", is_offline(d) ? l->presence_us : 0);
}

/* With the plan and the device's shard held. */
static void write_explanation(struct request *r, const struct device *d)
{
	struct decide_params p = committer_decide_params(r->server->committer);
	const struct model *m =
		d->state.model[0] ? fleet_model(r->server->fleet, d->state.model) : NULL;
	struct decision x = decide(d, m, &p);
	struct buf *b = respond_begin(r, 200);
	char sentence[512];

	explain_sentence(d, &x, p.now_us, sentence, sizeof sentence);
	json_str(b, "device_id", d->device_id);
	json_str(b, "reason", reason_name(x.reason));
	json_str(b, "sentence", sentence);
	json_bool(b, "update_available", decision_offers(&x));
	json_str(b, "current_version", d->state.version[0] ? d->state.version : NULL);
	json_str(b, "device_model", d->state.model[0] ? d->state.model : NULL);
	add_time(b, "last_seen", d->last_seen_us == LAST_SEEN_NEVER_US ? 0 : d->last_seen_us);
	explain_presence(b, d);
	if (x.rollout) {
		json_int(b, "rollout_id", x.rollout->id);
		json_str(b, "rollout", x.rollout->name);
	} else {
		json_nil(b, "rollout_id");
		json_nil(b, "rollout");
	}
	json_str(b, "download_base_url",
		 download_base_find(r->server->cfg->download_bases, &d->state));
	json_str(b, "firmware_version", x.release ? x.release->version : NULL);
	add_considered(b, d, m, &x);
	respond_end(r);
}

enum next device_explain(struct request *r)
{
	if (!request_device_id(r, r->args[0]))
		return NEXT_ANSWER;
	fleet_plan_read(r->server->fleet);
	const struct device *d = fleet_lock_device(r->server->fleet, r->args[0]);
	if (d) {
		write_explanation(r, d);
		fleet_unlock_device(r->server->fleet, d);
	}
	fleet_plan_done(r->server->fleet);
	if (!d)
		return respond_error(r, OTA_ENOTFOUND,
				     "no device is called %s: it has not checked in here yet",
				     r->args[0]);
	return NEXT_ANSWER;
}

/* --- another try, and the end --- */

static enum next after_retry(struct request *r)
{
	if (r->command.code != OTA_OK)
		return respond_err(r, &r->command.err);
	if (r->command.out.count == 0)
		return respond_ok(r, "%s has no failed release to try again", r->args[0]);
	return respond_ok(r, "%s may try again", r->args[0]);
}

enum next device_retry(struct request *r)
{
	if (!request_device_id(r, r->args[0]))
		return NEXT_ANSWER;
	r->command.kind = COMMAND_RETRY;
	r->command.retry.device_id = r->args[0];
	r->command.retry.version = request_name_filter(r, "firmware_version");
	if (!request_reason(r))
		return respond_fields(r);
	return request_submit(r, after_retry);
}

static enum next after_device_delete(struct request *r)
{
	if (r->command.code != OTA_OK)
		return respond_err(r, &r->command.err);
	return respond_ok(r, "device %s is deleted; what it did stays in the records", r->args[0]);
}

enum next device_delete(struct request *r)
{
	if (!request_device_id(r, r->args[0]))
		return NEXT_ANSWER;
	r->command.kind = COMMAND_DEVICE_DELETE;
	r->command.device_delete.device_id = r->args[0];
	if (!request_reason(r))
		return respond_fields(r);
	return request_submit(r, after_device_delete);
}
