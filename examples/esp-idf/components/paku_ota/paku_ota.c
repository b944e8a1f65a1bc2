/* SPDX-License-Identifier: MIT */
/* Birth message, last will, command, accepted, progress, result after the restart; ESP-IDF 5. */
#include "paku_ota.h"

#include "cJSON.h"
#include "esp_app_desc.h"
#include "esp_crt_bundle.h"
#include "esp_https_ota.h"
#include "esp_ota_ops.h"
#include "esp_random.h"
#include "esp_timer.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "mbedtls/sha256.h"
#include "mqtt_client.h"
#include "nvs.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define VERSION (esp_app_get_description()->version)

static esp_mqtt_client_handle_t mqtt;
static nvs_handle_t kept; /* "target": the version we are to become; outlives the restart */
static const char *me, *my_model;
static char url[256], checksum[65], target[129]; /* the command; an empty target: none */
static uint32_t boot_id;
static int64_t begun_us;

/* FORMAT makes the fields after the timestamp, and the brace that closes. */
static void say(const char *end, const char *format, ...)
{
	char topic[200], text[400];
	va_list ap;

	snprintf(topic, sizeof topic, "paku/edge/%s/%s", me, end);
	va_start(ap, format);
	int n = snprintf(text, sizeof text, "{\"timestamp\":%lld,",
			 (long long)(esp_timer_get_time() / 1000));
	vsnprintf(text + n, sizeof text - (size_t)n, format, ap);
	va_end(ap);
	esp_mqtt_client_publish(mqtt, topic, text, 0, 1, strcmp(end, "status") == 0);
}

static void say_result(const char *version, int code, const char *message)
{
	say("ota/result",
	    "\"version\":\"%s\",\"success\":%s,\"result_code\":%d,\"message\":\"%s\"}", version,
	    code ? "false" : "true", code, message);
}

static void say_progress(const char *state, int done, int total)
{
	say("ota/progress",
	    "\"state\":\"%s\",\"percent\":%d,\"downloaded\":%d,\"total\":%d,\"elapsed_ms\":%lld}",
	    state, total > 0 ? (int)(done * 100LL / total) : 0, done, total,
	    (long long)(esp_timer_get_time() - begun_us) / 1000);
}

/* What the flash reads back is what the command promised. */
static bool verified(const esp_partition_t *slot, int size)
{
	const void *image;
	esp_partition_mmap_handle_t map;
	unsigned char sum[32];
	char hex[65];

	if (esp_partition_mmap(slot, 0, (size_t)size, ESP_PARTITION_MMAP_DATA, &image, &map))
		return false;
	mbedtls_sha256(image, (size_t)size, sum, 0);
	esp_partition_munmap(map);
	for (int i = 0; i < 32; i++)
		snprintf(hex + 2 * i, 3, "%02x", sum[i]);
	return strcasecmp(hex, checksum) == 0;
}

/* One update; 0 when the new version is to start, else the result code. */
static int update(void)
{
	const esp_partition_t *slot = esp_ota_get_next_update_partition(NULL);
	esp_http_client_config_t http = {
		.url = url, .timeout_ms = 20000, .crt_bundle_attach = esp_crt_bundle_attach};
	esp_https_ota_config_t config = {.http_config = &http};
	esp_https_ota_handle_t ota = NULL;
	int64_t told_us = 0;
	esp_err_t err;

	if (esp_https_ota_begin(&config, &ota) != ESP_OK)
		return 2;
	int size = esp_https_ota_get_image_size(ota);
	while ((err = esp_https_ota_perform(ota)) == ESP_ERR_HTTPS_OTA_IN_PROGRESS) {
		if (esp_timer_get_time() - told_us < 1000000)
			continue;
		told_us = esp_timer_get_time();
		say_progress("Downloading", esp_https_ota_get_image_len_read(ota), size);
	}
	bool whole = err == ESP_OK && esp_https_ota_is_complete_data_received(ota);
	if (!whole || !verified(slot, size)) {
		esp_https_ota_abort(ota);
		return whole ? 3 : 2;
	}
	say_progress("Installing", size, size);
	return esp_https_ota_finish(ota) == ESP_OK ? 0 : 4;
}

