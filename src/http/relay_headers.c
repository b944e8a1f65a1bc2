/* SPDX-License-Identifier: MIT */
#include "http/relay_headers.h"

#include <string.h>
#include <strings.h>

/* What belongs to one connection (RFC 9110 7.6.1), or is said anew. */
bool relay_header_stays(const char *name)
{
	/* clang-format off */
	static const char *const names[] = {
		"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate",
		"Proxy-Authorization", "TE", "Trailer", "Transfer-Encoding", "Upgrade",
		"Content-Length", "Expect", "Date", "X-Forwarded-For", RELAYED,
		IMAGES_HERE, IMAGE_TOLD,
	};
	/* clang-format on */

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		if (strcasecmp(name, names[i]) == 0)
			return true;
	return false;
}

void relay_header_add(struct relay_headers *h, const char *name, const char *value)
{
	struct buf line = BUF_INIT;

	/* libcurl takes "Name:" for an order to leave it out, and "Name;" for an empty one. */
	buf_printf(&line, value[0] ? "%s: %s" : "%s;%s", name, value);
	struct curl_slist *more = buf_ok(&line) ? curl_slist_append(h->list, line.data) : NULL;
	buf_fini(&line);
	if (more)
		h->list = more;
	else
		h->ok = false;
}

void relay_header_leave_out(struct relay_headers *h, const char *name_colon)
{
	struct curl_slist *more = curl_slist_append(h->list, name_colon);

	if (more)
		h->list = more;
	else
		h->ok = false;
}

bool relay_headers_copy(struct MHD_Response *m, const struct buf *lines)
{
	char name[128];

	for (size_t at = 0; at < lines->len; at += strlen(lines->data + at) + 1) {
		const char *line = lines->data + at;
		size_t n = strcspn(line, ":");
		if (line[n] == '\0' || n >= sizeof name)
			continue;
		memcpy(name, line, n);
		name[n] = '\0';
		const char *value = line + n + 1 + strspn(line + n + 1, " \t");
		if (!relay_header_stays(name) && value[0] &&
		    MHD_add_response_header(m, name, value) != MHD_YES)
			return false;
	}
	return true;
}

const char *relay_header_find(const struct buf *lines, const char *name)
{
	size_t n = strlen(name);

	for (size_t at = 0; at < lines->len; at += strlen(lines->data + at) + 1) {
		const char *line = lines->data + at;
		if (strncasecmp(line, name, n) == 0 && line[n] == ':')
			return line + n + 1 + strspn(line + n + 1, " \t");
	}
	return NULL;
}
