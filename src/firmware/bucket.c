/* SPDX-License-Identifier: MIT */
#include "firmware/bucket.h"

#include "firmware/blob.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONNECT_TIMEOUT_MS 5000L
#define SAID_SIZE          1024 /* of an error's body; it is XML of some hundred bytes */
#define URL_SIZE           512
#define NAME_MAX_S3        63
#define EMPTY_SHA256       "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

struct bucket {
	char *base, *name, *sigv4, *key, *secret;
	long stall_s;
	_Atomic bool aborted;
};

/* One request and its answer. */
struct exchange {
	struct bucket *bucket;
	CURL *curl;
	struct curl_slist *headers;
	char url[URL_SIZE];
	char why[CURL_ERROR_SIZE];
	long status;
	char said[SAID_SIZE];
	size_t said_len;
	/* the body that goes out */
	int fd;
	uint64_t size, at;
	/* and the one that comes in */
	bucket_take_fn *take;
	void *ctx;
	enum ota_code took;
	struct ota_err *err;
};

/* --- where it is --- */

static bool endpoint_ok(const char *e)
{
	size_t scheme = strncmp(e, "https://", 8) == 0 ? 8 : strncmp(e, "http://", 7) == 0 ? 7 : 0;
	size_t host = strcspn(e + scheme, "/");

	return scheme && host > 0 && host <= 250 && !strpbrk(e, " ?#\"\\@") &&
	       (!e[scheme + host] || !e[scheme + host + 1]);
}

/* S3's own rule; what it allows needs no escapes in a URL. */
static bool name_ok(const char *n)
{
	size_t len = strlen(n);

	return len >= 3 && len <= NAME_MAX_S3 &&
	       strspn(n, "abcdefghijklmnopqrstuvwxyz0123456789.-") == len &&
	       isalnum((unsigned char)n[0]) && isalnum((unsigned char)n[len - 1]) &&
	       !strstr(n, "..");
}

enum ota_code bucket_check(const struct bucket_place *p, struct ota_err *err)
{
	const char *missing = !p->endpoint[0] ? "OTA_S3_ENDPOINT"
			      : !p->name[0]   ? "OTA_S3_BUCKET"
			      : !p->key[0]    ? "OTA_S3_ACCESS_KEY"
			      : !p->secret[0] ? "OTA_S3_SECRET_KEY"
					      : NULL;

	if (!p->endpoint[0] && !p->name[0] && !p->key[0] && !p->secret[0])
		return OTA_OK;
	if (missing)
		return ota_fail(err, OTA_EINVAL,
				"%s is not set: firmware in a bucket needs OTA_S3_ENDPOINT, "
				"OTA_S3_BUCKET, OTA_S3_ACCESS_KEY and OTA_S3_SECRET_KEY",
				missing);
	if (!endpoint_ok(p->endpoint))
		return ota_fail(err, OTA_EINVAL,
				"OTA_S3_ENDPOINT is '%s', but must be like "
				"https://s3.eu-central-1.amazonaws.com, without a path",
				p->endpoint);
	if (!name_ok(p->name))
		return ota_fail(err, OTA_EINVAL,
				"OTA_S3_BUCKET is '%s', which is no name of a bucket: 3 to 63 of "
				"a-z, 0-9, '.' and '-'",
				p->name);
	if (!p->region[0] || strlen(p->region) > 60 ||
	    strspn(p->region, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(p->region))
		return ota_fail(err, OTA_EINVAL,
				"OTA_S3_REGION is '%s', but must be like eu-central-1", p->region);
	return OTA_OK;
}

static char *join(const char *a, const char *between, const char *b)
{
	char *text;

	return asprintf(&text, "%s%s%s", a, between, b) < 0 ? NULL : text;
}

enum ota_code bucket_open(const struct bucket_place *p, struct bucket **out, struct ota_err *err)
{
	struct bucket *b = calloc(1, sizeof *b);
	size_t len = strlen(p->endpoint);

