/* SPDX-License-Identifier: MIT */
#include "firmware/mirror_inner.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

#define FETCHERS 2

/* --- the list: under the lock --- */

static void unlist(struct mirror *m, struct mirror_file *f)
{
	*(f->newer ? &f->newer->older : &m->newest) = f->older;
	*(f->older ? &f->older->newer : &m->oldest) = f->newer;
	f->newer = f->older = NULL;
	f->listed = false;
	m->bytes -= f->size;
}

static void list_newest(struct mirror *m, struct mirror_file *f)
{
	f->older = m->newest;
	f->newer = NULL;
	*(m->newest ? &m->newest->newer : &m->oldest) = f;
	m->newest = f;
	f->listed = true;
	m->bytes += f->size;
}

static struct mirror_file *find(struct mirror *m, const uint8_t sha256[SHA256_SIZE])
{
	for (struct mirror_file *f = m->newest; f; f = f->older)
		if (memcmp(f->sha256, sha256, SHA256_SIZE) == 0)
			return f;
	return NULL;
}

/* It is in the folder no more. */
static void drop(struct mirror *m, struct mirror_file *f)
{
	unlist(m, f);
	if (f->refs == 0)
		free(f);
}

/* The oldest go that may, until no more than MOST_BYTES are left.  Whether any did. */
static bool evict(struct mirror *m, uint64_t most_bytes)
{
	bool any = false;

	for (struct mirror_file *f = m->oldest, *newer; f; f = newer) {
		newer = f->newer;
		if (m->bytes + m->coming <= most_bytes)
			break;
		if (f->refs > 0 || !f->safe)
			continue;
		blob_evict(m->parts.blobs, f->sha256);
		drop(m, f);
		any = true;
	}
	return any;
}

static void make_room(struct mirror *m)
{
	evict(m, m->parts.max_bytes);
}

bool mirror_empty(struct mirror *m)
{
	pthread_mutex_lock(&m->lock);
	bool any = evict(m, 0);
	pthread_mutex_unlock(&m->lock);
	return any;
}

/* The file is in the folder: lists it, or finds it listed.  NULL: out of memory. */
static struct mirror_file *enter(struct mirror *m, const uint8_t sha256[SHA256_SIZE], uint64_t size,
				 bool safe)
{
	struct mirror_file *f = find(m, sha256);

	if (f) {
		f->safe |= safe;
		return f;
	}
	f = calloc(1, sizeof *f);
	if (!f)
		return NULL;
	memcpy(f->sha256, sha256, SHA256_SIZE);
	f->size = size;
	f->safe = safe;
	list_newest(m, f);
	return f;
}

struct mirror_file *mirror_pin(struct mirror *m, const uint8_t sha256[SHA256_SIZE])
{
	pthread_mutex_lock(&m->lock);
	struct mirror_file *f = find(m, sha256);
	if (f) {
		f->refs++;
		unlist(m, f);
		list_newest(m, f);
	}
	pthread_mutex_unlock(&m->lock);
	return f;
}

void mirror_unpin(struct mirror *m, struct mirror_file **fp)
{
	struct mirror_file *f = *fp;

	if (!f)
		return;
	pthread_mutex_lock(&m->lock);
	if (--f->refs == 0 && !f->listed)
		free(f);
	make_room(m);
	pthread_mutex_unlock(&m->lock);
	*fp = NULL;
}

bool mirror_distrust(struct mirror *m, struct mirror_file *f)
{
	pthread_mutex_lock(&m->lock);
	bool safe = f->safe;
	if (safe && f->listed) {
		blob_evict(m->parts.blobs, f->sha256);
		drop(m, f);
	}
	pthread_mutex_unlock(&m->lock);
	return safe;
}

