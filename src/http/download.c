/* SPDX-License-Identifier: MIT */
/*
 * Downloads: whole images from memory, larger ones by descriptor; Range, If-Range, If-None-Match,
 * HEAD (RFC 9110 13, 14).  The bytes at one URL never change, so the image's SHA-256 is a strong
 * ETag.
 */
#include "http/request.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "core/names.h"
#include "http/parse/range.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What the handler remembers between its steps. */
struct download {
	char version[NAME_MAX_LEN + 1];
	uint8_t sha256[SHA256_SIZE];
	uint64_t size;
	struct cached_image *image; /* held from loading to the response */
	int fd;
	/* where images are in a bucket: */
	struct mirror_file *pinned; /* it stays in the folder until the last byte is sent */
	struct mirror_wait wait;
	struct request *request;
	bool distrusted; /* the folder's copy was bad: this is the second try */
};

static struct download *state(struct request *r)
{
	return r->memory;
}

/* --- which release --- */

static void list_models(struct request *r, const char *version, char *out, size_t size)
{
	size_t used = 0;

	out[0] = '\0';
	for (const struct model *m = fleet_models(r->server->fleet); m; m = m->next)
		if (fleet_release_of(m, version) && used < size - 1)
			used += (size_t)snprintf(out + used, size - used, "%s%s", used ? ", " : "",
						 m->name);
}

/* With the plan held: the release that is meant; NULL and an answer otherwise. */
static const struct release *choose(struct request *r, const char *version, const char *model,
				    int64_t release_id)
{
	const struct release *found = NULL;
	char models[512];
	int count = 0;

	for (const struct model *m = fleet_models(r->server->fleet); m; m = m->next) {
		const struct release *rel = fleet_release_of(m, version);
		if (!rel || (model && strcmp(m->name, model) != 0) ||
		    (release_id && rel->id != release_id))
			continue;
		found = rel;
		count++; /* deleted ones too: this URL has meant their bytes */
	}
	if (count > 1) {
		list_models(r, version, models, sizeof models);
		respond_status(r, 409,
			       "version %s exists for several models (%s); add ?device_model=",
			       version, models);
		return NULL;
	}
	if (!found || found->deleted) {
		respond_status(r, 404,
			       model ? "there is no firmware %s for model %s"
				     : "there is no firmware %s",
			       version, model);
		return NULL;
	}
	return found;
}

/* --- the response --- */

/* What a response holds until its last byte is sent. */
struct held_image {
	struct image_cache *cache;
	struct cached_image *image;
};

static void put_image(void *cls)
{
	struct held_image *held = cls;

	cache_put(held->cache, held->image);
	free(held);
}

static struct MHD_Response *from_memory(struct request *r, uint64_t first, uint64_t length)
{
	struct download *d = state(r);
	struct held_image *held = malloc(sizeof *held);

	if (!held)
		return NULL;
	held->cache = r->server->cache;
	held->image = d->image;
	struct MHD_Response *m = MHD_create_response_from_buffer_with_free_callback_cls(
		(size_t)length, d->image->data + first, put_image, held);
	if (!m) {
		free(held);
		return NULL;
	}
	d->image = NULL; /* the response holds it now */
	return m;
}

static struct MHD_Response *from_file(struct request *r, uint64_t first, uint64_t length)
{
	struct download *d = state(r);
	struct MHD_Response *m = MHD_create_response_from_fd_at_offset64(length, d->fd, first);

	if (m)
		d->fd = -1; /* the response closes it */
	return m;
}

