/* SPDX-License-Identifier: MIT */
/*
 * The image goes from esp_http_client through esp_ota_write() into the spare slot, and is read back
 * from there before the next start is of it.  The one line that outlives a restart is in NVS, under
 * "paku".
 */
#include "paku_esp32.h"

#include "esp_crt_bundle.h"
#include "esp_http_client.h"
#include "esp_ota_ops.h"
#include "esp_random.h"
#include "esp_system.h"
#include "esp_timer.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "mbedtls/sha256.h"
#include "nvs.h"

#include <stdio.h>
#include <string.h>

#define TIMEOUT_MS 20000
#define LEAVE_MS   500 /* for what was published to leave */

static nvs_handle_t nvs;
static void (*while_busy)(void);
static struct paku_updater_io io;

static void keep(struct paku_updater *u, const char *line)
{
	(void)u;
	nvs_set_str(nvs, "update", line);
	nvs_commit(nvs);
}

static void kept(struct paku_updater *u, char *line, size_t size)
{
	(void)u;
	if (nvs_get_str(nvs, "update", line, &size) != ESP_OK)
		line[0] = '\0';
}

static void confirm(struct paku_updater *u)
{
	(void)u;
	esp_ota_mark_app_valid_cancel_rollback();
}

static void restart(struct paku_updater *u)
{
	(void)u;
	vTaskDelay(pdMS_TO_TICKS(LEAVE_MS));
	esp_restart();
}

static uint32_t now_ms(struct paku_updater *u)
{
	(void)u;
	return (uint32_t)(esp_timer_get_time() / 1000);
}

/* What the flash reads back is what the command promised. */
static bool verified(const esp_partition_t *slot, uint32_t size, const uint8_t *sha256)
{
	const void *image;
	esp_partition_mmap_handle_t map;
	uint8_t sum[PAKU_SHA256_SIZE];

	if (esp_partition_mmap(slot, 0, size, ESP_PARTITION_MMAP_DATA, &image, &map) != ESP_OK)
		return false;
	mbedtls_sha256(image, size, sum, 0);
	esp_partition_munmap(map);
	return memcmp(sum, sha256, sizeof sum) == 0;
}

/* All of the body into the slot that `ota` writes. */
static enum paku_result copy(struct paku_updater *u, esp_http_client_handle_t http,
			     esp_ota_handle_t ota, uint32_t total)
{
	static char piece[4096]; /* not on the stack of a task */
	uint32_t done = 0;

	while (done < total) {
		int len = esp_http_client_read(http, piece, sizeof piece);
		if (len <= 0)
			return PAKU_RESULT_DOWNLOAD_FAILED;
		if (esp_ota_write(ota, piece, (size_t)len) != ESP_OK)
			return PAKU_RESULT_INSTALL_FAILED;
		done += (uint32_t)len;
		paku_updater_progress(u, PAKU_STATE_DOWNLOADING, done, total);
		if (while_busy)
			while_busy();
	}
	return PAKU_RESULT_SUCCESS;
}

static enum paku_result fill(struct paku_updater *u, esp_http_client_handle_t http,
			     const esp_partition_t *slot, const struct paku_offer *offer)
{
	esp_ota_handle_t ota;
	int64_t length = esp_http_client_fetch_headers(http);
	uint32_t total = (uint32_t)length;

	if (length <= 0 || esp_http_client_get_status_code(http) != 200)
		return PAKU_RESULT_DOWNLOAD_FAILED;
	if (length > slot->size)
		return PAKU_RESULT_NO_SPACE;
	/* Erases as it goes, so that nothing else is held up. */
	if (esp_ota_begin(slot, OTA_WITH_SEQUENTIAL_WRITES, &ota) != ESP_OK)
		return PAKU_RESULT_INSTALL_FAILED;
	enum paku_result result = copy(u, http, ota, total);
	if (result != PAKU_RESULT_SUCCESS) {
		esp_ota_abort(ota);
		return result;
	}
	paku_updater_progress(u, PAKU_STATE_VERIFYING, total, total);
	if (esp_ota_end(ota) != ESP_OK || !verified(slot, total, offer->sha256))
		return PAKU_RESULT_VERIFICATION_FAILED;
	paku_updater_progress(u, PAKU_STATE_INSTALLING, total, total);
	return esp_ota_set_boot_partition(slot) == ESP_OK ? PAKU_RESULT_SUCCESS
							  : PAKU_RESULT_INSTALL_FAILED;
}

static enum paku_result install(struct paku_updater *u, const struct paku_offer *offer)
{
	const esp_partition_t *slot = esp_ota_get_next_update_partition(NULL);
	esp_http_client_config_t config = {.url = offer->url,
					   .timeout_ms = TIMEOUT_MS,
					   .crt_bundle_attach = esp_crt_bundle_attach};
	esp_http_client_handle_t http;
	enum paku_result result = PAKU_RESULT_DOWNLOAD_FAILED;

	if (!slot)
		return PAKU_RESULT_NO_PARTITION;
	http = esp_http_client_init(&config);
	if (!http)
		return PAKU_RESULT_INVALID_URL;
	if (esp_http_client_open(http, 0) == ESP_OK)
		result = fill(u, http, slot, offer);
	esp_http_client_cleanup(http);
	return result;
}

void paku_esp32_begin(struct paku_updater *u, const char *site, const char *device_id,
		      const char *model, const char *version,
		      bool (*publish)(struct paku_updater *u, const char *topic,
				      const char *payload, bool retain),
		      void (*busy)(void))
{
	static char boot_id[9];
	struct paku_identity id = {
		.device_id = device_id, .device_model = model, .boot_id = boot_id};

	snprintf(boot_id, sizeof boot_id, "%08lx", (unsigned long)esp_random());
	ESP_ERROR_CHECK(nvs_open("paku", NVS_READWRITE, &nvs));
	while_busy = busy;
	io = (struct paku_updater_io){publish, install, keep, kept, confirm, restart, now_ms};
	paku_updater_init(u, &io, site, &id, version);
}

static void run(void *u)
{
	paku_updater_run(u);
	vTaskDelete(NULL);
}

void paku_esp32_run(struct paku_updater *u)
{
	/* Without memory for it the device starts anew, and is told again. */
	ESP_ERROR_CHECK(xTaskCreate(run, "paku_ota", 8192, u, 5, NULL) == pdPASS ? ESP_OK
										 : ESP_ERR_NO_MEM);
}
