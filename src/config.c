/* SPDX-License-Identifier: MIT */
#include "config.h"

#include "core/names.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AT(field) offsetof(struct config, field)

#define BANDWIDTH_MIN 1024

static const char *const log_levels[] = {"debug", "info", "warning", "error", NULL};
static const char *const webhook_formats[] = {"json", "slack", "discord", "alertmanager", NULL};
static const char *const on_off[] = {"off", "on", NULL};

const struct option config_table[] = {
	{"OTA_API_KEY", "API_KEY", OPTION_SECRET, AT(api_key), NULL, 0, 0, NULL, NULL,
	 "The key that admin requests carry in X-API-Key. Unset: made at the first start, shown "
	 "once, "
	 "and only its hash is kept."},
	{"PORT", NULL, OPTION_INT, AT(port), "8080", 0, 65535, NULL, NULL,
	 "The TCP port for HTTP; 0 takes a free one and logs it."},
	{"HOST", NULL, OPTION_TEXT, AT(host), "0.0.0.0", 0, 0, NULL, NULL,
	 "The address to listen on; '::' is IPv6 and IPv4."},
	{"OTA_DATA_DIR", NULL, OPTION_TEXT, AT(data_dir), "/var/lib/paku-ota", 0, 0, NULL, NULL,
	 "The folder for everything the embedded mode keeps: database, firmware, key."},
	{"FIRMWARE_STORAGE_PATH", NULL, OPTION_TEXT, AT(firmware_path), NULL, 0, 0, NULL, NULL,
	 "The folder for image files. Unset: firmware in OTA_DATA_DIR."},
	{"OTA_PUBLIC_URL", NULL, OPTION_TEXT, AT(public_url), NULL, 0, 0, NULL, NULL,
	 "What download URLs begin with, such as http://ota.example.org:8080. Unset: the Host that "
	 "the "
	 "device asked."},
	{"OTA_DOWNLOAD_BASE_URLS", NULL, OPTION_TEXT, AT(download_base_urls), NULL, 0, 0, NULL,
	 NULL,
	 "What download URLs of some devices begin with instead, for a cache or a CDN in front: "
	 "model:esp32=https://cdn.example.org group:plant-a=http://10.9.0.2, separated by blanks "
	 "or commas; a group comes before a model."},
	{"OTA_POLL_INTERVAL_S", NULL, OPTION_INT, AT(poll_interval_s), "300", 1, 604800, NULL, "s",
	 "How often a device is told to ask (retry_after_s, with jitter). An offer lapses after "
	 "three of "
	 "them without a download."},
	{"OTA_INSTALL_GRACE_S", NULL, OPTION_INT, AT(install_grace_s), "600", 1, 86400, NULL, "s",
	 "How long a device that installs may still show its old version before it counts as "
	 "rolled "
	 "back, when there is no sign of a restart."},
	{"OTA_MAX_FIRMWARE_BYTES", NULL, OPTION_BYTES, AT(max_firmware_bytes), "64M", 1024,
	 INT64_C(4) << 30, NULL, "bytes", "The largest image that may be uploaded."},
	{"OTA_IMAGE_CACHE_BYTES", NULL, OPTION_BYTES, AT(image_cache_bytes), "64M", 0,
	 INT64_C(64) << 30, NULL, "bytes",
	 "Memory for images being downloaded; one larger than half of it is read from the disk."},
	{"OTA_S3_ENDPOINT", NULL, OPTION_TEXT, AT(s3_endpoint), NULL, 0, 0, NULL, NULL,
	 "An S3 service, such as https://s3.eu-central-1.amazonaws.com: images are kept in its "
	 "bucket OTA_S3_BUCKET, and the firmware folder is a cache. Unset: in the folder alone."},
	{"OTA_S3_BUCKET", NULL, OPTION_TEXT, AT(s3_bucket), NULL, 0, 0, NULL, NULL,
	 "The bucket there, which must exist."},
	{"OTA_S3_REGION", NULL, OPTION_TEXT, AT(s3_region), "us-east-1", 0, 0, NULL, NULL,
	 "Its region, which is a part of what is signed."},
	{"OTA_S3_ACCESS_KEY", NULL, OPTION_SECRET, AT(s3_key), NULL, 0, 0, NULL, NULL,
	 "The key there: it may read, write, delete and list."},
	{"OTA_S3_SECRET_KEY", NULL, OPTION_SECRET, AT(s3_secret), NULL, 0, 0, NULL, NULL,
	 "Its secret."},
	{"OTA_S3_STALL_S", NULL, OPTION_INT, AT(s3_stall_s), "15", 1, 600, NULL, "s",
	 "A bucket that passes less than 10 KiB/s for so long counts as away."},
	{"OTA_CACHE_BYTES", NULL, OPTION_BYTES, AT(cache_bytes), "1G", 1024, INT64_C(1) << 50, NULL,
	 "bytes",
	 "With OTA_S3_ENDPOINT: so much the firmware folder holds; then the image not asked for "
	 "the longest goes."},
	{"OTA_DOWNLOAD_BYTES_PER_S", NULL, OPTION_BYTES, AT(download_bytes_per_s), "0", 0,
	 INT64_C(1) << 40, NULL, "bytes",
	 "What all downloads together may take of the network in a second, evenly shared; 0 is no "
	 "limit."},
	{"OTA_MAX_DOWNLOADS", NULL, OPTION_INT, AT(max_downloads), "500", 1, 1000000, NULL, NULL,
	 "Devices that may be told or downloading at once; others wait their turn. One that is "
	 "silent for 10 minutes does not count."},
	{"OTA_COMMAND_TIMEOUT_S", NULL, OPTION_INT, AT(command_timeout_s), "60", 1, 3600, NULL, "s",
	 "How long a command over MQTT is waited for; then it is sent again after 1, 5 and 30 "
	 "times as long."},
	{"OTA_DISPATCH_PER_SECOND", NULL, OPTION_INT, AT(dispatch_per_second), "200", 1, 100000,
	 NULL, NULL, "Commands that are sent over MQTT in a second."},
	{"OTA_MAX_CONNECTIONS", NULL, OPTION_INT, AT(max_connections), "16384", 16, 1000000, NULL,
	 NULL, "HTTP connections in all. Near the limit idle ones are closed sooner."},
	{"OTA_MAX_CONNECTIONS_PER_ADDRESS", NULL, OPTION_INT, AT(max_connections_per_address), "0",
	 0, 1000000, NULL, NULL,
	 "Requests at a time from one address; 0 is no limit: a fleet behind one router is one "
	 "address."},
	{"OTA_TRUSTED_PROXIES", NULL, OPTION_TEXT, AT(trusted_proxies), NULL, 0, 0, NULL, NULL,
	 "Addresses (comma-separated) of proxies that are believed: X-Forwarded-For tells the "
	 "client's address, -Proto and -Host what download URLs begin with."},
	{"OTA_NEW_DEVICES_PER_SECOND", NULL, OPTION_INT, AT(new_devices_per_second), "1000", 1,
	 1000000, NULL, NULL,
	 "Devices that may register in a second; others are told to come again."},
	{"OTA_MAX_DEVICES", NULL, OPTION_INT, AT(max_devices), "2000000", 1, 100000000, NULL, NULL,
	 "Devices in all."},
	{"OTA_MAX_QUEUE", NULL, OPTION_INT, AT(max_queue), "20000", 1, 10000000, NULL, NULL,
	 "Changes that may wait for the disk; beyond it requests get 503 with Retry-After."},
	{"OTA_LAST_SEEN_FLUSH_S", NULL, OPTION_INT, AT(last_seen_flush_s), "60", 1, 3600, NULL, "s",
	 "How often last_seen of devices that say nothing new is written."},
	{"OTA_KEEP_EVENTS_DAYS", NULL, OPTION_INT, AT(keep_events_days), "400", 0, 36500, NULL, "d",
	 "How long events and finished attempts are kept; 0: for ever. Those of live rollouts "
	 "stay, and each device's newest attempt; attempts are counted by day for good."},
	{"OTA_IDLE_TIMEOUT_S", NULL, OPTION_INT, AT(idle_timeout_s), "60", 1, 3600, NULL, "s",
	 "How long a connection may stay without a request."},
	{"OTA_REQUEST_TIMEOUT_S", NULL, OPTION_INT, AT(request_timeout_s), "30", 1, 3600, NULL, "s",
	 "How long a request may take to arrive; an upload must besides bring 1 KiB/s."},
	{"OTA_DOWNLOAD_TIMEOUT_S", NULL, OPTION_INT, AT(download_timeout_s), "3600", 10, 86400,
	 NULL, "s", "How long one download may take."},
	{"OTA_DRAIN_S", NULL, OPTION_INT, AT(drain_s), "30", 0, 3600, NULL, "s",
	 "After SIGTERM, how long running downloads may go on."},
	{"OTA_HTTP_THREADS", NULL, OPTION_INT, AT(http_threads), "0", 0, 64, NULL, NULL,
	 "HTTP worker threads; 0: one for each processor."},
	{"OTA_LOG_LEVEL", NULL, OPTION_WORD, AT(log_level), "info", 0, 0, log_levels, NULL,
	 "The least level that is logged. debug has a line for each request."},
	{"OTA_MQTT", NULL, OPTION_WORD, AT(mqtt), "on", 0, 0, on_off, NULL, "off: HTTP only."},
	{"MQTT_HOST", NULL, OPTION_TEXT, AT(mqtt_host), NULL, 0, 0, NULL, NULL,
	 "The broker. Unset: mosquitto is started as a part of this service."},
	{"MQTT_PORT", NULL, OPTION_INT, AT(mqtt_port), "1883", 0, 65535, NULL, NULL,
	 "The broker's port; of the built-in broker 0 takes a free one and logs it."},
	{"MQTT_USER", NULL, OPTION_TEXT, AT(mqtt_user), NULL, 0, 0, NULL, NULL,
	 "The user name at the broker of MQTT_HOST."},
	{"MQTT_PASSWORD", NULL, OPTION_SECRET, AT(mqtt_password), NULL, 0, 0, NULL, NULL,
	 "Its password."},
	{"OTA_MQTT_TLS", NULL, OPTION_WORD, AT(mqtt_tls), "off", 0, 0, on_off, NULL,
	 "on: TLS to the broker of MQTT_HOST."},
	{"OTA_MQTT_CA", NULL, OPTION_TEXT, AT(mqtt_ca), NULL, 0, 0, NULL, NULL,
	 "With OTA_MQTT_TLS: a file of authorities to trust. Unset: the system's."},
	{"OTA_MQTT_CERT", NULL, OPTION_TEXT, AT(mqtt_cert), NULL, 0, 0, NULL, NULL,
	 "With OTA_MQTT_TLS: a file with the certificate that the broker is shown."},
	{"OTA_MQTT_KEY", NULL, OPTION_TEXT, AT(mqtt_key), NULL, 0, 0, NULL, NULL,
	 "The file with its key, without a passphrase."},
	{"OTA_MQTT_SITE", NULL, OPTION_TEXT, AT(mqtt_site), "paku", 0, 0, NULL, NULL,
	 "The first level of the topic on which this service says that it is there "
	 "(SITE/ota-service/status); devices of every site are heard."},
	{"OTA_MQTT_CLIENT_ID", NULL, OPTION_TEXT, AT(mqtt_client_id), "paku-otad", 0, 0, NULL, NULL,
	 "Begins the names of the two sessions at the broker of MQTT_HOST. Several services there "
	 "need "
	 "several."},
	{"OTA_STUCK_H", NULL, OPTION_INT, AT(stuck_h), "24", 1, 8760, NULL, "h",
	 "So long without progress, and a rollout that runs is stuck: an alert is raised."},
	{"OTA_WEBHOOK_URL", NULL, OPTION_TEXT, AT(webhook_url), NULL, 0, 0, NULL, NULL,
	 "Where alerts are sent to: addresses, separated by blanks or commas. Unset: nowhere."},
	{"OTA_WEBHOOK_FORMAT", NULL, OPTION_WORD, AT(webhook_format), "json", 0, 0, webhook_formats,
	 NULL, "Who reads them there."},
	{"OTA_WEBHOOK_SECRET", NULL, OPTION_SECRET, AT(webhook_secret), NULL, 0, 0, NULL, NULL,
	 "With it each message is signed, by HMAC-SHA256 in X-Paku-Signature."},
	{"OTA_WEBHOOK_RETRY_S", NULL, OPTION_INT, AT(webhook_retry_s), "5", 1, 1800, NULL, "s",
	 "How long an address that failed is left alone; twice as long each time, half an hour at "
	 "most. A message is given up after a day."},
	{"DATABASE_URL", NULL, OPTION_TEXT, AT(database_url), NULL, 0, 0, NULL, NULL,
	 "PostgreSQL, as postgresql://user:password@host/database?sslmode=verify-full. This, or "
	 "one "
	 "of PGHOST, PGHOSTADDR, PGPORT, PGUSER, PGPASSWORD, PGDATABASE and PGSERVICE: releases, "
	 "rollouts and devices are kept there; none of them: in SQLite in OTA_DATA_DIR."},
	{"OTA_INSTANCE_URL", NULL, OPTION_TEXT, AT(instance_url), NULL, 0, 0, NULL, NULL,
	 "One of several instances on one PostgreSQL database: where the others reach this one, "
	 "such as http://10.0.0.7:8080. One leads, the others pass requests on to it, and one of "
	 "them takes over when it goes. Unset: this is the only one."},
	{"PGHOST", NULL, OPTION_TEXT, AT(pghost), NULL, 0, 0, NULL, NULL,
	 "The database server. libpq reads this and all its other variables and files as psql "
	 "does: PGSSLMODE, PGSSLROOTCERT, PGPASSFILE, PGSERVICEFILE, PGTARGETSESSIONATTRS ..."},
	{"PGHOSTADDR", NULL, OPTION_TEXT, AT(pghostaddr), NULL, 0, 0, NULL, NULL, "See PGHOST."},
	{"PGPORT", NULL, OPTION_TEXT, AT(pgport), NULL, 0, 0, NULL, NULL, "See PGHOST."},
	{"PGUSER", NULL, OPTION_TEXT, AT(pguser), NULL, 0, 0, NULL, NULL, "See PGHOST."},
	{"PGPASSWORD", NULL, OPTION_TEXT, AT(pgpassword), NULL, 0, 0, NULL, NULL, "See PGHOST."},
	{"PGDATABASE", NULL, OPTION_TEXT, AT(pgdatabase), NULL, 0, 0, NULL, NULL, "See PGHOST."},
	{"PGSERVICE", NULL, OPTION_TEXT, AT(pgservice), NULL, 0, 0, NULL, NULL, "See PGHOST."},
};
const size_t config_count = sizeof config_table / sizeof config_table[0];

