/* SPDX-License-Identifier: MIT */
/*
 * Parameters of MIME-like header values: `form-data; name="a b"; filename*=UTF-8''x%20y`.
 *
 * Pure: any thread.  Private to the parsers of this folder.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Compares the value's first word (up to white space or `;`) with TYPE, without case. */
bool mime_type_is(const char *value, const char *type);

enum mime_found { MIME_ABSENT, MIME_FOUND, MIME_TOO_LONG };

/*
 * The parameter NAME of VALUE into OUT (SIZE bytes with the NUL), quotes and their backslashes
 * undone; a backslash before anything but `"` and `\` stands for itself (Windows paths).
 */
enum mime_found mime_param(const char *value, const char *name, char *out, size_t size);

/*
 * The RFC 8187 form, charset'language'percent-encoded, decoded in place where its charset is UTF-8;
 * false, with TEXT undefined, when it is anything else or decodes to a control character.
 */
bool mime_decode_extended(char *text);
