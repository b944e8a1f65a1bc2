/* SPDX-License-Identifier: MIT */
#include "firmware/mirror.h"

#include "base/clock.h"
#include "base/jobs.h"
#include "base/log.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FETCHERS 2
/* How often the bucket is asked when nothing else does. */
#define PROBE_MS 60000
#define AGAIN_MS 5000

struct mirror_file {
	uint8_t sha256[SHA256_SIZE];
	uint64_t size;
	size_t refs;
	bool listed, safe; /* safe: the bucket has it */
	unsigned tries;    /* to make it safe */
	struct mirror_file *newer, *older;
};

/* One fetch, for all who wait for the image. */
struct fetch {
	struct job job;
	struct mirror *mirror;
	uint8_t sha256[SHA256_SIZE];
	uint64_t size;
	struct mirror_wait *waits;
	struct fetch *next;
};

/* An object to be removed from the bucket. */
struct doomed {
	uint8_t sha256[SHA256_SIZE];
	int64_t not_before_ms;
	struct doomed *next;
};

struct mirror {
	struct mirror_parts parts;
	struct bucket *bucket;
	struct jobs *fetchers;
	pthread_t keeper;
	bool keeping;
	/* Held over a removal in the bucket, from the look at who wants it to its end. */
	pthread_mutex_t removal;
	pthread_mutex_t lock; /* what follows */
	pthread_cond_t work;
	struct mirror_file *newest, *oldest;
	uint64_t bytes, coming; /* of listed files, of those being fetched */
	struct fetch *fetches;
	struct doomed *doomed;
	bool woken, stopping;
	int64_t asked_ms; /* when the bucket last answered, or did not */
	struct mirror_state state;
};

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