static enum ota_code check_public_url(const char *url, struct ota_err *err)
{
	if (!url[0] || download_base_ok(url, strlen(url)))
		return OTA_OK;
	return ota_fail(
		err, OTA_EINVAL,
		"OTA_PUBLIC_URL is '%s', but must be like http://ota.example.org:8080, of at "
		"most 120 characters (the whole download URL must stay under 200)",
		url);
}

static enum ota_code check_download_bases(struct config *cfg, struct ota_err *err)
{
	struct ota_err why;
	enum ota_code rc =
		download_bases_parse(cfg->download_base_urls, &cfg->download_bases, &why);

	if (rc == OTA_EINVAL)
		return ota_fail(err, rc, "OTA_DOWNLOAD_BASE_URLS %s", why.msg);
	return rc == OTA_OK ? OTA_OK : ota_fail_nomem(err);
}

/* What no header can carry would be a key that never fits: white space around it is not part of a
 * header's value. */
static enum ota_code check_key(const char *key, struct ota_err *err)
{
	size_t len = strlen(key);
	bool wrong = len > 0 && (key[0] == ' ' || key[len - 1] == ' ');

	for (size_t i = 0; i < len; i++)
		wrong |= (unsigned char)key[i] < ' ' || key[i] == 0x7F;
	if (!wrong)
		return OTA_OK;
	return ota_fail(err, OTA_EINVAL,
			"OTA_API_KEY (or API_KEY) has a line break or another control character, "
			"or a space at an end; no request could carry it");
}

