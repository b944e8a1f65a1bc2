/* SPDX-License-Identifier: MIT */
#include "http/relay_images.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OPENERS 2

struct relay_images {
	struct blob_store *blobs;
	struct image_cache *cache;
	struct mirror *mirror; /* NULL: the folder is shared */
	struct jobs *openers;
};

/* --- opening one, on a thread of ours --- */

static void load(struct job *job)
{
	struct relay_image *i = (struct relay_image *)(void *)job;
	struct relay_images *s = i->from;
	uint64_t size = i->size;

	if (cache_takes(s->cache, i->size))
		i->code = cache_load(s->cache, i->sha256, &i->image, &i->err);
	else
		i->code = blob_open(s->blobs, i->sha256, &i->fd, &size, &i->err);
	if (i->code == OTA_OK && (i->image ? i->image->size : size) != i->size)
		i->code = ota_fail(&i->err, OTA_EIO, "the image file has another size");
	/* What is in memory, or open, may leave the folder. */
	if (s->mirror)
		mirror_unpin(s->mirror, &i->pinned);
	i->done(i->owner);
}

static void on_fetched(struct mirror_wait *w)
{
	struct relay_image *i =
		(struct relay_image *)(void *)((char *)w - offsetof(struct relay_image, wait));

	i->pinned = w->file;
	i->code = w->code;
	if (w->code == OTA_OK) {
		jobs_submit(i->from->openers, &i->job);
		return;
	}
	i->err = w->err;
	i->done(i->owner);
}

bool relay_image_read(struct relay_image *i, const struct buf *headers)
{
	const char *told = relay_header_find(headers, IMAGE_TOLD);
	char hex[SHA256_HEX_SIZE];
	int end = 0;

	if (!told ||
	    sscanf(told, "%64s %" SCNu64 " %" SCNu64 " %" SCNu64 "%n", hex, &i->first, &i->length,
		   &i->size, &end) != 4 ||
	    told[end] != '\0')
		return false;
	return hex_decode(hex, i->sha256, SHA256_SIZE) && i->length > 0 && i->first < i->size &&
	       i->length <= i->size - i->first;
}

void relay_image_open(struct relay_images *s, struct relay_image *i)
{
	i->from = s;
	i->fd = -1;
	i->code = OTA_OK;
	i->job.fn = load;
	if ((i->image = cache_get(s->cache, i->sha256))) {
		i->done(i->owner);
		return;
	}
	if (!s->mirror || (i->pinned = mirror_pin(s->mirror, i->sha256))) {
		jobs_submit(s->openers, &i->job);
		return;
	}
	i->wait = (struct mirror_wait){.size = i->size, .done = on_fetched};
	memcpy(i->wait.sha256, i->sha256, SHA256_SIZE);
	mirror_fetch(s->mirror, &i->wait);
}

/* --- sending it --- */

struct held {
	struct image_cache *cache;
	struct cached_image *image;
};

static void let_go(void *cls)
{
	struct held *h = cls;

	cache_put(h->cache, h->image);
	free(h);
}

struct MHD_Response *relay_image_response(struct relay_image *i)
{
	struct MHD_Response *m;

	if (!i->image) {
		m = MHD_create_response_from_fd_at_offset64(i->length, i->fd, i->first);
		if (m)
			i->fd = -1; /* the response closes it */
		return m;
	}
	struct held *h = malloc(sizeof *h);
	if (!h)
		return NULL;
	*h = (struct held){i->from->cache, i->image};
	m = MHD_create_response_from_buffer_with_free_callback_cls(
		(size_t)i->length, i->image->data + i->first, let_go, h);
	if (m)
		i->image = NULL; /* the response's */
	else
		free(h);
	return m;
}

void relay_image_end(struct relay_image *i)
{
	if (!i->from)
		return;
	if (i->image)
		cache_put(i->from->cache, i->image);
	if (i->fd >= 0)
		close(i->fd);
	i->image = NULL;
	i->fd = -1;
}

