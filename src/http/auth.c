/* SPDX-License-Identifier: MIT */
#include "http/auth.h"

#include "base/clock.h"
#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEY_FILE   "api-key.sha256"
#define RECHECK_MS 500
#define BLANKS     " \t"

struct auth {
	char *path; /* NULL: the key came from the environment */
	pthread_mutex_t lock;
	uint8_t hash[SHA256_SIZE]; /* under lock, as is the rest */
	int64_t checked_ms;
	bool made; /* and not kept yet */
};

static enum ota_code read_hash(const char *path, uint8_t hash[SHA256_SIZE], struct ota_err *err)
{
	char text[SHA256_HEX_SIZE + 1] = "";
	FILE *f = fopen(path, "re");

	if (!f) {
		int e = errno;
		ota_fail_errno(err, e, "the key file %s cannot be read", path);
		return err->code = e == ENOENT ? OTA_ENOTFOUND : OTA_EIO;
	}
	size_t n = fread(text, 1, sizeof text - 1, f);
	fclose(f);
	text[n] = '\0';
	text[strcspn(text, "\n")] = '\0';
	if (!hex_decode(text, hash, SHA256_SIZE))
		return ota_fail(
			err, OTA_EIO,
			"the key file %s is damaged; make a new key with paku-otad --new-key",
			path);
	return OTA_OK;
}

static enum ota_code write_synced(int fd, const char *text, const char *path, struct ota_err *err)
{
	size_t len = strlen(text);

	for (size_t done = 0; done < len;) {
		ssize_t n = write(fd, text + done, len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return ota_fail_errno(err, errno, "writing %s", path);
		done += (size_t)n;
	}
	if (fsync(fd) != 0)
		return ota_fail_errno(err, errno, "writing %s", path);
	return OTA_OK;
}

static enum ota_code sync_folder(const char *dir, struct ota_err *err)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) != 0) {
		int e = errno;
		if (fd >= 0)
			close(fd);
		return ota_fail_errno(err, e, "writing %s", dir);
	}
	close(fd);
	return OTA_OK;
}

/* Through a temporary file, so that a crash leaves the old key or the new one. */
static enum ota_code write_hash(const char *dir, const uint8_t hash[SHA256_SIZE],
				struct ota_err *err)
{
	char hex[SHA256_HEX_SIZE + 1], *path = NULL, *temp = NULL;
	enum ota_code rc = OTA_OK;
	int fd = -1;

	hex_encode(hash, SHA256_SIZE, hex);
	strcat(hex, "\n");
	if (asprintf(&path, "%s/" KEY_FILE, dir) < 0 || asprintf(&temp, "%s.new", path) < 0) {
		rc = ota_fail_nomem(err);
		goto out;
	}
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0) {
		rc = ota_fail_errno(err, errno, "the key file %s cannot be written", temp);
		goto out;
	}
	rc = write_synced(fd, hex, temp, err);
	if (rc == OTA_OK && rename(temp, path) != 0)
		rc = ota_fail_errno(err, errno, "the key file %s cannot be written", path);
	if (rc == OTA_OK)
		rc = sync_folder(dir, err);
out:
	if (fd >= 0)
		close(fd);
	free(temp);
	free(path);
	return rc;
}

static enum ota_code make_key(char made[API_KEY_SIZE], uint8_t hash[SHA256_SIZE],
			      struct ota_err *err)
{
	uint8_t chance[20];
	char hex[2 * sizeof chance + 1];

	if (!random_bytes(chance, sizeof chance))
		return ota_fail(err, OTA_EIO, "the system has no random numbers");
	hex_encode(chance, sizeof chance, hex);
	snprintf(made, API_KEY_SIZE, "paku_%s", hex);
	return sha256_once(made, strlen(made), hash) ? OTA_OK : ota_fail_nomem(err);
}

enum ota_code auth_new_key(const char *data_dir, char made[API_KEY_SIZE], struct ota_err *err)
{
	uint8_t hash[SHA256_SIZE];
	enum ota_code rc = make_key(made, hash, err);

	return rc == OTA_OK ? write_hash(data_dir, hash, err) : rc;
}

enum ota_code auth_open(const char *key, const char *data_dir, char made[API_KEY_SIZE],
			struct auth **out, struct ota_err *err)
{
	struct auth *a = calloc(1, sizeof *a);
	enum ota_code rc = OTA_OK;

	made[0] = '\0';
	if (!a)
		return ota_fail_nomem(err);
	pthread_mutex_init(&a->lock, NULL);
	if (key[0]) {
		if (!sha256_once(key, strlen(key), a->hash))
			rc = ota_fail_nomem(err);
	} else if (asprintf(&a->path, "%s/" KEY_FILE, data_dir) < 0) {
		a->path = NULL;
		rc = ota_fail_nomem(err);
	} else if ((rc = read_hash(a->path, a->hash, err)) == OTA_ENOTFOUND) {
		rc = make_key(made, a->hash, err);
		a->made = rc == OTA_OK;
	}
	if (rc != OTA_OK) {
		auth_close(&a);
		return rc;
	}
	*out = a;
	return OTA_OK;
}

enum ota_code auth_keep(struct auth *a, const char *data_dir, struct ota_err *err)
{
	uint8_t hash[SHA256_SIZE];

	if (!a->made)
		return OTA_OK;
	/* Requests are answered already, and may find another one in the file. */
	pthread_mutex_lock(&a->lock);
	memcpy(hash, a->hash, sizeof hash);
	pthread_mutex_unlock(&a->lock);
	enum ota_code rc = write_hash(data_dir, hash, err);
	a->made = rc != OTA_OK;
	return rc;
}

void auth_close(struct auth **ap)
{
	struct auth *a = *ap;

	if (!a)
		return;
	pthread_mutex_destroy(&a->lock);
	free(a->path);
	free(a);
	*ap = NULL;
}

/* The file may have been replaced by --new-key: then the old key ends within half a second. */
static void refresh(struct auth *a)
{
	int64_t now = clock_mono_ms();
	uint8_t hash[SHA256_SIZE];
	struct ota_err err;

	if (!a->path || now - a->checked_ms < RECHECK_MS)
		return;
	a->checked_ms = now;
	if (read_hash(a->path, hash, &err) == OTA_OK)
		memcpy(a->hash, hash, sizeof hash);
}

enum ota_code auth_check(struct auth *a, const char *key, struct ota_err *err)
{
	uint8_t hash[SHA256_SIZE];
	size_t len;

	key += strspn(key, BLANKS);
	for (len = strlen(key); len > 0 && strchr(BLANKS, key[len - 1]); len--)
		;
	if (!sha256_once(key, len, hash))
		return ota_fail_nomem(err);
	pthread_mutex_lock(&a->lock);
	refresh(a);
	bool ok = equal_constant_time(hash, a->hash, sizeof hash);
	pthread_mutex_unlock(&a->lock);
	return ok ? OTA_OK : ota_fail(err, OTA_EAUTH, "Invalid API key");
}
