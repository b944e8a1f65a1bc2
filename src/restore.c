/* SPDX-License-Identifier: MIT */
#include "restore.h"

#include "base/buf.h"
#include "base/hash.h"
#include "base/tar.h"
#include "firmware/blob.h"
#include "http/backup.h"
#include "store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK      ((size_t)256 * 1024)
#define TEXT_MOST  (64u << 20) /* of the parts that are held in memory */
#define UNFINISHED BACKUP_DATABASE ".restoring"

struct restore {
	const struct config *cfg;
	const char *archive;
	FILE *in;
	uint64_t size, read; /* of the archive; 0: not known */
	struct blob_store *blobs;
	bool head, database, key, sums;
	int images;
	struct buf kept;                           /* names of images, BLOB_NAME_SIZE each */
	struct buf key_text, sums_have, sums_said; /* sums: as computed, as the archive says */
	int shown_percent;
};

static void path_in(const struct config *cfg, const char *name, char out[4200])
{
	snprintf(out, 4200, "%s/%s", cfg->data_dir, name);
}

static bool is_there(const struct config *cfg, const char *name)
{
	char path[4200];

	path_in(cfg, name, path);
	return access(path, F_OK) == 0;
}

bool restore_is_unfinished(const struct config *cfg)
{
	return is_there(cfg, UNFINISHED);
}

/* --- the place --- */

static void firmware_dir(const struct config *cfg, char out[4200])
{
	if (cfg->firmware_path[0])
		snprintf(out, 4200, "%s", cfg->firmware_path);
	else
		path_in(cfg, "firmware", out);
}

/* A file in DIR whose name is not in the text EXCEPT; "": there is none. */
static void stranger(const char *dir, const char *except, char out[256])
{
	DIR *d = opendir(dir);

	out[0] = '\0';
	for (struct dirent *e; d && !out[0] && (e = readdir(d)) != NULL;)
		if (e->d_name[0] != '.' && !strstr(except, e->d_name))
			snprintf(out, 256, "%s", e->d_name);
	if (d)
		closedir(d);
}

static enum ota_code firmware_has_only(const struct config *cfg, const char *names,
				       struct ota_err *err)
{
	char dir[4200], found[256];

	firmware_dir(cfg, dir);
	stranger(dir, names, found);
	if (!found[0])
		return OTA_OK;
	return ota_fail(err, OTA_ECONFLICT,
			"the firmware folder %s is not empty: it has %s; restore into an empty "
			"one, or move that away first",
			dir, found);
}

static enum ota_code must_be_empty(const struct config *cfg, struct ota_err *err)
{
	static const char *const names[] = {BACKUP_DATABASE, BACKUP_DATABASE "-wal", BACKUP_KEY};

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		if (is_there(cfg, names[i]))
			return ota_fail(err, OTA_ECONFLICT,
					"the data folder %s is not empty: it has %s; restore into "
					"an empty one (OTA_DATA_DIR), or move that away first",
					cfg->data_dir, names[i]);
	return firmware_has_only(cfg, "", err);
}

/* Takes away what was written, the mark last. */
static void clear(struct restore *r)
{
	char dir[4200], path[4400];

	firmware_dir(r->cfg, dir);
	for (size_t i = 0; i < r->kept.len; i += BLOB_NAME_SIZE) {
		snprintf(path, sizeof path, "%s/%s", dir, r->kept.data + i);
		unlink(path);
	}
	path_in(r->cfg, BACKUP_KEY, path);
	unlink(path);
	path_in(r->cfg, UNFINISHED, path);
	unlink(path);
}

static enum ota_code prepare_place(struct restore *r, struct ota_err *err)
{
	const struct config *cfg = r->cfg;
	/* Broken off by a crash: what it left is of this archive, or is found to be a stranger. */
	bool again = restore_is_unfinished(cfg) && !is_there(cfg, BACKUP_DATABASE);
	char path[4200];
	enum ota_code rc = again ? OTA_OK : must_be_empty(cfg, err);

	if (rc != OTA_OK)
		return rc;
	firmware_dir(cfg, path);
	if ((rc = blob_store_open(path, &r->blobs, err)) != OTA_OK)
		return rc;
	path_in(cfg, UNFINISHED, path);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return ota_fail_errno(err, errno, "%s", path);
	close(fd);
	return OTA_OK;
}

/* --- reading --- */

static void show(struct restore *r)
{
	int percent = r->size ? (int)(r->read * 100 / r->size) : 0;

	if (!isatty(1) || percent == r->shown_percent)
		return;
	r->shown_percent = percent;
	printf("\r%3d %%", percent);
	fflush(stdout);
}

