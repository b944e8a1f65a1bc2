/* SPDX-License-Identifier: MIT */
/*
 * The files of the embedded broker, all in one folder that is its working directory:
 *
 *   mosquitto.conf  acl  passwords   written anew at each start
 *   log  pid                         what it says; who it is
 *   mosquitto.db                     its own: sessions, retained and queued messages
 *
 * The folder belongs to the user that mosquitto runs as, which faces the network: nothing in it is
 * written through a link or into a file that was there.  The main thread.
 */
#pragma once

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define BROKER_USER          "paku-ota-service"
#define BROKER_PASSWORD_SIZE 33 /* 32 characters and the NUL */

struct broker_folder {
	int fd;
	char path[4096];
	bool hand_over; /* we are root: what is in it becomes uid's */
	uid_t uid;
	gid_t gid;
};

/* Makes and opens DATA_DIR/mosquitto; as root it is handed to the user mosquitto. */
enum ota_code broker_folder_open(const char *data_dir, struct broker_folder *f,
				 struct ota_err *err);
void broker_folder_close(struct broker_folder *f);

enum ota_code broker_password_make(char out[BROKER_PASSWORD_SIZE], struct ota_err *err);
enum ota_code broker_settings_write(const struct broker_folder *f, const char *host, int port,
				    const char *password, struct ota_err *err);
/* The database that mosquitto cannot read becomes mosquitto.db.broken; false: it could not be. */
bool broker_database_set_aside(const struct broker_folder *f);

/* An empty log, open for writing; its descriptor is above 2. */
enum ota_code broker_log_open(const struct broker_folder *f, int *fd, struct ota_err *err);
/* The last error in the log, or else its last line, without the time; "" when there is none. */
void broker_log_last(const struct broker_folder *f, char *out, size_t size);

/* Who the broker is: a process id, and when that process started (it tells it from a later one). */
struct broker_id {
	pid_t pid;
	uint64_t start_ticks;
};
/* Whether that very process runs, and is a mosquitto. */
bool broker_id_runs(const struct broker_id *id);
/* The file "pid": written for a process that was just made, read by the next run. */
enum ota_code broker_id_write(const struct broker_folder *f, pid_t pid, struct ota_err *err);
bool broker_id_read(const struct broker_folder *f, struct broker_id *id);
void broker_id_remove(const struct broker_folder *f);
