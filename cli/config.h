/* SPDX-License-Identifier: MIT */
/*
 * The login file: $XDG_CONFIG_HOME/paku-ota, else ~/.config/paku-ota; mode 0600.
 *
 *     server = https://ota.example.org
 *     key = 7f3c...
 *
 * Its key is only ever sent to its server.  A file that others can read is refused (OTA_EAUTH).
 */
#pragma once

#include "base/err.h"

struct login {
	char *server, *key; /* NULL: not in the file, or no file */
};

/* Where it is; free() it.  NULL and an error when there is no home. */
char *login_path(struct ota_err *err);
/* No file is no error. */
enum ota_code login_read(struct login *l, struct ota_err *err);
void login_fini(struct login *l);
/* Replaces the file whole, or leaves the old one. */
enum ota_code login_write(const struct login *l, struct ota_err *err);

/* A usable server address without a slash at its end, in *OUT (free()); OTA_EINVAL says what is
 * wrong. */
enum ota_code server_clean(const char *text, char **out, struct ota_err *err);
/* A key must be visible ASCII. */
enum ota_code key_check(const char *key, struct ota_err *err);
