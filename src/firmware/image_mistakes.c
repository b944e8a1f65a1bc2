/* SPDX-License-Identifier: MIT */
/*
 * Files that people upload by mistake, recognised by how they begin, with the sentence that helps.
 * Some are mistakes for every model; others only for a model whose chip is known, since a Linux
 * device's bundle may well be a gzip file, a zip archive or a file system.
 */
#include "firmware/image_internal.h"

#include <stdlib.h>

struct mistake {
	const char *begin;
	size_t len;
	size_t at;
	bool esp_only;
	const char *sentence;
};

#define BYTES(s) s, sizeof(s) - 1

static const struct mistake mistakes[] = {
	{BYTES("\xAA\x50"), 0, false, "this is a partition table, upload firmware.bin"},
	{BYTES("\x7F"
	       "ELF"),
	 0, false, "this is an ELF file (firmware.elf, for the debugger), upload firmware.bin"},
	{BYTES("UF2\n"), 0, false, "this is a UF2 file, upload firmware.bin"},
	{BYTES("version https://git-lfs"), 0, false,
	 "this is a Git LFS pointer, not the file it points to: run `git lfs pull` and upload "
	 "that"},
	{BYTES("\x1F\x8B"), 0, true,
	 "this is compressed with gzip, which only the ESP8266 Arduino updater takes; "
	 "upload firmware.bin itself"},
	{BYTES("PK\x03\x04"), 0, true, "this is a zip archive, upload the firmware.bin inside"},
	{BYTES("littlefs"), 8, true, "this is a file system image (LittleFS), upload firmware.bin"},
	{BYTES(":10"), 0, true, "this is an Intel HEX file, upload firmware.bin"},
};

#define HEAD_SIZE ((size_t)512)

static enum ota_code refuse(const char *sentence, struct ota_err *err)
{
	return ota_fail(err, OTA_EUNPROCESSABLE, "%s", sentence);
}

/* The first character that counts is '<': HTML, or a storage service's error in XML. */
static bool is_markup(const uint8_t *head, size_t len)
{
	size_t i = len >= 3 && memcmp(head, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;

	while (i < len && strchr(" \t\r\n", head[i]) && head[i])
		i++;
	return i < len && head[i] == '<';
}

/* SPIFFS, pages of 256 bytes: the lookup table begins with an object header, which page 1 is. */
static bool is_spiffs(const uint8_t *head, size_t len)
{
	return len >= 0x106 && (head[1] & 0x80) && le16(head) != 0xFFFF &&
	       le16(head) == le16(head + 0x100) && le16(head + 0x102) == 0 &&
	       (head[0x104] == 0xF8 || head[0x104] == 0xFC);
}

/*
 * esp_ota_select_entry_t: sequence number, label, state, CRC-32 of the number; two sectors of 4
 * KiB. The CRC is esp_rom_crc32_le(UINT32_MAX, ...), which inverts its start value: zlib's, begun
 * with 0 (ESP-IDF, bootloader_common_ota_select_crc()).
 */
static bool is_otadata(const struct image_source *src, const uint8_t *head, size_t len)
{
	return src->size == 0x2000 && len >= 32 && image_crc32(0, head, 4) == le32(head + 28);
}

/* Every byte the same, 0x00 or 0xFF. */
static enum ota_code check_blank(const struct image_source *src, uint8_t fill, bool *blank,
				 struct ota_err *err)
{
	uint8_t *buf = malloc(IMAGE_BLOCK_SIZE);
	enum ota_code code = OTA_OK;

	if (!buf)
		return ota_fail_nomem(err);
	*blank = true;
	for (uint64_t off = 0; !code && *blank && off < src->size;) {
		size_t got;

		code = image_peek(src, off, buf, IMAGE_BLOCK_SIZE, &got, err);
		for (size_t i = 0; !code && i < got && *blank; i++)
			*blank = buf[i] == fill;
		off += got;
	}
	free(buf);
	return code;
}

/* A file that begins with 0xFF: what esptool merge-bin makes for a bootloader at 0x1000 or 0x2000.
 */
static enum ota_code check_merged(const struct image_source *src, struct ota_err *err)
{
	static const uint64_t bootloader_at[] = {0x1000, 0x2000};
	uint8_t b[2];
	size_t got;
	enum ota_code code = image_peek(src, PARTITION_TABLE_AT, b, sizeof b, &got, err);
	bool merged = b[0] == PARTITION_MAGIC_0 && b[1] == PARTITION_MAGIC_1;

	for (size_t i = 0; !code && !merged && i < 2; i++) {
		code = image_peek(src, bootloader_at[i], b, 1, &got, err);
		merged = b[0] == ESP_MAGIC;
	}
	if (!code && merged)
		code = refuse("this is a merged flash image (bootloader, partition table and "
			      "application in one), upload firmware.bin",
			      err);
	return code;
}

static enum ota_code check_filled(const struct image_source *src, uint8_t first,
				  struct ota_err *err)
{
	bool blank = false;
	enum ota_code code = OTA_OK;

	if (first == 0xFF)
		code = check_merged(src, err);
	if (!code && (first == 0xFF || first == 0x00))
		code = check_blank(src, first, &blank, err);
	if (!code && blank)
		code = ota_fail(err, OTA_EUNPROCESSABLE,
				"the file is blank: every byte is 0x%02X; upload firmware.bin",
				first);
	return code;
}

enum ota_code image_check_mistakes(const struct image_source *src, bool must_be_esp,
				   const char *model, enum chip wanted, struct ota_err *err)
{
	bool only_esp = must_be_esp || wanted != CHIP_NONE;
	uint8_t head[HEAD_SIZE];
	size_t got;
	enum ota_code code = image_peek(src, 0, head, sizeof head, &got, err);

	if (code)
		return code;
	for (size_t i = 0; i < sizeof mistakes / sizeof mistakes[0]; i++) {
		const struct mistake *m = &mistakes[i];

		if ((!m->esp_only || only_esp) && got >= m->at + m->len &&
		    memcmp(head + m->at, m->begin, m->len) == 0)
			return refuse(m->sentence, err);
	}
	if (is_markup(head, got))
		return refuse("this is a web page (HTML or XML), perhaps an error message that was "
			      "saved as the file; upload firmware.bin",
			      err);
	if (is_otadata(src, head, got))
		return refuse("this is the OTA data partition (boot_app0.bin), upload firmware.bin",
			      err);
	code = check_filled(src, head[0], err);
	if (code || !only_esp)
		return code;
	if (is_spiffs(head, got))
		return refuse("this is a file system image (SPIFFS), upload firmware.bin", err);
	if (wanted == CHIP_NONE)
		return ota_fail(err, OTA_EUNPROCESSABLE,
				"this is no ESP image: the first byte is 0x%02X, not 0xE9; upload "
				"firmware.bin",
				head[0]);
	return ota_fail(
		err, OTA_EUNPROCESSABLE,
		"this is no %s image, which the model %s needs: the first byte is 0x%02X, not "
		"0xE9; upload firmware.bin, or say image_type=raw",
		chip_name(wanted), model, head[0]);
}