void mirror_discard(struct mirror *m, struct mirror_file *f, bool remove)
{
	char name[BLOB_NAME_SIZE];

	blob_name(f->sha256, name);
	log_event(LOG_ERROR, "bucket", "image_useless", "%s in the firmware folder is damaged%s",
		  name,
		  remove ? ", and removed there" : ", and the bucket has none; upload it again");
	pthread_mutex_lock(&m->lock);
	if (f->listed) {
		if (remove)
			blob_evict(m->parts.blobs, f->sha256);
		drop(m, f);
	}
	pthread_mutex_unlock(&m->lock);
}

/* --- how the bucket is --- */

void mirror_note(struct mirror *m, enum ota_code rc, const struct ota_err *err)
{
	bool failed = rc != OTA_OK && rc != OTA_ENOTFOUND, was;

	pthread_mutex_lock(&m->lock);
	was = m->state.failing;
	bool told = was && failed && strcmp(m->state.reason, err->msg) == 0;
	if (!m->stopping) {
		m->state.failing = failed;
		strcpy(m->state.reason, failed ? err->msg : "");
		m->state.failures += failed;
	}
	m->state.asked = true;
	m->asked_ms = clock_mono_ms();
	bool stopping = m->stopping;
	pthread_mutex_unlock(&m->lock);
	if (stopping || told)
		return;
	if (failed)
		log_event(LOG_ERROR, "bucket", "bucket_failed", "%s", err->msg);
	else if (was)
		log_event(LOG_INFO, "bucket", "bucket_works_again", "it answers");
}

void mirror_look(struct mirror *m, struct mirror_state *out)
{
	pthread_mutex_lock(&m->lock);
	*out = m->state;
	out->bytes = m->bytes;
	pthread_mutex_unlock(&m->lock);
}

enum ota_code mirror_probe(struct mirror *m, int64_t *ahead_s, struct ota_err *err)
{
	enum ota_code rc = bucket_probe(m->bucket, ahead_s, err);

	mirror_note(m, rc, err);
	return rc;
}

enum ota_code mirror_ask(struct mirror *m, const uint8_t sha256[SHA256_SIZE], uint64_t *size,
			 struct ota_err *err)
{
	int64_t age_s;
	enum ota_code rc = bucket_look(m->bucket, sha256, size, &age_s, err);

	mirror_note(m, rc, err);
	return rc;
}

/* --- fetching --- */

struct arriving {
	const struct fetch *fetch;
	struct blob_writer *writer;
	bool disk_failed;
};

static enum ota_code wrong_bytes(const struct fetch *f, struct ota_err *err)
{
	char name[BLOB_NAME_SIZE];

	blob_name(f->sha256, name);
	return ota_fail(err, OTA_EIO,
			"the bucket has other bytes under %s than were uploaded; upload the image "
			"again",
			name);
}

static enum ota_code take(void *ctx, const void *data, size_t len, struct ota_err *err)
{
	struct arriving *a = ctx;

	if (blob_writer_size(a->writer) + len > a->fetch->size)
		return wrong_bytes(a->fetch, err);
	enum ota_code rc = blob_writer_write(a->writer, data, len, err);
	a->disk_failed = rc != OTA_OK;
	return rc;
}

/* Whether it was the bucket or not, what it has there is of no use. */
static enum ota_code tell_useless(const struct ota_err *err)
{
	log_event(LOG_ERROR, "bucket", "image_useless", "%s", err->msg);
	return OTA_EUNAVAIL;
}

/* Into the folder, or nothing. */
static enum ota_code fetch_once(struct fetch *f, bool *disk_failed, struct ota_err *err)
{
	struct mirror *m = f->mirror;
	struct arriving a = {.fetch = f};
	uint8_t sha256[SHA256_SIZE];
	enum ota_code rc = blob_writer_open(m->parts.blobs, &a.writer, err);

