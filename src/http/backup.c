/* SPDX-License-Identifier: MIT */
/*
 * A backup: one archive (base/tar.h) of the database as it stood at one moment, every image that it
 * names, and the hash of the admin key; devices are served meanwhile.
 *
 * A job thread copies the database into the data folder and lists the images; from then on none is
 * removed until the last byte is sent.  The archive is made while it goes out, on the worker that
 * sends it: its length is known before, what it holds is summed up in its last file.  An image that
 * is not what its name says breaks the transfer off, with a line in the log.
 */
#include "http/backup.h"
#include "http/request.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/tar.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COPY_NAME   "backup.tmp"
#define KEY_BYTES   4096
#define SEND_BYTES  ((size_t)64 * 1024)
#define SUM_LINE(n) (SHA256_HEX_SIZE - 1 + 2 + strlen(n) + 1) /* "<hex>  <name>\n" */

/* A file of the archive: its bytes are in memory, in the copy of the database, or an image. */
struct part {
	char name[TAR_NAME_SIZE];
	uint64_t size;
	char *text; /* malloc()ed; NULL: see is_database */
	bool is_database;
	struct mirror_file *pinned; /* an image, where images are in a bucket */
};

struct backup {
	struct http_server *server;
	char id[40]; /* of the request, for the log */
	int64_t made_us;
	struct part *parts;
	size_t count, cap;
	int copy_fd; /* of the database, without a name; -1: there is none */
	bool copied, failed;
	/* where the sending is: part `at`, `done` bytes of its header, itself and its padding */
	size_t at;
	uint64_t done;
	int fd;
	unsigned char header[TAR_BLOCK];
	struct sha256 *hash;
	struct buf sums;
};

static void backup_free(void *cls)
{
	struct backup *b = cls;

	for (size_t i = 0; i < b->count; i++) {
		free(b->parts[i].text);
		if (b->parts[i].pinned)
			mirror_unpin(b->server->mirror, &b->parts[i].pinned);
	}
	free(b->parts);
	if (b->copy_fd >= 0)
		close(b->copy_fd);
	if (b->fd >= 0)
		close(b->fd);
	sha256_free(&b->hash);
	buf_fini(&b->sums);
	blob_let_go(b->server->blobs);
	atomic_store(&b->server->backing_up, false);
	free(b);
}

/* --- what is in it --- */

static struct part *add_part(struct backup *b, const char *name, uint64_t size)
{
	if (b->count == b->cap) {
		size_t cap = b->cap ? b->cap * 2 : 16;
		struct part *p = realloc(b->parts, cap * sizeof *p);
		if (!p)
			return NULL;
		b->parts = p;
		b->cap = cap;
	}
	struct part *p = &b->parts[b->count++];
	*p = (struct part){.size = size};
	snprintf(p->name, sizeof p->name, "%s", name);
	return p;
}

static bool add_text(struct backup *b, const char *name, const char *text, size_t len)
{
	char *copy = malloc(len + 1);
	struct part *p = copy ? add_part(b, name, len) : NULL;

	if (!p) {
		free(copy);
		return false;
	}
	memcpy(copy, text, len);
	p->text = copy;
	return true;
}

static bool add_image(void *ctx, const char *sha256, int64_t size)
{
	struct backup *b = ctx;
	char name[TAR_NAME_SIZE];

	snprintf(name, sizeof name, BACKUP_IMAGES "%.64s.bin", sha256);
	b->failed |= !add_part(b, name, (uint64_t)size);
	return !b->failed;
}

/* The parts are put in order afterwards: the head first, then the database, then the rest. */
static bool add_head(struct backup *b, size_t images)
{
	struct buf t = BUF_INIT;
	char at[TIME_TEXT_SIZE];

	time_format(b->made_us, at);
	json_open(&t, NULL, '{');
	json_int(&t, "format", BACKUP_FORMAT);
	json_str(&t, "made_at", at);
	json_str(&t, "program", "paku-otad " PAKU_VERSION);
	json_str(&t, "store", b->server->store->ops->name(b->server->store));
	json_int(&t, "images", (int64_t)images);
	json_close(&t, '}');
	buf_addc(&t, '\n');
	bool ok = buf_ok(&t) && add_text(b, BACKUP_HEAD, t.data, t.len);
	buf_fini(&t);
	return ok;
}

/* Where the key is in the environment there is no such file. */
static bool add_key(struct backup *b)
{
	char path[4200], text[KEY_BYTES];

	snprintf(path, sizeof path, "%s/" BACKUP_KEY, b->server->cfg->data_dir);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, text, sizeof text) : 0;
	if (fd >= 0)
		close(fd);
	return n <= 0 || add_text(b, BACKUP_KEY, text, (size_t)n);
}

/* The sums' text is made while the rest goes out, but how long it will be is known. */
static bool add_sums(struct backup *b)
{
	uint64_t size = 0;

	for (size_t i = 0; i < b->count; i++)
		size += SUM_LINE(b->parts[i].name);
	return add_part(b, BACKUP_SUMS, size) != NULL;
}

