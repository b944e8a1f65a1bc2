/* SPDX-License-Identifier: MIT */
/*
 * A streaming parser for multipart/form-data (RFC 7578, RFC 2046 5.1), fed with chunks of any size.
 *
 * Pure: one thread at a time, no I/O, no allocation; everything it holds is in struct multipart.
 * Data bytes go through exactly, whatever they look like: only a whole delimiter line (line break,
 * "--", boundary, white space, line break) ends a part.
 *
 * Forgiven: preamble and epilogue, LF instead of CRLF, white space after the boundary, headers in
 * any order, case and folding, names without quotes, filename*.  The line break of the first
 * delimiter line is the body's style: in a body that began with CRLF an LF before a boundary is
 * data, in one that began with LF a CR before it is.
 *
 * Refused, with a sentence: a body that ends before its closing boundary, a part without a name,
 * headers beyond MULTIPART_MAX_HEADERS, more than MULTIPART_MAX_PARTS parts, a content transfer
 * encoding that would have to be undone (RFC 7578 4.7 has deprecated them).
 */
#pragma once

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define MULTIPART_MAX_PARTS    32
#define MULTIPART_MAX_HEADERS  8192 /* bytes a part, line breaks included */
#define MULTIPART_MAX_BOUNDARY 200  /* RFC 2046 allows 70; some clients do not care */
#define MULTIPART_MAX_PADDING  128  /* white space after a boundary; more of it is data */

/*
 * What the parser calls.  The strings live until the callback returns.  A callback that returns
 * anything but OTA_OK, having filled *err, ends the parsing with that.
 */
struct multipart_ops {
	/* FILENAME is NULL for a plain field; CONTENT_TYPE is "text/plain" where none was sent. */
	enum ota_code (*part_begin)(void *arg, const char *name, const char *filename,
				    const char *content_type, struct ota_err *err);
	enum ota_code (*part_data)(void *arg, const void *data, size_t len, struct ota_err *err);
	enum ota_code (*part_end)(void *arg, struct ota_err *err);
};

struct multipart {
	const struct multipart_ops *ops;
	void *arg;
	struct ota_err failure; /* the first one; every later call repeats it */
	int state;
	bool lf_style, style_known, in_part;
	unsigned part_count;
	size_t boundary_len, matched; /* matched: bytes of "--boundary" seen */
	size_t padding;
	size_t held_len, header_len, line_start;
	char boundary[2 + MULTIPART_MAX_BOUNDARY + 1]; /* with its two dashes */
	char held[2 + 2 + MULTIPART_MAX_BOUNDARY + 2 + MULTIPART_MAX_PADDING + 2];
	char header[MULTIPART_MAX_HEADERS + 1];
};

_Static_assert(sizeof(struct multipart) <= 16384, "constant memory is a promise");

/*
 * The boundary of a Content-Type header (NULL: it was absent) into OUT; OTA_EINVAL when it is not
 * multipart/form-data or has no usable boundary.
 */
OTA_MUST_USE enum ota_code multipart_boundary(const char *content_type,
					      char out[MULTIPART_MAX_BOUNDARY + 1],
					      struct ota_err *err);

/* BOUNDARY is what multipart_boundary() gave; OPS and ARG must outlive *m.  Nothing to release. */
void multipart_init(struct multipart *m, const char *boundary, const struct multipart_ops *ops,
		    void *arg);
OTA_MUST_USE enum ota_code multipart_feed(struct multipart *m, const void *data, size_t len,
					  struct ota_err *err);
/* After the last chunk: OTA_EINVAL "the body was cut off ..." unless the closing boundary came. */
OTA_MUST_USE enum ota_code multipart_finish(struct multipart *m, struct ota_err *err);