	if (!b)
		return ota_fail_nomem(err);
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
		free(b);
		return ota_fail(err, OTA_EINTERNAL, "libcurl does not start");
	}
	b->base = join(p->endpoint, p->endpoint[len - 1] == '/' ? "" : "/", p->name);
	b->name = strdup(p->name);
	b->stall_s = (long)p->stall_s;
	b->sigv4 = join("aws:amz:", p->region, ":s3");
	b->key = strdup(p->key);
	b->secret = strdup(p->secret);
	if (!b->base || !b->name || !b->sigv4 || !b->key || !b->secret) {
		bucket_close(&b);
		return ota_fail_nomem(err);
	}
	*out = b;
	return OTA_OK;
}

void bucket_close(struct bucket **bp)
{
	struct bucket *b = *bp;

	if (!b)
		return;
	free(b->base);
	free(b->name);
	free(b->sigv4);
	free(b->key);
	free(b->secret);
	free(b);
	curl_global_cleanup();
	*bp = NULL;
}

void bucket_abort(struct bucket *b)
{
	atomic_store(&b->aborted, true);
}

/* --- one request --- */

static size_t send_body(char *buf, size_t size, size_t count, void *ctx)
{
	struct exchange *x = ctx;
	uint64_t left = x->size - x->at;
	size_t want = size * count < left ? size * count : (size_t)left;
	ssize_t n;

	do
		n = pread(x->fd, buf, want, (off_t)x->at);
	while (n < 0 && errno == EINTR);
	if (n < 0 || (n == 0 && want > 0))
		return CURL_READFUNC_ABORT;
	x->at += (uint64_t)n;
	return (size_t)n;
}

/* A connection that was kept may turn out to be dead: then it begins again. */
static int seek_body(void *ctx, curl_off_t offset, int origin)
{
	struct exchange *x = ctx;

	if (origin != SEEK_SET)
		return CURL_SEEKFUNC_CANTSEEK;
	x->at = (uint64_t)offset;
	return CURL_SEEKFUNC_OK;
}

static size_t take_body(char *data, size_t size, size_t count, void *ctx)
{
	struct exchange *x = ctx;
	size_t len = size * count, room = sizeof x->said - 1 - x->said_len;
	long status = 0;

	curl_easy_getinfo(x->curl, CURLINFO_RESPONSE_CODE, &status);
	if (status == 200 && x->take) {
		x->took = x->take(x->ctx, data, len, x->err);
		return x->took == OTA_OK ? len : CURL_WRITEFUNC_ERROR;
	}
	if (room > len)
		room = len;
	memcpy(x->said + x->said_len, data, room);
	x->said_len += room;
	return len; /* of a long complaint the rest is of no use */
}

static int look_up(void *ctx, curl_off_t dt, curl_off_t d, curl_off_t ut, curl_off_t u)
{
	const struct exchange *x = ctx;

	(void)dt;
	(void)d;
	(void)ut;
	(void)u;
	return x->bucket->aborted; /* not 0 ends it */
}

/*
 * SHA256 is the digest of the body that goes out.  libcurl 7.88 (Debian 12) does not send the
 * header with it, without which S3 refuses a request; nor does it sort a query's parameters, so
 * there is one at most; and it signs a header that is given in order to be left out ("Expect:"), so
 * there is none.
 */
static bool exchange_begin(struct exchange *x, struct bucket *b, const char *key,
			   const char *sha256)
{
	char header[100];
	CURL *c = curl_easy_init();

	snprintf(header, sizeof header, "x-amz-content-sha256: %s", sha256);
	*x = (struct exchange){.bucket = b, .curl = c, .fd = -1};
	x->headers = curl_slist_append(NULL, header);
	if (!c || !x->headers)
		return false;
	snprintf(x->url, sizeof x->url, "%s%s%s", b->base, key[0] == '?' ? "" : "/", key);
	curl_easy_setopt(c, CURLOPT_URL, x->url);
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L); /* the signature is for this host */
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_AWS_SIGV4, b->sigv4);
	curl_easy_setopt(c, CURLOPT_USERNAME, b->key);
	curl_easy_setopt(c, CURLOPT_PASSWORD, b->secret);
	curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
	curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, (long)BUCKET_SLOWEST);
	curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, b->stall_s);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, x->headers);
	curl_easy_setopt(c, CURLOPT_USERAGENT, "paku-otad/" PAKU_VERSION);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_body);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, x);
	curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, look_up);
	curl_easy_setopt(c, CURLOPT_XFERINFODATA, x);
	curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, x->why);
	return true;
}