static enum ota_code open_copy(struct backup *b, const char *path, struct ota_err *err)
{
	b->copy_fd = open(path, O_RDONLY | O_CLOEXEC);
	off_t size = b->copy_fd >= 0 ? lseek(b->copy_fd, 0, SEEK_END) : -1;
	if (size < 0)
		return ota_fail_errno(err, errno, "the copy of the database, %s", path);
	struct part *p = add_part(b, BACKUP_DATABASE, (uint64_t)size);
	if (!p)
		return ota_fail_nomem(err);
	p->is_database = true;
	return OTA_OK;
}

struct waiting {
	struct mirror_wait wait;
	sem_t done;
};

static void on_fetched(struct mirror_wait *w)
{
	sem_post(&((struct waiting *)(void *)w)->done);
}

/* Where images are in a bucket: in the folder, until the backup is sent. */
static enum ota_code bring_here(struct backup *b, struct part *p, const uint8_t sha256[SHA256_SIZE],
				struct ota_err *err)
{
	struct waiting w = {.wait = {.size = p->size, .done = on_fetched}};

	memcpy(w.wait.sha256, sha256, SHA256_SIZE);
	sem_init(&w.done, 0, 0);
	mirror_fetch(b->server->mirror, &w.wait);
	while (sem_wait(&w.done) != 0)
		;
	sem_destroy(&w.done);
	p->pinned = w.wait.file;
	if (w.wait.code != OTA_OK)
		*err = w.wait.err;
	return w.wait.code;
}

/* An image that is missing is an error before the first byte goes out. */
static enum ota_code check_images(struct backup *b, struct ota_err *err)
{
	for (size_t i = 0; i < b->count; i++) {
		uint8_t sha256[SHA256_SIZE];
		uint64_t size;
		int fd;

		if (!blob_is_name(b->parts[i].name + strlen(BACKUP_IMAGES), sha256))
			return ota_fail(err, OTA_EIO, "a release names the image '%s'",
					b->parts[i].name);
		if (b->server->mirror && bring_here(b, &b->parts[i], sha256, err) != OTA_OK)
			return err->code;
		if (blob_open(b->server->blobs, sha256, &fd, &size, err) != OTA_OK)
			return err->code;
		close(fd);
		if (size != b->parts[i].size)
			return ota_fail(err, OTA_EIO,
					"the image file %s is damaged: it has %" PRIu64
					" bytes, not %" PRIu64 "; upload it again",
					b->parts[i].name, size, b->parts[i].size);
	}
	return OTA_OK;
}

static void reverse(struct part *p, size_t count)
{
	for (size_t i = 0; i < count / 2; i++) {
		struct part keep = p[i];
		p[i] = p[count - 1 - i];
		p[count - 1 - i] = keep;
	}
}

/* Images, then the database, then the head, turned round. */
static enum ota_code collect(struct backup *b, const char *path, struct ota_err *err)
{
	struct store *s = b->server->store;
	enum ota_code rc = s->ops->snapshot(s, path, &b->copied, add_image, b, err);

	if (rc == OTA_OK && b->failed)
		rc = ota_fail_nomem(err);
	if (rc != OTA_OK || (rc = check_images(b, err)) != OTA_OK)
		return rc;
	size_t images = b->count;
	if (b->copied && (rc = open_copy(b, path, err)) != OTA_OK)
		return rc;
	if (!add_head(b, images))
		return ota_fail_nomem(err);
	reverse(b->parts, b->count);
	return add_key(b) && add_sums(b) ? OTA_OK : ota_fail_nomem(err);
}

static uint64_t whole_size(const struct backup *b)
{
	uint64_t size = TAR_END_SIZE;

	for (size_t i = 0; i < b->count; i++)
		size += TAR_BLOCK + b->parts[i].size + tar_padding(b->parts[i].size);
	return size;
}

/* --- sending --- */

static bool broken_off(struct backup *b, const char *what)
{
	char subject[64];

	snprintf(subject, sizeof subject, "request/%s", b->id);
	log_event(LOG_ERROR, subject, "backup_broken_off", "%s: %s", b->parts[b->at].name, what);
	return false;
}

static bool begin_part(struct backup *b)
{
	struct part *p = &b->parts[b->at];
	struct ota_err err = {.msg = "it has no such name"};
	uint8_t sha256[SHA256_SIZE];
	uint64_t size;

	tar_write_header(p->name, p->size, b->made_us / US_PER_S, b->header);
	b->hash = sha256_new();
	if (!b->hash)
		return broken_off(b, "out of memory");
	if (b->at + 1 == b->count) { /* the sums are complete */
		size_t len;
		p->text = buf_take(&b->sums, &len);
		return p->text && len == p->size ? true : broken_off(b, "out of memory");
	}
	if (p->is_database) {
		b->fd = b->copy_fd;
		b->copy_fd = -1;
		return lseek(b->fd, 0, SEEK_SET) == 0 || broken_off(b, strerror(errno));
	}
	if (p->text)
		return true;
	if (!blob_is_name(p->name + strlen(BACKUP_IMAGES), sha256) ||
	    blob_open(b->server->blobs, sha256, &b->fd, &size, &err) != OTA_OK)
		return broken_off(b, err.msg);
	return true;
}

