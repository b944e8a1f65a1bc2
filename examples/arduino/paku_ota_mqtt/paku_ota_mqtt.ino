// SPDX-License-Identifier: MIT
// An ESP32 that a Paku OTA service updates over MQTT; docs/device-agent.md tells what to install.
#include <PubSubClient.h>
#include <WiFi.h>
#include <paku_esp32.h>

#define VERSION "1.0.0" // each build its own: that is how the service knows what runs

WiFiClient line;
PubSubClient mqtt(line);
paku_updater updater;

bool publish(paku_updater *, const char *topic, const char *payload, bool retain) {
	return mqtt.publish(topic, payload, retain);
}
void keepAlive() { // during a download
	mqtt.loop();
}
void onMessage(char *, uint8_t *payload, unsigned int length) {
	paku_updater_command(&updater, (const char *)payload, length);
}
void connectBroker() { // `false`: the session is kept, and a command waits in it
	if (!mqtt.connect("esp32_001", "user", "password", updater.status_topic, 1, true,
			  PAKU_MQTT_WILL, false))
		return delay(5000);
	mqtt.subscribe(updater.command_topic, 1);
	paku_updater_connected(&updater);
}
void setup() {
	WiFi.begin("ssid", "password");
	mqtt.setServer("192.168.1.10", 1883);
	mqtt.setCallback(onMessage);
	mqtt.setBufferSize(1024);
	paku_esp32_begin(&updater, "paku", "esp32_001", "esp32", VERSION, publish, keepAlive);
}
void loop() {
	if (WiFi.status() == WL_CONNECTED && !mqtt.connected())
		connectBroker();
	mqtt.loop();
	paku_updater_run(&updater);
}