static enum ota_code check_proxies(const char *list, struct ota_err *err)
{
	unsigned char address[sizeof(struct in6_addr)];
	char one[64];

	for (const char *p = list + strspn(list, ", "); *p; p += strspn(p, ", ")) {
		size_t n = strcspn(p, ", ");
		snprintf(one, sizeof one, "%.*s", (int)n, p);
		if (n >= sizeof one || (inet_pton(AF_INET, one, address) != 1 &&
					inet_pton(AF_INET6, one, address) != 1))
			return ota_fail(err, OTA_EINVAL,
					"OTA_TRUSTED_PROXIES has '%s', which is no IP address; "
					"write addresses separated by commas",
					one);
		p += n;
	}
	return OTA_OK;
}

/* Below that a single image would take hours. */
static enum ota_code check_bandwidth(int64_t bytes_per_s, struct ota_err *err)
{
	if (bytes_per_s == 0 || bytes_per_s >= BANDWIDTH_MIN)
		return OTA_OK;
	return ota_fail(err, OTA_EINVAL,
			"OTA_DOWNLOAD_BYTES_PER_S is %lld, but must be 0 (no limit) or at least %d",
			(long long)bytes_per_s, BANDWIDTH_MIN);
}

bool config_on_postgres(const struct config *cfg)
{
	return cfg->database_url[0] || cfg->pghost[0] || cfg->pghostaddr[0] || cfg->pgport[0] ||
	       cfg->pguser[0] || cfg->pgpassword[0] || cfg->pgdatabase[0] || cfg->pgservice[0];
}