static void exchange_end(struct exchange *x)
{
	curl_easy_cleanup(x->curl);
	curl_slist_free_all(x->headers);
}

/* --- what it said --- */

/* <TAG>text</TAG> of an error, as far as it can be shown. */
static void find_element(const char *xml, const char *tag, char *out, size_t size)
{
	char open[24];
	size_t n = 0;

	snprintf(open, sizeof open, "<%s>", tag);
	const char *at = strstr(xml, open);
	if (at)
		for (at += strlen(open); *at && *at != '<' && n < size - 1; at++)
			out[n++] = isprint((unsigned char)*at) ? *at : '?';
	out[n] = '\0';
}

static const char *hint_of(long status, const char *code)
{
	if (strcmp(code, "SignatureDoesNotMatch") == 0)
		return "; OTA_S3_SECRET_KEY or OTA_S3_REGION is wrong";
	if (strcmp(code, "AuthorizationHeaderMalformed") == 0)
		return "; OTA_S3_REGION is wrong";
	if (strcmp(code, "InvalidAccessKeyId") == 0)
		return "; OTA_S3_ACCESS_KEY is wrong";
	if (strcmp(code, "RequestTimeTooSkewed") == 0)
		return "; set this machine's clock";
	if (strcmp(code, "NoSuchBucket") == 0)
		return "; make the bucket, or mend OTA_S3_BUCKET";
	if (strcmp(code, "NoSuchKey") == 0)
		return "; upload the image again";
	if (status == 403)
		return "; the key may not do this";
	if (status >= 300 && status < 400)
		return " and leads elsewhere, which is not followed: OTA_S3_ENDPOINT and "
		       "OTA_S3_REGION must be the bucket's own";
	return "";
}

static enum ota_code complain(struct exchange *x, const char *verb, CURLcode rc,
			      struct ota_err *err)
{
	char code[64], message[160];
	const struct bucket *b = x->bucket;

	if (atomic_load(&b->aborted))
		return ota_fail(err, OTA_EUNAVAIL, "the service stops");
	if (rc != CURLE_OK)
		return ota_fail(err, OTA_EUNAVAIL, "the bucket %s does not answer (%s): %s",
				b->base, verb, x->why[0] ? x->why : curl_easy_strerror(rc));
	x->said[x->said_len] = '\0';
	find_element(x->said, "Code", code, sizeof code);
	find_element(x->said, "Message", message, sizeof message);
	return ota_fail(err, OTA_EUNAVAIL, "the bucket %s answered %ld%s%s%s%s (%s)%s", b->base,
			x->status, code[0] ? " " : "", code, message[0] ? ": " : "", message, verb,
			hint_of(x->status, code));
}

/* X is ended by it; OTA_OK: a 2xx. */
static enum ota_code perform(struct exchange *x, const char *verb, struct ota_err *err)
{
	x->err = err;
	CURLcode rc = atomic_load(&x->bucket->aborted) ? CURLE_ABORTED_BY_CALLBACK
						       : curl_easy_perform(x->curl);
	curl_easy_getinfo(x->curl, CURLINFO_RESPONSE_CODE, &x->status);
	if (x->took != OTA_OK)
		return x->took;
	if (rc == CURLE_OK && x->status >= 200 && x->status < 300)
		return OTA_OK;
	return complain(x, verb, rc, err);
}

/* --- the requests --- */

/* What it says of the time; 0: nothing. */
static time_t date_of(CURL *c)
{
	struct curl_header *date = NULL;
	time_t t = curl_easy_header(c, "Date", 0, CURLH_HEADER, -1, &date) == CURLHE_OK
			   ? curl_getdate(date->value, NULL)
			   : 0;

	return t > 0 ? t : 0;
}

enum ota_code bucket_probe(struct bucket *b, int64_t *ahead_s, struct ota_err *err)
{
	struct exchange x;
	enum ota_code rc = OTA_ENOMEM;