static bool add_image_headers(struct request *r, struct MHD_Response *m)
{
	struct download *d = state(r);
	char hex[SHA256_HEX_SIZE], etag[SHA256_HEX_SIZE + 2];

	hex_encode(d->sha256, SHA256_SIZE, hex);
	snprintf(etag, sizeof etag, "\"%s\"", hex);
	return MHD_add_response_header(m, "ETag", etag) == MHD_YES &&
	       MHD_add_response_header(m, "X-Firmware-Version", d->version) == MHD_YES &&
	       MHD_add_response_header(m, "X-Checksum-SHA256", hex) == MHD_YES &&
	       MHD_add_response_header(m, "Accept-Ranges", "bytes") == MHD_YES &&
	       /* A cache in front may keep it, and asks each time: the attempt may be withdrawn. */
	       MHD_add_response_header(m, "Cache-Control", "no-cache") == MHD_YES;
}

/* An instance that passed the request on sends the image itself.  Not where the network is shared
 * out: that is done here. */
static bool is_left_to_relay(struct request *r)
{
	return r->server->lease && !r->server->cfg->download_bytes_per_s &&
	       strcmp(r->method, "GET") == 0 && request_header(r, RELAYED) &&
	       request_header(r, IMAGES_HERE);
}

static struct MHD_Response *told_to_relay(struct request *r, uint64_t first, uint64_t length)
{
	struct download *d = state(r);
	struct MHD_Response *m = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
	char hex[SHA256_HEX_SIZE], text[SHA256_HEX_SIZE + 80];

	hex_encode(d->sha256, SHA256_SIZE, hex);
	snprintf(text, sizeof text, "%s %" PRIu64 " %" PRIu64 " %" PRIu64, hex, first, length,
		 d->size);
	if (m && MHD_add_response_header(m, IMAGE_TOLD, text) != MHD_YES) {
		MHD_destroy_response(m);
		m = NULL;
	}
	return m;
}

static enum next send_part(struct request *r, int status, uint64_t first, uint64_t length)
{
	struct download *d = state(r);
	struct MHD_Response *m;
	char range[80];

	bool told = length > 0 && is_left_to_relay(r);
	if (told)
		m = told_to_relay(r, first, length);
	else if (length == 0)
		m = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
	else
		m = d->image ? from_memory(r, first, length) : from_file(r, first, length);
	if (!m)
		return respond_error(r, OTA_ENOMEM, "out of memory");
	bool ok = add_image_headers(r, m);
	if (ok && status == 206) {
		snprintf(range, sizeof range, "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, first,
			 first + length - 1, d->size);
		ok = MHD_add_response_header(m, "Content-Range", range) == MHD_YES;
	}
	if (!ok) {
		MHD_destroy_response(m);
		return respond_error(r, OTA_ENOMEM, "out of memory");
	}
	r->response = m;
	r->status = status;
	r->content_type = status == 304 ? NULL : "application/octet-stream";
	/* Who is answered 304 has all of it, or is a cache that now sends it. */
	const char *token = request_filter(r, "attempt");
	bool is_get = strcmp(r->method, "HEAD") != 0;
	if (token && is_get && (status == 304 || (!told && first + length == d->size)) &&
	    strlen(token) < sizeof r->sent_token)
		strcpy(r->sent_token, token);
	if (length > 0 && is_get) {
		r->counted_download = !told;
		if (!told)
			atomic_fetch_add(&r->server->active_downloads, 1);
		atomic_fetch_add(&r->server->downloads_total, 1);
		atomic_fetch_add(&r->server->download_bytes_total, (int64_t)length);
	}
	return NEXT_ANSWER;
}

static enum next unsatisfiable(struct request *r)
{
	struct download *d = state(r);
	char range[40];
	size_t len;

	respond_status(r, 416,
		       "the image has %" PRIu64 " bytes, counted from 0, and the range "
		       "names none of them",
		       d->size);
	char *body = buf_take(&r->out, &len);
	struct MHD_Response *m =
		body ? MHD_create_response_from_buffer(len, body, MHD_RESPMEM_MUST_FREE) : NULL;
	if (!m) {
		free(body);
		return respond_error(r, OTA_ENOMEM, "out of memory");
	}
	snprintf(range, sizeof range, "bytes */%" PRIu64, d->size);
	if (MHD_add_response_header(m, "Content-Range", range) != MHD_YES) {
		MHD_destroy_response(m);
		return respond_error(r, OTA_ENOMEM, "out of memory");
	}
	r->response = m;
	return NEXT_ANSWER;
}

