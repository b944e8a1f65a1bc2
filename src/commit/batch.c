/* SPDX-License-Identifier: MIT */
#include "commit/gates.h"

#include "base/clock.h"
#include "fleet/intern.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_SIZE 16384

struct chunk {
	struct chunk *next;
	size_t used, size;
	_Alignas(16) char bytes[];
};

void batch_reset(struct batch *b)
{
	for (struct chunk *c = b->memory, *next; c; c = next) {
		next = c->next;
		free(c);
	}
	b->memory = NULL;
	b->store.change_count = 0;
	b->store.group_count = 0;
	b->added = 0;
}

void *batch_alloc(struct batch *b, size_t size)
{
	size = (size + 15) & ~(size_t)15;
	if (!b->memory || b->memory->size - b->memory->used < size) {
		size_t n = size > CHUNK_SIZE ? size : CHUNK_SIZE;
		struct chunk *c = malloc(sizeof *c + n);
		if (!c)
			return NULL;
		*c = (struct chunk){.next = b->memory, .used = 0, .size = n};
		b->memory = c;
	}
	void *p = b->memory->bytes + b->memory->used;
	b->memory->used += size;
	return p;
}

char *batch_strdup(struct batch *b, const char *s)
{
	size_t n = strlen(s) + 1;
	char *p = batch_alloc(b, n);

	if (p)
		memcpy(p, s, n);
	return p;
}

char *batch_printf(struct batch *b, const char *fmt, ...)
{
	va_list ap, again;

	va_start(ap, fmt);
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	char *p = n < 0 ? NULL : batch_alloc(b, (size_t)n + 1);
	if (p)
		vsnprintf(p, (size_t)n + 1, fmt, again);
	va_end(again);
	va_end(ap);
	return p;
}

struct change *batch_change(struct batch *b, enum change_kind kind)
{
	if (b->store.change_count == b->change_cap) {
		size_t cap = b->change_cap ? b->change_cap * 2 : 256;
		struct change *p = realloc(b->store.changes, cap * sizeof *p);
		if (!p)
			return NULL;
		b->store.changes = p;
		b->change_cap = cap;
	}
	struct change *c = &b->store.changes[b->store.change_count++];
	memset(c, 0, sizeof *c);
	c->kind = kind;
	return c;
}

bool batch_event(struct batch *b, const char *type, const char *device_id, const char *version,
		 int64_t rollout_id, const char *data_json)
{
	struct change *c = batch_change(b, CHANGE_EVENT);

	if (!c)
		return false;
	c->event.type = type;
	c->event.device_id = device_id;
	c->event.version = version && version[0] ? version : NULL;
	c->event.rollout_id = rollout_id;
	c->event.data = data_json;
	c->event.created_by = b->by;
	c->event.created_us = b->now_us;
	return true;
}

enum prepared prepare_fail(struct command *cmd, enum ota_code code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	cmd->code = cmd->err.code = code;
	vsnprintf(cmd->err.msg, sizeof cmd->err.msg, fmt, ap);
	va_end(ap);
	return PREPARED_FAIL;
}

enum prepared prepare_fail_nomem(struct command *cmd)
{
	cmd->code = ota_fail_nomem(&cmd->err);
	return PREPARED_FAIL;
}

static struct device_work *add_work(struct committer *c, struct command *cmd, struct device *d)
{
	struct device_work *w = batch_alloc(&c->batch, sizeof *w);

	if (!w)
		return NULL;
	memset(w, 0, sizeof *w);
	w->device = d;
	if (!state_copy(&w->next, &d->state))
		return NULL;
	w->link = cmd->devices;
	cmd->devices = w;
	d->batch = c->batch.number;
	return w;
}

struct device_work *work_on_device(struct committer *c, struct command *cmd, struct device *d,
				   bool *defer)
{
	*defer = d->batch == c->batch.number;
	return *defer ? NULL : add_work(c, cmd, d);
}

/* A device more?  Fails the command when there are too many, or too many at once. */
static bool may_register(struct committer *c, struct command *cmd)
{
	int64_t now_ms = clock_mono_ms();
	double rate = (double)c->cfg.new_devices_per_second;

	if (fleet_device_count(c->fleet) + c->batch.added >= (size_t)c->cfg.max_devices) {
		prepare_fail(cmd, OTA_EUNAVAIL,
			     "this service is full: it has the %lld devices it may have "
			     "(OTA_MAX_DEVICES)",
			     (long long)c->cfg.max_devices);
		cmd->retry_after_s = 3600;
		cmd->over_limit = true;
		return false;
	}
	c->new_device_tokens += (double)(now_ms - c->new_device_filled_ms) / 1000.0 * rate;
	c->new_device_filled_ms = now_ms;
	if (c->new_device_tokens > rate)
		c->new_device_tokens = rate;
	if (c->new_device_tokens < 1) {
		prepare_fail(cmd, OTA_EUNAVAIL,
			     "too many new devices at once; come again in a moment "
			     "(OTA_NEW_DEVICES_PER_SECOND is %lld)",
			     (long long)c->cfg.new_devices_per_second);
		cmd->retry_after_s = 5;
		cmd->over_limit = true;
		return false;
	}
	c->new_device_tokens -= 1;
	return true;
}

struct device_work *work_on_new_device(struct committer *c, struct command *cmd,
				       const char *device_id)
{
	if (!may_register(c, cmd))
		return NULL;
	struct device *d = fleet_add(c->fleet, device_id,
				     c->store->ops->next_id(c->store, ID_DEVICE), c->batch.now_us);
	struct device_work *w = d ? add_work(c, cmd, d) : NULL;
	if (!w) {
		if (d)
			fleet_remove(c->fleet, d);
		prepare_fail_nomem(cmd);
		return NULL;
	}
	w->added = true;
	c->batch.added++;
	return w;
}

static void plan_undo(struct plan_work *p)
{
	for (; p; p = p->next) {
		release_free(&p->new_release);
		rollout_free(&p->new_rollout);
		if (p->rollout)
			intern_put(p->walk.reason);
		free(p->stop_reason);
		group_window_free(&p->group_window);
	}
}

void work_undo(struct committer *c, struct command *cmd)
{
	for (struct device_work *w = cmd->devices; w; w = w->link) {
		state_fini(&w->next);
		string_list_free(&w->learnt);
		if (w->added) {
			fleet_remove(c->fleet, w->device);
			c->batch.added--;
		} else {
			w->device->batch = 0;
			fleet_mark_seen(c->fleet, w->device); /* heard of, and not written */
		}
	}
	cmd->devices = NULL;
	plan_undo(cmd->plan);
	cmd->plan = NULL;
	gates_undo(c, cmd);
}

bool put_device(struct committer *c, struct device_work *w)
{
	struct change *ch = batch_change(&c->batch, CHANGE_DEVICE_PUT);

	if (!ch)
		return false;
	ch->device.device = w->device;
	ch->device.state = &w->next;
	ch->device.same = !w->added && strcmp(w->device->state.model, w->next.model) == 0;
	return true;
}
