// SPDX-License-Identifier: MIT
// An ESP32 that a Paku OTA service updates over MQTT: birth message, last will, command, accepted,
// progress, result after the restart.  Libraries: PubSubClient, ArduinoJson 7.
#include <ArduinoJson.h>
#include <HTTPUpdate.h>
#include <Preferences.h>
#include <PubSubClient.h>
#include <WiFi.h>
#include <esp_ota_ops.h>
#include <mbedtls/sha256.h>

#define VERSION "1.0.0" // each build its own: that is how the service knows what runs
#define MODEL   "esp32"
#define DEVICE  "esp32_001"
#define TOPIC   "paku/edge/" DEVICE "/"

WiFiClient line, download;
PubSubClient mqtt(line);
Preferences kept;                     // outlives the restart: the version we are to become
String url, checksum, target, bootId; // the command; loop() runs it, where it may take its time
int imageSize;
uint32_t begun;

bool say(const char *topic, JsonDocument &doc, bool retain = false) {
	char text[400];
	doc["timestamp"] = millis();
	serializeJson(doc, text, sizeof text);
	return mqtt.publish(topic, text, retain);
}
bool sayResult(const String &version, int code, const String &message) {
	JsonDocument doc;
	doc["version"] = version, doc["success"] = code == 0, doc["result_code"] = code, doc["message"] = message;
	return say(TOPIC "ota/result", doc);
}
void onCommand(char *, uint8_t *payload, unsigned len) {
	JsonDocument command, doc;
	if (target.length() || deserializeJson(command, payload, len))
		return; // an update is under way, or this is no JSON
	url = command["url"] | "", checksum = command["checksum"] | "", target = command["version"] | "";
	doc["status"] = "accepted", doc["version"] = target;
	say(TOPIC "ota/status", doc);
}
void onProgress(int done, int total) {
	static uint32_t last;
	JsonDocument doc;
	mqtt.loop(); // keeps the connection alive during the download
	imageSize = total;
	if (done < total && millis() - last < 1000)
		return;
	last = millis();
	doc["state"] = done < total ? "Downloading" : "Installing", doc["downloaded"] = done, doc["total"] = total;
	doc["percent"] = total ? done * 100LL / total : 0, doc["elapsed_ms"] = millis() - begun;
	say(TOPIC "ota/progress", doc);
}
bool verified() { // of what the flash reads back
	uint8_t block[1024], sum[32];
	char hex[65];
	mbedtls_sha256_context sha;
	mbedtls_sha256_init(&sha), mbedtls_sha256_starts(&sha, 0);
	for (int at = 0, n; at < imageSize; at += n) {
		n = min(imageSize - at, (int)sizeof block);
		esp_partition_read(esp_ota_get_boot_partition(), at, block, n), mbedtls_sha256_update(&sha, block, n);
	}
	mbedtls_sha256_finish(&sha, sum), mbedtls_sha256_free(&sha);
	for (int i = 0; i < 32; i++)
		snprintf(hex + 2 * i, 3, "%02x", sum[i]);
	return checksum.equalsIgnoreCase(hex);
}
void connectBroker() { // `false`: the session is kept, and a command waits in it
	if (!mqtt.connect(DEVICE, "user", "password", TOPIC "status", 1, true, "{\"online\":false}", false))
		return delay(5000);
	mqtt.subscribe(TOPIC "cmd/ota", 1);
	JsonDocument birth;
	birth["device_model"] = MODEL, birth["firmware_version"] = VERSION, birth["online"] = true;
	birth["mac"] = WiFi.macAddress(), birth["boot_id"] = bootId;
	say(TOPIC "status", birth, true);
	String told = kept.getString("target", ""); // not empty: this start ends an update
	if (told.length() && sayResult(told, told == VERSION ? 0 : 9, told == VERSION ? "" : "the old version is back"))
		kept.remove("target");
}
void setup() {
	WiFi.begin("ssid", "password");
	kept.begin("paku");
	bootId = String(esp_random(), HEX);
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
		begun = millis();
		kept.putString("target", target); // before the first byte, for the power may fail
		code = httpUpdate.update(download, url) != HTTP_UPDATE_OK ? 2 : verified() ? 0 : 3;
		if (!code)
			delay(500), ESP.restart(); // the version that comes up tells the result
		esp_ota_set_boot_partition(esp_ota_get_running_partition());
		kept.remove("target");
	}
	sayResult(target, code, code == 2 ? httpUpdate.getLastErrorString() : code ? "another SHA-256" : "it runs already");
	target = "";
}
