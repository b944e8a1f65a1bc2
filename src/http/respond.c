/* SPDX-License-Identifier: MIT */
/* Answers: JSON bodies, and what an error code means in HTTP. */
#include "http/request.h"

#include <stdio.h>
#include <string.h>

/* Holds a check-in's answer, so that it is not moved as it grows. */
#define USUAL_BODY 511

int status_of(enum ota_code code)
{
	switch (code) {
	case OTA_OK: return 200;
	case OTA_EINVAL: return 400;
	case OTA_EAUTH: return 401;
	case OTA_ENOTFOUND: return 404;
	case OTA_ECONFLICT: return 409;
	case OTA_EGONE: return 410;
	case OTA_ETOOLARGE: return 413;
	case OTA_EUNPROCESSABLE: return 422;
	case OTA_EUNAVAIL:
	case OTA_EUNKNOWN:
	case OTA_ENOMEM: return 503;
	case OTA_EIO:
	case OTA_EINTERNAL: return 500;
	}
	return 500;
}

struct buf *respond_begin(struct request *r, int status)
{
	r->status = status;
	r->content_type = "application/json";
	buf_reset(&r->out);
	buf_reserve(&r->out, USUAL_BODY);
	json_open(&r->out, NULL, '{');
	return &r->out;
}

enum next respond_end(struct request *r)
{
	json_close(&r->out, '}');
	return NEXT_ANSWER;
}

static enum next answer_detail(struct request *r, int status, const char *sentence)
{
	struct buf *b = respond_begin(r, status);

	if (status == 503 && r->retry_after_s == 0)
		r->retry_after_s = 5;
	json_str(b, "detail", sentence);
	return respond_end(r);
}

enum next respond_status(struct request *r, int status, const char *fmt, ...)
{
	char sentence[768];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(sentence, sizeof sentence, fmt, ap);
	va_end(ap);
	return answer_detail(r, status, sentence);
}

enum next respond_error(struct request *r, enum ota_code code, const char *fmt, ...)
{
	char sentence[768];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(sentence, sizeof sentence, fmt, ap);
	va_end(ap);
	return answer_detail(r, status_of(code), sentence);
}

enum next respond_err(struct request *r, const struct ota_err *err)
{
	return answer_detail(r, status_of(err->code), err->msg);
}

enum next respond_fields(struct request *r)
{
	struct buf *b = respond_begin(r, 422);
	const char *text = field_errors_text(&r->errors);

	if (!text)
		return answer_detail(r, 503, "out of memory");
	json_raw(b, "detail", text);
	return respond_end(r);
}

enum next respond_ok(struct request *r, const char *fmt, ...)
{
	char sentence[512];
	va_list ap;
	struct buf *b = respond_begin(r, 200);

	va_start(ap, fmt);
	vsnprintf(sentence, sizeof sentence, fmt, ap);
	va_end(ap);
	json_str(b, "status", "ok");
	json_str(b, "message", sentence);
	return respond_end(r);
}

void respond_cursor(struct request *r, bool more, int64_t last_id)
{
	char cursor[24];

	snprintf(cursor, sizeof cursor, "%lld", (long long)last_id);
	json_str(&r->out, "next_cursor", more ? cursor : NULL);
}
