/* SPDX-License-Identifier: MIT */
#include "http/parse/range.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

static const char *skip_space(const char *s)
{
	return s + strspn(s, " \t");
}

/* A run of digits as it stands, so that no length of it can overflow anything. */
struct digits {
	const char *s; /* without leading zeros */
	size_t len;
	bool present;
};

static struct digits take_digits(const char **s)
{
	size_t n = strspn(*s, "0123456789");
	struct digits d = {.s = *s, .len = n, .present = n > 0};

	*s += n;
	while (d.len > 0 && *d.s == '0') {
		d.s++;
		d.len--;
	}
	return d;
}

static int compare(struct digits a, struct digits b)
{
	if (a.len != b.len)
		return a.len < b.len ? -1 : 1;
	return memcmp(a.s, b.s, a.len);
}

/* The number, or UINT64_MAX for everything above it: sizes end long before. */
static uint64_t clamp(struct digits d)
{
	uint64_t v = 0;

	for (size_t i = 0; i < d.len; i++)
		if (__builtin_mul_overflow(v, 10u, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(d.s[i] - '0'), &v))
			return UINT64_MAX;
	return v;
}

/* The one range-spec of the set; false: none, several, or a syntax error. */
static bool take_single(const char *s, struct digits *first, struct digits *last)
{
	bool seen = false;

	for (;;) { /* list elements may be empty (RFC 9110 5.6.1.2) */
		s = skip_space(s);
		if (*s != ',' && *s != '\0') {
			if (seen)
				return false;
			seen = true;
			*first = take_digits(&s);
			if (*s++ != '-')
				return false;
			*last = take_digits(&s);
			s = skip_space(s);
		}
		if (*s == '\0')
			return seen && (first->present || last->present);
		if (*s++ != ',')
			return false;
	}
}

enum range_result range_parse(const char *header, uint64_t size, uint64_t *first, uint64_t *last)
{
	struct digits a = {0}, b = {0};

	if (!header)
		return RANGE_NONE;
	header = skip_space(header);
	if (strncasecmp(header, "bytes=", 6) != 0 || !take_single(header + 6, &a, &b))
		return RANGE_NONE;
	if (a.present && b.present && compare(a, b) > 0)
		return RANGE_UNSATISFIABLE;
	uint64_t from = clamp(a), to = clamp(b);
	if (size == 0 || (a.present ? from >= size : to == 0))
		return RANGE_UNSATISFIABLE;
	if (!a.present) { /* the last bytes, or all there is */
		*first = to < size ? size - to : 0;
		*last = size - 1;
	} else {
		*first = from;
		*last = b.present && to < size ? to : size - 1;
	}
	return RANGE_OK;
}

/* One entity-tag: its quoted part without the W/.  False at anything else. */
static bool take_etag(const char **s, const char **opaque, size_t *len, bool *weak)
{
	const char *p = *s;

	*weak = p[0] == 'W' && p[1] == '/';
	if (*weak)
		p += 2;
	if (*p != '"')
		return false;
	const char *end = strchr(p + 1, '"');
	if (!end)
		return false;
	*opaque = p;
	*len = (size_t)(end - p) + 1;
	*s = end + 1;
	return true;
}

bool etag_list_matches(const char *header, const char *etag)
{
	const char *ours, *theirs;
	size_t our_len, len;
	bool weak;

	if (!header || !take_etag(&etag, &ours, &our_len, &weak))
		return false;
	header = skip_space(header);
	if (*header == '*')
		return *skip_space(header + 1) == '\0';
	for (;;) {
		header += strspn(header, " \t,");
		if (!take_etag(&header, &theirs, &len, &weak))
			return false;
		if (len == our_len && memcmp(theirs, ours, len) == 0)
			return true;
		header = skip_space(header);
		if (*header != ',')
			return false;
	}
}

static size_t trimmed_length(const char *s)
{
	size_t n = strlen(s);

	while (n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t'))
		n--;
	return n;
}

bool if_range_matches(const char *header, const char *etag, const char *last_modified)
{
	if (!header)
		return true;
	header = skip_space(header);
	size_t n = trimmed_length(header);
	/* A weak tag, ours or theirs, is no promise about bytes: it matches nothing. */
	if (header[0] == '"')
		return n == strlen(etag) && memcmp(header, etag, n) == 0;
	return last_modified && n > 0 && n == strlen(last_modified) &&
	       memcmp(header, last_modified, n) == 0;
}
