/* SPDX-License-Identifier: MIT */
/*
 * Any bytes through the image inspection, for every claim and a few chips.  It never reads outside
 * the file (the source aborts), always has a verdict with a sentence, and says the same of the same
 * file. Seeds: `test_image --corpus tests/fuzz/corpus/image`.
 */
#include "../unit/image_source.h"

#include "base/hash.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void check_verdict(enum ota_code code, enum image_type type, enum chip chip, size_t size,
			  const struct image_info *info, const struct ota_err *err)
{
	if (code != OTA_OK) {
		must(code == OTA_EUNPROCESSABLE && err->code == code && err->msg[0] != '\0');
		must(type != IMAGE_RAW || size == 0);
		return;
	}
	must(size > 0 && info->layout != NULL);
	must(strlen(info->version) < sizeof info->version);
	must(strlen(info->build_time) < sizeof info->build_time);
	must(type != IMAGE_ESP || info->is_esp);
	must(info->is_esp == (info->chip != CHIP_NONE));
	must(!info->is_esp || chip == CHIP_NONE || info->chip == chip);
	must(!info->is_esp || (info->segments >= 1 && info->segments <= 16));
}

static void run_all(const uint8_t *data, size_t size)
{
	static const enum image_type types[] = {IMAGE_AUTO, IMAGE_ESP, IMAGE_RAW};
	static const enum chip chips[] = {CHIP_NONE, CHIP_ESP8266, CHIP_ESP32, CHIP_ESP32_C3};

	for (size_t t = 0; t < 3; t++)
		for (size_t c = 0; c < 4; c++) {
			struct image_info info = {0};
			struct ota_err err;
			enum ota_code code = inspect_memory(data, size, types[t], "a-model",
							    chips[c], &info, &err);

			check_verdict(code, types[t], chips[c], size, &info, &err);
		}
}

/* Makes the sums of an ESP32-family image right, so that what the fuzzer wrote inside is looked at.
 */
static bool repair_esp32(uint8_t *p, size_t size)
{
	uint8_t sum = 0xEF;
	size_t at = 24;

	if (size < 24 || p[0] != 0xE9 || p[1] > 16)
		return false;
	for (int i = 0; i < p[1]; i++) {
		uint32_t len;

		if (size - at < 8)
			return false;
		memcpy(&len, p + at + 4, sizeof len);
		at += 8;
		if (len > size - at)
			return false;
		for (; len; len--)
			sum ^= p[at++];
	}
	at |= 15;
	if (at >= size)
		return false;
	p[at++] = sum;
	if (p[23] != 1)
		return true;
	return size - at >= SHA256_SIZE && sha256_once(p, at, p + at);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);

	run_all(data, size);
	if (copy && size) {
		memcpy(copy, data, size);
		if (repair_esp32(copy, size))
			run_all(copy, size);
	}
	free(copy);
	return 0;
}