/* One level of a topic, and what a client id may hold at every broker. */
static enum ota_code check_mqtt(const struct config *cfg, struct ota_err *err)
{
	const char *wrong = name_version_error(cfg->mqtt_site);

	if (wrong)
		return ota_fail(err, OTA_EINVAL, "OTA_MQTT_SITE is '%s', but %s", cfg->mqtt_site,
				wrong);
	wrong = name_version_error(cfg->mqtt_client_id);
	if (wrong)
		return ota_fail(err, OTA_EINVAL, "OTA_MQTT_CLIENT_ID is '%s', but %s",
				cfg->mqtt_client_id, wrong);
	if (cfg->mqtt_host[0] && cfg->mqtt_port == 0)
		return ota_fail(
			err, OTA_EINVAL,
			"MQTT_PORT is 0, but the broker of MQTT_HOST has a port: 1883 is usual");
	if (!cfg->mqtt_cert[0] != !cfg->mqtt_key[0])
		return ota_fail(err, OTA_EINVAL, "OTA_MQTT_CERT and OTA_MQTT_KEY go together");
	if (cfg->mqtt_cert[0] && !cfg->mqtt_tls)
		return ota_fail(err, OTA_EINVAL, "OTA_MQTT_CERT is for OTA_MQTT_TLS=on");
	if (!cfg->mqtt_host[0] && (cfg->mqtt_user[0] || cfg->mqtt_password[0] || cfg->mqtt_tls))
		return ota_fail(
			err, OTA_EINVAL,
			"%s is set without MQTT_HOST: the built-in broker has no use for it",
			cfg->mqtt_user[0]       ? "MQTT_USER"
			: cfg->mqtt_password[0] ? "MQTT_PASSWORD"
						: "OTA_MQTT_TLS");
	return OTA_OK;
}

