/* SPDX-License-Identifier: MIT */
/*
 * paku-otad --restore: a backup's archive (http/backup.h) into an empty place.  Main thread, with
 * the data folder's lock held, and no service on it.
 */
#pragma once

#include "config.h"

/*
 * All of it or nothing: images are written under their names, the database under another one, which
 * becomes its own when everything has been compared with its sum and the database has been looked
 * through.  What failed is taken away again; what a crash has left is, at the next try.  SAID is
 * what came of it, in a sentence.
 */
enum ota_code restore_run(const struct config *cfg, const char *archive, char *said, size_t size,
			  struct ota_err *err);
/* A restore was begun here and not ended: no service may start. */
bool restore_is_unfinished(const struct config *cfg);
