/* SPDX-License-Identifier: MIT */
#include "base/tzfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX    (64 * 1024) /* the largest that tzdata has is of 4 KB */
#define HEADER_SIZE 44
#define CHANGES_MAX 4096
#define RULE_MAX    128

/* Offsets that a file may hold: RFC 8536, 3.2. */
#define OFFSET_LEAST_S (-89999)
#define OFFSET_MOST_S  93599

/* What is left to read. */
struct input {
	const uint8_t *at;
	size_t left;
};

static const uint8_t *take(struct input *in, size_t n)
{
	const uint8_t *p = in->at;

	if (n > in->left)
		return NULL;
	in->at += n;
	in->left -= n;
	return p;
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static int64_t be64(const uint8_t *p)
{
	return (int64_t)((uint64_t)be32(p) << 32 | be32(p + 4));
}

struct header {
	char version;
	uint32_t utc_marks, standard_marks, leaps, times, types, letters;
};

static enum ota_code read_header(struct input *in, struct header *h, struct ota_err *err)
{
	const uint8_t *p = take(in, HEADER_SIZE);

	if (!p || memcmp(p, "TZif", 4) != 0)
		return ota_fail(err, OTA_EIO, "it is no TZif file");
	*h = (struct header){(char)p[4],   be32(p + 20), be32(p + 24), be32(p + 28),
			     be32(p + 32), be32(p + 36), be32(p + 40)};
	if (h->times > CHANGES_MAX || h->types < 1 || h->types > 256 || h->letters > FILE_MAX ||
	    h->leaps > FILE_MAX || h->utc_marks > h->types || h->standard_marks > h->types)
		return ota_fail(err, OTA_EIO, "its header makes no sense");
	return OTA_OK;
}

/* A block of data with times of TIME_SIZE bytes, but for what is read of it. */
static size_t block_size(const struct header *h, size_t time_size)
{
	return h->times * (time_size + 1) + h->types * 6 + h->letters + h->leaps * (time_size + 4) +
	       h->standard_marks + h->utc_marks;
}

static enum ota_code read_changes(const struct header *h, const uint8_t *times,
				  const int32_t *offsets, struct tz *z, struct ota_err *err)
{
	const uint8_t *indexes = times + h->times * 8;
	int32_t offset_s = z->first_offset_s;
	int64_t before_s = INT64_MIN;

	for (uint32_t i = 0; i < h->times; i++) {
		int64_t at_s = be64(times + i * 8);
		if (indexes[i] >= h->types || (i && at_s <= before_s))
			return ota_fail(err, OTA_EIO, "its change %u makes no sense", i + 1);
		before_s = at_s;
		if (offsets[indexes[i]] == offset_s)
			continue; /* another name for the same time */
		offset_s = offsets[indexes[i]];
		z->changes[z->count++] = (struct tz_change){at_s, offset_s};
	}
	return OTA_OK;
}

static enum ota_code read_block(struct input *in, const struct header *h, struct tz *z,
				struct ota_err *err)
{
	const uint8_t *p = take(in, block_size(h, 8));
	int32_t offsets[256] = {0};

	if (!p)
		return ota_fail(err, OTA_EIO, "it ends too early");
	if (h->leaps)
		return ota_fail(err, OTA_EIO, "it counts leap seconds, as no clock here does");
	const uint8_t *types = p + h->times * 9;
	for (uint32_t i = 0; i < h->types; i++) {
		offsets[i] = (int32_t)be32(types + i * 6);
		if (offsets[i] < OFFSET_LEAST_S || offsets[i] > OFFSET_MOST_S)
			return ota_fail(err, OTA_EIO, "its offset %u makes no sense", i + 1);
	}
	z->first_offset_s = offsets[0];
	return read_changes(h, p, offsets, z, err);
}

/* "\nEET-2EEST,M3.5.0/3,M10.5.0/4\n" */
static enum ota_code read_rule(struct input *in, struct tz *z, struct ota_err *err)
{
	const uint8_t *begin = take(in, 1);
	const uint8_t *end = begin && *begin == '\n' ? memchr(in->at, '\n', in->left) : NULL;
	char text[RULE_MAX];

	if (!end)
		return ota_fail(err, OTA_EIO, "it ends too early");
	size_t n = (size_t)(end - in->at);
	if (n == 0)
		return OTA_OK;
	if (n < sizeof text && !memchr(in->at, '\0', n)) {
		memcpy(text, in->at, n);
		text[n] = '\0';
		z->has_rule = tz_rule_parse(text, &z->rule);
	}
	return z->has_rule ? OTA_OK
			   : ota_fail(err, OTA_EIO, "its rule for later years makes no sense");
}

enum ota_code tz_parse(const void *data, size_t len, struct tz **out, struct ota_err *err)
{
	struct input in = {data, len};
	struct header h;
	enum ota_code rc = read_header(&in, &h, err);

	if (rc != OTA_OK)
		return rc;
	if (h.version < '2')
		return ota_fail(err, OTA_EIO, "it is of version 1, which ends in 2037");
	if (!take(&in, block_size(&h, 4)))
		return ota_fail(err, OTA_EIO, "it ends too early");
	rc = read_header(&in, &h, err);
	if (rc != OTA_OK)
		return rc;
	struct tz *z = tz_new(h.times);
	if (!z)
		return ota_fail_nomem(err);
	rc = read_block(&in, &h, z, err);
	if (rc == OTA_OK)
		rc = read_rule(&in, z, err);
	if (rc == OTA_OK)
		*out = z;
	else
		tz_free(&z);
	return rc;
}

/* --- files --- */

/* Levels of letters, digits, '_', '-' and '+': nothing that leads elsewhere. */
static bool is_name(const char *name)
{
	size_t n = strnlen(name, TZ_NAME_MAX + 1);

	if (n == 0 || n > TZ_NAME_MAX || name[0] == '/' || name[n - 1] == '/' || strstr(name, "//"))
		return false;
	return strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-+/") ==
	       n;
}

static enum ota_code not_there(const char *directory, const char *name, struct ota_err *err)
{
	if (access(directory, F_OK) != 0)
		return ota_fail(err, OTA_ENOTFOUND,
				"no time zones are installed here (%s): install the package tzdata",
				directory);
	return ota_fail(err, OTA_ENOTFOUND, "there is no time zone '%s'", name);
}

/* The bytes of the file, FILE_MAX at the most; -1: errno says why. */
static ssize_t read_file(const char *path, uint8_t *buf)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	size_t n = 0;
	ssize_t got = -1;
	struct stat st;

	if (fd < 0)
		return -1;
	if (fstat(fd, &st) == 0 && !S_ISREG(st.st_mode))
		errno = ENOENT; /* a folder of zones is no zone */
	else
		while ((got = read(fd, buf + n, FILE_MAX - n)) > 0)
			n += (size_t)got;
	int saved = errno;
	close(fd);
	errno = saved;
	return got < 0 ? -1 : (ssize_t)n;
}

enum ota_code tz_load(const char *directory, const char *name, struct tz **out, struct ota_err *err)
{
	uint8_t buf[FILE_MAX];
	char path[512];

	if (!is_name(name))
		return ota_fail(err, OTA_EINVAL,
				"'%.80s' is no name of a time zone, as Europe/Helsinki or UTC is",
				name);
	if (strcmp(name, "UTC") == 0) {
		*out = tz_new(0);
		return *out ? OTA_OK : ota_fail_nomem(err);
	}
	snprintf(path, sizeof path, "%s/%s", directory, name);
	ssize_t n = read_file(path, buf);
	if (n < 0 && (errno == ENOENT || errno == ENOTDIR))
		return not_there(directory, name, err);
	if (n < 0)
		return ota_fail_errno(err, errno, "reading the time zone '%s' (%s)", name, path);
	if (n < 4 || memcmp(buf, "TZif", 4) != 0)
		return not_there(directory, name, err); /* a list of zones, or a licence */
	if (tz_parse(buf, (size_t)n, out, err) == OTA_OK)
		return OTA_OK;
	return ota_wrap(err, "the time zone '%s' (%s) cannot be used", name, path);
}
