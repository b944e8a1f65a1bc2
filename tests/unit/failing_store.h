/* SPDX-License-Identifier: MIT */
/* A store in front of another that fails its next commit, or all of them, or refuses what writes
 * one device. */
#pragma once

#include "commit_bench.h"

#include <stdatomic.h>

struct failing_store {
	struct store base;
	struct store *inner;
	struct store_ops ops;
};

static atomic_int commits_until_failure; /* 0: works; 1: the next fails, and so on */
static atomic_int failures_in_all;       /* how many fail then; -1: until told otherwise */
static const char *refused_device;       /* the group that writes it is refused */

static struct failing_store *failing(struct store *s)
{
	return (struct failing_store *)s;
}

static void failing_close(struct store **s)
{
	struct failing_store *f = failing(*s);

	f->inner->ops->close(&f->inner);
	free(f);
	*s = NULL;
}

static enum ota_code failing_load(struct store *s, const struct store_loader *l,
				  struct ota_err *err)
{
	return failing(s)->inner->ops->load(failing(s)->inner, l, err);
}

static int64_t failing_next_id(struct store *s, enum id_kind kind)
{
	return failing(s)->inner->ops->next_id(failing(s)->inner, kind);
}

static enum ota_code failing_find(struct store *s, const char *token, const char *device_id,
				  const char *version, struct stored_attempt *out,
				  struct ota_err *err)
{
	return failing(s)->inner->ops->find_attempt(failing(s)->inner, token, device_id, version,
						    out, err);
}

static enum ota_code failing_gate_events(struct store *s, int64_t release_id,
					 enum ota_code (*visit)(void *, const struct row_event *,
								struct ota_err *),
					 void *ctx, struct ota_err *err)
{
	return failing(s)->inner->ops->gate_events(failing(s)->inner, release_id, visit, ctx, err);
}

static enum ota_code failing_events(struct store *s, const struct list_query *q,
				    bool (*visit)(void *, const struct row_event *), void *ctx,
				    struct ota_err *err)
{
	return failing(s)->inner->ops->list_events(failing(s)->inner, q, visit, ctx, err);
}

static enum ota_code failing_find_alert(struct store *s, int64_t id, struct stored_alert *out,
					struct ota_err *err)
{
	return failing(s)->inner->ops->find_alert(failing(s)->inner, id, out, err);
}

static enum ota_code failing_alerts(struct store *s, const struct list_query *q,
				    bool (*visit)(void *, const struct row_alert *), void *ctx,
				    struct ota_err *err)
{
	return failing(s)->inner->ops->list_alerts(failing(s)->inner, q, visit, ctx, err);
}

static enum ota_code failing_webhooks(struct store *s, const struct webhook_query *q,
				      bool (*visit)(void *, const struct row_webhook *), void *ctx,
				      struct ota_err *err)
{
	return failing(s)->inner->ops->list_webhooks(failing(s)->inner, q, visit, ctx, err);
}

static enum ota_code failing_updates(struct store *s, const struct list_query *q,
				     bool (*visit)(void *, const struct row_update *), void *ctx,
				     struct ota_err *err)
{
	return failing(s)->inner->ops->list_updates(failing(s)->inner, q, visit, ctx, err);
}

static enum ota_code failing_devices(struct store *s, const struct list_query *q,
				     bool (*visit)(void *, const struct row_device *), void *ctx,
				     struct ota_err *err)
{
	return failing(s)->inner->ops->list_devices(failing(s)->inner, q, visit, ctx, err);
}

static enum ota_code failing_counts(struct store *s, int64_t rollout_id, struct attempt_counts *out,
				    struct ota_err *err)
{
	return failing(s)->inner->ops->rollout_counts(failing(s)->inner, rollout_id, out, err);
}

static bool group_is_refused(const struct change_batch *b, const struct change_group *g)
{
	for (size_t i = g->first; refused_device && i < g->first + g->count; i++)
		if (b->changes[i].kind == CHANGE_DEVICE_PUT &&
		    strcmp(b->changes[i].device.device->device_id, refused_device) == 0)
			return true;
	return false;
}

static enum ota_code failing_commit(struct store *s, struct change_batch *b, struct ota_err *err)
{
	struct store *inner = failing(s)->inner;
	size_t kept = 0;

	if (atomic_load(&commits_until_failure) > 0 &&
	    atomic_fetch_sub(&commits_until_failure, 1) == 1) {
		if (atomic_load(&failures_in_all) < 0 || atomic_fetch_sub(&failures_in_all, 1) > 1)
			atomic_store(&commits_until_failure, 1);
		return ota_fail(err, OTA_EIO, "the disk is on fire");
	}
	/* Refused groups are taken out, as the database does it, and marked. */
	struct change_group *all = calloc(b->group_count + 1, sizeof *all);
	if (!all)
		return ota_fail_nomem(err);
	for (size_t i = 0; i < b->group_count; i++)
		if (!group_is_refused(b, &b->groups[i]))
			all[kept++] = b->groups[i];
	struct change_batch rest = *b;
	rest.groups = all;
	rest.group_count = kept;
	enum ota_code rc =
		kept > 0 || b->group_count == 0 ? inner->ops->commit(inner, &rest, err) : OTA_OK;
	kept = 0;
	for (size_t i = 0; i < b->group_count; i++) {
		if (group_is_refused(b, &b->groups[i]))
			b->groups[i].result = ota_fail(&b->groups[i].err, OTA_ECONFLICT, "refused");
		else
			b->groups[i] = all[kept++];
	}
	free(all);
	return rc;
}

static struct store *wrap_failing(struct store *inner)
{
	struct failing_store *f = calloc(1, sizeof *f);

	assert_non_null(f);
	f->inner = inner;
	f->ops = *inner->ops;
	f->ops.close = failing_close;
	f->ops.load = failing_load;
	f->ops.commit = failing_commit;
	f->ops.next_id = failing_next_id;
	f->ops.find_attempt = failing_find;
	f->ops.list_events = failing_events;
	f->ops.gate_events = failing_gate_events;
	f->ops.find_alert = failing_find_alert;
	f->ops.list_alerts = failing_alerts;
	f->ops.list_webhooks = failing_webhooks;
	f->ops.list_updates = failing_updates;
	f->ops.list_devices = failing_devices;
	f->ops.rollout_counts = failing_counts;
	f->base.ops = &f->ops;
	return &f->base;
}
