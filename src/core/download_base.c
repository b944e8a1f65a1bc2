/* SPDX-License-Identifier: MIT */
#include "core/download_base.h"

#include "core/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEPARATORS " ,\t\r\n"

bool download_base_ok(const char *url, size_t len)
{
	size_t scheme = strncmp(url, "http://", 7) == 0    ? 7
			: strncmp(url, "https://", 8) == 0 ? 8
							   : 0;

	if (!scheme || len <= scheme || len >= sizeof((struct download_base *)NULL)->url)
		return false;
	for (size_t i = 0; i < len; i++)
		if (strchr(" ?#\"\\", url[i]))
			return false;
	return url[scheme] != '/';
}

/* One of them, of LEN bytes. */
static enum ota_code parse_one(const char *text, size_t len, struct download_base *out,
			       struct ota_err *err)
{
	bool group = strncmp(text, "group:", 6) == 0, model = strncmp(text, "model:", 6) == 0;
	const char *name = text + 6, *equals = memchr(text, '=', len);

	if ((!group && !model) || !equals || equals < name)
		return ota_fail(err, OTA_EINVAL,
				"has '%.*s', but must be like model:esp32=https://cdn.example.org "
				"or group:plant-a=http://10.9.0.2, separated by blanks or commas",
				(int)len, text);
	size_t name_len = (size_t)(equals - name), url_len = len - (size_t)(equals + 1 - text);
	*out = (struct download_base){.is_group = group};
	if (name_len < sizeof out->name)
		memcpy(out->name, name, name_len);
	if (name_version_error(out->name))
		return ota_fail(err, OTA_EINVAL, "has '%.*s', whose name %s", (int)len, text,
				name_version_error(out->name));
	if (!download_base_ok(equals + 1, url_len))
		return ota_fail(err, OTA_EINVAL,
				"has '%.*s', whose address must be like https://cdn.example.org, "
				"of at most 120 characters",
				(int)len, text);
	while (equals[url_len] == '/')
		url_len--;
	memcpy(out->url, equals + 1, url_len);
	return OTA_OK;
}

static bool is_twice(const struct download_bases *b)
{
	const struct download_base *last = &b->list[b->count - 1];

	for (size_t i = 0; i + 1 < b->count; i++)
		if (b->list[i].is_group == last->is_group &&
		    strcmp(b->list[i].name, last->name) == 0)
			return true;
	return false;
}

static size_t count_parts(const char *text)
{
	size_t count = 0;

	for (const char *p = text + strspn(text, SEPARATORS); *p; p += strspn(p, SEPARATORS)) {
		count++;
		p += strcspn(p, SEPARATORS);
	}
	return count;
}

enum ota_code download_bases_parse(const char *text, struct download_bases **out,
				   struct ota_err *err)
{
	size_t count = count_parts(text);
	enum ota_code rc = OTA_OK;

	*out = NULL;
	if (count == 0)
		return OTA_OK;
	struct download_bases *b = calloc(1, sizeof *b + count * sizeof b->list[0]);
	if (!b)
		return ota_fail_nomem(err);
	for (const char *p = text + strspn(text, SEPARATORS); *p && rc == OTA_OK;
	     p += strspn(p, SEPARATORS)) {
		size_t len = strcspn(p, SEPARATORS);
		rc = parse_one(p, len, &b->list[b->count++], err);
		if (rc == OTA_OK && is_twice(b))
			rc = ota_fail(err, OTA_EINVAL, "names %s:%s twice",
				      b->list[b->count - 1].is_group ? "group" : "model",
				      b->list[b->count - 1].name);
		p += len;
	}
	if (rc == OTA_OK)
		*out = b;
	else
		free(b);
	return rc;
}

static bool is_for(const struct download_base *b, const struct device_state *s)
{
	if (!b->is_group)
		return strcmp(b->name, s->model) == 0;
	for (size_t i = 0; s->groups && i < s->groups->count; i++)
		if (strcmp(b->name, s->groups->items[i]) == 0)
			return true;
	return false;
}

const char *download_base_find(const struct download_bases *bases, const struct device_state *s)
{
	const char *by_model = NULL;

	for (size_t i = 0; bases && i < bases->count; i++) {
		const struct download_base *b = &bases->list[i];
		if (!is_for(b, s))
			continue;
		if (b->is_group)
			return b->url;
		by_model = b->url;
	}
	return by_model;
}
