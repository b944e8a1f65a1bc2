/* SPDX-License-Identifier: MIT */
/*
 * paku-otad: the order in which the parts start and stop, and the signals in between.
 */
#include "base/clock.h"
#include "base/log.h"
#include "commit/committer.h"
#include "conductor/conductor.h"
#include "conductor/webhook.h"
#include "config.h"
#include "data_folder.h"
#include "firmware/cache.h"
#include "firmware/mirror.h"
#include "http/auth.h"
#include "http/backup.h"
#include "http/server.h"
#include "instance.h"
#include "manager.h"
#include "mqtt/broker.h"
#include "mqtt/mqtt.h"
#include "offline.h"
#include "restore.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

struct daemon {
	struct config cfg;
	int lock_fd;
	int listen_fd;             /* from the service manager; -1: the server opens its own */
	struct instance *instance; /* NULL: there are no others */
	struct lease *lease;       /* the instance's */
	/* What one does that leads, or is alone: */
	struct store *store;
	struct fleet *fleet;
	struct blob_store *blobs;
	struct image_cache *cache;
	struct mirror *mirror; /* NULL: no bucket */
	struct auth *auth;
	struct committer *committer;
	struct webhooks *webhooks;
	struct alerts *alerts;
	struct conductor *conductor;
	struct http_server *http;
	struct broker *broker; /* NULL: there is another one, or none */
	struct mqtt *mqtt;
	char base_url[160], client_id[MQTT_CLIENT_ID_SIZE];
	char made_key[API_KEY_SIZE];
	bool ends; /* the process does */
};

static volatile int hurry; /* a second signal has come */

static void print_help(void)
{
	printf("Usage: paku-otad [--log-format plain|json] [--new-key|--import|--restore FILE] "
	       "[--version] [--help]\n"
	       "\n"
	       "The firmware update service: releases, rollouts and devices over HTTP and MQTT, on "
	       "an\n"
	       "embedded database or PostgreSQL. Everything it is told stands in the "
	       "environment:\n"
	       "\n");
	options_print(config_table, config_count, stdout);
	printf("\n"
	       "  --new-key           make a new admin key (shown once), then end; a running "
	       "service takes\n"
	       "                      it over within a second\n"
	       "  --import            copy the embedded database of OTA_DATA_DIR into the empty "
	       "PostgreSQL that\n"
	       "                      is set, and compare; then end\n"
	       "  --restore FILE      bring back what 'paku-ota backup FILE' has saved, into an "
	       "empty\n"
	       "                      OTA_DATA_DIR, and compare; then end\n"
	       "  --log-format json   one JSON object a line instead of plain text\n"
	       "\n"
	       "SIGTERM ends it: short requests within 5 s, downloads within OTA_DRAIN_S.\n");
}

static void raise_descriptor_limit(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
		l.rlim_cur = l.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &l) != 0)
			log_event(LOG_WARNING, "daemon", "limit_kept", "open files stay at %llu",
				  (unsigned long long)l.rlim_cur);
	}
}

/* So many connections as there are descriptors for, with some left for files. */
static void fit_connections(struct config *cfg)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) != 0 || l.rlim_cur == RLIM_INFINITY)
		return;
	int64_t most = (int64_t)l.rlim_cur - 100;
	if (cfg->max_connections > most && most >= 16) {
		log_event(LOG_WARNING, "daemon", "fewer_connections",
			  "OTA_MAX_CONNECTIONS is %lld, but this process may open %llu files: "
			  "taking %lld",
			  (long long)cfg->max_connections, (unsigned long long)l.rlim_cur,
			  (long long)most);
		cfg->max_connections = most;
	}
}

/* A name that is written wrongly would do nothing, and nobody would know. */
static void tell_unknown_settings(void)
{
	size_t at = 0;

	for (const char *v; (v = options_unknown(config_table, config_count, "OTA_", &at));) {
		int len = (int)strcspn(v, "=");
		if (strncmp(v, "OTA_SERVICE_URL=", 16) != 0) /* paku-ota's */
			log_event(LOG_WARNING, "daemon", "unknown_setting",
				  "%.*s is none, and does nothing; paku-otad --help lists them",
				  len, v);
	}
}

/* --- start and stop, in this order and its reverse --- */

/* OTA_EUNAVAIL, OTA_ENOMEM: who knows; another failure: it is gone, or of another size. */
static enum ota_code look_for_image(struct daemon *d, struct mirror *m, const struct fleet_image *i,
				    struct ota_err *err)
{
	uint64_t size;
	int fd;
	enum ota_code rc = blob_open(d->blobs, i->sha256, &fd, &size, err);

