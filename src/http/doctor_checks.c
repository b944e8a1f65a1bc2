/* SPDX-License-Identifier: MIT */
#include "http/doctor.h"

#include "base/clock.h"
#include "base/hash.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define MIB           (INT64_C(1) << 20)
#define ROOM_LEAST    (64 * MIB) /* beside the largest image */
#define INODES_LEAST  1000
#define HASHED_MOST   (INT64_C(1) << 30) /* of images; more are looked at by their sizes alone */
#define ASKED_MOST    1000 /* objects that the bucket is asked for, one request each */
#define CLOCK_WARNS_S 5
#define CLOCK_WRONG_S 60
#define DAY_US        (INT64_C(86400) * US_PER_S)
#define ALERTS_SHOWN  20
#define REJECTED_READ 1000
#define UNREADABLE    "see what it says, and docs/operating.md, \"What to do when\""

void doctor_service(struct http_server *s, finding_fn *say, void *ctx)
{
	int64_t since_us;
	char since[TIME_TEXT_SIZE], up[32], why[256];
	bool stopped = fleet_stop_reason(s->fleet, why, sizeof why, &since_us);

	duration_text((clock_mono_ms() - s->started_mono_ms) / 1000, up, sizeof up);
	finding_say(say, ctx, "service", FINDING_OK, NULL, "version %s, up for %s", PAKU_VERSION,
		    up);
	if (!stopped)
		return;
	time_format(since_us, since);
	finding_say(say, ctx, "service", FINDING_WARNING, "when it is mended: paku-ota resume-all",
		    "everything is stopped since %.19sZ: %s", since, why);
}

void doctor_store(struct http_server *s, finding_fn *say, void *ctx)
{
	struct ota_err err = {0};
	char reason[512];

	if (!committer_healthy(s->committer, reason, sizeof reason))
		say(ctx, "store", FINDING_PROBLEM, reason,
		    "changes get 503 until it is mended; nothing needs a restart");
	if (s->store->ops->examine(s->store, say, ctx, &err) != OTA_OK)
		say(ctx, "store", FINDING_PROBLEM, err.msg, UNREADABLE);
}

/* --- disks --- */

static void look_at_disk(struct http_server *s, const char *path, finding_fn *say, void *ctx)
{
	struct statvfs v;

	if (statvfs(path, &v) != 0) {
		finding_say(say, ctx, "disk", FINDING_PROBLEM,
			    "is it mounted, and the service's user's?", "%s: %s", path,
			    strerror(errno));
		return;
	}
	int64_t room = (int64_t)(v.f_bavail * v.f_frsize), all = (int64_t)(v.f_blocks * v.f_frsize);
	bool little = room < s->cfg->max_firmware_bytes + ROOM_LEAST;
	bool few = v.f_files > 0 && v.f_favail < INODES_LEAST;
	enum finding_level level = little || few     ? FINDING_PROBLEM
				   : room < all / 10 ? FINDING_WARNING
						     : FINDING_OK;
	finding_say(say, ctx, "disk", level,
		    level == FINDING_OK ? NULL
					: "make room: delete releases (paku-ota releases delete), "
					  "move backups elsewhere, or take a larger disk",
		    "%s: %" PRId64 " MiB of %" PRId64 " are free%s", path, room / MIB, all / MIB,
		    few ? ", and hardly a file can be made" : "");
}

void doctor_disks(struct http_server *s, finding_fn *say, void *ctx)
{
	const char *firmware = blob_store_dir(s->blobs);
	struct stat a, b;

	look_at_disk(s, s->cfg->data_dir, say, ctx);
	if (stat(s->cfg->data_dir, &a) != 0 || stat(firmware, &b) != 0 || a.st_dev != b.st_dev)
		look_at_disk(s, firmware, say, ctx);
}

/* --- images --- */

/* How far the looking has come. */
struct looked {
	int64_t hashed;     /* bytes in the folder */
	size_t asked_after; /* objects in the bucket */
	bool bucket_failed;
};

/* NULL: it is well. */
static const char *look_in_bucket(struct http_server *s, const struct fleet_image *i,
				  struct looked *l)
{
	struct ota_err err;
	uint64_t size;

	if (l->bucket_failed || l->asked_after >= ASKED_MOST)
		return NULL;
	l->asked_after++;
	enum ota_code rc = mirror_ask(s->mirror, i->sha256, &size, &err);
	l->bucket_failed = rc != OTA_OK && rc != OTA_ENOTFOUND; /* doctor_bucket() tells */
	if (rc == OTA_ENOTFOUND)
		return "is not in the bucket";
	return rc == OTA_OK && size != (uint64_t)i->size
		       ? "has another size in the bucket than its release"
		       : NULL;
}