/* An image is called by what it holds. */
static bool end_part(struct backup *b)
{
	struct part *p = &b->parts[b->at];
	uint8_t sha256[SHA256_SIZE];
	char hex[SHA256_HEX_SIZE];

	bool ok = sha256_final(b->hash, sha256);
	sha256_free(&b->hash);
	hex_encode(sha256, sizeof sha256, hex);
	bool image = b->fd >= 0 && !p->is_database;
	if (b->fd >= 0)
		close(b->fd);
	b->fd = -1;
	if (!ok)
		return broken_off(b, "out of memory");
	if (image && strncmp(p->name + strlen(BACKUP_IMAGES), hex, SHA256_HEX_SIZE - 1) != 0)
		return broken_off(b, "the image file is damaged; upload it again");
	buf_printf(&b->sums, "%s  %s\n", hex, p->name);
	b->at++;
	b->done = 0;
	return true;
}

/* Up to MAX bytes of the part; 0: it failed. */
static size_t send_part(struct backup *b, char *out, size_t max)
{
	struct part *p = &b->parts[b->at];
	uint64_t at = b->done;
	size_t n;

	if (at == 0 && !begin_part(b))
		return 0;
	if (at < TAR_BLOCK) {
		n = TAR_BLOCK - (size_t)at < max ? TAR_BLOCK - (size_t)at : max;
		memcpy(out, b->header + at, n);
	} else if (at < TAR_BLOCK + p->size) {
		uint64_t left = TAR_BLOCK + p->size - at;
		n = left < max ? (size_t)left : max;
		if (b->fd >= 0) {
			ssize_t got = read(b->fd, out, n);
			if (got <= 0)
				return broken_off(b, got < 0 ? strerror(errno) : "it is too short");
			n = (size_t)got;
		} else {
			memcpy(out, p->text + (at - TAR_BLOCK), n);
		}
		if (!sha256_update(b->hash, out, n))
			return broken_off(b, "out of memory");
	} else {
		uint64_t left = TAR_BLOCK + p->size + tar_padding(p->size) - at;
		n = left < max ? (size_t)left : max;
		memset(out, 0, n);
	}
	b->done += n;
	if (b->done == TAR_BLOCK + p->size + tar_padding(p->size) && !end_part(b))
		return 0;
	return n;
}

static ssize_t send_some(void *cls, uint64_t pos, char *out, size_t max)
{
	struct backup *b = cls;

	(void)pos; /* asked for in order */
	if (b->at == b->count) {
		memset(out, 0, max < TAR_END_SIZE ? max : TAR_END_SIZE);
		return (ssize_t)(max < TAR_END_SIZE ? max : TAR_END_SIZE);
	}
	size_t n = send_part(b, out, max);
	return n ? (ssize_t)n : MHD_CONTENT_READER_END_WITH_ERROR;
}

/* --- the request --- */

static void release_backup(struct request *r)
{
	if (r->memory)
		backup_free(r->memory);
	r->memory = NULL;
}

static void copy_database(struct request *r)
{
	struct backup *b = r->memory;
	char path[4200];

	b->made_us = clock_service_us();
	backup_copy_path(r->server->cfg->data_dir, path, sizeof path);
	unlink(path);
	r->job_code = collect(b, path, &r->job_err);
	unlink(path); /* whoever has it open goes on reading */
}

static enum next send_backup(struct request *r)
{
	struct backup *b = r->memory;

	if (r->job_code != OTA_OK)
		return respond_err(r, &r->job_err);
	struct MHD_Response *m = MHD_create_response_from_callback(whole_size(b), SEND_BYTES,
								   send_some, b, backup_free);
	if (!m)
		return respond_error(r, OTA_ENOMEM, "out of memory");
	r->memory = NULL; /* the response's */
	r->response = m;
	r->status = 200;
	r->content_type = "application/x-tar";
	r->counted_download = true; /* it has a download's time, and its share of the network */
	atomic_fetch_add(&r->server->active_downloads, 1);
	return NEXT_ANSWER;
}

void backup_copy_path(const char *data_dir, char *out, size_t size)
{
	snprintf(out, size, "%s/" COPY_NAME, data_dir);
}

enum next backup_make(struct request *r)
{
	bool none = false;

	if (!atomic_compare_exchange_strong(&r->server->backing_up, &none, true))
		return respond_error(r, OTA_ECONFLICT,
				     "another backup is being made; one at a time");
	struct backup *b = calloc(1, sizeof *b);
	if (!b) {
		atomic_store(&r->server->backing_up, false);
		return respond_error(r, OTA_ENOMEM, "out of memory");
	}
	b->server = r->server;
	b->fd = b->copy_fd = -1;
	snprintf(b->id, sizeof b->id, "%s", r->id);
	blob_hold(r->server->blobs);
	r->memory = b;
	r->release = release_backup;
	return request_job(r, copy_database, send_backup);
}
