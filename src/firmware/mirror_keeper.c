/* SPDX-License-Identifier: MIT */
/*
 * The mirror's keeper, a thread of its own that waits for the bucket: copies into it what only the
 * folder has, removes from it what no release names any more, and asks now and then whether it
 * answers.  What fails is tried again.
 */
#include "firmware/mirror_inner.h"

#include "base/clock.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How often the bucket is asked when nothing else does. */
#define PROBE_MS 60000
#define AGAIN_MS 5000

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
		mirror_note(m, rc, err);
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

/* A file that is not what its name says is a copy of nothing.  THERE: the bucket has something. */
static enum ota_code copy_to_bucket(struct mirror *m, struct mirror_file *f, bool there,
				    struct ota_err *err)
{
	uint64_t size;
	int fd;
	enum ota_code rc = blob_open(m->parts.blobs, f->sha256, &fd, &size, err);

	if (rc != OTA_OK)
		return rc;
	rc = blob_compare(fd, f->sha256, err);
	if (rc == OTA_ECONFLICT) {
		mirror_discard(m, f, there);
		rc = OTA_OK;
	} else if (rc == OTA_OK) {
		rc = bucket_put(m->bucket, f->sha256, fd, size, err);
		mirror_note(m, rc, err);
		if (rc == OTA_OK)
			log_event(LOG_INFO, "bucket", "image_copied",
				  "%" PRIu64 " bytes that only the folder had", size);
	}
	close(fd);
	return rc;
}

/* Under the lock: one that only the folder has and a release names, pinned; the one tried least. */
static struct mirror_file *next_unsafe(struct mirror *m)
{
	struct mirror_file *found = NULL;

	for (struct mirror_file *f = m->newest; f; f = f->older)
		if (!f->safe && (!found || f->tries < found->tries) &&
		    m->parts.wanted(m->parts.ctx, f->sha256))
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
	mirror_note(m, rc, &err);
	if (!there && (rc == OTA_OK || rc == OTA_ENOTFOUND))
		rc = copy_to_bucket(m, f, rc == OTA_OK, &err);
	pthread_mutex_lock(&m->lock);
	f->safe |= rc == OTA_OK;
	pthread_mutex_unlock(&m->lock);
	mirror_unpin(m, &f);
	return rc == OTA_OK;
}

static void probe(struct mirror *m, int64_t every_ms)
{
	struct ota_err err;
	int64_t ahead_s;

	pthread_mutex_lock(&m->lock);
	bool due = clock_mono_ms() - m->asked_ms >= every_ms;
	pthread_mutex_unlock(&m->lock);
	if (due)
		(void)mirror_probe(m, &ahead_s, &err);
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

void *mirror_keep(void *arg)
{
	struct mirror *m = arg;
	int64_t every_ms = 0; /* the first time at once */
	bool reached = false;

	while (!stopping(m)) {
		int64_t until_ms = INT64_MAX;
		probe(m, every_ms);
		while (!stopping(m) && secure_next(m))
			;
		while (!stopping(m) && remove_next(m, &until_ms))
			;
		struct mirror_state s;
		mirror_look(m, &s);
		if (!reached && s.asked && !s.failing && !stopping(m)) {
			m->parts.reached(m->parts.ctx, m);
			reached = true;
		}
		nap(m, until_ms);
		mirror_look(m, &s);
		every_ms = s.failing ? AGAIN_MS - 1 : PROBE_MS - 1;
	}
	return NULL;
}
