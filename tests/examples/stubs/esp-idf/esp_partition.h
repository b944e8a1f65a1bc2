/* SPDX-License-Identifier: MIT */
/* As much of the SDK's header as the examples use, for a compiler that is to check them. */
#pragma once

#include "esp_err.h"

typedef struct {
	uint32_t address, size;
} esp_partition_t;

typedef uint32_t esp_partition_mmap_handle_t;
typedef enum { ESP_PARTITION_MMAP_DATA, ESP_PARTITION_MMAP_INST } esp_partition_mmap_memory_t;

esp_err_t esp_partition_mmap(const esp_partition_t *partition, size_t offset, size_t size,
			     esp_partition_mmap_memory_t memory, const void **out_ptr,
			     esp_partition_mmap_handle_t *out_handle);
void esp_partition_munmap(esp_partition_mmap_handle_t handle);
