/* SPDX-License-Identifier: MIT */
#include "paku_ota.h"

#include "esp_app_desc.h"
#include "mqtt_client.h"
#include "paku_esp32.h"

static esp_mqtt_client_handle_t mqtt;
static struct paku_updater updater;

static bool publish(struct paku_updater *u, const char *topic, const char *payload, bool retain)
{
	(void)u;
	return esp_mqtt_client_publish(mqtt, topic, payload, 0, 1, retain) >= 0;
}

static void on_mqtt(void *arg, esp_event_base_t base, int32_t id, void *data)
{
	esp_mqtt_event_handle_t event = data;

	(void)arg, (void)base;
	if (id == MQTT_EVENT_CONNECTED) {
		esp_mqtt_client_subscribe(mqtt, updater.command_topic, 1);
		paku_updater_connected(&updater);
	} else if (id == MQTT_EVENT_DATA && event->data_len == event->total_data_len &&
		   paku_updater_command(&updater, event->data, (size_t)event->data_len)) {
		paku_esp32_run(&updater); /* in a task of its own: this one is the client's */
	}
}

void paku_ota_start(const char *uri, const char *device_id, const char *model)
{
	paku_esp32_begin(&updater, "paku", device_id, model, esp_app_get_description()->version,
			 publish, NULL);
	esp_mqtt_client_config_t config = {
		.broker.address.uri = uri,
		.credentials.client_id = device_id,
		.session.disable_clean_session = true, /* a command waits in it */
		.session.last_will = {.topic = updater.status_topic,
				      .msg = PAKU_MQTT_WILL,
				      .qos = 1,
				      .retain = 1},
	};
	mqtt = esp_mqtt_client_init(&config);
	ESP_ERROR_CHECK(esp_mqtt_client_register_event(mqtt, MQTT_EVENT_ANY, on_mqtt, NULL));
	ESP_ERROR_CHECK(esp_mqtt_client_start(mqtt));
}
