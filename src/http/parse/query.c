/* SPDX-License-Identifier: MIT */
#include "http/parse/query.h"

#include "base/buf.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Which piece of the target is being decoded: what is allowed in it, and how an error begins. */
struct piece {
	const char *what;
	bool plus_is_space, lines_allowed;
};

static const struct piece PATH_PIECE = {"", false, false};
static const struct piece KEY_PIECE = {"a parameter's name ", true, false};
static const struct piece VALUE_PIECE = {"", true, true};

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static enum ota_code fail_escape(const char *at, const struct piece *p, struct ota_err *err)
{
	char shown[4] = "%";

	for (size_t i = 1; i < 3 && at[i] > 0x20 && at[i] < 0x7F; i++)
		shown[i] = at[i];
	return ota_fail(err, OTA_EINVAL,
			"%shas a broken escape: \"%s\" is not %% and two hexadecimal digits "
			"(a %% itself is written %%25)",
			p->what, shown);
}

/* Decodes the NUL-terminated TEXT where it stands; it only ever gets shorter. */
static enum ota_code decode(char *text, const struct piece *p, bool *plus_seen, struct ota_err *err)
{
	char *to = text;

	for (const char *from = text; *from; from++) {
		unsigned char c = (unsigned char)*from;
		if (c == '+' && p->plus_is_space) {
			*plus_seen = true;
			c = ' ';
		} else if (c == '%') {
			int high = hex_digit(from[1]), low = high < 0 ? -1 : hex_digit(from[2]);
			if (low < 0)
				return fail_escape(from, p, err);
			c = (unsigned char)(high << 4 | low);
			from += 2;
			bool line = c == '\t' || c == '\r' || c == '\n';
			if ((c < 0x20 && !(line && p->lines_allowed)) || c == 0x7F)
				return ota_fail(err, OTA_EINVAL,
						"%shas the control character %%%02X", p->what, c);
		}
		*to++ = (char)c;
	}
	*to = '\0';
	if (!utf8_valid(text, strlen(text)))
		return ota_fail(err, OTA_EINVAL, "%sis not valid UTF-8", p->what);
	return OTA_OK;
}

static enum ota_code check_raw(const char *raw, struct ota_err *err)
{
	for (const char *c = raw; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7F)
			return ota_fail(err, OTA_EINVAL,
					"the request target has the control byte 0x%02X at "
					"position %zu",
					(unsigned char)*c, (size_t)(c - raw));
	return OTA_OK;
}

/* RFC 9112 3.2.2: a server takes the absolute form too.  NULL: neither that nor a path. */
static const char *strip_origin(const char *raw)
{
	if (*raw == '/')
		return raw;
	if (strncasecmp(raw, "http://", 7) == 0)
		raw += 7;
	else if (strncasecmp(raw, "https://", 8) == 0)
		raw += 8;
	else
		return NULL;
	return raw + strcspn(raw, "/?#");
}

static enum ota_code split_path(struct query *q, char *path, struct ota_err *err)
{
	bool unused = false;

	if (*path == '/')
		path++;
	if (*path == '\0')
		return OTA_OK;
	for (char *next = path; (path = next) != NULL;) {
		next = strchr(path, '/');
		if (next)
			*next++ = '\0';
		if (q->segment_count == QUERY_MAX_SEGMENTS)
			return ota_fail(err, OTA_ENOTFOUND,
					"there is no such path: it has more than %d parts",
					QUERY_MAX_SEGMENTS);
		enum ota_code code = decode(path, &PATH_PIECE, &unused, err);
		if (code)
			return code;
		q->segments[q->segment_count++] = path;
	}
	return OTA_OK;
}

static enum ota_code fail_param(struct query *q, const char *name, enum ota_code code)
{
	if (strlen(name) < sizeof q->wrong.name)
		strcpy(q->wrong.name, name);
	return code;
}

static enum ota_code add_param(struct query *q, char *pair, struct ota_err *err)
{
	struct query_param p = {.key = pair, .value = ""};
	bool key_plus = false;
	enum ota_code code;

