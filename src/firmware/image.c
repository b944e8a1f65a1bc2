/* SPDX-License-Identifier: MIT */
/*
 * The verdict: which parser looks at the file, and what its answer means for this model.
 */
#include "firmware/image_internal.h"

#include <stdio.h>

enum ota_code image_check_chip(enum chip chip, const char *model, enum chip wanted,
			       struct ota_err *err)
{
	if (wanted == CHIP_NONE || wanted == chip)
		return OTA_OK;
	return ota_fail(err, OTA_EUNPROCESSABLE, "the image is for %s, the model %s is %s",
			chip_name(chip), model, chip_name(wanted));
}

static struct image_info raw_info(const char *layout)
{
	return (struct image_info){.layout = layout, .min_chip_rev = -1, .max_chip_rev = -1};
}

/*
 * The file's own form chooses the parser, so that an image of another chip is named for what it is;
 * the model's chip is compared afterwards.
 */
static enum ota_code inspect_esp(const struct image_source *src, const char *model,
				 enum chip wanted, struct image_info *info, struct ota_err *err)
{
	bool esp8266;
	enum ota_code code = image_looks_esp8266(src, &esp8266, err);

	if (code)
		return code;
	return (esp8266 ? image_parse_esp8266 : image_parse_esp32)(src, model, wanted, info, err);
}

static enum ota_code inspect(const struct image_source *src, enum image_type type,
			     const char *model, enum chip wanted, struct image_info *info,
			     struct ota_err *err)
{
	uint8_t head[2];
	size_t got;
	enum ota_code code = image_peek(src, 0, head, sizeof head, &got, err);

	if (code)
		return code;
	bool v2 = head[0] == ESP8266_V2_MAGIC && (got < 2 || head[1] == ESP8266_V2_SEGMENTS);
	if (head[0] == ESP_MAGIC || v2)
		return inspect_esp(src, model, wanted, info, err);
	if (type == IMAGE_AUTO && wanted == CHIP_ESP8266 && head[0] == 0x1F && head[1] == 0x8B) {
		*info = raw_info("gzip");
		snprintf(info->note, sizeof info->note,
			 "compressed with gzip: not checked; the ESP8266 Arduino updater unpacks "
			 "it");
		return OTA_OK;
	}
	*info = raw_info("raw");
	return image_check_mistakes(src, type == IMAGE_ESP, model, wanted, err);
}

enum ota_code image_inspect(const struct image_source *src, enum image_type type, const char *model,
			    enum chip chip_wanted, struct image_info *out, struct ota_err *err)
{
	struct image_info info = raw_info("raw");
	enum ota_code code = OTA_OK;

	if (src->size == 0)
		return ota_fail(err, OTA_EUNPROCESSABLE, "the file is empty, upload firmware.bin");
	if (type != IMAGE_RAW)
		code = inspect(src, type, model, chip_wanted, &info, err);
	if (!code)
		*out = info;
	return code;
}
