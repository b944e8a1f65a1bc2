/* SPDX-License-Identifier: MIT */
/* Any three lines as versions: the comparison is antisymmetric and transitive, and equality agrees
 * with it. */
#include "core/version.h"

#include "core/chip.h"
#include "core/names.h"
#include "core/target.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_pair(const char *a, const char *b)
{
	enum version_order ab = version_compare(a, b), ba = version_compare(b, a);

	if (ab == VERSION_INCOMPARABLE ? ba != ab : (int)ba != -(int)ab)
		abort();
	if (version_equal(a, b) != version_equal(b, a))
		abort();
	if (version_equal(a, b) && ab != VERSION_SAME && ab != VERSION_INCOMPARABLE)
		abort();
}

static void check_names(const char *s)
{
	uint64_t mac = 0, again = 0;
	char text[MAC_TEXT_SIZE];

	(void)name_device_id_error(s);
	(void)name_version_error(s);
	(void)chip_from_model(s);
	if (!mac_parse(s, &mac))
		return;
	mac_format(mac, text);
	if (!mac_parse(text, &again) || mac != again)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 3);

	if (!text)
		return 0;
	memcpy(text, data, size);
	memset(text + size, 0, 3);
	for (size_t i = 0; i < size; i++)
		if (text[i] == '\n')
			text[i] = '\0';
	const char *a = text, *b = a + strlen(a), *c;
	b += b < text + size ? 1 : 0;
	c = b + strlen(b);
	c += c < text + size ? 1 : 0;
	check_pair(a, b);
	check_pair(b, c);
	check_pair(a, c);
	enum version_order ab = version_compare(a, b), bc = version_compare(b, c);
	if (ab <= VERSION_SAME && bc <= VERSION_SAME &&
	    version_compare(a, c) != (ab == VERSION_SAME ? bc : ab))
		abort();
	check_names(a);
	free(text);
	return 0;
}
