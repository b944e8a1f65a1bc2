/* SPDX-License-Identifier: MIT */
/* As much of the SDK's header as the examples use, for a compiler that is to check them. */
#pragma once

#include "esp_partition.h"

const esp_partition_t *esp_ota_get_next_update_partition(const esp_partition_t *start_from);
const esp_partition_t *esp_ota_get_boot_partition(void);
const esp_partition_t *esp_ota_get_running_partition(void);
esp_err_t esp_ota_set_boot_partition(const esp_partition_t *partition);
esp_err_t esp_ota_mark_app_valid_cancel_rollback(void);