	*disk_failed = rc == OTA_EUNAVAIL;
	if (rc != OTA_OK)
		return rc;
	rc = bucket_get(m->bucket, f->sha256, take, &a, err);
	mirror_note(m, a.disk_failed || rc == OTA_EIO ? OTA_OK : rc, err);
	if (rc == OTA_OK)
		rc = blob_writer_hash(a.writer, sha256, err);
	if (rc == OTA_OK &&
	    (blob_writer_size(a.writer) != f->size || memcmp(sha256, f->sha256, SHA256_SIZE) != 0))
		rc = wrong_bytes(f, err);
	if (rc == OTA_EIO || rc == OTA_ENOTFOUND)
		rc = err->code = tell_useless(err);
	if (rc == OTA_OK) {
		rc = blob_writer_keep(a.writer, err);
		a.disk_failed = rc != OTA_OK;
	}
	blob_writer_close(&a.writer);
	*disk_failed = a.disk_failed;
	return rc;
}

static enum ota_code fetch_file(struct fetch *f, struct ota_err *err)
{
	bool disk_failed;
	enum ota_code rc = fetch_once(f, &disk_failed, err);

	if (disk_failed && mirror_empty(f->mirror))
		rc = fetch_once(f, &disk_failed, err);
	return rc;
}

/* Under the lock: nobody joins it any more. */
static void unlink_fetch(struct mirror *m, const struct fetch *f)
{
	struct fetch **at = &m->fetches;

	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
}

static void run_fetch(struct job *job)
{
	struct fetch *f = (struct fetch *)(void *)job;
	struct mirror *m = f->mirror;
	struct mirror_file *file = NULL;
	struct ota_err err;
	enum ota_code rc = fetch_file(f, &err);

	pthread_mutex_lock(&m->lock);
	m->coming -= f->size;
	unlink_fetch(m, f);
	m->state.fetches++;
	if (rc == OTA_OK && !(file = enter(m, f->sha256, f->size, true)))
		rc = ota_fail_nomem(&err);
	for (struct mirror_wait *w = f->waits; w && file; w = w->next)
		file->refs++;
	make_room(m);
	pthread_mutex_unlock(&m->lock);
	for (struct mirror_wait *w = f->waits, *next; w; w = next) {
		next = w->next;
		w->code = rc;
		w->file = file;
		if (rc != OTA_OK)
			w->err = err;
		w->done(w);
	}
	free(f);
}

/* Under the lock. */
static struct fetch *begin_fetch(struct mirror *m, const struct mirror_wait *w)
{
	struct fetch *f = calloc(1, sizeof *f);

	if (!f)
		return NULL;
	f->job.fn = run_fetch;
	f->mirror = m;
	memcpy(f->sha256, w->sha256, SHA256_SIZE);
	f->size = w->size;
	f->next = m->fetches;
	m->fetches = f;
	m->coming += f->size;
	make_room(m);
	jobs_submit(m->fetchers, &f->job);
	return f;
}

void mirror_fetch(struct mirror *m, struct mirror_wait *w)
{
	bool waits = false;

	w->code = OTA_OK;
	pthread_mutex_lock(&m->lock);
	w->file = find(m, w->sha256); /* it came meanwhile */
	if (w->file) {
		w->file->refs++;
	} else {
		struct fetch *f = m->fetches;
		while (f && memcmp(f->sha256, w->sha256, SHA256_SIZE) != 0)
			f = f->next;
		if (!f)
			f = begin_fetch(m, w);
		if (f) {
			w->next = f->waits;
			f->waits = w;
			waits = true;
		} else {
			w->code = ota_fail_nomem(&w->err);
		}
	}
	pthread_mutex_unlock(&m->lock);
	if (!waits)
		w->done(w);
}

/* --- storing and removing --- */

enum ota_code mirror_put(struct mirror *m, struct blob_writer *w, struct ota_err *err)
{
	uint8_t sha256[SHA256_SIZE];
	enum ota_code rc = blob_writer_hash(w, sha256, err);

