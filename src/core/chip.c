/* SPDX-License-Identifier: MIT */
#include "core/chip.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Numbers: esp_chip_id_t of ESP-IDF's esp_app_format.h, and IMAGE_CHIP_ID of esptool's targets. */
static const struct {
	const char *name;
	int esp_id; /* -1: none */
} chips[CHIP_COUNT] = {
	[CHIP_NONE] = {NULL, -1},
	[CHIP_ESP8266] = {"ESP8266", -1},
	[CHIP_ESP32] = {"ESP32", 0},
	[CHIP_ESP32_S2] = {"ESP32-S2", 2},
	[CHIP_ESP32_C3] = {"ESP32-C3", 5},
	[CHIP_ESP32_S3] = {"ESP32-S3", 9},
	[CHIP_ESP32_C2] = {"ESP32-C2", 12},
	[CHIP_ESP32_C6] = {"ESP32-C6", 13},
	[CHIP_ESP32_H2] = {"ESP32-H2", 16},
	[CHIP_ESP32_P4] = {"ESP32-P4", 18},
	[CHIP_ESP32_C61] = {"ESP32-C61", 20},
	[CHIP_ESP32_C5] = {"ESP32-C5", 23},
	[CHIP_ESP32_H21] = {"ESP32-H21", 25},
	[CHIP_ESP32_H4] = {"ESP32-H4", 28},
	[CHIP_ESP32_E22] = {"ESP32-E22", 31},
	[CHIP_ESP32_S31] = {"ESP32-S31", 32},
};

const char *chip_name(enum chip chip)
{
	return (unsigned)chip < CHIP_COUNT ? chips[chip].name : NULL;
}

static bool is_separator(char c)
{
	return c == '-' || c == '_';
}

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* A separator may stand after ESP and where ours has one: "esp32-c6-1" is not the ESP32-C61. */
static bool same_name(const char *a, const char *ours)
{
	for (const char *b = ours;; a++, b++) {
		bool may_separate = b == ours + strlen("ESP");

		if (*b == '-') {
			b++;
			may_separate = true;
		}
		if (may_separate && is_separator(*a))
			a++;
		if (!*a || !*b)
			return !*a && !*b;
		if (lower(*a) != lower(*b))
			return false;
	}
}

enum chip chip_from_name(const char *name)
{
	for (int i = CHIP_NONE + 1; name && i < CHIP_COUNT; i++)
		if (same_name(name, chips[i].name))
			return (enum chip)i;
	return CHIP_NONE;
}

enum chip chip_from_model(const char *model)
{
	return chip_from_name(model);
}

enum chip chip_from_esp_id(uint16_t id)
{
	for (int i = CHIP_NONE + 1; i < CHIP_COUNT; i++)
		if (chips[i].esp_id == id)
			return (enum chip)i;
	return CHIP_NONE;
}
