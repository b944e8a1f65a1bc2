/* SPDX-License-Identifier: MIT */
/* core: what the download URLs of a model or a group begin with. */
#include "core/download_base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static const struct string_list *groups_of(const char *a, const char *b)
{
	static _Alignas(struct string_list) char
		room[sizeof(struct string_list) + 2 * sizeof(const char *)];
	struct string_list *g = (struct string_list *)(void *)room;
	const char **items = (const char **)g->items;

	g->count = (size_t)(a != NULL) + (b != NULL);
	items[0] = a;
	items[1] = b;
	return g;
}

static void who_gets_which(void **state)
{
	struct download_bases *b;
	struct ota_err err;
	struct device_state s = {.model = "esp32"};

	(void)state;
	assert_int_equal(download_bases_parse("model:esp32=https://m.example/ , group:b=http://b:81"
					      "\tgroup:a=http://a/x//",
					      &b, &err),
			 OTA_OK);
	assert_string_equal(download_base_find(b, &s), "https://m.example");
	s.groups = groups_of("a", NULL);
	assert_string_equal(download_base_find(b, &s), "http://a/x");
	s.groups = groups_of("a", "b"); /* the one written first */
	assert_string_equal(download_base_find(b, &s), "http://b:81");
	s.groups = groups_of("c", NULL);
	s.model = "esp32-c3";
	assert_null(download_base_find(b, &s));
	assert_null(download_base_find(NULL, &s));
	free(b);
	assert_int_equal(download_bases_parse("  ", &b, &err), OTA_OK);
	assert_null(b);
}

static void what_makes_no_sense(void **state)
{
	static const char *const bad[][2] = {
		{"https://cdn.example.org", "must be like"},
		{"site:x=https://cdn.example.org", "must be like"},
		{"model:esp32", "must be like"},
		{"model=https://cdn.example.org", "must be like"},
		{"model:=https://cdn.example.org", "whose name"},
		{"group:a/b=https://cdn.example.org", "whose name"},
		{"model:esp32=", "whose address"},
		{"model:esp32=cdn.example.org", "whose address"},
		{"model:esp32=https://", "whose address"},
		{"model:esp32=https:///x", "whose address"},
		{"model:esp32=ftp://cdn.example.org", "whose address"},
		{"model:esp32=https://cdn.example.org/?a=b", "whose address"},
		{"model:a=http://a model:a=http://b", "model:a twice"},
		{"group:a=http://a model:a=http://b group:a=http://b", "group:a twice"},
	};
	char longest[200] = "model:a=http://";
	struct download_bases *b;
	struct ota_err err;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (download_bases_parse(bad[i][0], &b, &err) != OTA_EINVAL || b ||
		    !strstr(err.msg, bad[i][1]))
			fail_msg("%s: %s", bad[i][0], err.msg);
	memset(longest + strlen(longest), 'x', 120 - strlen("http://"));
	assert_int_equal(download_bases_parse(longest, &b, &err), OTA_OK);
	assert_int_equal(strlen(b->list[0].url), 120);
	free(b);
	strcat(longest, "x");
	assert_int_equal(download_bases_parse(longest, &b, &err), OTA_EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_gets_which),
		cmocka_unit_test(what_makes_no_sense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
