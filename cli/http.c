/* SPDX-License-Identifier: MIT */
/* See http.h. */
#include "cli/http.h"
#include "cli/term.h"

#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CONNECT_TIMEOUT_S 10L
#define STALL_TIMEOUT_S   60L
#define PATIENCE_S        1800L
#define BODY_MAX          (64u << 20)

struct http {
	CURL *easy;
	const char *cacert;
	char reason[CURL_ERROR_SIZE];
	/* of the request under way */
	const struct http_request *request;
	struct http_reply *reply;
};

struct http *http_new(const char *cacert, struct ota_err *err)
{
	struct http *h = calloc(1, sizeof(*h));

	if (h && curl_global_init(CURL_GLOBAL_DEFAULT) == 0)
		h->easy = curl_easy_init();
	if (!h || !h->easy) {
		free(h);
		ota_fail_nomem(err);
		return NULL;
	}
	h->cacert = cacert;
	return h;
}

void http_free(struct http **h)
{
	if (!*h)
		return;
	curl_easy_cleanup((*h)->easy);
	curl_global_cleanup();
	free(*h);
	*h = NULL;
}

static size_t on_body(char *data, size_t size, size_t n, void *ctx)
{
	struct http *h = ctx;
	long status = 0;

	if (h->request->save)
		curl_easy_getinfo(h->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status >= 200 && status <= 299)
		return fwrite(data, size, n, h->request->save) * size;
	if (size * n > BODY_MAX - h->reply->body.len)
		return 0;
	buf_add(&h->reply->body, data, size * n);
	return buf_ok(&h->reply->body) ? size * n : 0;
}

static size_t on_header(char *line, size_t size, size_t n, void *ctx)
{
	struct http *h = ctx;
	char text[256];
	size_t len = size * n < sizeof(text) - 1 ? size * n : sizeof(text) - 1;

	memcpy(text, line, len);
	text[len] = 0;
	text[strcspn(text, "\r\n")] = 0;
	if (strncasecmp(text, "date:", 5) == 0) {
		time_t at = curl_getdate(text + 5, NULL);

		h->reply->date_us = at > 0 ? (int64_t)at * INT64_C(1000000) : 0;
	} else if (strncasecmp(text, "location:", 9) == 0) {
		snprintf(h->reply->location, sizeof(h->reply->location), "%s",
			 text + 9 + strspn(text + 9, " "));
	}
	return size * n;
}

static int on_transfer(void *ctx, curl_off_t dl_total, curl_off_t dl, curl_off_t ul_total,
		       curl_off_t ul)
{
	struct http *h = ctx;

	if (h->request->progress && h->request->save)
		h->request->progress(h->request->progress_ctx, dl, dl_total);
	else if (h->request->progress)
		h->request->progress(h->request->progress_ctx, ul, ul_total);
	return term_interrupted();
}

static struct curl_slist *headers(const struct http_request *q, struct ota_err *err)
{
	struct curl_slist *list = NULL, *longer;
	const char *values[] = {"Accept: ",       q->accept ? q->accept : "application/json",
				"X-API-Key: ",    q->key,
				"Content-Type: ", q->content_type};

	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i += 2) {
		char line[4352];

		if (!values[i + 1])
			continue;
		snprintf(line, sizeof(line), "%s%s", values[i], values[i + 1]);
		longer = curl_slist_append(list, line);
		if (!longer) {
			curl_slist_free_all(list);
			ota_fail_nomem(err);
			return NULL;
		}
		list = longer;
	}
	return list;
}

static curl_mime *multipart(struct http *h, const struct http_request *q)
{
	curl_mime *mime = curl_mime_init(h->easy);
	curl_mimepart *part = mime ? curl_mime_addpart(mime) : NULL;

	if (part && curl_mime_name(part, "file") == CURLE_OK &&
	    curl_mime_filedata(part, q->upload_path) == CURLE_OK &&
	    curl_mime_filename(part, q->upload_name) == CURLE_OK &&
	    curl_mime_type(part, "application/octet-stream") == CURLE_OK)
		return mime;
	curl_mime_free(mime);
	return NULL;
}