	if (rc == OTA_OK)
		close(fd);
	else if (m)
		rc = mirror_ask(m, i->sha256, &size, err);
	if (rc == OTA_OK && size != (uint64_t)i->size)
		rc = ota_fail(err, OTA_EIO, "the image has %llu bytes instead of %lld",
			      (unsigned long long)size, (long long)i->size);
	return rc;
}

/*
 * Releases whose image is gone or of another size: a backup of the database alone, perhaps.
 * Devices would be the first to find out.  M: the bucket is asked for what the folder lacks.
 */
static void tell_missing_images(void *ctx, struct mirror *m)
{
	struct daemon *d = ctx;
	size_t count = 0;
	struct fleet_image *all = fleet_list_images(d->fleet, &count);
	enum ota_code rc = OTA_OK;
	struct ota_err err;
	char subject[160];

	for (size_t i = 0; i < count && rc != OTA_EUNAVAIL && rc != OTA_ENOMEM; i++) {
		rc = look_for_image(d, m, &all[i], &err);
		if (rc == OTA_OK || rc == OTA_EUNAVAIL || rc == OTA_ENOMEM)
			continue;
		snprintf(subject, sizeof subject, "release/%s", all[i].version);
		log_event(LOG_WARNING, subject, "image_missing",
			  "%s; bring it back, or upload it again as %s of %s", err.msg,
			  all[i].version, all[i].model);
	}
	free(all);
}

static void tell_broker(const struct daemon *d)
{
	if (d->mqtt)
		log_event(LOG_INFO, "mqtt", "started", "broker %s:%d, command URLs begin with %s",
			  d->broker ? "of our own, port" : d->cfg.mqtt_host,
			  d->broker ? broker_port(d->broker) : (int)d->cfg.mqtt_port, d->base_url);
}

/* An instance that leads no more does not know what the one after it has stored. */
static bool image_wanted(void *ctx, const uint8_t sha256[SHA256_SIZE])
{
	const struct daemon *d = ctx;

	return (d->lease && !lease_holds(d->lease)) || fleet_names_image(d->fleet, sha256);
}

/* Images in a bucket, where one is set. */
static enum ota_code start_mirror(struct daemon *d, struct ota_err *err)
{
	struct bucket_place place = config_bucket(&d->cfg);
	struct mirror_parts parts = {
		.blobs = d->blobs,
		.place = &place,
		.max_bytes = (uint64_t)d->cfg.cache_bytes,
		.wanted = image_wanted,
		.reached = tell_missing_images,
		.ctx = d,
	};

	return place.endpoint[0] ? mirror_start(&parts, &d->mirror, err) : OTA_OK;
}

static enum ota_code open_stores(struct daemon *d, int64_t epoch, struct ota_err *err)
{
	char path[4200];
	struct blob_swept swept;
	enum ota_code rc;

	if (restore_is_unfinished(&d->cfg))
		return ota_fail(err, OTA_ECONFLICT,
				"a restore into %s was begun and not ended: run paku-otad "
				"--restore FILE again, or empty that folder",
				d->cfg.data_dir);
	backup_copy_path(d->cfg.data_dir, path, sizeof path);
	unlink(path); /* of a backup that a crash has broken off */
	snprintf(path, sizeof path, "%s/paku-ota.db", d->cfg.data_dir);
	rc = config_on_postgres(&d->cfg)
		     ? store_postgres_open(d->cfg.database_url, epoch, &d->store, err)
		     : store_sqlite_open(path, &d->store, err);
	if (rc != OTA_OK)
		return rc;
	d->fleet = fleet_new();
	if (!d->fleet)
		return ota_fail_nomem(err);
	if ((rc = commit_load(d->fleet, d->store, err)) != OTA_OK)
		return rc;
	snprintf(path, sizeof path, "%s/firmware", d->cfg.data_dir);
	if ((rc = blob_store_open(d->cfg.firmware_path[0] ? d->cfg.firmware_path : path, &d->blobs,
				  err)) != OTA_OK)
		return rc;
	/* With a bucket each instance may have a folder of its own, as its cache. */
	if (d->lease && d->cfg.firmware_path[0])
		blob_store_share(d->blobs);
	if ((rc = blob_sweep(d->blobs, fleet_names_image, d->fleet, &swept, err)) != OTA_OK)
		return rc;
	if (swept.removed)
		log_event(LOG_INFO, "firmware", "swept", "%d files of unfinished uploads",
			  swept.removed);
	if (swept.unknown)
		log_event(
			LOG_WARNING, "firmware", "images_unknown",
			"none of the %d images in %s belongs to a release of this database: is it "
			"the right one? They stay",
			swept.unknown, blob_store_dir(d->blobs));
	if (!d->cfg.s3_endpoint[0]) /* else when the bucket can be asked */
		tell_missing_images(d, NULL);
	d->cache = cache_new(d->blobs, (uint64_t)d->cfg.image_cache_bytes);
	return d->cache ? start_mirror(d, err) : ota_fail_nomem(err);
}

