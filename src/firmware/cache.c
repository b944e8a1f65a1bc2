/* SPDX-License-Identifier: MIT */
#include "firmware/cache.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct image_cache {
	struct blob_store *blobs;
	uint64_t max_bytes;
	pthread_mutex_t lock;
	struct cached_image *newest, *oldest;
	uint64_t bytes; /* of listed images */
};

struct image_cache *cache_new(struct blob_store *blobs, uint64_t max_bytes)
{
	struct image_cache *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	c->blobs = blobs;
	c->max_bytes = max_bytes;
	pthread_mutex_init(&c->lock, NULL);
	return c;
}

static void image_free(struct cached_image *i)
{
	free(i->data);
	free(i);
}

void cache_free(struct image_cache **cp)
{
	struct image_cache *c = *cp;

	if (!c)
		return;
	for (struct cached_image *i = c->newest, *older; i; i = older) {
		older = i->older;
		image_free(i);
	}
	pthread_mutex_destroy(&c->lock);
	free(c);
	*cp = NULL;
}

bool cache_takes(const struct image_cache *c, uint64_t size)
{
	return size <= c->max_bytes / 2;
}

static void unlist(struct image_cache *c, struct cached_image *i)
{
	*(i->newer ? &i->newer->older : &c->newest) = i->older;
	*(i->older ? &i->older->newer : &c->oldest) = i->newer;
	i->newer = i->older = NULL;
	i->listed = false;
	c->bytes -= i->size;
}

static void list_newest(struct image_cache *c, struct cached_image *i)
{
	i->older = c->newest;
	i->newer = NULL;
	*(c->newest ? &c->newest->newer : &c->oldest) = i;
	c->newest = i;
	i->listed = true;
	c->bytes += i->size;
}

static struct cached_image *find(struct image_cache *c, const uint8_t sha256[SHA256_SIZE])
{
	for (struct cached_image *i = c->newest; i; i = i->older)
		if (memcmp(i->sha256, sha256, SHA256_SIZE) == 0)
			return i;
	return NULL;
}

struct cached_image *cache_get(struct image_cache *c, const uint8_t sha256[SHA256_SIZE])
{
	pthread_mutex_lock(&c->lock);
	struct cached_image *i = find(c, sha256);
	if (i) {
		i->refs++;
		if (c->newest != i) {
			unlist(c, i);
			list_newest(c, i);
		}
	}
	pthread_mutex_unlock(&c->lock);
	return i;
}

static enum ota_code read_whole(int fd, char *data, size_t size, struct ota_err *err)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = read(fd, data + done, size - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return ota_fail_errno(err, n < 0 ? errno : EIO, "reading an image file");
		done += (size_t)n;
	}
	return OTA_OK;
}

static enum ota_code load(struct image_cache *c, const uint8_t sha256[SHA256_SIZE],
			  struct cached_image **out, struct ota_err *err)
{
	struct cached_image *i = calloc(1, sizeof *i);
	uint8_t found[SHA256_SIZE];
	uint64_t size;
	int fd;

	if (!i)
		return ota_fail_nomem(err);
	enum ota_code rc = blob_open(c->blobs, sha256, &fd, &size, err);
	if (rc != OTA_OK) {
		free(i);
		return rc;
	}
	i->size = (size_t)size;
	i->data = malloc(i->size ? i->size : 1);
	rc = i->data ? read_whole(fd, i->data, i->size, err) : ota_fail_nomem(err);
	close(fd);
	if (rc == OTA_OK && !sha256_once(i->data, i->size, found))
		rc = ota_fail_nomem(err);
	if (rc == OTA_OK && memcmp(found, sha256, SHA256_SIZE) != 0) {
		char name[BLOB_NAME_SIZE];
		blob_name(sha256, name);
		rc = ota_fail(
			err, OTA_EIO,
			"the image file %s/%s is damaged: its bytes are not what was uploaded; "
			"upload it again",
			blob_store_dir(c->blobs), name);
	}
	if (rc != OTA_OK) {
		image_free(i);
		return rc;
	}
	memcpy(i->sha256, sha256, SHA256_SIZE);
	*out = i;
	return OTA_OK;
}

/* Lets the least recently used go until NEED more bytes fit. */
static void make_room(struct image_cache *c, uint64_t need)
{
	while (c->oldest && c->bytes + need > c->max_bytes) {
		struct cached_image *i = c->oldest;
		unlist(c, i);
		if (i->refs == 0)
			image_free(i);
	}
}

enum ota_code cache_load(struct image_cache *c, const uint8_t sha256[SHA256_SIZE],
			 struct cached_image **out, struct ota_err *err)
{
	struct cached_image *mine = NULL, *theirs = cache_get(c, sha256);

	if (theirs) {
		*out = theirs;
		return OTA_OK;
	}
	enum ota_code rc = load(c, sha256, &mine, err);
	if (rc != OTA_OK)
		return rc;
	pthread_mutex_lock(&c->lock);
	theirs = find(c, sha256); /* somebody was as quick */
	if (theirs) {
		theirs->refs++;
	} else {
		make_room(c, mine->size);
		list_newest(c, mine);
		mine->refs = 1;
	}
	pthread_mutex_unlock(&c->lock);
	if (theirs)
		image_free(mine);
	*out = theirs ? theirs : mine;
	return OTA_OK;
}

void cache_put(struct image_cache *c, struct cached_image *i)
{
	pthread_mutex_lock(&c->lock);
	bool dead = --i->refs == 0 && !i->listed;
	pthread_mutex_unlock(&c->lock);
	if (dead)
		image_free(i);
}
