/* SPDX-License-Identifier: MIT */
#include "fleet/state.h"

#include "fleet/intern.h"

#include <stdlib.h>
#include <string.h>

/* The state's members are const for readers; the owner frees them. */
static void free_const(const void *p)
{
	free((void *)(uintptr_t)p);
}

void state_init(struct device_state *s)
{
	*s = (struct device_state){
		.model = "", .version = "", .hw = "", .ran_as = "", .ran_from = ""};
}

static void attempt_free(const struct attempt *a)
{
	if (!a)
		return;
	intern_put(a->version);
	intern_put(a->from_version);
	free_const(a);
}

static void link_free(const struct device_link *l)
{
	if (!l)
		return;
	intern_put(l->site);
	intern_put(l->other_site);
	free_const(l);
}

void state_fini(struct device_state *s)
{
	intern_put(s->model);
	intern_put(s->version);
	intern_put(s->hw);
	intern_put(s->ran_as);
	intern_put(s->ran_from);
	free_const(s->digests);
	free_const(s->failures);
	attempt_free(s->attempt);
	struct string_list *groups = (struct string_list *)(uintptr_t)s->groups;
	string_list_free(&groups);
	link_free(s->link);
	state_init(s);
}

static bool copy_groups(struct device_state *dst, const struct string_list *src)
{
	size_t bytes = sizeof *src + src->count * sizeof src->items[0];
	struct string_list *l = malloc(bytes);

	if (!l)
		return false;
	memcpy(l, src, bytes);
	for (size_t i = 0; i < l->count; i++)
		intern_ref(l->items[i]);
	dst->groups = l;
	return true;
}

static size_t failures_len(const struct failure_count *f)
{
	size_t n = 0;

	while (f && f[n].release_id)
		n++;
	return n;
}

static bool copy_failures(struct device_state *dst, const struct failure_count *src)
{
	size_t bytes = (failures_len(src) + 1) * sizeof *src;
	struct failure_count *f = malloc(bytes);

	if (!f)
		return false;
	memcpy(f, src, bytes);
	dst->failures = f;
	return true;
}

bool state_copy(struct device_state *dst, const struct device_state *src)
{
	*dst = *src;
	dst->digests = NULL;
	dst->failures = NULL;
	dst->attempt = NULL;
	dst->groups = NULL;
	dst->link = NULL;
	intern_ref(dst->model);
	intern_ref(dst->version);
	intern_ref(dst->hw);
	intern_ref(dst->ran_as);
	intern_ref(dst->ran_from);
	if ((src->digests && !state_set_digests(dst, src->digests)) ||
	    (src->failures && !copy_failures(dst, src->failures)) ||
	    (src->attempt && !state_set_attempt(dst, src->attempt)) ||
	    (src->groups && !copy_groups(dst, src->groups)) ||
	    (src->link && !state_set_link(dst, src->link))) {
		state_fini(dst);
		return false;
	}
	return true;
}

bool state_set_string(const char **field, const char *value)
{
	const char *s;

	if (*field && strcmp(*field, value) == 0)
		return true;
	s = intern_get(value);
	if (!s)
		return false;
	intern_put(*field);
	*field = s;
	return true;
}

bool state_set_version(struct device_state *s, const char *version)
{
	if (strcmp(s->version, version) == 0)
		return true;
	if (!state_set_string(&s->version, version))
		return false;
	free_const(s->digests);
	s->digests = NULL;
	return true;
}

bool state_set_digests(struct device_state *s, const struct device_digests *told)
{
	struct device_digests *g;

	if (!told->has_firmware && !told->has_elf)
		return true;
	g = calloc(1, sizeof *g);
	if (!g)
		return false;
	if (s->digests)
		*g = *s->digests;
	if (told->has_firmware) {
		g->has_firmware = true;
		memcpy(g->firmware, told->firmware, DIGEST_SIZE);
	}
	if (told->has_elf) {
		g->has_elf = true;
		memcpy(g->elf, told->elf, DIGEST_SIZE);
	}
	free_const(s->digests);
	s->digests = g;
	return true;
}

bool state_set_attempt(struct device_state *s, const struct attempt *a)
{
	struct attempt *copy = NULL;

	if (a) {
		copy = malloc(sizeof *copy);
		if (!copy)
			return false;
		*copy = *a;
		copy->version = intern_get(a->version);
		copy->from_version = intern_get(a->from_version);
		if (!copy->version || !copy->from_version) {
			attempt_free(copy);
			return false;
		}
	}
	attempt_free(s->attempt);
	s->attempt = copy;
	return true;
}

bool state_set_link(struct device_state *s, const struct device_link *l)
{
	struct device_link *copy = malloc(sizeof *copy);

	if (!copy)
		return false;
	*copy = *l;
	copy->site = intern_get(l->site);
	copy->other_site = intern_get(l->other_site);
	if (!copy->site || !copy->other_site) {
		link_free(copy);
		return false;
	}
	link_free(s->link);
	s->link = copy;
	return true;
}

struct failure_count state_failures(const struct device_state *s, int64_t release_id)
{
	for (const struct failure_count *f = s->failures; f && f->release_id; f++)
		if (f->release_id == release_id)
			return *f;
	return (struct failure_count){.release_id = release_id};
}

bool state_set_failures(struct device_state *s, const struct failure_count *put)
{
	size_t n = failures_len(s->failures), kept = 0;
	struct failure_count *f = calloc(n + 2, sizeof *f);

	if (!f)
		return false;
	for (size_t i = 0; i < n; i++)
		if (s->failures[i].release_id != put->release_id)
			f[kept++] = s->failures[i];
	if (put->count + put->passing > 0)
		f[kept++] = *put;
	free_const(s->failures);
	s->failures = f;
	if (kept == 0) {
		free(f);
		s->failures = NULL;
	}
	return true;
}

bool state_set_groups(struct device_state *s, const char *const *names, size_t count)
{
	struct string_list *l = NULL, *old = (struct string_list *)(uintptr_t)s->groups;

	if (count > 0 && !(l = string_list_new(names, count)))
		return false;
	string_list_free(&old);
	s->groups = l;
	return true;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

struct string_list *string_list_new(const char *const *names, size_t count)
{
	struct string_list *l = malloc(sizeof *l + count * sizeof l->items[0]);
	size_t kept = 0;

	if (!l)
		return NULL;
	l->count = 0;
	for (size_t i = 0; i < count; i++) {
		l->items[i] = intern_get(names[i]);
		if (!l->items[i]) {
			string_list_free(&l);
			return NULL;
		}
		l->count++;
	}
	qsort(l->items, l->count, sizeof l->items[0], compare_names);
	for (size_t i = 0; i < l->count; i++) {
		if (kept > 0 && strcmp(l->items[kept - 1], l->items[i]) == 0)
			intern_put(l->items[i]);
		else
			l->items[kept++] = l->items[i];
	}
	l->count = kept;
	return l;
}

void string_list_free(struct string_list **list)
{
	if (!*list)
		return;
	for (size_t i = 0; i < (*list)->count; i++)
		intern_put((*list)->items[i]);
	free(*list);
	*list = NULL;
}
