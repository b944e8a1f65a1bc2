/* SPDX-License-Identifier: MIT */
/*
 * Range and the conditions that go with a download (RFC 9110 13.1, 14.1, 14.2).
 *
 * Pure: any thread, nothing fails.  What cannot be understood is ignored, as the RFC wants: the
 * client then gets the whole image, which is always right.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum range_result {
	RANGE_NONE,          /* no range that counts: 200 with everything */
	RANGE_OK,            /* 206 with bytes *first..*last, both inclusive, both < size */
	RANGE_UNSATISFIABLE, /* 416 */
};

/*
 * HEADER may be NULL.  Ignored: another unit, a syntax error, several ranges.  A last byte beyond
 * the end is clamped, one before the first cannot be satisfied (a device that has more than this
 * image has bytes asks so); numbers of any length are compared, never wrapped.  Nothing of an empty
 * representation can be satisfied.
 */
enum range_result range_parse(const char *header, uint64_t size, uint64_t *first, uint64_t *last);

/*
 * If-None-Match: whether HEADER (NULL: no) is `*` or lists ETAG by weak comparison.  ETAG has its
 * quotes.  A list is read up to its first syntax error.
 */
bool etag_list_matches(const char *header, const char *etag);

/*
 * If-Range: whether a Range may count.  True without the header; else by strong comparison with
 * ETAG, or, for a date, when it is byte for byte LAST_MODIFIED (NULL: it never is).
 */
bool if_range_matches(const char *header, const char *etag, const char *last_modified);
