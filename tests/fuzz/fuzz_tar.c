/* SPDX-License-Identifier: MIT */
/* Any block, read as the header of a file in an archive: what is taken for one has a name that
 * ends, and written again it is read as the same. */
#include "base/tar.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned char block[TAR_BLOCK] = {0}, again[TAR_BLOCK];
	char name[TAR_NAME_SIZE], same[TAR_NAME_SIZE];
	uint64_t length, twice;

	memcpy(block, data, size < sizeof block ? size : sizeof block);
	if (tar_read_header(block, name, &length) != TAR_FILE)
		return 0;
	if (!memchr(name, '\0', sizeof name) || !name[0])
		abort();
	tar_write_header(name, length, 0, again);
	if (tar_read_header(again, same, &twice) != TAR_FILE || strcmp(same, name) != 0 ||
	    twice != length || tar_padding(length) >= TAR_BLOCK)
		abort();
	return 0;
}