/* Over the bound the oldest go that may. */
static void make_room(struct mirror *m)
{
	for (struct mirror_file *f = m->oldest, *newer; f; f = newer) {
		newer = f->newer;
		if (m->bytes + m->coming <= m->parts.max_bytes)
			return;
		if (f->refs > 0 || !f->safe)
			continue;
		blob_evict(m->parts.blobs, f->sha256);
		drop(m, f);
	}
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

/* --- how the bucket is --- */

/* What a request to the bucket came to. */
static void note(struct mirror *m, enum ota_code rc, const struct ota_err *err)
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

/* --- fetching --- */

struct arriving {
	const struct fetch *fetch;
	struct blob_writer *writer;
};

static enum ota_code wrong_bytes(const struct fetch *f, struct ota_err *err)
{
	char name[BLOB_NAME_SIZE];

	blob_name(f->sha256, name);
	return ota_fail(err, OTA_EUNAVAIL,
			"the bucket has other bytes under %s than were uploaded; upload the image "
			"again",
			name);
}

static enum ota_code take(void *ctx, const void *data, size_t len, struct ota_err *err)
{
	struct arriving *a = ctx;

	if (blob_writer_size(a->writer) + len > a->fetch->size)
		return wrong_bytes(a->fetch, err);
	return blob_writer_write(a->writer, data, len, err);
}

/* Into the folder, or nothing. */
static enum ota_code fetch_file(struct fetch *f, struct ota_err *err)
{
	struct mirror *m = f->mirror;
	struct arriving a = {.fetch = f};
	uint8_t sha256[SHA256_SIZE];
	enum ota_code rc = blob_writer_open(m->parts.blobs, &a.writer, err);

	if (rc != OTA_OK)
		return rc;
	rc = bucket_get(m->bucket, f->sha256, take, &a, err);
	if (rc == OTA_OK)
		rc = blob_writer_hash(a.writer, sha256, err);
	if (rc == OTA_OK &&
	    (blob_writer_size(a.writer) != f->size || memcmp(sha256, f->sha256, SHA256_SIZE) != 0))
		rc = wrong_bytes(f, err);
	note(m, rc, err);
	if (rc == OTA_OK)
		rc = blob_writer_keep(a.writer, err);
	blob_writer_close(&a.writer);
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

static enum ota_code copy_to_bucket(struct mirror *m, const uint8_t sha256[SHA256_SIZE],
				    struct ota_err *err)
{
	uint64_t size;
	int fd;
	enum ota_code rc = blob_open(m->parts.blobs, sha256, &fd, &size, err);

	if (rc != OTA_OK)
		return rc;
	rc = bucket_put(m->bucket, sha256, fd, size, err);
	close(fd);
	note(m, rc, err);
	return rc;
}

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
	note(m, rc, err);
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

/* --- the keeper --- */

/* Removes it from the bucket if nobody wants it.  *AGAIN_MS: not yet, look again then. */
static enum ota_code remove_object(struct mirror *m, const uint8_t sha256[SHA256_SIZE],
				   int64_t *again_ms, struct ota_err *err)
{
	uint64_t size;
	int64_t age_s = 0;
	enum ota_code rc = OTA_OK;

	*again_ms = 0;
	pthread_mutex_lock(&m->removal);
	if (blob_busy(m->parts.blobs)) {
		*again_ms = AGAIN_MS; /* the upload may be of these bytes */
	} else if (!m->parts.wanted(m->parts.ctx, sha256)) {
		rc = bucket_look(m->bucket, sha256, &size, &age_s, err);
		if (rc == OTA_OK && age_s < MIRROR_YOUNG_S)
			*again_ms = (MIRROR_YOUNG_S - age_s + 1) * 1000;
		else if (rc == OTA_OK && !m->parts.wanted(m->parts.ctx, sha256)) /* still */
			rc = bucket_remove(m->bucket, sha256, err);
		note(m, rc, err);
		if (rc == OTA_OK && !*again_ms)
			log_event(LOG_INFO, "bucket", "image_removed",
				  "%" PRIu64 " bytes that no release names any more", size);
	}
	pthread_mutex_unlock(&m->removal);
	return rc == OTA_ENOTFOUND ? OTA_OK : rc;
}

/* Under the lock: one whose time has come; NULL: none, and *UNTIL_MS is no later than the next. */
static struct doomed **next_doomed(struct mirror *m, int64_t *until_ms)
{
	int64_t now_ms = clock_mono_ms();

	for (struct doomed **at = &m->doomed; *at; at = &(*at)->next) {
		if ((*at)->not_before_ms <= now_ms)
			return at;
		if ((*at)->not_before_ms < *until_ms)
			*until_ms = (*at)->not_before_ms;
	}
	return NULL;
}

/* False: there is nothing to remove now, or the bucket fails. */
static bool remove_next(struct mirror *m, int64_t *until_ms)
{
	uint8_t sha256[SHA256_SIZE];
	struct ota_err err;
	int64_t again_ms;

	pthread_mutex_lock(&m->lock);
	struct doomed **at = next_doomed(m, until_ms);
	if (at)
		memcpy(sha256, (*at)->sha256, SHA256_SIZE);
	pthread_mutex_unlock(&m->lock);
	if (!at)
		return false;
	enum ota_code rc = remove_object(m, sha256, &again_ms, &err);
	if (rc != OTA_OK)
		again_ms = AGAIN_MS;
	pthread_mutex_lock(&m->lock);
	for (at = &m->doomed; memcmp((*at)->sha256, sha256, SHA256_SIZE) != 0; at = &(*at)->next)
		;
	struct doomed *d = *at;
	d->not_before_ms = clock_mono_ms() + again_ms;
	if (again_ms == 0) {
		*at = d->next;
		free(d);
	}
	pthread_mutex_unlock(&m->lock);
	return rc == OTA_OK;
}

/* Under the lock: one that only the folder has, pinned; the one tried least. */
static struct mirror_file *next_unsafe(struct mirror *m)
{
	struct mirror_file *found = NULL;

	for (struct mirror_file *f = m->newest; f; f = f->older)
		if (!f->safe && (!found || f->tries < found->tries))
			found = f;
	if (found) {
		found->refs++;
		found->tries++;
	}
	return found;
}

/* False: all are in the bucket, or it fails. */
static bool secure_next(struct mirror *m)
{
	struct ota_err err;
	uint64_t size;
	int64_t age_s;

	pthread_mutex_lock(&m->lock);
	struct mirror_file *f = next_unsafe(m);
	pthread_mutex_unlock(&m->lock);
	if (!f)
		return false;
	enum ota_code rc = bucket_look(m->bucket, f->sha256, &size, &age_s, &err);
	bool there = rc == OTA_OK && size == f->size;
	note(m, rc, &err);
	if (!there && (rc == OTA_OK || rc == OTA_ENOTFOUND)) {
		rc = copy_to_bucket(m, f->sha256, &err);
		if (rc == OTA_OK)
			log_event(LOG_INFO, "bucket", "image_copied",
				  "%" PRIu64 " bytes that only the folder had", f->size);
	}
	pthread_mutex_lock(&m->lock);
	f->safe |= rc == OTA_OK;
	pthread_mutex_unlock(&m->lock);
	mirror_unpin(m, &f);
	return rc == OTA_OK;
}

static void probe(struct mirror *m, int64_t every_ms)
{
	struct ota_err err;

	pthread_mutex_lock(&m->lock);
	bool due = clock_mono_ms() - m->asked_ms >= every_ms;
	pthread_mutex_unlock(&m->lock);
	if (due)
		note(m, bucket_probe(m->bucket, &err), &err);
}

static bool stopping(struct mirror *m)
{
	pthread_mutex_lock(&m->lock);
	bool yes = m->stopping;
	pthread_mutex_unlock(&m->lock);
	return yes;
}

/* Until there is something to do, UNTIL_MS at the latest; AGAIN_MS where the bucket fails. */
static void nap(struct mirror *m, int64_t until_ms)
{
	pthread_mutex_lock(&m->lock);
	int64_t most_ms = clock_mono_ms() + (m->state.failing ? AGAIN_MS : PROBE_MS);
	if (until_ms > most_ms)
		until_ms = most_ms;
	struct timespec until = {until_ms / 1000, until_ms % 1000 * 1000000};
	while (!m->woken && !m->stopping && pthread_cond_timedwait(&m->work, &m->lock, &until) == 0)
		;
	m->woken = false;
	pthread_mutex_unlock(&m->lock);
}

static void *keep(void *arg)
{
	struct mirror *m = arg;
	int64_t every_ms = 0; /* the first time at once */

	while (!stopping(m)) {
		int64_t until_ms = INT64_MAX;
		probe(m, every_ms);
		while (!stopping(m) && secure_next(m))
			;
		while (!stopping(m) && remove_next(m, &until_ms))
			;
		nap(m, until_ms);
		struct mirror_state s;
		mirror_look(m, &s);
		every_ms = s.failing ? AGAIN_MS - 1 : PROBE_MS - 1;
	}
	return NULL;
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
	if (rc == OTA_OK) {
		int e = pthread_create(&m->keeper, NULL, keep, m);
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
