/* SPDX-License-Identifier: MIT */
/* Any request target: no crash, and what is accepted keeps the promises of query.h. */
#include "http/parse/query.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct query *q, size_t raw_len)
{
	size_t total = 0;

	for (size_t i = 0; i < q->segment_count; i++)
		total += strlen(q->segments[i]);
	for (size_t i = 0; i < q->param_count; i++) {
		total += strlen(q->params[i].key) + strlen(q->params[i].value);
		/* Its own name finds it and no other: no name occurs twice. */
		if (query_find(q, q->params[i].key) != &q->params[i])
			abort();
	}
	if (total > raw_len)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *raw = malloc(size + 1);
	struct ota_err err = {0};
	struct query q;

	if (!raw)
		return 0;
	memcpy(raw, data, size);
	raw[size] = '\0';
	if (query_parse(&q, raw, &err) == OTA_OK) {
		int64_t n = -1;
		bool flag = false;
		check(&q, size);
		for (size_t i = 0; i < q.param_count; i++) {
			if (query_get_int(&q, q.params[i].key, 1, 1000, &n, &err) == OTA_OK &&
			    (n < 1 || n > 1000))
				abort();
			if (query_get_bool(&q, q.params[i].key, &flag, &err) != OTA_OK &&
			    err.msg[0] == '\0')
				abort();
		}
	} else if (q.arena || err.msg[0] == '\0') {
		abort();
	}
	query_fini(&q);
	free(raw);
	return 0;
}
