/* SPDX-License-Identifier: MIT */
/*
 * What the download URLs of some devices begin with: another address for a model or a group, such
 * as a cache or a CDN in front of the service.  Pure.
 *
 * Written "model:esp32=https://cdn.example.org group:plant-a=http://10.9.0.2", separated by blanks
 * or commas.  A group comes before a model; of a device's groups the one written first.
 */
#pragma once

#include "base/err.h"
#include "core/domain.h"

struct download_base {
	bool is_group;
	char name[129];
	char url[121]; /* without a '/' at its end */
};

struct download_bases {
	size_t count;
	struct download_base list[];
};

/* "http://host[:port][/path]", in LEN bytes, that leaves room for the rest of a download URL. */
bool download_base_ok(const char *url, size_t len);
/* *OUT: NULL where TEXT names none.  OTA_EINVAL: a sentence's second half, what is wrong in it. */
enum ota_code download_bases_parse(const char *text, struct download_bases **out,
				   struct ota_err *err);
/* NULL: none of BASES (NULL: there are none) is for such a device. */
const char *download_base_find(const struct download_bases *bases, const struct device_state *s);