	char *value = strchr(pair, '=');
	if (value)
		*value++ = '\0';
	if ((code = decode(pair, &KEY_PIECE, &key_plus, err)) != OTA_OK)
		return code;
	if (*pair == '\0')
		return ota_fail(err, OTA_EINVAL, "has a value without a name");
	if (value) {
		p.value = value;
		code = decode(value, &VALUE_PIECE, &p.plus_seen, err);
		if (code)
			return fail_param(q, pair, code);
	}
	if (query_find(q, pair))
		return fail_param(q, pair, ota_fail(err, OTA_EINVAL, "is given twice"));
	if (q->param_count == QUERY_MAX_PARAMS)
		return ota_fail(err, OTA_EINVAL, "has more than %d parameters", QUERY_MAX_PARAMS);
	q->params[q->param_count++] = p;
	return OTA_OK;
}

static enum ota_code split_params(struct query *q, char *text, struct ota_err *err)
{
	for (char *next = text; (text = next) != NULL;) {
		next = strchr(text, '&');
		if (next)
			*next++ = '\0';
		if (*text == '\0')
			continue; /* "a=1&" and "a=1&&b=2" come from careless clients */
		enum ota_code code = add_param(q, text, err);
		if (code)
			return code;
	}
	return OTA_OK;
}

void query_clear(struct query *q)
{
	q->segment_count = q->param_count = 0;
	q->arena = NULL;
	q->wrong.where = NULL;
	q->wrong.name[0] = '\0';
}

enum ota_code query_parse(struct query *q, const char *raw, struct ota_err *err)
{
	query_clear(q);
	enum ota_code code = check_raw(raw, err);
	if (code)
		return code;
	const char *path = strip_origin(raw);
	if (!path)
		return ota_fail(err, OTA_EINVAL,
				"the request target must begin with \"/\" or \"http://\"");
	q->arena = strndup(path, (size_t)(strchrnul(path, '#') - path));
	if (!q->arena)
		return ota_fail_nomem(err);
	char *params = strchr(q->arena, '?');
	if (params)
		*params++ = '\0';
	struct query_wrong wrong = {.where = "path"};
	code = split_path(q, q->arena, err);
	if (!code && params) {
		code = split_params(q, params, err);
		wrong = q->wrong;
		wrong.where = "query";
	}
	if (code) {
		query_fini(q);
		q->wrong = wrong;
	}
	return code;
}

void query_fini(struct query *q)
{
	free(q->arena);
	query_clear(q);
}

const struct query_param *query_find(const struct query *q, const char *name)
{
	for (size_t i = 0; i < q->param_count; i++)
		if (q->params[i].key[0] == name[0] && strcmp(q->params[i].key, name) == 0)
			return &q->params[i];
	return NULL;
}

const char *query_get(const struct query *q, const char *name)
{
	const struct query_param *p = query_find(q, name);

	return p ? p->value : NULL;
}

const char *query_plus_hint(const struct query *q, const char *name)
{
	const struct query_param *p = query_find(q, name);

	return p && p->plus_seen ? " (a + in a query means a space: write + as %2B)" : "";
}

enum ota_code query_get_int(const struct query *q, const char *name, int64_t min, int64_t max,
			    int64_t *out, struct ota_err *err)
{
	const char *text = query_get(q, name);
	int64_t value = 0;
	bool beyond = false;

	if (!text)
		return OTA_OK;
	size_t digits = strspn(text, "0123456789");
	if (digits == 0 || text[digits] != '\0')
		return ota_fail(err, OTA_EINVAL, "must be a whole number in decimal digits%s",
				query_plus_hint(q, name));
	for (; *text; text++)
		beyond |= __builtin_mul_overflow(value, 10, &value) ||
			  __builtin_add_overflow(value, *text - '0', &value);
	if (beyond || value < min || value > max)
		return ota_fail(err, OTA_EUNPROCESSABLE, "must be between %lld and %lld",
				(long long)min, (long long)max);
	*out = value;
	return OTA_OK;
}

enum ota_code query_get_bool(const struct query *q, const char *name, bool *out,
			     struct ota_err *err)
{
	static const char *const words[] = {"false", "true", "0", "1", "no", "yes"};
	const char *text = query_get(q, name);

	if (!text)
		return OTA_OK;
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (strcasecmp(text, words[i]) == 0) {
			*out = i % 2 == 1;
			return OTA_OK;
		}
	return ota_fail(err, OTA_EINVAL, "must be true or false (or 1, 0, yes, no)");
}
