/* SPDX-License-Identifier: MIT */
/*
 * What a backup's archive holds, in this order: the head (JSON), the database (not on PostgreSQL),
 * images, the hash of the admin key (where the service made it), and the sums of all that, as
 * sha256sum -c reads them.  backup.c writes it, restore.c reads it.
 */
#pragma once

#include <stddef.h>

#define BACKUP_FORMAT   1
#define BACKUP_HEAD     "paku-ota-backup.json"
#define BACKUP_DATABASE "paku-ota.db"
#define BACKUP_IMAGES   "firmware/"
#define BACKUP_KEY      "api-key.sha256"
#define BACKUP_SUMS     "SHA256SUMS"

/* Where the copy of the database is while a backup is made. */
void backup_copy_path(const char *data_dir, char *out, size_t size);
