/* SPDX-License-Identifier: MIT */
/* Any header value, read as Range, If-None-Match, If-Range and Accept: a range lies inside the
 * size. */
#include "http/parse/accept.h"
#include "http/parse/range.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint64_t sizes[] = {0, 1, 100, 1u << 20, UINT64_MAX};
	char *header = malloc(size + 1);

	if (!header)
		return 0;
	memcpy(header, data, size);
	header[size] = '\0';
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		uint64_t first = 1, last = 0;
		if (range_parse(header, sizes[i], &first, &last) == RANGE_OK &&
		    (first > last || last >= sizes[i]))
			abort();
	}
	/* A strong tag that If-Range accepts is one that If-None-Match finds. */
	if (if_range_matches(header, "\"abc\"", NULL) && !etag_list_matches(header, "\"abc\""))
		abort();
	(void)accept_prefers_text(header);
	free(header);
	return 0;
}