/* Several instances share what one keeps to itself. */
static enum ota_code check_instance(const struct config *cfg, struct ota_err *err)
{
	const char *url = cfg->instance_url, *missing = NULL;
	size_t scheme = strncmp(url, "http://", 7) == 0    ? 7
			: strncmp(url, "https://", 8) == 0 ? 8
							   : 0;

	if (!url[0])
		return OTA_OK;
	if (!scheme || !url[scheme] || strlen(url) > 120 || strpbrk(url + scheme, "/ ?#@\"\\"))
		return ota_fail(err, OTA_EINVAL,
				"OTA_INSTANCE_URL is '%s', but must be like http://10.0.0.7:8080, "
				"without a path",
				url);
	if (!config_on_postgres(cfg))
		missing = "PostgreSQL (DATABASE_URL or PGHOST)";
	else if (!cfg->api_key[0])
		missing = "OTA_API_KEY, the same for all";
	else if (!cfg->firmware_path[0] && !cfg->s3_endpoint[0])
		missing =
			"FIRMWARE_STORAGE_PATH, a folder that all of them see, or OTA_S3_ENDPOINT";
	else if (cfg->mqtt && !cfg->mqtt_host[0])
		missing = "MQTT_HOST, a broker that all of them reach, or OTA_MQTT=off";
	else if (cfg->mqtt && !cfg->public_url[0])
		missing = "OTA_PUBLIC_URL, where devices reach whichever instance answers";
	if (missing)
		return ota_fail(err, OTA_EINVAL,
				"OTA_INSTANCE_URL is set: several instances need %s", missing);
	return OTA_OK;
}

