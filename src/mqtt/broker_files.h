/* SPDX-License-Identifier: MIT */
/* The files of the embedded broker: its configuration, its password, its rights.  Main thread. */
#pragma once

#include "base/err.h"

#define BROKER_USER          "paku-otad"
#define BROKER_PASSWORD_SIZE 33

/*
 * Writes mosquitto.conf, passwords and acl into the folder that FOLDER_FD is open on, each whole or
 * not at all.  Paths inside are relative to that folder.
 */
OTA_MUST_USE enum ota_code broker_write_files(int folder_fd, const char *host, int port,
					      const char *password, struct ota_err *err);
/* A fresh password of 32 characters. */
OTA_MUST_USE bool broker_make_password(char out[BROKER_PASSWORD_SIZE]);