static void set_options(struct http *h, const struct http_request *q, struct curl_slist *list,
			curl_mime *mime)
{
	CURL *e = h->easy;

	curl_easy_reset(e); /* keeps the connection */
	curl_easy_setopt(e, CURLOPT_URL, q->url);
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(e, CURLOPT_USERAGENT, "paku-ota/" PAKU_VERSION);
	curl_easy_setopt(e, CURLOPT_HTTPHEADER, list);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
	curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, q->patient ? PATIENCE_S : STALL_TIMEOUT_S);
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, h->reason);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, h);
	curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(e, CURLOPT_HEADERDATA, h);
	curl_easy_setopt(e, CURLOPT_XFERINFOFUNCTION, on_transfer);
	curl_easy_setopt(e, CURLOPT_XFERINFODATA, h);
	curl_easy_setopt(e, CURLOPT_NOPROGRESS, 0L);
	if (h->cacert)
		curl_easy_setopt(e, CURLOPT_CAINFO, h->cacert);
	if (mime) {
		curl_easy_setopt(e, CURLOPT_MIMEPOST, mime);
	} else if (q->body) {
		curl_easy_setopt(e, CURLOPT_POSTFIELDS, q->body);
		curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)q->body_len);
	}
	curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, q->method);
}

static enum ota_code explain_failure(const struct http *h, CURLcode rc, struct ota_err *err)
{
	switch (rc) {
	case CURLE_OUT_OF_MEMORY: return ota_fail_nomem(err);
	case CURLE_READ_ERROR:
		return ota_fail(err, OTA_EINVAL, "cannot read the file to its end; did it change?");
	case CURLE_COULDNT_CONNECT: return ota_fail(err, OTA_EIO, "nothing answers there");
	case CURLE_WRITE_ERROR:
		if (h->request->save)
			return ota_fail(err, OTA_EINVAL, "the file cannot be written: %s",
					strerror(errno));
		return ota_fail(err, OTA_EIO, "the answer is larger than %u MiB", BODY_MAX >> 20);
	case CURLE_SSL_CACERT_BADFILE: return ota_fail(err, OTA_EINVAL, "--cacert: %s", h->reason);
	default:
		return ota_fail(err, OTA_EIO, "%s",
				h->reason[0] ? h->reason : curl_easy_strerror(rc));
	}
}

enum ota_code http_send(struct http *h, const struct http_request *q, struct http_reply *reply,
			struct ota_err *err)
{
	enum ota_code code = OTA_OK;
	struct curl_slist *list;
	curl_mime *mime = NULL;
	CURLcode rc;

	*reply = (struct http_reply){0};
	h->request = q;
	h->reply = reply;
	h->reason[0] = 0;
	list = headers(q, err);
	if (!list)
		return OTA_ENOMEM;
	if (q->upload_path && !(mime = multipart(h, q))) {
		curl_slist_free_all(list);
		return ota_fail(err, OTA_EINVAL, "cannot read %s", q->upload_path);
	}
	set_options(h, q, list, mime);
	rc = curl_easy_perform(h->easy);
	curl_easy_getinfo(h->easy, CURLINFO_RESPONSE_CODE, &reply->status);
	/* A service that refuses an upload early may close while we still send: its answer counts.
	 */
	if (rc != CURLE_OK && !(rc == CURLE_SEND_ERROR && reply->status >= 400 && reply->body.len))
		code = explain_failure(h, rc, err);
	if (code != OTA_OK)
		buf_fini(&reply->body);
	curl_mime_free(mime);
	curl_slist_free_all(list);
	return code;
}

static void percent_encode(struct buf *url, const char *text)
{
	for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
		if ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
		    (*p >= '0' && *p <= '9') || strchr("-._~", *p))
			buf_addc(url, (char)*p);
		else
			buf_printf(url, "%%%02X", *p);
	}
}

void url_segment(struct buf *url, const char *text)
{
	buf_addc(url, '/');
	percent_encode(url, text);
}

void url_query(struct buf *url, const char *name, const char *value)
{
	if (!value)
		return;
	buf_addc(url, url->data && strchr(url->data, '?') ? '&' : '?');
	buf_adds(url, name);
	buf_addc(url, '=');
	percent_encode(url, value);
}

void url_query_int(struct buf *url, const char *name, int64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRId64, value);
	url_query(url, name, text);
}
