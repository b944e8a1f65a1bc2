/* SPDX-License-Identifier: MIT */
/*
 * One HTTP client on libcurl: a request, its whole answer.
 *
 * Redirects are not followed (the key would go with them).  A connection is waited for 10 s, and
 * given up when nothing moves for 60 s (half an hour, for the patient).  OTA_EIO: no answer came,
 * with the reason.
 */
#pragma once

#include "base/buf.h"

#include <stdint.h>
#include <stdio.h>

struct http;

struct http_request {
	const char *method;
	const char *url;    /* whole, already escaped */
	const char *key;    /* NULL: none is sent */
	const char *accept; /* NULL: application/json */
	const char *body;   /* NULL: none */
	size_t body_len;
	const char *content_type; /* of body */
	const char *upload_path;  /* instead of body: this file as multipart field `file` */
	const char *upload_name;
	FILE *save; /* where the body of a good answer goes instead of into the reply; or NULL */
	bool patient; /* the service has work to do before it answers: minutes, perhaps */
	/* Called as bytes go out (with save: come in), total 0 while unknown; may be NULL. */
	void (*progress)(void *ctx, int64_t moved, int64_t total);
	void *progress_ctx;
};

struct http_reply {
	long status;
	struct buf body;
	char location[256]; /* of a redirect */
	int64_t date_us;    /* the service's clock, 0: not told */
};

/* CACERT may be NULL: the system's. */
struct http *http_new(const char *cacert, struct ota_err *err);
void http_free(struct http **h);
/* On OTA_OK the caller frees reply->body. */
enum ota_code http_send(struct http *h, const struct http_request *q, struct http_reply *reply,
			struct ota_err *err);

/* URL pieces: a path segment, percent-encoded; and "?name=value" or "&name=value" (NULL: nothing).
 */
void url_segment(struct buf *url, const char *text);
void url_query(struct buf *url, const char *name, const char *value);
void url_query_int(struct buf *url, const char *name, int64_t value);
