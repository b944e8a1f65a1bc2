/* SPDX-License-Identifier: MIT */
#include "fleet/intern.h"

#include "base/hash.h"

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct entry {
	struct entry *next;
	uint64_t hash;
	size_t refs;
	char text[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct entry **buckets;
static size_t bucket_count, entry_count;
static const char empty[] = "";

static struct entry *entry_of(const char *interned)
{
	return (struct entry *)(void *)((char *)(uintptr_t)interned - offsetof(struct entry, text));
}

static void grow(void)
{
	size_t n = bucket_count ? bucket_count * 2 : 256;
	struct entry **more = calloc(n, sizeof *more);

	if (!more)
		return; /* longer chains, nothing worse */
	for (size_t i = 0; i < bucket_count; i++)
		for (struct entry *e = buckets[i], *next; e; e = next) {
			next = e->next;
			e->next = more[e->hash & (n - 1)];
			more[e->hash & (n - 1)] = e;
		}
	free(buckets);
	buckets = more;
	bucket_count = n;
}

static struct entry *find_or_add(const char *s)
{
	size_t len = strlen(s);
	uint64_t h = hash64(s, len);

	if (entry_count >= bucket_count)
		grow();
	if (bucket_count == 0)
		return NULL;
	struct entry **slot = &buckets[h & (bucket_count - 1)];
	for (struct entry *e = *slot; e; e = e->next)
		if (e->hash == h && strcmp(e->text, s) == 0) {
			e->refs++;
			return e;
		}
	struct entry *e = malloc(sizeof *e + len + 1);
	if (!e)
		return NULL;
	*e = (struct entry){.next = *slot, .hash = h, .refs = 1};
	memcpy(e->text, s, len + 1);
	*slot = e;
	entry_count++;
	return e;
}

const char *intern_get(const char *s)
{
	if (!s[0])
		return empty;
	pthread_mutex_lock(&lock);
	struct entry *e = find_or_add(s);
	pthread_mutex_unlock(&lock);
	return e ? e->text : NULL;
}

const char *intern_ref(const char *interned)
{
	if (!interned[0])
		return empty;
	pthread_mutex_lock(&lock);
	entry_of(interned)->refs++;
	pthread_mutex_unlock(&lock);
	return interned;
}

void intern_put(const char *interned)
{
	if (!interned || !interned[0])
		return;
	struct entry *e = entry_of(interned), *dead = NULL;
	pthread_mutex_lock(&lock);
	if (--e->refs == 0) {
		struct entry **p = &buckets[e->hash & (bucket_count - 1)];
		while (*p != e)
			p = &(*p)->next;
		*p = e->next;
		entry_count--;
		dead = e;
		if (entry_count == 0) { /* so that nothing is left when the last user is gone */
			free(buckets);
			buckets = NULL;
			bucket_count = 0;
		}
	}
	pthread_mutex_unlock(&lock);
	free(dead);
}

size_t intern_count(void)
{
	pthread_mutex_lock(&lock);
	size_t n = entry_count;
	pthread_mutex_unlock(&lock);
	return n;
}
