/* SPDX-License-Identifier: MIT */
/* As much of the SDK's header as the examples use, for a compiler that is to check them. */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

typedef int esp_err_t;
#define ESP_OK	       0
#define ESP_ERR_NO_MEM 0x101
#define ESP_ERROR_CHECK(x)                                                                         \
	do {                                                                                       \
		if ((x) != ESP_OK)                                                                 \
			abort();                                                                   \
	} while (0)