static enum ota_code start_mqtt(struct daemon *d, struct ota_err *err)
{
	const struct config *cfg = &d->cfg;
	struct broker_config bc = {
		.data_dir = cfg->data_dir, .host = cfg->host, .port = (int)cfg->mqtt_port};
	struct mqtt_place place = {
		.host = cfg->mqtt_host,
		.port = (int)cfg->mqtt_port,
		.user = cfg->mqtt_user,
		.password = cfg->mqtt_password,
		.client_id = cfg->mqtt_client_id,
		.base_url = d->base_url,
	};
	enum ota_code rc =
		mqtt_base_url(cfg, http_port(d->http), d->base_url, sizeof d->base_url, err);

	if (rc != OTA_OK)
		return rc;
	if (!cfg->mqtt_host[0]) {
		if ((rc = mqtt_own_client_id(cfg->data_dir, d->client_id, err)) != OTA_OK)
			return rc;
		place.client_id = d->client_id;
		if ((rc = broker_start(&bc, &d->broker, err)) != OTA_OK)
			return rc;
		place.host = strcmp(cfg->host, "0.0.0.0") == 0 ? "127.0.0.1"
			     : strcmp(cfg->host, "::") == 0    ? "::1"
							       : cfg->host;
		place.port = broker_port(d->broker);
		place.user = broker_user(d->broker);
		place.password = broker_password(d->broker);
	}
	return mqtt_start(d->mqtt, &place, err);
}

/* The conductor, and who tells what it finds. */
static enum ota_code start_conductor(struct daemon *d, struct ota_err *err)
{
	const struct config *cfg = &d->cfg;
	struct webhooks_parts wp = {
		.store = d->store,
		.committer = d->committer,
		.urls = cfg->webhook_url,
		.format = (enum webhook_format)cfg->webhook_format,
		.secret = cfg->webhook_secret,
		.retry_s = cfg->webhook_retry_s,
		.lease = d->lease,
	};
	enum ota_code rc = webhooks_start(&wp, &d->webhooks, err);
	struct alerts_parts ap = {
		.fleet = d->fleet,
		.store = d->store,
		.committer = d->committer,
		.webhooks = d->webhooks,
		.stuck_us = cfg->stuck_h * 3600 * US_PER_S,
	};

	if (rc == OTA_OK)
		rc = alerts_new(&ap, clock_service_us(), &d->alerts, err);
	if (rc == OTA_OK)
		rc = conductor_start(d->fleet, d->committer, d->alerts, &d->conductor, err);
	return rc;
}

/* All that one does that leads in EPOCH, or is alone (0). */
static enum ota_code start_leading(struct daemon *d, int64_t epoch, struct ota_err *err)
{
	const struct config *cfg = &d->cfg;
	enum ota_code rc;

	if ((rc = open_stores(d, epoch, err)) != OTA_OK)
		return rc;
	rc = auth_open(cfg->api_key, cfg->data_dir, d->made_key, &d->auth, err);
	if (rc != OTA_OK)
		return rc;
	struct committer_config cc = {
		.poll_interval_s = cfg->poll_interval_s,
		.install_grace_s = cfg->install_grace_s,
		.max_devices = cfg->max_devices,
		.new_devices_per_second = cfg->new_devices_per_second,
		.last_seen_flush_s = cfg->last_seen_flush_s,
		.max_downloads = cfg->max_downloads,
		.command_timeout_s = cfg->command_timeout_s,
		.keep_days = cfg->keep_events_days,
		.queue_max = (size_t)cfg->max_queue,
	};
	if ((rc = committer_start(d->fleet, d->store, &cc, &d->committer, err)) != OTA_OK)
		return rc;
	if ((rc = start_conductor(d, err)) != OTA_OK)
		return rc;
	struct mqtt_parts mp = {cfg, d->fleet, d->committer, d->lease};
	if (cfg->mqtt && (rc = mqtt_new(&mp, &d->mqtt, err)) != OTA_OK)
		return rc;
	if (d->instance && (rc = instance_take_socket(d->instance, &d->listen_fd, err)) != OTA_OK)
		return rc;
	struct http_parts parts = {
		.cfg = cfg,
		.fleet = d->fleet,
		.store = d->store,
		.committer = d->committer,
		.blobs = d->blobs,
		.cache = d->cache,
		.mirror = d->mirror,
		.auth = d->auth,
		.lease = d->lease,
		.listen_fd = &d->listen_fd,
		.mqtt_status = d->mqtt ? mqtt_write_status : NULL,
		.mqtt_metrics = d->mqtt ? mqtt_write_metrics : NULL,
		.mqtt_examine = d->mqtt ? mqtt_examine : NULL,
		.mqtt_ctx = d->mqtt,
	};
	if ((rc = http_start(&parts, &d->http, err)) != OTA_OK || !cfg->mqtt)
		return rc;
	return start_mqtt(d, err);
}

