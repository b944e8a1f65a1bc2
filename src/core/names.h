/* SPDX-License-Identifier: MIT */
/*
 * What may be a name.  Pure.
 *
 * A device id is 1..128 characters of ASCII 0x21..0x7E without '/', '+' and '#': it must be
 * publishable as one level of an MQTT topic.  A version or a model matches
 * ^[A-Za-z0-9._+-]{1,128}$. A group is like a model.  Each function returns NULL when all is well,
 * else a sentence's second half that says what is wrong and what would be right ("must be 1 to 128
 * characters, this one has 300").
 */
#pragma once

#include <stddef.h>

#define NAME_MAX_LEN 128

const char *name_device_id_error(const char *s);
const char *name_version_error(const char *s);
/*
 * What a device calls its own version is wider than a release's name: images hold strings such as
 * "2.0 stable", and a device must be able to say so.  1 to 128 characters of printable ASCII.
 */
const char *name_told_version_error(const char *s);