static enum ota_code check_bucket(const struct config *cfg, struct ota_err *err)
{
	struct bucket_place place = config_bucket(cfg);
	enum ota_code rc = bucket_check(&place, err);

	if (rc == OTA_OK && cfg->s3_endpoint[0] && cfg->cache_bytes < cfg->max_firmware_bytes)
		rc = ota_fail(err, OTA_EINVAL,
			      "OTA_CACHE_BYTES is %lld, less than OTA_MAX_FIRMWARE_BYTES (%lld): "
			      "one image must fit",
			      (long long)cfg->cache_bytes, (long long)cfg->max_firmware_bytes);
	return rc;
}

struct bucket_place config_bucket(const struct config *cfg)
{
	return (struct bucket_place){cfg->s3_endpoint, cfg->s3_bucket, cfg->s3_region,
				     cfg->s3_key,      cfg->s3_secret, cfg->s3_stall_s};
}

enum ota_code config_load(struct config *cfg, struct ota_err *err)
{
	memset(cfg, 0, sizeof *cfg);
	enum ota_code rc = options_load(config_table, config_count, cfg, err);
	if (rc != OTA_OK)
		return rc;
	if ((rc = check_key(cfg->api_key, err)) != OTA_OK ||
	    (rc = check_public_url(cfg->public_url, err)) != OTA_OK ||
	    (rc = check_download_bases(cfg, err)) != OTA_OK ||
	    (rc = check_proxies(cfg->trusted_proxies, err)) != OTA_OK ||
	    (rc = check_bandwidth(cfg->download_bytes_per_s, err)) != OTA_OK ||
	    (rc = check_mqtt(cfg, err)) != OTA_OK || (rc = check_instance(cfg, err)) != OTA_OK ||
	    (rc = check_bucket(cfg, err)) != OTA_OK)
		config_free(cfg);
	return rc;
}

void config_free(struct config *cfg)
{
	free(cfg->download_bases);
	cfg->download_bases = NULL;
	options_free(config_table, config_count, cfg);
}