static void update_task(void *arg)
{
	begun_us = esp_timer_get_time();
	nvs_set_str(kept, "target", target); /* before the first byte, for the power may fail */
	nvs_commit(kept);
	int code = update();
	vTaskDelay(pdMS_TO_TICKS(500)); /* what was said goes out */
	if (!code)
		esp_restart(); /* the version that comes up tells the result */
	nvs_erase_key(kept, "target");
	nvs_commit(kept);
	char version[sizeof target];
	strcpy(version, target);
	target[0] = '\0'; /* first: the next try may follow the result at once */
	say_result(version, code, "the old version stays");
	vTaskDelete(arg);
}

static void take_command(const char *json, int len)
{
	cJSON *root = cJSON_ParseWithLength(json, (size_t)len);
	const char *u = cJSON_GetStringValue(cJSON_GetObjectItem(root, "url"));
	const char *sum = cJSON_GetStringValue(cJSON_GetObjectItem(root, "checksum"));
	const char *version = cJSON_GetStringValue(cJSON_GetObjectItem(root, "version"));

	if (u && sum && version && !target[0] && strcmp(version, VERSION) == 0) {
		say_result(version, 0, "it runs already");
	} else if (u && sum && version && !target[0]) {
		snprintf(url, sizeof url, "%s", u);
		snprintf(checksum, sizeof checksum, "%s", sum);
		snprintf(target, sizeof target, "%s", version);
		say("ota/status", "\"status\":\"accepted\",\"version\":\"%s\"}", target);
		xTaskCreate(update_task, "paku_ota", 8192, NULL, 5, NULL);
	}
	cJSON_Delete(root);
}

static void on_connected(void)
{
	char topic[200], told[129];
	size_t len = sizeof told;

	snprintf(topic, sizeof topic, "paku/edge/%s/cmd/ota", me);
	esp_mqtt_client_subscribe(mqtt, topic, 1);
	esp_ota_mark_app_valid_cancel_rollback(); /* we can be reached: this version stays */
	say("status",
	    "\"device_model\":\"%s\",\"firmware_version\":\"%s\",\"online\":true,"
	    "\"boot_id\":\"%08lx\"}",
	    my_model, VERSION, (unsigned long)boot_id);
	if (target[0] || nvs_get_str(kept, "target", told, &len) != ESP_OK)
		return; /* a reconnect, or no update ended with this start */
	say_result(told, strcmp(told, VERSION) ? 9 : 0, "told after the restart");
	nvs_erase_key(kept, "target");
	nvs_commit(kept);
}

static void on_mqtt(void *arg, esp_event_base_t base, int32_t id, void *data)
{
	esp_mqtt_event_handle_t event = data;

	(void)arg, (void)base;
	if (id == MQTT_EVENT_CONNECTED)
		on_connected();
	else if (id == MQTT_EVENT_DATA && event->data_len == event->total_data_len)
		take_command(event->data, event->data_len);
}

void paku_ota_start(const char *uri, const char *device_id, const char *model)
{
	static char will[200];

	me = device_id, my_model = model, boot_id = esp_random();
	snprintf(will, sizeof will, "paku/edge/%s/status", me);
	ESP_ERROR_CHECK(nvs_open("paku", NVS_READWRITE, &kept));
	esp_mqtt_client_config_t config = {
		.broker.address.uri = uri,
		.credentials.client_id = me,
		.session.disable_clean_session = true,
		.session.last_will = {.topic = will,
				      .msg = "{\"online\":false}",
				      .qos = 1,
				      .retain = 1},
	};
	mqtt = esp_mqtt_client_init(&config);
	ESP_ERROR_CHECK(esp_mqtt_client_register_event(mqtt, MQTT_EVENT_ANY, on_mqtt, NULL));
	ESP_ERROR_CHECK(esp_mqtt_client_start(mqtt));
}