static enum ota_code cut_off(const struct restore *r, struct ota_err *err)
{
	if (ferror(r->in))
		return ota_fail_errno(err, errno, "reading %s", r->archive);
	return ota_fail(err, OTA_EIO,
			"%s ends before its end: it is not whole; take another backup, or copy it "
			"anew",
			r->archive);
}

static enum ota_code read_exactly(struct restore *r, void *into, size_t len, struct ota_err *err)
{
	if (fread(into, 1, len, r->in) != len)
		return cut_off(r, err);
	r->read += len;
	show(r);
	return OTA_OK;
}

/* Where a file's bytes go: one of the three. */
struct sink {
	int fd; /* -1 */
	struct blob_writer *blob;
	struct buf *text;
};

static enum ota_code put(const struct sink *s, const void *data, size_t len, struct ota_err *err)
{
	if (s->blob)
		return blob_writer_write(s->blob, data, len, err);
	if (s->text) {
		buf_add(s->text, data, len);
		return buf_ok(s->text) ? OTA_OK : ota_fail_nomem(err);
	}
	for (size_t done = 0; done < len;) {
		ssize_t n = write(s->fd, (const char *)data + done, len - done);
		if (n < 0 && errno != EINTR)
			return ota_fail_errno(err, errno, "writing the database");
		done += n > 0 ? (size_t)n : 0;
	}
	return OTA_OK;
}

/* One file to its sink, and its sum to those that were computed. */
static enum ota_code copy_file(struct restore *r, const char *name, uint64_t size,
			       const struct sink *s, struct ota_err *err)
{
	static unsigned char chunk[CHUNK];
	struct sha256 *hash = sha256_new();
	uint8_t sha256[SHA256_SIZE];
	char hex[SHA256_HEX_SIZE];
	enum ota_code rc = hash ? OTA_OK : ota_fail_nomem(err);

	for (uint64_t left = size; left > 0 && rc == OTA_OK;) {
		size_t n = left < CHUNK ? (size_t)left : CHUNK;
		rc = read_exactly(r, chunk, n, err);
		if (rc == OTA_OK && !sha256_update(hash, chunk, n))
			rc = ota_fail_nomem(err);
		if (rc == OTA_OK)
			rc = put(s, chunk, n, err);
		left -= n;
	}
	if (rc == OTA_OK && tar_padding(size))
		rc = read_exactly(r, chunk, tar_padding(size), err);
	if (rc == OTA_OK && !sha256_final(hash, sha256))
		rc = ota_fail_nomem(err);
	sha256_free(&hash);
	if (rc != OTA_OK)
		return rc;
	hex_encode(sha256, sizeof sha256, hex);
	if (s->text != &r->sums_said)
		buf_printf(&r->sums_have, "%s  %s\n", hex, name);
	return buf_ok(&r->sums_have) ? OTA_OK : ota_fail_nomem(err);
}

static enum ota_code copy_image(struct restore *r, const char *name, uint64_t size,
				struct ota_err *err)
{
	uint8_t said[SHA256_SIZE], is[SHA256_SIZE];
	char file[BLOB_NAME_SIZE];
	struct sink s = {.fd = -1};
	enum ota_code rc;

	if (!blob_is_name(name + strlen(BACKUP_IMAGES), said))
		return ota_fail(err, OTA_EIO, "%s has a file %s, which is no image's name",
				r->archive, name);
	if ((rc = blob_writer_open(r->blobs, &s.blob, err)) != OTA_OK)
		return rc;
	if ((rc = copy_file(r, name, size, &s, err)) == OTA_OK &&
	    (rc = blob_writer_hash(s.blob, is, err)) == OTA_OK) {
		if (memcmp(said, is, sizeof is) != 0)
			rc = ota_fail(err, OTA_EIO,
				      "%s is damaged: the image %s is not what its name says "
				      "(SHA-256)",
				      r->archive, name);
		else
			rc = blob_writer_keep(s.blob, err);
	}
	blob_writer_close(&s.blob);
	if (rc != OTA_OK)
		return rc;
	blob_name(is, file);
	buf_add(&r->kept, file, sizeof file);
	r->images++;
	return buf_ok(&r->kept) ? OTA_OK : ota_fail_nomem(err);
}

static enum ota_code copy_database(struct restore *r, uint64_t size, struct ota_err *err)
{
	char path[4200];
	struct sink s = {.fd = -1};