/* NULL: it is well. */
static const char *look_in_folder(struct http_server *s, const struct fleet_image *i,
				  struct looked *l)
{
	struct ota_err err;
	uint64_t size;
	int fd;

	if (blob_open(s->blobs, i->sha256, &fd, &size, &err) != OTA_OK)
		return s->mirror ? NULL : "is missing"; /* it is fetched when it is asked for */
	const char *wrong = NULL;
	if (size != (uint64_t)i->size)
		wrong = "has another size than the release";
	else if (l->hashed + i->size <= HASHED_MOST) {
		l->hashed += i->size;
		if (blob_compare(fd, i->sha256, &err) != OTA_OK)
			wrong = err.code == OTA_ECONFLICT ? "is damaged: its SHA-256 is another"
							  : "cannot be read";
	}
	close(fd);
	return wrong;
}

static void say_images_are_well(struct http_server *s, size_t count, int64_t bytes,
				const struct looked *l, finding_fn *say, void *ctx)
{
	char how[120];

	if (!s->mirror)
		snprintf(how, sizeof how, "%s",
			 l->hashed < bytes ? "all there; the first GiB compared with its sums"
					   : "all there and compared with their sums");
	else if (l->bucket_failed)
		snprintf(how, sizeof how, "but the bucket could not be asked for them");
	else
		snprintf(how, sizeof how,
			 "%zu looked for in the bucket and there, %" PRId64
			 " MiB in the folder compared with their sums",
			 l->asked_after, l->hashed / MIB);
	finding_say(say, ctx, "images", l->bucket_failed ? FINDING_WARNING : FINDING_OK, NULL,
		    "%zu releases, %" PRId64 " MiB, %s", count, bytes / MIB, how);
}

void doctor_images(struct http_server *s, finding_fn *say, void *ctx)
{
	struct looked l = {0};
	size_t count, bad = 0;
	int64_t bytes = 0;
	struct fleet_image *all = fleet_list_images(s->fleet, &count);

	if (!all) {
		say(ctx, "images", FINDING_PROBLEM, "out of memory: no image was looked at",
		    "ask again when the service has less to do");
		return;
	}
	for (size_t i = 0; i < count; i++) {
		const char *wrong = look_in_folder(s, &all[i], &l);
		if (!wrong && s->mirror)
			wrong = look_in_bucket(s, &all[i], &l);
		bytes += all[i].size;
		if (!wrong)
			continue;
		bad++;
		finding_say(say, ctx, "images", FINDING_PROBLEM,
			    "upload the same file again under the same version, or delete the "
			    "release",
			    "the image of %s for %s %s", all[i].version, all[i].model, wrong);
	}
	if (!bad)
		say_images_are_well(s, count, bytes, &l, say, ctx);
	free(all);
}

void doctor_bucket(struct http_server *s, finding_fn *say, void *ctx)
{
	struct mirror_state state;
	struct ota_err err;
	int64_t ahead_s;

	if (!s->mirror)
		return;
	if (mirror_probe(s->mirror, &ahead_s, &err) != OTA_OK) {
		finding_say(say, ctx, "bucket", FINDING_PROBLEM,
			    "what is in the firmware folder goes out meanwhile; uploads and the "
			    "other images do not",
			    "%s", err.msg);
		return;
	}
	mirror_look(s->mirror, &state);
	finding_say(say, ctx, "bucket", FINDING_OK, NULL,
		    "%s answers and takes the key; %" PRIu64 " MiB of images are in the folder too",
		    s->cfg->s3_bucket, state.bytes / MIB);
	if (ahead_s > CLOCK_WARNS_S || ahead_s < -CLOCK_WARNS_S)
		finding_say(say, ctx, "bucket", FINDING_WARNING,
			    "set the clock right, by NTP (chrony, systemd-timesyncd): S3 refuses "
			    "requests that are 15 minutes off",
			    "the bucket's clock is %" PRId64 " s %s this machine's",
			    ahead_s < 0 ? -ahead_s : ahead_s, ahead_s < 0 ? "behind" : "ahead of");
}

/* --- the clock --- */

/* Of the service against what it has stored: others are compared by the store, and by who asks. */
void doctor_clock(struct http_server *s, finding_fn *say, void *ctx)
{
	int64_t behind_s = (clock_service_us() - clock_wall_us()) / US_PER_S;

	(void)s;
	if (behind_s > CLOCK_WARNS_S)
		finding_say(say, ctx, "clock",
			    behind_s > CLOCK_WRONG_S ? FINDING_PROBLEM : FINDING_WARNING,
			    "set the clock right, by NTP (chrony, systemd-timesyncd): rollouts "
			    "wait until it is",
			    "the machine's clock is %" PRId64 " s behind what was stored last",
			    behind_s);
}

