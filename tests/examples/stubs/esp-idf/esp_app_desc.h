/* SPDX-License-Identifier: MIT */
/* As much of the SDK's header as the examples use, for a compiler that is to check them. */
#pragma once

#include "esp_err.h"

typedef struct {
	char version[32];
} esp_app_desc_t;

const esp_app_desc_t *esp_app_get_description(void);