	path_in(r->cfg, UNFINISHED, path);
	s.fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (s.fd < 0)
		return ota_fail_errno(err, errno, "%s", path);
	enum ota_code rc = copy_file(r, BACKUP_DATABASE, size, &s, err);
	if (rc == OTA_OK && fsync(s.fd) != 0)
		rc = ota_fail_errno(err, errno, "writing %s", path);
	close(s.fd);
	r->database = true;
	return rc;
}

static enum ota_code copy_text(struct restore *r, const char *name, uint64_t size, struct buf *into,
			       struct ota_err *err)
{
	struct sink s = {.fd = -1, .text = into};

	if (size > TEXT_MOST)
		return ota_fail(err, OTA_EIO, "%s: %s is too large", r->archive, name);
	return copy_file(r, name, size, &s, err);
}

static enum ota_code check_head(struct restore *r, uint64_t size, struct ota_err *err)
{
	struct buf text = BUF_INIT;
	char want[32];
	enum ota_code rc = copy_text(r, BACKUP_HEAD, size, &text, err);

	snprintf(want, sizeof want, "{\"format\":%d,", BACKUP_FORMAT);
	if (rc == OTA_OK && (!text.data || strncmp(text.data, want, strlen(want)) != 0))
		rc = ota_fail(err, OTA_ECONFLICT,
			      "%s was made by a newer paku-otad, of another format; use that one",
			      r->archive);
	buf_fini(&text);
	r->head = true;
	return rc;
}

/* Once each, the head first. */
static enum ota_code take_file(struct restore *r, const char *name, uint64_t size,
			       struct ota_err *err)
{
	if (!r->head && strcmp(name, BACKUP_HEAD) != 0)
		return ota_fail(err, OTA_EIO, "%s is no backup of a paku-otad", r->archive);
	if (!r->head)
		return check_head(r, size, err);
	if (!r->database && strcmp(name, BACKUP_DATABASE) == 0)
		return copy_database(r, size, err);
	if (strncmp(name, BACKUP_IMAGES, strlen(BACKUP_IMAGES)) == 0)
		return copy_image(r, name, size, err);
	if (!r->key && strcmp(name, BACKUP_KEY) == 0) {
		r->key = true;
		return copy_text(r, name, size, &r->key_text, err);
	}
	if (strcmp(name, BACKUP_SUMS) == 0) {
		r->sums = true;
		return copy_text(r, name, size, &r->sums_said, err);
	}
	return ota_fail(err, OTA_EIO, "%s has a file %s, which no backup has there", r->archive,
			name);
}

/* Which file's sum is another. */
static enum ota_code compare_sums(struct restore *r, struct ota_err *err)
{
	const char *have = r->sums_have.data ? r->sums_have.data : "",
		   *said = r->sums_said.data ? r->sums_said.data : "";

	while (*have || *said) {
		size_t n = strcspn(have, "\n"), m = strcspn(said, "\n");
		if (n != m || strncmp(have, said, n) != 0) {
			const char *line =
				n > SHA256_HEX_SIZE + 1 ? have + SHA256_HEX_SIZE + 1 : BACKUP_SUMS;
			return ota_fail(err, OTA_EIO,
					"%s is damaged: %.*s is not what was backed up (SHA-256)",
					r->archive, (int)strcspn(line, "\n"), line);
		}
		have += n + (have[n] == '\n');
		said += m + (said[m] == '\n');
	}
	return OTA_OK;
}

static enum ota_code read_all(struct restore *r, struct ota_err *err)
{
	unsigned char header[TAR_BLOCK];
	char name[TAR_NAME_SIZE];
	uint64_t size;
	enum ota_code rc = OTA_OK;

	while (rc == OTA_OK && !r->sums) {
		if ((rc = read_exactly(r, header, sizeof header, err)) != OTA_OK)
			break;
		switch (tar_read_header(header, name, &size)) {
		case TAR_FILE: rc = take_file(r, name, size, err); break;
		case TAR_END: rc = cut_off(r, err); break;
		case TAR_BROKEN:
			rc = ota_fail(err, OTA_EIO,
				      r->head ? "%s is damaged" : "%s is no backup of a paku-otad",
				      r->archive);
		}
	}
	return rc == OTA_OK ? compare_sums(r, err) : rc;
}

/* --- the end --- */

struct look {
	struct restore *r;
	struct ota_err *err;
	enum ota_code rc;
};

