// SPDX-License-Identifier: MIT
// An ESP32 that a Paku OTA service updates over MQTT: birth message, last will, command, accepted,
// progress, result after the restart.  Arduino core 3; libraries: PubSubClient, ArduinoJson 7.
#include <ArduinoJson.h>
#include <HTTPUpdate.h>
#include <Preferences.h>
#include <PubSubClient.h>
#include <WiFi.h>
#include <esp_ota_ops.h>
#include <mbedtls/sha256.h>

#define VERSION "1.0.0" // each build its own: that is how the service knows what runs
#define TOPIC   "paku/edge/esp32_001/"

WiFiClient line, download;
PubSubClient mqtt(line);
Preferences kept;             // outlives the restart: the version we are to become
String url, checksum, target; // the command; loop() runs it, where it may take its time
int imageSize;

template <class... Values> bool say(const char *topic, const char *format, Values... values) {
	char text[400];
	int n = snprintf(text, sizeof text, "{\"timestamp\":%lu,", millis());
	snprintf(text + n, sizeof text - n, format, values...);
	return mqtt.publish(topic, text, !strcmp(topic, TOPIC "status")); // the birth message is retained
}
bool sayResult(const String &version, int code, const char *message) {
	return say(TOPIC "ota/result", "\"version\":\"%s\",\"success\":%s,\"result_code\":%d,\"message\":\"%s\"}",
		   version.c_str(), code ? "false" : "true", code, message);
}
void onCommand(char *, uint8_t *payload, unsigned len) {
	JsonDocument command;
	if (target.length() || deserializeJson(command, payload, len))
		return; // an update is under way, or this is no JSON
	url = command["url"] | "", checksum = command["checksum"] | "", target = command["version"] | "";
	say(TOPIC "ota/status", "\"status\":\"accepted\",\"version\":\"%s\"}", target.c_str());
}
void onProgress(int done, int total) {
	static uint32_t last, begun;
	mqtt.loop(); // keeps the connection alive during the download
	imageSize = total;
	if (!done)
		begun = millis();
	if (done < total && millis() - last < 1000)
		return;
	last = millis();
	say(TOPIC "ota/progress", "\"state\":\"%s\",\"percent\":%d,\"downloaded\":%d,\"total\":%d,\"elapsed_ms\":%lu}",
	    done < total ? "Downloading" : "Installing", (int)(done * 100LL / max(total, 1)), done, total, last - begun);
}
bool verified() { // what the flash reads back is what the command promised
	const void *image;
	esp_partition_mmap_handle_t map;
	uint8_t sum[32];
	char hex[65];
	if (esp_partition_mmap(esp_ota_get_boot_partition(), 0, imageSize, ESP_PARTITION_MMAP_DATA, &image, &map))
		return false;
	mbedtls_sha256((const uint8_t *)image, imageSize, sum, 0), esp_partition_munmap(map);
	for (int i = 0; i < 32; i++)
		snprintf(hex + 2 * i, 3, "%02x", sum[i]);
	return checksum.equalsIgnoreCase(hex);
}
void connectBroker() { // `false`: the session is kept, and a command waits in it
	static uint32_t bootId = esp_random();
	if (!mqtt.connect("esp32_001", "user", "password", TOPIC "status", 1, true, "{\"online\":false}", false))
		return delay(5000);
	mqtt.subscribe(TOPIC "cmd/ota", 1);
	say(TOPIC "status", "\"device_model\":\"esp32\",\"firmware_version\":\"" VERSION "\",\"online\":true,\"boot_id\":\"%08lx\"}",
	    (unsigned long)bootId);
	String told = kept.getString("target", ""); // not empty: this start ends an update
	if (told.length() && sayResult(told, told == VERSION ? 0 : 9, "told after the restart"))
		kept.remove("target");
}
void setup() {
	WiFi.begin("ssid", "password");
	kept.begin("paku");
	mqtt.setServer("192.168.1.10", 1883), mqtt.setCallback(onCommand), mqtt.setBufferSize(512);
	httpUpdate.onProgress(onProgress), httpUpdate.rebootOnUpdate(false);
}
void loop() {
	if (WiFi.status() == WL_CONNECTED && !mqtt.connected())
		connectBroker();
	mqtt.loop();
	if (!target.length())
		return;
	int code = 0;
	if (target != VERSION) {
		kept.putString("target", target); // before the first byte, for the power may fail
		code = httpUpdate.update(download, url) != HTTP_UPDATE_OK ? 2 : verified() ? 0 : 3;
		if (!code)
			delay(500), ESP.restart(); // the version that comes up tells the result
		esp_ota_set_boot_partition(esp_ota_get_running_partition());
		kept.remove("target");
	}
	sayResult(target, code, code ? "the old version stays" : "it runs already");
	target = "";
}
