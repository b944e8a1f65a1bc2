/* SPDX-License-Identifier: MIT */
/*
 * Time zones as the package tzdata installs them: TZif files (RFC 8536) of version 2 or later.
 * Reading is bounded, and nothing in a file is believed unchecked.
 */
#pragma once

#include "base/err.h"
#include "base/tz.h"

#define TZ_DIRECTORY "/usr/share/zoneinfo"

/*
 * The zone NAME ("Europe/Helsinki") of DIRECTORY; "UTC" needs no file.  OTA_ENOTFOUND: there is no
 * such zone, or none at all is installed; OTA_EINVAL: no zone can be called so; OTA_EIO: its file
 * cannot be read, or makes no sense.  Waits for the disk.
 */
OTA_MUST_USE enum ota_code tz_load(const char *directory, const char *name, struct tz **out,
				   struct ota_err *err);

/* The content of one file.  OTA_EIO: it makes no sense, and the sentence says where. */
OTA_MUST_USE enum ota_code tz_parse(const void *data, size_t len, struct tz **out,
				    struct ota_err *err);