/* --- devices --- */

struct census_of {
	int64_t day_ago_us, count, heard, nameless;
};

static bool count_device(const struct device *d, void *ctx)
{
	struct census_of *c = ctx;

	c->count++;
	c->heard += d->last_seen_us >= c->day_ago_us;
	c->nameless += !d->state.model[0];
	return true;
}

void doctor_devices(struct http_server *s, finding_fn *say, void *ctx)
{
	struct census_of c = {.day_ago_us = clock_service_us() - DAY_US};

	fleet_visit(s->fleet, 0, FLEET_SHARDS, count_device, &c);
	bool nobody = c.count > 0 && c.heard == 0;
	finding_say(say, ctx, "devices", nobody ? FINDING_PROBLEM : FINDING_OK,
		    nobody ? "can they reach the address below, and the broker?" : NULL,
		    "%" PRId64 " known, %" PRId64 " of them heard of within a day", c.count,
		    c.heard);
	if (c.nameless)
		finding_say(say, ctx, "devices", FINDING_WARNING,
			    "have them send device_model: without it no release is for them",
			    "%" PRId64 " have not said which model they are", c.nameless);
}

/* --- alerts --- */

struct alert_list {
	finding_fn *say;
	void *ctx;
	int count;
};

static bool say_alert(void *ctx, const struct row_alert *row)
{
	struct alert_list *l = ctx;
	bool rollout = strncmp(row->subject, "rollout/", 8) == 0;
	enum finding_level level = strcmp(row->severity, "critical") == 0 && !row->acknowledged_at
					   ? FINDING_PROBLEM
					   : FINDING_WARNING;
	char advice[160];

	if (l->count++ == ALERTS_SHOWN)
		return false;
	snprintf(advice, sizeof advice, "docs/alerts.md, \"%s\"; seen: paku-ota alerts --ack %lld",
		 row->kind, (long long)row->id);
	finding_say(l->say, l->ctx, rollout ? "rollouts" : "alerts", level,
		    row->acknowledged_at ? "somebody has seen it" : advice, "%s: %s", row->subject,
		    row->sentence);
	if (row->given_up)
		finding_say(l->say, l->ctx, "alerts", FINDING_WARNING,
			    "mend what OTA_WEBHOOK_URL points to",
			    "%lld messages about it did not arrive: %s", (long long)row->given_up,
			    row->last_error ? row->last_error : "?");
	return true;
}

void doctor_alerts(struct http_server *s, finding_fn *say, void *ctx)
{
	struct alert_list l = {.say = say, .ctx = ctx};
	struct list_query q = {.active = 1, .limit = ALERTS_SHOWN + 1};
	struct ota_err err;

	if (s->store->ops->list_alerts(s->store, &q, say_alert, &l, &err) != OTA_OK)
		say(ctx, "alerts", FINDING_PROBLEM, err.msg, UNREADABLE);
	else if (l.count > ALERTS_SHOWN)
		say(ctx, "alerts", FINDING_WARNING, "there are more", "paku-ota alerts");
	else if (l.count == 0)
		say(ctx, "alerts", FINDING_OK, "none is open: no rollout is stuck or halted", NULL);
}

/* --- messages that were not understood --- */

struct rejected_list {
	int64_t since_us;
	int count;
	char last[200];
};

static bool count_rejected(void *ctx, const struct row_rejected *row)
{
	struct rejected_list *l = ctx;
	int64_t at_us;

	if (!row->created_at || !time_parse(row->created_at, &at_us) || at_us < l->since_us)
		return false;
	if (l->count++ == 0)
		snprintf(l->last, sizeof l->last, "%s", row->detail);
	return true;
}

void doctor_rejected(struct http_server *s, finding_fn *say, void *ctx)
{
	struct rejected_list l = {.since_us = clock_service_us() - DAY_US};
	struct list_query q = {.active = -1, .limit = REJECTED_READ};
	struct ota_err err;

	if (s->store->ops->list_rejected(s->store, &q, count_rejected, &l, &err) != OTA_OK)
		say(ctx, "messages", FINDING_PROBLEM, err.msg, UNREADABLE);
	else if (l.count > 0)
		finding_say(say, ctx, "messages", FINDING_WARNING,
			    "paku-ota rejected shows them: the devices' firmware needs mending",
			    "%d over MQTT within a day were not understood, the newest because %s",
			    l.count, l.last);
	else
		say(ctx, "messages", FINDING_OK, "all that came over MQTT was understood", NULL);
}