/* The image is at hand: what of it is wanted? */
static enum next send_image(struct request *r)
{
	struct download *d = state(r);
	const char *none_match = request_header(r, "If-None-Match");
	const char *range = request_header(r, "Range"), *if_range = request_header(r, "If-Range");
	char etag[SHA256_HEX_SIZE + 2];
	uint64_t first = 0, last = 0;

	etag[0] = '"';
	hex_encode(d->sha256, SHA256_SIZE, etag + 1);
	strcat(etag, "\"");
	if (none_match && etag_list_matches(none_match, etag))
		return send_part(r, 304, 0, 0);
	if (range && (!if_range || if_range_matches(if_range, etag, NULL)))
		switch (range_parse(range, d->size, &first, &last)) {
		case RANGE_OK: return send_part(r, 206, first, last - first + 1);
		case RANGE_UNSATISFIABLE: return unsatisfiable(r);
		case RANGE_NONE: break;
		}
	return send_part(r, 200, 0, d->size);
}

/* --- getting the image --- */

static void load_image(struct request *r)
{
	struct download *d = state(r);
	uint64_t size;

	if (cache_takes(r->server->cache, d->size)) {
		r->job_code = cache_load(r->server->cache, d->sha256, &d->image, &r->job_err);
		return;
	}
	r->job_code = blob_open(r->server->blobs, d->sha256, &d->fd, &size, &r->job_err);
	if (r->job_code == OTA_OK && size != d->size) {
		close(d->fd);
		d->fd = -1;
		r->job_code = ota_fail(&r->job_err, OTA_EIO,
				       "the image file is damaged: it has %" PRIu64
				       " bytes, not %" PRIu64 "; upload it again",
				       size, d->size);
	}
}

static enum next find_image(struct request *r);

static enum next after_load(struct request *r)
{
	struct download *d = state(r);
	char subject[64];

	if (d->image && d->pinned)
		mirror_unpin(r->server->mirror, &d->pinned); /* memory has it */
	if (r->job_code == OTA_OK)
		return send_image(r);
	if (d->pinned && !d->distrusted && mirror_distrust(r->server->mirror, d->pinned)) {
		mirror_unpin(r->server->mirror, &d->pinned);
		d->distrusted = true;
		return find_image(r);
	}
	snprintf(subject, sizeof subject, "request/%s", r->id);
	log_event(LOG_ERROR, subject, "image_unreadable", "%s", r->job_err.msg);
	return respond_err(r, &r->job_err);
}

static void on_fetched(struct mirror_wait *w)
{
	struct download *d =
		(struct download *)(void *)((char *)w - offsetof(struct download, wait));

	request_resume(d->request);
}

static enum next after_fetched(struct request *r)
{
	struct download *d = state(r);

	d->pinned = d->wait.file;
	return d->wait.code == OTA_OK ? request_job(r, load_image, after_load)
				      : respond_err(r, &d->wait.err);
}

/* In the folder, or in the bucket. */
static enum next find_image(struct request *r)
{
	struct mirror *m = r->server->mirror;
	struct download *d = state(r);

	if (!m || (d->pinned = mirror_pin(m, d->sha256)))
		return request_job(r, load_image, after_load);
	d->request = r;
	d->wait = (struct mirror_wait){.size = d->size, .done = on_fetched};
	memcpy(d->wait.sha256, d->sha256, SHA256_SIZE);
	enum next next = request_wait(r, after_fetched);
	mirror_fetch(m, &d->wait); /* the request may be answered by now */
	return next;
}

static enum next fetch_image(struct request *r)
{
	struct download *d = state(r);

