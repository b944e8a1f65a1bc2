/* SPDX-License-Identifier: MIT */
/* Headers between an instance that follows, the leader, and the client. */
#pragma once

#include "base/buf.h"

#include <curl/curl.h>
#include <microhttpd.h>
#include <stdbool.h>

/* In a request that was passed on once: a second time would be a circle. */
#define RELAYED "X-Paku-Relayed"
/* In a request: the image can be sent here.  In its answer: which one, and what of it
 * ("<sha256> <first> <length> <size>"), instead of a body. */
#define IMAGES_HERE "X-Paku-Images"
#define IMAGE_TOLD  "X-Paku-Image"

/* For a request to the leader; ok at first. */
struct relay_headers {
	struct curl_slist *list;
	bool ok; /* false: memory was too short */
};
void relay_header_add(struct relay_headers *h, const char *name, const char *value);
/* One that libcurl would add: "Name:". */
void relay_header_leave_out(struct relay_headers *h, const char *name_colon);
/* Whether it is not passed on. */
bool relay_header_stays(const char *name);

/* Of an answer, "Name: value" lines, each with its NUL: those that are passed on, into M; */
bool relay_headers_copy(struct MHD_Response *m, const struct buf *lines);
/* the value of one; NULL: it is not there. */
const char *relay_header_find(const struct buf *lines, const char *name);
