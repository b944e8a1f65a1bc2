/* SPDX-License-Identifier: MIT */
/*
 * The chips of the ESP family: their names and their numbers in an image header.  Pure; any thread.
 */
#pragma once

#include <stdint.h>

enum chip {
	CHIP_NONE = 0,
	CHIP_ESP8266, /* the one whose images carry no chip number */
	CHIP_ESP32,
	CHIP_ESP32_S2,
	CHIP_ESP32_C3,
	CHIP_ESP32_S3,
	CHIP_ESP32_C2,
	CHIP_ESP32_C6,
	CHIP_ESP32_H2,
	CHIP_ESP32_P4,
	CHIP_ESP32_C61,
	CHIP_ESP32_C5,
	CHIP_ESP32_H21,
	CHIP_ESP32_H4,
	CHIP_ESP32_E22,
	CHIP_ESP32_S31,
	CHIP_COUNT,
};

/* "ESP32-S3", as Espressif writes it; NULL for CHIP_NONE and for what is no chip. */
const char *chip_name(enum chip chip);

/* The chip of that name in any case, with or without `-` and `_` ("esp32s3", "ESP32_S3"). */
enum chip chip_from_name(const char *name);

/*
 * The chip that a model's name fixes: only when the whole name is a chip's.  A board's name says
 * nothing, however it begins: "esp32-s3-devkit" and PlatformIO's "esp32dev" are CHIP_NONE, because
 * "esp32-gateway" may well hold a C6; such a model gets its chip from its first release.
 */
enum chip chip_from_model(const char *model);

/* By the chip number of an ESP32-family image header; CHIP_NONE when it is unknown. */
enum chip chip_from_esp_id(uint16_t id);