static void stop_leading(struct daemon *d, const volatile int *now)
{
	if (d->store)
		atomic_store(&d->store->ending, true);
	mqtt_stop(d->mqtt);
	/* Its successor need not wait for our downloads. */
	if (d->instance && d->ends)
		instance_leave(d->instance, now);
	http_stop(&d->http, d->cfg.drain_s, now);
	mqtt_free(&d->mqtt);
	broker_stop(&d->broker);
	conductor_stop(&d->conductor);
	alerts_free(&d->alerts);
	webhooks_stop(&d->webhooks);
	committer_stop(&d->committer);
	auth_close(&d->auth);
	mirror_stop(&d->mirror);
	cache_free(&d->cache);
	blob_store_close(&d->blobs);
	fleet_free(&d->fleet);
	if (d->store)
		d->store->ops->close(&d->store);
}

/* --- one of several instances --- */

static void role_changed(void)
{
	kill(getpid(), SIGUSR1); /* main waits for it */
}

static enum ota_code take_lead(void *ctx, int64_t epoch, struct ota_err *err)
{
	struct daemon *d = ctx;

	d->lease = instance_lease(d->instance);
	enum ota_code rc = start_leading(d, epoch, err);
	if (rc == OTA_OK)
		tell_broker(d);
	return rc;
}

static void lose_lead(void *ctx)
{
	static const volatile int at_once = 1;

	stop_leading(ctx, &at_once);
}

static bool is_overtaken(void *ctx)
{
	const struct daemon *d = ctx;

	return d->store && atomic_load(&d->store->overtaken);
}

static enum ota_code join_others(struct daemon *d, struct ota_err *err)
{
	struct instance_parts parts = {
		.cfg = &d->cfg,
		.listen_fd = d->listen_fd,
		.start = take_lead,
		.stop = lose_lead,
		.is_overtaken = is_overtaken,
		.changed = role_changed,
		.ctx = d,
	};

	d->listen_fd = -1;
	return instance_start(&parts, &d->instance, err);
}

/* --- all of it --- */

static enum ota_code start(struct daemon *d, struct ota_err *err)
{
	enum ota_code rc;

	if ((rc = data_folder_make(d->cfg.data_dir, err)) != OTA_OK ||
	    (rc = data_folder_lock(d->cfg.data_dir, &d->lock_fd, err)) != OTA_OK)
		return rc;
	return d->cfg.instance_url[0] ? join_others(d, err) : start_leading(d, 0, err);
}

static void stop(struct daemon *d)
{
	d->ends = true;
	stop_leading(d, &hurry);
	instance_stop(&d->instance);
	if (d->listen_fd >= 0)
		close(d->listen_fd);
	if (d->lock_fd >= 0)
		close(d->lock_fd);
	config_free(&d->cfg);
}

/* --- signals: all are waited for in one place --- */

