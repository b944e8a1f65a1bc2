/* SPDX-License-Identifier: MIT */
/* See text.h.  UTF-8 as RFC 3629 has it: no surrogates, nothing overlong. */
#include "cli/text.h"

#include <stdint.h>
#include <string.h>
#include <wchar.h>

#define INVALID UINT32_MAX

/* The code point at S (LEN > 0 bytes left) and its length; INVALID, one byte, for broken UTF-8. */
static uint32_t decode(const char *s, size_t len, size_t *used)
{
	const unsigned char *u = (const unsigned char *)s;
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	uint32_t cp;
	size_t n;

	*used = 1;
	if (u[0] < 0x80)
		return u[0];
	if (u[0] >= 0xC2 && u[0] < 0xE0)
		n = 2;
	else if (u[0] >= 0xE0 && u[0] < 0xF0)
		n = 3;
	else if (u[0] >= 0xF0 && u[0] < 0xF5)
		n = 4;
	else
		return INVALID;
	if (n > len)
		return INVALID;
	cp = u[0] & (0x7Fu >> n);
	for (size_t i = 1; i < n; i++) {
		if ((u[i] & 0xC0) != 0x80)
			return INVALID;
		cp = cp << 6 | (u[i] & 0x3F);
	}
	if (cp < least[n] || cp > 0x10FFFF || (cp >= 0xD800 && cp < 0xE000))
		return INVALID;
	*used = n;
	return cp;
}

/* Invisible, but changes how its neighbours are shown. */
static bool is_override(uint32_t cp)
{
	return cp == 0x061C || (cp >= 0x200E && cp <= 0x200F) || (cp >= 0x2028 && cp <= 0x202E) ||
	       (cp >= 0x2066 && cp <= 0x2069) || cp == 0xFEFF;
}

static bool is_control(uint32_t cp)
{
	return cp < 0x20 || (cp >= 0x7F && cp < 0xA0);
}

void text_clean(struct buf *out, const char *s, size_t len, enum text_mode mode, bool ascii)
{
	for (size_t i = 0, used; i < len; i += used) {
		uint32_t cp = decode(s + i, len - i, &used);

		if (cp == '\n' && mode == TEXT_PARAGRAPH)
			buf_addc(out, '\n');
		else if (cp == '\n' || cp == '\t' || cp == '\r')
			buf_addc(out, ' ');
		else if (cp == INVALID)
			buf_adds(out, ascii ? "?" : "\xEF\xBF\xBD");
		else if (is_control(cp))
			buf_printf(out, "\\x%02x", (unsigned)cp);
		else if (is_override(cp))
			buf_printf(out, "\\u%04x", (unsigned)cp);
		else if (cp >= 0x80 && ascii)
			buf_addc(out, '?');
		else
			buf_add(out, s + i, used);
	}
}

void text_clean_json(struct buf *out, const char *json, size_t len)
{
	for (size_t i = 0, used; i < len; i += used) {
		uint32_t cp = decode(json + i, len - i, &used);

		if (cp != INVALID && ((is_control(cp) && cp >= 0x7F) || is_override(cp)))
			buf_printf(out, "\\u%04x", (unsigned)cp);
		else
			buf_add(out, json + i, used);
	}
}

static int width_of(uint32_t cp)
{
	int w = cp == INVALID ? 1 : wcwidth((wchar_t)cp);

	return w < 0 ? 1 : w;
}

int text_width(const char *s)
{
	size_t len = strlen(s);
	int w = 0;

	for (size_t i = 0, used; i < len; i += used)
		w += width_of(decode(s + i, len - i, &used));
	return w;
}

void text_fit(struct buf *out, const char *s, int cols, bool ascii)
{
	size_t len = strlen(s);
	int w = 0;

	if (text_width(s) <= cols) {
		buf_adds(out, s);
		return;
	}
	for (size_t i = 0, used; i < len; i += used) {
		uint32_t cp = decode(s + i, len - i, &used);

		if (w + width_of(cp) > cols - 1)
			break;
		w += width_of(cp);
		buf_add(out, s + i, used);
	}
	if (cols > 0) {
		buf_adds(out, ascii ? "~" : "\xE2\x80\xA6");
		w++;
	}
	text_pad(out, cols - w); /* a wide character did not fit into the last column */
}

void text_pad(struct buf *out, int cols)
{
	while (cols-- > 0)
		buf_addc(out, ' ');
}
