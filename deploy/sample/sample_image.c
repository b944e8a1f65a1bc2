/* SPDX-License-Identifier: MIT */
/*
 * sample-image VERSION FILE: writes an ESP32 application image of 256 KiB that says VERSION inside,
 * for
 * `./up --demo` and for a first try by hand.  It has what the service looks at (header, three
 * segments, ESP-IDF's application description, checksum, digest) and no code: a chip would not run
 * it. Layout: ESP-IDF, esp_app_format.h.  Runs while building, in one thread; on failure it says
 * why, exits with 1 and leaves no file.
 */
#include "base/hash.h"

#include <stdio.h>
#include <string.h>

#define HEADER_SIZE   24
#define SEGMENT_HEAD  8
#define DESC_SIZE     256
#define DROM_SIZE     (64 * 1024)
#define IROM_SIZE     (190 * 1024)
#define DRAM_SIZE     (1024 + 256)
#define IMAGE_MAX     (300 * 1024)
#define MAGIC_IMAGE   0xE9
#define MAGIC_DESC    0xABCD5432u
#define CHECKSUM_SEED 0xEF

struct image {
	uint8_t bytes[IMAGE_MAX];
	size_t len;
	uint8_t sum; /* XOR of all that lies in segments */
	uint32_t noise;
};

static void put_u32(uint8_t *at, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		at[i] = (uint8_t)(v >> 8 * i);
}

static void image_add_header(struct image *img, int segments)
{
	uint8_t *h = img->bytes;

	h[0] = MAGIC_IMAGE;
	h[1] = (uint8_t)segments;
	h[2] = 2;    /* flash mode: DIO */
	h[3] = 0x2F; /* 4 MiB, 80 MHz */
	put_u32(h + 4, 0x400D0020u);
	h[8] = 0xEE; /* no write-protect pin */
	/* chip id at 12: 0, an ESP32; revisions at 14 to 18: any */
	h[23] = 1; /* a SHA-256 follows the checksum */
	img->len = HEADER_SIZE;
}

/* One segment: FRONT (may be NULL), then bytes that look like nothing and are the same each time.
 */
static void image_add_segment(struct image *img, uint32_t address, uint32_t size,
			      const uint8_t *front, size_t front_len)
{
	uint8_t *head = img->bytes + img->len, *data = head + SEGMENT_HEAD;

	put_u32(head, address);
	put_u32(head + 4, size);
	for (uint32_t i = 0; i < size; i++) {
		img->noise = img->noise * 1664525u + 1013904223u;
		data[i] = i < front_len ? front[i] : (uint8_t)(img->noise >> 24);
		img->sum ^= data[i];
	}
	img->len += SEGMENT_HEAD + size;
}

static bool image_close(struct image *img)
{
	uint8_t digest[SHA256_SIZE];

	while (img->len % 16 != 15)
		img->bytes[img->len++] = 0;
	img->bytes[img->len++] = img->sum;
	if (!sha256_once(img->bytes, img->len, digest))
		return false;
	memcpy(img->bytes + img->len, digest, sizeof digest);
	img->len += sizeof digest;
	return true;
}

static bool image_make(struct image *img, const char *version)
{
	uint8_t desc[DESC_SIZE] = {0};
	uint8_t elf[SHA256_SIZE];

	put_u32(desc, MAGIC_DESC);
	memcpy(desc + 0x10, version, strlen(version));
	memcpy(desc + 0x30, "paku-sample", 11);
	memcpy(desc + 0x50, "12:00:00", 8);
	memcpy(desc + 0x60, "Nov 23 2026", 11);
	memcpy(desc + 0x70, "v5.3", 4);
	/* Stands for the program's own digest: one for each version. */
	if (!sha256_once(version, strlen(version), elf))
		return false;
	memcpy(desc + 0x90, elf, sizeof elf);

	*img = (struct image){.sum = CHECKSUM_SEED, .noise = elf[0]};
	image_add_header(img, 3);
	image_add_segment(img, 0x3F400020u, DROM_SIZE, desc, sizeof desc);
	image_add_segment(img, 0x3FFB0000u, DRAM_SIZE, NULL, 0);
	image_add_segment(img, 0x400D0020u, IROM_SIZE, NULL, 0);
	return image_close(img);
}

static bool image_write(const struct image *img, const char *path)
{
	FILE *f = fopen(path, "wb");

	if (!f)
		return false;
	bool ok = fwrite(img->bytes, 1, img->len, f) == img->len;
	ok = fclose(f) == 0 && ok;
	if (!ok)
		remove(path);
	return ok;
}

int main(int argc, char **argv)
{
	static struct image img;

	if (argc != 3 || !*argv[1] || strlen(argv[1]) > 31) {
		fprintf(stderr, "Usage: sample-image VERSION FILE\n");
		return 2;
	}
	if (!image_make(&img, argv[1])) {
		fprintf(stderr, "sample-image: SHA-256 failed\n");
		return 1;
	}
	if (!image_write(&img, argv[2])) {
		perror(argv[2]);
		return 1;
	}
	return 0;
}
