/* SPDX-License-Identifier: MIT */
#include "manager.h"

#include <sys/socket.h>
#include <systemd/sd-daemon.h>

enum ota_code manager_socket(int *fd, struct ota_err *err)
{
	int n = sd_listen_fds(1);

	*fd = -1;
	if (n < 0)
		return ota_fail_errno(err, -n, "the sockets of the service manager");
	if (n > 1)
		return ota_fail(err, OTA_EINVAL,
				"the service manager hands over %d sockets; one ListenStream= for "
				"HTTP is what paku-otad takes",
				n);
	if (n == 1 && sd_is_socket(SD_LISTEN_FDS_START, AF_UNSPEC, SOCK_STREAM, 1) <= 0)
		return ota_fail(err, OTA_EINVAL,
				"what the service manager hands over is no listening stream "
				"socket; ListenStream=8080 makes one");
	if (n == 1)
		*fd = SD_LISTEN_FDS_START;
	return OTA_OK;
}

/* A manager that does not listen is no reason to stop: it will say so in its own log. */
void manager_ready(void)
{
	sd_notify(0, "READY=1");
}

void manager_stopping(void)
{
	sd_notify(0, "STOPPING=1");
}

int64_t manager_watchdog_ms(void)
{
	uint64_t us = 0;

	return sd_watchdog_enabled(0, &us) > 0 ? (int64_t)(us / 1000) : 0;
}

void manager_alive(void)
{
	sd_notify(0, "WATCHDOG=1");
}