static bool image_is_there(void *ctx, const char *hex, int64_t size)
{
	struct look *l = ctx;
	uint8_t sha256[SHA256_SIZE];
	uint64_t has;
	int fd;

	if (!hex_decode(hex, sha256, sizeof sha256)) {
		l->rc = ota_fail(l->err, OTA_EIO, "a release names the image '%s'", hex);
	} else if ((l->rc = blob_open(l->r->blobs, sha256, &fd, &has, l->err)) == OTA_OK) {
		close(fd);
		if (has != (uint64_t)size)
			l->rc = ota_fail(l->err, OTA_EIO,
					 "the image %s has %" PRIu64 " bytes, and its release says "
					 "%" PRId64,
					 hex, has, size);
	}
	return l->rc == OTA_OK;
}

static enum ota_code check_database(struct restore *r, struct ota_err *err)
{
	struct look l = {.r = r, .err = err};
	char path[4200];

	path_in(r->cfg, UNFINISHED, path);
	enum ota_code rc = store_sqlite_check(path, image_is_there, &l, err);
	return rc != OTA_OK ? rc : l.rc;
}

static bool sync_dir(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool ok = fd >= 0 && fsync(fd) == 0;

	if (fd >= 0)
		close(fd);
	return ok;
}

static enum ota_code write_key(struct restore *r, struct ota_err *err)
{
	char path[4200];
	struct sink s;

	path_in(r->cfg, BACKUP_KEY, path);
	s = (struct sink){.fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
	if (s.fd < 0)
		return ota_fail_errno(err, errno, "%s", path);
	enum ota_code rc = put(&s, r->key_text.data, r->key_text.len, err);
	if (rc == OTA_OK && fsync(s.fd) != 0)
		rc = ota_fail_errno(err, errno, "%s", path);
	close(s.fd);
	return rc;
}

/* Everything is there and right: it takes its place. */
static enum ota_code finish(struct restore *r, struct ota_err *err)
{
	char from[4200], to[4200];
	enum ota_code rc = r->key ? write_key(r, err) : OTA_OK;

	path_in(r->cfg, UNFINISHED, from);
	path_in(r->cfg, BACKUP_DATABASE, to);
	if (rc != OTA_OK)
		return rc;
	if ((r->database ? rename(from, to) : unlink(from)) != 0)
		return ota_fail_errno(err, errno, "%s", to);
	if (sync_dir(r->cfg->data_dir))
		return OTA_OK;
	int e = errno;
	if (r->database)
		(void)rename(to, from); /* its images are taken away next */
	return ota_fail_errno(err, e, "%s", to);
}

static enum ota_code restore(struct restore *r, struct ota_err *err)
{
	enum ota_code rc = read_all(r, err);

	if (rc == OTA_OK && r->database && config_on_postgres(r->cfg))
		return ota_fail(err, OTA_ECONFLICT,
				"%s holds an embedded database, and PostgreSQL is set: restore "
				"without DATABASE_URL and PG..., then paku-otad --import with them",
				r->archive);
	if (rc == OTA_OK)
		rc = firmware_has_only(r->cfg, r->sums_have.data, err);
	if (rc == OTA_OK && r->database)
		rc = check_database(r, err);
	return rc == OTA_OK ? finish(r, err) : rc;
}

static enum ota_code open_archive(struct restore *r, struct ota_err *err)
{
	struct stat st;

	r->in = fopen(r->archive, "rbe");
	if (!r->in)
		return ota_fail_errno(err, errno, "%s", r->archive);
	if (fstat(fileno(r->in), &st) == 0 && S_ISREG(st.st_mode))
		r->size = (uint64_t)st.st_size;
	return OTA_OK;
}

enum ota_code restore_run(const struct config *cfg, const char *archive, char *said, size_t size,
			  struct ota_err *err)
{
	struct restore r = {.cfg = cfg, .archive = archive, .shown_percent = -1};
	enum ota_code rc = open_archive(&r, err);

	if (rc == OTA_OK && (rc = prepare_place(&r, err)) == OTA_OK &&
	    (rc = restore(&r, err)) != OTA_OK)
		clear(&r);
	if (isatty(1) && r.shown_percent >= 0)
		printf("\r     \r");
	if (rc == OTA_OK)
		snprintf(said, size, "%s%d image%s%s in %s, all compared with their sums.%s",
			 r.database ? "The database and " : "", r.images, r.images == 1 ? "" : "s",
			 r.key ? " and the key's hash are" : " are", cfg->data_dir,
			 r.database ? ""
				    : " The database is not part of a backup of PostgreSQL: "
				      "pg_restore brings it back.");
	if (r.in)
		fclose(r.in);
	blob_store_close(&r.blobs);
	buf_fini(&r.kept);
	buf_fini(&r.key_text);
	buf_fini(&r.sums_have);
	buf_fini(&r.sums_said);
	return rc;
}
