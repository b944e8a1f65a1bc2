/* SPDX-License-Identifier: MIT */
#include "data_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum ota_code data_folder_make(const char *path, struct ota_err *err)
{
	char part[4096];
	size_t n = strlen(path);

	if (n == 0 || n >= sizeof part)
		return ota_fail(err, OTA_EINVAL, "OTA_DATA_DIR is empty or too long");
	memcpy(part, path, n + 1);
	for (char *p = part + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(part, 0755) != 0 && errno != EEXIST)
			return ota_fail_errno(err, errno, "the folder %s cannot be made", part);
		*p = '/';
	}
	if (mkdir(part, 0700) != 0 && errno != EEXIST)
		return ota_fail_errno(
			err, errno,
			"the data folder %s cannot be made (set OTA_DATA_DIR to one that can)",
			path);
	return OTA_OK;
}

enum ota_code data_folder_lock(const char *data_dir, int *lock_fd, struct ota_err *err)
{
	char path[4096], pid[32] = "";

	snprintf(path, sizeof path, "%s/lock", data_dir);
	*lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (*lock_fd < 0)
		return ota_fail_errno(err, errno, "the data folder %s cannot be written", data_dir);
	if (flock(*lock_fd, LOCK_EX | LOCK_NB) != 0) {
		ssize_t n = read(*lock_fd, pid, sizeof pid - 1);
		if (n > 0)
			pid[strcspn(pid, "\n")] = '\0';
		return ota_fail(err, OTA_ECONFLICT,
				"another paku-otad (process %s) runs on the data folder %s; stop "
				"it, or set "
				"OTA_DATA_DIR to another folder",
				pid[0] ? pid : "?", data_dir);
	}
	int len = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
	if (ftruncate(*lock_fd, 0) != 0 || pwrite(*lock_fd, pid, (size_t)len, 0) != len)
		return ota_fail_errno(err, errno, "writing %s", path);
	return OTA_OK;
}
