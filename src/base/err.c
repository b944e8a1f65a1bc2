/* SPDX-License-Identifier: MIT */
#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* A sentence that was cut may end inside a UTF-8 character: take the torn one away. */
static void cut_torn_utf8(char *s)
{
	size_t n = strlen(s), i = n;

	while (i > 0 && n - i < 4 && ((unsigned char)s[i - 1] & 0xC0) == 0x80)
		i--;
	if (i == 0)
		return;
	unsigned char lead = (unsigned char)s[i - 1];
	size_t need = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
	if (n - (i - 1) < need)
		s[i - 1] = '\0';
}

OTA_PRINTF(3, 0)
static void fill(struct ota_err *err, enum ota_code code, const char *fmt, va_list ap)
{
	err->code = code;
	if (vsnprintf(err->msg, sizeof err->msg, fmt, ap) >= (int)sizeof err->msg)
		cut_torn_utf8(err->msg);
}

enum ota_code ota_fail(struct ota_err *err, enum ota_code code, const char *fmt, ...)
{
	if (err) {
		va_list ap;
		va_start(ap, fmt);
		fill(err, code, fmt, ap);
		va_end(ap);
	}
	return code;
}

enum ota_code ota_wrap(struct ota_err *err, const char *fmt, ...)
{
	char context[256], was[sizeof err->msg];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(context, sizeof context, fmt, ap);
	va_end(ap);
	memcpy(was, err->msg, sizeof was);
	return ota_fail(err, err->code, "%s: %s", context, was);
}

enum ota_code ota_fail_errno(struct ota_err *err, int errnum, const char *fmt, ...)
{
	char what[384];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof what, fmt, ap);
	va_end(ap);
	return ota_fail(err, errnum == ENOMEM ? OTA_ENOMEM : OTA_EIO, "%s: %s", what,
			strerror(errnum));
}

enum ota_code ota_fail_nomem(struct ota_err *err)
{
	return ota_fail(err, OTA_ENOMEM, "out of memory");
}

const char *ota_code_name(enum ota_code code)
{
	switch (code) {
	case OTA_OK: return "ok";
	case OTA_EINVAL: return "invalid";
	case OTA_EAUTH: return "auth";
	case OTA_ENOTFOUND: return "not_found";
	case OTA_ECONFLICT: return "conflict";
	case OTA_EGONE: return "gone";
	case OTA_ETOOLARGE: return "too_large";
	case OTA_EUNPROCESSABLE: return "unprocessable";
	case OTA_EUNAVAIL: return "unavailable";
	case OTA_ENOMEM: return "no_memory";
	case OTA_EIO: return "io";
	case OTA_EUNKNOWN: return "unknown_outcome";
	case OTA_EINTERNAL: return "internal";
	}
	return "?";
}