	*ahead_s = 0;
	if (exchange_begin(&x, b, "?max-keys=1", EMPTY_SHA256)) {
		rc = perform(&x, "looking at it", err);
		time_t there = date_of(x.curl);
		if (there)
			*ahead_s = (int64_t)there - (int64_t)time(NULL);
	} else {
		ota_fail_nomem(err);
	}
	exchange_end(&x);
	return rc;
}

enum ota_code bucket_put(struct bucket *b, const uint8_t sha256[SHA256_SIZE], int fd, uint64_t size,
			 struct ota_err *err)
{
	char name[BLOB_NAME_SIZE], hex[SHA256_HEX_SIZE];
	enum ota_code rc = OTA_ENOMEM;
	struct exchange x;

	blob_name(sha256, name);
	hex_encode(sha256, SHA256_SIZE, hex);
	if (exchange_begin(&x, b, name, hex)) {
		x.fd = fd;
		x.size = size;
		curl_easy_setopt(x.curl, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(x.curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)size);
		curl_easy_setopt(x.curl, CURLOPT_READFUNCTION, send_body);
		curl_easy_setopt(x.curl, CURLOPT_READDATA, &x);
		curl_easy_setopt(x.curl, CURLOPT_SEEKFUNCTION, seek_body);
		curl_easy_setopt(x.curl, CURLOPT_SEEKDATA, &x);
		rc = perform(&x, "storing an image", err);
	} else {
		ota_fail_nomem(err);
	}
	exchange_end(&x);
	return rc;
}

enum ota_code bucket_get(struct bucket *b, const uint8_t sha256[SHA256_SIZE], bucket_take_fn *take,
			 void *ctx, struct ota_err *err)
{
	char name[BLOB_NAME_SIZE];
	enum ota_code rc = OTA_ENOMEM;
	struct exchange x;

	blob_name(sha256, name);
	if (exchange_begin(&x, b, name, EMPTY_SHA256)) {
		x.take = take;
		x.ctx = ctx;
		rc = perform(&x, "fetching an image", err);
		if (rc != OTA_OK && strstr(x.said, "<Code>NoSuchKey</Code>"))
			rc = err->code = OTA_ENOTFOUND;
	} else {
		ota_fail_nomem(err);
	}
	exchange_end(&x);
	return rc;
}

static int64_t age_of(CURL *c)
{
	curl_off_t written = -1;
	time_t now = date_of(c);

	if (curl_easy_getinfo(c, CURLINFO_FILETIME_T, &written) != CURLE_OK || written < 0)
		return 0;
	return now > written ? (int64_t)now - written : 0;
}

enum ota_code bucket_look(struct bucket *b, const uint8_t sha256[SHA256_SIZE], uint64_t *size,
			  int64_t *age_s, struct ota_err *err)
{
	char name[BLOB_NAME_SIZE];
	enum ota_code rc = OTA_ENOMEM;
	curl_off_t length = -1;
	struct exchange x;

	blob_name(sha256, name);
	if (exchange_begin(&x, b, name, EMPTY_SHA256)) {
		curl_easy_setopt(x.curl, CURLOPT_NOBODY, 1L);
		curl_easy_setopt(x.curl, CURLOPT_FILETIME, 1L);
		rc = perform(&x, "looking for an image", err);
		curl_easy_getinfo(x.curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
		*size = length < 0 ? 0 : (uint64_t)length;
		*age_s = rc == OTA_OK ? age_of(x.curl) : 0;
		if (rc != OTA_OK && x.status == 404)
			rc = err->code = OTA_ENOTFOUND;
	} else {
		ota_fail_nomem(err);
	}
	exchange_end(&x);
	return rc;
}

enum ota_code bucket_remove(struct bucket *b, const uint8_t sha256[SHA256_SIZE],
			    struct ota_err *err)
{
	char name[BLOB_NAME_SIZE];
	enum ota_code rc = OTA_ENOMEM;
	struct exchange x;

	blob_name(sha256, name);
	if (exchange_begin(&x, b, name, EMPTY_SHA256)) {
		curl_easy_setopt(x.curl, CURLOPT_CUSTOMREQUEST, "DELETE");
		rc = perform(&x, "removing an image", err);
		if (rc != OTA_OK && x.status == 404)
			rc = OTA_OK;
	} else {
		ota_fail_nomem(err);
	}
	exchange_end(&x);
	return rc;
}
