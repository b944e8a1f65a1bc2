/* SPDX-License-Identifier: MIT */
/*
 * An image in memory as the inspection reads it, which aborts when it is read outside, or in larger
 * pieces than promised, and can fail the Nth read.
 */
#pragma once

#include "firmware/image.h"

#include <stdlib.h>
#include <string.h>

#define BYTES(s) s, sizeof(s) - 1

struct memory_source {
	const void *data;
	size_t len;
	int fail_in; /* this many reads succeed, the next fails; below 0: never (or it has) */
	uint64_t read_bytes;
	size_t largest;
};

static inline enum ota_code memory_read(void *ctx, uint64_t off, void *buf, size_t len,
					struct ota_err *err)
{
	struct memory_source *m = ctx;

	if (off > m->len || len > m->len - off || len == 0 || len > (size_t)64 << 10)
		abort();
	if (m->fail_in >= 0 && m->fail_in-- == 0)
		return ota_fail(err, OTA_EIO, "a bad sector");
	memcpy(buf, (const char *)m->data + off, len);
	m->read_bytes += len;
	m->largest = len > m->largest ? len : m->largest;
	return OTA_OK;
}

static inline enum ota_code inspect_memory(const void *data, size_t len, enum image_type type,
					   const char *model, enum chip chip,
					   struct image_info *out, struct ota_err *err)
{
	struct memory_source m = {data, len, -1, 0, 0};
	struct image_source src = {&m, memory_read, len};

	memset(err, 0, sizeof *err);
	return image_inspect(&src, type, model, chip, out, err);
}
