/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Updates this device over MQTT as a Paku OTA service commands, for ever.  Call once, when Wi-Fi
 * and NVS are up; the strings stay the caller's and valid.  uri:
 * "mqtt://user:password@192.168.1.10".
 */
void paku_ota_start(const char *uri, const char *device_id, const char *model);
