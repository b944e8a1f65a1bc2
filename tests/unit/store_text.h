/* SPDX-License-Identifier: MIT */
/* Attempts to write; and what load() finds, as text that is the same from every back end. */
#pragma once

#include "store_bench.h"

static struct attempt attempt_of(int64_t id, enum attempt_state s, const char *token)
{
	struct attempt a = {.id = id,
			    .release_id = 1,
			    .rollout_id = 1,
			    .state = s,
			    .percent = -1,
			    .opened_us = T0,
			    .reported_us = T0 + id,
			    .version = "2.0.0",
			    .from_version = "1"};

	strcpy(a.token, token);
	return a;
}

static void put_attempt(struct batch_of *x, enum change_kind kind, const char *device,
			const struct attempt *a)
{
	struct change *c = add(x, kind);

	c->attempt.device_id = device;
	c->attempt.attempt = a;
	if (!attempt_is_open(a->state))
		c->attempt.completed_us = a->reported_us;
}

static enum ota_code got_release(void *ctx, const struct row_release *r, const char *deleted,
				 struct ota_err *err)
{
	(void)err;
	buf_printf(ctx,
		   "release %lld %s %s min=%s size=%lld sha=%.8s notes=%s at=%s meta=%s learnt=%s "
		   "deleted=%s\n",
		   (long long)r->id, r->version, r->device_model,
		   r->min_version ? r->min_version : "-", (long long)r->file_size, r->sha256,
		   r->release_notes ? r->release_notes : "-", r->created_at, r->metadata,
		   r->learnt ? r->learnt : "-", deleted ? deleted : "-");
	return OTA_OK;
}

static enum ota_code got_rollout(void *ctx, const struct row_rollout *r, struct ota_err *err)
{
	(void)err;
	buf_printf(ctx,
		   "rollout %lld %s release=%lld %s %s %d%% active=%d down=%d max=%d at=%s meta=%s"
		   " %s since=%s why=%s stage=%d since=%s held=%lld approved=%d of %s from=%s to=%s"
		   " priority=%d requires=%s\n",
		   (long long)r->id, r->name, (long long)r->release_id, r->target_type,
		   r->target_filter, r->percent, r->active, r->allow_downgrade, r->max_attempts,
		   r->created_at, r->metadata, r->state, r->state_since,
		   r->state_reason ? r->state_reason : "-", r->stage,
		   r->stage_since ? r->stage_since : "-", (long long)r->held_us, r->approved,
		   r->stages, r->not_before ? r->not_before : "-", r->deadline ? r->deadline : "-",
		   r->priority, r->requires ? r->requires : "-");
	return OTA_OK;
}

static enum ota_code got_device(void *ctx, const struct row_device *r, const struct device_state *s,
				struct ota_err *err)
{
	(void)err;
	buf_printf(ctx,
		   "device %lld %s seen=%s made=%s model=%s version=%s hw=%s booted=%lld "
		   "bootseen=%lld boot=%llx"
		   " mac=%llx ran=%lld as=%s from=%s digests=%d%d %02x%02x\n",
		   (long long)r->id, r->device_id, r->last_seen, r->created_at, s->model,
		   s->version, s->hw, (long long)s->booted_us, (long long)s->boot_seen_us,
		   (unsigned long long)s->boot_hash, (unsigned long long)s->mac,
		   (long long)s->ran_release_id, s->ran_as, s->ran_from, s->digests && s->digests->has_firmware,
		   s->digests && s->digests->has_elf, s->digests ? s->digests->firmware[0] : 0,
		   s->digests ? s->digests->elf[31] : 0);
	return OTA_OK;
}

static enum ota_code got_group(void *ctx, const char *device, const char *group,
			       struct ota_err *err)
{
	(void)err;
	buf_printf(ctx, "group %s %s\n", device, group);
	return OTA_OK;
}

static enum ota_code got_failures(void *ctx, const char *device, const struct failure_count *f,
				  struct ota_err *err)
{
	(void)err;
	buf_printf(ctx, "failures %s %lld %d %d %d\n", device, (long long)f->release_id, f->count,
		   f->passing, f->code);
	return OTA_OK;
}

static enum ota_code got_attempt(void *ctx, const char *device, const struct attempt *a,
				 struct ota_err *err)
{
	(void)err;
	buf_printf(ctx,
		   "attempt %lld %s %s %d%% release=%lld rollout=%lld opened=%lld reported=%lld "
		   "installing=%lld"
		   " %s<-%s %s settled=%d\n",
		   (long long)a->id, device, attempt_state_name(a->state), a->percent,
		   (long long)a->release_id, (long long)a->rollout_id, (long long)a->opened_us,
		   (long long)a->reported_us, (long long)a->installing_us, a->version,
		   a->from_version, a->token, a->settled);
	return OTA_OK;
}

/* jsonb comes back with a blank after each colon. */
static char *squeezed(char *text)
{
	char *to = text;

	for (const char *from = text; *from; from++)
		if (!(*from == ' ' && to > text + 1 && to[-1] == ':' && to[-2] == '"'))
			*to++ = *from;
	*to = '\0';
	return text;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Lines of a kind come in no order that is promised. */
static char *sorted_kinds(char *text)
{
	struct buf b = BUF_INIT;
	char *lines[64];
	size_t n = 0, first = 0;

	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		lines[n++] = line;
	for (size_t i = 1; i <= n; i++)
		if (i == n || strncmp(lines[i], lines[first], strcspn(lines[i], " ")) != 0) {
			qsort(lines + first, i - first, sizeof *lines, by_text);
			first = i;
		}
	for (size_t i = 0; i < n; i++)
		buf_printf(&b, "%s\n", lines[i]);
	free(text);
	return buf_take(&b, NULL);
}

static char *load_text(struct place *p)
{
	struct buf b = BUF_INIT;
	struct ota_err err;
	const struct store_loader l = {.ctx = &b,
				       .release = got_release,
				       .rollout = got_rollout,
				       .device = got_device,
				       .group = got_group,
				       .failures = got_failures,
				       .attempt = got_attempt};

	buf_adds(&b, "");
	assert_int_equal(p->s->ops->load(p->s, &l, &err), OTA_OK);
	return sorted_kinds(squeezed(buf_take(&b, NULL)));
}
