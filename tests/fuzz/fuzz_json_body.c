/* SPDX-License-Identifier: MIT */
/* Any body: no crash; an accepted one is an object whose fields the getters read or refuse. */
#include "json/json_body.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_fields(json_t *root)
{
	static const char *const words[] = {"all", "group", "canary", "specific"};
	struct field_errors fe = FIELD_ERRORS_INIT;
	struct json_fields f = {.object = root, .errors = &fe};
	const char *key, *s = NULL;
	const json_t *j = NULL;
	json_t *value;
	int64_t n = 0;
	size_t w = 0;
	bool b = false;

	json_object_foreach(root, key, value)
	{
		if (json_field_int(&f, key, true, 0, 100, &n) && (n < 0 || n > 100))
			abort();
		if (json_field_word(&f, key, true, words, 4, &w) && w > 3)
			abort();
		json_field_string(&f, key, true, 1, 128, &s);
		json_field_bool(&f, key, false, &b);
		json_field_strings(&f, key, false, 10, 1, 128, &j);
		json_field_object(&f, key, false, &j);
	}
	/* Whatever the keys are made of, the list of errors is JSON. */
	if (field_errors_any(&fe)) {
		json_t *list = json_loads(field_errors_text(&fe), 0, NULL);
		if (!list || json_array_size(list) != fe.count)
			abort();
		json_decref(list);
	}
	field_errors_fini(&fe);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ota_err err = {0};
	json_t *root = NULL;

	if (json_body_parse((const char *)data, size, &root, &err) == OTA_OK) {
		if (!json_is_object(root))
			abort();
		read_fields(root);
		json_decref(root);
	} else if (root || err.msg[0] == '\0' || !utf8_valid(err.msg, strlen(err.msg))) {
		abort();
	}
	return 0;
}
