/* SPDX-License-Identifier: MIT */
/* What paku_updater.h needs of an ESP32: ESP-IDF 5, or Arduino core 3, which is built on it. */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

#include "paku_updater.h"

/*
 * Prepares *u for topics below SITE, with the MQTT client behind `publish`.  `busy`, if not NULL,
 * is called again and again during a download.  NVS must be up; the strings stay the caller's, and
 * valid.  One updater a device.
 */
void paku_esp32_begin(struct paku_updater *u, const char *site, const char *device_id,
		      const char *model, const char *version,
		      bool (*publish)(struct paku_updater *u, const char *topic,
				      const char *payload, bool retain),
		      void (*busy)(void));

/* paku_updater_run() in a task of its own: when a command came, and for those without a loop(). */
void paku_esp32_run(struct paku_updater *u);

#ifdef __cplusplus
}
#endif