	if (rc != OTA_OK)
		return rc;
	/* What is removed from now on sees that the writer is open; what began before ends first.
	 */
	pthread_mutex_lock(&m->removal);
	pthread_mutex_unlock(&m->removal);
	rc = bucket_put(m->bucket, sha256, blob_writer_fd(w), blob_writer_size(w), err);
	mirror_note(m, rc, err);
	if (rc != OTA_OK)
		return rc;
	pthread_mutex_lock(&m->lock);
	if (!enter(m, sha256, blob_writer_size(w), true))
		rc = ota_fail_nomem(err);
	make_room(m);
	pthread_mutex_unlock(&m->lock);
	return rc;
}

/* Under the lock. */
static void doom(struct mirror *m, const uint8_t sha256[SHA256_SIZE])
{
	struct doomed *d = m->doomed;

	while (d && memcmp(d->sha256, sha256, SHA256_SIZE) != 0)
		d = d->next;
	if (d)
		return;
	d = calloc(1, sizeof *d);
	if (!d)
		return; /* it stays in the bucket, and does no harm there */
	memcpy(d->sha256, sha256, SHA256_SIZE);
	d->next = m->doomed;
	m->doomed = d;
}

void mirror_forget(struct mirror *m, const uint8_t sha256[SHA256_SIZE])
{
	pthread_mutex_lock(&m->lock);
	bool removed = blob_remove(m->parts.blobs, sha256, m->parts.wanted, m->parts.ctx);
	struct mirror_file *f = removed ? find(m, sha256) : NULL;
	if (f)
		drop(m, f);
	doom(m, sha256);
	m->woken = true;
	pthread_cond_signal(&m->work);
	pthread_mutex_unlock(&m->lock);
}

/* --- start and stop --- */

static void on_file(void *ctx, const uint8_t sha256[SHA256_SIZE], uint64_t size)
{
	enter(ctx, sha256, size, false);
}

static struct mirror *make(const struct mirror_parts *parts)
{
	struct mirror *m = calloc(1, sizeof *m);
	pthread_condattr_t attr;

	if (!m)
		return NULL;
	m->parts = *parts;
	pthread_mutex_init(&m->lock, NULL);
	pthread_mutex_init(&m->removal, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&m->work, &attr);
	pthread_condattr_destroy(&attr);
	return m;
}

enum ota_code mirror_start(const struct mirror_parts *parts, struct mirror **out,
			   struct ota_err *err)
{
	struct mirror *m = make(parts);

	if (!m)
		return ota_fail_nomem(err);
	enum ota_code rc = bucket_open(parts->place, &m->bucket, err);
	if (rc == OTA_OK)
		rc = blob_list(parts->blobs, on_file, m, err);
	if (rc == OTA_OK)
		rc = jobs_start(FETCHERS, 0, &m->fetchers, err);
	if (rc == OTA_OK && parts->wanted) {
		int e = pthread_create(&m->keeper, NULL, mirror_keep, m);
		m->keeping = e == 0;
		if (e != 0)
			rc = ota_fail_errno(err, e, "starting the bucket's keeper");
	}
	if (rc != OTA_OK)
		mirror_stop(&m);
	else
		*out = m;
	return rc;
}

void mirror_abort(struct mirror *m)
{
	bucket_abort(m->bucket);
	pthread_mutex_lock(&m->lock);
	m->stopping = true;
	pthread_cond_signal(&m->work);
	pthread_mutex_unlock(&m->lock);
}

void mirror_stop(struct mirror **mp)
{
	struct mirror *m = *mp;

	if (!m)
		return;
	if (m->bucket)
		mirror_abort(m);
	if (m->keeping)
		pthread_join(m->keeper, NULL);
	jobs_stop(&m->fetchers);
	bucket_close(&m->bucket);
	while (m->newest)
		drop(m, m->newest);
	for (struct doomed *d = m->doomed, *next; d; d = next) {
		next = d->next;
		free(d);
	}
	pthread_mutex_destroy(&m->lock);
	pthread_mutex_destroy(&m->removal);
	pthread_cond_destroy(&m->work);
	free(m);
	*mp = NULL;
}
