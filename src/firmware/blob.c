/* SPDX-License-Identifier: MIT */
#include "firmware/blob.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define TEMP_PREFIX ".upload-"
/* In a shared folder: what is younger may be another instance's. */
#define SHARED_AGE_S 3600

struct blob_store {
	char *dir;
	int dir_fd;
	bool shared;
	pthread_mutex_t lock;
	int writers; /* under lock; and who holds what is there */
};

struct blob_writer {
	struct blob_store *store;
	int fd;
	uint64_t size;
	struct sha256 *hash;
	uint8_t sha256[SHA256_SIZE];
	bool hashed, kept;
	char temp[32];
};

void blob_name(const uint8_t sha256[SHA256_SIZE], char out[BLOB_NAME_SIZE])
{
	hex_encode(sha256, SHA256_SIZE, out);
	memcpy(out + SHA256_HEX_SIZE - 1, ".bin", 5);
}

/* The folder itself must outlive a power cut: its name stands in the one above. */
static bool sync_parent(int dir_fd)
{
	int fd = openat(dir_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return errno == EACCES; /* then we cannot have made it */
	bool ok = fsync(fd) == 0;
	close(fd);
	return ok;
}

enum ota_code blob_store_open(const char *dir, struct blob_store **out, struct ota_err *err)
{
	struct blob_store *s = calloc(1, sizeof *s);

	if (!s || !(s->dir = strdup(dir))) {
		free(s);
		return ota_fail_nomem(err);
	}
	s->dir_fd = -1;
	pthread_mutex_init(&s->lock, NULL);
	if (mkdir(dir, 0700) != 0 && errno != EEXIST)
		ota_fail_errno(err, errno, "the firmware folder %s cannot be made", dir);
	else if ((s->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		ota_fail_errno(err, errno, "the firmware folder %s cannot be opened", dir);
	else if (faccessat(s->dir_fd, ".", W_OK | X_OK, AT_EACCESS) != 0)
		ota_fail_errno(err, errno, "the firmware folder %s cannot be written", dir);
	else if (!sync_parent(s->dir_fd))
		ota_fail_errno(err, errno, "the folder above %s cannot be synced", dir);
	else {
		*out = s;
		return OTA_OK;
	}
	blob_store_close(&s);
	return err->code;
}

void blob_store_close(struct blob_store **sp)
{
	struct blob_store *s = *sp;

	if (!s)
		return;
	if (s->dir_fd >= 0)
		close(s->dir_fd);
	pthread_mutex_destroy(&s->lock);
	free(s->dir);
	free(s);
	*sp = NULL;
}

const char *blob_store_dir(const struct blob_store *s)
{
	return s->dir;
}

bool blob_is_name(const char *name, uint8_t sha256[SHA256_SIZE])
{
	char hex[SHA256_HEX_SIZE];

	if (strlen(name) != BLOB_NAME_SIZE - 1 || strcmp(name + SHA256_HEX_SIZE - 1, ".bin") != 0)
		return false;
	memcpy(hex, name, SHA256_HEX_SIZE - 1);
	hex[SHA256_HEX_SIZE - 1] = '\0';
	return hex_decode(hex, sha256, SHA256_SIZE);
}

void blob_store_share(struct blob_store *s)
{
	s->shared = true;
}

static bool may_go(const struct blob_store *s, const char *name)
{
	struct stat st;

	return !s->shared || (fstatat(s->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
			      time(NULL) - st.st_mtime > SHARED_AGE_S);
}

struct sweep {
	blob_wanted_fn *wanted;
	void *ctx;
	bool images; /* remove those that are not wanted, too */
	int removed, wanted_images, other_images;
};

static void sweep_file(struct blob_store *s, const char *name, void *arg)
{
	struct sweep *w = arg;
	uint8_t sha256[SHA256_SIZE];
	bool remove = strncmp(name, TEMP_PREFIX, sizeof TEMP_PREFIX - 1) == 0;

	if (blob_is_name(name, sha256)) {
		bool wanted = w->wanted(w->ctx, sha256);
		w->wanted_images += wanted;
		w->other_images += !wanted;
		remove = w->images && !wanted;
	}
	if (remove && may_go(s, name) && unlinkat(s->dir_fd, name, 0) == 0)
		w->removed++;
}

/* Calls FN for each name in the folder. */
static enum ota_code each_name(struct blob_store *s,
			       void (*fn)(struct blob_store *s, const char *name, void *arg),
			       void *arg, struct ota_err *err)
{
	int fd = openat(s->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;

	if (!d) {
		ota_fail_errno(err, errno, "reading the firmware folder %s", s->dir);
		if (fd >= 0)
			close(fd);
		return err->code;
	}
	for (;;) {
		errno = 0;
		struct dirent *e = readdir(d);
		if (!e)
			break;
		fn(s, e->d_name, arg);
	}
	int failed = errno;
	closedir(d);
	return failed ? ota_fail_errno(err, failed, "reading the firmware folder %s", s->dir)
		      : OTA_OK;
}

enum ota_code blob_sweep(struct blob_store *s, blob_wanted_fn *wanted, void *ctx,
			 struct blob_swept *out, struct ota_err *err)
{
	struct sweep w = {.wanted = wanted, .ctx = ctx};
	enum ota_code rc = each_name(s, sweep_file, &w, err);

	if (rc == OTA_OK && w.wanted_images > 0 && w.other_images > 0) {
		w.images = true;
		rc = each_name(s, sweep_file, &w, err);
	}
	*out = (struct blob_swept){.removed = w.removed, .unknown = w.images ? 0 : w.other_images};
	return rc;
}

struct listing {
	void (*fn)(void *ctx, const uint8_t sha256[SHA256_SIZE], uint64_t size);
	void *ctx;
};

static void list_name(struct blob_store *s, const char *name, void *arg)
{
	const struct listing *l = arg;
	uint8_t sha256[SHA256_SIZE];
	struct stat st;

	if (blob_is_name(name, sha256) && fstatat(s->dir_fd, name, &st, 0) == 0)
		l->fn(l->ctx, sha256, (uint64_t)st.st_size);
}

enum ota_code blob_list(struct blob_store *s,
			void (*fn)(void *ctx, const uint8_t sha256[SHA256_SIZE], uint64_t size),
			void *ctx, struct ota_err *err)
{
	struct listing l = {fn, ctx};

	return each_name(s, list_name, &l, err);
}

static void count_writer(struct blob_store *s, int delta)
{
	pthread_mutex_lock(&s->lock);
	s->writers += delta;
	pthread_mutex_unlock(&s->lock);
}

void blob_hold(struct blob_store *s)
{
	count_writer(s, 1);
}

void blob_let_go(struct blob_store *s)
{
	count_writer(s, -1);
}

static bool open_temp(struct blob_writer *w)
{
	uint8_t chance[8];
	char hex[2 * sizeof chance + 1];

	for (int tries = 0; tries < 10; tries++) {
		if (!random_bytes(chance, sizeof chance))
			return false;
		hex_encode(chance, sizeof chance, hex);
		snprintf(w->temp, sizeof w->temp, TEMP_PREFIX "%s", hex);
		w->fd = openat(w->store->dir_fd, w->temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC,
			       0600);
		if (w->fd >= 0 || errno != EEXIST)
			return w->fd >= 0;
	}
	return false;
}

enum ota_code blob_writer_open(struct blob_store *s, struct blob_writer **out, struct ota_err *err)
{
	struct blob_writer *w = calloc(1, sizeof *w);

	if (!w)
		return ota_fail_nomem(err);
	w->store = s;
	w->fd = -1;
	count_writer(s, 1);
	w->hash = sha256_new();
	if (!w->hash) {
		blob_writer_close(&w);
		return ota_fail_nomem(err);
	}
	if (!open_temp(w)) {
		int e = errno;
		blob_writer_close(&w);
		ota_fail_errno(err, e, "an upload cannot be stored in %s", s->dir);
		err->code = e == ENOMEM ? OTA_ENOMEM : OTA_EUNAVAIL;
		return err->code;
	}
	*out = w;
	return OTA_OK;
}

/* A full disk passes; the client may come again. */
static enum ota_code fail_write(struct blob_writer *w, int errnum, struct ota_err *err)
{
	if (errnum == ENOSPC || errnum == EDQUOT || errnum == EFBIG)
		return ota_fail(err, OTA_EUNAVAIL,
				"the image cannot be stored: the disk that holds %s is full",
				w->store->dir);
	ota_fail_errno(err, errnum, "the image cannot be stored in %s", w->store->dir);
	return err->code = OTA_EUNAVAIL;
}

enum ota_code blob_writer_write(struct blob_writer *w, const void *data, size_t len,
				struct ota_err *err)
{
	if (!sha256_update(w->hash, data, len))
		return ota_fail_nomem(err);
	for (size_t done = 0; done < len;) {
		ssize_t n = write(w->fd, (const char *)data + done, len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_write(w, errno, err);
		done += (size_t)n;
	}
	w->size += len;
	return OTA_OK;
}

uint64_t blob_writer_size(const struct blob_writer *w)
{
	return w->size;
}

int blob_writer_fd(const struct blob_writer *w)
{
	return w->fd;
}

enum ota_code blob_writer_read(struct blob_writer *w, uint64_t off, void *buf, size_t len,
			       struct ota_err *err)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pread(w->fd, (char *)buf + done, len - done, (off_t)(off + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return ota_fail_errno(err, n < 0 ? errno : EIO, "reading the upload back");
		done += (size_t)n;
	}
	return OTA_OK;
}

enum ota_code blob_writer_hash(struct blob_writer *w, uint8_t sha256[SHA256_SIZE],
			       struct ota_err *err)
{
	if (!w->hashed && !sha256_final(w->hash, w->sha256))
		return ota_fail_nomem(err);
	w->hashed = true;
	memcpy(sha256, w->sha256, SHA256_SIZE);
	return OTA_OK;
}

enum ota_code blob_writer_keep(struct blob_writer *w, struct ota_err *err)
{
	char name[BLOB_NAME_SIZE];
	uint8_t sha256[SHA256_SIZE];
	enum ota_code rc = blob_writer_hash(w, sha256, err);

	if (rc != OTA_OK)
		return rc;
	blob_name(sha256, name);
	if (fsync(w->fd) != 0)
		return fail_write(w, errno, err);
	if (renameat(w->store->dir_fd, w->temp, w->store->dir_fd, name) != 0)
		return fail_write(w, errno, err);
	w->kept = true; /* under its name now; whether a release will name it, the sweep will see */
	if (fsync(w->store->dir_fd) != 0)
		return fail_write(w, errno, err);
	return OTA_OK;
}

void blob_writer_close(struct blob_writer **wp)
{
	struct blob_writer *w = *wp;

	if (!w)
		return;
	if (w->fd >= 0) {
		close(w->fd);
		if (!w->kept)
			unlinkat(w->store->dir_fd, w->temp, 0);
	}
	sha256_free(&w->hash);
	count_writer(w->store, -1);
	free(w);
	*wp = NULL;
}

enum ota_code blob_open(struct blob_store *s, const uint8_t sha256[SHA256_SIZE], int *fd,
			uint64_t *size, struct ota_err *err)
{
	char name[BLOB_NAME_SIZE];
	struct stat st;

	blob_name(sha256, name);
	int f = openat(s->dir_fd, name, O_RDONLY | O_CLOEXEC);
	if (f < 0)
		return ota_fail_errno(err, errno, "the image file %s/%s cannot be opened", s->dir,
				      name);
	if (fstat(f, &st) != 0) {
		int e = errno;
		close(f);
		return ota_fail_errno(err, e, "the image file %s/%s cannot be read", s->dir, name);
	}
	*fd = f;
	*size = (uint64_t)st.st_size;
	return OTA_OK;
}

bool blob_remove(struct blob_store *s, const uint8_t sha256[SHA256_SIZE], blob_wanted_fn *wanted,
		 void *ctx)
{
	char name[BLOB_NAME_SIZE];

	blob_name(sha256, name);
	pthread_mutex_lock(&s->lock);
	bool unused = !s->shared && s->writers == 0 && !wanted(ctx, sha256);
	if (unused)
		unlinkat(s->dir_fd, name, 0);
	pthread_mutex_unlock(&s->lock);
	return unused;
}

bool blob_busy(struct blob_store *s)
{
	pthread_mutex_lock(&s->lock);
	bool busy = s->writers > 0;
	pthread_mutex_unlock(&s->lock);
	return busy;
}

void blob_evict(struct blob_store *s, const uint8_t sha256[SHA256_SIZE])
{
	char name[BLOB_NAME_SIZE];

	blob_name(sha256, name);
	unlinkat(s->dir_fd, name, 0);
}

enum ota_code blob_compare(int fd, const uint8_t sha256[SHA256_SIZE], struct ota_err *err)
{
	static _Thread_local unsigned char chunk[64 * 1024];
	struct sha256 *hash = sha256_new();
	uint8_t is[SHA256_SIZE];
	bool ok = hash != NULL;
	off_t at = 0;
	ssize_t n = 0;

	while (ok && (n = pread(fd, chunk, sizeof chunk, at)) > 0) {
		ok = sha256_update(hash, chunk, (size_t)n);
		at += n;
	}
	int e = errno;
	ok = ok && n == 0 && sha256_final(hash, is);
	sha256_free(&hash);
	if (n < 0)
		return ota_fail_errno(err, e, "the image file cannot be read");
	if (!ok)
		return ota_fail_nomem(err);
	return memcmp(is, sha256, sizeof is) == 0
		       ? OTA_OK
		       : ota_fail(err, OTA_ECONFLICT, "is damaged: its SHA-256 is another");
}
