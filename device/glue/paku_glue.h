/* SPDX-License-Identifier: MIT */
/*
 * What a port needs to speak with the service over any HTTP client: the URLs, the body of a
 * report, and a small extractor for the JSON answer.  C99 without heap, so that a port for a
 * microcontroller uses it as it is; not part of the core, which knows neither HTTP nor JSON.
 */
#pragma once

#include "paku_device.h"

/* Who asks.  NULL fields are left out of the question. */
struct paku_identity {
	const char *server; /* "http://host:8080", no slash at the end */
	const char *device_id;
	const char *device_model;
	const char *mac, *hw, *boot_id, *firmware_digest;
	uint32_t uptime_s;
};

/* The URL of a check-in; false if it does not fit. */
bool paku_check_url(char *out, size_t size, const struct paku_identity *id, const char *version);
/* The URL and the JSON body of a report; false if they do not fit. */
bool paku_report_url(char *out, size_t size, const struct paku_identity *id);
bool paku_report_body(char *out, size_t size, const struct paku_identity *id,
		      const struct paku_report *report);

/*
 * Reads the answer to a check-in.  False if it is not a whole JSON object, or offers an update
 * without what the agent needs: then *offer is all zero.  *retry_after_s is 0 when not given.
 */
bool paku_parse_offer(const char *json, size_t len, struct paku_offer *offer,
		      uint32_t *retry_after_s);

/* How an update ended, in the service's numbers. */
enum paku_result {
	PAKU_RESULT_SUCCESS,
	PAKU_RESULT_NO_WIFI,
	PAKU_RESULT_DOWNLOAD_FAILED,
	PAKU_RESULT_VERIFICATION_FAILED,
	PAKU_RESULT_INSTALL_FAILED,
	PAKU_RESULT_NO_PARTITION,
	PAKU_RESULT_INVALID_URL,
	PAKU_RESULT_TIMEOUT,
	PAKU_RESULT_NO_SPACE,
	PAKU_RESULT_INVALID_FIRMWARE,
	PAKU_RESULT_ALREADY_RUNNING,
	PAKU_RESULT_ROLLBACK_FAILED,
};

enum paku_result paku_why_result(enum paku_why why);
/* One sentence beginning with the result code's name in the service's list; "" for PAKU_WHY_NONE.
 */
const char *paku_why_text(enum paku_why why);
/* "downloading", "rolled_back", ... */
const char *paku_status_text(enum paku_status status);

/*
 * Head of an HTTP answer, line by line: understands Content-Length, Content-Range, ETag and
 * Retry-After (in seconds); others are passed over.  `line` need not end in NUL.
 */
void paku_head_line(struct paku_head *head, const char *line, size_t len);
