/* SPDX-License-Identifier: MIT */
/* OTA_DATA_DIR: that it is there, and one process's at a time.  main's, and what it does instead of
 * serving. */
#pragma once

#include "base/err.h"

/* mkdir -p; its last part is nobody else's to read. */
enum ota_code data_folder_make(const char *path, struct ota_err *err);
/*
 * One daemon on a data folder: the lock lasts until *LOCK_FD is closed.  OTA_ECONFLICT: another one
 * runs on it.  *LOCK_FD is the caller's to close also after a failure, where it is not negative.
 */
enum ota_code data_folder_lock(const char *path, int *lock_fd, struct ota_err *err);
