/* SPDX-License-Identifier: MIT */
#include "instance.h"

#include "base/clock.h"
#include "base/log.h"
#include "http/relay.h"
#include "http/sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define RELAY_DRAIN_S 5

struct instance {
	struct instance_parts parts;
	struct lease *lease;
	int listen_fd;       /* listens as long as we run, whoever answers */
	struct relay *relay; /* while it follows */
	int64_t epoch;       /* while it leads; else 0 */
};

static enum ota_code share_socket(const struct instance *i, int *out, struct ota_err *err)
{
	*out = fcntl(i->listen_fd, F_DUPFD_CLOEXEC, 3);
	return *out >= 0 ? OTA_OK : ota_fail_errno(err, errno, "sharing the listening socket");
}

static enum ota_code follow(struct instance *i, struct ota_err *err)
{
	int fd;
	enum ota_code rc = share_socket(i, &fd, err);

	return rc == OTA_OK ? relay_start(i->parts.cfg, i->lease, fd, &i->relay, err) : rc;
}

/* A failure that another try, here or elsewhere, may mend. */
static bool may_pass(enum ota_code code)
{
	return code == OTA_EUNAVAIL || code == OTA_EUNKNOWN;
}

static enum ota_code take_lead(struct instance *i, int64_t epoch, struct ota_err *err)
{
	int64_t begun_ms = clock_mono_ms();

	i->epoch = epoch;
	enum ota_code rc = i->parts.start(i->parts.ctx, epoch, err);
	if (rc == OTA_OK) {
		log_event(LOG_INFO, "daemon", "leads", "epoch %lld, after %lld ms",
			  (long long)epoch, (long long)(clock_mono_ms() - begun_ms));
		return rc;
	}
	i->parts.stop(i->parts.ctx);
	i->epoch = 0;
	if (!may_pass(rc))
		return rc;
	log_event(LOG_ERROR, "daemon", "lead_failed", "%s", err->msg);
	lease_resign(i->lease, false);
	return i->relay ? OTA_OK : follow(i, err);
}

static bool lead_is_over(struct instance *i, const struct lease_view *v)
{
	bool overtaken = i->parts.is_overtaken(i->parts.ctx);

	if (overtaken && v->role == LEASE_LEADS)
		lease_resign(i->lease, false);
	return overtaken || v->role != LEASE_LEADS || v->epoch != i->epoch;
}

enum ota_code instance_tend(struct instance *i, struct ota_err *err)
{
	struct lease_view v;

	lease_look(i->lease, &v);
	if (i->epoch && lead_is_over(i, &v)) {
		i->parts.stop(i->parts.ctx);
		i->epoch = 0;
		log_event(LOG_WARNING, "daemon", "follows", "this instance does not lead any more");
		return follow(i, err);
	}
	if (!i->epoch && v.role == LEASE_LEADS && lease_holds(i->lease))
		return take_lead(i, v.epoch, err);
	return OTA_OK;
}

enum ota_code instance_take_socket(struct instance *i, int *fd, struct ota_err *err)
{
	static const volatile int hurry = 1;

	relay_stop(&i->relay, 0, &hurry);
	return share_socket(i, fd, err);
}

struct lease *instance_lease(const struct instance *i)
{
	return i->lease;
}

int instance_port(const struct instance *i)
{
	return i->relay ? relay_port(i->relay) : 0;
}

enum ota_code instance_start(const struct instance_parts *parts, struct instance **out,
			     struct ota_err *err)
{
	struct instance *i = calloc(1, sizeof *i);
	enum ota_code rc = OTA_OK;

	if (!i) {
		if (parts->listen_fd >= 0)
			close(parts->listen_fd);
		return ota_fail_nomem(err);
	}
	i->parts = *parts;
	i->listen_fd = parts->listen_fd;
	if (i->listen_fd < 0)
		rc = socket_listen(parts->cfg, &i->listen_fd, err);
	if (rc == OTA_OK)
		rc = lease_start(parts->cfg->database_url, parts->cfg->instance_url, parts->changed,
				 &i->lease, err);
	if (rc == OTA_OK)
		rc = follow(i, err);
	if (rc != OTA_OK)
		instance_stop(&i);
	*out = i;
	return rc;
}

void instance_leave(struct instance *i, const volatile int *hurry)
{
	relay_stop(&i->relay, RELAY_DRAIN_S, hurry);
	lease_resign(i->lease, true);
}

void instance_stop(struct instance **ip)
{
	struct instance *i = *ip;

	if (!i)
		return;
	lease_stop(&i->lease);
	if (i->listen_fd >= 0)
		close(i->listen_fd);
	free(i);
	*ip = NULL;
}
