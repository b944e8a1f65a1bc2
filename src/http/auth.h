/* SPDX-License-Identifier: MIT */
/*
 * The admin key.  OTA_API_KEY, or one that was made at the first start: then only its SHA-256 is
 * kept, in api-key.sha256 of the data folder, and read again when that file changes (paku-otad
 * --new-key). Any thread.
 */
#pragma once

#include "base/err.h"

#include <stddef.h>

struct auth;

#define API_KEY_SIZE 64

/*
 * KEY "" looks for the file; if there is none, makes a key and puts it into MADE (else MADE is "").
 * It counts from now on, and is kept by auth_keep(): a start that fails leaves no key behind that
 * nobody was shown.
 */
enum ota_code auth_open(const char *key, const char *data_dir, char made[API_KEY_SIZE],
			struct auth **out, struct ota_err *err);
/* Writes the hash of the key that auth_open() made, if it made one. */
enum ota_code auth_keep(struct auth *a, const char *data_dir, struct ota_err *err);
void auth_close(struct auth **a);
/*
 * KEY as it came in a header, of which white space around it is no part.  Compared in constant
 * time.  OTA_EAUTH: another key; OTA_ENOMEM: nobody can tell now.
 */
enum ota_code auth_check(struct auth *a, const char *key, struct ota_err *err);
/* Makes a new key, whatever was there; its hash replaces the file. */
enum ota_code auth_new_key(const char *data_dir, char made[API_KEY_SIZE], struct ota_err *err);