static void block_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGCHLD);
	sigaddset(set, SIGUSR1); /* role_changed() */
	pthread_sigmask(SIG_BLOCK, set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* A second signal while it drains: no more waiting for downloads. */
static void on_second_signal(int sig)
{
	(void)sig;
	hurry = 1;
}

/* The sooner of two waits in milliseconds; negative: for ever. */
static int64_t sooner(int64_t a, int64_t b)
{
	return a < 0 || (b >= 0 && b < a) ? b : a;
}

/*
 * A child that died is the broker, which is started again.  The manager hears from us as long as
 * the committer goes round: without it nothing is acknowledged any more.
 */
static enum ota_code wait_for_end(struct daemon *d, sigset_t *set, struct ota_err *err)
{
	enum ota_code rc = OTA_OK;
	int64_t watchdog_ms = manager_watchdog_ms(), beat_ms = watchdog_ms ? watchdog_ms / 3 : -1;
	int sig = 0, again_ms = -1;

	while (rc == OTA_OK && sig != SIGTERM && sig != SIGINT) {
		int64_t wait_ms =
			sooner(sooner(again_ms, beat_ms), d->instance ? INSTANCE_LOOK_MS : -1);
		struct timespec wait = {wait_ms / 1000, wait_ms % 1000 * 1000000};
		if (watchdog_ms &&
		    (!d->committer || committer_alive(d->committer, watchdog_ms / 2)))
			manager_alive();
		sig = wait_ms < 0 ? sigwaitinfo(set, NULL) : sigtimedwait(set, NULL, &wait);
		if (d->broker && (sig == SIGCHLD || again_ms >= 0))
			again_ms = broker_watch(d->broker);
		if (d->instance && sig != SIGTERM && sig != SIGINT)
			rc = instance_tend(d->instance, err);
	}
	manager_stopping();
	if (rc == OTA_OK)
		log_event(LOG_INFO, "daemon", "stopping", "on %s", strsignal(sig));
	signal(SIGTERM, on_second_signal);
	signal(SIGINT, on_second_signal);
	sigdelset(set, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, set, NULL);
	return rc;
}

static void tell_start(const struct daemon *d)
{
	if (d->instance)
		log_event(LOG_INFO, "daemon", "started",
			  "version %s on http://%s:%d, as %s, one of several, data in %s",
			  PAKU_VERSION, d->cfg.host, instance_port(d->instance),
			  d->cfg.instance_url, d->cfg.data_dir);
	else
		log_event(LOG_INFO, "daemon", "started",
			  "version %s on http://%s:%d, %zu devices, data in %s", PAKU_VERSION,
			  d->cfg.host, http_port(d->http), fleet_device_count(d->fleet),
			  d->cfg.data_dir);
	tell_broker(d);
	if (d->made_key[0]) {
		/* The only time that it can be read: not in the log, which others may keep. */
		printf("API key: %s\n", d->made_key);
		fflush(stdout);
	}
}

static int run(bool json)
{
	struct daemon d = {.lock_fd = -1, .listen_fd = -1};
	struct ota_err err;
	sigset_t set;

	enum ota_code rc = config_load(&d.cfg, &err);
	if (rc == OTA_OK && (rc = manager_socket(&d.listen_fd, &err)) != OTA_OK)
		config_free(&d.cfg);
	if (rc == OTA_OK &&
	    (rc = webhooks_check(d.cfg.webhook_url, d.cfg.webhook_secret, &err)) != OTA_OK)
		config_free(&d.cfg);
	if (rc != OTA_OK) {
		fprintf(stderr, "paku-otad: %s\n", err.msg);
		return 2;
	}
	log_configure((enum log_level)d.cfg.log_level, json);
	tell_unknown_settings();
	block_signals(&set);
	umask(077); /* database and images are nobody else's to read, wherever they are */
	raise_descriptor_limit();
	fit_connections(&d.cfg);
	rc = start(&d, &err);
	if (rc == OTA_OK && d.auth) /* one of several, which follows, has none, and makes no key */
		rc = auth_keep(d.auth, d.cfg.data_dir, &err);
	if (rc == OTA_OK) {
		tell_start(&d);
		manager_ready();
		rc = wait_for_end(&d, &set, &err);
	}
	if (rc != OTA_OK)
		fprintf(stderr, "paku-otad: %s\n", err.msg);
	stop(&d);
	if (rc == OTA_OK)
		log_event(LOG_INFO, "daemon", "stopped", "all that was acknowledged is stored");
	return rc == OTA_OK ? 0 : 1;
}

int main(int argc, char **argv)
{
	bool json = false;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			print_help();
			return 0;
		}
		if (strcmp(argv[i], "--version") == 0) {
			printf("paku-otad %s\n", PAKU_VERSION);
			return 0;
		}
		if (strcmp(argv[i], "--new-key") == 0)
			return offline_new_key();
		if (strcmp(argv[i], "--import") == 0)
			return offline_import();
		if (strcmp(argv[i], "--restore") == 0 && i + 1 < argc)
			return offline_restore(argv[i + 1]);
		const char *format = NULL;
		if (strncmp(argv[i], "--log-format=", 13) == 0)
			format = argv[i] + 13;
		else if (strcmp(argv[i], "--log-format") == 0 && i + 1 < argc)
			format = argv[++i];
		if (!format || (strcmp(format, "json") != 0 && strcmp(format, "plain") != 0)) {
			fprintf(stderr,
				format ? "paku-otad: --log-format is '%s', but must be one of: "
					 "plain, json\n"
				       : "paku-otad: '%s' is not understood; paku-otad --help "
					 "tells what is\n",
				format ? format : argv[i]);
			return 2;
		}
		json = strcmp(format, "json") == 0;
	}
	return run(json);
}