	if (is_left_to_relay(r))
		return send_image(r);
	d->image = cache_get(r->server->cache, d->sha256);
	return d->image ? send_image(r) : find_image(r);
}

/* --- the attempt --- */

enum standing { STANDING_UNKNOWN, STANDING_BEGUN, STANDING_PENDING };

/* What is in memory about the attempt, without waiting for the committer. */
static enum standing look_up(struct request *r, const char *token, int64_t *release_id)
{
	struct fleet *f = r->server->fleet;
	char device_id[NAME_MAX_LEN + 1];
	enum standing s = STANDING_UNKNOWN;

	if (!fleet_device_by_token(f, token, device_id, sizeof device_id))
		return s;
	const struct device *d = fleet_lock_device(f, device_id);
	if (!d)
		return s;
	const struct attempt *a = d->state.attempt;
	if (a && strcmp(a->token, token) == 0) {
		*release_id = a->release_id;
		s = a->state == ATTEMPT_PENDING ? STANDING_PENDING : STANDING_BEGUN;
		fleet_touch(f, d, clock_service_us());
	}
	fleet_unlock_device(f, d);
	return s;
}

/* Finds what is asked for, the attempt's release where it is known (else 0); false: the answer is
 * made. */
static bool find_release(struct request *r, int64_t release_id)
{
	struct download *d = state(r);

	fleet_plan_read(r->server->fleet);
	const struct release *rel =
		choose(r, r->args[0], request_filter(r, "device_model"), release_id);
	if (rel) {
		strcpy(d->version, rel->version);
		memcpy(d->sha256, rel->sha256, SHA256_SIZE);
		d->size = (uint64_t)rel->file_size;
	}
	fleet_plan_done(r->server->fleet);
	return rel != NULL;
}

static enum next after_fetch(struct request *r)
{
	if (r->command.code != OTA_OK)
		return respond_err(r, &r->command.err);
	/* Of several models the attempt knows which. */
	if (r->have_answer && r->command.out.id)
		r->have_answer = !find_release(r, r->command.out.id);
	return r->have_answer ? NEXT_ANSWER : fetch_image(r);
}

static void release_download(struct request *r)
{
	struct download *d = state(r);

	if (d && d->image)
		cache_put(r->server->cache, d->image);
	if (d && d->fd >= 0)
		close(d->fd);
	if (d && d->pinned)
		mirror_unpin(r->server->mirror, &d->pinned);
	if (d) {
		d->image = NULL;
		d->fd = -1;
	}
}

enum next firmware_download(struct request *r)
{
	const char *version = r->args[0], *model = request_filter(r, "device_model");
	const char *token = request_filter(r, "attempt");
	const char *wrong = name_version_error(version);
	int64_t release_id = 0;

	if (wrong)
		return respond_status(r, 404, "there is no firmware of that name: a version %s",
				      wrong);
	if (model && name_version_error(model)) {
		field_errors_add(&r->errors, "query", "device_model", FIELD_TYPE_VALUE, "%s%s",
				 name_version_error(model),
				 query_plus_hint(&r->query, "device_model"));
		return respond_fields(r);
	}
	enum standing standing = token ? look_up(r, token, &release_id) : STANDING_BEGUN;
	struct download *d = calloc(1, sizeof *d);
	if (!d)
		return respond_error(r, OTA_ENOMEM, "out of memory");
	d->fd = -1;
	r->memory = d;
	r->release = release_download;
	bool found = find_release(r, release_id);
	if (standing == STANDING_BEGUN)
		return found ? fetch_image(r) : NEXT_ANSWER;
	if (!found && standing == STANDING_PENDING)
		return NEXT_ANSWER;
	/* Unknown here may be withdrawn there: that answer comes before any other. */
	r->have_answer = !found;
	r->command.kind = COMMAND_FETCH;
	r->command.fetch.token = token;
	r->command.fetch.peek = strcmp(r->method, "HEAD") == 0;
	return request_submit(r, after_fetch);
}
