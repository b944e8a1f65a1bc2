/* SPDX-License-Identifier: MIT */
/*
 * Any bytes through the image inspection, for every claim and a few chips.  It never reads outside
 * the file (the source aborts), always has a verdict with a sentence, and says the same of the same
 * file. Seeds: `test_image --corpus tests/fuzz/corpus/image`.
 */
#include "../unit/image_source.h"

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
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
	return 0;
}
