/* SPDX-License-Identifier: MIT */
/*
 * Images of the ESP8266, which carry no chip number: what tells them is that their segments lie
 * where only that chip has memory.  Sources: esptool's bin_image.py (ESP8266ROMFirmwareImage,
 * ESP8266V2FirmwareImage), esp8266/Arduino tools/elf2bin.py and tools/signing.py.
 *
 * Arduino: the bootloader "eboot" at 0, the application at 0x1000, both with an 8-byte header.
 * Since core 2.6 the first eight bytes of the application's first segment hold the file's length
 * and a CRC-32 of the file; the CRC, and the XOR checksum, are of the file with these eight bytes
 * zero.  A signed file ends with the signature and its length, u32.
 *
 * Non-OS SDK v2: header 0xEA 0x04, the flash code, then a part with header 0xE9 whose checksum
 * leaves the flash code out; some builds end with a CRC-32 of it all.  Where there is none, a
 * change in the flash code cannot be seen.
 *
 * Refused: a file of a single 0xE9 part.  That is eboot alone, or an image for the address 0
 * without room for an update (eagle.flash.bin); neither can be installed over the air.
 */
#include "firmware/image_internal.h"

#include <inttypes.h>

#define HEADER_SIZE     8
#define V2_IROM_AT      16
#define ARDUINO_INFO_AT 0x1010 /* length, CRC */
#define SIGNATURE_MAX   1024

static bool esp8266_address(uint32_t addr)
{
	return (addr >= 0x3FFE8000u && addr < 0x40000000u) || /* data RAM */
	       (addr >= 0x40100000u && addr < 0x40110000u) || /* instruction RAM */
	       (addr >= 0x40200000u && addr < 0x40300000u);   /* flash */
}

enum ota_code image_looks_esp8266(const struct image_source *src, bool *yes, struct ota_err *err)
{
	uint8_t head[HEADER_SIZE + 4];
	size_t got;
	enum ota_code code = image_peek(src, 0, head, sizeof head, &got, err);

	*yes = !code && (head[0] == ESP8266_V2_MAGIC ||
			 (head[0] == ESP_MAGIC && esp8266_address(le32(head + HEADER_SIZE))));
	return code;
}

/* The part with an 8-byte 0xE9 header at AT; BASE is where its 16-byte lines are counted from. */
static enum ota_code walk_part(const struct image_source *src, uint64_t base, uint64_t at,
			       const char *what, struct image_layout *layout, struct ota_err *err)
{
	uint8_t head[HEADER_SIZE];
	enum ota_code code = image_read(src, at, head, sizeof head, what, err);

	if (code)
		return code;
	if (head[0] != ESP_MAGIC)
		return ota_fail(err, OTA_EUNPROCESSABLE,
				"the ESP8266 image is damaged: %s begins with 0x%02X, not 0xE9",
				what, head[0]);
	code = image_walk(src, base, at + HEADER_SIZE, head[1], false, layout, err);
	for (int i = 0; !code && i < layout->count; i++)
		if (!esp8266_address(layout->seg[i].addr))
			code = ota_fail(err, OTA_EUNPROCESSABLE,
					"the ESP8266 image is damaged: segment %d of %s has the "
					"address 0x%08" PRIX32 ", where the chip has no memory",
					i + 1, what, layout->seg[i].addr);
	return code;
}

static enum ota_code check_xor(uint8_t want, uint8_t got, const char *what, struct ota_err *err)
{
	if (want == got)
		return OTA_OK;
	return ota_fail(err, OTA_EUNPROCESSABLE,
			"the image is damaged: the checksum of %s is 0x%02X, its data say 0x%02X",
			what, want, got);
}

static enum ota_code check_eboot(const struct image_source *src, const struct image_layout *layout,
				 struct ota_err *err)
{
	struct image_pass pass = {.to = layout->end, .layout = layout};
	uint8_t checksum;
	enum ota_code code =
		image_read(src, layout->checksum_at, &checksum, 1, "the bootloader", err);

	if (!code)
		code = image_run_pass(src, &pass, err);
	return code ? code : check_xor(checksum, pass.xor_sum, "the bootloader", err);
}

/*
 * The eight bytes are length and CRC when the checksum is right with them zero, else they are code
 * of an older core.  When it is right both ways (their XOR is zero) a false length decides for
 * code.
 */
static enum ota_code check_arduino_sums(const struct image_source *src,
					const struct image_layout *app, struct ota_err *err)
{
	struct image_pass pass = {
		.to = app->end,
		.layout = app,
		.crc_kind = IMAGE_CRC_EBOOT,
		.blank_at = ARDUINO_INFO_AT,
	};
	uint8_t info[8], checksum, fold = 0;
	enum ota_code code = image_read(src, ARDUINO_INFO_AT, info, sizeof info, "segment 1", err);

	if (!code)
		code = image_read(src, app->checksum_at, &checksum, 1, "the checksum", err);
	if (!code)
		code = image_run_pass(src, &pass, err);
	if (code)
		return code;
	for (size_t i = 0; i < sizeof info; i++)
		fold ^= info[i];
	uint32_t length = le32(info), crc = le32(info + 4);
	bool is_code = checksum == pass.xor_sum && (fold != 0 || length != app->end);
	if (is_code)
		return OTA_OK;
	code = check_xor(checksum, pass.xor_sum ^ fold, "the application", err);
	if (!code && length != app->end)
		code = ota_fail(err, OTA_EUNPROCESSABLE,
				"the image is damaged: it says it has %" PRIu32
				" bytes, its segments say %" PRIu64,
				length, app->end);
	if (!code && crc != pass.crc)
		code = ota_fail(err, OTA_EUNPROCESSABLE,
				"the image is damaged: its CRC-32 is 0x%08" PRIX32
				", its data say 0x%08" PRIX32,
				crc, pass.crc);
	return code;
}

