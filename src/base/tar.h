/* SPDX-License-Identifier: MIT */
/*
 * Archives of regular files as tar(1) writes and reads them (POSIX ustar; sizes of 8 GiB and more
 * as GNU tar has them).  A file is its header, its bytes, and zeros up to a whole block; two blocks
 * of zeros end the archive.  Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TAR_BLOCK     512
#define TAR_END_SIZE  (2 * TAR_BLOCK)
#define TAR_NAME_SIZE 100

/* NAME has fewer than TAR_NAME_SIZE characters. */
void tar_write_header(const char *name, uint64_t size, int64_t mtime_s,
		      unsigned char out[TAR_BLOCK]);

enum tar_header {
	TAR_FILE,
	TAR_END,
	TAR_BROKEN, /* no header, or of something that tar_write_header() does not write */
};
enum tar_header tar_read_header(const unsigned char in[TAR_BLOCK], char name[TAR_NAME_SIZE],
				uint64_t *size);

/* The zeros that follow a file of that size. */
static inline size_t tar_padding(uint64_t size)
{
	return (size_t)((TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK);
}