static void let_go_of_body(void *owner)
{
	(void)owner; /* there is none, and nobody waits */
}

void relay_image_tell(const struct relay_image *i, struct errands *errands,
		      const struct lease_view *leader, char *target, const char *peer)
{
	struct relay_headers h = {.ok = true};
	char etag[SHA256_HEX_SIZE + 2] = "\"";
	struct errand_order o = {
		.leader = leader->leader,
		.epoch = leader->epoch,
		.method = "GET",
		.target = target,
		.body_length = -1,
		.suspend = let_go_of_body,
		.resume = let_go_of_body,
	};
	struct errand *e = NULL;

	hex_encode(i->sha256, SHA256_SIZE, etag + 1);
	strcat(etag, "\"");
	relay_header_add(&h, "If-None-Match", etag);
	relay_header_add(&h, "X-Forwarded-For", peer);
	relay_header_add(&h, RELAYED, "1");
	relay_header_leave_out(&h, "Accept:");
	o.headers = h.list;
	if (h.ok)
		e = errand_new(errands, &o);
	else
		curl_slist_free_all(h.list);
	if (!e) {
		free(target);
		return;
	}
	errand_fed(e);
	errand_leave(&e, target);
}

/* --- where they come from --- */

static void evict(void *ctx, const uint8_t sha256[SHA256_SIZE], uint64_t size)
{
	(void)size;
	blob_evict(ctx, sha256);
}

static bool nobody(void *ctx, const uint8_t sha256[SHA256_SIZE])
{
	(void)ctx;
	(void)sha256;
	return false;
}

/* What a crash has left there. */
static enum ota_code empty(struct blob_store *blobs, struct ota_err *err)
{
	struct blob_swept swept;
	enum ota_code rc = blob_sweep(blobs, nobody, NULL, &swept, err);

	return rc == OTA_OK ? blob_list(blobs, evict, blobs, err) : rc;
}

static enum ota_code open_mirror(struct relay_images *s, const struct config *cfg,
				 struct ota_err *err)
{
	struct bucket_place place = config_bucket(cfg);
	struct mirror_parts parts = {
		.blobs = s->blobs,
		.place = &place,
		.max_bytes = (uint64_t)cfg->cache_bytes,
	};
	enum ota_code rc = empty(s->blobs, err);

	return rc == OTA_OK ? mirror_start(&parts, &s->mirror, err) : rc;
}

enum ota_code relay_images_open(const struct config *cfg, struct relay_images **out,
				struct ota_err *err)
{
	struct relay_images *s = calloc(1, sizeof *s);
	bool bucket = cfg->s3_endpoint[0];
	char path[4200];

	if (!s)
		return ota_fail_nomem(err);
	snprintf(path, sizeof path, "%s/relayed", cfg->data_dir);
	enum ota_code rc = blob_store_open(bucket ? path : cfg->firmware_path, &s->blobs, err);
	if (rc == OTA_OK && bucket)
		rc = open_mirror(s, cfg, err);
	if (rc == OTA_OK && !(s->cache = cache_new(s->blobs, (uint64_t)cfg->image_cache_bytes)))
		rc = ota_fail_nomem(err);
	if (rc == OTA_OK)
		rc = jobs_start(OPENERS, 0, &s->openers, err);
	if (rc != OTA_OK)
		relay_images_close(&s); /* NULL then */
	*out = s;
	return rc;
}

void relay_images_abort(struct relay_images *s)
{
	if (s && s->mirror)
		mirror_abort(s->mirror);
}

void relay_images_close(struct relay_images **sp)
{
	struct relay_images *s = *sp;
	struct ota_err err;

	if (!s)
		return;
	jobs_stop(&s->openers);
	bool bucket = s->mirror != NULL;
	mirror_stop(&s->mirror);
	if (bucket)
		(void)empty(s->blobs, &err);
	cache_free(&s->cache);
	blob_store_close(&s->blobs);
	free(s);
	*sp = NULL;
}
