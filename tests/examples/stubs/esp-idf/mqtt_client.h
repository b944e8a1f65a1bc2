/* SPDX-License-Identifier: MIT */
/* As much of the SDK's header as the examples use, for a compiler that is to check them. */
#pragma once

#include "esp_err.h"

typedef const char *esp_event_base_t;
typedef void (*esp_event_handler_t)(void *arg, esp_event_base_t base, int32_t id, void *data);
typedef struct esp_mqtt_client *esp_mqtt_client_handle_t;

typedef enum {
	MQTT_EVENT_ANY = -1,
	MQTT_EVENT_ERROR,
	MQTT_EVENT_CONNECTED,
	MQTT_EVENT_DISCONNECTED,
	MQTT_EVENT_SUBSCRIBED,
	MQTT_EVENT_UNSUBSCRIBED,
	MQTT_EVENT_PUBLISHED,
	MQTT_EVENT_DATA,
} esp_mqtt_event_id_t;

typedef struct {
	esp_mqtt_event_id_t event_id;
	char *data;
	int data_len, total_data_len;
	bool retain;
} * esp_mqtt_event_handle_t;

typedef struct {
	struct {
		struct {
			const char *uri;
		} address;
	} broker;
	struct {
		const char *client_id;
	} credentials;
	struct {
		struct {
			const char *topic, *msg;
			int msg_len, qos, retain;
		} last_will;
		bool disable_clean_session;
	} session;
} esp_mqtt_client_config_t;

esp_mqtt_client_handle_t esp_mqtt_client_init(const esp_mqtt_client_config_t *config);
esp_err_t esp_mqtt_client_start(esp_mqtt_client_handle_t client);
esp_err_t esp_mqtt_client_register_event(esp_mqtt_client_handle_t client, esp_mqtt_event_id_t event,
					 esp_event_handler_t handler, void *arg);
int esp_mqtt_client_subscribe(esp_mqtt_client_handle_t client, const char *topic, int qos);
int esp_mqtt_client_publish(esp_mqtt_client_handle_t client, const char *topic, const char *data,
			    int len, int qos, int retain);
