/* SPDX-License-Identifier: MIT */
/* The daemon's configuration: one table, read once from the environment, constant afterwards. */
#pragma once

#include "base/err.h"
#include "base/options.h"
#include "core/download_base.h"
#include "firmware/bucket.h"

#include <stddef.h>
#include <stdint.h>

struct config {
	char *api_key, *host, *data_dir, *firmware_path, *public_url, *trusted_proxies;
	char *download_base_urls;
	struct download_bases *download_bases; /* the same, taken apart; NULL: none */
	char *instance_url;                    /* "": there are no others */
	char *database_url;                    /* libpq reads the others itself */
	char *pghost, *pghostaddr, *pgport, *pguser, *pgpassword, *pgdatabase, *pgservice;
	char *mqtt_host, *mqtt_user, *mqtt_password, *mqtt_ca, *mqtt_cert, *mqtt_key, *mqtt_site,
		*mqtt_client_id;
	char *s3_endpoint, *s3_bucket, *s3_region, *s3_key, *s3_secret;
	int64_t port, http_threads;
	int64_t poll_interval_s, install_grace_s;
	int64_t drain_s, idle_timeout_s, request_timeout_s, download_timeout_s;
	int64_t max_firmware_bytes, image_cache_bytes, cache_bytes, s3_stall_s,
		download_bytes_per_s;
	int64_t max_downloads, command_timeout_s, dispatch_per_second;
	int64_t max_connections, max_connections_per_address;
	int64_t new_devices_per_second, max_devices, max_queue, last_seen_flush_s, keep_events_days;
	int64_t mqtt_port;
	char *webhook_url, *webhook_secret;
	int64_t stuck_h, webhook_retry_s;
	int log_level, mqtt, mqtt_tls;
	int webhook_format; /* enum webhook_format */
};

extern const struct option config_table[];
extern const size_t config_count;

/* The store is PostgreSQL; else SQLite. */
bool config_on_postgres(const struct config *cfg);
/* Where images are kept; its endpoint is "" where that is the folder. */
struct bucket_place config_bucket(const struct config *cfg);
enum ota_code config_load(struct config *cfg, struct ota_err *err);
void config_free(struct config *cfg);
