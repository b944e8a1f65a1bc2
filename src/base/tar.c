/* SPDX-License-Identifier: MIT */
#include "base/tar.h"

#include <stdio.h>
#include <string.h>

/* Fields of the header: where they begin and how long they are. */
enum {
	NAME = 0,
	MODE = 100,
	UID = 108,
	GID = 116,
	SIZE = 124,
	MTIME = 136,
	CHECKSUM = 148,
	TYPE = 156,
	MAGIC = 257,
	PREFIX = 345,
};
#define SIZE_LEN     12
#define CHECKSUM_LEN 8
#define OCTAL_MOST   UINT64_C(077777777777)

/* As if the checksum's own field were blanks. */
static unsigned checksum(const unsigned char *h)
{
	unsigned sum = 0;

	for (int i = 0; i < TAR_BLOCK; i++)
		sum += i >= CHECKSUM && i < CHECKSUM + CHECKSUM_LEN ? ' ' : h[i];
	return sum;
}

static void put_text(unsigned char *at, const char *text)
{
	memcpy(at, text, strlen(text));
}

static void put_size(unsigned char *at, uint64_t size)
{
	char text[24];

	if (size <= OCTAL_MOST) {
		snprintf(text, sizeof text, "%011llo", (unsigned long long)size);
		put_text(at, text);
		return;
	}
	at[0] = 0x80; /* binary, the highest byte first */
	for (int i = 0; i < 8; i++)
		at[SIZE_LEN - 1 - i] = (unsigned char)(size >> (8 * i));
}

void tar_write_header(const char *name, uint64_t size, int64_t mtime_s,
		      unsigned char out[TAR_BLOCK])
{
	char text[24];

	memset(out, 0, TAR_BLOCK);
	memcpy(out + NAME, name, strnlen(name, TAR_NAME_SIZE - 1));
	put_text(out + MODE, "0000600");
	put_text(out + UID, "0000000");
	put_text(out + GID, "0000000");
	put_size(out + SIZE, size);
	snprintf(text, sizeof text, "%011llo",
		 (unsigned long long)((uint64_t)mtime_s & OCTAL_MOST));
	put_text(out + MTIME, text);
	out[TYPE] = '0';
	memcpy(out + MAGIC,
	       "ustar\0"
	       "00",
	       8);
	snprintf(text, sizeof text, "%06o", checksum(out));
	put_text(out + CHECKSUM, text);
	out[CHECKSUM + 7] = ' ';
}

static bool read_octal(const unsigned char *at, int len, uint64_t *out)
{
	uint64_t v = 0;
	int i = 0;

	while (i < len && at[i] == ' ')
		i++;
	for (; i < len && at[i] >= '0' && at[i] <= '7'; i++)
		v = v << 3 | (uint64_t)(at[i] - '0');
	*out = v;
	return i == len || at[i] == '\0' || at[i] == ' ';
}

static bool read_size(const unsigned char *at, uint64_t *out)
{
	if (!(at[0] & 0x80))
		return read_octal(at, SIZE_LEN, out);
	*out = 0;
	for (int i = 0; i < 8; i++)
		*out = *out << 8 | at[SIZE_LEN - 8 + i];
	return at[0] == 0x80 && !at[1] && !at[2] && !at[3] && !(at[4] & 0x80);
}

static bool is_zero(const unsigned char *in)
{
	for (int i = 0; i < TAR_BLOCK; i++)
		if (in[i])
			return false;
	return true;
}

enum tar_header tar_read_header(const unsigned char in[TAR_BLOCK], char name[TAR_NAME_SIZE],
				uint64_t *size)
{
	uint64_t sum;

	if (is_zero(in))
		return TAR_END;
	if (!read_octal(in + CHECKSUM, CHECKSUM_LEN, &sum) || sum != checksum(in) ||
	    memcmp(in + MAGIC, "ustar", 5) != 0 || in[TYPE] != '0' || in[PREFIX] ||
	    in[NAME + TAR_NAME_SIZE - 1] || !in[NAME] || !read_size(in + SIZE, size))
		return TAR_BROKEN;
	memcpy(name, in + NAME, TAR_NAME_SIZE);
	return TAR_FILE;
}