static enum ota_code check_arduino_tail(const struct image_source *src, uint64_t end,
					bool *is_signed, struct ota_err *err)
{
	uint64_t tail = src->size - end;
	uint8_t raw[4];
	enum ota_code code;

	*is_signed = false;
	if (tail == 0)
		return OTA_OK;
	if (tail <= sizeof raw || tail > SIGNATURE_MAX)
		return image_refuse_trailing(end, src->size, err);
	code = image_read(src, src->size - sizeof raw, raw, sizeof raw, "the signature", err);
	if (code)
		return code;
	*is_signed = le32(raw) == tail - sizeof raw;
	return *is_signed ? OTA_OK : image_refuse_trailing(end, src->size, err);
}

/* eboot is read already; a part that ends where the file ends is all there is. */
static enum ota_code refuse_single_part(const struct image_layout *part, struct ota_err *err)
{
	if (part->end <= ESP8266_APP_OFFSET)
		return ota_fail(err, OTA_EUNPROCESSABLE,
				"this is a bootloader (eboot of the ESP8266), upload firmware.bin");
	return ota_fail(
		err, OTA_EUNPROCESSABLE,
		"this ESP8266 image is for flash address 0 and cannot be installed over the "
		"air: upload the one for an update slot (firmware.bin, user1.bin)");
}

static enum ota_code parse_arduino(const struct image_source *src, struct image_info *info,
				   struct ota_err *err)
{
	struct image_layout eboot = {0}, app = {0};
	enum ota_code code = walk_part(src, 0, 0, "the bootloader", &eboot, err);

	if (code)
		return code;
	if (eboot.end > ESP8266_APP_OFFSET || eboot.end == src->size)
		return refuse_single_part(&eboot, err);
	code = walk_part(src, ESP8266_APP_OFFSET, ESP8266_APP_OFFSET, "the application", &app, err);
	if (!code && app.seg[0].len < 8)
		code = ota_fail(
			err, OTA_EUNPROCESSABLE,
			"the image is damaged: segment 1 is too short for its length and CRC");
	if (!code)
		code = check_eboot(src, &eboot, err);
	if (!code)
		code = check_arduino_sums(src, &app, err);
	if (!code)
		code = check_arduino_tail(src, app.end, &info->signed_block, err);
	info->layout = "esp8266 arduino";
	info->segments = app.count;
	return code;
}

/* esptool's esp8266_crc32(): zlib's, inverted when its top bit is set, else plus one. */
static uint32_t v2_crc(uint32_t crc)
{
	return crc & 0x80000000u ? ~crc : crc + 1;
}

static enum ota_code check_v2_sums(const struct image_source *src, const struct image_layout *part,
				   struct ota_err *err)
{
	struct image_pass pass = {.to = part->end, .layout = part};
	uint8_t checksum, stored[4];
	enum ota_code code = image_read(src, part->checksum_at, &checksum, 1, "the checksum", err);
	bool has_crc = src->size - part->end == sizeof stored;

	if (!code && src->size != part->end && !has_crc)
		return image_refuse_trailing(part->end, src->size, err);
	if (!code && has_crc) {
		pass.crc_kind = IMAGE_CRC_ZLIB;
		code = image_read(src, part->end, stored, sizeof stored, "the CRC-32", err);
	}
	if (!code)
		code = image_run_pass(src, &pass, err);
	if (!code)
		code = check_xor(checksum, pass.xor_sum, "the image", err);
	if (!code && has_crc && le32(stored) != v2_crc(pass.crc))
		code = ota_fail(err, OTA_EUNPROCESSABLE,
				"the image is damaged: its CRC-32 is 0x%08" PRIX32
				", its data say 0x%08" PRIX32,
				le32(stored), v2_crc(pass.crc));
	return code;
}

static enum ota_code parse_v2(const struct image_source *src, struct image_info *info,
			      struct ota_err *err)
{
	struct image_layout irom = {0}, part = {0};
	uint8_t head[V2_IROM_AT];
	enum ota_code code = image_read(src, 0, head, sizeof head, "the header", err);

	if (code)
		return code;
	if (head[1] != ESP8266_V2_SEGMENTS)
		return ota_fail(err, OTA_EUNPROCESSABLE,
				"the image header is damaged: its second byte is 0x%02X, not 0x04",
				head[1]);
	uint64_t part_at = V2_IROM_AT + (uint64_t)le32(head + 12);

	code = image_walk(src, 0, HEADER_SIZE, 1, false, &irom, err);
	if (!code)
		code = walk_part(src, 0, part_at, "the RAM part", &part, err);
	if (!code)
		code = check_v2_sums(src, &part, err);
	info->layout = "esp8266 non-os v2";
	info->segments = part.count;
	return code;
}

enum ota_code image_parse_esp8266(const struct image_source *src, const char *model,
				  enum chip wanted, struct image_info *info, struct ota_err *err)
{
	uint8_t magic;
	enum ota_code code = image_read(src, 0, &magic, 1, "the header", err);

	if (code)
		return code;
	*info = (struct image_info){
		.is_esp = true,
		.chip = CHIP_ESP8266,
		.layout = "esp8266",
		.min_chip_rev = -1,
		.max_chip_rev = -1,
	};
	code = magic == ESP8266_V2_MAGIC ? parse_v2(src, info, err) : parse_arduino(src, info, err);
	return code ? code : image_check_chip(info->chip, model, wanted, err);
}
