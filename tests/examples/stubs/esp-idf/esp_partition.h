/* SPDX-License-Identifier: MIT */
/* As much of the SDK's header as the examples use, for a compiler that is to check them. */
#pragma once

#include "esp_err.h"

typedef struct {
	uint32_t address, size;
} esp_partition_t;

esp_err_t esp_partition_read(const esp_partition_t *partition, size_t offset, void *out,
			     size_t size);
