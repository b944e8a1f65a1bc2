/* SPDX-License-Identifier: MIT */
/* As much of the SDK's header as the examples use, for a compiler that is to check them. */
#pragma once

#include <stdint.h>

typedef uint32_t TickType_t;
typedef int BaseType_t;
typedef unsigned UBaseType_t;
#define pdPASS            1
#define pdMS_TO_TICKS(ms) ((TickType_t)(ms))
