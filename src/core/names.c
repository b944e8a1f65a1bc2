/* SPDX-License-Identifier: MIT */
#include "core/names.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

const char *name_device_id_error(const char *s)
{
	size_t n = strlen(s);

	if (n == 0 || n > NAME_MAX_LEN)
		return "a device id has 1 to 128 characters";
	for (size_t i = 0; i < n; i++)
		if (s[i] < 0x21 || s[i] > 0x7E || s[i] == '/' || s[i] == '+' || s[i] == '#')
			return "a device id is made of printable ASCII without spaces and without "
			       "'/', '+' and '#'";
	if (strcmp(s, ".") == 0 || strcmp(s, "..") == 0)
		return "a device id cannot be '.' or '..', which URLs take for folders";
	return NULL;
}

static bool is_version_char(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
	       c == '.' || c == '_' || c == '+' || c == '-';
}

const char *name_version_error(const char *s)
{
	size_t n = strlen(s);

	if (n == 0 || n > NAME_MAX_LEN)
		return "must have 1 to 128 characters";
	for (size_t i = 0; i < n; i++) {
		if (s[i] == ' ')
			return "must not contain spaces (only A-Z a-z 0-9 . _ + -; in a query '+' "
			       "is "
			       "written %2B)";
		if (!is_version_char(s[i]))
			return "may only contain A-Z a-z 0-9 . _ + - (in a query '+' is written "
			       "%2B)";
	}
	if (strcmp(s, ".") == 0 || strcmp(s, "..") == 0)
		return "cannot be '.' or '..', which URLs take for folders";
	return NULL;
}

const char *name_told_version_error(const char *s)
{
	size_t n = strlen(s);

	if (n == 0 || n > NAME_MAX_LEN)
		return "must have 1 to 128 characters";
	for (size_t i = 0; i < n; i++)
		if (s[i] < 0x20 || s[i] > 0x7E)
			return "must be printable ASCII";
	return NULL;
}
