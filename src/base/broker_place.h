/* SPDX-License-Identifier: MIT */
/* Where a broker is and whom it is to be, as a command line names it. */
#pragma once

#include "base/err.h"

#include <stdint.h>

struct broker_place {
	char host[256];
	uint16_t port;
	bool tls;
};

/*
 * "HOST", "HOST:PORT" or "[HOST]:PORT", with mqtt:// or mqtts:// before it if need be.  mqtts:// is
 * TLS, and 8883 where no port is told; else 1883.  OPTION is what the sentence of OTA_EINVAL begins
 * with.
 */
enum ota_code broker_place_parse(const char *option, const char *text, struct broker_place *out,
				 struct ota_err *err) OTA_MUST_USE;

/* Files in PEM; NULL: none. */
struct broker_tls {
	const char *ca;         /* authorities to trust; NULL: the system's */
	const char *cert, *key; /* what we show; both or neither */
};

/* OTA_EINVAL, in the words of --cacert, --cert and --key: what libmosquitto would only call an
 * error of TLS when it connects. */
enum ota_code broker_tls_check(const struct broker_tls *tls, struct ota_err *err) OTA_MUST_USE;
/* A folder, for libmosquitto: it has no other way to the system's authorities with a `cert`. */
const char *broker_tls_system_authorities(void);
/* What is of use in a line of libmosquitto's log: "certificate verify failed". */
const char *broker_tls_reason(const char *log_line);
