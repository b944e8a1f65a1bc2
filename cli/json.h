/* SPDX-License-Identifier: MIT */
/*
 * jansson, next to base/buf.h: both have a json_real() and a json_null(), with other arguments.
 * Here jansson reads and writes, its two functions of these names are not used, and are put out of
 * the way.
 */
#pragma once

#define json_real jansson_json_real
#define json_null jansson_json_null
#include <jansson.h>
#undef json_real
#undef json_null
