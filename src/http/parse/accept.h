/* SPDX-License-Identifier: MIT */
/*
 * Whether an Accept header (RFC 9110 12.5.1) wants the Prometheus text or JSON.  Pure: any thread.
 */
#pragma once

#include <stdbool.h>

/*
 * True when text/plain or application/openmetrics-text has a higher q than application/json, each
 * by its most specific media range.  Absent (NULL), a tie and nonsense mean JSON.
 */
bool accept_prefers_text(const char *accept);
